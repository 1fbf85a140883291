"""Attacks: bounds that hold, planted violations that are found, guesses as good as computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, product

import numpy as np
import pytest
from scipy import stats

from privfair.core.attack import AttackResult
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    PrivacyContradictionError,
)
from privfair.core.randomness import secret_stream
from privfair.ldp import (
    BLH,
    GRR,
    HR,
    LGRR,
    LOLOHA,
    LOSUE,
    OLH,
    OUE,
    PGR,
    SHE,
    SMP,
    SS,
    SUE,
    Aggregator,
    DBitFlipPM,
    LongitudinalPopulation,
    Reports,
    RowAggregator,
    audit,
    randomize,
    randomize_rows,
)
from privfair.ldp._attacks import _buckets_in_use
from privfair.ldp._exact import threshold

ALL = (GRR, SUE, OUE, BLH, OLH, SS, HR, PGR)


@dataclass(frozen=True)
class BrokenGRR(GRR):
    """Keeps the true value 5 % more often than it may."""

    @property
    def _t(self) -> int:  # type: ignore[override]
        e = Fraction(math.e)
        return threshold(Fraction(105, 100) * e / (e + self.k - 1))


# -- black box ----------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_keep_probability_raised_by_five_percent_is_found(n: int) -> None:
    """k = 2: real epsilon 1.19; the bound exceeds 1 but for a probability far below 1e-6."""
    result = audit.black_box(BrokenGRR(2, 1.0), n_trials=n, alpha=0.01, noise_random_state=0)
    assert isinstance(result, AttackResult)
    assert result.verdict == "VIOLATION" and 1.1 < result.lower_epsilon < 1.2
    with pytest.raises(PrivacyContradictionError):
        result.raise_for_violation()


def test_a_larger_domain_needs_more_trials() -> None:
    """k = 10, real epsilon 1.065: found at 1,000,000 trials (standard error 0.005)."""
    result = audit.black_box(
        BrokenGRR(10, 1.0), n_trials=1_000_000, alpha=0.01, noise_random_state=1
    )
    assert result.verdict == "VIOLATION"


@pytest.mark.parametrize("make", ALL, ids=lambda m: m.__name__)
@pytest.mark.parametrize("n", [1000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_honest_protocols_are_rarely_flagged(make, n: int) -> None:
    """At most 3 of 100 seeds at alpha = 0.01; exact tails: more has probability 2e-2 at most per
    protocol, and less as Clopper-Pearson bounds are conservative."""
    flagged = 0
    for seed in range(100):
        result = audit.black_box(
            make(4, 1.0), n_trials=n, alpha=0.01, noise_random_state=1000 + seed
        )
        flagged += result.violated
    assert flagged <= 3


@pytest.mark.parametrize("make", ALL, ids=lambda m: m.__name__)
def test_the_bound_is_near_epsilon(make) -> None:
    """100,000 trials: within 0.2 of the epsilon of each protocol."""
    result = audit.black_box(make(6, 1.0), 2, 5, n_trials=100_000, noise_random_state=2)
    assert 0.8 < result.lower_epsilon <= 1.0
    assert result.verdict == "no violation found" and not math.isnan(result.estimates[0].value)


def test_likelihood_ratio_events_beat_the_single_guess() -> None:
    """OUE, k = 2, epsilon 4: a single guess shows about 1, the event about 4."""
    n = 200_000
    result = audit.black_box(OUE(2, 4.0), n_trials=n, noise_random_state=3)
    assert 3.8 < result.lower_epsilon < 4.0
    reports = [
        randomize(OUE(2, 4.0), np.full(n // 2, x), noise_random_state=4 + x) for x in (0, 1)
    ]
    hits = [int((audit.guess_values(r, random_state=0) == 0).sum()) for r in reports]
    assert math.log(hits[0] / hits[1]) < 1.3


def test_the_event_is_chosen_on_other_trials() -> None:
    """2,000 equally likely reports that say nothing: chosen and tested on the same trials, the
    bound would be about 0.5 every time."""
    rng = np.random.default_rng(5)

    def silent(values: np.ndarray) -> np.ndarray:
        return rng.integers(0, 2000, len(values))

    for _ in range(10):
        result = audit.black_box(silent, n_trials=2000, epsilon=0.1, alpha=0.01)
        assert not result.violated
        assert result.details["bound_on_first_half"] > 0.3


def test_functions_of_any_shape() -> None:
    rng = np.random.default_rng(6)

    def laplace(values: np.ndarray) -> np.ndarray:
        return values + rng.laplace(0, 1, len(values))

    def bits(values: np.ndarray) -> dict[str, np.ndarray]:
        kept = rng.random((len(values), 2)) < 0.73
        own = np.column_stack([values == 0, values == 1])
        return {"bits": np.where(kept, own, ~own), "always": np.zeros(len(values), dtype=int)}

    found = audit.black_box(laplace, epsilon=1.0, n_trials=100_000)
    assert 0.85 < found.lower_epsilon <= 1.0
    found = audit.black_box(bits, epsilon=1.0, n_trials=100_000)
    assert found.violated and found.lower_epsilon > 1.8
    seeds = count(40)
    found = audit.black_box(
        lambda v: randomize(GRR(3, 2.0), v, noise_random_state=next(seeds)),
        1, 2, epsilon=2.0, n_trials=100_000,
    )  # fmt: skip
    assert 1.8 < found.lower_epsilon <= 2.0


@pytest.mark.parametrize(
    "protocol", [LGRR(5, 2.0, 1.0), LOSUE(5, 2.0, 1.0), LOLOHA(5, 2.0, 1.0)],
    ids=lambda p: p.name,
)  # fmt: skip
def test_memories_are_attacked_with_fresh_devices(protocol) -> None:
    """First reports of devices without memos cost eps_1; refused without devices."""
    seeds = count(50)

    def devices(values: np.ndarray) -> Reports:
        users = LongitudinalPopulation(protocol, len(values), noise_random_state=next(seeds))
        return users.privatize(values)

    found = audit.black_box(devices, 1, 3, epsilon=1.0, n_trials=60_000, alpha=0.01)
    assert 0.75 < found.lower_epsilon <= 1.0
    with pytest.raises(InvalidParameterError, match="memos"):
        audit.black_box(protocol)


def test_a_delta_is_taken_off() -> None:
    """A randomiser that tells the truth with probability 0.05 and nothing otherwise."""
    rng = np.random.default_rng(7)

    def leaky(values: np.ndarray) -> np.ndarray:
        return np.where(rng.random(len(values)) < 0.05, values + 1, 0)

    assert audit.black_box(leaky, epsilon=1.0, n_trials=20_000).violated
    assert not audit.black_box(leaky, epsilon=1.0, delta=0.06, n_trials=20_000).violated
    assert audit.black_box(leaky, epsilon=1.0, delta=0.03, n_trials=20_000).violated


@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_the_bound_is_the_one_stated(delta: float) -> None:
    result = audit.black_box(
        GRR(3, 1.0), n_trials=5000, alpha=0.1, delta=delta, noise_random_state=8
    )
    c = result.counts
    low = stats.beta.ppf(0.05, c["tp"], c["n_in"] - c["tp"] + 1)
    high = stats.beta.ppf(0.95, c["fp"] + 1, c["n_out"] - c["fp"])
    assert result.lower_epsilon == pytest.approx(math.log((low - delta) / high), rel=1e-9)
    assert c["n_in"] == c["n_out"] == 2500 and result.confidence == pytest.approx(0.9)
    assert result.to_dict()["attack"] == "local_audit"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: audit.black_box("GRR"), InvalidTypeError),
        (lambda: audit.black_box(GRR(3, 1.0), 0, 0), InvalidParameterError),
        (lambda: audit.black_box(GRR(3, 1.0), 0, 3), InvalidParameterError),
        (lambda: audit.black_box(GRR(3, 1.0), 0, -1), InvalidParameterError),
        (lambda: audit.black_box(GRR(3, 1.0), n_trials=199), InvalidParameterError),
        (lambda: audit.black_box(GRR(3, 1.0), alpha=0.0), InvalidParameterError),
        (lambda: audit.black_box(GRR(3, 1.0), delta=1.0), InvalidParameterError),
        (lambda: audit.black_box(lambda v: v), InvalidParameterError),
        (lambda: audit.black_box(lambda v: v[:5], epsilon=1.0), DataError),
        (lambda: audit.black_box(lambda v: "x", epsilon=1.0), DataError),
        (lambda: audit.black_box(lambda v: v * np.nan, epsilon=1.0), DataError),
    ],
)
def test_bad_audits(call, error) -> None:
    with pytest.raises(error):
        call()


# -- what a report tells ------------------------------------------------------------------------
def enumerated_success(protocol) -> float:
    total = sum(
        max(protocol.probability(y, x) for x in range(protocol.k)) for y in protocol.outputs()
    )
    return float(total) / protocol.k


@pytest.mark.parametrize("make", [GRR, SUE, OUE, SS, HR, PGR], ids=lambda m: m.__name__)
@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_attack_success_is_the_enumerated_one(make, k: int) -> None:
    for epsilon in (0.2, 3.0):
        protocol = make(k, epsilon)
        assert audit.attack_success(protocol) == pytest.approx(enumerated_success(protocol), 1e-12)


@pytest.mark.parametrize(("k", "g"), [(3, 2), (4, 3), (6, 4)])
def test_attack_success_of_hashing(k: int, g: int) -> None:
    """The formula against all hash functions of a small domain; then the shipped family."""
    protocol = OLH(k, 1.0, g)
    p, total = protocol.p_, 0.0
    for buckets in product(range(g), repeat=k):
        used = len(set(buckets))
        by_hand = sum(p if y in buckets else (1 - p) / (g - 1) for y in range(g)) / k
        assert by_hand == pytest.approx((used * p + (g - used) * (1 - p) / (g - 1)) / k)
        total += used
    ideal = g * (1 - (1 - 1 / g) ** k)
    assert total / g**k == pytest.approx(ideal)
    assert _buckets_in_use(protocol) == pytest.approx(ideal, rel=0.15)


@pytest.mark.parametrize("make", ALL, ids=lambda m: m.__name__)
def test_guesses_succeed_as_often_as_computed(make) -> None:
    """60,000 users over 6 values; binomial test at level 1e-6."""
    protocol, n = make(6, 1.5), 60_000
    values = np.arange(n) % 6
    reports = randomize(protocol, values, noise_random_state=20)
    right = int((audit.guess_values(reports, random_state=0) == values).sum())
    expected = audit.attack_success(protocol)
    tolerance = 0.004 if make in (BLH, OLH) else 0.0  # the mean over 4,096 seeds
    if tolerance:
        assert abs(right / n - expected) < tolerance + 4.5 * math.sqrt(expected / n)
    else:
        assert stats.binomtest(right, n, expected).pvalue > 1e-6


def test_averaging_of_binary_response_is_a_majority() -> None:
    """Exact: the majority of T answers, ties by a coin; and it grows to certainty."""
    p, t = GRR(2, 1.0).p_, 6
    exact = stats.binom.sf(t // 2, t, p) + stats.binom.pmf(t // 2, t, p) / 2
    found = audit.averaging_attack(GRR(2, 1.0), t, n_users=20_000, noise_random_state=1)
    assert abs(found.value - exact) < 4.5 * math.sqrt(exact * (1 - exact) / 20_000)
    assert found.details["epsilon"] == 6.0
    for make in (OUE, OLH, SS, HR):
        found = audit.averaging_attack(make(10, 1.0), 60, n_users=2000, noise_random_state=2)
        assert found.low > audit.attack_success(make(10, 1.0)) + 0.3


def test_profiles_lead_back_to_their_owners() -> None:
    """Guesses from five attributes re-identify far above chance, from none exactly at chance."""
    rng = np.random.default_rng(9)
    people = rng.integers(0, 8, (400, 5))
    stream_seeds = range(30, 35)
    weak = np.column_stack([
        audit.guess_values(
            randomize(GRR(8, 5.0), people[:, j], noise_random_state=seed), random_state=j
        )
        for j, seed in enumerate(stream_seeds)
    ])  # fmt: skip
    found = audit.match_rate(weak, people, random_state=0)
    assert found.low > 0.5 and found.details["chance"] == pytest.approx(1 / 400)
    blind = audit.match_rate(np.full((400, 5), -1), people, top=40, random_state=0)
    assert blind.low < 0.1 < blind.high
    assert audit.match_rate(people[::-1], people, truth=np.arange(400)[::-1], top=3).value > 0.97


def test_ties_share_the_match() -> None:
    same = np.zeros((2000, 1), dtype=int)
    found = audit.match_rate(same[:2000], same[:4].repeat(1, axis=0), truth=np.zeros(2000, int))
    assert stats.binomtest(round(found.value * 2000), 2000, 0.25).pvalue > 1e-6


def test_false_reports_move_what_is_stated() -> None:
    """All m false reports support value 0, the honest users hold value 1."""
    n, m = 200_000, 2_000
    for protocol in (GRR(10, 1.0), OUE(10, 1.0), HR(10, 1.0)):
        honest = protocol.randomise(np.ones(n - m, dtype=np.int64), secret_stream(11))
        support = protocol.support(honest)
        raised = support[0] + m
        shift = protocol.frequencies(raised, n) - protocol.frequencies(
            support[0] + m * protocol.q_, n
        )
        assert shift == pytest.approx(audit.max_manipulation(protocol, m / n), rel=1e-9)


def test_liars_all_speak_of_their_target() -> None:
    """Honest users are asked about one of several attributes, or buckets; liars choose theirs."""
    n, m = 90_000, 1_000
    rows = np.ones((n - m, 4), dtype=np.int64)
    strategy = SMP([8, 8, 8, 8], 1.0, "GRR")
    honest = RowAggregator(strategy).partial_fit(
        randomize_rows(strategy, rows, noise_random_state=3)
    )
    protocol = strategy.protocols_[0]
    false = Reports(protocol, {"code": np.zeros(m, dtype=np.uint8)})
    before = honest.attributes_[0]
    after = Aggregator(protocol).merge(before).partial_fit(false)
    shift = (after.estimate().frequencies_raw - before.estimate().frequencies_raw)[0]
    bound = audit.max_manipulation(protocol, m / n, attributes=4)
    assert shift == pytest.approx(bound, rel=0.1)
    assert shift > 3 * audit.max_manipulation(protocol, m / n)


def test_liars_with_buckets_of_their_choice() -> None:
    n, m = 90_000, 1_000
    protocol = DBitFlipPM(16, 1.0, 1)
    users = LongitudinalPopulation(protocol, n - m, noise_random_state=3)
    before = Aggregator(protocol).partial_fit(users.privatize(np.ones(n - m, dtype=np.int64)))
    false = Reports(
        protocol,
        {"buckets": np.zeros((m, 1), dtype=np.uint8), "bits": np.ones((m, 1), dtype=np.uint8)},
    )
    after = before + Aggregator(protocol).partial_fit(false)
    shift = (after.estimate().frequencies_raw - before.estimate().frequencies_raw)[0]
    assert shift == pytest.approx(audit.max_manipulation(protocol, m / n), rel=0.1)


def test_liars_of_she_add_what_is_accepted() -> None:
    protocol = SHE(4, 1.0)
    sums = np.zeros((100, 4), dtype=np.int64)
    sums[0, 0] = protocol.largest
    found = Aggregator(protocol).partial_fit(Reports(protocol, {"sums": sums})).estimate()
    assert found.frequencies_raw[0] == pytest.approx(audit.max_manipulation(protocol, 0.01))
    sums[0, 0] += 1
    with pytest.raises(DataError):
        Reports(protocol, {"sums": sums})


def test_reports_from_one_memo_are_not_added_up() -> None:
    protocol = LGRR(1000, 2.0, 0.01)
    found = audit.averaging_attack(protocol, 2, n_users=50, noise_random_state=0)
    assert found.details["epsilon"] == protocol.epsilon_after(2) > 2 * protocol.eps_1


def test_bad_attack_input() -> None:
    people = np.zeros((3, 2), dtype=int)
    for call, error in (
        (lambda: audit.attack_success("OUE"), InvalidTypeError),
        (lambda: audit.guess_values([1]), InvalidTypeError),
        (lambda: audit.averaging_attack(GRR(3, 1.0), 0), InvalidParameterError),
        (lambda: audit.max_manipulation(GRR(3, 1.0), 0.0), InvalidParameterError),
        (lambda: audit.max_manipulation(GRR(3, 1.0), 1.1), InvalidParameterError),
        (lambda: audit.match_rate(people, people[:, :1]), DataError),
        (lambda: audit.match_rate(people * 0.5, people), DataError),
        (lambda: audit.match_rate(people, people, truth=[0, 1, 3]), InvalidParameterError),
        (lambda: audit.match_rate(people, people, truth=[0.0, 1, 2]), DataError),
    ):
        with pytest.raises(error):
            call()
