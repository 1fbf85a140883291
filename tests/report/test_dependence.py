"""Dependence of scores in the report: independent references, gaps beside it, all together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from privfair.report import AuditConfig, AuditResult, Predictions, audit
from privfair.report._sections.dependence import largest_ks, mean_gap

from .conftest import make_rows


def run(rows: dict[str, Any], models: Any = None, **settings: Any) -> AuditResult:
    given = Predictions(rows["decision"], rows["score"]) if models is None else models
    config = AuditConfig(**{"n_resamples": 200, "sections": ["dependence"], **settings})
    return audit(given, None, rows["y"], sensitive_features=rows["sensitive"], config=config)


def naive_dcor_sq(score: Any, groups: Any) -> float:
    """Squared distance correlation by its definition, double centring of n x n arrays."""

    def centred(d: Any) -> Any:
        return d - d.mean(axis=0) - d.mean(axis=1)[:, None] + d.mean()

    a = centred(np.abs(score[:, None] - score[None, :]))
    b = centred((groups[:, None] != groups[None, :]).astype(float))
    return float((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))


def cells(table: Any) -> list[dict[str, Any]]:
    keys = [c.key for c in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def test_values_against_the_definition() -> None:
    rows = make_rows(500)
    section = run(rows).section("dependence")
    assert section.status == "ok", section.reason
    found = {row["attribute"]: row for row in cells(section.table("dependence-brief"))}
    for name in ("sex", "race"):
        groups = rows["sensitive"][name].to_numpy()
        row = found[name]
        assert row["dcor_sq"].estimate == pytest.approx(naive_dcor_sq(rows["score"], groups))
        assert row["dcor_sq"].low <= row["dcor_sq"].estimate <= row["dcor_sq"].high
        means = [rows["score"][groups == g].mean() for g in np.unique(groups)]
        assert row["mean_gap"] == pytest.approx(max(means) - min(means))
        worst = max(
            float(ks_2samp(rows["score"][groups == g], rows["score"]).statistic)
            for g in np.unique(groups)
        )
        assert row["ks"] == pytest.approx(worst, abs=1e-12)
        assert row["jsd"] <= row["jsd_raw"]


def test_small_helpers() -> None:
    codes = np.array([0, 0, 2, 2])
    assert mean_gap(np.array([0.0, 1.0, 1.0, 1.0]), codes) == 0.5
    assert largest_ks(np.array([0.0, 0.0, 1.0, 1.0]), codes) == 0.5
    assert largest_ks(np.array([0.3] * 4), codes) == 0.0


def test_the_exclusive_or_is_seen_by_the_joint_row_only() -> None:
    a, b = np.tile(["x", "y"], 400), np.repeat(["u", "v"], 400)
    decision = ((a == "x") ^ (b == "u")).astype(int)
    result = audit(decision, None, None, sensitive_features={"a": a, "b": b},
                   config=AuditConfig(n_resamples=200, sections=["dependence"]))  # fmt: skip
    for name in ("a", "b"):
        value = result.findings[f"fairness.dcor.{name}"].value
        assert value is not None and value.estimate == pytest.approx(0.0, abs=1e-12)
    joint = result.findings["fairness.dcor.a_x_b"]
    assert joint.value is not None and joint.value.estimate > 0.05  # type: ignore[operator]
    assert joint.null is not None and joint.null["p_value"] == pytest.approx(1 / 201)
    row = cells(result.section("dependence").table("dependence-joint"))[0]
    assert row["eta"] > 0 and row["targeted"] > 0
    assert any("decisions stand in" in text for text in result.section("dependence").caveats)


def test_independence_is_not_rejected_and_dependence_is() -> None:
    rng = np.random.default_rng(2)
    rows = make_rows(1500)
    rows["score"] = rng.random(1500)
    rows["decision"] = (rows["score"] > 0.5).astype(int)
    calm = run(rows).findings["fairness.dcor.sex"]
    rows["score"] = np.clip(rows["score"] + 0.2 * (rows["sensitive"]["sex"] == "Male"), 0, 1)
    loud = run(rows).findings["fairness.dcor.sex"]
    assert calm.null is not None and calm.null["p_value"] > 0.01  # type: ignore[operator]
    assert loud.null is not None and loud.null["p_value"] < 0.01  # type: ignore[operator]
    assert "Gap of mean scores" in loud.text and "of decisions" in loud.text


def test_both_gaps_stand_side_by_side(rows: dict[str, Any]) -> None:
    result = run(rows, sections=["dependence", "groups"])
    found = {r["attribute"]: r for r in cells(result.section("dependence").tables[0])}
    assert found["sex"]["hard_gap"] == result.findings["fairness.dpd.sex"].value


@pytest.mark.parametrize("setting", [{"min_cell": 10}, {"dp_report": 1.0}])
def test_suppressed_and_private_reports(setting: dict[str, Any]) -> None:
    rows = make_rows(4000)
    tiny = np.array(rows["sensitive"]["race"], dtype=object)
    tiny[:7] = "rare"
    rows["sensitive"] = rows["sensitive"].assign(race=tiny)
    groups = {"sex": ["Female", "Male"], "race": ["A", "B", "C", "rare"]}
    if "dp_report" in setting:
        setting = {**setting, "public_groups": groups}
    section = run(rows, **setting).section("dependence")
    if "dp_report" in setting:
        assert section.status == "not_applicable" and not section.tables
    else:
        assert section.status == "ok"
        assert all(row["attribute"] != "rare" for row in cells(section.tables[0]))
