"""Count-mean sketches: hashed domains under public hash functions (Apple's CMS and HCMS)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.core.statistics import normal_critical
from privfair.ldp._direct import checked_bits, unpacked
from privfair.ldp._exact import ONE, below, bernoulli, exp_fraction, threshold
from privfair.ldp._hashing import splitmix
from privfair.ldp._protocol import Floats, FrequencyProtocol, Ints
from privfair.ldp._structured import walsh_hadamard
from privfair.ldp._unary import SUE, unary_success

__all__ = ["CMS", "HCMS", "SketchProtocol"]

_CELLS = 1 << 24  # of a sketch
_ENUMERATED = 3  # rows that an exact enumeration looks at: the law does not depend on them
_BLOCK = 1 << 12


@dataclass(frozen=True)
class SketchProtocol(FrequencyProtocol):
    """A protocol that hashes the value with one of m public functions, drawn for each report.

    For another value u, a report of it supports v if the two collide or by chance; on average
    over the hash functions with q. Which pairs collide is the same for all users, so that an
    error remains which more users do not remove; see :meth:`collision_variance`.
    """

    m: int = 1024
    w: int = 1024
    hash_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        m, w = check.positive_int(m=self.m), check.positive_int(w=self.w)
        if w < 2 or m > 1 << 16 or w > 1 << 16 or m * w > _CELLS:
            raise InvalidParameterError(
                f"m must be in [1, {1 << 16}], w in [2, {1 << 16}] and m * w at most {_CELLS}; "
                f"got m={m}, w={w}."
            )
        if not 0 <= check.non_negative_int(hash_seed=self.hash_seed) < 1 << 63:
            raise InvalidParameterError("hash_seed must be below 2^63.")

    # -- the hash functions, public ---------------------------------------------------------
    def buckets(self, rows: Any, values: NDArray[Any]) -> Ints:
        """Return the bucket of each value under the hash function of its row, in [0, w)."""
        with np.errstate(over="ignore"):
            start = splitmix(np.array([self.hash_seed], dtype=np.uint64))
            key = splitmix(start ^ np.asarray(rows).astype(np.uint64))
            mixed = splitmix(key ^ np.asarray(values).astype(np.uint64))
            high = (mixed >> np.uint64(32)) * np.uint64(self.w)
            return (high >> np.uint64(32)).astype(np.int64)

    @property
    def exact_q(self) -> Fraction:
        """Probability of supporting another value, on average over hash functions."""
        return self.exact_p / self.w + (1 - Fraction(1, self.w)) * self._chance

    @property
    @abstractmethod
    def _chance(self) -> Fraction:
        """Probability of supporting a value that does not collide."""

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {
            **super().parameters(), "m": int(self.m), "w": int(self.w),
            "hash_seed": int(self.hash_seed), "hash": "splitmix64",
        }  # fmt: skip

    # -- what collisions cost ---------------------------------------------------------------
    def collision_variance(self, frequencies: ArrayLike) -> Floats:
        r"""Return the variance that shared hash functions add, whatever the number of users.

        Parameters
        ----------
        frequencies : array-like, shape (k,)
            True frequencies.

        Returns
        -------
        ndarray, shape (k,)
            :math:`\sum_{u \ne v} f_u^2 / (m (w - 1))`, over the choice of the functions.
        """
        squares = np.square(np.asarray(frequencies, dtype=float))
        return np.asarray((squares.sum() - squares) / (self.m * (self.w - 1.0)))

    def variance(self, f: ArrayLike = 0.0, n: Any = 1.0, population: str = "fixed") -> Any:
        """Return a bound on the variance of an estimated frequency, collisions included.

        These add at most ``(1 - f)^2 / (m (w - 1))``, if all others hold one value.
        """
        share = np.asarray(f, dtype=float)
        out = super().variance(f, n, population) + (1 - share) ** 2 / (self.m * (self.w - 1.0))
        return float(out) if np.ndim(out) == 0 else out

    def variance_given(self, f: ArrayLike, trials: Ints, n: int) -> NDArray[np.float64]:
        """Return variances with the collisions that these frequencies would cause."""
        return np.asarray(super().variance(f, n) + self.collision_variance(f))

    def interval(
        self, support: Ints, trials: Ints, *, confidence: float, method: str = "clopper_pearson"
    ) -> tuple[Floats, Floats]:
        """Return intervals that hold the error of collisions as well, half of alpha for each."""
        half = (1.0 + confidence) / 2
        low, high = super().interval(support, trials, confidence=half, method=method)
        raw = self.frequencies(support, trials)
        noise = np.asarray(super().variance(0.0, float(np.max(trials))))
        # The squares of estimates hold their noise: it is taken off, and its spread granted.
        whole = np.square(raw).sum() - self.k * noise + 3 * noise * math.sqrt(2.0 * self.k)
        spread = np.clip(whole - np.square(raw), 0.0, 1.0) / (self.m * (self.w - 1.0))
        wide = normal_critical(half) * np.sqrt(spread)
        return low - wide, high + wide

    @property
    def _row_type(self) -> Any:
        return np.uint8 if self.m <= 1 << 8 else np.uint16

    def _checked_rows(self, rows: NDArray[Any]) -> int:
        if rows.ndim != 1 or rows.dtype != self._row_type:
            raise DataError("reports must name one hash function each.")
        if rows.size and int(rows.max()) >= self.m:
            raise DataError(
                f"a report names a hash function outside [0, {self.m}): no client sends it."
            )
        return len(rows)

    def _used(self) -> Ints:
        """Return how many buckets are in use under each hash function, shape (m,)."""
        values = np.arange(self.k)
        return np.array([len(np.unique(self.buckets(j, values))) for j in range(self.m)])


@dataclass(frozen=True)
class CMS(SketchProtocol):
    r"""Count-mean sketch: the one-hot vector of a hashed value, each of w bits flipped.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    m : int, default=1024
        Number of public hash functions, at most 65,536.
    w : int, default=1024
        Number of buckets; m w at most 2^24.
    hash_seed : int, default=0
        Public; names the family.

    Notes
    -----
    A report is a function's number and w bits; bits are flipped with
    :math:`1 / (e^{\epsilon/2} + 1)`. With p and q taken over the functions, Apple's estimator
    :math:`\frac{w}{w-1} (\frac 1m \sum_j M_{j, h_j(v)} - \frac nw)` is that of all pure
    protocols. Public functions let collisions add a variance of
    :math:`\sum_{u \ne v} f_u^2 / (m (w - 1))` that more users do not remove; intervals hold it.
    Client O(w), server O(n w + m k). Privacy: epsilon-LDP, exactly as drawn.

    References
    ----------
    Apple Differential Privacy Team 2017, "Learning with privacy at scale".

    Examples
    --------
    >>> protocol = CMS(100, 2.0, m=64, w=128)
    >>> protocol.report_bits, round(protocol.q_, 4)
    (134, 0.2725)
    """

    name: ClassVar[str] = "CMS"

    @cached_property
    def _inner(self) -> SUE:
        return SUE(int(self.w), self.epsilon)

    @property
    def exact_p(self) -> Fraction:
        """Probability that the true bucket's bit is 1."""
        return self._inner.exact_p

    @property
    def _chance(self) -> Fraction:
        return self._inner.exact_q

    @property
    def likelihood_ratio(self) -> float:
        """How much more likely a report is under a value whose bucket's bit it has."""
        return self._inner.likelihood_ratio

    @property
    def report_bits(self) -> int:
        """Bits of one report."""
        return int(self.w) + (int(self.m) - 1).bit_length()

    def outputs(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the bit vectors of a few functions: probabilities are conditional on these."""
        if self.w > 12:
            raise InvalidParameterError(f"w must be at most 12 to list all reports, got {self.w}.")
        for row in range(min(self.m, _ENUMERATED)):
            for bits in product((0, 1), repeat=self.w):
                yield row, bits

    def probability(self, output: tuple[int, tuple[int, ...]], value: int) -> Fraction:
        """Return the probability of a bit vector given its function."""
        row, bits = output
        return self._inner.probability(bits, int(self.buckets(row, np.array([value]))[0]))

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one function and one packed vector of w bits per value."""
        rows = below(int(self.m), len(values), stream)
        bits = self._inner.randomise(self.buckets(rows, values), stream)["bits"]
        return {"row": rows.astype(self._row_type), "bits": bits}

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how many reports of each function have each bit, flattened."""
        out = np.zeros((self.m, self.w), dtype=np.int64)
        for start in range(0, len(payload["row"]), _BLOCK):
            rows = payload["row"][start : start + _BLOCK]
            order = np.argsort(rows, kind="stable")
            bits = unpacked(payload["bits"][start : start + _BLOCK][order], int(self.w))
            names, first = np.unique(rows[order], return_index=True)
            out[names] += np.add.reduceat(bits, first, axis=0, dtype=np.int64)
        return out.reshape(-1)

    @property
    def tally_size(self) -> int:
        """Number of cells of the sketch."""
        return int(self.m) * int(self.w)

    def support_of(self, tally: Ints, n: int) -> Ints:
        """Return how many reports have the bit of each value's bucket."""
        sketch, values = tally.reshape(self.m, self.w), np.arange(self.k)
        out = np.zeros(self.k, dtype=np.int64)
        for row, cells in enumerate(sketch):
            out += cells[self.buckets(row, values)]
        return out

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which report has the bit of which value's bucket."""
        bits = unpacked(payload["bits"], int(self.w))
        at = self.buckets(payload["row"][:, None], np.arange(self.k)[None, :])
        return np.take_along_axis(bits, at, axis=1)

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        n = self._checked_rows(payload["row"])
        if checked_bits(payload["bits"], int(self.w)) != n:
            raise DataError("there are not as many functions as bit vectors.")
        return n

    def guess_success(self) -> float:
        """Return how often the best guess from one report is right, for these hash functions."""
        p, q = self._inner.p_, self._inner.q_
        used, count = np.unique(self._used(), return_counts=True)
        each = [unary_success(p, q, int(u)) for u in used]
        return float(np.average(each, weights=count)) / self.k


@dataclass(frozen=True)
class HCMS(SketchProtocol):
    r"""Hadamard count-mean sketch: one sign of the hashed value's row of a Hadamard matrix.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    m : int, default=1024
        Number of public hash functions, at most 65,536.
    w : int, default=1024
        Number of buckets, a power of two; m w at most 2^24.
    hash_seed : int, default=0
        Public; names the family.

    Notes
    -----
    A report is a function's number, a column and one bit, flipped with
    :math:`1 / (e^\epsilon + 1)`. Collisions add the same variance as in :class:`CMS`. Client O(1),
    server O(n + m w log w + m k). Privacy: epsilon-LDP, exactly as drawn.

    References
    ----------
    Apple Differential Privacy Team 2017, "Learning with privacy at scale".

    Examples
    --------
    >>> protocol = HCMS(100, 2.0, m=64, w=128)
    >>> protocol.report_bits, round(protocol.q_, 4)
    (14, 0.503)
    """

    name: ClassVar[str] = "HCMS"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.w & (self.w - 1):
            raise InvalidParameterError(f"w must be a power of two, got {self.w}.")

    @cached_property
    def _t(self) -> int:
        e = exp_fraction(self.epsilon)
        return threshold(e / (e + 1))

    @property
    def exact_p(self) -> Fraction:
        """Probability that the bit agrees with the true value's row."""
        return Fraction(self._t, ONE)

    @property
    def _chance(self) -> Fraction:
        return Fraction(1, 2)

    @property
    def likelihood_ratio(self) -> float:
        """How much more likely a report is under a value that it agrees with."""
        return float(self.exact_p / (1 - self.exact_p))

    @property
    def report_bits(self) -> int:
        """Bits of one report."""
        return (int(self.m) - 1).bit_length() + int(self.w).bit_length()

    def outputs(self) -> Iterator[tuple[int, int, int]]:
        """Yield reports of a few functions: probabilities are conditional on these."""
        yield from product(range(min(self.m, _ENUMERATED)), range(self.w), (0, 1))

    def probability(self, output: tuple[int, int, int], value: int) -> Fraction:
        """Return the probability of a column and a bit given the function."""
        row, column, bit = output
        own = int(self.buckets(row, np.array([value]))[0])
        agrees = (own & column).bit_count() % 2 == 1 - bit
        return (self.exact_p if agrees else 1 - self.exact_p) / self.w

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one function, and one column with its bit, per value."""
        n = len(values)
        rows, columns = below(int(self.m), n, stream), below(int(self.w), n, stream)
        own = self.buckets(rows, values)
        even = np.bitwise_count(own & columns) % 2 == 0
        bit = even == bernoulli(self._t, n, stream)
        return {
            "row": rows.astype(self._row_type),
            "cell": (2 * columns + bit).astype(np.uint32),
        }

    @property
    def _adds(self) -> int:
        return 1

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how often each function, column and bit was reported, flattened."""
        flat = payload["row"].astype(np.int64) * (2 * self.w) + payload["cell"]
        return np.bincount(flat, minlength=self.tally_size).astype(np.int64)

    @property
    def tally_size(self) -> int:
        """Number of different reports."""
        return 2 * int(self.m) * int(self.w)

    def support_of(self, tally: Ints, n: int) -> Ints:
        """Return how many reports agree with each value's row."""
        cells, values = tally.reshape(self.m, self.w, 2), np.arange(self.k)
        out = np.full(self.k, n, dtype=np.int64)
        for row in range(self.m):
            signed = walsh_hadamard(cells[row, :, 1] - cells[row, :, 0])
            out += signed[self.buckets(row, values)]
        return out // 2

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which report agrees with which value's row."""
        at = self.buckets(payload["row"][:, None], np.arange(self.k)[None, :])
        cells = payload["cell"].astype(np.int64)[:, None]
        return np.asarray(np.bitwise_count(at & (cells >> 1)) % 2 == 1 - (cells & 1))

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        n = self._checked_rows(payload["row"])
        cells = payload["cell"]
        if cells.dtype != np.uint32 or cells.shape != (n,):
            raise DataError("reports must have one column and bit each.")
        if n and int(cells.max()) >= 2 * self.w:
            raise DataError(f"a report has a column outside [0, {self.w}): no client sends it.")
        return n

    def guess_success(self) -> float:
        """Return how often the best guess from one report is right, for these hash functions."""
        values, both = np.arange(self.k), 0
        for row in range(self.m):
            used = np.zeros(self.w, dtype=np.int64)
            used[self.buckets(row, values)] = 1
            both += int((np.abs(walsh_hadamard(used)) < used.sum()).sum())
        share = both / (self.m * self.w)
        return (2 * self.p_ * share + (1 - share)) / self.k
