"""The noise of a run: one mechanism for all sums of one width."""

from __future__ import annotations

from torch import Tensor

from privfair.mechanisms import HardenedGaussian
from privfair.training._clipping import block_sum_error
from privfair.training._distributed import DataParallel

__all__ = ["StepNoise"]


class StepNoise:
    """Noise for sums of one width; nothing where the run is not private.

    Parameters
    ----------
    multiplier : float or None
        Noise standard deviation in units of the sensitivity; None adds nothing.
    bound : float
        L2 bound on one record's contribution.
    size : int
        Coordinates of a sum.
    terms : int
        Public bound on the number of summands, for the rounding error of the sum.
    seed : int or None
        None is secret noise.
    pieces : int, default=0
        Public bound on the number of partial sums that are added up.
    parallel : DataParallel or None, default=None
        Other processes that hold a part of each sum.
    value_error : float or None, default=None
        L2 bound on the rounding error of a sum; None is that of a sum over ``terms`` records.
    extra_error : float, default=0.0
        To be added to that of a sum over ``terms`` records.
    """

    def __init__(
        self,
        multiplier: float | None,
        bound: float,
        size: int,
        terms: int,
        seed: int | None,
        pieces: int = 0,
        parallel: DataParallel | None = None,
        value_error: float | None = None,
        extra_error: float = 0.0,
    ) -> None:
        self.size = size
        self._parallel = parallel
        self._mechanism: HardenedGaussian | None = None
        if multiplier is not None:
            if value_error is None:
                value_error = block_sum_error(terms, bound, pieces) + extra_error
            self._mechanism = HardenedGaussian(
                multiplier,
                bound,
                size,
                value_error=value_error,
                noise_random_state=seed,
            )

    @property
    def std(self) -> float:
        """Standard deviation of the noise in each coordinate of a sum."""
        return 0.0 if self._mechanism is None else self._mechanism.sigma

    def add(self, total: Tensor) -> Tensor:
        """Return the sum with noise, in place."""
        first = self._parallel is None or self._parallel.rank == 0
        if self._parallel is not None:
            self._parallel.sum_(total)
        if self._mechanism is not None and first:
            total = self._mechanism.add_(total)
        if self._parallel is not None:
            self._parallel.share_(total)
        return total
