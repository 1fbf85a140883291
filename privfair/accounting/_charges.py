"""What a ledger's rows say: charges, their states, and the handle of an open charge."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from privfair.accounting import events as ev
from privfair.accounting._filters import Filter, Spent
from privfair.accounting.accountant import AccountedProfile
from privfair.core import _validation as check
from privfair.core._format import json_safe
from privfair.core.exceptions import (
    IncompatibleNeighboringError,
    InvalidParameterError,
    LogIntegrityError,
    PrivacyError,
)
from privfair.core.log import HashChainLog, LogRow
from privfair.core.privacy import NUMERICS, PrivacyGuarantee

__all__ = ["Charges", "LedgerEntry", "LedgerTransaction", "check_relation", "total_guarantee"]


@dataclass(frozen=True)
class LedgerEntry:
    """One charge.

    Attributes
    ----------
    id : int
        Row of the reservation.
    time : str
        UTC time of the reservation.
    state : {"reserved", "released", "void"}
        A reservation that was neither released nor voided counts as spent.
    event : AccountedEvent
        What was charged.
    purpose, label : str
        As given.
    epsilon, delta : float or None
        Value of the charge under the ``basic`` filter, else None.
    numerics : str
        Numerical class stated with the charge.
    seeded : bool
        Whether the noise came from a known seed.
    neighboring : str
        Relation of the event.
    """

    id: int
    time: str
    state: str
    event: ev.AccountedEvent
    purpose: str
    label: str
    epsilon: float | None
    delta: float | None
    numerics: str
    seeded: bool
    neighboring: str

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as strict JSON data."""
        out = {name: json_safe(getattr(self, name)) for name in self.__dataclass_fields__}
        out["event"] = self.event.to_dict()
        return out


class LedgerTransaction:
    """The handle inside ``with ledger.spend(...)``.

    Parameters
    ----------
    log : HashChainLog
        Where the reservation stands.
    entry_id : int
        Row of the reservation.

    Attributes
    ----------
    entry_id : int
        Row of the reservation.
    """

    def __init__(self, log: HashChainLog, entry_id: int) -> None:
        self._log = log
        self._owner = os.getpid()
        self._open = True
        self.entry_id = entry_id

    def void(self, *, touched_data: bool) -> None:
        """Give the reservation back, which is allowed only if no data were touched.

        Parameters
        ----------
        touched_data : bool
            Must be False, as a statement by the mechanism.

        Raises
        ------
        PrivacyError
            Data were touched, or the charge is already settled.
        """
        if check.boolean(touched_data=touched_data):
            raise PrivacyError(
                "a charge cannot be given back after data were touched: what was learnt stays "
                "learnt. It remains spent."
            )
        if not self._open:
            raise PrivacyError(
                f"charge {self.entry_id} is settled; only an open charge can be given back."
            )
        self._settle("void")

    def _settle(self, kind: str) -> None:
        # A forked copy of this process must not settle its parent's charge a second time.
        if self._open and os.getpid() == self._owner:
            self._log.append(kind, {"ref": self.entry_id})
        self._open = False


class Charges:
    """The charges of a ledger as far as its log has been read and checked."""

    def __init__(self, log: HashChainLog) -> None:
        self._log = log
        self._last = 0
        self._hash = ""
        self._rows: dict[int, LogRow] = {}
        self._states: dict[int, str] = {}
        self._spent: dict[int, Spent] = {}

    @property
    def last(self) -> int:
        """Row up to which the log has been read."""
        return self._last

    def take(self, rows: Iterable[LogRow]) -> None:
        """Read on, checking that every row follows from the one before it.

        Raises
        ------
        LogIntegrityError
            Names the first row that does not; nothing more is spent on such a ledger.
        """
        for row in rows:
            if not self._log.follows(row, self._last, self._hash):
                raise LogIntegrityError(
                    f"row {row.id} of {self._log.where} was changed or does not follow from row "
                    f"{self._last}. Nothing more is spent on this ledger. Restore it from a "
                    "backup whose head you know."
                )
            if row.kind == "reserved":
                self._reserved(row)
            elif row.kind in ("released", "void"):
                self._settled(row)
            self._last, self._hash = row.id, row.hash

    def _reserved(self, row: LogRow) -> None:
        body = row.body
        self._rows[row.id] = row
        self._states[row.id] = "reserved"
        self._spent[row.id] = Spent(
            float(body["epsilon"]), float(body["delta"]), float(body["loss"])
        )

    def _settled(self, row: LogRow) -> None:
        ref = int(row.body["ref"])
        state = self._states.get(ref)
        if state == row.kind == "released":
            return
        if state != "reserved":
            raise LogIntegrityError(
                f"row {row.id} of {self._log.where} settles row {ref}, which is not an open "
                "charge. Restore the ledger from a backup whose head you know."
            )
        self._states[ref] = row.kind
        if row.kind == "void":
            del self._spent[ref]

    def spent(self) -> list[Spent]:
        """Return the value of each charge that counts, in order."""
        return list(self._spent.values())

    def __len__(self) -> int:
        return len(self._spent)

    def entries(self, *, valued: bool) -> Iterator[LedgerEntry]:
        """Yield all charges; ``valued`` tells whether they have an epsilon and a delta each."""
        for number, row in self._rows.items():
            body = row.body
            yield LedgerEntry(
                id=number,
                time=row.time,
                state=self._states[number],
                event=ev.event_from_dict(body["event"]),
                purpose=body["purpose"],
                label=body["label"],
                epsilon=float(body["epsilon"]) if valued else None,
                delta=float(body["delta"]) if valued else None,
                numerics=body["numerics"],
                seeded=bool(body["seeded"]),
                neighboring=body["neighboring"],
            )


def total_guarantee(
    entries: Sequence[LedgerEntry],
    total: Spent,
    filter_: Filter,
    *,
    labels: dict[str, str],
    sentence: str,
    delta: float | None,
    non_adaptive: bool,
) -> PrivacyGuarantee:
    """Return the guarantee of all charges: the filter's sum, or the joint price of a plan."""
    common: dict[str, Any] = {
        **labels,
        "numerics": max((e.numerics for e in entries), key=NUMERICS.index, default="exact"),
        "seeded": any(entry.seeded for entry in entries),
        "events": tuple(entry.event for entry in entries),
    }
    profile = AccountedProfile(common["events"], labels["neighboring"])
    sentences = (sentence.format(len(entries)), *profile.plan.assumptions)
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
