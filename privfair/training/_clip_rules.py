"""Ways to bound one record's gradient: flat, automatic, by groups, at an adaptive quantile.

Every one of them bounds a record's contribution by ``max_grad_norm`` over all parameters
together, so that the noise and the accounting are those of flat clipping. Only the adaptive rule
releases something beside the gradient, through the engine's one hook.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from privfair.core import _validation as check
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.training._clipping import ClipRule, finite_or_zero
from privfair.training._plan import StatisticPlan, TrainingPlan
from privfair.training._statistic import BatchStatistic, BatchView

__all__ = [
    "CLIPPINGS",
    "AdaptiveClipping",
    "AutomaticClipping",
    "Clipping",
    "FlatClipping",
    "GroupClipping",
    "PerLayerClipping",
    "check_rule",
    "make_clipping",
]

_RANGE = 1e6  # the adaptive bound stays within this factor of where it began


class Clipping(Protocol):
    """A choice of clipping; public constants only."""

    def rule(self, module: nn.Module, bound: float) -> ClipRule | float:
        """Return what the gradient path applies: a rule, or the bound of flat clipping."""
        ...


@dataclass(frozen=True)
class FlatClipping:
    """Scale each record's gradient down to the bound, over all parameters together.

    References
    ----------
    Abadi et al., 2016, arXiv:1607.00133.
    """

    def rule(self, module: nn.Module, bound: float) -> float:
        """Return the bound."""
        return bound


@dataclass(frozen=True)
class AutomaticClipping:
    """Scale each record's gradient to almost the bound, short ones up and long ones down.

    The factor of a gradient of norm n is ``C / (n + gamma)``, so that every contribution is
    shorter than C and accounting is that of flat clipping. C then only scales the step size and
    needs no tuning.

    Parameters
    ----------
    gamma : float, default=0.01
        Above 0, in the units of the gradient: gradients much shorter than gamma stay short.

    Notes
    -----
    Privacy: the record's contribution has a norm below C whatever the gradient; the event is
    the flat one. Cost: that of flat clipping.

    References
    ----------
    Bu, Wang, Zha, Karypis, 2022, "Automatic clipping", arXiv:2206.07136 (AUTO-S).

    Examples
    --------
    >>> rule = AutomaticClipping(gamma=0.01).rule(torch.nn.Linear(2, 1), 1.0)
    >>> rule.factors(torch.tensor([0.99, 9.99]).double(), 0.0).round(decimals=3)
    tensor([1.0000, 0.1000], dtype=torch.float64)
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", check.positive(gamma=self.gamma))

    def rule(self, module: nn.Module, bound: float) -> ClipRule:
        """Return the rule of a module."""
        return _Automatic(bound, self.gamma)


@dataclass(frozen=True)
class GroupClipping:
    """Clip groups of parameters each to a bound of its own, whose squares add up to C squared.

    Parameters
    ----------
    groups : sequence of sequences of str
        Names of parameters, or of submodules for all parameters below them. Every trainable
        parameter must be in exactly one group.
    shares : sequence of float or None, default=None
        Each group's part of C squared, above 0, up to a common factor; None is equal parts.

    Raises
    ------
    InvalidParameterError
        A name that stands for no parameter, a parameter in no group or in two (when the rule
        meets a module), or shares that do not fit.

    Notes
    -----
    Privacy: the group norms C_g satisfy ``sum C_g^2 = C^2``, so that one record's contribution
    over all parameters is at most C and the event is the flat one.

    References
    ----------
    McMahan, Ramage, Talwar, Zhang, 2018, arXiv:1710.06963 (per-layer clipping).

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    >>> rule = GroupClipping([["0"], ["2"]], shares=[9, 16]).rule(net, 5.0)
    >>> rule.bounds.tolist(), rule.groups
    ([3.0, 4.0], (0, 0, 1, 1))
    """

    groups: Sequence[Sequence[str]]
    shares: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.groups, str) or any(isinstance(g, str) for g in self.groups):
            raise InvalidTypeError(
                "groups must be a sequence of sequences of names, such as [['0'], ['2', '4']]."
            )
        if not self.groups:
            raise InvalidParameterError("groups must hold at least one group.")
        if self.shares is not None:
            if len(self.shares) != len(self.groups):
                raise InvalidParameterError(
                    f"shares must have one number for each of the {len(self.groups)} groups, got "
                    f"{len(self.shares)}."
                )
            for share in self.shares:
                check.positive(shares=share)

    def rule(self, module: nn.Module, bound: float) -> ClipRule:
        """Return the rule of a module."""
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        found = [[g for g, own in enumerate(self.groups) if _named(name, own)] for name in names]
        for name, of in zip(names, found, strict=True):
            if len(of) != 1:
                raise InvalidParameterError(
                    f"parameter {name!r} is in {len(of)} of the groups; each trainable parameter "
                    "must be in exactly one, or its gradient would not be bounded as accounted."
                )
        for own in self.groups:
            for prefix in own:
                if not any(_named(name, [prefix]) for name in names):
                    raise InvalidParameterError(
                        f"groups name {prefix!r}, and the module has no trainable parameter of "
                        f"that name. It has {', '.join(names)}."
                    )
        return _Grouped(bound, tuple(of[0] for of in found), self._bounds(bound))

    def _bounds(self, bound: float) -> Tensor:
        shares = [1.0] * len(self.groups) if self.shares is None else list(self.shares)
        total = math.fsum(shares)
        return torch.tensor([bound * math.sqrt(s / total) for s in shares], dtype=torch.float64)


