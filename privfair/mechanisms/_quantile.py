"""Private quantiles on a public grid, by the exponential mechanism."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.core.frames import as_vector
from privfair.core.privacy import NEIGHBORING
from privfair.core.randomness import secret_stream
from privfair.mechanisms._choice import exact_choice
from privfair.mechanisms._discrete import below, fraction
from privfair.mechanisms._price import repeated
from privfair.mechanisms._sampling import BitSource
from privfair.mechanisms._tensors import TensorMechanism

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["DPQuantile"]

_MAX_STEPS = 1 << 20


class DPQuantile(TensorMechanism):
    """Release quantiles of a column as points of a public grid.

    Parameters
    ----------
    quantiles : float or sequence of float
        Each in [0, 1]; 0.5 is the median.
    low, high : float
        Public bounds. Values outside count as lying at them.
    epsilon : float or Fraction
        Pure epsilon of the whole release under ``neighboring``, split evenly over the quantiles.
    steps : int, default=1024
        Number of grid intervals between the bounds; the candidates are their ends.
    grid : sequence of float or None, default=None
        Public, increasing candidates to be used instead of even steps, all within the bounds.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation that ``epsilon`` is meant under.
    noise_random_state : int or None, default=None
        For tests and benchmarks only.

    Attributes
    ----------
    sensitivity : float
        Most that one record moves the quality of a candidate, over the quantiles: max(p, 1 - p),
        and 1 under replace_one.
    candidates : ndarray of float
        The grid.
    numerics : str
        ``"exact"``.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range.

    Notes
    -----
    *Algorithm.* Candidate v has quality ``-|(1 - p) #{x < v} - p #{x > v}|``, which is largest
    where a share p lies below, and needs no number of records: a record that comes or goes
    changes it by at most max(p, 1 - p), a record that changes by at most 1 (Smith 2011 uses the
    rank error ``|#{x <= v} - p n|``). It is drawn with probability proportional to
    exp(epsilon quality / (2 sensitivity)), exactly: the exponents are fractions and the draw
    rounds none of them. NaN counts as ``low``. O(n log n + steps) per quantile. Several results
    are sorted, which is post-processing.

    *Privacy.* k quantiles are k adaptive exponential mechanisms of ``epsilon / k`` each; the
    event says so and the accountant composes them (basic composition gives ``epsilon``, zCDP
    epsilon^2 / (8 k)). Known limits: the grid limits accuracy; the running time depends on the
    data through sorting.

    References
    ----------
    McSherry, Talwar, 2007. Smith, "Privacy-preserving statistical estimation with optimal
    convergence rates", 2011. Cesar, Rogers, 2021, arXiv:2004.07223.

    Examples
    --------
    >>> mechanism = DPQuantile([0.25, 0.75], low=0, high=100, epsilon=1)
    >>> mechanism.release(range(100)).shape
    (2,)
    """

    numerics = "exact"

    def __init__(
        self,
        quantiles: float | Sequence[float],
        low: float,
        high: float,
        epsilon: float | Fraction,
        *,
        steps: int = 1024,
        grid: Sequence[float] | None = None,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        self._scalar = np.ndim(quantiles) == 0
        self.quantiles = tuple(check.probability(quantiles=q) for q in np.atleast_1d(quantiles))
        if not self.quantiles:
            raise InvalidParameterError("quantiles must hold at least one number, got none.")
        self.low, self.high = check.real(low=low), check.real(high=high)
        if not self.low < self.high:
            raise InvalidParameterError(f"low must be below high, got {low!r} and {high!r}.")
        self.neighboring = check.one_of(NEIGHBORING, neighboring=neighboring)
        self.epsilon = fraction("epsilon", epsilon)
        self.candidates = _candidates(self.low, self.high, steps, grid)
        moved = self.neighboring == "replace_one"
        self.sensitivity = max(1.0 if moved else max(p, 1.0 - p) for p in self.quantiles)
        self._stream = secret_stream(noise_random_state)
        self.seeded = self._stream.seeded

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return one ``ExponentialMechanism`` per quantile.

        The event is stated for a record that comes or goes. Under replacement the accountant
        doubles it, and ``epsilon`` was halved for that.
        """
        from privfair.accounting.events import ExponentialMechanism

        halved = 2 if self.neighboring == "replace_one" else 1
        each = below(self.epsilon / (len(self.quantiles) * halved))
        total = len(self.quantiles) * check.positive_int(count=count)
        return repeated(ExponentialMechanism(each), total)

    def _prepare(self, value: Any) -> NDArray[np.float64]:
        column = as_vector(value, name="value")
        if column.dtype.kind not in "biuf":
            raise InvalidTypeError(f"a quantile needs numbers, got dtype {column.dtype}.")
        return np.sort(np.fmin(np.fmax(column.astype(np.float64), self.low), self.high))

    def _draw(self, prepared: NDArray[np.float64]) -> Any:
        source = BitSource(self._stream.uint64)
        left = np.searchsorted(prepared, self.candidates, side="left")
        right = len(prepared) - np.searchsorted(prepared, self.candidates, side="right")
        found = [self._one(p, left, right, source) for p in self.quantiles]
        if self._scalar:
            return found[0]
        order = np.argsort(np.argsort(self.quantiles, kind="stable"), kind="stable")
        return np.sort(np.array(found))[order]

    def _one(
        self, p: float, left: NDArray[np.intp], right: NDArray[np.intp], source: BitSource
    ) -> float:
        share = Fraction(p)
        halved = 2 if self.neighboring == "replace_one" else 1
        each = Fraction(below(self.epsilon / (len(self.quantiles) * halved)))
        rate = each / (2 * max(share, 1 - share))
        pairs, where, members = np.unique(
            np.stack([left, right]), axis=1, return_inverse=True, return_counts=True
        )
        where = where.reshape(-1)
        errors = [abs((1 - share) * a - share * b) for a, b in pairs.T.tolist()]
        best = min(errors)
        energies = [rate * (error - best) for error in errors]
        chosen, member = exact_choice(energies, members.tolist(), source)
        return float(self.candidates[np.flatnonzero(where == chosen)[member]])


def _candidates(
    low: float, high: float, steps: int, grid: Sequence[float] | None
) -> NDArray[np.float64]:
    if grid is None:
        count = check.positive_int(steps=steps)
        if count > _MAX_STEPS:
            raise InvalidParameterError(f"steps must be at most {_MAX_STEPS}, got {count}.")
        points = low + (high - low) * (np.arange(count + 1) / count)
        points[-1] = high
    else:
        points = np.asarray(grid, dtype=np.float64)
        if points.ndim != 1 or not 1 <= points.size <= _MAX_STEPS + 1:
            raise InvalidParameterError("grid must be a list of at least one candidate.")
        if not (np.isfinite(points).all() and points[0] >= low and points[-1] <= high):
            raise InvalidParameterError(f"grid must lie within [{low!r}, {high!r}].")
    if not (np.diff(points) > 0).all():
        raise InvalidParameterError(
            "the candidates must be strictly increasing; with even steps, the bounds are too "
            "close to each other for that many."
        )
    return points
