"""Private and fair: what one record can do to a step, and that the noise is what was certified."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from privfair.accounting import Ledger
from privfair.core import Categorical, Numeric, Schema
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
    MissingSensitiveFeatureError,
    SchemaError,
    SensitiveFeatureError,
)
from privfair.dp import DPClassifier
from privfair.fairness.dcov import (
    BoundedDistanceCovariance,
    DPFairDCovClassifier,
    DPFairDCovRegressor,
)
from privfair.testing import check_penalty
from privfair.training import (
    BatchStatistic,
    DPEngine,
    LogisticLoss,
    RangedSquaredLoss,
    TrainingPlan,
    make_optimizer,
)

GROUPS = {"sex": ["f", "m"], "race": ["a", "b", "c"]}
KINDS = ["ccdcov", "jdcov", "pairwise", "cells"]


def surrogate(**options):
    return BoundedDistanceCovariance(GROUPS, **options)


def table(n=3_000, seed=0):
    """Return a task whose label depends on sex, race and their combination."""
    rng = np.random.default_rng(seed)
    sex, race = rng.integers(0, 2, n), rng.choice(3, n, p=[0.6, 0.3, 0.1])
    shift = 1.2 * sex + 0.4 * race
    X = np.stack([rng.normal(size=n) + shift, rng.normal(size=n)], axis=1).clip(-6, 6)
    y = (X[:, 0] + X[:, 1] + rng.logistic(size=n) > 1).astype(int)
    S = {"sex": np.array(["f", "m"])[sex], "race": np.array(["a", "b", "c"])[race]}
    return X, y, S


def gap(scores, S):
    import pandas as pd

    rates = pd.Series(scores).groupby([S["sex"], S["race"]]).mean()
    return float(rates.max() - rates.min())


# -- the engine, step by step ----------------------------------------------------------------
class _Silent:
    """In place of the noise: what is released then is the record's own contribution."""

    def add(self, total):
        return total


def engine(penalty, *, loss=None, hidden=(), relation="zero_out", n=64, sigmas=(2.0, 6.0), seed=0):
    from privfair.training._models import build_module
    from privfair.training._penalty import penalty_statistic

    loss = loss or LogisticLoss()
    module = build_module(None, hidden, 3, 1, np.random.default_rng(seed))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += torch.randn(p.shape, generator=rng) * 2
    plan = TrainingPlan(n, 16, 4, 1.5, sigmas[0], relation)
    hook = penalty_statistic(penalty, loss, sigmas[1], 16)
    plan = TrainingPlan(
        n, 16, 4, 1.5, sigmas[0], relation, statistic=_statistic_plan(hook, sigmas[1])
    )
    return DPEngine(
        module, loss, plan, optimizer=make_optimizer("sgd", 0.1), statistic=hook,
        noise_random_state=0,
    )  # fmt: skip


def _statistic_plan(hook: BatchStatistic, sigma: float):
    from privfair.training import StatisticPlan

    return StatisticPlan(sigma, hook.every)


def contribution(eng, X, y, cell, rows):
    """Return what the records at ``rows`` add to the two sums of a step."""
    eng._path.prepare(X)
    rows = torch.as_tensor(rows)
    sums = eng._sums(X, y, cell, None, rows)
    aside = eng._released(0, sums, y, cell, None, rows, _Silent())
    return sums.total, aside * eng.plan.expected_batch_size


def joint_norm(eng, parts):
    """Return the length of a contribution in units of each sum's noise."""
    gradient, features = parts
    plan = eng.plan
    scaled = (
        gradient / (plan.noise_multiplier * plan.max_grad_norm),
        features / (plan.statistic.noise_multiplier * eng._statistic.bound),
    )
    return float(torch.cat(scaled).norm())


