"""Clipped sums by book-keeping: one forward, one backward, norms and sums from what was stored."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors
from privfair.training._closed_form import ScoreWeights, StepSums
from privfair.training._ghost._recorder import (
    Recorder,
    UnsupportedUseError,
    widened,
    without_parameter_gradients,
)
from privfair.training._ghost._uses import Dense, Use
from privfair.training._groups import group_norms, groups_of
from privfair.training._losses import RecordLoss
from privfair.training._probe import (
    agrees_with_functional,
    check_same_parameters,
    made_up_inputs,
)

__all__ = ["GhostPath"]

# Per-record gradients held at a time, in numbers. Chunks of at least _LEAST records keep the cost
# of calling torch small; what fits in a processor's cache is faster; _MOST is 256 MiB in float32.
_HELD = 5 << 18
_LEAST = 64
_MOST = 1 << 26


class GhostPath:
    """Clipped sums of networks made of layers whose per-record gradients have a formula.

    One forward pass stores the inputs of every layer, one backward pass with respect to the
    layers' outputs gives the derivatives there; gradients of parameters are never formed by
    autograd. Norms and clipped sums come from those pairs (Li et al. 2022, arXiv 2110.05679; Bu et
    al. 2023, arXiv 2210.00038). Records are handled in chunks, which bounds memory and is exact,
    since each record's factor depends on that record alone.

    Supported uses of trainable parameters: ``F.linear`` on vectors and sequences, ``F.conv1d``,
    ``F.conv2d``, ``F.embedding``, layer, group, instance and RMS normalisation, multi-head
    attention, and elementwise sums, products and copies; hence the modules built on them. A
    parameter with several uses has their gradients added up per record. Anything else raises
    :class:`UnsupportedUseError` in :meth:`prepare`.
    """

    name = "ghost"

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module = module
        self._loss = loss
        self._params = [p for p in module.parameters() if p.requires_grad]
        starts, size = [], 0
        for p in self._params:
            starts.append(size)
            size += p.numel()
        self._starts, self._size = starts, size
        self._plan: list[bool] | None = None
        self._chunk = CHUNK_ROWS

    def prepare(self, X: Tensor) -> None:
        """Find out on made-up records how the module uses its parameters.

        Raises
        ------
        UnsupportedUseError
            If a use has no formula, or the result differs from that of vectorised per-record
            gradients.
        """
        small, large = (made_up_inputs(self._module, X, n) for n in (3, 5))
        self._plan = self._discover(small, large)
        if not agrees_with_functional(self._twin, self._module, X):
            raise UnsupportedUseError(
                "on made-up records the sums differ from those of per-record gradients"
            )

    def _twin(self, module: nn.Module, loss: RecordLoss) -> GhostPath:
        twin = GhostPath(module, loss)
        twin._plan, twin._chunk = self._plan, 2  # more than one chunk
        return twin

    def _discover(self, *batches: Tensor) -> list[bool]:
        """Return which watched calls have the records in front, on batches of several sizes."""
        found: list[list[bool]] = []
        for batch in batches:
            output, recorder = self._forward(batch)
            if not output.requires_grad:
                raise UnsupportedUseError("the output depends on no supported layer")
            torch.autograd.grad(
                output, recorder.anchor, torch.ones_like(output), allow_unused=True
            )
            found.append(recorder.calls)
        held = sum(
            use.dense().shape[1]
            for uses in recorder.uses.values()
            for use in uses
            if isinstance(use, Dense)
        )
        held = max(held, 1)
        self._chunk = min(CHUNK_ROWS, max(_LEAST, _HELD // held), max(1, _MOST // held))
        if len({len(calls) for calls in found}) != 1:
            raise UnsupportedUseError("the forward pass depends on the number of records")
        return [all(seen) for seen in zip(*found, strict=True)]

    def sums(
        self,
        X: Tensor,
        y: Tensor,
        rows: Tensor,
        bound: float | ClipRule | None,
        guard: float,
        score_weights: ScoreWeights | None = None,
        sample_weight: Tensor | None = None,
    ) -> StepSums:
        """Return the sum of clipped gradients over the records at ``rows``."""
        if self._plan is None:
            self.prepare(X)
        check_same_parameters(self._module, self._params)
        n = len(rows)
        total = torch.zeros(self._size, dtype=torch.float64, device=X.device)
        norms = torch.zeros(n, dtype=torch.float64, device=X.device)
        outputs: list[Tensor] = []
        pieces = -(-n // max(self._chunk, -(-n // CHUNK_ROWS)))
        chunk = -(-n // max(pieces, 1))  # of equal length, and no more than they must be
        weights = None
        if score_weights is not None and n > chunk:
            with torch.no_grad():
                whole = [self._module(X[part]) for part in rows.split(chunk)]
                weights = score_weights(torch.cat(whole))
        for start in range(0, n, max(chunk, 1)):
            part = rows[start : start + chunk]
            size = len(part)
            output, recorder = self._forward(X[part])
            with torch.no_grad():
                seen = widened(output)
                back = self._loss.backprop(seen, y[part])
                if sample_weight is not None:
                    back = back * sample_weight[part, None]
                if score_weights is not None:
                    here = score_weights(seen) if weights is None else weights[start:][:size]
                    slope = self._loss.score_backprop(seen)
                    if slope is not None:
                        back = back + here[:, None] * slope
            torch.autograd.grad(output, recorder.anchor, back.to(output.dtype), allow_unused=True)
            outputs.append(seen.detach())
            with torch.no_grad():
                norms[start : start + size] = self._clip_and_add(
                    recorder, total, bound, guard, size
                )
        return StepSums(total, norms, torch.cat(outputs) if outputs else self._empty())

    def _forward(self, inputs: Tensor) -> tuple[Tensor, Recorder]:
        recorder = Recorder(self._params, len(inputs), self._plan)
        with without_parameter_gradients(self._params), torch.enable_grad(), recorder:
            output = self._module(inputs)
        return output, recorder

    def _clip_and_add(
        self,
        recorder: Recorder,
        total: Tensor,
        bound: float | ClipRule | None,
        guard: float,
        n: int,
    ) -> Tensor:
        regions = self._regions(recorder, n)
        zero = torch.zeros(n, dtype=torch.float64, device=total.device)
        groups = groups_of(bound)
        if groups is None:
            for use, _, _ in regions:
                zero += use.squares()
            norms = joint = zero.sqrt()
        else:
            squares = [zero] * len(self._params)
            for use, at, _ in regions:
                squares[at] = squares[at] + use.squares()
            norms, joint = group_norms(squares, groups)
        factors = clip_factors(norms, bound, guard)
        finite = torch.isfinite(joint)
        keep = None if bool(finite.all()) else finite
        for use, at, place in regions:
            own = factors if groups is None else factors[:, groups[at]]
            use.add_to(total[place], own, keep)
        return joint

    def _regions(self, recorder: Recorder, n: int) -> list[tuple[Use, int, slice]]:
        """Return one use for each region of the flat gradient; squared norms of regions add.

        Several uses of one region do not: their cross terms count, so they are added up first.
        """
        found: list[tuple[Use, int, slice]] = []
        for at, uses in recorder.by_parameter().items():
            p, start = self._params[at], self._starts[at]
            width = p.numel() // (len(p) if p.dim() else 1)
            spans = sorted(uses)
            if any(b[0] < a[1] for a, b in itertools.pairwise(spans)):
                whole = torch.zeros((n, p.numel()), dtype=p.dtype, device=p.device)
                for (first, last), several in uses.items():
                    for use in several:
                        whole[:, first * width : last * width] += use.dense()
                found.append((Dense(whole), at, slice(start, start + p.numel())))
                continue
            for (first, last), several in uses.items():
                one = several[0]
                for use in several[1:]:
                    one = Dense(one.dense() + use.dense())
                found.append((one, at, slice(start + first * width, start + last * width)))
        return found

    def _empty(self) -> Tensor:
        p = self._params[0]
        return torch.zeros((0, self._loss.n_outputs), dtype=p.dtype, device=p.device)
