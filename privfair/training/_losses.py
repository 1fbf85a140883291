"""Losses that are sums over records, with their derivative at the model's output."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "LogisticLoss",
    "RangedSquaredLoss",
    "RecordLoss",
    "SoftmaxLoss",
    "SquaredLoss",
]


class RecordLoss(Protocol):
    """A loss that is a sum of per-record terms.

    ``score`` is the bounded score in [0, 1] that a fairness penalty sees; ``None`` where the
    loss has none.
    """

    n_outputs: int

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        """Return each record's loss, shape (batch,)."""
        ...

    def backprop(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the derivative of each record's loss at its output, shape of ``output``."""
        ...

    def score(self, output: Tensor) -> Tensor | None:
        """Return each record's score in [0, 1], shape (batch,)."""
        ...

    def score_backprop(self, output: Tensor) -> Tensor | None:
        """Return the derivative of each record's score at its output."""
        ...


class LogisticLoss:
    """Binary cross-entropy of one logit; targets are 0.0 or 1.0."""

    n_outputs = 1

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        """Return each record's loss."""
        return F.binary_cross_entropy_with_logits(output[:, 0], y, reduction="none")

    def backprop(self, output: Tensor, y: Tensor) -> Tensor:
        """Return p - y."""
        return torch.sigmoid(output) - y[:, None]

    def score(self, output: Tensor) -> Tensor:
        """Return the probability of the positive class."""
        return torch.sigmoid(output[:, 0])

    def score_backprop(self, output: Tensor) -> Tensor:
        """Return p (1 - p)."""
        p = torch.sigmoid(output)
        return p * (1 - p)


class SoftmaxLoss:
    """Cross-entropy of ``n_outputs`` logits; targets are class positions."""

    def __init__(self, n_outputs: int) -> None:
        self.n_outputs = n_outputs

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        """Return each record's loss."""
        return F.cross_entropy(output, y, reduction="none")

    def backprop(self, output: Tensor, y: Tensor) -> Tensor:
        """Return p - onehot(y)."""
        if self.n_outputs == 2:  # several times faster than a softmax over two columns
            second = torch.sigmoid(output[:, 1] - output[:, 0]) - y
            return torch.stack((-second, second), dim=1)
        # exp(log_softmax) is faster than softmax over few columns, and no less exact.
        p = torch.log_softmax(output, dim=1).exp_()
        return p.scatter_add_(1, y[:, None], p.new_full((len(p), 1), -1.0))

    def score(self, output: Tensor) -> None:
        """Return None: several classes have no single score."""
        return None

    def score_backprop(self, output: Tensor) -> None:
        """Return None."""
        return None


class SquaredLoss:
    """Half the squared error of one output."""

    n_outputs = 1

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        """Return each record's loss."""
        return 0.5 * (output[:, 0] - y) ** 2

    def backprop(self, output: Tensor, y: Tensor) -> Tensor:
        """Return f - y."""
        return output - y[:, None]

    def score(self, output: Tensor) -> Tensor | None:
        """Return None: the output is not confined to [0, 1]."""
        return None

    def score_backprop(self, output: Tensor) -> Tensor | None:
        """Return None."""
        return None


class RangedSquaredLoss(SquaredLoss):
    """Half the squared error of one output, for targets in a public range scaled to [-1, 1].

    The score that a fairness penalty sees is the output's place in the range, from 0 to 1.
    Outputs beyond an end have the score of that end, and a penalty does not move them.
    """

    def score(self, output: Tensor) -> Tensor:
        """Return the place of each prediction in the range."""
        return ((output[:, 0] + 1.0) / 2.0).clamp(0.0, 1.0)

    def score_backprop(self, output: Tensor) -> Tensor:
        """Return a half inside of the range and 0 outside."""
        return 0.5 * (output.abs() <= 1.0).to(output.dtype)
