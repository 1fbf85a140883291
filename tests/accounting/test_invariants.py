"""What holds for every kind of event: order, repetition, delta, nothing; and groups."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.accounting import _gaussian
from privfair.core.exceptions import InvalidParameterError, UnsupportedEventError

CHEAP = [
    ac.Gaussian(6.0), ac.DiscreteGaussian(9.0), ac.Laplace(9.0), ac.DiscreteLaplace(0.1, 2),
    ac.RandomizedResponse(0.2, 4), ac.LocalDP(0.1), ac.ExponentialMechanism(0.1),
    ac.PureDP(0.1), ac.ApproxDP(0.1, 1e-9), ac.ZCDP(0.002, 0.001),
    ac.PoissonSampled(0.05, ac.Gaussian(2.0)), ac.PoissonSampled(0.1, ac.Laplace(2.0)),
    ac.FixedBatchWOR(50, 5, ac.Gaussian(20.0)), ac.TruncatedPoisson(50, 0.1, 12, 6.0),
    ac.UserPoisson(0.02, 6.0, 3), ac.ShuffledEpochs(100, 10, 3, 9.0),
    ac.RepeatAndSelect(ac.PureDP(0.05), 3.0, 1.0),
    ac.Parallel([ac.Laplace(9.0), ac.PureDP(0.05)]),
]  # fmt: skip


def eps(events, delta=1e-6, relation="zero_out"):
    return ac.guarantee(events, delta=delta, neighboring=relation, unit="user").epsilon


def relation_of(event):
    return "replace_one" if event.kind == "FixedBatchWOR" else "zero_out"


@pytest.mark.parametrize("event", CHEAP, ids=lambda event: event.kind)
def test_laws_of_every_kind(event):
    relation = relation_of(event)
    one = eps(event, relation=relation)
    assert 0 < one < math.inf
    three = eps(ac.SelfComposed(event, 3), relation=relation)
    assert eps([event] * 3, relation=relation) == pytest.approx(three, rel=1e-9)
    nested = ac.Composed([event, ac.SelfComposed(ac.Composed([event]), 2), ac.Composed([])])
    assert eps(nested, relation=relation) == pytest.approx(three, rel=1e-9)
    assert one < three <= 3 * eps(event, 1e-6 / 3, relation) * 1.002
    assert eps(event, 1e-4, relation) <= one * 1.001 <= eps(event, 1e-7, relation) * 1.002
    other = ac.DiscreteGaussian(15.0)
    assert eps([event, other], relation=relation) == pytest.approx(
        eps([other, event], relation=relation), rel=1e-9
    )
    assert eps([event, other], relation=relation) >= one * (1 - 1e-3)


@given(
    picks=st.lists(st.sampled_from(range(len(CHEAP) - 3)), min_size=2, max_size=3),
    delta=st.sampled_from([1e-4, 1e-6, 1e-8]), random=st.randoms(),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_laws_of_mixtures(picks, delta, random):
    events = [CHEAP[i] for i in picks if CHEAP[i].kind != "FixedBatchWOR"]
    shuffled = list(events)
    random.shuffle(shuffled)
    found = eps(events, delta)
    assert eps(ac.Composed(shuffled), delta) == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert all(eps(event, delta) <= found * 1.002 for event in events)


@pytest.mark.parametrize("relation", ["zero_out", "replace_one"])
def test_repeated_responses_wherever_they_stand(relation):
    """The library's accountant counts them once; twenty cost 21.97 in every nesting."""
    response = ac.RandomizedResponse(math.log(3), 2)
    nestings = [
        ac.SelfComposed(response, 20),
        ac.SelfComposed(ac.SelfComposed(response, 4), 5),
        ac.Composed([ac.SelfComposed(response, 7), ac.Composed([response] * 13)]),
        [ac.SelfComposed(ac.Composed([response, response]), 10)],
    ]
    for events in nestings:
        assert eps(events, relation=relation) == pytest.approx(20 * math.log(3), abs=1e-3)
        mixed = [ac.Gaussian(20.0), *(events if isinstance(events, list) else [events])]
        assert eps(mixed, relation=relation) >= 20 * math.log(3) - 1e-3
    assert eps(ac.SelfComposed(ac.LocalDP(math.log(3)), 20)) == pytest.approx(21.972, abs=1e-3)


