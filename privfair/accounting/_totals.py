"""The guarantee of what a ledger holds, and which relations may be mixed in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from privfair.accounting import events as ev
from privfair.accounting._charges import LedgerEntry
from privfair.accounting._declared import LedgerPlan
from privfair.accounting._filters import Filter, Spent
from privfair.accounting.accountant import AccountedProfile
from privfair.core import _validation as check
from privfair.core.exceptions import IncompatibleNeighboringError, InvalidParameterError
from privfair.core.privacy import NUMERICS, PrivacyGuarantee

__all__ = ["check_relation", "plan_guarantee", "total_guarantee"]


def total_guarantee(
    entries: Sequence[LedgerEntry],
    total: Spent,
    filter_: Filter,
    *,
    labels: dict[str, str],
    sentence: str,
    delta: float | None,
    non_adaptive: bool,
    caveats: Sequence[str] = (),
) -> PrivacyGuarantee:
    """Return the guarantee of all charges: the filter's sum, or the joint price of a plan."""
    common: dict[str, Any] = {
        **labels,
        "numerics": max((e.numerics for e in entries), key=NUMERICS.index, default="exact"),
        "seeded": any(entry.seeded for entry in entries),
        "events": tuple(entry.event for entry in entries),
    }
    profile = AccountedProfile(common["events"], labels["neighboring"])
    sentences = (sentence.format(len(entries)), *caveats, *profile.plan.assumptions)
    if profile.plan.reasons:
        return PrivacyGuarantee.none(*profile.plan.reasons, assumptions=sentences, **common)
    summed = min(total.delta, math.nextafter(1.0, 0.0))
    if not non_adaptive:
        if delta is not None:
            raise InvalidParameterError("delta is chosen only with non_adaptive=True.")
        return PrivacyGuarantee(
            total.epsilon, summed, accountant=filter_.kind, order=filter_.order,
            assumptions=sentences, **common,
        )  # fmt: skip
    at = summed if delta is None else delta
    eps = profile.epsilon(at)
    accountant = profile.accountant
    if delta is None and total.epsilon < eps:
        eps, accountant = total.epsilon, filter_.kind
    return PrivacyGuarantee(
        eps, at, accountant=accountant, order=profile.order, profile=profile,
        assumptions=(*sentences, "The events were fixed before any output was seen."), **common,
    )  # fmt: skip


def plan_guarantee(
    plan: LedgerPlan,
    entries: Sequence[LedgerEntry],
    *,
    labels: dict[str, str],
    relation: str,
    delta: float | None,
    caveats: Sequence[str] = (),
) -> PrivacyGuarantee:
    """Return the guarantee of a declared plan, drawn or not, at any delta."""
    undrawn = sum(count for _, count in plan.left)
    common: dict[str, Any] = {
        **labels,
        "numerics": max((e.numerics for e in entries), key=NUMERICS.index, default="exact"),
        "seeded": any(entry.seeded for entry in entries),
        "events": plan.events,
    }
    profile = AccountedProfile(plan.events, relation)
    sentences = (
        f"All events were declared in row {plan.row} of the ledger, before any of them was "
        f"drawn, and are priced jointly; {undrawn} of them not drawn yet count as spent.",
        *caveats,
        *profile.plan.assumptions,
    )
    if profile.plan.reasons:
        return PrivacyGuarantee.none(*profile.plan.reasons, assumptions=sentences, **common)
    at = plan.delta if delta is None else delta
    epsilon = profile.epsilon(at)
    if delta is None:
        epsilon = max(epsilon, plan.epsilon)  # never below what was charged
    return PrivacyGuarantee(
        epsilon, at, accountant=profile.accountant, order=profile.order, profile=profile,
        assumptions=sentences, **common,
    )  # fmt: skip


def check_relation(
    ledger: str, stated: str, events: Sequence[ev.AccountedEvent], *, null_ignored: bool
) -> None:
    """Refuse events whose guarantee is not one under the ledger's relation."""
    check.boolean(null_ignored=null_ignored)
    if stated == ledger:
        return
    if ledger == "zero_out":
        if stated == "add_remove" and null_ignored:
            return
        if stated == "replace_one" and all(_is_local(event) for event in events):
            return
    raise IncompatibleNeighboringError(
        f"this ledger holds charges under {ledger!r}, and the event is stated under {stated!r}. "
        "A zero_out ledger also takes add_remove events of mechanisms that ignore null records "
        "(null_ignored=True) and local reports under replace_one; nothing else can be added up."
    )


def _is_local(event: ev.AccountedEvent) -> bool:
    if isinstance(event, ev.SelfComposed):
        return _is_local(event.event)
    if isinstance(event, ev.Composed):
        return all(_is_local(part) for part in event.events)
    return isinstance(event, ev.LocalDP | ev.RandomizedResponse)
