"""One cone program, assembled once and solved for many bounds.

The bounds stand in single entries of the right-hand side, which Clarabel replaces in place; the
factorisation's structure, scaling and memory are kept. The seam for other programs:

>>> import numpy as np
>>> from privfair.fairness.aglfop._cones import Builder
>>> from privfair.fairness.aglfop._information import Information, pooled_map
>>> from privfair.fairness.aglfop._solver import BudgetProgram

Two groups of equal size, x(z, k) their decisions, a cost for every decision against the label:

>>> builder = Builder(cost=np.array([1.0, 0.0, 0.0, 1.0]))
>>> builder.equal(pooled_map(np.array([0, 0, 1, 1]), 2), np.array([0.5, 0.5]))
>>> builder.below(-pooled_map(np.arange(4), 4), np.zeros(4))
>>> builder.information(Information("global", pooled_map(np.arange(4), 4), np.full((2, 1), 0.5)))
>>> program = BudgetProgram(builder.build())
>>> [round(program.solve({"global": eps}).cost, 4) for eps in (0.1, 0.2)]
[0.2802, 0.1948]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._cones import Assembled, ConeRows

__all__ = ["BudgetProgram", "Solution", "UnprovenError", "without_noise"]

Array = NDArray[np.float64]

_GOOD = {"Solved": "solved", "AlmostSolved": "almost_solved"}
# Step rules tried one after the other: (fraction of the way to the cones' boundary, backtracking
# factor, equilibration). Shorter steps lose little and keep clear of the boundary, where the
# exponential cones lose their digits; the first is already more careful than the solver's own.
_STEPS = ((0.95, 0.9, True), (0.9, 0.9, True), (0.97, 0.9, False), (0.8, 0.95, True))


_NOISE = 1e-6  # per nat: a multiplier of a bound that does not bind


class UnprovenError(SolverError):
    """An answer that keeps its bounds, and whose own proof says too little about the best one."""


def without_noise(
    potentials: Mapping[str, Array], prices: Mapping[str, float]
) -> tuple[dict[str, Array], dict[str, float]]:
    """Return potentials and prices without those of bounds that do not bind.

    At a price of next to nothing a potential is digits of rounding blown up, which can cost a
    proof far more than the bound is worth; zero is a potential too.
    """
    idle = {name for name, price in prices.items() if price <= _NOISE}
    return (
        {name: h * 0.0 if name in idle else h for name, h in potentials.items()},
        {name: 0.0 if name in idle else price for name, price in prices.items()},
    )


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver found for one choice of bounds.

    Attributes
    ----------
    x : ndarray of shape (n_variables,)
        The program's own variables.
    z : ndarray
        Multipliers of all rows.
    cost, dual_cost : float
        Primal and dual objective.
    status : {"solved", "almost_solved"}
    n_iter : int
    informations : tuple of ConeRows
    n_equalities : int
        Rows that are equalities; they come first.
    steps : int
        Which of the solver's step rules it took.
    """

    x: Array
    z: Array
    cost: float
    dual_cost: float
    status: str
    n_iter: int
    informations: tuple[ConeRows, ...]
    n_equalities: int
    steps: int = 0

    def price(self, name: str) -> float:
        """Return -d(cost)/d(eps) per nat; 0 for a bound that the program does not have."""
        for part in self.informations:
            if part.information.name == name:
                return part.price(self.z)
        return 0.0

    def potentials(self) -> dict[str, Array]:
        """Return the normalised potential of every information, see ``_cones``."""
        return {part.information.name: part.potential(self.z) for part in self.informations}