# -- groups -----------------------------------------------------------------------------------
def test_groups_of_sums_of_pure_and_of_concentrated_events():
    for one, three in (
        (ac.Gaussian(6.0), ac.Gaussian(2.0)), (ac.Laplace(6.0), ac.Laplace(2.0)),
        (ac.PureDP(0.1), ac.PureDP(0.3)), (ac.ZCDP(0.01), ac.ZCDP(0.09)),
        (ac.DiscreteLaplace(0.1, 2), ac.DiscreteLaplace(0.1, 6)),
        (ac.DiscreteGaussian(6.0), ac.DiscreteGaussian(2.0)),
        (ac.LocalDP(0.1), ac.SelfComposed(ac.LocalDP(0.1), 3)),
        (ac.SelfComposed(ac.PoissonSampled(0.1, ac.Gaussian(4.0)), 9),
         ac.SelfComposed(ac.UserPoisson(0.1, 4.0, 3), 9)),
    ):  # fmt: skip
        assert ac.group_event(one, 1) == one
        found = ac.group_event([one, one], 3)
        assert eps(found) == pytest.approx(eps([three, three]), rel=1e-9)
    assert ac.group_event(ac.ExponentialMechanism(0.1, False, 0.08), 2).range_bound == 0.16


@pytest.mark.parametrize("size", [2, 5])
def test_groups_of_approximate_events_hold_for_a_gaussian(size):
    """A Gaussian's own (eps, delta), stretched to a group, is above its exact group delta."""
    for sigma, epsilon in ((3.0, 0.2), (8.0, 0.05)):
        one = ac.ApproxDP(epsilon, _gaussian.delta(1 / sigma, epsilon))
        group = ac.group_event(one, size)
        assert group.eps == pytest.approx(size * epsilon)
        assert group.delta >= _gaussian.delta(size / sigma, size * epsilon)
    plain = ac.group_event(ac.ApproxDP(0.0, 1e-7), size)
    assert plain.delta == pytest.approx(size * 1e-7)
    assert ac.group_event(ac.ApproxDP(1.0, 0.5), 4) == ac.NonPrivate()


def test_groups_that_nobody_can_price():
    for event in (ac.Parallel([ac.PureDP(0.1), ac.Laplace(1.0)]), ac.ZCDP(0.1, 0.1),
                  ac.FixedBatchWOR(10, 2, ac.Gaussian(1.0)),
                  ac.RepeatAndSelect(ac.PureDP(0.1), 2.0, 1.0)):  # fmt: skip
        with pytest.raises(UnsupportedEventError, match=event.kind):
            ac.group_event(ac.SelfComposed(event, 2), 3)
    with pytest.raises(InvalidParameterError):
        ac.group_event(ac.PureDP(0.1), 0)


# -- calibration at its ends --------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0, 8.0])
@pytest.mark.parametrize(("q", "steps"), [(0.001, 100_000), (0.01, 100_000), (0.5, 50)])
def test_calibration_from_tiny_to_large_targets(epsilon, q, steps):
    import resource

    sigma = ac.calibrate_noise_multiplier(epsilon=epsilon, delta=1e-6, sample_rate=q, steps=steps)
    step = ac.PoissonSampled(q, ac.Gaussian(sigma))
    found = ac.guarantee(ac.SelfComposed(step, steps), delta=1e-6).epsilon
    assert 0.998 * epsilon <= found <= epsilon
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # KiB
    fits = ac.calibrate_steps(epsilon=epsilon, delta=1e-6, noise_multiplier=sigma, sample_rate=q)
    assert steps <= fits <= steps * 1.01 + 1
    assert np.isfinite(sigma)
