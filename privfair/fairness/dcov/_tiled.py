"""Distance covariance of vectors in O(n^2) time and O(n) memory, forward and backward.

Distances are made tile by tile over the upper triangle and thrown away; the backward pass makes
them again. Rows are centred first, and distances come from differences, not from inner products:
these lose half of all digits where rows coincide, as those of one-hot columns do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from privfair.fairness.dcov._sorted import coefficients, three_sums

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["default_tile", "distances", "tiled_dcov_sq"]


def default_tile(device: torch.device) -> int:
    """Return rows per tile: a few tiles in a processor's cache, or enough for an accelerator."""
    return 256 if device.type == "cpu" else 8192


def distances(rows: Tensor, others: Tensor, exponent: float, metric: str = "euclidean") -> Tensor:
    """Return distances to the power exponent; with "discrete" 1 where rows differ.

    Parameters
    ----------
    rows, others : tensors, shape (m, p) and (k, p)
    exponent : float
    metric : {"euclidean", "discrete"}
    """
    if metric == "discrete":
        out = torch.zeros(len(rows), len(others), dtype=torch.bool, device=rows.device)
        for j in range(rows.shape[1]):
            out |= rows[:, j, None] != others[None, :, j]
        return out.to(rows.dtype)
    if rows.shape[1] == 1:
        gap = (rows - others.T).abs_()
    else:
        # An inner product would give equal rows a distance of half of all digits, not 0.
        gap = torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
    return gap if exponent == 1 else gap.pow_(exponent)


def tiles(n: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Yield the blocks of the upper triangle, diagonal blocks whole."""
    for i in range(0, n, tile):
        for j in range(i, n, tile):
            yield slice(i, min(i + tile, n)), slice(j, min(j + tile, n))


def tiled_dcov_sq(
    x: Tensor,
    y: Tensor,
    estimator: str,
    *,
    exponent: float = 1.0,
    metric: str = "euclidean",
    tile: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return dCov^2 of rows with rows; gradients with respect to both.

    Parameters
    ----------
    x, y : tensors, shape (n, p) and (n, q)
    estimator : {"u", "v"}
    exponent : float
    metric : {"euclidean", "discrete"}
        Of ``y``, which then takes no gradient.
    tile : int or None
    dtype : torch.dtype or None
        Of the distances; the dtype of the data when None. Sums are in float64 always.

    Returns
    -------
    tensor, 0-d
    """
    size = tile or default_tile(x.device)
    work = dtype or torch.promote_types(x.dtype, y.dtype)
    out: Tensor = _TiledForm.apply(x, y, estimator, exponent, metric, size, work)
    return out


class _TiledForm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        estimator: str,
        exponent: float,
        metric: str,
        tile: int,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        p, q = centre(x, dtype), centre(y, dtype) if metric == "euclidean" else y.detach()
        n = len(p)
        a = torch.zeros(n, dtype=torch.float64, device=p.device)
        b = torch.zeros_like(a)
        s_ab = torch.zeros((), dtype=torch.float64, device=p.device)
        for rows, cols in tiles(n, tile):
            da = distances(p[rows], p[cols], exponent)
            db = distances(q[rows], q[cols], exponent, metric).to(da.dtype)
            a[rows] += da.sum(1, dtype=torch.float64)
            b[rows] += db.sum(1, dtype=torch.float64)
            part = _dot(da, db)
            if rows != cols:
                a[cols] += da.sum(0, dtype=torch.float64)
                b[cols] += db.sum(0, dtype=torch.float64)
                part = 2 * part
            s_ab += part
        ctx.save_for_backward(x, y, a, b)
        ctx.settings = (estimator, exponent, metric, tile, dtype)
        value: Tensor = three_sums(n, s_ab, a @ b, a.sum(), b.sum(), estimator)
        return value.to(torch.promote_types(x.dtype, y.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor | None) -> Any:
        if above is None:
            return (None,) * 7
        x, y, a, b = ctx.saved_tensors
        estimator, exponent, metric, tile, dtype = ctx.settings
        p, q = centre(x, dtype), centre(y, dtype) if metric == "euclidean" else y.detach()
        c0, c1, c2 = coefficients(len(p), estimator)
        by = [torch.zeros_like(t, dtype=torch.float64) if need else None
              for t, need in zip((p, q), ctx.needs_input_grad[:2], strict=True)]  # fmt: skip
        total = (a.sum(), b.sum())
        half = (c1 / 2 * a + c2 / 2 * total[0], c1 / 2 * b + c2 / 2 * total[1])
        for rows, cols in tiles(len(p), tile):
            da = distances(p[rows], p[cols], exponent)
            db = distances(q[rows], q[cols], exponent, metric).to(da.dtype)
            for mine, own, other, shift, points in (
                (by[0], da, db, half[1], p),
                (by[1], db, da, half[0], q),
            ):
                if mine is None:
                    continue
                # the derivative with respect to one distance, both orders of the pair
                pull = other * c0
                pull += shift[rows, None].to(pull.dtype)
                pull += shift[cols].to(pull.dtype)
                push(mine, points, rows, cols, pull, own, exponent)
        grads = [None if g is None else (g * (2 * above)).to(t.dtype)
                 for g, t in zip(by, (x, y), strict=True)]  # fmt: skip
        return (*grads, None, None, None, None, None)


def centre(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows less their mean, in the working type."""
    double = rows.detach().double()
    return (double - double.mean(0)).to(dtype)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of products, accumulated by rows in float64."""
    return torch.linalg.vecdot(a, b).sum(dtype=torch.float64)


def push(
    grad: Tensor,
    points: Tensor,
    rows: slice,
    cols: slice,
    pull: Tensor,
    distance: Tensor,
    exponent: float,
) -> None:
    """Add sum_j pull_ij d|x_i - x_j|^exponent / dx_i for one tile and its mirror image.

    The derivative at coincident points is 0. ``pull`` is used up.
    """
    if points.shape[1] == 1 and exponent == 1:
        flow = torch.sign(points[rows] - points[cols].T).mul_(pull)
        grad[rows, 0] += flow.sum(1, dtype=torch.float64)
        if rows != cols:
            grad[cols, 0] -= flow.sum(0, dtype=torch.float64)
        return
    # distance is |x_i - x_j|^exponent; the factor of (x_i - x_j) is its power (1 - 2 / exponent)
    slope = distance.pow(1 - 2 / exponent) if exponent != 1 else 1 / distance
    pull *= slope.masked_fill_(distance == 0, 0.0)
    grad[rows] += exponent * (
        pull.sum(1, dtype=torch.float64)[:, None] * points[rows] - pull @ points[cols]
    )
    if rows != cols:
        grad[cols] += exponent * (
            pull.sum(0, dtype=torch.float64)[:, None] * points[cols] - pull.T @ points[rows]
        )
