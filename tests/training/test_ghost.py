"""The book-keeping path, the path of Opacus, the choice between paths, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.training import DPEngine, LogisticLoss, SoftmaxLoss, TrainingPlan, make_optimizer
from privfair.training._clipping import GUARD
from privfair.training._functional import FunctionalPath
from privfair.training._ghost import GhostPath
from privfair.training._ghost._recorder import UnsupportedUseError
from privfair.training._ghost._uses import Rows, Sequence, prefers_products
from privfair.training._opacus import OpacusPath
from privfair.training._paths import choose_path
from privfair.training._probe import check_per_record_module, check_record_loss
from privfair.training._users import UserPath

from .helpers import mlp, reference_clipped_sum
from .zoo import ZOO, build

LOSS = SoftmaxLoss(3)


@pytest.mark.parametrize("name", ZOO)
def test_bookkeeping_equals_per_record_gradients(name):
    """Norms and clipped sums, several chunks, against one record at a time and against vmap."""
    module, X, y = build(name, 9)
    path = choose_path("auto", module, LOSS)
    path.prepare(X)
    assert path.name == "ghost"
    path._path._chunk = 4
    rows = torch.tensor([8, 1, 2, 3, 5, 6, 7])
    norms = FunctionalPath(module, LOSS).sums(X, y, rows, None, 0.0).norms
    for bound in (float(norms.median()), 1e6, None):
        want = FunctionalPath(module, LOSS).sums(X, y, rows, bound, 0.0)
        got = path.sums(X, y, rows, bound, 0.0)
        torch.testing.assert_close(got.norms, want.norms, rtol=2e-6, atol=1e-7)
        torch.testing.assert_close(got.total, want.total, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(got.output, want.output, rtol=1e-5, atol=1e-5)
    assert all(p.requires_grad for p in path._path._params)


def test_bookkeeping_equals_autograd_one_record_at_a_time():
    """A second reference, which shares nothing with torch.func."""
    for name in ("transformer", "images", "attention", "tied embedding"):
        module, X, y = build(name, 6)
        want, norms = reference_clipped_sum(module, LOSS.per_record, X, y, 0.7)
        got = GhostPath(module, LOSS).sums(X, y, torch.arange(6), 0.7, 0.0)
        torch.testing.assert_close(got.total, want, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(got.norms, norms, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["attention", "tied embedding"])
def test_clipped_sum_is_the_slope_of_the_loss(name):
    """Finite differences in float64: without clipping the sum is the gradient of the loss."""
    module, X, y = build(name, 4)
    module.double()
    X = X.double() if X.is_floating_point() else X
    total = GhostPath(module, LOSS).sums(X, y, torch.arange(4), None, 0.0).total
    params = list(module.parameters())
    flat = torch.nn.utils.parameters_to_vector(params).detach().clone()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        step = torch.randn(flat.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1e-5, -1e-5):
            torch.nn.utils.vector_to_parameters(flat + sign * step, params)
            with torch.no_grad():
                values.append(float(LOSS.per_record(module(X), y).sum()))
        slope = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(float(total @ step), rel=1e-6)


@pytest.mark.parametrize("name", ["images-plain", "series-plain", "wide", "norm first"])
def test_both_engines_agree_with_opacus(name):
    """Gradients by Opacus, clipped by us, against both of our own paths."""
    module, X, y = build(
        {"wide": "wide", "norm first": "transformer, norm first, bare positions"}.get(
            name, "wide images"
        ),
        8,
    )
    if name == "series-plain":
        module = nn.Sequential(
            nn.Conv1d(4, 6, 3, stride=2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)
        ).eval()
        X = torch.randn((8, 4, 9), generator=torch.Generator().manual_seed(1))
    rows = torch.arange(8)
    opacus = choose_path("opacus", module, LOSS)
    opacus.prepare(X)
    assert opacus.name == "opacus"
    weight = torch.linspace(0.2, 2.0, 8)
    for factor in (None, weight):
        theirs = opacus.sums(X, y, rows, 0.6, 0.0, sample_weight=factor)
        for path in (GhostPath(module, LOSS), FunctionalPath(module, LOSS)):
            ours = path.sums(X, y, rows, 0.6, 0.0, sample_weight=factor)
            torch.testing.assert_close(ours.norms, theirs.norms, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(ours.total, theirs.total, rtol=1e-5, atol=2e-6)
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())
    assert not any(m._forward_hooks for m in module.modules())


def test_opacus_follows_the_parameters_and_uses_registered_samplers():
    from opacus.grad_sample import GradSampleModule, register_grad_sampler

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(5))

        def forward(self, x):
            return x * self.factor

    called = []

    @register_grad_sampler(Scale)
    def sampler(layer, activations, backprops):
        called.append(len(backprops))
        return {layer.factor: activations[0] * backprops}

    try:
        module = nn.Sequential(Scale(), nn.Linear(5, 1)).eval()
        X, y = torch.randn(6, 5), torch.arange(6).float() % 2
        path = choose_path("opacus", module, LogisticLoss())
        path.prepare(X)
        with torch.no_grad():
            for p in module.parameters():
                p.data = p.data.clone() + 0.3  # as the engine does when it flattens
        want = FunctionalPath(module, LogisticLoss()).sums(X, y, torch.arange(6), 0.5, 0.0)
        got = path.sums(X, y, torch.arange(6), 0.5, 0.0)
        torch.testing.assert_close(got.total, want.total, rtol=1e-5, atol=1e-6)
        assert called
    finally:
        del GradSampleModule.GRAD_SAMPLERS[Scale]


@given(
    n=st.integers(1, 5),
    c=st.integers(1, 3),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_any_convolution(n, c, groups, kernel, stride, padding, dilation, bias):
    module = nn.Sequential(
        nn.Conv2d(
            c * groups, 2 * groups, kernel, stride, padding, dilation, groups, bias=bias
        ),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Linear(4 * groups, 3),
    )  # fmt: skip
    X = torch.randn((n, c * groups, 7, 6), generator=torch.Generator().manual_seed(n))
    _same_as_functional(module, X)


@given(
    n=st.integers(1, 5),
    middle=st.lists(st.integers(1, 4), max_size=2),
    d=st.integers(1, 40),
    p=st.integers(1, 40),
    bias=st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_any_linear_layer(n, middle, d, p, bias):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(d, p, bias=bias), nn.Linear(p, 3)

        def forward(self, x):
            return (
                self.b(torch.tanh(self.a(x))).flatten(1, -2).sum(1)
                if middle
                else self.b(torch.tanh(self.a(x)))
            )

    X = torch.randn((n, *middle, d), generator=torch.Generator().manual_seed(d))
    _same_as_functional(Flat(), X)


@given(
    n=st.integers(1, 5),
    length=st.sampled_from([1, 2, 7, 140]),
    tokens=st.integers(1, 9),
    padding=st.sampled_from([None, 0, -1]),
)
@settings(max_examples=10, deadline=None)
def test_any_embedding(n, length, tokens, padding):
    module = nn.Sequential(
        nn.Embedding(tokens, 4, padding_idx=padding), nn.Flatten(), nn.Linear(4 * length, 3)
    )
    generator = torch.Generator().manual_seed(length)
    _same_as_functional(module, torch.randint(0, tokens, (n, length), generator=generator))


def _same_as_functional(module: nn.Module, X: torch.Tensor) -> None:
    module.eval()
    y, rows = torch.arange(len(X)) % 3, torch.arange(len(X))
    want = FunctionalPath(module, LOSS).sums(X, y, rows, 0.3, 0.0)
    path = GhostPath(module, LOSS)
    got = path.sums(X, y, rows, 0.3, 0.0)
    torch.testing.assert_close(got.norms, want.norms, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got.total, want.total, rtol=1e-5, atol=2e-6)


# -- the bound -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("scale", [1.0, 1e12, 3e38])
def test_no_record_contributes_more_than_the_bound(name, scale):
    """White box: each record's contribution, alone and by difference, for wild inputs too."""
    module, X, y = build(name, 6)
    if X.is_floating_point() and name != "transformer on floats":
        X = (X * scale).clamp(-3e38, 3e38)
        X[2] = float("nan")
    elif scale != 1.0:
        pytest.skip("tokens have no scale")
    path = GhostPath(module, LOSS)
    rows = torch.arange(6)
    for bound in (1e-3, 0.5):
        whole = path.sums(X, y, rows, bound, GUARD)
        assert torch.isfinite(whole.total).all()
        for i in range(6):
            alone = path.sums(X, y, rows[i : i + 1], bound, GUARD)
            assert alone.total.norm() <= bound * (1 - GUARD) * (1 + 1e-12)
            if not torch.isfinite(alone.norms[0]):
                assert not alone.total.any()
            rest = path.sums(X, y, rows[rows != i], bound, GUARD)
            assert (whole.total - rest.total).norm() <= bound


