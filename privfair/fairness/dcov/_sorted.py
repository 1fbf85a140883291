"""Distance covariance of two scalars in O(n log n), with its gradient, on any device.

The sum of |x_i - x_j| |y_i - y_j| needs, for each i, four sums over the records that come before
i both in the order of x and in the order of y. They are collected by cutting the order of x into
halves again and again: a record of the right half takes up the sums of the left half's records
with a smaller y. Each level is one stable partition, made of cumulative sums, so that nothing is
sorted twice and nothing loops over records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["sorted_dcov_sq", "three_sums"]

_BLOCK = 32
"""Blocks of this many records are compared pair by pair."""


def sorted_dcov_sq(x: Tensor, y: Tensor, estimator: str) -> Tensor:
    """Return dCov^2 of two scalars, exponent 1; gradients with respect to both.

    Time O(n log n), memory O(n). Ties have derivative 0. First order only.

    References
    ----------
    Huo and Szekely 2016, Technometrics 58(4); Chaudhuri and Hu 2019, CSDA 135.
    """
    out: Tensor = _SortedForm.apply(x, y, estimator)
    return out


def three_sums(n: int, s_ab: Any, t: Any, a: Any, b: Any, estimator: str) -> Any:
    """Return dCov^2 from S_ab, T = sum of products of row sums, and the two totals."""
    return (
        coefficients(n, estimator)[0] * s_ab
        + coefficients(n, estimator)[1] * t
        + coefficients(n, estimator)[2] * a * b
    )


def coefficients(n: int, estimator: str) -> tuple[float, float, float]:
    """Return the factors of S_ab, T and the product of totals."""
    if estimator == "v":
        return 1 / n**2, -2 / n**3, 1 / n**4
    return (
        1 / (n * (n - 3)),
        -2 / (n * (n - 2) * (n - 3)),
        1 / (n * (n - 1) * (n - 2) * (n - 3)),
    )


class _SortedForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, estimator: str) -> Tensor:
        ctx.set_materialize_grads(False)
        wanted = ctx.needs_input_grad[:2]
        value, by_x, by_y = _evaluate(x.detach(), y.detach(), estimator, wanted)
        ctx.save_for_backward(by_x, by_y)
        return value.to(torch.promote_types(x.dtype, y.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor | None) -> Any:
        by_x, by_y = ctx.saved_tensors
        if above is None:
            return None, None, None
        return (
            None if by_x is None else (by_x * above).to(by_x.dtype),
            None if by_y is None else (by_y * above).to(by_y.dtype),
            None,
        )


def _evaluate(
    x: Tensor, y: Tensor, estimator: str, wanted: tuple[bool, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    n = len(x)
    u = x.double() - x.double().mean()  # centred: products of large offsets would cancel
    v = y.double() - y.double().mean()
    by_v = torch.argsort(v)
    order = by_v[torch.argsort(u[by_v], stable=True)]  # by x, ties by y
    u, v = u[order], v[order]
    again = torch.argsort(v, stable=True)  # by y, ties by x: positions in the order of x
    count, sum_u, sum_v, sum_uv = _dominated(u, v, again)
    first_u, first_v, first_uv = (torch.cumsum(w, 0) - w for w in (u, v, u * v))
    k = torch.arange(n, dtype=torch.float64, device=u.device)
    inside = u * v * count - u * sum_v - v * sum_u + sum_uv
    before = u * v * k - u * first_v - v * first_u + first_uv
    s_ab = 2 * (2 * inside - before).sum()

    a = (2 * k - n) * u + u.sum() - 2 * first_u
    v_up = v[again]
    first_up = torch.cumsum(v_up, 0) - v_up
    b = torch.empty_like(v)
    b[again] = (2 * k - n) * v_up + v_up.sum() - 2 * first_up
    value = three_sums(n, s_ab, a @ b, a.sum(), b.sum(), estimator)

    by_x = by_y = None
    if wanted[0]:
        left = 2 * (v * count - sum_v) + first_v - v * k
        grad = _gradient(u, v, a, b, left, first_v, n, estimator)
        by_x = torch.empty_like(x)
        by_x[order] = grad.to(x.dtype)
    if wanted[1]:
        place = torch.empty_like(again)
        place[again] = torch.arange(n, device=u.device)
        rank = place.double()
        u_up = u[again]
        below = (torch.cumsum(u_up, 0) - u_up)[place]
        left = 2 * (u * count - sum_u) + below - u * rank
        grad = _gradient(v_up, u_up, b[again], a[again], left[again], below[again], n, estimator)
        by_y = torch.empty_like(y)
        by_y[order[again]] = grad.to(y.dtype)
    return value, by_x, by_y


def _gradient(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    left: Tensor,
    first_y: Tensor,
    n: int,
    estimator: str,
) -> Tensor:
    """Return the gradient in x, all in the order of x (ties by y).

    ``left`` is the sum of |y_i - y_j| over the records before i; those with an equal x count for
    neither side.
    """
    k = torch.arange(n, dtype=torch.float64, device=x.device)
    _, group, size = torch.unique_consecutive(x, return_inverse=True, return_counts=True)
    stop = torch.cumsum(size, 0)
    lo, hi = (stop - size)[group], stop[group]  # the run of equal x
    padded = torch.cat([first_y, (first_y[-1:] + y[-1:])])
    own_before = y * (k - lo) - (first_y - padded[lo])
    own_after = padded[hi] - padded[(k + 1).long()] - y * (hi - k - 1)
    less = left - own_before
    more = b - left - own_after
    front = torch.cat([b.new_zeros(1), torch.cumsum(b, 0)])
    sign = (lo - (n - hi)).double()
    pulled = front[lo] - (front[-1] - front[hi])
    c0, c1, c2 = coefficients(n, estimator)
    return c0 * 2 * (less - more) + c1 * (b * sign + pulled) + c2 * 2 * sign * b.sum()


def _dominated(u: Tensor, v: Tensor, again: Tensor) -> tuple[Tensor, ...]:
    """Return sums of 1, u, v and uv over the records before each one in both orders.

    Parameters
    ----------
    u, v : tensor, shape (n,), in the order of u
    again : tensor of int
        Positions in the order of u, listed in the order of v.
    """
    n = len(u)
    size = _BLOCK
    while size < n:
        size *= 2
    here = torch.cat([again, torch.arange(n, size, device=u.device)])
    table = torch.zeros((size, 4), dtype=torch.float64, device=u.device)
    table[:n] = torch.stack([torch.ones_like(u), u, v, u * v], dim=1)
    total = torch.zeros_like(table)
    while size > _BLOCK:
        half = size // 2
        blocks = here.view(-1, size)
        right = (blocks & half) != 0
        weight = table[here].view(-1, size, 4) * (~right)[..., None]
        gained = torch.cumsum(weight, dim=1)[right]
        left_part = blocks[~right].view(-1, half)
        right_part = blocks[right].view(-1, half)
        total[right_part.reshape(-1)] += gained
        here = torch.stack([left_part, right_part], dim=1).reshape(-1)
        size = half
    blocks = here.view(-1, _BLOCK)
    before = blocks[:, None, :] < blocks[:, :, None]  # [block, i, j]: j before i in u
    earlier = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool, device=u.device).tril(-1)
    pairs = (before & earlier).double()
    total[here] += torch.bmm(pairs, table[here].view(-1, _BLOCK, 4)).view(-1, 4)
    return tuple(total[:n].unbind(dim=1))
