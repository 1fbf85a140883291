"""The adapter to dp_accounting's events; everything that has no counterpart is refused."""

from __future__ import annotations

import math
from typing import Any

from privfair.accounting import events as ev
from privfair.core.exceptions import InvalidTypeError, UnsupportedEventError

__all__ = ["from_dp_accounting", "to_dp_accounting"]


def to_dp_accounting(event: ev.AccountedEvent) -> Any:
    """Convert one of our events to dp_accounting's.

    Parameters
    ----------
    event : AccountedEvent
        Any event with a counterpart of exactly the same meaning.

    Returns
    -------
    dp_accounting.DpEvent

    Raises
    ------
    UnsupportedEventError
        Names the sub-event that has no counterpart.

    Examples
    --------
    >>> from privfair.accounting import Gaussian
    >>> to_dp_accounting(Gaussian(2.0))
    GaussianDpEvent(noise_multiplier=2.0)
    """
    import dp_accounting as dpa

    match event:
        case ev.Gaussian(sigma):
            return dpa.GaussianDpEvent(sigma)
        case ev.Laplace(b):
            return dpa.LaplaceDpEvent(b)
        case ev.DiscreteLaplace(a, sensitivity):
            return dpa.dp_event.DiscreteLaplaceDpEvent(a, sensitivity)
        case ev.RandomizedResponse(eps0, k):
            truth = 1 / (1 + (k - 1) * math.exp(-eps0))
            return dpa.RandomizedResponseDpEvent(k * (1 - truth) / (k - 1), k)
        case ev.ZCDP(rho, xi):
            return dpa.ZCDpEvent(rho, xi)
        case ev.DiscreteGaussian(sigma) if sigma > 0:
            return dpa.ZCDpEvent(1 / (2 * sigma**2), 0.0)
        case ev.PoissonSampled(q, inner):
            return dpa.PoissonSampledDpEvent(q, to_dp_accounting(inner))
        case ev.FixedBatchWOR(n, batch, inner):
            return dpa.SampledWithoutReplacementDpEvent(n, batch, to_dp_accounting(inner))
        case ev.TruncatedPoisson(n, q, max_batch, sigma):
            return dpa.TruncatedSubsampledGaussianDpEvent(
                dataset_size=n,
                sampling_probability=q,
                truncated_batch_size=max_batch,
                noise_multiplier=sigma,
            )
        case ev.RepeatAndSelect(inner, mean, shape):
            return dpa.dp_event.RepeatAndSelectDpEvent(to_dp_accounting(inner), mean, shape)
        case ev.SelfComposed(inner, count):
            return dpa.SelfComposedDpEvent(to_dp_accounting(inner), count)
        case ev.Composed(parts):
            return dpa.ComposedDpEvent([to_dp_accounting(part) for part in parts])
        case ev.NonPrivate():
            return dpa.NonPrivateDpEvent()
        case ev.AccountedEvent():
            raise UnsupportedEventError(
                f"event {event.kind} has no counterpart in dp_accounting; price it with "
                "privfair.accounting.guarantee."
            )
    raise InvalidTypeError(f"an event is needed, got {type(event).__name__}.")


def from_dp_accounting(event: Any) -> ev.AccountedEvent:
    """Convert one of dp_accounting's events to ours.

    Parameters
    ----------
    event : dp_accounting.DpEvent
        Any event with a counterpart of exactly the same meaning.

    Returns
    -------
    AccountedEvent

    Raises
    ------
    UnsupportedEventError
        Names the sub-event that has no counterpart.

    Examples
    --------
    >>> import dp_accounting
    >>> from_dp_accounting(dp_accounting.GaussianDpEvent(2.0))
    Gaussian(sigma=2.0)
    """
    match type(event).__name__:
        case "NoOpDpEvent":
            return ev.Composed(())
        case "NonPrivateDpEvent":
            return ev.NonPrivate()
        case "GaussianDpEvent":
            return ev.Gaussian(event.noise_multiplier)
        case "LaplaceDpEvent":
            return ev.Laplace(event.noise_multiplier)
        case "DiscreteLaplaceDpEvent" if event.noise_parameter > 0:
            return ev.DiscreteLaplace(event.noise_parameter, event.sensitivity)
        case "DiscreteLaplaceDpEvent":
            return ev.NonPrivate()
        case "RandomizedResponseDpEvent":
            return _randomized_response(event.noise_parameter, event.num_buckets)
        case "ZCDpEvent":
            return ev.ZCDP(event.rho, event.xi)
        case "PoissonSampledDpEvent" if event.sampling_probability == 0:
            return ev.Composed(())
        case "PoissonSampledDpEvent":
            return ev.PoissonSampled(event.sampling_probability, from_dp_accounting(event.event))
        case "SampledWithoutReplacementDpEvent":
            return ev.FixedBatchWOR(
                event.source_dataset_size, event.sample_size, from_dp_accounting(event.event)
            )
        case "TruncatedSubsampledGaussianDpEvent":
            return ev.TruncatedPoisson(
                event.dataset_size,
                event.sampling_probability,
                event.truncated_batch_size,
                event.noise_multiplier,
            )
        case "RepeatAndSelectDpEvent":
            return ev.RepeatAndSelect(from_dp_accounting(event.event), event.mean, event.shape)
        case "SelfComposedDpEvent":
            return ev.SelfComposed(from_dp_accounting(event.event), event.count)
        case "ComposedDpEvent":
            return ev.Composed(tuple(from_dp_accounting(part) for part in event.events))
    raise UnsupportedEventError(
        f"event {type(event).__name__} of dp_accounting has no counterpart here; an event that "
        "nobody can price is never treated as free."
    )


def _randomized_response(noise: float, k: int) -> ev.AccountedEvent:
    """``noise`` is the probability of a uniformly random answer."""
    if k == 1:
        return ev.Composed(())
    if noise == 0:
        return ev.NonPrivate()
    truth = 1 - noise * (k - 1) / k
    return ev.RandomizedResponse(max(0.0, math.log(truth * k / noise)), k)
