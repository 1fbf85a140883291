"""Events in plain words, for people who read a certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from privfair.accounting._event_base import AccountedEvent

__all__ = ["describe"]


def describe(event: AccountedEvent) -> str:
    """Return what an event did to the data, in one phrase."""
    from privfair.accounting import events as ev

    match event:
        case ev.Gaussian(sigma):
            return f"Gaussian noise of {sigma:g} times what one unit can contribute"
        case ev.DiscreteGaussian(sigma):
            return f"discrete Gaussian noise of {sigma:g} times what one unit can contribute"
        case ev.Laplace(b):
            return f"Laplace noise of scale {b:g} times what one unit can contribute"
        case ev.DiscreteLaplace(a, sensitivity):
            return (
                f"discrete Laplace noise of scale {1 / a:.4g} on integers that one unit changes "
                f"by at most {sensitivity}"
            )
        case ev.RandomizedResponse(eps0, k):
            return f"one randomised answer among {k} of epsilon {eps0:g}, made by the unit itself"
        case ev.LocalDP(eps0):
            return f"one report of epsilon {eps0:g}, randomised by the unit itself"
        case ev.ExponentialMechanism(eps):
            return f"a private choice of epsilon {eps:g}"
        case ev.PureDP(eps):
            return f"something of epsilon {eps:g}"
        case ev.ApproxDP(eps, delta) if eps == 0:
            return f"a failure with a probability of at most {delta:.3g}"
        case ev.ApproxDP(eps, delta):
            return f"something of epsilon {eps:g} and delta {delta:.3g}"
        case ev.ZCDP(rho, xi):
            extra = f" and xi {xi:g}" if xi else ""
            return f"something of zero-concentrated privacy rho {rho:g}{extra}"
        case ev.PoissonSampled(q, inner):
            return f"on a sample that each unit enters with probability {q:.4g}: {describe(inner)}"
        case ev.FixedBatchWOR(n, batch, inner):
            return f"on {batch} of {n} units drawn without replacement: {describe(inner)}"
        case ev.TruncatedPoisson(n, q, most, sigma):
            return (
                f"on a sample of {n} units that each enters with probability {q:.4g}, cut to at "
                f"most {most}: Gaussian noise of {sigma:g} times what one can contribute"
            )
        case ev.UserPoisson(q, sigma, most):
            return (
                f"on a sample that each record enters with probability {q:.4g}, at most {most} "
                f"records to a user: Gaussian noise of {sigma:g} times what one record can "
                "contribute"
            )
        case ev.ShuffledEpochs(n, batch, epochs, sigma):
            return (
                f"{epochs} passes over {n} units in shuffled batches of {batch}: Gaussian noise "
                f"of {sigma:g} times what one unit can contribute"
            )
        case ev.SelfComposed(inner, count):
            return f"{count} times ({describe(inner)})"
        case ev.Composed(parts):
            return "; ".join(describe(part) for part in parts) if parts else "nothing"
        case ev.Parallel(parts):
            listed = "; ".join(describe(part) for part in parts)
            return f"on {len(parts)} parts that have no unit in common ({listed})"
        case ev.RepeatAndSelect(inner, mean, shape):
            law = "Poisson" if math.isinf(shape) else "truncated negative binomial"
            return (
                f"the best of a secret {law} number of runs, {mean:g} on average, each "
                f"({describe(inner)})"
            )
        case ev.NonPrivate():
            return "something without any privacy"
    return event.kind
