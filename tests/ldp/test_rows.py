"""Several attributes: both epsilons by enumeration, unbiased estimates, wire format."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    PrivfairWarning,
)
from privfair.core.randomness import secret_stream
from privfair.ldp import (
    GRR,
    OUE,
    RSFD,
    RSRFD,
    SMP,
    SPL,
    Aggregator,
    RowAggregator,
    RowReports,
    exact_row_epsilons,
    randomize_rows,
)
from privfair.ldp._exact import ONE

SKEWED = [[0.9, 0.05, 0.05]] * 2


def published(make, *args, **options):
    with pytest.warns(PrivfairWarning, match="LDP about whole"):
        return make(*args, guarantee="published", **options)


# -- both epsilons --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "strategy",
    [
        SPL([2, 3], 1.0), SPL([3, 2, 2], 2.0, "OUE"), SMP([3, 4, 2], 1.0), SMP([2, 2], 3.0, "SUE"),
        RSFD([2, 3], 1.0), RSFD([2, 3, 2], 1.0), RSFD([2, 6], 0.5, guarantee="attribute"),
        RSFD([3, 2], 1.0, "ue_zero"), RSFD([3, 3], 1.0, "ue_random"),
        RSFD([3, 2], 1.0, "ue_random", "attribute", "SUE"),
        RSFD([2, 2, 3], 1.0, "ue_random", "attribute"),
        RSRFD([3, 3], 1.0, priors=SKEWED),
        RSRFD([3, 3], 1.0, guarantee="attribute", priors=SKEWED),
        RSRFD([3, 2], 2.0, "ue_random", "attribute", priors=[[0.9, 0.05, 0.05], [0.3, 0.7]]),
    ],
    ids=repr,
)  # fmt: skip
def test_both_epsilons_by_enumeration(strategy) -> None:
    """Of every report and every pair of rows, in fractions: as stated, and never above."""
    whole, one = exact_row_epsilons(strategy)
    assert strategy.epsilon_tuple - 1e-9 <= whole <= strategy.epsilon_tuple
    assert strategy.epsilon_attribute - 1e-9 <= one <= strategy.epsilon_attribute + 1e-15
    bound = {"attribute": strategy.epsilon_attribute}.get(
        getattr(strategy, "guarantee", "tuple"), strategy.epsilon_tuple
    )
    assert strategy.epsilon - 1e-9 <= bound <= strategy.epsilon


@pytest.mark.parametrize(("d", "expected"), [(2, 1.48988), (3, 1.81724)])
def test_the_published_guarantee_fails_for_rows(d: int, expected: float) -> None:
    strategy = published(RSFD, [3] * d, 1.0)
    assert exact_row_epsilons(strategy)[0] == pytest.approx(expected, abs=6e-6)
    assert strategy.epsilon_tuple == pytest.approx(expected, abs=6e-6)
    assert strategy.epsilon_attribute == pytest.approx(1.0, abs=1e-12)  # equal sizes


@pytest.mark.parametrize(
    ("sizes", "real", "solved"),
    [((2, 8), 1.17931, 1.307422), ((2, 40), 1.23999, 1.260048), ((16, 15, 42), 1.07160, 1.732297)],
)
def test_the_published_guarantee_fails_for_one_attribute(sizes, real, solved) -> None:
    """Unequal sizes; the formula against all reports and rows in floating point."""
    strategy = published(RSFD, sizes, 1.0)
    assert strategy.epsilon_attribute == pytest.approx(real, abs=6e-6)
    assert brute_force(strategy) == pytest.approx(real, abs=6e-6)
    sound = RSFD(sizes, 1.0, guarantee="attribute")
    assert sound.epsilon_local_ == pytest.approx(solved, abs=1e-6)
    assert brute_force(sound) == pytest.approx(1.0, abs=1e-9)
    assert sound.epsilon_attribute <= 1.0 < sound.epsilon_tuple == sound.epsilon_local_


def brute_force(strategy: RSFD) -> float:
    """The largest change of the law when one attribute changes; GRR with uniform fakes."""
    worst, d = 0.0, strategy.d
    for y in np.ndindex(*strategy.sizes):
        total = 0.0
        for j, (k, protocol) in enumerate(zip(strategy.sizes, strategy.protocols_, strict=True)):
            law = np.full(k, protocol.q_)
            law[y[j]] = protocol.p_
            others = math.prod(1 / m for i, m in enumerate(strategy.sizes) if i != j)
            total = total + (law * others / d).reshape([-1 if i == j else 1 for i in range(d)])
        for axis in range(d):
            worst = max(worst, (total.max(axis=axis) / total.min(axis=axis)).max())
        if d > 2 and y[0] == 1:  # the law is the same for every report up to the names of values
            break
    return math.log(worst)


def test_realistic_and_random_fakes_are_worse_than_published() -> None:
    strategy = published(RSRFD, [3, 3], 1.0, priors=SKEWED)
    assert strategy.epsilon_attribute == pytest.approx(1.44826, abs=6e-6)
    assert exact_row_epsilons(strategy)[1] == pytest.approx(1.44826, abs=6e-6)
    for unary in ("OUE", "SUE"):
        strategy = published(RSFD, [3, 3], 1.0, "ue_random", unary=unary)
        assert exact_row_epsilons(strategy)[1] == pytest.approx(1.12504, abs=6e-6)
        zeros = published(RSFD, [3, 3], 1.0, "ue_zero", unary=unary)
        assert exact_row_epsilons(zeros)[1] == pytest.approx(1.0, abs=1e-9)


def test_the_default_never_warns_and_never_amplifies() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strategy = RSFD([4, 9, 2], 1.5)
    assert strategy.epsilon_local_ == strategy.epsilon_tuple == 1.5
    assert strategy.event().eps0 == 1.5
    assert published(RSFD, [4, 9, 2], 1.5).event().eps0 > 2.0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(2, 30), min_size=2, max_size=5),
    st.floats(0.1, 4.0),
    st.sampled_from(["grr", "ue_zero", "ue_random"]),
)
def test_the_solved_epsilon_is_attained_and_never_passed(sizes, epsilon, fake) -> None:
    strategy = RSFD(sizes, epsilon, fake, "attribute")
    assert epsilon - 1e-6 <= strategy.epsilon_attribute <= epsilon
    assert strategy.epsilon_local_ >= epsilon - 1e-12


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(1e-3, 50.0))
def test_the_shares_of_splitting_never_pass_the_whole(d: int, epsilon: float) -> None:
    strategy = SPL([2] * d, epsilon, "GRR")
    assert sum(Fraction(p.epsilon) for p in strategy.protocols_) <= Fraction(epsilon)
    assert strategy.epsilon_each == pytest.approx(epsilon / d)


def test_chances_sum_to_one() -> None:
    for strategy in (
        SPL([2, 3], 1.0), SMP([2, 3], 1.0), RSFD([2, 3], 1.0), RSFD([2, 2], 1.0, "ue_zero"),
        RSRFD([2, 3], 1.0, "ue_random", priors=[[0.2, 0.8], [0.5, 0.25, 0.25]]),
    ):  # fmt: skip
        total = sum(np.asarray(strategy.chances(o), dtype=object) for o in strategy.outputs())
        assert (np.asarray(total) == 1).all()


# -- draws and estimates --------------------------------------------------------------------------
STRATEGIES = [
    SPL([4, 7], 2.0), SMP([4, 7], 1.0), SMP([4, 7], 1.0, ("OLH", "HR")), SMP([4, 7], 6.0),
    RSFD([4, 7], 2.0),
    RSFD([4, 7], 2.0, "ue_zero"), RSFD([4, 7], 2.0, "ue_random", unary="SUE"),
    RSRFD([4, 7], 2.0, priors=[[0.1, 0.2, 0.3, 0.4], [1 / 7] * 7]),
    RSRFD([4, 7], 2.0, "ue_random", priors=[[0.1, 0.2, 0.3, 0.4], [1 / 7] * 7]),
]  # fmt: skip


def rows_of(n: int) -> np.ndarray:
    return np.column_stack([np.arange(n) ** 2 % 4, np.arange(n) * 3 % 11 % 7])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_estimates_are_unbiased_with_the_variance_stated(strategy) -> None:
    """40 runs: the mean square of 440 standardised errors in [0.75, 1.25] but with probability
    below 1e-3 per strategy (the variance may be conservative: attributes are drawn), and each
    mean within 4.5 standard errors."""
    n, runs = 6_000, 40
    rows = rows_of(n)
    truth = [np.bincount(rows[:, j], minlength=k) / n for j, k in enumerate(strategy.sizes)]
    z, covered = [], []
    for seed in range(runs):
        server = RowAggregator(strategy).partial_fit(
            randomize_rows(strategy, rows, noise_random_state=seed)
        )
        errors = []
        for j, f in enumerate(truth):
            found = server.estimate(j)
            errors.append((found.frequencies_raw - f) / found.std)
            covered.append((found.ci_low <= f) & (f <= found.ci_high))
        z.append(np.concatenate(errors))
    assert 0.75 <= np.square(z).mean() <= 1.25
    assert np.abs(np.mean(z, axis=0)).max() * math.sqrt(runs) < 4.5
    assert np.concatenate(covered).mean() >= 0.92


def test_fakes_follow_their_prior() -> None:
    """Chi-square at level 1e-6 of 100,000 fakes."""
    prior = [0.5, 0.3, 0.15, 0.05]
    strategy = RSRFD([4, 2], 1.0, priors=[prior, [0.5, 0.5]])
    drawn = strategy._fake_values(0, 100_000, secret_stream(3))
    expected = np.array(prior) * 100_000
    assert stats.chisquare(np.bincount(drawn, minlength=4), expected).pvalue > 1e-6
    assert sum(strategy._prior(0)) == 1 and all(
        x * ONE == int(x * ONE) for x in strategy._prior(0)
    )


def test_rows_follow_the_law_of_the_enumeration() -> None:
    """The joint law of fakes and truth, chi-square at level 1e-6 of 60,000 reports."""
    strategy = RSFD([2, 3], 1.5)
    n = 60_000
    parts = randomize_rows(strategy, np.tile([1, 2], (n, 1)), noise_random_state=5).parts
    drawn = np.bincount(
        parts[0].payload["code"].astype(int) * 3 + parts[1].payload["code"], minlength=6
    )
    law = [float(np.asarray(strategy.chances(o))[1, 2]) for o in strategy.outputs()]
    assert stats.chisquare(drawn, np.array(law) * n).pvalue > 1e-6


def test_sampling_reports_each_attribute_equally_often() -> None:
    reports = randomize_rows(SMP([3, 3, 3], 1.0), np.zeros((30_000, 3), int), noise_random_state=1)
    counts = np.bincount(reports.attributes, minlength=3)
    assert stats.chisquare(counts).pvalue > 1e-6
    assert [len(part) for part in reports.parts] == counts.tolist()


# -- reports, sums, bytes -----------------------------------------------------------------------
@pytest.mark.parametrize("strategy", [*STRATEGIES, SMP([300, 2], 5.0, ("SS", "PGR"))], ids=repr)
def test_bytes_and_sums(strategy) -> None:
    n = 300
    rows = np.column_stack([np.arange(n) % k for k in strategy.sizes])
    reports = randomize_rows(strategy, rows, noise_random_state=0)
    back = RowReports.from_bytes(reports.to_bytes(), strategy)
    assert back.to_bytes() == reports.to_bytes() and len(back) == n
    whole = RowAggregator(strategy).partial_fit(reports)
    shards = [reports[a:b] for a, b in ((200, 300), (0, 7), (7, 200))]
    total = RowAggregator(strategy)
    for shard in shards:
        total = RowAggregator(strategy).partial_fit(shard.to_bytes()) + total
    assert total == whole and total.n_reports_ == n
    assert RowAggregator.from_bytes(whole.to_bytes(), strategy) == whole
    data = reports[:9].to_bytes()
    state = whole.to_bytes()
    for at in range(0, len(data), 3):
        with pytest.raises(ValueError):
            RowReports.from_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :], strategy)
        with pytest.raises(ValueError):
            RowReports.from_bytes(data[:at], strategy)
    for at in range(0, len(state), 31):
        with pytest.raises(ValueError):
            RowAggregator.from_bytes(state[:at], strategy)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(STRATEGIES), st.binary(max_size=120))
def test_fuzzed_bytes_give_only_value_errors(strategy, noise: bytes) -> None:
    import zlib

    head = randomize_rows(strategy, rows_of(5), noise_random_state=0).to_bytes()[:28]
    data = head + noise
    data += zlib.crc32(data).to_bytes(4, "little")
    try:
        found = RowReports.from_bytes(data, strategy)
    except ValueError:
        return
    RowAggregator(strategy).partial_fit(found)


def test_reports_of_one_person_keep_their_attribute() -> None:
    strategy = SMP([4, 7], 1.0, "GRR")
    reports = randomize_rows(strategy, rows_of(50), noise_random_state=0)
    some = reports[np.arange(50) % 3 == 0]
    assert some.attributes.tolist() == reports.attributes[::3].tolist()
    one = reports[17]
    j = int(one.attributes[0])
    place = int((reports.attributes[:17] == j).sum())
    assert one.parts[j].payload["code"][0] == reports.parts[j].payload["code"][place]


def test_reports_end() -> None:
    """Whoever goes through reports one by one comes to an end."""
    reports = randomize_rows(SMP([4, 7], 1.0, "GRR"), rows_of(5))
    for some in (reports, *reports.parts):
        assert [len(one) for one in some] == [1] * len(some)
        with pytest.raises(IndexError):
            some[-len(some) - 1]
    held = np.asarray(reports)
    assert held.shape == reports.shape == (5, 11) and held.sum() == 5
    assert (held[:, :4].any(axis=1) == (reports.attributes == 0)).all()


def test_strategies_are_not_mixed() -> None:
    reports = randomize_rows(SMP([4, 7], 1.0), rows_of(9))
    for other in (SMP([4, 7], 1.1), SMP([4, 8], 1.0), SPL([4, 7], 1.0), SMP([4, 7], 1.0, "OUE")):
        with pytest.raises(ValueError, match="parameters"):
            RowReports.from_bytes(reports.to_bytes(), other)
        with pytest.raises(InvalidParameterError):
            RowAggregator(other).partial_fit(reports)
        with pytest.raises(InvalidParameterError):
            RowAggregator(other).merge(RowAggregator(SMP([4, 7], 1.0)))


def test_priors_are_part_of_the_agreement() -> None:
    a = RSRFD([2, 2], 1.0, priors=[[0.5, 0.5], [0.5, 0.5]])
    b = RSRFD([2, 2], 1.0, priors=[[0.5, 0.5], [0.4, 0.6]])
    assert a.fingerprint() != b.fingerprint()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: SMP([1, 3], 1.0), InvalidParameterError),
        (lambda: SMP([], 1.0), InvalidParameterError),
        (lambda: SMP("23", 1.0), InvalidTypeError),
        (lambda: SMP([2, 3], 0.0), InvalidParameterError),
        (lambda: SMP([2, 3], math.inf), InvalidParameterError),
        (lambda: SMP([2, 3], 1.0, "GR"), InvalidParameterError),
        (lambda: SMP([2, 3], 1.0, ("GRR",)), InvalidParameterError),
        (lambda: SMP([2, 3], 1.0, (GRR(2, 1.5), OUE(3, 1.0))), InvalidParameterError),
        (lambda: RSFD([2, 3], 1.0, "oue"), InvalidParameterError),
        (lambda: RSFD([2, 3], 1.0, guarantee="none"), InvalidParameterError),
        (lambda: RSFD([2] * 9, 49.0, guarantee="attribute"), InvalidParameterError),
        (lambda: RSRFD([2, 3], 1.0), InvalidParameterError),
        (lambda: RSRFD([2, 2], 1.0, priors=[[0, 1], [0.5, 0.5]]), InvalidParameterError),
        (lambda: RSRFD([2, 2], 1.0, priors=[[0.5, 0.4], [0.5, 0.5]]), InvalidParameterError),
        (lambda: RSRFD([2, 2], 1.0, "ue_zero", priors=SKEWED), InvalidParameterError),
        (lambda: exact_row_epsilons(SMP([9, 2], 1.0)), InvalidParameterError),
        (lambda: exact_row_epsilons(GRR(2, 1.0)), InvalidTypeError),
        (lambda: randomize_rows(SMP([2, 3], 1.0), [[0, 3]]), InvalidParameterError),
        (lambda: randomize_rows(SMP([2, 3], 1.0), [[0.0, 1.0]]), InvalidTypeError),
        (lambda: randomize_rows(SMP([2, 3], 1.0), [0, 1]), DataError),
        (lambda: RowAggregator(SMP([2, 3], 1.0)).estimate(0), DataError),
        (lambda: RowAggregator(RSFD([2, 3], 1.0)).estimate(0), DataError),
        (lambda: RowAggregator(RSFD([2, 3], 1.0)).estimate(0, "ibu"), InvalidParameterError),
        (lambda: RowAggregator(SMP([2, 3], 1.0)).estimate("a"), InvalidParameterError),
        (lambda: RowAggregator(SMP([2, 3], 1.0), ["a"]), InvalidParameterError),
        (lambda: RowAggregator(GRR(2, 1.0)), InvalidTypeError),
        (lambda: Aggregator(SMP([2, 3], 1.0)), InvalidTypeError),
    ],
)
def test_bad_input(call, error) -> None:
    with pytest.raises(error):
        call()
