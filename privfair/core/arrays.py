"""Arrays from whatever the caller hands in, with error messages that quote no value.

scikit-learn and numpy print the offending value, or the whole array, in some messages. Such a
message ends in logs that more people read than may read the data.
"""

from __future__ import annotations

from numbers import Complex, Number, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import InvalidTypeError, SchemaError
from privfair.core.frames import as_table, is_dataframe, missing_mask

__all__ = ["number_matrix", "quiet_array"]

_SILENT = ("Input X contains", "Found array with", "Sparse data was passed", "A sparse matrix was")
"""How messages of ``check_array`` begin that hold shapes and names only."""

_NOT_2D = ("Expected 2D array, got scalar array", "Expected 2D array, got 1D array")


def quiet_array(X: Any, **kwargs: Any) -> NDArray[Any]:
    """Return ``check_array(X, **kwargs)``, or raise without quoting what was in X.

    Raises
    ------
    SchemaError, InvalidTypeError
        What scikit-learn or numpy had to say, less the values; the original is not chained,
        since a traceback would print it.
    """
    from sklearn.utils.validation import check_array

    try:
        return np.asarray(check_array(X, **{"input_name": "X", **kwargs}))
    except (TypeError, ValueError, OverflowError) as error:
        kind, message = _without_values(error)
    raise kind(message) from None


def _without_values(error: Exception) -> tuple[type[Exception], str]:
    text = str(error)
    if text.startswith(_SILENT):
        return (InvalidTypeError if isinstance(error, TypeError) else SchemaError), text
    for start in _NOT_2D:
        if text.startswith(start):
            return SchemaError, (
                f"{start} instead. Reshape your data: X needs one row per record and one column "
                "per feature, e.g. array.reshape(-1, 1) for a single column."
            )
    if text.startswith("Complex data not supported"):
        return SchemaError, "Complex data not supported in X. Pass real and imaginary parts."
    if isinstance(error, TypeError):
        return InvalidTypeError, (
            "X: argument must be a string or a number in every cell. Convert the columns before "
            "fitting."
        )
    if isinstance(error, OverflowError):
        return SchemaError, "Input X contains infinity or a value too large for a float."
    return SchemaError, (
        "X cannot be read as a table: rows of different lengths, or cells that are neither "
        "numbers nor text. Pass a data frame or a two-dimensional array."
    )


def number_matrix(X: Any, dtype: str) -> NDArray[np.floating[Any]]:
    """Return a table of numbers as a fresh array, refusing columns by their kind first.

    Raises
    ------
    SchemaError
        A column holds text, dates or the like; the message names the column only.
    """
    data = X if is_dataframe(X) else quiet_array(X, dtype=None, ensure_all_finite=False)
    table = as_table(data)
    for name in table.columns:
        _refuse_non_numbers(name, table.column(name))
    return quiet_array(data, dtype=dtype, copy=True)


def _refuse_non_numbers(name: str, values: NDArray[Any]) -> None:
    if values.dtype.kind in "fiub":
        return
    if values.dtype.kind == "O":
        present = values[~missing_mask(values)]
        if all(_is_number(value) for value in present):
            return
        if not all(isinstance(value, str | bytes | Number | np.generic) for value in present):
            raise InvalidTypeError(
                f"argument must be a string or a number: column {name!r} has entries that are "
                "neither. Convert the column."
            )
    raise SchemaError(
        f"column {name!r} is not numeric, and schema='as_is' takes numeric columns only. Convert "
        "it to numbers, drop it, or declare it in a privfair.Schema as Categorical."
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, Complex) and not isinstance(value, Real):
        return False
    return isinstance(value, Number | np.bool_)
