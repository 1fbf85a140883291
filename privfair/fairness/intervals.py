"""Intervals of max-min gaps and min-max ratios over groups, valid down to no disparity.

A gap is never negative, so that the quantiles of its bootstrap replicates stay above zero
whatever the truth. Here every pairwise difference gets a simultaneous interval, and the gap's
interval is what all of them allow together; it holds zero whenever no pair is told apart.

Normal quantiles are wrong in the tails of a group of three, or of a rate of which three cases are
expected. There the limits of a group are the wider of Wilson's and Clopper and Pearson's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from privfair.core.statistics import (
    Interval,
    clopper_pearson_interval,
    mover_difference,
    ratio_interval,
    tukey_critical,
    wilson_interval,
)

__all__ = ["EXACT_BELOW", "GapInterval", "gap_interval", "group_limits", "ratio_gap_interval"]

Array = NDArray[np.float64]
EXACT_BELOW = 10.0
"""Cases, seen or expected on either side, below which a group's limits are exact ones, too."""


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


def few_cases(successes: Array, n: Array) -> NDArray[np.bool_]:
    """Return which groups are too small for normal quantiles.

    Few are seen, or few would be if all groups had the same rate. The second half makes the
    choice almost independent of how a group's own count fell, which is what a test needs.
    """
    pooled = successes.sum() / n.sum() if n.sum() > 0 else 0.0
    seen = np.minimum(successes, n - successes)
    return np.asarray(np.minimum(seen, n * min(pooled, 1 - pooled)) < EXACT_BELOW)


def group_limits(
    successes: ArrayLike, n: ArrayLike, *, confidence: float, critical: float
) -> Interval:
    r"""Return limits of the rate of each group, to be joined pair by pair.

    Parameters
    ----------
    successes, n : array-like, shape (n_groups,)
        Counts, or effective counts of weighted and of released tables.
    confidence : float, in (0, 1)
        Level of all comparisons together; only recorded.
    critical : float
        Critical value of one comparison, on the scale of the normal law.

    Returns
    -------
    Interval
        NaN where ``n = 0``.

    Notes
    -----
    Wilson's limits at the critical value. Where fewer than ``EXACT_BELOW`` = 10 cases are seen
    in the numerator or outside it, or would be expected at the rate of all groups together, the
    wider of Wilson's and Clopper and Pearson's limits at the same level,
    :math:`2\Phi(z) - 1`. Next to a group whose rate is known, a comparison with such a group is
    then an exact binomial test. O(n_groups).

    References
    ----------
    Wilson 1927; Clopper and Pearson 1934; Brown, Cai and DasGupta 2001, "Interval estimation for
    a binomial proportion".

    Examples
    --------
    >>> i = group_limits([1, 500], [1, 5000], confidence=0.95, critical=1.959964)
    >>> i.low.round(3).tolist()
    [0.025, 0.092]
    """
    k, total = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    score = wilson_interval(k, total, confidence=confidence, critical=critical)
    few = few_cases(k, total) & (total > 0)
    if not few.any():
        return score
    level = float(1 - 2 * ndtr(-critical))
    exact = clopper_pearson_interval(k[few], total[few], confidence=level)
    low, high = np.array(score.low, dtype=float), np.array(score.high, dtype=float)
    low[few] = np.minimum(low[few], exact.low)
    high[few] = np.maximum(high[few], exact.high)
    return Interval(score.value, low, high, confidence, score.method, score.reason)


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
    Wilson limits at the Tukey-Kramer critical value are joined pair by pair (method of
    variance estimates recovery); a group with few cases has the wider of Wilson's and Clopper
    and Pearson's limits (:func:`group_limits`). Where all pairwise intervals hold, the gap lies
    between the largest lower and the largest upper limit. Two groups of ten cases and more:
    Newcombe's interval, cut at zero. O(n_groups^2). The level is approximate, not proven; it is
    measured in ``benchmarks/bench_gap_coverage.py``.

    References
    ----------
    Newcombe 1998; Zou and Donner 2008; Hayter 1984; Clopper and Pearson 1934.

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
    each = group_limits(k[some], total[some], confidence=confidence, critical=critical)
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


def _mover_ratio(
    each: Interval, i: NDArray[np.int64], j: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Return limits of rate i / rate j: the r at which ``p_i - r p_j`` is not told from zero.

    At r = 1 that is the question of :func:`mover_difference`, so that a ratio excludes 1 where
    the difference excludes 0. Roots of a quadratic in a form that does not cancel.
    """
    p, low, high = (np.asarray(x, dtype=float) for x in (each.value, each.low, each.high))
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = p[i] - low[i], high[j] - p[j]
        root = np.sqrt(np.maximum((p[i] * b) ** 2 + (a * p[j]) ** 2 - (a * b) ** 2, 0.0))
        least = low[i] * (2 * p[i] - low[i]) / (p[i] * p[j] + root)
        a, b = high[i] - p[i], p[j] - low[j]
        root = np.sqrt(np.maximum((p[i] * b) ** 2 + (a * p[j]) ** 2 - (a * b) ** 2, 0.0))
        most = (p[i] * p[j] + root) / (low[j] * (2 * p[j] - low[j]))
    return np.where(low[i] > 0, least, 0.0), np.where(low[j] > 0, most, np.inf)


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
    lies between the smallest lower limit and the smallest upper limit, at most 1. For a pair with
    a group of few cases, the wider of Koopman's limits and those joined from the exact limits of
    the groups (:func:`group_limits`). O(n_groups^2).

    References
    ----------
    Koopman 1984; Hayter 1984; Donner and Zou 2012, "Closed-form confidence intervals for
    functions of the normal mean and standard deviation".

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
    few = few_cases(k, total)
    if few.any():
        each = group_limits(k, total, confidence=confidence, critical=critical)
        joined = _mover_ratio(each, i, j)
        wide = (few[i] | few[j]) & ~np.isnan(low)  # 0/0 stays undefined
        low = np.where(wide, np.minimum(low, joined[0]), low)
        high = np.where(wide, np.maximum(high, joined[1]), high)
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