@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 1e-7, 1e-3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_cancelling_positions_never_pass_the_bound(seed, spread):
    """Derivatives that nearly cancel over positions: the norm must not be lost in rounding."""
    g = torch.Generator().manual_seed(seed)
    length, d, p = 6, 50, 60
    a = torch.randn((1, 1, d), generator=g).expand(3, length, d) * 1e4
    a = a + spread * torch.randn((3, length, d), generator=g)
    back = torch.randn((3, length, p), generator=g)
    back = back - back.mean(dim=1, keepdim=True)
    assert prefers_products(length, d, p)
    use = Sequence(lambda: a, back)
    norms = use.squares().sqrt()
    for i in range(3):
        factors = torch.zeros(3, dtype=torch.float64)
        factors[i] = 1.0 / float(norms[i])
        total = torch.zeros(d * p, dtype=torch.float64)
        use.add_to(total, factors, None)
        assert total.norm() <= 1.0 + 1e-9
        exact = torch.einsum("tp,td->pd", back[i].double(), a[i].double()).norm()
        mass = (back[i].double().norm(dim=1) * a[i].double().norm(dim=1)).sum()
        assert exact <= norms[i] <= exact + 3e-7 * mass


def test_sums_of_chunks_stay_within_the_error_bound():
    """Two orders and several chunk sizes of the same records differ by less than is charged."""
    from privfair.training._clipping import block_sum_error

    for name in ("transformer", "images", "wide"):
        module, X, y = build(name, 40)
        path = GhostPath(module, LOSS)
        rows = torch.arange(40)
        path.prepare(X)
        totals = []
        for chunk, order in ((40, rows), (40, rows.flip(0)), (40, rows.roll(7))):
            path._chunk = chunk
            totals.append(path.sums(X, y, order, 0.5, GUARD).total)
        for other in totals[1:]:
            # The records' own float32 arithmetic may depend on their place: not part of the sum.
            assert (totals[0] - other).norm() <= 2 * block_sum_error(40, 0.5) + 40 * 0.5 * 1e-6


