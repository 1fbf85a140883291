"""Draws with probabilities proportional to exp(-energy), exact for rational energies.

Floating point only proposes: every acceptance is a comparison of a uniform real, drawn bit by
bit, with integer bounds of the exact exponential that are refined until they settle it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from privfair.mechanisms._lattice import exp_bounds
from privfair.mechanisms._sampling import BitSource

__all__ = ["MAX_CANDIDATES", "choose", "exact_choice", "flips"]

MAX_CANDIDATES = (1 << 20) + 1
_TOP = 42  # weights of 2**42, so that those of all candidates together fit 63 bits
_MARGIN = 2.0**-36  # relative; energies below 64 are good to 2**-44 and so are their exponentials
_FAR = 1e6  # larger energies are as good as this one for a proposal
_FLOOR = 2.0**-900  # floats below it have lost their precision


def exact_choice(
    energies: Sequence[Fraction], multiplicities: Sequence[int], source: BitSource
) -> tuple[int, int]:
    """Draw class i and a member of it with probability proportional to exp(-energies[i]).

    Parameters
    ----------
    energies : sequence of Fraction
        At least 0, the smallest being 0.
    multiplicities : sequence of int
        Members of each class, at least 1; at most ``MAX_CANDIDATES`` together.
    source : BitSource
        Where the bits come from.

    Returns
    -------
    chosen, member : int
        Class, and a uniform position below its multiplicity.

    Notes
    -----
    A class is proposed with the integer weight m_i u_i, u_i >= 2^42 exp(-E_i), and accepted with
    the ratio 2^42 exp(-E_i) / u_i. That comparison is exact, so that no weight is ever rounded.
    Nearly every proposal is accepted, whatever the energies.
    """
    floats = np.array([float(e) if e < _FAR else _FAR for e in energies])
    members = np.array(multiplicities, dtype=np.int64)
    chosen = _draw(floats, members, lambda i: energies[i], source)
    return chosen, source.below(int(members[chosen]))


def choose(gaps: NDArray[np.int64], rate: Fraction, source: BitSource) -> int:
    """Draw position i with probability proportional to exp(-rate gaps[i]).

    Parameters
    ----------
    gaps : ndarray of int64
        At least 0, the smallest being 0.
    rate : Fraction
        Above 0.
    source : BitSource
        Where the bits come from.
    """
    ones = np.ones(gaps.size, dtype=np.int64)
    return _draw(_energies(gaps, rate), ones, lambda i: rate * int(gaps[i]), source)


def flips(gaps: NDArray[np.int64], rate: Fraction, source: BitSource) -> NDArray[np.bool_]:
    """Return independent coins, the i-th of which shows heads with probability exp(-rate gap_i).

    Parameters
    ----------
    gaps : ndarray of int64
        At least 0.
    rate : Fraction
        Above 0.
    source : BitSource
        Where the bits come from.

    Notes
    -----
    One word of 64 bits a coin. Where it lies so close to the float probability that the float
    cannot tell the side, more bits of the same uniform real and of the exact exponential decide.
    """
    near = np.exp(-_energies(gaps, rate))
    words = source.words(gaps.size)
    low = words.astype(np.float64) * 2.0**-64
    heads = (low + 2.0**-64) * (1 + _MARGIN) <= near * (1 - _MARGIN)
    tails = low * (1 - _MARGIN) >= near * (1 + _MARGIN) + _FLOOR
    for i in np.flatnonzero(~(heads | tails)).tolist():
        energy = rate * int(gaps[i])
        heads[i] = _settle(energy, 1, 0, source, int(words[i]), 64)
    return heads


def _energies(gaps: NDArray[np.int64], rate: Fraction) -> NDArray[np.float64]:
    # Rates beyond the floats occur only with an absurd budget; the proposal need not be good.
    slope = float(rate) if rate < 2**1000 else 2.0**1000
    return np.minimum(gaps.astype(np.float64) * slope, _FAR)


def _draw(
    floats: NDArray[np.float64],
    members: NDArray[np.int64],
    energy: Callable[[int], Fraction],
    source: BitSource,
) -> int:
    upper = np.floor(np.exp(-floats) * 2.0**_TOP * (1 + _MARGIN)).astype(np.int64) + 1
    cumulative = np.cumsum(upper * members)
    while True:
        place = source.below(int(cumulative[-1]))
        i = int(np.searchsorted(cumulative, place, side="right"))
        if _below_ratio(energy(i), int(upper[i]), source):
            return i


def _below_ratio(energy: Fraction, upper: int, source: BitSource) -> bool:
    """Return U < 2^42 exp(-energy) / upper for a uniform real U, drawn lazily."""
    return _settle(energy, upper, _TOP, source, source.bits(64), 64)


def _settle(
    energy: Fraction, upper: int, shift: int, source: BitSource, u: int, bits: int
) -> bool:
    """Return U < 2^shift exp(-energy) / upper, where ``u`` are the first bits of U."""
    while True:
        low, high = exp_bounds(energy.numerator, energy.denominator, shift + bits)
        if low > upper << bits:
            raise ArithmeticError("a proposal lies below the weight that it must cover")
        if (u + 1) * upper <= low:
            return True
        if u * upper >= high:
            return False
        u, bits = u << 64 | source.bits(64), bits + 64
