"""Canaries: secret fair coins, rows of nobody, and what exclusion means to a trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.tree import DecisionTreeClassifier

from privfair.accounting import Ledger
from privfair.auditing import audit_estimator, draw_inclusion, insert_canaries, loss_scores
from privfair.core import Categorical, Numeric, PrivacyGuarantee, Schema
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
)
from privfair.dp import DPClassifier

RNG = np.random.default_rng(71)
X = RNG.normal(size=(300, 3))
Y = (X[:, 0] > 0).astype(int)
SOURCE = RNG.normal(size=(400, 3)), RNG.integers(0, 2, 400)
SCHEMA = Schema({"age": Numeric(17, 90), "job": Categorical(["a", "b", "c"])})
FRAME = pd.DataFrame({"age": [20, 30, 40], "job": ["a", "b", "a"]}, index=[5, 6, 7])


# -- coins ------------------------------------------------------------------------------------
@pytest.mark.statistical
def test_coins_are_fair_and_independent() -> None:
    """400,000 coins; alpha = 1e-6 for the mean and for each of eight lagged products."""
    coins = draw_inclusion(400_000)
    assert coins.dtype == np.bool_
    assert abs(coins.mean() - 0.5) < 5.4 * 0.5 / np.sqrt(400_000)
    signs = 2.0 * coins - 1
    for lag in range(1, 9):
        assert abs((signs[lag:] * signs[:-lag]).mean()) < 5.4 / np.sqrt(400_000 - lag)


def test_coins_are_secret_unless_asked_otherwise() -> None:
    np.random.default_rng(0)
    assert not np.array_equal(draw_inclusion(256), draw_inclusion(256))
    assert np.array_equal(draw_inclusion(256, noise_random_state=1),
                          draw_inclusion(256, noise_random_state=1))  # fmt: skip
    one = insert_canaries(X, Y, 100, source=SOURCE, random_state=3)
    two = insert_canaries(X, Y, 100, source=SOURCE, random_state=3)
    assert np.array_equal(one.canaries, two.canaries)  # random_state chooses the rows
    assert not np.array_equal(one.included, two.included)  # and never the coins
    assert not one.seeded
    assert "included" not in repr(one)


# -- rows -------------------------------------------------------------------------------------
def test_mislabeled_canaries_come_from_the_source_with_another_label() -> None:
    s = insert_canaries(X, Y, 60, source=SOURCE, random_state=0)
    assert np.array_equal(s.X[:300], X)
    assert np.array_equal(s.y[:300], Y)
    known = {tuple(row): label for row, label in zip(*SOURCE, strict=True)}
    assert len({tuple(row) for row in s.canaries}) == 60
    for row, label in zip(s.canaries, s.labels, strict=True):
        assert label == 1 - known[tuple(row)]


def test_wrong_labels_among_several_classes() -> None:
    labels = np.array(["x", "y", "z"])[RNG.integers(0, 3, 400)]
    s = insert_canaries(X, np.array(["x"] * 300), 400, source=(SOURCE[0], labels), random_state=0)
    known = {tuple(row): label for row, label in zip(SOURCE[0], labels, strict=True)}
    assert all(s.labels[i] != known[tuple(row)] for i, row in enumerate(s.canaries))
    assert set(s.labels) == {"x", "y", "z"}


def test_rare_canaries_sit_in_the_corners() -> None:
    s = insert_canaries(FRAME, [0, 1, 0], 200, kind="rare", schema=SCHEMA, classes=[0, 1],
                        random_state=0)  # fmt: skip
    assert isinstance(s.X, pd.DataFrame)
    assert s.X["age"].dtype == FRAME["age"].dtype
    assert set(s.canaries["age"]) == {17, 90}
    assert set(s.canaries["job"]) == {"a", "b", "c"}
    assert s.X.iloc[:3].to_numpy().tolist() == FRAME.to_numpy().tolist()
    corner = insert_canaries(X, Y, 50, kind="rare", source=SOURCE, random_state=0).canaries
    ends = {(j, v) for j in range(3) for v in (SOURCE[0][:, j].min(), SOURCE[0][:, j].max())}
    assert {(j, v) for j in range(3) for v in corner[:, j]} == ends


def test_polars_stays_polars() -> None:
    frame = pl.DataFrame({"age": [20, 30, 40], "job": ["a", "b", "a"]})
    s = insert_canaries(frame, [0, 1, 0], 10, kind="rare", schema=SCHEMA, classes=[0, 1])
    assert isinstance(s.X, pl.DataFrame)
    assert s.X.schema == frame.schema
    rows, labels = s.training_rows()
    assert len(rows) == len(labels) == 3 + s.included.sum()


def test_training_rows_leave_out_the_excluded_only() -> None:
    s = insert_canaries(X, Y, 40, source=SOURCE)
    rows, labels = s.training_rows()
    assert np.array_equal(rows, np.concatenate([X, s.canaries[s.included]]))
    assert np.array_equal(labels, np.concatenate([Y, s.labels[s.included]]))
    assert np.array_equal(s.sample_weight, np.concatenate([np.ones(300), s.included]))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"kind": "odd"}, InvalidParameterError, "kind"),
        ({"n_canaries": 0}, InvalidParameterError, "n_canaries"),
        ({"source": None}, InvalidParameterError, "unaccounted statistics"),
        ({"n_canaries": 401}, DataError, "which has 400"),
        ({"source": (SOURCE[0][:, :2], SOURCE[1])}, DataError, "columns"),
        ({"source": (SOURCE[0], SOURCE[1][:5])}, LengthMismatchError, "labels"),
        ({"source": (SOURCE[0], np.zeros(400))}, InvalidParameterError, "two labels"),
        ({"classes": [1, 2]}, DataError, "not in classes"),
        ({"y": Y[:10]}, LengthMismatchError, "rows"),
        ({"kind": "rare", "schema": SCHEMA}, InvalidParameterError, "classes"),
        ({"kind": "rare", "schema": SCHEMA, "classes": [0, 1]}, SchemaError, "describe"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], text: str) -> None:
    call: dict[str, Any] = {"X": X, "y": Y, "n_canaries": 10, "source": SOURCE, **change}
    if call["kind"] == "rare" if "kind" in call else False:
        call["source"] = None
    with pytest.raises(error, match=text):
        insert_canaries(call.pop("X"), call.pop("y"), call.pop("n_canaries"), **call)


# -- estimators -------------------------------------------------------------------------------
def test_an_excluded_canary_has_no_influence_at_all() -> None:
    """Weight 0 is the null record: whatever the excluded rows hold, the model is the same."""
    s = insert_canaries(X, Y, 50, source=SOURCE, noise_random_state=1)
    other, labels = s.X.copy(), s.y.copy()
    gone = np.flatnonzero(s.sample_weight == 0)
    other[gone] = 1000.0
    labels[gone] = 1 - labels[gone]
    options: dict[str, Any] = {"epsilon": 2.0, "schema": "as_is", "noise_random_state": 2}
    options |= {"epochs": 2, "ledger": Ledger()}
    one = DPClassifier(**options).fit(s.X, s.y, sample_weight=s.sample_weight)
    two = DPClassifier(**options).fit(other, labels, sample_weight=s.sample_weight)
    assert np.allclose(one.coef_, two.coef_, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("relation", ["zero_out", "add_remove"])
def test_an_honest_estimator_is_not_accused(relation: str) -> None:
    """beta = 1e-6. The estimator is charged once, for what it trained."""
    ledger = Ledger()
    model = DPClassifier(
        epsilon=1.0, delta=1e-9, schema="as_is", epochs=2, ledger=ledger, neighboring=relation,
        n_public=400 if relation == "add_remove" else None,
    )  # fmt: skip
    r = audit_estimator(model, X, Y, n_canaries=100, source=SOURCE, beta=1e-6)
    assert not r.violated
    assert r.counts["canaries"] == 100
    assert r.upper_epsilon is not None
    assert r.upper_epsilon <= 1.0
    assert len(ledger.entries()) >= 1
    assert r.model.privacy_.neighboring == relation
    assert not hasattr(model, "privacy_")
    assert "model" not in r.to_dict()


class Liar(DecisionTreeClassifier):
    """A tree that memorises its rows and certifies epsilon = 0.5."""

    neighboring = "zero_out"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Liar:
        keep = np.ones(len(y), bool) if sample_weight is None else np.asarray(sample_weight) > 0
        super().fit(X[keep], y[keep])
        self.privacy_ = PrivacyGuarantee(0.5, 1e-10)
        return self


def test_an_estimator_that_claims_privacy_without_noise_is_found_out() -> None:
    r = audit_estimator(
        Liar(random_state=0), X, Y, n_canaries=400, source=SOURCE, k_plus=0, k_minus=50, beta=1e-6
    )
    assert r.violated, str(r)
    assert r.lower_epsilon is not None
    assert r.lower_epsilon > 0.5


def test_the_losses_of_a_reference_are_subtracted() -> None:
    """A reference that already has a canary's loss leaves nothing: coins decide, not scores."""
    public = DecisionTreeClassifier(max_depth=2, random_state=0).fit(*SOURCE)
    options: dict[str, Any] = {"n_canaries": 400, "source": SOURCE, "k_plus": 0, "k_minus": 50}
    r = audit_estimator(Liar(random_state=0), X, Y, reference=public, beta=1e-6, **options)
    assert r.violated
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="NaN"):
        # -inf - -inf: the same model as its own reference has no finite difference.
        audit_estimator(Liar(random_state=0), X, Y, reference=_Never(), **options)


class _Never:
    """Gives no label any probability, as does the audited model for excluded canaries."""

    classes_ = np.array([0, 1])

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.zeros((len(X), 2))


def test_estimators_without_a_certificate_or_relation_are_refused() -> None:
    class Plain(Liar):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Plain:
            super().fit(X, y, sample_weight)
            del self.privacy_
            return self

    with pytest.raises(InvalidTypeError, match="membership_inference"):
        audit_estimator(Plain(), X, Y, n_canaries=10, source=SOURCE)
    with pytest.raises(InvalidParameterError, match="neighboring"):
        audit_estimator(DecisionTreeClassifier(), X, Y, n_canaries=10, source=SOURCE)


def test_scores_are_minus_the_loss() -> None:
    model = DecisionTreeClassifier(max_depth=1, random_state=0).fit(X, Y)
    p = model.predict_proba(X)[np.arange(300), Y]
    with np.errstate(divide="ignore"):
        assert loss_scores(model, X, Y) == pytest.approx(np.log(p))
