"""Socio-economic gaps released under differential privacy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from privfair.accounting import Ledger, guarantee
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    PrivacyError,
    WeakGuaranteeError,
)
from privfair.fairness import EffortRule, SESRule, csep_violation, sep_violation
from privfair.fairness.sep._private import (
    STEPS,
    contributions,
    noisy_gaps,
    sensitivity,
)
from privfair.fairness.sep._sets import read_sets

BUDGET = Budget(1.0, 1e-6)


def rows_of(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    s = rng.choice(["a", "b"], n, p=[0.7, 0.3])
    low = rng.random(n) < 0.5
    h = (rng.random(n) < 0.5 - 0.2 * low * (s == "b")).astype(float)
    return h, {"sensitive_features": s, "ses_features": low, "groups": ["a", "b"]}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.booleans(), st.booleans(),
    st.sampled_from(["conditional", "overall"]),
)  # fmt: skip
def test_one_record_moves_the_sums_by_at_most_the_sensitivity(
    seed, conditional, everyone, reference
) -> None:
    rng = np.random.default_rng(seed)
    n = 12
    h, s = rng.choice([0.0, 1.0, rng.random()], n), rng.choice(["a", "b", "other"], n)
    low, effort = rng.random(n) < 0.7, rng.random(n) < 0.7

    def sums(keep):
        sets = read_sets(
            s[keep], low[keep], effort=effort[keep] if conditional else None,
            reference=reference, everyone=everyone, groups=["a", "b"], rows=h[keep],
        )  # fmt: skip
        return contributions(sets, h[keep])

    whole = sums(np.arange(n))
    bound = sensitivity(everyone=everyone) * STEPS
    for i in range(n):
        moved = whole - sums(np.delete(np.arange(n), i))
        assert Fraction(int((moved.astype(object) ** 2).sum())) <= bound**2


def test_the_sensitivity_is_attained() -> None:
    one = read_sets(["a"], [True], groups=["a", "b"], rows=[1.0])
    assert np.linalg.norm(contributions(one, np.ones(1))) == STEPS * 2.0
    assert sensitivity(everyone=False) == 2
    both = read_sets(["a"], [True], groups=["a"], everyone=True, rows=[1.0])
    length = np.linalg.norm(contributions(both, np.ones(1)))
    assert length / STEPS == pytest.approx(math.sqrt(6))
    assert length <= float(sensitivity(everyone=True)) * STEPS * (1 + 1e-15)


def test_one_charge_and_a_certificate() -> None:
    h, columns = rows_of()
    ledger = Ledger()
    e = sep_violation.estimate(None, h, **columns, privacy=BUDGET, ledger=ledger)
    assert len(ledger) == 1
    assert e.privacy.certified and 0.99 < e.privacy.epsilon <= 1.0 and e.privacy.delta == 1e-6
    (event,) = e.privacy.events
    assert guarantee(event, delta=1e-6).epsilon == pytest.approx(e.privacy.epsilon)
    assert e.details["noise_scale"] / 2 == pytest.approx(event.sigma, rel=1e-6)
    assert e.low <= e.value <= e.high and e.attained_by == ("b",)
    assert abs(e.value - 0.1) < 0.1
    capped = Ledger(cap=Budget(0.5, 1e-5))
    with pytest.raises(BudgetExceededError):
        sep_violation.estimate(None, h, **columns, privacy=BUDGET, ledger=capped)
    assert len(capped) == 0


def test_noise_follows_the_secret_stream() -> None:
    h, columns = rows_of(3000)
    values = {
        sep_violation.estimate(
            None, h, **columns, privacy=BUDGET, ledger=Ledger(), random_state=0
        ).value
        for _ in range(4)
    }
    assert len(values) == 4
    seeded = [
        sep_violation.estimate(
            None, h, **columns, privacy=BUDGET, ledger=Ledger(), noise_random_state=1
        )
        for _ in range(2)
    ]
    assert seeded[0].value == seeded[1].value and not seeded[0].privacy.certified


def test_estimates_depend_on_the_release_only(monkeypatch) -> None:
    """Two tables with the same released sums give the same estimate, to the last digit."""
    from privfair.mechanisms import DiscreteGaussianMechanism

    fixed = None

    def release(self, value, *, ledger=None, purpose=""):
        nonlocal fixed
        fixed = np.array([8e3, 2e4, 5e3, 1e4, 1e3, 6e3]) * STEPS if fixed is None else fixed
        return fixed

    monkeypatch.setattr(DiscreteGaussianMechanism, "release", release)
    found = []
    for seed in (1, 2):
        h, columns = rows_of(20_000, seed=seed)
        e = csep_violation.estimate(
            None, h, **columns, effort_features=np.random.default_rng(seed).random(20_000) < 0.5,
            privacy=BUDGET, ledger=Ledger(),
        )  # fmt: skip
        found.append((e.to_dict(), e.by_group.to_csv()))
    assert found[0] == found[1]


def test_intervals_cover_sampling_and_noise() -> None:
    """One group at small n and large noise, 400 repeats at a level of 1e-3 in favour."""
    from privfair.mechanisms import DiscreteGaussianMechanism

    truth, hits, narrow, sigma = 0.5 - 0.2 * 0.5 * 0.3 - 0.3, 0, 0, 14.0
    for seed in range(400):
        h, columns = rows_of(4000, seed=seed)
        sets = read_sets(
            columns["sensitive_features"], columns["ses_features"], groups=["a", "b"], rows=h
        )
        noise = DiscreteGaussianMechanism(
            sigma * STEPS, 2 * STEPS, size=6, noise_random_state=seed
        )
        table = noisy_gaps(noise.release(contributions(sets, h)) / STEPS, sigma)
        hits += abs(table.gap[1] - truth) <= 1.96 * table.se[1]
        narrow += abs(table.gap[1] - truth) <= 1.96 * math.sqrt(0.3 * 0.7 / 600)
    assert binomtest(hits, 400, 0.95, alternative="less").pvalue > 1e-3
    # The noise matters here: intervals of sampling alone would fail visibly.
    assert binomtest(narrow, 400, 0.95, alternative="less").pvalue < 1e-6


def test_small_noisy_sizes_have_no_gap() -> None:
    sigma = 9.0
    table = noisy_gaps(np.array([50.0, 200.0, 30.0, 89.0, 40.0, 91.0]), sigma)
    assert np.isnan(table.gap[0]) and not np.isnan(table.gap[1])
    assert "ten standard deviations" in table.note[0]
    h, columns = rows_of(150)
    e = sep_violation.estimate(
        None, h, **columns, privacy=Budget(0.3, 1e-6), ledger=Ledger(), noise_random_state=0
    )
    assert e.status == "not_estimable" and math.isnan(e.value)


def test_the_standard_error_is_that_of_simulated_releases() -> None:
    rng = np.random.default_rng(0)
    n_r, n_g, p_r, p_g, sigma = 6000, 1500, 0.4, 0.25, 12.0
    p_rest = (n_r * p_r - n_g * p_g) / (n_r - n_g)
    gaps, stated = [], []
    for _ in range(3000):
        inside = rng.binomial(n_g, p_g)
        exact = np.array([inside + rng.binomial(n_r - n_g, p_rest), n_r, inside, n_g], float)
        table = noisy_gaps(exact + rng.normal(0, sigma, 4), sigma, binary=True)
        gaps.append(table.gap[0])
        stated.append(table.se[0])
    # p_r and p_g are fixed rates: the binomial variance of the reference set is not r (1 - r).
    between = (n_g / n_r) * (1 - n_g / n_r) * (p_g - p_rest) ** 2 / n_r
    expected = math.sqrt(np.var(gaps) + between)
    assert np.mean(stated) == pytest.approx(expected, rel=0.06)  # 1.3 % each, 4 errors


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"privacy": 1.0}, InvalidTypeError, "Budget"),
        ({"privacy": Budget(math.inf, 1e-6)}, InvalidBudgetError, "finite"),
        ({"privacy": Budget(1.0)}, InvalidBudgetError, "delta above 0"),
        ({"privacy": Budget(1.0, 1e-3)}, WeakGuaranteeError, "delta must be below"),
        ({"groups": None}, InvalidParameterError, "public"),
        ({"sample_weight": np.ones(3000)}, PrivacyError, "no public bound"),
        (
            {"ses": SESRule.quantile("x", 0.5), "ses_features": {"x": np.arange(3000)}},
            PrivacyError,
            "DPQuantile",
        ),
        (
            {
                "ses": SESRule.quantile("x", 0.5).fit({"x": [1, 2]}),
                "ses_features": {"x": np.arange(3000)},
            },
            PrivacyError,
            "DPQuantile",
        ),
    ],
)
def test_refusals_charge_nothing(change, error, words) -> None:
    h, columns = rows_of(3000)
    ledger = Ledger()
    with pytest.raises(error, match=words):
        sep_violation.estimate(
            None, h, **{**columns, "privacy": BUDGET, "ledger": ledger, **change}
        )
    assert len(ledger) == 0


def test_ranked_effort_is_refused() -> None:
    h, columns = rows_of(3000)
    with pytest.raises(PrivacyError, match="constant threshold"):
        csep_violation.estimate(
            None, h, **columns, privacy=BUDGET, ledger=Ledger(),
            effort=EffortRule("e", rank_within=["ses"]), effort_features={"e": h},
        )  # fmt: skip
