"""Clipped gradient sums of feed-forward stacks without per-record gradients or autograd.

For a stack of linear layers z_l = W_l a_{l-1} + b_l with elementwise activations, record i's
gradient of W_l is the outer product of D_l,i (the derivative of its loss at z_l) and a_{l-1,i}.
The squared norm over all layers is therefore sum_l (|a_{l-1,i}|^2 + 1) |D_l,i|^2, and the clipped
sum of W_l's gradients is (c * D_l)^T a_{l-1}: one matrix product, no per-record gradient
(Goodfellow 2015, arXiv 1510.01799).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors
from privfair.training._groups import groups_of, stack_total
from privfair.training._losses import RecordLoss

__all__ = ["ClosedFormPath", "StepSums", "linear_stack"]

# The derivative of an activation, written in terms of its value.
_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor] | None] = {
    nn.Identity: None,
    nn.Tanh: lambda a: 1 - a * a,
    nn.ReLU: lambda a: (a > 0).to(a.dtype),
    nn.Sigmoid: lambda a: a * (1 - a),
}

ScoreWeights = Callable[[Tensor], Tensor]
"""Maps the outputs of a batch to the weight of each record's score in its loss."""


@dataclass(frozen=True)
class StepSums:
    """What one pass over a batch yields; private until noise is added.

    Attributes
    ----------
    total : Tensor, shape (n_parameters,), float64
        Sum of the clipped gradients.
    norms : Tensor, shape (batch,), float64
        Norms before clipping.
    output : Tensor, shape (batch, n_outputs)
        The model's outputs.
    """

    total: Tensor
    norms: Tensor
    output: Tensor


def linear_stack(module: nn.Module) -> list[tuple[nn.Linear, nn.Module]] | None:
    """Return the (linear, activation) pairs of a stack, or None if the module is no such stack."""
    if type(module) is nn.Linear:
        parts: list[nn.Module] = [module]
    elif type(module) is nn.Sequential:
        parts = list(module)  # children() would name a module that occurs twice only once
    else:
        return None
    stack: list[tuple[nn.Linear, nn.Module]] = []
    for part in parts:
        if type(part) is nn.Linear:
            stack.append((part, nn.Identity()))
        elif type(part) in _ACTIVATIONS and stack and type(stack[-1][1]) is nn.Identity:
            stack[-1] = (stack[-1][0], part)
        elif type(part) is not nn.Identity:
            return None
    tensors = [p for layer, _ in stack for p in layer.parameters()]
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    if (
        not stack
        or hooked
        or len({id(p) for p in tensors}) != len(tensors)
        or len({id(layer) for layer, _ in stack}) != len(stack)
        or not all(p.requires_grad for p in tensors)
        or type(stack[-1][1]) is not nn.Identity
    ):
        return None
    return stack


class ClosedFormPath:
    """Clipped sums of a linear stack by the formula in the module's docstring.

    Norms, scaled derivatives and sums are formed in float64 from float32 activations. The
    rounding of a summand's one product is among the roundings that
    :func:`privfair.training._clipping.block_sum_error` counts.
    """

    name = "closed_form"

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        stack = linear_stack(module)
        if stack is None:
            raise TypeError("not a stack of linear layers with elementwise activations")
        self._stack = stack
        self._loss = loss
        self._size = sum(p.numel() for p in module.parameters())
        self._input_norms: Tensor | None = None

    def prepare(self, X: Tensor) -> None:
        """Compute the squared norms of the inputs, once for all steps."""
        self._input_norms = _square_norms(X)

    @torch.no_grad()
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
        inputs, targets = X[rows], y[rows]
        acts = [inputs]
        for layer, activation in self._stack:
            acts.append(activation(layer(acts[-1])))
        output = acts[-1]
        back = self._loss.backprop(output, targets)
        if sample_weight is not None:
            back = back * sample_weight[rows, None]
        if score_weights is not None:
            slope = self._loss.score_backprop(output)
            if slope is not None:
                back = back + score_weights(output)[:, None] * slope
        backs = self._backward(acts, back)
        if groups_of(bound) is not None and isinstance(bound, ClipRule):
            layers = [layer for layer, _ in self._stack]
            return StepSums(*stack_total(layers, acts, backs, bound, guard), output)
        norms = self._norms(acts, backs, rows)
        factors = clip_factors(norms, bound, guard)
        return StepSums(self._total(acts, backs, factors), norms, output)

    def _backward(self, acts: list[Tensor], back: Tensor) -> list[Tensor]:
        backs = [back]
        for at in range(len(self._stack) - 1, 0, -1):
            derivative = _ACTIVATIONS[type(self._stack[at - 1][1])]
            back = back @ self._stack[at][0].weight
            if derivative is not None:
                back = back * derivative(acts[at])
            backs.append(back)
        return backs[::-1]

    def _norms(self, acts: list[Tensor], backs: list[Tensor], rows: Tensor) -> Tensor:
        total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        for at, (layer, _) in enumerate(self._stack):
            known = self._input_norms if at == 0 else None
            square = _square_norms(acts[at]) if known is None else known[rows]
            total += (square + float(layer.bias is not None)) * _square_norms(backs[at])
        return total.sqrt()

    def _total(self, acts: list[Tensor], backs: list[Tensor], factors: Tensor) -> Tensor:
        total = torch.zeros(self._size, dtype=torch.float64, device=factors.device)
        keep = factors > 0
        clean = bool(keep.all())
        for start in range(0, len(factors), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            at = 0
            for (layer, _), a, back in zip(self._stack, acts, backs, strict=False):
                # Not back to float32: a scaled derivative may be subnormal there, and its
                # rounding times a large input would pass the bound.
                scaled, inputs = back[part].double() * factors[part, None], a[part]
                if not clean:  # 0 * nan is nan: a record left out must be exactly zero
                    mask = keep[part, None]
                    scaled = torch.where(mask, scaled, torch.zeros_like(scaled))
                    inputs = torch.where(mask, inputs, torch.zeros_like(inputs))
                size = layer.weight.numel()
                total[at : at + size].view_as(layer.weight).addmm_(scaled.T, inputs.double())
                at += size
                if layer.bias is not None:
                    total[at : at + layer.bias.numel()] += scaled.sum(dim=0)
                    at += layer.bias.numel()
        return total


def _square_norms(rows: Tensor) -> Tensor:
    if len(rows) <= CHUNK_ROWS:
        return rows.double().square().sum(dim=1)
    # In blocks: a float64 copy of the whole table would triple the memory.
    return torch.cat([block.double().square().sum(dim=1) for block in rows.split(CHUNK_ROWS)])
