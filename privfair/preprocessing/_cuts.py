"""Cut points of numeric columns by private medians of medians' halves, at a price known before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SchemaError
from privfair.core.frames import Table, missing_mask
from privfair.core.schema import Numeric, Schema
from privfair.mechanisms import DPQuantile
from privfair.preprocessing._layout import columns_of

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["CutDiscovery", "with_exact_cuts"]

LEVELS = 4  # 2**4 bins at most
_STEPS = 1024

_Median = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


class CutDiscovery:
    """Private cut points that split each numeric column into bins of about equal weight.

    Every cell of a level is split at a private median of the records in it, from the whole
    public range down, :data:`LEVELS` times (Kaplan, Schnapp, Stemmer 2022, arXiv 2110.05429).
    The cells of a level are disjoint and fixed by earlier releases, so that one record enters
    one median per level: a column costs as many exponential mechanisms as there are levels, not
    as there are cuts.

    Parameters
    ----------
    columns : sequence of str
        The numeric columns.
    epsilon : float or Fraction
        Pure epsilon of all columns and levels together, split evenly.
    neighboring : str
        Relation that the budget is meant under.
    noise_random_state : int or None
        For tests and benchmarks only.
    """

    def __init__(
        self,
        columns: Sequence[str],
        epsilon: float | Fraction,
        neighboring: str,
        noise_random_state: int | None,
    ) -> None:
        self.columns = list(columns)
        if not self.columns:
            raise SchemaError(
                "binning='dp_quantiles' splits numeric columns into bins, and there is none. "
                "Leave binning out."
            )
        self._each = Fraction(epsilon) / (len(self.columns) * LEVELS)
        self._neighboring = neighboring
        self._seed = noise_random_state

    def cost(self) -> tuple[AccountedEvent, ...]:
        """Return the price of every level of every column."""
        one = DPQuantile(0.5, 0.0, 1.0, self._each, neighboring=self._neighboring)
        return (one.cost(LEVELS * len(self.columns)),)

    def learn(self, table: Table, schema: Schema) -> Schema:
        """Return the schema with cut points; the cost must have been charged before."""
        sources = _sources(table, schema)
        found = dict(schema)
        for position, name in enumerate(self.columns):
            column = schema[name]
            assert isinstance(column, Numeric)
            seeds = None
            if self._seed is not None:
                words = np.random.SeedSequence([self._seed, 1, position])
                seeds = iter(words.generate_state(1 << LEVELS, np.uint64).tolist())
            found[name] = _with_cuts(column, table.column(sources[name]), self._median(seeds))
        return Schema(found)

    def _median(self, seeds: Iterator[int] | None) -> _Median:
        def draw(values: NDArray[np.float64], grid: NDArray[np.float64]) -> float:
            low, high = _surrounding(grid)
            seed = None if seeds is None else next(seeds)
            mechanism = DPQuantile(
                0.5,
                low,
                high,
                self._each,
                grid=grid.tolist(),
                neighboring=self._neighboring,
                noise_random_state=seed,
            )
            return float(mechanism.release(values))

        return draw


def with_exact_cuts(table: Table, schema: Schema) -> Schema:
    """Return a public schema with cut points at medians without noise: not private.

    Parameters
    ----------
    table : Table
    schema : Schema
        Bounds of the numeric columns; declared bins are left aside.

    Returns
    -------
    Schema

    Notes
    -----
    For the non-private twin of a fit that learns cut points. O(n log n) per column.

    References
    ----------
    Kaplan, Schnapp, Stemmer, "Differentially Private Approximate Quantiles", 2022,
    arXiv:2110.05429.

    Examples
    --------
    >>> from privfair.core.frames import as_table
    >>> schema = with_exact_cuts(
    ...     as_table({"age": range(64)}), Schema({"age": Numeric(0, 64)})
    ... )
    >>> len(schema["age"].bins)
    15
    """
    sources = _sources(table, schema)

    def median(values: NDArray[np.float64], grid: NDArray[np.float64]) -> float:
        ordered = np.sort(values)
        below = np.searchsorted(ordered, grid, side="left")
        above = len(ordered) - np.searchsorted(ordered, grid, side="right")
        return float(grid[np.argmin(np.abs(below - above))])

    found = dict(schema)
    for name in schema.numeric:
        column = schema[name]
        assert isinstance(column, Numeric)
        found[name] = _with_cuts(column, table.column(sources[name]), median)
    return Schema(found)


def _sources(table: Table, schema: Schema) -> dict[str, str]:
    """Map the schema's column names to the table's."""
    return dict(zip(schema, columns_of(table, schema), strict=True))


def _with_cuts(column: Numeric, values: NDArray[np.generic], median: _Median) -> Numeric:
    number = values[~missing_mask(values)].astype(np.float64)
    number = np.clip(number, column.low, column.high)
    cells = [(number, _grid(column))]
    cuts: list[float] = []
    for _ in range(LEVELS):
        halves = []
        for inside, grid in cells:
            if not len(grid):  # decided by earlier releases alone
                continue
            cut = median(inside, grid)
            cuts.append(cut)
            halves.append((inside[inside < cut], grid[grid < cut]))
            halves.append((inside[inside >= cut], grid[grid > cut]))
        cells = halves
    return replace(column, bins=tuple(sorted(cuts)))


def _grid(column: Numeric) -> NDArray[np.float64]:
    """Return the candidates: even steps on the column's own scale, the bounds left out."""
    share = np.arange(1, _STEPS) / _STEPS
    span = column.high - column.low
    if column.log:
        points = column.low + np.expm1(share * np.log1p(span))
    else:
        points = column.low + share * span
    points = np.unique(points)
    inside: NDArray[np.float64] = points[(points > column.low) & (points < column.high)]
    return inside


def _surrounding(grid: NDArray[np.float64]) -> tuple[float, float]:
    """Return public bounds around the candidates of a cell; a record keeps its side of each."""
    return float(np.nextafter(grid[0], -np.inf)), float(np.nextafter(grid[-1], np.inf))
