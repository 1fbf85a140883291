"""Convex programs with bounds on mutual information, as cones: the shared building blocks.

A program has variables ``x``, a linear cost, linear rows, and any number of
:class:`Information` bounds ``I(Z; K | C) <= eps``. Each information is given by one sparse map
``masses`` from ``x`` to the joint masses m(z, c, k), because every criterion is such a map:

- demographic parity, global: C has one value, m(z, k) pooled over clients;
- demographic parity, local: C = client;
- one client alone: the cells of that client only (``weights`` then sum to p(client));
- equalised odds: C = y, or (y, client); equal opportunity: the cells with y = 1 only.

What must hold is that the context masses sum_k m(z, c, k) = ``weights[z, c]`` are fixed by the
linear rows of the program: this makes each information convex, for the second argument of

    I = sum_{z,c,k} rel_entr( m(z,c,k), p(z|c) m(.,c,k) ) / sum(weights)

is then linear in ``x``. Collect the parts in a :class:`Builder`, ``build()`` the matrices once,
and hand them to :class:`privfair.fairness.aglfop._solver.BudgetProgram`, which solves for many
bounds. All information here is in nats; the public functions convert.

The other half of this module is what makes answers provable. For any numbers a(z, c, k) and
price L >= 0, the *potential* h = a - L log sum_z p(z|c) exp(a / L) satisfies

    sum h(z,c,k) m(z,c,k) <= L * I(m) * sum(weights)         for every m with those weights

(Donsker and Varadhan's variational formula, cell by cell), so that replacing each information by
its potential turns the program into a linear one whose exact optimum is a lower bound of the
error at *every* bound eps, whatever the accuracy of the solver that proposed a and L.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import rel_entr

__all__ = ["Assembled", "Builder", "ConeRows", "Information", "pooled_map"]

Array = NDArray[np.float64]


def pooled_map(index: NDArray[np.int64], n_out: int, values: Array | None = None) -> Any:
    """Return the sparse map that adds variable i, times ``values[i]``, to output ``index[i]``.

    Parameters
    ----------
    index : ndarray of shape (n_variables,)
        Output of each variable; -1 for none.
    n_out : int
    values : ndarray of shape (n_variables,) or None
        Factors; None for ones.

    Returns
    -------
    scipy.sparse.csr_array of shape (n_out, n_variables)
    """
    used = np.flatnonzero(index >= 0)
    data = np.ones(used.size) if values is None else values[used]
    return sparse.csr_array((data, (index[used], used)), shape=(n_out, index.size))


@dataclass(frozen=True, eq=False)
class Information:
    """A mutual information I(Z; K | C) as a function of a program's variables.

    Parameters
    ----------
    name : str
        How the bound is called when the program is solved.
    masses : sparse array of shape (n_z * n_c * n_k, n_variables)
        The map to m(z, c, k), rows in C order. May cover only the first variables of a program.
    weights : ndarray of shape (n_z, n_c)
        The fixed masses sum_k m(z, c, k); zero where group z does not occur in context c.
    """

    name: str
    masses: Any
    weights: Array

    @property
    def n_outcomes(self) -> int:
        """Number of values of K."""
        return int(self.masses.shape[0] // self.weights.size)

    @cached_property
    def total(self) -> float:
        """Mass of all contexts, by which the information is divided."""
        return float(self.weights.sum())

    @cached_property
    def share(self) -> Array:
        """p(z | c), shape (n_z, n_c)."""
        column = self.weights.sum(axis=0)
        return self.weights / np.where(column > 0, column, 1.0)

    @cached_property
    def compared(self) -> NDArray[np.bool_]:
        """Cells (z, c) that carry information: those of contexts with two groups or more."""
        present = self.weights > 0
        return present & (present.sum(axis=0) >= 2)

    @property
    def vacuous(self) -> bool:
        """Whether the information is zero whatever the program decides."""
        return not bool(self.compared.any())

    @property
    def ceiling(self) -> float:
        """The largest value that it can have, H(Z|C) and log K at most, in nats."""
        entropy = float(-np.sum(self.weights * np.log(np.where(self.share > 0, self.share, 1.0))))
        return min(entropy / self.total, float(np.log(self.n_outcomes)))

    def joint(self, x: Array) -> Array:
        """Return m(z, c, k), shape (n_z, n_c, n_k)."""
        flat = np.asarray(self.masses @ x[: self.masses.shape[1]])
        return flat.reshape(*self.weights.shape, self.n_outcomes)

    def value(self, x: Array) -> float:
        """Return the information of a solution, in nats; masses below zero count as zero."""
        m = np.maximum(self.joint(x), 0.0)
        terms = rel_entr(m, self.share[:, :, None] * m.sum(axis=0))
        return max(float(terms.sum()), 0.0) / self.total  # rounding may leave -1e-17

    def potential(self, raw: Array, price: float) -> Array:
        """Return potentials h with sum(h * m) <= price * I(m) for every m of these weights.

        Parameters
        ----------
        raw : ndarray of shape (n_z, n_c, n_k)
            Proposed potentials; any numbers.
        price : float
            Price of one nat. ``inf`` for an information that must be zero.

        Returns
        -------
        ndarray of shape (n_z, n_c, n_k)
        """
        share = self.share[:, :, None]
        if np.isinf(price):
            return np.asarray(raw - (share * raw).sum(axis=0))
        per_mass = price / self.total
        if per_mass <= 0.0:
            return np.zeros_like(raw)
        centred = raw - (share * raw).sum(axis=0)
        scaled = np.where(share > 0, centred / per_mass, -np.inf)
        top = scaled.max(axis=0)
        if top.max(initial=0.0) < 0.5:  # many nats' price: the sum is 1 + something tiny
            excess = (share * np.expm1(np.where(share > 0, scaled, 0.0))).sum(axis=0)
            normaliser = np.log1p(excess)
        else:
            top = np.where(np.isfinite(top), top, 0.0)
            whole = (share * np.exp(scaled - top)).sum(axis=0)
            normaliser = top + np.log(np.where(whole > 0, whole, 1.0))  # 0: an empty context
        return np.where(share > 0, centred - per_mass * normaliser, 0.0)

    def finite_price(self, potential: Array, eps: float) -> float:
        """Return a good price for a potential that was found for a bound of exactly zero.

        The potential at price L falls short of the centred one by about Var / (2 L) per context,
        and the bound itself costs L * eps; the sum of the two is least here.
        """
        variance = float((self.weights[:, :, None] * potential**2).sum(axis=0).max(axis=-1).sum())
        return min(float(np.sqrt(variance * self.total / (2.0 * max(eps, 1e-24)))), 1e12)

    def pull_back(self, potential: Array) -> Array:
        """Return the cost per unit of each variable that a potential over m(z, c, k) means."""
        return np.asarray(self.masses.T @ potential.ravel())


@dataclass(frozen=True, eq=False)
class ConeRows:
    """Where an information stands in the rows of an assembled program.

    Attributes
    ----------
    information : Information
    exact : bool
        Whether it is held at zero by equalities instead of bounded.
    row : int
        The entry of ``b`` that holds eps (nats); -1 when exact.
    first : ndarray
        Row of each cone's middle entry (the mass), or of each equality.
    cells : ndarray
        Flat index into (z, c, k) of each of these rows.
    scale : ndarray
        What the rows were divided by.
    """

    information: Information
    exact: bool
    row: int
    first: NDArray[np.int64]
    cells: NDArray[np.int64]
    scale: Array

    def price(self, z: Array) -> float:
        """Return the price of one nat, -d(cost)/d(eps); ``inf`` when exact."""
        return np.inf if self.exact else max(float(z[self.row]), 0.0)

    def potential(self, z: Array) -> Array:
        """Return the normalised potential that the dual solution ``z`` proposes."""
        info = self.information
        raw = np.zeros(info.masses.shape[0])
        price = self.price(z)
        if self.exact:
            raw[self.cells] = z[self.first] / self.scale
        else:
            raw[self.cells] = -z[self.first] / self.scale - price / info.total
        return info.potential(raw.reshape(*info.weights.shape, -1), price)


@dataclass(frozen=True, eq=False)
class Assembled:
    """A whole program: minimise ``cost @ x`` subject to ``A x + s = b``, ``s`` in the cones.

    Attributes
    ----------
    cost, b : ndarray
    matrix : scipy.sparse.csc_array
    n_equalities, n_inequalities, n_cones : int
        The rows come in this order; each exponential cone has three.
    n_variables : int
        The program's own variables stand first; the cones' follow.
    informations : tuple of ConeRows
    """

    cost: Array
    matrix: Any
    b: Array
    n_equalities: int
    n_inequalities: int
    n_cones: int
    n_variables: int
    informations: tuple[ConeRows, ...]

    def bounded(self) -> dict[str, int]:
        """Return the entry of ``b`` that holds each bound, by name."""
        return {p.information.name: p.row for p in self.informations if not p.exact}


@dataclass
class Builder:
    """Collects the parts of a program.

    Parameters
    ----------
    cost : ndarray of shape (n_variables,)
        Cost to be minimised.
    """

    cost: Array
    _equal: list[tuple[Any, Array]] = field(default_factory=list)
    _below: list[tuple[Any, Array]] = field(default_factory=list)
    _informations: list[tuple[Information, bool]] = field(default_factory=list)

    def equal(self, matrix: Any, right: Array) -> None:
        """Add rows ``matrix @ x == right``."""
        self._equal.append((_padded(matrix, self.cost.size), np.asarray(right, dtype=float)))

    def below(self, matrix: Any, right: Array) -> None:
        """Add rows ``matrix @ x <= right``."""
        self._below.append((_padded(matrix, self.cost.size), np.asarray(right, dtype=float)))

    def information(self, information: Information, *, exact: bool = False) -> None:
        """Add a bound on an information, or hold it at zero by linear equalities."""
        self._informations.append((information, exact))

    def build(self) -> Assembled:
        """Return the matrices of the program."""
        n = self.cost.size
        exacts = [info for info, exact in self._informations if exact]
        bounds = [info for info, exact in self._informations if not exact]
        n_extra = sum(int(info.compared.sum()) * info.n_outcomes for info in bounds)
        equal = [(m, b) for m, b in self._equal]
        offset = sum(b.size for _, b in equal)
        held: dict[str, ConeRows] = {}
        for info in exacts:
            rows, cells, scale = _equalities(info)
            first = np.arange(offset, offset + cells.size)
            held[info.name] = ConeRows(info, True, -1, first, cells, scale)
            equal.append((_padded(rows, n), np.zeros(cells.size)))
            offset += cells.size
        n_equal = offset
        below = list(self._below)
        offset += sum(b.size for _, b in below)
        budget_row = {info.name: offset + i for i, info in enumerate(bounds)}
        budgets = sparse.lil_array((len(bounds), n_extra))
        cones: list[Any] = []
        start, extra = offset + len(bounds), 0
        n_cones = 0
        for i, info in enumerate(bounds):
            rows, cells, scale = _exponential(info, extra, n, n_extra)
            budgets[i, extra : extra + cells.size] = scale / info.total
            cones.append(rows)
            first = start + 3 * np.arange(cells.size) + 1
            held[info.name] = ConeRows(info, False, budget_row[info.name], first, cells, scale)
            start += 3 * cells.size
            extra += cells.size
            n_cones += cells.size
        parts = [sparse.hstack([m, sparse.csr_array((m.shape[0], n_extra))])
                 for m, _ in (*equal, *below)]  # fmt: skip
        if bounds:
            parts.append(sparse.hstack([sparse.csr_array((len(bounds), n)), budgets]))
        matrix = sparse.csc_array(sparse.vstack([*parts, *cones]))
        right = [b for _, b in (*equal, *below)] + [np.zeros(len(bounds) + 3 * n_cones)]
        return Assembled(
            cost=np.concatenate([self.cost, np.zeros(n_extra)]),
            matrix=matrix,
            b=np.concatenate(right),
            n_equalities=n_equal,
            n_inequalities=offset - n_equal + len(bounds),
            n_cones=n_cones,
            n_variables=n,
            informations=tuple(held[info.name] for info, _ in self._informations),
        )


def _padded(matrix: Any, n: int) -> Any:
    """Return the rows with as many columns as the program has variables."""
    missing = n - matrix.shape[1]
    if missing == 0:
        return sparse.csr_array(matrix)
    return sparse.csr_array(sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], missing))]))


def _pooled(info: Information) -> tuple[Any, Any]:
    """Return the maps to m(z, c, k) and to p(z|c) m(., c, k), each of all rows."""
    n_z, n_c = info.weights.shape
    n_k = info.n_outcomes
    context = np.tile(np.arange(n_c * n_k), n_z)
    total = pooled_map(context, n_c * n_k) @ info.masses
    share = sparse.diags_array(np.repeat(info.share.ravel(), n_k))
    return sparse.csr_array(info.masses), sparse.csr_array(
        share @ sparse.csr_array(total)[context]
    )


def _cells(info: Information, used: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Array]:
    n_k = info.n_outcomes
    cells = np.flatnonzero(np.repeat(used.ravel(), n_k))
    return cells, np.repeat(info.weights.ravel(), n_k)[cells]


def _equalities(info: Information) -> tuple[Any, NDArray[np.int64], Array]:
    """Return rows of m(z,c,k) = p(z|c) m(.,c,k), without those that the others imply.

    Summed over the groups of a context the rows vanish, and summed over k they say what the
    fixed weights say: the largest group and the last k are left out.
    """
    used = info.compared.copy()
    used[np.argmax(info.weights, axis=0), np.arange(used.shape[1])] = False
    cells, scale = _cells(info, used)
    keep = cells % info.n_outcomes != info.n_outcomes - 1
    cells, scale = cells[keep], scale[keep]
    own, pooled = _pooled(info)
    return sparse.diags_array(1.0 / scale) @ (own[cells] - pooled[cells]), cells, scale


def _exponential(
    info: Information, extra: int, n: int, n_extra: int
) -> tuple[Any, NDArray[np.int64], Array]:
    """Return rows of (-t, m, p(z|c) m.) in the exponential cone, each divided by its weight."""
    cells, scale = _cells(info, info.compared)
    own, pooled = _pooled(info)
    size = cells.size
    down = sparse.diags_array(1.0 / scale)
    place = np.arange(size)
    t = sparse.csr_array((np.ones(size), (place, extra + place)), shape=(size, n_extra))
    blocks = sparse.vstack(
        [
            sparse.hstack([sparse.csr_array((size, n)), t]),
            sparse.hstack([-_padded(down @ own[cells], n), sparse.csr_array((size, n_extra))]),
            sparse.hstack([-_padded(down @ pooled[cells], n), sparse.csr_array((size, n_extra))]),
        ]
    )
    order = np.arange(3 * size).reshape(3, size).T.ravel()
    return sparse.csr_array(blocks)[order], cells, scale
