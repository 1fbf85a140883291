"""Guarantees: against references, closed forms, quadrature, brute force and each other."""

import json
import math
import pickle
from itertools import pairwise
from pathlib import Path

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from privfair import accounting as ac
from privfair.accounting import _numeric, _plan, _rdp
from privfair.accounting._curve import Atoms, Curve
from privfair.core.exceptions import (
    AccountingAssumptionError,
    IncompatibleNeighboringError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    UnsupportedEventError,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sampled_gaussian.json").read_text())


def sgd(q, sigma, steps):
    return ac.SelfComposed(ac.PoissonSampled(q, ac.Gaussian(sigma)), steps)


# -- references -----------------------------------------------------------------------------
@pytest.mark.golden
@pytest.mark.parametrize(
    "row", GOLDEN["rows"], ids=lambda row: f"{row['q']}-{row['sigma']}-{row['steps']}"
)
def test_reference_vectors(row):
    """Within [-0.2 %, +1 %] of dp_accounting, never below the bracket of the PRV accountant."""
    found = ac.guarantee(sgd(row["q"], row["sigma"], row["steps"]), delta=row["delta"])
    assert found.accountant == "pld"
    assert -0.002 <= found.epsilon / row["upper"] - 1 <= 0.01
    assert row["low"] is None or found.epsilon >= row["low"]
    assert row["high"] is None or found.epsilon <= row["high"] * 1.005


def test_there_are_enough_reference_vectors():
    assert len(GOLDEN["rows"]) >= 60


# -- closed forms -----------------------------------------------------------------------------
@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.0, 5.0, 80.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-11])
def test_gaussian_is_exact(sigma, delta):
    profile = ac.AccountedProfile(ac.Gaussian(sigma))
    epsilon = profile.epsilon(delta)
    assert profile.accountant == "gdp"
    if epsilon == 0:
        assert 2 * norm.cdf(1 / (2 * sigma)) - 1 <= delta
        return
    exact = norm.cdf(1 / (2 * sigma) - epsilon * sigma) - math.exp(
        epsilon + norm.logcdf(-1 / (2 * sigma) - epsilon * sigma)
    )
    assert exact <= delta
    assert exact == pytest.approx(delta, rel=1e-5)


def test_gaussians_compose_to_one_gaussian():
    several = [ac.Gaussian(3.0), ac.SelfComposed(ac.Gaussian(6.0), 4), ac.Gaussian(2.0)]
    one = ac.Gaussian((1 / 9 + 4 / 36 + 1 / 4) ** -0.5)
    assert ac.guarantee(several, delta=1e-6).epsilon == pytest.approx(
        ac.guarantee(one, delta=1e-6).epsilon, rel=1e-9
    )


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_numeric_composition_without_sampling_meets_the_closed_form(sigma):
    exact = ac.guarantee(ac.Gaussian(sigma), delta=1e-6).epsilon
    numeric = ac.guarantee(ac.Gaussian(sigma), delta=1e-6, accountant="pld").epsilon
    assert exact <= numeric <= 1.001 * exact
    sampled = sgd(1.0, sigma, 5)
    full = ac.guarantee(ac.Gaussian(sigma / math.sqrt(5)), delta=1e-6).epsilon
    assert ac.guarantee(sampled, delta=1e-6).epsilon == pytest.approx(full, rel=1e-9)


@pytest.mark.parametrize("q", [0.01, 0.2])
@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_renyi_divergences_agree_with_dp_accounting(q, sigma):
    orders = np.array([2.0, 3.0, 7.0, 32.0, 128.0])
    theirs = RdpAccountant(list(orders))
    theirs.compose(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma)))
    ours = _rdp.sampled_gaussian(q, sigma, orders)
    assert ours == pytest.approx(theirs.rdp, rel=1e-9)


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 0.8), (0.2, 0.8), (0.2, 3.0)])
def test_renyi_divergences_at_fractional_orders_meet_quadrature(q, sigma):
    """The chord is an upper bound, and not a wide one."""
    for order in (1.05, 1.3, 2.5, 10.7):

        def moment(x, order=order):
            ratio = math.log1p(q * math.expm1((2 * x - 1) / (2 * sigma**2)))
            return math.exp(order * ratio + norm.logpdf(x, scale=sigma))

        ends = (-15 * sigma, order + 15 * sigma)
        total = quad(moment, *ends, points=np.linspace(*ends, 40), limit=2000, epsabs=0)[0]
        exact = math.log(total) / (order - 1)
        found = _rdp.sampled_gaussian(q, sigma, np.array([order]))[0]
        assert exact * (1 - 1e-7) <= found <= 3 * exact


