"""Values, statuses and invariants of the metrics."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import privfair.fairness.metrics as m
from privfair.core import Estimate, Metric
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    SensitiveFeatureError,
    SingleGroupError,
)

RATES = [
    "selection_rate", "base_rate", "accuracy", "true_positive_rate", "false_positive_rate",
    "false_negative_rate", "true_negative_rate", "positive_predictive_value",
    "negative_predictive_value",
]  # fmt: skip
GAPS = [
    "demographic_parity_difference", "equalized_odds_difference",
    "equalized_odds_difference_mean", "equal_opportunity_difference",
    "predictive_parity_difference", "accuracy_difference", "treatment_equality_difference",
]  # fmt: skip
RATIOS = ["demographic_parity_ratio", "equalized_odds_ratio", "equal_opportunity_ratio"]
TABLE_METRICS = [*RATES, "balanced_accuracy", *GAPS, *RATIOS]
SCORES = ["auc", "brier_score", "log_loss", "expected_calibration_error", "calibration_gap"]

rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abc")),
    min_size=4, max_size=80,
)  # fmt: skip
cells = st.lists(st.tuples(*[st.integers(0, 30)] * 4), min_size=2, max_size=5)


def split(data):
    return tuple(np.array(c) for c in zip(*data, strict=True))


def same(a, b, tol=1e-12):
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, abs=tol)


def of_cells(counts):
    return m.GroupTable.from_counts(
        np.array(counts).reshape(-1, 2, 2), groups=[f"g{i}" for i in range(len(counts))]
    )


# --- contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TABLE_METRICS, *SCORES])
def test_metrics_are_constants(name):
    metric = getattr(m, name)
    assert isinstance(metric, Metric)
    assert metric.name == metric.__name__ == name
    assert pickle.loads(pickle.dumps(metric)) is metric
    assert copy.deepcopy(metric) is metric
    assert metric.definition
    assert metric.references
    assert metric.direction in {"lower", "higher", "none"}
    assert metric.range[0] < metric.range[1]


def test_metrics_are_registered():
    from privfair.core.registry import load

    assert load("metrics", "equalized_odds_difference") is m.equalized_odds_difference


@pytest.mark.parametrize("name", TABLE_METRICS)
def test_estimate_has_the_value_of_the_call(name):
    rng = np.random.default_rng(0)
    y, d, s = rng.integers(0, 2, 400), rng.integers(0, 2, 400), rng.choice(list("ab"), 400)
    metric = getattr(m, name)
    e = metric.estimate(y, d, sensitive_features=s, n_resamples=200, random_state=0)
    assert isinstance(e, Estimate)
    assert e.name == name
    assert e.value == metric(y, d, sensitive_features=s)
    assert e.low <= e.value <= e.high
    assert e.confidence == 0.95
    assert e.method
    assert list(e.by_group.index) == ["a", "b"]
    json.dumps(e.to_dict(), allow_nan=False)
    if name in GAPS or name in RATIOS:
        assert e.null is not None
        assert 0 < e.null.p_value <= 1
        assert e.details["n_resamples"] == 200
        table = m.GroupTable.from_arrays(y, d, sensitive_features=s)
        again = metric.from_table(table, n_resamples=200, random_state=0)
        assert again.to_dict() == e.to_dict()


def test_a_result_does_not_depend_on_the_other_metrics():
    rng = np.random.default_rng(0)
    y, d, s = rng.integers(0, 2, 400), rng.integers(0, 2, 400), rng.choice(list("abc"), 400)
    options = {"sensitive_features": s, "n_resamples": 100, "random_state": 3}
    names = ["equalized_odds_difference", "selection_rate", "demographic_parity_difference"]
    together = m.estimate_all([getattr(m, n) for n in names], y, d, **options)
    backwards = m.estimate_all([getattr(m, n) for n in names[::-1]], y, d, **options)[::-1]
    alone = [getattr(m, n).estimate(y, d, **options) for n in names]
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert a.to_dict() == b.to_dict() == c.to_dict()


def test_misspelt_keywords_are_refused():
    with pytest.raises(InvalidParameterError, match="sample_weight"):
        m.selection_rate([1, 0], [1, 0], sample_weights=[1, 2])
    with pytest.raises(InvalidParameterError, match="min_count"):
        m.selection_rate.estimate([1, 0], [1, 0], min_counts=3)
    with pytest.raises(InvalidTypeError, match="Metric"):
        m.estimate_all([sk.accuracy_score], [1, 0], [1, 0])
    with pytest.raises(InvalidParameterError):
        m.selection_rate.estimate([1, 0], [1, 0], confidence=1.0)
    with pytest.raises(InvalidParameterError):
        m.selection_rate.estimate([1, 0], [1, 0], n_resamples=0)


def test_they_work_as_scorers_in_cross_validation():
    from sklearn.dummy import DummyClassifier
    from sklearn.model_selection import cross_val_score

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 2)), rng.integers(0, 2, 120)
    s = rng.choice(list("ab"), 120)
    rate = cross_val_score(
        DummyClassifier(strategy="prior"), x, y, scoring=sk.make_scorer(m.selection_rate), cv=3
    )
    assert set(rate) <= {0.0, 1.0}
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = sk.make_scorer(m.demographic_parity_difference, greater_is_better=False)
        scorer = scorer.set_score_request(sensitive_features=True)
        model = DummyClassifier(strategy="stratified", random_state=0)
        found = cross_val_score(
            model, x, y, scoring=scorer, cv=3, params={"sensitive_features": s}
        )
        assert (found <= 0).all()
        assert (found < 0).any()
    prob = sk.make_scorer(m.auc, response_method="predict_proba")
    assert prob(DummyClassifier().fit(x, y), x, y) == 0.5


# --- values ---------------------------------------------------------------------------------


@given(rows)
def test_rates_agree_with_scikit_learn(data):
    y, d, _ = split(data)
    assert m.accuracy(y, d) == pytest.approx(sk.accuracy_score(y, d))
    if (y == 1).any():
        assert m.true_positive_rate(y, d) == pytest.approx(sk.recall_score(y, d))
    if (d == 1).any():
        assert m.positive_predictive_value(y, d) == pytest.approx(sk.precision_score(y, d))
    if (y == 0).any():
        assert m.true_negative_rate(y, d) == pytest.approx(sk.recall_score(y, d, pos_label=0))
    if len(set(y)) == 2:
        assert m.balanced_accuracy(y, d) == pytest.approx(sk.balanced_accuracy_score(y, d))
    assert m.base_rate(y, d) == y.mean()
    assert m.selection_rate(None, d) == d.mean()


def test_treatment_equality_is_the_gap_of_fn_over_fp():
    table = of_cells([(5, 4, 2, 9), (5, 2, 6, 9)])  # FN/FP: 2/4 and 6/2
    e = m.treatment_equality_difference.from_table(table, n_resamples=50)
    assert e.value == pytest.approx(2.5)
    assert e.attained_by == ("g1", "g0")
    none = m.treatment_equality_difference.from_table(
        of_cells([(5, 0, 2, 9), (5, 2, 6, 9)]), n_resamples=50
    )
    assert math.isnan(none.value)
    assert "no false positives" in none.reason


def test_undefined_is_never_zero_or_one():
    y, d = np.array([1, 1, 1, 1]), np.array([1, 0, 1, 1])
    for name, why in (("false_positive_rate", "no negatives"), ("true_negative_rate", "no neg")):
        e = getattr(m, name).estimate(y, d)
        assert math.isnan(e.value)
        assert math.isnan(e.low)
        assert e.status == "not_estimable"
        assert why in e.reason
    none = np.zeros(4, dtype=int)
    assert math.isnan(m.positive_predictive_value(y, none))
    assert math.isnan(m.demographic_parity_ratio(y, none, sensitive_features=list("aabb")))
    assert m.demographic_parity_difference(y, none, sensitive_features=list("aabb")) == 0.0
    assert math.isnan(m.balanced_accuracy(y, d))


def test_a_gap_needs_two_groups_with_rows():
    y, d = [1, 0, 1], [1, 0, 1]
    one = m.GroupTable.from_arrays(y, d, sensitive_features=list("aaa"), groups=["a", "b"])
    e = m.demographic_parity_difference.from_table(one, n_resamples=20)
    assert math.isnan(e.value)  # an empty group is not a group without disparity
    assert e.status == "not_estimable"
    assert "b (no rows)" in e.reason
    assert e.details["groups_covered"] == 1
    two = one.merge(m.GroupTable.from_arrays([0, 1], [0, 0], sensitive_features=list("cc")))
    e = m.demographic_parity_difference.from_table(two, n_resamples=20)
    assert e.value == pytest.approx(2 / 3)
    assert e.attained_by == ("a", "c")
    assert e.details["groups_covered"] == 2


def test_a_single_group_has_no_disparity_as_a_value_and_no_estimate():
    y, d = [1, 0, 1], [1, 0, 0]
    assert m.demographic_parity_difference(y, d, sensitive_features=["a"] * 3) == 0.0
    assert m.demographic_parity_ratio(y, d, sensitive_features=["a"] * 3) == 1.0
    with pytest.raises(SingleGroupError, match="at least two"):
        m.demographic_parity_difference.estimate(y, d, sensitive_features=["a"] * 3)
    with pytest.raises(SensitiveFeatureError):
        m.equalized_odds_difference.estimate(y, d)
    with pytest.raises(LabelError, match="y_true is None"):
        m.equalized_odds_difference(None, d, sensitive_features=["a", "a", "b"])


def test_small_groups_are_flagged_and_never_dropped():
    counts = [(300, 200, 100, 400), (12, 2, 1, 3), (0, 0, 4, 30)]
    e = m.equal_opportunity_difference.from_table(of_cells(counts), n_resamples=100)
    assert e.status == "small_sample"
    assert "g1 (4 positives < 10)" in e.reason
    assert "g2" not in e.reason.split("small:")[1]
    assert e.value == pytest.approx(max(0.8, 30 / 34, 0.75) - 0.75)
    assert e.by_group["status"].tolist() == ["ok", "small_sample", "ok"]
    assert e.details["adequate_groups"]["groups"] == ["g0", "g2"]
    strict = m.equal_opportunity_difference.from_table(
        of_cells(counts), n_resamples=100, min_pos=4, min_count=0
    )
    assert strict.status == "ok"
    fpr = m.false_positive_rate.from_table(of_cells(counts))
    assert fpr.by_group["status"].tolist() == ["ok", "small_sample", "not_estimable"]
    assert math.isnan(fpr.by_group["value"].iloc[2])


def test_rates_at_the_edge_say_so():
    e = m.selection_rate.from_table(of_cells([(50, 0, 50, 0), (0, 50, 0, 50)]))
    assert e.by_group["status"].tolist() == ["boundary", "boundary"]
    assert e.by_group["high"].iloc[0] > 0.01  # not certainty
    assert e.by_group["low"].iloc[1] < 0.99


def test_multi_class_decisions_need_a_class_or_are_not_applicable():
    y, d, s = [0, 1, 2, 2, 1, 0], [0, 2, 2, 1, 1, 0], list("aaabbb")
    found = m.estimate_all(
        [m.demographic_parity_difference, m.accuracy, m.accuracy_difference], y, d,
        sensitive_features=s, n_resamples=20,
    )  # fmt: skip
    assert [e.status for e in found][0] == "not_applicable"
    assert "pos_label" in found[0].reason
    assert found[1].value == pytest.approx(4 / 6)
    assert found[2].value == pytest.approx(0.0)
    with pytest.raises(LabelError, match="pos_label"):
        m.selection_rate(y, d)
    assert m.selection_rate(y, d, pos_label=2) == pytest.approx(2 / 6)
    assert m.auc.estimate(y, np.linspace(0, 1, 6)).status == "not_applicable"


# --- invariants -----------------------------------------------------------------------------


@settings(max_examples=60)
@given(rows, st.randoms(use_true_random=False))
def test_order_and_names_of_groups_do_not_matter(data, random):
    y, d, s = split(data)
    order = list(range(len(y)))
    random.shuffle(order)
    renamed = np.array([{"a": "z", "b": "q", "c": "1"}[v] for v in s])
    for name in TABLE_METRICS:
        metric = getattr(m, name)
        value = metric(y, d, sensitive_features=s)
        assert same(metric(y[order], d[order], sensitive_features=s[order]), value)
        assert same(metric(y, d, sensitive_features=renamed), value)


@settings(max_examples=60)
@given(rows, st.integers(2, 4))
def test_duplicating_the_data_changes_no_value(data, k):
    y, d, s = split(data)
    for name in TABLE_METRICS:
        metric = getattr(m, name)
        again = metric(np.tile(y, k), np.tile(d, k), sensitive_features=np.tile(s, k))
        assert same(again, metric(y, d, sensitive_features=s))


@settings(max_examples=60)
@given(rows, st.data())
def test_integer_weights_are_repetitions_and_may_be_split(data, draw):
    y, d, s = split(data)
    w = np.array(draw.draw(st.lists(st.integers(1, 4), min_size=len(y), max_size=len(y))))
    for name in TABLE_METRICS:
        metric = getattr(m, name)
        weighted = metric(y, d, sensitive_features=s, sample_weight=w)
        repeated = metric(np.repeat(y, w), np.repeat(d, w), sensitive_features=np.repeat(s, w))
        assert same(weighted, repeated, 1e-9), name
        halves = metric(
            np.tile(y, 2), np.tile(d, 2), sensitive_features=np.tile(s, 2),
            sample_weight=np.concatenate([0.25 * w, 0.75 * w]),
        )  # fmt: skip
        assert same(weighted, halves, 1e-9), name


@settings(max_examples=60)
@given(rows)
def test_overall_rates_are_weighted_means_of_groups(data):
    y, d, s = split(data)
    for name in RATES:
        e = getattr(m, name).estimate(y, d, sensitive_features=s)
        if math.isnan(e.value):
            continue
        some = e.by_group[e.by_group["n"] > 0]
        mean = (some["value"] * some["n"]).sum() / some["n"].sum()
        assert e.value == pytest.approx(mean, abs=1e-12)


@settings(max_examples=20)
@given(cells, st.sampled_from([(0.8, 0.95), (0.95, 0.99)]))
def test_intervals_hold_the_value_lie_in_range_and_nest(counts, levels):
    table = of_cells(counts)
    for name in [*GAPS, *RATIOS, "balanced_accuracy", "selection_rate"]:
        metric = getattr(m, name)
        inner, outer = (
            metric.from_table(table, n_resamples=20, random_state=0, confidence=c) for c in levels
        )
        if math.isnan(inner.value):
            assert inner.reason
            continue
        assert metric.range[0] <= outer.low <= inner.low + 1e-9
        assert inner.low <= inner.value <= inner.high
        assert inner.high <= outer.high + 1e-9
        assert outer.high <= metric.range[1] + 1e-12


@settings(max_examples=40)
@given(cells)
def test_ratios_and_gaps_tell_one_story(counts):
    table = of_cells(counts)
    gap = m.demographic_parity_difference.from_table(table, n_resamples=10)
    ratio = m.demographic_parity_ratio.from_table(table, n_resamples=10)
    assume(not math.isnan(ratio.value))
    assert 0 <= ratio.value <= 1
    assert (gap.value == 0) == (ratio.value == 1)
    assert gap.attained_by == ratio.attained_by


def test_gaps_shrink_like_one_over_root_n():
    small = np.array([(300, 200, 100, 400), (300, 150, 200, 350), (500, 100, 100, 300)])
    for name in ("demographic_parity_difference", "equal_opportunity_difference"):
        metric = getattr(m, name)
        one = metric.from_table(of_cells(small), n_resamples=10)
        hundred = metric.from_table(of_cells(small * 100), n_resamples=10)
        ratio = (one.high - one.low) / (hundred.high - hundred.low)
        assert ratio == pytest.approx(10, rel=0.05)


def test_by_group_shrinks_and_adjusts():
    e = m.selection_rate.from_table(of_cells([(20, 20, 30, 30), (1, 4, 0, 5), (50, 9, 50, 9)]))
    frame = e.by_group
    assert (frame["simultaneous_low"] <= frame["low"]).all()
    assert (frame["simultaneous_high"] >= frame["high"]).all()
    small = frame.loc["g1"]
    assert abs(small["shrunken"] - e.value) < abs(small["value"] - e.value)


# --- null references ------------------------------------------------------------------------


@pytest.mark.golden
def test_null_reference_of_six_compas_groups():
    """Groups of 3696, 32, 2454, 637, 18, 377 rows at selection rate 0.4598: 0.152 and 0.299;
    the two large ones alone 0.0103 and 0.0255 (200,000 simulated binomial tables)."""
    sizes = np.array([3696, 32, 2454, 637, 18, 377])
    selected = np.round(0.4598 * sizes).astype(int)
    table = of_cells([(n - k, k, 0, 0) for n, k in zip(sizes, selected, strict=True)])
    e = m.demographic_parity_difference.from_table(table, n_resamples=20_000, random_state=0)
    assert e.null.expected == pytest.approx(0.152, abs=0.003)
    assert e.null.q95 == pytest.approx(0.299, abs=0.01)
    two = m.GroupTable.from_counts(table.counts[[0, 2]], groups=["a", "b"])
    e = m.demographic_parity_difference.from_table(two, n_resamples=20_000, random_state=0)
    assert e.null.expected == pytest.approx(0.0103, abs=0.0005)
    assert e.null.q95 == pytest.approx(0.0255, abs=0.001)


def test_null_keeps_what_it_conditions_on():
    """With every decision equal to the label, only unequal base rates separate the groups:
    equal opportunity has no disparity to explain, demographic parity has."""
    table = of_cells([(60, 0, 0, 40), (20, 0, 0, 80)])
    opportunity = m.equal_opportunity_difference.from_table(table, n_resamples=200)
    assert (opportunity.null.expected, opportunity.null.p_value) == (0.0, 1.0)
    parity = m.demographic_parity_difference.from_table(table, n_resamples=200)
    assert parity.null.p_value == pytest.approx(1 / 201)


@pytest.mark.statistical
@pytest.mark.parametrize("weighted", [False, True])
def test_null_p_values_are_valid(weighted):
    """400 data sets without disparity: P(p <= 0.1) <= 0.1; at most 74 seen with probability
    1 - 1e-6. Power: permuting labels across strata with unequal base rates rejects far more."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        s = rng.choice(list("abc"), 120, p=[0.6, 0.3, 0.1])
        y = rng.random(120) < np.where(s == "a", 0.7, 0.3)  # unequal base rates
        d = rng.random(120) < np.where(y, 0.8, 0.3)  # equal error rates
        w = rng.uniform(0.5, 2.0, 120) if weighted else None
        e = m.equalized_odds_difference.estimate(
            y, d, sensitive_features=s, sample_weight=w, n_resamples=99, random_state=rng
        )
        hits += e.null is not None and e.null.p_value <= 0.1
    assert hits <= 74


