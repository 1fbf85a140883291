"""Longitudinal protocols: exact laws of both steps, estimates per round and over time."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.ldp import (
    GRR,
    LGRR,
    LOLOHA,
    LOSUE,
    LOUE,
    LSOUE,
    LSUE,
    OLH,
    OUE,
    SUE,
    Aggregator,
    Client,
    DBitFlipPM,
    LongitudinalPopulation,
    Reports,
    average_rounds,
    choose_longitudinal,
    exact_epsilon,
    randomize,
    shuffle_epsilon,
)
from privfair.ldp.audit import averaging_attack

CHAINS = (LGRR, LOSUE, LSUE, LOUE, LSOUE, LOLOHA)
UNARY = (LOSUE, LSUE, LOUE, LSOUE)
SETTINGS = [(2.0, 1.0), (0.4, 0.1), (6.0, 3.0), (12.0, 2.0)]


def flips(k: int, eps_perm: float, eps_1: float) -> DBitFlipPM:
    return DBitFlipPM(k, eps_perm, min(3, k))


ALL = (*CHAINS, flips)


# -- the law ------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", CHAINS)
@pytest.mark.parametrize(("eps_perm", "eps_1"), SETTINGS)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_first_report_has_eps_1_by_enumeration(make, eps_perm, eps_1, k) -> None:
    protocol = make(k, eps_perm, eps_1)
    assert eps_1 - 1e-9 <= exact_epsilon(protocol) <= eps_1
    assert protocol.epsilon_after(1) == pytest.approx(exact_epsilon(protocol), abs=1e-12)


@pytest.mark.parametrize("make", CHAINS)
@pytest.mark.parametrize(("eps_perm", "eps_1"), SETTINGS)
def test_memo_has_eps_perm(make, eps_perm, eps_1) -> None:
    for k in (2, 3, 50):
        protocol = make(k, eps_perm, eps_1)
        (p, q), last = protocol.permanent, protocol.epsilon_after(math.inf)
        ratio = p / q if make in (LGRR, LOLOHA) else p * (1 - q) / (q * (1 - p))
        assert math.log(ratio) == pytest.approx(last, abs=1e-12)
        assert eps_perm - 1e-9 <= last <= eps_perm


@pytest.mark.parametrize("variant", ["tight", "published"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_first_report_is_the_two_steps_together(variant: str, k: int) -> None:
    """Summed over every memo, with exact fractions; the server's p and q are those sums."""
    protocol = LGRR(k, 2.0, 1.0, variant=variant)
    one, two = protocol.permanent, protocol.instantaneous
    for value, y in product(range(k), repeat=2):
        total = sum(one[m != value] * two[y != m] for m in range(k))
        assert total == protocol.probability(y, value)
        assert total == (protocol.exact_p if y == value else protocol.exact_q)
    for make in UNARY:
        protocol = make(k, 2.0, 1.0)
        one, two = protocol.permanent, protocol.instantaneous
        for is_value, wanted in ((0, protocol.exact_p), (1, protocol.exact_q)):
            chance = one[is_value]
            assert chance * two[0] + (1 - chance) * two[1] == wanted


@pytest.mark.parametrize(
    ("k", "real", "variance", "factor"),
    [(16, 0.573, 26.33, 4.65), (74, 0.212, None, 51.9), (360, 0.052, None, 1032.0),
     (4, 0.902, None, 1.30), (2, 1.0, None, 1.0)],
)  # fmt: skip
def test_the_published_chain_is_safe_and_wasteful(k, real, variance, factor) -> None:
    """Epsilon (2, 1): the numbers that follow from its law as drawn."""
    published, tight = LGRR(k, 2.0, 1.0, variant="published"), LGRR(k, 2.0, 1.0)
    if k <= 8:
        assert exact_epsilon(published) == pytest.approx(real, abs=6e-4)
    assert published.epsilon_after(1) == pytest.approx(real, abs=6e-4)
    assert published.variance() / tight.variance() == pytest.approx(factor, rel=5e-3)
    if variance:
        assert published.variance() == pytest.approx(variance, abs=5e-3)
    assert published.epsilon_after(1) <= 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.floats(0.1, 8.0), st.floats(0.05, 0.95))
