"""Socio-economic parity in the report: the hand table, its parts, what is refused or left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
)
from privfair.fairness.sep import EffortRule, SESRule
from privfair.report import AuditConfig, AuditResult, Predictions, audit, from_json, to_json

from .conftest import make_rows

# Twelve rows worked by hand: group, decision, capital, hours.
HAND = pd.DataFrame(
    [("M", 1, 5, 50), ("M", 1, 0, 40), ("M", 1, 0, 20), ("M", 0, 7, 45), ("M", 1, 0, 60),
     ("M", 0, 0, 38), ("F", 0, 0, 50), ("F", 0, 0, 40), ("F", 1, 9, 45), ("F", 0, 0, 20),
     ("F", 0, 0, 60), ("F", 1, 3, 30)],
    columns=["sex", "decision", "capital", "hours"],
)  # fmt: skip
POOR, BUSY = SESRule("capital", "<", 1), EffortRule("hours", 40)


def hand(**changes: Any) -> AuditResult:
    given = {
        "ses": POOR, "effort": BUSY, "X": HAND[["capital", "hours"]],
        "config": AuditConfig(
            n_resamples=200, min_count=1, min_pos=1, min_neg=1, sections=["sep"]
        ), **changes,
    }  # fmt: skip
    X = given.pop("X")
    return audit(HAND["decision"], X, None, sensitive_features=HAND[["sex"]], **given)


def test_the_hand_table() -> None:
    result = hand()
    rows = {row[0]: row for row in result.section("sep").table("sep-status-sex-brief").rows}
    assert rows["F"][4].estimate == 0.5 and rows["M"][4].estimate == -0.25
    assert rows["F"][8].estimate == 0.5 and rows["M"][8].estimate == -0.5
    assert (rows["F"][2], rows["M"][2]) == (4, 4) and (rows["F"][7], rows["M"][7]) == (3, 2)
    for row in rows.values():
        assert row[5] + row[6] == pytest.approx(row[4].estimate, abs=1e-12)
    assert result.findings["fairness.sep.status.sex"].value.estimate == 0.5  # type: ignore[union-attr]
    assert result.findings["fairness.csep.status.sex"].attained_by == ("F",)
    assert from_json(to_json(result)).to_html() == result.to_html()


def test_a_column_of_booleans_is_the_same_as_the_rule() -> None:
    low, busy = (HAND["capital"] < 1).to_numpy(), (HAND["hours"] >= 40).to_numpy()
    rule, plain = hand(), hand(ses=low, effort=busy, X=None)
    name = "sep-status-sex-brief"
    again = plain.section("sep").table(name)
    assert again.rows == rule.section("sep").table(name).rows
    # without a column of effort there are no curves
    assert not plain.section("sep").figures and rule.section("sep").figures


def test_without_effort_there_is_no_conditional_gap() -> None:
    section = hand(effort=None).section("sep")
    assert [c.key for c in section.tables[0].columns][-1] == "ses_part"
    assert not any(f.id.startswith("fairness.csep") for f in section.findings)


def test_several_rules_and_several_models(rows: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    n = len(rows["y"])
    X = pd.DataFrame({"education": rng.integers(1, 16, n), "hours": rng.integers(10, 60, n)})
    models = {"a": Predictions(rows["decision"]), "b": Predictions(rows["y"])}
    result = audit(
        models, X, rows["y"], sensitive_features=rows["sensitive"],
        ses={"schooling": SESRule("education", "<", 8),
             "nearly all": SESRule("education", "<", 15)},
        effort=EffortRule("hours", rank_within=("sex", "ses")),
        config=AuditConfig(n_resamples=200, sections=["sep"]),
    )  # fmt: skip
    section = result.section("sep")
    names = {"fairness.sep.schooling.sex", "fairness.csep.nearly_all.race@b"}
    assert names <= set(result.findings)
    outcome = [row for row in section.tables[0].rows if row[1] == "recorded outcome"]
    twin = [row for row in section.tables[0].rows if row[1] == "b"]
    assert [r[4].estimate for r in outcome] == [r[4].estimate for r in twin]
    assert any("nearly everybody" in text for text in section.caveats)
    figure = section.figure("fig-effort")
    assert {p["title"] for p in figure.spec["panels"]} == {"sex: Female", "sex: Male"}
    assert all(f.evidence_path.split("/")[1] in {t.id for t in section.tables}
               for f in section.findings)  # fmt: skip


def test_the_section_is_there_only_with_a_rule(rows: dict[str, Any]) -> None:
    result = audit(rows["decision"], None, None, sensitive_features=rows["sensitive"],
                   config=AuditConfig(n_resamples=200))  # fmt: skip
    assert "sep" not in {s.id for s in result.sections}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"ses": None}, InvalidParameterError, "ses was not"),
        ({"ses": {}}, InvalidParameterError, "no rule"),
        ({"ses": [1] * 12}, InvalidTypeError, "needs a threshold"),
        ({"ses": [True] * 5}, LengthMismatchError, "12 audited rows"),
        ({"X": None}, DataError, "pass X"),
        ({"ses": "compas_status"}, DataError, "COMPAS"),
        ({"effort": EffortRule("hours", rank_within="race")}, DataError, "rank_within names"),
    ],
)
def test_bad_rules_are_refused_before_anything_is_entered(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    from privfair.accounting import Ledger

    ledger = Ledger(dataset_id="audited")
    with pytest.raises(error, match=words):
        hand(ledger=ledger, **changes)
    assert len(ledger) == 0


@pytest.mark.parametrize("setting", [{"min_cell": 10}, {"dp_report": 2.0}])
def test_small_sets_are_never_shown_raw(setting: dict[str, Any]) -> None:
    rows = make_rows(3000)
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"education": rng.integers(1, 16, 3000)})
    groups = {"sex": ["Female", "Male"], "race": ["A", "B", "C"]}
    config = AuditConfig(
        n_resamples=200,
        sections=["sep"],
        public_groups=groups if "dp_report" in setting else {},
        **setting,
    )  # fmt: skip
    result = audit(rows["decision"], X, rows["y"], sensitive_features=rows["sensitive"],
                   ses=SESRule("education", "<", 8), config=config)  # fmt: skip
    section = result.section("sep")
    assert section.status == "not_applicable" and section.reason
    assert not section.tables and not section.findings
