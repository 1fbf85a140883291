"""The loop: noise at every step, public constants, the hook, and planted bugs.

Each property of the engine is a checker that takes the engine's module. The true module passes
every checker; each planted bug (a change of the source text) must fail the checker named for it.
"""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.training import (
    AdaptiveClipping,
    BatchStatistic,
    DPEngine,
    LogisticLoss,
    SquaredLoss,
    StatisticPlan,
    TrainingPlan,
    _closed_form,
    _engine,
    _functional,
    _paths,
    _plan,
    make_optimizer,
)

from .helpers import GradientSpy, NoNoise, ZeroLoss, mlp, mutated, reference_clipped_sum

ALPHA = 1e-6


def plan(n=20, batch=5, steps=10, clip=1.0, sigma=1.0, **kwargs):
    return TrainingPlan(n, batch, steps, clip, sigma, **kwargs)


def run(engine: ModuleType, module, loss, the_plan, X, y, seed=0, **kwargs):
    """Run one engine with a spy for an optimiser; return the gradients that it was given."""
    spy = GradientSpy()
    made = engine.DPEngine(
        module, loss, the_plan, optimizer=spy, noise_random_state=seed, **kwargs
    )
    made.run(X, y)
    return torch.stack(spy.seen) if spy.seen else torch.zeros((0, 1))


# -- checkers ------------------------------------------------------------------------------
def check_every_step_is_noised(engine):
    """T steps give T noisy updates, the last and those with an empty batch included."""
    n, steps = 2, 40  # most batches are empty
    seen = run(
        engine, mlp(3, 1), ZeroLoss(), plan(n=n * 50, batch=1, steps=steps, relation="add_remove"),
        torch.zeros((n, 3)), torch.zeros(n),
    )  # fmt: skip
    assert len(seen) == steps
    assert (seen != 0).all()
    assert len(torch.unique(seen)) == seen.numel()  # no noise is ever used twice


def check_noise_has_its_variance(engine):
    """Chi-square test of the noise's variance.

    H0: standard deviation sigma C / B. alpha = 1e-6; n = 40,000 draws; the power against a
    standard deviation that is 5 % off is above 0.9999.
    """
    sigma, clip, batch, size, steps = 1.7, 0.6, 5, 399, 100
    seen = run(
        engine, mlp(size, 1), ZeroLoss(), plan(batch=batch, steps=steps, clip=clip, sigma=sigma),
        torch.zeros((20, size)), torch.zeros(20),
    )  # fmt: skip
    z = (seen * batch / (sigma * clip)).flatten()
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], z.numel())
    # Rounding and summation terms widen the sensitivity by less than 2e-4.
    assert low <= float((z**2).sum()) <= high * (1 + 2e-4) ** 2
    assert abs(float(z.mean())) * math.sqrt(z.numel()) < stats.norm.isf(ALPHA / 2)


def check_sum_of_clipped_gradients(engine):
    """Without noise and with everyone in the batch: the clipped sum over the constant B."""
    g = torch.Generator().manual_seed(3)
    X, y = torch.randn((12, 4), generator=g) * 3, torch.randint(0, 2, (12,), generator=g).float()
    module, loss = mlp(4, 3, 1), LogisticLoss()
    noise, engine._Noise = engine._Noise, NoNoise
    try:
        for clip in (0.4, 3.0):
            expected, _ = reference_clipped_sum(module, loss.per_record, X, y, clip)
            seen = run(engine, module, loss, plan(12, 12, 2, clip), X, y)
            torch.testing.assert_close(seen[0], expected / 12, rtol=3e-5, atol=1e-6)
    finally:
        engine._Noise = noise


