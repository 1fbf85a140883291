"""Reads what is audited, once, and refuses what cannot be: before anything is computed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    MissingSensitiveFeatureError,
    ProbabilityRangeError,
    SensitiveFeatureError,
    SingleGroupError,
)
from privfair.core.frames import as_table, as_vector, check_aligned, missing_mask
from privfair.core.quiet import untold
from privfair.report._clean import clean_label, clean_text, unique_labels
from privfair.report._config import AuditConfig, Predictions

__all__ = [
    "AuditedModel",
    "binary_labels",
    "positive_class",
    "read_groups",
    "read_models",
    "slug",
    "slugs",
]

MAX_GROUPS = 60
MAX_CODES = 12
"""A numeric sensitive feature with more distinct values is a quantity, and needs cuts."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AuditedModel:
    """One model as the audit sees it: decisions, scores, guarantee, description."""

    id: str
    name: str
    kind: str
    decisions: Bools
    scores: NDArray[np.float64] | None = None
    probability: bool = False
    privacy: Any = None
    class_name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def slug(text: str) -> str:
    """Return a short ASCII identifier.

    Examples
    --------
    >>> slug("DPClassifier, epsilon 1"), slug("Größe"), slug("性别")
    ('dpclassifier_epsilon_1', 'grosse', '')
    """
    folded = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    ascii_text = folded.encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", ascii_text).strip("_")[:40]


