"""Intervals for the ratio of two proportions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.statistics._interval import Interval, as_result, critical_value
from privfair.core.statistics._proportions import checked_counts

__all__ = ["ratio_interval"]

Array = NDArray[np.float64]
_STEPS = 80  # bisection on the log scale: 2^-80 of a range of 80 is far below one ulp
_LOG_RANGE = 40.0


def ratio_interval(
    successes_1: ArrayLike,
    n_1: ArrayLike,
    successes_2: ArrayLike,
    n_2: ArrayLike,
    *,
    confidence: float = 0.95,
    method: str = "koopman",
    critical: float | None = None,
) -> Interval:
    """Return an interval of the ratio of two proportions, first over second.

    Parameters
    ----------
    successes_1, n_1, successes_2, n_2 : array-like
        Counts of two independent samples.
    confidence : float, in (0, 1), default=0.95
    method : {"koopman", "log"}, default="koopman"
        Koopman's score interval, or the delta method on the logarithm, which is undefined when
        a count is zero.
    critical : float or None
        Critical value to use instead of the normal one, for simultaneous intervals.

    Returns
    -------
    Interval
        NaN with a reason where a sample is empty or both counts are zero (0/0); the value is
        inf where only the second count is zero.

    Raises
    ------
    InvalidParameterError
        Counts below zero or above their total, or an unknown method.

    Notes
    -----
    Koopman's limits are found by bisection on the logarithm of the ratio, vectorised over all
    entries: 80 steps, O(entries) each.

    References
    ----------
    Koopman 1984, "Confidence intervals for the ratio of two binomial proportions";
    Katz et al. 1978 for the logarithmic interval.

    Examples
    --------
    >>> i = ratio_interval(36, 40, 16, 80)
    >>> round(i.low, 2), round(i.high, 2)
    (2.94, 7.15)
    """
    check.one_of(("koopman", "log"), method=method)
    z = critical_value(confidence, critical)
    k1, m1 = checked_counts(successes_1, n_1)
    k2, m2 = checked_counts(successes_2, n_2)
    k1, m1, k2, m2 = np.broadcast_arrays(k1, m1, k2, m2)
    undefined = (m1 == 0) | (m2 == 0) | ((k1 == 0) & (k2 == 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(undefined, np.nan, (k1 / m1) / (k2 / m2))
        if method == "log":
            low, high = _log_limits(k1, m1, k2, m2, value, z)
        else:
            low, high = _koopman_limits(k1, m1, k2, m2, value, z)
    low, high = np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
    reason = ""
    if undefined.any():
        reason = "a sample is empty or both counts are zero (0/0)"
    elif np.isnan(low).any():
        reason = "a count is zero, where the logarithmic interval is undefined"
    return Interval(as_result(value), as_result(low), as_result(high), confidence, method, reason)


def _log_limits(
    k1: Array, m1: Array, k2: Array, m2: Array, value: Array, z: float
) -> tuple[Array, Array]:
    width = z * np.sqrt(1 / k1 - 1 / m1 + 1 / k2 - 1 / m2)
    bad = (k1 == 0) | (k2 == 0)
    low = np.where(bad, np.nan, value * np.exp(-width))
    high = np.where(bad, np.nan, value * np.exp(width))
    return low, high


def _score(phi: Array, k1: Array, m1: Array, k2: Array, m2: Array) -> Array:
    """Return Koopman's chi-square statistic of the hypothesis p1 = phi * p2."""
    total = m1 + m2
    b = m1 * phi + k1 + m2 + k2 * phi
    root = np.sqrt(np.maximum(b * b - 4 * total * phi * (k1 + k2), 0.0))
    # the smaller root of the likelihood equation, in the form that does not cancel
    p2 = np.minimum(2 * (k1 + k2) / (b + root), 1.0)
    p1 = np.minimum(phi * p2, 1.0)
    return _pearson(k1, m1, p1) + _pearson(k2, m2, p2)


def _pearson(k: Array, m: Array, p: Array) -> Array:
    """Return (k - mp)^2 / (mp(1 - p)), with 0/0 = 0 at p = 0 and p = 1."""
    miss = (k - m * p) ** 2
    spread = m * p * (1 - p)
    exact = miss <= 1e-18 * m * m
    return np.where(exact, 0.0, miss / np.where(exact, 1.0, spread))


def _koopman_limits(
    k1: Array, m1: Array, k2: Array, m2: Array, value: Array, z: float
) -> tuple[Array, Array]:
    target = z * z
    log_value = np.log(np.where((value > 0) & np.isfinite(value), value, 1.0))
    ends = []
    for sign in (-1.0, 1.0):
        inside = log_value.copy()
        if sign < 0:
            inside = np.where(k2 == 0, _LOG_RANGE, inside)
        else:
            inside = np.where(k1 == 0, -_LOG_RANGE, inside)
        outside = np.full(inside.shape, sign * _LOG_RANGE)
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            accepted = _score(np.exp(middle), k1, m1, k2, m2) <= target
            inside = np.where(accepted, middle, inside)
            outside = np.where(accepted, outside, middle)
        ends.append(np.exp(inside))
    low = np.where(k1 == 0, 0.0, np.minimum(ends[0], value))
    high = np.where(k2 == 0, np.inf, np.maximum(ends[1], value))
    return low, high
