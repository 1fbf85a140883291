"""Distance covariance: every exact path against dcor 0.7, in one run, gradients included.

``python benchmarks/bench_dcov.py``; with dcor beside this package (see ``_dcov_peers.py``) the
ratios are filled in, else they are skipped and the record says so.

Times are CPU seconds of one thread, ours and theirs interleaved, minimum and median of the
repeats. Memory is the peak of a process of its own, less the peak of one that only imports.
dcor has no gradients: its times are value only. With a vector argument it builds arrays of
n x n x d, which is why its multivariate rows stop at 3,000.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _dcov_peers import PEER_VERSION, load_dcor
from _record import record

from privfair.fairness.dcov import cell_kernel, cells_dcov_sq, dcor_sq, dcov_sq

MEMORY = {
    "import": "pass",
    "tiled_n30000": "dcov_sq(x(30_000), torch.randn(30_000, 11).double(), method='tiled')",
    "cells_n1e6_10": "cells_dcov_sq(x(10**6), torch.randint(0, 10, (10**6,)), K(10))",
    "cells_n1e6_100": "cells_dcov_sq(x(10**6), torch.randint(0, 100, (10**6,)), K(100))",
    "sorted_n1e5": "dcov_sq(x(10**5), x(10**5).detach(), method='sorted')",
}
PROLOGUE = """
import re, time, torch
from privfair.fairness.dcov import cell_kernel, cells_dcov_sq, dcov_sq
import privfair.fairness.dcov._tiled
def x(n): return torch.randn(n, dtype=torch.float64).requires_grad_()
def K(g): return cell_kernel("ccdcov", [2**0.5 * (1 - torch.eye(g).numpy())])
value = None
start = time.process_time()
"""
EPILOGUE = """
value is None or value.backward()
status = open("/proc/self/status").read()  # ru_maxrss would be the parent's, kept over exec
print(time.process_time() - start, int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]) / 1024)
"""


def cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def interleaved(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, object]:
    """Time the runs in turn, after one of each that is not counted."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(cpu(run))
    return {
        "cpu_seconds": times,
        "minimum": {name: min(t) for name, t in times.items()},
        "median": {name: statistics.median(t) for name, t in times.items()},
    }


def gradient(call: Callable[..., torch.Tensor], pred: np.ndarray, *rest: object, **options):
    def run() -> None:
        t = torch.tensor(pred, requires_grad=True)
        call(t, *rest, **options).backward()

    return run


def memory() -> dict[str, object]:
    """Return the peak memory of each case, in a process of its own."""
    found = {}
    root = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    for name, call in MEMORY.items():
        code = PROLOGUE + (f"value = {call}" if call != "pass" else "") + EPILOGUE
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
            check=True, env=env, cwd=root,
        )  # fmt: skip
        seconds, peak = map(float, run.stdout.split())
        found[name] = {"cpu_seconds": seconds, "peak_mib": peak}
    base = found["import"]["peak_mib"]
    for entry in found.values():
        entry["peak_mib_less_import"] = entry["peak_mib"] - base
    return found


