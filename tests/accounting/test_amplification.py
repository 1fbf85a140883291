"""Amplification by shuffling: golden values, exact histograms, brute force, monotony."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import binomial, mp, mpf

from privfair.accounting import shuffle_amplification, shuffle_delta
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError


# Published setting of Feldman, McMillan and Talwar's numeric bound; the values agree with an
# independent evaluation by 50-digit sums (below) to all digits shown.
@pytest.mark.parametrize(
    ("local", "n", "clone", "expected"),
    [
        (1.0, 1000, "proven", 0.182412),
        (1.0, 1000, "strong", 0.148671),
        (3.0, 5000, "proven", 0.470105),
        (3.0, 5000, "strong", 0.329280),
    ],
)
def test_golden_values(local: float, n: int, clone: str, expected: float) -> None:
    found = shuffle_amplification(local, n, 1e-6, clone=clone)
    assert found.epsilon == pytest.approx(expected, abs=6e-7)
    assert found.proven is (clone == "proven")


def reference(local: float, n: int, epsilon: float, c: float) -> float:
    """Sum the positive parts of P - e^eps Q over all pairs, in 40 digits."""
    with mp.workdps(40):
        big, e, c = mp.exp(mpf(local)), mp.exp(mpf(epsilon)), mpf(c)
        w, total = big / (big + 1), mpf(0)
        for clones in range(n):
            chance = binomial(n - 1, clones) * c**clones * (1 - c) ** (n - 1 - clones)
            for a in range(clones + 2):
                here = binomial(clones, a - 1) / mpf(2) ** clones if a else mpf(0)
                there = binomial(clones, a) / mpf(2) ** clones if a <= clones else mpf(0)
                p, q = w * here + (1 - w) * there, (1 - w) * here + w * there
                total += chance * max(mpf(0), p - e * q)
        return float(total)


@pytest.mark.parametrize(
    ("local", "n", "epsilon", "c"),
    [(1, 40, 0.3, 0.5), (0.3, 6, 0.2, 0.85), (3, 60, 1, 0.05), (1, 1, 0.5, 0.3), (2, 2, 0, 1.0)],
)
def test_delta_is_the_sum_and_not_below(local, n, epsilon, c) -> None:
    true = reference(local, n, epsilon, c)
    found = shuffle_delta(local, n, epsilon, clone=c)
    assert true * (1 - 1e-14) <= found <= true * (1 + 1e-11)


def test_joining_neighbouring_numbers_of_clones_costs_next_to_nothing(monkeypatch) -> None:
    """And never gains: fewer clones hide less."""
    from privfair.accounting import _amplification as module

    fine = shuffle_amplification(1.0, 20_000, 1e-6).epsilon
    monkeypatch.setattr(module, "_CELLS", 64)
    coarse = shuffle_amplification(1.0, 20_000, 1e-6).epsilon
    assert fine < coarse < fine * 1.01


def histogram_delta(local: float, epsilon: float, others: tuple[int, ...]) -> float:
    """Delta of the histogram of binary randomised response, one user's bit 0 or 1."""
    keep = math.exp(local) / (math.exp(local) + 1)

    def law(bits: tuple[int, ...]) -> list[float]:
        chances = [1.0]
        for bit in bits:
            one = keep if bit else 1 - keep
            chances = [
                (chances[i] if i < len(chances) else 0.0) * (1 - one)
                + (chances[i - 1] * one if i else 0.0)
                for i in range(len(chances) + 1)
            ]
        return chances

    p, q = law((1, *others)), law((0, *others))
    forward = sum(max(0.0, a - math.exp(epsilon) * b) for a, b in zip(p, q, strict=True))
    back = sum(max(0.0, b - math.exp(epsilon) * a) for a, b in zip(p, q, strict=True))
    return max(forward, back)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("local", [0.3, 1.0, 2.5])
def test_the_exact_histogram_never_exceeds_the_bound(local: float, n: int) -> None:
    clone = 2 / (math.exp(local) + 1)
    for epsilon in (0.0, 0.3 * local, 0.7 * local, local):
        bound = shuffle_delta(local, n, epsilon, clone=clone)
        loose = shuffle_delta(local, n, epsilon)
        assert bound <= loose + 1e-15
        for others in product((0, 1), repeat=n - 1):
            assert histogram_delta(local, epsilon, others) <= bound + 1e-15


def test_the_bound_is_attained() -> None:
    bound = shuffle_delta(0.3, 6, 0.2, clone=2 / (math.exp(0.3) + 1))
    assert histogram_delta(0.3, 0.2, (0,) * 5) == pytest.approx(bound, abs=1e-12)
    assert bound > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 5.0), st.integers(1, 3000), st.floats(1e-9, 1e-2))
def test_never_above_local_and_falls_with_n(local: float, n: int, delta: float) -> None:
    here = shuffle_amplification(local, n, delta).epsilon
    there = shuffle_amplification(local, 2 * n, delta).epsilon
    assert 0 <= there <= here <= local
    assert shuffle_delta(local, n, here) <= delta
    if here > 0:
        assert shuffle_delta(local, n, here * (1 - 1e-6)) > delta


def test_a_strong_clone_is_labelled_everywhere() -> None:
    found = shuffle_amplification(1.0, 1000, 1e-6, clone="strong")
    assert "STRONG" in str(found) and not found.to_dict()["proven"]
    assert any("STRONG" in text for text in found.assumptions)
    sound = shuffle_amplification(1.0, 1000, 1e-6)
    assert "STRONG" not in str(sound) and sound.to_dict()["neighboring"] == "replace_one"
    assert sound.clone_probability <= math.exp(-1)


def test_many_users_are_quick_and_monotone() -> None:
    found = [shuffle_amplification(1.0, 10**p, 1e-8).epsilon for p in range(2, 10)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 2e-4


@pytest.mark.parametrize(
    ("args", "clone", "error"),
    [
        ((0.0, 10, 1e-6), "proven", InvalidParameterError),
        ((51.0, 10, 1e-6), "proven", InvalidParameterError),
        ((math.nan, 10, 1e-6), "proven", InvalidParameterError),
        ((1.0, 0, 1e-6), "proven", InvalidParameterError),
        ((1.0, 10**10, 1e-6), "proven", InvalidParameterError),
        ((1.0, True, 1e-6), "proven", InvalidTypeError),
        ((1.0, 10, 0.0), "proven", InvalidParameterError),
        ((1.0, 10, 1.0), "proven", InvalidParameterError),
        ((1.0, 10, 1e-6), "best", InvalidParameterError),
        ((1.0, 10, 1e-6), 0.0, InvalidParameterError),
        ((1.0, 10, 1e-6), 1.5, InvalidParameterError),
        ((1.0, 10, 1e-6), True, InvalidTypeError),
    ],
)
def test_bad_input(args, clone, error) -> None:
    with pytest.raises(error):
        shuffle_amplification(*args, clone=clone)
