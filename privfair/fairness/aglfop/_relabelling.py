"""What a decision with given masses costs and tells, and what potentials prove about all of them.

For given masses m(z, s, k) of the decision, the best joint with the labels has error
1 - sum min(p, m), the total variation. Variables are conditional on the cell,
w(k | z, s) = m / p(z, s), which keeps rare cells well scaled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privfair.fairness.aglfop._information import Information, pooled_map

__all__ = ["Relabelling"]

Array = NDArray[np.float64]


class _Solved(Protocol):
    @property
    def bounds(self) -> dict[str, float]: ...
    @property
    def masses(self) -> Array: ...
    @property
    def potentials(self) -> dict[str, Array]: ...


class Relabelling:
    """One table p(z, s, y) and everything that holds for its decisions without solving anything.

    Parameters
    ----------
    p : ndarray of shape (n_z, n_s, n_k)
        Sums to one. Empty cells (z, s) and labels that never occur take no variables.
    clients : iterable of int
        Clients that may get a bound of their own, named ``client:s``.
    flip_cost : ndarray of shape (n_s,) or None
        Cost of a wrong decision in each client; None for one.
    """

    def __init__(
        self,
        p: Array,
        *,
        clients: Iterable[int] = (),
        flip_cost: Array | None = None,
    ) -> None:
        self.p = p
        n_z, n_s, _ = p.shape
        self.cell_mass = p.sum(axis=2)
        self.flip = np.broadcast_to(np.ones(n_s) if flip_cost is None else flip_cost, (n_z, n_s))
        self.labels = np.flatnonzero(p.sum(axis=(0, 1)) > 0)
        self.z, self.s = np.nonzero(self.cell_mass > 0)
        n_k = self.labels.size
        self._cell_weight = self.cell_mass[self.z, self.s]
        kept = p[self.z, self.s][:, self.labels]
        self._rate = kept / self._cell_weight[:, None]
        weight = np.repeat(self._cell_weight, n_k)
        k = np.tile(np.arange(n_k), self.z.size)
        z, s = np.repeat(self.z, n_k), np.repeat(self.s, n_k)
        self.informations: dict[str, Information] = {
            "global": Information(
                "global",
                pooled_map(z * n_k + k, n_z * n_k, weight),
                self.cell_mass.sum(axis=1, keepdims=True),
            ),
            "local": Information(
                "local", pooled_map((z * n_s + s) * n_k + k, n_z * n_s * n_k, weight),
                self.cell_mass,
            ),
        }  # fmt: skip
        for client in clients:
            own = np.where(s == client, z * n_k + k, -1)
            self.informations[f"client:{client}"] = Information(
                f"client:{client}",
                pooled_map(own, n_z * n_k, weight),
                self.cell_mass[:, [client]],
            )
        self.of_labels = {
            name: info.value(self._rate.ravel()) for name, info in self.informations.items()
        }

    def masses_of(self, x: Array) -> Array:
        """Return m(z, s, k) of a solution, exact in the cell masses."""
        n_k = self.labels.size
        rate = np.maximum(x[: self.z.size * n_k].reshape(-1, n_k), 0.0)
        rate /= rate.sum(axis=1, keepdims=True)
        masses = np.zeros(self.p.shape)
        masses[self.z[:, None], self.s[:, None], self.labels] = rate * self._cell_weight[:, None]
        return masses

    def error_of(self, masses: Array) -> float:
        """Return the smallest error of any joint with these masses: their total variation."""
        gone = np.maximum(self.p - masses, 0.0).sum(axis=2)
        return float((gone * self.flip).sum())

    def informations_of(self, masses: Array) -> dict[str, float]:
        """Return every information (nats) of a decision with these masses."""
        rate = masses[self.z, self.s][:, self.labels] / self._cell_weight[:, None]
        return {name: info.value(rate.ravel()) for name, info in self.informations.items()}

    def ratio_of(self, name: str, masses: Array) -> Array:
        """Return m(z, c, k) / (p(z|c) m(., c, k)) - 1 of a decision, for one information."""
        rate = masses[self.z, self.s][:, self.labels] / self._cell_weight[:, None]
        return self.informations[name].ratio(rate.ravel())

    def inside(self, masses: Array, bounds: Mapping[str, float]) -> Array:
        """Return masses that keep bounds exactly which the solver keeps up to its tolerance.

        They are mixed with a decision that ignores group and client, whose information is zero:
        by convexity the mixture's is smaller by its share.
        """
        values = self.informations_of(masses)
        share = max(
            (1.0 - eps / values[name] for name, eps in bounds.items() if eps < values[name]),
            default=0.0,
        )
        if share == 0.0:
            return masses
        blind = self.cell_mass[:, :, None] * masses.sum(axis=(0, 1))
        return np.asarray((1.0 - share) * masses + share * blind)

    def cost_of_outcomes(self, potentials: Mapping[str, Array]) -> Array:
        """Return the potentials as a cost per unit mass of (cell, k), shape (n_cells, n_k)."""
        total = np.zeros(self._rate.size)
        for name, h in potentials.items():
            total += self.informations[name].pull_back(h)
        return total.reshape(self._rate.shape) / self._cell_weight[:, None]

    def lower_bound(
        self,
        potentials: Mapping[str, Array],
        prices: Mapping[str, float],
        bounds: Mapping[str, float],
    ) -> float:
        """Return a proven lower bound of the error at ``bounds``.

        With each information replaced by its potential h (see ``_cones``) every label is either
        kept at cost h(k) or flipped at cost ``flip`` + min h, and nothing couples the cells: the
        exact optimum is sum p(z,s,k) min(h(k), flip + min_k h).
        """
        h = self.cost_of_outcomes(potentials)
        flip = self.flip[self.z, self.s][:, None]
        kept = self._rate * self._cell_weight[:, None]
        best = np.minimum(h, flip + h.min(axis=1, keepdims=True))
        return float((kept * best).sum()) - sum(
            price * bounds[name] for name, price in prices.items() if price > 0.0
        )

    def label_charges(self, point: _Solved) -> Array:
        """Return what one row of (z, s, label) adds to the error, shape (n_z, n_s, n_k).

        The influence of a cell's mass on the optimal error, up to a constant: by the envelope
        theorem that of the lower bound with its potentials fixed, min(h(k), flip + min_k h).
        Where a bound is exactly zero the potentials are shifted so that the shares of the groups
        among the bound's contexts have no influence of their own, as they have none elsewhere.
        """
        potentials = dict(point.potentials)
        for name, h in potentials.items():
            if point.bounds.get(name) == 0.0:
                info = self.informations[name]
                rate = point.masses[self.z, self.s][:, self.labels] / self._cell_weight[:, None]
                decided = info.joint(rate.ravel()).sum(axis=0)
                decided = decided / np.maximum(decided.sum(axis=-1, keepdims=True), 1e-300)
                potentials[name] = h - (decided * h).sum(axis=-1, keepdims=True)
        h = self.cost_of_outcomes(potentials)
        flip = self.flip[self.z, self.s][:, None]
        charges = np.zeros(self.p.shape)
        best = np.minimum(h, flip + h.min(axis=1, keepdims=True))
        charges[self.z[:, None], self.s[:, None], self.labels] = best
        return charges

    def degenerate(
        self, masses: Array, potentials: Mapping[str, Array], prices: Mapping[str, float]
    ) -> bool:
        """Whether the multipliers' equations leave a direction of prices undetermined.

        Where mass was moved in a cell, from k to k', the prices must satisfy one equation:
        (h(k) - h(k')) = flip cost. With as many independent equations as active prices, the
        prices are unique.
        """
        active = [name for name, price in prices.items() if price > 1e-9]
        if not active:
            return False
        mass = masses[self.z, self.s][:, self.labels]
        moved = (mass - self._rate * self._cell_weight[:, None]) / self._cell_weight[:, None]
        down, up = moved.argmin(axis=1), moved.argmax(axis=1)
        rows = np.flatnonzero((moved.min(axis=1) < -1e-5) & (moved.max(axis=1) > 1e-5))
        columns = []
        for name in active:
            h = self.cost_of_outcomes({name: potentials[name]}) / prices[name]
            columns.append(h[rows, down[rows]] - h[rows, up[rows]])
        equations = np.array(columns).T
        if len(rows) < len(active):
            return True
        singular = np.linalg.svd(equations, compute_uv=False)
        return bool(singular[len(active) - 1] < 1e-4 * max(singular[0], 1e-12))
