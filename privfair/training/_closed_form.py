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
import torch.nn.functional as F
from torch import Tensor, nn

from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors, square_norms
from privfair.training._groups import groups_of, stack_total
from privfair.training._losses import RecordLoss
from privfair.training._single import (
    BLOCK_ROWS,
    BOUNDS,
    LIMIT,
    MAX_WIDTH,
    OuterSums,
    norm_margin,
    single_error,
    single_products_round_once,
)

__all__ = ["ClosedFormPath", "StepSums", "linear_stack"]

_BLOCK_VALUES = 1 << 19
"""Float64 values alive at a time: few enough for the cache, enough rows for matrix products."""

_Forward = Callable[[Tensor], Tensor]
_Backward = Callable[[Tensor, Tensor], Tensor]
_aten = torch.ops.aten

# An activation in place, and its derivative times a gradient, in terms of its value and in place
# of the gradient: what autograd calls, without autograd.
_ACTIVATIONS: dict[type[nn.Module], tuple[_Forward, _Backward] | None] = {
    nn.Identity: None,
    nn.Tanh: (torch.tanh_, lambda d, a: _aten.tanh_backward.grad_input(d, a, grad_input=d)),
    nn.ReLU: (
        torch.relu_,
        lambda d, a: _aten.threshold_backward.grad_input(d, a, 0, grad_input=d),
    ),
    nn.Sigmoid: (
        torch.sigmoid_,
        lambda d, a: _aten.sigmoid_backward.grad_input(d, a, grad_input=d),
    ),
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

    Activations and derivatives are float32. Norms, scaled derivatives and sums are formed in
    float64. Rows go through in blocks, in buffers that are used again for the next block and the
    next step. The rounding of a summand's one product is among the roundings that
    :func:`privfair.training._clipping.block_sum_error` counts.

    Parameters
    ----------
    module : torch.nn.Module
        A stack, see :func:`linear_stack`.
    loss : RecordLoss
    fixed_places : bool, default=False
        Whether neighbouring data sets give batches with the same rows in the same places, all but
        one (``zero_out``). Products are then float32 in short blocks of rows, and
        :meth:`extra_error` is to be added to the error of the sum.
    """

    name = "closed_form"

    def __init__(self, module: nn.Module, loss: RecordLoss, fixed_places: bool = False) -> None:
        stack = linear_stack(module)
        if stack is None:
            raise TypeError("not a stack of linear layers with elementwise activations")
        self._layers = [
            (layer.weight, layer.bias, _ACTIVATIONS[type(act)]) for layer, act in stack
        ]
        self._linears = [layer for layer, _ in stack]
        self._loss = loss
        self._sizes = [p.numel() for p in module.parameters()]
        self._input_norms: Tensor | None = None  # squared
        self._input_lengths: Tensor | None = None
        widths = [(layer.in_features, layer.out_features) for layer, _ in stack]
        self._buffers = _Buffers(widths)
        width = sum(a + b for a, b in widths)
        self._block_rows = min(max(_BLOCK_VALUES // width, 256), CHUNK_ROWS)
        self._single: OuterSums | None = None
        if (
            fixed_places
            and all(p.device.type == "cpu" for p in module.parameters())
            and all(p.dtype == torch.float32 for p in module.parameters())
            and max(max(pair) for pair in widths) <= MAX_WIDTH
            and single_products_round_once()
        ):
            self._single = OuterSums()
            self._has_bias = torch.tensor(
                [[float(layer.bias is not None)] for layer in self._linears]
            )
            self._margin = 1.0 + norm_margin(widths)
            # Two blocks of values: there are no float64 copies. Whole float32 blocks of rows.
            rows = max(2 * _BLOCK_VALUES // width // BLOCK_ROWS, 2) * BLOCK_ROWS
            self._block_rows = min(rows, CHUNK_ROWS)

    def prepare(self, X: Tensor) -> None:
        """Compute the norms of the inputs, once for all steps."""
        self._input_norms = square_norms(X)
        self._input_lengths = self._input_norms.sqrt().float()

    def extra_error(self, terms: int, bound: float | ClipRule | None) -> float:
        """Return what is to be added to the error of sums of at most ``terms`` records."""
        if isinstance(bound, float | int) and self._is_single(bound):
            return single_error(terms, float(bound))
        return 0.0

    def _is_single(self, bound: float | ClipRule | None) -> bool:
        return (
            self._single is not None
            and isinstance(bound, float | int)
            and BOUNDS[0] <= bound <= BOUNDS[1]
        )

    @torch.no_grad()
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
        n, device = len(X if rows is None else rows), X.device
        total = torch.zeros(sum(self._sizes), dtype=torch.float64, device=device)
        pieces = iter(total.split(self._sizes))
        places = [
            (next(pieces).view_as(weight), None if bias is None else next(pieces))
            for weight, bias, _ in self._layers
        ]
        norms = torch.empty(n, dtype=torch.float64, device=device)
        output = torch.empty((n, self._loss.n_outputs), dtype=X.dtype, device=device)
        # Any block from n / CHUNK_ROWS to CHUNK_ROWS rows keeps to block_sum_error's roundings.
        size = max(self._block_rows, -(-n // CHUNK_ROWS))
        single = self._is_single(bound) and torch.get_float32_matmul_precision() == "highest"
        grouped = None
        if groups_of(bound) is not None and isinstance(bound, ClipRule):
            grouped = bound
        if score_weights is not None:  # they need all scores first
            for part in _blocks(n, size):
                output[part] = self._forward(_at(X, rows, part))[-1]
            weights = score_weights(output)
        for part in _blocks(n, size):
            acts = self._forward(_at(X, rows, part))
            back = self._loss.backprop(acts[-1], _at(y, rows, part))
            output[part] = acts[-1]
            if sample_weight is not None:
                back = back * _at(sample_weight, rows, part)[:, None]
            if score_weights is not None:
                slope = self._loss.score_backprop(acts[-1])
                if slope is not None:
                    back = back + weights[part, None] * slope
            backs = self._backward(acts, back)
            if grouped is not None:
                added, norms[part] = stack_total(self._linears, acts, backs, grouped, guard)
                total += added
                continue
            if single and all(t.dtype == torch.float32 for t in (*acts, *backs)):
                lengths = self._input_lengths
                known = None if lengths is None else _at(lengths, rows, part)
                self._add_single(places, acts, backs, known, bound, guard, norms[part])
                continue
            block = self._buffers.double(acts, backs)
            known = None if self._input_norms is None else _at(self._input_norms, rows, part)
            square = self._square_norms(block, known)
            factors = clip_factors(torch.sqrt(square, out=norms[part]), bound, guard)
            _add_products(places, block, factors)
        return StepSums(total, norms, output)

    def _forward(self, inputs: Tensor) -> list[Tensor]:
        acts = [inputs]
        outs = self._buffers.forward(inputs)
        for (weight, bias, activation), out in zip(self._layers, outs, strict=True):
            if torch.is_autocast_enabled(inputs.device.type):  # which skips what has a place
                out = F.linear(acts[-1], weight, bias)
            elif bias is None:
                torch.mm(acts[-1], weight.t(), out=out)
            else:
                torch.addmm(bias, acts[-1], weight.t(), out=out)
            acts.append(out if activation is None else activation[0](out))
        return acts

    def _backward(self, acts: list[Tensor], back: Tensor) -> list[Tensor]:
        backs = [back]
        for at in range(len(self._layers) - 1, 0, -1):
            low = torch.is_autocast_enabled(back.device.type)
            out = None if low else self._buffers.backward(at, back)
            back = torch.mm(back, self._layers[at][0], out=out)
            activation = self._layers[at - 1][2]
            if activation is not None:
                back = activation[1](back, acts[at])
            backs.append(back)
        return backs[::-1]

    def _add_single(
        self,
        places: list[tuple[Tensor, Tensor | None]],
        acts: list[Tensor],
        backs: list[Tensor],
        known: Tensor | None,
        bound: float | ClipRule | None,
        guard: float,
        norms: Tensor,
    ) -> None:
        """Add a block's clipped gradients by way of float32; write the norms before clipping."""
        assert self._single is not None
        count = len(backs)
        lengths = self._buffers.lengths(backs[0])
        for at in range(count):
            if at or known is None:
                torch.linalg.vector_norm(acts[at], dim=1, out=lengths[at])
            else:
                lengths[0] = known
            torch.linalg.vector_norm(backs[at], dim=1, out=lengths[count + at])
        ordinary = bool(lengths.amax() <= LIMIT)  # the largest of numbers with a NaN is NaN
        apart = None if ordinary else ~(lengths.amax(dim=0) <= LIMIT)
        lengths.square_()
        inputs = lengths[:count]
        inputs += self._has_bias
        norms.copy_(inputs.mul_(lengths[count:]).sum(dim=0).sqrt_())
        factors = clip_factors(norms * self._margin, bound, guard)
        if apart is not None:
            # Whether a record is one of these depends on that record alone, and so does what it
            # adds: the others' float32 blocks see a row of zeros.
            block = [
                (a[apart].double(), d[apart].double()) for a, d in zip(acts, backs, strict=False)
            ]
            found = torch.sqrt(self._square_norms(block, None))
            norms[apart] = found
            _add_products(places, block, clip_factors(found, bound, guard))
            factors = factors.masked_fill(apart, 0.0)
            acts, backs = (
                [t.masked_fill(apart[:, None], 0.0) for t in tensors] for tensors in (acts, backs)
            )
        factor = factors.float()[:, None]
        for back, a, (weight, bias) in zip(backs, acts, places, strict=False):
            self._single.add(weight, bias, back.mul_(factor), a)

    def _square_norms(
        self, block: list[tuple[Tensor, Tensor]], input_norms: Tensor | None
    ) -> Tensor:
        total: Tensor | None = None
        for (inputs, back), (_, bias, _) in zip(block, self._layers, strict=True):
            known = input_norms if total is None else None
            square = _row_norms(inputs).square_() if known is None else known
            if bias is not None:
                square = square + 1.0
            squares = _row_norms(back).square_().mul_(square)
            total = squares if total is None else total.add_(squares)
        assert total is not None
        return total


class _Buffers:
    """Memory that every block of rows uses again; to allocate it anew costs as much as its use."""

    def __init__(self, widths: list[tuple[int, int]]) -> None:
        self._widths = widths
        self._rows = 0
        self._like: tuple[torch.dtype, torch.device] | None = None

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Return a place for each layer's output."""
        n = len(inputs)
        if n > self._rows or self._like != (inputs.dtype, inputs.device):
            new = inputs.new_empty
            self._rows, self._like = n, (inputs.dtype, inputs.device)
            self._outs = [new((n, b)) for _, b in self._widths]
            self._backs = [new((n if at else 0, a)) for at, (a, _) in enumerate(self._widths)]
            self._doubles: list[tuple[Tensor, Tensor]] | None = None
            self._lengths = new((2 * len(self._widths), n), dtype=torch.float32)
        return [out[:n] for out in self._outs]

    def backward(self, at: int, back: Tensor) -> Tensor:
        """Return a place for the derivative at the input of layer ``at``."""
        return self._backs[at][: len(back)]

    def double(self, acts: list[Tensor], backs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return float64 copies of each layer's inputs and derivatives."""
        n = len(acts[0])
        if self._doubles is None:
            new = acts[0].new_empty
            self._doubles = [
                (
                    new((self._rows, a), dtype=torch.float64),
                    new((self._rows, b), dtype=torch.float64),
                )
                for a, b in self._widths
            ]
        return [
            (a64[:n].copy_(a), d64[:n].copy_(d))
            for (a64, d64), a, d in zip(self._doubles, acts, backs, strict=False)
        ]

    def lengths(self, like: Tensor) -> Tensor:
        """Return a place for the norms of each layer's inputs and derivatives, contiguous."""
        layers, n = 2 * len(self._widths), len(like)
        return self._lengths.view(-1)[: layers * n].view(layers, n)


def _add_products(
    places: list[tuple[Tensor, Tensor | None]],
    block: list[tuple[Tensor, Tensor]],
    factors: Tensor,
) -> None:
    """Add a block's clipped gradients to the sums of each layer's weight and bias."""
    keep = factors > 0
    clean = bool(keep.all())
    for (inputs, scaled), (weight, bias) in zip(block, places, strict=True):
        # Not back to float32: a scaled derivative may be subnormal there, and its rounding
        # times a large input would pass the bound.
        scaled.mul_(factors[:, None])
        if not clean:  # 0 * nan is nan: a record left out must be exactly zero
            scaled.masked_fill_(~keep[:, None], 0.0)
            inputs.masked_fill_(~keep[:, None], 0.0)
        weight.addmm_(scaled.t(), inputs)
        if bias is not None:
            bias += scaled.sum(dim=0)


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _at(values: Tensor, rows: Tensor | None, part: slice) -> Tensor:
    return values[part] if rows is None else values.index_select(0, rows[part])


def _row_norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1)
