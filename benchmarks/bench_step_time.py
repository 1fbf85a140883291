"""What one private training step costs, beside a plain PyTorch step and beside Opacus.

Models of the size of Adult: an MLP 104-128-64-2 (ReLU) and logistic regression 104-2 (two logits),
batches of 256, 1024 and 4096.

*resident*: one fixed batch in memory. The plain step is zero_grad, forward, cross_entropy,
backward and the update of ``torch.optim.SGD``. The private step is everything that the training
loop does with a batch: forward, per-record norms, clipping, the sum, hardened noise, the division
and the update. Nothing else is in either.

*sampled*: the same with drawing the batch from 32,561 rows: Poisson sampling and indexing in the
private step, a permuted index of the same size and indexing in the plain one.

*loop*: a whole run of the engine, set-up included, divided by its steps, beside the plain loop.

Times are of blocks of steps, interleaved over the methods; one block of each method is a round. A
ratio is the median over rounds of the ratio within a round; the ratio of the minima stands beside
it.

    python benchmarks/bench_step_time.py [--quick] [--threads N] [--no-opacus] [--cpu-time]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from _record import record
from torch import Tensor, nn

from privfair.core.randomness import secret_stream
from privfair.training._clipping import GUARD
from privfair.training._closed_form import ClosedFormPath
from privfair.training._engine import DPEngine, _flatten
from privfair.training._losses import SoftmaxLoss
from privfair.training._noise import StepNoise
from privfair.training._optim import make_optimizer
from privfair.training._plan import TrainingPlan
from privfair.training._sampling import PoissonSampler

N_ROWS, N_FEATURES = 32_561, 104
WIDTHS = {"mlp": (N_FEATURES, 128, 64, 2), "logistic": (N_FEATURES, 2)}
BATCHES = (256, 1024, 4096)
SIGMA, CLIP, LR = 1.1, 1.0, 0.1
BLOCK_SECONDS = 0.012
BARS = {
    "mlp": {256: 2.0, 1024: 1.6, 4096: 1.5},
    "logistic": {256: 2.0, 1024: 1.8, 4096: 1.7},
    "of the fastest Opacus, mlp": {256: 0.45, 1024: 0.5, 4096: 0.65},
    "of the fastest Opacus, logistic": {256: 0.5, 1024: 0.5, 4096: 0.5},
    "of Opacus' hooks, mlp": 1 / 20,
    "peak memory": 1.5,
}

Step = Callable[[], object]
clock = time.perf_counter


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    sizes = WIDTHS[kind]
    layers: list[nn.Module] = []
    for at, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers += [nn.Linear(a, b)] if at == len(sizes) - 2 else [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers)


def table(n: int) -> tuple[Tensor, Tensor]:
    """Look-alike rows: ten numbers and 94 indicators, 12 of which are one."""
    g = torch.Generator().manual_seed(1)
    X = torch.zeros(n, N_FEATURES)
    X[:, :10] = torch.rand((n, 10), generator=g) * 2 - 1
    hot = torch.randint(10, N_FEATURES, (n, 12), generator=g)
    X.scatter_(1, hot, 1.0)
    return X, torch.randint(0, 2, (n,), generator=g)


def plain_step(kind: str, X: Tensor, y: Tensor) -> Step:
    model = network(kind).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimizer.step()

    return step


def private_step(kind: str, X: Tensor, y: Tensor, rows: Callable[[], Tensor | None]) -> Step:
    """The body of the engine's loop, over ``rows()`` of the table; None stands for all of it."""
    model, loss, batch = network(kind).eval(), SoftmaxLoss(2), len(X) if rows() is None else None
    path = ClosedFormPath(model, loss, fixed_places=True)  # the default relation, zero_out
    theta = _flatten(model)
    extra = path.extra_error(N_ROWS, CLIP)
    noise = StepNoise(SIGMA, CLIP, theta.numel(), N_ROWS, None, extra_error=extra)
    optimizer = make_optimizer("sgd", LR)
    path.prepare(X)
    divisor = batch or 1024

    def step() -> None:
        sums = path.sums(X, y, rows(), CLIP, GUARD)
        optimizer.step(theta, (noise.add(sums.total) / divisor).to(theta.dtype))

    return step


def opacus_step(kind: str, mode: str, X: Tensor, y: Tensor) -> Step:
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.grad_sample.gsm_exp_weights import GradSampleModuleExpandedWeights
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model = network(kind).train()
    sgd = torch.optim.SGD(model.parameters(), lr=LR)
    shared: dict[str, Any] = {
        "noise_multiplier": SIGMA, "max_grad_norm": CLIP, "expected_batch_size": len(X),
    }  # fmt: skip
    if mode == "ghost":
        wrapped: Any = GradSampleModuleFastGradientClipping(model, max_grad_norm=CLIP)
        optimizer: Any = DPOptimizerFastGradientClipping(sgd, **shared)
        loss: Any = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss())
    else:
        if mode == "ew":
            wrapped = GradSampleModuleExpandedWeights(model)
        else:
            wrapped = GradSampleModule(model, force_functorch=mode == "functorch")
        optimizer, loss = DPOptimizer(sgd, **shared), nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        loss(wrapped(X), y).backward()
        optimizer.step()

    return step


