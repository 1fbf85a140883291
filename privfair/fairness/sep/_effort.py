"""Who counts as showing effort: a threshold, or a rank among people of the same type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.frames import Table, as_table
from privfair.fairness.sep._ranks import MidRanks
from privfair.fairness.sep._rules import Bools, learning_weight, numeric_column

__all__ = ["EffortRule", "types_of"]


def types_of(
    names: Sequence[str], tables: Sequence[Table], low: Bools | None
) -> NDArray[np.object_]:
    """Return the type of every row: its values of the named columns, joined to one text.

    The name "ses" stands for the low or high status of the row.
    """
    parts: list[list[str]] = []
    for name in names:
        if name == "ses" and low is not None:
            parts.append(["low" if item else "high" for item in low.tolist()])
            continue
        home = [table for table in tables if name in table.columns]
        if not home:
            known = sorted({c for table in tables for c in table.columns} | {"ses"})
            raise DataError(f"rank_within names {name!r}; the columns given are {known}.")
        parts.append([str(v) for v in home[0].column(name).tolist()])
    return np.array(["\x1f".join(row) for row in zip(*parts, strict=True)], dtype=object)


@dataclass(frozen=True)
class EffortRule:
    """Select the rows that show effort.

    Either by a threshold that is the same for everybody (``x >= threshold``), or by the rank of a
    row among rows of its own type (``rank >= q``): people are then compared with people whose
    circumstances they share, and what the type as a whole can hardly reach is not held against it
    (Roemer 1998).

    Parameters
    ----------
    column : str
        The effort attribute, such as weekly hours.
    threshold : float or None, default=None
        Rows at or above it are in, so that 40 hours count as full time.
    rank_within : sequence of str or None, default=None
        Columns of the sensitive, status or effort features that make the types; "ses" stands for
        low or high status. Give this or ``threshold``.
    q : float, default=0.5
        In (0, 1): mid-rank percentile from which a row is in, for ``rank_within``.
    learnt : tuple or None, default=None
        Set by ``fit``: the distribution function of each type, in bins.

    Notes
    -----
    Hours are no measure of will alone: they differ by sex (care work) and by status. Which of the
    two readings is right is a judgement that the audit should state. *Privacy.* With a threshold,
    membership looks at one record; ranks depend on the other rows, and private training refuses
    them. A rule that has learnt ranks keeps, and takes along when saved, the names of the types
    and for each at most 255 cuts, short numbers between values of the rows, with the shares of
    rows between them (as :class:`CompositeSES` does), and no value of a row.

    References
    ----------
    Roemer 1998, "Equality of Opportunity". Heidari, Nanda, Gummadi 2019, arXiv 1903.01209.

    Examples
    --------
    >>> EffortRule("hours", 40).apply({"hours": [39, 40]}).tolist()
    [False, True]
    """

    column: str
    threshold: float | None = None
    rank_within: tuple[str, ...] | None = None
    q: float = 0.5
    learnt: tuple[tuple[str, MidRanks], ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.column, str):
            raise InvalidTypeError(
                f"column must be the name of a column, got {type(self.column).__name__}."
            )
        if (self.threshold is None) == (self.rank_within is None):
            raise InvalidParameterError(
                "give either threshold (the same for everybody) or rank_within (the types inside "
                "which effort is ranked), and not both."
            )
        if self.threshold is not None:
            object.__setattr__(self, "threshold", check.real(threshold=self.threshold))
        if self.rank_within is not None:
            names = self.rank_within
            names = (names,) if isinstance(names, str) else names
            if not isinstance(names, tuple | list) or not all(isinstance(n, str) for n in names):
                raise InvalidTypeError("rank_within must be a list of names of columns.")
            if not names:
                raise InvalidParameterError("rank_within must name at least one column.")
            names = tuple(names)
            object.__setattr__(self, "rank_within", names)
        value = check.real(q=self.q)
        if not 0 < value < 1:
            raise InvalidParameterError(f"q must be in (0, 1), got {value}.")

    @property
    def public(self) -> bool:
        """Whether membership depends on a record and on public constants only."""
        return self.rank_within is None

    @property
    def fitted(self) -> bool:
        """Whether there is nothing left to learn."""
        return self.public or self.learnt is not None

    def fit(
        self, features: Any, types: NDArray[np.object_] | None = None, *, sample_weight: Any = None
    ) -> EffortRule:
        """Return the rule with the distribution of effort in every type.

        Parameters
        ----------
        features : table or array
        types : array of str or None
            Type of every row (:func:`types_of`).
        sample_weight : array-like or None
        """
        if self.public:
            return self
        values = self._values(features)
        kinds = self._types(types, len(values))
        given = learning_weight(sample_weight, len(values))
        weight = np.ones(len(values)) if given is None else given
        made = []
        for kind in sorted(set(kinds.tolist())):
            rows = kinds == kind
            if weight[rows].sum() > 0:
                made.append((kind, MidRanks.of(values[rows], weight[rows])))
        return replace(self, learnt=tuple(made))

    def apply(self, features: Any, types: NDArray[np.object_] | None = None) -> Bools:
        """Return which rows show effort.

        Parameters
        ----------
        features : table or array
        types : array of str or None
        """
        values = self._values(features)
        if self.threshold is not None:
            return np.asarray(values >= self.threshold, dtype=bool)
        if self.learnt is None:
            raise InvalidParameterError(
                f"{self} ranks people among others. Call fit(features, types) first."
            )
        kinds = self._types(types, len(values))
        ranks = np.full(len(values), np.nan)
        for kind, function in self.learnt:
            rows = kinds == kind
            ranks[rows] = function(values[rows])
        if np.isnan(ranks).any():
            raise DataError(
                "some rows are of a type that did not occur when the ranks were learnt. Fit on "
                "rows of every type, or rank within fewer columns."
            )
        return np.asarray(ranks >= self.q - 1e-12, dtype=bool)

    def _values(self, features: Any) -> NDArray[np.float64]:
        table = as_table(features, name="effort_features", prefix="effort")
        return numeric_column(table, self.column, of="effort_features")

    def _types(self, types: Any, n_rows: int) -> NDArray[np.object_]:
        if types is None or len(types) != n_rows:
            raise DataError("ranks within types need the type of every row.")
        return np.asarray(types, dtype=object)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        learnt = None
        if self.learnt is not None:
            learnt = [[kind, function.to_dict()] for kind, function in self.learnt]
        return {
            "column": self.column,
            "threshold": self.threshold,
            "rank_within": None if self.rank_within is None else list(self.rank_within),
            "q": self.q,
            "learnt": learnt,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EffortRule:
        """Return what :meth:`to_dict` wrote down."""
        learnt = data["learnt"]
        if learnt is not None:
            learnt = tuple((kind, MidRanks.from_dict(f)) for kind, f in learnt)
        within = data["rank_within"]
        within = None if within is None else tuple(within)
        return cls(data["column"], data["threshold"], within, data["q"], learnt)

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"{self.column} >= {self.threshold:g}"
        within = ", ".join(self.rank_within or ())
        return f"rank of {self.column} within {within} >= {self.q:g}"