@dataclass(frozen=True)
class PerLayerClipping:
    """Clip each layer's parameters to a bound of their own: one group for each layer.

    The bound of each of L layers is ``C / sqrt(L)``; see :class:`GroupClipping` for others.

    References
    ----------
    McMahan, Ramage, Talwar, Zhang, 2018, arXiv:1710.06963.
    """

    def rule(self, module: nn.Module, bound: float) -> ClipRule:
        """Return the rule of a module."""
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        own = [[n for n in names if n.rpartition(".")[0] == layer] for layer in layers]
        return GroupClipping(own).rule(module, bound)


@dataclass(frozen=True)
class AdaptiveClipping:
    """Follow a quantile of the gradients' norms with the clipping bound, under the same noise.

    At each step the engine also releases, under Gaussian noise, how many records of the batch
    had a norm of at most C_t (each counted as 1/2, the others as -1/2), and sets
    ``C_{t+1} = C_t exp(-learning_rate (share - target_quantile))``.

    Parameters
    ----------
    target_quantile : float, default=0.5
        In (0, 1).
    learning_rate : float, default=0.2
        Above 0.
    count_noise : float or None, default=None
        Standard deviation of the noise on the count, in records; None takes a twentieth of the
        expected batch size.

    Notes
    -----
    The bound starts at the plan's ``max_grad_norm``. Make the plan with :meth:`plan`: one record
    changes the count by 1/2, so that a step that releases gradient and count costs what one
    Gaussian of multiplier z costs if the gradient's own multiplier is
    ``(z^-2 - (2 count_noise)^-2)^(-1/2)``.

    References
    ----------
    Andrew, Thakkar, McMahan, Ramaswamy, 2021, arXiv:1905.03871.

    Examples
    --------
    >>> draft = TrainingPlan(1_000, 200, 50, 1.0, None)
    >>> plan = AdaptiveClipping().plan(draft, 1.0)
    >>> round(plan.noise_multiplier, 5), plan.statistic.noise_multiplier
    (1.00125, 20.0)
    """

    target_quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        check.confidence(target_quantile=self.target_quantile)
        check.positive(learning_rate=self.learning_rate)
        if self.count_noise is not None:
            check.positive(count_noise=self.count_noise)

    def count_multiplier(self, plan: TrainingPlan) -> float:
        """Return the count's noise in units of one record's largest influence, 1/2."""
        noise = self.count_noise
        return 2.0 * (plan.expected_batch_size / 20.0 if noise is None else noise)

    def plan(self, plan: TrainingPlan, effective: float | None) -> TrainingPlan:
        """Return the plan whose steps cost what one Gaussian of this multiplier costs.

        Parameters
        ----------
        plan : TrainingPlan
            Its noise is replaced.
        effective : float or None
            Noise multiplier of gradient and count together; None is a run without privacy.

        Raises
        ------
        AccountingAssumptionError
            If the count alone would cost more than that.
        """
        if effective is None:
            return replace(plan, noise_multiplier=None, statistic=None)
        z = check.positive(effective=effective)
        count = self.count_multiplier(plan)
        if count <= z:
            raise AccountingAssumptionError(
                f"2 * count_noise must be above the noise multiplier {z:.6g}, got {count:.6g}: "
                "counting the clipped gradients would alone cost more than the step. Use a larger "
                "batch or a larger count_noise."
            )
        return replace(
            plan,
            noise_multiplier=(z**-2 - count**-2) ** -0.5,
            statistic=StatisticPlan(count),
        )

    def rule(self, module: nn.Module, bound: float) -> ClipRule:
        """Return the rule, whose bound moves with what is released."""
        return _Adaptive(bound, self.target_quantile, self.learning_rate)


