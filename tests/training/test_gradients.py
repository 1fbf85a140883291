"""Gradient paths: against autograd one record at a time, and against Opacus."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from privfair.core.exceptions import AccountingAssumptionError
from privfair.training._clipping import (
    CHUNK_ROWS,
    GUARD,
    block_sum,
    block_sum_error,
    clip_factors,
    clip_rows,
)
from privfair.training._closed_form import ClosedFormPath, linear_stack
from privfair.training._functional import FunctionalPath
from privfair.training._losses import LogisticLoss, SoftmaxLoss, SquaredLoss
from privfair.training._probe import check_per_record_module

from .helpers import mlp, reference_clipped_sum


def seeded_linear(bias=True):
    """The same layer in every run: some weights make a residual cancel below float32's digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(5, 1, bias=bias)


MODELS = {
    "logistic": (lambda: mlp(5, 1), LogisticLoss()),
    "softmax": (lambda: mlp(5, 3), SoftmaxLoss(3)),
    "tanh": (lambda: mlp(5, 7, 4, 1), LogisticLoss()),
    "relu": (lambda: mlp(5, 7, 3, activation=nn.ReLU), SoftmaxLoss(3)),
    "sigmoid": (lambda: mlp(5, 6, 1, activation=nn.Sigmoid), SquaredLoss()),
    "no-bias": (lambda: nn.Sequential(seeded_linear(bias=False)), LogisticLoss()),
    "bare-linear": (lambda: seeded_linear(), LogisticLoss()),
}


def labels(loss, batch):
    return batch[2] if loss.n_outputs > 1 else batch[1]


@pytest.mark.parametrize("path", [ClosedFormPath, FunctionalPath])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bound", [0.3, 2.0, 1e6])
def test_clipped_sum_equals_one_record_at_a_time(path, name, bound, batch):
    make, loss = MODELS[name]
    module, X, y = make(), batch[0], labels(loss, batch)
    expected, norms = reference_clipped_sum(module, loss.per_record, X, y, bound)
    engine = path(module, loss)
    engine.prepare(X)
    got = engine.sums(X, y, torch.arange(len(X)), bound, 0.0)
    torch.testing.assert_close(got.total, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.norms, norms, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # Opacus' hooks warn on every backward pass
@pytest.mark.parametrize("name", ["logistic", "tanh", "relu"])
def test_clipped_sum_equals_opacus(name, batch):
    from opacus import GradSampleModule

    make, loss = MODELS[name]
    X, y = batch[0], labels(loss, batch)
    wrapped = GradSampleModule(make(), loss_reduction="sum")
    loss.per_record(wrapped(X), y).sum().backward()
    grads = torch.cat([p.grad_sample.flatten(1) for p in wrapped.parameters()], dim=1).double()
    norms = grads.norm(dim=1)
    expected = (grads * (0.7 / norms.clamp(min=0.7))[:, None]).sum(dim=0)
    module = make()
    for path in (ClosedFormPath, FunctionalPath):
        got = path(module, loss).sums(X, y, torch.arange(len(X)), 0.7, 0.0)
        torch.testing.assert_close(got.total, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got.norms, norms, rtol=1e-5, atol=1e-5)


def test_score_weights_enter_the_loss_of_each_record(batch):
    X, y, _ = batch
    loss, w = LogisticLoss(), torch.linspace(-1, 2, len(batch[0]))

    def with_score(out, target):
        i = int((X_row == X).all(dim=1).nonzero()[0])
        return loss.per_record(out, target) + w[i] * loss.score(out)

    module = mlp(5, 4, 1)
    total = torch.zeros(sum(p.numel() for p in module.parameters()), dtype=torch.float64)
    for i in range(len(X)):
        X_row = X[i]
        total += reference_clipped_sum(module, with_score, X[i : i + 1], y[i : i + 1], 0.5)[0]
    for path in (ClosedFormPath, FunctionalPath):
        got = path(module, loss).sums(X, y, torch.arange(len(X)), 0.5, 0.0, lambda out: w)
        torch.testing.assert_close(got.total, total, rtol=1e-5, atol=1e-5)


def test_sample_weights_multiply_the_loss_before_clipping(batch):
    X, y, _ = batch
    loss, w = LogisticLoss(), torch.linspace(0, 3, len(batch[0]))
    module = mlp(5, 4, 1)
    total = torch.zeros(sum(p.numel() for p in module.parameters()), dtype=torch.float64)
    for i in range(len(X)):
        weighted = lambda out, t, i=i: w[i] * loss.per_record(out, t)  # noqa: E731
        total += reference_clipped_sum(module, weighted, X[i : i + 1], y[i : i + 1], 0.5)[0]
    for path in (ClosedFormPath, FunctionalPath):
        got = path(module, loss).sums(X, y, torch.arange(len(X)), 0.5, 0.0, sample_weight=w)
        torch.testing.assert_close(got.total, total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", [ClosedFormPath, FunctionalPath])
def test_empty_batch_sums_to_zero(path, batch):
    engine = path(mlp(5, 4, 1), LogisticLoss())
    got = engine.sums(batch[0], batch[1], torch.arange(0), 1.0, 1e-5)
    assert got.total.shape == (5 * 4 + 4 + 4 + 1,)
    assert not got.total.any() and len(got.norms) == 0


EXTREME = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e10])


