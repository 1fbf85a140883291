"""Bugs and traps of the libraries underneath: each test fails if one passes through."""

import math

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from privfair import accounting as ac
from privfair.core.exceptions import IncompatibleNeighboringError, UnsupportedEventError

REPLACE = dpa.NeighboringRelation.REPLACE_ONE
EPS0 = math.log(3)


def test_repeated_randomised_response_is_counted_every_time():
    """dp_accounting 0.6.0 ignores the count: it prices 20 reports as one (1.0987)."""
    twenty = ac.SelfComposed(ac.RandomizedResponse(EPS0, 2), 20)
    ours = ac.guarantee(twenty, delta=1e-6, neighboring="replace_one").epsilon
    assert ours == pytest.approx(20 * EPS0, abs=1e-3)
    assert ours <= 20 * EPS0
    listed = [ac.RandomizedResponse(EPS0, 2)] * 20
    assert ac.guarantee(listed, delta=1e-6, neighboring="replace_one").epsilon == ours
    # The bug is still there; when it is gone, this line says so.
    theirs = PLDAccountant(REPLACE)
    theirs.compose(ac.to_dp_accounting(twenty))
    assert theirs.get_epsilon(1e-6) < 2


@pytest.mark.parametrize("relation", ["replace_one", "zero_out"])
@pytest.mark.parametrize(("count", "k", "eps0"), [(1, 2, 1.0), (7, 5, 0.5), (40, 3, 0.1)])
def test_randomised_response_equals_the_exact_convolution(relation, count, k, eps0):
    """Compare with the hockey-stick divergence of the multinomial, term by term."""
    p = math.exp(eps0) / (math.exp(eps0) + k - 1)
    lie = (1 - p) / (k - 1)
    law = {0: 1.0}
    for _ in range(count):
        fresh: dict[int, float] = {}
        for at, mass in law.items():
            for step, share in ((1, p), (-1, lie), (0, 1 - p - lie)):
                fresh[at + step] = fresh.get(at + step, 0.0) + mass * share
        law = fresh
    profile = ac.AccountedProfile(
        ac.SelfComposed(ac.RandomizedResponse(eps0, k), count), relation, "pld"
    )
    for epsilon in np.linspace(0, 0.9 * count * eps0, 7):
        exact = sum(m * max(0.0, 1 - math.exp(epsilon - eps0 * at)) for at, m in law.items())
        assert profile.delta(float(epsilon)) == pytest.approx(exact, rel=1e-9, abs=1e-13)
        if exact > 1e-9:
            assert profile.epsilon(exact) == pytest.approx(epsilon, abs=1e-7)


def test_delta_zero_is_answered_by_pure_composition():
    """The Renyi accountant of dp_accounting says inf for pure events at delta = 0."""
    theirs = RdpAccountant(neighboring_relation=REPLACE)
    theirs.compose(dpa.LaplaceDpEvent(2.0))
    assert math.isinf(theirs.get_epsilon(0.0))
    ours = ac.guarantee([ac.Laplace(2.0), ac.PureDP(0.25)], delta=0.0)
    assert ours.epsilon == pytest.approx(0.75)
    assert ours.accountant == "basic"
    assert math.isinf(ac.guarantee(ac.Gaussian(1.0), delta=0.0).epsilon)


def test_replacement_doubles_the_contribution():
    """dp_accounting's Renyi accountant prices a Gaussian alike under every relation."""
    theirs = {}
    for relation in (dpa.NeighboringRelation.ADD_OR_REMOVE_ONE, REPLACE):
        accountant = RdpAccountant(neighboring_relation=relation)
        accountant.compose(dpa.GaussianDpEvent(2.0))
        theirs[relation] = accountant.get_epsilon(1e-5)
    assert len(set(theirs.values())) == 1
    for accountant in ("gdp", "pld", "rdp", "zcdp"):
        options = {"delta": 1e-5, "accountant": accountant}
        replaced = ac.guarantee(ac.Gaussian(2.0), neighboring="replace_one", **options)
        halved = ac.guarantee(ac.Gaussian(1.0), neighboring="zero_out", **options)
        assert replaced.epsilon == pytest.approx(halved.epsilon, rel=1e-9)
    for event, double in (
        (ac.Laplace(2.0), ac.Laplace(1.0)),
        (ac.DiscreteLaplace(0.1, 2), ac.DiscreteLaplace(0.1, 4)),
        (ac.PureDP(0.3), ac.PureDP(0.6)),
        (ac.DiscreteGaussian(4.0), ac.DiscreteGaussian(2.0)),
        (ac.ZCDP(0.01), ac.ZCDP(0.04)),
    ):
        replaced = ac.guarantee(event, delta=1e-5, neighboring="replace_one")
        assert replaced.epsilon == pytest.approx(ac.guarantee(double, delta=1e-5).epsilon)


