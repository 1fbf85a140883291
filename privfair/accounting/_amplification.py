"""Amplification by shuffling: what one local report costs among many shuffled ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from privfair.core import _validation as check
from privfair.core._format import json_number
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

__all__ = ["ShuffleAmplification", "shuffle_amplification", "shuffle_delta"]

_TAIL = 1e-18  # mass of the number of clones that is charged to delta as a whole
_SLACK = 4e-14  # relative error granted to binomial tails, growing with the root of the users
_CELLS = 4096  # of the law of the number of clones
_MAX_USERS = 10**9
Floats = NDArray[np.float64]
Law = tuple[Floats, Floats, float, float]
_BASES = {
    "proven": "proven for every local randomiser",
    "given": "a clone probability stated by the caller",
    "strong": "STRONG CLONES, not proven here for general randomisers",
}


@dataclass(frozen=True)
class ShuffleAmplification:
    """What a trusted shuffler gives: a central guarantee for local reports.

    Attributes
    ----------
    epsilon : float
        Central epsilon at ``delta``, rounded up; never above ``local_epsilon``.
    delta : float
    n : int
        Number of users, public and fixed; each sends one report.
    local_epsilon : float
        What one report costs without the shuffler.
    clone_probability : float
        With which another user's report is as good as one of the two under comparison.
    clone : {"proven", "given", "strong"}
        Why that probability holds.
    neighboring : str
        ``"replace_one"``.
    """

    epsilon: float
    delta: float
    n: int
    local_epsilon: float
    clone_probability: float
    clone: str = "proven"
    neighboring: str = "replace_one"

    @property
    def proven(self) -> bool:
        """Whether the bound is a certificate."""
        return self.clone != "strong"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the bound rests on beside the local randomiser."""
        return (
            "a trusted shuffler hides who sent which report, and when",
            "all n users apply the same randomiser, and each sends one report",
            f"clone probability {self.clone_probability:.6g}: {_BASES[self.clone]}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON data."""
        return {
            "epsilon": json_number(self.epsilon), "delta": self.delta, "n": self.n,
            "local_epsilon": self.local_epsilon, "clone_probability": self.clone_probability,
            "clone": self.clone, "proven": self.proven, "neighboring": self.neighboring,
            "assumptions": list(self.assumptions),
        }  # fmt: skip

    def __str__(self) -> str:
        mark = "" if self.proven else f" [{_BASES['strong']}]"
        return (
            f"epsilon = {self.epsilon:.6g} at delta = {self.delta:g} for {self.n} shuffled "
            f"reports of epsilon {self.local_epsilon:g} each{mark}"
        )


def _clone(local: float, clone: Any) -> tuple[float, str]:
    if isinstance(clone, str):
        check.one_of(("proven", "strong"), clone=clone)
        least = math.nextafter(math.exp(-local), 0.0)
        if clone == "proven":
            return least, "proven"
        return math.nextafter(2.0 / (math.exp(local) + 1.0), 0.0), "strong"
    if isinstance(clone, bool) or not isinstance(clone, int | float | np.floating):
        raise InvalidTypeError(
            f"clone must be 'proven', 'strong' or a number in (0, 1], got {type(clone).__name__}."
        )
    value = float(clone)
    if not 0.0 < value <= 1.0:
        raise InvalidParameterError(f"clone must be in (0, 1], got {value!r}.")
    return value, "given"


def _law(n: int, c: float) -> Law:
    """Return numbers of clones, their probabilities, the mass left out, and a relative error.

    Bernstein's inequality bounds the tails. Where many numbers are left, neighbours are joined
    at the smallest: fewer clones hide less, since one with fewer can toss the missing coins.
    """
    others = n - 1
    loss = math.log(2.0 / _TAIL)
    reach = loss / 3 + math.sqrt(loss * loss / 9 + 2 * loss * others * c * (1 - c))
    low, high = 0, others
    if others > 1000:
        low = max(0, math.floor(others * c - reach))
        high = min(others, math.ceil(others * c + reach))
    clones = np.arange(low, high + 1, dtype=float)
    from scipy.stats import binom  # heavy, and needed here only

    weights = binom.pmf(clones, others, c)
    width = -(-len(clones) // _CELLS)
    if width > 1:
        starts = np.arange(0, len(clones), width)
        clones, weights = clones[starts], np.add.reduceat(weights, starts)
    outside = 0.0 if (low, high) == (0, others) else _TAIL
    return clones, weights, outside, _SLACK * (1 + math.sqrt(n) / 50)


def _delta_at(local: float, epsilon: float, law: Law) -> float:
    """Return an upper bound on the hockey-stick divergence, equal to it up to rounding."""
    if epsilon >= local:
        return 0.0
    clones, weights, outside, error = law
    e, big = math.exp(epsilon), math.exp(local)
    # The likelihood ratio of a pair (a, C + 1 - a) grows with a: above which a does it pay?
    w, rest = big / (big + 1.0), 1.0 / (big + 1.0)
    share = (e * w - rest) / ((e + 1.0) * (w - rest))
    first = np.floor(share * (clones + 1.0)) + 1.0
    gain = (w - e * rest) * _at_least(first - 1.0, clones)
    loss = (e * w - rest) * _at_least(first, clones)
    found = float(weights @ np.maximum(gain - loss, 0.0))
    slack = error * float(weights @ (gain + loss))
    return min(1.0, (found + slack) / min(1.0, float(weights.sum())) + outside)


def _at_least(a: Floats, clones: Floats) -> Floats:
    """Return the chance of at least ``a`` heads in ``clones`` fair coins."""
    inside = (a > 0) & (a <= clones)
    tail = betainc(np.where(inside, a, 1.0), np.where(inside, clones - a + 1.0, 1.0), 0.5)
    return np.asarray(np.where(inside, tail, np.where(a <= 0, 1.0, 0.0)))


def _checked(local_epsilon: float, n: int) -> tuple[float, int]:
    local = check.epsilon(local_epsilon=local_epsilon)
    if local > 50:
        raise InvalidParameterError(f"local_epsilon must be in (0, 50], got {local:g}.")
    users = check.positive_int(n=n)
    if users > _MAX_USERS:
        raise InvalidParameterError(f"n must be at most {_MAX_USERS}, got {users}.")
    return local, users


def shuffle_delta(
    local_epsilon: float, n: int, epsilon: float, *, clone: str | float = "proven"
) -> float:
    """Return the delta at which shuffled local reports have a central epsilon.

    Parameters
    ----------
    local_epsilon : float
        In (0, 50]: local differential privacy of the one randomiser that all users apply.
    n : int
        Number of users, each with one report; up to 10^9.
    epsilon : float
        At least 0.
    clone : {"proven", "strong"} or float, default="proven"
        See :func:`shuffle_amplification`.

    Returns
    -------
    float
        In [0, 1], rounded up.

    References
    ----------
    Feldman, McMillan, Talwar 2021, arXiv 2012.12803.

    Examples
    --------
    >>> shuffle_delta(1.0, 1000, 0.19) < 1e-6 < shuffle_delta(1.0, 1000, 0.18)
    True
    """
    local, users = _checked(local_epsilon, n)
    target = check.epsilon(epsilon=epsilon, allow_zero=True)
    return _delta_at(local, target, _law(users, _clone(local, clone)[0]))


def shuffle_amplification(
    local_epsilon: float, n: int, delta: float, *, clone: str | float = "proven"
) -> ShuffleAmplification:
    r"""Return the central guarantee of local reports whose order a trusted shuffler destroys.

    Parameters
    ----------
    local_epsilon : float
        In (0, 50]: local differential privacy of the one randomiser that all users apply. An
        equal epsilon of different randomisers is not enough.
    n : int
        Number of users, each with one report; up to 10^9.
    delta : float
        In (0, 1).
    clone : {"proven", "strong"} or float, default="proven"
        Probability with which another user's report can be taken for a draw from the average of
        the two laws under comparison. ``"proven"`` is :math:`e^{-\epsilon_0}`, valid for every
        randomiser. A number is the caller's claim about the randomiser at hand, such as
        ``privfair.ldp.clone_probability`` computes. ``"strong"`` is
        :math:`2 / (e^{\epsilon_0} + 1)` for *any* randomiser: no proof for that is given here,
        the result says so, and it is no certificate.

    Returns
    -------
    ShuffleAmplification

    Raises
    ------
    InvalidParameterError
        Numbers out of range.

    Notes
    -----
    With probability c each of the other n - 1 reports is a clone, for which the two inputs of
    the user in question are equally likely. So the shuffled reports tell no more than the pair
    :math:`(A + D, C - A + 1 - D)` with :math:`C \sim Bin(n - 1, c)`, :math:`A \sim Bin(C, 1/2)`
    and :math:`D \sim Ber(e^{\epsilon_0} / (e^{\epsilon_0} + 1))`, against the pair swapped. Its
    hockey-stick divergence is summed exactly, with rounding errors and what is left out of C's
    tails charged to delta, and inverted by bisection. O(sqrt(n)) per step. Privacy: replace-one,
    n fixed and public; users with several reports need composition over the rounds.

    References
    ----------
    Feldman, McMillan, Talwar 2021, "Hiding among the clones: a simple and nearly optimal analysis
    of privacy amplification by shuffling", arXiv 2012.12803.

    Examples
    --------
    >>> round(shuffle_amplification(1.0, 1000, 1e-6).epsilon, 6)
    0.182412
    >>> print(shuffle_amplification(3.0, 5000, 1e-6, clone="strong"))
    epsilon = 0.32928 at delta = 1e-06 for 5000 shuffled reports of epsilon 3 each [STRONG CLONES, not proven here for general randomisers]
    """  # noqa: E501
    local, users = _checked(local_epsilon, n)
    delta = check.delta(delta=delta)
    c, basis = _clone(local, clone)
    law = _law(users, c)
    low, high = 0.0, local
    if _delta_at(local, 0.0, law) <= delta:
        high = 0.0
    while high - low > 1e-12 * local:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _delta_at(local, middle, law) <= delta:
            high = middle
        else:
            low = middle
    return ShuffleAmplification(high, delta, users, local, c, basis)
