"""The least noise and the most steps for plans that no closed calibration covers."""

from __future__ import annotations

import math

from privfair.cli.accountant._plan import Plan
from privfair.core.exceptions import ConvergenceError

__all__ = ["largest_steps", "smallest_noise"]

_MOST_NOISE = 1e7
_LEAST_NOISE = 0.05
_REACHED, _AIM = 0.9995, 0.9998  # of the target
_MOST_STEPS = 1 << 40


def _calibrated(plan: Plan) -> bool:
    """Whether the accounting's own calibration knows this kind of plan."""
    simple = plan.max_records == 1 or plan.sampling != "poisson" or plan.sample_rate == 1
    return plan.accountant == "best" and plan.sampling != "wor" and simple


def smallest_noise(plan: Plan, epsilon: float, steps: int) -> float:
    """Return the least noise multiplier found whose certified epsilon is within the target.

    Raises
    ------
    ConvergenceError
        No amount of noise meets the target.
    """
    if _calibrated(plan):
        from privfair.accounting import calibrate_noise_multiplier

        assert plan.delta is not None
        shuffled = plan.sampling == "shuffle"
        sigma: float = calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=plan.delta,
            sample_rate=1.0 if shuffled else plan.sample_rate,
            steps=plan.epochs(steps) if shuffled else steps,
            neighboring=plan.neighboring,
        )
        return plan.max_records * sigma

    def price(sigma: float) -> float:
        return plan.price(sigma, steps).epsilon

    high, low = 1.0, 0.0
    at_high, at_low = price(high), math.inf
    while at_high > epsilon:
        low, at_low, high = high, at_high, 2 * high
        if high > _MOST_NOISE:
            raise ConvergenceError(
                f"no noise multiplier up to {_MOST_NOISE:g} gives epsilon <= {epsilon:g} with "
                f"accountant {plan.accountant} under {plan.neighboring}. Use another accountant, "
                "or raise epsilon."
            )
        at_high = price(high)
    while low == 0:
        if high < _LEAST_NOISE:  # sampling alone gives the privacy asked for
            return high
        found = price(high / 2)
        if found > epsilon:
            low, at_low = high / 2, found
        else:
            high, at_high = high / 2, found
    bisect = False
    while high / low > 1 + 2e-4 and at_high < _REACHED * epsilon:
        middle = math.sqrt(low * high)
        if not bisect and 0 < at_high < at_low < math.inf:  # epsilon is close to a power of it
            share = math.log(_AIM * epsilon / at_high) / math.log(at_low / at_high)
            middle = high * (low / high) ** min(max(share, 0.02), 0.98)
        bisect = not bisect
        found = price(middle)
        if found > epsilon:
            low, at_low = middle, found
        else:
            high, at_high = middle, found
    return high


def largest_steps(plan: Plan, epsilon: float, sigma: float) -> int:
    """Return the largest number of steps whose certified epsilon is within the target.

    Raises
    ------
    ConvergenceError
        Any number of steps fits.
    """
    if _calibrated(plan):
        from privfair.accounting import calibrate_steps

        assert plan.delta is not None
        shuffled = plan.sampling == "shuffle"
        count: int = calibrate_steps(
            epsilon=epsilon,
            delta=plan.delta,
            noise_multiplier=sigma / plan.max_records,
            sample_rate=1.0 if shuffled else plan.sample_rate,
            neighboring=plan.neighboring,
        )
        return count * plan.batches_per_epoch if shuffled else count

    stride = plan.batches_per_epoch if plan.sampling == "shuffle" else 1

    def fits(count: int) -> bool:
        return plan.price(sigma, count * stride).epsilon <= epsilon

    low, high = 0, 1
    while fits(high):
        low, high = high, 4 * high
        if high > _MOST_STEPS:
            raise ConvergenceError("more than 1e12 steps fit; the budget is no limit here.")
    while high - low > 1:
        middle = (low + high) // 2 if low < 16 else round(math.sqrt(low * high))
        middle = min(max(middle, low + 1), high - 1)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * stride
