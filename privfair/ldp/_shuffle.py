"""Shuffled reports of one protocol: which clone probability it has, and what that gives."""

from __future__ import annotations

import math

import numpy as np

from privfair.accounting import ShuffleAmplification, shuffle_amplification
from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.ldp._direct import GRR, SS
from privfair.ldp._exact import exp_fraction
from privfair.ldp._hashing import OLH
from privfair.ldp._protocol import FrequencyProtocol
from privfair.ldp._structured import HR, PGR
from privfair.ldp._unary import OUE, SUE

__all__ = ["clone_probability", "shuffle_epsilon"]


def clone_probability(protocol: FrequencyProtocol) -> float:
    r"""Return with which probability another user's report can stand for that of the one asked.

    Parameters
    ----------
    protocol : FrequencyProtocol

    Returns
    -------
    float
        :math:`2 \min R(y \mid x) / (R(y \mid x_0) + R(y \mid x_1))` over reports y, values x and
        pairs of different values, rounded down; never below :math:`e^{-\epsilon}`.

    Notes
    -----
    A report of a pure protocol has two levels of probability, with the ratio :math:`e^\epsilon`.
    If some report supports two values and not a third, the minimum is :math:`e^{-\epsilon}`;
    otherwise, as for GRR, it is :math:`2 / (e^\epsilon + 1)`. O(1), PGR O(K log K). Protocols of
    which this function knows nothing get :math:`e^{-\epsilon}`.

    References
    ----------
    Feldman, McMillan, Talwar 2021, arXiv 2012.12803.

    Examples
    --------
    >>> from privfair.ldp import GRR, OUE
    >>> round(clone_probability(GRR(5, 1.0)), 6), round(clone_probability(OUE(5, 1.0)), 6)
    (0.537883, 0.367879)
    """
    if not isinstance(protocol, FrequencyProtocol):
        raise InvalidTypeError(
            f"protocol must be a protocol such as OUE(k, epsilon), got {type(protocol).__name__}."
        )
    e = exp_fraction(protocol.epsilon, up=True)  # the law drawn has a ratio of at most that
    chance = 1 / e if _two_against_one(protocol) else 2 / (e + 1)
    return math.nextafter(float(chance), 0.0)


def _two_against_one(protocol: FrequencyProtocol) -> bool:
    """Return whether some report may support two values and not a third.

    True is always sound; False needs a proof for the protocol at hand.
    """
    k = protocol.k
    if isinstance(protocol, GRR):
        return False
    if isinstance(protocol, SS):
        return protocol.omega_ > 1
    if isinstance(protocol, HR):
        return k > 3
    if isinstance(protocol, PGR):
        ours = np.zeros(protocol.K_)
        ours[:k] = 1.0
        on = np.rint(protocol._on_hyperplanes(ours))
        return bool(((on >= 2) & (on < k)).any())
    return k > 2 or not isinstance(protocol, SUE | OUE | OLH)


def shuffle_epsilon(
    protocol: FrequencyProtocol, n: int, delta: float, *, clone: str = "proven"
) -> ShuffleAmplification:
    """Return the central guarantee of n reports that a trusted shuffler permutes.

    Parameters
    ----------
    protocol : FrequencyProtocol
        The same for all users.
    n : int
        Number of users, public and fixed, each with one report.
    delta : float
        In (0, 1).
    clone : {"proven", "strong"}, default="proven"
        ``"proven"`` uses :func:`clone_probability`; ``"strong"`` the larger value that is
        conjectured for every protocol, and the result is labelled so.

    Returns
    -------
    ShuffleAmplification

    Notes
    -----
    See :func:`privfair.accounting.shuffle_amplification`. Privacy: replace-one; users who report
    several times need composition over their reports.

    References
    ----------
    Feldman, McMillan, Talwar 2021, arXiv 2012.12803.

    Examples
    --------
    >>> from privfair.ldp import GRR, OUE
    >>> round(shuffle_epsilon(GRR(20, 1.0), 1000, 1e-6).epsilon, 6)
    0.148671
    >>> round(shuffle_epsilon(OUE(20, 1.0), 1000, 1e-6).epsilon, 6)
    0.182412
    """
    chance = clone_probability(protocol)
    if protocol.longitudinal:
        raise InvalidParameterError(
            f"reports of {protocol.name} rest on memos, so that those of several rounds are not "
            "independent and no round can be accounted by itself. Shuffling is accounted for "
            "protocols without memory, one report per user."
        )
    check.one_of(("proven", "strong"), clone=clone)
    if clone == "strong":
        return shuffle_amplification(protocol.epsilon, n, delta, clone="strong")
    return shuffle_amplification(protocol.epsilon, n, delta, clone=chance)
