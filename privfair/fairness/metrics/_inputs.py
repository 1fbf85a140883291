"""Reads labels, decisions, scores, weights and groups, once, before anything is computed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    MissingSensitiveFeatureError,
    ProbabilityRangeError,
    SensitiveFeatureError,
)
from privfair.core.frames import as_table, as_vector, check_aligned, missing_mask

__all__ = [
    "DEFAULT_POS_LABEL",
    "MULTICLASS",
    "Groups",
    "bin_sensitive",
    "binary",
    "read_groups",
    "read_scores",
    "read_weights",
]

MAX_NUMERIC_CODES = 12
"""A column of whole numbers with more distinct values than this is a quantity, not a code."""

MAX_GROUPS = 10_000


class _DefaultLabel(int):
    """The default 1, told apart from a 1 that the caller wrote."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_default_label, ())


def _default_label() -> _DefaultLabel:
    return DEFAULT_POS_LABEL


DEFAULT_POS_LABEL = _DefaultLabel(1)
MULTICLASS = "more than two classes and no pos_label"


# --- labels ---------------------------------------------------------------------------------


def _distinct(values: NDArray[Any], name: str) -> list[Any]:
    if missing_mask(values).any():
        raise LabelError(
            f"{name} has missing values. A missing label or decision is neither positive nor "
            "negative; drop these rows or say what they mean."
        )
    if values.dtype.kind == "O":
        return list(dict.fromkeys(values.tolist()))
    return list(np.unique(values).tolist())


def _show(values: Sequence[Any]) -> str:
    """Name at most five classes."""
    shown = ", ".join(repr(v)[:40] for v in list(values)[:5])
    return shown + (f", ... ({len(values)} in all)" if len(values) > 5 else "")


def binary(
    arrays: Mapping[str, Any], pos_label: Any, *, private: bool = False
) -> tuple[dict[str, NDArray[np.bool_]] | None, dict[str, NDArray[Any]]]:
    """Return for each array which entries are positive, or None for undeclared multi-class.

    Parameters
    ----------
    arrays : mapping of name to array-like
        Labels and decisions that share one set of classes.
    pos_label : object
        The positive class; everything else is negative (one versus rest).
    private : bool
        Whether errors name no class: under ``privacy=`` which classes occur is private.

    Returns
    -------
    positive : dict of bool arrays, or None
        None when there are more than two classes and ``pos_label`` was not given.
    raw : dict of arrays
    """
    raw = {name: as_vector(values, name=name) for name, values in arrays.items()}
    _check_classes(raw)
    classes = list(dict.fromkeys(c for name, v in raw.items() for c in _distinct(v, name)))
    given = pos_label is not DEFAULT_POS_LABEL
    label = pos_label if given else 1
    if hasattr(label, "item") and getattr(label, "ndim", None) == 0:
        label = label.item()
    names = " and ".join(raw)
    shown = "" if private else _show(classes)
    if len({isinstance(c, str) for c in classes}) > 1:
        raise LabelError(
            f"{names} mix text and numbers{f' ({shown})' if shown else ''}, so that no label "
            "equals any decision. Convert them to one type."
        )
    if not given and (
        any(isinstance(c, str) for c in classes)
        or (len(classes) <= 2 and not set(classes) <= {-1, 0, 1})
    ):
        if len(classes) > 2:
            return None, raw
        raise LabelError(
            f"{names} hold {f'the classes {shown}' if shown else 'other classes than 0 and 1'}; "
            "which one is positive cannot be guessed. Pass pos_label=..., the class that the "
            "rates count."
        )
    if len(classes) > 2 and not given:
        return None, raw
    if given and len(classes) >= 2 and label not in classes:
        hold = f", which hold {shown}" if shown else ""
        raise LabelError(
            f"pos_label={label!r} does not occur in {names}{hold}. Every rate would be 0; check "
            "the spelling and the type."
        )
    return {name: np.asarray(values == label, dtype=bool) for name, values in raw.items()}, raw


