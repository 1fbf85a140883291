"""Check that a private estimator charges first, keeps its word and marks what is weaker."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from privfair.accounting import Ledger
from privfair.core.exceptions import BudgetExceededError
from privfair.core.privacy import Budget, PrivacyGuarantee

__all__ = ["check_private_estimator"]


def _output(estimator: Any, X: Any) -> Any:
    for method in ("predict_proba", "predict", "transform"):
        if hasattr(estimator, method):
            return np.asarray(getattr(estimator, method)(X))
    raise AssertionError(f"{type(estimator).__name__} has neither predict nor transform.")


def _frozen(*arrays: Any) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for a in arrays if isinstance(a, np.ndarray)]


def check_private_estimator(estimator: Any, X: Any, y: Any = None, **fit_params: Any) -> None:
    """Check an estimator against the contract of ``PrivateEstimatorMixin``.

    Parameters
    ----------
    estimator : estimator
        Unfitted, with a finite ``epsilon``; it is cloned and never fitted itself.
    X, y : array-like
        Valid training data, arrays of numbers.
    **fit_params
        Passed to ``fit``.

    Raises
    ------
    AssertionError
        With a sentence on what is wrong.

    Notes
    -----
    ``docs/interface.md`` uses it on a whole third-party package.
    """
    from sklearn.base import clone

    name = type(estimator).__name__
    epsilon = estimator.get_params()["epsilon"]
    assert math.isfinite(epsilon), f"check {name} with a finite epsilon."
    before = _frozen(X, y)

    ledger = Ledger(cap=Budget(epsilon, 1e-3), dataset_id="check")
    first = clone(estimator).set_params(ledger=ledger, random_state=0).fit(X, y, **fit_params)
    assert _frozen(X, y) == before, f"{name}.fit changes its input."
    privacy = first.privacy_
    assert isinstance(privacy, PrivacyGuarantee), f"{name}.privacy_ is no PrivacyGuarantee."
    assert privacy.epsilon <= epsilon * (1 + 1e-9), (
        f"{name} was asked for epsilon = {epsilon} and certifies {privacy.epsilon}."
    )
    assert privacy.certified, f"{name} gives no certificate at a finite epsilon."
    assert ledger.spent().epsilon > 0, f"{name}.fit charged nothing to its ledger."
    try:
        clone(estimator).set_params(ledger=ledger, random_state=0).fit(X, y, **fit_params)
    except BudgetExceededError:
        pass
    else:
        raise AssertionError(f"{name}.fit goes on although its ledger is used up.")

    def fitted(**params: Any) -> Any:
        return clone(estimator).set_params(ledger=Ledger(), **params).fit(X, y, **fit_params)

    assert not np.array_equal(_output(first, X), _output(fitted(random_state=0), X)), (
        f"{name}: random_state alone repeats the noise."
    )
    seeded = fitted(random_state=0, noise_random_state=1)
    assert seeded.privacy_.seeded and not seeded.privacy_.certified, (
        f"{name} does not mark a seeded fit."
    )
    assert np.array_equal(
        _output(seeded, X), _output(fitted(random_state=0, noise_random_state=1), X)
    ), f"{name}: noise_random_state does not repeat the fit."
    twin = clone(estimator).set_params(
        ledger=Ledger(cap=Budget(epsilon, 1e-3)), epsilon=math.inf, random_state=0
    )
    twin.fit(X, y, **fit_params)
    assert twin.privacy_.unsafe and math.isinf(twin.privacy_.epsilon), (
        f"{name} at epsilon = inf must say that it is not private."
    )
