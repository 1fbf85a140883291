"""From numbers to steps of a public grid, exactly or not at all."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

__all__ = ["VALUE_LIMIT", "check_granularity", "grid_steps"]

VALUE_LIMIT = 1 << 61
"""Values are clipped to this many grid steps; noise of at most 2**58 never wraps the sum."""


def check_granularity(granularity: float) -> Fraction:
    """Return a power of two as a fraction."""
    value = check.positive(granularity=granularity)
    if math.frexp(value)[0] != 0.5 or not 2.0**-500 <= value <= 2.0**500:
        raise InvalidParameterError(
            f"granularity must be a power of two between 2**-500 and 2**500, got {value!r}. Any "
            "other grid is not represented exactly in binary. "
            f"Near yours: {2.0 ** math.floor(math.log2(value))!r}."
        )
    return Fraction(value)


def grid_steps(
    array: NDArray[Any], granularity: float, *, down: bool = False
) -> NDArray[np.int64]:
    """Return numbers as steps of the grid, to the nearest step or to the one at or below.

    Saturates at ``VALUE_LIMIT`` steps, which is 1-Lipschitz. NaN goes to a bound: the upper one,
    or with ``down`` the lower one. Integers are never seen as floats, which above 2**53 lie
    further apart than one and would move two neighbours away from each other.

    Parameters
    ----------
    array : ndarray of numbers
    granularity : float
        A power of two.
    down : bool, default=False
        Round down instead of to the nearest step. Two numbers that are at most ``s`` steps apart
        end at most ``ceil(s)`` steps apart then, and less than ``s + 1`` otherwise, or just that
        at two ties.

    Raises
    ------
    InvalidTypeError
        For anything but real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise InvalidTypeError(
            f"a number on a grid must be a real number of a numpy type, got dtype {array.dtype}."
        )
    if array.dtype.kind in "biu":
        return _integer_steps(array, Fraction(granularity), down)
    # A long double keeps its own precision: as float64 it would be rounded twice.
    wide = array if array.dtype.itemsize > 8 else array.astype(np.float64)
    scaled = wide * wide.dtype.type(1.0 / granularity)
    limit = float(VALUE_LIMIT)
    if not down:
        steps = np.rint(scaled)
        return np.asarray(np.fmax(np.fmin(steps, limit), -limit).astype(np.int64))
    steps = np.floor(scaled)
    steps = np.where((steps == 0) & (wide < 0), -1.0, steps)  # what had underflowed
    return np.asarray(np.fmin(np.fmax(steps, -limit), limit).astype(np.int64))


def _integer_steps(array: NDArray[Any], step: Fraction, down: bool) -> NDArray[np.int64]:
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    reach = VALUE_LIMIT // step.denominator
    high = min(reach, int(np.iinfo(array.dtype).max))  # uint64 does not fit int64
    low = max(-reach, int(np.iinfo(array.dtype).min))
    kept: NDArray[np.int64] = np.asarray(np.clip(array, low, high).astype(np.int64))
    if step.denominator > 1:
        return kept * np.int64(min(step.denominator, VALUE_LIMIT))
    size = min(step.numerator, 1 << 62)  # beyond it all integers lie in two cells
    return kept // size if down else (kept + size // 2) // size