# --- COMPAS ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compas(real_data_dir):
    path = real_data_dir / "compas" / "compas-scores-two-years.csv"
    frame = pd.read_csv(path, usecols=["two_year_recid", "decile_score", "race", "sex"])
    return frame.assign(high=(frame["decile_score"] > 4).astype(int))


COMPAS_TABLE = {  # n, TN, FP, FN, TP of all 7,214 rows at score > 4
    "African-American": (3696, 990, 805, 532, 1369),
    "Asian": (32, 21, 2, 3, 6),
    "Caucasian": (2454, 1139, 349, 461, 505),
    "Hispanic": (637, 318, 87, 129, 103),
    "Native American": (18, 5, 3, 1, 9),
    "Other": (377, 208, 36, 90, 43),
}


@pytest.mark.golden
def test_compas_counts(compas):
    table = m.GroupTable.from_arrays(
        compas["two_year_recid"], compas["high"], sensitive_features=compas["race"]
    )
    frame = table.to_frame()
    for race, expected in COMPAS_TABLE.items():
        assert tuple(frame.loc[race, ["n", "tn", "fp", "fn", "tp"]]) == expected
    crossed = m.GroupTable.from_arrays(
        compas["two_year_recid"], compas["high"], sensitive_features=compas[["race", "sex"]]
    )
    assert crossed.n == 7214
    assert crossed.n_groups == 12


