"""The best rule of decision on top of a classifier's scores, under bounds on its disparity."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core._format import json_number
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, UtilityWarning
from privfair.fairness.aglfop._bounds import FairnessBound, check_bounds
from privfair.fairness.aglfop._inputs import checked_cost, checked_table, checked_weight
from privfair.fairness.aglfop._measures import (
    context_index,
    decided,
    information_bits,
    largest_gap,
    pooled,
)
from privfair.fairness.aglfop._rule_program import ACCESS, LN2, RulePoint, RuleProgram

__all__ = ["FairRule", "fair_rule", "rule_told"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FairRule:
    """A randomised rule of decision, what it achieves and what its bounds cost.

    Parameters
    ----------
    rule : ndarray, shape (n_z, n_s, n_r, n_k)
        W(k | z, s, r): probability of decision k; constant along what the rule may not see.
    access : str
        What the rule sees: ``aware`` group, client and score; ``client_blind`` group and score;
        ``group_blind`` client and score; ``blind`` the score.
    cost : float
        Expected cost on the table; with the default cost the error rate.
    lower : float
        Proven lower bound of the cost of every rule of this access within the bounds.
    prices : dict of str to float
        What one more bit of each bound would save, in cost per bit (for ``gap_...`` per unit of
        the gap); ``inf`` for a bound of zero that costs something.
    achieved : dict of str to float
        Disparities of the rule on the table, in bits, bounded or not.
    gaps : dict of str to float
        Largest differences of decision rates between groups, in [0, 1].
    price_degenerate : bool
        Whether only a combination of the prices is determined.
    status : str
        ``free`` where the best rule of all keeps the bounds, ``solved`` where the proven gap is
        within 1e-6 (of the sum of costs, if larger than 1), else ``almost_solved``.
    n_iter : int

    References
    ----------
    Hamman and Dutta 2024, arXiv:2307.11333.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.array([[0.1, 0.3], [0.4, 0.2]]).reshape(2, 1, 2, 1).repeat(2, axis=3) / 2
    >>> fair_rule(p, FairnessBound(eps_global=0.0)).achieved["global"] < 1e-9
    True
    """

    rule: Array
    access: str
    cost: float
    lower: float
    prices: dict[str, float]
    achieved: dict[str, float]
    gaps: dict[str, float]
    price_degenerate: bool
    status: str
    n_iter: int

    @property
    def accuracy(self) -> float:
        """One minus the cost: the accuracy, under the default cost."""
        return 1.0 - self.cost

    @property
    def proven_gap(self) -> float:
        """The most by which any rule could be better, at least 0."""
        return max(0.0, self.cost - self.lower)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "rule": self.rule.tolist(),
            "access": self.access,
            "cost": self.cost,
            "lower": self.lower,
            "prices": {name: json_number(v) for name, v in self.prices.items()},
            "achieved": self.achieved,
            "gaps": self.gaps,
            "price_degenerate": self.price_degenerate,
            "status": self.status,
            "n_iter": self.n_iter,
        }


def fair_rule(
    p: ArrayLike,
    bounds: FairnessBound | Sequence[FairnessBound],
    *,
    access: str = "aware",
    cost: ArrayLike | None = None,
    client_weight: ArrayLike | None = None,
    positive: int = 1,
    tol: float = 1e-11,
) -> FairRule:
    """Return the best randomised rule W(k | z, s, r) under bounds on its disparity.

    Minimises the expected cost sum p(z,s,y,r) cost(y,k) W(k|z,s,r) over all rules that see no
    more than ``access`` allows, subject to every bound.

    Parameters
    ----------
    p : array-like, shape (n_z, n_s, n_y, n_r)
        Joint distribution of group, client, label and score bin (or predicted class).
    bounds : FairnessBound or sequence of them
        Several criteria may be bounded at once. Their clients are positions on axis 1.
    access : {"aware", "client_blind", "group_blind", "blind"}, default="aware"
        What the rule may see beside the score. A rule that sees the group at decision time is
        disparate treatment, which is illegal in places.
    cost : array-like, shape (n_y, n_k), or None
        Cost of decision k where the label is y; None is 0 if k = y and 1 if not.
    client_weight : array-like, shape (n_s,), or None
        Importance of the clients' costs, at least 0; scaled so that their mean over people is 1.
    positive : int, default=1
        Position of the label that equal opportunity conditions on.
    tol : float, default=1e-11
        The solver's tolerance.

    Returns
    -------
    FairRule
        It keeps every bound on ``p`` (up to 1e-6 bits, or 1e-7 of a gap, where a bound is 0 or
        next to it), its rows sum to one,
        and its distance to the optimum is proven.

    Raises
    ------
    DataError, LengthMismatchError, InvalidParameterError, InvalidTypeError
        A table that is no distribution, or bounds, costs or weights that do not fit it.
    SolverError
        No answer, or one that fails its checks.

    Warns
    -----
    UtilityWarning
        One group only: no bound can bind.

    Notes
    -----
    *Algorithm.* One convex program with exponential cones (Clarabel); bounds of exactly zero are
    linear equalities. n_visible * n_k variables; milliseconds for tables of hundreds of cells.
    The lower bound replaces each information by its Donsker-Varadhan potential and solves the
    separable rest exactly, so that it holds whatever the solver did. Cells that no person is in
    get the rule of the people who look alike otherwise. Optimal rules are not unique.

    *Privacy.* None: the rule shows small cells of ``p``. Pass the distribution of a private
    release (:func:`privfair.fairness.release_contingency`), and the rule is post-processing.

    References
    ----------
    Hamman and Dutta 2024, arXiv:2307.11333. Kim, Chen and Talwalkar 2020, arXiv:2004.03424.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> p = rng.dirichlet(np.ones(2 * 3 * 2 * 5)).reshape(2, 3, 2, 5)
    >>> free = fair_rule(p, FairnessBound())
    >>> fair = fair_rule(p, FairnessBound(eps_global=0.001, eps_local=0.01))
    >>> fair.accuracy < free.accuracy, fair.achieved["local"] <= 0.01, fair.proven_gap < 1e-6
    (True, True, True)
    """
    return rule_told(
        p, None, bounds, access=access, cost=cost, client_weight=client_weight,
        positive=positive, tol=tol,
    )  # fmt: skip


def rule_told(
    p: ArrayLike,
    told: Array | None,
    bounds: FairnessBound | Sequence[FairnessBound],
    *,
    access: str = "aware",
    cost: ArrayLike | None = None,
    client_weight: ArrayLike | None = None,
    positive: int = 1,
    tol: float = 1e-11,
) -> FairRule:
    """Return the best rule within bounds on ``p`` at the cost that ``told`` says.

    Parameters
    ----------
    p : array-like, shape (n_z, n_s, n_y, n_r)
        A distribution, on which the bounds are to hold.
    told : ndarray of the same shape, or None
        The same masses of (z, s, r), with the rates of labels that tell the cost; None is ``p``.
    bounds, access, cost, client_weight, positive, tol
        As in :func:`fair_rule`.

    Returns
    -------
    FairRule
    """
    table = checked_table(p)
    given = check_bounds(bounds)
    check.one_of(ACCESS, access=access)
    n_z, n_s, n_y, _ = table.shape
    at = check.non_negative_int(positive=positive)
    if at >= n_y:
        raise InvalidParameterError(f"positive must be below {n_y}, the labels; got {at}.")
    charges = checked_cost(cost, n_y)
    weight = checked_weight(client_weight, table)
    for bound in given:
        for client in bound.eps_client or {}:
            if isinstance(client, bool) or not isinstance(client, int | np.integer):
                raise InvalidTypeError("clients of eps_client must be positions on axis 1 of p.")
            if not 0 <= int(client) < n_s:
                raise InvalidParameterError(f"eps_client names client {client} of {n_s}.")
    if (table.sum(axis=(1, 2, 3)) > 0).sum() < 2 and any(not b.empty for b in given):
        warnings.warn(
            "the table holds one group only, so that every disparity is zero and no bound binds.",
            UtilityWarning,
            stacklevel=2,
        )
    more: dict[str, Any] = {
        "access": access, "bounds": given, "cost": charges, "client_weight": weight,
        "positive": at, "tol": check.positive(tol=tol),
    }  # fmt: skip
    program = RuleProgram(table, **more) if told is None else _Told(table, told, **more)
    return _as_rule(program, program.solve(), given, access, at)


class _Told(RuleProgram):
    """A program whose bounds are about one table and whose cost is about another."""

    def __init__(self, p: Array, told: Array, **more: Any) -> None:
        super().__init__(p, **more)
        by_cell = np.einsum("zsyr,s,yk->zsrk", told, more["client_weight"], more["cost"])
        hidden = tuple(i for i, axis in enumerate("zsr") if axis not in ACCESS[more["access"]])
        self.cost = by_cell.sum(axis=hidden).reshape(-1, self.n_k)[self.visible]
        self.free = np.zeros_like(self.cost)
        self.free[np.arange(len(self.cost)), self.cost.argmin(axis=1)] = 1.0
        self.of_free = {n: i.value(self.free.ravel()) for n, i in self.informations.items()}


def _as_rule(
    program: RuleProgram,
    point: RulePoint,
    bounds: tuple[FairnessBound, ...],
    access: str,
    positive: int,
) -> FairRule:
    rule = spread(program, point.weights, access)
    achieved, gaps = measured(program.p, rule, bounds, positive)
    prices = {n: v if n.startswith("gap_") or ":gap_" in n else v * LN2
              for n, v in point.prices.items()}  # fmt: skip
    return FairRule(
        rule, access, point.error, point.lower, prices, achieved, gaps,
        point.degenerate, point.status, point.n_iter,
    )  # fmt: skip


def measured(
    p: Array, rule: Array, bounds: Sequence[FairnessBound], positive: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return disparities (bits) and gaps by name; tables may be stacked in front of ``p``."""
    m = decided(p, rule)
    n_s, n_y = m.shape[-3], m.shape[-2]
    achieved, gaps = {}, {}
    for bound in bounds or (FairnessBound(),):
        prefix = bound.criterion + ":" if len(bounds) > 1 else ""
        scopes: dict[str, str | int] = {"global": "global", "local": "local"}
        scopes |= {f"client:{c}": int(c) for c in bound.eps_client or {}}
        for name, scope in scopes.items():
            cells = pooled(m, *context_index(n_s, n_y, bound.criterion, scope, positive))
            values = information_bits(cells), largest_gap(cells)
            scalar = np.ndim(p) == 4
            achieved[prefix + name] = float(values[0]) if scalar else values[0]
            gaps[prefix + name] = float(values[1]) if scalar else values[1]
    return achieved, gaps


