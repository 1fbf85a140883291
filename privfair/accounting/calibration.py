"""How much noise, or how many steps: the inverse of accounting, always on the safe side."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq

from privfair.accounting import _gaussian, _numeric, _plan, _rdp
from privfair.accounting import events as ev
from privfair.accounting.accountant import AccountedProfile
from privfair.core import _validation as check
from privfair.core.exceptions import ConvergenceError, InvalidBudgetError
from privfair.core.privacy import NEIGHBORING

__all__ = ["calibrate_noise_multiplier", "calibrate_steps"]

_ORDERS = np.geomspace(1.25, 256.0, 20)
_STEP_UP = 1.0003
_WASTE = 0.998  # of epsilon are reached at least
_LEAST_NOISE = 0.05
_MOST_STEPS = 1 << 40


def calibrate_noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    neighboring: str = "zero_out",
    extra_events: Any = (),
) -> float:
    """Return the noise multiplier that spends a budget on Poisson-sampled Gaussian steps.

    Parameters
    ----------
    epsilon : float
        Above 0; ``inf`` needs no noise and returns 0.
    delta : float
        In (0, 1).
    sample_rate : float
        Probability with which each unit enters a batch, in (0, 1].
    steps : int
        Number of steps, at least 0.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        The relation.
    extra_events : event or sequence of events, default=()
        Other charges against the same budget (private preprocessing, say), accounted jointly.

    Returns
    -------
    float
        Noise standard deviation in units of the clipping norm. ``guarantee`` of the resulting
        plan states at most ``epsilon``, and at least 0.998 of it.

    Raises
    ------
    InvalidBudgetError
        The extra events leave nothing.

    Notes
    -----
    Without sampling and with Gaussian extras the answer is closed-form (Balle, Wang 2018). Else
    a Renyi bound at 20 orders gives a safe upper end. Brent's method on ``log delta`` at the
    target epsilon follows, on a coarse grid from there and then on the grid that suits what was
    found, and the result is checked as ``guarantee`` would and raised by 0.03 % until it passes.
    Some fifteen compositions, some tenths of a second. Where sampling alone gives the privacy
    asked for, no noise is little enough, and 0.05 or a little less is returned.

    Examples
    --------
    >>> sigma = calibrate_noise_multiplier(
    ...     epsilon=1.0, delta=1e-5, sample_rate=1024 / 32561, steps=640)
    >>> round(sigma, 2)
    3.11
    """
    epsilon = check.epsilon(epsilon=epsilon, allow_inf=True)
    delta = check.delta(delta=delta)
    q = check.sample_rate(sample_rate=sample_rate)
    count = check.steps(steps=steps)
    check.one_of(NEIGHBORING, neighboring=neighboring)
    extras = _plan.as_events(extra_events) if extra_events else ()
    if math.isinf(epsilon) or count == 0:
        return 0.0
    fixed = _affordable(extras, epsilon, delta, neighboring)
    if q == 1.0 and fixed.plan.only_gaussian:
        return _closed_form(epsilon, delta, count, fixed.plan)
    return _Search(epsilon, delta, q, count, extras, neighboring).noise_multiplier()


def _affordable(extras: Any, epsilon: float, delta: float, neighboring: str) -> AccountedProfile:
    profile = AccountedProfile(extras, neighboring)
    alone = profile.epsilon(delta)
    if alone >= epsilon:
        raise InvalidBudgetError(
            f"the extra events alone cost epsilon = {alone:.4g} at delta = {delta:g}, and the "
            f"whole budget is epsilon = {epsilon:g}. Raise epsilon or make them cheaper."
        )
    return profile


def _closed_form(epsilon: float, delta: float, count: int, fixed: _plan.Plan) -> float:
    two = 2.0 if fixed.relation == "replace_one" else 1.0
    left = _gaussian.mu_for(epsilon, delta) ** 2 - fixed.mu2
    if left <= 0:
        raise InvalidBudgetError("the extra events leave nothing of the budget.")
    return two * math.sqrt(count / left)


class _Search:
    """Root search for one plan ``extras + (Gaussian on a Poisson sample) * steps``."""

    def __init__(
        self, epsilon: float, delta: float, q: float, count: int, extras: Any, neighboring: str
    ) -> None:
        self.epsilon, self.delta = epsilon, delta
        self.q, self.count = q, count
        self.extras, self.neighboring = extras, neighboring
        self.step: float | None = None  # None: a coarse one, for each noise anew
        self.excess = 0.0  # of the gap on that grid

    def plan(self, sigma: float) -> _plan.Plan:
        step = ev.PoissonSampled(self.q, ev.Gaussian(sigma))
        return _plan.read((*self.extras, ev.SelfComposed(step, self.count)), self.neighboring)

    def certified(self, sigma: float) -> float:
        """Epsilon exactly as ``guarantee`` would state it."""
        step = ev.SelfComposed(ev.PoissonSampled(self.q, ev.Gaussian(sigma)), self.count)
        return AccountedProfile((*self.extras, step), self.neighboring).epsilon(self.delta)

    def renyi(self, sigma: float) -> float:
        """Epsilon by Renyi divergences: valid, cheap, and never far below the truth."""
        if self.neighboring == "replace_one":  # twice the contribution, without a sampling bound
            wide = ev.SelfComposed(ev.PoissonSampled(self.q, ev.Gaussian(sigma / 2)), self.count)
            plan = _plan.read((wide,), "zero_out")
            plan.rho += _plan.read(self.extras, "replace_one").mu2 / 2
        else:
            plan = self.plan(sigma)
            if plan.without_renyi:  # of the extras: the answer is found without this bound
                return math.inf
        eps, order = _rdp.convert(_ORDERS, _rdp.curve(plan, _ORDERS), self.delta - plan.revealed)
        if eps > self.epsilon and order == _ORDERS[-1]:  # a small target needs larger orders
            eps = min(eps, _rdp.epsilon(plan, self.delta)[0])
        return eps

    def gap(self, sigma: float) -> float:
        """``log delta(epsilon) - log delta``: above 0 when the noise is too small."""
        plan = self.plan(sigma)
        step = self.step or _numeric.first_step(plan)
        found = min(
            _numeric.numeric(plan, step, ranged=ranged).delta(self.epsilon)
            for ranged in ((False, True) if plan.ranged else (False,))
        )
        return math.log(max(found, 1e-300)) - math.log(self.delta) - self.excess

    def noise_multiplier(self) -> float:
        sigma = self._renyi_root()
        if self.delta >= _numeric.MIN_DELTA:
            with contextlib.suppress(_numeric.GridTooFine):
                sigma = self._numeric_root(sigma)
        return self._safe(sigma)

    def _renyi_root(self) -> float:
        """The noise at which the Renyi bound meets the target: a valid upper end."""
        low, high = -1.0, 0.0
        while self.renyi(math.exp(high)) > self.epsilon:
            low, high = high, high + 0.7
            if high > 40:
                return self._guess_without_extras()
        while self.renyi(math.exp(low)) <= self.epsilon:
            low, high = low - 0.7, low
            if low < -9:
                return math.exp(high)
        while high - low > 2e-3:
            middle = (low + high) / 2
            if self.renyi(math.exp(middle)) > self.epsilon:
                low = middle
            else:
                high = middle
        return math.exp(high)

    def _guess_without_extras(self) -> float:
        """Renyi bounds of the extras alone may pass the target where their numeric curve fits."""
        left = self.epsilon - AccountedProfile(self.extras, self.neighboring).epsilon(self.delta)
        if not self.extras or left <= 1e-4 * self.epsilon:
            raise InvalidBudgetError(
                "no sensible amount of noise meets this budget: the extra events leave "
                f"epsilon = {max(left, 0.0):.3g} of {self.epsilon:g}. Raise epsilon or delta."
            )
        plain = _Search(left, self.delta, self.q, self.count, (), self.neighboring)
        return plain._renyi_root()

    def _numeric_root(self, renyi: float) -> float:
        """The noise at which the distribution's delta meets the target.

        A coarse grid leads from the Renyi answer to the neighbourhood, where the step that
        matters is chosen: the grid of a much larger noise may be far too fine there. From then
        on a grid four times as coarse is searched, corrected by what the two say at that point;
        the answer is checked on the fine one.
        """
        self.step, self.excess = None, 0.0
        near = self._root(renyi, 0.85, tolerance=1e-2)
        if near > renyi and self.renyi(renyi) <= self.epsilon:
            near = renyi
        found = _numeric.refined(self.plan(near), self.delta)
        if found is None:
            return near
        self.step = found.step
        exact = self.gap(near)
        self.step *= 4
        self.excess = self.gap(near) - exact
        # A little more, for the correction is not exact; less than is allowed to be wasted.
        return 1.00015 * self._root(near, 0.95, tolerance=2e-4)

    def _root(self, start: float, shrink: float, *, tolerance: float) -> float:
        low, high = start, start
        stride = 1.05
        while self.gap(high) > 0:
            low, high = high, stride * high
            stride **= 1.2
        while low == high or self.gap(low) <= 0:
            # Where sampling alone gives the privacy asked for, no noise is little enough.
            if low < _LEAST_NOISE:
                return high
            low, high = shrink * low, low
            shrink = min(shrink, 0.9)
        return float(brentq(self.gap, low, high, xtol=tolerance * start))

    def _safe(self, sigma: float) -> float:
        """Return a noise near ``sigma`` that is certified and wastes at most 0.2 % of epsilon."""
        little = enough = math.nan
        at, seen, slope = math.nan, math.nan, -2.0
        for _ in range(40):
            value = self.certified(sigma)
            if math.isinf(value):
                raise ConvergenceError(
                    f"no finite epsilon could be certified at delta = {self.delta:g} under "
                    f"{self.neighboring}. Use a delta of at least {_numeric.MIN_DELTA:g}."
                )
            if value <= self.epsilon:
                if value >= _WASTE * self.epsilon or sigma < 1.2 * _LEAST_NOISE:
                    return sigma
                enough = sigma
            else:
                little = sigma
            if enough / little < _STEP_UP:  # a jump of the grid's making lies between
                return enough
            if at != sigma and seen > 0:
                rise = math.log(value / seen) / math.log(sigma / at) if at > 0 else slope
                slope = min(-0.3, max(-30.0, rise))
            at, seen = sigma, value
            sigma = self._next(sigma, value, slope, little, enough)
        return self._up(enough if enough > 0 else sigma)

    def _next(
        self, sigma: float, value: float, slope: float, little: float, enough: float
    ) -> float:
        """Aim between 0.998 of the target and all of it, inside what is known to bracket it."""
        aim = math.log(self.epsilon * (1 + _WASTE) / 2 / value) / slope
        fresh = sigma * math.exp(min(max(aim, -0.05), 0.05))
        if value > self.epsilon:
            fresh = max(fresh, _STEP_UP * sigma)
        if enough > little and not little < fresh < enough:
            return math.sqrt(little * enough)
        return fresh

    def _up(self, sigma: float) -> float:
        while self.certified(sigma) > self.epsilon:
            sigma *= 1.01
        return sigma


def calibrate_steps(
    *,
    epsilon: float,
    delta: float,
    noise_multiplier: float,
    sample_rate: float,
    neighboring: str = "zero_out",
    extra_events: Any = (),
) -> int:
    """Return the largest number of steps that a budget allows.

    Parameters
    ----------
    epsilon : float
        Above 0 and finite.
    delta : float
        In (0, 1).
    noise_multiplier : float
        Above 0, in units of the clipping norm.
    sample_rate : float
        In (0, 1].
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        The relation.
    extra_events : event or sequence of events, default=()
        Other charges against the same budget, accounted jointly.

    Returns
    -------
    int
        The largest number whose guarantee states at most ``epsilon``; 0 when one step is too
        much.

    Examples
    --------
    >>> calibrate_steps(epsilon=1.0, delta=1e-5, noise_multiplier=52.76, sample_rate=1.0)
    200
    """
    epsilon = check.epsilon(epsilon=epsilon)
    delta = check.delta(delta=delta)
    q = check.sample_rate(sample_rate=sample_rate)
    sigma = check.positive(noise_multiplier=noise_multiplier)
    check.one_of(NEIGHBORING, neighboring=neighboring)
    extras = _plan.as_events(extra_events) if extra_events else ()
    _affordable(extras, epsilon, delta, neighboring)

    def spent(count: int) -> float:
        step = ev.SelfComposed(ev.PoissonSampled(q, ev.Gaussian(sigma)), count)
        return AccountedProfile((*extras, step), neighboring).epsilon(delta)

    return _largest(spent, epsilon)


def _largest(spent: Callable[[int], float], target: float) -> int:
    """Return a count that fits while one more does not, by few evaluations.

    Epsilon is close to a power of the count: interpolation in logarithms, between bounds that
    are moved at least as fast as by bisection every other time.
    """
    low, high = 0, 1
    value = {0: 0.0}
    while value.setdefault(high, spent(high)) <= target:
        if high > _MOST_STEPS:
            raise ConvergenceError("more than 1e12 steps fit; the budget is no limit here.")
        # The square root law of many small steps, from what is known so far; never less than
        # twice the count before.
        ratio = target / max(value[high], 1e-3 * target)
        low, high = high, max(2 * high, min(round(high * ratio), 64 * high))
    bisect = False
    while high - low > 1:
        middle = (low + high) // 2
        if not bisect and low > 0 and 0 < value[low] < value[high] < math.inf:
            share = math.log(target / value[low]) / math.log(value[high] / value[low])
            middle = round(low * (high / low) ** share)
        middle = min(max(middle, low + 1), high - 1)
        bisect = not bisect
        value[middle] = spent(middle)
        low, high = (middle, high) if value[middle] <= target else (low, middle)
    return low
