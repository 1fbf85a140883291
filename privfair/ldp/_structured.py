"""Structured supports: Hadamard response and projective geometry response."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import DataError
from privfair.core.randomness import SecretStream
from privfair.ldp._direct import checked_codes, code_dtype
from privfair.ldp._exact import ONE, below, bernoulli, exp_fraction, threshold
from privfair.ldp._protocol import Floats, FrequencyProtocol, Ints

__all__ = ["HR", "PGR", "walsh_hadamard"]

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83)
_CELLS = 1 << 26  # of the table that a transform is made on


def walsh_hadamard(counts: Any) -> Any:
    """Return the Walsh-Hadamard transform; exact for integers. The length is a power of two."""
    out = np.array(counts)
    size = len(out)
    half = 1
    while half < size:
        pairs = out.reshape(-1, 2, half)
        left, right = pairs[:, 0, :].copy(), pairs[:, 1, :]
        pairs[:, 0, :] += right
        np.subtract(left, right, out=right)
        half *= 2
    return out


@dataclass(frozen=True)
class HR(FrequencyProtocol):
    r"""Hadamard response: one of K columns, agreeing with the value's row of a Hadamard matrix.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].

    Notes
    -----
    K is the smallest power of two above k; value v uses row v + 1, as row 0 is constant. Client
    O(1) per report, log2 K bits; server O(n + K log K) by the fast transform. The best choice for
    large domains and small epsilon where communication and server time count. Privacy:
    epsilon-LDP, exactly as drawn.

    References
    ----------
    Acharya, Sun, Zhang 2019, "Hadamard response: estimating distributions privately, efficiently,
    and with little communication", arXiv 1802.04705.

    Examples
    --------
    >>> protocol = HR(16, 1.0)
    >>> protocol.K_, round(protocol.variance(), 5)
    (32, 4.68269)
    """

    name: ClassVar[str] = "HR"

    @property
    def K_(self) -> int:
        """Number of possible reports."""
        return 1 << self.k.bit_length()

    @cached_property
    def _t(self) -> int:
        e = exp_fraction(self.epsilon)
        return threshold(e / (e + 1))

    @property
    def exact_p(self) -> Fraction:
        """Probability that the column agrees with the true value's row."""
        return Fraction(self._t, ONE)

    @property
    def exact_q(self) -> Fraction:
        """Probability that it agrees with another row."""
        return Fraction(1, 2)

    @property
    def report_bits(self) -> int:
        """Bits of one report."""
        return self.k.bit_length()

    def outputs(self) -> Iterator[int]:
        """Yield the columns."""
        yield from range(self.K_)

    def probability(self, output: int, value: int) -> Fraction:
        """Return the probability of a column."""
        agrees = (output & (value + 1)).bit_count() % 2 == 0
        return (self.exact_p if agrees else 1 - self.exact_p) / (self.K_ // 2)

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "K": self.K_}

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one column per value."""
        n = len(values)
        drawn, row = below(self.K_, n, stream), values + 1
        odd = (np.bitwise_count(drawn & row) & 1).astype(bool)
        wanted = ~bernoulli(self._t, n, stream)
        # Flipping one bit of the row's support maps either half onto the other, one to one.
        drawn ^= np.where(odd != wanted, row & -row, 0)
        return {"code": drawn.astype(code_dtype(self.K_))}

    @property
    def _adds(self) -> int:
        return 1

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how often each column was reported."""
        return np.bincount(payload["code"], minlength=self.K_).astype(np.int64)

    @property
    def tally_size(self) -> int:
        """Number of columns."""
        return self.K_

    def support_of(self, tally: Ints, n: int) -> Ints:
        """Return how many columns agree with each value's row."""
        return (n + walsh_hadamard(tally)[1 : self.k + 1]) // 2

    def channel(self) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        """Return products with the channel's matrix and its transpose, by fast transforms."""
        lift = 2 * self.p_ - 1

        def expected(f: Floats) -> Floats:
            padded = np.zeros(self.K_)
            padded[1 : self.k + 1] = f
            return np.asarray((f.sum() + lift * walsh_hadamard(padded)) / self.K_)

        def back(w: Floats) -> Floats:
            return np.asarray((w.sum() + lift * walsh_hadamard(w)[1 : self.k + 1]) / self.K_)

        return expected, back

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which column agrees with which value's row."""
        shared = payload["code"].astype(np.int64)[:, None] & np.arange(1, self.k + 1)
        return np.asarray(np.bitwise_count(shared) % 2 == 0)

    @property
    def _share(self) -> Fraction:
        return Fraction(1, 2)

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        return checked_codes(payload["code"], self.K_)


