"""What decisions without any information about the group could cost at most, by score alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.stats import norm

from privfair.core.statistics import normal_critical

__all__ = ["most_cost"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
STEPS = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 49)])


class _Table(NamedTuple):
    """Shares by group, label and response, and what rules on the response are made of."""

    p: Floats
    gain: Floats
    apart: Floats
    accept: Bools


def most_cost(cells: NDArray[np.int64], accept: Bools, confidence: float) -> float:
    """Return an upper confidence limit for the cost of no information, by score alone.

    Parameters
    ----------
    cells : ndarray of int, shape (n_groups, n_clients, 2, n_responses)
        Counts by group, client, label and response.
    accept : ndarray of bool, shape (n_responses,)
        Which responses the model accepts.
    confidence : float
        Of the two-sided interval that this is the upper end of.

    Notes
    -----
    The best rule d maximises a gain w.d where A d = 0: the same share of every group is accepted.
    By duality its gain is the least of sum_r max(0, w_r - (l A)_r) over prices l. Where the groups
    have almost the same scores, A is almost 0 and cannot be told from its noise; prices then have
    no limit, and any interval around the estimate is too short. At the true prices the cost is
    at least what the table shows less a few of the standard errors *at these prices*, so that
    the largest limit over all prices holds, however well A is known. No rule of the same answer
    for everybody is forbidden, which limits it from above: the smaller of two limits, one for each
    answer, each of which may miss half as often. Prices are searched at steps
    along lines through the estimated ones and through none. For two groups one line holds all
    prices; for more groups these lines do not, and the limit is not proven then.

    References
    ----------
    Anderson, Rubin 1949 (inversion of a test whose level does not depend on how well a quantity
    is identified).
    """
    cells = cells[cells.sum(axis=(1, 2, 3)) > 0]  # nothing is demanded for a group of nobody
    n = int(cells.sum())
    table = _table(cells.sum(axis=1) / n, accept)
    z = normal_critical(confidence)
    limits = [_limit(table, price, z, n) for price in _prices(table)]
    none = np.zeros(len(table.apart))
    everybody = [_rule(table, np.full(len(table.gain), d), none) for d in (0.0, 1.0)]
    either = normal_critical(1 - (1 - confidence) / 2)
    return float(min(max(limits), min(cost + either * se / np.sqrt(n) for cost, se in everybody)))


def _table(p: Floats, accept: Bools) -> _Table:
    inside = p.sum(axis=1)
    given = inside / np.maximum(inside.sum(axis=1, keepdims=True), 1e-300)
    return _Table(p, (p[:, 1] - p[:, 0]).sum(axis=0), given - inside.sum(axis=0), accept)


def _prices(table: _Table) -> list[Floats]:
    """Return prices on lines through the estimated prices, and through none, in all directions."""
    k = len(table.apart)
    if k == 1:
        return [np.zeros(1)]
    best = linprog(-table.gain, A_eq=table.apart[1:], b_eq=np.zeros(k - 1), bounds=(0, 1))
    found = np.concatenate([[0.0], -np.asarray(best.eqlin.marginals)]) if best.success else None
    lines = [sign * row for row in np.eye(k)[1:] for sign in (1.0, -1.0)]
    if k == 2:  # one line holds all prices
        starts = [np.zeros(k) if found is None else found]
    else:
        lines += [a - b for a in np.eye(k)[1:] for b in np.eye(k)[1:] if (a != b).any()]
        lines += [] if found is None else [found, -found]
        starts = [np.zeros(k)] if found is None else [np.zeros(k), found]
    return [start + step * line for start in starts for line in lines for step in STEPS]


def _limit(table: _Table, price: Floats, z: float, n: int) -> float:
    """Return the upper limit of the cost by the dual at these prices."""
    reduced = table.gain - price @ table.apart
    cost, se = _rule(table, (reduced > 0).astype(float), price)
    # max(0, x) of a noisy x is too large on average; the dual gain would be, too.
    noise = np.maximum(_noise(table, price) / np.sqrt(n), 1e-300)
    far = np.abs(reduced) / noise
    optimism = noise * (norm.pdf(far) - far * norm.sf(far))
    return float(cost + float(optimism.sum()) + z * se / np.sqrt(n))


def _noise(table: _Table, price: Floats) -> Floats:
    """Return the deviation of one row's part in the reduced gain of each response."""
    p = table.p
    mass = np.maximum(p.sum(axis=(1, 2)), 1e-300)
    total = p.sum(axis=(0, 1))
    given = p.sum(axis=1) / mass[:, None]
    sign = np.array([-1.0, 1.0])[None, :, None]
    inside = sign - (price / mass)[:, None, None] + price.sum()
    outside = (price / mass)[:, None] * given - price.sum() * total
    # A row of group z adds `inside` to its own response and `outside` to every response.
    square = (p * (inside**2 + 2 * inside * outside[:, None, :])).sum(axis=(0, 1))
    square += (mass[:, None] * outside**2).sum(axis=0)
    mean = (p * inside).sum(axis=(0, 1)) + (mass[:, None] * outside).sum(axis=0)
    return np.asarray(np.sqrt(np.maximum(0.0, square - mean**2)))


def _rule(table: _Table, d: Floats, price: Floats) -> tuple[float, float]:
    """Return the Lagrangian of a rule, less the model, and the deviation of one row's part."""
    y = np.array([0.0, 1.0])[None, :, None]
    mass = table.p.sum(axis=(1, 2))
    rate = (table.apart + table.p.sum(axis=(0, 1))) @ d
    overall = float(table.p.sum(axis=(0, 1)) @ d)
    model = y * table.accept + (1 - y) * ~table.accept
    rule = y * d + (1 - y) * (1 - d)
    away = (price / np.maximum(mass, 1e-300))[:, None, None] * (d - rate[:, None, None])
    part = model - rule + away - price.sum() * (d - overall)
    cost = float((table.p * (model - rule)).sum() + price @ (table.apart @ d))
    mean = float((table.p * part).sum())
    return cost, float(np.sqrt(max(0.0, (table.p * part**2).sum() - mean**2)))
