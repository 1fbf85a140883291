"""The result type of every interval function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from privfair.core import _validation as check

__all__ = ["Interval", "as_result", "critical_value", "normal_critical"]


@dataclass(frozen=True, eq=False)
class Interval:
    """An interval, or an array of intervals.

    Attributes
    ----------
    value, low, high : float or ndarray
        NaN where undefined.
    confidence : float
        Level of each interval.
    method : str
    reason : str
        Why some entries are NaN; empty when none is.

    Examples
    --------
    >>> Interval(0.5, 0.4, 0.6, 0.95, "wilson").contains(0.45)
    True
    """

    value: Any
    low: Any
    high: Any
    confidence: float
    method: str
    reason: str = ""

    def contains(self, truth: Any) -> Any:
        """Return whether the interval holds ``truth``; False where it is undefined."""
        inside = (np.asarray(self.low) <= truth) & (np.asarray(self.high) >= truth)
        return bool(inside) if inside.ndim == 0 else inside


def normal_critical(confidence: float) -> float:
    """Return the two-sided standard normal critical value of a confidence level.

    Examples
    --------
    >>> round(normal_critical(0.95), 4)
    1.96
    """
    return float(ndtri(0.5 + check.confidence(confidence=confidence) / 2))


def critical_value(confidence: float, critical: float | None) -> float:
    """Return ``critical`` when given (simultaneous intervals), else the normal one."""
    level = normal_critical(confidence)
    return level if critical is None else check.positive(critical=critical)


def as_result(array: NDArray[np.float64]) -> Any:
    """Return a float for a 0-d result and the array otherwise."""
    return float(array) if np.ndim(array) == 0 else array
