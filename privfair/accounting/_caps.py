"""Caps of a data set, of purposes and of analysts: what they are, and how they may change."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from privfair.accounting._filters import Filter, Spent, filter_of
from privfair.accounting._sums import SpentSum
from privfair.core._format import json_safe
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    PrivacyError,
)
from privfair.core.privacy import Budget

__all__ = [
    "EACH", "CapChange", "Caps", "LedgerCap", "budget_from_dict", "checked_cap", "scope_of",
]  # fmt: skip

EACH = "*"
"""As the name of a sub-cap: each purpose, or each analyst, that has none of its own."""
_SCOPES = ("dataset", "purpose", "analyst")


@dataclass(frozen=True)
class LedgerCap:
    """A cap that is in force, and how far it is used up.

    Attributes
    ----------
    scope : {"dataset", "purpose", "analyst"}
        Whose charges it limits.
    name : str
        The purpose or the analyst; ``"*"`` stands for each that has no cap of its own, and the
        data set's cap has the empty name.
    cap : Budget
        The most that may be spent.
    spent : Budget or None
        What was; None for the name ``"*"``, which stands for many.
    remaining : Budget or None
        What is left, the other caps aside.
    row : int
        Row of the ledger that set it; 1 for a cap that the ledger was made with.
    reason : str
        As given when it was set.

    Examples
    --------
    >>> from privfair.accounting import Ledger
    >>> ledger = Ledger(cap=Budget(3.0, 1e-6))
    >>> ledger.set_cap(Budget(1.0, 1e-7), purpose="research").remaining
    Budget(epsilon=1.0, delta=1e-07)
    """

    scope: str
    name: str
    cap: Budget
    spent: Budget | None
    remaining: Budget | None
    row: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the cap as strict JSON data."""
        return {name: json_safe(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class CapChange:
    """One change of a cap, as a row states it; ``raised`` follows from the rows before it."""

    row: int
    time: str
    scope: str
    name: str
    before: Budget | None
    after: Budget | None
    raised: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the change as strict JSON data."""
        return {name: json_safe(getattr(self, name)) for name in self.__dataclass_fields__}


def budget_from_dict(stored: Any) -> Budget | None:
    """Return the budget that ``Budget.to_dict`` described, or None."""
    return None if stored is None else Budget(float(stored["epsilon"]), float(stored["delta"]))


class Caps:
    """The caps in force after some row of a ledger, and the sums that they are compared with.

    Parameters
    ----------
    header : dict
        The ledger's first row: the data set's first cap, and the filter, which no change of a
        cap changes.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        self._header = header
        self._caps: dict[tuple[str, str], Budget] = {}
        self._filters: dict[Budget | None, Filter] = {}
        self._set_by: dict[tuple[str, str], tuple[int, str]] = {("dataset", ""): (1, "")}
        self._sums: defaultdict[tuple[str, str], SpentSum] = defaultdict(SpentSum)
        self._names = dict.fromkeys(_SCOPES, False)
        self.changes: list[CapChange] = []
        if (cap := budget_from_dict(header["cap"])) is not None:
            self._caps["dataset", ""] = cap

    # --- sums -----------------------------------------------------------------------------

    def add(self, charge: Spent, purpose: str, analyst: str, sign: int = 1) -> None:
        """Count a charge for its data set, purpose and analyst, or take it away again."""
        sums = self._sums
        sums["dataset", ""].add(charge, sign)
        if purpose:
            sums["purpose", purpose].add(charge, sign)
        if analyst:
            sums["analyst", analyst].add(charge, sign)

    def total(self, scope: str = "dataset", name: str = "") -> Spent:
        """Return the sum of charges in the units in which they are stored."""
        found = self._sums.get((scope, name))
        return Spent() if found is None else found.value()

    # --- what is in force -----------------------------------------------------------------

    def in_force(self, scope: str = "dataset", name: str = "") -> Budget | None:
        """Return the cap that limits a purpose, an analyst or the data set, or None."""
        found = self._caps.get((scope, name))
        return self._caps.get((scope, EACH)) if found is None and name else found

    def filter(self, cap: Budget | None) -> Filter:
        """Return the ledger's filter with another cap."""
        if cap not in self._filters:
            self._filters[cap] = filter_of(self._header, cap)
        return self._filters[cap]

    def check(self, charge: Spent, purpose: str, analyst: str) -> None:
        """Raise ``BudgetExceededError`` when the charge would pass a cap."""
        limits = [("dataset", "")]
        for scope, name in (("purpose", purpose), ("analyst", analyst)):
            if not self._names[scope]:
                continue
            if not name:
                raise InvalidParameterError(
                    f"this ledger has caps by {scope}, and the charge names no {scope}. Nothing "
                    f"was released and nothing was spent. Give {scope}=... "
                    + ("to spend." if scope == "purpose" else "to Ledger or to spend.")
                )
            limits.append((scope, name))
        for scope, name in limits:
            cap = self.in_force(scope, name)
            if cap is None:
                continue
            filter_ = self.filter(cap)
            try:
                filter_.check(filter_.total([self.total(scope, name)]), charge)
            except BudgetExceededError as error:
                if scope == "dataset":
                    raise
                raise BudgetExceededError(
                    f"cap of {scope} {name!r}: {error}", remaining=error.remaining
                ) from None

    def remaining(self, purpose: str = "", analyst: str = "") -> Budget | None:
        """Return what every cap that applies leaves, or None when none does."""
        left = [
            self.filter(cap).remaining(self.filter(cap).total([self.total(scope, name)]))
            for scope, name in (("dataset", ""), ("purpose", purpose), ("analyst", analyst))
            if (scope == "dataset" or name) and (cap := self.in_force(scope, name)) is not None
        ]
        if not left:
            return None
        return Budget(min(b.epsilon for b in left), min(b.delta for b in left))

    def describe(self, scope: str = "dataset", name: str = "") -> LedgerCap | None:
        """Return the cap that was set for exactly this name, or None."""
        cap = self._caps.get((scope, name))
        if cap is None:
            return None
        row, reason = self._set_by[scope, name]
        spent = left = None
        if name != EACH:
            filter_ = self.filter(cap)
            total = filter_.total([self.total(scope, name)])
            # A sum of deltas may reach 1 where there is no limit; a budget's delta stays below.
            spent = Budget(total.epsilon, min(total.delta, math.nextafter(1.0, 0.0)))
            left = filter_.remaining(total)
        return LedgerCap(scope, name, cap, spent, left, row, reason)

    def listed(self) -> list[LedgerCap]:
        """Return all caps in force, the data set's first."""
        keys = sorted(self._caps, key=lambda key: (_SCOPES.index(key[0]), key[1]))
        return [found for key in keys if (found := self.describe(*key)) is not None]

    # --- changes --------------------------------------------------------------------------

    def propose(
        self, scope: str, name: str, cap: Budget | None, *, reason: str, allow_raise: bool
    ) -> dict[str, Any] | None:
        """Return the row that makes a change, or None when there is nothing to change.

        Raises
        ------
        PrivacyError
            The change lets more be spent, and that was not asked for in so many words.
        """
        limit = self.filter(cap).limit  # refuses a cap that the ledger's filter cannot keep
        if cap is not None and cap.epsilon > 0 and limit <= 0:
            raise InvalidBudgetError(
                f"no charge fits under epsilon = {cap.epsilon:g}, delta = {cap.delta:g} at the "
                f"Renyi order {self._header['order']:g}, which this ledger fixed when it was "
                "made. Make it with a larger order, or ask for a larger cap."
            )
        before = self._caps.get((scope, name))
        if cap == before:
            return None
        raised = self._raises(scope, name, cap)
        if raised and not allow_raise:
            raise PrivacyError(
                f"this would let more be spent on {_words(scope, name)}: {_text(cap)} instead of "
                f"{_text(self.in_force(scope, name))}. A cap that is raised after something was "
                "released is a decision of whoever answers for the data: say allow_raise=True "
                "(--allow-raise) and give a reason, which is written down."
            )
        if raised and not reason.strip():
            raise InvalidParameterError("raising a cap needs a reason, which is written down.")
        return {
            "scope": scope,
            "name": name,
            "before": None if before is None else before.to_dict(),
            "after": None if cap is None else cap.to_dict(),
            "raised": raised,
            "reason": reason,
        }

    def apply(self, row: int, time: str, body: dict[str, Any]) -> None:
        """Take in a row that changes a cap.

        Raises
        ------
        ValueError
            What the row says does not follow from the rows before it.
        """
        scope, name = body["scope"], body["name"]
        before, after = budget_from_dict(body["before"]), budget_from_dict(body["after"])
        if scope not in _SCOPES or not isinstance(name, str) or (scope == "dataset") != (not name):
            raise ValueError("it names no scope")
        raised = self._raises(scope, name, after)
        if before != self._caps.get((scope, name)) or raised is not body["raised"]:
            raise ValueError("it misstates the cap before it")
        if after is None:
            self._caps.pop((scope, name), None)
        else:
            self._caps[scope, name] = after
        self._set_by[scope, name] = row, str(body["reason"])
        self._names[scope] = any(key[0] == scope for key in self._caps)
        self.changes.append(
            CapChange(row, time, scope, name, before, after, raised, str(body["reason"]))
        )

    def _raises(self, scope: str, name: str, cap: Budget | None) -> bool:
        before = self.in_force(scope, name)
        after = cap
        if cap is None and name and name != EACH:
            after = self._caps.get((scope, EACH))
        if before is None:
            return False
        if after is None:
            return True
        return after.epsilon > before.epsilon or after.delta > before.delta


def scope_of(purpose: str | None, analyst: str | None) -> tuple[str, str]:
    """Return scope and name of the cap that these arguments mean."""
    if purpose is not None and analyst is not None:
        raise InvalidParameterError(
            "a cap is of a purpose or of an analyst, not of both: set one for each, and a charge "
            "must fit under both."
        )
    for scope, name in (("purpose", purpose), ("analyst", analyst)):
        if name is not None:
            if not isinstance(name, str) or not name:
                raise InvalidTypeError(f"{scope} must be a non-empty string or None.")
            return scope, name
    return "dataset", ""


def checked_cap(cap: Any) -> Budget | None:
    """Check for a budget or None."""
    if cap is not None and not isinstance(cap, Budget):
        raise InvalidTypeError(f"cap must be a Budget or None, got {type(cap).__name__}.")
    if cap is not None and math.isinf(cap.epsilon):
        raise InvalidBudgetError("a cap of infinite epsilon is none: pass cap=None to remove it.")
    return cap


def _words(scope: str, name: str) -> str:
    if scope == "dataset":
        return "the data set"
    return f"each {scope} without a cap of its own" if name == EACH else f"{scope} {name!r}"


def _text(cap: Budget | None) -> str:
    return "no limit" if cap is None else f"epsilon = {cap.epsilon:g}, delta = {cap.delta:g}"
