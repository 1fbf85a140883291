"""The numeric privacy curve of a plan, on a grid refined until it stops mattering."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from privfair.accounting import _losses, _rdp
from privfair.accounting._losses import GridTooFine, Loss, Pair
from privfair.accounting._plan import Plan
from privfair.accounting._pld import Atoms, Curve, compose

__all__ = ["MIN_DELTA", "GridTooFine", "Numeric", "numeric", "refined"]

MIN_DELTA = 1e-12
"""Fourier round-off makes a numeric curve meaningless below this delta."""
COARSEST = 1e-3
FINEST = 2e-7
TOLERANCE = 1e-3
_EXACT_LATTICE = 4096


@dataclass(frozen=True)
class Numeric:
    """Both orders of a composed plan, valid at whatever step it was computed."""

    remove: Curve
    add: Curve
    step: float

    def epsilon(self, delta: float) -> float:
        """Return a valid epsilon at ``delta``."""
        one = self.remove.epsilon(delta)
        return one if self.add is self.remove else max(one, self.add.epsilon(delta))

    def delta(self, epsilon: float) -> float:
        """Return a valid delta at ``epsilon``."""
        one = self.remove.delta(epsilon)
        return one if self.add is self.remove else max(one, self.add.delta(epsilon))


_CACHE: OrderedDict[tuple[object, ...], Numeric] = OrderedDict()
_LOCK = threading.Lock()


def _key(plan: Plan, step: float, ranged: bool) -> tuple[object, ...] | None:
    if plan.parallel:
        return None
    counters = (
        plan.sampled,
        plan.laplace,
        plan.discrete_laplace,
        plan.responses,
        plan.approx,
        plan.ranged,
    )
    frozen = tuple(tuple(sorted(counter.items())) for counter in counters)
    return (plan.relation, plan.mu2, plan.rho, plan.xi, *frozen, step, ranged)


def numeric(plan: Plan, step: float, *, ranged: bool = False) -> Numeric:
    """Compose a plan on a grid of the given step.

    Parameters
    ----------
    plan : Plan
        What happened.
    step : float
        Grid step; any is valid, a smaller one is tighter.
    ranged : bool, default=False
        Whether exponential mechanisms go in by their zCDP bound rather than as pure DP.
    """
    key = _key(plan, step, ranged)
    if key is None:
        return _build(plan, step, ranged)
    with _LOCK:
        if key in _CACHE:
            _CACHE.move_to_end(key)
            return _CACHE[key]
    found = _build(plan, step, ranged)
    with _LOCK:
        _CACHE[key] = found
        while len(_CACHE) > 16:
            _CACHE.popitem(last=False)
    return found


def _build(plan: Plan, step: float, ranged: bool) -> Numeric:
    rest = _rdp.rest_bound(plan, ranged=ranged)
    exact = _exact_lattice(plan, rest is not None, ranged)
    if exact is not None:
        both = Curve(exact)
        return Numeric(both, both, 0.0)
    pairs = _pairs(plan, step, ranged)
    if not pairs:
        nothing = Atoms(np.zeros(1), np.ones(1), plan.revealed)
        both = Curve(nothing, rest)
        return Numeric(both, both, 0.0)
    removes = _with_revealed(compose([(pair.remove, n) for pair, n in pairs]), plan.revealed)
    remove = Curve(removes, rest)
    if all(pair.add is pair.remove for pair, _ in pairs):
        return Numeric(remove, remove, step)
    adds = _with_revealed(compose([(pair.add, n) for pair, n in pairs]), plan.revealed)
    return Numeric(remove, Curve(adds, rest), step)


def _with_revealed(atoms: Atoms, revealed: float) -> Atoms:
    if revealed == 0:
        return atoms
    infinite = atoms.infinite + revealed - atoms.infinite * revealed
    return Atoms(atoms.losses, atoms.p * (1 - revealed), infinite)


def _lattices(plan: Plan, ranged: bool) -> list[tuple[np.ndarray, float, int]]:
    """Mechanisms whose losses lie on a lattice: masses, step and count of each."""
    out: list[tuple[np.ndarray, float, int]] = []
    responses = plan.responses.copy()
    for (eps, _), n in plan.approx.items():
        if eps > 0:
            responses[eps, 2] += n
    if not ranged:
        for (eps, _), n in plan.ranged.items():
            responses[eps, 2] += n
    out += [(*_losses.response_atoms(eps, k), n) for (eps, k), n in responses.items()]
    out += [
        (*_losses.discrete_laplace_atoms(a, s), n) for (a, s), n in plan.discrete_laplace.items()
    ]
    return out


def _folded(p: np.ndarray, step: float, count: int) -> Atoms:
    masses, first, lost = _losses.lattice_power(p, count)
    top = step * count * (len(p) - 1) / 2
    losses = np.asarray(top - step * (first + np.arange(len(masses))), dtype=np.float64)
    return Atoms(losses[::-1], masses[::-1], lost)


def _exact_lattice(plan: Plan, has_rest: bool, ranged: bool) -> Atoms | None:
    """The composed loss without any rounding, when one lattice is all there is."""
    if plan.mu2 or plan.sampled or plan.laplace or has_rest:
        return None
    lattices = _lattices(plan, ranged)
    if len(lattices) != 1:
        return None
    p, step, count = lattices[0]
    if (len(p) - 1) * math.sqrt(count) > _EXACT_LATTICE:
        return None
    return _with_revealed(_folded(p, step, count), plan.revealed)


def _pairs(plan: Plan, h: float, ranged: bool) -> list[tuple[Pair, int]]:
    out: list[tuple[Pair, int]] = []
    sampled = (
        _losses.replaced_gaussian_pair if plan.relation == "replace_one" else _losses.gaussian_pair
    )
    for (q, sigma), n in plan.sampled.items():
        out.append((sampled(q, sigma, h), n))
    if plan.mu2:
        out.append((_losses.gaussian_pair(1.0, plan.mu2**-0.5, h), 1))
    for (q, b), n in plan.laplace.items():
        pair = _losses.laplace_pair(q, b, h)
        out.append((Pair(pair.remove, pair.remove) if q == 1 else pair, n))
    for p, step, n in _lattices(plan, ranged):
        if (len(p) - 1) * math.sqrt(n) <= _EXACT_LATTICE:
            loss, n = _rounded(h, _folded(p, step, n)), 1
        else:
            loss = _rounded(h, _folded(p, step, 1))
        out.append((Pair(loss, loss), n))
    return out


def _rounded(h: float, atoms: Atoms) -> Loss:
    return _losses.from_atoms(h, atoms.losses, atoms.p, atoms.infinite)


def first_step(plan: Plan) -> float:
    """Return a step at which refinement may start: near the spread of one step's loss."""
    spread, count = plan.mu2, 1 if plan.mu2 else 0
    for (q, sigma), n in plan.sampled.items():
        # Never more than the whole Gaussian's spread, which a tiny sigma would suggest.
        spread += n * min(q * q * math.expm1(min(1 / sigma**2, 60.0)), 1 / sigma**2)
        count += n
    for (q, b), n in plan.laplace.items():
        spread += n * min(q * q * math.expm1(min(1 / b**2, 60.0)), 1 / b**2)
        count += n
    if count == 0 or spread == 0:
        return COARSEST
    wanted = math.sqrt(spread / count) / 4
    level = max(0, math.ceil(math.log(COARSEST / wanted, 4))) if wanted < COARSEST else 0
    return float(max(COARSEST / 4**level, FINEST))


def refined(plan: Plan, delta: float, *, ranged: bool = False) -> Numeric | None:
    """Quarter the step until epsilon at ``delta`` changes by less than 0.1 %.

    Returns None when even the first grid would be too large; Renyi bounds remain then.
    """
    step = first_step(plan)
    try:
        best = numeric(plan, step, ranged=ranged)
        value = best.epsilon(delta)
        while step / 4 >= FINEST and best.step:
            step /= 4
            finer = numeric(plan, step, ranged=ranged)
            new = finer.epsilon(delta)
            change = value - new
            if new <= value:
                best, value = finer, new
            if not change > TOLERANCE * new:
                break
    except GridTooFine:
        return locals().get("best")
    return best
