"""Noise: draws per second of the exact samplers, and what training noise costs per step.

One thread. The exact samplers should give at least 1e6 discrete Gaussians per second. Training
noise is compared with plain (idealized) float noise in the same run, since seconds mean little on
a busy machine; minimum and median of interleaved repeats.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import torch
from _record import record

from privfair.core.randomness import secret_stream
from privfair.mechanisms import HardenedGaussian, discrete_gaussian, discrete_laplace
from privfair.mechanisms._lattice import GaussianLaw, TableSampler
from privfair.mechanisms._sampling import BitSource, discrete_gaussian_scalar

N = 1_000_000


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def exact_samplers() -> dict[str, object]:
    stream = secret_stream()
    results: dict[str, object] = {}
    for sigma in (0.5, 1.0, 10.0, 1e3, 1e6, 2.0**40):
        square = Fraction(sigma) ** 2
        build = min(seconds(lambda s=square: TableSampler(GaussianLaw(s))) for _ in range(3))
        times = [seconds(lambda s=square: discrete_gaussian(s, N, stream)) for _ in range(5)]
        results[f"discrete Gaussian, sigma {sigma:g}"] = {
            "table_seconds": round(build, 5),
            "seconds": [round(t, 4) for t in times],
            "draws_per_second": round(N / statistics.median(times)),
        }
    for scale in (1.0, 1e3, 1e6):
        times = [seconds(lambda t=scale: discrete_laplace(t, N, stream)) for _ in range(5)]
        results[f"discrete Laplace, scale {scale:g}"] = {
            "seconds": [round(t, 4) for t in times],
            "draws_per_second": round(N / statistics.median(times)),
        }
    source = BitSource(stream.uint64)
    count = 2000
    slow = seconds(lambda: [discrete_gaussian_scalar(Fraction(100), source) for _ in range(count)])
    results["scalar reference, sigma 10"] = {"draws_per_second": round(count / slow)}
    return results


def training_noise() -> dict[str, object]:
    results: dict[str, object] = {}
    for name, size in (("logistic", 210), ("MLP", 21_000), ("large", 1_000_000)):
        mechanism = HardenedGaussian(1.1, bound=1.0, size=size)
        total = torch.zeros(size)
        first = seconds(lambda m=mechanism, t=total: m.add_(t))
        repeats = 200 if size < 10**5 else 9
        ours, plain, secure = [], [], []
        for _ in range(repeats):
            ours.append(seconds(lambda m=mechanism, t=total: m.add_(t)))
            plain.append(seconds(lambda t=total: t.add_(torch.randn(t.shape[0]), alpha=1.1)))
            secure.append(
                seconds(lambda t=total: [t.add_(torch.randn(t.shape[0])) for _ in range(4)])
            )
        results[f"{name}, {size} parameters"] = {
            "first_step_ms": round(1e3 * first, 3),
            "hardened_ms": round(1e3 * statistics.median(ours), 4),
            "plain_float_ms": round(1e3 * statistics.median(plain), 4),
            "four_float_draws_ms": round(1e3 * statistics.median(secure), 4),
            "times_plain_float": round(statistics.median(ours) / statistics.median(plain), 2),
            "nanoseconds_per_parameter": round(1e9 * statistics.median(ours) / size, 1),
        }
    generator = secret_stream()
    keys = [seconds(generator.generator) for _ in range(500)]
    results["a new key"] = {"microseconds": round(1e6 * statistics.median(keys), 2)}
    return results


def main() -> None:
    torch.set_num_threads(1)
    results = {
        "exact samplers": exact_samplers(),
        "training noise": training_noise(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }
    record("noise_sampling", results)


if __name__ == "__main__":
    main()
