"""Shuffled reports: clone probabilities by enumeration, exact histograms below the bound."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from itertools import combinations, product

import pytest

from privfair.accounting import shuffle_delta
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.ldp import (
    BLH,
    GRR,
    HR,
    OLH,
    OUE,
    PGR,
    SS,
    SUE,
    clone_probability,
    shuffle_epsilon,
)


def enumerated(protocol) -> Fraction:
    """Take the minimum over reports, values and pairs of different values."""
    worst = Fraction(1)
    for output in protocol.outputs():
        chances = [protocol.probability(output, v) for v in range(protocol.k)]
        worst = min(
            worst, *(2 * min(chances) / (a + b) for a, b in combinations(chances, 2) if a + b)
        )
    return worst


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("make", [GRR, SUE, OUE, SS, HR, PGR])
@pytest.mark.parametrize("epsilon", [0.4, 1.0, 3.0])
def test_clone_probability_by_enumeration(make, k: int, epsilon: float) -> None:
    protocol = make(k, epsilon)
    found, true = clone_probability(protocol), enumerated(protocol)
    assert found <= true
    assert found == pytest.approx(float(true), rel=1e-12)


@pytest.mark.parametrize("omega", [1, 2, 3])
def test_subsets_of_one_value_are_randomised_response(omega: int) -> None:
    protocol = SS(4, 1.0, omega)
    assert clone_probability(protocol) == pytest.approx(float(enumerated(protocol)), rel=1e-12)


@pytest.mark.parametrize("make", [OLH, BLH])
@pytest.mark.parametrize("k", [2, 3, 6])
def test_hashing_is_not_above_what_any_seed_shows(make, k: int) -> None:
    """Seven seeds are enumerated, all others count as well: the value must not exceed these."""
    protocol = make(k, 1.0)
    assert clone_probability(protocol) <= enumerated(protocol)
    expected = 2 / (math.e + 1) if k == 2 else math.exp(-1)
    assert clone_probability(protocol) == pytest.approx(expected)


def divergence(protocol, n: int, others: tuple[int, ...], epsilon: float) -> float:
    """Return the exact divergence of the histograms of reports, user one holding 0 or 1."""
    outputs = list(protocol.outputs())

    def law(values: tuple[int, ...]) -> dict[tuple[int, ...], float]:
        laws: dict[tuple[int, ...], float] = {(0,) * len(outputs): 1.0}
        for value in values:
            after: dict[tuple[int, ...], float] = defaultdict(float)
            for counts, chance in laws.items():
                for i, output in enumerate(outputs):
                    moved = (*counts[:i], counts[i] + 1, *counts[i + 1 :])
                    after[moved] += chance * float(protocol.probability(output, value))
            laws = after
        return laws

    p, q, e = law((0, *others)), law((1, *others)), math.exp(epsilon)
    forward = sum(max(0.0, p[c] - e * q.get(c, 0.0)) for c in p)
    back = sum(max(0.0, q[c] - e * p.get(c, 0.0)) for c in q)
    return max(forward, back)


@pytest.mark.parametrize(
    ("protocol", "n"),
    [(GRR(3, 1.0), 4), (GRR(2, 0.5), 6), (SUE(3, 1.5), 3), (SS(4, 1.0, 2), 3), (HR(3, 1.0), 4)],
)
def test_exact_histograms_of_three_values(protocol, n: int) -> None:
    """For all inputs of the other users; binary response elsewhere attains the bound."""
    chance = clone_probability(protocol)
    for epsilon in (0.0, protocol.epsilon / 2):
        bound = shuffle_delta(protocol.epsilon, n, epsilon, clone=chance)
        worst = max(
            divergence(protocol, n, others, epsilon)
            for others in product(range(protocol.k), repeat=n - 1)
            if list(others) == sorted(others)
        )
        assert worst <= bound + 1e-15
        assert worst > bound / 10


def test_a_larger_clone_probability_would_be_false() -> None:
    """The check above has power: twice the probability is refuted by an exact histogram."""
    bound = shuffle_delta(0.5, 6, 0.25, clone=min(1.0, 2 * clone_probability(GRR(2, 0.5))))
    assert divergence(GRR(2, 0.5), 6, (0,) * 5, 0.25) > bound


def test_protocols_of_one_epsilon_differ() -> None:
    direct, unary = (shuffle_epsilon(make(9, 2.0), 5000, 1e-6) for make in (GRR, OUE))
    assert direct.epsilon < unary.epsilon < 2.0
    assert direct.clone == unary.clone == "given" and direct.proven
    strong = shuffle_epsilon(OUE(9, 2.0), 5000, 1e-6, clone="strong")
    assert not strong.proven and strong.epsilon == pytest.approx(direct.epsilon, rel=1e-9)


def test_bad_input() -> None:
    with pytest.raises(InvalidTypeError, match="protocol"):
        shuffle_epsilon(1.0, 100, 1e-6)  # type: ignore[arg-type]
    for call in (
        lambda: shuffle_epsilon(GRR(3, 1.0), 0, 1e-6),
        lambda: shuffle_epsilon(GRR(3, 1.0), 10, 0.0),
        lambda: shuffle_epsilon(GRR(3, 1.0), 10, 1e-6, clone="given"),
    ):
        with pytest.raises(InvalidParameterError):
            call()
