"""Groups that are declared, never read off the data: what a private penalty may know of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
    MissingSensitiveFeatureError,
    SchemaError,
    SensitiveFeatureError,
)
from privfair.core.frames import Table, as_table, missing_mask
from privfair.core.schema import Categorical, Numeric, Schema

__all__ = ["MAX_CELLS", "OTHER", "DeclaredGroups"]

OTHER = "other"
"""Name of the cell of records whose values are not declared."""

MAX_CELLS = 1024
"""Largest number of cells: a penalty holds a matrix of their distances."""

_TABLE = 1 << 20
"""Up to this many combinations of labels, cells are looked up in a table of all of them."""


class DeclaredGroups:
    """A public list of intersectional cells, and the way from records to them.

    Parameters
    ----------
    groups : Schema or mapping of str to Categorical, Numeric or list of labels
        The sensitive columns. A numeric column needs public ``bins``. Every record with a label
        that is not declared belongs to one last cell, ``"other"``, so that no list has to be
        complete and no record is refused.
    cells : iterable of tuples or None, default=None
        The combinations (one label, or number of the bin, for each column) that are cells of
        their own; all others go to ``"other"``. None takes the whole product.

    Attributes
    ----------
    names : tuple of str
        Columns.
    cells : tuple of tuples
        Labels of each cell, in the order of the cells' numbers; the last one is all ``"other"``.

    Examples
    --------
    >>> groups = DeclaredGroups({"sex": ["f", "m"], "race": ["a", "b"]})
    >>> len(groups), groups.cells[0], groups.cells[-1]
    (5, ('f', 'a'), ('other', 'other'))
    >>> groups.encode({"sex": ["f", "m", "x"], "race": ["a", "b", "a"]})
    array([0, 3, 4])
    """

    def __init__(self, groups: Any, cells: Iterable[tuple[Any, ...]] | None = None) -> None:
        self._columns = _columns(groups)
        self.names = tuple(self._columns)
        self._levels = [_levels(column) for column in self._columns.values()]
        product = math.prod(len(levels) for levels in self._levels)
        if cells is None and product >= MAX_CELLS:
            raise InvalidParameterError(
                f"the declared labels make {product} cells, and at most {MAX_CELLS - 1} are "
                "supported. Declare the cells that matter with cells=, or merge labels."
            )
        sizes = [len(levels) for levels in self._levels]
        if cells is None:
            table = np.array(list(itertools.product(*(range(n) for n in sizes))), dtype=np.int64)
        else:
            table = self._listed(cells)
        # One level more for each column: that of the labels that nobody declared.
        self._table = np.vstack([table, np.array([sizes], dtype=np.int64)])
        self._number = {tuple(row): at for at, row in enumerate(self._table.tolist())}

    def __len__(self) -> int:
        return len(self._table)

    @property
    def cells(self) -> tuple[tuple[Any, ...], ...]:
        """Labels of each cell."""
        named = [[*levels, OTHER] for levels in self._levels]
        return tuple(
            tuple(named[j][level] for j, level in enumerate(row)) for row in self._table.tolist()
        )

    def encode(self, sensitive_features: Any) -> NDArray[np.int64]:
        """Return the number of each record's cell, shape (n_rows,).

        Parameters
        ----------
        sensitive_features : array-like, data frame or mapping
            Columns are found by name where they have names, else by position.

        Raises
        ------
        MissingSensitiveFeatureError
            A value is missing.
        SensitiveFeatureError
            Unnamed columns that are not as many as those declared.
        """
        table = as_table(sensitive_features, name="sensitive_features", prefix="s")
        levels = np.stack(
            [self._level(j, column) for j, column in enumerate(self._found(table))], axis=1
        )
        sizes = tuple(len(known) + 1 for known in self._levels)
        product, rest = math.prod(sizes), len(self) - 1
        if product <= _TABLE:
            numbers = np.full(product, rest, dtype=np.int64)
            numbers[np.ravel_multi_index(tuple(self._table.T), sizes)] = np.arange(len(self))
            return numbers[np.ravel_multi_index(tuple(levels.T), sizes)]
        # With cells= the product of all labels may be far larger than any memory.
        rows, spot = np.unique(levels, axis=0, return_inverse=True)
        known_rows = [self._number.get(tuple(row), rest) for row in rows.tolist()]
        return np.array(known_rows, dtype=np.int64)[spot.reshape(-1)]

    def distances(self, weights: Mapping[str, float] | None = None) -> list[NDArray[np.float64]]:
        """Return the distances of all cells in each column, shapes (n_cells, n_cells).

        Parameters
        ----------
        weights : mapping of str to float or None
            The largest distance in each column, public; 1 for those not named. Two different
            labels, and two ends of a numeric range, are that far apart.
        """
        weights = dict(weights or {})
        unknown = sorted(set(weights) - set(self.names))
        if unknown:
            raise InvalidParameterError(
                f"weights names {unknown}, and the declared columns are {list(self.names)}."
            )
        found = []
        for j, (name, column) in enumerate(self._columns.items()):
            level = self._table[:, j]
            if isinstance(column, Numeric):
                place = _places(column)[np.minimum(level, len(self._levels[j]) - 1)]
                other = level == len(self._levels[j])
                apart = np.abs(place[:, None] - place[None, :])
                apart[other[:, None] != other[None, :]] = 1.0
            else:
                apart = (level[:, None] != level[None, :]).astype(np.float64)
            found.append(apart * float(weights.get(name, 1.0)))
        return found

    def _found(self, table: Table) -> list[NDArray[Any]]:
        if table.has_names:
            return [table.column(name) for name in self.names]
        if len(table.columns) != len(self.names):
            raise SensitiveFeatureError(
                f"sensitive_features has {len(table.columns)} columns without names, and "
                f"{len(self.names)} were declared: {list(self.names)}. Pass a data frame, or as "
                "many columns in the same order."
            )
        return [table.column(name) for name in table.columns]

    def _level(self, at: int, values: NDArray[Any]) -> NDArray[np.int64]:
        name = self.names[at]
        column, levels = self._columns[name], self._levels[at]
        if missing_mask(values).any():
            raise MissingSensitiveFeatureError(
                f"sensitive feature {name!r} has missing values. Give them a label of their own, "
                "such as 'missing', or drop those rows."
            )
        if isinstance(column, Numeric):
            if values.dtype.kind not in "fiub":
                raise SensitiveFeatureError(
                    f"sensitive feature {name!r} is declared as numeric and holds other entries."
                )
            inside = np.clip(values.astype(np.float64), column.low, column.high)
            assert column.bins is not None
            return np.searchsorted(np.array(column.bins), inside, side="right").astype(np.int64)
        import pandas as pd

        if values.dtype.kind in "fiub" and all(isinstance(label, str) for label in levels):
            raise SensitiveFeatureError(
                f"sensitive feature {name!r} holds numbers, and its declared labels are text: no "
                "record would be in a declared group. Declare numbers, or pass text."
            )
        codes, uniques = pd.factorize(values)
        known = {label: level for level, label in enumerate(levels)}
        rest = len(levels) if column.other is None else known[column.other]
        if all(isinstance(u, str) for u in uniques) and not any(
            isinstance(label, str) for label in levels
        ):
            raise SensitiveFeatureError(
                f"sensitive feature {name!r} holds text, and its declared labels are numbers: no "
                "record would be in a declared group. Declare text, or pass numbers."
            )
        seen = [known.get(_plain(label), rest) for label in uniques]
        return np.asarray(seen, dtype=np.int64)[codes]

    def _listed(self, cells: Iterable[tuple[Any, ...]]) -> NDArray[np.int64]:
        rows = []
        for cell in cells:
            given = cell if isinstance(cell, tuple | list) else (cell,)
            if len(given) != len(self.names):
                raise InvalidParameterError(
                    f"a cell must name one label for each of {list(self.names)}, got "
                    f"{len(given)} entries."
                )
            row = []
            for name, label, levels in zip(self.names, given, self._levels, strict=True):
                if _plain(label) not in levels:
                    raise InvalidParameterError(
                        f"cells holds a label that is not declared for {name!r}. Add it to groups."
                    )
                row.append(levels.index(_plain(label)))
            rows.append(row)
        if not rows or len({tuple(row) for row in rows}) != len(rows) or len(rows) >= MAX_CELLS:
            raise InvalidParameterError(
                f"cells must list between 1 and {MAX_CELLS - 1} different combinations, got "
                f"{len(rows)}."
            )
        return np.array(rows, dtype=np.int64)


def _columns(groups: Any) -> dict[str, Categorical | Numeric]:
    if groups is None:
        raise AccountingAssumptionError(
            "groups must declare the sensitive columns and their labels, for example "
            "groups={'sex': ['Female', 'Male']}. A list of cells that is read off the data would "
            "reveal a cell that one person holds."
        )
    if isinstance(groups, Schema) and groups.origin is not None:
        raise AccountingAssumptionError(
            "groups is a schema that was learnt from data; the cells of a private penalty must be "
            "declared. Write the labels down: groups={column: [labels]}."
        )
    if not isinstance(groups, Mapping):
        raise InvalidTypeError(
            "groups must be a privfair.Schema or a mapping from column to its labels, declared "
            f"and not learnt from data; got {type(groups).__name__}."
        )
    if not groups:
        raise InvalidParameterError("groups must name at least one sensitive column.")
    found: dict[str, Categorical | Numeric] = {}
    for name, column in groups.items():
        if isinstance(column, Numeric):
            if column.bins is None:
                raise SchemaError(
                    f"groups[{str(name)!r}] is numeric without bins: declare public cut points, "
                    "for example Numeric(17, 90, bins=[25, 45, 65])."
                )
            found[str(name)] = column
        else:
            labels = column if isinstance(column, Categorical) else Categorical(column)
            found[str(name)] = labels
    return found


def _levels(column: Categorical | Numeric) -> list[Any]:
    if isinstance(column, Categorical):
        return list(column.values)
    return list(range(len(column.bins or ()) + 1))


def _places(column: Numeric) -> NDArray[np.float64]:
    """Return the middle of each bin on the scale from 0 to 1."""
    edges = np.array([column.low, *(column.bins or ()), column.high])
    return ((edges[:-1] + edges[1:]) / 2 - column.low) / (column.high - column.low)


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") else label
