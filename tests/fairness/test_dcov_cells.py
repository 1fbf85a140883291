"""The cells path: exact, with an exact gradient, and blind to how it is cut into chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privfair.core.exceptions import DataError, InvalidParameterError, LengthMismatchError
from privfair.fairness.dcov import AttributeEncoder, cell_kernel, cells_dcov_sq, pool_small_cells
from privfair.fairness.dcov import _cells as module
from privfair.fairness.dcov._kernels import balanced_shares

KINDS = ["ccdcov", "jdcov", "pairwise", "cells"]


def rows(n: int = 60, *, ties: bool = False, seed: int = 0):
    rng = np.random.default_rng(seed)
    S = {"race": np.array(["a", "b", "c"])[rng.integers(0, 3, n)], "sex": rng.integers(0, 2, n)}
    f = rng.normal(size=n) + 0.7 * (S["race"] == "a") * S["sex"]
    encoder = AttributeEncoder().fit(S)
    return np.round(f, 1) if ties else f, encoder


def brute(f: torch.Tensor, W: torch.Tensor, estimator: str) -> torch.Tensor:
    """The n x n definition: centred distances of the scores against a kernel."""
    n = len(f)
    a = (f[:, None] - f[None, :]).abs()
    if estimator == "v":
        U = a.mean(0)[None] + a.mean(1)[:, None] - a - a.mean()
        return (U * W).sum() / n**2
    U = a.sum(0)[None] / (n - 2) + a.sum(1)[:, None] / (n - 2) - a - a.sum() / ((n - 1) * (n - 2))
    return (U * W * (1 - torch.eye(n, dtype=f.dtype))).sum() / (n * (n - 3))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("estimator", ["u", "v"])
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_are_those_of_the_definition(kind, estimator, ties) -> None:
    f, encoder = rows(ties=ties)
    g = encoder.cell_of_
    kernel = cell_kernel(
        kind, encoder.cell_distances(), counts=np.bincount(g), estimator=estimator, c=0.7
    )
    a, b = (torch.tensor(f, requires_grad=True) for _ in range(2))
    fast = cells_dcov_sq(a, g, kernel, estimator=estimator)
    slow = brute(b, torch.tensor(kernel[g][:, g]), estimator)
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-9, abs=1e-15)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-15)
    assert cells_dcov_sq(f, g, kernel, estimator=estimator) == pytest.approx(fast.item(), 1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5])
@pytest.mark.parametrize("estimator", ["u", "v"])
def test_balanced_form_is_the_weighted_definition(estimator: str, tau: float) -> None:
    f, encoder = rows(80, seed=3)
    g = encoder.cell_of_
    counts = np.bincount(g)
    kernel = cell_kernel("ccdcov", encoder.cell_distances())
    omega = balanced_shares(counts, tau)
    v = (omega / counts)[g]
    a = np.abs(f[:, None] - f[None, :])
    K = kernel - (kernel @ omega)[:, None] - (omega @ kernel)[None, :] + omega @ kernel @ omega
    pairs = v[:, None] * v[None, :] * K[g][:, g]
    if estimator == "u":  # pairs of one cell: mean over i != j
        same = g[:, None] == g[None, :]
        pairs = np.where(same, pairs * (counts / (counts - 1))[g][:, None], pairs)
    expected = -(pairs * a).sum()
    got = cells_dcov_sq(f, g, kernel, estimator=estimator, group_weighting=tau)
    assert got == pytest.approx(expected, rel=1e-9)
    t = torch.tensor(f, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: cells_dcov_sq(x, g, kernel, estimator=estimator, group_weighting=tau), (t,)
    )


def test_balanced_v_is_dcov_of_the_replicated_rows() -> None:
    """Cells of 2 and 6 records, replicated 3 and 1 times, are cells of equal shares."""
    f = np.random.default_rng(1).normal(size=8)
    g = np.array([0, 0, 1, 1, 1, 1, 1, 1])
    kernel = cell_kernel("ccdcov", [np.array([[0.0, 1.0], [1.0, 0.0]])])
    again = np.concatenate([f[:2], f[:2], f])
    codes = np.concatenate([g[:2], g[:2], g])
    assert cells_dcov_sq(f, g, kernel, estimator="v", group_weighting=0) == pytest.approx(
        cells_dcov_sq(again, codes, kernel, estimator="v")
    )
    weight = np.where(g == 0, 3.0, 1.0)
    assert cells_dcov_sq(f, g, kernel, estimator="v", sample_weight=weight) == pytest.approx(
        cells_dcov_sq(again, codes, kernel, estimator="v")
    )


@pytest.mark.parametrize("ties", [False, True])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, ties: bool) -> None:
    rng = np.random.default_rng(5)
    n, cells = 6000, 7
    f = rng.normal(size=n)
    f = np.round(f, 3) if ties else f
    g = rng.integers(0, cells, n)
    kernel = cell_kernel("ccdcov", [1.0 - np.eye(cells)])
    found = []
    for size in (1 << 20, 7 * 1024):
        monkeypatch.setattr(module, "_CHUNK", size)
        t = torch.tensor(f, requires_grad=True)
        value = cells_dcov_sq(t, g, kernel)
        value.backward()
        found.append((value.detach(), t.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-17)


@pytest.mark.parametrize("weighted", [False, True])
def test_an_accelerator_s_form_is_the_processor_s(
    monkeypatch: pytest.MonkeyPatch, weighted: bool
) -> None:
    """The two ways to collect the sums agree, cut into chunks or not."""
    rng = np.random.default_rng(5)
    cell = torch.tensor(rng.integers(0, 4, 3000))
    mass = torch.tensor(rng.random(3000)) if weighted else None
    root, sign, line = rng.normal(size=(3, 4)), np.array([1.0, 1.0, -1.0]), rng.normal(size=4)
    own = None if mass is None else mass.numpy()
    whole = module._levels_on_cpu(cell.numpy(), own, root, sign, line)
    for size in (1 << 20, 3 * 1024):
        monkeypatch.setattr(module, "_CHUNK", size)
        there = module._levels_on_device(cell, mass, root, sign, line)
        np.testing.assert_allclose(there.numpy(), whole, rtol=1e-9, atol=1e-9)
        again = module._levels_on_cpu(cell.numpy(), own, root, sign, line)
        np.testing.assert_allclose(again, whole, rtol=1e-9, atol=1e-9)


def test_float32_and_a_large_offset_keep_their_digits() -> None:
    f, encoder = rows(500)
    kernel = cell_kernel("ccdcov", encoder.cell_distances())
    g = encoder.cell_of_
    exact = cells_dcov_sq(f, g, kernel)
    single = cells_dcov_sq(torch.tensor(f, dtype=torch.float32), g, kernel)
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(exact, rel=1e-4)
    assert cells_dcov_sq(f + 1e6, g, kernel) == pytest.approx(exact, rel=1e-7)


def test_pooled_cells_are_the_mean_of_their_members() -> None:
    f, encoder = rows(200, seed=2)
    g = encoder.cell_of_
    kernel = cell_kernel("ccdcov", encoder.cell_distances())
    codes, pooled_kernel, pooled = pool_small_cells(g, kernel, min_cell=32)
    assert pooled and codes.max() == len(pooled_kernel) - 1
    assert np.bincount(codes)[:-1].min() >= 32
    # merging cells cannot create dependence: the pooled kernel is still conditionally positive
    value = cells_dcov_sq(f, codes, pooled_kernel, estimator="v")
    assert 0 <= value <= cells_dcov_sq(f, g, kernel, estimator="v")


def test_a_cell_that_does_not_occur_changes_nothing() -> None:
    f, encoder = rows()
    kernel = cell_kernel("ccdcov", encoder.cell_distances())
    larger = np.pad(kernel, ((0, 1), (0, 1)), constant_values=-3.0)
    for tau in (0.0, 1.0):
        a = cells_dcov_sq(f, encoder.cell_of_, kernel, estimator="v", group_weighting=tau)
        b = cells_dcov_sq(f, encoder.cell_of_, larger, estimator="v", group_weighting=tau)
        assert a == pytest.approx(b, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"pred": [0.0, np.nan, 1.0, 2.0]}, DataError),
        ({"pred": [0.0, 1.0, 2.0]}, LengthMismatchError),
        ({"codes": [0, 1, 2, 1]}, DataError),
        ({"codes": [0, 1, -1, 1]}, DataError),
        ({"codes": [0.0, 1.0, 1.0, 1.0]}, DataError),
        ({"kernel": np.eye(3)[:2]}, DataError),
        ({"estimator": "w"}, InvalidParameterError),
        ({"group_weighting": 1.5}, InvalidParameterError),
        ({"sample_weight": [1.0, 1.0, 1.0, 1.0]}, InvalidParameterError),
        ({"sample_weight": [1.0, -1.0, 1.0, 1.0], "estimator": "v"}, DataError),
    ],
)
def test_bad_input_is_refused(change: dict, error: type[Exception]) -> None:
    given = {"pred": [0.0, 1.0, 2.0, 3.0], "codes": [0, 1, 0, 1], "kernel": np.eye(2)} | change
    args = (given.pop("pred"), given.pop("codes"), given.pop("kernel"))
    with pytest.raises(error):
        cells_dcov_sq(*args, **given)


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match="at least 4"):
        cells_dcov_sq([0.0, 1.0, 2.0], [0, 1, 0], np.eye(2))
    assert cells_dcov_sq([0.0, 1.0, 2.0], [0, 1, 0], np.eye(2), estimator="v") >= 0