def agreement(dcor) -> dict[str, float]:
    """Return the largest relative difference from dcor where both are defined."""
    rng = np.random.default_rng(1)
    worst: dict[str, float] = {}
    for name, (p, q) in {"scalars": (1, 1), "vector": (1, 5), "vectors": (3, 2)}.items():
        x, y = rng.normal(size=(400, p)), rng.normal(size=(400, q))
        y = y + 0.3 * x[:, :1]
        for exponent in (1.0, 0.5):
            pairs = [
                (dcov_sq(x, y, estimator="v", exponent=exponent),
                 dcor.distance_covariance_sqr(x, y, exponent=exponent)),
                (dcov_sq(x, y, exponent=exponent),
                 dcor.u_distance_covariance_sqr(x, y, exponent=exponent)),
                (dcor_sq(x, y, estimator="v", exponent=exponent),
                 dcor.distance_correlation_sqr(x, y, exponent=exponent)),
                (dcor_sq(x, y, exponent=exponent),
                 dcor.u_distance_correlation_sqr(x, y, exponent=exponent)),
            ]  # fmt: skip
            gap = max(abs(float(a) - float(b)) / abs(float(b)) for a, b in pairs)
            worst[f"{name}, exponent {exponent:g}"] = gap
    return worst


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    dcor, why = load_dcor()
    results: dict[str, object] = {"dcor": PEER_VERSION if dcor else why, "threads": 1}

    x, y = rng.normal(size=100_000), rng.normal(size=100_000)
    runs = {"ours_value_and_gradient": gradient(dcov_sq, x, torch.tensor(y), method="sorted")}
    if dcor:
        for kind in ("avl", "mergesort"):
            runs[f"dcor_{kind}_value"] = lambda kind=kind: dcor.u_distance_covariance_sqr(
                x, y, method=kind
            )
    scalar = interleaved(runs, 3)
    if dcor:
        best = min(scalar["median"][f"dcor_{kind}_value"] for kind in ("avl", "mergesort"))
        scalar["ours_over_dcor"] = scalar["median"]["ours_value_and_gradient"] / best
        scalar["within_3"] = scalar["ours_over_dcor"] <= 3
    results["scalars_n1e5"] = scalar

    n = 3000
    f, codes = rng.normal(size=n), rng.integers(0, 10, n)
    hot = np.eye(10)[codes]
    wide = rng.normal(size=(n, 11))
    kernel = cell_kernel("ccdcov", [2**0.5 * (1 - np.eye(10))])
    cells = gradient(cells_dcov_sq, f, torch.tensor(codes), kernel)
    runs = {
        "cells_100_times": lambda: [cells() for _ in range(100)],
        "tiled_value_and_gradient": gradient(dcov_sq, f, torch.tensor(wide), method="tiled"),
        "tiled_float32": gradient(
            dcov_sq, f.astype(np.float32), torch.tensor(wide, dtype=torch.float32), method="tiled"
        ),
    }
    if dcor:
        runs["dcor_one_hot_value"] = lambda: dcor.u_distance_covariance_sqr(f, hot)
        runs["dcor_vector_value"] = lambda: dcor.u_distance_covariance_sqr(f, wide)
    vector = interleaved(runs, 2)
    if dcor:
        m = vector["median"]
        vector["dcor_over_cells"] = 100 * m["dcor_one_hot_value"] / m["cells_100_times"]
        vector["cells_at_least_800"] = vector["dcor_over_cells"] >= 800
        vector["tiled_over_dcor"] = m["tiled_value_and_gradient"] / m["dcor_vector_value"]
        vector["tiled_within_a_quarter"] = vector["tiled_over_dcor"] <= 0.25
    results["vector_n3000"] = vector

    big = rng.normal(size=10**6)
    runs = {}
    for cells in (10, 100):
        place = torch.tensor(rng.integers(0, cells, 10**6))
        table = cell_kernel("ccdcov", [2**0.5 * (1 - np.eye(cells))])
        runs[f"cells_{cells}_value_and_gradient"] = gradient(cells_dcov_sq, big, place, table)
    large = interleaved(runs, 2)
    large["within_1s_and_2s"] = (
        large["median"]["cells_10_value_and_gradient"] <= 1
        and large["median"]["cells_100_value_and_gradient"] < 2
    )
    results["cells_n1e6"] = large
    found = memory()
    results["memory"] = found
    results["memory_within_bars"] = (
        found["tiled_n30000"]["peak_mib"] < 500 and found["cells_n1e6_10"]["peak_mib"] < 1024
    )
    if dcor:
        results["largest_relative_difference_from_dcor"] = agreement(dcor)
    record("dcov", json.loads(json.dumps(results)), seeds={"rows": 0, "agreement": 1})


if __name__ == "__main__":
    main()
