"""The adapter to dp_accounting's privacy-loss distributions: the only module that calls them.

One distribution is built for each distinct mechanism and grid step ("connect the dots",
pessimistic: Doroshenko et al. 2022), composed with itself once for its whole count, and composed
with the others at the same step. Three things are added here:

- no event object and no accountant of that library is used, so that what it does with repeated
  randomised response (its accountant counts it once) cannot come through;
- sizes are bounded before memory is taken, and every distribution is checked: all masses finite
  and none missing;
- what floating point may have hidden is bounded, and charged to delta.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.accounting import _cells, _lattice
from privfair.accounting._curve import Atoms

__all__ = ["MAX_BUILT", "MAX_COMPOSED", "Composed", "GridTooFine", "Part", "compose", "reach"]

Floats = NDArray[np.float64]
Part = tuple[Any, ...]
"""A mechanism: ``("gaussian", q, sigma, relation)``, ``("laplace", q, b)``,
``("discrete_laplace", a, sensitivity)``, ``("lattice", eps0, k, copies)``,
``("mixture", sigma, most, q)`` or ``("truncated", n, q, max_batch, sigma, relation)``."""

MAX_BUILT = 1 << 19
"""Largest grid for one mechanism; its construction takes some microseconds for each point."""
MAX_COMPOSED = 1 << 21
"""Largest grid for a composition; 32 MiB for each complex array of its transforms."""
TAIL = 1e-16
"""Mass that each composition may cut off; it is charged to delta."""
_ULP = float(np.finfo(np.float64).eps)
_MAX_COUNT = 1 << 20  # the library raises a grid's size to this power, as an exact integer
_MOST_SENSITIVE = 1 << 17  # the library visits every loss of discrete Laplace noise in Python
_LOG_CUT = -38.0
"""Log of the mass of a Gaussian left to infinity: 3e-17, a small part of the round-off charged."""
_DEVIATIONS = 8.6  # standard deviations of a Gaussian that its grid covers: as many as that leaves


class GridTooFine(Exception):
    """A grid would be too large, or the library could not fill it; a coarser one may do."""


@dataclass(frozen=True)
class Composed:
    """A distribution and what its numbers may lack.

    Attributes
    ----------
    pld : PrivacyLossDistribution
        dp_accounting's object.
    step : float
        Its grid step.
    noise : float
        To be added to every delta: a bound on the effects of floating point.
    """

    pld: Any
    step: float
    noise: float
    _known: dict[float, float] = field(default_factory=dict, repr=False, compare=False)

    def delta(self, epsilon: float) -> float:
        """Return a valid delta at ``epsilon``."""
        return float(self.pld.get_delta_for_epsilon(epsilon)) + self.noise

    def epsilon(self, delta: float) -> float:
        """Return a valid epsilon at ``delta``."""
        if delta not in self._known:  # the library's search is a loop over the grid
            self._known[delta] = self._search(delta - self.noise)
        return self._known[delta]

    def _search(self, left: float) -> float:
        if left <= 0:
            return math.inf
        value = float(self.pld.get_epsilon_for_delta(left))
        # The library sums its losses up step by step; the other direction does not.
        nudge = 1e-10
        while math.isfinite(value) and self.pld.get_delta_for_epsilon(value) > left:
            value += nudge * (1 + value)
            nudge *= 4
        return value

    def atoms(self) -> tuple[Atoms, ...]:
        """Return the losses themselves: both orders of the pair, or one if they are alike."""
        return tuple(
            Atoms(_losses(pmf), np.maximum(pmf._probs, 0.0), float(pmf._infinity_mass))
            for pmf in _orders(self.pld)
        )


# --- a cache bounded by its size ----------------------------------------------------------


class _Cache:
    """Values by key, the least recently used ones forgotten when they hold too many points."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._items: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self.unlock()

    def unlock(self) -> None:
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key][0]
        value = make()
        points = size(value)
        with self._lock:
            if key not in self._items and points <= self._most:
                self._items[key] = value, points
                self._held += points
                while self._held > self._most:
                    self._held -= self._items.popitem(last=False)[1][1]
        return value

    def clear(self) -> None:
        with self._lock:
            self._items.clear()
            self._held = 0


_BUILT = _Cache(1 << 21)  # 16 MiB
_COMPOSED = _Cache(1 << 23)  # 64 MiB
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BUILT.unlock)
    os.register_at_fork(after_in_child=_COMPOSED.unlock)


