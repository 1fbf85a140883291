"""Intervals for a mean over runs of a random procedure and over a sample of rows at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from privfair.core import _validation as check
from privfair.core.exceptions import DataError
from privfair.core.statistics._interval import Interval
from privfair.core.statistics._proportions import EMPTY, wilson_interval

__all__ = ["crossed_change_interval", "crossed_rate_interval", "mean_interval"]

Floats = NDArray[np.float64]
_WILSON = "Wilson over runs and rows"
_TOO_FEW = "one run only: how much runs differ is unknown"


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Return Student's interval of a mean over independent runs.

    Parameters
    ----------
    values : array-like, shape (n_runs,)
        One number per run; finite.
    confidence : float, in (0, 1), default=0.95

    Returns
    -------
    Interval
        With one run only, both ends are NaN and ``reason`` says so.

    Raises
    ------
    DataError
        No run, or a number that is not finite.

    Examples
    --------
    >>> found = mean_interval([0.1, 0.2, 0.3])
    >>> round(float(found.low), 4), round(float(found.high), 4)
    (-0.0484, 0.4484)
    """
    level = check.confidence(confidence=confidence)
    x = _matrix(values, 1)
    if x.size == 1:
        return Interval(float(x[0]), np.nan, np.nan, level, "Student's t over runs", _TOO_FEW)
    half = _quantile(level, x.size - 1) * float(x.std(ddof=1)) / math.sqrt(x.size)
    centre = float(x.mean())
    return Interval(centre, centre - half, centre + half, level, "Student's t over runs")


def crossed_rate_interval(outcomes: ArrayLike, *, confidence: float = 0.95) -> Interval:
    r"""Return an interval of a rate that both the run and the sampled rows make vary.

    Every run decides on the same rows. With the outcome of row i in run r written
    :math:`z_{ri}`, the variance of the mean over both is at most (and nearly)
    :math:`s_\mathrm{rows}^2 / n + s_\mathrm{runs}^2 / R`, from the means over runs and over rows.
    The interval is Wilson's, at the sample size that gives a binomial this variance.

    Parameters
    ----------
    outcomes : array-like of {0, 1}, shape (n_runs, n_rows)
    confidence : float, in (0, 1), default=0.95

    Returns
    -------
    Interval
        Covers new runs on new rows. NaN where there is no row; with one run, runs are taken not
        to differ and ``reason`` says so.

    Raises
    ------
    DataError
        An outcome that is neither 0 nor 1, or no run.

    Notes
    -----
    O(runs * rows). The residual part of the variance counts in both terms, which errs on the
    wide side.

    References
    ----------
    Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.tile(np.arange(100) % 4 == 0, (5, 1))
    >>> found = crossed_rate_interval(z)
    >>> round(float(found.low), 3), round(float(found.high), 3)
    (0.175, 0.343)
    """
    level = check.confidence(confidence=confidence)
    z = _matrix(outcomes, 2)
    if z.size and not np.isin(z, (0.0, 1.0)).all():
        raise DataError("outcomes must be 0 or 1: whether the row counts, in each run.")
    n_runs, n = z.shape
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, level, _WILSON, EMPTY)
    p = float(z.mean())
    by_row, by_run = z.mean(axis=0), z.mean(axis=1)
    variance = float(by_row.var()) / n
    critical = None
    if n_runs > 1:
        of_runs = float(by_run.var(ddof=1)) / n_runs
        variance, df = _joined(variance, n - 1, of_runs, n_runs - 1)
        critical = _quantile(level, df)
    size = n if variance <= 0 else min(float(n * n_runs), p * (1 - p) / variance)
    found = wilson_interval(p * size, size, confidence=level, critical=critical)
    reason = _TOO_FEW if n_runs == 1 else ""
    return Interval(p, float(found.low), float(found.high), level, _WILSON, reason)


