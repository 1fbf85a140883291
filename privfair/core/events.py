"""What the floors above agree on about events and ledgers, without computing privacy."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

__all__ = ["Event", "LedgerLike", "SpendTransaction"]


@runtime_checkable
class Event(Protocol):
    """A frozen, versioned, JSON-able description of what a mechanism does to data."""

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain JSON data, its ``kind`` and ``schema`` included."""
        ...


class SpendTransaction(Protocol):
    """The handle inside ``with ledger.spend(...)``."""

    entry_id: int

    def void(self, *, touched_data: bool) -> None:
        """Give the reservation back; only with ``touched_data=False``."""
        ...


@runtime_checkable
class LedgerLike(Protocol):
    """The part of a ledger that mechanisms and estimators use."""

    def spend(
        self, event: Any, *, purpose: str = "", **kwargs: Any
    ) -> AbstractContextManager[SpendTransaction]:
        """Reserve, then run the body, then commit; a crash in between stays spent."""
        ...
