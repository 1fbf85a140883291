"""Tests of whole curves in one run: validity against a linear programme, size and power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import binom, norm

from privfair.accounting import Gaussian, guarantee
from privfair.auditing import (
    audit_engine,
    one_run_audit,
    one_run_curve_p_value,
    one_run_gdp_lower_bound,
    one_run_p_value,
)
from privfair.auditing._one_run_curve import _from_points, _p_value
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    PrivacyContradictionError,
)
from privfair.training import TrainingPlan


def lines(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Slopes and offsets of f(1 - a) as a maximum of lines in a."""
    out = []
    for e, d in points:
        out.append((math.exp(e), 1 - d - math.exp(e)))
        out.append((math.exp(-e), -d * math.exp(-e)))
    return out


def largest_tail(m: int, r: int, v: int, points: list[tuple[float, float]]) -> float:
    """Maximise P[V >= v] over all laws of V that satisfy the constraints, by another solver."""
    at = np.arange(r + 1)
    rows, limits = [], []
    for i in range(1, r + 1):
        right, wrong = np.where(at >= i, at / m, 0.0), np.where(at >= i - 1, (r - at) / m, 0.0)
        for slope, offset in lines(points):
            rows.append(slope * right - wrong)  # B_{i-1} >= slope * A_i + offset
            limits.append(-offset)
    found = linprog(
        -(at >= v).astype(float), A_ub=np.array(rows), b_ub=limits,
        A_eq=np.ones((1, r + 1)), b_eq=[1.0], bounds=(0, 1), method="highs",
    )  # fmt: skip
    assert found.status == 0
    return -float(found.fun)


@pytest.mark.parametrize(
    ("m", "r", "v", "points"),
    [
        (20, 20, 15, [(1.0, 0.0)]),
        (20, 20, 18, [(1.0, 0.0)]),
        (30, 12, 11, [(0.5, 1e-3)]),
        (40, 20, 19, [(1.0, 1e-2), (0.5, 0.05), (0.0, 0.2)]),
        (25, 25, 20, [(0.2, 0.02), (2.0, 1e-4)]),
        (12, 6, 6, [(3.0, 1e-5)]),
    ],
)
def test_the_recursion_is_the_linear_programme(m, r, v, points) -> None:
    expected = largest_tail(m, r, v, points)
    assert one_run_curve_p_value(m, r, v, points) == pytest.approx(expected, rel=2e-6, abs=1e-12)


def test_randomised_response_never_passes_its_own_bound() -> None:
    """Every tail of the worst pure mechanism stays below the bound."""
    for epsilon, r in [(0.5, 40), (1.0, 100), (3.0, 60)]:
        q = math.exp(epsilon) / (1 + math.exp(epsilon))
        for v in range(1, r + 1, 3):
            p = one_run_curve_p_value(r, r, v, [(epsilon, 0.0)])
            assert p >= binom.sf(v - 1, r, q) * (1 - 1e-9)


def test_type_one_error_on_randomised_response() -> None:
    """Exact: the probability that the test at 5 % rejects a true claim."""
    q = math.e / (1 + math.e)
    for r in (50, 300):
        rejected = [v for v in range(r + 1) if one_run_curve_p_value(r, r, v, [(1, 0)]) <= 0.05]
        assert binom.sf(min(rejected) - 1, r, q) <= 0.05
        assert binom.sf(min(rejected) - 1, r, q) > 0.005  # and not idle


