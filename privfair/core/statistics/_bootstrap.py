"""Bootstrap draws for counts and rows, and intervals from an array of replicates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, LengthMismatchError
from privfair.core.statistics._interval import Interval, as_result

__all__ = ["bootstrap_interval", "multinomial_resamples", "multiplicity_weights"]

MAX_UNDEFINED = 0.5
"""Above this share of undefined replicates there is no interval."""


def multinomial_resamples(
    counts: ArrayLike,
    n_resamples: int,
    rng: np.random.Generator,
    *,
    strata: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Return bootstrap tables: the distribution of resampling rows with replacement.

    Resampling n rows with replacement and tabulating them gives a multinomial table with the
    observed shares, so that drawing the table directly costs the same for every n.

    Parameters
    ----------
    counts : array-like of int, any shape
        The contingency table.
    n_resamples : int
        Number of tables.
    rng : numpy.random.Generator
    strata : array-like or None
        Labels of the same shape; totals per label are then kept fixed (stratified bootstrap).

    Returns
    -------
    ndarray of shape ``(n_resamples, *counts.shape)``

    Raises
    ------
    InvalidParameterError
        Negative or fractional counts.

    Notes
    -----
    O(n_resamples * non-empty cells), whatever the number of rows.

    References
    ----------
    Efron and Tibshirani 1993, "An Introduction to the Bootstrap".

    Examples
    --------
    >>> tables = multinomial_resamples([[3, 1], [0, 6]], 5, np.random.default_rng(0))
    >>> tables.shape, set(tables.sum(axis=(1, 2)).tolist())
    ((5, 2, 2), {10})
    """
    check.positive_int(n_resamples=n_resamples)
    table = np.asarray(counts)
    flat = table.reshape(-1)
    if (flat < 0).any() or (np.asarray(flat) != np.floor(flat)).any():
        raise InvalidParameterError(
            "counts must be non-negative whole numbers; sums of weights are resampled by rows."
        )
    drawn = np.zeros((n_resamples, flat.size), dtype=np.int64)
    labels = np.zeros(flat.size, dtype=int)
    if strata is not None:
        labels = np.unique(np.asarray(strata).reshape(-1), return_inverse=True)[1]
        if labels.size != flat.size:
            raise LengthMismatchError("strata must have the shape of counts.")
    for label in range(int(labels.max(initial=0)) + 1):
        cells = np.flatnonzero((labels == label) & (flat > 0))
        total = int(flat[cells].sum())
        if total == 0:
            continue
        drawn[:, cells] = rng.multinomial(total, flat[cells] / total, size=n_resamples)
    return drawn.reshape((n_resamples, *table.shape))


