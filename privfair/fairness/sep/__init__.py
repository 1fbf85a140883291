"""Socio-economic parity: who is underprivileged, how they fare, and training that minds it."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_curves": ["EffortCurve", "effort_curve"],
        "_classifier": ["SEPClassifier"],
        "_effort": ["EffortRule"],
        "_gaps": ["sep_gaps"],
        "_metrics": ["csep_disparity", "csep_violation", "sep_disparity", "sep_violation"],
        "_moment": ["SEPMoment"],
        "_penalty": ["SEPPenalty"],
        "_private_classifier": ["DPSEPClassifier"],
        "_presets": ["effort_preset", "ses_preset"],
        "_composite": ["CompositeSES"],
        "_rules": ["SESRule"],
    },
)