def test_a_memo_costs_no_accuracy(k: int, eps_perm: float, share: float) -> None:
    eps_1 = share * eps_perm
    for make, one_shot in ((LGRR, GRR), (LOSUE, OUE), (LSUE, SUE)):
        for f in (0.0, 0.3, 1.0):
            here, there = make(k, eps_perm, eps_1), one_shot(k, eps_1)
            assert here.variance(f) == pytest.approx(there.variance(f), rel=1e-9)
    here = LOLOHA(k, eps_perm, eps_1)
    assert here.variance(0.2) == pytest.approx(OLH(k, eps_1, here.g_).variance(0.2), rel=1e-9)
    assert here.g_ == OLH(k, eps_1).g_


def test_variance_depends_on_the_frequency() -> None:
    """The published function has 3.683 everywhere."""
    assert LOSUE(16, 2.0, 1.0).variance(0.5) == pytest.approx(4.183, abs=1e-3)


@pytest.mark.parametrize("make", [LOUE, LSOUE])
def test_chains_that_cannot_reach_eps_1_name_the_range(make) -> None:
    limit = (
        math.log((2 * math.exp(3.0) + 1) / 3)
        if make is LOUE
        else math.log(math.exp(1.5) * (2 * math.exp(1.5) + 1) / (math.exp(1.5) + 2))
    )
    with pytest.raises(InvalidParameterError, match=f"{limit:.6g}"):
        make(5, 3.0, limit * (1 + 1e-9))
    near = make(4, 3.0, limit * (1 - 1e-6))
    assert exact_epsilon(near) == pytest.approx(limit * (1 - 1e-6), abs=1e-9)
    assert make(4, 40.0, 20.0).epsilon_after(1) == pytest.approx(20.0, abs=1e-5)  # no overflow


def test_the_second_step_is_the_least_lie() -> None:
    """One step of 2^-64 less would exceed eps_1."""
    from privfair.ldp._exact import ONE, exp_fraction

    for make in (LOUE, LSOUE):
        protocol = make(4, 2.0, 1.0)
        (p1, q1), (p2, q2) = protocol.permanent, protocol.instantaneous
        less = q2 - Fraction(1, ONE)
        p, q = p1 * p2 + (1 - p1) * less, q1 * p2 + (1 - q1) * less
        assert p * (1 - q) > exp_fraction(1.0) * q * (1 - p)


def test_buckets_of_local_hashing() -> None:
    assert LOLOHA(100, 2.0, 1.0).g_ == 4
    two = LOLOHA(100, 2.0, 1.0, 2)
    assert two.epsilon_after(1000, n_distinct=40) == pytest.approx(4.0)
    assert two.variance() == LOLOHA(100, 2.0, 1.0, 2, variant="published").variance()
    published = LOLOHA(100, 4.0, 2.0, variant="published")
    best = min(
        range(2, 40), key=lambda g: LOLOHA(100, 4.0, 2.0, g, variant="published").variance()
    )
    assert published.g_ == best
    assert published.epsilon_after(1) <= 2.0


def test_the_published_bucket_formula() -> None:
    """The closed form of the paper agrees with the search."""
    for eps_perm, eps_1 in ((1.0, 0.5), (3.0, 1.5), (5.0, 4.0)):
        a, b = math.exp(eps_perm), math.exp(eps_1)
        root = a**4 - 14 * a**2 + 12 * a * b * (1 - a * b) + 12 * a**3 * b + 1
        g = 1 + max(1, round((1 - a**2 + math.sqrt(root)) / (6 * (a - b))))
        assert LOLOHA(100, eps_perm, eps_1, variant="published").g_ == g


# -- dBitFlipPM ---------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_bits_for_life_by_enumeration(epsilon: float, k: int) -> None:
    for d in range(1, k + 1):
        protocol = DBitFlipPM(k, epsilon, d)
        assert epsilon - 1e-9 <= exact_epsilon(protocol) <= epsilon
        for t in (1, 5, math.inf):
            assert protocol.epsilon_after(t) == pytest.approx(epsilon, abs=1e-9)
        total = sum(protocol.probability(o, 0) for o in protocol.outputs())
        assert total == math.comb(k, d)
        assert protocol.epsilon_after(99, 50) == pytest.approx(min(d + 1, k) * epsilon)


