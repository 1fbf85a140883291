"""Pairs of attributes, and frequent items of huge domains."""

from __future__ import annotations

import math

import numpy as np
import pytest

from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.ldp import PEM, PairwiseMarginals, RowReports, exact_epsilon, exact_row_epsilons
from privfair.ldp._heavy import PrefixHash

SIZES = (3, 2, 4)


def rows_of(n: int) -> np.ndarray:
    a = np.arange(n) % 3
    return np.column_stack([a, (a > 0).astype(int), (a + np.arange(n) // 3 % 2) % 4])


# -- pairs ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "protocol"),
    [("product", "auto"), ("split", "GRR"), ("split", "OUE"), ("split", "SS"), ("split", "HR")],
)
def test_joint_frequencies_are_unbiased_with_the_variance_stated(method, protocol) -> None:
    """50 runs: mean square of 6 + 12 + 8 standardised errors in [0.75, 1.25] but with probability
    below 1e-3, each mean within 4.5 standard errors, 93 % of intervals at least."""
    n, runs = 3_000, 50
    rows = rows_of(n)
    z, covered = [], []
    for seed in range(runs):
        server = PairwiseMarginals(SIZES, 4.0, method=method, protocol=protocol)
        server.partial_fit(server.privatize(rows, noise_random_state=seed))
        errors = []
        for a, b in server.pairs:
            found = server.estimate(a, b)
            joint = np.zeros((SIZES[a], SIZES[b]))
            np.add.at(joint, (rows[:, a], rows[:, b]), 1 / n)
            truth = joint.reshape(-1)
            errors.append((found.frequencies_raw - truth) / found.std)
            covered.append((found.ci_low <= truth) & (truth <= found.ci_high))
        z.append(np.concatenate(errors))
    assert 0.6 <= np.square(z).mean() <= 1.25  # people are given, and stated as drawn
    assert np.abs(np.mean(z, axis=0)).max() * math.sqrt(runs) < 4.5
    assert np.concatenate(covered).mean() >= 0.93


@pytest.mark.parametrize("method", ["product", "split"])
def test_sums_of_pairs_merge_and_both_methods_cost_epsilon(method) -> None:
    whole = PairwiseMarginals(SIZES, 1.0, method=method)
    reports = whole.privatize(rows_of(500), noise_random_state=0)
    assert isinstance(RowReports.from_bytes(reports.to_bytes(), whole.strategy_), RowReports)
    whole.partial_fit(reports)
    parts = [
        PairwiseMarginals(SIZES, 1.0, method=method).partial_fit(reports[a:b].to_bytes())
        for a, b in ((300, 500), (0, 300))
    ]
    both = parts[0].merge(parts[1])
    assert both.n_reports_ == 500
    for pair in whole.pairs:
        assert (both.table(*pair) == whole.table(*pair)).all()
    assert whole.strategy_.epsilon_tuple == 1.0


def test_the_split_is_epsilon_by_enumeration() -> None:
    strategy = PairwiseMarginals((2, 3), 1.0, method="split", protocol="GRR").strategy_
    assert exact_row_epsilons(strategy)[0] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("sizes", "epsilon"), [((2, 2), 1.0), ((8, 8), 6.0), ((2,) * 9, 8.0)])
def test_the_method_of_less_variance_is_taken(sizes, epsilon) -> None:
    """The variances that decide, against those estimated from uniform data within 15 %."""
    server = PairwiseMarginals(sizes, epsilon)
    assert server.variances_[server.method_] == min(server.variances_.values())
    n = 4_096
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.integers(k, size=n) for k in sizes])
    for method, stated in server.variances_.items():
        one = PairwiseMarginals(sizes, epsilon, method=method)
        one.partial_fit(one.privatize(rows, noise_random_state=1))
        cells = [one.estimate(a, b) for a, b in one.pairs]
        found = np.concatenate([n * e.std**2 for e in cells])
        if method == "product":  # these deviations are about the given people
            found += np.concatenate([e.frequencies_raw * (1 - e.frequencies_raw) for e in cells])
        found = found.mean()
        assert stated / 1.15 < found < stated * 1.15


def test_bad_pairs() -> None:
    for call in (
        lambda: PairwiseMarginals((3,), 1.0), lambda: PairwiseMarginals((3, 2), 1.0, pairs=[]),
        lambda: PairwiseMarginals((3, 2), 1.0, pairs=[(1, 0)]),
        lambda: PairwiseMarginals((3, 2), 1.0, pairs=[(0, 1), (0, 1)]),
        lambda: PairwiseMarginals((3, 2), 1.0, method="joint"),
        lambda: PairwiseMarginals((3, 2, 2), 1.0, pairs=[(0, 1)]).estimate(0, 2),
        lambda: PairwiseMarginals((3, 2), 1.0).merge(PairwiseMarginals((3, 2), 2.0)),
    ):  # fmt: skip
        with pytest.raises(InvalidParameterError):
            call()
    for method in ("product", "split"):
        with pytest.raises(DataError):
            PairwiseMarginals((3, 2), 1.0, method=method).estimate(0, 1)


