"""Histogram encodings with Laplace noise: for comparison only, others dominate them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.core.statistics import normal_critical
from privfair.ldp._exact import exp_fraction, threshold
from privfair.ldp._protocol import Floats, FrequencyProtocol, Ints
from privfair.ldp._unary import UnaryProtocol
from privfair.mechanisms import discrete_laplace

__all__ = ["SHE", "THE"]

_LARGEST = 1 << 40  # of one noisy number, in steps of the grid: sums stay within 64 bits
_STEPS = 1 << 20


@lru_cache(maxsize=256)
def best_threshold(epsilon: float) -> float:
    """Return the threshold of least variance at frequency 0, to six digits.

    Client and server must agree on it to the last bit, whatever their arithmetic.
    """
    from scipy.optimize import minimize_scalar

    def variance(t: float) -> float:
        p, q = 1 - 0.5 * math.exp(epsilon * (t - 1) / 2), 0.5 * math.exp(-epsilon * t / 2)
        return q * (1 - q) / (p - q) ** 2

    found = minimize_scalar(variance, bounds=(0.5, 1.0), method="bounded", options={"xatol": 1e-9})
    return round(float(found.x), 6)


@dataclass(frozen=True)
class THE(UnaryProtocol):
    r"""Thresholded histogram encoding: which noisy coordinates exceed a threshold. Research only.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    t : float or None, default=None
        Threshold in [0.5, 1]; None takes the one of least variance at frequency 0.

    Attributes
    ----------
    real_epsilon_ : float
        What a report really costs: less than ``epsilon``, of which thresholding wastes a part.

    Notes
    -----
    A coordinate with Laplace noise of scale 2 / epsilon is above t with the probability
    :math:`p = 1 - \frac12 e^{\epsilon (t - 1) / 2}` if it is the true one, else
    :math:`q = \frac12 e^{-\epsilon t / 2}`: the device draws these bits with integer thresholds
    and never makes a noisy float, whose low bits would tell the value (Mironov 2012). OUE has a
    smaller variance at equal epsilon for every domain; this is here for comparison. Client O(k)
    bits per report. Privacy: epsilon-LDP, exactly as drawn.

    References
    ----------
    Wang, Blocki, Li, Jha 2017, USENIX Security. Mironov 2012, "On significance of the least
    significant bits for differential privacy", CCS.

    Examples
    --------
    >>> protocol = THE(16, 1.0)
    >>> round(protocol.t_, 5), round(protocol.variance(), 5), round(protocol.real_epsilon_, 4)
    (0.61855, 4.80715, 0.896)
    """

    t: float | None = None
    name: ClassVar[str] = "THE"
    research_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t is not None:
            t = check.real(t=self.t)
            if not 0.5 <= t <= 1.0:
                raise InvalidParameterError(f"t must be in [0.5, 1], got {t!r}.")

    @cached_property
    def t_(self) -> float:
        """Threshold in use."""
        return best_threshold(float(self.epsilon)) if self.t is None else float(self.t)

    @cached_property
    def _bits(self) -> tuple[int, int]:  # type: ignore[override]
        half = Fraction(1, 2)
        true = 1 - half * exp_fraction(self.epsilon * (self.t_ - 1) / 2, up=True)
        false = half * exp_fraction(-self.epsilon * self.t_ / 2, up=True)
        return threshold(true), threshold(false, up=True)

    @property
    def real_epsilon_(self) -> float:
        """What a report really costs, in nats."""
        return math.log(self.likelihood_ratio)

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "t": self.t_.hex()}


@dataclass(frozen=True)
class SHE(FrequencyProtocol):
    r"""Summed histogram encoding: the one-hot vector with Laplace noise. Research only.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    steps : int, default=1024
        Steps of the public grid between 0 and 1, at most 2^20.

    Notes
    -----
    The report is ``steps`` at the true coordinate and 0 elsewhere, plus exact discrete Laplace
    noise of scale 2 steps / epsilon on each: integers only, since the low bits of noisy floats
    tell the value (Mironov 2012). Two one-hot vectors differ by 2 steps in the L1 norm. The
    variance of an estimate is :math:`8 / (n \epsilon^2)` up to the grid, more than that of any
    protocol with bits, and reports are k 64-bit numbers. No report supports a set of values: p and
    q are 1 and 0, as sums estimate the counts themselves. Privacy: epsilon-LDP, exactly as drawn.

    References
    ----------
    Wang, Blocki, Li, Jha 2017, USENIX Security. Ghosh, Roughgarden, Sundararajan 2009,
    arXiv 0811.2841. Mironov 2012, CCS.

    Examples
    --------
    >>> round(SHE(16, 1.0).variance(), 4)
    8.0
    """

    steps: int = 1024
    name: ClassVar[str] = "SHE"
    research_only: ClassVar[bool] = True
    counts_reports: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if check.positive_int(steps=self.steps) > _STEPS:
            raise InvalidParameterError(f"steps must be at most {_STEPS}, got {self.steps}.")

    @property
    def largest(self) -> int:
        """The largest number that a report may hold, in steps of the grid."""
        return _LARGEST

    @property
    def scale(self) -> Fraction:
        """Scale of the noise in steps of the grid."""
        return 2 * int(self.steps) / Fraction(self.epsilon)

    @property
    def exact_p(self) -> Fraction:
        """One: a sum counts its users."""
        return Fraction(1)

    @property
    def exact_q(self) -> Fraction:
        """Zero: a sum counts nobody else."""
        return Fraction(0)

    @property
    def report_bits(self) -> int:
        """Bits of one report."""
        return 64 * self.k

    def closed_form_epsilon(self) -> Fraction:
        """Return the largest log-ratio of two reports' probabilities: 2 steps / scale."""
        return 2 * int(self.steps) / self.scale

    def outputs(self) -> Iterator[Any]:
        """Refuse: there are infinitely many reports."""
        raise InvalidParameterError("SHE has infinitely many reports; its epsilon has a formula.")

    def probability(self, output: Any, value: int) -> Fraction:
        """Refuse: probabilities are no fractions."""
        raise InvalidParameterError("the probabilities of SHE's reports are irrational.")

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "steps": int(self.steps)}

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one noisy vector of integers per value, shape (n, k)."""
        n = len(values)
        out = np.zeros((n, self.k), dtype=np.int64)
        if n:
            out[:] = discrete_laplace(self.scale, n * self.k, stream).reshape(n, self.k)
            out[np.arange(n), values] += int(self.steps)
            np.clip(out, -_LARGEST, _LARGEST, out=out)
        return {"sums": out}

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return the sums, in steps of the grid."""
        return np.asarray(payload["sums"].sum(axis=0, dtype=np.int64))

    def is_tally(self, tally: Ints, n: int) -> bool:
        """Return whether n reports can have these sums."""
        return bool((np.abs(tally.astype(float)) <= float(n) * _LARGEST).all())

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Refuse: reports are numbers."""
        raise InvalidParameterError("reports of SHE are numbers and support no set of values.")

    def tells(self, payload: dict[str, NDArray[Any]], x0: int, x1: int) -> Ints:
        """Return 1 where a report is as likely as can be under x0 against x1, 2 the reverse."""
        a, b, top = payload["sums"][:, x0], payload["sums"][:, x1], int(self.steps)
        return ((a >= top) & (b <= 0)) + 2 * ((b >= top) & (a <= 0)).astype(np.int64)

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        sums = payload["sums"]
        if sums.ndim != 2 or sums.shape[1] != self.k or sums.dtype != np.int64:
            raise DataError(f"reports must be {self.k} 64-bit integers each.")
        if sums.size and (int(sums.min()) < -_LARGEST or int(sums.max()) > _LARGEST):
            raise DataError("a report is beyond what a client of this protocol sends.")
        return len(sums)

    def frequencies(self, counts: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
        """Return unbiased frequency estimates from sums."""
        return np.asarray(counts, dtype=float) / (np.asarray(n, dtype=float) * int(self.steps))

    def variance(self, f: ArrayLike = 0.0, n: Any = 1.0, population: str = "fixed") -> Any:
        """Return the variance of an estimated frequency, the same for every frequency."""
        check.one_of(("fixed", "iid"), population=population)
        share = np.asarray(f, dtype=float)
        users = np.asarray(n, dtype=float)
        if ((share < 0) | (share > 1)).any() or not (users > 0).all():
            raise InvalidParameterError("f must lie in [0, 1] and n above 0.")
        a = 1.0 / float(self.scale)
        one = 2 * math.exp(-a) / math.expm1(-a) ** 2 / int(self.steps) ** 2
        out = (one + (share * (1 - share) if population == "iid" else 0.0 * share)) / users
        return float(out) if out.ndim == 0 else out

    def interval(
        self, support: Ints, trials: Ints, *, confidence: float, method: str = "clopper_pearson"
    ) -> tuple[Floats, Floats]:
        """Return intervals: normal, widened for the tails of sums of few Laplace variables."""
        z = normal_critical(confidence)
        users = np.maximum(trials, 1).astype(float)
        wide = z + np.maximum(z**3 - 3 * z, 0.0) / (8 * users)  # Cornish-Fisher, kurtosis 3 / n
        middle = self.frequencies(support, users)
        half = wide * np.sqrt(self.variance(0.0, users))
        return middle - half, middle + half

    def guess_success(self) -> float:
        """Return how often the best guess from one report is right: the largest number wins.

        Beyond the grid's ends the likelihood is flat, so that numbers are clipped to [0, steps].
        """
        top, a = int(self.steps), 1.0 / float(self.scale)
        x = np.arange(top + 1, dtype=float)
        law = math.tanh(a / 2) * np.exp(-a * x)
        tail = math.exp(-a * top) / (1 + math.exp(-a))  # of at least ``top``
        other = law.copy()
        other[0], other[-1] = 1 / (1 + math.exp(-a)), tail
        own = law[::-1].copy()
        own[0], own[-1] = tail, 1 / (1 + math.exp(-a))
        below = np.concatenate([[0.0], np.minimum(np.cumsum(other), 1.0)])
        wins = (below[1:] ** self.k - below[:-1] ** self.k) / (self.k * other)
        return float(own @ wins)
