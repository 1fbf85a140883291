"""Training noise: grid, sensitivity, distance from a Gaussian, keys."""

from __future__ import annotations

import math
import os
import types
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, LengthMismatchError
from privfair.core.randomness import secret_stream
from privfair.mechanisms import (
    HardenedGaussian,
    hardened_distance,
    hardened_extra_delta,
    summation_error,
)
from privfair.mechanisms import _hardened as module
from privfair.mechanisms._lattice import GaussianLaw, table_sampler
from privfair.mechanisms._sampling import BitSource


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_output_is_on_the_grid_and_shares_memory(dtype, kind):
    mechanism = HardenedGaussian(1.3, bound=0.5, size=257, noise_random_state=1)
    array = (np.linspace(-40, 40, 257) * 1.0003).astype(dtype)
    buffer = array
    if kind == "torch":
        torch = pytest.importorskip("torch")
        buffer = torch.from_numpy(array)
    assert mechanism.add_(buffer) is buffer
    steps = array.astype(np.float64) / mechanism.grid
    assert np.array_equal(steps, np.rint(steps))
    assert math.log2(mechanism.grid) == int(math.log2(mechanism.grid))
    assert not np.array_equal(array, (np.linspace(-40, 40, 257) * 1.0003).astype(dtype))


def test_seeded_runs_agree_across_families_and_unseeded_runs_differ():
    torch = pytest.importorskip("torch")
    results = []
    for make in (np.zeros, torch.zeros):
        mechanism = HardenedGaussian(1.0, 1.0, 50, noise_random_state=5)
        assert mechanism.seeded
        results.append(np.asarray(mechanism.add_(make(50))).astype(np.float32))
    assert np.array_equal(*results)
    secret = [HardenedGaussian(1.0, 1.0, 50).add_(np.zeros(50)) for _ in range(2)]
    assert not np.array_equal(*secret)


def plain_noise(mechanism, stream):
    """One release as one reads it: a new key, one draw under it, nothing early."""
    bits = 15 if mechanism.size >= 4_096 else 14
    return table_sampler(GaussianLaw(Fraction(mechanism._ratio) ** 2), bits).draw(
        mechanism.size, BitSource(stream.generator().bit_generator.random_raw)
    )


# 4 and 210: several releases in one pass. 5,000: one by one. 40,000: in several chunks.
SIZES = [(4, 300), (210, 200), (5_000, 12), (40_000, 6)]


@pytest.mark.parametrize(("size", "releases"), SIZES)
def test_noise_drawn_early_is_the_plain_noise_bit_for_bit(size, releases):
    mechanism = HardenedGaussian(1.3, 1.0, size, noise_random_state=9)
    stream = secret_stream(9)
    for _ in range(releases):
        assert np.array_equal(mechanism.noise(), plain_noise(mechanism, stream))


@pytest.mark.parametrize(("size", "releases"), SIZES)
def test_every_release_has_a_new_key(monkeypatch, size, releases):
    mechanism = HardenedGaussian(1.0, 1.0, size)
    keys = []
    real = mechanism._stream.generator

    def spy():
        generator = real()
        keys.append(generator.bit_generator.state["state"]["key"].copy())
        return generator

    monkeypatch.setattr(mechanism._stream, "generator", spy)
    noise = [mechanism.noise() for _ in range(releases)]
    assert {len(key) for key in keys} == {2}  # 128 bits
    assert len({tuple(key.tolist()) for key in keys}) == len(keys) >= releases
    for i in {0, 1, 2, releases // 2, releases - 1}:  # release i is drawn under key i alone
        generator = types.SimpleNamespace(
            generator=lambda key=keys[i]: np.random.Generator(np.random.Philox(key=key))
        )
        assert np.array_equal(noise[i], plain_noise(mechanism, generator))


def test_little_is_drawn_before_it_is_asked_for(monkeypatch):
    for size, most in ((4, 64), (210, 38), (5_000, 0)):
        mechanism = HardenedGaussian(1.0, 1.0, size)
        drawn = []
        real = mechanism._stream.generator
        monkeypatch.setattr(
            mechanism._stream,
            "generator",
            lambda real=real, drawn=drawn: drawn.append(0) or real(),
        )
        for i in range(1, 130):
            mechanism.noise()
            assert len(drawn) - i <= (0 if i <= 2 else most)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("size", [8, 5_000])
@pytest.mark.parametrize("before", [1, 7])
def test_a_fork_draws_other_noise(size, before):
    mechanism = HardenedGaussian(1.0, 1.0, size)
    for _ in range(before):
        mechanism.noise()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(5):
                os.write(write, mechanism.noise()[:8].tobytes())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    theirs = {os.read(read, 64) for _ in range(5)}
    ours = {mechanism.noise()[:8].tobytes() for _ in range(20)}
    assert len(theirs) == 5 and len(ours) == 20
    assert not theirs & ours


@pytest.mark.parametrize("size", [16, 5_000])
def test_threads_are_never_given_the_same_noise(size):
    mechanism = HardenedGaussian(1.0, 1.0, size)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: mechanism.noise()[:4].tobytes(), range(400)))
    assert len(set(seen)) == 400


