"""Covariance matrices of rows that are clipped to a public length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.frames import as_table
from privfair.mechanisms._moments import RESOLUTION, MomentSums

__all__ = ["DPCovariance"]

_K = RESOLUTION
_ROOT = 1_482_910  # floor(2**20 sqrt(2)): off-diagonal entries count twice in the Frobenius norm
_FAR = 1e150  # its square is a float
_CHUNK = 1 << 14
_MOST = 2048


class _Sums(NamedTuple):
    sums: NDArray[np.int64]
    n: int | None


class DPCovariance(MomentSums):
    """Release the covariance matrix (with divisor n) of rows of bounded length.

    Parameters
    ----------
    n_features : int
        Number of columns, public; at most 2048.
    bound : float
        Rows ``(x - center) / scale`` longer than this (L2) are shortened to it.
    epsilon : float or None
        Pure epsilon under ``neighboring``: discrete Laplace noise. Give epsilon or rho; rho is
        far better for more than two or three columns.
    rho : float or None
        zCDP parameter: discrete Gaussian noise.
    center, scale : float or sequence of float, default=0.0 and 1.0
        Public; one for all columns or one each. Good values let ``bound`` be small.
    psd : bool, default=True
        Project the result on what a covariance matrix of such rows can be: eigenvalues between 0
        and ``bound**2`` (in the scaled columns). Post-processing.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation that the budget is meant under. Under add_remove the number of rows is private
        and is released with noise in the same vector.
    noise_random_state : int or None, default=None
        For tests and benchmarks only.

    Attributes
    ----------
    sensitivity : float
        Of the vector of sums, in units of ``bound`` and ``bound**2``.
    noise : {"laplace", "gaussian"}
    noise_scale : float
        Scale or sigma of the noise on each sum, in the same units; that on an off-diagonal entry
        is smaller by sqrt(2).
    n_is_public : bool
    numerics : str
        ``"exact"``.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range.
    DataError, InvalidTypeError
        By ``release``: wrong number of columns, text, or no row where n is public. Nothing is
        charged.

    Notes
    -----
    *Algorithm.* With y the clipped row over ``bound``, rounded toward zero to 2^20 steps: the
    sums of y, of y_i^2, and of sqrt(2) y_i y_j for i < j (from the rounded row, in integers,
    toward zero), and of 1 under add_remove. In one vector: the Frobenius norm of y y' is
    ``|y|^2``, so that the squared L2 norm of a contribution is at most 2 (3 with the count). The
    covariance is second moments less products of means. Cost: rows times columns^2. A row with a
    missing value counts as lying at the center where n is public, and as no row under add_remove.

    *Privacy.* One release of a vector of ``d + d (d + 1) / 2`` sums; ``docs/proofs/moments.md``.

    References
    ----------
    Dwork, Talwar, Thakurta, Zhang, "Analyze Gauss", 2014. Casacuberta, Shoemate, Vadhan, Wagaman,
    2022, arXiv:2207.10635.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.column_stack([np.linspace(-1, 1, 10_000), np.linspace(1, -1, 10_000)])
    >>> found = DPCovariance(2, bound=1.5, rho=0.5).release(rows)
    >>> bool(found[0, 1] < 0), bool((found == found.T).all())
    (True, True)
    """

    def __init__(
        self,
        n_features: int,
        bound: float,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        center: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
        psd: bool = True,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        self.n_features = d = check.positive_int(n_features=n_features)
        if d > _MOST:
            raise InvalidParameterError(
                f"n_features must be at most {_MOST}, got {d}: the matrix would have more than "
                "two million noisy entries. Select columns, or project to public directions."
            )
        self.bound = check.positive(bound=bound)
        if not 1e-100 <= self.bound <= 1e100:
            raise InvalidParameterError(f"bound must lie in [1e-100, 1e100], got {bound!r}.")
        self.psd = check.boolean(psd=psd)
        self.center = _per_column("center", center, d)
        self.scale = _per_column("scale", scale, d)
        if not (self.scale > 0).all():
            raise InvalidParameterError("scale must be positive in every column.")
        count = int(neighboring == "add_remove")
        l2_squared = Fraction((2 + count) * _K * _K)
        # |y|_1 <= sqrt(d); the entries of the triangle add up to at most |y|_1^2 / sqrt(2) +
        # (1 - 1 / sqrt(2)) |y|_2^2. Both up to the next step.
        root = math.isqrt(d * _K * _K) + 1
        l1 = root + math.ceil(0.7072 * d * _K + 0.2929 * _K) + count * _K
        size = count + d + d * (d + 1) // 2
        self._set_sums(l1, l2_squared, size, epsilon, rho, neighboring, noise_random_state)
        self._upper = np.triu_indices(d, 1)

    def _prepare(self, value: Any) -> _Sums:
        table = as_table(value)
        columns = [table.column(name) for name in table.columns]
        if len(columns) != self.n_features:
            raise DataError(
                f"the rows must have n_features = {self.n_features} columns, got {len(columns)}."
            )
        for name, column in zip(table.columns, columns, strict=True):
            if column.dtype.kind not in "biuf":
                raise InvalidTypeError(
                    f"a covariance needs numbers, got dtype {column.dtype} in column {name!r}."
                )
        rows = np.column_stack([column.astype(np.float64) for column in columns])
        missing = np.isnan(rows).any(axis=1)
        if not self.n_is_public:
            rows = rows[~missing]
        elif not len(rows):
            raise DataError("the table has no rows; its covariance is not defined.")
        d = self.n_features
        total = np.zeros(self._inner.size, dtype=np.int64)
        for start in range(0, len(rows), _CHUNK):
            a = self._steps(rows[start : start + _CHUNK])
            at = 0
            if not self.n_is_public:
                total[0] += len(a) * _K
                at = 1
            total[at : at + d] += a.sum(axis=0)
            total[at + d : at + 2 * d] += (a * a // _K).sum(axis=0)
            at += 2 * d
            for i in range(d - 1):
                product = a[:, i, None] * a[:, i + 1 :]
                product = np.sign(product) * (np.abs(product) // _K * _ROOT // _K)
                total[at : at + d - 1 - i] += product.sum(axis=0)
                at += d - 1 - i
        return _Sums(total, len(rows) if self.n_is_public else None)

    def _steps(self, rows: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return rows in whole steps, none longer than ``RESOLUTION``; decided in integers."""
        with np.errstate(over="ignore"):  # a public scale may be tiny
            y = np.clip((np.clip(rows, -_FAR, _FAR) - self.center) / self.scale, -_FAR, _FAR)
        y = y / self.bound
        y[np.isnan(rows).any(axis=1)] = 0.0
        largest = np.maximum(np.abs(y).max(axis=1, keepdims=True), 1.0)
        length = largest * np.sqrt(((y / largest) ** 2).sum(axis=1, keepdims=True))
        a: NDArray[np.int64] = np.trunc(y / np.maximum(length, 1.0) * _K).astype(np.int64)
        while True:  # a float length can be too small by a few units of the last place
            over = (a * a).sum(axis=1) > _K * _K
            if not over.any():
                return a
            a[over] = np.sign(a[over]) * (np.abs(a[over]) * (_K - 1) // _K)

    def _draw(self, prepared: _Sums) -> NDArray[np.float64]:
        sums = self._inner._draw(prepared.sums).astype(np.float64) / _K
        d, n = self.n_features, prepared.n
        if n is None:
            size, sums = max(float(sums[0]), 1.0), sums[1:]
        else:
            size = float(n)
        mean = sums[:d] / size
        second = np.diag(sums[d : 2 * d] / size)
        second[self._upper] = sums[2 * d :] / (math.sqrt(2.0) * size)
        covariance = np.triu(second) + np.triu(second, 1).T - np.outer(mean, mean)
        if self.psd:
            values, vectors = np.linalg.eigh(covariance)
            covariance = (vectors * np.clip(values, 0.0, 1.0)) @ vectors.T
        wide = self.bound * self.scale
        covariance = covariance * np.outer(wide, wide)
        return np.asarray((covariance + covariance.T) / 2)


def _per_column(name: str, value: float | ArrayLike, d: int) -> NDArray[np.float64]:
    if np.ndim(value) == 0:
        return np.full(d, check.real(**{name: value}))
    column = np.array([check.real(**{name: v}) for v in np.asarray(value).tolist()])
    if column.shape != (d,):
        raise InvalidParameterError(f"{name} must be one number, or one for each of {d} columns.")
    return column
