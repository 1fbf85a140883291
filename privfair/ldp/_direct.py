"""Direct encoding: generalised randomised response and subset selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from math import comb
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.ldp._exact import ONE, below, bernoulli, exp_fraction, threshold
from privfair.ldp._protocol import Floats, FrequencyProtocol, Ints

__all__ = ["GRR", "SS", "DirectProtocol"]

_PIECE = 1 << 14  # users whose subsets are drawn at a time: their bitmaps stay in the cache


def code_dtype(k: int) -> Any:
    """Return the smallest unsigned type that holds 0, ..., k - 1."""
    return np.uint8 if k <= 1 << 8 else np.uint16 if k <= 1 << 16 else np.uint32


def checked_codes(codes: NDArray[Any], k: int) -> int:
    """Return the number of codes; refuse codes outside the domain."""
    if codes.ndim != 1 or codes.dtype.kind not in "iu":
        raise DataError("reports must be one integer each.")
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) >= k):
        raise DataError(f"a report is not in [0, {k}): no client of this protocol sends it.")
    return int(codes.size)


def respond(values: Ints, t: int, k: int, stream: SecretStream) -> Ints:
    """Return each value with probability t / 2^64, otherwise one of the k - 1 others."""
    lie = ~bernoulli(t, len(values), stream)
    out = values.astype(np.int64)
    true = out[lie]
    other = below(k - 1, len(true), stream)
    out[lie] = other + (other >= true)
    return out


@dataclass(frozen=True)
class DirectProtocol(FrequencyProtocol):
    """A protocol whose report is a value: the true one with p, every other one equally often."""

    @property
    def exact_q(self) -> Fraction:
        """Probability that another, given value is reported."""
        return (1 - self.exact_p) / (self.k - 1)

    @property
    def report_bits(self) -> int:
        """Bits of one report."""
        return (self.k - 1).bit_length()

    def outputs(self) -> Iterator[int]:
        """Yield the values."""
        yield from range(self.k)

    def probability(self, output: int, value: int) -> Fraction:
        """Return the probability of a report."""
        return self.exact_p if output == value else self.exact_q

    @property
    def _adds(self) -> int:
        return 1

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how often each value was reported."""
        return np.bincount(payload["code"], minlength=self.k).astype(np.int64)

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which report is which value."""
        return np.asarray(payload["code"][:, None] == np.arange(self.k))

    @property
    def _share(self) -> Fraction:
        return Fraction(1, self.k)

    def channel(self) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        """Return products with the channel's matrix, which is symmetric."""
        p, q = self.p_, self.q_

        def product(x: Floats) -> Floats:
            return (p - q) * x + q * x.sum()

        return product, product

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        return checked_codes(payload["code"], self.k)


