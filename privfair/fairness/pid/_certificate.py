"""Bounds that prove how good an answer to the general program is, whoever found it.

The program: minimise F(Q) = sum Q log(Q(z,y,s) / Q(y,s)) over Q >= 0 with the margins P(z,y) and
P(z,s). Any Q with these margins bounds the optimum from above; any alpha(z,y), beta(z,s) with
sum_z exp(alpha + beta) <= 1 for all (y,s) bound it from below by sum P alpha + sum P beta.
Every function here takes numpy arrays with ``xp=numpy`` or tensors with ``xp=torch``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["certify", "feasible", "objective", "shifted"]

_EPS = 2.220446049250313e-16


def objective(Q: Any, xp: Any) -> Any:
    """Return F(Q) in nats for Q of shape (B, Z, m, K)."""
    q = Q.sum(axis=1)[:, None]
    seen = Q > 0
    ratio = xp.where(seen, Q, 1.0) / xp.where(seen, q, 1.0)
    return (Q * xp.log(ratio)).sum(axis=(1, 2, 3))


def feasible(Q: Any, zy: Any, zs: Any, xp: Any) -> Any:
    """Return a Q >= 0 near the given one whose margins are P(z,y) and P(z,s) to rounding.

    Rows and then columns with too much mass are scaled down; what is missing is added as a
    product of the missing margins (Altschuler, Weed, Rigollet 2017, arXiv:1705.09634).
    """
    for axis, target in ((3, zy[..., None]), (2, zs[:, :, None, :])):
        have = Q.sum(axis=axis)
        have = have[..., None] if axis == 3 else have[:, :, None, :]
        share = target / xp.where(have > target, have, 1.0)
        Q = Q * xp.where(have > target, share, 1.0)
    rows, columns = zy - Q.sum(axis=3), zs - Q.sum(axis=2)
    rows, columns = xp.where(rows > 0, rows, 0.0), xp.where(columns > 0, columns, 0.0)
    lacking = rows.sum(axis=2)[..., None]
    rows = rows / xp.where(lacking > 0, lacking, 1.0)
    return Q + rows[..., None] * columns[:, :, None, :]


def shifted(alpha: Any, beta: Any, zy: Any, zs: Any, xp: Any) -> tuple[Any, Any]:
    """Return multipliers moved onto the feasible set: down where too large, up where slack.

    Entries of cells without mass become minus infinity: no Q has mass there.
    """
    none = -float("inf")
    alpha = xp.where(zy > 0, alpha, none)
    beta = xp.where(zs > 0, beta, none)
    for block in (3, 2):  # alpha first, over all s; then beta, over all y
        total = alpha[:, :, :, None] + beta[:, :, None, :]
        top = xp.amax(total, axis=1)
        top = xp.where(top > none, top, 0.0)
        excess = xp.log(xp.exp(total - top[:, None]).sum(axis=1) + 1e-300) + top
        excess = xp.where((total > none).any(axis=1), excess, none)
        most = xp.amax(excess, axis=block - 1)
        most = xp.where(most > none, most, 0.0)[:, None]
        if block == 3:
            alpha = alpha - most
        else:
            beta = beta - most
    return alpha, beta


def certify(Q: Any, alpha: Any, beta: Any, zy: Any, zs: Any, xp: Any) -> tuple[Any, ...]:
    """Return the best value proven by Q, its gap, and the multipliers made feasible, by table.

    Returns
    -------
    value : (B,)
        F of a Q with the right margins, nats.
    gap : (B,)
        At least ``value`` less the optimum, rounding included, nats.
    alpha, beta : (B, Z, m), (B, Z, K)
    """
    value = objective(feasible(Q, zy, zs, xp), xp)
    alpha, beta = shifted(alpha, beta, zy, zs, xp)
    for_zy, for_zs = xp.where(zy > 0, alpha, 0.0), xp.where(zs > 0, beta, 0.0)
    bound = (zy * for_zy).sum(axis=(1, 2)) + (zs * for_zs).sum(axis=(1, 2))
    # Rounding: of the sums, and of the logarithms whose size the multipliers bound.
    size = 1.0 + xp.amax(xp.abs(for_zy), axis=(1, 2)) + xp.amax(xp.abs(for_zs), axis=(1, 2))
    slack = 4.0 * _EPS * (Q.shape[1] * Q.shape[2] * Q.shape[3] + 16.0) * size
    gap = value - bound
    return value, xp.where(gap > 0, gap, 0.0) + slack, alpha, beta