@pytest.mark.parametrize("size", [1, 210, 21_000])
@pytest.mark.parametrize("noise_multiplier", [0.05, 1.0, 60.0])
def test_widening_is_small_and_the_ratio_is_large(size, noise_multiplier):
    mechanism = HardenedGaussian(noise_multiplier, bound=3.0, size=size)
    assert mechanism.sensitivity >= 3.0 + mechanism.grid * math.sqrt(size)
    assert mechanism.sensitivity <= 3.0 * (1 + 2.0**-13 + 1e-12)
    assert mechanism.sigma >= noise_multiplier * mechanism.sensitivity
    assert mechanism.sigma / mechanism.grid >= 2.0**26


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    data=st.data(),
)
def test_rounded_neighbours_stay_within_the_widened_bound(values, data):
    size = len(values)
    mechanism = HardenedGaussian(1.0, bound=1.0, size=size, noise_random_state=0)
    direction = np.array(
        data.draw(st.lists(st.floats(-1, 1), min_size=size, max_size=size)), dtype=float
    )
    direction /= max(1.0, float(np.linalg.norm(direction)) * (1 + 1e-15))
    mechanism.noise = lambda: np.zeros(size, dtype=np.int64)
    first = mechanism.add_(np.array(values))
    second = mechanism.add_(np.array(values) + direction)
    # 1e6 + x rounds to multiples of 2^-33, which the caller's value_error would pay for
    rounding_of_the_sum_itself = 2.0**-33 * math.sqrt(size)
    distance = np.linalg.norm(first - second)
    assert distance <= mechanism.sensitivity + rounding_of_the_sum_itself


def test_non_finite_and_huge_sums_go_to_a_bound():
    mechanism = HardenedGaussian(1.0, 1.0, 4, noise_random_state=0)
    out = mechanism.add_(np.array([np.nan, np.inf, -np.inf, 1e300]))
    limit = module._LIMIT * mechanism.grid
    assert np.isfinite(out).all()
    assert np.allclose(np.abs(out), limit, rtol=1e-3)
    torch = pytest.importorskip("torch")
    from privfair.mechanisms._torch import _perturb_on_device

    again = HardenedGaussian(1.0, 1.0, 4, noise_random_state=0)
    tensor = torch.tensor([np.nan, np.inf, -np.inf, 1e300], dtype=torch.float64)
    assert np.array_equal(_perturb_on_device(again, tensor).numpy(), out)


def test_device_path_equals_cpu_path():
    torch = pytest.importorskip("torch")
    from privfair.mechanisms._torch import _perturb_on_device

    value = np.linspace(-3, 3, 1001)
    one = HardenedGaussian(2.0, 1.0, 1001, noise_random_state=3)
    two = HardenedGaussian(2.0, 1.0, 1001, noise_random_state=3)
    assert np.array_equal(
        one.add_(value.copy()), _perturb_on_device(two, torch.from_numpy(value)).numpy()
    )


@pytest.mark.parametrize("bound", [1e-32, 1.0, 1e30])
def test_precision_of_the_buffer_changes_the_last_rounding_only(bound):
    # 1 / grid is beyond float32's range for the smallest bound.
    value = (np.linspace(-3, 3, 64) * bound).astype(np.float32)
    one = HardenedGaussian(1.0, bound, 64, noise_random_state=3).add_(value.copy())
    two = HardenedGaussian(1.0, bound, 64, noise_random_state=3).add_(value.astype(np.float64))
    assert np.isfinite(one).all()
    assert np.array_equal(one, two.astype(np.float32))


def test_zero_has_no_sign():
    mechanism = HardenedGaussian(1.0, 1.0, 2, noise_random_state=0)
    mechanism.noise = lambda: np.zeros(2, dtype=np.int64)
    out = mechanism.add_(np.array([-1e-30, 1e-30]))
    assert not np.signbit(out).any()


def _noise_p_value(mechanism, scale):
    draws = np.concatenate([mechanism.noise() for _ in range(10)]) * mechanism.grid
    return stats.kstest(draws / scale, "norm").pvalue


def test_noise_is_gaussian_of_the_stated_sigma():
    # H0: N(0, sigma^2). n = 1e6, alpha = 1e-6. Power against a scale off by 5 %: the largest
    # distance of the two distribution functions is 0.0118, 11.8 in units of 1/sqrt(n), and the
    # critical value is 2.7.
    mechanism = HardenedGaussian(1.7, bound=0.25, size=100_000, noise_random_state=11)
    assert _noise_p_value(mechanism, mechanism.sigma) > 1e-6
    assert _noise_p_value(mechanism, 1.05 * mechanism.sigma) < 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize("size", [210, 5_000])
