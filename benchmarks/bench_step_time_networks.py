"""Time and memory of one private step of small networks, against plain SGD and against Opacus.

Two networks: the usual small convolutional one on 28 x 28 images, and a transformer block of
width 64 on 32 tokens; batches of 64 and 256 records that are in memory. A step is a forward and a
backward pass, clipping, noise and the update; drawing the batch is left out for everybody. Repeats
are interleaved, so that a ratio compares steps taken in the same seconds; seconds themselves mean
little on a busy machine. Bars: 1.8 times plain SGD for the convolutional network, 2.5 times for
the transformer, and below the fastest mode of Opacus. Memory: the peak of each way's own process
above what it held before its first step, at most 1.5 times that of plain SGD.

    python benchmarks/bench_step_time_networks.py [--quick]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _record import record
from torch import Tensor, nn

from privfair.mechanisms import HardenedGaussian
from privfair.training import SoftmaxLoss
from privfair.training._clipping import GUARD, block_sum_error
from privfair.training._paths import choose_path

CLIP, SIGMA, LR, CLASSES = 1.0, 1.1, 1e-3, 10
BARS = {"conv": 1.8, "transformer": 2.5}


class Conv(nn.Module):
    """Two convolutions and two linear layers on 28 x 28 images; 26,010 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 8, 2, padding=3)
        self.conv2 = nn.Conv2d(16, 32, 4, 2)
        self.fc1 = nn.Linear(32 * 4 * 4, 32)
        self.fc2 = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, 1)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2, 1)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Transformer(nn.Module):
    """Embeddings of 1,000 tokens and 32 positions, one block of width 64, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1_000, 64)
        self.places = nn.Embedding(32, 64)
        self.block = nn.TransformerEncoderLayer(
            64, 4, 256, dropout=0.0, batch_first=True, norm_first=True
        )
        self.out = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        places = self.places(torch.arange(x.shape[1]).expand(len(x), -1))
        return self.out(self.block(self.tokens(x) + places).mean(dim=1))


def setting(model: str, batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network, its records and their labels."""
    torch.manual_seed(1)
    module: nn.Module = Conv() if model == "conv" else Transformer()
    X = torch.randn(batch, 1, 28, 28) if model == "conv" else torch.randint(0, 1_000, (batch, 32))
    return module, X, torch.randint(0, CLASSES, (batch,))


