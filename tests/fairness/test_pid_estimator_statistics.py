"""Intervals and tests of the decomposition, against simulation.

Seeds are fixed; where a draw decides, the margin is at least four standard errors of its count.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from privfair.fairness.pid._analysis import Settings, analyse, solve
from privfair.fairness.pid._data import PIDTable, tabulate
from privfair.fairness.pid._tests import (
    degrees_of_freedom,
    permuted_clients,
    permuted_groups,
    random_tables,
)
from privfair.fairness.pid._uncertainty import (
    PARTS,
    bootstrap_parts,
    corrections,
    influences,
    part_values,
    standard_errors,
    subsampled_parts,
)

# Interior: the curves of decision and client cross, and no part is near zero.
INTERIOR = np.array(
    [
        [[0.04, 0.04, 0.12], [0.06, 0.02, 0.15]],
        [[0.04, 0.02, 0.04], [0.05, 0.22, 0.20]],
    ]
)
SHAPE = INTERIOR.shape


def as_table(counts):
    """A table (z, yhat, s) of counts, or with a leading axis of strata."""
    counts = np.asarray(counts)
    counts = counts if counts.ndim == 4 else counts[None]
    sums = counts.astype(float)
    axes = [tuple(range(k)) for k in counts.shape]
    groups = tuple((str(v),) for v in axes[1])
    strata = ("all",) if counts.shape[0] == 1 else axes[0]
    return PIDTable(counts, sums, sums, groups, ("z",), axes[2], axes[3], strata)


def errors_of(table, **options):
    result = solve(table, Settings())
    return standard_errors(table, result, influences(table, result), **options)


# --- spread ---------------------------------------------------------------------------------


def test_standard_errors_are_those_of_simulation():
    n, draws = 4000, 3000
    rng = np.random.default_rng(1)
    sample = rng.multinomial(n, INTERIOR.reshape(-1), size=draws).reshape(draws, 1, *SHAPE)
    spread = {name: np.std(v, ddof=1) for name, v in part_values(sample.astype(float)).items()}
    found = errors_of(as_table(np.rint(INTERIOR * n).astype(int)))
    # A standard deviation of 3,000 draws has a relative error of 1.3 %.
    for name in PARTS:
        assert found[name] == pytest.approx(spread[name], rel=0.055), name


def test_standard_errors_with_fixed_client_sizes():
    sizes, draws = np.rint(INTERIOR.sum(axis=(0, 1)) * 4000).astype(int), 3000
    rng = np.random.default_rng(2)
    inner = INTERIOR / INTERIOR.sum(axis=(0, 1))
    sample = np.stack(
        [
            rng.multinomial(size, inner[:, :, k].reshape(-1), size=draws).reshape(draws, 2, 2)
            for k, size in enumerate(sizes)
        ],
        axis=-1,
    )
    spread = {n: np.std(v, ddof=1) for n, v in part_values(sample[:, None].astype(float)).items()}
    table = as_table(np.rint(INTERIOR * 4000).astype(int))
    found, free = errors_of(table, by_client=True), errors_of(table)
    for name in PARTS:
        assert found[name] == pytest.approx(spread[name], rel=0.055), name
    assert found["redundant"] < 0.995 * free["redundant"]
    drawn = bootstrap_parts(table, 2000, np.random.default_rng(0), by_client=True)
    assert np.std(drawn["redundant"]) == pytest.approx(found["redundant"], rel=0.08)


def test_standard_errors_of_strata_and_of_weights():
    rng = np.random.default_rng(3)
    joint = np.stack([0.4 * INTERIOR, 0.6 * INTERIOR[::-1, :, ::-1]])
    joint[1, 0] *= 0.7
    joint /= joint.sum()
    n, draws = 5000, 3000
    sample = rng.multinomial(n, joint.reshape(-1), size=draws).reshape(draws, *joint.shape)
    spread = {name: np.std(v, ddof=1) for name, v in part_values(sample.astype(float)).items()}
    found = errors_of(as_table(np.rint(joint * n).astype(int)))
    for name in PARTS:
        assert found[name] == pytest.approx(spread[name], rel=0.055), name

    z, y, s = np.unravel_index(rng.choice(12, 6000, p=INTERIOR.reshape(-1)), SHAPE)
    weight = rng.exponential(size=6000)
    table = tabulate(y, sensitive_features=z, client=s, sample_weight=weight)
    drawn = bootstrap_parts(table, 600, np.random.default_rng(0))
    for name, se in errors_of(table).items():
        # 600 draws: 2.9 %; the bootstrap's own bias is of lower order.
        assert np.std(drawn[name]) == pytest.approx(se, rel=0.12), name


def test_standard_errors_see_that_strata_differ():
    """Which stratum a row falls in moves the mean over the strata."""
    share = np.array([0.3, 0.3, 0.4])
    strong = 0.5 * np.array([[0.97, 0.03], [0.03, 0.97]])[:, :, None] * share
    weak = 0.5 * np.array([[0.55, 0.45], [0.45, 0.55]])[:, :, None] * share
    joint = np.stack([0.4 * strong, 0.6 * weak])
    n, draws = 5000, 3000
    sample = np.random.default_rng(3).multinomial(n, joint.reshape(-1), size=draws)
    values = part_values(sample.reshape(draws, *joint.shape).astype(float))
    found = errors_of(as_table(np.rint(joint * n).astype(int)))
    for name in ("global_disparity", "local_disparity"):
        assert found[name] == pytest.approx(np.std(values[name], ddof=1), rel=0.055), name


def test_the_bootstrap_is_one_of_rows():
    table = as_table(np.rint(INTERIOR * 500).astype(int))
    drawn = bootstrap_parts(table, 4000, np.random.default_rng(0))
    for name, se in errors_of(table).items():
        assert np.std(drawn[name]) == pytest.approx(se, rel=0.12), name
    table = as_table(np.rint(INTERIOR * 20000).astype(int))
    sub, share = subsampled_parts(table, 4000, np.random.default_rng(0))
    assert share == pytest.approx(round(20000**0.7) / 20000)
    # Without replacement: the finite population takes sqrt(1 - b/n) off.
    want = errors_of(table)["local_disparity"] * math.sqrt((1 - share) / share)
    assert np.std(sub["local_disparity"]) == pytest.approx(want, rel=0.08)


# --- bias -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [400, 1500])
def test_bias_is_that_of_simulation(n):
    draws = 20000
    rng = np.random.default_rng(4)
    sample = rng.multinomial(n, INTERIOR.reshape(-1), size=draws).reshape(draws, 1, *SHAPE)
    table = as_table(np.rint(INTERIOR * n).astype(int))
    truth = part_values(table.sums)
    values = part_values(sample.astype(float))
    result = solve(table, Settings())
    bias = corrections(table, result, influences(table, result))
    for name in ("unique", "global_disparity", "local_disparity"):
        off = values[name] - float(truth[name])
        noise = float(np.std(off)) / math.sqrt(draws)
        assert bias[name] == pytest.approx(off.mean(), abs=4 * noise + 0.1 * abs(off.mean())), name


def test_independence_with_ten_clients_has_the_known_bias():
    rng = np.random.default_rng(5)
    sample = rng.multinomial(500, np.full(40, 1 / 40), size=2000).reshape(2000, 1, 2, 2, 10)
    mean = float(part_values(sample.astype(float))["local_disparity"].mean())
    table = as_table(sample[0, 0])
    result = solve(table, Settings())
    bias = corrections(table, result, influences(table, result))["local_disparity"]
    assert bias == pytest.approx(10 / 1000 / math.log(2))
    assert mean == pytest.approx(0.0149, abs=0.0005)
    found = analyse(table, Settings(n_resamples=0))
    assert found.corrected["local_disparity"] < found.values["local_disparity"]


def test_degrees_of_freedom_count_what_occurs():
    counts = np.zeros((2, 3, 3))
    counts[:, :, 0] = 5  # 2 groups, 3 decisions: 2
    counts[:, :2, 1] = 5  # 2 groups, 2 decisions: 1
    counts[0, :, 2] = 5  # 1 group: 0
    overall, by_client = degrees_of_freedom(counts)
    assert (int(overall), by_client.tolist()) == (2, [2, 1, 0])


def test_corrected_parts_still_add_up():
    rng = np.random.default_rng(6)
    for _ in range(60):
        joint = rng.dirichlet(np.full(2 * 3 * 6, 0.4))
        table = as_table(rng.multinomial(300, joint).reshape(2, 3, 6))
        c = analyse(table, Settings(n_resamples=0)).corrected
        assert all(c[name] >= 0 for name in PARTS if name != "coinformation")
        assert c["global_disparity"] == pytest.approx(c["unique"] + c["redundant"])
        assert c["local_disparity"] == pytest.approx(c["unique"] + c["masked"])


# --- intervals ------------------------------------------------------------------------------


@pytest.mark.parametrize("ci", ["influence", "bootstrap"])
def test_intervals_cover_in_the_interior(ci):
    n, draws = 3000, 300
    rng = np.random.default_rng(7)
    truth = part_values(INTERIOR[None])
    hits = dict.fromkeys(PARTS, 0)
    for _ in range(draws):
        table = as_table(rng.multinomial(n, INTERIOR.reshape(-1)).reshape(SHAPE))
        found = analyse(table, Settings(ci=ci, n_resamples=0 if ci == "influence" else 200))
        for name, (low, high) in found.intervals.items():
            hits[name] += low <= truth[name] <= high
    # At a true 95 % fewer than 90 % of 300 have probability 2e-4.
    assert all(hit >= 0.90 * draws for hit in hits.values()), hits


def test_the_boundary_is_seen_and_its_bound_covers():
    rng = np.random.default_rng(8)
    null = np.full((2, 2, 2), 1 / 8)
    near = null + 0.012 * np.array([[[1, 1], [-1, -1]], [[-1, -1], [1, 1]]])
    for joint, n in ((null, 800), (near, 800)):
        truth = part_values(joint[None])
        covered = dict.fromkeys(PARTS, 0)
        for _ in range(150):
            table = as_table(rng.multinomial(n, joint.reshape(-1)).reshape(2, 2, 2))
            found = analyse(table, Settings(n_resamples=100, random_state=rng))
            assert found.boundary["masked"]
            assert found.intervals["masked"][0] == 0
            for name, (low, high) in found.intervals.items():
                covered[name] += low - 1e-12 <= truth[name] <= high
        del covered["coinformation"]
        assert all(hit >= 0.9 * 150 for hit in covered.values()), covered


def test_the_confidence_widens():
    table = as_table(np.rint(INTERIOR * 1000).astype(int))
    wide, narrow = (
        analyse(table, Settings(confidence=c, n_resamples=200, random_state=0)).intervals
        for c in (0.99, 0.8)
    )
    for name in PARTS:
        assert wide[name][0] <= narrow[name][0] < narrow[name][1] < wide[name][1]


# --- tests ----------------------------------------------------------------------------------


def test_random_tables_have_the_law_of_permutations():
    groups = np.array([0, 0, 1, 1, 1, 2])
    decisions = np.array([0, 1, 1, 2, 2, 2])
    rows, columns = np.bincount(groups), np.bincount(decisions)
    counts: dict[bytes, int] = {}
    for order in set(itertools.permutations(groups.tolist())):
        table = np.zeros((3, 3), dtype=np.int64)
        np.add.at(table, (list(order), decisions), 1)
        counts[table.tobytes()] = counts.get(table.tobytes(), 0) + 1
    drawn = random_tables(rows, columns, 20000, np.random.default_rng(0))
    seen = dict.fromkeys(counts, 0)
    for table in drawn:
        seen[table.tobytes()] += 1  # a table of other margins has no key
    total = sum(counts.values())
    expected = np.array([counts[key] / total * 20000 for key in counts])
    p = stats.chisquare([seen[key] for key in counts], expected).pvalue
    assert p > 1e-4


def test_permutations_keep_what_they_must():
    rng = np.random.default_rng(9)
    counts = rng.integers(0, 30, (2, 3, 2, 4))
    table = as_table(counts)
    for tables in permuted_clients(table, 20, rng):
        assert (tables.sum(axis=2) == counts.sum(axis=1)).all()
        assert (tables.sum(axis=3) == counts.sum(axis=2)).all()
    for tables in permuted_groups(table, 20, rng):
        assert (tables.sum(axis=2) == counts.sum(axis=(1, 3))).all()
        assert (tables.sum(axis=3) == counts.sum(axis=(2, 3))).all()


def test_weighted_permutations_keep_weight_decision_and_client_together():
    rng = np.random.default_rng(10)
    y, z, s = rng.integers(0, 2, 200), rng.integers(0, 2, 200), rng.integers(0, 3, 200)
    table = tabulate(y, sensitive_features=z, client=s, sample_weight=rng.random(200))
    for tables in permuted_clients(table, 30, rng):
        assert np.allclose(tables.sum(axis=2), table.sums.sum(axis=1))
        assert np.std(tables[:, 0, 0, 0, 0]) > 0
    ones = tabulate(y, sensitive_features=z, client=s, sample_weight=np.ones(200))
    plain = tabulate(y, sensitive_features=z, client=s)
    a = np.concatenate(list(permuted_clients(ones, 3000, np.random.default_rng(0))))
    b = np.concatenate(list(permuted_clients(plain, 3000, np.random.default_rng(1))))
    assert np.allclose(a.mean(axis=0), b.mean(axis=0), atol=5 * a.std(axis=0).max() / 50)
    assert np.allclose(a.std(axis=0), b.std(axis=0), rtol=0.1)


def test_the_permutation_tests_have_their_size_and_power():
    # 300 draws of a true 5 %: more than 10 % has probability 3e-4.
    rng = np.random.default_rng(11)
    z_in_s, y_in_s = np.array([0.3, 0.6]), np.array([0.4, 0.6])
    joint = np.zeros((2, 2, 2))
    for k in (0, 1):
        z = np.array([1 - z_in_s[k], z_in_s[k]])
        y = np.array([1 - y_in_s[k], y_in_s[k]])
        joint[:, :, k] = 0.5 * np.outer(z, y)  # locally fair, globally not
    found = []
    for _ in range(300):
        table = as_table(rng.multinomial(400, joint.reshape(-1)).reshape(2, 2, 2))
        nulls = analyse(table, Settings(ci=None, n_resamples=99, random_state=rng)).nulls
        found.append((nulls["global_disparity"].p_value, nulls["local_disparity"].p_value))
    p = np.array(found)
    assert (p[:, 1] <= 0.05).mean() < 0.10
    assert (p[:, 0] <= 0.05).mean() > 0.10  # sees the clients' make-up
    assert p.min() >= 1 / 100


def test_g_tests_agree_with_chi_squared_ones():
    rng = np.random.default_rng(12)
    counts = rng.integers(5, 40, (2, 3, 2))
    found = analyse(as_table(counts), Settings(n_resamples=0)).tests
    pooled = stats.chi2_contingency(counts.sum(axis=2), lambda_="log-likelihood")
    each = [
        stats.chi2_contingency(counts[:, :, k], correction=False, lambda_="log-likelihood")
        for k in (0, 1)
    ]
    assert found.global_statistic == pytest.approx(pooled.statistic)
    assert found.global_p_value == pytest.approx(pooled.pvalue)
    assert found.local_statistic == pytest.approx(sum(e.statistic for e in each))
    assert found.local_df == sum(e.dof for e in each) == 4


def test_a_seed_repeats_everything_and_stages_are_independent():
    table = as_table(np.rint(INTERIOR * 600).astype(int))
    a, b = (analyse(table, Settings(ci="bootstrap", n_resamples=60, random_state=5)) for _ in "ab")
    assert a.intervals == b.intervals
    assert a.nulls == b.nulls
    c = analyse(table, Settings(ci="influence", n_resamples=60, random_state=5))
    assert c.nulls == a.nulls
