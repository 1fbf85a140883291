"""Local differential privacy: every value is randomised before it leaves its owner's device.

Heavy imports happen on first use of a name.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_direct": ["GRR", "SS"],
        "_hashing": ["BLH", "OLH"],
        "_protocol": ["FrequencyProtocol", "exact_epsilon"],
        "_structured": ["HR", "PGR"],
        "_unary": ["OUE", "SUE"],
    },
)
