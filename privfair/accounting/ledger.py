"""The ledger: charges are written down before anything is released."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfair.accounting import _plan
from privfair.accounting import events as ev
from privfair.accounting._caps import LedgerCap, checked_cap, scope_of
from privfair.accounting._charges import Charges, LedgerEntry, LedgerTransaction, entries_of
from privfair.accounting._declared import LedgerPlan, parts_of
from privfair.accounting._filters import UNCAPPED_DELTA, Filter, Spent, header_of
from privfair.accounting._totals import check_relation, plan_guarantee, total_guarantee
from privfair.accounting.accountant import AccountedProfile
from privfair.core import _validation as check
from privfair.core._format import json_number
from privfair.core.exceptions import (
    BudgetExceededError,
    IncompatibleNeighboringError,
    InvalidParameterError,
    InvalidTypeError,
    LedgerError,
    LogIntegrityError,
    PrivacyError,
)
from privfair.core.log import HashChainLog, LogTransaction
from privfair.core.privacy import NEIGHBORING, NUMERICS, UNITS, Budget, PrivacyGuarantee

__all__ = ["Ledger", "LedgerCap", "LedgerEntry", "LedgerPlan", "LedgerTransaction"]

_KIND = "ledger"
_MODES = ("filter", "plan")
_SETTINGS = ("dataset_id", "unit", "neighboring", "mode", "cap", "filter", "order")
_MEMORY: weakref.WeakValueDictionary[str, Ledger] = weakref.WeakValueDictionary()


class Ledger:
    """What has been spent on one data set: enforced before release, kept after a crash.

    Parameters
    ----------
    path : str, Path or None, default=None
        A SQLite file that several processes may share, created if absent; None keeps the ledger
        in the memory of this process.
    cap : Budget or None, default=None
        The most that may be spent. None sets no limit (for an existing file: keeps its own).
        :meth:`set_cap` changes it, and sets caps for single purposes and analysts beside it.
    dataset_id : str, default="default"
        Name of the data set; never anything computed from the data.
    unit : {"record", "user", "client"}, default="record"
        Whose data the charges refer to.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation of the total.
    mode : {"filter", "plan"}, default="filter"
        ``filter``: events come one by one and may depend on earlier outputs. ``plan``: all
        events are declared beforehand with :meth:`plan`, priced jointly by the best accountant,
        and only what was declared can be drawn.
    filter : {"basic", "zcdp", "gdp", "rdp"}, default="basic"
        In which currency charges add up. ``basic`` takes every event.
    hmac_key : bytes or None, default=None
        Secret key of at least 16 bytes; without it nobody can rewrite the chain.
    order : float or None, default=None
        Renyi order of ``filter="rdp"``, fixed when the file is made.
    analyst : str, default=""
        Who spends through this object; written into each charge. A statement, not a proof: a
        ledger does not know who calls it.

    Raises
    ------
    LedgerError
        The file cannot be read or written. Raised before any data are touched.
    SchemaVersionError
        The file was written by a newer version.

    Notes
    -----
    ``spend`` reserves (one exclusive transaction: read the total, compare with the cap, append,
    sync to disk), then runs its body, then notes the release. A crash in between leaves the
    reservation, which counts as spent: the ledger can only over-count. Nothing in it depends on
    data. Cost of a charge: two synced commits, some milliseconds on a local disk.

    The copy or clone of a ledger is the same ledger. Pickling keeps the path; the key is taken
    again from the environment variable ``PRIVFAIR_LEDGER_KEY`` (hexadecimal); without it, open
    the file with ``Ledger(path, hmac_key=...)`` instead.

    References
    ----------
    Rogers, Roth, Ullman, Vadhan 2016, arXiv:1605.08294. Feldman, Zrnic 2021, arXiv:2008.11193.
    Whitehouse, Ramdas, Rogers, Wu 2023, arXiv:2203.05481. Smith, Thakurta 2022,
    arXiv:2210.17520.

    Examples
    --------
    >>> from privfair.accounting import PureDP
    >>> ledger = Ledger(cap=Budget(1.0))
    >>> with ledger.spend(PureDP(0.25), purpose="count of rows"):
    ...     released = 42
    >>> ledger.remaining()
    Budget(epsilon=0.75, delta=0.0)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        cap: Budget | None = None,
        dataset_id: str = "default",
        unit: str = "record",
        neighboring: str = "zero_out",
        mode: str = "filter",
        filter: str = "basic",
        hmac_key: bytes | None = None,
        order: float | None = None,
        analyst: str = "",
    ) -> None:
        if cap is not None and not isinstance(cap, Budget):
            raise InvalidTypeError(f"cap must be a Budget or None, got {type(cap).__name__}.")
        self.analyst = _text(analyst=analyst)
        if not isinstance(dataset_id, str) or not dataset_id:
            raise InvalidTypeError("dataset_id must be a non-empty string.")
        check.one_of(UNITS, unit=unit)
        check.one_of(NEIGHBORING, neighboring=neighboring)
        check.one_of(_MODES, mode=mode)
        if mode == "plan" and filter != "basic":
            raise InvalidParameterError(
                f"a ledger with mode='plan' prices its plan jointly and needs no filter, got "
                f"filter={filter!r}. Leave filter out."
            )
        rule = Filter(filter, cap, order)
        asked = {
            "dataset_id": dataset_id,
            "unit": unit,
            "neighboring": neighboring,
            "mode": mode,
            "cap": None if cap is None else cap.to_dict(),
            **header_of(rule),
        }
        self._log = HashChainLog(path, kind=_KIND, header=asked, key=hmac_key)
        self._setup()
        self._compare(asked)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        hmac_key: bytes | None = None,
        read_only: bool = False,
        analyst: str = "",
    ) -> Ledger:
        """Open an existing ledger with the settings that it was made with.

        Parameters
        ----------
        path : str or Path
            An existing file.
        hmac_key : bytes or None, default=None
            Needed to write to or verify a ledger made with a key.
        read_only : bool, default=False
            Change nothing; ``spend`` is refused.
        analyst : str, default=""
            Who spends through this object.
        """
        if not Path(path).exists():
            raise LedgerError(f"{path} does not exist; Ledger(path) makes a new ledger.")
        self = cls.__new__(cls)
        self.analyst = _text(analyst=analyst)
        self._log = HashChainLog(path, kind=_KIND, key=hmac_key, read_only=read_only)
        self._setup()
        return self

    def _compare(self, asked: dict[str, Any]) -> None:
        found = dict(self._log.header)
        if asked["cap"] is not None:
            cap = self.cap  # as later rows may have changed it
            found["cap"] = None if cap is None else cap.to_dict()
        for name in _SETTINGS:
            given, stored = asked[name], found.get(name)
            kept = (name == "dataset_id" and given == "default") or (
                name in ("cap", "order") and given is None
            )
            if name == "order" and asked["cap"] is None:
                kept = True
            if not kept and given != stored:
                raise LedgerError(
                    f"{self._log.where} has {name}={stored!r}, and {given!r} was asked for. "
                    "A ledger's settings are fixed, and its caps change by set_cap only; use "
                    "Ledger.open(path) to take them from the file, or another file."
                )

    def _setup(self) -> None:
        self._adopt(self._log.header)
        if self.path is None:
            _MEMORY[self._token] = self

    def _adopt(self, header: dict[str, Any]) -> None:
        self.dataset_id: str = header["dataset_id"]
        self.unit: str = header["unit"]
        self.neighboring: str = header["neighboring"]
        self.mode: str = header["mode"]
        self._filter_kind: str = header["filter"]
        self._settings = dict(header)
        self._lock = threading.RLock()
        self._charges = Charges(self._log.where, self._settings)
        self._token = f"{os.getpid()}-{os.urandom(12).hex()}"

    # --- identity -------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The file, or None."""
        return self._log.path

    @property
    def filter(self) -> str:
        """In which currency charges add up."""
        return self._filter_kind

    @property
    def cap(self) -> Budget | None:
        """The most that may be spent on the data set as of now, or None."""
        with self._lock:
            if not isinstance(self._log, _Gone):
                self._refresh()
            return self._charges.caps.in_force()

    @property
    def declared(self) -> LedgerPlan | None:
        """The plan of a ledger with ``mode="plan"``, or None before it was declared."""
        with self._lock:
            self._refresh()
            return None if self._charges.plan is None else self._charges.plan.public()

    @property
    def _filter(self) -> Filter:
        return self._charges.caps.filter(self._charges.caps.in_force())

    def __copy__(self) -> Ledger:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Ledger:
        return self

    def __sklearn_clone__(self) -> Ledger:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (
            None if self.path is None else str(self.path),
            self._token,
            self._settings | {"cap": None if (cap := self.cap) is None else cap.to_dict()},
            self.analyst,
        )

    def __len__(self) -> int:
        """Number of charges that count as spent."""
        with self._lock:
            self._refresh()
            return len(self._charges)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else repr(str(self.path))
        return (
            f"Ledger({where}, dataset_id={self.dataset_id!r}, unit={self.unit!r}, "
            f"neighboring={self.neighboring!r}, mode={self.mode!r}, filter={self.filter!r}, "
            f"cap={self.cap})"
        )

    # --- spending -------------------------------------------------------------------------

    @contextlib.contextmanager
    def spend(
        self,
        event: Any,
        *,
        purpose: str = "",
        label: str = "",
        delta: float | None = None,
        neighboring: str | None = None,
        null_ignored: bool = False,
        unit: str | None = None,
        numerics: str = "idealized",
        seeded: bool = False,
        analyst: str | None = None,
    ) -> Iterator[LedgerTransaction]:
        """Reserve an event, run the body, note the release.

        Parameters
        ----------
        event : event or sequence of events
            What the body will do to the data; a sequence is priced jointly.
        purpose : str, default=""
            Why; must not hold data.
        label : str, default=""
            Which mechanism or estimator; must not hold data.
        delta : float or None, default=None
            Delta at which a ``basic`` ledger values the event. None: 0 for a pure event, else
            the delta at which the event takes the same share of the cap's epsilon and delta
            (without a cap: 1e-6).
        neighboring : str or None, default=None
            Relation of the event, when it is not the ledger's.
        null_ignored : bool, default=False
            States that the mechanism gives the same output law with a null record as without
            it; makes an add/remove event valid in a ``zero_out`` ledger.
        unit : str or None, default=None
            Unit of the event, when it is not the ledger's (an error, then).
        numerics : {"exact", "hardened", "idealized"}, default="idealized"
            Numerical class of the mechanism.
        seeded : bool, default=False
            Whether the noise comes from a known seed.
        analyst : str or None, default=None
            Who spends; None: whoever this object was opened for.

        Yields
        ------
        LedgerTransaction
            With ``entry_id`` and ``void(touched_data=False)``.

        Raises
        ------
        BudgetExceededError
            The cap of the data set, the purpose or the analyst would be passed, or the plan does
            not hold the event. Raised before the body runs; nothing is spent.
        IncompatibleNeighboringError
            The event has no guarantee under this ledger's relation or unit.

        Notes
        -----
        An exception in the body leaves the charge spent: the ledger cannot know what was
        learnt before it.
        """
        asked = self._asked(event, purpose, label, neighboring, null_ignored, unit, analyst)
        check.one_of(NUMERICS, numerics=numerics)
        asked.body |= {"numerics": numerics, "seeded": check.boolean(seeded=seeded)}
        with self._lock:
            self._refresh()
        price = Spent() if self.mode == "plan" else self._price(asked, delta)
        transaction = LedgerTransaction(self._log, self._reserve(asked, price))
        try:
            yield transaction
        except BaseException:
            transaction._open = False  # the charge stays: nobody knows what was learnt
            raise
        transaction._settle("released")

    def record_non_private(self, *, purpose: str, label: str = "") -> int:
        """Write down that something was released about the data without any privacy.

        Parameters
        ----------
        purpose : str
            Why; must not hold data.
        label : str, default=""
            What did it.

        Returns
        -------
        int
            Row of the entry.

        Raises
        ------
        BudgetExceededError
            This ledger has a cap, which nothing non-private can keep.
        """
        with self.spend(ev.NonPrivate(), purpose=purpose, label=label) as transaction:
            return transaction.entry_id

    def plan(
        self,
        events: Any,
        *,
        delta: float | None = None,
        purpose: str = "",
        label: str = "",
        neighboring: str | None = None,
        null_ignored: bool = False,
    ) -> LedgerPlan:
        """Declare, once and before anything is drawn, all that will be done to the data.

        Parameters
        ----------
        events : event or sequence of events
            All of them. ``SelfComposed(event, k)`` stands for k draws of the event.
        delta : float or None, default=None
            Delta at which the plan is priced. None: the cap's delta (without a cap: 0 for a
            plan of pure events, else 1e-6).
        purpose, label : str, default=""
            As in :meth:`spend`.
        neighboring, null_ignored
            Relation of the events, as in :meth:`spend`; every draw must state the same.

        Returns
        -------
        LedgerPlan
            With its joint price, which counts as spent from here on, drawn or not.

        Raises
        ------
        PrivacyError
            The ledger has another mode, or a plan already.
        BudgetExceededError
            The plan's price is above the cap; nothing was declared.

        Notes
        -----
        One row of the ledger holds the whole plan, so that a kill leaves all of it or nothing.
        Then ``spend`` takes events from it, in any order: the order, like the queries, may
        depend on earlier outputs (Zhu, Dong, Wang 2022), the events may not. An event that is
        not left in the plan is refused.
        """
        if self.mode != "plan":
            raise PrivacyError(
                "this ledger has mode='filter': its events come one by one, and a list given to "
                "spend() is priced jointly. Make a ledger with mode='plan' to declare a plan and "
                "draw from it."
            )
        asked = self._asked(events, purpose, label, neighboring, null_ignored, None, "")
        if not parts_of(asked.events):
            raise InvalidParameterError("a plan needs at least one event.")
        with self._lock:
            self._refresh()
        price = self._price(asked, delta, plan=True)
        del asked.body["event"]
        asked.body |= {
            "events": [event.to_dict() for event in asked.events],
            "accountant": asked.profile.accountant,
            "order": json_number(asked.profile.order),
        }
        with self._appending() as transaction:
            self._undeclared()
            self._charges.caps.check(price, purpose, "")
            body = {**asked.body, **self._amounts(price)}
            transaction.append("plan", body)
        declared = self.declared
        assert declared is not None
        return declared

    def set_cap(
        self,
        cap: Budget | None,
        *,
        purpose: str | None = None,
        analyst: str | None = None,
        reason: str = "",
        allow_raise: bool = False,
    ) -> LedgerCap | None:
        """Set, change or remove the cap of the data set, of a purpose or of an analyst.

        Parameters
        ----------
        cap : Budget or None
            The most that may be spent there; None removes the cap.
        purpose, analyst : str or None, default=None
            Whose charges: those with this purpose, or of this analyst. ``"*"`` stands for each
            one without a cap of its own. Neither: the whole data set.
        reason : str, default=""
            Written down; must not hold data. Needed to raise a cap.
        allow_raise : bool, default=False
            Must be True for a change after which more may be spent than before.

        Returns
        -------
        LedgerCap or None
            The cap now in force for exactly this name.

        Raises
        ------
        PrivacyError
            The change would let more be spent, and ``allow_raise`` is False.
        InvalidBudgetError
            The ledger's filter cannot keep this cap.

        Notes
        -----
        A change is a new row of the ledger; nothing is overwritten. A charge must fit under the
        data set's cap and under those of its purpose and its analyst, all looked at in the
        transaction that writes it; they may sum to more than the data set's cap. Charges made
        before a cap count against it. A cap below what is spent leaves nothing to spend.

        A guarantee that holds at a cap fixed beforehand need not hold at one that was raised
        because of what was released (Rogers, Roth, Ullman, Vadhan 2016); ``spent()`` names
        raises among its assumptions.
        """
        scope, name = scope_of(purpose, analyst)
        checked_cap(cap)
        _text(reason=reason)
        check.boolean(allow_raise=allow_raise)
        self._newer_rows("caps that change")
        if scope != "dataset" and self.mode == "plan":
            raise PrivacyError(
                "a ledger with mode='plan' prices its plan as a whole, of which no purpose and "
                "no analyst has a part of its own. Use mode='filter' for such caps."
            )
        with self._appending() as transaction:
            body = self._charges.caps.propose(
                scope, name, cap, reason=reason, allow_raise=allow_raise
            )
            if body is not None:
                transaction.append("cap", body)
        with self._lock:
            self._refresh()
            return self._charges.caps.describe(scope, name)

    def caps(self) -> list[LedgerCap]:
        """Return the caps in force: of the data set, of purposes, of analysts."""
        with self._lock:
            self._refresh()
            return self._charges.caps.listed()

    def _asked(
        self,
        event: Any,
        purpose: str,
        label: str,
        neighboring: str | None,
        null_ignored: bool,
        unit: str | None,
        analyst: str | None,
    ) -> _Asked:
        events = _plan.as_events(event)
        who = self.analyst if analyst is None else analyst
        _text(purpose=purpose)
        _text(label=label)
        _text(analyst=who)
        relation = self.neighboring if neighboring is None else neighboring
        check.one_of(NEIGHBORING, neighboring=relation)
        if unit is not None and check.one_of(UNITS, unit=unit) != self.unit:
            raise IncompatibleNeighboringError(
                f"this ledger counts per {self.unit}, and the event is per {unit}. Use a ledger "
                "for each unit."
            )
        _plan.check_unit(events, self.unit)
        check_relation(self.neighboring, relation, events, null_ignored=null_ignored)
        single = events[0] if len(events) == 1 else ev.Composed(events)
        from privfair import __version__

        body = {
            "event": single.to_dict(),
            "purpose": purpose,
            "label": label,
            "analyst": who,
            "neighboring": relation,
            "null_ignored": bool(null_ignored),
            "version": __version__,
        }
        return _Asked(events, AccountedProfile(events, relation), body)

    def _price(self, asked: _Asked, delta: float | None, *, plan: bool = False) -> Spent:
        """What the events cost; no data are touched."""
        caps, reasons = self._charges.caps, asked.profile.plan.reasons
        cap = caps.in_force()
        if reasons and cap is not None and math.isfinite(cap.epsilon):
            raise BudgetExceededError(
                f"this release has no privacy guarantee ({', '.join(reasons)}) and the ledger "
                "has a cap. Nothing was released and nothing was spent. Use a ledger without a "
                "cap for data whose privacy is given up.",
                remaining=caps.remaining(),
            )
        if plan and delta is None and not reasons:
            if cap is not None:
                delta = cap.delta
            elif not math.isfinite(asked.profile.plan.pure_epsilon()):
                delta = max(UNCAPPED_DELTA, 2 * asked.profile.plan.revealed)
        return self._filter.value(asked.profile, delta)

    def _reserve(self, asked: _Asked, price: Spent) -> int:
        body = asked.body
        with self._appending() as transaction:
            if self.mode == "plan":
                plan = self._charges.plan
                if plan is None:
                    raise PrivacyError(
                        "this ledger has mode='plan' and no plan yet. Nothing was released and "
                        "nothing was spent. Declare all events with ledger.plan([...]) first."
                    )
                self._charges.caps.check(price, "", "")  # a cap lowered since stops the draws
                wanted = parts_of(asked.events)
                plan.check(wanted, body["neighboring"])
                body["plan"] = plan.row
            else:
                self._charges.caps.check(price, body["purpose"], body["analyst"])
            return transaction.append("reserved", {**body, **self._amounts(price)}).id

    def _amounts(self, price: Spent) -> dict[str, Any]:
        return {
            "epsilon": json_number(price.epsilon),
            "delta": price.delta + 0.0,  # no negative zero
            "loss": json_number(price.loss),
            "total": self._charges.total_after(price),
        }

    def _undeclared(self) -> None:
        self._newer_rows("plans")
        if self._charges.plan is not None:
            raise PrivacyError(
                f"this ledger has a plan, in row {self._charges.plan.row}. A plan is declared "
                "once, before anything is drawn; what comes later may depend on outputs. Use a "
                "ledger with mode='filter' for further events."
            )

    def _newer_rows(self, what: str) -> None:
        if self._log.schema < 2:
            raise LedgerError(
                f"{self._log.where} was made by an earlier version of privfair, whose programs "
                f"do not know {what} and would spend past them. Make a new ledger, and charge to "
                "it what this one holds."
            )

    @contextlib.contextmanager
    def _appending(self) -> Iterator[LogTransaction]:
        """Nobody else writes between what is read here and what is appended."""
        with self._lock, self._log.transaction() as transaction:
            with contextlib.closing(
                transaction.scan(self._charges.last, self._charges.hash)
            ) as rows:
                self._charges.take(rows)
            if transaction.head() != (self._charges.last, self._charges.hash):
                raise LogIntegrityError(
                    f"{self._log.where} has lost rows while it was in use: row "
                    f"{self._charges.last} was read and is not there any more. Nothing more is "
                    "spent on it. Restore it from a backup whose head you know."
                )
            yield transaction

    # --- reading --------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Take in the rows written since, by whoever wrote them."""
        # Closed at once, even by a row that is refused: a suspended reading holds the log's lock.
        with contextlib.closing(self._log.scan(self._charges.last, self._charges.hash)) as rows:
            self._charges.take(rows)

    def _total(self) -> Spent:
        return self._filter.total([self._charges.caps.total()])

    def spent(self, delta: float | None = None, *, non_adaptive: bool = False) -> PrivacyGuarantee:
        """Return the guarantee of everything charged so far.

        Parameters
        ----------
        delta : float or None, default=None
            Where to state the joint epsilon: with ``mode="plan"`` (the plan's delta when None)
            or ``non_adaptive=True`` (the sum of the charges' deltas when None).
        non_adaptive : bool, default=False
            False: a sum that holds even if later events were chosen after looking at earlier
            outputs. Under ``zcdp``, ``gdp`` and ``rdp`` it is read at one Renyi order fixed with
            the first cap, as by :class:`PrivacyOdometer`, and is never above the cap that the
            filter promises. True: all events priced jointly, a smaller number that
            assumes that the events (not the queries) were fixed beforehand; said so in
            ``assumptions``.
        """
        check.boolean(non_adaptive=non_adaptive)
        with self._lock:
            charged = [entry for entry in self._entries() if entry.state != "void"]
            total, caps, plan = self._total(), self._charges.caps, self._charges.plan
        labels = {"unit": self.unit, "neighboring": self.neighboring}
        raises = [change for change in caps.changes if change.raised and not change.name]
        caveats = (
            f"The data set's cap was raised {len(raises)} times, last in row {raises[-1].row}; "
            "the total is a guarantee at the raised cap if no raise depended on what had been "
            "released.",
        ) if raises else ()  # fmt: skip
        if plan is not None:
            return plan_guarantee(
                plan.public(), charged, labels=labels, relation=plan.body["neighboring"],
                delta=delta, caveats=caveats,
            )  # fmt: skip
        return total_guarantee(
            charged,
            total,
            self._filter,
            labels=labels,
            sentence=f"The ledger of {self.dataset_id!r} holds {{}} charges.",
            delta=delta,
            non_adaptive=non_adaptive,
            caveats=caveats,
        )

    def remaining(
        self, *, purpose: str | None = None, analyst: str | None = None
    ) -> Budget | None:
        """Return what is left under the cap, or None without a cap.

        Parameters
        ----------
        purpose, analyst : str or None, default=None
            With them: what a charge of this purpose by this analyst may still cost, under all
            caps that apply to it.
        """
        for name, text in (("purpose", purpose), ("analyst", analyst)):
            if text is not None:
                _text(**{name: text})
        with self._lock:
            self._refresh()
            return self._charges.caps.remaining(purpose or "", analyst or "")

    def entries(self) -> list[LedgerEntry]:
        """Return all charges, in order."""
        with self._lock:
            return self._entries()

    def _entries(self) -> list[LedgerEntry]:
        """Read all charges once more, checking the chain, and the rows that are new."""
        self._refresh()
        last, valued = self._charges.last, self.filter == "basic"
        with contextlib.closing(self._log.scan()) as read:
            rows = [row for row in read if row[0] <= last]
        if not rows or (rows[-1][0], rows[-1][4]) != (last, self._charges.hash):
            raise LogIntegrityError(
                f"row {last} of {self._log.where} is not what it was when it was first read. "
                "Restore the ledger from a backup whose head you know."
            )
        return list(entries_of(rows, valued=valued))

    def verify(self, head: tuple[int, str] | None = None) -> tuple[int, str]:
        """Recompute the hash chain, and all that the rows say about each other.

        Parameters
        ----------
        head : tuple of (int, str) or None, default=None
            A :meth:`head` stored earlier, which the ledger must still contain.

        Returns
        -------
        tuple of (int, str)
            Number of rows and hash of the last one.

        Raises
        ------
        LogIntegrityError
            Names the first row that was changed, is missing, settles what is not open, misstates
            a running total or a cap, or draws what was not declared.

        Notes
        -----
        Linear in the number of rows, one at a time. See
        :meth:`privfair.core.log.HashChainLog.verify` for what a chain cannot show.
        """
        fresh = Charges(self._log.where, self._settings)
        return self._log.verify(head, visit=fresh.visit)

    def head(self) -> tuple[int, str]:
        """Return the number of rows and the last hash, to be stored elsewhere."""
        return self._log.head()

    def export(self) -> dict[str, Any]:
        """Return the ledger as JSON data that may be published.

        Neither the path of the file nor anything about its key is in it.
        """
        with self._lock:
            entries, left, head = self.entries(), self.remaining(), self.head()
            spent, declared = self.spent(), self.declared
            caps, changes = self.caps(), list(self._charges.caps.changes)
            order, cap = self._filter.order, self.cap
        return {
            "schema": 2,
            "dataset_id": self.dataset_id,
            "unit": self.unit,
            "neighboring": self.neighboring,
            "mode": self.mode,
            "filter": self.filter,
            "order": json_number(order),
            "cap": None if cap is None else cap.to_dict(),
            "caps": [item.to_dict() for item in caps],
            "cap_changes": [change.to_dict() for change in changes],
            "plan": None if declared is None else declared.to_dict(),
            "head": list(head),
            "spent": spent.to_dict(),
            "remaining": None if left is None else left.to_dict(),
            "entries": [entry.to_dict() for entry in entries],
        }


