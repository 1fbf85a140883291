"""Permutation draws on contingency tables, p-values and null references."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.estimate import NullReference
from privfair.core.exceptions import InvalidParameterError

__all__ = ["margin_permutations", "null_reference", "permutation_p_value"]

_TIE = 1e-12
_MAX_ROWS = 10**9  # numpy's samplers stop here


def permutation_p_value(
    observed: float, null: ArrayLike, *, alternative: str = "greater"
) -> float:
    """Return a valid permutation p-value, with one added to both counts.

    The observed arrangement is itself one of the equally likely ones. Leaving it out would
    allow p = 0, which no finite number of draws supports.

    Parameters
    ----------
    observed : float
    null : array-like, shape (n_permutations,)
        The statistic under random permutations; NaN counts as more extreme.
    alternative : {"greater", "less"}, default="greater"

    Returns
    -------
    float
        In [1 / (n_permutations + 1), 1]; NaN when ``observed`` is NaN.

    Raises
    ------
    InvalidParameterError
        No draws, or an unknown alternative.

    Notes
    -----
    Values within 1e-12 count as ties, that is as equally extreme. O(n_permutations).

    References
    ----------
    Phipson and Smyth 2010, "Permutation p-values should never be zero", arXiv 1603.05766.

    Examples
    --------
    >>> permutation_p_value(5.0, [1.0, 2.0, 3.0])
    0.25
    """
    check.one_of(("greater", "less"), alternative=alternative)
    draws = np.asarray(null, dtype=float).reshape(-1)
    if draws.size == 0:
        raise InvalidParameterError("null must hold at least one permutation, got none.")
    if np.isnan(observed):
        return float("nan")
    if alternative == "greater":
        extreme = ~(draws < observed - _TIE)
    else:
        extreme = ~(draws > observed + _TIE)
    return float((1 + extreme.sum()) / (1 + draws.size))


def margin_permutations(
    sizes: ArrayLike, total: int, n_permutations: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how ``total`` marked rows fall into groups when marks are permuted among rows.

    Permuting row by row and tabulating gives a multivariate hypergeometric vector, so that it
    can be drawn directly at a cost that does not depend on the number of rows.

    Parameters
    ----------
    sizes : array-like of int, shape (n_groups,)
        Rows per group.
    total : int
        Number of marked rows (selected, positive, ...).
    n_permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n_permutations, n_groups)

    Raises
    ------
    InvalidParameterError
        More marks than rows, or at least 10^9 rows.

    Notes
    -----
    O(n_permutations * n_groups). The draws are exact, not asymptotic.

    Examples
    --------
    >>> draws = margin_permutations([3, 7], 5, 4, np.random.default_rng(0))
    >>> draws.sum(axis=1).tolist()
    [5, 5, 5, 5]
    """
    check.positive_int(n_permutations=n_permutations)
    groups = np.asarray(sizes, dtype=np.int64).reshape(-1)
    if not 0 <= total <= groups.sum():
        raise InvalidParameterError(
            f"total must be between 0 and the number of rows {int(groups.sum())}, got {total}."
        )
    if groups.sum() >= _MAX_ROWS:
        raise InvalidParameterError("a permutation table must have fewer than 10^9 rows.")
    drawn = np.zeros((n_permutations, groups.size), dtype=np.int64)
    some = np.flatnonzero(groups)
    if some.size:
        drawn[:, some] = rng.multivariate_hypergeometric(
            groups[some], int(total), size=n_permutations, method="marginals"
        )
    return drawn


def null_reference(
    observed: float, null: ArrayLike, *, alternative: str = "greater"
) -> NullReference | None:
    """Summarise null draws as the value to expect without disparity.

    Parameters
    ----------
    observed : float
    null : array-like, shape (n_permutations,)
    alternative : {"greater", "less"}, default="greater"
        With ``"less"`` (ratios, where small is extreme) ``q95`` is the 5th percentile: the
        value that 95 % of null draws exceed.

    Returns
    -------
    NullReference or None
        None when no draw is defined.

    Examples
    --------
    >>> null_reference(5.0, [1.0, 2.0, 3.0]).p_value
    0.25
    """
    draws = np.asarray(null, dtype=float).reshape(-1)
    defined = draws[~np.isnan(draws)]
    if defined.size == 0:
        return None
    level = 0.95 if alternative == "greater" else 0.05
    return NullReference(
        expected=float(defined.mean()),
        q95=float(np.quantile(defined, level)),
        p_value=permutation_p_value(observed, draws, alternative=alternative),
    )
