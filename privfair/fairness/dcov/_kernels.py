"""What a penalty sees of the cells: G x G kernels, group weights and pooling of small cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError

__all__ = ["KINDS", "balanced_shares", "cell_kernel", "pool_small_cells", "quadratic_form"]

KINDS = ("ccdcov", "jdcov", "pairwise", "cells")
Floats = NDArray[np.float64]


def balanced_shares(counts: ArrayLike, group_weighting: float) -> Floats:
    """Return target shares proportional to the observed shares to the power tau.

    Parameters
    ----------
    counts : array-like, shape (n_cells,)
        Records, or sums of weights, by cell.
    group_weighting : float in [0, 1]
        tau: 1 keeps the observed shares, 0 makes all cells that occur equal.
    """
    mass = np.asarray(counts, dtype=float)
    shares = np.zeros_like(mass)
    some = mass > 0
    shares[some] = (mass[some] / mass.sum()) ** group_weighting
    return shares / shares.sum()


def cell_kernel(
    kind: str,
    distances: Sequence[ArrayLike],
    *,
    counts: ArrayLike | None = None,
    c: float = 1.0,
    estimator: str = "v",
    group_weighting: float = 1.0,
    exponent: float = 1.0,
) -> Floats:
    r"""Return the kernel between cells whose quadratic form is a distance covariance.

    Parameters
    ----------
    kind : {"ccdcov", "jdcov", "pairwise", "cells"}
        ``"ccdcov"``: minus the Euclidean distance over all attributes. ``"jdcov"``: the targeted
        joint form :math:`\prod_j (U_j + c)`. ``"pairwise"``: minus the sum of distances (blind
        to dependence on combinations). ``"cells"``: the identity, every two cells equally far.
    distances : sequence of array-like, shape (n_cells, n_cells)
        One matrix for each attribute (:meth:`AttributeEncoder.cell_distances`).
    counts : array-like, shape (n_cells,), or None
        Records by cell; needed by ``"jdcov"``, whose factors are centred.
    c : float, default=1.0
        Positive; weight of small sets of attributes in ``"jdcov"``.
    estimator : {"v", "u"}, default="v"
        How the factors of ``"jdcov"`` are centred.
    group_weighting : float in [0, 1], default=1.0
        Centres ``"jdcov"`` with the balanced shares when below 1.
    exponent : float in (0, 2], default=1.0
        Power of the attributes' distances.

    Returns
    -------
    ndarray of shape (n_cells, n_cells)

    Notes
    -----
    Privacy: a function of public distances and, for ``"jdcov"``, of the counts.

    References
    ----------
    Szekely, Rizzo and Bakirov 2007; Chakraborty and Zhang 2019, JASA 114(528);
    Lee et al. 2025, arXiv 2509.08163.

    Examples
    --------
    >>> cell_kernel("ccdcov", [[[0, 3], [3, 0]], [[0, 4], [4, 0]]])
    array([[-0., -5.],
           [-5., -0.]])
    """
    check.one_of(KINDS, kind=kind)
    check.one_of(("v", "u"), estimator=estimator)
    check.positive(c=c)
    check.probability(group_weighting=group_weighting)
    matrices = [np.asarray(d, dtype=float) for d in distances]
    if not matrices or any(m.ndim != 2 or m.shape != matrices[0].shape for m in matrices):
        raise DataError("distances must hold at least one matrix, all of one shape (G, G).")
    if kind == "cells":
        return np.eye(len(matrices[0]))
    if kind == "ccdcov":
        return -(np.sqrt(sum(m**2 for m in matrices)) ** exponent)
    matrices = [m**exponent for m in matrices]
    if kind == "pairwise":
        return -np.sum(matrices, axis=0)
    if counts is None:
        raise InvalidParameterError("kind='jdcov' needs counts, the records by cell.")
    mass = np.asarray(counts, dtype=float)
    out = np.ones_like(matrices[0])
    for matrix in matrices:
        if estimator == "u" and group_weighting == 1:
            n = mass.sum()
            rows = matrix @ mass / (n - 2)
            middle = mass @ matrix @ mass / ((n - 1) * (n - 2))
        else:
            shares = balanced_shares(mass, group_weighting)
            rows = matrix @ shares
            middle = shares @ rows
        out *= rows[:, None] + rows[None, :] - matrix - middle + c
    return out


def quadratic_form(
    kernel: Floats,
    mass: Floats,
    estimator: str,
    group_weighting: float,
    shares: Floats | None = None,
) -> tuple[Floats, Floats]:
    r"""Return (P, b) with dCov^2 = integral of C(x)' P C(x) + b' C(x) over the real line.

    C(x) counts, by cell, the records with a prediction of at most x. The integrand is 0 before
    the first and after the last prediction. All cells must occur.

    Notes
    -----
    V-statistic, shares omega: twice the quadratic form of omega_g (F_g(x) - F_omega(x)) under
    the kernel. U-statistic: |f - f'| is the measure of the thresholds that separate f and f', so
    that each sum of the three-sum form is an integral of a quadratic function of C. With target
    shares that are not the observed ones the V-statistic is corrected inside each cell,
    E|f - f'| over pairs i != j in place of all pairs: unbiased given the cell sizes, but for
    cells with one record. ``shares``, where they are given, are omega whatever the weighting.
    """
    n = mass.sum()
    if estimator == "u" and group_weighting == 1 and shares is None:
        own = np.diag(kernel)
        w = kernel @ mass - own
        total = float(mass @ w)
        scale = n * (n - 3)
        form = (
            2 * kernel - 2 * (w[:, None] + w[None, :]) / (n - 2) + 2 * total / ((n - 1) * (n - 2))
        )
        line = (2 * n * w + 2 * total) / (n - 2) - 2 * kernel @ mass
        line -= 2 * n * total / ((n - 1) * (n - 2))
        return form / scale, line / scale
    if shares is None:
        shares = balanced_shares(mass, group_weighting)
    centred = kernel - (kernel @ shares)[:, None] - (shares @ kernel)[None, :]
    centred = centred + shares @ kernel @ shares
    rate = shares / mass
    form = 2 * rate[:, None] * centred * rate[None, :]
    line = np.zeros_like(mass)
    if estimator == "u":
        many = mass > 1
        extra = np.zeros_like(mass)
        extra[many] = 2 * (shares**2 * np.diag(centred))[many] / (mass[many] - 1)
        # within-cell mean difference: integral of 2 C_g (n_g - C_g) / n_g^2
        form[np.diag_indices_from(form)] += extra / mass**2
        line -= extra / mass
    return form, line


def pool_small_cells(
    codes: ArrayLike, kernel: ArrayLike, *, min_cell: int = 30, counts: ArrayLike | None = None
) -> tuple[NDArray[np.int64], Floats, list[int]]:
    """Merge cells with few records into one "rest" cell.

    Parameters
    ----------
    codes : array-like of int, shape (n_rows,)
    kernel : array-like, shape (n_cells, n_cells)
        From :func:`cell_kernel`.
    min_cell : int, default=30
        Cells with fewer records are pooled.
    counts : array-like, shape (n_cells,), or None
        Records by cell that decide; those of ``codes`` when None. Give the training counts, so
        that every batch is pooled alike.

    Returns
    -------
    codes : ndarray of int, shape (n_rows,)
        Kept cells first, in order; the rest last.
    kernel : ndarray
        The rest cell is the mean of its members, weighted by their counts.
    pooled : list of int
        The original numbers of the pooled cells.

    Notes
    -----
    One cell alone below the limit stays as it is the rest. O(n + G^2).

    Examples
    --------
    >>> import numpy as np
    >>> codes, kernel, pooled = pool_small_cells([0] * 9 + [1, 2], -1 + np.eye(3), min_cell=3)
    >>> codes.tolist(), pooled
    ([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], [1, 2])
    >>> kernel
    array([[ 0. , -1. ],
           [-1. , -0.5]])
    """
    check.positive_int(min_cell=min_cell)
    matrix = np.asarray(kernel, dtype=float)
    raw = as_codes(codes, len(matrix))
    size = np.bincount(raw, minlength=len(matrix)) if counts is None else np.asarray(counts)
    small = np.flatnonzero(size < min_cell)
    kept = np.flatnonzero(size >= min_cell)
    if len(small) == 0:
        return raw, matrix, []
    mix = np.zeros((len(kept) + 1, len(matrix)))
    mix[np.arange(len(kept)), kept] = 1.0
    total = size[small].sum()
    mix[-1, small] = size[small] / total if total else 1 / len(small)
    new = np.full(len(matrix), len(kept), dtype=np.int64)
    new[kept] = np.arange(len(kept))
    return new[raw], mix @ matrix @ mix.T, small.tolist()


def as_codes(codes: Any, n_cells: int) -> NDArray[np.int64]:
    """Return checked cell numbers."""
    raw = np.asarray(codes)
    if raw.ndim != 1 or raw.dtype.kind not in "iu":
        raise DataError("cell codes must be whole numbers, one per row.")
    if len(raw) and (raw.min() < 0 or raw.max() >= n_cells):
        raise DataError(f"cell codes must be between 0 and {n_cells - 1}, the kernel's cells.")
    return raw.astype(np.int64, copy=False)
