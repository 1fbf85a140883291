"""Gaps and floors as linear functions of the decisions: one sparse row each."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SmallGroupError, UtilityWarning
from privfair.fairness.sep._sets import Sets, memberships

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["CellConstraints", "Constraints", "check_sizes", "gap_matrix", "target_matrix"]

Floats = NDArray[np.float64]


def check_sizes(
    sets: Sets, min_group: int, weight: Floats | None = None, stacklevel: int = 3
) -> None:
    """Refuse to train on sets that are too small; warn of gaps that are zero by construction.

    Rows of weight 0 do not count.
    """
    some = np.ones(sets.n_rows, dtype=bool) if weight is None else weight > 0
    n_reference = int((sets.in_reference & some).sum())
    sizes = [int((rows & some).sum()) for rows in sets.targets()]
    least = max(min_group, 1)
    few = [n for n, size in zip(sets.names, sizes, strict=True) if size < least]
    if n_reference < least or few:
        where = ", ".join(few) or "the reference set"
        raise SmallGroupError(
            f"fewer than min_group={min_group} training rows in the sets of {where}: a constraint "
            "on so few would fit their noise. Use coarser groups, another threshold, or a lower "
            "min_group."
        )
    void = [n for n, size in zip(sets.names, sizes, strict=True) if size == n_reference]
    if void:
        warnings.warn(
            f"the target set of {', '.join(void)} is the whole reference set: its gap is 0 "
            "whatever the model is (vacuous). The rule selects everybody; choose another.",
            UtilityWarning,
            stacklevel=stacklevel,
        )


def _row_means(rows: list[NDArray[np.bool_]], weight: Floats) -> csr_array:
    """Return the matrix whose product with h is the weighted mean of h over each set."""
    from scipy.sparse import csr_array

    columns = [np.flatnonzero(r) for r in rows]
    data = [weight[c] / weight[c].sum() for c in columns]
    where = np.cumsum([0, *(len(c) for c in columns)])
    return csr_array(
        (np.concatenate(data), np.concatenate(columns), where), shape=(len(rows), len(weight))
    )


def target_matrix(sets: Sets, weight: Floats) -> csr_array:
    """Return the matrix of means over target sets, shape (n_targets, n_rows)."""
    return _row_means(sets.targets(), weight)


def gap_matrix(sets: Sets, weight: Floats) -> csr_array:
    """Return A with ``A h`` the gaps: ``A_ji = w_i (1_R / W_R - 1_Gj / W_Gj)``."""
    targets = sets.targets()
    reference = _row_means([sets.in_reference] * len(targets), weight)
    return (reference - _row_means(targets, weight)).tocsr()


@dataclass(frozen=True, eq=False)
class Constraints:
    """Constraints ``matrix @ h <= bound``.

    Attributes
    ----------
    matrix : csr_array of shape (n_constraints, n_rows)
    bound : ndarray of shape (n_constraints,)
    names : list of (str, str)
        What each row says ("gap", "reverse" or "level") of which target set.
    """

    matrix: Any
    bound: Floats
    names: list[tuple[str, str]]

    @classmethod
    def build(
        cls,
        sets: Sets,
        weight: Floats,
        *,
        tolerance: float,
        one_sided: bool,
        floor: Floats | None = None,
    ) -> Constraints:
        """Return gap constraints, and floors under the rates of target sets where given."""
        from scipy.sparse import vstack

        gaps = gap_matrix(sets, weight)
        rows, bounds = [gaps], [np.full(gaps.shape[0], tolerance)]
        names = [("gap", n) for n in sets.names]
        if not one_sided:
            rows.append(-gaps)
            bounds.append(np.full(gaps.shape[0], tolerance))
            names += [("reverse", n) for n in sets.names]
        if floor is not None:
            rows.append(-target_matrix(sets, weight))
            bounds.append(-np.asarray(floor))
            names += [("level", n) for n in sets.names]
        return cls(vstack(rows).tocsr(), np.concatenate(bounds), names)

    def violation(self, h: Floats) -> Floats:
        """Return ``matrix @ h - bound``: above zero where a constraint is broken."""
        return np.asarray(self.matrix @ h - self.bound)

    def gradient(self, multipliers: Floats) -> Floats:
        """Return the derivative of ``multipliers @ violation(h)`` at every decision."""
        return np.asarray(self.matrix.T @ multipliers)


@dataclass(frozen=True, eq=False)
class CellConstraints:
    """The constraints ``A h <= bound`` with A by cell: ``A_ji = weight_i coefficient[j, cell_i]``.

    The denominators are those of all rows, so that a sum over a batch, times n / B, has the
    constraint's value as its mean. A ratio of two sums over a batch has not.

    Attributes
    ----------
    coefficient : ndarray of shape (n_constraints, n_cells)
    cells : ndarray of shape (n_rows,)
    weight : ndarray of shape (n_rows,)
    bound : ndarray of shape (n_constraints,)
    names : list of (str, str)
    """

    coefficient: Floats
    cells: NDArray[np.int64]
    weight: Floats
    bound: Floats
    names: list[tuple[str, str]]

    @classmethod
    def build(
        cls,
        sets: Sets,
        weight: Floats,
        *,
        tolerance: float,
        one_sided: bool,
        floor: Floats | None = None,
    ) -> CellConstraints:
        """Return what :meth:`Constraints.build` describes, in the same order."""
        inside, target = memberships(
            len(sets.groups.labels), sets.effort is not None, sets.reference, sets.everyone
        )
        mass = np.bincount(sets.cells, weights=weight, minlength=len(inside))
        share = target.T / (mass @ target)[:, None]
        gaps = inside / (mass @ inside) - share
        rows, bounds = [gaps], [np.full(len(gaps), tolerance)]
        names = [("gap", n) for n in sets.names]
        if not one_sided:
            rows.append(-gaps)
            bounds.append(bounds[0])
            names += [("reverse", n) for n in sets.names]
        if floor is not None:
            rows.append(-share)
            bounds.append(-np.asarray(floor))
            names += [("level", n) for n in sets.names]
        return cls(
            np.concatenate(rows), sets.cells, np.asarray(weight), np.concatenate(bounds), names
        )

    def violation(self, h: Floats) -> Floats:
        """Return ``A h - bound``."""
        sums = np.bincount(
            self.cells, weights=self.weight * h, minlength=self.coefficient.shape[1]
        )
        return np.asarray(self.coefficient @ sums - self.bound)

    def change(self, rows: NDArray[np.int64], h: Floats) -> Floats:
        """Return what a batch says of ``A h``: right on average over batches."""
        scale = len(self.cells) / len(rows)
        sums = np.bincount(
            self.cells[rows], weights=self.weight[rows] * h, minlength=self.coefficient.shape[1]
        )
        return np.asarray(scale * (self.coefficient @ sums))

    def slope(self, rows: NDArray[np.int64], multipliers: Floats) -> Floats:
        """Return the derivative of ``multipliers @ change(rows, h)`` at each decision."""
        scale = len(self.cells) / len(rows)
        by_cell = multipliers @ self.coefficient
        return np.asarray(scale * self.weight[rows] * by_cell[self.cells[rows]])
