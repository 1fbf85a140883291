"""Correlated noise: explicit matrices, sensitivity by enumeration, the run against both."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from privfair.accounting import Gaussian, guarantee
from privfair.auditing import audit_engine, audit_mechanism
from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.core.randomness import secret_stream
from privfair.mechanisms import HardenedGaussian
from privfair.training import (
    BandedNoise,
    Checkpoints,
    CyclicPoissonSampler,
    DPEngine,
    LogisticLoss,
    StatisticPlan,
    TrainingPlan,
    _sampling,
    make_optimizer,
)
from privfair.training._factorization import CorrelatedNoise

from .helpers import GradientSpy, ZeroLoss, mlp
from .test_clipping import Linear

decreasing = st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5).map(
    lambda values: sorted(values, reverse=True)
)


# -- matrices ------------------------------------------------------------------------------
@given(decreasing, st.integers(1, 9))
def test_the_inverse_is_the_inverse(coefficients, steps):
    banded = BandedNoise(coefficients)
    matrix = banded.matrix(steps)
    assert np.allclose(matrix @ banded.inverse(steps), np.eye(steps), atol=1e-8 / coefficients[-1])
    assert np.array_equal(np.tril(matrix), matrix)
    for t, s in itertools.product(range(steps), range(steps)):
        lag = t - s
        inside = 0 <= lag < len(coefficients)
        assert matrix[t, s] == (coefficients[lag] if inside else 0.0)


def patterns(steps, apart, most):
    for size in range(1, most + 1):
        for chosen in itertools.combinations(range(steps), size):
            if all(b - a >= apart for a, b in zip(chosen, chosen[1:], strict=False)):
                yield chosen


@given(decreasing, st.integers(1, 8), st.integers(1, 5), st.integers(1, 4))
def test_sensitivity_equals_the_maximum_over_all_patterns(coefficients, steps, apart, most):
    """Brute force: each record's contributions are worst if they all point the same way."""
    banded = BandedNoise(coefficients)
    matrix = banded.matrix(steps)
    worst = max(
        np.linalg.norm(matrix[:, list(p)].sum(axis=1)) for p in patterns(steps, apart, most)
    )
    got = banded.sensitivity(steps, min_separation=apart, max_participations=most)
    assert got == pytest.approx(worst, rel=1e-12)


def test_contributions_in_other_directions_move_the_mixtures_less():
    """C is not negative, so that vectors of norm 1 in any directions stay below the formula."""
    rng = np.random.default_rng(0)
    banded = BandedNoise([1.0, 0.7, 0.4])
    limit = banded.sensitivity(8, min_separation=2)
    for _ in range(300):
        x = np.zeros((8, 3))
        x[::2] = rng.normal(size=(4, 3))
        x[::2] /= np.linalg.norm(x[::2], axis=1, keepdims=True)
        assert np.linalg.norm(banded.matrix(8) @ x) <= limit * (1 + 1e-12)


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_participations_a_band_apart_add_up_in_squares(bands):
    banded = BandedNoise.square_root(bands)
    got = banded.sensitivity(4 * bands, min_separation=bands)
    assert got == pytest.approx(2 * banded.norm, rel=1e-12)


def test_the_square_root_squares_to_partial_sums():
    matrix = BandedNoise.square_root(7).matrix(7)
    assert np.allclose(matrix @ matrix, np.tril(np.ones((7, 7))), atol=1e-14)


def test_correlation_lowers_the_error_of_partial_sums():
    """With its own sensitivity, the noise on the sum of 256 gradients."""
    independent = BandedNoise([1.0]).error(256)
    assert independent == pytest.approx(16.0)
    banded = BandedNoise.square_root(16)
    explicit = np.tril(np.ones((256, 256))) @ banded.inverse(256)
    assert banded.error(256) == pytest.approx(np.linalg.norm(explicit, axis=1).max())
    assert banded.error(256) * banded.norm < 0.5 * independent


@pytest.mark.parametrize("bad", [[], [0.0], [1.0, -0.5], [0.5, 1.0], [1.0, float("nan")]])
def test_other_matrices_are_refused(bad):
    with pytest.raises(InvalidParameterError):
        BandedNoise(bad)


# -- accounting ----------------------------------------------------------------------------
def test_the_event_is_that_of_one_turn_in_bands():
    plan = TrainingPlan(1_000, 50, 22, 1.0, 2.0, correlation=BandedNoise.square_root(4))
    event = plan.event()
    assert event.count == 6 and event.event.q == 4 * 50 / 1_000
    assert event.event.event.sigma == 2.0
    assert plan.sample_rate == 0.05  # what a step draws, on average
    one = TrainingPlan(1_000, 50, 22, 1.0, 2.0, correlation=BandedNoise([1.0]))
    assert one.event() == TrainingPlan(1_000, 50, 22, 1.0, 2.0).event()


