"""What was charged along a path of adaptively chosen events: sums, and their JSON form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from privfair.accounting import _rdp
from privfair.accounting import events as ev
from privfair.accounting._filters import Filter, best_order
from privfair.accounting._plan import as_events, check_unit
from privfair.accounting.accountant import AccountedProfile
from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, SchemaVersionError
from privfair.core.privacy import Budget

__all__ = ["FORMAT", "Path", "checked_settings", "chosen_orders", "reading"]

FORMAT = 1
"""Version of the JSON form of filters and odometers."""
_KEPT = 64  # values of events that are kept

Value = tuple[tuple[float, ...], float, tuple[ev.AccountedEvent, ...]]


class Path:
    """Sums over charges, in as many units as there are rules.

    Parameters
    ----------
    units : int
        Number of rules.

    Attributes
    ----------
    runs : list
        ``[events, count]``: what was charged, repetitions counted.
    losses : tuple of float
        Sums, one for each rule.
    failed : float
        Sum of failure probabilities.
    assumptions : tuple of str
        What the values rest on.
    """

    def __init__(self, units: int) -> None:
        self.runs: list[list[Any]] = []
        self.losses: tuple[float, ...] = (0.0,) * units
        self.failed = 0.0
        self.assumptions: tuple[str, ...] = ()
        # The sum is that of complete runs plus count times the last one's value: repeated
        # addition would round at every step, and a replay would round elsewhere.
        self._before: tuple[float, ...] = (0.0,) * units
        self._failed_before = 0.0
        self._known: dict[Any, tuple[tuple[float, ...], float, tuple[str, ...]]] = {}

    def value(self, event: Any, neighboring: str, unit: str, rules: Sequence[Filter]) -> Value:
        """Return what events cost under each rule, how likely they fail, and the events."""
        events = as_events(event)
        if events not in self._known:
            check_unit(events, unit)
            profile = AccountedProfile(events, neighboring)
            spent = [rule.value(profile, None) for rule in rules]
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[events] = (
                tuple(charge.loss for charge in spent),
                profile.plan.revealed,
                profile.plan.assumptions,
            )
        losses, failed, _ = self._known[events]
        return losses, failed, events

    def add(
        self,
        events: tuple[ev.AccountedEvent, ...],
        value: tuple[float, ...],
        failed: float,
        count: int = 1,
    ) -> None:
        """Add a charge, ``count`` times."""
        if self.runs and self.runs[-1][0] == events:
            self.runs[-1][1] += count
        else:
            self._before, self._failed_before = self.losses, self.failed
            self.runs.append([events, count])
        times = self.runs[-1][1]
        self.losses = tuple(b + times * v for b, v in zip(self._before, value, strict=True))
        self.failed = self._failed_before + times * failed
        for sentence in self._known[events][2]:
            if sentence not in self.assumptions:
                self.assumptions += (sentence,)

    def events(self) -> tuple[ev.AccountedEvent, ...]:
        """Return what was charged as events."""
        out = []
        for events, count in self.runs:
            one = events[0] if len(events) == 1 else ev.Composed(events)
            out.append(one if count == 1 else ev.SelfComposed(one, count))
        return tuple(out)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the charges as strict JSON data."""
        return [
            {"events": [event.to_dict() for event in events], "count": count}
            for events, count in self.runs
        ]

    def replay(self, charges: Any, value: Callable[[Any], Value]) -> None:
        """Add the charges that :meth:`to_list` wrote."""
        if not isinstance(charges, list):
            raise InvalidTypeError("charges must be a list.")
        for charge in charges:
            if not isinstance(charge, dict) or set(charge) != {"events", "count"}:
                raise InvalidParameterError("a charge has the keys 'events' and 'count'.")
            count = check.positive_int(count=charge["count"])
            losses, failed, events = value([ev.event_from_dict(one) for one in charge["events"]])
            self.add(events, losses, failed, count)


def checked_settings(data: Any, kind: str) -> tuple[dict[str, Any], Any]:
    """Return settings and charges of a stored filter or odometer."""
    if not isinstance(data, dict) or not isinstance(data.get("settings"), dict):
        raise InvalidTypeError(f"the state of a {kind} is a JSON object with 'settings'.")
    if data.get("kind") != kind:
        raise InvalidParameterError(f"this is the state of a {data.get('kind')!r}, not a {kind}.")
    version = check.positive_int(schema=data.get("schema"))
    if version > FORMAT:
        raise SchemaVersionError(
            f"this state has version {version}; this version of privfair reads up to {FORMAT}. "
            "Install a newer privfair."
        )
    return dict(data["settings"]), data.get("charges")


def reading(
    orders: Sequence[float], losses: Sequence[float], delta: float, *, simultaneous: bool = False
) -> float:
    """Return epsilon at ``delta`` of sums of Renyi divergences at orders fixed beforehand."""
    each = delta / len(orders)
    if simultaneous:
        return min(r - math.log(each) / (a - 1) for a, r in zip(orders, losses, strict=True))
    return min(
        _rdp.convert(np.array([a]), np.array([r]), each)[0]
        for a, r in zip(orders, losses, strict=True)
    )


def chosen_orders(order: Any, planned: Any, neighboring: str, cap: Budget) -> tuple[float, ...]:
    """Return the orders asked for, or the one that suits what is planned."""
    if order is None and planned is not None:
        return (_planned_order(planned, cap.delta, neighboring),)
    if order is None:
        return (best_order(cap, cap.delta),)
    if isinstance(order, str | bytes):
        raise InvalidTypeError("order must be a number above 1, or several of them.")
    listed = tuple(order) if isinstance(order, Sequence | np.ndarray) else (order,)
    found = tuple(sorted({check.positive(order=item) for item in listed}))
    if not found or found[0] <= 1:
        raise InvalidParameterError(f"order must be above 1, got {order!r}.")
    return found


def _planned_order(planned: Any, delta: float, neighboring: str) -> float:
    """Return the order at which the plan's epsilon is smallest."""
    if (
        isinstance(planned, tuple)
        and len(planned) == 3
        and not any(isinstance(part, ev.AccountedEvent) for part in planned)
    ):
        q, sigma, count = planned
        planned = ev.SelfComposed(
            ev.PoissonSampled(q, ev.Gaussian(check.positive(noise_multiplier=sigma))),
            check.positive_int(steps=count),
        )
    plan = AccountedProfile(planned, neighboring).plan
    if plan.reasons:
        raise InvalidParameterError(
            f"planned has no privacy guarantee ({', '.join(plan.reasons)}), so that no order "
            "suits it."
        )
    grid = np.concatenate(
        [[1.05, 1.1, 1.15, 1.2], np.arange(1.25, 16, 0.25), np.arange(16.0, 65.0),
         np.geomspace(70, 4096, 40).round()]
    )  # fmt: skip
    if plan.sampled:
        grid = grid[grid <= 1024]
    return _rdp.convert(grid, _rdp.curve(plan, grid, exact=True), delta)[1]