def test_one_published_bit_spends_half() -> None:
    published, tight = DBitFlipPM(5, 1.0, 1, variant="published"), DBitFlipPM(5, 1.0, 1)
    assert exact_epsilon(published) == pytest.approx(0.5, abs=1e-9)
    assert published.epsilon_after(3) == pytest.approx(0.5, abs=1e-9)
    s, e = math.exp(0.5), math.e
    assert published.variance() == pytest.approx(5 * s / (s - 1) ** 2)
    assert tight.variance() == pytest.approx(5 * e / (e - 1) ** 2)
    for d in (2, 4):
        published = DBitFlipPM(5, 1.0, d, variant="published")
        assert published.variance() == DBitFlipPM(5, 1.0, d).variance()


def test_buckets_are_a_uniform_subset() -> None:
    """Chi-square over all 20 subsets at level 1e-6."""
    users = LongitudinalPopulation(DBitFlipPM(6, 1.0, 3), 40_000, noise_random_state=1)
    drawn = [tuple(row) for row in users._public["buckets"].tolist()]
    counts = [drawn.count(c) for c in combinations(range(6), 3)]
    assert sum(counts) == 40_000
    assert stats.chisquare(counts).pvalue > 1e-6


def test_values_that_nobody_was_asked_about() -> None:
    protocol = DBitFlipPM(200, 1.0, 1)
    users = LongitudinalPopulation(protocol, 20, noise_random_state=0)
    server = Aggregator(protocol).partial_fit(users.privatize(np.zeros(20, dtype=int)))
    found = server.estimate()
    unasked = protocol.trials_of(server._tally, 20) == 0
    assert unasked.any() and not unasked.all()
    assert np.isnan(found.frequencies[unasked]).all()
    assert np.isfinite(found.frequencies[~unasked]).all()
    with pytest.raises(InvalidParameterError, match="three levels"):
        _ = protocol.likelihood_ratio


# -- what is drawn ------------------------------------------------------------------------------
@pytest.mark.parametrize("make", ALL)
def test_estimates_are_unbiased_with_the_variance_stated(make) -> None:
    """40 first rounds of 4,000 users over Zipf's law on 12 values.

    The mean square of 480 standardised errors lies in [0.78, 1.22] but with probability below
    1e-3 per protocol, and the mean of each value within 4.5 standard errors. Over 8 rounds of the
    same users the same holds with the variance over time.
    """
    k, n, runs = 12, 4_000, 40
    share = 1 / np.arange(1, k + 1) ** 1.1
    values = np.repeat(np.arange(k), np.rint(n * share / share.sum()).astype(int))
    truth = np.bincount(values, minlength=k) / len(values)
    protocol = make(k, 2.0, 1.0)
    first, mean = [], []
    for seed in range(runs):
        users = LongitudinalPopulation(protocol, len(values), noise_random_state=seed)
        rounds = [
            Aggregator(protocol).partial_fit(users.privatize(values)).estimate().frequencies
            for _ in range(8)
        ]
        first.append(rounds[0] - truth)
        mean.append(np.mean(rounds, axis=0) - truth)
    for errors, variance in (
        (first, protocol.variance(truth, len(values))),
        (mean, protocol.variance_over_time(8, truth, len(values))),
    ):
        z = np.array(errors) / np.sqrt(variance)
        assert 0.78 <= np.square(z).mean() <= 1.22
        assert np.abs(z.mean(axis=0)).max() * math.sqrt(runs) < 4.5


@pytest.mark.parametrize("make", ALL)
def test_variance_over_time_has_its_ends(make) -> None:
    protocol = make(16, 2.0, 1.0)
    for f in (0.0, 0.4):
        assert protocol.variance_over_time(1, f) == pytest.approx(protocol.variance(f))
        times = [protocol.variance_over_time(t, f) for t in (1, 2, 10, 10**9, math.inf)]
        assert times == sorted(times, reverse=True)
        assert protocol.variance_over_time(5, f, 10, "iid") == pytest.approx(
            protocol.variance_over_time(5, f, 10) + f * (1 - f) / 10
        )
    if make is LGRR:
        assert times[-1] == pytest.approx(GRR(16, 2.0).variance(0.4))
    if make is LOSUE:
        assert times[-1] == pytest.approx(OUE(16, 2.0).variance(0.4))
    if make is LOLOHA:
        assert times[-1] == pytest.approx(OLH(16, 2.0, protocol.g_).variance(0.4))