extremes = st.sampled_from([-30.0, 0.0, 30.0])
inputs = st.lists(st.floats(-50, 50) | extremes, min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    x=inputs,
    y=st.booleans(),
    cell=st.integers(0, 6),
    kind=st.sampled_from(KINDS),
    tau=st.floats(0, 1),
    strength=st.sampled_from([0.0, 1.0, 1e3]),
    released=st.integers(0, 2**16),
    share=st.floats(0.01, 0.99),
    squared=st.booleans(),
    hidden=st.sampled_from([(), (4,)]),
    seed=st.integers(0, 50),
)
@example(  # a certain record that is badly wrong: both parts are as long as they can be
    x=[50.0, 50.0, 50.0], y=False, cell=2, kind="jdcov", tau=0.0, strength=1e3, released=1,
    share=0.1, squared=False, hidden=(), seed=3,
)  # fmt: skip
def test_one_record_moves_a_step_by_at_most_one_over_the_effective_noise(
    x, y, cell, kind, tau, strength, released, share, squared, hidden, seed
):
    penalty = surrogate(kind=kind, group_weighting=tau, strength=strength)
    effective = 1.7
    sigmas = (effective / math.sqrt(1 - share), effective / math.sqrt(share))
    eng = engine(
        penalty, hidden=hidden, sigmas=sigmas, seed=seed,
        loss=RangedSquaredLoss() if squared else LogisticLoss(),
    )  # fmt: skip
    assert eng.plan.effective_noise_multiplier == pytest.approx(effective, rel=1e-12)
    given_sums = np.random.default_rng(released).normal(size=penalty.n_features)
    eng._statistic.absorb(torch.from_numpy(np.abs(given_sums) if released % 2 else given_sums))
    rows = torch.tensor([x], dtype=torch.float32)
    parts = contribution(eng, rows, torch.tensor([float(y)]), torch.tensor([cell]), [0])
    length = joint_norm(eng, parts) * effective
    assert length <= 1.0 + 1e-6
    if x == [50.0, 50.0, 50.0] and seed == 3 and strength == 1e3 and not hidden:
        assert length > 1.0 - 1e-4  # and the bound is attained: no smaller noise would do


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("hidden", [(), (4,)])
@pytest.mark.parametrize("loss", [LogisticLoss(), RangedSquaredLoss()])
def test_the_surrogates_gradient_is_that_of_the_truncated_penalty(kind, tau, hidden, loss):
    """Without noise, clipping and memory, at the full batch: summed surrogate and autograd."""
    from privfair.training._closed_form import ClosedFormPath
    from privfair.training._models import build_module

    rng = np.random.default_rng(1)
    n = 400
    X, cell = torch.from_numpy(rng.normal(size=(n, 3))), torch.from_numpy(rng.integers(0, 6, n))
    X[:, 0] += 0.5 * (cell == 2) - 0.3 * (cell > 3)
    y = torch.from_numpy(rng.uniform(0, 1, n))
    module = build_module(None, hidden, 3, 1, rng).double()
    with torch.no_grad():
        for p in module.parameters():
            p += 0.4
    penalty = surrogate(kind=kind, group_weighting=tau, c=0.7, ema=0.0, weights={"race": 1.5})
    scores = loss.score(module(X)).detach()
    penalty.absorb(penalty.features(scores, cell).sum(dim=0) / n)
    path = ClosedFormPath(module, loss)

    def total(weights):
        return path.sums(X, y, torch.arange(n), None, 0.0, weights).total / n

    found = total(lambda out: penalty.weights(loss.score(out), cell)) - total(None)
    value = penalty(loss.score(module(X)), cell)
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(value, module.parameters())])
    assert float(wanted.norm()) > 1e-5
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9 * float(wanted.norm()))


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    other=inputs,
    other_cell=st.integers(0, 6),
    other_y=st.booleans(),
    seed=st.integers(0, 100),
)
def test_another_record_never_moves_a_records_clipped_gradient(
    kind, other, other_cell, other_y, seed
):
    penalty = surrogate(kind=kind, strength=50.0)
    eng = engine(penalty, seed=seed)
    rng = np.random.default_rng(seed)
    eng._statistic.absorb(torch.from_numpy(np.abs(rng.normal(size=penalty.n_features))))
    X = torch.from_numpy(rng.normal(size=(4, 3))).float()
    y, cell = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0, 1, 2, 5])
    changed = [X.clone(), y.clone(), cell.clone()]
    changed[0][3] = torch.tensor(other)
    changed[1][3], changed[2][3] = float(other_y), other_cell
    for data in ((X, y, cell), tuple(changed)):
        everyone = contribution(eng, *data, [0, 1, 2, 3])
        without = contribution(eng, *data, [1, 2, 3])
        alone = contribution(eng, X, y, cell, [0])
        for a, b, c in zip(everyone, without, alone, strict=True):
            torch.testing.assert_close(a - b, c, rtol=0, atol=1e-6)