def check_one_record_moves_the_sum_by_at_most_the_bound(engine):
    """Neighbours whose gradients point in opposite directions."""
    noise, engine._Noise = engine._Noise, NoNoise
    try:
        for clip in (0.5, 2.0):
            X = torch.tensor([[1e3, 1e3], [-1e4, 1e4], [0.0, 0.0]])
            y = torch.tensor([1.0, -1.0, 0.0])
            sums = []
            for keep in (1.0, 0.0):  # zero_out: the second record is replaced by a null record
                module = nn.Linear(2, 1)
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
                seen = run(
                    engine,
                    module,
                    SquaredLoss(),
                    plan(3, 3, 1, clip),
                    X * torch.tensor([[1.0], [keep], [1.0]]),
                    y * torch.tensor([1.0, keep, 1.0]),
                )
                sums.append(seen[0] * 3)
            assert (sums[0] - sums[1]).norm() <= clip * (1 + 1e-6)
            assert (sums[0] - sums[1]).norm() >= 0.99 * clip  # the clipped record does count
    finally:
        engine._Noise = noise


def check_divisor_is_public(engine):
    """n and n + 1 records with zero gradients and the same noise: bit-identical updates."""
    seen = [
        run(
            engine, mlp(3, 1), ZeroLoss(), plan(n=10, batch=10, steps=5, relation="add_remove"),
            torch.ones((n, 3)), torch.zeros(n),
        )
        for n in (9, 10, 11)
    ]  # fmt: skip
    assert len({s.numpy().tobytes() for s in seen}) == 1


CHECKERS = [
    check_every_step_is_noised,
    check_noise_has_its_variance,
    check_sum_of_clipped_gradients,
    check_one_record_moves_the_sum_by_at_most_the_bound,
    check_divisor_is_public,
]


@pytest.mark.statistical
@pytest.mark.parametrize("checker", CHECKERS, ids=lambda c: c.__name__)
def test_engine(checker):
    checker(_engine)


