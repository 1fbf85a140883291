"""partial_fit: every call is charged, certified together, and goes on from the last weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.base import clone

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    IncompatibleNeighboringError,
    InvalidParameterError,
)
from privfair.dp import DPClassifier, DPRegressor

from .test_classifier import SCHEMA, table

CLASSES = ["no", "yes"]


def private(**kwargs):
    return DPClassifier(**{"schema": SCHEMA, "epochs": 3, "ledger": Ledger(), **kwargs})


def test_every_call_is_charged_and_the_guarantee_is_that_of_all():
    X, y = table(1_000)
    ledger = Ledger()
    clf = private(ledger=ledger, epsilon=1.0, delta=1e-5).partial_fit(X, y, classes=CLASSES)
    one = clf.privacy_
    spent = [ledger.spent().epsilon]
    for _ in range(2):
        clf.partial_fit(X, y)
        spent.append(ledger.spent().epsilon)
    assert len(ledger) == 3 and spent[0] < spent[1] < spent[2]
    g = clf.privacy_
    assert g.certified and g.delta == pytest.approx(3e-5)
    assert one.epsilon < g.epsilon <= 3 * one.epsilon
    assert len(g.events) == 3 * len(one.events) and clf.events_ == g.events
    # The joint price is one of calls whose number was fixed beforehand, and says so once.
    assert [a.startswith("how often partial_fit") for a in g.assumptions].count(True) == 1
    assert not any(a.startswith("how often partial_fit") for a in one.assumptions)


def test_two_calls_go_on_from_the_first():
    X, y = table(3_000)
    short = {"epochs": 1, "epsilon": 5.0}
    once = private(**short).partial_fit(X, y, classes=CLASSES)
    start = once.coef_.copy()
    again = once.partial_fit(X, y)
    assert not np.array_equal(again.coef_, start)
    for _ in range(4):
        again.partial_fit(X, y)
    assert again.score(X, y) > private(**short).fit(X, y).score(X, y)
    assert np.dot(again.coef_[0], start[0]) > 0 and np.abs(again.coef_).sum() > np.abs(start).sum()


@pytest.mark.parametrize("options", [{}, {"hidden_layer_sizes": (4,)}])
def test_a_step_of_no_length_changes_nothing(options):
    """What is restored is the model itself: with a tiny step size, its predictions stay."""
    X, y = table(500)
    clf = private(**options).partial_fit(X, y, classes=CLASSES)
    before = clf.decision_function(X)
    clf.set_params(lr=1e-12).partial_fit(X, y)
    np.testing.assert_allclose(clf.decision_function(X), before, atol=1e-6)


def test_classes_are_fixed_by_the_first_call():
    X, y = table(300)
    with pytest.raises(InvalidParameterError, match="classes must be given"):
        private().partial_fit(X, y)
    few = y == "yes"
    clf = private().partial_fit(X[few], y[few], classes=CLASSES)
    assert clf.classes_.tolist() == CLASSES
    clf.partial_fit(X, y, classes=["yes", "no"])
    with pytest.raises(InvalidParameterError, match="first call"):
        clf.partial_fit(X, y, classes=["yes", "no", "maybe"])
    assert private(classes=CLASSES).partial_fit(X, y).classes_.tolist() == CLASSES


def test_a_learnt_encoding_is_kept_and_paid_once():
    X, y = table(1_000)
    clf = private(schema=None, epsilon=2.0).partial_fit(X, y, classes=CLASSES)
    schema = clf.encoding_.encoder.schema_
    first = len(clf.privacy_.events)
    clf.partial_fit(X * 1 if not hasattr(X, "assign") else X.assign(a=X["a"] * 3), y)
    assert clf.encoding_.encoder.schema_ == schema
    assert len(clf.privacy_.events) == 2 * first - 1  # no second price of bounds


def test_a_refused_call_leaves_the_model_as_it_was():
    X, y = table(500)
    ledger = Ledger(cap=Budget(1.5, 1e-3))
    clf = private(ledger=ledger).partial_fit(X, y, classes=CLASSES)
    coef, privacy = clf.coef_.copy(), clf.privacy_
    with pytest.raises(BudgetExceededError):
        clf.partial_fit(X, y)
    np.testing.assert_array_equal(clf.coef_, coef)
    assert clf.privacy_ == privacy


def test_what_cannot_go_on_is_refused_before_the_charge():
    X, y = table(300)
    ledger = Ledger()
    clf = private(ledger=ledger).partial_fit(X, y, classes=CLASSES)
    other = {"neighboring": "add_remove", "n_public": 300}
    with pytest.raises(IncompatibleNeighboringError, match="start again"):
        clf.set_params(**other).partial_fit(X, y)
    clf.set_params(neighboring="zero_out", n_public=None)
    with pytest.raises(InvalidParameterError, match="start again"):
        clf.set_params(hidden_layer_sizes=(3,)).partial_fit(X, y)
    assert ledger.spent().epsilon <= 1.0


def test_fit_starts_again():
    X, y = table(300)
    clf = private(noise_random_state=1, random_state=0).partial_fit(X, y, classes=CLASSES)
    fresh = clone(clf).fit(X, y)
    np.testing.assert_array_equal(clf.fit(X, y).coef_, fresh.coef_)
    assert clf.privacy_.epsilon == fresh.privacy_.epsilon


def test_a_call_without_privacy_voids_the_certificate():
    X, y = table(300)
    clf = private().partial_fit(X, y, classes=CLASSES)
    clf.set_params(epsilon=math.inf).partial_fit(X, y)
    assert clf.privacy_.unsafe and math.isinf(clf.privacy_.epsilon)


def test_saved_and_gone_on_with(tmp_path):
    X, y = table(500)
    clf = private().partial_fit(X, y, classes=CLASSES)
    clf.save(tmp_path / "m.safetensors")
    again = DPClassifier.load(tmp_path / "m.safetensors")
    again.set_params(ledger=Ledger()).partial_fit(X, y)
    assert again.privacy_.epsilon > clf.privacy_.epsilon


def test_regressor():
    X, _ = table(2_000)
    y = 3 * X["a"].to_numpy() - X["b"].to_numpy()
    reg = DPRegressor(target_range=(-10, 10), schema=SCHEMA, ledger=Ledger(), epsilon=2.0)
    first = reg.partial_fit(X, y).privacy_.epsilon
    assert reg.partial_fit(X, y).privacy_.epsilon > first and reg.score(X, y) > 0.8
