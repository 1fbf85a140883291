"""Attacks in the report: certified beside audited, contradictions, membership by group."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from privfair.auditing import AttackResult, evaluate_attack, one_run_audit
from privfair.core import PrivacyGuarantee
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, PrivacyError
from privfair.report import AuditConfig, AuditResult, Predictions, audit

from .conftest import HOSTILE, guarantee

FAST = AuditConfig(n_resamples=200)


def canaries(certified: PrivacyGuarantee | None = None, **fields: Any) -> AttackResult:
    """All of 100 guesses right: epsilon is at least 3.4902 at delta 1e-5."""
    included = np.arange(100) % 2 == 0
    delta = None if certified is not None else 1e-5
    return one_run_audit(
        included.astype(float), included, k_plus=50, k_minus=50, certified=certified, delta=delta,
        **fields,
    )  # fmt: skip


def inference(groups: Any = None, n: int = 2000) -> AttackResult:
    rng = np.random.default_rng(9)
    member = np.arange(n) % 2 == 0
    return evaluate_attack(rng.normal(size=n) + member, member, sensitive_features=groups)


def run(rows: dict[str, Any], attacks: Any, epsilon: float = 8.0, **changes: Any) -> AuditResult:
    model = Predictions(rows["decision"], rows["score"], privacy=guarantee(epsilon))
    return audit(
        {"model": model, "other": Predictions(rows["decision"])}, None, rows["y"],
        sensitive_features=rows["sensitive"][["sex"]], attacks=attacks,
        config=changes.pop("config", FAST), **changes,
    )  # fmt: skip


def test_without_attacks_there_is_no_section(result: AuditResult) -> None:
    assert "attacks" not in [s.id for s in result.sections]
    assert "no attack was run" in json.dumps(result.to_dict())


def test_asked_for_by_name_it_says_that_nothing_was_run(rows: dict[str, Any]) -> None:
    config = AuditConfig(n_resamples=200, sections=("summary", "attacks"))
    assert run(rows, None, config=config).section("attacks").status == "not_applicable"


def test_certified_beside_audited(rows: dict[str, Any]) -> None:
    r = run(rows, canaries())
    assert [s.id for s in r.sections].index("attacks") == (
        [s.id for s in r.sections].index("privacy") + 1
    )
    section = r.section("attacks")
    assert section.status == "ok"
    row = section.table("audited-brief").rows[0]
    # The attack's delta is 1e-5, where this certificate (of 1e-6, without a curve) still holds.
    assert row[1:5] == ("3.49", "0.95", "8", "1e-05")
    finding = r.findings["privacy.audited_epsilon"]
    assert finding.severity == "note"
    assert "proves nothing" in finding.text
    assert finding.value is not None
    assert finding.value.low == pytest.approx(3.4902, abs=1e-4)
    assert finding.value.high is None
    assert r.exit_code == 0
    data = json.dumps(r.to_dict())
    assert "no attack was run" not in data
    assert "not a verification" in data


def test_a_contradiction_is_critical_and_ends_with_5(rows: dict[str, Any]) -> None:
    for attack in (canaries(), canaries(PrivacyGuarantee(1.0, 1e-5))):
        r = run(rows, attack, epsilon=1.0)
        finding = r.findings["privacy.contradiction"]
        assert finding.severity == "critical"
        assert "must not be released" in finding.text
        assert r.exit_code == 5
        assert r.section("attacks").table("audited-brief").rows[0][-1] == "VIOLATION"
        assert finding in r.key_findings


def test_the_lower_bound_is_never_rounded_up(rows: dict[str, Any]) -> None:
    attack = replace(canaries(), lower_epsilon=1.99996, upper_epsilon=2.00001)
    row = run(rows, attack).section("attacks").table("audited-brief").rows[0]
    assert (row[1], row[3]) == ("1.999", "2.001")


def test_membership_overall_and_by_group(rows: dict[str, Any]) -> None:
    r = run(rows, inference(["a"] * 1000 + ["b"] * 1000))
    table = r.section("attacks").table("membership-model-1-brief")
    assert [c.label for c in table.columns] == [
        "Group", "AUC", "Largest TPR - FPR", "TPR at FPR 0.1 %", "TPR at FPR 1 %",
        "TPR at FPR 10 %",
    ]  # fmt: skip
    assert [row[0] for row in table.rows] == ["all records", "a", "b"]
    assert all(row[1].low < row[1].estimate < row[1].high for row in table.rows)
    assert not table.rows[0][3].shown  # 1,000 others cannot show 0.1 %
    assert table.rows[0][4].shown
    figure = r.section("attacks").figure("fig-membership-model-1")
    assert {row[1] for row in figure.table.rows} == {"all records", "a", "b", "guessing"}
    assert min(row[2] for row in figure.table.rows if row[1] != "guessing") >= 0.01
    assert r.findings["privacy.attack_auc"].value is not None


def test_small_groups_are_suppressed(rows: dict[str, Any]) -> None:
    groups = ["a"] * 1995 + ["b"] * 5
    config = AuditConfig(n_resamples=200, min_cell=10)
    section = run(rows, inference(groups), config=config).section("attacks")
    cell = section.table("membership-model-1-brief").rows[2][1]
    assert (cell.status, cell.estimate) == ("suppressed", None)
    figure = section.figure("fig-membership-model-1")
    assert {row[1] for row in figure.table.rows} == {"all records", "guessing"}


def test_of_which_model(rows: dict[str, Any]) -> None:
    r = run(rows, {"model": [canaries(), canaries()], "other": canaries()}, epsilon=1.0)
    assert {f for f in r.findings if f.startswith("privacy.audited")} == {
        "privacy.audited_epsilon", "privacy.audited_epsilon_2", "privacy.audited_epsilon@other",
    }  # fmt: skip
    assert "privacy.contradiction" in r.findings
    assert "privacy.contradiction@other" not in r.findings  # nothing is certified for it


def test_what_is_refused(rows: dict[str, Any]) -> None:
    with pytest.raises(InvalidTypeError, match="AttackResult"):
        run(rows, [1.0])
    with pytest.raises(InvalidParameterError, match="not audited"):
        run(rows, {"nobody": canaries()})
    raw = replace(inference(), details={"voids_certificate": True})
    with pytest.raises(PrivacyError, match="Audit canaries instead"):
        run(rows, raw)
    allowed = run(rows, raw, config=AuditConfig(n_resamples=200, allow_raw_training_rows=True))
    assert allowed.model("model").privacy is not None
    assert "raw_training_rows_audited" in allowed.model("model").privacy["unsafe"]  # type: ignore[index]


def test_every_rendering_and_the_round_trip(rows: dict[str, Any]) -> None:
    r = run(rows, [canaries(), inference(["a"] * 1000 + ["b"] * 1000)])
    assert AuditResult.from_dict(json.loads(r.to_json())).to_html() == r.to_html()
    assert "Privacy, audited" in r.to_html()
    assert "Certified beside audited" in r.to_html()
    assert "Audited epsilon" in r.to_text()


def test_hostile_names(rows: dict[str, Any]) -> None:
    groups = [HOSTILE[k % len(HOSTILE)] for k in range(4000)]
    attack = replace(inference(groups, 4000), target=HOSTILE[0], power=HOSTILE[1])
    page = run(rows, attack).to_html()
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page


def test_tests_of_curves_stand_in_a_table_of_their_own(rows: dict[str, Any]) -> None:
    from privfair.accounting import Gaussian
    from privfair.accounting import guarantee as certify

    strong, weak = certify([Gaussian(50.0)], delta=1e-5), certify([Gaussian(0.3)], delta=1e-5)
    honest = canaries(certified=weak, test="curve")
    wrong = canaries(certified=strong, test="curve")
    mu = canaries(certified=strong, test="gdp")
    r = run(rows, [honest, wrong, mu, canaries(certified=strong)])
    table = r.section("attacks").table("audited-curves")
    assert [row[6] for row in table.rows] == ["no violation found", "VIOLATION", "VIOLATION"]
    assert table.rows[2][3].startswith("1.")  # a bound on mu, and never among the epsilons
    assert len(r.section("attacks").table("audited-brief").rows) == 1
    critical = [f.id for f in r.findings.values() if f.severity == "critical"]
    assert len(critical) == 3
    assert all(i.startswith("privacy.contradiction") for i in critical)
    assert r.exit_code == 5
    assert "bound on epsilon" in r.to_html()
    assert run(rows, honest).exit_code == 0