@pytest.mark.golden
def test_compas_canonical_metrics(compas):
    two = compas[compas["race"].isin(["African-American", "Caucasian"])]
    values = {
        "demographic_parity_difference": 0.240200,
        "demographic_parity_ratio": 0.591638,
        "equalized_odds_difference": 0.213925,
        "equalized_odds_difference_mean": 0.205649,
        "equalized_odds_ratio": 0.522987,
        "equal_opportunity_difference": 0.197373,
    }
    found = m.estimate_all(
        [getattr(m, name) for name in values], two["two_year_recid"], two["high"],
        sensitive_features=two["race"], n_resamples=1000, random_state=0,
    )  # fmt: skip
    for e, (name, expected) in zip(found, values.items(), strict=True):
        assert e.value == pytest.approx(expected, abs=1e-6), name
    fpr = m.false_positive_rate.estimate(
        two["two_year_recid"], two["high"], sensitive_features=two["race"]
    ).by_group
    assert fpr.loc["African-American", "low"] == pytest.approx(0.425595, abs=1e-6)
    assert fpr.loc["Caucasian", "high"] == pytest.approx(0.256738, abs=1e-6)
    # the FPR gap alone has Newcombe's interval; its bootstrap percentiles are near it
    odds = found[2]
    assert odds.details["bootstrap_percentile"] == pytest.approx([0.183, 0.245], abs=0.008)


@pytest.mark.golden
def test_compas_six_races(compas):
    found = m.estimate_all(
        [m.demographic_parity_difference, m.equalized_odds_difference],
        compas["two_year_recid"], compas["high"], sensitive_features=compas["race"],
        n_resamples=4000, random_state=0,
    )  # fmt: skip
    assert found[0].value == pytest.approx(0.457118, abs=1e-6)
    assert found[1].value == pytest.approx(0.576692, abs=1e-6)
    assert found[0].attained_by == ("Native American", "Other")
    assert all(e.status == "small_sample" for e in found)
    assert found[0].null.expected == pytest.approx(0.152, abs=0.005)


@pytest.mark.golden
def test_compas_auc(compas):
    e = m.auc.estimate(compas["two_year_recid"], compas["decile_score"], n_resamples=500,
                       random_state=0)  # fmt: skip
    assert e.value == pytest.approx(0.70217, abs=1e-5)
    assert e.low < 0.70217 < e.high
    assert e.high - e.low < 0.03
