"""Algorithm A: training under constraints on decisions by an augmented Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from privfair.fairness.sep._constraints import CellConstraints, Constraints
from privfair.fairness.sep._network import Network, log_loss, minimise

__all__ = [
    "AugLagResult",
    "TEMPERATURES",
    "annealed",
    "cold",
    "refit_threshold",
    "surrogate",
    "train",
    "unconstrained",
]

Floats = NDArray[np.float64]
TEMPERATURES = (0.2, 0.05)
"""First and last temperature of the surrogate of a hard decision."""
_ANNEAL = 8
_START, _MOST = 10.0, 1e4


@dataclass(frozen=True, eq=False)
class AugLagResult:
    """A trained model and how the training ended.

    Attributes
    ----------
    theta : ndarray
    multipliers : ndarray of shape (n_constraints,)
        The price, in units of the loss, of one unit of each gap.
    violation : ndarray of shape (n_constraints,)
    n_rounds, n_iter : int
        Rounds, and iterations of the minimiser in all.
    converged : bool
    history : list of float
        Largest violation after each round.
    """

    theta: Floats
    multipliers: Floats
    violation: Floats
    n_rounds: int
    n_iter: int
    converged: bool
    history: list[float]


def annealed(k: int) -> float:
    """Return the temperature of round k."""
    first, last = TEMPERATURES
    return max(last, first * (last / first) ** (k / _ANNEAL))


def cold(temperature: float | None) -> bool:
    """Return whether the surrogate is as steep as it gets."""
    return temperature is None or temperature <= TEMPERATURES[1]


def surrogate(p: Floats, temperature: float | None, threshold: float) -> tuple[Floats, Floats]:
    """Return h and dh/dp: the score itself, or a steep sigmoid of it."""
    if temperature is None:
        return p, np.ones_like(p)
    h = expit((p - threshold) / temperature)
    return h, h * (1 - h) / temperature


def unconstrained(
    network: Network,
    Z: Floats,
    y: Floats,
    weight: Floats,
    *,
    alpha: float,
    theta: Floats,
    solver: str,
    max_iter: int,
    learning_rate: float,
) -> tuple[Floats, int]:
    """Return the parameters of the model without constraints, and the iterations made."""
    mass = weight / weight.sum()

    def objective(at: Floats) -> tuple[float, Floats]:
        logits, inputs = network.logits(at, Z)
        value, slope, _ = log_loss(logits, y, mass)
        ridge, ridge_slope = network.shrink(at, alpha)
        return value + ridge, network.pull(at, inputs, slope) + ridge_slope

    return minimise(
        objective, theta, solver=solver, max_iter=max_iter, learning_rate=learning_rate
    )


@dataclass(frozen=True, eq=False)
class _Lagrangian:
    """The augmented Lagrangian of one round, with its gradient."""

    network: Network
    Z: Floats
    y: Floats
    mass: Floats
    constraints: Constraints
    alpha: float
    multipliers: Floats
    rho: float
    temperature: float | None
    threshold: float

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        logits, inputs = self.network.logits(theta, self.Z)
        value, slope, p = log_loss(logits, self.y, self.mass)
        h, dh = surrogate(p, self.temperature, self.threshold)
        push = np.maximum(0.0, self.multipliers + self.rho * self.constraints.violation(h))
        value += float(push @ push - self.multipliers @ self.multipliers) / (2 * self.rho)
        slope = slope + self.constraints.gradient(push) * dh * p * (1 - p)
        ridge, ridge_slope = self.network.shrink(theta, self.alpha)
        return value + ridge, self.network.pull(theta, inputs, slope) + ridge_slope


def train(
    network: Network,
    Z: Floats,
    y: Floats,
    weight: Floats,
    constraints: Constraints,
    *,
    alpha: float,
    theta: Floats,
    hard: bool,
    threshold: float,
    max_rounds: int,
    tol: float,
    solver: str,
    max_iter: int,
    learning_rate: float,
) -> AugLagResult:
    r"""Minimise the loss under ``constraints`` on scores or on a surrogate of decisions.

    Round k minimises :math:`L + \frac{1}{2 \rho} \sum_j [\max(0, \lambda_j + \rho v_j)^2 -
    \lambda_j^2]`, then :math:`\lambda_j \leftarrow \max(0, \lambda_j + \rho v_j)`; rho doubles
    when the largest violation did not fall by a factor of 4.
    """
    mass = weight / weight.sum()
    multipliers, rho = np.zeros(len(constraints.bound)), _START
    before, history = np.inf, []
    violation = np.full(len(constraints.bound), np.inf)
    done, n_iter = False, 0
    for k in range(max_rounds):
        temperature = annealed(k) if hard else None
        goal = _Lagrangian(
            network, Z, y, mass, constraints, alpha, multipliers, rho, temperature, threshold
        )
        theta, made = minimise(
            goal, theta, solver=solver, max_iter=max_iter, learning_rate=learning_rate
        )
        n_iter += made
        p = expit(network.logits(theta, Z)[0])
        violation = constraints.violation(surrogate(p, temperature, threshold)[0])
        multipliers = np.maximum(0.0, multipliers + rho * violation)
        worst = float(violation.max())
        history.append(worst)
        done = worst < tol and cold(temperature)
        if done:
            break
        if worst > before / 4:
            rho = min(2 * rho, _MOST)
        before = worst
    return AugLagResult(theta, multipliers, violation, len(history), n_iter, done, history)


def refit_threshold(
    scores: Floats,
    y: Floats,
    weight: Floats,
    constraints: Constraints | CellConstraints,
    prices: Floats,
    *,
    slack: float,
    n_candidates: int = 400,
) -> float:
    """Return one threshold for everybody: little error, and little violation at its price.

    Minimises the training error plus ``2 max(price_j, 1)`` times what each constraint is broken
    by beyond ``slack``. No sensitive feature is needed when predicting.
    """
    grid = np.quantile(scores, np.linspace(0.0, 1.0, n_candidates))
    grid = np.unique(np.concatenate([[0.5], grid]))
    grid = grid[(grid > 0) & (grid < 1)]
    mass, price = weight / weight.sum(), 2 * np.maximum(prices, 1.0)
    merit = np.empty(len(grid))
    for place, t in enumerate(grid):
        h = (scores >= t).astype(float)
        broken = np.maximum(constraints.violation(h) - slack, 0.0)
        merit[place] = mass @ (h != y) + price @ broken
    ties = np.flatnonzero(merit <= merit.min() + 1e-12)
    return float(grid[ties[np.argmin(np.abs(grid[ties] - 0.5))]])
