"""Events: what a mechanism did to data, in the words that the accountants price.

Events are frozen, checked when they are made, versioned and JSON-able: the ledger stores them
and every guarantee carries them. An event describes one unit's influence, so scales are relative
to the most that one unit can contribute: ``Gaussian(sigma)`` is noise of standard deviation
``sigma`` times the L2 bound on one unit's contribution to a sum.

An event that an accountant cannot price raises ``UnsupportedEventError``; it is never skipped
and never free.
"""

from __future__ import annotations

from dataclasses import dataclass

from privfair.accounting._event_base import (
    SCHEMA,
    AccountedEvent,
    at_least,
    check_batch,
    check_event,
    event_from_dict,
    several,
)
from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError

__all__ = [
    "SCHEMA",
    "AccountedEvent",
    "ApproxDP",
    "Composed",
    "DiscreteGaussian",
    "DiscreteLaplace",
    "ExponentialMechanism",
    "FixedBatchWOR",
    "Gaussian",
    "Laplace",
    "LocalDP",
    "NonPrivate",
    "Parallel",
    "PoissonSampled",
    "PureDP",
    "RandomizedResponse",
    "RepeatAndSelect",
    "SelfComposed",
    "ShuffledEpochs",
    "TruncatedPoisson",
    "UserPoisson",
    "ZCDP",
    "event_from_dict",
]


@dataclass(frozen=True)
class Gaussian(AccountedEvent):
    """Gaussian noise on a vector.

    Parameters
    ----------
    sigma : float
        Standard deviation divided by the L2 bound on one unit's contribution; at least 0,
        where 0 means no privacy.

    Examples
    --------
    >>> Gaussian(2.0).to_dict()
    {'schema': 1, 'kind': 'Gaussian', 'sigma': 2.0}
    """

    sigma: float

    def __post_init__(self) -> None:
        self._put("sigma", check.non_negative(sigma=self.sigma))


@dataclass(frozen=True)
class DiscreteGaussian(AccountedEvent):
    """Discrete Gaussian noise on an integer vector (Canonne, Kamath, Steinke 2020).

    Parameters
    ----------
    sigma : float
        Scale parameter divided by the L2 bound on one unit's integer contribution.
    """

    sigma: float

    def __post_init__(self) -> None:
        self._put("sigma", check.non_negative(sigma=self.sigma))


@dataclass(frozen=True)
class Laplace(AccountedEvent):
    """Laplace noise on each coordinate of a vector.

    Parameters
    ----------
    b : float
        Scale divided by the L1 bound on one unit's contribution.
    """

    b: float

    def __post_init__(self) -> None:
        self._put("b", check.non_negative(b=self.b))


@dataclass(frozen=True)
class DiscreteLaplace(AccountedEvent):
    """Discrete Laplace (two-sided geometric) noise on an integer vector.

    Parameters
    ----------
    a : float
        The noise has mass proportional to ``exp(-a |x|)``; at least 0 and 0 is refused, for it
        is no distribution.
    sensitivity : int, default=1
        L1 bound on one unit's integer contribution.
    """

    a: float
    sensitivity: int = 1

    def __post_init__(self) -> None:
        self._put("a", check.positive(a=self.a))
        self._put("sensitivity", check.positive_int(sensitivity=self.sensitivity))


@dataclass(frozen=True)
class RandomizedResponse(AccountedEvent):
    """One k-ary randomised response: local, under replacement of the answer.

    Parameters
    ----------
    eps0 : float
        The truth is told with probability ``e^eps0 / (e^eps0 + k - 1)``.
    k : int, default=2
        Number of possible answers.
    """

    eps0: float
    k: int = 2

    def __post_init__(self) -> None:
        self._put("eps0", check.non_negative(eps0=self.eps0))
        self._put("k", at_least(2, k=self.k))


@dataclass(frozen=True)
class LocalDP(AccountedEvent):
    """Any report that is eps0-locally differentially private.

    Parameters
    ----------
    eps0 : float
        At least 0.
    """

    eps0: float

    def __post_init__(self) -> None:
        self._put("eps0", check.non_negative(eps0=self.eps0))


