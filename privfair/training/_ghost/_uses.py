"""What one use of a parameter contributes to each record's gradient.

Every class answers three questions about the records of a chunk: the squared norms of their
contributions, the sum of the contributions times a factor, and the contributions themselves.

Finite precision. What counts as record i's contribution is a vector of floating-point numbers
that belongs to that record alone: the numbers in :class:`Dense` and :class:`Rows`, the exact outer
product in :class:`Outer`, the result of the record's own float64 matrix product in
:class:`Sequence`. Each is multiplied by the record's factor (one rounding) and then summed over
records in float64, so that :func:`privfair.training._clipping.block_sum_error` holds for all. The
norm is computed in float64 from sums of non-negative terms, except in :class:`Sequence`, which
adds a bound on its own rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Dense", "Outer", "Rows", "Sequence", "Use", "prefers_products"]

_BLOCK = 1 << 20  # elements of the float64 copies of a matrix product: 8 MiB
_CACHED = 1 << 16  # elements of a float64 copy that is read once: 512 KiB
_ROUNDOFF = 2.0**-53


class Use(Protocol):
    """One use of a parameter by the records of a chunk."""

    def squares(self) -> Tensor:
        """Return squared norms, shape (batch,), float64, never below the exact ones."""
        ...

    def add_to(self, total: Tensor, factors: Tensor, keep: Tensor | None) -> None:
        """Add the sum of factor times contribution to the flat float64 ``total``.

        Records outside ``keep`` contribute exactly zero, whatever they hold.
        """
        ...

    def dense(self) -> Tensor:
        """Return each record's contribution, shape (batch, n_entries)."""
        ...


def prefers_products(length: int, fan_in: int, fan_out: int) -> bool:
    """Return whether norms should come from inner products of positions, not from gradients.

    For a record of T positions the inner products cost T^2 (d + p) against T d p for its
    gradient, and spare d p numbers of memory (Li et al. 2022, arXiv 2110.05679; Bu et al. 2023,
    arXiv 2210.00038). Gradients that are no larger than a few times the layer's own activations
    are cheaper to form once and keep.
    """
    size = fan_in * fan_out
    return length**2 < size and size > 4 * length * (fan_in + fan_out)


