"""Disparities of crossings have a table of their own; what is marked, is marked for a reason."""

from __future__ import annotations

import pytest

from privfair.core.estimate import Estimate, NullReference
from privfair.report import AuditResult, to_html
from privfair.report._estimates import LABELS
from privfair.report._parts import Value
from privfair.report._sections.groups import severity_of


def test_the_evidence_of_every_disparity_is_in_the_table_it_leads_to(result: AuditResult) -> None:
    seen = 0
    for identifier, finding in result.findings.items():
        if not identifier.startswith("fairness."):
            continue
        section, table = finding.evidence_path.split("/")
        rows = result.section(section).table(table).rows
        if section in {"groups", "intersections"}:
            name = finding.label.split(",")[0]
            assert name in LABELS.values() or "mean" in finding.label or "FN" in finding.label
        held = [c for row in rows for c in row if isinstance(c, Value)]
        assert finding.value in held, identifier
        seen += section == "intersections"
    assert seen >= 3


def test_a_crossing_has_a_table_of_gaps_with_what_chance_shows(result: AuditResult) -> None:
    section = result.section("intersections")
    (table,) = [t for t in section.tables if t.id.startswith("gaps-")]
    keys = [c.key for c in table.columns]
    assert keys == ["measure", "model", "value", "null_expected", "null_q95", "p", "between"]
    raw = {f.null["p_value"] for f in section.findings if f.null is not None}
    shown = [row[keys.index("p")] for row in table.rows]
    assert len(shown) == 6 and all(p >= min(raw) for p in shown)  # adjusted upwards
    assert [b.ref for b in section.blocks].count(table.id) == 1
    assert f'id="{table.id}"' in to_html(result)


@pytest.mark.parametrize(
    ("name", "value", "low", "high", "q95", "status", "severity"),
    [
        ("demographic_parity_difference", 0.5, 0.2, 0.7, 0.6, "small_sample", "note"),
        ("demographic_parity_difference", 0.5, 0.2, 0.7, 0.4, "small_sample", "attention"),
        ("demographic_parity_difference", 0.5, 0.2, 0.7, 0.6, "ok", "attention"),
        ("demographic_parity_difference", 0.5, 0.05, 0.7, 0.1, "ok", "note"),
        ("demographic_parity_ratio", 0.3, 0.1, 0.6, 0.2, "small_sample", "note"),
        ("demographic_parity_ratio", 0.3, 0.1, 0.6, 0.9, "small_sample", "attention"),
    ],
)
def test_a_small_sample_within_chance_is_not_marked(
    name: str, value: float, low: float, high: float, q95: float, status: str, severity: str
) -> None:
    e = Estimate(name, value, low, high, n=20, status=status, reason="few rows",
                 null=NullReference(0.1, q95, 0.2))  # fmt: skip
    assert severity_of(e, 0.8 if name.endswith("ratio") else 0.1) == severity