def interleaved(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Return seconds per step of each method, one entry per round."""
    inner = {}
    for name, step in steps.items():
        for _ in range(3):
            step()
        start = clock()
        step()
        inner[name] = max(1, min(50, round(BLOCK_SECONDS / (clock() - start))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            if inner[name] > 1:
                step()  # brings its own data back into the cache
            start = clock()
            for _ in range(inner[name]):
                step()
            times[name].append((clock() - start) / inner[name])
    return times


def summary(times: dict[str, list[float]], base: str) -> dict[str, Any]:
    """Minimum and median in milliseconds, and ratios to ``base``."""
    rows = {}
    for name, values in times.items():
        rounds = [a / b for a, b in zip(values, times[base], strict=True)]
        rows[name] = {
            "min_ms": round(1e3 * min(values), 4),
            "median_ms": round(1e3 * statistics.median(values), 4),
            "ratio": round(statistics.median(rounds), 3),
            "ratio_of_minima": round(min(values) / min(times[base]), 3),
        }
    return rows


def resident_cell(kind: str, batch: int, repeats: int, opacus: bool) -> dict[str, Any]:
    X, y = table(batch)
    steps = {"plain": plain_step(kind, X, y), "privfair": private_step(kind, X, y, lambda: None)}
    if opacus:
        for mode in ("ghost", "ew", "functorch", "hooks"):
            steps[f"opacus {mode}"] = opacus_step(kind, mode, X, y)
    rows = summary(interleaved(steps, repeats), "plain")
    ours = rows["privfair"]
    others = {name: row for name, row in rows.items() if name.startswith("opacus")}
    verdict: dict[str, Any] = {"bar": BARS[kind][batch], "met": ours["ratio"] <= BARS[kind][batch]}
    if others:
        fastest = min(others, key=lambda name: others[name]["median_ms"])
        bar = BARS[f"of the fastest Opacus, {kind}"][batch]
        share = ours["median_ms"] / others[fastest]["median_ms"]
        verdict["of the fastest Opacus"] = {
            "mode": fastest, "share": round(share, 3), "bar": bar, "met": share <= bar,
        }  # fmt: skip
        hooks = ours["median_ms"] / others["opacus hooks"]["median_ms"]
        verdict["of Opacus' hooks"] = {"share": round(hooks, 4)}
        if kind == "mlp":
            verdict["of Opacus' hooks"] |= {"bar": 0.05, "met": hooks <= 0.05}
    return {**rows, "verdict": verdict}


def sampled_cell(kind: str, batch: int, repeats: int) -> dict[str, Any]:
    X, y = table(N_ROWS)
    sampler = PoissonSampler(N_ROWS, batch / N_ROWS, secret_stream())
    model = network(kind).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    order, at = torch.randperm(N_ROWS), 0

    def plain() -> None:
        nonlocal at
        at = (at + batch) % (N_ROWS - batch)
        rows = order[at : at + batch]
        optimizer.zero_grad()
        F.cross_entropy(model(X[rows]), y[rows]).backward()
        optimizer.step()

    ours = private_step(kind, X, y, lambda: torch.from_numpy(sampler.sample()))
    return summary(interleaved({"plain": plain, "privfair": ours}, repeats), "plain")


def loop_cell(kind: str, batch: int, steps: int, repeats: int) -> dict[str, Any]:
    X, y = table(N_ROWS)
    plan = TrainingPlan(N_ROWS, batch, steps, CLIP, SIGMA)

    def ours() -> None:
        engine = DPEngine(network(kind), SoftmaxLoss(2), plan, optimizer=make_optimizer("sgd", LR))
        engine.run(X, y)

    def plain() -> None:
        model = network(kind).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for _ in range(steps):
            rows = torch.randint(0, N_ROWS, (batch,))
            optimizer.zero_grad()
            F.cross_entropy(model(X[rows]), y[rows]).backward()
            optimizer.step()

    times: dict[str, list[float]] = {"plain": [], "privfair": []}
    for _ in range(repeats):
        for name, run in (("plain", plain), ("privfair", ours)):
            start = clock()
            run()
            times[name].append(clock() - start)
    return {"steps": steps, **summary(times, "plain")}


def parts(kind: str, batch: int, repeats: int) -> dict[str, Any]:
    """Where a private step's time goes, and the floors below which no step can be."""
    from privfair.mechanisms import HardenedGaussian

    X, y = table(batch)
    model, loss = network(kind).eval(), SoftmaxLoss(2)
    path = ClosedFormPath(model, loss, fixed_places=True)
    path.prepare(X)
    theta = _flatten(model)
    size = theta.numel()
    mechanism = HardenedGaussian(SIGMA, CLIP, size)
    total, zero = torch.zeros(size, dtype=torch.float64), torch.zeros(size)
    philox = mechanism._stream.generator().bit_generator
    optimizer = make_optimizer("sgd", LR)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    pairs = [
        (torch.randn(batch, m.out_features), torch.randn(batch, m.in_features)) for m in layers
    ]
    doubles = [(d.double(), a.double()) for d, a in pairs]

    @torch.no_grad()
    def forward() -> Tensor:
        out: Tensor = model(X)
        return out

    steps: dict[str, Step] = {
        "plain step": plain_step(kind, X, y),
        "private step": private_step(kind, X, y, lambda: None),
        "gradient sum (forward, norms, clipping, sum)": lambda: path.sums(X, y, None, CLIP, GUARD),
        "noise (key, draw, round, add)": lambda: mechanism.add_(total),
        "update": lambda: optimizer.step(theta, (total / batch).to(theta.dtype)),
        "floor: forward alone": forward,
        "floor: weight products in float32": lambda: [d.T @ a for d, a in pairs],
        "floor: weight products in float64": lambda: [d.T @ a for d, a in doubles],
        "floor: random words of the generator alone": lambda: philox.random_raw(size),
        "floor: plain float noise (torch.randn)": lambda: zero.normal_(),
    }
    return summary(interleaved(steps, repeats), "plain step")


def memory_cell(kind: str, batch: int) -> dict[str, Any]:
    """Memory held at most at once: by torch's allocator, model included, batch and noise added."""
    X, y = table(batch)
    model = network(kind)
    held = sum(t.numel() * t.element_size() for t in (X, y))
    makers = {
        "plain": lambda: plain_step(kind, X, y),
        "privfair": lambda: private_step(kind, X, y, lambda: None),
    }
    # Noise lives in numpy: what is drawn and what waits, and the table that it is drawn from.
    queue = {
        "plain": 0,
        "privfair": 3 * 8 * sum(p.numel() for p in model.parameters()) + 24 * 2**14,
    }
    peaks = {}
    for name, make in makers.items():
        with torch.profiler.profile(profile_memory=True) as profile:
            step = make()
            for _ in range(3):
                step()
        sizes = [
            event.typed[1].alloc_size
            for event in profile.profiler.kineto_results.experimental_event_tree()
            for event in _walk(event)
            if event.tag == torch._C._profiler._EventType.Allocation
        ]
        now = most = 0
        for change in sizes:
            now += change
            most = max(most, now)
        peaks[name] = held + most + queue[name]
    return {
        **{f"{name}_mib": round(value / 2**20, 3) for name, value in peaks.items()},
        "ratio": round(peaks["privfair"] / peaks["plain"], 3),
        "bar": BARS["peak memory"],
    }


def _walk(event: Any) -> list[Any]:
    return [event, *(deeper for child in event.children for deeper in _walk(child))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="few repeats, nothing is written")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--no-opacus", action="store_true")
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="the process's CPU time for a first look on a busy machine; not for results",
    )  # fmt: skip
    options = parser.parse_args()
    if options.cpu_time:
        global clock
        clock = time.process_time
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    repeats = 7 if options.quick else 30
    started, results = clock(), {}
    for kind in WIDTHS:
        for batch in BATCHES:
            name = f"{kind}, batch {batch}"
            results[name] = {
                "resident": resident_cell(kind, batch, repeats, not options.no_opacus),
                "sampled": sampled_cell(kind, batch, repeats),
                "memory": memory_cell(kind, batch),
            }
            if not options.quick:
                results[name]["parts"] = parts(kind, batch, repeats)
            row = results[name]["resident"]
            print(name, row["plain"]["median_ms"], row["privfair"], row["verdict"],
                  "sampled", results[name]["sampled"]["privfair"]["ratio"],
                  "memory", results[name]["memory"]["ratio"], flush=True)  # fmt: skip
    if not options.quick:
        results["loop"] = {f"{kind}, batch 1024": loop_cell(kind, 1024, 640, 3) for kind in WIDTHS}
        torch.set_num_threads(2)
        results["two threads of torch"] = {
            f"{kind}, batch {batch}": resident_cell(kind, batch, repeats, opacus=False)
            for kind in WIDTHS
            for batch in BATCHES
        }
    payload = {
        "threads_of_torch": options.threads,
        "repeats": repeats,
        "cells": results,
        "seconds": round(clock() - started, 1),
    }
    if options.quick:
        print(payload)
    else:
        record("step_time", payload)


if __name__ == "__main__":
    main()