def _check_classes(raw: Mapping[str, NDArray[Any]]) -> None:
    for name, values in raw.items():
        if values.dtype.kind not in "fiubO":
            raise LabelError(f"{name} must hold classes: numbers, booleans or text.")
        if values.dtype.kind != "f" or missing_mask(values).any():
            continue
        if not np.equal(values, np.floor(values)).all() or np.isinf(values).any():
            raise LabelError(
                f"{name} holds numbers that are not classes (probabilities, perhaps). Pass "
                "decisions here, for instance scores >= threshold, and scores as y_score."
            )


# --- weights and scores ---------------------------------------------------------------------


def read_weights(sample_weight: Any, n: int) -> NDArray[np.float64] | None:
    """Return checked weights, or None."""
    if sample_weight is None:
        return None
    values = as_vector(sample_weight, name="sample_weight")
    if values.dtype.kind not in "fiu":
        raise InvalidTypeError("sample_weight must be numbers.")
    weights = values.astype(float)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError("sample_weight must be finite and non-negative in every row.")
    if n and weights.sum() == 0:
        raise DataError("sample_weight is zero in every row, so that nothing can be estimated.")
    return weights


def read_scores(y_score: Any, *, probability: bool) -> NDArray[np.float64]:
    """Return checked scores."""
    values = as_vector(y_score, name="y_score")
    if values.dtype.kind not in "fiub":
        raise InvalidTypeError("y_score must be numbers, one per row: the score of pos_label.")
    scores = values.astype(float)
    if not np.isfinite(scores).all():
        raise DataError("y_score must be finite in every row, got NaN or inf.")
    if probability and scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ProbabilityRangeError(
            "y_score must be probabilities in [0, 1] for this metric. Rescale the score to a "
            "probability, or use auc, which needs an order only."
        )
    return scores


