"""What all pure frequency protocols have in common: one law, one estimator, one variance."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.randomness import SecretStream
from privfair.core.statistics import clopper_pearson_interval, wilson_interval

__all__ = [
    "MAX_EPSILON",
    "FrequencyProtocol",
    "check_domain",
    "check_local_epsilon",
    "check_values",
    "checked_share",
    "exact_epsilon",
    "mapped_interval",
]

MAX_EPSILON = 50.0
MAX_DOMAIN = 1 << 24
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def check_domain(k: Any) -> int:
    """Return the size of a domain, or say why it is none."""
    size = check.positive_int(k=k)
    if not 2 <= size <= MAX_DOMAIN:
        raise InvalidParameterError(
            f"k must be between 2 and {MAX_DOMAIN}, got {size}. With one value there is nothing "
            "to report."
        )
    return size


def check_local_epsilon(**named: Any) -> float:
    """Return an epsilon in (0, 50], or say why it is none."""
    ((name, value),) = named.items()
    epsilon = check.epsilon(**{name: value})
    if epsilon > MAX_EPSILON:
        raise InvalidParameterError(
            f"{name} must be in (0, {MAX_EPSILON:g}], got {epsilon:g}: a larger one protects "
            "nothing that could be told from the plain value."
        )
    return epsilon


def check_values(values: ArrayLike, k: int) -> Ints:
    """Return values as integers in [0, k), or say why they are not; quotes none of them."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(
            f"values must be integers in [0, {k}), the positions in the public list of "
            f"categories; got dtype {array.dtype}. Floats, booleans and text are not coerced."
        )
    if array.ndim != 1:
        raise DataError(f"values must have one dimension, got {array.ndim}.")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= k):
        raise InvalidParameterError(f"values must lie in [0, {k}); some do not.")
    return array.astype(np.int64)


def checked_share(f: ArrayLike, n: float) -> Floats:
    """Return true frequencies as an array, or say why they are none."""
    share = np.asarray(f, dtype=float)
    if not ((share >= 0) & (share <= 1)).all() or not float(n) > 0:
        raise InvalidParameterError("f must lie in [0, 1] and n above 0.")
    return share


class _NoStream:
    """Stands for a stream where no report is drawn: to learn the arrays of a protocol."""

    def uint64(self, size: int) -> NDArray[np.uint64]:
        return np.zeros(size, dtype=np.uint64)

    def bytes(self, n: int) -> bytes:
        return bytes(n)


def mapped_interval(
    p: Any, q: Any, support: Ints, trials: Ints, confidence: float, method: str
) -> tuple[Floats, Floats]:
    """Return intervals of frequencies from those of the chance to be supported."""
    make = clopper_pearson_interval if method == "clopper_pearson" else wilson_interval
    found = make(support, trials, confidence=confidence)
    return (np.asarray(found.low) - q) / (p - q), (np.asarray(found.high) - q) / (p - q)


