"""The decomposition for two groups, exactly: a maximum of two hockey-stick curves.

For binary Z the curve G_A(tau) = sum_j max(P(Z=1, A=j) - tau P(A=j), 0) determines what an
experiment A says about Z, and the least informative pair (Yhat, S) with the given margins has
the curve max(G_Yhat, G_S). See docs/proofs/pid-exact.md.
"""

from __future__ import annotations

import numpy as np

from privfair.fairness.pid._information import Table

__all__ = ["exact_dual", "exact_unique", "rounding_bound"]

# A difference of the two curves below this is rounding (their values are sums of at most 1).
_TIE = 1e-15


def exact_unique(zy: Table, zs: Table) -> tuple[Table, Table]:
    """Return the unique information of the decision and of the client, in nats.

    Parameters
    ----------
    zy : ndarray of shape (B, 2, m)
        P(z, yhat).
    zs : ndarray of shape (B, 2, K)
        P(z, s).

    Returns
    -------
    unique, unique_client : ndarray of shape (B,)
        Integrals of the positive and of the negative part of G_Yhat - G_S over
        dtau / (tau (1 - tau)), each added up on its own.

    Notes
    -----
    O((m + K) log(m + K)) time per table and O(m + K) memory: the difference of the curves is
    linear between two posteriors P(Z=1|A=j), and its value at each comes from sums over the
    sorted posteriors. No loop over the batch.
    """
    left, right, at_left, at_right, middle = _segments(zy, zs)
    up, down = at_left > at_right, at_left < at_right
    crosses = (at_left * at_right) < 0
    # The positive part lies left of the crossing if the difference falls, else right of it.
    unique = _integral(
        np.where(crosses & down, middle, left),
        np.where(crosses & up, middle, right),
        np.maximum(at_left, 0),
        np.maximum(at_right, 0),
    )
    unique_client = _integral(
        np.where(crosses & up, middle, left),
        np.where(crosses & down, middle, right),
        np.maximum(-at_left, 0),
        np.maximum(-at_right, 0),
    )
    return unique.sum(axis=-1), unique_client.sum(axis=-1)


def _posteriors(zy: Table, zs: Table) -> tuple[Table, Table, Table]:
    """Return P(Z=1|A=j) of all symbols, and their signed masses; minus is for the client."""
    ones = np.concatenate([zy[:, 1], zs[:, 1]], axis=-1)
    mass = np.concatenate([zy.sum(axis=1), zs.sum(axis=1)], axis=-1)
    posterior = np.divide(ones, mass, out=np.zeros_like(ones), where=mass > 0)
    sign = np.ones(mass.shape[-1])
    sign[zy.shape[-1] :] = -1.0
    return posterior, ones * sign, mass * sign


def _segments(
    zy: Table, zs: Table, extra: Table | None = None
) -> tuple[Table, Table, Table, Table, Table]:
    """Return ends, values of the curves' difference at them, and crossings, by segment.

    ``extra`` (B, 1) is one more knot, of no mass.
    """
    posterior, ones, mass = _posteriors(zy, zs)
    if extra is not None:
        posterior = np.concatenate([posterior, extra], axis=-1)
        ones = np.concatenate([ones, np.zeros_like(extra)], axis=-1)
        mass = np.concatenate([mass, np.zeros_like(extra)], axis=-1)
    order = np.argsort(posterior, axis=-1, kind="stable")
    knots = np.take_along_axis(posterior, order, axis=-1)
    # Symbols with a posterior above the knot; those at the knot add nothing.
    ones = np.cumsum(np.take_along_axis(ones, order, axis=-1)[:, ::-1], axis=-1)[:, ::-1]
    mass = np.cumsum(np.take_along_axis(mass, order, axis=-1)[:, ::-1], axis=-1)[:, ::-1]
    gap = ones - knots * mass
    gap[(np.abs(gap) < _TIE) | (knots <= 0) | (knots >= 1)] = 0.0
    edge = np.zeros((len(knots), 1))
    left, right = np.hstack([edge, knots]), np.hstack([knots, edge + 1.0])
    at_left, at_right = np.hstack([edge, gap]), np.hstack([gap, edge])
    size = np.abs(at_left) + np.abs(at_right)
    share = np.divide(np.abs(at_left), size, out=np.zeros_like(size), where=size > 0)
    return left, right, at_left, at_right, left + (right - left) * share


