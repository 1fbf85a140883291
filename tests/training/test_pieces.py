"""Long batches in pieces, low precision, and the check of every contribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.mechanisms import HardenedGaussian
from privfair.training import (
    AdaptiveClipping,
    DPEngine,
    LogisticLoss,
    PerLayerClipping,
    SoftmaxLoss,
    TrainingPlan,
    _engine,
    _paths,
)
from privfair.training._clipping import GUARD, block_sum_error

from .helpers import GradientSpy, NoNoise, ZeroLoss, mlp, mutated

PATHS = ["closed_form", "functional"]


def gradients(X, y, the_plan, engine=_engine, seed=3, module=None, loss=None, **options):
    spy = GradientSpy()
    engine.DPEngine(
        module or mlp(5, 4, 1), loss or LogisticLoss(), the_plan, optimizer=spy,
        noise_random_state=seed, **options,
    ).run(X, y)  # fmt: skip
    return torch.stack(spy.seen)


# -- pieces --------------------------------------------------------------------------------
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("clipping", ["flat", "per_layer", "adaptive"])
@pytest.mark.parametrize("physical", [1, 7, 50])
def test_pieces_give_the_sum_of_the_whole_batch(path, clipping, physical, batch, monkeypatch):
    """Before the noise, up to float32 rounding of forward passes of another shape."""
    monkeypatch.setattr(_engine, "_Noise", NoNoise)
    plan = TrainingPlan(50, 25, 6, 0.7, 1.0)
    if clipping == "adaptive":
        plan = AdaptiveClipping().plan(plan, 1.0)
    options = {"grad_path": path, "clipping": clipping}
    whole = gradients(batch[0], batch[1], plan, **options)
    cut = gradients(batch[0], batch[1], plan, max_physical_batch=physical, **options)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


def check_noise_is_drawn_once(engine):
    """Zero gradients: the update is noise alone, and the same noise for every piece size."""
    plan = TrainingPlan(60, 40, 4, 1.0, 1.0)
    X, y = torch.ones((60, 5)), torch.zeros(60)
    options = {"loss": ZeroLoss(), "engine": engine}
    whole = gradients(X, y, plan, **options)
    cut = gradients(X, y, plan, max_physical_batch=7, **options)
    # The bound on the rounding of nine sums more widens the noise by less than 1e-12 of it.
    torch.testing.assert_close(cut, whole, rtol=1e-10, atol=0)


def test_noise_is_drawn_once_for_each_step():
    check_noise_is_drawn_once(_engine)


def test_noise_for_each_piece_is_noticed():
    bug = (
        "found = add_up([sums(part) for part in self._parts(rows)])",
        "found = add_up([sums(part) for part in self._parts(rows)])\n"
        "        for _ in self._parts(rows)[1:]:\n"
        "            found.total.add_(torch.randn_like(found.total))",
    )
    with pytest.raises(AssertionError):
        check_noise_is_drawn_once(mutated("privfair.training._engine", bug))


def test_pieces_widen_the_bound_on_rounding():
    assert block_sum_error(10_000, 1.0, pieces=500) > block_sum_error(10_000, 1.0)
    engine = DPEngine(
        mlp(5, 1), LogisticLoss(), TrainingPlan(1_000, 100, 1, 1.0, 1.0), optimizer=GradientSpy(),
        max_physical_batch=3,
    )  # fmt: skip
    assert engine._pieces() == 334


def test_statistic_sees_the_whole_batch_in_pieces(batch):
    sizes = []
    plan = AdaptiveClipping().plan(TrainingPlan(50, 25, 6, 0.7, None), 1.0)
    engine = DPEngine(
        mlp(5, 1), LogisticLoss(), plan, optimizer=GradientSpy(), clipping="adaptive",
        max_physical_batch=4,
    )  # fmt: skip
    count = engine._bound.count
    hook = engine._statistic
    object.__setattr__(hook, "features", lambda v: (sizes.append(len(v.norms)), count(v))[1])
    engine.run(batch[0], batch[1])
    assert max(sizes) > 4


@pytest.mark.parametrize("bad", [0, -1, 2.5, True])
def test_bad_piece_sizes_are_refused(bad):
    with pytest.raises((InvalidParameterError, TypeError), match="max_physical_batch"):
        DPEngine(
            mlp(5, 1), LogisticLoss(), TrainingPlan(50, 25, 6, 0.7, 1.0), optimizer=GradientSpy(),
            max_physical_batch=bad,
        )  # fmt: skip


# -- precision -----------------------------------------------------------------------------
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_close_and_trains_float32_parameters(path, precision, batch, monkeypatch):
    monkeypatch.setattr(_engine, "_Noise", NoNoise)
    plan = TrainingPlan(50, 50, 1, 0.7, 1.0)
    full = gradients(batch[0], batch[1], plan, grad_path=path)
    module = mlp(5, 4, 1)
    low = gradients(batch[0], batch[1], plan, grad_path=path, precision=precision, module=module)
    assert 1e-7 < (low - full).norm() / full.norm() < 0.05
    assert all(p.dtype == torch.float32 for p in module.parameters())


EXTREME = st.sampled_from([0.0, 1.0, -1.0, 1e-7, 6e4, 7e4, 3e38, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@given(
    rows=arrays(np.float32, (3, 4), elements=st.one_of(EXTREME, st.floats(-1e3, 1e3, width=32))),
    bound=st.sampled_from([1e-3, 1.0, 7.0]),
    grouped=st.booleans(),
)
def test_low_precision_keeps_the_bound(path, precision, rows, bound, grouped):
    """Overflow in the forward pass gives a norm that is not finite, hence exactly zero."""
    clipping = PerLayerClipping() if grouped else "flat"
    engine = DPEngine(
        mlp(4, 3, 2), SoftmaxLoss(2), TrainingPlan(3, 3, 1, bound, 1.0), optimizer=GradientSpy(),
        precision=precision, grad_path=path, clipping=clipping,
    )  # fmt: skip
    X, y = torch.from_numpy(rows), torch.tensor([0, 1, 1])
    for row in range(3):
        total = engine._sums(X, y, None, None, torch.tensor([row])).total
        assert total.dtype == torch.float64 and torch.isfinite(total).all()
        assert total.norm().item() <= bound


def test_overflow_in_half_precision_counts_nothing(monkeypatch):
    monkeypatch.setattr(_engine, "_Noise", NoNoise)
    X = torch.tensor([[1.0, 2.0], [7e4, -7e4], [0.5, -1.0]])  # 7e4 is above float16's largest
    y = torch.tensor([1.0, 0.0, 0.0])
    plan = TrainingPlan(3, 3, 1, 1.0, 1.0)
    module = lambda: mlp(2, 3, 1, activation=nn.ReLU)  # noqa: E731
    seen = gradients(X, y, plan, module=module(), precision="float16")
    without = gradients(
        X * torch.tensor([[1.0], [0.0], [1.0]]), y, plan, module=module(), precision="float16"
    )
    assert torch.isfinite(seen).all()
    null = gradients(torch.zeros((3, 2)), y, plan, module=module(), precision="float16")
    assert torch.isfinite(without).all() and not torch.equal(seen, null)


def test_unknown_precisions_are_refused():
    with pytest.raises(InvalidParameterError, match="precision"):
        DPEngine(
            mlp(5, 1), LogisticLoss(), TrainingPlan(50, 25, 6, 0.7, 1.0), optimizer=GradientSpy(),
            precision="float8",
        )  # fmt: skip


# -- every contribution --------------------------------------------------------------------
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("clipping", ["flat", "automatic", "per_layer"])
def test_the_check_of_contributions_passes_on_honest_paths(path, clipping, batch):
    plan = TrainingPlan(50, 25, 3, 0.7, 1.0)
    gradients(
        batch[0], batch[1], plan, grad_path=path, clipping=clipping, check_contributions=True,
        max_physical_batch=9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("factor = factors.float()[:, None]", "factor = 1.01 * factors.float()[:, None]"),
            "longer than max_grad_norm",
        ),
        (
            ("factor = factors.float()[:, None]",
             "factor = factors.float()[:, None] / len(factors)"),
            "not the sum",
        ),
    ],
    ids=["one percent too long", "averaged inside the path"],
)  # fmt: skip
def test_the_check_of_contributions_finds_broken_paths(change, message, batch, monkeypatch):
    broken = mutated("privfair.training._closed_form", change)
    monkeypatch.setattr(_paths, "ClosedFormPath", broken.ClosedFormPath)
    plan = TrainingPlan(50, 25, 3, 0.7, 1.0)
    with pytest.raises(AccountingAssumptionError, match=message):
        gradients(batch[0] * 10, batch[1], plan, check_contributions=True)


def test_the_noise_knows_its_standard_deviation():
    noise = _engine._Noise(1.5, 2.0, 3, 10, None)
    assert noise.std == HardenedGaussian(1.5, 2.0, 3, value_error=block_sum_error(10, 2.0)).sigma
    assert _engine._Noise(None, 2.0, 3, 10, None).std == 0.0
    assert GUARD < 1e-4


# -- parameters that change after the engine was made ----------------------------------------
def unfreeze(module):
    module[0].requires_grad_(True)


def freeze(module):
    module[2].requires_grad_(False)


def add(module):
    module[0].register_parameter("scale", nn.Parameter(torch.ones(2)))


@pytest.mark.parametrize("path", ["auto", "functional"])
@pytest.mark.parametrize("change", [unfreeze, freeze, add])
@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
def test_parameters_that_change_later_release_nothing(path, change, clipping):
    """Their gradients would be outside of what is clipped, or of what is noised."""
    module = mlp(5, 3, 1)
    if change is unfreeze:
        module[0].requires_grad_(False)
    spy = GradientSpy()
    engine = DPEngine(
        module, LogisticLoss(), TrainingPlan(50, 25, 2, 0.7, 1.0), optimizer=spy, grad_path=path,
        clipping=clipping,
    )  # fmt: skip
    change(module)
    with pytest.raises(AccountingAssumptionError, match="trainable parameters are not those"):
        engine.run(torch.ones((50, 5)), torch.zeros(50))
    assert not spy.seen
