"""Local hashing on a torch device: the same integers as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.core.exceptions import InvalidParameterError, MissingDependencyError
from privfair.core.randomness import secret_stream
from privfair.ldp import BLH, GRR, LOLOHA, OLH, Aggregator, randomize
from privfair.ldp._hashing import support_of_hashes
from privfair.ldp._hashing_device import support_on_device

torch = pytest.importorskip("torch")


def compare(device: str, k: int, g: int, n: int, seed: int) -> None:
    stream = secret_stream(seed)
    seeds = stream.uint64(n)
    buckets = (stream.uint64(n) % np.uint64(g)).astype(np.uint8)
    found = support_on_device(seeds, buckets, k, g, torch.device(device))
    assert found.dtype == np.int64
    assert (found == support_of_hashes(seeds, buckets, k, g)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 700), st.integers(2, 256), st.integers(0, 300), st.integers(0, 99))
def test_sums_are_the_same_bit_for_bit(k: int, g: int, n: int, seed: int) -> None:
    compare("cpu", k, g, n, seed)


def test_over_several_tiles_and_with_64_bits() -> None:
    compare("cpu", 300, 4, 70_000, 1)
    compare("cpu", (1 << 16) + 200, 5, 40, 2)
    compare("cpu", 1 << 16, 3, 40, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("k", [300, 1 << 16, (1 << 16) + 200])
def test_sums_on_a_gpu_are_those_of_the_cpu(k: int) -> None:
    compare("cuda", k, 4, 5_000, 4)


@pytest.mark.parametrize("protocol", [OLH(40, 1.0), BLH(9, 2.0), GRR(5, 1.0)])
def test_an_aggregator_adds_up_on_its_device(protocol, monkeypatch) -> None:
    reports = randomize(protocol, np.arange(500) % protocol.k, noise_random_state=0)
    used = []
    monkeypatch.setattr(
        "privfair.core.device.resolve_device",
        lambda name: used.append(name) or torch.device("cpu"),
    )
    there = Aggregator(protocol, device="auto").partial_fit(reports)
    assert there == Aggregator(protocol).partial_fit(reports)
    assert len(used) == (1 if isinstance(protocol, GRR) else 2)


def test_longitudinal_hashing_has_the_same_sums() -> None:
    protocol = LOLOHA(30, 2.0, 1.0)
    stream = secret_stream(5)
    payload = {
        "seed": stream.uint64(200),
        "bucket": (stream.uint64(200) % np.uint64(protocol.g_)).astype(np.uint8),
    }
    found = support_on_device(
        payload["seed"], payload["bucket"], 30, protocol.g_, torch.device("cpu")
    )
    assert (found == protocol.tally(payload)).all()


def test_a_device_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(InvalidParameterError, match="device"):
        Aggregator(OLH(4, 1.0), device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependencyError, match="CUDA"):
            Aggregator(OLH(4, 1.0), device="cuda")
