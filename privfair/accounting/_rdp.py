"""Renyi accounting: curves over orders, and what they say about (epsilon, delta)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from privfair.accounting import _select
from privfair.accounting._lattice import discrete_laplace_atoms, response_atoms
from privfair.accounting._plan import Plan, amplified
from privfair.core.exceptions import IncompatibleNeighboringError, UnsupportedEventError

__all__ = ["QUICK", "RenyiBound", "convert", "curve", "rest_curve", "sampled_gaussian"]

Floats = NDArray[np.float64]

QUICK: Floats = np.unique(
    np.concatenate(
        [
            1 + np.geomspace(0.01, 1.0, 40),
            np.linspace(2.0, 12.0, 61),
            np.arange(13.0, 65.0),
            np.geomspace(64, 512, 25).round(),
        ]
    )
)
"""Orders that suit most plans; :func:`convert` is told when the best order is at the end."""
_FAR: Floats = np.geomspace(512.0, 1e7, 120)
_WIDE: Floats = np.unique(np.concatenate([1 + np.geomspace(1e-3, 1e6, 700), QUICK]))


def sampled_gaussian(q: float, sigma: float, orders: Floats) -> Floats:
    """Renyi divergences of the Poisson-sampled Gaussian (add/remove).

    Exact at integer orders (Mironov, Talwar, Zhang 2019):
    ``(a - 1) r(a) = ln sum_k C(a, k) (1 - q)^(a-k) q^k e^(k(k-1) / (2 sigma^2))``. In between,
    ``(a - 1) r(a)`` is convex in ``a``, so that its chord is an upper bound.
    """
    return _chord(orders, lambda order: _log_moment(q, sigma, order))


def _chord(orders: Floats, log_moment: Callable[[int], float]) -> Floats:
    """Bound divergences between integer orders, where the logarithm of the moment is convex."""
    below = np.maximum(np.floor(orders), 1.0)
    above = np.ceil(orders)
    needed = np.unique(np.concatenate([below, above]))
    logs = {int(a): log_moment(int(a)) for a in needed}
    share = np.where(above > below, orders - below, 0.0)
    low = np.array([logs[int(a)] for a in below])
    high = np.array([logs[int(a)] for a in above])
    return np.asarray(((1 - share) * low + share * high) / (orders - 1))


@lru_cache(maxsize=4096)
def _log_moment(q: float, sigma: float, order: int) -> float:
    if order == 1:
        return 0.0
    k = np.arange(order + 1)
    log_binomial = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = log_binomial + (order - k) * math.log1p(-q) + k * math.log(q)
    # The divergence is at least 0; rounding must not make it negative.
    return max(0.0, float(logsumexp(terms + k * (k - 1) / (2 * sigma**2))))


def _exact_sampled_gaussian(q: float, sigma: float, orders: Floats) -> Floats:
    """As :func:`sampled_gaussian`, with dp_accounting's series at fractional orders."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(list(orders), dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of each order it leaves out; the chord stands in
    try:
        accountant.compose(
            dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
        )
    finally:
        log.setLevel(level)
    return np.asarray(np.minimum(accountant.rdp, sampled_gaussian(q, sigma, orders)))


def _laplace(eps: float, orders: Floats) -> Floats:
    """Renyi divergences of Laplace noise of scale 1/eps (Mironov 2017, table II)."""
    one = np.log(orders / (2 * orders - 1)) + (orders - 1) * eps
    two = np.log((orders - 1) / (2 * orders - 1)) - orders * eps
    return np.asarray(np.logaddexp(one, two) / (orders - 1))


def _atoms(p: Floats, step: float, orders: Floats) -> Floats:
    """Renyi divergences of masses at equally spaced losses, symmetric around 0."""
    losses = step * ((len(p) - 1) / 2 - np.arange(len(p)))
    with np.errstate(divide="ignore"):
        table = np.log(p)[None, :] + (orders - 1)[:, None] * losses[None, :]
    return np.asarray(np.maximum(logsumexp(table, axis=1), 0.0) / (orders - 1))


