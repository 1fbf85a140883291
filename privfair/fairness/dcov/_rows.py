"""What the public functions take in: numpy or torch, scalars or vectors, raw or encoded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import clone

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    UtilityWarning,
)
from privfair.core.frames import as_table, is_dataframe

if TYPE_CHECKING:
    from torch import Tensor

    from privfair.fairness.dcov._encoder import AttributeEncoder

__all__ = [
    "Inputs",
    "attribute_rows",
    "check_exponent",
    "distinct_rows",
    "ecdf",
    "read_inputs",
    "writable",
]

MAX_CELLS = 1024


class Inputs:
    """Variables as tensors of shape (n, p) on one device, and how the answer is given back.

    Parameters
    ----------
    rows : list of tensors
    as_tensor : bool
        Whether any variable was a tensor.
    """

    def __init__(self, rows: list[Tensor], as_tensor: bool) -> None:
        self.rows = rows
        self.as_tensor = as_tensor
        self.dtype = rows[0].dtype

    def answer(self, value: Tensor) -> Any:
        """Return a tensor for tensors, a float for everything else."""
        return value.to(self.dtype) if self.as_tensor else float(value)

    def zero(self) -> Tensor:
        """Return 0 with a gradient of 0."""
        out = torch.zeros((), dtype=torch.float64, device=self.rows[0].device)
        for rows in self.rows:
            if rows.requires_grad:
                out = out + (rows * 0).sum().double()
        return out


def read_inputs(named: dict[str, Any], *, least: int) -> Inputs:
    """Check variables and return them as tensors.

    Parameters
    ----------
    named : dict of str to array-like or tensor, shape (n,) or (n, p)
    least : int
        Smallest number of rows.
    """
    device = next((v.device for v in named.values() if isinstance(v, torch.Tensor)), None)
    rows = [_tensor(value, name, device) for name, value in named.items()]
    lengths = {name: len(r) for name, r in zip(named, rows, strict=True)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {n}" for name, n in lengths.items())
        raise LengthMismatchError(f"variables must have the same number of rows, got {listed}.")
    n = len(rows[0])
    if n < least:
        raise DataError(
            f"this estimator needs at least {least} rows, got {n}. U-statistics divide by n - 3."
        )
    return Inputs(rows, device is not None)


def _tensor(value: Any, name: str, device: torch.device | None) -> Tensor:
    if isinstance(value, torch.Tensor):
        out = value if device is None else value.to(device)
        if out.is_complex():
            raise DataError(f"{name} must be real numbers.")
        if not out.is_floating_point():
            out = out.to(torch.float64)
    else:
        if is_dataframe(value):
            table = as_table(value, name=name)
            value = np.column_stack([table.column(c) for c in table.columns])
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise InvalidTypeError(
                f"{name} must be numbers. Text has no distance: encode it with "
                "AttributeEncoder().fit_transform(...), or pass encoder=AttributeEncoder() where "
                "the function takes one. Never replace categories by 0, 1, 2, ..."
            )
        if array.dtype.kind != "f" or array.dtype.itemsize < 4:
            array = array.astype(np.float64)
        out = torch.as_tensor(writable(array), device=device)
    if out.ndim == 1:
        out = out[:, None]
    if out.ndim != 2 or out.shape[1] == 0:
        raise DataError(f"{name} must have shape (n,) or (n, p), got {tuple(out.shape)}.")
    if not bool(torch.isfinite(out.detach()).all()):
        raise DataError(f"{name} must be finite in every row, got NaN or inf.")
    return out


def writable(array: np.ndarray) -> np.ndarray:
    """Return the array, or a copy where torch would warn: read-only memory of a data frame."""
    return np.require(array, requirements=["C", "W"])


def attribute_rows(attrs: Sequence[Any], encoder: AttributeEncoder | None) -> dict[str, Any]:
    """Return the variables of each attribute: as they are, or encoded.

    Parameters
    ----------
    attrs : sequence of array-like, or one data frame or mapping
    encoder : AttributeEncoder or None
        Used as it is if fitted, else a copy is fitted.
    """
    if not attrs:
        raise InvalidTypeError("at least one attribute is needed.")
    single = attrs[0]
    framed = len(attrs) == 1 and (is_dataframe(single) or isinstance(single, dict))
    if encoder is None:
        if not framed:
            return {f"attribute {i}": a for i, a in enumerate(attrs)}
        table = as_table(single, name="attributes")
        return {name: table.column(name) for name in table.columns}
    data = single if framed else {f"s{i}": _plain(a) for i, a in enumerate(attrs)}
    if not hasattr(encoder, "blocks_"):
        encoder = clone(encoder).fit(data)
    points = encoder.transform(data)
    return {name: points[:, block] for name, block in encoder.blocks_.items()}


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def check_exponent(exponent: float) -> float:
    """Return the exponent if it makes a distance covariance."""
    value = check.positive(exponent=exponent)
    if value > 2:
        raise InvalidParameterError(
            f"exponent must be in (0, 2), got {value}; beyond 2 it measures no dependence."
        )
    if value == 2:
        warnings.warn(
            "exponent=2 measures linear dependence only: dCov is 0 for uncorrelated variables "
            "that depend on each other.",
            UtilityWarning,
            stacklevel=3,
        )
    return value


def distinct_rows(rows: Tensor, limit: int = MAX_CELLS) -> tuple[Tensor, Tensor] | None:
    """Return (codes, cells) of the distinct rows, or None if there are more than the limit.

    O(p n log n).
    """
    codes = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    size = 1
    for j in range(rows.shape[1]):
        values, inverse = torch.unique(rows[:, j], return_inverse=True)
        if len(values) > limit:
            return None
        merged = codes * len(values) + inverse
        seen, codes = torch.unique(merged, return_inverse=True)
        size = len(seen)
        if size > limit:
            return None
    first = torch.full((size,), len(rows), dtype=torch.int64, device=rows.device)
    first.scatter_reduce_(0, codes, torch.arange(len(rows), device=rows.device), "amin")
    return codes, rows[first]


def ecdf(rows: Tensor) -> Tensor:
    """Return each column's empirical distribution function at its own values; no gradient."""
    columns = []
    for j in range(rows.shape[1]):
        column = rows[:, j].detach().double().contiguous()
        columns.append(torch.searchsorted(torch.sort(column)[0], column, right=True))
    return torch.stack(columns, dim=1).double() / len(rows)
