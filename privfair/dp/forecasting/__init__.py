"""Forecasts of aggregated counts under differential privacy.

Heavy imports (torch) happen on first use of a name.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_forecaster": ["DPForecaster"],
        "_perturb": ["GaussianInputPerturber"],
        "_windows": ["Windows", "WindowTransformer"],
    },
)
