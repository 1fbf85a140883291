"""The best of a random number of runs (Papernot, Steinke 2022)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

__all__ = ["divergences", "law", "quantile", "stopping"]

Floats = NDArray[np.float64]
_MOST_RUNS = 1 << 24


def divergences(
    orders: Floats, r: Floats, grid: Floats, r_grid: Floats, mean: float, shape: float
) -> Floats:
    """Return Renyi divergences of the selection at ``orders``.

    Parameters
    ----------
    orders, r : array of shape (orders,)
        Where they are wanted, and the divergences of one run there.
    grid, r_grid : array of shape (grid,)
        Orders over which the free order of the bound is chosen, and one run's divergences.
    mean, shape : float
        Law of the number of runs: truncated negative binomial, or Poisson for an infinite shape.

    Notes
    -----
    Theorem 2 (finite shape ``s``, stopping probability ``g``): for any order ``b``,
    ``r'(a) = r(a) + ln(E K) / (a - 1) + (1 + s) ((1 - 1/b) r(b) + ln(1/g) / b)``. Theorem 6
    (Poisson): ``r'(a) = r(a) + mean * d + ln(mean) / (a - 1)`` where one run is
    ``(ln(1 + 1/(a-1)), d)``-DP. A divergence grows with its order, so that the value at any
    larger order is a bound too.
    """
    if math.isinf(shape):
        wanted = r + mean * _delta(orders, grid, r_grid) + np.log(mean) / (orders - 1)
        others = r_grid + mean * _delta(grid, grid, r_grid) + np.log(mean) / (grid - 1)
    else:
        cost = (1 - 1 / grid) * r_grid - math.log(stopping(mean, shape)) / grid
        constant = (1 + shape) * float(np.min(cost))
        wanted = r + np.log(mean) / (orders - 1) + constant
        others = r_grid + np.log(mean) / (grid - 1) + constant
    least = np.append(np.minimum.accumulate(others[::-1])[::-1], math.inf)
    return np.asarray(np.minimum(wanted, least[np.searchsorted(grid, orders)]))


def _delta(at: Floats, orders: Floats, r: Floats) -> Floats:
    """Delta of one run at ``ln(1 + 1/(a-1))``, by the conversion of Canonne et al. 2020."""
    x = np.log1p(1 / (at - 1))
    table = (orders - 1) * (r + np.log1p(-1 / orders) - x[:, None]) - np.log(orders)
    return np.asarray(np.exp(np.minimum(table.min(axis=1), 0.0)))


def stopping(mean: float, shape: float) -> float:
    """Return the stopping probability of the truncated negative binomial law with this mean."""
    if mean == 1.0:
        return 1.0
    if shape == 1.0:
        return 1 / mean
    found = brentq(
        lambda log_g: math.log(_mean(math.exp(log_g), shape) / mean),
        -700.0, -1e-12, xtol=1e-14, rtol=1e-14,
    )  # fmt: skip
    return math.exp(float(found)) * (1 - 1e-12)


def _mean(g: float, shape: float) -> float:
    if shape == 0:
        return (1 - g) / (-g * math.log(g))
    return shape * (1 - g) / (-g * math.expm1(shape * math.log(g)))


def law(most: int, mean: float, shape: float) -> Floats:
    """Return the probabilities of 0, ..., ``most`` runs."""
    from scipy.special import gammaln

    k = np.arange(most + 1.0)
    if math.isinf(shape):
        return np.asarray(np.exp(k * math.log(mean) - mean - gammaln(k + 1)))
    g = stopping(mean, shape)
    if g == 1.0:
        return np.asarray((k == 1).astype(float))
    out = np.zeros(most + 1)
    at = k[1:]
    if shape == 0:
        log_p = at * math.log1p(-g) - np.log(at) - math.log(-math.log(g))
    else:
        start = -math.log(math.expm1(-shape * math.log(g)))
        log_p = at * math.log1p(-g) + start + gammaln(at + shape) - gammaln(shape)
        log_p = log_p - gammaln(at + 1)
    out[1:] = np.exp(log_p)
    return out


def quantile(uniform: float, mean: float, shape: float) -> int:
    """Return the smallest number of runs whose distribution function exceeds ``uniform``."""
    most = 64
    while True:
        total = np.cumsum(law(most, mean, shape))
        if total[-1] > uniform or most >= _MOST_RUNS:
            return min(int(np.searchsorted(total, uniform, side="right")), most)
        most *= 4
