"""From the values of a column to the positions in its declared domain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SchemaError
from privfair.core.schema import Categorical, Numeric

__all__ = ["column_codes", "domain_size"]


def domain_size(column: Numeric | Categorical) -> int:
    """Return the number of cells of a column: its categories, or its bins.

    Examples
    --------
    >>> from privfair.core import Categorical, Numeric
    >>> domain_size(Categorical(("a", "b"))), domain_size(Numeric(0, 90, bins=(25, 45)))
    (2, 3)
    """
    if isinstance(column, Categorical):
        return len(column.values)
    return 1 if column.bins is None else len(column.bins) + 1


def column_codes(
    name: str, values: NDArray[Any], column: Numeric | Categorical
) -> NDArray[np.int64]:
    """Return each value's position in the column's domain.

    An undeclared category goes to ``other`` where the column has one and is an error elsewhere;
    the message names the column and no value. NaN counts as an undeclared category, and as the
    lowest bin of a numeric column.

    Parameters
    ----------
    name : str
        The column's name in error messages.
    values : ndarray of shape (n_rows,)
    column : Numeric or Categorical
        The public domain.

    Returns
    -------
    ndarray of int64, shape (n_rows,)

    Raises
    ------
    SchemaError
        An undeclared category, or text in a numeric column.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.core import Numeric
    >>> column_codes("age", np.array([20.0, 30.0, 99.0]), Numeric(0, 90, bins=(25, 45)))
    array([0, 1, 2])
    """
    if isinstance(column, Categorical):
        return _category_codes(name, values, column)
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise SchemaError(f"column {name!r} is declared Numeric and is not numeric.")
    clean = np.fmin(np.fmax(values.astype(np.float64), column.low), column.high)
    return np.searchsorted(np.array(column.bins or ()), clean, side="right").astype(np.int64)


def _place(places: dict[Any, int], value: Any) -> int:
    try:
        return places.get(value, -1)
    except TypeError:  # not hashable, and so not declared
        return -1


def _category_codes(name: str, values: NDArray[Any], column: Categorical) -> NDArray[np.int64]:
    # One record at a time: an index of pandas has a common type of all, so that one record would
    # decide whether the others match.
    places = {value: place for place, value in enumerate(column.values)}
    found = np.array([_place(places, value) for value in values.tolist()], dtype=np.int64)
    unknown = found < 0
    if unknown.any():
        if column.other is None:
            raise SchemaError(
                f"column {name!r} has a missing value or one outside its declared list. Add it to "
                "the schema, or declare Categorical(values, other=...) to pool unknown values."
            )
        found = np.where(unknown, column.values.index(column.other), found)
    return np.asarray(found, dtype=np.int64)
