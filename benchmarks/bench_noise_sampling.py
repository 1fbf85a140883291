"""Noise: draws per second of the exact samplers, selection, and what training noise costs.

One thread. The exact samplers should give at least 1e6 discrete Gaussians and discrete Laplace
variables per second. Selection is compared, in the same run, with the textbook: float weights and
a float draw, which is not private (the weights are rounded), and float Gumbel noise. Training
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

import numpy as np
import torch
from _record import record

from privfair.core.randomness import secret_stream
from privfair.mechanisms import (
    DPMean,
    DPQuantile,
    ExponentialMechanism,
    HardenedGaussian,
    PermuteAndFlip,
    discrete_gaussian,
    discrete_laplace,
)
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
    for size in (1, 16):
        times = [seconds(lambda k=size: discrete_gaussian(100, k, stream)) for _ in range(2000)]
        results[f"a request for {size}, sigma 10"] = {
            "microseconds": round(1e6 * statistics.median(times), 1)
        }
    source = BitSource(stream.uint64)
    count = 2000
    slow = seconds(lambda: [discrete_gaussian_scalar(Fraction(100), source) for _ in range(count)])
    results["scalar reference, sigma 10"] = {"draws_per_second": round(count / slow)}
    return results


def selection() -> dict[str, object]:
    """Interleaved: exact choices, float choices, and the other releases of one number."""
    results: dict[str, object] = {}
    rng = np.random.default_rng(0)
    for size in (10, 1000, 100_000, 1_000_000):
        scores = rng.random(size) * 30
        exact = ExponentialMechanism(size, 1.0)
        coins = PermuteAndFlip(size, 1.0)

        def weights(s: np.ndarray = scores) -> object:
            p = np.exp((s - s.max()) / 2)
            return rng.choice(s.size, p=p / p.sum())

        def gumbel(s: np.ndarray = scores) -> object:
            return int(np.argmax(s / 2 + rng.gumbel(size=s.size)))

        calls = {
            "exponential_mechanism": lambda m=exact, s=scores: m.release(s),
            "permute_and_flip": lambda m=coins, s=scores: m.release(s),
            "float_weights": weights,
            "float_gumbel": gumbel,
        }
        repeats = 200 if size <= 1000 else 9
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                times[name].append(seconds(call))
        median = {name: statistics.median(t) for name, t in times.items()}
        results[f"{size} candidates"] = {
            **{f"{name}_microseconds": round(1e6 * t, 1) for name, t in median.items()},
            "exponential_times_float_gumbel": round(
                median["exponential_mechanism"] / median["float_gumbel"], 2
            ),
            "permute_and_flip_times_float_gumbel": round(
                median["permute_and_flip"] / median["float_gumbel"], 2
            ),
        }
    column = rng.random(100_000)
    for name, mechanism in (
        ("DPQuantile, 1024 candidates", DPQuantile(0.5, 0, 1, 1.0)),
        ("DPMean", DPMean(0, 1, epsilon=1.0)),
        ("DPMean, add_remove", DPMean(0, 1, epsilon=1.0, neighboring="add_remove")),
    ):
        mechanism.release(column)
        ours, plain = [], []
        for _ in range(15):
            ours.append(seconds(lambda m=mechanism: m.release(column)))
            plain.append(seconds(lambda: np.median(column)))
        results[f"{name}, {column.size} rows"] = {
            "milliseconds": round(1e3 * statistics.median(ours), 3),
            "times_numpy_median": round(statistics.median(ours) / statistics.median(plain), 2),
        }
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
        "selection": selection(),
        "training noise": training_noise(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }
    record("noise_sampling", results)


if __name__ == "__main__":
    main()