def test_infinite_derivatives_of_one_record_leave_the_others_alone():
    module, X, y = build("wide", 5)
    path = GhostPath(module, LOSS)
    clean = path.sums(X, y, torch.tensor([0, 1, 3, 4]), 0.5, GUARD).total
    for bad in (float("inf"), float("nan"), -float("inf")):
        broken = X.clone()
        broken[2, 1] = bad
        got = path.sums(broken, y, torch.arange(5), 0.5, GUARD)
        assert not torch.isfinite(got.norms[2])
        torch.testing.assert_close(got.total, clean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("path", ["ghost", "functional", "opacus"])
def test_empty_batches_sum_to_zero_on_every_path(path):
    module, X, y = build("wide", 4)
    chosen = choose_path(path, module, LOSS)
    chosen.prepare(X)
    got = chosen.sums(X, y, torch.arange(0), 1.0, GUARD)
    assert got.total.shape == (sum(p.numel() for p in module.parameters()),)
    assert not got.total.any() and len(got.norms) == 0 and got.output.shape == (0, 3)


def test_weights_of_records_and_scores_enter_on_every_path():
    loss = LogisticLoss()
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)).eval()
    g = torch.Generator().manual_seed(2)
    X, y = torch.randn((9, 2, 5), generator=g), (torch.arange(9) % 2).float()
    w, weight, rows = torch.linspace(-1, 2, 9), torch.linspace(0, 3, 9), torch.arange(9).flip(0)
    want = FunctionalPath(module, loss).sums(X, y, rows, 0.4, 0.0, lambda out: w, weight)
    for name in ("ghost", "opacus"):
        path = choose_path(name, module, loss)
        path.prepare(X)
        for chunk in (4, 100):
            path._path._chunk = chunk
            got = path.sums(X, y, rows, 0.4, 0.0, lambda out: w, weight)
            torch.testing.assert_close(got.total, want.total, rtol=1e-5, atol=1e-6)


