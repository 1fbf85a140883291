"""Exact samplers: law, equality of the two paths, exactness of the tables, limits."""

from __future__ import annotations

import heapq
import math
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import InvalidParameterError
from privfair.core.randomness import secret_stream
from privfair.mechanisms import _lattice, _sampling, discrete_gaussian, discrete_laplace
from privfair.mechanisms._lattice import GaussianLaw, LaplaceLaw, TableSampler, exp_bounds
from privfair.mechanisms._sampling import BitSource

ALPHA = 1e-6


def source(seed):
    return BitSource(secret_stream(seed).uint64)


def gaussian_pmf(sigma, x):
    grid = np.arange(-int(40 * sigma) - 40, int(40 * sigma) + 41)
    total = np.exp(-(grid**2) / (2 * sigma**2)).sum()
    return np.exp(-(x**2) / (2 * sigma**2)) / total


def laplace_pmf(scale, x):
    return math.tanh(1 / (2 * scale)) * np.exp(-np.abs(x) / scale)


def chi_square(draws, pmf, scale):
    """P-value of the draws against a pmf; cells with an expectation below 25 are pooled."""
    reach = int(8 * scale) + 4
    x = np.arange(-reach, reach + 1)
    width = max(1, int(scale / 8))
    cells = np.unique(x // width)
    expected = np.bincount((x // width) - cells[0], weights=pmf(x)) * len(draws)
    inside = draws[np.abs(draws) <= reach]
    observed = np.bincount((inside // width) - cells[0], minlength=len(cells)).astype(float)
    keep = expected >= 25
    e = np.append(expected[keep], max(len(draws) - expected[keep].sum(), 0.0))
    o = np.append(observed[keep], len(draws) - observed[keep].sum())
    if e[-1] < 5:  # an empty rest has no cell of its own: unlikely values would give it away
        if o[-1] > 60:
            return 0.0
        e, o = e[:-1] * (o[:-1].sum() / e[:-1].sum()), o[:-1]
    return float(stats.chisquare(o, e).pvalue)


# -- the law ------------------------------------------------------------------------------
@pytest.mark.statistical
@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 3.7, 100.0, 12_345.6])
def test_vectorised_gaussian_has_the_exact_law(sigma):
    # H0: the pmf. n = 1e6, alpha = 1e-6. Power against a sigma off by 5 %: the noncentrality
    # is at least 700 (sigma = 0.3) on at most 140 degrees of freedom, > 0.999999.
    draws = discrete_gaussian(Fraction(sigma) ** 2, 1_000_000, source(1))
    assert chi_square(draws, lambda x: gaussian_pmf(sigma, x), sigma) > ALPHA
    for wrong in (0.95 * sigma, 1.05 * sigma):
        assert chi_square(draws, lambda x, w=wrong: gaussian_pmf(w, x), sigma) < ALPHA


@pytest.mark.statistical
@pytest.mark.parametrize("scale", [0.3, 1.0, 7.3, 1e5])
def test_vectorised_laplace_has_the_exact_law(scale):
    # As above: n = 1e6, alpha = 1e-6, a scale off by 5 % is refused.
    draws = discrete_laplace(Fraction(scale), 1_000_000, source(2))
    assert chi_square(draws, lambda x: laplace_pmf(scale, x), 3 * scale) > ALPHA
    for wrong in (0.95 * scale, 1.05 * scale):
        assert chi_square(draws, lambda x, w=wrong: laplace_pmf(w, x), 3 * scale) < ALPHA


@pytest.mark.statistical
@pytest.mark.parametrize("sigma2", [Fraction(1, 3), Fraction(25, 4)])
def test_scalar_and_vectorised_paths_have_one_law(sigma2):
    # H0: one law. Two-sample chi-square, 2e4 scalar against 1e6 vectorised draws, alpha = 1e-6.
    # Power at a sigma off by 5 %: noncentrality 100 on at most 20 degrees of freedom, > 0.999.
    s = source(3)
    scalar = np.array([_sampling.discrete_gaussian_scalar(sigma2, s) for _ in range(20_000)])
    sigma = math.sqrt(sigma2)
    assert chi_square(scalar, lambda x: gaussian_pmf(sigma, x), sigma) > ALPHA
    vector = discrete_gaussian(sigma2, 1_000_000, s)
    assert two_sample(scalar, vector) > ALPHA
    assert two_sample(scalar, discrete_gaussian(sigma2 * Fraction(12, 10), 1_000_000, s)) < ALPHA


@pytest.mark.statistical
@pytest.mark.parametrize("scale", [Fraction(2, 3), Fraction(9, 2)])
def test_scalar_and_vectorised_laplace_have_one_law(scale):
    # As above. Power at a scale off by 10 %: noncentrality above 100, > 0.999.
    s = source(13)
    scalar = np.array([_sampling.discrete_laplace_scalar(scale, s) for _ in range(20_000)])
    assert two_sample(scalar, discrete_laplace(scale, 1_000_000, s)) > ALPHA
    assert two_sample(scalar, discrete_laplace(scale * Fraction(11, 10), 1_000_000, s)) < ALPHA


def two_sample(a, b):
    limit = int(np.quantile(np.abs(b), 0.999))
    bins = np.arange(-limit, limit + 1)
    table = np.array([[(sample == k).sum() for k in bins] for sample in (a, b)])
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 250]).pvalue)


