"""Intervals, resampling and tests of privfair.core.statistics."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from privfair.core.exceptions import InvalidParameterError, LengthMismatchError
from privfair.core.statistics import (
    Interval,
    benjamini_hochberg,
    beta_binomial_shrinkage,
    bootstrap_interval,
    clopper_pearson_interval,
    holm,
    margin_permutations,
    max_t_intervals,
    multinomial_resamples,
    multiplicity_weights,
    newcombe_interval,
    null_reference,
    permutation_p_value,
    ratio_interval,
    sidak_confidence,
    tukey_critical,
    wilson_interval,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


# --- proportions ----------------------------------------------------------------------------


@pytest.mark.golden
def test_compas_intervals_are_the_published_ones():
    """False-positive rates of COMPAS, 7,214 rows, score above 4; statsmodels 0.15.0."""
    i = wilson_interval([805, 349], [1795, 1488])
    np.testing.assert_allclose(i.low, [0.425595, 0.213715], atol=1e-6)
    np.testing.assert_allclose(i.high, [0.471561, 0.256738], atol=1e-6)
    i = clopper_pearson_interval([805, 349], [1795, 1488])
    np.testing.assert_allclose(i.low, [0.425282, 0.213219], atol=1e-6)
    np.testing.assert_allclose(i.high, [0.471822, 0.256920], atol=1e-6)
    i = newcombe_interval(805, 1795, 349, 1488)
    assert (round(i.low, 6), round(i.high, 6)) == (0.182053, 0.245023)


@pytest.mark.golden
def test_newcombe_agrees_with_his_table_ii():
    """Newcombe 1998 (differences), table II, method 10: (56/70, 48/80), (9/10, 3/10), ..."""
    for args, low, high in [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((10, 10, 0, 10), 0.6075, 1.0000),
    ]:
        i = newcombe_interval(*args)
        assert (round(i.low, 4), round(i.high, 4)) == (low, high), args


@given(counts, levels)
def test_wilson_solves_its_own_equation_and_agrees_with_statsmodels(kn, level):
    k, n = kn
    i = wilson_interval(k, n, confidence=level)
    low, high = proportion_confint(k, n, alpha=1 - level, method="wilson")
    assert i.low == pytest.approx(max(low, 0), abs=1e-12)
    assert i.high == pytest.approx(min(high, 1), abs=1e-12)
    z = stats.norm.ppf(0.5 + level / 2)
    for end, edge in ((i.low, k == 0), (i.high, k == n)):
        if not edge:  # |p_hat - p| = z sqrt(p (1 - p) / n)
            assert abs(k / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-9)
    assert 0 <= i.low <= k / n <= i.high <= 1


@given(counts, levels)
def test_clopper_pearson_agrees_with_its_definition(kn, level):
    k, n = kn
    i = clopper_pearson_interval(k, n, confidence=level)
    low, high = proportion_confint(k, n, alpha=1 - level, method="beta")
    assert (i.low, i.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    tail = (1 - level) / 2
    if k > 0:
        assert stats.binom.sf(k - 1, n, i.low) == pytest.approx(tail, rel=1e-6)
    if k < n:
        assert stats.binom.cdf(k, n, i.high) == pytest.approx(tail, rel=1e-6)
    upper = clopper_pearson_interval(k, n, confidence=level, alternative="upper")
    lower = clopper_pearson_interval(k, n, confidence=level, alternative="lower")
    assert (upper.low, lower.high) == (0.0, 1.0)
    assert upper.high <= i.high
    assert lower.low >= i.low


@pytest.mark.parametrize("n", [1, 2, 5, 17])
def test_clopper_pearson_covers_at_every_proportion(n):
    k = np.arange(n + 1)
    i = clopper_pearson_interval(k, n)
    for p in np.linspace(0, 1, 401):
        inside = (i.low <= p) & (p <= i.high)
        assert stats.binom.pmf(k, n, p)[inside].sum() >= 0.95 - 1e-12


def test_no_observations_give_nan_and_a_reason():
    for make in (wilson_interval, clopper_pearson_interval):
        i = make([0, 1], [0, 2])
        assert np.isnan([i.value[0], i.low[0], i.high[0]]).all()
        assert "n = 0" in i.reason
        assert not np.isnan([i.value[1], i.low[1], i.high[1]]).any()
        scalar = make(0, 0)
        assert math.isnan(scalar.value)
        assert math.isnan(scalar.low)
    assert math.isnan(newcombe_interval(1, 2, 0, 0).low)
    assert wilson_interval(1, 2).reason == ""


@pytest.mark.parametrize("bad", [(-1, 5), (6, 5), (math.nan, 5), (1, math.inf)])
def test_impossible_counts_are_refused(bad):
    for make in (wilson_interval, clopper_pearson_interval):
        with pytest.raises(InvalidParameterError):
            make(*bad)


@given(counts, counts, st.sampled_from([(0.8, 0.9), (0.9, 0.95), (0.95, 0.99)]))
def test_intervals_nest_by_level_and_hold_the_estimate(a, b, two):
    for make, args in (
        (wilson_interval, a),
        (clopper_pearson_interval, a),
        (newcombe_interval, (*a, *b)),
        (ratio_interval, (*a, *b)),
    ):
        inner, outer = (make(*args, confidence=level) for level in two)
        if math.isnan(inner.value):
            continue
        assert outer.low <= inner.low + 1e-9
        assert inner.low <= inner.value * (1 + 1e-12) + 1e-12
        assert inner.high >= inner.value * (1 - 1e-12) - 1e-12
        assert outer.high >= inner.high - 1e-9


@given(counts, counts)
def test_swapping_the_samples_mirrors_the_intervals(a, b):
    there, back = newcombe_interval(*a, *b), newcombe_interval(*b, *a)
    assert there.low == pytest.approx(-back.high, abs=1e-12)
    assert there.value == -back.value
    there, back = ratio_interval(*a, *b), ratio_interval(*b, *a)
    if 0 < there.value < math.inf:
        assert there.low == pytest.approx(1 / back.high, rel=1e-9)


@pytest.mark.parametrize("k", [10, 100, 1000])
def test_intervals_shrink_like_one_over_root_n(k):
    for make, small, large in (
        (wilson_interval, (3 * k, 10 * k), (300 * k, 1000 * k)),
        (newcombe_interval, (3 * k, 10 * k, 5 * k, 9 * k), (300 * k, 1000 * k, 500 * k, 900 * k)),
    ):
        first, second = make(*small), make(*large)
        assert (first.high - first.low) / (second.high - second.low) == pytest.approx(10, rel=0.03)


# --- ratios ---------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 39), st.just(40)),
    st.tuples(st.integers(1, 79), st.just(80)),
)
def test_ratio_intervals_agree_with_statsmodels(a, b):
    for method, theirs in (("koopman", "score"), ("log", "log")):
        i = ratio_interval(*a, *b, method=method)
        low, high = confint_proportions_2indep(
            *a, *b, compare="ratio", method=theirs, correction=False
        )
        assert (i.low, i.high) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))


def test_ratio_intervals_at_the_edges():
    assert math.isnan(ratio_interval(0, 10, 0, 10).value)
    assert "0/0" in ratio_interval(0, 10, 0, 10).reason
    assert math.isnan(ratio_interval(0, 0, 3, 10).low)
    zero = ratio_interval(0, 40, 16, 80)
    assert (zero.value, zero.low) == (0.0, 0.0)
    assert 0.3 < zero.high < 0.6
    inf = ratio_interval(16, 40, 0, 80)
    assert (inf.value, inf.high) == (math.inf, math.inf)
    assert inf.low == pytest.approx(8.6758626, rel=1e-6)
    both = ratio_interval(40, 40, 80, 80)
    assert both.low < 1 < both.high < 1.1
    assert math.isnan(ratio_interval(0, 40, 16, 80, method="log").low)


# --- bootstrap ------------------------------------------------------------------------------


def test_multinomial_tables_keep_total_shape_and_empty_cells():
    table = np.array([[5, 0], [2, 3]], dtype=np.uint8)
    drawn = multinomial_resamples(table, 500, np.random.default_rng(0))
    assert drawn.shape == (500, 2, 2)
    assert (drawn.sum(axis=(1, 2)) == 10).all()
    assert (drawn[:, 0, 1] == 0).all()
    fixed = multinomial_resamples(
        table, 500, np.random.default_rng(0), strata=[["a", "a"], ["b", "b"]]
    )
    assert (fixed.sum(axis=2) == [5, 5]).all()
    with pytest.raises(InvalidParameterError):
        multinomial_resamples([0.5, 1], 3, np.random.default_rng(0))
    with pytest.raises(LengthMismatchError):
        multinomial_resamples([1, 1], 3, np.random.default_rng(0), strata=[1])


@pytest.mark.statistical
def test_bootstrap_by_cells_is_the_bootstrap_by_rows():
    """Two-sample Kolmogorov-Smirnov test, n = 4,000 each, alpha = 1e-6 (critical 0.06).

    Power: without replacement every draw would equal the data (distance 1); cells drawn as
    independent binomials with the row total free shift the distance to about 0.1.
    """
    rng = np.random.default_rng(5)
    table = np.array([[30, 20], [25, 60]])
    rows = np.repeat(np.arange(4), table.reshape(-1))
    cells = multinomial_resamples(table, 4000, rng)
    picked = rng.choice(rows, size=(4000, rows.size))
    by_rows = np.stack([(picked == c).sum(axis=1) for c in range(4)], axis=1).reshape(-1, 2, 2)

    def gap(t):
        return t[:, 0, 1] / t[:, 0].sum(axis=1) - t[:, 1, 1] / t[:, 1].sum(axis=1)

    limit = math.sqrt(-math.log(1e-6 / 2) / 2 * (2 / 4000))
    assert stats.ks_2samp(gap(cells), gap(by_rows)).statistic < limit
    assert cells.reshape(4000, 4).std(axis=0).min() > 1  # with replacement


@pytest.mark.statistical
@pytest.mark.parametrize("counts", [[1] * 12, [2, 1, 1, 1, 3], [40, 1, 9]])
def test_multiplicities_have_the_multinomial_moments(counts):
    """Means and variances of 20,000 draws within 5.5 standard errors (alpha < 1e-6).

    Power: Poisson weights would not add up to n, which is asserted exactly.
    """
    c = np.array(counts)
    n, b = c.sum(), 20_000
    w = multiplicity_weights(c, b, np.random.default_rng(1))
    assert (w.sum(axis=1) == n).all()
    var = c * (1 - c / n)
    assert (np.abs(w.mean(axis=0) - c) < 5.5 * np.sqrt(var / b)).all()
    assert (np.abs(w.var(axis=0) / np.maximum(var, 1e-9) - 1) < 5.5 * np.sqrt(8 / b)).all()


def test_bootstrap_interval_methods():
    draws = np.random.default_rng(0).exponential(1.0, 9999)
    value = 0.8
    tail = np.quantile(draws, [0.025, 0.975], method="weibull")
    p = bootstrap_interval(draws, value, method="percentile")
    b = bootstrap_interval(draws, value, method="basic")
    assert (p.low, p.high) == (pytest.approx(tail[0]), pytest.approx(tail[1]))
    assert (b.low, b.high) == (pytest.approx(1.6 - tail[1]), pytest.approx(1.6 - tail[0]))


def test_bca_agrees_with_scipy():
    x = np.random.default_rng(3).gamma(6.0, size=200)
    rng = np.random.default_rng(4)
    reference = stats.bootstrap((x,), np.mean, n_resamples=9999, method="BCa", rng=rng)
    influence = x - x.mean()
    a = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    ours = bootstrap_interval(
        reference.bootstrap_distribution, x.mean(), method="bca", acceleration=a
    )
    assert ours.low == pytest.approx(reference.confidence_interval.low, rel=5e-3)
    assert ours.high == pytest.approx(reference.confidence_interval.high, rel=5e-3)


def test_bootstrap_interval_says_why_there_is_none():
    assert bootstrap_interval([math.nan] * 6 + [1.0] * 4, 1.0).reason.startswith("undefined in")
    assert math.isnan(bootstrap_interval([1.0, 2.0], math.nan).low)
    assert "one side" in bootstrap_interval([2.0, 3.0], 1.0, method="bca").reason
    some = bootstrap_interval([math.nan, 1.0, 2.0, 3.0], 2.0, method="percentile")
    assert (some.low, some.high) == (1.0, 3.0)
    with pytest.raises(LengthMismatchError):
        bootstrap_interval([[1.0, 2.0]], 1.0)


# --- permutation ----------------------------------------------------------------------------


def test_permutation_p_value_counts_the_data_themselves():
    assert permutation_p_value(10.0, np.zeros(99)) == 0.01
    assert permutation_p_value(0.0, np.zeros(99)) == 1.0
    assert permutation_p_value(0.0, np.ones(99), alternative="less") == 0.01
    assert permutation_p_value(1.0, [1.0 - 1e-14]) == 1.0  # a tie up to rounding
    assert permutation_p_value(1.0, [math.nan]) == 1.0
    assert math.isnan(permutation_p_value(math.nan, [1.0]))
    with pytest.raises(InvalidParameterError):
        permutation_p_value(1.0, [])


@pytest.mark.statistical
def test_permutation_p_value_is_valid():
    """Under the null P(p <= a) <= a: 40,000 p-values from 19 draws, alpha = 1e-6.

    Power: without the added one P(p <= 0.05) would be 0.1, which is 40 standard errors away.
    """
    rng = np.random.default_rng(0)
    draws = rng.random((40_000, 20))
    p = np.array([permutation_p_value(row[0], row[1:]) for row in draws])
    for a in (0.05, 0.1, 0.5):
        bound = a + 4.9 * math.sqrt(a * (1 - a) / p.size)
        assert (p <= a + 1e-12).mean() <= bound


def test_margin_permutations_have_the_exact_law():
    """All outcomes of groups (2, 1, 2) with 2 marks against enumeration, chi-square 1e-6."""
    sizes, b = (2, 1, 2), 50_000
    drawn = margin_permutations(sizes, 2, b, np.random.default_rng(0))
    rows = np.repeat([0, 1, 2], sizes)
    exact: dict[tuple[int, ...], int] = {}
    for pick in itertools.combinations(range(5), 2):
        key = tuple(np.bincount(rows[list(pick)], minlength=3).tolist())
        exact[key] = exact.get(key, 0) + 1
    seen = dict.fromkeys(exact, 0)
    for row in map(tuple, drawn.tolist()):
        seen[row] += 1  # a KeyError is an impossible table
    expected = np.array([exact[k] / 10 * b for k in exact])
    chi = (((np.array([seen[k] for k in exact]) - expected) ** 2) / expected).sum()
    assert chi < stats.chi2.ppf(1 - 1e-6, len(exact) - 1)
    with pytest.raises(InvalidParameterError):
        margin_permutations([1, 1], 3, 2, np.random.default_rng(0))


def test_null_reference_of_gaps_and_of_ratios():
    draws = np.linspace(0, 1, 101)
    gap = null_reference(0.99, draws)
    assert (gap.expected, gap.q95) == (pytest.approx(0.5), pytest.approx(0.95))
    assert gap.p_value == pytest.approx(3 / 102)
    ratio = null_reference(0.01, draws, alternative="less")
    assert ratio.q95 == pytest.approx(0.05)
    assert ratio.p_value == pytest.approx(3 / 102)
    assert null_reference(1.0, [math.nan]) is None


# --- several at once ------------------------------------------------------------------------


def test_tukey_critical_is_normal_for_two_groups_and_grows():
    assert tukey_critical(2, 0.95) == pytest.approx(1.959964, abs=1e-6)
    # table of the studentised range, infinite degrees of freedom: 3.31, 4.03, 4.47
    for groups, q in ((3, 3.314), (6, 4.030), (10, 4.474)):
        assert tukey_critical(groups, 0.95) * math.sqrt(2) == pytest.approx(q, abs=1e-3)
    assert sidak_confidence(0.95, 1) == 0.95


@pytest.mark.statistical
def test_max_t_covers_all_quantities_at_once():
    """500 data sets of 4 correlated means, nominal 95 %.

    Coverage >= 0.90: a true 0.95 falls below it with probability < 1e-6 (binomial); single
    intervals would cover all four with about 0.85 and fail.
    """
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(500):
        x = rng.normal(size=(80, 1)) * 0.3 + rng.normal(size=(80, 4))
        weights = multiplicity_weights(np.ones(80, dtype=int), 400, rng) / 80
        i = max_t_intervals(x.mean(axis=0), weights @ x)
        hits += bool(((i.low <= 0) & (i.high >= 0)).all())
    assert hits / 500 >= 0.90


def test_max_t_refuses_certainty():
    draws = np.random.default_rng(0).normal(size=(200, 2))
    draws[:, 1] = 1.0
    i = max_t_intervals([0.0, 1.0], draws)
    assert not math.isnan(i.low[0])
    assert math.isnan(i.low[1])
    assert "do not vary" in i.reason
    with pytest.raises(LengthMismatchError):
        max_t_intervals([0.0], draws)


@pytest.mark.parametrize("size", [1, 2, 7, 12])
def test_adjusted_p_values_agree_with_statsmodels(size):
    p = np.random.default_rng(size).random(size) ** 3
    p[-1] = p[0]  # a tie
    for ours, theirs in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        np.testing.assert_allclose(ours(p), multipletests(p, method=theirs)[1], atol=1e-12)


def test_adjusted_p_values_keep_nan_and_refuse_nonsense():
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([0.01, math.nan])[0] == 0.01
    assert benjamini_hochberg([math.nan, 0.02])[1] == 0.02
    with pytest.raises(InvalidParameterError):
        holm([1.5])


# --- shrinkage ------------------------------------------------------------------------------


def test_shrinkage_pulls_small_groups_most_and_keeps_order_of_size():
    k, n = np.array([9, 90, 900, 0]), np.array([10, 300, 3000, 0])
    s = beta_binomial_shrinkage(k, n)
    raw = np.array([0.9, 0.3, 0.3])
    assert 0.3 < s.value[0] < 0.9
    assert abs(s.value[2] - raw[2]) < 0.01
    assert s.value[3] == pytest.approx(s.mean)  # an empty group gets the prior
    assert (s.low <= s.value).all()
    assert (s.value <= s.high).all()
    few = beta_binomial_shrinkage([1, 2], [3, 4])
    assert np.isnan(few.value).all()
    assert few.reason


def test_shrinkage_finds_the_maximum_likelihood():
    """Against a general optimiser on the same marginal likelihood."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    n = rng.integers(5, 200, 25)
    k = rng.binomial(n, rng.beta(4, 8, 25))
    s = beta_binomial_shrinkage(k, n)

    def loss(t):
        m, v = 1 / (1 + math.exp(-t[0])), math.exp(t[1])
        return -stats.betabinom.logpmf(k, n, m * v, (1 - m) * v).sum()

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead").fun
    assert loss([math.log(s.mean / (1 - s.mean)), math.log(s.precision)]) == pytest.approx(
        best, abs=1e-5
    )


def test_shrinkage_beats_raw_rates_on_average():
    """Mean squared error over 200 replicated sets of 20 small groups: at least 20 % less."""
    rng = np.random.default_rng(1)
    raw = shrunk = 0.0
    for _ in range(200):
        truth = rng.beta(8, 12, 20)
        n = rng.integers(3, 30, 20)
        k = rng.binomial(n, truth)
        raw += ((k / n - truth) ** 2).sum()
        shrunk += ((beta_binomial_shrinkage(k, n).value - truth) ** 2).sum()
    assert shrunk < 0.8 * raw


def test_interval_contains():
    value, low, high = np.array([[0.5, np.nan], [0.4, np.nan], [0.6, np.nan]])
    i = Interval(value, low, high, 0.95, "x")
    assert i.contains(0.5).tolist() == [True, False]
