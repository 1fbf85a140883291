"""Noise that is correlated over the steps of a run, by a banded factorisation.

The sums x_1, x_2, ... of clipped gradients are released as ``x + C^-1 z`` with independent
Gaussian z and a lower triangular, banded matrix C. Since ``C (x + C^-1 z) = C x + z``, this is
post-processing of ``C x + z``: independent noise on mixtures of at most ``bands`` successive
sums. That is how it is computed here, so that each release goes through the one mechanism of
training, with its public grid. Noise of one step is partly taken back in the next ones: sums over
many steps, and with them the parameters, carry less of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError

if TYPE_CHECKING:
    from torch import Tensor

    from privfair.training._distributed import DataParallel

__all__ = ["BandedNoise", "CorrelatedNoise"]

_UNIT = 2.0**-53


@dataclass(frozen=True)
class BandedNoise:
    """A banded Toeplitz matrix C by which noise is correlated over steps.

    Parameters
    ----------
    coefficients : sequence of float
        ``C[t, s] = coefficients[t - s]``: above 0, not increasing; their number is the number
        of bands.

    Attributes
    ----------
    bands : int
    norm : float
        L2 norm of a whole column: what one participation contributes to all releases together,
        in units of the clipping bound.

    Raises
    ------
    InvalidParameterError
        Coefficients that are not positive and not increasing.

    Notes
    -----
    *Accounting.* In a :class:`TrainingPlan` with ``correlation`` each record belongs to one of
    ``bands`` groups, drawn at random without looking at the data; step t draws from group
    ``t mod bands`` only, each record with probability ``bands * sample_rate``. Columns that are
    at least ``bands`` apart have no row in common, so that the run costs what
    ``ceil(steps / bands)`` Poisson-sampled Gaussians cost, with ``bands`` times the sampling
    rate. The amplification of independent noise by sampling at every step does not hold here.

    References
    ----------
    Choquette-Choo, Ganesh, McKenna, McMahan, Rush, Thakurta, Xu, 2023, "(Amplified) Banded
    matrix factorization", arXiv:2306.08153. Kalinin, Lampert, 2024, arXiv:2405.13763.
    Denisov, McMahan, Rush, Smith, Thakurta, 2022, arXiv:2202.08312 (adaptive inputs).

    Examples
    --------
    >>> BandedNoise([1.0, 0.5]).inverse(3)
    array([[ 1.  ,  0.  ,  0.  ],
           [-0.5 ,  1.  ,  0.  ],
           [ 0.25, -0.5 ,  1.  ]])
    """

    coefficients: tuple[float, ...]

    def __init__(self, coefficients: Sequence[float]) -> None:
        values = tuple(check.positive(coefficients=c) for c in coefficients)
        if not values or any(b > a for a, b in zip(values, values[1:], strict=False)):
            raise InvalidParameterError(
                "coefficients must be at least one positive number, none larger than the one "
                "before it: the sensitivity formulas hold for such matrices only."
            )
        object.__setattr__(self, "coefficients", values)

    @classmethod
    def square_root(cls, bands: int) -> BandedNoise:
        """Return the first bands of the square root of the matrix of partial sums.

        Parameters
        ----------
        bands : int
            1 is independent noise.

        Notes
        -----
        The coefficients are ``binom(2k, k) / 4^k``. The square root of the lower triangular
        matrix of ones is close to the best factorisation of partial sums, and its first bands
        to the best banded one (Kalinin, Lampert, 2024, arXiv:2405.13763).

        Examples
        --------
        >>> BandedNoise.square_root(3).coefficients
        (1.0, 0.5, 0.375)
        """
        values = [1.0]
        for k in range(1, check.positive_int(bands=bands)):
            values.append(values[-1] * (2 * k - 1) / (2 * k))
        return cls(values)

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.coefficients)

    @property
    def norm(self) -> float:
        """L2 norm of a whole column."""
        return math.sqrt(math.fsum(c * c for c in self.coefficients))

    def matrix(self, steps: int) -> NDArray[np.float64]:
        """Return C for a run of so many steps."""
        n = check.positive_int(steps=steps)
        out = np.zeros((n, n))
        for lag, value in enumerate(self.coefficients[:n]):
            out[np.arange(lag, n), np.arange(n - lag)] = value
        return out

    def inverse(self, steps: int) -> NDArray[np.float64]:
        """Return the inverse of C for a run of so many steps."""
        n = check.positive_int(steps=steps)
        column = self.inverse_column(n)
        out = np.zeros((n, n))
        for lag in range(n):
            out[np.arange(lag, n), np.arange(n - lag)] = column[lag]
        return out

    def inverse_column(self, steps: int) -> list[float]:
        """Return the first column of the inverse, a Toeplitz matrix too."""
        c, out = self.coefficients, [1.0 / self.coefficients[0]]
        for k in range(1, steps):
            past = math.fsum(c[j] * out[k - j] for j in range(1, min(k, self.bands - 1) + 1))
            out.append(-past / c[0])
        return out

    def sensitivity(
        self, steps: int, *, min_separation: int, max_participations: int | None = None
    ) -> float:
        """Return how far one record moves ``C x`` in L2 norm, without any sampling.

        Parameters
        ----------
        steps : int
            Of the run.
        min_separation : int
            Fewest steps from one participation of a record to its next.
        max_participations : int or None, default=None
            At most so many; None is as many as fit.

        Returns
        -------
        float
            In units of the clipping bound: the largest norm of a sum of columns that one record
            may take part in. For positive coefficients that do not increase, it is reached by
            the earliest steps, as close together as allowed (Kalinin, Lampert, 2024, theorem 2).

        Examples
        --------
        >>> BandedNoise([1.0]).sensitivity(10, min_separation=5)
        1.4142135623730951
        """
        n = check.positive_int(steps=steps)
        apart = check.positive_int(min_separation=min_separation)
        times = -(-n // apart)
        if max_participations is not None:
            times = min(times, check.positive_int(max_participations=max_participations))
        total = np.zeros(n)
        for start in range(0, times * apart, apart):
            column = np.array(self.coefficients[: n - start])
            total[start : start + len(column)] += column
        return float(np.sqrt((total**2).sum()))

    def error(self, steps: int) -> float:
        """Return the largest standard deviation of a partial sum's noise, in units of z's.

        Parameters
        ----------
        steps : int
            Of the run.

        Notes
        -----
        Times ``noise_multiplier * norm * max_grad_norm`` it is the noise on the sum of all
        gradients so far, where it is largest: for gradient descent, on the parameters.

        Examples
        --------
        >>> BandedNoise([1.0]).error(100)
        10.0
        """
        rows = np.cumsum(self.inverse_column(check.positive_int(steps=steps)))
        return float(np.sqrt((rows**2).sum()))

    def check_plan(self, expected_batch_size: int, n_public: int) -> None:
        """Refuse a plan whose groups are smaller than a batch."""
        if expected_batch_size * self.bands > n_public:
            raise AccountingAssumptionError(
                f"expected_batch_size * bands = {expected_batch_size * self.bands} is more than "
                f"n_public = {n_public}: each step draws from one of {self.bands} groups, which "
                "hold too few records. Use fewer bands or smaller batches."
            )


class CorrelatedNoise:
    """Noise of a run with a :class:`BandedNoise`; takes the place of independent noise.

    Parameters
    ----------
    banded : BandedNoise
    multiplier : float
        Standard deviation of z in units of ``norm * bound``.
    bound : float
        L2 bound on one record's contribution to one sum.
    size, terms, seed, pieces, parallel, extra_error
        As those of :class:`StepNoise`.

    Notes
    -----
    One participation moves the next ``bands`` mixtures by ``c_0 g, c_1 g, ...`` and, through
    rounding of sums and to the grid, each by at most ``e = grid sqrt(size) + 2 error`` more:
    together by at most ``norm * bound + sqrt(bands) e``. The mechanism is given the difference
    to its own widening as an error of the value.
    """

    def __init__(
        self,
        banded: BandedNoise,
        multiplier: float,
        bound: float,
        size: int,
        terms: int,
        seed: int | None,
        pieces: int = 0,
        parallel: DataParallel | None = None,
        extra_error: float = 0.0,
    ) -> None:
        from privfair.mechanisms import HardenedGaussian
        from privfair.training._clipping import block_sum_error
        from privfair.training._noise import StepNoise

        self.size = size
        self._banded = banded
        c, b = banded.coefficients, banded.bands
        whole = banded.norm * bound * (1.0 + 2.0**-50)
        mixing = 1.001 * (b + 2) * _UNIT * terms * bound
        error = sum(c) * (block_sum_error(terms, bound, pieces) + extra_error + mixing)
        grid = HardenedGaussian(multiplier, whole, size).grid
        rounding = 0.5 * (math.sqrt(b) - 1.0) * grid * math.sqrt(size)
        self._inner = StepNoise(
            multiplier, whole, size, terms, seed, pieces, parallel,
            value_error=1.001 * (math.sqrt(b) * error + rounding),
        )  # fmt: skip
        self._sums: list[Tensor] = []
        self._released: list[Tensor] = []
        self._column = [1.0 / c[0]]

    @property
    def std(self) -> float:
        """Standard deviation of the noise in the next step's sum."""
        return self._inner.std * math.sqrt(math.fsum(d * d for d in self._column))

    def add(self, total: Tensor) -> Tensor:
        """Return the sum of one step with its noise."""
        c = self._banded.coefficients
        mixed = c[0] * total
        for weight, past in zip(c[1:], reversed(self._sums), strict=False):
            mixed += weight * past
        released = self._inner.add(mixed)
        for weight, before in zip(c[1:], reversed(self._released), strict=False):
            released = released - weight * before
        released = released / c[0]
        self._keep(self._sums, total)
        self._keep(self._released, released)
        self._column = self._banded.inverse_column(len(self._column) + 1)
        return released.clone()

    def _keep(self, past: list[Tensor], value: Tensor) -> None:
        past.append(value.clone())
        del past[: max(0, len(past) - (self._banded.bands - 1))]
