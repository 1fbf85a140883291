"""Batches without replacement, cut batches, users, selection: against independent computations."""

import itertools
import math

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import binom, norm

from privfair import accounting as ac
from privfair.accounting import _plan, _rdp, _select
from privfair.core.exceptions import (
    IncompatibleNeighboringError,
    InvalidParameterError,
    UnsupportedEventError,
)
from privfair.core.privacy import Budget
from tests.accounting import reference_pld as reference

REPLACE = dpa.NeighboringRelation.REPLACE_ONE
X = np.linspace(-60, 70, 26_001)
WIDTH = X[1] - X[0]


def density(sums, weights, sigma):
    joined = {}
    for s, w in zip(sums, weights, strict=True):
        joined[s] = joined.get(s, 0.0) + w
    scale = sigma * math.sqrt(2 * math.pi)
    return sum(w * np.exp(-(((X - s) / sigma) ** 2) / 2) for s, w in joined.items()) / scale


def hockey_stick(p, q, epsilon):
    return float(np.maximum(0.0, p - math.exp(epsilon) * q).sum() * WIDTH)


def renyi(p, q, order):
    keep = (p > 1e-300) & (q > 1e-300)
    exponent = order * np.log(p[keep]) + (1 - order) * np.log(q[keep])
    return float(logsumexp(exponent) + math.log(WIDTH)) / (order - 1)


# -- batches of fixed size --------------------------------------------------------------------
@pytest.mark.parametrize(("n", "batch", "sigma"), [(4, 2, 2.0), (5, 1, 1.5), (6, 3, 4.0)])
def test_batches_without_replacement_by_enumeration(n, batch, sigma):
    """All batches, one record 1 or -1, the others at both ends: the bound holds at every order,
    and the library's number without our factor of two would not.
    """
    event = ac.FixedBatchWOR(n, batch, ac.Gaussian(sigma))
    orders = np.array([2.0, 3.0, 4.5, 8.0])
    bound = _rdp.curve(_plan.read((event,), "replace_one"), orders)
    profile = ac.AccountedProfile(event, "replace_one")
    halved = RdpAccountant(list(orders), REPLACE)
    halved.compose(dpa.SampledWithoutReplacementDpEvent(n, batch, dpa.GaussianDpEvent(sigma)))
    exceeded = False
    for plus in range(n):
        others = [1.0] * plus + [-1.0] * (n - 1 - plus)
        laws = []
        for first in (1.0, -1.0):
            sums = [sum(part) for part in itertools.combinations([first, *others], batch)]
            laws.append(density(sums, [1 / len(sums)] * len(sums), sigma))
        for p, q in (laws, laws[::-1]):
            exact = np.array([renyi(p, q, order) for order in orders])
            assert np.all(exact <= bound * (1 + 1e-9))
            exceeded |= bool(np.any(exact > halved.rdp))
            for epsilon in (0.1, 0.5, 1.0):
                assert hockey_stick(p, q, epsilon) <= profile.delta(epsilon)
    assert exceeded


def test_batches_without_replacement_agree_with_dp_accounting():
    event = ac.SelfComposed(ac.FixedBatchWOR(1000, 10, ac.Gaussian(4.0)), 300)
    theirs = RdpAccountant(list(range(2, 128)), REPLACE)
    step = dpa.SampledWithoutReplacementDpEvent(1000, 10, dpa.GaussianDpEvent(2.0))
    theirs.compose(dpa.SelfComposedDpEvent(step, 300))
    ours = ac.guarantee(event, delta=1e-6, neighboring="replace_one")
    assert ours.epsilon == pytest.approx(theirs.get_epsilon(1e-6), rel=1e-6)
    everything = ac.FixedBatchWOR(10, 10, ac.Gaussian(4.0))
    assert ac.guarantee(everything, delta=1e-6, neighboring="replace_one").epsilon == (
        pytest.approx(ac.guarantee(ac.Gaussian(2.0), delta=1e-6).epsilon)
    )
    for relation in ("zero_out", "add_remove"):
        with pytest.raises(IncompatibleNeighboringError, match="FixedBatchWOR"):
            ac.guarantee(event, delta=1e-6, neighboring=relation)


