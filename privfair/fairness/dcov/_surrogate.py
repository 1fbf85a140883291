"""Distance covariance in a form that a private trainer can take: one record, one bounded row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.fairness.dcov._declared import DeclaredGroups
from privfair.fairness.dcov._kernels import KINDS, cell_kernel

__all__ = ["BoundedDistanceCovariance"]

_COUNT_WEIGHT = 0.5
"""What a record adds to its cell's count, beside features of norm up to 0.81.

A larger weight tells the cells' shares better and their scores worse.
"""

_SURE = 3.0
"""A cell counts for itself once its released count is this many standard deviations of noise."""


class BoundedDistanceCovariance:
    r"""Distance covariance of scores and declared groups, as a penalty for private training.

    On [0, 1] the squared distance covariance of a score f and a finite attribute is, with the
    cosine features :math:`\varphi_k(f) = 2 \cos(k \pi f) / (k \pi)`,
    :math:`\sum_k M_k^T K M_k` where :math:`M_{k,g} = \omega_g (F_{k,g} - \sum_h \omega_h F_{k,h})`
    and :math:`F_{k,g}` is the mean of :math:`\varphi_k` in cell g. The first ``n_frequencies``
    terms are kept. The matrix of cell sums and counts is a sum over records of rows with a public
    bound, so that it can be released with noise from the batch of the gradient; the derivative of
    the penalty at one record's score then depends on that record and on released sums only.

    Parameters
    ----------
    groups : Schema or mapping of str to Categorical, Numeric or list of labels
        The sensitive columns with their labels, public. Labels that are not declared form one
        more cell. A numeric column needs public ``bins``.
    kind : {"ccdcov", "jdcov", "pairwise", "cells"}, default="ccdcov"
        Which dependence: of all attributes together under the Euclidean norm; all orders of
        interaction (Chakraborty and Zhang 2019); the sum over single attributes, which is blind
        to their intersections; the discrete metric on the intersections.
    c : float, default=1.0
        Above 0; weight of low orders in ``"jdcov"``.
    strength : float, default=1.0
        Factor of the penalty in the loss, at least 0.
    group_weighting : float, default=0.5
        tau in [0, 1]: cell g weighs ``share_g ** tau``. 1 is distance covariance as published,
        under which a cell of 2 % counts 4e-4; at 0 all cells count the same.
    n_frequencies : int, default=8
        Number m of cosine terms, at least 1.
    ema : float, default=0.9
        Decay in [0, 1) of the moving average over released sums.
    weights : mapping of str to float or None, default=None
        Largest distance in each sensitive column, public; 1 where not named.
    cells : iterable of tuples or None, default=None
        Combinations of labels that are cells of their own; all others are one cell. None takes
        every combination.

    Attributes
    ----------
    decomposable : bool
        True: a record's row and weight depend on that record and on released sums only.
    n_features : int
        ``n_cells * (n_frequencies + 1)``, the cell of undeclared labels included.
    feature_bound : float
        ``sqrt(4 / pi^2 * sum_k k^-2 + 1/4)``, below 0.96.
    pooled_cells : tuple of tuples
        Labels of the cells whose counts, as released, are too small to be told from noise. They
        count as one cell together; if that is too small as well, they are left alone.

    Notes
    -----
    *Privacy.* ``docs/proofs/private-fairness-penalty.md``. The cells, their distances and
    ``n_frequencies`` must be public, and here they are declared. Nothing is learnt from data but
    through ``absorb``.

    *Accuracy.* What is left out of the series is at most ``2 / (pi^2 n_frequencies)`` times the
    largest distance of two cells (for ``"jdcov"`` times the largest spread of the product). A
    record's cost is O(n_features), a release's O(n_cells^2 n_frequencies).

    References
    ----------
    Szekely, Rizzo, Bakirov (2007), Annals of Statistics 35(6). Chakraborty, Zhang (2019), JASA
    114(528). Lee, Antonio, Avanzi, Marchi, Zhou (2025), arXiv 2509.08163 (the regularisers).

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.dp import DPClassifier
    >>> from privfair.fairness.dcov import BoundedDistanceCovariance
    >>> rng = np.random.default_rng(0)
    >>> S = np.where(rng.random(4000) < 0.3, "a", "b")
    >>> X = np.stack([rng.normal(size=4000) + (S == "a"), rng.normal(size=4000)], axis=1)
    >>> y = X[:, 0] + X[:, 1] + rng.logistic(size=4000) > 0.5
    >>> penalty = BoundedDistanceCovariance({"s": ["a", "b"]}, strength=20.0)
    >>> clf = DPClassifier(epsilon=3.0, schema="as_is", fairness_penalty=penalty)
    >>> p = clf.fit(X, y, sensitive_features=S).predict_proba(X)[:, 1]
    >>> bool(abs(p[S == "a"].mean() - p[S == "b"].mean()) < 0.1), clf.privacy_.epsilon <= 3.0
    (True, True)
    """

    decomposable = True
    requires: frozenset[str] = frozenset()

    def __init__(
        self,
        groups: Any,
        *,
        kind: str = "ccdcov",
        c: float = 1.0,
        strength: float = 1.0,
        group_weighting: float = 0.5,
        n_frequencies: int = 8,
        ema: float = 0.9,
        weights: Mapping[str, float] | None = None,
        cells: Iterable[tuple[Any, ...]] | None = None,
    ) -> None:
        self.kind = check.one_of(KINDS, kind=kind)
        self.c = check.positive(c=c)
        self.strength = check.non_negative(strength=strength)
        self.group_weighting = check.probability(group_weighting=group_weighting)
        self.n_frequencies = check.positive_int(n_frequencies=n_frequencies)
        self.ema = check.real(ema=ema)
        if not 0.0 <= self.ema < 1.0:
            raise InvalidParameterError(f"ema must be in [0, 1), got {self.ema}.")
        for value in (weights or {}).values():
            check.positive(weights=value)
        self.groups = DeclaredGroups(groups, cells)
        self._apart = self.groups.distances(weights)
        n_cells = len(self.groups)
        self.n_features = n_cells * (self.n_frequencies + 1)
        self._scales: NDArray[np.float64] = 2.0 / np.pi / np.arange(1.0, self.n_frequencies + 1.0)
        self.feature_bound = math.sqrt(float((self._scales**2).sum()) + _COUNT_WEIGHT**2)
        self._noise = 0.0
        self._released = 0
        self._sums = np.zeros((self.n_frequencies + 1, n_cells))
        self._slopes: NDArray[np.float64] | None = None
        self._small = np.zeros(n_cells, dtype=bool)

    # -- the contract of a bounded penalty -------------------------------------------------
    def encode_sensitive(self, sensitive_features: Any) -> NDArray[np.int64]:
        """Return the number of each record's declared cell, shape (n_rows,)."""
        return self.groups.encode(sensitive_features)

    def observe_noise(self, std: float) -> None:
        """Learn the standard deviation of the noise in what ``absorb`` will get; public."""
        self._noise = check.non_negative(std=std)

    def features(
        self, scores: Tensor, sensitive: Tensor, *, y: Tensor | None = None, **columns: Any
    ) -> Tensor:
        """Return each record's row, shape (batch, n_features): its cosines in its cell's place.

        Parameters
        ----------
        scores : Tensor, shape (batch,)
            In [0, 1]; others are clamped.
        sensitive : Tensor, shape (batch,)
            Cells, as :meth:`encode_sensitive` numbers them.
        y, **columns
            Not used.
        """
        cell = self._cell(sensitive)
        waves = torch.cos(self._angles(scores)) * _like(self._scales, scores)
        counted = torch.cat([waves, waves.new_full((len(waves), 1), _COUNT_WEIGHT)], dim=1)
        rows = counted.new_zeros((len(waves), self.n_frequencies + 1, len(self.groups)))
        rows.scatter_(2, cell[:, None, None].expand(-1, counted.shape[1], 1), counted[:, :, None])
        return rows.flatten(1)

    def absorb(self, noisy_sum_over_B: Tensor) -> None:
        """Take in a released sum over the batch constant, shape (n_features,)."""
        given = noisy_sum_over_B.detach().double().cpu().numpy()
        given = given.reshape(self._sums.shape)
        self._sums = self.ema * self._sums + (1.0 - self.ema) * given
        self._released += 1
        self._slopes = self._slopes_of(self._sums / (1.0 - self.ema**self._released))

    def weights(
        self, scores: Tensor, sensitive: Tensor, *, y: Tensor | None = None, **columns: Any
    ) -> Tensor:
        """Return the derivative of n times the penalty at each score, shape (batch,).

        Zero before the first release. Parameters as in :meth:`features`.
        """
        if self._slopes is None:
            return torch.zeros_like(scores)
        with torch.no_grad():
            cell = self._cell(sensitive)
            slope = -2.0 * torch.sin(self._angles(scores))  # of 2 cos(k pi f) / (k pi)
            return 2.0 * (slope * _like(self._slopes.T, scores)[cell]).sum(dim=1)

    def __call__(
        self,
        scores: Tensor,
        sensitive: Tensor,
        *,
        y: Tensor | None = None,
        sample_weight: Tensor | None = None,
        **columns: Any,
    ) -> Tensor:
        """Return the truncated penalty of a batch, a 0-d tensor with a gradient.

        Not for training, where :meth:`weights` stands for it; a batch has no noise.
        """
        cell = self._cell(sensitive)
        mass = torch.ones_like(scores) if sample_weight is None else sample_weight.to(scores)
        zeros = scores.new_zeros(len(self.groups))
        share = zeros.index_add(0, cell, mass.detach())
        present = share > 0
        share = share / share.sum()
        waves = torch.cos(self._angles(scores)) * _like(self._scales, scores)
        zeros = scores.new_zeros((len(self.groups), self.n_frequencies))
        sums = zeros.index_add(0, cell, waves * mass[:, None]) / mass.sum()
        means = (sums[present] / share[present, None]).T
        omega = share[present] ** self.group_weighting
        omega = omega / omega.sum()
        spread = omega * (means - (means @ omega)[:, None])
        kernel = self._kernel(omega.detach().double().cpu().numpy(), present.cpu().numpy())
        return ((spread @ _like(kernel, scores)) * spread).sum()

    @property
    def pooled_cells(self) -> tuple[tuple[Any, ...], ...]:
        """Labels of the declared cells that are too small for their own."""
        return tuple(
            labels for labels, small in zip(self.groups.cells, self._small, strict=True) if small
        )

    # -- from sums to slopes ---------------------------------------------------------------
    def _slopes_of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the factor of each cosine's slope in each cell, shape (m, n_cells)."""
        counts = sums[-1] / _COUNT_WEIGHT
        needed = _SURE * self._noise_of_average() / _COUNT_WEIGHT
        self._small = ~(counts > needed)
        merge, kept = _merging(self._small, counts, needed)
        slopes = np.zeros((self.n_frequencies, len(self.groups)))
        if kept.sum() < 2:  # nothing to compare
            return slopes
        merge = merge[kept]
        count = merge @ counts
        share = count / count.sum()
        means = (sums[:-1] @ merge.T) / count
        omega = share**self.group_weighting
        omega /= omega.sum()
        spread = omega * (means - (means @ omega)[:, None])
        rows = merge / merge.sum(axis=1, keepdims=True)
        pull = spread @ self._kernel(omega, rows=rows)
        own = (omega / share) * (pull - (pull @ omega)[:, None])
        slopes[:] = own @ merge
        return slopes

    def _noise_of_average(self) -> float:
        """Return the standard deviation of the noise in the debiased moving average."""
        decay, steps = self.ema, self._released
        left = 1.0 - decay**steps
        return self._noise * math.sqrt((1.0 - decay) / (1.0 + decay) * (1.0 + decay**steps) / left)

    def _kernel(
        self,
        omega: NDArray[np.float64],
        present: NDArray[np.bool_] | None = None,
        rows: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Return K on some cells, or on averages of cells."""
        if rows is None:
            rows = np.eye(len(self.groups)) if present is None else np.eye(len(present))[present]
        if self.kind == "cells":
            return np.eye(len(rows))
        if self.kind == "jdcov":
            merged = [rows @ apart @ rows.T for apart in self._apart]
            return cell_kernel("jdcov", merged, counts=omega, c=self.c)
        return rows @ cell_kernel(self.kind, self._apart) @ rows.T

    def _angles(self, scores: Tensor) -> Tensor:
        order = torch.arange(1, self.n_frequencies + 1, device=scores.device, dtype=scores.dtype)
        return scores.clamp(0.0, 1.0)[:, None] * (order * math.pi)

    def _cell(self, sensitive: Tensor) -> Tensor:
        return sensitive.long().clamp(0, len(self.groups) - 1)


def _merging(
    small: NDArray[np.bool_], counts: NDArray[np.float64], needed: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return which cells make up which (one row each), and which of these are large enough."""
    n = len(small)
    alone = np.eye(n)[~small]
    pool = small.astype(np.float64)[None]
    merge = np.vstack([alone, pool])
    kept = np.ones(len(merge), dtype=bool)
    # The pool's count has the noise of all its members.
    kept[-1] = bool(small.any()) and float(pool[0] @ counts) > needed * math.sqrt(
        max(small.sum(), 1)
    )
    return merge, kept


def _like(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
