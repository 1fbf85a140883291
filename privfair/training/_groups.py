"""Clipped sums where groups of parameters have bounds of their own.

Used by every gradient path: with per-record gradients at hand (:func:`clipped_total`), or from
activations and derivatives of linear layers (:func:`stack_total`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from privfair.training._clipping import CHUNK_ROWS, ClipRule, clip_factors

__all__ = ["clipped_total", "group_norms", "groups_of", "stack_total"]


def groups_of(bound: float | ClipRule | None) -> tuple[int, ...] | None:
    """Return the group of each trainable parameter, or None where all are clipped together."""
    return bound.groups if isinstance(bound, ClipRule) else None


def group_norms(squares: Sequence[Tensor], groups: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return norms by group and joint norms from the squared norms by parameter.

    Parameters
    ----------
    squares : sequence of Tensor, shape (batch,), float64
        Squared norm of each record's gradient of each trainable parameter.
    groups : sequence of int
        The group of each parameter.

    Returns
    -------
    by_group : Tensor, shape (batch, n_groups)
    joint : Tensor, shape (batch,)
    """
    first = squares[0]
    by_group = torch.zeros((len(first), max(groups) + 1), dtype=torch.float64, device=first.device)
    for group, square in zip(groups, squares, strict=True):
        by_group[:, group] += square
    return by_group.sqrt(), by_group.sum(dim=1).sqrt()


def clipped_total(
    grads: Tensor, sizes: Sequence[int], rule: ClipRule, guard: float
) -> tuple[Tensor, Tensor]:
    """Return the sum of clipped gradients and the joint norms, from per-record gradients.

    Parameters
    ----------
    grads : Tensor, shape (batch, n_parameters)
    sizes : sequence of int
        Number of entries of each trainable parameter, in order.
    rule : ClipRule
        With groups.
    guard : float
    """
    groups = rule.groups
    assert groups is not None
    parts = [part.double() for part in grads.split(list(sizes), dim=1)]
    norms, joint = group_norms([part.square().sum(dim=1) for part in parts], groups)
    factors = clip_factors(norms, rule, guard)
    keep = (factors > 0).any(dim=1)[:, None]  # 0 * nan is nan
    total = [
        factors[:, group] @ torch.where(keep, part, torch.zeros_like(part))
        for group, part in zip(groups, parts, strict=True)
    ]
    return torch.cat(total), joint


def stack_total(
    layers: Sequence[nn.Linear],
    acts: Sequence[Tensor],
    backs: Sequence[Tensor],
    rule: ClipRule,
    guard: float,
) -> tuple[Tensor, Tensor]:
    """Return the sum of clipped gradients and the joint norms of a stack of linear layers.

    Parameters
    ----------
    layers : sequence of nn.Linear
    acts, backs : sequence of Tensor, shapes (batch, in_features) and (batch, out_features)
        Input of each layer, and derivative of each record's loss at its output.
    rule : ClipRule
        With groups.
    guard : float
    """
    groups = rule.groups
    assert groups is not None
    squares: list[Tensor] = []
    for layer, a, back in zip(layers, acts, backs, strict=False):
        slope = _square_norms(back)
        squares.append(_square_norms(a) * slope)
        if layer.bias is not None:
            squares.append(slope)
    norms, joint = group_norms(squares, groups)
    factors = clip_factors(norms, rule, guard)
    keep = (factors > 0).any(dim=1)[:, None]
    size = sum(p.numel() for layer in layers for p in layer.parameters())
    total = torch.zeros(size, dtype=torch.float64, device=factors.device)
    for start in range(0, len(factors), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        at = parameter = 0
        for layer, a, back in zip(layers, acts, backs, strict=False):
            zero = torch.zeros((), dtype=torch.float64, device=factors.device)
            slope = torch.where(keep[part], back[part].double(), zero)
            inputs = torch.where(keep[part], a[part].double(), zero)
            scaled = slope * factors[part, groups[parameter], None]
            size = layer.weight.numel()
            total[at : at + size].view_as(layer.weight).addmm_(scaled.T, inputs)
            at, parameter = at + size, parameter + 1
            if layer.bias is not None:
                scaled = slope * factors[part, groups[parameter], None]
                total[at : at + layer.bias.numel()] += scaled.sum(dim=0)
                at, parameter = at + layer.bias.numel(), parameter + 1
    return total, joint


def _square_norms(rows: Tensor) -> Tensor:
    if not len(rows):
        return torch.zeros(0, dtype=torch.float64, device=rows.device)
    return torch.cat([block.double().square().sum(dim=1) for block in rows.split(CHUNK_ROWS)])