@dataclass
class _Asked:
    """What a caller wants to charge, checked."""

    events: tuple[ev.AccountedEvent, ...]
    profile: AccountedProfile
    body: dict[str, Any]


def _text(**named: Any) -> str:
    (name, value), *_ = named.items()
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be a string, got {type(value).__name__}.")
    return value


class _Gone:
    """Stands for the log of a ledger in memory whose process is another one."""

    path = None
    where = "a ledger in the memory of another process"

    def __getattr__(self, name: str) -> Any:
        raise LedgerError(
            "this ledger was in the memory of another process, whose charges cannot be seen "
            "here. Give a ledger a path to share it between processes, or set another one."
        )


def _restore(path: str | None, token: str, settings: dict[str, Any], analyst: str = "") -> Ledger:
    """Rebuild a pickled ledger: the same object, the same file, or one that refuses to spend."""
    if path is not None:
        return Ledger.open(path, hmac_key=_key_from_environment(), analyst=analyst)
    found = _MEMORY.get(token)
    if found is not None and token.startswith(f"{os.getpid()}-"):
        return found
    gone = Ledger.__new__(Ledger)
    gone.analyst = analyst
    gone._log = _Gone()  # type: ignore[assignment]
    gone._adopt(settings)
    return gone


def _key_from_environment() -> bytes | None:
    text = os.environ.get("PRIVFAIR_LEDGER_KEY")
    if not text:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise LedgerError(
            "the environment variable PRIVFAIR_LEDGER_KEY does not hold a key in hexadecimal "
            "digits; a ledger with a key that comes from another process needs it."
        ) from None