def gaussian_run(rng: np.random.Generator, mu: float, m: int, r: int) -> int:
    inside = rng.integers(0, 2, m).astype(bool)
    order = np.argsort(-(mu * inside + rng.normal(size=m)))
    return int(inside[order[: r // 2]].sum() + (~inside[order[-(r // 2) :]]).sum())


def test_type_one_error_on_gaussian_noise() -> None:
    """300 runs of m independent Gaussian mechanisms; more than 25 rejections has p < 0.01."""
    rng = np.random.default_rng(1)
    bad = sum(one_run_gdp_lower_bound(500, 100, gaussian_run(rng, 1.0, 500, 100)) > 1.0
              for _ in range(300))  # fmt: skip
    assert bad <= 25


def test_more_power_than_one_point() -> None:
    """Half of the noise claimed: the curve refutes it where the point at its delta cannot."""
    rng = np.random.default_rng(2)
    claim = guarantee([Gaussian(1.0)], delta=1e-5)  # claims mu = 1
    found = {"epsilon": 0, "curve": 0}
    for _ in range(20):
        inside = rng.integers(0, 2, 2000).astype(bool)
        scores = 2.0 * inside + rng.normal(size=2000)  # true mu = 2
        for test in found:
            found[test] += one_run_audit(
                scores, inside, k_plus=100, k_minus=100, certified=claim, test=test
            ).violated
    assert found["curve"] >= 18  # measured: 20 of 20
    assert found["epsilon"] <= 2


def test_an_honest_gaussian_is_not_accused() -> None:
    rng = np.random.default_rng(3)
    claim = guarantee([Gaussian(1.0)], delta=1e-5)
    for _ in range(20):  # p-values at the truth are far from 0.05 (smallest of 30 was 0.2)
        inside = rng.integers(0, 2, 2000).astype(bool)
        result = one_run_audit(
            inside + rng.normal(size=2000), inside, k_plus=100, k_minus=100, certified=claim,
            test="curve",
        )  # fmt: skip
        assert not result.violated
        assert result.lower_epsilon is None
        assert result.assumption == "curve"


def test_mu_is_no_epsilon() -> None:
    """On 1-DP randomised response mu translates into more than 1: it must not be printed so."""
    q = math.e / (1 + math.e)
    mu = one_run_gdp_lower_bound(5000, 5000, int(5000 * q))
    delta = lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu)  # noqa: E731
    assert delta(1.0) > 1e-5
    included = np.arange(100) % 2 == 0
    result = one_run_audit(included * 1.0, included, k_plus=50, k_minus=50, delta=1e-5, test="gdp")
    assert result.lower_epsilon is None
    assert result.verdict == "no bound on epsilon"
    assert "audited_epsilon" not in [e.name for e in result.estimates]


def test_mu_against_a_gaussian_certificate() -> None:
    included = np.arange(1000) % 2 == 0
    claim = guarantee([Gaussian(2.0)], delta=1e-5)  # mu = 1/2
    wrong = one_run_audit(included * 1.0, included, k_plus=100, k_minus=100, certified=claim,
                          test="gdp")  # fmt: skip
    assert wrong.violated
    assert wrong.details["certified_mu"] == pytest.approx(0.5)
    with pytest.raises(PrivacyContradictionError, match="curve"):
        wrong.raise_for_violation()


def test_monotone_in_everything() -> None:
    p = [one_run_curve_p_value(200, 50, v, [(1.0, 1e-4)]) for v in range(0, 51, 5)]
    assert p == sorted(p, reverse=True)
    p = [one_run_curve_p_value(200, 50, 45, [(e, 1e-4)]) for e in (0.0, 0.5, 1.0, 2.0, 8.0)]
    assert p == sorted(p)
    one = one_run_curve_p_value(200, 50, 45, [(1.0, 1e-4)])
    assert one_run_curve_p_value(200, 50, 45, [(1.0, 1e-4), (0.5, 0.01)]) <= one
    mu = [one_run_gdp_lower_bound(200, 50, v) for v in range(25, 51, 5)]
    assert mu == sorted(mu)


def test_it_is_no_weaker_than_the_published_bound_where_delta_counts() -> None:
    for m, r, v, d in [(1000, 100, 95, 1e-5), (2000, 200, 190, 1e-5), (5000, 500, 450, 1e-6)]:
        assert one_run_curve_p_value(m, r, v, [(1.0, d)]) < one_run_p_value(m, r, v, d, 1.0)


def test_smooth_claims_agree_with_their_points() -> None:
    """A Gaussian claim through its points, against the closed form: never smaller, and close."""
    mu = 1.0
    delta = lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu)  # noqa: E731
    points = [(float(e), float(delta(e))) for e in np.linspace(0, 5, 80)]
    exact = _p_value(lambda a: float(norm.cdf(norm.ppf(a) - mu)) if a > 0 else 0.0, 1000, 100, 94)
    rough = _p_value(_from_points(points), 1000, 100, 94)
    assert exact * (1 - 1e-9) <= rough <= 1.1 * exact


def test_half_of_the_noise_is_found(monkeypatch) -> None:
    """The engine draws noise for another multiplier than it certifies: found in every one of 3."""
    from privfair.training import _noise

    real = _noise.HardenedGaussian
    plan = TrainingPlan(1000, 1000, steps=1, max_grad_norm=1.0, noise_multiplier=1.0)
    assert not audit_engine(plan, test="curve", delta=1e-5, noise_random_state=5).violated
    monkeypatch.setattr(
        _noise, "HardenedGaussian", lambda sigma, *a, **k: real(sigma / 2, *a, **k)
    )
    for seed in range(3):
        found = audit_engine(plan, test="curve", delta=1e-5, noise_random_state=seed)
        assert found.violated, found.p_value


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 1, 1, [(1, 0)]), InvalidParameterError),
        ((10, 11, 1, [(1, 0)]), InvalidParameterError),
        ((10, 5, 6, [(1, 0)]), InvalidParameterError),
        ((10, 5, 5, []), InvalidParameterError),
        ((10, 5, 5, [1.0]), InvalidTypeError),
        ((10, 5, 5, [(-1.0, 0.0)]), InvalidParameterError),
        ((10, 5, 5, [(1.0, 1.5)]), InvalidParameterError),
    ],
)
def test_bad_input(arguments, error) -> None:
    with pytest.raises(error):
        one_run_curve_p_value(*arguments)


def test_a_curve_needs_a_certificate() -> None:
    included = np.arange(10) % 2 == 0
    with pytest.raises(InvalidParameterError, match="certified"):
        one_run_audit(included * 1.0, included, k_plus=1, k_minus=1, delta=0.0, test="curve")
    with pytest.raises(InvalidParameterError, match="test"):
        one_run_audit(included * 1.0, included, k_plus=1, k_minus=1, delta=0.0, test="mu")
