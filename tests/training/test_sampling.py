"""Poisson sampling: exact probability, independence, and agreement with the accountant."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import InvalidSampleRateError
from privfair.core.randomness import secret_stream
from privfair.training import PoissonSampler, _sampling

from .helpers import mutated

ALPHA = 1e-6


@given(st.floats(min_value=1e-300, max_value=1.0, exclude_min=True))
def test_probability_is_at_most_the_accounted_one(rate):
    sampler = PoissonSampler(3, rate, secret_stream(0))
    assert Fraction(rate) - Fraction(1, 2**64) < sampler.probability <= Fraction(rate)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_rates_outside_are_refused(rate):
    with pytest.raises(InvalidSampleRateError):
        PoissonSampler(3, rate, secret_stream(0))


class Words:
    """A stream that gives prescribed bits."""

    def __init__(self, digits, words):
        self._digits, self._words = bytes(digits), np.array(words, dtype=np.uint64)

    def bytes(self, n):
        assert n == len(self._digits)
        return self._digits

    def uint64(self, size):
        return self._words[:size]


def test_comparison_is_exact_at_the_edges_of_the_threshold():
    rate = 0.25 + 2.0**-40  # threshold 64 in the first byte, then 2**24
    edge = 2**24
    low = [edge - 1, edge, edge + 1]
    sampler = PoissonSampler(5, rate, Words([63, 64, 64, 64, 65], [v << 8 for v in low]))
    assert sampler.sample().tolist() == [0, 1]


def test_everyone_and_no_one():
    assert PoissonSampler(7, 1.0, secret_stream(0)).sample().tolist() == list(range(7))
    assert PoissonSampler(0, 0.5, secret_stream(0)).sample().tolist() == []
    assert PoissonSampler(50, 1e-18, secret_stream(0)).sample().tolist() == []


def check_frequencies(module, rate=0.3, n=40, draws=20_000):
    """Each record's inclusion frequency, and each pair's joint frequency.

    H0: independent Bernoulli(rate). alpha = 1e-6 over all tests together (Bonferroni over five
    tests, 40 records and 780 pairs; exact binomial tails). Power: at rate 0.3, B / (n + 1) in
    place of B / n for n = 40 (0.2927, fourteen standard errors away), and batches of fixed size
    (variance of the batch size 0), are rejected with a probability above 0.9999.
    """
    sampler = module.PoissonSampler(n, rate, secret_stream(11))
    drawn = np.zeros((draws, n), dtype=np.float64)
    for row in drawn:
        row[sampler.sample()] = 1
    alpha = ALPHA / 5

    def unlikely(counts, trials, p):
        """Smallest two-sided exact binomial p-value, corrected for their number."""
        counts = np.asarray(counts)
        tails = np.minimum(
            stats.binom.cdf(counts, trials, p), stats.binom.sf(counts - 1, trials, p)
        )
        return float(2 * tails.min() * counts.size)

    assert unlikely([drawn.sum()], n * draws, rate) > alpha
    assert unlikely(drawn.sum(axis=0), draws, rate) > alpha
    together = (drawn.T @ drawn)[np.triu_indices(n, 1)]
    assert unlikely(together, draws, rate * rate) > alpha
    # Batch sizes have the variance of a sum of independent draws.
    sizes = drawn.sum(axis=1)
    spread = n * rate * (1 - rate)
    kurtosis = 3 + (1 - 6 * rate * (1 - rate)) / spread
    ratio = sizes.var(ddof=1) / spread
    assert abs(ratio - 1) < stats.norm.isf(alpha / 2) * math.sqrt((kurtosis - 1) / draws)
    # Successive batches are independent.
    lag = np.corrcoef(sizes[:-1], sizes[1:])[0, 1] * math.sqrt(draws)
    assert abs(lag) < stats.norm.isf(alpha / 2)


@pytest.mark.statistical
@pytest.mark.parametrize("rate", [0.3, 1 / 256, 0.0039, 0.999])
def test_inclusion_is_independent_with_the_probability(rate):
    check_frequencies(_sampling, rate)


BUGS = {
    "q = batch / (n + 1)": ("Fraction(self.sample_rate) * _WORD",
                            "Fraction(self.sample_rate * 40 / 41) * _WORD"),
    "fixed batch size": ("return np.flatnonzero(chosen)",
                         "return np.argsort(digits, kind='stable')[:12]"),
    "a contiguous block": ("return np.flatnonzero(chosen)",
                           "return (np.arange(12) + digits[0]) % self.n_rows"),
    "ties always drawn": ("chosen[open_] = tail < np.uint64(rest)", "chosen[open_] = True"),
}  # fmt: skip


@pytest.mark.statistical
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_of_the_sampler_are_caught(bug):
    rate = 0.3 if bug != "ties always drawn" else 0.0040
    with pytest.raises(AssertionError):
        check_frequencies(mutated("privfair.training._sampling", BUGS[bug]), rate)


def test_unseeded_samplers_never_repeat():
    first = PoissonSampler(200, 0.5, secret_stream()).sample()
    second = PoissonSampler(200, 0.5, secret_stream()).sample()
    assert first.tolist() != second.tolist()
