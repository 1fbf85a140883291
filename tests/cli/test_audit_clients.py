"""``privfair audit``: clients, rules of status and effort, what stands in for clients on Adult."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.cli.main import run

FAST = ("--n-resamples", "200")


@pytest.fixture(autouse=True)
def _standard_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    from privfair.core import registry
    from privfair.report._sections import STANDARD

    found = {section.id: section for section in STANDARD}
    monkeypatch.setitem(registry._REGISTERED, "report_sections", found)
    monkeypatch.setattr("privfair.report._frontier.POINTS", 3)
    monkeypatch.setattr("privfair.report._sections.frontier.MAX_RESAMPLES", 20)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    n = 900
    y = rng.integers(0, 2, n)
    frame = pd.DataFrame(
        {
            "y": y, "yhat": np.where(rng.random(n) < 0.8, y, 1 - y),
            "sex": rng.choice(["f", "m"], n), "site": rng.choice(["n", "s"], n),
            "edu": rng.integers(1, 16, n), "hours": rng.integers(10, 60, n),
        }
    )  # fmt: skip
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)
    return path


def base(csv: Path, *more: str) -> list[str]:
    return ["audit", "run", "--predictions", str(csv), "--label", "y", "--prediction", "yhat",
            "--sensitive", "sex", *FAST, *more]  # fmt: skip


def test_clients_and_rules_reach_the_report(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = ("--client", "site", "--ses", "edu < 8", "--ses", "adult_education", "--effort",
             "hours >= 40")  # fmt: skip
    table = pd.read_csv(csv)
    table["education-num"] = table["edu"]
    table.to_csv(csv, index=False)
    assert run([*base(csv, *rules), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    found = data["findings"]
    assert {"fairness.pid.masked.sex", "fairness.sep.edu_8.sex", "fairness.csep.education.sex",
            "fairness.frontier.parity.sex"} <= set(found)  # fmt: skip
    assert data["counts"]["clients"] == pd.read_csv(csv)["site"].value_counts().to_dict()
    assert found["fairness.pid.masked.sex"]["value"]["estimate"] >= 0


def test_a_condition_on_a_new_finding(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    condition = ("--client", "site", "--fail-on", "fairness.pid.global.sex.estimate >= 0")
    assert run(base(csv, *condition)) == 6
    assert "fairness.pid.global.sex" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--client", "sit"), 3, "Did you mean 'site'"),
        (("--client", "yhat"), 2, "the decision itself"),
        (("--client", "sex"), 2, "same column"),
        (("--effort", "hours >= 40"), 2, "--ses"),
        (("--ses", "y < 1"), 2, "explains it"),
        (("--ses", "edu ~ 8"), 2, "not a rule"),
        (("--ses", "edu < 8", "--effort", "hours <= 40"), 2, ">="),
        (("--ses", "nope < 8"), 3, "nope"),
    ],
)
def test_each_mistake_has_its_own_message(
    csv: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], code: int, words: str
) -> None:
    assert run(base(csv, *more)) == code
    out, err = capsys.readouterr()
    assert words in " ".join(err.split()) and not out


def test_a_private_report_says_that_clients_were_not_read(
    csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--client", "site", "--dp-report", "1", "--groups", "sex=f,m", "--json")
    assert run(base(csv, *more)) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert "clients" not in data["counts"]
    section = next(s for s in data["sections"] if s["id"] == "pid")
    assert section["status"] == "not_applicable" and "--epsilon" in section["reason"]


def test_adult_says_that_a_column_stands_in_for_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embedded edition: the same on every machine."""
    monkeypatch.setenv("PRIVFAIR_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("PRIVFAIR_OFFLINE", "1")
    out = tmp_path / "reports"
    assert run(["audit", "adult", "--no-dp", "--output", str(out), *FAST]) == 0
    capsys.readouterr()
    data = json.loads((out / "adult.json").read_text("utf-8"))
    pid = next(s for s in data["sections"] if s["id"] == "pid")
    assert "workclass" in pid["caveats"][0] and "illustration" in pid["caveats"][0]
    sep = next(s for s in data["sections"] if s["id"] == "sep")
    assert {t["id"] for t in sep["tables"]} >= {"sep-education-sex-brief",
                                                "sep-capital_gain-sex-brief"}  # fmt: skip
    assert any("nearly everybody" in text for text in sep["caveats"])


def test_adult_knows_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--client", "workclas")
    assert run(["audit", "adult", "--no-dp", "--output", str(tmp_path), *FAST, *more]) == 2
    assert "Did you mean 'workclass'" in capsys.readouterr().err
