"""Intervals and critical values that hold for several quantities at once."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from privfair.core import _validation as check
from privfair.core.exceptions import LengthMismatchError
from privfair.core.statistics._interval import Interval, normal_critical

__all__ = ["max_t_intervals", "sidak_confidence", "tukey_critical"]


def sidak_confidence(confidence: float, n_intervals: int) -> float:
    """Return the level at which each of several independent intervals must be taken.

    Examples
    --------
    >>> round(sidak_confidence(0.95, 2), 6)
    0.974679
    """
    level = check.confidence(confidence=confidence)
    return float(level ** (1.0 / check.positive_int(n_intervals=n_intervals)))


@lru_cache(maxsize=256)
def tukey_critical(n_groups: int, confidence: float) -> float:
    r"""Return the critical value for all pairwise differences among independent groups.

    The quantile of the studentised range divided by :math:`\sqrt 2` (Tukey-Kramer). For two
    groups it is the normal critical value.

    Parameters
    ----------
    n_groups : int, at least 2
    confidence : float, in (0, 1)

    Returns
    -------
    float

    Notes
    -----
    Conservative for unequal variances (Hayter 1984). Cached; about 2 ms at first use.

    References
    ----------
    Hayter 1984, "A proof of the conjecture that the Tukey-Kramer multiple comparisons procedure
    is conservative".

    Examples
    --------
    >>> round(tukey_critical(2, 0.95), 3), round(tukey_critical(6, 0.95), 3)
    (1.96, 2.85)
    """
    level = check.confidence(confidence=confidence)
    if check.positive_int(n_groups=n_groups) <= 2:
        return normal_critical(level)
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, n_groups, np.inf)) / math.sqrt(2)


def max_t_intervals(
    value: ArrayLike, replicates: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Return simultaneous intervals from the bootstrap distribution of the largest deviation.

    Parameters
    ----------
    value : array-like, shape (n_quantities,)
        Estimates, dependent in any way.
    replicates : array-like, shape (n_resamples, n_quantities)
    confidence : float, in (0, 1), default=0.95
        Probability with which all intervals hold at the same time.

    Returns
    -------
    Interval
        Arrays; NaN with a reason where the replicates do not vary (an estimate on the edge of
        its range), because a standard error of zero would be read as certainty.

    Notes
    -----
    With standard errors ``s_j`` of the replicates, the critical value is the quantile of
    ``max_j |r_j - value_j| / s_j``. O(n_resamples * n_quantities).

    References
    ----------
    Westfall and Young 1993, "Resampling-Based Multiple Testing".

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4000, 3))
    >>> i = max_t_intervals([0.0, 0.0, 0.0], draws)
    >>> bool((i.high > 2.2).all() and (i.high < 2.6).all())
    True
    """
    level = check.confidence(confidence=confidence)
    centre = np.asarray(value, dtype=float).reshape(-1)
    sample = np.asarray(replicates, dtype=float)
    if sample.ndim != 2 or sample.shape[1] != centre.size:
        raise LengthMismatchError(
            f"replicates must have shape (n_resamples, {centre.size}), got {sample.shape}."
        )
    usable = ~np.isnan(centre) & ~np.isnan(sample).any(axis=0)
    spread = np.full(centre.shape, np.nan)
    if usable.any():
        spread[usable] = sample[:, usable].std(axis=0, ddof=1)
    usable &= np.nan_to_num(spread) > 0
    low, high = np.full(centre.shape, np.nan), np.full(centre.shape, np.nan)
    if usable.any():
        largest = np.abs((sample[:, usable] - centre[usable]) / spread[usable]).max(axis=1)
        critical = float(np.quantile(largest, level, method="weibull"))
        low[usable] = centre[usable] - critical * spread[usable]
        high[usable] = centre[usable] + critical * spread[usable]
    reason = "" if usable.all() else "replicates are undefined or do not vary"
    return Interval(centre, low, high, level, "bootstrap max-t", reason)
