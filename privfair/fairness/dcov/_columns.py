"""One protected attribute: how its values are read, and where they lie as points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    DataError,
    MissingSensitiveFeatureError,
    SchemaError,
    SensitiveFeatureError,
)
from privfair.core.frames import Table, missing_mask
from privfair.core.schema import Categorical, Numeric

__all__ = [
    "MISSING",
    "Column",
    "cell_labels",
    "declared_column",
    "declared_mean",
    "guess_kind",
    "mean_distance",
    "observed_mean",
    "pair_distances",
    "range_of",
    "read_numbers",
    "sort_key",
]

MISSING = "missing"
MAX_CODES = 12
"""A column of whole numbers with more distinct values than this is a quantity, not a code."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """One attribute: its levels or its range, and the factor that scales its block."""

    name: str
    kind: str
    levels: tuple[Any, ...]  # values of a finite attribute, in order
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    bins: tuple[float, ...] | None = None
    other: Any = None
    declared: bool = False
    one_column: bool = False
    factor: float = 1.0

    @property
    def width(self) -> int:
        return len(self.levels) if self.kind == "categorical" and not self.one_column else 1

    @property
    def finite(self) -> bool:
        return self.kind == "categorical" or self.bins is not None

    def read(self, table: Table) -> NDArray[Any]:
        """Return level numbers of a finite attribute, else numbers in their own units."""
        values = table.column(self.name)
        if self.kind == "categorical":
            return _levels_of(self, values)
        numbers = read_numbers(self.name, values)
        if self.declared:
            numbers = np.clip(numbers, self.low, self.high)
        if self.bins is not None:
            return np.searchsorted(np.asarray(self.bins), numbers, side="right")
        return numbers

    def points(self, read: NDArray[Any]) -> Floats:
        """Return the encoded block of what :meth:`read` gave, shape (n, width)."""
        if self.kind == "categorical":
            if self.one_column:
                return read.astype(float)[:, None] * self.factor
            block = np.zeros((len(read), self.width))
            block[np.arange(len(read)), read] = self.factor
            return block
        numbers = read.astype(float)
        if self.bins is not None:
            edges = np.array([self.low, *self.bins, self.high])
            numbers = ((edges[1:] + edges[:-1]) / 2)[read]
        return (self.unit(numbers) * self.factor)[:, None]

    def unit(self, numbers: Floats) -> Floats:
        """Return numbers on the scale of the distances, before the factor."""
        if self.log:
            return np.log1p(numbers - self.low) / math.log1p(self.high - self.low)
        span = self.high - self.low
        return (numbers - self.low) / span if span > 0 else np.zeros_like(numbers)


def read_numbers(name: str, values: NDArray[Any]) -> Floats:
    if missing_mask(values).any():
        raise MissingSensitiveFeatureError(
            f"attribute {name!r} has missing values. A missing number has no distance to the "
            "others: impute it, drop the rows, or bin the column and use missing='category'."
        )
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise SensitiveFeatureError(
            f"attribute {name!r} is declared continuous and holds values that are not numbers."
        ) from None
    if not np.isfinite(numbers).all():
        raise DataError(f"attribute {name!r} must be finite in every row.")
    return numbers


def _levels_of(column: Column, values: NDArray[Any]) -> Ints:
    import pandas as pd

    gone = missing_mask(values)
    values = values.astype(object)
    if gone.any():
        if MISSING not in column.levels and column.other is None:
            raise MissingSensitiveFeatureError(
                f"attribute {column.name!r} has missing values. Pass missing='category' to make "
                "them a group of their own, or drop the rows."
            )
        values[gone] = MISSING if MISSING in column.levels else column.other
    codes = pd.Index(column.levels, dtype=object).get_indexer(pd.Index(values, dtype=object))
    if (codes < 0).any():
        if column.other is None:
            raise SensitiveFeatureError(
                f"attribute {column.name!r} has a category that was not there when the encoder "
                "was fitted. Fit on all categories, or declare them in a Schema with other=..."
            )
        codes = np.where(codes < 0, column.levels.index(column.other), codes)
    return np.asarray(codes, dtype=np.int64)


def mean_distance(numbers: Floats) -> float:
    """Return the mean of |x_i - x_j| over pairs i != j, in O(n log n)."""
    n = len(numbers)
    if n < 2:
        return 0.0
    ordered = np.sort(numbers - numbers.mean())
    return float(2 * (ordered * (2 * np.arange(1, n + 1) - n - 1)).sum() / (n * (n - 1)))


def sort_key(value: Any) -> tuple[bool, Any]:
    """Return what orders the levels of an attribute: numbers, then all else as text."""
    number = isinstance(value, int | float | np.number)
    return (not number, value if number else str(value))


def guess_kind(values: NDArray[Any], kind: str) -> str:
    if kind != "numeric" or not len(values):
        return "categorical"
    numbers = np.asarray(values, dtype=float)
    whole = bool((numbers == np.floor(numbers)).all())
    return "categorical" if whole and len(np.unique(numbers)) <= MAX_CODES else "continuous"


def declared_column(
    name: str, column: Numeric | Categorical, types: Mapping[str, str] | None
) -> Column:
    kind = (types or {}).get(name)
    if isinstance(column, Categorical):
        if kind == "continuous" or (kind == "binary" and len(column.values) != 2):
            raise SchemaError(f"attribute {name!r} is declared Categorical and as {kind!r}.")
        return Column(name, "categorical", column.values, other=column.other, declared=True)
    if kind not in (None, "continuous"):
        raise SchemaError(f"attribute {name!r} is declared Numeric and as {kind!r}.")
    levels = () if column.bins is None else tuple(range(len(column.bins) + 1))
    return Column(
        name, "continuous", levels, column.low, column.high, column.log, column.bins, declared=True
    )


def range_of(column: Column) -> float:
    span = column.high - column.low
    return math.log1p(span) if column.log else (span or 1.0)


def observed_mean(column: Column, read: NDArray[Any]) -> float:
    """Return the mean distance of two different rows, 1 where nobody differs."""
    if column.kind == "categorical":
        n = len(read)
        counts = np.bincount(read).astype(float)
        same = (counts * (counts - 1)).sum() / max(n * (n - 1), 1)
        return math.sqrt(2) * (1 - same) or 1.0
    return mean_distance(column.points(read)[:, 0]) or 1.0


def declared_mean(column: Column) -> float:
    """Return the mean distance of two people drawn uniformly from the declared values."""
    if column.finite:
        points = column.points(np.arange(len(column.levels)))
        return float(pair_distances(points).mean()) or 1.0
    if not column.log:
        return 1 / 3
    grid = np.linspace(column.low, column.high, 4097)
    return mean_distance(column.unit((grid[1:] + grid[:-1]) / 2))


def pair_distances(points: Floats) -> Floats:
    """Return Euclidean distances of rows, from their differences."""
    return np.sqrt(((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=2))


def cell_labels(column: Column, read: NDArray[Any]) -> list[Any]:
    if column.kind == "categorical":
        return [column.levels[i] for i in read]
    if column.bins is None:
        return list(read.tolist())
    edges = [column.low, *column.bins, column.high]
    return [f"[{edges[i]:g}, {edges[i + 1]:g})" for i in read]
