"""Runs of two processes, for test_distributed.py.

    python ranks_driver.py FOLDER

Each rank writes what it saw of each scenario to FOLDER/RANK.pt.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch

from privfair.core.exceptions import PrivfairError
from privfair.training import (
    AdaptiveClipping,
    DataParallel,
    DPEngine,
    LogisticLoss,
    TrainingPlan,
    make_optimizer,
)

SIZES = (23, 17)  # of the two ranks' parts
N = sum(SIZES)


class Zero(LogisticLoss):
    """No gradient at all."""

    def per_record(self, output, y):
        return 0.0 * output[:, 0]

    def backprop(self, output, y):
        return torch.zeros_like(output)


class Failing(LogisticLoss):
    """Fails at the fourth batch, on one rank only."""

    def __init__(self, rank):
        self.rank, self.calls = rank, -1_000  # how often an engine tests a loss is not its matter

    def backprop(self, output, y):
        self.calls += 1
        if self.rank == 1 and self.calls == 4:
            raise MemoryError("as if the device had none left")
        return super().backprop(output, y)


def data():
    g = torch.Generator().manual_seed(5)
    X = torch.randn((N, 4), generator=g)
    return X, (X[:, 0] > 0).float()


def module(seed=0):
    g = torch.Generator().manual_seed(seed)
    made = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return made


def plan(steps=12, adaptive=False, sigma=1.5, relation="zero_out"):
    made = TrainingPlan(N, 10, steps, 0.8, sigma, relation)
    return AdaptiveClipping(count_noise=2.0).plan(made, 1.5) if adaptive else made


class Watch:
    """An optimiser that keeps the gradients and steps on."""

    def __init__(self):
        self.inner, self.seen = make_optimizer("adam", 0.05), []

    def step(self, theta, gradient):
        self.seen.append(gradient.clone())
        self.inner.step(theta, gradient)


def train(X, y, parallel=None, seed=3, the_plan=None, loss=None, start=0, **options):
    watch, net = Watch(), module(start)
    engine = DPEngine(
        net, loss or LogisticLoss(), the_plan or plan(), optimizer=watch, noise_random_state=seed,
        parallel=parallel, **options,
    )  # fmt: skip
    if isinstance(loss, Failing):
        loss.calls = 0  # the engine has put the loss to the test
    error = ""
    try:
        engine.run(X, y)
    except (PrivfairError, MemoryError) as found:
        error = f"{type(found).__name__}: {found}"
    weights = torch.cat([p.detach().flatten() for p in net.parameters()])
    return {
        "weights": weights,
        "seen": torch.stack(watch.seen) if watch.seen else torch.zeros((0, len(weights))),
        "error": error,
    }


SCENARIOS = {
    "plain": {},
    "functional": {"grad_path": "functional"},
    "pieces": {"max_physical_batch": 3},
    "adaptive": {"clipping": AdaptiveClipping(count_noise=2.0), "the_plan": plan(adaptive=True)},
    "no gradient": {"loss": Zero(), "the_plan": plan(steps=40)},
    "without privacy": {"the_plan": plan(sigma=None)},
    "add_remove": {"the_plan": plan(relation="add_remove")},
}


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
        timeout=timedelta(seconds=600),
    )  # fmt: skip
    parallel = DataParallel()
    X, y = data()
    first = sum(SIZES[:rank])
    own = slice(first, first + SIZES[rank])
    out = {name: train(X[own], y[own], parallel, **o) for name, o in SCENARIOS.items()}
    out["unseeded"] = train(X[own], y[own], parallel, seed=None)
    secret = DPEngine(module(), LogisticLoss(), plan(), optimizer=Watch(), parallel=parallel)
    draws = [secret._sampler(0, 17, N).sample().tolist() for _ in range(20)]
    out["draws"] = draws
    out["other plan"] = train(X[own], y[own], parallel, the_plan=plan(steps=12 + rank))
    out["other start"] = train(X[own], y[own], parallel, start=rank)
    out["other seed"] = train(X[own], y[own], parallel, seed=3 + rank)
    out["a record short"] = train(X[own][1:], y[own][1:], parallel)
    out["failing"] = train(X[own], y[own], parallel, loss=Failing(rank))
    torch.save(out, f"{folder}/{rank}.pt")


if __name__ == "__main__":
    top = sys.argv[1]
    Path(top).mkdir(exist_ok=True)
    torch.multiprocessing.spawn(run_rank, args=(top,), nprocs=2)
