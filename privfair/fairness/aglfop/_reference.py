"""The program as the paper states it, through cvxpy: slow, and shares nothing with the fast one.

Used as an independent check, ``aglfop(..., solver="cvxpy")``: other variables (the whole joint
of label and decision), another modelling layer, other solver settings. It proves
nothing: its lower bound is NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.special import rel_entr

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._program import (
    INFORMATION_TOLERANCE,
    OraclePoint,
    OracleProgram,
)

__all__ = ["solve_full"]


def solve_full(program: OracleProgram, bounds: Mapping[str, float | None]) -> OraclePoint:
    """Solve over Q(z, s, y, k) for the bounds "global" and "local", in nats."""
    import cvxpy as cp

    p = program.p
    n_z, n_s, n_y = p.shape
    q = {
        (z, s): cp.Variable((n_y, n_y), nonneg=True)
        for z in range(n_z)
        for s in range(n_s)
        if program.cell_mass[z, s] > 0
    }
    rules = [cp.sum(v, axis=1) == p[z, s] for (z, s), v in q.items()]
    m = {cell: cp.sum(v, axis=0) for cell, v in q.items()}
    error = sum(program.flip[cell] * (cp.sum(v) - cp.trace(v)) for cell, v in q.items())
    pairs: dict[str, list[tuple[cp.Expression, cp.Expression]]] = {"global": [], "local": []}
    whole = sum(m.values())
    share = program.cell_mass.sum(axis=1)
    for z in range(n_z):
        own = [v for (group, _), v in m.items() if group == z]
        if own:
            pairs["global"].append((sum(own), share[z] * whole))
    for s in range(n_s):
        inside = {z: v for (z, client), v in m.items() if client == s}
        for z, v in inside.items():
            part = program.cell_mass[z, s] / program.cell_mass[:, s].sum()
            pairs["local"].append((v, part * sum(inside.values())))
    held: dict[str, cp.Constraint] = {}
    for name, eps in bounds.items():
        if eps is None:
            continue
        if eps == 0.0:
            rules += [left == right for left, right in pairs[name]]
        else:
            held[name] = sum(cp.sum(cp.rel_entr(a, b)) for a, b in pairs[name]) <= eps
            rules.append(held[name])
    problem = cp.Problem(cp.Minimize(error), rules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "may be inaccurate" is read from the status below
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    if problem.status not in {"optimal", "optimal_inaccurate"}:
        raise SolverError(f"cvxpy ended with status {problem.status}.", status=problem.status)
    masses = np.zeros(p.shape)
    for cell, v in m.items():
        masses[cell] = np.maximum(v.value, 0.0)
    off = float(np.abs(masses.sum(axis=2) - program.cell_mass).max())
    values = {}
    for name, both in pairs.items():
        sides = [
            (np.asarray(a.value, dtype=float), np.asarray(b.value, dtype=float)) for a, b in both
        ]
        values[name] = float(
            sum(rel_entr(np.maximum(a, 0), np.maximum(b, 0)).sum() for a, b in sides)
        )
    broken = [
        name
        for name, eps in bounds.items()
        if eps is not None and not values[name] <= eps + INFORMATION_TOLERANCE
    ]
    if off > 1e-6 or broken:
        raise SolverError(
            f"cvxpy's answer (status {problem.status}) misses the masses by {off:.1e} or exceeds "
            f"the bounds {broken}.",
            status=problem.status,
        )
    prices = {name: float(np.asarray(rule.dual_value).item()) for name, rule in held.items()}
    asked = {name: eps for name, eps in bounds.items() if eps is not None}
    for name in asked:
        prices.setdefault(name, np.inf)
    return OraclePoint(
        asked, masses, float(problem.value), float("nan"), prices, values, {},
        False, "solved" if problem.status == "optimal" else "almost_solved",
        int(problem.solver_stats.num_iters or 0),
    )  # fmt: skip
