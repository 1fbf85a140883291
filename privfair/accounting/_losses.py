"""Discretised privacy losses: how one mechanism becomes masses on a grid, never too small.

A privacy loss is the law of ``ln dP/dQ`` under P for a dominating pair (P, Q). Rounding it to a
grid of step h splits each mass between its two neighbouring grid points so that its share of
both P and Q is kept ("connect the dots", Doroshenko et al. 2022). That spreads ``dQ/dP`` without
moving its mean, so that the rounded pair dominates the exact one: every delta and epsilon
computed from it is an upper bound at any h. Mass beyond the grid goes up, or to infinity.

The split is computed from the masses of each grid cell under P and Q, not from second
differences of delta, which lose all digits when the steps are many and each loses little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = [
    "MAX_POINTS",
    "GridTooFine",
    "Loss",
    "Pair",
    "discrete_laplace_atoms",
    "from_atoms",
    "gaussian_pair",
    "laplace_pair",
    "lattice_power",
    "replaced_gaussian_pair",
    "response_atoms",
]

Floats = NDArray[np.float64]

MAX_POINTS = 1 << 21
"""Largest grid; 16 MiB for each array."""
_Z = 10.0  # standard deviations kept; the rest (7.6e-24) is charged to infinity
_MAX_LOSS = 600.0  # larger losses count as infinite


class GridTooFine(Exception):
    """A grid would have more than ``MAX_POINTS`` points; the caller keeps a coarser one."""


@dataclass(frozen=True)
class Loss:
    """Masses ``p`` at losses ``(low + k) * h`` and the mass at infinity."""

    h: float
    low: int
    p: Floats
    infinite: float


@dataclass(frozen=True)
class Pair:
    """The losses of both orders of a pair; ``add is remove`` when they have one law."""

    remove: Loss
    add: Loss


def _cells(h: float, low: float, high: float) -> tuple[int, Floats]:
    """Return the index of the first edge and all edges of a grid that covers [low, high]."""
    first, last = math.floor(low / h), math.ceil(high / h)
    if last - first > MAX_POINTS:
        raise GridTooFine(f"{last - first} points at step {h}")
    last = max(last, first + 1)
    return first, np.asarray(np.arange(first, last + 1) * h, dtype=np.float64)


def _split(h: float, first: int, p: Floats, q: Floats, under: float, over: float) -> Loss:
    """Put the P-masses of cells on their edges, keeping P- and Q-mass of each."""
    ratio = np.exp(np.minimum((first + np.arange(len(p))) * h, 700.0))
    with np.errstate(invalid="ignore", over="ignore"):
        up = (p - ratio * q) / -math.expm1(-h)
    up = np.where(np.isnan(up), p, np.clip(up, 0.0, p))
    out = np.zeros(len(p) + 1)
    out[:-1] = p - up
    out[1:] += up
    out[0] += under
    return Loss(h, first, out, over)


def _mirror(h: float, first: int, p: Floats, q: Floats, under: float, over: float) -> Loss:
    """As ``_split`` for the other order: Q-masses at the negated losses."""
    return _split(h, -(first + len(p)), q[::-1], p[::-1], over, under)


def _between(a: Floats, b: Floats) -> Floats:
    """Standard normal mass of [a, b] with full relative precision in both tails."""
    upper = a > 0
    left = np.where(upper, -b, a)
    right = np.where(upper, -a, b)
    return np.asarray(ndtr(right) - ndtr(left))


def _sampled_edges(edges: Floats, q: float) -> Floats:
    """Turn losses of the sampled mechanism into losses of the mechanism itself."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log1p(np.expm1(edges) / q) if q < 1 else edges.copy()
    out[np.isnan(out)] = -np.inf
    return out


def _log_mix(q: float, loss: float) -> float:
    """``log(1 - q + q e^loss)``."""
    if loss > 700:
        return loss + math.log(q)
    return math.log1p(q * math.expm1(loss))


@lru_cache(maxsize=8)
def gaussian_pair(q: float, sigma: float, h: float) -> Pair:
    """Losses of a Gaussian on a Poisson sample, one contribution of norm 1 against nothing.

    P = (1 - q) N(0, s^2) + q N(1, s^2) against Q = N(0, s^2) (Zhu, Dong, Wang 2022).
    """

    def loss(x: float) -> float:
        return _log_mix(q, (2 * x - 1) / (2 * sigma**2))

    bottom = loss(-_Z * sigma)
    top = min(loss(1 + _Z * sigma), _MAX_LOSS)
    if q < 1:
        bottom = max(bottom, math.log1p(-q))
    first, edges = _cells(h, max(bottom, -_MAX_LOSS), top)
    x = sigma**2 * _sampled_edges(edges, q) + 0.5
    zero, one = x / sigma, (x - 1) / sigma
    q_mass = _between(zero[:-1], zero[1:])
    p_mass = (1 - q) * q_mass + q * _between(one[:-1], one[1:])
    under_q, over_q = float(ndtr(zero[0])), float(ndtr(-zero[-1]))
    under_p = (1 - q) * under_q + q * float(ndtr(one[0]))
    over_p = (1 - q) * over_q + q * float(ndtr(-one[-1]))
    remove = _split(h, first, p_mass, q_mass, under_p, over_p)
    if q == 1.0:
        return Pair(remove, remove)
    return Pair(remove, _mirror(h, first, p_mass, q_mass, under_q, over_q))