def test_weights_see_released_sums_of_earlier_steps_only():
    calls = []

    class Listening(BoundedDistanceCovariance):
        def features(self, *args, **kwargs):
            calls.append("features")
            return super().features(*args, **kwargs)

        def weights(self, *args, **kwargs):
            found = super().weights(*args, **kwargs)
            calls.append(("weights", bool(found.abs().sum() > 0), self._released))
            return found

        def absorb(self, given):
            calls.append("absorb")
            super().absorb(given)

    eng = engine(Listening(GROUPS), sigmas=(1.0, 1e-3))
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(64, 3))).float()
    eng.run(X, (X[:, 0] > 0).float(), torch.from_numpy(rng.integers(0, 6, 64)))
    steps = [("weights", at > 0, at) for at in range(4)]
    assert calls == [entry for step in steps for entry in (step, "features", "absorb")]


def test_sums_are_divided_by_the_batch_constant():
    """The realised size of a batch is private: counts over B sum to a size over B, not to 1."""
    seen = []

    class Listening(BoundedDistanceCovariance):
        def __deepcopy__(self, memo):
            return self

        def absorb(self, given):
            seen.append(given.reshape(self.n_frequencies + 1, -1)[-1].sum() / 0.5)

    X, y, S = table(600)
    clf = DPClassifier(
        epsilon=float("inf"), schema="as_is", batch_size=60, epochs=3, random_state=0,
        fairness_penalty=Listening(GROUPS),
    ).fit(X, y, sensitive_features=S)  # fmt: skip
    sizes = torch.stack(seen) * clf.plan_.expected_batch_size
    assert len(set(sizes.round().tolist())) > 5
    torch.testing.assert_close(sizes, sizes.round(), rtol=0, atol=2e-3)  # the guard's 1e-5


def test_the_penalty_keeps_the_contract():
    for kind in KINDS:
        check_penalty(surrogate(kind=kind))
    assert surrogate().feature_bound < 0.96
    assert surrogate(n_frequencies=1).feature_bound == pytest.approx(
        math.sqrt(4 / math.pi**2 + 0.25)
    )


def test_the_truncated_penalty_tends_to_distance_covariance():
    """A thousand terms against the double sum over all pairs (Szekely et al. 2007)."""
    rng = np.random.default_rng(0)
    cell = rng.integers(0, 6, 200)
    f = rng.beta(2, 3, 200) * 0.7 + 0.05 * cell
    for kind in ("ccdcov", "pairwise"):
        penalty = surrogate(kind=kind, group_weighting=1.0, n_frequencies=1000)
        apart = penalty.groups.distances()
        total = sum(apart) if kind == "pairwise" else np.sqrt(sum(a**2 for a in apart))
        a, b = np.abs(f[:, None] - f[None, :]), total[np.ix_(cell, cell)]
        pairs = [m - m.mean(0) - m.mean(1)[:, None] + m.mean() for m in (a, b)]
        wanted = float((pairs[0] * pairs[1]).mean())
        found = float(penalty(torch.from_numpy(f), torch.from_numpy(cell)))
        assert found == pytest.approx(wanted, rel=2e-3)
        assert found < wanted
    few = [
        float(surrogate(group_weighting=1.0, n_frequencies=m)(torch.from_numpy(f),
              torch.from_numpy(cell)))
        for m in (1, 4, 8, 16)
    ]  # fmt: skip
    assert few == sorted(few)


