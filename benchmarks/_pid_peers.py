"""What the disparity decomposition is measured against; absent packages are skipped.

dit 2.3 (with ``PID_BROJA``) and ecos 2.0.14 are not dependencies. To compare with them, install
them beside privfair in an environment of their own:

    pip install dit==2.3 ecos==2.0.14
    python benchmarks/bench_pid.py

The cone program is written here from the formulation of Makkeh, Theis and Vicente (Entropy 2018,
"BROJA-2PID"): for each cell (z, y, s) with P(z,y) > 0 and P(z,s) > 0 a triple (r, p, q) in the
exponential cone, r <= q log(p / q), with p(z,y,s) = sum_z' q(z',y,s) and the margins of q; the sum
of r is maximised. Its optimum is H_Q(Z|Yhat,S).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse


def has(name: str) -> bool:
    """Return whether a peer is there, and say so if not."""
    if importlib.util.find_spec(name) is None:
        print(f"{name} is not installed: its numbers are skipped (see benchmarks/_pid_peers.py)")
        return False
    return True


def _program(P: np.ndarray) -> tuple[np.ndarray, sparse.csc_matrix, np.ndarray, int]:
    """Return (c, A, b, cells) with variables ordered (r, p, q) per cell."""
    zy, zs = P.sum(2), P.sum(1)
    z, y, s = np.nonzero((zy > 0)[:, :, None] & (zs > 0)[:, None, :])
    n = len(z)
    rows, columns, values = [], [], []
    for i in range(n):  # p = sum of q over the groups of the same decision and client
        rows.append(i), columns.append(3 * i + 1), values.append(-1.0)
        for j in np.flatnonzero((y == y[i]) & (s == s[i])):
            rows.append(i), columns.append(3 * j + 2), values.append(1.0)
    target = [0.0] * n
    for first, second, margin in ((z, y, zy), (z, s, zs)):
        for a, b in zip(*np.nonzero(margin), strict=True):
            for j in np.flatnonzero((first == a) & (second == b)):
                rows.append(len(target)), columns.append(3 * j + 2), values.append(1.0)
            target.append(float(margin[a, b]))
    A = sparse.csc_matrix((values, (rows, columns)), shape=(len(target), 3 * n))
    c = np.zeros(3 * n)
    c[::3] = -1.0
    return c, A, np.array(target), n


def _unique(P: np.ndarray, conditional_entropy: float) -> float:
    """Return U in bits from H_Q(Z|Yhat,S) in nats: U = H(Z|S) - H_Q(Z|Yhat,S)."""
    zs = P.sum(1)
    given = -(zs[zs > 0] * np.log((zs / zs.sum(0, where=zs >= 0))[zs > 0])).sum()
    return float((given - conditional_entropy) / np.log(2))


def ecos_cone(P: np.ndarray) -> float:
    """Return U in bits by ECOS."""
    import ecos

    c, A, b, n = _program(P)
    G = sparse.csc_matrix(-sparse.identity(3 * n))
    found = ecos.solve(c, G, np.zeros(3 * n), {"e": n}, A, b, verbose=False)
    return _unique(P, -found["info"]["pcost"])


def clarabel_cone(P: np.ndarray) -> float:
    """Return U in bits by Clarabel, at its default tolerances."""
    import clarabel

    c, A, b, n = _program(P)
    order = np.arange(3 * n).reshape(n, 3)[:, [0, 2, 1]].ravel()  # its cone is (r, q, p)
    G = sparse.csc_matrix(-sparse.identity(3 * n, format="csr")[order])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    cones = [clarabel.ZeroConeT(len(b)), *(clarabel.ExponentialConeT() for _ in range(n))]
    solution = clarabel.DefaultSolver(
        sparse.csc_matrix((3 * n, 3 * n)),
        c,
        sparse.vstack([A, G]).tocsc(),
        np.concatenate([b, np.zeros(3 * n)]),
        cones,
        settings,
    ).solve()
    return _unique(P, -solution.obj_val)


def dit_default(P: np.ndarray) -> float:
    """Return U in bits by dit's PID_BROJA with its default settings."""
    import dit
    from dit.pid import PID_BROJA

    cells = [(z, y, s) for z, y, s in np.ndindex(*P.shape) if P[z, y, s] > 0]
    names = [tuple(str(v) for v in cell) for cell in cells]
    d = dit.Distribution(names, [float(P[cell]) for cell in cells])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(PID_BROJA(d, [[1], [2]], [0]).get_pi(((1,),)))


def solvers() -> dict[str, Callable[[np.ndarray], Any]]:
    """Return the peers that are there."""
    found: dict[str, Callable[[np.ndarray], Any]] = {"clarabel_cone": clarabel_cone}
    if has("ecos"):
        found["ecos_cone"] = ecos_cone
    if has("dit"):
        found["dit_default"] = dit_default
    return found
