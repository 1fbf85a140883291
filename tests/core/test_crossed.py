"""Intervals over runs and rows: coverage, power, and agreement with simpler cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from privfair.core.exceptions import DataError
from privfair.core.statistics import (
    crossed_change_interval,
    crossed_rate_interval,
    mean_interval,
    wilson_interval,
)

TRIALS = 400
# Coverage 0.95 over 400 trials is below 0.90 with probability 1.4e-5 (binomial), and a method that
# leaves out one of the two variances covers less than 0.80 in these designs.
LEAST = 0.90


def crossed(rng: np.random.Generator, runs: int, n: int, by_row: float, by_run: float):
    """Outcomes whose chance depends on the row and on the run."""
    rows, draws = rng.normal(size=n) * by_row, rng.normal(size=(runs, 1)) * by_run
    return rng.normal(size=(runs, n)) < rows + draws


@pytest.mark.parametrize(("by_row", "by_run"), [(3.0, 0.0), (0.5, 0.3), (3.0, 0.5)])
def test_the_rate_is_covered(by_row: float, by_run: float) -> None:
    rng = np.random.default_rng(3)
    inside = [
        crossed_rate_interval(crossed(rng, 5, 300, by_row, by_run)).contains(0.5)
        for _ in range(TRIALS)
    ]
    assert np.mean(inside) >= LEAST


def test_an_interval_over_rows_alone_would_not_cover() -> None:
    """The power of the test above: one source of chance left out is noticed."""
    rng = np.random.default_rng(4)
    inside = []
    for _ in range(TRIALS):
        z = crossed(rng, 5, 300, 0.5, 0.3)
        inside.append(wilson_interval(z.sum(), z.size).contains(0.5))
    assert np.mean(inside) < 0.8


@pytest.mark.parametrize("by_run", [0.0, 0.4])
def test_the_change_is_covered(by_run: float) -> None:
    """Both procedures have the same law, so that the true change is zero."""
    rng = np.random.default_rng(5)
    inside, apart = [], []
    for _ in range(TRIALS):
        a = crossed(rng, 5, 200, 1.0, by_run).astype(float)
        b = crossed(rng, 5, 200, 1.0, by_run).astype(float)
        inside.append(crossed_change_interval(a - b).contains(0.0))
        apart.append(crossed_change_interval((a - b)[:, :60], (a - b)[:, 60:]).contains(0.0))
    assert np.mean(inside) >= LEAST
    assert np.mean(apart) >= LEAST


def test_a_change_that_is_there_is_found() -> None:
    """Power: a change of 0.1 in 500 rows was seen in 100 of 100 trials; 95 are asked for."""
    rng = np.random.default_rng(6)
    seen = 0
    for _ in range(100):
        a = (rng.random((5, 500)) < 0.6).astype(float)
        b = (rng.random((5, 500)) < 0.5).astype(float)
        seen += crossed_change_interval(a - b).low > 0
    assert seen >= 95


def test_runs_shared_by_both_sets_of_rows_are_paired() -> None:
    """A run that shifts all rows alike does not widen the difference of two sets."""
    shift = np.repeat([[0.0], [1.0]], 3, axis=0) * np.ones((6, 400))
    together = crossed_change_interval(shift)
    apart = crossed_change_interval(shift[:, :200], shift[:, 200:])
    assert together.high - together.low > 0.8
    assert apart.high - apart.low < 0.2


def test_equal_runs_give_wilson() -> None:
    row = np.arange(400) < 100
    found = crossed_rate_interval(np.tile(row, (5, 1)))
    plain = wilson_interval(100, 400, critical=float(stats.t.ppf(0.975, 399)))
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_mean_interval_is_students() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0])
    low, high = stats.t.interval(0.9, 3, x.mean(), stats.sem(x))
    found = mean_interval(x, confidence=0.9)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_estimate_is_inside_and_ends_do_not_collapse() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        d = rng.choice([-1.0, 0.0, 1.0], size=(3, int(rng.integers(1, 30))))
        found = crossed_change_interval(d)
        assert found.low <= d.mean() <= found.high
        assert found.high > found.low
    rates = crossed_rate_interval(np.ones((3, 10)))
    assert 0.6 < rates.low < 0.9
    assert rates.high == pytest.approx(1.0)


def test_one_run_and_no_rows_say_so() -> None:
    assert "one run" in crossed_rate_interval(np.ones((1, 5))).reason
    assert "one run" in crossed_change_interval(np.zeros((1, 5))).reason
    assert math.isnan(mean_interval([1.0]).low)
    assert math.isnan(crossed_rate_interval(np.ones((3, 0))).value)
    assert math.isnan(crossed_change_interval(np.zeros((3, 4)), np.zeros((3, 0))).value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: crossed_rate_interval([[0.5]]),
        lambda: crossed_rate_interval([0, 1]),
        lambda: crossed_change_interval([[2]]),
        lambda: crossed_change_interval([[0.0]], [[0.0], [1.0]]),
        lambda: mean_interval([]),
        lambda: mean_interval([math.nan, 1.0]),
    ],
)
def test_bad_input(call) -> None:
    with pytest.raises(DataError):
        call()