def test_small_cells_are_pooled_and_smaller_ones_left_alone():
    penalty = surrogate(ema=0.0)
    penalty.observe_noise(0.5 * 0.01)  # a count over B of 0.03 and more is told from noise
    counts = np.array([0.5, 0.4, 0.02, 0.025, 0.05, 0.0, 0.0])
    means = np.random.default_rng(0).uniform(-0.1, 0.1, (8, 7))
    penalty.absorb(torch.from_numpy(np.vstack([means * counts, 0.5 * counts])))
    assert penalty.pooled_cells == (
        ("f", "c"), ("m", "a"), ("m", "c"), ("other", "other"),
    )  # fmt: skip
    scores = torch.full((7,), 0.3, dtype=torch.float64)
    weights = penalty.weights(scores, torch.arange(7))
    assert float(weights[[2, 3, 5, 6]].std()) == 0.0  # pooled: 0.045 is too small for four
    assert float(weights[2]) == 0.0
    assert float(weights[[0, 1, 4]].abs().min()) > 0
    # Two such cells of 0.06 together are large enough.
    counts[2:4] = [0.029, 0.029]
    counts[5:] = 0.01
    penalty.absorb(torch.from_numpy(np.vstack([means * counts, 0.5 * counts])))
    weights = penalty.weights(scores, torch.arange(7))
    assert float(weights[2]) == float(weights[3]) != 0.0


def test_small_cells_are_told_from_noise_at_the_first_release_too():
    """The first term of a moving average is (1 - decay) of a release: that bias is taken out."""
    penalty = surrogate(ema=0.9)
    penalty.observe_noise(0.5 * 0.01)
    counts = np.array([0.5, 0.3, 0.05, 0.04, 0.05, 0.04, 0.0])
    rows = torch.from_numpy(np.vstack([np.zeros((8, 7)), 0.5 * counts]))
    for _ in range(3):  # a longer average has less noise, and never more cells in the pool
        penalty.absorb(rows)
        assert penalty.pooled_cells == (("other", "other"),)


def test_predictions_out_of_range_are_not_moved_by_the_penalty():
    loss = RangedSquaredLoss()
    output = torch.tensor([[-1.5], [-0.5], [0.0], [0.9], [3.0]], requires_grad=True)
    scores = loss.score(output)
    assert scores.tolist() == pytest.approx([0.0, 0.25, 0.5, 0.95, 1.0])
    scores.sum().backward()
    torch.testing.assert_close(loss.score_backprop(output.detach()), output.grad)
    assert output.grad.flatten().tolist() == [0.0, 0.5, 0.5, 0.5, 0.0]


def test_without_a_release_or_without_groups_nothing_is_pulled():
    penalty = surrogate()
    scores = torch.linspace(0, 1, 7)
    assert not penalty.weights(scores, torch.arange(7)).any()
    only = np.zeros((9, 7))
    only[:, 1] = 0.4  # a single cell has records
    penalty.absorb(torch.from_numpy(only))
    assert not penalty.weights(scores, torch.arange(7)).any()


# -- declared groups -------------------------------------------------------------------------
def test_cells_do_not_depend_on_the_labels_that_occur():
    X, y, S = table(400)
    few = {name: np.full(400, values[0]) for name, values in S.items()}
    made = []
    for given_sensitive in (S, few):
        clf = DPClassifier(
            epsilon=1.0, schema="as_is", epochs=1, ledger=Ledger(), fairness_penalty=surrogate()
        ).fit(X, y, sensitive_features=given_sensitive)
        made.append(clf.events_)
        assert any("declared, not read off" in a for a in clf.privacy_.assumptions)
        assert not any("lists of groups" in a for a in clf.privacy_.assumptions)
    assert made[0] == made[1]
    codes = surrogate().encode_sensitive({"sex": ["m"], "race": ["b"]})
    assert codes.tolist() == [4]  # the same number whoever else is in the table


