"""Distance covariance as metrics: the contract, intervals that cover, nulls that are the null."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    LengthMismatchError,
    PrivacyError,
    SensitiveFeatureError,
)
from privfair.core.privacy import Budget
from privfair.fairness import dcov
from privfair.fairness.dcov import AttributeEncoder, ccdcov_sq, dcor_sq, jdcov_targeted_sq
from privfair.fairness.metrics import estimate_all, selection_rate
from privfair.testing import check_metric

METRICS = [
    dcov.distance_covariance,
    dcov.distance_correlation,
    dcov.targeted_joint_distance_covariance,
]


def rows(n: int = 300, effect: float = 0.8, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    S = pd.DataFrame({"race": rng.choice(["a", "b", "c"], n), "sex": rng.choice(["f", "m"], n)})
    return rng.normal(size=n) + effect * ((S["race"] == "a") & (S["sex"] == "f")), S


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_contract(metric) -> None:
    check_metric(metric)
    assert pickle.loads(pickle.dumps(metric)) is metric is copy.deepcopy(metric)


def test_values_are_those_of_the_functions() -> None:
    f, S = rows()
    encoder = AttributeEncoder(scaling="paper")
    X = encoder.fit_transform(S)
    expected = (
        ccdcov_sq(f, S, encoder=encoder, estimator="v"),
        dcor_sq(f, X, estimator="v"),
        jdcov_targeted_sq(f, S, encoder=encoder, estimator="v"),
    )
    for metric, value in zip(METRICS, expected, strict=True):
        assert metric(None, f, sensitive_features=S) == pytest.approx(value, rel=1e-9)
    found = METRICS[0].estimate(None, f, sensitive_features=S, n_resamples=20, random_state=0)
    assert found.details["dcov_sq_u"] == pytest.approx(ccdcov_sq(f, S, encoder=encoder))
    alone = [ccdcov_sq(f, S[c], encoder=AttributeEncoder(scaling="paper")) for c in S]
    assert found.details["interaction_share_u"] == pytest.approx(
        found.details["dcov_sq_u"] - sum(alone)
    )
    assert found.by_group.loc[("a", "f"), "ks_to_all"] == found.by_group["ks_to_all"].max()
    assert found.by_group["n"].sum() == len(f)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_coarse_tables_repeat_the_exact_value(metric) -> None:
    """Few distinct predictions: nothing is pooled, and the table gives the exact statistic."""
    f, S = rows()
    table = metric._read(np.round(f, 1), S, None, 1, {})
    assert table.coarse().plug_in(metric.kind) == pytest.approx(
        table.value(metric.kind, "v"), rel=1e-9
    )
    pooled = metric._read(rows(3000)[0], rows(3000)[1], None, 1, {})
    assert pooled.coarse().plug_in(metric.kind) == pytest.approx(
        pooled.value(metric.kind, "v"), rel=0.01
    )


@pytest.mark.statistical
def test_null_draws_are_the_permutations_of_rows() -> None:
    """Means of 400 draws each agree within 4 standard errors (false alarm 6e-5)."""
    f, S = rows(100)
    metric = METRICS[0]
    rng = np.random.default_rng(0)
    table = metric._read(f, S, None, 1, {}).coarse()
    fast = table.permutations("ccdcov", 400, rng)
    slow = np.array([metric(None, rng.permutation(f), sensitive_features=S) for _ in range(400)])
    error = np.sqrt((fast.var() + slow.var()) / 400)
    assert abs(fast.mean() - slow.mean()) < 4 * error
    assert fast.std() == pytest.approx(slow.std(), rel=0.3)


@pytest.mark.statistical
def test_intervals_cover() -> None:
    """95 % intervals of 50 data sets cover at least 42 (P < 0.004 at the nominal level)."""
    f, S = rows(60_000, seed=10**6)
    truth = METRICS[0](None, f, sensitive_features=S)
    for effect, value in ((0.0, 0.0), (0.8, truth)):
        covered = 0
        for seed in range(50):
            f, S = rows(250, effect, seed=seed + 1)
            found = METRICS[0].estimate(
                None, f, sensitive_features=S, n_resamples=100, random_state=seed
            )
            covered += found.low <= value <= found.high
        assert covered >= 42, effect


def test_dependence_is_told_from_chance() -> None:
    for metric in METRICS:
        fair = metric.estimate(None, rows(400, 0.0)[0], sensitive_features=rows(400, 0.0)[1],
                               n_resamples=200, random_state=0)  # fmt: skip
        unfair = metric.estimate(None, rows(400)[0], sensitive_features=rows(400)[1],
                                 n_resamples=200, random_state=0)  # fmt: skip
        assert fair.null.p_value > 0.05 and fair.low == 0
        assert unfair.null.p_value < 0.01 and unfair.value > unfair.null.q95


def test_exclusive_or_is_seen_by_all() -> None:
    a, b = np.tile([0, 0, 1, 1], 10), np.tile([0, 1, 0, 1], 10)
    S = pd.DataFrame({"a": a, "b": b})
    assert METRICS[0](None, a ^ b, sensitive_features=S) == pytest.approx(0.0732233047, abs=1e-10)
    assert METRICS[2](None, a ^ b, sensitive_features=S) == pytest.approx(0.125)


def test_weights_are_repeated_rows() -> None:
    f, S = rows(60)
    weight = np.tile([1, 2, 3], 20)
    again = np.repeat(np.arange(60), weight)
    for metric in (METRICS[0], METRICS[2]):
        weighted = metric(None, f, sensitive_features=S, sample_weight=weight)
        assert weighted == pytest.approx(
            metric(None, f[again], sensitive_features=S.iloc[again]), rel=1e-9
        )
        found = metric.estimate(None, f, sensitive_features=S, sample_weight=weight,
                                n_resamples=50, random_state=0)  # fmt: skip
        assert found.low <= found.value <= found.high
    with pytest.raises(InvalidParameterError, match="sample_weight"):
        METRICS[1](None, f, sensitive_features=S, sample_weight=weight)


def test_edges() -> None:
    f, S = rows(40)
    metric = METRICS[0]
    flat = metric.estimate(None, np.ones(40), sensitive_features=S)
    assert (flat.value, flat.status) == (0.0, "boundary")
    one = metric.estimate(None, f, sensitive_features=["a"] * 40)
    assert (one.value, one.status) == (0.0, "boundary")
    tiny = metric.estimate(None, f[:10], sensitive_features=S[:10], n_resamples=20)
    assert tiny.status == "small_sample"
    age = np.random.default_rng(0).normal(size=1500)
    many = metric.estimate(None, age**2, sensitive_features={"age": age})
    assert many.value > 0 and np.isnan(many.low) and "cuts" in many.reason
    cut = metric.estimate(None, age**2, sensitive_features={"age": age}, cuts={"age": [-1, 1]},
                          n_resamples=50, random_state=0)  # fmt: skip
    assert cut.low > 0
    text = metric(None, np.where(f > 0, "yes", "no"), sensitive_features=S, pos_label="yes")
    assert text == pytest.approx(metric(None, f > 0, sensitive_features=S))
    scored = metric(None, f > 0, y_score=f, sensitive_features=S)
    assert scored == metric(None, f, sensitive_features=S)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"privacy": Budget(1.0, 1e-6)}, PrivacyError),
        ({"groups": ["a"]}, InvalidParameterError),
        ({"sensitive_features": None}, SensitiveFeatureError),
        ({"sensitive_features": ["a", "b"]}, LengthMismatchError),
        ({"y_pred": [0.1, np.nan, 0.2, 0.3]}, DataError),
        ({"bandwidth": 2}, InvalidParameterError),
        ({"cuts": {"nobody": [1]}}, InvalidParameterError),
        ({"confidence": 95}, InvalidParameterError),
        ({"c": 0}, InvalidParameterError),
    ],
)
def test_bad_input(options: dict, error: type[Exception]) -> None:
    given = {"y_pred": [0.1, 0.2, 0.3, 0.4], "sensitive_features": ["a", "b", "a", "b"]} | options
    with pytest.raises(error):
        METRICS[0].estimate(None, given.pop("y_pred"), **given)


def test_in_one_call_with_other_metrics() -> None:
    f, S = rows(200)
    y = (f > 0).astype(int)
    found = estimate_all(
        [selection_rate, METRICS[0]], y, y, sensitive_features=S, n_resamples=50, random_state=0
    )
    assert [e.name for e in found] == ["selection_rate", "distance_covariance"]
