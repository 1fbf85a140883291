"""The private classifier that shows its prices and gaps."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import BudgetExceededError, InvalidTypeError
from privfair.dp import DPClassifier
from privfair.fairness import DPSEPClassifier, SEPPenalty, SESRule, sep_gaps
from privfair.fairness.dcov import BoundedDistanceCovariance

LOW = SESRule("wealth", "<", 1)


def table(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    wealth, sex = rng.integers(0, 2, n), rng.choice(["f", "m"], n)
    X = np.column_stack([rng.normal(1.5 * wealth), rng.normal(size=n)])
    y = X.sum(axis=1) + rng.logistic(size=n) > 1.0
    return X, y, {"sex": sex, "wealth": wealth}


def make(**changes):
    penalty = SEPPenalty(["f", "m"], LOW, tolerance=0.0)
    options = {"fairness_penalty": penalty, "epsilon": 3.0, "schema": "as_is", **changes}
    return DPSEPClassifier(**{"ledger": Ledger(), **options})


def test_it_is_the_classifier_with_the_penalty_and_shows_the_run() -> None:
    X, y, S = table()
    seeds = {"random_state": 0, "noise_random_state": 1}
    fair = make(**seeds).fit(X, y, sensitive_features=S)
    same = DPClassifier(
        epsilon=3.0, schema="as_is", fairness_penalty=make().fairness_penalty, ledger=Ledger(),
        **seeds,
    ).fit(X, y, sensitive_features=S)  # fmt: skip
    np.testing.assert_array_equal(fair.coef_, same.coef_)
    assert fair.privacy_.epsilon == same.privacy_.epsilon <= 3.0
    assert fair.sigma_effective_ == same.noise_multiplier_ and fair.steps_ == same.n_steps_
    assert set(fair.prices_) == set(fair.gaps_) == {"f", "m"}
    assert all(0 < price <= 5 for price in fair.prices_.values())
    assert all(abs(gap) < 0.3 for gap in fair.gaps_.values())
    # The penalty that was handed in stays as it was.
    assert np.isnan(fair.fairness_penalty.gaps).all() and not fair.fairness_penalty.prices.any()
    plain = make(fairness_penalty=None, **seeds).fit(X, y)
    gaps = [
        sep_gaps(m.predict_proba(X)[:, 1], S["sex"], LOW, ses_features=S)["gap"].max()
        for m in (fair, plain)
    ]
    assert gaps[1] > 0.1 and gaps[0] < 0.3 * gaps[1]
    assert plain.prices_ == {} == plain.gaps_


def test_one_charge_within_a_cap() -> None:
    X, y, S = table(600)
    model = make(epochs=2).fit(X, y, sensitive_features=S)
    assert len(model.ledger) == 1 and model.privacy_.certified
    capped = Ledger(cap=Budget(1.0, 1e-5))
    with pytest.raises(BudgetExceededError):
        make(ledger=capped).fit(X, y, sensitive_features=S)
    assert len(capped) == 0


def test_saving_and_copying_keep_prices_and_gaps(tmp_path) -> None:
    X, y, S = table(600)
    rare = SEPPenalty(["f", "m", "nobody"], LOW)
    model = make(epochs=2, fairness_penalty=rare).fit(X, y, sensitive_features=S)
    assert model.gaps_["nobody"] is None and model.prices_["nobody"] == 0.0
    model.save(tmp_path / "model")
    loaded = DPSEPClassifier.load(tmp_path / "model")
    for other in (loaded, pickle.loads(pickle.dumps(model))):
        assert other.prices_ == model.prices_ and other.gaps_ == model.gaps_
        assert other.sigma_effective_ == model.sigma_effective_ and other.steps_ == model.steps_
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    again = clone(model).set_params(epochs=1, ledger=Ledger())
    assert again.fit(X, y, sensitive_features=S).prices_.keys() == model.prices_.keys()


def test_names_are_those_of_crossed_columns() -> None:
    X, y, S = table(1500)
    S["race"] = np.where(np.arange(1500) % 3 == 0, "a", "b")
    penalty = SEPPenalty({"sex": ["f", "m"], "race": ["a", "b"]}, LOW)
    model = make(epsilon=math.inf, fairness_penalty=penalty, random_state=0, epochs=5)
    model.fit(X, y, sensitive_features=S)
    exact = sep_gaps(
        model.predict_proba(X)[:, 1], {"sex": S["sex"], "race": S["race"]}, LOW, ses_features=S,
        min_group=1,
    )["gap"]  # fmt: skip
    assert list(model.gaps_) == [", ".join(name) for name in exact.index]


def test_another_penalty_is_refused() -> None:
    X, y, S = table(300)
    other = BoundedDistanceCovariance({"sex": ["f", "m"]})
    ledger = Ledger()
    with pytest.raises(InvalidTypeError, match="must be a SEPPenalty"):
        make(fairness_penalty=other, ledger=ledger).fit(X, y, sensitive_features=S)
    assert len(ledger) == 0


@parametrize_with_checks(
    [DPSEPClassifier(epsilon=float("inf"))],
    expected_failed_checks=lambda est: {
        "check_sample_weight_equivalence_on_dense_data": "Poisson sampling",
    },
)
def test_scikit_learn_checks_without_privacy(estimator, check) -> None:
    check(estimator)