# -- the choice ----------------------------------------------------------------------------
class Prelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.act = nn.Linear(6, 3), nn.PReLU()

    def forward(self, x):
        return self.act(self.linear(x))


class Transposed(nn.Module):
    """A weight that is used through a view, not through a layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 3))

    def forward(self, x):
        return x @ self.weight


class Overwrites(nn.Module):
    """Changes the input of a layer in place after the layer has read it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = torch.sigmoid(x)
        out = self.a(h)
        h.mul_(2.0)
        return self.b(out + h)


class TimeFirst(nn.Module):
    """A layer on (time, batch, features)."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.transpose(0, 1))).mean(dim=0))


@pytest.mark.parametrize(
    ("module", "shape", "reason"),
    [
        (Prelu(), (6,), "prelu"),
        (Transposed(), (6,), "matmul"),
        (TimeFirst(), (4, 6), "batch in front"),
        (nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))),
         (6,), "_weight_norm"),
    ],
    ids=["prelu", "matmul", "time-first", "weight-norm"],
)  # fmt: skip
def test_unsupported_uses_take_the_functional_path_with_a_reason(module, shape, reason):
    X = torch.randn((8, *shape), generator=torch.Generator().manual_seed(0))
    with pytest.raises(InvalidParameterError, match=reason):
        choose_path("ghost", module, LOSS).prepare(X)
    path = choose_path("auto", module, LOSS)
    assert path.name == "auto"
    path.prepare(X)
    assert path.name == "functional"
    y = torch.arange(8) % 3
    want, _ = reference_clipped_sum(module, LOSS.per_record, X, y, 0.5)
    got = path.sums(X, y, torch.arange(8), 0.5, 0.0)
    torch.testing.assert_close(got.total, want, rtol=1e-5, atol=2e-6)


def test_an_input_that_is_overwritten_is_noticed():
    """Autograd itself notices only where a weight's gradient is wanted."""
    with pytest.raises(InvalidParameterError, match="in place"):
        choose_path("ghost", Overwrites(), LOSS).prepare(torch.ones(4, 6))


def test_a_batch_size_that_equals_the_length_decides_nothing():
    """Positions are looked up by (T,) tokens: with T records they are still not the records."""
    module, X, y = build("transformer", 20)
    path = GhostPath(module, LOSS)
    path.prepare(X)
    for n in (11, 12, 13):
        rows = torch.arange(n)
        want = FunctionalPath(module, LOSS).sums(X, y, rows, 0.5, 0.0)
        torch.testing.assert_close(
            path.sums(X, y, rows, 0.5, 0.0).total, want.total, rtol=1e-5, atol=2e-6
        )
    time_first = TimeFirst()
    X = torch.randn(4, 4, 6)
    path = GhostPath(time_first, LOSS)
    with pytest.raises(UnsupportedUseError):
        path.sums(X, torch.arange(4) % 3, torch.arange(4), 0.5, 0.0)


def test_a_wrong_formula_is_found_by_the_comparison_and_not_used(monkeypatch):
    """The self-check: with any formula spoilt, the choice falls on the functional path."""
    for spoil in ("squares", "add_to"):
        module, X, _ = build("transformer", 5)
        with monkeypatch.context() as patch:
            true = getattr(Rows, spoil)
            if spoil == "squares":
                patch.setattr(Rows, spoil, lambda self, true=true: 0.9 * true(self))
            else:
                patch.setattr(
                    Rows, spoil,
                    lambda self, total, f, keep, true=true: true(self, total, 1.01 * f, keep),
                )  # fmt: skip
            path = choose_path("auto", module, LOSS)
            path.prepare(X)
            assert path.name == "functional"
            with pytest.raises(InvalidParameterError, match="differ"):
                choose_path("ghost", module, LOSS).prepare(X)