@lru_cache(maxsize=8)
def replaced_gaussian_pair(q: float, sigma: float, h: float) -> Pair:
    """Losses of a Gaussian on a Poisson sample, a contribution of norm 1 against its opposite.

    P = (1 - q) N(0, s^2) + q N(1, s^2) against Q = (1 - q) N(0, s^2) + q N(-1, s^2).
    """
    s2 = sigma**2
    edge = 1 + _Z * sigma
    top = min(
        _log_mix(q, (2 * edge - 1) / (2 * s2)) - _log_mix(q, (-2 * edge - 1) / (2 * s2)), _MAX_LOSS
    )
    first, edges = _cells(h, -top, top)
    half = np.abs(edges) / 2
    with np.errstate(over="ignore"):
        ratio = (1 - q) * np.sinh(half) / q * math.exp(min(1 / (2 * s2), 700.0))
    x = np.sign(edges) * s2 * (half + np.arcsinh(np.minimum(ratio, 1e300)))
    zero, plus, minus = x / sigma, (x - 1) / sigma, (x + 1) / sigma
    common = (1 - q) * _between(zero[:-1], zero[1:])
    p_mass = common + q * _between(plus[:-1], plus[1:])
    q_mass = common + q * _between(minus[:-1], minus[1:])
    under = (1 - q) * float(ndtr(zero[0])) + q * float(ndtr(plus[0]))
    over = (1 - q) * float(ndtr(-zero[-1])) + q * float(ndtr(-plus[-1]))
    both = _split(h, first, p_mass, q_mass, under, over)
    return Pair(both, both)


@lru_cache(maxsize=8)
def laplace_pair(q: float, b: float, h: float) -> Pair:
    """Losses of Laplace noise of scale b on a Poisson sample, one contribution of norm 1."""
    most = 1 / b
    top, bottom = _log_mix(q, most), _log_mix(q, -most)
    if top > _MAX_LOSS:
        raise GridTooFine(f"loss {top}")
    first, edges = _cells(h, bottom, top)
    x = np.clip((_sampled_edges(edges, q) * b + 1) / 2, 0.0, 1.0)
    q_mass = 0.5 * (np.exp(-x[:-1] / b) - np.exp(-x[1:] / b))
    p_mass = (1 - q) * q_mass + q * 0.5 * (np.exp((x[1:] - 1) / b) - np.exp((x[:-1] - 1) / b))
    tail = 0.5 * math.exp(-most)
    ends = ((bottom, (1 - q) * 0.5 + q * tail, 0.5), (top, (1 - q) * tail + q * 0.5, tail))
    remove = _split(h, first, p_mass, q_mass, 0.0, 0.0)
    add = _mirror(h, first, p_mass, q_mass, 0.0, 0.0)
    for loss, p_end, q_end in ends:
        remove = _with_atom(remove, loss, p_end)
        add = _with_atom(add, -loss, q_end)
    return Pair(remove, add)


def _with_atom(loss: Loss, at: float, mass: float) -> Loss:
    extra = from_atoms(loss.h, np.array([at]), np.array([mass]), 0.0)
    low = min(loss.low, extra.low)
    high = max(loss.low + len(loss.p), extra.low + len(extra.p))
    p = np.zeros(high - low)
    for part in (loss, extra):
        start = part.low - low
        p[start : start + len(part.p)] += part.p
    return Loss(loss.h, low, p, loss.infinite)


def from_atoms(h: float, losses: Floats, masses: Floats, infinite: float) -> Loss:
    """Round point masses to the grid, keeping the P- and Q-mass of each."""
    scaled = losses / h
    below = np.floor(scaled)
    up = np.clip(np.expm1(-(losses - below * h)) / math.expm1(-h), 0.0, 1.0)
    low, high = int(below.min()), int(below.max()) + 1
    if high - low > MAX_POINTS:
        raise GridTooFine(f"{high - low} points at step {h}")
    index = (below - low).astype(np.int64)
    size = high - low + 1
    p = np.bincount(index, masses * (1 - up), size) + np.bincount(index + 1, masses * up, size)
    return Loss(h, low, np.asarray(p, dtype=np.float64), infinite)


def response_atoms(eps0: float, k: int) -> tuple[Floats, float]:
    """Masses of k-ary randomised response at ``eps0 * (1, 0, -1)`` and the step of that grid."""
    other = 1 / (math.exp(min(eps0, 700.0)) + k - 1)
    truth = -math.expm1(-eps0) if k == 1 else 1 / (1 + (k - 1) * math.exp(-eps0))
    return np.array([truth, (k - 2) * other, other]), eps0


def discrete_laplace_atoms(a: float, sensitivity: int) -> tuple[Floats, float]:
    """Masses at ``a * (s, s - 2, ..., -s)`` and the step ``2 a`` of that grid."""
    w = math.exp(-a)
    p = (1 - w) / (1 + w) * np.exp(-a * np.arange(sensitivity + 1))
    p[0], p[-1] = 1 / (1 + w), math.exp(-a * sensitivity) / (1 + w)
    return p, 2 * a


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