# --- one mechanism ------------------------------------------------------------------------


def reach(part: Part) -> float:
    """Return the length of the range of losses that a mechanism's grid has to cover."""
    match part:
        case ("gaussian", q, sigma, relation):
            far = _DEVIATIONS / sigma
            half = 1 / (2 * sigma**2)
            upper, lower = _log_mix(q, far + half), _log_mix(q, -far - half)
            if relation == "replace_one":  # the library's grid is longer above than below
                return upper - 2 * lower + _log_mix(q, far - half)
            return upper - lower
        case ("mixture", sigma, most, q):
            low, high = _cells.mixture_reach(*_shifts(most, q), sigma)
            return high - low
        case ("truncated", _, q, _, sigma, relation):
            return max(
                reach(("gaussian", q, sigma, relation)),
                reach(("gaussian", q, sigma / 2, "replace_one")),
            )
        case ("laplace", q, b):
            return _log_mix(q, 1 / b) - _log_mix(q, -1 / b)
        case ("discrete_laplace", a, sensitivity):
            return float(2 * a * sensitivity)
        case ("lattice", eps0, _, copies):
            return float(2 * eps0 * min(copies, 40 * math.sqrt(copies)))
    raise ValueError(part)


def _log_mix(q: float, loss: float) -> float:
    """``log(1 - q + q e^loss)``."""
    if q == 1.0 or loss > 700:
        return loss + math.log(q)
    return math.log1p(q * math.expm1(loss))


def _built(part: Part, step: float) -> Any:
    """Return the distribution of one mechanism on a grid."""
    if reach(part) / step > MAX_BUILT:
        raise GridTooFine(f"{part} at step {step}")
    return _BUILT.get((part, step), lambda: _checked(_build(part, step), part), _points)


def _build(part: Part, step: float) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as pld

    grid: dict[str, Any] = {"value_discretization_interval": step, "use_connect_dots": True}
    try:
        with np.errstate(all="ignore"):
            match part:
                case ("gaussian", q, sigma, relation):
                    if relation == "replace_one":
                        grid["neighboring_relation"] = NeighboringRelation.REPLACE_ONE
                    made = pld.from_gaussian_mechanism(
                        sigma, sampling_prob=q, log_mass_truncation_bound=_LOG_CUT, **grid
                    )
                case ("mixture", sigma, most, q):
                    return _from_cells(_cells.mixture_cells(*_shifts(most, q), sigma, step))
                case ("truncated", n, q, most, sigma, relation):
                    if relation == "replace_one":
                        grid["neighboring_relation"] = NeighboringRelation.REPLACE_ONE
                    made = pld.from_truncated_subsampled_gaussian_mechanism(
                        n, q, most, sigma, log_mass_truncation_bound=_LOG_CUT, **grid
                    )
                case ("laplace", q, b):
                    made = pld.from_laplace_mechanism(b, sampling_prob=q, **grid)
                case ("discrete_laplace", a, sensitivity) if sensitivity > _MOST_SENSITIVE:
                    losses, p, _ = _lattice.folded(
                        *_lattice.discrete_laplace_atoms(a, sensitivity), 1
                    )
                    return _from_atoms(losses, p, 0.0, step)
                case ("discrete_laplace", a, sensitivity):
                    made = pld.from_discrete_laplace_mechanism(a, sensitivity, **grid)
                case ("lattice", eps0, k, copies):
                    exact = _lattice.folded(*_lattice.response_atoms(eps0, k), copies)
                    return _from_atoms(*exact, step)
                case _:
                    raise ValueError(part)
    except (ValueError, OverflowError, FloatingPointError) as error:
        raise GridTooFine(f"{part} at step {step}: {error}") from error
    return pld.PrivacyLossDistribution(*(pmf.to_dense_pmf() for pmf in _orders(made)))


def _shifts(most: int, q: float) -> tuple[Floats, Floats]:
    """Return how far the records of one user move a sum, and how likely each is."""
    return np.arange(most + 1.0), _cells.binomial_law(most, q)


def _from_cells(cells: _cells.Cells) -> Any:
    """Return the distribution of both orders of a pair known by its cells."""
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as pld

    made = []
    for order in (cells, cells.mirrored()):
        low, p, infinite = _cells.rounded_up(order)
        made.append(pld_pmf.DensePLDPmf(order.h, low, p, infinite, True))
    return pld.PrivacyLossDistribution(*made)


