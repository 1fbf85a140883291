"""Calibration: the reference noise multipliers, always on the safe side and never wasteful."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.core.exceptions import (
    ConvergenceError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidSampleRateError,
    InvalidStepsError,
    InvalidTypeError,
)

N = 32561


def sgd(q, sigma, steps):
    return ac.SelfComposed(ac.PoissonSampled(q, ac.Gaussian(sigma)), steps)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("batch", "steps", "reference"),
    [
        (256, 1270, 1.2917), (1024, 640, 3.1139), (2048, 480, 5.2595), (4096, 240, 7.3980),
        (N, 50, 26.380), (N, 100, 37.306), (N, 200, 52.759),
    ],
)  # fmt: skip
def test_reference_noise_multipliers(batch, steps, reference):
    """Values of two earlier implementations at epsilon 1, delta 1e-5, n = 32561."""
    options = {"delta": 1e-5, "sample_rate": batch / N, "steps": steps}
    sigma = ac.calibrate_noise_multiplier(epsilon=1.0, **options)
    assert sigma == pytest.approx(reference, rel=5e-4)
    found = ac.guarantee(sgd(batch / N, sigma, steps), delta=1e-5).epsilon
    assert 0.998 <= found <= 1.0


@pytest.mark.parametrize(
    ("epsilon", "q", "steps", "delta"),
    [
        (8.0, 0.01, 1000, 1e-5), (0.1, 0.01, 1000, 1e-5), (0.01, 0.01, 1000, 1e-5),
        (1.0, 0.001, 100_000, 1e-6), (3.0, 0.5, 3, 1e-5), (1.0, 0.03, 640, 1e-9),
        (0.5, 1.0, 10, 1e-7), (2.0, 0.2, 1, 1e-5), (20.0, 0.05, 200, 1e-4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("neighboring", ["zero_out", "replace_one"])
def test_achieved_epsilon_is_just_below_the_target(epsilon, q, steps, delta, neighboring):
    sigma = ac.calibrate_noise_multiplier(
        epsilon=epsilon, delta=delta, sample_rate=q, steps=steps, neighboring=neighboring
    )
    found = ac.guarantee(sgd(q, sigma, steps), delta=delta, neighboring=neighboring).epsilon
    assert 0.998 * epsilon <= found <= epsilon


@given(
    epsilon=st.floats(0.05, 10.0), q=st.floats(0.002, 1.0), steps=st.integers(1, 500),
    delta=st.floats(1e-8, 1e-4),
)  # fmt: skip
@settings(max_examples=6, deadline=None)
def test_any_target_is_met(epsilon, q, steps, delta):
    options = {"delta": delta, "sample_rate": q}
    sigma = ac.calibrate_noise_multiplier(epsilon=epsilon, steps=steps, **options)
    found = ac.guarantee(sgd(q, sigma, steps), delta=delta).epsilon
    assert 0.998 * epsilon <= found <= epsilon


@pytest.mark.parametrize(
    "extra",
    [
        [ac.DiscreteGaussian(20.0)],
        ac.PureDP(0.2),
        [ac.DiscreteGaussian(30.0), ac.ExponentialMechanism(0.1), ac.DiscreteLaplace(0.05, 1)],
        [ac.ApproxDP(0.1, 1e-6)],
        [ac.PoissonSampled(0.0314, ac.Gaussian(10.0))],
    ],
)
@pytest.mark.parametrize("q", [0.0314, 1.0])
def test_extra_events_are_paid_from_the_same_budget(extra, q):
    options = {"epsilon": 1.0, "delta": 1e-5, "sample_rate": q, "steps": 640}
    alone = ac.calibrate_noise_multiplier(**options)
    sigma = ac.calibrate_noise_multiplier(extra_events=extra, **options)
    assert sigma > alone
    events = [*(extra if isinstance(extra, list) else [extra]), sgd(q, sigma, 640)]
    assert 0.998 <= ac.guarantee(events, delta=1e-5).epsilon <= 1.0


def test_gaussian_extras_without_sampling_are_closed_form():
    sigma = ac.calibrate_noise_multiplier(
        epsilon=1.0, delta=1e-5, sample_rate=1.0, steps=10, extra_events=ac.Gaussian(8.0)
    )
    found = ac.guarantee([ac.Gaussian(8.0), sgd(1.0, sigma, 10)], delta=1e-5)
    assert found.accountant == "gdp"
    assert found.epsilon == pytest.approx(1.0, abs=1e-8)
    assert found.epsilon <= 1.0


def test_extra_events_that_leave_nothing():
    options = {"epsilon": 1.0, "delta": 1e-5, "sample_rate": 0.1, "steps": 10}
    with pytest.raises(InvalidBudgetError, match="extra events alone cost"):
        ac.calibrate_noise_multiplier(extra_events=ac.PureDP(1.01), **options)
    with pytest.raises(InvalidBudgetError, match="leave epsilon"):
        ac.calibrate_noise_multiplier(extra_events=ac.PureDP(1.0), **options)
    with pytest.raises(InvalidBudgetError, match="extra events alone cost"):
        ac.calibrate_steps(
            epsilon=1.0, delta=1e-5, sample_rate=0.1, noise_multiplier=1.0,
            extra_events=ac.NonPrivate(),
        )  # fmt: skip


def test_extra_events_that_leave_little():
    sigma = ac.calibrate_noise_multiplier(
        epsilon=1.0, delta=1e-5, sample_rate=0.1, steps=10, extra_events=ac.PureDP(0.99)
    )
    found = ac.guarantee([ac.PureDP(0.99), sgd(0.1, sigma, 10)], delta=1e-5).epsilon
    assert 0.998 <= found <= 1.0


def test_no_certificate_is_an_error_not_a_loop():
    with pytest.raises(ConvergenceError, match="replace_one"):
        ac.calibrate_noise_multiplier(
            epsilon=1.0, delta=1e-14, sample_rate=0.1, steps=10, neighboring="replace_one"
        )


def test_no_privacy_and_no_steps_need_no_noise():
    options = {"delta": 1e-5, "sample_rate": 0.1}
    assert ac.calibrate_noise_multiplier(epsilon=math.inf, steps=10, **options) == 0.0
    assert ac.calibrate_noise_multiplier(epsilon=1.0, steps=0, **options) == 0.0


@pytest.mark.parametrize("delta", [1e-13, 1e-20])
def test_a_delta_below_fourier_precision_is_met_by_renyi_bounds(delta):
    sigma = ac.calibrate_noise_multiplier(epsilon=1.0, delta=delta, sample_rate=0.01, steps=100)
    found = ac.guarantee(sgd(0.01, sigma, 100), delta=delta)
    assert found.accountant == "rdp"
    assert 0.95 <= found.epsilon <= 1.0


@pytest.mark.parametrize(
    ("sigma", "q", "epsilon"), [(3.1139, 1024 / N, 1.0), (1.1, 0.01, 1.0), (0.7, 0.05, 6.0)]
)
def test_steps_are_the_most_that_fit(sigma, q, epsilon):
    found = ac.calibrate_steps(epsilon=epsilon, delta=1e-5, noise_multiplier=sigma, sample_rate=q)
    assert ac.guarantee(sgd(q, sigma, found), delta=1e-5).epsilon <= epsilon
    assert ac.guarantee(sgd(q, sigma, found + 1), delta=1e-5).epsilon > epsilon


def test_no_step_fits():
    assert ac.calibrate_steps(epsilon=0.1, delta=1e-6, noise_multiplier=0.5, sample_rate=1.0) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epsilon": 0.0}, InvalidBudgetError),
        ({"epsilon": math.nan}, InvalidBudgetError),
        ({"epsilon": "1"}, InvalidTypeError),
        ({"delta": 0.0}, InvalidBudgetError),
        ({"delta": 1.0}, InvalidBudgetError),
        ({"sample_rate": 0.0}, InvalidSampleRateError),
        ({"sample_rate": 1.5}, InvalidSampleRateError),
        ({"steps": 2.5}, InvalidStepsError),
        ({"steps": True}, InvalidTypeError),
        ({"neighboring": "swap"}, InvalidParameterError),
    ],
)
def test_bad_input(change, error):
    options = {"epsilon": 1.0, "delta": 1e-5, "sample_rate": 0.1, "steps": 10, **change}
    with pytest.raises(error):
        ac.calibrate_noise_multiplier(**options)


# -- batch sizes ------------------------------------------------------------------------------
def test_a_larger_batch_means_less_effective_noise():
    rows = ac.plan_batch(epsilon=1.0, delta=1e-5, dataset_size=20_000, epochs=10)
    assert [row.batch_size for row in rows] == [64, 256, 1024, 4096, 16384, 20_000]
    for row in rows:
        assert row.sample_rate == row.batch_size / 20_000
        assert row.steps == max(1, round(10 * 20_000 / row.batch_size))
        assert row.effective_noise == row.noise_multiplier / row.batch_size
        assert 0.998 <= ac.guarantee(row.event(), delta=1e-5).epsilon <= 1.0
        assert set(row.to_dict()) == {
            "batch_size", "sample_rate", "steps", "noise_multiplier", "effective_noise",
        }  # fmt: skip
    noise = [row.effective_noise for row in rows]
    assert noise == sorted(noise, reverse=True)


def test_each_batch_size_pays_for_the_extra_events():
    options = {"epsilon": 1.0, "delta": 1e-5, "dataset_size": 1000, "epochs": 0.5}
    (alone,) = ac.plan_batch(batch_sizes=[100], **options)
    (both,) = ac.plan_batch(batch_sizes=[100], extra_events=ac.PureDP(0.2), **options)
    assert alone.steps == both.steps == 5
    assert both.noise_multiplier > alone.noise_multiplier
    (tiny,) = ac.plan_batch(**{**options, "dataset_size": 10, "epochs": 0.01})
    assert (tiny.batch_size, tiny.steps) == (10, 1)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epsilon": math.inf}, InvalidBudgetError),
        ({"dataset_size": 0}, InvalidParameterError),
        ({"epochs": 0.0}, InvalidParameterError),
        ({"epochs": True}, InvalidTypeError),
        ({"batch_sizes": [101]}, InvalidParameterError),
        ({"batch_sizes": []}, InvalidParameterError),
        ({"batch_sizes": range(1, 100)}, InvalidParameterError),
        ({"batch_sizes": [1.5]}, InvalidParameterError),
        ({"batch_sizes": 10}, InvalidTypeError),
        ({"extra_events": ac.PureDP(2.0)}, InvalidBudgetError),
    ],
)
def test_bad_batch_sizes(change, error):
    options = {"epsilon": 1.0, "delta": 1e-5, "dataset_size": 100, "epochs": 1.0, **change}
    with pytest.raises(error):
        ac.plan_batch(**options)
