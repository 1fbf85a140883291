"""Empirical-Bayes shrinkage of the rates of many small groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, betaln, expit, logit

from privfair.core import _validation as check
from privfair.core.statistics._proportions import checked_counts

__all__ = ["Shrinkage", "beta_binomial_shrinkage"]

Array = NDArray[np.float64]
_MAX_PRECISION = 1e6


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """Rates pulled towards their common mean, more so where the group is small.

    Attributes
    ----------
    value, low, high : ndarray of shape (n_groups,)
        Posterior means and equal-tailed credible intervals.
    mean, precision : float
        Of the fitted beta prior (mean, and prior sample size); NaN when it cannot be fitted.
    confidence : float
    reason : str
        Why there is no result.
    """

    value: Array
    low: Array
    high: Array
    mean: float
    precision: float
    confidence: float
    reason: str = ""


def beta_binomial_shrinkage(
    successes: ArrayLike, n: ArrayLike, *, confidence: float = 0.95
) -> Shrinkage:
    r"""Return beta-binomial empirical-Bayes estimates of the rates of several groups.

    Rates are taken as draws of a beta distribution with mean :math:`\mu` and precision
    :math:`\nu`, fitted by maximum marginal likelihood; the estimate of group g is
    :math:`(k_g + \mu\nu)/(n_g + \nu)`. Shown beside raw rates, never in their place.

    Parameters
    ----------
    successes, n : array-like, shape (n_groups,)
        Real numbers are allowed (effective sample sizes).
    confidence : float, in (0, 1), default=0.95

    Returns
    -------
    Shrinkage
        NaN with a reason when fewer than three groups have rows. An empty group gets the prior.

    Raises
    ------
    InvalidParameterError
        Counts below zero or above their total.

    Notes
    -----
    The precision is bounded by 10^6 (no visible difference between groups). The intervals do
    not include the uncertainty of the prior. The likelihood is maximised on 12 nested grids of
    13 x 13 points, which needs no starting value and is deterministic; O(n_groups) per point.

    References
    ----------
    Carlin and Louis 2000, "Bayes and Empirical Bayes Methods for Data Analysis".

    Examples
    --------
    >>> s = beta_binomial_shrinkage([1, 30, 45, 2], [2, 100, 150, 2])
    >>> bool(0.3 < s.value[3] < 1.0)
    True
    """
    level = check.confidence(confidence=confidence)
    k, total = checked_counts(successes, n)
    k, total = k.reshape(-1), total.reshape(-1)
    some = total > 0
    if some.sum() < 3:
        empty = np.full(k.shape, np.nan)
        return Shrinkage(
            empty, empty, empty, np.nan, np.nan, level, "fewer than three groups with rows"
        )
    mean, precision = _fit(k[some], total[some])
    alpha, beta = mean * precision + k, (1 - mean) * precision + total - k
    tail = (1 - level) / 2
    return Shrinkage(
        value=alpha / (alpha + beta),
        low=betaincinv(alpha, beta, tail),
        high=betaincinv(alpha, beta, 1 - tail),
        mean=mean,
        precision=precision,
        confidence=level,
    )


def _fit(k: Array, n: Array) -> tuple[float, float]:
    """Maximise the marginal likelihood over (logit mean, log precision) on refined grids."""
    pooled = float((k.sum() + 0.5) / (n.sum() + 1.0))

    def fitness(means: Array, precisions: Array) -> Array:
        a = (means * precisions)[..., None]
        b = ((1 - means) * precisions)[..., None]
        return np.asarray((betaln(a + k, b + n - k) - betaln(a, b)).sum(axis=-1))

    m, v = float(logit(pooled)), 3.0
    m_width, v_width = 3.0, 11.0
    top = float(np.log(_MAX_PRECISION))
    for _ in range(12):  # each pass shrinks the box by 3, to 1e-5 of the scale
        ms = np.linspace(m - m_width, m + m_width, 13)
        vs = np.clip(np.linspace(v - v_width, v + v_width, 13), -6.0, top)
        grid_m, grid_v = np.meshgrid(ms, vs, indexing="ij")
        values = fitness(expit(grid_m), np.exp(grid_v))
        best = np.unravel_index(int(np.argmax(values)), values.shape)
        m, v = float(grid_m[best]), float(grid_v[best])
        m_width, v_width = m_width / 3, v_width / 3
    return float(expit(m)), float(np.exp(v))
