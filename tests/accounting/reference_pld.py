"""An independent privacy-loss accountant, against which the one in use is checked.

Written apart from dp_accounting: each grid cell's masses under both laws of a pair are computed
from the normal distribution function and split between the cell's two edges so that both are
kept ("connect the dots", Doroshenko et al. 2022), where dp_accounting takes second differences
of the divergence; and all mechanisms are composed in one product of real Fourier transforms,
where dp_accounting convolves one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

MAX_POINTS = 1 << 21
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


_TAIL = 1e-15
_ULP = float(np.finfo(np.float64).eps)


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


def epsilon(atoms: Atoms, delta: float) -> float:
    """Return the epsilon at which the divergence of a loss is ``delta``."""
    if delta <= atoms.infinite:
        return math.inf
    keep = (atoms.losses > 0) & (atoms.losses < 600)
    losses, p = atoms.losses[keep], atoms.p[keep]
    infinite = atoms.infinite + float(atoms.p[atoms.losses >= 600].sum())
    upper = infinite + np.cumsum(p[::-1])[::-1]
    lower = np.cumsum((p * np.exp(-losses))[::-1])[::-1]
    if len(losses) == 0:
        return 0.0
    k = int(np.argmax(upper - np.exp(losses) * lower <= delta))
    if upper[k] <= delta:
        return 0.0
    return float(np.clip(math.log((upper[k] - delta) / lower[k]), 0.0, losses[k]))


def divergence(atoms: Atoms, epsilon: float) -> float:
    """Return the divergence of a loss at ``epsilon``."""
    over = atoms.losses > epsilon
    return atoms.infinite + float(atoms.p[over] @ -np.expm1(epsilon - atoms.losses[over]))


def pair_epsilons(parts: Sequence[tuple[Pair, int]], deltas: Sequence[float]) -> Floats:
    """Return epsilon of a composition at each delta: the larger of both orders."""
    sides = ["remove"] if all(pair.add is pair.remove for pair, _ in parts) else ["remove", "add"]
    composed = [compose([(getattr(pair, side), n) for pair, n in parts]) for side in sides]
    return np.array([max(epsilon(atoms, delta) for atoms in composed) for delta in deltas])


def converged(
    make: Callable[[float], Sequence[tuple[Pair, int]]],
    deltas: Sequence[float],
    *,
    change: float = 4e-4,
) -> Floats:
    """Return epsilon at each delta, the step quartered until it changes by less than ``change``.

    The step's own error is then some fifteenth of that.
    """
    step, values = 1e-3, np.full(len(deltas), math.inf)
    while step > 1e-8:
        try:
            fresh = pair_epsilons(make(step), deltas)
        except GridTooFine:
            break
        if np.all(np.abs(values - fresh) <= change * fresh):
            return fresh
        values, step = np.minimum(values, fresh), step / 4
    return values
