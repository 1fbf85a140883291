"""The only place where noise for released numbers is drawn."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_hardened": [
            "HardenedGaussian",
            "hardened_distance",
            "hardened_extra_delta",
            "summation_error",
        ],
        "_sampling": ["discrete_gaussian", "discrete_laplace"],
    },
)
