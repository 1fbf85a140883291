"""A table sampler for symmetric unimodal laws on the integers, exact in law.

The half-line 0, 1, 2, ... is cut into cells of M = 2**b points. For a law with weights rho(x)
and an integer factor kappa, every point of cell J gets the integer weight

    omega_J <= kappa * min of rho over the cell,

drawn through an alias table of integers: one random word gives the column, the sign, the
position in the cell and the number that is compared with the column's threshold. What the
integers leave out, kappa rho(x) - omega_J at each point and the tail, is drawn by rejection
with an acceptance decided on integer intervals that are refined until they settle it. So the
output is proportional to kappa rho(x) at every integer, for any table that satisfies the
inequality above; a worse table is slower and not less exact. ``docs/proofs/discrete-gaussian``
has the proof.

Floating point is used to choose omega_J (with a margin that pays for its error) and nowhere
else; the remainder path checks the inequality at each point that it visits.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from privfair.mechanisms._sampling import BitSource

__all__ = ["GaussianLaw", "LaplaceLaw", "TableSampler", "exp_bounds", "table_sampler"]

_COLUMN_BITS = 14
_CUT = 36.0  # energy at the end of the table: exp(-36) = 2e-16 of the mode
_MARGIN = 2.0**-40  # relative; the float evaluation of rho is good to 2**-44
_CHUNK = 1 << 15  # draws per pass, so that the working set stays in the cache
_REMAINDER = -(1 << 62)
_TINY = 2.0**-10  # scales below it give every x >= 1 a weight below exp(-512), as they should


def exp_bounds(num: int, den: int, bits: int) -> tuple[int, int]:
    """Return integers (lo, hi) with lo <= 2**bits * exp(-num / den) <= hi and hi - lo <= 2."""
    if num == 0:
        return 1 << bits, 1 << bits
    whole = num // den
    if whole > bits + 2:  # exp(-whole) < 2**-(bits + 2) since e > 2
        return 0, 1
    halvings = whole.bit_length() + 8
    work = bits + 2 * halvings + 16
    y = (num << work) // (den << halvings)  # in [0, 2**-8), at most one unit too small
    term = total = 1 << work
    k = 0
    while term:
        k += 1
        term = (term * y >> work) // k
        total += -term if k % 2 else term
    # Each of the k terms is off by less than 3 units of the last place, y and the rest of the
    # series by one each. Squaring a number of at most 1 doubles its error and adds 2 units.
    error = 3 * k + 4
    for _ in range(halvings):
        total = total * total >> work
        error = 2 * error + 2
    shift = work - bits
    return max(0, (total - error) >> shift), ((total + error) >> shift) + 1


@dataclass(frozen=True)
class GaussianLaw:
    """Weights exp(-x^2 / (2 sigma2)) at the integers."""

    sigma2: Fraction

    def energy(self, x: int) -> tuple[int, int]:
        """Return the exact -ln rho(x) as numerator and denominator."""
        return x * x * self.sigma2.denominator, 2 * self.sigma2.numerator

    def rho(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weights in floating point, for building tables."""
        return np.exp(-x * x / (2.0 * max(float(self.sigma2), _TINY)))

    def end(self) -> int:
        """Return a point with an energy of about ``_CUT``."""
        return int((2 * _CUT * float(self.sigma2)) ** 0.5) + 2

    def half_life(self, at: int) -> int:
        """Return m with rho(at + i + m) <= rho(at + i) / 2 for all i >= 0."""
        return int(self.sigma2 * Fraction(7, 10) / at) + 1


