"""Who counts as underprivileged: rules on columns of socio-economic status."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.frames import Table, as_table, missing_mask
from privfair.fairness.sep._ranks import MidRanks, weighted_quantile

__all__ = ["CompositeSES", "Rule", "SESRule", "numeric_column", "rule_from_dict"]

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
    one record at a time. A quantile of the data is a release: under differential privacy take
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
            object.__setattr__(self, "q", _inside(self.q))
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
        return cls(column, op, None, _inside(q))

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
        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=float)
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


@dataclass(frozen=True)
class CompositeSES(Rule):
    """Select the rows that are low on average over several columns.

    The score of a row is the weighted mean of the mid-rank percentiles of its values (or of the
    values themselves); rows with a score below the ``quantile`` of the fitted rows are selected.

    Parameters
    ----------
    columns : sequence of str
    weights : sequence of float or None, default=None
        One per column, above 0; None means equal.
    ranks : bool, default=True
        Whether values are replaced by mid-rank percentiles, in which ties share one rank.
    quantile : float, default=0.5
        In (0, 1).
    tables : mapping or None, default=None
        Numbers for the categories of a column, such as a prestige scale of occupations, which
        the caller answers for: ``{"occupation": {"Sales": 38.0, ...}}``. None is shipped.
    learnt : tuple or None, default=None
        Set by :meth:`fit`: distribution functions and threshold.

    Attributes
    ----------
    fitted : bool
    public : bool
        Always False: ranks and the threshold depend on the other rows.

    Notes
    -----
    O(n log n) to fit, O(n log m) to apply with m distinct values.

    Examples
    --------
    >>> rule = CompositeSES(["schooling", "capital"])
    >>> rows = {"schooling": [8, 9, 12, 16], "capital": [0, 0, 0, 90]}
    >>> rule.fit(rows).apply(rows).tolist()
    [True, False, False, False]
    """

    columns: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    ranks: bool = True
    quantile: float = 0.5
    tables: Mapping[str, Mapping[str, float]] | None = None
    learnt: tuple[tuple[MidRanks | None, ...], float] | None = None

    def __init__(
        self,
        columns: Sequence[str],
        weights: Sequence[float] | None = None,
        ranks: bool = True,
        quantile: float = 0.5,
        tables: Mapping[str, Mapping[str, float]] | None = None,
        learnt: Any = None,
    ) -> None:
        put = object.__setattr__
        if isinstance(columns, str) or not all(isinstance(c, str) for c in columns):
            raise InvalidTypeError("columns must be a list of names of columns.")
        put(self, "columns", tuple(columns))
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise InvalidParameterError("columns must name at least one column, each one once.")
        put(self, "weights", None)
        if weights is not None:
            put(self, "weights", tuple(check.positive(weights=w) for w in weights))
            if len(self.weights or ()) != len(self.columns):
                raise InvalidParameterError(
                    f"weights has {len(weights)} entries for {len(self.columns)} columns."
                )
        put(self, "ranks", check.boolean(ranks=ranks))
        put(self, "quantile", _inside(quantile))
        put(self, "tables", tables)
        put(self, "learnt", learnt)

    @property
    def fitted(self) -> bool:
        """Whether ranks and threshold are known."""
        return self.learnt is not None

    @property
    def public(self) -> bool:
        """False: who is low depends on the other rows."""
        return False

    def _columns(self, features: Any) -> list[Floats]:
        table = as_table(features, name="ses_features", prefix="ses")
        found = []
        for name in self.columns:
            scale = (self.tables or {}).get(name)
            if scale is None:
                found.append(numeric_column(table, name, of="ses_features"))
            else:
                found.append(_scaled(table.column(name), scale, name))
        return found

    def _scores(self, columns: list[Floats], ranks: Sequence[MidRanks | None]) -> Floats:
        read = [c if r is None else r(c) for c, r in zip(columns, ranks, strict=True)]
        return np.asarray(np.average(np.stack(read), axis=0, weights=self.weights))

    def fit(self, features: Any, *, sample_weight: Any = None) -> CompositeSES:
        """Return the rule with ranks and threshold learnt from these rows.

        Parameters
        ----------
        features : table
        sample_weight : array-like or None
        """
        columns = self._columns(features)
        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=float)
        ranks = tuple(MidRanks.of(c, weight) if self.ranks else None for c in columns)
        threshold = weighted_quantile(self._scores(columns, ranks), self.quantile, weight)
        return replace(self, learnt=(ranks, threshold))

    def apply(self, features: Any) -> Bools:
        """Return which rows are below the threshold.

        Parameters
        ----------
        features : table
        """
        if self.learnt is None:
            self._table(features)
        ranks, threshold = self.learnt  # type: ignore[misc]
        # Means of ranks that are equal on paper may differ in their last bit.
        return self._scores(self._columns(features), ranks) < threshold - 1e-12

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        learnt = None
        if self.learnt is not None:
            ranks, threshold = self.learnt
            learnt = {
                "ranks": [None if r is None else r.to_dict() for r in ranks],
                "threshold": threshold,
            }
        tables = None if self.tables is None else {k: dict(v) for k, v in self.tables.items()}
        return {
            "rule": "composite",
            "columns": list(self.columns),
            "weights": None if self.weights is None else list(self.weights),
            "ranks": self.ranks,
            "quantile": self.quantile,
            "tables": tables,
            "learnt": learnt,
        }

    def __str__(self) -> str:
        return f"mean of {', '.join(self.columns)} below quantile({self.quantile:g})"


def rule_from_dict(data: Mapping[str, Any]) -> Rule:
    """Return the rule that ``to_dict`` wrote down."""
    kind = data["rule"]
    if kind == "threshold":
        return SESRule(data["column"], data["op"], data["threshold"], data["q"])
    if kind in ("and", "or"):
        return JoinedRules(kind, tuple(rule_from_dict(part) for part in data["parts"]))
    if kind == "composite":
        learnt = data["learnt"]
        if learnt is not None:
            read = tuple(None if r is None else MidRanks.from_dict(r) for r in learnt["ranks"])
            learnt = (read, float(learnt["threshold"]))
        return CompositeSES(
            data["columns"], data["weights"], data["ranks"], data["quantile"], data["tables"],
            learnt,
        )  # fmt: skip
    raise InvalidParameterError(f"there is no rule of the kind {kind!r}.")


def _inside(q: float) -> float:
    value = check.real(q=q)
    if not 0.0 < value < 1.0:
        raise InvalidParameterError(f"q must be in (0, 1), got {value}.")
    return value


def _scaled(column: NDArray[Any], scale: Mapping[str, float], name: str) -> Floats:
    if missing_mask(column).any():
        raise DataError(f"column {name!r} of ses_features has missing values.")
    unknown = {v for v in set(column.tolist()) if v not in scale}
    if unknown:
        raise DataError(
            f"{len(unknown)} categories of column {name!r} are not in its table. Add a number for "
            "each."
        )
    numbers = np.array([float(scale[v]) for v in column.tolist()])
    if not all(math.isfinite(v) for v in numbers):
        raise DataError(f"the table of column {name!r} must hold finite numbers.")
    return numbers