# --- groups ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of every row.

    Attributes
    ----------
    features : tuple of str
        Names of the sensitive columns.
    labels : tuple of tuple of str
        One value per column for each group, empty groups included.
    codes : ndarray of int, shape (n_rows,)
        Position in ``labels``; -1 for rows whose group is not among the public groups.
    """

    features: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    codes: NDArray[np.int64]


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _levels(
    values: NDArray[Any], name: str, missing_group: str | None, declared: bool
) -> NDArray[Any]:
    """Return one column as text, missing values under the name that the policy gives."""
    gone = missing_mask(values)
    if gone.any() and missing_group is None:
        # Declared groups are for releases, where a count would be an unpaid answer about rows.
        many = "" if declared else f" ({int(gone.sum())} of {gone.size})"
        raise MissingSensitiveFeatureError(
            f"sensitive feature {name!r} has missing values{many}. Dropping them would "
            "hide a group. Pass missing_group='missing' (on the command "
            "line --missing-group) to count them as a group of their own."
        )
    present = values[~gone]
    if not declared and values.dtype.kind in "fiu":
        codes = np.unique(present)
        whole = bool(np.equal(codes, np.floor(codes)).all()) if codes.size else True
        if not whole or codes.size > MAX_NUMERIC_CODES:
            raise SensitiveFeatureError(
                f"sensitive feature {name!r} is a quantity with {codes.size} distinct values. "
                f"Declare its cuts, as public knowledge: cuts={{{name!r}: [25, 45, 65]}} (on the "
                f"command line --bin {name}=25,45,65). Cuts read from the data would depend on "
                "them."
            )
    out = np.empty(values.shape, dtype=object)
    out[~gone] = [_text(v) for v in present.tolist()]
    if gone.any():
        out[gone] = missing_group
    if len(set(present.tolist())) > len(set(out[~gone].tolist())):
        raise SensitiveFeatureError(
            f"sensitive feature {name!r} has different values that read the same (such as 1 and "
            "'1'). They would be merged into one group; convert the column to one type."
        )
    if gone.any() and missing_group in set(out[~gone].tolist()):
        raise SensitiveFeatureError(
            f"sensitive feature {name!r} already has a value {missing_group!r}; choose another "
            "missing_group."
        )
    return out


def bin_sensitive(
    values: Any, cuts: Sequence[float], *, name: str = "values", missing_group: str | None = None
) -> NDArray[Any]:
    """Return the group of every value of a numeric attribute, from declared cuts.

    Parameters
    ----------
    values : array-like of numbers, shape (n_rows,)
    cuts : sequence of float
        Strictly increasing; ``[25, 45]`` makes ``"< 25"``, ``"25 to < 45"`` and ``">= 45"``.
        They are public knowledge and never read from the data.
    name : str
        The attribute's name in error messages.
    missing_group : str or None
        Group of missing values; None makes them an error.

    Returns
    -------
    ndarray of object, shape (n_rows,)

    Raises
    ------
    InvalidParameterError
        Cuts that are not finite and strictly increasing.
    SensitiveFeatureError
        An attribute that is not numeric.
    MissingSensitiveFeatureError
        Missing values without a policy.

    Notes
    -----
    Each bin holds its lower cut: at cuts ``[25]`` an age of 25 belongs to ``">= 25"``.

    Examples
    --------
    >>> bin_sensitive([18, 25, 70], [25, 65]).tolist()
    ['< 25', '25 to < 65', '>= 65']
    """
    edges = np.asarray(cuts, dtype=float).reshape(-1)
    if edges.size == 0 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise InvalidParameterError(
            f"cuts of {name!r} must be finite, strictly increasing numbers, got {list(cuts)}."
        )
    column = as_vector(values, name=name)
    if column.dtype.kind not in "fiu":
        raise SensitiveFeatureError(
            f"sensitive feature {name!r} is not numeric, so that cuts do not apply to it."
        )
    gone = missing_mask(column)
    if gone.any() and missing_group is None:
        raise MissingSensitiveFeatureError(
            f"sensitive feature {name!r} has missing values. Pass "
            "missing_group='missing' to count them as a group of their own."
        )
    labels = np.array(bin_labels(edges.tolist()), dtype=object)
    out = np.empty(column.shape, dtype=object)
    out[~gone] = labels[np.searchsorted(edges, column[~gone].astype(float), side="right")]
    out[gone] = missing_group
    return out


def bin_labels(cuts: Sequence[float]) -> list[str]:
    """Return the names of the bins that the cuts make, in order."""
    texts = [f"{c:g}" for c in cuts]
    inner = [f"{a} to < {b}" for a, b in itertools.pairwise(texts)]
    return [f"< {texts[0]}", *inner, f">= {texts[-1]}"]


def _declared_labels(groups: Any, features: Sequence[str]) -> list[tuple[str, ...]]:
    """Return public groups as tuples of text, in the caller's order."""
    if isinstance(groups, Mapping):
        unknown = [f for f in features if f not in groups]
        if unknown or len(groups) != len(features):
            raise InvalidParameterError(
                f"groups names the columns {list(groups)}, the sensitive features are "
                f"{list(features)}."
            )
        levels = [[_text(v) for v in groups[f]] for f in features]
        found = [tuple(item) for item in itertools.product(*levels)]
    else:
        found = []
        for item in groups:
            parts = item if isinstance(item, tuple | list) else (item,)
            if len(parts) != len(features):
                raise InvalidParameterError(
                    f"each of groups must have {len(features)} values, one for each of "
                    f"{list(features)}; got {len(parts)}."
                )
            found.append(tuple(_text(v) for v in parts))
    if not found or len(set(found)) != len(found):
        raise InvalidParameterError("groups must list at least one group, each one once.")
    return found