@pytest.mark.parametrize("b", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("count", [1, 20])
def test_laplace_agrees_with_dp_accounting(b, count):
    theirs = PLDAccountant(value_discretization_interval=1e-4)
    theirs.compose(dpa.SelfComposedDpEvent(dpa.LaplaceDpEvent(b), count))
    ours = ac.guarantee(ac.SelfComposed(ac.Laplace(b), count), delta=1e-6)
    assert ours.epsilon == pytest.approx(theirs.get_epsilon(1e-6), rel=2e-3)
    assert ours.epsilon <= count / b + 1e-12


@pytest.mark.parametrize(("q", "b", "count"), [(0.01, 0.5, 1000), (0.2, 1.0, 30)])
def test_sampled_laplace_agrees_with_dp_accounting(q, b, count):
    theirs = PLDAccountant(value_discretization_interval=1e-4)
    step = dpa.PoissonSampledDpEvent(q, dpa.LaplaceDpEvent(b))
    theirs.compose(dpa.SelfComposedDpEvent(step, count))
    ours = ac.guarantee(ac.SelfComposed(ac.PoissonSampled(q, ac.Laplace(b)), count), delta=1e-6)
    assert ours.epsilon == pytest.approx(theirs.get_epsilon(1e-6), rel=3e-3)


@pytest.mark.parametrize(("a", "sensitivity", "count"), [(0.5, 1, 10), (0.1, 4, 30), (1.0, 2, 3)])
def test_discrete_laplace_equals_brute_force(a, sensitivity, count):
    """The composed loss is enumerated over all outcomes of the noise."""
    w = math.exp(-a)
    x = np.arange(-400, 400 + sensitivity + 1)
    mass = (1 - w) / (1 + w) * np.exp(-a * np.abs(x))
    loss = np.round(np.abs(x - sensitivity) - np.abs(x)).astype(int)
    single = np.bincount(loss + sensitivity, mass)
    law = np.ones(1)
    for _ in range(count):
        law = np.convolve(law, single)
    losses = a * (np.arange(len(law)) - count * sensitivity)
    profile = ac.AccountedProfile(
        ac.SelfComposed(ac.DiscreteLaplace(a, sensitivity), count), accountant="pld"
    )
    for epsilon in (0.0, 0.3 * losses[-1], 0.8 * losses[-1]):
        exact = float(law @ np.maximum(0.0, -np.expm1(np.minimum(0.0, epsilon - losses))))
        found = profile.delta(epsilon)
        assert exact <= found <= exact * (1 + 1e-4) + 1e-13  # the grid is pessimistic


@pytest.mark.parametrize(("eps", "delta", "count"), [(0.1, 0.0, 50), (0.5, 1e-8, 10)])
def test_approximate_dp_composes_optimally(eps, delta, count):
    """The optimal composition theorem of Kairouz, Oh, Viswanath 2015, term by term."""
    profile = ac.AccountedProfile(ac.SelfComposed(ac.ApproxDP(eps, delta), count))
    for i in range(0, count // 2 + 1, 5):
        lost = 0.0
        for j in range(i):
            gap = math.exp((count - j) * eps) - math.exp((count - 2 * i + j) * eps)
            lost += math.comb(count, j) * gap
        lost /= (1 + math.exp(eps)) ** count
        total = 1 - (1 - delta) ** count * (1 - lost)
        assert profile.delta((count - 2 * i) * eps) == pytest.approx(total, rel=1e-7, abs=1e-13)


def test_discrete_gaussian_is_priced_by_its_zcdp_bound():
    found = ac.guarantee(ac.DiscreteGaussian(2.0), delta=1e-6)
    bound = ac.guarantee(ac.ZCDP(1 / 8), delta=1e-6)
    assert found.epsilon == bound.epsilon
    assert found.epsilon > ac.guarantee(ac.Gaussian(2.0), delta=1e-6).epsilon
    orders = 1 + np.geomspace(1e-3, 1e4, 100_000)
    best = np.min(orders / 8 + np.log1p(-1 / orders) - np.log(1e-6 * orders) / (orders - 1))
    assert found.epsilon == pytest.approx(best, rel=1e-5)


def test_exponential_mechanisms_use_the_better_of_two_bounds():
    one = ac.guarantee(ac.ExponentialMechanism(0.5), delta=1e-6)
    assert one.epsilon <= 0.5
    many = ac.SelfComposed(ac.ExponentialMechanism(0.1), 400)
    found = ac.guarantee(many, delta=1e-6).epsilon
    pure = ac.guarantee(ac.SelfComposed(ac.PureDP(0.1), 400), delta=1e-6).epsilon
    zcdp = ac.guarantee(ac.ZCDP(400 * 0.1**2 / 8), delta=1e-6).epsilon
    assert found <= min(pure, zcdp) * (1 + 1e-6)
    assert found < 0.7 * pure


# -- heterogeneous plans --------------------------------------------------------------------
MIXES = {
    "classifier with private preprocessing": [ac.DiscreteGaussian(20.0), sgd(0.0314, 3.2, 640)],
    "counts, bounds and training": [
        ac.SelfComposed(ac.DiscreteLaplace(0.02, 1), 5), ac.ExponentialMechanism(0.05),
        ac.DiscreteGaussian(30.0), sgd(0.0314, 3.2, 640),
    ],
    "two trainings": [sgd(0.01, 1.5, 500), sgd(0.05, 4.0, 200)],
    "a report and a failure": [ac.PureDP(0.2), ac.ApproxDP(0.1, 1e-7), ac.Gaussian(5.0)],
}  # fmt: skip


@pytest.mark.parametrize("name", MIXES)
def test_mixed_plans_lie_between_their_parts_and_the_sum(name):
    parts = MIXES[name]
    delta = 1e-5
    found = ac.guarantee(parts, delta=delta)
    each = [ac.guarantee(part, delta=delta).epsilon for part in parts]
    share = [ac.guarantee(part, delta=delta / len(parts)).epsilon for part in parts]
    assert max(each) <= found.epsilon <= sum(share)
    rdp = ac.guarantee(parts, delta=delta, accountant="rdp")
    assert found.epsilon <= rdp.epsilon * (1 + 1e-9)
    assert found.details["bounds"]["pld"] == found.epsilon
    order = ac.guarantee(parts[::-1], delta=delta)
    assert order.epsilon == pytest.approx(found.epsilon, rel=1e-9)


def test_joining_a_renyi_bound_to_a_loss_is_an_upper_bound():
    """A Gaussian given as zCDP, joined to sampled Gaussians, is never below the exact answer."""
    for rho_sigma, training in ((3.0, sgd(0.02, 1.0, 200)), (40.0, sgd(0.0314, 3.1, 640))):
        exact = ac.guarantee([ac.Gaussian(rho_sigma), training], delta=1e-6).epsilon
        joined = ac.guarantee([ac.ZCDP(1 / (2 * rho_sigma**2)), training], delta=1e-6).epsilon
        summed = (
            ac.guarantee(ac.ZCDP(1 / (2 * rho_sigma**2)), delta=5e-7).epsilon
            + ac.guarantee(training, delta=5e-7).epsilon
        )
        assert exact <= joined < summed
        assert joined < 1.2 * exact


def test_renyi_bound_holds_at_negative_epsilon_too():
    orders = np.linspace(1.01, 200, 500)
    sigma = 1.5
    bound = _rdp.RenyiBound(orders, orders / (2 * sigma**2))
    x = np.linspace(-3, 3, 301)
    exact = norm.cdf(1 / (2 * sigma) - x * sigma) - np.exp(
        x + norm.logcdf(-1 / (2 * sigma) - x * sigma)
    )
    assert np.all(bound(x) >= exact - 1e-12)
    assert np.all(bound(x) <= 1)


@given(st.lists(st.sampled_from(range(6)), min_size=1, max_size=4), st.randoms())
@settings(max_examples=10, deadline=None)
def test_order_and_nesting_do_not_matter(picks, random):
    pool = [
        ac.Gaussian(4.0), ac.Laplace(3.0), ac.PureDP(0.2), sgd(0.05, 2.0, 10),
        ac.DiscreteGaussian(9.0), ac.RandomizedResponse(0.3, 4),
    ]  # fmt: skip
    events = [pool[i] for i in picks]
    first = ac.guarantee(events, delta=1e-6).epsilon
    shuffled = list(events)
    random.shuffle(shuffled)
    again = ac.guarantee(ac.Composed([ac.SelfComposed(e, 1) for e in shuffled]), delta=1e-6)
    assert again.epsilon == pytest.approx(first, rel=1e-9)
    more = ac.guarantee([*events, pool[random.randrange(6)]], delta=1e-6).epsilon
    assert more >= first * (1 - 1e-3)


# -- invariants -----------------------------------------------------------------------------
@given(
    q=st.floats(0.001, 1.0), sigma=st.floats(0.8, 20.0), steps=st.integers(1, 300),
    delta=st.floats(1e-9, 1e-3),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_monotone_in_everything(q, sigma, steps, delta):
    def eps(q=q, sigma=sigma, steps=steps, delta=delta):
        return ac.guarantee(sgd(q, sigma, steps), delta=delta).epsilon

    base, slack = eps(), 1 + 2e-3  # the grid is refined until changes are below 0.1 %
    assert eps(sigma=1.1 * sigma) <= base * slack + 1e-9
    assert eps(delta=min(0.5, 2 * delta)) <= base * slack + 1e-9
    assert eps(steps=steps + 1 + steps // 10) >= base / slack - 1e-9
    assert eps(q=min(1.0, 1.1 * q)) >= base / slack - 1e-9
    rdp = _rdp.epsilon(_plan.read((sgd(q, sigma, steps),), "zero_out"), delta)[0]
    assert base <= rdp * 1.001
    assert ac.guarantee(sgd(q, 1e7, steps), delta=delta).epsilon < 1e-3


def test_nothing_costs_nothing():
    for empty in ([], ac.Composed([]), ac.SelfComposed(ac.Gaussian(1.0), 0)):
        for delta in (0.0, 1e-6):
            assert ac.guarantee(empty, delta=delta).epsilon == 0.0
    neutral = ac.guarantee([ac.Gaussian(1.0), ac.Composed([])], delta=1e-6)
    assert neutral.epsilon == ac.guarantee(ac.Gaussian(1.0), delta=1e-6).epsilon


@pytest.mark.parametrize("event", [ac.NonPrivate(), ac.Gaussian(0.0), ac.Laplace(0.0)])
def test_no_noise_is_no_guarantee(event):
    found = ac.guarantee([ac.PureDP(0.1), ac.SelfComposed(event, 2)], delta=1e-6)
    assert math.isinf(found.epsilon)
    assert found.unsafe
    assert not found.certified
    assert math.isinf(ac.guarantee(ac.PoissonSampled(0.1, event), delta=1e-6).epsilon)


def test_any_grid_is_an_upper_bound_and_finer_is_tighter():
    plan = _plan.read((sgd(0.02, 1.1, 300),), "zero_out")
    values = [_numeric.numeric(plan, h).epsilon(1e-6) for h in (4e-2, 1e-2, 2.5e-3, 6e-4, 1.5e-4)]
    assert all(fine <= coarse for coarse, fine in pairwise(values))
    assert values[-1] == pytest.approx(values[-2], rel=1e-3)


def test_a_delta_just_above_the_mass_at_infinity():
    """Rounding must not make the curve look satisfied at its lower end."""
    losses = np.linspace(0.1, 3.3, 40)
    p = np.full(40, 0.025) * (1 - 1e-7)
    for infinite in (1e-7, 1e-5, 3e-4):
        curve = Curve(Atoms(losses, p, infinite))
        for factor in (1 + 2.3e-16, 1 + 1e-13, 1 + 1e-9):
            assert curve.epsilon(infinite * factor) >= 3.2
        assert math.isinf(curve.epsilon(infinite))


# -- delta, trade-off, profile ----------------------------------------------------------------
@pytest.mark.parametrize(
    "event", [ac.Gaussian(1.0), sgd(0.05, 1.0, 100), ac.Laplace(0.5), ac.DiscreteGaussian(1.5)]
)
def test_delta_and_epsilon_are_inverse(event):
    found = ac.guarantee(event, epsilon=1.5)
    assert found.epsilon == 1.5
    assert 0 < found.delta < 1
    assert ac.guarantee(event, delta=found.delta).epsilon <= 1.5 * 1.002
    assert found.profile.delta(2.0) <= found.delta


def test_trade_off_of_a_gaussian_is_exact_and_the_envelope_close_below():
    exact = ac.AccountedProfile(ac.Gaussian(1.0))
    envelope = ac.AccountedProfile(ac.Gaussian(1.0), accountant="pld")
    assert exact.beta(0.05) == pytest.approx(0.740489, abs=1e-6)
    for alpha in (0.001, 0.05, 0.3):
        assert envelope.beta(alpha) <= exact.beta(alpha) + 1e-9
        assert envelope.beta(alpha) == pytest.approx(exact.beta(alpha), abs=2e-3)


def test_the_trade_off_bounds_randomised_response():
    """The best attacker against one report guesses its answer."""
    p = math.e / (1 + math.e)
    profile = ac.AccountedProfile(ac.RandomizedResponse(1.0, 2))
    assert profile.beta(1 - p) == pytest.approx(1 - p, abs=1e-6)


def test_composition_of_guarantees_prices_the_events_again():
    one = ac.guarantee(sgd(0.0314, 4.0, 640), delta=5e-6, numerics="hardened")
    two = ac.guarantee(ac.DiscreteGaussian(20.0), delta=5e-6, numerics="exact")
    both = one.compose(two)
    assert both.delta == pytest.approx(1e-5)
    assert both.epsilon < one.epsilon + two.epsilon
    joint = ac.guarantee([sgd(0.0314, 4.0, 640), ac.DiscreteGaussian(20.0)], delta=1e-5)
    assert both.epsilon == pytest.approx(joint.epsilon, rel=1e-6)
    assert both.numerics == "hardened"
    assert both.events == joint.events
    again = pickle.loads(pickle.dumps(both))
    assert again.profile.epsilon(1e-5) == pytest.approx(both.epsilon, rel=1e-9)


def test_profiles_of_different_relations_do_not_compose():
    one = ac.AccountedProfile(ac.PureDP(1.0), "zero_out")
    two = ac.AccountedProfile(ac.PureDP(1.0), "add_remove")
    with pytest.raises(IncompatibleNeighboringError):
        one.compose(two)


def test_labels_are_carried():
    found = ac.guarantee(
        sgd(0.1, 1.0, 3), delta=1e-6, unit="user", neighboring="add_remove", numerics="hardened",
        seeded=True, assumptions=("A.",), details={"x": 1},
    )  # fmt: skip
    assert (found.unit, found.neighboring, found.numerics) == ("user", "add_remove", "hardened")
    assert found.seeded
    assert not found.certified
    assert found.assumptions[0] == "A."
    assert "independently" in found.assumptions[1]
    assert found.details["x"] == 1
    json.dumps(found.to_dict(), allow_nan=False)
    bare = ac.guarantee(ac.PureDP(1.0), delta=0.0)
    assert bare.numerics == "idealized"
    assert not bare.certified


# -- parallel composition -----------------------------------------------------------------------
def test_parallel_parts_cost_their_maximum():
    parts = ac.Parallel([ac.PureDP(0.3), ac.Laplace(1.0), ac.PureDP(0.7)])
    assert ac.guarantee(parts, delta=0.0).epsilon == pytest.approx(1.0)
    equal = ac.Parallel([ac.Gaussian(2.0)] * 5)
    assert ac.guarantee(equal, delta=1e-6).epsilon == pytest.approx(
        ac.guarantee(ac.Gaussian(2.0), delta=1e-6).epsilon
    )
    mixed = ac.Parallel([ac.Gaussian(2.0), sgd(0.1, 1.0, 10), ac.PureDP(0.1)])
    found = ac.guarantee(mixed, delta=1e-6).epsilon
    worst = max(ac.guarantee(part, delta=1e-6).epsilon for part in mixed.events)
    assert worst <= found
    assert any("disjoint" in s or "in two" in s for s in
               ac.guarantee(mixed, delta=1e-6).assumptions)  # fmt: skip


def test_a_replaced_record_may_move_between_parts():
    """Pure: the larger of one part's replacement and the two largest add-or-removes."""
    parts = ac.Parallel([ac.PureDP(0.3), ac.PureDP(0.5), ac.PureDP(0.9)])
    found = ac.guarantee(parts, delta=0.0, neighboring="replace_one").epsilon
    assert found == pytest.approx(max(2 * 0.9, 0.9 + 0.5))
    renyi = ac.Parallel([ac.DiscreteGaussian(3.0), ac.DiscreteGaussian(3.0)])
    moved = ac.guarantee(renyi, delta=1e-6, neighboring="replace_one").epsilon
    assert moved == pytest.approx(ac.guarantee(ac.ZCDP(4 / 18), delta=1e-6).epsilon, rel=2e-2)
    assert moved >= ac.guarantee(ac.ZCDP(4 / 18), delta=1e-6).epsilon * (1 - 1e-6)
    with pytest.raises(IncompatibleNeighboringError):
        ac.guarantee(ac.Parallel([ac.LocalDP(1.0), ac.PureDP(1.0)]), delta=0.0,
                     neighboring="replace_one")  # fmt: skip


# -- sampling of other mechanisms ---------------------------------------------------------------
def test_amplification_of_pure_mechanisms():
    eps, q = 1.2, 0.1
    expected = math.log1p(q * math.expm1(eps))
    for inner in (ac.PureDP(eps), ac.ExponentialMechanism(eps), ac.DiscreteLaplace(eps, 1)):
        found = ac.guarantee(ac.PoissonSampled(q, inner), delta=0.0).epsilon
        assert found == pytest.approx(expected)
    exact = ac.guarantee(ac.ApproxDP(eps, 1e-6), delta=1e-6)
    assert (exact.epsilon, exact.accountant) == (eps, "basic")
    both = ac.guarantee(ac.PoissonSampled(q, ac.ApproxDP(eps, 1e-5)), delta=1.0001e-6)
    assert both.epsilon == pytest.approx(expected, abs=1e-6)
    one_batch = ac.PoissonSampled(q, ac.Composed([ac.Gaussian(2.0), ac.Gaussian(2.0)]))
    joint = ac.PoissonSampled(q, ac.Gaussian(math.sqrt(2)))
    assert ac.guarantee(one_batch, delta=1e-6).epsilon == pytest.approx(
        ac.guarantee(joint, delta=1e-6).epsilon
    )


@pytest.mark.parametrize("inner", [ac.Laplace(0.8), ac.DiscreteLaplace(1.25, 1), ac.PureDP(1.25)])
@pytest.mark.parametrize("q", [0.05, 0.4, 0.9])
def test_amplification_of_pure_mechanisms_under_replacement(inner, q):
    """Discrete Laplace noise on a sampled sum, the record 1 or -1: never more than the price,
    which is less than that of a removal and an addition.
    """
    found = ac.guarantee(ac.PoissonSampled(q, inner), delta=0.0, neighboring="replace_one")
    removed = ac.guarantee(ac.PoissonSampled(q, inner), delta=0.0).epsilon
    assert removed < found.epsilon < 2 * removed
    x = np.arange(-60, 61)
    noise = {at: np.exp(-1.25 * np.abs(x - at)) for at in (-1, 0, 1)}
    one = (1 - q) * noise[0] + q * noise[1]
    other = (1 - q) * noise[0] + q * noise[-1]
    assert np.log(one / other).max() <= found.epsilon + 1e-12
    assert np.log(one / other).max() == pytest.approx(found.epsilon, rel=1e-9)


@pytest.mark.parametrize(
    "event",
    [
        ac.PoissonSampled(0.1, ac.DiscreteGaussian(1.0)), ac.PoissonSampled(0.1, ac.ZCDP(0.1)),
        ac.PoissonSampled(0.1, ac.UserPoisson(0.1, 1.0, 2)),
        ac.PoissonSampled(0.1, ac.RepeatAndSelect(ac.PureDP(0.1), 3.0, 1.0)),
    ],
    ids=lambda event: event.kind,
)  # fmt: skip
def test_what_cannot_be_priced_is_named_and_never_free(event):
    with pytest.raises(UnsupportedEventError, match=event.kind):
        ac.guarantee([ac.PureDP(0.1), ac.Composed([ac.SelfComposed(event, 3)])], delta=1e-6)


def test_shuffled_batches_get_no_amplification():
    event = ac.ShuffledEpochs(1000, 10, 4, 2.0)
    found = ac.guarantee(event, delta=1e-6)
    assert found.epsilon == pytest.approx(ac.guarantee(ac.Gaussian(1.0), delta=1e-6).epsilon)
    assert any("shuffled" in sentence for sentence in found.assumptions)
    with pytest.raises(IncompatibleNeighboringError, match="ShuffledEpochs"):
        ac.guarantee(event, delta=1e-6, neighboring="add_remove")


@pytest.mark.parametrize(
    ("s", "batches", "delta", "lower"), [(0.8, 1000, 1e-6, 6.045), (1.0, 32, 1e-5, 4.266)]
)
def test_lower_bound_for_shuffled_batches(s, batches, delta, lower):
    found = ac.shuffled_epsilon_lower_bound(noise_multiplier=s, batches=batches, delta=delta)
    assert found == pytest.approx(lower, abs=1e-3)
    assert found < ac.guarantee(ac.Gaussian(s), delta=delta).epsilon
    assert found > ac.guarantee(sgd(1 / batches, s, batches), delta=delta).epsilon


# -- input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, InvalidParameterError),
        ({"delta": 1e-5, "epsilon": 1.0}, InvalidParameterError),
        ({"delta": 1.0}, InvalidBudgetError),
        ({"delta": math.nan}, InvalidBudgetError),
        ({"epsilon": -1.0}, InvalidBudgetError),
        ({"delta": 1e-5, "accountant": "prv"}, InvalidParameterError),
        ({"delta": 1e-5, "neighboring": "remove"}, InvalidParameterError),
        ({"delta": 1e-5, "unit": "row"}, InvalidParameterError),
        ({"delta": 1e-5, "numerics": "float"}, InvalidParameterError),
        ({"delta": 0.0, "accountant": "pld"}, AccountingAssumptionError),
        ({"delta": 1e-5, "accountant": "basic"}, UnsupportedEventError),
    ],
)
def test_bad_options(options, error):
    with pytest.raises(error):
        ac.guarantee(ac.Gaussian(1.0), **options)


@pytest.mark.parametrize(
    "event",
    [
        ac.Gaussian(1e-20), ac.Gaussian(1e-60), ac.Gaussian(1e-99), ac.ZCDP(1e40), ac.ZCDP(1e308),
        ac.DiscreteGaussian(1e-30), ac.SelfComposed(ac.Gaussian(1e-90), 10**12),
        ac.ExponentialMechanism(1e200), ac.PureDP(1e200),
    ],
)  # fmt: skip
@pytest.mark.parametrize("accountant", ["best", "zcdp", "rdp"])
def test_hardly_any_noise_is_never_free(event, accountant):
    """The best order is 1 to the last digit there, at which the conversion would say nothing."""
    if accountant == "zcdp" and isinstance(event, ac.PureDP | ac.ExponentialMechanism):
        event = ac.ZCDP(1e100)  # half of these squares is no number
    found = ac.guarantee(event, delta=1e-5, accountant=accountant)
    assert found.epsilon > 1e30


@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.5])
@pytest.mark.parametrize("rho", [1e-6, 1.0, 1e6, 1e24, 1e30, 1e35])
def test_zcdp_is_a_bound_beside_the_exact_gaussian(rho, delta):
    exact = ac.guarantee(ac.Gaussian((2 * rho) ** -0.5), delta=delta, accountant="gdp").epsilon
    found = ac.guarantee(ac.ZCDP(rho), delta=delta, accountant="zcdp").epsilon
    simple = rho + 2 * math.sqrt(rho * math.log(1 / delta))
    assert exact * (1 - 1e-9) <= found <= simple * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("scale", [1e-101, 1e-200, 1e-300, 5e-324])
