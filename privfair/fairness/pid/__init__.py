"""Where a disparity comes from: unique, redundant and masked parts over the clients."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_estimator": ["PIDDisparity"],
        "_influence": ["influence"],
        "_joint": ["PIDResult", "pid_from_joint"],
        "_metrics": [
            "global_disparity",
            "local_disparity",
            "masked_disparity",
            "redundant_disparity",
            "unique_disparity",
        ],
        "_penalty": ["PIDPenalty"],
        "_torch": ["PIDTensors", "pid_torch"],
    },
)
