"""The hash-chained log: append-only, intact or named, shared by processes."""

import multiprocessing as mp
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from privfair.core.exceptions import (
    InvalidTypeError,
    LedgerError,
    LogIntegrityError,
    SchemaVersionError,
)
from privfair.core.log import SCHEMA, HashChainLog

KEY = bytes(range(32))


@pytest.fixture(params=["plain", "keyed"])
def key(request):
    return KEY if request.param == "keyed" else None


@pytest.fixture
def log(tmp_path, key):
    made = HashChainLog(tmp_path / "a b ü.db", kind="test", header={"x": 1}, key=key)
    for i in range(5):
        made.append("item", {"i": i, "text": "naïve"})
    return made


def test_what_is_written_is_read(log, key):
    rows = log.rows()
    assert [row.id for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0].kind == "header"
    assert log.header["x"] == 1
    assert [row.body["i"] for row in rows[1:]] == list(range(5))
    assert all(
        later.prev_hash == sooner.hash for sooner, later in zip(rows, rows[1:], strict=False)
    )
    assert log.verify() == log.head() == (6, rows[-1].hash)
    again = HashChainLog(log.path, kind="test", key=key)
    assert again.rows(after=4) == rows[4:]
    assert again.header == log.header


def test_update_and_delete_are_refused_by_the_file_itself(log):
    raw = sqlite3.connect(log.path)
    for statement in ("UPDATE log SET body = '{}' WHERE id = 3", "DELETE FROM log WHERE id = 3"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()
    log.verify()


def _tamper(path, *statements):
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER log_no_update")
    raw.execute("DROP TRIGGER log_no_delete")
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("""UPDATE log SET body = '{"i":9,"text":"naïve"}' WHERE id = 4""", 4),
        ("UPDATE log SET body = body || ' ' WHERE id = 4", 4),
        ("UPDATE log SET time = '2020-01-01T00:00:00+00:00' WHERE id = 2", 2),
        ("UPDATE log SET kind = 'other' WHERE id = 6", 6),
        ("UPDATE log SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE id = 5", 5),
        ("UPDATE log SET body = x'00ff' WHERE id = 3", 3),
        ("DELETE FROM log WHERE id = 3", 3),
        ("DELETE FROM log WHERE id = 1", 1),
        ("UPDATE log SET id = 60 WHERE id = 6", 6),
    ],
)
def test_every_edit_is_found_and_named(log, statement, row):
    _tamper(log.path, statement)
    with pytest.raises(LogIntegrityError, match=f"row {row} of"):
        log.verify()


def test_every_flipped_byte_of_content_is_found(tmp_path):
    """Each byte of the stored text of a row, flipped in the file, is named or unreadable."""
    path = tmp_path / "log.db"
    log = HashChainLog(path, kind="test")
    log.append("item", {"text": "needle-needle"})
    log.append("item", {"text": "after"})
    log.close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    original = path.read_bytes()
    at = original.index(b'{"text":"needle-needle"}')
    for offset in range(24):
        changed = bytearray(original)
        changed[at + offset] ^= 0x01
        path.write_bytes(changed)
        with pytest.raises(LogIntegrityError, match="row 2 of"):
            HashChainLog(path, kind="test", read_only=True).verify()
    path.write_bytes(original)
    assert HashChainLog(path, kind="test", read_only=True).verify()[0] == 3


def test_a_damaged_file_is_an_integrity_error(log):
    log.close()
    size = log.path.stat().st_size
    with log.path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(size - 100))
    for suffix in ("-wal", "-shm"):
        Path(f"{log.path}{suffix}").unlink(missing_ok=True)
    with pytest.raises(LedgerError):
        HashChainLog(log.path, kind="test", key=log._key).verify()


def test_a_stored_head_shows_what_the_chain_cannot(tmp_path):
    """Cutting off the newest rows leaves a valid chain; only a stored head shows it."""
    path = tmp_path / "log.db"
    log = HashChainLog(path, kind="test")
    log.append("item", {})
    early = log.head()
    log.append("item", {})
    late = log.head()
    log.verify(early)
    log.verify(late)
    _tamper(path, "DELETE FROM log WHERE id = 3")
    fresh = HashChainLog(path, kind="test")
    fresh.verify()
    fresh.verify(early)
    with pytest.raises(LogIntegrityError, match="rows 3 to 3 were cut off"):
        fresh.verify(late)
    fresh.append("item", {"other": True})
    with pytest.raises(LogIntegrityError, match="row 3 .* stored head"):
        fresh.verify(late)


def test_without_the_key_nobody_rebuilds_a_keyed_chain(tmp_path):
    """The same forgery (an edit and fresh SHA-256 hashes) passes unkeyed and fails keyed."""
    outcomes = {}
    for key in (None, KEY):
        path = tmp_path / f"{key is None}.db"
        log = HashChainLog(path, kind="test", key=key)
        log.append("item", {"spent": 5})
        forger = HashChainLog(tmp_path / f"forger{key is None}.db", kind="test")
        rows = log.rows()
        prev = rows[0].hash
        text = '{"spent":1}'
        fresh = forger._digest(prev, 2, rows[1].time, "item", text)
        _tamper(path, f"UPDATE log SET body = '{text}', hash = '{fresh}' WHERE id = 2")
        try:
            HashChainLog(path, kind="test", key=key).verify()
            outcomes[key] = "passed"
        except LogIntegrityError:
            outcomes[key] = "found"
    assert outcomes == {None: "passed", KEY: "found"}


