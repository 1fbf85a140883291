"""Exact discrete Gaussian and discrete Laplace noise, on integers only.

Two paths with the same law. The scalar one follows Canonne, Kamath and Steinke (2020) line by
line, on Python integers and fractions; it is the reference, and no release uses it: the time that
it takes tells how large its result is. All releases use the table sampler of
:mod:`privfair.mechanisms._lattice`. Neither takes a decision on a floating-point number. All
bits come from a :class:`~privfair.core.randomness.SecretStream`.

References
----------
Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", 2020,
arXiv:2004.00010.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.mechanisms._lattice import GaussianLaw, LaplaceLaw, table_sampler

__all__ = [
    "MAX_SCALE",
    "BitSource",
    "discrete_gaussian",
    "discrete_gaussian_scalar",
    "discrete_laplace",
    "discrete_laplace_scalar",
]

MAX_SCALE = 2**52
"""Largest standard deviation or scale whose noise surely fits a 64-bit integer."""


class BitSource:
    """Uniform bits and integers for the samplers.

    Parameters
    ----------
    words : callable of int -> array of uint64
        Uniform 64-bit words: :meth:`SecretStream.uint64` for released numbers, or the raw
        output of a freshly keyed Philox generator for training noise.
    """

    def __init__(self, words: Callable[[int], NDArray[np.uint64]]) -> None:
        self.words = words
        self._pool: list[int] = []

    def at(self, place: int) -> BitSource:
        """Return the source for one place of an array that is drawn in one pass."""
        return self

    def part(self, places: NDArray[np.intp]) -> BitSource:
        """Return the source for some places of an array that is drawn in one pass."""
        return self

    def bits(self, k: int) -> int:
        """Return a uniform integer of ``k`` bits."""
        value = 0
        for _ in range(-(-k // 64)):
            if not self._pool:
                self._pool = self.words(16).tolist()
            value = value << 64 | self._pool.pop()
        return value >> (-k % 64)

    def below(self, n: int) -> int:
        """Return a uniform integer in [0, n), by rejection."""
        k = (n - 1).bit_length()
        while True:
            value = self.bits(k) if k else 0
            if value < n:
                return value


def bernoulli(p: Fraction, source: BitSource) -> bool:
    """Return True with probability p, a fraction in [0, 1]."""
    return source.below(p.denominator) < p.numerator


def _bernoulli_exp_unit(x: Fraction, source: BitSource) -> bool:
    """Return True with probability exp(-x), for x in [0, 1] (their Algorithm 1)."""
    k = 1
    while bernoulli(x / k, source):
        k += 1
    return k % 2 == 1


def bernoulli_exp(x: Fraction, source: BitSource) -> bool:
    """Return True with probability exp(-x), for x >= 0."""
    while x > 1:
        if not _bernoulli_exp_unit(Fraction(1), source):
            return False
        x -= 1
    return _bernoulli_exp_unit(x, source)


def _accept_signed(negative: bool, magnitude: int) -> bool:
    """Refuse (negative, 0): zero would otherwise be drawn twice as often as it should be."""
    return not (negative and magnitude == 0)


def discrete_laplace_scalar(scale: Fraction, source: BitSource) -> int:
    """Return one draw with P(x) proportional to exp(-|x| / scale) (their Algorithm 2)."""
    t, s = scale.numerator, scale.denominator
    while True:
        u = source.below(t)
        if not bernoulli_exp(Fraction(u, t), source):
            continue
        v = 0
        while _bernoulli_exp_unit(Fraction(1), source):
            v += 1
        magnitude = (u + t * v) // s
        negative = bool(source.bits(1))
        if _accept_signed(negative, magnitude):
            return -magnitude if negative else magnitude


def discrete_gaussian_scalar(sigma2: Fraction, source: BitSource) -> int:
    """Return one draw with P(x) proportional to exp(-x^2 / (2 sigma2)) (their Algorithm 3)."""
    t = isqrt(sigma2.numerator // sigma2.denominator) + 1
    while True:
        y = discrete_laplace_scalar(Fraction(t), source)
        distance = abs(y) - sigma2 / t
        if bernoulli_exp(distance * distance / (2 * sigma2), source):
            return y


def _secret(stream: SecretStream | BitSource) -> BitSource:
    return stream if isinstance(stream, BitSource) else BitSource(stream.uint64)


def _checked(scale2: Fraction, name: str) -> None:
    if scale2 <= 0:
        raise InvalidParameterError(f"{name} must be positive, got {float(scale2)}.")
    if scale2 > MAX_SCALE**2:
        raise InvalidParameterError(
            f"{name} is too large for 64-bit noise: the noise would leave the range of integers "
            f"that are added exactly. It may be at most 2**52; use a coarser granularity."
        )


def discrete_gaussian(
    sigma2: Fraction | int | float, size: int, stream: SecretStream | BitSource
) -> NDArray[np.int64]:
    """Return independent discrete Gaussians, exactly distributed.

    Parameters
    ----------
    sigma2 : Fraction, int or float
        Parameter sigma^2 > 0 of P(x) ~ exp(-x^2 / (2 sigma^2)); a float is taken as the
        fraction that it is. At most 2**104.
    size : int
        How many.
    stream : SecretStream or BitSource
        Where the bits come from.

    Returns
    -------
    ndarray of int64

    Notes
    -----
    Expected time is linear in ``size``; a table is built once per ``sigma2``, some milliseconds.
    A single draw goes through the table, too: the published algorithm loops the longer, the larger
    the number that it returns. See the timing note in the documentation for what remains.

    Examples
    --------
    >>> from privfair.core.randomness import secret_stream
    >>> discrete_gaussian(4, 3, secret_stream()).dtype
    dtype('int64')
    """
    exact = Fraction(sigma2)
    _checked(exact, "sigma")
    source = _secret(stream)
    return table_sampler(GaussianLaw(exact)).draw(size, source)


def discrete_laplace(
    scale: Fraction | int | float, size: int, stream: SecretStream | BitSource
) -> NDArray[np.int64]:
    """Return independent discrete Laplace variables, exactly distributed.

    Parameters
    ----------
    scale : Fraction, int or float
        Parameter t > 0 of ``P(x) = tanh(1 / (2t)) exp(-|x| / t)``. At most 2**52.
    size : int
        How many.
    stream : SecretStream or BitSource
        Where the bits come from.

    Returns
    -------
    ndarray of int64

    Examples
    --------
    >>> from privfair.core.randomness import secret_stream
    >>> len(discrete_laplace(0.5, 3, secret_stream()))
    3
    """
    exact = Fraction(scale)
    _checked(exact * abs(exact), "scale")
    source = _secret(stream)
    return table_sampler(LaplaceLaw(exact)).draw(size, source)
