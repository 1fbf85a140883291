"""A logistic model, linear or with hidden layers, as one vector of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

__all__ = ["Network", "log_loss", "minimise"]

Floats = NDArray[np.float64]
_CHUNK = 1 << 16
"""Rows that are standardised at a time where the whole is not needed."""
Objective = Callable[[Floats], tuple[float, Floats]]


@dataclass(frozen=True, eq=False)
class Network:
    """Layers of tanh units with one logit at the end, on standardised columns.

    Attributes
    ----------
    sizes : tuple of int
        Widths of all layers, input first, 1 last.
    mean, scale : ndarray of shape (n_features,)
    """

    sizes: tuple[int, ...]
    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, X: Floats, hidden: tuple[int, ...], weight: Floats) -> Network:
        """Return the network for such a table."""
        total = weight.sum()
        mean = sum(weight[c] @ X[c] for c in _chunks(len(X))) / total
        spread = np.sqrt(sum(weight[c] @ (X[c] - mean) ** 2 for c in _chunks(len(X))) / total)
        return cls((X.shape[1], *hidden, 1), mean, np.where(spread > 1e-12, spread, 1.0))

    @property
    def n_parameters(self) -> int:
        return sum((a + 1) * b for a, b in zip(self.sizes, self.sizes[1:], strict=False))

    def start(self, rng: Any) -> Floats:
        """Return initial parameters: zeros for a linear model, Glorot's for layers."""
        if len(self.sizes) == 2:
            return np.zeros(self.n_parameters)
        parts = []
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            reach = np.sqrt(6.0 / (a + b))
            parts += [rng.uniform(-reach, reach, a * b), np.zeros(b)]
        return np.concatenate(parts)

    def prepare(self, X: Floats) -> Floats:
        """Return the standardised table."""
        return np.ascontiguousarray((X - self.mean) / self.scale)

    def layers(self, theta: Floats) -> list[tuple[Floats, Floats]]:
        """Return weights and offsets of each layer."""
        found, at = [], 0
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            found.append((theta[at : at + a * b].reshape(a, b), theta[at + a * b :][:b]))
            at += (a + 1) * b
        return found

    def logits(self, theta: Floats, Z: Floats) -> tuple[Floats, list[Floats]]:
        """Return logits, and the inputs of every layer for :meth:`pull`."""
        inputs = [Z]
        layers = self.layers(theta)
        for weight, offset in layers[:-1]:
            inputs.append(np.tanh(inputs[-1] @ weight + offset))
        weight, offset = layers[-1]
        return (inputs[-1] @ weight)[:, 0] + offset[0], inputs

    def scores(self, theta: Floats, X: Any) -> Floats:
        """Return scores of a table as given; a part of it at a time is standardised."""
        parts = [self.logits(theta, self.prepare(X[c]))[0] for c in _chunks(len(X))]
        return np.asarray(expit(np.concatenate(parts)))

    def pull(self, theta: Floats, inputs: list[Floats], at_logit: Floats) -> Floats:
        """Return the gradient of a function whose derivative at the logits is given."""
        parts: list[Floats] = []
        flow = at_logit[:, None]
        layers = self.layers(theta)
        for place in range(len(layers) - 1, -1, -1):
            parts = [(inputs[place].T @ flow).ravel(), flow.sum(axis=0), *parts]
            if place:
                flow = (flow @ layers[place][0].T) * (1 - inputs[place] ** 2)
        return np.concatenate(parts)

    def shrink(self, theta: Floats, alpha: float) -> tuple[float, Floats]:
        """Return the ridge penalty on weights (not on offsets) and its gradient."""
        gradient = np.zeros_like(theta)
        at, value = 0, 0.0
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            part = theta[at : at + a * b]
            gradient[at : at + a * b] = alpha * part
            value += 0.5 * alpha * float(part @ part)
            at += (a + 1) * b
        return value, gradient


def _chunks(n_rows: int) -> list[slice]:
    return [slice(at, at + _CHUNK) for at in range(0, max(n_rows, 1), _CHUNK)]


def log_loss(logits: Floats, y: Floats, weight: Floats) -> tuple[float, Floats, Floats]:
    """Return the weighted mean cross-entropy, its derivative at the logits, and scores."""
    p = expit(logits)
    value = float(weight @ (np.logaddexp(0.0, logits) - y * logits))
    return value, weight * (p - y), p


def minimise(
    objective: Objective, theta: Floats, *, solver: str, max_iter: int, learning_rate: float
) -> tuple[Floats, int]:
    """Return parameters and the iterations made: L-BFGS (strong Wolfe search) or Adam."""
    if solver == "lbfgs":
        from scipy.optimize import minimize

        options = {"maxiter": max_iter, "maxcor": 20, "ftol": 1e-10, "gtol": 1e-7}
        found = minimize(objective, theta, jac=True, method="L-BFGS-B", options=options)
        return np.asarray(found.x), max(int(found.nit), 1)
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    theta = theta.copy()
    for step in range(1, max_iter + 1):
        gradient = objective(theta)[1]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        theta -= learning_rate * move
    return theta, max_iter
