"""What goes wrong around a ledger: it stops before the data, over-counts, and names the row."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from privfair import accounting as ac
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    LedgerError,
    LogIntegrityError,
    SchemaVersionError,
)
from privfair.core.log import SCHEMA

ROOT = Path(__file__).parents[2]
KEY = bytes(range(32))


def charge(ledger, epsilon=0.1, **options):
    with ledger.spend(ac.PureDP(epsilon), **options) as transaction:
        return transaction.entry_id


def whole(ledger):
    """Close the ledger with everything in its one file."""
    path = ledger.path
    ledger._log.close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    return path


@pytest.fixture(scope="module", params=[None, KEY], ids=["plain", "keyed"])
def made(request, tmp_path_factory):
    """A ledger with every kind of row, and the bytes of its file."""
    folder = tmp_path_factory.mktemp("made")
    ledger = ac.Ledger(folder / "l.db", cap=Budget(5.0, 1e-6), hmac_key=request.param)
    charge(ledger, 0.2, purpose="first", analyst="ana")
    ledger.set_cap(Budget(1.0, 1e-6), purpose="first", reason="agreed")
    with ledger.spend(ac.PureDP(0.1), purpose="never ran") as transaction:
        transaction.void(touched_data=False)
    charge(ledger, 0.3, purpose="last")
    rows = [(row.id, row.kind) for row in ledger._log.rows()]
    assert {kind for _, kind in rows} == {"header", "reserved", "released", "cap", "void"}
    path = whole(ledger)
    return path.read_bytes(), request.param, ledger.spent().epsilon


# -- the file is changed ------------------------------------------------------------------------
def cells(path):
    """Where each row's stored texts lie in the file."""
    raw = sqlite3.connect(path)
    found = raw.execute("SELECT id, time, body, prev_hash, hash FROM log").fetchall()
    raw.close()
    return found


@pytest.mark.parametrize("field", [1, 2, 3, 4], ids=["time", "body", "prev_hash", "hash"])
def test_one_byte_edited_in_any_row_is_found_and_the_row_is_named(made, tmp_path, field):
    original, key, _ = made
    path = tmp_path / "l.db"
    path.write_bytes(original)
    rows = cells(path)
    assert len(rows) == 8
    for row in rows:
        # A row is one record: its fields lie together, in the order of the table.
        start = original.index((row[1]).encode()) if field == 1 else original.index(
            row[2].encode() + row[3].encode() + row[4].encode()
        ) + sum(len(row[i]) for i in range(2, field))  # fmt: skip
        for offset in {*range(0, len(row[field]), 9), len(row[field]) - 1}:
            changed = bytearray(original)
            changed[start + offset] ^= 0x01
            path.write_bytes(changed)
            with pytest.raises(LogIntegrityError, match=rf"row {row[0]} of"):
                ac.Ledger.open(path, hmac_key=key, read_only=True).verify()
    path.write_bytes(original)
    assert ac.Ledger.open(path, hmac_key=key, read_only=True).verify()[0] == 8


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_not_spent_on(made, tmp_path, share):
    original, key, _ = made
    path = tmp_path / "l.db"
    path.write_bytes(original[: int(share * len(original))])
    with pytest.raises(LogIntegrityError) as caught:
        charge(ac.Ledger.open(path, hmac_key=key))
    assert caught.value.exit_code == 4


def test_an_empty_file_is_no_ledger_to_open_and_a_new_one_to_make(tmp_path):
    path = tmp_path / "l.db"
    path.touch()
    with pytest.raises(LogIntegrityError):
        ac.Ledger.open(path, read_only=True)


def test_rows_that_are_lost_while_the_ledger_is_in_use_stop_it(tmp_path):
    """Somebody puts yesterday's copy back: whoever has read more notices, and stops."""
    path = tmp_path / "l.db"
    ledger = ac.Ledger(path, cap=Budget(1.0))
    charge(ledger, 0.4)
    copy = shutil.copy(whole(ledger), tmp_path / "yesterday.db")
    charge(ledger, 0.4)
    ledger.spent()
    whole(ledger)
    shutil.copy(copy, path)
    with pytest.raises(LogIntegrityError, match="lost rows while it was in use"):
        charge(ledger, 0.4)
    # A process that starts now cannot know; that is what a stored head is for.
    assert ac.Ledger.open(path).remaining() == Budget(0.6)


def test_a_newer_file_has_its_own_error(made, tmp_path):
    original, key, _ = made
    path = tmp_path / "l.db"
    path.write_bytes(original)
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    raw.close()
    for act in (lambda: ac.Ledger(path, hmac_key=key), lambda: ac.Ledger.open(path, hmac_key=key),
                lambda: ac.Ledger.open(path, read_only=True)):  # fmt: skip
        with pytest.raises(SchemaVersionError, match="Install a newer privfair") as caught:
            act()
        assert caught.value.exit_code == 4


