"""Optimisers against torch's own, the bias correction of Adam, schedules and averages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.training import (
    CosineSchedule,
    DPEngine,
    LinearSchedule,
    StepSchedule,
    TrainingPlan,
    make_optimizer,
)
from privfair.training._averaging import make_average

from .helpers import ZeroLoss, mlp


def gradients(steps=25, size=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=g) for _ in range(steps)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (make_optimizer("sgd", 0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (
            make_optimizer("sgd", 0.1, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        ),
        (make_optimizer("adam", 0.1), lambda p: torch.optim.Adam(p, lr=0.1)),
        (
            make_optimizer("adam", 0.1, weight_decay=0.01),
            lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01),
        ),
    ],
    ids=["sgd", "momentum", "adam", "adamw"],
)
def test_optimisers_equal_those_of_torch(ours, theirs):
    theta = torch.linspace(-1, 1, 6)
    parameter = nn.Parameter(theta.clone())
    other = theirs([parameter])
    for gradient in gradients():
        ours.step(theta, gradient)
        parameter.grad = gradient.clone()
        other.step()
    torch.testing.assert_close(theta, parameter.detach(), rtol=1e-5, atol=1e-6)


def test_corrected_adam_equals_its_definition():
    """Tang et al. 2023, algorithm 1, in float64 with numpy."""
    std, rate, floor = 0.4, 0.05, 1e-8
    ours = make_optimizer("dp_adam_bc", rate)
    theta = torch.zeros(6)
    m, v, expected = np.zeros(6), np.zeros(6), np.zeros(6)
    for t, gradient in enumerate(gradients(), start=1):
        ours.observe_noise(std)
        ours.step(theta, gradient)
        g = gradient.double().numpy()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        corrected = np.maximum(v / (1 - 0.999**t) - std**2, floor)
        expected -= rate * (m / (1 - 0.9**t)) / np.sqrt(corrected)
    np.testing.assert_allclose(theta.numpy(), expected, rtol=2e-4, atol=1e-5)


def test_without_noise_corrected_adam_is_adam():
    one, two = torch.zeros(6), torch.zeros(6)
    corrected, plain = make_optimizer("dp_adam_bc", 0.1), make_optimizer("adam", 0.1)
    for gradient in gradients():
        corrected.observe_noise(0.0)
        corrected.step(one, gradient)
        plain.step(two, gradient)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


class Recorder:
    def __init__(self):
        self.stds, self.seen = [], []

    def observe_noise(self, std):
        self.stds.append(std)

    def step(self, theta, gradient):
        self.seen.append(gradient.clone().double())


@pytest.mark.statistical
def test_the_engine_tells_the_noise_that_it_adds():
    """The noise's standard deviation, as told, against what zero gradients receive.

    40,000 draws: the standard error of the ratio is 0.0035; 6 of them. Half or twice the
    standard deviation would be off by more than 100 standard errors.
    """
    recorder = Recorder()
    plan = TrainingPlan(20, 5, 100, 0.6, 1.7)
    DPEngine(mlp(399, 1), ZeroLoss(), plan, optimizer=recorder, noise_random_state=0).run(
        torch.zeros((20, 399)), torch.zeros(20)
    )
    assert set(recorder.stds) == {recorder.stds[0]}
    # Float32 blocks widen the sensitivity by 0.2 %.
    assert 1.7 * 0.6 / 5 <= recorder.stds[0] <= 1.003 * 1.7 * 0.6 / 5
    ratio = float(torch.stack(recorder.seen).std()) / recorder.stds[0]
    assert abs(ratio - 1) < 6 * 0.0035


def test_correction_restores_the_ratio_of_coordinates_under_noise():
    """With noise ten times the gradient, plain Adam moves all coordinates alike; ours does not."""
    g = torch.Generator().manual_seed(1)
    truth, std = torch.tensor([1.0, 0.02]), 3.0
    moved = {}
    for name in ("adam", "dp_adam_bc"):
        optimizer, theta = make_optimizer(name, 1e-3), torch.zeros(2)
        for _ in range(6000):
            if name == "dp_adam_bc":
                optimizer.observe_noise(std)
            optimizer.step(theta, truth + std * torch.randn(2, generator=g))
        moved[name] = float(optimizer._scale(optimizer._second / (1 - 0.999**6000))[0])
    assert moved["adam"] == pytest.approx(math.sqrt(1 + std**2), rel=0.1)  # noise and gradient
    assert moved["dp_adam_bc"] < 0.6 * moved["adam"]  # the gradient alone is 1


def test_schedules_scale_the_step():
    theta = torch.zeros(1)
    optimizer = make_optimizer("sgd", 1.0, schedule=StepSchedule(2, 0.5))
    at = []
    for _ in range(5):
        before = theta.clone()
        optimizer.step(theta, torch.ones(1))
        at.append(float(before - theta))
    assert at == [1.0, 1.0, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("kind", [CosineSchedule, LinearSchedule])
def test_schedules_start_at_one_and_end_at_final(kind):
    schedule = kind(50, warmup=5, final=0.1)
    values = [schedule(t) for t in range(51)]
    assert values[5] == 1.0 and values[50] == pytest.approx(0.1)
    assert all(0 < v <= 1 for v in values)
    assert all(a >= b for a, b in zip(values[5:], values[6:], strict=False))
    assert all(a < b for a, b in zip(values[:5], values[1:6], strict=False))
    for bad in ({"warmup": 50}, {"final": 1.5}, {"final": -0.1}):
        with pytest.raises(InvalidParameterError):
            kind(50, **bad)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"name": "adagrad", "lr": 1.0}, InvalidParameterError),
        ({"name": "sgd", "lr": 0.0}, InvalidParameterError),
        ({"name": "sgd", "lr": 1.0, "momentum": 1.0}, InvalidParameterError),
        ({"name": "sgd", "lr": 1.0, "weight_decay": -1.0}, InvalidParameterError),
        ({"name": "sgd", "lr": 1.0, "schedule": 3}, InvalidTypeError),
    ],
)
def test_bad_settings_are_refused(kwargs, error):
    with pytest.raises(error):
        make_optimizer(**kwargs)


def test_averages():
    path = [torch.tensor([float(t)]) for t in range(10)]
    tail = make_average(path[0], 10, 0.3, 0.0)
    moving = make_average(path[0], 10, 0.0, 0.5)
    for t, theta in enumerate(path):
        tail.add(t, theta)
        moving.add(t, theta)
    out = torch.zeros(1)
    tail.finish(out)
    assert float(out) == 8.0
    moving.finish(out)
    weights = np.array([0.5 ** (9 - t) for t in range(10)])
    assert float(out) == pytest.approx(float((weights * np.arange(10)).sum() / weights.sum()))
    for bad in ((1.5, 0.0), (0.0, 1.0), (0.5, 0.5)):
        with pytest.raises(InvalidParameterError):
            make_average(path[0], 10, *bad)
