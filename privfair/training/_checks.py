"""Adding up the pieces of a batch, and checking each record's part of the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from privfair.core.exceptions import AccountingAssumptionError
from privfair.training._closed_form import StepSums

__all__ = ["add_up", "check_contributions"]

_TOLERANCE = 1e-4  # of the bound, for each record: forward passes of other shapes round otherwise


def add_up(parts: Sequence[StepSums]) -> StepSums:
    """Return the sum over a batch from the sums over its pieces."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0].total.clone()
    for part in parts[1:]:
        total += part.total
    return StepSums(
        total, torch.cat([p.norms for p in parts]), torch.cat([p.output for p in parts])
    )


def check_contributions(
    sums: Callable[[Tensor], StepSums], rows: Tensor, found: StepSums, bound: float
) -> None:
    """Compute each record's contribution alone; compare it with the bound, and all with the sum.

    Parameters
    ----------
    sums : callable
        Maps row numbers to the clipped sum over them.
    rows : Tensor, shape (batch,)
    found : StepSums
        Over all of them together.
    bound : float

    Raises
    ------
    AccountingAssumptionError
        If a contribution is longer than the bound, or the sum is not that of the contributions.
        This depends on private data: never use it where an adversary sees whether it happens.

    References
    ----------
    Tramer, Terzis, Steinke, Song, Jagielski, Carlini, 2022, arXiv:2202.12219 (what happens
    without such checks).
    """
    total = torch.zeros_like(found.total)
    for row in rows.split(1):
        part = sums(row).total
        if not part.norm() <= bound:
            raise AccountingAssumptionError(
                f"a record's clipped contribution is longer than max_grad_norm = {bound}: the "
                "gradient path does not bound what the accountant assumes to be bounded."
            )
        total += part
    if not (total - found.total).norm() <= _TOLERANCE * bound * max(len(rows), 1):
        raise AccountingAssumptionError(
            "the sum over a batch is not the sum of its records' clipped contributions: records "
            "are mixed, or one enters twice."
        )
