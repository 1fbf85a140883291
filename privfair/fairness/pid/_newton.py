"""The general program by a barrier method, many tables at a time.

For each (y, s) the Hessian over z is a diagonal less a rank-one matrix, so that its inverse is
known; the margins' normal equations couple decisions and clients, are block diagonal within
either, and the longer of the two is eliminated first. docs/fairness-pid.md has the formulas.
Arrays are numpy's with ``xp=numpy``, or tensors on one device with ``xp=torch``; from there one
number a step leaves the device, how many tables are still open.
"""

from __future__ import annotations

from collections.abc import Callable
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
    open_ = best.gap > tol
    active = _first(open_, int(open_.sum()), xp)
    Q, mu = Q[active], mu[active]
    last = 0.1 * tol / cells
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
        for name, new in zip(("value", "gap", "alpha", "beta"), found, strict=True):
            kept = getattr(best, name)
            wide = better.reshape(-1, *[1] * (new.ndim - 1))
            kept[active] = xp.where(wide, new, kept[active])
        centred = decrement < 0.5
        spent = centred & (mu <= last)  # nothing is gained below the last barrier
        mu = xp.where(centred, xp.where(mu > 10 * last, 0.1 * mu, last), mu)
        keep = usable & ~spent & (best.gap[active] > tol)
        left = int(keep.sum())
        if left < len(active):
            rest = _first(keep, left, xp)
            active, Q, mu = active[rest], Q[rest], mu[rest]
    return best


def _first(flags: Any, count: int, xp: Any) -> Any:
    """Return the positions of the ``count`` flags that are set."""
    if xp is np:
        return np.flatnonzero(flags)
    return xp.argsort(xp.where(flags, 0, 1), stable=True)[:count]


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

    by_client = _solver(by_s, xp)
    solved = by_client(xp.concatenate([cross, for_s], axis=3))
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
    diagonal = (system * unit).sum(axis=2)
    scale = xp.where(diagonal > 0, xp.abs(diagonal) + 1e-300, 1.0) ** -0.5
    reduced = _solver(system * scale[:, :, None] * scale[:, None, :], xp)

    def multipliers(right: Any, rest: Any) -> tuple[Any, Any]:
        nu = reduced(xp.where(free[..., None], right, 0.0) * scale[..., None]) * scale[..., None]
        nu_s = rest[..., 0] - (solved[..., :-1] @ nu[:, None])[..., 0]
        return nu.reshape(count, m, groups).swapaxes(1, 2), nu_s.swapaxes(1, 2)

    nu_y, nu_s = multipliers(right, solved[..., -1:])
    # Refined by what the step misses of the margins: unlike the system, whose entries span the
    # range of 1 / mu, that is known to rounding.
    step = -inverse(_total(slope, nu_y, nu_s, seen, xp))
    for_y = Q.sum(axis=3) + step.sum(axis=3) - zy
    for_s = Q.sum(axis=2) + step.sum(axis=2) - zs
    rest = by_client(for_s.swapaxes(1, 2)[..., None])
    for_y = for_y.swapaxes(1, 2).reshape(count, m * groups, 1)
    more_y, more_s = multipliers(for_y - flat @ rest.reshape(count, K * groups, 1), rest)
    nu_y, nu_s = nu_y + more_y, nu_s + more_s
    total = _total(slope, nu_y, nu_s, seen, xp)
    step = -inverse(total)
    decrement = xp.sqrt(xp.abs((total * step).sum(axis=(1, 2, 3))) / mu)
    return step, nu_y, nu_s, decrement


def _total(slope: Any, nu_y: Any, nu_s: Any, seen: Any, xp: Any) -> Any:
    return xp.where(seen, slope + nu_y[..., None] + nu_s[:, :, None, :], 0.0)


def _identity(size: int, like: Any, xp: Any) -> Any:
    if hasattr(like, "device") and xp.__name__ == "torch":
        return xp.eye(size, dtype=like.dtype, device=like.device)
    return xp.eye(size)


def _block_diagonal(blocks: Any, xp: Any) -> Any:
    """Return (B, m Z, m Z) with the (B, m, Z, Z) blocks on its diagonal."""
    count, m, groups, _ = blocks.shape
    spread = blocks[:, :, :, None, :] * _identity(m, blocks, xp)[:, None, :, None]
    return spread.reshape(count, m * groups, m * groups)


def _solver(system: Any, xp: Any) -> Callable[[Any], Any]:
    """Return a function that solves for right sides; singular systems give NaN."""
    if xp is np:
        return lambda right: _solve_quietly(system, right)
    factors, pivots, info = xp.linalg.lu_factor_ex(system)
    bad = (info != 0)[..., None, None]
    return lambda right: xp.where(bad, float("nan"), xp.linalg.lu_solve(factors, pivots, right))


def _solve_quietly(system: Any, right: Any) -> Any:
    """Solve; a batch with a singular system is solved one by one, the bad ones become NaN."""
    try:
        return np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        if len(system) == 1:
            return right * float("nan")
        return np.concatenate(
            [_solve_quietly(system[i : i + 1], right[i : i + 1]) for i in range(len(system))]
        )