@dataclass(frozen=True)
class ExponentialMechanism(AccountedEvent):
    """The exponential mechanism, or any other mechanism of bounded range.

    Parameters
    ----------
    eps : float
        Its pure epsilon.
    monotonic : bool, default=False
        Whether one unit moves all qualities in one direction. Recorded; the prices here do not
        use it (``eps`` is already the epsilon that results).
    range_bound : float or None, default=None
        Range of the privacy loss over the outputs (``eps`` when None), used for the zCDP bound
        ``range_bound^2 / 8``.
    """

    eps: float
    monotonic: bool = False
    range_bound: float | None = None

    def __post_init__(self) -> None:
        self._put("eps", check.non_negative(eps=self.eps))
        self._put("monotonic", check.boolean(monotonic=self.monotonic))
        if self.range_bound is not None:
            self._put("range_bound", check.non_negative(range_bound=self.range_bound))


@dataclass(frozen=True)
class PureDP(AccountedEvent):
    """Any mechanism with pure ``eps``-differential privacy.

    Parameters
    ----------
    eps : float
        At least 0, for one unit replaced by nothing.
    """

    eps: float

    def __post_init__(self) -> None:
        self._put("eps", check.non_negative(eps=self.eps))


@dataclass(frozen=True)
class ApproxDP(AccountedEvent):
    """Any mechanism with ``(eps, delta)``-differential privacy.

    Parameters
    ----------
    eps : float
        At least 0, for one unit replaced by nothing.
    delta : float
        In [0, 1).
    """

    eps: float
    delta: float

    def __post_init__(self) -> None:
        self._put("eps", check.non_negative(eps=self.eps))
        self._put("delta", check.delta(delta=self.delta, allow_zero=True))


@dataclass(frozen=True)
class ZCDP(AccountedEvent):
    """Any mechanism with ``(xi, rho)``-zero-concentrated differential privacy.

    Parameters
    ----------
    rho : float
        Its Renyi divergence of every order alpha is at most ``xi + rho * alpha``.
    xi : float, default=0.0
        At least 0.
    """

    rho: float
    xi: float = 0.0

    def __post_init__(self) -> None:
        self._put("rho", check.non_negative(rho=self.rho))
        self._put("xi", check.non_negative(xi=self.xi))


@dataclass(frozen=True)
class PoissonSampled(AccountedEvent):
    """An event on a Poisson sample of the data.

    Parameters
    ----------
    q : float
        Probability with which each unit enters the sample, independently; in (0, 1].
    event : AccountedEvent
        What happens to the sample.
    """

    q: float
    event: AccountedEvent

    def __post_init__(self) -> None:
        self._put("q", check.sample_rate(q=self.q))
        check_event(event=self.event)


@dataclass(frozen=True)
class FixedBatchWOR(AccountedEvent):
    """An event on a batch of fixed size drawn without replacement.

    Parameters
    ----------
    n, batch : int
        Size of the data set (public) and of the batch.
    event : AccountedEvent
        What happens to the batch.
    """

    n: int
    batch: int
    event: AccountedEvent

    def __post_init__(self) -> None:
        check_batch(self)
        check_event(event=self.event)


@dataclass(frozen=True)
class TruncatedPoisson(AccountedEvent):
    """A Gaussian step on a Poisson batch that is cut at a maximal size (Chua et al. 2024).

    Parameters
    ----------
    n : int
        Size of the data set (public).
    q : float
        Sampling probability in (0, 1].
    max_batch : int
        Batches above this size are cut down at random.
    sigma : float
        Noise multiplier.
    """

    n: int
    q: float
    max_batch: int
    sigma: float

    def __post_init__(self) -> None:
        self._put("n", check.positive_int(n=self.n))
        self._put("q", check.sample_rate(q=self.q))
        self._put("max_batch", check.positive_int(max_batch=self.max_batch))
        self._put("sigma", check.non_negative(sigma=self.sigma))