def plain(module: nn.Module, X: Tensor, y: Tensor) -> Callable[[], None]:
    """A step of SGD without privacy."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(X), y).backward()
        optimizer.step()

    return step


def ours(path: str) -> Callable[[nn.Module, Tensor, Tensor], Callable[[], None]]:
    """A private step as the engine takes it, by one gradient path."""

    def make(module: nn.Module, X: Tensor, y: Tensor) -> Callable[[], None]:
        chosen = choose_path(path, module.eval(), SoftmaxLoss(CLASSES))
        chosen.prepare(X)
        params = list(module.parameters())
        theta = torch.cat([p.detach().flatten() for p in params])
        at = 0
        for p in params:
            p.data = theta[at : at + p.numel()].view_as(p)
            at += p.numel()
        batch = len(X)
        noise = HardenedGaussian(
            SIGMA, CLIP, len(theta), value_error=block_sum_error(100 * batch, CLIP)
        )
        rows = torch.arange(batch)

        def step() -> None:
            total = chosen.sums(X, y, rows, CLIP, GUARD).total
            mean = noise.add_(total) / batch
            theta.add_(mean.to(theta.dtype), alpha=-LR)

        return step

    return make


def opacus(mode: str) -> Callable[[nn.Module, Tensor, Tensor], Callable[[], None]]:
    """A private step of Opacus, in one of its modes of per-record gradients."""

    def make(module: nn.Module, X: Tensor, y: Tensor) -> Callable[[], None]:
        from opacus.grad_sample import GradSampleModule, GradSampleModuleExpandedWeights
        from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
            GradSampleModuleFastGradientClipping,
        )
        from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
        from opacus.validators import ModuleValidator

        module = ModuleValidator.fix(module).train()  # its own attention layer
        common: dict[str, Any] = {
            "noise_multiplier": SIGMA, "max_grad_norm": CLIP, "expected_batch_size": len(X),
        }  # fmt: skip
        inner = torch.optim.SGD(module.parameters(), lr=LR)
        if mode == "ghost":
            wrapped = GradSampleModuleFastGradientClipping(
                module, max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="mean"
            )
            optimizer = DPOptimizerFastGradientClipping(inner, **common)
            criterion = DPLossFastGradientClipping(
                wrapped, optimizer, nn.CrossEntropyLoss(), loss_reduction="mean"
            )
        elif mode == "ew":
            wrapped = GradSampleModuleExpandedWeights(module)
            optimizer = DPOptimizer(inner, **common)
            criterion = nn.CrossEntropyLoss()
        else:
            wrapped = GradSampleModule(module, force_functorch=mode == "functorch")
            optimizer = DPOptimizer(inner, **common)
            criterion = nn.CrossEntropyLoss()

        def step() -> None:
            optimizer.zero_grad()
            criterion(wrapped(X), y).backward()
            optimizer.step()

        return step

    return make


WAYS: dict[str, Callable[[nn.Module, Tensor, Tensor], Callable[[], None]]] = {
    "plain SGD": plain,
    "privfair ghost": ours("ghost"),
    "privfair functional": ours("functional"),
    "opacus hooks": opacus("hooks"),
    "opacus functorch": opacus("functorch"),
    "opacus expanded weights": opacus("ew"),
    "opacus ghost": opacus("ghost"),
}


def prepare(model: str, batch: int) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """Return a step of each way that runs, and why the others do not."""
    steps, failures = {}, {}
    for name, way in WAYS.items():
        try:
            step = way(*setting(model, batch))
            step()
            step()
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {str(error)[:120]}"
            continue
        steps[name] = step
    return steps, failures


def times(model: str, batch: int, seconds: float) -> dict[str, object]:
    """Interleave the ways' steps for about so many seconds."""
    steps, failures = prepare(model, batch)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    gc.disable()
    while time.perf_counter() < end or len(taken["plain SGD"]) < 3:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - start)
    gc.enable()
    base = taken["plain SGD"]
    found: dict[str, object] = {"repeats": len(base), "does_not_run": failures}
    for name, own in taken.items():
        found[name] = {
            "min_ms": round(1e3 * min(own), 3),
            "median_ms": round(1e3 * statistics.median(own), 3),
            "min_over_sgd": round(min(own) / min(base), 3),
            "median_over_sgd": round(
                statistics.median(a / b for a, b in zip(own, base, strict=True)), 3
            ),
        }
    rivals = [min(own) for name, own in taken.items() if name.startswith("opacus")]
    mine = min(taken["privfair ghost"])
    found["bar_over_sgd"] = BARS[model]
    found["within_bar"] = mine / min(base) <= BARS[model]
    found["over_fastest_opacus"] = round(mine / min(rivals), 3) if rivals else None
    return found


def memory_of(name: str, model: str, batch: int) -> None:
    """Print how far this process' peak rose over three steps, in KiB."""
    module, X, y = setting(model, batch)
    warm = WAYS[name](setting(model, 2)[0], X[:2], y[:2])
    warm()  # libraries, caches and tables of the noise are not the step's
    step = WAYS[name](module, X, y)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading the libraries
    before = _peak_kib()
    for _ in range(3):
        step()
    print(json.dumps(_peak_kib() - before))


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def memory(model: str, batch: int) -> dict[str, object]:
    """Peak of each way in a process of its own (Linux)."""
    peaks: dict[str, float] = {}
    for name in ("plain SGD", "privfair ghost", "opacus hooks", "opacus ghost"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--memory-of", name, model, str(batch)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            peaks[name] = round(json.loads(done.stdout.splitlines()[-1]) / 1024, 1)
    ratio = peaks["privfair ghost"] / max(peaks["plain SGD"], 1e-9)
    return {"peak_mib_above_start": peaks, "over_sgd": round(ratio, 3), "bar_over_sgd": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few repeats")
    parser.add_argument("--memory-of", nargs=3, metavar=("WAY", "MODEL", "BATCH"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.memory_of:
        name, model, batch = args.memory_of
        memory_of(name, model, int(batch))
        return
    results: dict[str, object] = {"threads": 1, "quick": args.quick}
    loads = [os.getloadavg()[0]]
    for model in BARS:
        for batch in (64, 256):
            results[f"{model}, batch {batch}"] = times(model, batch, 3.0 if args.quick else 25.0)
            loads.append(os.getloadavg()[0])
        results[f"{model}, batch 256, memory"] = memory(model, 256)
    results["load_average_before_and_after_each"] = [round(load, 2) for load in loads]
    record("step_time_networks", results, seeds={"weights and records": 1})


if __name__ == "__main__":
    main()
