"""Gaps to expect when decisions have nothing to do with group, status and effort."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.statistics import margin_permutations
from privfair.fairness.sep._sets import CellSums, Sets

__all__ = ["null_gaps", "null_releases", "null_scores"]

Floats = NDArray[np.float64]


def null_gaps(
    sums: CellSums, sets: Sets, known: NDArray[np.bool_], n_resamples: int, rng: Any
) -> Floats:
    """Return gaps when the decisions are permuted among the rows of the reference set.

    Shape (n_resamples, n_targets). Exact hypergeometric draws, at a cost that does not depend on
    the number of rows.
    """
    rows, marks = sums.rows, sums.mass_h
    if sets.effort is not None and sets.reference == "conditional":
        rows, marks = rows[:, :, 1:], marks[:, :, 1:]
    target = rows[:, 1, -1].astype(np.int64)
    whole, total = int(rows.sum()), round(float(marks.sum()))
    sizes = np.append(target, whole - int(target.sum()))
    drawn = margin_permutations(sizes, total, n_resamples, rng)[:, :-1]
    picked = drawn[:, 1:]
    size = target[1:]
    if sets.everyone:
        picked = np.column_stack([picked, drawn.sum(axis=1)])
        size = np.append(size, target.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        gaps = total / whole - picked / size
    return np.where(known, gaps, np.nan)


def null_scores(
    sets: Sets,
    h: Floats,
    weight: Floats | None,
    known: NDArray[np.bool_],
    n_resamples: int,
    rng: Any,
) -> Floats:
    """Return gaps when scores are permuted among the rows of the reference set.

    Weights stay with their rows. Under permutation each gap is ``sum_i a_i h_pi(i)`` with
    coefficients that add up to 0: mean 0 and covariance ``S^2 sum_i a_ij a_ik`` exactly, with the
    variance S^2 of the scores. Drawn from the normal distribution with that covariance (the
    combinatorial central limit theorem, Hoeffding 1951), at O(n_rows + n_targets^2) beside the
    draws.
    """
    w = np.ones(len(h)) if weight is None else weight
    inside = sets.in_reference & (w > 0)
    targets = [rows & (w > 0) for rows in sets.targets()]
    variance = float(np.var(h[inside], ddof=1)) if inside.sum() > 1 else 0.0
    mass = np.array([w[rows].sum() for rows in targets])
    square = np.array([(w[rows] ** 2).sum() for rows in targets])
    w_r, q_r = w[inside].sum(), (w[inside] ** 2).sum()
    safe = np.where(known, mass, 1.0)
    shared = np.diag(square)
    if sets.everyone:  # the last set contains all others
        shared[-1, :-1] = shared[:-1, -1] = square[:-1]
    single = square / (w_r * safe)
    cov = q_r / w_r**2 - single[:, None] - single[None, :] + shared / np.outer(safe, safe)
    cov = np.where(np.outer(known, known), cov, 0.0) * variance
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.where(known, rng.standard_normal((n_resamples, len(targets))) @ root.T, np.nan)


def null_releases(
    noisy: Floats, sigma: float, *, everyone: bool, known: NDArray[np.bool_], draws: int, rng: Any
) -> Floats:
    """Return gaps of releases in which every cell has the reference's rate, (draws, n_targets).

    Drawn with the released sizes, with the variance of decisions 0 and 1 and the noise; computed
    from the release and public numbers alone.
    """
    cells = np.asarray(noisy, dtype=float).reshape(-1, 2)
    size = np.maximum(cells[:, 1], 1.0)
    rate = float(np.clip(cells[:, 0].sum() / max(cells[:, 1].sum(), 1.0), 0.0, 1.0))
    shape = (draws, len(size))
    part = rate * size + np.sqrt(rate * (1 - rate) * size) * rng.standard_normal(shape)
    part += sigma * rng.standard_normal(shape)
    n = size + sigma * rng.standard_normal(shape)
    both = np.stack([part, n], axis=-1).reshape(draws, -1, 2, 2)
    whole, target = both.sum(axis=(1, 2)), both[:, 1:, 1]
    if everyone:
        target = np.concatenate([target, both[:, :, 1].sum(axis=1)[:, None]], axis=1)
    rates = np.clip(target[..., 0] / np.maximum(target[..., 1], 1.0), 0.0, 1.0)
    reference = np.clip(whole[:, 0] / np.maximum(whole[:, 1], 1.0), 0.0, 1.0)
    return np.where(known, reference[:, None] - rates, np.nan)
