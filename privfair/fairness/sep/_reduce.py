"""Exponentiated gradient with the moment of socio-economic parity, as plain results."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairlearn.reductions import ExponentiatedGradient
from numpy.typing import NDArray

from privfair.fairness.sep._moment import SEPMoment

__all__ = ["RandomisedClassifier", "base_learner", "reduce"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RandomisedClassifier:
    """A classifier drawn at random for every decision.

    Attributes
    ----------
    predictors : list of estimator
    weights : ndarray
        Probability of each.
    names : list of (str, str)
        The constraints.
    prices, violations : ndarray
        Multipliers, and ``A h - bound`` of the randomised classifier on the training rows.
    n_iterations : int
    """

    predictors: list[Any]
    weights: Floats
    names: list[tuple[str, str]]
    prices: Floats
    violations: Floats
    n_iterations: int

    def predict_proba(self, X: Any) -> Floats:
        """Return the probabilities of the decisions, shape (n_rows, 2)."""
        h = np.zeros(len(X))
        for predictor, weight in zip(self.predictors, self.weights, strict=True):
            h += weight * np.asarray(predictor.predict(X), dtype=float).reshape(-1)
        h = np.clip(h, 0.0, 1.0)
        return np.column_stack([1 - h, h])


def base_learner(estimator: Any) -> tuple[Any, str]:
    """Return the base learner and the name under which it takes weights."""
    if estimator is None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        made = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        return made, "logisticregression__sample_weight"
    steps = getattr(estimator, "steps", None)
    return estimator, f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"


def reduce(
    learner: Any,
    weight_name: str,
    moment: dict[str, Any],
    X: Floats,
    y: NDArray[np.int64],
    attributes: dict[str, Any],
    *,
    max_iter: int,
    eps: float,
) -> RandomisedClassifier:
    """Run the reduction and keep what predicting needs; no training row stays in it."""
    reduction = ExponentiatedGradient(
        learner, SEPMoment(**moment), eps=eps, max_iter=max_iter, sample_weight_name=weight_name
    )
    with warnings.catch_warnings():
        # fairlearn 0.15 grows its tables in ways that pandas 3 deprecates.
        warnings.filterwarnings("ignore", category=_pandas_warning())
        warnings.filterwarnings("ignore", category=FutureWarning, module="fairlearn")
        reduction.fit(X, y, **{k: v for k, v in attributes.items() if v is not None})
    used = reduction.weights_[reduction.weights_ > 1e-9]
    held = reduction.constraints_
    made = RandomisedClassifier(
        [reduction.predictors_[i] for i in used.index],
        np.asarray(used / used.sum(), dtype=float),
        [tuple(name) for name in held.index],
        np.zeros(len(held.index)),
        np.zeros(len(held.index)),
        int(reduction.last_iter_) + 1,
    )
    h = made.predict_proba(X)[:, 1]
    tables = (reduction.lambda_vecs_LP_, reduction.lambda_vecs_EG_)
    prices = next((t[reduction.best_iter_] for t in tables if reduction.best_iter_ in t), None)
    return RandomisedClassifier(
        made.predictors, made.weights, made.names,
        made.prices if prices is None else np.asarray(prices, dtype=float),
        held.constraints_.violation(h), made.n_iterations,
    )  # fmt: skip


def _pandas_warning() -> type[Warning]:
    import pandas as pd

    return getattr(pd.errors, "Pandas4Warning", FutureWarning)
