"""Per-record clipping factors, with a guard that makes the bound hold in floating point."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "CHUNK_ROWS",
    "GUARD",
    "ClipRule",
    "block_sum",
    "block_sum_error",
    "clip_factors",
    "clip_rows",
    "finite_or_zero",
    "square_norms",
]

CHUNK_ROWS = 8192
"""Sums over records are formed in blocks of at most this many rows, which bounds their error."""

GUARD = 1e-5
"""Relative margin by which clipping stays below the norm bound.

It pays for the float64 rounding of the norm, of the factor and of the scaled derivative.
"""


@runtime_checkable
class ClipRule(Protocol):
    """How norms become factors; what a gradient path gets in place of one number.

    A path that gets a rule whose ``groups`` is None hands the norms over all parameters to
    :func:`clip_factors`, as it does with a number. Otherwise ``groups[k]`` is the group of the
    ``k``-th trainable parameter (in the module's order); the path hands over one norm for each
    record and group, and multiplies each parameter's gradients by its group's factor.

    Whatever the norms are, a record's gradient times its factors has at most the norm
    ``bound`` over all parameters together.
    """

    @property
    def bound(self) -> float:
        """L2 bound on a record's contribution over all parameters together."""
        ...

    @property
    def groups(self) -> tuple[int, ...] | None:
        """The group of each trainable parameter, or None."""
        ...

    def factors(self, norms: Tensor, guard: float) -> Tensor:
        """Return factors of the shape of ``norms``: (batch,), or (batch, n_groups)."""
        ...


def block_sum_error(n_rows: int, bound: float, pieces: int = 0) -> float:
    """Return how far a float64 sum over ``n_rows`` bounded vectors can be from the exact sum.

    Sums are formed in blocks of b rows, with ``n_rows / CHUNK_ROWS <= b <= CHUNK_ROWS`` (b may be
    any number of rows where ``n_rows`` is below :data:`CHUNK_ROWS`), and the blocks are added up
    one after the other. A summand goes through at most ``b - 1`` additions in its block and
    ``n_rows / b`` between blocks, together at most ``min(n_rows, CHUNK_ROWS) + n_rows /
    CHUNK_ROWS``: a sum of this form is largest at an end of the range. Where a summand is a
    product that rounds, that is one rounding more. The L2 error is at most the number of roundings
    times the unit roundoff times the sum of the norms (Higham 2002, section 4.2), for every order
    of summation inside a block. A sum that is formed in ``pieces`` parts that are added up goes
    through at most that many additions more.
    """
    depth = min(n_rows, CHUNK_ROWS) + n_rows / CHUNK_ROWS + 1 + pieces
    return 1.001 * depth * 2.0**-53 * n_rows * bound


def finite_or_zero(factors: Tensor, norms: Tensor) -> Tensor:
    """Return the factors, and zero for a record with a norm that is not finite in any group."""
    finite = torch.isfinite(norms)
    if norms.dim() == 2:
        finite = finite.all(dim=1, keepdim=True)
    return factors.masked_fill(~finite, 0.0)


def clip_factors(norms: Tensor, bound: float | ClipRule | None, guard: float = GUARD) -> Tensor:
    """Return the factor of each record's gradient.

    Parameters
    ----------
    norms : Tensor, shape (batch,) or (batch, n_groups), float64
        L2 norm of each record's gradient over all parameters together, or over each group.
    bound : float, ClipRule or None
        The largest norm after clipping, or another rule; None (no privacy) leaves finite
        gradients as they are.
    guard : float
        Relative margin below the bound, see :data:`GUARD`.

    Returns
    -------
    Tensor, shape of ``norms``, float64
        ``(1 - guard) * min(1, bound / norm)``, and zero where the norm is not finite: raising
        an exception there would depend on private data.
    """
    if bound is None:
        return torch.isfinite(norms).to(norms.dtype)
    if not isinstance(bound, float | int) and isinstance(bound, ClipRule):
        return _held(bound.factors(norms, guard), norms, bound.bound)
    # An infinite norm gives zero, and one that is not a number gives what nan_to_num_ puts there.
    factors = norms.clamp(min=bound).reciprocal_().mul_(bound).mul_(1.0 - guard)
    return factors.nan_to_num_(nan=0.0)


def _held(factors: Tensor, norms: Tensor, bound: float) -> Tensor:
    """Return a rule's factors, made smaller where a contribution would pass the bound.

    The noise is that of ``bound``, whatever a rule of somebody's own answers.
    """
    factors = finite_or_zero(factors.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), norms)
    lengths = factors * norms.nan_to_num(nan=0.0, posinf=0.0)
    if lengths.dim() == 2:
        lengths = torch.linalg.vector_norm(lengths, dim=1, keepdim=True)
    return factors * (bound / lengths.abs().clamp(min=bound))


def square_norms(rows: Tensor) -> Tensor:
    """Return the squared L2 norms of float32 or float64 rows, in float64.

    In blocks, since a float64 copy of a whole table would triple its memory.
    """
    squares = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        norms = torch.linalg.vector_norm(rows[part], dim=1, dtype=torch.float64)
        torch.square(norms, out=squares[part])
    return squares


def clip_rows(rows: Tensor, bound: float, guard: float = GUARD) -> Tensor:
    """Scale rows so that none has an L2 norm above ``bound``; non-finite rows become zero.

    Examples
    --------
    >>> rows = clip_rows(torch.tensor([[3.0, 4.0], [float("nan"), 1.0]]), 1.0)
    >>> rows.norm(dim=1).round(decimals=3)
    tensor([1., 0.], dtype=torch.float64)
    """
    rows = rows.detach().double()
    norms = rows.square().sum(dim=1).sqrt()
    factors = clip_factors(norms, bound, guard)
    safe = torch.where(torch.isfinite(norms)[:, None], rows, torch.zeros_like(rows))
    return safe * factors[:, None]


def block_sum(rows: Tensor) -> Tensor:
    """Sum float64 rows in blocks, as :func:`block_sum_error` assumes."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for start in range(0, len(rows), CHUNK_ROWS):
        total += rows[start : start + CHUNK_ROWS].sum(dim=0)
    return total
