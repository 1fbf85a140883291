"""A resolved schema as columns of numbers: pure functions of public knowledge and one record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SchemaError
from privfair.core.frames import Table, missing_mask
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.mechanisms import column_codes, domain_size

__all__ = ["Layout", "columns_of"]


@dataclass(frozen=True)
class Layout:
    """Where each column of a schema goes.

    Parameters
    ----------
    schema : Schema
    unit : bool
        Whether numbers are scaled to [0, 1] rather than [-1, 1].
    bins : bool
        Whether declared bins add indicator columns.
    missing : {"error", "middle"}
        What a missing number is.
    """

    schema: Schema
    unit: bool
    bins: bool
    missing: str

    def widths(self) -> list[int]:
        """Return the number of output columns of each input column."""
        return [
            len(column.values) if isinstance(column, Categorical) else 1 + self._n_bins(column)
            for column in self.schema.values()
        ]

    def max_row_norm(self) -> float:
        """Return the largest L2 norm that an encoded record can have."""
        square = sum(
            1 if isinstance(column, Categorical) else 1 + (self._n_bins(column) > 0)
            for column in self.schema.values()
        )
        return math.sqrt(square)

    def names(self) -> list[str]:
        """Return the names of the output columns."""
        out: list[str] = []
        for name, column in self.schema.items():
            if isinstance(column, Categorical):
                out += [f"{name}={value}" for value in column.values]
                continue
            out.append(name)
            if self._n_bins(column):
                cuts = [column.low, *(column.bins or ()), column.high]
                last = len(cuts) - 2
                out += [
                    f"{name}=[{cuts[i]:g}, {cuts[i + 1]:g}{']' if i == last else ')'}"
                    for i in range(last + 1)
                ]
        return out

    def _n_bins(self, column: Numeric) -> int:
        return domain_size(column) if self.bins and column.bins is not None else 0

    def check(self, table: Table, columns: list[str]) -> None:
        """Raise if the table does not fit; the message names columns, never values."""
        for source, (name, column) in zip(columns, self.schema.items(), strict=True):
            values = table.column(source)
            if isinstance(column, Numeric):
                if values.dtype.kind not in "biuf":
                    raise SchemaError(
                        f"column {name!r} is declared Numeric and is not numeric. Convert it, or "
                        "declare it Categorical."
                    )
                if not math.isfinite(column.high - column.low):
                    raise SchemaError(f"column {name!r} has bounds too far apart to be scaled.")
                if self.missing == "error" and missing_mask(values).any():
                    raise SchemaError(
                        f"column {name!r} has missing or NaN values. Impute a public constant, "
                        "or pass missing='middle' to map them to the middle of the public range."
                    )

    def encode(
        self, table: Table, columns: list[str], dtype: np.dtype[Any]
    ) -> NDArray[np.floating[Any]]:
        """Return the encoded table, shape (n_rows, sum of widths)."""
        self.check(table, columns)
        widths = self.widths()
        out = np.zeros((table.n_rows, sum(widths)), dtype=dtype)
        rows = np.arange(table.n_rows)
        at = 0
        for source, (name, column), width in zip(
            columns, self.schema.items(), widths, strict=True
        ):
            values = table.column(source)
            if isinstance(column, Categorical):
                out[rows, at + column_codes(name, values, column)] = 1
            else:
                out[:, at] = self._scaled(values, column)
                if width > 1:
                    present = ~missing_mask(values)
                    where = at + 1 + column_codes(name, values, column)
                    out[rows[present], where[present]] = 1
            at += width
        return out

    def _scaled(self, values: NDArray[Any], column: Numeric) -> NDArray[np.float64]:
        number = values.astype(np.float64)
        absent = np.isnan(number)
        number = np.clip(number, column.low, column.high)
        if column.log:
            share = np.log1p(number - column.low) / math.log1p(column.high - column.low)
        else:
            share = (number - column.low) / (column.high - column.low)
        share = np.clip(share, 0.0, 1.0)  # a rounding must not leave the public range
        if absent.any():
            share[absent] = 0.5
        return share if self.unit else 2.0 * share - 1.0


def columns_of(table: Table, schema: Schema) -> list[str]:
    """Return the table's column for each of the schema's; names must match where there are any."""
    if not table.has_names:
        if len(table.columns) != len(schema):
            raise SchemaError(
                f"the schema has {len(schema)} columns and X has {len(table.columns)} unnamed "
                "ones, which are matched by position. Pass a data frame, or drop columns."
            )
        return list(table.columns)
    absent = [name for name in schema if name not in table.columns]
    extra = [name for name in table.columns if name not in schema]
    if absent or extra:
        raise SchemaError(
            f"X and the schema have different columns: {absent or 'none'} only in the schema, "
            f"{extra or 'none'} only in X. Pass X[list(schema)], or declare them."
        )
    return schema.names
