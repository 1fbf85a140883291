"""The discrete Gaussian and the discrete Laplace mechanism on a public grid."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, LengthMismatchError
from privfair.core.randomness import secret_stream
from privfair.mechanisms._grid import VALUE_LIMIT, check_granularity, grid_steps
from privfair.mechanisms._price import repeated
from privfair.mechanisms._sampling import discrete_gaussian, discrete_laplace
from privfair.mechanisms._tensors import TensorMechanism

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["DiscreteGaussianMechanism", "DiscreteLaplaceMechanism"]

_MAX_NOISE = Fraction(2**52)
_MOST_ATOMS = 256


def fraction(name: str, value: Any) -> Fraction:
    """Return a positive number as the exact fraction that it is."""
    if isinstance(value, Fraction):
        if value <= 0:
            raise InvalidParameterError(f"{name} must be positive, got {value}.")
        return value
    return Fraction(check.positive(**{name: value}))


def below(value: Fraction) -> float:
    """Return the largest float that is at most ``value``, or one next to it."""
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, 0.0)


def above(value: Fraction) -> float:
    """Return a float of at least ``value``."""
    near = float(value)
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


class _GridMechanism(TensorMechanism):
    """What both mechanisms share: a value on the grid, exact integer noise, no overflow."""

    numerics = "exact"

    def __init__(
        self,
        noise: Fraction,
        sensitivity: Any,
        granularity: float,
        query: str,
        size: int,
        noise_random_state: int | None,
    ) -> None:
        self.granularity = float(check_granularity(granularity))
        self.query = check.one_of(("integer", "real"), query=query)
        self.size = check.positive_int(size=size)
        self.value_sensitivity = fraction("sensitivity", sensitivity)
        step = Fraction(self.granularity)
        if self.query == "integer" and step < 1:
            raise InvalidParameterError(
                f"an integer query needs a granularity of at least 1, got {self.granularity!r}. "
                "Use query='real' for values with a fractional part."
            )
        self._noise = noise / step
        if self._noise > _MAX_NOISE:
            raise InvalidParameterError(
                "the noise would exceed 2**52 grid steps and could leave the range of exact "
                f"integers. Use a coarser granularity than {self.granularity!r}."
            )
        self._stream = secret_stream(noise_random_state)
        self.seeded = self._stream.seeded

    def _steps(self, widening: float) -> Fraction:
        """Return the sensitivity in grid steps, rounding included."""
        exact = self.value_sensitivity / Fraction(self.granularity)
        if self.query == "integer" and self.granularity == 1.0:
            return exact
        return exact + Fraction(widening)

    def _prepare(self, value: Any) -> NDArray[np.int64]:
        array = np.asarray(value)
        if array.size != self.size:
            raise LengthMismatchError(
                f"the value must have size = {self.size} entries, got {array.size}. Noise and "
                "sensitivity were set for that size."
            )
        if self.query == "integer":
            if array.dtype.kind not in "iu":
                raise InvalidTypeError(
                    f"an integer query takes an integer value, got dtype {array.dtype}. Use "
                    "query='real', whose sensitivity includes the rounding."
                )
            # uint64 does not fit int64: clip before the cast.
            high = min(VALUE_LIMIT, int(np.iinfo(array.dtype).max))
            low = max(-VALUE_LIMIT, int(np.iinfo(array.dtype).min))
            kept: NDArray[np.int64] = np.clip(array, low, high).astype(np.int64)
            if self.granularity != 1.0:
                kept //= int(self.granularity)
            return kept
        return grid_steps(array, self.granularity)

    def _draw(self, prepared: NDArray[np.int64]) -> Any:
        noisy = prepared + self._integers().reshape(prepared.shape)
        if self.query == "integer" and self.granularity == 1.0:
            return int(noisy) if noisy.ndim == 0 else noisy
        scaled = noisy.astype(np.float64) * self.granularity
        return float(scaled) if scaled.ndim == 0 else scaled

    def _integers(self) -> NDArray[np.int64]:
        raise NotImplementedError


class DiscreteGaussianMechanism(_GridMechanism):
    """Add discrete Gaussian noise to a number or vector on a public grid.

    Parameters
    ----------
    sigma : float or Fraction
        Scale of the noise in units of the value, above 0; the variance is at most sigma^2.
    sensitivity : float or Fraction, default=1
        L2 bound on one unit's contribution, in units of the value.
    granularity : float, default=1.0
        Grid step, a power of two. For real queries sigma * 2^-10 or less costs next to nothing.
    query : {"integer", "real"}, default="integer"
        Whether the value has an integer dtype. A real value is rounded to the grid.
    size : int, default=1
        Number of entries, public.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes the noise repeatable and the guarantee ``seeded``.

    Attributes
    ----------
    sensitivity : float
        L2 sensitivity of the rounded value, in units of the value: as given for integers on the
        grid 1, else ``sensitivity + granularity * sqrt(size)``.
    numerics : str
        ``"exact"``.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range, or the noise would leave 64-bit integers.
    InvalidTypeError
        By ``release``, for a non-integer value of an integer query. Nothing is charged.

    Notes
    -----
    *Algorithm.* value to grid steps, saturating at 2^61 with NaN going to a bound; exact integer
    noise; back to units of the value. Linear in ``size``.

    *Privacy.* Unit and neighbouring relation: those of the sensitivity, under which the event
    ``DiscreteGaussian(sigma / sensitivity)`` is rho-zCDP with rho = sensitivity^2 / (2 sigma^2).
    For a vector of integers this is the discrete Gaussian's own theorem, coordinate by
    coordinate.

    References
    ----------
    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.

    Examples
    --------
    >>> mechanism = DiscreteGaussianMechanism(sigma=10.0)
    >>> type(mechanism.release(1000)).__name__
    'int'
    """

    def __init__(
        self,
        sigma: float | Fraction,
        sensitivity: float | Fraction = 1,
        *,
        granularity: float = 1.0,
        query: str = "integer",
        size: int = 1,
        noise_random_state: int | None = None,
    ) -> None:
        exact = fraction("sigma", sigma)
        super().__init__(exact, sensitivity, granularity, query, size, noise_random_state)
        self.sigma = float(exact)
        root = math.isqrt(self.size)
        widening = root if root * root == self.size else math.sqrt(self.size) * (1 + 2.0**-50)
        self._sensitive_steps = self._steps(widening)
        self.sensitivity = above(self._sensitive_steps * Fraction(self.granularity))

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return ``DiscreteGaussian(sigma / sensitivity)``, ``count`` times."""
        from privfair.accounting.events import DiscreteGaussian

        event: AccountedEvent = DiscreteGaussian(below(self._noise / self._sensitive_steps))
        return repeated(event, count)

    def _integers(self) -> NDArray[np.int64]:
        return discrete_gaussian(self._noise**2, self.size, self._stream)


