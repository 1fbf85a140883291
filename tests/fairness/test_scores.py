"""Score metrics: agreement with scikit-learn, draws, calibration, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import privfair.fairness.metrics as m
from privfair.core.exceptions import (
    DataError,
    InvalidTypeError,
    LabelError,
    ProbabilityRangeError,
    SensitiveFeatureError,
    SingleGroupError,
)
from privfair.fairness.metrics._inputs import Groups
from privfair.fairness.metrics._score_table import ScoreTable
from privfair.fairness.metrics._scores import auc_score_interval

rows = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]),
        st.sampled_from("abc"),
        st.integers(1, 4),
    ),
    min_size=4,
    max_size=60,
)
ALL = ["auc", "brier_score", "log_loss", "expected_calibration_error", "calibration_gap"]


def split(data):
    return tuple(np.array(c) for c in zip(*data, strict=True))


def simulated(n=1500, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    return (rng.random(n) < score).astype(int), score, rng.choice(list("ab"), n)


@settings(max_examples=80)
@given(rows, st.booleans())
def test_values_agree_with_scikit_learn_overall_and_by_group(data, weighted):
    y, p, s, w = split(data)
    weight = w.astype(float) if weighted else None
    frames = {
        name: getattr(m, name)
        .estimate(y, p, sensitive_features=s, sample_weight=weight, n_resamples=2)
        .by_group["value"]
        for name in ("auc", "brier_score", "log_loss")
    }
    for group in ["all", *sorted(set(s))]:
        k = np.ones(len(y), dtype=bool) if group == "all" else s == group
        part = None if weight is None else weight[k]

        def ours(name, group=group, k=k, part=part):
            if group != "all":
                return frames[name][group]
            return getattr(m, name)(y[k], p[k], sample_weight=part)

        assert ours("brier_score") == pytest.approx(
            sk.brier_score_loss(y[k], p[k], sample_weight=part, pos_label=1), abs=1e-12
        )
        assert ours("log_loss") == pytest.approx(
            sk.log_loss(y[k], p[k], sample_weight=part, labels=[0, 1]), rel=1e-12
        )
        if len(set(y[k])) == 2:
            assert ours("auc") == pytest.approx(
                sk.roc_auc_score(y[k], p[k], sample_weight=part), abs=1e-12
            )
        else:
            assert math.isnan(ours("auc"))


@settings(max_examples=60)
@given(rows)
def test_calibration_agrees_with_a_loop(data):
    y, p, s, _ = split(data)
    bins = np.minimum((p * 10).astype(int), 9)
    error = sum(abs((y[bins == b] - p[bins == b]).sum()) for b in range(10)) / len(y)
    assert m.expected_calibration_error(y, p) == pytest.approx(error, abs=1e-12)
    total = mass = 0.0
    for b in range(10):
        rates = [y[(bins == b) & (s == g)].mean() for g in set(s[bins == b])]
        if len(rates) >= 2:
            total += (bins == b).sum() * (max(rates) - min(rates))
            mass += (bins == b).sum()
    gap = m.calibration_gap(y, p, sensitive_features=s)
    if len(set(s)) == 1:
        assert gap == 0.0
    elif mass == 0:
        assert math.isnan(gap)
    else:
        assert gap == pytest.approx(total / mass, abs=1e-12)


@settings(max_examples=40)
@given(rows, st.randoms(use_true_random=False))
def test_order_and_integer_weights(data, random):
    y, p, s, w = split(data)
    order = list(range(len(y)))
    random.shuffle(order)
    for name in ALL:
        metric = getattr(m, name)
        value = metric(y, p, sensitive_features=s)
        again = metric(y[order], p[order], sensitive_features=s[order])
        weighted = metric(y, p, sensitive_features=s, sample_weight=w)
        repeated = metric(np.repeat(y, w), np.repeat(p, w), sensitive_features=np.repeat(s, w))
        for one, two in ((value, again), (weighted, repeated)):
            assert (math.isnan(one) and math.isnan(two)) or one == pytest.approx(two, abs=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_estimates_are_complete_and_hold_the_value(weighted):
    y, p, s = simulated()
    w = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else None
    found = m.estimate_all(
        [getattr(m, n) for n in ALL], y, (p > 0.5).astype(int), y_score=p, sensitive_features=s,
        sample_weight=w, n_resamples=300, random_state=0,
    )  # fmt: skip
    for name, e in zip(ALL, found, strict=True):
        assert e.value == pytest.approx(
            getattr(m, name)(y, p, sensitive_features=s, sample_weight=w)
        )
        assert e.low <= e.value <= e.high, name
        assert e.high - e.low < 0.2
        assert list(e.by_group.index) == ["a", "b"]
        if name != "calibration_gap":
            assert (e.by_group["low"] <= e.by_group["value"]).all()
            assert (e.by_group["value"] <= e.by_group["high"]).all()
        alone = getattr(m, name).estimate(
            y, p, sensitive_features=s, sample_weight=w, n_resamples=300, random_state=0
        )
        assert alone.to_dict() == e.to_dict()


def test_calibration_says_how_it_binned():
    y, p, s = simulated()
    e = m.expected_calibration_error.estimate(
        y, p, sensitive_features=s, n_resamples=200, random_state=0, n_bins=5
    )
    assert e.details["binning"] == "5 bins of equal width over [0, 1]"
    assert len(e.details["bins"]) == 10
    assert sum(record["n"] for record in e.details["bins"]) == len(y)
    assert e.null.p_value > 0.001  # labels were drawn from the scores
    assert 0 < e.null.expected < 0.05
    wrong = m.expected_calibration_error.estimate(y, p / 2, n_resamples=200, random_state=0)
    assert wrong.null.p_value == pytest.approx(1 / 201)
    assert wrong.low > wrong.null.q95


def test_calibration_gap_reaches_zero_without_a_gap_and_not_with_one():
    y, p, s = simulated(3000)
    same = m.calibration_gap.estimate(y, p, sensitive_features=s, n_resamples=300, random_state=0)
    assert same.value > 0.02  # never zero: the mean of largest differences
    assert same.low == 0.0
    assert same.null.expected == pytest.approx(same.value, abs=0.03)
    shifted = np.where(s == "a", np.clip(p + 0.25, 0, 1), p)
    apart = m.calibration_gap.estimate(
        y, shifted, sensitive_features=s, n_resamples=300, random_state=0
    )
    assert apart.low > 0.1
    assert apart.null.p_value == pytest.approx(1 / 301)
    assert 0 < apart.details["share_compared"] <= 1


def test_bins_with_one_group_compare_nothing():
    y, p, s = [1, 0, 1, 0], [0.05, 0.05, 0.95, 0.95], ["a", "a", "b", "b"]
    e = m.calibration_gap.estimate(y, p, sensitive_features=s, n_resamples=20)
    assert math.isnan(e.value)
    assert e.status == "not_estimable"
    assert math.isnan(m.calibration_gap(y, p, sensitive_features=s))


# --- draws ----------------------------------------------------------------------------------


@pytest.mark.statistical
def test_bootstrap_of_the_auc_is_that_of_rows():
    """Mean and standard deviation over 4,000 draws against explicit row resampling.

    Within 5.5 standard errors (alpha < 1e-6). Power: resampling without replacement has
    standard deviation 0; forgetting ties moves the mean by 0.02, twenty standard errors.
    """
    rng = np.random.default_rng(0)
    p = rng.integers(0, 8, 60) / 8
    y = (rng.random(60) < p).astype(int)
    table = ScoreTable.make(
        Groups(("g",), (("all",),), np.zeros(60, dtype=np.int64)), p, y == 1, None, 10
    )
    ours = np.concatenate([table.auc(mass)[:, -1] for mass in table.draws(4000, rng)])
    theirs = []
    while len(theirs) < 4000:
        pick = rng.integers(0, 60, 60)
        theirs.append(sk.roc_auc_score(y[pick], p[pick]))
    theirs = np.array(theirs)
    spread = theirs.std()
    assert abs(ours.mean() - theirs.mean()) < 5.5 * spread * math.sqrt(2 / 4000)
    assert abs(ours.std() / spread - 1) < 5.5 * math.sqrt(1 / 4000)


def test_perfect_ranking_keeps_an_interval():
    e = m.auc.estimate([0] * 12 + [1] * 12, list(range(24)), n_resamples=50)
    assert e.value == 1.0
    assert e.status == "small_sample"
    assert e.high == 1.0
    assert 0.7 < e.low < 0.97  # 24 perfect rows are not certainty
    large = m.auc.estimate([0] * 40 + [1] * 40, list(range(80)), n_resamples=50)
    assert large.status == "boundary"
    assert large.method == "newcombe auc"


def test_newcombe_auc_limits_solve_their_equation():
    """|theta - value| = z sqrt(V(theta)), with Hanley and McNeil's variance."""
    for value, pos, neg in ((0.8, 10, 20), (1.0, 10, 20), (0.5, 200, 50)):
        i = auc_score_interval(value, pos, neg, 0.95)
        for theta in (i.low, i.high):
            if theta in (0.0, 1.0):
                continue
            q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
            size = (pos + neg) / 2
            v = (
                theta * (1 - theta) + (size - 1) * (q1 - theta**2) + (size - 1) * (q2 - theta**2)
            ) / (pos * neg)
            assert abs(theta - value) == pytest.approx(1.959964 * math.sqrt(v), rel=0.02)


