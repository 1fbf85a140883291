"""Among the best answers, the one of least disparity: optimal masses are not unique.

Accuracy and prices are; disparities of a bound that does not bind, and with them any picture of
the optimum, are whatever the solver happened to stop at. A second program fixes the error and
minimises global plus local disparity.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._cones import Assembled, Builder
from privfair.fairness.aglfop._program import OraclePoint, OracleProgram
from privfair.fairness.aglfop._rule_program import RulePoint, RuleProgram
from privfair.fairness.aglfop._solver import BudgetProgram

__all__ = ["ERROR_SLACK", "least_disparity", "least_disparity_rule"]

ERROR_SLACK = 1e-6


def least_disparity(program: OracleProgram, point: OraclePoint) -> OraclePoint:
    """Return a point of (almost) the same error with the least global + local disparity."""
    if point.error == 0.0:
        return point  # the labels themselves, and nothing else
    held = {name for name, eps in point.bounds.items() if eps == 0.0}
    both = {name for name in ("global", "local") if not program.informations[name].vacuous}
    names = sorted({*both, *point.bounds} - held)
    names = [n for n in names if not program.informations[n].vacuous]
    if not set(names) & both:
        return point
    key = tuple((n, n in held) for n in sorted({*names, *held})
                if not program.informations[n].vacuous)  # fmt: skip
    base = program.assembled(key)
    extended = _with_objective(base, sorted(set(names) & both), program, point.error)
    bounds = {
        name: point.bounds[name] if name in point.bounds else program.informations[name].ceiling
        for name in names
    }
    found = BudgetProgram(extended, tol=1e-9).solve(bounds)
    masses = program.masses_of(found.x)
    values = program.informations_of(masses)
    error = program.error_of(masses)
    if not error <= point.error + 10 * ERROR_SLACK:
        raise SolverError(
            f"the choice among best answers raised the error by {error - point.error:.1e}.",
            status=found.status,
        )
    total = sum(point.informations[name] for name in both)
    if sum(values[name] for name in both) > total:  # the first was better after all
        return point
    return replace(point, masses=masses, informations=values)


def least_disparity_rule(program: RuleProgram, point: RulePoint) -> RulePoint:
    """Return a rule of (almost) the same cost with the least global + local disparity.

    Parameters
    ----------
    program : RuleProgram
        Of one criterion and without linear gaps.
    point : RulePoint
        Its optimum at some bounds.
    """
    real = {name for name, info in program.informations.items() if not info.vacuous}
    both = sorted({"global", "local"} & real)
    ordered = np.sort(program.cost, axis=1)
    tied = ordered[:, 1:2] - ordered[:, :1] <= ERROR_SLACK / program.cost.size
    if not both or (point.status == "free" and not tied.any()):
        return point  # nothing to choose
    n = program.cost.size
    builder = Builder(np.zeros(n))
    rows = sparse.kron(sparse.eye_array(len(program.cost)), np.ones((1, program.n_k)))
    builder.equal(sparse.csr_array(rows), np.ones(len(program.cost)))
    builder.below(-sparse.eye_array(n, format="csr"), np.zeros(n))
    cost = sparse.csr_array(program.cost.reshape(1, -1))
    builder.below(cost, np.array([point.error + ERROR_SLACK]))
    held = {name for name, eps in point.bounds.items() if eps == 0.0} & real
    free = sorted(({*both, *point.bounds} & real) - held)
    if not set(free) & set(both):
        return point
    for name in (*sorted(held), *free):
        builder.information(program.informations[name], exact=name in held)
    base = builder.build()
    row_of, matrix = base.bounded(), sparse.csr_array(base.matrix)
    target = np.zeros(base.cost.size)
    for name in set(free) & set(both):
        target += matrix[[row_of[name]]].toarray()[0]  # what the bound counts
    bounds = {name: point.bounds.get(name, program.informations[name].ceiling) for name in free}
    found = BudgetProgram(replace(base, cost=target), tol=1e-9).solve(bounds)
    weights = np.maximum(found.x.reshape(program.cost.shape), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    error = program.error_of(weights)
    if not error <= point.error + 10 * ERROR_SLACK:
        raise SolverError(
            f"the choice among best rules raised the cost by {error - point.error:.1e}.",
            status=found.status,
        )
    values = {n: info.value(weights.ravel()) for n, info in program.informations.items()}
    if sum(values[n] for n in both) > sum(point.informations[n] for n in both):
        return point  # the first was better after all
    return replace(point, weights=weights, informations=values)


def _with_objective(
    base: Assembled, names: list[str], program: OracleProgram, error: float
) -> Assembled:
    """Return the program with sum t as its cost, and its former cost held."""
    whole = float((program.cell_mass * program.flip).sum())
    cost = np.zeros(base.cost.size)
    row_of = base.bounded()
    for name in names:
        # The row of a bound is sum(scale / total * t) <= eps: its entries are what t counts.
        cost += sparse.csr_array(base.matrix)[[row_of[name]]].toarray()[0]
    at = base.n_equalities
    matrix = sparse.csr_array(base.matrix)
    held = sparse.csr_array(base.cost[None, :])
    stacked = sparse.vstack([matrix[:at], held, matrix[at:]])
    right = np.insert(base.b, at, error - whole + ERROR_SLACK)
    moved = tuple(
        part if part.exact else replace(part, row=part.row + 1, first=part.first + 1)
        for part in base.informations
    )
    return replace(
        base, cost=cost, matrix=sparse.csc_array(stacked), b=right,
        n_inequalities=base.n_inequalities + 1, informations=moved,
    )  # fmt: skip
