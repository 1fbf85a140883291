"""The server of local hashing on a torch device: the same integers, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.ldp._hashing import SMALL_DOMAIN, hash_parameters
from privfair.ldp._protocol import Ints

if TYPE_CHECKING:
    import torch

__all__ = ["support_on_device"]

_REPORTS, _VALUES = 1 << 15, 1 << 7  # of a tile: 32 MiB of 64-bit integers


def support_on_device(
    seeds: NDArray[np.uint64],
    buckets: NDArray[np.uint8],
    k: int,
    g: int,
    device: torch.device,
) -> Ints:
    """Return what :func:`privfair.ldp._hashing.support_of_hashes` returns, bit for bit.

    Integers only, so that no device rounds differently: with 32-bit parameters ``a v + b`` stays
    below 2^49; with 64-bit ones it wraps, and only its upper half is used.
    """
    import torch

    half = 16 if k <= SMALL_DOMAIN else 32
    mask = (1 << half) - 1
    counts = torch.zeros(k, dtype=torch.int64, device=device)
    for start in range(0, len(seeds), _REPORTS):
        part = slice(start, start + _REPORTS)
        a, b = (_signed(x, device)[:, None] for x in hash_parameters(seeds[part], k))
        y = torch.from_numpy(buckets[part].astype(np.int64)).to(device)[:, None]
        for first in range(0, k, _VALUES):
            v = torch.arange(first, min(first + _VALUES, k), device=device)[None, :]
            upper = ((a * v + b) >> half) & mask
            counts[first : first + _VALUES] += (((upper * g) >> half) == y).sum(dim=0)
    return np.asarray(counts.cpu().numpy())


def _signed(words: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return unsigned words as 64-bit integers with the same bits."""
    import torch

    wide = words.astype(np.uint64).view(np.int64)
    return torch.from_numpy(wide.copy()).to(device)
