"""The split of a disparity in the report: closed forms, checks, clients, what is not shown."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.core.exceptions import DataError, PrivacyError
from privfair.report import (
    AuditConfig,
    AuditResult,
    Predictions,
    Section,
    SectionResult,
    audit,
    from_json,
    to_json,
)

from .conftest import make_rows


def run(decision: Any, sensitive: Any, client: Any = None, **changes: Any) -> AuditResult:
    fields = {"n_resamples": 200, "sections": ["pid"], **changes.pop("config", {})}
    y = changes.pop("y", None)
    return audit(
        decision, changes.pop("X", None), y, sensitive_features=sensitive, client=client,
        config=AuditConfig(**fields), **changes,
    )  # fmt: skip


def value(result: AuditResult, name: str) -> float:
    found = result.findings[f"fairness.pid.{name}"].value
    assert found is not None and found.estimate is not None
    return float(found.estimate)


# Four clients of 200 rows with a known split, in bits (Hamman and Dutta 2024).
Z = np.tile(["f", "m"], 400)
BIT = (Z == "m").astype(int)
CLOSED = {
    "unique": (BIT, np.repeat(["a", "b"], 400), (1.0, 0.0, 0.0)),
    "redundant": (BIT, np.where(BIT == 1, "a", "b"), (0.0, 1.0, 0.0)),
    "masked": (BIT ^ np.repeat([0, 1], 400), np.repeat(["a", "b"], 400), (0.0, 0.0, 1.0)),
}


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_closed_forms(name: str) -> None:
    decision, client, (u, r, m) = CLOSED[name]
    result = run(decision, {"sex": Z}, client)
    got = [value(result, f"{part}.sex") for part in ("unique", "redundant", "masked")]
    assert got == pytest.approx([u, r, m], abs=1e-9)
    assert value(result, "global.sex") == pytest.approx(u + r, abs=1e-9)
    assert value(result, "local.sex") == pytest.approx(u + m, abs=1e-9)
    assert "(parts: BROJA)" in result.to_text(), "the terminal says which decomposition it is"


def site_of(rows: dict[str, Any], seed: int = 0) -> pd.Series:
    rng = np.random.default_rng(seed)
    n = len(rows["y"])
    lean = 0.3 + 0.4 * (rows["sensitive"]["sex"] == "Male").to_numpy()
    site = np.where(rng.random(n) < lean, "north", "south").astype(object)
    site[:40], site[40:70] = "tiny one", "tiny two"
    return pd.Series(site, name="site")


def test_the_section_of_a_real_split(rows: dict[str, Any]) -> None:
    models = {"a": Predictions(rows["decision"]), "b": Predictions(rows["y"])}
    result = run(models, rows["sensitive"], site_of(rows), y=rows["y"])
    section = result.section("pid")
    assert section.status == "ok", section.reason
    wanted = {
        f"fairness.pid.{part}.{key}"
        for part in ("unique", "redundant", "masked", "global", "local")
        for key in ("sex", "race", "sex@b", "race@b", "sex_x_race")
    }
    assert set(result.findings) == wanted
    checks = section.table("pid-checks")
    keys = [c.key for c in checks.columns]
    for row in checks.rows:
        of = dict(zip(keys, row, strict=True))
        assert of["residual"] < 1e-6 and of["certificate"] < 1e-6
        assert of["gap"] <= of["gap_bound"] + 1e-12
    clients = section.table("pid-clients-sex")
    names = {row[0]: row[1] for row in clients.rows}
    assert set(names) == {"north", "south", "other (small clients)"}
    assert names["other (small clients)"] == 70 and sum(names.values()) == len(rows["y"])
    # the local part is the mean of the clients', by their shares
    local = sum(row[2] * row[3] for row in clients.rows)
    assert local == pytest.approx(value(result, "local.sex"), abs=1e-9)
    assert result.counts["clients"] == names
    assert any("tiny one, tiny two" in text for text in section.caveats)
    assert "BROJA" in section.method
    figure = section.figure("fig-pid")
    assert figure.kind == "stack" and {row[0] for row in figure.table.rows} == {"sex", "race"}
    assert from_json(to_json(result)).to_html() == result.to_html()


def test_the_gap_of_rates_is_that_of_the_groups_section(rows: dict[str, Any]) -> None:
    result = run(rows["decision"], rows["sensitive"], config={"sections": ["pid", "groups"]})
    gaps = {row[0]: row[2] for row in result.section("pid").table("pid-checks").rows}
    for name in ("sex", "race"):
        found = result.findings[f"fairness.dpd.{name}"].value
        assert found is not None and gaps[name] == pytest.approx(found.estimate, abs=1e-12)


def test_without_a_client_nothing_is_invented(rows: dict[str, Any]) -> None:
    result = run(rows["decision"], rows["sensitive"])
    section = result.section("pid")
    assert {i.split(".")[2] for i in result.findings} == {"global"}
    assert not section.figures
    assert [row[0] for row in section.table("pid-sex-brief").rows] == ["Global"]
    notes = " ".join(b.text for b in section.blocks if b.kind == "note")
    assert "No client column" in notes and "--client" in notes


def test_no_disparity_is_on_the_boundary() -> None:
    rng = np.random.default_rng(1)
    z, s = rng.choice(["f", "m"], 2000), rng.choice(["a", "b", "c"], 2000)
    result = run(rng.integers(0, 2, 2000), {"sex": z}, s)
    unique = result.findings["fairness.pid.unique.sex"].value
    assert unique is not None and unique.status == "boundary" and unique.low == 0.0
    p = result.findings["fairness.pid.global.sex"].null
    assert p is not None and p["p_value"] is not None and p["p_value"] > 0.01


def test_the_note_on_what_stands_in_for_clients_is_shown(rows: dict[str, Any]) -> None:
    config = {"client_note": "The column job stands in for clients."}
    section = run(rows["decision"], rows["sensitive"], site_of(rows), config=config).section("pid")
    assert section.caveats[0] == "The column job stands in for clients."


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (pd.DataFrame({"a": ["x"] * 2400, "b": ["y"] * 2400}), "one column"),
        (["x", None] * 1200, "missing values"),
        ([f"row {k}" for k in range(2400)], "identifies rows"),
        (["x"] * 7, "2400"),
    ],
)
def test_bad_clients_are_refused_before_anything_is_entered(
    rows: dict[str, Any], client: Any, words: str
) -> None:
    from privfair.accounting import Ledger

    ledger = Ledger(dataset_id="audited")
    with pytest.raises(DataError, match=words) as caught:
        run(rows["decision"], rows["sensitive"], client, ledger=ledger)
    assert "row 1" not in str(caught.value)
    assert len(ledger) == 0


def test_missing_clients_may_be_a_client_of_their_own(rows: dict[str, Any]) -> None:
    site = site_of(rows).where(np.arange(len(rows["y"])) % 3 > 0, None)
    result = run(rows["decision"], rows["sensitive"], site, config={"missing_group": "missing"})
    names = {row[0] for row in result.section("pid").table("pid-clients-sex").rows}
    assert "missing" in names


def test_under_suppression_no_number_of_a_client_is_shown() -> None:
    rows = make_rows(4000)
    result = run(rows["decision"], rows["sensitive"], site_of(rows), config={"min_cell": 10})
    section = result.section("pid")
    assert section.status == "ok" and "clients" not in result.counts
    text = json.dumps(result.to_dict())
    assert "north" not in text and "tiny one" not in text
    assert not any(t.id.startswith("pid-clients") for t in section.tables)


PUBLIC = {"sex": ["Female", "Male"], "race": ["A", "B", "C"]}


def test_a_private_report_does_not_read_the_clients(rows: dict[str, Any]) -> None:
    config = {"dp_report": 1.0, "public_groups": PUBLIC, "sections": None}
    result = run(rows["decision"], rows["sensitive"], site_of(rows), y=rows["y"], X=rows["X"],
                 config=config)  # fmt: skip
    section = result.section("pid")
    assert section.status == "not_applicable" and "fairness pid --epsilon" in section.reason
    assert not any(i.startswith("fairness.pid") for i in result.findings)
    text = json.dumps(result.to_dict())
    assert "north" not in text and "tiny one" not in text


def test_what_is_wrong_with_a_client_column_is_no_answer_of_a_private_report(
    rows: dict[str, Any],
) -> None:
    """A missing client, or one of its own in each row, is a fact about rows that nobody paid."""
    config = {"dp_report": 1.0, "public_groups": PUBLIC, "sections": ["pid"]}
    n = len(rows["y"])
    lost = np.array(["a", None] * n, dtype=object)[:n]
    for client in (lost, [f"row {k}" for k in range(n)]):
        with pytest.raises(DataError):  # a raw report does say so
            run(rows["decision"], rows["sensitive"], client)
        result = run(rows["decision"], rows["sensitive"], client, config=config)
        assert result.section("pid").status == "not_applicable"


@pytest.mark.parametrize("what", ["clients", "socio"])
def test_a_plugin_cannot_read_clients_or_status_in_a_private_report(
    rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from privfair.core import registry

    def build(ctx: Any) -> SectionResult:
        found = ctx.clients.codes if what == "clients" else ctx.socio.low
        return SectionResult("extra", "Extra", reason=str(len(found)))

    table = dict(registry._REGISTERED["report_sections"])
    table["extra"] = Section("extra", "Extra", build)
    monkeypatch.setitem(registry._REGISTERED, "report_sections", table)
    config = {"dp_report": 1.0, "public_groups": PUBLIC, "sections": ["extra"]}
    low = np.arange(len(rows["y"])) % 2 == 0
    result = run(rows["decision"], rows["sensitive"], site_of(rows), ses=low, config=config)
    section = result.section("extra")
    assert section.status == "failed" and "differential" in section.reason
    assert PrivacyError.__name__ not in section.reason


def test_one_client_is_nothing_to_split(rows: dict[str, Any]) -> None:
    n = len(rows["y"])
    for client in (np.full(n, "only"), np.arange(n) // 20):  # the latter merged into one
        result = run(rows["decision"], rows["sensitive"], client)
        section = result.section("pid")
        assert section.status == "ok" and not section.figures
        assert "fairness.pid.global.sex" in result.findings
        assert "fairness.pid.redundant.sex" not in result.findings
        assert any("one client" in b.text for b in section.blocks if b.kind == "note")


def test_a_client_may_be_called_like_the_merged_ones(rows: dict[str, Any]) -> None:
    n = len(rows["y"])
    client = np.where(np.arange(n) < 1000, "other (small clients)", "b").astype(object)
    client[-80:-40], client[-40:] = "c", "d"
    result = run(rows["decision"], rows["sensitive"], client)
    want = {"other (small clients)": 1000, "b": n - 1080, "other (small clients)*": 80}
    assert result.counts["clients"] == want
    table = result.section("pid").table("pid-clients-sex")
    assert {row[0]: row[1] for row in table.rows} == want


def test_statements_name_the_attribute_where_they_hold_its_number(rows: dict[str, Any]) -> None:
    section = run(rows["decision"], rows["sensitive"], site_of(rows)).section("pid")
    (said,) = [b.items for b in section.blocks if b.kind == "list"]
    assert any("BROJA" in text for text in said)
    assert any("causal" in text for text in said)
    for text in said:
        assert text.endswith("(sex)") == ("bits here" in text), text


def test_what_has_no_p_says_why(rows: dict[str, Any]) -> None:
    """24 clients and three groups: too many cells to solve each permuted table."""
    n = len(rows["y"])
    result = run(rows["decision"], rows["sensitive"], np.arange(n) % 24)
    for key, lost in (("sex", False), ("race", True)):
        table = result.section("pid").table(f"pid-{key}-brief")
        at = [c.key for c in table.columns].index("p")
        assert any(row[at] is None for row in table.rows) == lost, key
        assert any("permuted" in note for note in table.notes) == lost, key
