"""Exact sampling for local randomisers: integers against 64-bit thresholds, never a float.

A probability p is replaced by T / 2^64 with an integer T on the safe side, so that the epsilon of
the law that is really drawn can be computed with integers, and never exceeds the declared one.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privfair.core.randomness import SecretStream

__all__ = ["ONE", "ByteSampler", "bernoulli", "below", "exp_fraction", "threshold"]

ONE = 1 << 64
"""The denominator of all probabilities."""

_DIGITS = 60
_SYMBOLS = 1 << 16


@lru_cache(maxsize=256)
def exp_fraction(x: float, *, up: bool = False) -> Fraction:
    """Return a rational number just below (or above) e^x, to 60 digits.

    Examples
    --------
    >>> float(exp_fraction(1.0))
    2.718281828459045
    >>> exp_fraction(1.0) < exp_fraction(1.0, up=True)
    True
    """
    context = Context(prec=_DIGITS + 20)
    value = Decimal(x).exp(context)
    digits = Context(prec=_DIGITS, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    return Fraction(digits.plus(value))


def threshold(p: Fraction, *, up: bool = False) -> int:
    """Return T with T / 2^64 the largest multiple of 2^-64 that is at most p (or least above)."""
    scaled = p * ONE
    whole = scaled.numerator // scaled.denominator
    return whole + (1 if up and whole != scaled else 0)


def bernoulli(t: int, size: int, stream: SecretStream) -> NDArray[np.bool_]:
    """Return ``size`` independent draws that are True with probability t / 2^64 exactly."""
    if t >= ONE:
        return np.ones(size, dtype=bool)
    return stream.uint64(size) < np.uint64(t)


def below(m: int, size: int, stream: SecretStream) -> NDArray[np.int64]:
    """Return ``size`` independent integers, uniform on [0, m) exactly, by rejection."""
    if m & (m - 1) == 0:  # a power of two takes its own bits
        return (stream.uint64(size) & np.uint64(m - 1)).astype(np.int64)
    limit = ONE - ONE % m
    words = stream.uint64(size)
    while True:
        bad = words >= np.uint64(limit)
        if not bad.any():
            return (words % np.uint64(m)).astype(np.int64)
        words[bad] = stream.uint64(int(bad.sum()))


class ByteSampler:
    """Bytes of eight independent Bernoulli bits each, from about two random bits per bit.

    Sixteen uniform bits choose among the 256 patterns by a table that holds the floor of each
    pattern's probability; what the floors leave over (0.4 % at most) is settled by 64 more bits,
    and a tie of these by an exact comparison of big integers.

    Parameters
    ----------
    t : int
        Each bit is 1 with probability t / 2^64.
    """

    def __init__(self, t: int) -> None:
        weights = [t**i * (ONE - t) ** (8 - i) for i in range(9)]  # in units of 2^-512
        whole = ONE**8
        patterns = [weights[b.bit_count()] for b in range(256)]
        floors = [w * _SYMBOLS // whole for w in patterns]
        rest = [w * _SYMBOLS - f * whole for w, f in zip(patterns, floors, strict=True)]
        self._table = np.repeat(np.arange(256, dtype=np.uint8), floors)
        self._kept = len(self._table)
        self._table = np.concatenate([self._table, np.zeros(_SYMBOLS - self._kept, np.uint8)])
        total = sum(rest)
        sums, self._edges = 0, []
        for r in rest[:-1]:
            sums += r
            self._edges.append(Fraction(sums * ONE, total) if total else Fraction(ONE))
        self._cells = np.array(
            [min(e.numerator // e.denominator, ONE - 1) for e in self._edges], dtype=np.uint64
        )

    def draw(self, size: int, stream: SecretStream) -> NDArray[np.uint8]:
        """Return ``size`` bytes."""
        symbols = np.frombuffer(stream.bytes(2 * size), dtype=np.uint16)
        out: NDArray[np.uint8] = self._table[symbols]
        left = np.flatnonzero(symbols >= self._kept)
        if left.size:
            out[left] = self._rest(left.size, stream)
        return out

    def _rest(self, size: int, stream: SecretStream) -> NDArray[np.uint8]:
        words = stream.uint64(size)
        # A word strictly between two cells that hold an edge is on one side of it for certain.
        found = np.searchsorted(self._cells, words, side="right")
        same = np.searchsorted(self._cells, words, side="left") != found
        for at in np.flatnonzero(same):
            found[at] = self._settle(int(words[at]), stream)
        return found.astype(np.uint8)

    def _settle(self, word: int, stream: SecretStream) -> int:
        value, bits = word, 0
        while True:  # one more word each time the cell of the number still holds an edge
            low, high = Fraction(value, 1 << bits), Fraction(value + 1, 1 << bits)
            inside = [e for e in self._edges if low < e < high]
            if not inside:
                return sum(e <= low for e in self._edges)
            value = value << 64 | int(stream.uint64(1)[0])
            bits += 64
