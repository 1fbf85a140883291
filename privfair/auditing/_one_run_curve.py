"""One training run against a whole trade-off curve, not only one point (epsilon, delta) of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from privfair.auditing._one_run import checked_counts
from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

if TYPE_CHECKING:
    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["certified_mu", "claimed_points", "one_run_curve_p_value", "one_run_gdp_lower_bound"]

Least = Callable[[float], float]
"""Maps the mass of right guesses to the least mass of wrong ones: f(1 - a) of the claim f."""

_SMALLEST = -700.0  # the logarithm of a p-value below which nothing is told apart
_LARGEST_MU = 50.0
_GRID = 48


def one_run_curve_p_value(m: int, r: int, v: int, curve: Sequence[tuple[float, float]]) -> float:
    r"""Return how likely a result this good is if the training keeps a whole privacy curve.

    The claim is f-DP with the symmetric trade-off function of all points together,
    :math:`f(a) = \max_k \max(0, 1 - \delta_k - e^{\epsilon_k} a, e^{-\epsilon_k} (1 - \delta_k -
    a))`. It says more than any one of its points, so that more can be refuted: at 2,000 canaries
    and 200 guesses, half of the noise that was claimed is found nearly always.

    Parameters
    ----------
    m : int
        Number of canaries, abstentions included, at least 1.
    r : int
        Number of guesses, in [1, m].
    v : int
        Number of correct guesses, in [0, r].
    curve : sequence of (float, float)
        Points (epsilon, delta) that the certificate claims all at once, such as
        ``guarantee.curve([...])`` turned round; one point gives a test of that point.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InvalidParameterError
        A count out of its range, or no point.

    Notes
    -----
    O(v * points) for each of about 50 bisections. Proof: ``docs/proofs/one-run-curve.md``.

    References
    ----------
    Mahloujifar, Melis, Chaudhuri 2024, "Auditing f-differential privacy in one run", arXiv
    2410.22235.

    Examples
    --------
    >>> p = one_run_curve_p_value(1000, 100, 95, [(1.0, 1e-5)])
    >>> f"{p:.2g}"
    '0.00012'
    """
    m, r, v, _ = checked_counts(m, r, v, 0.0)
    return _p_value(_from_points(_checked_points(curve)), m, r, v)


def one_run_gdp_lower_bound(m: int, r: int, v: int, beta: float = 0.05) -> float:
    """Return the mu for which one audited run refutes mu-Gaussian differential privacy.

    Parameters
    ----------
    m, r, v : int
        Canaries, guesses, correct guesses: see :func:`one_run_epsilon_lower_bound`.
    beta : float, default=0.05
        In (0, 1): probability with which the bound may be wrong.

    Returns
    -------
    float
        Every training that is mu-GDP for a mu below this number gives so many correct guesses
        with probability less than ``beta``.

    Notes
    -----
    This refutes claims about Gaussian trade-off curves and no others. Turned into an epsilon it
    is **not** a lower bound on epsilon: a mechanism that is no Gaussian one can be
    (epsilon, delta)-DP and fail it. O(v) per bisection.

    References
    ----------
    Mahloujifar, Melis, Chaudhuri 2024, arXiv 2410.22235. Dong, Roth, Su 2019, "Gaussian
    differential privacy", arXiv 1905.02383.

    Examples
    --------
    >>> round(one_run_gdp_lower_bound(2000, 200, 183), 2)
    0.7
    """
    m, r, v, _ = checked_counts(m, r, v, 0.0)
    level = check.confidence(beta=beta)
    if _possible(_gaussian(0.0), m, r, v, level):
        return 0.0
    low, high = 0.0, 1.0
    while not _possible(_gaussian(high), m, r, v, level):
        low, high = high, 2 * high
        if high > _LARGEST_MU:
            return low
    while high - low > 1e-7:
        middle = (low + high) / 2
        if _possible(_gaussian(middle), m, r, v, level):
            high = middle
        else:
            low = middle
    return low


def claimed_points(certified: PrivacyGuarantee) -> list[tuple[float, float]]:
    """Return points (epsilon, delta) that a certificate claims together: its curve on a grid."""
    points = [(float(certified.epsilon), float(certified.delta))]
    profile = certified.profile
    if profile is None or certified.unsafe:
        return points
    top = min(max(2.0 * certified.epsilon, 1.0), 100.0)
    # Denser near zero, where the curve bends most.
    for epsilon in top * np.linspace(0.0, 1.0, _GRID) ** 1.5:
        delta = float(profile.delta(float(epsilon)))
        if delta < 1.0:
            points.append((float(epsilon), max(delta, 0.0)))
    return points


def certified_mu(certified: PrivacyGuarantee) -> float | None:
    """Return mu of a certificate whose trade-off curve is a Gaussian one, else None."""
    plan = getattr(certified.profile, "plan", None)
    if certified.unsafe or plan is None or not plan.only_gaussian:
        return None
    return math.sqrt(plan.mu2)


def _p_value(least: Least, m: int, r: int, v: int) -> float:
    if v == 0 or _possible(least, m, r, v, 1.0):
        return 1.0
    low, high = _SMALLEST, 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _possible(least, m, r, v, math.exp(middle)):
            low = middle
        else:
            high = middle
    return math.exp(high)


def _possible(least: Least, m: int, r: int, v: int, tail: float) -> bool:
    """Whether P[V >= v] = tail can be, under the claim: whether all masses fit into one.

    Going down from v, the mass of wrong guesses among outcomes of at least i - 1 right ones must
    be at least f(1 - the mass of right guesses among outcomes of at least i). Putting all of the
    tail at v, and only what must be below, needs the least mass in all.
    """
    right, wrong = tail * v / m, tail * (r - v) / m
    full = (r / m) * (1.0 + 1e-12)
    for i in range(v - 1, -1, -1):
        needed = least(right)
        if needed > wrong:
            right += i / (r - i) * (needed - wrong)
            wrong = needed
        if right + wrong > full:
            return False
    return True


def _gaussian(mu: float) -> Least:
    def least(a: float) -> float:
        return float(special.ndtr(special.ndtri(min(a, 1.0)) - mu)) if a > 0.0 else 0.0

    return least


def _from_points(points: list[tuple[float, float]]) -> Least:
    table = np.array(points)
    grow = np.exp(np.minimum(table[:, 0], 700.0))
    slopes = np.concatenate([grow, 1.0 / grow])
    # f(1 - a) as a maximum of lines in a: e^eps a + 1 - delta - e^eps, and e^-eps (a - delta).
    offsets = np.concatenate([1.0 - table[:, 1] - grow, -table[:, 1] / grow])
    slopes, offsets = _upper_lines(slopes, offsets)

    def least(a: float) -> float:
        return max(0.0, float((slopes * a + offsets).max()))

    return least


def _upper_lines(
    slopes: NDArray[np.float64], offsets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Drop lines that are nowhere positive on [0, 1]; they bound nothing."""
    keep = slopes + offsets > 0.0
    if not keep.any():
        return np.zeros(1), np.zeros(1)
    return slopes[keep], offsets[keep]


def _checked_points(curve: Any) -> list[tuple[float, float]]:
    try:
        pairs = [(e, d) for e, d in curve]
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(
            "curve must be a sequence of pairs (epsilon, delta); for one point pass "
            "[(epsilon, delta)]."
        ) from error
    if not pairs:
        raise InvalidParameterError("curve must hold at least one point (epsilon, delta).")
    return [
        (
            check.epsilon(epsilon=e, allow_zero=True, allow_inf=True),
            check.delta(delta=d, allow_zero=True),
        )
        for e, d in pairs
    ]