@pytest.mark.parametrize("path", [ClosedFormPath, FunctionalPath])
@given(
    rows=arrays(np.float32, (6, 5), elements=st.one_of(EXTREME, st.floats(-1e3, 1e3, width=32))),
    which=st.integers(0, 5),
    bound=st.sampled_from([1e-3, 0.5, 1.0, 7.0]),
    hidden=st.booleans(),
)
def test_one_record_moves_the_sum_by_at_most_the_bound(path, rows, which, bound, hidden):
    """Property: over arbitrary rows (NaN and infinity too), removing any one record."""
    module = mlp(5, 3, 1) if hidden else mlp(5, 1)
    X, y = torch.from_numpy(rows), torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    engine = path(module, LogisticLoss())
    everyone = torch.arange(6)
    with_it = engine.sums(X, y, everyone, bound, GUARD).total
    without = engine.sums(X, y, everyone[everyone != which], bound, GUARD).total
    assert torch.isfinite(with_it).all()
    assert (with_it - without).norm().item() <= bound


@pytest.mark.parametrize("path", [ClosedFormPath, FunctionalPath])
@pytest.mark.parametrize("width", [4, 5_000, 50_000])
@pytest.mark.parametrize("bound", [1.0, 1e-3, 2.5e-7])
def test_a_record_near_the_largest_float_is_clipped_to_the_bound(path, width, bound):
    """Its scaled derivative is subnormal in float32, where rounding has no relative bound."""
    linear = nn.Linear(width, 1)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    engine, y, row = path(linear, LogisticLoss()), torch.zeros(1), torch.tensor([0])
    for share in np.linspace(0.02, 1.0, 40):
        X = torch.full((1, width), float(np.float32(3.4e38 * share)))
        engine.prepare(X)
        norm = engine.sums(X, y, row, bound, GUARD).total.norm().item()
        # The sum of squares of the norm above rounds, too: 1e-12 is far above it, and GUARD
        # lies between.
        assert norm <= bound * (1 - GUARD) * (1 + 1e-12)


