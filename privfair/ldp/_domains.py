"""From a public schema to finite domains: what a device may report about each column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.arrays import quiet_array
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, SchemaError
from privfair.core.frames import Table, as_table, is_dataframe, missing_mask
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.mechanisms import column_codes

__all__ = ["Domain", "domains_of", "read_table"]

MISSING = "missing"


@dataclass(frozen=True)
class Domain:
    """The values that one column can be reported as.

    Parameters
    ----------
    name : str
    column : Categorical or Numeric
        Public.
    missing : bool
        Whether missing values are a value of their own.
    """

    name: str
    column: Categorical | Numeric
    missing: bool

    @cached_property
    def edges(self) -> NDArray[np.float64] | None:
        """Public edges of the bins, shape (n_bins + 1,), of a numeric column."""
        if isinstance(self.column, Categorical):
            return None
        return np.array([self.column.low, *(self.column.bins or ()), self.column.high])

    @cached_property
    def values(self) -> tuple[Any, ...]:
        """The values, in the order of their codes."""
        if isinstance(self.column, Categorical):
            known = self.column.values
        else:
            cuts = [f"{x:g}" for x in self.edges]  # type: ignore[union-attr]
            last = len(cuts) - 2
            known = tuple(
                f"[{cuts[i]}, {cuts[i + 1]}{']' if i == last else ')'}" for i in range(last + 1)
            )
        return (*known, MISSING) if self.missing and MISSING not in known else known

    def codes(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return each entry's position in the domain; an error names the column and no value."""
        absent = missing_mask(values)
        if isinstance(self.column, Numeric):
            if values.dtype.kind not in "biuf":
                raise SchemaError(f"column {self.name!r} is declared Numeric and is not numeric.")
            if not self.missing and absent.any():
                raise SchemaError(
                    f"column {self.name!r} contains NaN. Pass missing='category' to report "
                    "missing values as a value of their own."
                )
            if np.isinf(values.astype(np.float64)).any():
                raise SchemaError(f"column {self.name!r} contains infinity (inf).")
        if not (self.missing and absent.any()):
            return column_codes(self.name, values, self.column)
        out = np.full(len(values), self.values.index(MISSING), dtype=np.int64)
        out[~absent] = column_codes(self.name, values[~absent], self.column)
        return out


def domains_of(
    schema: Any, names: tuple[str, ...], *, named: bool, missing: bool
) -> tuple[Domain, ...]:
    """Return the domains of a table's columns, from a schema alone.

    Raises
    ------
    InvalidTypeError, InvalidParameterError, SchemaError
        No schema, a numeric column without public bins, one value only, absent columns.
    """
    if isinstance(schema, Categorical | Numeric):
        columns: Mapping[str, Any] = dict.fromkeys(names, schema)
    elif isinstance(schema, Mapping):
        columns = schema if isinstance(schema, Schema) else Schema(schema)
        absent = [name for name in columns if named and name not in names]
        if absent:
            raise SchemaError(
                f"columns {absent} are in the schema and not in X (it has {list(names)})."
            )
        if not named and len(columns) != len(names):
            raise SchemaError(
                f"the schema has {len(columns)} columns and X has {len(names)} features without "
                "names, which are matched by position."
            )
    else:
        raise InvalidTypeError(
            "schema must be a Schema, a mapping of column names to Categorical or Numeric, or one "
            f"of these for all columns, got {type(schema).__name__}. The values that can be "
            "reported must be public: they are never read off the data."
        )
    out = tuple(Domain(name, column, missing) for name, column in columns.items())
    for domain in out:
        if isinstance(domain.column, Numeric) and domain.column.bins is None:
            raise InvalidParameterError(
                f"column {domain.name!r} is Numeric without bins. Only frequencies are "
                "collected: declare public cut points, Numeric(low, high, bins=[...]); they are "
                "never taken from the data."
            )
        if len(domain.values) < 2:
            raise InvalidParameterError(
                f"column {domain.name!r} has one value: there is nothing to report about it."
            )
    return out


def read_table(X: Any, *, numeric: bool) -> tuple[Any, Table]:
    """Return X as scikit-learn can count and name it, and as a table; reads no value."""
    if isinstance(X, Mapping) and not hasattr(X, "toarray"):
        X = as_table(X).to_pandas()
    if not is_dataframe(X):
        # Shape, sparsity and kind only: entries are looked at when they are encoded.
        X = quiet_array(X, dtype="numeric" if numeric else None, ensure_all_finite=False)
    elif len(X) == 0:
        raise SchemaError("Found array with 0 sample(s) in X while a minimum of 1 is required.")
    return X, as_table(X)
