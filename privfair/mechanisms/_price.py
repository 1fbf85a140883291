"""The price of several equal releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privfair.core import _validation as check

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["repeated"]


def repeated(event: AccountedEvent, count: int) -> AccountedEvent:
    """Return the event of ``count`` releases."""
    from privfair.accounting.events import SelfComposed

    times = check.positive_int(count=count)
    return event if times == 1 else SelfComposed(event, times)
