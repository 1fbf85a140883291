"""Bootstrap and permutation draws of a group table, shared by all metrics of one call."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.randomness import check_random_state
from privfair.core.statistics import (
    margin_permutations,
    multinomial_resamples,
    multiplicity_weights,
)
from privfair.fairness.metrics._table import Cells, GroupTable

__all__ = ["Streams", "TableResamples", "rate"]

Floats = NDArray[np.float64]
CHUNK = 250_000  # entries of a block of row weights: 2 MB stays in the cache


class Streams:
    """Independent generators by purpose, so that a draw does not depend on what else is asked."""

    def __init__(self, random_state: object = None) -> None:
        self._root = int(check_random_state(random_state).integers(2**63))

    def get(self, purpose: str) -> np.random.Generator:
        """Return the generator of a purpose; the same one for the same name."""
        return np.random.default_rng([self._root, zlib.crc32(purpose.encode())])


def rate(numerator: Floats, denominator: Floats) -> Floats:
    """Return the ratio, NaN where the denominator is zero."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def weighted_draws(
    weight: Floats,
    count: NDArray[np.int64],
    starts: NDArray[np.int64],
    n_resamples: int,
    rng: np.random.Generator,
) -> Floats:
    """Return resampled sums of weights, shape (n_resamples, n_segments), in blocks."""
    step = max(1, CHUNK // max(int(count.sum()), 1))
    out = np.empty((n_resamples, starts.size))
    for first in range(0, n_resamples, step):
        block = min(step, n_resamples - first)
        drawn = multiplicity_weights(count, block, rng) * weight
        out[first : first + block] = np.add.reduceat(drawn, starts, axis=1)
    return out


class TableResamples:
    """Bootstrap replicates and null permutations of one table, made when first asked for."""

    def __init__(self, table: GroupTable, n_resamples: int, streams: Streams) -> None:
        self.table = table
        self.n_resamples = n_resamples
        self._streams = streams
        self._cells: Floats | None = None
        self._nulls: dict[tuple[Cells, Cells], tuple[Floats, Floats]] = {}

    @property
    def cells(self) -> Floats:
        """Bootstrap tables, shape (2, 2, n_resamples, n_groups)."""
        if self._cells is None:
            self._cells = self._draw()
        return self._cells

    def _draw(self) -> Floats:
        table, rng = self.table, self._streams.get("bootstrap")
        shape = (self.n_resamples, table.n_groups, 2, 2)
        if table.noise is not None:  # parametric: sampling of the released table, fresh noise
            counts = np.maximum(table.counts, 0)
            drawn = multinomial_resamples(counts, self.n_resamples, rng).astype(float)
            drawn += self._noise(shape, rng)
        elif table.rows is None:
            drawn = multinomial_resamples(table.counts, self.n_resamples, rng).astype(float)
        else:
            rows = table.rows
            starts = np.flatnonzero(np.r_[True, np.diff(rows.cell) != 0])
            flat = np.zeros((self.n_resamples, 4 * table.n_groups))
            flat[:, rows.cell[starts]] = weighted_draws(
                rows.weight, rows.count, starts, self.n_resamples, rng
            )
            drawn = flat.reshape(shape)
        return np.ascontiguousarray(np.moveaxis(drawn, (2, 3), (0, 1)))

    def _noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """Return simulated noise of the released table; never added to data."""
        assert self.table.noise is not None
        p = -math.expm1(-1.0 / self.table.noise.scale)
        draws = rng.geometric(p, shape) - rng.geometric(p, shape)
        if not self.table.has_labels:
            draws[:, :, 1, :] = 0
        return np.asarray(draws, dtype=float)

    def rates(self, numerator: Cells, denominator: Cells) -> Floats:
        """Return bootstrap replicates of a rate, shape (n_resamples, n_groups)."""
        cells = self.cells
        return self._rate(sum_cells(cells, numerator), sum_cells(cells, denominator), denominator)

    def _rate(self, k: Floats, n: Floats, denominator: Cells) -> Floats:
        """Return k / n by the rule of the table: clipped and censored where it is noisy."""
        noise = self.table.noise
        if noise is None:
            return rate(k, n)
        least = 3 * math.sqrt(noise.variance * len(denominator))
        return np.clip(np.where(n > least, rate(k, n), np.nan), 0.0, 1.0)

    def null_rates(self, numerator: Cells, denominator: Cells) -> Floats:
        """Return the rate with its numerator permuted among the rows of its denominator."""
        k, n = self._null(numerator, denominator)
        return self._rate(k, n, denominator)

    def _null(self, numerator: Cells, denominator: Cells) -> tuple[Floats, Floats]:
        key = (numerator, denominator)
        if key not in self._nulls:
            rng = self._streams.get(f"null {key}")
            if self.table.noise is not None:
                self._nulls[key] = self._null_noisy(numerator, denominator, rng)
            elif self.table.rows is None:
                self._nulls[key] = self._null_counts(numerator, denominator, rng)
            else:
                self._nulls[key] = self._null_weighted(numerator, denominator, rng)
        return self._nulls[key]

    def _null_counts(
        self, numerator: Cells, denominator: Cells, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        cells = np.moveaxis(self.table.counts, 0, -1)
        n = sum_cells(cells, denominator)
        marked = int(sum_cells(cells, numerator).sum())
        k = margin_permutations(n, marked, self.n_resamples, rng)
        return k.astype(float), n.astype(float)

    def _null_noisy(
        self, numerator: Cells, denominator: Cells, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Draw released tables in which every group has the pooled rate."""
        cells = np.moveaxis(np.maximum(self.table.counts, 0), 0, -1)
        n = sum_cells(cells, denominator).astype(np.int64)
        total = max(int(n.sum()), 1)
        marked = min(int(sum_cells(cells, numerator).sum()), int(n.sum()))
        k = rng.binomial(n, marked / total, size=(self.n_resamples, n.size)).astype(float)
        noise = self._noise((self.n_resamples, n.size, 2, 2), rng)
        noise = np.moveaxis(noise, (2, 3), (0, 1))
        return k + sum_cells(noise, numerator), n + sum_cells(noise, denominator)

    def _null_weighted(
        self, numerator: Cells, denominator: Cells, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Permute the decisions among rows; each row keeps its group and its weight."""
        rows = self.table.rows
        assert rows is not None
        cell = np.repeat(rows.cell, rows.count)
        weight = np.repeat(rows.weight, rows.count)
        kind = cell % 4
        inside = np.isin(kind, [2 * label + decision for label, decision in denominator])
        marks = np.isin(kind, [2 * label + decision for label, decision in numerator])[inside]
        group, weight = cell[inside] // 4, weight[inside]
        size = self.table.n_groups
        n: Floats = np.bincount(group, weights=weight, minlength=size).astype(float)
        out = np.zeros((self.n_resamples, size))
        if group.size == 0:
            return out, n
        starts = np.flatnonzero(np.r_[True, np.diff(group) != 0])
        step = max(1, CHUNK // group.size)
        for first in range(0, self.n_resamples, step):
            block = min(step, self.n_resamples - first)
            shuffled = rng.permuted(np.tile(marks, (block, 1)), axis=1)
            sums = np.add.reduceat(shuffled * weight, starts, axis=1)
            out[first : first + block][:, group[starts]] = sums
        return out, n


def sum_cells(cells: NDArray[Any], which: Cells) -> NDArray[Any]:
    """Add the named (label, decision) cells; cells come first in the array."""
    total = np.zeros(cells.shape[2:], dtype=cells.dtype)
    for label, decision in which:
        total = total + cells[label, decision]
    return total