@given(arrays(np.float64, (8,), elements=st.one_of(EXTREME.map(abs), st.floats(0, 1e300))))
def test_clipping_factors(norms):
    t = torch.from_numpy(norms)
    factors = clip_factors(t, 2.0, 1e-5)
    finite = np.isfinite(norms)
    assert (factors[~torch.from_numpy(finite)] == 0).all()
    clipped = factors.numpy()[finite] * norms[finite]
    assert (clipped <= 2.0).all() and (factors >= 0).all() and (factors <= 1).all()
    small = finite & (norms <= 2.0)
    np.testing.assert_allclose(factors.numpy()[small], 1 - 1e-5)
    again = clip_factors(torch.from_numpy(clipped), 2.0, 0.0).numpy()
    np.testing.assert_array_equal(again, 1.0)  # clipping what is clipped changes nothing
    np.testing.assert_array_equal(clip_factors(t, None).numpy(), finite.astype(float))


def test_statistic_rows_are_bounded_and_finite():
    rows = torch.tensor([[3e30, 4e30], [0.1, 0.2], [float("inf"), 0.0], [0.0, float("nan")]])
    out = clip_rows(rows, 0.5)
    assert torch.isfinite(out).all() and (out.norm(dim=1) <= 0.5).all()
    torch.testing.assert_close(out[1], rows[1].double(), rtol=1e-4, atol=0)
    assert not out[2:].any()


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=300), st.integers(0, 2**31))
def test_sums_stay_within_their_error_bound_in_any_order(values, seed):
    """Against exact rational sums, for two orders of the same rows."""
    exact = sum(Fraction(v) for v in values)
    order = np.random.default_rng(seed).permutation(len(values))
    rows = torch.tensor(values, dtype=torch.float64)[:, None]
    bound = block_sum_error(len(values), 1.0)
    for arranged in (rows, rows[order]):
        assert abs(Fraction(block_sum(arranged).item()) - exact) <= bound


