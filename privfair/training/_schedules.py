"""Step sizes that change over a run, fixed before it: public functions of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError

__all__ = ["CosineSchedule", "LinearSchedule", "StepSchedule"]


@dataclass(frozen=True)
class _Warmed:
    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        check.positive_int(steps=self.steps)
        check.non_negative_int(warmup=self.warmup)
        check.non_negative(final=self.final)
        if self.warmup >= self.steps or self.final > 1.0:
            raise InvalidParameterError(
                f"warmup must be below steps = {self.steps} and final in [0, 1], got warmup = "
                f"{self.warmup} and final = {self.final}."
            )

    def __call__(self, step: int) -> float:
        """Return the factor of the step size at ``step`` = 0, 1, ..."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.final + (1.0 - self.final) * self._shape(done)

    def _shape(self, done: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class CosineSchedule(_Warmed):
    """Half a cosine from 1 down to ``final`` over the run, after a linear warm-up.

    Parameters
    ----------
    steps : int
        Steps of the run.
    warmup : int, default=0
        First steps, over which the factor rises to 1; below ``steps``.
    final : float, default=0.0
        In [0, 1], the factor at the end.

    References
    ----------
    Loshchilov, Hutter, 2017, arXiv:1608.03983.

    Examples
    --------
    >>> schedule = CosineSchedule(100, warmup=4)
    >>> [round(schedule(t), 2) for t in (0, 4, 52, 100)]
    [0.2, 1.0, 0.5, 0.0]
    """

    def _shape(self, done: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class LinearSchedule(_Warmed):
    """A straight line from 1 down to ``final`` over the run, after a linear warm-up.

    Parameters
    ----------
    steps : int
        Steps of the run.
    warmup : int, default=0
        First steps, over which the factor rises to 1; below ``steps``.
    final : float, default=0.0
        In [0, 1], the factor at the end.

    Examples
    --------
    >>> LinearSchedule(10)(5)
    0.5
    """

    def _shape(self, done: float) -> float:
        return 1.0 - done


@dataclass(frozen=True)
class StepSchedule:
    """Multiply the step size by a factor every so many steps.

    Parameters
    ----------
    every : int
        Steps between two changes.
    factor : float, default=0.5
        Above 0.

    Examples
    --------
    >>> [StepSchedule(10, 0.5)(t) for t in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """

    every: int
    factor: float = 0.5

    def __post_init__(self) -> None:
        check.positive_int(every=self.every)
        check.positive(factor=self.factor)

    def __call__(self, step: int) -> float:
        """Return the factor of the step size at ``step`` = 0, 1, ..."""
        return float(self.factor ** (step // self.every))