@pytest.mark.parametrize(
    "event",
    [
        lambda s: ac.Gaussian(s),
        lambda s: ac.DiscreteGaussian(s),
        lambda s: ac.Laplace(s),
        lambda s: ac.PoissonSampled(0.1, ac.Gaussian(s)),
        lambda s: ac.PoissonSampled(0.1, ac.Composed((ac.Gaussian(s), ac.Gaussian(1.0)))),
        lambda s: ac.PoissonSampled(0.1, ac.Laplace(s)),
        lambda s: ac.UserPoisson(0.1, s, 4),
        lambda s: ac.TruncatedPoisson(100, 0.1, 20, s),
        lambda s: ac.ShuffledEpochs(100, 10, 2, s),
        lambda s: ac.FixedBatchWOR(100, 10, ac.Gaussian(s)),
        lambda s: ac.Parallel((ac.Gaussian(s), ac.Gaussian(1.0))),
        lambda s: ac.RepeatAndSelect(ac.Gaussian(s), 3.0, 1.0),
    ],
)
def test_scales_beyond_the_numbers_of_a_computer_are_no_noise(event, scale):
    made = event(scale)
    options = {}
    if isinstance(made, ac.FixedBatchWOR):
        options["neighboring"] = "replace_one"
    if isinstance(made, ac.UserPoisson):
        options["unit"] = "user"
    found = ac.guarantee(made, delta=1e-5, **options)
    assert math.isinf(found.epsilon) and found.unsafe == ("no_noise",)
    assert ac.guarantee(made, epsilon=1.0, **options).epsilon == math.inf


