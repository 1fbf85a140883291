"""Intervals, resampling and tests that every room shares; scipy only, vectorised.

Undefined inputs (no observations, 0/0) give NaN with a reason, never 0 and never 1.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_bootstrap": [
            "bootstrap_interval",
            "multinomial_resamples",
            "multiplicity_weights",
        ],
        "_crossed": ["crossed_change_interval", "crossed_rate_interval", "mean_interval"],
        "_interval": ["Interval", "normal_critical"],
        "_multiple": ["benjamini_hochberg", "holm"],
        "_permutation": ["margin_permutations", "null_reference", "permutation_p_value"],
        "_proportions": [
            "clopper_pearson_interval",
            "mover_difference",
            "newcombe_interval",
            "wilson_interval",
        ],
        "_ratios": ["ratio_interval"],
        "_shrinkage": ["Shrinkage", "beta_binomial_shrinkage"],
        "_simultaneous": ["max_t_intervals", "sidak_confidence", "tukey_critical"],
    },
)
