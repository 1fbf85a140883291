"""The smallest relabelling that makes labels nearly independent of a group: the reduced program.

For given masses of the decision the best joint with the labels has the total variation as its
error (``_relabelling``). So the program over Q(z, s, y, k) reduces to masses m(z, s, k) and their
overlap c <= min(p, m): |Z||S|m variables twice, instead of |Z||S|m^2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._cones import Assembled, Builder, Expansion
from privfair.fairness.aglfop._information import charge_held, pooled_map
from privfair.fairness.aglfop._near_zero import Proof, answered
from privfair.fairness.aglfop._relabelling import Relabelling
from privfair.fairness.aglfop._solver import (
    BudgetProgram,
    Solution,
    UnprovenError,
    without_noise,
)

__all__ = ["OraclePoint", "OracleProgram"]

Array = NDArray[np.float64]

LN2 = float(np.log(2.0))
MARGINAL_TOLERANCE = 1e-9
INFORMATION_TOLERANCE = 1e-6 * LN2  # nats
# Proven gaps: up to the first an answer is "solved", up to the second "reduced_accuracy", and
# beyond it none. The solver's own word is not enough for either.
GAP_SOLVED = 1e-6
GAP_REDUCED = 5e-3
LARGEST = 20.0


@dataclass(frozen=True, eq=False)
class OraclePoint:
    """One solved and checked point; information in nats.

    Attributes
    ----------
    bounds : dict
        The bounds solved for, ``None`` left out.
    masses : ndarray of shape (n_z, n_s, n_k)
        Optimal m(z, s, k), exact in p(z, s).
    error : float
        Weighted error of ``masses``, which keep the bounds exactly.
    lower : float
        Proven lower bound of the error at these bounds.
    prices : dict
        Per nat; ``inf`` for a bound of zero that costs something.
    informations : dict
        Values at ``masses``.
    potentials : dict
        Normalised dual potentials, for certificates elsewhere.
    degenerate : bool
        Whether only a combination of the prices is determined.
    status : str
    n_iter : int
    """

    bounds: dict[str, float]
    masses: Array
    error: float
    lower: float
    prices: dict[str, float]
    informations: dict[str, float]
    potentials: dict[str, Array]
    degenerate: bool
    status: str
    n_iter: int

    @property
    def decision(self) -> Array:
        """The masses, by the name that all programs share."""
        return self.masses


class OracleProgram(Relabelling):
    """All points of one table p(z, s, y): assembled once per kind of bound, then reused.

    Parameters
    ----------
    p : ndarray of shape (n_z, n_s, n_k)
        Sums to one. Empty cells (z, s) and labels that never occur take no variables.
    clients : iterable of int
        Clients that may get a bound of their own, named ``client:s``.
    flip_cost : ndarray of shape (n_s,) or None
        Cost of a wrong decision in each client; None for one.
    tol : float
    """

    def __init__(
        self,
        p: Array,
        *,
        clients: Iterable[int] = (),
        flip_cost: Array | None = None,
        tol: float = 1e-11,
    ) -> None:
        super().__init__(p, clients=clients, flip_cost=flip_cost)
        self.tol = tol
        self._programs: dict[tuple[tuple[str, bool], ...], BudgetProgram] = {}

    def solve(self, bounds: Mapping[str, float | None]) -> OraclePoint:
        """Return the optimum under ``bounds`` (nats), checked; see :class:`OraclePoint`."""
        asked = {name: float(eps) for name, eps in bounds.items() if eps is not None}
        if all(self.of_labels[name] <= eps for name, eps in asked.items()):
            return self._perfect(asked)
        needed = {
            name: eps
            for name, eps in asked.items()
            if not self.informations[name].vacuous
            and eps < self.informations[name].ceiling * (1 - 1e-12)
        }
        return answered(self, asked, needed)

    def attempt(
        self, asked: dict[str, float], needed: dict[str, float], held: set[str]
    ) -> OraclePoint:
        """Solve with the bounds in ``held`` kept at zero."""
        key = tuple((name, name in held) for name in sorted(needed))
        if key not in self._programs:
            self._programs[key] = self.cones(key)
        best, failed = None, None
        for found in self._programs[key].answers(
            {n: e for n, e in needed.items() if n not in held}
        ):
            try:
                point = self._checked(asked, needed, held, found)
            except UnprovenError as error:
                failed = error
                continue
            if best is None or point.error - point.lower < best.error - best.lower:
                best = point
            if best.status == "solved":
                break
        if best is None:
            raise failed or SolverError("the cone solver gave no answer.")
        return best

    def cones(
        self,
        key: tuple[tuple[str, bool], ...],
        expansions: Mapping[str, Expansion] | None = None,
    ) -> BudgetProgram:
        """Return the program with these informations, (True) held at zero or expanded."""
        return BudgetProgram(self.assembled(key, expansions), tol=self.tol)

    def assembled(
        self,
        key: tuple[tuple[str, bool], ...],
        expansions: Mapping[str, Expansion] | None = None,
    ) -> Assembled:
        """Return the matrices with these informations, bounded or (True) held at zero."""
        builder = self._linear.linear()
        for name, exact in key:
            builder.information(
                self.informations[name], exact=exact, expansion=(expansions or {}).get(name)
            )
        return builder.build()

    @cached_property
    def _linear(self) -> Builder:
        n_k = self.labels.size
        n_cells = self.z.size
        n_w = n_cells * n_k
        overlap = np.flatnonzero(self._rate.ravel() > 0)  # c <= p = 0 needs no variable
        cost = (self._cell_weight * self.flip[self.z, self.s]).repeat(n_k)
        builder = Builder(np.concatenate([np.zeros(n_w), -cost[overlap]]))
        builder.equal(pooled_map(np.arange(n_w) // n_k, n_cells), np.ones(n_cells))
        own = pooled_map(np.arange(n_w), n_w)
        place = np.full(n_w + overlap.size, -1)
        place[n_w:] = np.arange(overlap.size)
        c = pooled_map(place, overlap.size)
        of_overlap = np.full(n_w + overlap.size, -1)
        of_overlap[overlap] = np.arange(overlap.size)
        builder.below(c - pooled_map(of_overlap, overlap.size), np.zeros(overlap.size))
        builder.below(c, self._rate.ravel()[overlap])
        builder.below(-own, np.zeros(n_w))
        return builder

    def _perfect(self, asked: dict[str, float]) -> OraclePoint:
        zero = dict.fromkeys(asked, 0.0)
        values = dict(self.of_labels)
        return OraclePoint(
            asked, self.p.copy(), 0.0, 0.0, zero, values, {}, False, "labels_feasible", 0
        )

    def _checked(
        self,
        asked: dict[str, float],
        needed: dict[str, float],
        held: set[str],
        found: Solution,
    ) -> OraclePoint:
        masses = self.decided(found)
        self._check(asked, self.informations_of(masses), self.error_of(masses), found)
        masses = self.inside(masses, {n: eps for n, eps in asked.items() if n not in held})
        potentials = found.potentials()
        prices = {name: found.price(name) if name in needed else 0.0 for name in asked}
        charge_held(self.informations, potentials, prices, {n: asked[n] for n in held})
        proof = self.proven(potentials, prices, asked, found)
        return self.point(asked, masses, proof, found, found.n_iter)

    def decided(self, found: Solution) -> Array:
        """Return the masses of a solution, if it keeps those of the cells."""
        n_k = self.labels.size
        rate = found.x[: self.z.size * n_k].reshape(-1, n_k)
        off = float(np.abs(rate.sum(axis=1) - 1.0).max() + max(0.0, -float(rate.min())))
        if not off <= 1e-6:
            raise SolverError(
                f"the solver's answer misses the cell masses by {off:.1e} (status "
                f"{found.status}), so that it is no answer. Ask for a larger tol or larger "
                "bounds.",
                status=found.status,
            )
        return self.masses_of(found.x)

    def proven(
        self,
        potentials: Mapping[str, Array],
        prices: Mapping[str, float],
        bounds: Mapping[str, float],
        found: Solution | None = None,
    ) -> Proof:
        """Return the best of what potentials and prices prove, whole or in part, and which.

        Parts are: without bounds that do not bind; and without large potentials. One of many
        times what a decision can cost is often rounding, divided by the weight of a group that
        hardly occurs; every context and outcome has a potential of its own, and can do without.
        """
        finite = {name: price for name, price in prices.items() if np.isfinite(price)}
        choices = [(dict(potentials), finite), without_noise(potentials, finite)]
        limit = LARGEST * float(self.flip.max())
        if any(np.abs(h).max(initial=0.0) > limit for h in potentials.values()):
            choices += [
                ({n: np.where(np.abs(h).max(axis=0) > limit, 0.0, h) for n, h in some.items()}, at)
                for some, at in choices
            ]
        proofs = [(self.lower_bound(some, at, bounds), some, at) for some, at in choices]
        lower, some, at = max(proofs, key=lambda proof: proof[0])
        return lower, some, dict(prices) | at

    def point(
        self,
        asked: dict[str, float],
        masses: Array,
        proof: Proof,
        found: Solution | None,
        n_iter: int,
    ) -> OraclePoint:
        """Return an answer with its status, if its proof is good enough for one."""
        lower, potentials, prices = proof
        error = self.error_of(masses)
        status = self._status(error - lower, "unknown" if found is None else found.status)
        finite = {name: price for name, price in prices.items() if np.isfinite(price)}
        degenerate = self.degenerate(masses, potentials, finite)
        prices = dict(prices)
        for name, price in prices.items():
            if not np.isfinite(price):
                flat = np.abs(potentials[name]).max() <= 1e-6
                prices[name] = 0.0 if flat else np.inf
        return OraclePoint(
            asked, masses, error, lower, prices, self.informations_of(masses), potentials,
            degenerate, status, n_iter,
        )  # fmt: skip

    def _check(
        self, asked: dict[str, float], values: dict[str, float], error: float, found: Solution
    ) -> None:
        for name, eps in asked.items():
            if not values[name] <= eps + INFORMATION_TOLERANCE:
                raise SolverError(
                    f"the solver's answer (status {found.status}) exceeds the {name} bound by "
                    f"{(values[name] - eps) / LN2:.1e} bits. Use exactly 0 or a larger bound.",
                    status=found.status,
                )
        whole = float((self.cell_mass * self.flip).sum())
        promised = whole + found.cost
        if not abs(error - promised) <= 1e-6:
            raise SolverError(
                f"the solver promised an error of {promised:.8f} and its answer has {error:.8f} "
                f"(status {found.status}).",
                status=found.status,
            )

    def _status(self, gap: float, solver_status: str) -> str:
        if not gap <= GAP_REDUCED:
            raise UnprovenError(
                f"the solver stopped with status {solver_status} and the proven gap of its "
                f"answer is {gap:.1e}, too much. Use exactly 0 or a larger bound.",
                status=solver_status,
            )
        return "solved" if gap <= GAP_SOLVED else "reduced_accuracy"
