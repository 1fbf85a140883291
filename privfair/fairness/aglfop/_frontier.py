"""The whole trade-off between error, global and local bound, proven from few solved points.

The least error is a convex and nonincreasing function of the two bounds. From convexity:

- above: it lies below the convex hull of the solved points (mixed decisions attain the hull);
- below: every set of potentials and prices is a plane under the whole surface, see ``_cones``;
  so is every answer at a bound of exactly zero, at any finite price one likes.

Points of a grid are solved where the two are furthest apart until they are within ``tol``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core._format import json_safe
from privfair.core.exceptions import InvalidParameterError, SolverError
from privfair.fairness.aglfop._cones import Information
from privfair.fairness.aglfop._program import LN2

__all__ = ["AGLFOPSurface", "SurfaceProgram", "certified_surface"]

Array = NDArray[np.float64]

NAMES = ("global", "local")
# Prices at which an answer at a bound of exactly zero gives planes, as the bounds (relative to
# the largest) for which they are good.
LADDER = tuple(4.0**-k for k in range(1, 15))
REGION = (0.0, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7)  # shares of the other disparity
IRRELEVANT = 1e-9  # nats: a disparity that never gets larger needs no axis
BATCH = 12  # points solved before the hull is drawn again


class _Point(Protocol):
    @property
    def error(self) -> float: ...
    @property
    def lower(self) -> float: ...
    @property
    def prices(self) -> dict[str, float]: ...
    @property
    def potentials(self) -> dict[str, Array]: ...
    @property
    def informations(self) -> dict[str, float]: ...


class SurfaceProgram(Protocol):
    """What a program must offer to get a proven surface; informations in nats."""

    informations: dict[str, Information]

    def solve(self, bounds: Mapping[str, float | None]) -> Any:
        """Return a point with error, lower, prices, potentials and informations."""

    def lower_bound(
        self,
        potentials: Mapping[str, Array],
        prices: Mapping[str, float],
        bounds: Mapping[str, float],
    ) -> float:
        """Return a proven lower bound of the error at ``bounds``."""


@dataclass(frozen=True, eq=False)
class AGLFOPSurface:
    """Least error over a rectangle of bounds, enclosed from below and above.

    Attributes
    ----------
    eps_global, eps_local : ndarray of shape (n,)
        A grid over the region where the bounds matter, in bits, denser near zero. One point, 0,
        for a bound that matters nowhere.
    lower, upper : ndarray of shape (n, n)
        Proven bounds of the least error on the grid, axes (global, local). ``upper`` is attained.
    gap : float
        Largest distance of the two on the grid.
    gap_between : float
        A proven limit of their distance anywhere in the region, between grid points too.
    points : ndarray of shape (n_points, 3)
        Solved points: bounds in bits, error.
    planes : ndarray of shape (n_planes, 3)
        Planes below the surface: error >= a - b * eps_global - c * eps_local, bits.
    facets : ndarray of shape (n_facets, 3)
        Planes of the hull above the surface, in the same form.
    """

    eps_global: Array
    eps_local: Array
    lower: Array = field(repr=False)
    upper: Array = field(repr=False)
    gap: float
    gap_between: float
    points: Array = field(repr=False)
    planes: Array = field(repr=False)
    facets: Array = field(repr=False)

    @property
    def n_solved(self) -> int:
        """Number of points solved."""
        return len(self.points)

    def bounds(self, eps_global: ArrayLike, eps_local: ArrayLike) -> tuple[Array, Array]:
        """Return proven lower and upper bounds of the least error at any bounds.

        Parameters
        ----------
        eps_global, eps_local : array-like
            In bits, >= 0, of one shape. Beyond the region, which optima at several bounds
            marked out, the upper bound is that at its edge.

        Returns
        -------
        lower, upper : ndarray
        """
        g, local = np.broadcast_arrays(
            np.asarray(eps_global, dtype=float), np.asarray(eps_local, dtype=float)
        )
        if not (np.isfinite(g).all() and np.isfinite(local).all()):
            raise InvalidParameterError("bounds must be finite numbers; use the region's end.")
        if (g < 0).any() or (local < 0).any():
            raise InvalidParameterError("bounds must be non-negative.")
        inside = np.minimum(g, self.eps_global[-1]), np.minimum(local, self.eps_local[-1])
        return _highest(self.planes, g, local), _highest(self.facets, *inside)

    def prices(self, eps_global: ArrayLike, eps_local: ArrayLike) -> tuple[Array, Array]:
        """Return prices (accuracy per bit) of the highest plane at each of the bounds."""
        g, local = np.broadcast_arrays(
            np.asarray(eps_global, dtype=float), np.asarray(eps_local, dtype=float)
        )
        best = _heights(self.planes, g, local).argmax(axis=-1)
        return self.planes[best, 1], self.planes[best, 2]

    def to_dict(self) -> dict[str, Any]:
        """Return grid, bounds, solved points and planes as JSON data; bits."""
        names = ("eps_global", "eps_local", "lower", "upper", "points", "planes")
        out = {name: getattr(self, name).tolist() for name in names}
        return json_safe(out | {"gap": self.gap, "gap_between": self.gap_between, "unit": "bits"})

    def plot(self, ax: Any = None) -> Any:
        """Draw the accuracy over the two bounds; see :func:`plot_surface`."""
        from privfair.fairness.aglfop._plot import plot_surface

        return plot_surface(self, ax=ax)


def _heights(planes: Array, g: Array, local: Array) -> Array:
    return planes[:, 0] - g[..., None] * planes[:, 1] - local[..., None] * planes[:, 2]


def _highest(planes: Array, g: Array, local: Array) -> Array:
    return np.asarray(np.maximum(_heights(planes, g, local).max(axis=-1), 0.0))


class _Search:
    """Solved points, planes below and hull above; bounds in nats."""

    def __init__(self, program: SurfaceProgram) -> None:
        self.program = program
        self.errors: dict[tuple[float, float], float] = {}
        self.lowers: dict[tuple[float, float], float] = {}
        self.planes: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)]
        self.top = self._region()

    def _region(self) -> tuple[float, float]:
        """Return the bounds beyond which a bound has no effect, as far as optima tell.

        A decision that keeps the local bound can have more global disparity than the labels
        (clients whose disparities cancel), and most of it at a bound between zero and none; so
        optima at several bounds are asked. Outside the region ``bounds`` still encloses.
        """
        free = self.program.solve({})
        tops = []
        for name, other in (NAMES, NAMES[::-1]):
            at = [free, *(self.program.solve({other: step * free.informations[other]})
                          for step in REGION)]  # fmt: skip
            top = max(point.informations[name] for point in at)
            tops.append(top if top > IRRELEVANT else 0.0)
        return tops[0], tops[1]

    def error(self, at: tuple[float, float]) -> float:
        """Solve at a pair of bounds, once, and keep its planes."""
        if at not in self.errors:
            bounds = {
                name: eps for name, eps, top in zip(NAMES, at, self.top, strict=True) if top > 0.0
            }
            point = self.program.solve(bounds)
            self.errors[at], self.lowers[at] = float(point.error), float(point.lower)
            self._add_planes(point, bounds)
        return self.errors[at]

    def _add_planes(self, point: _Point, bounds: dict[str, float]) -> None:
        if not point.potentials:
            return
        infinite = [name for name, price in point.prices.items() if np.isinf(price)]
        known = {
            name: price
            for name, price in point.prices.items()
            if name not in infinite and name in point.potentials
        }
        for step in LADDER if infinite else (0.0,):
            potentials, prices = dict(point.potentials), dict(known)
            for name in infinite:
                information = self.program.informations[name]
                eps = step * self.top[NAMES.index(name)]
                prices[name] = information.finite_price(potentials[name], eps)
                potentials[name] = information.potential(potentials[name], prices[name])
            height = self.program.lower_bound(potentials, prices, dict.fromkeys(prices, 0.0))
            self.planes.append((height, prices.get(NAMES[0], 0.0), prices.get(NAMES[1], 0.0)))

    def hull(self) -> Array:
        """Return the facets above the surface, as planes."""
        from scipy.spatial import ConvexHull

        size = np.array([top if top > 0 else 1.0 for top in self.top])
        points = np.array([(g, y, error) for (g, y), error in self.errors.items()])
        points[:, :2] /= size
        corner = points.copy()
        for axis in (0, 1):
            # The error does not rise with a bound: each point counts at the far end too.
            moved = points.copy()
            moved[:, axis] = 1.0
            corner[:, axis] = 1.0
            points = np.concatenate([points, moved])
        points = np.concatenate([points, corner])
        scale = max(float(points[:, 2].max()), 1e-12)
        points[:, 2] /= scale
        apex = np.array([[0.5, 0.5, 2.0]])  # makes the hull solid whatever the points
        a, b, c, d = ConvexHull(np.concatenate([points, apex])).equations.T
        low = c < -1e-9
        slopes = np.stack([a[low], b[low]]) / c[low] * scale / size[:, None]
        return np.stack([-d[low] / c[low] * scale, *slopes], axis=1)


def certified_surface(program: SurfaceProgram, *, n: int = 30, tol: float = 1e-3) -> AGLFOPSurface:
    """Enclose the least error over all pairs of bounds that matter.

    Parameters
    ----------
    program : SurfaceProgram
    n : int, default=30
        Points of the grid along each axis, at ``(i / (n - 1))**2`` of the region: the surface
        falls like a square root at zero.
    tol : float, default=1e-3
        Largest distance of lower and upper bound on the grid, in accuracy.

    Returns
    -------
    AGLFOPSurface

    Raises
    ------
    SolverError
        A point cannot be solved to ``tol``.
    """
    search = _Search(program)
    axes = [top * np.linspace(0.0, 1.0, n) ** 2 if top > 0 else np.zeros(1) for top in search.top]
    rough = [np.unique(np.linspace(0, axis.size - 1, 5).round().astype(int)) for axis in axes]
    chosen = [(int(i), int(j)) for i in rough[0] for j in rough[1]]
    solved: set[tuple[int, int]] = set()
    at = np.meshgrid(*axes, indexing="ij")
    while chosen:
        for i, j in chosen:
            search.error((float(axes[0][i]), float(axes[1][j])))
        solved |= set(chosen)
        facets = search.hull()
        planes = np.asarray(search.planes)
        lower, upper = _highest(planes, *at), _highest(facets, *at)
        for i, j in solved:  # an answer at zero is proven by itself; planes only come near
            lower[i, j] = max(lower[i, j], search.lowers[float(axes[0][i]), float(axes[1][j])])
        for axis in (0, 1):  # at a smaller bound the error is at least as large
            lower = np.flip(np.maximum.accumulate(np.flip(lower, axis), axis), axis)
        gap = upper - lower
        chosen = _apart(gap, tol)
        if solved & set(chosen):
            raise SolverError(
                f"the surface is proven to {gap.max():.1e} only, not to tol={tol:g}; ask for a "
                "larger tol."
            )
    if not gap.min() >= -1e-7:
        raise SolverError("a proven lower bound lies above an attained error.")
    points = np.array([(g, y, error) for (g, y), error in search.errors.items()])
    to_bits, per_bit = np.array([1 / LN2, 1 / LN2, 1.0]), np.array([1.0, LN2, LN2])
    return AGLFOPSurface(
        eps_global=axes[0] / LN2, eps_local=axes[1] / LN2, lower=lower, upper=upper,
        gap=float(gap.max()), gap_between=_between(axes, upper, planes),
        points=points * to_bits, planes=planes * per_bit, facets=facets * per_bit,
    )  # fmt: skip


def _apart(gap: Array, tol: float) -> list[tuple[int, int]]:
    """Return the worst grid points that are not next to each other."""
    left = gap.copy()
    chosen: list[tuple[int, int]] = []
    while len(chosen) < BATCH:
        i, j = (int(k) for k in np.unravel_index(left.argmax(), left.shape))
        if not left[i, j] > tol:
            break
        chosen.append((i, j))
        left[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3] = -np.inf
    return chosen


def _between(axes: list[Array], upper: Array, planes: Array) -> float:
    """Return a proven limit of the distance inside the cells of the grid.

    Over a cell the hull lies below the mixture of its corners, and one plane is below the
    surface throughout: their distance is largest at a corner.
    """
    g, local = np.meshgrid(*axes, indexing="ij")
    over = upper[..., None] - _heights(planes, g, local)
    for axis, size in enumerate(upper.shape):
        if size > 1:
            low, high = np.delete(over, -1, axis), np.delete(over, 0, axis)
            over = np.maximum(low, high)
    return float(over.min(axis=-1).max())
