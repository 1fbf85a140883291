"""Low status as a mean of several columns, and any rule from its JSON data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.frames import as_table, missing_mask
from privfair.fairness.sep._ranks import MidRanks, between, weighted_quantile
from privfair.fairness.sep._rules import (
    Bools,
    Floats,
    JoinedRules,
    Rule,
    SESRule,
    inside,
    learning_weight,
    numeric_column,
)

__all__ = ["CompositeSES", "rule_from_dict"]

_EQUAL = 1e-12
"""Means of ranks that are equal on paper may differ in their last bit."""


@dataclass(frozen=True)
class CompositeSES(Rule):
    """Select the rows that are low on average over several columns.

    The score of a row is the weighted mean of the mid-rank percentiles of its values (or of the
    values themselves, for ``ranks=False``); rows with a score below the ``quantile`` of the
    fitted rows are selected.

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
    O(n log n) to fit, O(n log m) to apply with m bins.

    *Privacy.* Not private. What a fitted rule keeps, and what leaves when it is saved: for each
    column at most 255 cuts, which are short numbers between values of the rows, and the rank of
    each bin, a share of the rows; the threshold of the mean. A bin holds at least ten rows (a
    twentieth of them in tables of less than 200 rows), and values that are rarer share the bin
    and the rank of their neighbours, as do values beyond 256 different ones. No value of a row is
    kept. Estimators and releases under differential privacy refuse the rule, fitted or not.

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
        put(self, "quantile", inside(quantile))
        if tables is not None and not (
            isinstance(tables, Mapping) and all(isinstance(t, Mapping) for t in tables.values())
        ):
            raise InvalidTypeError(
                f"tables must map columns to {{category: number}}, got {type(tables).__name__}."
            )
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
        weight = learning_weight(sample_weight, len(columns[0]))
        ranks = tuple(MidRanks.of(c, weight) if self.ranks else None for c in columns)
        scores = self._scores(columns, ranks)
        threshold = weighted_quantile(scores, self.quantile, weight)
        if not self.ranks:
            threshold = _apart(scores, threshold)
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
        return self._scores(self._columns(features), ranks) < threshold - _EQUAL

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


def _apart(scores: Floats, threshold: float) -> float:
    """Return a threshold that selects the same rows and is the score of none."""
    below = scores[scores < threshold - _EQUAL]
    nearest = float(below.max()) if len(below) else threshold - max(abs(threshold), 1.0)
    found = between(nearest, threshold)
    return found if nearest < found - _EQUAL else threshold


def _scaled(column: NDArray[Any], scale: Mapping[str, float], name: str) -> Floats:
    if missing_mask(column).any():
        raise DataError(f"column {name!r} of ses_features has missing values.")
    unknown = {v for v in set(column.tolist()) if v not in scale}
    if unknown:
        raise DataError(
            f"{len(unknown)} categories of column {name!r} are not in its table. Add a number for "
            "each."
        )
    entries = list(scale.values())
    if any(
        isinstance(v, bool | str) or not isinstance(v, int | float) for v in entries
    ) or not all(math.isfinite(v) for v in entries):
        raise DataError(f"the table of column {name!r} must hold finite numbers.")
    numbers = np.array([float(scale[v]) for v in column.tolist()])
    return numbers