def differences(
    p: Array, rule: Array, bounds: Sequence[FairnessBound], positive: int
) -> dict[str, tuple[Array, Array]]:
    """Return the signed differences of decision rates behind the gaps, by the gaps' names.

    Parameters
    ----------
    p : ndarray, shape (n_tables, n_z, n_s, n_y, n_r)
        Tables; noisy ones may have negative entries.

    Returns
    -------
    dict of str to (values, sizes)
        ``values`` of shape (n_tables, n_pairs), one per pair of groups, context and decision
        (one of two decisions is enough), NaN where a group has no mass; ``sizes`` of shape
        (n_tables, 2, n_pairs), the masses of both groups.
    """
    m = decided(p, rule)
    n_s, n_y = m.shape[-3], m.shape[-2]
    first, second = np.triu_indices(m.shape[1], 1)
    out = {}
    for bound in bounds or (FairnessBound(),):
        prefix = bound.criterion + ":" if len(bounds) > 1 else ""
        scopes: dict[str, str | int] = {"global": "global", "local": "local"}
        scopes |= {f"client:{c}": int(c) for c in bound.eps_client or {}}
        for name, scope in scopes.items():
            cells = pooled(m, *context_index(n_s, n_y, bound.criterion, scope, positive))
            size = cells.sum(axis=-1, keepdims=True)
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = np.where(size > 0, np.clip(cells / size, 0.0, 1.0), np.nan)
            if rate.shape[-1] == 2:
                rate = rate[..., 1:]
            size = np.broadcast_to(size, rate.shape)
            pairs = (rate[:, first] - rate[:, second]).reshape(len(rate), -1)
            both = np.stack([size[:, first], size[:, second]], axis=1).reshape(len(rate), 2, -1)
            out[prefix + name] = (pairs, both)
    return out


