"""Ways of clipping: against one record at a time, the bound for all, the adaptive count."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import privfair.training
from privfair.accounting import Gaussian, guarantee
from privfair.auditing import audit_engine_step, audit_mechanism
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.training import (
    AdaptiveClipping,
    AutomaticClipping,
    BatchStatistic,
    DPEngine,
    GroupClipping,
    LogisticLoss,
    PerLayerClipping,
    SoftmaxLoss,
    TrainingPlan,
    _engine,
    make_clipping,
    make_optimizer,
)
from privfair.training._clipping import GUARD, clip_factors
from privfair.training._closed_form import ClosedFormPath
from privfair.training._functional import FunctionalPath

from .helpers import GradientSpy, NoNoise, ZeroLoss, mlp

PATHS = [ClosedFormPath, FunctionalPath]
CLIPPINGS = {
    "automatic": AutomaticClipping(0.01),
    "automatic, large gamma": AutomaticClipping(3.0),
    "per layer": PerLayerClipping(),
    "weights and biases apart": GroupClipping([["0.weight", "2"], ["0.bias"]], shares=[5, 1]),
    "adaptive": AdaptiveClipping(),
}


def reference(module, loss, X, y, clipping, bound):
    """The definition of each way to clip, one record at a time by autograd."""
    names = [n for n, _ in module.named_parameters()]
    total = [torch.zeros_like(p, dtype=torch.float64) for p in module.parameters()]
    for i in range(len(X)):
        module.zero_grad()
        loss.per_record(module(X[i : i + 1]), y[i : i + 1]).sum().backward()
        grads = [p.grad.double() for p in module.parameters()]
        if isinstance(clipping, AutomaticClipping):
            norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
            factors = [bound / (norm + clipping.gamma)] * len(grads)
        elif isinstance(clipping, AdaptiveClipping):
            norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
            factors = [min(1.0, bound / norm)] * len(grads)
        else:
            if isinstance(clipping, PerLayerClipping):
                group = [n.split(".")[0] for n in names]
                share = {g: 1 / len(set(group)) for g in group}
            else:
                group = ["b" if n == "0.bias" else "rest" for n in names]
                share = {"b": 1 / 6, "rest": 5 / 6}
            square = dict.fromkeys(group, 0.0)
            for g, gradient in zip(group, grads, strict=True):
                square[g] += float(gradient.square().sum())
            factors = [min(1.0, bound * math.sqrt(share[g] / square[g])) for g in group]
        for at, factor in enumerate(factors):
            total[at] += factor * grads[at]
    module.zero_grad()
    return torch.cat([t.flatten() for t in total])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CLIPPINGS)
@pytest.mark.parametrize("bound", [0.3, 2.0])
def test_clipped_sum_equals_one_record_at_a_time(path, name, bound, batch):
    module, loss = mlp(5, 4, 3), SoftmaxLoss(3)
    expected = reference(module, loss, batch[0], batch[2], CLIPPINGS[name], bound)
    rule = CLIPPINGS[name].rule(module, bound)
    engine = path(module, loss)
    engine.prepare(batch[0])
    got = engine.sums(batch[0], batch[2], torch.arange(50), rule, 0.0)
    torch.testing.assert_close(got.total, expected, rtol=1e-5, atol=1e-5)
    flat = path(module, loss).sums(batch[0], batch[2], torch.arange(50), bound, 0.0)
    torch.testing.assert_close(got.norms, flat.norms)


EXTREME = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e10])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CLIPPINGS)
@given(
    rows=arrays(np.float32, (4, 5), elements=st.one_of(EXTREME, st.floats(-1e3, 1e3, width=32))),
    which=st.integers(0, 3),
    bound=st.sampled_from([1e-3, 1.0, 7.0]),
    moved=st.sampled_from([1e-3, 1.0, 20.0]),
)
def test_one_record_moves_the_sum_by_at_most_the_bound(path, name, rows, which, bound, moved):
    """Property: over arbitrary rows (NaN and infinity too), removing any one record."""
    module = mlp(5, 3, 1)
    X, y = torch.from_numpy(rows), torch.tensor([0.0, 1.0, 0.0, 1.0])
    rule = CLIPPINGS[name].rule(module, bound)
    if name == "adaptive":
        rule.current = bound * moved
    engine = path(module, LogisticLoss())
    everyone = torch.arange(4)
    with_it = engine.sums(X, y, everyone, rule, GUARD).total
    without = engine.sums(X, y, everyone[everyone != which], rule, GUARD).total
    assert torch.isfinite(with_it).all()
    assert (with_it - without).norm().item() <= bound


def test_group_bounds_add_up_in_squares():
    rule = GroupClipping([["0"], ["2", "4"]], shares=[1, 3]).rule(mlp(3, 3, 2, 1), 1.7)
    assert float(rule.bounds.square().sum()) == pytest.approx(1.7**2, rel=1e-14)
    assert rule.groups == (0, 0, 1, 1, 1, 1)
    layers = PerLayerClipping().rule(mlp(3, 3, 2, 1), 1.7)
    assert layers.groups == (0, 0, 1, 1, 2, 2)
    assert float(layers.bounds.square().sum()) == pytest.approx(1.7**2, rel=1e-14)


@pytest.mark.parametrize(
    ("groups", "shares", "error"),
    [
        ([["0"]], None, "is in 0 of the groups"),
        ([["0", "2"], ["2.bias"]], None, "is in 2 of the groups"),
        ([["0"], ["2"], ["4"]], None, "no trainable parameter"),
        ([["0"], ["2"]], [1.0], "shares must have one number"),
        ([["0"], ["2"]], [1.0, 0.0], "shares"),
        ([], None, "at least one group"),
    ],
)
def test_groups_that_do_not_cover_the_module_are_refused(groups, shares, error):
    with pytest.raises(InvalidParameterError, match=error):
        GroupClipping(groups, shares).rule(mlp(3, 2, 1), 1.0)


def test_other_mistakes_are_refused():
    with pytest.raises(InvalidTypeError, match="sequence of sequences"):
        GroupClipping(["0", "2"])
    with pytest.raises(InvalidParameterError, match="clipping"):
        make_clipping("none")
    with pytest.raises(InvalidTypeError, match="clipping"):
        make_clipping(1.0)
    for bad in ({"target_quantile": 1.0}, {"learning_rate": 0.0}, {"count_noise": -1.0}):
        with pytest.raises(InvalidParameterError):
            AdaptiveClipping(**bad)
    with pytest.raises(InvalidParameterError):
        AutomaticClipping(0.0)


# -- the engine ----------------------------------------------------------------------------
def sums_seen(clipping, plan, X, y, module, monkeypatch, seed=0):
    monkeypatch.setattr(_engine, "_Noise", NoNoise)
    spy = GradientSpy()
    DPEngine(
        module, LogisticLoss(), plan, optimizer=spy, clipping=clipping, noise_random_state=seed
    ).run(X, y)
    return spy.seen


@pytest.mark.parametrize("name", [n for n in CLIPPINGS if n != "adaptive"])
def test_the_engine_clips_as_it_is_told(name, batch, monkeypatch):
    module = mlp(5, 4, 1)
    expected = reference(module, LogisticLoss(), batch[0], batch[1], CLIPPINGS[name], 0.4)
    plan = TrainingPlan(50, 50, 1, 0.4, 1.0)
    seen = sums_seen(CLIPPINGS[name], plan, batch[0], batch[1], module, monkeypatch)
    torch.testing.assert_close(seen[0] * 50, expected, rtol=3e-5, atol=1e-5)


def test_clipping_changes_neither_event_nor_anything_without_privacy(batch):
    plan = TrainingPlan(50, 50, 2, 0.4, None)
    seen = []
    for clipping in ("flat", "automatic", "per_layer", "adaptive"):
        spy = GradientSpy()
        DPEngine(mlp(5, 1), LogisticLoss(), plan, optimizer=spy, clipping=clipping).run(
            batch[0], batch[1]
        )
        seen.append(spy.seen[0])
    assert all(torch.equal(seen[0], other) for other in seen)


@pytest.mark.statistical
@pytest.mark.parametrize("clipping", ["automatic", "per_layer"])
def test_white_box_attack_stays_below_the_certificate(clipping, monkeypatch):
    """False alarm 1e-6; power: half the noise is found (the next test)."""
    monkeypatch.setattr(
        privfair.training, "DPEngine", functools.partial(DPEngine, clipping=clipping)
    )
    plan = TrainingPlan(2, 2, 1, 0.7, 0.8)
    result = audit_engine_step(plan, draws=1500, noise_random_state=3)
    assert result.verdict == "no violation found"
    low, high = result.details["lower_and_upper_epsilon"]["dirac, delta = 0.05"]
    assert low > 0.1 * high


@pytest.mark.statistical
@pytest.mark.parametrize("clipping", ["automatic", "per_layer"])
def test_white_box_attack_finds_a_bound_that_is_twice_too_large(clipping, monkeypatch):
    class Doubled:
        def rule(self, module, bound):
            return make_clipping(clipping).rule(module, 2 * bound)

    monkeypatch.setattr(
        privfair.training, "DPEngine", functools.partial(DPEngine, clipping=Doubled())
    )
    monkeypatch.setattr(_engine, "check_rule", lambda rule, bound: None)  # refuses it by itself
    result = audit_engine_step(TrainingPlan(2, 2, 1, 0.7, 0.8), draws=1500, noise_random_state=3)
    assert result.verdict != "no violation found"


# -- adaptive ------------------------------------------------------------------------------
def adaptive_plan(clipping, z=1.0, n=200, batch=200, steps=50, clip=1.0):
    return clipping.plan(TrainingPlan(n, batch, steps, clip, None), z)


def test_the_joint_step_costs_exactly_one_gaussian():
    plan = adaptive_plan(AdaptiveClipping(), z=1.0)
    assert plan.noise_multiplier == pytest.approx((1 - 1 / 400) ** -0.5, rel=1e-14)
    assert plan.noise_multiplier == pytest.approx(1.00125, abs=5e-6)
    assert plan.statistic.noise_multiplier == 2 * 200 / 20
    assert plan.effective_noise_multiplier == pytest.approx(1.0, rel=1e-14)
    event = plan.event()
    assert event.count == 50 and event.event.event.sigma == pytest.approx(1.0, rel=1e-14)
    own = adaptive_plan(AdaptiveClipping(count_noise=0.8), z=1.5)
    assert own.noise_multiplier**-2 + 1.6**-2 == pytest.approx(1.5**-2, rel=1e-14)


@pytest.mark.parametrize("count_noise", [0.4, 0.5])
def test_a_count_that_would_cost_more_than_the_step_is_refused(count_noise):
    with pytest.raises(AccountingAssumptionError, match="2 \\* count_noise must be above"):
        adaptive_plan(AdaptiveClipping(count_noise=count_noise), z=1.0)


def test_adaptive_clipping_needs_its_plan_and_the_only_hook():
    with pytest.raises(AccountingAssumptionError, match="does not account"):
        DPEngine(
            mlp(3, 1), ZeroLoss(), TrainingPlan(20, 5, 2, 1.0, 1.0), optimizer=GradientSpy(),
            clipping="adaptive",
        )  # fmt: skip
    plan = adaptive_plan(AdaptiveClipping())
    other = BatchStatistic(
        lambda view: torch.zeros((len(view.y), 1)), 1.0, plan.statistic.noise_multiplier
    )
    with pytest.raises(InvalidParameterError, match="only one"):
        DPEngine(
            mlp(3, 1), ZeroLoss(), plan, optimizer=GradientSpy(), clipping="adaptive",
            statistic=other,
        )  # fmt: skip


class Linear:
    """Constant gradients: record i's is its row times y."""

    n_outputs = 1

    def per_record(self, output, y):
        return output[:, 0] * y

    def backprop(self, output, y):
        return y[:, None] + 0.0 * output

    def score(self, output):
        return None

    def score_backprop(self, output):
        return None


