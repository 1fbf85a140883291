"""A black-box lower bound on epsilon, from draws on two neighbouring inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from privfair.core.exceptions import InvalidParameterError

__all__ = ["assert_dp_lower_bound", "dp_lower_bound"]


def _upper(count: int, n: int, level: float) -> float:
    return 1.0 if count >= n else float(stats.beta.ppf(1 - level, count + 1, n - count))


def _lower(count: int, n: int, level: float) -> float:
    return 0.0 if count <= 0 else float(stats.beta.ppf(level, count, n - count + 1))


def _directed_bound(
    p: np.ndarray, q: np.ndarray, epsilon: float, delta: float, level: float
) -> float:
    """Choose a threshold event on the first halves, bound it on the second halves."""
    half_p, half_q = len(p) // 2, len(q) // 2
    cuts = np.unique(np.concatenate([p[:half_p], q[:half_q]]))
    if len(cuts) > 2000:
        cuts = np.unique(np.quantile(cuts, np.linspace(0, 1, 2000), method="nearest"))
    first_p, first_q = np.sort(p[:half_p]), np.sort(q[:half_q])
    tail_p = 1 - np.searchsorted(first_p, cuts, side="left") / half_p
    tail_q = 1 - np.searchsorted(first_q, cuts, side="left") / half_q
    # The event whose advantage over the certificate, in standard errors, is largest.
    gap = tail_p - math.exp(epsilon) * tail_q - delta
    noise = np.sqrt(
        tail_p * (1 - tail_p) / half_p
        + math.exp(2 * epsilon) * tail_q * (1 - tail_q) / half_q
        + 1 / half_p**2
    )
    cut = cuts[int(np.argmax(gap / noise))]
    rest_p, rest_q = p[half_p:], q[half_q:]
    low = _lower(int(np.sum(rest_p >= cut)), len(rest_p), level)
    high = _upper(int(np.sum(rest_q >= cut)), len(rest_q), level)
    if low <= delta:
        return 0.0
    return max(0.0, math.log((low - delta) / high))


def dp_lower_bound(
    first: Any,
    second: Any,
    *,
    epsilon: float,
    delta: float = 0.0,
    confidence: float = 1 - 1e-6,
) -> float:
    """Return a lower bound on epsilon from independent draws on two neighbouring inputs.

    Parameters
    ----------
    first, second : array-like of float, shape (n,)
        One real statistic of each independent run on either input.
    epsilon, delta : float
        The guarantee claimed; it only steers which event is looked at.
    confidence : float, default=1 - 1e-6
        Probability with which the bound is valid.

    Returns
    -------
    float
        If it is above ``epsilon``, the claim is false, at this confidence.

    Notes
    -----
    Threshold events, in both directions and both orders, are chosen on the first half of the
    draws; Clopper-Pearson bounds on the second half, at a level divided by eight (two bounds
    for each of four events). O(n log n).

    References
    ----------
    Clopper and Pearson, 1934. Jagielski, Ullman and Oprea, 2020, arXiv 2006.07709.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.laplace(0, 1, 40_000), rng.laplace(1, 1, 40_000)
    >>> 0.5 < dp_lower_bound(a, b, epsilon=1.0) <= 1.0
    True
    """
    a = np.asarray(first, dtype=float).ravel()
    b = np.asarray(second, dtype=float).ravel()
    if len(a) < 100 or len(b) < 100:
        raise InvalidParameterError(
            f"dp_lower_bound needs at least 100 draws of each, got {len(a)} and {len(b)}."
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise InvalidParameterError("the draws must not hold NaN.")
    level = (1 - confidence) / 8
    pairs = [(a, b), (b, a), (-a, -b), (-b, -a)]
    return max(_directed_bound(p, q, epsilon, delta, level) for p, q in pairs)


def assert_dp_lower_bound(
    draw: Callable[[Any], float],
    first: Any,
    second: Any,
    *,
    epsilon: float,
    delta: float = 0.0,
    n: int = 20_000,
    confidence: float = 1 - 1e-6,
) -> float:
    """Assert that a mechanism's claim survives ``n`` independent runs on either input.

    Passing means that no violation was found, never that the claim is verified.

    Parameters
    ----------
    draw : callable
        Runs the mechanism on an input and returns one real number.
    first, second : object
        Two neighbouring inputs.
    epsilon, delta : float
        The claim.
    n : int, default=20000
        Runs on each input.
    confidence : float
        One minus the false-alarm rate.

    Returns
    -------
    float
        The lower bound found.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def add_noise(value):
    ...     return value + rng.laplace()
    >>> bool(assert_dp_lower_bound(add_noise, 0.0, 1.0, epsilon=1.0, n=1000) <= 1.0)
    True
    """
    a = np.array([float(draw(first)) for _ in range(n)])
    b = np.array([float(draw(second)) for _ in range(n)])
    bound = dp_lower_bound(a, b, epsilon=epsilon, delta=delta, confidence=confidence)
    assert bound <= epsilon, (
        f"the mechanism claims epsilon = {epsilon:g} at delta = {delta:g}, and an event shows at "
        f"least {bound:.4g} (confidence {confidence})."
    )
    return bound
