"""Informations of a joint table of sensitive attribute, decision and client, in nats."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

__all__ = [
    "Informations",
    "Table",
    "informations",
    "log_ratio",
    "margin_informations",
    "marginals",
]

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Informations:
    """What needs no optimisation; arrays of the batch's shape, nats.

    ``decision`` is I(Z;Yhat), ``client`` I(Z;S), ``given_client`` I(Z;Yhat|S) and ``entropy``
    H(Z).
    """

    decision: Table
    client: Table
    given_client: Table
    entropy: Table


def marginals(P: Table) -> tuple[Table, Table, Table]:
    """Return P(z, yhat), P(z, s) and P(z) of a table (..., z, yhat, s)."""
    by_decision = P.sum(axis=-1)
    return by_decision, P.sum(axis=-2), by_decision.sum(axis=-1)


def _minus_entropy(p: Table, axes: int) -> Table:
    flat = p.reshape(*p.shape[: p.ndim - axes], -1)
    total: Table = xlogy(flat, flat).sum(axis=-1)
    return total


def informations(P: Table, parts: tuple[Table, Table, Table] | None = None) -> Informations:
    """Return the mutual informations of a table (..., z, yhat, s) that sums to 1.

    Each is a sum of x log x over the cells of the table and of its margins, so that empty cells
    cost nothing and no ratio is formed; the error is a few units in the last place of H(Z).
    """
    zy, zs, _ = marginals(P) if parts is None else parts
    base = margin_informations(zy, zs)
    h_ys, h_zys = _minus_entropy(P.sum(axis=-3), 2), _minus_entropy(P, 3)
    h_zs, h_s = _minus_entropy(zs, 2), _minus_entropy(zs.sum(axis=-2), 1)
    return replace(base, given_client=h_zys + h_s - h_zs - h_ys)


def margin_informations(zy: Table, zs: Table) -> Informations:
    """Return what P(z, yhat) and P(z, s) determine; ``given_client`` is NaN."""
    h_z, h_zy, h_zs = (
        _minus_entropy(zy.sum(axis=-1), 1),
        _minus_entropy(zy, 2),
        _minus_entropy(zs, 2),
    )
    decision = h_zy - h_z - _minus_entropy(zy.sum(axis=-2), 1)
    client = h_zs - h_z - _minus_entropy(zs.sum(axis=-2), 1)
    return Informations(decision, client, np.full_like(client, np.nan), -h_z)


def log_ratio(numerator: Table, denominator: Table) -> Table:
    """Return log(numerator / denominator), 0 where the numerator is 0."""
    seen = numerator > 0
    ratio = np.divide(numerator, denominator, out=np.ones(np.shape(numerator)), where=seen)
    return np.log(ratio)
