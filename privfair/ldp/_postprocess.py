"""Post-processing of raw frequency estimates: consistency at the price of bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError

__all__ = ["EMResult", "POSTPROCESS", "expectation_maximisation", "postprocess"]

Floats = NDArray[np.float64]
POSTPROCESS = ("norm_sub", "norm_mul", "norm", "base_cut", "norm_cut")


def postprocess(
    frequencies: ArrayLike, method: str, *, std: ArrayLike | None = None, alpha: float = 0.05
) -> Floats:
    r"""Return frequencies made consistent after one of the rules of Wang et al. (2020).

    Parameters
    ----------
    frequencies : array-like, shape (k,)
        Raw, unbiased estimates; may be negative.
    method : {"norm_sub", "norm_mul", "norm", "base_cut", "norm_cut"}
        ``"norm_sub"``: the nearest distribution (Euclidean projection on the simplex).
        ``"norm_mul"``: negative ones to zero, the rest divided by its sum; grossly biased for
        large domains. ``"norm"``: a constant added so that the sum is one; unbiased, may be
        negative. ``"base_cut"``: what is below its significance threshold to zero; the sum is not
        one. ``"norm_cut"``: the largest ones kept until they sum to one.
    std : array-like, shape (k,) or (), or None
        Standard deviation of a raw estimate at frequency 0; for ``"base_cut"``.
    alpha : float, default=0.05
        Familywise level of the threshold of ``"base_cut"``: :math:`z_{1 - \alpha / k} \sigma`.

    Returns
    -------
    ndarray, shape (k,)

    Raises
    ------
    InvalidParameterError
        An unknown rule, or ``"base_cut"`` without ``std``.

    Notes
    -----
    O(k log k). Post-processing costs no privacy. Every rule but ``"norm"`` is biased where true
    frequencies are near zero; intervals are never made from what it returns.

    References
    ----------
    Wang, Lopuhaa-Zwakenberg, Li, Skoric, Li 2020, "Locally differentially private frequency
    estimation with consistency", NDSS, arXiv 1905.08320.

    Examples
    --------
    >>> postprocess([0.7, 0.5, -0.2], "norm_sub").round(3)
    array([0.6, 0.4, 0. ])
    """
    check.one_of(POSTPROCESS, method=method)
    raw = np.asarray(frequencies, dtype=float)
    if raw.ndim != 1 or raw.size < 2 or not np.isfinite(raw).all():
        raise DataError("frequencies must be finite numbers of shape (k,), k at least 2.")
    if method == "base_cut":
        if std is None:
            raise InvalidParameterError("base_cut needs std, the deviation at frequency 0.")
        level = check.confidence(alpha=alpha)
        limit = ndtri(1 - level / raw.size) * np.asarray(std, dtype=float)
        return np.where(raw < limit, 0.0, raw)
    return _RULES[method](raw)


def _norm_sub(raw: Floats) -> Floats:
    ordered = np.sort(raw)[::-1]
    sums = (np.cumsum(ordered) - 1.0) / np.arange(1, raw.size + 1)
    kept = int(np.flatnonzero(ordered > sums)[-1])
    return np.maximum(raw - sums[kept], 0.0)


def _norm_mul(raw: Floats) -> Floats:
    clipped = np.maximum(raw, 0.0)
    total = clipped.sum()
    return clipped / total if total > 0 else np.full(raw.size, 1.0 / raw.size)


def _norm(raw: Floats) -> Floats:
    return raw + (1.0 - raw.sum()) / raw.size


def _norm_cut(raw: Floats) -> Floats:
    order = np.argsort(-raw, kind="stable")
    positive = np.maximum(raw[order], 0.0)
    before = np.concatenate([[0.0], np.cumsum(positive)[:-1]])
    out = np.zeros(raw.size)
    out[order] = np.clip(1.0 - before, 0.0, positive)
    return out


_RULES: dict[str, Callable[[Floats], Floats]] = {
    "norm_sub": _norm_sub, "norm_mul": _norm_mul, "norm": _norm, "norm_cut": _norm_cut,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class EMResult:
    """Frequencies of maximal likelihood, and how they were found.

    Attributes
    ----------
    frequencies : ndarray, shape (k,)
    log_likelihood : tuple of float
        After each step; never decreasing.
    n_iter : int
    converged : bool
    """

    frequencies: Floats
    log_likelihood: tuple[float, ...]
    n_iter: int
    converged: bool


def expectation_maximisation(
    expected: Callable[[Floats], Floats],
    pull_back: Callable[[Floats], Floats],
    observed: Floats,
    k: int,
    *,
    tol: float = 1e-8,
    max_iter: int = 10_000,
) -> EMResult:
    r"""Maximise a multinomial likelihood of mixtures: iterative Bayesian update.

    Parameters
    ----------
    expected : callable
        Maps frequencies f, shape (k,), to the chances A f of the outputs.
    pull_back : callable
        Maps a vector over outputs to :math:`A^T` times it.
    observed : ndarray
        How often each output occurred.
    k : int
    tol : float, default=1e-8
        Stop when no frequency moves by more.
    max_iter : int, default=10000

    Returns
    -------
    EMResult

    Notes
    -----
    :math:`f \leftarrow f \cdot A^T (o / A f)` with o the shares of the outputs; the columns of A
    must sum to one. Each step costs one product with A and one with its transpose.

    References
    ----------
    Agrawal, Aggarwal 2001, PODS. ElSalamouny, Palamidessi 2020, "Generalized iterative Bayesian
    update", arXiv 1909.02961.
    """
    check.positive(tol=tol)
    check.positive_int(max_iter=max_iter)
    share = np.asarray(observed, dtype=float)
    total = share.sum()
    if total <= 0:
        raise DataError("there are no reports to estimate from.")
    share = share / total
    f: Floats = np.full(k, 1.0 / k)
    seen = share > 0
    history: list[float] = []
    for step in range(1, max_iter + 1):
        chance = np.maximum(expected(f), np.finfo(float).tiny)
        history.append(float(total * (share[seen] * np.log(chance[seen])).sum()))
        new = f * pull_back(np.where(seen, share / chance, 0.0))
        new = new / new.sum()
        moved = float(np.abs(new - f).max())
        f = new
        if moved < tol:
            return EMResult(f, tuple(history), step, True)
    return EMResult(f, tuple(history), max_iter, False)


def full_likelihood(
    support: Any, ratio: float, *, tol: float = 1e-8, max_iter: int = 10_000
) -> EMResult:
    """Maximise the likelihood of all reports one by one, from which report supports which value.

    Parameters
    ----------
    support : ndarray of bool, shape (n, k)
    ratio : float
        How much more likely a report is under a value that it supports.
    tol, max_iter : float, int
        As in :func:`expectation_maximisation`.

    Notes
    -----
    O(n k) per step and n k bytes of memory: the true maximum likelihood for unary encoding,
    subset selection and local hashing, whose counts alone are not sufficient. Privacy:
    post-processing of reports, at no cost.

    References
    ----------
    ElSalamouny, Palamidessi 2020, "Generalized iterative Bayesian update", arXiv 1909.02961.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.ldp import OUE, randomize
    >>> protocol = OUE(3, 2.0)
    >>> reports = randomize(protocol, np.zeros(500, dtype=int), noise_random_state=0)
    >>> found = full_likelihood(protocol.support_matrix(reports.payload),
    ...                         protocol.likelihood_ratio)
    >>> bool(found.frequencies[0] > 0.9)
    True
    """
    rows = np.asarray(support, dtype=bool)
    n, k = rows.shape
    f: Floats = np.full(k, 1.0 / k)
    history: list[float] = []
    for step in range(1, max_iter + 1):
        inside = rows @ f
        chance = 1.0 + (ratio - 1.0) * inside  # up to a factor per report
        history.append(float(np.log(chance).sum()))
        weight = 1.0 / chance
        new = f * (weight.sum() + (ratio - 1.0) * (weight @ rows)) / n
        new = new / new.sum()
        moved = float(np.abs(new - f).max())
        f = new
        if moved < tol:
            return EMResult(f, tuple(history), step, True)
    return EMResult(f, tuple(history), max_iter, False)
