"""Intervals and tests of the decomposition, against simulation.

Seeds are fixed; where a draw decides, the margin is at least four standard errors of its count.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from privfair.fairness.pid import pid_from_joint
from privfair.fairness.pid._analysis import Settings, _global, _local, analyse, solve
from privfair.fairness.pid._data import PIDTable, tabulate
from privfair.fairness.pid._errors import second_order_errors
from privfair.fairness.pid._tests import (
    chi_squared_holds,
    degrees_of_freedom,
    g_test,
    information_nats,
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


def many_clients():
    """Twenty clients whose make-up and rates differ; three decisions."""
    rng = np.random.default_rng(3)
    size, share = rng.dirichlet(np.full(20, 8.0)), rng.beta(20, 20, 20)
    joint = np.zeros((2, 3, 20))
    for k in range(20):
        for z, mass in ((0, 1 - share[k]), (1, share[k])):
            lean = 0.5 * z + rng.normal(0, 0.2)
            rates = np.exp(np.array([0.0, lean, 2 * lean]))
            joint[z, :, k] = size[k] * mass * rates / rates.sum()
    return joint


def both_errors(table, size, seed=0, **options):
    result = solve(table, Settings())
    rows = influences(table, result)
    rng = np.random.default_rng(seed)
    return (
        standard_errors(table, result, rows, **options),
        *second_order_errors(table, result, rows, size, rng, **options),
    )


def test_standard_errors_over_many_clients():
    joint, n = many_clients(), 10000
    rng = np.random.default_rng(13)
    sample = rng.multinomial(n, joint.reshape(-1), size=8000).reshape(8000, *joint.shape)
    spread = {k: np.std(v, ddof=1) for k, v in part_values(sample[:, None].astype(float)).items()}
    found = [both_errors(as_table(counts), 200, seed) for seed, counts in enumerate(sample[:60])]
    ratio = {
        name: [np.mean([f[i][name] for f in found]) / spread[name] for i in (0, 1)]
        for name in PARTS
    }
    # The mean of 60 errors has a relative error of 2 % at most, the spread one of 0.8 %.
    for name in ("redundant", "masked", "global_disparity", "local_disparity", "coinformation"):
        assert ratio[name][1] == pytest.approx(1.0, abs=0.05), (name, ratio)
    assert min(ratio[name][0] for name in ("redundant", "masked")) > 1.05, "a hard setting"


def test_second_order_errors_are_the_first_order_ones_of_many_rows():
    rng = np.random.default_rng(14)
    z, y, s = np.unravel_index(rng.choice(12, 60000, p=INTERIOR.reshape(-1)), SHAPE)
    weighted = tabulate(
        y, sensitive_features=z, client=s, sample_weight=rng.choice([0.5, 1.0, 4.0], 60000)
    )
    strata = as_table(np.rint(np.stack([INTERIOR, INTERIOR[::-1]]) * 40000).astype(int))
    for table, options in ((weighted, {}), (strata, {}), (strata, {"by_client": True})):
        first, second, without = both_errors(table, 200, **options)
        assert not any(without.values())
        for name in PARTS:
            assert second[name] == pytest.approx(first[name], rel=0.03), (name, options)


def test_a_part_without_a_normal_law_is_marked():
    """The same gap in every client: the client says nothing more, and no derivative exists."""
    joint = np.zeros((2, 2, 3))
    for z in (0, 1):
        joint[z] = 0.5 * np.outer([0.6 - 0.1 * z, 0.4 + 0.1 * z], [0.3, 0.3, 0.4])
    rng = np.random.default_rng(15)
    marked = without = 0
    for _ in range(40):
        table = as_table(rng.multinomial(2000, joint.reshape(-1)).reshape(2, 2, 3))
        found = analyse(table, Settings(ci=None, n_resamples=200, random_state=rng))
        marked += found.boundary["unique_client"]
        without += both_errors(table, 200)[2]["unique_client"]
    assert marked >= 38 and without >= 34  # by the influence function alone about 30 are


def test_intervals_over_many_small_clients_cover():
    """Twenty clients of 100 rows; in their subsamples of 10 rows nothing is left of the unique."""
    joint = np.random.default_rng(2).dirichlet(np.full(80, 5.0)).reshape(2, 2, 20)
    joint[1, 1] *= 2.5
    joint /= joint.sum()
    truth = {k: float(v) for k, v in part_values(joint[None]).items()}
    rng = np.random.default_rng(77)
    covered, bounds = dict.fromkeys(PARTS, 0), []
    for _ in range(60):
        table = as_table(rng.multinomial(2000, joint.reshape(-1)).reshape(joint.shape))
        found = analyse(table, Settings(n_resamples=100, random_state=rng))
        for name, (low, high) in found.intervals.items():
            covered[name] += low <= truth[name] <= high
        if found.boundary["unique"]:
            low, high = found.intervals["unique"]
            bounds.append(low == 0.0 and high >= truth["unique"])
        # About the corrected value, which varies more: errors of either order may be too small.
        result = solve(table, Settings())
        first = standard_errors(table, result, influences(table, result))
        low, high = found.intervals["coinformation"]
        widest = max(first["coinformation"], found.se["coinformation"])
        assert high - low == pytest.approx(2 * stats.norm.ppf(0.975) * widest, rel=1e-9)
    # Of 60 a true 0.95 covers fewer than 48 with probability 2e-5. Without the normal bound of
    # what may be zero it is 40 for the unique part, and 13 of the 29 times that it is marked.
    assert min(covered.values()) >= 48, covered
    assert len(bounds) >= 20 and np.mean(bounds) >= 0.7


def test_rows_without_weight_may_make_up_a_replicate():
    """Three of five rows weigh nothing: one replicate in thirteen is of such rows alone."""
    z, y, s = [0, 1, 0, 1, 0], [0, 1, 1, 0, 1], [0] * 5
    table = tabulate(y, sensitive_features=z, client=s, sample_weight=[0, 0, 0, 1.0, 2.0])
    found = analyse(table, Settings(n_resamples=100, random_state=0))
    assert all(math.isfinite(e) and e >= 0 for e in found.se.values()), found.se
    assert np.isfinite([*found.intervals.values()]).all()
    assert found.se["unique"] > 0


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


def test_the_g_test_of_small_cells_is_made_by_permutation():
    """Thirty clients of 17 rows: chi-squared rejects 15 % at 5 %, so it is not the reference."""
    rng = np.random.default_rng(16)
    p, naive = [], []
    for _ in range(150):
        table = as_table(rng.multinomial(500, np.full(120, 1 / 120)).reshape(2, 2, 30))
        found = analyse(table, Settings(ci=None, n_resamples=99, random_state=rng))
        tests = found.tests
        assert (tests.global_reference, tests.local_reference) == ("chi-squared", "permutation")
        assert tests.local_p_value == found.nulls["local_disparity"].p_value
        p.append((tests.global_p_value, tests.local_p_value))
        naive.append(stats.chi2.sf(tests.local_statistic, tests.local_df))
    # 150 draws of a true 5 %: more than 11 % has probability 1e-3.
    assert (np.array(p) <= 0.05).mean(axis=0).max() <= 0.11
    assert (np.array(naive) <= 0.05).mean() > 0.10
    without = analyse(table, Settings(n_resamples=0)).tests
    assert without.local_reference == "none" and math.isnan(without.local_p_value)


def test_when_chi_squared_is_a_reference():
    even = np.full((1, 2, 2), 10.0)
    assert chi_squared_holds(even)
    assert not chi_squared_holds(even / 2.1)  # 4.8 expected in each cell
    lone = np.array([[[10.0, 10.0], [0.0, 0.0]]])
    assert chi_squared_holds(np.concatenate([even, lone])), "a client of one group tests nothing"
    # 15 expected in every cell of every client, but their excesses add up: it rejects 8 %.
    many = np.full((200, 2, 2), 15.0)
    assert chi_squared_holds(many[:20]) and not chi_squared_holds(many)
    rng = np.random.default_rng(17)
    rejected = {}
    for clients, rows in ((20, 60), (200, 60)):
        drawn = rng.multinomial(rows, np.full(4, 0.25), size=(2000, clients))
        counts = drawn.reshape(2000, clients, 2, 2).astype(float)
        p = stats.chi2.sf(2 * information_nats(counts).sum(axis=1), clients)
        rejected[clients] = (p <= 0.05).mean()
    # 2,000 draws: a true 5.9 % shows more than 7.5 % with probability 1e-3.
    assert rejected[20] < 0.075 < rejected[200], rejected


# --- pseudo-counts --------------------------------------------------------------------------


def smoothed(counts, smoothing=5.0):
    return replace(as_table(counts), smoothing=smoothing)


def test_pseudo_counts_are_rows_in_every_cell():
    rng = np.random.default_rng(18)
    counts = rng.integers(0, 30, (2, 3, 2, 4))
    counts[1] = 0
    table = smoothed(counts, 2.5)
    found = analyse(table, Settings(ci="bootstrap", n_resamples=20))
    joint = counts[0] + 2.5
    expected = pid_from_joint(joint / joint.sum())
    for name in PARTS:
        assert found.values[name] == pytest.approx(float(getattr(expected, name)), abs=1e-9)
        given = part_values(table.sums[None], pseudo=table.pseudo)[name]
        assert given == pytest.approx(found.values[name], abs=1e-6)
    assert found.corrected is None and found.bias is None
    for name, rows in (("global_disparity", table.sums.sum(-1)), ("local_disparity", table.sums)):
        way = _local if rows.ndim == 4 else _global
        pseudo = table.pseudo * (1 if rows.ndim == 4 else 4)
        assert way(rows[None], pseudo) == pytest.approx(found.values[name], abs=1e-9)
    assert found.tests.local_statistic == g_test(as_table(counts)).local_statistic
    # Its permutations are of the smoothed table: another statistic, and no reference of this one.
    sparse = analyse(smoothed(np.ones((2, 2, 3), dtype=int)), Settings(n_resamples=20))
    assert sparse.tests.local_reference == "none" and math.isnan(sparse.tests.local_p_value)
    assert sparse.nulls["local_disparity"].p_value > 0
    z, y, s = (a[:400] for a in np.unravel_index(rng.choice(12, 400), SHAPE))
    weight = rng.exponential(size=400)
    one, seven = (
        analyse(
            tabulate(y, sensitive_features=z, client=s, sample_weight=w, smoothing=3.0),
            Settings(n_resamples=0),
        )
        for w in (weight, 7 * weight)
    )
    assert one.values == pytest.approx(seven.values, abs=1e-12)
    assert one.se == pytest.approx(seven.se, abs=1e-12)


def test_errors_and_permutations_know_of_pseudo_counts():
    n, draws = 1000, 3000
    rng = np.random.default_rng(19)
    sample = rng.multinomial(n, INTERIOR.reshape(-1), size=draws).reshape(draws, 1, *SHAPE)
    spread = {
        k: np.std(v, ddof=1) for k, v in part_values(sample.astype(float), None, 20.0).items()
    }
    table = smoothed(np.rint(INTERIOR * n).astype(int), 20.0)
    found = errors_of(table)
    drawn = bootstrap_parts(table, 1000, rng)
    _, second, _ = both_errors(table, 1000)
    sub, share = subsampled_parts(table, 1000, rng)
    for name in PARTS:
        assert found[name] == pytest.approx(spread[name], rel=0.055), name
        assert second[name] == pytest.approx(spread[name], rel=0.055), name
        assert np.std(drawn[name]) == pytest.approx(spread[name], rel=0.1), name
        want = spread[name] * math.sqrt((1 - share) / share)
        assert np.std(sub[name]) == pytest.approx(want, rel=0.15), name
    p = []
    for _ in range(100):
        null = smoothed(rng.multinomial(300, np.full(8, 1 / 8)).reshape(2, 2, 2), 50.0)
        nulls = analyse(null, Settings(ci=None, n_resamples=60, random_state=rng)).nulls
        p.append([nulls[f"{where}_disparity"].p_value for where in ("global", "local")])
    # 100 p-values under the null: fewer than 28 below one half have probability 1e-5.
    assert ((np.array(p) <= 0.5).sum(axis=0) >= 28).all()


def test_a_seed_repeats_everything_and_stages_are_independent():
    table = as_table(np.rint(INTERIOR * 600).astype(int))
    a, b = (analyse(table, Settings(ci="bootstrap", n_resamples=60, random_state=5)) for _ in "ab")
    assert a.intervals == b.intervals
    assert a.nulls == b.nulls
    c = analyse(table, Settings(ci="influence", n_resamples=60, random_state=5))
    assert c.nulls == a.nulls
