"""The kernels of the decomposition on tensors; each equals its numpy namesake."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privfair.core.device import resolve_device
from privfair.fairness.pid._information import Table
from privfair.fairness.pid._newton import Solution, newton

__all__ = [
    "device_of",
    "exact_dual_of",
    "exact_unique_of",
    "exact_unique_on",
    "general_of",
    "newton_on",
    "rounding_bound_of",
]

_TIE = 1e-15
_EPS = torch.finfo(torch.float64).eps


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


def rounding_bound_of(zy: Tensor, zs: Tensor) -> Tensor:
    """Return a bound (B,) on the error of ``exact_unique_of`` in nats, as ``rounding_bound``."""
    mass = torch.cat([zy.sum(dim=1), zs.sum(dim=1)], dim=1)
    ones = torch.cat([zy[:, 1], zs[:, 1]], dim=1)
    posterior = torch.where(mass > 0, ones / torch.where(mass > 0, mass, 1.0), 0.0)
    inner = (posterior > 0) & (posterior < 1)
    odds = torch.where(inner, posterior, 0.5).logit().abs()
    return 8.0 * _EPS * (mass.shape[1] + 4.0) * (2.0 * odds.amax(dim=1) + 4.0)


def general_of(zy: Tensor, zs: Tensor, *, tol: float) -> tuple[Tensor, ...]:
    """Return unique information, certificate (B,), alpha and beta for more than two groups.

    Tables in which two groups have members have the exact answer; where Newton's certificate is
    wider than ``tol``, the cone program is solved on the host as well and the better one kept.
    """
    if zy.shape[1] == 1:
        padded = (torch.cat([a, torch.zeros_like(a)], dim=1) for a in (zy, zs))
        unique, gap, alpha, beta = general_of(*padded, tol=tol)
        return unique, gap, alpha[:, :1], beta[:, :1]
    two = (zy.sum(dim=2) > 0).sum(dim=1) <= 2
    alpha, beta = torch.full_like(zy, -float("inf")), torch.full_like(zs, -float("inf"))
    unique, gap = torch.zeros_like(zy[:, 0, 0]), torch.zeros_like(zy[:, 0, 0])
    exact, rest = torch.nonzero(two)[:, 0], torch.nonzero(~two)[:, 0]
    if len(exact):
        empty = torch.where(zy[exact].sum(dim=2) > 0, 0, 1)
        pair = empty.argsort(dim=1, stable=True)[:, :2].sort(dim=1).values[:, :, None]
        at_y, at_s = pair.expand(-1, -1, zy.shape[2]), pair.expand(-1, -1, zs.shape[2])
        some = zy[exact].gather(1, at_y), zs[exact].gather(1, at_s)
        unique[exact], gap[exact] = exact_unique_of(*some)[0], rounding_bound_of(*some)
        duals = exact_dual_of(*some)
        alpha[exact] = alpha[exact].scatter(1, at_y, duals[0])
        beta[exact] = beta[exact].scatter(1, at_s, duals[1])
    if len(rest):
        found = _newton_or_cone(zy[rest], zs[rest], tol)
        s = zs[rest].sum(dim=1)
        h_s, h_zs = (torch.special.xlogy(p, p).flatten(1).sum(dim=1) for p in (s, zs[rest]))
        # F* + H(Z) - I(Z;S), the entropies taken together
        unique[rest] = (found.value + h_s - h_zs).clamp(min=0.0)
        gap[rest], alpha[rest], beta[rest] = found.gap, found.alpha, found.beta
    return unique, gap, alpha, beta


def _newton_or_cone(zy: Tensor, zs: Tensor, tol: float) -> Solution:
    found = newton(zy, zs, tol=tol, xp=torch)
    late = torch.nonzero(found.gap > tol)[:, 0]
    if len(late):
        from privfair.fairness.pid._cone import cone

        second = cone(*(a[late].cpu().numpy() for a in (zy, zs)), tol=tol)
        put = {
            name: torch.as_tensor(getattr(second, name), dtype=zy.dtype, device=zy.device)
            for name in ("value", "gap", "alpha", "beta")
        }
        better = put["gap"] < found.gap[late]
        for name, new in put.items():
            getattr(found, name)[late[better]] = new[better]
    return found
