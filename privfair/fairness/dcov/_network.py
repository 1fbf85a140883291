"""What the estimators that are fair without privacy share: a network and its training loop."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privfair.core import _validation as check
from privfair.core.exceptions import UtilityWarning
from privfair.core.penalty import Penalty
from privfair.fairness.dcov._kernels import KINDS
from privfair.fairness.dcov._penalty import DistanceCovariancePenalty
from privfair.training import ACTIVATIONS, BasePrivateEstimator, Progress, TrainingPlan

__all__ = ["FairNetwork"]

_ROWS_PER_CELL = 20
"""Fewer rows of a batch for each cell than this make a penalty that is mostly noise."""

_EXPECTED = 8
"""A cell that expects fewer rows is missing in more than one batch of 3,000: deal them out."""

_DEALT = 2
"""Rows of the rarest cells in each batch: the least that show how its scores spread."""

_BINS = 50
_CHUNK = 65_536


class FairNetwork(BasePrivateEstimator):
    """Encode, train with a batch-level penalty, keep the network; no privacy.

    The frame is that of the private estimators at ``epsilon=inf``: what reads and checks data,
    encodes columns, predicts and saves is the same code. Only the training loop is another.
    """

    lambda_: float
    penalty: Any
    c: float
    estimator: str
    group_weighting: float
    normalise: str
    encoder: Any
    activation: str

    # There is no privacy to speak of: these are no parameters.
    epsilon = math.inf
    delta = "auto"
    n_public = None
    neighboring = "zero_out"
    unit = "record"
    preprocessing_share = 0.2
    max_grad_norm = 1.0
    optimizer = "adam"
    allow_weak = False
    allow_idealized = False
    ledger = None
    noise_random_state = None

    _step_sizes: ClassVar[dict[str, tuple[float, float]]] = {"adam": (0.05, 5e-3)}
    _saved_attributes: ClassVar[tuple[str, ...]] = (
        *BasePrivateEstimator._saved_attributes,
        "history_",
    )

    def __sklearn_is_fitted__(self) -> bool:
        # The name of the parameter lambda_ ends like that of a fitted attribute.
        return hasattr(self, "module_")

    def _penalty(self) -> Any:
        strength = check.non_negative(lambda_=self.lambda_)
        if isinstance(self.penalty, Penalty) and not isinstance(self.penalty, str | type):
            made: Any = copy.deepcopy(self.penalty)
            made.strength = strength * float(getattr(made, "strength", 1.0))
        else:
            made = DistanceCovariancePenalty(
                check.one_of(KINDS, penalty=self.penalty),
                c=self.c,
                estimator=self.estimator,
                group_weighting=self.group_weighting,
                normalise=self._normalisation(),
                strength=strength,
                encoder=self.encoder,
            )
        return made if strength else None

    def _normalisation(self) -> str:
        return str(self.normalise)

    def _check_model_parameters(self) -> None:
        super()._check_model_parameters()
        check.non_negative(weight_decay=self.weight_decay)
        check.one_of(tuple(ACTIVATIONS), activation=self.activation)

    def _hook(self, loss: Any, plan: TrainingPlan) -> None:
        """Return None: the loop below takes the penalty itself, on whole batches."""

    def _draft(self, budget: Any) -> TrainingPlan:
        n = budget.n_public
        batch = min(n, check.positive_int(batch_size=self.batch_size))
        steps = check.positive_int(epochs=self.epochs) * -(-n // batch)
        return TrainingPlan(n, batch, steps, 1.0, None)

    def _engine(
        self,
        module: nn.Module,
        records: Any,
        encoding: Any,
        plan: TrainingPlan,
        hook: Any,
        rng: np.random.Generator,
        path: Any = None,
    ) -> Any:
        self._starting_point(module, records)
        return _Loop(self, module, records.problem.loss, plan, self._learning_rate(encoding), rng)

    def _starting_point(self, module: nn.Module, records: Any) -> None:
        """Set what the network predicts before the first step."""

    def _take_from_penalty(self, penalty: Any) -> None:
        self.encoder_ = getattr(penalty, "encoder_", None)
        self.pooled_cells_ = list(getattr(penalty, "pooled_cells_", ()))


class _Loop:
    """Adam on shuffled batches; one fit."""

    def __init__(
        self,
        owner: Any,
        module: nn.Module,
        loss: Any,
        plan: TrainingPlan,
        lr: float,
        rng: np.random.Generator,
    ) -> None:
        self._owner, self._module, self._loss, self._plan = owner, module, loss, plan
        self._rng, self._lr = rng, lr
        self._penalty = owner._used_penalty
        self._progress = Progress(enabled=bool(owner.verbose), label=type(owner).__name__)

    def run(self, X: Tensor, y: Tensor, sensitive: Tensor | None, weights: Tensor | None) -> None:
        """Train; leaves the epochs' values in the estimator's ``history_``."""
        self._check_batch()
        rows, undo = _standardised(X)
        if isinstance(self._penalty, nn.Module):
            self._penalty.to(X.device)
        mass = None if weights is None else weights / weights.mean()
        optimizer = torch.optim.AdamW(
            self._module.parameters(), lr=self._lr, weight_decay=self._owner.weight_decay
        )
        history: dict[str, list[float]] = {"loss": [], "penalty": [], "jsd": []}
        n, batch = len(X), self._plan.expected_batch_size
        pieces, done = -(-n // batch), 0
        cells = self._cells_to_deal(sensitive, n, pieces)
        with self._progress.running(self._plan.steps) as advance:
            for _ in range(self._plan.steps // pieces):
                for part, share in self._batches(cells, n, pieces):
                    at = torch.from_numpy(part).to(X.device)
                    optimizer.zero_grad()
                    output = self._module(rows[at])
                    own = _at(mass, at)
                    if share is not None:  # means of all rows: a rare cell's are here too often
                        here = torch.from_numpy(share).to(rows)
                        own = here if own is None else own * here
                    self._objective(output, y[at], _at(sensitive, at), own).backward()
                    optimizer.step()
                    done += 1
                    advance(done)
                self._note(history, rows, y, sensitive, mass)
        undo(self._module)
        self._owner.history_ = {name: tuple(values) for name, values in history.items()}

    def _cells_to_deal(
        self, sensitive: Tensor | None, n: int, pieces: int
    ) -> list[NDArray[np.int64]] | None:
        """Return the rows of each cell where batches are dealt out cell by cell, else None."""
        if sensitive is None or not isinstance(self._penalty, DistanceCovariancePenalty):
            return None
        n_cells = self._penalty.n_cells
        if n_cells is None or pieces == 1 or n < _DEALT * n_cells * pieces:
            return None
        code = sensitive.cpu().numpy()
        counts = np.bincount(code, minlength=n_cells)
        if counts[counts > 0].min() >= _EXPECTED * pieces:
            return None
        self._penalty._know_counts(counts)
        return [np.flatnonzero(code == g) for g in range(n_cells) if counts[g]]

    def _batches(
        self, cells: list[NDArray[np.int64]] | None, n: int, pieces: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64] | None]]:
        """Yield the batches of one epoch: rows, and factors with which their mean is unbiased."""
        if cells is None:
            for part in np.array_split(self._rng.permutation(n), pieces):
                yield part, None
        else:
            yield from stratified_batches(cells, pieces, self._rng)

    def _objective(
        self, output: Tensor, y: Tensor, sensitive: Tensor | None, mass: Tensor | None
    ) -> Tensor:
        each = self._loss.per_record(output, y)
        total: Tensor = (each if mass is None else each * mass).mean()
        if self._penalty is not None:
            total = total + self._penalty.strength * self._penalty(
                _scores(self._loss, output), sensitive, y=y
            )
        return total

    @torch.no_grad()
    def _note(
        self,
        history: dict[str, list[float]],
        rows: Tensor,
        y: Tensor,
        sensitive: Tensor | None,
        mass: Tensor | None,
    ) -> None:
        output = torch.cat([self._module(part) for part in rows.split(_CHUNK)])
        each = self._loss.per_record(output, y)
        history["loss"].append(float((each if mass is None else each * mass).mean()))
        if self._penalty is None:
            return
        scores = _scores(self._loss, output)
        history["penalty"].append(float(self._penalty(scores, sensitive, y=y)))
        if sensitive is not None and not sensitive.is_floating_point() and sensitive.ndim == 1:
            history["jsd"].append(_divergence(scores, sensitive))

    def _check_batch(self) -> None:
        n_cells = getattr(self._penalty, "n_cells", None)
        batch = self._plan.expected_batch_size
        if (
            n_cells is not None
            and batch < _ROWS_PER_CELL * n_cells
            and batch < self._plan.n_public
        ):
            warnings.warn(
                f"batch_size={batch} gives fewer than {_ROWS_PER_CELL} rows for each of {n_cells} "
                "cells: the penalty of a batch is mostly noise. Use a larger batch_size.",
                UtilityWarning,
                stacklevel=2,
            )


def stratified_batches(
    cells: list[NDArray[np.int64]], pieces: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield one epoch of batches with rows of every cell in each.

    Large cells are dealt out like cards, each row once. A cell with fewer than two rows for each
    batch gives two to each (one where it has only one), in turn. The factor of a row is its
    cell's share of all rows over its share of the batch's rows, so that a batch's mean of factor
    times anything has the mean over all rows as its expectation.
    """
    n = sum(len(rows) for rows in cells)
    dealt: list[list[NDArray[np.int64]]] = [[] for _ in range(pieces)]
    share: list[list[NDArray[np.float64]]] = [[] for _ in range(pieces)]
    turn = 0
    for rows in cells:
        order = rng.permutation(rows)
        size = len(rows)
        for piece in range(pieces):
            if size >= _DEALT * pieces:
                own = order[(piece - turn) % pieces :: pieces]
                each = pieces / n
            else:
                own = order[(piece + np.arange(min(_DEALT, size))) % size]
                each = size / n / len(own)
            dealt[piece].append(own)
            share[piece].append(np.full(len(own), each))
        if size >= _DEALT * pieces:  # the next cell's spare rows go to the other batches
            turn = (turn + size) % pieces
    for piece in rng.permutation(pieces):
        rows = np.concatenate(dealt[piece])
        yield rows, np.concatenate(share[piece]) * len(rows)


