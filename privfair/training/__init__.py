"""The torch engine that private estimators share: plan, sampling, clipping, noise, loop.

Heavy imports (torch) happen on first use of a name.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_base": ["BasePrivateEstimator", "Problem"],
        "_checkpoint": ["Checkpoints"],
        "_classify": ["ClassifierParts"],
        "_clip_rules": [
            "AdaptiveClipping",
            "AutomaticClipping",
            "FlatClipping",
            "GroupClipping",
            "PerLayerClipping",
            "make_clipping",
        ],
        "_distributed": ["DataParallel"],
        "_engine": ["DPEngine"],
        "_factorization": ["BandedNoise"],
        "_models": ["ACTIVATIONS"],
        "_losses": [
            "LogisticLoss",
            "RangedSquaredLoss",
            "RecordLoss",
            "SoftmaxLoss",
            "SquaredLoss",
        ],
        "_optim": ["make_optimizer"],
        "_plan": ["StatisticPlan", "TrainingPlan"],
        "_progress": ["Progress"],
        "_regress": ["RegressorParts"],
        "_sampling": ["CyclicPoissonSampler", "PoissonSampler"],
        "_schedules": ["CosineSchedule", "LinearSchedule", "StepSchedule"],
        "_statistic": ["BatchStatistic", "BatchView"],
    },
)
