"""What estimators share beside scikit-learn's own mixins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from privfair.core.privacy import PrivacyGuarantee

__all__ = ["FrequencyEstimator", "PrivateEstimatorMixin", "Synthesizer"]


class PrivateEstimatorMixin:
    """Mixin of estimators whose fit is private.

    After ``fit``, ``privacy_`` is a :class:`PrivacyGuarantee`. An estimator that was fitted
    without privacy has ``epsilon = inf`` and a reason in ``privacy_.unsafe``, never a missing
    value.

    Attributes
    ----------
    privacy_ : PrivacyGuarantee
    """

    privacy_: PrivacyGuarantee

    def privacy_statement(self) -> str:
        """Return the guarantee of the last fit in plain words."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "privacy_")
        return self.privacy_.explain()


class Synthesizer(PrivateEstimatorMixin, ABC):
    """Contract of synthesisers: learn a table privately, then draw rows at no further cost."""

    @abstractmethod
    def fit(self, X: Any, y: None = None) -> Synthesizer:
        """Learn from a table, charging the ledger before it is read."""

    @abstractmethod
    def sample(self, n: int | None = None, *, random_state: Any = None) -> Any:
        """Draw ``n`` rows with the columns and dtypes of the fitted table."""


class FrequencyEstimator(PrivateEstimatorMixin, ABC):
    """Contract of frequency estimators over a public domain."""

    @abstractmethod
    def fit(self, X: Any, y: None = None) -> FrequencyEstimator:
        """Collect the (randomised) reports of each row."""
