"""What a reservation costs under each composition filter, and when a cap is passed.

A filter must stay valid when later events depend on earlier outputs. Sums of (epsilon, delta),
of zCDP rho, of mu squared and of Renyi divergences at one order fixed beforehand do; a privacy
loss distribution recomputed over adaptively chosen scales does not, and is not offered.

A failure probability has no rho, no mu and no Renyi divergence. The last three filters keep a
fixed part of the cap's delta for such charges, add them up there, and convert with the rest
(``docs/proofs/filters.md``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from privfair.accounting import _gaussian, _rdp
from privfair.accounting._plan import Plan
from privfair.accounting.accountant import AccountedProfile
from privfair.core import _validation as check
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
    UnsupportedEventError,
)
from privfair.core.privacy import Budget

__all__ = ["FILTERS", "RESERVE", "Filter", "Spent", "best_order", "filter_of", "header_of"]

FILTERS = ("basic", "zcdp", "gdp", "rdp")
UNCAPPED_DELTA = 1e-6
"""Delta at which an event without a pure epsilon is valued in a ledger without a cap."""
RESERVE = 0.1
"""Part of the cap's delta that a new zcdp, gdp or rdp ledger keeps for failure probabilities."""
_SLACK = 1e-9  # relative: 200 charges of 1/200 of a cap must fit despite rounding


@dataclass(frozen=True)
class Spent:
    """Sums over the charges of a ledger, in the units of its filter.

    Attributes
    ----------
    epsilon, delta : float
        Under ``basic`` what was charged. Else a charge has its failure probability in ``delta``,
        and a total the (epsilon, delta) that it amounts to.
    loss : float
        Sum of rho, mu squared or Renyi divergences.
    failed : float
        Of a total: the sum of the charges' failure probabilities.
    """

    epsilon: float = 0.0
    delta: float = 0.0
    loss: float = 0.0
    failed: float = 0.0