MEAN = "mean = noise.add(sums.total) / plan.expected_batch_size"
BOUND = "self._bound = chosen.rule(module, plan.max_grad_norm) if plan.private else None"
CHECK = ("check_rule(self._bound, plan.max_grad_norm)", "pass")  # refuses them by itself
ENGINE_BUGS = {
    "noise omitted on the last step": (
        check_every_step_is_noised,
        (MEAN, "mean = (noise.add(sums.total) if step + 1 < plan.steps else sums.total) / 5.0"),
    ),
    "empty batch skipped": (
        check_every_step_is_noised,
        ("sums = self._sums(", "if not len(rows): continue\n                sums = self._sums("),
    ),
    "one step too few": (
        check_every_step_is_noised,
        ("for step in range(first, plan.steps):", "for step in range(first, plan.steps - 1):"),
    ),
    "one step too many": (
        check_every_step_is_noised,
        ("for step in range(first, plan.steps):", "for step in range(first, plan.steps + 1):"),
    ),
    "generator seeded inside the loop": (
        check_every_step_is_noised,
        (MEAN, "noise = _Noise(sigma, bound, theta.numel(), self._terms, 1)\n"
         "                " + MEAN),
    ),
    "half the noise": (
        check_noise_has_its_variance,
        ("sigma, bound = plan.noise_multiplier,", "sigma, bound = plan.noise_multiplier / 2,"),
    ),
    "noise in units of C squared": (
        check_noise_has_its_variance,
        ("sigma, bound = plan.noise_multiplier, plan.max_grad_norm",
         "sigma, bound = plan.noise_multiplier, plan.max_grad_norm ** 2"),
    ),
    "noise added before a second division": (
        check_sum_of_clipped_gradients,
        (MEAN, "mean = noise.add(sums.total / plan.expected_batch_size) / 5"),
    ),
    "noise after averaging at the scale of the sum": (
        check_noise_has_its_variance,
        (MEAN, "mean = noise.add(sums.total / plan.expected_batch_size)"),
    ),
    "divided by the realised batch size": (
        check_divisor_is_public,
        (MEAN, "mean = noise.add(sums.total) / max(1, len(rows))"),
    ),
    "divided by the number of rows": (
        check_divisor_is_public,
        (MEAN, "mean = noise.add(sums.total) / (len(X) * plan.sample_rate)"),
    ),
    "clipped with C squared": (
        check_one_record_moves_the_sum_by_at_most_the_bound,
        ("chosen.rule(module, plan.max_grad_norm)", "chosen.rule(module, plan.max_grad_norm**2)"),
        CHECK,
    ),
    "clipped after summing": (
        check_one_record_moves_the_sum_by_at_most_the_bound,
        (BOUND, "self._bound = None"),
        CHECK,
        (MEAN, "sums.total.mul_(min(1.0, bound / max(float(sums.total.norm()), 1e-30)));" + MEAN),
    ),
    "not clipped": (
        check_sum_of_clipped_gradients,
        (BOUND, "self._bound = None"),
        CHECK,
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", ENGINE_BUGS)
def test_planted_bugs_of_the_loop_are_caught(bug):
    checker, *changes = ENGINE_BUGS[bug]
    with pytest.raises(AssertionError):
        checker(mutated("privfair.training._engine", *changes))


SQUARES = "inputs.mul_(lengths[count:])"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "clipped per layer while one bound is accounted",
            [(SQUARES + ".sum(dim=0)", SQUARES + ".amax(dim=0)")],
        ),
        ("bias left out of the norm", [("inputs += self._has_bias", "inputs += 0.0")]),
        ("norm of the last layer only", [(SQUARES + ".sum(dim=0)", SQUARES + "[-1]")]),
        ("one record's norm forgets its inputs", [(SQUARES, "lengths[count:]")]),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_planted_bugs_of_the_gradient_path_are_caught(name, changes, monkeypatch):
    broken = mutated("privfair.training._closed_form", *changes)
    monkeypatch.setattr(_paths, "ClosedFormPath", broken.ClosedFormPath)
    with pytest.raises(AssertionError):
        check_sum_of_clipped_gradients(_engine)


# -- plan ----------------------------------------------------------------------------------
def check_plan_is_accounted_as_it_runs(module):
    made = module.TrainingPlan(1_000, 50, 30, 1.0, 2.0)
    assert made.sample_rate == 50 / 1_000
    event = made.event().to_dict()
    assert event["kind"] == "SelfComposed" and event["count"] == 30
    assert event["event"] == {
        "schema": 1, "kind": "PoissonSampled", "q": 0.05,
        "event": {"schema": 1, "kind": "Gaussian", "sigma": 2.0},
    }  # fmt: skip


def test_plan_is_accounted_as_it_runs():
    check_plan_is_accounted_as_it_runs(_plan)


@pytest.mark.parametrize(
    "change",
    [
        (
            "self.expected_batch_size / self.n_public",
            "self.expected_batch_size / (self.n_public + 1)",
        ),
        ("return block(alone, plan.steps)", "return block(alone, plan.steps - 1)"),
        ("ev.Gaussian(sigma)", "ev.Gaussian(2 * sigma)"),
    ],
    ids=["q = batch / (n + 1)", "one step not accounted", "more noise accounted than drawn"],
)
def test_planted_bugs_of_the_plan_are_caught(change):
    with pytest.raises(AssertionError):
        check_plan_is_accounted_as_it_runs(mutated("privfair.training._plan", change))


def test_plan_with_a_statistic_charges_the_joint_noise():
    joint = plan(n=100, batch=10, steps=10).at_noise(2.0, share=0.1)
    assert joint.effective_noise_multiplier == pytest.approx(2.0, rel=1e-12)
    assert joint.noise_multiplier == pytest.approx(2.0 / math.sqrt(0.9))
    assert joint.statistic.noise_multiplier == pytest.approx(2.0 / math.sqrt(0.1))
    assert joint.event().event.event.sigma == pytest.approx(2.0, rel=1e-12)
    third = plan(n=100, batch=10, steps=10).at_noise(2.0, share=0.1, every=3)
    both, alone = third.event().events
    assert (both.count, alone.count) == (4, 6)
    assert both.event.event.sigma == pytest.approx(2.0)
    assert alone.event.event.sigma == third.noise_multiplier


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"batch": 21}, InvalidParameterError),
        ({"sigma": 0.0}, InvalidParameterError),
        ({"clip": -1.0}, InvalidParameterError),
        ({"steps": 1.5}, InvalidParameterError),
        ({"relation": "replace_one"}, AccountingAssumptionError),
    ],
)
def test_plan_refuses(kwargs, error):
    with pytest.raises(error):
        plan(**kwargs)


