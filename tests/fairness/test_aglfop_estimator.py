"""AGLFOP on rows: what it reads, what it answers, how sure it is, what it draws."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from privfair.accounting import Ledger
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    SensitiveFeatureError,
)
from privfair.core.privacy import Budget
from privfair.fairness import AGLFOP
from privfair.fairness.aglfop import FairnessBound, aglfop, fair_rule
from privfair.fairness.aglfop._program import OracleProgram
from privfair.fairness.aglfop._ties import least_disparity


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    n = 4000
    sex, site = rng.choice(["f", "m"], n), rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    y = (rng.random(n) < 0.3 + 0.2 * (sex == "m") - 0.25 * (sex == "m") * (site == "c")).astype(
        int
    )
    score = np.clip(0.2 + 0.4 * y + 0.1 * (sex == "m") + rng.normal(0, 0.2, n), 0, 1)
    return {"y": y, "sensitive_features": sex, "client": site, "score": score}


@pytest.fixture(scope="module")
def data(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in rows.items() if name != "score"}


@pytest.fixture(scope="module")
def limits(data: dict[str, np.ndarray]) -> AGLFOP:
    return AGLFOP().fit(**data)


def test_the_table_is_the_rows(limits: AGLFOP, data: dict[str, np.ndarray]) -> None:
    assert limits.groups_ == ("f", "m") and limits.clients_ == ("a", "b", "c")
    for i, z in enumerate(limits.groups_):
        for j, s in enumerate(limits.clients_):
            for k in (0, 1):
                share = np.mean(
                    (data["sensitive_features"] == z) & (data["client"] == s) & (data["y"] == k)
                )
                assert limits.p_[i, j, k] == pytest.approx(share)
    frame = pd.DataFrame(data)
    again = AGLFOP().fit(
        frame["y"], sensitive_features=frame["sensitive_features"], client=frame["client"]
    )
    assert np.array_equal(again.p_, limits.p_)
    assert not limits.private_ and math.isinf(limits.privacy_.epsilon)


def test_weights_count_like_repeated_rows(data: dict[str, np.ndarray]) -> None:
    weight = np.random.default_rng(1).integers(0, 3, len(data["y"]))
    weighted = AGLFOP().fit(**data, sample_weight=weight)
    repeated = AGLFOP().fit(**{name: np.repeat(value, weight) for name, value in data.items()})
    assert np.allclose(weighted.p_, repeated.p_)


def test_answers_are_those_of_the_table(limits: AGLFOP) -> None:
    direct = aglfop(limits.p_, 0.003, 0.01)
    answer = limits.solve(0.003, 0.01)
    assert answer.error == pytest.approx(direct.error, abs=1e-9)
    assert limits.solve(limits.label_global_disparity_, limits.label_local_disparity_).error == 0


def test_a_client_can_be_bounded_alone(limits: AGLFOP) -> None:
    mean = limits.solve(eps_local=0.004)
    strict = limits.solve(eps_local=0.004, eps_client={"b": 0.0005})
    only = limits.solve(eps_client={"b": 0.0005})
    assert strict.error > mean.error + 1e-4 and only.error <= strict.error + 1e-9
    assert strict.price_client["b"] > 0
    inside = strict.joint[:, 1] / strict.joint[:, 1].sum()
    outer = inside.sum(1, keepdims=True) * inside.sum(0)
    assert (inside * np.log2(inside / outer)).sum() <= 0.0005 + 1e-9
    with pytest.raises(InvalidParameterError, match="eps_client names 1 clients"):
        limits.solve(eps_client={"z": 0.1})


def test_a_grid_is_a_table_of_answers(limits: AGLFOP) -> None:
    found = limits.frontier(grid=([None, 0.0, 0.002], [None, 0.004]))
    assert len(found) == 6 and found["accuracy"].max() == 1.0
    last = found.iloc[-1]
    answer = limits.solve(0.002, 0.004)
    assert last["accuracy"] == pytest.approx(answer.accuracy, abs=1e-8)
    assert last["price_local"] == pytest.approx(answer.price_local, abs=1e-3)
    assert found.iloc[0]["status"] == "labels_feasible"


@pytest.mark.parametrize("bounds", [(0.004, None), (0.0, None), (0.002, 0.003), (0.0, 0.0)])
def test_the_delta_method_agrees_with_the_bootstrap(
    limits: AGLFOP, bounds: tuple[float | None, float | None]
) -> None:
    """150 resamples know a standard deviation to 6 %; four of these are allowed."""
    delta = limits.estimate(*bounds)
    boot = limits.estimate(*bounds, method="bootstrap", n_resamples=150, random_state=0)
    ratio = delta.details["standard_error"] / boot.details["standard_error"]
    assert 0.76 < ratio < 1.3
    assert delta.low < delta.value < delta.high and boot.low < boot.high
    assert [delta.value, boot.value] == pytest.approx(
        [limits.solve(*bounds).accuracy] * 2, abs=1e-8
    )
    assert boot.details["failed"] == 0 and delta.n == 4000


def test_the_bias_of_an_optimum_is_inside_its_interval() -> None:
    """A rule fits its table's noise: 16 tables, nominal 90 %, where percentiles cover half."""
    rng = np.random.default_rng(3)
    score = (np.arange(10) + 0.5) / 10
    p = np.zeros((2, 2, 2, 10))
    for z, s in np.ndindex(2, 2):
        w = np.exp(-((score - 0.4 - 0.12 * z - 0.05 * s) ** 2) / (2 * 0.22**2))
        w *= (0.4, 0.6)[z] * (0.6, 0.4)[(z + s) % 2] / w.sum()
        p[z, s] = [w * (1 - score), w * score]
    truth = fair_rule(p, FairnessBound(eps_global=0.0)).accuracy
    model = AGLFOP(mode="model", bins=(np.arange(1, 10) / 10).tolist())
    hits, plain = 0, 0
    for i in range(16):
        z, s, y, r = np.unravel_index(rng.choice(p.size, size=2000, p=p.ravel()), p.shape)
        model.fit(y, sensitive_features=z, client=s, y_score=score[r])
        e = model.estimate(0.0, method="bootstrap", confidence=0.9, n_resamples=40,
                           random_state=i)  # fmt: skip
        hits += e.low <= truth <= e.high
        plain += e.details["percentile"][0] <= truth <= e.details["percentile"][1]
        assert e.low < e.value < e.high
    assert hits >= 12 and hits >= plain + 3


