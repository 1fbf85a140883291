"""Sums of outer products in float32, in short blocks of rows that are added up in float64.

Sound only where neighbouring data sets give batches with the same rows in the same places, all
but one: then all blocks but one have the same bits on both sides, and the rounding of a single
short block is all that separates the difference of two computed sums from that of two exact ones.
``docs/proofs/dp-sgd`` has the proof.
"""

from __future__ import annotations

import torch
from torch import Tensor

from privfair.training._clipping import CHUNK_ROWS

__all__ = [
    "BLOCK_ROWS",
    "BOUNDS",
    "LIMIT",
    "MAX_WIDTH",
    "OuterSums",
    "norm_margin",
    "single_error",
    "single_products_round_once",
]

BLOCK_ROWS = 128
"""Rows whose float32 sum is formed before it goes to float64."""

LIMIT = 2.0**30
"""A record with a layer whose input or derivative has a larger norm is summed in float64."""

BOUNDS = (2.0**-10, 2.0**20)
"""Norm bounds for which float32 is taken: what underflows is far below them."""

MAX_WIDTH = 1 << 16
"""Largest width of a layer for which float32 is taken, as above."""

_UNIT = 2.0**-24


def single_error(terms: int, bound: float, rows: int = BLOCK_ROWS) -> float:
    """Return what float32 blocks add to the error of a sum, in the sense of ``value_error``.

    Twice the value, together with twice :func:`~privfair.training._clipping.block_sum_error`, is
    at least how far rounding takes two neighbours' sums apart: a block of b rows is off by at
    most ``gamma_(b + 2) b bound`` on each side, and in float64 there is one addition more for
    each block of rows that goes through at once (at most 8,193).

    Parameters
    ----------
    terms : int
        Public bound on the number of summands.
    bound : float
        L2 bound on a summand.
    rows : int, default=128
        Rows of a float32 block.
    """
    depth = (rows + 2) * _UNIT
    single = depth / (1.0 - depth) * rows * bound
    return 1.001 * (single + (CHUNK_ROWS + 2) * 2.0**-53 * terms * bound)


def norm_margin(widths: list[tuple[int, int]]) -> float:
    """Return by how much float32 may understate a record's norm over layers of these widths.

    For d inputs and p outputs, squares of row norms are off by d + 3 and p + 3 roundings, their
    products, the sum over layers and its root by a few more; factors and scaled derivatives are
    rounded to float32 once each. The square root would halve what enters the square.
    """
    return (max(a + b for a, b in widths) + len(widths) + 32) * _UNIT


def single_products_round_once() -> bool:
    """Return whether float32 matrix products are float32 throughout, on this CPU, as set up.

    Reduced precision (bfloat16, TF32) shows in a product of numbers that have all 24 bits.
    """
    if torch.get_float32_matmul_precision() != "highest":
        return False
    for batch, m in ((1, 64), (3, 64), (3, 2)):
        a, b = (_full_mantissas(batch, *shape) for shape in ((m, BLOCK_ROWS), (BLOCK_ROWS, 96)))
        off = (torch.bmm(a, b).double() - torch.bmm(a.double(), b.double())).abs().max()
        if off > 1e-4:  # of about 32, in bfloat16 or TF32 1e-2
            return False
    return True


def _full_mantissas(*shape: int) -> Tensor:
    """Return numbers in [0, 1) that need all of their bits."""
    count = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    return torch.frac(count * 0.6180339887498949).float().view(shape)


class OuterSums:
    """Adds sums of outer products to float64 totals, by way of float32 blocks of rows.

    Parameters
    ----------
    rows : int, default=128
        Rows of a block.
    """

    def __init__(self, rows: int = BLOCK_ROWS) -> None:
        self.rows = rows
        self._places: dict[tuple[int, int, int], Tensor] = {}

    def add(self, weight: Tensor, bias: Tensor | None, scaled: Tensor, inputs: Tensor) -> None:
        """Add ``scaled.T @ inputs`` to the weight's total, and the sum of ``scaled`` to the bias'.

        Parameters
        ----------
        weight, bias : Tensor, shapes (p, d) and (p,), float64
        scaled, inputs : Tensor, shapes (n, p) and (n, d), float32
        """
        n, rows = len(scaled), self.rows
        blocks = n // rows
        whole = blocks * rows
        if blocks:
            d = scaled[:whole].view(blocks, rows, scaled.shape[1])
            a = inputs[:whole].view(blocks, rows, inputs.shape[1])
            found = torch.bmm(d.transpose(1, 2), a, out=self._place(blocks, weight))
            weight += found[0] if blocks == 1 else found.sum(dim=0, dtype=torch.float64)
        if whole < n:
            rest = torch.mm(scaled[whole:].t(), inputs[whole:], out=self._place(1, weight)[0])
            weight += rest
        if bias is not None:
            if blocks > 2:  # fewer: not worth two passes
                bias += d.sum(dim=1).sum(dim=0, dtype=torch.float64)
                scaled = scaled[whole:]
            bias += scaled.sum(dim=0, dtype=torch.float64)

    def _place(self, blocks: int, weight: Tensor) -> Tensor:
        key = (blocks, *weight.shape)
        if key not in self._places:
            self._places[key] = torch.empty(key, dtype=torch.float32)
        return self._places[key]
