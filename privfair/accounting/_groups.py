"""What an event priced for one record costs a group of records: several records of one user."""

from __future__ import annotations

import math
from typing import Any

from privfair.accounting import _plan
from privfair.accounting import events as ev
from privfair.core import _validation as check
from privfair.core.exceptions import UnsupportedEventError

__all__ = ["group_event"]


def group_event(event: Any, size: int) -> ev.AccountedEvent:
    """Return what an event does to a group of records that change together.

    Parameters
    ----------
    event : event or sequence of events
        Stated for one record.
    size : int
        Most records of a group (those of one user, say), at least 1. It has to be enforced:
        without a bound there is no guarantee for groups.

    Returns
    -------
    AccountedEvent
        Stated for one group; price it with ``unit="user"``.

    Raises
    ------
    UnsupportedEventError
        Names an event that has no such statement here.

    Notes
    -----
    Sums with noise move by ``size`` contributions (``k mu``, ``k eps``, ``k^2 rho``); a Gaussian
    on a Poisson sample of records becomes :class:`UserPoisson`, a mixture over how many of the
    group's records entered; ``(eps, delta)`` becomes ``(k eps, delta (e^(k eps) - 1) /
    (e^eps - 1))``; local reports are made by each record. Sampling users and clipping each user's
    whole contribution usually costs less, and needs no helper: its events speak of users already.

    References
    ----------
    Vadhan 2017, "The Complexity of Differential Privacy", lemma 2.2. Bun, Steinke 2016,
    arXiv:1605.02065. Ganesh et al. 2023, arXiv:2310.15526.

    Examples
    --------
    >>> from privfair.accounting import Gaussian, PoissonSampled, SelfComposed
    >>> group_event(SelfComposed(PoissonSampled(0.01, Gaussian(2.0)), 100), 3)
    SelfComposed(event=UserPoisson(q=0.01, sigma=2.0, max_records=3), count=100)
    """
    k = check.positive_int(size=size)
    events = _plan.as_events(event)
    found = [_one(item, k) for item in events]
    return found[0] if len(found) == 1 else ev.Composed(tuple(found))


def _one(event: ev.AccountedEvent, k: int) -> ev.AccountedEvent:
    if k == 1:
        return event
    match event:
        case ev.Gaussian(sigma):
            return ev.Gaussian(sigma / k)
        case ev.DiscreteGaussian(sigma):
            return ev.DiscreteGaussian(sigma / k)
        case ev.Laplace(b):
            return ev.Laplace(b / k)
        case ev.DiscreteLaplace(a, sensitivity):
            return ev.DiscreteLaplace(a, k * sensitivity)
        case ev.PureDP(eps):
            return ev.PureDP(k * eps)
        case ev.ExponentialMechanism(eps, monotonic, width):
            return ev.ExponentialMechanism(
                k * eps, monotonic, None if width is None else k * width
            )
        case ev.ApproxDP(eps, delta):
            return _approximate(eps, delta, k)
        case ev.ZCDP(rho, 0.0):
            return ev.ZCDP(k * k * rho)
        case ev.RandomizedResponse() | ev.LocalDP():
            return ev.SelfComposed(event, k)
        case ev.PoissonSampled(q, inner):
            joint = _plan._joint_sigma(inner)
            if joint is not None and math.isfinite(joint):
                return ev.UserPoisson(q, joint, k)
        case ev.SelfComposed(inner, count):
            return ev.SelfComposed(_one(inner, k), count)
        case ev.Composed(parts):
            return ev.Composed(tuple(_one(part, k) for part in parts))
        case ev.NonPrivate():
            return event
    raise UnsupportedEventError(
        f"event {event.kind} has no statement for groups of {k} records here. Sample whole users "
        "and bound each user's contribution instead."
    )


def _approximate(eps: float, delta: float, k: int) -> ev.AccountedEvent:
    ratio = float(k) if eps == 0 else math.expm1(min(k * eps, 700.0)) / math.expm1(min(eps, 700.0))
    lost = delta * ratio
    return ev.ApproxDP(k * eps, lost) if lost < 1 else ev.NonPrivate()