def _scores(loss: Any, output: Tensor) -> Tensor:
    """Return what the penalty sees: shape (n,), or (n, n_classes) for several classes."""
    found: Tensor | None = loss.score(output)
    return torch.softmax(output, dim=1) if found is None else found


def _at(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def _standardised(X: Tensor) -> tuple[Tensor, Any]:
    """Return columns with mean 0 and deviation 1, and what moves that into the first layer.

    Columns of two values are indicators and stay as they are.
    """
    low, high = X.min(dim=0).values, X.max(dim=0).values
    between = ((low < X) & (high > X)).any(dim=0)
    mean = torch.where(between, X.mean(dim=0), torch.zeros_like(low))
    spread = torch.where(between, X.std(dim=0), torch.ones_like(low))
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))

    def undo(module: nn.Module) -> None:
        first = next(part for part in module.modules() if isinstance(part, nn.Linear))
        with torch.no_grad():
            first.weight.div_(spread)
            first.bias.sub_(first.weight @ mean)

    return (X - mean) / spread, undo


def _divergence(scores: Tensor, cell: Tensor) -> float:
    """Return the Jensen-Shannon divergence, in bits, of the scores' histograms over cells."""
    values = scores if scores.ndim == 1 else scores[:, -1]
    low, high = values.min(), values.max()
    place = ((values - low) / (high - low).clamp(min=1e-12) * _BINS).long().clamp(max=_BINS - 1)
    n_cells = int(cell.max()) + 1
    table = torch.bincount(cell * _BINS + place, minlength=n_cells * _BINS).double()
    table = table.view(n_cells, _BINS)
    size = table.sum(dim=1)
    inside = _entropy(table / size.clamp(min=1)[:, None])
    together = _entropy((table.sum(dim=0) / table.sum())[None])[0]
    return float(together - (size / size.sum()) @ inside)


def _entropy(rows: Tensor) -> Tensor:
    return -torch.special.xlogy(rows, rows).sum(dim=1) / math.log(2.0)