def test_zero_out_needs_the_public_number_of_records():
    engine = DPEngine(nn.Linear(2, 1), ZeroLoss(), plan(n=20), optimizer=GradientSpy())
    with pytest.raises(AccountingAssumptionError, match="number of records is public"):
        engine.run(torch.zeros((19, 2)), torch.zeros(19))


# -- non-finite gradients ------------------------------------------------------------------
@pytest.mark.parametrize("path", ["closed_form", "functional"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_a_record_with_a_non_finite_gradient_counts_nothing(path, bad, monkeypatch):
    monkeypatch.setattr(_engine, "_Noise", NoNoise)
    X = torch.tensor([[1.0, 2.0], [bad, bad], [0.5, -1.0]])
    y = torch.tensor([1.0, 0.0, 0.0])
    module = mlp(2, 3, 1) if bad != 1e38 else nn.Linear(2, 1)
    if bad == 1e38:
        with torch.no_grad():
            module.weight.fill_(1e20)  # overflows in the forward pass
    seen = run(_engine, module, SquaredLoss(), plan(3, 3, 1), X, y, grad_path=path)
    good = run(
        _engine,
        module,
        SquaredLoss(),
        plan(3, 3, 1),
        X[[0, 2, 2]] * torch.tensor([[1.0], [1.0], [0.0]]),
        y[[0, 2, 2]],
        grad_path=path,
    )
    assert torch.isfinite(seen).all()
    if bad != 1e38:
        rest, _ = reference_clipped_sum(
            module, SquaredLoss().per_record, X[[0, 2]], y[[0, 2]], 1.0
        )
        torch.testing.assert_close(seen[0] * 3, rest, rtol=1e-4, atol=1e-5)
    assert good is not None


# -- the hook ------------------------------------------------------------------------------
def hooked_run(features, the_plan, bound=1.0, n_features=2, absorb=None, weights=None, seed=0):
    statistic = BatchStatistic(
        features, bound, the_plan.statistic.noise_multiplier, the_plan.statistic.every,
        n_features, absorb, weights,
    )  # fmt: skip
    X = torch.ones((the_plan.n_public, 3))
    y = torch.zeros(the_plan.n_public)
    return run(_engine, mlp(3, 1), ZeroLoss(), the_plan, X, y, seed=seed, statistic=statistic)


def test_statistic_is_clipped_noised_and_divided_by_the_constant():
    seen = []
    the_plan = plan(n=40, batch=10, steps=60, sigma=1.0, statistic=StatisticPlan(0.5))
    hooked_run(lambda view: torch.full((len(view.y), 2), 1e9), the_plan, 0.7, absorb=seen.append)
    released = torch.stack(seen) * 10
    assert len(seen) == 60
    # On average 10 records, each cut to norm 0.7 (0.495 on each coordinate).
    mean = released.mean(dim=0)
    sd = math.sqrt((0.35**2 + 0.495**2 * 10 * 0.75) / 60)
    assert (mean - 4.95).abs().max() < stats.norm.isf(ALPHA) * sd
    assert len(torch.unique(released)) == released.numel()


@pytest.mark.statistical
def test_statistic_noise_has_its_variance_and_is_independent_of_the_gradients():
    """Chi-square, alpha = 1e-6, 24,000 draws: power against 5 % off is above 0.999."""
    seen: list[torch.Tensor] = []
    the_plan = plan(n=20, batch=5, steps=60, statistic=StatisticPlan(1.4))
    gradients = hooked_run(
        lambda view: torch.zeros((len(view.y), 400)), the_plan, 0.3, 400, seen.append
    )
    z = torch.stack(seen) * 5 / (1.4 * 0.3)
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], z.numel())
    assert low <= float((z**2).sum()) <= high * 1.001
    first = gradients[:, 0] * 5
    r = np.corrcoef(first.numpy(), z[:, 0].numpy())[0, 1]
    assert abs(r) < 0.65  # 60 pairs: |r| above it has a probability of 2e-8 under independence


