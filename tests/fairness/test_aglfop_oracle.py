"""The oracle form against closed forms, the program as the paper states it, and its own proof."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.core.exceptions import (
    DataError,
    DataNotAvailableError,
    InvalidParameterError,
    InvalidTypeError,
    SolverError,
    UtilityWarning,
)
from privfair.datasets import fetch_adult
from privfair.fairness.aglfop import _program, _solver, aglfop
from privfair.fairness.aglfop._cones import Expansion
from privfair.fairness.aglfop._information import Information, pooled_map
from privfair.fairness.aglfop._program import OracleProgram

LN2 = math.log(2)


def table(seed: int, shape: tuple[int, int, int], zeros: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(np.prod(shape), 0.7)).reshape(shape)
    p[rng.random(shape) < zeros] = 0.0
    p[:, 0] += 0.01  # every group and label occurs
    return p / p.sum()


def informative(seed: int, shape: tuple[int, int, int], zeros: float = 0.0) -> np.ndarray:
    """A table whose labels carry at least a hundredth of a bit, globally and locally."""
    while min(disparities(table(seed, shape, zeros))) < 0.01:
        seed += 1000
    return table(seed, shape, zeros)


def spread(rates: np.ndarray, weights: np.ndarray) -> float:
    """Least weighted distance of rates to one number: attained at one of the rates."""
    return min(float((weights * abs(rates - r)).sum()) for r in rates)


def mutual(joint: np.ndarray) -> float:
    """I between the two axes, in bits, straight from the definition."""
    joint = joint / joint.sum()
    outer = joint.sum(1, keepdims=True) * joint.sum(0)
    on = joint > 0
    return float((joint[on] * np.log2(joint[on] / outer[on])).sum())


def disparities(m: np.ndarray) -> tuple[float, float]:
    by_client = m.sum(axis=(0, 2))
    local = sum(w * mutual(m[:, s]) for s, w in enumerate(by_client) if w > 0)
    return mutual(m.sum(axis=1)), local


@pytest.mark.parametrize(
    ("seed", "shape"),
    [*((s, (2, 2, 2)) for s in range(8)), *((s, (4, 3, 2)) for s in range(4)), (1, (2, 50, 2))],
)
def test_independence_has_a_closed_form(seed: int, shape: tuple[int, int, int]) -> None:
    p = table(seed, shape, zeros=0.15)
    weight = p.sum(axis=(1, 2))
    whole = spread(p.sum(axis=1)[:, 1] / weight, weight)
    assert aglfop(p, eps_global=0.0).error == pytest.approx(whole, abs=1e-8)
    inside = 0.0
    for s in range(shape[1]):
        w = p[:, s].sum(axis=1)
        inside += spread(p[w > 0, s, 1] / w[w > 0], w[w > 0])
    assert aglfop(p, eps_local=0).error == pytest.approx(inside, abs=1e-8)


def test_one_client_makes_the_two_bounds_one() -> None:
    p = table(3, (3, 1, 3))
    for eps in (0.0, 0.004, 0.03):
        errors = [aglfop(p, *b).error for b in ((eps, None), (None, eps), (eps, eps))]
        assert np.ptp(errors) < 2e-7


def test_identical_clients_make_the_two_bounds_one_and_the_prices_degenerate() -> None:
    one = table(5, (2, 1, 2))
    p = np.concatenate([0.3 * one, 0.7 * one], axis=1)
    eps = 0.3 * mutual(one[:, 0])
    both = aglfop(p, eps, eps)
    alone = aglfop(p, eps)
    assert aglfop(p, None, eps).error == pytest.approx(alone.error, abs=1e-6)
    assert both.error == pytest.approx(alone.error, abs=1e-6)
    assert both.price_degenerate and not alone.price_degenerate
    assert both.price_global + both.price_local == pytest.approx(alone.price_global, rel=1e-3)


SHAPES = [(2, 2, 2), (3, 2, 2), (2, 3, 3), (3, 3, 3)]
SHARES = [(0.3, 0.5), (0.5, None), (None, 0.2), (0.0, 0.4), (0.6, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize("seed", range(24))
def test_the_reduced_program_is_the_full_one(seed: int) -> None:
    p = informative(seed, SHAPES[seed % 4], zeros=0.1 * (seed % 3))
    tops = disparities(p)
    bounds = [None if a is None else a * top
              for a, top in zip(SHARES[seed % 6], tops, strict=True)]  # fmt: skip
    ours, full = aglfop(p, *bounds), aglfop(p, *bounds, solver="cvxpy")
    assert ours.error == pytest.approx(full.error, abs=1e-6)
    assert -1e-9 <= ours.gap < 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_the_recovered_joint_keeps_everything(seed: int) -> None:
    p = table(seed, SHAPES[seed % 4], zeros=0.2)
    tops = disparities(p)
    answer = aglfop(p, 0.4 * tops[0], 0.3 * tops[1])
    q = answer.relabelling()
    assert q.min() >= 0
    assert np.abs(q.sum(axis=3) - p).max() < 1e-12
    assert np.abs(q.sum(axis=2) - answer.joint).max() < 1e-9
    wrong = q.sum() - np.einsum("zsyy->", q)
    assert wrong == pytest.approx(answer.error, abs=1e-12)
    got = disparities(q.sum(axis=2))
    assert got[0] <= 0.4 * tops[0] + 1e-12 and got[1] <= 0.3 * tops[1] + 1e-12
    assert (answer.global_disparity, answer.local_disparity) == pytest.approx(got, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_prices_are_slopes(seed: int) -> None:
    p = informative(seed, SHAPES[seed % 4])
    tops = disparities(p)
    bounds = np.array([0.4 * tops[0], 0.5 * tops[1]])
    answer = aglfop(p, *bounds)
    if answer.price_degenerate:
        return
    for axis, price in enumerate((answer.price_global, answer.price_local)):
        step = np.zeros(2)
        step[axis] = 0.005 * bounds[axis]
        rise = aglfop(p, *(bounds - step)).error
        fall = aglfop(p, *(bounds + step)).error
        assert (rise - fall) / (2 * step[axis]) == pytest.approx(price, rel=0.01, abs=1e-4)


def test_a_price_in_bits_is_one_in_nats_times_ln_2() -> None:
    p = table(1, (2, 2, 2))
    bits = aglfop(p, 0.002)
    nats = aglfop(p, 0.002 * LN2, unit="nats")
    assert nats.error == pytest.approx(bits.error, abs=1e-8)
    assert bits.price_global == pytest.approx(nats.price_global * LN2, rel=1e-4)
    assert bits.global_disparity * LN2 == pytest.approx(nats.global_disparity, rel=1e-6)


def test_error_falls_and_is_convex_on_a_grid() -> None:
    p = table(2, (2, 2, 2))
    tops = disparities(p)
    share = np.linspace(0, 1.1, 7)
    err = np.array([[aglfop(p, a * tops[0], b * tops[1]).error for b in share] for a in share])
    assert (np.diff(err, axis=0) <= 1e-7).all() and (np.diff(err, axis=1) <= 1e-7).all()
    for i, j in itertools.product(range(0, 7, 2), repeat=2):
        for k, n in itertools.product(range(0, 7, 2), repeat=2):
            middle = err[(i + k) // 2, (j + n) // 2]
            assert middle <= (err[i, j] + err[k, n]) / 2 + 1e-7


def test_nothing_is_lost_where_the_labels_keep_the_bounds() -> None:
    p = table(4, (3, 4, 3))
    g, local = disparities(p)
    answer = aglfop(p, g * 1.0000001, local * 1.0000001)
    assert answer.error == 0.0 and answer.accuracy == 1.0
    assert answer.status == "labels_feasible" and answer.n_iter == 0
    assert aglfop(p).error == 0.0
    assert aglfop(p, 0.999 * g).error > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("which", [(1, None), (None, 1), (1, 1), (0, 1)])
def test_tiny_bounds_are_answered_with_proof(
    seed: int, which: tuple[float | None, float | None]
) -> None:
    p = informative(seed, (2, 3, 2))
    grid = [0.0, 1e-320, 1e-15, 1e-12, 1e-10, 1e-8, 1e-6, 1e-5, 2e-5]
    answers = [aglfop(p, *(w if w is None else w * eps for w in which)) for eps in grid]
    errors = np.array([answer.error for answer in answers])
    assert (np.diff(errors) <= 1e-9).all()
    for eps, answer in zip(grid, answers, strict=True):
        assert -1e-12 <= answer.gap <= 1e-6 and answer.status == "solved"
        got = disparities(answer.joint)
        for bound, value in zip(which, got, strict=True):
            assert bound is None or value <= bound * eps + 1e-15


def test_a_bound_too_small_to_solve_has_the_price_of_a_bound_and_not_of_zero() -> None:
    """It is solved at zero, where the price is infinite and the error above the least one."""
    p = informative(0, (2, 3, 2))
    zero, tiny = aglfop(p, 0.0, 0.0), aglfop(p, 1e-16, 1e-16)
    assert zero.price_global == zero.price_local == np.inf
    for price in (tiny.price_global, tiny.price_local):
        assert 0 <= price < np.inf
    assert tiny.price_global + tiny.price_local > 1e6
    assert tiny.error_lower < zero.error_lower  # what holds at zero is no proof here


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(2, 4)),
    powers=st.tuples(st.floats(-13, -5), st.floats(-13, -5)),
    which=st.sampled_from(["global", "local", "both", "zero and small", "small and wide"]),
)
@settings(max_examples=30, deadline=None)
def test_any_bound_next_to_zero_is_proven(
    seed: int, shape: tuple[int, int, int], powers: tuple[float, float], which: str
) -> None:
    p = table(seed, shape, zeros=0.15)
    a, b = 10.0 ** powers[0], 10.0 ** powers[1]
    wide = 0.3 * disparities(p)[1]
    bounds = {"global": (a, None), "local": (None, b), "both": (a, b),
              "zero and small": (0.0, b), "small and wide": (a, wide)}[which]  # fmt: skip
    answer = aglfop(p, *bounds)
    assert -1e-12 <= answer.gap <= 1e-6 and answer.status == "solved"
    for bound, value in zip(bounds, disparities(answer.joint), strict=True):
        assert bound is None or value <= bound + 1e-15
    assert np.abs(answer.joint.sum(axis=2) - p.sum(axis=2)).max() < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_an_expansion_at_the_optimum_has_the_optimum(seed: int) -> None:
    """To first order it is the program itself; a chi-square in its place is off."""
    program = OracleProgram(informative(seed, (2, 3, 2)))
    bounds = {name: 0.05 * top for name, top in program.of_labels.items()}
    point = program.solve(bounds)
    key = (("global", False), ("local", False))

    def cost(at_the_optimum: bool) -> float:
        ratios = {name: program.ratio_of(name, point.masses) for name in bounds}
        expansions = {
            name: Expansion(bounds[name], ratio if at_the_optimum else 0.0 * ratio)
            for name, ratio in ratios.items()
        }
        return 1.0 + program.cones(key, expansions).solve({}).cost

    assert cost(True) == pytest.approx(point.error, abs=1e-7)
    assert abs(cost(False) - point.error) > 1e-5


def test_an_information_next_to_nothing_has_its_digits() -> None:
    """It is half a chi-square there, of which a sum of relative entropies leaves only rounding."""
    weights = np.array([[0.3], [0.7]])
    info = Information("global", pooled_map(np.arange(4), 4), weights)
    rate = np.array([0.4, 0.6])
    for step in (1e-2, 1e-4, 1e-7):
        d = step * np.array([0.7, -0.3])[:, None] * np.array([1.0, -1.0])
        value = info.value((weights * rate + d * weights).ravel())
        chi2 = float((weights * d**2 / rate).sum())
        assert value == pytest.approx(chi2 / 2, rel=1.5 * step + 1e-8)


def test_a_group_that_hardly_occurs_spoils_no_proof() -> None:
    """Its potentials are rounding divided by its weight."""
    p = np.array(
        [
            [[8.97029182e-01, 3.60415593e-02], [5.35872030e-06, 1.30467950e-11], [1.07e-03, 0.0]],
            [[1.25085752e-02, 5.33368226e-02], [5.87075909e-18, 0.0], [0.0, 5.13151758e-06]],
        ]
    )
    for eps in (2e-5, 3e-4, 1e-3):
        answer = aglfop(p / p.sum(), None, eps)
        assert answer.status == "solved" and -1e-12 <= answer.gap < 1e-6


def test_an_absent_bound_has_price_zero_and_a_bound_of_zero_an_infinite_one() -> None:
    p = table(4, (2, 2, 2))
    answer = aglfop(p, eps_global=0.0)
    assert answer.price_global == math.inf and answer.price_local == 0.0
    assert answer.to_dict()["eps_local"] is None


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(2, 4)),
    shares=st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)),
)
@settings(max_examples=40, deadline=None)
def test_the_proof_holds_for_any_table(
    seed: int, shape: tuple[int, int, int], shares: tuple[float, float]
) -> None:
    p = table(seed, shape, zeros=0.2)
    tops = disparities(p)
    answer = aglfop(p, shares[0] * tops[0], shares[1] * tops[1])
    assert -1e-12 <= answer.gap < 3e-6
    got = disparities(answer.joint)
    assert got[0] <= shares[0] * tops[0] + 1e-12 and got[1] <= shares[1] * tops[1] + 1e-12
    assert np.abs(answer.joint.sum(axis=2) - p.sum(axis=2)).max() < 1e-12


@given(seed=st.integers(0, 10**6), shares=st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)))
@settings(max_examples=40, deadline=None)
def test_the_lower_bound_holds_for_any_dual(seed: int, shares: tuple[float, float]) -> None:
    """Random numbers in place of the solver's multipliers still give a lower bound."""
    rng = np.random.default_rng(seed)
    p = table(seed % 50, (2, 2, 2))
    program = OracleProgram(p)
    bounds = {
        name: share * program.of_labels[name]
        for name, share in zip(("global", "local"), shares, strict=True)
    }
    truth = program.solve(bounds).error
    prices = {name: float(rng.exponential(2.0)) for name in bounds}
    raw = {
        name: info.potential(rng.normal(size=(*info.weights.shape, 2)) * 0.3, prices[name])
        for name, info in ((n, program.informations[n]) for n in bounds)
    }
    assert program.lower_bound(raw, prices, bounds) <= truth + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_the_lower_bound_is_tight_and_holds_beside_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = OracleProgram(informative(seed, (2, 2, 2)))
    point = program.solve({name: 0.4 * top for name, top in program.of_labels.items()})
    bounds = point.bounds
    near = {
        name: program.informations[name].potential(
            h * (1 + 0.2 * rng.normal(size=h.shape)), point.prices[name]
        )
        for name, h in point.potentials.items()
    }
    same = {
        name: program.informations[name].potential(h + 0.01 * rng.normal(), point.prices[name])
        for name, h in point.potentials.items()
    }
    assert program.lower_bound(near, point.prices, bounds) <= point.error + 1e-9
    assert program.lower_bound(same, point.prices, bounds) == pytest.approx(point.error, abs=1e-6)