def test_early_noise_has_the_moments_and_tails_of_a_gaussian(size):
    """1e7 draws, taken as a run takes them.

    Each statistic is standardised by its exact standard error under N(0, 1), so that a normal
    limit holds far closer than the level: 16 of them, each refused beyond 6 standard errors, a
    false alarm in 3e-8. Power: a variance off by 0.3 % is 6.7 standard errors off, a mean by
    0.002 sigma 6.3, a correlation of 0.002 between releases or neighbours 6.3.
    """
    mechanism = HardenedGaussian(1.3, 1.0, size, noise_random_state=21)
    n = 10_000_000 // size * size
    x = np.concatenate([mechanism.noise() for _ in range(n // size)]) / mechanism._ratio
    square = x * x
    scores = {
        "mean": x.mean() * math.sqrt(n),
        "variance": (square.mean() - 1) * math.sqrt(n / 2),
        "skewness": (square * x).mean() * math.sqrt(n / 15),
        "kurtosis": ((square * square).mean() - 3) * math.sqrt(n / 96),
        "neighbours": (x[1:] * x[:-1]).mean() * math.sqrt(n),
        "releases": (x[size:] * x[:-size]).mean() * math.sqrt(n - size),
    }
    for cut in (0.0, 1.0, 2.0, 3.0, 4.0):
        p = float(stats.norm.sf(cut))
        for side in (1, -1):
            share = (side * x > cut).mean()
            scores[f"beyond {side * cut:+}"] = (share - p) * math.sqrt(n / (p * (1 - p)))
    assert max(abs(v) for v in scores.values()) < 6, scores
    assert abs((0.997 * square.mean() - 1) * math.sqrt(n / 2)) > 6  # the power claimed


@pytest.mark.parametrize("ratio", [16.0, 23.7, 100.0])
def test_distance_bound_holds_per_draw(ratio):
    # The symmetrised divergence between the rounded and the discrete Gaussian, summed directly.
    k = np.arange(-int(12 * ratio), int(12 * ratio) + 1).astype(float)
    discrete = np.exp(-(k**2) / (2 * ratio**2))
    discrete /= discrete.sum()
    t, w = np.polynomial.legendre.leggauss(12)
    t, w = t / 2, w / 2
    mean = (np.cosh(np.outer(k, t) / ratio**2) * np.exp(-(t**2) / (2 * ratio**2))) @ w
    rounded = np.exp(-(k**2) / (2 * ratio**2)) / (ratio * math.sqrt(2 * math.pi)) * mean
    divergence = float(np.sum((rounded - discrete) * np.log(rounded / discrete)))
    assert 0 < divergence <= 0.0105 / ratio**4
    assert float(np.abs(rounded - discrete).sum()) / 2 <= hardened_distance(1, ratio)


def test_extra_delta_is_negligible_for_real_runs_and_grows_as_stated():
    assert hardened_extra_delta(1.0, 640, 21_000) < 1e-12
    assert hardened_extra_delta(8.0, 10_000, 1_000_000) < 1e-7
    mechanism = HardenedGaussian(1.0, 1.0, 210)
    assert mechanism.extra_delta(1.0, 640) == hardened_extra_delta(1.0, 640, 210)
    assert hardened_distance(400) == pytest.approx(2 * hardened_distance(100))


def test_summation_error_covers_adversarial_orders():
    rng = np.random.default_rng(0)
    for _ in range(20):
        terms = rng.standard_normal((500, 3)).astype(np.float32)
        norms = np.linalg.norm(terms.astype(float), axis=1, keepdims=True)
        terms = (terms / (norms * 1.001)).astype(np.float32)
        exact = np.array([math.fsum(column) for column in terms.astype(float).T])
        running = np.zeros(3, dtype=np.float32)
        for row in rng.permutation(terms):
            running = running + row
        assert np.linalg.norm(running - exact) <= summation_error(500, 1.0, "float32")


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"noise_multiplier": 0.0}, InvalidParameterError),
        ({"noise_multiplier": float("nan")}, InvalidParameterError),
        ({"bound": -1.0}, InvalidParameterError),
        ({"bound": 1e-300}, InvalidParameterError),
        ({"size": 0}, InvalidParameterError),
        ({"size": True}, InvalidTypeError),
        ({"noise_multiplier": 1e15}, InvalidParameterError),
    ],
)
def test_bad_parameters(kwargs, error):
    with pytest.raises(error):
        HardenedGaussian(**{"noise_multiplier": 1.0, "bound": 1.0, "size": 3, **kwargs})


def test_bad_buffers():
    mechanism = HardenedGaussian(1.0, 1.0, 3)
    with pytest.raises(LengthMismatchError):
        mechanism.add_(np.zeros(4))
    with pytest.raises(LengthMismatchError):
        mechanism.add_(np.zeros((3, 1)))
    with pytest.raises(InvalidTypeError):
        mechanism.add_(np.zeros(3, dtype=np.int64))
    with pytest.raises(InvalidTypeError):
        mechanism.add_([0.0, 0.0, 0.0])
    with pytest.raises(InvalidParameterError):
        summation_error(2**24, 1.0, "float32")