def test_statistic_every_third_step():
    seen: list[torch.Tensor] = []
    the_plan = plan(n=20, batch=5, steps=10, statistic=StatisticPlan(1.4, every=3))
    hooked_run(lambda view: torch.zeros((len(view.y), 2)), the_plan, absorb=seen.append)
    assert len(seen) == the_plan.statistic.releases(10) == 4


def test_statistic_sees_the_batch_of_the_gradient():
    sizes: list[int] = []
    norms: list[int] = []

    def features(view):
        sizes.append(len(view.scores))
        norms.append(len(view.norms))
        return torch.zeros((len(view.y), 2))

    the_plan = plan(n=30, batch=5, steps=8, statistic=StatisticPlan(1.0))
    hooked_run(features, the_plan)
    assert sizes == norms and len(set(sizes)) > 1


def test_weights_change_only_after_absorb():
    """The weights at step t may use what was released before t, never the batch of t."""
    order: list[str] = []
    the_plan = plan(n=10, batch=10, steps=3, statistic=StatisticPlan(1.0))
    hooked_run(
        lambda view: (order.append("features"), torch.zeros((len(view.y), 2)))[1],
        the_plan,
        absorb=lambda released: order.append("absorb"),
        weights=lambda s, a, y: (order.append("weights"), torch.zeros(len(y)))[1],
    )
    assert order == ["weights", "features", "absorb"] * 3


@pytest.mark.parametrize("declared", [None, StatisticPlan(2.0), StatisticPlan(1.0, every=2)])
def test_a_statistic_that_the_plan_does_not_account_for_is_refused(declared):
    statistic = BatchStatistic(lambda view: torch.zeros((len(view.y), 1)), 1.0, 1.0)
    with pytest.raises(AccountingAssumptionError, match="must be in the plan"):
        DPEngine(
            nn.Linear(2, 1), ZeroLoss(), plan(statistic=declared),
            optimizer=GradientSpy(), statistic=statistic,
        )  # fmt: skip
    with pytest.raises(AccountingAssumptionError, match="must be in the plan"):
        DPEngine(
            nn.Linear(2, 1), ZeroLoss(), plan(statistic=StatisticPlan(1.0)),
            optimizer=GradientSpy(),
        )  # fmt: skip


# -- without privacy, randomness, paths ----------------------------------------------------
def test_without_privacy_nothing_is_clipped_or_noised():
    g = torch.Generator().manual_seed(3)
    X, y = torch.randn((12, 4), generator=g) * 30, torch.randint(0, 2, (12,), generator=g).float()
    module, loss = mlp(4, 3, 1), LogisticLoss()
    expected, _ = reference_clipped_sum(module, loss.per_record, X, y, math.inf)
    seen = run(_engine, module, loss, plan(12, 12, 2, 0.1, None), X, y)
    torch.testing.assert_close(seen[0], expected / 12, rtol=1e-5, atol=1e-6)
    assert torch.equal(seen[0], seen[1])


def test_unseeded_runs_differ_and_seeded_runs_repeat():
    X, y = torch.zeros((20, 3)), torch.zeros(20)

    def seen(seed):
        return run(_engine, mlp(3, 1), ZeroLoss(), plan(), X, y, seed=seed)

    assert not torch.equal(seen(None), seen(None))
    assert torch.equal(seen(4), seen(4))
    assert not torch.equal(seen(4), seen(5))


def test_global_seeds_do_not_reach_the_noise():
    X, y = torch.zeros((20, 3)), torch.zeros(20)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.default_rng(0)
        found.append(run(_engine, mlp(3, 1), ZeroLoss(), plan(), X, y, seed=None))
    assert not torch.equal(*found)


