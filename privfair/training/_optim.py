"""First-order optimisers on one flat vector; everything here is post-processing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

__all__ = ["OPTIMIZERS", "Adam", "AdamBC", "FlatOptimizer", "Schedule", "Sgd", "make_optimizer"]

OPTIMIZERS = ("sgd", "adam", "dp_adam_bc")
"""Names that :func:`make_optimizer` takes."""

Schedule = Callable[[int], float]
"""Maps the number of steps done to the factor of the step size; public."""


class FlatOptimizer(Protocol):
    """Updates a flat parameter vector in place from a noisy mean gradient.

    An optimiser that has ``observe_noise(std)`` is told, before each step, the standard
    deviation of the noise in each coordinate of the gradient. One that has ``state()`` and
    ``restore(state)`` can be saved in a checkpoint.
    """

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Update ``theta``."""
        ...


class _Stateful:
    """Step size, schedule, and the tensors and numbers that a checkpoint needs."""

    _tensors: tuple[str, ...] = ()
    _numbers: tuple[str, ...] = ("_t",)

    def __init__(self, lr: float, schedule: Schedule | None) -> None:
        self.lr, self.schedule = lr, schedule
        self._t = 0

    def _rate(self) -> float:
        """Return the step size of the step that begins, and count it."""
        factor = 1.0 if self.schedule is None else float(self.schedule(self._t))
        self._t += 1
        return self.lr * factor

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs; tensors that do not exist yet are left out."""
        names = [n for n in self._tensors if getattr(self, n) is not None]
        return {n: getattr(self, n) for n in (*self._numbers, *names)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        for name in self._numbers:
            setattr(self, name, type(getattr(self, name))(state[name]))
        for name in self._tensors:
            value = state.get(name)
            setattr(self, name, None if value is None else value.clone())


class Sgd(_Stateful):
    """Gradient descent with heavy-ball momentum; weight decay is added after the noise."""

    _tensors = ("_velocity",)

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(lr, schedule)
        self.momentum, self.weight_decay = momentum, weight_decay
        self._velocity: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Update ``theta``."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * theta
        if self.momentum:
            if self._velocity is None:
                self._velocity = torch.zeros_like(theta)
            gradient = self._velocity.mul_(self.momentum).add_(gradient)
        theta.add_(gradient, alpha=-self._rate())


class Adam(_Stateful):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) with decoupled weight decay."""

    _tensors = ("_first", "_second")

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(lr, schedule)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Update ``theta``."""
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(theta), torch.zeros_like(theta)
        one, two = self.betas
        rate = self._rate()
        self._first.mul_(one).add_(gradient, alpha=1 - one)
        self._second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
        first = self._first / (1 - one**self._t)
        second = self._second / (1 - two**self._t)
        if self.weight_decay:
            theta.mul_(1 - rate * self.weight_decay)
        theta.sub_(rate * first / self._scale(second))

    def _scale(self, second: Tensor) -> Tensor:
        return second.sqrt() + self.eps


class AdamBC(Adam):
    """Adam whose second moment is freed of the known variance of the noise.

    The second moment of a noisy gradient is that of the gradient plus the noise's variance,
    which is public; without the correction all coordinates get nearly the same step size.

    References
    ----------
    Tang, Shpilevskiy, Lecuyer, 2023, "DP-AdamBC", arXiv:2312.14334.
    """

    _numbers = ("_t", "_variance")

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        floor: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(lr, betas, 0.0, weight_decay, schedule)
        self.floor = floor
        self._variance = 0.0

    def observe_noise(self, std: float) -> None:
        """Take in the standard deviation of the noise in the next gradient's coordinates."""
        two = self.betas[1]
        self._variance = two * self._variance + (1 - two) * std * std

    def _scale(self, second: Tensor) -> Tensor:
        noise = self._variance / (1 - self.betas[1] ** self._t)
        return (second - noise).clamp(min=self.floor).sqrt()


def make_optimizer(
    name: str,
    lr: float,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: Schedule | None = None,
) -> FlatOptimizer:
    """Return the optimiser called ``"sgd"``, ``"adam"`` or ``"dp_adam_bc"``.

    Parameters
    ----------
    name : {"sgd", "adam", "dp_adam_bc"}
        ``dp_adam_bc`` subtracts the noise's variance from Adam's second moment, floored at 1e-8.
    lr : float
        Step size, above 0.
    momentum : float, default=0.0
        In [0, 1), of sgd.
    weight_decay : float, default=0.0
        At least 0; added after the noise.
    schedule : callable or None, default=None
        Maps the number of steps done to the factor of the step size, such as
        :class:`CosineSchedule`. It must depend on nothing but the step.

    Returns
    -------
    FlatOptimizer

    Raises
    ------
    InvalidParameterError
        An unknown name, or a number out of range.

    Notes
    -----
    Privacy: everything is computed from the noisy gradients and public constants. O(parameters)
    a step.

    References
    ----------
    Kingma, Ba, 2015, arXiv:1412.6980. Tang, Shpilevskiy, Lecuyer, 2023, arXiv:2312.14334.

    Examples
    --------
    >>> theta = torch.ones(2)
    >>> make_optimizer("sgd", 0.5).step(theta, torch.tensor([1.0, 0.0]))
    >>> theta
    tensor([0.5000, 1.0000])
    """
    check.one_of(OPTIMIZERS, name=name)
    rate = check.positive(lr=lr)
    decay = check.non_negative(weight_decay=weight_decay)
    heavy = check.real(momentum=momentum)
    if not 0.0 <= heavy < 1.0:
        raise InvalidParameterError(f"momentum must be in [0, 1), got {momentum}.")
    if schedule is not None and not callable(schedule):
        raise InvalidTypeError(
            f"schedule must be a callable of the step, got {type(schedule).__name__}."
        )
    if name == "adam":
        return Adam(rate, weight_decay=decay, schedule=schedule)
    if name == "dp_adam_bc":
        return AdamBC(rate, weight_decay=decay, schedule=schedule)
    return Sgd(rate, heavy, decay, schedule)