# -- users --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("q", "sigma", "most"), [(0.05, 2.0, 3), (0.3, 1.0, 8), (0.5, 6.0, 20)])
def test_one_step_of_users_meets_quadrature(q, sigma, most):
    """The loss grows with the output, so that both divergences are differences of tails."""
    shifts, weights = np.arange(most + 1), binom.pmf(range(most + 1), most, q)

    def loss(x):
        return float(logsumexp((2 * shifts * x - shifts**2) / (2 * sigma**2) + np.log(weights)))

    profile = ac.AccountedProfile(ac.UserPoisson(q, sigma, most), accountant="pld")
    assert math.isfinite(profile.epsilon(1e-6))
    for epsilon in (0.05, 0.3, 1.0, 3.0):
        ends = -50 * sigma, most + 50 * sigma
        x = brentq(lambda x, e=epsilon: loss(x) - e, *ends, xtol=1e-13)
        exact = weights @ norm.sf(x, shifts, sigma) - math.exp(epsilon) * norm.sf(x, 0, sigma)
        if loss(ends[0]) < -epsilon:
            x = brentq(lambda x, e=epsilon: loss(x) + e, *ends, xtol=1e-13)
            lower = weights @ norm.cdf(x, shifts, sigma)
            exact = max(exact, norm.cdf(x, 0, sigma) - math.exp(epsilon) * lower)
        assert exact * (1 - 1e-9) <= profile.delta(epsilon) <= exact * 1.002 + 1e-9