def test_fixed_clients_vary_less_or_alike(limits: AGLFOP) -> None:
    fixed = limits.estimate(
        0.004, method="bootstrap", n_resamples=60, by_client=True, random_state=0
    )
    assert fixed.low < fixed.value + 0.02 and fixed.details["standard_error"] > 0


def test_where_nothing_is_lost_no_normal_interval_is_given(limits: AGLFOP) -> None:
    free = limits.estimate(0.5, 0.5)
    assert free.status == "boundary" and free.value == 1.0 and math.isnan(free.low)


def test_ties_go_to_the_least_disparity(limits: AGLFOP, data: dict[str, np.ndarray]) -> None:
    tied = AGLFOP(tie_break="least_disparity").fit(**data)
    for bounds in ((0.004, None), (None, 0.003), (0.0, None), (0.0, 0.0), (0.01, 0.001)):
        plain, least = limits.solve(*bounds), tied.solve(*bounds)
        assert least.accuracy == pytest.approx(plain.accuracy, abs=1e-8)
        before = plain.global_disparity + plain.local_disparity
        after = least.global_disparity + least.local_disparity
        assert after <= before + 1e-9
        for eps, value in zip(
            bounds, (least.global_disparity, least.local_disparity), strict=True
        ):
            assert eps is None or value <= eps + 1e-6
    # Not the first best: bounded globally only, local disparity can be had for free.
    table = np.zeros((2, 2, 2))
    table[:, 0] = [[0.2, 0.05], [0.1, 0.15]]
    table[:, 1] = [[0.2, 0.05], [0.1, 0.15]]
    program = OracleProgram(table)
    point = program.solve({"global": 0.01})
    least_point = least_disparity(program, point)
    assert least_point.informations["local"] == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize(
    "criterion", ["demographic_parity", "equalized_odds", "equal_opportunity"]
)
def test_a_model_is_below_the_oracle(
    criterion: str, rows: dict[str, np.ndarray], limits: AGLFOP
) -> None:
    model = AGLFOP(mode="model", criterion=criterion, bins=6).fit(
        rows["y"], sensitive_features=rows["sensitive_features"], client=rows["client"],
        y_score=rows["score"],
    )  # fmt: skip
    free = model.p_.max(axis=2).sum()
    assert model.solve().accuracy == pytest.approx(free, abs=1e-9)
    bound = model.solve(0.001, 0.002)
    assert bound.accuracy < free
    if criterion == "demographic_parity":
        assert bound.accuracy <= limits.solve(0.001, 0.002).accuracy
    model.frontier(n=8, tol=2e-3)
    low, high = model.surface_.bounds(0.001, 0.002)
    assert low - 1e-7 <= 1 - bound.accuracy <= high + 1e-7
    assert model.surface_.gap <= 2e-3


