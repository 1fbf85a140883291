"""Checks that tell the author of an extension whether it keeps privfair's contracts.

Each ``check_*`` raises :class:`AssertionError` with a sentence on what is wrong, and returns
nothing when all is well, in the manner of scikit-learn's ``check_estimator``.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_dp": ["assert_dp_lower_bound", "dp_lower_bound"],
        "_estimator": ["check_private_estimator"],
        "_mechanism": ["RecordingLedger", "RefusingLedger", "check_mechanism"],
        "_metric": ["check_metric"],
        "_penalty": ["check_penalty"],
    },
)
