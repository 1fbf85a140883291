"""Interrupted runs: what they cost, that they end equal, and what is in their files."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from privfair import Budget
from privfair.accounting import Ledger
from privfair.core.exceptions import (
    BudgetExceededError,
    DataIntegrityError,
    InvalidParameterError,
    InvalidTypeError,
    OutputTargetError,
    SchemaVersionError,
)
from privfair.training import (
    AdaptiveClipping,
    BatchStatistic,
    Checkpoints,
    DPEngine,
    LogisticLoss,
    StatisticPlan,
    TrainingPlan,
    make_optimizer,
)

from .helpers import GradientSpy, mlp

PLAN = TrainingPlan(50, 10, 30, 1.0, 2.0)


class Interrupt(Exception):
    pass


def engine(seed=3, plan=PLAN, optimizer="adam", fail_at=None, module=None, **options):
    made = make_optimizer(optimizer, 0.1, **({"momentum": 0.5} if optimizer == "sgd" else {}))
    if fail_at is not None:
        step, seen = made.step, []

        def failing(theta, gradient):
            if len(seen) == fail_at:
                raise Interrupt
            seen.append(1)
            step(theta, gradient)

        made.step = failing
    return DPEngine(
        module or mlp(5, 3, 1), LogisticLoss(), plan, optimizer=made, noise_random_state=seed,
        **options,
    )  # fmt: skip


def weights(made):
    return torch.cat([p.detach().flatten() for p in made._module.parameters()])


def interrupted(folder, ledger, batch, fail_at, every=10, journal_every=5, **options):
    """One attempt that fails after so many steps of its own."""
    checkpoints = Checkpoints(folder, ledger=ledger, every=every, journal_every=journal_every)
    with pytest.raises(Interrupt):
        engine(fail_at=fail_at, **options).run(batch[0], batch[1], checkpoints=checkpoints)
    return checkpoints


def finished(folder, ledger, batch, every=10, journal_every=5, **options):
    checkpoints = Checkpoints(folder, ledger=ledger, every=every, journal_every=journal_every)
    made = engine(**options)
    made.run(batch[0], batch[1], checkpoints=checkpoints)
    return made, checkpoints


def counts(ledger):
    return [e.event.count for e in ledger.entries()]


# -- the result ----------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "dp_adam_bc"])
@pytest.mark.parametrize("options", [{"average": 0.5}, {"ema_decay": 0.9}, {}], ids=str)
def test_a_seeded_run_that_was_interrupted_equals_one_that_was_not(
    optimizer, options, batch, tmp_path
):
    whole = engine(optimizer=optimizer, **options)
    whole.run(batch[0], batch[1])
    ledger = Ledger()
    interrupted(tmp_path / "run", ledger, batch, 17, optimizer=optimizer, **options)
    # Other initial weights: those of the checkpoint count.
    made, _ = finished(
        tmp_path / "run",
        ledger,
        batch,
        optimizer=optimizer,
        module=mlp(5, 3, 1, seed=9),
        **options,
    )
    assert torch.equal(weights(made), weights(whole))


def test_the_adaptive_bound_goes_on_where_it_was(batch, tmp_path):
    clipping = AdaptiveClipping()
    plan = clipping.plan(TrainingPlan(50, 10, 30, 1.0, None), 0.9)
    options = {"plan": plan, "clipping": clipping}
    whole = engine(**options)
    whole.run(batch[0], batch[1])
    ledger = Ledger()
    interrupted(tmp_path / "run", ledger, batch, 12, **options)
    made, _ = finished(tmp_path / "run", ledger, batch, **options)
    assert torch.equal(weights(made), weights(whole))
    assert made._bound.current == whole._bound.current != 1.0


def test_unseeded_attempts_draw_fresh_noise(batch, tmp_path):
    seen = []
    for copy in ("a", "b"):
        ledger = Ledger()
        interrupted(tmp_path / copy, ledger, batch, 12, seed=None)
        before = torch.from_numpy(stored(tmp_path / copy)[1]["parameters"])
        made, _ = finished(tmp_path / copy, ledger, batch, seed=None)
        seen.append(weights(made) - before)
    assert not torch.equal(*seen)


# -- the charge ----------------------------------------------------------------------------
def test_an_uninterrupted_run_is_charged_once(batch, tmp_path):
    ledger = Ledger()
    _, checkpoints = finished(tmp_path / "run", ledger, batch)
    assert counts(ledger) == [30] and checkpoints.redone == 0
    assert ledger.entries()[0].event == PLAN.event()
    assert checkpoints.entry_id == ledger.entries()[0].id
    # A finished run that is run again does nothing and costs nothing.
    again, _ = finished(tmp_path / "run", ledger, batch, module=mlp(5, 3, 1, seed=9))
    assert counts(ledger) == [30]


@pytest.mark.parametrize(
    ("fail_at", "again"),
    [(0, 5), (3, 5), (7, 10), (10, 5), (12, 5), (17, 10), (29, 10)],
)
def test_steps_that_may_have_been_done_are_charged_again(fail_at, again, batch, tmp_path):
    """After the last checkpoint (10 steps), what the journal announced (5 at a time)."""
    ledger = Ledger()
    interrupted(tmp_path / "run", ledger, batch, fail_at)
    assert counts(ledger) == [30]
    _, checkpoints = finished(tmp_path / "run", ledger, batch)
    assert counts(ledger) == [30, again] and checkpoints.redone == again
    assert ledger.entries()[1].event == PLAN.redone_event(again)


def test_every_interruption_is_charged(batch, tmp_path):
    ledger = Ledger()
    for _ in range(3):
        interrupted(tmp_path / "run", ledger, batch, 3)  # never reaches a checkpoint
    _, checkpoints = finished(tmp_path / "run", ledger, batch)
    assert counts(ledger) == [30, 5, 5, 5] and checkpoints.redone == 15


def test_a_step_that_is_done_again_costs_what_the_dearest_step_costs():
    plan = TrainingPlan(100, 10, 10, 1.0, None).at_noise(2.0, share=0.2, every=3)
    event = plan.redone_event(4)
    assert event.count == 4 and event.event.event.sigma == pytest.approx(2.0)


def test_a_cap_stops_the_run_before_a_step_is_done_again(batch, tmp_path):
    probe = Ledger()
    with probe.spend(PLAN.event(), delta=1e-6):
        pass
    cap = Budget(probe.entries()[0].epsilon * 1.01, 1e-5)
    ledger = Ledger(tmp_path / "ledger.db", cap=cap)
    interrupted(tmp_path / "run", ledger, batch, 17)
    before = stored(tmp_path / "run")
    with pytest.raises(BudgetExceededError):
        finished(tmp_path / "run", ledger, batch)
    assert stored(tmp_path / "run")[0] == before[0] and len(ledger) == 1


def test_another_ledger_is_charged_everything(batch, tmp_path):
    interrupted(tmp_path / "run", Ledger(), batch, 17)
    other = Ledger()
    finished(tmp_path / "run", other, batch)
    assert sum(counts(other)) == 20 + 20  # 20 announced before, 20 still to do


def test_a_copied_folder_is_charged_all_that_is_still_to_do(batch, tmp_path):
    ledger = Ledger()
    interrupted(tmp_path / "run", ledger, batch, 17)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    finished(tmp_path / "run", ledger, batch)
    assert counts(ledger) == [30, 10]
    finished(tmp_path / "copy", ledger, batch)
    assert counts(ledger) == [30, 10, 20]


@pytest.mark.parametrize("moved", ["another ledger", "copied"])
def test_what_was_charged_elsewhere_pays_for_no_later_interruption(moved, batch, tmp_path):
    """After a change of ledger, or of folder, every step that is done there is charged there."""
    first, folder = Ledger(), tmp_path / "run"
    interrupted(folder, first, batch, 17)
    second = first
    if moved == "copied":
        shutil.copytree(folder, tmp_path / "copy")
        folder = tmp_path / "copy"
    else:
        second = Ledger()
    before = sum(counts(second))
    announced_before = 20 if moved == "another ledger" else 0
    interrupted(folder, second, batch, 9)  # from 10 to 19: announced up to 20
    finished(folder, second, batch)
    assert sum(counts(second)) - before == announced_before + 10 + 20


@pytest.mark.parametrize("room", [0, 7])
def test_an_announcement_that_does_not_fit_the_disk_stops_the_run(
    room, batch, tmp_path, monkeypatch
):
    """A full disk takes a part of a line without an error; only the next write fails."""
    ledger, real, left = Ledger(), os.write, []

    def full(handle, data):
        if b"begin" in bytes(data[:20]) and not left:
            left.append(room)
        if left:
            taken, left[0] = left[0], 0
            if not taken:
                raise OSError(28, "No space left on device")
            return real(handle, data[:taken])
        return real(handle, data)

    monkeypatch.setattr(os, "write", full)
    checkpoints = Checkpoints(tmp_path / "run", ledger=ledger, every=10, journal_every=5)
    with pytest.raises(OSError, match="No space"):  # and not Interrupt, at the first step
        engine(fail_at=0).run(batch[0], batch[1], checkpoints=checkpoints)
    monkeypatch.undo()
    finished(tmp_path / "run", ledger, batch)
    assert counts(ledger) == [30]  # nothing was done before


def test_another_plan_cannot_ride_on_the_charge(batch, tmp_path):
    weak = TrainingPlan(50, 10, 30, 1.0, 0.5)
    for fail_at in (0, 12):
        folder, ledger = tmp_path / str(fail_at), Ledger()
        interrupted(folder, ledger, batch, fail_at)
        with pytest.raises(InvalidParameterError, match="another plan"):
            finished(folder, ledger, batch, plan=weak)
        (folder / "state.safetensors").unlink()  # only the journal is left
        with pytest.raises(InvalidParameterError, match="another plan"):
            finished(folder, ledger, batch, plan=weak)


def kill(tmp_path: Path, seed: int, runs: int) -> list[dict[str, int]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kill_driver.py")), str(tmp_path),
         str(seed), str(runs)],
        capture_output=True, text=True, check=False, timeout=800,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_kills(found):
    assert sum(run["kills"] for run in found) >= 2 * len(found)
    for run in found:
        assert run["drawn"] >= 12
        assert run["charged"] >= run["drawn"]  # never under-counts
        # An attempt that was killed after its charge and before its next step may cost as much
        # again as the whole run, if even the first note of it was lost.
        assert run["charged"] <= 12 * (run["kills"] + 1) + 4 * run["kills"]


def test_killed_runs_are_never_under_counted(tmp_path):
    """SIGKILL at random lines of engine and checkpoints; noise draws are logged as they begin."""
    check_kills(kill(tmp_path, 1, 5))


@pytest.mark.slow
def test_killed_runs_are_never_under_counted_at_length(tmp_path):
    check_kills(kill(tmp_path, 2, 40))


# -- the files -----------------------------------------------------------------------------
def stored(folder):
    from privfair.training._checkpoint import _read

    return _read(folder / "state.safetensors")


def test_files_hold_no_record_no_seed_and_no_index(tmp_path):
    canary, seed = 1234.56789, 987654321987
    X = torch.randn((50, 5), generator=torch.Generator().manual_seed(0))
    X[17] = canary
    y = torch.zeros(50)
    y[17] = 1.0
    ledger = Ledger()
    folder = tmp_path / "run"
    finished(folder, ledger, (X, y), seed=seed)
    files = {f.name: f.read_bytes() for f in folder.iterdir()}
    assert set(files) == {"state.safetensors", "journal.jsonl", "lock"}
    needles = [struct.pack("<f", canary), struct.pack("<d", canary), b"1234.56"]
    needles += [str(seed).encode(), struct.pack("<q", seed)]
    needles += [struct.pack("<f", float(v)) for v in X.flatten()]
    for name, data in files.items():
        for needle in needles:
            assert needle not in data, name
    document, arrays = stored(folder)
    assert set(arrays) == {"parameters", "optimizer._first", "optimizer._second", "average.sum"}
    assert set(document) == {
        "format", "schema", "step", "numbers", "ledger_entry_id", "plan", "parameters",
        "optimizer", "average", "clipping", "seeded",
    }  # fmt: skip
    assert {a.size for a in arrays.values()} == {22}


def test_two_processes_cannot_share_a_run(batch, tmp_path):
    folder, ledger = tmp_path / "run", Ledger()
    checkpoints = Checkpoints(folder, ledger=ledger)
    made = engine()
    from privfair.training._checkpoint import RunState

    state = RunState(torch.zeros(22), made._optimizer, type("A", (), {"state": dict})(), 1.0, True)
    with checkpoints.running(PLAN, state):
        code = (
            "import fcntl, sys\n"
            "try: fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except OSError: sys.exit(7)"
        )
        run = subprocess.run([sys.executable, "-c", code, str(folder / "lock")], check=False)
        assert run.returncode == 7
        with pytest.raises(OutputTargetError, match="in use"):
            finished(folder, ledger, batch)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda f: (f / "journal.jsonl").unlink(), DataIntegrityError),
        (lambda f: (f / "journal.jsonl").write_text("{}\n"), DataIntegrityError),
        (lambda f: (f / "journal.jsonl").write_text("no json\n"), DataIntegrityError),
        (lambda f: (f / "state.safetensors").write_bytes(b"\x80\x04."), DataIntegrityError),
        (
            lambda f: (f / "state.safetensors").write_bytes(
                (f / "state.safetensors").read_bytes()[:-9]
            ),
            DataIntegrityError,
        ),
        (
            lambda f: (f / "state.safetensors").write_bytes(
                (f / "state.safetensors").read_bytes().replace(
                    b'\\"schema\\": 1', b'\\"schema\\": 9')
            ),
            SchemaVersionError,
        ),
    ],
    ids=["no journal", "empty line", "no json", "pickle", "truncated", "newer"],
)  # fmt: skip
def test_damaged_folders_are_refused_before_anything_is_charged(damage, error, batch, tmp_path):
    ledger = Ledger()
    interrupted(tmp_path / "run", ledger, batch, 12)
    damage(tmp_path / "run")
    with pytest.raises(error):
        finished(tmp_path / "run", ledger, batch)
    assert counts(ledger) == [30]


def test_a_torn_last_line_is_what_had_not_begun(batch, tmp_path):
    ledger = Ledger()
    interrupted(tmp_path / "run", ledger, batch, 12)
    with open(tmp_path / "run" / "journal.jsonl", "a") as file:
        file.write('{"kind": "begin", "from": 15, "up')
    finished(tmp_path / "run", ledger, batch)
    assert counts(ledger) == [30, 5]


def test_other_mistakes_are_refused(batch, tmp_path):
    with pytest.raises(InvalidTypeError, match="ledger"):
        Checkpoints(tmp_path / "run", ledger="ledger.db")
    with pytest.raises(OutputTargetError):
        Checkpoints(tmp_path / "no" / "run", ledger=Ledger())
    with pytest.raises(InvalidParameterError):
        Checkpoints(tmp_path / "run", ledger=Ledger(), every=0)
    with pytest.raises(InvalidParameterError, match="needs a ledger"):
        finished(tmp_path / "run", None, batch)
    spy = DPEngine(nn.Linear(5, 1), LogisticLoss(), PLAN, optimizer=GradientSpy())
    with pytest.raises(InvalidParameterError, match="has no state"):
        spy.run(batch[0], batch[1], checkpoints=Checkpoints(tmp_path / "run", ledger=Ledger()))
    statistic = BatchStatistic(lambda v: torch.zeros((len(v.y), 1)), 1.0, 3.0)
    plan = TrainingPlan(50, 10, 30, 1.0, 2.0, statistic=StatisticPlan(3.0))
    with pytest.raises(InvalidParameterError, match="statistic"):
        finished(tmp_path / "run", Ledger(), batch, plan=plan, statistic=statistic)
    ledger = Ledger()
    interrupted(tmp_path / "other", ledger, batch, 12)
    for options in (
        {"optimizer": "sgd"},
        {"seed": None},
        {"ema_decay": 0.5},
        {"module": mlp(5, 1)},
    ):
        with pytest.raises(InvalidParameterError, match="holds a run with another"):
            finished(tmp_path / "other", ledger, batch, **options)
    assert counts(ledger) == [30]


def test_a_run_without_privacy_needs_no_ledger(batch, tmp_path):
    plan = TrainingPlan(50, 10, 30, 1.0, None)
    whole = engine(plan=plan)
    whole.run(batch[0], batch[1])
    interrupted(tmp_path / "run", None, batch, 12, plan=plan)
    made, _ = finished(tmp_path / "run", None, batch, plan=plan)
    assert torch.equal(weights(made), weights(whole))
