"""From a table under a public schema to integer codes, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SchemaError
from privfair.core.schema import Categorical, Numeric, Schema

if TYPE_CHECKING:
    from privfair.core.frames import Table

__all__ = ["bin_ranges", "decode", "domain_sizes", "encode"]

Codes = dict[str, NDArray[np.int64]]


def domain_sizes(schema: Schema) -> dict[str, int]:
    """Return the number of codes of each column: bins of a number, values of a category.

    Examples
    --------
    >>> domain_sizes(Schema({"age": Numeric(17, 90, bins=[25, 45])}))
    {'age': 3}
    """
    sizes = {}
    for name, column in schema.items():
        if isinstance(column, Categorical):
            sizes[name] = len(column.values)
        elif column.bins is None:
            raise SchemaError(
                f"column {name!r} needs public cut points: Numeric(..., bins=[...]). They may "
                "not be read from the data."
            )
        else:
            sizes[name] = len(column.bins) + 1
    return sizes


def encode(table: Table, schema: Schema) -> Codes:
    """Return integer codes; numbers are clipped to their public bounds.

    Raises
    ------
    SchemaError
        A column is absent, has missing numbers or an undeclared category. No value is named.
    """
    from privfair.mechanisms import column_codes

    schema.validate(table)
    domain_sizes(schema)
    return {
        name: column_codes(name, table.column(name), column) for name, column in schema.items()
    }


def bin_ranges(column: Numeric) -> list[tuple[int, int]]:
    """Return the first and last whole number of each bin.

    Examples
    --------
    >>> bin_ranges(Numeric(0, 99, bins=[1, 50]))
    [(0, 0), (1, 49), (50, 99)]
    """
    cuts = [column.low, *(column.bins or ()), column.high + 1]
    ranges = [(math.ceil(a), math.ceil(b) - 1) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    if any(low > high for low, high in ranges):
        raise SchemaError("a bin holds no whole number; choose other cut points.")
    return ranges


def decode(
    codes: Mapping[str, NDArray[np.int64]], schema: Schema, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Return labels, and whole numbers drawn uniformly inside their bin."""
    out: dict[str, NDArray[Any]] = {}
    for name, column in schema.items():
        if isinstance(column, Categorical):
            labels = np.empty(len(column.values), dtype=object)
            labels[:] = column.values
            out[name] = labels[codes[name]]
        else:
            ranges = np.array(bin_ranges(column), dtype=np.int64)[codes[name]]
            out[name] = rng.integers(ranges[:, 0], ranges[:, 1], endpoint=True)
    return out
