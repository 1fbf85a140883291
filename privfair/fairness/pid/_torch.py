"""The decomposition on tensors, with gradients, on any device."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from privfair.core.exceptions import (
    ConvergenceWarning,
    InvalidTypeError,
    ProbabilityRangeError,
    SchemaError,
)
from privfair.fairness.pid._tensors import (
    exact_dual_of,
    exact_unique_of,
    general_of,
    rounding_bound_of,
)

__all__ = ["PIDTensors", "pid_torch"]

_TOL = 1e-8  # nats
_WARN = 1e-7  # bits, as pid_from_joint
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
    certificate_gap : Tensor
        Proven bound on the error of each part, in bits; without gradient.
    """

    unique: Tensor
    redundant: Tensor
    masked: Tensor
    unique_client: Tensor
    global_disparity: Tensor
    local_disparity: Tensor
    certificate_gap: Tensor


def pid_torch(P: Tensor) -> PIDTensors:
    """Return the parts of a disparity as differentiable tensors.

    Parameters
    ----------
    P : Tensor of shape (..., n_z, m, K)
        Probabilities over the last three axes (z, yhat, s), any floating type and device; used in
        double precision and divided by their sum.

    Returns
    -------
    PIDTensors
        ``unique, redundant, masked, unique_client, global_disparity, local_disparity`` and
        ``certificate_gap`` in bits.

    Raises
    ------
    InvalidTypeError
        P is not a floating tensor.
    SchemaError
        P has fewer than three axes or an empty one.
    ProbabilityRangeError
        NaN, infinite or negative entries, or a sum that is not 1 within 1e-4.

    Warns
    -----
    ConvergenceWarning
        A certificate is wider than 1e-7 bits after the fallback.

    Notes
    -----
    The gradient is the influence function, in closed form: no derivative passes through a sort
    or a solver. It exists wherever no part is zero and the curves of decision and client do not
    coincide on an interval; elsewhere one of its one-sided limits is used. A cell without mass
    gets the gradient 0 from the terms whose derivative is infinite there. Twice differentiable
    it is not. Everything runs on the tensor's device: for two groups in closed form,
    O((m + K) log(m + K)) per table; for more by Newton steps on the whole batch,
    O((n_z (m + K))^3) each, which tell the host how many tables are open and nothing else. A
    table whose certificate stays above 1e-8 nats is solved again on the host, as a cone program.

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
    unique, gap = _Unique.apply(zy, zs)
    parts = (
        unique,
        decision - unique,
        local - unique,
        client - decision + unique,
        decision,
        local,
        gap,
    )
    if bool((gap > _WARN * math.log(2)).any()):
        warnings.warn(
            f"certificate_gap exceeds {_WARN:g} bits (largest {float(gap.max()) / math.log(2):.1e}"
            "): the parts are right to within it only.",
            ConvergenceWarning,
            stacklevel=2,
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
    """The unique information and its certificate in nats.

    By the envelope theorem the multipliers of the margins are the gradient.
    """

    @staticmethod
    def forward(ctx: Any, zy: Tensor, zs: Tensor) -> tuple[Tensor, Tensor]:
        if zy.shape[1] == 2:
            unique, (alpha, beta) = exact_unique_of(zy, zs)[0], exact_dual_of(zy, zs)
            gap = rounding_bound_of(zy, zs)
        else:
            unique, gap, alpha, beta = general_of(zy, zs, tol=_TOL)
        z, s = zs.sum(dim=2, keepdim=True), zs.sum(dim=1, keepdim=True)
        for_zy = torch.where(zy > 0, alpha - torch.where(z > 0, z, 1.0).log(), 0.0)
        client = torch.where(zs > 0, zs / torch.where(zs > 0, z * s, 1.0), 1.0).log()
        ctx.save_for_backward(for_zy, torch.where(zs > 0, beta - client, 0.0))
        ctx.mark_non_differentiable(gap)
        return unique, gap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        for_zy, for_zs = ctx.saved_tensors
        return grad[:, None, None] * for_zy, grad[:, None, None] * for_zs