def test_what_is_not_accounted_is_refused(tmp_path, batch):
    from privfair.accounting import Ledger

    with pytest.raises(AccountingAssumptionError, match="hold too few records"):
        TrainingPlan(100, 30, 10, 1.0, 1.0, correlation=BandedNoise.square_root(4))
    with pytest.raises(AccountingAssumptionError, match="cannot go together"):
        TrainingPlan(
            100, 10, 10, 1.0, 1.0, statistic=StatisticPlan(1.0), correlation=BandedNoise([1.0])
        )
    plan = TrainingPlan(50, 10, 10, 1.0, 1.0, correlation=BandedNoise.square_root(3))
    with pytest.raises(InvalidParameterError, match="correlates its noise"):
        audit_engine(plan)
    with pytest.raises(AccountingAssumptionError, match="correlated noise"):
        plan.redone_event(3)
    ledger = Ledger()
    engine = DPEngine(mlp(5, 1), LogisticLoss(), plan, optimizer=make_optimizer("sgd", 0.1))
    with pytest.raises(InvalidParameterError, match="correlated noise"):
        engine.run(batch[0], batch[1], checkpoints=Checkpoints(tmp_path / "run", ledger=ledger))
    assert len(ledger) == 0


# -- sampling ------------------------------------------------------------------------------
def check_turns(module, groups=3, rate=0.6, n=60, rounds=3000):
    """A record takes part only when its group has its turn, and then with the probability.

    alpha = 1e-6: exact binomial tails, Bonferroni over 61 tests. Power: a rate of 0.6 in place
    of 0.5 over 180,000 draws is off by 85 standard errors.
    """
    sampler = module.CyclicPoissonSampler(n, rate, groups, secret_stream(5))
    drawn = np.zeros((groups, n))
    for step in range(groups * rounds):
        drawn[step % groups, sampler.sample()] += 1
    assert ((drawn > 0).sum(axis=0) == 1).all()  # one turn in each round
    counts = drawn.max(axis=0)
    for count, trials in [*((c, rounds) for c in counts), (counts.sum(), rounds * n)]:
        tail = min(stats.binom.cdf(count, trials, rate), stats.binom.sf(count - 1, trials, rate))
        assert 2 * tail * (n + 1) > 1e-6
    assert (np.bincount(drawn.argmax(axis=0), minlength=groups) > 0).all()


@pytest.mark.statistical
def test_records_take_turns():
    check_turns(_sampling)


def test_groups_depend_on_neither_records_nor_their_number():
    one = CyclicPoissonSampler(1_000, 1.0, 5, secret_stream())
    two = CyclicPoissonSampler(1_000, 1.0, 5, secret_stream())
    assert one.sample().tolist() != two.sample().tolist()
    seeded = [CyclicPoissonSampler(n, 1.0, 5, secret_stream(1))._group for n in (999, 1_000)]
    assert np.array_equal(seeded[0], seeded[1][:999])


# -- noise ---------------------------------------------------------------------------------
class Fixed:
    """Stands for the mechanism and adds known noise."""

    std = 1.0

    def __init__(self, z):
        self._z = list(z)

    def add(self, total):
        return total + self._z.pop(0)


@pytest.mark.parametrize("coefficients", [[1.0], [2.0, 1.0], [1.0, 0.5, 0.375, 0.3]])
def test_released_sums_are_x_plus_inverse_z(coefficients):
    rng = np.random.default_rng(1)
    banded, steps, size = BandedNoise(coefficients), 9, 4
    x, z = rng.normal(size=(steps, size)), rng.normal(size=(steps, size))
    noise = CorrelatedNoise(banded, 1.0, 1.0, size, 10, None)
    noise._inner = Fixed(torch.from_numpy(z))
    got = np.stack([noise.add(torch.from_numpy(row)).numpy() for row in x])
    np.testing.assert_allclose(got, x + banded.inverse(steps) @ z, atol=1e-12)


def test_one_band_is_independent_noise():
    plain = TrainingPlan(20, 5, 6, 0.7, 1.3)
    banded = TrainingPlan(20, 5, 6, 0.7, 1.3, correlation=BandedNoise([1.0]))
    seen = [run(plan, mlp(3, 1), ZeroLoss(), seed=2) for plan in (plain, banded)]
    assert torch.allclose(*seen, rtol=1e-9, atol=0)


def run(plan, module, loss, X=None, y=None, seed=0):
    X = torch.zeros((plan.n_public, 3)) if X is None else X
    y = torch.zeros(plan.n_public) if y is None else y
    spy = GradientSpy()
    DPEngine(module, loss, plan, optimizer=spy, noise_random_state=seed).run(X, y)
    return torch.stack(spy.seen)