def test_empty_cells_labels_and_clients_take_no_part() -> None:
    p = table(6, (2, 2, 2))
    wide = np.zeros((3, 3, 3))
    wide[np.ix_([0, 2], [0, 2], [0, 1])] = p
    g, local = disparities(p)
    with pytest.warns(UtilityWarning, match="without any mass"):
        answer = aglfop(wide, 0.3 * g, 0.3 * local)
    assert answer.error == pytest.approx(aglfop(p, 0.3 * g, 0.3 * local).error, abs=1e-7)
    assert answer.joint[1].sum() == answer.joint[:, 1].sum() == answer.joint[..., 2].sum() == 0


def test_a_client_with_one_group_is_free_locally() -> None:
    p = np.zeros((2, 2, 2))
    p[0, 0], p[1, 1] = (0.4, 0.1), (0.1, 0.4)
    assert aglfop(p, eps_local=0.0).error == 0.0
    assert aglfop(p, eps_global=0.0).error == pytest.approx(0.3, abs=1e-8)


def test_one_group_is_said() -> None:
    with pytest.warns(UtilityWarning, match="one group"):
        answer = aglfop(np.full((1, 2, 2), 0.25), 0.0, 0.0)
    assert answer.accuracy == 1.0 and answer.status == "one_group"


P = np.full((2, 2, 2), 0.125)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((P, -0.1), InvalidParameterError, "eps_global must be a non-negative"),
        ((P, None, -1), InvalidParameterError, "eps_local must be a non-negative"),
        ((P, math.inf), InvalidParameterError, "eps_global"),
        ((P, math.nan), InvalidParameterError, "eps_global"),
        ((P, True), InvalidTypeError, "eps_global"),
        ((P, "0.1"), InvalidTypeError, "eps_global"),
        ((P, 0.1, 0.1, "nat"), InvalidParameterError, "unit must be one of"),
        ((P, 0.1, 0.1, "bits", "ecos"), InvalidParameterError, "solver must be one of"),
        ((P, 0.1, 0.1, "bits", "clarabel", 0.0), InvalidParameterError, "tol"),
        ((P * 2,), DataError, "sum to 1"),
        ((P * (1 + 1e-7),), DataError, "sum to 1"),
        ((P[0],), DataError, "three axes"),
        ((P[:0],), DataError, "three axes"),
        ((-P,), DataError, "negative"),
        ((np.where(P > 1, P, math.nan),), DataError, "NaN"),
        ((P > 0,), InvalidTypeError, "numbers"),
        ((np.full((2, 2, 2), "a"),), InvalidTypeError, "numbers"),
    ],
)
def test_what_cannot_be_solved_is_refused(arguments: tuple, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        aglfop(*arguments)


def test_a_status_is_never_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        status, iterations = "MaxIterations", 7

    monkeypatch.setattr(_solver.BudgetProgram, "_attempt", lambda self, tol: Stopped())
    with pytest.raises(SolverError, match="MaxIterations") as caught:
        aglfop(table(0, (2, 2, 2)), 0.001)
    assert caught.value.status == "MaxIterations"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x, n: np.where(np.arange(x.size) < n, x * 1.01, x), "misses the cell masses"),
        (lambda x, n: x * 0 + np.resize([1.0, 0.0, 0.0, 1.0], x.size), "exceeds the global bound"),
    ],
)
def test_a_wrong_answer_is_never_returned(
    change, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = _solver.BudgetProgram.solve

    def wrong(self, bounds):
        found = genuine(self, bounds)
        object.__setattr__(found, "x", change(found.x, 8))
        return found

    monkeypatch.setattr(_solver.BudgetProgram, "solve", wrong)
    p = np.array([[[0.3, 0.2]], [[0.2, 0.3]]])
    with pytest.raises(SolverError, match=text):
        aglfop(p, 0.001)


def test_a_promise_that_the_answer_does_not_keep_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genuine = _solver.BudgetProgram.solve

    def wrong(self, bounds):
        found = genuine(self, bounds)
        object.__setattr__(found, "cost", found.cost - 1e-4)
        return found

    monkeypatch.setattr(_solver.BudgetProgram, "solve", wrong)
    with pytest.raises(SolverError, match="promised"):
        aglfop(table(0, (2, 2, 2)), 0.001)


def test_how_good_an_answer_is_its_proof_says(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = _program.OracleProgram.lower_bound
    p = table(0, (2, 2, 2))
    for slack, status in ((5e-7, "solved"), (5e-4, "reduced_accuracy")):
        monkeypatch.setattr(
            _program.OracleProgram, "lower_bound", lambda *a, s=slack: genuine(*a) - s
        )
        assert aglfop(p, 0.001).status == status
    monkeypatch.setattr(_program.OracleProgram, "lower_bound", lambda *a: genuine(*a) - 6e-3)
    with pytest.raises(SolverError, match="proven gap"):
        aglfop(p, 0.001)


def test_a_bound_that_does_not_bind_spoils_no_proof() -> None:
    """Its price is digits of rounding, and a potential at such a price is them blown up."""
    p = np.array(
        [
            [[7.24890883e-03, 7.67692540e-01], [1.03235580e-09, 8.27955821e-02]],
            [[1.33073752e-01, 0.0], [0.0, 4.94683073e-04]],
            [[0.0, 1.87537429e-11], [2.30049820e-03, 6.39403477e-03]],
        ]
    )
    p /= p.sum()
    alone, both = aglfop(p, 0.01), aglfop(p, 0.01, 0.2)
    assert alone.local_disparity < 0.2
    assert both.status == "solved" and both.gap < 1e-6
    assert both.error == pytest.approx(alone.error, abs=1e-8)
    assert both.price_local == 0.0
    assert both.price_global == pytest.approx(alone.price_global, rel=1e-4)


@pytest.fixture(scope="module")
def adult() -> np.ndarray:
    """Counts of sex and income on all 48,842 rows."""
    try:
        parts = [fetch_adult(split=split) for split in ("train", "test")]
    except DataNotAvailableError as error:
        pytest.skip(f"the real Adult files are absent: {error}")
    sex = np.concatenate([np.asarray(part.data["sex"]) == "Male" for part in parts])
    rich = np.concatenate([np.asarray(part.target) for part in parts])
    rich = rich == np.unique(rich)[-1]
    assert sex.size == 48_842
    return np.array([[(~sex & ~rich).sum(), (~sex & rich).sum()],
                     [(sex & ~rich).sum(), (sex & rich).sum()]])  # fmt: skip


@pytest.mark.golden
def test_adult_real(adult: np.ndarray) -> None:
    """Computed from the published file by weighted median, and by a relative-entropy solver."""
    p = adult / adult.sum()
    cut = np.stack([np.floor(adult * 0.92), adult - np.floor(adult * 0.92)], axis=1)
    cut[1] = cut[1, ::-1]
    for q in (p[:, None], cut / cut.sum()):
        assert aglfop(q, eps_global=0.0).error == pytest.approx(0.0644855, abs=5e-8)
        assert aglfop(q, eps_global=0.02).error == pytest.approx(0.0149493, abs=2e-7)
    assert mutual(p) == pytest.approx(0.0367, abs=5e-5)


@pytest.mark.golden
@pytest.mark.parametrize("eps", [1e-12, 1e-9, 1e-7, 2e-6, 1e-5])
def test_adult_real_next_to_zero(adult: np.ndarray, eps: float) -> None:
    cut = np.stack([np.floor(adult * 0.92), adult - np.floor(adult * 0.92)], axis=1)
    cut[1] = cut[1, ::-1]
    q = cut / cut.sum()
    for bounds in ((eps, None), (None, eps), (eps, eps), (eps, 30 * eps), (0.01, eps)):
        answer = aglfop(q, *bounds)
        assert -1e-12 <= answer.gap <= 1e-6 and answer.status == "solved"
        got = disparities(answer.joint)
        assert all(b is None or v <= b + 1e-15 for b, v in zip(bounds, got, strict=True))


def test_fifty_clients_of_three_groups_and_classes() -> None:
    p = table(9, (3, 50, 3), zeros=0.3)
    g, local = disparities(p)
    answer = aglfop(p, 0.5 * g, 0.25 * local)
    assert 0 <= answer.gap < 1e-6 and answer.status == "solved"
    full = aglfop(p, 0.5 * g, 0.25 * local, solver="cvxpy")
    assert answer.error == pytest.approx(full.error, abs=1e-6)


@pytest.mark.parametrize("bounds", [{"global": 0.0}, {"local": 0.0}])
def test_at_zero_the_charges_of_cells_are_slopes_of_the_error(bounds: dict[str, float]) -> None:
    p = np.random.default_rng(0).dirichlet(np.full(18, 2.0)).reshape(3, 2, 3)
    point = OracleProgram(p).solve(bounds)
    charges = OracleProgram(p).label_charges(point)
    step = 1e-4
    for cell in [(0, 0, 0), (1, 1, 2), (2, 0, 1), (2, 1, 0)]:
        moved = p.copy()
        moved[cell] += step
        slope = (OracleProgram(moved / moved.sum()).solve(bounds).error - point.error) / step
        assert slope == pytest.approx(charges[cell] - (p * charges).sum(), abs=2e-3)