class DiscreteLaplaceMechanism(_GridMechanism):
    """Add discrete Laplace (two-sided geometric) noise on a public grid.

    Parameters
    ----------
    scale : float or Fraction
        Scale t of the noise in units of the value: ``P(x)`` is proportional to ``exp(-|x| / t)``.
    sensitivity : float or Fraction, default=1
        L1 bound on one unit's contribution, in units of the value.
    granularity, query, size, noise_random_state
        As in :class:`DiscreteGaussianMechanism`.

    Attributes
    ----------
    sensitivity : float
        L1 sensitivity of the rounded value, in units of the value: as given for integers on the
        grid 1, else ``sensitivity + granularity * size``.
    numerics : str
        ``"exact"``.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range, or the noise would leave 64-bit integers.

    Notes
    -----
    *Privacy.* Unit and neighbouring relation: those of the sensitivity. The event is
    ``DiscreteLaplace(a, sensitivity)`` in grid steps: pure epsilon-DP with epsilon =
    sensitivity / scale.

    References
    ----------
    Ghosh, Roughgarden, Sundararajan, 2009, arXiv:0811.2841.
    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.

    Examples
    --------
    >>> mechanism = DiscreteLaplaceMechanism(scale=2)
    >>> len(mechanism.release([5]))
    1
    """

    def __init__(
        self,
        scale: float | Fraction,
        sensitivity: float | Fraction = 1,
        *,
        granularity: float = 1.0,
        query: str = "integer",
        size: int = 1,
        noise_random_state: int | None = None,
    ) -> None:
        exact = fraction("scale", scale)
        super().__init__(exact, sensitivity, granularity, query, size, noise_random_state)
        self.scale = float(exact)
        # Both neighbours lie on the grid, so that their L1 distance is a whole number of steps.
        self._sensitive_steps = math.floor(self._steps(self.size))
        if self._sensitive_steps < 1:
            raise InvalidParameterError(
                f"sensitivity {float(self.value_sensitivity)!r} is below one step of the grid "
                f"({self.granularity!r}): such contributions cannot be told from none. Use a "
                "finer granularity."
            )
        self.sensitivity = self._sensitive_steps * self.granularity

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return ``DiscreteLaplace(a, sensitivity)`` in grid steps, ``count`` times.

        Sensitivities of more than 256 steps are priced as ``PureDP``: the loss has an atom for
        every step, more than accountants handle in reasonable time, and the bound is nearly
        the same.
        """
        from privfair.accounting.events import DiscreteLaplace, PureDP

        event: AccountedEvent
        if self._sensitive_steps <= _MOST_ATOMS:
            event = DiscreteLaplace(above(1 / self._noise), self._sensitive_steps)
        else:
            event = PureDP(above(self._sensitive_steps / self._noise))
        return repeated(event, count)

    def _integers(self) -> NDArray[np.int64]:
        return discrete_laplace(self._noise, self.size, self._stream)
