"""Kill writers of one ledger at random moments and report what is left; run as a script.

    python _kill_writers.py LEDGER DRAWS KILLS SEED

Each child charges and then "draws": it appends the number of its charge to DRAWS with one
unbuffered write, which stands for a release that the world has seen. Forked from a process
with everything imported, so that a kill costs milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

from privfair.accounting import Ledger, PureDP

EPSILON = 1e-4


def child(path: str, draws: str, ready: int) -> None:
    ledger = Ledger.open(path)
    os.write(ready, b"!")
    file = os.open(draws, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        with ledger.spend(PureDP(EPSILON), purpose="draw") as transaction:
            os.write(file, f"{transaction.entry_id}\n".encode())
            os.write(ready, b"!")


def one_charge(ledger: Ledger) -> float:
    """Seconds that a charge takes here and now, by which the kills are timed."""
    started = time.monotonic()
    for _ in range(20):
        with ledger.spend(PureDP(EPSILON)):
            pass
    return (time.monotonic() - started) / 20


def look(path: str, draws: str) -> dict[str, float]:
    """What a process that opens the ledger after the crash finds."""
    ledger = Ledger.open(path)
    ledger.verify()
    entries = ledger.entries()
    with open(draws) as file:
        seen = [int(line) for line in file if line.endswith("\n")]
    return {
        "draws": len(seen),
        "charges": len(entries),
        "uncharged": len(set(seen) - {entry.id for entry in entries}),
        "released": sum(entry.state == "released" for entry in entries),
        "released_unseen": len({e.id for e in entries if e.state == "released"} - set(seen)),
        "spent": ledger.spent().epsilon,
    }


def main() -> None:
    path, draws, kills, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    clock = random.Random(seed)
    beside = Ledger(path + ".pace")
    Ledger(path)
    open(draws, "w").close()
    found = []
    for number in range(kills):
        if number % 10 == 0:  # the disk may be busier than it was
            pace = one_charge(beside)
        listen, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(path, draws, ready)
            finally:
                os._exit(1)
        os.close(ready)
        # Every fifth is killed while it opens the ledger, or before. The others are killed so
        # many draws later, however slow the disk is just now: half of them at once, when the
        # last draw is not noted as released, half of them at any moment of the next charge.
        if number % 5:
            for _ in range(clock.randint(0, 6) + 1):
                os.read(listen, 1)
        time.sleep(clock.uniform(0.0, 1.5 * pace) * (number % 2))
        os.kill(pid, signal.SIGKILL)
        os.close(listen)
        _, status = os.waitpid(pid, 0)
        found.append({"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
                      **look(path, draws)})  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
