"""The ledger: charges are written down before anything is released."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from privfair.accounting import _plan
from privfair.accounting import events as ev
from privfair.accounting._charges import (
    Charges,
    LedgerEntry,
    LedgerTransaction,
    check_relation,
    total_guarantee,
)
from privfair.accounting._filters import Filter, Spent, filter_of, header_of
from privfair.accounting.accountant import AccountedProfile
from privfair.core import _validation as check
from privfair.core._format import json_number
from privfair.core.exceptions import (
    BudgetExceededError,
    IncompatibleNeighboringError,
    InvalidParameterError,
    InvalidTypeError,
    LedgerError,
)
from privfair.core.log import HashChainLog
from privfair.core.privacy import NEIGHBORING, NUMERICS, UNITS, Budget, PrivacyGuarantee

__all__ = ["Ledger", "LedgerEntry", "LedgerTransaction"]

_KIND = "ledger"
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
        The most that may be spent, fixed when the file is made. None sets no limit (for an
        existing file: keeps its own).
    dataset_id : str, default="default"
        Name of the data set; never anything computed from the data.
    unit : {"record", "user", "client"}, default="record"
        Whose data the charges refer to.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation of the total.
    mode : {"filter"}, default="filter"
        Events may depend on earlier outputs. A plan that is fixed beforehand needs no mode:
        spend it as one ``Composed`` event, which is priced jointly.
    filter : {"basic", "zcdp", "gdp", "rdp"}, default="basic"
        In which currency charges add up. ``basic`` takes every event.
    hmac_key : bytes or None, default=None
        Secret key of at least 16 bytes; without it nobody can rewrite the chain.
    order : float or None, default=None
        Renyi order of ``filter="rdp"``, fixed when the file is made.

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
    ) -> None:
        if cap is not None and not isinstance(cap, Budget):
            raise InvalidTypeError(f"cap must be a Budget or None, got {type(cap).__name__}.")
        if not isinstance(dataset_id, str) or not dataset_id:
            raise InvalidTypeError("dataset_id must be a non-empty string.")
        check.one_of(UNITS, unit=unit)
        check.one_of(NEIGHBORING, neighboring=neighboring)
        if mode != "filter":
            raise InvalidParameterError(
                f"mode must be 'filter', got {mode!r}. For a plan fixed beforehand spend one "
                "Composed([...]) event: it is priced jointly, and later outputs cannot change it."
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
        self._compare(asked)
        self._setup()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        hmac_key: bytes | None = None,
        read_only: bool = False,
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
        """
        if not Path(path).exists():
            raise LedgerError(f"{path} does not exist; Ledger(path) makes a new ledger.")
        self = cls.__new__(cls)
        self._log = HashChainLog(path, kind=_KIND, key=hmac_key, read_only=read_only)
        self._setup()
        return self

    def _compare(self, asked: dict[str, Any]) -> None:
        found = self._log.header
        for name in _SETTINGS:
            given, stored = asked[name], found.get(name)
            kept = (name == "dataset_id" and given == "default") or (
                name in ("cap", "order") and given is None
            )
            if name == "order" and asked["cap"] is None:
                kept = True
            if not kept and given != stored:
                raise LedgerError(
                    f"{self._log.where} was made with {name}={stored!r}, and {given!r} was "
                    "asked for. A ledger's settings are fixed; use Ledger.open(path) to take "
                    "them from the file, or another file."
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
        stored = header["cap"]
        self.cap: Budget | None = (
            None if stored is None else Budget(float(stored["epsilon"]), stored["delta"])
        )
        self._filter = filter_of(header, self.cap)
        self._settings = {key: header[key] for key in _SETTINGS}
        self._lock = threading.RLock()
        self._charges = Charges(self._log)
        self._token = f"{os.getpid()}-{os.urandom(12).hex()}"

    # --- identity -------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The file, or None."""
        return self._log.path

    @property
    def filter(self) -> str:
        """In which currency charges add up."""
        return str(self._filter.kind)

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
            self._settings,
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
            f"neighboring={self.neighboring!r}, filter={self.filter!r}, cap={self.cap})"
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

        Yields
        ------
        LedgerTransaction
            With ``entry_id`` and ``void(touched_data=False)``.

        Raises
        ------
        BudgetExceededError
            The cap would be passed. Raised before the body runs; nothing is spent.
        IncompatibleNeighboringError
            The event has no guarantee under this ledger's relation or unit.

        Notes
        -----
        An exception in the body leaves the charge spent: the ledger cannot know what was
        learnt before it.
        """
        charge, body = self._prepare(
            event, purpose, label, delta, neighboring, null_ignored, unit, numerics, seeded
        )
        transaction = LedgerTransaction(self._log, self._reserve(charge, body))
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

    def _prepare(
        self,
        event: Any,
        purpose: str,
        label: str,
        delta: float | None,
        neighboring: str | None,
        null_ignored: bool,
        unit: str | None,
        numerics: str,
        seeded: bool,
    ) -> tuple[Spent, dict[str, Any]]:
        events = _plan.as_events(event)
        for name, text in (("purpose", purpose), ("label", label)):
            if not isinstance(text, str):
                raise InvalidTypeError(f"{name} must be a string, got {type(text).__name__}.")
        check.one_of(NUMERICS, numerics=numerics)
        check.boolean(seeded=seeded)
        relation = self.neighboring if neighboring is None else neighboring
        check.one_of(NEIGHBORING, neighboring=relation)
        if unit is not None and check.one_of(UNITS, unit=unit) != self.unit:
            raise IncompatibleNeighboringError(
                f"this ledger counts per {self.unit}, and the event is per {unit}. Use a ledger "
                "for each unit."
            )
        check_relation(self.neighboring, relation, events, null_ignored=null_ignored)
        profile = AccountedProfile(events, relation)
        if profile.plan.reasons and self.cap is not None and math.isfinite(self.cap.epsilon):
            raise BudgetExceededError(
                f"this release has no privacy guarantee ({', '.join(profile.plan.reasons)}) and "
                "the ledger has a cap. Nothing was released and nothing was spent. Use a ledger "
                "without a cap for data whose privacy is given up.",
                remaining=self.remaining(),
            )
        charge = self._filter.value(profile, delta)
        single = events[0] if len(events) == 1 else ev.Composed(events)
        from privfair import __version__

        body = {
            "event": single.to_dict(),
            "purpose": purpose,
            "label": label,
            "neighboring": relation,
            "null_ignored": bool(null_ignored),
            "numerics": numerics,
            "seeded": seeded,
            "epsilon": json_number(charge.epsilon),
            "delta": charge.delta,
            "loss": json_number(charge.loss),
            "version": __version__,
        }
        return charge, body

    def _reserve(self, charge: Spent, body: dict[str, Any]) -> int:
        with self._lock, self._log.transaction() as transaction:
            self._charges.take(transaction.rows(after=self._charges.last))
            self._filter.check(self._total(), charge)
            row = transaction.append("reserved", body)
        return row.id

    # --- reading --------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Take in the rows written since, by whoever wrote them."""
        self._charges.take(self._log.rows(after=self._charges.last))

    def _total(self) -> Spent:
        return self._filter.total(self._charges.spent())

    def spent(self, delta: float | None = None, *, non_adaptive: bool = False) -> PrivacyGuarantee:
        """Return the guarantee of everything charged so far.

        Parameters
        ----------
        delta : float or None, default=None
            Only with ``non_adaptive=True``: where to state the joint epsilon (the sum of the
            charges' deltas when None).
        non_adaptive : bool, default=False
            False: the sum that the filter guarantees even if later events were chosen after
            looking at earlier outputs. True: all events priced jointly, a smaller number that
            assumes that the events (not the queries) were fixed beforehand; said so in
            ``assumptions``.
        """
        with self._lock:
            self._refresh()
            charged = list(self._charges.entries(valued=True))
            total = self._total()
        return total_guarantee(
            [entry for entry in charged if entry.state != "void"],
            total,
            self._filter,
            labels={"unit": self.unit, "neighboring": self.neighboring},
            sentence=f"The ledger of {self.dataset_id!r} holds {{}} charges.",
            delta=delta,
            non_adaptive=check.boolean(non_adaptive=non_adaptive),
        )

    def remaining(self) -> Budget | None:
        """Return what is left under the cap, or None without a cap."""
        if self.cap is None:
            return None
        with self._lock:
            self._refresh()
            return self._filter.remaining(self._total())

    def entries(self) -> list[LedgerEntry]:
        """Return all charges, in order."""
        with self._lock:
            self._refresh()
            return list(self._charges.entries(valued=self.filter == "basic"))

    def verify(self, head: tuple[int, str] | None = None) -> tuple[int, str]:
        """Recompute the hash chain; see :meth:`privfair.core.log.HashChainLog.verify`."""
        return self._log.verify(head)

    def head(self) -> tuple[int, str]:
        """Return the number of rows and the last hash, to be stored elsewhere."""
        return self._log.head()

    def export(self) -> dict[str, Any]:
        """Return the ledger as JSON data that may be published."""
        left = self.remaining()
        return {
            "schema": 1,
            "dataset_id": self.dataset_id,
            "unit": self.unit,
            "neighboring": self.neighboring,
            "filter": self.filter,
            "order": json_number(self._filter.order),
            "cap": None if self.cap is None else self.cap.to_dict(),
            "head": list(self.head()),
            "spent": self.spent().to_dict(),
            "remaining": None if left is None else left.to_dict(),
            "entries": [entry.to_dict() for entry in self.entries()],
        }


class _Gone:
    """Stands for the log of a ledger in memory whose process is another one."""

    path = None

    def __getattr__(self, name: str) -> Any:
        raise LedgerError(
            "this ledger was in the memory of another process, whose charges cannot be seen "
            "here. Give a ledger a path to share it between processes, or set another one."
        )


def _restore(path: str | None, token: str, settings: dict[str, Any]) -> Ledger:
    """Rebuild a pickled ledger: the same object, the same file, or one that refuses to spend."""
    if path is not None:
        text = os.environ.get("PRIVFAIR_LEDGER_KEY")
        return Ledger.open(path, hmac_key=bytes.fromhex(text) if text else None)
    found = _MEMORY.get(token)
    if found is not None and token.startswith(f"{os.getpid()}-"):
        return found
    gone = Ledger.__new__(Ledger)
    gone._log = _Gone()  # type: ignore[assignment]
    gone._adopt(settings)
    return gone
