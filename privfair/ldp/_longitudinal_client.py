"""One user's device for values that are collected again and again: it keeps the memos."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
from numpy.typing import ArrayLike

from privfair.core.exceptions import (
    DataIntegrityError,
    InvalidParameterError,
    InvalidTypeError,
    PrivacyError,
)
from privfair.core.randomness import secret_stream
from privfair.ldp._longitudinal import LongitudinalProtocol
from privfair.ldp._memo import Drawer, MemoBook, StoreReceipt, receipt_of
from privfair.ldp._memo_file import StoreFile
from privfair.ldp._protocol import Ints, check_values
from privfair.ldp._reports import Reports

__all__ = ["LongitudinalClient"]

Protocols = LongitudinalProtocol | Mapping[str, LongitudinalProtocol]


class LongitudinalClient:
    """One user's device for repeated collection: memos are drawn once and kept.

    Parameters
    ----------
    protocols : LongitudinalProtocol or mapping of str to LongitudinalProtocol
        One protocol, or one per attribute.
    path : path-like or None, default=None
        File of the memo store. It is begun if it is not there; a new memo is on disk before a
        report from it is returned. None keeps memos in memory: save them with :meth:`to_bytes`
        or :meth:`save` before reports leave.
    receipt : StoreReceipt or None, default=None
        What :meth:`receipt` returned last, kept elsewhere: the store must be that one, and not an
        older state of it.
    reset : bool, default=False
        Whether to begin anew where the store is lost, damaged, foreign or of another protocol.
        What was spent stays spent, and every memo drawn again costs ``eps_perm`` again.
    noise_random_state : int or None, default=None
        None draws from the operating system's entropy; an int is for tests only.

    Attributes
    ----------
    resets_ : int
        How often memos were lost and drawn again.
    n_memos_ : int
        Memos in the store.
    seeded_ : bool
        Whether a memo was ever drawn from a repeatable stream.

    Raises
    ------
    DataIntegrityError
        The store is lost, damaged, older than its receipt, another user's, or was made for
        another protocol.

    Notes
    -----
    Beside the store lies a marker (``path + ".receipt"``), the receipt of its last write, which
    shows that a store was lost or replaced by an older copy. If both are lost, only a receipt
    kept elsewhere can tell. Files are readable by their owner only: memos are stored under the
    values that they stand for. Privacy: see ``epsilon_after`` of the protocol;
    :meth:`epsilon_spent` counts memos at ``eps_perm`` each, whatever the number of reports.

    Examples
    --------
    >>> from privfair.ldp import LGRR, LongitudinalClient
    >>> client = LongitudinalClient(LGRR(5, eps_perm=2.0, eps_1=1.0))
    >>> reports = client.privatize([3, 3, 3, 3])
    >>> len(reports), client.epsilon_spent()
    (4, 2.0)
    >>> again = LongitudinalClient.from_bytes(client.to_bytes(), client.protocols[""])
    >>> again.privatize(4).n, again.epsilon_spent()
    (1, 4.0)
    """

    def __init__(
        self,
        protocols: Protocols,
        *,
        path: str | os.PathLike[str] | None = None,
        receipt: StoreReceipt | None = None,
        reset: bool = False,
        noise_random_state: int | None = None,
    ) -> None:
        self.protocols = _checked(protocols)
        if receipt is not None and not isinstance(receipt, StoreReceipt):
            raise InvalidTypeError(
                f"receipt must be a StoreReceipt or None, got {type(receipt).__name__}."
            )
        self._stream = secret_stream(noise_random_state)
        self._thread = threading.Lock()
        self._file = None if path is None else StoreFile(path)
        self._forks = self._stream.forks
        if self._file is None:
            self._book = self._opened(None, receipt, None, reset)
            return
        with self._file.locked():
            data, marker = self._file.read(), self._marker(reset)
            self._book = self._opened(data, receipt, marker, reset)
            fresh = self._book.to_bytes()
            if reset and data is not None:
                self._file.put_aside(self._book.resets)
            if fresh != data or marker is None:
                self._file.write(fresh)

    def _marker(self, reset: bool) -> StoreReceipt | None:
        assert self._file is not None
        try:
            return self._file.receipt()
        except DataIntegrityError:
            if reset:
                return None
            raise

    def _opened(
        self,
        data: bytes | None,
        receipt: StoreReceipt | None,
        marker: StoreReceipt | None,
        reset: bool,
    ) -> MemoBook:
        """Return the book in the bytes if it is the expected one; else a new one, if allowed."""
        known = [r for r in (receipt, marker) if r is not None]
        try:
            if data is not None:
                book = MemoBook.from_bytes(data, self.protocols, self._stream)
                for expected in known:
                    _same(book, expected)
                if self._file is not None and not known and book.generation:
                    raise DataIntegrityError(
                        "the memo store has no marker beside it, so that it may be an old copy. "
                        "If it is the newest one, pass its receipt; otherwise restore that, or "
                        "pass reset=True, which counts what this copy says was spent."
                    )
            elif known:
                raise DataIntegrityError(
                    "the memo store is lost: a receipt shows that there was one. Drawing its "
                    "memos again would cost their epsilon again. Restore it, or pass reset=True, "
                    "which counts what was spent and begins anew."
                )
            else:
                book = None
        except DataIntegrityError:
            if not reset:
                raise
            return MemoBook.fresh(self.protocols, self._stream, _spent_before(data, known))
        if reset:
            raise InvalidParameterError(
                "reset=True, but there is no lost or mismatched store to replace: a reset costs "
                "the epsilon of all memos again. Leave it out, or pass the last receipt."
            )
        return book or MemoBook.fresh(self.protocols, self._stream)

    # -- reports ---------------------------------------------------------------------------------
    def privatize(self, values: ArrayLike, attribute: str | None = None) -> Reports:
        """Return one report per value, all of this user, in the order of time.

        Parameters
        ----------
        values : int or array-like of int
            In [0, k).
        attribute : str or None, default=None
            Which; needed if there are several.

        Returns
        -------
        Reports
            From memos that are kept: the same value always uses the same memo.
        """
        name = self._named(attribute)
        protocol = self.protocols[name]
        checked = check_values(np.atleast_1d(np.asarray(values)), protocol.k)
        with self._thread:
            drawer, keys = self._with_memos(name, checked)
            if not len(keys):
                return Reports(protocol, protocol.empty_payload())
            several, where = np.unique(keys, return_inverse=True)
            memos = np.concatenate([drawer.memos[int(key)] for key in several])[where]
            public = drawer.rows(len(keys))
            return Reports(protocol, protocol._draw_reports(memos, public, self._stream))

    def _with_memos(self, name: str, values: Ints) -> tuple[Drawer, Ints]:
        """Return the memos and which of them each value uses; missing ones are drawn and kept."""
        drawer = self._book.drawers[name]
        keys = _keys(drawer, values)
        if drawer.memos.keys() >= {int(key) for key in keys}:
            return drawer, keys
        if self._file is None and self._stream.forks != self._forks:
            raise PrivacyError(
                "this client was copied by a fork: parent and child would draw different memos "
                "for one value. Give it a path, or make reports in one process."
            )
        with nullcontext() if self._file is None else self._file.locked():
            book = self._book if self._file is None else self._refreshed()
            drawer = book.drawers[name]
            keys = _keys(drawer, values)
            absent = {int(key) for key in keys} - drawer.memos.keys()
            missing = np.array(sorted(absent), dtype=np.int64)
            if missing.size:
                rows = drawer.protocol._draw_memos(
                    missing, drawer.rows(missing.size), self._stream
                )
                drawer.memos.update({int(k): rows[i : i + 1] for i, k in enumerate(missing)})
                book.generation += 1
                book.seeded |= self._stream.seeded
                if self._file is not None:
                    self._file.write(book.to_bytes())
            self._book = book
        return drawer, keys

    def _refreshed(self) -> MemoBook:
        """Return the state on disk, where another process may have drawn memos."""
        assert self._file is not None
        data, marker = self._file.read(), self._file.receipt()
        mine = self._book.receipt()
        if data is None or marker is None:
            raise DataIntegrityError(
                "the memo store or its marker disappeared while it was in use. Restore it; no "
                "memo was drawn."
            )
        book = MemoBook.from_bytes(data, self.protocols, self._stream)
        for expected in (marker, mine):
            _same(book, expected)
        if not book.holds(self._book.to_bytes()):
            raise DataIntegrityError(_FORKED)
        return book

    def _named(self, attribute: str | None) -> str:
        if attribute is None and len(self.protocols) == 1:
            return next(iter(self.protocols))
        if attribute not in self.protocols:
            raise InvalidParameterError(
                f"attribute must be one of {sorted(self.protocols)}, got {attribute!r}."
            )
        return attribute

    # -- what was spent --------------------------------------------------------------------------
    def epsilon_spent(self, attribute: str | None = None) -> float:
        """Return what this user has spent: every memo ever drawn, lost ones included.

        Parameters
        ----------
        attribute : str or None, default=None
            None adds up all attributes.
        """
        if attribute is None:
            return float(sum(d.spent for d in self._book.drawers.values()))
        return self._book.drawers[self._named(attribute)].spent

    @property
    def resets_(self) -> int:
        """How often memos were lost and drawn again."""
        return self._book.resets

    @property
    def n_memos_(self) -> int:
        """Memos in the store."""
        return sum(len(d.memos) for d in self._book.drawers.values())

    @property
    def seeded_(self) -> bool:
        """Whether a memo was ever drawn from a repeatable stream."""
        return self._book.seeded

    def __repr__(self) -> str:
        return (
            f"LongitudinalClient({list(self.protocols.values())!r}, memos={self.n_memos_}, "
            f"resets={self.resets_})"
        )

    # -- the store -------------------------------------------------------------------------------
    def receipt(self) -> StoreReceipt:
        """Return what shows a loss of the store later; keep it elsewhere."""
        return self._book.receipt()

    def to_bytes(self) -> bytes:
        """Return the memo store: secret, to be kept on the device."""
        return self._book.to_bytes()

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        protocols: Protocols,
        *,
        receipt: StoreReceipt | None = None,
        noise_random_state: int | None = None,
    ) -> LongitudinalClient:
        """Return the client of a store; anything but its own protocols' store is an error."""
        out = cls(protocols, noise_random_state=noise_random_state)
        out._book = out._opened(bytes(data), receipt, None, False)
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the store to a file with its marker; never over another or a newer store."""
        file = StoreFile(path)
        with file.locked():
            data = file.read()
            if data is not None:
                there = receipt_of(data)
                if there.store_id != self._book.store_id.hex():
                    raise DataIntegrityError(
                        f"{file.path} holds another store, whose memos would be lost."
                    )
                if there.generation > self._book.generation:
                    raise DataIntegrityError(
                        f"{file.path} holds a newer state of this store, whose memos would be "
                        "lost. Load it."
                    )
                if not self._book.holds(data):
                    raise DataIntegrityError(_FORKED)
            file.write(self._book.to_bytes())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        protocols: Protocols,
        *,
        receipt: StoreReceipt | None = None,
        noise_random_state: int | None = None,
    ) -> LongitudinalClient:
        """Return the client of a store that must be there; new memos go to the same file."""
        if not StoreFile(path).path.exists():
            raise DataIntegrityError(
                f"there is no memo store at {os.fspath(path)}. If it is lost, open it by "
                "LongitudinalClient(protocols, path=..., reset=True)."
            )
        return cls(protocols, path=path, receipt=receipt, noise_random_state=noise_random_state)


_FORKED = (
    "the memo store on disk and this client are two continuations of one store: each has memos "
    "that the other lacks, and keeping one would lose what the other spent. Go on from the store "
    "on disk, and let no two clients begin from one copy."
)


def _keys(drawer: Drawer, values: Ints) -> Ints:
    return drawer.protocol._memo_keys(values, drawer.rows(len(values)))


def _checked(protocols: Protocols) -> dict[str, LongitudinalProtocol]:
    named = dict(protocols) if isinstance(protocols, Mapping) else {"": protocols}
    if not named:
        raise InvalidParameterError("protocols must name at least one attribute.")
    for name, protocol in named.items():
        if not isinstance(protocol, LongitudinalProtocol) or not isinstance(name, str):
            raise InvalidTypeError(
                "protocols must be a longitudinal protocol such as LOSUE(k, eps_perm, eps_1), or "
                f"a mapping of attributes to such; got {type(protocol).__name__}. For one report "
                "per value use Client."
            )
    return named


def _same(book: MemoBook, expected: StoreReceipt) -> None:
    """Refuse a store that is not the one of the receipt, or an older state of it."""
    if book.store_id.hex() != expected.store_id:
        raise DataIntegrityError(
            "the memo store is foreign: its identity is not the one of the receipt. Reports from "
            "another user's memos, or from new ones, would cost epsilon that nobody counts."
        )
    if book.generation < expected.generation:
        raise DataIntegrityError(
            f"the memo store is an old copy: generation {book.generation}, and the receipt is of "
            f"{expected.generation}. The memos drawn since are lost, and drawing them again would "
            "cost their epsilon again. Restore the newest copy, or pass reset=True."
        )


def _spent_before(data: bytes | None, known: list[StoreReceipt]) -> StoreReceipt:
    """Return the most that any trace of the lost store shows."""
    if not known:  # damaged, or of another protocol, without a marker
        try:
            known = [receipt_of(data or b"")]
        except DataIntegrityError:
            raise DataIntegrityError(
                "the memo store is damaged and there is no receipt: what was spent is unknown, so "
                "that it cannot be counted. Pass the last receipt."
            ) from None
    names = {name for r in known for name in r.spent}
    last = max(known, key=lambda r: (r.resets, r.generation))
    spent = {name: max(r.spent.get(name, 0.0) for r in known) for name in names}
    return StoreReceipt(last.store_id, last.generation, max(r.resets for r in known), spent)
