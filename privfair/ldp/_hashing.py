"""Local hashing: the value is hashed to a few buckets under a public seed, then randomised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.ldp._direct import respond
from privfair.ldp._exact import ONE, exp_fraction, threshold
from privfair.ldp._protocol import FrequencyProtocol, Ints

__all__ = [
    "BLH",
    "OLH",
    "SMALL_DOMAIN",
    "HashingProtocol",
    "check_buckets",
    "hash_bucket",
    "hash_parameters",
    "splitmix",
    "support_of_hashes",
]

MAX_BUCKETS = 256
SMALL_DOMAIN = 1 << 16  # domains up to this size use 32-bit arithmetic
_BLOCK = 1 << 13  # reports handled at a time: their state stays in the cache
_ENUMERATED = 7  # seeds that an exact enumeration looks at: the law does not depend on them


def splitmix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return well mixed 64-bit words, one to one."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_parameters(seeds: NDArray[np.uint64], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return multiplier and offset of each seed's hash function, 32 or 64 bits by the domain."""
    with np.errstate(over="ignore"):
        first = splitmix(seeds)
        if k <= SMALL_DOMAIN:
            return (first >> np.uint64(32)).astype(np.uint32), first.astype(np.uint32)
        return first, splitmix(first)


def hash_bucket(seeds: NDArray[np.uint64], values: Ints, k: int, g: int) -> Ints:
    """Return the bucket of each value under its own seed, in [0, g).

    Multiply-add-shift: with a 32-bit (64-bit) multiplier and offset the upper 16 (32) bits of
    ``a v + b`` are pairwise independent and uniform for values of up to 16 (32) bits.

    References
    ----------
    Dietzfelbinger 1996, "Universal hashing and k-wise independent random variables via integer
    arithmetic without primes", STACS.
    """
    return bucket_of(*hash_parameters(seeds, k), values, k, g)


def bucket_of(a: NDArray[Any], b: NDArray[Any], values: Ints, k: int, g: int) -> Ints:
    """Return the bucket of each value under its own multiplier and offset, in [0, g)."""
    with np.errstate(over="ignore"):
        if k <= SMALL_DOMAIN:
            upper = (a * values.astype(np.uint32) + b) >> np.uint32(16)
            return ((upper * np.uint32(g)) >> np.uint32(16)).astype(np.int64)
        upper = (a * values.astype(np.uint64) + b) >> np.uint64(32)
        return ((upper * np.uint64(g)) >> np.uint64(32)).astype(np.int64)


