"""Joint tables for the tests of the disparity decomposition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def logic_table(rule: str) -> NDArray[np.float64]:
    """Two fair bits and a third that follows from them, as a table (z, yhat, s)."""
    P = np.zeros((2, 2, 2))
    for a in (0, 1):
        for b in (0, 1):
            if rule == "decision":  # Yhat = Z, S an own coin
                P[a, a, b] += 0.25
            elif rule == "all":  # Z = Yhat = S
                P[a, a, a] += 0.25
            elif rule == "xor":  # Yhat = Z xor S
                P[a, a ^ b, b] += 0.25
            elif rule == "and":  # Z = Yhat and S
                P[a & b, a, b] += 0.25
    return P


def opposed_clients(rate: float = 0.35) -> NDArray[np.float64]:
    """Two equal clients, whose rates for the two groups are exchanged."""
    P = np.zeros((2, 2, 2))
    for z in (0, 1):
        for s in (0, 1):
            accept = rate if z == s else 1 - rate
            P[z, :, s] = (1 - accept) / 4, accept / 4
    return P


def random_tables(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    count: int,
    *,
    zeros: float = 0.0,
    concentration: float = 1.0,
    signal: float = 1.5,
) -> NDArray[np.float64]:
    """Random tables (count, z, yhat, s) with a share of cells empty and every group present.

    ``signal`` makes decisions depend on groups in every client alike; with 0, many clients know
    more than a few decisions, and the unique part is 0 almost always.
    """
    P = rng.gamma(concentration, size=(count, *shape))
    P *= np.exp(signal * rng.normal(size=(count, *shape[:2], 1)))
    P *= rng.random(P.shape) >= zeros
    for z in range(shape[0]):
        P[np.arange(count), z, rng.integers(shape[1], size=count), rng.integers(shape[2])] += 1e-2
    total: NDArray[np.float64] = P / P.sum(axis=(1, 2, 3), keepdims=True)
    return total