@pytest.mark.parametrize("made", [KEY], indirect=True, ids=["keyed"])
def test_the_wrong_key_and_no_key(made, tmp_path):
    original, _, spent = made
    path = tmp_path / "l.db"
    path.write_bytes(original)
    with pytest.raises(LedgerError, match="pass the same key"):
        ac.Ledger.open(path)
    with pytest.raises(LogIntegrityError, match="row 1 of"):
        charge(ac.Ledger.open(path, hmac_key=KEY[::-1]))
    reader = ac.Ledger.open(path, read_only=True)
    assert reader.spent().epsilon == spent
    with pytest.raises(LedgerError, match="needs the key"):
        reader.verify()
    # Who has no key can copy the rules of the chain, and not its hashes.
    forger = ac.Ledger(tmp_path / "forged.db", cap=Budget(5.0, 1e-6))
    charge(forger, 0.1)
    with pytest.raises(LedgerError, match="without a key"):
        ac.Ledger.open(forger.path, hmac_key=KEY)


# -- the disk says no ---------------------------------------------------------------------------
ONE_CHARGE = """
import os, sys
path, uid = sys.argv[1], int(sys.argv[2])
from privfair.accounting import Ledger, PureDP
from privfair.core.exceptions import LedgerError
ran = False
with Ledger().spend(PureDP(0.1)):  # whatever is still to be imported
    pass
if uid:
    os.setuid(uid)
try:
    with Ledger.open(path).spend(PureDP(0.1)):
        ran = True
except LedgerError as error:
    print("refused", error.exit_code, ran)
else:
    print("charged", ran)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize(
    ("mode", "said"), [(0o555, ["refused", "4", "False"]), (0o777, ["charged", "True"])]
)
def test_a_read_only_folder_stops_before_the_data(mode, said):
    """The file may be written and its journal cannot be made: as another user, root may all."""
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are for one user only
        folder = Path(made)
        path = whole(ac.Ledger(folder / "l.db", cap=Budget(1.0)))
        for leftover in folder.glob("l.db-*"):
            leftover.unlink()
        path.chmod(0o666)
        folder.chmod(mode)
        command = [
            sys.executable,
            "-c",
            ONE_CHARGE,
            str(path),
            "65534" if os.getuid() == 0 else "0",
        ]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
            )
        finally:
            folder.chmod(0o755)
        assert done.stdout.split() == said, done.stderr
        assert len(ac.Ledger.open(path)) == (mode == 0o777)


@pytest.mark.parametrize("at", ["reserve", "release"])
def test_a_failing_sync_is_never_less_than_what_was_released(tmp_path, monkeypatch, at):
    """A commit that fails (disk full, I/O error): before the body nothing ran; after it, spent."""
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0))
    charge(ledger, 0.1)
    real = ledger._log._connect()
    commits = iter(range(10))

    class Failing:
        in_transaction = property(lambda _: real.in_transaction)

        def execute(self, statement, *values):
            if statement == "COMMIT" and next(commits) == (0 if at == "reserve" else 1):
                raise sqlite3.OperationalError(os.strerror(errno.ENOSPC))
            return real.execute(statement, *values)

    monkeypatch.setattr(ledger._log, "_connect", lambda: Failing())
    ran = []
    with (
        pytest.raises(LedgerError, match="Check free disk space"),
        ledger.spend(ac.PureDP(0.25)),
    ):
        ran.append(True)
    monkeypatch.undo()
    again = ac.Ledger.open(tmp_path / "l.db")
    again.verify()
    assert ran == ([] if at == "reserve" else [True])
    assert again.spent().epsilon == pytest.approx(0.1 if at == "reserve" else 0.35)
    assert [e.state for e in again.entries()] == (
        ["released"] if at == "reserve" else ["released", "reserved"]
    )
    charge(ledger, 0.05)
    assert again.spent().epsilon == ledger.spent().epsilon


def test_another_writer_that_never_ends_is_waited_for_and_then_an_error(tmp_path):
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0))
    ledger._log._connect().execute("PRAGMA busy_timeout=50")
    other = sqlite3.connect(tmp_path / "l.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ran = []
    with pytest.raises(LedgerError, match="other writers"), ledger.spend(ac.PureDP(0.1)):
        ran.append(True)
    other.execute("ROLLBACK")
    assert not ran
    charge(ledger)
    assert len(ledger) == 1


# -- settings of the interpreter and its surroundings -------------------------------------------
SURROUNDED = """
import sys
from privfair.accounting import Gaussian, Ledger, PureDP
from privfair.core import Budget
from privfair.core.exceptions import BudgetExceededError, LogIntegrityError
ledger = Ledger(sys.argv[1], cap=Budget(1.0, 1e-6))
ledger.set_cap(Budget(0.75, 1e-6), purpose="\\u0131\\u0130 stra\\u00dfe", reason="r")
for event in (PureDP(0.5), Gaussian(30.0)):
    with ledger.spend(event, purpose="\\u0131\\u0130 stra\\u00dfe"):
        pass
try:
    with ledger.spend(PureDP(0.5), purpose="other"):
        raise SystemExit("not refused")
except BudgetExceededError:
    pass
try:
    ledger.set_cap(Budget(2.0, 1e-6))
    raise SystemExit("raised")
except Exception as error:
    if type(error).__name__ != "PrivacyError":
        raise