@pytest.mark.parametrize(
    ("q", "sigma", "most", "count"), [(0.02, 2.0, 3, 200), (0.2, 9.0, 10, 40)]
)
def test_steps_of_users_agree_with_dp_accounting(q, sigma, most, count):
    """The library's own construction of the same pair, and a brute-force composition."""
    theirs = PLDAccountant(value_discretization_interval=2e-3)
    shifts = list(range(most + 1))
    mixture = dpa.dp_event.MixtureOfGaussiansDpEvent(sigma, shifts, binom.pmf(shifts, most, q))
    theirs.compose(dpa.SelfComposedDpEvent(mixture, count))
    event = ac.SelfComposed(ac.UserPoisson(q, sigma, most), count)
    ours = ac.guarantee(event, delta=1e-6, unit="user").epsilon
    assert ours == pytest.approx(theirs.get_epsilon(1e-6), rel=5e-3)
    edges = np.linspace(-8 * sigma, most + 8 * sigma, 4001)
    middle = (edges[1:] + edges[:-1]) / 2
    masses = [np.diff(norm.cdf(edges, s, sigma)) for s in shifts]
    one = sum(w * m for w, m in zip(binom.pmf(shifts, most, q), masses, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = np.log(one / masses[0])
    assert len(middle) == len(loss)
    seen = (one > 0) & (masses[0] > 0)
    values = []
    for sign, p in ((1, one), (-1, masses[0])):
        single = reference.from_atoms(1e-4, sign * loss[seen], p[seen], 1e-14)
        values.append(reference.epsilon(reference.compose([(single, count)]), 1e-6))
    assert ours == pytest.approx(max(values), rel=5e-3)


def test_special_cases_of_users():
    one = ac.SelfComposed(ac.UserPoisson(0.01, 1.1, 1), 500)
    sgd = ac.SelfComposed(ac.PoissonSampled(0.01, ac.Gaussian(1.1)), 500)
    assert ac.guarantee(one, delta=1e-6, unit="user").epsilon == (
        ac.guarantee(sgd, delta=1e-6).epsilon
    )
    everything = ac.guarantee(ac.UserPoisson(1.0, 8.0, 4), delta=1e-6, unit="user")
    assert everything.epsilon == ac.guarantee(ac.Gaussian(2.0), delta=1e-6).epsilon
    assert any("No user holds more" in sentence for sentence in everything.assumptions)
    with pytest.raises(IncompatibleNeighboringError, match="UserPoisson"):
        ac.guarantee(ac.UserPoisson(0.1, 1.0, 2), delta=1e-6, unit="user",
                     neighboring="replace_one")  # fmt: skip


def test_users_need_the_unit_user_wherever_they_are():
    event = ac.Composed([ac.PureDP(0.1), ac.SelfComposed(ac.UserPoisson(0.1, 5.0, 2), 3)])
    for unit in ("record", "client"):
        with pytest.raises(IncompatibleNeighboringError, match="unit='user'"):
            ac.guarantee(event, delta=1e-6, unit=unit)
    ledger = ac.Ledger(cap=Budget(9.0, 1e-5))
    refused = pytest.raises(IncompatibleNeighboringError, match="unit='user'")
    with refused, ledger.spend(event, purpose="training"):
        pass
    with pytest.raises(IncompatibleNeighboringError, match="unit='user'"):
        ac.PrivacyFilter(epsilon=1.0, delta=1e-6).admits(event)
    with ac.Ledger(cap=Budget(9.0, 1e-5), unit="user").spend(event, purpose="training"):
        pass


# -- cut batches --------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "q", "most", "sigma"), [(4, 0.5, 1, 1.0), (6, 0.3, 2, 1.5)])
def test_cut_batches_by_enumeration(n, q, most, sigma):
    """All samples and all cuts, the record 1, -1 or nothing among others at -1 or 1.

    Cutting makes things worse: the price of an uncut sample would be too small here.
    """

    def law(records):
        sums, weights = [], []
        for drawn in itertools.product((0, 1), repeat=n):
            inside = [r for r, d in zip(records, drawn, strict=True) if d]
            weight = q ** len(inside) * (1 - q) ** (n - len(inside))
            kept = list(itertools.combinations(inside, min(most, len(inside))))
            sums += [sum(part) for part in kept]
            weights += [weight / len(kept)] * len(kept)
        return density(sums, weights, sigma)

    event = ac.TruncatedPoisson(n, q, most, sigma)
    uncut = ac.PoissonSampled(q, ac.Gaussian(sigma))
    passed = False
    for relation, other in (("zero_out", 0.0), ("replace_one", -1.0)):
        profile = ac.AccountedProfile(event, relation, "pld")
        plain = ac.AccountedProfile(uncut, relation, "pld")
        for plus in (0, (n - 1) // 2, n - 1):
            others = [1.0] * plus + [-1.0] * (n - 1 - plus)
            one, two = law([1.0, *others]), law([other, *others])
            for p, r in ((one, two), (two, one)):
                for epsilon in (0.02, 0.3, 1.0, 2.5):
                    exact = hockey_stick(p, r, epsilon)
                    assert exact <= profile.delta(epsilon) + 1e-12
                    passed |= exact > plain.delta(epsilon) * 1.01
    assert passed or most > 1


def test_cut_batches_agree_with_dp_accounting():
    event = ac.SelfComposed(ac.TruncatedPoisson(2000, 0.01, 30, 1.2), 300)
    for relation, theirs in (
        ("zero_out", dpa.NeighboringRelation.REPLACE_SPECIAL), ("replace_one", REPLACE),
    ):  # fmt: skip
        accountant = PLDAccountant(theirs, 1e-3)
        accountant.compose(ac.to_dp_accounting(event))
        ours = ac.guarantee(event, delta=1e-6, neighboring=relation).epsilon
        assert ours == pytest.approx(accountant.get_epsilon(1e-6), rel=5e-3)
    never = ac.TruncatedPoisson(50, 0.1, 50, 1.2)
    assert ac.guarantee(never, delta=1e-6).epsilon == (
        ac.guarantee(ac.PoissonSampled(0.1, ac.Gaussian(1.2)), delta=1e-6).epsilon
    )
    with pytest.raises(IncompatibleNeighboringError, match="TruncatedPoisson"):
        ac.guarantee(event, delta=1e-6, neighboring="add_remove")


# -- selection ----------------------------------------------------------------------------------
SHAPES = [0.0, 0.5, 1.0, 3.0, math.inf]


def best_of(base, runs):
    """Law of the best outcome (the last index is best), and of no run at all."""
    most = len(runs) - 1
    below = np.concatenate([[0.0], np.cumsum(base)])
    powers = np.array([runs @ (b ** np.arange(most + 1)) for b in np.minimum(below, 1.0)])
    return np.append(np.diff(powers), runs[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [1.5, 10.0, 50.0])
def test_selection_by_enumeration(mean, shape):
    """Three outcomes, one the best, over many laws: bounds of all orders and of delta hold."""
    generator = np.random.default_rng(3)
    eps0 = 0.3
    event = ac.RepeatAndSelect(ac.PureDP(eps0), mean, shape)
    orders = np.array([1.2, 2.0, 5.0, 30.0])
    bound = _rdp.curve(_plan.read((event,), "zero_out"), orders)
    profile = ac.AccountedProfile(event)
    limits = [(epsilon, profile.delta(epsilon)) for epsilon in (0.3, 0.6, 1.0)]
    runs = _select.law(2000, mean, shape)
    worst = 0.0
    for _ in range(60):
        p = generator.dirichlet([1, 1, 1]) * np.exp(generator.uniform(-6, 0, 3))
        p = p / p.sum()
        tilt = np.exp(eps0 * generator.choice([-0.5, 0.5], 3))
        q = p * tilt / (p * tilt).sum()
        one, two = best_of(p, runs), best_of(q, runs)
        keep = (one > 0) & (two > 0)
        for a, b in ((one[keep], two[keep]), (two[keep], one[keep])):
            for order, most in zip(orders, bound, strict=True):
                exponent = order * np.log(a) + (1 - order) * np.log(b)
                found = float(logsumexp(exponent)) / (order - 1)
                assert found <= most + 1e-9
            for epsilon, limit in limits:
                assert np.maximum(0.0, a - math.exp(epsilon) * b).sum() <= limit + 1e-9
            worst = max(worst, float(np.log(a / b).max()))
    if mean == 50.0 and shape >= 1:
        assert worst > 1.1 * eps0, "selection costs more than one run"


@pytest.mark.parametrize("shape", SHAPES)
def test_selection_agrees_with_dp_accounting(shape):
    run = ac.SelfComposed(ac.PoissonSampled(0.01, ac.Gaussian(2.0)), 400)
    event = ac.RepeatAndSelect(run, 12.0, shape)
    theirs = RdpAccountant(list(_rdp.QUICK))
    theirs.compose(ac.to_dp_accounting(event))
    ours = ac.guarantee(event, delta=1e-6, accountant="rdp")
    assert ours.epsilon == pytest.approx(theirs.get_epsilon(1e-6), rel=2e-3)
    twice = ac.guarantee([event, event], delta=1e-6).epsilon
    assert ac.guarantee(event, delta=1e-6).epsilon < twice


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [1.0, 1.2, 7.0, 300.0])
def test_the_law_of_the_number_of_runs(mean, shape):
    law = _select.law(60_000, mean, shape)
    assert law.sum() == pytest.approx(1.0, abs=1e-6)
    assert law @ np.arange(len(law)) == pytest.approx(mean, rel=1e-3)
    event = ac.RepeatAndSelect(ac.PureDP(0.1), mean, shape)
    total = np.cumsum(law)
    for uniform in (0.0, 0.3, 0.77, 0.999):
        k = event.runs(uniform)
        assert total[k] > uniform
        assert k == 0 or total[k - 1] <= uniform
    if math.isfinite(shape):
        assert event.runs(0.0) >= 1


def test_runs_that_may_fail():
    run = ac.SelfComposed(ac.PoissonSampled(0.01, ac.Gaussian(2.0)), 400)
    failing = ac.RepeatAndSelect(ac.Composed([run, ac.ApproxDP(0.0, 1e-8)]), 10.0, 1.0)
    plain = ac.RepeatAndSelect(run, 10.0, 1.0)
    found = ac.guarantee(failing, delta=1e-6, accountant="rdp").epsilon
    rest = ac.guarantee(plain, delta=(1e-6 - 1e-7), accountant="rdp").epsilon
    assert found == pytest.approx(rest, rel=1e-9)
    often = ac.RepeatAndSelect(ac.ApproxDP(0.1, 0.2), 10.0, 1.0)
    assert math.isinf(ac.guarantee(often, delta=1e-6).epsilon)
    assert ac.guarantee(ac.RepeatAndSelect(ac.NonPrivate(), 2.0, 1.0), delta=1e-6).unsafe
    with pytest.raises(InvalidParameterError, match="mean must be at least 1"):
        ac.RepeatAndSelect(run, 0.5, 1.0)


@pytest.mark.parametrize(
    "inner", [ac.UserPoisson(0.1, 5.0, 3), ac.TruncatedPoisson(50, 0.1, 9, 5.0)],
    ids=lambda event: event.kind,
)  # fmt: skip
def test_what_has_no_renyi_divergence_is_refused_where_one_is_needed(inner):
    unit = {"unit": "user"}
    for event in (ac.RepeatAndSelect(inner, 3.0, 1.0), ac.Parallel([inner, ac.PureDP(0.1)])):
        with pytest.raises(UnsupportedEventError, match=inner.kind):
            ac.guarantee(event, delta=1e-6, **unit)
    with pytest.raises(UnsupportedEventError, match=inner.kind):
        ac.guarantee(inner, delta=1e-6, accountant="rdp", **unit)
    with pytest.raises(UnsupportedEventError, match=inner.kind):
        ac.PrivacyFilter(epsilon=1.0, delta=1e-6, unit="user").charge(inner)


# -- together -------------------------------------------------------------------------------------
def test_nested_with_other_events():
    sgd = ac.SelfComposed(ac.PoissonSampled(0.02, ac.Gaussian(2.0)), 50)
    plans = {
        "replace_one": [ac.SelfComposed(ac.FixedBatchWOR(500, 10, ac.Gaussian(8.0)), 40),
                        ac.LocalDP(0.2),
                        ac.SelfComposed(ac.TruncatedPoisson(500, 0.02, 30, 9.0), 9)],
        "zero_out": [ac.SelfComposed(ac.UserPoisson(0.02, 4.0, 3), 50), sgd, ac.Laplace(9.0),
                     ac.RepeatAndSelect(ac.Composed([ac.Laplace(9.0), ac.ZCDP(0.01)]), 5.0, 1.0),
                     ac.SelfComposed(ac.TruncatedPoisson(500, 0.02, 30, 3.0), 9)],
    }  # fmt: skip
    for relation, events in plans.items():
        options = {"delta": 1e-6, "neighboring": relation, "unit": "user"}
        each = [ac.guarantee(event, **options).epsilon for event in events]
        share = {**options, "delta": 1e-6 / len(events)}
        summed = sum(ac.guarantee(event, **share).epsilon for event in events)
        nested = ac.Composed([events[0], ac.Composed(events[1:][::-1])])
        found = ac.guarantee(nested, **options).epsilon
        assert max(each) <= found <= summed
        assert found == pytest.approx(ac.guarantee(events, **options).epsilon, rel=1e-9)
        again = ac.event_from_dict(nested.to_dict())
        assert ac.guarantee(again, **options).epsilon == found
    sigma = ac.calibrate_noise_multiplier(
        epsilon=2.0, delta=1e-6, sample_rate=0.05, steps=30,
        extra_events=ac.SelfComposed(ac.UserPoisson(0.02, 4.0, 3), 50),
    )  # fmt: skip
    both = [ac.SelfComposed(ac.UserPoisson(0.02, 4.0, 3), 50),
            ac.SelfComposed(ac.PoissonSampled(0.05, ac.Gaussian(sigma)), 30)]  # fmt: skip
    assert 0.998 <= ac.guarantee(both, delta=1e-6, unit="user").epsilon / 2.0 <= 1.0


@pytest.mark.parametrize(
    ("make", "relation"),
    [
        (lambda s: ac.FixedBatchWOR(500, 10, ac.Gaussian(s)), "replace_one"),
        (lambda s: ac.TruncatedPoisson(500, 0.02, 20, s), "zero_out"),
        (lambda s: ac.UserPoisson(0.02, s, 4), "zero_out"),
        (lambda s: ac.RepeatAndSelect(ac.Gaussian(s), 4.0, 1.0), "add_remove"),
    ],
    ids=["FixedBatchWOR", "TruncatedPoisson", "UserPoisson", "RepeatAndSelect"],
)
def test_more_noise_fewer_steps_and_a_larger_delta_cost_less(make, relation):
    def eps(sigma, steps, delta):
        event = ac.SelfComposed(make(sigma), steps)
        return ac.guarantee(event, delta=delta, neighboring=relation, unit="user").epsilon

    base = eps(4.0, 20, 1e-6)
    assert eps(5.0, 20, 1e-6) < base < eps(4.0, 25, 1e-6)
    assert eps(4.0, 20, 1e-5) < base
    listed = [make(4.0)] * 20
    options = {"delta": 1e-6, "neighboring": relation, "unit": "user"}
    assert ac.guarantee(listed, **options).epsilon == pytest.approx(base, rel=1e-9)
    # Orders up to 512, and a selection's price of its secret number, leave a remainder.
    rest = {"RepeatAndSelect": 0.1, "FixedBatchWOR": 0.03}.get(make(1.0).kind, 1e-3)
    assert eps(1e6, 1, 1e-6) < rest
    assert math.isinf(ac.guarantee(make(0.0), **options).epsilon)


# -- words ----------------------------------------------------------------------------------------
def test_every_kind_of_event_is_put_in_words():
    from tests.accounting.test_events import ALL

    texts = [event.describe() for event in [*ALL, ac.Parallel([ac.PureDP(0.1)])]]
    assert len(set(texts)) == len(texts)
    for event, text in zip(ALL, texts, strict=False):
        assert text != event.kind
        assert "(" not in text.split(" ")[0]
    plan = [ac.SelfComposed(ac.PoissonSampled(0.01, ac.Gaussian(1.1)), 100)] * 9
    found = ac.guarantee([*plan, ac.ApproxDP(0.0, 1e-9)], delta=1e-6).explain()
    assert "Covers: 100 times (on a sample that each unit enters with probability 0.01" in found
    assert "Covers: 2 more such releases." in found
    assert "0.1, 1 or 10 % finds at most" in found
