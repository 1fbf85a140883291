"""Convex programs with bounds on mutual information, as cones: the shared building blocks.

A program has variables ``x``, a linear cost, linear rows, and any number of bounds
``I(Z; K | C) <= eps`` on an :class:`Information`, in one of three forms:

- a bound: one exponential cone for every mass;
- held at zero: linear equalities;
- expanded (:class:`Expansion`), for a bound next to zero, where the cones lose their digits: with
  d the distance from independence in units of sqrt(eps), the information is a quadratic form of d
  over the pooled masses, in second-order cones whose numbers are all of size one.

Collect the parts in a :class:`Builder`, ``build()`` the matrices once, and hand them to
:class:`privfair.fairness.aglfop._solver.BudgetProgram`, which solves for many bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from privfair.fairness.aglfop._information import Information, divergence

__all__ = ["Assembled", "Builder", "ConeRows", "Expansion"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Entries = tuple[Ints, Ints, Array]  # rows, columns and values of a sparse matrix


@dataclass(frozen=True, eq=False)
class Expansion:
    """Where an information is expanded to second order, and the bound that sets the scale.

    Parameters
    ----------
    eps : float
        The bound in nats, > 0.
    ratio : ndarray of shape (n_z, n_c, n_k)
        m(z, c, k) / (p(z|c) m(., c, k)) - 1 at the centre, > -1. Zeros: the expansion at
        independence, half of chi-square.
    """

    eps: float
    ratio: Array


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
    expansion : Expansion or None
    """

    information: Information
    exact: bool
    row: int
    first: Ints
    cells: Ints
    scale: Array
    expansion: Expansion | None = None

    def price(self, z: Array) -> float:
        """Return the price of one nat, -d(cost)/d(eps); ``inf`` when exact."""
        if self.exact:
            return np.inf
        unit = 1.0 if self.expansion is None else self.expansion.eps
        return max(float(z[self.row]), 0.0) / unit

    def potential(self, z: Array) -> Array:
        """Return the normalised potential that the dual solution ``z`` proposes."""
        info = self.information
        raw = np.zeros(info.masses.shape[0])
        price = self.price(z)
        if self.exact or self.expansion is not None:
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
    n_equalities, n_inequalities, n_quadratic, n_cones : int
        The rows come in this order; each second-order and each exponential cone has three.
    n_variables : int
        The program's own variables stand first; the cones' follow.
    informations : tuple of ConeRows
    """

    cost: Array
    matrix: Any
    b: Array
    n_equalities: int
    n_inequalities: int
    n_quadratic: int
    n_cones: int
    n_variables: int
    informations: tuple[ConeRows, ...]

    def bounded(self) -> dict[str, int]:
        """Return the entry of ``b`` that holds each bound in nats, by name."""
        return {
            p.information.name: p.row
            for p in self.informations
            if not p.exact and p.expansion is None
        }


@dataclass
class Builder:
    """Collects the parts of a program.

    Parameters
    ----------
    cost : ndarray of shape (n_variables,)
        Cost to be minimised.
    """

    cost: Array
    _equal: list[tuple[Entries, Array]] = field(default_factory=list)
    _below: list[tuple[Entries, Array]] = field(default_factory=list)
    _informations: list[tuple[Information, bool, Expansion | None]] = field(default_factory=list)

    def equal(self, matrix: Any, right: Array) -> None:
        """Add rows ``matrix @ x == right``; the columns may end before the last variable."""
        self._equal.append((_entries(matrix), np.asarray(right, dtype=float)))

    def below(self, matrix: Any, right: Array) -> None:
        """Add rows ``matrix @ x <= right``."""
        self._below.append((_entries(matrix), np.asarray(right, dtype=float)))

    def information(
        self, information: Information, *, exact: bool = False, expansion: Expansion | None = None
    ) -> None:
        """Add a bound on an information, whole or expanded, or hold it at zero."""
        self._informations.append((information, exact, expansion))

    def linear(self) -> Builder:
        """Return a builder with the linear rows of this one and no information."""
        return Builder(self.cost, list(self._equal), list(self._below))

    def build(self) -> Assembled:
        """Return the matrices of the program."""
        rows = _Rows(self.cost.size)
        forms: list[_Form] = []
        for info, exact, expansion in self._informations:
            if exact:
                forms.append(_Held(info))
            else:
                forms.append(_Bounded(info) if expansion is None else _Expanded(info, expansion))
        for matrix, right in self._equal:
            rows.add(matrix, right)
        for form in forms:
            form.equalities(rows)
        n_equalities = rows.height
        for matrix, right in self._below:
            rows.add(matrix, right)
        for form in forms:
            form.budget(rows)
        linear = rows.height
        for form in forms:
            form.quadratic_cones(rows)
        smooth = rows.height
        for form in forms:
            form.exponential_cones(rows)
        return Assembled(
            cost=np.concatenate([self.cost, np.zeros(rows.width - self.cost.size)]),
            matrix=rows.matrix(),
            b=rows.right(),
            n_equalities=n_equalities,
            n_inequalities=linear - n_equalities,
            n_quadratic=(smooth - linear) // 3,
            n_cones=(rows.height - smooth) // 3,
            n_variables=self.cost.size,
            informations=tuple(form.place() for form in forms),
        )


class _Rows:
    """Rows as lists of entries: a program of few rows is built in a fraction of a solve."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.height = 0
        self._entries: list[Entries] = []
        self._right: list[Array] = []

    def columns(self, count: int) -> Ints:
        """Return new variables."""
        self.width += count
        return np.arange(self.width - count, self.width)

    def add(self, entries: Entries, right: Array) -> Ints:
        """Append rows; return their numbers."""
        rows, columns, values = entries
        self._entries.append((rows + self.height, columns, values))
        self._right.append(right)
        self.height += right.size
        return np.arange(self.height - right.size, self.height)

    def matrix(self) -> Any:
        rows, columns, values = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        return sparse.csc_array((values, (rows, columns)), shape=(self.height, self.width))

    def right(self) -> Array:
        return np.concatenate(self._right)