def test_keys_are_asked_for(tmp_path):
    keyed, plain = tmp_path / "keyed.db", tmp_path / "plain.db"
    HashChainLog(keyed, kind="test", key=KEY).append("item", {})
    HashChainLog(plain, kind="test")
    with pytest.raises(LedgerError, match="pass the same key"):
        HashChainLog(keyed, kind="test")
    with pytest.raises(LedgerError, match="without a key"):
        HashChainLog(plain, kind="test", key=KEY)
    reader = HashChainLog(keyed, kind="test", read_only=True)
    assert len(reader.rows()) == 2
    with pytest.raises(LedgerError, match="needs the key"):
        reader.verify()
    with pytest.raises(LogIntegrityError, match="row 1 of"):
        HashChainLog(keyed, kind="test", key=KEY[::-1]).verify()
    with pytest.raises(InvalidTypeError, match="at least 16"):
        HashChainLog(key=b"short")
    assert KEY not in keyed.read_bytes()
    assert KEY.hex().encode() not in keyed.read_bytes()


def test_newer_schema_is_refused_before_anything_happens(tmp_path):
    path = tmp_path / "log.db"
    HashChainLog(path, kind="test").append("item", {})
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    raw.close()
    for read_only in (False, True):
        with pytest.raises(SchemaVersionError, match=f"version {SCHEMA + 1}") as caught:
            HashChainLog(path, kind="test", read_only=read_only)
        assert caught.value.exit_code == 4


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 100)
    with pytest.raises(LogIntegrityError):
        HashChainLog(text, kind="test")
    other = tmp_path / "other.db"
    raw = sqlite3.connect(other)
    raw.execute("CREATE TABLE people (name TEXT)")
    raw.close()
    with pytest.raises(LogIntegrityError, match="something else"):
        HashChainLog(other, kind="test")
    HashChainLog(tmp_path / "session.db", kind="session")
    with pytest.raises(LogIntegrityError, match="'session'"):
        HashChainLog(tmp_path / "session.db", kind="ledger")
    with pytest.raises(LedgerError, match="directory"):
        HashChainLog(tmp_path)
    with pytest.raises(LedgerError, match="folder"):
        HashChainLog(tmp_path / "no" / "log.db")
    with pytest.raises(LedgerError, match="does not exist"):
        HashChainLog(tmp_path / "no.db", read_only=True)
    assert not (tmp_path / "no.db").exists()


def test_a_file_marked_read_only_is_refused_for_writing_and_readable(log):
    log.close()
    log.path.chmod(0o444)
    with pytest.raises(LedgerError, match="read-only"):
        HashChainLog(log.path, kind="test", key=log._key)
    reader = HashChainLog(log.path, kind="test", key=log._key, read_only=True)
    assert reader.verify()[0] == 6
    with pytest.raises(LedgerError, match="reading only"):
        reader.append("item", {})


def test_a_failed_transaction_leaves_no_trace(log):
    before = log.head()

    def work():
        with log.transaction() as transaction:
            transaction.append("item", {"i": 99})
            assert transaction.head()[0] == 7
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert log.head() == before
    log.append("item", {"i": 5})
    log.verify()


def test_values_that_json_cannot_hold_are_refused(log):
    before = log.head()
    with pytest.raises(ValueError, match="JSON"):
        log.append("item", {"x": float("nan")})
    assert log.head() == before


def _write(path, count):
    log = HashChainLog(path, kind="test")
    for i in range(count):
        log.append("item", {"pid": os.getpid(), "i": i})


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_several_processes_write_one_chain(tmp_path, method):
    path = tmp_path / "log.db"
    context = mp.get_context(method)
    workers = [context.Process(target=_write, args=(path, 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    log = HashChainLog(path, kind="test")
    assert log.verify()[0] == 101
    for pid in {row.body["pid"] for row in log.rows(after=1)}:
        assert [r.body["i"] for r in log.rows(after=1) if r.body["pid"] == pid] == list(range(25))


def test_threads_write_one_chain(log):
    def work():
        for _ in range(20):
            log.append("item", {})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.verify()[0] == 86


def _in_child(log, queue):
    try:
        log.append("item", {"child": True})
        queue.put("written")
    except LedgerError as error:
        queue.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("where", ["file", "memory"])
def test_after_a_fork(tmp_path, where):
    """The child opens its own connection; a log in memory refuses, for nobody would see it."""
    log = HashChainLog(tmp_path / "log.db" if where == "file" else None, kind="test")
    log.append("item", {})
    context = mp.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(log, queue))
    child.start()
    told = queue.get(timeout=800)
    child.join(800)
    assert child.exitcode == 0
    log.append("item", {})
    if where == "file":
        assert told == "written"
        assert log.verify()[0] == 4
    else:
        assert "belongs to the process" in told
        assert log.verify()[0] == 3


def test_full_durability_is_switched_on(log):
    connection = log._connect()
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_network_mounts_are_noticed(tmp_path, monkeypatch):
    from privfair.core import _sqlite
    from privfair.core.exceptions import PrivfairWarning

    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    with pytest.warns(PrivfairWarning, match="network mount"):
        assert _sqlite.on_network(tmp_path / "log.db")
    assert not _sqlite.on_network(Path("/elsewhere/log.db"))
    with pytest.warns(PrivfairWarning):
        log = HashChainLog(tmp_path / "log.db", kind="test")
    assert log._connect().execute("PRAGMA journal_mode").fetchone()[0] == "delete"
