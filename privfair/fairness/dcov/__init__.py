"""Distance covariance between predictions and protected attributes: measures and penalties."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_calibrate": ["LambdaCalibration", "calibrate_lambda"],
        "_cells": ["cells_dcov_sq"],
        "_classifier": ["FairDCovClassifier"],
        "_encoder": ["AttributeEncoder"],
        "_functions": ["ccdcov_sq", "dcor_sq", "dcov_sq"],
        "_independence": ["DCovTestResult", "independence_test"],
        "_joint_functions": ["jdcov_sq", "jdcov_targeted_sq"],
        "_sliced": ["SlicedDCov", "sliced_dcov_sq"],
        "_jsd": ["JSDResult", "jsd_groups"],
        "_metrics": [
            "distance_correlation",
            "distance_covariance",
            "targeted_joint_distance_covariance",
        ],
        "_kernels": ["cell_kernel", "pool_small_cells"],
        "_penalty": ["DistanceCovariancePenalty"],
        "_private_classifier": ["DPFairDCovClassifier"],
        "_private_regressor": ["DPFairDCovRegressor"],
        "_regressor": ["FairDCovRegressor"],
        "_surrogate": ["BoundedDistanceCovariance"],
    },
)