def read_groups(
    sensitive_features: Any,
    *,
    groups: Any = None,
    cuts: Mapping[str, Sequence[float]] | None = None,
    missing_group: str | None = None,
) -> Groups:
    """Return the group of every row, with every group that could occur.

    Several columns are crossed: every combination of their values is a group, also when no row
    has it. ``groups`` replaces what the data hold by public knowledge.
    """
    if sensitive_features is None:
        raise SensitiveFeatureError(
            "sensitive_features is None, but groups are what this metric compares. Pass one or "
            "more columns, aligned with the labels by position."
        )
    if missing_group is not None and not isinstance(missing_group, str):
        raise InvalidTypeError(f"missing_group must be a name or None, got {missing_group!r}.")
    if isinstance(groups, str):
        raise InvalidTypeError("groups must be a list of groups, got one string.")
    table = as_table(sensitive_features, name="sensitive_features", prefix="sensitive_feature_")
    binned = dict(cuts or {})
    unknown = [c for c in binned if c not in table.columns]
    if unknown:
        raise InvalidParameterError(
            f"cuts names {unknown}, which is not among the sensitive features "
            f"{list(table.columns)}."
        )
    columns, orders = [], []
    for name in table.columns:
        values = table.column(name)
        if name in binned:
            columns.append(
                bin_sensitive(values, binned[name], name=name, missing_group=missing_group)
            )
            order = bin_labels([float(c) for c in binned[name]])
            extra = [missing_group] if missing_group in set(columns[-1].tolist()) else []
            orders.append(order + [e for e in extra if e is not None])
        else:
            columns.append(_levels(values, name, missing_group, groups is not None))
            orders.append(_sorted_levels(columns[-1], values))
    if groups is not None:
        labels = _declared_labels(groups, table.columns)
    else:
        if math.prod(len(order) for order in orders) > MAX_GROUPS:
            raise SensitiveFeatureError(
                f"the sensitive features cross to more than {MAX_GROUPS} groups. Use fewer "
                "columns or coarser categories."
            )
        labels = [tuple(item) for item in itertools.product(*orders)]
    return Groups(table.columns, tuple(labels), _codes(columns, labels))


def _sorted_levels(column: NDArray[Any], values: NDArray[Any]) -> list[str]:
    levels = list(dict.fromkeys(column.tolist()))
    if values.dtype.kind in "fiu":

        def key(text: str) -> tuple[int, float, str]:
            try:
                return (0, float(text), text)
            except ValueError:
                return (1, 0.0, text)

        return sorted(levels, key=key)
    return sorted(levels)


def _codes(columns: list[NDArray[Any]], labels: list[tuple[str, ...]]) -> NDArray[np.int64]:
    """Number the rows by group: each column once, then mixed-radix into one code."""
    import pandas as pd

    combined = np.zeros(columns[0].shape, dtype=np.int64)
    table = np.zeros(len(labels), dtype=np.int64)
    outside = np.zeros(columns[0].shape, dtype=bool)
    for position, column in enumerate(columns):
        levels = list(dict.fromkeys(label[position] for label in labels))
        codes = pd.Index(levels, dtype=object).get_indexer(pd.Index(column, dtype=object))
        outside |= codes < 0
        where = {level: index for index, level in enumerate(levels)}
        combined = combined * len(levels) + np.maximum(codes, 0)
        table = table * len(levels) + np.array([where[label[position]] for label in labels])
    order = np.argsort(table)
    place = np.minimum(np.searchsorted(table[order], combined), len(labels) - 1)
    found = order[place]
    hit = (table[found] == combined) & ~outside
    return np.where(hit, found, -1).astype(np.int64)


def check_rows(**arrays: Any) -> int:
    """Check the alignment of everything that has rows, and that there are any."""
    n = check_aligned(**arrays)
    if n == 0:
        raise DataError("the data have no rows, so that nothing can be estimated.")
    return n


def check_thresholds(min_count: int, min_pos: int, min_neg: int) -> None:
    """Check the smallest denominators."""
    check.non_negative_int(min_count=min_count)
    check.non_negative_int(min_pos=min_pos)
    check.non_negative_int(min_neg=min_neg)
