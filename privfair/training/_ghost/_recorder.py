"""Watch a forward pass for uses of trainable parameters, and collect what each contributes.

A ``TorchFunctionMode`` sees every torch function that a module calls, by whatever route: layers,
``F.linear`` with a tied weight, attention that bypasses its own submodules. Functions with a
handler below are run with a hook on their output, which the one backward pass calls with the
derivative. Any other function that is given a trainable parameter makes the pass unsupported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from privfair.training._ghost._attention import attend, attention_gap
from privfair.training._ghost._layers import broadcast_sum, patches
from privfair.training._ghost._uses import Dense, Outer, Rows, Sequence, Use, prefers_products

__all__ = ["Recorder", "UnsupportedUseError", "widened", "without_parameter_gradients"]


class UnsupportedUseError(Exception):
    """A parameter is used in a way that this path has no formula for."""


@contextmanager
def without_parameter_gradients(params: list[nn.Parameter]) -> Iterator[None]:
    """Let autograd pass through layers without forming the gradients of their parameters."""
    for p in params:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in params:
            p.requires_grad_(True)


def widened(x: Tensor) -> Tensor:
    """Return float32 in place of a shorter float."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Rooted(torch.autograd.Function):
    """The output of a layer whose input needs no derivative, as a root of the graph."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        return compute()

    @staticmethod
    def backward(ctx: Any, *backs: Tensor) -> tuple[None, None]:
        return None, None


class Recorder(TorchFunctionMode):
    """Record the uses of ``params`` in one forward pass over ``batch`` records.

    Parameters
    ----------
    params : list of Parameter
        Trainable, each once.
    batch : int
        Number of records in the pass.
    plan : list of bool or None
        For each watched call, whether its input has the records in its first dimension, as found
        on made-up batches. A size that agrees by chance must not decide that.

    Attributes
    ----------
    uses : dict
        (parameter, first row, last row) to list of :class:`Use`; filled by the backward pass.
    calls : list of bool
        What ``plan`` would be, judged by this pass alone.
    """

    def __init__(
        self, params: list[nn.Parameter], batch: int, plan: list[bool] | None = None
    ) -> None:
        super().__init__()
        self._index = {id(p): at for at, p in enumerate(params)}
        self._batch = batch
        self._plan = plan
        self._counts = [0] * len(params)
        self.uses: dict[tuple[int, int, int], list[Use]] = {}
        self.calls: list[bool] = []
        self.anchor = torch.zeros((), requires_grad=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(map(self._touches, args)) and not any(map(self._touches, kwargs.values())):
            return func(*args, **kwargs)
        handler = _HANDLERS.get(func)
        if handler is not None:
            return handler(self, *args, **kwargs)
        if func in _READ_ONLY:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", repr(func))
        raise UnsupportedUseError(f"a trainable parameter is used by {name}")

    def _touches(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return id(value) in self._index
        if isinstance(value, list | tuple):
            return any(map(self._touches, value))
        if isinstance(value, dict):
            return any(map(self._touches, value.values()))
        return False

    # -- what handlers use -------------------------------------------------------------------
    def tracks(self, p: Tensor | None) -> bool:
        """Return whether the gradient of ``p`` is wanted."""
        return p is not None and id(p) in self._index

    def batched(self, x: Tensor) -> bool:
        """Return whether ``x`` has the records in its first dimension."""
        seen = x.dim() > 0 and x.shape[0] == self._batch
        at = len(self.calls)
        self.calls.append(seen)
        if self._plan is None:
            return seen
        if at >= len(self._plan) or (self._plan[at] and not seen):
            raise UnsupportedUseError("the forward pass is not the one that was prepared")
        return self._plan[at]

    def need_batched(self, x: Tensor, what: str) -> None:
        """Refuse an input without the records in its first dimension."""
        if not self.batched(x):
            raise UnsupportedUseError(f"{what} on an input without the batch in front")

    def run(self, compute: Callable[[], Tensor], *inputs: Tensor) -> Tensor:
        """Compute an output that is part of the graph even where no input is."""
        if any(x.requires_grad for x in inputs):
            return compute()
        return _Rooted.apply(self.anchor, compute)  # type: ignore[no-any-return]

    def watch(
        self, out: Tensor, held: tuple[Tensor, ...], receive: Callable[[Tensor], None]
    ) -> None:
        """Call ``receive`` with the derivative at ``out``; ``held`` must be unchanged by then."""
        versions = [x._version for x in held]
        cell = [(receive, held)]

        def hook(back: Tensor) -> None:
            call, tensors = cell.pop()  # the graph outlives the hook: let its tensors go
            if [x._version for x in tensors] != versions:
                raise UnsupportedUseError("the input of a layer is changed in place afterwards")
            # Norms and sums are not formed in low precision, whatever the pass is in.
            with torch.autocast(back.device.type, enabled=False):
                call(widened(back.detach()))

        out.register_hook(hook)

    def count(self, *params: Tensor | None) -> None:
        """Count uses, so that a parameter used several times is known before the backward."""
        for p in params:
            if p is not None and id(p) in self._index:
                self._counts[self._index[id(p)]] += 1

    def once(self, p: Tensor) -> bool:
        """Return whether a parameter is used once in this pass."""
        return self._counts[self._index[id(p)]] == 1

    def add(self, p: Tensor, use: Use, rows: tuple[int, int] | None = None) -> None:
        """Keep a use of the given rows of ``p``."""
        first, last = rows or (0, p.shape[0] if p.dim() else 1)
        self.uses.setdefault((self._index[id(p)], first, last), []).append(use)

    def by_parameter(self) -> dict[int, dict[tuple[int, int], list[Use]]]:
        """Return uses by position of the parameter, then by its rows."""
        found: dict[int, dict[tuple[int, int], list[Use]]] = {}
        for (at, first, last), uses in self.uses.items():
            found.setdefault(at, {})[first, last] = uses
        return found

    # -- layers ------------------------------------------------------------------------------
    def linear(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        rows: tuple[Any, Any] | None = None,
    ) -> Tensor:
        """Run ``F.linear``, or the part of it that the given rows of weight and bias are."""
        x = input
        of_weight, of_bias = rows or (None, None)
        part = weight if of_weight is None else weight[slice(*of_weight)]
        shift = bias if bias is None or of_bias is None else bias[slice(*of_bias)]
        if not (self.tracks(weight) or self.tracks(bias)):
            return F.linear(x, part, shift)
        self.need_batched(x, "linear")
        if x.dim() < 2:
            raise UnsupportedUseError("linear on numbers without features")
        if rows is None:
            self.count(weight, bias)
        out = self.run(lambda: F.linear(x, part, shift), x)

        def receive(back: Tensor) -> None:
            back3 = back.reshape(len(back), -1, back.shape[-1])
            if self.tracks(weight):
                use = _product(x, back3, rows is not None or self.once(weight))
                self.add(weight, use, of_weight)
            if bias is not None and self.tracks(bias):
                self.add(bias, Dense(back3.sum(dim=1)), of_bias)

        self.watch(out, (x,), receive)
        return out

    def convolution(
        self,
        convolve: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        """Run ``F.conv1d`` or ``F.conv2d``."""
        x = input
        if x.dim() != weight.dim():
            raise UnsupportedUseError("convolution without a batch dimension")
        self.need_batched(x, "convolution")
        self.count(weight, bias)
        out = self.run(lambda: convolve(x, weight, bias, stride, padding, dilation, groups), x)

        def receive(back: Tensor) -> None:
            flat = back.flatten(2)
            if self.tracks(weight):
                kernel, shape = weight.shape[2:], back.shape[2:]

                def seen() -> Tensor:
                    return patches(widened(x), kernel, stride, padding, dilation, groups, shape)

                fan_in, fan_out = weight[0].numel(), weight.shape[0]
                if groups == 1 and prefers_products(flat.shape[2], fan_in, fan_out):
                    self.add(weight, Sequence(lambda: seen()[:, 0].mT, flat.mT))
                else:
                    grouped = flat.unflatten(1, (groups, -1))
                    self.add(weight, Dense(torch.matmul(grouped, seen().mT)))
            if bias is not None and self.tracks(bias):
                self.add(bias, Dense(flat.sum(dim=2)))

        self.watch(out, (x,), receive)
        return out

    def embedding(
        self,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        """Run ``F.embedding``."""
        if max_norm is not None or scale_grad_by_freq:
            raise UnsupportedUseError("embedding with max_norm or scale_grad_by_freq")
        tokens = input
        if not self.batched(tokens):  # positions: the same tokens for every record
            tokens = tokens.expand(self._batch, *tokens.shape)
        self.count(weight)
        out = self.run(lambda: F.embedding(tokens, weight))

        def receive(back: Tensor) -> None:
            width = weight.shape[1]
            flat, rows = tokens.reshape(self._batch, -1), back.reshape(self._batch, -1, width)
            if padding_idx is not None:
                skip = padding_idx if padding_idx >= 0 else padding_idx + len(weight)
                rows = torch.where((flat == skip)[:, :, None], torch.zeros_like(rows), rows)
            self.add(weight, Rows(flat, rows, len(weight)))

        self.watch(out, (tokens,), receive)
        return out

    def normalise(
        self,
        normal: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        *,
        channels: bool,
    ) -> Tensor:
        """Run a normalisation whose affine part is per channel or per trailing feature."""
        self.need_batched(x, "normalisation")
        shape = next(p.shape for p in (weight, bias) if p is not None)
        if not channels and x.dim() <= len(shape):
            raise UnsupportedUseError("normalisation over the records of a batch")
        out = self.run(lambda: normal(x, weight, bias), x)

        def total(values: Tensor) -> Tensor:
            if channels:
                return values.flatten(2).sum(dim=2) if values.dim() > 2 else values
            return values.reshape(len(values), -1, *shape).sum(dim=1)

        def receive(back: Tensor) -> None:
            if weight is not None and self.tracks(weight):
                self.add(weight, Dense(total(back * normal(widened(x), None, None))))
            if bias is not None and self.tracks(bias):
                self.add(bias, Dense(total(back)))

        self.watch(out, (x,), receive)
        return out

    def broadcast(self, multiply: bool, a: Any, b: Any, *more: Any, **options: Any) -> Tensor:
        """Run an elementwise sum or product of a parameter and something else."""
        compute = torch.mul if multiply else torch.add
        p, other = (a, b) if self.tracks(a) else (b, a)
        if more or options or self._touches(other):
            raise UnsupportedUseError("an elementwise operation of two parameters")
        held = (other,) if isinstance(other, Tensor) else ()
        if not held or other.dim() == 0 or p.dim() > other.dim():
            raise UnsupportedUseError("an elementwise operation on a parameter alone")
        self.need_batched(other, "an elementwise operation")
        if p.dim() == other.dim() and p.shape[0] != 1:
            raise UnsupportedUseError("a parameter with the records in its first dimension")
        out = self.run(lambda: compute(other, p), other)

        def receive(back: Tensor) -> None:
            self.add(p, Dense(broadcast_sum(back * widened(other) if multiply else back, p.shape)))

        self.watch(out, held if multiply else (), receive)
        return out

    def repeat(self, p: Tensor, *sizes: Any) -> Tensor:
        """Run ``Tensor.expand`` of a parameter to one copy for each record."""
        wanted = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
        shown = p.detach().expand(*wanted)
        self.need_batched(shown, "expand")
        if p.dim() == shown.dim() and p.shape[0] != 1:
            raise UnsupportedUseError("a parameter with the records in its first dimension")
        out = self.run(lambda: p.expand(*wanted).clone())

        def receive(back: Tensor) -> None:
            self.add(p, Dense(broadcast_sum(back, p.shape)))

        self.watch(out, (), receive)
        return out

    def attention(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Run ``F.multi_head_attention_forward``."""
        bound = _ATTENTION.bind(*args, **kwargs)
        bound.apply_defaults()
        gap = attention_gap(bound.arguments)
        if gap is not None:
            raise UnsupportedUseError(gap)
        return attend(self.linear, bound.arguments)


