"""One append-only, hash-chained SQLite log, shared by the ledger and the auditors' sessions.

Each row holds the hash of the row before it, so that an edit anywhere breaks the chain from
there on. What the chain cannot see is truncation: a copy of the file from yesterday is a valid
file. Whoever needs to notice that stores :meth:`HashChainLog.head` elsewhere and passes it to
:meth:`HashChainLog.verify`. With a secret key the hashes are HMACs, which somebody without the
key cannot recompute after an edit.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from privfair.core._sqlite import network_kind, on_network, retry_busy, translated
from privfair.core.exceptions import (
    InvalidTypeError,
    LedgerError,
    LogIntegrityError,
    SchemaVersionError,
)

__all__ = ["CheckedRow", "HashChainLog", "LogRow", "LogTransaction"]

SCHEMA = 2
"""Version of the table layout, the hash rule and the kinds of rows; a newer file is refused, not
guessed at. Files of version 1 are read and written on as they are."""

_GENESIS = "0" * 64
_DDL = (
    "CREATE TABLE log (id INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, "
    "body TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TRIGGER log_no_update BEFORE UPDATE ON log "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    "CREATE TRIGGER log_no_delete BEFORE DELETE ON log "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_QUERY = "SELECT id, time, kind, body, prev_hash, hash FROM log WHERE id > ? ORDER BY id"
# Connections inherited through fork: closing one in the child would disturb the parent's file
# locks, so they are kept alive, unused, for as long as the child lives.
_INHERITED: list[sqlite3.Connection] = []


@dataclass(frozen=True)
class LogRow:
    """One row of a log.

    Attributes
    ----------
    id : int
        Position, from 1.
    time : str
        UTC time of writing (ISO 8601). Order is by ``id``; clocks may go backwards.
    kind : str
        What the row is.
    body : dict
        JSON data.
    prev_hash, hash : str
        Hexadecimal hash of the row before and of this row.
    """

    id: int
    time: str
    kind: str
    body: dict[str, Any]
    prev_hash: str
    hash: str


class LogTransaction:
    """Read-then-append inside one exclusive transaction; made by :meth:`HashChainLog.transaction`.

    Nothing is written unless the ``with`` block ends without an exception.
    """

    def __init__(self, log: HashChainLog, connection: sqlite3.Connection) -> None:
        self._log = log
        self._connection = connection

    def rows(self, after: int = 0) -> Iterator[LogRow]:
        """Yield the rows whose ``id`` is above ``after``, the ones appended here included."""
        yield from self._log._select(self._connection, after)

    def scan(self, after: int = 0, after_hash: str = "") -> Generator[CheckedRow, None, None]:
        """Like :meth:`HashChainLog.scan`, the rows appended here included."""
        yield from self._log._scan(self._connection, after, after_hash)

    def head(self) -> tuple[int, str]:
        """Return the number of rows and the hash of the last one."""
        return self._log._head(self._connection)

    def append(self, kind: str, body: dict[str, Any]) -> LogRow:
        """Append a row and return it."""
        count, prev = self.head()
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        text = canonical(body)
        row_hash = self._log._digest(prev, count + 1, stamp, kind, text)
        self._connection.execute(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)",
            (count + 1, stamp, kind, text, prev, row_hash),
        )
        return LogRow(count + 1, stamp, kind, json.loads(text), prev, row_hash)


CheckedRow = tuple[int, str, str, str, str]
"""``(id, time, kind, body as canonical JSON text, hash)`` of a row that was checked."""


class HashChainLog:
    """An append-only, hash-chained log in one SQLite file.

    Several processes may write to one file: every append happens in its own exclusive
    transaction, which is on the disk (``synchronous=FULL``) before the call returns. Each
    process and thread has its own connection, also after a fork.

    Parameters
    ----------
    path : str, Path or None, default=None
        The file, created if absent. None keeps the log in the memory of this process.
    kind : str, default="log"
        What the log is for; a file of another kind is refused.
    header : dict or None, default=None
        Written to the first row of a new file; for an existing file see :attr:`header`.
    key : bytes or None, default=None
        Secret key: hashes are then HMAC-SHA-256. Never stored.
    read_only : bool, default=False
        Open for reading: nothing is created or changed.
    timeout : float, default=60.0
        Seconds to wait for another writer.

    Attributes
    ----------
    header : dict
        Content of the first row.
    keyed : bool
        Whether the hashes are HMACs.
    schema : int
        Version of the file.

    Raises
    ------
    LedgerError
        The file cannot be opened, read or (unless ``read_only``) written.
    LogIntegrityError
        The file is not a log of this kind, or is damaged.
    SchemaVersionError
        The file was written by a newer version.

    Notes
    -----
    ``hash = SHA-256(prev_hash || canonical JSON of the row)``, or HMAC-SHA-256 under the key.
    An append costs one fsync; :meth:`verify` is linear in the number of rows. A chain detects
    edits, insertions, deletions and re-ordering. It does not detect that rows at the end are
    missing (compare a stored :meth:`head`), and without a key it does not stop somebody who
    can write the file from building a new chain.

    References
    ----------
    Haber, Stornetta 1991, How to time-stamp a digital document.

    Examples
    --------
    >>> log = HashChainLog()
    >>> log.append("note", {"text": "first"}).id
    2
    >>> [row.kind for row in log.rows()]
    ['header', 'note']
    >>> log.verify() == log.head()
    True
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        kind: str = "log",
        header: dict[str, Any] | None = None,
        key: bytes | None = None,
        read_only: bool = False,
        timeout: float = 60.0,
    ) -> None:
        if key is not None and not (isinstance(key, bytes) and len(key) >= 16):
            raise InvalidTypeError(
                "key must be bytes, at least 16 of them, or None. A shorter key can be guessed; "
                "make one with secrets.token_bytes(32) and keep it outside the log's folder."
            )
        self.path = None if path is None else Path(path).absolute()
        self.kind = kind
        self.read_only = read_only
        self.timeout = timeout
        self._key = key
        self._local = threading.local()
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._memory: sqlite3.Connection | None = None
        self.keyed = key is not None
        with translated(self.where):
            self.header = self._open(header or {})

    # --- opening --------------------------------------------------------------------------

    def _open(self, header: dict[str, Any]) -> dict[str, Any]:
        if self.path is not None:
            self._check_target(self.path)
        connection = self._connect()
        if not self._has_table(connection):
            if self.read_only:
                raise LogIntegrityError(f"{self.where} is not a privfair log.")
            self._create(connection, header)
        self._check_version(connection)
        first = connection.execute(f"{_QUERY} LIMIT 1", (0,)).fetchone()
        if first is None or first[0] != 1 or first[2] != "header":
            raise LogIntegrityError(f"row 1 of {self.where} is not there, or is no header.")
        return self._check_header(first)

    def _check_target(self, path: Path) -> None:
        if path.is_dir():
            raise LedgerError(f"{path} is a directory; give the name of a file.")
        if not path.exists():
            if self.read_only:
                raise LedgerError(f"{path} does not exist.")
            if not path.parent.is_dir():
                raise LedgerError(f"the folder {path.parent} does not exist; create it first.")
            return
        # The mode is looked at as well because root may write what is marked read-only.
        marked = not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
        if not self.read_only and (marked or not os.access(path, os.W_OK)):
            raise LedgerError(
                f"{path} is read-only. Nothing was released: a charge that cannot be written "
                "down must not be made. Make the file writable or use another ledger."
            )

    def _connect(self) -> sqlite3.Connection:
        pid = os.getpid()
        if self.path is None:
            if pid != self._owner:
                raise LedgerError(
                    "a log in memory belongs to the process that made it; what a forked process "
                    "writes would be lost. Give it a path to share it between processes."
                )
            if self._memory is None:
                self._memory = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
            return self._memory
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is not None:
            if held[0] == pid:
                return held[1]
            _INHERITED.append(held[1])
        connection = self._connect_file(self.path)
        self._local.held = (pid, connection)
        return connection

    def _connect_file(self, path: Path) -> sqlite3.Connection:
        where = f"file:{quote(str(path))}"
        if self.read_only:
            connection = sqlite3.connect(
                where + "?mode=ro", uri=True, timeout=self.timeout, isolation_level=None
            )
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError:
                # SQLite cannot make its shared-memory file in a folder that is not writable;
                # without a write-ahead log beside it the file is complete by itself.
                connection.close()
                if Path(f"{path}-wal").exists():
                    raise
                connection = sqlite3.connect(
                    where + "?immutable=1", uri=True, isolation_level=None
                )
            return connection
        connection = sqlite3.connect(
            where + "?mode=rwc", uri=True, timeout=self.timeout, isolation_level=None
        )
        mode = "DELETE" if on_network(path) else "WAL"
        connection.execute(f"PRAGMA busy_timeout={int(1000 * self.timeout)}")
        retry_busy(lambda: connection.execute(f"PRAGMA journal_mode={mode}"), self.timeout)
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    @staticmethod
    def _has_table(connection: sqlite3.Connection) -> bool:
        query = "SELECT count(*) FROM sqlite_master WHERE type='table' AND name='log'"
        return bool(connection.execute(query).fetchone()[0])

    def _create(self, connection: sqlite3.Connection, header: dict[str, Any]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._has_table(connection):  # another process may have been faster
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise LogIntegrityError(f"{self.where} is a database of something else.")
                for statement in _DDL:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA}")
                fixed = {"log": self.kind, "schema": SCHEMA, "keyed": self.keyed}
                LogTransaction(self, connection).append("header", {**header, **fixed})
            connection.execute("COMMIT")
        except BaseException:
            _rollback(connection)
            raise

    def _check_version(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA:
            self._newer(found)

    def _newer(self, found: int) -> NoReturn:
        raise SchemaVersionError(
            f"{self.where} has schema version {found}; this version of privfair reads up to "
            f"{SCHEMA}. Install a newer privfair; nothing was changed."
        )

    def _check_header(self, row: tuple[Any, ...]) -> dict[str, Any]:
        header = self._body(1, row[3])
        keyed = bool(header.get("keyed"))
        if self._key is not None and not keyed:
            number, stamp, kind, text, prev, row_hash = row
            if _hash(None, prev, number, stamp, kind, text) != row_hash:
                self._broken(1, "was changed: its content does not have its hash")
            raise LedgerError(f"{self.where} was made without a key; open it without one.")
        if keyed and self._key is None and not self.read_only:
            raise LedgerError(
                f"{self.where} is protected by a key; pass the same key to write to it."
            )
        self.keyed = keyed
        self._check_row(row, _GENESIS, 1)
        if int(header.get("schema", 0)) > SCHEMA:
            self._newer(header["schema"])
        if header.get("log") != self.kind:
            raise LogIntegrityError(
                f"{self.where} is a log of kind {header.get('log')!r}, not {self.kind!r}."
            )
        self.schema = int(header.get("schema", 0))
        return header

    def _body(self, number: int, text: Any) -> dict[str, Any]:
        try:
            body = json.loads(text)
        except (TypeError, ValueError):
            body = None
        if not isinstance(body, dict):
            raise LogIntegrityError(f"row {number} of {self.where} is not valid JSON.")
        return body

    @property
    def network(self) -> str | None:
        """Kind of the network mount on which the file lies, or None on a local disk.

        On a network mount the rollback journal (``DELETE``) stands in for the write-ahead log,
        and several writers depend on that mount's file locks.
        """
        return None if self.path is None else network_kind(self.path)

    @property
    def where(self) -> str:
        """The log in words, for messages."""
        return "the log in memory" if self.path is None else str(self.path)

    # --- writing --------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[LogTransaction]:
        """Open an exclusive read-then-append transaction.

        No other process or thread can append between what is read and what is written here.
        An exception in the block undoes every append made in it.
        """
        if self.read_only:
            raise LedgerError(f"{self.where} was opened for reading only.")
        with self._lock, translated(self.where):
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield LogTransaction(self, connection)
                connection.execute("COMMIT")
            except BaseException:
                _rollback(connection)
                raise

    def append(self, kind: str, body: dict[str, Any]) -> LogRow:
        """Append one row; it is on the disk when this returns."""
        with self.transaction() as transaction:
            return transaction.append(kind, body)

    # --- reading --------------------------------------------------------------------------

    def rows(self, after: int = 0) -> list[LogRow]:
        """Return the rows whose ``id`` is above ``after``, in order."""
        with self._lock, translated(self.where):
            return list(self._select(self._connect(), after))

    def head(self) -> tuple[int, str]:
        """Return the number of rows and the hash of the last: what to store elsewhere."""
        with self._lock, translated(self.where):
            return self._head(self._connect())

    def _head(self, connection: sqlite3.Connection) -> tuple[int, str]:
        found = connection.execute("SELECT id, hash FROM log ORDER BY id DESC LIMIT 1").fetchone()
        return (int(found[0]), str(found[1])) if found else (0, _GENESIS)

    def _select(self, connection: sqlite3.Connection, after: int) -> Iterator[LogRow]:
        for number, stamp, kind, text, prev, row_hash in connection.execute(_QUERY, (after,)):
            yield LogRow(number, stamp, kind, self._body(number, text), prev, row_hash)

    def scan(self, after: int = 0, after_hash: str = "") -> Generator[CheckedRow, None, None]:
        """Yield the rows after row ``after``, each checked against the one before it.

        Reading with it is :meth:`verify` spread over time: give the row and the hash at which
        the last reading ended. Nothing is kept in memory. Without the key of a keyed log only
        the links between rows are compared. Until it is exhausted or closed
        (``contextlib.closing``), the reading holds this object's lock.

        Raises
        ------
        LogIntegrityError
            Names the first bad row; the rows before it have been yielded.
        """
        with self._lock, translated(self.where):
            yield from self._scan(self._connect(), after, after_hash)

    def _scan(
        self, connection: sqlite3.Connection, after: int, after_hash: str
    ) -> Generator[CheckedRow, None, None]:
        count, last = after, after_hash or _GENESIS
        try:
            for row in connection.execute(_QUERY, (after,)):
                self._check_row(row, last, count + 1)
                count, stamp, kind, text, _, last = row
                yield count, stamp, kind, text, last
        except (sqlite3.Error, UnicodeError) as error:
            if "locked" in str(error) or "busy" in str(error):
                raise
            self._broken(count + 1, f"cannot be read ({error})")

    def _check_row(self, row: tuple[Any, ...], last: str, expected: int) -> None:
        number, stamp, kind, text, prev, row_hash = row
        if number != expected:
            self._broken(expected, f"is missing; the next row is {number}")
        if prev != last:
            self._broken(number, "does not follow from the row before it")
        if not (type(stamp) is type(kind) is type(text) is type(row_hash) is str):
            self._broken(number, "holds a value of the wrong type")
        if self.keyed and self._key is None:
            return
        found = self._digest(prev, number, stamp, kind, text)
        if not hmac.compare_digest(found.encode(), row_hash.encode()):
            self._broken(number, "was changed: its content does not have its hash")

    def verify(
        self,
        head: tuple[int, str] | None = None,
        *,
        visit: Callable[[int, str, str, str, str], None] | None = None,
    ) -> tuple[int, str]:
        """Recompute the whole chain.

        Parameters
        ----------
        head : tuple of (int, str) or None, default=None
            A head stored earlier: the log must still contain it, which shows that nothing up
            to there was cut off or replaced.
        visit : callable or None, default=None
            Called with the fields of each row once the row is checked: for a reader that has
            more to check than the chain.

        Returns
        -------
        tuple of (int, str)
            The head of the verified chain.

        Raises
        ------
        LogIntegrityError
            Names the first bad row.
        """
        if self.keyed and self._key is None:
            raise LedgerError(f"{self.where} is protected by a key; verifying it needs the key.")
        count, last = 0, _GENESIS
        with contextlib.closing(self.scan()) as rows:
            for number, stamp, kind, text, row_hash in rows:
                if head is not None and number == head[0] and row_hash != head[1]:
                    self._broken(number, "does not have the hash of the stored head")
                if visit is not None:
                    visit(number, stamp, kind, text, row_hash)
                count, last = number, row_hash
        if count == 0:
            self._broken(1, "is missing")
        if head is not None and head[0] > count:
            raise LogIntegrityError(
                f"{self.where} has {count} rows, and the stored head names row {head[0]}: "
                f"rows {count + 1} to {head[0]} were cut off, or the file is an older copy."
            )
        return count, last

    def _broken(self, row: int, what: str) -> NoReturn:
        raise LogIntegrityError(
            f"row {row} of {self.where} {what}. Rows before it are intact; from there on the "
            "log proves nothing. Restore it from a backup whose head you know."
        )

    def _digest(self, prev: str, number: int, stamp: str, kind: str, text: str) -> str:
        return _hash(self._key, prev, number, stamp, kind, text)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
            if self._memory is not None and self._owner == os.getpid():
                self._memory.close()

    def close(self) -> None:
        """Close this thread's connection; the log opens again when it is next used."""
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid():
            held[1].close()
        self._local.held = None


def _hash(key: bytes | None, prev: str, number: int, stamp: str, kind: str, text: str) -> str:
    # The JSON list [number, stamp, kind, text], written by hand: it is most of the time of a
    # verification.
    message = f"{prev}[{number},{_quoted(stamp)},{_quoted(kind)},{_quoted(text)}]"
    if key is None:
        return hashlib.sha256(message.encode()).hexdigest()
    return hmac.digest(key, message.encode(), "sha256").hex()


def canonical(body: dict[str, Any]) -> str:
    """Return the one JSON text that stands for ``body``."""
    return _CANONICAL(body)


def _rollback(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