def test_labels_that_nobody_declared_are_one_cell():
    encode = surrogate().encode_sensitive
    assert encode({"sex": ["x", "f"], "race": ["a", "zzz"]}).tolist() == [6, 6]
    assert encode([["m", "c"], ["f", "a"]]).tolist() == [5, 0]
    some = BoundedDistanceCovariance(GROUPS, cells=[("m", "a"), ("f", "a")])
    assert some.encode_sensitive([["m", "a"], ["f", "a"], ["f", "b"]]).tolist() == [0, 1, 2]
    schema = Schema({"age": Numeric(0, 100, bins=[30, 60]), "sex": Categorical(["f"], other="o")})
    aged = BoundedDistanceCovariance(schema)
    assert len(aged.groups) == 3 * 2 + 1
    seen = aged.encode_sensitive({"age": [10, 30, 500], "sex": ["f", "q", "o"]})
    assert seen.tolist() == [0, 3, 5]
    apart = aged.groups.distances({"sex": 2.0})
    assert apart[0][0, 2] == pytest.approx(0.3)  # middles 15 and 45 of a range of 100
    assert apart[1][0, 1] == 2.0
    assert apart[0][0, 6] == 1.0


@pytest.mark.parametrize(
    ("groups", "options", "error", "match"),
    [
        (None, {}, AccountingAssumptionError, "declare"),
        (np.array(["a", "b"]), {}, InvalidTypeError, "not learnt from data"),
        ({}, {}, InvalidParameterError, "at least one"),
        ({"age": Numeric(0, 1)}, {}, SchemaError, "without bins"),
        ({"s": ["a", "a"]}, {}, SchemaError, "twice"),
        ({"s": ["a"], "t": list(range(5000))}, {}, InvalidParameterError, "5000 cells"),
        (GROUPS, {"strength": -1.0}, InvalidParameterError, "strength"),
        (GROUPS, {"group_weighting": 1.5}, InvalidParameterError, "group_weighting"),
        (GROUPS, {"c": 0.0}, InvalidParameterError, "c must be"),
        (GROUPS, {"ema": 1.0}, InvalidParameterError, "ema"),
        (GROUPS, {"kind": "ccdcv"}, InvalidParameterError, "ccdcov"),
        (GROUPS, {"n_frequencies": 0}, InvalidParameterError, "n_frequencies"),
        (GROUPS, {"weights": {"age": 1.0}}, InvalidParameterError, "declared columns"),
        (GROUPS, {"weights": {"sex": 0.0}}, InvalidParameterError, "weights"),
        (GROUPS, {"cells": [("f", "q")]}, InvalidParameterError, "not declared"),
        (GROUPS, {"cells": [("f",)]}, InvalidParameterError, "one label for each"),
        (GROUPS, {"cells": [("f", "a"), ("f", "a")]}, InvalidParameterError, "different"),
    ],
)
def test_what_is_no_declared_group_or_no_penalty_is_refused(groups, options, error, match):
    with pytest.raises(error, match=match):
        BoundedDistanceCovariance(groups, **options)


def test_a_schema_that_was_learnt_from_data_declares_nothing():
    from privfair.preprocessing import PrivateTableEncoder

    encoder = PrivateTableEncoder(epsilon=1.0, delta=1e-5, ledger=Ledger())
    encoder.fit({"sex": np.array(["f", "m"] * 500)})
    learnt = encoder.schema_
    assert learnt.origin is not None
    with pytest.raises(AccountingAssumptionError, match="learnt from data"):
        BoundedDistanceCovariance(learnt)


@pytest.mark.parametrize(
    ("S", "error"),
    [
        ({"sex": ["f", None], "race": ["a", "b"]}, MissingSensitiveFeatureError),
        ([["f"], ["m"]], SensitiveFeatureError),
        ({"sex": [0, 1], "race": ["a", "b"]}, SensitiveFeatureError),
    ],
)
def test_sensitive_features_that_do_not_fit_are_refused(S, error):
    with pytest.raises(error):
        surrogate().encode_sensitive(S)


def test_text_is_none_of_the_numbers_that_were_declared():
    numbers = BoundedDistanceCovariance({"s": [0, 1]})
    with pytest.raises(SensitiveFeatureError, match="text"):
        numbers.encode_sensitive({"s": ["0", "1"]})
    assert numbers.encode_sensitive({"s": [1.0, 0.0, 7.0]}).tolist() == [1, 0, 2]
    assert numbers.encode_sensitive({"s": [True, False]}).tolist() == [1, 0]
    mixed = BoundedDistanceCovariance({"s": [0, "none"]})
    assert mixed.encode_sensitive({"s": np.array(["none", "x"])}).tolist() == [1, 2]


