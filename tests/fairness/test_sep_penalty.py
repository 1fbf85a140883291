"""Socio-economic parity under private training: bounds, per-record weights, refusals."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.accounting import Ledger
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
    MissingSensitiveFeatureError,
    PrivfairError,
)
from privfair.core.penalty import BoundedPenalty, check_dp_compatible
from privfair.dp import DPClassifier
from privfair.fairness import (
    CompositeSES,
    EffortRule,
    SEPPenalty,
    SESRule,
    sep_gaps,
)
from privfair.testing import check_penalty

LOW = SESRule("capital", "<", 1)
FULL = EffortRule("hours", 40)


def make(**changes):
    parts = {"groups": ["f", "m"], "ses": LOW, "effort": None, **changes}
    return SEPPenalty(parts.pop("groups"), parts.pop("ses"), parts.pop("effort"), **parts)


def rows_of(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "sex": rng.choice(["f", "m", "x"], n, p=[0.4, 0.5, 0.1]),
            "capital": rng.choice([0, 5], n),
            "hours": rng.integers(10, 60, n),
        }
    )


def test_the_contract_of_a_bounded_penalty() -> None:
    for changes in ({}, {"effort": FULL}, {"constrain": "hard_surrogate"}, {"one_sided": False},
                    {"groups": {"sex": ["f", "m"], "race": ["a", "b"]}}):  # fmt: skip
        penalty = make(**changes)
        assert isinstance(penalty, BoundedPenalty)
        check_penalty(penalty)
        assert check_dp_compatible(make(**changes)).decomposable


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.booleans(), st.sampled_from(["soft", "hard_surrogate"]),
    st.sampled_from(["conditional", "overall"]), st.floats(-3, 3),
)  # fmt: skip
def test_one_record_contributes_at_most_the_bound(seed, effort, constrain, reference, score):
    """Whatever the state, the score and the record: the row is no longer than stated."""
    rng = np.random.default_rng(seed)
    penalty = make(effort=FULL if effort else None, constrain=constrain, reference=reference)
    for _ in range(3):
        penalty.absorb(torch.as_tensor(rng.normal(0, 1, penalty.n_features)))
    cells = torch.as_tensor(penalty.encode_sensitive(rows_of(40, seed=seed)))
    rows = penalty.features(torch.full((40,), score, dtype=torch.float64), cells)
    assert float(rows.norm(dim=1).max()) <= penalty.feature_bound * (1 + 1e-12)


def test_the_bound_is_attained() -> None:
    penalty = make()
    cell = torch.as_tensor(penalty.encode_sensitive({"sex": ["f"], "capital": [0], "hours": [10]}))
    row = penalty.features(torch.ones(1, dtype=torch.float64), cell)
    assert float(row.norm()) == pytest.approx(penalty.feature_bound, abs=1e-12)
    assert penalty.feature_bound == pytest.approx(math.sqrt(2.5))


def test_a_weight_depends_on_its_record_and_released_sums_only() -> None:
    frame, penalty = rows_of(50), make(effort=FULL)
    penalty.absorb(torch.linspace(0.9, 0.1, penalty.n_features))
    scores = torch.rand(50, dtype=torch.float64)
    whole = penalty.weights(scores, torch.as_tensor(penalty.encode_sensitive(frame)))
    for i in range(50):
        one = torch.as_tensor(penalty.encode_sensitive(frame.iloc[[i]]))
        assert float(penalty.weights(scores[[i]], one)) == float(whole[i])


@pytest.mark.parametrize("constrain", ["soft", "hard_surrogate"])
@pytest.mark.parametrize("effort", [None, FULL])
def test_weights_are_the_gradient_of_the_priced_gaps(constrain, effort) -> None:
    """With exact sums of all records, weights / n is the derivative of sum_j price_j v_j.

    Prices are those of decisions for the surrogate; what is derived is a sigmoid of slope 1.
    """
    frame = rows_of(300)
    penalty = make(effort=effort, constrain=constrain, ema=0.0, tolerance=0.0, rho=2.0, step=0.3)
    cells = torch.as_tensor(penalty.encode_sensitive(frame))
    rng = torch.Generator().manual_seed(0)
    low = torch.tensor((frame.capital < 1).tolist())
    base = torch.rand(300, generator=rng, dtype=torch.float64)
    scores = torch.where(low, 0.6 * base, base).requires_grad_()
    penalty.absorb(penalty.features(scores, cells).sum(dim=0) / 300)
    weights = penalty.weights(scores, cells)
    hard = constrain != "soft"
    h = 0.8 * torch.sigmoid((scores - 0.5) / 0.2) if hard else scores
    counted = (scores > 0.5).double() if hard else scores
    C = torch.ones(300, dtype=torch.bool)
    if effort is not None:
        C = torch.tensor((frame.hours >= 40).tolist())
    total = torch.zeros(())
    for j, name in enumerate(["f", "m"]):
        G = C & low & torch.tensor((frame.sex == name).tolist())
        gap = h[C].mean() - h[G].mean()
        size = float((counted[C].mean() - counted[G].mean()).detach())
        assert penalty.gaps[j] == pytest.approx(size, abs=1e-12) and size > 0
        assert penalty.prices[j] == pytest.approx(0.3 * float(G.double().mean()) * size)
        total = total + (penalty.prices[j] + 2.0 * size) * gap
    (expected,) = torch.autograd.grad(total, scores)
    assert torch.allclose(weights / 300, expected, atol=1e-12)
    raised = make(effort=effort, constrain=constrain, ema=0.0, lift_only=True, rho=2.0)
    raised.absorb(raised.features(scores, cells).sum(dim=0) / 300)
    assert float(raised.weights(scores, cells).max()) <= 0


def test_prices_follow_the_gaps() -> None:
    penalty = make(ema=0.0, step=0.5, rho=0.0, max_price=0.6, tolerance=0.1)
    wide = torch.tensor([0.5, 0.1, 0.25, 0.5, 0.125, 0.125], dtype=torch.float64)
    penalty.absorb(wide)  # rates .5 / .4 / 1.0 of sizes 1, .25, .25
    assert np.allclose(penalty.gaps, [0.1, -0.5]) and np.allclose(penalty.prices, 0.0, atol=1e-12)
    wide[1] = 0.0
    before = penalty.prices[0]
    for k in range(40):
        penalty.absorb(wide)
        rise = 0.5 / np.sqrt(1 + (k + 1) / 50) * 0.25 * (0.5 - 0.1)
        assert penalty.prices[0] == pytest.approx(min(before + rise, 0.6))
        before = penalty.prices[0]
    assert np.allclose(penalty.prices, [0.6, 0.0])
    both = make(ema=0.0, step=0.5, rho=0.0, one_sided=False, tolerance=0.1)
    both.absorb(wide)
    assert np.allclose(both.prices, [0.05, -0.05])


def test_rates_before_the_first_price_are_a_floor() -> None:
    """Of twenty releases four have no price; the last two of those give the rates to keep."""
    make_it = {"ema": 0.0, "step": 0.5, "rho": 2.0, "tolerance": 0.0, "max_price": 50.0}
    penalty = make(**make_it)
    penalty.observe_steps(20)
    cells = torch.as_tensor(penalty.encode_sensitive(rows_of(50)))
    scores = torch.rand(50, dtype=torch.float64)

    def released(reference, f, m):
        return torch.tensor([reference, 0.2 * f, 0.3 * m, 0.5, 0.1, 0.15], dtype=torch.float64)

    for k in range(4):
        penalty.absorb(released(0.9, *((0.9, 0.9) if k < 2 else (0.3 + 0.2 * (k - 2), 0.5))))
        assert not penalty.weights(scores, cells).any() and not penalty.prices.any()
    assert np.isnan(penalty.base_rates).all()
    penalty.absorb(released(0.2, 0.25, 0.6))  # no gap to price, f has fallen from .4 to .25
    assert np.allclose(penalty.base_rates, [0.4, 0.5]) and not penalty.prices.any()
    price = 0.5 * 0.2 * 0.15 + 2.0 * 0.15
    who = rows_of(50)
    poor = (who.capital < 1).to_numpy()
    expected = np.where(poor & (who.sex == "f").to_numpy(), -price / 0.2, 0.0)
    assert np.allclose(penalty.weights(scores, cells), expected)
    open_ended = make(no_leveling_down=False, **make_it)
    open_ended.observe_steps(20)
    open_ended.absorb(released(0.2, 0.25, 0.6))
    assert not open_ended.weights(scores, cells).any() and np.isnan(open_ended.base_rates).all()
    for bad in (0.0, 1.0):
        with pytest.raises(InvalidParameterError, match="warm_up"):
            make(warm_up=bad)


def test_what_is_kept_up_is_a_rate() -> None:
    """Noise may release a rate above 1: nothing could be lifted there, and no price may try."""
    penalty = make(ema=0.0, tolerance=0.0, warm_up=0.5)
    penalty.observe_steps(4)
    for f, m in ((1.3, -0.2), (1.3, -0.2), (1.0, 0.0), (1.0, 0.0)):
        penalty.absorb(torch.tensor([0.0, 0.2 * f, 0.3 * m, 0.5, 0.1, 0.15]))
    assert penalty.base_rates.tolist() == [1.0, 0.0]
    assert np.abs(penalty._state.lift).max() < 1e-6


@pytest.mark.parametrize(("steps", "first"), [(1, 1), (2, 2), (3, 3), (10, 10), (1000, 991)])
def test_a_long_start_leaves_steps_with_prices(steps, first) -> None:
    penalty = make(warm_up=0.99, tolerance=0.0)
    penalty.observe_steps(steps)
    seen = []
    for _ in range(steps):
        penalty.absorb(torch.tensor([0.5, 0.02, 0.06, 0.5, 0.1, 0.15]))
        seen.append(bool(penalty.prices.any()))
    assert seen == [k >= first for k in range(1, steps + 1)]


def test_the_guard_reads_released_sums_only() -> None:
    """Two runs over different records with equal releases price alike, at every step."""
    first, second = make(), make()
    rng = np.random.default_rng(5)
    for penalty in (first, second):
        penalty.observe_steps(30)
    cells = [torch.as_tensor(first.encode_sensitive(rows_of(40, seed=k))) for k in (0, 1)]
    scores = torch.rand(40, dtype=torch.float64)
    for _ in range(30):
        release = torch.as_tensor(np.abs(rng.normal(0.3, 0.1, first.n_features)))
        for penalty, own in ((first, cells[0]), (second, cells[1])):
            before = str(vars(penalty._state))
            row = penalty.features(scores, own)
            penalty.weights(scores, own)
            assert float(row.norm(dim=1).max()) <= penalty.feature_bound * (1 + 1e-12)
            assert before == str(vars(penalty._state))  # looking at records leaves no trace
            penalty.absorb(release)
        assert torch.equal(first.weights(scores, cells[0]), second.weights(scores, cells[0]))
    assert np.isfinite(first.base_rates).all() and first._state.lift.any()


def test_the_guard_keeps_rates_up_at_no_cost_of_privacy() -> None:
    """One group is far ahead: without a guard its own poor are what the penalty lets fall."""
    rng = np.random.default_rng(1)
    frame = rows_of(6000).replace({"sex": {"x": "m"}})
    low, man = (frame.capital < 1).to_numpy(), (frame.sex == "m").to_numpy()
    X = np.column_stack([rng.normal(-1.5 * low), 2.0 * man + rng.normal(size=6000)])
    y = X.sum(axis=1) + rng.logistic(size=6000) > 1.0
    rates, spent = [], []
    for penalty in (None, make(no_leveling_down=False), make()):
        clf = DPClassifier(
            epsilon=3.0, schema="as_is", fairness_penalty=penalty, ledger=Ledger(),
            random_state=0, noise_random_state=0, epochs=10,
        ).fit(X, y, sensitive_features=None if penalty is None else frame)  # fmt: skip
        p = clf.predict_proba(X)[:, 1]
        rates.append([p[low & g].mean() for g in (~man, man)])
        spent.append((clf.privacy_.epsilon, clf.noise_multiplier_))
    plain, free, guarded = np.array(rates)
    assert free[1] < plain[1] - 0.05  # levelled down
    assert guarded[1] > plain[1] - 0.02 and guarded[0] > plain[0] + 0.05
    assert spent[1] == spent[2]


def test_a_rule_that_is_put_in_later_is_refused_too() -> None:
    frame = rows_of(300)
    learnt = CompositeSES(["capital", "hours"]).fit(frame)
    for rule in (learnt, LOW & learnt, LOW | SESRule.quantile("hours", 0.5).fit(frame)):
        with pytest.raises(AccountingAssumptionError, match="learnt"):
            make(ses=rule)
        penalty, ledger = make(), Ledger()
        penalty.ses = rule
        clf = DPClassifier(schema="as_is", fairness_penalty=penalty, ledger=ledger, epochs=1)
        with pytest.raises(AccountingAssumptionError, match="learnt"):
            clf.fit(np.zeros((300, 1)), np.arange(300) % 2, sensitive_features=frame)
        assert ledger.spent().epsilon == 0.0 and not hasattr(clf, "coef_")


def test_sets_that_noise_could_have_made_are_left_alone() -> None:
    penalty = make()
    penalty.observe_noise(0.01)
    penalty.absorb(torch.tensor([0.5, 0.01, 0.2, 0.5, 0.02, 0.2]))
    assert np.isnan(penalty.gaps[0]) and not np.isnan(penalty.gaps[1])
    cell = torch.as_tensor(penalty.encode_sensitive({"sex": ["f"], "capital": [0], "hours": [1]}))
    reference = torch.as_tensor(
        penalty.encode_sensitive({"sex": ["x"], "capital": [0], "hours": [1]})
    )
    p = torch.full((1,), 0.5)
    assert float(penalty.weights(p, cell)) == float(penalty.weights(p, reference))


def test_cells_are_a_function_of_one_record_and_the_declaration() -> None:
    frame, penalty = rows_of(200), make(effort=FULL)
    whole = penalty.encode_sensitive(frame)
    one_by_one = [int(penalty.encode_sensitive(frame.iloc[[i]])[0]) for i in range(200)]
    assert whole.tolist() == one_by_one
    assert set(whole.tolist()) <= set(range(12))
    undeclared = whole[(frame.sex == "x").to_numpy()]
    assert (undeclared < 4).all()


def test_training_closes_the_gap_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    frame = rows_of(6000)
    low = (frame.capital < 1).to_numpy()
    X = np.column_stack([rng.normal(-1.5 * low), rng.normal(size=6000)])
    y = X.sum(axis=1) + rng.logistic(size=6000) > -0.5
    ledger = Ledger()

    def gap(penalty):
        clf = DPClassifier(
            epsilon=3.0, schema="as_is", fairness_penalty=penalty, ledger=ledger, random_state=0,
            noise_random_state=0,
        ).fit(X, y, sensitive_features=frame)  # fmt: skip
        assert clf.privacy_.epsilon <= 3.0
        h = clf.predict_proba(X)[:, 1]
        return sep_gaps(h, frame.sex, low)["gap"][["f", "m"]].max(), clf

    plain, _ = gap(None)
    fair, clf = gap(make())
    assert plain > 0.1 and fair < 0.3 * plain
    assert clf.plan_.statistic is not None
    assert any("declared" in note for note in clf.privacy_.assumptions)
    assert len(ledger) == 2


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"ses": SESRule.quantile("capital", 0.5)}, AccountingAssumptionError, "DPQuantile"),
        ({"ses": CompositeSES(["capital"])}, AccountingAssumptionError, "learnt"),
        (
            {"ses": LOW & SESRule.quantile("x", 0.5).fit({"x": [1]})},
            AccountingAssumptionError,
            "learnt",
        ),
        (
            {"effort": EffortRule("hours", rank_within=["sex"])},
            AccountingAssumptionError,
            "one record could move others",
        ),
        ({"ses": np.ones(3, dtype=bool)}, InvalidTypeError, "rule"),
        ({"effort": LOW}, InvalidTypeError, "EffortRule"),
        ({"groups": []}, InvalidParameterError, "groups"),
        ({"groups": "fm"}, InvalidTypeError, "list the labels"),
        ({"groups": None}, InvalidTypeError, "list the labels"),
        ({"groups": {"sex": "fm"}}, InvalidTypeError, "list the labels"),
        ({"groups": ["f", "f"]}, InvalidParameterError, "once"),
        ({"ema": 1.0}, InvalidParameterError, "ema"),
        ({"tolerance": -0.1}, InvalidParameterError, "tolerance"),
        ({"temperature": 0.0}, InvalidParameterError, "temperature"),
        ({"constrain": "post"}, InvalidParameterError, "constrain"),
    ],
)
def test_what_has_no_bound_is_refused(changes, error, words) -> None:
    with pytest.raises(error, match=words):
        make(**changes)


def test_bad_columns_void_the_charge() -> None:
    frame, X, y = rows_of(300), np.zeros((300, 1)), np.arange(300) % 2
    for bad, error in (
        (frame.drop(columns="capital"), PrivfairError),
        (frame.assign(sex=[None] + ["f"] * 299), MissingSensitiveFeatureError),
        (frame[["sex"]].to_numpy(), InvalidTypeError),
    ):
        ledger = Ledger()
        clf = DPClassifier(schema="as_is", fairness_penalty=make(), ledger=ledger, epochs=1)
        with pytest.raises(error):
            clf.fit(X, y, sensitive_features=bad)
        assert ledger.spent().epsilon == 0.0


def test_the_value_of_a_batch_and_copies() -> None:
    penalty, frame = make(tolerance=0.05), rows_of(200)
    cells = torch.as_tensor(penalty.encode_sensitive(frame))
    scores = torch.rand(200, dtype=torch.float64, requires_grad=True)
    table = sep_gaps(scores.detach().numpy(), frame.sex, (frame.capital < 1).to_numpy(),
                     min_group=1, groups=["f", "m"])  # fmt: skip
    value = penalty(scores, cells)
    expected = (table["gap"] - 0.05).clip(lower=0).sum()
    assert float(value.detach()) == pytest.approx(expected, abs=1e-12)
    assert float(penalty.weights(scores, cells).abs().max()) == 0.0
    other = copy.deepcopy(penalty)
    other.absorb(torch.linspace(1, 0, other.n_features))
    assert penalty._state.push is None and other._state.push is not None
