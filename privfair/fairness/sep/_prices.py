"""Prices of gaps by dual ascent on released sums, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Prices"]

Floats = NDArray[np.float64]
_SLOWER = 50.0
"""Releases after which the dual step starts to shrink with the root of their number.

The sum of all steps has no bound and their squares grow with the logarithm of their number only,
so that prices can go anywhere and the noise in them dies away beside what they have learnt.
"""
_SURE = 10.0
"""A set counts once its released size is this many standard deviations of its noise."""


@dataclass(eq=False)
class Prices:
    """What a run has released about the sets, and the prices that follow.

    Attributes
    ----------
    n_groups : int
    count_weight : float
        What a record adds to the size of a set.
    noise : float
        Standard deviation of the noise in a release.
    until : int
        Releases before the first price; the second half of them gives the rates to keep.
    gaps, base_rates : ndarray of shape (n_groups,)
    up, down, lift : ndarray of shape (n_groups,)
        Prices of a gap, of a reverse gap, and of a rate below ``base_rates``.
    push : ndarray of shape (1 + n_groups,) or None
        Weight of a score in the reference set and in each target set; None before any price.

    Notes
    -----
    Sees released sums, public constants and its own past.
    """

    n_groups: int
    count_weight: float
    tolerance: float
    one_sided: bool
    lift_only: bool
    guard: bool
    step: float
    rho: float
    max_price: float
    ema: float
    noise: float = 0.0
    until: int = 0
    push: Floats | None = None
    gaps: Floats = field(init=False)
    base_rates: Floats = field(init=False)
    up: Floats = field(init=False)
    down: Floats = field(init=False)
    lift: Floats = field(init=False)

    def __post_init__(self) -> None:
        n = self.n_groups
        self._released = 0
        self._h, self._sizes = np.zeros(n + 1), np.zeros(n + 1)
        self._base = np.full(n, np.nan)
        self.gaps, self.base_rates = np.full(n, np.nan), np.full(n, np.nan)
        self.up, self.down, self.lift = np.zeros(n), np.zeros(n), np.zeros(n)

    def absorb(self, given: Floats) -> None:
        """Take in a release: sums of h and sizes of all sets, shape (2, 1 + n_groups)."""
        self._released += 1
        t = self._released
        self._h = self.ema * self._h + (1.0 - self.ema) * given[0]
        self._sizes += (given[1] / self.count_weight - self._sizes) / t
        sure = self._sizes > max(_SURE * self.noise / self.count_weight / math.sqrt(t), 1e-6)
        size = np.where(sure, np.clip(self._sizes, 1e-6, None), np.nan)
        rate = np.clip(self._h / (1.0 - self.ema**t) / size, 0.0, 1.0)
        self.gaps = rate[0] - rate[1:]
        if t <= self.until:
            self._keep(t, given[0][1:])
            return
        self.base_rates = np.clip(self._base / size[1:], 0.0, 1.0)
        # Prices add up gaps of single releases: an average would only make them late, and late
        # prices swing.
        now = given[0] / size
        fresh = now[0] - now[1:]
        later = t - self.until - 1
        eta = self.step / math.sqrt(1.0 + later / _SLOWER) * np.nan_to_num(size[1:], nan=0.0)
        self.up = self._moved(self.up, eta * (fresh - self.tolerance))
        self.down = self._moved(self.down, eta * (-fresh - self.tolerance))
        self.lift = self._moved(self.lift, eta * (self.base_rates - now[1:]))
        push = self._priced(self.up, self.gaps - self.tolerance)
        if not self.one_sided:
            push = push - self._priced(self.down, -self.gaps - self.tolerance)
        push = np.where(np.isnan(self.gaps), 0.0, push)
        pull = 0.0 if self.lift_only else push.sum() / np.nan_to_num(size[0], nan=np.inf)
        if self.guard:
            push = push + self._priced(self.lift, self.base_rates - rate[1:])
        self.push = np.append(pull, -push / np.nan_to_num(size[1:], nan=np.inf))

    def _keep(self, t: int, h: Floats) -> None:
        """Average the second half of the releases before the first price."""
        first = self.until // 2
        if t > first:
            self._base = np.where(np.isnan(self._base), 0.0, self._base)
            self._base += (h - self._base) / (t - first)

    def _moved(self, price: Floats, change: Floats) -> Floats:
        """Return prices after a step; a gap that is not known moves none."""
        return np.clip(price + np.nan_to_num(change, nan=0.0), 0.0, self.max_price)

    def _priced(self, price: Floats, over: Floats) -> Floats:
        """Return price and present violation together."""
        return np.clip(price + self.rho * np.nan_to_num(over, nan=0.0), 0.0, self.max_price)