def test_group_privacy_of_approximate_dp():
    found = ac.guarantee(ac.ApproxDP(0.5, 1e-6), delta=3e-6, neighboring="replace_one")
    assert found.epsilon == pytest.approx(1.0, abs=1e-4)
    short = ac.guarantee(ac.ApproxDP(0.5, 1e-6), delta=2.6e-6, neighboring="replace_one")
    assert math.isinf(short.epsilon)


@pytest.mark.parametrize("event", [ac.RandomizedResponse(1.0, 2), ac.LocalDP(1.0)])
def test_local_events_have_no_add_remove_guarantee(event):
    with pytest.raises(IncompatibleNeighboringError, match=event.kind):
        ac.guarantee([ac.PureDP(1.0), ac.SelfComposed(event, 3)], delta=1e-6,
                     neighboring="add_remove")  # fmt: skip
    for relation in ("zero_out", "replace_one"):
        assert ac.guarantee(event, delta=0, neighboring=relation).epsilon == 1.0


def test_replacement_is_another_pair_not_twice_the_noise():
    step = ac.SelfComposed(ac.PoissonSampled(0.1, ac.Gaussian(3.0)), 512)
    assert ac.guarantee(step, delta=1e-6).epsilon == pytest.approx(3.770, abs=2e-3)
    replaced = ac.guarantee(step, delta=1e-6, neighboring="replace_one")
    assert replaced.epsilon == pytest.approx(7.825, abs=2e-3)
    assert any("replacement" in sentence for sentence in replaced.assumptions)
    with pytest.raises(IncompatibleNeighboringError, match="PoissonSampled"):
        ac.guarantee(step, delta=1e-6, neighboring="replace_one", accountant="rdp")


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.1, 3.0, 512), (0.02, 0.9, 100)])
def test_replacement_agrees_with_dp_accounting(q, sigma, steps):
    theirs = PLDAccountant(REPLACE, 1e-4)
    theirs.compose(
        dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma)), steps)
    )
    step = ac.SelfComposed(ac.PoissonSampled(q, ac.Gaussian(sigma)), steps)
    ours = ac.guarantee(step, delta=1e-6, neighboring="replace_one").epsilon
    assert ours == pytest.approx(theirs.get_epsilon(1e-6), rel=2e-3)


def test_the_asymptotic_gaussian_number_is_nowhere():
    """The central-limit formula says 0.494 where the true epsilon is above 2.09."""
    step = ac.SelfComposed(ac.PoissonSampled(0.001, ac.Gaussian(0.6)), 1000)
    found = ac.guarantee(step, delta=1e-6)
    assert found.epsilon > 2.09
    with pytest.raises(UnsupportedEventError, match="approximation"):
        ac.guarantee(step, delta=1e-6, accountant="gdp")


def test_a_small_delta_is_not_answered_by_fourier_transforms():
    step = ac.SelfComposed(ac.PoissonSampled(0.01, ac.Gaussian(1.0)), 100)
    found = ac.guarantee(step, delta=1e-14)
    assert found.accountant == "rdp"
    assert math.isfinite(found.epsilon)
    assert found.epsilon > ac.guarantee(step, delta=1e-12).epsilon


def test_a_low_order_is_never_free():
    """An order with a negative or undefined divergence must not win."""
    from privfair.accounting._rdp import convert

    orders = np.array([1.5, 2.0, 8.0, 32.0, 64.0])
    r = np.array([-1.0, np.nan, 0.5, 2.0, -5.0])
    eps, order = convert(orders, r, 1e-5)
    assert order in (8.0, 32.0)
    assert eps > 0.5
