"""Intervals for one proportion and for the difference of two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.core.statistics._interval import Interval, as_result, critical_value

__all__ = [
    "checked_counts",
    "clopper_pearson_interval",
    "mover_difference",
    "newcombe_interval",
    "wilson_interval",
]

EMPTY = "no observations (n = 0)"
Array = NDArray[np.float64]


def checked_counts(successes: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    """Return counts as broadcast float arrays after checking 0 <= successes <= n."""
    k, total = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(n, dtype=float))
    slack = 1e-9 * np.maximum(total, 1.0)  # effective counts come from divisions
    if np.isnan(k).any() or np.isnan(total).any() or np.isinf(total).any():
        raise InvalidParameterError("successes and n must be finite numbers, got NaN or inf.")
    if (k < 0).any() or (k > total + slack).any():
        raise InvalidParameterError(
            "successes must lie between 0 and n. A count above its total means that numerator "
            "and denominator come from different rows."
        )
    return np.minimum(k, total), total


def _share(k: Array, n: Array) -> Array:
    out = np.full(k.shape, np.nan)
    np.divide(k, n, out=out, where=n > 0)
    return out


def _reason(n: Array) -> str:
    return EMPTY if (n == 0).any() else ""


def wilson_interval(
    successes: ArrayLike,
    n: ArrayLike,
    *,
    confidence: float = 0.95,
    critical: float | None = None,
) -> Interval:
    r"""Return Wilson's score interval of a proportion.

    The interval has centre :math:`(k + z^2/2)/(n + z^2)` and never leaves [0, 1].

    Parameters
    ----------
    successes, n : array-like
        Counts, broadcast against each other; real numbers are allowed (effective sample sizes).
    confidence : float, in (0, 1), default=0.95
    critical : float or None
        Critical value to use instead of the normal one, for simultaneous intervals.

    Returns
    -------
    Interval
        NaN with a reason where ``n = 0``.

    Raises
    ------
    InvalidParameterError
        Counts below zero or above ``n``.

    Notes
    -----
    O(1) per entry. No privacy statement: the input is used as it is.

    References
    ----------
    Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Examples
    --------
    >>> i = wilson_interval(805, 1795)
    >>> round(i.low, 6), round(i.high, 6)
    (0.425595, 0.471561)
    """
    z = critical_value(confidence, critical)
    k, total = checked_counts(successes, n)
    p = _share(k, total)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrunk = total + z * z
        centre = (k + z * z / 2) / shrunk
        half = z / shrunk * np.sqrt(k * (1 - p) + z * z / 4)
    low = np.where(k == 0, 0.0, np.minimum(np.maximum(centre - half, 0.0), p))
    high = np.where(k == total, 1.0, np.maximum(np.minimum(centre + half, 1.0), p))
    undefined = total == 0
    low, high = np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
    return Interval(
        as_result(p), as_result(low), as_result(high), confidence, "wilson", _reason(total)
    )


def clopper_pearson_interval(
    successes: ArrayLike,
    n: ArrayLike,
    *,
    confidence: float = 0.95,
    alternative: str = "two-sided",
) -> Interval:
    """Return the exact (Clopper-Pearson) interval of a proportion.

    Its coverage is at least ``confidence`` for every n and every proportion.

    Parameters
    ----------
    successes, n : array-like
        Counts, broadcast against each other.
    confidence : float, in (0, 1), default=0.95
    alternative : {"two-sided", "lower", "upper"}, default="two-sided"
        One-sided bounds put all the error on one end; the other end is 0 or 1.

    Returns
    -------
    Interval
        NaN with a reason where ``n = 0``.

    Raises
    ------
    InvalidParameterError
        Counts below zero or above ``n``, or an unknown alternative.

    Notes
    -----
    Quantiles of the beta distribution; O(1) per entry.

    References
    ----------
    Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case
    of the binomial".

    Examples
    --------
    >>> i = clopper_pearson_interval(0, 10, alternative="upper")
    >>> i.low, round(i.high, 6)
    (0.0, 0.258866)
    """
    check.one_of(("two-sided", "lower", "upper"), alternative=alternative)
    level = check.confidence(confidence=confidence)
    k, total = checked_counts(successes, n)
    tail = (1 - level) / 2 if alternative == "two-sided" else 1 - level
    inner = (k > 0) & (total > 0)
    low = np.where(inner, betaincinv(np.where(inner, k, 1.0), total - k + 1, tail), 0.0)
    inner = (k < total) & (total > 0)
    rest = np.where(inner, total - k, 1.0)
    high = np.where(inner, betaincinv(k + 1, rest, 1 - tail), 1.0)
    if alternative == "lower":
        high = np.ones_like(high)
    if alternative == "upper":
        low = np.zeros_like(low)
    undefined = total == 0
    return Interval(
        as_result(_share(k, total)),
        as_result(np.where(undefined, np.nan, low)),
        as_result(np.where(undefined, np.nan, high)),
        level,
        f"clopper-pearson {alternative}",
        _reason(total),
    )


def mover_difference(first: Interval, second: Interval) -> Interval:
    r"""Return the interval of ``first - second`` from the intervals of two independent values.

    The method of variance estimates recovery: with limits :math:`(l_i, u_i)` around
    :math:`p_i`, the limits of :math:`d = p_1 - p_2` are
    :math:`d - \sqrt{(p_1 - l_1)^2 + (u_2 - p_2)^2}` and
    :math:`d + \sqrt{(u_1 - p_1)^2 + (p_2 - l_2)^2}`.

    Parameters
    ----------
    first, second : Interval
        Of independent samples and of the same level; arrays are broadcast.

    Returns
    -------
    Interval

    Notes
    -----
    With Wilson limits this is Newcombe's method 10. O(1) per entry.

    References
    ----------
    Zou and Donner 2008, "Construction of confidence limits about effect measures".

    Examples
    --------
    >>> a, b = wilson_interval(805, 1795), wilson_interval(349, 1488)
    >>> d = mover_difference(a, b)
    >>> round(d.low, 6), round(d.high, 6)
    (0.182053, 0.245023)
    """
    p1, l1, u1 = (np.asarray(x, dtype=float) for x in (first.value, first.low, first.high))
    p2, l2, u2 = (np.asarray(x, dtype=float) for x in (second.value, second.low, second.high))
    with np.errstate(invalid="ignore"):
        d = p1 - p2
        low = d - np.hypot(p1 - l1, u2 - p2)
        high = d + np.hypot(u1 - p1, p2 - l2)
    return Interval(
        as_result(d),
        as_result(low),
        as_result(high),
        first.confidence,
        f"mover({first.method})",
        first.reason or second.reason,
    )


def newcombe_interval(
    successes_1: ArrayLike,
    n_1: ArrayLike,
    successes_2: ArrayLike,
    n_2: ArrayLike,
    *,
    confidence: float = 0.95,
    critical: float | None = None,
) -> Interval:
    """Return Newcombe's hybrid score interval of the difference of two proportions.

    Parameters
    ----------
    successes_1, n_1, successes_2, n_2 : array-like
        Counts of two independent samples; the difference is first minus second.
    confidence : float, in (0, 1), default=0.95
    critical : float or None
        Critical value to use instead of the normal one, for simultaneous intervals.

    Returns
    -------
    Interval
        NaN with a reason where a sample is empty.

    Raises
    ------
    InvalidParameterError
        Counts below zero or above their total.

    Notes
    -----
    Two Wilson intervals joined by :func:`mover_difference`; O(1) per entry.

    References
    ----------
    Newcombe 1998, "Interval estimation for the difference between independent proportions",
    method 10.

    Examples
    --------
    >>> i = newcombe_interval(56, 70, 48, 80)
    >>> round(i.low, 4), round(i.high, 4)
    (0.0524, 0.3339)
    """
    options: dict[str, Any] = {"confidence": confidence, "critical": critical}
    joined = mover_difference(
        wilson_interval(successes_1, n_1, **options),
        wilson_interval(successes_2, n_2, **options),
    )
    return Interval(joined.value, joined.low, joined.high, confidence, "newcombe", joined.reason)