@pytest.mark.parametrize("make", CHAINS)
def test_reports_of_one_value_share_one_memo(make) -> None:
    """Half of 40,000 users' second reports given their memo, per symbol or bit: binomial, 1e-6."""
    n, k = 40_000, 3
    protocol = make(k, 2.0, 1.0)
    users = LongitudinalPopulation(protocol, n, noise_random_state=3)
    values = np.zeros(n, dtype=int)
    users.privatize(values)
    memos, payload = users._memos.copy(), users.privatize(values).payload
    assert (users._memos == memos).all() and len(memos) == n
    p2, q2 = map(float, protocol.instantaneous)
    if make in UNARY:
        memo = np.unpackbits(memos, axis=1, bitorder="little", count=k)
        report = np.unpackbits(payload["bits"], axis=1, bitorder="little", count=k)
        for bit, chance in ((1, p2), (0, q2)):
            said = report[memo == bit]
            assert stats.binomtest(int(said.sum()), said.size, chance).pvalue > 1e-6
        own = memo[:, 0].sum(), float(protocol.permanent[0])
    else:
        report = payload["code" if make is LGRR else "bucket"]
        agree = int((report == memos).sum())
        assert stats.binomtest(agree, n, p2).pvalue > 1e-6
        keys = protocol._memo_keys(values, users._public)
        own = (memos == keys).sum(), float(protocol.permanent[0])
    assert stats.binomtest(int(own[0]), n, own[1]).pvalue > 1e-6


def test_the_seed_is_drawn_once_for_life() -> None:
    users = LongitudinalPopulation(LOLOHA(50, 2.0, 1.0), 100, noise_random_state=0)
    one, two = (users.privatize(np.full(100, v)).payload["seed"] for v in (3, 7))
    assert (one == two).all() and len(set(one.tolist())) == 100
    users.privatize(np.full(100, 3))
    assert users.epsilon_spent().max() <= 4 * 2.0
    for v in range(50):
        users.privatize(np.full(100, v))
    assert (users.epsilon_spent() <= users.protocol.g_ * 2.0).all()


def test_intervals_over_time_cover() -> None:
    """60 runs x 12 values over 10 rounds: under 92 % at 95 % has probability below 1e-2.

    One aggregator for all rounds would cover less: its intervals are too short.
    """
    k, n = 12, 2_000
    values = np.arange(n) ** 2 % k
    truth = np.bincount(values, minlength=k) / n
    protocol = LOSUE(k, 2.0, 1.5)
    inside, pooled = [], []
    for seed in range(60):
        users = LongitudinalPopulation(protocol, n, noise_random_state=seed)
        rounds = [Aggregator(protocol).partial_fit(users.privatize(values)) for _ in range(10)]
        found = average_rounds(rounds)
        inside.append((found.ci_low <= truth) & (truth <= found.ci_high))
        wrong = sum(rounds[1:], rounds[0]).estimate()
        assert wrong.frequencies == pytest.approx(found.frequencies)
        pooled.append((wrong.ci_low <= truth) & (truth <= wrong.ci_high))
    assert np.mean(inside) >= 0.92
    assert np.mean(pooled) < 0.8
    wide = average_rounds(rounds, simultaneous=True)
    assert (wide.ci_high > found.ci_high).all()
    assert found.details["rounds"] == 10 and found.details["epsilon"] <= 2.0


# -- the server takes them as they are ------------------------------------------------------------
@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("k", [2, 13, 300])
def test_wire_round_trip(make, k: int) -> None:
    protocol = make(k, 2.0, 1.0)
    users = LongitudinalPopulation(protocol, 200, noise_random_state=0)
    reports = users.privatize(np.arange(200) % k)
    back = Reports.from_bytes(reports.to_bytes(), protocol)
    assert back.to_bytes() == reports.to_bytes()
    whole = Aggregator(protocol).partial_fit(reports)
    parts = Aggregator(protocol).partial_fit(reports[120:]) + Aggregator(protocol).partial_fit(
        reports[:120].to_bytes()
    )
    assert parts == whole
    assert Aggregator.from_bytes(whole.to_bytes(), protocol) == whole
    matrix = protocol.support_matrix(reports.payload)
    assert (whole.counts_ == matrix.sum(axis=0)).all()
    if not protocol.trials_of(whole._tally, 200).all():
        with pytest.raises(DataError, match="no report is about"):
            whole.estimate("norm_sub")
        return
    for rule in ("norm_sub", "ibu_marginal"):
        assert whole.estimate(rule).frequencies.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("make", ALL)
