"""Socio-economic parity on a million rows: all rows at once against batches.

Made-up rows (1,000,000 x 20, float64, on disk as a memory map), two groups, CSEP, tolerance 0.01,
with the guard against levelling down. Each way runs in a process of its own: CPU seconds of
``fit``, largest anonymous memory above that before the call (a thread looks every 10 ms; pages of
the map are not counted), mean log loss and largest gap of scores over all rows.
``--quick`` takes 100,000 rows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from _record import record

from privfair.fairness import SEPClassifier

ROWS = 100_000 if "--quick" in sys.argv else 1_000_000
COLUMNS = 20
BATCHES: dict[str, Any] = {"solver": "adam", "learning_rate": 0.05, "max_iter": 200}
WAYS: dict[str, dict[str, Any]] = {
    "all rows, lbfgs": {},
    "batches of 10000": BATCHES | {"batch_size": 10_000},
    "batches of 2000": BATCHES | {"batch_size": 2_000},
}


def anonymous() -> float:
    """Return the anonymous memory of this process in MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return int(found.group(1)) / 1024 if found else float("nan")


def rows_on(folder: Path) -> None:
    """Write the rows."""
    rng = np.random.default_rng(0)
    low, woman = rng.random(ROWS) < 0.4, rng.random(ROWS) < 0.35
    effort = rng.random(ROWS) < 0.7
    X = np.memmap(folder / "X", dtype=np.float64, mode="w+", shape=(ROWS, COLUMNS))
    X[:] = rng.normal(size=(ROWS, COLUMNS))
    X[:, 0] -= low
    X[:, 1] -= 0.6 * woman
    signal = X[:, :5].sum(axis=1) + rng.logistic(size=ROWS) > 0.5
    np.savez(folder / "rest.npz", low=low, woman=woman, effort=effort, y=signal.astype(int))


def one(folder: Path, way: str) -> dict[str, Any]:
    """Fit in this process."""
    X = np.memmap(folder / "X", dtype=np.float64, mode="r", shape=(ROWS, COLUMNS))
    rest = np.load(folder / "rest.npz")
    y, low, effort = rest["y"], rest["low"], rest["effort"]
    sex = np.where(rest["woman"], "f", "m")
    columns = {"sensitive_features": sex, "ses_features": low, "effort_features": effort}
    before, peak, done = anonymous(), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous())

    watch = threading.Thread(target=look)
    watch.start()
    start = time.process_time()
    model = SEPClassifier(notion="CSEP", random_state=0, **WAYS[way]).fit(X, y, **columns)
    seconds = time.process_time() - start
    done.set()
    watch.join()
    loss = 0.0
    for at in range(0, ROWS, 1 << 16):
        p = model.predict_proba(X[at : at + (1 << 16)])[:, 1]
        right = y[at : at + (1 << 16)]
        loss -= float(np.log(np.where(right == 1, p, 1 - p)).sum())
    return {
        "cpu_seconds": round(seconds, 2),
        "memory_mib": round(peak[0] - before, 1),
        "log_loss": round(loss / ROWS, 6),
        "largest_soft_gap": round(float(model.gaps_["soft_gap"].max()), 5),
        "rounds": model.n_rounds_,
        "converged": model.converged_,
        "multipliers": {" ".join(k): round(float(v), 4) for k, v in model.multipliers_.items()},
    }


def main() -> None:
    if "--one" in sys.argv:
        place, way = sys.argv[sys.argv.index("--one") + 1 :][:2]
        print("RESULT " + json.dumps(one(Path(place), way)))
        return
    found: dict[str, Any] = {"rows": ROWS, "columns": COLUMNS}
    quick = ["--quick"] if "--quick" in sys.argv else []
    with tempfile.TemporaryDirectory() as name:
        rows_on(Path(name))
        for way in WAYS:
            made = subprocess.run(
                [sys.executable, __file__, "--one", name, way, *quick], check=True,
                capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            line = next(r for r in made.stdout.splitlines() if r.startswith("RESULT "))
            found[way] = json.loads(line[7:])
            print(way, found[way], flush=True)
    if not quick:
        record("sep_minibatch", found, seeds={"rows": 0, "random_state": 0})


if __name__ == "__main__":
    main()
