"""What longitudinal protocols share: a memo drawn once per value, and reports drawn from it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.ldp._exact import ONE, exp_fraction, threshold
from privfair.ldp._protocol import (
    FrequencyProtocol,
    Ints,
    check_domain,
    check_local_epsilon,
    checked_share,
)

__all__ = ["ChainProtocol", "LongitudinalProtocol", "direct_chain"]

Pair = tuple[Fraction, Fraction]
Public = dict[str, NDArray[Any]]
VARIANTS = ("tight", "published")


@dataclass(frozen=True)
class LongitudinalProtocol(FrequencyProtocol):
    """A protocol for values that are collected again and again.

    Each user draws a memo per value once for life (the permanent step), and every report from the
    memo (the instantaneous step). Only what keeps the memos can make reports:
    :class:`LongitudinalClient` on a device, :class:`LongitudinalPopulation` in a simulation.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2; values are 0, ..., k - 1.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.

    Attributes
    ----------
    epsilon : float
        Of the first report (``eps_1``).
    max_memos : int
        Number of different memos that one user can have.
    """

    epsilon: float = field(init=False, repr=False, compare=False)
    eps_perm: float
    longitudinal: ClassVar[bool] = True
    _encoding: ClassVar[str] = "direct"

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_domain(self.k))
        object.__setattr__(self, "eps_perm", check_local_epsilon(eps_perm=self.eps_perm))

    # -- the law -------------------------------------------------------------------------------
    @property
    @abstractmethod
    def permanent(self) -> Pair:
        """Probabilities (p1, q1) of the true and of another symbol (bit) of a memo, exactly."""

    @property
    @abstractmethod
    def instantaneous(self) -> Pair:
        """Probabilities (p2, q2) of a report given the memo, exactly."""

    @property
    @abstractmethod
    def max_memos(self) -> int:
        """Number of different memos that one user can have."""

    @property
    def _memo_support(self) -> Pair:
        """Probabilities that a memo supports the true value, and another one."""
        return self.permanent

    @property
    def exact_p(self) -> Fraction:
        """Probability that a first report supports the true value."""
        return self._through(self._memo_support[0])

    @property
    def exact_q(self) -> Fraction:
        """Probability that a first report supports another, given value."""
        return self._through(self._memo_support[1])

    def _through(self, chance: Fraction) -> Fraction:
        p2, q2 = self.instantaneous
        return chance * p2 + (1 - chance) * q2

    def epsilon_after(self, reports: float, n_distinct: int = 1) -> float:
        """Return the epsilon of so many reports of one user.

        Parameters
        ----------
        reports : int or inf
            T, altogether.
        n_distinct : int, default=1
            How many different values they may be about.

        Returns
        -------
        float
            For one value exactly (rounded up); for several the largest sum over all ways to share
            out the reports, at most ``min(n_distinct, max_memos) * eps_perm``.

        Notes
        -----
        See :func:`privfair.accounting.longitudinal_epsilon`: when a value changes is not
        protected by it.

        Examples
        --------
        >>> from privfair.ldp import LGRR
        >>> protocol = LGRR(3, eps_perm=2.0, eps_1=1.0)
        >>> [round(protocol.epsilon_after(t), 6) for t in (1, 2, 3, 5)]
        [1.0, 1.660877, 1.912359, 1.99538]
        """
        from privfair.accounting import longitudinal_epsilon

        return longitudinal_epsilon(
            self.permanent, self.instantaneous, reports, encoding=self._encoding,
            n_distinct=n_distinct, max_memos=self.max_memos,
        )  # fmt: skip

    def variance_over_time(
        self,
        reports: float,
        f: ArrayLike = 0.0,
        n: float = 1.0,
        population: str = "fixed",
    ) -> Any:
        """Return the variance of the mean of estimates from so many rounds.

        Parameters
        ----------
        reports : int or inf
            T, of each user, about one value that does not change.
        f, n, population
            As for ``variance``.

        Returns
        -------
        float or ndarray
            Var_memo + Var_report / T: never below the variance of a single report with epsilon
            ``eps_perm``, since all reports of a user rest on one memo. If values change, less.

        Examples
        --------
        >>> import math
        >>> from privfair.ldp import GRR, LGRR
        >>> protocol = LGRR(16, eps_perm=2.0, eps_1=1.0)
        >>> [round(protocol.variance_over_time(t), 4) for t in (1, 10, math.inf)]
        [5.6624, 1.0378, 0.524]
        >>> round(GRR(16, 2.0).variance(), 4)
        0.524
        """
        check.one_of(("fixed", "iid"), population=population)
        share = checked_share(f, n)
        rounds = float(reports) if reports == float("inf") else check.positive_int(reports=reports)
        p2, q2 = (float(x) for x in self.instantaneous)
        true, other = (
            (p2 - q2) ** 2 * a * (1 - a) + (a * p2 * (1 - p2) + (1 - a) * q2 * (1 - q2)) / rounds
            for a in map(float, self._memo_support)
        )
        out = (share * true + (1 - share) * other) / (n * (self.p_ - self.q_) ** 2)
        if population == "iid":
            out = out + share * (1 - share) / n
        return float(out) if np.ndim(out) == 0 else out

    def event(self, n_distinct: int = 1) -> Any:
        """Return what all reports about so many values cost together, for accountants."""
        from privfair.accounting.events import LocalDP

        memos = min(check.positive_int(n_distinct=n_distinct), self.max_memos)
        return LocalDP(memos * self.eps_perm)

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "eps_perm": float(self.eps_perm).hex()}

    # -- the two steps, for those who keep the memos ----------------------------------------------
    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Refuse: reports without a memory would average out."""
        raise InvalidParameterError(
            f"{self.name} has no reports without memos: drawing both steps anew for each report "
            "would reveal the value after a few of them. Use LongitudinalClient on a device, or "
            "LongitudinalPopulation to simulate many."
        )

    def _draw_public(self, n: int, stream: SecretStream) -> Public:
        """Draw what n users keep for life and show the server, independent of their values."""
        return {}

    def _memo_keys(self, values: Ints, public: Public) -> Ints:
        """Return which of a user's memos each value uses, in [0, max_memos)."""
        return values

    @abstractmethod
    def _draw_memos(self, keys: Ints, public: Public, stream: SecretStream) -> NDArray[Any]:
        """Draw a memo per key, one row each."""

    @abstractmethod
    def _draw_reports(
        self, memos: NDArray[Any], public: Public, stream: SecretStream
    ) -> dict[str, NDArray[Any]]:
        """Draw a report per memo."""

    @abstractmethod
    def _check_memos(self, memos: NDArray[Any]) -> None:
        """Refuse memos that :meth:`_draw_memos` never draws."""

    def _check_public(self, public: Public) -> None:
        """Refuse what :meth:`_draw_public` never draws."""