# --- bad input ------------------------------------------------------------------------------


def test_bad_scores_are_refused_before_anything_is_computed():
    y = [0, 1, 1, 0]
    for name in ("brier_score", "log_loss", "expected_calibration_error"):
        for scores in ([0.1, 1.2, 0.3, 0.4], [-0.1, 0.2, 0.3, 0.4]):
            with pytest.raises(ProbabilityRangeError, match=r"\[0, 1\]"):
                getattr(m, name)(y, scores)
    assert m.auc(y, [1, 9, 8, 2]) == 1.0  # an order is enough
    with pytest.raises(ProbabilityRangeError):
        m.estimate_all([m.auc, m.brier_score], y, y, y_score=[1, 9, 8, 2])
    with pytest.raises(DataError, match="finite"):
        m.auc(y, [0.1, math.nan, 0.2, 0.3])
    with pytest.raises(InvalidTypeError):
        m.auc(y, ["a", "b", "c", "d"])
    with pytest.raises(LabelError, match="y_score"):
        m.estimate_all([m.auc], y, y)
    with pytest.raises(LabelError):
        m.auc(None, [0.1, 0.2])
    with pytest.raises(SensitiveFeatureError):
        m.calibration_gap(y, [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(SingleGroupError):
        m.calibration_gap.estimate(y, [0.1, 0.2, 0.3, 0.4], sensitive_features=["a"] * 4)
    with pytest.raises(TypeError, match="scores"):
        m.auc.from_table(m.GroupTable.from_counts([[[1, 2], [3, 4]]], groups=["a"]))


def test_one_class_in_a_group_has_no_auc():
    e = m.auc.estimate([1, 1, 0, 1], [0.3, 0.4, 0.1, 0.9], sensitive_features=list("aabb"),
                       n_resamples=20)  # fmt: skip
    assert math.isnan(e.by_group.loc["a", "value"])
    assert e.by_group.loc["a", "status"] == "not_estimable"
    assert e.by_group.loc["a", "reason"] == "no negatives"


def test_rows_of_undeclared_groups_are_excluded_and_listed():
    e = m.auc.estimate([1, 0, 1, 0], [0.9, 0.1, 0.2, 0.8], sensitive_features=list("aazz"),
                       groups=["a", "b"], n_resamples=20)  # fmt: skip
    assert e.value == 1.0
    assert e.details["excluded"] == [{"reason": "not among the declared groups", "n": 2}]
    assert e.by_group.loc["b", "reason"] == "no rows"
