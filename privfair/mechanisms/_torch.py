"""The torch side of this room; the only module of it that needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from privfair.core.exceptions import InvalidTypeError

if TYPE_CHECKING:
    from privfair.mechanisms._hardened import HardenedGaussian

__all__ = ["add_to_tensor", "answer", "as_numpy"]


@torch.no_grad()
def as_numpy(value: torch.Tensor) -> NDArray[Any]:
    """Return a tensor's numbers as an array; half precisions of torch become float32, exactly."""
    if value.layout is not torch.strided or value.is_quantized or value.is_complex():
        raise InvalidTypeError(
            f"a mechanism takes a dense tensor of real numbers, got {value.dtype} in the layout "
            f"{value.layout}. Convert it, for example with to_dense()."
        )
    if value.dtype is torch.bfloat16 or str(value.dtype).startswith("torch.float8"):
        value = value.to(torch.float32)
    array: NDArray[Any] = value.detach().cpu().numpy()
    return array


def answer(found: Any, device: torch.device) -> torch.Tensor:
    """Return a released number or array as a tensor on the device of the value."""
    array = np.asarray(found)
    tensor = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    lacks_float64 = device.type == "mps" and tensor.dtype is torch.float64
    return tensor if lacks_float64 else tensor.to(device)


@torch.no_grad()
def add_to_tensor(mechanism: HardenedGaussian, total: torch.Tensor) -> torch.Tensor:
    """Add hardened noise to a flat tensor in place.

    The noise is always drawn on the CPU. CPU tensors share memory with numpy; on CUDA the exact
    float64 arithmetic runs on the device; any other device, some of which lack float64, goes
    through a copy.
    """
    if total.device.type == "cpu":
        view = total.detach().numpy()
        noisy = mechanism._perturb(view)
        if noisy is not view:
            view[...] = noisy
    elif total.device.type == "cuda":
        total.copy_(_perturb_on_device(mechanism, total))
    else:
        copied = torch.from_numpy(mechanism._perturb(total.detach().cpu().numpy()))
        total.copy_(copied.to(total.dtype))
    return total


def _perturb_on_device(mechanism: HardenedGaussian, total: torch.Tensor) -> torch.Tensor:
    """Return the noisy sum in float64; the same operations as ``HardenedGaussian._perturb``."""
    from privfair.mechanisms._hardened import _LIMIT

    noise = torch.from_numpy(mechanism.noise()).to(total.device)
    value = total.detach().to(torch.float64).mul_(1.0 / mechanism.grid).round_()
    value.nan_to_num_(nan=_LIMIT, posinf=_LIMIT, neginf=-_LIMIT).clamp_(-_LIMIT, _LIMIT)
    return value.add_(noise).mul_(mechanism.grid)
