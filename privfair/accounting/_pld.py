"""Composition of discretised privacy losses and the numbers read off the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privfair.accounting._losses import MAX_POINTS, GridTooFine, Loss

__all__ = ["Atoms", "Curve", "DeltaBound", "compose"]

Floats = NDArray[np.float64]
_TAIL = 1e-15
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


def compose(parts: Sequence[tuple[Loss, int]]) -> Atoms:
    """Return the law of the sum of independent losses, each taken its number of times.

    One product of Fourier transforms. The window holds all but 1e-15 of the mass (Chernoff) and
    the rest is charged to infinity, as is a bound on the transforms' round-off: relative errors
    of the factors grow with their powers, by Parseval at most ``(count + log n)`` units in the
    last place of ``sqrt(n) ||p||``; four times that is charged.
    """
    h = parts[0][0].h
    offset = sum(loss.low * n for loss, n in parts)
    infinite = -math.expm1(sum(n * math.log1p(-loss.infinite) for loss, n in parts))
    if len(parts) == 1 and parts[0][1] == 1:
        p = parts[0][0].p
        return Atoms(_at(offset, len(p), h), p, infinite)
    start, stop = _window(parts)
    width = stop - start + 1
    size = _fast_length(max(width, *(len(loss.p) for loss, _ in parts)))
    if size > 2 * MAX_POINTS:
        raise GridTooFine(f"{size} points at step {h}")
    spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
    for loss, n in parts:
        spectrum *= np.fft.rfft(loss.p, size) ** n
    p = np.roll(np.fft.irfft(spectrum, size), -(start % size))[:width]
    steps = sum(n for _, n in parts)
    noise = 4 * _ULP * (steps + math.log2(size)) * math.sqrt(size) * float(np.linalg.norm(p))
    p = np.maximum(p, 0.0)
    return Atoms(_at(offset + start, width, h), p, infinite + 2 * _TAIL + noise)


def _at(first: int, count: int, h: float) -> Floats:
    return np.asarray((first + np.arange(count)) * h, dtype=np.float64)


def _fast_length(n: int) -> int:
    """Return the smallest 2^a * {1, 3, 5, 9, 15} that is at least ``n`` and even."""
    best = 1 << max(1, (n - 1).bit_length())
    for odd in (3, 5, 9, 15):
        power = max(1, (-(-n // odd) - 1).bit_length())
        best = min(best, odd << power)
    return best


def _window(parts: Sequence[tuple[Loss, int]]) -> tuple[int, int]:
    """Return index bounds (relative to the sum of ``low``) that miss at most 2e-15 of the mass."""
    most = sum((len(loss.p) - 1) * n for loss, n in parts)
    if most < 4096:
        return 0, most
    mean = variance = 0.0
    for loss, n in parts:
        at = np.arange(len(loss.p))
        total = float(loss.p.sum())
        centre = float(loss.p @ at) / total
        mean += n * centre
        variance += n * float(loss.p @ (at - centre) ** 2) / total
    scale = 1 / math.sqrt(max(variance, 1e-12))
    cut = math.log(1 / _TAIL)
    low, high = 0, most
    for step in np.geomspace(0.25, 16.0, 9) * scale:
        for sign in (1.0, -1.0):
            rate = sign * float(step)
            log_mgf = sum(n * _log_mgf(loss.p, rate) for loss, n in parts)
            bound = (log_mgf + cut) / rate
            if not math.isfinite(bound):
                continue
            if sign > 0:
                high = min(high, math.ceil(bound))
            else:
                low = max(low, math.floor(bound))
    return low, max(high, low + 1)


def _log_mgf(p: Floats, rate: float) -> float:
    exponent = rate * np.arange(len(p))
    top = max(float(exponent[-1]), 0.0)
    total = float(p @ np.exp(exponent - top))
    return math.log(total) + top if total > 0 else -math.inf


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
        k = int(np.argmax(at <= delta))  # the last is at most delta: its loss exceeds nothing
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
        while high - low > 1e-6 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self.delta(middle) > delta else (low, middle)
        return high
