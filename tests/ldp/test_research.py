"""Research-only encodings, count-mean sketches, and counts without users."""

from __future__ import annotations

import ast
import inspect
import math

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import stats

from privfair.core.exceptions import DataError, DataIntegrityError, InvalidParameterError
from privfair.core.randomness import secret_stream
from privfair.ldp import (
    CMS,
    GRR,
    HCMS,
    HR,
    OLH,
    OUE,
    SHE,
    SS,
    SUE,
    THE,
    Aggregator,
    Client,
    Reports,
    audit,
    choose,
    exact_epsilon,
    randomize,
    simulate_counts,
)


# -- THE ----------------------------------------------------------------------------------------
def test_the_published_threshold_and_variance() -> None:
    """Wang et al. 2017: t = 0.61855 and 4.80715 at epsilon 1."""
    protocol = THE(16, 1.0)
    assert protocol.t_ == pytest.approx(0.61855, abs=6e-6)
    assert protocol.variance() == pytest.approx(4.80715, abs=6e-6)
    for t in (0.5, 0.6, 0.64, 0.8, 1.0):
        assert THE(16, 1.0, t).variance() >= protocol.variance() - 1e-9
    assert protocol.variance() > OUE(16, 1.0).variance()


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("t", [None, 0.5, 1.0])
def test_the_costs_less_than_it_declares(epsilon: float, t: float | None) -> None:
    """By enumeration; and its bits have the law of a noisy number above the threshold."""
    protocol = THE(4, epsilon, t)
    found = exact_epsilon(protocol)
    assert found == pytest.approx(protocol.real_epsilon_, rel=1e-9)
    assert 0.3 * epsilon < found < epsilon
    noise = stats.laplace(scale=2 / epsilon)
    assert protocol.p_ == pytest.approx(noise.sf(protocol.t_ - 1), rel=1e-12)
    assert protocol.q_ == pytest.approx(noise.sf(protocol.t_), rel=1e-12)


def test_research_protocols_say_so_and_are_never_chosen() -> None:
    assert THE(4, 1.0).research_only and SHE(4, 1.0).research_only
    assert not OUE(4, 1.0).research_only and not CMS(4, 1.0).research_only
    for k in (3, 30, 3000):
        assert not choose(k, 1.0).best.research_only


# -- SHE ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 5.0])
def test_epsilon_of_summed_histograms(epsilon: float) -> None:
    """The largest ratio of two discrete Laplace laws moved by one user, in 40 digits."""
    protocol = SHE(3, epsilon, 4)
    assert exact_epsilon(protocol) == pytest.approx(epsilon, rel=1e-15)
    with mp.workdps(40):
        scale = mpf(protocol.scale.numerator) / protocol.scale.denominator

        def logp(y: int, own: int) -> mpf:
            return -abs(mpf(y - own)) / scale

        worst = max(
            logp(a, 4) + logp(b, 0) - logp(a, 0) - logp(b, 4)
            for a in range(-9, 14)
            for b in range(-9, 14)
        )
        assert abs(worst - epsilon) < mpf(10) ** -30


def test_summed_histograms_are_unbiased_with_the_variance_stated() -> None:
    """2,000 reports of 40 values with noise of variance 8 / eps^2; 80,000 draws, 4.5 sigma."""
    protocol = SHE(40, 2.0)
    assert protocol.variance() == pytest.approx(8 / 4, rel=1e-4)
    assert protocol.variance(0.25, 10, "iid") == pytest.approx(0.2 + 0.01875, rel=1e-4)
    reports = randomize(protocol, np.zeros(2000, dtype=int), noise_random_state=1)
    noise = reports.payload["sums"] / protocol.steps
    noise[:, 0] -= 1
    assert noise.mean() == pytest.approx(0.0, abs=4.5 * math.sqrt(2 / 80_000))
    assert noise.var() == pytest.approx(2.0, rel=4.5 * math.sqrt(5 / 80_000))
    assert reports.payload["sums"].dtype == np.int64


@pytest.mark.parametrize("n", [1, 3, 500])
def test_intervals_of_summed_histograms_cover(n: int) -> None:
    """4,000 intervals each; 95 % less 3.5 standard errors."""
    protocol, k = SHE(40, 1.0), 40
    inside = []
    for seed in range(100):
        server = Aggregator(protocol).partial_fit(
            randomize(protocol, np.zeros(n, dtype=int), noise_random_state=seed)
        )
        found = server.estimate()
        truth = np.eye(k)[0]
        inside.append((found.ci_low <= truth) & (truth <= found.ci_high))
    assert np.mean(inside) > 0.95 - 3.5 * math.sqrt(0.0475 / 4000)


