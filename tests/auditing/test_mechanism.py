"""The tester of mechanisms: it catches what it must, and accuses nobody wrongly."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from privfair.accounting import guarantee
from privfair.accounting.events import Gaussian, Laplace
from privfair.auditing import audit_mechanism, dp_lower_bound, multi_run_epsilon_lower_bound
from privfair.core import PrivacyGuarantee
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

N = 200_000
Draw = Callable[[np.random.Generator, float], np.ndarray]


def pure(epsilon: float, **fields: object) -> PrivacyGuarantee:
    return PrivacyGuarantee(epsilon, 0.0, accountant="basic", **fields)  # type: ignore[arg-type]


def laplace(scale: float) -> Draw:
    return lambda rng, value: value + rng.laplace(0, scale, N)


def above_threshold(reuse: bool) -> Draw:
    """Sparse vector technique on three equal queries; the answer is the first one above."""

    def draw(rng: np.random.Generator, value: float) -> np.ndarray:
        threshold = 0.5 + rng.laplace(0, 2, N)
        noise = np.repeat(threshold[:, None] - 0.5, 3, axis=1) if reuse else None
        noise = rng.laplace(0, 4, (N, 3)) if noise is None else noise
        over = value + noise >= threshold[:, None]
        return np.where(over.any(axis=1), over.argmax(axis=1), 3).astype(float)

    return draw


def discrete_laplace(reject: bool) -> Draw:
    """Scale 1; without the rejection of (negative, 0) the value 0 is twice too frequent."""

    def draw(rng: np.random.Generator, value: float) -> np.ndarray:
        size = 2 * N
        magnitude = rng.geometric(1 - math.exp(-1), size) - 1
        negative = rng.random(size) < 0.5
        keep = ~(negative & (magnitude == 0)) if reject else np.ones(size, dtype=bool)
        return value + np.where(negative, -magnitude, magnitude)[keep][:N]

    return draw


def gaussian_sum(rng: np.random.Generator, value: float) -> np.ndarray:
    return value + rng.normal(0, 1, N)


# name, honest, broken, claim, the two inputs for the honest and for the broken one
CASES = {
    "Laplace with 0.8 of the scale": (
        laplace(1.0), laplace(0.8), pure(1.0), (0.0, 1.0), (0.0, 1.0),
    ),
    "sparse vector that reuses its noise": (
        above_threshold(False), above_threshold(True), pure(1.0), (0.0, 1.0), (0.0, 1.0),
    ),
    "discrete Laplace without rejecting (negative, 0)": (
        discrete_laplace(True), discrete_laplace(False), pure(1.0), (0.0, 1.0), (0.0, 1.0),
    ),
    "factor 2 of replacing forgotten": (
        gaussian_sum, gaussian_sum, guarantee(Gaussian(1.0), delta=0.05), (0.0, 1.0), (-1.0, 1.0),
    ),
}  # fmt: skip


@pytest.mark.statistical
@pytest.mark.parametrize("name", CASES)
def test_planted_bugs_are_flagged_and_honest_ones_are_not(name: str) -> None:
    """Null: the certificate holds. 200,000 draws of each; false-alarm rate 1e-6 per case."""
    honest, broken, claim, good, bad = CASES[name]
    rng = np.random.default_rng(31)
    passed = audit_mechanism(honest(rng, good[0]), honest(rng, good[1]), certified=claim)
    assert not passed.violated, str(passed)
    caught = audit_mechanism(broken(rng, bad[0]), broken(rng, bad[1]), certified=claim)
    assert caught.violated, str(caught)
    assert "no violation found" in str(passed)


@pytest.mark.statistical
def test_the_bound_comes_close_to_the_truth() -> None:
    rng = np.random.default_rng(32)
    bound = dp_lower_bound(laplace(1.0)(rng, 0.0), laplace(1.0)(rng, 1.0), epsilon=1.0)
    assert 0.9 < bound <= 1.0


@pytest.mark.statistical
def test_events_that_are_no_thresholds_are_found() -> None:
    """Outputs 0 to 3 with likelihood ratios 2, 1/2, 2, 1/2: every threshold hides them."""
    rng = np.random.default_rng(33)
    first = rng.choice(4, N, p=[1 / 3, 1 / 6, 1 / 3, 1 / 6])
    second = rng.choice(4, N, p=[1 / 6, 1 / 3, 1 / 6, 1 / 3])
    bound = dp_lower_bound(first, second, epsilon=0.5)
    assert 0.6 < bound <= math.log(2)


@pytest.mark.statistical
def test_false_alarms_stay_below_the_level() -> None:
    """Null: randomised response exactly at its epsilon, level 0.2, 500 audits of 2 x 2,000.

    Expected at most 100 alarms; 152 has probability below 1e-6 (5.8 standard errors).
    """
    rng = np.random.default_rng(34)
    keep = math.e / (1 + math.e)
    alarms = 0
    for _ in range(500):
        first, second = rng.random(2000) < keep, rng.random(2000) < 1 - keep
        alarms += dp_lower_bound(first, second, epsilon=1.0, confidence=0.8) > 1.0
    assert alarms < 152


def test_many_runs() -> None:
    from scipy.stats import beta

    low = beta.ppf(0.0125, 500, 501)
    high = beta.ppf(1 - 0.0125, 11, 990)
    expected = math.log((low - 1e-3) / high)
    assert multi_run_epsilon_lower_bound(500, 1000, 10, 1000, 1e-3) == pytest.approx(expected)
    # The other direction: no false negatives among the excluded.
    mirrored = multi_run_epsilon_lower_bound(990, 1000, 500, 1000, 1e-3)
    assert mirrored == pytest.approx(expected)
    assert multi_run_epsilon_lower_bound(5, 10, 5, 10) == 0.0
    assert multi_run_epsilon_lower_bound(10, 10, 0, 10, 0.99) == 0.0


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((1, 0, 0, 1), "tp=1"),
        ((2, 1, 0, 1), "tp=2"),
        ((0, 1, 2, 1), "fp=2"),
        ((-1, 1, 0, 1), "tp"),
    ],
)
def test_bad_counts(counts: tuple[int, int, int, int], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        multi_run_epsilon_lower_bound(*counts)


def test_bad_input() -> None:
    x = np.zeros(200)
    with pytest.raises(InvalidTypeError, match="PrivacyGuarantee"):
        audit_mechanism(x, x, certified=1.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="nothing to attack"):
        audit_mechanism(x, x, certified=PrivacyGuarantee.none("non_private"))
    with pytest.raises(InvalidParameterError, match="NaN"):
        audit_mechanism(x, np.full(200, np.nan), certified=pure(1.0))
    with pytest.raises(InvalidParameterError, match="100 draws"):
        audit_mechanism(x[:50], x, certified=pure(1.0))


@pytest.mark.statistical
def test_our_own_laplace_and_gaussian_survive() -> None:
    """False-alarm rate 1e-6 each."""
    from privfair.core.randomness import secret_stream

    rng = secret_stream(35).generator()
    for event, draw in ((Laplace(1.0), rng.laplace), (Gaussian(1.0), rng.normal)):
        claim = guarantee(event, delta=0.0 if isinstance(event, Laplace) else 1e-2)
        result = audit_mechanism(draw(0, 1, N), draw(1, 1, N), certified=claim)
        assert not result.violated
        assert result.lower_epsilon is not None
        assert result.lower_epsilon > 0.5
