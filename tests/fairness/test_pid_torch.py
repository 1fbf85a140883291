"""The decomposition on tensors: equal values, gradients by differences, errors."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import privfair.fairness.pid._newton as newton_module
from privfair.core.exceptions import (
    ConvergenceWarning,
    InvalidParameterError,
    InvalidTypeError,
    ProbabilityRangeError,
    SchemaError,
)
from privfair.fairness.pid import influence, pid_from_joint, pid_torch
from privfair.fairness.pid._exact import exact_dual
from privfair.fairness.pid._newton import Solution, newton
from privfair.fairness.pid._tensors import exact_dual_of
from tests.fairness.pid_tables import random_tables

PARTS = ("unique", "redundant", "masked", "unique_client", "global_disparity", "local_disparity")


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 4, 7), (2, 2, 50), (2, 1, 3), (3, 3, 4)])
@pytest.mark.filterwarnings("ignore:P holds one decision")
def test_tensors_give_what_arrays_give(shape: tuple[int, int, int]) -> None:
    P = random_tables(np.random.default_rng(0), shape, 10, zeros=0.4).reshape(2, 5, *shape)
    expected = pid_from_joint(P)
    tensors = pid_torch(torch.from_numpy(P))
    for name in PARTS:
        assert getattr(tensors, name).shape == (2, 5)
        assert getattr(tensors, name).numpy() == pytest.approx(getattr(expected, name), abs=1e-7)
    for source, kwargs in ((torch.from_numpy(P), {}), (P, {"backend": "torch", "device": "cpu"})):
        result = pid_from_joint(source, **kwargs)
        for name in PARTS:
            assert getattr(result, name) == pytest.approx(getattr(expected, name), abs=1e-7)
        assert isinstance(result.unique, np.ndarray)


def test_multipliers_on_tensors_are_those_of_arrays() -> None:
    P = random_tables(np.random.default_rng(1), (2, 3, 6), 20, zeros=0.4)
    zy, zs = P.sum(3), P.sum(2)
    for one, other in zip(
        exact_dual(zy, zs), exact_dual_of(torch.from_numpy(zy), torch.from_numpy(zs)), strict=True
    ):
        assert np.array_equal(np.isinf(one), np.isinf(other.numpy()))
        inner = np.isfinite(one)
        assert other.numpy()[inner] == pytest.approx(one[inner], abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 4, 3)])
def test_gradients_by_differences_off_the_kinks(shape: tuple[int, int, int]) -> None:
    P = random_tables(np.random.default_rng(2), shape, 3, concentration=5.0, signal=0.3)
    leaf = torch.from_numpy(P).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: tuple(pid_torch(p)), (leaf,))


@pytest.mark.parametrize("shape", [(3, 2, 3), (4, 3, 2)])
def test_gradients_by_differences_for_more_groups(shape: tuple[int, int, int]) -> None:
    """Differences of a value that is certified to 1e-8 need a wide step, and a tolerance."""
    P = random_tables(np.random.default_rng(2), shape, 2, concentration=5.0, signal=0.3)
    leaf = torch.from_numpy(P).log().flatten(1).requires_grad_()

    def parts(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(pid_torch(logits.softmax(dim=1).reshape(-1, *shape)))

    assert torch.autograd.gradcheck(parts, (leaf,), eps=1e-3, atol=2e-4, fast_mode=True)


def sixty_tables() -> list[np.ndarray]:
    rng = np.random.default_rng(20)
    return [
        random_tables(rng, shape, 20, zeros=0.4, concentration=0.5)
        for shape in [(3, 3, 4), (3, 4, 8), (4, 3, 5)]
    ]


def test_newton_on_tensors_is_newton_on_arrays() -> None:
    for P in sixty_tables():
        zy, zs = P.sum(3), P.sum(2)
        one = newton(zy, zs, tol=1e-8, xp=np)
        other = newton(torch.from_numpy(zy), torch.from_numpy(zs), tol=1e-8, xp=torch)
        assert (one.gap <= 1e-8).all() and (other.gap <= 1e-8).all()
        assert other.value.numpy() == pytest.approx(one.value, abs=1e-9, rel=0)
        inner = np.isfinite(one.alpha)
        assert np.array_equal(inner, np.isfinite(other.alpha.numpy()))
        parts = pid_torch(torch.from_numpy(P))
        exact = pid_from_joint(P, tol=1e-8 / math.log(2))
        for name in PARTS:
            assert getattr(parts, name).numpy() == pytest.approx(getattr(exact, name), abs=2e-9)
        assert (parts.certificate_gap <= 1e-8 / math.log(2)).all()


class Transfers(TorchDispatchMode):
    """Count what a device would have to wait for: numbers and shapes that the host reads."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func.overloadpacket).removeprefix("aten.")
        if name in {"_local_scalar_dense", "nonzero", "_unique2", "masked_select", "equal"}:
            self.seen[name] += 1
        if name == "index" and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        ):  # its shape is known to the host only after the fact
            self.seen["mask"] += 1
        return func(*args, **(kwargs or {}))


