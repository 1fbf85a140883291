"""Calibration of a penalty's strength: honest folds, a stated rule, nothing private."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.fairness.dcov import calibrate_lambda

SEEN: list[tuple[set[int], set[int]]] = []


class Shrinking(RegressorMixin, BaseEstimator):
    """Predicts x plus a group effect that falls with the strength."""

    def __init__(self, *, lambda_: float = 0.0, random_state: int | None = None) -> None:
        self.lambda_ = lambda_
        self.random_state = random_state

    def fit(self, X, y, *, sensitive_features=None):
        self.rows_ = set(np.asarray(X)[:, 2].astype(int).tolist())
        return self

    def predict(self, X):
        X = np.asarray(X, dtype=float)
        SEEN.append((self.rows_, set(X[:, 2].astype(int).tolist())))
        return X[:, 0] + X[:, 1] / (1 + self.lambda_)


class Rate(ClassifierMixin, BaseEstimator):
    def __init__(self, *, strength: float = 0.0, epsilon: float = float("inf")) -> None:
        self.strength = strength
        self.epsilon = epsilon

    def fit(self, X, y, *, sensitive_features=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        p = np.clip(0.5 + np.round(np.asarray(X)[:, 1] / (4 + self.strength), 3), 0, 1)
        return np.column_stack([1 - p, p])

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] >= 0.5).astype(int)]


def data(n: int = 300) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, n)
    X = pd.DataFrame({"x": rng.normal(size=n), "effect": 2.0 * group, "row": np.arange(n)})
    return X, X["x"].to_numpy() + X["effect"].to_numpy(), np.where(group, "a", "b")


def mean_gap(pred, S) -> float:
    return abs(pred[np.asarray(S) == "a"].mean() - pred[np.asarray(S) == "b"].mean())


def test_the_smallest_strength_that_meets_the_target() -> None:
    X, y, S = data()
    SEEN.clear()
    found = calibrate_lambda(
        Shrinking(), X, y, S, target=0.5, lambdas=[30, 3, 0, 10], metric=mean_gap, n_splits=3,
        seeds=(0, 1),
    )  # fmt: skip
    assert found.lambda_ == 10.0, "2 / (1 + 3) = 0.5 plus the chance gap is above the target"
    assert found.rule == "smallest" and found.target == 0.5
    assert len(found.runs) == 4 * 2 * 3
    assert set(found.runs.columns) == {"lambda", "seed", "fold", "gap", "score"}
    assert found.summary["gap"].is_monotonic_decreasing
    assert found.summary["score"].is_monotonic_decreasing
    assert found.params["lambda_"] == 0.0
    assert SEEN and all(not (fitted & held) for fitted, held in SEEN), "measured on held-out rows"
    assert set.union(*(held for _, held in SEEN)) == set(range(300))


def test_best_score_and_no_strength_at_all() -> None:
    X, y, S = data()
    score = lambda model, X, y: model.lambda_  # noqa: E731  the strongest is the best here
    found = calibrate_lambda(Shrinking(), X, y, S, target=0.5, metric=mean_gap, n_splits=2,
                             rule="best_score", scoring=score)  # fmt: skip
    assert found.lambda_ == 100.0
    none = calibrate_lambda(Shrinking(), X, y, S, target=0.0, metric=mean_gap, n_splits=2)
    assert none.lambda_ is None and len(none.runs) == 12


@pytest.mark.parametrize("kind", ["numpy", "polars", "mapping"])
def test_divergence_of_probabilities_is_the_default(kind: str) -> None:
    X, y, S = data()
    label = (y > 1).astype(int)
    given = X if kind != "numpy" else X.to_numpy()
    groups = {"group": S} if kind == "mapping" else S
    if kind == "polars":
        given, groups = pl.DataFrame(X.to_dict("list")), pl.DataFrame({"group": S})
    found = calibrate_lambda(Rate(), given, label, groups, target=0.05, parameter="strength",
                             lambdas=(0, 1e9), n_splits=2)  # fmt: skip
    assert found.lambda_ == 1e9
    assert found.summary["gap"].iloc[0] > 0.5


def test_private_estimators_and_bad_parameters_are_refused() -> None:
    X, y, S = data(60)
    label = (y > 1).astype(int)
    with pytest.raises(AccountingAssumptionError, match="private"):
        calibrate_lambda(Rate(epsilon=1.0), X, label, S, target=0.1, parameter="strength")
    for options in (
        {"rule": "elbow"},
        {"target": -1},
        {"n_splits": 1},
        {"lambdas": []},
        {"lambdas": [1, 1]},
        {"lambdas": [-1]},
        {"seeds": []},
        {"parameter": "alpha"},
    ):
        with pytest.raises(InvalidParameterError):
            calibrate_lambda(Shrinking(), X, y, S, **{"target": 0.1, **options})


def test_a_private_estimator_is_found_inside_a_pipeline():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y, S = data()
    piped = make_pipeline(StandardScaler(), Rate(epsilon=1.0))
    with pytest.raises(AccountingAssumptionError, match="a private estimator"):
        calibrate_lambda(piped, X, y > 0, S, target=1.0, parameter="rate__strength")


class Exposed(Shrinking):
    """Keeps what it was fitted and scored with."""

    def fit(self, X, y, *, sensitive_features=None, exposure=None):
        np.testing.assert_array_equal(np.asarray(X)[:, 2], exposure)
        return super().fit(X, y)

    def score(self, X, y, exposure=None):
        np.testing.assert_array_equal(np.asarray(X)[:, 2], exposure)
        return 0.0


def test_what_belongs_to_rows_is_split_with_them():
    X, y, S = data()
    found = calibrate_lambda(
        Exposed(), X, y, S, target=9.0, lambdas=(0.0, 1.0), metric=mean_gap, n_splits=2,
        fit_params={"exposure": X["row"].to_numpy()},
    )  # fmt: skip
    assert found.lambda_ == 0.0 and len(found.runs) == 4
    seen = []
    calibrate_lambda(
        Exposed(), X, y, S, target=9.0, lambdas=(0.0,), metric=mean_gap, n_splits=2,
        fit_params={"exposure": X["row"].to_numpy()},
        scoring=lambda model, X, y, exposure: seen.append(len(exposure)) or 1.0,
    )  # fmt: skip
    assert seen == [150, 150]
