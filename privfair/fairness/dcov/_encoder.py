"""Protected attributes as points whose Euclidean distances say who differs, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    SchemaError,
    SensitiveFeatureError,
)
from privfair.core.frames import Table, as_table, missing_mask
from privfair.core.schema import Schema
from privfair.fairness.dcov._columns import (
    MISSING,
    Column,
    cell_labels,
    declared_column,
    declared_mean,
    guess_kind,
    observed_mean,
    pair_distances,
    range_of,
    read_numbers,
    sort_key,
)

__all__ = ["AttributeEncoder"]

TYPES = ("binary", "categorical", "continuous")
SCALINGS = ("balanced", "paper", "none")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class AttributeEncoder(TransformerMixin, BaseEstimator):
    r"""Encode protected attributes as vectors, one block of columns for each attribute.

    Parameters
    ----------
    types : mapping of str to {"binary", "categorical", "continuous"} or None, default=None
        By attribute. Attributes without an entry: text, booleans and categoricals are
        categorical; numbers are continuous, unless they are whole and have at most 12 distinct
        values (codes).
    scaling : {"balanced", "paper", "none"}, default="balanced"
        ``"balanced"``: every attribute has mean distance 1 between two different people, times
        its weight. ``"paper"``: numbers to [0, 1], two levels as one 0/1 column (distance 1),
        more levels one-hot (distance :math:`\sqrt 2`), as in Lee et al. ``"none"``: the same,
        numbers in their own units.
    weights : mapping of str to float or None, default=None
        Positive factors of the attributes' distances; 1 where absent.
    schema : Schema or None, default=None
        Public categories and bounds. With it nothing is learnt from the rows: scales come from
        uniform distributions over the declared values, and the cells are the full product.
    missing : {"error", "category"}, default="error"
        What to do with missing values of a categorical attribute.
    max_cells : int, default=1024
        Above this many distinct combinations ``cells_`` is None.

    Attributes
    ----------
    blocks_ : dict of str to slice
        Columns of each attribute.
    cells_ : ndarray of shape (n_cells, n_columns) or None
        The distinct encoded rows.
    cell_of_ : ndarray of int, shape (n_rows,), or None
        The cell of each row seen by ``fit``.
    cell_labels_ : list of tuple or None
        Attribute values of each cell, as in the data.
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    Notes
    -----
    A nominal attribute is never coded 0, 1, 2, ...: distance covariance would then depend on the
    order of the labels. No level of a one-hot block is dropped: distances would be unequal.
    The scales are weights of the attributes and are fixed by ``fit``; store them with a penalty's
    strength, which has no meaning without them. ``fit`` is O(n log n).

    Privacy: without ``schema`` categories, ranges, scales and cells are read from the rows and
    are covered by no guarantee. With ``schema`` they are public by declaration.

    References
    ----------
    Lee, Antonio, Avanzi, Marchi and Zhou 2025, arXiv 2509.08163 (the scaling "paper").

    Examples
    --------
    >>> S = {"sex": ["f", "m", "f", "m"], "age": [20, 30, 40, 60]}
    >>> encoder = AttributeEncoder(types={"age": "continuous"}, scaling="paper").fit(S)
    >>> encoder.transform(S)
    array([[0.  , 0.  ],
           [1.  , 0.25],
           [0.  , 0.5 ],
           [1.  , 1.  ]])
    >>> encoder.blocks_
    {'sex': slice(0, 1, None), 'age': slice(1, 2, None)}
    """

    def __init__(
        self,
        *,
        types: Mapping[str, str] | None = None,
        scaling: str = "balanced",
        weights: Mapping[str, float] | None = None,
        schema: Schema | None = None,
        missing: str = "error",
        max_cells: int = 1024,
    ) -> None:
        self.types = types
        self.scaling = scaling
        self.weights = weights
        self.schema = schema
        self.missing = missing
        self.max_cells = max_cells

    def fit(self, S: Any, y: Any = None) -> AttributeEncoder:
        """Learn, or take from the schema, categories, ranges, scales and cells.

        Parameters
        ----------
        S : data frame, mapping or array-like, shape (n_rows,) or (n_rows, n_attributes)
        y : ignored

        Returns
        -------
        AttributeEncoder
        """
        self._check_parameters()
        table = as_table(S, name="sensitive_features", prefix="s")
        if table.n_rows == 0 or not table.columns:
            raise DataError("sensitive_features must have at least one row and one column.")
        self._check_names(table)
        if self.schema is not None:
            absent = [n for n in self.schema.names if n not in table.columns]
            absent += [n for n in table.columns if n not in self.schema]
            if absent:
                raise SchemaError(f"columns {absent} are not in both the schema and the table.")
            found = [declared_column(n, c, self.types) for n, c in self.schema.items()]
        else:
            found = [self._learnt(table, name) for name in table.columns]
        reads = [column.read(table) for column in found]
        self._columns = [self._scaled(c, r) for c, r in zip(found, reads, strict=True)]
        starts = np.cumsum([0, *(c.width for c in self._columns)])
        self.blocks_ = {
            c.name: slice(int(a), int(a) + c.width)
            for c, a in zip(self._columns, starts, strict=False)
        }
        self.feature_names_in_ = np.array([c.name for c in self._columns], dtype=object)
        self.n_features_in_ = len(self._columns)
        self._find_cells(reads)
        return self

    def transform(self, S: Any) -> Floats:
        """Return the encoded attributes, shape (n_rows, n_columns).

        Parameters
        ----------
        S : data frame, mapping or array-like

        Returns
        -------
        ndarray of float64
        """
        blocks = [c.points(r) for c, r in zip(self._columns, self._reads(S), strict=True)]
        return np.hstack(blocks)

    def cell_codes(self, S: Any) -> Ints:
        """Return the number of each row's cell in ``cells_``, shape (n_rows,).

        Parameters
        ----------
        S : data frame, mapping or array-like

        Returns
        -------
        ndarray of int64

        Raises
        ------
        SensitiveFeatureError
            There are no finite cells, or a combination was not there when fitted.
        """
        reads = self._reads(S)
        if self.cells_ is None:
            raise SensitiveFeatureError(
                f"the attributes have more than max_cells={self.max_cells} distinct combinations. "
                "Bin the continuous ones, raise max_cells, or use method='tiled'."
            )
        known = self._keys(self._cell_reads)
        order = np.argsort(known)
        keys = self._keys(reads)
        spot = np.minimum(np.searchsorted(known[order], keys), len(known) - 1)
        if (known[order][spot] != keys).any():
            raise SensitiveFeatureError(
                "a combination of attributes was not there when the encoder was fitted. Fit on "
                "rows with every combination, or declare the attributes in a Schema."
            )
        return np.asarray(order[spot], dtype=np.int64)

    def cell_distances(self) -> list[Floats]:
        """Return for each attribute the distances of the cells, shape (n_cells, n_cells)."""
        cells = getattr(self, "cells_", None)
        if cells is None:
            raise SensitiveFeatureError("there are no finite cells; see max_cells.")
        return [pair_distances(cells[:, block]) for block in self.blocks_.values()]

    # --- parts ------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        check.one_of(SCALINGS, scaling=self.scaling)
        check.one_of(("error", "category"), missing=self.missing)
        check.positive_int(max_cells=self.max_cells)
        if self.schema is not None and not isinstance(self.schema, Schema):
            raise InvalidTypeError("schema must be a privfair.Schema or None.")
        for what in ("types", "weights"):
            given = getattr(self, what)
            if given is not None and not isinstance(given, Mapping):
                raise InvalidTypeError(f"{what} must be a mapping from attribute to value.")
        for name, kind in (self.types or {}).items():
            check.one_of(TYPES, **{f"types[{name!r}]": kind})
        for name, weight in (self.weights or {}).items():
            given_weight: dict[str, Any] = {f"weights[{name!r}]": weight}
            check.positive(**given_weight)

    def _check_names(self, table: Table) -> None:
        for what in ("types", "weights"):
            unknown = [n for n in (getattr(self, what) or {}) if n not in table.columns]
            if unknown:
                raise InvalidParameterError(
                    f"{what} names {unknown}, which are not attributes; they are "
                    f"{list(table.columns)}."
                )

    def _learnt(self, table: Table, name: str) -> Column:
        values = table.column(name)
        gone = missing_mask(values)
        kind = (self.types or {}).get(name) or guess_kind(values[~gone], table.kind(name))
        if kind == "continuous":
            numbers = read_numbers(name, values)
            low, high = float(numbers.min()), float(numbers.max())
            return Column(name, kind, (), low, high)
        present = set(values[~gone].tolist())
        levels = sorted(present, key=sort_key)
        if gone.any() and self.missing == "category":
            if MISSING in present:
                raise SensitiveFeatureError(
                    f"attribute {name!r} has missing values and a category {MISSING!r}."
                )
            levels.append(MISSING)
        if kind == "binary" and len(levels) > 2:
            raise SensitiveFeatureError(
                f"attribute {name!r} is declared binary and has {len(levels)} categories."
            )
        return Column(name, "categorical", tuple(levels))

    def _scaled(self, column: Column, read: NDArray[Any]) -> Column:
        weight = float((self.weights or {}).get(column.name, 1.0))
        one_column = False
        if self.scaling != "balanced":
            one_column = column.kind == "categorical" and len(column.levels) == 2
            if self.scaling == "none" and column.kind == "continuous":
                weight *= range_of(column)
        elif column.declared:
            weight /= declared_mean(column)
        else:
            weight /= observed_mean(column, read)
        return replace(column, one_column=one_column, factor=weight)

    def _reads(self, S: Any) -> list[NDArray[Any]]:
        if not hasattr(self, "_columns"):
            raise NotFittedError("this AttributeEncoder is not fitted yet; call fit first.")
        table = as_table(S, name="sensitive_features", prefix="s")
        if len(table.columns) != len(self._columns):
            raise SensitiveFeatureError(
                f"{len(self._columns)} attributes were fitted, {len(table.columns)} were given."
            )
        return [column.read(table) for column in self._columns]

    def _keys(self, reads: list[NDArray[Any]]) -> Ints:
        """Return one whole number for each combination; -1 for values not seen by fit."""
        key = np.zeros(len(reads[0]), dtype=np.int64)
        bad = np.zeros(len(key), dtype=bool)
        for values, read in zip(self._cell_values, reads, strict=True):
            spot = np.minimum(np.searchsorted(values, read), len(values) - 1)
            bad |= values[spot] != read
            key = key * len(values) + spot
        key[bad] = -1
        return key

    def _find_cells(self, reads: list[NDArray[Any]]) -> None:
        self.cells_ = self.cell_of_ = self.cell_labels_ = None
        if self.schema is not None:
            if not all(c.finite for c in self._columns):
                return
            sizes = [len(c.levels) for c in self._columns]
            if math.prod(sizes) > self.max_cells:
                return
            self._cell_values = [np.arange(k) for k in sizes]
            self._cell_reads = [g.ravel() for g in np.indices(sizes)]
        else:
            self._cell_values = [np.unique(r) for r in reads]
            if max(map(len, self._cell_values)) > self.max_cells:
                return
            if math.prod(map(len, self._cell_values)) >= 2**62:
                return
            first = np.unique(self._keys(reads), return_index=True)[1]
            if len(first) > self.max_cells:
                return
            self._cell_reads = [r[first] for r in reads]
        points = [c.points(r) for c, r in zip(self._columns, self._cell_reads, strict=True)]
        self.cells_ = np.hstack(points)
        self.cell_labels_ = list(
            zip(
                *(cell_labels(c, r) for c, r in zip(self._columns, self._cell_reads, strict=True)),
                strict=True,
            )
        )
        known = self._keys(self._cell_reads)
        self.cell_of_ = np.asarray(np.searchsorted(known, self._keys(reads)), dtype=np.int64)