@pytest.mark.statistical
@pytest.mark.parametrize("law", [GaussianLaw(Fraction(121, 4)), LaplaceLaw(Fraction(17, 3))])
@pytest.mark.parametrize("column_bits", [2, 3, 5])
def test_the_law_does_not_depend_on_the_table(law, column_bits):
    # Coarse tables send most draws through the remainder: cells of many points, few columns.
    sampler = TableSampler(law, column_bits)
    assert sampler.remainder > 0.1 * (1 << (sampler.column_bits + sampler.threshold_bits))
    draws = sampler.draw(12_000, source(4))
    if isinstance(law, GaussianLaw):
        assert chi_square(draws, lambda x: gaussian_pmf(5.5, x), 5.5) > ALPHA
    else:
        assert chi_square(draws, lambda x: laplace_pmf(17 / 3, x), 17) > ALPHA


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("law", "pmf"),
    [
        (GaussianLaw(Fraction(9)), lambda x: gaussian_pmf(3.0, x)),
        (LaplaceLaw(Fraction(3)), lambda x: laplace_pmf(3.0, x)),
    ],
)
def test_the_tail_beyond_the_table_is_drawn_exactly(monkeypatch, law, pmf):
    # The table is cut at one standard deviation, so that a third of the mass is tail.
    monkeypatch.setattr(_lattice, "_CUT", 0.2)
    draws = TableSampler(law).draw(20_000, source(5))
    assert chi_square(draws, pmf, 9.0) > ALPHA


