"""What a rule of decision achieves on a table: disparities of all criteria, for many tables."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

__all__ = [
    "CRITERIA",
    "context_index",
    "decided",
    "influence",
    "information_bits",
    "largest_gap",
    "pooled",
]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

CRITERIA = ("demographic_parity", "equalized_odds", "equal_opportunity")
LN2 = math.log(2.0)


def context_index(
    n_s: int, n_y: int, criterion: str, scope: str | int, positive: int
) -> tuple[Ints, int]:
    """Return the context of every (client, label), -1 where the criterion does not look.

    Parameters
    ----------
    n_s, n_y : int
        Clients and labels.
    criterion : str
        Demographic parity has one context, equalised odds one per label, equal opportunity the
        positive label only.
    scope : "global", "local" or int
        Clients pooled, clients apart, or one client alone.
    positive : int
        Position of the positive label.

    Returns
    -------
    index : ndarray of int, shape (n_s, n_y)
    n_contexts : int
    """
    s, y = np.arange(n_s)[:, None], np.arange(n_y)[None, :]
    by_label = {
        "demographic_parity": (np.zeros_like(y), 1),
        "equalized_odds": (y, n_y),
        "equal_opportunity": (np.where(y == positive, 0, -1), 1),
    }
    label, n_label = by_label[criterion]
    if scope == "global":
        client, n_client = np.zeros_like(s), 1
    elif scope == "local":
        client, n_client = s, n_s
    else:
        client, n_client = np.where(s == scope, 0, -1), 1
    inside = (label >= 0) & (client >= 0)
    return np.where(inside, client * n_label + label, -1), n_client * n_label


def decided(p: Array, rule: Array) -> Array:
    """Return m(z, s, y, k), the masses of decisions; tables may be stacked in front."""
    return np.asarray(np.einsum("...zsyr,zsrk->...zsyk", p, rule, optimize=True))


def pooled(m: Array, index: Ints, n_contexts: int) -> Array:
    """Return m(z, c, k) from m(z, s, y, k); tables may be stacked in front."""
    n_k = m.shape[-1]
    flat = m.reshape(*m.shape[:-3], index.size, n_k)
    used = index.ravel() >= 0
    to = np.zeros((n_contexts, index.size))
    to[index.ravel()[used], np.flatnonzero(used)] = 1.0
    return np.asarray(to @ flat)


def information_bits(m: Array) -> Array:
    """Return I(Z; K | C) of masses m(z, c, k), in bits; tables may be stacked in front."""
    total = m.sum(axis=(-3, -2, -1))
    cell = m.sum(axis=-1, keepdims=True)
    context = cell.sum(axis=-3, keepdims=True)
    share = cell / np.where(context > 0, context, 1.0)
    nats = rel_entr(m, share * m.sum(axis=-3, keepdims=True)).sum(axis=(-3, -2, -1))
    return np.maximum(nats, 0.0) / np.where(total > 0, total, 1.0) / LN2


def largest_gap(m: Array) -> Array:
    """Return the largest |P(k|z,c) - P(k|z',c)|; tables may be stacked in front."""
    cell = m.sum(axis=-1, keepdims=True)
    rate = m / np.where(cell > 0, cell, 1.0)
    high = np.where(cell > 0, rate, -np.inf).max(axis=-3)
    low = np.where(cell > 0, rate, np.inf).min(axis=-3)
    return np.asarray(np.maximum(high - low, 0.0).max(axis=(-2, -1)))


def influence(p: Array, rule: Array, index: Ints, n_contexts: int) -> Array:
    """Return the influence of each cell (z, s, y, r) on the information, in bits.

    With N = sum m log(m / ..), the derivative of N by a mass is the log ratio itself, since N is
    homogeneous of degree one in the masses of a context; a row of the cell adds W(k) to each.
    """
    m = pooled(decided(p, rule), index, n_contexts)
    cell = m.sum(axis=2, keepdims=True)
    context = cell.sum(axis=0, keepdims=True)
    base = cell / np.where(context > 0, context, 1.0) * m.sum(axis=0, keepdims=True)
    ratio = np.where((m > 0) & (base > 0), np.log(np.where(m > 0, m, 1.0)), 0.0)
    ratio -= np.where((m > 0) & (base > 0), np.log(np.where(base > 0, base, 1.0)), 0.0)
    total = float(m.sum())
    if total <= 0:
        return np.zeros_like(p)
    value = float((m * ratio).sum()) / total
    n_z, n_s, n_y, n_r = p.shape
    inside = index >= 0
    by_client = ratio[:, np.where(inside, index, 0)]  # z, s, y, k
    per_row = np.einsum("zsyk,zsrk->zsyr", by_client, rule)
    out = np.where(inside[None, :, :, None], per_row - value, 0.0) / total
    return np.asarray(np.broadcast_to(out, (n_z, n_s, n_y, n_r)) / LN2)
