"""The other end of the bracket: an epsilon that the true cost of a plan is not below.

Grids that dominate a pair give upper bounds; grids that the pair dominates (``_cells``) give
lower bounds, on the same steps and with an error of the same order. Round-off is subtracted from
delta here, where the upper bound adds it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.accounting import _cells, _gaussian, _lattice, _numeric, _pld
from privfair.accounting._plan import Plan

__all__ = ["epsilon"]

Floats = NDArray[np.float64]
_NARROW, _WIDE = 0.005, 0.05  # of epsilon: finer grids are tried above the first, none is given
_FINER = 2
_ULP = float(np.finfo(np.float64).eps)


def epsilon(plan: Plan, delta: float, step: float, upper: float) -> float | None:
    """Return a lower bound on the true epsilon at ``delta``, or None.

    Parameters
    ----------
    plan : Plan
        What happened.
    delta : float
        In (0, 1).
    step : float
        The grid step of the upper bound, 0 where it needed none.
    upper : float
        The upper bound.
    """
    left = (delta - plan.revealed) / (1 - plan.revealed)
    if left <= 0 or not math.isfinite(upper) or not _attained(plan):
        return None
    if plan.only_gaussian:
        return max(0.0, _gaussian.epsilon(math.sqrt(plan.mu2), left) * (1 - 1e-9) - 1e-11)
    best: float | None = None
    at = step or _numeric.COARSEST
    for _ in range(_FINER + 1):
        try:
            found = _composed(plan, at, left)
        except _pld.GridTooFine:
            break
        best = found if best is None else max(best, found)
        if best >= (1 - _NARROW) * upper:
            break
        at /= 4
    return best if best is not None and best >= (1 - _WIDE) * upper else None


def _attained(plan: Plan) -> bool:
    """Whether each price is that of a mechanism which the events allow."""
    return not (
        plan.loose
        or plan.rho
        or plan.xi
        or plan.parallel
        or plan.ranged
        or plan.batches
        or plan.selected
        or plan.truncated
        or plan.laplace
        or any(s > _lattice.MOST_ATOMS for _, s in plan.discrete_laplace)
    )


def _composed(plan: Plan, step: float, delta: float) -> float:
    made: Any = None
    noise = 0.0
    for part, count in _numeric._parts(plan, ranged=False):
        one = _built(part, step)
        if count > 1:
            _pld._check_size(one, count)
            one = one.self_compose(count, _pld.TAIL)
        noise += 4 * _ULP * count + _pld._round_off(one, count if count > 1 else 0)
        if made is None:
            made = one
            continue
        if _pld._widest(made) + _pld._widest(one) > _pld.MAX_COMPOSED:
            raise _pld.GridTooFine(f"step {step}")
        made = made.compose(one, _pld.TAIL)
        noise += _pld._round_off(made, 1)
    if made is None:
        return 0.0
    return max(_read(pmf, delta + 2 * noise) for pmf in _pld._orders(made))


def _read(pmf: Any, delta: float) -> float:
    """Largest grid loss at which the divergence still exceeds ``delta``."""
    losses, p = _pld._losses(pmf), np.maximum(pmf._probs, 0.0)
    keep = (losses >= 0) & (losses < 600)
    losses, p = losses[keep], p[keep]
    if len(losses) == 0:
        return 0.0
    above = np.cumsum(p[::-1])[::-1]
    damped = np.cumsum((p * np.exp(-losses))[::-1])[::-1]
    more = above * (1 - 16 * _ULP) - np.exp(losses) * damped > delta
    if not more[0]:
        return 0.0
    k = int(np.flatnonzero(more)[-1])
    if k + 1 == len(losses):
        return float(losses[k])
    # Between two points the divergence is linear in e^epsilon.
    exact = math.log((above[k + 1] * (1 - 16 * _ULP) - delta) / damped[k + 1])
    return float(min(max(exact, losses[k]), losses[k + 1]))


def _built(part: _pld.Part, step: float) -> Any:
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as pld

    if _pld.reach(part) / step > _pld.MAX_BUILT // 2:
        raise _pld.GridTooFine(f"{part} at step {step}")
    cells = _cells_of(part, step)
    alike = part[0] in ("lattice", "discrete_laplace") or part[-1] == "replace_one"
    made = []
    for order in (cells,) if alike else (cells, cells.mirrored()):
        low, p = _cells.rounded_down(order)
        made.append(pld_pmf.DensePLDPmf(order.h, low, p, 0.0, False))
    return pld.PrivacyLossDistribution(*made)


def _cells_of(part: _pld.Part, step: float) -> _cells.Cells:
    match part:
        case ("gaussian", q, sigma, "replace_one"):
            weights = np.array([1 - q, q])
            up, down = np.array([0.0, 1.0]), np.array([0.0, -1.0])
            return _cells.pair_cells((up, weights), (down, weights), sigma, step)
        case ("gaussian", q, sigma, _):
            weights = np.array([1 - q, q])
            return _cells.mixture_cells(np.array([0.0, 1.0]), weights, sigma, step)
        case ("mixture", sigma, most, q):
            return _cells.mixture_cells(*_pld._shifts(most, q), sigma, step)
        case ("lattice", eps0, k, copies):
            return _cells.atom_cells(
                *_lattice.folded(*_lattice.response_atoms(eps0, k), copies), step
            )
        case ("discrete_laplace", a, sensitivity):
            atoms = _lattice.discrete_laplace_atoms(a, sensitivity)
            return _cells.atom_cells(*_lattice.folded(*atoms, 1), step)
    raise ValueError(part)
