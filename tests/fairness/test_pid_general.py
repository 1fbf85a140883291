"""The decomposition for any number of groups: solvers against each other and against cvxpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.core.exceptions import ConvergenceWarning, InvalidParameterError
from privfair.fairness.pid import influence, pid_from_joint
from privfair.fairness.pid._certificate import feasible, objective, shifted
from privfair.fairness.pid._newton import newton
from tests.fairness.pid_tables import random_tables

LOG2 = np.log(2)
PARTS = ("unique", "redundant", "masked", "unique_client")


def cvxpy_union(P: np.ndarray) -> float:
    """Union information in bits by cvxpy, from the definition: min I_Q(Z;(Yhat,S))."""
    cvxpy = pytest.importorskip("cvxpy")
    groups, m, K = P.shape
    Q = [cvxpy.Variable((m, K), nonneg=True) for _ in range(groups)]
    q = sum(Q)
    limits = [cvxpy.sum(Q[z], axis=1) == P[z].sum(1) for z in range(groups)]
    limits += [cvxpy.sum(Q[z], axis=0) == P[z].sum(0) for z in range(groups)]
    value = sum(cvxpy.sum(cvxpy.rel_entr(part, q)) for part in Q)
    problem = cvxpy.Problem(cvxpy.Minimize(value), limits)
    problem.solve(solver=cvxpy.CLARABEL)
    z = P.sum((1, 2))
    return (float(problem.value) - float((z * np.log(z)).sum())) / LOG2


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 3, 4), (4, 3, 2)])
def test_newton_and_cone_agree_with_cvxpy(shape: tuple[int, int, int]) -> None:
    P = random_tables(np.random.default_rng(0), shape, 4, zeros=0.4)
    expected = [cvxpy_union(table) for table in P]
    for method in ("newton", "cone"):
        result = pid_from_joint(P, method=method)
        assert (result.method == method).all()
        assert result.union_information == pytest.approx(expected, abs=1e-6)
        assert (result.certificate_gap <= 1e-7).all()


def test_three_ways_agree_on_two_groups() -> None:
    """200 tables with zeros, clients of one group, and 50 clients; the exact path is exact."""
    rng = np.random.default_rng(1)
    for shape, count in [((2, 2, 2), 60), ((2, 3, 5), 60), ((2, 2, 10), 60), ((2, 2, 50), 20)]:
        P = random_tables(rng, shape, count, zeros=0.4, concentration=0.5)
        exact = pid_from_joint(P)
        general = pid_from_joint(P, method="newton")
        for name in PARTS:
            assert getattr(general, name) == pytest.approx(getattr(exact, name), abs=1e-6)
        error = np.abs(general.union_information - exact.union_information)
        assert (error <= general.certificate_gap + exact.certificate_gap).all()
        few = pid_from_joint(P[:8], method="cone")
        for name in PARTS:
            assert getattr(few, name) == pytest.approx(getattr(exact, name)[:8], abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 4, 8), (4, 6, 2), (5, 5, 20), (3, 2, 50)])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_certificates_bound_the_true_error(shape: tuple[int, int, int], zeros: float) -> None:
    """Answers stopped early are certified against ones run to the end."""
    P = random_tables(np.random.default_rng(2), shape, 6, zeros=zeros)
    zy, zs = P.sum(3), P.sum(2)
    best = newton(zy, zs, tol=1e-10, xp=np)
    lower, upper = best.value - best.gap, best.value
    assert (best.gap < 1e-7).all()
    for tol in (1e-2, 1e-4, 1e-6):
        early = newton(zy, zs, tol=tol, xp=np)
        assert (early.gap <= tol).all()
        assert (early.value - early.gap <= upper + 1e-15).all()
        assert (early.value >= lower - 1e-15).all()
        assert (early.gap >= early.value - upper - 1e-15).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 4), st.integers(1, 4), st.integers(1, 5))
@pytest.mark.filterwarnings("ignore:P holds one decision")
def test_identities_of_general_tables(seed: int, groups: int, m: int, K: int) -> None:
    P = random_tables(np.random.default_rng(seed), (groups, m, K), 3, zeros=0.4)
    r = pid_from_joint(P)
    assert r.converged.all()
    assert r.unique + r.redundant == pytest.approx(r.global_disparity, abs=1e-6)
    assert r.unique + r.masked == pytest.approx(r.local_disparity, abs=1e-6)
    assert r.redundant + r.unique_client == pytest.approx(r.client_information, abs=1e-6)
    assert r.coinformation == pytest.approx(r.redundant - r.masked, abs=1e-6)
    for name in PARTS:
        assert (getattr(r, name) >= 0).all()
    turned = pid_from_joint(np.swapaxes(P, 2, 3))
    assert turned.unique == pytest.approx(r.unique_client, abs=1e-6)
    assert turned.redundant == pytest.approx(r.redundant, abs=1e-6)
    names = pid_from_joint(P[:, ::-1, ::-1, ::-1])
    assert names.unique == pytest.approx(r.unique, abs=1e-6)
    split = pid_from_joint(np.concatenate([P[..., :1] * 0.3, P[..., :1] * 0.7, P[..., 1:]], -1))
    assert split.unique == pytest.approx(r.unique, abs=1e-6)


def test_a_group_without_members_leaves_the_exact_path() -> None:
    rng = np.random.default_rng(3)
    pairs = random_tables(rng, (2, 3, 4), 3)
    P = random_tables(rng, (3, 3, 4), 5)
    P[1], P[3, 0], P[3, 1:] = 0.0, 0.0, pairs[1]
    P[1, ::2] = pairs[0]
    result = pid_from_joint(P)
    assert list(result.method) == ["newton", "exact", "newton", "exact", "newton"]
    expected = pid_from_joint(pairs)
    assert result.unique[[1, 3]] == pytest.approx(expected.unique[:2], abs=1e-14)
    rows = influence(P, result)["unique"]
    pair = influence(pairs, expected)["unique"]
    assert rows[1, ::2] == pytest.approx(pair[0], abs=1e-12)
    assert (rows[1, 1] == 0).all()
    alone = pid_from_joint(P[1])
    assert alone.alpha is None and float(alone.unique) == pytest.approx(float(expected.unique[0]))
    assert influence(P[1], alone)["unique"][::2] == pytest.approx(pair[0], abs=1e-12)


def test_the_cone_takes_over_where_newton_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import privfair.fairness.pid._newton as module

    P = random_tables(np.random.default_rng(4), (3, 3, 3), 3, zeros=0.2)
    expected = pid_from_joint(P)
    monkeypatch.setattr(module, "_STEPS", 3)
    result = pid_from_joint(P)
    assert (result.method == "cone").all() and result.converged.all()
    assert result.unique == pytest.approx(expected.unique, abs=1e-6)
    with pytest.warns(ConvergenceWarning, match="certificate_gap exceeds tol"):
        rough = pid_from_joint(P, method="newton")
    assert not rough.converged.any()
    error = np.abs(rough.union_information - expected.union_information)
    assert (error <= rough.certificate_gap + 1e-7).all()


def test_a_breakdown_of_the_linear_algebra_keeps_the_last_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import privfair.fairness.pid._newton as module

    P = random_tables(np.random.default_rng(5), (3, 3, 3), 4)
    original, calls = module._direction, [0]

    def breaks(*args: object) -> tuple:
        calls[0] += 1
        step, nu_y, nu_s, decrement = original(*args)
        return (
            (step, nu_y, nu_s, decrement * np.nan)
            if calls[0] == 6
            else (
                step,
                nu_y,
                nu_s,
                decrement,
            )
        )

    monkeypatch.setattr(module, "_direction", breaks)
    result = pid_from_joint(P)
    assert (result.method == "cone").all() and result.converged.all()


def test_exact_for_more_groups_is_refused() -> None:
    P = random_tables(np.random.default_rng(6), (3, 2, 2), 1)
    with pytest.raises(InvalidParameterError, match="two groups"):
        pid_from_joint(P, method="exact")


def test_influence_is_the_derivative_for_three_groups() -> None:
    P = random_tables(np.random.default_rng(7), (3, 3, 4), 3, concentration=5.0, signal=0.3)
    result = pid_from_joint(P, tol=1e-9)
    rows = influence(P, result)
    h = 1e-3
    for name in ("unique", "redundant", "masked", "unique_client"):
        assert np.abs((P * rows[name]).sum((1, 2, 3))).max() < 1e-12
        for cell in [(0, 0, 0), (1, 2, 3), (2, 1, 1)]:
            spike = np.zeros_like(P)
            spike[(slice(None), *cell)] = 1.0
            up, down = (
                getattr(pid_from_joint((1 - t) * P + t * spike, tol=1e-9), name) for t in (h, -h)
            )
            slope = (up - down) / (2 * h)
            assert rows[name][(slice(None), *cell)] == pytest.approx(slope, abs=5e-3), name


# -- the pieces of a certificate ----------------------------------------------------------
def test_a_repaired_table_has_its_margins() -> None:
    rng = np.random.default_rng(8)
    P = random_tables(rng, (3, 4, 5), 20, zeros=0.4)
    zy, zs = P.sum(3), P.sum(2)
    support = (zy[..., None] > 0) & (zs[:, :, None, :] > 0)
    Q = feasible(rng.random(P.shape) * support * 0.1, zy, zs, np)
    assert (Q >= 0).all()
    assert np.abs(Q.sum(3) - zy).max() < 1e-15
    assert np.abs(Q.sum(2) - zs).max() < 1e-15
    assert objective(P, np) == pytest.approx(
        [sum(v * np.log(v / t.sum(0)[y, s]) for (z, y, s), v in np.ndenumerate(t) if v) for t in P]
    )


def test_shifted_multipliers_are_feasible_and_only_rise_where_there_is_room() -> None:
    rng = np.random.default_rng(9)
    P = random_tables(rng, (3, 4, 5), 20, zeros=0.5)
    zy, zs = P.sum(3), P.sum(2)
    alpha, beta = shifted(rng.normal(size=zy.shape), rng.normal(size=zs.shape), zy, zs, np)
    total = np.exp(alpha[:, :, :, None] + beta[:, :, None, :]).sum(axis=1)
    assert total.max() <= 1 + 1e-12
    assert (alpha[zy == 0] == -np.inf).all()
    used = total > 0
    touched = np.where(used, total, 1.0).max(axis=1)
    assert touched == pytest.approx(1.0), "each client has a tight decision"
