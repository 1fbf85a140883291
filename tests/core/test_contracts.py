"""Estimates, mechanisms, penalties, the registry and lazy imports keep their contracts."""

import json
import math

import pandas as pd
import pytest
import torch

import privfair
from privfair.core import registry
from privfair.core._format import format_lower, format_upper, json_safe, round_down, round_up
from privfair.core.device import resolve_device
from privfair.core.estimate import Estimate, NullReference
from privfair.core.exceptions import (
    AccountingAssumptionError,
    BudgetExceededError,
    InvalidParameterError,
    MissingDependencyError,
)
from privfair.core.mechanism import Mechanism
from privfair.core.penalty import check_dp_compatible


# --- numbers --------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.99999, 1.00001, 123456.7, 1e-9, 2.0])
def test_directed_rounding_is_on_the_safe_side(value):
    assert round_up(value, 3) >= value >= round_down(value, 3)
    assert float(format_upper(value)) >= value >= float(format_lower(value))


def test_a_float_just_above_its_decimal_is_rounded_up():
    assert round_up(0.1 + 0.2, 3) == 0.301  # 0.30000000000000004 is above 0.3


def test_json_safe_is_strict():
    data = json_safe(
        {"a": math.inf, "b": float("nan"), "c": (1, {2}), "d": pd.Series([1.5]).values}
    )
    assert json.loads(json.dumps(data, allow_nan=False)) == {
        "a": "inf",
        "b": None,
        "c": [1, [2]],
        "d": [1.5],
    }


# --- estimates ------------------------------------------------------------------------------
def test_estimate_to_dict_is_strict_json():
    estimate = Estimate(
        "gap",
        0.1,
        0.0,
        0.2,
        n=10,
        null=NullReference(0.05, 0.1, 0.3),
        attained_by=("a", "b"),
        by_group=pd.DataFrame({"rate": [0.1, math.nan]}, index=pd.Index(["a", "b"], name="g")),
    )
    data = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert data["by_group"][1] == {"g": "b", "rate": None}
    assert data["null"]["p_value"] == 0.3


def test_not_estimable_is_nan_and_says_why():
    estimate = Estimate.not_estimable("tpr", "no positives")
    assert math.isnan(estimate.value)
    assert not estimate.estimable
    assert "no positives" in str(estimate)
    assert "not estimable" in estimate._repr_html_()


def test_estimate_html_escapes_names():
    assert "<script>" not in Estimate("<script>", 0.1)._repr_html_()


def test_status_is_checked():
    with pytest.raises(InvalidParameterError, match="status"):
        Estimate("x", 0.1, status="fine")


# --- mechanisms -----------------------------------------------------------------------------
class _Spy(Mechanism):
    numerics = "exact"
    sensitivity = 1.0

    def __init__(self, trace):
        self.trace = trace

    def cost(self, count=1):
        return ("event", count)

    def _prepare(self, value):
        if value is None:
            raise InvalidParameterError("value must not be None.")
        self.trace.append("prepare")
        return value

    def _draw(self, prepared):
        self.trace.append("draw")
        return prepared


class _Ledger:
    def __init__(self, trace, *, refuse=False):
        self.trace, self.refuse = trace, refuse

    def spend(self, event, *, purpose="", **labels):
        self.labels = labels
        from contextlib import contextmanager

        @contextmanager
        def body():
            if self.refuse:
                raise BudgetExceededError("no budget left")
            self.trace.append("charge")
            yield self

        return body()


def test_the_charge_comes_after_the_check_and_before_the_draw():
    trace = []
    _Spy(trace).release(1, ledger=_Ledger(trace))
    assert trace == ["prepare", "charge", "draw"]


def test_the_ledger_learns_the_labels_of_the_mechanism():
    ledger = _Ledger([])
    mechanism = _Spy([])
    mechanism.release(1, ledger=ledger)
    assert ledger.labels == {"numerics": "exact", "seeded": False}
    mechanism.neighboring, mechanism.null_ignored, mechanism.seeded = "add_remove", True, True
    mechanism.release(1, ledger=ledger)
    assert ledger.labels == {
        "numerics": "exact",
        "seeded": True,
        "neighboring": "add_remove",
        "null_ignored": True,
    }


def test_a_refusing_ledger_stops_the_draw():
    trace = []
    with pytest.raises(BudgetExceededError):
        _Spy(trace).release(1, ledger=_Ledger(trace, refuse=True))
    assert "draw" not in trace


def test_bad_input_spends_nothing():
    trace = []
    with pytest.raises(InvalidParameterError):
        _Spy(trace).release(None, ledger=_Ledger(trace))
    assert trace == []


# --- penalties ------------------------------------------------------------------------------
class _BatchGap:
    decomposable = False
    requires = frozenset()

    def __call__(self, scores, sensitive, *, y=None, sample_weight=None, **columns):
        return (scores[sensitive == 1].mean() - scores[sensitive == 0].mean()) ** 2


class _Bounded(_BatchGap):
    decomposable = True
    n_features = 1
    feature_bound = 1.0

    def features(self, scores, sensitive, *, y=None, **columns):
        return torch.ones(len(scores), 1)

    def absorb(self, noisy_sum_over_B):
        self.seen = noisy_sum_over_B

    def weights(self, scores, sensitive, *, y=None, **columns):
        return torch.zeros(len(scores))


def test_a_batch_level_penalty_is_refused_by_name():
    with pytest.raises(AccountingAssumptionError, match="_BatchGap"):
        check_dp_compatible(_BatchGap())


def test_a_bounded_penalty_that_says_it_is_not_decomposable_is_refused():
    penalty = _Bounded()
    assert check_dp_compatible(penalty) is penalty
    penalty.decomposable = False
    with pytest.raises(AccountingAssumptionError):
        check_dp_compatible(penalty)


# --- registry, device, lazy names -----------------------------------------------------------
def test_a_taken_name_is_not_replaced():
    marker = object()
    registry.register("metrics", "test-contract-marker")(marker)
    assert registry.load("metrics", "test-contract-marker") is marker
    with pytest.raises(InvalidParameterError, match="already"):
        registry.register("metrics", "test-contract-marker")(object())
    with pytest.raises(InvalidParameterError, match="kind"):
        registry.available("nonsense")
    with pytest.raises(InvalidParameterError, match="no entry named"):
        registry.load("metrics", "not there")


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(InvalidParameterError, match="device"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(MissingDependencyError, match="cuda"):
            resolve_device("cuda")


def test_every_public_name_loads():
    for name in privfair.__all__:
        assert getattr(privfair, name) is not None
    for name in privfair.core.__all__:
        assert getattr(privfair.core, name) is not None
    with pytest.raises(AttributeError):
        _ = privfair.nothing_of_that_name
