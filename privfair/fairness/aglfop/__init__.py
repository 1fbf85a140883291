"""AGLFOP: the best accuracy under bounds on global and local disparity, with prices and proof."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_bounds": ["FairnessBound"],
        "_estimator": ["AGLFOP"],
        "_frontier": ["AGLFOPSurface"],
        "_oracle": ["aglfop"],
        "_postprocessor": ["AGLFOPPostProcessor"],
        "_result": ["AGLFOPResult"],
        "_rule": ["FairRule", "fair_rule"],
    },
)