@dataclass(frozen=True)
class ChainProtocol(LongitudinalProtocol):
    """A longitudinal protocol whose first report has an epsilon of its own, below the memo's.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, eps_perm): epsilon of the first report.
    variant : {"tight", "published"}, default="tight"
        Whether the second step is as exact as it can be, or as in the paper.
    """

    eps_1: float
    variant: str = field(default="tight", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        first = check_local_epsilon(eps_1=self.eps_1)
        if first >= self.eps_perm:
            raise InvalidParameterError(
                f"eps_1 must be in (0, eps_perm) = (0, {self.eps_perm:g}), got {first:g}: one "
                "report reveals less than all reports together. With equal ones the memo itself "
                "would be sent, and changes of the value be seen."
            )
        check.one_of(VARIANTS, variant=self.variant)
        object.__setattr__(self, "eps_1", first)
        object.__setattr__(self, "epsilon", first)
        p1, q1 = self.permanent
        p2, q2 = self.instantaneous
        if not (p1 > q1 and p2 > q2):
            raise InvalidParameterError(
                f"eps_1 = {first:g} is too small for {self.name}: with probabilities in steps of "
                "2^-64 its reports would say nothing. Take a larger one."
            )


@lru_cache(maxsize=256)
def direct_chain(size: int, eps_perm: float, eps_1: float, variant: str) -> tuple[int, int]:
    """Return the thresholds of both steps of a chain of two randomised responses.

    The tight chain solves for the second step with the probabilities of the first one as drawn,
    so that the first report has epsilon ``eps_1`` and not more. The published one counts a memo
    that is neither the true symbol nor the reported one as if there were none: its report is
    safer than declared, and less useful, if there are more than two symbols.
    """
    top, e = exp_fraction(eps_perm), exp_fraction(eps_1)
    first = threshold(top / (top + size - 1))
    if variant == "published":
        a = exp_fraction(eps_perm, up=True)
        odds = (a * e - 1) / (a - e)
        return first, min(threshold(odds / (odds + size - 1)), ONE)
    p1 = Fraction(first, ONE)
    q1 = (1 - p1) / (size - 1)
    if p1 <= q1:
        return first, 0
    keep = (e / (e + size - 1) - q1) / (p1 - q1)
    return first, max(0, min(threshold(keep), ONE))
