"""An estimator: the class with the largest noisy count, and that class's noisy share."""

import math

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from privfair.accounting import default_ledger, guarantee
from privfair.core import PrivacyGuarantee, PrivateEstimatorMixin
from privfair.core import _validation as check
from privfair.mechanisms import DPHistogram


class NoisyMajorityClassifier(PrivateEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Predict the most frequent of two public classes, 0 and 1, found under pure epsilon-DP."""

    def __init__(self, *, epsilon=1.0, random_state=None, noise_random_state=None, ledger=None):
        self.epsilon = epsilon
        self.random_state = random_state
        self.noise_random_state = noise_random_state
        self.ledger = ledger

    def fit(self, X, y, *, sensitive_features=None, sample_weight=None):
        check.epsilon(epsilon=self.epsilon, allow_inf=True)
        X, y = validate_data(self, X, y)
        self.classes_ = np.array([0, 1])
        if math.isinf(self.epsilon):
            counts = np.bincount(y, minlength=2)
            self.privacy_ = PrivacyGuarantee.none("non_private")
        else:
            histogram = DPHistogram(
                {"y": [0, 1]}, epsilon=self.epsilon, noise_random_state=self.noise_random_state
            )
            ledger = default_ledger() if self.ledger is None else self.ledger
            counts = histogram.release({"y": y}, ledger=ledger, purpose="class counts")
            self.privacy_ = guarantee(
                histogram.cost(),
                delta=0.0,
                numerics=histogram.numerics,
                seeded=histogram.seeded,
                assumptions=["The classes 0 and 1 are public."],
            )
        share = max(counts[1], 0.5) / (max(counts[0], 0.5) + max(counts[1], 0.5))
        self.share_ = float(share)
        return self

    def predict_proba(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return np.tile([1 - self.share_, self.share_], (len(X), 1))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
