"""The only place where noise for released numbers is drawn.

Everything here is a :class:`privfair.core.Mechanism`: ``cost()`` prices a release before data
are touched, ``release(value, ledger=...)`` charges and then draws.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_aggregates": ["DPCount", "DPHistogram", "DPSum"],
        "_codes": ["column_codes", "domain_size"],
        "_covariance": ["DPCovariance"],
        "_discovery": ["DPSetDiscovery", "discovery_threshold"],
        "_discrete": ["DiscreteGaussianMechanism", "DiscreteLaplaceMechanism"],
        "_hardened": [
            "HardenedGaussian",
            "hardened_distance",
            "hardened_extra_delta",
            "summation_error",
        ],
        "_moments": ["DPMean", "DPVariance"],
        "_quantile": ["DPQuantile"],
        "_select": ["ExponentialMechanism", "PermuteAndFlip"],
        "_sampling": ["discrete_gaussian", "discrete_laplace"],
    },
)