def _squares(rows: Tensor) -> Tensor:
    flat = rows.flatten(1)
    # A float64 copy of all would have to come from memory twice, and fresh pages are slow.
    step = max(1, _CACHED // max(1, flat.shape[1]))
    parts = [torch.linalg.vector_norm(part.double(), dim=1) for part in flat.split(step)]
    return torch.cat(parts).square()


def _without(rows: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return rows
    mask = keep.reshape(-1, *(1,) * (rows.dim() - 1))
    return torch.where(mask, rows, torch.zeros((), dtype=rows.dtype, device=rows.device))


class Dense:
    """Contributions that are held as numbers, shape (batch, ...)."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows.reshape(len(rows), -1)

    def squares(self) -> Tensor:
        """Return squared norms."""
        return _squares(self._rows)

    def add_to(self, total: Tensor, factors: Tensor, keep: Tensor | None) -> None:
        """Add the weighted sum to ``total``."""
        step = max(1, _CACHED // max(1, self._rows.shape[1]))
        for at in range(0, len(self._rows), step):
            part = slice(at, at + step)
            rows = _without(self._rows[part], None if keep is None else keep[part])
            total.addmv_(rows.double().T, factors[part])

    def dense(self) -> Tensor:
        """Return the contributions."""
        return self._rows


class Outer:
    """Outer products of a derivative, shape (batch, p), and an input, shape (batch, d)."""

    def __init__(self, inputs: Tensor, backs: Tensor) -> None:
        self._inputs, self._backs = inputs, backs

    def squares(self) -> Tensor:
        """Return products of squared norms."""
        return _squares(self._inputs) * _squares(self._backs)

    def add_to(self, total: Tensor, factors: Tensor, keep: Tensor | None) -> None:
        """Add the weighted sum by one matrix product."""
        # In float64: a scaled derivative may be subnormal in float32.
        scaled = _without(self._backs, keep).double() * factors[:, None]
        inputs = _without(self._inputs, keep).double()
        total.view(scaled.shape[1], inputs.shape[1]).addmm_(scaled.T, inputs)

    def dense(self) -> Tensor:
        """Return the outer products."""
        return (self._backs[:, :, None] * self._inputs[:, None, :]).flatten(1)


class Sequence:
    """Sums over positions of outer products, of (batch, T, p) and (batch, T, d).

    The squared norm of sum_t D_t a_t^T is <A A^T, D D^T>. Where outer products cancel, rounding
    may exceed the result. With m = sum_t |D_t| |a_t| and u the unit roundoff, the inner products
    of all positions are off by at most (T^2 + d + p + 2) u m^2, and the record's own matrix
    product, formed in float64 when its contribution is added, is off by at most (T + 2) u m in
    norm. Four times (T^2 + d + p + 8) u m^2 pays for both: the norm that clipping uses is never
    below that of what is added.
    """

    def __init__(self, inputs: Callable[[], Tensor], backs: Tensor) -> None:
        self._inputs, self._backs = inputs, backs

    def squares(self) -> Tensor:
        """Return squared norms with their rounding added."""
        inputs, out = self._inputs(), []
        _, length, fan_in = inputs.shape
        fan_out = self._backs.shape[2]
        slack = 4.0 * (length**2 + fan_in + fan_out + 8) * _ROUNDOFF
        step = max(1, _BLOCK // (length * (2 * length + fan_in + fan_out)))
        for at in range(0, len(inputs), step):
            a, back = inputs[at : at + step].double(), self._backs[at : at + step].double()
            product = (torch.bmm(a, a.mT) * torch.bmm(back, back.mT)).sum(dim=(1, 2))
            mass = (a.square().sum(2).sqrt() * back.square().sum(2).sqrt()).sum(1)
            # clamp passes NaN on, and an infinite mass stays: such a record is left out.
            out.append(product.clamp(min=0.0) + slack * mass.square())
        return torch.cat(out)

    def add_to(self, total: Tensor, factors: Tensor, keep: Tensor | None) -> None:
        """Add the weighted sum, a few records' matrix products at a time."""
        inputs, backs = self._inputs(), self._backs
        fan_in, fan_out = inputs.shape[2], backs.shape[2]
        step = max(1, _BLOCK // (fan_in * fan_out))
        view = total.view(fan_out, fan_in)
        for at in range(0, len(inputs), step):
            part = slice(at, at + step)
            some = None if keep is None else keep[part]
            scaled = _without(backs[part], some).double() * factors[part, None, None]
            products = torch.bmm(scaled.mT, _without(inputs[part], some).double())
            view += products[0] if len(products) == 1 else products.sum(dim=0)

    def dense(self) -> Tensor:
        """Return the sums of outer products."""
        return torch.bmm(self._backs.mT, self._inputs()).flatten(1)


class Rows:
    """Rows of a table, chosen by (batch, T) tokens: contributions of an embedding.

    Derivatives at equal tokens of one record belong to the same row: they are added up first, so
    that the squared norm is that of the row's sum, cross terms included.
    """

    def __init__(self, tokens: Tensor, backs: Tensor, n_rows: int) -> None:
        self._tokens, self._n_rows = tokens, n_rows
        self._sums = _first_of_equals(tokens, backs)

    def squares(self) -> Tensor:
        """Return squared norms."""
        return _squares(self._sums)

    def add_to(self, total: Tensor, factors: Tensor, keep: Tensor | None) -> None:
        """Add the weighted rows to the table."""
        scaled = _without(self._sums, keep).double() * factors[:, None, None]
        # Per record one summand for each row: adding the other positions' zeros is exact.
        added = torch.ops.aten.embedding_dense_backward(
            scaled, self._tokens, self._n_rows, -1, False
        )
        total += added.flatten()

    def dense(self) -> Tensor:
        """Return each record's whole table."""
        batch, _, width = self._sums.shape
        table = self._sums.new_zeros((batch, self._n_rows, width))
        index = self._tokens[:, :, None].expand_as(self._sums)
        return table.scatter_add_(1, index, self._sums).flatten(1)


def _first_of_equals(tokens: Tensor, backs: Tensor) -> Tensor:
    """Put the sum over equal tokens of a record at the first of them, zeros at the others."""
    batch, length = tokens.shape
    if length == 1:
        return backs
    if length <= 128:
        equal = tokens[:, :, None] == tokens[:, None, :]
        earlier = torch.ones((length, length), dtype=torch.bool, device=tokens.device).tril(-1)
        first = ~(equal & earlier).any(dim=2)
        # 0 * inf is NaN: it stays within the record, whose norm is not finite anyway.
        return torch.bmm((equal & first[:, :, None]).to(backs.dtype), backs)
    order = tokens.argsort(dim=1, stable=True)
    sorted_ = tokens.gather(1, order)
    new = torch.ones_like(sorted_, dtype=torch.bool)
    new[:, 1:] = sorted_[:, 1:] != sorted_[:, :-1]
    head = torch.where(new, torch.arange(length, device=tokens.device), 0).cummax(dim=1).values
    owner = torch.empty_like(order).scatter_(1, order, order.gather(1, head))
    index = owner[:, :, None].expand_as(backs)
    return torch.zeros_like(backs).scatter_add_(1, index, backs)
