"""What can be said about batches that were shuffled rather than Poisson sampled."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from privfair.core import _validation as check

__all__ = ["shuffled_epsilon_lower_bound"]


def shuffled_epsilon_lower_bound(*, noise_multiplier: float, batches: int, delta: float) -> float:
    """Return an epsilon below which one shuffled epoch certainly does not get.

    Parameters
    ----------
    noise_multiplier : float
        Above 0.
    batches : int
        Batches in the epoch, at least 1.
    delta : float
        In (0, 1).

    Returns
    -------
    float
        A lower bound on the true epsilon (zero_out); more epochs can only raise it.

    Notes
    -----
    All other records have gradient -1 and the target +1 or nothing. After a shift the batch sums
    are ``N(2 e_t, s^2 I)`` or ``N(e_t, s^2 I)`` with t uniform, and the event "the largest sum is
    above c" gives, for every c,
    ``delta(eps) >= 1 - Phi((c-2)/s) Phi(c/s)^(T-1) - e^eps (1 - Phi((c-1)/s) Phi(c/s)^(T-1))``.

    References
    ----------
    Chua et al. 2024, arXiv:2403.17673.

    Examples
    --------
    >>> round(shuffled_epsilon_lower_bound(noise_multiplier=1.0, batches=32, delta=1e-5), 2)
    4.27
    """
    s = check.positive(noise_multiplier=noise_multiplier)
    count = check.positive_int(batches=batches)
    delta = check.delta(delta=delta)
    c = np.linspace(-4 * s, 2 + 12 * s + s * math.sqrt(2 * math.log(count + 1)), 20001)
    rest = (count - 1) * log_ndtr(c / s)
    here = -np.expm1(log_ndtr((c - 2) / s) + rest)
    gone = -np.expm1(log_ndtr((c - 1) / s) + rest)

    def best(epsilon: float) -> float:
        return float(np.max(here - math.exp(epsilon) * gone))

    if best(0.0) <= delta:
        return 0.0
    high = 1.0
    while best(high) > delta:
        high *= 2.0
        if high > 500:
            return high / 2
    root = float(brentq(lambda e: best(e) - delta, 0.0, high, xtol=1e-9))
    return max(0.0, root * (1 - 1e-9))
