"""The numeric privacy curve of a plan, on a grid refined until it stops mattering."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from privfair.accounting import _lattice, _pld, _rdp
from privfair.accounting._curve import Atoms, Curve
from privfair.accounting._plan import Plan
from privfair.accounting._pld import GridTooFine, Part

__all__ = ["MIN_DELTA", "GridTooFine", "Numeric", "numeric", "refined"]

MIN_DELTA = 1e-12
"""Fourier round-off makes a numeric curve meaningless below this delta."""
COARSEST = 1e-3
FINEST = 2e-7
TOLERANCE = 1e-3
_EXACT_LATTICE = 4096
_EASY = 1 << 13  # points of a grid that costs next to nothing


@dataclass(frozen=True)
class Numeric:
    """A composed plan, valid at whatever step it was computed.

    Attributes
    ----------
    curves : tuple
        What says delta at epsilon and epsilon at delta; all of them hold at once.
    step : float
        Grid step, 0 where nothing was rounded.
    revealed : float
        Probability of total failure that comes on top.
    """

    curves: tuple[_pld.Composed | Curve, ...]
    step: float
    revealed: float = field(default=0.0)

    def epsilon(self, delta: float) -> float:
        """Return a valid epsilon at ``delta``."""
        left = (delta - self.revealed) / (1 - self.revealed)
        if left <= 0:
            return math.inf
        return max(curve.epsilon(left) for curve in self.curves)

    def delta(self, epsilon: float) -> float:
        """Return a valid delta at ``epsilon``."""
        kept = max(curve.delta(epsilon) for curve in self.curves)
        return min(1.0, self.revealed + (1 - self.revealed) * kept)


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
    rest = _rdp.rest_bound(plan, ranged=ranged)
    exact = None if rest is not None else _exact_lattice(plan, ranged)
    if exact is not None:
        return Numeric((Curve(exact),), 0.0, plan.revealed)
    parts = _parts(plan, ranged)
    if not parts:
        nothing = Atoms(np.zeros(1), np.ones(1), 0.0)
        return Numeric((Curve(nothing, rest),), 0.0, plan.revealed)
    composed = _pld.compose(parts, step)
    if rest is None:
        return Numeric((composed,), step, plan.revealed)
    # The masses' round-off counts as mass at infinity, as for a delta.
    joined = [
        Curve(Atoms(a.losses, a.p, a.infinite + composed.noise), rest) for a in composed.atoms()
    ]
    return Numeric(tuple(joined), step, plan.revealed)


def _responses(plan: Plan, ranged: bool) -> dict[tuple[float, int], int]:
    """Randomised responses to counts, with what binary randomised response dominates."""
    out = plan.responses.copy()
    for (eps, _), n in plan.approx.items():
        if eps > 0:
            out[eps, 2] += n
    if not ranged:
        for (eps, _), n in plan.ranged.items():
            out[eps, 2] += n
    return dict(out)


def _foldable(count: int) -> bool:
    return 2 * math.sqrt(count) <= _EXACT_LATTICE


def _exact_lattice(plan: Plan, ranged: bool) -> Atoms | None:
    """The composed loss without any rounding, when one randomised response is all there is."""
    if plan.mu2 or plan.sampled or plan.laplace or plan.discrete_laplace:
        return None
    if plan.truncated or plan.mixtures:
        return None
    responses = _responses(plan, ranged)
    if len(responses) != 1:
        return None
    (((eps0, k), count),) = responses.items()
    if not _foldable(count):
        return None
    return Atoms(*_lattice.folded(*_lattice.response_atoms(eps0, k), count))


def _parts(plan: Plan, ranged: bool) -> list[tuple[Part, int]]:
    relation = "replace_one" if plan.relation == "replace_one" else "add_remove"
    out: list[tuple[Part, int]] = [
        (("gaussian", q, sigma, relation), n) for (q, sigma), n in plan.sampled.items()
    ]
    if plan.mu2:  # the plan has doubled the contribution where the relation asks for it
        out.append((("gaussian", 1.0, plan.mu2**-0.5, "add_remove"), 1))
    out += [(("truncated", *key, relation), n) for key, n in plan.truncated.items()]
    out += [(("mixture", *key), n) for key, n in plan.mixtures.items()]
    out += [(("laplace", q, b), n) for (q, b), n in plan.laplace.items()]
    out += [(("discrete_laplace", a, s), n) for (a, s), n in plan.discrete_laplace.items()]
    for (eps0, k), n in _responses(plan, ranged).items():
        if _foldable(n):
            out.append((("lattice", eps0, k, n), 1))
        else:
            out.append((("lattice", eps0, k, 1), n))
    return out


def first_step(plan: Plan, *, ranged: bool = False) -> float:
    """Return a step at which refinement may start: a little above the spread of one loss.

    At most 1e-3, unless a large loss would make that grid long.
    """
    spread, count = plan.mu2, 1 if plan.mu2 else 0
    for (q, sigma), n in plan.sampled.items():
        # Never more than the whole Gaussian's spread, which a tiny sigma would suggest.
        spread += n * min(q * q * math.expm1(min(1 / sigma**2, 60.0)), 1 / sigma**2)
        count += n
    for (_, q, _, sigma), n in plan.truncated.items():
        spread += n * min(q * q * math.expm1(min(1 / sigma**2, 60.0)), 1 / sigma**2)
        count += n
    for (sigma, most, q), n in plan.mixtures.items():
        size = (most * q) ** 2 + most * q * (1 - q)
        spread += n * min(size * math.expm1(min(1 / sigma**2, 60.0)), (most / sigma) ** 2)
        count += n
    for (q, b), n in plan.laplace.items():
        spread += n * min(q * q * math.expm1(min(1 / b**2, 60.0)), 1 / b**2)
        count += n
    step = COARSEST
    wanted = 2 * math.sqrt(spread / count) if count else 0.0
    longest = max((_pld.reach(part) for part, _ in _parts(plan, ranged)), default=0.0)
    while wanted and step > wanted and step / 4 >= FINEST and 4 * longest / step <= _EASY:
        step /= 4
    while longest / step > _EASY and step < 0.01:
        step *= 4
    return step


def refined(plan: Plan, delta: float, *, ranged: bool = False) -> Numeric | None:
    """Quarter the step until that would change epsilon at ``delta`` by less than 0.1 %.

    Returns None when even the first grid would be too large; Renyi bounds remain then.

    Notes
    -----
    Connecting the dots leaves an error that falls with the square of the step once the step is
    below the spread of the loss (by a factor of 16 at each quartering), and linearly in the
    variance at worst (4). The change that the next quartering would make is predicted from the
    last two changes, and the quartering that would only confirm it is saved: it would cost more
    than all before it.
    """
    step = first_step(plan, ranged=ranged)
    best: Numeric | None = None
    value, last = math.inf, math.nan
    while True:
        try:
            found = numeric(plan, step, ranged=ranged)
        except GridTooFine:
            if best is None and step < COARSEST:
                step *= 4
                continue
            return best
        new = found.epsilon(delta)
        change = value - new
        if best is not None and not change > 0:
            return best  # round-off has overtaken the grid
        best, value = found, new
        if not found.step or step / 4 < FINEST or not math.isfinite(new):
            return best
        if math.isfinite(change) and _next_change(change, last) <= TOLERANCE * new:
            return best
        last = change
        step /= 4


def _next_change(change: float, last: float) -> float:
    """Predict what quartering the step once more would change."""
    ratio = last / change if math.isfinite(last) else 4.0
    return change / min(max(ratio, 4.0), 16.0)