@dataclass(frozen=True)
class LaplaceLaw:
    """Weights exp(-|x| / scale) at the integers."""

    scale: Fraction

    def energy(self, x: int) -> tuple[int, int]:
        """Return the exact -ln rho(x) as numerator and denominator."""
        return x * self.scale.denominator, self.scale.numerator

    def rho(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weights in floating point, for building tables."""
        return np.exp(-x / max(float(self.scale), _TINY))

    def end(self) -> int:
        """Return a point with an energy of about ``_CUT``."""
        return int(_CUT * float(self.scale)) + 2

    def half_life(self, at: int) -> int:
        """Return m with rho(at + i + m) <= rho(at + i) / 2 for all i >= 0."""
        return int(self.scale * Fraction(7, 10)) + 1


Law = GaussianLaw | LaplaceLaw


def _alias(weights: list[int], capacity: int, columns: int) -> tuple[list[int], list[int]]:
    """Return thresholds and aliases of Walker's method, on integers.

    Column c stands for outcome c below its threshold and for its alias above it; the weights sum
    to ``columns * capacity``.
    """
    rest = weights + [0] * (columns - len(weights))
    alias = list(range(columns))
    threshold = [capacity] * columns
    small = [i for i, w in enumerate(rest) if w < capacity]
    large = [i for i, w in enumerate(rest) if w >= capacity]
    while small:
        s, big = small.pop(), large[-1]
        threshold[s], alias[s] = rest[s], big
        rest[big] -= capacity - rest[s]
        if rest[big] < capacity:
            small.append(large.pop())
    return threshold, alias


class TableSampler:
    """Draws of one law; see the module's first lines.

    Parameters
    ----------
    law : GaussianLaw or LaplaceLaw
        The law.
    column_bits : int, default=14
        Logarithm of the largest number of columns. Fewer make the table cheaper and the
        remainder more frequent.
    """

    def __init__(self, law: Law, column_bits: int = _COLUMN_BITS) -> None:
        self.law = law
        end = law.end()
        most = (1 << column_bits) - 1  # one outcome is the remainder
        self.cell_bits = max(0, (-(-end // most) - 1).bit_length())
        self.cell = 1 << self.cell_bits
        cells = -(-end // self.cell)
        self.column_bits = cells.bit_length()
        self.one_word = 63 - self.column_bits - self.cell_bits >= 32
        self.threshold_bits = 63 - self.column_bits - self.cell_bits * self.one_word
        self._weigh(cells)

    def _weigh(self, cells: int) -> None:
        law, cell = self.law, self.cell
        total = 1 << (self.column_bits + self.threshold_bits)
        first = np.arange(cells, dtype=np.float64) * cell
        top, low = law.rho(first), law.rho(first + (cell - 1))
        self.tail_start = cells * cell
        self.half_life = law.half_life(self.tail_start)
        tail = float(law.rho(np.array([float(self.tail_start)]))[0]) * 2 * self.half_life
        slack = cells * (2 * cell + 4) + 4 * self.half_life + 8
        mass = (float(top.sum()) * cell + tail) * (1 + 2.0**-36)
        self.kappa = int((total - slack) / mass)
        omega = np.floor(self.kappa * low * (1 - _MARGIN)).astype(np.int64)
        high = np.floor(self.kappa * top * (1 + _MARGIN)).astype(np.int64) + 1
        self.omega: list[int] = omega.tolist()
        self.spread: list[int] = (high - omega).tolist()
        self.tail_weight = int(self.kappa * tail * (1 + _MARGIN)) + 1
        parts = [cell * d for d in self.spread] + [self.tail_weight]
        self.cumulative = list(accumulate(parts))
        fast = [cell * w for w in self.omega]
        self.remainder = total - sum(fast)
        if self.remainder < self.cumulative[-1]:
            raise ArithmeticError("the sampler's table leaves no room for its remainder")
        columns = 1 << self.column_bits
        thresholds, alias = _alias([*fast, self.remainder], 1 << self.threshold_bits, columns)
        base = np.full(columns, _REMAINDER, dtype=np.int64)
        base[:cells] = np.arange(cells, dtype=np.int64) * cell
        self._thresholds = np.array(thresholds, dtype=np.uint64)
        self._base = np.stack([base, base[np.array(alias)]], axis=1).ravel()

    def draw(self, size: int, source: BitSource) -> NDArray[np.int64]:
        """Return ``size`` independent draws."""
        out = np.empty(size, dtype=np.int64)
        for start in range(0, size, _CHUNK):
            view = out[start : start + _CHUNK]
            pending = self._fill(view, source)
            while pending.size:
                again = np.empty(pending.size, dtype=np.int64)
                left = self._fill(again, source.part(pending))
                view[pending] = again
                pending = pending[left]
        return out

    def _fill(self, view: NDArray[np.int64], source: BitSource) -> NDArray[np.intp]:
        """Draw once for each place; return the places whose draw was rejected."""
        word = source.words(view.size)
        bits = self.threshold_bits
        index = (word >> np.uint64(64 - self.column_bits)).view(np.int64)
        above = (word & np.uint64((1 << bits) - 1)) >= self._thresholds.take(index)
        index <<= 1
        index += above
        np.take(self._base, index, out=view, mode="clip")
        if self.cell_bits:
            fine = word >> np.uint64(bits) if self.one_word else source.words(view.size)
            fine &= np.uint64(self.cell - 1)
            view += fine.view(np.int64)
        sign = (word >> np.uint64(63 - self.column_bits)).view(np.int64)
        sign &= 1
        # x - s is negative for the remainder and for (negative, 0), which would count zero
        # twice; otherwise (x - s) ^ -s is x for s = 0 and -x for s = 1.
        view -= sign
        odd = np.flatnonzero(view < 0)
        unfinished = view[odd] < -1
        np.negative(sign, out=sign)
        view ^= sign
        if not odd.size:
            return odd
        done = np.zeros(odd.size, dtype=bool)
        for i in np.flatnonzero(unfinished).tolist():
            magnitude = self._remainder(source.at(int(odd[i])))
            negative = bool(sign[odd[i]])
            if magnitude is not None and not (negative and magnitude == 0):
                view[odd[i]] = -magnitude if negative else magnitude
                done[i] = True
        return odd[~done]

    def _remainder(self, source: BitSource) -> int | None:
        """Return a magnitude that the integer weights left out, or None for a rejection."""
        place = source.below(self.remainder)
        j = bisect_right(self.cumulative, place)
        if j > len(self.omega):
            return None  # the padding
        if j < len(self.omega):
            x = j * self.cell + source.bits(self.cell_bits)
            accepted = self._below(x, self.kappa, self.omega[j], self.spread[j], source)
        else:
            lives = 0
            while source.bits(1):
                lives += 1
            x = self.tail_start + lives * self.half_life + source.below(self.half_life)
            factor = self.kappa * self.half_life << (lives + 1)
            accepted = self._below(x, factor, 0, self.tail_weight, source)
        return x if accepted else None

    def _below(self, x: int, factor: int, minus: int, divisor: int, source: BitSource) -> bool:
        """Return U < (factor rho(x) - minus) / divisor for a uniform real U, drawn lazily."""
        num, den = self.law.energy(x)
        u, bits = 0, 0
        while True:
            u, bits = u << 64 | source.bits(64), bits + 64
            work = bits + factor.bit_length() + 8
            low, high = exp_bounds(num, den, work)
            left = factor * low - (minus << work)
            right = factor * high - (minus << work)
            if right < 0 or left > divisor << work:
                raise ArithmeticError("the sampler's table violates its inequality")
            if (u + 1) * divisor << work <= left << bits:
                return True
            if u * divisor << work >= right << bits:
                return False


@lru_cache(maxsize=64)
def table_sampler(law: Law, column_bits: int = _COLUMN_BITS) -> TableSampler:
    """Return the (cached) sampler of a law."""
    return TableSampler(law, column_bits)
