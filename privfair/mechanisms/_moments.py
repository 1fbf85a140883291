"""Means and variances of a column with public bounds, from exact sums of integers."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.events import LedgerLike
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.frames import as_vector
from privfair.mechanisms._aggregates import _Aggregate, _rational_root
from privfair.mechanisms._tensors import is_tensor

__all__ = ["RESOLUTION", "DPMean", "DPVariance"]

RESOLUTION = 1 << 20
"""Steps of one record's largest contribution; sums of 2**40 records stay exact."""

_K = RESOLUTION
Box = tuple[float, float]


class _Asked(NamedTuple):
    """Marks a value for which an interval is wanted, too."""

    value: Any
    confidence: float


class _Prepared(NamedTuple):
    sums: NDArray[np.int64]
    n: int | None  # None: the number of records is private, and is not looked at
    confidence: float | None


class MomentSums(_Aggregate):
    """Noise on a vector of integer sums, and what can be said about it."""

    def _set_sums(
        self,
        l1: int,
        l2_squared: Fraction,
        size: int,
        epsilon: Any,
        rho: Any,
        neighboring: str,
        noise_random_state: int | None,
    ) -> None:
        """Set the noise for contributions of these norms, in steps."""
        contribution = Fraction(l1) if rho is None else _rational_root(l2_squared)
        budget = {"epsilon": epsilon, "rho": rho}
        self._set_noise("scalar", contribution, budget, neighboring, size, noise_random_state)
        self.noise_scale = self.noise_scale / _K
        self.sensitivity = self.sensitivity / _K
        self.n_is_public = self.neighboring != "add_remove"

    def reach(self, level: float) -> float:
        """Return steps that the noise on one sum exceeds with probability at most ``level``."""
        scale = self.noise_scale * _K
        if self.noise == "laplace":  # P(|Z| > q) = 2 exp(-(q + 1) / t) / (1 + exp(-1 / t))
            return math.ceil(scale * math.log(2 / (level * (1 + math.exp(-1 / scale)))))
        # The discrete tail P(|Z| > q) is at most the continuous P(|N| >= q).
        return math.ceil(-scale * float(ndtri(level / 2)))


