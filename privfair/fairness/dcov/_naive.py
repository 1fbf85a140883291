"""The n x n definitions, written as they are read: for tests and for very few rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from privfair.core.exceptions import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_ROWS", "naive_dcov_sq", "naive_joint_sq"]

MAX_ROWS = 5000
"""Above this the n x n arrays are refused."""


def naive_dcov_sq(
    x: Tensor, y: Tensor, estimator: str, *, exponent: float = 1.0, metric: str = "euclidean"
) -> Tensor:
    """Return dCov^2 from two centred n x n arrays; autograd gives the gradient."""
    a, b = distance_array(x, exponent), distance_array(y, exponent, metric)
    n = len(a)
    total = (centred(a, estimator) * centred(b, estimator)).sum()
    return total / (n * (n - 3) if estimator == "u" else n**2)


def naive_joint_sq(
    variables: Sequence[Tensor], offsets: Sequence[float], estimator: str
) -> Tensor:
    """Return the joint form of :func:`tiled_joint_sq` from n x n arrays.

    References
    ----------
    Chakraborty and Zhang 2019, JASA 114(528), equations of the V- and the U-statistic.
    """
    n = len(variables[0])
    product = torch.ones((), dtype=torch.float64)
    for rows, offset in zip(variables, offsets, strict=True):
        product = product * (centred(distance_array(rows, 1.0), estimator) + offset)
    base = math.prod(offsets)
    if estimator == "u":  # the diagonal of each centred array is 0
        return product.sum() / (n * (n - 3)) - n * base / (n - 3)
    return product.sum() / n**2 - base


def distance_array(rows: Tensor, exponent: float, metric: str = "euclidean") -> Tensor:
    """Return all distances to the power exponent, with derivative 0 where rows coincide."""
    if len(rows) > MAX_ROWS:
        raise DataError(
            f"method='naive' holds n x n arrays and takes at most {MAX_ROWS} rows, got "
            f"{len(rows)}. Use method='auto'."
        )
    gaps = rows[:, None, :] - rows[None, :, :]
    if metric == "discrete":
        return (gaps != 0).any(dim=2).double()
    square = (gaps.double() ** 2).sum(dim=2)
    same = square == 0
    return torch.where(same, 0.0, torch.where(same, 1.0, square) ** (exponent / 2))


def centred(a: Tensor, estimator: str) -> Tensor:
    """Return U = row mean + column mean - a - grand mean, in the V or the U form."""
    n = len(a)
    if estimator == "v":
        return a.mean(0)[None, :] + a.mean(1)[:, None] - a - a.mean()
    rows = a.sum(1) / (n - 2)
    out = rows[None, :] + rows[:, None] - a - a.sum() / ((n - 1) * (n - 2))
    return out * (1 - torch.eye(n, dtype=a.dtype, device=a.device))
