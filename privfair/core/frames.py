"""The one place that reads pandas, polars and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    ColumnNotFoundError,
    DataError,
    InvalidTypeError,
    LengthMismatchError,
)

__all__ = [
    "Table",
    "as_table",
    "as_vector",
    "check_aligned",
    "is_dataframe",
    "missing_mask",
    "row_count",
]


def _narwhals(value: Any, *, series: bool) -> Any | None:
    """Return a narwhals view of a pandas or polars object, or None for anything else."""
    if isinstance(value, np.ndarray | list | tuple | Mapping) or value is None:
        return None
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        native = nw.from_native(value, eager_only=True, allow_series=True, pass_through=True)
    except DuplicateError as error:
        raise DataError("the table has two columns of the same name; rename one.") from error
    wanted = nw.Series if series else nw.DataFrame
    return native if isinstance(native, wanted) else None


def is_dataframe(value: Any) -> bool:
    """Whether the value is a data frame of a supported library.

    Examples
    --------
    >>> import pandas as pd
    >>> is_dataframe(pd.DataFrame({"a": [1]})), is_dataframe([[1]])
    (True, False)
    """
    return _narwhals(value, series=False) is not None


def missing_mask(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which entries are missing: NaN, NaT or None."""
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values), dtype=bool)
    if values.dtype.kind in "mM":
        return np.asarray(np.isnat(values), dtype=bool)
    if values.dtype.kind == "O":
        import pandas as pd

        return np.asarray(pd.isna(values), dtype=bool)
    return np.zeros(values.shape, dtype=bool)


def _clean(values: NDArray[Any]) -> NDArray[Any]:
    """Return extension-typed text as object, and leave numbers and booleans as they are."""
    if values.dtype.kind in "USTV":
        return values.astype(object)
    return values


def _series_values(series: Any) -> NDArray[Any]:
    native = series.to_native()
    if hasattr(native, "array") and hasattr(native, "to_numpy"):  # pandas
        import pandas as pd

        if isinstance(native.dtype, pd.CategoricalDtype):
            kind = native.cat.categories.dtype.kind
            if kind in "iub" and native.isna().any():
                native = native.astype(object if kind == "b" else float)
            else:
                native = native.astype(native.cat.categories.dtype)
        if not isinstance(native.dtype, np.dtype):
            return _clean(_extension_values(native))
        return _clean(native.to_numpy())
    import narwhals as nw

    if series.dtype == nw.Decimal:
        series = series.cast(nw.Float64)
    if series.dtype in (nw.Categorical, nw.Enum, nw.String):
        return np.array(series.cast(nw.String).to_list(), dtype=object)
    return _clean(np.asarray(series.to_numpy()))


def _series_kind(series: Any) -> str:
    """Return what a column was declared to be, from its dtype alone; see :meth:`Table.kind`."""
    native = series.to_native()
    if hasattr(native, "array") and hasattr(native, "to_numpy"):  # pandas
        import pandas as pd

        if isinstance(native.dtype, np.dtype):
            return _array_kind(native.dtype)
        if isinstance(native.dtype, pd.CategoricalDtype):
            return "categorical"
        if pd.api.types.is_bool_dtype(native.dtype):
            return "nullable_boolean"
        if pd.api.types.is_numeric_dtype(native.dtype):
            return "numeric"
        return "categorical" if pd.api.types.is_string_dtype(native.dtype) else "unknown"
    import narwhals as nw

    if series.dtype in (nw.Categorical, nw.Enum, nw.String, nw.Object):
        return "categorical"
    if series.dtype == nw.Boolean:
        return "nullable_boolean"
    return "numeric" if series.dtype.is_numeric() else "unknown"


def _array_kind(dtype: np.dtype[Any]) -> str:
    kinds = {"b": "boolean", **dict.fromkeys("iuf", "numeric")}
    return kinds.get(dtype.kind, "categorical" if dtype.kind in "OUST" else "unknown")


def _extension_values(native: Any) -> NDArray[Any]:
    import pandas as pd

    if pd.api.types.is_bool_dtype(native.dtype) and not native.isna().any():
        return np.asarray(native.to_numpy(dtype=bool))
    if pd.api.types.is_integer_dtype(native.dtype) and not native.isna().any():
        return np.asarray(native.to_numpy(dtype=np.int64))
    if pd.api.types.is_numeric_dtype(native.dtype):
        return np.asarray(native.to_numpy(dtype=float, na_value=np.nan))
    return np.asarray(native.to_numpy(dtype=object, na_value=None))


