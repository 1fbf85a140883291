"""The kernels of the decomposition on tensors; each equals its numpy namesake."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privfair.core.device import resolve_device
from privfair.fairness.pid._information import Table
from privfair.fairness.pid._newton import Solution, newton

__all__ = ["device_of", "exact_dual_of", "exact_unique_of", "exact_unique_on", "newton_on"]

_TIE = 1e-15


def device_of(P: Any, device: str | None) -> torch.device:
    """Return where to compute: the named device, else the tensor's, else the best one."""
    if device is None and isinstance(P, Tensor):
        return P.device
    return resolve_device("auto" if device is None else device)


def exact_unique_on(zy: Table, zs: Table, device: torch.device) -> tuple[Table, Table]:
    """Return ``exact_unique`` of numpy tables, computed on a device in double precision."""
    put = [torch.as_tensor(a, dtype=torch.float64, device=device) for a in (zy, zs)]
    unique, unique_client = exact_unique_of(*put)
    return unique.cpu().numpy(), unique_client.cpu().numpy()


def exact_unique_of(zy: Tensor, zs: Tensor) -> tuple[Tensor, Tensor]:
    """Return unique informations (B,) of P(z,yhat) and P(z,s), as ``exact_unique`` does."""
    left, right, at_left, at_right, middle, _ = _segments(zy, zs)
    crosses = (at_left * at_right) < 0
    down, up = crosses & (at_left < at_right), crosses & (at_left > at_right)
    unique = _integral(
        torch.where(down, middle, left),
        torch.where(up, middle, right),
        at_left.clamp(min=0),
        at_right.clamp(min=0),
    )
    unique_client = _integral(
        torch.where(up, middle, left),
        torch.where(down, middle, right),
        (-at_left).clamp(min=0),
        (-at_right).clamp(min=0),
    )
    return unique.sum(dim=-1), unique_client.sum(dim=-1)


def _segments(zy: Tensor, zs: Tensor, extra: Tensor | None = None) -> tuple[Tensor, ...]:
    sign = torch.ones(zy.shape[2] + zs.shape[2], dtype=zy.dtype, device=zy.device)
    sign[zy.shape[2] :] = -1.0
    ones = torch.cat([zy[:, 1], zs[:, 1]], dim=1)
    mass = torch.cat([zy.sum(dim=1), zs.sum(dim=1)], dim=1)
    posterior = torch.where(mass > 0, ones / torch.where(mass > 0, mass, 1.0), 0.0)
    ones, mass = ones * sign, mass * sign
    if extra is not None:
        posterior = torch.cat([posterior, extra], dim=1)
        ones, mass = (torch.cat([a, torch.zeros_like(extra)], dim=1) for a in (ones, mass))
    knots, order = torch.sort(posterior, dim=1, stable=True)
    above = ones.gather(1, order).flip(1).cumsum(1).flip(1)
    total = mass.gather(1, order).flip(1).cumsum(1).flip(1)
    gap = above - knots * total
    gap = torch.where((gap.abs() < _TIE) | (knots <= 0) | (knots >= 1), 0.0, gap)
    edge = torch.zeros_like(knots[:, :1])
    left, right = torch.cat([edge, knots], dim=1), torch.cat([knots, edge + 1.0], dim=1)
    at_left, at_right = torch.cat([edge, gap], dim=1), torch.cat([gap, edge], dim=1)
    size = at_left.abs() + at_right.abs()
    middle = left + (right - left) * at_left.abs() / torch.where(size > 0, size, 1.0)
    return left, right, at_left, at_right, middle, order


def _integral(left: Tensor, right: Tensor, at_left: Tensor, at_right: Tensor) -> Tensor:
    width = right - left
    some = (width > 0) & ((at_left > 0) | (at_right > 0))
    width = torch.where(some, width, 1.0)
    low, high = some & (left > 0), some & (right < 1)
    at_zero = torch.where(low, at_left * right - at_right * left, 0.0) / width
    at_one = torch.where(high, at_right * (1 - left) - at_left * (1 - right), 0.0) / width
    rise = torch.where(low, width / torch.where(low, left, 1.0), 0.0).log1p()
    fall = torch.where(high, -width / torch.where(high, 1 - left, 1.0), 0.0).log1p()
    return at_zero * rise - at_one * fall


def newton_on(zy: Table, zs: Table, device: torch.device, *, tol: float) -> Solution:
    """Return ``newton`` of numpy margins, computed on a device, as numpy arrays."""
    put = [torch.as_tensor(a, dtype=torch.float64, device=device) for a in (zy, zs)]
    found = newton(*put, tol=tol, xp=torch)
    return Solution(
        *(getattr(found, name).cpu().numpy() for name in ("value", "gap", "alpha", "beta"))
    )


def exact_dual_of(zy: Tensor, zs: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha (B, 2, m) and beta (B, 2, K) of the union information, as ``exact_dual``."""
    m = zy.shape[2]
    z = zy.sum(dim=2)
    left, right, at_left, at_right, middle, order = _segments(zy, zs, z[:, 1:])
    crosses = (at_left * at_right) < 0
    above = (at_left > 0) | (at_right > 0)
    start = torch.where(above, torch.where(crosses & (at_left < 0), middle, left), 1.0)
    stop = torch.where(above, torch.where(crosses & (at_right < 0), middle, right), 1.0)
    rank = order.argsort(dim=1)

    def reach(lows: Tensor, highs: Tensor) -> Tensor:
        out = []
        for a, b in ((1 - lows, 1 - highs), (lows, highs)):
            finite = (a > 0) & (b > 0)
            steps = torch.where(finite, b / torch.where(finite, a, 1.0), 1.0).log()
            at = steps.cumsum(dim=1)[:, :-1].gather(1, rank)
            out.append(at[:, :-1] - at[:, -1:])
        return torch.stack(out, dim=1)

    decision = reach(start, stop)
    rest = reach(left, right) - decision
    log_z = torch.where(z > 0, z, 1.0).log()[:, :, None]
    none = -float("inf")
    alpha = torch.where(zy > 0, decision[:, :, :m] + log_z, none)
    return alpha, torch.where(zs > 0, rest[:, :, m:], none)
