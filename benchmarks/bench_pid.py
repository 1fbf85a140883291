"""Speed and accuracy of the disparity decomposition, in one run on one core.

1. 1000 tables of (2, 2, 10): ours in one call, against cone programs of the BROJA-2PID form
   (ECOS, Clarabel) and dit's default, all on the same tables. The peers solve one table at a time,
   as their interfaces do; they get the first tables of the same batch, and times are per table.
   Ours is also timed on exactly the tables that each peer gets. Interleaved, CPU time.
2. Accuracy: exact path and Newton against the Clarabel cone program on 240 tables with zeros of
   two groups, Newton against it on 60 tables of three and four groups; and every certificate
   against the true error.
3. Newton's time by size, in a batch and alone; and the same solver on numpy arrays and on torch
   tensors of the CPU, interleaved: the ratio of their CPU times and their largest difference.
4. A bootstrap of 1000 replicates of the Adult table of two clients, intervals included.

``python bench_pid.py [part ...]`` runs parts: speed, accuracy, newton, numpy_and_torch,
adult_bootstrap, peer_versions; without names all. What is not run is kept as it was, and ``runs``
says of each part when it ran. Peers: see benchmarks/_pid_peers.py.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.metadata
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _pid_peers import clarabel_cone, solvers
from _record import record_part

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from privfair.datasets import fetch_adult
from privfair.fairness.pid import pid_from_joint
from privfair.fairness.pid._joint import decompose
from privfair.fairness.pid._newton import newton
from tests.fairness.pid_tables import random_tables

SEED = 20260722
REPEATS = 5
PEER_TABLES = {"clarabel_cone": 40, "ecos_cone": 40, "dit_default": 4}
PARTS = ("unique", "redundant", "masked", "unique_client")


def cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def speed() -> dict[str, object]:
    P = random_tables(np.random.default_rng(SEED), (2, 2, 10), 1000, zeros=0.3)
    peers = solvers()
    pid_from_joint(P[:2])
    for peer in peers.values():
        peer(P[0])  # imports
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    same: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(REPEATS):
        ours.append(cpu(lambda: pid_from_joint(P)))
        for name, peer in peers.items():
            some = P[: PEER_TABLES[name]]
            theirs[name].append(cpu(lambda peer=peer, some=some: [peer(t) for t in some]))
            same[name].append(cpu(lambda some=some: pid_from_joint(some)))
    each = statistics.median(ours) / len(P)
    exact = pid_from_joint(P).unique
    out: dict[str, object] = {
        "tables": len(P),
        "shape": [2, 2, 10],
        "share_with_unique_part": float((exact > 1e-9).mean()),
        "cpu_seconds": ours,
        "median_cpu_seconds": statistics.median(ours),
        "asked_cpu_seconds": 0.1,
        "microseconds_each": 1e6 * each,
    }
    for name, peer in peers.items():
        count = PEER_TABLES[name]
        error = [abs(peer(t) - u) for t, u in zip(P[:count], exact, strict=False)]
        out[name] = {
            "tables": count,
            "milliseconds_each": [1e3 * t / count for t in theirs[name]],
            "ratio_per_table": statistics.median(theirs[name]) / count / each,
            "ratio_on_the_same_tables_only": statistics.median(
                a / b for a, b in zip(theirs[name], same[name], strict=True)
            ),
            "asked_ratio": 1000 if name == "dit_default" else 50,
            "largest_difference_of_unique_bits": max(error),
        }
    return out


def accuracy() -> dict[str, object]:
    rng = np.random.default_rng(SEED + 1)
    two = [((2, 2, 2), 80), ((2, 3, 5), 80), ((2, 2, 10), 60), ((2, 2, 50), 20)]
    worst = {"exact_vs_cone": 0.0, "newton_vs_cone": 0.0, "newton_vs_exact": 0.0}
    certified, tables, slack = True, 0, np.inf
    for shape, count in two:
        P = random_tables(rng, shape, count, zeros=0.4, concentration=0.5)
        exact, newton = pid_from_joint(P), pid_from_joint(P, method="newton")
        cone = np.array([clarabel_cone(t) for t in P])
        for name, result in (("exact", exact), ("newton", newton)):
            gap = np.abs(result.unique - cone).max()
            worst[f"{name}_vs_cone"] = max(worst[f"{name}_vs_cone"], float(gap))
        error = np.abs(newton.union_information - exact.union_information)
        worst["newton_vs_exact"] = max(worst["newton_vs_exact"], float(error.max()))
        room = newton.certificate_gap + exact.certificate_gap - error
        certified, slack = certified and bool((room >= 0).all()), min(slack, float(room.min()))
        tables += count
    general: dict[str, object] = {}
    for shape in [(3, 3, 4), (3, 4, 8), (4, 3, 5)]:
        P = random_tables(rng, shape, 20, zeros=0.4, concentration=0.5)
        newton, best = pid_from_joint(P), pid_from_joint(P, tol=3e-10)
        cone = np.array([clarabel_cone(t) for t in P])
        # The truth lies within best's own certificate.
        error = np.abs(newton.union_information - best.union_information)
        inside = error <= newton.certificate_gap + best.certificate_gap
        certified = certified and bool(inside.all())
        general["x".join(map(str, shape))] = {
            "tables": len(P),
            "newton_vs_cone": float(np.abs(newton.unique - cone).max()),
            "largest_certificate": float(newton.certificate_gap.max()),
            "largest_error": float(error.max()),
            "uncertainty_of_that_error": float(best.certificate_gap.max()),
            "methods": sorted(set(newton.method.tolist())),
        }
    return {
        "tables_of_two_groups": tables,
        "largest_differences_bits": worst,
        "asked_bits": 1e-6,
        "more_groups": general,
        "every_certificate_covers_the_error": certified,
        "least_room_of_a_certificate_bits": slack,
    }


def newton_times() -> dict[str, object]:
    rng = np.random.default_rng(SEED + 2)
    out: dict[str, object] = {}
    for shape in [(2, 2, 2), (3, 3, 3), (3, 4, 8), (5, 5, 20), (3, 2, 200)]:
        P = random_tables(rng, shape, 50, zeros=0.3)
        pid_from_joint(P[:1], method="newton")
        batch = [cpu(lambda P=P: pid_from_joint(P, method="newton")) / 50 for _ in range(3)]
        alone = [
            cpu(lambda P=P: [pid_from_joint(t, method="newton") for t in P[:5]]) / 5
            for _ in range(3)
        ]
        result = pid_from_joint(P, method="newton")
        out["x".join(map(str, shape))] = {
            "milliseconds_each_in_a_batch_of_50": [1e3 * t for t in batch],
            "milliseconds_alone": [1e3 * t for t in alone],
            "converged": float(result.converged.mean()),
        }
    return out


def torch_times() -> dict[str, object]:
    """Time one solver on both kinds of arrays; one thread each."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED + 4)
    out: dict[str, object] = {}
    for shape, count in [
        ((3, 3, 4), 1), ((3, 3, 4), 50), ((3, 3, 4), 1000), ((3, 4, 8), 50), ((5, 5, 20), 50),
        ((3, 2, 200), 20),
    ]:  # fmt: skip
        P = random_tables(rng, shape, count, zeros=0.4, concentration=0.5)
        margins = P.sum(3), P.sum(2)
        tensors = [torch.from_numpy(a) for a in margins]

        def on_arrays(margins: Any = margins) -> Any:
            return newton(*margins, tol=1e-8, xp=np)

        def on_tensors(tensors: Any = tensors) -> Any:
            return newton(*tensors, tol=1e-8, xp=torch)

        one, other = on_arrays(), on_tensors()
        times = [(cpu(on_arrays), cpu(on_tensors)) for _ in range(REPEATS)]
        out[f"{count} of {'x'.join(map(str, shape))}"] = {
            "numpy_milliseconds_each": [1e3 * a / count for a, _ in times],
            "torch_milliseconds_each": [1e3 * b / count for _, b in times],
            "torch_over_numpy": statistics.median(b / a for a, b in times),
            "largest_difference_nats": float(np.abs(one.value - other.value.numpy()).max()),
            "largest_certificates_nats": [float(one.gap.max()), float(other.gap.max())],
        }
    return out