class _Column(MomentSums):
    """Moments of one column; a subclass says what the released sums mean."""

    _degree: int

    def __init__(
        self,
        low: float,
        high: float,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        self.low, self.high = check.real(low=low), check.real(high=high)
        if not 1e-300 < self.high - self.low < math.inf:
            raise InvalidParameterError(
                f"low must be below high, by more than 1e-300 and no more than the largest float; "
                f"got {low!r} and {high!r}."
            )
        self._half = (self.high - self.low) / 2
        self._middle = self.low + self._half
        square = Fraction(_K * _K)
        if neighboring == "add_remove":  # the shares of a record add up to one
            l1, l2, size = _K, square, self._degree + 1
        elif self._degree == 1:
            l1, l2, size = _K, square, 1
        else:  # |u| <= 1 and |u^2 - 1/2| <= 1/2
            l1, l2, size = 3 * _K // 2, square * 5 / 4, 2
        self._set_sums(l1, l2, size, epsilon, rho, neighboring, noise_random_state)

    def estimate(
        self,
        value: Any,
        *,
        confidence: float = 0.95,
        ledger: LedgerLike | None = None,
        purpose: str = "",
    ) -> Estimate:
        """Return the release with an interval, at the price of one release.

        Parameters
        ----------
        value : array-like of shape (n,)
        confidence : float, default=0.95
            Level at which the interval holds the clipped column's own value: it covers noise and
            rounding, not what another sample of people would give.
        ledger, purpose
            As in ``release``.
        """
        level = check.confidence(confidence=confidence)
        found: Estimate = self.release(_Asked(value, level), ledger=ledger, purpose=purpose)
        return found

    def _prepare(self, value: Any) -> _Prepared:
        confidence = None
        if isinstance(value, _Asked):
            value, confidence = value
        if is_tensor(value):
            from privfair.mechanisms._torch import as_numpy

            value = as_numpy(value)
        column = as_vector(value, name="value")
        if column.dtype.kind not in "biuf":
            raise InvalidTypeError(f"moments need numbers, got dtype {column.dtype}.")
        x = column.astype(np.float64)
        if not self.n_is_public:
            return _Prepared(self._shares(x[~np.isnan(x)]), None, confidence)
        if not x.size:
            raise DataError("the column has no rows; its mean and variance are not defined.")
        return _Prepared(self._centred(np.where(np.isnan(x), self._middle, x)), x.size, confidence)

    def _centred(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return sums of u and of u^2 - 1/2, with u in [-1, 1], toward zero in whole steps."""
        x = np.clip(x, self.low, self.high)
        a = np.trunc(np.clip((x - self._middle) / self._half, -1.0, 1.0) * _K).astype(np.int64)
        if self._degree == 1:
            return np.array([a.sum()])
        twice = 2 * a * a - _K * _K  # from the integer a, so that the norm is one of integers
        b = np.sign(twice) * (np.abs(twice) // (2 * _K))
        return np.array([a.sum(), b.sum()])

    def _shares(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return sums of the Bernstein polynomials of t in [0, 1]: at least 0, together 1."""
        x = np.clip(x, self.low, self.high)
        t = np.clip((x - self.low) / (self.high - self.low), 0.0, 1.0)
        a = np.trunc(t * _K).astype(np.int64)
        b = _K - a
        if self._degree == 1:
            return np.array([b.sum(), a.sum()])
        return np.array([(b * b // _K).sum(), (2 * a * b // _K).sum(), (a * a // _K).sum()])

    def _draw(self, prepared: _Prepared) -> Any:
        noisy = self._inner._draw(prepared.sums).astype(np.float64)
        n = prepared.n
        value = self._point(noisy / _K, n)
        if prepared.confidence is None:
            return value
        reach = self.reach((1 - prepared.confidence) / noisy.size)
        boxes = [((s - reach) / _K, (s + reach) / _K) for s in noisy.tolist()]
        low, high = self._interval(boxes, n)
        return Estimate(
            self._name, value, min(low, value), max(high, value), confidence=prepared.confidence,
            n=max(0, round(float(noisy.sum()) / _K)) if n is None else n,
            method="exact quantiles of the noise on each sum, Bonferroni over the sums",
            details={
                "noise": self.noise, "neighboring": self.neighboring,
                "numerics": self.numerics, "seeded": self.seeded,
            },
        )  # fmt: skip

    _name: str

    def _point(self, sums: NDArray[np.float64], n: int | None) -> float:
        raise NotImplementedError

    def _interval(self, boxes: list[Box], n: int | None) -> Box:
        raise NotImplementedError


class DPMean(_Column):
    """Release the mean of a column with public bounds.

    Parameters
    ----------
    low, high : float
        Public bounds; values outside count as lying at them.
    epsilon : float or None
        Pure epsilon under ``neighboring``: discrete Laplace noise. Give epsilon or rho.
    rho : float or None
        zCDP parameter: discrete Gaussian noise.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation that the budget is meant under. Under add_remove the number of records is
        private: it is released with noise, too, and never read for anything else.
    noise_random_state : int or None, default=None
        For tests and benchmarks only.

    Attributes
    ----------
    sensitivity : float
        That of the vector of sums, in units of ``(high - low) / 2`` where n is public, and of
        the whole of a record where it is not.
    noise : {"laplace", "gaussian"}
    noise_scale : float
        Scale or sigma of the noise on each sum, in the same units.
    n_is_public : bool
    numerics : str
        ``"exact"``.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range.
    DataError
        By ``release``, for a column without rows where n is public. Nothing is charged.

    Notes
    -----
    *Algorithm.* With public n: the sum of ``u = (x - middle) / half`` in [-1, 1], rounded toward
    zero to 2^20 steps, plus noise, over n. Under add_remove with t in [0, 1]: the sums of 1 - t
    and t, whose contributions add up to one record, so that one budget pays for both; their ratio
    is the mean. Linear in the rows, the same in every order, no overflow. The result is clipped
    to the bounds, which is post-processing. NaN counts as the middle where n is public, and as no
    record under add_remove. Known limit: rounding toward zero moves the mean toward the middle
    (add_remove: toward ``low``) by at most one part in 2^20 of the range.

    *Privacy.* The event of :class:`DPSum` with a contribution of 1; ``docs/proofs/moments.md``.

    References
    ----------
    Casacuberta, Shoemate, Vadhan, Wagaman, 2022, arXiv:2207.10635.
    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.

    Examples
    --------
    >>> 0 <= DPMean(0, 10, epsilon=1).release([1.5, 20.0, float("nan")]) <= 10
    True
    >>> found = DPMean(0, 10, epsilon=1, neighboring="add_remove").estimate([2.0] * 5000)
    >>> found.low <= found.value <= found.high, found.high - found.low < 0.1
    (True, True)
    """

    _degree = 1
    _name = "mean"

    def _point(self, sums: NDArray[np.float64], n: int | None) -> float:
        if n is not None:
            return self._inside(self._middle + self._half * float(sums[0]) / n)
        below, above = np.maximum(sums, 0.0).tolist()
        share = above / (below + above) if below + above > 0 else 0.5
        return self._inside(self.low + (self.high - self.low) * share)

    def _interval(self, boxes: list[Box], n: int | None) -> Box:
        rounded = 2 * (self.high - self.low) / _K
        if n is not None:
            low, high = (self._middle + self._half * end / n for end in boxes[0])
        else:
            (b0, b1), (a0, a1) = (tuple(max(0.0, end) for end in box) for box in boxes)
            least = a0 / (a0 + b1) if a0 + b1 > 0 else 0.0
            most = a1 / (a1 + b0) if a1 + b0 > 0 else 1.0
            low, high = (self.low + (self.high - self.low) * share for share in (least, most))
        return self._inside(low - rounded), self._inside(high + rounded)

    def _inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)


class DPVariance(_Column):
    """Release the variance (with divisor n) of a column with public bounds.

    Parameters
    ----------
    low, high, epsilon, rho, neighboring, noise_random_state
        As in :class:`DPMean`.

    Attributes
    ----------
    sensitivity, noise, noise_scale, n_is_public, numerics
        As in :class:`DPMean`.

    Raises
    ------
    InvalidParameterError, DataError
        As :class:`DPMean`.

    Notes
    -----
    *Algorithm.* With public n: sums of u and of u^2 - 1/2, u in [-1, 1]; the constant is public
    and makes the L1 norm of a contribution 3/2 instead of 2. Under add_remove: sums of
    (1-t)^2, 2t(1-t) and t^2, which are at least 0 and add up to one record, so that the three
    sums, the number of records among them, cost what one of them does. The second coordinate is
    computed from the rounded first one in integers. The variance is a function of the noisy sums,
    clipped to [0, ((high - low) / 2)^2], which no variance between the bounds exceeds. No
    deviation from a rounded mean is ever formed: rounding the mean would move every deviation.
    NaN and rounding as in :class:`DPMean`.

    *Privacy.* One release of a vector; ``docs/proofs/moments.md``.

    References
    ----------
    Casacuberta, Shoemate, Vadhan, Wagaman, 2022, arXiv:2207.10635. Popoviciu, 1935.

    Examples
    --------
    >>> 0 <= DPVariance(0, 10, epsilon=1).release([1.5, 20.0, 3.0]) <= 25
    True
    """

    _degree = 2
    _name = "variance"

    def _point(self, sums: NDArray[np.float64], n: int | None) -> float:
        if n is not None:
            share = float(sums[1]) / n + 0.5 - (float(sums[0]) / n) ** 2
        else:
            share = 4 * _spread(*np.maximum(sums, 0.0).tolist())
        return self._inside(share)

    def _interval(self, boxes: list[Box], n: int | None) -> Box:
        rounded = 64 / _K
        if n is None:
            low, high = (4 * end for end in _spread_range(boxes))
            return self._inside(low - rounded), self._inside(high + rounded)
        (m0, m1), (s0, s1) = ((low / n, high / n) for low, high in boxes)
        largest = min(1.0, max(abs(m0), abs(m1)))
        smallest = 0.0 if m0 <= 0 <= m1 else min(abs(m0), abs(m1))
        low, high = s0 + 0.5 - largest**2, s1 + 0.5 - smallest**2
        return self._inside(low - rounded), self._inside(high + rounded)

    def _inside(self, share: float) -> float:
        return self._half * self._half * min(max(share, 0.0), 1.0)


def _spread(p0: float, p1: float, p2: float) -> float:
    """Return the variance of t from its three sums; 1/8 where they hold no record."""
    n = p0 + p1 + p2
    return p0 / n * (p2 / n) - (p1 / n) ** 2 / 4 if n > 0 else 0.125


def _spread_range(boxes: list[Box]) -> Box:
    """Return the least and the most of :func:`_spread` over a box.

    Where it is positive it falls in p1; it has no stationary point in (p0, p2), and rises and
    then falls along each of them, turning at p0 = p1 + p2 + p1^2 / (2 p2): the least is at a
    corner, the most at a corner or at such a turn on an edge.
    """
    (a0, b0), (a1, b1), (a2, b2) = (
        (max(0.0, low), max(0.0, high)) for low, high in boxes
    )  # fmt: skip
    if a0 + a1 + a2 <= 0:  # perhaps there is no record
        return 0.0, 0.25
    least = min(_spread(p0, b1, p2) for p0 in (a0, b0) for p2 in (a2, b2))
    spots = [(p0, p2) for p0 in (a0, b0) for p2 in (a2, b2)]
    for fixed in (a2, b2):
        if fixed > 0:
            spots.append((min(max(a1 + fixed + a1**2 / (2 * fixed), a0), b0), fixed))
    for fixed in (a0, b0):
        if fixed > 0:
            spots.append((fixed, min(max(a1 + fixed + a1**2 / (2 * fixed), a2), b2)))
    return least, max(_spread(p0, a1, p2) for p0, p2 in spots)
