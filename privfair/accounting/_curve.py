"""Epsilon and delta read off a known privacy loss, alone or joined with a Renyi bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

__all__ = ["Atoms", "Curve", "DeltaBound"]

Floats = NDArray[np.float64]
_ULP = float(np.finfo(np.float64).eps)


class DeltaBound(Protocol):
    """A bound on the hockey-stick divergence of what is not in the loss."""

    def __call__(self, epsilon: Floats) -> Floats:
        """Return the bound at each (possibly negative) epsilon."""
        ...


@dataclass(frozen=True)
class Atoms:
    """A composed privacy loss: sorted losses, their masses and the mass at infinity."""

    losses: Floats
    p: Floats
    infinite: float


class Curve:
    """Epsilon and delta of one order of a composed pair.

    Parameters
    ----------
    atoms : Atoms
        The composed loss.
    rest : DeltaBound or None
        Bound on the divergence of the part of the plan that has no loss (known by its Renyi
        divergences only); the two are then combined by
        ``delta(eps) <= E[delta_rest(eps - loss)]``.
    """

    def __init__(self, atoms: Atoms, rest: DeltaBound | None = None) -> None:
        self._rest = rest
        cut = int(np.searchsorted(atoms.losses, 600.0))
        infinite = atoms.infinite + float(atoms.p[cut:].sum())
        if rest is None:  # losses below 0 never count at an epsilon of at least 0
            first = int(np.searchsorted(atoms.losses, 0.0))
            losses, p = atoms.losses[first:cut], atoms.p[first:cut]
            self._upper = infinite + np.cumsum(p[::-1])[::-1]
            self._lower = np.cumsum((p * np.exp(-losses))[::-1])[::-1]
        else:
            keep = atoms.p[:cut] > 1e-22
            infinite += float(atoms.p[:cut][~keep].sum())
            losses, p = atoms.losses[:cut][keep], atoms.p[:cut][keep]
        self._losses, self._p, self._infinite = losses, p, infinite

    def delta(self, epsilon: float) -> float:
        """Return a valid delta at ``epsilon``."""
        if self._rest is not None:
            if math.isinf(epsilon):
                return min(1.0, self._infinite)
            return min(1.0, self._infinite + float(self._p @ self._rest(epsilon - self._losses)))
        k = int(np.searchsorted(self._losses, epsilon, side="right"))
        if k == len(self._losses):
            return min(1.0, self._infinite)
        over = self._upper[k] - math.exp(epsilon) * self._lower[k]
        # The difference of two sums of like size: a few ulp of them are added.
        return float(min(1.0, max(over, self._infinite) + 8 * _ULP * self._upper[k]))

    def epsilon(self, delta: float) -> float:
        """Return a valid epsilon at ``delta``."""
        if delta <= self._infinite:
            return math.inf
        if self._rest is not None:
            return self._search(delta)
        if len(self._losses) == 0:
            return 0.0
        at = self._upper - np.exp(self._losses) * self._lower
        enough = at <= delta
        if not enough[-1]:  # delta is above the mass at infinity by less than the rounding
            return float(self._losses[-1])
        k = int(np.argmax(enough))
        if self._lower[k] == 0:
            return float(self._losses[k])
        excess = self._upper[k] * (1 + 8 * _ULP) - delta
        if excess <= 0:
            return 0.0
        found = math.log(excess / self._lower[k])
        return float(min(max(0.0, found), max(0.0, self._losses[k])))

    def _search(self, delta: float) -> float:
        if self.delta(0.0) <= delta:
            return 0.0
        low, high = 0.0, 1.0
        while self.delta(high) > delta:
            low, high = high, 2 * high
            if high > 2000:
                return math.inf
        # Smooth on a log scale, so that a few steps do; then up to the safe side of the root.
        goal = math.log(delta)

        def gap(epsilon: float) -> float:
            return math.log(max(self.delta(epsilon), 1e-300)) - goal

        root = float(brentq(gap, low, high, xtol=1e-7, rtol=1e-6))
        while self.delta(root) > delta:
            root = root * (1 + 1e-6) + 1e-9
        return root
