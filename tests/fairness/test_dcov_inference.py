"""Tests of independence and divergences of groups: levels, power, traps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import gaussian_kde, kstest

from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.fairness.dcov import (
    AttributeEncoder,
    dcor_sq,
    dcov_sq,
    independence_test,
    jdcov_targeted_sq,
    jsd_groups,
)


def dependent_attributes(n: int, rng: np.random.Generator) -> pd.DataFrame:
    a = rng.integers(0, 2, n)
    b = np.where(rng.random(n) < 0.85, a, 1 - a)
    return pd.DataFrame({"a": a, "b": b})


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["ccdcov", "jdcov"])
def test_p_values_are_uniform_although_the_attributes_depend_on_each_other(kind: str) -> None:
    """KS at 0.01 of 300 p-values (n = 60); permuting each attribute alone would reject all."""
    rng = np.random.default_rng(11)
    found = [
        independence_test(
            rng.normal(size=60), dependent_attributes(60, rng), kind=kind, n_resamples=19,
            random_state=rng,
        ).pvalue
        for _ in range(300)
    ]  # fmt: skip
    jittered = np.array(found) - rng.random(300) / 20  # p-values are multiples of 1 / 20
    assert kstest(jittered, "uniform").pvalue > 0.01


def test_statistic_is_the_function_s_and_dependence_is_found() -> None:
    rng = np.random.default_rng(0)
    S = dependent_attributes(300, rng)
    f = rng.normal(size=300) + 2 * (S["a"] ^ S["b"])
    X = AttributeEncoder().fit_transform(S)
    found = independence_test(f, S, random_state=0, n_resamples=99)
    assert found.statistic == pytest.approx(dcov_sq(f, X))
    assert found.pvalue == 0.01 and found.n == 300 and found.null is not None
    assert found.null.q95 < found.statistic
    joint = independence_test(f, S, kind="jdcov", c=0.5, random_state=0, n_resamples=99)
    assert joint.statistic == pytest.approx(jdcov_targeted_sq(f, X[:, :2], X[:, 2:], c=0.5))
    screen = independence_test(f, S, method="chi2")
    assert screen.statistic == pytest.approx(dcor_sq(f, X))
    assert screen.pvalue < 0.05 and screen.n_resamples == 0


@pytest.mark.parametrize("kind", ["ccdcov", "jdcov"])
def test_continuous_attributes_and_vector_predictions(kind: str) -> None:
    rng = np.random.default_rng(0)
    age = rng.normal(size=60)
    f = np.column_stack([age**2, rng.normal(size=60)])
    S = {"age": age, "sex": rng.integers(0, 2, 60)}
    assert independence_test(f, S, kind=kind, n_resamples=49, random_state=0).pvalue == 0.02
    if kind == "ccdcov":
        one = independence_test(f[:, 0], {"age": age}, n_resamples=49, random_state=0)
        assert one.pvalue == 0.02


def test_chi_square_is_conservative() -> None:
    """At 5 % at most 5 % + 4 standard errors of 300 tests reject (false alarm 3e-5)."""
    rng = np.random.default_rng(3)
    rejected = [
        independence_test(rng.normal(size=80), {"a": rng.integers(0, 2, 80)}, method="chi2").pvalue
        < 0.05
        for _ in range(300)
    ]
    assert np.mean(rejected) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)


def test_a_constant_prediction_is_never_significant() -> None:
    found = independence_test(np.ones(20), {"a": [0, 1] * 10}, n_resamples=19, random_state=0)
    assert (found.statistic, found.pvalue) == (0.0, 1.0)
    with pytest.raises(DataError):
        independence_test([1, 2, 3], {"a": [0, 1, 0]})
    with pytest.raises(InvalidParameterError):
        independence_test([1, 2, 3, 4], {"a": [0, 1, 0, 1]}, method="bootstrap")
    with pytest.raises(DataError, match="permutation"):
        independence_test([1, 2, 3, 4], {"a": [0, 1, 0, 1]}, method="chi2", kind="jdcov")


# --- Jensen-Shannon divergence --------------------------------------------------------------


def exact_jsd(f: np.ndarray, g: np.ndarray, width: float, grid: np.ndarray) -> float:
    parts = []
    for k in np.unique(g):
        own = f[g == k]
        p = np.exp(-0.5 * ((grid[:, None] - own) / width) ** 2).sum(1)
        parts.append(np.maximum(p / p.sum(), 1e-10))
    share = np.bincount(g) / len(g)
    h = lambda p: -(p * np.log2(p)).sum()  # noqa: E731
    return h(share @ np.array(parts)) - share @ [h(p) for p in parts]


def test_kernel_divergence_is_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    g = rng.integers(0, 3, 400)
    f = rng.normal(size=400) + 0.5 * g
    got = jsd_groups(f, g, bias_correction=None)
    width = 0.9 * min(f.std(ddof=1), np.subtract(*np.percentile(f, [75, 25])) / 1.34) * 400**-0.2
    assert got.bandwidth == pytest.approx(width)
    grid = np.linspace(f.min() - 3 * width, f.max() + 3 * width, 1000)
    assert got.raw == pytest.approx(exact_jsd(f, g, width, grid), rel=1e-3)
    paper = jsd_groups(f, g, bandwidth="paper", bias_correction=None)
    grid = np.linspace(f.min(), f.max(), 1000)
    assert paper.raw == pytest.approx(exact_jsd(f, g, 0.15, grid), rel=1e-3)
    density = gaussian_kde(f[g == 0], bw_method=0.15 / f[g == 0].std(ddof=1))(grid)
    assert density.sum() > 0  # scipy's bandwidth is relative: the same kernel


def test_fixed_bandwidth_hides_differences_of_small_rates() -> None:
    """Trap: on rates around 0.1 a bandwidth of 0.15 flattens everything."""
    rng = np.random.default_rng(0)
    g = np.repeat([0, 1], 500)
    f = rng.beta(20, 180, 1000) * (1 + 0.5 * g)
    paper = jsd_groups(f, g, bandwidth="paper", random_state=0)
    ours = jsd_groups(f, g, random_state=0)
    assert ours.value > 0.3
    assert paper.raw < 0.02 * ours.raw


@pytest.mark.statistical
@pytest.mark.parametrize("estimator", ["kde", "histogram"])
def test_bias_of_small_groups_is_taken_off(estimator: str) -> None:
    """Corrected mean within 4 standard errors of 0 over 40 data sets (false alarm 6e-5)."""
    rng = np.random.default_rng(1)
    found = [
        jsd_groups(rng.normal(size=300), np.arange(300) % 6, estimator=estimator, n_bins=10,
                   n_resamples=40, random_state=rng)
        for _ in range(40)
    ]  # fmt: skip
    values = [r.value for r in found]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(40) + 1e-4
    raw = np.mean([r.raw for r in found])
    assert raw > 0.01, "without the correction there is a divergence where there is none"
    if estimator == "histogram":
        uniform = [
            jsd_groups(rng.random(1200), np.arange(1200) % 6, estimator=estimator, n_bins=10,
                       bias_correction=None).raw
            for _ in range(40)
        ]  # fmt: skip
        assert np.mean(uniform) == pytest.approx(9 * 5 / (2 * 1200 * np.log(2)), rel=0.1)


def test_limits_of_the_divergence() -> None:
    g = np.array(["a", "b"])[np.arange(200) % 2]
    far = np.where(g == "a", 0.0, 100.0) + np.arange(200) / 200
    assert jsd_groups(far, g, random_state=0).raw == pytest.approx(1, abs=0.01)
    assert jsd_groups(np.ones(200), g, random_state=0).raw == 0
    one = np.tile([0.1, 0.5, 0.3, 0.2], 50)
    half = np.repeat(["a", "b"], 100)
    assert jsd_groups(one, half, bias_correction=None).raw == pytest.approx(0, abs=1e-12)


def test_weights_and_intersections() -> None:
    rng = np.random.default_rng(0)
    S = pd.DataFrame({"sex": rng.choice(["f", "m"], 500), "race": rng.choice(["x", "y"], 500)})
    small = (S["sex"] == "f") & (S["race"] == "x") & (np.arange(500) % 4 == 0)
    f = rng.normal(size=500)
    S.loc[~small & (S["race"] == "x"), "race"] = "y"
    f = f + 4 * small
    equal = jsd_groups(f, S, weights="equal", bias_correction=None)
    share = jsd_groups(f, S, bias_correction=None)
    assert equal.raw > 2 * share.raw
    assert set(share.groups) == {("f", "x"), ("f", "y"), ("m", "y")}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"estimator": "spline"}, InvalidParameterError),
        ({"bandwidth": "scott"}, InvalidParameterError),
        ({"bandwidth": -1.0}, InvalidParameterError),
        ({"weights": "size"}, InvalidParameterError),
        ({"n_bins": 0}, InvalidParameterError),
    ],
)
def test_bad_options(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        jsd_groups([0.1, 0.2], ["a", "b"], **options)
    with pytest.raises(DataError):
        jsd_groups([0.1, np.nan], ["a", "b"])
