"""Algorithm A in batches: for tables whose standardised copy should not be held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.fairness.sep._auglag import AugLagResult, annealed, cold, surrogate
from privfair.fairness.sep._constraints import CellConstraints
from privfair.fairness.sep._network import Network, log_loss

__all__ = ["Batches", "train_in_batches"]

Floats = NDArray[np.float64]
_RHO, _MOST, _SWING = 10.0, 1e4, 0.1
_MEMORY = 0.9
"""Decay of the running gaps for batches that are a small part of the rows."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Rows that are standardised batch by batch, and Adam on them.

    Attributes
    ----------
    network : Network
    X : ndarray of shape (n_rows, n_features)
        As the caller gave it; read by rows, so that a memory map will do.
    y, mass : ndarray of shape (n_rows,)
        Labels 0 and 1; weights that add up to 1.
    size : int
        Rows of a batch at most.
    alpha, learning_rate : float
    steps : int
        In each round.
    rng : Generator
    """

    network: Network
    X: Any
    y: Floats
    mass: Floats
    size: int
    alpha: float
    learning_rate: float
    steps: int
    rng: Any

    @property
    def parts(self) -> int:
        """How many batches use each row once."""
        return -(-len(self.y) // self.size)

    def draw(self) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of batch after batch: all rows once, in random order, then again.

        Sizes differ by one row at most. A small batch at the end would be a step as long as
        another one, and mostly noise.
        """
        while True:
            for rows in np.array_split(self.rng.permutation(len(self.y)), self.parts):
                yield np.sort(rows)

    def gradient(
        self,
        theta: Floats,
        rows: NDArray[np.int64],
        constraints: CellConstraints | None = None,
        push: Floats | None = None,
        temperature: float | None = None,
        threshold: float = 0.5,
    ) -> tuple[Floats, Floats]:
        """Return a batch's gradient of loss, ridge and ``push @ A h``, and h of its rows.

        The gradient is right on average over batches, if ``push`` is not from this one.
        """
        scale = len(self.y) / len(rows)
        logits, inputs = self.network.logits(theta, self.network.prepare(self.X[rows]))
        _, slope, p = log_loss(logits, self.y[rows], scale * self.mass[rows])
        h, dh = surrogate(p, temperature, threshold)
        if constraints is not None and push is not None:
            slope = slope + constraints.slope(rows, push) * dh * p * (1 - p)
        ridge = self.network.shrink(theta, self.alpha)[1]
        return self.network.pull(theta, inputs, slope) + ridge, h

    def descend(self, theta: Floats, gradient: Any, k: int = 0) -> Floats:
        """Return the mean of the second half of round k of Adam, whose steps shrink."""
        rate = self.learning_rate / (1 + k / 2)
        first, second, mean = (np.zeros_like(theta) for _ in range(3))
        theta, half = theta.copy(), self.steps // 2
        for step, rows in zip(range(1, self.steps + 1), self.draw(), strict=False):
            g = gradient(theta, rows)
            first = 0.9 * first + 0.1 * g
            second = 0.999 * second + 0.001 * g**2
            move = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            theta -= rate * min(1.0, 2 * (1 - step / (self.steps + 1))) * move
            if step > half:
                mean += (theta - mean) / (step - half)
        return mean

    def unconstrained(self, theta: Floats, rounds: int) -> Floats:
        """Return the parameters of the model without constraints."""
        for k in range(rounds):
            theta = self.descend(theta, lambda at, batch: self.gradient(at, batch)[0], k)
        return theta


def train_in_batches(
    batches: Batches,
    constraints: CellConstraints,
    *,
    theta: Floats,
    hard: bool,
    threshold: float,
    max_rounds: int,
    tol: float,
) -> AugLagResult:
    r"""Minimise the loss under ``constraints``, a batch at a time.

    The gradient of :math:`\frac{1}{2 \rho} \max(0, \lambda + \rho v)^2` is a product of v and of
    a derivative. Both from one batch would be biased: v comes from a running average over
    *earlier* batches. Each says by how much v has changed since the round began, when it was known
    exactly: what is uncertain in that dies away as the parameters settle. Multipliers move by
    exact values, from one pass over all rows after each round. As max(0, .) is no line, noise in
    v would price what is idle: rho doubles as in :func:`train`, but only while rho times that
    noise is small. The rounds end when violations are small and prices rest.
    """
    keep = _MEMORY * (1.0 - 1.0 / batches.parts)
    multipliers = np.zeros(len(constraints.bound))
    p = batches.network.scores(theta, batches.X)
    history: list[float] = []
    before, rho, done = np.inf, _RHO, False
    for k in range(max_rounds):
        temperature = annealed(k) if hard else None
        anchor = surrogate(p, temperature, threshold)[0]
        start = constraints.violation(anchor)
        running = start.copy()
        swing: list[Floats] = []

        def gradient(
            at: Floats,
            rows: NDArray[np.int64],
            temperature: float | None = temperature,
            start: Floats = start,
            anchor: Floats = anchor,
            running: Floats = running,
            swing: list[Floats] = swing,
            multipliers: Floats = multipliers,
            rho: float = rho,
        ) -> Floats:
            push = np.maximum(0.0, multipliers + rho * running)
            found, h = batches.gradient(at, rows, constraints, push, temperature, threshold)
            now = start + constraints.change(rows, h - anchor[rows])
            running += (1.0 - keep) * (now - running)
            swing.append(running.copy())
            return found

        theta = batches.descend(theta, gradient, k)
        p = batches.network.scores(theta, batches.X)
        violation = constraints.violation(surrogate(p, temperature, threshold)[0])
        moved = np.maximum(0.0, multipliers + rho * violation)
        worst, idle = float(violation.max()), float(np.abs(moved - multipliers).max()) / rho
        multipliers = moved
        history.append(worst)
        done = max(worst, idle) < tol and cold(temperature)
        if done:
            break
        noise = float(np.std(swing[len(swing) // 2 :], axis=0).max())
        if worst > before / 4 and 2 * rho * noise < _SWING:
            rho = min(2 * rho, _MOST)
        before = worst
    n_iter = len(history) * batches.steps
    return AugLagResult(theta, multipliers, violation, len(history), n_iter, done, history)
