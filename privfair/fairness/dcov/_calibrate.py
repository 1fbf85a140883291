"""How strong a penalty must be: a grid, folds, seeds, and a rule that is written down."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import KFold, StratifiedKFold

from privfair.core import _validation as check
from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.core.frames import as_vector, check_aligned, is_dataframe
from privfair.fairness.dcov._jsd import jsd_groups

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LambdaCalibration", "calibrate_lambda"]

RULES = ("smallest", "best_score")


@dataclass(frozen=True, eq=False)
class LambdaCalibration:
    """The runs of a calibration and the strength that the rule picked.

    Attributes
    ----------
    lambda_ : float or None
        None if no strength met the target.
    rule, target : str, float
        What picked it.
    runs : pandas.DataFrame
        One row for each (strength, seed, fold): ``gap`` and ``score`` on rows not used to fit.
    summary : pandas.DataFrame
        Means and standard errors by strength.
    params : dict
        The estimator's parameters: a strength has no meaning without the encoding it was found
        with.
    """

    lambda_: float | None
    rule: str
    target: float
    runs: pd.DataFrame = field(repr=False)
    summary: pd.DataFrame = field(repr=False)
    params: dict[str, Any] = field(repr=False)


def calibrate_lambda(
    estimator: Any,
    X: Any,
    y: Any,
    S: Any,
    *,
    target: float,
    lambdas: Sequence[float] = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0),
    rule: str = "smallest",
    metric: Callable[[Any, Any], float] | None = None,
    scoring: Callable[..., float] | None = None,
    parameter: str = "lambda_",
    n_splits: int = 5,
    seeds: Sequence[int] = (0,),
    random_state: Any = 0,
    fit_params: Mapping[str, Any] | None = None,
) -> LambdaCalibration:
    """Choose the strength of a penalty by cross-validation.

    Every strength is fitted on the same folds with the same seeds. Gap and score are measured on
    the held-out fold; keep test rows out of ``X``, for numbers on these rows chose the strength.

    Parameters
    ----------
    estimator : estimator
        With a parameter ``parameter`` and ``fit(X, y, sensitive_features=S)``; copied. A private
        one (finite ``epsilon``) is refused: its certificate would not cover the choice.
    X, y : data frame or array-like, shape (n, n_features) and (n,)
    S : data frame, mapping or array-like, shape (n,) or (n, d)
    target : float
        Largest mean gap allowed.
    lambdas : sequence of float, default=(0, 1, 3, 10, 30, 100)
        Non-negative, distinct.
    rule : {"smallest", "best_score"}, default="smallest"
        The smallest strength whose mean gap is at most the target, or the one with the best mean
        score among these.
    metric : callable or None, default=None
        ``metric(pred, S) -> float``; the Jensen-Shannon divergence of :func:`jsd_groups`, less
        its bias, when None. ``pred`` is the probability of the second class where there is one.
    scoring : callable or None, default=None
        ``scoring(fitted, X, y, **rows) -> float``, larger is better, ``rows`` being the held-out
        part of ``fit_params``; None is ``estimator.score``, with those that it takes.
    parameter : str, optional
        Name of the strength; ``"lambda_"`` if not given.
    n_splits : int, default=5
        Folds, at least 2; stratified by label for classifiers. Never stratify by protected group
        with random offsets: that makes the attributes depend on each other in the folds.
    seeds : sequence of int, default=(0,)
        Values of the estimator's ``random_state``, where it has one.
    random_state : None, int or Generator, default=0
        Of the folds.
    fit_params : mapping of str to array-like, shape (n,), or None, default=None
        What ``fit`` gets beside these, one entry for each row: ``exposure``, ``sample_weight``.

    Returns
    -------
    LambdaCalibration

    Raises
    ------
    AccountingAssumptionError
        The estimator is private.
    InvalidParameterError
        An unknown parameter, a negative strength, fewer than 2 folds.

    Notes
    -----
    Fits ``len(lambdas) * len(seeds) * n_splits`` models. Privacy: raw; the choice leaks.

    References
    ----------
    Lee, Antonio, Avanzi, Marchi and Zhou 2025, arXiv 2509.08163 (a grid over seeds, divergence
    against score on validation rows).

    Examples
    --------
    ``docs/fairness-dcov.md`` calibrates a classifier.
    """
    check.one_of(RULES, rule=rule)
    limit = check.non_negative(target=target)
    folds = check.positive_int(n_splits=n_splits)
    grid = sorted(check.non_negative(lambdas=value) for value in lambdas)
    if folds < 2 or not grid or len(set(grid)) != len(grid) or not len(seeds):
        raise InvalidParameterError(
            "n_splits must be at least 2, lambdas distinct, and both lambdas and seeds not empty."
        )
    params = estimator.get_params()
    if parameter not in params:
        raise InvalidParameterError(
            f"{type(estimator).__name__} has no parameter {parameter!r}; pass parameter=..."
        )
    if any(_private(name, value) for name, value in params.items()):
        raise AccountingAssumptionError(
            "a private estimator cannot be calibrated on the rows that it protects: every fit "
            "costs epsilon and the choice itself would be accounted nowhere. Calibrate on public "
            "rows, or with epsilon=float('inf') on rows that are not to be protected."
        )
    extra = dict(fit_params or {})
    check_aligned(X=X, y=y, S=S, **extra)
    labels = as_vector(y, name="y")
    measure = _divergence if metric is None else metric
    rows = []
    for split, (fit_rows, held) in enumerate(_folds(estimator, labels, folds, random_state)):
        train = [_take(part, fit_rows) for part in (X, y, S)]
        test = [_take(part, held) for part in (X, y, S)]
        own, others = (
            {name: _take(values, some) for name, values in extra.items()}
            for some in (fit_rows, held)
        )
        for seed in seeds:
            for value in grid:
                model = clone(estimator).set_params(**{parameter: value})
                if "random_state" in params:
                    model.set_params(random_state=seed)
                model.fit(train[0], train[1], sensitive_features=train[2], **own)
                rows.append(
                    {
                        "lambda": value,
                        "seed": seed,
                        "fold": split,
                        "gap": float(measure(_scores(model, test[0]), test[2])),
                        "score": float(_score(model, test[0], test[1], others, scoring)),
                    }
                )
    return _picked(rows, rule, limit, params)


def _score(model: Any, X: Any, y: Any, rows: dict[str, Any], scoring: Any) -> Any:
    if scoring is not None:
        return scoring(model, X, y, **rows)
    taken = inspect.signature(model.score).parameters
    return model.score(X, y, **{name: rows[name] for name in rows if name in taken})


def _private(name: str, value: Any) -> bool:
    """Whether a parameter, of the estimator or of one inside it, is a finite epsilon."""
    if name.rsplit("__", 1)[-1] != "epsilon" or isinstance(value, str | bool):
        return False
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _picked(
    rows: list[dict[str, Any]], rule: str, target: float, params: dict[str, Any]
) -> LambdaCalibration:
    import pandas as pd

    runs = pd.DataFrame(rows)
    grouped = runs.groupby("lambda")[["gap", "score"]]
    mean, error = grouped.mean(), grouped.sem()
    summary = pd.concat([mean, error.add_suffix("_se")], axis=1)
    good = mean[mean["gap"] <= target]
    chosen = None
    if len(good):
        chosen = float(good.index.min() if rule == "smallest" else good["score"].idxmax())
    return LambdaCalibration(chosen, rule, target, runs, summary, params)


def _divergence(pred: Any, S: Any) -> float:
    return jsd_groups(pred, S, n_resamples=50, random_state=0).value


def _folds(estimator: Any, labels: Any, n_splits: int, random_state: Any) -> Any:
    if isinstance(random_state, np.random.Generator):
        random_state = int(random_state.bit_generator.random_raw() % 2**32)
    kind = StratifiedKFold if is_classifier(estimator) else KFold
    return kind(n_splits, shuffle=True, random_state=random_state).split(labels, labels)


def _scores(model: Any, X: Any) -> Any:
    if hasattr(model, "predict_proba"):
        found = np.asarray(model.predict_proba(X))
        if found.ndim == 2 and found.shape[1] == 2:
            return found[:, 1]
    return np.asarray(model.predict(X))


def _take(part: Any, rows: Any) -> Any:
    """Return these rows of anything table-like, in the kind it was given."""
    if isinstance(part, Mapping):
        return {name: _take(column, rows) for name, column in part.items()}
    if hasattr(part, "iloc"):
        return part.iloc[rows]
    if is_dataframe(part):
        return part[rows.tolist()]
    return np.asarray(part)[rows]
