"""Where a disparity comes from: unique, redundant and masked parts over the clients."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_influence": ["influence"],
        "_joint": ["PIDResult", "pid_from_joint"],
        "_penalty": ["PIDPenalty"],
        "_torch": ["PIDTensors", "pid_torch"],
    },
)