class BudgetProgram:
    """A cone program whose bounds change from one solve to the next.

    Parameters
    ----------
    assembled : Assembled
    tol : float, default=1e-11
        Relative and absolute gap, and feasibility, at which the solver stops. Feasibility of
        1e-8 would let a bound of 1e-4 bits slip by one part in 10^4, and the error with it; the
        last digits cost few iterations. Where rounding ends the progress first, the status is
        "almost_solved".
    max_iter : int, default=300
    """

    def __init__(self, assembled: Assembled, *, tol: float = 1e-11, max_iter: int = 300) -> None:
        self.assembled = assembled
        self.tol = tol
        self.max_iter = max_iter
        self._bounded = assembled.bounded()
        self._b = assembled.b.copy()
        self._solver: Any = None
        self._steps = _STEPS[0]

    def solve(self, bounds: Mapping[str, float]) -> Solution:
        """Solve for given bounds.

        Parameters
        ----------
        bounds : mapping of str to float
            One bound > 0, in nats, for each information that is not held at zero.

        Returns
        -------
        Solution

        Raises
        ------
        SolverError
            The solver stopped without an answer; its status is in the message and in
            ``.status``. An answer of reduced accuracy is returned with status "almost_solved".
            Callers check every answer and prove its gap, see ``_program``.
        """
        missing = set(self._bounded) ^ set(bounds)
        if missing:
            raise KeyError(f"bounds and program differ in {sorted(missing)}")
        for name, value in bounds.items():
            self._b[self._bounded[name]] = value
        for i, steps in enumerate(_STEPS):
            found = self._attempt(steps)
            if str(found.status) in _GOOD:
                return self._solution(found, i)
        self._solver = None
        raise SolverError(
            f"the cone solver stopped with status {found.status} after {found.iterations} "
            "iterations, so that there is no answer. Bounds far below 1e-5 bits are the "
            "usual reason: use exactly 0 or a larger one.",
            status=str(found.status),
        )

    def answers(self, bounds: Mapping[str, float]) -> Iterator[Solution]:
        """Yield the answer of :meth:`solve`, then those of the step rules that it did not need.

        For callers whose own proof finds an answer wanting that the solver calls solved.
        """
        first = self.solve(bounds)
        yield first
        for i in range(first.steps + 1, len(_STEPS)):
            found = self._attempt(_STEPS[i])
            if str(found.status) in _GOOD:
                yield self._solution(found, i)

    def _solution(self, found: Any, steps: int) -> Solution:
        return Solution(
            x=np.asarray(found.x)[: self.assembled.n_variables],
            z=np.asarray(found.z),
            cost=float(found.obj_val),
            dual_cost=float(found.obj_val_dual),
            status=_GOOD[str(found.status)],
            n_iter=int(found.iterations),
            informations=self.assembled.informations,
            n_equalities=self.assembled.n_equalities,
            steps=steps,
        )

    def _attempt(self, steps: tuple[float, float, bool]) -> Any:
        if self._solver is None or steps != self._steps:
            self._solver, self._steps = self._fresh(steps), steps
        else:
            self._solver.update(b=self._b)
        return self._solver.solve()

    def _fresh(self, steps: tuple[float, float, bool]) -> Any:
        import clarabel
        from scipy import sparse

        a = self.assembled
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.presolve_enable = False  # in-place updates need the rows as they are
        settings.max_threads = 1
        settings.max_iter = self.max_iter
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = self.tol
        settings.max_step_fraction, settings.linesearch_backtrack_step, equilibrate = steps
        settings.equilibrate_enable = equilibrate
        settings.reduced_tol_gap_abs = settings.reduced_tol_gap_rel = 1e-7
        settings.reduced_tol_feas = 1e-8
        n = a.cost.size
        cones: list[Any] = []
        if a.n_equalities:
            cones.append(clarabel.ZeroConeT(a.n_equalities))
        if a.n_inequalities:
            cones.append(clarabel.NonnegativeConeT(a.n_inequalities))
        cones += [clarabel.SecondOrderConeT(3)] * a.n_quadratic
        cones += [clarabel.ExponentialConeT()] * a.n_cones
        quadratic, matrix = sparse.csc_matrix((n, n)), sparse.csc_matrix(a.matrix)
        return clarabel.DefaultSolver(quadratic, a.cost, matrix, self._b, cones, settings)
