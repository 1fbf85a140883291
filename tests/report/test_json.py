"""JSON: strict, versioned, by the schema, and read back only if it is ours."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import Any

import jsonschema
import pytest

from privfair.core.exceptions import ReportError, SchemaVersionError
from privfair.report import (
    AuditResult,
    Finding,
    SectionResult,
    Table,
    Value,
    from_json,
    json_schema,
    to_json,
)
from privfair.report import Column as C


@pytest.fixture(scope="module")
def text(result: AuditResult) -> str:
    return to_json(result)


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_an_audit_follows_the_schema(text: str) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(text))


def test_fixed_levels_allow_nothing_else() -> None:
    schema = json_schema()
    for name, part in {"top": schema, **schema["$defs"]}.items():
        if part.get("properties"):
            assert part["additionalProperties"] is False, name
            # Since 1.1; a file of 1.0 is read as well.
            later = {"clients"} if name == "counts" else set()
            assert sorted({*part["required"], *later}) == sorted(part["properties"]), name


@pytest.mark.parametrize("where", ["top", "section", "finding", "value", "model"])
def test_an_unknown_key_is_refused(text: str, where: str) -> None:
    data = json.loads(text)
    finding = next(iter(data["findings"].values()))
    place = {
        "top": data,
        "section": data["sections"][0],
        "finding": finding,
        "value": finding["value"],
        "model": data["models"][0],
    }[where]
    place["surprise"] = 1
    with pytest.raises(ReportError, match="does not follow its schema"):
        from_json(json.dumps(data))


def test_the_round_trip_is_exact(text: str, result: AuditResult) -> None:
    again = from_json(text)
    assert again == result
    assert to_json(again) == text


def test_keys_are_sorted_and_the_notice_is_first(text: str) -> None:
    pairs: list[list[str]] = []
    json.loads(text, object_pairs_hook=lambda items: pairs.append([k for k, _ in items]))
    for keys in pairs:
        assert keys == sorted(keys)
    assert text.split("\n")[1].lstrip().startswith('"_notice"')
    assert text.endswith("}\n")


def test_numbers_that_json_lacks_never_occur(text: str) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(name)

    json.loads(text, parse_constant=refuse)
    assert Value(math.nan).estimate is None
    assert Value(math.inf).to_dict()["estimate"] == "inf"
    assert Value(1.0, -math.inf, 2.0).to_dict()["low"] == "-inf"


def test_a_missing_number_has_a_status_and_a_reason(result: AuditResult) -> None:
    found = 0

    def look(value: Any) -> None:
        nonlocal found
        if isinstance(value, dict):
            if {"estimate", "status", "reason"} <= set(value) and value["estimate"] is None:
                found += 1
                assert value["status"] in {"not_estimable", "not_applicable", "suppressed"}
                assert value["reason"]
            for item in value.values():
                look(item)
        elif isinstance(value, list):
            for item in value:
                look(item)

    section = SectionResult(
        "s", "S", findings=(Finding("a", "note", "t", value=Value.missing("too few")),)
    )
    look(json.loads(to_json(result.with_sections(*result.sections, section))))
    assert found >= 2  # in the section, and in the index of findings


def test_findings_are_there_by_identifier(text: str, result: AuditResult) -> None:
    data = json.loads(text)
    assert set(data["findings"]) == set(result.findings)
    dpd = data["findings"]["fairness.dpd.sex"]
    assert {"estimate", "low", "high", "confidence", "method", "n", "status"} <= set(dpd["value"])
    assert dpd["value"]["confidence"] == 0.95
    pattern = re.compile(json_schema()["$defs"]["finding"]["properties"]["id"]["pattern"])
    assert all(pattern.fullmatch(name) for name in data["findings"])


def test_figures_carry_their_data_as_csv(text: str, result: AuditResult) -> None:
    for section, raw in zip(result.sections, json.loads(text)["sections"], strict=True):
        for figure, data in zip(section.figures, raw["figures"], strict=True):
            lines = list(csv.reader(io.StringIO(data["csv"])))
            assert len(lines) == len(figure.table.rows) + 1
            assert len({len(line) for line in lines}) == 1


def test_environment_and_ledger_entry_are_there(text: str) -> None:
    data = json.loads(text)
    assert {"numpy", "scipy", "scikit-learn", "torch"} <= set(data["environment"]["packages"])
    assert data["release"]["kind"] == "raw" and data["release"]["entry"] >= 1
    assert data["models"][1]["privacy"]["epsilon"] == 1.0
    assert "hostname" not in text.lower()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": "2.0.0"}, "Update privfair"),
        ({"schema_version": "1.2.0"}, "Update privfair"),
        ({"schema_version": "one"}, "not a privfair audit"),
        ({"schema_version": None}, "not a privfair audit"),
    ],
)
def test_newer_and_foreign_files_are_refused(
    text: str, change: dict[str, Any], words: str
) -> None:
    data = json.loads(text) | change
    with pytest.raises(SchemaVersionError, match=words) as caught:
        from_json(json.dumps(data))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("bad", ["", "[]", "{}", "nope", "null", '{"schema_version": "1.0.0"'])
def test_what_is_no_audit_is_refused(bad: str) -> None:
    with pytest.raises(SchemaVersionError):
        from_json(bad)


def test_deep_nesting_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ReportError, match="nested deeper"):
        from_json("[" * 100_000 + "]" * 100_000)
    with pytest.raises(SchemaVersionError, match="NaN"):
        from_json('{"schema_version": NaN}')
    # brackets inside text are no nesting
    with pytest.raises(SchemaVersionError):
        from_json(json.dumps({"x": "[" * 1000}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"sections"', '"section"', 1),
        lambda text: text.replace('"n_rows": ', '"n_rows": ' + "9" * 5000, 1),
        lambda text: text.replace('"title": ', '"title": ' + "[" * 60 + "]" * 60 + ', "t": ', 1),
        lambda text: text + " " * (64 * 2**20),
        lambda text: "[" * 100_000 + "]" * 100_000,
        lambda text: json.dumps(
            {k: v for k, v in json.loads(text).items() if k not in {"models", "findings"}}
        ),
    ],
)
def test_a_damaged_file_ends_with_the_status_of_unreadable_input(text: str, damage: Any) -> None:
    with pytest.raises(SchemaVersionError) as caught:
        from_json(damage(text))
    assert caught.value.exit_code == 4


def test_every_table_row_of_a_wrong_width_is_unreadable_input(text: str) -> None:
    data = json.loads(text)
    table = next(t for s in data["sections"] for t in s["tables"] if t["rows"])
    table["rows"][0].append("more")
    with pytest.raises(SchemaVersionError):
        from_json(json.dumps(data))


def test_a_tampered_number_is_refused(text: str) -> None:
    data = json.loads(text)
    data["counts"]["n_rows"] = -5
    with pytest.raises(ReportError, match="counts/n_rows"):
        from_json(json.dumps(data))


def test_csv_cells_are_no_formulas() -> None:
    table = Table(
        "t", "t", (C("=a", "A", "label"), C("v", "V", "value"), C("n", "N", "number")),
        (("=1+1", Value(-0.5, -1.0, 0.0), -2.0), ("@x", None, None), ("+y\r\n", Value(1), 3)),
    )  # fmt: skip
    lines = list(csv.reader(io.StringIO(table.csv())))
    assert lines[0] == ["'=a", "v", "v_low", "v_high", "v_status", "n"]
    assert lines[1] == ["'=1+1", "-0.5", "-1.0", "0.0", "ok", "-2.0"]
    assert lines[2][0] == "'@x" and lines[3][0].startswith("'+y")
    for line in lines:
        for cell in line:
            assert not cell or cell[0] not in "=+@\t\r" or cell[1:].replace(".", "").isdigit()


def test_a_frame_of_findings(result: AuditResult) -> None:
    frame = result.to_frame()
    assert frame.loc["fairness.dpd.sex", "estimate"] == pytest.approx(
        result.findings["fairness.dpd.sex"].value.estimate  # type: ignore[union-attr]
    )
    assert len(frame) == len(result.findings)


def test_an_audit_of_the_schema_before_is_read(text: str, result: AuditResult) -> None:
    """1.0 had no clients among the counts; nothing else differs."""
    data = json.loads(text)
    data["schema_version"] = "1.0.0"
    assert data["counts"].pop("clients")
    again = from_json(json.dumps(data))
    assert again.sections == result.sections