def test_predicted_classes_are_scores_too(rows: dict[str, np.ndarray]) -> None:
    model = AGLFOP(mode="model", bins=None).fit(
        rows["y"], sensitive_features=rows["sensitive_features"],
        y_score=(rows["score"] > 0.5).astype(int),
    )  # fmt: skip
    assert model.p_.shape == (2, 1, 2, 2) and model.clients_ == ("all",)
    assert model.solve(0.0).accuracy > 0.5


def test_a_private_fit_is_charged_once_and_carries_its_noise(data: dict[str, np.ndarray]) -> None:
    ledger = Ledger()
    private = AGLFOP(
        privacy=Budget(epsilon=1.0), groups=["f", "m"], clients=["a", "b", "c"], classes=[0, 1],
        ledger=ledger,
    ).fit(**data)  # fmt: skip
    assert private.private_ and private.privacy_.epsilon <= 1.0
    spent = len(ledger.entries())
    assert spent > 0
    private.frontier(n=6, tol=5e-3)
    private.solve(0.0, 0.001)
    wide = private.estimate(0.004, method="bootstrap", n_resamples=30, random_state=0)
    assert len(ledger.entries()) == spent
    assert wide.privacy is private.privacy_ and wide.low < wide.high
    assert abs(wide.value - AGLFOP().fit(**data).solve(0.004).accuracy) < 0.05
    with pytest.raises(InvalidParameterError, match="bootstrap"):
        private.estimate(0.004)


