"""Clipped gradient sums whose unit is a user: all records of one user are one contribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privfair.core.exceptions import DataError
from privfair.core.frames import as_vector, missing_mask
from privfair.core.randomness import SecretStream
from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors
from privfair.training._closed_form import ScoreWeights, StepSums, linear_stack
from privfair.training._functional import FunctionalPath
from privfair.training._groups import clipped_total, groups_of
from privfair.training._losses import RecordLoss
from privfair.training._probe import check_per_record_module, check_record_loss

__all__ = ["UserPath", "UserRecords", "encode_users"]

Stack = list[tuple[nn.Linear, nn.Module]]

_BYTES = 1 << 26
_EXACT = 2.0**53  # up to here every whole number has a double of its own
_PLACES = 1 << 16  # padded places in memory at once


def encode_users(user_ids: object) -> tuple[NDArray[np.int64], int]:
    """Return a position for each row's user, and the number of users.

    Raises
    ------
    DataError
        If an identifier is missing: whose record it is would then be unknown. If two users may
        have got one identifier: they would be clipped together, and each could then change the
        sum by more than the bound.
    """
    values = as_vector(_as_given(user_ids), name="user_ids")
    masked = getattr(user_ids, "mask", None)
    if missing_mask(values).any() or (isinstance(masked, np.ndarray) and masked.any()):
        raise DataError(
            "user_ids has missing (NaN or None) entries. A record of an unknown user cannot be "
            "clipped together with that user's others; drop it, or give it an identifier."
        )
    listed = values.tolist()
    if any(isinstance(value, float) and abs(value) >= _EXACT for value in listed):
        raise DataError(
            "user_ids are floating-point numbers of at least 2**53, where two users may have been "
            "rounded to one identifier. Give them as integers or as text."
        )
    known: dict[object, int] = {}
    codes = [known.setdefault(value, len(known)) for value in listed]
    return np.array(codes, dtype=np.int64), len(known)


def _as_given(user_ids: object) -> object:
    """Keep a plain list's entries as they are: an array would round or convert some of them."""
    if not isinstance(user_ids, list | tuple):
        return user_ids
    if any(np.ndim(value) for value in user_ids):
        return user_ids  # refused as not one-dimensional
    values = np.empty(len(user_ids), dtype=object)
    values[:] = user_ids
    return values


@dataclass(frozen=True)
class UserRecords:
    """Encoded records in the order of their users.

    Attributes
    ----------
    X : Tensor, shape (n_records, n_features)
    y : Tensor, shape (n_records,)
    weights : Tensor or None, shape (n_records,)
    starts : Tensor, shape (n_users + 1,)
        User u has the records ``starts[u]`` to ``starts[u + 1]``.
    """

    X: Tensor
    y: Tensor
    weights: Tensor | None
    starts: Tensor

    @classmethod
    def build(
        cls,
        X: Tensor,
        y: Tensor,
        weights: Tensor | None,
        users: NDArray[np.int64],
        n_users: int,
        most: int | None,
        stream: SecretStream,
    ) -> UserRecords:
        """Sort records by user and keep at most ``most`` of each, drawn at random.

        The draw gives every record a secret priority of its own, so that which records of a user
        stay depends on no other user.
        """
        priority = stream.uint64(len(users)) if most is not None else np.arange(len(users))
        order = np.lexsort((priority, users))
        counts = np.bincount(users, minlength=n_users)
        starts = np.concatenate([[0], np.cumsum(counts)])
        if most is not None:
            place = np.arange(len(order)) - starts[users[order]]
            order = order[place < most]
            starts = np.concatenate([[0], np.cumsum(np.minimum(counts, most))])
        rows = torch.from_numpy(order).to(X.device)
        return cls(
            X[rows],
            y[rows],
            None if weights is None else weights[rows],
            torch.from_numpy(starts).to(X.device),
        )

    @property
    def places(self) -> Tensor:
        """One row for each user, which the engine draws from."""
        return torch.zeros((len(self.starts) - 1, 1), device=self.X.device)


def slope_of(activation: nn.Module, value: Tensor) -> Tensor | None:
    """Return the derivative of an elementwise activation, from its value; None for 1."""
    if isinstance(activation, nn.Tanh):
        return 1 - value * value
    if isinstance(activation, nn.Sigmoid):
        return value * (1 - value)
    return (value > 0).to(value.dtype) if isinstance(activation, nn.ReLU) else None


