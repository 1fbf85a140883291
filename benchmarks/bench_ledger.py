"""The ledger: charges per second on this disk, and how long a long chain takes to verify.

Goals: at least 200 charges per second (two synced commits each); 100,000 rows verified in 2 s of
CPU time. A charge into a ledger that holds many already must not cost much more.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from _record import record

from privfair.accounting import Ledger, PureDP
from privfair.core.log import HashChainLog


def charges(ledger: Ledger, count: int) -> dict[str, float]:
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(count):
        with ledger.spend(PureDP(1e-6), purpose="benchmark"):
            pass
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return {"per_second": round(count / wall), "cpu_ms_each": round(1000 * cpu / count, 3)}


def main() -> None:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        results["file, empty"] = charges(Ledger(Path(folder) / "a.db"), 1000)
        results["memory, empty"] = charges(Ledger(), 1000)
        full = Ledger(Path(folder) / "b.db")
        body = {
            "event": PureDP(1e-6).to_dict(), "purpose": "p", "label": "", "neighboring":
            "zero_out", "null_ignored": False, "numerics": "exact", "seeded": False,
            "epsilon": 1e-6, "delta": 0.0, "loss": 0.0, "version": "0",
        }  # fmt: skip
        with full._log.transaction() as transaction:
            for _ in range(10_000):
                transaction.append("reserved", body)
        len(full)
        results["file, 10,000 charges in it"] = charges(full, 300)
        log = HashChainLog(Path(folder) / "c.db")
        with log.transaction() as transaction:
            for i in range(100_000):
                transaction.append("item", {"i": i, "purpose": "a row of some length"})
        cpu = time.process_time()
        rows, _ = log.verify()
        results["verify"] = {"rows": rows, "cpu_seconds": round(time.process_time() - cpu, 3)}
    record("ledger", results)


if __name__ == "__main__":
    main()
