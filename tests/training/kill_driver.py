"""Kills runs with checkpoints at chosen lines of the code, again and again, until they end.

    python kill_driver.py FOLDER SEED RUNS

Prints one JSON object for each run: noisy sums drawn, steps charged to the ledger, kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import torch

from privfair.accounting import Ledger
from privfair.training import (
    AdaptiveClipping,
    Checkpoints,
    DPEngine,
    LogisticLoss,
    TrainingPlan,
    _engine,
    make_optimizer,
)

STEPS, EVERY = 12, 4
FILES = ("_checkpoint.py", "_journal.py", "_engine.py")


def die_after(lines: int) -> None:
    """Kill this process after so many lines of the engine and of the checkpoints."""
    left = [lines]

    def local(frame, event, arg):
        if event == "line":
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def trace(frame, event, arg):
        return local if frame.f_code.co_filename.endswith(FILES) else None

    sys.settrace(trace)


def attempt(folder: Path, lines: int | None) -> None:
    """Begin the run or go on with it; every draw of noise is logged before it happens.

    Everybody is in every batch, so that the ledger prices a charge by a formula, in no time.
    """
    log = os.open(folder / "drawn", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    plan = AdaptiveClipping(count_noise=3.0).plan(TrainingPlan(40, 40, STEPS, 1.0, None), 2.0)
    engine = DPEngine(
        torch.nn.Linear(3, 1), LogisticLoss(), plan, optimizer=make_optimizer("adam", 0.1),
        clipping=AdaptiveClipping(count_noise=3.0), average=0.5,
    )  # fmt: skip
    width, add = 4, _engine._Noise.add

    def logged(self, total):
        if self.size == width:
            os.write(log, b".")
        return add(self, total)

    _engine._Noise.add = logged
    ledger = Ledger(folder / "ledger.db")
    checkpoints = Checkpoints(folder / "run", ledger=ledger, every=EVERY, journal_every=2)
    if lines is not None:
        die_after(lines)
    X = torch.sin(torch.arange(120.0)).reshape(40, 3)
    engine.run(X, (X[:, 0] > 0).float(), checkpoints=checkpoints)


def count(event) -> int:
    return event.count


def main() -> None:
    torch.set_num_threads(1)
    top, seed, runs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    for number in range(runs):
        folder = top / str(number)
        folder.mkdir()
        kills = 0
        while True:
            lines = rng.randrange(1, 900) if kills < 5 else None
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    attempt(folder, lines)
                    code = 0
                finally:
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                kills += 1
                continue
            assert os.waitstatus_to_exitcode(status) == 0, "an attempt failed"
            break
        entries = Ledger.open(folder / "ledger.db").entries()
        drawn = (folder / "drawn").stat().st_size
        charged = sum(count(entry.event) for entry in entries)
        print(json.dumps({"drawn": drawn, "charged": charged, "kills": kills}), flush=True)


if __name__ == "__main__":
    main()