def adult_bootstrap() -> dict[str, object]:
    """Resample the table of sex, income and one of two clients, to which one sex leans."""
    adult = fetch_adult(split="test", fallback="embedded")
    rng = np.random.default_rng(SEED + 3)
    z = (adult.data["sex"] == "Female").to_numpy().astype(int)
    y = np.unique(adult.target.astype(str), return_inverse=True)[1]
    client = np.where(rng.random(len(z)) < 0.92, z, 1 - z)
    counts = np.bincount(4 * z + 2 * y + client, minlength=8).reshape(2, 2, 2)
    n = int(counts.sum())

    def run() -> dict[str, list[float]]:
        draws = rng.multinomial(n, counts.ravel() / n, size=1000).reshape(-1, 2, 2, 2) / n
        parts = decompose(draws)
        return {p: np.quantile(getattr(parts, p), [0.025, 0.975]).tolist() for p in PARTS}

    run()
    times = [cpu(run) for _ in range(REPEATS)]
    values = pid_from_joint(counts / n)
    return {
        "rows": n,
        "embedded_edition": bool(getattr(adult, "embedded", False)),
        "replicates": 1000,
        "cpu_seconds": times,
        "median_cpu_seconds": statistics.median(times),
        "asked_cpu_seconds": 0.2,
        "parts_bits": {p: float(getattr(values, p)) for p in PARTS},
        "percentile_intervals": run(),
    }


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "P holds one decision")
    parts = {
        "speed": speed,
        "accuracy": accuracy,
        "newton": newton_times,
        "numpy_and_torch": torch_times,
        "adult_bootstrap": adult_bootstrap,
        "peer_versions": lambda: {name: version(name) for name in ("clarabel", "ecos", "dit")},
    }
    for name in sys.argv[1:] or parts:
        record_part("pid", name, parts[name](), seeds={"tables": SEED})