@pytest.mark.parametrize("events", [None, 3, "Gaussian", [1]])
def test_what_is_no_event(events):
    with pytest.raises(InvalidTypeError):
        ac.guarantee(events, delta=1e-5)


def test_accounting_loads_nothing_heavy():
    import subprocess
    import sys

    probe = (
        "import sys; from privfair.accounting import *; from privfair import accounting as a\n"
        "def loaded(*names): return sorted(set(names) & set(sys.modules))\n"
        "a.calibrate_noise_multiplier(epsilon=1, delta=1e-5, sample_rate=1.0, steps=9)\n"
        "a.guarantee([a.Gaussian(3.0), a.Gaussian(4.0)], delta=1e-5)\n"
        "a.guarantee([a.PureDP(0.1), a.Laplace(2.0)], delta=0.0)\n"
        "print('CLOSED FORMS LOAD', loaded('dp_accounting', 'scipy.stats', 'scipy.signal'))\n"
        "s = a.calibrate_noise_multiplier(epsilon=1, delta=1e-5, sample_rate=.1, steps=9)\n"
        "a.guarantee(a.SelfComposed(a.PoissonSampled(.1, a.Gaussian(s)), 9), delta=1e-5)\n"
        "print('ALL LOADS', loaded('torch', 'cvxpy', 'matplotlib', 'sklearn', 'pandas'))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True,
                          check=True, cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.stdout.splitlines() == ["CLOSED FORMS LOAD []", "ALL LOADS []"]