def _from_atoms(losses: Floats, masses: Floats, lost: float, step: float) -> Any:
    """Return the distribution of a known loss, rounded to the grid."""
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as pld

    low, p = _lattice.rounded(step, losses, masses)
    return pld.PrivacyLossDistribution(pld_pmf.DensePLDPmf(step, low, p, lost, True))


def _orders(made: Any) -> tuple[Any, ...]:
    """Return the masses of both orders of the pair, or of one if they are alike."""
    return (made._pmf_remove,) if made._symmetric else (made._pmf_remove, made._pmf_add)


def _losses(pmf: Any) -> Floats:
    first = np.arange(pmf.size) + pmf._lower_loss
    return np.asarray(first * pmf._discretization, dtype=np.float64)


def _points(found: Any) -> int:
    return sum(pmf.size for pmf in _orders(getattr(found, "pld", found)))


def _checked(made: Any, part: Any) -> Any:
    """Refuse a distribution with masses that are no numbers or that do not sum to one."""
    for pmf in _orders(made):
        total = float(pmf._probs.sum()) + float(pmf._infinity_mass)
        # Too much mass only loosens the bound; too little would break it.
        if not 1 - 1e-9 <= total <= 2:
            raise GridTooFine(f"{part}: the masses sum to {total}")
    return made


# --- composition --------------------------------------------------------------------------


def compose(parts: Sequence[tuple[Part, int]], step: float) -> Composed:
    """Return the composition of mechanisms, each taken its number of times.

    Parameters
    ----------
    parts : sequence of (part, count)
        Distinct mechanisms.
    step : float
        Grid step; any is valid, a smaller one is tighter.

    Raises
    ------
    GridTooFine
        The step is too small for the losses of these mechanisms.

    Notes
    -----
    ``noise`` bounds what floating point may hide. The divergences from which masses are made
    are within 4 units in the last place, and a pair whose divergences are that much too small
    dominates the exact one once that mass is put at infinity: at most that for each step.
    Relative errors of Fourier coefficients grow with their powers, by Parseval to at most
    ``(count + log n)`` units in the last place of ``sqrt(n) ||p||`` over all masses. Against the
    same powers in extended precision, the sum of all errors was 0.1 to 0.7 of that, and the
    error in delta at most 0.1 of it.
    """
    ordered = tuple(sorted(parts, key=repr))
    found: Composed = _COMPOSED.get((ordered, step), lambda: _compose(ordered, step), _points)
    return found


def _compose(parts: Sequence[tuple[Part, int]], step: float) -> Composed:
    made: Any = None
    noise = 0.0
    for part, count in parts:
        one = _built(part, step)
        if count > 1:
            _check_size(one, count)
            one = one.self_compose(count, TAIL)
        noise += 4 * _ULP * count + _round_off(one, count if count > 1 else 0)
        if made is None:
            made = one
            continue
        if _widest(made) + _widest(one) > MAX_COMPOSED:
            raise GridTooFine(f"{_widest(made)} + {_widest(one)} points at step {step}")
        made = made.compose(one, TAIL)
        noise += _round_off(made, 1)
    return Composed(_checked(made, parts), step, noise)


def _widest(made: Any) -> int:
    return max(int(pmf.size) for pmf in _orders(made))


def _round_off(made: Any, count: int) -> float:
    if count == 0:
        return 0.0
    worst = 0.0
    for pmf in _orders(made):
        size = 2 * pmf.size
        norm = math.sqrt(size) * float(np.linalg.norm(pmf._probs))
        worst = max(worst, _ULP * (count + math.log2(size)) * norm)
    return worst


def _check_size(made: Any, count: int) -> None:
    """Refuse a self-composition whose result would be too large, before it is tried.

    The library keeps what a Chernoff bound at rates ``j / n`` with ``|j| <= 20`` leaves; the
    same bound with the loss taken as normal is used here.
    """
    if count > _MAX_COUNT:
        raise GridTooFine(f"{count} repetitions")
    for pmf in _orders(made):
        n = pmf.size
        at = np.arange(n)
        mean = float(pmf._probs @ at)
        spread = count * float(pmf._probs @ (at - mean) ** 2)
        rates = np.arange(1, 21) / n
        half = float(np.min(spread * rates / 2 + math.log(2 / TAIL) / rates))
        if min((n - 1) * count, 2 * half) > MAX_COMPOSED:
            raise GridTooFine(f"about {2 * half:.0f} points")