@dataclass(frozen=True)
class _Automatic:
    bound: float
    gamma: float
    groups: tuple[int, ...] | None = None

    def factors(self, norms: Tensor, guard: float) -> Tensor:
        return finite_or_zero(self.bound / (norms + self.gamma) * (1.0 - guard), norms)


@dataclass(frozen=True, eq=False)
class _Grouped:
    bound: float
    groups: tuple[int, ...]
    bounds: Tensor

    def factors(self, norms: Tensor, guard: float) -> Tensor:
        bounds = self.bounds.to(norms.device)
        return finite_or_zero(bounds / torch.maximum(norms, bounds) * (1.0 - guard), norms)


@dataclass(eq=False)
class _Adaptive:
    """Clips to ``current`` and scales to ``bound``: one noise mechanism fits all steps.

    A gradient g becomes ``(bound / current) * clip(g, current)``, of norm at most ``bound``
    whatever ``current`` is. The noisy sum is scaled back by ``current / bound``, which is
    post-processing.
    """

    bound: float
    target: float
    rate: float
    groups: tuple[int, ...] | None = None
    current: float = field(init=False)

    def __post_init__(self) -> None:
        self.current = self.bound

    @property
    def scale(self) -> float:
        """By what the noisy sum is multiplied."""
        return self.current / self.bound

    def factors(self, norms: Tensor, guard: float) -> Tensor:
        return finite_or_zero(self.bound / norms.clamp(min=self.current) * (1.0 - guard), norms)

    def statistic(self, noise_multiplier: float) -> BatchStatistic:
        return BatchStatistic(self.count, 0.5, noise_multiplier, absorb=self.absorb)

    def count(self, batch: BatchView) -> Tensor:
        return (batch.norms <= self.current).double()[:, None] - 0.5

    def absorb(self, released: Tensor) -> None:
        share = min(1.0, max(0.0, float(released[0]) + 0.5))
        moved = self.current * math.exp(-self.rate * (share - self.target))
        self.current = min(max(moved, self.bound / _RANGE), self.bound * _RANGE)


_BY_NAME: dict[str, Any] = {
    "flat": FlatClipping,
    "automatic": AutomaticClipping,
    "per_layer": PerLayerClipping,
    "adaptive": AdaptiveClipping,
}


CLIPPINGS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        FlatClipping, AutomaticClipping, GroupClipping, PerLayerClipping, AdaptiveClipping
    )
}  # fmt: skip
"""The classes by their names, for files."""


def make_clipping(clipping: str | Clipping) -> Clipping:
    """Return a way of clipping by its name, or as it is.

    Parameters
    ----------
    clipping : {"flat", "automatic", "per_layer", "adaptive"} or Clipping
        A name takes the defaults of its class.

    Raises
    ------
    InvalidParameterError
        A name that is not in the list.
    InvalidTypeError
        Neither a name nor a way of clipping.

    Examples
    --------
    >>> make_clipping("automatic")
    AutomaticClipping(gamma=0.01)
    """
    if isinstance(clipping, str):
        made: Clipping = _BY_NAME[check.one_of(_BY_NAME, clipping=clipping)]()
        return made
    if not hasattr(clipping, "rule"):
        raise InvalidTypeError(
            f"clipping must be one of {', '.join(map(repr, _BY_NAME))} or an object such as "
            f"GroupClipping(...), got {type(clipping).__name__}."
        )
    return clipping


def check_rule(rule: Any, bound: float) -> None:
    """Refuse a rule whose bound is not the one that the noise is made for."""
    own = rule if isinstance(rule, int | float) else getattr(rule, "bound", None)
    if isinstance(own, bool) or not isinstance(own, int | float) or own != bound:
        raise AccountingAssumptionError(
            f"clipping gives a rule with the bound {own!r}; noise and accounting are those of the "
            f"plan's max_grad_norm = {bound!r}. A rule must keep to the bound that it is given."
        )


def _named(parameter: str, names: Sequence[str]) -> bool:
    return any(parameter == name or parameter.startswith(f"{name}.") for name in names)
