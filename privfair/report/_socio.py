"""Who of the audited rows is underprivileged, and who shows effort, by declared rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
)
from privfair.core.frames import as_table, as_vector
from privfair.report._clean import clean_label

__all__ = ["Socio", "read_socio"]

Bools = NDArray[np.bool_]
_NAMED = {"adult_capital_gain": "capital_gain", "adult_education": "education"}


@dataclass(frozen=True, eq=False)
class Socio:
    """Status and effort of each row.

    Attributes
    ----------
    low : dict of str to ndarray of bool
        Who is underprivileged, by the name of the rule.
    words : dict of str to str
        Each rule as it reads.
    effort : ndarray of bool or None
        Who shows effort.
    effort_words : str
    hours : ndarray of float or None
        The effort itself, where a rule names its column.
    hours_name : str
    """

    low: dict[str, Bools]
    words: dict[str, str]
    effort: Bools | None = None
    effort_words: str = ""
    hours: NDArray[np.float64] | None = None
    hours_name: str = ""


def read_socio(
    ses: Any, effort: Any, ses_features: Any, effort_features: Any, X: Any, sensitive: Any, n: int
) -> Socio | None:
    """Return status and effort of each row, or None where no rule was given."""
    if ses is None:
        for name, value in (("effort", effort), ("ses_features", ses_features),
                            ("effort_features", effort_features)):  # fmt: skip
            if value is not None:
                raise InvalidParameterError(
                    f"{name} was given and ses was not: effort is compared between people of low "
                    "and of high status. Pass ses=SESRule(column, '<', threshold), or a preset."
                )
        return None
    low, words = {}, {}
    for name, rule in _rules(ses).items():
        found = _preset(rule, "ses_preset") if isinstance(rule, str) else rule
        low[name] = _mask(found, X if ses_features is None else ses_features, n, "ses")
        words[name] = clean_label(str(found), 120) if hasattr(found, "apply") else "as given"
    if effort is None:
        return Socio(low, words)
    rule = _preset(effort, "effort_preset") if isinstance(effort, str) else effort
    home = X if effort_features is None else effort_features
    if getattr(rule, "rank_within", None) is not None:
        rule, mask = _ranked(rule, home, sensitive, next(iter(low.values())))
    else:
        mask = _mask(rule, home, n, "effort")
    hours, hours_name = None, ""
    if hasattr(rule, "column"):
        table = as_table(home, name="effort_features", prefix="effort")
        hours = table.column(rule.column).astype(float)
        hours_name = clean_label(rule.column)
    text = clean_label(str(rule), 120) if hasattr(rule, "apply") else "as given"
    return Socio(low, words, mask, text, hours, hours_name)


def _rules(ses: Any) -> dict[str, Any]:
    if isinstance(ses, Mapping):
        named = {clean_label(k): v for k, v in ses.items()}
    elif isinstance(ses, str):
        named = {_NAMED.get(ses, ses): ses}
    elif isinstance(ses, Sequence) and ses and all(isinstance(s, str) for s in ses):
        named = {_NAMED.get(str(s), str(s)): s for s in ses}
    else:
        named = {"status": ses}
    if not named:
        raise InvalidParameterError("ses holds no rule.")
    return named


def _preset(name: str, home: str) -> Any:
    from privfair.fairness import sep

    return getattr(sep, home)(name)


def _mask(rule: Any, features: Any, n: int, name: str) -> Bools:
    if hasattr(rule, "apply"):
        if features is None:
            raise DataError(
                f"{name} is a rule on columns, and there are none: pass X, or {name}_features."
            )
        found = np.asarray(rule.apply(features), dtype=bool)
    else:
        values = as_vector(rule, name=name)
        if values.dtype.kind != "b":
            raise InvalidTypeError(
                f"{name} must be a rule, the name of a preset, or True and False for each row; "
                f"got {values.dtype}. A status that is a number needs a threshold: "
                "SESRule(column, '<', threshold)."
            )
        found = values
    if len(found) != n:
        raise LengthMismatchError(f"{name} has {len(found)} rows, and there are {n} audited rows.")
    return found


def _ranked(rule: Any, features: Any, sensitive: Any, low: Bools) -> tuple[Any, Bools]:
    """Rank effort among rows of the same type; the audited rows are their own reference."""
    tables = [as_table(features, name="effort_features", prefix="effort")]
    tables.append(as_table(sensitive, name="sensitive_features", prefix="attribute"))
    columns = []
    for name in rule.rank_within:
        home = next((t for t in tables if name in t.columns), None)
        if home is not None:
            columns.append(home.column(name).tolist())
        elif name == "ses":
            columns.append(np.where(low, "low", "high").tolist())
        else:
            raise DataError(
                f"rank_within names {name!r}, which is among neither the sensitive features nor "
                "the effort features, nor 'ses' (low or high status)."
            )
    types = np.array(["\x1f".join(map(str, row)) for row in zip(*columns, strict=True)], object)
    fitted = rule if rule.fitted else rule.fit(features, types)
    return fitted, np.asarray(fitted.apply(features, types), dtype=bool)
