"""Group metrics with intervals: rates, disparities and score metrics as constants.

Every metric is called as ``metric(y_true, y_pred, sensitive_features=...)`` for its value and
as ``metric.estimate(...)`` for its value with interval, null reference and per-group table.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_calibration": ["calibration_gap", "expected_calibration_error"],
        "_disparities": [
            "accuracy_difference",
            "demographic_parity_difference",
            "demographic_parity_ratio",
            "equal_opportunity_difference",
            "equal_opportunity_ratio",
            "equalized_odds_difference",
            "equalized_odds_difference_mean",
            "equalized_odds_ratio",
            "predictive_parity_difference",
            "treatment_equality_difference",
        ],
        "_estimate": ["estimate_all"],
        "_inputs": ["bin_sensitive"],
        "_rates": [
            "accuracy",
            "balanced_accuracy",
            "base_rate",
            "false_negative_rate",
            "false_positive_rate",
            "negative_predictive_value",
            "positive_predictive_value",
            "selection_rate",
            "true_negative_rate",
            "true_positive_rate",
        ],
        "_scores": ["auc", "brier_score", "log_loss"],
        "_table": ["GroupTable"],
    },
)
