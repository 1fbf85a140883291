"""AGLFOP: the best accuracy under bounds on global and local disparity, with prices and proof."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_oracle": ["aglfop"],
        "_result": ["AGLFOPResult"],
    },
)
