"""The exponential mechanism, private quantiles, thresholded discovery."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.accounting import Ledger, guarantee
from privfair.core import Categorical
from privfair.core.exceptions import (
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.core.randomness import secret_stream
from privfair.mechanisms import DPQuantile, DPSetDiscovery, column_codes, discovery_threshold
from privfair.mechanisms._choice import exact_choice
from privfair.mechanisms._sampling import BitSource
from tests.helpers_dp_tester import refuted


def quantile_law(values, p, grid, epsilon):
    """The law in floating point, written down independently of the code."""
    values = np.asarray(values, dtype=float)
    quality = np.array([-abs((1 - p) * (values < v).sum() - p * (values > v).sum()) for v in grid])
    weight = np.exp(epsilon * (quality - quality.max()) / (2 * max(p, 1 - p)))
    return weight / weight.sum()


# -- the draw -----------------------------------------------------------------------------
@pytest.mark.statistical
def test_choice_has_the_exact_law():
    # n = 4e4, alpha = 1e-6; energies off by 5 % are refused (noncentrality above 50).
    energies = [Fraction(0), Fraction(1, 3), Fraction(2), Fraction(2), Fraction(500)]
    members = [1, 4, 2, 1, 10**6]
    source = BitSource(secret_stream(1).uint64)
    draws = [exact_choice(energies, members, source) for _ in range(40_000)]
    assert {m for i, m in draws if i == 1} == {0, 1, 2, 3}
    observed = np.bincount([i for i, _ in draws], minlength=5)

    def p_value(stretch):
        weight = np.array(
            [m * math.exp(-stretch * e) for m, e in zip(members, energies, strict=True)]
        )
        return stats.chisquare(observed[:4], weight[:4] / weight[:4].sum() * 40_000).pvalue

    assert observed[4] == 0
    assert p_value(1.0) > 1e-6
    assert p_value(1.15) < 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize("p", [0.5, 0.1])
def test_quantile_has_the_exact_law(p):
    values = [1, 2, 2, 5, 9, 9, 9, 3]
    law = quantile_law(values, p, np.arange(11), 1.5)
    mechanism = DPQuantile(p, 0, 10, 1.5, steps=10, noise_random_state=2)
    draws = np.bincount([int(mechanism.release(values)) for _ in range(6000)], minlength=11)
    assert stats.chisquare(draws, law * 6000).pvalue > 1e-6
    wrong = quantile_law(values, p, np.arange(11), 3.0)
    assert stats.chisquare(draws, wrong * 6000).pvalue < 1e-6


# -- privacy on small domains, by enumeration -----------------------------------------------
@pytest.mark.parametrize("p", [0.5, 0.25, 0.9, 0.0, 1.0])
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_quantile_ratio_over_all_small_data_sets(p, epsilon):
    from itertools import combinations_with_replacement

    grid, domain = np.arange(4.0), [0.0, 1.0, 1.5, 3.0]
    claimed = guarantee(DPQuantile(p, 0, 3, epsilon, steps=3).cost(), delta=0.0).epsilon
    worst = 0.0
    for size in range(4):
        for values in combinations_with_replacement(domain, size):
            law = np.log(quantile_law(values, p, grid, epsilon))
            for extra in domain:
                other = np.log(quantile_law([*values, extra], p, grid, epsilon))
                worst = max(worst, float(np.abs(law - other).max()))
    assert worst <= claimed * (1 + 1e-12)
    assert worst > 0.3 * claimed  # the claim is not idle


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(), max_size=30),
    extra=st.floats(),
    p=st.floats(0, 1),
)
def test_one_record_moves_the_quality_by_at_most_the_sensitivity(values, extra, p):
    mechanism = DPQuantile(p, -5, 5, 1.0, steps=20)

    def quality(data):
        kept = mechanism._prepare(np.array(data, dtype=float))
        left = np.searchsorted(kept, mechanism.candidates, side="left")
        right = len(kept) - np.searchsorted(kept, mechanism.candidates, side="right")
        return [
            -abs((1 - Fraction(p)) * a - Fraction(p) * b)
            for a, b in zip(left.tolist(), right.tolist(), strict=True)
        ]

    moved = max(
        abs(a - b) for a, b in zip(quality(values), quality([*values, extra]), strict=True)
    )
    assert moved <= Fraction(max(p, 1 - p)) + Fraction(1, 2**50)
    assert DPQuantile(p, -5, 5, 1.0, neighboring="replace_one").sensitivity == 1.0


@pytest.mark.statistical
def test_quantile_claim_is_not_refuted_and_a_doubled_one_is():
    # alpha = 1e-6, n = 5000 each. Power: at epsilon 2 against a claim of 0.5 on an empty data
    # set and three equal records, delta(0.5) is above 0.3.
    def draw(epsilon):
        mechanism = DPQuantile(0.5, 0, 4, epsilon, steps=4, noise_random_state=5)
        return lambda data, n: [mechanism.release(data) for _ in range(n)]

    assert not refuted(draw(0.5), [3.0], [3.0, 3.0], 0.5, n=5000)
    assert refuted(draw(4.0), [], [3.0, 3.0, 3.0], 0.5, n=5000)


def test_threshold_is_the_smallest_that_keeps_delta():
    for epsilon in (Fraction(1, 10), Fraction(1), Fraction(3)):
        for delta in (Fraction(1, 100), Fraction(1, 10**6), Fraction(1, 10**12)):
            t = discovery_threshold(epsilon, delta)

            def shows(k, e=epsilon):  # P(1 + X > k) for discrete Laplace X, k >= 1
                return math.exp(-float(e) * k) / (1 + math.exp(-float(e)))

            assert shows(t) <= delta * (1 + 1e-9)
            assert t == 1 or shows(t - 1) > delta * (1 - 1e-9)


@pytest.mark.parametrize("neighboring", ["zero_out", "replace_one"])
def test_discovery_claim_on_a_small_domain(neighboring):
    # Exact laws of the named set with its counts, for one category that comes or goes.
    mechanism = DPSetDiscovery(1.0, 0.01, neighboring=neighboring)
    a, t = float(mechanism._each), mechanism.threshold
    norm = math.tanh(a / 2)

    def law(count):  # None: not named
        if count == 0:
            return {None: 1.0}
        named = {k: norm * math.exp(-a * abs(k - count)) for k in range(t + 1, 200)}
        return {None: 1 - sum(named.values()), **named}

    def hockey_stick(p, q, epsilon):
        return sum(max(0.0, p[x] - math.exp(epsilon) * q.get(x, 0.0)) for x in p)

    event = mechanism.cost()
    for count in range(8):
        for p, q in ((law(count), law(count + 1)), (law(count + 1), law(count))):
            assert hockey_stick(p, q, event.eps) <= event.delta * (1 + 1e-9)
    priced = guarantee(event, delta=0.01, neighboring=neighboring)
    assert priced.epsilon <= 1.0 + 1e-9
    assert hockey_stick(law(1), law(0), event.eps) > 0.2 * event.delta  # delta is needed


# -- use ----------------------------------------------------------------------------------
def test_quantiles_are_accurate_with_budget_and_sorted():
    rng = np.random.default_rng(0)
    values = rng.normal(50, 10, 5000)
    mechanism = DPQuantile([0.9, 0.1, 0.5], 0, 100, 3.0, noise_random_state=1)
    high, low, middle = mechanism.release(values)
    for found, p in ((high, 0.9), (low, 0.1), (middle, 0.5)):
        assert abs(stats.norm.cdf((found - 50) / 10) - p) < 0.02
    unsure = DPQuantile([0.9, 0.1, 0.5], 0, 100, 0.01, noise_random_state=1)
    for _ in range(20):
        high, low, middle = unsure.release(values[:5])
        assert low <= middle <= high


def test_quantile_inputs():
    mechanism = DPQuantile(0.5, 0, 10, 50.0, steps=10, noise_random_state=0)
    assert isinstance(mechanism.release([5.0]), float)
    assert mechanism.release(np.array([np.nan] * 5)) == 0.0
    assert mechanism.release([np.inf] * 5) == 10.0
    assert 0 <= mechanism.release([]) <= 10
    assert mechanism.release(pd.Series([3, 3, 3])) == 3.0
    assert DPQuantile(0.5, 0, 10, 50.0, grid=[1, 7]).release([6, 7, 8] * 5) == 7.0
    assert mechanism.release(np.array([4] * 9)[::-1]) == 4.0


def test_several_quantiles_split_the_budget():
    event = DPQuantile([0.1, 0.5, 0.9], 0, 1, 0.9).cost()
    assert event.count == 3
    assert event.event.eps == pytest.approx(0.3)
    assert guarantee(event, delta=0.0).epsilon == pytest.approx(0.9)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"quantiles": 1.5},
        {"quantiles": []},
        {"low": 1.0, "high": 1.0},
        {"low": float("nan")},
        {"epsilon": 0},
        {"steps": 0},
        {"steps": 2**21},
        {"grid": []},
        {"grid": [0.5, 0.5]},
        {"grid": [0.5, 2.0]},
        {"grid": [float("nan")]},
        {"low": 1.0, "high": math.nextafter(1.0, 2.0)},
        {"neighboring": "all"},
    ],
)
def test_bad_quantile_parameters(kwargs):
    with pytest.raises(InvalidParameterError):
        DPQuantile(**{"quantiles": 0.5, "low": 0.0, "high": 1.0, "epsilon": 1.0, **kwargs})


def test_discovery_names_frequent_categories_in_an_order_of_their_own():
    rows = ["b"] * 300 + ["a"] * 300 + [None] * 300 + ["rare"]
    mechanism = DPSetDiscovery(1.0, 1e-9, noise_random_state=0)
    for data in (rows, rows[::-1], pd.Series(rows), np.array(rows, dtype=object)):
        assert list(mechanism.release(data)) == ["a", "b"]
    assert list(mechanism.release(np.repeat([7, 3], 200))) == [3, 7]
    assert mechanism.release([]) == {}
    mixed = np.array([True] * 90 + ["1"] * 90 + [3] * 90, dtype=object)
    assert len(mechanism.release(mixed)) == 3


@pytest.mark.statistical
def test_a_lone_category_shows_as_rarely_as_promised():
    # 2e4 data sets in one: 2e4 categories of one record each; expected 20 at delta = 1e-3.
    rows = [f"c{i}" for i in range(20_000)]
    shown = len(DPSetDiscovery(0.5, 1e-3, noise_random_state=3).release(rows))
    t = discovery_threshold(Fraction(1, 2), Fraction(1, 1000))
    rate = math.exp(-0.5 * t) / (1 + math.exp(-0.5))
    assert stats.binomtest(shown, 20_000, rate).pvalue > 1e-6
    assert stats.binomtest(shown, 20_000, 2 * rate).pvalue < 1e-2


def test_bad_discovery_parameters():
    for bad in ({"epsilon": 0.0}, {"delta": 0.0}, {"delta": 1.0}, {"epsilon": 1e4}):
        with pytest.raises((InvalidParameterError, InvalidBudgetError)):
            DPSetDiscovery(**{"epsilon": 1.0, "delta": 1e-6, **bad})


EQUAL_TO_EACH_OTHER = [
    (1, True),
    (1, 1.0),
    (1, np.int8(1)),
    (1, np.float32(1.0)),
    (0, np.bool_(False)),
    (0.0, -0.0),
    (0.5, np.float64(0.5)),
    ("a", np.str_("a")),
    (2**60, float(2**60)),
]


@pytest.mark.parametrize(("usual", "odd"), EQUAL_TO_EACH_OTHER)
@pytest.mark.parametrize("place", [0, 250])
@pytest.mark.parametrize("as_list", [True, False])
def test_one_record_of_another_type_does_not_rename_a_category(usual, odd, place, as_list):
    def release(rows):
        if not as_list:
            array = np.empty(len(rows), dtype=object)
            array[:] = rows
            rows = array
        found = DPSetDiscovery(1.0, 1e-9, noise_random_state=0).release(rows)
        return [(type(name), repr(name)) for name in found]

    for common, rare in ((usual, odd), (odd, usual)):
        rows = [common] * 500
        assert release([*rows[:place], rare, *rows[place:]]) == release(rows)


def test_one_record_does_not_change_the_type_of_a_whole_column():
    plain = DPSetDiscovery(1.0, 1e-9, noise_random_state=0).release([1] * 500)
    for odd in ("x", 2.5, None, float("nan"), True):
        for rows in ([1] * 500 + [odd], pd.Series([1] * 500 + [odd])):
            found = DPSetDiscovery(1.0, 1e-9, noise_random_state=0).release(rows)
            assert [(type(n), n) for n in found] == [(type(n), n) for n in plain]


def test_equal_names_of_two_kinds_share_a_place_after_the_noise_only():
    mechanism = DPSetDiscovery(1.0, 1e-9, noise_random_state=0)
    keys, counts = mechanism._prepare([True] * 300 + [1] * 200 + [0, -0.0])
    assert list(zip(keys, counts.tolist(), strict=True)) == [
        (("boolean", True), 300),
        (("number", 0), 2),
        (("number", 1), 200),
    ]
    found = mechanism.release([1] * 200 + [True] * 300)
    assert [(type(name), name) for name in found] == [(bool, True)]
    assert 400 < found[True] < 600


@pytest.mark.parametrize("odd", [Fraction(1), (1,), object(), 1j, pd.Timestamp("2020-01-01")])
def test_categories_of_no_known_kind_are_refused_before_the_charge(odd):
    ledger = Ledger()
    with pytest.raises(InvalidTypeError, match="Convert the column to text") as caught:
        DPSetDiscovery(1.0, 1e-6).release([1, odd], ledger=ledger)
    assert "2020" not in str(caught.value)
    assert not list(ledger.entries())
    with pytest.raises(InvalidTypeError, match="Convert them to text"):
        DPSetDiscovery(1.0, 1e-6).release(np.array(["2020-01-01"], dtype="datetime64[D]"))


@pytest.mark.parametrize("declared", [(0, 1), (False, True), (0.0, 1.0)])
def test_one_record_does_not_decide_whether_others_match_the_declared_values(declared):
    for usual in (True, 1, 1.0):
        for odd in (0, False, 0.0, "x", None, [1]):
            values = np.array([usual] * 20 + [None], dtype=object)
            values[-1] = odd
            codes = column_codes("c", values, Categorical(declared, other="other"))
            assert codes[:-1].tolist() == [1] * 20
    typed = np.array([True, False])
    assert column_codes("c", typed, Categorical(declared)).tolist() == [1, 0]