def test_sums_may_be_negative_and_travel() -> None:
    protocol = SHE(5, 0.5)
    server = Aggregator(protocol).partial_fit(
        randomize(protocol, [4, 4], noise_random_state=3).to_bytes()
    )
    again = Aggregator.from_bytes(server.to_bytes(), protocol)
    assert again == server and int(server.counts_.min()) < 0
    assert (again + server).n_reports_ == 4
    with pytest.raises(DataIntegrityError):
        Aggregator.from_bytes(
            Aggregator(GRR(5, 0.5)).to_bytes(), protocol
        )  # another protocol's state
    with pytest.raises(DataError):
        Reports(protocol, {"sums": np.full((1, 5), 1 << 41)})
    with pytest.raises(DataError):
        Reports(protocol, {"sums": np.zeros((1, 5))})


def test_rules_that_need_counts_are_refused_for_sums() -> None:
    protocol = SHE(5, 1.0)
    server = Aggregator(protocol).partial_fit(
        randomize(protocol, np.arange(4000) % 5, noise_random_state=2)
    )
    for rule in ("ibu", "ibu_marginal"):
        with pytest.raises(InvalidParameterError, match="counts"):
            server.estimate(rule)
    found = server.estimate("norm_sub")
    assert found.frequencies.sum() == pytest.approx(1.0)
    assert np.abs(found.frequencies - 0.2).max() < 0.25


@pytest.mark.parametrize(("k", "epsilon"), [(2, 1.0), (5, 3.0)])
def test_the_largest_number_is_guessed_as_often_as_computed(k: int, epsilon: float) -> None:
    """Binomial test at level 1e-6."""
    protocol, n = SHE(k, epsilon, 16), 60_000
    values = np.arange(n) % k
    sums = randomize(protocol, values, noise_random_state=4).payload["sums"].clip(0, 16)
    ties = np.random.default_rng(0).random(sums.shape) / 2
    right = int(((sums + ties).argmax(axis=1) == values).sum())
    assert stats.binomtest(right, n, audit.attack_success(protocol)).pvalue > 1e-6


@pytest.mark.parametrize(
    "protocol", [THE(6, 1.0), SHE(6, 1.0), CMS(6, 1.0, 4, 16), HCMS(6, 1.0, 4, 16)],
    ids=lambda p: p.name,
)  # fmt: skip
def test_attacks_show_nearly_the_real_epsilon(protocol) -> None:
    result = audit.black_box(protocol, n_trials=150_000, noise_random_state=5)
    real = protocol.real_epsilon_ if isinstance(protocol, THE) else 1.0
    assert real - 0.2 < result.lower_epsilon <= real
    assert not result.violated


# -- sketches -----------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("make", [CMS, HCMS])
def test_epsilon_of_sketches_by_enumeration(make, epsilon: float) -> None:
    protocol = make(5, epsilon, 3, 4)
    assert epsilon - 1e-9 <= exact_epsilon(protocol) <= epsilon
    outputs = list(protocol.outputs())
    for value in range(5):
        assert sum(protocol.probability(o, value) for o in outputs) == 3  # one per function


@pytest.mark.parametrize("make", [CMS, HCMS])
def test_sketch_reports_follow_the_law(make) -> None:
    """Chi-square of 60,000 reports at level 1e-6, over functions and reports."""
    protocol, n = make(5, 1.0, 2, 4), 60_000
    payload = protocol.randomise(np.full(n, 3), secret_stream(6))
    if make is CMS:
        codes = payload["row"].astype(int) * 16 + payload["bits"][:, 0]
        outputs = [(j, tuple((b >> i) & 1 for i in range(4))) for j in (0, 1) for b in range(16)]
    else:
        codes = payload["row"].astype(int) * 8 + payload["cell"]
        outputs = [(j, c >> 1, c & 1) for j in (0, 1) for c in range(8)]
    expected = [float(protocol.probability(o, 3)) / 2 * n for o in outputs]
    drawn = np.bincount(codes, minlength=len(outputs))
    assert stats.chisquare(drawn, expected).pvalue > 1e-6


@pytest.mark.parametrize("make", [CMS, HCMS])
def test_support_of_sketches_agrees_with_its_definition(make) -> None:
    for k in (2, 9, 50):
        protocol = make(k, 1.2, 5, 16, hash_seed=3)
        payload = protocol.randomise(np.arange(700) % k, secret_stream(1))
        assert (
            protocol.support(payload).tolist() == protocol.support_matrix(payload).sum(0).tolist()
        )