def spread(program: RuleProgram, weights: Array, access: str) -> Array:
    """Return W over all of (z, s, r, k), cells without people filled from those alike.

    A visible cell without people takes the mean rule of the people who share its score bin and
    what else it sees, first without the client, then without the group, then the nearest bin's.
    """
    n_z, n_s, _, n_r = program.p.shape
    n_k = weights.shape[1]
    axes = ACCESS[access]
    mass = program.p.sum(axis=2)
    gone = tuple(i for i, axis in enumerate("zsr") if axis not in axes)
    seen = mass.sum(axis=gone)
    full = np.zeros((seen.size, n_k))
    full[program.visible] = weights
    full = full.reshape(*seen.shape, n_k)
    for axis in ("s", "z"):
        if axis in axes:
            full, seen = _filled(full, seen, axes.index(axis))
    known = np.flatnonzero(seen.reshape(-1, n_r).sum(axis=0) > 0)
    near = known[np.abs(known[None, :] - np.arange(n_r)[:, None]).argmin(axis=1)]
    full = np.take(full, near, axis=full.ndim - 2)
    shape = tuple(n if axis in axes else 1 for axis, n in zip("zsr", (n_z, n_s, n_r), strict=True))
    return np.broadcast_to(full.reshape(*shape, n_k), (n_z, n_s, n_r, n_k)).copy()


def _filled(full: Array, seen: Array, axis: int) -> tuple[Array, Array]:
    total = seen.sum(axis=axis, keepdims=True)
    mean = (full * seen[..., None]).sum(axis=axis, keepdims=True)
    mean = mean / np.where(total > 0, total, 1.0)[..., None]
    empty = (seen == 0) & (total > 0)
    out = np.where(empty[..., None], mean, full)
    # What was filled counts as one of many later on, and by next to nothing.
    return out, np.where(empty, np.finfo(float).tiny * 1e10, seen)
