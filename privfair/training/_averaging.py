"""Averages of the parameters over a run's steps: post-processing of what is released."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError

__all__ = ["ExponentialAverage", "TailAverage", "make_average"]


class TailAverage:
    """Average of the parameters over the last part of a run, with equal weights."""

    def __init__(self, theta: Tensor, steps: int, fraction: float) -> None:
        self._first = steps - int(round(fraction * steps))
        self._sum = torch.zeros_like(theta, dtype=torch.float64)
        self._count = 0

    def add(self, step: int, theta: Tensor) -> None:
        """Take in the parameters after ``step``."""
        if step >= self._first:
            self._sum += theta
            self._count += 1

    def finish(self, theta: Tensor) -> None:
        """Replace the parameters by their average, if there is one."""
        if self._count:
            theta.copy_((self._sum / self._count).to(theta.dtype))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"sum": self._sum, "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        self._sum.copy_(state["sum"])
        self._count = int(state["count"])


class ExponentialAverage:
    """Exponential moving average of the parameters, without the bias of its start.

    Notes
    -----
    After step t the average is ``sum_s d^(t-s) theta_s / sum_s d^(t-s)`` for the decay d.

    References
    ----------
    Polyak, Juditsky, 1992. De, Berrada, Hayes, Smith, Balle, 2022, arXiv:2204.13650 (for
    DP-SGD).
    """

    def __init__(self, theta: Tensor, decay: float) -> None:
        self._decay = decay
        self._sum = torch.zeros_like(theta, dtype=torch.float64)
        self._weight = 0.0

    def add(self, step: int, theta: Tensor) -> None:
        """Take in the parameters after ``step``."""
        self._sum.mul_(self._decay).add_(theta.double(), alpha=1.0 - self._decay)
        self._weight = self._weight * self._decay + (1.0 - self._decay)

    def finish(self, theta: Tensor) -> None:
        """Replace the parameters by their average, if there is one."""
        if self._weight:
            theta.copy_((self._sum / self._weight).to(theta.dtype))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"sum": self._sum, "weight": self._weight}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        self._sum.copy_(state["sum"])
        self._weight = float(state["weight"])


def make_average(
    theta: Tensor, steps: int, fraction: float, decay: float
) -> TailAverage | ExponentialAverage:
    """Return the average asked for: of the last steps, or with exponential weights."""
    share = check.real(average=fraction)
    if not 0.0 <= share <= 1.0:
        raise InvalidParameterError(f"average must be in [0, 1], got {fraction}.")
    rate = check.real(ema_decay=decay)
    if not 0.0 <= rate < 1.0:
        raise InvalidParameterError(f"ema_decay must be in [0, 1), got {decay}.")
    if rate and share:
        raise InvalidParameterError(
            "average and ema_decay are two ways to average the parameters; give one of them."
        )
    return ExponentialAverage(theta, rate) if rate else TailAverage(theta, steps, share)