def multiplicity_weights(
    counts: ArrayLike, n_resamples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how often each distinct row occurs in each bootstrap sample.

    Parameters
    ----------
    counts : array-like of int, shape (n_distinct,)
        How often each distinct row occurs in the data; all ones when rows are not compressed.
    n_resamples : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n_resamples, n_distinct)
        Every line adds up to ``counts.sum()``.

    Notes
    -----
    Multinomial draws when distinct rows repeat often, else uniform indices and a bin count,
    which is faster; both have the same distribution. O(n_resamples * n).

    Examples
    --------
    >>> w = multiplicity_weights([1, 1, 1, 1], 3, np.random.default_rng(0))
    >>> w.sum(axis=1).tolist()
    [4, 4, 4]
    """
    weights = np.asarray(counts, dtype=np.int64).reshape(-1)
    total = int(weights.sum())
    if total == 0:
        return np.zeros((n_resamples, weights.size), dtype=np.int64)
    size = weights.size
    if 4 * size < total:
        return multinomial_resamples(weights, n_resamples, rng)
    picks = rng.integers(0, total, size=(n_resamples, total))
    if size < total:
        picks = np.repeat(np.arange(size), weights)[picks]
    picks += (np.arange(n_resamples) * size)[:, None]
    return np.bincount(picks.reshape(-1), minlength=n_resamples * size).reshape(-1, size)


def _quantile(sample: NDArray[np.float64], level: float) -> float:
    return float(np.quantile(sample, min(max(level, 0.0), 1.0), method="weibull"))


def _levels(sample: NDArray[np.float64], value: float, tail: float, a: float) -> tuple[float, ...]:
    """Return the bias-corrected, accelerated quantile levels; NaN when undefined."""
    below = float(np.mean(sample < value) + 0.5 * np.mean(sample == value))
    z0 = float(ndtri(below))
    if not np.isfinite(z0):
        return (np.nan, np.nan)
    ends = []
    for z in (float(ndtri(tail)), float(ndtri(1 - tail))):
        shifted = z0 + z
        ends.append(float(ndtr(z0 + shifted / (1 - a * shifted))))
    return (ends[0], ends[1])


def _one(
    sample: NDArray[np.float64], value: float, level: float, method: str, a: float
) -> tuple[float, float, str]:
    if np.isnan(value):
        return np.nan, np.nan, "the value is undefined"
    defined = sample[~np.isnan(sample)]
    if defined.size < (1 - MAX_UNDEFINED) * sample.size or defined.size == 0:
        return np.nan, np.nan, "undefined in more than half of the resamples"
    tail = (1 - level) / 2
    if method == "bca":
        low_level, high_level = _levels(defined, value, tail, a)
        if np.isnan(low_level):
            return np.nan, np.nan, "all resamples lie on one side of the value"
        return _quantile(defined, low_level), _quantile(defined, high_level), ""
    low, high = _quantile(defined, tail), _quantile(defined, 1 - tail)
    if method == "basic":
        low, high = 2 * value - high, 2 * value - low
    return low, high, ""


def bootstrap_interval(
    replicates: ArrayLike,
    value: ArrayLike,
    *,
    confidence: float = 0.95,
    method: str = "basic",
    acceleration: ArrayLike = 0.0,
) -> Interval:
    """Return an interval from bootstrap replicates.

    Parameters
    ----------
    replicates : array-like, shape (n_resamples,) or (n_resamples, ...)
        Undefined replicates are NaN; they are left out, and if they are more than half there is
        no interval.
    value : array-like, shape () or (...)
        The estimate on the data.
    confidence : float, in (0, 1), default=0.95
    method : {"basic", "percentile", "bca"}, default="basic"
        ``percentile`` reports quantiles of the replicates; for a gap, which is never negative,
        such an interval can never reach zero and is no test. ``basic`` reflects them around the
        value, and so takes back the upward bias. ``bca`` corrects bias and skewness.
    acceleration : array-like, default=0
        Of BCa, a sixth of the skewness of the jackknife values.

    Returns
    -------
    Interval
        NaN with a reason where undefined. Not clipped to the metric's range.

    Notes
    -----
    Quantiles are at ranks ``level * (n_resamples + 1)``. O(n_resamples log n_resamples).

    References
    ----------
    Efron 1987, "Better bootstrap confidence intervals"; Davison and Hinkley 1997, chapter 5.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(0.3, 0.1, 4000)
    >>> i = bootstrap_interval(draws, 0.3, method="percentile")
    >>> round(i.low, 1), round(i.high, 1)
    (0.1, 0.5)
    """
    check.one_of(("basic", "percentile", "bca"), method=method)
    level = check.confidence(confidence=confidence)
    sample = np.asarray(replicates, dtype=float)
    centre = np.asarray(value, dtype=float)
    if sample.ndim == 0 or sample.shape[1:] != centre.shape:
        raise LengthMismatchError(
            f"replicates must have shape (n_resamples, ...) over the shape {centre.shape} of "
            f"value, got {sample.shape}."
        )
    bends = np.broadcast_to(np.asarray(acceleration, dtype=float), centre.shape).reshape(-1)
    columns = sample.reshape(sample.shape[0], -1)
    found: list[Any] = [
        _one(columns[:, j], float(v), level, method, float(bends[j]))
        for j, v in enumerate(centre.reshape(-1))
    ]
    low = np.array([item[0] for item in found]).reshape(centre.shape)
    high = np.array([item[1] for item in found]).reshape(centre.shape)
    reason = next((item[2] for item in found if item[2]), "")
    return Interval(
        as_result(centre), as_result(low), as_result(high), level, f"bootstrap {method}", reason
    )