def test_the_estimator_is_the_published_one() -> None:
    """w / (w - 1) (mean_j M[j, h_j(v)] - n / w) with rows m (c y / 2 + 1 / 2), y in {-1, 1}."""
    protocol, n = CMS(20, 1.5, 6, 16), 400
    payload = protocol.randomise(np.arange(n) % 20, secret_stream(2))
    bits = np.unpackbits(payload["bits"], axis=1, bitorder="little", count=16).astype(float)
    s = math.exp(0.75)
    c = (s + 1) / (s - 1)
    sketch = np.zeros((6, 16))
    for row, y in zip(payload["row"], 2 * bits - 1, strict=True):
        sketch[row] += 6 * (c / 2 * y + 0.5)
    cells = [
        np.mean([sketch[j, protocol.buckets(j, np.array([v]))[0]] for j in range(6)])
        for v in range(20)
    ]
    published = 16 / 15 * (np.array(cells) - n / 16) / n
    found = protocol.frequencies(protocol.support(payload), n)
    assert found == pytest.approx(published, abs=1e-9)


def test_hash_functions_are_uniform_and_pairwise_independent() -> None:
    """4,000 functions: buckets of one value and collisions of pairs, at level 1e-6 each."""
    protocol = CMS(1000, 1.0, 4000, 8)
    rows = np.arange(4000)
    for v in (0, 1, 999):
        drawn = np.bincount(protocol.buckets(rows, np.full(4000, v)), minlength=8)
        assert stats.chisquare(drawn).pvalue > 1e-6
    for u, v in ((0, 1), (1, 2), (255, 256), (0, 999)):
        same = protocol.buckets(rows, np.full(4000, u)) == protocol.buckets(rows, np.full(4000, v))
        assert stats.binomtest(int(same.sum()), 4000, 1 / 8).pvalue > 1e-6


@pytest.mark.parametrize("make", [CMS, HCMS])
def test_collisions_leave_the_variance_derived(make) -> None:
    """Errors over 300 families at an epsilon without noise: the floor alone, and no bias.

    Zipf's law on 12 values: 3,600 errors; their mean square within 15 % of the formula, which
    has 5 standard errors of room.
    """
    k, m, w = 12, 4, 8
    share = 1 / np.arange(1, k + 1)
    users = np.rint(1e9 * share / share.sum()).astype(np.int64)
    truth = users / users.sum()
    errors = []
    for seed in range(300):
        protocol = make(k, 40.0, m, w, hash_seed=seed)
        table = np.array([protocol.buckets(j, np.arange(k)) for j in range(m)])
        same = (table[:, :, None] == table[:, None, :]).mean(axis=0)
        p, q = protocol.p_, float(protocol._chance)
        chance = np.where(np.eye(k, dtype=bool), p, p * same + q * (1 - same)) @ truth
        errors.append(protocol.frequencies(chance * 1e6, 1e6) - truth)
    found = np.array(errors)
    expected = make(k, 40.0, m, w).collision_variance(truth)
    assert np.square(found).mean() == pytest.approx(expected.mean(), rel=0.15)
    assert np.abs(found.mean(axis=0) / np.sqrt(expected / 300)).max() < 4.5


@pytest.mark.parametrize("make", [CMS, HCMS])
def test_sketch_intervals_cover_with_their_collisions(make) -> None:
    """60 families x 12 values, 40,000 reports: noise and collisions of equal size. Without the
    floor in the interval about 80 % would be covered."""
    k, m, w, n = 12, 16, 16, 40_000
    share = 1 / np.arange(1, k + 1)
    values = np.repeat(np.arange(k), np.rint(n * share / share.sum()).astype(int))
    truth = np.bincount(values, minlength=k) / len(values)
    inside, plain = [], []
    for seed in range(60):
        protocol = make(k, 4.0, m, w, hash_seed=seed)
        reports = randomize(protocol, values, noise_random_state=seed)
        found = Aggregator(protocol).partial_fit(reports).estimate()
        inside.append((found.ci_low <= truth) & (truth <= found.ci_high))
        noise = 1.96 * np.sqrt(super(type(protocol).__mro__[1], protocol).variance(truth, n))
        plain.append(np.abs(found.frequencies - truth) <= noise)
    assert np.mean(inside) >= 0.95
    assert np.mean(plain) < 0.85


@pytest.mark.parametrize("make", [CMS, HCMS])
@pytest.mark.parametrize(("k", "m", "w"), [(4, 3, 4), (6, 2, 8)])
def test_guessing_from_sketches(make, k: int, m: int, w: int) -> None:
    """Enumerated over all reports of these functions."""
    protocol = make(k, 1.5, m, w)
    rows = range(min(m, 3))
    total = sum(
        max(protocol.probability(y, x) for x in range(k)) for y in protocol.outputs()
    ) / len(rows)
    assert audit.attack_success(protocol) == pytest.approx(float(total) / k, rel=1e-12)


