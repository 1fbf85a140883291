"""Masses of a privacy loss between the points of a grid, rounded up or down as a whole.

For pairs whose loss grows with the output, the mass of each cell under both laws follows from
distribution functions. A cell is then put on grid points in a way that dominates the pair
("connect the dots", Doroshenko et al. 2022), or in a way that the pair dominates: cells are
merged, which is post-processing, in such proportions that what results lies on the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr

__all__ = [
    "Cells",
    "atom_cells",
    "binomial_law",
    "mixture_cells",
    "pair_cells",
    "rounded_down",
    "rounded_up",
]

Floats = NDArray[np.float64]
Mixture = tuple[Floats, Floats]
"""Means of normal laws of one scale, and their weights."""
DEVIATIONS = 8.6
"""Standard deviations of a Gaussian that a grid covers; 4e-18 of it are beyond on each side."""
_LEAST = 1e-26  # mass of cells that are not worth an operation


@dataclass(frozen=True)
class Cells:
    """Masses between the edges ``(first + k) * h``.

    Attributes
    ----------
    h : float
        Distance of the edges.
    first : int
        Index of the lowest edge.
    p, q : array of shape (cells,)
        Masses under both laws; each loss ``log(p / q)`` lies between the cell's edges.
    under : tuple of float
        P- and Q-mass below the lowest edge.
    over : tuple of float
        P- and Q-mass above the highest edge.
    """

    h: float
    first: int
    p: Floats
    q: Floats
    under: tuple[float, float]
    over: tuple[float, float]

    def mirrored(self) -> Cells:
        """Return the cells of the other order of the pair."""
        return Cells(
            self.h,
            -(self.first + len(self.p)),
            self.q[::-1],
            self.p[::-1],
            self.over[::-1],
            self.under[::-1],
        )

    def edges(self) -> Floats:
        """Return the lower edges of the cells."""
        return np.asarray((self.first + np.arange(len(self.p))) * self.h, dtype=np.float64)


def binomial_law(count: int, q: float) -> Floats:
    """Return the binomial probabilities of 0, ..., ``count``."""
    j = np.arange(count + 1)
    log_ways = gammaln(count + 1) - gammaln(j + 1) - gammaln(count - j + 1)
    with np.errstate(divide="ignore"):
        rest = np.where(j < count, (count - j) * np.log1p(-q) if q < 1 else -np.inf, 0.0)
    return np.asarray(np.exp(log_ways + j * math.log(q) + rest))


def mixture_loss(
    x: Floats, shifts: Floats, weights: Floats, sigma: float
) -> tuple[Floats, Floats]:
    """Return ``log sum_j w_j e^((2 j x - j^2) / (2 sigma^2))`` and its derivative."""
    keep = weights > 0
    j, w = shifts[keep], weights[keep]
    exponent = (2 * np.outer(x, j) - j**2) / (2 * sigma**2) + np.log(w)
    top = exponent.max(axis=1, keepdims=True)
    parts = np.exp(exponent - top)
    total = parts.sum(axis=1)
    return np.log(total) + top[:, 0], (parts @ j) / (total * sigma**2)


def mixture_reach(shifts: Floats, weights: Floats, sigma: float) -> tuple[float, float]:
    """Return the losses between which all but 1e-17 of both laws lie."""
    ends = np.array([-DEVIATIONS * sigma, float(shifts.max()) + DEVIATIONS * sigma])
    low, high = mixture_loss(ends, shifts, weights, sigma)[0]
    return float(low), float(high)


def mixture_cells(shifts: Floats, weights: Floats, sigma: float, h: float) -> Cells:
    """Return the cells of ``sum_j w_j N(j, sigma^2)`` against ``N(0, sigma^2)``."""
    return pair_cells((shifts, weights), (np.zeros(1), np.ones(1)), sigma, h)


def pair_cells(one: Mixture, two: Mixture, sigma: float, h: float) -> Cells:
    """Return the cells of two mixtures of normal laws, the first moved up, the second down.

    The loss is increasing in the output: where it passes an edge is found on a table and by
    Newton's method.
    """
    ends = (
        float(min(one[0].min(), two[0].min())) - DEVIATIONS * sigma,
        float(max(one[0].max(), two[0].max())) + DEVIATIONS * sigma,
    )
    low, high = _pair_loss(np.array(ends), one, two, sigma)[0]
    first, last = math.floor(low / h), math.ceil(high / h)
    last = max(last, first + 1)
    edges = np.asarray(np.arange(first, last + 1) * h, dtype=np.float64)
    x = _inverse(edges, ends, one, two, sigma)
    (p, under_p, over_p), (q, under_q, over_q) = (_masses(x, law, sigma) for law in (one, two))
    return Cells(h, first, p, q, (under_p, under_q), (over_p, over_q))


def atom_cells(losses: Floats, masses: Floats, infinite: float, h: float) -> Cells:
    """Return the cells of a loss with finitely many values."""
    below = np.floor(losses / h)
    first = int(below.min())
    index = (below - first).astype(np.int64)
    size = int(index.max()) + 1
    p: Floats = np.asarray(np.bincount(index, masses, size), dtype=np.float64)
    other = masses * np.exp(-np.minimum(losses, 700.0))
    q: Floats = np.asarray(np.bincount(index, other, size), dtype=np.float64)
    return Cells(h, first, p, q, (0.0, 0.0), (infinite, 0.0))


def _pair_loss(x: Floats, one: Mixture, two: Mixture, sigma: float) -> tuple[Floats, Floats]:
    value, slope = mixture_loss(x, *one, sigma)
    if len(two[0]) == 1 and two[0][0] == 0:
        return value, slope
    other, falls = mixture_loss(x, *two, sigma)
    return value - other, slope - falls


def _masses(x: Floats, law: Mixture, sigma: float) -> tuple[Floats, float, float]:
    total, under, over = np.zeros(len(x) - 1), 0.0, 0.0
    for shift, weight in zip(*law, strict=True):
        at = (x - shift) / sigma
        total += weight * _between(at)
        under += weight * float(ndtr(at[0]))
        over += weight * float(ndtr(-at[-1]))
    return total, under, over


def _inverse(
    edges: Floats, ends: tuple[float, float], one: Mixture, two: Mixture, sigma: float
) -> Floats:
    width = ends[1] - ends[0]
    table = np.linspace(ends[0] - 0.01 * width, ends[1] + 0.01 * width, 4001)
    losses = np.maximum.accumulate(_pair_loss(table, one, two, sigma)[0])
    x = np.interp(edges, losses, table)
    inside = (edges > losses[0]) & (edges < losses[-1])
    spacing = table[1] - table[0]
    for _ in range(6):
        value, slope = _pair_loss(x[inside], one, two, sigma)
        with np.errstate(divide="ignore", invalid="ignore"):
            move = (edges[inside] - value) / slope
        # Where the loss hardly depends on the output, the table's cell is as good as any.
        x[inside] += np.clip(np.nan_to_num(move), -spacing, spacing)
    x[edges <= losses[0]] = -math.inf
    x[edges >= losses[-1]] = math.inf
    return np.maximum.accumulate(x)


def _between(at: Floats) -> Floats:
    """Normal masses between ascending points, with full relative precision in both tails."""
    a, b = at[:-1], at[1:]
    upper = a > 0
    left = np.where(upper, -b, a)
    right = np.where(upper, -a, b)
    return np.asarray(ndtr(right) - ndtr(left))


def rounded_up(cells: Cells) -> tuple[int, Floats, float]:
    """Put the cells on grid points so that the result dominates them.

    Returns the index of the first point, the masses, and the mass at infinity. P- and Q-mass of
    each cell are kept, which makes the lower edge a mixture of both ends.
    """
    p, q, h = cells.p, cells.q, cells.h
    ratio = np.exp(np.minimum(cells.edges(), 700.0))
    with np.errstate(invalid="ignore", over="ignore"):
        up = (p - ratio * q) / -math.expm1(-h)
    up = np.where(np.isnan(up), p, np.clip(up, 0.0, p))
    out = np.zeros(len(p) + 1)
    out[:-1] = p - up
    out[1:] += up
    out[0] += cells.under[0]
    return cells.first, out, cells.over[0]


def rounded_down(cells: Cells) -> tuple[int, Floats]:
    """Put the cells on grid points so that they dominate the result.

    Part of each cell goes down to its lower edge and the rest up to its upper edge. What meets
    at an edge is merged (post-processing of the pair), in shares that make the merged loss that
    edge; where that cannot be, the loss is lowered to the next edge below, which only makes it
    smaller. Shares are determined from both ends towards the middle, where the recursion is
    stable. Masses may sum to less than one: what is missing has a loss of minus infinity.
    """
    p, q, h = cells.p, cells.q, cells.h
    kept = np.flatnonzero(p > _LEAST)
    if len(kept) == 0:
        return cells.first, np.zeros(1)
    start, stop = int(kept[0]), int(kept[-1]) + 1
    over_p = cells.over[0] + float(p[stop:].sum())
    over_q = cells.over[1] + float(q[stop:].sum())
    p, q, lower = p[start:stop], q[start:stop], cells.edges()[start:stop]
    excess = np.maximum(p - np.exp(np.minimum(lower, 700.0)) * q, 0.0)
    lack = np.maximum(np.exp(np.minimum(lower + h, 700.0)) * q - p, 0.0)
    top = max(0.0, over_p - math.exp(min(float(lower[-1]) + h, 700.0)) * over_q)
    down = _shares(excess, lack, 0.0)
    # From above, the excess of a cell plays the part of the lack of the one below.
    up = _shares(lack[::-1], excess[::-1], top)[::-1]
    meeting = int(np.argmin(np.abs(1 - down - up)))
    share = down.copy()  # of each cell, to its lower edge
    share[meeting + 1 :] = 1 - up[meeting + 1 :]
    share[meeting] = max(down[meeting], 1 - up[meeting])
    out = np.zeros(len(p) + 2)  # from one edge below the first
    gain, loss = share * excess, (1 - share) * lack
    fits = np.ones(len(p), dtype=bool)
    fits[1:] = gain[1:] >= loss[:-1] * (1 - 1e-12)
    mass = share * p
    mass[1:] += ((1 - share) * p)[:-1]
    index = np.arange(len(p)) + 1
    np.add.at(out, np.where(fits, index, index - 1), mass)
    last = float(((1 - share) * p)[-1])
    holds = top >= loss[-1] * (1 - 1e-12)
    out[len(p) + 1 if holds else len(p)] += last + over_p
    return cells.first + start - 1, out


def _shares(excess: Floats, lack: Floats, entering: float) -> Floats:
    """Shares ``s`` with ``s_i * excess_i = (1 - s_(i-1)) * lack_(i-1)``, at most 1.

    ``entering`` stands for the first right side.
    """
    out = np.empty(len(excess))
    need = entering
    for i, (have, missing) in enumerate(zip(excess.tolist(), lack.tolist(), strict=True)):
        share = 1.0 if need >= have else need / have
        out[i] = share
        need = (1.0 - share) * missing
    return out