bad = next(row.body for row in ledger._log.rows() if row.kind == "reserved")
print(ledger.verify()[0], repr(ledger.spent().epsilon), repr(ledger.remaining().epsilon))
ledger._log.append("reserved", bad)
try:
    ledger.verify()
    raise SystemExit("not found")
except LogIntegrityError:
    print("found")
"""


def surrounded(path, *flags, **environment):
    done = subprocess.run(
        [sys.executable, *flags, "-c", SURROUNDED, str(path)], cwd=path.parent,
        capture_output=True, text=True, check=False, timeout=800, encoding="utf-8",
        env={"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_depends_on_flags_hash_seed_locale_or_time_zone(tmp_path):
    """Same rows, sums and refusals with asserts stripped, other hashes, decimal commas, zones."""
    surroundings = [
        ((), {}),
        (("-O",), {"PYTHONHASHSEED": "1"}),
        (("-W", "error"), {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "2"}),
        ((), {"LC_ALL": "de_DE.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "3"}),
    ]
    said = [
        surrounded(tmp_path / f"l{i}.db", *flags, **environment)
        for i, (flags, environment) in enumerate(surroundings)
    ]
    assert said[0].split()[0] == "6"
    assert said[0].splitlines()[1] == "found"
    assert set(said) == {said[0]}
    first = [row.body for row in ac.Ledger.open(tmp_path / "l0.db", read_only=True)._log.rows()]
    for i in range(1, len(said)):
        rows = ac.Ledger.open(tmp_path / f"l{i}.db", read_only=True)._log.rows()
        assert [row.body for row in rows] == first
        assert all(row.time.endswith("+00:00") for row in rows)


# -- fork, spawn, threads -----------------------------------------------------------------------
def _one(ledger):
    try:
        return charge(ledger, 0.1, analyst="worker")
    except BudgetExceededError:
        return 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_ledger_handed_to_worker_processes_is_the_same_ledger(tmp_path, method):
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0))
    ledger.set_cap(Budget(0.4), analyst="worker")
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        taken = list(pool.map(_one, [ledger] * 8))
    assert sum(bool(row) for row in taken) == 4
    assert len(ledger) == 4
    assert {entry.analyst for entry in ledger.entries()} == {"worker"}
    ledger.verify()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_inside_a_charge_does_not_settle_it(tmp_path):
    ledger = ac.Ledger(tmp_path / "l.db", cap=Budget(1.0))
    with ledger.spend(ac.PureDP(0.1)) as transaction:
        pid = os.fork()
        if pid == 0:
            transaction._settle("released")
            os._exit(0)
        os.waitpid(pid, 0)
        assert ledger.entries()[0].state == "reserved"
    assert ledger.entries()[0].state == "released"
    ledger.verify()


# -- length -------------------------------------------------------------------------------------
def filled(path, count):
    """A ledger of ``count`` charges, written in one transaction."""
    ledger = ac.Ledger(path)
    charge(ledger, 0.25, purpose="x" * 300)
    body = next(row.body for row in ledger._log.rows() if row.kind == "reserved")
    with ledger._appending() as transaction:
        for done in range(2, count + 1):
            stated = body | {"total": [0.25 * done, 0.0, 0.0]}
            row = transaction.append("reserved", stated)
            transaction.append("released", {"ref": row.id})
    return ledger


def test_a_charge_reads_as_many_rows_in_a_long_ledger_as_in_a_short_one(tmp_path, monkeypatch):
    read = {}
    for count in (5, 400):
        ledger = filled(tmp_path / f"{count}.db", count)
        assert len(ledger) == count
        seen = []
        real = ledger._log._check_row
        monkeypatch.setattr(
            ledger._log, "_check_row", lambda *row, real=real, seen=seen: seen.append(real(*row))
        )
        for _ in range(3):
            charge(ledger, 0.25)
        read[count] = len(seen)
        assert ledger.spent().epsilon == 0.25 * (count + 3)
    assert read[5] == read[400] <= 6


def test_verifying_keeps_no_rows(tmp_path):
    """Memory grows by less than half of a row's text (over 500 bytes) for each charge."""
    peaks = []
    for count in (100, 1100):
        ledger = filled(tmp_path / f"{count}.db", count)
        tracemalloc.start()
        ledger.verify()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 1000 < 150


def test_a_refused_row_leaves_no_reading_that_holds_the_lock(tmp_path):
    """Found by chance: the suspended reading was closed by another thread, which may not."""
    import gc
    import threading

    ledger, kept = ac.Ledger(tmp_path / "l.db"), []
    with ac.Ledger.open(tmp_path / "l.db").spend(ac.PureDP(0.1), purpose="x"):
        pass

    def refuse(*row):
        raise ValueError("no")

    ledger._charges.visit = refuse
    try:
        ledger.spent()
    except ValueError as error:
        kept.append(error)  # its traceback keeps the frames alive
    assert kept
    free = []
    other = threading.Thread(target=lambda: free.append(ledger._log._lock.acquire(timeout=2)))
    other.start()
    other.join()
    assert free == [True]
    kept.clear()
    gc.collect()