@dataclass(frozen=True)
class UserPoisson(AccountedEvent):
    """A Gaussian step on Poisson-sampled records of which a user holds several.

    Parameters
    ----------
    q : float
        Sampling probability of each record, in (0, 1].
    sigma : float
        Noise multiplier relative to one record's clipping norm.
    max_records : int
        Most records of one user.
    """

    q: float
    sigma: float
    max_records: int

    def __post_init__(self) -> None:
        self._put("q", check.sample_rate(q=self.q))
        self._put("sigma", check.non_negative(sigma=self.sigma))
        self._put("max_records", check.positive_int(max_records=self.max_records))


@dataclass(frozen=True)
class ShuffledEpochs(AccountedEvent):
    """Gaussian steps on shuffled batches of fixed size, each record once in each epoch.

    Parameters
    ----------
    n, batch : int
        Size of the data set (public) and of a batch.
    epochs : int
        Number of passes.
    sigma : float
        Noise multiplier.
    """

    n: int
    batch: int
    epochs: int
    sigma: float

    def __post_init__(self) -> None:
        check_batch(self)
        self._put("epochs", check.positive_int(epochs=self.epochs))
        self._put("sigma", check.non_negative(sigma=self.sigma))


@dataclass(frozen=True)
class SelfComposed(AccountedEvent):
    """The same event several times, each free to depend on the results before it.

    Parameters
    ----------
    event : AccountedEvent
        What is repeated.
    count : int
        How often; at least 0.
    """

    event: AccountedEvent
    count: int

    def __post_init__(self) -> None:
        check_event(event=self.event)
        self._put("count", check.steps(count=self.count))


@dataclass(frozen=True)
class Composed(AccountedEvent):
    """Several events on the same data; queries may depend on earlier results, scales may not.

    Parameters
    ----------
    events : iterable of AccountedEvent
        In any order.
    """

    events: tuple[AccountedEvent, ...]

    def __post_init__(self) -> None:
        self._put("events", several(self.events))


@dataclass(frozen=True)
class Parallel(AccountedEvent):
    """Events on disjoint parts of the data; the parts are fixed without looking at the data.

    Parameters
    ----------
    events : iterable of AccountedEvent
        One for each part.
    """

    events: tuple[AccountedEvent, ...]

    def __post_init__(self) -> None:
        self._put("events", several(self.events))


@dataclass(frozen=True)
class RepeatAndSelect(AccountedEvent):
    """An event run a random number of times, of which only the best result is released.

    Parameters
    ----------
    event : AccountedEvent
        What is repeated.
    mean : float
        Mean number of runs, at least 1.
    shape : float
        Shape of the truncated negative binomial law of the number, at least 0: 0 is the
        logarithmic law, 1 the geometric one; ``inf`` is Poisson.

    References
    ----------
    Papernot, Steinke 2022, arXiv:2110.03620.
    """

    event: AccountedEvent
    mean: float
    shape: float

    def __post_init__(self) -> None:
        check_event(event=self.event)
        self._put("mean", check.positive(mean=self.mean))
        self._put("shape", check.non_negative(shape=self.shape, allow_inf=True))
        if self.mean < 1:
            raise InvalidParameterError(
                f"mean must be at least 1, got {self.mean}: fewer runs are released by chance."
            )

    def runs(self, uniform: float) -> int:
        """Return the number of runs that belongs to a uniform random number.

        Parameters
        ----------
        uniform : float
            In [0, 1); from a secret stream, for the number of runs must stay secret.

        Returns
        -------
        int
            Distributed as the event states if ``uniform`` is uniform: at least 1 for a finite
            shape, possibly 0 for the Poisson law.
        """
        from privfair.accounting._select import quantile

        return quantile(check.probability(uniform=uniform), self.mean, self.shape)


@dataclass(frozen=True)
class NonPrivate(AccountedEvent):
    """Something without any privacy guarantee: epsilon is infinite."""
