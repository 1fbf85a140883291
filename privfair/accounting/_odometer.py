"""A running (epsilon, delta) along a path of adaptively chosen events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from privfair.accounting import events as ev
from privfair.accounting._filters import Filter
from privfair.accounting._path import FORMAT, Path, checked_settings, chosen_orders, reading
from privfair.core import _validation as check
from privfair.core.exceptions import AccountingAssumptionError
from privfair.core.privacy import NEIGHBORING, UNITS, Budget

__all__ = ["PrivacyOdometer"]

SPLIT = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
"""Orders of an odometer that is told nothing about what will come."""


class PrivacyOdometer:
    """State a running (epsilon, delta) along a path of adaptively chosen events.

    Parameters
    ----------
    delta : float
        In (0, 1).
    order : float, sequence of float or None, default=None
        Renyi orders fixed now, each above 1; several share delta in equal parts. None takes the
        order that suits ``planned``, or twelve orders from 1.5 to 64.
    planned : event, sequence of events, (sample_rate, noise_multiplier, steps) or None
        What is expected to happen; chooses the order and nothing else.
    simultaneous : bool, default=False
        False: the reading is valid at one time of stopping, which may depend on the outputs.
        True: with probability 1 - delta the privacy loss is below all readings at once, so that
        each of them may be published and acted upon.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        The relation.
    unit : {"record", "user", "client"}, default="record"
        Whose data the scales of the events refer to.

    Attributes
    ----------
    orders : tuple of float
        Renyi orders.

    Raises
    ------
    InvalidBudgetError
        Delta out of range.

    Notes
    -----
    With ``R`` the sum of the divergences ``r(a)`` of the events so far and ``L`` the privacy loss,
    ``exp((a - 1)(L - R))`` is a supermartingale, whatever the scales depend on. Stopping it
    gives ``E[(1 - e^(x - L))+] <= delta`` at the reading
    ``x = R + ln(1 - 1/a) - ln(delta a) / (a - 1)``, and Ville's inequality
    ``P(L > x at some time) <= delta`` at ``x = R + ln(1/delta) / (a - 1)`` (simultaneous). This is
    why the order is fixed: the smallest reading over many orders would need a union over them,
    which is what sharing delta pays for. A sequence of filters with growing budgets (Lecuyer
    2021) is the other construction; it reads in steps and costs a union over the steps.

    A reading says what holds for the path taken. It is not a promise made beforehand, which
    only :class:`PrivacyFilter` gives.

    References
    ----------
    Rogers, Roth, Ullman, Vadhan 2016, arXiv:1605.08294. Lecuyer 2021, arXiv:2103.01379.
    Whitehouse, Ramdas, Rogers, Wu 2023, arXiv:2203.05481.

    Examples
    --------
    >>> from privfair.accounting import Gaussian
    >>> odometer = PrivacyOdometer(delta=1e-5, order=6.0)
    >>> odometer.charge(Gaussian(4.0))
    >>> odometer.reading()
    Budget(epsilon=1.949..., delta=1e-05)
    """

    def __init__(
        self,
        *,
        delta: float,
        order: float | Sequence[float] | None = None,
        planned: Any = None,
        simultaneous: bool = False,
        neighboring: str = "zero_out",
        unit: str = "record",
    ) -> None:
        self.delta = check.delta(delta=delta)
        self.simultaneous = check.boolean(simultaneous=simultaneous)
        self.neighboring = check.one_of(NEIGHBORING, neighboring=neighboring)
        self.unit = check.one_of(UNITS, unit=unit)
        if order is None and planned is None:
            order = SPLIT
        self.orders = chosen_orders(order, planned, self.neighboring, Budget(1.0, self.delta))
        self._rules = tuple(Filter("rdp", None, order=o) for o in self.orders)
        self._path = Path(len(self._rules))

    def charge(self, event: Any) -> None:
        """Add an event, which must not have happened yet.

        Raises
        ------
        UnsupportedEventError
            The event has no Renyi divergence, or it has a failure probability.
        """
        value, failed, events = self._path.value(event, self.neighboring, self.unit, self._rules)
        if failed:
            raise AccountingAssumptionError(
                "an odometer reads at one delta fixed beforehand, which failure probabilities "
                "would exceed by amounts that are not. Use PrivacyFilter with delta_reserve."
            )
        self._path.add(events, value, failed)

    def reading(self) -> Budget:
        """Return the (epsilon, delta) of what was charged so far."""
        if not self._path.runs:
            return Budget(0.0, 0.0)
        found = reading(self.orders, self._path.losses, self.delta, simultaneous=self.simultaneous)
        return Budget(found, self.delta)

    @property
    def events(self) -> tuple[ev.AccountedEvent, ...]:
        """What was charged, in order; repetitions as one ``SelfComposed``."""
        return self._path.events()

    def to_dict(self) -> dict[str, Any]:
        """Return settings and charges as strict JSON data; holds nothing about the data."""
        return {
            "schema": FORMAT,
            "kind": "PrivacyOdometer",
            "settings": {
                "delta": self.delta,
                "order": list(self.orders),
                "simultaneous": self.simultaneous,
                "neighboring": self.neighboring,
                "unit": self.unit,
            },
            "charges": self._path.to_list(),
        }

    @classmethod
    def from_dict(cls, data: Any) -> PrivacyOdometer:
        """Return the odometer that :meth:`to_dict` described, with the same sums."""
        settings, charges = checked_settings(data, "PrivacyOdometer")
        made = cls(**settings)

        def value(event: Any) -> Any:
            return made._path.value(event, made.neighboring, made.unit, made._rules)

        made._path.replay(charges, value)
        return made