@lru_cache(maxsize=64)
def _geometry(k: int, epsilon: float) -> tuple[int, int]:
    """Return the prime and the dimension of least variance whose geometry holds k points."""
    best: tuple[float, int, int] | None = None
    for r in _PRIMES:
        t = 3
        while (r**t - 1) // (r - 1) < k:
            t += 1
        if r**t > _CELLS:
            continue
        e = math.exp(min(epsilon, 40.0))
        size, c, c2 = (r**t - 1) // (r - 1), _points(r, t - 1), _points(r, t - 2)
        down = (e - 1) * c + size
        p, q = e * c / down, (e * c2 + c - c2) / down
        variance = q * (1 - q) / (p - q) ** 2
        if best is None or variance < best[0]:
            best = (variance, r, t)
    assert best is not None
    return best[1], best[2]


def _points(r: int, t: int) -> int:
    return (r**t - 1) // (r - 1)


@dataclass(frozen=True)
class PGR(FrequencyProtocol):
    r"""Projective geometry response: points of a finite geometry, each on its value's hyperplane.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].

    Notes
    -----
    Over the field of r elements (r prime, chosen for the least variance, about
    :math:`e^\epsilon + 1`) in dimension t, value v is the v-th point and its report more likely
    one of the points orthogonal to it. The variance is close to that of subset selection with log2
    K bits only; server O(n + r^t log r^t) by a fast Fourier transform. Privacy: epsilon-LDP,
    exactly as drawn.

    References
    ----------
    Feldman, Nelson, Nguyen, Talwar 2022, "Private frequency estimation via projective geometry",
    arXiv 2203.00194.

    Examples
    --------
    >>> protocol = PGR(13, 1.0)
    >>> (protocol.r_, protocol.t_), round(protocol.variance(), 5)
    ((3, 3), 3.04607)
    """

    name: ClassVar[str] = "PGR"

    @property
    def r_(self) -> int:
        """Number of elements of the field."""
        return _geometry(self.k, self.epsilon)[0]

    @property
    def t_(self) -> int:
        """Dimension of the vector space."""
        return _geometry(self.k, self.epsilon)[1]

    @property
    def K_(self) -> int:
        """Number of points, which are the possible reports."""
        return _points(self.r_, self.t_)

    @property
    def _line(self) -> tuple[int, int]:
        return _points(self.r_, self.t_ - 1), _points(self.r_, self.t_ - 2)

    @cached_property
    def _t(self) -> int:
        e, c = exp_fraction(self.epsilon), self._line[0]
        return threshold(e * c / (e * c + self.K_ - c))

    @property
    def exact_p(self) -> Fraction:
        """Probability that the point is on the true value's hyperplane."""
        return Fraction(self._t, ONE)

    @property
    def exact_q(self) -> Fraction:
        """Probability that it is on another value's hyperplane."""
        c, c2 = self._line
        p = self.exact_p
        return p * Fraction(c2, c) + (1 - p) * Fraction(c - c2, self.K_ - c)

    @property
    def report_bits(self) -> int:
        """Bits of one report."""
        return (self.K_ - 1).bit_length()

    def outputs(self) -> Iterator[int]:
        """Yield the points."""
        yield from range(self.K_)

    def probability(self, output: int, value: int) -> Fraction:
        """Return the probability of a point."""
        pair = self._vectors(np.array([output, value]))
        c = self._line[0]
        if int(pair[0] @ pair[1]) % self.r_ == 0:
            return self.exact_p / c
        return (1 - self.exact_p) / (self.K_ - c)

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "r": self.r_, "t": self.t_}

    def _vectors(self, points: Ints) -> Ints:
        """Return canonical vectors (first non-zero coordinate 1) of points, shape (n, t)."""
        r, t = self.r_, self.t_
        out = np.zeros((len(points), t), dtype=np.int64)
        start = 0
        for lead in range(t):
            free = t - 1 - lead
            inside = (points >= start) & (points < start + r**free)
            rest = points[inside] - start
            out[inside, lead] = 1
            for j in range(free):
                out[inside, t - 1 - j] = rest % r
                rest = rest // r
            start += r**free
        return out

    def _indices(self, vectors: Ints) -> Ints:
        """Return the point of each non-zero vector."""
        r, t = self.r_, self.t_
        lead = (vectors != 0).argmax(axis=1)
        inverse = np.array([0] + [pow(x, -1, r) for x in range(1, r)])
        rows = np.arange(len(vectors))
        scaled = vectors * inverse[vectors[rows, lead]][:, None] % r
        number = np.zeros(len(vectors), dtype=np.int64)
        for j in range(t):
            number = number * r + np.where(j > lead, scaled[:, j], 0)
        starts = np.cumsum([0] + [r ** (t - 1 - j) for j in range(t - 1)])
        return starts[lead] + number

    def randomise(self, values: Ints, stream: SecretStream) -> dict[str, NDArray[Any]]:
        """Return one point per value."""
        r, t = self.r_, self.t_
        n = len(values)
        own = self._vectors(values)
        lead = (own != 0).argmax(axis=1)
        on = bernoulli(self._t, n, stream)
        z = np.empty((n, t), dtype=np.int64)
        todo = np.arange(n)
        while todo.size:
            z[todo] = below(r, todo.size * t, stream).reshape(-1, t)
            aim = np.where(on[todo], 0, 1 + below(max(r - 1, 1), todo.size, stream))
            # The canonical vector has a 1 at its lead: that coordinate settles the product.
            z[todo, lead[todo]] = 0
            rest = (z[todo] * own[todo]).sum(axis=1)
            z[todo, lead[todo]] = (aim - rest) % r
            todo = todo[~z[todo].any(axis=1)]  # the zero vector is no point
        return {"code": self._indices(z).astype(code_dtype(self.K_))}

    @property
    def _adds(self) -> int:
        return 1

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how often each point was reported."""
        return np.bincount(payload["code"], minlength=self.K_).astype(np.int64)

    @property
    def tally_size(self) -> int:
        """Number of points."""
        return self.K_

    def support_of(self, tally: Ints, n: int) -> Ints:
        """Return how many points are on each value's hyperplane."""
        found = self._on_hyperplanes(tally.astype(float))[: self.k]
        whole = np.rint(found)
        if np.abs(found - whole).max(initial=0.0) > 0.1:
            raise DataError("too many reports for the transform; aggregate fewer at a time.")
        return whole.astype(np.int64)

    def _on_hyperplanes(self, weights: Floats) -> Floats:
        """Return for each point the sum of the weights of points orthogonal to it."""
        r, t = self.r_, self.t_
        table = np.zeros((r,) * t)
        vectors = self._vectors(np.arange(self.K_))
        for factor in range(1, r):
            table[tuple((vectors * factor % r).T)] = weights
        # The transform at v is the sum over y of w_y (r [<v, y> = 0] - 1), a real number.
        found = np.fft.fftn(table).real[tuple(vectors.T)]
        return np.asarray((found + weights.sum()) / r)

    def channel(self) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        """Return products with the channel's matrix and its transpose, by fast transforms."""
        c, size = self._line[0], self.K_
        inside, outside = self.p_ / c, (1 - self.p_) / (size - c)

        def both(x: Floats) -> Floats:
            return outside * x.sum() + (inside - outside) * self._on_hyperplanes(x)

        def expected(f: Floats) -> Floats:
            padded = np.zeros(size)
            padded[: self.k] = f
            return both(padded)

        def back(w: Floats) -> Floats:
            return both(w)[: self.k]

        return expected, back

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which point is on which value's hyperplane."""
        points = self._vectors(payload["code"].astype(np.int64))
        own = self._vectors(np.arange(self.k))
        return np.asarray(points @ own.T % self.r_ == 0)

    @property
    def _share(self) -> Fraction:
        return Fraction(self._line[0], self.K_)

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        return checked_codes(payload["code"], self.K_)
