"""Agreement with fairlearn where both define a value, and the list of where we differ."""

from __future__ import annotations

import math
import warnings

import fairlearn.metrics as fl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privfair.fairness.metrics as m
from privfair.core.exceptions import LabelError

PAIRS = {
    "demographic_parity_difference": fl.demographic_parity_difference,
    "demographic_parity_ratio": fl.demographic_parity_ratio,
    "equalized_odds_difference": fl.equalized_odds_difference,
    "equalized_odds_ratio": fl.equalized_odds_ratio,
    "equal_opportunity_difference": fl.equal_opportunity_difference,
    "equal_opportunity_ratio": fl.equal_opportunity_ratio,
}
RATE_PAIRS = {
    "selection_rate": fl.selection_rate,
    "true_positive_rate": fl.true_positive_rate,
    "false_positive_rate": fl.false_positive_rate,
    "true_negative_rate": fl.true_negative_rate,
    "false_negative_rate": fl.false_negative_rate,
}


def expand(counts, weights=None):
    """Turn a (group, label, decision) table into rows."""
    rows = [
        (y, d, f"g{g}")
        for g, block in enumerate(counts)
        for y in (0, 1)
        for d in (0, 1)
        for _ in range(block[2 * y + d])
    ]
    y, d, s = (np.array(c) for c in zip(*rows, strict=True))
    return y, d, s


# every denominator filled, so that both libraries define every rate
filled = st.lists(st.tuples(*[st.integers(1, 9)] * 4), min_size=2, max_size=5)


@settings(max_examples=60)
@given(filled, st.integers(0, 2**31 - 1), st.booleans())
def test_values_agree_with_fairlearn(counts, seed, weighted):
    y, d, s = expand(counts)
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.1, 3.0, len(y)) if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fairlearn's own pandas deprecations
        for name, theirs in PAIRS.items():
            expected = theirs(y, d, sensitive_features=s, sample_weight=w)
            ours = getattr(m, name)(y, d, sensitive_features=s, sample_weight=w)
            assert ours == pytest.approx(expected, abs=1e-12), name
        mean = fl.equalized_odds_difference(
            y, d, sensitive_features=s, sample_weight=w, agg="mean"
        )
        ours = m.equalized_odds_difference_mean(y, d, sensitive_features=s, sample_weight=w)
        assert ours == pytest.approx(mean, abs=1e-12)
        for name, theirs in RATE_PAIRS.items():
            expected = theirs(y, d, sample_weight=w)
            assert getattr(m, name)(y, d, sample_weight=w) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=15)
@given(filled)
def test_rates_by_group_agree_with_metric_frame(counts):
    y, d, s = expand(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = fl.MetricFrame(metrics=RATE_PAIRS, y_true=y, y_pred=d, sensitive_features=s)
        ours = fl.MetricFrame(
            metrics={name: getattr(m, name) for name in RATE_PAIRS},
            y_true=y,
            y_pred=d,
            sensitive_features=s,
        )
    np.testing.assert_allclose(
        ours.by_group.to_numpy(float), frame.by_group.to_numpy(float), atol=1e-12
    )
    table = m.GroupTable.from_arrays(y, d, sensitive_features=s)
    for name in RATE_PAIRS:
        by_group = getattr(m, name).from_table(table, n_resamples=10).by_group
        np.testing.assert_allclose(
            by_group["value"], frame.by_group[name].astype(float), atol=1e-12
        )


def test_deliberate_differences():
    """The whole list of inputs on which fairlearn and we disagree, with both values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # 1. A group without positives has no true-positive rate: fairlearn counts it as 0.
        y, d, s = np.array([1, 1, 0, 0]), np.array([1, 1, 0, 1]), np.array(list("aabb"))
        assert fl.equal_opportunity_difference(y, d, sensitive_features=s) == 1.0
        assert math.isnan(m.equal_opportunity_difference(y, d, sensitive_features=s))
        assert fl.true_positive_rate(y[2:], d[2:]) == 0.0
        assert math.isnan(m.true_positive_rate(y[2:], d[2:]))
        # 2. ... and a group without negatives has no false-positive rate.
        assert fl.false_positive_rate(y[:2], d[:2]) == 0.0
        assert math.isnan(m.false_positive_rate(y[:2], d[:2]))
        assert math.isnan(m.equalized_odds_difference(y, d, sensitive_features=s))
        # 3. ... with three groups the undefined one is left out and named.
        y3, d3 = np.array([1, 1, 1, 1, 0, 0]), np.array([1, 0, 1, 1, 0, 1])
        s3 = np.array(list("aabbcc"))
        assert fl.equal_opportunity_difference(y3, d3, sensitive_features=s3) == 1.0
        ours = m.equal_opportunity_difference.estimate(
            y3, d3, sensitive_features=s3, n_resamples=50
        )
        assert ours.value == 0.5
        assert "c (no positives (0/0))" in ours.reason
        # 4. A ratio of 0 to 0 is undefined in both libraries ...
        none = np.zeros(4, dtype=int)
        y5 = np.array([1, 0, 1, 0])
        assert math.isnan(fl.demographic_parity_ratio(y5, none, sensitive_features=s))
        assert math.isnan(m.demographic_parity_ratio(y5, none, sensitive_features=s))
        # 5. ... but fairlearn's equalized odds then reports the rate that is left.
        assert fl.equalized_odds_ratio(y5, y5, sensitive_features=s) == 1.0
        assert math.isnan(m.equalized_odds_ratio(y5, y5, sensitive_features=s))
        # 6. Labels other than 0/1 need pos_label in ours; fairlearn guesses for {-1, 1} only.
        with pytest.raises(LabelError):
            m.selection_rate([1, 2], [1, 2])
        # No difference: crossings without rows are left out of max - min by both.
        two = np.array([["a", "x"], ["a", "x"], ["b", "y"], ["b", "y"]], dtype=object)
        ours = m.demographic_parity_difference(y5, y5, sensitive_features=two)
        assert ours == fl.demographic_parity_difference(y5, y5, sensitive_features=two) == 0.0
