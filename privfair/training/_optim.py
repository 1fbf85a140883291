"""First-order optimisers on one flat vector; everything here is post-processing."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Adam", "FlatOptimizer", "Sgd", "make_optimizer"]


class FlatOptimizer(Protocol):
    """Updates a flat parameter vector in place from a noisy mean gradient."""

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Update ``theta``."""
        ...


class Sgd:
    """Gradient descent with heavy-ball momentum; weight decay is added after the noise."""

    def __init__(self, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self._velocity: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Update ``theta``."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * theta
        if self.momentum:
            if self._velocity is None:
                self._velocity = torch.zeros_like(theta)
            gradient = self._velocity.mul_(self.momentum).add_(gradient)
        theta.add_(gradient, alpha=-self.lr)


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) with decoupled weight decay."""

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._t = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Update ``theta``."""
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(theta), torch.zeros_like(theta)
        one, two = self.betas
        self._t += 1
        self._first.mul_(one).add_(gradient, alpha=1 - one)
        self._second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
        first = self._first / (1 - one**self._t)
        second = self._second / (1 - two**self._t)
        if self.weight_decay:
            theta.mul_(1 - self.lr * self.weight_decay)
        theta.sub_(self.lr * first / (second.sqrt() + self.eps))


def make_optimizer(
    name: str, lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0
) -> FlatOptimizer:
    """Return the optimiser called ``"sgd"`` or ``"adam"``.

    Parameters
    ----------
    name : {"sgd", "adam"}
    lr : float
        Step size, above 0.
    momentum : float, default=0.0
        In [0, 1), of sgd.
    weight_decay : float, default=0.0
        At least 0.

    Returns
    -------
    FlatOptimizer

    References
    ----------
    Kingma, Ba, 2015, arXiv:1412.6980.
    """
    if name == "adam":
        return Adam(lr, weight_decay=weight_decay)
    return Sgd(lr, momentum, weight_decay)