@dataclass(frozen=True)
class GRR(DirectProtocol):
    r"""Generalised (k-ary) randomised response: the value itself, or another one.

    The true value is reported with probability :math:`p = e^\epsilon / (e^\epsilon + k - 1)`,
    every other one with :math:`q = 1 / (e^\epsilon + k - 1)`. The best protocol for small domains.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].

    Notes
    -----
    Client O(1) per report, server O(n + k); ceil(log2 k) bits. Privacy: epsilon-LDP, exactly as
    drawn (64-bit threshold on the safe side).

    References
    ----------
    Kairouz, Bonawitz, Ramage 2016, "Discrete distribution estimation under local privacy".

    Examples
    --------
    >>> round(GRR(16, 1.0).variance(), 5)
    5.66243
    """

    name: ClassVar[str] = "GRR"

    @cached_property
    def _t(self) -> int:
        e = exp_fraction(self.epsilon)
        return threshold(e / (e + self.k - 1))

    @property
    def exact_p(self) -> Fraction:
        """Probability that the true value is reported."""
        return Fraction(self._t, ONE)

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one code per value."""
        return {"code": respond(values, self._t, self.k, stream).astype(code_dtype(self.k))}


@dataclass(frozen=True)
class SS(FrequencyProtocol):
    r"""Subset selection: a subset of w values, more likely one that holds the true value.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    omega : int or None, default=None
        Size of the subset, in [1, k - 1]; None takes the one of least variance among the integers
        next to :math:`k / (e^\epsilon + 1)`.

    Notes
    -----
    The best variance of all protocols here for moderate domains, never worse than GRR (omega = 1
    is GRR) or OUE at f = 0. Client O(omega) per report, server O(n k / 8); min(k, omega log2 k)
    bits. Privacy: epsilon-LDP, exactly as drawn.

    References
    ----------
    Ye, Barg 2018, "Optimal schemes for discrete distribution estimation under locally
    differential privacy", IEEE Transactions on Information Theory.

    Examples
    --------
    >>> protocol = SS(16, 1.0)
    >>> protocol.omega_, round(protocol.variance(), 5)
    (4, 3.11072)
    """

    omega: int | None = None
    name: ClassVar[str] = "SS"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.omega is not None:
            size = check.positive_int(omega=self.omega)
            if size >= self.k:
                raise InvalidParameterError(
                    f"omega must be in [1, k - 1] = [1, {self.k - 1}], got {size}."
                )

    @cached_property
    def omega_(self) -> int:
        """Size of the subset in use."""
        if self.omega is not None:
            return int(self.omega)
        best = self.k / (float(exp_fraction(self.epsilon)) + 1)
        sizes = {min(max(w, 1), self.k - 1) for w in (int(best), int(best) + 1)}
        return min(sizes, key=lambda w: (SS(self.k, self.epsilon, w).variance(), w))

    @cached_property
    def _t(self) -> int:
        e, w = exp_fraction(self.epsilon), self.omega_
        return threshold(w * e / (w * e + self.k - w))

    @property
    def exact_p(self) -> Fraction:
        """Probability that the subset holds the true value."""
        return Fraction(self._t, ONE)

    @property
    def exact_q(self) -> Fraction:
        """Probability that the subset holds another, given value."""
        p, k, w = self.exact_p, self.k, self.omega_
        return (p * (w - 1) + (1 - p) * w) / (k - 1)

    @property
    def report_bits(self) -> int:
        """Bits of one report: a bitmap, or a sorted list, whichever is shorter."""
        return min(self.k, self.omega_ * (16 if self.k <= 1 << 16 else 32))

    def outputs(self) -> Iterator[tuple[int, ...]]:
        """Yield the subsets."""
        yield from combinations(range(self.k), self.omega_)

    def probability(self, output: tuple[int, ...], value: int) -> Fraction:
        """Return the probability of a subset."""
        k, w = self.k, self.omega_
        if value in output:
            return self.exact_p / comb(k - 1, w - 1)
        return (1 - self.exact_p) / comb(k - 1, w)

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "omega": self.omega_}

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one packed bitmap per value, shape (n, ceil(k / 8))."""
        out = np.empty((len(values), -(-self.k // 8)), dtype=np.uint8)
        for start in range(0, len(values), _PIECE):
            part = values[start : start + _PIECE]
            out[start : start + _PIECE] = np.packbits(
                self._subsets(part, stream), axis=1, bitorder="little"
            )
        return {"bits": out}

    def _subsets(self, values: Ints, stream: SecretStream) -> NDArray[np.bool_]:
        """Draw the subsets by Floyd's algorithm over the other k - 1 values, all users at once."""
        n, k, w = len(values), self.k, self.omega_
        holds = bernoulli(self._t, n, stream)
        chosen = np.zeros((n, k - 1), dtype=bool)
        rows = np.arange(n)
        # Those whose subset holds the true value draw one other value fewer: they skip the first.
        for step in range(w):
            top = k - 1 - w + step
            at = rows if step else rows[~holds]
            drawn = below(top + 1, len(at), stream)
            taken = chosen[at, drawn]
            chosen[at, np.where(taken, top, drawn)] = True
        out = np.zeros((n, k), dtype=bool)
        place = np.arange(k - 1)[None, :] + (np.arange(k - 1)[None, :] >= values[:, None])
        np.put_along_axis(out, place, chosen, axis=1)
        out[rows, values] = holds
        return out

    @property
    def _adds(self) -> int:
        return self.omega_

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how many subsets hold each value."""
        return column_sums(payload["bits"], self.k)

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which subset holds which value."""
        return unpacked(payload["bits"], self.k)

    @property
    def _share(self) -> Fraction:
        return Fraction(self.omega_, self.k)

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports; each must hold omega values."""
        n = checked_bits(payload["bits"], self.k)
        for start in range(0, n, _PIECE):
            part = np.bitwise_count(payload["bits"][start : start + _PIECE])
            if (part.sum(axis=1, dtype=np.int64) != self.omega_).any():
                raise DataError(
                    f"a report does not hold {self.omega_} values: no client of this protocol "
                    "sends it."
                )
        return n


def checked_bits(bits: NDArray[Any], k: int) -> int:
    """Return the number of packed bitmaps; refuse other shapes and bits beyond the domain."""
    if bits.ndim != 2 or bits.dtype != np.uint8 or bits.shape[1] != -(-k // 8):
        raise DataError(f"reports must be packed bitmaps of {-(-k // 8)} bytes each.")
    if k % 8 and len(bits) and (bits[:, -1] >> (k % 8)).any():
        raise DataError(
            "a report has bits beyond the domain: no client of this protocol sends it."
        )
    return len(bits)


def unpacked(bits: NDArray[np.uint8], k: int) -> NDArray[np.bool_]:
    """Return packed bitmaps as booleans, shape (n, k)."""
    return np.unpackbits(bits, axis=1, bitorder="little", count=k).astype(bool)


def column_sums(bits: NDArray[np.uint8], k: int) -> Ints:
    """Return how many rows of packed bitmaps have each bit: one histogram per byte column."""
    counts = np.zeros((bits.shape[1], 8), dtype=np.int64)
    patterns = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    for start in range(0, len(bits), 1 << 15):
        block = np.ascontiguousarray(bits[start : start + (1 << 15)].T)
        for column, row in enumerate(block):
            counts[column] += np.bincount(row, minlength=256) @ patterns
    return counts.reshape(-1)[:k]
