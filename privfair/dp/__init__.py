"""Estimators trained under differential privacy.

Heavy imports (torch) happen on first use of a name.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_classifier": ["DPClassifier"],
        "_preprocessing": ["PrivateTableEncoder"],
        "_regressor": ["DPRegressor"],
        "_search": ["DPGridSearchCV"],
        "forecasting": ["DPForecaster", "GaussianInputPerturber", "WindowTransformer", "Windows"],
    },
)
