"""The frontier in the report: closed forms, order of the curves, the model on its own curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privfair.report import AuditConfig, AuditResult, Predictions, audit, from_json, to_json
from privfair.report._frontier import curve_of, disparity, information

from .conftest import make_rows


def run(rows: dict[str, Any], models: Any = None, **changes: Any) -> AuditResult:
    config = AuditConfig(
        **{"n_resamples": 200, "sections": ["frontier"], **changes.pop("config", {})}
    )
    given = Predictions(rows["decision"], rows["score"]) if models is None else models
    return audit(given, None, rows["y"], sensitive_features=rows["sensitive"], config=config,
                 **changes)  # fmt: skip


def cells(table: Any) -> list[dict[str, Any]]:
    keys = [c.key for c in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def test_the_ends_of_the_oracle_are_closed_forms(rows: dict[str, Any]) -> None:
    section = run(rows).section("frontier")
    assert section.status == "ok", section.reason
    points = cells(section.table("frontier-sex"))
    sex, y = rows["sensitive"]["sex"].to_numpy(), rows["y"]
    rate = {g: y[sex == g].mean() for g in ("Female", "Male")}
    share = min((sex == g).mean() for g in rate)
    assert 1 - points[0]["oracle"] == pytest.approx(share * abs(rate["Male"] - rate["Female"]),
                                                    abs=1e-7)  # fmt: skip
    assert points[-1]["oracle"] == pytest.approx(1.0, abs=1e-9)
    assert points[0]["bound"] == 0 and points[0]["oracle_price"] is None
    counts = np.array([[((sex == g) & (y == k)).sum() for k in (0, 1)] for g in rate])
    assert points[-1]["bound"] == pytest.approx(information(counts.astype(float)))


def test_curves_are_ordered_and_rise(rows: dict[str, Any]) -> None:
    section = run(rows).section("frontier")
    for name in ("frontier-sex", "frontier-race"):
        points = cells(section.table(name))
        for key in ("oracle", "client_blind", "blind"):
            values = [p[key] for p in points]
            assert all(b >= a - 1e-6 for a, b in zip(values, values[1:], strict=False)), (
                name,
                key,
            )
        for p in points:
            assert p["oracle"] >= p["client_blind"] - 1e-6 >= p["blind"] - 2e-6
            assert 0 <= p["gap"] < 1e-3


def test_errors_of_groups_add_up_to_the_error(rows: dict[str, Any]) -> None:
    points = cells(run(rows).section("frontier").table("frontier-sex"))
    sex = rows["sensitive"]["sex"].to_numpy()
    for p in points:
        mean = sum(p[f"error_{k}"] * (sex == g).mean() for k, g in enumerate(("Female", "Male")))
        assert mean == pytest.approx(1 - p["blind"], abs=1e-7)


def test_a_model_is_below_its_own_curve_and_found_where_it_is(rows: dict[str, Any]) -> None:
    """The rules refine the decision, so that the model itself is one of them."""
    models = {
        "a": Predictions(rows["decision"], rows["score"]),
        "b": Predictions(rows["decision"]),
    }
    result = run(rows, models)
    for row in cells(result.section("frontier").table("frontier-models-sex-brief")):
        assert row["accuracy"] == pytest.approx((rows["decision"] == rows["y"]).mean())
        assert row["distance"].estimate > -1e-6
        assert row["bound"] >= row["accuracy"] + row["distance"].estimate - 1e-6
    subject = result.findings["fairness.frontier.distance.sex"].value
    assert subject is not None and subject.low is not None and subject.high is not None
    twin = result.findings["fairness.frontier.distance.sex@b"].value
    assert twin is not None and twin.estimate is not None and subject.estimate is not None
    assert twin.estimate <= subject.estimate + 1e-6  # a score can only add
    panel = result.section("frontier").figure("fig-frontier").spec["panels"][0]
    assert [p["label"] for p in panel["points"]] == ["1, 2", ""]  # drawn on each other
    assert panel["points"][0]["y"] == pytest.approx((rows["decision"] == rows["y"]).mean())
    assert from_json(to_json(result)).to_html() == result.to_html()


def test_the_perfect_decision_has_nothing_left_to_gain(rows: dict[str, Any]) -> None:
    result = run(rows, Predictions(rows["y"]))
    last = cells(result.section("frontier").table("frontier-sex"))[-1]
    assert last["blind"] == pytest.approx(1.0, abs=1e-6)  # the decision itself is a rule
    value = result.findings["fairness.frontier.distance.sex"].value
    assert value is not None and value.estimate == pytest.approx(0.0, abs=1e-6)
    assert value.low is not None and value.low >= 0.0


def test_clients_bring_a_local_curve(rows: dict[str, Any]) -> None:
    site = np.where(np.arange(len(rows["y"])) % 3 == 0, "n", "s")
    section = run(rows, client=site).section("frontier")
    points = cells(section.table("frontier-local-sex"))
    assert points[-1]["oracle"] == pytest.approx(1.0, abs=1e-9)
    assert len(section.figure("fig-frontier").spec["panels"]) == 3


def test_information_within_clients_is_a_mean() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(1, 50, (3, 4, 2)).astype(float)
    weights = table.sum(axis=(0, 2)) / table.sum()
    expected = sum(w * information(table[:, s]) for s, w in enumerate(weights))
    assert disparity(table, "local") == pytest.approx(expected)
    assert disparity(table, "global") == pytest.approx(information(table.sum(axis=1)))


def test_a_point_without_an_answer_is_left_empty(
    rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import privfair.fairness.aglfop as room
    from privfair.core.exceptions import SolverError

    def fail(*_: Any, **__: Any) -> Any:
        raise SolverError("no certified answer.")

    monkeypatch.setattr(room, "fair_rule", fail, raising=False)
    section = run(rows).section("frontier")
    assert section.status == "ok"
    points = cells(section.table("frontier-sex"))
    assert all(p["blind"] is None and "no answer" in p["status"] for p in points)
    assert all(p["oracle"] is not None for p in points)
    value = section.findings[0].value
    assert value is not None and value.status == "not_estimable"
    assert section.figures[0].table.rows


def test_a_curve_needs_no_scores_and_no_clients() -> None:
    table = np.zeros((2, 1, 2, 2), dtype=np.int64)
    table[0, 0], table[1, 0] = [[30, 10], [5, 15]], [[10, 10], [5, 35]]
    curve = curve_of(table, "global", points=3)
    accuracy = curve.points[-1].accuracy("client_blind")
    assert accuracy is not None and 0.74 < accuracy <= 90 / 120 + 1e-9  # 90 without any bound


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"dp_report": 1.0}, "released tables")],
)
def test_a_private_report_has_no_frontier(
    rows: dict[str, Any], setting: dict[str, Any], words: str
) -> None:
    groups = {"sex": ["Female", "Male"], "race": ["A", "B", "C"]}
    section = run(rows, config={**setting, "public_groups": groups}).section("frontier")
    assert section.status == "not_applicable" and words in section.reason


def test_without_labels_there_is_none() -> None:
    rows = make_rows(400)
    result = audit(rows["decision"], None, None, sensitive_features=rows["sensitive"],
                   config=AuditConfig(n_resamples=200, sections=["frontier"]))  # fmt: skip
    assert result.section("frontier").status == "not_applicable"


def test_the_curve_reaches_models_that_carry_more_than_the_labels(rows: dict[str, Any]) -> None:
    wild = (rows["sensitive"]["sex"] == "Male").to_numpy().astype(int)
    result = run(rows, {"mild": rows["decision"], "wild": wild})
    points = cells(result.section("frontier").table("frontier-sex"))
    models = cells(result.section("frontier").table("frontier-models-sex-brief"))
    assert points[-1]["bound"] == pytest.approx(models[1]["bits"])
    assert points[-1]["bound"] > 0.9 and points[-1]["oracle"] == pytest.approx(1.0)


def test_nothing_within_reach_is_not_a_certainty() -> None:
    """At 0 the interval has room above: 20 resamples of few rows, some of which gain."""
    rng = np.random.default_rng(0)
    n, seen = 200, 0
    for _ in range(3):
        z, score = rng.integers(0, 2, n), rng.integers(0, 4, n) / 4
        y = (rng.random(n) < 0.2 + 0.6 * score).astype(int)
        given = Predictions((score > 0.4).astype(int), score)
        result = audit(
            given, None, y, sensitive_features={"z": z.astype(str)},
            config=AuditConfig(n_resamples=100, sections=["frontier"]),
        )  # fmt: skip
        value = result.findings["fairness.frontier.distance.z"].value
        assert value.low <= value.estimate <= value.high
        seen += value.high > value.low
    assert seen == 3


def test_the_interval_allows_for_rules_that_fit_noise() -> None:
    """A bias that goes with the root of the variance, at a third of a standard error and at two.

    The value is ``truth + bias + noise`` and its draws are ``truth + sqrt(2) bias + noise`` away
    from it, as with the cost of no information. 95 % intervals miss in at most 9 % of 600 trials
    (a binomial with 5 % has more with probability 3e-5); those that take the bias off once miss
    the truth far more often.
    """
    from privfair.report._frontier import interval_of

    rng = np.random.default_rng(1)
    for bias in (0.3, 2.0, -2.0):
        missed = once = 0
        for _ in range(600):
            value = bias + rng.normal()
            draws = value + (np.sqrt(2) - 1) * bias + rng.normal(size=200)
            low, high = interval_of(draws / 100, value / 100, 0.95)
            missed += not low <= 0 <= high
            q = np.quantile(draws, [0.025, 0.975])
            once += not 2 * value - q[1] <= 0 <= 2 * value - q[0]
        assert missed <= 54
        assert abs(bias) < 1 or once > 90


def test_the_cost_of_no_information_is_covered_where_groups_score_almost_alike() -> None:
    """1,500 rows, two groups whose scores differ by less than their noise; 100 tables, seeded.

    The upper limit misses in at most 12 (an honest 2.5 % has more with probability 3e-6). Without
    what the dual adds for optimism, and for bootstrap intervals, it is missed in more than 30.
    """
    from scipy.special import expit
    from scipy.stats import norm

    from privfair.report._frontier import rule_of
    from privfair.report._parity import most_cost

    edges = norm.ppf(np.arange(1, 10) / 10)
    middle = norm.ppf((np.arange(10) + 0.5) / 10)
    share = np.array([0.67, 0.33])
    cumulated = norm.cdf(np.concatenate([[-np.inf], edges, [np.inf]])[None] + [[0.0], [0.1]])
    given = np.diff(cumulated, axis=1) * share[:, None]
    positive = expit(1.5 * middle - 0.5)
    p = np.stack([given * (1 - positive), given * positive], axis=1)[:, None]
    accept = middle > 1 / 3
    model = p[..., 0, ~accept].sum() + p[..., 1, accept].sum()
    truth = model - float(rule_of(p, "global", 0.0, "blind").accuracy)
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        cells = rng.multinomial(1500, p.ravel()).reshape(p.shape)
        missed += most_cost(cells, accept, 0.95) < truth
    assert missed <= 12


def test_the_upper_limit_of_the_cost_is_never_below_the_cost() -> None:
    from privfair.report._frontier import rule_of
    from privfair.report._parity import most_cost

    rng = np.random.default_rng(2)
    for groups in (2, 3, 4):
        cells = rng.integers(0, 40, (groups, 2, 2, 6))
        accept = np.arange(6) >= 3
        p = cells / cells.sum()
        model = p[..., 0, ~accept].sum() + p[..., 1, accept].sum()
        cost = float(model) - float(rule_of(p, "global", 0.0, "blind").accuracy)
        assert cost - 1e-6 <= most_cost(cells, accept, 1e-9) <= most_cost(cells, accept, 0.95)
        assert most_cost(100 * cells, accept, 0.95) < most_cost(cells, accept, 0.95)


def test_a_group_of_nobody_asks_nothing() -> None:
    from privfair.report._parity import most_cost

    rng = np.random.default_rng(3)
    cells, accept = rng.integers(0, 40, (3, 2, 2, 6)), np.arange(6) >= 3
    cells[1] = 0
    assert most_cost(cells, accept, 0.95) == most_cost(cells[[0, 2]], accept, 0.95)
    p = cells[:1] / cells[:1].sum()
    model = p[..., 0, ~accept].sum() + p[..., 1, accept].sum()
    best = np.maximum(p[:, :, 0].sum(axis=(0, 1)), p[:, :, 1].sum(axis=(0, 1))).sum()
    assert most_cost(cells[:2], accept, 1e-9) >= model - best - 1e-9


def test_the_interval_of_the_cost_reaches_the_limit(rows: dict[str, Any]) -> None:
    from privfair.report._parity import most_cost
    from privfair.report._sections import frontier

    seen = []

    def spy(*given: Any) -> float:
        seen.append(most_cost(*given))
        return 0.875

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontier, "most_cost", spy)
        found = run(rows).findings
    assert len(seen) == 2 and all(0 < limit < 1 for limit in seen)
    for name in ("sex", "race"):
        assert found[f"fairness.frontier.parity.{name}"].value.high == 0.875
        assert found[f"fairness.frontier.parity_group.{name}"].value.high < 0.875