@pytest.mark.parametrize("n", [1, 2, 7, 255, 256, 257, 8_191, 8_193, 10**5, 5 * 10**6, 10**9])
def test_no_size_of_block_exceeds_the_roundings_that_are_charged(n):
    """A product, the additions inside a block, and those between blocks, for every block."""
    charged = block_sum_error(n, 1.0) / (2.0**-53 * n)
    least = max(1, -(-n // CHUNK_ROWS))
    for block in {least, least + 1, 256, 1024, 4_096, CHUNK_ROWS, max(least, CHUNK_ROWS)}:
        if least <= block <= max(least, CHUNK_ROWS):
            inside, between = min(block, n) - 1, -(-n // block) - 1
            assert 1 + inside + between <= charged


def test_error_bound_of_sums_stays_small():
    assert block_sum_error(1, 1.0) < 1e-15
    assert block_sum_error(32_561, 1.0) < 1e-7
    assert block_sum_error(10_000_000, 1.0) < 2e-5


def test_sums_over_several_blocks_equal_one(batch):
    X, y, _ = batch
    whole = ClosedFormPath(mlp(5, 4, 1), LogisticLoss()).sums(X, y, torch.arange(50), 1.0, 0.0)
    blocks = ClosedFormPath(mlp(5, 4, 1), LogisticLoss())
    blocks._block_rows = 7
    parts = blocks.sums(X, y, torch.arange(50), 1.0, 0.0)
    # float32 products of other shapes may order a row's operations differently
    torch.testing.assert_close(whole.total, parts.total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole.norms, parts.norms, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole.output, parts.output)
    path = FunctionalPath(mlp(5, 4, 1), LogisticLoss())
    path._chunk = 7
    again = path.sums(X, y, torch.arange(50), 1.0, 0.0)
    torch.testing.assert_close(whole.total, again.total, rtol=1e-6, atol=1e-6)


def plain_sums(module, loss, X, y, rows, bound, weights=None, sample_weight=None):
    """The closed form as one reads it: no blocks, no buffers, nothing in place, all float64."""
    stack = linear_stack(module)
    acts = [X[rows].double()]
    for layer, activation in stack:
        bias = 0.0 if layer.bias is None else layer.bias.detach().double()
        acts.append(activation(acts[-1] @ layer.weight.detach().double().T + bias))
    back = loss.backprop(acts[-1], y[rows])
    if sample_weight is not None:
        back = back * sample_weight[rows, None]
    if weights is not None:
        back = back + weights[:, None] * loss.score_backprop(acts[-1])
    derivative = {
        nn.Tanh: lambda a: 1 - a * a,
        nn.ReLU: lambda a: (a > 0).double(),
        nn.Sigmoid: lambda a: a * (1 - a),
        nn.Identity: torch.ones_like,
    }
    backs = [back]
    for at in range(len(stack) - 1, 0, -1):
        back = (back @ stack[at][0].weight.detach().double()) * derivative[type(stack[at - 1][1])](
            acts[at]
        )
        backs.insert(0, back)
    square = sum(
        (a.square().sum(1) + (layer.bias is not None)) * d.square().sum(1)
        for a, d, (layer, _) in zip(acts, backs, stack, strict=False)
    )
    norms = square.sqrt()
    factors = clip_factors(norms, bound)
    parts = []
    for a, d, (layer, _) in zip(acts, backs, stack, strict=False):
        parts.append(((factors[:, None] * d).T @ a).flatten())
        if layer.bias is not None:
            parts.append((factors[:, None] * d).sum(0))
    return torch.cat(parts), norms, acts[-1]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("block", [1, 3, 64])
def test_the_fast_closed_form_equals_the_plain_one(name, block):
    """Over batches that shrink and grow, so that buffers are used again at other sizes."""
    make, loss = MODELS[name]
    module = make()
    g = torch.Generator().manual_seed(3)
    X = torch.randn((40, 5), generator=g) * 3
    classes = loss.n_outputs
    y = torch.randint(0, max(2, classes), (40,), generator=g)
    y = y if classes > 1 else y.float()
    weight = torch.rand(40, generator=g)
    path = ClosedFormPath(module, loss)
    path._block_rows = block
    path.prepare(X)
    for size in (40, 9, 0, 23):
        rows = torch.randperm(40, generator=g)[:size]
        weights = (
            torch.randn(size, generator=g) if loss.score(torch.zeros(1, 1)) is not None else None
        )
        expected, norms, output = plain_sums(module, loss, X, y, rows, 0.6, weights, weight)
        score = None if weights is None else lambda out, w=weights: w
        got = path.sums(X, y, rows, 0.6, GUARD, score, weight)
        torch.testing.assert_close(got.total, expected, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(got.norms, norms, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.output.double(), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", [ClosedFormPath, FunctionalPath])
def test_no_rows_stand_for_all_of_them(path, batch):
    X, y, _ = batch
    engine = path(mlp(5, 4, 1), LogisticLoss())
    engine.prepare(X)
    every = engine.sums(X, y, torch.arange(len(X)), 0.5, GUARD)
    torch.testing.assert_close(engine.sums(X, y, None, 0.5, GUARD).total, every.total)


def test_a_result_is_not_overwritten_by_the_next_step(batch):
    X, y, _ = batch
    engine = ClosedFormPath(mlp(5, 4, 1), LogisticLoss())
    first = engine.sums(X, y, torch.arange(50), 0.5, GUARD)
    kept = [t.clone() for t in (first.total, first.norms, first.output)]
    engine.sums(X.flip(0) * 2, y, torch.arange(30), 0.5, GUARD)
    for now, then in zip((first.total, first.norms, first.output), kept, strict=True):
        assert torch.equal(now, then)


@given(
    logits=arrays(np.float32, (6, 2), elements=st.floats(-80, 80, width=32)),
    wide=arrays(np.float32, (6, 4), elements=st.floats(-80, 80, width=32)),
)
def test_the_derivative_of_cross_entropy_is_autograds(logits, wide):
    for values, y in ((logits, [0, 1, 1, 0, 1, 0]), (wide, [0, 3, 1, 2, 1, 0])):
        output = torch.from_numpy(values).requires_grad_()
        target = torch.tensor(y)
        loss = SoftmaxLoss(values.shape[1])
        (expected,) = torch.autograd.grad(loss.per_record(output, target).sum(), output)
        got = loss.backprop(output.detach(), target)
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-7)


# -- which modules -------------------------------------------------------------------------
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.out = nn.Linear(5, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.a(torch.tanh(self.a(x)))))


def test_tied_weights_take_the_functional_path_and_are_right(batch):
    module, loss = Tied(), LogisticLoss()
    assert linear_stack(module) is None
    shared = nn.Linear(5, 5)
    assert (
        linear_stack(nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(5, 1))) is None
    )
    expected, _ = reference_clipped_sum(module, loss.per_record, batch[0], batch[1], 0.4)
    got = FunctionalPath(module, loss).sums(batch[0], batch[1], torch.arange(50), 0.4, 0.0)
    torch.testing.assert_close(got.total, expected, rtol=1e-5, atol=1e-5)


def test_an_activation_that_is_used_twice_stays_in_its_two_places(batch):
    act, loss = nn.Tanh(), LogisticLoss()
    module = nn.Sequential(nn.Linear(5, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 1))
    stack = linear_stack(module)
    assert [type(a) for _, a in stack] == [nn.Tanh, nn.Tanh, nn.Identity]
    expected, _ = reference_clipped_sum(module, loss.per_record, batch[0], batch[1], 0.4)
    for path in (ClosedFormPath, FunctionalPath):
        got = path(module, loss).sums(batch[0], batch[1], torch.arange(50), 0.4, 0.0)
        torch.testing.assert_close(got.total, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got.output, module(batch[0]).detach())


def test_a_layer_that_is_used_twice_takes_the_functional_path(batch):
    layer, loss = nn.Linear(5, 5), LogisticLoss()
    module = nn.Sequential(layer, layer, nn.Linear(5, 1))
    assert linear_stack(module) is None
    expected, _ = reference_clipped_sum(module, loss.per_record, batch[0], batch[1], 0.4)
    got = FunctionalPath(module, loss).sums(batch[0], batch[1], torch.arange(50), 0.4, 0.0)
    torch.testing.assert_close(got.total, expected, rtol=1e-5, atol=1e-5)


def test_frozen_or_hooked_stacks_are_not_taken_for_plain_ones():
    frozen = mlp(5, 3, 1)
    frozen[0].weight.requires_grad_(False)
    assert linear_stack(frozen) is None
    hooked = mlp(5, 3, 1)
    hooked[0].register_forward_hook(lambda module, args, output: output * 2)
    assert linear_stack(hooked) is None
    assert linear_stack(mlp(5, 3, 1)) is not None
    assert linear_stack(nn.Sequential(nn.Linear(5, 1), nn.Sigmoid())) is None


class MixesRecords(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 1)

    def forward(self, x):
        return self.linear(x - x.mean(dim=0))


class RemembersRecords(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 1)
        self.register_buffer("last", torch.zeros(5))

    def forward(self, x):
        self.last.copy_(x[-1])
        return self.linear(x)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), "BatchNorm1d"),
        (MixesRecords(), "mixes records"),
        (RemembersRecords(), "buffer"),
        (nn.Linear(5, 2), r"must map \(batch, 5\) to \(batch, 1\)"),
        (nn.Identity(), "no trainable parameter"),
    ],
    ids=["batchnorm", "mixes", "remembers", "shape", "untrainable"],
)
def test_modules_that_clipping_cannot_bound_are_refused(module, match):
    with pytest.raises(AccountingAssumptionError, match=match):
        check_per_record_module(module, 5, 1)


@pytest.mark.parametrize(
    "module",
    [
        mlp(5, 3, 1),
        Tied(),
        nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 1)),
    ],
    ids=["mlp", "tied", "layernorm", "dropout"],
)
def test_modules_that_treat_each_record_alone_pass(module):
    check_per_record_module(module, 5, 1)
