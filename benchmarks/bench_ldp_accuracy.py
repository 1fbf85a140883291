"""Local differential privacy: errors against the closed forms, the intervals, and two peers.

Part 1. Squared errors over the closed form of the variance, averaged over values and runs, and how
often 95 % intervals hold the true frequency, for every pure protocol and epsilon; frequencies from
0 to nearly 1.

Part 2. The same protocol and the same post-processing, ours against theirs, on four attributes of
Adult: ratio of mean squared errors with its standard error. A slow client gets fewer users, and
then so do we. Pooled over attributes and epsilons is the mean of the cells' ratios.

Part 3. Our defaults (the protocol that `choose` takes, projected on the simplex) against each
peer's protocol as that package returns it, by cell and summed; cells where the peer is better are
listed. Where the noise is drawn, seeds repeat it: this is a benchmark, not a release.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import math
import sys
import time

import numpy as np
from _ldp_peers import peers, versions
from _record import record

from privfair.datasets import fetch_adult
from privfair.ldp import (
    BLH,
    GRR,
    HR,
    OLH,
    OUE,
    PGR,
    SS,
    SUE,
    Aggregator,
    FrequencyProtocol,
    choose,
    postprocess,
    randomize,
)

QUICK = "--quick" in sys.argv
EPSILONS = (0.5, 1.0, 2.0, 4.0)
PROTOCOLS = (GRR, SUE, OUE, BLH, OLH, SS, HR, PGR)
BY_NAME = {make.name: make for make in PROTOCOLS}
ATTRIBUTES = ("age", "education", "occupation", "native-country")
# Users and runs of each peer's protocol: what its client allows within minutes.
WORK = {
    ("multi-freq-ldpy", "GRR"): (4000, 100), ("multi-freq-ldpy", "OUE"): (4000, 100),
    ("multi-freq-ldpy", "SUE"): (4000, 100), ("multi-freq-ldpy", "SS"): (4000, 60),
    ("multi-freq-ldpy", "OLH"): (1000, 40), ("multi-freq-ldpy", "BLH"): (1000, 40),
    ("pure-ldp", "GRR"): (4000, 100), ("pure-ldp", "OUE"): (1000, 50),
    ("pure-ldp", "SUE"): (1000, 50), ("pure-ldp", "OLH"): (1000, 40),
    ("pure-ldp", "BLH"): (1000, 40), ("pure-ldp", "HR"): (1000, 100),
}  # fmt: skip
TIMES_OURS = 2  # our runs per run of a peer
DEFAULT_RUNS = 60
_DEFAULTS: dict[tuple[str, int], float] = {}


def frequencies(protocol: FrequencyProtocol, values: np.ndarray, seed: int) -> np.ndarray:
    """Return our raw estimates."""
    reports = randomize(protocol, values, noise_random_state=seed)
    return Aggregator(protocol).partial_fit(reports).estimate().frequencies


# -- closed forms and intervals ----------------------------------------------------------------
def closed_forms() -> dict[str, object]:
    k, n, runs = 32, 20_000, 10 if QUICK else 100
    shares = np.zeros(k)
    shares[:16] = 1.0 / np.arange(1, 17) ** 1.1
    skewed = np.repeat(np.arange(k), np.floor(n * shares / shares.sum()).astype(int))
    nearly_one = np.concatenate([np.zeros(int(0.97 * n), int), np.arange(int(0.03 * n)) % 4])
    out: dict[str, object] = {}
    worst = [math.inf, -math.inf, 1.0]
    for make in PROTOCOLS:
        for epsilon in EPSILONS:
            protocol = make(k, epsilon)
            squares, held, intervals = 0.0, 0, 0
            for at, values in enumerate((skewed, nearly_one)):
                f = np.bincount(values, minlength=k) / len(values)
                closed = protocol.variance(f, len(values))
                for run in range(runs):
                    reports = randomize(protocol, values, noise_random_state=1000 * at + run)
                    found = Aggregator(protocol).partial_fit(reports).estimate()
                    squares += float(((found.frequencies - f) ** 2 / closed).sum())
                    held += int(((found.ci_low <= f) & (f <= found.ci_high)).sum())
                    intervals += k
            ratio, coverage = squares / intervals, held / intervals
            out[f"{make.name}, epsilon {epsilon:g}"] = {
                "mse_over_closed_form": round(ratio, 4), "coverage": round(coverage, 4),
                "intervals": intervals,
            }  # fmt: skip
            worst = [min(worst[0], ratio), max(worst[1], ratio), min(worst[2], coverage)]
    out["least and largest ratio, least coverage"] = [round(x, 4) for x in worst]
    return out


# -- peers -----------------------------------------------------------------------------------
def attributes() -> tuple[dict[str, np.ndarray], bool]:
    """Return codes of Adult's training rows by attribute, and whether they are real."""
    adult = fetch_adult(split="train", fallback="embedded", missing="category")
    out = {}
    for name in ATTRIBUTES:
        _, codes = np.unique(adult.data[name].astype(str).to_numpy(), return_inverse=True)
        out[name] = codes.astype(np.int64)
    return out, not adult.embedded


def errors(estimates: list[np.ndarray], f: np.ndarray) -> np.ndarray:
    """Return one mean squared error per run."""
    return np.array([float(((e - f) ** 2).mean()) for e in estimates])


