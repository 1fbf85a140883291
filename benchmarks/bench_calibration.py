"""Calibration and pricing: CPU time here, beside dp_accounting's generic way, in one run.

The generic way is ``calibrate_dp_mechanism`` with its PLD accountant at a grid step of 1e-4, the
bracket (0.3, 2.0) with growth and the tolerance 1e-3, as its documentation shows. Tolerances are
not identical: here epsilon is met within 0.2 %, there the noise within 1e-3. Only every other
case is given to it, for it takes seconds each. Budget: at most 3 s for each case up to 1e5 steps.
"""

from __future__ import annotations

import math
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import time
from collections.abc import Callable
from typing import Any

import dp_accounting as dpa
from _record import record
from dp_accounting.pld import PLDAccountant

from privfair import accounting as ac
from privfair.accounting import _losses, _numeric, _rdp

N = 32561
CASES = [
    # epsilon, delta, sample rate, steps, compare
    (1.0, 1e-5, 256 / N, 1270, True),
    (1.0, 1e-5, 1024 / N, 640, True),
    (1.0, 1e-5, 2048 / N, 480, True),
    (1.0, 1e-5, 4096 / N, 240, True),
    (1.0, 1e-5, 1.0, 100, True),
    (8.0, 1e-5, 0.01, 1000, False),
    (0.1, 1e-5, 0.01, 1000, False),
    (0.01, 1e-5, 0.01, 1000, False),
    (8.0, 1e-6, 0.001, 100_000, False),
    (1.0, 1e-6, 0.001, 100_000, False),
    (0.01, 1e-6, 0.001, 100_000, False),
]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    value = call()
    return value, time.process_time() - start


def forget() -> None:
    """Empty all caches, so that each repeat pays for everything."""
    _numeric._CACHE.clear()
    for cached in (_losses.gaussian_pair, _losses.replaced_gaussian_pair, _rdp._log_moment):
        cached.cache_clear()


def event(q: float, steps: int, sigma: float) -> ac.AccountedEvent:
    return ac.SelfComposed(ac.PoissonSampled(q, ac.Gaussian(sigma)), steps)


def generic(epsilon: float, delta: float, q: float, steps: int) -> float:
    def make(sigma: float) -> Any:
        step = dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma))
        return dpa.SelfComposedDpEvent(step, steps)

    return float(
        dpa.calibrate_dp_mechanism(
            lambda: PLDAccountant(value_discretization_interval=1e-4), make, epsilon, delta,
            dpa.LowerEndpointAndGuess(0.3, 2.0), tol=1e-3,
        )
    )  # fmt: skip


def main() -> None:
    results: dict[str, Any] = {}
    for epsilon, delta, q, steps, compare in CASES:
        times, sigma = [], math.nan
        for _ in range(3):
            forget()
            sigma, spent = timed(
                lambda e=epsilon, d=delta, r=q, t=steps: ac.calibrate_noise_multiplier(
                    epsilon=e, delta=d, sample_rate=r, steps=t
                )
            )
            times.append(round(spent, 4))
        forget()
        found, pricing = timed(lambda s=sigma, r=q, t=steps, d=delta: ac.guarantee(
            event(r, t, s), delta=d))  # fmt: skip
        row: dict[str, Any] = {
            "noise_multiplier": sigma,
            "achieved": found.epsilon / epsilon,
            "cpu_seconds": times,
            "guarantee_cpu_seconds": round(pricing, 4),
        }
        if compare:
            other, spent = timed(lambda e=epsilon, d=delta, r=q, t=steps: generic(e, d, r, t))
            row["dp_accounting"] = {
                "noise_multiplier": other,
                "cpu_seconds": round(spent, 3),
                "ratio": round(spent / sorted(times)[1], 1),
            }
        results[f"epsilon {epsilon:g}, delta {delta:g}, q {q:.4g}, {steps} steps"] = row
    results["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    record("calibration", results)


if __name__ == "__main__":
    main()
