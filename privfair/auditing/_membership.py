"""Membership inference: who was trained on, from a model's losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.auditing._metrics import (
    attack_advantage,
    attack_auc,
    group_names,
    roc_points,
    tpr_at_fpr,
)
from privfair.auditing._one_run import checked_membership, checked_scores
from privfair.core import _validation as check
from privfair.core.attack import AttackResult
from privfair.core.exceptions import InvalidTypeError, LabelError, PrivacyError
from privfair.core.frames import as_vector, check_aligned

__all__ = ["evaluate_attack", "log_odds", "loss_scores", "membership_inference"]

METHODS = ("loss_threshold", "lira_online", "lira_offline")
FPR = (0.001, 0.01, 0.1)
Floats = NDArray[np.float64]
_TINY = 1e-30


def _log_probabilities(estimator: Any, X: Any) -> Floats:
    with np.errstate(divide="ignore"):  # a probability of 0 is an answer
        if hasattr(estimator, "predict_log_proba"):
            return np.asarray(estimator.predict_log_proba(X), dtype=np.float64)
        if hasattr(estimator, "predict_proba"):
            return np.log(np.asarray(estimator.predict_proba(X), dtype=np.float64))
    raise InvalidTypeError(
        f"{type(estimator).__name__} has neither predict_log_proba nor predict_proba: a "
        "membership attack reads confidences."
    )


def _positions(estimator: Any, y: ArrayLike) -> NDArray[np.intp]:
    target, classes = as_vector(y, name="y"), np.asarray(estimator.classes_)
    at = np.minimum(np.searchsorted(classes, target), len(classes) - 1)
    if (classes[at] != target).any():
        raise LabelError("y has a label that the model does not know.")
    return np.asarray(at, dtype=np.intp)


def loss_scores(estimator: Any, X: Any, y: ArrayLike) -> Floats:
    """Return minus the cross-entropy of each record: higher looks more like a member.

    Parameters
    ----------
    estimator : fitted classifier
        With ``predict_log_proba`` or ``predict_proba``.
    X : data frame or array, shape (n_rows, n_columns)
    y : array-like, shape (n_rows,)
        True labels.

    Returns
    -------
    ndarray of float, shape (n_rows,)
        At most 0; -inf for a label that was given no probability.

    Raises
    ------
    LabelError
        A label that the model does not know.

    References
    ----------
    Yeom, Giacomelli, Fredrikson, Jha 2018, arXiv 1709.01604.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    >>> loss_scores(model, [[5.0]], [1]) > loss_scores(model, [[5.0]], [0])
    array([ True])
    """
    logs = _log_probabilities(estimator, X)
    out = logs[np.arange(len(logs)), _positions(estimator, y)]
    return np.where(np.isnan(out), -np.inf, out)


def log_odds(estimator: Any, X: Any, y: ArrayLike) -> Floats:
    """Return ln(p / (1 - p)) of the true label, without cancellation near 1."""
    logs = _log_probabilities(estimator, X)
    at = _positions(estimator, y)
    rows = np.arange(len(logs))
    own = logs[rows, at]
    others = logs.copy()
    others[rows, at] = -np.inf
    with np.errstate(divide="ignore"):
        rest = np.logaddexp.reduce(others, axis=1)
    bound = -math.log(_TINY)
    return np.clip(np.maximum(own, -bound) - np.maximum(rest, -bound), -bound, bound)


def evaluate_attack(
    scores: ArrayLike,
    member: ArrayLike,
    *,
    sensitive_features: Any = None,
    fpr: Sequence[float] = FPR,
    confidence: float = 0.95,
    method: str = "scores as given",
    target: str = "",
) -> AttackResult:
    """State how well scores tell members from non-members, overall and in every group.

    Parameters
    ----------
    scores : array-like of float, shape (n_rows,)
        Higher for records that look trained on.
    member : array-like of bool, shape (n_rows,)
        Which records were.
    sensitive_features : array-like, data frame or None
        Groups; several columns are crossed. Privacy risk is itself unevenly spread.
    fpr : sequence of float, default=(0.001, 0.01, 0.1)
        False positive rates at which the true positive rate is stated. A rate below 10 / (number
        of non-members) is "not estimable".
    confidence : float, default=0.95
        Of each interval.
    method, target : str
        For the report.

    Returns
    -------
    AttackResult
        With the estimates ``attack_auc``, ``attack_advantage`` and ``attack_tpr_at_fpr_...``, each
        with a table by group. Without a bound on epsilon: records of one run are not independent.

    Raises
    ------
    InvalidTypeError, DataError, LengthMismatchError, LabelError
        Membership that is not boolean, scores with NaN, or only one kind of record.

    Notes
    -----
    O(n log n) per group. Privacy: the numbers are computed from the records as they are.

    References
    ----------
    Carlini et al. 2022, "Membership inference attacks from first principles", arXiv 2112.03570.
    Clopper and Pearson 1934. DeLong, DeLong, Clarke-Pearson 1988.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> member = np.arange(2000) % 2 == 0
    >>> result = evaluate_attack(rng.normal(size=2000) + member, member)
    >>> 0.7 < result.estimate("attack_auc").value < 0.8
    True
    >>> result.estimate("attack_tpr_at_fpr_0.001").status
    'not_estimable'
    """
    values = checked_scores(scores)
    inside = checked_membership(member, len(values), "member")
    check.confidence(confidence=confidence)
    levels = [check.probability(fpr=rate) for rate in fpr]
    options: dict[str, Any] = {
        "sensitive_features": sensitive_features, "confidence": confidence,
    }  # fmt: skip
    estimates = [
        attack_auc.estimate(inside, values, **options),
        attack_advantage.estimate(inside, values, **options),
    ]
    names = None if sensitive_features is None else group_names(sensitive_features, len(values))
    estimates += [_at(inside, values, rate, confidence, names) for rate in levels]
    groups = {}
    if names is not None:
        for group in sorted(set(names.tolist())):
            rows = names == group
            if 0 < inside[rows].sum() < rows.sum():
                groups[group] = roc_points(inside[rows], values[rows])
    n_out = int((~inside).sum())
    lowest = min((r for r in levels if r * n_out >= 10), default=None)
    power = (
        f"{int(inside.sum())} members and {n_out} others"
        + (f"; no false positive rate below {10 / n_out:.2g} can be stated." if n_out else ".")
        + ("" if lowest is not None else " None of the rates asked for can be stated.")
    )
    return AttackResult(
        attack="membership_inference",
        method=f"{method}. Intervals: DeLong for the AUC, Clopper-Pearson for rates.",
        estimates=tuple(estimates),
        confidence=confidence,
        counts={"members": int(inside.sum()), "others": n_out},
        roc=roc_points(inside, values),
        groups=groups,
        power=power,
        caveats=(
            "Rates of many records of one training run give no bound on epsilon: the records are "
            "not independent. A stronger attack may find more.",
        ),
        target=target,
    )


def _at(
    member: NDArray[np.bool_], scores: Floats, rate: float, confidence: float, names: Any
) -> Any:
    total = tpr_at_fpr(member, scores, rate, confidence)
    if names is None:
        return total
    import pandas as pd

    rows = []
    for group in sorted(set(names.tolist())):
        inside = names == group
        e = tpr_at_fpr(member[inside], scores[inside], rate, confidence)
        rows.append({"group": group, "value": e.value, "low": e.low, "high": e.high, "n": e.n,
                     "status": e.status, "reason": e.reason})  # fmt: skip
    return replace(total, by_group=pd.DataFrame(rows).set_index("group"))


def membership_inference(
    estimator: Any,
    X: Any,
    y: Any,
    member: ArrayLike,
    *,
    method: str = "loss_threshold",
    sensitive_features: Any = None,
    shadow: Any = None,
    n_shadow_models: int = 16,
    fpr: Sequence[float] = FPR,
    confidence: float = 0.95,
    allow_raw_training_rows: bool = False,
    ledger: Any = None,
    random_state: Any = None,
) -> AttackResult:
    """Try to tell which records a model was trained on, and state how well that goes.

    Parameters
    ----------
    estimator : fitted classifier
        The model under attack.
    X, y : data frame or array, array-like
        Candidates: records that it was trained on and records that it was not, alike otherwise.
    member : array-like of bool, shape (n_rows,)
        Which of them it was trained on.
    method : {"loss_threshold", "lira_online", "lira_offline"}, default="loss_threshold"
        By the loss alone, or by the loss against that of shadow models: fitted with and without
        each record (online), or without it only (offline).
    sensitive_features : array-like, data frame or None
        Groups.
    shadow : estimator or None
        What the shadow models are; None clones ``estimator``. Each is given a ledger of its own,
        and is thrown away.
    n_shadow_models : int, default=16
        At least 16 for the LiRA methods; each is trained on half of the candidates.
    fpr : sequence of float, default=(0.001, 0.01, 0.1)
        Where the true positive rate is stated.
    confidence : float, default=0.95
        Of each interval.
    allow_raw_training_rows : bool, default=False
        Needed for a model with a finite certificate: the numbers are statistics of its training
        rows that no certificate covers. Whoever publishes them voids it.
    ledger : Ledger or None
        Of the candidates; a ``NonPrivate`` entry is written before they are read. None uses an
        in-memory ledger.
    random_state : int, Generator or None
        Which half each shadow model sees.

    Returns
    -------
    AttackResult

    Raises
    ------
    PrivacyError
        The model has a certificate, and raw numbers about its training rows were not allowed.
    InvalidTypeError, DataError, LengthMismatchError
        The data cannot be used as they are.

    Notes
    -----
    O(n_shadow_models) fits for LiRA, one evaluation otherwise. A model with a certificate can be
    attacked without any cost through canaries: :func:`audit_estimator`. Adversary: knows the
    candidates and their labels, sees the model's confidences.

    References
    ----------
    Yeom et al. 2018, arXiv 1709.01604. Carlini et al. 2022, arXiv 2112.03570.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(400, 5)), rng.integers(0, 2, 400)
    >>> member = np.arange(400) < 200
    >>> model = DecisionTreeClassifier(random_state=0).fit(X[member], y[member])
    >>> membership_inference(model, X, y, member).estimate("attack_auc").value > 0.7
    True
    """
    check.one_of(METHODS, method=method)
    n = check_aligned(X=X, y=y)
    inside = checked_membership(member, n, "member")
    certified = getattr(estimator, "privacy_", None)
    finite = certified is not None and math.isfinite(certified.epsilon)
    if certified is not None and finite and not allow_raw_training_rows:
        raise PrivacyError(
            f"{type(estimator).__name__} is certified at epsilon = {certified.epsilon:.4g}, and "
            "the success of an attack on its training rows is a statistic of them that the "
            "certificate does not cover. Attack canaries instead (audit_estimator costs nothing), "
            "or pass allow_raw_training_rows=True and keep the numbers to yourself."
        )
    _enter(ledger)
    scores, text = _scores(estimator, X, y, inside, method, shadow, n_shadow_models, random_state)
    result = evaluate_attack(
        scores, inside, sensitive_features=sensitive_features, fpr=fpr, confidence=confidence,
        method=text, target=type(estimator).__name__,
    )  # fmt: skip
    note = "These numbers are statistics of the training rows as they are: not private."
    if finite:
        note += " Publishing them voids the model's certificate."
    upper = None if certified is None else certified.epsilon
    return replace(
        result,
        upper_epsilon=upper,
        delta=None if certified is None else certified.delta,
        caveats=(*result.caveats, note),
        details={"method": method, "voids_certificate": finite,
                 "n_shadow_models": n_shadow_models if method != "loss_threshold" else 0},
    )  # fmt: skip


def _enter(ledger: Any) -> None:
    from privfair.accounting import default_ledger
    from privfair.accounting.events import NonPrivate

    book = default_ledger("candidates of a membership attack") if ledger is None else ledger
    with book.spend(NonPrivate(), purpose="membership inference"):
        pass


def _scores(
    estimator: Any,
    X: Any,
    y: Any,
    member: NDArray[np.bool_],
    method: str,
    shadow: Any,
    n_shadow_models: int,
    random_state: Any,
) -> tuple[Floats, str]:
    if method == "loss_threshold":
        return loss_scores(estimator, X, y), "Threshold on the loss of each record"
    from privfair.auditing._lira import lira_scores

    mode = method.removeprefix("lira_")
    scores = lira_scores(
        estimator, X, y, shadow=shadow, n_shadow_models=n_shadow_models, mode=mode,
        random_state=random_state,
    )  # fmt: skip
    return scores, (
        f"Likelihood ratio attack, {mode}: log-odds of the true label against those of "
        f"{n_shadow_models} shadow models, each trained on half of the candidates"
    )