def _pure(eps: float, orders: Floats) -> Floats:
    """Renyi divergences of binary randomised response, which dominates all of eps-DP."""
    truth = -math.log1p(math.exp(-eps))
    value = np.logaddexp(truth + (orders - 1) * eps, truth - orders * eps)
    return np.asarray(np.minimum(np.maximum(value, 0.0) / (orders - 1), eps))


def rest_curve(plan: Plan, orders: Floats, *, ranged: bool) -> Floats:
    """Divergences of the events that have no dominating pair (zCDP, parallel parts)."""
    with np.errstate(over="ignore"):  # an order whose divergence is infinite is left out
        total = plan.rho * orders + plan.xi
    if ranged:
        total = total + _ranged(plan, orders)
    for parts, moved, count in plan.parallel:
        worst = np.max([curve(part, orders) for part in parts], axis=0)
        if moved is not None and len(moved) > 1:
            two = np.sort([curve(part, orders) for part in moved], axis=0)[-2:].sum(axis=0)
            worst = np.maximum(worst, two)
        total = total + count * worst
    for (batch, n, sigma), count in plan.batches.items():
        one = partial(_without_replacement, batch, n, sigma)
        total = total + count * _chord(orders, one)
    for run, mean, shape, count in plan.selected:
        total = total + count * _selected(run, mean, shape, orders)
    return np.asarray(total)


@lru_cache(maxsize=4096)
def _without_replacement(batch: int, n: int, sigma: float, order: int) -> float:
    """Log of a moment of a Gaussian on a batch of fixed size, dp_accounting's value.

    Wang, Balle, Kasiviswanathan 2019, theorem 27. ``sigma`` is relative to what a replaced unit
    changes, as the library's is for this event.
    """
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    if order == 1:
        return 0.0
    accountant = RdpAccountant([order], dp_accounting.NeighboringRelation.REPLACE_ONE)
    step = dp_accounting.GaussianDpEvent(sigma)
    accountant.compose(dp_accounting.SampledWithoutReplacementDpEvent(n, batch, step))
    return max(0.0, (order - 1) * float(accountant.rdp[0]))


def _selected(one: Plan, mean: float, shape: float, orders: Floats) -> Floats:
    """Divergences of the best of a random number of runs."""
    grid = QUICK if one.slow else _WIDE
    return _select.divergences(orders, curve(one, orders), grid, curve(one, grid), mean, shape)


def _ranged(plan: Plan, orders: Floats) -> Floats:
    total = np.zeros_like(orders)
    for (eps, width), count in plan.ranged.items():
        total = total + count * np.minimum(width * width / 8 * orders, _pure(eps, orders))
    return total


def curve(plan: Plan, orders: Floats, *, exact: bool = False) -> Floats:
    """Return an upper bound on the Renyi divergences of the whole plan at ``orders``.

    The failure probabilities of (eps, delta) events are not in it: subtract ``plan.revealed``
    from delta.
    """
    if plan.sampled and plan.relation == "replace_one":
        raise IncompatibleNeighboringError(
            "event PoissonSampled(Gaussian) has no Renyi bound under replace_one; use "
            "accountant='pld' or 'best', or the relation zero_out (same noise, n public)."
        )
    if kind := plan.without_renyi:
        raise UnsupportedEventError(
            f"event {kind} has no Renyi bound here, which this accountant or filter needs; use "
            "accountant='pld' or 'best' for a plan fixed beforehand."
        )
    total = rest_curve(plan, orders, ranged=True) + plan.mu2 / 2 * orders
    for (q, sigma), count in plan.sampled.items():
        one = _exact_sampled_gaussian if exact else sampled_gaussian
        total = total + count * one(q, sigma, orders)
    for (q, b), count in plan.laplace.items():
        eps = 1 / b
        total = total + count * (
            _laplace(eps, orders) if q == 1 else _pure(amplified(eps, q), orders)
        )
    for (a, s), count in plan.discrete_laplace.items():
        total = total + count * _atoms(*discrete_laplace_atoms(a, s), orders)
    for (eps, k), count in plan.responses.items():
        if k == 2:
            total = total + count * _pure(eps, orders)
        else:
            total = total + count * _atoms(*response_atoms(eps, k), orders)
    for (eps, _), count in plan.approx.items():
        total = total + count * _pure(eps, orders)
    return np.asarray(total)


