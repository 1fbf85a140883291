"""Who counts as underprivileged: rules on columns of socio-economic status."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
)
from privfair.core.frames import Table, as_table
from privfair.fairness.metrics._inputs import read_weights
from privfair.fairness.sep._ranks import weighted_quantile

__all__ = ["JoinedRules", "Rule", "SESRule", "inside", "learning_weight", "numeric_column"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
OPERATORS: dict[str, Any] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def numeric_column(table: Table, name: str, *, of: str) -> Floats:
    """Return a column of finite numbers; a single unnamed column goes by any name."""
    only = len(table.columns) == 1 and not table.has_names
    column = table.column(table.columns[0] if only else name)
    if column.dtype.kind not in "fiub":
        raise DataError(
            f"column {name!r} of {of} is not numeric, and a rule compares numbers. Give the "
            "categories an order of your own, as a numeric column."
        )
    values = column.astype(float)
    if not np.isfinite(values).all():
        raise DataError(
            f"column {name!r} of {of} has missing or infinite values: whether these people are "
            "above or below a threshold is not known. Drop the rows or say what they mean."
        )
    return values


class Rule(ABC):
    """What a rule on columns can do: learn its thresholds, and say who is in.

    Rules combine with ``&`` and ``|``. They are immutable: :meth:`fit` returns a new rule.
    """

    columns: tuple[str, ...]

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether every threshold is a number."""

    @property
    @abstractmethod
    def public(self) -> bool:
        """Whether membership depends on a record and on public constants only."""

    @abstractmethod
    def fit(self, features: Any, *, sample_weight: Any = None) -> Rule:
        """Return the rule with thresholds learnt from these rows, where it has any to learn."""

    @abstractmethod
    def apply(self, features: Any) -> Bools:
        """Return which rows the rule selects, shape (n_rows,)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON data."""

    def __and__(self, other: Rule) -> Rule:
        return JoinedRules("and", (self, other))

    def __or__(self, other: Rule) -> Rule:
        return JoinedRules("or", (self, other))

    def _table(self, features: Any) -> Table:
        if not self.fitted:
            raise InvalidParameterError(
                f"{self} has thresholds to learn. Call fit(features) first, on training rows."
            )
        return as_table(features, name="ses_features", prefix="ses")