@pytest.mark.parametrize(
    ("parameters", "changes", "error", "text"),
    [
        ({"criterion": "equalized_odds"}, {}, InvalidParameterError, "mode='model'"),
        ({"criterion": "equal_opportunity"}, {}, InvalidParameterError, "error 0"),
        ({"criterion": "dp"}, {}, InvalidParameterError, "criterion"),
        ({"mode": "models"}, {}, InvalidParameterError, "Did you mean 'model'"),
        ({"mode": "model"}, {}, InvalidParameterError, "needs y_score"),
        ({"tie_break": "first"}, {}, InvalidParameterError, "tie_break"),
        ({"tol": 0}, {}, InvalidParameterError, "tol"),
        ({}, {"y_score": np.zeros(4000)}, InvalidParameterError, "does not use it"),
        ({}, {"y": None}, LabelError, "y is None"),
        ({}, {"y": np.zeros(3)}, DataError, "rows"),
        ({}, {"sensitive_features": None}, SensitiveFeatureError, "sensitive_features"),
        ({}, {"y": np.full(4000, np.nan)}, LabelError, "missing"),
        ({}, {"y": np.linspace(0, 1, 4000)}, LabelError, "50 distinct"),
        ({"groups": ["f"]}, {}, SensitiveFeatureError, "declared groups"),
        ({"clients": ["a", "b"]}, {}, DataError, "declared clients"),
        ({"classes": [0]}, {}, LabelError, "y"),
        ({"privacy": 1.0}, {}, InvalidTypeError, "Budget"),
        ({"privacy": Budget(1.0)}, {}, InvalidParameterError, "groups is None"),
        ({"privacy": Budget(1.0), "groups": ["f", "m"]}, {}, InvalidParameterError, "classes"),
        (
            {"privacy": Budget(1.0), "groups": ["f", "m"], "classes": [0, 1]}, {},
            InvalidParameterError, "clients is None",
        ),
        (
            {"privacy": Budget(1.0), "groups": ["f", "m"], "classes": [0, 1],
             "clients": ["a", "b", "c"]},
            {"sample_weight": np.ones(4000)}, InvalidParameterError, "sample_weight",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused(
    parameters: dict, changes: dict, error: type, text: str, data: dict[str, np.ndarray]
) -> None:
    with pytest.raises(error, match=text):
        AGLFOP(**parameters).fit(**{**data, **changes})


def test_what_cannot_be_estimated_is_refused(limits: AGLFOP, data: dict[str, np.ndarray]) -> None:
    with pytest.raises(InvalidParameterError, match="method"):
        limits.estimate(0.1, method="jackknife")
    weighted = AGLFOP().fit(**data, sample_weight=np.ones(4000))
    for method in ("delta", "bootstrap"):
        with pytest.raises(InvalidParameterError, match="weight"):
            weighted.estimate(0.004, method=method)
    with pytest.raises(InvalidParameterError, match="n must be at least 2"):
        limits.frontier(1)


def test_it_is_an_estimator() -> None:
    from sklearn.exceptions import NotFittedError

    limits = AGLFOP(tie_break="least_disparity", tol=1e-7)
    assert clone(limits).get_params() == limits.get_params()
    with pytest.raises(NotFittedError):
        limits.solve(0.1)


def test_pictures_show_the_surface(limits: AGLFOP) -> None:
    ax = limits.plot_surface()
    assert "not achievable" in ax.get_title() and ax.get_xlabel().endswith("bits")
    figure = limits.plot_surface(parts=True, n=4)
    titles = [axes.get_title() for axes in figure.axes]
    for part in ("unique", "redundant", "masked"):
        assert any(title.startswith(part) for title in titles)


def test_bars_add_up_to_the_global_disparity(limits: AGLFOP, data: dict[str, np.ndarray]) -> None:
    ax = limits.plot_parts([(None, None), (0.003, 0.003)])
    widths = np.array([[bar.get_width() for bar in group] for group in ax.containers])
    labels = limits.label_global_disparity_
    assert widths[0, 0] + widths[1, 0] == pytest.approx(labels, abs=1e-6)
    tied = AGLFOP(tie_break="least_disparity").fit(**data).solve(0.003, 0.003)
    assert widths[0, 1] + widths[1, 1] == pytest.approx(tied.global_disparity, abs=1e-6)
    assert widths[0, 1] + widths[2, 1] == pytest.approx(tied.local_disparity, abs=1e-6)


# -- costs and weights of clients -----------------------------------------------------------------

COST = [[0.0, 0.4], [1.0, 0.1]]  # a missed positive costs most, and a true one is not free
WEIGHT = {"a": 1.0, "b": 0.0, "c": 4.0}


def of_model(rows: dict[str, np.ndarray], **more: object) -> AGLFOP:
    return AGLFOP(mode="model", bins=5, **more).fit(
        rows["y"], sensitive_features=rows["sensitive_features"], client=rows["client"],
        y_score=rows["score"],
    )  # fmt: skip


@pytest.mark.parametrize("bounds", [(0.002, 0.004), (0.0, None), (None, 0.0), (None, None)])
@pytest.mark.parametrize("mode", ["oracle", "model"])
def test_costs_and_weights_are_those_of_a_rule(
    mode: str, bounds: tuple, rows: dict[str, np.ndarray], data: dict[str, np.ndarray]
) -> None:
    bound = FairnessBound(eps_global=bounds[0], eps_local=bounds[1])
    for more in ({"cost": COST}, {"client_weight": WEIGHT},
                 {"cost": COST, "client_weight": WEIGHT}):  # fmt: skip
        limits = of_model(rows, **more) if mode == "model" else AGLFOP(**more).fit(**data)
        p = limits.p_ if mode == "model" else limits.p_[..., None] * np.eye(2)
        weight = [WEIGHT[c] for c in limits.clients_] if "client_weight" in more else None
        best = fair_rule(p, bound, cost=more.get("cost"), client_weight=weight)
        found = limits.solve(*bounds)
        assert found.accuracy == pytest.approx(best.accuracy, abs=2e-6)
        lower = found.lower if hasattr(found, "lower") else found.error_lower
        assert lower <= best.cost + 1e-9 and best.lower <= 1 - found.accuracy + 1e-9
        assert 1 - found.accuracy - lower < 1e-5


def test_costs_bend_the_surface_and_the_intervals(
    rows: dict[str, np.ndarray], data: dict[str, np.ndarray]
) -> None:
    for limits in (AGLFOP(cost=COST, client_weight=WEIGHT).fit(**data),
                   of_model(rows, client_weight=WEIGHT)):  # fmt: skip
        limits.frontier(n=5, tol=4e-3)
        low, high = limits.surface_.bounds(0.002, 0.003)
        assert low - 1e-7 <= 1 - limits.solve(0.002, 0.003).accuracy <= high + 1e-7
        e = limits.estimate(0.002, method="bootstrap", n_resamples=10, random_state=0)
        assert e.low <= e.value <= e.high
        assert e.value == pytest.approx(limits.solve(0.002).accuracy, abs=1e-7)
        with pytest.raises(InvalidParameterError, match="bootstrap"):
            limits.estimate(0.002)
        assert "client_weight" in limits.get_params()
    strict = AGLFOP(cost=COST).fit(**data).solve(eps_client={"b": 0.0})
    assert strict.achieved["client:1"] < 1e-9
    with pytest.raises(InvalidParameterError, match="scale it"):
        AGLFOP(cost=[[0, 2], [1, 0]]).fit(**data).estimate(method="bootstrap")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"cost": [[0.0, 1.0]]}, "one row per label"),
        ({"cost": [[0.0, np.nan], [1.0, 0.0]]}, "finite"),
        ({"client_weight": {"a": 1.0}}, "every client"),
        ({"client_weight": {"a": 0.0, "b": 0.0, "c": 0.0}}, "positive for some client"),
        ({"cost": COST, "tie_break": "least_disparity"}, "tie_break"),
    ],
)
def test_bad_costs_are_refused_before_anything_is_spent(
    more: dict, text: str, data: dict[str, np.ndarray]
) -> None:
    ledger = Ledger()
    public = {"privacy": Budget(1.0), "groups": ["f", "m"], "clients": ["a", "b", "c"],
              "classes": [0, 1], "ledger": ledger}  # fmt: skip
    for given in ({}, public):
        with pytest.raises((InvalidParameterError, DataError), match=text):
            AGLFOP(**more, **given).fit(**data)
    assert not ledger.entries()


