"""Per-record gradients of convolutions, normalisations and elementwise parameters."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["broadcast_sum", "conv_padding", "patches"]


def conv_padding(
    padding: str | int | Seq[int], kernel: Seq[int], dilation: Seq[int]
) -> list[tuple[int, int]]:
    """Return the zeros before and after each spatial dimension of a convolution."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        widths = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(w // 2, w - w // 2) for w in widths]
    return [(int(p), int(p)) for p in _each(padding, len(kernel))]


def patches(
    x: Tensor,
    kernel: Seq[int],
    stride: int | Seq[int],
    padding: str | int | Seq[int],
    dilation: int | Seq[int],
    groups: int,
    out: Seq[int],
) -> Tensor:
    """Return what each output position of a convolution sees.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, *spatial)
    kernel, stride, padding, dilation, groups
        Of the convolution.
    out : sequence of int
        Spatial shape of its output.

    Returns
    -------
    Tensor, shape (batch, groups, channels / groups * kernel entries, output positions)
    """
    n = len(kernel)
    strides, dilations = _each(stride, n), _each(dilation, n)
    pads = conv_padding(padding, kernel, dilations)
    if any(p != (0, 0) for p in pads):
        x = F.pad(x, [width for pair in reversed(pads) for width in pair])
    steps = x.stride()
    view = x.as_strided(
        (x.shape[0], x.shape[1], *kernel, *out),
        (
            steps[0],
            steps[1],
            *(s * d for s, d in zip(steps[2:], dilations, strict=True)),
            *(s * d for s, d in zip(steps[2:], strides, strict=True)),
        ),
        x.storage_offset(),
    )
    positions = 1
    for size in out:
        positions *= size
    return view.reshape(x.shape[0], groups, -1, positions)


def _each(value: int | str | Seq[int], n: int) -> list[int]:
    if isinstance(value, int):
        return [value] * n
    given = [int(v) for v in value]
    return given * n if len(given) == 1 else given


def broadcast_sum(back: Tensor, shape: torch.Size) -> Tensor:
    """Sum (batch, ...) down to (batch, *shape), where ``shape`` was broadcast to it.

    ``shape`` has at most the dimensions of ``back``; if as many, its first is 1.
    """
    dims = back.dim()
    own = list(shape) if len(shape) < dims else list(shape)[1:]
    lead = dims - 1 - len(own)
    axes = list(range(1, 1 + lead))
    axes += [1 + lead + at for at, size in enumerate(own) if size == 1]
    axes = [at for at in axes if at <= lead or back.shape[at] != 1]
    summed = back.sum(dim=axes, keepdim=True) if axes else back
    return summed.reshape(len(back), *shape)