def test_both_paths_train_alike():
    g = torch.Generator().manual_seed(3)
    X, y = torch.randn((40, 4), generator=g), torch.randint(0, 2, (40,), generator=g).float()
    from privfair.training import make_optimizer

    weights = []
    for path in ("closed_form", "functional"):
        module = mlp(4, 3, 1)
        engine = DPEngine(
            module, LogisticLoss(), plan(40, 10, 30), optimizer=make_optimizer("adam", 0.1),
            noise_random_state=1, grad_path=path, average=0.5,
        )  # fmt: skip
        assert engine.grad_path == path
        engine.run(X, y)
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    # The closed form's noise is 0.2 % larger: it pays for float32 blocks.
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=3e-3)


def test_unknown_paths_are_refused():
    with pytest.raises(InvalidParameterError, match="grad_path"):
        DPEngine(nn.Linear(2, 1), ZeroLoss(), plan(), optimizer=GradientSpy(), grad_path="vmap")
    with pytest.raises(InvalidParameterError, match="closed_form"):
        DPEngine(
            nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1)), ZeroLoss(), plan(),
            optimizer=GradientSpy(), grad_path="closed_form",
        )  # fmt: skip


def test_default_noise_is_the_hardened_gaussian():
    from privfair.mechanisms import HardenedGaussian

    noise = _engine._Noise(1.0, 1.0, 3, 10, None)
    assert isinstance(noise._mechanism, HardenedGaussian)
    assert noise._mechanism.value_error > 0
    assert _functional.FunctionalPath and _closed_form.ClosedFormPath  # both are imported here


@pytest.mark.parametrize("what", ["adaptive", "penalty"])
def test_a_record_of_weight_zero_is_a_record_left_out(what: str) -> None:
    """Gradient, count and penalty alike: the run equals the one without the record."""
    X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    y = (X[:, 0] > 0).float()
    S = (X[:, 1] > 0).float()
    weight = torch.ones(40)
    weight[7] = weight[31] = 0.0
    kept = weight != 0

    def run(X, y, S, weight) -> torch.Tensor:
        draft = TrainingPlan(40, 40, 6, 0.5, 1.0, "add_remove")
        options: dict = {}
        if what == "adaptive":
            clipping = AdaptiveClipping(count_noise=3.0)
            plan, options = clipping.plan(draft, 1.0), {"clipping": clipping}
        else:
            plan = draft.at_noise(1.0, 0.5)
            state = {"mean": 0.0}
            options["statistic"] = BatchStatistic(
                lambda view: view.scores[:, None] * view.sensitive[:, None], 1.0,
                plan.statistic.noise_multiplier,
                absorb=lambda released: state.update(mean=float(released[0])),
                score_weights=lambda scores, s, y: state["mean"] * s,
            )  # fmt: skip
        module = torch.nn.Linear(3, 1)
        with torch.no_grad():
            for p in module.parameters():
                p.fill_(0.3)
        engine = DPEngine(
            module, LogisticLoss(), plan, optimizer=make_optimizer("sgd", 0.5),
            noise_random_state=4, **options,
        )  # fmt: skip
        engine.run(X, y, S, weight)
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    full = run(X, y, S, weight)
    left_out = run(X[kept], y[kept], S[kept], weight[kept])
    assert torch.allclose(full, left_out, atol=1e-7)
    assert not torch.allclose(full, run(X, y, S, torch.ones(40)), atol=1e-4)


def test_parameters_that_are_replaced_after_the_engine_was_made_are_refused() -> None:
    """The closed form would differentiate by the old ones and update the new ones."""
    module = mlp(5, 3, 1)
    engine = DPEngine(
        module, LogisticLoss(), TrainingPlan(20, 5, 3, 1.0, 2.0),
        optimizer=make_optimizer("sgd", 0.1),
    )  # fmt: skip
    module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True)
    with pytest.raises(AccountingAssumptionError, match="replace"):
        engine.run(torch.randn(20, 5), torch.ones(20))