# -- exactness of the tables --------------------------------------------------------------
@pytest.mark.parametrize(
    "law",
    [
        GaussianLaw(Fraction(1, 10**4)),
        GaussianLaw(Fraction(1, 7)),
        GaussianLaw(Fraction(10**4 + 1, 3)),
        GaussianLaw(Fraction(10) ** 12),
        GaussianLaw(Fraction(2) ** 104),
        GaussianLaw(Fraction(1, 2**400)),
        LaplaceLaw(Fraction(1, 1000)),
        LaplaceLaw(Fraction(10, 3)),
        LaplaceLaw(Fraction(2) ** 52),
        LaplaceLaw(Fraction(1, 2**400)),
    ],
)
def test_tables_satisfy_the_inequality_that_makes_them_exact(law):
    sampler = TableSampler(law)
    step = max(1, len(sampler.omega) // 300)
    for j in [0, *range(0, len(sampler.omega), step), len(sampler.omega) - 1]:
        start, stop = j * sampler.cell, (j + 1) * sampler.cell - 1
        smallest = exp_bounds(*law.energy(stop), 128)[0]
        largest = exp_bounds(*law.energy(start), 128)[1]
        assert sampler.omega[j] << 128 <= sampler.kappa * smallest
        assert (sampler.omega[j] + sampler.spread[j]) << 128 >= sampler.kappa * largest
    at = sampler.tail_start
    bound = 2 * sampler.half_life * sampler.kappa * exp_bounds(*law.energy(at), 128)[1]
    assert sampler.tail_weight << 128 >= bound
    later = exp_bounds(*law.energy(at + sampler.half_life), 128)[0]
    assert 2 * later <= exp_bounds(*law.energy(at), 128)[1]


@pytest.mark.parametrize("sigma2", [Fraction(2), Fraction(10**6), Fraction(10**14)])
def test_the_alias_table_holds_the_integer_weights_exactly(sigma2):
    sampler = TableSampler(GaussianLaw(sigma2))
    capacity = 1 << sampler.threshold_bits
    mass: dict[int, int] = {}
    for column, threshold in enumerate(sampler._thresholds.tolist()):
        for base, weight in zip(
            sampler._base[2 * column : 2 * column + 2].tolist(),
            (threshold, capacity - threshold),
            strict=True,
        ):
            mass[base] = mass.get(base, 0) + weight
    for j, omega in enumerate(sampler.omega):
        assert mass.pop(j * sampler.cell, 0) == sampler.cell * omega
    assert mass == {_lattice._REMAINDER: sampler.remainder}
    assert sampler.remainder < 2e-3 * (1 << (sampler.column_bits + sampler.threshold_bits))


def test_a_table_that_breaks_its_inequality_is_noticed():
    sampler = TableSampler(GaussianLaw(Fraction(100)), column_bits=3)
    sampler.omega = [w * 2 for w in sampler.omega]
    with pytest.raises(ArithmeticError, match="inequality"):
        sampler.draw(10_000, source(6))


@settings(max_examples=200, deadline=None)
@given(num=st.integers(0, 10**6), den=st.integers(1, 10**4), bits=st.integers(1, 300))
def test_exp_bounds_enclose(num, den, bits):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(200):
        exact = mpmath.exp(-mpmath.mpf(num) / den) * mpmath.mpf(2) ** bits
        low, high = exp_bounds(num, den, bits)
        assert low <= exact <= high
    assert high - low <= 2


# -- the scalar path by enumeration -------------------------------------------------------
class _Choice(Exception):
    def __init__(self, weights):
        self.weights = weights


class _Restart(Exception):
    pass


class _Replay:
    """Feeds prescribed choices to a sampler and asks for the next one where they end."""

    def __init__(self, choices):
        self.choices = choices
        self.at = 0
        self.attempts = 0

    def next(self, weights):
        if self.at == len(self.choices):
            raise _Choice(weights)
        self.at += 1
        return self.choices[self.at - 1]

    def first(self, weights):
        """Make the choice that every attempt of a rejection loop begins with."""
        self.attempts += 1
        if self.attempts > 1:
            raise _Restart
        return self.next(weights)

    def below(self, n):
        return self.first([1 / n] * n)

    def bits(self, k):
        return self.next([0.5**k] * 2**k)


def enumerate_law(sampler, nodes=4000):
    """Return the law of a sampler and a bound on the error of each probability.

    Paths of choices are followed, the likeliest first. A rejection ends a path: the next attempt
    has the same law, so that what was accepted is only divided by its sum.
    """
    law: dict[int, float] = {}
    heap = [(-1.0, ())]
    for _ in range(nodes):
        if not heap:
            break
        weight, path = heapq.heappop(heap)
        try:
            value = sampler(_Replay(path))
        except _Choice as choice:
            for i, w in enumerate(choice.weights):
                if w:
                    heapq.heappush(heap, (weight * float(w), (*path, i)))
        except _Restart:
            pass
        else:
            law[value] = law.get(value, 0.0) - weight
    accepted = sum(law.values())
    unexplored = -sum(weight for weight, _ in heap)
    return {k: p / accepted for k, p in law.items()}, unexplored / accepted


@pytest.mark.parametrize("x", [Fraction(0), Fraction(1, 3), Fraction(1), Fraction(5, 2)])
def test_bernoulli_exp_by_enumeration(x, monkeypatch):
    monkeypatch.setattr(_sampling, "bernoulli", lambda p, s: s.next([1 - p, p]) == 1)
    law, error = enumerate_law(lambda s: _sampling.bernoulli_exp(x, s), 400)
    assert error < 1e-6
    assert law.get(True, 0.0) == pytest.approx(math.exp(-x), abs=1e-6)


def _oracle_exp(monkeypatch):
    def flip(x, s):
        return s.next([1 - math.exp(-x), math.exp(-x)]) == 1

    monkeypatch.setattr(_sampling, "bernoulli_exp", flip)
    monkeypatch.setattr(_sampling, "_bernoulli_exp_unit", flip)


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(2), Fraction(2, 3)])
def test_scalar_laplace_by_enumeration(scale, monkeypatch):
    _oracle_exp(monkeypatch)

    def farthest():
        law, error = enumerate_law(lambda s: _sampling.discrete_laplace_scalar(scale, s), 1200)
        assert error < 5e-3
        exact = {k: laplace_pmf(float(scale), k) for k in range(-6, 7)}
        return max(abs(law.get(k, 0.0) - p) for k, p in exact.items())

    assert farthest() < 5e-3
    monkeypatch.setattr(_sampling, "_accept_signed", lambda negative, magnitude: True)
    assert farthest() > 0.05  # the planted bug: zero is drawn twice as often