def test_changed_bytes_and_other_parameters_are_noticed(make) -> None:
    protocol = make(13, 2.0, 1.0)
    users = LongitudinalPopulation(protocol, 9, noise_random_state=0)
    data = users.privatize(np.arange(9)).to_bytes()
    for at in range(len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 0x40
        with pytest.raises(ValueError):
            Reports.from_bytes(bytes(wrong), protocol)
        with pytest.raises(ValueError):
            Reports.from_bytes(data[:at], protocol)
    for other in (make(13, 2.5, 1.0), make(14, 2.0, 1.0), OUE(13, 1.0), GRR(13, 1.0)):
        with pytest.raises(ValueError, match="parameters"):
            Reports.from_bytes(data, other)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ALL), st.binary(max_size=120))
def test_fuzzed_payloads_give_only_value_errors(make, noise: bytes) -> None:
    import zlib

    protocol = make(13, 2.0, 1.0)
    users = LongitudinalPopulation(protocol, 7, noise_random_state=0)
    data = users.privatize(np.arange(7)).to_bytes()[:28] + noise
    try:
        reports = Reports.from_bytes(data + zlib.crc32(data).to_bytes(4, "little"), protocol)
    except ValueError:
        return
    Aggregator(protocol).partial_fit(reports)


def test_impossible_bits_for_life_are_refused() -> None:
    protocol = DBitFlipPM(13, 1.0, 3)
    for buckets, bits in (
        ([[1, 1, 2]], [[0]]), ([[3, 2, 1]], [[0]]), ([[1, 2, 13]], [[0]]), ([[1, 2, 3]], [[8]]),
        ([[1, 2]], [[0]]), ([[1, 2, 3]], [[0], [0]]),
    ):  # fmt: skip
        with pytest.raises(DataError):
            Reports(
                protocol,
                {"buckets": np.array(buckets, np.uint8), "bits": np.array(bits, np.uint8)},
            )


# -- attacks, audits and shuffling ----------------------------------------------------------------
def test_averaging_stops_at_the_memo() -> None:
    """After 200 reports the value is guessed with p1, not surely: binomial interval at 1e-6."""
    protocol = LGRR(4, 1.0, 0.8)
    found = averaging_attack(
        protocol, 200, n_users=4_000, confidence=1 - 1e-6, noise_random_state=0
    )
    assert found.low <= float(protocol.permanent[0]) <= found.high
    assert found.high < 0.7 < averaging_attack(GRR(4, 0.8), 200, n_users=400).low


def test_memos_are_not_shuffled() -> None:
    with pytest.raises(InvalidParameterError, match="memos"):
        shuffle_epsilon(LGRR(4, 2.0, 1.0), 1000, 1e-6)


# -- no report without a memory, and other bad input ----------------------------------------------
@pytest.mark.parametrize("make", ALL)
def test_there_is_no_report_without_a_memo(make) -> None:
    protocol = make(5, 2.0, 1.0)
    with pytest.raises(InvalidParameterError, match="LongitudinalClient"):
        randomize(protocol, [0, 1])
    with pytest.raises(InvalidParameterError, match="LongitudinalClient"):
        Client(protocol)
    with pytest.raises(InvalidParameterError, match="LongitudinalClient"):
        protocol.randomise(np.array([0]), None)


@pytest.mark.parametrize("make", CHAINS)
@pytest.mark.parametrize(
    ("k", "eps_perm", "eps_1", "error"),
    [
        (4, 1.0, 1.0, InvalidParameterError),
        (4, 1.0, 2.0, InvalidParameterError),
        (4, 1.0, 0.0, InvalidParameterError),
        (4, 51.0, 1.0, InvalidParameterError),
        (4, math.inf, 1.0, InvalidParameterError),
        (4, 1.0, math.nan, InvalidParameterError),
        (4, 1.0, 1e-25, InvalidParameterError),
        (1, 2.0, 1.0, InvalidParameterError),
        (4, "2", 1.0, InvalidTypeError),
        (4, 2.0, True, InvalidTypeError),
    ],
)
def test_bad_parameters(make, k, eps_perm, eps_1, error) -> None:
    with pytest.raises(error):
        make(k, eps_perm, eps_1)


