"""Checks of what a rule is computed from: a table, costs, weights of clients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core.exceptions import DataError, InvalidParameterError, LengthMismatchError

__all__ = ["checked_cost", "checked_table", "checked_weight"]

Array = NDArray[np.float64]


def checked_table(p: ArrayLike) -> Array:
    """Return a distribution over (z, s, y, r), or say what is wrong with it."""
    table = np.asarray(p)
    if table.dtype.kind not in "fiu" or table.ndim != 4 or table.size == 0:
        raise DataError(
            f"p must be numbers of shape (n_z, n_s, n_y, n_r), got shape {table.shape} and dtype "
            f"{table.dtype}."
        )
    table = table.astype(float)
    if not np.isfinite(table).all() or (table < 0).any():
        raise DataError("p must be finite and non-negative in every cell.")
    total = float(table.sum())
    if not abs(total - 1.0) <= 1e-8:
        raise DataError(f"p must sum to 1 within 1e-8, got {total:.10g}. Divide it by its sum.")
    return table / total


def checked_cost(cost: ArrayLike | None, n_y: int) -> Array:
    """Return the costs of decisions at labels, or say what is wrong with them."""
    if cost is None:
        return 1.0 - np.eye(n_y)
    charges = np.asarray(cost)
    if charges.dtype.kind not in "fiu" or charges.ndim != 2 or charges.shape[0] != n_y:
        raise LengthMismatchError(
            f"cost must be numbers of shape ({n_y}, n_k), one row per label; got shape "
            f"{charges.shape}."
        )
    if charges.shape[1] < 1 or not np.isfinite(charges).all():
        raise InvalidParameterError("cost must be finite, with at least one decision.")
    return np.asarray(charges, dtype=float)


def checked_weight(client_weight: ArrayLike | None, table: Array) -> Array:
    """Return factors of clients' costs, of mean 1 over people, or say what is wrong with them."""
    n_s = table.shape[1]
    if client_weight is None:
        return np.ones(n_s)
    weight = np.asarray(client_weight)
    if weight.dtype.kind not in "fiu" or weight.shape != (n_s,):
        raise LengthMismatchError(
            f"client_weight must hold {n_s} numbers, one per client; got shape {weight.shape}."
        )
    mean = float(table.sum(axis=(0, 2, 3)) @ weight) if np.isfinite(weight).all() else 0.0
    if (weight < 0).any() or not mean > 0:
        raise InvalidParameterError(
            "client_weight must be finite and non-negative, and positive for some client."
        )
    return np.asarray(weight / mean, dtype=float)
