"""Intervals of max-min gaps and min-max ratios over groups, valid down to no disparity.

A gap is never negative, so that the quantiles of its bootstrap replicates stay above zero
whatever the truth. Here every pairwise difference gets a simultaneous interval, and the gap's
interval is what all of them allow together; it holds zero whenever no pair is told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core.statistics import (
    Interval,
    mover_difference,
    ratio_interval,
    tukey_critical,
    wilson_interval,
)

__all__ = ["GapInterval", "gap_interval", "ratio_gap_interval"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GapInterval:
    """A max-min gap (or min-max ratio) with its interval.

    Attributes
    ----------
    value, low, high : float
        NaN where fewer than two groups have a rate.
    pair : tuple of int or None
        Positions of the group with the largest and the group with the smallest rate.
    n_groups : int
        Groups covered.
    reason : str
        Why there is no value.
    """

    value: float
    low: float
    high: float
    pair: tuple[int, int] | None
    n_groups: int
    reason: str = ""


_NOTHING = "fewer than two groups have a defined rate"


def _covered(rates: Array) -> NDArray[np.int64]:
    return np.flatnonzero(~np.isnan(rates))


def gap_interval(successes: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> GapInterval:
    """Return the interval of the largest difference between the rates of independent groups.

    Parameters
    ----------
    successes, n : array-like, shape (n_groups,)
        Counts, or effective counts of weighted data; groups with ``n = 0`` are not covered.
    confidence : float, in (0, 1), default=0.95

    Returns
    -------
    GapInterval

    Notes
    -----
    Wilson intervals at the Tukey-Kramer critical value are joined pair by pair (method of
    variance estimates recovery). Where all pairwise intervals hold, the gap lies between the
    largest lower and the largest upper limit. Two groups: Newcombe's interval, cut at zero.
    O(n_groups^2). Coverage is measured in ``benchmarks/bench_gap_coverage.py``.

    References
    ----------
    Newcombe 1998; Zou and Donner 2008; Hayter 1984.

    Examples
    --------
    >>> i = gap_interval([805, 349], [1795, 1488])
    >>> round(i.value, 6), round(i.low, 6), round(i.high, 6)
    (0.213925, 0.182053, 0.245023)
    """
    k, total = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    some = np.flatnonzero(total > 0)
    if some.size < 2:
        return GapInterval(np.nan, np.nan, np.nan, None, int(some.size), _NOTHING)
    critical = tukey_critical(int(some.size), confidence)
    each = wilson_interval(k[some], total[some], confidence=confidence, critical=critical)
    return difference_gap(each, some)


def difference_gap(each: Interval, positions: NDArray[np.int64]) -> GapInterval:
    """Return the gap over groups from their intervals at a simultaneous critical value."""
    i, j = np.triu_indices(positions.size, 1)
    first = Interval(each.value[i], each.low[i], each.high[i], each.confidence, each.method)
    second = Interval(each.value[j], each.low[j], each.high[j], each.confidence, each.method)
    pairs = mover_difference(first, second)
    with np.errstate(invalid="ignore"):
        lower = np.fmax.reduce(np.concatenate([pairs.low, -np.asarray(pairs.high)]))
        upper = np.fmax.reduce(np.concatenate([pairs.high, -np.asarray(pairs.low)]))
    top, bottom = int(np.argmax(each.value)), int(np.argmin(each.value))
    value = float(each.value[top] - each.value[bottom])
    return GapInterval(
        value=value,
        low=float(min(max(lower, 0.0), value)),
        high=float(max(upper, value)),
        pair=(int(positions[top]), int(positions[bottom])),
        n_groups=int(positions.size),
    )


def ratio_gap_interval(
    successes: ArrayLike, n: ArrayLike, *, confidence: float = 0.95
) -> GapInterval:
    """Return the interval of the smallest ratio between the rates of independent groups.

    Parameters
    ----------
    successes, n : array-like, shape (n_groups,)
    confidence : float, in (0, 1), default=0.95

    Returns
    -------
    GapInterval
        The ratio is min / max, in [0, 1]; NaN when every rate is zero (0/0).

    Notes
    -----
    Koopman score intervals of all ratios at the Tukey-Kramer critical value; the smallest ratio
    lies between the smallest lower limit and the smallest upper limit, at most 1. O(n_groups^2).

    References
    ----------
    Koopman 1984; Hayter 1984.

    Examples
    --------
    >>> i = ratio_gap_interval([2174, 854], [3696, 2454])
    >>> round(i.value, 6), round(i.low, 3), round(i.high, 3)
    (0.591638, 0.557, 0.628)
    """
    k, total = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    some = np.flatnonzero(total > 0)
    if some.size < 2:
        return GapInterval(np.nan, np.nan, np.nan, None, int(some.size), _NOTHING)
    k, total = k[some], total[some]
    rates = k / total
    top, bottom = int(np.argmax(rates)), int(np.argmin(rates))
    if rates[top] == 0:
        return GapInterval(
            np.nan, np.nan, np.nan, None, int(some.size), "every rate is zero, the ratio is 0/0"
        )
    i, j = np.triu_indices(some.size, 1)
    critical = tukey_critical(int(some.size), confidence)
    pairs = ratio_interval(
        k[i], total[i], k[j], total[j], confidence=confidence, critical=critical
    )
    low, high = np.atleast_1d(pairs.low), np.atleast_1d(pairs.high)
    with np.errstate(divide="ignore"):
        lower = np.fmin.reduce(np.concatenate([low, 1 / high]))
        upper = np.fmin.reduce(np.concatenate([high, 1 / low, [1.0]]))
    value = float(rates[bottom] / rates[top])
    return GapInterval(
        value=value,
        low=float(max(min(lower, value), 0.0)),
        high=float(min(max(upper, value), 1.0)),
        pair=(int(some[top]), int(some[bottom])),
        n_groups=int(some.size),
    )
