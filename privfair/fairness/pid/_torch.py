"""The decomposition on tensors, with gradients, on any device."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from privfair.core.device import resolve_device
from privfair.core.exceptions import InvalidTypeError, ProbabilityRangeError, SchemaError
from privfair.fairness.pid._exact import exact_dual
from privfair.fairness.pid._information import Table

__all__ = ["PIDTensors", "device_of", "exact_unique_on", "pid_torch"]

_TIE = 1e-15
# In single precision a softmax sums to 1 only to about this.
_SUM = 1e-4


class PIDTensors(NamedTuple):
    """Parts of a disparity in bits, each a tensor of the batch's shape, in double precision.

    Attributes
    ----------
    unique, redundant, masked, unique_client : Tensor
        The four parts of I(Z;(Yhat,S)), see :class:`PIDResult`.
    global_disparity, local_disparity : Tensor
        I(Z;Yhat) and I(Z;Yhat|S).
    """

    unique: Tensor
    redundant: Tensor
    masked: Tensor
    unique_client: Tensor
    global_disparity: Tensor
    local_disparity: Tensor


def pid_torch(P: Tensor) -> PIDTensors:
    """Return the parts of a disparity as differentiable tensors.

    Parameters
    ----------
    P : Tensor of shape (..., |Z|, m, K)
        Probabilities over the last three axes (z, yhat, s), any floating type and device; used in
        double precision and divided by their sum.

    Returns
    -------
    PIDTensors
        ``unique, redundant, masked, unique_client, global_disparity, local_disparity`` in bits.

    Raises
    ------
    InvalidTypeError
        P is not a floating tensor.
    SchemaError
        P has fewer than three axes or an empty one.
    ProbabilityRangeError
        NaN, infinite or negative entries, or a sum that is not 1 within 1e-4.

    Notes
    -----
    The gradient is the influence function, in closed form: no derivative passes through a sort
    or a solver. It exists wherever no part is zero and the curves of decision and client do not
    coincide on an interval; elsewhere one of its one-sided limits is used. A cell without mass
    gets the gradient 0 from the terms whose derivative is infinite there. Twice differentiable
    it is not. For two groups everything runs on the tensor's device; for more, the solver runs
    on the host. O((m + K) log(m + K)) per table for two groups.

    References
    ----------
    Bertschinger et al. 2014, Entropy 16; Hamman and Dutta 2024, arXiv:2307.11333.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[[1.0, 0.0], [0.0, 0.5]], [[0.0, 0.3], [1.0, 1.0]]])
    >>> _ = logits.requires_grad_()
    >>> parts = pid_torch(logits.flatten().softmax(0).reshape(2, 2, 2))
    >>> (parts.unique + parts.redundant).backward()
    >>> bool(logits.grad.abs().sum() > 0)
    True
    """
    if not isinstance(P, Tensor) or not P.is_floating_point():
        raise InvalidTypeError(
            "P must be a floating-point tensor; use pid_from_joint for arrays and lists."
        )
    if P.ndim < 3 or 0 in P.shape:
        raise SchemaError(
            f"P must have shape (..., |Z|, m, K) without empty axes, got {tuple(P.shape)}."
        )
    P = P.double()
    total = P.sum(dim=(-3, -2, -1), keepdim=True)
    with torch.no_grad():
        bad = ~torch.isfinite(P).all() | (P < 0).any() | ((total - 1).abs() > _SUM).any()
        if bool(bad):
            raise ProbabilityRangeError(
                "P must hold finite probabilities of at least 0 that sum to 1 within 1e-4 over "
                "(z, yhat, s)."
            )
    shape = P.shape[:-3]
    P = (P / total).reshape(-1, *P.shape[-3:])
    zy, zs = P.sum(dim=3), P.sum(dim=2)
    z, y, s = zy.sum(dim=2), zy.sum(dim=1), zs.sum(dim=1)
    h_z, h_zy, h_zs = _x_log_x(z), _x_log_x(zy), _x_log_x(zs)
    decision = h_zy - h_z - _x_log_x(y)
    client = h_zs - h_z - _x_log_x(s)
    local = _x_log_x(P) + _x_log_x(s) - h_zs - _x_log_x(P.sum(dim=1))
    unique: Tensor = _Unique.apply(zy, zs)
    parts = (
        unique,
        decision - unique,
        local - unique,
        client - decision + unique,
        decision,
        local,
    )
    return PIDTensors(*((part / math.log(2)).reshape(shape) for part in parts))


def _x_log_x(p: Tensor) -> Tensor:
    flat = p.reshape(len(p), -1)
    out: Tensor = _XLogX.apply(flat)
    return out


class _XLogX(torch.autograd.Function):
    """sum x log x over the last axis; the gradient at 0, which is infinite, is set to 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.special.xlogy(x, x).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        seen = x > 0
        slope = torch.where(seen, torch.where(seen, x, 1.0).log() + 1.0, 0.0)
        return grad[:, None] * slope