@dataclass(frozen=True)
class FrequencyProtocol(ABC):
    """A randomiser of one categorical value whose reports support sets of values.

    A report supports the true value with probability p and every other one with probability q,
    which is all that the server needs to know (Wang, Blocki, Li and Jha 2017).

    Parameters
    ----------
    k : int
        Size of the domain, at least 2; values are 0, ..., k - 1.
    epsilon : float
        In (0, 50]: local differential privacy of one report.

    Attributes
    ----------
    p_, q_ : float
        Support probabilities of the law that is really drawn, with 64-bit thresholds.
    """

    k: int
    epsilon: float
    name: ClassVar[str] = ""
    research_only: ClassVar[bool] = False
    counts_reports: ClassVar[bool] = True  # whether its tally is one, and never negative
    longitudinal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_domain(self.k))
        object.__setattr__(self, "epsilon", check_local_epsilon(epsilon=self.epsilon))

    # -- the law -------------------------------------------------------------------------------
    @property
    @abstractmethod
    def exact_p(self) -> Fraction:
        """Probability that a report supports the true value."""

    @property
    @abstractmethod
    def exact_q(self) -> Fraction:
        """Probability that a report supports another, given value."""

    @property
    def p_(self) -> float:
        """Probability that a report supports the true value."""
        return float(self.exact_p)

    @property
    def q_(self) -> float:
        """Probability that a report supports another, given value."""
        return float(self.exact_q)

    @property
    @abstractmethod
    def report_bits(self) -> int:
        """Bits of one report on the wire, without headers."""

    @abstractmethod
    def outputs(self) -> Iterator[Any]:
        """Yield every possible report; for small domains."""

    @abstractmethod
    def probability(self, output: Any, value: int) -> Fraction:
        """Return the exact probability of one report given the value."""

    # -- client and server -----------------------------------------------------------------------
    @abstractmethod
    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one report per value, as arrays with one entry or row per report."""

    def empty_payload(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of no reports: their names, types and shapes."""
        return self.randomise(np.zeros(0, dtype=np.int64), _NoStream())  # type: ignore[arg-type]

    @abstractmethod
    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return sums over reports from which the support counts follow; they add up."""

    @property
    def tally_size(self) -> int:
        """Length of what :meth:`tally` returns."""
        return self.k

    def support_of(self, tally: Ints, n: int) -> Ints:
        """Return how many reports support each value, shape (k,), from their tally."""
        return tally

    def is_tally(self, tally: Ints, n: int) -> bool:
        """Return whether n reports can have this tally."""
        if tally.size and (int(tally.min()) < 0 or int(tally.max()) > n):
            return False
        each = self._adds
        return each is None or int(tally.sum()) == n * each

    @property
    def _adds(self) -> int | None:
        """How much every report adds to the tally in all; None if reports differ in that."""
        return None

    def tells(self, payload: dict[str, NDArray[Any]], x0: int, x1: int) -> Ints:
        """Return 1 for each report that is likelier under x0, 2 under x1, by the full ratio.

        Other numbers tell the remaining reports apart.
        """
        found = self.support_matrix(payload)
        return found[:, x0] + 2 * found[:, x1].astype(np.int64)

    def trials_of(self, tally: Ints, n: int) -> Ints:
        """Return how many reports say something about each value, shape (k,): mostly all n."""
        return np.full(self.k, n, dtype=np.int64)

    def support(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how many reports support each value, shape (k,)."""
        tally = self.tally(payload)
        return self.support_of(tally, self.check_payload(payload))

    @abstractmethod
    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which report supports which value, shape (n, k)."""

    @property
    def likelihood_ratio(self) -> float:
        """How much more likely a report is under a value that it supports."""
        chance = self.exact_p / (1 - self.exact_p)
        return float(chance * self._odds_of_size)

    @property
    def _odds_of_size(self) -> Fraction:
        """Number of reports that do not support a value over the number of those that do."""
        return (1 - self._share) / self._share

    @property
    def _share(self) -> Fraction:
        """Share of all possible reports that support a given value."""
        raise NotImplementedError

    @abstractmethod
    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports; reports that no client could send are an error."""

    def channel(self) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        """Return products with the matrix of P(report | value), and with its transpose.

        Raises
        ------
        InvalidParameterError
            The tally of this protocol is not a count of reports, so that it has no likelihood.
        """
        raise InvalidParameterError(
            f"'ibu' needs counts of whole reports, which {self.name} does not keep. Use "
            "'ibu_marginal', or full_likelihood on the reports themselves."
        )

    # -- the estimator ---------------------------------------------------------------------------
    def frequencies(self, counts: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
        """Return unbiased frequency estimates from support counts; they may be negative.

        ``n`` is the number of reports, or how many of them are about each value; with none about
        a value its estimate is NaN.
        """
        p, q = self.p_, self.q_
        with np.errstate(invalid="ignore"):
            share = np.asarray(counts, dtype=float) / np.asarray(n, dtype=float)
        return np.asarray((share - q) / (p - q))

    def variance(self, f: ArrayLike = 0.0, n: float = 1.0, population: str = "fixed") -> Any:
        """Return the variance of an estimated frequency.

        Parameters
        ----------
        f : array-like, in [0, 1], default=0
            True frequency.
        n : float, default=1
            Number of reports.
        population : {"fixed", "iid"}, default="fixed"
            Whether the reporting users are given, or a sample (which adds f (1 - f) / n).

        Examples
        --------
        >>> from privfair.ldp import OUE
        >>> round(OUE(16, 1.0).variance(), 5)
        3.68269
        """
        check.one_of(("fixed", "iid"), population=population)
        share = checked_share(f, n)
        p, q = self.p_, self.q_
        if population == "iid":
            chance = share * p + (1 - share) * q
            top = chance * (1 - chance)
        else:
            top = share * p * (1 - p) + (1 - share) * q * (1 - q)
        out = top / (n * (p - q) ** 2)
        return float(out) if out.ndim == 0 else out

    def variance_given(self, f: ArrayLike, trials: Ints, n: int) -> NDArray[np.float64]:
        """Return variances of estimates of which each rests on ``trials`` of the n reports."""
        return np.asarray(self.variance(f, n))

    def interval(
        self, support: Ints, trials: Ints, *, confidence: float, method: str = "clopper_pearson"
    ) -> tuple[Floats, Floats]:
        """Return an interval of each estimate from ``support`` of ``trials`` reports."""
        return mapped_interval(self.p_, self.q_, support, trials, confidence, method)

    # -- identity --------------------------------------------------------------------------------
    def parameters(self) -> dict[str, Any]:
        """Return everything on which client and server must agree, JSON-able."""
        return {"protocol": self.name, "k": self.k, "epsilon": float(self.epsilon).hex()}

    def fingerprint(self) -> bytes:
        """Return 16 bytes that differ between protocols that must not be mixed."""
        text = json.dumps(self.parameters(), sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=16).digest()

    def event(self) -> Any:
        """Return what one report costs, for accountants."""
        from privfair.accounting.events import LocalDP

        return LocalDP(self.epsilon)


def exact_epsilon(protocol: FrequencyProtocol) -> float:
    """Return the epsilon of a protocol by enumerating every report and every pair of values.

    Parameters
    ----------
    protocol : FrequencyProtocol
        With a domain of at most 8 values, since every possible report is listed.

    Returns
    -------
    float
        The largest logarithm of a ratio of probabilities, rounded up.

    Raises
    ------
    InvalidParameterError
        A domain too large to enumerate.

    Notes
    -----
    Probabilities are exact fractions of the law with 64-bit thresholds. For local hashing the
    seed is public and independent of the value, so that probabilities are conditional on it.

    Examples
    --------
    >>> from privfair.ldp import GRR
    >>> abs(exact_epsilon(GRR(4, 1.0)) - 1.0) < 1e-9
    True
    """
    closed = getattr(protocol, "closed_form_epsilon", None)
    if closed is not None:
        return math.nextafter(float(closed()), math.inf) if closed() % 1 else float(closed())
    if protocol.k > 8:
        raise InvalidParameterError(
            f"k must be at most 8 to enumerate all reports, got {protocol.k}. The law does not "
            "depend on which domain it is: take a small one with the same parameters."
        )
    worst = Fraction(1)
    for output in protocol.outputs():
        chances = [protocol.probability(output, v) for v in range(protocol.k)]
        low, high = min(chances), max(chances)
        if high == 0:
            continue
        if low == 0:
            return math.inf
        worst = max(worst, high / low)
    return _log_up(worst)


def _log_up(ratio: Fraction) -> float:
    """Return the logarithm of a fraction, rounded up to a float."""
    from decimal import ROUND_CEILING, Context, Decimal

    context = Context(prec=60)
    value = context.divide(Decimal(ratio.numerator), Decimal(ratio.denominator)).ln(context)
    digits = Context(prec=50, rounding=ROUND_CEILING)
    found = float(digits.plus(value))
    return found if Decimal(found) >= value else math.nextafter(found, math.inf)
