"""Fairness: group metrics with intervals, and what a gap looks like by chance alone."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_contingency": ["ContingencyRelease", "NoiseLaw"],
        "_release": ["join_clients", "release_contingency"],
        "_pairwise": ["pairwise_differences"],
        "aglfop": [
            "AGLFOPPostProcessor",
            "AGLFOPResult",
            "FairRule",
            "FairnessBound",
            "fair_rule",
        ],
        "dcov": [
            "AttributeEncoder",
            "BoundedDistanceCovariance",
            "DPFairDCovClassifier",
            "DPFairDCovRegressor",
            "cell_kernel",
            "cells_dcov_sq",
            "pool_small_cells",
        ],
        "intervals": ["GapInterval", "gap_interval", "ratio_gap_interval"],
        "metrics": ["GroupTable", "bin_sensitive", "estimate_all"],
        "pid": [
            "PIDDisparity",
            "PIDPenalty",
            "PIDResult",
            "PIDTensors",
            "global_disparity",
            "local_disparity",
            "masked_disparity",
            "pid_from_joint",
            "pid_torch",
            "redundant_disparity",
            "unique_disparity",
        ],
        "sep": [
            "CompositeSES",
            "EffortCurve",
            "EffortRule",
            "SEPClassifier",
            "SEPMoment",
            "SESRule",
            "csep_disparity",
            "csep_violation",
            "effort_curve",
            "effort_preset",
            "sep_disparity",
            "sep_gaps",
            "sep_violation",
            "ses_preset",
        ],
    },
)