def slugs(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Return a distinct identifier for each name."""
    out: dict[str, str] = {}
    for k, name in enumerate(names, 1):
        base = slug(name) or f"{prefix}{k}"
        if not base[0].isalpha():
            base = f"{prefix}{base}"
        found, again = base, 2
        while found in out.values():
            found, again = f"{base}_{again}", again + 1
        out[name] = found
    return out


# -- labels and decisions -------------------------------------------------------------------
def _classes(values: NDArray[Any], name: str, private: bool) -> list[Any]:
    gone = missing_mask(values)
    if gone.any():
        many = "missing values" if private else f"{int(gone.sum())} missing values"
        raise LabelError(
            f"{name} has {many}. A missing label is neither positive nor negative; drop these "
            "rows, or give them a class."
        )
    if values.dtype.kind == "O":
        return sorted(set(values.tolist()), key=lambda v: (type(v).__name__, str(v)))
    return list(np.unique(values).tolist())


def _listed(classes: Sequence[Any]) -> str:
    if len(classes) > 10:
        return f"{len(classes)} distinct values"
    return ", ".join(repr(clean_text(c) if isinstance(c, str) else c) for c in classes)


def positive_class(
    values: NDArray[Any], pos_label: Any, name: str, *, private: bool = False
) -> Any:
    """Return the positive class, or say why it cannot be told.

    Parameters
    ----------
    values : ndarray, shape (n_rows,)
        Labels or decisions.
    pos_label : object
        The class that was named, or None.
    name : str
        What the values are called in error messages.
    private : bool
        Whether errors tell nothing about the values: for reports under differential privacy.

    Returns
    -------
    object
        1 for {0, 1} and {-1, 1}, else the class named.

    Raises
    ------
    LabelError
        No class was named and none can be taken, or the one named does not occur.

    Examples
    --------
    >>> import numpy as np
    >>> positive_class(np.array([0, 1, 1]), None, "y")
    1
    """
    classes = _classes(values, name, private)
    if pos_label is not None:
        for candidate in (pos_label, _as_number(pos_label)):
            if candidate in classes:
                return candidate
        holds = "" if private else f", which holds {_listed(classes)}"
        raise LabelError(
            f"pos_label={pos_label!r} does not occur in {name}{holds}. Every rate would be 0; "
            "check the spelling and the type."
        )
    if len(classes) == 1 and classes[0] in (0, 1):
        return 1
    if private and not (set(classes) <= {0, 1} or set(classes) <= {-1, 1}):
        raise LabelError(
            f"{name} holds other values than 0 and 1. Which ones is private; pass pos_label (on "
            "the command line --pos-label), the class to be audited against all others."
        )
    if len(classes) == 1:
        raise LabelError(
            f"{name} holds one class only, {_listed(classes)}: no error rate can be computed. "
            "Audit rows of both classes, or pass pos_label if this class is the positive one."
        )
    if len(classes) > 2:
        raise LabelError(
            f"{name} must be binary, got {_listed(classes)}. Pass pos_label (on the command line "
            "--pos-label), the class to be audited against all others; turn scores into decisions "
            "with a threshold."
        )
    if set(classes) <= {0, 1} or set(classes) <= {-1, 1}:
        return 1
    raise LabelError(
        f"{name} holds {_listed(classes)}; which one is positive cannot be guessed. Pass "
        "pos_label (on the command line --pos-label)."
    )


def _as_number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else number
    return value


def binary_labels(values: Any, positive: Any, name: str, private: bool) -> Bools:
    """Return which entries are of the positive class."""
    vector = as_vector(values, name=name)
    _classes(vector, name, private)
    return np.asarray(vector == positive, dtype=bool)


def _check_decisions(
    decisions: NDArray[Any], labels: NDArray[Any], name: str, private: bool
) -> None:
    known, seen = set(_classes(labels, "y", private)), set(_classes(decisions, name, private))
    texts = {isinstance(c, str) for c in known | seen}
    if len(texts) > 1:
        both = "" if private else f" ({_listed(list(known))} and {_listed(list(seen))})"
        raise LabelError(
            f"the labels and the decisions of {name} mix text and numbers{both}, so that none "
            "would match. Convert them to one type."
        )
    if decisions.dtype.kind == "f" and not np.equal(decisions, np.floor(decisions)).all():
        raise LabelError(
            f"the decisions of {name} are not classes but numbers with fractions: probabilities, "
            "perhaps. Pass decisions (score >= threshold), and the score as y_score."
        )
    strange = seen - known
    if strange and not (known | seen) <= {0, 1}:
        held = "classes" if private else _listed(sorted(strange, key=str))
        others = "" if private else f" ({_listed(sorted(known, key=str))})"
        raise LabelError(
            f"the decisions of {name} hold {held}, which the labels do not{others}. Use one set "
            "of classes for both."
        )


# -- models ---------------------------------------------------------------------------------
def _scores(model: Any, X: Any, positive: Any) -> NDArray[np.float64] | None:
    if not hasattr(model, "predict_proba"):
        return None
    classes = list(model.classes_)
    table = np.asarray(model.predict_proba(X), dtype=float)
    return table[:, classes.index(positive)] if positive in classes else None


def _parameters(model: Any) -> dict[str, str]:
    """Return the parameters that differ from their defaults, as cleaned text."""
    if not hasattr(model, "get_params"):
        return {}
    try:
        changed = {k: v for k, v in model.get_params(deep=False).items() if v is not None}
    except (TypeError, AttributeError):
        return {}
    return {
        clean_label(k): clean_label(repr(v), 160)
        for k, v in sorted(changed.items())
        if isinstance(v, bool | int | float | str)
    }


def _guarantee(model: Any) -> Any:
    """Return the guarantee of a fitted model, or of the last step of its pipeline."""
    found = getattr(model, "privacy_", None)
    if found is None and hasattr(model, "steps"):
        found = getattr(model.steps[-1][1], "privacy_", None)
    return found


def _class_name(model: Any) -> str:
    if hasattr(model, "steps"):
        return " > ".join(type(step).__name__ for _, step in model.steps)
    return type(model).__name__


def _probabilities(scores: NDArray[np.float64], name: str, probability: bool) -> None:
    if not np.isfinite(scores).all():
        raise DataError(f"the scores of {name} must be finite in every row, got NaN or inf.")
    if probability and scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ProbabilityRangeError(
            f"the scores of {name} must be probabilities in [0, 1]. Calibration means nothing "
            "otherwise. Rescale them, or declare that they only order rows "
            "(Predictions(probability=False), on the command line --score-kind rank)."
        )


def _one_model(
    model_id: str,
    name: str,
    given: Any,
    X: Any,
    labels: NDArray[Any] | None,
    positive: Any,
    n: int,
    aligned: Mapping[str, Any],
    private: bool,
) -> AuditedModel:
    if hasattr(given, "predict"):
        if X is None:
            raise InvalidTypeError(f"X is None, and the estimator {name} needs it to predict.")
        with untold(private, f"the estimator {name}"):
            decisions = as_vector(given.predict(X), name=f"predictions of {name}")
            scores = _scores(given, X, positive)
        probability, kind = True, "estimator"
        extra: dict[str, Any] = {
            "privacy": _guarantee(given),
            "class_name": clean_label(_class_name(given), 160),
            "parameters": _parameters(given),
        }
    else:
        p = given if isinstance(given, Predictions) else Predictions(given)
        decisions = as_vector(p.y_pred, name=f"decisions of {name}")
        scores = None if p.y_score is None else as_vector(p.y_score, name=f"scores of {name}")
        if scores is not None:
            if scores.dtype.kind not in "fiub":
                raise InvalidTypeError(f"the scores of {name} must be numbers.")
            scores = scores.astype(float)
        probability, kind = p.probability, "decisions"
        extra = {"privacy": p.privacy, "class_name": "decisions as given"}
    for what, column in (("decisions", decisions), ("scores", scores)):
        if column is not None and len(column) != n:
            from privfair.core.exceptions import LengthMismatchError

            raise LengthMismatchError(
                f"the {what} of {name} have {len(column)} rows, and there are {n} audited rows."
            )
    if not hasattr(given, "predict"):
        for what, column in (("decisions", p.y_pred), ("scores", p.y_score)):
            for other, rows in aligned.items():
                check_aligned(**{other: rows, f"the {what} of {name}": column})
    if labels is not None:
        _check_decisions(decisions, labels, name, private)
    if scores is not None:
        _probabilities(scores, name, probability)
    return AuditedModel(
        model_id, name, kind, np.asarray(decisions == positive, dtype=bool), scores,
        probability and scores is not None, **extra,
    )  # fmt: skip


def _named(given: Any, fallback: str) -> str:
    if isinstance(given, Predictions) and given.name:
        return clean_label(given.name)
    return clean_label(_class_name(given)) if hasattr(given, "predict") else fallback


def read_models(
    subject: Any,
    reference: Any,
    X: Any,
    labels: NDArray[Any] | None,
    positive: Any,
    n: int,
    aligned: Mapping[str, Any],
    private: bool,
) -> tuple[list[AuditedModel], str]:
    """Return the audited models, subject first, and the identifier of the reference."""
    given: dict[str, Any]
    if isinstance(subject, Mapping):
        if not subject:
            raise InvalidParameterError("no model was given: the mapping is empty.")
        given = {clean_label(k): v for k, v in subject.items()}
        if len(given) != len(subject):
            raise InvalidParameterError("two models have names that read the same; rename one.")
    else:
        given = {_named(subject, "decisions"): subject}
    chosen = next(iter(given))
    if isinstance(reference, str):
        if reference not in given:
            raise InvalidParameterError(
                f"reference={reference!r} is none of the models: {', '.join(given)}."
            )
        chosen = reference
    elif reference is not None:
        name = _named(reference, "reference")
        chosen = name if name not in given else f"{name} (reference)"
        given[chosen] = reference
    ids = slugs(given, "model_")
    models = [
        _one_model(ids[name], name, item, X, labels, positive, n, aligned, private)
        for name, item in given.items()
    ]
    return models, ids[chosen]


# -- groups ---------------------------------------------------------------------------------
def read_groups(
    sensitive_features: Any, config: AuditConfig
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Return the clean group of each row, and the groups in order, by attribute."""
    from privfair.fairness import bin_sensitive

    if sensitive_features is None:
        raise SensitiveFeatureError(
            "sensitive_features is None: an audit compares groups. Pass one or more columns, "
            "aligned with the labels by position (on the command line --sensitive NAME)."
        )
    table = as_table(sensitive_features, name="sensitive_features", prefix="attribute")
    absent = [name for name in config.cuts if name not in table.columns]
    if absent:
        raise InvalidParameterError(
            f"cuts are given for {absent}, which is not among the sensitive features "
            f"{list(table.columns)}."
        )
    names = unique_labels(table.columns, 40)
    columns: dict[str, NDArray[Any]] = {}
    levels: dict[str, list[str]] = {}
    for raw in table.columns:
        name, values = names[raw], table.column(raw)
        if raw in config.cuts:
            values = bin_sensitive(
                values, list(config.cuts[raw]), name=raw, missing_group=config.missing_group
            )
            order: list[Any] = _bin_order(list(config.cuts[raw]))
        else:
            values, order = _text_groups(values, raw, config.missing_group)
        found = set(values.tolist())
        ordered = [v for v in order if v in found] + sorted(found - set(order), key=str)
        label = unique_labels(ordered)
        columns[name] = np.array([label[v] for v in values.tolist()], dtype=object)
        levels[name] = [label[v] for v in ordered]
        _check_levels(name, levels[name])
    return columns, levels


def _bin_order(cuts: list[float]) -> list[Any]:
    from privfair.fairness import bin_sensitive

    inner = [(a + b) / 2 for a, b in zip(cuts, cuts[1:], strict=False)]
    return list(bin_sensitive([cuts[0] - 1.0, *inner, cuts[-1] + 1.0], cuts).tolist())


def _text_groups(
    values: NDArray[Any], name: str, missing: str | None
) -> tuple[NDArray[Any], list[Any]]:
    gone = missing_mask(values)
    if gone.any() and missing is None:
        raise MissingSensitiveFeatureError(
            f"sensitive feature {name!r} has {int(gone.sum())} missing values of {gone.size}. "
            "Dropping them would hide a group. Pass missing_group='missing' (on the command line "
            "--missing-group) to count them as a group of their own."
        )
    present = values[~gone]
    numeric = values.dtype.kind in "fiu"
    if numeric:
        if not np.isfinite(present).all():
            raise SensitiveFeatureError(
                f"sensitive feature {name!r} holds infinite values, which belong to no group. "
                "Give these rows a group, or make the values missing and pass missing_group."
            )
        codes = np.unique(present)
        if codes.size > MAX_CODES or not np.equal(codes, np.floor(codes)).all():
            raise SensitiveFeatureError(
                f"sensitive feature {name!r} is a quantity with {codes.size} distinct values. "
                f"Declare its cuts as public knowledge: cuts={{{name!r}: [25, 45, 65]}} (on the "
                f"command line --bin {name}=25,45,65). Cuts read from the data depend on them."
            )
        order = [str(int(c)) for c in codes]
        text = [str(int(v)) for v in present.tolist()]
    else:
        text = [str(v) for v in present.tolist()]
        order = sorted(set(text))
    if missing is not None and missing in set(text):
        raise SensitiveFeatureError(
            f"sensitive feature {name!r} already has a group {missing!r}; choose another "
            "missing_group."
        )
    out = np.empty(values.shape, dtype=object)
    out[~gone] = text
    out[gone] = missing
    return out, order


def _check_levels(name: str, levels: list[str]) -> None:
    if len(levels) < 2:
        raise SingleGroupError(
            f"sensitive feature {name!r} has one group only ({', '.join(levels)}), so that there "
            "is nothing to compare. Audit rows of all groups, or drop this feature."
        )
    if len(levels) > MAX_GROUPS:
        raise SensitiveFeatureError(
            f"sensitive feature {name!r} has {len(levels)} groups, at most {MAX_GROUPS} can be "
            "read in a report. It may be an identifier; otherwise pool its values."
        )
