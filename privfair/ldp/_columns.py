"""Rows of a table as positions in public lists: what a device computes before it randomises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.arrays import number_matrix, quiet_array
from privfair.core.exceptions import InvalidTypeError, SchemaError
from privfair.core.frames import Table, as_table, is_dataframe, missing_mask
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.mechanisms import column_codes, domain_size

__all__ = ["Columns", "as_frame", "public_columns"]


@dataclass(frozen=True)
class Columns:
    """The public domain of every column, numeric ones cut into bins.

    Attributes
    ----------
    schema : Schema
        Every numeric column has bins.
    uniform : bool
        Whether one declaration stands for all columns, which are then matched by position.
    """

    schema: Schema
    uniform: bool = False

    @property
    def sizes(self) -> list[int]:
        """Number of values of each column."""
        return [domain_size(column) for column in self.schema.values()]

    def labels(self) -> list[list[str]]:
        """Return the names of the values of each column."""
        out = []
        for column in self.schema.values():
            if isinstance(column, Categorical):
                out.append([str(value) for value in column.values])
                continue
            cuts = [column.low, *(column.bins or ()), column.high]
            last = len(cuts) - 2
            out.append(
                [
                    f"[{cuts[i]:g}, {cuts[i + 1]:g}{']' if i == last else ')'}"
                    for i in range(last + 1)
                ]
            )
        return out

    def codes(self, X: Any) -> NDArray[np.int64]:
        """Return positions, shape (n_rows, n_columns); messages name columns, never values."""
        table, sources = self._matched(X)
        out = np.empty((table.n_rows, len(self.schema)), dtype=np.int64)
        for at, (source, (name, column)) in enumerate(
            zip(sources, self.schema.items(), strict=True)
        ):
            values = table.column(source)
            if isinstance(column, Numeric):
                if values.dtype.kind not in "biuf":
                    raise SchemaError(
                        f"column {name!r} is declared Numeric and is not numeric. Convert it, or "
                        "declare it Categorical."
                    )
                if missing_mask(values).any():
                    raise SchemaError(
                        f"column {name!r} has missing or NaN values. Impute a public constant, "
                        "or declare the column Categorical with a value for them."
                    )
            out[:, at] = column_codes(name, values, column)
        return out

    def _matched(self, X: Any) -> tuple[Table, list[str]]:
        if self.uniform and all(isinstance(c, Numeric) for c in self.schema.values()):
            X = number_matrix(X, "float64")
        table = as_table(X)
        if not table.n_rows:
            raise SchemaError("X has 0 sample(s): there is no row to randomise.")
        if self.uniform or not table.has_names:
            if len(table.columns) != len(self.schema):
                raise SchemaError(
                    f"X has {len(table.columns)} columns and the schema {len(self.schema)}, which "
                    "are matched by position. Pass a data frame, or drop columns."
                )
            return table, list(table.columns)
        absent = [name for name in self.schema if name not in table.columns]
        extra = [name for name in table.columns if name not in self.schema]
        if absent or extra:
            raise SchemaError(
                f"X and the schema have different columns: {absent or 'none'} only in the "
                f"schema, {extra or 'none'} only in X. Pass X[list(schema)], or declare them."
            )
        return table, self.schema.names


def as_frame(X: Any) -> Any:
    """Return a data frame as it is, and anything else as something that has rows and columns."""
    if isinstance(X, Mapping) and not hasattr(X, "toarray"):
        return as_table(X).to_pandas()
    return X if is_dataframe(X) else quiet_array(X, dtype=None, ensure_all_finite=False)


def public_columns(schema: Any, bins: Any, X: Any) -> Columns:
    """Return the domains that a ``schema`` parameter stands for; of X only the columns count."""
    n_bins = check.positive_int(bins=bins)
    if n_bins < 2:
        raise SchemaError(f"bins must be at least 2, got {n_bins}: one bin says nothing.")
    if isinstance(schema, Numeric | Categorical):
        found = Schema(dict.fromkeys(as_table(X).columns, schema))
        return Columns(_binned(found, n_bins), uniform=True)
    if not isinstance(schema, Mapping):
        raise InvalidTypeError(
            "schema must be a Schema (or a mapping of column names to Numeric or Categorical), "
            f"or one Numeric or Categorical for all columns, got {type(schema).__name__}. "
            "Local randomisers need a public domain: learning one from raw rows would be a "
            "release of its own."
        )
    declared = schema if isinstance(schema, Schema) else Schema(schema)
    if declared.origin is not None:
        raise SchemaError(
            "the schema was learnt from data. Devices need one that is known without them: "
            "declare bounds and categories."
        )
    return Columns(_binned(declared, n_bins))


def _binned(schema: Schema, n_bins: int) -> Schema:
    columns: dict[str, Numeric | Categorical] = {}
    for name, column in schema.items():
        if isinstance(column, Numeric) and column.bins is None:
            column = replace(column, bins=_cuts(column, n_bins))
        if domain_size(column) < 2:
            raise SchemaError(
                f"column {name!r} has one possible value, so that there is nothing to report. "
                "Drop it from the schema and from X."
            )
        columns[name] = column
    return Schema(columns)


def _cuts(column: Numeric, n_bins: int) -> tuple[float, ...]:
    """Return cut points of equal width, on the column's own scale."""
    shares = np.arange(1, n_bins) / n_bins
    width = column.high - column.low
    if not math.isfinite(width):
        raise SchemaError("the bounds of a numeric column are too far apart to be cut in bins.")
    cuts = column.low + (np.expm1(shares * math.log1p(width)) if column.log else shares * width)
    return tuple(float(cut) for cut in cuts)
