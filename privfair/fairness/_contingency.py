"""A table of counts that was released under differential privacy, and what may be made of it.

Everything computed from the released table is post-processing: information-theoretic
disparities, the best accuracy under fairness bounds, rules of decision, and their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.randomness import check_random_state

__all__ = ["NOISE", "ContingencyRelease", "NoiseLaw"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOISE = ("laplace", "gaussian")
_REPAIRS = ("project", "clip")
_TAIL = 45.0  # exp(-45) is far below what a simulation could show


@dataclass(frozen=True)
class NoiseLaw:
    """Law of the integer noise in each cell of a released table.

    Parameters
    ----------
    kind : {"laplace", "gaussian"}
        Discrete Laplace, mass proportional to exp(-abs(x) / scale), or discrete Gaussian, mass
        proportional to exp(-x^2 / (2 scale^2)).
    scale : float
        Above 0, in counts.

    References
    ----------
    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.

    Examples
    --------
    >>> round(NoiseLaw("laplace", 1.0).variance, 4)
    1.8413
    """

    kind: str
    scale: float

    def __post_init__(self) -> None:
        check.one_of(NOISE, kind=self.kind)
        object.__setattr__(self, "scale", check.positive(scale=self.scale))

    @property
    def variance(self) -> float:
        """Variance of one cell's noise, in counts squared."""
        if self.kind == "laplace":
            q = math.exp(-1.0 / self.scale)
            return 2 * q / (1 - q) ** 2
        values, mass = self._support()
        return float(mass @ values.astype(float) ** 2)

    @property
    def mean_absolute(self) -> float:
        """Mean absolute value of one cell's noise, in counts."""
        if self.kind == "laplace":
            q = math.exp(-1.0 / self.scale)
            return 2 * q / (1 - q * q)
        values, mass = self._support()
        return float(mass @ np.abs(values))

    def _support(self) -> tuple[Ints, Floats]:
        far = math.ceil(self.scale * math.sqrt(2 * _TAIL)) + 1
        values = np.arange(-far, far + 1)
        mass = np.exp(-0.5 * (values / self.scale) ** 2)
        return values, mass / mass.sum()

    def simulate(self, shape: tuple[int, ...], rng: np.random.Generator) -> Ints:
        """Return draws for an interval: never added to data, and no guarantee rests on them.

        Parameters
        ----------
        shape : tuple of int
        rng : numpy.random.Generator
        """
        if self.kind == "laplace":
            p = -math.expm1(-1.0 / self.scale)
            return np.asarray(rng.geometric(p, shape) - rng.geometric(p, shape), dtype=np.int64)
        values, mass = self._support()
        return np.asarray(rng.choice(values, size=shape, p=mass), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ContingencyRelease:
    """A table of counts that was released under differential privacy.

    Parameters
    ----------
    axes : tuple of str
        Names of the axes.
    categories : tuple of tuple
        The public categories of each axis.
    counts : ndarray of int, shape (len(categories[0]), len(categories[1]), ...)
        Noisy counts, possibly negative.
    noise : NoiseLaw
        Law of the noise, independent in every cell.
    n_public : int or None
        Number of rows where it is public (``zero_out`` and ``replace_one``); None under
        ``add_remove``, where the sum of the noisy counts stands for it.
    privacy : PrivacyGuarantee
        Of the whole table.

    Notes
    -----
    Everything that reads this object is post-processing and costs nothing more.

    References
    ----------
    Dwork, McSherry, Nissim, Smith 2006, TCC (histograms). Wang et al. 2020, arXiv:1905.08320
    (consistent tables from noisy ones).

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.accounting import Ledger
    >>> from privfair.core import Budget
    >>> from privfair.fairness import release_contingency
    >>> rows = {"z": ["f", "m"] * 500, "yhat": [0, 1, 1, 1] * 250}
    >>> release = release_contingency(rows, {"z": ["f", "m"], "yhat": [0, 1]},
    ...                               privacy=Budget(1.0), ledger=Ledger())
    >>> release.counts.shape, release.n, round(float(release.probabilities().sum()), 9)
    ((2, 2), 1000, 1.0)
    >>> release.resample(np.random.default_rng(0), 100).shape
    (100, 2, 2)
    """

    axes: tuple[str, ...]
    categories: tuple[tuple[Any, ...], ...]
    counts: Ints
    noise: NoiseLaw
    n_public: int | None
    privacy: PrivacyGuarantee = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells of each axis."""
        return tuple(self.counts.shape)

    @property
    def n(self) -> int:
        """Number of rows: public, or the sum of the noisy counts, at least 1."""
        return max(1, int(self.counts.sum())) if self.n_public is None else self.n_public

    @property
    def noise_share(self) -> float:
        """Expected sum of the absolute noise of all cells, as a share of the rows."""
        return self.noise.mean_absolute * self.counts.size / self.n

    def axis(self, name: str) -> int:
        """Return the position of an axis.

        Parameters
        ----------
        name : str
        """
        return self.axes.index(check.one_of(self.axes, axis=name))

    def probabilities(self, repair: Literal["project", "clip"] = "project") -> Floats:
        """Return a distribution over the cells.

        Parameters
        ----------
        repair : {"project", "clip"}, default="project"
            The Euclidean projection of the noisy shares onto the distributions, or negative
            counts set to zero and the rest scaled to sum to one.

        Returns
        -------
        ndarray of float, same shape as ``counts``
            Non-negative, sum 1.

        Notes
        -----
        *Bias.* The counts are unbiased and the distribution is not, for no non-negative
        function of them is. Clipping lifts every empty cell by half the mean absolute noise and
        takes it from all others in proportion. The projection takes one constant off every cell
        before it cuts at zero, so that true zeros mostly stay zero and a large cell loses at
        most that constant; cells below it are lost. ``resample`` shows the size of both.
        O(cells log cells).
        """
        check.one_of(_REPAIRS, repair=repair)
        return self.repaired(self.counts, repair)

    def repaired(
        self, tables: ArrayLike, repair: Literal["project", "clip"] = "project"
    ) -> Floats:
        """Return the distributions of tables such as ``resample`` draws.

        Parameters
        ----------
        tables : array-like, shape (..., cells of each axis)
            Noisy counts.
        repair : {"project", "clip"}, default="project"
            As in ``probabilities``.

        Returns
        -------
        ndarray of float, same shape as ``tables``
        """
        check.one_of(_REPAIRS, repair=repair)
        given = np.asarray(tables, dtype=float)
        flat = given.reshape((-1, self.counts.size))
        if self.n_public is None:
            total = np.maximum(flat.sum(axis=1, keepdims=True), 1.0)
        else:
            total = np.full((len(flat), 1), float(self.n_public))
        return _REPAIR[repair](flat / total).reshape(given.shape)

    def resample(
        self,
        rng: np.random.Generator | int | None = None,
        size: int = 1000,
        *,
        repair: Literal["project", "clip"] = "project",
    ) -> Ints:
        """Return tables as they would have been released from other samples: noise and all.

        Parameters
        ----------
        rng : numpy.random.Generator, int or None
        size : int, default=1000
            Number of tables.
        repair : {"project", "clip"}, default="project"
            The distribution that is sampled.

        Returns
        -------
        ndarray of int, shape (size, cells of each axis)
            Noisy counts; ``repaired`` makes distributions of them.

        Notes
        -----
        Parametric bootstrap: a multinomial sample of ``n`` rows from ``probabilities(repair)``,
        plus fresh noise of the same law. An estimate of each table spreads as the estimate
        itself does through sampling and noise together, up to the bias of the distribution.
        """
        check.positive_int(size=size)
        generator = check_random_state(rng)
        p = self.probabilities(repair).reshape(-1)
        drawn = generator.multinomial(self.n, p / p.sum(), size=size)
        drawn = drawn + self.noise.simulate(drawn.shape, generator)
        return np.asarray(drawn, dtype=np.int64).reshape((size, *self.shape))

    def to_dict(self) -> dict[str, Any]:
        """Return the release as JSON data."""
        return {
            "axes": list(self.axes),
            "categories": [list(values) for values in self.categories],
            "counts": self.counts.tolist(),
            "noise": {"kind": self.noise.kind, "scale": self.noise.scale},
            "n_public": self.n_public,
            "privacy": self.privacy.to_dict(),
        }


def _project(shares: Floats) -> Floats:
    """Return the nearest distributions in Euclidean distance; rows are tables."""
    ordered = -np.sort(-shares, axis=1)
    level = (np.cumsum(ordered, axis=1) - 1.0) / np.arange(1, shares.shape[1] + 1)
    kept = (ordered > level).sum(axis=1, keepdims=True)  # a prefix, and never empty
    cut = np.maximum(shares - np.take_along_axis(level, kept - 1, axis=1), 0.0)
    return np.asarray(cut / cut.sum(axis=1, keepdims=True))


def _clip(shares: Floats) -> Floats:
    clipped = np.maximum(shares, 0.0)
    total = clipped.sum(axis=1, keepdims=True)
    even = 1.0 / shares.shape[1]
    return np.where(total > 0, clipped / np.where(total > 0, total, 1.0), even)


_REPAIR: dict[str, Callable[[Floats], Floats]] = {"project": _project, "clip": _clip}
