"""What a rule on top of given scores costs and tells, and what potentials prove about all of them.

A rule is W(k | what it may see), one block per visible cell. Cost and masses are linear in W, and
the weights of every context are data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._information import Information
from privfair.fairness.aglfop._measures import context_index

__all__ = ["ACCESS", "LN2", "RuleCosts"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LN2 = float(np.log(2.0))
INFORMATION_TOLERANCE = 1e-6 * LN2  # nats
GAP_TOLERANCE = 1e-7
MOST_MIXED = 1e-3

ACCESS = {"aware": "zsr", "client_blind": "zr", "group_blind": "sr", "blind": "r"}
"""What a rule may see of group (z), client (s) and score (r)."""


class RuleCosts:
    """One table p(z, s, y, r) and everything that holds for its rules without solving anything.

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
    ) -> None:
        self.p = p
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
        self._rates = {name: self._gap_rates(name) for name in self.gap_bounds}
        self.gap_matrices = {name: self._gap_rows(name) for name in self.gap_bounds}
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

    def error_of(self, weights: Array) -> float:
        """Return the expected cost of a rule."""
        return float((self.cost * weights).sum())

    def informations_of(self, weights: Array) -> dict[str, float]:
        """Return every information (nats) of a rule."""
        x = weights.ravel()
        return {name: info.value(x) for name, info in self.informations.items()}

    def ratio_of(self, name: str, weights: Array) -> Array:
        """Return m(z, c, k) / (p(z|c) m(., c, k)) - 1 of a rule, for one information."""
        return self.informations[name].ratio(weights.ravel())

    def gap_of(self, name: str, x: Array) -> float:
        """Return the largest difference of rates between groups of one context."""
        info = self.informations[name]
        rate = (self._rates[name] @ x).reshape(*info.weights.shape, -1)
        seen = info.weights[:, :, None] > 0
        high = np.where(seen, rate, -np.inf).max(axis=0)
        low = np.where(seen, rate, np.inf).min(axis=0)
        return float(np.maximum(high - low, 0.0).max())

    def inside(self, weights: Array, bounds: Mapping[str, float]) -> Array:
        """Return a rule that keeps the bounds: mixed with a constant one as far as it must be.

        The constant rule has no information and no gaps, and both are convex. A gap so close
        to zero that the solver's own tolerance is a good part of it is kept up to that.
        """
        x = weights.ravel()
        share = 0.0
        values = {n: (self.informations[n].value(x), eps, INFORMATION_TOLERANCE)
                  for n, eps in bounds.items()}  # fmt: skip
        values |= {"gap_" + n: (self.gap_of(n, x), d, GAP_TOLERANCE)
                   for n, d in self.gap_bounds.items()}  # fmt: skip
        for name, (value, bound, allowed) in values.items():
            if value > bound + max(allowed, MOST_MIXED * bound):
                raise SolverError(
                    f"the solver's rule exceeds the bound {name!r} by {value - bound:.1e} (nats "
                    "for an information). Use exactly 0 or a larger bound."
                )
            exact = not name.startswith("gap_") or value <= bound * (1 + MOST_MIXED)
            if bound < value and exact:
                share = max(share, 1.0 - bound / value)
        if share == 0.0:
            return weights
        constant = np.zeros(self.n_k)
        constant[self.cost.sum(axis=0).argmin()] = 1.0
        return np.asarray((1 - share) * weights + share * constant)

    def lower_bound(
        self,
        potentials: Mapping[str, Array],
        prices: Mapping[str, float],
        bounds: Mapping[str, float],
    ) -> float:
        """Return a proven lower bound of the cost at ``bounds`` (nats), without linear gaps."""
        reduced = self.reduced_cost(potentials, np.zeros(self.cost.size))
        return float(reduced.min(axis=1).sum()) - sum(p * bounds[n] for n, p in prices.items())

    def reduced_cost(self, potentials: Mapping[str, Array], gaps: Array) -> Array:
        """Return cost plus what the multipliers charge: any rule within the bounds pays less."""
        total = self.cost.ravel() + gaps
        for name, h in potentials.items():
            total = total + self.informations[name].pull_back(h)
        return np.asarray(total).reshape(self.cost.shape)

    def degenerate(self, weights: Array, active: list[Array]) -> bool:
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
