"""Tensors: what a mechanism is given as one it answers as one, on every device, equally exact."""

from __future__ import annotations

import numpy as np
import pytest

from privfair.accounting import Ledger
from privfair.core.exceptions import InvalidTypeError
from privfair.mechanisms import (
    DiscreteGaussianMechanism,
    DiscreteLaplaceMechanism,
    DPCount,
    DPCovariance,
    DPHistogram,
    DPMean,
    DPQuantile,
    DPSetDiscovery,
    DPSum,
    DPVariance,
    ExponentialMechanism,
    HardenedGaussian,
    PermuteAndFlip,
)

torch = pytest.importorskip("torch")

REAL = {"granularity": 2.0**-10, "query": "real", "size": 3}
FLOATS = [0.5, 0.25, 0.75]
CASES = {
    "integer gaussian": (lambda **k: DiscreteGaussianMechanism(3.0, size=3, **k), [1, 2, 3]),
    "real gaussian": (lambda **k: DiscreteGaussianMechanism(3.0, **REAL, **k), FLOATS),
    "real laplace": (lambda **k: DiscreteLaplaceMechanism(3.0, **REAL, **k), FLOATS),
    "count": (lambda **k: DPCount(epsilon=1, **k), FLOATS),
    "sum": (lambda **k: DPSum(0, 1, epsilon=1, **k), FLOATS),
    "mean": (lambda **k: DPMean(0, 1, epsilon=1, **k), FLOATS),
    "variance": (lambda **k: DPVariance(0, 1, rho=1, neighboring="add_remove", **k), FLOATS),
    "covariance": (lambda **k: DPCovariance(2, 1, rho=1, **k), [FLOATS[:2], FLOATS[1:]]),
    "histogram": (lambda **k: DPHistogram({"a": [0, 1]}, epsilon=1, **k), [[0], [1], [1]]),
    "quantile": (lambda **k: DPQuantile([0.2, 0.5], 0, 1, 1.0, **k), FLOATS),
    "hardened": (lambda **k: HardenedGaussian(1.0, 1.0, 3, **k), FLOATS),
    "exponential": (lambda **k: ExponentialMechanism(3, 1.0, **k), FLOATS),
    "permute": (lambda **k: PermuteAndFlip(3, 1.0, **k), FLOATS),
}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]
everything = pytest.mark.parametrize("name", CASES)
devices = pytest.mark.parametrize("device", DEVICES)


@devices
@everything
def test_a_tensor_is_answered_by_a_tensor_of_the_same_numbers(name, device):
    make, value = CASES[name]
    plain = make(noise_random_state=3).release(np.array(value))
    tensor = torch.tensor(value, device=device)
    found = make(noise_random_state=3).release(tensor)
    assert isinstance(found, torch.Tensor)
    assert found.device.type == device
    assert np.array_equal(found.cpu().numpy(), np.asarray(plain))
    assert found.dtype in (torch.float64, torch.int64)
    assert np.array_equal(tensor.cpu().numpy(), np.array(value, dtype=tensor.cpu().numpy().dtype))


@devices
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "bool"])
def test_every_dtype_is_read_exactly(dtype, device):
    made = DiscreteGaussianMechanism(1e-6, granularity=2.0**-30, query="real", size=2)
    tensor = torch.tensor([1, 0], dtype=getattr(torch, dtype), device=device)
    assert made.release(tensor).tolist() == pytest.approx([1, 0], abs=1e-4)


@devices
def test_parameters_that_require_a_gradient_are_read_without_it(device):
    weights = torch.nn.Parameter(torch.zeros(3, device=device))
    found = DiscreteGaussianMechanism(3.0, **REAL).release(weights)
    assert not found.requires_grad
    assert weights.grad is None


@devices
def test_names_stay_names(device):
    tensor = torch.tensor([7.0] * 500, device=device)
    assert list(DPSetDiscovery(1.0, 1e-9).release(tensor)) == [7]
    scores = torch.tensor([9, 0], device=device)
    assert ExponentialMechanism(["a", "b"], 100.0).release(scores) == "a"
    estimate = DPMean(0, 10, epsilon=1).estimate(tensor)
    assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3).to_sparse(),
        lambda: torch.zeros(3, dtype=torch.complex64),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "complex", "quantised"],
)
def test_other_tensors_are_refused_before_the_charge(make):
    import warnings

    ledger = Ledger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of quantised tensors
        tensor = make()
    with pytest.raises(InvalidTypeError, match="dense tensor of real numbers"):
        DiscreteGaussianMechanism(3.0, **REAL).release(tensor, ledger=ledger)
    assert not list(ledger.entries())


@devices
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_noise_is_the_same_on_every_device(dtype, device):
    start = torch.linspace(-3, 3, 1001, dtype=getattr(torch, dtype))
    made = [HardenedGaussian(2.0, 1.0, 1001, noise_random_state=3) for _ in range(2)]
    assert {m.numerics for m in made} == {"hardened"}
    reference = made[0].add_(start.numpy().copy())
    buffer = start.clone().to(device)
    assert made[1].add_(buffer) is buffer
    assert np.array_equal(buffer.cpu().numpy(), reference)


def test_arrays_do_not_load_torch():
    import subprocess
    import sys

    code = (
        "import sys; from privfair.mechanisms import *; "
        "DPMean(0, 1, epsilon=1).release([0.5]); ExponentialMechanism(2, 1).release([1, 2]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=800)
