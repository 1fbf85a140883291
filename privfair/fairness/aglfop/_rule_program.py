"""The best randomised rule on top of given scores, under bounds on disparity: the program.

Variables are W(k | what the rule may see), one block per visible cell, so that a rule that is
blind to a column has fewer variables and no equality rows. Cost and masses are linear in W
(``_rule_costs``), which is all that the cones of ``_cones`` ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._cones import Builder, Expansion
from privfair.fairness.aglfop._information import charge_held, pooled_map
from privfair.fairness.aglfop._near_zero import WANTED, Proof, answered
from privfair.fairness.aglfop._rule_costs import ACCESS, LN2, RuleCosts
from privfair.fairness.aglfop._solver import (
    BudgetProgram,
    Solution,
    UnprovenError,
    without_noise,
)

__all__ = ["ACCESS", "LN2", "RulePoint", "RuleProgram"]

Array = NDArray[np.float64]

CERTIFIED = 1e-5  # an answer whose own proof is worse than this is no answer
# Where the solver gives up at a bound, it often solves one next to it; a rule within a tighter
# bound is within the bound, and what it loses its proof says.
_TIGHTER = (1.0, 0.9995, 0.998)
PRICE_NOISE = 1e-5  # per nat: below this a multiplier of an inactive bound is what it is


@dataclass(frozen=True, eq=False)
class RulePoint:
    """One solved and checked point; information in nats, as :class:`RuleProgram` solves it.

    Attributes
    ----------
    bounds : dict
        The bounds on information that were asked for, None left out.
    weights : ndarray, shape (n_visible, n_k)
        W of every visible cell; rows sum to one.
    error : float
        Expected cost of the rule.
    lower : float
        Proven lower bound of the cost of every rule within the bounds.
    prices : dict
        -d(error)/d(bound) per nat, and per unit of a gap; ``inf`` for a bound of zero that costs.
    informations, gaps : dict
        Values of the rule, bounded ones and others.
    degenerate : bool
        Whether only a combination of the prices is determined.
    status : str
    n_iter : int
    potentials : dict
        Normalised dual potentials, for planes below the whole surface.
    """

    bounds: dict[str, float]
    weights: Array
    error: float
    lower: float
    prices: dict[str, float]
    informations: dict[str, float]
    gaps: dict[str, float]
    degenerate: bool
    status: str
    n_iter: int
    potentials: dict[str, Array] = field(default_factory=dict)

    @property
    def decision(self) -> Array:
        """The weights, by the name that all programs share."""
        return self.weights


class RuleProgram(RuleCosts):
    """All rules of one table p(z, s, y, r): assembled once per kind of bound, then reused.

    Parameters
    ----------
    p : ndarray of shape (n_z, n_s, n_y, n_r)
        Sums to one.
    access : {"aware", "client_blind", "group_blind", "blind"}
    bounds : sequence of FairnessBound
        Their clients as positions.
    cost : ndarray of shape (n_y, n_k)
        Cost of decision k at label y.
    client_weight : ndarray of shape (n_s,)
        Factors of the clients' costs.
    positive : int
        Position of the positive label.
    tol : float
    """

    def __init__(
        self,
        p: Array,
        *,
        access: str,
        bounds: Sequence[FairnessBound],
        cost: Array,
        client_weight: Array,
        positive: int,
        tol: float = 1e-11,
    ) -> None:
        super().__init__(
            p,
            access=access,
            bounds=bounds,
            cost=cost,
            client_weight=client_weight,
            positive=positive,
        )
        self.tol = tol
        self._programs: dict[tuple[tuple[str, bool], ...], BudgetProgram] = {}

    def solve(self, bounds: Mapping[str, float | None] | None = None) -> RulePoint:
        """Return the optimum, checked; ``bounds`` in nats by name, None for those declared."""
        given = self.default if bounds is None else bounds
        asked = {name: float(eps) for name, eps in given.items() if eps is not None}
        if self._fits(self.free, asked):
            return self._point(asked, self.free, self.error_of(self.free), {}, False, "free", 0)
        needed = {
            name: eps
            for name, eps in asked.items()
            if not self.informations[name].vacuous
            and eps < self.informations[name].ceiling * (1 - 1e-12)
        }
        return answered(self, asked, needed)

    def attempt(
        self, asked: dict[str, float], needed: dict[str, float], held: set[str]
    ) -> RulePoint:
        """Solve with the bounds in ``held`` kept at zero."""
        key = tuple((name, name in held) for name in sorted(needed))
        if key not in self._programs:
            self._programs[key] = self.cones(key)
        failed: SolverError | None = None
        for factor in _TIGHTER:
            bounded = {n: e * factor for n, e in needed.items() if n not in held}
            try:
                for found in self._programs[key].answers(bounded):
                    try:
                        return self._checked(asked, needed, held, found)
                    except UnprovenError as error:
                        failed = failed or error
            except SolverError as error:
                failed = failed or error
        raise failed or SolverError("the cone solver gave no answer.")

    def _fits(self, weights: Array, asked: Mapping[str, float]) -> bool:
        x = weights.ravel()
        return all(self.informations[n].value(x) <= eps for n, eps in asked.items()) and all(
            self.gap_of(n, x) <= d for n, d in self.gap_bounds.items()
        )

    def cones(
        self,
        key: tuple[tuple[str, bool], ...],
        expansions: Mapping[str, Expansion] | None = None,
    ) -> BudgetProgram:
        """Return the program with these informations, (True) held at zero or expanded."""
        builder = self._linear.linear()
        for name, exact in key:
            builder.information(
                self.informations[name], exact=exact, expansion=(expansions or {}).get(name)
            )
        return BudgetProgram(builder.build(), tol=self.tol)

    @cached_property
    def _linear(self) -> Builder:
        n_w = self.cost.size
        builder = Builder(self.cost.ravel())
        blocks = pooled_map(np.arange(n_w) // self.n_k, len(self.cost))
        builder.equal(blocks, np.ones(len(self.cost)))
        for name, matrix in self.gap_matrices.items():
            builder.below(matrix, np.full(matrix.shape[0], self.gap_bounds[name]))
        builder.below(-pooled_map(np.arange(n_w), n_w), np.zeros(n_w))
        return builder

    def _checked(
        self,
        asked: dict[str, float],
        needed: dict[str, float],
        held: set[str],
        found: Solution,
    ) -> RulePoint:
        weights = self.inside(self.decided(found), {n: asked[n] for n in asked if n not in held})
        potentials = found.potentials()
        prices = {name: found.price(name) if name in needed else 0.0 for name in asked}
        charge_held(self.informations, potentials, prices, {n: asked[n] for n in held})
        proof = self.proven(potentials, prices, asked, found)
        return self.point(asked, weights, proof, found, found.n_iter)

    def decided(self, found: Solution) -> Array:
        """Return the rule of a solution, if its rows sum to one."""
        raw = found.x.reshape(self.cost.shape)
        off = float(np.abs(raw.sum(axis=1) - 1.0).max() + max(0.0, -float(raw.min())))
        if not off <= 1e-5:
            raise SolverError(
                f"the solver's rule misses the rows' sums by {off:.1e} (status {found.status}), "
                "so that it is no answer. Ask for larger bounds, or exactly 0.",
                status=found.status,
            )
        return _normalised(raw)

    def _shadows(self, found: Solution | None) -> dict[str, Array]:
        """Return the multipliers of the linear gaps, whose rows come after all equalities."""
        shadows, first = {}, 0 if found is None else found.n_equalities
        for name, matrix in self.gap_matrices.items():
            size = matrix.shape[0]
            shadows[name] = np.zeros(size)
            if found is not None:
                shadows[name] = np.maximum(found.z[first : first + size], 0.0)
            first += size
        return shadows

    def proven(
        self,
        potentials: Mapping[str, Array],
        prices: Mapping[str, float],
        bounds: Mapping[str, float],
        found: Solution | None = None,
    ) -> Proof:
        """Return the best of what potentials and prices prove, with idle ones or without."""
        gaps, paid, prices_of_gaps = np.zeros(self.cost.size), 0.0, {}
        for name, shadow in self._shadows(found).items():
            gaps = gaps + self.gap_matrices[name].T @ shadow
            prices_of_gaps["gap_" + name] = float(shadow.sum())
            paid += float(shadow.sum()) * self.gap_bounds[name]
        proofs = []
        for h, charged in ((dict(potentials), dict(prices)), without_noise(potentials, prices)):
            reduced = self.reduced_cost(h, gaps)
            eps = sum(p * bounds[n] for n, p in charged.items() if np.isfinite(p))
            proofs.append((float(reduced.min(axis=1).sum()) - eps - paid, h, charged))
        lower, h, charged = max(proofs, key=lambda proof: proof[0])
        return lower, h, charged | prices_of_gaps

    def point(
        self,
        asked: dict[str, float],
        weights: Array,
        proof: Proof,
        found: Solution | None,
        n_iter: int,
    ) -> RulePoint:
        """Return an answer, if its proof is good enough for one."""
        lower, potentials, prices = proof
        status = "solved" if found is None else found.status
        error = self.error_of(weights)
        scale = max(1.0, float(np.abs(self.cost).sum()))
        if not error - lower <= CERTIFIED * scale:
            raise UnprovenError(
                f"the rule's cost is {error:.8f} and what is proven about the best one is only "
                f"{lower:.8f} (status {status}). Use exactly 0 or a larger bound.",
                status=status,
            )
        active = [
            self.informations[n].pull_back(potentials[n]) / p
            for n, p in prices.items()
            if n in potentials and np.isfinite(p) and p > PRICE_NOISE
        ]
        for name, shadow in self._shadows(found).items():
            rows = self.gap_matrices[name][np.flatnonzero(shadow > PRICE_NOISE)]
            active += list(rows.toarray())
        degenerate = self.degenerate(weights, active)
        prices = dict(prices)
        for name, price in prices.items():
            if not np.isfinite(price):
                flat = np.abs(potentials[name]).max() <= 1e-6
                prices[name] = 0.0 if flat else np.inf
        # Whatever the solver thought of it.
        status = "solved" if error - lower <= WANTED * scale else "almost_solved"
        point = self._point(asked, weights, lower, prices, degenerate, status, n_iter)
        return replace(point, potentials=potentials)

    def _point(
        self,
        asked: dict[str, float],
        weights: Array,
        lower: float,
        prices: dict[str, float],
        degenerate: bool,
        status: str,
        n_iter: int,
    ) -> RulePoint:
        x = weights.ravel()
        zero = dict.fromkeys((*asked, *("gap_" + n for n in self.gap_bounds)), 0.0)
        return RulePoint(
            asked,
            weights,
            self.error_of(weights),
            lower,
            zero | prices,
            {n: i.value(x) for n, i in self.informations.items()},
            {n: self.gap_of(n, x) for n in self.gap_bounds},
            degenerate,
            status,
            n_iter,
        )


def _normalised(raw: Array) -> Array:
    cut = np.maximum(raw, 0.0)
    return np.asarray(cut / cut.sum(axis=1, keepdims=True))
