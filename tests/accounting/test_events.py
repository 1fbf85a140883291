"""Events: checked when made, the same after a trip through JSON, never free when unknown."""

import json
import math
import pickle

import dp_accounting as dpa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.core.exceptions import (
    InvalidBudgetError,
    InvalidParameterError,
    InvalidSampleRateError,
    InvalidStepsError,
    InvalidTypeError,
    SchemaVersionError,
    UnsupportedEventError,
)

NESTED = ac.Composed(
    [
        ac.DiscreteGaussian(3.0),
        ac.SelfComposed(ac.PoissonSampled(0.1, ac.Gaussian(2.0)), 5),
        ac.Parallel([ac.Laplace(1.0), ac.DiscreteLaplace(0.5, 2)]),
    ]
)
ALL = [
    ac.Gaussian(2.0), ac.DiscreteGaussian(2.0), ac.Laplace(0.5), ac.DiscreteLaplace(0.1, 3),
    ac.RandomizedResponse(1.0, 4), ac.LocalDP(2.0), ac.ExponentialMechanism(0.5, True, 0.4),
    ac.PureDP(0.1), ac.ApproxDP(0.1, 1e-6), ac.ZCDP(0.1, 0.01),
    ac.PoissonSampled(0.01, ac.Gaussian(1.0)), ac.FixedBatchWOR(100, 10, ac.Gaussian(1.0)),
    ac.TruncatedPoisson(100, 0.1, 20, 1.0), ac.UserPoisson(0.1, 1.0, 3),
    ac.ShuffledEpochs(100, 10, 3, 1.0), ac.SelfComposed(ac.PureDP(0.1), 7), NESTED,
    ac.RepeatAndSelect(ac.Gaussian(1.0), 10.0, math.inf), ac.NonPrivate(),
]  # fmt: skip


def test_every_event_is_here():
    classes = {name: getattr(ac, name) for name in ac.__all__ if name[0].isupper()}
    events = {
        name for name, item in classes.items()
        if issubclass(item, ac.AccountedEvent) and item is not ac.AccountedEvent
    }  # fmt: skip
    assert events == {event.kind for event in ALL} | {"Parallel"}


@pytest.mark.parametrize("event", ALL, ids=lambda event: event.kind)
def test_json_round_trip(event):
    text = json.dumps(event.to_dict(), allow_nan=False)
    again = ac.event_from_dict(json.loads(text))
    assert again == event
    assert hash(again) == hash(event)
    assert json.loads(text)["schema"] == 1
    assert json.loads(text)["kind"] == event.kind
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("event", ALL, ids=lambda event: event.kind)
def test_events_are_frozen(event):
    with pytest.raises(AttributeError):
        event.sigma = 3.0


positive = st.floats(1e-6, 1e6)
leaves = st.one_of(
    st.builds(ac.Gaussian, positive), st.builds(ac.Laplace, positive),
    st.builds(ac.PureDP, positive), st.builds(ac.DiscreteLaplace, positive, st.integers(1, 50)),
    st.builds(ac.RandomizedResponse, positive, st.integers(2, 20)),
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(ac.SelfComposed, inner, st.integers(0, 1000)),
        st.builds(ac.Composed, st.lists(inner, max_size=4)),
        st.builds(ac.PoissonSampled, st.floats(1e-9, 1.0), inner),
    ),
    max_leaves=6,
)


@given(trees)
def test_json_round_trip_of_any_tree(event):
    assert ac.event_from_dict(json.loads(json.dumps(event.to_dict()))) == event


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ac.Gaussian(-1.0), InvalidParameterError),
        (lambda: ac.Gaussian(math.nan), InvalidParameterError),
        (lambda: ac.Gaussian(math.inf), InvalidParameterError),
        (lambda: ac.Gaussian(True), InvalidTypeError),
        (lambda: ac.Gaussian("1"), InvalidTypeError),
        (lambda: ac.PoissonSampled(0.0, ac.Gaussian(1.0)), InvalidSampleRateError),
        (lambda: ac.PoissonSampled(1.1, ac.Gaussian(1.0)), InvalidSampleRateError),
        (lambda: ac.PoissonSampled(0.5, 3.0), InvalidTypeError),
        (lambda: ac.SelfComposed(ac.Gaussian(1.0), 1.5), InvalidStepsError),
        (lambda: ac.SelfComposed(ac.Gaussian(1.0), -1), InvalidStepsError),
        (lambda: ac.Composed(ac.Gaussian(1.0)), InvalidTypeError),
        (lambda: ac.Composed([1.0]), InvalidTypeError),
        (lambda: ac.ApproxDP(1.0, 1.0), InvalidBudgetError),
        (lambda: ac.PureDP(-0.1), InvalidParameterError),
        (lambda: ac.RandomizedResponse(1.0, 1), InvalidParameterError),
        (lambda: ac.DiscreteLaplace(0.0, 1), InvalidParameterError),
        (lambda: ac.DiscreteLaplace(1.0, 0), InvalidParameterError),
        (lambda: ac.FixedBatchWOR(5, 6, ac.Gaussian(1.0)), InvalidParameterError),
    ],
)
def test_bad_values_are_refused(make, error):
    with pytest.raises(error):
        make()


