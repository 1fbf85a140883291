"""Clipped sums from the per-record gradients of Opacus, for modules with their own samplers."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from privfair.core.exceptions import InvalidParameterError
from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors
from privfair.training._closed_form import ScoreWeights, StepSums
from privfair.training._groups import clipped_total, groups_of
from privfair.training._losses import RecordLoss
from privfair.training._probe import agrees_with_functional, check_same_parameters

__all__ = ["OpacusPath"]

_BYTES = 256 << 20


class OpacusPath:
    """Clipped sums with gradients from ``opacus.GradSampleModule``.

    Opacus only supplies each record's gradient; factors, sums, noise and accounting are this
    package's. Its hooks go on a copy that shares the module's parameters, so that nothing of them
    stays in what is released. Samplers registered with
    ``opacus.grad_sample.register_grad_sampler`` are used, after a comparison with vectorised
    per-record gradients on made-up records.
    """

    name = "opacus"

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        from opacus import GradSampleModule

        self._module, self._loss = module, loss
        self._params = [p for p in module.parameters() if p.requires_grad]
        try:
            self._wrapped = GradSampleModule(_trainable_copy(module), loss_reduction="sum")
        except (NotImplementedError, ValueError) as error:
            raise InvalidParameterError(
                f"grad_path='opacus': Opacus does not take this module: {error}"
            ) from error
        self._twins = [p for p in self._wrapped.parameters() if p.requires_grad]
        self._sizes = [p.numel() for p in self._params]
        self._size = sum(self._sizes)
        self._chunk = min(CHUNK_ROWS, max(1, _BYTES // (16 * max(self._size, 1))))

    def prepare(self, X: Tensor) -> None:
        """Compare with vectorised per-record gradients on made-up records."""
        try:
            agrees = agrees_with_functional(OpacusPath, self._module, X)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidParameterError(
                f"grad_path='opacus': Opacus cannot differentiate this module: {error}"
            ) from error
        if not agrees:
            raise InvalidParameterError(
                "grad_path='opacus': on made-up records the gradients of Opacus differ from "
                "vectorised per-record gradients (tied weights, a layer without a sampler, or a "
                "wrong sampler?). Use 'auto'."
            )

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
        check_same_parameters(self._module, self._params)
        for p, twin in zip(self._params, self._twins, strict=True):
            twin.data = p.data
        n, dtype = len(rows), self._params[0].dtype
        total = torch.zeros(self._size, dtype=torch.float64, device=X.device)
        norms = torch.zeros(n, dtype=torch.float64, device=X.device)
        output = torch.zeros((n, self._loss.n_outputs), dtype=dtype, device=X.device)
        weights = None
        if score_weights is not None and n:
            with torch.no_grad():
                weights = score_weights(self._module(X[rows]))
        for start in range(0, n, max(self._chunk, -(-n // CHUNK_ROWS))):
            part = slice(start, start + max(self._chunk, -(-n // CHUNK_ROWS)))
            output[part], grads = self._gradients(X, y, rows[part], sample_weight, weights, part)
            if groups_of(bound) is not None and isinstance(bound, ClipRule):
                added, norms[part] = clipped_total(grads, self._sizes, bound, guard)
                total += added
                continue
            norms[part] = torch.linalg.vector_norm(grads, dim=1, dtype=torch.float64)
            factors = clip_factors(norms[part], bound, guard)
            grads = torch.where((factors > 0)[:, None], grads, torch.zeros_like(grads))
            total += factors @ grads.double()
        return StepSums(total, norms, output)

    def _gradients(
        self,
        X: Tensor,
        y: Tensor,
        rows: Tensor,
        sample_weight: Tensor | None,
        weights: Tensor | None,
        part: slice,
    ) -> tuple[Tensor, Tensor]:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # of torch, about the kind of Opacus' hooks
            out = self._wrapped(X[rows])
            with torch.no_grad():
                back = self._loss.backprop(out, y[rows])
                if sample_weight is not None:
                    back = back * sample_weight[rows, None]
                slope = None if weights is None else self._loss.score_backprop(out)
                if slope is not None and weights is not None:
                    back = back + weights[part, None] * slope
            out.backward(gradient=back)
        found = []
        for p in self._twins:
            grads = getattr(p, "grad_sample", None)
            if grads is None:  # a parameter that the forward pass does not use
                grads = torch.zeros((len(rows), *p.shape), dtype=p.dtype, device=p.device)
            found.append(grads.flatten(1))
            p.grad = p.grad_sample = None
        return out.detach(), torch.cat(found, dim=1)


def _trainable_copy(module: nn.Module) -> nn.Module:
    """Return a copy in training mode, which Opacus' hooks need, with all dropout off."""
    twin = copy.deepcopy(module).train()
    for part in twin.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        if isinstance(getattr(part, "dropout", None), float):
            setattr(part, "dropout", 0.0)  # noqa: B010 - attention and recurrent layers
    return twin