class _Form:
    """An information's share of each block of rows; nothing unless a form says so."""

    exact = False

    def __init__(self, info: Information, cells: Ints) -> None:
        self.info, self.cells = info, cells
        self.scale = np.repeat(info.weights.ravel(), info.n_outcomes)[cells]
        self.row, self.first = -1, cells

    def equalities(self, rows: _Rows) -> None:
        """Add equalities."""

    def budget(self, rows: _Rows) -> None:
        """Add the row of the bound."""

    def quadratic_cones(self, rows: _Rows) -> None:
        """Add second-order cones."""

    def exponential_cones(self, rows: _Rows) -> None:
        """Add exponential cones."""

    def place(self) -> ConeRows:
        return ConeRows(self.info, self.exact, self.row, self.first, self.cells, self.scale)


class _Held(_Form):
    """Held at zero: rows of m(z,c,k) = p(z|c) m(.,c,k), without those that the others imply.

    Summed over the groups of a context the rows vanish, and summed over k they say what the fixed
    weights say: the largest group and the last k are left out.
    """

    exact = True

    def __init__(self, info: Information) -> None:
        used = info.compared.copy()
        used[np.argmax(info.weights, axis=0), np.arange(used.shape[1])] = False
        cells = np.flatnonzero(np.repeat(used.ravel(), info.n_outcomes))
        super().__init__(info, cells[cells % info.n_outcomes != info.n_outcomes - 1])

    def equalities(self, rows: _Rows) -> None:
        own, (row, column, value) = _rates(self.info, self.cells)
        self.first = rows.add(_joined(own, (row, column, -value)), np.zeros(self.cells.size))


class _Bounded(_Form):
    """Bounded as it is: (-t, m, p(z|c) m.) in the exponential cone, divided by their weight."""

    def __init__(self, info: Information) -> None:
        super().__init__(info, np.flatnonzero(np.repeat(info.compared.ravel(), info.n_outcomes)))

    def budget(self, rows: _Rows) -> None:
        self.t = rows.columns(self.cells.size)
        entries = np.zeros_like(self.t), self.t, self.scale / self.info.total
        self.row = int(rows.add(entries, np.zeros(1))[0])

    def exponential_cones(self, rows: _Rows) -> None:
        (a, own, mass), (b, pooled, other) = _rates(self.info, self.cells)
        place = np.arange(self.cells.size)
        entries = _joined(
            (3 * place, self.t, np.ones(place.size)),
            (3 * a + 1, own, -mass),
            (3 * b + 2, pooled, -other),
        )
        self.first = rows.add(entries, np.zeros(3 * place.size))[1::3]