def test_zero_initial_weights_do_not_blind_the_comparison(monkeypatch):
    module, X, _ = build("transformer", 5)
    for p in module.parameters():
        nn.init.zeros_(p)
    monkeypatch.setattr(Rows, "squares", lambda self: torch.zeros(len(self._tokens)).double())
    path = choose_path("auto", module, LOSS)
    path.prepare(X)
    assert path.name == "functional"


# -- refusals ------------------------------------------------------------------------------
class ContrastiveLoss(SoftmaxLoss):
    def per_record(self, output, y):
        return F.cross_entropy(output - output.mean(dim=0), y, reduction="none")


class MeanLoss(SoftmaxLoss):
    def per_record(self, output, y):
        return F.cross_entropy(output, y)


class WrongDerivative(SoftmaxLoss):
    def backprop(self, output, y):
        return 2 * super().backprop(output, y)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (ContrastiveLoss(3), "not a sum over records"),
        (MeanLoss(3), "one term for each record"),
        (WrongDerivative(3), "not the derivative"),
    ],
)
@pytest.mark.parametrize("path", ["auto", "functional"])
def test_losses_that_clipping_cannot_bound_are_refused(loss, match, path):
    with pytest.raises(AccountingAssumptionError, match=match):
        choose_path(path, Prelu(), loss)
    with pytest.raises(AccountingAssumptionError, match=match):
        choose_path("auto", mlp(6, 3), loss)


class BatchSized(LogisticLoss):
    """A loss whose terms depend on the records around them, in number or in place."""

    def __init__(self, factor):
        super().__init__()
        self._factor = factor

    def per_record(self, output, y):
        return super().per_record(output, y) * self._factor(len(output))

    def backprop(self, output, y):
        return super().backprop(output, y) * self._factor(len(output))[:, None]


@pytest.mark.parametrize(
    "factor",
    [
        lambda n: torch.full((n,), 1.0 / n),
        lambda n: torch.full((n,), 1.0 - 2 * (n % 2)),
        lambda n: 1.0 - 2.0 * (torch.arange(n) % 2),
    ],
    ids=["mean over the batch", "sign by its size", "sign by place"],
)
def test_losses_that_depend_on_the_size_of_the_batch_are_refused(factor):
    """One record that comes or goes would change the gradients of all others."""
    for path, module in (("auto", mlp(6, 3, 1)), ("functional", nn.Linear(6, 1))):
        with pytest.raises(AccountingAssumptionError, match="how many records"):
            choose_path(path, module, BatchSized(factor))
    with pytest.raises(AccountingAssumptionError, match="how many records"):
        UserPath(nn.Linear(6, 1), BatchSized(factor), None)