# -- what the optimum of a model is made of -------------------------------------------------------


@pytest.mark.parametrize("criterion", ["demographic_parity", "equalized_odds",
                                       "equal_opportunity"])  # fmt: skip
def test_parts_of_a_model_add_up_to_what_its_bounds_are_about(
    criterion: str, rows: dict[str, np.ndarray]
) -> None:
    model = of_model(rows, criterion=criterion)
    bounds = [(None, None), (0.001, None), (0.002, 0.003), (0.0, 0.001), (0.0, 0.0)]
    parts = model._parts(bounds)
    assert all(value.min() > -1e-9 for value in parts.values())
    wide, narrow = parts["unique"] + parts["redundant"], parts["unique"] + parts["masked"]
    for i, (eps_global, eps_local) in enumerate(bounds):
        answer = model.solve(eps_global, eps_local)
        assert eps_global is None or wide[i] <= eps_global + 2e-6
        assert eps_local is None or narrow[i] <= eps_local + 2e-6
        assert wide[i] + narrow[i] <= sum(answer.achieved.values()) + 2e-6
    free = model.solve()  # unique here, so that there is nothing to choose
    assert wide[0] == pytest.approx(free.achieved["global"], abs=1e-6)
    assert narrow[0] == pytest.approx(free.achieved["local"], abs=1e-6)
    ax = model.plot_parts(bounds)
    assert [bar.get_width() for bar in ax.containers[0]] == pytest.approx(
        parts["unique"], abs=1e-5
    )


