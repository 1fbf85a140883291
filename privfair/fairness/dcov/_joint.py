"""Joint distance covariance of two or more vectors, tile by tile: O(d n^2) time, O(n) memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from privfair.fairness.dcov._tiled import centre, default_tile, distances, push, tiles

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["tiled_joint_sq"]


def tiled_joint_sq(
    variables: Sequence[Tensor],
    offsets: Sequence[float],
    estimator: str,
    *,
    tile: int | None = None,
) -> Tensor:
    r"""Return the mean of :math:`\prod_m (U^m_{ij} + o_m) - \prod_m o_m` over pairs.

    Parameters
    ----------
    variables : sequence of tensors, shape (n, p_m)
    offsets : sequence of float
        c for every variable: JdCov. 0 for the first one: the part that contains it.
    estimator : {"u", "v"}
    tile : int or None

    Returns
    -------
    tensor, 0-d, float64, with gradients with respect to every variable
    """
    size = tile or default_tile(variables[0].device)
    out: Tensor = _JointForm.apply(tuple(map(float, offsets)), estimator, size, *variables)
    return out


class _Centred:
    """The centred distances of one variable, made for a tile at a time."""

    def __init__(self, rows: Tensor, estimator: str, tile: int) -> None:
        self.points = centre(rows, torch.float64)
        self.n = n = len(rows)
        self.unbiased = estimator == "u"
        total = torch.zeros(n, dtype=torch.float64, device=rows.device)
        for block, others in tiles(n, tile):
            gap = distances(self.points[block], self.points[others], 1.0)
            total[block] += gap.sum(1)
            if block != others:
                total[others] += gap.sum(0)
        self.shift, self.middle = centring(total, n, self.unbiased)

    def tile(self, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """Return distances and centred distances; the diagonal of U is made 0 by the caller."""
        gap = distances(self.points[rows], self.points[cols], 1.0)
        return gap, self.shift[rows, None] + self.shift[cols] - gap - self.middle


def centring(total: Tensor, n: int, unbiased: bool) -> tuple[Tensor, Tensor]:
    """Return what a row gives and what is taken off, from row sums."""
    if unbiased:
        return total / (n - 2), total.sum() / ((n - 1) * (n - 2))
    return total / n, total.sum() / n**2


def _off_diagonal(values: Tensor, rows: slice, cols: slice) -> Tensor:
    return values.fill_diagonal_(0.0) if rows == cols else values


class _JointForm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, offsets: tuple[float, ...], estimator: str, tile: int, *variables: Tensor
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        n = len(variables[0])
        parts = [_Centred(v, estimator, tile) for v in variables]
        wanted = [m for m in range(len(parts)) if ctx.needs_input_grad[3 + m]]
        base = 1.0
        for offset in offsets:
            base *= offset
        value = torch.zeros((), dtype=torch.float64, device=variables[0].device)
        sums = [torch.zeros_like(parts[0].shift) for _ in wanted]
        for rows, cols in tiles(n, tile):
            factors = [p.tile(rows, cols)[1].add_(o) for p, o in zip(parts, offsets, strict=True)]
            product = factors[0].clone()
            for factor in factors[1:]:
                product *= factor
            product -= base
            if estimator == "u":
                product = _off_diagonal(product, rows, cols)
            value += product.sum() * (1 if rows == cols else 2)
            for total, m in zip(sums, wanted, strict=True):
                others = _others(factors, m)
                if estimator == "u":
                    others = _off_diagonal(others, rows, cols)
                total[rows] += others.sum(1)
                if rows != cols:
                    total[cols] += others.sum(0)
        ctx.save_for_backward(*variables)
        ctx.parts, ctx.sums = parts, dict(zip(wanted, sums, strict=True))
        ctx.settings = (offsets, estimator, tile)
        return value / scale(n, estimator)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor | None) -> Any:
        variables = ctx.saved_tensors
        offsets, estimator, tile = ctx.settings
        if above is None:
            return (None,) * (3 + len(variables))
        n = len(variables[0])
        grads: dict[int, Tensor] = {m: torch.zeros_like(ctx.parts[m].points) for m in ctx.sums}
        back = {m: centring(total, n, estimator == "u") for m, total in ctx.sums.items()}
        for rows, cols in tiles(n, tile):
            made = [p.tile(rows, cols) for p in ctx.parts]
            factors = [u.add_(o) for (_, u), o in zip(made, offsets, strict=True)]
            for m, grad in grads.items():
                # centring is its own adjoint; U is centred minus the distances
                shift, middle = back[m]
                pull = shift[rows, None] + shift[cols] - _others(factors, m) - middle
                pull = _off_diagonal(pull, rows, cols)
                push(grad, ctx.parts[m].points, rows, cols, pull, made[m][0], 1.0)
        factor = 2 * above / scale(n, estimator)
        out = [
            (grads[m] * factor).to(v.dtype) if m in grads else None
            for m, v in enumerate(variables)
        ]
        return (None, None, None, *out)


def scale(n: int, estimator: str) -> int:
    """Return what a sum over pairs is divided by."""
    return n * (n - 3) if estimator == "u" else n**2


def _others(factors: list[Tensor], m: int) -> Tensor:
    out = None
    for index, factor in enumerate(factors):
        if index != m:
            out = factor.clone() if out is None else out.mul_(factor)
    return torch.ones_like(factors[0]) if out is None else out
