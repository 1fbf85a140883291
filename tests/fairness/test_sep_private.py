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
    IncompatibleNeighboringError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    PrivacyError,
    WeakGuaranteeError,
)
from privfair.fairness import EffortRule, SESRule, csep_violation, sep_gaps, sep_violation
from privfair.fairness.sep._private import (
    STEPS,
    contributions,
    noisy_gaps,
    sensitivity,
)
from privfair.fairness.sep._sets import read_decisions, read_sets

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
    bound = sensitivity() * STEPS
    for i in range(n):
        moved = whole - sums(np.delete(np.arange(n), i))
        assert Fraction(int((moved.astype(object) ** 2).sum())) <= bound**2


def test_the_sensitivity_is_attained() -> None:
    for everyone in (False, True):
        one = read_sets(["a"], [True], groups=["a", "b"], everyone=everyone, rows=[1.0])
        length = np.linalg.norm(contributions(one, np.ones(1)))
        assert length / STEPS == pytest.approx(math.sqrt(2))
        assert contributions(one, np.ones(1)).max() == STEPS
        assert length <= float(sensitivity()) * STEPS * (1 + 1e-15)


def test_no_record_decides_how_others_are_read() -> None:
    """One fraction among decisions, or labels that equal the status, change nothing for others."""
    h = (np.arange(1000) < 300).astype(float)
    s, low = np.repeat("a", 1000), np.arange(1000) % 2 == 1
    other = h.copy()
    other[0] = 0.5
    for pos_label in (0.0, 1, "x"):
        sums = [
            contributions(
                read_sets(s, low, groups=["a"], rows=rows),
                read_decisions(rows, pos_label, per_record=True),
            )
            for rows in (h, other)
        ]
        moved = np.linalg.norm((sums[0] - sums[1]).astype(float)) / STEPS
        assert moved <= math.sqrt(2) * (1 + 1e-12)
        found = sep_violation.estimate(
            None, other, sensitive_features=s, ses_features=low, groups=["a"],
            pos_label=pos_label, privacy=BUDGET, ledger=Ledger(),
        )  # fmt: skip
        assert found.n == 1000
    ledger = Ledger()
    for labels in (low.astype(int), 1 - low.astype(int), h):
        sep_violation.estimate(
            labels, h, sensitive_features=s, ses_features=low, groups=["a"], privacy=BUDGET,
            ledger=ledger,
        )  # fmt: skip
    assert len(ledger) == 3
    with pytest.raises(LabelError, match="fractions"):
        sep_violation(None, other, sensitive_features=s, ses_features=low, pos_label=0.0)


def test_cells_make_up_the_exact_table() -> None:
    """Without noise the released cells give the table of gaps, parts and shares included."""
    rng = np.random.default_rng(2)
    n = 3000
    h, s = np.round(rng.random(n) * STEPS) / STEPS, rng.choice(["a", "b", "other"], n)
    low, effort = rng.random(n) < 0.5, rng.random(n) < 0.6
    for shown, reference in ((None, "conditional"), (effort, "conditional"), (effort, "overall")):
        for everyone in (False, True):
            columns = {"effort": shown, "reference": reference, "groups": ["a", "b"]}
            sets = read_sets(s, low, everyone=everyone, rows=h, **columns)
            table = noisy_gaps(contributions(sets, h) / STEPS, 1e-9, everyone=everyone)
            exact = sep_gaps(h, s, low, protected="all" if everyone else "groups", **columns)
            for name in ("gap", "dp_part", "ses_part", "gap_to_rest", "rate_target", "n_target"):
                assert np.allclose(getattr(table, name), exact[name], atol=1e-6), name
            # r (1 - r) bounds the variance of scores.
            assert (table.se >= exact["se"] * (1 - 1e-6)).all()
            binary = (h > 0.5).astype(float)
            table = noisy_gaps(contributions(sets, binary) / STEPS, 1e-9, everyone=everyone)
            exact = sep_gaps(binary, s, low, protected="all" if everyone else "groups", **columns)
            assert np.allclose(table.se, exact["se"], rtol=0.01)


