"""Exact accounting of unsubsampled Gaussians (Balle, Wang 2018; Dong, Roth, Su 2019).

Adaptive composition of Gaussians with fixed scales is one Gaussian with precision
``mu^2 = sum 1/sigma_i^2``; everything here is a function of that ``mu``.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

__all__ = ["beta", "delta", "epsilon", "mu_for"]


def delta(mu: float, epsilon: float) -> float:
    """Return the exact delta of a mu-GDP Gaussian at ``epsilon``, never below it by rounding."""
    if mu == 0:
        return 0.0
    first = float(ndtr(mu / 2 - epsilon / mu))
    second = math.exp(min(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)), 0.0))
    # The difference cancels when delta is tiny beside both terms; 8 ulp of the larger term
    # covers the rounding of both.
    return min(1.0, max(0.0, first - second) + 2e-15 * first)


def _log_delta(mu: float, epsilon: float) -> float:
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    gap = second - first
    return first + math.log(-math.expm1(gap)) if gap < 0 else -math.inf


def epsilon(mu: float, delta_: float) -> float:
    """Return the exact epsilon of a mu-GDP Gaussian at ``delta_``, rounded to the safe side."""
    if mu == 0 or delta_ >= 1:
        return 0.0
    if math.isinf(mu) or delta_ <= 0:
        return math.inf
    target = math.log(delta_)
    if _log_delta(mu, 0.0) <= target:
        return 0.0
    high = 1.0
    while _log_delta(mu, high) > target:
        high *= 2.0
    root = float(brentq(lambda e: _log_delta(mu, e) - target, 0.0, high, xtol=1e-13, rtol=1e-14))
    return root * (1 + 1e-10) + 1e-12


def mu_for(epsilon_: float, delta_: float) -> float:
    """Return the largest mu whose Gaussian is (epsilon_, delta_)-DP, rounded to the safe side."""
    if delta_ <= 0 or epsilon_ < 0:
        return 0.0
    if math.isinf(epsilon_):
        return math.inf
    target = math.log(delta_)

    def gap(log_mu: float) -> float:
        return _log_delta(math.exp(log_mu), epsilon_) - target

    low, high = -1.0, 0.0
    while gap(low) > 0:
        low -= 2.0
        if low < -700:
            return 0.0
    while gap(high) < 0:
        high += 1.0
    return math.exp(float(brentq(gap, low, high, xtol=1e-13))) * (1 - 1e-10)


def beta(mu: float, alpha: float) -> float:
    """Return the trade-off function of a mu-GDP Gaussian."""
    if alpha <= 0:
        return 1.0
    if alpha >= 1:
        return 0.0
    return float(ndtr(-ndtri(alpha) - mu))
