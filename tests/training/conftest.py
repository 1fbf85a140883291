"""Fixtures of the training tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Fifty records of five features with binary and three-class labels."""
    g = torch.Generator().manual_seed(1)
    X = torch.randn((50, 5), generator=g) * 3
    return (
        X,
        torch.randint(0, 2, (50,), generator=g).float(),
        torch.randint(0, 3, (50,), generator=g),
    )