def test_listed_cells_need_no_memory_for_the_product_of_all_labels():
    labels = [str(i) for i in range(40)]
    groups = {f"s{j}": labels for j in range(12)}  # 41^12 combinations
    penalty = BoundedDistanceCovariance(groups, cells=[("1",) * 12, ("0",) * 12])
    S = {name: ["0", "1", "2", "nobody", "0"] for name in groups}
    S["s3"] = ["0", "1", "2", "nobody", "1"]
    assert penalty.encode_sensitive(S).tolist() == [1, 0, 2, 2, 2]


# -- what an adversary who sees every release can do -------------------------------------------
def released(monkeypatch, weight=0.0, at=0, **options):
    """Fit with one record in a cell of its own; return the model and all released sums."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(80, 2)).clip(-2, 2), np.arange(80) % 2
    s = np.where(np.arange(80) % 3 == 0, "a", "b").astype(object)
    X[0], y[0], s[0] = 2.0 * at, at, "alone" if at == 0 else "nobody declared this"
    weights = np.ones(80)
    weights[0] = weight
    seen = []
    absorb = BoundedDistanceCovariance.absorb

    def watched(self, total):
        seen.append(total.detach().double().numpy().copy())
        absorb(self, total)

    monkeypatch.setattr(BoundedDistanceCovariance, "absorb", watched)
    model = make(
        groups={"s": ["a", "b", "alone"]}, epochs=20, batch_size=20, random_state=0,
        noise_random_state=3, **options,
    ).fit(X, y, sensitive_features=s, sample_weight=weights)  # fmt: skip
    monkeypatch.setattr(BoundedDistanceCovariance, "absorb", absorb)
    return model, np.array(seen[-model.steps_ :]).reshape(model.steps_, 9, 4)


def test_the_sums_of_an_empty_cell_are_noise_of_the_certified_size(monkeypatch):
    model, sums = released(monkeypatch)
    std = model.sigma_features_ * BoundedDistanceCovariance(GROUPS).feature_bound / 20
    noise = sums[:, :, 2:].ravel() / std  # nobody is in "alone", nobody is undeclared
    # 1,440 draws: 7 % is 3.8 standard deviations of their root mean square
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, abs=0.07)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    # The gradient's noise is another draw: it is not in the sums.
    again, other = released(monkeypatch, fairness_share=0.5)
    assert again.sigma_features_ < model.sigma_features_
    assert not np.allclose(other[:, :, 2:], sums[:, :, 2:])


def test_a_record_that_is_nothing_moves_nothing(monkeypatch):
    first, sums = released(monkeypatch)
    second, others = released(monkeypatch, at=1)
    np.testing.assert_array_equal(sums, others)
    np.testing.assert_array_equal(first.coef_, second.coef_)
    present, with_it = released(monkeypatch, weight=1e-6)  # a weight of a loss, not of a person
    assert (with_it[:, 8, 2] - sums[:, 8, 2]).max() == pytest.approx(0.5 / 20, rel=1e-4)


# -- the estimators --------------------------------------------------------------------------
def make(cls=DPFairDCovClassifier, **options):
    if cls is DPFairDCovRegressor:
        options = {"target_range": (-8.0, 8.0), **options}
    defaults = {
        "groups": GROUPS, "epsilon": 3.0, "schema": "as_is", "ledger": Ledger(), "epochs": 10,
    }  # fmt: skip
    return cls(**{**defaults, **options})


@pytest.mark.parametrize("cls", [DPFairDCovClassifier, DPFairDCovRegressor])
def test_private_and_fair_narrows_the_gap_under_one_epsilon(cls):
    X, y, S = table()
    if cls is DPFairDCovRegressor:
        y = X[:, 0] + X[:, 1]
    plain = make(cls, lambda_=0.0).fit(X, y, sensitive_features=S)
    lam = 30.0 if cls is DPFairDCovClassifier else 3.0
    fair = make(cls, lambda_=lam).fit(X, y, sensitive_features=S)
    scores = [
        est.predict_proba(X)[:, 1] if hasattr(est, "predict_proba") else est.predict(X)
        for est in (plain, fair)
    ]
    assert gap(scores[1], S) < 0.6 * gap(scores[0], S)
    assert fair.privacy_.certified and fair.privacy_.epsilon <= 3.0
    # One multiplier is certified, and it is what the two noises make together.
    assert (
        fair.sigma_effective_
        == fair.noise_multiplier_
        == pytest.approx((fair.sigma_gradient_**-2 + fair.sigma_features_**-2) ** -0.5, rel=1e-12)
    )
    assert fair.sigma_effective_ == pytest.approx(plain.sigma_effective_, rel=1e-9)
    assert fair.sigma_gradient_ == pytest.approx(fair.sigma_effective_ / math.sqrt(0.9))
    assert plain.sigma_features_ == 0.0
    assert fair.steps_ == fair.n_steps_
    assert ("other", "other") in fair.pooled_cells_ and len(fair.pooled_cells_) < 4
    assert len(fair.ledger) == 1
    notes = " ".join(fair.privacy_.assumptions)
    assert "declared, not read off" in notes and "treats records one by one" in notes


@pytest.mark.golden
@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_certified_multiplier_agrees_with_an_independent_accountant(epsilon):
    """dp_accounting joins the two Gaussians by its own rule; Opacus prices the result."""
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant
    from opacus.accountants import PRVAccountant

    X, y, S = table(2_000)
    clf = make(epsilon=epsilon, delta=1e-5, epochs=5, fairness_share=0.2)
    clf.fit(X, y, sensitive_features=S)
    both = dp_event.ComposedDpEvent(
        [dp_event.GaussianDpEvent(clf.sigma_gradient_), dp_event.GaussianDpEvent(
            clf.sigma_features_)]
    )  # fmt: skip
    one = dp_event.GaussianDpEvent(clf.sigma_effective_)
    found = []
    for event in (both, one):
        accountant = RdpAccountant()
        sampled = dp_event.PoissonSampledDpEvent(clf.sample_rate_, event)
        accountant.compose(dp_event.SelfComposedDpEvent(sampled, clf.steps_))
        found.append(accountant.get_epsilon(1e-5))
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    prv = PRVAccountant()
    sigma = (clf.sigma_gradient_**-2 + clf.sigma_features_**-2) ** -0.5
    prv.history = [(sigma, clf.sample_rate_, clf.steps_)]
    assert prv.get_epsilon(1e-5, eps_error=0.002) == pytest.approx(epsilon, rel=0.01)
    assert clf.privacy_.epsilon == pytest.approx(epsilon, rel=0.01)


def test_a_penalty_object_is_taken_and_scaled_and_a_batch_penalty_refused_by_name():
    X, y, S = table(800)
    own = surrogate(kind="cells", strength=2.0)
    clf = make(groups=None, penalty=own, lambda_=3.0, epochs=1).fit(X, y, sensitive_features=S)
    assert clf.sigma_features_ > 0
    assert own.strength == 2.0 and own._released == 0

    class BatchGap:
        decomposable = False
        requires: frozenset[str] = frozenset()

        def __call__(self, scores, sensitive, **columns):
            return scores.var()

    clf = make(penalty=BatchGap())
    with pytest.raises(AccountingAssumptionError, match="BatchGap"):
        clf.fit(X, y, sensitive_features=S)
    assert len(clf.ledger) == 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"groups": None}, AccountingAssumptionError, "declare"),
        ({"lambda_": -1.0}, InvalidParameterError, "lambda_"),
        ({"group_weighting": -0.1}, InvalidParameterError, "group_weighting"),
        ({"c": 0}, InvalidParameterError, "c must be"),
        ({"penalty": "dcov"}, InvalidParameterError, "ccdcov"),
        ({"fairness_share": 1.0}, InvalidParameterError, "fairness_share"),
        ({"neighboring": "replace_one"}, AccountingAssumptionError, "replace_one"),
        (
            {"module": torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))},
            AccountingAssumptionError,
            "BatchNorm",
        ),
        ({"clipping": "adaptive"}, InvalidParameterError, "adaptive"),
    ],
)
@pytest.mark.parametrize("cls", [DPFairDCovClassifier, DPFairDCovRegressor])
def test_refusals_come_before_the_charge(cls, options, error, match):
    X, y, S = table(300)
    est = make(cls, **options)
    with pytest.raises(error, match=match):
        est.fit(X, y, sensitive_features=S)
    assert len(est.ledger) == 0


def test_sensitive_features_are_needed_to_fit_and_never_to_predict():
    X, y, S = table(300)
    with pytest.raises(InvalidParameterError, match="needs sensitive_features"):
        make().fit(X, y)
    make(lambda_=0.0, groups=None, epochs=1).fit(X, y)
    clf = make(epochs=1).fit(X, y, sensitive_features=S)
    assert clf.predict(X[:5]).shape == (5,)
    clf = make(epochs=1)
    with pytest.raises(InvalidParameterError, match="more than two classes"):
        clf.fit(X, np.arange(300) % 3, sensitive_features=S)
    assert clf.ledger.spent().epsilon == 0.0


def test_add_remove_and_a_learnt_schema_are_accounted_too():
    import pandas as pd

    X, y, S = table(1_500)
    clf = make(neighboring="add_remove", n_public=1_500, epochs=2,
               ledger=Ledger(neighboring="add_remove"))  # fmt: skip
    clf.fit(X, y, sensitive_features=S)
    assert clf.privacy_.neighboring == "add_remove" and clf.privacy_.certified
    learnt = make(schema=None, epochs=2, lambda_=5.0)
    learnt.fit(pd.DataFrame(X, columns=["a", "b"]), y, sensitive_features=pd.DataFrame(S))
    assert learnt.privacy_.certified and learnt.privacy_.epsilon <= 3.0
    assert len(learnt.events_) == 3  # the encoder, the run, the generator


@pytest.mark.parametrize("cls", [DPFairDCovClassifier, DPFairDCovRegressor])
def test_saving_and_copying_keep_what_was_fitted(cls, tmp_path):
    import pickle

    from sklearn.base import clone

    X, y, S = table(500)
    est = make(cls, epochs=2, attribute_weights={"sex": 2.0}, cells=[("f", "a"), ("m", "b")])
    est.fit(X, y, sensitive_features=S)
    est.save(tmp_path / "model")
    for other in (cls.load(tmp_path / "model"), pickle.loads(pickle.dumps(est))):
        np.testing.assert_array_equal(other.predict(X), est.predict(X))
        for name in ("sigma_gradient_", "sigma_features_", "sigma_effective_", "steps_"):
            assert getattr(other, name) == getattr(est, name)
        assert other.pooled_cells_ == est.pooled_cells_
        assert other.privacy_ == est.privacy_
        assert {k: list(v) for k, v in other.groups.items()} == GROUPS
        again = clone(other).set_params(epochs=1, ledger=Ledger())
        again.fit(X, y, sensitive_features=S)
    schema = Schema({"sex": Categorical(["f"], other="rest"), "race": Categorical(["a"])})
    est = make(cls, epochs=1, groups=schema).fit(X, y, sensitive_features=S)
    est.save(tmp_path / "one.safetensors")
    assert cls.load(tmp_path / "one.safetensors").groups == schema


def test_a_run_with_seeded_noise_repeats_and_is_not_certified():
    X, y, S = table(400)
    found = [
        make(epochs=2, noise_random_state=3, random_state=0).fit(X, y, sensitive_features=S)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(found[0].coef_, found[1].coef_)
    assert not found[0].privacy_.certified and found[0].privacy_.seeded


@parametrize_with_checks(
    [
        DPFairDCovClassifier(epsilon=float("inf"), lambda_=0.0),
        DPFairDCovRegressor(epsilon=float("inf"), lambda_=0.0, target_range=(-5, 5)),
    ],
    expected_failed_checks=lambda est: {
        "check_sample_weight_equivalence_on_dense_data": "Poisson sampling",
    },
)
def test_scikit_learn_checks_without_privacy(estimator, check):
    check(estimator)
