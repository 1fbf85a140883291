"""Numbers behind the proof pages: dominations checked by brute force on small cases."""

import math

import numpy as np
import pytest

from privfair import accounting as ac


def hockey_stick(p, q, epsilon):
    return float(np.maximum(0.0, p - math.exp(epsilon) * q).sum())


@pytest.mark.parametrize("shift", [(1, 2), (3, 3), (1, 1), (2, 5)])
@pytest.mark.parametrize("a", [0.2, 1.0])
def test_discrete_laplace_on_vectors_is_dominated_by_one_coordinate(a, shift):
    """All outputs of the two-dimensional mechanism are enumerated (tails below 1e-12)."""
    w = math.exp(-a)
    x = np.arange(-160, 161) if a < 1 else np.arange(-40, 41)

    def law(at):
        return (1 - w) / (1 + w) * np.exp(-a * np.abs(x - at))

    p = np.outer(law(0), law(0))
    q = np.outer(law(shift[0]), law(shift[1]))
    one = ac.AccountedProfile(ac.DiscreteLaplace(a, sum(shift)), accountant="pld")
    strict = 0
    for epsilon in np.linspace(0, a * sum(shift), 13)[:-1]:
        two = hockey_stick(p, q, epsilon)
        bound = one.delta(float(epsilon))
        assert two <= bound + 1e-12
        strict += two < bound - 1e-6
    assert strict, "the comparison is not vacuous"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("b", [0.4, 1.0, 3.0])
def test_laplace_on_vectors_is_dominated_by_one_coordinate(b, share):
    """The two-dimensional loss is a sum of two independent ones; one is integrated exactly."""

    def law(shift, points=4001):
        """Loss atoms of one coordinate moved by ``shift``: ends exactly, inside in slices."""
        s = shift / b
        edges = np.linspace(0, s, points)
        inside = 0.5 * (np.exp(-edges[:-1]) - np.exp(-edges[1:]))
        middle = (edges[:-1] + edges[1:]) / 2
        c = np.concatenate([[0.0], middle, [s]])
        mass = np.concatenate([[0.5], inside, [0.5 * math.exp(-s)]])
        return s - 2 * c, mass

    one_loss, one_mass = law(share)
    two_loss, two_mass = law(1 - share)
    scalar = ac.AccountedProfile(ac.Laplace(b), accountant="pld")
    for epsilon in np.linspace(0, 1 / b, 9)[:-1]:
        total = one_loss[:, None] + two_loss[None, ::20]
        weight = one_mass[:, None] * np.add.reduceat(two_mass, range(0, len(two_mass), 20))
        got = float((weight * np.maximum(0.0, -np.expm1(np.minimum(epsilon - total, 0)))).sum())
        assert got <= scalar.delta(float(epsilon)) + 2e-3


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("k", [2, 5])
def test_binary_randomised_response_dominates_every_pure_mechanism(epsilon, k):
    """k-ary randomised response and the exponential mechanism as examples."""
    pure = ac.AccountedProfile(ac.PureDP(epsilon), accountant="pld")
    kary = ac.AccountedProfile(ac.RandomizedResponse(epsilon, k), accountant="pld")
    for at in np.linspace(0, epsilon, 9):
        assert kary.delta(float(at)) <= pure.delta(float(at)) + 1e-12
    scores, moved = np.array([0.0, 1.0, 0.3]), np.array([1.0, 0.0, 0.6])
    p = np.exp(epsilon * scores / 2)
    q = np.exp(epsilon * moved / 2)
    for at in np.linspace(0, epsilon, 9):
        assert hockey_stick(p / p.sum(), q / q.sum(), at) <= pure.delta(float(at)) + 1e-12


def test_bounded_range_is_an_eighth_of_epsilon_squared():
    """Renyi divergences of exponential mechanisms with three outcomes, over random scores."""
    generator = np.random.default_rng(5)
    epsilon = 1.0
    for _ in range(300):
        scores, change = generator.uniform(0, 3, 3), generator.uniform(-0.5, 0.5, 3)
        p, q = np.exp(epsilon * scores), np.exp(epsilon * (scores + change))
        p, q = p / p.sum(), q / q.sum()
        width = np.ptp(np.log(p / q))
        for order in (1.1, 2.0, 8.0, 64.0):
            renyi = math.log((p**order * q ** (1 - order)).sum()) / (order - 1)
            assert renyi <= order * width**2 / 8 + 1e-12


def test_zero_out_of_a_sampled_sum_is_the_add_remove_pair():
    """Three records with contributions 0 or 1, Poisson sampling, noise on the integers: the
    output laws with a record, with the null record in its place, and without it."""
    q, a = 0.3, 0.7
    w = math.exp(-a)
    x = np.arange(-60, 64)
    noise = (1 - w) / (1 + w)

    def law(contributions):
        total = np.zeros(1)
        total[0] = 1.0
        for g in contributions:
            total = np.convolve(total, [1 - q, q] if g else [1.0])
        return sum(mass * noise * np.exp(-a * np.abs(x - at)) for at, mass in enumerate(total))

    with_record, nulled, without = law([1, 1, 1]), law([1, 1, 0]), law([1, 1])
    assert np.allclose(nulled, without)
    priced = ac.AccountedProfile(ac.PoissonSampled(q, ac.DiscreteLaplace(a, 1)))
    for epsilon in (0.0, 0.05, 0.1, 0.2):
        worst = max(hockey_stick(with_record, nulled, epsilon),
                    hockey_stick(nulled, with_record, epsilon))  # fmt: skip
        assert worst <= priced.delta(epsilon) + 1e-12
