"""Gaussian noise for training: a public grid, integers, a fresh key for every release."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, LengthMismatchError
from privfair.core.randomness import SecretStream, secret_stream
from privfair.mechanisms._ahead import NoiseAhead
from privfair.mechanisms._lattice import GaussianLaw, table_sampler
from privfair.mechanisms._price import repeated
from privfair.mechanisms._sampling import MAX_SCALE
from privfair.mechanisms._tensors import TensorMechanism

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent
    from privfair.mechanisms._lattice import TableSampler

__all__ = ["HardenedGaussian", "hardened_distance", "hardened_extra_delta", "summation_error"]

_LOG2_RATIO = 26  # sigma is at least 2**26 grid steps
_LOG2_WIDENING = 13  # the rounding term is at most 2**-13 of the bound
_LONG = 1 << 12  # coordinates for which a larger table, with rarer remainders, pays
_COLUMN_BITS = 15
_LIMIT = 2.0**51  # of values on the grid: their sum with the noise stays exact in float64
_UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8}


def hardened_distance(draws: int, ratio: float = 2.0**_LOG2_RATIO) -> float:
    """Return the total-variation distance of all noise from rounded Gaussian noise.

    Parameters
    ----------
    draws : int
        Number of coordinates times number of releases.
    ratio : float, default=2**26
        Smallest sigma in grid steps, at least 16.

    Returns
    -------
    float
        ``0.08 sqrt(draws) / ratio^2``, an upper bound for any adaptive sequence of releases.

    Notes
    -----
    The Kullback-Leibler divergence between the discrete and the rounded Gaussian is at most
    ``0.0105 / ratio^4`` per draw; the chain rule adds it up and Pinsker's inequality turns it
    into a distance. Derivation: ``docs/proofs/hardened-gaussian.md``.

    Examples
    --------
    >>> hardened_distance(640 * 210) < 1e-14
    True
    """
    count = check.non_negative_int(draws=draws)
    if not ratio >= 16:
        raise InvalidParameterError(f"ratio must be at least 16 grid steps, got {ratio}.")
    return 0.08 * math.sqrt(count) / ratio**2


def hardened_extra_delta(epsilon: float, releases: int, size: int) -> float:
    """Return what the noise's distance from a Gaussian adds to delta.

    Subtract it from the target delta before calibrating. It depends on public constants only
    and holds for every noise multiplier.

    Parameters
    ----------
    epsilon : float
        Epsilon of the final guarantee.
    releases : int
        Number of noisy sums that the run releases (its steps).
    size : int
        Coordinates of each.

    Returns
    -------
    float
        ``(1 + e^epsilon)`` times :func:`hardened_distance`.

    Examples
    --------
    >>> hardened_extra_delta(1.0, releases=640, size=210) < 1e-13
    True
    """
    eps = check.epsilon(epsilon=epsilon, allow_zero=True)
    draws = check.non_negative_int(releases=releases) * check.positive_int(size=size)
    return (1.0 + math.exp(eps)) * hardened_distance(draws)


def summation_error(terms: int, bound: float, dtype: str = "float32") -> float:
    """Return how far a floating-point sum of bounded vectors can be from the exact sum.

    Holds for every order of summation, fused or not, in L2 norm: with unit roundoff u and
    gamma = terms u / (1 - terms u), the error is at most ``gamma * terms * bound`` (Higham 2002,
    section 4.2). Pass it as ``value_error`` of :class:`HardenedGaussian`.

    Parameters
    ----------
    terms : int
        Public upper bound on the number of summands, a realised batch size not being public.
    bound : float
        L2 bound of one summand.
    dtype : {"float32", "float64", "bfloat16"}, default="float32"
        Precision in which the sum is accumulated.

    Returns
    -------
    float

    References
    ----------
    Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, 2002.
    Casacuberta, Shoemate, Vadhan, Wagaman, 2022, arXiv:2207.10635.

    Examples
    --------
    >>> summation_error(32561, 1.0, "float64") < 1e-6
    True
    """
    count = check.positive_int(terms=terms)
    size = check.positive(bound=bound)
    unit = _UNIT_ROUNDOFF[check.one_of(_UNIT_ROUNDOFF, dtype=dtype)]
    if count * unit >= 0.5:
        raise InvalidParameterError(
            f"a {dtype} sum of up to {count} terms has no useful error bound: its sensitivity "
            "would be unknown. Accumulate in float64 or in smaller blocks."
        )
    return count * unit / (1.0 - count * unit) * count * size


class HardenedGaussian(TensorMechanism):
    """Add Gaussian noise on a public grid to a sum of bounded contributions.

    The value is rounded to the grid g Z with g a power of two, the noise is an integer multiple
    of g drawn exactly from the discrete Gaussian of parameter sigma / g >= 2^26, and both are
    added exactly. Nothing of the value's floating-point representation survives.

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the noise in units of the sensitivity, above 0; the number that the
        accountant uses.
    bound : float
        L2 bound of one unit's contribution to the sum.
    size : int
        Number of coordinates, public.
    value_error : float, default=0.0
        L2 bound on the distance of the computed sum from the exact sum of the contributions; see
        :func:`summation_error`. It widens the sensitivity by twice its value.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes the noise repeatable and the guarantee ``seeded``.

    Attributes
    ----------
    sensitivity : float
        ``bound + g sqrt(size) + 2 value_error``: how far two neighbouring data sets' rounded
        sums can be apart in L2 norm.
    sigma : float
        Standard deviation of the noise, ``noise_multiplier * sensitivity``.
    grid : float
        The grid step g, a power of two with ``g sqrt(size) <= 2^-13 bound``.
    numerics : str
        ``"hardened"``.
    seeded : bool
        Whether the noise is repeatable.
    assumptions : tuple of str
        What the guarantee rests on besides the mathematics.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range.

    Notes
    -----
    *Algorithm.* v = clip(round(value / g)), NaN and infinities going to the clip limits; the
    result is g (v + K) with K discrete Gaussian. Both steps are exact in float64, and the result
    is rounded once to the buffer's precision, which is post-processing. Linear in ``size``,
    about 25 ns per coordinate on one core.

    *Privacy.* Unit and neighbouring relation: those of ``bound``. Mechanism: a Gaussian of
    multiplier ``noise_multiplier`` on values of the grid, rounded to the grid (post-processing),
    plus the distance of the discrete from the rounded Gaussian, which
    :func:`hardened_extra_delta` charges to delta. Composition: that of the accountant, any
    adaptive one. Known limits: ``assumptions``; the running time is not constant.

    References
    ----------
    Mironov, "On significance of the least significant bits for differential privacy", 2012.
    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.
    Haney, Desfontaines, Hartman, Shrestha, Hay, 2022, arXiv:2207.13793.

    Examples
    --------
    >>> import numpy as np
    >>> mechanism = HardenedGaussian(1.1, bound=1.0, size=3)
    >>> total = np.zeros(3, dtype=np.float32)
    >>> mechanism.add_(total) is total
    True
    """

    numerics = "hardened"

    def __init__(
        self,
        noise_multiplier: float,
        bound: float,
        size: int,
        *,
        value_error: float = 0.0,
        noise_random_state: int | None = None,
    ) -> None:
        self.noise_multiplier = check.positive(noise_multiplier=noise_multiplier)
        self.bound = check.positive(bound=bound)
        self.size = check.positive_int(size=size)
        self.value_error = check.non_negative(value_error=value_error)
        coarsest = min(
            self.bound * 2.0**-_LOG2_WIDENING / math.sqrt(self.size),
            self.bound * self.noise_multiplier * 2.0**-_LOG2_RATIO,
        )
        if not 2.0**-900 < coarsest < 2.0**900:
            raise InvalidParameterError(
                f"bound ({self.bound}) and noise_multiplier ({self.noise_multiplier}) leave no "
                "room for a grid in double precision. Rescale the values."
            )
        self.grid = 2.0 ** math.floor(math.log2(coarsest))
        rounding = self.grid * math.sqrt(self.size)
        exact = self.bound + rounding + 2.0 * self.value_error
        self.sensitivity = exact * (1.0 + 2.0**-50)  # pays for the roundings of this line
        self.sigma = self.noise_multiplier * self.sensitivity * (1.0 + 2.0**-51)
        self._ratio = self.sigma / self.grid
        if self._ratio > MAX_SCALE / 64:
            raise InvalidParameterError(
                f"noise_multiplier {self.noise_multiplier} with size {self.size} needs noise of "
                "more than 2**46 grid steps, which would not add exactly. Use a smaller one."
            )
        self._stream: SecretStream = secret_stream(noise_random_state)
        self.seeded = self._stream.seeded
        self._ahead: NoiseAhead | None = None

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the guarantee rests on besides the mathematics."""
        return (
            "the output of Philox4x64-10 under a secret 128-bit key from the operating system, "
            "new for every noisy sum, cannot be told from uniform bits",
            "one unit moves the sum handed over by at most the bound in L2 norm, up to the "
            "summation error of "
            f"{self.value_error:.3g} that is included",
        )

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return the event of ``count`` releases: Gaussian events of this multiplier.

        The small distance to it is not part of the event; subtract
        :meth:`extra_delta` from the target delta.
        """
        from privfair.accounting.events import Gaussian

        event: AccountedEvent = Gaussian(self.noise_multiplier)
        return repeated(event, count)

    def extra_delta(self, epsilon: float, releases: int) -> float:
        """Return what this mechanism's distance from a Gaussian adds to delta."""
        return hardened_extra_delta(epsilon, releases, self.size)

    def add_(self, total: Any) -> Any:
        """Replace ``total`` by its noisy version, in place, and return it.

        Parameters
        ----------
        total : numpy.ndarray or torch.Tensor
            Flat and contiguous, float32 or float64, of ``size`` entries, on any device.
        """
        if isinstance(total, np.ndarray):
            self._check_buffer(total.ndim, total.size, str(total.dtype))
            return _written(total, self._perturb(total))
        if type(total).__module__.partition(".")[0] != "torch" and not hasattr(total, "detach"):
            raise InvalidTypeError(
                "total must be a numpy array or a torch tensor that can be changed in place, got "
                f"{type(total).__name__}."
            )
        from privfair.mechanisms._torch import add_to_tensor

        self._check_buffer(total.dim(), total.numel(), str(total.dtype).removeprefix("torch."))
        return add_to_tensor(self, total)

    def noise(self) -> NDArray[np.int64]:
        """Return fresh noise in grid steps, drawn under a key of its own."""
        if self._ahead is None:
            self._ahead = NoiseAhead(self._sampler(), self.size, self._stream)
        return self._ahead.take()

    def _sampler(self) -> TableSampler:
        """Return the table; the law is the same for every size of it."""
        law = GaussianLaw(Fraction(self._ratio) ** 2)
        return table_sampler(law, _COLUMN_BITS) if self.size >= _LONG else table_sampler(law)

    def _check_buffer(self, ndim: int, size: int, dtype: str) -> None:
        if ndim != 1 or size != self.size:
            raise LengthMismatchError(
                f"total must be flat with size = {self.size} entries, got {ndim} dimensions and "
                f"{size} entries. The sensitivity was widened for that size."
            )
        if dtype not in ("float32", "float64"):
            raise InvalidTypeError(f"total must be float32 or float64, got {dtype}.")

    def _perturb(self, total: NDArray[Any]) -> NDArray[np.float64]:
        """Return the noisy sum in float64, in place where the sum is float64."""
        out = total if total.dtype == np.float64 else np.empty(total.shape)
        # In double also for float32, where the product might overflow; a power of two: exact.
        value: NDArray[np.float64] = np.multiply(total, 1.0 / self.grid, out=out, dtype=np.float64)
        np.rint(value, out=value)
        np.clip(value, -_LIMIT, _LIMIT, out=value)
        if np.isnan(value.min()):  # the minimum of anything with a NaN is NaN
            np.nan_to_num(value, copy=False, nan=_LIMIT)
        value += self.noise()  # integers: -0.0 + 0 is +0.0, so that zero keeps no sign
        value *= self.grid
        return value

    def _prepare(self, value: Any) -> NDArray[np.float64]:
        array = np.array(value, dtype=np.float64)
        self._check_buffer(array.ndim, array.size, "float64")
        return array

    def _draw(self, prepared: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._perturb(prepared)


def _written(buffer: NDArray[Any], value: NDArray[Any]) -> NDArray[Any]:
    """Return the buffer with the value in it, rounded to the buffer's precision."""
    if value is not buffer:
        buffer[...] = value
    return buffer
