"""Shared pieces of the training tests: reference gradients, spies and mutated modules."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]


def reference_clipped_sum(
    module: nn.Module,
    per_record: Callable[[Tensor, Tensor], Tensor],
    X: Tensor,
    y: Tensor,
    bound: float,
) -> tuple[Tensor, Tensor]:
    """Clip each record's autograd gradient alone and add up, one record at a time."""
    total = torch.zeros(sum(p.numel() for p in module.parameters()), dtype=torch.float64)
    norms = []
    for i in range(len(X)):
        module.zero_grad()
        per_record(module(X[i : i + 1]), y[i : i + 1]).sum().backward()
        g = torch.cat([p.grad.flatten() for p in module.parameters()]).double()
        norm = g.norm()
        norms.append(norm)
        total += g * min(1.0, bound / max(norm.item(), 1e-300))
    module.zero_grad()
    return total, torch.stack(norms) if norms else torch.zeros(0)


class GradientSpy:
    """An optimiser that keeps every gradient it is given and moves nothing."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        self.seen.append(gradient.clone().double())


class ZeroLoss:
    """A loss whose gradient is zero: what an update holds is noise alone."""

    n_outputs = 1

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        return 0.0 * output[:, 0]

    def backprop(self, output: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(output)

    def score(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output[:, 0])

    def score_backprop(self, output: Tensor) -> Tensor:
        return torch.zeros_like(output)


class NoNoise:
    """Stands for the engine's noise and adds none, so that sums can be read off."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def add(self, total: Tensor) -> Tensor:
        return total


def mutated(name: str, *replacements: tuple[str, str]) -> types.ModuleType:
    """Return a copy of a module of ours with source text replaced (a planted bug)."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    for old, new in replacements:
        assert source.count(old) >= 1, f"the mutant's target is gone from {name}: {old!r}"
        source = source.replace(old, new)
    label = f"{name}__mutant"
    module = types.ModuleType(label)
    module.__spec__ = importlib.util.spec_from_loader(label, loader=None)
    module.__package__ = name.rpartition(".")[0]
    sys.modules[label] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    finally:
        sys.modules.pop(label, None)
    return module


def mlp(*sizes: int, activation: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    """A small network with fixed weights."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for at, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layer = nn.Linear(a, b)
        with torch.no_grad():
            for p in layer.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
        layers += [layer] if at == len(sizes) - 2 else [layer, activation()]
    return nn.Sequential(*layers)
