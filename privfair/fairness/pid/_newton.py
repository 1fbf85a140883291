"""The general program by a barrier method, many tables at a time.

For each (y, s) the Hessian over z is a diagonal less a rank-one matrix, so that its inverse is
known; the margins' normal equations couple decisions and clients, are block diagonal within
either, and the longer of the two is eliminated first. docs/fairness-pid.md has the formulas.
Arrays are numpy's with ``xp=numpy``, or tensors on one device with ``xp=torch``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from privfair.fairness.pid._certificate import certify

__all__ = ["Solution", "newton"]

_STEPS = 80
_CELLS = 2_000_000  # doubles of the coupling blocks that are held at once


@dataclass
class Solution:
    """F, its certificate gap and the multipliers, one entry a table; nats."""

    value: Any
    gap: Any
    alpha: Any
    beta: Any


def newton(zy: Any, zs: Any, *, tol: float, xp: Any) -> Solution:
    """Minimise F for a batch of margins P(z,y), (B, Z, m), and P(z,s), (B, Z, K).

    Stops a table when its certificate is at most ``tol`` (nats) or after 80 steps; the best
    certified answer of each is returned.
    """
    if zy.shape[2] > zs.shape[2]:
        turned = newton(zs, zy, tol=tol, xp=xp)
        return Solution(turned.value, turned.gap, turned.beta, turned.alpha)
    count, groups, m = zy.shape
    chunk = max(1, _CELLS // (m * groups * groups * zs.shape[2]))
    with np.errstate(all="ignore"):  # a table that breaks down keeps its last certificate
        pieces = [
            _solve(zy[i : i + chunk], zs[i : i + chunk], tol, xp) for i in range(0, count, chunk)
        ]
    return Solution(
        *(
            xp.concatenate([getattr(piece, name) for piece in pieces])
            for name in ("value", "gap", "alpha", "beta")
        )
    )


def _solve(zy: Any, zs: Any, tol: float, xp: Any) -> Solution:
    z = zy.sum(axis=2)[:, :, None, None]
    Q = zy[..., None] * zs[:, :, None, :] / xp.where(z > 0, z, 1.0)
    cells = float(zy.shape[1] * zy.shape[2] * zs.shape[2])
    mu = 0.1 / cells + 0.0 * z[:, 0, 0, 0]
    best = Solution(*certify(Q, 0.0 * zy, 0.0 * zs, zy, zs, xp))
    active = xp.nonzero(best.gap > tol)
    active = active[0] if isinstance(active, tuple) else active[:, 0]
    Q, mu = Q[active], mu[active]
    for _ in range(_STEPS):
        if len(active) == 0:
            break
        b_y, b_s = zy[active], zs[active]
        step, nu_y, nu_s, decrement = _direction(Q, mu, b_y, b_s, xp)
        usable = xp.isfinite(decrement)
        decrement = xp.where(usable, decrement, 0.0)
        step = xp.where(usable[:, None, None, None], step, 0.0)
        Q = Q + _length(Q, step, decrement, xp)[:, None, None, None] * step
        found = certify(Q, -nu_y, -nu_s, b_y, b_s, xp)
        better = usable & (found[1] < best.gap[active])
        chosen = active[better]
        for name, new in zip(("value", "gap", "alpha", "beta"), found, strict=True):
            getattr(best, name)[chosen] = new[better]
        centred = decrement < 0.5
        last = 0.1 * tol / cells
        spent = centred & (mu <= last)  # nothing is gained below the last barrier
        mu = xp.where(centred, xp.where(mu > 10 * last, 0.1 * mu, last), mu)
        keep = usable & ~spent & (best.gap[active] > tol)
        active, Q, mu = active[keep], Q[keep], mu[keep]
    return best


def _length(Q: Any, step: Any, decrement: Any, xp: Any) -> Any:
    """Return the step length: damped far from the central path, inside the positive orthant."""
    ratio = xp.amax(-step / xp.where(Q > 0, Q, 1.0), axis=(1, 2, 3))
    ratio = xp.where(ratio > 1e-300, ratio, 1e-300)
    half, most = 0.5 / ratio, 0.99 / ratio
    damped = 1 / (1 + decrement)
    damped = xp.where(damped > half, damped, half)
    length = xp.where(decrement < 0.3, 1.0, xp.where(damped < 1.0, damped, 1.0))
    return xp.where(length < most, length, most)


def _direction(Q: Any, mu: Any, zy: Any, zs: Any, xp: Any) -> tuple[Any, Any, Any, Any]:
    """Return the Newton step, the margins' multipliers and the Newton decrement."""
    count, groups, m, K = Q.shape
    weight = mu[:, None, None, None]
    seen = Q > 0
    safe = xp.where(seen, Q, 1.0)
    q = xp.where(seen, Q.sum(axis=1)[:, None], 1.0)
    slope = xp.where(seen, xp.log(safe / q) - weight / safe, 0.0)
    # Inverse Hessian: diag(d) + d d' / den; den is q - sum d, in a form that does not cancel.
    d = Q * (Q / (Q + weight))
    den = (weight * (Q / (Q + weight))).sum(axis=1)[:, None]
    scaled = d / xp.where(den > 0, den, 1.0)

    def inverse(v: Any) -> Any:
        return d * v + scaled * (d * v).sum(axis=1)[:, None]

    eye = xp.where(_identity(groups, d, xp) > 0, 1.0, 0.0)
    by_y = xp.einsum("bzyk,bwyk->byzw", scaled, d) + d.sum(axis=3).swapaxes(1, 2)[..., None] * eye
    by_s = xp.einsum("bzyk,bwyk->bkzw", scaled, d) + d.sum(axis=2).swapaxes(1, 2)[..., None] * eye
    by_s = by_s + xp.where(zs > 0, 0.0, 1.0).swapaxes(1, 2)[..., None] * eye
    cross = xp.einsum("bzyk,bwyk->bkzyw", scaled, d)
    cross = cross + xp.einsum("bzyk,zw->bkzyw", d, eye)
    cross = cross.reshape(count, K, groups, m * groups)

    moved = inverse(slope)
    for_y = -moved.sum(axis=3) - (zy - Q.sum(axis=3))
    for_s = -moved.sum(axis=2) - (zs - Q.sum(axis=2))
    for_y = for_y.swapaxes(1, 2).reshape(count, m * groups, 1)
    for_s = for_s.swapaxes(1, 2)[..., None]

    solved = _solve_quietly(by_s, xp.concatenate([cross, for_s], axis=3), xp)
    flat = cross.reshape(count, K * groups, m * groups).swapaxes(1, 2)
    eliminated = flat @ solved.reshape(count, K * groups, m * groups + 1)
    system = _block_diagonal(by_y, xp) - eliminated[..., :-1]
    right = for_y - eliminated[..., -1:]

    # One decision's equation per group follows from the others, and empty cells have none.
    largest = zy >= xp.amax(zy, axis=2)[..., None]
    first = largest & (largest.cumsum(axis=2) == 1)
    free = ((zy > 0) & ~first).swapaxes(1, 2).reshape(count, m * groups)
    both = free[:, :, None] & free[:, None, :]
    unit = _identity(m * groups, d, xp)
    system = xp.where(both, system, 0.0) + xp.where(free[:, None, :], 0.0, unit)
    right = xp.where(free[..., None], right, 0.0)
    diagonal = (system * unit).sum(axis=2)
    scale = xp.where(diagonal > 0, xp.abs(diagonal) + 1e-300, 1.0) ** -0.5
    system = system * scale[:, :, None] * scale[:, None, :]
    right = right * scale[..., None]
    nu = _solve_quietly(system, right, xp)
    nu = nu + _solve_quietly(system, right - system @ nu, xp)
    nu = nu * scale[..., None]
    nu_s = solved[..., -1] - (solved[..., :-1] @ nu[:, None])[..., 0]
    nu_y = nu.reshape(count, m, groups).swapaxes(1, 2)
    nu_s = nu_s.swapaxes(1, 2)
    total = xp.where(seen, slope + nu_y[..., None] + nu_s[:, :, None, :], 0.0)
    step = -inverse(total)
    decrement = xp.sqrt(xp.abs((total * step).sum(axis=(1, 2, 3))) / mu)
    return step, nu_y, nu_s, decrement


def _identity(size: int, like: Any, xp: Any) -> Any:
    if hasattr(like, "device") and xp.__name__ == "torch":
        return xp.eye(size, dtype=like.dtype, device=like.device)
    return xp.eye(size)


def _block_diagonal(blocks: Any, xp: Any) -> Any:
    """Return (B, m Z, m Z) with the (B, m, Z, Z) blocks on its diagonal."""
    count, m, groups, _ = blocks.shape
    spread = blocks[:, :, :, None, :] * _identity(m, blocks, xp)[:, None, :, None]
    return spread.reshape(count, m * groups, m * groups)


def _solve_quietly(system: Any, right: Any, xp: Any) -> Any:
    """Solve; a batch with a singular system is solved one by one, the bad ones become NaN."""
    try:
        return xp.linalg.solve(system, right)
    except (xp.linalg.LinAlgError, RuntimeError):
        if len(system) == 1:
            return right * float("nan")
        return xp.concatenate(
            [_solve_quietly(system[i : i + 1], right[i : i + 1], xp) for i in range(len(system))]
        )
