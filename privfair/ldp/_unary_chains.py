"""Longitudinal protocols on bits: unary encoding twice (RAPPOR and its optimised relatives)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.ldp._direct import checked_bits
from privfair.ldp._exact import ONE, ByteSampler, exp_fraction, threshold
from privfair.ldp._longitudinal import ChainProtocol, Pair, Public
from privfair.ldp._protocol import Ints
from privfair.ldp._unary import UnaryProtocol, bit_rows, unary_bits

__all__ = ["LOSUE", "LOUE", "LSOUE", "LSUE"]

_HALF = ONE // 2
Bits = tuple[int, int]


def _optimised(epsilon: float) -> Bits:
    return _HALF, threshold(1 / (exp_fraction(epsilon) + 1), up=True)


def _symmetric(epsilon: float) -> Bits:
    s = exp_fraction(epsilon / 2)
    keep = threshold(s / (s + 1))
    return keep, ONE - keep


def _keeping(wanted: Fraction, kept: Fraction, turned: Fraction) -> Bits:
    """Return the symmetric second step that turns a chance of ``kept`` into ``wanted``."""
    if kept <= turned:
        return 0, ONE
    keep = max(0, min(threshold((wanted - turned) / (kept - turned)), ONE))
    return keep, ONE - keep


def _least_lie(outer: Bits, eps_1: float) -> int | None:
    """Return the least chance q2 of the second step (1/2, q2) whose first report keeps eps_1.

    The ratio of odds falls as q2 grows, so that bisection between 0 and 1/2 over the integers
    finds it exactly; None if even q2 = 0 keeps eps_1, which then is out of reach.
    """
    bound = exp_fraction(eps_1)

    def keeps(t: int) -> bool:
        p, q = _composed(outer, (_HALF, t))
        return p * (1 - q) <= bound * q * (1 - p)

    if keeps(0):
        return None
    low, high = 0, _HALF
    while high - low > 1:
        middle = (low + high) // 2
        if keeps(middle):
            high = middle
        else:
            low = middle
    return high


def _composed(outer: Bits, inner: Bits) -> Pair:
    p2, q2 = (Fraction(t, ONE) for t in inner)
    p, q = (Fraction(t, ONE) * (p2 - q2) + q2 for t in outer)
    return p, q


@dataclass(frozen=True)
class _UnaryChain(ChainProtocol, UnaryProtocol):
    """A chain whose memo and report have one bit per value."""

    _encoding: ClassVar[str] = "unary"

    @property
    def _law(self) -> tuple[Bits, Bits]:
        """Thresholds of both steps, each of a set and of an unset bit."""
        raise NotImplementedError

    @property
    def permanent(self) -> Pair:
        """Probabilities (p1, q1) that the value's and another bit of a memo is 1, exactly."""
        p, q = self._law[0]
        return Fraction(p, ONE), Fraction(q, ONE)

    @property
    def instantaneous(self) -> Pair:
        """Probabilities (p2, q2) that a bit of a report is 1 if the memo's is 1 or 0, exactly."""
        p, q = self._law[1]
        return Fraction(p, ONE), Fraction(q, ONE)

    @property
    def max_memos(self) -> int:
        """Number of different memos that one user can have: one per value."""
        return self.k

    def empty_payload(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of no reports."""
        return {"bits": np.zeros((0, -(-self.k // 8)), dtype=np.uint8)}

    @cached_property
    def _memo_sampler(self) -> ByteSampler:
        return ByteSampler(self._law[0][1])

    @cached_property
    def _report_samplers(self) -> tuple[ByteSampler, ByteSampler | None]:
        """Samplers of an unset and of a set bit; one of flips if the step is symmetric."""
        p, q = self._law[1]
        return ByteSampler(q), None if p + q == ONE else ByteSampler(p)

    def _draw_memos(self, keys: Ints, public: Public, stream: SecretStream) -> NDArray[Any]:
        return unary_bits(keys, self.k, self._law[0][0], self._memo_sampler, stream)

    def _draw_reports(
        self, memos: NDArray[Any], public: Public, stream: SecretStream
    ) -> dict[str, NDArray[Any]]:
        lie, true = self._report_samplers
        bits = bit_rows(len(memos), self.k, lie, stream)
        if true is None:
            return {"bits": memos ^ bits}
        return {"bits": memos & bit_rows(len(memos), self.k, true, stream) | ~memos & bits}

    def _check_memos(self, memos: NDArray[Any]) -> None:
        checked_bits(memos, self.k)


@dataclass(frozen=True)
class LOSUE(_UnaryChain):
    r"""Longitudinal unary encoding: OUE once for life, symmetric flips for every report.

    The best of the chains on bits: a first report is exactly OUE(eps_1).

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, eps_perm): epsilon of the first report.
    variant : {"tight", "published"}, default="tight"
        The same law: the published closed form is tight.

    Notes
    -----
    Privacy: see ``epsilon_after``; a user with m different values spends at most m eps_perm, and
    when the value changes is not protected. Client O(k) bits per report, server O(n k / 8) bytes.

    References
    ----------
    Arcolezi, Couchot, Al Bouna, Xiao 2022, arXiv 2111.04636.

    Examples
    --------
    >>> protocol = LOSUE(16, 2.0, 1.0)
    >>> round(protocol.variance(), 5), round(protocol.variance(0.5), 3)
    (3.68269, 4.183)
    """

    name: ClassVar[str] = "LOSUE"

    @cached_property
    def _law(self) -> tuple[Bits, Bits]:  # type: ignore[override]
        outer = _optimised(self.eps_perm)
        q1 = Fraction(outer[1], ONE)
        # Not the chance of a 1 but of a 0 in another value's place: it must not get too large.
        wanted = 1 - 1 / (exp_fraction(self.eps_1) + 1)
        return outer, _keeping(wanted, 1 - q1, q1)


@dataclass(frozen=True)
class LSUE(_UnaryChain):
    r"""Longitudinal symmetric unary encoding: the permanent and instantaneous steps of RAPPOR.

    A first report is exactly SUE(eps_1).

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, eps_perm): epsilon of the first report.
    variant : {"tight", "published"}, default="tight"
        The same law.

    Notes
    -----
    Privacy: see ``epsilon_after``; a user with m different values spends at most m eps_perm, and
    when the value changes is not protected. Client O(k) bits per report, server O(n k / 8) bytes.

    References
    ----------
    Erlingsson, Pihur, Korolova 2014, "RAPPOR", arXiv 1407.6981. Arcolezi, Couchot, Al Bouna, Xiao
    2022, arXiv 2111.04636.

    Examples
    --------
    >>> round(LSUE(16, 2.0, 1.0).variance(), 4)
    3.9177
    """

    name: ClassVar[str] = "LSUE"

    @cached_property
    def _law(self) -> tuple[Bits, Bits]:  # type: ignore[override]
        outer = _symmetric(self.eps_perm)
        p1 = Fraction(outer[0], ONE)
        s = exp_fraction(self.eps_1 / 2)
        return outer, _keeping(s / (s + 1), p1, 1 - p1)


@dataclass(frozen=True)
class _SearchedChain(_UnaryChain):
    """A chain with the second step (1/2, q2), whose q2 is found by bisection."""

    _outer: ClassVar[Callable[[float], Bits]]

    @cached_property
    def _law(self) -> tuple[Bits, Bits]:  # type: ignore[override]
        outer = type(self)._outer(self.eps_perm)
        lie = _least_lie(outer, self.eps_1)
        if lie is None:
            raise InvalidParameterError(
                f"eps_1 must be in (0, {self._limit:.6g}) for {self.name} with eps_perm = "
                f"{self.eps_perm:g}, got {self.eps_1:g}: its second step takes too much away for "
                "more. Use LOSUE, which reaches every eps_1 below eps_perm."
            )
        return outer, (_HALF, lie)

    @property
    def _limit(self) -> float:
        """The least epsilon of a first report that is out of reach."""
        raise NotImplementedError


@dataclass(frozen=True)
class LOUE(_SearchedChain):
    r"""Longitudinal unary encoding with OUE in both steps; for comparison, LOSUE is better.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, :math:`\ln((2 e^{\epsilon_\infty} + 1) / 3)`): epsilon of the first report.
    variant : {"tight", "published"}, default="tight"
        The same law, here without the published expression, which overflows.

    Notes
    -----
    The second step is found by bisection over integers, exactly. Privacy: see ``epsilon_after``;
    a user with m different values spends at most m eps_perm, and when the value changes is not
    protected. Client O(k) bits per report, server O(n k / 8) bytes.

    References
    ----------
    Arcolezi, Couchot, Al Bouna, Xiao 2022, arXiv 2111.04636.

    Examples
    --------
    >>> round(LOUE(16, 2.0, 1.0).epsilon_after(1), 9)
    1.0
    """

    name: ClassVar[str] = "LOUE"
    _outer: ClassVar[Callable[[float], Bits]] = staticmethod(_optimised)

    @property
    def _limit(self) -> float:
        # ln((2 E + 1) / 3) without overflow
        return self.eps_perm + math.log((2 + math.exp(-self.eps_perm)) / 3)


@dataclass(frozen=True)
class LSOUE(_SearchedChain):
    r"""Longitudinal unary encoding, SUE then OUE; for comparison, LOSUE is better.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, :math:`\ln(s (2 s + 1) / (s + 2))`), :math:`s = e^{\epsilon_\infty / 2}`: epsilon
        of the first report.
    variant : {"tight", "published"}, default="tight"
        The same law, here without the published expression, which overflows.

    Notes
    -----
    The second step is found by bisection over integers, exactly. Privacy: see ``epsilon_after``;
    a user with m different values spends at most m eps_perm, and when the value changes is not
    protected. Client O(k) bits per report, server O(n k / 8) bytes.

    References
    ----------
    Arcolezi, Couchot, Al Bouna, Xiao 2022, arXiv 2111.04636.

    Examples
    --------
    >>> round(LSOUE(16, 2.0, 1.0).epsilon_after(1), 9)
    1.0
    """

    name: ClassVar[str] = "LSOUE"
    _outer: ClassVar[Callable[[float], Bits]] = staticmethod(_symmetric)

    @property
    def _limit(self) -> float:
        half = self.eps_perm / 2
        return half + math.log((2 + math.exp(-half)) / (1 + 2 * math.exp(-half)))
