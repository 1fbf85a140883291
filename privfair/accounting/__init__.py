"""What happened to the data, what it cost, and what was spent.

Events describe mechanisms, accountants turn events into guarantees, calibration inverts
accountants, and the ledger writes charges down before anything is released.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "accountant": ["AccountedProfile", "guarantee"],
        "adaptive": ["PrivacyFilter"],
        "_odometer": ["PrivacyOdometer"],
        "_groups": ["group_event"],
        "_batches": ["BatchPlan", "plan_batch"],
        "calibration": ["calibrate_noise_multiplier", "calibrate_steps"],
        "events": [
            "AccountedEvent",
            "ApproxDP",
            "Composed",
            "DiscreteGaussian",
            "DiscreteLaplace",
            "ExponentialMechanism",
            "FixedBatchWOR",
            "Gaussian",
            "Laplace",
            "LocalDP",
            "NonPrivate",
            "Parallel",
            "PoissonSampled",
            "PureDP",
            "RandomizedResponse",
            "RepeatAndSelect",
            "SelfComposed",
            "ShuffledEpochs",
            "TruncatedPoisson",
            "UserPoisson",
            "ZCDP",
            "event_from_dict",
        ],
        "_convert": ["from_dp_accounting", "to_dp_accounting"],
        "ledger": ["Ledger"],
        "_caps": ["LedgerCap"],
        "_charges": ["LedgerEntry", "LedgerTransaction"],
        "_declared": ["LedgerPlan"],
        "_default": ["default_ledger"],
        "_amplification": ["ShuffleAmplification", "shuffle_amplification", "shuffle_delta"],
        "_longitudinal": ["longitudinal_epsilon"],
        "_shuffle": ["shuffled_epsilon_lower_bound"],
        "pipeline": ["pipeline_guarantee"],
    },
)
