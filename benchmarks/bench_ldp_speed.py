"""Local differential privacy: what client and server take, beside multi-freq-ldpy and pure-ldp.

One thread, one run, interleaved. Ours always does the whole work with exact 64-bit thresholds on
randomness of the operating system's generator; the peers use floats on Mersenne twister. What they
take for the full size is extrapolated from fewer users, at the same domain.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from _ldp_peers import versions
from _record import record

from privfair.ldp import (
    GRR,
    HR,
    OLH,
    OUE,
    PGR,
    SS,
    Aggregator,
    FrequencyProtocol,
    Reports,
    randomize,
)

K, EPSILON = 1024, 1.0
QUICK = "--quick" in sys.argv
N = 20_000 if QUICK else 1_000_000
FEW = 100 if QUICK else 300  # users whom a peer's local hashing server handles
REPEATS = 2 if QUICK else 5


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the wall and of this process's one thread."""
    wall, own = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - own


def ours(protocol: FrequencyProtocol, values: np.ndarray, repeats: int) -> dict[str, object]:
    """Return client and server, each on all users, repeated."""
    rounds = []
    for _ in range(repeats):
        made: list[Reports] = []
        client = timed(lambda m=made: m.append(randomize(protocol, values)))
        server = timed(lambda m=made: Aggregator(protocol).partial_fit(m[0]).estimate())
        rounds.append((client, server))
    out: dict[str, object] = {"n": len(values), "k": protocol.k}
    for at, name in enumerate(("client", "server")):
        out[f"{name}_wall"] = [round(r[at][0], 4) for r in rounds]
        out[f"{name}_process"] = [round(r[at][1], 4) for r in rounds]
    whole = [sum(part[1] for part in r) for r in rounds]
    out["client_and_server_process_median"] = round(statistics.median(whole), 4)
    return out


def hash_servers(found: dict[str, str]) -> dict[str, object]:
    """OLH: nanoseconds per report and value, in turns."""
    protocol = OLH(K, EPSILON)
    rng = np.random.default_rng(0)
    reports = randomize(protocol, rng.integers(0, K, N))
    ns: dict[str, list[float]] = {"privfair": []}
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "privfair": (lambda: Aggregator(protocol).partial_fit(reports), N)
    }
    if "multi-freq-ldpy" in found:
        from multi_freq_ldpy.pure_frequency_oracles.LH import LH_Aggregator_MI, LH_Client

        theirs = [LH_Client(int(v), K, EPSILON) for v in rng.integers(0, K, FEW)]
        calls["multi-freq-ldpy"] = (lambda: LH_Aggregator_MI(theirs, K, EPSILON), FEW)
    if "pure-ldp" in found:
        from pure_ldp.frequency_oracles import LHClient, LHServer

        client = LHClient(EPSILON, K, use_olh=True)
        sent = [client.privatise(int(v) + 1) for v in rng.integers(0, K, FEW)]
        calls["pure-ldp"] = (
            lambda: LHServer(EPSILON, K, use_olh=True).aggregate_all(sent), FEW,
        )  # fmt: skip
    for _ in range(REPEATS):
        for name, (call, n) in calls.items():
            ns.setdefault(name, []).append(1e9 * timed(call)[1] / (n * K))
    own = statistics.median(ns["privfair"])
    return {
        "nanoseconds_per_report_and_value": {k: [round(t, 3) for t in v] for k, v in ns.items()},
        "seconds_for_all_reports": [round(t * N * K / 1e9, 3) for t in ns["privfair"]],
        "n": N,
        "times_faster_than": {
            name: round(statistics.median(t) / own) for name, t in ns.items() if name != "privfair"
        },
    }


def peer_clients(found: dict[str, str]) -> dict[str, object]:
    """Microseconds per user of the peers' clients, one call per user as their users make it."""
    out: dict[str, object] = {}
    values = np.random.default_rng(1).integers(0, K, 200 if QUICK else 3000).tolist()
    if "multi-freq-ldpy" in found:
        from multi_freq_ldpy.pure_frequency_oracles.GRR import GRR_Client
        from multi_freq_ldpy.pure_frequency_oracles.SS import SS_Client
        from multi_freq_ldpy.pure_frequency_oracles.UE import UE_Client

        for name, call in (("GRR", GRR_Client), ("OUE", UE_Client), ("SS", SS_Client)):
            call(0, K, EPSILON)  # compiles
            _, took = timed(lambda c=call: [c(v, K, EPSILON) for v in values])
            out[f"multi-freq-ldpy {name}"] = round(1e6 * took / len(values), 3)
    if "pure-ldp" in found:
        from pure_ldp.frequency_oracles import (
            DEClient,
            HadamardResponseClient,
            HadamardResponseServer,
            UEClient,
        )

        server = HadamardResponseServer(EPSILON, K)
        made = {
            "GRR": DEClient(EPSILON, K), "OUE": UEClient(EPSILON, K, use_oue=True),
            "HR": HadamardResponseClient(EPSILON, K, server.get_hash_funcs()),
        }  # fmt: skip
        for name, client in made.items():
            _, took = timed(lambda c=client: [c.privatise(v + 1) for v in values])
            out[f"pure-ldp {name}"] = round(1e6 * took / len(values), 3)
        sent = [made["HR"].privatise(v + 1) for v in values]

        def whole() -> None:
            server.aggregate_all(sent)
            server.estimate_all(range(1, K + 1), suppress_warnings=True)

        out["pure-ldp HR server"] = round(1e6 * timed(whole)[1] / len(values), 3)
    return out


def memory(values: np.ndarray) -> dict[str, object]:
    """OUE: bytes of all reports, and the most that was in use while they were drawn."""
    protocol = OUE(K, EPSILON)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    reports = randomize(protocol, values)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    held = sum(a.nbytes for a in reports.payload.values())
    return {
        "n": len(values),
        "reports_mib": round(held / 2**20, 2),
        "wire_mib": round(len(reports.to_bytes()) / 2**20, 2),
        "peak_while_drawing_mib": round(peak / 2**20, 2),
    }


def main() -> None:
    found = versions()
    values = np.random.default_rng(2).integers(0, K, N)
    results: dict[str, object] = {
        "k": K, "epsilon": EPSILON, "peers": found, "local hashing server": hash_servers(found)
    }  # fmt: skip
    for make in (GRR, HR, PGR):
        results[make.name] = ours(make(K, EPSILON), values, REPEATS)
    results["OUE"] = ours(OUE(K, EPSILON), values, 2)
    results["SS"] = ours(SS(K, EPSILON), values[: N // 10], 2)
    results["OUE memory"] = memory(values)
    results["peers, microseconds per user"] = peer_clients(found)
    results["bars"] = {
        "OLH server, times faster than multi-freq-ldpy": ">= 200",
        "OLH server, 1e6 reports x 1024, seconds": "<= 3",
        "HR client and server, 1e6, seconds": "<= 1",
        "GRR client, 1e6, seconds": "<= 0.3",
        "OUE, 1e6 x 1024, MiB": "<= 128",
    }
    results["load_average"] = [round(x, 2) for x in os.getloadavg()]
    if QUICK:
        print(results)
        return
    record("ldp_speed", results)


if __name__ == "__main__":
    main()
