"""Mechanisms whose privacy loss takes few equally spaced values: composed without rounding.

Randomised response loses ``eps0``, 0 or ``-eps0``, so that the loss of any number of repetitions
is a convolution power of three masses. Direct convolution of non-negative masses keeps every
digit, which a grid rounded upwards at each repetition does not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MOST_ATOMS",
    "discrete_laplace_atoms",
    "folded",
    "lattice_power",
    "response_atoms",
    "rounded",
]

Floats = NDArray[np.float64]

MOST_ATOMS = 4096
"""Largest number of blocks of losses kept for discrete Laplace noise."""


def response_atoms(eps0: float, k: int) -> tuple[Floats, float]:
    """Masses of k-ary randomised response at ``eps0 * (1, 0, -1)`` and the step of that grid."""
    other = 1 / (math.exp(min(eps0, 700.0)) + k - 1)
    truth = 1 / (1 + (k - 1) * math.exp(-eps0))
    return np.array([truth, (k - 2) * other, other]), eps0


def discrete_laplace_atoms(a: float, sensitivity: int) -> tuple[Floats, float]:
    """Masses of discrete Laplace noise at losses from the largest down, and their step.

    The losses are ``a * (s, s - 2, ..., -s)``. Where there are more than ``MOST_ATOMS``, blocks
    of them are moved to the blocks' ends, keeping the mass of both laws of the pair ("connect
    the dots"), after the sensitivity was raised to a whole number of blocks: both only make the
    pair worse.
    """
    block = -(-sensitivity // MOST_ATOMS)
    s = block * -(-sensitivity // block)
    w = math.exp(-a)
    ends = 1 / (1 + w), math.exp(-a * s) / (1 + w)
    at = np.arange(s // block + 1) * float(block)  # number of steps from the largest loss
    if block == 1:
        p = np.asarray(-math.expm1(-a) / (1 + w) * np.exp(-a * at))
        p[0], p[-1] = ends
        return p, 2 * a
    # Inside, P puts (1 - w) / (1 + w) w^j at step j, and Q the same times e^(a (2 j - s)).
    first, last = at[:-1] + 1, at[1:]
    last[-1] -= 1
    upper = (np.exp(-a * first) - np.exp(-a * (last + 1))) / (1 + w)
    lower = (np.exp(a * (last + 1 - s)) - np.exp(a * (first - s))) * w / (1 + w)
    up = upper - np.exp(a * (s - 2 * at[1:])) * lower
    up = np.clip(up / -math.expm1(-2 * a * block), 0.0, upper)
    p = np.zeros(len(at))
    p[:-1] += up
    p[1:] += upper - up
    p[0] += ends[0]
    p[-1] += ends[1]
    return p, 2 * a * block


def lattice_power(p: Floats, count: int) -> tuple[Floats, int, float]:
    """Return the count-fold convolution of ``p``, the index of its first entry and what is lost.

    Direct convolution of non-negative masses: every entry keeps its relative precision, with no
    Fourier round-off. Index 0 is the largest loss, so that what is cut off in front is lost to
    infinity, and what is cut off behind is moved to a larger loss.
    """
    result: tuple[Floats, int, float] = (np.ones(1), 0, 0.0)
    base: tuple[Floats, int, float] = (p, 0, 0.0)
    while count:
        if count & 1:
            result = _joined(result, base)
        count >>= 1
        if count:
            base = _joined(base, base)
    return result


def _joined(one: tuple[Floats, int, float], two: tuple[Floats, int, float]) -> Any:
    p = np.convolve(one[0], two[0])
    front = int(np.searchsorted(np.cumsum(p), 1e-22))
    back = len(p) - int(np.searchsorted(np.cumsum(p[::-1]), 1e-22))
    lost = one[2] + two[2] + float(p[:front].sum())
    kept = p[front:back].copy()
    kept[-1] += p[back:].sum()
    return kept, one[1] + two[1] + front, lost


def folded(p: Floats, step: float, count: int) -> tuple[Floats, Floats, float]:
    """Return losses in ascending order, their masses and the mass at infinity of a power."""
    masses, first, lost = lattice_power(p, count)
    top = step * count * (len(p) - 1) / 2
    losses = top - step * (first + np.arange(len(masses)))
    return np.asarray(losses[::-1], dtype=np.float64), masses[::-1], lost


def rounded(h: float, losses: Floats, masses: Floats) -> tuple[int, Floats]:
    """Round point masses to multiples of ``h``; return the index of the first, and the masses.

    Each mass is split between its two neighbours so that its share of both laws of the pair is
    kept ("connect the dots", Doroshenko et al. 2022): the rounded pair dominates the exact one.
    """
    below = np.floor(losses / h)
    up = np.clip(np.expm1(-(losses - below * h)) / math.expm1(-h), 0.0, 1.0)
    low = int(below.min())
    index = (below - low).astype(np.int64)
    size = int(index.max()) + 2
    p = np.bincount(index, masses * (1 - up), size) + np.bincount(index + 1, masses * up, size)
    return low, np.asarray(p, dtype=np.float64)
