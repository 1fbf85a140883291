"""Data-parallel runs over torch.distributed: one clipped sum, one noise, many processes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfair.core.exceptions import (
    AccountingAssumptionError,
    ConvergenceError,
    InvalidParameterError,
)
from privfair.training._sampling import CyclicPoissonSampler, PoissonSampler

__all__ = ["DataParallel", "ShardSampler"]


class DataParallel:
    """One process's part in a run that several processes do together.

    Each process (rank) holds a part of the records of its own, draws its own part of each batch
    and clips. The sums go to rank 0 in float64, which draws the noise, once, and sends the noisy
    sum to all: every rank makes the same step from the same number.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup or None, default=None
        None is the default group, which ``torch.distributed.init_process_group`` has made.

    Attributes
    ----------
    rank, size : int
        Of this process and of the group.

    Raises
    ------
    InvalidParameterError
        If no process group is initialised.

    Notes
    -----
    *Threat model.* The ranks trust each other: rank 0 sees the sums of the others without noise,
    and all see what the group's connections carry, which must be as safe as the memory of the
    processes. The guarantee is towards whoever sees the released parameters.

    *Randomness.* Each rank's part of a batch comes from its own secret stream, which no other
    rank has; each record is drawn independently with the one probability of the plan, as in one
    process. With ``noise_random_state`` (tests) all ranks draw the same batch over all records
    and keep their part, so that the run equals that of one process on the concatenated records,
    up to the order of a float64 sum.

    *Failure.* If a rank fails, no sum of that step is released and the others raise
    ConvergenceError when their connection ends or times out.

    References
    ----------
    Abadi et al., 2016, arXiv:1607.00133. Kairouz et al., 2021, arXiv:2102.06387 (why summing
    noise of several parties is another mechanism).
    """

    def __init__(self, group: Any = None) -> None:
        dist = torch.distributed
        if not dist.is_available() or not dist.is_initialized():
            raise InvalidParameterError(
                "no process group is initialised: call torch.distributed.init_process_group in "
                "every process first, or leave parallel out."
            )
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._root = 0 if group is None else dist.get_global_rank(group, 0)

    def place(self, n_rows: int) -> tuple[int, int]:
        """Return how many records the ranks before this one have, and how many all have."""
        counts = self._gather(int(n_rows))
        return sum(counts[: self.rank]), sum(counts)

    def agree(self, theta: Tensor, **facts: Any) -> None:
        """Refuse a run whose ranks do not all do the same.

        Parameters
        ----------
        theta : Tensor
            Initial parameters; compared by their digest.
        **facts : object
            Anything with a faithful ``repr``.
        """
        start = hashlib.sha256(theta.detach().cpu().numpy().tobytes()).hexdigest()
        facts = {"initial parameters": start, **facts}
        mine = {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in
                facts.items()}  # fmt: skip
        everyone = self._gather(mine)
        differ = sorted(n for n in mine if any(other.get(n) != mine[n] for other in everyone))
        if differ:
            raise AccountingAssumptionError(
                f"the ranks do not agree on: {', '.join(differ)}. All must run the same plan from "
                "the same parameters, or the sum would not be what is accounted."
            )

    def sum_(self, total: Tensor) -> None:
        """Add up the ranks' float64 sums on rank 0; what the others hold then is undefined."""
        with _failing_closed():
            torch.distributed.reduce(total, dst=self._root, group=self._group)

    def share_(self, released: Tensor) -> None:
        """Give every rank what rank 0 holds."""
        with _failing_closed():
            torch.distributed.broadcast(released, src=self._root, group=self._group)

    def _gather(self, value: Any) -> list[Any]:
        out: list[Any] = [None] * self.size
        with _failing_closed():
            torch.distributed.all_gather_object(out, value, group=self._group)
        return out


class _failing_closed:
    """Turn the errors of a broken group into one of ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, RuntimeError):
            raise ConvergenceError(
                "another rank of the run failed or does not answer. No sum of this step was "
                "released; what was charged stays charged."
            ) from error


class ShardSampler:
    """The part of a repeatable batch over all records that one rank holds.

    Parameters
    ----------
    sampler : PoissonSampler or CyclicPoissonSampler
        Over the records of all ranks; every rank has the same.
    first, n_rows : int
        Position of this rank's first record, and how many it has.
    """

    def __init__(
        self, sampler: PoissonSampler | CyclicPoissonSampler, first: int, n_rows: int
    ) -> None:
        self._sampler, self._first, self._n_rows = sampler, first, n_rows

    def sample(self) -> NDArray[np.int64]:
        """Return the positions of this rank's records in one batch."""
        rows = self._sampler.sample() - self._first
        return rows[(rows >= 0) & (rows < self._n_rows)]