class Keeps(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.layer, self.how, self.seen, self.last = nn.Linear(6, 1), how, [], None
        self.mask = None

    def forward(self, x):
        if self.how == "last":
            self.last = x.detach()
        elif self.how == "list":
            self.seen.append(x.detach())
        elif self.how == "dict":
            self.last = {"weights": (x.detach().mean(),)}
        elif self.mask is None:
            self.mask = torch.ones(6)  # depends on no record
        return self.layer(x)


@pytest.mark.parametrize("path", ["auto", "functional", "opacus"])
@pytest.mark.parametrize("how", ["last", "list", "dict"])
def test_modules_that_keep_records_are_refused(how, path):
    with pytest.raises(AccountingAssumptionError, match="keeps"):
        choose_path(path, Keeps(how), LogisticLoss()).prepare(torch.randn(5, 6))


def test_a_mask_made_at_the_first_pass_is_no_record():
    chosen = choose_path("auto", Keeps("mask"), LogisticLoss())
    chosen.prepare(torch.randn(5, 6))
    assert chosen.name == "ghost"


class BySize(nn.Linear):
    def forward(self, x):
        return super().forward(x) / len(x)


class ByPlace(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.arange(1.0, len(x) + 1)[:, None]


@pytest.mark.parametrize("module", [BySize(6, 1), ByPlace(6, 1)])
@pytest.mark.parametrize("path", ["auto", "functional"])
def test_modules_that_depend_on_the_size_of_the_batch_are_refused(module, path):
    with pytest.raises(AccountingAssumptionError, match="how many records"):
        choose_path(path, module, LogisticLoss()).prepare(torch.randn(5, 6))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x):
        return self.out(self.gru(x)[0][:, -1])


class Branches(nn.Linear):
    def forward(self, x):
        return super().forward(x * 2 if x.max() > 100 else x)


@pytest.mark.parametrize("path", ["auto", "functional"])
@pytest.mark.parametrize(
    ("module", "shape"), [(Recurrent(), (7, 3, 4)), (Branches(4, 1), (7, 4))], ids=["gru", "if"]
)
def test_what_cannot_be_vectorised_is_found_out_before_the_run(module, shape, path):
    """In the run the message would tell the size of the batch that was drawn."""
    with pytest.raises(InvalidParameterError, match="made-up records"):
        choose_path(path, module, LogisticLoss()).prepare(torch.randn(shape))


class OddTargets(SoftmaxLoss):
    """Takes targets that no made-up ones resemble."""

    def per_record(self, output, y):
        return super().per_record(output, y[:, 0, 1])

    def backprop(self, output, y):
        return super().backprop(output, y[:, 0, 1])


def test_a_loss_that_cannot_be_tested_sees_one_record_at_a_time():
    loss, X = OddTargets(3), torch.randn(6, 6)
    assert not check_record_loss(loss)
    module = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    path = choose_path("auto", module, loss)
    path.prepare(X)
    assert path.name == "functional"
    with pytest.raises(InvalidParameterError, match="could not be tested"):
        choose_path("ghost", module, loss).prepare(X)
    stack = choose_path("auto", mlp(6, 3), loss)
    stack.prepare(X)
    assert stack.name == "functional"
    with pytest.raises(InvalidParameterError, match="could not be tested"):
        choose_path("closed_form", mlp(6, 3), loss)
    assert UserPath(mlp(6, 3), loss, None)._stack is None


class AlwaysDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 1)

    def forward(self, x):
        return self.linear(F.dropout(x, 0.5, training=True))


def test_randomness_in_evaluation_is_refused_by_its_name():
    with pytest.raises(AccountingAssumptionError, match="at random"):
        check_per_record_module(AlwaysDropout(), 5, 1)


class MixesTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 1)

    def forward(self, x):
        h = self.table(x).mean(dim=1)
        return self.out(h - h.mean(dim=0))


@pytest.mark.parametrize("path", ["auto", "ghost", "functional", "opacus"])
def test_mixing_is_found_for_tokens_on_every_path(path):
    X = torch.randint(0, 9, (6, 4))
    with pytest.raises(AccountingAssumptionError, match="mixes records"):
        choose_path(path, MixesTokens(), LogisticLoss()).prepare(X)


@pytest.mark.parametrize("path", ["ghost", "functional", "opacus"])
@pytest.mark.parametrize("change", ["added", "unfrozen", "frozen", "replaced"])
def test_parameters_that_change_after_preparation_are_refused(path, change):
    module, X, y = build("adapters", 4)
    chosen = choose_path(path, module, LOSS)
    chosen.prepare(X)
    if change == "added":
        module.late = nn.Linear(2, 2)
    elif change == "unfrozen":
        module.base.requires_grad_(True)
    elif change == "frozen":
        module.out.bias.requires_grad_(False)
    else:
        module.out = nn.Linear(8, 3)
    with pytest.raises(AccountingAssumptionError, match="changed after training was prepared"):
        chosen.sums(X, y, torch.arange(4), 1.0, GUARD)


def test_instance_normalisation_with_statistics_is_refused_and_without_is_not():
    for tracked in (True, False):
        module = nn.Sequential(
            nn.InstanceNorm1d(3, affine=True, track_running_stats=tracked), nn.Flatten(),
            nn.Linear(12, 1),
        )  # fmt: skip
        X = torch.zeros(0, 3, 4)
        if tracked:
            with pytest.raises(AccountingAssumptionError, match="InstanceNorm1d"):
                check_per_record_module(module, X, 1)
        else:
            check_per_record_module(module, X, 1)