class UserPath:
    """Sums of users' gradients, each clipped as a whole.

    User u contributes c_u g_u, where g_u is the sum of the gradients of u's records and c_u cuts
    its norm to the bound: the record formulas of the accountant then hold with users in the place
    of records (McMahan, Ramage, Talwar, Zhang 2018, arXiv 1710.06963). For stacks of linear
    layers g_u is one product of u's (padded) derivatives and activations per layer; for any
    other module the records' gradients are added up.

    Parameters
    ----------
    module : torch.nn.Module
    loss : RecordLoss
    records : UserRecords
    """

    name = "user"

    def __init__(self, module: nn.Module, loss: RecordLoss, records: UserRecords) -> None:
        self._records = records
        self._loss = loss
        self._sizes = [p.numel() for p in module.parameters() if p.requires_grad]
        # A loss that could not be tested must not see the records of several users together.
        self._stack = linear_stack(module) if check_record_loss(loss) else None
        self._module = module
        self._any = FunctionalPath(module, loss) if self._stack is None else None
        self._users = max(1, _BYTES // (8 * max(1, sum(self._sizes))))

    def prepare(self, X: Tensor) -> None:
        """Put the module to the test; this path has its own records."""
        if self._stack is None:
            check_per_record_module(self._module, self._records.X, self._loss.n_outputs)

    def sums(
        self,
        X: Tensor,
        y: Tensor,
        rows: Tensor | None,
        bound: float | ClipRule | None,
        guard: float,
        score_weights: ScoreWeights | None = None,
        sample_weight: Tensor | None = None,
    ) -> StepSums:
        """Return the sum of the clipped gradients of the users at ``rows`` (None: of all)."""
        if rows is None:
            rows = torch.arange(len(X), device=X.device)
        size = sum(self._sizes)
        total = torch.zeros(size, dtype=torch.float64, device=rows.device)
        norms = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        for part in self._parts(rows):
            grads = self._gradients(rows[part])
            if groups_of(bound) is not None and isinstance(bound, ClipRule):
                added, norms[part] = clipped_total(grads, self._sizes, bound, guard)
                total += added
                continue
            norms[part] = grads.square().sum(dim=1).sqrt()
            factors = clip_factors(norms[part], bound, guard)
            grads = torch.where((factors > 0)[:, None], grads, torch.zeros_like(grads))
            total += factors @ grads
        output = torch.zeros((len(rows), self._loss.n_outputs), device=rows.device)
        return StepSums(total, norms, output)

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        """Split the users so that neither gradients nor padded records fill the memory."""
        counts = (self._records.starts[rows + 1] - self._records.starts[rows]).cpu().numpy()
        order = np.argsort(counts, kind="stable")
        start = 0
        for at in range(1, len(order) + 1):
            full = at - start >= min(self._users, CHUNK_ROWS)
            wide = at < len(order) and (at + 1 - start) * counts[order[at]] > _PLACES
            if at == len(order) or full or wide:
                yield torch.from_numpy(order[start:at]).to(rows.device)
                start = at

    def _gradients(self, users: Tensor) -> Tensor:
        """Return each user's summed gradient, shape (n_users, n_parameters), float64."""
        starts = self._records.starts
        counts = starts[users + 1] - starts[users]
        owner = torch.repeat_interleave(torch.arange(len(users), device=users.device), counts)
        first = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(owner), device=users.device) - first[owner]
        records = starts[users][owner] + place
        if self._stack is not None:
            longest = int(counts.max()) if len(counts) else 0
            return self._of_stack(records, owner, place, (len(users), max(1, longest)))
        return self._of_module(records, owner, len(users))

    @torch.no_grad()
    def _of_stack(
        self, records: Tensor, owner: Tensor, place: Tensor, shape: tuple[int, int]
    ) -> Tensor:
        assert self._stack is not None
        data = self._records
        weights = None if data.weights is None else data.weights[records]
        acts, backs = self._passes(self._stack, data.X[records], data.y[records], weights)
        parts = []
        for (layer, _), a, back in zip(self._stack, acts, backs, strict=False):
            inputs = a.new_zeros((*shape, a.shape[1]), dtype=torch.float64)
            slopes = a.new_zeros((*shape, back.shape[1]), dtype=torch.float64)
            inputs[owner, place], slopes[owner, place] = a.double(), back.double()
            parts.append((slopes.transpose(1, 2) @ inputs).flatten(1))
            if layer.bias is not None:
                parts.append(slopes.sum(dim=1))
        return torch.cat(parts, dim=1)

    def _passes(
        self, stack: Stack, inputs: Tensor, targets: Tensor, weights: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return each layer's inputs, and each record's derivatives at its outputs."""
        acts = [inputs]
        for layer, activation in stack:
            acts.append(activation(layer(acts[-1])))
        back = self._loss.backprop(acts[-1], targets)
        backs = [back if weights is None else back * weights[:, None]]
        for at in range(len(stack) - 1, 0, -1):
            slope = slope_of(stack[at - 1][1], acts[at])
            back = backs[-1] @ stack[at][0].weight
            backs.append(back if slope is None else back * slope)
        return acts, backs[::-1]

    def _of_module(self, records: Tensor, owner: Tensor, n_users: int) -> Tensor:
        assert self._any is not None
        data = self._records
        total = torch.zeros((n_users, sum(self._sizes)), dtype=torch.float64, device=owner.device)
        for start in range(0, len(records), self._any.chunk):
            part = slice(start, start + self._any.chunk)
            scales = None if data.weights is None else data.weights[records[part]]
            grads = self._any.per_record(data.X[records[part]], data.y[records[part]], scales)
            total.index_add_(0, owner[part], grads.double())
        return total