@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.8])
def test_the_bound_finds_the_quantile_of_the_norms(quantile):
    """Norms 1..200: C settles where the wanted share lies below it, from far off."""
    clipping = AdaptiveClipping(target_quantile=quantile, count_noise=1.0)
    plan = adaptive_plan(clipping, z=0.5, steps=150, clip=2.0)
    X, y = torch.ones((200, 1)), torch.arange(1.0, 201.0)
    engine = DPEngine(
        nn.Linear(1, 1, bias=False), Linear(), plan, optimizer=GradientSpy(), clipping=clipping,
        noise_random_state=1,
    )  # fmt: skip
    engine.run(X, y)
    assert engine._bound.current == pytest.approx(200 * quantile, rel=0.05)


def test_the_released_gradient_is_clipped_to_the_bound_of_its_step(monkeypatch):
    """C_1 is the plan's; afterwards the noiseless share of short gradients moves it."""
    clipping = AdaptiveClipping(learning_rate=0.3, count_noise=5.0)
    plan = adaptive_plan(clipping, z=1.0, n=10, batch=10, steps=4, clip=2.0)
    X, y = torch.ones((10, 1)), torch.full((10,), 50.0)
    seen = sums_seen_linear(clipping, plan, X, y, monkeypatch)
    expected = [2.0 * math.exp(0.3 * 0.5 * t) for t in range(4)]  # the share is 0 throughout
    assert [float(s[0]) for s in seen] == pytest.approx(expected, rel=2e-5)