def finish(raw: np.ndarray, rule: str) -> np.ndarray:
    return raw if rule == "raw" else postprocess(raw, rule)


def compare(columns: dict[str, np.ndarray]) -> dict[str, object]:
    same: dict[str, object] = {}
    default: dict[str, object] = {}
    for package, estimators in peers().items():
        for name, estimate in estimators.items():
            n, runs = WORK[package, name]
            runs = 3 if QUICK else runs
            started = time.perf_counter()
            ratios, cells = cells_of(columns, name, estimate, min(n, 500) if QUICK else n, runs)
            for rule, found in ratios.items():
                value = float(np.mean([r for r, _ in found.values()]))
                error = math.sqrt(sum(s * s for _, s in found.values())) / len(found)
                same[f"{package} {name}, {rule}"] = {
                    "users": n, "runs": runs, "ours_over_theirs": round(value, 4),
                    "standard_error": round(error, 4),
                    "cells": {c: [round(r, 3), round(s, 3)] for c, (r, s) in found.items()},
                }  # fmt: skip
            as_returned = "norm_mul" if package == "multi-freq-ldpy" else "raw"
            ours = sum(c["ours"] for c in cells.values())
            theirs = sum(c["theirs"] for c in cells.values())
            default[f"{package} {name}, {as_returned}"] = {
                "users": n, "sum_ours_over_theirs": round(ours / theirs, 4),
                "mean_of_cells": round(
                    float(np.mean([c["ours"] / c["theirs"] for c in cells.values()])), 4
                ),
                "cells_where_the_peer_wins": {
                    name: round(c["ours"] / c["theirs"], 3)
                    for name, c in cells.items() if c["ours"] > c["theirs"]
                },
            }  # fmt: skip
            print(f"{package} {name}: {time.perf_counter() - started:.1f} s", flush=True)
    return {"same protocol, same post-processing": same, "our defaults": default}


def by_default(values: np.ndarray, k: int, epsilon: float, cell: str) -> float:
    """Return the error of our defaults; one measurement serves all peers with as many users."""
    key = (cell, len(values))
    if key not in _DEFAULTS:
        f = np.bincount(values, minlength=k) / len(values)
        best = choose(k, epsilon).best
        runs = 3 if QUICK else DEFAULT_RUNS
        found = [frequencies(best, values, 7777 + r) for r in range(runs)]
        _DEFAULTS[key] = float(errors([postprocess(x, "norm_sub") for x in found], f).mean())
    return _DEFAULTS[key]


def cells_of(
    columns: dict[str, np.ndarray], name: str, estimate: object, n: int, runs: int
) -> tuple[dict[str, dict[str, tuple[float, float]]], dict[str, dict[str, float]]]:
    ratios: dict[str, dict[str, tuple[float, float]]] = {}
    cells: dict[str, dict[str, float]] = {}
    for attribute, codes in columns.items():
        k = int(codes.max()) + 1
        values = np.random.default_rng(0).permutation(codes)[:n]
        f = np.bincount(values, minlength=k) / len(values)
        for epsilon in EPSILONS:
            if name == "HR" and epsilon > 1:
                continue  # pure-ldp's is another protocol there
            theirs: dict[str, list[np.ndarray]] = {}
            for _ in range(runs):
                for rule, found in estimate(values, k, epsilon).items():  # type: ignore[operator]
                    theirs.setdefault(rule, []).append(found)
            protocol = BY_NAME[name](k, epsilon)
            if name == "SS":  # multi-freq-ldpy rounds the size where we compare its neighbours
                protocol = SS(k, epsilon, omega=max(1, round(k / (math.exp(epsilon) + 1))))
            mine = [frequencies(protocol, values, 1 + r) for r in range(TIMES_OURS * runs)]
            cell = f"{attribute} ({k}), epsilon {epsilon:g}"
            for rule, found in theirs.items():
                a = errors([finish(x, rule) for x in mine], f)
                b = errors(found, f)
                ratio = float(a.mean() / b.mean())
                relative = (a.std(ddof=1) / a.mean()) ** 2 / len(a)
                relative += (b.std(ddof=1) / b.mean()) ** 2 / len(b)
                ratios.setdefault(rule, {})[cell] = (ratio, ratio * math.sqrt(relative))
            as_returned = theirs.get("norm_mul", theirs.get("raw"))
            assert as_returned is not None
            cells[cell] = {
                "ours": by_default(values, k, epsilon, cell),
                "theirs": float(errors(as_returned, f).mean()),
            }
    return ratios, cells


def main() -> None:
    columns, real = attributes()
    results: dict[str, object] = {
        "peers": versions(),
        "data": "Adult, training rows" if real else "embedded synthetic edition of Adult",
        "domains": {name: int(codes.max()) + 1 for name, codes in columns.items()},
        "closed form and intervals": closed_forms(),
    }
    results |= compare(columns)
    results["bars"] = {
        "mse over closed form": [0.9, 1.1], "coverage": ">= 0.94",
        "same protocol, ours over theirs, pooled": [0.95, 1.05],
        "our defaults, summed, ours over theirs": "< 1",
    }  # fmt: skip
    if QUICK:
        print(results)
        return
    record("ldp_accuracy", results, seeds={"ours": 0, "peers": 0})


if __name__ == "__main__":
    main()
