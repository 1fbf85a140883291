"""Gaps of decision rates beside the information that bounds them, per client and overall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from privfair.core._format import json_number

__all__ = ["ClientDisparities", "by_client", "gap_bound", "information_of", "parity_gap"]

Floats = NDArray[np.float64]

ONE_GROUP = "one group only"
ONE_DECISION = "one decision only"
NO_ROWS = "no rows"


def information_of(tables: Floats) -> Floats:
    """Return I(Z;Yhat) of tables of mass (..., |Z|, m), in bits; 0 for an empty one."""
    total = tables.sum(axis=(-2, -1))
    some = np.where(total > 0, total, 1.0)
    p = tables / some[..., None, None]
    z, y = p.sum(axis=-1), p.sum(axis=-2)
    value = xlogy(p, p).sum(axis=(-2, -1)) - xlogy(z, z).sum(axis=-1) - xlogy(y, y).sum(axis=-1)
    return np.asarray(np.maximum(value, 0.0) / math.log(2))


def parity_gap(tables: Floats) -> Floats:
    """Return the largest difference of a decision's rate between two groups that have rows.

    Rates are of the decision given the group, P(yhat | z). NaN with fewer than two groups.

    Parameters
    ----------
    tables : ndarray of shape (..., |Z|, m)
    """
    size = tables.sum(axis=-1, keepdims=True)
    seen = size > 0
    rates = tables / np.where(seen, size, 1.0)
    high = np.where(seen, rates, -np.inf).max(axis=-2)
    low = np.where(seen, rates, np.inf).min(axis=-2)
    enough = seen[..., 0].sum(axis=-1) >= 2
    return np.where(enough, np.where(enough[..., None], high - low, 0.0).max(axis=-1), np.nan)


def gap_bound(tables: Floats) -> Floats:
    """Return the largest gap that the information allows: sqrt(I/2 (1/p + 1/p')), I in nats.

    Parameters
    ----------
    tables : ndarray of shape (..., |Z|, m)

    Returns
    -------
    ndarray of shape (...)
        At most 1; NaN with fewer than two groups. p and p' are the shares of the two smallest
        groups.

    Notes
    -----
    By Pinsker I >= 2 sum_z p_z TV(P_z, P)^2, and TV(P_z, P_z') <= TV(P_z, P) + TV(P_z', P); the
    least of p a^2 + p' b^2 with a + b given is the harmonic one. For two groups this is
    sqrt(I / (2 p (1 - p))), never above the sqrt(I / 2) / (2 p (1 - p)) of the literature and
    equal to it at p = 1/2.
    """
    size = tables.sum(axis=-1)
    total = size.sum(axis=-1, keepdims=True)
    share = size / np.where(total > 0, total, 1.0)
    smallest = np.sort(np.where(share > 0, share, np.inf), axis=-1)[..., :2]
    nats = information_of(tables) * math.log(2)
    bound = np.sqrt(nats / 2 * (1.0 / smallest).sum(axis=-1))
    return np.where((share > 0).sum(axis=-1) >= 2, np.minimum(bound, 1.0), np.nan)


@dataclass(frozen=True, eq=False)
class ClientDisparities:
    """What each client's own rows show; arrays of shape (n_clients,).

    Attributes
    ----------
    share : ndarray
        Of the weight of all rows.
    information : ndarray
        I(Z;Yhat|S=s) in bits; its mean under ``share`` is the local disparity.
    gap, bound : ndarray
        Largest difference of rates between two groups, and what the information allows. NaN
        where a client has one group only. Under a condition the largest over its strata.
    silent : tuple of str
        Why a client adds nothing to the local disparity; empty where it does.
    overall_gap, overall_bound : float
        The same of all rows together.
    """

    share: Floats
    information: Floats
    gap: Floats
    bound: Floats
    silent: tuple[str, ...]
    overall_gap: float
    overall_bound: float

    def rows(self, clients: tuple[Any, ...], counts: Any = None) -> list[dict[str, Any]]:
        """Return one dict for each client, JSON data."""
        out = []
        for k, name in enumerate(clients):
            row = {
                "client": name,
                "share": json_number(self.share[k]),
                "local_disparity": json_number(self.information[k]),
                "gap": json_number(self.gap[k]),
                "gap_bound": json_number(self.bound[k]),
                "silent": self.silent[k],
            }
            if counts is not None:
                row["n"] = int(counts[k])
            out.append(row)
        return out


def by_client(sums: Floats) -> ClientDisparities:
    """Return the disparities of each client from sums (n_strata, |Z|, m, K)."""
    tables = np.ascontiguousarray(np.moveaxis(sums, -1, 0))  # (K, n_strata, |Z|, m)
    mass = tables.sum(axis=(-2, -1))
    size = mass.sum(axis=1)
    inner = mass / np.where(size > 0, size, 1.0)[:, None]
    information = (inner * information_of(tables)).sum(axis=1)
    pooled = tables.sum(axis=0)
    return ClientDisparities(
        share=size / size.sum(),
        information=information,
        gap=_largest(parity_gap(tables)),
        bound=_largest(gap_bound(tables)),
        silent=tuple(_reasons(tables.sum(axis=1))),
        overall_gap=float(_largest(parity_gap(pooled))),
        overall_bound=float(_largest(gap_bound(pooled))),
    )


def _largest(values: Floats) -> Floats:
    """Return the maximum over the last axis of what is defined; NaN where nothing is."""
    found = np.where(np.isnan(values), -np.inf, values).max(axis=-1)
    return np.where(np.isneginf(found), np.nan, found)


def _reasons(tables: Floats) -> list[str]:
    groups = (tables.sum(axis=-1) > 0).sum(axis=-1)
    decisions = (tables.sum(axis=-2) > 0).sum(axis=-1)
    return [
        NO_ROWS if g == 0 else ONE_GROUP if g == 1 else ONE_DECISION if d == 1 else ""
        for g, d in zip(groups.tolist(), decisions.tolist(), strict=True)
    ]