class Filter:
    """A stopping rule for adaptively chosen events.

    Parameters
    ----------
    kind : {"basic", "zcdp", "gdp", "rdp"}
        The rule.
    cap : Budget or None
        The most that may be spent.
    order : float or None
        Renyi order of ``rdp``; chosen to suit the cap when None.
    reserve : float
        Part of the cap's delta, in [0, 1), that pays for failure probabilities under ``zcdp``,
        ``gdp`` and ``rdp``; ``basic`` needs none.
    first : Budget or None
        The cap with which the ledger was made: it fixes the order at which totals of ``zcdp``
        and ``gdp`` are read. None: ``cap``.
    """

    def __init__(
        self,
        kind: str,
        cap: Budget | None,
        order: float | None = None,
        reserve: float = RESERVE,
        first: Budget | None = None,
    ) -> None:
        self.kind = check.one_of(FILTERS, filter=kind)
        self.cap = cap
        self.order: float | None = None
        if order is not None and kind != "rdp":
            raise InvalidParameterError("order is a parameter of filter='rdp' only.")
        if kind != "basic" and cap is not None and not 0 < cap.delta < 1:
            raise InvalidBudgetError(
                f"a cap for filter={kind!r} needs a delta in (0, 1), got {cap.delta}. Use "
                "filter='basic' for a pure budget."
            )
        self.reserve = 0.0 if kind == "basic" else reserve
        self._converted = UNCAPPED_DELTA if cap is None else cap.delta * (1 - self.reserve)
        if kind == "rdp":
            self.order = _order(order, cap, self._converted)
        self._read_at = self.order
        if kind in ("zcdp", "gdp"):
            self._read_at = _reading_order(kind, first or cap, self.reserve)
        self.limit = self._limit()

    def _limit(self) -> float:
        """The cap in the unit in which charges add up; infinite without a cap."""
        cap, delta = self.cap, self._converted
        if cap is None or math.isinf(cap.epsilon) or self.kind == "basic":
            return math.inf
        if self.kind == "gdp":
            return _gaussian.mu_for(cap.epsilon, delta) ** 2
        if self.kind == "zcdp":
            return _rho_cap(cap.epsilon, delta)
        assert self.order is not None
        a = self.order
        return cap.epsilon - math.log1p(-1 / a) + math.log(delta * a) / (a - 1)

    @property
    def reserved(self) -> float:
        """The delta that is kept for failure probabilities; infinite without a cap."""
        cap = self.cap
        if cap is None or math.isinf(cap.epsilon):
            return math.inf
        return cap.delta * self.reserve

    def value(self, profile: AccountedProfile, delta: float | None) -> Spent:
        """Return what an event costs; touches no data."""
        if self.kind == "basic":
            return self._basic(profile, delta)
        plan = profile.plan
        if plan.reasons:
            return Spent(math.inf, 0.0, math.inf)
        return Spent(delta=plan.revealed, loss=self._loss(plan))

    def _loss(self, plan: Plan) -> float:
        """The part of a charge that is no failure probability."""
        if self.kind == "gdp":
            if any(eps for eps, _ in plan.approx) or not _without_failures(plan).only_gaussian:
                raise UnsupportedEventError(
                    "a filter of kind 'gdp' (a ledger with filter='gdp') takes unsubsampled "
                    "Gaussian events only, and failure probabilities ApproxDP(0, delta). Use "
                    "'basic', which takes every event."
                )
            return plan.mu2
        if self.kind == "zcdp":
            rho, xi = plan.total_rho()
            if math.isinf(rho) or xi:
                raise UnsupportedEventError(
                    "a filter of kind 'zcdp' (a ledger with filter='zcdp') takes events with a "
                    "bound rho: not Poisson-sampled Gaussians, and not zCDP with xi above 0. Use "
                    "'rdp', or 'basic', which takes every event."
                )
            return rho
        return float(_rdp.curve(plan, np.array([self.order]), exact=True)[0])

    def _basic(self, profile: AccountedProfile, delta: float | None) -> Spent:
        if profile.plan.reasons:
            return Spent(math.inf, 0.0)
        if delta is not None:
            delta = check.delta(delta=delta, allow_zero=True)
            return Spent(profile.epsilon(delta), delta)
        pure, lost = profile.plan.pure_epsilon(), profile.plan.revealed
        cap = self.cap
        if cap is None or math.isinf(cap.epsilon) or cap.epsilon == 0 or cap.delta == 0:
            if math.isfinite(pure):
                return Spent(pure, lost)
            if cap is not None and cap.delta == 0:
                return Spent(math.inf, 0.0)  # nothing without a pure epsilon fits a pure cap
            at = max(UNCAPPED_DELTA, 2 * lost)
            return Spent(profile.epsilon(at), at)
        if math.isfinite(pure) and lost == 0:
            return Spent(pure, 0.0)
        return self._balanced(profile, cap)

    @staticmethod
    def _balanced(profile: AccountedProfile, cap: Budget) -> Spent:
        """Value the event at the delta at which it takes the same share of both budgets."""

        def excess(log_share: float) -> float:
            share = math.exp(log_share)
            return profile.epsilon(share * cap.delta) / (share * cap.epsilon) - 1

        low = max(
            math.log(1e-6),
            math.log(1.0001 * profile.plan.revealed / cap.delta)
            if profile.plan.revealed
            else -math.inf,
        )
        if low >= 0 or excess(0.0) >= 0:
            return Spent(profile.epsilon(cap.delta), cap.delta)
        if excess(low) <= 0:
            share = math.exp(low)
        else:
            share = math.exp(float(brentq(excess, low, 0.0, xtol=1e-3)))
        return Spent(profile.epsilon(share * cap.delta), share * cap.delta)

    def total(self, charges: Iterable[Spent]) -> Spent:
        """Return the sum of charges, with epsilon and delta where the filter has them."""
        listed = list(charges)
        loss = math.fsum(charge.loss for charge in listed)
        if self.kind == "basic":
            return Spent(
                math.fsum(charge.epsilon for charge in listed),
                math.fsum(charge.delta for charge in listed),
            )
        failed = math.fsum(charge.delta for charge in listed)
        epsilon = self._reading(loss)
        if self.cap is None or math.isinf(self.cap.epsilon):
            return Spent(epsilon, (self._converted if loss else 0.0) + failed, loss, failed)
        # What was spent of the reserve may depend on outputs; the whole of it is a constant.
        return Spent(epsilon, self.cap.delta if loss or failed else 0.0, loss, failed)

    def _epsilon(self, loss: float, delta: float) -> float:
        if loss == 0:
            return 0.0
        if self.kind == "gdp":
            return _gaussian.epsilon(math.sqrt(loss), delta)
        if self.kind == "zcdp":
            return _rdp.zcdp_epsilon(loss, 0.0, delta)[0]
        assert self.order is not None
        return _rdp.convert(np.array([self.order]), np.array([loss]), delta)[0]

    def _reading(self, loss: float) -> float:
        """Return the epsilon of what was charged, at whatever time one looks.

        The order is fixed beforehand, as of an odometer: at the order that suits what happened
        to be charged, the number would hold for charges fixed beforehand only. What the filter
        promises holds for every path, so that no more than that need be stated.
        """
        if loss == 0:
            return 0.0
        order = self._read_at
        assert order is not None
        r = loss * {"gdp": order / 2, "zcdp": order, "rdp": 1.0}[self.kind]
        found = _rdp.convert(np.array([order]), np.array([r]), self._converted)[0]
        if self.cap is not None and loss <= self.limit * (1 + _SLACK):
            return min(found, self.cap.epsilon)
        return found

    def check(self, spent: Spent, charge: Spent) -> None:
        """Raise ``BudgetExceededError`` when the charge would pass the cap."""
        cap = self.cap
        if cap is None:
            return
        if self.kind == "basic":
            fits = spent.epsilon + charge.epsilon <= cap.epsilon * (1 + _SLACK) and (
                spent.delta + charge.delta <= cap.delta * (1 + _SLACK)
            )
        else:
            fits = spent.loss + charge.loss <= self.limit * (1 + _SLACK) and (
                spent.failed + charge.delta <= self.reserved * (1 + _SLACK)
            )
        if not fits:
            left = self.remaining(spent)
            asked = (
                f"epsilon = {charge.epsilon:.4g}, delta = {charge.delta:.3g}"
                if self.kind == "basic"
                else f"{self.kind} loss {charge.loss:.4g} with {self.limit - spent.loss:.4g} left"
                f" and delta {charge.delta:.3g} with {self.reserved - spent.failed:.3g} left"
                " for failure probabilities"
            )
            raise BudgetExceededError(
                f"this release needs {asked}, and the ledger has epsilon = {left.epsilon:.4g}, "
                f"delta = {left.delta:.3g} left. Nothing was released and nothing was spent. "
                "Add noise, ask for less, or use data that nothing was released about.",
                remaining=left,
            )

    def remaining(self, spent: Spent) -> Budget:
        """Return what is left under the cap."""
        cap = self.cap
        if cap is None:
            return Budget(math.inf, 0.0)
        if self.kind == "basic":
            return Budget(max(0.0, cap.epsilon - spent.epsilon), max(0.0, cap.delta - spent.delta))
        left = max(0.0, self.limit - spent.loss)
        return Budget(self._epsilon(left, self._converted), cap.delta)


