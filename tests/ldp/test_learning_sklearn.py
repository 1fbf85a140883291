"""The learners of the local room as citizens of scikit-learn: its checks, pipelines, saving."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from privfair.accounting import Ledger, pipeline_guarantee
from privfair.core import Budget, Categorical, Numeric, Schema
from privfair.core.exceptions import BudgetExceededError
from privfair.ldp import LDPNaiveBayes, LDPTransformer
from privfair.testing import RefusingLedger

ALL = Numeric(-100.0, 100.0)
TWINS = [
    LDPTransformer(epsilon=math.inf, schema=ALL),
    LDPTransformer(epsilon=math.inf, schema=ALL, output="debiased"),
    LDPTransformer(epsilon=math.inf, schema=ALL, output="codes"),
    LDPNaiveBayes(epsilon=math.inf, schema=Numeric(-4.0, 4.0), bins=16),
]
# With noise the report of a row is its own draw, whatever else is transformed beside it.
NOISE = {
    "check_methods_subset_invariance": "each row draws its own noise, batch by batch",
    "check_methods_sample_order_invariance": "each row draws its own noise, in order",
}
PRIVATE = [
    LDPTransformer(epsilon=1.0, schema=ALL, noise_random_state=0),
    LDPTransformer(epsilon=1.0, schema=ALL, noise_random_state=0, protocol="auto"),
    LDPTransformer(epsilon=1.0, schema=ALL, noise_random_state=0, strategy="smp", output="codes"),
]


@parametrize_with_checks(TWINS)
def test_scikit_learn_checks_without_privacy(estimator, check):
    check(estimator)


@parametrize_with_checks(PRIVATE, expected_failed_checks=lambda est: NOISE)
def test_scikit_learn_checks_at_epsilon_1_with_seeded_noise(estimator, check):
    check(estimator)


SCHEMA = Schema({"age": Numeric(0, 100, bins=[30, 60]), "job": Categorical(["a", "b", "c"])})


def table(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    job = rng.choice(["a", "b", "c"], n)
    X = pd.DataFrame({"age": rng.uniform(0, 100, n), "job": job})
    return X, np.where(rng.random(n) < np.where(job == "a", 0.9, 0.1), "yes", "no")


@pytest.mark.parametrize("kind", [LDPTransformer, LDPNaiveBayes])
def test_the_parameters_are_the_documented_ones_and_stored_as_given(kind):
    defaults = {
        name: p.default for name, p in inspect.signature(kind.__init__).parameters.items()
        if name != "self"
    }  # fmt: skip
    assert kind().get_params() == defaults
    documented = inspect.getdoc(kind).split("Attributes\n")[0]
    assert all(f"\n{name} : " in documented for name in defaults)


def test_not_fitted():
    X, _ = table(10)
    for method in ("transform", "encode", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(LDPTransformer(schema=SCHEMA), method)(X)
    assert not hasattr(LDPTransformer(schema=SCHEMA), "privacy_")
    with pytest.raises(NotFittedError):
        LDPNaiveBayes(schema=SCHEMA).predict(X)


def test_a_pipeline_randomises_training_rows_once_and_rows_to_predict_once():
    X, y = table()
    ledger = Ledger()
    pipe = make_pipeline(
        LDPTransformer(schema=SCHEMA, epsilon=4.0, ledger=ledger), LogisticRegression()
    ).fit(X, y)
    assert len(ledger) == 1 and pipe[0].privacy_.epsilon == 4.0
    assert pipe.score(X, y) > 0.6
    assert len(ledger) == 2 and pipe[0].privacy_.epsilon == 8.0
    # The classifier saw labels as they are: no step vouches for them.
    assert pipeline_guarantee(pipe).unsafe


def test_grid_search_charges_every_release():
    X, y = table(300)
    ledger = Ledger()
    pipe = make_pipeline(LDPTransformer(schema=SCHEMA, ledger=ledger), LogisticRegression())
    GridSearchCV(pipe, {"ldptransformer__strategy": ["spl", "smp"]}, cv=2).fit(X, y)
    assert len(ledger) == 2 * 2 * 2 + 1  # two folds, training and test rows, and the refit


def test_clone_copies_no_fit_and_no_ledger():
    X, _ = table(50)
    ledger = Ledger()
    made = LDPTransformer(schema=SCHEMA, ledger=ledger).fit(X)
    copy = clone(made)
    assert copy.ledger is ledger and not hasattr(copy, "privacy_")


def test_output_as_a_data_frame_keeps_names_and_index():
    X, _ = table(20)
    X.index = range(100, 120)
    made = LDPTransformer(schema=SCHEMA, output="codes", ledger=Ledger())
    out = made.set_output(transform="pandas").fit_transform(X)
    assert list(out.columns) == ["age", "job"] and out.index.equals(X.index)
    wide = LDPTransformer(schema=SCHEMA, ledger=Ledger()).fit(X).get_feature_names_out()
    assert wide.tolist() == [
        "age=[0, 30)", "age=[30, 60)", "age=[60, 100]", "job=a", "job=b", "job=c",
    ]  # fmt: skip


def test_saved_and_loaded(tmp_path):
    X, y = table()
    first = LDPTransformer(schema=SCHEMA, ledger=Ledger(), noise_random_state=3).fit(X)
    first.transform(X)
    first.save(tmp_path / "t.json")
    again = LDPTransformer.load(tmp_path / "t.json")
    assert again.privacy_.seeded and again.privacy_.epsilon == 1.0
    assert again.schema_ == first.schema_ and again.ledger is None
    np.testing.assert_array_equal(again.encode(X), first.encode(X))
    model = LDPNaiveBayes(schema=SCHEMA, ledger=Ledger()).fit(X, y)
    model.save(tmp_path / "m.json")
    loaded = LDPNaiveBayes.load(tmp_path / "m.json")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert loaded.privacy_ == model.privacy_
    with pytest.raises(ValueError, match="its format is another one"):
        LDPTransformer.load(tmp_path / "m.json")


def test_a_used_up_ledger_stops_the_next_release():
    X, y = table(100)
    ledger = Ledger(cap=Budget(1.5))
    made = LDPTransformer(schema=SCHEMA, ledger=ledger).fit(X)
    made.transform(X)
    with pytest.raises(BudgetExceededError):
        made.transform(X)
    with pytest.raises(BudgetExceededError):
        LDPNaiveBayes(schema=SCHEMA, ledger=ledger).fit(X, y)
    assert made.privacy_.details["releases"] == 1


class Untouchable:
    """Stands for data that nobody may read: it has a shape and nothing else."""

    shape = (3, 2)
    __len__ = None


def test_a_refusing_ledger_leaves_the_rows_untouched():
    X, _ = table(10)
    made = LDPTransformer(schema=SCHEMA, ledger=RefusingLedger()).fit(X)
    with pytest.raises(BudgetExceededError):
        made.transform(Untouchable())
