"""Filters and odometers: the reference table, exact stopping, and attacks by adaptive choice."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.accounting import _gaussian
from privfair.core.exceptions import (
    AccountingAssumptionError,
    BudgetExceededError,
    IncompatibleNeighboringError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    PrivfairError,
    SchemaVersionError,
    UnsupportedEventError,
)

DELTA = 1e-5
TWELVE = (1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TABLE = [  # q, steps, epsilon, order, noise by one order, by twelve, by a fixed plan, limit
    (0.01, 1000, 1.0, 17.0, 1.5131, 1.6828, 1.4158, 0.518142),
    (256 / 26000, 400, 0.5, 27.0, 1.7679, 2.0110, 1.6301, 0.221698),
    (512 / 26000, 600, 2.0, 9.25, 1.3161, 1.4340, 1.2380, 0.988556),
    (0.02, 500, 3.0, 6.25, 1.0221, 1.1010, 0.9640, 1.330478),
    (0.01, 1000, 8.0, 3.0, 0.6174, 0.6534, 0.5863, 3.198304),
]


def step(q, sigma):
    return ac.PoissonSampled(q, ac.Gaussian(sigma))


# -- the reference table --------------------------------------------------------------------
@pytest.mark.golden
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]:.4f}-{row[2]}")
def test_reference_table(row):
    """Values of an earlier implementation at delta 1e-5 (orders, limits and noise multipliers)."""
    q, steps, epsilon, order, one, twelve, fixed, limit = row
    made = ac.PrivacyFilter(epsilon=epsilon, delta=DELTA, planned=(q, one, steps))
    assert made.orders == (order,)
    assert made.limits[0] == pytest.approx(limit, abs=5.1e-6)
    assert made.smallest_noise_multiplier(q, steps) == pytest.approx(one, abs=1.1e-4)
    split = ac.PrivacyFilter(epsilon=epsilon, delta=DELTA, order=TWELVE)
    assert split.smallest_noise_multiplier(q, steps) == pytest.approx(twelve, abs=1.1e-4)
    plan = ac.calibrate_noise_multiplier(epsilon=epsilon, delta=DELTA, sample_rate=q, steps=steps)
    assert plan == pytest.approx(fixed, rel=1.5e-3)


def test_zcdp_is_weaker_than_the_exact_filter_without_sampling():
    gdp = ac.PrivacyFilter(epsilon=3.0, delta=DELTA, kind="gdp")
    zcdp = ac.PrivacyFilter(epsilon=3.0, delta=DELTA, kind="zcdp")
    assert gdp.limits[0] / 2 == pytest.approx(0.2586, abs=1e-4)
    assert zcdp.limits[0] == pytest.approx(0.2242, abs=1e-4)


# -- stopping -------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "sigma"), [("gdp", 20.0), ("zcdp", 20.0), ("rdp", 25.0)])
def test_constant_noise_stops_at_the_limit_exactly(kind, sigma):
    budget = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, kind=kind)
    one = {"gdp": sigma**-2, "zcdp": sigma**-2 / 2}.get(kind)
    if one is None:
        one = budget.orders[0] / (2 * sigma**2)
    most = int(budget.limits[0] / one)
    assert budget.admissible_steps(ac.Gaussian(sigma)) == most > 5
    for _ in range(most):
        budget.charge(ac.Gaussian(sigma))
    before = budget.to_dict()
    assert not budget.admits(ac.Gaussian(sigma))
    with pytest.raises(BudgetExceededError, match="Nothing was charged") as caught:
        budget.charge(ac.Gaussian(sigma))
    assert caught.value.remaining.epsilon < 1.0
    assert budget.to_dict() == before
    plan = ac.SelfComposed(ac.Gaussian(sigma), most)
    assert ac.guarantee(plan, delta=DELTA).epsilon <= 1.0
    if kind == "gdp":
        more = ac.SelfComposed(ac.Gaussian(sigma), most + 1)
        assert ac.guarantee(more, delta=DELTA).epsilon > 1.0


@given(st.lists(st.floats(0.7, 30.0), min_size=1, max_size=60), st.randoms())
@settings(max_examples=25, deadline=None)
def test_no_sequence_passes_the_limit(sigmas, random):
    """Whatever noise is tried, the sum stays within the limit, and a refusal changes nothing."""
    budget = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=20.0)
    total = 0.0
    for sigma in sigmas:
        value = 20.0 / (2 * sigma**2)
        fits = budget.admits(ac.Gaussian(sigma))
        assert (
            fits == (total + value <= budget.limits[0])
            or abs(total + value - budget.limits[0]) < 1e-12
        )
        if fits:
            budget.charge(ac.Gaussian(sigma))
            total += value
        elif random.random() < 0.5:
            with pytest.raises(BudgetExceededError):
                budget.charge(ac.Gaussian(sigma))
    assert total <= budget.limits[0]
    assert budget.fraction_spent == pytest.approx(total / budget.limits[0], abs=1e-9)


def test_ten_thousand_adversarial_scales():
    generator = np.random.default_rng(7)
    budget = ac.PrivacyFilter(epsilon=2.0, delta=DELTA, kind="gdp")
    total, admitted = 0.0, 0
    for sigma in np.exp(generator.uniform(np.log(3), np.log(3000), 10_000)):
        event = ac.Gaussian(float(sigma))
        if budget.admits(event):
            budget.charge(event)
            total, admitted = total + sigma**-2, admitted + 1
    assert 50 < admitted < 10_000
    assert total <= budget.limits[0] * (1 + 1e-12)
    assert total > 0.999 * budget.limits[0]
    assert _gaussian.epsilon(math.sqrt(total), DELTA) <= 2.0 * (1 + 1e-9)


def test_the_smallest_noise_fits_and_a_little_less_does_not():
    budget = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, planned=(0.01, 1.52, 1000))
    for _ in range(3):
        sigma = budget.smallest_noise_multiplier(0.01)
        assert budget.admits(step(0.01, sigma))
        assert not budget.admits(step(0.01, sigma * (1 - 1e-6)))
        budget.charge(step(0.01, 1.2 * sigma))
    many = budget.smallest_noise_multiplier(0.01, steps=300)
    assert budget.admissible_steps(step(0.01, many)) == 300
    budget.charge(ac.SelfComposed(step(0.01, many), 300))
    assert budget.fraction_spent == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(BudgetExceededError, match="Stop"):
        ac.PrivacyFilter.from_dict(budget.to_dict()).smallest_noise_multiplier(1.0, 10**12)


def test_a_path_that_distributions_would_let_pass_is_refused():
    """The "natural" check is laxer than any filter: 1500 steps fit it, the filter stops."""
    event = step(0.01, 1.75)
    assert ac.guarantee(ac.SelfComposed(event, 1500), delta=DELTA).epsilon <= 1.0
    budget = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, planned=(0.01, 1.75, 1500))
    assert budget.admissible_steps(event) < 1500


@pytest.mark.parametrize("kind", ["pld", "PRV", "natural"])
def test_composing_distributions_along_a_path_is_no_filter(kind):
    with pytest.raises(AccountingAssumptionError, match="2602.15815.*2602.06756"):
        ac.PrivacyFilter(epsilon=1.0, delta=DELTA, kind=kind)


# -- failure probabilities ------------------------------------------------------------------
def test_failure_probabilities_are_paid_from_the_reserve():
    plain = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=16.0)
    failure = ac.ApproxDP(0.0, 4e-7)
    assert not plain.admits(failure)
    budget = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=16.0, delta_reserve=0.1)
    assert budget.limits[0] < plain.limits[0]
    assert budget.limits[0] == pytest.approx(plain.limits[0] + math.log(0.9) / 15)
    assert budget.admissible_steps(ac.Composed([ac.Gaussian(100.0), failure])) == 2
    budget.charge([ac.Gaussian(100.0), failure])
    budget.charge(failure)
    with pytest.raises(BudgetExceededError, match="delta_reserve"):
        budget.charge(failure)
    assert budget.guarantee().delta == DELTA
    both = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=16.0, delta_reserve=0.1)
    both.charge(ac.ApproxDP(0.1, 1e-7))
    pure = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=16.0)
    pure.charge(ac.PureDP(0.1))
    assert both._path.losses == pure._path.losses


def test_a_failure_probability_costs_what_the_proof_says():
    """Randomised response that reveals everything with probability d, chosen adaptively.

    The exact (epsilon, delta) of the two-stage mechanism by enumeration: the second event is
    weaker after a lie in the first. The filter's promise must hold, and would not without the
    reserve.
    """
    d = 0.02

    def law(eps, truth):
        """Output 0..3: revealed one, answered one, answered zero, revealed zero."""
        p = math.exp(eps) / (1 + math.exp(eps))
        found = np.array([d, (1 - d) * p, (1 - d) * (1 - p), 0.0])
        return found if truth else found[::-1]

    def joint(truth):
        rows = []
        for at, mass in enumerate(law(1.0, truth)):
            rows.append(mass * law(1.0 if at == 1 else 0.3, truth))
        return np.concatenate(rows)

    one, other = joint(True), joint(False)
    budget = ac.PrivacyFilter(epsilon=1.9, delta=0.1, order=30.0, delta_reserve=0.4)
    budget.charge(ac.ApproxDP(1.0, d))
    assert budget.admits(ac.ApproxDP(0.3, d))
    for a, b in ((one, other), (other, one)):
        lost = np.maximum(0.0, a - math.exp(1.9) * b).sum()
        assert d < lost <= 0.1


# -- odometers ------------------------------------------------------------------------------
def paths(count, steps, generator):
    """Privacy losses of Gaussians whose noise falls as long as the loss is high, and readings."""
    order = 5.0
    loss = np.zeros(count)
    spent = np.zeros(count)
    losses, sums = [], []
    for _ in range(steps):
        mu = np.where(loss > spent, 0.25, 0.05)
        spent = spent + mu**2 / 2
        loss = loss + mu**2 / 2 + mu * generator.standard_normal(count)
        losses.append(loss)
        sums.append(spent)
    return order, np.array(losses), np.array(sums)


@pytest.mark.statistical
def test_readings_hold_against_adaptive_noise_and_stopping():
    """Null: P(loss above some reading) <= delta = 0.05. 40,000 paths of 60 steps, false alarm
    below 1e-6 (5 s.e.). Power: the price of each path as if it had been planned, which is no
    odometer, is passed by far more than that.
    """
    delta, count = 0.05, 40_000
    order, losses, rho = paths(count, 60, np.random.default_rng(11))
    odometer = ac.PrivacyOdometer(delta=delta, order=order, simultaneous=True)
    odometer.charge(ac.Gaussian(1 / math.sqrt(2 * rho[0, 0])))
    readings = order * rho + math.log(1 / delta) / (order - 1)
    assert odometer.reading().epsilon == pytest.approx(readings[0, 0], rel=1e-9)
    error = 5 * math.sqrt(delta / count)
    assert (losses > readings).any(axis=0).mean() <= delta + error
    # Stopping when the loss comes closest to the reading, as an adversary would.
    stopped = order * rho + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
    at = np.argmax((losses - stopped) > -0.05, axis=0)
    at = np.where((losses - stopped > -0.05).any(axis=0), at, len(losses) - 1)
    gap = np.take_along_axis(stopped - losses, at[None], 0)[0]
    assert np.maximum(0.0, -np.expm1(gap)).mean() <= delta + error
    planned = rho + np.sqrt(2 * rho) * 1.6448536
    assert (losses > planned).any(axis=0).mean() > 2 * delta


def test_readings_of_several_orders_share_delta():
    events = [step(0.02, 1.1)] * 40 + [step(0.02, 2.5)] * 10
    several = ac.PrivacyOdometer(delta=DELTA)
    single = {
        a: ac.PrivacyOdometer(delta=DELTA / 12, order=a) for a in ac.PrivacyOdometer(
            delta=DELTA).orders
    }  # fmt: skip
    for event in events:
        several.charge(event)
        for odometer in single.values():
            odometer.charge(event)
    assert len(several.orders) == 12
    assert several.reading().epsilon == pytest.approx(
        min(odometer.reading().epsilon for odometer in single.values())
    )
    assert several.reading().epsilon > ac.guarantee(events, delta=DELTA).epsilon
    assert ac.PrivacyOdometer(delta=DELTA, order=8.0).reading().epsilon == 0.0
    wide = ac.PrivacyOdometer(delta=DELTA, order=8.0, simultaneous=True)
    tight = ac.PrivacyOdometer(delta=DELTA, order=8.0)
    for odometer in (wide, tight):
        odometer.charge(ac.Gaussian(5.0))
    assert wide.reading().epsilon > tight.reading().epsilon
    with pytest.raises(AccountingAssumptionError, match="delta_reserve"):
        wide.charge(ac.ApproxDP(0.0, 1e-9))


@pytest.mark.parametrize("kind", ["rdp", "zcdp", "gdp"])
def test_what_is_spent_is_read_at_orders_fixed_beforehand(kind):
    budget = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, kind=kind)
    assert budget.spent().epsilon == 0.0
    assert budget.remaining().epsilon == pytest.approx(1.0, abs=1e-6)
    previous = 0.0
    while budget.admits(ac.Gaussian(30.0)):
        budget.charge(ac.Gaussian(30.0))
        spent = budget.spent()
        assert spent.delta == DELTA
        assert previous < spent.epsilon
        assert ac.guarantee(budget.events, delta=DELTA).epsilon <= spent.epsilon
        previous = spent.epsilon
    assert 0.8 < previous <= (1.1 if kind == "gdp" else 1.0)
    assert budget.remaining().epsilon < 0.5
    found = budget.guarantee(numerics="hardened")
    assert (found.epsilon, found.delta, found.accountant) == (1.0, DELTA, kind)
    assert found.certified
    assert found.profile is None
    assert any("earlier outputs" in sentence for sentence in found.assumptions)
    json.dumps(found.to_dict(), allow_nan=False)


# -- keeping ----------------------------------------------------------------------------------
@given(st.lists(st.sampled_from([0.9, 1.5, 4.0]), max_size=40))
@settings(max_examples=20, deadline=None)
def test_a_filter_survives_a_kill(sigmas):
    whole = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=(4, 16), delta_reserve=0.2)
    parts = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=(4, 16), delta_reserve=0.2)
    odometer = ac.PrivacyOdometer(delta=DELTA, order=6.0)
    for sigma in sigmas:
        event = [step(0.01, sigma), ac.ApproxDP(0.0, 1e-9)]
        if whole.admits(event):
            whole.charge(event)
            parts = ac.PrivacyFilter.from_dict(json.loads(json.dumps(parts.to_dict())))
            parts.charge(event)
            odometer = ac.PrivacyOdometer.from_dict(json.loads(json.dumps(odometer.to_dict())))
            odometer.charge(step(0.01, sigma))
    assert parts.to_dict() == whole.to_dict()
    assert parts._path.losses == whole._path.losses
    assert parts._path.failed == whole._path.failed
    assert parts.spent() == whole.spent()
    assert parts.events == whole.events
    again = ac.PrivacyOdometer.from_dict(odometer.to_dict())
    assert again.reading() == odometer.reading()


def test_a_state_that_nobody_wrote_is_refused():
    state = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, order=16.0).to_dict()
    over = [{"events": [ac.Gaussian(0.1).to_dict()], "count": 1}]
    with pytest.raises(InvalidParameterError, match="pass the stored budget"):
        ac.PrivacyFilter.from_dict({**state, "charges": over})
    with pytest.raises(SchemaVersionError):
        ac.PrivacyFilter.from_dict({**state, "schema": 2})
    with pytest.raises(InvalidParameterError, match="PrivacyFilter"):
        ac.PrivacyOdometer.from_dict(state)
    for broken in ([], {"kind": "PrivacyFilter"}, {**state, "charges": 3}):
        with pytest.raises(PrivfairError):
            ac.PrivacyFilter.from_dict(broken)


# -- input --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epsilon": 0.0}, InvalidBudgetError),
        ({"epsilon": math.inf}, InvalidBudgetError),
        ({"delta": 0.0}, InvalidBudgetError),
        ({"kind": "basic"}, InvalidParameterError),
        ({"order": 1.0}, InvalidParameterError),
        ({"order": ()}, InvalidParameterError),
        ({"order": (2.0, 4.0)}, InvalidBudgetError),
        ({"order": "8"}, InvalidTypeError),
        ({"order": True}, InvalidTypeError),
        ({"kind": "gdp", "order": 8.0}, InvalidParameterError),
        ({"planned": (0.1, 0.0, 10)}, InvalidParameterError),
        ({"planned": ac.NonPrivate()}, InvalidParameterError),
        ({"delta_reserve": 1.0}, InvalidParameterError),
        ({"neighboring": "swap"}, InvalidParameterError),
        ({"unit": "row"}, InvalidParameterError),
    ],
)
def test_bad_settings(change, error):
    with pytest.raises(error):
        ac.PrivacyFilter(**{"epsilon": 1.0, "delta": DELTA, **change})


def test_events_without_a_value_in_the_unit_are_named():
    gdp = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, kind="gdp", delta_reserve=0.1)
    zcdp = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, kind="zcdp")
    for event in (step(0.1, 2.0), ac.PureDP(0.1), ac.ApproxDP(0.1, 1e-9)):
        with pytest.raises(UnsupportedEventError, match="gdp"):
            gdp.charge(event)
    gdp.charge([ac.Gaussian(20.0), ac.ApproxDP(0.0, 1e-9)])
    with pytest.raises(UnsupportedEventError, match="zcdp"):
        zcdp.admits(step(0.1, 2.0))
    assert not zcdp.admits(ac.NonPrivate())
    with pytest.raises(BudgetExceededError):
        zcdp.charge(ac.NonPrivate())
    replaced = ac.PrivacyFilter(epsilon=1.0, delta=DELTA, neighboring="replace_one")
    with pytest.raises(IncompatibleNeighboringError, match="PoissonSampled"):
        replaced.charge(step(0.1, 2.0))
    assert replaced.limits == ac.PrivacyFilter(epsilon=1.0, delta=DELTA).limits
    replaced.charge(ac.Gaussian(40.0))
    plain = ac.PrivacyFilter(epsilon=1.0, delta=DELTA)
    plain.charge(ac.Gaussian(20.0))
    assert replaced.spent() == plain.spent()


# -- the ledger's filters -------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["rdp", "zcdp", "gdp"])
def test_a_ledger_takes_failure_probabilities_from_a_reserve(kind, tmp_path):
    from privfair.core.privacy import Budget

    path = tmp_path / "a.db"
    ledger = ac.Ledger(path, cap=Budget(1.0, DELTA), filter=kind)
    training = [ac.Gaussian(40.0), ac.ApproxDP(0.0, 4e-7)]
    if kind == "rdp":
        training = [ac.SelfComposed(step(0.01, 2.0), 100), ac.ApproxDP(0.0, 4e-7)]
    for _ in range(2):
        with ledger.spend(training, purpose="a run with hardened noise"):
            pass
    refused = pytest.raises(BudgetExceededError, match="failure probabilities")
    with refused, ledger.spend(training, purpose="one too many"):
        pass
    assert ledger.spent().delta == DELTA
    assert ac.Ledger.open(path).spent() == ledger.spent()
    assert ac.Ledger.open(path)._filter.limit == ledger._filter.limit
    loss = ledger._total().loss
    worth = ac.PrivacyFilter(
        epsilon=1.0, delta=DELTA, kind=kind, delta_reserve=0.1,
        order=ledger._filter.order,
    )  # fmt: skip
    for _ in range(2):
        worth.charge(training)
    assert worth._path.losses[0] == pytest.approx(loss)
    assert worth.limits[0] == pytest.approx(ledger._filter.limit)


def test_a_ledger_made_before_there_was_a_reserve_keeps_its_conversion():
    from privfair.accounting._filters import filter_of
    from privfair.core.privacy import Budget

    old = filter_of({"filter": "zcdp", "order": None}, Budget(1.0, DELTA))
    new = filter_of({"filter": "zcdp", "order": None, "reserve": 0.1}, Budget(1.0, DELTA))
    assert old.reserved == 0.0
    assert old.limit > new.limit
    assert new.reserved == pytest.approx(1e-6)
