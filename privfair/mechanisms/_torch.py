"""The torch side of training noise; the only module of this room that needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from privfair.mechanisms._hardened import HardenedGaussian

__all__ = ["add_to_tensor"]


@torch.no_grad()
def add_to_tensor(mechanism: HardenedGaussian, total: torch.Tensor) -> torch.Tensor:
    """Add hardened noise to a flat tensor in place.

    The noise is always drawn on the CPU. CPU tensors share memory with numpy; on CUDA the exact
    float64 arithmetic runs on the device; any other device, some of which lack float64, goes
    through a copy.
    """
    if total.device.type == "cpu":
        view = total.detach().numpy()
        view[...] = mechanism._perturb(view)
    elif total.device.type == "cuda":
        total.copy_(_perturb_on_device(mechanism, total))
    else:
        noisy = torch.from_numpy(mechanism._perturb(total.detach().cpu().numpy()))
        total.copy_(noisy.to(total.dtype))
    return total


def _perturb_on_device(mechanism: HardenedGaussian, total: torch.Tensor) -> torch.Tensor:
    """Return the noisy sum in float64; the same operations as ``HardenedGaussian._perturb``."""
    from privfair.mechanisms._hardened import _LIMIT

    noise = torch.from_numpy(mechanism.noise()).to(total.device)
    value = total.detach().to(torch.float64).mul_(1.0 / mechanism.grid).round_()
    value.nan_to_num_(nan=_LIMIT, posinf=_LIMIT, neginf=-_LIMIT).clamp_(-_LIMIT, _LIMIT)
    return value.add_(noise).mul_(mechanism.grid)
