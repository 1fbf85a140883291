"""DPClassifier as a citizen of scikit-learn: its checks, pipelines, search, routing."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from privfair.accounting import Ledger
from privfair.dp import DPClassifier, PrivateTableEncoder
from privfair.testing import check_private_estimator

from .test_classifier import SCHEMA, table

# Weights of 0 and 2 are not the same as records left out and repeated: every record is drawn on
# its own with the public probability, and its own gradient is clipped.
SAMPLING = {
    "check_sample_weight_equivalence_on_dense_data": "Poisson sampling and per-record clipping",
}
TWINS = [
    DPClassifier(epsilon=float("inf")),
    DPClassifier(epsilon=float("inf"), schema="as_is"),
    DPClassifier(epsilon=float("inf"), schema="as_is", hidden_layer_sizes=(10,)),
]
# With a finite epsilon two fits differ by their noise, whatever random_state is: only seeded
# noise, which is no certificate, can be compared. All other checks pass as they are.
PRIVATE = [DPClassifier(epsilon=1.0, schema="as_is", noise_random_state=0)]


@parametrize_with_checks(TWINS, expected_failed_checks=lambda est: SAMPLING)
def test_scikit_learn_checks_without_privacy(estimator, check):
    check(estimator)


@parametrize_with_checks(PRIVATE, expected_failed_checks=lambda est: SAMPLING)
def test_scikit_learn_checks_at_epsilon_1_with_seeded_noise(estimator, check):
    check(estimator)


def test_contract_of_private_estimators():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    check_private_estimator(
        DPClassifier(epsilon=1.0, schema="as_is"), X, (X[:, 0] > 0).astype(int)
    )


def test_the_parameters_are_the_documented_ones_and_stored_as_given():
    defaults = {
        name: p.default for name, p in inspect.signature(DPClassifier.__init__).parameters.items()
        if name != "self"
    }  # fmt: skip
    assert DPClassifier().get_params() == defaults
    assert all(
        p.kind is p.KEYWORD_ONLY
        for name, p in inspect.signature(DPClassifier.__init__).parameters.items()
        if name != "self"
    )
    documented = inspect.getdoc(DPClassifier).split("Attributes\n")[0]
    assert all(f"\n{name} : " in documented for name in defaults)


def test_not_fitted():
    for method in ("predict", "predict_proba", "decision_function", "predict_log_proba"):
        with pytest.raises(NotFittedError):
            getattr(DPClassifier(), method)(np.zeros((2, 2)))
    assert not hasattr(DPClassifier(), "coef_")


def test_pipeline_with_pandas():
    X, y = table(800)
    pipe = make_pipeline(
        FunctionTransformer(lambda frame: frame.assign(a=frame["a"] * 2)),
        DPClassifier(schema=SCHEMA, epochs=3, ledger=Ledger()),
    ).fit(X, y)
    assert pipe.predict(X).shape == (800,)
    assert pipe[-1].privacy_.certified


def test_pipeline_after_a_private_encoder_shares_its_ledger():
    X, y = table(2_000)
    ledger = Ledger()
    pipe = make_pipeline(
        PrivateTableEncoder(epsilon=0.5, delta=1e-6, ledger=ledger),
        DPClassifier(schema="as_is", epsilon=0.5, epochs=3, ledger=ledger),
    ).fit(X, y)
    assert len(ledger) == 2
    assert pipe[-1].privacy_.epsilon <= 0.5
    from privfair.accounting import pipeline_guarantee

    assert 0.5 < pipeline_guarantee(pipe).epsilon <= 1.0


def test_grid_search_charges_every_fit_and_says_so():
    X, y = table(500)
    ledger = Ledger()
    search = GridSearchCV(
        DPClassifier(schema=SCHEMA, epochs=1, ledger=ledger), {"max_grad_norm": [0.5, 1.0]}, cv=3
    ).fit(X, y)
    assert len(ledger) == 2 * 3 + 1  # every fold of every candidate, and the refit
    found = search.best_estimator_.privacy_.assumptions
    assert any("its ledger holds 7 charges" in text for text in found)
    assert ledger.spent().epsilon > search.best_estimator_.privacy_.epsilon


def test_without_a_ledger_all_fits_of_a_process_share_one():
    X, y = table(300)
    counts = []
    for _ in range(2):
        clf = DPClassifier(schema=SCHEMA, epochs=1).fit(X, y)
        (text,) = [a for a in clf.privacy_.assumptions if "its ledger holds" in a]
        counts.append(int(text.split("holds ")[1].split(" ")[0]))
    assert counts[1] == counts[0] + 1


def test_clone_copies_no_fit_and_no_ledger():
    X, y = table(300)
    ledger = Ledger()
    clf = DPClassifier(schema=SCHEMA, epochs=1, ledger=ledger).fit(X, y)
    copy = clone(clf)
    assert copy.ledger is ledger and not hasattr(copy, "privacy_")
    assert len(ledger) == 1


def test_fit_after_fit_equals_a_fresh_fit():
    X, y = table(400)
    clf = DPClassifier(schema=SCHEMA, epochs=2, ledger=Ledger(), noise_random_state=0)
    first = clf.fit(X, y).coef_
    np.testing.assert_array_equal(clf.fit(X, y).coef_, first)


def test_sensitive_features_and_weights_are_routed():
    X, y = table(400)
    S, w = np.where(X["a"] > 0, "m", "f"), np.ones(400)
    seen = []

    class Spy(DPClassifier):
        def __init__(self, *, epochs=1, epsilon=float("inf")):
            super().__init__(epochs=epochs, epsilon=epsilon, schema=SCHEMA)

        def fit(self, X, y=None, *, sensitive_features=None, sample_weight=None):
            seen.append((sensitive_features is not None, sample_weight is not None))
            return super().fit(
                X, y, sensitive_features=sensitive_features, sample_weight=sample_weight
            )

    with config_context(enable_metadata_routing=True):
        spy = Spy().set_fit_request(sensitive_features=True, sample_weight=True)
        spy.set_score_request(sample_weight=True)
        pipe = make_pipeline(FunctionTransformer(), spy)
        pipe.fit(X, y, sensitive_features=S, sample_weight=w)
        cross_validate(pipe, X, y, cv=2, params={"sensitive_features": S, "sample_weight": w})
    assert seen == [(True, True)] * 3


def test_data_frame_names_are_checked_at_prediction():
    X, y = table(300)
    clf = DPClassifier(schema=SCHEMA, epochs=1, ledger=Ledger()).fit(X, y)
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(X.rename(columns={"a": "c"}))
    assert isinstance(clf.predict(pd.DataFrame(X)), np.ndarray)