def support_of_hashes(
    seeds: NDArray[np.uint64], buckets: NDArray[np.uint8], k: int, g: int
) -> Ints:
    """Return for each value how many reports' buckets it hashes to, shape (k,).

    A bucket is an interval of ``a v + b`` modulo 2^32 (2^64): shifted by the interval's low end
    it is one comparison, and from one value to the next the number grows by a. So each report and
    value costs one addition and one comparison, without a multiplication.
    """
    counts = np.zeros(k, dtype=np.int64)
    small = k <= SMALL_DOMAIN
    kind, half = (np.uint32, 16) if small else (np.uint64, 32)
    edges = np.array([-(-(y << half) // g) for y in range(g + 1)], dtype=object)
    low = np.array([int(e) << half for e in edges[:-1]], dtype=kind)
    last = np.array(
        [((int(b) - int(a)) << half) - 1 for a, b in zip(edges[:-1], edges[1:], strict=True)],
        dtype=kind,
    )
    with np.errstate(over="ignore"):
        for start in range(0, len(seeds), _BLOCK):
            part = slice(start, start + _BLOCK)
            a, b = hash_parameters(seeds[part], k)
            y = buckets[part]
            at, wide = (b - low[y]).astype(kind), last[y]
            inside = np.empty(len(at), dtype=bool)
            for v in range(k):
                np.less_equal(at, wide, out=inside)
                counts[v] += np.count_nonzero(inside)
                np.add(at, a, out=at)
    return counts


def check_buckets(g: int | None) -> None:
    """Say why a number of buckets is none; None stands for the best."""
    if g is not None:
        size = check.positive_int(g=g)
        if not 2 <= size <= MAX_BUCKETS:
            raise InvalidParameterError(f"g must be in [2, {MAX_BUCKETS}], got {size}.")


@dataclass(frozen=True)
class HashingProtocol(FrequencyProtocol):
    """A protocol whose report is a seed and, with p, the bucket of the true value under it."""

    @property
    def g_(self) -> int:
        """Number of buckets in use."""
        raise NotImplementedError

    @property
    def exact_q(self) -> Fraction:
        """Probability that another value hashes to the reported bucket, over seeds."""
        return Fraction(1, self.g_)

    @property
    def report_bits(self) -> int:
        """Bits of one report: the seed and the bucket."""
        return 64 + (self.g_ - 1).bit_length()

    def outputs(self) -> Iterator[tuple[int, int]]:
        """Yield reports of a few seeds: probabilities are conditional on the seed."""
        for seed in range(_ENUMERATED):
            for bucket in range(self.g_):
                yield seed, bucket

    def probability(self, output: tuple[int, int], value: int) -> Fraction:
        """Return the probability of a bucket given its seed."""
        seed, bucket = output
        seeds = np.array([seed], dtype=np.uint64)
        own = hash_bucket(seeds, np.array([value]), self.k, self.g_)[0]
        return self.exact_p if own == bucket else (1 - self.exact_p) / (self.g_ - 1)

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        family = "multiply-add-shift-32" if self.k <= SMALL_DOMAIN else "multiply-add-shift-64"
        return {**super().parameters(), "g": self.g_, "hash": family}

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how many reports' buckets each value hashes to."""
        return support_of_hashes(payload["seed"], payload["bucket"], self.k, self.g_)

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which value hashes to which report's bucket."""
        seeds, buckets = payload["seed"], payload["bucket"]
        columns = [
            hash_bucket(seeds, np.full(len(seeds), v), self.k, self.g_) == buckets
            for v in range(self.k)
        ]
        return np.column_stack(columns)

    @property
    def _share(self) -> Fraction:
        return Fraction(1, self.g_)

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        seeds, buckets = payload["seed"], payload["bucket"]
        if seeds.dtype != np.uint64 or buckets.dtype != np.uint8 or seeds.shape != buckets.shape:
            raise DataError("reports must be one 64-bit seed and one bucket each.")
        if seeds.ndim != 1:
            raise DataError("reports must have one dimension.")
        if buckets.size and int(buckets.max()) >= self.g_:
            raise DataError(
                f"a report has a bucket outside [0, {self.g_}): no client of this protocol sends "
                "it."
            )
        return len(seeds)


@dataclass(frozen=True)
class OLH(HashingProtocol):
    r"""Optimised local hashing: a random hash of the value to g buckets, then GRR on the buckets.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    g : int or None, default=None
        Number of buckets, in [2, 256]; None takes :math:`round(e^\epsilon) + 1`, at most 256.

    Notes
    -----
    A report is a public 64-bit seed, drawn without looking at the value, and a bucket. Client
    O(1) per report, server O(n k) with about 0.3 ns per report and value. Privacy: epsilon-LDP
    for every seed, exactly as drawn; it does not depend on the quality of the hash, utility does.

    References
    ----------
    Wang, Blocki, Li, Jha 2017, "Locally differentially private protocols for frequency
    estimation", USENIX Security.

    Examples
    --------
    >>> protocol = OLH(16, 1.0)
    >>> protocol.g_, round(protocol.variance(), 4)
    (4, 3.6917)
    """

    g: int | None = None
    name: ClassVar[str] = "OLH"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_buckets(self.g)

    @cached_property
    def g_(self) -> int:  # type: ignore[override]
        """Number of buckets in use."""
        if self.g is not None:
            return int(self.g)
        best = round(float(exp_fraction(min(self.epsilon, 10.0)))) + 1
        return min(max(2, best), MAX_BUCKETS)

    @cached_property
    def _t(self) -> int:
        e = exp_fraction(self.epsilon)
        return threshold(e / (e + self.g_ - 1))

    @property
    def exact_p(self) -> Fraction:
        """Probability that the reported bucket is the true one."""
        return Fraction(self._t, ONE)

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one seed and one bucket per value."""
        n = len(values)
        seeds = stream.uint64(n)
        own = respond(hash_bucket(seeds, values, self.k, self.g_), self._t, self.g_, stream)
        return {"seed": seeds, "bucket": own.astype(np.uint8)}


@dataclass(frozen=True)
class BLH(OLH):
    r"""Binary local hashing: local hashing with two buckets.

    One bit beside the seed; OLH has a smaller variance for epsilon above ln 2.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    g : None
        Two; not to be given.

    References
    ----------
    Bassily, Smith 2015, "Local, private, efficient protocols for succinct histograms",
    arXiv 1504.04686. Wang, Blocki, Li, Jha 2017, USENIX Security.

    Examples
    --------
    >>> round(BLH(16, 1.0).variance(), 5)
    4.68269
    """

    name: ClassVar[str] = "BLH"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.g not in (None, 2):
            raise InvalidParameterError("BLH has g = 2 buckets; use OLH for another number.")

    @cached_property
    def g_(self) -> int:  # type: ignore[override]
        """Number of buckets: two."""
        return 2
