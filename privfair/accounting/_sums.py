"""Running totals that are exact, so that adding a charge costs the same however many there are."""

from __future__ import annotations

import math

from privfair.accounting._filters import Spent

__all__ = ["ExactSum", "SpentSum"]

_SHIFT = 1074  # every finite double is a whole multiple of 2**-1074
_ONE = 1 << _SHIFT


class ExactSum:
    """A sum of doubles without rounding error: what can be added can be taken away again.

    The sum is kept as a whole number of 2**-1074. ``value`` is the double nearest to it, which
    is what ``math.fsum`` over all terms returns, in whatever order they came.

    Examples
    --------
    >>> total = ExactSum()
    >>> for _ in range(10):
    ...     total.add(0.1)
    >>> total.value()
    1.0
    """

    __slots__ = ("_infinite", "_scaled")

    def __init__(self) -> None:
        self._scaled = 0
        self._infinite = 0

    def add(self, value: float, sign: int = 1) -> None:
        """Add a non-negative number, or take it away with ``sign=-1``."""
        if not value:
            return
        if math.isinf(value):
            self._infinite += sign
            return
        numerator, denominator = value.as_integer_ratio()
        self._scaled += sign * (numerator << (_SHIFT + 1 - denominator.bit_length()))

    def value(self) -> float:
        """Return the sum as the nearest double."""
        if self._infinite:
            return math.inf
        try:
            return self._scaled / _ONE
        except OverflowError:
            return math.inf


class SpentSum:
    """The sum of charges, in all their units.

    Examples
    --------
    >>> total = SpentSum()
    >>> total.add(Spent(0.5, 1e-6, 0.0))
    >>> total.value()
    Spent(epsilon=0.5, delta=1e-06, loss=0.0, failed=0.0)
    """

    __slots__ = ("_delta", "_epsilon", "_loss")

    def __init__(self) -> None:
        self._epsilon, self._delta, self._loss = ExactSum(), ExactSum(), ExactSum()

    def add(self, charge: Spent, sign: int = 1) -> None:
        """Add a charge, or take it away with ``sign=-1``."""
        self._epsilon.add(charge.epsilon, sign)
        self._delta.add(charge.delta, sign)
        self._loss.add(charge.loss, sign)

    def value(self) -> Spent:
        """Return the sum."""
        return Spent(self._epsilon.value(), self._delta.value(), self._loss.value())
