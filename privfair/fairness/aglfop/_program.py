"""The smallest relabelling that makes labels nearly independent of a group: the reduced program.

For given masses m(z, s, k) of the decision, the best joint with the labels has error
1 - sum min(p, m), the total variation. So the program over Q(z, s, y, k) reduces to masses and
their overlap c <= min(p, m): |Z||S|m variables twice, instead of |Z||S|m^2. Variables are
conditional on the cell, w(k | z, s) = m / p(z, s), which keeps rare cells well scaled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SolverError
from privfair.fairness.aglfop._cones import Assembled, Builder, Information, pooled_map
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
# Bounds (nats) below the first are held at zero. Those below the second the solver cannot resolve
# well; there the answer lies between those at zero and at this bound, see ``_between``.
AS_ZERO = 1e-13
NEARLY_ZERO = 1e-5
SMALL = 1e-3  # likewise where the solver fails below this


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


class OracleProgram:
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
        self.p = p
        self.tol = tol
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
        self._programs: dict[tuple[tuple[str, bool], ...], BudgetProgram] = {}
        self.of_labels = {
            name: info.value(self._rate.ravel()) for name, info in self.informations.items()
        }

    # -- solving --------------------------------------------------------------------------
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
        held = {name for name, eps in needed.items() if eps <= AS_ZERO}
        tiny = {name: e for name, e in needed.items() if name not in held and e < NEARLY_ZERO}
        factor = NEARLY_ZERO / min(tiny.values()) if tiny else 2.0
        if not tiny:
            try:
                return self._attempt(asked, needed, held)
            except SolverError:
                tiny = {name: e for name, e in needed.items() if name not in held and e < SMALL}
                if not tiny:
                    raise
        try:
            return self._between(asked, needed, held, tiny, factor)
        except SolverError:  # the wider bounds were the trouble: try some that are wider still
            return self._between(asked, needed, held, tiny, 3.0 * factor)

    def _attempt(
        self, asked: dict[str, float], needed: dict[str, float], held: set[str]
    ) -> OraclePoint:
        """Solve with the bounds in ``held`` kept at zero."""
        key = tuple((name, name in held) for name in sorted(needed))
        if key not in self._programs:
            self._programs[key] = self._build(key)
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

    def _between(
        self,
        asked: dict[str, float],
        needed: dict[str, float],
        held: set[str],
        tiny: dict[str, float],
        widened: float,
    ) -> OraclePoint:
        """Answer bounds so small that a cone solver loses its digits.

        Near zero an information is quadratic in the distance from independence. So the mixture
        of the answers at zero and at the bounds times ``widened`` that just keeps the bounds is
        close to the best, and the potentials of both, at prices for these bounds, prove how
        close.
        """
        wider = {name: eps * widened if name in tiny else eps for name, eps in needed.items()}
        zero = self._attempt(asked | dict.fromkeys(tiny, 0.0), needed, held | set(tiny))
        some = self._attempt(asked | {n: wider[n] for n in tiny}, wider, held)
        low, high = 0.0, 1.0
        for _ in range(60):
            share = (low + high) / 2
            values = self.informations_of((1 - share) * zero.masses + share * some.masses)
            within = all(values[n] <= asked[n] for n in tiny)
            low, high = (share, high) if within else (low, share)
        masses = (1 - low) * zero.masses + low * some.masses
        proofs = []
        for point, factor in itertools.product((zero, some), np.logspace(-1.5, 1.5, 25)):
            potentials, prices = dict(point.potentials), dict(point.prices)
            for name in tiny:
                info = self.informations[name]
                prices[name] = factor * info.finite_price(potentials[name], asked[name])
                potentials[name] = info.potential(potentials[name], prices[name])
            finite = {name: p for name, p in prices.items() if np.isfinite(p)}
            proofs.append((self.lower_bound(potentials, finite, asked), prices, potentials))
        lower, prices, potentials = max(proofs, key=lambda proof: proof[0])
        error = self.error_of(masses)
        return OraclePoint(
            asked, masses, error, lower, prices, self.informations_of(masses), potentials,
            some.degenerate, self._status(error - lower, "solved"), zero.n_iter + some.n_iter,
        )  # fmt: skip

    def _build(self, key: tuple[tuple[str, bool], ...]) -> BudgetProgram:
        return BudgetProgram(self.assembled(key), tol=self.tol)

    def assembled(self, key: tuple[tuple[str, bool], ...]) -> Assembled:
        """Return the matrices with these informations, bounded or (True) held at zero."""
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
        for name, exact in key:
            builder.information(self.informations[name], exact=exact)
        return builder.build()

    # -- checking -------------------------------------------------------------------------
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
        masses = self.masses_of(found.x)
        values = self.informations_of(masses)
        self._check(asked, values, self.error_of(masses), found)
        share = max(
            (
                1.0 - eps / values[name]
                for name, eps in asked.items()
                if eps < values[name] and name not in held
            ),
            default=0.0,
        )
        if share > 0.0:
            # The solver keeps bounds up to its tolerance; the answer keeps them exactly. It is
            # mixed with a decision that ignores group and client, whose information is zero: by
            # convexity the mixture's is smaller by its share.
            blind = self.cell_mass[:, :, None] * masses.sum(axis=(0, 1))
            masses = (1.0 - share) * masses + share * blind
            values = self.informations_of(masses)
        error = self.error_of(masses)
        potentials = found.potentials()
        prices = {name: found.price(name) if name in needed else 0.0 for name in asked}
        for name in held:
            if asked[name] > 0.0:
                prices[name] = self.informations[name].finite_price(potentials[name], asked[name])
                potentials[name] = self.informations[name].potential(
                    potentials[name], prices[name]
                )
        finite = {name: price for name, price in prices.items() if np.isfinite(price)}
        lower = self.lower_bound(potentials, finite, asked)
        fewer, cheaper = without_noise(potentials, finite)
        without = self.lower_bound(fewer, cheaper, asked)
        if without > lower:
            lower, potentials, finite, prices = without, fewer, cheaper, prices | cheaper
        status = self._status(error - lower, found.status)
        degenerate = self._degenerate(masses, potentials, finite)
        for name, price in prices.items():
            if not np.isfinite(price):
                flat = np.abs(potentials[name]).max() <= 1e-6
                prices[name] = 0.0 if flat else np.inf
        return OraclePoint(
            asked, masses, error, lower, prices, values, potentials, degenerate,
            status, found.n_iter,
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

    def masses_of(self, x: Array) -> Array:
        """Return m(z, s, k) of a solution, exact in the cell masses."""
        n_k = self.labels.size
        rate = np.maximum(x[: self.z.size * n_k].reshape(-1, n_k), 0.0)
        rate /= rate.sum(axis=1, keepdims=True)
        masses = np.zeros(self.p.shape)
        masses[self.z[:, None], self.s[:, None], self.labels] = rate * self._cell_weight[:, None]
        return masses

    def label_charges(self, point: OraclePoint) -> Array:
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

    def _status(self, gap: float, solver_status: str) -> str:
        if not gap <= GAP_REDUCED:
            raise UnprovenError(
                f"the solver stopped with status {solver_status} and the proven gap of its "
                f"answer is {gap:.1e}, too much. Use exactly 0 or a larger bound.",
                status=solver_status,
            )
        return "solved" if gap <= GAP_SOLVED else "reduced_accuracy"

    def informations_of(self, masses: Array) -> dict[str, float]:
        """Return every information (nats) of a decision with these masses."""
        rate = masses[self.z, self.s][:, self.labels] / self._cell_weight[:, None]
        return {name: info.value(rate.ravel()) for name, info in self.informations.items()}

    def error_of(self, masses: Array) -> float:
        """Return the smallest error of any joint with these masses: their total variation."""
        gone = np.maximum(self.p - masses, 0.0).sum(axis=2)
        return float((gone * self.flip).sum())

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

    def _degenerate(
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