def sums_seen_linear(clipping, plan, X, y, monkeypatch):
    monkeypatch.setattr(_engine, "_Noise", NoNoise)
    spy = GradientSpy()
    DPEngine(nn.Linear(1, 1, bias=False), Linear(), plan, optimizer=spy, clipping=clipping).run(
        X, y
    )
    return spy.seen


def joint_draws(present: bool, clipping, plan, seed: int, monkeypatch):
    """Gradient sums (in units of their noise) and counts of many steps with a constant bound."""
    counts: list[float] = []
    made = clipping.rule

    def still(module, bound):
        rule = made(module, bound)
        rule.absorb = lambda released: counts.append(float(released[0]))
        return rule

    spy = GradientSpy()
    # Record 0's norm is exactly at the bound, so that it counts +1/2 and moves the sum by C.
    X, y = torch.zeros((2, 1)), torch.tensor([1.0 - 2 * GUARD, 0.0])
    X[0] = 1.0
    weights = torch.tensor([1.0 if present else 0.0, 0.0])
    engine = DPEngine(
        nn.Linear(1, 1, bias=False), Linear(), plan, optimizer=spy, noise_random_state=seed,
        clipping=type("Still", (), {"rule": staticmethod(still)})(),
    )  # fmt: skip
    engine.run(X, y, sample_weight=weights)
    gradient = torch.stack(spy.seen)[:, 0].numpy() * plan.expected_batch_size
    count = np.array(counts) * plan.expected_batch_size
    return gradient / plan.noise_multiplier, count / (0.5 * plan.statistic.noise_multiplier)


