"""Bounds next to zero, where exponential cones lose their digits: expansions and their proof.

Near independence an information is quadratic in the distance d from it, and d is of the order
sqrt(eps). In units of sqrt(eps) the program is one of second-order cones whose numbers are of size
one whatever eps (``_cones.Expansion``). Its solution is the centre of the next expansion: Newton's
method for the constraint. Every step gives a decision, moved towards the one at zero until it
keeps the bounds exactly, and potentials, whose lower bound is exact; so the best of each is proven
however well the expansion did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._cones import Expansion
from privfair.fairness.aglfop._information import Information
from privfair.fairness.aglfop._solver import BudgetProgram, Solution

__all__ = ["WANTED", "Proof", "answered"]

Array = NDArray[np.float64]
Proof = tuple[float, dict[str, Array], dict[str, float]]

# Bounds (nats) below the first are held at zero. Below the second the exponential cones lose their
# digits. Below the third expansions are worth a try where the cones fail.
AS_ZERO = 1e-15
NEARLY_ZERO = 1e-5
SMALL = 1e-3
WANTED = 1e-6  # a proven gap with which nothing else is tried

STEPS = 8
ENOUGH = 1e-7  # a proven gap at which nothing is gained by another step
FACTORS = (1.0, 0.98, 1.02, 0.9, 1.1, 0.6, 1.6, 0.25, 4.0)
# Bounds below this share of the largest are set to zero first; which share is best varies.
APART = (1e-2, 1e-4, 0.5)
ROUNDING = 1e-9
LEAST_RATIO = -0.98  # at -1, a mass of zero, the expansion's curvature is infinite


class _Point(Protocol):
    @property
    def error(self) -> float: ...
    @property
    def lower(self) -> float: ...
    @property
    def prices(self) -> dict[str, float]: ...
    @property
    def potentials(self) -> dict[str, Array]: ...
    @property
    def n_iter(self) -> int: ...
    @property
    def decision(self) -> Array: ...


P = TypeVar("P", bound=_Point)
P_co = TypeVar("P_co", bound=_Point, covariant=True)


class Program(Protocol[P_co]):
    """What a program must offer; a decision is an array in which its error is convex."""

    informations: dict[str, Information]

    def attempt(self, asked: dict[str, float], needed: dict[str, float], held: set[str]) -> P_co:
        """Solve with cones, the bounds in ``held`` kept at zero."""

    def cones(
        self, key: tuple[tuple[str, bool], ...], expansions: Mapping[str, Expansion]
    ) -> BudgetProgram:
        """Return the program with these informations, (True) held at zero or expanded."""

    def decided(self, found: Solution) -> Array:
        """Return the decision of a solution, checked."""

    def inside(self, decision: Array, bounds: Mapping[str, float]) -> Array:
        """Return a decision that keeps bounds exactly."""

    def error_of(self, decision: Array) -> float:
        """Return the error of a decision."""

    def informations_of(self, decision: Array) -> dict[str, float]:
        """Return every information of a decision."""

    def ratio_of(self, name: str, decision: Array) -> Array:
        """Return m(z, c, k) / (p(z|c) m(., c, k)) - 1 of a decision."""

    def proven(
        self,
        potentials: Mapping[str, Array],
        prices: Mapping[str, float],
        bounds: Mapping[str, float],
        found: Solution | None,
    ) -> Proof:
        """Return a lower bound of the error at ``bounds``."""

    def point(
        self,
        asked: dict[str, float],
        decision: Array,
        proof: Proof,
        found: Solution | None,
        n_iter: int,
    ) -> P_co:
        """Return the answer, or raise if its proof is not good enough for one."""


def answered(program: Program[P], asked: dict[str, float], needed: dict[str, float]) -> P:
    """Solve for the bounds in ``needed`` by the form that their size asks for.

    Parameters
    ----------
    program : Program
    asked, needed : dict
        Bounds in nats; those asked for, and those of them that can matter.

    Raises
    ------
    SolverError
        No form gave an answer.
    """
    held = {name for name, eps in needed.items() if eps <= AS_ZERO}
    small = {name for name, eps in needed.items() if AS_ZERO < eps < SMALL}
    tiny = {name for name in small if needed[name] < NEARLY_ZERO}
    if tiny:
        return _best_expanded(program, asked, needed, held, tiny)
    try:
        point = program.attempt(asked, needed, held)
    except SolverError:
        if not small:
            raise
        return _best_expanded(program, asked, needed, held, small)
    if small and not point.error - point.lower <= WANTED:
        try:
            other = _best_expanded(program, asked, needed, held, small)
        except SolverError:
            return point
        return min(point, other, key=lambda one: one.error - one.lower)
    return point


def _best_expanded(
    program: Program[P],
    asked: dict[str, float],
    needed: dict[str, float],
    held: set[str],
    tiny: set[str],
) -> P:
    """Solve with the bounds in ``tiny`` expanded, in another order where one does not do."""
    best: P | None = None
    failed: SolverError | None = None
    largest = max(asked[n] for n in tiny)
    tried: list[set[str]] = []
    for apart in APART:
        least = {n for n in tiny if asked[n] < apart * largest}
        if least in tried:
            continue
        tried.append(least)
        try:
            point = _expanded(program, asked, needed, held, tiny, apart)
        except SolverError as error:
            failed = failed or error
            continue
        if best is None or point.error - point.lower < best.error - best.lower:
            best = point
        if best.error - best.lower <= WANTED:
            break
    if best is None:
        raise failed or SolverError("no expansion gave an answer.")
    return best


def _expanded(
    program: Program[P],
    asked: dict[str, float],
    needed: dict[str, float],
    held: set[str],
    tiny: set[str],
    apart: float,
) -> P:
    """Solve with the bounds in ``tiny`` expanded, from the answer with them at zero."""
    least = {n for n in tiny if asked[n] < apart * max(asked[m] for m in tiny)}
    at_zero = asked | dict.fromkeys(least or tiny, 0.0)
    if least:  # what it takes to keep the least bound should not cost the others
        zero = _expanded(program, at_zero, needed, held | least, tiny - least, apart)
    else:
        zero = program.attempt(at_zero, needed, held | tiny)
    best = _proven(program, asked, zero.potentials, zero.prices, None, -np.inf)
    best_found: Solution | None = None
    decision, error, n_iter = zero.decision, zero.error, zero.n_iter
    ratios = {name: np.zeros_like(zero.potentials[name]) for name in tiny}
    key = tuple((name, name in held) for name in sorted(needed))
    bounds = {n: e for n, e in needed.items() if n not in held and n not in tiny}
    for _ in range(STEPS):
        expansions = {name: Expansion(asked[name], ratio) for name, ratio in ratios.items()}
        try:
            found = program.cones(key, expansions).solve(bounds)
            new = program.decided(found)
            inside = _inside(program, new, zero.decision, asked, held, tiny)
        except SolverError:
            break
        n_iter += found.n_iter
        if program.error_of(inside) < error:
            decision, error = inside, program.error_of(inside)
        prices = {name: found.price(name) if name in needed else 0.0 for name in asked}
        proof = _proven(program, asked, found.potentials(), prices, found, error)
        if proof[0] > best[0]:
            best, best_found = proof, found
        if error - best[0] <= ENOUGH:
            break
        ratios = {n: np.maximum(program.ratio_of(n, new), LEAST_RATIO) for n in tiny}
    if not error - best[0] <= WANTED:
        # A decision that is never taken at zero has an information linear in how often it is
        # taken: no expansion fits, but the price hardly changes, and wider bounds have it.
        wide = {name: NEARLY_ZERO / min(asked[n] for n in tiny) * asked[name] for name in tiny}
        try:
            other = program.attempt(asked | wide, needed | wide, held)
        except SolverError:
            return program.point(asked, decision, best, best_found, n_iter)
        inside = _inside(program, other.decision, zero.decision, asked, held, tiny)
        if program.error_of(inside) < error:
            decision, error = inside, program.error_of(inside)
        proof = _proven(program, asked, other.potentials, other.prices, None, error)
        if proof[0] > best[0]:
            best, best_found = proof, None
    return program.point(asked, decision, best, best_found, n_iter)


def _inside(
    program: Program[Any],
    decision: Array,
    zero: Array,
    asked: Mapping[str, float],
    held: set[str],
    tiny: set[str],
) -> Array:
    """Return the decision, moved towards the one at zero as far as the bounds demand."""
    decision = program.inside(decision, {n: e for n, e in asked.items() if n not in held | tiny})
    for power in (0.5, 0.5, 0.5, 1.0, 1.0):  # near zero it is quadratic, and always convex
        values = program.informations_of(decision)
        keep = min((asked[n] / values[n] for n in tiny if values[n] > asked[n]), default=1.0)
        if keep == 1.0:
            return decision
        keep = keep**power if power < 1.0 else keep * (1.0 - ROUNDING)
        decision = zero + keep * (decision - zero)
    values = program.informations_of(decision)
    return decision if all(values[n] <= asked[n] for n in tiny) else zero


def _proven(
    program: Program[Any],
    asked: Mapping[str, float],
    potentials: Mapping[str, Array],
    prices: Mapping[str, float],
    found: Solution | None,
    error: float,
) -> Proof:
    """Return the best proof from potentials at prices near these, or one that will do."""
    proofs = []
    known = {name: prices[name] for name in asked}
    for name, price in known.items():
        if np.isinf(price) and asked[name] > 0.0:
            known[name] = program.informations[name].finite_price(potentials[name], asked[name])
    for factor in FACTORS:
        near = {
            n: factor * price if 0.0 < asked[n] < SMALL else price for n, price in known.items()
        }
        shifted = {
            n: program.informations[n].potential(h, near[n]) if near.get(n, 0.0) > 0.0 else h * 0.0
            for n, h in potentials.items()
        }
        proofs.append(program.proven(shifted, near, asked, found))
        if error - proofs[-1][0] <= ENOUGH:
            break
    return max(proofs, key=lambda proof: proof[0])
