"""The common interface: what every room of privfair shares and none computes privacy in.

Importing this package loads nothing but the standard library; each public name pulls in its
own module on first use.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "attack": ["AttackResult"],
        "device": ["resolve_device"],
        "estimate": ["Estimate", "NullReference"],
        "estimators": ["FrequencyEstimator", "PrivateEstimatorMixin", "Synthesizer"],
        "events": ["Event", "LedgerLike", "SpendTransaction"],
        "frames": ["Table", "as_table", "as_vector", "is_dataframe", "row_count"],
        "log": ["HashChainLog", "LogRow"],
        "mechanism": ["Mechanism"],
        "metric": ["Metric"],
        "penalty": ["BoundedPenalty", "Penalty", "check_dp_compatible"],
        "privacy": ["Budget", "PrivacyGuarantee", "PrivacyProfile"],
        "randomness": ["SecretStream", "check_random_state", "secret_stream"],
        "registry": ["available", "load", "register"],
        "schema": ["Categorical", "Numeric", "Schema"],
    },
)
