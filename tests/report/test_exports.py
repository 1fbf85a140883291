"""SARIF, model card, tables and PDF: shape, order, hostile names, the notice, the missing tool."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import types
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from privfair.core.exceptions import MissingDependencyError
from privfair.report import (
    AuditConfig,
    AuditResult,
    DatasetInfo,
    Finding,
    Predictions,
    Value,
    audit,
    from_json,
    to_csv_zip,
    to_html,
    to_model_card,
    to_pdf,
    to_sarif,
)
from privfair.report._card import escape_markdown
from tests.report.conftest import HOSTILE

HOSTILE_MARKDOWN = (
    *HOSTILE,
    "[click](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "a | b",
    "@everyone #1 https://evil.example www.evil.example",
    "`code` **bold** _it_ ~~gone~~",
    "- item",
    "1. item",
    "# heading",
    "{role}`x` {{ name }} $x^2$",
)


@pytest.fixture(scope="module")
def hostile() -> AuditResult:
    """Groups, model, title, data and caveats with names that mean to do something."""
    rng = np.random.default_rng(3)
    n = 60 * len(HOSTILE_MARKDOWN)
    y = rng.integers(0, 2, n)
    who = np.resize(np.array(HOSTILE_MARKDOWN, dtype=object), n)
    return audit(
        {HOSTILE_MARKDOWN[0]: Predictions(rng.integers(0, 2, n)), "=1+1": Predictions(y)},
        None,
        y,
        sensitive_features={"=cmd|' /C calc'!A0": who},
        config=AuditConfig(
            n_resamples=100,
            title=HOSTILE_MARKDOWN[10],
            dataset=DatasetInfo(HOSTILE_MARKDOWN[11], caveats=HOSTILE_MARKDOWN),
        ),
    )


@pytest.fixture(scope="module")
def embedded(result: AuditResult) -> AuditResult:
    return replace(
        result, notice="EMBEDDED DATA: made up.", dataset=replace(result.dataset, embedded=True)
    )


def strict(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def members(data: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode("utf-8") for name in archive.namelist()}


# -- all forms ----------------------------------------------------------------------------------
def test_every_form_says_first_that_data_are_embedded(
    embedded: AuditResult, result: AuditResult
) -> None:
    document = strict(to_sarif(embedded))
    assert next(iter(document)) == "properties"
    assert document["properties"] == {"_notice": embedded.notice}
    first = document["runs"][0]["results"][0]
    assert first["message"]["text"] == embedded.notice and first["level"] == "warning"
    assert to_model_card(embedded).splitlines()[0] == f"**{embedded.notice}**"
    files = members(to_csv_zip(embedded))
    assert next(iter(files)) == "README.txt"
    assert files["README.txt"].splitlines()[0] == embedded.notice
    for name, text in files.items():
        if name != "README.txt":
            rows = list(csv.reader(io.StringIO(text)))
            assert rows[0][0] == "_notice"
            assert {row[0] for row in rows[1:]} <= {embedded.notice}
    # and no form says so without reason
    assert "properties" not in strict(to_sarif(result))
    assert to_model_card(result).startswith("# Model card")
    assert not any("_notice" in text for text in members(to_csv_zip(result)).values())


def test_every_form_is_the_same_each_time_and_after_a_round_trip(
    result: AuditResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = from_json(result.to_json())
    before = to_sarif(result), to_model_card(result), to_csv_zip(result)
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert (to_sarif(again), to_model_card(again), to_csv_zip(again)) == before


def test_undefined_numbers_are_never_nan(result: AuditResult) -> None:
    odd = replace(result.sections[0], findings=(
        Finding("fairness.dpd.x", "attention", "t", value=Value(float("nan"), status="ok")),
        Finding("privacy.epsilon", "note", "t", value=Value(float("inf"))),
        Finding("fairness.eod.x", "note", "t", value=Value.missing("no positives")),
    ))  # fmt: skip
    other = result.with_sections(odd, *result.sections[1:])
    found = {r["properties"]["id"]: r for r in strict(to_sarif(other))["runs"][0]["results"]}
    assert found["fairness.dpd.x"]["properties"]["value"]["estimate"] is None
    assert found["privacy.epsilon"]["properties"]["value"]["estimate"] == "inf"
    assert "not estimable: no positives" in found["fairness.eod.x"]["message"]["text"]
    texts = [to_model_card(other), *members(to_csv_zip(other)).values()]
    assert not any(re.search(r"\bnan\b", text, re.IGNORECASE) for text in texts)


# -- SARIF --------------------------------------------------------------------------------------
def test_sarif_has_the_findings_in_its_shape(result: AuditResult) -> None:
    document = strict(to_sarif(result, artifact="out/my audit.json"))
    assert document["version"] == "2.1.0" and "sarif-schema-2.1.0" in document["$schema"]
    (run,) = document["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == sorted(set(rules)) and "fairness.dpd" in rules
    # rules hold no name of the data
    assert not any("sex" in rule or "race" in rule or "@" in rule for rule in rules)
    found = {r["partialFingerprints"]["privfairFinding/v1"]: r for r in run["results"]}
    assert set(found) == set(result.findings)
    levels = {"critical": "error", "attention": "warning", "note": "note"}
    for identifier, finding in result.findings.items():
        item = found[identifier]
        assert rules[item["ruleIndex"]] == item["ruleId"]
        assert identifier.startswith(item["ruleId"])
        assert item["level"] == levels[finding.severity]
        assert item["message"]["text"]
        place = item["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert place == "out/my%20audit.json"
    gap = result.findings["fairness.dpd.sex"]
    assert gap.value is not None
    value = found["fairness.dpd.sex"]["properties"]["value"]
    assert (value["estimate"], value["low"]) == (gap.value.estimate, gap.value.low)
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


def test_sarif_reports_failed_sections_and_severities(result: AuditResult) -> None:
    broken = replace(
        result.sections[0], status="failed", reason="it broke",
        findings=(Finding("integrity.data", "critical", "wrong file"),),
    )  # fmt: skip
    (run,) = strict(to_sarif(result.with_sections(broken)))["runs"]
    assert [r["level"] for r in run["results"]] == ["error"]
    assert run["invocations"][0]["executionSuccessful"] is False
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note["level"] == "error" and "it broke" in note["message"]["text"]


def test_sarif_messages_hold_no_link_and_no_placeholder(hostile: AuditResult) -> None:
    bad = replace(hostile.sections[0], findings=(
        Finding("a.b", "note", "[x](javascript:1) {0} \x1b[31m"),
    ))  # fmt: skip
    (run,) = strict(to_sarif(hostile.with_sections(bad)))["runs"]
    assert run["results"][0]["message"]["text"] == "a.b. [x] (javascript:1) {{0}} [31m"
    (run,) = strict(to_sarif(hostile))["runs"]
    assert not any("](" in r["message"]["text"] for r in run["results"])


# -- model card ---------------------------------------------------------------------------------
def test_the_card_has_its_parts(result: AuditResult) -> None:
    card = to_model_card(result)
    titles = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert titles == [
        "What was audited", "Data", "Metrics", "Disparities", "Privacy", "Caveats",
        "What this card does not show",
    ]  # fmt: skip
    assert "no verdict" in card and "They are made up." in card
    assert "private twin" in card and "Every batch is a Poisson sample." in card
    disparities = card.split("## Disparities")[1].split("## Privacy")[0]
    section = result.section("groups")
    gaps = next(t for t in section.tables if t.id == "gaps-sex-brief")
    for column in gaps.columns:
        assert escape_markdown(column.label) in disparities
    metrics = card.split("## Metrics")[1].split("## Disparities")[0]
    assert re.search(r"\| Accuracy \| 0\.\d+ \(0\.\d+ to 0\.\d+\)", metrics)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_hostile_names_stay_text_in_the_card(hostile: AuditResult) -> None:
    card = to_model_card(hostile)
    parser = _Tags()
    parser.feed(card)
    assert parser.tags == []
    assert "\x1b" not in card and "\u202e" not in card
    assert not re.search(r"(?<!\\)\]\(|://|www\.|(?<!\\)`|\{\{|@everyone", card)
    assert len(re.findall(r"^# ", card, re.MULTILINE)) == 1
    assert len(re.findall(r"^## ", card, re.MULTILINE)) == 7
    # each row of a table has as many cells as its header
    width = 0
    for line in card.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = width or cells
        assert cells == width, line


@pytest.mark.parametrize("name", HOSTILE_MARKDOWN)
def test_escaped_markdown_renders_as_the_text_itself(name: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"html": True})
    tokens = parser.parse(f"- {escape_markdown(name)}\n")
    kinds = [t.type for t in tokens if t.type.endswith("_open")]
    assert kinds == ["bullet_list_open", "list_item_open", "paragraph_open"]
    inline = next(t for t in tokens if t.type == "inline")
    assert {c.type for c in inline.children or ()} <= {"text", "text_special"}


# -- tables -------------------------------------------------------------------------------------
def test_the_archive_holds_every_table(result: AuditResult) -> None:
    data = to_csv_zip(result)
    files = members(data)
    tables = sum(len(s.tables) + len(s.figures) for s in result.sections)
    assert len(files) == tables + 2
    assert files["groups/rates-sex-brief.csv"] == (
        result.section("groups").table("rates-sex-brief").csv()
    )
    rows = list(csv.DictReader(io.StringIO(files["findings.csv"])))
    assert [row["id"] for row in rows] == list(result.findings)
    gap = result.findings["fairness.dpd.sex"].value
    (row,) = [r for r in rows if r["id"] == "fairness.dpd.sex"]
    assert gap is not None and float(row["estimate"]) == gap.estimate
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {i.create_system for i in archive.infolist()} == {3}


def test_no_cell_is_a_formula(hostile: AuditResult) -> None:
    seen = 0
    for name, text in members(to_csv_zip(hostile)).items():
        if name == "README.txt":
            continue
        for cell in (cell for row in csv.reader(io.StringIO(text)) for cell in row):
            seen += cell.startswith("'=")
            if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}:
                float(cell)  # a number may begin with a sign, nothing else
    assert seen > 0


def test_no_name_leaves_the_folder(result: AuditResult) -> None:
    tables = result.section("data").tables
    bad = [replace(t, id=i) for t, i in zip(tables, ("../../etc/x", "CON"), strict=False)]
    evil = replace(result.section("data"), id="..", tables=tuple(bad), figures=(), blocks=())
    twin = replace(evil, id="//")
    names = list(members(to_csv_zip(result.with_sections(evil, twin))))
    assert len({n.lower() for n in names}) == len(names) == 6
    for name in names:
        assert re.fullmatch(r"[\w-]+(/[\w-]+)?\.(csv|txt)", name)
    assert "__/CON_.csv" in names


# -- PDF ----------------------------------------------------------------------------------------
def test_a_pdf_without_its_library(result: AuditResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'privfair\[pdf\]'.*browser"):
        to_pdf(result)


def test_a_pdf_is_made_of_the_page_and_loads_nothing(
    embedded: AuditResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class HTML:
        def __init__(self, **options: Any) -> None:
            seen.update(options)

        def write_pdf(self) -> bytes:
            return b"%PDF-1.7"

    stub = types.ModuleType("weasyprint")
    stub.HTML = HTML  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "weasyprint", stub)
    assert to_pdf(embedded) == b"%PDF-1.7"
    assert seen["string"] == to_html(embedded)
    with pytest.raises(ValueError, match="loads nothing"):
        seen["url_fetcher"]("https://evil.example/a.css")