def test_a_newton_step_tells_the_host_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    original = newton_module._direction

    def counted(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        return original(*args)

    monkeypatch.setattr(newton_module, "_direction", counted)
    P = torch.from_numpy(sixty_tables()[0][:2])
    with Transfers() as transfers:
        newton(P.sum(3), P.sum(2), tol=1e-2, xp=torch)
    assert steps > 3
    assert transfers.seen == {"_local_scalar_dense": steps + 1}


def test_a_batch_may_hold_tables_of_two_groups_and_ones_that_newton_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(21)
    pair = random_tables(rng, (2, 3, 4), 1)[0]
    P = random_tables(rng, (3, 3, 4), 3)
    P[1] = 0.0
    P[1, ::2] = pair
    expected = pid_from_joint(P, tol=1e-8)
    leaf = torch.from_numpy(P).requires_grad_()
    parts = pid_torch(leaf)
    assert float(parts.certificate_gap[1]) < 1e-12
    assert parts.unique.detach().numpy() == pytest.approx(expected.unique, abs=2e-8)
    assert parts.unique.detach()[1].item() == pytest.approx(expected.unique[1], abs=1e-14)
    parts.unique.sum().backward()
    rows = influence(P, expected)["unique"][1]
    assert leaf.grad is not None
    assert leaf.grad[1, ::2].numpy() == pytest.approx(rows[::2], abs=1e-9)

    monkeypatch.setattr(newton_module, "_STEPS", 3)
    again = pid_torch(torch.from_numpy(P))  # the cone program answers
    assert (again.certificate_gap < 1e-7).all()
    assert again.unique.numpy() == pytest.approx(expected.unique, abs=1e-7)
    with monkeypatch.context() as patch:
        patch.setattr("privfair.fairness.pid._cone.cone", lambda zy, zs, tol: _useless(zy, zs))
        with pytest.warns(ConvergenceWarning, match="certificate_gap exceeds"):
            rough = pid_torch(torch.from_numpy(P))
    error = (rough.unique - again.unique).abs()
    assert (error <= rough.certificate_gap + 1e-7).all() and rough.certificate_gap[0] > 1e-7


def _useless(zy: np.ndarray, zs: np.ndarray) -> Solution:
    return Solution(np.zeros(len(zy)), np.full(len(zy), np.inf), 0 * zy, 0 * zs)


def test_one_singular_system_does_not_spoil_a_batch() -> None:
    system = np.stack([np.eye(2), np.ones((2, 2)), 2 * np.eye(2)])
    right = np.ones((3, 2, 1))
    for xp in (np, torch):
        put = [a if xp is np else torch.from_numpy(a) for a in (system, right)]
        found = np.asarray(newton_module._solver(put[0], xp)(put[1]))
        assert np.isnan(found[1]).all()
        assert found[[0, 2], :, 0].tolist() == [[1, 1], [0.5, 0.5]]


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 3, 3)])
def test_the_gradient_is_the_influence_function(shape: tuple[int, int, int]) -> None:
    P = random_tables(np.random.default_rng(3), shape, 4, zeros=0.2, signal=0.5)
    rows = influence(P, pid_from_joint(P, tol=1e-8))
    for name in PARTS:
        leaf = torch.from_numpy(P).requires_grad_()
        getattr(pid_torch(leaf), name).sum().backward()
        seen = P > 0
        assert leaf.grad is not None
        assert leaf.grad.numpy()[seen] == pytest.approx(rows[name][seen], abs=1e-4)
        assert torch.isfinite(leaf.grad).all()


def test_single_precision_is_computed_in_double() -> None:
    P = torch.from_numpy(random_tables(np.random.default_rng(4), (2, 2, 4), 3)).float()
    leaf = P.requires_grad_()
    parts = pid_torch(leaf)
    assert parts.unique.dtype == torch.float64
    parts.unique.sum().backward()
    assert leaf.grad is not None and leaf.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("P", "error", "words"),
    [
        (np.full((2, 2, 2), 0.125), InvalidTypeError, "tensor"),
        (torch.ones((2, 2, 2), dtype=torch.int64), InvalidTypeError, "floating"),
        (torch.full((2, 2), 0.25), SchemaError, "shape"),
        (torch.full((2, 2, 2), torch.nan), ProbabilityRangeError, "finite"),
        (torch.full((2, 2, 2), 0.2), ProbabilityRangeError, "sum to 1"),
        (torch.tensor([[[0.6, 0.6]], [[-0.1, -0.1]]]), ProbabilityRangeError, "at least 0"),
    ],
)
def test_bad_tensors_are_refused(P: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pid_torch(P)  # type: ignore[arg-type]


def test_unknown_devices_are_refused() -> None:
    P = np.full((2, 2, 2), 0.125)
    with pytest.raises(InvalidParameterError, match="device"):
        pid_from_joint(P, device="tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", [(2, 3, 20), (3, 4, 5)])
def test_a_cuda_device_gives_the_same(shape: tuple[int, int, int]) -> None:
    P = random_tables(np.random.default_rng(5), shape, 50, zeros=0.3)
    expected, result = pid_from_joint(P), pid_from_joint(P, device="cuda")
    leaf = torch.from_numpy(P).cuda().requires_grad_()
    parts = pid_torch(leaf)
    parts.masked.sum().backward()
    for name in PARTS:
        assert getattr(result, name) == pytest.approx(getattr(expected, name), abs=1e-7)
        assert getattr(parts, name).detach().cpu().numpy() == pytest.approx(
            getattr(expected, name), abs=1e-7
        )
    assert leaf.grad is not None and leaf.grad.is_cuda and torch.isfinite(leaf.grad).all()
    host = torch.from_numpy(P).requires_grad_()
    there, here = pid_torch(torch.from_numpy(P).cuda()), pid_torch(host)
    here.masked.sum().backward()
    assert host.grad is not None
    assert torch.allclose(leaf.grad.cpu(), host.grad, atol=1e-4)
    assert there.certificate_gap.is_cuda
    assert torch.allclose(there.unique.cpu(), here.unique, atol=2e-9, rtol=0)
