"""``privfair ldp``: from a table on the owner's side to estimates on the server's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privfair.accounting import Ledger
from privfair.core.privacy import Budget

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = """
[columns.education]
kind = "categorical"
values = ["HS", "BA", "MA", "PhD"]

[columns.hours]
kind = "numeric"
low = 0
high = 100
bins = [20, 40, 60]

[columns.member]
kind = "categorical"
values = [true, false]

[columns.income]
kind = "numeric"
low = 0
high = 1000
"""
SECRET = "Zyxomma obtusum"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema.toml").write_text(SCHEMA)
    rng = np.random.default_rng(0)
    rows = ["id,education,hours,member,name"]
    for i in range(3000):
        degree = rng.choice(["HS", "BA", "MA", "PhD"], p=[0.5, 0.3, 0.2, 0.0])
        rows.append(f"{i},{degree},{rng.integers(0, 100)},{rng.random() < 0.7},n{i}")
    (tmp_path / "in.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def privatize(run: Run, folder: Path, name: str, *options: str, table: str = "in.csv") -> Any:
    return run(
        "ldp", "privatize", str(folder / table), "--schema", str(folder / "schema.toml"),
        "--output", str(folder / name), *options,
    )  # fmt: skip


def aggregate(run: Run, folder: Path, *names: str, to: str = "state", extra: Any = ()) -> Any:
    files = [str(folder / name) for name in names]
    return run("ldp", "aggregate", *files, "--output", str(folder / to), *extra)


# -- the whole way ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "protocol", ["auto", "GRR", "SUE", "OUE", "BLH", "OLH", "SS", "HR", "PGR"]
)
def test_from_a_table_to_estimates(run: Run, folder: Path, protocol: str) -> None:
    made = privatize(
        run, folder, "a.rpt", "--column", "education", "--epsilon", "4", "--protocol", protocol
    )
    assert made.code == 0, made.err
    assert aggregate(run, folder, "a.rpt").code == 0
    found = run("ldp", "estimate", str(folder / "state"), "--json")
    assert found.code == 0
    assert found.err == ""
    (column,) = json.loads(found.out)["columns"]
    assert column["values"] == ["HS", "BA", "MA", "PhD"]
    truth = [0.5, 0.3, 0.2, 0.0]
    # Six deviations at epsilon 4, sampling of the table included: one false alarm in 1e7.
    assert np.abs(np.array(column["frequencies"]) - truth).max() < 0.15
    assert column["n"] == 3000


@pytest.mark.parametrize("strategy", ["smp", "spl"])
def test_several_columns(run: Run, folder: Path, strategy: str) -> None:
    made = privatize(
        run, folder, "a.rpt", "--column", "education", "--column", "hours", "--column", "member",
        "--epsilon", "3", "--strategy", strategy, "--json",
    )  # fmt: skip
    payload = json.loads(made.out)
    assert payload["epsilon"] == pytest.approx(3.0)
    assert payload["reports"] == (3000 if strategy == "smp" else 9000)
    each = [c["epsilon"] for c in payload["columns"]]
    assert each == ([3.0] * 3 if strategy == "smp" else [1.0] * 3)
    aggregate(run, folder, "a.rpt")
    found = json.loads(run("ldp", "estimate", str(folder / "state"), "--json").out)
    counts = [c["n"] for c in found["columns"]]
    assert sum(counts) == payload["reports"]
    if strategy == "smp":  # binomial with mean 1000 and deviation 26: 1e-8 by chance
        assert all(850 < n < 1150 for n in counts)
    hours = found["columns"][1]
    assert hours["mean"]["low"] < 49.5 < hours["mean"]["high"]
    assert found["columns"][0]["mean"] is None


def test_a_plan_is_shared_by_clients_and_server(run: Run, folder: Path) -> None:
    plan = str(folder / "plan")
    done = run(
        "ldp", "plan", "--column", "education", "--schema", str(folder / "schema.toml"),
        "--epsilon", "1", "--n", "6000", "--output", plan, "--json",
    )  # fmt: skip
    assert json.loads(done.out)["columns"][0]["protocol"] == "GRR"
    for name in ("a.rpt", "b.rpt"):
        sent = run("ldp", "privatize", str(folder / "in.csv"), "--collection", plan,
                   "--output", str(folder / name))  # fmt: skip
        assert sent.code == 0
    assert aggregate(run, folder, "a.rpt", "b.rpt", extra=["--collection", plan]).code == 0
    audited = run("ldp", "audit", plan, "--trials", "2000", "--json")
    assert json.loads(audited.out)["audits"][0]["column"] == "education"


def test_sums_do_not_depend_on_how_they_are_made(run: Run, folder: Path) -> None:
    for name in ("a.rpt", "b.rpt", "c.rpt"):
        privatize(run, folder, name, "--column", "education", "--epsilon", "1",
                  "--batch-size", "170")  # fmt: skip
    aggregate(run, folder, "a.rpt", "b.rpt", "c.rpt", to="once")
    aggregate(run, folder, "c.rpt", "a.rpt", to="part")
    aggregate(run, folder, "b.rpt", "part", to="twice")
    assert (folder / "once").read_bytes() == (folder / "twice").read_bytes()


def test_each_run_appends_fresh_reports(run: Run, folder: Path) -> None:
    options = ("--column", "education", "--epsilon", "1")
    privatize(run, folder, "a.rpt", *options)
    first = (folder / "a.rpt").read_bytes()
    privatize(run, folder, "a.rpt", *options)
    both = (folder / "a.rpt").read_bytes()
    assert both.startswith(first)
    assert both[len(first) :] not in first
    out = aggregate(run, folder, "a.rpt")
    assert "6000 reports together" in out.out


def test_the_seed_of_the_line_never_reaches_the_noise(run: Run, folder: Path) -> None:
    for name in ("a.rpt", "b.rpt"):
        privatize(run, folder, name, "--column", "education", "--epsilon", "1", "--seed", "7")
    assert (folder / "a.rpt").read_bytes() != (folder / "b.rpt").read_bytes()


def test_a_ledger_is_charged_before_anything_is_drawn(run: Run, folder: Path) -> None:
    path = folder / "ledger.db"
    Ledger(path, cap=Budget(1.5, 0.0))
    options = ("--column", "education", "--epsilon", "1", "--ledger", str(path))
    assert privatize(run, folder, "a.rpt", *options).code == 0
    assert Ledger.open(path, read_only=True).spent().epsilon == 1.0
    before = (folder / "a.rpt").read_bytes()
    refused = privatize(run, folder, "a.rpt", *options)
    assert refused.code == 5
    assert (folder / "a.rpt").read_bytes() == before


# -- damage ---------------------------------------------------------------------------------------
def test_a_file_cut_in_half_loses_the_cut_batch_and_says_so(run: Run, folder: Path) -> None:
    privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "1",
              "--batch-size", "100")  # fmt: skip
    data = (folder / "a.rpt").read_bytes()
    (folder / "a.rpt").write_bytes(data[: len(data) // 2])
    out = aggregate(run, folder, "a.rpt", extra=["--json"])
    assert out.code == 4
    (entry,) = json.loads(out.out)["files"]
    assert entry["reports"] == 1400  # of 1500, at most one batch of 100 was cut
    assert len(entry["problems"]) == 1
    assert "a batch of 100 reports" in entry["problems"][0]
    assert "a.rpt" in out.err
    assert run("ldp", "estimate", str(folder / "state")).code == 0
    assert aggregate(run, folder, "a.rpt", extra=["--allow-damaged"]).code == 0


def test_foreign_files_are_named_and_left_out(run: Run, folder: Path) -> None:
    privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "1")
    privatize(run, folder, "b.rpt", "--column", "education", "--epsilon", "2")
    (folder / "c.rpt").write_bytes(b"not ours at all " * 20)
    out = aggregate(run, folder, "a.rpt", "b.rpt", "c.rpt", extra=["--json"])
    assert out.code == 4
    payload = json.loads(out.out)
    assert [f["reports"] for f in payload["files"]] == [3000, 0, 0]
    assert payload["complete"] is False
    assert "another collection" in payload["files"][1]["problems"][0]
    assert payload["reports"] == 3000


def test_without_one_readable_file_nothing_is_written(run: Run, folder: Path) -> None:
    (folder / "c.rpt").write_bytes(b"not ours at all " * 20)
    out = aggregate(run, folder, "c.rpt")
    assert out.code == 4
    assert not (folder / "state").exists()
    assert aggregate(run, folder, "absent.rpt").code == 3


def test_a_file_given_twice_is_refused(run: Run, folder: Path) -> None:
    privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "1")
    out = aggregate(run, folder, "a.rpt", "a.rpt")
    assert out.code == 2
    assert "double" in out.err


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_file_ends_in_a_traceback(run: Run, folder: Path, data: st.DataObject) -> None:
    source = folder / "seed.rpt"
    if not source.exists():
        privatize(run, folder, "seed.rpt", "--column", "education", "--epsilon", "1",
                  "--batch-size", "500")  # fmt: skip
    body = bytearray(source.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "junk", "repeat"]))
    at = data.draw(st.integers(0, len(body) - 1))
    if kind == "flip":
        body[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del body[at:]
    elif kind == "junk":
        body[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    else:
        body = bytearray(data.draw(st.binary(max_size=200)))
    (folder / "f.rpt").write_bytes(bytes(body))
    for command in (
        ("aggregate", str(folder / "f.rpt"), "--output", str(folder / "s")),
        ("estimate", str(folder / "f.rpt")),
        ("audit", str(folder / "f.rpt"), "--trials", "200"),
    ):
        out = run("ldp", *command)
        assert out.code in {0, 3, 4}, (command, out.err)
        assert "Traceback" not in out.err
        assert "unexpected" not in out.err


# -- bad input: one line, and no cell of the table ----------------------------------------------
@pytest.mark.parametrize(
    ("cells", "options", "words"),
    [
        (SECRET, ("--column", "education"), "outside the public list"),
        ("", ("--column", "education"), "outside the public list"),
        (SECRET, ("--column", "education", "--strategy", "smp"), "row 2"),
        (SECRET, ("--column", "hours"), "no finite number"),
        ("nan", ("--column", "hours"), "no finite number"),
        ("inf", ("--column", "hours"), "no finite number"),
    ],
)
def test_a_bad_cell_is_placed_and_never_quoted(
    run: Run, folder: Path, cells: str, options: tuple[str, ...], words: str
) -> None:
    name = options[1]
    good = "HS" if name == "education" else "40"
    (folder / "bad.csv").write_text(f"{name},x\n{good},1\n{cells},2\n")
    out = privatize(run, folder, "a.rpt", *options, "--epsilon", "1", table="bad.csv")
    assert out.code == 3
    assert words in out.err
    assert len(out.err.splitlines()) == 1
    assert SECRET not in out.err + out.out
    assert not (folder / "a.rpt").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("education\n", "no rows"),
        ("education,education\nHS,HS\n", "same name"),
        (f"education,x\nHS\n{SECRET},1\n", "line 2"),
        (f'education\n"{SECRET}\n', "well-formed"),
        (f"school\n{SECRET}\n", "'education' is not in the header"),
    ],
)
def test_a_bad_table_is_refused_without_a_quotation(
    run: Run, folder: Path, text: str, words: str
) -> None:
    (folder / "bad.csv").write_text(text)
    out = privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "1",
                    table="bad.csv")  # fmt: skip
    assert out.code == 3
    assert words in out.err
    assert SECRET not in out.err
    assert not (folder / "a.rpt").exists()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=200))
def test_no_table_ends_in_a_traceback(run: Run, folder: Path, body: bytes) -> None:
    (folder / "f.csv").write_bytes(b"education,hours\n" + body)
    out = privatize(run, folder, "f.rpt", "--column", "education", "--column", "hours",
                    "--epsilon", "1", table="f.csv")  # fmt: skip
    assert out.code in {0, 3}, out.err
    assert "Traceback" not in out.err
    assert "unexpected" not in out.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epsilon", "1"), "--column"),
        (("--column", "education"), "--epsilon"),
        (("--column", "education", "--epsilon", "60"), "(0, 50]"),
        (("--column", "education", "--epsilon", "0"), "--epsilon"),
        (("--column", "education", "--column", "education", "--epsilon", "1"), "twice"),
        (("--column", "education", "--epsilon", "1", "--values", "a,b"), "--values"),
        (("--column", "education", "--epsilon", "1", "--bin", "education=1,2"), "categorical"),
        (("--column", "education", "--epsilon", "1", "--bin", "hours=1,2"), "--bin"),
        (("--column", "hours", "--epsilon", "1", "--bin", "hours=2,1"), "increase"),
        (("--column", "hours", "--epsilon", "1", "--bin", "hours=2,200"), "inside"),
        (("--column", "income", "--epsilon", "1"), "never taken from the data"),
        (("--column", "name", "--epsilon", "1"), "no column"),
        (("--column", "education", "--epsilon", "1", "--protocol", "RAPPOR"), "--protocol"),
    ],
)
def test_bad_options_are_usage_errors(
    run: Run, folder: Path, options: tuple[str, ...], words: str
) -> None:
    out = privatize(run, folder, "a.rpt", *options)
    assert out.code in {2, 3}
    assert words in out.err
    assert not (folder / "a.rpt").exists()


def test_other_parameters_are_not_appended(run: Run, folder: Path) -> None:
    privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "1")
    before = (folder / "a.rpt").read_bytes()
    out = privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "2")
    assert out.code == 2
    assert "another collection" in out.err
    assert (folder / "a.rpt").read_bytes() == before


def test_the_table_is_never_overwritten(run: Run, folder: Path) -> None:
    before = (folder / "in.csv").read_bytes()
    out = privatize(run, folder, "in.csv", "--column", "education", "--epsilon", "1")
    assert out.code == 2
    assert (folder / "in.csv").read_bytes() == before
    privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "1")
    assert run("ldp", "estimate", str(folder / "a.rpt"), "--csv", str(folder / "a.rpt")).code == 2


# -- what is printed ----------------------------------------------------------------------------
def test_plan_as_printed(run: Run) -> None:
    out = run("ldp", "plan", "--k", "74", "--epsilon", "1", "--max-report-bits", "70")
    assert out.out == (
        "PGR: least variance for 74 values at epsilon 1\n"
        "protocol  variance of 1 report  bits  left out because  \n"
        "PGR                     3.6896     7                    \n"
        "OLH                     3.6917    66                    \n"
        "HR                      4.6827     7                    \n"
        "GRR                     25.307     7                    \n"
        "SS                      3.5572    74  74 bits per report\n"
        "OUE                     3.6827    74  74 bits per report\n"
        "Of a value with frequency 0, the usual case in a large domain.\n"
    )


def test_plan_says_what_n_users_give(run: Run) -> None:
    payload = json.loads(run("ldp", "plan", "--k", "16", "--epsilon", "1", "--n", "1e5",
                             "--json").out)  # fmt: skip
    best = payload["protocols"][0]
    assert payload["best"] == "SS"
    assert best["std"] == pytest.approx((3.11072 / 1e5) ** 0.5, rel=1e-5)
    assert best["half_width"] == pytest.approx(1.959964 * best["std"], rel=1e-6)
    assert payload["protocols"][-1]["variance"] == pytest.approx(5.66243, abs=1e-5)


def test_plan_for_values_that_are_reported_again(run: Run) -> None:
    from privfair.ldp import LOLOHA

    line = ("ldp", "plan", "--k", "16", "--epsilon", "1", "--epsilon-perm", "2", "--reports", "5")
    payload = json.loads(run(*line, "--json").out)
    rows = {row["protocol"]: row for row in payload["protocols"]}
    assert set(rows) == {"LGRR", "LOSUE", "LSUE", "LOLOHA"}
    # The first report of a tight chain is that of the plain protocol: OUE, SUE and GRR.
    assert rows["LOSUE"]["variance"] == pytest.approx(3.68269, abs=1e-5)
    assert rows["LSUE"]["variance"] == pytest.approx(3.91770, abs=1e-5)
    assert rows["LGRR"]["variance"] == pytest.approx(5.66243, abs=1e-5)
    for row in rows.values():
        assert 1 < row["epsilon_after_reports"] <= 2 <= row["epsilon_most"]
    assert rows["LOLOHA"]["epsilon_most"] == pytest.approx(2 * LOLOHA(16, 2.0, 1.0).g_)
    assert "LOSUE" in run(*line).out
    assert run("ldp", "plan", "--k", "16", "--epsilon", "2", "--epsilon-perm", "1").code == 2


def test_plan_wants_a_domain_or_columns(run: Run) -> None:
    assert run("ldp", "plan", "--epsilon", "1").code == 2
    assert run("ldp", "plan", "--epsilon", "1", "--k", "4", "--column", "a").code == 2
    assert run("ldp", "plan", "--epsilon", "1", "--k", "4", "--output", "x").code == 2
    assert run("ldp", "plan", "--epsilon", "1", "--k", "1").code == 2
    out = run("ldp", "plan", "--epsilon", "1", "--k", "9999", "--max-report-bits", "3")
    assert out.code == 2
    assert "no protocol is within the limits" in out.err


def test_estimate_as_printed(run: Run, folder: Path) -> None:
    (folder / "two.csv").write_text("education\n" + "HS\n" * 300 + "BA\n" * 100)
    privatize(run, folder, "a.rpt", "--column", "education", "--epsilon", "50", table="two.csv")
    out = run("ldp", "estimate", str(folder / "a.rpt"), "--postprocess", "norm_sub")
    # At epsilon 50 nothing is left to chance, so that the text is fixed.
    assert out.out == (
        "education: GRR, epsilon 50, 400 reports\n"
        "value  frequency     raw     95 % interval\n"
        "HS        0.7500  0.7500  0.7046 to 0.7917\n"
        "BA        0.2500  0.2500  0.2083 to 0.2954\n"
        "MA        0.0000  0.0000  0.0000 to 0.0092\n"
        "PhD       0.0000  0.0000  0.0000 to 0.0092\n"
        "Intervals are those of the raw estimates, never of post-processed ones.\n"
    )


def test_the_table_of_all_values(run: Run, folder: Path) -> None:
    (folder / "danger.csv").write_text("f\n" + "=1+1\n" * 50 + "b\n" * 50)
    run("ldp", "privatize", str(folder / "danger.csv"), "--column", "f", "--values", "=1+1,b",
        "--epsilon", "2", "--output", str(folder / "a.rpt"))  # fmt: skip
    out = run("ldp", "estimate", str(folder / "a.rpt"), "--csv", "-")
    lines = out.out.splitlines()
    assert lines[0] == "column,value,frequency,raw,low,high,std,reports"
    assert lines[1].startswith("f,'=1+1,"), "no spreadsheet takes it for a formula"
    assert len(lines) == 3
    assert run("ldp", "estimate", str(folder / "a.rpt"), "--csv", "-", "--json").code == 2


def test_a_page_with_figures_and_the_attack_view(run: Run, folder: Path) -> None:
    privatize(run, folder, "a.rpt", "--column", "education", "--column", "hours",
              "--epsilon", "2")  # fmt: skip
    page = folder / "page.html"
    assert run("ldp", "estimate", str(folder / "a.rpt"), "--html", str(page)).code == 0
    text = page.read_text("utf-8")
    for words in ("fig-ldp-education", "Computed epsilon", "not offered", "mean of hours"):
        assert words in text
    assert "<script src" not in text


def test_an_empty_state_says_that_there_is_nothing(run: Run, folder: Path) -> None:
    plan = str(folder / "plan")
    run("ldp", "plan", "--column", "education", "--schema", str(folder / "schema.toml"),
        "--epsilon", "1", "--output", plan)  # fmt: skip
    payload = json.loads(run("ldp", "estimate", plan, "--json").out)
    assert payload["columns"][0]["status"] == "no_reports"
    assert "nothing can be estimated" in run("ldp", "estimate", plan).out


# -- audit ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", ["GRR", "OUE", "OLH", "SS", "HR", "PGR"])
def test_audit_of_an_honest_randomiser(run: Run, protocol: str) -> None:
    out = run("ldp", "audit", "--protocol", protocol, "--k", "16", "--epsilon", "1",
              "--trials", "20000", "--json")  # fmt: skip
    assert out.code == 0
    (found,) = json.loads(out.out)["audits"]
    assert 1.0 - 1e-9 <= found["exact_epsilon"] <= 1.0
    assert 0.5 < found["lower_epsilon"] <= 1.0
    assert 1 / 16 < found["attack_success"] < 0.3
    assert found["poisoning_bound"] > 0.01
    assert found["shuffled"] is None


@pytest.mark.parametrize(("strategy", "attributes"), [("smp", 2), ("spl", 1)])
def test_fake_users_of_a_plan_all_take_one_column(
    run: Run, folder: Path, strategy: str, attributes: int
) -> None:
    from privfair.ldp._collection import frames
    from privfair.ldp.audit import max_manipulation

    plan = folder / f"plan-{strategy}"
    run("ldp", "plan", "--column", "education", "--column", "hours", "--schema",
        str(folder / "schema.toml"), "--bin", "hours=20,40", "--epsilon", "1", "--strategy",
        strategy, "--output", str(plan))  # fmt: skip
    found = json.loads(run("ldp", "audit", str(plan), "--trials", "1000", "--json").out)["audits"]
    collection, _ = frames(plan, lambda collection, rest: None)
    for column, one in zip(collection.columns, found, strict=True):
        bound = max_manipulation(column.protocol, 0.01, attributes=attributes)
        assert one["poisoning_bound"] == pytest.approx(bound)


def test_audit_finds_a_randomiser_that_lies(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from privfair.ldp import GRR
    from privfair.ldp._exact import ONE

    monkeypatch.setattr(GRR, "_t", property(lambda self: int(0.9 * ONE)))
    out = run("ldp", "audit", "--protocol", "GRR", "--k", "4", "--epsilon", "1",
              "--trials", "5000", "--json")  # fmt: skip
    assert out.code == 5
    (found,) = json.loads(out.out)["audits"]
    assert found["contradicted"] is True
    assert found["exact_epsilon"] > 3
    assert found["lower_epsilon"] > 2
    human = run("ldp", "audit", "--protocol", "GRR", "--k", "4", "--epsilon", "1",
                "--trials", "5000")  # fmt: skip
    assert "CONTRADICTED" in human.out


def test_audit_behind_a_shuffler(run: Run) -> None:
    out = run("ldp", "audit", "--protocol", "GRR", "--k", "20", "--epsilon", "1",
              "--trials", "200", "--shuffle", "1000", "--delta", "1e-6", "--json")  # fmt: skip
    (found,) = json.loads(out.out)["audits"]
    assert found["shuffled"]["epsilon"] == pytest.approx(0.148671, abs=1e-6)
    assert run("ldp", "audit", "--protocol", "GRR", "--k", "20", "--epsilon", "1",
               "--shuffle", "1000").code == 2  # fmt: skip
    assert run("ldp", "audit", "--protocol", "GRR", "--k", "20").code == 2


# -- what is loaded -----------------------------------------------------------------------------
def test_no_command_loads_what_it_does_not_need(folder: Path) -> None:
    script = f"""
import sys
from privfair.cli.main import run
base = {str(folder)!r}
lines = [
    "ldp plan --k 74 --epsilon 1 --n 100000",
    f"ldp privatize {{base}}/in.csv --column education --schema {{base}}/schema.toml "
    f"--epsilon 1 --output {{base}}/a.rpt",
    f"ldp aggregate {{base}}/a.rpt --output {{base}}/state",
    f"ldp estimate {{base}}/state --postprocess norm_sub --simultaneous",
    f"ldp audit {{base}}/state --trials 2000",
]
for line in lines:
    assert run(line.split()) == 0, line
    for heavy in ("torch", "sklearn", "matplotlib", "cvxpy", "pandas"):
        assert heavy not in sys.modules, (heavy, line)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=800,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
