"""The general program as an exponential-cone program, one table at a time: the fallback."""

from __future__ import annotations

import numpy as np

from privfair.fairness.pid._certificate import certify
from privfair.fairness.pid._information import Table
from privfair.fairness.pid._newton import Solution

__all__ = ["cone"]


def cone(zy: Table, zs: Table, *, tol: float) -> Solution:
    """Minimise F for a batch of margins P(z,y), (B, Z, m), and P(z,s), (B, Z, K), by Clarabel.

    Each cell (z, y, s) that may have mass has a variable Q and a variable t with
    (-t, Q, sum_z Q) in the exponential cone, that is t >= Q log(Q / sum_z Q); the sum of t is
    minimised under the margins. What the solver returns is certified as Newton's answers are:
    its own status is not trusted.
    """
    pieces = [_solve(zy[i], zs[i], tol) for i in range(len(zy))]
    return Solution(*(np.concatenate(part) for part in zip(*pieces, strict=True)))


def _solve(zy: Table, zs: Table, tol: float) -> tuple[Table, ...]:
    import clarabel
    from scipy import sparse

    groups, m = zy.shape
    K = zs.shape[1]
    seen = (zy > 0)[:, :, None] & (zs > 0)[:, None, :]
    z, y, s = np.nonzero(seen)
    n = len(z)
    cells = np.arange(n)
    # Margins; one of each group's follows from the others and is left out.
    rows, first = zy > 0, zs > 0
    first[np.arange(groups), zs.argmax(axis=1)] = False
    number_y = np.cumsum(rows).reshape(rows.shape) - 1
    number_s = rows.sum() + np.cumsum(first).reshape(first.shape) - 1
    kept = first[z, s]
    equal = sparse.coo_matrix(
        (
            np.ones(n + int(kept.sum())),
            (
                np.concatenate([number_y[z, y], number_s[z, s][kept]]),
                np.concatenate([cells, cells[kept]]),
            ),
        ),
        shape=(int(rows.sum() + first.sum()), 2 * n),
    )
    # Slack (t, Q, q)-triples: s = b - A x must be (-t, Q, q), so A holds (t, -Q, -q).
    column = y * K + s
    same = sparse.csr_matrix((np.ones(n), (cells, column)), shape=(n, m * K))
    pairs = (same @ same.T).tocoo()
    triples = sparse.coo_matrix(
        (
            np.concatenate([np.ones(n), -np.ones(n), -np.ones(pairs.nnz)]),
            (
                np.concatenate([3 * cells, 3 * cells + 1, 3 * pairs.row + 2]),
                np.concatenate([n + cells, cells, pairs.col]),
            ),
        ),
        shape=(3 * n, 2 * n),
    )
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = min(1e-10, tol / 10)
    solution = clarabel.DefaultSolver(
        sparse.csc_matrix((2 * n, 2 * n)),
        np.concatenate([np.zeros(n), np.ones(n)]),
        sparse.vstack([equal, triples]).tocsc(),
        np.concatenate([zy[rows], zs[first], np.zeros(3 * n)]),
        [clarabel.ZeroConeT(equal.shape[0]), *(clarabel.ExponentialConeT() for _ in range(n))],
        settings,
    ).solve()
    Q, alpha, beta = np.zeros(seen.shape), np.zeros(zy.shape), np.zeros(zs.shape)
    Q[z, y, s] = np.maximum(np.nan_to_num(np.asarray(solution.x)[:n]), 0.0)
    multipliers = -np.nan_to_num(np.asarray(solution.z))
    alpha[rows] = multipliers[: int(rows.sum())]
    beta[first] = multipliers[int(rows.sum()) : equal.shape[0]]
    with np.errstate(all="ignore"):
        found: tuple[Table, ...] = certify(
            Q[None], alpha[None], beta[None], zy[None], zs[None], np
        )
    return found