def _without_failures(plan: Plan) -> Plan:
    return replace(plan, approx=Counter())


def _order(order: float | None, cap: Budget | None, delta: float) -> float:
    if order is not None:
        value = check.positive(order=order)
        if value <= 1:
            raise InvalidParameterError(f"order must be above 1, got {value}.")
        return value
    return best_order(cap, delta)


def best_order(cap: Budget | None, delta: float) -> float:
    """Return the order that suits a cap whose delta left for conversion is ``delta``."""
    if cap is None or math.isinf(cap.epsilon):
        return 16.0
    # The order at which a Gaussian-like charge (r proportional to the order) fits most often.
    orders = 1 + np.geomspace(0.05, 1e4, 4000)
    room = cap.epsilon - np.log1p(-1 / orders) + np.log(delta * orders) / (orders - 1)
    return float(round(orders[int(np.argmax(room / orders))], 3))


def _reading_order(kind: str, cap: Budget | None, reserve: float) -> float:
    """Return the order at which the loss that a cap allows converts best."""
    if cap is None or math.isinf(cap.epsilon) or cap.epsilon == 0:
        return 16.0
    delta = cap.delta * (1 - reserve)
    if kind == "gdp":
        rho = _gaussian.mu_for(cap.epsilon, delta) ** 2 / 2
    else:
        rho = _rho_cap(cap.epsilon, delta)
    return max(_rdp.zcdp_epsilon(rho, 0.0, delta)[1], 1.0 + 1e-6) if rho > 0 else 16.0


def _rho_cap(epsilon: float, delta: float) -> float:
    """Return the largest rho whose conversion at ``delta`` gives ``epsilon``."""
    low, high = 0.0, 1.0
    while _rdp.zcdp_epsilon(high, 0.0, delta)[0] < epsilon:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if _rdp.zcdp_epsilon(middle, 0.0, delta)[0] <= epsilon:
            low = middle
        else:
            high = middle
    return low


def header_of(filter_: Filter) -> dict[str, Any]:
    """Return the filter as it is written to a ledger's first row."""
    return {"filter": filter_.kind, "order": filter_.order, "reserve": filter_.reserve}


def filter_of(header: dict[str, Any], cap: Budget | None) -> Filter:
    """Return the filter that a ledger's first row describes.

    A ledger made before there was a reserve keeps none: it never charged a failure probability.
    """
    order = header["order"] if header["filter"] == "rdp" else None
    made = header.get("cap")
    first = None if made is None else Budget(float(made["epsilon"]), float(made["delta"]))
    return Filter(header["filter"], cap, order, float(header.get("reserve", 0.0)), first)
