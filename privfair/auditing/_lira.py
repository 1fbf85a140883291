"""The likelihood ratio attack: a record's confidence against that of shadow models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from privfair.auditing._membership import log_odds
from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.frames import as_vector, check_aligned, is_dataframe
from privfair.core.randomness import check_random_state

__all__ = ["lira_from_log_odds", "lira_scores"]

MIN_MODELS = 16
OWN_VARIANCE = 64
"""From this many shadow models on, each record has a variance of its own."""
Floats = NDArray[np.float64]


def lira_scores(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    shadow: Any = None,
    n_shadow_models: int = 16,
    mode: str = "online",
    random_state: Any = None,
) -> Floats:
    """Return the likelihood-ratio score of membership of each record.

    Parameters
    ----------
    estimator : fitted classifier
        The model under attack.
    X, y : data frame or array, array-like
        Candidates; shadow models are trained on halves of them.
    shadow : estimator or None
        What the shadow models are; None clones ``estimator``.
    n_shadow_models : int, default=16
        At least 16 and even: each record is in exactly half of them.
    mode : {"online", "offline"}, default="online"
        ``"online"``: log-likelihood ratio of the models with and without the record.
        ``"offline"``: how far the confidence lies above that of the models without it.
    random_state : int, Generator or None
        Which half each shadow model sees.

    Returns
    -------
    ndarray of float, shape (n_rows,)

    Raises
    ------
    InvalidParameterError
        Fewer than 16 shadow models, or an odd number.
    DataError
        A shadow model could not be trained because a class is missing from its half.

    Notes
    -----
    The confidence is ln(p / (1 - p)) of the true label, which is nearly Gaussian. Below 64
    models one variance is used for all records. O(n_shadow_models) fits.

    References
    ----------
    Carlini, Chien, Nasr, Song, Terzis, Tramer 2022, arXiv 2112.03570.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(100, 3)), rng.integers(0, 2, 100)
    >>> model = DecisionTreeClassifier(max_depth=4).fit(X[:50], y[:50])
    >>> scores = lira_scores(model, X, y, random_state=0)
    >>> bool(scores[:50].mean() > scores[50:].mean())
    True
    """
    check.one_of(("online", "offline"), mode=mode)
    k = check.positive_int(n_shadow_models=n_shadow_models)
    if k < MIN_MODELS or k % 2:
        raise InvalidParameterError(
            f"n_shadow_models must be an even number of at least {MIN_MODELS}, got {k}. Each "
            "record is in half of the models, and fewer say nothing about their spread."
        )
    n = check_aligned(X=X, y=y)
    rng = check_random_state(random_state)
    inside = _halves(n, k, rng)
    target = as_vector(y, name="y")
    base = estimator if shadow is None else shadow
    phi = np.stack([_shadow(base, X, target, inside[j], np.unique(target)) for j in range(k)])
    return lira_from_log_odds(log_odds(estimator, X, target), phi, inside, mode=mode)


def _halves(n: int, k: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a (k, n) table in which every record is in exactly half of the models."""
    order = rng.random((k, n)).argsort(axis=0)
    return order < k // 2


def _shadow(
    base: Any, X: Any, y: NDArray[Any], inside: NDArray[np.bool_], classes: NDArray[Any]
) -> Floats:
    from sklearn.base import clone

    if len(np.unique(y[inside])) < len(classes):
        raise DataError(
            "a shadow model's half of the candidates lacks a class. Give more candidates."
        )
    model = clone(base)
    if "ledger" in model.get_params(deep=False):
        from privfair.accounting import Ledger

        # Shadow models are never released; what is, the attack's success, is entered as such.
        model.set_params(ledger=Ledger(dataset_id="shadow model"))
    model.fit(_rows(X, inside), y[inside])
    return log_odds(model, X, y)


def _rows(X: Any, inside: NDArray[np.bool_]) -> Any:
    if not is_dataframe(X):
        return np.asarray(X)[inside]
    if hasattr(X, "iloc"):
        return X.iloc[np.flatnonzero(inside)]
    return X.filter(inside)


def lira_from_log_odds(
    target: ArrayLike, phi: ArrayLike, inside: ArrayLike, *, mode: str = "online"
) -> Floats:
    """Return the scores, given the confidences.

    Parameters
    ----------
    target : array-like, shape (n_rows,)
        Log-odds of the true label under the model attacked.
    phi : array-like, shape (n_models, n_rows)
        The same under each shadow model.
    inside : array-like of bool, shape (n_models, n_rows)
        Which records each shadow model was trained on.
    mode : {"online", "offline"}, default="online"

    Returns
    -------
    ndarray of float, shape (n_rows,)
    """
    own = np.asarray(target, dtype=float)
    shadow, mask = np.asarray(phi, dtype=float), np.asarray(inside, dtype=bool)
    mean_out, sd_out = _gaussian(shadow, ~mask)
    if mode == "offline":
        return np.asarray(stats.norm.logcdf(own, mean_out, sd_out) - stats.norm.logsf(
            own, mean_out, sd_out), dtype=float)  # fmt: skip
    mean_in, sd_in = _gaussian(shadow, mask)
    ratio = stats.norm.logpdf(own, mean_in, sd_in) - stats.norm.logpdf(own, mean_out, sd_out)
    return np.asarray(ratio, dtype=float)


def _gaussian(phi: Floats, mask: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    count = mask.sum(axis=0)
    mean = np.where(mask, phi, 0.0).sum(axis=0) / np.maximum(count, 1)
    square = np.where(mask, (phi - mean) ** 2, 0.0)
    if len(phi) >= OWN_VARIANCE:
        variance = square.sum(axis=0) / np.maximum(count - 1, 1)
    else:
        variance = np.full(phi.shape[1], square.sum() / max(int((count - 1).sum()), 1))
    return mean, np.sqrt(np.maximum(variance, 1e-12))
