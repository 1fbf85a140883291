"""The best rule under bounds on disparity: against references, orderings and its own proof."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SolverError,
    UtilityWarning,
)
from privfair.core.privacy import PrivacyGuarantee
from privfair.fairness._contingency import ContingencyRelease, NoiseLaw
from privfair.fairness.aglfop import FairnessBound, fair_rule
from privfair.fairness.aglfop._certify import rule_estimates
from privfair.fairness.aglfop._measures import (
    CRITERIA,
    context_index,
    decided,
    influence,
    information_bits,
    largest_gap,
    pooled,
)
from privfair.fairness.aglfop._rule_program import RuleProgram
from privfair.fairness.aglfop._solver import BudgetProgram

ACCESS = ("aware", "client_blind", "group_blind", "blind")


def table(seed, shape=(2, 3, 2, 4), concentration=0.6, zeros=0.0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(int(np.prod(shape)), concentration)).reshape(shape)
    p = np.where(rng.random(shape) < zeros, 0.0, p)
    return p / p.sum()


def unconstrained(p):
    return p.sum(axis=()).transpose(0, 1, 3, 2).max(axis=3).sum()


def information(p, rule, criterion, scope):
    """I(Z; K | C) in bits by its definition, cell by cell, from the deployed rule."""
    n_z, n_s, n_y, _ = p.shape
    m = np.zeros((n_z, n_s, n_y, rule.shape[3]))
    for z, s, y, r in np.ndindex(*p.shape):
        m[z, s, y] += p[z, s, y, r] * rule[z, s, r]
    each = [(y,) for y in range(n_y)]
    labels = {"demographic_parity": [tuple(range(n_y))], "equalized_odds": each}
    labels = labels.get(criterion, [(1,)])
    clients = [tuple(range(n_s))] if scope == "global" else [(s,) for s in range(n_s)]
    if isinstance(scope, int):
        clients = [(scope,)]
    value, total = 0.0, 0.0
    for inside in clients:
        for kept in labels:
            cell = m[:, inside][:, :, kept].sum(axis=(1, 2))
            total += cell.sum()
            for z, k in np.ndindex(*cell.shape):
                if cell[z, k] > 0:
                    alone = cell[z].sum() * cell[:, k].sum() / cell.sum()
                    value += cell[z, k] * np.log2(cell[z, k] / alone)
    return value / total


def cvxpy_accuracy(p, bounds, access="aware"):
    """The same program by another modelling language: visible cells tied by equalities."""
    import cvxpy as cp

    n_z, n_s, n_y, n_r = p.shape
    cells = list(np.ndindex(n_z, n_s, n_r))
    w = {c: cp.Variable(n_y, nonneg=True) for c in cells}
    rules = [cp.sum(v) == 1 for v in w.values()]
    for (z, s, r), v in w.items():
        twin = {"aware": (z, s, r), "client_blind": (z, 0, r), "group_blind": (0, s, r),
                "blind": (0, 0, r)}[access]  # fmt: skip
        if twin != (z, s, r):
            rules.append(v == w[twin])
    gain = sum(p[z, s, y, r] * w[z, s, r][y] for z, s, y, r in np.ndindex(*p.shape))
    for bound in bounds:
        kept = {"demographic_parity": [range(n_y)], "equalized_odds": [[y] for y in range(n_y)],
                "equal_opportunity": [[1]]}[bound.criterion]  # fmt: skip
        scopes = [(bound.eps_global, [range(n_s)]), (bound.eps_local, [[s] for s in range(n_s)])]
        scopes += [(e, [[c]]) for c, e in (bound.eps_client or {}).items()]
        for eps, clients in scopes:
            if eps is None:
                continue
            value, total = 0, 0.0
            for inside in clients:
                for labels in kept:
                    m = [sum(p[z, s, y, r] * w[z, s, r] for s in inside for y in labels
                             for r in range(n_r)) for z in range(n_z)]  # fmt: skip
                    mass = np.array(
                        [p[z][list(inside)][:, list(labels)].sum() for z in range(n_z)]
                    )
                    if mass.sum() == 0:
                        continue
                    total += mass.sum()
                    for z in range(n_z):
                        if mass[z] > 0:
                            value += cp.sum(cp.rel_entr(m[z], mass[z] / mass.sum() * sum(m)))
            rules.append(value / total <= eps * np.log(2))
    problem = cp.Problem(cp.Maximize(gain), rules)
    problem.solve(solver="CLARABEL")
    return problem.value


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("access", ACCESS)
def test_the_optimum_is_that_of_another_modelling_language(criterion, access):
    for seed, (eps_global, eps_local) in enumerate([(0.004, 0.02), (None, 0.01), (0.002, None)]):
        p = table(seed, shape=(2, 2, 2, 3))
        bound = FairnessBound(criterion, eps_global=eps_global, eps_local=eps_local)
        found = fair_rule(p, bound, access=access)
        assert found.accuracy == pytest.approx(cvxpy_accuracy(p, [bound], access), abs=1e-6)


def test_several_criteria_and_single_clients_at_once():
    p = table(7, shape=(3, 3, 2, 3), zeros=0.1)
    bounds = [
        FairnessBound(eps_global=0.01, eps_client={2: 0.001}),
        FairnessBound("equal_opportunity", eps_local=0.02, eps_client={0: 0.002}),
    ]
    found = fair_rule(p, bounds)
    assert found.accuracy == pytest.approx(cvxpy_accuracy(p, bounds), abs=1e-6)
    for bound in bounds:
        for client, eps in bound.eps_client.items():
            value = information(p, found.rule, bound.criterion, client)
            assert value <= eps + 1e-6
            assert found.achieved[f"{bound.criterion}:client:{client}"] == pytest.approx(
                value, abs=1e-9
            )
    worst = fair_rule(p, [FairnessBound(eps_global=0.01)])
    assert information(p, worst.rule, "demographic_parity", 2) > 0.001


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_every_answer_keeps_its_bounds_and_carries_its_proof(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(v) for v in rng.integers(2, 4, 4))
    p = table(seed, shape=shape, zeros=0.2)
    criterion = CRITERIA[seed % 3]
    if criterion == "equal_opportunity" and p[:, :, 1].sum() == 0:
        return
    eps = [None, 0.0, 0.001, 0.05]
    bound = FairnessBound(
        criterion,
        eps_global=eps[int(rng.integers(4))],
        eps_local=eps[int(rng.integers(4))],
        gap_global=[None, 0.1][int(rng.integers(2))],
    )
    access = ACCESS[int(rng.integers(4))]
    found = fair_rule(p, bound, access=access)
    assert found.rule.shape == (shape[0], shape[1], shape[3], shape[2])
    np.testing.assert_allclose(found.rule.sum(axis=3), 1.0, atol=1e-12)
    assert found.rule.min() >= 0
    for scope, limit in [("global", bound.eps_global), ("local", bound.eps_local)]:
        value = information(p, found.rule, criterion, scope)
        assert found.achieved[scope] == pytest.approx(value, abs=1e-9)
        assert limit is None or value <= limit + 1e-6
    if bound.gap_global is not None:
        assert found.gaps["global"] <= 0.1 + 1e-7
    accuracy = sum(p[z, s, y, r] * found.rule[z, s, r, y] for z, s, y, r in np.ndindex(*shape))
    assert found.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert found.lower <= found.cost + 1e-9
    assert found.proven_gap < 1e-5
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_proof_is_a_bound_for_every_rule_within_the_bounds():
    """Random mixtures of rules that keep the bound never beat the proven bound."""
    p = table(3)
    bound = FairnessBound(eps_global=0.01, eps_local=0.03)
    found = fair_rule(p, bound)
    rng = np.random.default_rng(0)
    best = 1.0
    for _ in range(300):
        other = rng.dirichlet([0.3, 0.3], size=found.rule.shape[:3])
        mixed = found.rule + rng.random() * 0.2 * (other - found.rule)
        m = decided(p, mixed)
        fits = all(
            information_bits(pooled(m, *context_index(3, 2, "demographic_parity", s, 1))) <= e
            for s, e in [("global", 0.01), ("local", 0.03)]
        )
        cost = 1 - np.einsum("zsyr,zsry->", p, mixed)
        if fits:
            best = min(best, cost)
    assert best >= found.lower - 1e-12


def test_unconstrained_aware_rule_takes_the_likelier_label_of_every_cell():
    for seed in range(5):
        p = table(seed, zeros=0.3)
        found = fair_rule(p, FairnessBound())
        assert found.accuracy == pytest.approx(unconstrained(p), abs=1e-12)
        assert found.status == "free"
        assert found.prices == {}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_who_sees_more_decides_better(criterion):
    for seed in range(4):
        p = table(seed, zeros=0.1)
        bound = FairnessBound(criterion, eps_global=0.003, eps_local=0.01)
        a = {name: fair_rule(p, bound, access=name).accuracy for name in ACCESS}
        assert a["aware"] >= a["client_blind"] - 1e-7
        assert a["aware"] >= a["group_blind"] - 1e-7
        assert a["client_blind"] >= a["blind"] - 1e-7
        assert a["group_blind"] >= a["blind"] - 1e-7
        for name in ACCESS:
            rule = fair_rule(p, bound, access=name).rule
            if name in ("group_blind", "blind"):
                assert np.ptp(rule, axis=0).max() == 0
            if name in ("client_blind", "blind"):
                assert np.ptp(rule, axis=1).max() == 0


def test_finer_bins_and_larger_bounds_never_cost_accuracy():
    for seed in range(4):
        fine = table(seed, shape=(2, 2, 2, 8))
        coarse = fine.reshape(2, 2, 2, 4, 2).sum(axis=4)
        last = 0.0
        for eps in (0.0, 0.001, 0.004, 0.02, 0.1, None):
            bound = FairnessBound(eps_global=eps, eps_local=eps)
            a, b = fair_rule(coarse, bound).accuracy, fair_rule(fine, bound).accuracy
            assert b >= a - 1e-7
            assert b >= last - 1e-7
            last = b


def test_a_rule_never_beats_the_oracle():
    """With r = y the rule sees the label, and is the oracle: no coarser view does better."""
    for seed in range(4):
        p = table(seed)
        labels = p.sum(axis=3)
        oracle = np.zeros((2, 3, 2, 2))
        for y in range(2):
            oracle[:, :, y, y] = labels[:, :, y]
        bound = FairnessBound(eps_global=0.002, eps_local=0.01)
        assert fair_rule(p, bound).accuracy <= fair_rule(oracle, bound).accuracy + 1e-7
        # Binary labels and groups, one bound of zero: sum_s min_z p(z,s) |b_1s - b_0s|.
        rate = labels[:, :, 1] / labels.sum(axis=2)
        closed = (labels.sum(axis=2).min(axis=0) * np.abs(rate[0] - rate[1])).sum()
        found = fair_rule(oracle, FairnessBound(eps_local=0.0))
        assert found.cost == pytest.approx(closed, abs=1e-7)
        assert found.prices["local"] == np.inf


def linprog_accuracy(p, criterion, gap_global, gap_local):
    n_z, n_s, n_y, n_r = p.shape
    n = n_z * n_s * n_r * n_y
    at = np.arange(n).reshape(n_z, n_s, n_r, n_y)
    gain = np.zeros(n)
    for z, s, y, r in np.ndindex(*p.shape):
        gain[at[z, s, r, y]] += p[z, s, y, r]
    sums = np.zeros((n_z * n_s * n_r, n))
    for i, (z, s, r) in enumerate(np.ndindex(n_z, n_s, n_r)):
        sums[i, at[z, s, r]] = 1
    rows, right = [], []
    kept = {"demographic_parity": [list(range(n_y))], "equalized_odds": [[y] for y in range(n_y)],
            "equal_opportunity": [[1]]}[criterion]  # fmt: skip
    scopes = [(gap_global, [list(range(n_s))]), (gap_local, [[s] for s in range(n_s)])]
    for gap, clients in scopes:
        for inside in clients if gap is not None else []:
            for labels in kept:
                rate = np.zeros((n_z, n_y, n))
                for z in range(n_z):
                    mass = p[z][inside][:, labels].sum()
                    for s in inside:
                        for y in labels:
                            for r in range(n_r):
                                for k in range(n_y):
                                    rate[z, k, at[z, s, r, k]] += p[z, s, y, r] / mass
                for a in range(n_z):
                    for b in range(n_z):
                        if a != b:
                            rows += list(rate[a] - rate[b])
                            right += [gap] * n_y
    found = optimize.linprog(-gain, A_ub=np.array(rows), b_ub=right, A_eq=sums,
                             b_eq=np.ones(len(sums)), bounds=(0, 1), method="highs")  # fmt: skip
    return -found.fun


@pytest.mark.parametrize("criterion", CRITERIA)
def test_linear_gaps_are_a_linear_program(criterion):
    for seed, (wide, narrow) in enumerate([(0.05, 0.1), (0.0, None), (None, 0.02), (0.02, 0.02)]):
        p = table(seed, shape=(3, 2, 2, 3))
        found = fair_rule(p, FairnessBound(criterion, gap_global=wide, gap_local=narrow))
        assert found.accuracy == pytest.approx(
            linprog_accuracy(p, criterion, wide, narrow), abs=1e-7
        )
        for name, gap in [("global", wide), ("local", narrow)]:
            assert gap is None or found.gaps[name] <= gap + 1e-7


def test_a_bound_next_to_zero_is_as_good_as_zero():
    """The repair of a bound may not cost more than the bound: found with a gap of 1e-17."""
    p = table(0)
    zero = fair_rule(p, FairnessBound(gap_global=0.0))
    for tiny in (1e-17, 1e-12, 1e-9):
        found = fair_rule(p, FairnessBound(gap_global=tiny))
        assert found.accuracy == pytest.approx(zero.accuracy, abs=1e-6)
        assert found.gaps["global"] <= tiny + 1e-7
    exact = fair_rule(p, FairnessBound(eps_global=0.0))
    below = fair_rule(p, FairnessBound(eps_global=1e-16))  # solved at zero, not priced as there
    assert exact.prices["global"] == np.inf and 0 < below.prices["global"] < np.inf
    assert below.lower < exact.lower
    near = fair_rule(p, FairnessBound(eps_global=1e-5))
    assert near.accuracy >= zero.accuracy
    assert near.achieved["global"] <= 1e-5


def test_an_answer_without_proof_is_solved_again(monkeypatch):
    genuine = BudgetProgram.solve

    def careless(self, bounds):
        found = genuine(self, bounds)
        return replace(found, z=found.z + np.random.default_rng(0).normal(0, 0.05, found.z.size))

    p = table(3)
    good = fair_rule(p, FairnessBound(eps_global=0.001, eps_local=0.01))
    monkeypatch.setattr(BudgetProgram, "solve", careless)
    again = fair_rule(p, FairnessBound(eps_global=0.001, eps_local=0.01))
    assert again.proven_gap < 1e-5 and again.cost == pytest.approx(good.cost, abs=1e-6)
    monkeypatch.setattr(BudgetProgram, "answers", lambda self, b: iter([careless(self, b)]))
    with pytest.raises(SolverError, match="proven"):
        fair_rule(p, FairnessBound(eps_global=0.001, eps_local=0.01))


def test_intervals_of_gaps_hold_at_zero_in_many_clients():
    """8 clients without any gap, 100 tables, nominal 90 %: 4 se of 3 below it are allowed.

    A reflected quantile of the largest gap lies above zero in 39 of them.
    """
    rng, missed = np.random.default_rng(0), 0
    p = np.full((2, 8, 2, 2), 1 / 64)
    rule = np.broadcast_to(np.array([[0.9, 0.1], [0.2, 0.8]]), (2, 8, 2, 2))
    bound = (FairnessBound(eps_global=0.01),)
    n = 3200
    for _ in range(100):
        counted = rng.multinomial(n, p.ravel()).reshape(p.shape) / n

        def draws(size, counted=counted):
            return rng.multinomial(n, counted.ravel(), size=size).reshape(size, *p.shape) / n

        found = {e.name: e for e in rule_estimates(
            counted, draws, rule, bound, 1, n=n, confidence=0.9, n_resamples=200, privacy=None,
            labels={})}  # fmt: skip
        local = found["gap_local"]
        missed += local.low > 0
        assert local.low <= local.value <= local.high <= 1
    assert missed <= 10 + 4 * 3


def test_a_group_lost_in_noise_has_an_unknown_gap():
    """Noisy counts of a group that are not positive: nothing is known but that gaps are <= 1."""
    privacy = PrivacyGuarantee.none("non_private")
    counts = np.array([[[[400], [400]], [[300], [100]]], [[[400], [400]], [[-3], [-1]]]])
    release = ContingencyRelease(
        ("z", "client", "y", "r"), ((0, 1), (0, 1), (0, 1), (0,)), counts,
        NoiseLaw("laplace", 3.0), 2000, privacy,
    )  # fmt: skip
    rule = np.zeros((2, 2, 1, 2)) + [0.3, 0.7]
    found = {e.name: e for e in rule_estimates(
        release.probabilities(), lambda size: release.resample(0, size), rule,
        (FairnessBound(eps_global=0.01),), 1, n=2000, confidence=0.9, n_resamples=200,
        privacy=privacy, labels={}, release=release)}  # fmt: skip
    assert found["gap_local"].low == 0.0 and found["gap_local"].high == 1.0
    assert found["gap_global"].high < 0.5


def test_a_rule_outside_its_bounds_is_mixed_until_it_is_inside():
    """What a solver of reduced accuracy may return: over a bound by one part in a thousand."""
    p = table(0)
    bound = FairnessBound(eps_global=0.01, gap_local=0.2)
    program = RuleProgram(p, access="aware", bounds=[bound], cost=1.0 - np.eye(2),
                          client_weight=np.ones(3), positive=1)  # fmt: skip
    point = program.solve()
    slack = 5e-4
    for name in ("global", "gap_local"):
        limit = {"global": point.informations["global"], "gap_local": point.gaps["local"]}[name]
        program.gap_bounds["local"] = 1.0 if name == "global" else limit / (1 + slack)
        asked = {"global": limit / (1 + slack)} if name == "global" else {}
        mixed = program.inside(point.weights, asked)
        np.testing.assert_allclose(mixed.sum(axis=1), 1.0)
        x = mixed.ravel()
        assert all(program.informations[n].value(x) <= e * (1 + 1e-9) for n, e in asked.items())
        assert program.gap_of("local", x) <= program.gap_bounds["local"] * (1 + 1e-9)
        assert np.abs(mixed - point.weights).max() <= 2 * slack
        program.gap_bounds["local"] = 1.0 if name == "global" else limit / 1.1
        far = {n: e / 1.1 for n, e in asked.items()}
        with pytest.raises(SolverError, match="exceeds"):
            program.inside(point.weights, far)


@pytest.mark.parametrize("access", ["aware", "group_blind", "blind"])
def test_bounds_next_to_zero_are_kept_and_proven(access: str) -> None:
    for criterion in ("demographic_parity", "equalized_odds"):
        program = RuleProgram(
            table(1), access=access, bounds=[FairnessBound(criterion, gap_global=0.3)],
            cost=1.0 - np.eye(2), client_weight=np.ones(3), positive=1)  # fmt: skip
        at_zero = program.solve({"global": 0.0, "local": 0.0}).error
        for eps in (1e-9, 1e-7, 4e-6):
            for bounds in ({"global": eps}, {"local": eps}, {"global": eps, "local": eps}):
                point = program.solve(bounds)
                assert -1e-12 <= point.error - point.lower <= 1e-6
                assert point.error <= at_zero + 1e-9
                assert all(point.informations[n] <= e for n, e in bounds.items())
                assert point.gaps["global"] <= 0.3 + 1e-7


def test_prices_are_what_a_little_more_buys():
    """Central differences, within 1 %, of information and of gaps."""
    checked = 0
    for seed in range(6):
        p = table(seed)
        at = {"eps_global": 0.004, "eps_local": 0.03, "gap_global": 0.5}
        found = fair_rule(p, FairnessBound(**at))
        if found.price_degenerate:
            continue
        for name, price in [("eps_global", "global"), ("eps_local", "local")]:
            step = at[name] * 0.01
            up, down = (fair_rule(p, FairnessBound(**at | {name: at[name] + d})).accuracy
                        for d in (step, -step))  # fmt: skip
            if found.prices[price] > 0.05:
                assert (up - down) / (2 * step) == pytest.approx(found.prices[price], rel=0.01)
                checked += 1
    assert checked >= 5
    p = table(1)
    gap = {g: fair_rule(p, FairnessBound(gap_global=g)) for g in (0.049, 0.05, 0.051)}
    slope = (gap[0.051].accuracy - gap[0.049].accuracy) / 0.002
    assert slope == pytest.approx(gap[0.05].prices["gap_global"], rel=0.01)


def test_identical_clients_leave_only_the_sum_of_prices():
    one = table(3, shape=(2, 1, 2, 5))
    two = np.concatenate([one, one], axis=1) / 2
    eps = fair_rule(one, FairnessBound()).achieved["global"] / 2
    assert eps > 1e-3
    both = fair_rule(two, FairnessBound(eps_global=eps, eps_local=eps))
    assert both.price_degenerate
    single = fair_rule(one, FairnessBound(eps_global=eps))
    assert both.accuracy == pytest.approx(single.accuracy, abs=1e-6)
    assert sum(both.prices.values()) == pytest.approx(single.prices["global"], rel=0.01)
    assert not single.price_degenerate


def test_costs_and_weights_of_clients():
    p = table(4)
    cost = [[0.0, 1.0], [5.0, 0.0]]
    found = fair_rule(p, FairnessBound(), cost=cost)
    by_cell = np.einsum("zsyr,yk->zsrk", p, np.array(cost))
    assert found.cost == pytest.approx(by_cell.min(axis=3).sum())
    fair = fair_rule(p, FairnessBound(eps_global=0.002), cost=cost)
    assert fair.cost >= found.cost
    # Three decisions on two labels: abstaining costs 0.2.
    third = fair_rule(p, FairnessBound(eps_global=0.002), cost=[[0, 1, 0.2], [1, 0, 0.2]])
    assert third.rule.shape[3] == 3
    assert third.cost <= 0.2 + 1e-7
    # Only client 1 counts, so that its own accuracy is the best it can have.
    weighted = fair_rule(p, FairnessBound(eps_global=0.001), client_weight=[0, 1, 0])
    share = p[:, 1].sum()
    own = 1 - np.einsum("zyr,zry->", p[:, 1], weighted.rule[:, 1]) / share
    assert weighted.cost == pytest.approx(own, abs=1e-9)


def test_cells_without_people_get_the_rule_of_those_alike():
    p = table(5, shape=(2, 2, 2, 4))
    p[0, 1, :, 2] = 0.0
    p[:, :, :, 0] = 0.0
    p /= p.sum()
    rule = fair_rule(p, FairnessBound(eps_global=0.01)).rule
    np.testing.assert_allclose(rule[0, 1, 2], rule[0, 0, 2])
    np.testing.assert_allclose(rule[:, :, 0], rule[:, :, 1])


def test_measures_by_definition_and_in_batches():
    tables = np.stack([table(s, zeros=0.2) for s in range(3)])
    rule = np.random.default_rng(0).dirichlet([1, 1], size=(2, 3, 4))
    for criterion in CRITERIA:
        for scope in ("global", "local", 1):
            index = context_index(3, 2, criterion, scope, 1)
            batch = information_bits(pooled(decided(tables, rule), *index))
            for value, p in zip(batch, tables, strict=True):
                assert value == pytest.approx(information(p, rule, criterion, scope), abs=1e-12)
            # Influence by finite differences of moving mass towards one cell.
            p = table(9)
            pull = influence(p, rule, *index)
            assert (p * pull).sum() == pytest.approx(0.0, abs=1e-12)
            base = information(p, rule, criterion, scope)
            for cell in [(0, 0, 0, 0), (1, 1, 1, 3), (0, 2, 1, 2)]:
                moved = (1 - 1e-6) * p
                moved[cell] += 1e-6
                slope = (information(moved, rule, criterion, scope) - base) / 1e-6
                assert slope == pytest.approx(pull[cell], abs=2e-3 * max(1, abs(pull[cell])))
    m = pooled(decided(tables, rule), *context_index(3, 2, "demographic_parity", "global", 1))
    rate = m[:, :, 0] / m[:, :, 0].sum(axis=2, keepdims=True)
    np.testing.assert_allclose(largest_gap(m), np.abs(rate[:, 0] - rate[:, 1]).max(axis=1))


@pytest.mark.filterwarnings("ignore::privfair.core.exceptions.UtilityWarning")
@pytest.mark.parametrize(
    ("p", "change", "error"),
    [
        (np.ones((2, 2, 2)) / 8, {}, DataError),
        (np.full((2, 1, 2, 2), 0.2), {}, DataError),
        (np.array([[[[np.nan, 1]]], [[[0, 0]]]]), {}, DataError),
        (np.array([[[[-0.1, 1.1]]], [[[0, 0]]]]), {}, DataError),
        ([[[["a"]]]], {}, DataError),
        (table(0), {"access": "all"}, InvalidParameterError),
        (table(0), {"positive": 2}, InvalidParameterError),
        (table(0), {"positive": True}, InvalidTypeError),
        (table(0), {"cost": [1, 2]}, LengthMismatchError),
        (table(0), {"cost": [[0, np.inf], [1, 0]]}, InvalidParameterError),
        (table(0), {"client_weight": [1, 1]}, LengthMismatchError),
        (table(0), {"client_weight": [-1, 1, 1]}, InvalidParameterError),
        (table(0), {"bounds": FairnessBound(eps_client={3: 0.1})}, InvalidParameterError),
        (table(0), {"bounds": FairnessBound(eps_client={"a": 0.1})}, InvalidTypeError),
        (table(0), {"bounds": [FairnessBound()] * 2}, InvalidParameterError),
        (table(0), {"bounds": 0.1}, InvalidTypeError),
    ],
)
def test_bad_tables_and_parameters_are_refused(p, change, error):
    with pytest.raises(error):
        fair_rule(p, **{"bounds": FairnessBound(eps_global=0.1), **change})


@pytest.mark.parametrize(
    ("given_", "error"),
    [
        ({"eps_global": -0.1}, InvalidParameterError),
        ({"eps_local": np.inf}, InvalidParameterError),
        ({"eps_global": True}, InvalidTypeError),
        ({"eps_global": "0.1"}, InvalidTypeError),
        ({"gap_global": 1.5}, InvalidParameterError),
        ({"criterion": "dp"}, InvalidParameterError),
        ({"eps_client": [0.1]}, InvalidTypeError),
        ({"eps_client": {0: float("nan")}}, InvalidParameterError),
    ],
)
def test_bad_bounds_are_refused(given_, error):
    with pytest.raises(error):
        FairnessBound(**given_)


def test_one_group_is_no_comparison():
    p = table(0)
    p[1] = 0
    with pytest.warns(UtilityWarning, match="one group"):
        found = fair_rule(p / p.sum(), FairnessBound(eps_global=0.0, eps_local=0.0))
    assert found.accuracy == pytest.approx(unconstrained(p / p.sum()))


def test_solved_is_what_is_proven_whatever_the_solver_says() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(16)).reshape(2, 2, 2, 2)
    program = RuleProgram(
        p, access="aware", bounds=(FairnessBound(),), cost=1.0 - np.eye(2),
        client_weight=np.ones(2), positive=1,
    )  # fmt: skip
    asked = {"global": 1e-3}
    best = program.solve(asked)
    assert best.status == "solved"
    for gap, status in ((5e-7, "solved"), (5e-6, "almost_solved")):
        proof = best.error - gap, best.potentials, best.prices
        assert program.point(asked, best.weights, proof, None, 1).status == status
