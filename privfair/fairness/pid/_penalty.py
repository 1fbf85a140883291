"""The parts of a disparity as a penalty for training without privacy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    LengthMismatchError,
    ProbabilityRangeError,
    SchemaError,
)
from privfair.fairness.pid._torch import pid_torch

__all__ = ["PIDPenalty"]

_ROW_SUM = 1e-3  # what a softmax in half precision is off by


class PIDPenalty:
    """Penalise chosen parts of the disparity of a batch: unique, redundant, masked.

    The decision of a row is taken at random with the probability that its score states, which
    makes the batch's table of (Z, Yhat, S), and so each part, differentiable in the scores. The
    value is ``unique * U + redundant * R + masked * M`` in bits: weights (1, 1, 0) penalise the
    global disparity, (1, 0, 1) the local one, (1, 1, 1) both.

    Parameters
    ----------
    unique : float >= 0, default=1.0
        Weight of the part that hurts both notions.
    redundant : float >= 0, default=1.0
        Weight of the part that is only global.
    masked : float >= 0, default=1.0
        Weight of the part that is only local.
    strength : float >= 0, default=1.0
        Factor by which a trainer multiplies the penalty beside its loss (nats a row).

    Attributes
    ----------
    decomposable : bool
        False: the parts are of the batch as a whole.
    requires : frozenset of str
        Empty: the client may come as the last sensitive column.

    Raises
    ------
    InvalidParameterError, InvalidTypeError
        A weight that is no finite number of at least 0, or all of them 0.

    Notes
    -----
    Implements :class:`privfair.core.Penalty`. Private trainers refuse it: one record moves the
    gradient of every other, so that clipping bounds nothing; it trains at
    ``epsilon=float("inf")``. Batches should hold some tens of rows for each group in each client:
    with n rows, m decisions and K clients the local disparity of independent columns is about
    ``K (|Z|-1) (m-1) / (2 n)`` nats, not 0. The value for a batch that holds one group only is 0.

    References
    ----------
    Hamman and Dutta 2024, arXiv:2307.11333.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([0.9, 0.8, 0.2, 0.1], requires_grad=True)
    >>> sex, hospital = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    >>> value = PIDPenalty(masked=0.0)(scores, sex, client=hospital)
    >>> value.backward()
    >>> print(f"{value.item():.3f}", (scores.grad > 0).tolist())
    0.390 [True, True, False, False]
    """

    decomposable: bool = False
    requires: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        unique: float = 1.0,
        redundant: float = 1.0,
        masked: float = 1.0,
        strength: float = 1.0,
    ) -> None:
        self.unique = check.non_negative(unique=unique)
        self.redundant = check.non_negative(redundant=redundant)
        self.masked = check.non_negative(masked=masked)
        self.strength = check.non_negative(strength=strength)
        if self.unique == self.redundant == self.masked == 0:
            raise InvalidParameterError(
                "unique, redundant and masked are all 0, so that nothing is penalised. Give at "
                "least one a positive weight."
            )

    def __call__(
        self,
        scores: Tensor,
        sensitive: Tensor,
        *,
        y: Tensor | None = None,
        sample_weight: Tensor | None = None,
        client: Tensor | None = None,
        **columns: Any,
    ) -> Tensor:
        """Return the penalty of a batch in bits, as a 0-d tensor in double precision.

        Parameters
        ----------
        scores : Tensor of shape (B,) or (B, m)
            P(Yhat=1) of each row, or the probabilities of its m decisions.
        sensitive : Tensor of shape (B,) or (B, d)
            Groups; several columns count as their cross product. Without ``client`` the last
            column is the client, and there must be two at least.
        y : Tensor or None, default=None
            Not used.
        sample_weight : Tensor of shape (B,) or None, default=None
            Weights of at least 0.
        client : Tensor of shape (B,) or None, default=None
            Client of each row.
        columns : Tensor
            Not used.
        """
        _check_scores(scores)
        groups = sensitive[:, None] if sensitive.ndim == 1 else sensitive
        if client is None:
            if groups.shape[1] < 2:
                raise SchemaError(
                    "PIDPenalty needs the client of each row: client=, or as the last of at least "
                    f"two sensitive columns; got {groups.shape[1]} column."
                )
            groups, client = groups[:, :-1], groups[:, -1]
        if not len(scores) == len(groups) == len(client):
            raise LengthMismatchError(
                f"scores, sensitive and client must have one entry a row, got {len(scores)}, "
                f"{len(groups)} and {len(client)}."
            )
        for name, column in (("sensitive", groups), ("client", client)):
            if column.is_floating_point() and bool(torch.isnan(column).any()):
                raise DataError(f"{name} must name a group in every row, got NaN.")
        if len(scores) == 0:
            return (scores * 0).sum().double()
        if sample_weight is not None:
            _check_weights(sample_weight, len(scores))
            if not bool((sample_weight > 0).any()):
                return (scores * 0).sum().double()
        table = _soft_table(scores, groups, client, sample_weight)
        if table.shape[0] < 2:
            return (scores * 0).sum().double()
        parts = pid_torch(table)
        return (
            self.unique * parts.unique
            + self.redundant * parts.redundant
            + (self.masked * parts.masked)
        )


def _check_scores(scores: Tensor) -> None:
    shape = tuple(scores.shape)
    if scores.ndim not in (1, 2) or (scores.ndim == 2 and shape[1] < 2):
        raise SchemaError(
            "scores must have shape (B,), the probability of decision 1, or (B, m) with the "
            f"probabilities of m >= 2 decisions; got {shape}."
        )
    with torch.no_grad():
        fair = bool(((scores >= 0) & (scores <= 1)).all())
        if fair and scores.ndim == 2:
            fair = bool(((scores.double().sum(dim=1) - 1).abs() <= _ROW_SUM).all())
    if not fair:
        raise ProbabilityRangeError(
            "scores must be probabilities in [0, 1], those of several decisions adding up to 1 in "
            "each row. Apply a sigmoid or softmax to logits first."
        )


def _check_weights(weight: Tensor, rows: int) -> None:
    if tuple(weight.shape) != (rows,):
        raise LengthMismatchError(
            f"sample_weight must have one entry a row, shape ({rows},), got {tuple(weight.shape)}."
        )
    with torch.no_grad():
        if not bool((torch.isfinite(weight) & (weight >= 0)).all()):
            raise DataError("sample_weight must be finite and non-negative in every row.")


def _soft_table(
    scores: Tensor, groups: Tensor, client: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """Return P(z, yhat, s) of decisions drawn by their probabilities; differentiable."""
    each = scores.double()
    if each.ndim == 1:
        each = torch.stack([1 - each, each], dim=1)
    if sample_weight is not None:
        each = each * sample_weight.double()[:, None]
    _, z = torch.unique(groups, dim=0, return_inverse=True)
    _, s = torch.unique(client, return_inverse=True)
    z, s = z.to(each.device), s.to(each.device)
    n_z, n_s = int(z.max()) + 1, int(s.max()) + 1
    cells = torch.zeros((n_z * n_s, each.shape[1]), dtype=each.dtype, device=each.device)
    cells = cells.index_add(0, z * n_s + s, each)
    return (cells / cells.sum()).reshape(n_z, n_s, -1).transpose(1, 2)
