"""privfair: differential privacy and fairness under one scikit-learn-style interface.

Public names are loaded on first use (PEP 562), so that ``import privfair`` stays cheap and
loads neither torch nor cvxpy nor matplotlib.
"""

from privfair.core._lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "accounting": ["Ledger", "calibrate_noise_multiplier", "guarantee", "pipeline_guarantee"],
        "core": ["Budget", "Categorical", "Estimate", "Numeric", "PrivacyGuarantee", "Schema"],
        "dp": ["DPClassifier", "DPRegressor", "PrivateTableEncoder"],
        "report": ["audit"],
    },
    extra=["__version__"],
)