@pytest.mark.statistical
def test_white_box_attack_on_gradient_and_count_together_meets_the_joint_price(monkeypatch):
    """The most powerful test sees both; its epsilon is that of one Gaussian, not of two.

    False alarm 1e-6. Power: that the attack is strong is asserted by what it reaches; if the
    gradient kept the multiplier z, the pair would be a Gaussian of multiplier 0.85 z.
    """
    clipping = AdaptiveClipping(count_noise=0.8)  # costs much, so that forgetting it would show
    plan = adaptive_plan(clipping, z=1.0, n=2, batch=2, steps=4000)
    samples = []
    for k, present in enumerate((True, False)):
        g, c = joint_draws(present, clipping, plan, 5 + k, monkeypatch)
        a, b = 1 / plan.noise_multiplier, 1 / plan.statistic.noise_multiplier
        samples.append((a * g + b * c) / math.hypot(a, b))
    certified = guarantee(Gaussian(1.0), delta=0.05)
    result = audit_mechanism(
        *samples, certified=certified, delta=0.05, confidence=1 - 1e-6, target="a joint step"
    )
    assert result.verdict == "no violation found"
    assert result.lower_epsilon > 0.2 * result.upper_epsilon
    # The means are 1 / z apart in units of the noise: 4,000 draws, 6 standard errors.
    gap = samples[0].mean() - samples[1].mean()
    assert gap == pytest.approx(1.0, abs=6 * math.sqrt(2 / 4000))


