"""Models compared on the same rows: values, paired changes, one home for both."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from privfair.report import AuditConfig, AuditResult, Predictions, audit

from .conftest import make_rows


def run(rows: dict[str, Any], models: Any, **changes: Any) -> AuditResult:
    config = AuditConfig(**{"n_resamples": 400, **changes.pop("config", {})})
    return audit(
        models, None, rows["y"], sensitive_features=rows["sensitive"], config=config, **changes
    )


def three(rows: dict[str, Any]) -> dict[str, Predictions]:
    rng = np.random.default_rng(3)
    noisy = np.where(rng.random(len(rows["y"])) < 0.1, 1 - rows["decision"], rows["decision"])
    return {
        "baseline": Predictions(rows["decision"]),
        "mitigated": Predictions(noisy),
        "again": Predictions(rows["decision"].copy()),
    }


def test_values_are_those_of_the_groups_section(result: AuditResult) -> None:
    table = result.section("mitigation").table("comparison-brief")
    keys = [c.key for c in table.columns]
    assert keys == ["measure", "over", "baseline", "private_twin", "private_twin_change"]
    rows = {(row[0], row[1]): row for row in table.rows}
    for code, name in (("dpd", "Demographic parity difference"),
                       ("eod", "Equalized odds difference")):  # fmt: skip
        row = rows[(name, "sex")]
        assert row[2] == result.findings[f"fairness.{code}.sex"].value
        assert row[3] == result.findings[f"fairness.{code}.sex@private_twin"].value
        change = result.findings[f"change.{code}.sex@private_twin"].value
        assert row[4] == change and change is not None
        assert change.estimate == pytest.approx(row[3].estimate - row[2].estimate, abs=1e-12)
    whole = rows[("Accuracy", "All rows")]
    assert whole[4] == result.findings["change.accuracy@private_twin"].value
    evidence = result.findings["change.dpd.sex@private_twin"].evidence_path
    assert evidence == "mitigation/changes-sex"
    assert not any(t.id.startswith("changes-") for t in result.section("groups").tables)


def test_three_models_have_two_columns_of_changes(rows: dict[str, Any]) -> None:
    section = run(rows, three(rows), reference="again").section("mitigation")
    table = section.table("comparison-brief")
    assert [c.key for c in table.columns][2:] == [
        "again", "baseline", "baseline_change", "mitigated", "mitigated_change",
    ]  # fmt: skip
    equal = [row[4] for row in table.rows]
    assert all((v.estimate, v.low, v.high) == (0.0, 0.0, 0.0) for v in equal)
    assert any(row[6].estimate != 0 for row in table.rows)
    assert section.figures[0].spec["series"] == ["again", "baseline", "mitigated"]


def test_one_model_has_no_such_section_unless_it_is_named(rows: dict[str, Any]) -> None:
    one = Predictions(rows["decision"])
    assert "mitigation" not in {s.id for s in run(rows, one).sections}
    named = run(rows, one, config={"sections": ["mitigation"]}).section("mitigation")
    assert named.status == "not_applicable" and "One model" in named.reason


def test_the_paired_interval_agrees_with_mcnemar() -> None:
    """Independent reference: McNemar's test rejects at 5 % where the interval leaves 0 out."""
    seen = set()
    for shift in (0.0, 0.004, 0.03):
        rows = make_rows(3000, seed=11)
        rng = np.random.default_rng(5)
        right = rows["decision"] == rows["y"]
        u = rng.random(3000)
        wrong = np.where(right, u < 0.05 + shift, u < 0.05)
        other = np.where(wrong, 1 - rows["decision"], rows["decision"])
        models = {"a": Predictions(rows["decision"]), "b": Predictions(other)}
        only = {"sections": ["mitigation"]}
        value = run(rows, models, config=only).findings["change.accuracy@b"].value
        assert value is not None and value.low is not None and value.high is not None
        fits = other == rows["y"]
        table = [[int((right & fits).sum()), int((right & ~fits).sum())],
                 [int((~right & fits).sum()), int((~right & ~fits).sum())]]  # fmt: skip
        p = float(mcnemar(table, exact=False, correction=False).pvalue)
        assert value.estimate == pytest.approx((table[1][0] - table[0][1]) / 3000)
        if not 0.02 < p < 0.1:
            assert (p < 0.05) == (not value.low <= 0 <= value.high)
            seen.add(p < 0.05)
    assert True in seen


def test_hidden_groups_stay_hidden_and_all_rows_are_all_rows() -> None:
    rows = make_rows(9000)
    tiny = np.array(rows["sensitive"]["race"], dtype=object)
    tiny[:12] = "rare"
    rows["sensitive"] = rows["sensitive"].assign(race=tiny)
    result = run(rows, three(rows), config={"min_cell": 10})
    section = result.section("mitigation")
    assert "rare" not in json.dumps(section.to_dict()).replace("rarely", "")
    models = three(rows)
    y = rows["y"]
    expected = float((models["mitigated"].y_pred == y).mean()
                     - (models["baseline"].y_pred == y).mean())  # fmt: skip
    for row in section.table("changes-race").rows:
        if row[0] == "All rows" and row[1] == "mitigated":
            assert row[3].estimate == pytest.approx(expected)


def test_a_private_report_says_why_there_are_no_paired_changes(rows: dict[str, Any]) -> None:
    groups = {"sex": ["Female", "Male"], "race": ["A", "B", "C"]}
    result = run(rows, three(rows), config={"dp_report": 1.0, "public_groups": groups})
    section = result.section("mitigation")
    assert section.status == "not_applicable" and "released" in section.reason
    assert not section.tables and not section.figures