class _Expanded(_Form):
    """Bounded next to zero, see :class:`Expansion`.

    With y = P(k|c), x = P(k|z,c), w = P(z,c), phi(r) = (1 + r) log(1 + r) - r and R the ratio at
    the centre, d is defined by x - (1 + R) y = sqrt(eps / w) d. The information is the sum of
    w y phi(x / y - 1), and its expansion w y phi(R) + log(1 + R) sqrt(eps w) d + eps t with
    t y >= d^2 / (2 (1 + R)). Divided by eps, all its numbers are of size one.
    """

    def __init__(self, info: Information, expansion: Expansion) -> None:
        super().__init__(info, np.flatnonzero(np.repeat(info.compared.ravel(), info.n_outcomes)))
        self.expansion = expansion
        self.ratio = expansion.ratio.ravel()[self.cells]
        self.index = np.arange(self.cells.size)
        self.rates = _rates(info, self.cells)

    def equalities(self, rows: _Rows) -> None:
        self.d, self.t = rows.columns(self.index.size), rows.columns(self.index.size)
        own, (row, column, value) = self.rates
        step = -np.sqrt(self.expansion.eps * self.info.total / self.scale)
        entries = _joined(
            own, (row, column, -(1.0 + self.ratio[row]) * value), (self.index, self.d, step)
        )
        self.first = rows.add(entries, np.zeros(self.index.size))

    def budget(self, rows: _Rows) -> None:
        eps, weight = self.expansion.eps, self.scale / self.info.total
        _, (row, column, value) = self.rates
        constant = weight * divergence(self.ratio) / eps
        slope = np.log1p(self.ratio) * np.sqrt(weight / eps)
        entries = _joined(
            (row, column, constant[row] * value),
            (self.index, self.d, slope),
            (self.index, self.t, np.ones(self.index.size)),
        )
        entries = np.zeros_like(entries[0]), *entries[1:]
        self.row = int(rows.add(entries, np.ones(1))[0])

    def quadratic_cones(self, rows: _Rows) -> None:
        """Add y + t >= norm(y - t, sqrt(2 / (1 + R)) d)."""
        _, (row, column, value) = self.rates
        one = np.ones(self.index.size)
        entries = _joined(
            (3 * row, column, -value),
            (3 * self.index, self.t, -one),
            (3 * row + 1, column, -value),
            (3 * self.index + 1, self.t, one),
            (3 * self.index + 2, self.d, -np.sqrt(2.0 / (1.0 + self.ratio))),
        )
        rows.add(entries, np.zeros(3 * self.index.size))

    def place(self) -> ConeRows:
        return replace(super().place(), expansion=self.expansion)


def _rates(info: Information, cells: Ints) -> tuple[Entries, Entries]:
    """Return P(k | z, c) and P(k | c) of these cells (z, c, k), each as rows over the variables.

    These are the masses m(z,c,k) and p(z|c) m(.,c,k), divided by the weight of (z, c).
    """
    at, columns, values = info.entries
    place = np.full(info.masses.shape[0], -1)
    place[cells] = np.arange(cells.size)
    weight = np.repeat(info.weights.ravel(), info.n_outcomes)
    own = place[at] >= 0
    n_z = info.weights.shape[0]
    column = np.repeat(info.weights.sum(axis=0), info.n_outcomes)
    context = at % column.size
    row = place[np.arange(n_z)[:, None] * column.size + context].ravel()
    seen = row >= 0
    pooled = values / np.where(column > 0, column, 1.0)[context]
    return (
        (place[at[own]], columns[own], values[own] / weight[at[own]]),
        (row[seen], np.tile(columns, n_z)[seen], np.tile(pooled, n_z)[seen]),
    )


def _entries(matrix: Any) -> Entries:
    coo = matrix.tocoo()
    return coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data


def _joined(*parts: Entries) -> Entries:
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, values
