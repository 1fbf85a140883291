"""Other packages' local randomisers, called as their authors wrote them; absent ones are skipped.

multi-freq-ldpy 0.2.5 and pure-ldp 1.2.0 are not dependencies. To compare with them:

    pip install --target PEERS --no-deps multi-freq-ldpy==0.2.5 pure-ldp==1.2.0 numba llvmlite \
        "xxhash<4" bitarray
    PRIVFAIR_BENCH_PEERS=PEERS python benchmarks/bench_ldp_speed.py
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

FOLDER = os.environ.get("PRIVFAIR_BENCH_PEERS")
if FOLDER and FOLDER not in sys.path:
    sys.path.append(FOLDER)  # behind everything else: only what is not installed comes from it
warnings.filterwarnings("ignore", category=RuntimeWarning)

Estimate = Callable[[np.ndarray, int, float], dict[str, np.ndarray]]
NAMES = ("multi-freq-ldpy", "pure-ldp")


def versions() -> dict[str, str]:
    """Return the peers that are there, with their versions."""
    found = {}
    for name in NAMES:
        if importlib.util.find_spec(name.replace("-", "_")) is None:
            print(
                f"{name} is not installed: its numbers are skipped (see benchmarks/_ldp_peers.py)"
            )
            continue
        found[name] = importlib.metadata.version(name)
    return found


def multi_freq() -> dict[str, Estimate]:
    """Return the estimators of multi-freq-ldpy by protocol: their clients, their estimator.

    Its compiled clients are called from a compiled loop, which spares its users' interpreter and
    changes no number. What it returns is always clipped at 0 and divided by the sum.
    """
    from multi_freq_ldpy.estimators.Histogram_estimator import MI
    from multi_freq_ldpy.pure_frequency_oracles.GRR import GRR_Client
    from multi_freq_ldpy.pure_frequency_oracles.LH import LH_Aggregator_MI, LH_Client
    from multi_freq_ldpy.pure_frequency_oracles.SS import SS_Client
    from multi_freq_ldpy.pure_frequency_oracles.UE import UE_Client
    from numba import njit

    @njit
    def seed(s: int) -> None:
        np.random.seed(s)  # noqa: NPY002 - theirs draws from it

    @njit
    def grr(values, k, epsilon):  # type: ignore[no-untyped-def]
        counts = np.zeros(k)
        for v in values:
            counts[GRR_Client(v, k, epsilon)] += 1
        return counts

    @njit
    def ue(values, k, epsilon, optimal):  # type: ignore[no-untyped-def]
        counts = np.zeros(k)
        for v in values:
            counts += UE_Client(v, k, epsilon, optimal)
        return counts

    @njit
    def ss(values, k, epsilon):  # type: ignore[no-untyped-def]
        counts = np.zeros(k)
        for v in values:
            for u in SS_Client(v, k, epsilon):
                counts[u] += 1
        return counts

    np.random.seed(0)  # noqa: NPY002 - theirs draws from it
    seed(0)

    def of(counts: np.ndarray, n: int, p: float, q: float) -> dict[str, np.ndarray]:
        return {"norm_mul": MI(counts, n, p, q)}

    def run_grr(values: np.ndarray, k: int, epsilon: float) -> dict[str, np.ndarray]:
        p = np.exp(epsilon) / (np.exp(epsilon) + k - 1)
        return of(grr(values, k, epsilon), len(values), p, (1 - p) / (k - 1))

    def run_ue(optimal: bool) -> Estimate:
        def run(values: np.ndarray, k: int, epsilon: float) -> dict[str, np.ndarray]:
            p = 0.5 if optimal else np.exp(epsilon / 2) / (np.exp(epsilon / 2) + 1)
            q = 1 / (np.exp(epsilon) + 1) if optimal else 1 - p
            return of(ue(values, k, epsilon, optimal), len(values), p, q)

        return run

    def run_ss(values: np.ndarray, k: int, epsilon: float) -> dict[str, np.ndarray]:
        e = np.exp(epsilon)
        w = int(max(1, np.rint(k / (e + 1))))
        p = w * e / (w * e + k - w)
        q = ((w - 1) * (w * e) + (k - w) * w) / ((k - 1) * (w * e + k - w))
        return of(ss(values, k, epsilon), len(values), p, q)

    def run_lh(optimal: bool) -> Estimate:
        def run(values: np.ndarray, k: int, epsilon: float) -> dict[str, np.ndarray]:
            reports = [LH_Client(int(v), k, epsilon, optimal) for v in values]
            return {"norm_mul": LH_Aggregator_MI(reports, k, epsilon, optimal)}

        return run

    return {
        "GRR": run_grr, "OUE": run_ue(True), "SUE": run_ue(False), "SS": run_ss,
        "OLH": run_lh(True), "BLH": run_lh(False),
    }  # fmt: skip


def pure() -> dict[str, Estimate]:
    """Return the estimators of pure-ldp by protocol: raw, and projected on the simplex."""
    import random

    from pure_ldp.frequency_oracles import (
        DEClient,
        DEServer,
        HadamardResponseClient,
        HadamardResponseServer,
        LHClient,
        LHServer,
        UEClient,
        UEServer,
    )

    random.seed(0)

    def run_with(make: Callable[[int, float], tuple[Any, Any]]) -> Estimate:
        def run(values: np.ndarray, k: int, epsilon: float) -> dict[str, np.ndarray]:
            client, server = make(k, epsilon)
            server.aggregate_all([client.privatise(v) for v in (values + 1).tolist()])
            n, domain = len(values), range(1, k + 1)
            found = {}
            for name, rule in (("raw", 0), ("norm_sub", 2)):
                estimates = server.estimate_all(domain, suppress_warnings=True, normalization=rule)
                found[name] = np.asarray(estimates) / n
            return found

        return run

    def lh(optimal: bool) -> Callable[[int, float], tuple[Any, Any]]:
        def make(k: int, epsilon: float) -> tuple[Any, Any]:
            return (LHClient(epsilon, k, use_olh=optimal), LHServer(epsilon, k, use_olh=optimal))

        return make

    def ue(optimal: bool) -> Callable[[int, float], tuple[Any, Any]]:
        def make(k: int, epsilon: float) -> tuple[Any, Any]:
            return UEClient(epsilon, k, use_oue=optimal), UEServer(epsilon, k, use_oue=optimal)

        return make

    def hr(k: int, epsilon: float) -> tuple[Any, Any]:
        server = HadamardResponseServer(epsilon, k)
        return HadamardResponseClient(epsilon, k, server.get_hash_funcs()), server

    return {
        "GRR": run_with(lambda k, e: (DEClient(e, k), DEServer(e, k))), "OUE": run_with(ue(True)),
        "SUE": run_with(ue(False)), "OLH": run_with(lh(True)), "BLH": run_with(lh(False)),
        "HR": run_with(hr),
    }  # fmt: skip


def peers() -> dict[str, dict[str, Estimate]]:
    """Return the estimators of all peers that are there."""
    makers = {"multi-freq-ldpy": multi_freq, "pure-ldp": pure}
    return {name: makers[name]() for name in versions()}
