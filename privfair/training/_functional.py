"""Clipped gradient sums of any module, by vectorised per-record gradients."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from privfair.core.exceptions import AccountingAssumptionError
from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors
from privfair.training._closed_form import ScoreWeights, StepSums
from privfair.training._groups import clipped_total, groups_of
from privfair.training._losses import RecordLoss

__all__ = ["FunctionalPath", "check_per_record_module", "refuse_batch_norm"]

_BYTES = 256 << 20
_TOLERANCE = 1e-5
_BATCH_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


class FunctionalPath:
    """Clipped sums by ``torch.func.vmap(grad)``: right by construction, for any module.

    Each record's gradient is taken with the record alone in its batch, so that no other record
    can enter it; parameters used twice (tied weights) get the whole of their gradient. Records
    are handled in chunks that keep memory below 256 MB.
    """

    name = "functional"

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module = module
        self._loss = loss
        self._params: dict[str, Tensor] = {}
        self._fixed: dict[str, Tensor] = dict(module.named_buffers())
        for name, p in module.named_parameters():
            (self._params if p.requires_grad else self._fixed)[name] = p
        size = sum(p.numel() for p in self._params.values())
        self._chunk = min(CHUNK_ROWS, max(1, _BYTES // (16 * max(size, 1))))
        self._size = size
        self._sizes = [p.numel() for p in self._params.values()]

    def prepare(self, X: Tensor) -> None:
        """Do nothing: this path precomputes nothing."""

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
        with torch.no_grad():
            output = self._module(X[rows]) if len(rows) else self._empty_output(X)
            none = torch.zeros(len(rows), dtype=X.dtype, device=X.device)
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

    def _empty_output(self, X: Tensor) -> Tensor:
        return torch.zeros((0, self._loss.n_outputs), dtype=X.dtype, device=X.device)

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
        grads = each(params, X, y, weights, scales)
        return torch.cat([grads[n].flatten(1) for n in self._params], dim=1)


def refuse_batch_norm(module: nn.Module) -> None:
    """Raise AccountingAssumptionError if the module has a layer that mixes records by design."""
    for name, part in module.named_modules():
        if isinstance(part, _BATCH_NORMS):
            raise AccountingAssumptionError(
                f"module has {type(part).__name__} ({name or 'itself'}), which mixes the records "
                "of a batch or keeps statistics of them. Clipping one record's gradient then "
                "does not bound its influence. Use GroupNorm or LayerNorm."
            )


def check_per_record_module(module: nn.Module, n_features: int, n_outputs: int) -> None:
    """Refuse a module whose output for one record depends on another record.

    Batch normalisation is refused by name, anything else by a test on random inputs: altering
    one row of a batch must leave the outputs of the others, and every buffer, as they were.

    Raises
    ------
    AccountingAssumptionError
        If the module mixes records, changes its buffers in a forward pass, or returns the wrong
        shape.
    """
    refuse_batch_norm(module)
    if not any(p.requires_grad for p in module.parameters()):
        raise AccountingAssumptionError("module has no trainable parameter.")
    probe = copy.deepcopy(module).train()
    for part in probe.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.eval()
    _compare_rows(probe, n_features, n_outputs)


@torch.no_grad()
def _compare_rows(probe: nn.Module, n_features: int, n_outputs: int) -> None:
    first = next(probe.parameters())
    # Fixed inputs without symmetries: no random draw is needed to tell rows apart.
    base = torch.sin(torch.arange(1.0, 6 * n_features + 1) ** 2).reshape(6, n_features)
    base = base.to(first.device)
    other = base.clone()
    other[0] = torch.cos(3.0 * base[0]) + 0.5
    buffers = {n: b.clone() for n, b in probe.named_buffers()}
    out = probe(base)
    if not isinstance(out, Tensor) or out.shape != (6, n_outputs):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise AccountingAssumptionError(
            f"module must map (batch, {n_features}) to (batch, {n_outputs}), got {shape} for a "
            "batch of 6."
        )
    if any(not torch.equal(b, buffers[n]) for n, b in probe.named_buffers()):
        raise AccountingAssumptionError(
            "module changes a buffer in its forward pass. A buffer that remembers private "
            "records would be released without noise. Remove it, or freeze it."
        )
    change = (probe(other)[1:] - out[1:]).abs().max() / out.abs().max().clamp(min=1.0)
    if not change <= _TOLERANCE:
        raise AccountingAssumptionError(
            "module mixes records: changing one row of a batch changed the output of another. "
            "Clipping one record's gradient then does not bound its influence, and no epsilon "
            "would be valid. Use layers that treat each record alone."
        )
