"""A third-party package that extends privfair, as small as it can be while being real."""

__all__ = ["BoundedScoreGap", "NoisyMajorityClassifier", "StickyCoin", "decision_spread"]

from privfair_demo.estimator import NoisyMajorityClassifier
from privfair_demo.mechanism import StickyCoin
from privfair_demo.metric import decision_spread
from privfair_demo.penalty import BoundedScoreGap