def _product(x: Tensor, back: Tensor, alone: bool) -> Use:
    """Return the contribution of a weight whose inputs are x and whose outputs have ``back``."""
    inputs = widened(x).reshape(len(x), -1, x.shape[-1])
    _, length, fan_in = inputs.shape
    if alone and length == 1:
        return Outer(inputs[:, 0], back[:, 0])
    if alone and prefers_products(length, fan_in, back.shape[2]):
        return Sequence(lambda: inputs, back)
    return Dense(torch.bmm(back.mT, inputs))


def _layer_norm(
    rec: Recorder,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    def normal(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return F.layer_norm(x, normalized_shape, w, b, eps)

    return rec.normalise(normal, input, weight, bias, channels=False)


def _rms_norm(
    rec: Recorder,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    def normal(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return F.rms_norm(x, normalized_shape, w, eps)

    return rec.normalise(normal, input, weight, None, channels=False)


def _group_norm(
    rec: Recorder,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    def normal(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return F.group_norm(x, num_groups, w, b, eps)

    return rec.normalise(normal, input, weight, bias, channels=True)


def _instance_norm(
    rec: Recorder,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if running_mean is not None or running_var is not None or not use_input_stats:
        raise UnsupportedUseError("instance_norm with running statistics")

    def normal(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return F.instance_norm(x, None, None, w, b, True, momentum, eps)

    return rec.normalise(normal, input, weight, bias, channels=True)


def _convolution(convolve: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda rec, *args, **kwargs: rec.convolution(convolve, *args, **kwargs)


def _broadcast(multiply: bool) -> Callable[..., Tensor]:
    return lambda rec, *args, **kwargs: rec.broadcast(multiply, *args, **kwargs)


_ATTENTION = inspect.signature(F.multi_head_attention_forward)

_HANDLERS: dict[Any, Callable[..., Any]] = {
    F.linear: Recorder.linear,
    F.conv1d: _convolution(F.conv1d),
    F.conv2d: _convolution(F.conv2d),
    F.embedding: Recorder.embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
    F.multi_head_attention_forward: Recorder.attention,
    Tensor.expand: Recorder.repeat,
    torch.add: _broadcast(False),
    Tensor.add: _broadcast(False),
    Tensor.__radd__: _broadcast(False),
    torch.mul: _broadcast(True),
    Tensor.mul: _broadcast(True),
    Tensor.__rmul__: _broadcast(True),
}

# What asks about a tensor without using its values.
_READ_ONLY = {
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.stride,
    Tensor.is_contiguous,
    Tensor.is_floating_point,
    *(
        getattr(Tensor, name).__get__
        for name in (
            "shape", "dtype", "device", "ndim", "requires_grad", "is_leaf", "is_nested", "layout",
            "is_cuda", "is_cpu", "is_sparse", "is_quantized", "is_meta",
        )
    ),
}  # fmt: skip
