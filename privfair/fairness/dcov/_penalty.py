"""Distance covariance as a training penalty without privacy."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.fairness.dcov._cells import cells_dcov_sq
from privfair.fairness.dcov._encoder import AttributeEncoder
from privfair.fairness.dcov._functions import dcov_sq
from privfair.fairness.dcov._joint_functions import jdcov_targeted_sq
from privfair.fairness.dcov._kernels import KINDS, balanced_shares, cell_kernel

__all__ = ["DistanceCovariancePenalty"]

NORMALISATIONS = ("none", "target_scale", "dcor")

LARGE_BATCH = 1024
"""From here on the plug-in estimator's bias, of order one over the batch, is small."""

_LEAST = {"u": 4, "v": 2}


class DistanceCovariancePenalty(nn.Module):
    r"""Squared distance covariance of a batch of predictions with protected attributes.

    Implements :class:`privfair.core.Penalty` at the level of batches, so that it is for training
    *without* privacy; private trainers refuse it by name and take
    :class:`BoundedDistanceCovariance`.

    Parameters
    ----------
    kind : {"ccdcov", "jdcov", "pairwise", "cells"}, default="ccdcov"
        Of all attributes together under the Euclidean norm; the targeted joint form (all orders
        of interaction); the sum over single attributes, which does not see intersections; the
        discrete metric on the intersections.
    c : float, default=1.0
        Above 0; weight of low orders in ``"jdcov"``.
    estimator : {"auto", "u", "v"}, default="auto"
        Unbiased or plug-in. The plug-in's bias under independence is about E|f - f'| times the
        attributes' mean distance over the batch: a penalty on the spread of predictions.
        ``"auto"`` is ``"u"`` for batches below 1,024 or drawn cell by cell, ``"v"`` for others.
    group_weighting : float, default=0.5
        tau in [0, 1]: cell g weighs ``share_g ** tau``. 1 is distance covariance as published.
        With more than ``max_cells`` combinations only 1 is possible.
    normalise : {"none", "target_scale", "dcor"}, default="none"
        ``"target_scale"`` divides predictions by the fixed ``scale``; ``"dcor"`` divides the
        penalty by the distance standard deviation of the batch's predictions, without gradient,
        which is a biased estimate of the ratio.
    scale : float, default=1.0
        Above 0; a constant in the predictions' unit, such as the labels' standard deviation.
    strength : float, default=1.0
        Factor with which a trainer multiplies the penalty, at least 0.
    encoder : AttributeEncoder or None, default=None
        How attributes become distances; None is ``AttributeEncoder()``. One that is not fitted
        is fitted by :meth:`fit`, once and never on a batch.
    min_cell : int, default=30
        Cells with fewer records at :meth:`fit` are pooled.

    Attributes
    ----------
    encoder_ : AttributeEncoder
    pooled_cells_ : list of tuple
        Labels of the pooled cells.

    Notes
    -----
    O(B log B + B G) a batch with G cells; O(B^2) time and O(B) memory for continuous attributes.
    The objective is the squared quantity, which is neither clamped at 0 nor put under a root:
    either would cut or blow up its gradient where predictions are nearly fair. Multiplying
    predictions by a constant multiplies the penalty by it, so that a regression on a raw scale
    can lower it by shrinking: normalise.

    References
    ----------
    Lee, Antonio, Avanzi, Marchi, Zhou (2025), arXiv 2509.08163. Szekely, Rizzo (2014), Annals of
    Statistics 42(6) (the unbiased estimator). Chakraborty, Zhang (2019), JASA 114(528).

    Examples
    --------
    >>> import torch
    >>> penalty = DistanceCovariancePenalty(kind="cells", estimator="v", group_weighting=1.0)
    >>> codes = penalty.fit({"s": ["a", "a", "b", "b"] * 30}).encode({"s": ["a", "a", "b", "b"]})
    >>> scores = torch.tensor([0.0, 0.0, 1.0, 1.0], requires_grad=True)
    >>> value = penalty(scores, codes)
    >>> value.backward()
    >>> round(float(value.detach()), 4), scores.grad.tolist()
    (0.25, [-0.125, -0.125, 0.125, 0.125])
    """

    decomposable = False
    requires: frozenset[str] = frozenset()

    def __init__(
        self,
        kind: str = "ccdcov",
        *,
        c: float = 1.0,
        estimator: str = "auto",
        group_weighting: float = 0.5,
        normalise: str = "none",
        scale: float = 1.0,
        strength: float = 1.0,
        encoder: AttributeEncoder | None = None,
        min_cell: int = 30,
    ) -> None:
        super().__init__()
        self.kind = check.one_of(KINDS, kind=kind)
        self.c = check.positive(c=c)
        self.estimator = check.one_of(("auto", "u", "v"), estimator=estimator)
        self.group_weighting = check.probability(group_weighting=group_weighting)
        self.normalise = check.one_of(NORMALISATIONS, normalise=normalise)
        self.scale = check.positive(scale=scale)
        self.strength = check.non_negative(strength=strength)
        self.min_cell = check.positive_int(min_cell=min_cell)
        if encoder is not None and not isinstance(encoder, AttributeEncoder):
            raise InvalidTypeError(
                f"encoder must be an AttributeEncoder, got {type(encoder).__name__}."
            )
        self.encoder = encoder
        self.encoder_: AttributeEncoder | None = None
        self.pooled_cells_: list[tuple[Any, ...]] = []
        self._apart: list[Any] | None = None
        self._merge: Any = None
        self._place: Any = None
        self._counts: Any = None

    # -- attributes ------------------------------------------------------------------------
    def fit(self, sensitive_features: Any) -> DistanceCovariancePenalty:
        """Fix scales, cells and which of them are pooled, on the training rows.

        Parameters
        ----------
        sensitive_features : data frame, mapping or array-like, one row per record

        Returns
        -------
        DistanceCovariancePenalty
        """
        encoder = AttributeEncoder() if self.encoder is None else self.encoder
        if not hasattr(encoder, "blocks_"):
            encoder = copy.deepcopy(encoder).fit(sensitive_features)
        self.encoder_ = encoder
        self._apart, self._merge, self._place, self.pooled_cells_ = None, None, None, []
        if encoder.cells_ is None:
            if self.kind == "cells" or self.group_weighting != 1:
                raise InvalidParameterError(
                    f"kind={self.kind!r} with group_weighting={self.group_weighting:g} needs "
                    f"finitely many cells, and the attributes have more than "
                    f"{encoder.max_cells} combinations. Bin the continuous ones, or use another "
                    "kind with group_weighting=1."
                )
            return self
        counts = np.bincount(encoder.cell_codes(sensitive_features), minlength=len(encoder.cells_))
        small = counts < self.min_cell
        merge = np.vstack([np.eye(len(counts))[~small], small * np.maximum(counts, 1e-9)])
        if not small.any():
            merge = merge[:-1]
        self._merge = merge / merge.sum(axis=1, keepdims=True)
        self._place = torch.from_numpy(np.argmax(self._merge > 0, axis=0))
        self._apart = encoder.cell_distances()
        labels = encoder.cell_labels_ or []
        self.pooled_cells_ = [labels[at] for at in np.flatnonzero(small) if labels]
        return self

    def encode(self, sensitive_features: Any) -> Tensor:
        """Return what :meth:`forward` takes: cells (n,), or encoded attributes (n, q).

        Parameters
        ----------
        sensitive_features : data frame, mapping or array-like, one row per record
        """
        if self.encoder_ is None:
            raise InvalidParameterError("the penalty is not fitted: call fit(S) first.")
        if self._place is None:
            return torch.from_numpy(self.encoder_.transform(sensitive_features))
        found: Tensor = self._place[torch.from_numpy(self.encoder_.cell_codes(sensitive_features))]
        return found

    def encode_sensitive(self, sensitive_features: Any) -> Any:
        """Fit if that is not done, and encode, as numpy: what a trainer calls.

        Parameters
        ----------
        sensitive_features : data frame, mapping or array-like, one row per record
        """
        if self.encoder_ is None:
            self.fit(sensitive_features)
        return self.encode(sensitive_features).numpy()

    @property
    def n_cells(self) -> int | None:
        """Number of cells after pooling, None where there are not finitely many."""
        return None if self._merge is None else len(self._merge)

    def _know_counts(self, counts: Any) -> None:
        """Take the cells' sizes among all rows as known, for batches drawn cell by cell.

        Parameters
        ----------
        counts : array-like, shape (n_cells,)
            Cells then count by these, not by their rows in a batch, which may be more than their
            share; records must have no ``sample_weight``.
        """
        self._counts = np.asarray(counts, dtype=float)

    # -- the penalty -----------------------------------------------------------------------
    def forward(
        self,
        scores: Tensor,
        sensitive: Tensor,
        *,
        y: Tensor | None = None,
        sample_weight: Tensor | None = None,
        **columns: Any,
    ) -> Tensor:
        """Return the penalty of a batch.

        Parameters
        ----------
        scores : Tensor, shape (n,) or (n, n_outputs)
            Predictions; the penalty of several outputs is the sum over them.
        sensitive : Tensor, shape (n,) or (n, q)
            From :meth:`encode`. Where the penalty is not fitted, whole numbers that name the
            cells, all equally far apart.
        y, **columns
            Not used.
        sample_weight : Tensor, shape (n,), or None
            Weights of the records, for finitely many cells; the plug-in estimator is used.

        Returns
        -------
        Tensor, 0-d
            May be negative for the unbiased estimator. 0 for fewer records than it needs.
        """
        if scores.ndim == 2 and scores.shape[1] > 1:
            parts = [
                self.forward(part, sensitive, y=y, sample_weight=sample_weight)
                for part in scores.unbind(dim=1)
            ]
            return torch.stack(parts).sum()
        scores = scores.flatten()
        estimator = self.estimator
        if estimator == "auto":
            # Of a rare cell two rows are here: plugged in, they are biased in any batch.
            small = len(scores) < LARGE_BATCH or self._counts is not None
            estimator = "u" if small else "v"
        if sample_weight is not None:
            estimator = "v"
        if len(scores) < _LEAST[estimator]:
            return 0.0 * scores.sum()
        if self.normalise == "target_scale":
            scores = scores / self.scale
        if sensitive.is_floating_point():
            value = self._continuous(scores, sensitive, estimator)
        else:
            value = self._finite(scores, sensitive.long().flatten(), estimator, sample_weight)
        if self.normalise == "dcor":
            spread = dcov_sq(scores.detach(), scores.detach(), estimator="v")
            value = value / (spread.clamp(min=0.0).sqrt() + torch.finfo(scores.dtype).eps)
        return value

    def _finite(
        self, scores: Tensor, cell: Tensor, estimator: str, weight: Tensor | None
    ) -> Tensor:
        n_cells = self.n_cells
        if n_cells is None:  # not fitted: the numbers themselves are the cells
            n_cells = int(cell.max()) + 1
        shares = None
        if self._counts is not None and weight is None:
            counts, shares = self._counts, balanced_shares(self._counts, self.group_weighting)
            kernel = self._kernel(counts, "v")  # centred by shares that are no estimates
        else:
            counts = torch.bincount(cell, weights=weight, minlength=n_cells).double()
            kernel = self._kernel(counts.cpu().numpy(), estimator)
        value: Tensor = cells_dcov_sq(
            scores,
            cell,
            kernel,
            estimator=estimator,
            group_weighting=self.group_weighting,
            sample_weight=weight,
            shares=shares,
        )
        return value

    def _kernel(self, counts: Any, estimator: str) -> Any:
        if self._apart is None or self.kind == "cells":
            return np.eye(len(counts))
        if self.kind != "jdcov":
            return self._merge @ cell_kernel(self.kind, self._apart) @ self._merge.T
        return cell_kernel(
            "jdcov",
            [self._merge @ apart @ self._merge.T for apart in self._apart],
            counts=counts,
            c=self.c,
            estimator=estimator,
            group_weighting=self.group_weighting,
        )

    def _continuous(self, scores: Tensor, codes: Tensor, estimator: str) -> Tensor:
        codes = codes.to(device=scores.device, dtype=scores.dtype)
        if self.kind == "ccdcov" or self.encoder_ is None:
            value: Tensor = dcov_sq(scores, codes, estimator=estimator)
            return value
        blocks = [codes[:, block] for block in self.encoder_.blocks_.values()]
        if self.kind == "pairwise":
            parts = [dcov_sq(scores, block, estimator=estimator) for block in blocks]
            return torch.stack(parts).sum()
        joint: Tensor = jdcov_targeted_sq(scores, *blocks, c=self.c, estimator=estimator)
        return joint