def test_unknown_newer_and_malformed_json():
    with pytest.raises(UnsupportedEventError, match="'Teleport'"):
        ac.event_from_dict({"schema": 1, "kind": "Teleport"})
    with pytest.raises(UnsupportedEventError, match="'Teleport'"):
        ac.event_from_dict(
            {"schema": 1, "kind": "Composed", "events": [{"schema": 1, "kind": "Teleport"}]}
        )
    with pytest.raises(SchemaVersionError, match="version 2"):
        ac.event_from_dict({"schema": 2, "kind": "Gaussian", "sigma": 1.0})
    with pytest.raises(InvalidParameterError, match="'sigm'"):
        ac.event_from_dict({"schema": 1, "kind": "Gaussian", "sigm": 1.0})
    with pytest.raises(InvalidParameterError, match="needs the field 'sigma'"):
        ac.event_from_dict({"schema": 1, "kind": "Gaussian"})
    with pytest.raises(InvalidTypeError):
        ac.event_from_dict([1])


COUNTERPARTS = [
    event for event in ALL
    if event.kind in {
        "Gaussian", "Laplace", "DiscreteLaplace", "RandomizedResponse", "ZCDP", "PoissonSampled",
        "FixedBatchWOR", "TruncatedPoisson", "SelfComposed", "RepeatAndSelect", "NonPrivate",
    } and event != ac.SelfComposed(ac.PureDP(0.1), 7)
]  # fmt: skip


@pytest.mark.parametrize("event", COUNTERPARTS, ids=lambda event: event.kind)
def test_there_and_back_through_dp_accounting(event):
    back = ac.from_dp_accounting(ac.to_dp_accounting(event))
    if isinstance(event, ac.RandomizedResponse):
        assert back.k == event.k
        assert back.eps0 == pytest.approx(event.eps0, rel=1e-12)
    else:
        assert back == event


def test_randomised_response_of_dp_accounting_has_the_same_law():
    there = ac.to_dp_accounting(ac.RandomizedResponse(math.log(3), 4))
    truth = 1 - there.noise_parameter * 3 / 4
    assert truth / (there.noise_parameter / 4) == pytest.approx(3.0)


@pytest.mark.parametrize("event", [ac.PureDP(1.0), ac.LocalDP(1.0), ac.UserPoisson(0.1, 1.0, 2)])
def test_events_without_a_counterpart_are_named(event):
    with pytest.raises(UnsupportedEventError, match=event.kind):
        ac.to_dp_accounting(ac.SelfComposed(event, 2))


def test_special_cases_of_dp_accounting():
    assert ac.from_dp_accounting(dpa.NoOpDpEvent()) == ac.Composed([])
    assert ac.from_dp_accounting(dpa.PoissonSampledDpEvent(0.0, dpa.GaussianDpEvent(1.0))) == (
        ac.Composed([])
    )
    assert ac.from_dp_accounting(dpa.RandomizedResponseDpEvent(0.0, 3)) == ac.NonPrivate()
    with pytest.raises(UnsupportedEventError, match="UnsupportedDpEvent"):
        ac.from_dp_accounting(dpa.ComposedDpEvent([dpa.UnsupportedDpEvent()]))
    mixed = dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(4.0), 4)
    assert ac.guarantee(mixed, delta=1e-5).epsilon == pytest.approx(
        ac.guarantee(ac.Gaussian(2.0), delta=1e-5).epsilon
    )
