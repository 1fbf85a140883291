"""What releasing or training on a series costs a row or a user, and how much noise that takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from privfair.core.exceptions import InvalidParameterError
from privfair.training import TrainingPlan

__all__ = ["gaussian_epsilon", "input_event", "least_noise", "group_cost", "plan_gradients"]

_PRECISION = 3e-3


def least_noise(price: Callable[[float], float], epsilon: float, start: float) -> float:
    """Return nearly the least noise of which the price, falling in it, is at most epsilon."""
    low, high = start, start
    for _ in range(60):
        if price(high) <= epsilon:
            break
        low, high = high, 2 * high
    else:
        raise InvalidParameterError(
            f"no noise was found at which the guarantee is epsilon = {epsilon:g}. Use a larger "
            "epsilon or delta, fewer epochs, or fewer rows per user."
        )
    while low == high or price(low) <= epsilon:
        low, high = low / 2, low
    while high / low > 1 + _PRECISION:
        middle = math.sqrt(low * high)
        if price(middle) <= epsilon:
            high = middle
        else:
            low = middle
    return high


def input_event(sigma: float, sensitivity: float, intervals: int) -> Any:
    """Return the event of noisy counts: a user moves ``intervals`` rows by the sensitivity."""
    from privfair.accounting.events import DiscreteGaussian, SelfComposed

    return SelfComposed(DiscreteGaussian(sigma / sensitivity), intervals)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a continuous Gaussian mechanism with this mu, for comparison."""
    from privfair.accounting import guarantee
    from privfair.accounting.events import Gaussian

    return float(guarantee(Gaussian(1 / mu), delta=delta).epsilon)


def group_cost(plan: TrainingPlan, windows: int, delta: float, *, changed: bool) -> float:
    """Return the epsilon of a run for whoever is in ``windows`` windows.

    If the windows are only ``changed``, not lost, they are taken out and put in again: two
    steps, of which the second's delta is multiplied by the first's e^epsilon.
    """
    from privfair.accounting import group_event, guarantee

    event = group_event(plan.event(), windows)
    unit = "record" if windows == 1 else "user"

    def once(at: float) -> float:
        return float(guarantee(event, delta=at, unit=unit).epsilon)

    if not changed:
        return once(delta)
    part = delta / 2
    for _ in range(8):  # delta_1 (1 + e^eps(delta_1)) <= delta, delta_1 falling to a fixed point
        epsilon = once(part)
        if part * (1 + math.exp(min(epsilon, 700.0))) <= delta:
            return 2 * epsilon
        part = delta / (1 + math.exp(min(epsilon * 1.02, 700.0)))
        if part < 1e-300:
            return math.inf
    return math.inf


def plan_gradients(
    plan: TrainingPlan, windows: int, epsilon: float, delta: float, *, changed: bool
) -> TrainingPlan:
    """Return the plan with nearly the least noise multiplier that keeps the guarantee."""

    def price(sigma: float) -> float:
        return group_cost(replace(plan, noise_multiplier=sigma), windows, delta, changed=changed)

    return replace(plan, noise_multiplier=least_noise(price, epsilon, 1.0))
