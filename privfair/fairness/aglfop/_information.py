"""Mutual information as a function of a program's variables, and what it takes to prove things.

Each information is given by one sparse map ``masses`` from the variables ``x`` to the joint masses
m(z, c, k), because every criterion is such a map:

- demographic parity, global: C has one value, m(z, k) pooled over clients;
- demographic parity, local: C = client;
- one client alone: the cells of that client only (``weights`` then sum to p(client));
- equalised odds: C = y, or (y, client); equal opportunity: the cells with y = 1 only.

What must hold is that the context masses sum_k m(z, c, k) = ``weights[z, c]`` are fixed by the
linear rows of the program: this makes each information convex, for the second argument of

    I = sum_{z,c,k} rel_entr( m(z,c,k), p(z|c) m(.,c,k) ) / sum(weights)

is then linear in ``x``. All information here is in nats; the public functions convert.

For any numbers a(z, c, k) and price L >= 0, the *potential*
h = a - L log sum_z p(z|c) exp(a / L) satisfies

    sum h(z,c,k) m(z,c,k) <= L * I(m) * sum(weights)         for every m with those weights

(Donsker and Varadhan's variational formula, cell by cell), so that replacing each information by
its potential turns the program into a linear one whose exact optimum is a lower bound of the
error at *every* bound eps, whatever the accuracy of the solver that proposed a and L.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import xlogy

__all__ = ["Information", "charge_held", "divergence", "pooled_map"]

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


def divergence(ratio: Array) -> Array:
    """Return (1 + r) log(1 + r) - r, to full relative precision near zero.

    The relative entropy of m and y is the sum of y times this at r = m / y - 1, where the two have
    one sum. A sum of rel_entr(m, y) would leave nothing but rounding of an information of 1e-13.
    """
    series = ratio**2 * (1 / 2 - ratio * (1 / 6 - ratio * (1 / 12 - ratio * (1 / 20))))
    whole = xlogy(1.0 + ratio, 1.0 + ratio) - ratio
    return np.asarray(np.where(np.abs(ratio) < 1e-3, series, whole))


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
    def entries(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Rows, columns and values of ``masses``."""
        coo = self.masses.tocoo()
        return coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data

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
        y = self.share[:, :, None] * m.sum(axis=0)
        return float((y * divergence(self._ratio(m, y))).sum()) / self.total

    def ratio(self, x: Array) -> Array:
        """Return m(z, c, k) / (p(z|c) m(., c, k)) - 1 of a solution; 0 where no mass is."""
        m = np.maximum(self.joint(x), 0.0)
        return self._ratio(m, self.share[:, :, None] * m.sum(axis=0))

    @staticmethod
    def _ratio(m: Array, y: Array) -> Array:
        return np.where(y > 0, (m - y) / np.where(y > 0, y, 1.0), 0.0)

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

    def root_price(self, potential: Array) -> float:
        """Return r such that sum(h * m) <= r * sqrt(I(m)), for a potential found at zero.

        There sum_z p(z|c) h(z, c, k) = 0, so that sum_z h m is m(., c, k) times the mean of h
        under two laws of z subtracted, at most the range of h times their total variation, which
        is at most sqrt(their divergence / 2) (Pinsker). By Cauchy and Schwarz, with
        sum_k m(., c, k) = w(c), the sum is at most sqrt(I sum(w) sum_c w(c) max_k range^2 / 2).
        """
        seen = self.compared[:, :, None]
        high = np.where(seen, potential, -np.inf).max(axis=0)
        low = np.where(seen, potential, np.inf).min(axis=0)
        width = np.where(np.isfinite(high), high - low, 0.0).max(axis=-1)
        column = self.weights.sum(axis=0)
        return float(np.sqrt(self.total * (column * width**2).sum() / 2.0))

    def pull_back(self, potential: Array) -> Array:
        """Return the cost per unit of each variable that a potential over m(z, c, k) means."""
        return np.asarray(self._adjoint @ potential.ravel())

    @cached_property
    def _adjoint(self) -> Any:
        return sparse.csr_array(self.masses.T)


def charge_held(
    informations: Mapping[str, Information],
    potentials: dict[str, Array],
    prices: dict[str, float],
    bounds: Mapping[str, float],
) -> None:
    """Price, in place, what was held at zero though its bound (nats) is not.

    An answer at zero has no finite price of its own. One that its bound can carry makes the
    lower bound hold there.
    """
    for name, eps in bounds.items():
        if eps > 0.0:
            prices[name] = informations[name].finite_price(potentials[name], eps)
            potentials[name] = informations[name].potential(potentials[name], prices[name])
