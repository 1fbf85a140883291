"""Terminal text: the right numbers, no escape sequences from data, plain ASCII where needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from privfair.report import (
    AuditConfig,
    AuditResult,
    DatasetInfo,
    Predictions,
    audit,
    diff,
    parse_condition,
    print_diff,
    to_text,
)
from privfair.report._catalogue import catalogue, languages
from privfair.report._clean import clean_text

from .conftest import HOSTILE, guarantee


def test_the_short_form_has_what_matters(result: AuditResult) -> None:
    text = to_text(result, width=100)
    for words in (
        "Audit of made-up rows", "not differentially private", "baseline", "private twin",
        "Accuracy", "Selection rate", "Demographic parity", "Certificate of private twin",
        "hardened", "PLD", "[",
    ):  # fmt: skip
        assert words in text
    assert len(text) < len(to_text(result, full=True, width=100))
    assert all(len(line) <= 100 for line in text.splitlines())


def test_numbers_are_those_of_the_findings(result: AuditResult) -> None:
    value = result.findings["performance.accuracy"].value
    assert value is not None and value.estimate is not None
    assert f"{value.estimate:.3f}" in to_text(result)


def test_no_colour_unless_asked(result: AuditResult) -> None:
    assert "\x1b" not in to_text(result)
    assert "\x1b[" in to_text(result, color=True)


def test_ascii_only_is_ascii(result: AuditResult) -> None:
    text = to_text(result, ascii_only=True, full=True)
    assert text.isascii()
    assert "?" not in text  # every character of ours has a plain spelling
    assert not to_text(result, ascii_only=False).isascii()


def test_columns_set_the_width(result: AuditResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert max(map(len, to_text(result).splitlines())) <= 72
    monkeypatch.setenv("COLUMNS", "nonsense")
    assert max(map(len, to_text(result).splitlines())) <= 100


def test_hostile_names_steer_no_terminal(rows: dict[str, Any]) -> None:
    names = [HOSTILE[3], HOSTILE[4], "[bold red]x[/]", "\x9b31m", "a\rb"]
    import numpy as np

    groups = np.array(names, dtype=object)[np.arange(len(rows["y"])) % len(names)]
    made = audit(
        {"\x1b]0;title\x07": Predictions(rows["decision"], privacy=guarantee())}, None, rows["y"],
        sensitive_features={"\x1b[2Jsex": groups},
        config=AuditConfig(n_resamples=200, title="\x1b[31mt", dataset=DatasetInfo("d\x07")),
    )  # fmt: skip
    text = to_text(made, full=True)
    assert not {c for c in text if ord(c) < 32 and c != "\n"}
    assert not {"\x9b", "\u202e", "\x7f"} & set(text)
    assert "[bold red]x[/]" in text  # shown as it is, not read as markup


# -- conditions -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("fairness.dpd.sex.low > -1", True),
        ("fairness.dpd.sex.estimate>=2", False),
        ("fairness.dpd.sex.high<=1", True),
        ("fairness.dpd.sex@private_twin.low < 0.9", True),
        ("fairness.dpd.sex.p_value < 1e-9", False),
        ("performance.accuracy.n < 10", False),
        ("fairness.dpd.sex", True),
        ("privacy.contradiction", False),
        ("integrity.data", False),
        ("critical", False),
    ],
)
def test_conditions(result: AuditResult, condition: str, met: bool) -> None:
    assert parse_condition(condition).check(result).met is met


def test_attention_is_a_condition(result: AuditResult) -> None:
    severe = any(f.severity == "attention" for f in result.findings.values())
    assert parse_condition("attention").check(result).met is severe


def test_a_number_that_is_not_estimable_fails_the_gate(result: AuditResult) -> None:
    from privfair.report import Value

    section = result.section("groups")
    gone = [
        replace(f, value=Value.missing("too few")) if f.id == "fairness.dpd.sex" else f
        for f in section.findings
    ]
    changed = result.with_sections(
        *(replace(s, findings=tuple(gone)) if s.id == "groups" else s for s in result.sections)
    )
    outcome = parse_condition("fairness.dpd.sex.low > 0.99").check(changed)
    assert outcome.met and "not estimable" in outcome.text


def test_a_misspelt_finding_is_an_error_with_a_suggestion(result: AuditResult) -> None:
    from privfair.core.exceptions import InvalidParameterError

    with pytest.raises(InvalidParameterError, match=r"fairness\.dpd\.sex"):
        parse_condition("fairness.dpd.sexx.low > 0.1").check(result)


@pytest.mark.parametrize(
    "bad",
    ["", "fairness.dpd.sex.low", "fairness.dpd.sex.lo w>1", "a.low==1", "a.low>x", "a b",
     "a.low>1; rm -rf", "A.low>1", "a.low>nan", "a.low>inf"],
)  # fmt: skip
def test_bad_conditions_are_refused(bad: str) -> None:
    from privfair.core.exceptions import InvalidParameterError

    with pytest.raises(InvalidParameterError, match="not of the form"):
        parse_condition(bad)


# -- differences ------------------------------------------------------------------------------
def test_an_audit_does_not_differ_from_itself(result: AuditResult) -> None:
    found = diff(result, result)
    assert not found.changed and not found.added and not found.removed and not found.notes
    assert found.unchanged == len(result.findings)


def test_differences_are_found_and_ordered(rows: dict[str, Any]) -> None:
    def made(decisions: Any, **more: Any) -> AuditResult:
        return audit(
            Predictions(decisions), None, rows["y"], sensitive_features=rows["sensitive"],
            config=AuditConfig(n_resamples=200, **more),
        )  # fmt: skip

    old, new = made(rows["y"]), made(rows["decision"], min_count=5, intersections=0)
    found = diff(old, new)
    by_id = {c.id: c for c in found.changed}
    accuracy = by_id["performance.accuracy"]
    assert accuracy.apart and accuracy.delta is not None and accuracy.delta < 0
    assert [c.apart for c in found.changed] == sorted(
        (c.apart for c in found.changed), reverse=True
    )
    assert any("min_count" in note for note in found.notes)
    assert "fairness.dpd.sex_x_race" in found.removed
    assert found.to_dict()["changed"][0]["id"] == found.changed[0].id
    import io

    from rich.console import Console

    out = io.StringIO()
    print_diff(found, found.changed[:2], Console(file=out, width=100), ascii_only=True)
    assert "performance.accuracy" in out.getvalue() and "smaller changes" in out.getvalue()


# -- the catalogue ----------------------------------------------------------------------------
def test_every_text_of_the_templates_is_in_the_catalogue() -> None:
    import re
    from importlib.resources import files

    folder = files("privfair.report").joinpath("templates")
    t = catalogue("en")
    for name in ("page.html.j2", "parts.html.j2"):
        for key in re.findall(r't\("([a-z_.]+)"[,)]', folder.joinpath(name).read_text("utf-8")):
            assert key in t.keys(), key  # noqa: SIM118 - not a mapping
    assert "en" in languages()


def test_an_unknown_language_is_refused() -> None:
    from privfair.core.exceptions import InvalidParameterError

    with pytest.raises(InvalidParameterError, match="language must be one of"):
        catalogue("xx")


def test_the_catalogue_is_clean() -> None:
    t = catalogue("en")
    for key in t.keys():  # noqa: SIM118 - not a mapping
        text = t.get(key)
        assert text == clean_text(text)