def crossed_change_interval(
    changes: ArrayLike, other: ArrayLike | None = None, *, confidence: float = 0.95
) -> Interval:
    r"""Return an interval of a mean change, or of the difference of two, over runs and rows.

    Parameters
    ----------
    changes : array-like of {-1, 0, 1}, shape (n_runs, n_rows)
        Outcome under one procedure minus outcome under another, run by run and row by row.
    other : array-like of {-1, 0, 1}, shape (n_runs, n_other_rows), or None
        Changes in other rows under the same runs; the interval is then of the mean of ``changes``
        minus the mean of ``other``.
    confidence : float, in (0, 1), default=0.95

    Returns
    -------
    Interval
        Covers new runs on new rows; NaN where either has no row.

    Raises
    ------
    DataError
        A change that is none of -1, 0 and 1, or numbers of runs that differ.

    Notes
    -----
    Variances of means over rows and over runs add up, as in :func:`crossed_rate_interval`; runs
    shared by both sets of rows are paired. Two pseudo-rows (half of one with +1, half of one with
    -1, one without a change) keep the interval from collapsing where no decision changed (Agresti
    and Min 2005).

    References
    ----------
    Agresti, Min 2005, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24(5).

    Examples
    --------
    >>> import numpy as np
    >>> found = crossed_change_interval(np.zeros((5, 100)))
    >>> round(float(found.low), 3), round(float(found.high), 3)
    (-0.019, 0.019)
    """
    level = check.confidence(confidence=confidence)
    sets = [_matrix(changes, 2)] + ([] if other is None else [_matrix(other, 2)])
    method = "normal over runs and rows, with pseudo-rows"
    if len({d.shape[0] for d in sets}) != 1:
        raise DataError("both sets of changes need the same runs.")
    for d in sets:
        if d.size and not np.isin(d, (-1.0, 0.0, 1.0)).all():
            raise DataError("changes must be -1, 0 or 1: outcome minus outcome.")
        if d.shape[1] == 0:
            return Interval(np.nan, np.nan, np.nan, level, method, EMPTY)
    centre, of_rows, df_rows = 0.0, 0.0, math.inf
    for sign, d in zip((1.0, -1.0), sets, strict=False):
        n = d.shape[1]
        by_row = d.mean(axis=0)
        shrunk = float(by_row.sum()) / (n + 2)
        centre += sign * shrunk
        of_rows += ((float(np.square(by_row).sum()) + 1.0) / (n + 2) - shrunk**2) / (n + 2)
        df_rows = min(df_rows, n + 1.0)
    n_runs = sets[0].shape[0]
    of_runs, df = 0.0, df_rows
    variance = of_rows
    if n_runs > 1:
        by_run = sets[0].mean(axis=1) - (sets[1].mean(axis=1) if len(sets) > 1 else 0.0)
        of_runs = float(by_run.var(ddof=1)) / n_runs
        variance, df = _joined(of_rows, df_rows, of_runs, n_runs - 1)
    half = _quantile(level, df) * math.sqrt(variance)
    # The pseudo-rows pull the centre towards zero; the estimate itself stays inside.
    raw = float(sets[0].mean()) - (float(sets[1].mean()) if len(sets) > 1 else 0.0)
    reason = _TOO_FEW if n_runs == 1 else ""
    return Interval(raw, min(centre - half, raw), max(centre + half, raw), level, method, reason)


def _matrix(values: ArrayLike, ndim: int) -> Floats:
    x = np.asarray(values, dtype=float)
    if x.ndim != ndim or x.shape[0] == 0:
        raise DataError(f"need an array of {ndim} dimensions with at least one run.")
    if not np.isfinite(x).all():
        raise DataError("every run needs a finite number in every row.")
    return x


def _joined(a: float, df_a: float, b: float, df_b: float) -> tuple[float, float]:
    """Return the sum of two variances of means and its degrees of freedom (Satterthwaite)."""
    total = a + b
    if total <= 0:
        return 0.0, max(df_a, df_b)
    return total, total**2 / (a**2 / max(df_a, 1.0) + b**2 / max(df_b, 1.0))


def _quantile(level: float, df: Any) -> float:
    if math.isinf(df):
        return float(special.ndtri(0.5 + level / 2))
    return float(special.stdtrit(df, 0.5 + level / 2))
