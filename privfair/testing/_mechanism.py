"""Check that a mechanism prices itself first and charges before it draws."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from privfair.accounting import guarantee
from privfair.accounting.events import event_from_dict
from privfair.auditing import assert_dp_lower_bound
from privfair.core.events import Event
from privfair.core.exceptions import BudgetExceededError
from privfair.core.mechanism import Mechanism
from privfair.core.privacy import NUMERICS
from privfair.core.randomness import SecretStream

__all__ = ["RecordingLedger", "RefusingLedger", "check_mechanism"]


class RecordingLedger:
    """A ledger that accepts everything and remembers what was charged, in ``charged``."""

    def __init__(self) -> None:
        self.charged: list[Any] = []
        self.entry_id = 0

    @contextmanager
    def spend(self, event: Any, *, purpose: str = "", **_: Any) -> Iterator[RecordingLedger]:
        """Remember the event, then run the body."""
        self.charged.append(event)
        self.entry_id += 1
        yield self

    def void(self, *, touched_data: bool) -> None:
        """Refuse: nothing that these checks run gives a reservation back."""
        raise AssertionError("the reservation was given back during a release")

    def __deepcopy__(self, memo: Any) -> RecordingLedger:
        return self


class RefusingLedger(RecordingLedger):
    """A ledger without any budget left."""

    @contextmanager
    def spend(self, event: Any, *, purpose: str = "", **_: Any) -> Iterator[RecordingLedger]:
        """Refuse the event before the body runs."""
        raise BudgetExceededError("the test ledger has no budget left")
        yield self


def _snapshot(value: Any) -> Any:
    return copy.deepcopy(value)


def _same(a: Any, b: Any) -> bool:
    if hasattr(a, "equals"):
        return bool(a.equals(b))
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def _check_cost(mechanism: Mechanism) -> None:
    name = type(mechanism).__name__
    event = mechanism.cost()
    assert isinstance(event, Event), f"{name}.cost() must return an event, got {type(event)}."
    data = json.loads(json.dumps(event.to_dict(), allow_nan=False))
    assert event_from_dict(data) == event, f"{name}.cost() does not survive JSON."
    labels: dict[str, Any] = {"delta": 1e-6}
    relation = getattr(mechanism, "neighboring", None)
    if relation is not None:
        labels["neighboring"] = relation
    one = guarantee(event, **labels).epsilon
    two = guarantee(mechanism.cost(2), **labels).epsilon
    assert one > 0, f"{name} claims to cost nothing."
    assert math.isfinite(one), f"{name}.cost() has no finite price at delta = 1e-6."
    assert two >= one, f"{name}.cost(2) costs less than cost(1)."


def _check_order(mechanism: Mechanism, value: Any) -> None:
    """Watch secret randomness: none may be taken before the charge."""
    name = type(mechanism).__name__
    drawn: list[str] = []
    ledger = RecordingLedger()
    watched = {
        method: getattr(SecretStream, method) for method in ("bytes", "uint64", "generator")
    }

    def watch(method: str) -> Any:
        def read(self: Any, *args: Any) -> Any:
            if not ledger.charged:
                drawn.append(method)
            return watched[method](self, *args)

        return read

    try:
        for method in watched:
            setattr(SecretStream, method, watch(method))
        mechanism.release(value, ledger=ledger, purpose="check")
    finally:
        for method, original in watched.items():
            setattr(SecretStream, method, original)
    assert not drawn, f"{name}.release draws before the ledger is charged."


def _check_noise(mechanism: Mechanism, value: Any, first: Any, tries: int = 4000) -> None:
    """Release until two outputs differ; even a one-bit answer at epsilon = 5 does in 4000."""
    if any(not _same(first, mechanism.release(value)) for _ in range(tries)):
        return
    raise AssertionError(
        f"{type(mechanism).__name__} released the same value {tries} times: there is no noise."
    )


def check_mechanism(
    mechanism: Mechanism,
    value: Any,
    *,
    neighbors: tuple[Any, Any] | None = None,
    statistic: Any = None,
    n: int = 4000,
    delta: float = 1e-6,
) -> None:
    """Check a mechanism against the contract of :class:`privfair.core.Mechanism`.

    Parameters
    ----------
    mechanism : Mechanism
    value : object
        A valid input.
    neighbors : tuple of two inputs, or None
        Neighbouring inputs; when given, ``n`` releases of each are drawn and the claim is
        attacked (false-alarm rate 1e-6).
    statistic : callable or None
        Maps a release to one number for that attack; default: its first entry.
    n : int, default=4000
    delta : float, default=1e-6
        Where the claim is read off.

    Raises
    ------
    AssertionError
        With a sentence on what is wrong.

    Notes
    -----
    ``docs/interface.md`` uses it on a whole third-party package.
    """
    name = type(mechanism).__name__
    assert getattr(mechanism, "numerics", None) in NUMERICS, (
        f"{name}.numerics must be one of {NUMERICS}."
    )
    sensitivity = mechanism.sensitivity
    assert math.isfinite(sensitivity) and sensitivity > 0, (
        f"{name}.sensitivity must be positive and finite, got {sensitivity}."
    )
    _check_cost(mechanism)

    before = _snapshot(value)
    ledger = RecordingLedger()
    released = [mechanism.release(value, ledger=ledger, purpose="check") for _ in range(8)]
    assert _same(value, before), f"{name}.release changes its input."
    assert ledger.charged == [mechanism.cost()] * 8, (
        f"{name}.release must charge exactly cost() once for each release."
    )
    _check_order(mechanism, value)
    _check_noise(mechanism, value, released[0])
    try:
        mechanism.release(value, ledger=RefusingLedger())
    except BudgetExceededError:
        pass
    else:
        raise AssertionError(f"{name}.release goes on although the ledger refused.")
    if neighbors is not None:
        first = statistic or (lambda out: float(np.ravel(np.asarray(out, dtype=float))[0]))
        relation = getattr(mechanism, "neighboring", None)
        labels = {} if relation is None else {"neighboring": relation}
        claimed = guarantee(mechanism.cost(), delta=delta, **labels).epsilon
        assert_dp_lower_bound(
            lambda v: first(mechanism.release(v)), *neighbors, epsilon=claimed, delta=delta, n=n
        )