@dataclass(frozen=True)
class SESRule(Rule):
    """Select rows by one numeric column and a threshold.

    Parameters
    ----------
    column : str
        The privilege attribute (capital, years of education); low means underprivileged.
    op : {"<", "<=", ">", ">="}, default="<"
        How the value compares with the threshold.
    threshold : float or None, default=None
        Finite. A number is a public constant; None is made by :meth:`quantile` only.
    q : float or None, default=None
        Set by :meth:`quantile`: the threshold is this quantile of the rows given to ``fit``.

    Attributes
    ----------
    columns : tuple of str
    fitted, public : bool

    Notes
    -----
    Applying is linear in the number of rows. *Privacy.* A rule with a constant threshold looks at
    one record at a time. A quantile of the data is the value of one row, which a saved rule shows,
    and a release: under differential privacy take
    :class:`privfair.mechanisms.DPQuantile`, which is paid for, and give its number here.

    References
    ----------
    Roy, Rizou, Papadopoulos, Ntoutsi 2025, arXiv 2503.23056 (strict inequality).

    Examples
    --------
    >>> poor = SESRule("capital-gain", "<", 1)
    >>> poor.apply({"capital-gain": [0, 500, 1]}).tolist()
    [True, False, False]
    >>> both = poor & SESRule("education-num", "<", 10)
    >>> both.apply({"capital-gain": [0, 0], "education-num": [9, 13]}).tolist()
    [True, False]
    """

    column: str
    op: str = "<"
    threshold: float | None = None
    q: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.column, str):
            raise InvalidTypeError(
                f"column must be the name of a column, got {type(self.column).__name__}."
            )
        check.one_of(OPERATORS, op=self.op)
        if self.q is not None:
            object.__setattr__(self, "q", inside(self.q))
        elif self.threshold is None:
            raise InvalidParameterError(
                "threshold is None. Give a finite number, or SESRule.quantile(column, q)."
            )
        if self.threshold is not None:
            object.__setattr__(self, "threshold", check.real(threshold=self.threshold))

    @classmethod
    def quantile(cls, column: str, q: float, *, op: str = "<") -> SESRule:
        """Return a rule whose threshold is a quantile of the rows that it is fitted on.

        Parameters
        ----------
        column : str
        q : float
            In (0, 1).
        op : {"<", "<=", ">", ">="}, default="<"

        Returns
        -------
        SESRule
        """
        return cls(column, op, None, inside(q))

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that the rule reads."""
        return (self.column,)

    @property
    def fitted(self) -> bool:
        """Whether the threshold is a number."""
        return self.threshold is not None

    @property
    def public(self) -> bool:
        """Whether the threshold is a constant that was not learnt from data."""
        return self.q is None

    def fit(self, features: Any, *, sample_weight: Any = None) -> SESRule:
        """Return the rule with its threshold; one that has a constant returns itself.

        Parameters
        ----------
        features : table or array
        sample_weight : array-like or None
        """
        if self.q is None:
            return self
        table = as_table(features, name="ses_features", prefix="ses")
        values = numeric_column(table, self.column, of="ses_features")
        weight = learning_weight(sample_weight, len(values))
        return replace(self, threshold=weighted_quantile(values, self.q, weight))

    def apply(self, features: Any) -> Bools:
        """Return which rows the rule selects.

        Parameters
        ----------
        features : table or array
        """
        values = numeric_column(self._table(features), self.column, of="ses_features")
        return np.asarray(OPERATORS[self.op](values, float(self.threshold)))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        return {
            "rule": "threshold",
            "column": self.column,
            "op": self.op,
            "threshold": self.threshold,
            "q": self.q,
        }

    def __str__(self) -> str:
        what = f"quantile({self.q:g})" if self.threshold is None else f"{self.threshold:g}"
        return f"{self.column} {self.op} {what}"


@dataclass(frozen=True)
class JoinedRules(Rule):
    """Several rules joined by "and" or "or"; made by ``&`` and ``|``."""

    how: str
    parts: tuple[Rule, ...]

    def __post_init__(self) -> None:
        check.one_of(("and", "or"), how=self.how)
        for part in self.parts:
            if not isinstance(part, Rule) or hasattr(part, "rank_within"):
                raise InvalidTypeError(
                    f"only rules on socio-economic status combine, got {type(part).__name__}."
                )

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that the rules read."""
        return tuple(dict.fromkeys(c for part in self.parts for c in part.columns))

    @property
    def fitted(self) -> bool:
        """Whether all parts are."""
        return all(part.fitted for part in self.parts)

    @property
    def public(self) -> bool:
        """Whether all parts are."""
        return all(part.public for part in self.parts)

    def fit(self, features: Any, *, sample_weight: Any = None) -> JoinedRules:
        """Return the rules with their thresholds."""
        parts = tuple(p.fit(features, sample_weight=sample_weight) for p in self.parts)
        return JoinedRules(self.how, parts)

    def apply(self, features: Any) -> Bools:
        """Return which rows the rules select together."""
        found = [part.apply(features) for part in self.parts]
        join = np.logical_and if self.how == "and" else np.logical_or
        return np.asarray(join.reduce(found), dtype=bool)

    def to_dict(self) -> dict[str, Any]:
        """Return the rules as JSON data."""
        return {"rule": self.how, "parts": [part.to_dict() for part in self.parts]}

    def __str__(self) -> str:
        return "(" + f" {self.how} ".join(str(part) for part in self.parts) + ")"


def inside(q: float) -> float:
    """Return q if it lies strictly between 0 and 1."""
    value = check.real(q=q)
    if not 0.0 < value < 1.0:
        raise InvalidParameterError(f"q must be in (0, 1), got {value}.")
    return value


def learning_weight(sample_weight: Any, n_rows: int) -> Floats | None:
    """Return the weights of rows from which a rule learns; there must be something to learn."""
    weight = read_weights(sample_weight, n_rows)
    if n_rows == 0:
        raise DataError("the data have no rows, so that a rule has nothing to learn from.")
    if weight is not None and len(weight) != n_rows:
        raise LengthMismatchError(
            f"sample_weight has {len(weight)} rows and the features have {n_rows}."
        )
    return weight
