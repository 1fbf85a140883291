"""The engine's one hook: a per-record statistic released from the batch of the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.training._plan import StatisticPlan, TrainingPlan

__all__ = ["BatchStatistic", "BatchView", "check_statistic", "own_statistic"]


@dataclass(frozen=True)
class BatchView:
    """One batch as a statistic sees it; everything in it is private.

    Attributes
    ----------
    scores : Tensor, shape (batch,) or (batch, n_outputs)
        Scores in [0, 1] where the loss has them, otherwise the model's outputs.
    y : Tensor, shape (batch,)
    sensitive : Tensor or None, shape (batch,) or (batch, n_sensitive)
    norms : Tensor, shape (batch,)
        Gradient norms before clipping.
    """

    scores: Tensor
    y: Tensor
    sensitive: Any
    norms: Tensor


@dataclass(frozen=True)
class BatchStatistic:
    """A per-record statistic whose noisy batch sum is released beside the gradient.

    The one hook of the engine: fairness penalties, adaptive clipping and controllers that sense
    the run all go through it, and pay on the same batch.

    Parameters
    ----------
    features : callable
        Maps a :class:`BatchView` to a tensor of shape (batch, n_features). Row i must depend on
        record i and on released quantities only.
    bound : float
        L2 bound on one row; the engine enforces it by scaling longer rows.
    noise_multiplier : float
        Noise standard deviation in units of ``bound``. Infinity means that the run is not
        private and the sum is released as it is.
    every : int, default=1
        Released at every ``every``-th step, from the first on.
    n_features : int, default=1
        Width of the statistic.
    absorb : callable or None
        Receives the released sum divided by the public batch constant.
    score_weights : callable or None
        Maps ``(scores, sensitive, y)`` to the weight of each record's score in its loss, from
        released quantities only.
    """

    features: Callable[[BatchView], Tensor]
    bound: float
    noise_multiplier: float
    every: int = 1
    n_features: int = 1
    absorb: Callable[[Tensor], None] | None = None
    score_weights: Callable[[Any, Any, Tensor], Tensor] | None = None


def own_statistic(
    rule: Any, plan: TrainingPlan, statistic: BatchStatistic | None
) -> BatchStatistic:
    """Return the statistic through which a clipping rule follows the gradients' norms."""
    if statistic is not None:
        raise InvalidParameterError(
            "adaptive clipping releases a statistic of its own, and a step releases only one: "
            "leave the other statistic (or penalty) out, or use another clipping."
        )
    if plan.statistic is None:
        raise AccountingAssumptionError(
            "adaptive clipping releases a count at each step, which the plan does not account "
            "for. Make the plan with AdaptiveClipping(...).plan(plan, noise_multiplier)."
        )
    made: BatchStatistic = rule.statistic(plan.statistic.noise_multiplier)
    return made


def check_statistic(plan: TrainingPlan, statistic: BatchStatistic | None) -> None:
    """Refuse a statistic that the plan does not account for, or the lack of one that it does."""
    declared = plan.statistic
    if not plan.private:
        return
    given = (
        None if statistic is None else StatisticPlan(statistic.noise_multiplier, statistic.every)
    )
    if given != declared:
        raise AccountingAssumptionError(
            f"the statistic given ({given}) is not the one that the plan accounts for "
            f"({declared}). Whatever is released from a batch must be in the plan."
        )
