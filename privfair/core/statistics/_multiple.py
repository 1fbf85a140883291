"""Adjusted p-values for several hypotheses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core.exceptions import InvalidParameterError

__all__ = ["benjamini_hochberg", "holm"]


def _checked(p_values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    p = np.asarray(p_values, dtype=float).reshape(-1)
    known = ~np.isnan(p)
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise InvalidParameterError("p_values must lie in [0, 1].")
    return p, known


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's adjusted p-values, for hypotheses that were stated beforehand.

    Rejecting those below alpha keeps the probability of any false rejection below alpha under
    every dependence.

    Parameters
    ----------
    p_values : array-like, shape (n,)
        NaN (not estimable) stays NaN and does not count.

    Returns
    -------
    ndarray of shape (n,)

    Notes
    -----
    O(n log n).

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure".

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p, known = _checked(p_values)
    adjusted = np.full(p.shape, np.nan)
    index = np.flatnonzero(known)
    order = index[np.argsort(p[index], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return Benjamini-Hochberg adjusted p-values, for screens of many groups.

    Rejecting those below q keeps the expected share of false rejections below q, for
    independent or positively dependent tests.

    Parameters
    ----------
    p_values : array-like, shape (n,)
        NaN (not estimable) stays NaN and does not count.

    Returns
    -------
    ndarray of shape (n,)

    Notes
    -----
    O(n log n).

    References
    ----------
    Benjamini and Hochberg 1995, "Controlling the false discovery rate".

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    p, known = _checked(p_values)
    adjusted = np.full(p.shape, np.nan)
    index = np.flatnonzero(known)
    order = index[np.argsort(p[index], kind="stable")]
    scaled = p[order] * order.size / np.arange(1, order.size + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted
