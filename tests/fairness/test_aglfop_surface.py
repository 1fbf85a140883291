"""The surface: enclosed from below and above, on the grid and between its points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.core.exceptions import InvalidParameterError, SolverError
from privfair.fairness.aglfop import _frontier, aglfop
from privfair.fairness.aglfop._frontier import certified_surface
from privfair.fairness.aglfop._program import LN2, OracleProgram


def table(seed: int, shape: tuple[int, int, int] = (2, 2, 2)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(np.prod(shape), 1.5)).reshape(shape)
    p[0, :, 0] += 0.1
    p[-1, :, -1] += 0.1
    return p / p.sum()


@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_answers_lie_between_the_bounds(seed: int) -> None:
    p = table(seed)
    surface = certified_surface(OracleProgram(p), tol=1e-3)
    assert surface.gap <= 1e-3 and surface.lower.shape == (30, 30)
    rng = np.random.default_rng(seed)
    ends = surface.eps_global[-1], surface.eps_local[-1]
    at = rng.uniform(0, ends, (70, 2)) ** rng.choice([1, 2], (70, 1))
    at[::7, 0], at[3::7, 1] = 0.0, 0.0
    lower, upper = surface.bounds(at[:, 0], at[:, 1])
    for (g, local), low, high in zip(at, lower, upper, strict=True):
        answer = aglfop(p, g, local)
        assert low <= answer.error + 1e-9
        assert answer.error_lower <= high + 1e-9
        assert high - low <= surface.gap + 1e-12
    assert surface.n_solved < 400  # not all 900


@pytest.mark.parametrize("seed", range(3))
def test_the_two_bounds_are_nowhere_further_apart_than_said(seed: int) -> None:
    """Between grid points, next to zero, where the slope is infinite, and beyond the region."""
    surface = certified_surface(OracleProgram(table(seed, (2, 2, 2 + seed % 2))), n=8, tol=2e-3)
    assert surface.max_gap_on_grid <= surface.gap <= 2e-3
    rng = np.random.default_rng(seed)
    at = rng.random((60_000, 2)) ** rng.choice([0, 1, 2, 6, 12], (60_000, 2))
    at[:50_000] *= surface.eps_global[-1], surface.eps_local[-1]
    at[::9, 0], at[4::9, 1] = 0.0, 0.0
    lower, upper = surface.bounds(at[:, 0], at[:, 1])
    assert (upper - lower).max() <= surface.gap + 1e-12
    assert (upper - lower).min() >= -1e-8
    assert (upper - lower).max() > 0.5 * surface.gap  # it is what it says, and not much less


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 2, 3)])
def test_next_to_zero_the_error_falls_no_faster_than_a_square_root(
    shape: tuple[int, int, int],
) -> None:
    p = table(4, shape)
    surface = certified_surface(OracleProgram(p), n=4, tol=5e-3)
    grid = [0.0, 1e-12, 1e-9, 1e-7, 1e-5, 1e-4]
    tight = []
    for g, local in [(e, None) for e in grid] + [(None, e) for e in grid] + [(e, e) for e in grid]:
        far = np.where([g is None, local is None], 1.0, [g or 0.0, local or 0.0])
        root = (surface.roots @ np.array([1.0, *-far, *-np.sqrt(far)])).max()
        truth = aglfop(p, g, local).error
        assert root <= truth + 1e-8
        if 0.0 in (g, local):
            assert root == pytest.approx(truth, abs=1e-6)
            tight.append(truth)
    assert min(tight) > 0.001
    lower, _ = surface.bounds([0.0, 1e-15], [1.0, 1.0])
    assert lower == pytest.approx([tight[0]] * 2, abs=3e-7)


def test_the_grid_has_its_corners_and_falls() -> None:
    p = table(5, (3, 2, 3))
    surface = certified_surface(OracleProgram(p), n=12, tol=2e-3)
    assert surface.upper[0, 0] == pytest.approx(aglfop(p, 0.0, 0.0).error, abs=1e-6)
    assert surface.upper[-1, -1] == pytest.approx(0.0, abs=1e-9)
    assert (np.diff(surface.upper, axis=0) <= 1e-9).all()
    assert (np.diff(surface.lower, axis=1) <= 1e-9).all()
    assert (surface.upper - surface.lower <= 2e-3).all()


def test_beyond_the_region_nothing_changes() -> None:
    p = table(2)
    surface = certified_surface(OracleProgram(p))
    g, local = surface.eps_global[10], surface.eps_local[10]
    _, high = surface.bounds([g, 0.9], [0.9, local])
    free = [aglfop(p, g, None).error, aglfop(p, None, local).error]
    assert high == pytest.approx(free, abs=surface.gap + 1e-6)


def test_prices_of_the_surface_are_those_of_its_answers() -> None:
    p = table(1)
    surface = certified_surface(OracleProgram(p))
    g, local = 0.3 * surface.eps_global[-1], 0.3 * surface.eps_local[-1]
    answer = aglfop(p, g, local)
    rise = aglfop(p, 0.7 * g, local).price_global, aglfop(p, g, 0.7 * local).price_local
    for found, here, before in zip(
        surface.prices(g, local), (answer.price_global, answer.price_local), rise, strict=True
    ):
        assert 0.5 * here - 0.1 <= float(found) <= max(before, here) * 1.5 + 0.1


def test_disparities_that_cancel_have_a_region_of_their_own() -> None:
    """Fixing clients whose disparities cancel creates a global disparity that the labels lack."""
    rates = np.array([[0.786, 0.127], [0.508, 0.065]])
    weight = np.array([[0.183, 0.391], [0.261, 0.165]])
    shares = weight / weight.sum(axis=1, keepdims=True)
    rates[1] += shares[0] @ rates[0] - shares[1] @ rates[1]
    p = weight[:, :, None] * np.stack([1 - rates, rates], axis=2)
    program = OracleProgram(p)
    assert program.of_labels["global"] < 1e-12
    alone, both = aglfop(p, None, 0.0), aglfop(p, 0.0, 0.0)
    assert alone.global_disparity > 0.01 and both.error > alone.error + 0.01
    surface = certified_surface(program)
    assert surface.eps_global[-1] >= alone.global_disparity - 1e-6
    assert surface.gap <= 1e-3


def test_the_region_holds_what_a_bound_between_zero_and_none_needs() -> None:
    """An optimum between can have more of the other disparity than both ends (here five times)."""
    p = np.random.default_rng(20).dirichlet(np.ones(8)).reshape(2, 2, 2)
    program = OracleProgram(p)
    surface = certified_surface(program, n=8)
    edge = surface.eps_global[-1] * LN2
    for local in np.array([0.003, 0.01, 0.03, 0.1, 0.2, 0.4]) * program.of_labels["local"]:
        least = program.solve({"local": local}).error
        assert program.solve({"global": edge, "local": local}).error <= least + 1e-4


def test_a_bound_that_never_matters_has_no_axis() -> None:
    p = np.zeros((2, 2, 2))
    p[0, 0], p[1, 1] = (0.4, 0.1), (0.1, 0.4)  # one group in each client
    surface = certified_surface(OracleProgram(p), n=8)
    assert surface.eps_local.tolist() == [0.0] and surface.upper.shape == (8, 1)
    lower, upper = surface.bounds(0.05, 0.0)
    assert lower <= aglfop(p, 0.05).error <= upper


@given(seed=st.integers(0, 10**6))
@settings(max_examples=6, deadline=None)
def test_planes_are_below_and_facets_above(seed: int) -> None:
    p = table(seed, (2, 3, 2))
    surface = certified_surface(OracleProgram(p), n=9, tol=4e-3)
    rng = np.random.default_rng(seed)
    g, local = rng.uniform(0, 1, 2) * (surface.eps_global[-1], surface.eps_local[-1])
    low, high = surface.bounds(g, local)
    answer = aglfop(p, g, local)
    assert low <= answer.error + 1e-9 and answer.error_lower <= high + 1e-9


@pytest.mark.parametrize("bad", [(-0.1, 0.1), (0.1, np.nan), (np.inf, 0.1)])
def test_bounds_off_the_scale_are_refused(bad: tuple[float, float]) -> None:
    surface = certified_surface(OracleProgram(table(0)), n=4, tol=0.05)
    with pytest.raises(InvalidParameterError):
        surface.bounds(*bad)


def test_a_tolerance_out_of_reach_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frontier, "MOST", 40)
    with pytest.raises(SolverError, match="proven to"):
        certified_surface(OracleProgram(table(0)), n=4, tol=1e-5)


def test_a_point_without_an_answer_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the proof needs it."""
    genuine, asked = OracleProgram.solve, []

    def sometimes(self: OracleProgram, bounds: dict[str, float]) -> object:
        asked.append(bounds)
        if len(asked) in failing:
            raise SolverError("no answer")
        return genuine(self, bounds)

    monkeypatch.setattr(OracleProgram, "solve", sometimes)
    failing: set[int] = {24, 41}
    surface = certified_surface(OracleProgram(table(0)), n=4, tol=5e-3)
    assert surface.gap <= 5e-3 and len(asked) > 41
    failing, asked = set(range(46, 10_000)), []
    with pytest.raises(SolverError, match="proven to"):
        certified_surface(OracleProgram(table(0)), n=4, tol=5e-3)


def test_a_lower_bound_above_an_error_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = OracleProgram.lower_bound
    monkeypatch.setattr(OracleProgram, "lower_bound", lambda *args: genuine(*args) + 1e-3)
    with pytest.raises(SolverError, match="above an attained error"):
        certified_surface(OracleProgram(table(0)), n=4, tol=0.05)


def test_to_dict_is_json() -> None:
    import json

    surface = certified_surface(OracleProgram(table(0)), n=4, tol=0.05)
    back = json.loads(json.dumps(surface.to_dict(), allow_nan=False))
    assert back["unit"] == "bits" and len(back["lower"]) == 4
    assert back["eps_global"][-1] == pytest.approx(
        OracleProgram(table(0)).of_labels["global"] / LN2, rel=0.5
    )


@pytest.mark.parametrize("step", [1e-6, 3e-5])
def test_a_disparity_of_next_to_nothing_costs_what_it_costs(step: float) -> None:
    """Of 1e-12 to 1e-9 nats, so that it has no axis: the attained error is that at zero."""
    p = np.full((2, 2, 2), 0.25)
    p[0, 0] += step, -step
    p[1, 0] -= step, -step
    if step > 1e-5:
        p = np.array([[[0.3 + step, 0.1], [0.1, 0.3]], [[0.1, 0.3 + step], [0.3, 0.1]]])
    p /= p.sum()
    surface = certified_surface(OracleProgram(p), n=3)
    assert surface.gap <= 1e-3
    for g, local in ((0.0, 0.0), (0.0, 0.05), (1e-12, 1.0)):
        lower, upper = surface.bounds(g, local)
        answer = aglfop(p, g, local)
        assert answer.error_lower <= upper + 1e-9 and lower <= answer.error + 1e-9


@pytest.mark.parametrize("seed", [3, 9])
def test_a_nearly_independent_table_is_enclosed(seed: int) -> None:
    # Below 1e-8 bits facets in units of the entropy are thinner than rounding.
    rng = np.random.default_rng(seed)
    sides = [rng.dirichlet([3] * k) for k in (2, 2 + seed % 2, 2)]
    p = np.einsum("z,s,y->zsy", *sides)
    p = p * (1 + 10 ** rng.uniform(-4.6, -3.5) * rng.standard_normal(p.shape))
    program = OracleProgram(p / p.sum())
    surface = certified_surface(program)
    assert 0 < surface.eps_local[-1] < 1e-8
    bounds = rng.random((12, 2)) ** 2 * surface.eps_local[-1] * 1.1
    lower, upper = surface.bounds(*bounds.T)
    assert (upper - lower).max() <= surface.gap + 1e-12
    for (g, local), low, high in zip(bounds, lower, upper, strict=True):
        point = program.solve({"global": g * LN2, "local": local * LN2})
        assert low <= point.error + 1e-9 and point.lower <= high + 1e-9
