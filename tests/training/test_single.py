"""Float32 blocks: what neighbours' sums can differ by, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from privfair.mechanisms import HardenedGaussian
from privfair.training._clipping import GUARD, block_sum_error
from privfair.training._closed_form import ClosedFormPath
from privfair.training._engine import DPEngine
from privfair.training._factorization import BandedNoise
from privfair.training._losses import LogisticLoss, SquaredLoss
from privfair.training._optim import make_optimizer
from privfair.training._plan import TrainingPlan
from privfair.training._single import (
    BLOCK_ROWS,
    LIMIT,
    OuterSums,
    norm_margin,
    single_error,
    single_products_round_once,
)

from .helpers import mlp

pytestmark = pytest.mark.skipif(
    not single_products_round_once(), reason="float32 products are not float32 here"
)


def allowed(path, n, bound):
    """What the noise is made for, without the rounding to the grid."""
    extra = path.extra_error(n, bound)
    assert 0 < extra < 2e-3 * bound
    return bound + 2 * (block_sum_error(n, bound) + extra)


def neighbours(path, X, y, which, bound, guard=GUARD):
    """The sums with one record and with a null record in its place, and that record alone."""
    n = len(X)
    weight = torch.ones(n)
    with_it = path.sums(X, y, None, bound, guard, None, weight).total
    weight[which] = 0.0
    return with_it, path.sums(X, y, None, bound, guard, None, weight).total


EXTREME = st.sampled_from(
    [0.0, 1.0, -1.0, 1e-30, 1e-42, 2.0**29, 2.0**31, 3e38, -3e38, np.inf, np.nan, 1e10]
)


@given(
    rows=arrays(np.float32, (6, 5), elements=st.one_of(EXTREME, st.floats(-1e3, 1e3, width=32))),
    which=st.integers(0, 299),
    bound=st.sampled_from([2.0**-10, 0.5, 1.0, 7.0]),
    hidden=st.booleans(),
    bias=st.booleans(),
)
def test_neighbours_stay_within_the_sensitivity_for_arbitrary_rows(
    rows, which, bound, hidden, bias
):
    module = mlp(5, 3, 1) if hidden else nn.Sequential(nn.Linear(5, 1, bias=bias))
    path = ClosedFormPath(module, LogisticLoss(), fixed_places=True)
    X = torch.from_numpy(np.resize(rows, (300, 5)))
    y = (torch.arange(300) % 2).float()
    path.prepare(X)
    kept = X.clone()
    with_it, without = neighbours(path, X, y, which, bound)
    assert torch.isfinite(with_it).all()
    assert (with_it - without).norm().item() <= allowed(path, 300, bound)
    assert torch.equal(X.nan_to_num(7.0), kept.nan_to_num(7.0))  # the data are left as they are
    alone = path.sums(X, y, torch.tensor([which]), bound, GUARD).total
    assert alone.norm().item() <= bound


def one_sided(n, seed):
    """Rows whose clipped gradients nearly agree: the sum grows, and with it what rounds away."""
    g = torch.Generator().manual_seed(seed)
    linear = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(linear.weight)
    X = 1.0 - torch.rand((n, 1), generator=g) * 1e-2
    return linear, X, torch.full((n,), -1.0)


def test_rounding_passes_the_bound_and_stays_within_what_is_charged():
    """Without the charge the bound would be too small: one of 60 differences is above it."""
    worst = 0.0
    for seed in range(60):
        linear, X, y = one_sided(5 * BLOCK_ROWS, seed)
        path = ClosedFormPath(linear, SquaredLoss(), fixed_places=True)
        X[3 * BLOCK_ROWS + 5] = 2.0
        with_it, without = neighbours(path, X, y, 3 * BLOCK_ROWS + 5, 1.0, 0.0)
        found = (with_it - without).norm().item()
        assert found <= allowed(path, len(X), 1.0)
        worst = max(worst, found - 1.0)
    assert worst > 2e-6


@pytest.mark.parametrize("record", [np.nan, np.inf, 3e38, 2.0**31])
def test_a_record_summed_apart_leaves_the_bits_of_the_others(record):
    """Every other block, and the others of its own block, have the bits that they have without."""
    g = torch.Generator().manual_seed(5)
    X = torch.randn((300, 5), generator=g)
    y = (torch.arange(300) % 2).float()
    path = ClosedFormPath(mlp(5, 3, 1), LogisticLoss(), fixed_places=True)
    X[140] = record
    with_it, without = neighbours(path, X, y, 140, 1.0)
    own = path.sums(X, y, torch.tensor([140]), 1.0, GUARD).total
    wide = ClosedFormPath(mlp(5, 3, 1), LogisticLoss())
    assert torch.equal(own, wide.sums(X, y, torch.tensor([140]), 1.0, GUARD).total)
    assert (with_it - without - own).norm() <= 2.0**-40
    assert bool(own.any()) == bool(np.isfinite(record))


@given(
    scaled=arrays(np.float32, (300, 3), elements=st.floats(-1, 1, width=32)),
    inputs=arrays(np.float32, (300, 4), elements=st.floats(-1, 1, width=32)),
    n=st.sampled_from([0, 1, 127, 128, 129, 256, 300]),
)
def test_sums_of_blocks_are_within_their_error(scaled, inputs, n):
    d, a = torch.from_numpy(scaled)[:n], torch.from_numpy(inputs)[:n]
    weight, bias = torch.zeros((3, 4), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    OuterSums().add(weight, bias, d, a)
    off = (weight - d.double().T @ a.double()).norm() ** 2
    off += (bias - d.double().sum(dim=0)).norm() ** 2
    # Each block may be off by single_error, a record's norm being at most sqrt(3 * 5).
    blocks = -(-n // BLOCK_ROWS)
    assert off.sqrt() <= blocks * single_error(300, 15**0.5) + 1e-30


@pytest.mark.parametrize("n", [1, 127, 128, 500, 3_000])
def test_no_product_is_longer_than_what_is_charged(n, monkeypatch):
    depths = []
    for name in ("bmm", "mm"):
        real = getattr(torch, name)

        def spy(left, right, *, out=None, real=real):
            if out is not None and left.is_contiguous() != left.mT.is_contiguous():
                depths.append((tuple(left.shape), left.shape[-1]))
            return real(left, right, out=out)

        monkeypatch.setattr("privfair.training._single.torch." + name, spy)
    module = mlp(5, 3, 1)
    path = ClosedFormPath(module, LogisticLoss(), fixed_places=True)
    X = torch.randn(n, 5)
    path.sums(X, torch.zeros(n), None, 1.0, GUARD)
    products = [depth for shape, depth in depths if shape[-2] in (1, 3) and depth not in (1, 3, 5)]
    assert n == 1 or products
    assert all(depth <= BLOCK_ROWS for depth in products)
    # One product that rounds and depth - 1 additions, for each of depth summands.
    assert single_error(n, 1.0) >= BLOCK_ROWS * BLOCK_ROWS * 2.0**-24


def test_norms_are_within_their_margin():
    g = torch.Generator().manual_seed(2)
    for width in (3, 104, 5_000):
        module = mlp(width, 3, 1)
        X = torch.randn((64, width), generator=g) * torch.logspace(-12, 6, 64)[:, None]
        y = torch.zeros(64)
        norms = [
            ClosedFormPath(module, LogisticLoss(), fixed).sums(X, y, None, 1.0, GUARD).norms
            for fixed in (False, True)
        ]
        margin = norm_margin([(width, 3), (3, 1)])
        assert 0 < margin < 1e-3
        torch.testing.assert_close(norms[1], norms[0], rtol=margin / 2, atol=0.0)


def engine(relation, **changes):
    plan = TrainingPlan(50, 25, 4, 0.7, 1.0, relation=relation, **changes.pop("plan", {}))
    return DPEngine(
        mlp(5, 3, 1), LogisticLoss(), plan, optimizer=make_optimizer("sgd", 0.1), **changes
    )


def test_float32_is_for_batches_whose_rows_keep_their_places():
    assert engine("zero_out")._extra_error() == single_error(50, 0.7)
    shifted = engine("add_remove")
    assert shifted._extra_error() == 0.0
    assert shifted._path._single is None
    assert engine("zero_out", clipping="automatic")._extra_error() == 0.0


@pytest.mark.parametrize("bands", [None, 2])
def test_the_noise_pays_for_float32_blocks(batch, monkeypatch, bands):
    made = []
    real = HardenedGaussian.__init__

    def spy(self, *args, **kwargs):
        made.append(kwargs.get("value_error", 0.0))
        real(self, *args, **kwargs)

    monkeypatch.setattr(HardenedGaussian, "__init__", spy)
    changes = {} if bands is None else {"plan": {"correlation": BandedNoise([1.0, 0.5])}}
    engine("zero_out", **changes).run(batch[0], batch[1])
    assert made[-1] >= single_error(50, 0.7) + block_sum_error(50, 0.7)


@pytest.mark.parametrize("bound", [2.0**-11, 2.0**21, None])
def test_other_bounds_take_float64(bound):
    path = ClosedFormPath(mlp(5, 3, 1), LogisticLoss(), fixed_places=True)
    plain = ClosedFormPath(mlp(5, 3, 1), LogisticLoss())
    X, y = torch.randn(300, 5), torch.zeros(300)
    assert path.extra_error(300, bound) == 0.0
    plain._block_rows = path._block_rows
    got, want = (p.sums(X, y, None, bound, GUARD).total for p in (path, plain))
    assert torch.equal(got, want)


def test_reduced_precision_takes_float64():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert not single_products_round_once()
        path = ClosedFormPath(mlp(5, 3, 1), LogisticLoss(), fixed_places=True)
        assert path.extra_error(10, 1.0) == 0.0
    finally:
        torch.set_float32_matmul_precision(before)
    assert LIMIT == 2.0**30
