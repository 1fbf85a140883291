"""Two processes: the run of one process, one noise, and nothing released when a rank fails."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from privfair.core.exceptions import InvalidParameterError
from privfair.training import (
    Checkpoints,
    DataParallel,
    DPEngine,
    LogisticLoss,
    _noise,
    make_optimizer,
)

from . import ranks_driver as driver

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch is built without torch.distributed"
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks saw of each scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ranks_driver.py")), str(folder)],
        capture_output=True, text=True, check=False, timeout=800,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
             "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", driver.SCENARIOS)
def test_two_ranks_do_the_run_of_one_process(name, ranks):
    """Seeded: equal to one process on all records, up to float32 rounding of other shapes."""
    single = driver.train(*driver.data(), **driver.SCENARIOS[name])
    assert not single["error"]
    for rank in ranks:
        assert not rank[name]["error"]
        torch.testing.assert_close(rank[name]["seen"], single["seen"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rank[name]["weights"], single["weights"], rtol=1e-4, atol=1e-5)
    assert torch.equal(ranks[0][name]["weights"], ranks[1][name]["weights"])


def test_noise_is_drawn_once_and_not_by_each_rank(ranks):
    """Zero gradients: what is left is one noise of the accounted size, the same on both."""
    single = driver.train(*driver.data(), **driver.SCENARIOS["no gradient"])
    seen = ranks[0]["no gradient"]["seen"]
    torch.testing.assert_close(seen, single["seen"], rtol=1e-6, atol=0)
    # 40 x 19 draws: a standard error of 0.026; two noises would give sqrt(2), half a half.
    ratio = float(seen.std()) / (1.5 * 0.8 / 10)
    assert abs(ratio - 1) < 6 * 0.026
    assert math.sqrt(2) - 1 > 6 * 0.026


def test_unseeded_ranks_release_the_same_and_draw_apart(ranks):
    assert torch.equal(ranks[0]["unseeded"]["seen"], ranks[1]["unseeded"]["seen"])
    assert not torch.equal(ranks[0]["unseeded"]["seen"], ranks[0]["plain"]["seen"])
    assert ranks[0]["draws"] != ranks[1]["draws"]
    sizes = [len(rows) for rank in ranks for rows in rank["draws"]]
    assert len(set(sizes)) > 1 and all(0 <= r < 17 for k in ranks for d in k["draws"] for r in d)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other plan", "do not agree on: plan"),
        ("other start", "do not agree on: initial parameters"),
        ("other seed", "do not agree on: seeds"),
        ("a record short", "number of records is public"),
    ],
)
def test_ranks_that_do_not_agree_are_refused_on_all(name, message, ranks):
    for rank in ranks:
        assert message in rank[name]["error"] and len(rank[name]["seen"]) == 0


def test_when_a_rank_fails_the_step_is_not_released(ranks):
    assert "MemoryError" in ranks[1]["failing"]["error"]
    assert "ConvergenceError: another rank" in ranks[0]["failing"]["error"]
    for rank in ranks:
        assert len(rank["failing"]["seen"]) == 3  # the steps before


class Alone:
    """A group of one, which needs no network."""

    rank, size = 0, 1

    def place(self, n):
        return 0, n

    def agree(self, theta, **facts):
        pass

    def sum_(self, total):
        pass

    def share_(self, released):
        pass


def test_a_group_of_one_is_one_process():
    X, y = driver.data()
    one, two = driver.train(X, y), driver.train(X, y, Alone())
    assert torch.equal(one["weights"], two["weights"]) or torch.allclose(
        one["weights"], two["weights"], rtol=1e-6
    )


def test_only_rank_0_draws_noise():
    class Second(Alone):
        rank = 1

    total = torch.zeros(5, dtype=torch.float64)
    assert not _noise.StepNoise(1.0, 1.0, 5, 10, None, 2, Second()).add(total).any()
    assert _noise.StepNoise(1.0, 1.0, 5, 10, None, 2, Alone()).add(total).all()


def test_what_cannot_be_parallel_is_refused(tmp_path):
    X, y = driver.data()
    with pytest.raises(InvalidParameterError, match="no process group"):
        DataParallel()
    from privfair.accounting import Ledger

    ledger = Ledger()
    engine = DPEngine(
        driver.module(), LogisticLoss(), driver.plan(), optimizer=make_optimizer("sgd", 0.1),
        parallel=Alone(),
    )  # fmt: skip
    with pytest.raises(InvalidParameterError, match="checkpoints are for runs of one process"):
        engine.run(X, y, checkpoints=Checkpoints(tmp_path / "run", ledger=ledger))
    assert len(ledger) == 0
