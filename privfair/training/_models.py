"""Building the module that an estimator trains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from privfair.core.exceptions import InvalidTypeError
from privfair.training._probe import check_per_record_module

__all__ = ["ACTIVATIONS", "build_module", "linear_layers"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
"""What stands between hidden layers: bounded for private training, or not."""


def build_module(
    module: nn.Module | Callable[[int, int], nn.Module] | None,
    hidden: Sequence[int],
    n_features: int,
    n_outputs: int,
    rng: np.random.Generator,
    activation: str = "tanh",
) -> nn.Module:
    """Return a fresh module that maps ``n_features`` to ``n_outputs``.

    A module given is copied, so that the parameter stays as it was; a callable is asked for one.
    Otherwise: a linear map for no hidden layers, and a stack with ``activation`` between for
    several. The output layer starts at zero (the same prediction for everybody), hidden weights
    are Glorot uniform from ``rng``.
    """
    if module is None:
        return _stack([n_features, *hidden, n_outputs], rng, activation)
    built: Any = module if isinstance(module, nn.Module) else module(n_features, n_outputs)
    if not isinstance(built, nn.Module):
        raise InvalidTypeError(
            "module must be a torch.nn.Module, or a callable (n_features, n_outputs) -> Module; "
            f"the callable returned {type(built).__name__}."
        )
    built = copy.deepcopy(built).float()
    check_per_record_module(built, n_features, n_outputs)
    return built


def _stack(sizes: list[int], rng: np.random.Generator, activation: str) -> nn.Sequential:
    made = linear_layers(sizes, activation)
    layers = [part for part in made if isinstance(part, nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.zero_()
            layer.bias.zero_()
        for layer in layers[:-1]:
            limit = math.sqrt(6.0 / (layer.in_features + layer.out_features))
            start = rng.uniform(-limit, limit, size=layer.weight.shape)
            layer.weight.copy_(torch.from_numpy(start))
    return made


def linear_layers(sizes: Sequence[int], activation: str = "tanh") -> nn.Sequential:
    """Return an uninitialised stack of these sizes, to load weights into."""
    layers: list[nn.Module] = []
    for at, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        # Through the meta device: torch's own initialisation would draw from its global generator.
        layer = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        layers += [layer] if at == len(sizes) - 2 else [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)