@dataclass(frozen=True, eq=False)
class Table:
    """A read-only view of a table: named columns as numpy arrays.

    Attributes
    ----------
    columns : tuple of str
        Column names; ``x0``, ``x1``, ... where the input had none.
    n_rows : int
    has_names : bool
        Whether the input named its columns.
    index : object or None
        The pandas index, where there is one.
    """

    columns: tuple[str, ...]
    n_rows: int
    has_names: bool
    index: Any
    _data: dict[str, NDArray[Any]]
    _kinds: dict[str, str] = field(default_factory=dict)

    def kind(self, name: str) -> str:
        """Return what a column was declared to be.

        One of "numeric", "boolean", "nullable_boolean", "categorical" and "unknown". Only the
        dtype decides: the numpy type of :meth:`column` can depend on whether one value of a
        nullable column is missing, and nothing private may.
        """
        values = self.column(name)
        return self._kinds.get(name) or _array_kind(values.dtype)

    def column(self, name: str) -> NDArray[Any]:
        """Return one column, shape (n_rows,)."""
        if name not in self._data:
            import difflib

            near = difflib.get_close_matches(str(name), self.columns, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ColumnNotFoundError(
                f"column {name!r} is not in the table; it has {list(self.columns)}.{hint}"
            )
        return self._data[name]

    def to_pandas(self) -> Any:
        """Return a pandas data frame with these columns."""
        import pandas as pd

        return pd.DataFrame(self._data, index=self.index)


def as_table(
    data: Any, *, name: str = "X", prefix: str = "x", columns: Sequence[str] | None = None
) -> Table:
    """Read a data frame, series, array, mapping or list of rows as a :class:`Table`.

    Parameters
    ----------
    data : array-like, shape (n_rows,) or (n_rows, n_columns), data frame or mapping
    name : str
        The parameter's name in error messages.
    prefix : str, default="x"
        Names of unnamed columns are ``prefix0``, ``prefix1``, ...
    columns : sequence of str or None
        Names for unnamed columns.

    Returns
    -------
    Table

    Raises
    ------
    InvalidTypeError, DataError
        The data are not a table.

    Examples
    --------
    >>> as_table([[1, 2], [3, 4]]).columns
    ('x0', 'x1')
    """
    if data is None:
        raise InvalidTypeError(f"{name} must be a table or an array, got None.")
    if isinstance(data, Table):
        return data
    frame = _narwhals(data, series=False)
    if frame is not None:
        names = [str(c) for c in frame.columns]
        pairs = list(zip(names, frame.columns, strict=True))
        # get_column, for frame[0] would be a row where columns are named by numbers.
        values = {n: _series_values(frame.get_column(c)) for n, c in pairs}
        kinds = {n: _series_kind(frame.get_column(c)) for n, c in pairs}
        index = getattr(data, "index", None)
        return Table(tuple(names), len(frame), True, index, values, kinds)
    series = _narwhals(data, series=True)
    if series is not None:
        label = str(series.name) if series.name not in (None, "") else f"{prefix}0"
        column = _series_values(series)
        named = series.name not in (None, "")
        index = getattr(data, "index", None)
        kinds = {label: _series_kind(series)}
        return Table((label,), len(column), named, index, {label: column}, kinds)
    if isinstance(data, Mapping):
        values = {str(k): as_vector(v, name=f"{name}[{k!r}]") for k, v in data.items()}
        lengths = {len(v) for v in values.values()}
        if len(lengths) != 1:
            raise LengthMismatchError(f"the columns of {name} have different lengths {lengths}.")
        return Table(tuple(values), lengths.pop(), True, None, values)
    return _array_table(data, name, prefix, columns)


def _array_table(data: Any, name: str, prefix: str, columns: Sequence[str] | None) -> Table:
    if hasattr(data, "toarray"):
        raise InvalidTypeError(f"{name} is sparse, which is not supported; pass X.toarray().")
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    array = np.asarray(data)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2:
        raise DataError(
            f"{name} must have one or two dimensions, got {array.ndim}. Reshape your data."
        )
    names = [f"{prefix}{i}" for i in range(array.shape[1])] if columns is None else list(columns)
    if len(names) != array.shape[1]:
        raise LengthMismatchError(
            f"{len(names)} column names were given for {array.shape[1]} columns of {name}."
        )
    values = {n: _clean(array[:, i]) for i, n in enumerate(names)}
    return Table(tuple(names), len(array), columns is not None, None, values)


def as_vector(data: Any, *, name: str = "y") -> NDArray[Any]:
    """Read a list, array, series or one-column frame as an array, shape (n_rows,).

    Parameters
    ----------
    data : array-like, series or one-column frame
    name : str, default="y"
        The parameter's name in error messages.

    Returns
    -------
    ndarray of shape (n_rows,)

    Raises
    ------
    InvalidTypeError, DataError
        Nothing was given, or something of more than one column.

    Examples
    --------
    >>> as_vector([[1], [2]])
    array([1, 2])
    """
    if data is None:
        raise InvalidTypeError(f"{name} must be an array, got None.")
    series = _narwhals(data, series=True)
    if series is not None:
        return _series_values(series)
    frame = _narwhals(data, series=False)
    if frame is not None:
        if len(frame.columns) != 1:
            raise DataError(f"{name} must have one column, got {len(frame.columns)}.")
        return _series_values(frame.get_column(frame.columns[0]))
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    array = np.asarray(data)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{name} must be one-dimensional, got shape {array.shape}.")
    return _clean(array)


def row_count(data: Any) -> int:
    """Return the number of rows of anything that this module reads.

    Examples
    --------
    >>> row_count({"a": [1, 2, 3]}), row_count([[1, 2]])
    (3, 1)
    """
    if hasattr(data, "shape") and len(data.shape) > 0:
        return int(data.shape[0])
    if isinstance(data, Mapping):
        return len(next(iter(data.values()))) if data else 0
    return len(data)


def check_aligned(**arrays: Any) -> int:
    """Check that arrays have one length and, where they carry one, one row index.

    Rows are matched by position. A pandas index that differs between two arguments almost
    always means that one was filtered or sorted and the other was not: that is an error.

    Returns
    -------
    n_rows : int
    """
    given = {name: value for name, value in arrays.items() if value is not None}
    lengths = {name: row_count(value) for name, value in given.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in lengths.items())
        raise LengthMismatchError(
            f"arrays that belong together must have the same number of rows, got {listed}."
        )
    indexed = {n: v.index for n, v in given.items() if _has_pandas_index(v)}
    names = list(indexed)
    for other in names[1:]:
        if not indexed[names[0]].equals(indexed[other]):
            raise LengthMismatchError(
                f"{names[0]} and {other} have different row indices. Rows are matched by "
                "position, so one of them was probably filtered or sorted alone. Align them, or "
                "call reset_index(drop=True) on both."
            )
    return next(iter(lengths.values())) if lengths else 0


def _has_pandas_index(value: Any) -> bool:
    return hasattr(value, "index") and hasattr(value.index, "equals")
