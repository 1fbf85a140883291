"""The decomposition on tensors: equal values, gradients by differences, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    ProbabilityRangeError,
    SchemaError,
)
from privfair.fairness.pid import influence, pid_from_joint, pid_torch
from privfair.fairness.pid._exact import exact_dual
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