@pytest.mark.parametrize("make", [CMS, HCMS, THE])
def test_new_reports_travel(make) -> None:
    protocol = make(10, 1.0)
    reports = randomize(protocol, np.arange(50) % 10, noise_random_state=7)
    again = Reports.from_bytes(reports.to_bytes(), protocol)
    assert protocol.support(again.payload).tolist() == protocol.support(reports.payload).tolist()
    blob = bytearray(reports.to_bytes())
    for at in range(0, len(blob), 7):
        damaged = bytes(blob[:at]) + bytes([blob[at] ^ 0x55]) + bytes(blob[at + 1 :])
        with pytest.raises(ValueError):
            Reports.from_bytes(damaged, protocol)
    if make is not THE:
        with pytest.raises(DataIntegrityError):
            Reports.from_bytes(reports.to_bytes(), make(10, 1.0, hash_seed=1))
        assert Client(protocol).privatize([3]).n == 1


def test_bad_parameters_and_payloads() -> None:
    for call in (
        lambda: THE(4, 1.0, 0.4), lambda: THE(4, 1.0, 1.1), lambda: SHE(4, 1.0, 0),
        lambda: SHE(4, 1.0, 1 << 21), lambda: CMS(4, 1.0, 0), lambda: CMS(4, 1.0, 4, 1),
        lambda: CMS(4, 1.0, 1 << 17), lambda: CMS(4, 1.0, 1 << 13, 1 << 12),
        lambda: HCMS(4, 1.0, 4, 12), lambda: CMS(4, 1.0, hash_seed=-1),
        lambda: exact_epsilon(CMS(4, 1.0)), lambda: SHE(4, 1.0).variance(2.0),
        lambda: audit.guess_values(randomize(SHE(4, 1.0), [1])),
    ):  # fmt: skip
        with pytest.raises(InvalidParameterError):
            call()
    row, other = np.zeros(2, np.uint8), np.full(2, 4, np.uint8)
    for protocol, payload in (
        (CMS(4, 1.0, 4, 8), {"row": other, "bits": np.zeros((2, 1), np.uint8)}),
        (CMS(4, 1.0, 4, 8), {"row": row, "bits": np.zeros((3, 1), np.uint8)}),
        (HCMS(4, 1.0, 4, 8), {"row": row, "cell": np.full(2, 16, np.uint32)}),
        (HCMS(4, 1.0, 4, 8), {"row": row, "cell": np.zeros(3, np.uint32)}),
        (HCMS(4, 1.0, 4, 8), {"row": row.astype(np.int64), "cell": np.zeros(2, np.uint32)}),
    ):
        with pytest.raises(DataError):
            Reports(protocol, payload)


# -- counts without users -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "protocol",
    [GRR(4, 1.0), OUE(4, 1.0), SUE(4, 1.0), THE(4, 1.0), OLH(4, 1.0), SS(4, 1.0), HR(4, 1.0)],
    ids=lambda p: p.name,
)
def test_simulated_counts_have_the_law_of_real_ones(protocol) -> None:
    """1,500 runs of 60 users each way: means, variances and covariances within 5 standard
    errors, each of 14 numbers per protocol (false alarms below 1e-5)."""
    hist, runs = np.array([30, 20, 10, 0]), 1500
    values, stream = np.repeat(np.arange(4), hist), secret_stream(8)
    real = np.array([protocol.support(protocol.randomise(values, stream)) for _ in range(runs)])
    made = np.array(
        [simulate_counts(hist, protocol, noise_random_state=seed) for seed in range(runs)]
    )
    p, q = protocol.p_, protocol.q_
    expected = hist * p + (60 - hist) * q
    spread = np.sqrt(real.var(axis=0) / runs)
    assert (np.abs(made.mean(axis=0) - expected) < 5 * spread).all()
    a, b = np.cov(real.T), np.cov(made.T)
    scale = np.sqrt(np.outer(np.diag(a), np.diag(a))) * math.sqrt(2 / runs)
    assert (np.abs(a - b) < 7.1 * scale).all()
    if protocol.name == "GRR":
        assert (made.sum(axis=1) == 60).all()


def test_simulation_is_out_of_the_clients_reach() -> None:
    import privfair.ldp._client as client

    tree = ast.parse(inspect.getsource(client))
    imported = [
        name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        for name in [node.module or "", *(alias.name for alias in node.names)]
    ]  # fmt: skip
    assert not any("simulate" in name for name in imported)
    assert not any("simulate" in name for name in dir(Client))


def test_bad_histograms() -> None:
    for hist in ([1, 2], [1.0, 2, 3], [-1, 2, 3], [[1, 2, 3]], [True, False, True]):
        with pytest.raises(DataError):
            simulate_counts(hist, GRR(3, 1.0))
    assert simulate_counts([0, 0, 0], OLH(3, 1.0)).tolist() == [0, 0, 0]
