"""The whole trade-off between error, global and local bound, proven from few solved points.

The least error is a convex and nonincreasing function of the two bounds. From convexity:

- above: it lies below the convex hull of the solved points (mixed decisions attain the hull);
- below: every set of potentials and prices is a plane under the whole surface, see
  ``_information``; so is every answer at a bound of exactly zero, at any finite price one likes,
  and all of its planes together lie above a bound shaped like a square root.

The hull is convex and the highest plane is linear on each of the polygons where one plane is the
highest; so the two are furthest apart at a corner of these polygons. Bounds are solved at such
corners until they are nowhere further apart than ``tol``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core._format import json_safe
from privfair.core.exceptions import InvalidParameterError, SolverError
from privfair.fairness.aglfop._information import Information
from privfair.fairness.aglfop._program import LN2

__all__ = ["AGLFOPSurface", "SurfaceProgram", "certified_surface"]

Array = NDArray[np.float64]

NAMES = ("global", "local")
# Prices at which an answer at a bound of exactly zero gives planes, as the bounds (relative to
# the largest) for which they are good.
LADDER = tuple(4.0**-k for k in range(1, 15))
REGION = (0.0, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7)  # shares of the other disparity
ROUGH = (0.0, 1 / 16, 1 / 4, 9 / 16)  # shares of the region, for first points
IRRELEVANT = 1e-9  # nats: a disparity that never gets larger needs no axis
BATCH = 20  # points solved before the hull is drawn again
APART = 0.02  # least distance of points solved at once, on axes scaled by square roots
MOST = 4000  # points of a surface


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
        A proven limit of the distance of :meth:`bounds` anywhere, at all bounds from zero to none.
    max_gap_on_grid : float
        Their largest distance on the grid.
    points : ndarray of shape (n_points, 3)
        Solved points: bounds in bits, error.
    planes : ndarray of shape (n_planes, 3)
        Planes below the surface: error >= a - b * eps_global - c * eps_local, bits.
    roots : ndarray of shape (n_roots, 5)
        Bounds below the surface, from answers at zero: error >= a - b * eps_global
        - c * eps_local - d * sqrt(eps_global) - e * sqrt(eps_local), bits.
    facets : ndarray of shape (n_facets, 3)
        Planes of the hull above the surface, in the form of ``planes``.
    ceilings : tuple of two floats
        Bounds (global, local) in bits beyond which ``upper`` stays as it is: no solved point has
        more disparity.
    """

    eps_global: Array
    eps_local: Array
    lower: Array = field(repr=False)
    upper: Array = field(repr=False)
    gap: float
    max_gap_on_grid: float
    points: Array = field(repr=False)
    planes: Array = field(repr=False)
    roots: Array = field(repr=False)
    facets: Array = field(repr=False)
    ceilings: tuple[float, float]

    @property
    def n_solved(self) -> int:
        """Number of points solved."""
        return len(self.points)

    def bounds(self, eps_global: ArrayLike, eps_local: ArrayLike) -> tuple[Array, Array]:
        """Return proven lower and upper bounds of the least error at any bounds.

        Parameters
        ----------
        eps_global, eps_local : array-like
            In bits, >= 0, of one shape.

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
        inside = [np.minimum(x, end) for x, end in zip((g, local), self.ceilings, strict=True)]
        return _below(self.planes, self.roots, g, local), _highest(self.facets, *inside)

    def prices(self, eps_global: ArrayLike, eps_local: ArrayLike) -> tuple[Array, Array]:
        """Return prices (accuracy per bit) of the highest plane at each of the bounds."""
        g, local = np.broadcast_arrays(
            np.asarray(eps_global, dtype=float), np.asarray(eps_local, dtype=float)
        )
        best = _heights(self.planes, g, local).argmax(axis=-1)
        return self.planes[best, 1], self.planes[best, 2]

    def to_dict(self) -> dict[str, Any]:
        """Return grid, bounds, solved points and planes as JSON data; bits."""
        names = ("eps_global", "eps_local", "lower", "upper", "points", "planes", "roots")
        out = {name: getattr(self, name).tolist() for name in names}
        gaps = {"gap": self.gap, "max_gap_on_grid": self.max_gap_on_grid}
        return json_safe(out | gaps | {"unit": "bits"})

    def plot(self, ax: Any = None) -> Any:
        """Draw the accuracy over the two bounds; see :func:`plot_surface`."""
        from privfair.fairness.aglfop._plot import plot_surface

        return plot_surface(self, ax=ax)


def _units(ends: Array) -> Array:
    return np.where(ends > 0.0, ends, 1.0)


def _heights(planes: Array, g: Array, local: Array) -> Array:
    return planes[:, 0] - g[..., None] * planes[:, 1] - local[..., None] * planes[:, 2]


def _highest(planes: Array, g: Array, local: Array) -> Array:
    return np.asarray(_heights(planes, g, local).max(axis=-1))


def _below(planes: Array, roots: Array, g: Array, local: Array) -> Array:
    """Return the highest of planes and of bounds shaped like square roots."""
    lower = _highest(planes, g, local)
    for a, b, c, d, e in roots:
        lower = np.maximum(lower, a - b * g - c * local - d * np.sqrt(g) - e * np.sqrt(local))
    return lower


class _Search:
    """Solved points, planes below and hull above; bounds in nats."""

    def __init__(self, program: SurfaceProgram) -> None:
        self.program = program
        self.errors: dict[tuple[float, float], float] = {}
        self.attained: list[tuple[float, float, float]] = []  # disparities and error of each
        self.planes: list[tuple[float, float, float]] = []
        self.roots: list[tuple[float, float, float, float, float]] = []
        free = self.program.solve({})
        self.floor = float(free.lower)  # no bound lowers the error; costs can be negative
        self.planes.append((self.floor, 0.0, 0.0))
        asked = self._region(free)
        tops = [max(point.informations[n] for _, point in asked[n]) for n in NAMES]
        g, local = (top if top > IRRELEVANT else 0.0 for top in tops)
        self.top = g, local
        # Where a bound is none: no information can be larger.
        self.far = tuple(
            max(program.informations[name].ceiling, top) if top > 0.0 else 0.0
            for name, top in zip(NAMES, self.top, strict=True)
        )
        for name, other in (NAMES, NAMES[::-1]):
            for eps, point in asked[name]:
                at = {name: point.informations[name], other: eps}
                g, local = (at[n] if far > 0.0 else 0.0
                            for n, far in zip(NAMES, self.far, strict=True))  # fmt: skip
                self._keep((g, local), point, {} if point is free else {other: eps})

    def _region(self, free: _Point) -> dict[str, list[tuple[float, _Point]]]:
        """Return, for each information left free, bounds of the other one and their optima.

        The largest disparity of these optima is where a bound ceases to matter, as far as they
        tell. A decision that keeps the local bound can have more global disparity than the labels
        (clients whose disparities cancel), and most of it at a bound between zero and none. The
        grid ends there, the proof does not.
        """
        asked: dict[str, list[tuple[float, _Point]]] = {}
        for name, other in (NAMES, NAMES[::-1]):
            bounds = [step * free.informations[other] for step in REGION]
            asked[name] = [(eps, self.program.solve({other: eps})) for eps in bounds]
            asked[name].append((free.informations[other], free))
        return asked

    def solve(self, at: tuple[float, float]) -> None:
        """Solve at a pair of bounds."""
        bounds = {
            name: eps
            for name, eps, far in zip(NAMES, at, self.far, strict=True)
            if far > 0.0 and eps < far
        }
        self._keep(at, self.program.solve(bounds), bounds)

    def _keep(self, at: tuple[float, float], point: _Point, bounds: Mapping[str, float]) -> None:
        """Keep what a point says: its error, and its planes."""
        # Without an axis the point is free in that disparity; what is attained at zero is not.
        left = {n: 0.0 for n, far in zip(NAMES, self.far, strict=True)
                if far == 0.0 and point.informations[n] > 0.0}  # fmt: skip
        held = self.program.solve({**bounds, **left}) if left else point
        self.errors[at] = float(held.error)
        g, local = (min(eps, held.informations[n]) if far > 0.0 else 0.0
                    for n, eps, far in zip(NAMES, at, self.far, strict=True))  # fmt: skip
        self.attained.append((g, local, float(held.error)))
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
        if infinite:
            height = self.program.lower_bound(point.potentials, known, dict.fromkeys(known, 0.0))
            slope = dict.fromkeys(NAMES, 0.0)
            for name in infinite:
                slope[name] = self.program.informations[name].root_price(point.potentials[name])
            g, local = (known.get(n, 0.0) for n in NAMES)
            self.roots.append((height, g, local, slope[NAMES[0]], slope[NAMES[1]]))

    def ends(self) -> Array:
        """Return the largest disparities of all points: up to there the hull has a shape."""
        return np.asarray(np.array(self.attained)[:, :2].max(axis=0))

    def hull(self) -> Array:
        """Return the facets above the surface, as planes; none counts beyond :meth:`ends`.

        In units of the ends, for in those of the largest information possible the facets of a
        nearly independent table would be thinner than rounding.
        """
        from scipy.spatial import ConvexHull

        size = _units(self.ends())
        points = np.array(self.attained)
        points[:, :2] /= size
        corner = points.copy()
        for axis in (0, 1):
            # The error does not rise with a bound: each point counts at the far end too.
            moved = points.copy()
            moved[:, axis] = 1.0
            corner[:, axis] = 1.0
            points = np.concatenate([points, moved])
        points = np.concatenate([points, corner])
        points[:, 2] -= self.floor
        scale = max(float(points[:, 2].max()), 1e-12)
        points[:, 2] /= scale
        apex = np.array([[0.5, 0.5, 2.0]])  # makes the hull solid whatever the points
        a, b, c, d = ConvexHull(np.concatenate([points, apex])).equations.T
        low = c < -1e-9
        slopes = np.stack([a[low], b[low]]) / c[low] * scale / size[:, None]
        found = np.stack([self.floor - d[low] / c[low] * scale, *slopes], axis=1)
        return np.concatenate([found, [[self.floor, 0.0, 0.0]]])  # no rounding below it

    def corners(self) -> Array:
        """Return the corners (bounds and height) of the highest plane, over all bounds.

        Of two boxes, as far as the points go and as far as any information, each in its units.
        """
        boxes = self.ends(), np.array(self.far)
        return np.concatenate([self._corners(_units(box)) for box in boxes])

    def _corners(self, size: Array) -> Array:
        from scipy.spatial import HalfspaceIntersection

        a, b, c = np.unique(np.asarray(self.planes), axis=0).T
        a = a - self.floor
        scale = max(float(max(self.errors.values())) - self.floor, 1e-12)
        one = np.ones_like(a)
        # height >= a - b x - c y, in a box
        above = np.stack([-b * size[0] / scale, -c * size[1] / scale, -one, a / scale])
        box = np.array([[-1, 0, 0, 0], [1, 0, 0, -1], [0, -1, 0, 0], [0, 1, 0, -1], [0, 0, 1, -3]])
        half = np.concatenate([above.T, box.astype(float)])
        half /= np.linalg.norm(half[:, :3], axis=1, keepdims=True)
        found = HalfspaceIntersection(half, np.array([0.5, 0.5, 2.0])).intersections
        found = found[np.isfinite(found).all(axis=1)]
        found = found[found[:, 2] < 2.9]
        found[:, :2] = np.clip(found[:, :2], 0.0, 1.0)
        return np.asarray(found * (*size, scale)) + (0.0, 0.0, self.floor)


def certified_surface(program: SurfaceProgram, *, n: int = 30, tol: float = 1e-3) -> AGLFOPSurface:
    """Enclose the least error over all pairs of bounds.

    Parameters
    ----------
    program : SurfaceProgram
    n : int, default=30
        Points of the grid along each axis, at ``(i / (n - 1))**2`` of the region: the surface
        falls like a square root at zero.
    tol : float, default=1e-3
        Largest distance of lower and upper bound anywhere, in accuracy.

    Returns
    -------
    AGLFOPSurface

    Raises
    ------
    SolverError
        A point cannot be solved to ``tol``.
    """
    search = _Search(program)
    rough = [np.array(ROUGH) * top if top > 0.0 else np.zeros(1) for top in search.top]
    first = ((float(g), float(y)) for g in rough[0] for y in rough[1])
    chosen = [at for at in first if at not in search.errors]
    failed: set[tuple[float, float]] = set()
    while True:
        for at in chosen:
            try:
                search.solve(at)
            except SolverError:  # its neighbours may do
                failed.add(at)
        facets = search.hull()
        corners = search.corners()
        g, local = corners[:, 0], corners[:, 1]
        planes = np.asarray(search.planes)
        lower = np.minimum(_highest(planes, g, local), corners[:, 2])
        ends = search.ends()
        gap = _highest(facets, np.minimum(g, ends[0]), np.minimum(local, ends[1])) - lower
        chosen = _apart(search, corners, gap, tol)
        if not chosen:
            break
        if len(search.errors) > MOST or any(at in search.errors or at in failed for at in chosen):
            raise SolverError(
                f"the surface is proven to {gap.max():.1e} only, not to tol={tol:g}; ask for a "
                "larger tol."
            )
    axes = [top * np.linspace(0.0, 1.0, n) ** 2 if top > 0 else np.zeros(1) for top in search.top]
    grid = np.meshgrid(*axes, indexing="ij")
    roots = np.asarray(search.roots).reshape(-1, 5)
    lower = _below(planes, roots, *grid)
    upper = _highest(facets, *(np.minimum(x, end) for x, end in zip(grid, ends, strict=True)))
    solved = np.array([(x, y, error) for (x, y), error in search.errors.items()])
    if (_below(planes, roots, solved[:, 0], solved[:, 1]) - solved[:, 2]).max() > 1e-7:
        raise SolverError("a proven lower bound lies above an attained error.")
    to_bits, per_bit = np.array([1 / LN2, 1 / LN2, 1.0]), np.array([1.0, LN2, LN2])
    return AGLFOPSurface(
        eps_global=axes[0] / LN2, eps_local=axes[1] / LN2, lower=lower, upper=upper,
        gap=float(gap.max()), max_gap_on_grid=float((upper - lower).max()),
        points=solved * to_bits, planes=planes * per_bit,
        roots=roots * np.array([1.0, LN2, LN2, LN2**0.5, LN2**0.5]), facets=facets * per_bit,
        ceilings=(float(ends[0]) / LN2, float(ends[1]) / LN2),
    )  # fmt: skip


def _apart(search: _Search, corners: Array, gap: Array, tol: float) -> list[tuple[float, float]]:
    """Return the worst corners that are not next to each other."""
    ends = np.where(np.array(search.top) > 0.0, search.top, 1.0)
    place = np.sqrt(np.minimum(corners[:, :2] / ends, 1.5))
    left = gap.copy()
    chosen: list[tuple[float, float]] = []
    while len(chosen) < BATCH:
        i = int(left.argmax())
        if not left[i] > tol:
            break
        g, local = (
            float(x) if far > 0.0 else 0.0
            for x, far in zip(corners[i, :2], search.far, strict=True)
        )
        chosen.append((g, local))
        left[(np.abs(place - place[i]) < APART).all(axis=1)] = -np.inf
    return chosen