def _integral(left: Table, right: Table, at_left: Table, at_right: Table) -> Table:
    """Return the integral of a linear function over dtau / (tau (1 - tau)), by segment.

    With the function written as A + B tau it is A log(r/l) - (A+B) log((1-r)/(1-l)); A vanishes
    on a segment that begins at 0 and A+B on one that ends at 1.
    """
    width = right - left
    some = (width > 0) & ((at_left > 0) | (at_right > 0))
    width = np.where(some, width, 1.0)
    low, high = some & (left > 0), some & (right < 1)
    at_zero = np.where(low, at_left * right - at_right * left, 0.0) / width
    at_one = np.where(high, at_right * (1 - left) - at_left * (1 - right), 0.0) / width
    rise = np.log1p(np.divide(width, left, out=np.zeros_like(left), where=low))
    fall = np.log1p(-np.divide(width, 1 - left, out=np.zeros_like(left), where=high))
    return at_zero * rise - at_one * fall


def exact_dual(zy: Table, zs: Table) -> tuple[Table, Table]:
    """Return the multipliers alpha (B, 2, m) and beta (B, 2, K) of the union information.

    They are the derivative of the union information (nats) with respect to a cell:
    ``alpha[z, yhat] + beta[z, s] - log P(z)``; minus infinity where the cell cannot have mass.
    Where the two curves coincide the client is credited, and the derivative is one-sided.
    """
    m, size = zy.shape[-1], zy.shape[-1] + zs.shape[-1]
    z = zy.sum(axis=-1)
    prior = z[:, 1:]
    left, right, at_left, at_right, middle = _segments(zy, zs, prior)
    crosses = (at_left * at_right) < 0
    start = np.where(crosses & (at_left < 0), middle, left)
    stop = np.where(crosses & (at_right < 0), middle, right)
    above = (at_left > 0) | (at_right > 0)
    start, stop = np.where(above, start, 1.0), np.where(above, stop, 1.0)
    posterior = np.concatenate([_posteriors(zy, zs)[0], prior], axis=-1)
    order = np.argsort(posterior, axis=-1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(size + 1)[None, :], axis=-1)

    def reach(lows: Table, highs: Table) -> Table:
        """Integrate 1/tau and -1/(1-tau) from the prior to each posterior, (B, 2, size)."""
        out = []
        for a, b in ((1 - lows, 1 - highs), (lows, highs)):
            finite = (a > 0) & (b > 0)
            steps = np.log(np.divide(b, a, out=np.ones_like(a), where=finite))
            run = np.cumsum(steps, axis=-1)[:, :-1]  # up to each knot
            at = np.take_along_axis(run, rank, axis=-1)
            out.append(at[:, :-1] - at[:, -1:])
        return np.stack(out, axis=1)

    decision = reach(start, stop)
    rest = reach(left, right) - decision
    log_z = np.log(np.where(z > 0, z, 1.0))[:, :, None]
    alpha = np.where(zy > 0, decision[:, :, :m] + log_z, -np.inf)
    beta = np.where(zs > 0, rest[:, :, m:], -np.inf)
    return alpha, beta


def rounding_bound(zy: Table, zs: Table) -> Table:
    """Return a bound on the rounding error of the exact path, in nats, shape (B,).

    A margin is a sum of at most m or K terms of one sign, right to as many units of rounding
    relative to itself; a value of the curves sums m + K such numbers that add up to at most 2.
    So its error is at most 4 (m + K) units of rounding, ``_TIE`` included; integrated over
    dtau / (tau (1 - tau)) between the least and the largest inner posterior this is multiplied
    by the logarithm of their odds.
    """
    posterior, _, _ = _posteriors(zy, zs)
    inner = (posterior > 0) & (posterior < 1)
    odds = np.log(np.divide(posterior, 1 - posterior, out=np.ones_like(posterior), where=inner))
    span = np.where(inner, np.abs(odds), 0.0).max(axis=-1)
    size = zy.shape[-1] + zs.shape[-1]
    bound: Table = (8.0 * np.finfo(np.float64).eps) * (size + 4.0) * (2.0 * span + 4.0)
    return bound