@pytest.mark.statistical
def test_the_noise_of_a_run_has_the_covariance_that_it_claims():
    """C times the released sums is white, with standard deviation sigma C norm.

    Chi-square, alpha = 1e-6, 40,000 draws: power against 5 % off is above 0.9999. The
    correlation of successive steps, 38,000 pairs, within 6 standard errors of zero.
    """
    banded, steps = BandedNoise.square_root(4), 100
    plan = TrainingPlan(40, 5, steps, 0.6, 1.7, correlation=banded)
    seen = run(plan, mlp(399, 1), ZeroLoss(), torch.zeros((40, 399)))
    mixed = banded.matrix(steps) @ (seen.numpy() * 5)
    z = mixed / (1.7 * 0.6 * banded.norm)
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], z.size)
    assert low <= (z**2).sum() <= high * (1 + 1e-3) ** 2
    for lag in (1, 2, 3):
        r = np.corrcoef(z[lag:].ravel(), z[:-lag].ravel())[0, 1]
        assert abs(r) < 6 / math.sqrt(38_000)
    raw = seen.numpy() * 5  # the released noise itself is correlated: by -0.35 and more
    assert np.corrcoef(raw[1:].ravel(), raw[:-1].ravel())[0, 1] < -0.2


@pytest.mark.statistical
def test_white_box_attack_meets_the_price_of_one_turn():
    """The most powerful test sees all mixtures that hold a record; it is worth one Gaussian.

    Record j alone has a gradient in direction j, ten times the bound. Within the steps that its
    turn reaches, the projection of C x~ on C's column is N(1, sigma^2) in units of its norm, and
    N(0, sigma^2) without the record. False alarm 1e-6.
    """
    banded, m, clip = BandedNoise([1.0, 0.8, 0.6]), 1500, 0.7
    steps, b = 2 * banded.bands - 1, banded.bands
    plan = TrainingPlan(m, m // b, steps, clip, 0.9, correlation=banded)
    samples = []
    for seed, present in ((1, 1.0), (2, 0.0)):
        module = nn.Linear(m, 1, bias=False)
        X, y = torch.eye(m), torch.full((m,), 10.0 * clip * present)
        spy = GradientSpy()
        engine = DPEngine(module, Linear(), plan, optimizer=spy, noise_random_state=seed)
        engine.run(X, y)
        group = CyclicPoissonSampler(m, 1.0, b, secret_stream(engine._seeds[0]))._group
        mixed = banded.matrix(steps) @ (torch.stack(spy.seen).numpy() * (m // b))
        c = np.array(banded.coefficients)
        window = group.astype(int)[None, :] + np.arange(b)[:, None]
        samples.append((c[:, None] * mixed[window, np.arange(m)]).sum(0) / (banded.norm**2 * clip))
    gap = samples[0].mean() - samples[1].mean()
    assert gap == pytest.approx(1.0, abs=6 * 0.9 * math.sqrt(2 / m))
    for sample in samples:
        assert sample.std() == pytest.approx(0.9, abs=6 * 0.9 / math.sqrt(2 * m))
    result = audit_mechanism(
        *samples, certified=guarantee(Gaussian(0.9), delta=0.05), delta=0.05,
        confidence=1 - 1e-6, target="one turn",
    )  # fmt: skip
    assert result.verdict == "no violation found"


def test_the_mechanism_is_widened_for_all_mixtures_that_hold_a_record():
    banded, size, terms = BandedNoise.square_root(4), 50, 100
    noise = CorrelatedNoise(banded, 1.5, 2.0, size, terms, None)
    mechanism = noise._inner._mechanism
    assert isinstance(mechanism, HardenedGaussian)
    from privfair.training._clipping import block_sum_error

    each = mechanism.grid * math.sqrt(size) + 2 * sum(banded.coefficients) * block_sum_error(
        terms, 2.0
    )
    assert mechanism.sensitivity >= banded.norm * 2.0 + math.sqrt(4) * each
    assert mechanism.sensitivity <= (banded.norm * 2.0) * (1 + 1e-3)


def test_the_noise_knows_its_standard_deviation():
    banded = BandedNoise([1.0, 0.5])
    noise = CorrelatedNoise(banded, 1.5, 2.0, 3, 10, None)
    for t in range(5):
        row = banded.inverse(5)[t]
        assert noise.std == pytest.approx(noise._inner.std * np.linalg.norm(row), rel=1e-12)
        noise.add(torch.zeros(3, dtype=torch.float64))


def test_training_with_correlated_noise_runs_and_repeats(batch):
    plan = TrainingPlan(50, 10, 20, 1.0, 1.0, correlation=BandedNoise.square_root(4))
    seen = [run(plan, mlp(5, 1), LogisticLoss(), batch[0], batch[1], seed=3) for _ in range(2)]
    assert torch.equal(*seen) and torch.isfinite(seen[0]).all()
    free = TrainingPlan(50, 10, 20, 1.0, None, correlation=BandedNoise.square_root(4))
    assert torch.isfinite(run(free, mlp(5, 1), LogisticLoss(), batch[0], batch[1])).all()