class _Unique(torch.autograd.Function):
    """The unique information in nats, with the multipliers of its margins as gradient."""

    @staticmethod
    def forward(ctx: Any, zy: Tensor, zs: Tensor) -> Tensor:
        if zy.shape[1] == 2:
            unique, _ = exact_unique_on_tensors(zy, zs)
            slopes = _slopes(zy, zs)
        else:
            raise SchemaError("P: more than two groups are not supported yet.")
        ctx.save_for_backward(*slopes)
        return unique

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        for_zy, for_zs = ctx.saved_tensors
        return grad[:, None, None] * for_zy, grad[:, None, None] * for_zs


def device_of(P: Any, device: str | None) -> torch.device:
    """Return where to compute: the named device, else the tensor's, else the best one."""
    if device is None and isinstance(P, Tensor):
        return P.device
    return resolve_device("auto" if device is None else device)


def exact_unique_on(zy: Table, zs: Table, device: torch.device) -> tuple[Table, Table]:
    """Return ``exact_unique`` of numpy tables, computed on a device in double precision."""
    put = [torch.as_tensor(a, dtype=torch.float64, device=device) for a in (zy, zs)]
    unique, unique_client = exact_unique_on_tensors(*put)
    return np.asarray(unique.cpu()), np.asarray(unique_client.cpu())


def exact_unique_on_tensors(zy: Tensor, zs: Tensor) -> tuple[Tensor, Tensor]:
    """Return unique informations (B,) of P(z,yhat) and P(z,s), as ``exact_unique`` does."""
    left, right, at_left, at_right = _segments(zy, zs)
    size = at_left.abs() + at_right.abs()
    middle = left + (right - left) * at_left.abs() / torch.where(size > 0, size, 1.0)
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


def _segments(zy: Tensor, zs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sign = torch.ones(zy.shape[2] + zs.shape[2], dtype=zy.dtype, device=zy.device)
    sign[zy.shape[2] :] = -1.0
    ones = torch.cat([zy[:, 1], zs[:, 1]], dim=1)
    mass = torch.cat([zy.sum(dim=1), zs.sum(dim=1)], dim=1)
    knots, order = torch.sort(
        torch.where(mass > 0, ones / torch.where(mass > 0, mass, 1.0), 0.0), dim=1, stable=True
    )
    above = (ones * sign).gather(1, order).flip(1).cumsum(1).flip(1)
    total = (mass * sign).gather(1, order).flip(1).cumsum(1).flip(1)
    gap = above - knots * total
    gap = torch.where((gap.abs() < _TIE) | (knots <= 0) | (knots >= 1), 0.0, gap)
    edge = torch.zeros_like(knots[:, :1])
    return (
        torch.cat([edge, knots], dim=1),
        torch.cat([knots, edge + 1.0], dim=1),
        torch.cat([edge, gap], dim=1),
        torch.cat([gap, edge], dim=1),
    )


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


def _slopes(zy: Tensor, zs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the unique information (nats) by P(z,yhat) and by P(z,s)."""
    alpha, beta = exact_dual(*(np.asarray(a.detach().cpu()) for a in (zy, zs)))
    z, s = zs.sum(dim=2, keepdim=True), zs.sum(dim=1, keepdim=True)
    put = [torch.as_tensor(a, dtype=zy.dtype, device=zy.device) for a in (alpha, beta)]
    for_zy = torch.where(zy > 0, put[0] - torch.where(z > 0, z, 1.0).log(), 0.0)
    ratio = torch.where(zs > 0, zs / (z * s), 1.0).log()
    return for_zy, torch.where(zs > 0, put[1] - ratio, 0.0)