def test_a_module_that_opacus_does_not_take_is_refused_with_its_reason():
    module, X, _ = build("tied embedding", 4)
    with pytest.raises(InvalidParameterError, match="differ"):
        choose_path("opacus", module, LOSS).prepare(X)
    with pytest.raises(InvalidParameterError, match="Opacus"):
        choose_path("opacus", build("attention", 4)[0], LOSS).prepare(build("attention", 4)[1])


# -- the engine ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["transformer", "images", "adapters"])
def test_the_engine_trains_on_tokens_images_and_sequences(name):
    """The same batches and noise by two paths: the same parameters."""
    module, X, y = build(name, 30)
    weights, frozen = [], [p.clone() for p in module.parameters() if not p.requires_grad]
    for path in ("auto", "functional"):
        module = build(name, 30)[0]
        plan = TrainingPlan(30, 10, 6, 0.5, 1.0)
        engine = DPEngine(
            module, LOSS, plan, optimizer=make_optimizer("sgd", 0.1), noise_random_state=5,
            grad_path=path,
        )  # fmt: skip
        engine.run(X, y)
        assert engine.grad_path == ("ghost" if path == "auto" else path)
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)
    after = [p for p in module.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))


def test_no_gradient_is_formed_by_autograd_and_nothing_stays_behind():
    module, X, y = build("transformer", 8)
    path = GhostPath(module, LOSS)
    path.sums(X, y, torch.arange(8), 1.0, GUARD)
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(not m._forward_hooks and not m._backward_hooks for m in module.modules())


def test_per_record_gradients_of_wide_layers_are_never_held():
    """Memory by structure: no tensor of records times weights where inner products are chosen."""
    module, X, y = build("wide", 30)
    path = GhostPath(module, LOSS)
    path.prepare(X)
    output, recorder = path._forward(X)
    torch.autograd.grad(output, recorder.anchor, torch.ones_like(output), allow_unused=True)
    kinds = {type(u).__name__ for uses in recorder.uses.values() for u in uses}
    assert "Sequence" in kinds and "Dense" in kinds
    held = [u for uses in recorder.uses.values() for u in uses if type(u).__name__ == "Dense"]
    assert max(u.dense().shape[1] for u in held) <= 90
    assert np.isfinite(path.sums(X, y, torch.arange(30), 1.0, 0.0).norms.numpy()).all()
    assert isinstance(OpacusPath, type)


# -- with what else the engine offers --------------------------------------------------------
@pytest.mark.parametrize("path", ["ghost", "opacus"])
def test_groups_of_parameters_are_clipped_as_on_the_functional_path(path):
    from privfair.training._clip_rules import PerLayerClipping

    module, X, y = build("transformer, norm first, bare positions", 7)
    rule = PerLayerClipping().rule(module, 0.5)
    want = FunctionalPath(module, LOSS).sums(X, y, torch.arange(7), rule, GUARD)
    chosen = choose_path(path, module, LOSS)
    chosen.prepare(X)
    got = chosen.sums(X, y, torch.arange(7), rule, GUARD)
    torch.testing.assert_close(got.total, want.total, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(got.norms, want.norms, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["transformer", "images", "tied embedding"])
def test_bookkeeping_in_low_precision_keeps_the_bound(name):
    module, X, y = build(name, 6)
    path = GhostPath(module, LOSS)
    path.prepare(X)
    want = path.sums(X, y, torch.arange(6), 0.5, GUARD)
    with torch.autocast("cpu", torch.bfloat16):
        low = path.sums(X, y, torch.arange(6), 0.5, GUARD)
        for i in range(6):
            alone = path.sums(X, y, torch.tensor([i]), 0.5, GUARD).total
            assert alone.norm() <= 0.5
    assert low.norms.dtype == low.total.dtype == torch.float64
    torch.testing.assert_close(low.norms, want.norms, rtol=0.1, atol=0.05)
    assert (low.total - want.total).norm() < 0.2 * want.total.norm()
