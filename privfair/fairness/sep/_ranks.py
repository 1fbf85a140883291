"""Weighted quantiles and mid-rank percentiles that are fixed on one table and used on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MidRanks", "weighted_quantile"]

Floats = NDArray[np.float64]


def weighted_quantile(values: Floats, q: float, weight: Floats | None = None) -> float:
    """Return the smallest value at or below which a share of at least q lies."""
    order = np.argsort(values, kind="stable")
    mass = np.ones(len(values)) if weight is None else weight
    total = np.cumsum(mass[order])
    # A share that equals q up to rounding counts as reached.
    place = int(np.searchsorted(total, q * total[-1] * (1 - 1e-12), side="left"))
    return float(values[order][min(place, len(values) - 1)])


@dataclass(frozen=True)
class MidRanks:
    """The distribution function of a column, read as mid-rank percentiles.

    Attributes
    ----------
    values : tuple of float
        Distinct values, rising.
    upto : tuple of float
        Share of rows at or below each value.
    """

    values: tuple[float, ...]
    upto: tuple[float, ...]

    @classmethod
    def of(cls, column: Floats, weight: Floats | None = None) -> MidRanks:
        """Learn the distribution function of a column."""
        values, place = np.unique(column, return_inverse=True)
        mass = np.bincount(place, weights=weight, minlength=len(values)).astype(float)
        upto = np.cumsum(mass) / mass.sum()
        return cls(tuple(values.tolist()), tuple(upto.tolist()))

    def __call__(self, column: Floats) -> Floats:
        """Return ``(F(x-) + F(x)) / 2`` of each entry; values not seen lie between neighbours."""
        known = np.asarray(self.values)
        upto = np.concatenate([[0.0], self.upto])
        left = np.searchsorted(known, column, side="left")
        right = np.searchsorted(known, column, side="right")
        return np.asarray((upto[left] + upto[right]) / 2)

    def to_dict(self) -> dict[str, Sequence[float]]:
        """Return the function as JSON data."""
        return {"values": self.values, "upto": self.upto}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MidRanks:
        """Return what :meth:`to_dict` wrote down."""
        return cls(*(tuple(float(v) for v in data[k]) for k in ("values", "upto")))
