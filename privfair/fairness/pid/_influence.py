"""How one row moves each part: the influence functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from privfair.fairness.pid._information import Table, log_ratio, marginals
from privfair.fairness.pid._solve import exact_multipliers

if TYPE_CHECKING:
    from privfair.fairness.pid._joint import PIDResult

__all__ = ["influence"]


def influence(P: Table, result: PIDResult) -> dict[str, Table]:
    """Return the influence function of each part, per cell of the table.

    Parameters
    ----------
    P : ndarray of shape (..., |Z|, m, K)
        The table from which ``result`` was computed.
    result : PIDResult
        Of :func:`pid_from_joint`.

    Returns
    -------
    dict of str to ndarray of shape (..., |Z|, m, K)
        In bits, keys as in :class:`PIDResult`; the mean under P is zero, and the standard error
        of a part over n rows is sqrt(sum(P * IF**2) / n). Cells without mass hold 0.

    Notes
    -----
    The union information moves with a row (z, yhat, s) by alpha(z,yhat) + beta(z,s) - log P(z)
    less its value, with the multipliers of its margins; a mutual information by the log ratio
    less its value. Where the optimum switches (two curves that coincide, a part that is zero)
    there is no derivative and one of its one-sided limits is returned. O(|Z| m K) per table.

    References
    ----------
    Kandasamy et al. 2015, arXiv:1411.4342 (influence functions of information measures).

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.fairness.pid import pid_from_joint
    >>> P = np.array([[[0.2, 0.1], [0.1, 0.1]], [[0.05, 0.1], [0.15, 0.2]]])
    >>> rows = influence(P, pid_from_joint(P))["unique"]
    >>> bool(abs((P * rows).sum()) < 1e-12)
    True
    """
    P = np.asarray(P, dtype=np.float64)
    zy, zs, z = marginals(P)
    alpha, beta = (result.alpha, result.beta) if result.alpha is not None else _dual(zy, zs)
    assert alpha is not None and beta is not None
    ys = P.sum(axis=-3)
    seen = P > 0
    log_z = np.log(np.where(z > 0, z, 1.0))[..., :, None, None]
    with np.errstate(invalid="ignore"):
        union = alpha[..., :, None] + beta[..., None, :] - log_z
    decision = log_ratio(zy, z[..., :, None] * zy.sum(-2, keepdims=True))[..., :, None]
    client = log_ratio(zs, z[..., :, None] * zs.sum(-2, keepdims=True))[..., None, :]
    local = (
        log_ratio(P, ys[..., None, :, :]) - log_ratio(zs, zs.sum(-2, keepdims=True))[..., None, :]
    )
    raw = {
        "unique": union - client,
        "redundant": decision + client - union,
        "masked": local + client - union,
        "unique_client": union - decision,
        "union_information": union,
        "global_disparity": np.broadcast_to(decision, P.shape),
        "local_disparity": local,
        "client_information": np.broadcast_to(client, P.shape),
        "coinformation": decision - local,
    }
    out = {}
    for name, rows in raw.items():
        rows = np.where(seen, rows, 0.0)
        mean = (P * rows).sum(axis=(-3, -2, -1), keepdims=True)
        out[name] = np.where(seen, rows - mean, 0.0) / math.log(2)
    return out


def _dual(zy: Table, zs: Table) -> tuple[Table, Table]:
    shape = zy.shape[:-2]
    alpha, beta = exact_multipliers(zy.reshape(-1, *zy.shape[-2:]), zs.reshape(-1, *zs.shape[-2:]))
    return alpha.reshape(*shape, *alpha.shape[1:]), beta.reshape(*shape, *beta.shape[1:])
