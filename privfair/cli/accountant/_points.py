"""The two curves of a guarantee, as lists of points that can be printed or drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from privfair.core.privacy import PrivacyProfile

__all__ = ["Curves", "curves"]

_LEAST_FPR = 1e-4


@dataclass(frozen=True)
class Curves:
    """Points ``(delta, epsilon)`` with both falling and rising, and points ``(fpr, tpr)``."""

    privacy: tuple[tuple[float, float], ...]
    tradeoff: tuple[tuple[float, float], ...]
    advantage: float


def curves(profile: PrivacyProfile, deltas: tuple[float, ...], *, points: int = 160) -> Curves:
    """Return both curves of a profile, over the range of the deltas asked for.

    Parameters
    ----------
    profile : PrivacyProfile
    deltas : tuple of float
        The smallest of them ends the curve.
    points : int, default=160
        About how many points each curve has.
    """
    least = min(deltas)
    top = profile.epsilon(least)
    privacy: list[tuple[float, float]] = []
    if math.isfinite(top) and top > 0:
        for epsilon in np.linspace(0.0, top, points):
            at = profile.delta(float(epsilon))
            if at > 0:
                privacy.append((max(at, least), float(epsilon)))
    rates = np.geomspace(_LEAST_FPR, 1.0, points)
    tradeoff = [(float(a), 1.0 - profile.beta(float(a))) for a in rates]
    return Curves(tuple(privacy), tuple(tradeoff), profile.delta(0.0))
