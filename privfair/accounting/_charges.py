"""What a ledger's rows say: charges, their states, and the handle of an open charge."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from privfair.accounting import events as ev
from privfair.accounting._caps import Caps
from privfair.accounting._declared import Declared, parts_of
from privfair.accounting._filters import Spent
from privfair.core import _validation as check
from privfair.core._format import json_number, json_safe
from privfair.core.exceptions import LogIntegrityError, PrivacyError, SchemaVersionError
from privfair.core.log import CheckedRow, HashChainLog

__all__ = ["Charges", "LedgerEntry", "LedgerTransaction", "entries_of"]


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
        Value of the charge under the ``basic`` filter. None under another filter and for what was
        drawn from a plan, whose price is that of the whole plan.
    numerics : str
        Numerical class stated with the charge.
    seeded : bool
        Whether the noise came from a known seed.
    neighboring : str
        Relation of the event.
    analyst : str, default=""
        Who spent it, if that was stated.
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
    analyst: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as strict JSON data."""
        out = {name: json_safe(getattr(self, name)) for name in self.__dataclass_fields__}
        out["event"] = self.event.to_dict()
        return out


class _Open(NamedTuple):
    """A charge that has not been settled."""

    spent: Spent
    purpose: str
    analyst: str
    drawn: Counter[str] | None


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
    """What a ledger's rows amount to, as far as they have been read and checked.

    Taking in a row costs the same however many were read before, and no charge is kept but the
    open ones.

    Parameters
    ----------
    where : str
        The ledger in words, for messages.
    header : dict
        Body of its first row.
    """

    def __init__(self, where: str, header: dict[str, Any]) -> None:
        self._where = where
        self._schema = int(header["schema"])
        self.caps = Caps(header)
        self.plan: Declared | None = None
        self.last = 0
        self.hash = ""
        self._count = 0
        self._open: dict[int, _Open] = {}
        self._released: set[int] = set()

    def __len__(self) -> int:
        """Number of charges that count as spent."""
        return self._count

    def take(self, rows: Iterable[CheckedRow]) -> None:
        """Read on.

        Raises
        ------
        LogIntegrityError
            Names the first row that does not follow from the rows before it; nothing more is
            spent on such a ledger.
        """
        for number, time, kind, text, digest in rows:
            self.visit(number, time, kind, text, digest)

    def visit(self, number: int, time: str, kind: str, text: str, digest: str) -> None:
        """Take in one row, already checked against the chain."""
        try:
            if kind in ("released", "void"):
                self._settled(number, kind, text)
            elif kind == "reserved":
                self._reserved(number, json.loads(text))
            elif kind == "cap":
                self.caps.apply(number, time, json.loads(text))
            elif kind == "plan":
                self._declared(number, json.loads(text))
            elif kind != "header" or number != 1:
                raise SchemaVersionError(
                    f"row {number} of {self._where} is of a kind that this version of privfair "
                    "does not know. Install a newer privfair; nothing more is spent on this "
                    "ledger until then."
                )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, SchemaVersionError):
                raise
            raise LogIntegrityError(
                f"row {number} of {self._where} does not follow from the rows before it "
                f"({error}). Nothing more is spent on this ledger. Restore it from a backup whose "
                "head you know."
            ) from None
        self.last, self.hash = number, digest

    def _reserved(self, number: int, body: dict[str, Any]) -> None:
        spent = Spent(float(body["epsilon"]), float(body["delta"]), float(body["loss"]))
        if not (spent.epsilon >= 0 and spent.delta >= 0 and spent.loss >= 0):
            raise ValueError("it charges less than nothing")
        purpose, analyst = body["purpose"], body.get("analyst", "")
        self.caps.add(spent, purpose, analyst)
        self._check_total(body)
        drawn = None
        if "plan" in body:
            if self.plan is None or body["plan"] != self.plan.row:
                raise ValueError("it draws from a plan that was not declared")
            drawn = parts_of((ev.event_from_dict(body["event"]),))
            if not self.plan.fits(drawn):
                raise ValueError("it draws what its plan does not hold")
            self.plan.draw(drawn)
        self._open[number] = _Open(spent, purpose, analyst, drawn)
        self._count += 1

    def _declared(self, number: int, body: dict[str, Any]) -> None:
        if self.plan is not None:
            raise ValueError("it declares a second plan")
        self.caps.add(
            Spent(float(body["epsilon"]), float(body["delta"]), float(body["loss"])), "", ""
        )
        self._check_total(body)
        self.plan = Declared(number, body)

    def _settled(self, number: int, kind: str, text: str) -> None:
        ref = int(json.loads(text)["ref"])
        found = self._open.pop(ref, None)
        if found is None:
            # A release may be noted twice, by a thread and by the one that outlived it.
            if kind == "released" and ref in self._released:
                return
            raise ValueError(f"it settles row {ref}, which is not an open charge")
        if kind == "released":
            self._released.add(ref)
            return
        self.caps.add(found.spent, found.purpose, found.analyst, sign=-1)
        if found.drawn is not None and self.plan is not None:
            self.plan.give_back(found.drawn)
        self._count -= 1

    def total_after(self, charge: Spent) -> list[Any]:
        """Return the running total that the row of a charge states, the charge included."""
        self.caps.add(charge, "", "")
        try:
            return self._total()
        finally:
            self.caps.add(charge, "", "", sign=-1)

    def _total(self) -> list[Any]:
        total = self.caps.total()
        return [json_number(value) for value in (total.epsilon, total.delta, total.loss)]

    def _check_total(self, body: dict[str, Any]) -> None:
        stated = body.get("total")
        if stated is None and self._schema == 1:
            return
        if stated != self._total():
            raise ValueError("its running total is not the sum of the charges")


def entries_of(rows: Iterable[CheckedRow], *, valued: bool) -> Iterator[LedgerEntry]:
    """Return the charges in these rows, in order; ``valued``: each has an epsilon and a delta."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    states: dict[int, str] = {}
    for number, time, kind, text, _ in rows:
        if kind == "reserved":
            found[number] = time, json.loads(text)
        elif kind in ("released", "void"):
            states[int(json.loads(text)["ref"])] = kind
    for number, (time, body) in found.items():
        own = valued and "plan" not in body
        yield LedgerEntry(
            id=number,
            time=time,
            state=states.get(number, "reserved"),
            event=ev.event_from_dict(body["event"]),
            purpose=body["purpose"],
            label=body["label"],
            epsilon=float(body["epsilon"]) if own else None,
            delta=float(body["delta"]) if own else None,
            numerics=body["numerics"],
            seeded=bool(body["seeded"]),
            neighboring=body["neighboring"],
            analyst=body.get("analyst", ""),
        )
