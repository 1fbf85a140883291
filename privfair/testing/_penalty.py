"""Check that a penalty is differentiable and, if it says so, bounded per record."""

from __future__ import annotations

from typing import Any

from privfair.core.penalty import BoundedPenalty, Penalty, coupled_part

__all__ = ["check_penalty"]


def check_penalty(
    penalty: Penalty, *, n: int = 64, n_groups: int = 3, random_state: int = 0
) -> None:
    """Check a penalty against :class:`privfair.core.Penalty` or ``BoundedPenalty``.

    Parameters
    ----------
    penalty : Penalty
    n : int, default=64
        Rows of the made-up batch.
    n_groups : int, default=3
        Sensitive values are 0 .. n_groups - 1.
    random_state : int, default=0

    Raises
    ------
    AssertionError
        With a sentence on what is wrong.

    Notes
    -----
    For a bounded penalty the bound is attacked at random and extreme scores, and one record is
    changed to see that no other record's features or weights move: what one record does to the
    others is what clipping cannot bound.

    ``docs/interface.md`` uses it on a whole third-party package.
    """
    import torch

    name = type(penalty).__name__
    assert isinstance(penalty, Penalty), f"{name} lacks decomposable, requires or __call__."
    rng = torch.Generator().manual_seed(random_state)
    scores = torch.rand(n, generator=rng, dtype=torch.float64, requires_grad=True)
    sensitive = torch.randint(0, n_groups, (n,), generator=rng)
    y = torch.randint(0, 2, (n,), generator=rng)
    value = penalty(scores, sensitive, y=y)
    assert value.ndim == 0, f"{name} must return a 0-d tensor, got shape {tuple(value.shape)}."
    assert torch.isfinite(value), f"{name} is not finite on plain data."
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, scores, allow_unused=True)
        assert gradient is None or torch.isfinite(gradient).all(), (
            f"{name}'s gradient is not finite."
        )
    if penalty.decomposable:
        assert isinstance(penalty, BoundedPenalty), (
            f"{name} says that it is decomposable and lacks features, absorb or weights."
        )
        _check_bounded(penalty, scores.detach(), sensitive, y)


def _check_bounded(penalty: BoundedPenalty, scores: Any, sensitive: Any, y: Any) -> None:
    import torch

    name, n = type(penalty).__name__, len(scores)
    for batch in (scores, torch.zeros_like(scores), torch.ones_like(scores), scores.round()):
        features = penalty.features(batch, sensitive, y=y)
        assert features.shape == (n, penalty.n_features), f"{name}.features has a wrong shape."
        largest = float(features.norm(dim=1).max())
        assert largest <= penalty.feature_bound * (1 + 1e-6), (
            f"{name}: a record's features have norm {largest:.6g}, above feature_bound = "
            f"{penalty.feature_bound:.6g}."
        )
    penalty.absorb(penalty.features(scores, sensitive, y=y).sum(dim=0) / n)
    weights = penalty.weights(scores, sensitive, y=y)
    assert weights.shape == (n,), f"{name}.weights must have shape (batch,)."
    assert not weights.requires_grad, f"{name}.weights must not carry a gradient."
    part = coupled_part(penalty)
    assert part is None, f"{name}.{part} of one record depends on another record in the batch."
