"""DPClassifier: what it learns, what it certifies, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import nn

from privfair.accounting import Ledger, guarantee
from privfair.core import Budget, Categorical, Numeric, Schema
from privfair.core.exceptions import (
    AccountingAssumptionError,
    BudgetExceededError,
    DataError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    MissingDependencyError,
    MissingSensitiveFeatureError,
    NumericsError,
    SchemaError,
    WeakGuaranteeError,
)
from privfair.dp import DPClassifier

INF = float("inf")
SCHEMA = Schema({"a": Numeric(-4, 4), "b": Numeric(-4, 4), "kind": Categorical(["x", "y", "z"])})


def table(n=600, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=n),
            "b": rng.normal(size=n),
            "kind": rng.choice(["x", "y", "z"], size=n),
        }
    )
    logit = 3 * frame["a"] - 2 * frame["b"] + np.where(frame["kind"] == "x", 2.0, -1.0)
    return frame, np.where(logit + rng.logistic(size=n) > 0, "yes", "no")


def private(**kwargs):
    """A private classifier with a ledger of its own."""
    return DPClassifier(**{"schema": SCHEMA, "epochs": 5, "ledger": Ledger(), **kwargs})


# -- learning ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [{"epochs": 15}, {"hidden_layer_sizes": (8,), "epochs": 15}, {"optimizer": "sgd"}],
)
def test_learns_and_certifies(options):
    X, y = table(4_000)
    clf = private(epsilon=2.0, **options).fit(X, y)
    assert clf.score(*table(2_000, seed=1)) > 0.8
    g = clf.privacy_
    assert g.certified and g.numerics == "hardened" and not g.unsafe
    assert 1.98 < g.epsilon <= 2.0 and g.delta == 1e-5
    assert g.neighboring == "zero_out" and g.unit == "record"
    assert "the number of records is public" in g.assumptions
    assert "the set of labels in y is public" in g.assumptions
    again = guarantee(clf.events_, delta=g.delta)
    assert again.epsilon == pytest.approx(g.epsilon, rel=1e-9)


def test_the_generators_distance_is_paid_for_out_of_delta():
    # Epsilon and delta at which that distance takes a good part of delta: left out of the plan,
    # it would show in the total.
    X, y = table(400)
    clf = private(epsilon=10.0, delta=2e-10, epochs=1).fit(X, y)
    extra = clf.events_[-1].delta
    assert 0.1 * 2e-10 < extra <= 0.3 * 2e-10
    assert clf.privacy_.epsilon <= 10.0 and clf.privacy_.delta == 2e-10
    assert guarantee(clf.events_, delta=2e-10).epsilon <= 10.0


def test_attributes_describe_the_run():
    X, y = table(1_000)
    clf = private(batch_size=100, epochs=3).fit(X, y)
    assert clf.n_steps_ == 30 and clf.sample_rate_ == 0.1
    assert clf.plan_.n_public == 1_000 and clf.plan_.expected_batch_size == 100
    run = clf.events_[0]
    assert (run.count, run.event.q, run.event.event.sigma) == (30, 0.1, clf.noise_multiplier_)
    assert clf.coef_.shape == (1, 5) and clf.intercept_.shape == (1,)
    assert clf.encoding_.feature_names == ["a", "b", "kind=x", "kind=y", "kind=z"]
    assert clf.n_features_in_ == 3 and clf.feature_names_in_.tolist() == ["a", "b", "kind"]
    assert clf.classes_.tolist() == ["no", "yes"]
    assert clf.ledger_entry_id_ == clf.ledger.entries()[0].id


def test_several_classes():
    X, _ = table(6_000)
    y = np.where(X["a"] > 0.5, 2, np.where(X["b"] > 0, 1, 0))
    clf = private(epsilon=3.0, epochs=10).fit(X, y)
    assert clf.score(X, y) > 0.75
    proba = clf.predict_proba(X)
    assert proba.shape == (6_000, 3) and np.allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(proba), clf.predict_log_proba(X), atol=1e-6)
    assert clf.coef_.shape == (3, 5)


def test_probabilities_agree_with_the_decision():
    X, y = table()
    clf = private().fit(X, y)
    score, proba = clf.decision_function(X), clf.predict_proba(X)
    assert ((score > 0) == (proba[:, 1] > 0.5)).all()
    assert (clf.predict(X) == clf.classes_[(score > 0).astype(int)]).all()
    np.testing.assert_allclose(np.log(proba), clf.predict_log_proba(X), atol=1e-9)


# -- the guarantee -------------------------------------------------------------------------
def test_delta_is_the_largest_power_of_ten_below_a_tenth_of_the_records():
    for n, expected in ((1_000, 1e-4), (1_001, 1e-5), (999, 1e-4)):
        X, y = table(n)
        assert private(epochs=1).fit(X, y).privacy_.delta == expected


def test_learning_bounds_and_categories_is_paid_from_the_same_epsilon():
    X, y = table(3_000)
    clf = private(schema=None).fit(X, y)
    assert clf.privacy_.epsilon <= 1.0 and clf.privacy_.certified
    first = clf.events_[0].to_dict()
    assert first["kind"] == "Composed"  # the encoder's events, before the steps
    public = private().fit(X, y)
    assert clf.noise_multiplier_ > public.noise_multiplier_
    assert clf.ledger.entries()[0].epsilon <= 1.0 and len(clf.ledger) == 1


def test_add_remove_needs_a_public_size_and_never_uses_the_private_one():
    X, y = table(900)
    with pytest.raises(InvalidParameterError, match="n_public must be given"):
        private(neighboring="add_remove").fit(X, y)
    found = []
    for n in (900, 899):
        clf = DPClassifier(
            schema=SCHEMA, neighboring="add_remove", n_public=1_000, epochs=2,
            ledger=Ledger(neighboring="add_remove"),
        ).fit(X[:n], y[:n])  # fmt: skip
        found.append((clf.plan_, clf.noise_multiplier_, clf.privacy_.epsilon, clf.privacy_.delta))
    assert found[0] == found[1]
    assert clf.privacy_.neighboring == "add_remove"
    assert any("at most 10000 records" in a for a in clf.privacy_.assumptions)


def test_zero_out_ledger_takes_an_add_remove_fit():
    X, y = table(900)
    ledger = Ledger()
    private(neighboring="add_remove", n_public=1_000, epochs=1, ledger=ledger).fit(X, y)
    assert len(ledger) == 1


def test_zero_out_refuses_another_public_size():
    X, y = table(300)
    clf = private(n_public=301)
    with pytest.raises(LengthMismatchError, match="n_public = 301"):
        clf.fit(X, y)
    assert len(clf.ledger) == 0


def test_seeded_noise_voids_the_certificate_and_repeats():
    X, y = table()
    runs = [private(noise_random_state=3, random_state=0).fit(X, y) for _ in range(2)]
    assert runs[0].privacy_.seeded and not runs[0].privacy_.certified
    assert "SEEDED" in runs[0].privacy_.explain()
    assert runs[0].privacy_.epsilon <= 1.0  # keeps its computed value
    np.testing.assert_array_equal(runs[0].coef_, runs[1].coef_)
    assert runs[0].ledger.entries()[0].seeded


def test_random_state_never_reaches_the_noise():
    X, y = table()
    runs = [private(random_state=0).fit(X, y) for _ in range(2)]
    assert (runs[0].coef_ != runs[1].coef_).all()
    assert runs[0].privacy_.certified


def test_infinite_epsilon_is_the_twin_without_noise():
    X, y = table()
    runs = [DPClassifier(epsilon=INF, schema=SCHEMA, random_state=0).fit(X, y) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].coef_, runs[1].coef_)
    g = runs[0].privacy_
    assert math.isinf(g.epsilon) and g.unsafe == ("non_private",) and not g.certified
    assert runs[0].noise_multiplier_ == 0.0 and runs[0].ledger_entry_id_ is None
    twin = private(epochs=20).fit(X, y)
    assert (twin.n_steps_, twin.sample_rate_) == (runs[0].n_steps_, runs[0].sample_rate_)


def test_infinite_epsilon_charges_no_capped_ledger_and_marks_an_open_one():
    X, y = table(300)
    capped, open_ = Ledger(cap=Budget(1.0, 1e-5)), Ledger()
    DPClassifier(epsilon=INF, schema=SCHEMA, ledger=capped, epochs=1).fit(X, y)
    assert len(capped) == 0
    clf = DPClassifier(epsilon=INF, schema=SCHEMA, ledger=open_, epochs=1).fit(X, y)
    assert open_.entries()[0].event.kind == "NonPrivate"
    assert clf.ledger_entry_id_ == open_.entries()[0].id


@pytest.mark.parametrize(
    ("kwargs", "weak"), [({"epsilon": 21.0}, True), ({"delta": 0.01}, True), ({}, False)]
)
def test_weak_settings_need_to_be_allowed(kwargs, weak):
    X, y = table(300)
    if weak:
        with pytest.raises(WeakGuaranteeError):
            private(epochs=1, **kwargs).fit(X, y)
    g = private(epochs=1, allow_weak=True, **kwargs).fit(X, y).privacy_
    assert g.certified
    assert any("allow_weak" in note for note in g.assumptions) == weak


def test_a_delta_that_the_generator_cannot_carry_is_refused_before_training():
    X, y = table(300)
    clf = private(epsilon=19.0, delta=1e-11)
    with pytest.raises(NumericsError, match="no room for noise drawn by a generator"):
        clf.fit(X, y)
    assert len(clf.ledger) == 0
    assert private(epsilon=8.0, delta=1e-6, epochs=1).fit(X, y).privacy_.certified


# -- the ledger comes first ----------------------------------------------------------------
class Untouchable:
    """A table that has a shape and must not be read."""

    shape = (500, 3)

    def __len__(self):
        return 500

    def __array__(self, *args, **kwargs):
        raise AssertionError("the data were read")

    def __getattr__(self, name):
        if name.startswith("__") or name in ("index",):
            raise AttributeError(name)
        raise AssertionError(f"the data were read through {name}")


def test_a_refusing_ledger_leaves_the_data_untouched():
    ledger = Ledger(cap=Budget(0.5, 1e-3))
    with pytest.raises(BudgetExceededError):
        private(ledger=ledger).fit(Untouchable(), Untouchable())
    assert len(ledger) == 0
    with pytest.raises(AssertionError, match="the data were read"):
        private(ledger=Ledger()).fit(Untouchable(), Untouchable())  # the spy works


class Interrupted(Exception):
    pass


def test_an_error_while_training_stays_spent(monkeypatch):
    from privfair.training import _base

    def fail(self, *args):
        raise Interrupted

    monkeypatch.setattr(_base.DPEngine, "run", fail)
    X, y = table(300)
    clf = private()
    with pytest.raises(Interrupted):
        clf.fit(X, y)
    assert len(clf.ledger) == 1 and clf.ledger.entries()[0].state == "reserved"
    assert not hasattr(clf, "module_") and not hasattr(clf, "privacy_")


def _nan(X, y):
    X.loc[3, "a"] = np.nan
    return X, y


def _unknown_category(X, y):
    X.loc[3, "kind"] = "secret-value"
    return X, y


def _one_class(X, y):
    return X, np.full(len(y), "no")


def _missing_label(X, y):
    y = y.astype(object)
    y[5] = None
    return X, y


def _continuous(X, y):
    return X, X["a"].to_numpy()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_nan, SchemaError),
        (_unknown_category, SchemaError),
        (_one_class, LabelError),
        (_missing_label, LabelError),
        (_continuous, ValueError),
        (lambda X, y: (X.drop(columns="a"), y), SchemaError),
        (lambda X, y: (X.to_numpy()[:, :2].astype(float), y), SchemaError),
        (lambda X, y: (X, y[:-1]), LengthMismatchError),
        (lambda X, y: (X, None), InvalidParameterError),
    ],
)
def test_bad_data_spend_nothing_and_messages_hold_no_values(spoil, error):
    X, y = spoil(*table(300))
    clf = private()
    with pytest.raises(error) as caught:
        clf.fit(X, y)
    assert len(clf.ledger) == 0
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"epsilon": -1.0}, InvalidBudgetError),
        ({"epsilon": 0}, InvalidBudgetError),
        ({"epsilon": float("nan")}, InvalidBudgetError),
        ({"epsilon": True}, InvalidTypeError),
        ({"epsilon": "1"}, InvalidTypeError),
        ({"delta": 0.0}, InvalidBudgetError),
        ({"delta": 1.0}, InvalidBudgetError),
        ({"delta": "small"}, InvalidParameterError),
        ({"neighboring": "replace_one"}, AccountingAssumptionError),
        ({"neighboring": "swap"}, InvalidParameterError),
        ({"unit": "user"}, AccountingAssumptionError),
        ({"unit": "client"}, AccountingAssumptionError),
        ({"max_records_per_user": 0}, InvalidParameterError),
        ({"schema": "asis"}, InvalidTypeError),
        ({"schema": {"a": 1}}, InvalidTypeError),
        ({"preprocessing_share": 1.0}, InvalidParameterError),
        ({"fairness_share": 0.0}, InvalidParameterError),
        ({"max_grad_norm": 0}, InvalidParameterError),
        ({"batch_size": 0}, InvalidParameterError),
        ({"batch_size": "all"}, InvalidParameterError),
        ({"epochs": 0}, InvalidParameterError),
        ({"optimizer": "lbfgs"}, InvalidParameterError),
        ({"lr": -1}, InvalidParameterError),
        ({"lr": "fast"}, InvalidParameterError),
        ({"hidden_layer_sizes": (0,)}, InvalidParameterError),
        ({"hidden_layer_sizes": (4,), "module": nn.Linear(5, 1)}, InvalidParameterError),
        ({"module": 3}, InvalidTypeError),
        ({"binning": "kmeans"}, InvalidParameterError),
        ({"binning": "dp_quantiles", "schema": "as_is"}, InvalidParameterError),
        (
            {"binning": "dp_quantiles", "schema": Schema({"k": Categorical(["x"])})},
            SchemaError,
        ),
        ({"allow_weak": 1}, InvalidTypeError),
        ({"random_state": -1}, InvalidParameterError),
        ({"noise_random_state": 1.5}, InvalidParameterError),
        ({"device": "tpu"}, InvalidParameterError),
        ({"n_public": 0, "neighboring": "add_remove"}, InvalidParameterError),
    ],
)
def test_bad_parameters_are_refused_before_anything(kwargs, error):
    ledger = Ledger()
    with pytest.raises(error):
        DPClassifier(**{"schema": SCHEMA, "ledger": ledger, **kwargs}).fit(
            Untouchable(), Untouchable()
        )
    assert len(ledger) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_a_missing_device_is_an_error_and_never_replaced():
    clf = private(device="cuda")
    with pytest.raises(MissingDependencyError, match="CUDA"):
        clf.fit(Untouchable(), Untouchable())
    assert len(clf.ledger) == 0


def test_a_failed_refit_leaves_the_fitted_estimator_as_it_was(monkeypatch):
    from privfair.training import _base

    X, y = table(300)
    clf = private(epochs=1).fit(X, y)
    before, proba = dict(vars(clf)), clf.predict_proba(X)
    with pytest.raises(LabelError):
        clf.fit(X[["a", "b"]].assign(kind="x"), np.full(300, "maybe"))

    def fail(self, *args):
        raise Interrupted

    monkeypatch.setattr(_base.DPEngine, "run", fail)
    with pytest.raises(Interrupted):
        clf.fit(X, np.where(y == "yes", "a", "b"))
    assert vars(clf) == before
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


# -- inputs --------------------------------------------------------------------------------
def test_pandas_polars_and_numpy_give_the_same():
    X, y = table(400)
    found = []
    for data, labels in (
        (X, y),
        (pl.from_pandas(X), pl.Series("y", y.tolist())),
        (X.to_numpy(dtype=object), list(y)),
    ):  # fmt: skip
        if isinstance(data, np.ndarray):
            data = pd.DataFrame(data, columns=X.columns).infer_objects()
        clf = private(noise_random_state=1, random_state=0).fit(data, labels)
        found.append(clf.predict_proba(data))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    values = X[["a", "b"]].to_numpy()
    two = Schema({"a": SCHEMA["a"], "b": SCHEMA["b"]})
    plain = private(schema=two, noise_random_state=1).fit(values, y).predict_proba(values)
    named = private(schema=two, noise_random_state=1).fit(X[["a", "b"]], y)
    np.testing.assert_array_equal(plain, named.predict_proba(X[["a", "b"]]))


def test_inputs_are_not_changed():
    X, y = table(300)
    before_X, before_y = X.copy(), y.copy()
    private().fit(X, y).predict(X)
    pd.testing.assert_frame_equal(X, before_X)
    np.testing.assert_array_equal(y, before_y)


def test_classes_given_are_the_label_set():
    X, y = table(400)
    clf = private(classes=["yes", "no", "maybe"], epochs=1).fit(X, y)
    assert clf.classes_.tolist() == ["maybe", "no", "yes"]
    assert clf.predict_proba(X).shape == (400, 3)
    assert not any("labels in y" in a for a in clf.privacy_.assumptions)
    with pytest.raises(LabelError, match="not in classes"):
        private(classes=["yes", "other"]).fit(X, y)
    with pytest.raises(InvalidParameterError, match="twice"):
        private(classes=["yes", "yes"]).fit(X, y)


def test_sample_weights_are_part_of_the_record():
    X, y = table(2_000)
    none = private(epsilon=INF, schema=SCHEMA, random_state=0, epochs=10).fit(X, y)
    ones = private(epsilon=INF, random_state=0, epochs=10).fit(X, y, sample_weight=np.ones(2_000))
    np.testing.assert_allclose(none.coef_, ones.coef_, rtol=1e-4, atol=1e-5)
    up = np.where(y == "yes", 5.0, 1.0)
    tilted = private(epsilon=3.0, epochs=10).fit(X, y, sample_weight=up)
    assert (tilted.predict(X) == "yes").mean() > (none.predict(X) == "yes").mean() + 0.05
    assert any("sample_weight depends on that record" in a for a in tilted.privacy_.assumptions)
    for bad in (-np.ones(2_000), np.full(2_000, np.nan)):
        clf = private()
        with pytest.raises(DataError, match="sample_weight"):
            clf.fit(X, y, sample_weight=bad)
        assert len(clf.ledger) == 0


def test_sensitive_features_are_checked_and_not_used():
    X, y = table(400)
    S = np.where(X["a"] > 0, "m", "f")
    with_s = private(noise_random_state=1).fit(X, y, sensitive_features=S)
    without = private(noise_random_state=1).fit(X, y)
    np.testing.assert_array_equal(with_s.coef_, without.coef_)
    missing = S.astype(object)
    missing[0] = None
    with pytest.raises(MissingSensitiveFeatureError):
        private().fit(X, y, sensitive_features=missing)
    with pytest.raises(LengthMismatchError):
        private().fit(X, y, sensitive_features=S[:-1])
    with pytest.raises(LengthMismatchError, match="row indices"):
        private().fit(X, y, sensitive_features=pd.Series(S, index=X.index + 1))


def test_custom_modules():
    X, y = table(1_500)
    made = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 1))
    before = [p.clone() for p in made.parameters()]
    clf = private(epsilon=3.0, module=made, optimizer="sgd", lr=1.0, epochs=10).fit(X, y)
    assert clf.score(X, y) > 0.7
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    asked = []
    private(module=lambda d, k: asked.append((d, k)) or nn.Linear(d, k)).fit(X, y)
    assert asked == [(5, 1)]
    with pytest.raises(AccountingAssumptionError, match="BatchNorm1d"):
        private(module=nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 1))).fit(X, y)
    with pytest.raises(AttributeError, match="linear model only"):
        _ = clf.coef_


def test_public_bins_add_indicator_columns():
    X, y = table(400)
    schema = Schema({**SCHEMA, "a": Numeric(-4, 4, bins=[-1, 0, 1])})
    clf = private(schema=schema, binning="public").fit(X, y)
    assert clf.coef_.shape[1] == 5 + 4


def test_step_size_follows_the_public_bound_alone():
    """Many columns have a large public norm, and the default step shrinks accordingly."""
    from privfair.training._encoding import Encoding

    clf = DPClassifier(optimizer="sgd")
    wide = Encoding(Schema({f"c{i}": Numeric(0, 1) for i in range(63)}), None)
    X = np.zeros((3, 63))
    wide.check(X)
    assert wide.square_norm == pytest.approx(63)
    assert clf._learning_rate(wide) == pytest.approx(4 / 4)
    assert DPClassifier(lr=0.5)._learning_rate(wide) == 0.5