def test_panels_of_a_model_choose_the_least_disparity() -> None:
    """One group's upper bin is a toss: deciding there like the other group costs nothing."""
    z, r = np.repeat([0, 1], 400), np.tile([0, 1], 400)
    s, y = np.tile([0, 0, 1, 1], 200), np.zeros(800, dtype=int)
    for group, rate in ((0, 0.5), (1, 0.75)):
        for k in (0, 1):
            inside = np.flatnonzero((z == group) & (r == 1) & (s == k))
            y[inside[: round(rate * inside.size)]] = 1
    model = AGLFOP(mode="model", bins=[0.5]).fit(
        y, sensitive_features=z, client=s, y_score=r.astype(float)
    )
    assert model.solve().achieved["global"] > 0.1  # the first best
    parts = model._parts([(None, None), (0.01, 0.02)])
    assert max(float(np.abs(v).max()) for v in parts.values()) < 1e-4
    figure = model.plot_surface(parts=True, n=3)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "best accuracy"  # achievable, and not said to be otherwise
    for part in ("unique", "redundant", "masked"):
        assert any(title.startswith(part) for title in titles)


@pytest.mark.parametrize("cost", [[[-1.0, 1.0], [2.0, -3.0]], [[0.0, 100.0], [300.0, 0.0]]])
def test_the_surface_of_any_cost(cost: list[list[float]]) -> None:
    """Gains are negative costs; large costs lead to bounds of any ratio next to zero."""
    rng = np.random.default_rng(0)
    z, s = rng.integers(0, 2, 3000), rng.integers(0, 2, 3000)
    y = (rng.random(3000) < 0.3 + 0.3 * z + 0.1 * s).astype(int)
    tol = 3e-3 * float(np.abs(cost).max())
    model = AGLFOP(cost=cost).fit(y, sensitive_features=z, client=s)
    surface = model.frontier(tol=tol).surface_
    assert surface.gap <= tol
    gaps = []
    for g, local in ((0.0, 0.0), (1e-4, 1.0), (0.01, 0.02), (0.05, 0.01), (1.0, 1.0)):
        best = 1.0 - model.solve(g, local).accuracy
        lower, upper = surface.bounds(g, local)
        assert lower <= best + 1e-6 * tol and best <= upper + 1e-6 * tol
        gaps.append(float(upper - lower))
    assert max(gaps) <= tol and max(gaps) > 1e-6 * tol
    assert float(surface.lower.min()) == pytest.approx(1.0 - model.solve().accuracy, abs=1e-9)


def test_bounds_next_to_zero_of_an_awkward_ratio() -> None:
    """A ratio near that from which the least bound is set to zero first."""
    rng = np.random.default_rng(0)
    z, s = rng.integers(0, 2, 3000), rng.integers(0, 2, 3000)
    y = (rng.random(3000) < 0.3 + 0.3 * z + 0.1 * s).astype(int)
    cost = [[0.0, 1.0], [3.0, 0.0]]
    model = AGLFOP(cost=cost).fit(y, sensitive_features=z, client=s)
    point = model._program.solve({"global": 1.80408264e-08, "local": 9.17595107e-11})
    assert point.status == "solved" and point.error - point.lower < 1e-6
    assert point.informations["local"] <= 9.17595107e-11