def test_one_charge_and_a_certificate() -> None:
    h, columns = rows_of()
    ledger = Ledger()
    e = sep_violation.estimate(None, h, **columns, privacy=BUDGET, ledger=ledger)
    assert len(ledger) == 1
    assert e.privacy.certified and 0.99 < e.privacy.epsilon <= 1.0 and e.privacy.delta == 1e-6
    (event,) = e.privacy.events
    assert guarantee(event, delta=1e-6).epsilon == pytest.approx(e.privacy.epsilon)
    assert e.details["noise_scale"] / math.sqrt(2) == pytest.approx(event.sigma, rel=1e-6)
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
        sums = [5e2, 1e3, 5e2, 1e3, 3e3, 5e3, 2e3, 5e3, 1e3, 3e3, 4e2, 2e3]
        fixed = np.array(sums) * STEPS if fixed is None else fixed
        return fixed

    monkeypatch.setattr(DiscreteGaussianMechanism, "release", release)
    found = []
    for seed in (1, 2):
        h, columns = rows_of(20_000, seed=seed)
        e = csep_violation.estimate(
            None, h, **columns, effort_features=np.random.default_rng(seed).random(20_000) < 0.5,
            privacy=BUDGET, ledger=Ledger(), random_state=0,
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
            sigma * STEPS, 2 * STEPS, size=12, noise_random_state=seed
        )
        table = noisy_gaps(noise.release(contributions(sets, h)) / STEPS, sigma)
        hits += abs(table.gap[1] - truth) <= 1.96 * table.se[1]
        narrow += abs(table.gap[1] - truth) <= 1.96 * math.sqrt(0.3 * 0.7 / 600)
    assert binomtest(hits, 400, 0.95, alternative="less").pvalue > 1e-3
    # The noise matters here: intervals of sampling alone would fail visibly.
    assert binomtest(narrow, 400, 0.95, alternative="less").pvalue < 1e-6


def test_small_noisy_sizes_have_no_gap() -> None:
    sigma = 9.0
    cells = [0.0, 0.0, 0.0, 0.0, 20.0, 100.0, 30.0, 89.0, 10.0, 100.0, 40.0, 91.0]
    table = noisy_gaps(np.array(cells), sigma)
    assert np.isnan(table.gap[0]) and not np.isnan(table.gap[1])
    assert "ten standard deviations" in table.note[0]
    h, columns = rows_of(150)
    e = sep_violation.estimate(
        None, h, **columns, privacy=Budget(0.3, 1e-6), ledger=Ledger(), noise_random_state=0
    )
    assert e.status == "not_estimable" and math.isnan(e.value)


def test_the_standard_error_is_that_of_simulated_releases() -> None:
    rng = np.random.default_rng(0)
    n, share, p_g, p_rest, sigma = 6000, 0.25, 0.25, 0.45, 12.0
    gaps, stated = [], []
    for _ in range(3000):
        n_g = rng.binomial(n, share)
        exact = np.zeros((2, 2, 2))
        exact[1, 1] = rng.binomial(n_g, p_g), n_g
        exact[1, 0] = rng.binomial(n - n_g, p_rest), n - n_g
        table = noisy_gaps((exact + rng.normal(0, sigma, (2, 2, 2))).reshape(-1), sigma)
        gaps.append(table.gap[0])
        stated.append(table.se[0])
    assert np.mean(stated) == pytest.approx(np.std(gaps), rel=0.06)  # 1.3 %, 4 errors


def test_the_null_of_a_release() -> None:
    """Without any gap p-values are above 0.01 in 99 of 100 runs; a wide gap is seen."""
    rng = np.random.default_rng(0)
    s, low = rng.choice(["a", "b"], 20_000), rng.random(20_000) < 0.5
    columns = {"sensitive_features": s, "ses_features": low, "groups": ["a", "b"]}
    p_values = []
    for seed in range(60):
        e = sep_violation.estimate(
            None, (rng.random(20_000) < 0.3).astype(float), **columns, privacy=BUDGET,
            ledger=Ledger(), n_resamples=400, random_state=seed, noise_random_state=seed,
        )  # fmt: skip
        p_values.append(e.null.p_value)
    assert binomtest(int(np.sum(np.array(p_values) <= 0.1)), 60, 0.1).pvalue > 1e-3
    h, columns = rows_of()
    e = sep_violation.estimate(None, h, **columns, privacy=BUDGET, ledger=Ledger())
    assert e.null.p_value < 0.01 and 0 < e.null.expected < e.null.q95 < 0.1
    frame = e.by_group
    assert np.allclose(frame["dp_part"] + frame["ses_part"], frame["gap"])


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


def test_a_ledger_of_another_unit_is_refused() -> None:
    h, columns = rows_of(3000)
    for unit in ("user", "client"):
        ledger = Ledger(unit=unit)
        with pytest.raises(IncompatibleNeighboringError, match=f"per {unit}"):
            sep_violation.estimate(None, h, **columns, privacy=BUDGET, ledger=ledger)
        assert len(ledger) == 0
    charged = Ledger(neighboring="replace_one")
    sep_violation.estimate(None, h, **columns, privacy=BUDGET, ledger=charged)
    assert charged.spent().epsilon > 1.9  # at twice the sensitivity


def test_ranked_effort_is_refused() -> None:
    h, columns = rows_of(3000)
    with pytest.raises(PrivacyError, match="constant threshold"):
        csep_violation.estimate(
            None, h, **columns, privacy=BUDGET, ledger=Ledger(),
            effort=EffortRule("e", rank_within=["ses"]), effort_features={"e": h},
        )  # fmt: skip