def test_seeded_adaptive_runs_repeat_and_train(batch):
    clipping = AdaptiveClipping()
    plan = adaptive_plan(clipping, n=50, batch=25, steps=20)
    weights = []
    for _ in range(2):
        module = mlp(5, 1)
        DPEngine(
            module, LogisticLoss(), plan, optimizer=make_optimizer("sgd", 0.1),
            clipping=clipping, noise_random_state=3,
        ).run(batch[0], batch[1])  # fmt: skip
        weights.append(module[0].weight.detach().clone())
    assert torch.equal(*weights) and torch.isfinite(weights[0]).all()


class OwnRule:
    groups = None

    def __init__(self, bound, factors, groups=None):
        self.bound, self._factors, self.groups = bound, factors, groups

    def factors(self, norms, guard):
        return self._factors(norms)


@dataclass(frozen=True)
class Own:
    make: object

    def rule(self, module, bound):
        return self.make(bound)


@pytest.mark.parametrize(
    "make",
    [lambda c: 2 * c, lambda c: OwnRule(2 * c, torch.ones_like), lambda c: None, lambda c: True],
    ids=["number", "rule", "nothing", "boolean"],
)
def test_a_rule_with_another_bound_is_refused(make):
    with pytest.raises(AccountingAssumptionError, match="max_grad_norm"):
        DPEngine(
            mlp(5, 4, 1), LogisticLoss(), TrainingPlan(50, 10, 3, 0.7, 2.0),
            optimizer=make_optimizer("sgd", 0.1), clipping=Own(make),
        )  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("groups", [None, (0, 0, 1, 1)], ids=["flat", "groups"])
@pytest.mark.parametrize("factor", [5.0, -5.0, math.inf, math.nan])
def test_no_rule_lets_a_contribution_pass_the_bound(path, groups, factor, batch):
    """The noise is that of the bound, whatever factors a rule of one's own gives."""
    rule = OwnRule(0.7, lambda norms: torch.full_like(norms, factor), groups)
    chosen = path(mlp(5, 4, 1), LogisticLoss())
    chosen.prepare(batch[0])
    for at in range(5):
        found = chosen.sums(batch[0], batch[1], torch.tensor([at]), rule, 0.0)
        assert found.total.norm() <= 0.7 * (1 + 1e-12)


def test_automatic_clipping_of_a_zero_gradient_is_zero_for_every_gamma():
    factors = clip_factors(
        torch.zeros(1).double(), AutomaticClipping(1e-320).rule(nn.Linear(1, 1), 1.0)
    )
    assert torch.isfinite(factors).all()


@pytest.mark.parametrize("current", [0.5, 2.0, 8.0])
def test_the_adaptive_rule_scales_to_the_bound_of_the_noise(current):
    rule = AdaptiveClipping().rule(nn.Linear(1, 1), 2.0)
    rule.current = current
    norms = torch.tensor([0.1, 0.5, 1.0, 20.0]).double()
    expected = 2.0 * (norms / current).clamp(max=1.0)
    torch.testing.assert_close(clip_factors(norms, rule, 0.0) * norms, expected)
