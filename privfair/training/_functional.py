"""Clipped gradient sums of any module, by vectorised per-record gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors
from privfair.training._closed_form import ScoreWeights, StepSums
from privfair.training._groups import clipped_total, groups_of
from privfair.training._losses import RecordLoss
from privfair.training._probe import check_same_parameters, plain_attention

__all__ = ["FunctionalPath"]

_BYTES = 256 << 20
_MOST_RECORDS = 512  # activations are held for all of them


class FunctionalPath:
    """Clipped sums by ``torch.func.vmap(grad)``: right by construction, for any module.

    Each record's gradient is taken with the record alone in its batch, so that no other record
    can enter it; parameters used twice (tied weights) get the whole of their gradient. Records
    are handled in chunks whose gradients take at most 256 MiB (or one record's, if larger).
    """

    name = "functional"

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module = module
        self._loss = loss
        self._params: dict[str, nn.Parameter] = {}
        self._fixed: dict[str, Tensor] = dict(module.named_buffers())
        for name, p in module.named_parameters():
            if p.requires_grad:
                self._params[name] = p
            else:
                self._fixed[name] = p
        self._trainable = list(self._params.values())
        size = sum(p.numel() for p in self._trainable)
        self._chunk = min(_MOST_RECORDS, max(1, _BYTES // (16 * max(size, 1))))
        self._size = size
        self._sizes = [p.numel() for p in self._params.values()]

    def prepare(self, X: Tensor) -> None:
        """Do nothing: this path precomputes nothing."""

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
        """Return the sum of clipped gradients over the records at ``rows`` (None: over all)."""
        check_same_parameters(self._module, self._trainable)
        dtype = self._trainable[0].dtype
        if rows is None:
            rows = torch.arange(len(X), device=X.device)
        with torch.no_grad():
            output = self._module(X[rows]) if len(rows) else self._empty_output(X)
            none = torch.zeros(len(rows), dtype=dtype, device=X.device)
            weights = none if score_weights is None else score_weights(output)
            scales = none + 1 if sample_weight is None else sample_weight[rows]
        total = torch.zeros(self._size, dtype=torch.float64, device=X.device)
        norms = torch.zeros(len(rows), dtype=torch.float64, device=X.device)
        params = {n: p.detach() for n, p in self._params.items()}
        chunk = max(self._chunk, -(-len(rows) // CHUNK_ROWS))
        groups = groups_of(bound)
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            grads = self._per_record(
                params, X[rows[part]], y[rows[part]], weights[part], scales[part]
            )
            if groups is not None and isinstance(bound, ClipRule):
                added, norms[part] = clipped_total(grads, self._sizes, bound, guard)
                total += added
                continue
            square = grads.double().square().sum(dim=1)
            norms[part] = square.sqrt()
            factors = clip_factors(norms[part], bound, guard)
            grads = torch.where((factors > 0)[:, None], grads, torch.zeros_like(grads))
            total += factors @ grads.double()
        return StepSums(total, norms, output)

    @property
    def chunk(self) -> int:
        """The number of records whose gradients are formed at once."""
        return self._chunk

    def per_record(self, X: Tensor, y: Tensor, scales: Tensor | None) -> Tensor:
        """Return each record's gradient, shape (batch, n_parameters)."""
        none = torch.zeros(len(X), dtype=X.dtype, device=X.device)
        params = {n: p.detach() for n, p in self._params.items()}
        return self._per_record(params, X, y, none, none + 1 if scales is None else scales)

    def _empty_output(self, X: Tensor) -> Tensor:
        dtype = self._trainable[0].dtype
        return torch.zeros((0, self._loss.n_outputs), dtype=dtype, device=X.device)

    def _per_record(
        self, params: dict[str, Tensor], X: Tensor, y: Tensor, weights: Tensor, scales: Tensor
    ) -> Tensor:
        def record_loss(
            p: dict[str, Tensor], x: Tensor, target: Tensor, w: Tensor, scale: Tensor
        ) -> Tensor:
            out = functional_call(self._module, {**p, **self._fixed}, (x[None],))
            loss = scale * self._loss.per_record(out, target[None]).sum()
            score = self._loss.score(out)
            return loss if score is None else loss + w * score.sum()

        each = vmap(grad(record_loss), in_dims=(None, 0, 0, 0, 0))
        with plain_attention():
            grads = each(params, X, y, weights, scales)
        return torch.cat([grads[n].flatten(1) for n in self._params], dim=1)
