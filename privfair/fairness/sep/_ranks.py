"""Weighted quantiles and mid-rank percentiles, fixed on one table and used on another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MidRanks", "between", "weighted_quantile"]

Floats = NDArray[np.float64]
_FEW, _MOST = 10, 256
"""Rows that must share a rank where there are enough of them, and bins at most."""


def weighted_quantile(values: Floats, q: float, weight: Floats | None = None) -> float:
    """Return the smallest value at or below which a share of at least q lies."""
    order = np.argsort(values, kind="stable")
    mass = np.ones(len(values)) if weight is None else weight
    total = np.cumsum(mass[order])
    # A share that equals q up to rounding counts as reached.
    place = int(np.searchsorted(total, q * total[-1] * (1 - 1e-12), side="left"))
    return float(values[order][min(place, len(values) - 1)])


def between(low: float, high: float) -> float:
    """Return the number of fewest digits strictly between two numbers; ``high`` if there is none.

    Such a number separates as well as either of them, and is neither.
    """
    middle = low / 2 + high / 2
    size = math.floor(math.log10(max(abs(low), abs(high)))) + 1
    for digits in range(-size, 19 - size):
        found = round(middle, digits)
        if low < found < high:
            return found
    return middle if low < middle < high else high


@dataclass(frozen=True)
class MidRanks:
    """The distribution function of a column in bins, read as mid-rank percentiles.

    Attributes
    ----------
    cuts : tuple of float
        Where a new bin begins, rising: short numbers that lie between values of the column.
    ranks : tuple of float
        Mid-rank percentile of each bin.

    Notes
    -----
    Each value has a bin of its own unless fewer than ``min(10, n / 20)`` rows have it, or there
    are more than 256 values: then neighbours share a bin, and with it a rank. No value of the
    column is kept.
    """

    cuts: tuple[float, ...]
    ranks: tuple[float, ...]

    @classmethod
    def of(cls, column: Floats, weight: Floats | None = None) -> MidRanks:
        """Learn the distribution function of a column."""
        values, place = np.unique(column, return_inverse=True)
        some = None if weight is None else (weight > 0).astype(float)
        rows = np.bincount(place, weights=some, minlength=len(values))
        mass = np.bincount(place, weights=weight, minlength=len(values)).astype(float)
        starts = _starts(rows)
        upto = np.cumsum(np.add.reduceat(mass, starts)) / mass.sum()
        ranks = (np.concatenate([[0.0], upto[:-1]]) + upto) / 2
        cuts = [between(float(values[k - 1]), float(values[k])) for k in starts[1:]]
        return cls(tuple(cuts), tuple(ranks.tolist()))

    def __call__(self, column: Floats) -> Floats:
        """Return ``(F(x-) + F(x)) / 2`` of each entry's bin."""
        place = np.searchsorted(np.asarray(self.cuts), column, side="right")
        return np.asarray(self.ranks)[place]

    def to_dict(self) -> dict[str, Sequence[float]]:
        """Return the function as JSON data."""
        return {"cuts": self.cuts, "ranks": self.ranks}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MidRanks:
        """Return what :meth:`to_dict` wrote down."""
        return cls(*(tuple(float(v) for v in data[k]) for k in ("cuts", "ranks")))


def _starts(rows: NDArray[Any]) -> list[int]:
    """Return at which distinct values a new bin begins, given how many rows have each."""
    total = int(rows.sum())
    least = max(1, min(_FEW, total // 20))
    need = least if len(rows) <= _MOST else max(least, -(-total // _MOST))
    starts, held = [0], 0.0
    for k, count in enumerate(rows.tolist()):
        if held >= need:
            starts.append(k)
            held = 0.0
        held += count
    if held < need and len(starts) > 1:
        starts.pop()
    return starts
