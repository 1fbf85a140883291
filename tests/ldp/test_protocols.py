"""Pure protocols: exact laws, published variances, unbiased estimates, honest intervals."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.randomness import secret_stream
from privfair.ldp import BLH, GRR, HR, OLH, OUE, PGR, SS, SUE, Aggregator, exact_epsilon, randomize
from privfair.ldp._exact import ONE, ByteSampler, below, bernoulli, exp_fraction, threshold
from privfair.ldp._hashing import hash_bucket, support_of_hashes
from privfair.ldp._structured import walsh_hadamard

ALL = (GRR, SUE, OUE, BLH, OLH, SS, HR, PGR)
EXACT = (GRR, SUE, OUE, SS, HR, PGR)  # reports can be listed without a seed


def ids(items):
    return [getattr(i, "__name__", str(i)) for i in items]


# -- the law ------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", ALL, ids=ids(ALL))
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("k", [2, 3, 5, 6])
def test_epsilon_by_enumeration(make, epsilon: float, k: int) -> None:
    """Never above the declared one, and at least that less 1e-9, for the law really drawn."""
    found = exact_epsilon(make(k, epsilon))
    assert epsilon - 1e-9 <= found <= epsilon


@pytest.mark.parametrize("omega", [1, 2, 3, 4, 5])
def test_every_subset_size_keeps_epsilon(omega: int) -> None:
    protocol = SS(6, 1.5, omega)
    assert 1.5 - 1e-9 <= exact_epsilon(protocol) <= 1.5
    if omega == 1:
        assert protocol.variance() == pytest.approx(GRR(6, 1.5).variance())


@pytest.mark.parametrize("make", ALL, ids=ids(ALL))
def test_probabilities_sum_to_one_and_support_has_p_and_q(make) -> None:
    protocol = make(5, 1.0)
    outputs = list(protocol.outputs())
    seeds = 7 if make in (BLH, OLH) else 1
    for value in range(5):
        assert sum(protocol.probability(o, value) for o in outputs) == seeds
    if seeds > 1:
        return
    for value in range(5):
        for other in range(5):
            mass = sum(
                protocol.probability(o, value) for o in outputs if supports(protocol, o, other)
            )
            assert mass == (protocol.exact_p if other == value else protocol.exact_q)


def supports(protocol, output, value: int) -> bool:
    if isinstance(protocol, GRR):
        return output == value
    if isinstance(protocol, SS):
        return value in output
    if isinstance(protocol, SUE | OUE):
        return output[value] == 1
    payload = {"code": np.array([output])}
    return bool(protocol.support_matrix(payload)[0, value])


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (OUE(16, 1.0), 3.68269), (OLH(16, 1.0, 4), 3.69165), (SUE(16, 1.0), 3.91770),
        (HR(16, 1.0), 4.68269), (BLH(16, 1.0), 4.68269), (GRR(16, 1.0), 5.66243),
        (SS(16, 1.0, 4), 3.11072), (PGR(13, 1.0), 3.04607),
    ],
)  # fmt: skip
def test_published_variances(protocol, expected: float) -> None:
    assert protocol.variance() == pytest.approx(expected, abs=6e-6)


def test_projective_geometry_of_the_reference() -> None:
    protocol = PGR(13, 1.0)
    assert (protocol.r_, protocol.t_, protocol.K_) == (3, 3, 13)
    assert protocol.p_ == pytest.approx(0.547127, abs=1e-6)
    assert protocol.q_ == pytest.approx(0.287739, abs=1e-6)


@pytest.mark.parametrize("make", ALL, ids=ids(ALL))
def test_the_drawn_reports_follow_the_law(make) -> None:
    """Chi-square of 60,000 reports per value at level 1e-6; a p off by 5 % fails it surely."""
    protocol, n = make(4, 1.0), 60_000
    for value in range(2):
        reports = randomize(protocol, np.full(n, value), noise_random_state=10 + value)
        if make in (BLH, OLH):
            own = hash_bucket(reports.payload["seed"], np.full(n, value), 4, protocol.g_)
            right = int((own == reports.payload["bucket"]).sum())
            assert stats.binomtest(right, n, protocol.p_).pvalue > 1e-6
            continue
        drawn = Counter(listed(protocol, reports.payload))
        outputs = list(protocol.outputs())
        expected = [float(protocol.probability(o, value)) * n for o in outputs]
        assert set(drawn) <= set(outputs)
        assert stats.chisquare([drawn[o] for o in outputs], expected).pvalue > 1e-6


def listed(protocol, payload) -> list:
    if "code" in payload:
        return payload["code"].tolist()
    rows = protocol.support_matrix(payload)
    if isinstance(protocol, SS):
        return [tuple(np.flatnonzero(row).tolist()) for row in rows]
    return [tuple(row.astype(int).tolist()) for row in rows]


@pytest.mark.parametrize("make", ALL, ids=ids(ALL))
def test_estimates_are_unbiased_with_the_variance_stated(make) -> None:
    """40 runs of 20,000 reports over Zipf's law on 16 values, pooled over runs and values.

    The mean square of 640 standardised errors lies in [0.8, 1.2] but with probability 1e-3 per
    protocol, and the mean of each value within 4.5 standard errors.
    """
    k, n, runs = 16, 20_000, 40
    share = 1 / np.arange(1, k + 1) ** 1.1
    values = np.repeat(np.arange(k), np.rint(n * share / share.sum()).astype(int))
    truth = np.bincount(values, minlength=k) / len(values)
    protocol = make(k, 1.0)
    stream = secret_stream(4)
    errors = []
    for _ in range(runs):
        counts = protocol.support(protocol.randomise(values, stream))
        errors.append(protocol.frequencies(counts, len(values)) - truth)
    z = np.array(errors) / np.sqrt(protocol.variance(truth, len(values)))
    assert 0.8 <= np.square(z).mean() <= 1.2
    assert np.abs(z.mean(axis=0)).max() * math.sqrt(runs) < 4.5


@pytest.mark.parametrize("make", ALL, ids=ids(ALL))
def test_intervals_cover(make) -> None:
    """60 runs x 12 values at 95 %: fewer than 93 % covered has probability below 1e-2 if exact,
    and these intervals are conservative."""
    k, n = 12, 3_000
    values = np.arange(n) ** 2 % k
    truth = np.bincount(values, minlength=k) / n
    protocol = make(k, 1.0)
    inside = []
    for seed in range(60):
        found = Aggregator(protocol).partial_fit(
            randomize(protocol, values, noise_random_state=seed)
        ).estimate()  # fmt: skip
        inside.append((found.ci_low <= truth) & (truth <= found.ci_high))
    assert np.mean(inside) >= 0.93


@pytest.mark.parametrize("make", ALL, ids=ids(ALL))
def test_support_agrees_with_its_definition(make) -> None:
    for k in (2, 7, 9, 40):
        protocol = make(k, 1.2)
        payload = protocol.randomise(np.arange(500) % k, secret_stream(1))
        assert (
            protocol.support(payload).tolist() == protocol.support_matrix(payload).sum(0).tolist()
        )


def test_large_domains_hash_with_64_bits() -> None:
    k, g = 70_000, 5
    seeds = secret_stream(2).uint64(300)
    buckets = hash_bucket(seeds, np.full(300, k - 1), k, g)
    counts = support_of_hashes(seeds, buckets.astype(np.uint8), k, g)
    assert counts[k - 1] == 300
    for v in (0, 1, 65_535, 65_536):
        assert counts[v] == (hash_bucket(seeds, np.full(300, v), k, g) == buckets).sum()


@pytest.mark.parametrize("g", [2, 4, 7])
def test_the_hash_is_pairwise_independent(g: int) -> None:
    """Collisions of 12 pairs over 400,000 seeds, each within 4.5 standard errors of 1 / g."""
    seeds = secret_stream(3).uint64(400_000)
    pairs = [(0, 1), (1, 2), (0, 2), (3, 4), (0, 1024), (511, 512), (5, 10), (0, 65_535),
             (32_768, 0), (7, 8), (100, 101), (2, 4)]  # fmt: skip
    for u, v in pairs:
        same = (
            hash_bucket(seeds, np.full(len(seeds), u), 1 << 16, g)
            == hash_bucket(seeds, np.full(len(seeds), v), 1 << 16, g)
        ).mean()
        assert abs(same - 1 / g) < 4.5 * math.sqrt((1 - 1 / g) / g / len(seeds))


@given(st.lists(st.integers(-1000, 1000), min_size=8, max_size=8))
def test_fast_transform_is_the_matrix(values: list[int]) -> None:
    from scipy.linalg import hadamard

    assert walsh_hadamard(np.array(values)).tolist() == (hadamard(8) @ np.array(values)).tolist()


# -- exact sampling -----------------------------------------------------------------------------
def test_the_exponential_is_bracketed() -> None:
    from mpmath import mp, mpf

    with mp.workdps(100):
        for x in (1e-3, 0.5, 1.0, 7.3, 50.0):
            low, high = exp_fraction(x), exp_fraction(x, up=True)
            true = mp.exp(mpf(x))
            assert mpf(low.numerator) / low.denominator <= true
            assert true <= mpf(high.numerator) / high.denominator
            assert (high - low) / low < Fraction(1, 10**55)


def test_thresholds_round_to_the_side_asked_for() -> None:
    p = Fraction(1, 3)
    assert Fraction(threshold(p), ONE) < p < Fraction(threshold(p, up=True), ONE)
    assert threshold(Fraction(1, 2)) == threshold(Fraction(1, 2), up=True) == ONE // 2


def test_bernoulli_and_integers() -> None:
    """Binomial tests at level 1e-6."""
    stream = secret_stream(5)
    hits = int(bernoulli(threshold(Fraction(3, 10)), 200_000, stream).sum())
    assert stats.binomtest(hits, 200_000, 0.3).pvalue > 1e-6
    assert bernoulli(ONE, 5, stream).all() and not bernoulli(0, 5, stream).any()
    for m in (1, 3, 8, 1000):
        drawn = below(m, 100_000, stream)
        assert drawn.min() >= 0 and drawn.max() < m
        if m > 1:
            assert stats.chisquare(np.bincount(drawn, minlength=m)).pvalue > 1e-6


class Rejecting:
    """A stream whose first words must all be rejected."""

    def __init__(self) -> None:
        self.calls = 0

    def uint64(self, size: int) -> np.ndarray:
        self.calls += 1
        return np.full(size, ONE - 1 if self.calls == 1 else 5, dtype=np.uint64)


def test_integers_reject_the_uneven_rest() -> None:
    assert below(3, 4, Rejecting()).tolist() == [2, 2, 2, 2]  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.5, 0.2689, 0.001, 0.999])
def test_bytes_of_bits(share: float) -> None:
    """Patterns of 400,000 bytes against the exact law, and the rare path by itself; 1e-6."""
    t = threshold(Fraction(share))
    sampler, stream = ByteSampler(t), secret_stream(6)
    law = [t ** b.bit_count() * (ONE - t) ** (8 - b.bit_count()) for b in range(256)]
    drawn = np.bincount(sampler.draw(400_000, stream), minlength=256)
    assert _pooled(drawn, [w / ONE**8 for w in law]) > 1e-6
    rest = [w * 65536 % ONE**8 for w in law]
    if sum(rest):
        drawn = np.bincount(sampler._rest(200_000, stream), minlength=256)
        assert _pooled(drawn, [float(Fraction(r, sum(rest))) for r in rest]) > 1e-6


def _pooled(drawn: np.ndarray, chances: list[float]) -> float:
    """Chi-square p-value with cells of fewer than 10 expected draws pooled."""
    expected = np.array(chances) * drawn.sum()
    big = expected >= 10
    seen = [*drawn[big], drawn[~big].sum()]
    wanted = [*expected[big], expected[~big].sum()]
    if wanted[-1] < 10:
        seen, wanted = seen[:-1], wanted[:-1]
        wanted = np.array(wanted) * sum(seen) / sum(wanted)
    return 1.0 if len(seen) < 2 else float(stats.chisquare(seen, wanted).pvalue)


def test_ties_of_the_byte_sampler_are_settled_exactly() -> None:
    """A word in the cell of an edge takes more bits, and either side comes up."""
    sampler = ByteSampler(threshold(Fraction(3, 10)))
    word = int(sampler._cells[20])
    found = {sampler._settle(word, secret_stream(seed)) for seed in range(60)}
    assert found == {20, 21}


# -- bad input ----------------------------------------------------------------------------------
@pytest.mark.parametrize("make", ALL, ids=ids(ALL))
@pytest.mark.parametrize(
    ("k", "epsilon", "error"),
    [
        (1, 1.0, InvalidParameterError),
        (4, 0.0, InvalidParameterError),
        (4, -1.0, InvalidParameterError),
        (4, math.nan, InvalidParameterError),
        (4, math.inf, InvalidParameterError),
        (4, 51.0, InvalidParameterError),
        (True, 1.0, InvalidTypeError),
        (4, "1", InvalidTypeError),
        (4.5, 1.0, InvalidParameterError),
    ],
)
def test_bad_parameters(make, k, epsilon, error) -> None:
    with pytest.raises(error):
        make(k, epsilon)


def test_bad_shapes_of_protocols() -> None:
    for call in (
        lambda: SS(5, 1.0, 5), lambda: SS(5, 1.0, 0), lambda: OLH(5, 1.0, 1),
        lambda: OLH(5, 1.0, 257), lambda: BLH(5, 1.0, 3), lambda: exact_epsilon(GRR(9, 1.0)),
        lambda: GRR(4, 1.0).variance(2.0), lambda: GRR(4, 1.0).variance(0.1, 0),
        lambda: GRR(4, 1.0).variance(0.1, 10, "some"),
    ):  # fmt: skip
        with pytest.raises(InvalidParameterError):
            call()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([0.0, 1.0], InvalidTypeError),
        ([True, False], InvalidTypeError),
        (["a"], InvalidTypeError),
        ([4], InvalidParameterError),
        ([-1], InvalidParameterError),
        ([[0, 1]], DataError),
    ],
)
def test_bad_values_quote_nothing(values, error) -> None:
    with pytest.raises(error) as caught:
        randomize(GRR(4, 1.0), values)
    assert "-1" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.floats(0.05, 8.0))
def test_subset_selection_never_loses_to_grr_or_oue(k: int, epsilon: float) -> None:
    best = SS(k, epsilon).variance()
    assert best <= GRR(k, epsilon).variance() * (1 + 1e-9)
    assert best <= OUE(k, epsilon).variance() * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ALL), st.integers(2, 60), st.floats(0.05, 6.0), st.floats(0, 1))
def test_variance_is_positive_and_falls_with_epsilon(make, k, epsilon, f) -> None:
    here, there = make(k, epsilon), make(k, epsilon + 0.5)
    assert here.p_ > here.q_
    assert here.variance(f, 100, "iid") == pytest.approx(
        here.variance(f, 100) + f * (1 - f) / 100, rel=1e-9, abs=1e-12
    )
    if make not in (OLH, PGR):  # whose integer parameters jump
        assert there.variance(0.0) < here.variance(0.0)


def test_protocols_are_values() -> None:
    assert OLH(16, 1.0) == OLH(16, 1.0)
    assert len({GRR(4, 1.0), GRR(4, 1.0), GRR(4, 2.0)}) == 2
    assert GRR(4, 1.0).fingerprint() != GRR(4, math.nextafter(1.0, 2)).fingerprint()
    assert GRR(4, 1.0).event().eps0 == 1.0