# -- heavy hitters --------------------------------------------------------------------------------
def zipf_items(n: int, bits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items of Zipf's law with exponent 1.5, scattered over the domain; and the ranking."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, (1 << bits) + 1) ** 1.5
    names = rng.permutation(1 << bits)
    return names[rng.choice(1 << bits, n, p=share / share.sum())], names


def recall(seed: int, n: int, bits: int) -> float:
    items, names = zipf_items(n, bits, seed)
    finder = PEM(bits, 4.0)
    finder.partial_fit(finder.privatize(items, noise_random_state=seed))
    return float(np.isin(names[:10], finder.find().items).mean())


def test_the_top_items_are_found() -> None:
    """60,000 people, 2^12 items: every one of the top 10 was found with 3 seeds of 3."""
    assert np.mean([recall(seed, 60_000, 12) for seed in range(3)]) >= 0.9


@pytest.mark.slow
def test_the_top_items_of_a_large_domain_are_found() -> None:
    """200,000 people, 2^16 items: every one of the top 10 was found with 10 seeds of 10."""
    assert np.mean([recall(seed, 200_000, 16) for seed in range(10)]) >= 0.9


def test_items_come_with_intervals_and_losses_with_their_step() -> None:
    items = np.repeat([40_000, 123, 9_999, 5], [9_000, 6_000, 4_000, 300])
    finder = PEM(16, 4.0, top=3)
    reports = finder.privatize(items, noise_random_state=0)
    half = PEM(16, 4.0, top=3).partial_fit(reports[:9_000].to_bytes())
    found = half.merge(PEM(16, 4.0, top=3).partial_fit(reports[9_000:])).find()
    again = finder.partial_fit(reports).find()
    frame = found.to_frame()
    pd_items = frame["item"].tolist()
    assert pd_items == again.items.tolist() == [40_000, 123, 9_999]
    truth = np.array([9_000, 6_000, 4_000]) / len(items)
    assert ((frame["low"] <= truth) & (truth <= frame["high"])).all()
    assert [step.length for step in found.steps] == [8, 12, 16] == list(finder.lengths_)
    assert sum(step.n_reports for step in found.steps) == len(items)
    assert found.dropped_at(40_000, 16) is None
    lost = found.dropped_at(5, 16)
    step = next(s for s in found.steps if s.length == lost)
    assert lost in (8, 12, 16) and 5 >> (16 - lost) in step.dropped
    assert found.dropped_at(60_000, 16) == 8
    for step in found.steps:
        assert len(step.kept) == 3 and not set(step.kept) & set(step.dropped)


def test_intervals_hold_for_all_candidates_at_once() -> None:
    """30 runs: one with any of 48 intervals missed has probability 5 % at most; more than 6 of
    them below 1e-3."""
    items, _ = zipf_items(3_000, 12, 0)
    truth = np.bincount(items, minlength=1 << 12) / len(items)
    missed = 0
    for seed in range(30):
        finder = PEM(12, 3.0, top=3)
        e = finder.partial_fit(finder.privatize(items, noise_random_state=seed)).find().estimate
        f = truth[list(e.values)]
        missed += not bool(((e.ci_low <= f) & (f <= e.ci_high)).all())
    assert missed <= 6


def test_reports_of_prefixes_are_epsilon_local() -> None:
    found = exact_epsilon(PrefixHash(8, 1.5))
    assert 1.5 - 1e-9 <= found <= 1.5
    assert PEM(32, 1.5).strategy_.epsilon_tuple == 1.5
    finder = PEM(32, 5.0, top=2)
    reports = finder.privatize(np.full(3_000, 0xDEADBEEF), noise_random_state=1)
    assert finder.partial_fit(reports).find().items[0] == 0xDEADBEEF


def test_bad_finders_and_items() -> None:
    for call in (
        lambda: PEM(1, 1.0), lambda: PEM(33, 1.0), lambda: PEM(20, 1.0, start=17),
        lambda: PEM(20, 1.0, step=9), lambda: PEM(20, 1.0, top=5000), lambda: PEM(20, 0.0),
        lambda: PEM(8, 1.0).privatize([256]), lambda: PEM(8, 1.0).privatize([-1]),
        lambda: PEM(8, 1.0).merge(PEM(9, 1.0)),
        lambda: PEM(8, 1.0).partial_fit(PEM(9, 1.0).privatize([3])),
    ):  # fmt: skip
        with pytest.raises(InvalidParameterError):
            call()
    with pytest.raises(InvalidTypeError):
        PEM(8, 1.0).privatize([1.0])
    with pytest.raises(DataError):
        PEM(8, 1.0).find()
    with pytest.raises(ValueError):
        PEM(8, 1.0).partial_fit(b"PFLR")
