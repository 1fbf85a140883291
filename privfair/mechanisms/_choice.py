"""The exponential mechanism's draw, exact for rational energies."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from privfair.mechanisms._lattice import exp_bounds
from privfair.mechanisms._sampling import BitSource

__all__ = ["exact_choice"]

_BITS = 64


def exact_choice(
    energies: Sequence[Fraction], multiplicities: Sequence[int], source: BitSource
) -> tuple[int, int]:
    """Draw class i and a member of it with probability proportional to exp(-energies[i]).

    Parameters
    ----------
    energies : sequence of Fraction
        At least 0, the smallest being 0.
    multiplicities : sequence of int
        Members of each class, at least 1.
    source : BitSource
        Where the bits come from.

    Returns
    -------
    chosen, member : int
        Class, and a uniform position below its multiplicity.

    Notes
    -----
    A class is proposed with the integer weight m_i ceil(2^64 exp(-E_i)), an upper bound, and
    accepted with the ratio of the exact weight to it. The comparison of a uniform real with that
    ratio is decided on integer intervals that are refined until they settle it, so that no
    weight is ever rounded. At least half of the proposals are accepted.
    """
    upper = [exp_bounds(e.numerator, e.denominator, _BITS)[1] for e in energies]
    weights = [u * m for u, m in zip(upper, multiplicities, strict=True)]
    cumulative = list(accumulate(weights))
    while True:
        place = source.below(cumulative[-1])
        i = bisect_right(cumulative, place)
        if _below_ratio(energies[i], upper[i], source):
            return i, source.below(multiplicities[i])


def _below_ratio(energy: Fraction, upper: int, source: BitSource) -> bool:
    """Return U < 2^64 exp(-energy) / upper for a uniform real U, drawn lazily."""
    u, bits = 0, 0
    while True:
        u, bits = u << 64 | source.bits(64), bits + 64
        low, high = exp_bounds(energy.numerator, energy.denominator, _BITS + bits)
        if (u + 1) * upper <= low:
            return True
        if u * upper >= high:
            return False
