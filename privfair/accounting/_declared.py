"""A plan that was declared before anything was drawn, and what of it is left.

Composition of a plan that is fixed beforehand may be priced by its joint privacy loss even when
each query, and the order of the draws, depends on earlier outputs: every mechanism is dominated
by a fixed pair of distributions whatever the outputs before it were, so that the transcript is a
function of independent draws from the pairs (Zhu, Dong, Wang 2022). Their parameters must not
depend on outputs, which is what the declaration settles.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from privfair.accounting import events as ev
from privfair.core._format import json_number
from privfair.core.exceptions import BudgetExceededError
from privfair.core.log import canonical
from privfair.core.privacy import Budget

__all__ = ["Declared", "LedgerPlan", "parts_of"]


@dataclass(frozen=True)
class LedgerPlan:
    """The plan of a ledger with ``mode="plan"``.

    Attributes
    ----------
    row : int
        Row of the ledger that declares it.
    events : tuple of AccountedEvent
        As declared.
    epsilon, delta : float
        Joint price, which counts as spent from the declaration on.
    accountant : str
        The bound that gave it.
    left : tuple of (AccountedEvent, int)
        What has not been drawn yet: single events and how many of each.

    Examples
    --------
    >>> from privfair.accounting import Gaussian, Ledger, SelfComposed
    >>> ledger = Ledger(cap=Budget(1.0, 1e-6), mode="plan")
    >>> plan = ledger.plan(SelfComposed(Gaussian(30.0), 10))
    >>> with ledger.spend(Gaussian(30.0), purpose="first query"):
    ...     pass
    >>> ledger.declared.left
    ((Gaussian(sigma=30.0), 9),)
    """

    row: int
    events: tuple[ev.AccountedEvent, ...]
    epsilon: float
    delta: float
    accountant: str
    left: tuple[tuple[ev.AccountedEvent, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as strict JSON data."""
        return {
            "row": self.row,
            "events": [event.to_dict() for event in self.events],
            "epsilon": json_number(self.epsilon),
            "delta": self.delta,
            "accountant": self.accountant,
            "left": [{"event": event.to_dict(), "count": count} for event, count in self.left],
        }


def parts_of(events: Sequence[ev.AccountedEvent], count: int = 1) -> Counter[str]:
    """Count the single events in ``events``, each by its canonical JSON text.

    ``SelfComposed(e, k)`` is k times e and ``Composed`` is its parts, by definition; nothing
    else is taken apart (what is sampled together, say, stays together).
    """
    found: Counter[str] = Counter()
    for event in events:
        if isinstance(event, ev.SelfComposed):
            found.update(parts_of((event.event,), count * event.count))
        elif isinstance(event, ev.Composed):
            found.update(parts_of(event.events, count))
        elif count:
            found[canonical(event.to_dict())] += count
    return found


class Declared:
    """A declared plan as its ledger's rows tell it.

    Parameters
    ----------
    row : int
        Row of the declaration.
    body : dict
        What the row says.
    """

    def __init__(self, row: int, body: dict[str, Any]) -> None:
        self.row = row
        self.body = body
        self.events = tuple(ev.event_from_dict(event) for event in body["events"])
        self.left = parts_of(self.events)

    def fits(self, wanted: Counter[str]) -> bool:
        """Whether all these events are left."""
        return all(self.left[key] >= count for key, count in wanted.items())

    def check(self, wanted: Counter[str], relation: str) -> None:
        """Refuse what was not declared or has been drawn already."""
        declared = self.body["neighboring"]
        if relation != declared:
            raise BudgetExceededError(
                f"the plan in row {self.row} was declared under {declared!r}, and this event is "
                f"stated under {relation!r}. Nothing was released and nothing was spent.",
                remaining=Budget(0.0),
            )
        if self.fits(wanted):
            return
        lacking = "; ".join(
            f"{count} of {_name(key)}, {max(0, self.left[key])} left"
            for key, count in wanted.items()
            if self.left[key] < count
        )
        raise BudgetExceededError(
            f"the plan in row {self.row} does not hold this: {lacking}. Left in the plan: "
            f"{self._left_in_words()}. Nothing was released and nothing was spent. Only what was "
            "declared beforehand can be drawn; use a ledger with mode='filter' for events that "
            "are chosen as you go.",
            remaining=Budget(0.0),
        )

    def draw(self, wanted: Counter[str]) -> None:
        """Take events out of what is left."""
        self.left.subtract(wanted)

    def give_back(self, wanted: Counter[str]) -> None:
        """Put back events of a draw that touched no data."""
        self.left.update(wanted)

    def _left_in_words(self) -> str:
        listed = [f"{count} x {_name(key)}" for key, count in self.left.items() if count]
        more = f" and {len(listed) - 5} more kinds" if len(listed) > 5 else ""
        return ", ".join(listed[:5]) + more if listed else "nothing"

    def public(self) -> LedgerPlan:
        """Return the plan for whoever asks."""
        return LedgerPlan(
            self.row,
            self.events,
            float(self.body["epsilon"]),
            float(self.body["delta"]),
            str(self.body["accountant"]),
            tuple((_event(key), count) for key, count in self.left.items() if count > 0),
        )


def _event(key: str) -> ev.AccountedEvent:
    return ev.event_from_dict(json.loads(key))


def _name(key: str) -> str:
    return repr(_event(key))