def convert(orders: Floats, r: Floats, delta: float) -> tuple[float, float]:
    """Return the smallest epsilon at ``delta`` and its order.

    Canonne, Kamath, Steinke 2020, proposition 12; an order that is not above 1, or whose value is
    not a number or is negative, is left out, never taken for free.
    """
    if delta <= 0:
        return (0.0 if np.all(r == 0) else math.inf), math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        eps = r + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    eps = np.where(np.isfinite(r) & (r >= 0) & (orders > 1), eps, math.inf)
    best = int(np.argmin(eps))
    return max(0.0, float(eps[best])), float(orders[best])


def epsilon(plan: Plan, delta: float, *, exact: bool = False) -> tuple[float, float]:
    """Return the Renyi bound on epsilon and its order, with more orders where they help."""
    left = delta - plan.revealed
    orders = QUICK
    eps, order = convert(orders, curve(plan, orders, exact=exact), left)
    if order == orders[-1] and not (plan.batches or plan.selected):
        if plan.sampled:  # exact integer orders cost as much as the order
            far = np.geomspace(600, 16384, 12).round()
        else:
            far = _FAR
        eps_far, order_far = convert(far, curve(plan, far), left)
        if eps_far < eps:
            eps, order = eps_far, order_far
    return eps, order


def zcdp_epsilon(rho: float, xi: float, delta: float) -> tuple[float, float]:
    """Return epsilon at ``delta`` of (xi, rho)-zCDP over all orders, and the best order."""
    if rho == 0 and xi == 0:
        return 0.0, math.nan
    if delta <= 0 or math.isinf(rho):
        return math.inf, math.nan
    centre = 1 + math.sqrt(math.log(1 / delta) / rho) if rho > 0 else 1e6
    # A rho so large that the best order is 1 to the last digit is priced at the next orders.
    orders = 1 + max(centre - 1, 1e-12) * np.geomspace(0.05, 20.0, 2001)
    return convert(orders, xi + rho * orders, delta)


class RenyiBound:
    """``delta(eps)`` from Renyi divergences, at any real epsilon and for whole arrays.

    For a negative epsilon the divergence of the other order of the pair gives
    ``delta(x) = 1 - e^x + e^x delta'(-x)``.
    """

    def __init__(self, orders: Floats, r: Floats) -> None:
        good = np.isfinite(r) & (r >= 0)
        self._a = orders[good] - 1
        self._c = self._a * (r[good] + np.log1p(-1 / orders[good])) - np.log(orders[good])
        self._grid = np.concatenate([[0.0], np.geomspace(1e-6, 700.0, 2000)])
        table = self._c[None, :] - self._a[None, :] * self._grid[:, None]
        self._best = np.argmin(table, axis=1)

    def _positive(self, x: Floats) -> Floats:
        # Any order is valid at any x: the one that is best at the grid point below is used.
        at = np.maximum(np.searchsorted(self._grid, x, side="right") - 1, 0)
        best = self._best[at]
        return np.asarray(np.exp(np.minimum(self._c[best] - self._a[best] * x, 0.0)))

    def __call__(self, epsilon: Floats) -> Floats:
        """Return the bound at each epsilon."""
        x = np.asarray(epsilon, dtype=np.float64)
        size = np.abs(x)
        right = self._positive(size)
        decay = np.exp(-size)
        return np.asarray(np.where(x >= 0, right, np.minimum(1.0, 1 - decay + decay * right)))


def rest_bound(plan: Plan, *, ranged: bool) -> Any:
    """Return the bound on what has no loss, or None when there is nothing of the kind."""
    known = plan.rho or plan.xi or plan.parallel or plan.batches or plan.selected
    if not (known or (ranged and plan.ranged)):
        return None
    slow = replace(plan, sampled=Counter()).slow
    orders = QUICK if slow else _WIDE
    return RenyiBound(orders, rest_curve(plan, orders, ranged=ranged))
