"""``privfair audit``: files, streams, exit codes, bad input, each with its own message."""

from __future__ import annotations

import html
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.cli.main import run
from privfair.report import from_json, json_schema, to_csv_zip, to_model_card, to_sarif

FAST = ("--n-resamples", "200")


@pytest.fixture(autouse=True)
def _standard_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections that other tests registered do not appear here."""
    from privfair.core import registry
    from privfair.report._sections import STANDARD

    found = {section.id: section for section in STANDARD}
    monkeypatch.setitem(registry._REGISTERED, "report_sections", found)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 800
    sex = rng.choice(["f", "m"], n)
    y = (rng.random(n) < 0.3 + 0.2 * (sex == "m")).astype(int)
    p = np.clip(0.35 * y + 0.6 * rng.random(n), 0, 1)
    return pd.DataFrame(
        {
            "y": y, "yhat": (p > 0.5).astype(int), "p": p, "sex": sex,
            "race": rng.choice(["a", "b"], n), "age": rng.integers(18, 90, n),
            "job": rng.choice(["x", ""], n),
        }
    )  # fmt: skip


@pytest.fixture
def csv(table: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "Größe und Maß.csv"
    table.to_csv(path, index=False)
    return path


def base(csv: Path | str, *more: str) -> list[str]:
    return [
        "audit", "run", "--predictions", str(csv), "--label", "y", "--prediction", "yhat",
        "--sensitive", "sex", *FAST, *more,
    ]  # fmt: skip


# -- what it does -----------------------------------------------------------------------------
def test_a_csv_of_decisions(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: pd.DataFrame
) -> None:
    page, data = tmp_path / "a b.html", tmp_path / "out.json"
    code = run(
        base(csv, "--score", "p", "--sensitive", "race", "--sensitive", "age",
             "--bin", "age=25,45,65", "--intersections", "2", "--feature", "job",
             "--html", str(page), "--json-file", str(data))
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "Accuracy" in out and str(page) in out
    result = from_json(data.read_text("utf-8"))
    assert page.read_text("utf-8") == result.to_html()
    rates = table.groupby("sex")["yhat"].mean()
    value = result.findings["fairness.dpd.sex"].value
    assert value is not None
    assert value.estimate == pytest.approx(rates.max() - rates.min())
    assert set(result.counts["groups"]["age"]) == {"< 25", "25 to < 45", "45 to < 65", ">= 65"}
    assert "Größe und Maß.csv" in result.title
    assert str(tmp_path) not in data.read_text("utf-8")  # a folder may name a person


def test_json_is_alone_on_stdout(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import jsonschema

    assert run([*base(csv), "--json"]) == 0
    out, _ = capsys.readouterr()
    data = json.loads(out)
    assert next(iter(data)) == "_notice"
    jsonschema.Draft202012Validator(json_schema()).validate(data)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "arrow", "stdin", "stdin parquet"])
def test_every_format_gives_the_same_audit(
    kind: str, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / f"t.{kind.split()[-1]}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "tsv":
        table.to_csv(path, index=False, sep="\t")
    elif kind == "parquet":
        table.to_parquet(path)
    elif kind == "arrow":
        table.to_feather(path, compression="uncompressed")
    else:
        buffer = io.BytesIO()
        if kind == "stdin":
            table.to_csv(buffer, index=False)
        else:
            table.to_parquet(buffer)
        buffer.seek(0)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer, encoding="utf-8"))
    source = "-" if kind.startswith("stdin") else str(path)
    assert run([*base(source), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    rates = table.groupby("sex")["yhat"].mean()
    found = data["findings"]["fairness.dpd.sex"]["value"]["estimate"]
    assert found == pytest.approx(rates.max() - rates.min(), abs=1e-12)


def test_scores_with_a_threshold(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["audit", "run", "--predictions", str(csv), "--label", "y", "--score", "p",
            "--threshold", "0.5", "--sensitive", "sex", *FAST, "--json"]  # fmt: skip
    assert run(args) == 0
    first = json.loads(capsys.readouterr().out)["findings"]["fairness.eod.sex"]["value"]
    assert run([*base(csv), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)["findings"]["fairness.eod.sex"]["value"]
    assert first == second


def test_two_models_are_compared(
    table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.csv"
    table.assign(other=1 - table["yhat"]).to_csv(path, index=False)
    assert run([*base(path, "--prediction", "other"), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "change.accuracy@other" in findings and "fairness.dpd.sex@other" in findings


def test_the_word_missing_is_a_group_and_an_empty_cell_is_not(
    table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    sex = np.where(np.arange(len(table)) % 9 == 0, "N/A", table["sex"])
    table.assign(sex=sex).to_csv(path, index=False)
    assert run([*base(path), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["counts"]["groups"]["sex"]
    assert set(groups) == {"N/A", "f", "m"}
    table.assign(sex=np.where(sex == "N/A", "", sex)).to_csv(path, index=False)
    assert run(base(path)) == 3
    assert "--missing-group" in capsys.readouterr().err
    assert run([*base(path, "--missing-group"), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["counts"]["groups"]["sex"]
    assert set(groups) == {"missing", "f", "m"}
    assert run([*base(path, "--missing-group", "unknown"), "--json"]) == 0
    assert "unknown" in json.loads(capsys.readouterr().out)["counts"]["groups"]["sex"]


def test_the_audit_is_entered_into_the_ledger(csv: Path, tmp_path: Path) -> None:
    from privfair.accounting import Ledger

    book = tmp_path / "l.db"
    for expected in (1, 2):
        assert run(base(csv, "--ledger", str(book))) == 0
        assert len(Ledger.open(book, read_only=True)) == expected


def test_the_seed_is_used_and_stated(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for seed in ("3", "3", "4"):
        assert run(["--seed", seed, *base(csv), "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert data["config"]["random_state"] == int(seed)
        found.append(data["findings"]["fairness.dpd.sex"]["null"])
    assert found[0] == found[1] != found[2]


# -- under differential privacy ------------------------------------------------------------------
def test_a_private_report_charges_the_ledger_of_the_rows(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from privfair.accounting import Ledger

    book = tmp_path / "l.db"
    args = base(csv, "--dp-report", "1.5", "--groups", "sex=f,m", "--ledger", str(book))
    assert run(args) == 0
    out, _ = capsys.readouterr()
    assert "released under differential privacy" in " ".join(out.split())
    assert "Epsilon of this report" in out
    spent = Ledger.open(book, read_only=True).spent()
    assert 1.499 < spent.epsilon <= 1.5
    assert run(base(csv, "--dp-report", "1", "--ledger", str(book))) == 2
    assert "--groups sex=" in capsys.readouterr().err
    assert run(base(csv, "--dp-report", "0", "--groups", "sex=f,m")) == 2
    assert run(base(csv, "--dp-report", "1", "--groups", "sex")) == 2
    assert run(base(csv, "--groups", "sex=f,m")) == 2
    assert len(Ledger.open(book, read_only=True)) == 1


def test_a_private_report_of_compas_tells_no_true_count(
    real_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["audit", "compas", "--output", str(tmp_path), "--dp-report", "0.5", *FAST, "--race",
            "Caucasian", "--race", "African-American"]  # fmt: skip
    assert run(args) == 0
    text = (tmp_path / "compas.json").read_text("utf-8")
    data = json.loads(text)
    assert data["counts"]["n_rows"] == 7214  # how many are of two races is private
    assert set(data["counts"]["groups"]["race"]) == {"Caucasian", "African-American"}
    assert data["counts"]["groups"]["race"] != {"Caucasian": 2454, "African-American": 3696}
    assert "637" not in data["dataset"]["split"]
    capsys.readouterr()


# -- conditions and exit codes ------------------------------------------------------------------
def test_fail_on_ends_with_six(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(base(csv, "--fail-on", "fairness.dpd.sex.low>-1")) == 6
    assert "fail-on: fairness.dpd.sex.low>-1: low is" in capsys.readouterr().err
    assert run(base(csv, "--fail-on", "fairness.dpd.sex.low>0.9")) == 0
    assert run(base(csv, "--fail-on", "privacy.contradiction")) == 0
    both = ["--fail-on", "fairness.dpd.sex.low>0.9", "--fail-on", "performance.accuracy.high<2"]
    assert run(base(csv, *both)) == 6


def test_a_misspelt_condition_is_a_usage_error(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(base(csv, "--fail-on", "fairness dpd")) == 2
    assert "not of the form" in capsys.readouterr().err
    assert run(base(csv, "--fail-on", "fairness.dpd.sxe.low>0.1")) == 2
    assert "fairness.dpd.sex" in capsys.readouterr().err


def test_a_failed_section_ends_with_eight(
    csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from privfair.core import registry
    from privfair.report import Section, available_sections

    def broken(ctx: Any) -> Any:
        raise RuntimeError("secret 4711")

    available_sections()
    table = dict(registry._REGISTERED["report_sections"])
    table["broken"] = Section("broken", "A broken section", broken)
    monkeypatch.setitem(registry._REGISTERED, "report_sections", table)
    assert run(base(csv)) == 8
    out, err = capsys.readouterr()
    assert "A broken section" in err and "4711" not in out + err
    # 8 weighs more than 6
    assert run(base(csv, "--fail-on", "fairness.dpd.sex.low>-1")) == 8


# -- bad input ----------------------------------------------------------------------------------
BAD: dict[str, tuple[int, str, list[str]]] = {
    "absent prediction": (3, "did you mean 'yhat'", ["--prediction", "yhatt"]),
    "absent sensitive": (3, "column 'sexx'", ["--sensitive", "sexx"]),
    "absent feature": (3, "column 'jobb'", ["--feature", "jobb"]),
    "quantity": (3, "--bin age=25,45,65", ["--sensitive", "age"]),
    "score above one": (3, "probabilities in [0, 1]", ["--score", "age"]),
    "pos label": (3, "does not occur", ["--pos-label", "yes"]),
    "cut": (2, "column=a,b", ["--bin", "age"]),
    "cut words": (2, "column=a,b", ["--bin", "age=x,y"]),
    "cut of another": (3, "'agee'", ["--bin", "agee=1,2"]),
    "resamples": (2, "at least 100", ["--n-resamples", "5"]),
    "confidence": (2, "below 1", ["--confidence", "1"]),
    "intersections": (2, "intersections", ["--intersections", "7"]),
    "score count": (2, "one score for each", ["--score", "p", "--score", "y"]),
    "threshold": (2, "leave out --prediction", ["--threshold", "0.5"]),
    "twice": (2, "twice", ["--prediction", "yhat"]),
    "unknown option": (2, "no such option", ["--htm"]),
    "html folder": (2, "is a directory", ["--html", "."]),
    "html nowhere": (2, "does not exist", ["--html", "nowhere/at/all.html"]),
    "label as attribute": (2, "--label and --sensitive", ["--sensitive", "y"]),
    "decision as attribute": (2, "--prediction and --sensitive", ["--sensitive", "yhat"]),
    "score as attribute": (2, "--score and --sensitive", ["--score", "p", "--sensitive", "p"]),
    "ledger nowhere": (2, "does not exist", ["--ledger", "nowhere/at/all.db"]),
    "ledger folder": (2, "is a directory", ["--ledger", "."]),
    "json folder": (2, "is a directory", ["--json-file", "."]),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input(
    name: str, csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, words, more = BAD[name]
    book = tmp_path / "ledger.db"
    assert run(base(csv, "--ledger", str(book), *more)) == code
    out, err = capsys.readouterr()
    assert words in err.lower().replace("\n", " "), err
    assert "Traceback" not in err and not out
    if book.exists():
        from privfair.accounting import Ledger

        assert len(Ledger.open(book, read_only=True)) == 0


FILES: dict[str, tuple[int, str, bytes]] = {
    "empty": (3, "empty", b""),
    "header only": (3, "no rows", b"y,yhat,sex\n"),
    "nul": (4, "nul bytes", b"y,yhat,sex\n1,\x00,f\n"),
    "latin": (3, "not utf-8", "y,yhat,sex\n1,1,Größe\n".encode("latin-1")),
    "too long": (
        3,
        "line 3 of the table has 5 cells and the header has 3: the table is not well-formed",
        b"y,yhat,sex\n1,1,f\n1,1,f,9,9\n",
    ),
    "all too long": (3, "line 2 of the table has 4", b"y,yhat,sex\n1,1,f,9\n0,0,m,9\n"),
    "too short": (3, "line 4 of the table has 2", b"y,yhat,sex\n1,1,f\n\n0,0\n0,0,m\n"),
    "after two lines in one cell": (
        3,
        "line 4 of the table has 2",
        b'y,yhat,sex\n1,1,"f\nemale"\n0,0\n',
    ),
    "open quote": (3, "well-formed", b'y,yhat,sex\n1,1,"f\n0,0,m\n1,0,m\n'),
    "semicolons": (3, "separated by ';'", b"y;yhat;sex\n1;1;f\n0;0,5;m\n"),
    "tabs": (3, "--format tsv", b"y\tyhat\tsex\n1\t1\tf\n"),
    "wide": (4, "columns", b",".join(b"c%d" % k for k in range(10_001)) + b"\n"),
    "twice the same": (3, "same name", b"y,yhat,sex,y\n1,1,f,0\n"),
    "parquet": (3, "not a readable parquet", b"PAR1 and nonsense"),
    "gzip": (4, "nul bytes", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
    "one class": (3, "one class", b"y,yhat,sex\na,a,f\na,a,m\n"),
    "three classes": (3, "--pos-label", b"y,yhat,sex\n1,1,f\n2,2,m\n3,3,m\n"),
    "one group": (3, "one group only", b"y,yhat,sex\n1,1,f\n0,0,f\n"),
    "missing label": (3, "missing", b"y,yhat,sex\n1,1,f\n,0,m\n0,0,m\n"),
    "missing decision": (3, "missing", b"y,yhat,sex\n1,1,f\n1,,m\n0,0,m\n"),
    "scores": (3, "probabilities", b"y,yhat,sex\n1,0.7,f\n0,0.2,m\n"),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_bad_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, words, data = FILES[name]
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    assert run(base(path)) == code
    out, err = capsys.readouterr()
    assert words in err.lower().replace("\n", " "), err
    assert "Traceback" not in err and not out


def test_an_absent_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(base(tmp_path / "none.csv")) == 3
    assert "does not exist" in capsys.readouterr().err
    assert run(base(tmp_path)) == 3
    assert "is a directory" in capsys.readouterr().err


def test_an_absent_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = str(tmp_path / "none.json")
    for command in (["report", none], ["diff", none, none], ["report", str(tmp_path)]):
        assert run(["audit", *command]) == 3
        err = capsys.readouterr().err
        assert "does not exist" in err or "is a directory" in err


def test_blank_lines_and_spaces_are_not_ragged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    rows = b'1,1,"f, or\r\nfemale"\r\n\r\n0, 1, m\r\n   \r\n1,0,m\r\n0,0,"f, or\r\nfemale"\r\n'
    path.write_bytes(b"\xef\xbb\xbfy,yhat,sex\r\n" + rows * 10 + b"\r\n")
    assert run(base(path, "--json")) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["counts"]["n_rows"] == 40


def test_pooled_classes_are_named(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(csv, keep_default_na=False)
    frame["y"] = np.where(frame["y"] == 1, "yes", np.where(frame["age"] > 60, "unknown", "no"))
    frame["yhat"] = np.where(frame["yhat"] == 1, "yes", "no")
    path, page, document = tmp_path / "t.csv", tmp_path / "t.html", tmp_path / "t.json"
    frame.to_csv(path, index=False)
    more = ["--pos-label", "yes", "--html", str(page), "--json-file", str(document)]
    assert run(base(path, *more)) == 0
    text = " ".join(capsys.readouterr().out.split())
    words = "'yes' is positive, and 'no', 'unknown' are pooled as negative"
    assert words in text and "'yhat'" not in text
    (caveat,) = json.loads(document.read_text("utf-8"))["dataset"]["caveats"]
    assert words in caveat and "Column 'y' has 3 classes" in caveat
    assert words in html.unescape(page.read_text("utf-8"))

    # A private report does not tell which classes occur.
    private = ["--dp-report", "2", "--groups", "sex=f,m"]
    assert run(base(path, *more, *private)) == 0
    capsys.readouterr()
    assert "unknown" not in " ".join(json.loads(document.read_text("utf-8"))["dataset"]["caveats"])


def test_parquet_without_its_library(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "t.parquet"
    table.to_parquet(path)
    for name in ("pyarrow", "pyarrow.parquet", "pyarrow.ipc"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run(base(path)) == 7
    assert "pip install pyarrow" in capsys.readouterr().err


# -- report and diff ----------------------------------------------------------------------------
@pytest.fixture
def made(csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    data = tmp_path / "a.json"
    assert run(base(csv, "--json-file", str(data), "--html", str(tmp_path / "a.html"))) == 0
    capsys.readouterr()
    return data


def test_the_json_gives_the_page_again(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.html"
    assert run(["audit", "report", str(made), "--html", str(again)]) == 0
    assert again.read_text("utf-8") == (tmp_path / "a.html").read_text("utf-8")
    assert "Accuracy" in capsys.readouterr().out
    assert run(["audit", "report", str(made), "--fail-on", "fairness.dpd.sex.n>1"]) == 6
    capsys.readouterr()
    assert run(["audit", "report", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(made.read_text("utf-8"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: d | {"schema_version": "9.0.0"}, 4),
        (lambda d: {}, 4),
        (lambda d: d | {"surprise": 1}, 4),
    ],
)
def test_other_json_is_refused(
    made: Path, tmp_path: Path, change: Any, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(change(json.loads(made.read_text("utf-8")))), encoding="utf-8")
    assert run(["audit", "report", str(bad)]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_other_forms_of_an_audit(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = from_json(made.read_text("utf-8"))
    want = {
        "html": result.to_html(), "json": result.to_json(), "model-card": to_model_card(result),
        "sarif": to_sarif(result, artifact=made.name),
    }  # fmt: skip
    for kind, text in want.items():
        path = tmp_path / kind
        args = ["audit", "report", str(made), "--format", kind]
        assert run([*args, "--output", str(path)]) == 0
        assert path.read_text("utf-8") == text
        assert f"{kind}: {path}" in capsys.readouterr().out
        assert run(args) == 0
        assert capsys.readouterr().out == text
    path = tmp_path / "t.zip"
    assert run(["audit", "report", str(made), "--format", "csv-zip", "--output", str(path)]) == 0
    assert path.read_bytes() == to_csv_zip(result)
    capsys.readouterr()
    assert run(["audit", "report", str(made), "--format", "text"]) == 0
    assert capsys.readouterr().out.startswith(result.notice or result.title)
    # a gate holds in every form
    fails = ["--fail-on", "fairness.dpd.sex.low > -2"]
    assert run(["audit", "report", str(made), "--format", "sarif", *fails]) == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--format", "csv-zip"], "give --output"),
        (["--format", "sarif", "--json"], "give --output"),
        (["--output", "x"], "needs --format"),
        (["--format", "sarif", "--output", "."], "is a directory"),
        (["--pdf", "nowhere/x.pdf"], "does not exist"),
    ],
)
def test_forms_that_cannot_be_written(
    more: list[str], words: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "report", str(made), *more]) == 2
    out, err = capsys.readouterr()
    assert words in " ".join(err.split()) and not out


def test_a_pdf_with_and_without_its_library(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, other = tmp_path / "a.pdf", tmp_path / "a.sarif"
    args = ["audit", "report", str(made), "--pdf", str(path), "--format", "sarif",
            "--output", str(other)]  # fmt: skip
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    assert run(args) == 7
    out, err = capsys.readouterr()
    assert "pip install 'privfair[pdf]'" in err and "browser" in err and not out
    assert not path.exists() and not other.exists()

    class HTML:
        def __init__(self, **options: Any) -> None:
            self.page = options["string"]

        def write_pdf(self) -> bytes:
            return b"%PDF " + self.page.encode()

    stub = types.ModuleType("weasyprint")
    stub.HTML = HTML  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "weasyprint", stub)
    assert run(args) == 0
    result = from_json(made.read_text("utf-8"))
    assert path.read_bytes() == b"%PDF " + result.to_html().encode()
    assert other.exists()


def test_the_difference_of_two_audits(
    made: Path, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "diff", str(made), str(made)]) == 0
    assert "No finding differs" in capsys.readouterr().out
    other = tmp_path / "b.json"
    args = ["audit", "run", "--predictions", str(csv), "--label", "y", "--prediction", "y",
            "--sensitive", "sex", *FAST, "--json-file", str(other)]  # fmt: skip
    assert run(args) == 0
    capsys.readouterr()
    assert run(["audit", "diff", str(made), str(other), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    accuracy = next(c for c in data["changed"] if c["id"] == "performance.accuracy")
    assert accuracy["apart"] is True and accuracy["delta"] > 0


# -- the two data sets --------------------------------------------------------------------------
@pytest.fixture
def no_real_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRIVFAIR_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("PRIVFAIR_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("PRIVFAIR_OFFLINE", "1")


def test_adult_embedded_says_so_in_every_first_line(
    no_real_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, book = tmp_path / "reports", tmp_path / "l.db"
    args = ["audit", "adult", "--output", str(folder), "--ledger", str(book), "--runs", "2", *FAST]
    assert run(args) == 0
    out, err = capsys.readouterr()
    assert out.startswith("EMBEDDED DATA")
    for words in ("LogisticRegression", "DPClassifier, epsilon 1", "Rates by sex", "Certificate",
                  "certified", "adult.html", "adult.json", "ledger"):  # fmt: skip
        assert words in out
    text = (folder / "adult.json").read_text("utf-8")
    assert text.split("\n")[1].strip().startswith('"_notice": "EMBEDDED DATA')
    page = (folder / "adult.html").read_text("utf-8")
    body = page[page.index("<body>") :]
    assert body.index("EMBEDDED DATA") < body.index("Skip to the report")
    result = from_json(text)
    twin = result.models[1]
    assert twin.privacy is not None and twin.privacy["certified"] is True
    assert 0.9 < twin.privacy["epsilon"] <= 1.0
    assert result.dataset.certificate is not None
    from privfair.accounting import Ledger

    # The baseline was trained on the same rows without privacy, and its metrics are published.
    baseline, private, *more = Ledger.open(book, read_only=True).entries()
    assert baseline.event.kind == "NonPrivate" and private.epsilon <= 1.0
    # The attacks read no training row; each fit of the sweep is charged, twins as NonPrivate.
    epsilons = [0.0 if e.event.kind == "NonPrivate" else round(e.epsilon, 2) for e in more]
    assert sorted(epsilons) == [0.0, 0.0, 0.3, 0.3, 1.0, 1.0, 3.0, 3.0]
    attacks = result.section("attacks")
    assert [row[0] for row in attacks.table("audited-brief").rows] == [
        "the training engine: canaries, one run",
        "DPClassifier on made-up rows: canaries, one run",
    ]
    assert any("another fit of the same estimator" in text for text in attacks.caveats)
    assert [row[-1] for row in attacks.table("audited-curves").rows] == ["no violation found"]
    cost = result.section("privacy_fairness").table("privacy-cost")
    assert [row[0] for row in cost.rows] == ["0.3", "1", "3", "none (twin)"]
    beside = Ledger.open(tmp_path / "l-audited.db", read_only=True)
    assert beside.spent().epsilon == float("inf") and len(beside) == 1


def test_one_run_is_refused_and_none_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "adult", "--output", str(tmp_path), "--runs", "1", *FAST]) == 2
    assert "luck" in capsys.readouterr().err


def test_a_capped_ledger_pays_for_no_sweep(
    no_real_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from privfair.accounting import Ledger
    from privfair.core import Budget

    book = tmp_path / "l.db"
    Ledger(book, cap=Budget(2.0, 1e-4), dataset_id="adult (embedded) training rows")
    args = ["audit", "adult", "--output", str(tmp_path), "--ledger", str(book), "--no-attacks"]
    code = run([*args, *FAST])
    err = capsys.readouterr().err
    assert code != 0  # the baseline without privacy is refused before anything is trained
    assert "ledger has a cap" in err
    assert len(Ledger.open(book, read_only=True)) == 0


def test_adult_training_rows_are_refused_before_anything_is_spent(
    no_real_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "l.db"
    args = ["audit", "adult", "--split", "train", "--output", str(tmp_path), "--ledger", str(book)]
    assert run([*args, *FAST]) == 2
    assert "--allow-raw-training-rows" in capsys.readouterr().err
    assert not book.exists()


def test_compas_embedded(
    no_real_data: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "compas", "--output", str(tmp_path), "--version", "filtered", *FAST]) == 0
    assert capsys.readouterr().out.startswith("EMBEDDED DATA")
    assert (tmp_path / "compas.html").exists()


def test_compas_real(
    real_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["audit", "compas", "--output", str(tmp_path), *FAST, "--race", "Caucasian",
            "--race", "African-American", "--json"]  # fmt: skip
    assert run(args) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["findings"]["fairness.eod.race"]["value"]["estimate"] == pytest.approx(
        0.213925, abs=1e-6
    )
    assert "Hispanic (637 rows)" in data["dataset"]["split"]
    assert run([*args[:-1], "--race", "Martian"]) == 2
    assert "Martian" in capsys.readouterr().err


def test_an_output_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "reports"
    file.write_text("x")
    assert run(["audit", "compas", "--output", str(file), *FAST]) == 2
    assert "is a file" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys\nfrom privfair.cli.main import run\nrun(['audit', 'run', '--help'])\n"
        "print(sorted({'torch', 'sklearn', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:] + done.stderr


def test_a_date_that_is_none_is_a_usage_error(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "x")
    book = tmp_path / "ledger.db"
    assert run(base(csv, "--ledger", str(book))) == 2
    assert "SOURCE_DATE_EPOCH" in capsys.readouterr().err
    assert not book.exists()
