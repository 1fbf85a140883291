"""The best randomised rule on top of given scores, under bounds on disparity: the program.

Variables are W(k | what the rule may see), one block per visible cell, so that a rule that is
blind to a column has fewer variables and no equality rows. Cost and masses are linear in W, and
the weights of every context are data, which is all that the cones of ``_cones`` ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._cones import Builder, Information, pooled_map
from privfair.fairness.aglfop._measures import context_index
from privfair.fairness.aglfop._solver import (
    BudgetProgram,
    Solution,
    UnprovenError,
    without_noise,
)

__all__ = ["ACCESS", "RulePoint", "RuleProgram"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LN2 = float(np.log(2.0))
INFORMATION_TOLERANCE = 1e-6 * LN2  # nats
GAP_TOLERANCE = 1e-7
CERTIFIED = 1e-5  # an answer whose own proof is worse than this is no answer
MOST_MIXED = 1e-3
# Where the solver gives up at a bound, it often solves one next to it; a rule within a tighter
# bound is within the bound, and what it loses its proof says.
_TIGHTER = (1.0, 0.9995, 0.998)
PRICE_NOISE = 1e-5  # per nat: below this a multiplier of an inactive bound is what it is

ACCESS = {"aware": "zsr", "client_blind": "zr", "group_blind": "sr", "blind": "r"}
"""What a rule may see of group (z), client (s) and score (r)."""


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


class RuleProgram:
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
        self.p, self.tol = p, tol
        self.n_k = cost.shape[1]
        self.atoms = np.nonzero(p > 0)
        self.mass = p[self.atoms]
        z, s, y, r = self.atoms
        seen = {"z": z, "s": s, "r": r}
        keys = [seen[axis] for axis in ACCESS[access]]
        sizes = [p.shape["zsyr".index(axis)] for axis in ACCESS[access]]
        flat = np.ravel_multi_index(keys, sizes)
        self.visible, self.block = np.unique(flat, return_inverse=True)
        self.visible_shape = tuple(sizes)
        charge = (self.mass * client_weight[s])[:, None] * cost[y]
        self.cost = self._per_block(charge)
        self._scope = (p.shape[1], p.shape[2], positive)
        self.informations: dict[str, Information] = {}
        self.gap_bounds: dict[str, float] = {}
        self.default: dict[str, float] = {}
        for bound in bounds:
            self._add(bound, bound.criterion + ":" if len(bounds) > 1 else "")
        self._programs: dict[tuple[tuple[str, bool], ...], tuple[BudgetProgram, Ints, Any]] = {}
        self._rates = {name: self._gap_rates(name) for name in self.gap_bounds}
        free = np.zeros_like(self.cost)
        free[np.arange(len(free)), self.cost.argmin(axis=1)] = 1.0
        self.free = free
        self.of_free = {n: i.value(free.ravel()) for n, i in self.informations.items()}

    def _per_block(self, values: Array) -> Array:
        out = np.zeros((self.visible.size, values.shape[1]))
        np.add.at(out, self.block, values)
        return out

    def _add(self, bound: FairnessBound, prefix: str) -> None:
        scopes: dict[str, tuple[str | int, float | None]] = {
            "global": ("global", bound.eps_global),
            "local": ("local", bound.eps_local),
        }
        scopes |= {f"client:{c}": (c, eps) for c, eps in (bound.eps_client or {}).items()}
        for name, (scope, eps) in scopes.items():
            info = self._information(prefix + name, bound.criterion, scope)
            self.informations[info.name] = info
            if eps is not None:
                self.default[info.name] = eps * LN2
        for name, width in {"global": bound.gap_global, "local": bound.gap_local}.items():
            if width is not None:
                self.gap_bounds[prefix + name] = width

    def _information(self, name: str, criterion: str, scope: str | int) -> Information:
        n_s, n_y, positive = self._scope
        index, n_c = context_index(n_s, n_y, criterion, scope, positive)
        z, s, y, _ = self.atoms
        n_z, n_k = self.p.shape[0], self.n_k
        context = index[s, y]
        used = np.flatnonzero(context >= 0)
        row = ((z * n_c + context)[used, None] * n_k + np.arange(n_k)).ravel()
        column = (self.block[used, None] * n_k + np.arange(n_k)).ravel()
        masses = sparse.csr_array(
            (np.repeat(self.mass[used], n_k), (row, column)),
            shape=(n_z * n_c * n_k, self.visible.size * n_k),
        )
        weights = np.zeros((n_z, n_c))
        np.add.at(weights, (z[used], context[used]), self.mass[used])
        return Information(name, masses, weights)

    def _gap_rates(self, name: str) -> Any:
        """Return P(k | z, c) as rows over the variables, NaN-free; see :meth:`gap_of`."""
        info = self.informations[name]
        weight = np.repeat(info.weights.ravel(), info.n_outcomes)
        scale = sparse.diags_array(1.0 / np.where(weight > 0, weight, 1.0))
        return scale @ info.masses

    # -- solving --------------------------------------------------------------------------
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
        key = tuple((name, eps == 0.0) for name, eps in sorted(needed.items()))
        if key not in self._programs:
            self._programs[key] = self._build(key)
        program, owner, matrix = self._programs[key]
        failed: SolverError | None = None
        for factor in _TIGHTER:
            bounded = {n: e * factor for n, e in needed.items() if e > 0}
            try:
                for found in program.answers(bounded):
                    try:
                        return self._checked(asked, needed, found, owner, matrix)
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

    def _build(self, key: tuple[tuple[str, bool], ...]) -> tuple[BudgetProgram, Ints, Any]:
        n_w = self.cost.size
        builder = Builder(self.cost.ravel())
        blocks = pooled_map(np.arange(n_w) // self.n_k, len(self.cost))
        builder.equal(blocks, np.ones(len(self.cost)))
        owner, rows = [], []
        for i, (name, bound) in enumerate(self.gap_bounds.items()):
            matrix = self._gap_rows(name)
            builder.below(matrix, np.full(matrix.shape[0], bound))
            owner.append(np.full(matrix.shape[0], i))
            rows.append(matrix)
        builder.below(-pooled_map(np.arange(n_w), n_w), np.zeros(n_w))
        for name, exact in key:
            builder.information(self.informations[name], exact=exact)
        program = BudgetProgram(builder.build(), tol=self.tol)
        none = sparse.csr_array((0, n_w))
        stacked = sparse.csr_array(sparse.vstack(rows)) if rows else none
        return program, np.concatenate([np.zeros(0, dtype=np.int64), *owner]), stacked

    def _gap_rows(self, name: str) -> Any:
        """Return rows of P(k|z,c) - P(k|z',c) for all ordered pairs of groups of a context."""
        info, rates = self.informations[name], self._rates[name]
        n_k = info.n_outcomes
        flat = np.arange(rates.shape[0]).reshape(*info.weights.shape, n_k)
        present = info.weights > 0
        first, second = [], []
        for c in range(present.shape[1]):
            groups = np.flatnonzero(present[:, c])
            a, b = np.meshgrid(groups, groups, indexing="ij")
            pairs = a != b
            first.append(flat[a[pairs], c].ravel())
            second.append(flat[b[pairs], c].ravel())
        return rates[np.concatenate(first)] - rates[np.concatenate(second)]

    def gap_of(self, name: str, x: Array) -> float:
        """Return the largest difference of rates between groups of one context."""
        info = self.informations[name]
        rate = (self._rates[name] @ x).reshape(*info.weights.shape, -1)
        seen = info.weights[:, :, None] > 0
        high = np.where(seen, rate, -np.inf).max(axis=0)
        low = np.where(seen, rate, np.inf).min(axis=0)
        return float(np.maximum(high - low, 0.0).max())

    def error_of(self, weights: Array) -> float:
        """Return the expected cost of a rule."""
        return float((self.cost * weights).sum())

    # -- checking -------------------------------------------------------------------------
    def _checked(
        self,
        asked: dict[str, float],
        needed: dict[str, float],
        found: Solution,
        owner: Ints,
        matrix: Any,
    ) -> RulePoint:
        raw = found.x.reshape(self.cost.shape)
        off = float(np.abs(raw.sum(axis=1) - 1.0).max() + max(0.0, -float(raw.min())))
        if not off <= 1e-5:
            raise SolverError(
                f"the solver's rule misses the rows' sums by {off:.1e} (status {found.status}), "
                "so that it is no answer. Ask for larger bounds, or exactly 0.",
                status=found.status,
            )
        weights = self._inside(_normalised(raw), asked)
        potentials = found.potentials()
        prices = {name: found.price(name) if name in needed else 0.0 for name in asked}
        first = self._programs_first_row(found)
        shadow = np.maximum(found.z[first : first + owner.size], 0.0)
        proofs = []
        for h, charged in ((potentials, prices), without_noise(potentials, prices)):
            reduced = self._reduced_cost(h, matrix.T @ shadow)
            paid = sum(p * asked[n] for n, p in charged.items() if np.isfinite(p))
            proofs.append((float(reduced.min(axis=1).sum()) - paid, h, charged))
        lower, potentials, prices = max(proofs, key=lambda proof: proof[0])
        names = list(self.gap_bounds)
        for i, name in enumerate(names):
            prices["gap_" + name] = float(shadow[owner == i].sum())
            lower -= prices["gap_" + name] * self.gap_bounds[name]
        error = self.error_of(weights)
        scale = max(1.0, float(np.abs(self.cost).sum()))
        if not error - lower <= CERTIFIED * scale:
            raise UnprovenError(
                f"the rule's cost is {error:.8f} and what is proven about the best one is only "
                f"{lower:.8f} (status {found.status}). Use exactly 0 or a larger bound.",
                status=found.status,
            )
        active = [
            self.informations[n].pull_back(potentials[n]) / p
            for n, p in prices.items()
            if n in potentials and np.isfinite(p) and p > PRICE_NOISE
        ]
        active += [matrix[[i]].toarray()[0] for i in np.flatnonzero(shadow > PRICE_NOISE)]
        degenerate = self._degenerate(weights, active)
        for name, price in prices.items():
            if not np.isfinite(price):
                flat = np.abs(potentials[name]).max() <= 1e-6
                prices[name] = 0.0 if flat else np.inf
        point = self._point(asked, weights, lower, prices, degenerate, found.status, found.n_iter)
        return replace(point, potentials=potentials)

    def lower_bound(
        self,
        potentials: Mapping[str, Array],
        prices: Mapping[str, float],
        bounds: Mapping[str, float],
    ) -> float:
        """Return a proven lower bound of the cost at ``bounds`` (nats), without linear gaps."""
        reduced = self._reduced_cost(potentials, np.zeros(self.cost.size))
        return float(reduced.min(axis=1).sum()) - sum(p * bounds[n] for n, p in prices.items())

    def _programs_first_row(self, found: Solution) -> int:
        """Return where the rows of linear gaps begin: after all equalities."""
        exact = sum(part.first.size for part in found.informations if part.exact)
        return len(self.cost) + exact

    def _reduced_cost(self, potentials: Mapping[str, Array], gaps: Array) -> Array:
        """Return cost plus what the multipliers charge: any rule within the bounds pays less."""
        total = self.cost.ravel() + gaps
        for name, h in potentials.items():
            total = total + self.informations[name].pull_back(h)
        return np.asarray(total).reshape(self.cost.shape)

    def _inside(self, weights: Array, asked: Mapping[str, float]) -> Array:
        """Return a rule that keeps the bounds: mixed with a constant one as far as it must be.

        The constant rule has no information and no gaps, and both are convex. A bound so close
        to zero that the solver's own tolerance is a good part of it is kept up to that.
        """
        x = weights.ravel()
        share = 0.0
        values = {n: (self.informations[n].value(x), eps, INFORMATION_TOLERANCE)
                  for n, eps in asked.items()}  # fmt: skip
        values |= {"gap_" + n: (self.gap_of(n, x), d, GAP_TOLERANCE)
                   for n, d in self.gap_bounds.items()}  # fmt: skip
        for name, (value, bound, allowed) in values.items():
            if value > bound + max(allowed, MOST_MIXED * bound):
                raise SolverError(
                    f"the solver's rule exceeds the bound {name!r} by {value - bound:.1e} (nats "
                    "for an information). Use exactly 0 or a larger bound."
                )
            if bound < value <= bound * (1 + MOST_MIXED):
                share = max(share, 1.0 - bound / value)
        if share == 0.0:
            return weights
        constant = np.zeros(self.n_k)
        constant[self.cost.sum(axis=0).argmin()] = 1.0
        return np.asarray((1 - share) * weights + share * constant)

    def _degenerate(self, weights: Array, active: list[Array]) -> bool:
        """Whether the multipliers' equations leave a direction of prices undetermined.

        Where a cell uses two decisions, their reduced costs are equal: one equation for the
        prices. With as many independent equations as active prices, these are unique.
        """
        if not active:
            return False
        order = np.argsort(-weights, axis=1)
        best, second = order[:, 0], order[:, min(1, self.n_k - 1)]
        rows = np.flatnonzero(weights[np.arange(len(weights)), second] > 1e-5)
        if rows.size < len(active):
            return True
        charges = [c.reshape(self.cost.shape) for c in active]
        equations = np.array([c[rows, best[rows]] - c[rows, second[rows]] for c in charges])
        equations /= np.maximum(np.abs(equations).max(axis=1, keepdims=True), 1e-300)
        size = np.linalg.svd(equations.T, compute_uv=False)
        return bool(size[len(active) - 1] < 1e-4 * max(size[0], 1e-12))

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
