"""Algorithm C: a randomised threshold for every target set and one for the rest, by an LP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import ConvergenceError
from privfair.fairness.sep._sets import Sets

__all__ = ["ThresholdMix", "atoms", "fit_thresholds", "mixed_decisions"]

Floats = NDArray[np.float64]
_MOST = 512


@dataclass(frozen=True)
class ThresholdMix:
    """A random threshold.

    Attributes
    ----------
    thresholds : tuple of float
        A score at or above the threshold is a positive decision; -inf and inf occur.
    weights : tuple of float
        Probability of each threshold; they add up to 1.
    """

    thresholds: tuple[float, ...]
    weights: tuple[float, ...]

    def probability(self, scores: Floats) -> Floats:
        """Return the probability of a positive decision for every score."""
        above = scores[:, None] >= np.asarray(self.thresholds)[None, :]
        return np.asarray(above @ np.asarray(self.weights))


def atoms(sets: Sets) -> NDArray[np.int64]:
    """Return the part of every row: 0 the rest, 1 + j the target set of group j.

    Underprivileged rows of no declared group are a part of their own, the last one.
    """
    last = len(sets.groups.labels) + 1
    code = np.where(sets.groups.codes >= 0, sets.groups.codes + 1, last)
    return np.where(sets.eligible, code, 0)


def mixed_decisions(
    mixes: Mapping[int, ThresholdMix], scores: Floats, part: NDArray[np.int64]
) -> Floats:
    """Return the probability of a positive decision; parts never seen get the rest's rule."""
    out = mixes[0].probability(scores)
    for place, mix in mixes.items():
        rows = part == place
        out[rows] = mix.probability(scores[rows])
    return out


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Thresholds of one part with what they do."""

    thresholds: Floats
    rate: Floats  # share of the part's mass that is selected
    inside: Floats  # the same among the part's rows of the reference set
    cost: Floats  # mass of errors


def _candidates(
    scores: Floats, y: Floats, mass: Floats, inside: NDArray[np.bool_], exact: bool
) -> _Candidates:
    order = np.argsort(-scores, kind="stable")
    s, w, label, within = scores[order], mass[order], y[order], inside[order]
    ends = np.append(np.flatnonzero(np.diff(s) != 0), len(s) - 1)  # ties fall together
    selected = np.cumsum(w)[ends]
    gain = np.cumsum(w * (1 - 2 * label))[ends]
    reference = np.cumsum(w * within)[ends]
    whole = float((w * within).sum())
    thresholds = np.concatenate([[np.inf], s[ends]])
    thresholds[-1] = -np.inf  # everybody, whatever score turns up later
    rate = np.concatenate([[0.0], selected / w.sum()])
    share = np.concatenate([[0.0], reference / whole if whole > 0 else 0 * reference])
    cost = np.concatenate([[0.0], gain]) + float(w @ label)
    keep = _lower_hull(rate, cost) if exact else _thinned(len(rate))
    return _Candidates(thresholds[keep], rate[keep], share[keep], cost[keep])


def _lower_hull(x: Floats, y: Floats) -> NDArray[np.int64]:
    """Return the places of the lower convex hull; x rises. Only these are ever mixed."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        if hull and x[i] == x[hull[-1]]:  # rows without weight
            if y[i] >= y[hull[-1]]:
                continue
            hull.pop()
        hull.append(i)
    return np.array(hull)


def _thinned(size: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, size - 1, min(size, _MOST)).round().astype(np.int64))


def fit_thresholds(
    scores: Floats,
    y: Floats,
    weight: Floats,
    sets: Sets,
    *,
    tolerance: float | Floats,
    one_sided: bool,
    floor: Floats | None,
) -> tuple[dict[int, ThresholdMix], Floats, float]:
    """Return the mixtures of thresholds of least training error that obey the constraints.

    Parameters
    ----------
    scores, y, weight : ndarray of shape (n_rows,)
        y is 0 or 1.
    sets : Sets
    tolerance : float or ndarray of shape (n_targets,)
        Largest gap.
    one_sided : bool
    floor : ndarray of shape (n_targets,) or None
        Smallest rates of the target sets.

    Returns
    -------
    mixes : dict of int to ThresholdMix
        By part (:func:`atoms`).
    multipliers : ndarray
        Error per unit of each constraint, in the order of :class:`Constraints`.
    error : float
        Weighted share of training errors of the randomised decisions.

    Notes
    -----
    The optimum is exact where the reference is everybody; otherwise the rest's thresholds are
    512 quantiles. One O(n log n) sort per part, then a linear program of a few hundred variables.
    Always feasible: everybody selected obeys.
    """
    from scipy.optimize import linprog

    mass = weight / weight.sum()
    part, inside = atoms(sets), sets.in_reference
    everyone_in = bool(inside.all())
    parts = [int(a) for a in np.unique(part) if mass[part == a].sum() > 0]
    found: dict[int, _Candidates] = {}
    for a in parts:
        rows = part == a
        exact = a > 0 or everyone_in
        found[a] = _candidates(scores[rows], y[rows], mass[rows], inside[rows], exact)
    sizes = [len(found[a].rate) for a in parts]
    at = np.cumsum([0, *sizes])
    reference_mass = mass[inside].sum()
    share = {a: mass[(part == a) & inside].sum() / reference_mass for a in parts}
    reference = np.concatenate([share[a] * found[a].inside for a in parts])
    gaps, levels = [], []
    for j in range(len(sets.labels)):
        members = [a for a in parts if a == j + 1 or (j == len(sets.groups.labels) and a > 0)]
        total = sum(mass[part == a].sum() for a in members)
        target = np.zeros(at[-1])
        for a in members:
            place = parts.index(a)
            target[at[place] : at[place + 1]] = found[a].rate * mass[part == a].sum() / total
        gaps.append(reference - target)
        levels.append(-target)
    most = np.broadcast_to(np.asarray(tolerance, dtype=float), len(gaps)).tolist()
    rows_ub, bound = list(gaps), list(most)
    if not one_sided:
        rows_ub += [-g for g in gaps]
        bound += most
    if floor is not None:
        rows_ub += levels
        bound += [-float(f) for f in floor]
    one = np.zeros((len(parts), at[-1]))
    for place in range(len(parts)):
        one[place, at[place] : at[place + 1]] = 1.0
    solved: Any = linprog(
        np.concatenate([found[a].cost for a in parts]), A_ub=np.stack(rows_ub), b_ub=bound,
        A_eq=one, b_eq=np.ones(len(parts)), bounds=(0, None), method="highs",
    )  # fmt: skip
    if not solved.success:
        raise ConvergenceError(f"the linear program of thresholds was not solved: {solved.status}")
    mixes = {
        a: _mix(found[a].thresholds, solved.x[at[place] : at[place + 1]])
        for place, a in enumerate(parts)
    }
    if 0 not in mixes:  # everybody is underprivileged: newcomers get the plain rule
        mixes[0] = ThresholdMix((0.5,), (1.0,))
    return mixes, np.maximum(-np.asarray(solved.ineqlin.marginals), 0.0), float(solved.fun)


def _mix(thresholds: Floats, weights: Floats) -> ThresholdMix:
    some = weights > 1e-12
    kept = weights[some] / weights[some].sum()
    return ThresholdMix(tuple(thresholds[some].tolist()), tuple(kept.tolist()))