def test_other_bad_parameters() -> None:
    for call in (
        lambda: LGRR(4, 2.0, 1.0, variant="loose"), lambda: LOLOHA(4, 2.0, 1.0, 1),
        lambda: LOLOHA(4, 2.0, 1.0, 257), lambda: DBitFlipPM(4, 1.0, 5),
        lambda: DBitFlipPM(4, 1.0, 0), lambda: DBitFlipPM(4, 1.0, 1, variant="loose"),
        lambda: LGRR(4, 2.0, 1.0).epsilon_after(0), lambda: LGRR(4, 2.0, 1.0).event(0),
        lambda: LGRR(4, 2.0, 1.0).variance_over_time(0),
        lambda: LGRR(4, 2.0, 1.0).variance_over_time(2, 1.5),
    ):  # fmt: skip
        with pytest.raises(InvalidParameterError):
            call()
    with pytest.raises(InvalidTypeError):
        LongitudinalPopulation(GRR(4, 1.0), 3)
    users = LongitudinalPopulation(LGRR(4, 2.0, 1.0), 3)
    with pytest.raises(DataError, match="per user"):
        users.privatize([0, 1])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.floats(0.3, 6.0), st.floats(0.1, 0.9))
def test_the_choice_without_limits_is_the_rule_of_the_paper(k, eps_perm, share) -> None:
    eps_1 = share * eps_perm
    found = choose_longitudinal(k, eps_perm, eps_1)
    assert found.best.variance() <= min(
        LGRR(k, eps_perm, eps_1).variance(), LOSUE(k, eps_perm, eps_1).variance()
    )
    if found.best.name in ("LGRR", "LOSUE") and abs(k - 3 * math.exp(eps_1) - 2) > 1e-6:
        assert found.best.name == ("LGRR" if k < 3 * math.exp(eps_1) + 2 else "LOSUE")


def test_the_choice_keeps_its_limits() -> None:
    found = choose_longitudinal(40, 2.0, 1.0, reports=20, max_epsilon=8.0)
    assert found.best == LOLOHA(40, 2.0, 1.0) and found.table.loc["LGRR", "epsilon_ever"] == 80.0
    few = choose_longitudinal(40, 2.0, 1.0, n_distinct=3, max_epsilon=6.0)
    assert few.best.name == "LOSUE"
    assert choose_longitudinal(40, 2.0, 1.0, max_report_bits=6).best.name == "LGRR"
    variances = list(choose_longitudinal(40, 2.0, 1.0, reports=20).table["variance"])
    assert variances == sorted(variances)
    assert variances[0] == LOSUE(40, 2.0, 1.0).variance_over_time(20)
    for limits in ({"max_epsilon": 3.0}, {"max_report_bits": 3}, {"max_epsilon": -1.0},
                   {"n_distinct": 0}):  # fmt: skip
        with pytest.raises(InvalidParameterError):
            choose_longitudinal(40, 2.0, 1.0, **limits)


def test_rounds_must_fit_together() -> None:
    protocol = LGRR(4, 2.0, 1.0)
    one = Aggregator(protocol).partial_fit(
        LongitudinalPopulation(protocol, 5).privatize(np.zeros(5, dtype=int))
    )
    plain = Aggregator(GRR(4, 1.0)).partial_fit(randomize(GRR(4, 1.0), [0, 1]))
    for rounds in ([plain], [one, one + one], [Aggregator(protocol)],
                   [one, Aggregator(LGRR(4, 3.0, 1.0))]):  # fmt: skip
        with pytest.raises(InvalidParameterError):
            average_rounds(rounds)
    for wrong in ([], [3]):
        with pytest.raises(InvalidTypeError):
            average_rounds(wrong)


def test_protocols_are_values_and_state_what_they_cost() -> None:
    a, b = LGRR(4, 2.0, 1.0), LGRR(4, 2.0, 1.0, variant="published")
    assert a == LGRR(4, 2.0, 1.0) and len({a, b, LGRR(4, 2.0, 1.0)}) == 2
    assert a.fingerprint() != b.fingerprint() and a.epsilon == a.eps_1 == 1.0
    assert repr(a) == "LGRR(k=4, eps_perm=2.0, eps_1=1.0, variant='tight')"
    assert (
        LOSUE(4, 2.0, 1.0).fingerprint() == LOSUE(4, 2.0, 1.0, variant="published").fingerprint()
    )
    assert a.event().eps0 == 2.0 and a.event(9).eps0 == 8.0
    assert LOLOHA(40, 2.0, 1.0, 2).event(9).eps0 == 4.0
