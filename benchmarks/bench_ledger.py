"""The ledger: charges per second on this disk, and how long a long one takes to read and verify.

Goals: at least 200 charges per second (two synced commits each); a ledger of 100,000 charges
(200,001 rows) verified in 2 s of CPU time, chain, totals and states; a charge into it costs what
it costs in an empty one. Empty and full ledgers take turns in one run, so that the ratio of their
medians means something on a busy machine. ``raw commits`` is what the disk allows: the same
commits by sqlite3 alone.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _record import record

from privfair.accounting import Gaussian, Ledger, PureDP
from privfair.core import Budget

FULL = 100_000
ROUNDS = 15


def filled(path: Path, count: int, **options: Any) -> Ledger:
    """Return a ledger that holds ``count`` charges, written in one transaction."""
    ledger = Ledger(path, **options)
    with ledger.spend(PureDP(1e-6), purpose="benchmark"):
        pass
    first = next(row.body for row in ledger._log.rows() if row.kind == "reserved")
    with ledger._appending() as transaction:
        price = 1e-6
        for done in range(2, count + 1):
            body = first | {"total": [done * price, 0.0, 0.0]}
            body["total"][0] = _sum(done, price)
            row = transaction.append("reserved", body)
            transaction.append("released", {"ref": row.id})
    return ledger


def _sum(count: int, price: float) -> float:
    """The double nearest to ``count`` times ``price``, as the ledger's exact sum gives it."""
    numerator, denominator = price.as_integer_ratio()
    return count * numerator / denominator


def timed(act: Callable[[], object], times: int) -> tuple[float, float]:
    """Wall and CPU seconds for one of ``times`` calls."""
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(times):
        act()
    return (time.monotonic() - wall) / times, (time.process_time() - cpu) / times


def charge(ledger: Ledger, event: Any) -> Callable[[], None]:
    def act() -> None:
        with ledger.spend(event, purpose="benchmark", analyst="ana"):
            pass

    return act


def raw_commits(path: Path) -> Callable[[], None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE log (body TEXT)")

    def act() -> None:
        for text in ("x" * 500, "x" * 250):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO log VALUES (?)", (text,))
            connection.execute("COMMIT")

    return act


def main(full: int = FULL) -> None:
    cap = Budget(1000.0, 1e-5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = filled(folder / "full.db", full)
        keyed = filled(folder / "keyed.db", full // 10, hmac_key=bytes(range(32)))
        capped = Ledger(folder / "capped.db", cap=cap)
        capped.set_cap(Budget(500.0, 1e-5), purpose="benchmark")
        capped.set_cap(Budget(500.0, 1e-5), analyst="*")
        planned = Ledger(folder / "plan.db", cap=cap, mode="plan")
        planned.plan([PureDP(1e-6)] * 1000)
        acts = {
            "raw commits": raw_commits(folder / "raw.db"),
            "file, empty": charge(Ledger(folder / "empty.db"), PureDP(1e-6)),
            f"file, {full:,} charges in it": charge(large, PureDP(1e-6)),
            f"file with a key, {full // 10:,} charges in it": charge(keyed, PureDP(1e-6)),
            "file, caps by purpose and analyst": charge(capped, PureDP(1e-6)),
            "file, Gaussians valued at their share": charge(capped, Gaussian(1000.0)),
            "file, draws from a plan": charge(planned, PureDP(1e-6)),
            "memory": charge(Ledger(), PureDP(1e-6)),
        }
        for act in acts.values():
            act()
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in acts}
        for _ in range(ROUNDS):
            for what, act in acts.items():
                runs[what].append(timed(act, 20))
        charges = {
            what: {
                "per_second": round(1 / median(wall for wall, _ in found)),
                "cpu_ms_each": round(1000 * median(cpu for _, cpu in found), 3),
            }
            for what, found in runs.items()
        }
        empty, more = (runs[what] for what in list(acts)[1:3])
        results: dict[str, Any] = {
            "charges": charges,
            "cpu_of_a_charge_full_to_empty": round(
                median(a[1] / b[1] for a, b in zip(more, empty, strict=True)), 3
            ),
            "verify": {},
        }
        for what, path, key in (
            ("plain", folder / "full.db", None),
            ("with a key", folder / "keyed.db", bytes(range(32))),
        ):
            again = Ledger.open(path, hmac_key=key, read_only=True)
            cpu = [time.process_time()]
            rows, _ = again.verify()
            cpu.append(time.process_time())
            again._log.verify()
            cpu.append(time.process_time())
            charged = len(again)
            cpu.append(time.process_time())
            results["verify"][what] = {
                "rows": rows,
                "charges": charged,
                "cpu_seconds": round(cpu[1] - cpu[0], 3),
                "chain_only_cpu_seconds": round(cpu[2] - cpu[1], 3),
                "first_reading_cpu_seconds": round(cpu[3] - cpu[2], 3),
                "cpu_microseconds_per_row": round(1e6 * (cpu[1] - cpu[0]) / rows, 2),
            }
    record("ledger", results)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else FULL)