@pytest.mark.parametrize("sigma2", [Fraction(1, 4), Fraction(1), Fraction(17, 3)])
def test_scalar_gaussian_by_enumeration(sigma2, monkeypatch):
    _oracle_exp(monkeypatch)

    def laplace(scale, s):
        support = range(-40, 41)
        return support[s.first([float(laplace_pmf(float(scale), k)) for k in support])]

    monkeypatch.setattr(_sampling, "discrete_laplace_scalar", laplace)
    law, error = enumerate_law(lambda s: _sampling.discrete_gaussian_scalar(sigma2, s))
    assert error < 1e-6
    for k in range(-4, 5):
        exact = float(gaussian_pmf(math.sqrt(sigma2), np.array(k)))
        assert law.get(k, 0.0) == pytest.approx(exact, abs=1e-6)
    # Variances by direct summation; the discrete Gaussian's is at most sigma^2.
    variance = sum(k * k * p for k, p in law.items())
    known = {Fraction(1, 4): 0.2150, Fraction(1): 1.0, Fraction(17, 3): 17 / 3}
    assert variance == pytest.approx(known[sigma2], abs=1e-3)
    assert variance <= sigma2 + 1e-6


# -- limits -------------------------------------------------------------------------------
@pytest.mark.parametrize("sigma", [0.01, 1e-150])
def test_tiny_scales(sigma):
    assert not discrete_gaussian(sigma * sigma or Fraction(sigma) ** 2, 1000, source(7)).any()
    assert not discrete_laplace(sigma, 1000, source(7)).any()
    assert not discrete_gaussian(Fraction(sigma) ** 2, 3, source(7)).any()


@pytest.mark.statistical
@pytest.mark.parametrize("sigma", [10**6, 2**40, 2**52])
@pytest.mark.parametrize("size", [20, 200_000])
def test_huge_scales_stay_exact_and_do_not_wrap(sigma, size):
    draws = discrete_gaussian(Fraction(sigma) ** 2, size, source(8))
    assert np.abs(draws.astype(float)).max() < 12 * sigma
    assert stats.kstest(draws / sigma, "norm").pvalue > ALPHA
    if size > 1000:
        # All low bits are uniform: nothing is scaled up from a coarser draw.
        assert stats.chisquare(np.bincount(draws & 15)).pvalue > ALPHA
        assert stats.chisquare(np.bincount((draws >> 12) & 15)).pvalue > ALPHA


def test_scales_beyond_64_bits_are_refused_and_the_reference_has_no_limit():
    for bad in (Fraction(2**53) ** 2, Fraction(2**60) ** 2):
        with pytest.raises(InvalidParameterError, match="too large"):
            discrete_gaussian(bad, 3, source(9))
    with pytest.raises(InvalidParameterError, match="too large"):
        discrete_laplace(2**53, 3, source(9))
    with pytest.raises(InvalidParameterError, match="positive"):
        discrete_gaussian(0, 3, source(9))
    with pytest.raises(InvalidParameterError, match="positive"):
        discrete_laplace(-1.0, 3, source(9))
    huge = Fraction(10**40)
    drawn = [_sampling.discrete_gaussian_scalar(huge, source(k)) for k in range(5)]
    assert all(isinstance(x, int) for x in drawn)
    assert max(map(abs, drawn)) > 10**18


# -- where the bits come from -------------------------------------------------------------
@pytest.mark.parametrize("size", [10, 1000])
def test_bits_come_from_the_stream_alone(size):
    first = discrete_gaussian(9, size, secret_stream(1))
    assert np.array_equal(first, discrete_gaussian(9, size, secret_stream(1)))
    assert not np.array_equal(first, discrete_gaussian(9, size, secret_stream(2)))
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002 - must stay untouched
    discrete_gaussian(9, size, secret_stream())
    assert np.array_equal(np_state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.entropy
def test_unseeded_draws_never_repeat():
    seen = {discrete_gaussian(10**12, 50, secret_stream()).tobytes() for _ in range(2000)}
    assert len(seen) == 2000


@pytest.mark.entropy
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("size", [10, 1000])
def test_forks_draw_other_noise(size):
    stream = secret_stream()
    discrete_gaussian(10**6, size, stream)
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.write(write, discrete_gaussian(10**6, size, stream)[:8].tobytes())
        os._exit(0)
    os.waitpid(process, 0)
    assert os.read(read, 64) != discrete_gaussian(10**6, size, stream)[:8].tobytes()


def test_integers_below_are_uniform():
    s = source(10)
    counts = np.bincount([s.below(6) for _ in range(60_000)], minlength=6)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > ALPHA
    assert s.below(1) == 0
    assert s.bits(0) == 0
    assert {s.bits(130) >> 129 for _ in range(64)} == {0, 1}
