"""Unary encoding: one bit per value, each randomised by itself (RAPPOR, OUE)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core.randomness import SecretStream
from privfair.ldp._direct import checked_bits, column_sums, unpacked
from privfair.ldp._exact import ONE, ByteSampler, bernoulli, exp_fraction, threshold
from privfair.ldp._protocol import FrequencyProtocol, Ints

__all__ = ["OUE", "SUE", "UnaryProtocol", "unary_success"]


def unary_bits(
    values: Ints, k: int, own: int, others: ByteSampler, stream: SecretStream
) -> NDArray[np.uint8]:
    """Return packed vectors of k bits: the value's bit is 1 with own / 2^64."""
    n = len(values)
    bits = bit_rows(n, k, others, stream)
    mine = bernoulli(own, n, stream)
    at, mask = values >> 3, np.left_shift(1, values & 7).astype(np.uint8)
    users = np.arange(n)
    bits[users, at] = np.where(mine, bits[users, at] | mask, bits[users, at] & ~mask)
    return bits


def bit_rows(n: int, k: int, sampler: ByteSampler, stream: SecretStream) -> NDArray[np.uint8]:
    """Return n packed vectors of k independent bits, shape (n, ceil(k / 8)), zero beyond k."""
    width = -(-k // 8)
    bits = np.empty((n, width), dtype=np.uint8)
    rows = max(1, (1 << 20) // width)
    for start in range(0, n, rows):
        part = bits[start : start + rows]
        part[:] = sampler.draw(part.size, stream).reshape(part.shape)
    if k % 8:
        bits[:, -1] &= np.uint8((1 << k % 8) - 1)
    return bits


@dataclass(frozen=True)
class UnaryProtocol(FrequencyProtocol):
    """A protocol whose report has an independent bit for each value."""

    @property
    def _bits(self) -> tuple[int, int]:
        """Thresholds of the true value's bit and of all others."""
        raise NotImplementedError

    @property
    def exact_p(self) -> Fraction:
        """Probability that the true value's bit is 1."""
        return Fraction(self._bits[0], ONE)

    @property
    def exact_q(self) -> Fraction:
        """Probability that another value's bit is 1."""
        return Fraction(self._bits[1], ONE)

    @property
    def report_bits(self) -> int:
        """Bits of one report."""
        return self.k

    def outputs(self) -> Iterator[tuple[int, ...]]:
        """Yield the bit vectors."""
        yield from product((0, 1), repeat=self.k)

    def probability(self, output: tuple[int, ...], value: int) -> Fraction:
        """Return the probability of a bit vector."""
        chance = Fraction(1)
        for v, bit in enumerate(output):
            one = self.exact_p if v == value else self.exact_q
            chance *= one if bit else 1 - one
        return chance

    @cached_property
    def _sampler(self) -> ByteSampler:
        return ByteSampler(self._bits[1])

    def randomise_zeros(self, n: int, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return reports of somebody who holds no value at all: every bit as for another one."""
        return {"bits": bit_rows(n, self.k, self._sampler, stream)}

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one packed bit vector per value, shape (n, ceil(k / 8))."""
        return {"bits": unary_bits(values, self.k, self._bits[0], self._sampler, stream)}

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how many reports have each bit."""
        return column_sums(payload["bits"], self.k)

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return the bits."""
        return unpacked(payload["bits"], self.k)

    @property
    def likelihood_ratio(self) -> float:
        """How much more likely a report is under a value whose bit it has than without it."""
        p, q = self.exact_p, self.exact_q
        return float(p * (1 - q) / (q * (1 - p)))

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        return checked_bits(payload["bits"], self.k)


def unary_success(p: float, q: float, k: int) -> float:
    """Return the sum over reports of k bits of the largest probability: k times the success.

    A set bit is guessed, any one of several; if none is set, any value.
    """
    none = (1 - q) ** (k - 1)
    some = -np.expm1(k * np.log1p(-q)) / q if q > 0 else float(k)
    return float(p * some + (1 - p) * none)


@dataclass(frozen=True)
class SUE(UnaryProtocol):
    r"""Symmetric unary encoding: each bit kept with :math:`e^{\epsilon/2} / (e^{\epsilon/2} + 1)`.

    The one-time RAPPOR. OUE has a smaller variance for rare values.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].

    Notes
    -----
    Client O(k) bits per report, server O(n k / 8) bytes. Privacy: epsilon-LDP, exactly as drawn.

    References
    ----------
    Erlingsson, Pihur, Korolova 2014, "RAPPOR", arXiv 1407.6981.

    Examples
    --------
    >>> round(SUE(16, 1.0).variance(), 5)
    3.9177
    """

    name: ClassVar[str] = "SUE"

    @cached_property
    def _bits(self) -> tuple[int, int]:  # type: ignore[override]
        s = exp_fraction(self.epsilon / 2)
        keep = threshold(s / (s + 1))
        return keep, ONE - keep


@dataclass(frozen=True)
class OUE(UnaryProtocol):
    r"""Optimised unary encoding: the true bit by a fair coin, others 1 with 1 / (e^eps + 1).

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].

    Notes
    -----
    Client O(k) bits per report, server O(n k / 8) bytes. Privacy: epsilon-LDP, exactly as drawn.

    References
    ----------
    Wang, Blocki, Li, Jha 2017, "Locally differentially private protocols for frequency
    estimation", USENIX Security.

    Examples
    --------
    >>> round(OUE(16, 1.0).variance(), 5)
    3.68269
    """

    name: ClassVar[str] = "OUE"

    @cached_property
    def _bits(self) -> tuple[int, int]:  # type: ignore[override]
        return ONE // 2, threshold(1 / (exp_fraction(self.epsilon) + 1), up=True)
