"""``privfair fairness``: the numbers of the library, private mode, figures, each exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfair.accounting import Ledger
from privfair.core.privacy import Budget

Run = Callable[..., Any]
FAST = ("--n-resamples", "100")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 900
    sex = rng.choice(["f", "m"], n)
    y = (rng.random(n) < 0.3 + 0.2 * (sex == "m")).astype(int)
    p = np.clip(0.35 * y + 0.6 * rng.random(n), 0, 1)
    return pd.DataFrame(
        {
            "y": y, "yhat": (p > 0.5).astype(int), "p": p, "sex": sex,
            "race": rng.choice(["a", "b", "c"], n), "site": rng.choice(["n", "s", "e"], n),
            "age": rng.integers(18, 80, n), "edu": rng.integers(1, 16, n),
            "hours": rng.integers(10, 60, n), "one": "x",
        }
    )  # fmt: skip


@pytest.fixture
def csv(table: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "Maß 1.csv"
    table.to_csv(path, index=False)
    return path


def call(run: Run, command: str, csv: Path, *more: str) -> Any:
    return run("fairness", command, "--predictions", str(csv), *more)


SEX = ("--sensitive", "sex")
DECIDED = ("--prediction", "yhat", *SEX)
OVER = (*DECIDED, "--client", "site", *FAST)


# -- numbers ----------------------------------------------------------------------------------
def test_pid_is_the_estimator(run: Run, csv: Path, table: pd.DataFrame) -> None:
    from privfair.fairness.pid import PIDDisparity

    fit = PIDDisparity(n_resamples=100, random_state=3).fit(
        table["yhat"], sensitive_features=table[["sex"]], client=table["site"]
    )
    got = call(run, "pid", csv, *OVER, "--json", "--seed", "3")
    assert got.code == 0, got.err
    assert json.loads(got.out) == json.loads(json.dumps(fit.to_dict()))
    text = call(run, "pid", csv, *OVER, "--seed", "3").out
    assert f"{fit.unique_:.4f}" in text and "BROJA" in text


def test_scores_in_bins_and_cut_ages(run: Run, csv: Path) -> None:
    got = call(run, "pid", csv, "--score", "p", "--score-bins", "4", "--sensitive", "age",
               "--bin", "age=30,60", "--client", "site", *FAST, "--json")  # fmt: skip
    assert got.code == 0, got.err
    data = json.loads(got.out)
    assert len(data["edges"]) == 3
    assert {g["group"] for g in data["groups"]} == {"< 30", "30 to < 60", ">= 60"}


def test_the_frontier_keeps_the_closed_forms(run: Run, csv: Path, table: pd.DataFrame) -> None:
    got = call(run, "frontier", csv, *DECIDED, "--label", "y", "--score", "p", "--points", "3",
               "--access", "client_blind", "--json")  # fmt: skip
    assert got.code == 0, got.err
    data = json.loads(got.out)
    share, rate = table["sex"].value_counts(normalize=True), table.groupby("sex")["y"].mean()
    # with no information at all the oracle changes the labels of the smaller group's surplus
    assert 1 - data["points"][0]["oracle"]["accuracy"] == pytest.approx(
        float(share.min() * abs(rate["m"] - rate["f"])), abs=1e-7
    )
    assert data["points"][-1]["oracle"]["accuracy"] == pytest.approx(1.0, abs=1e-9)
    rules = [p["rule"]["accuracy"] for p in data["points"]]
    bounds = [p["oracle"]["accuracy"] for p in data["points"]]
    assert rules == sorted(rules) and all(r <= b for r, b in zip(rules, bounds, strict=True))
    assert data["given"]["accuracy"] == pytest.approx((table["y"] == table["yhat"]).mean())
    assert data["points"][0]["rule"]["achieved"]["global"] < 1e-6


def test_the_local_frontier_bounds_within_clients(run: Run, csv: Path) -> None:
    got = call(run, "frontier", csv, *DECIDED, "--label", "y", "--client", "site", "--local",
               "--access", "aware", "--points", "3", "--json")  # fmt: skip
    assert got.code == 0, got.err
    data = json.loads(got.out)
    assert data["bounded"] == "local" and data["n_clients"] == 3
    for point in data["points"]:
        assert point["rule"]["achieved"]["local"] <= point["eps"] + 2e-6


def test_sep_is_the_table_of_gaps(run: Run, csv: Path, table: pd.DataFrame) -> None:
    from privfair.fairness.sep import sep_gaps

    got = call(run, "sep", csv, *DECIDED, "--ses", "edu < 8", "--ses", "edu < 14", "--effort",
               "hours >= 40", "--json")  # fmt: skip
    assert got.code == 0, got.err
    rules = json.loads(got.out)["rules"]
    assert [r["ses"] for r in rules] == ["edu < 8", "edu < 14"]
    expected = sep_gaps(table["yhat"], table[["sex"]], table["edu"] < 8)
    assert [r["gap"] for r in rules[0]["sep"]] == pytest.approx(expected["gap"].tolist())
    conditional = sep_gaps(table["yhat"], table[["sex"]], table["edu"] < 8,
                           effort=table["hours"] >= 40)  # fmt: skip
    assert [r["gap"] for r in rules[0]["csep"]] == pytest.approx(conditional["gap"].tolist())
    assert "nearly demographic parity" in got.err
    text = call(run, "sep", csv, *DECIDED, "--ses", "edu < 8", "--effort", "hours >= 40")
    assert "CSEP, among hours >= 40" in text.out and "Return to effort" in text.out


def test_dcov_is_the_metric_alone_and_together(run: Run, csv: Path, table: pd.DataFrame) -> None:
    from privfair.fairness.dcov import distance_correlation

    got = call(run, "dcov", csv, "--score", "p", *SEX, "--sensitive", "race", *FAST, "--json")
    assert got.code == 0, got.err
    entries = json.loads(got.out)["dependence"]
    assert [e["attributes"] for e in entries] == [["sex"], ["race"], ["sex", "race"]]
    for entry in entries:
        value = distance_correlation(
            None, table["p"], sensitive_features=table[entry["attributes"]]
        )
        assert entry["distance_correlation_sq"]["value"] == pytest.approx(value)
    assert entries[0]["distance_correlation_sq"]["null"]["p_value"] < 0.05
    assert entries[1]["distance_correlation_sq"]["null"]["p_value"] > 0.005
    text = call(run, "dcov", csv, *DECIDED, *FAST)
    assert text.code == 0 and "of the decision" in text.out


# -- figures ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("pid", OVER),
        ("frontier", (*DECIDED, "--label", "y", "--points", "2")),
        ("sep", (*DECIDED, "--ses", "edu < 8", "--effort", "hours >= 40")),
    ],
)
def test_figures_are_written_and_the_same_twice(
    run: Run, csv: Path, tmp_path: Path, command: str, more: tuple[str, ...]
) -> None:
    made = []
    for name in ("a.svg", "b.svg"):
        got = call(run, command, csv, *more, "--plot", str(tmp_path / name))
        assert got.code == 0 and name in got.err
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1] and b"<svg" in made[0]
    for name, magic in (("c.png", b"\x89PNG"), ("c.pdf", b"%PDF")):
        if command == "frontier":
            call(run, command, csv, *more, "--plot", str(tmp_path / name))
            assert (tmp_path / name).read_bytes().startswith(magic)


# -- privacy ----------------------------------------------------------------------------------
PUBLIC = ("--groups", "sex=f,m", "--clients", "n,s,e,never seen")


def test_the_private_mode_charges_once_and_shows_noise(
    run: Run, csv: Path, tmp_path: Path, table: pd.DataFrame
) -> None:
    book = tmp_path / "ledger.db"
    got = call(run, "pid", csv, *OVER, *PUBLIC, "--epsilon", "0.03", "--ledger", str(book),
               "--json")  # fmt: skip
    assert got.code == 0, got.err
    data = json.loads(got.out)
    ledger = Ledger(book, dataset_id=f"{csv.name} audited rows")
    assert len(ledger) == 1
    assert ledger.spent().epsilon == pytest.approx(0.03)
    assert data["privacy"]["epsilon"] == pytest.approx(0.03)
    assert data["privacy"]["certified"] is True
    assert {row["client"] for row in data["clients"]} == {"n", "s", "e", "never seen"}
    exact = table["sex"].value_counts().to_dict()
    again = json.loads(call(run, "pid", csv, *OVER, *PUBLIC, "--epsilon", "0.03", "--json").out)
    # Each group's noise has a deviation of 133 rows: both are 0 twice once in 1e10 runs.
    shown = [{g["group"]: g["n"] for g in found["groups"]} for found in (data, again)]
    assert shown != [exact, exact]
    assert again["parts"] != data["parts"]  # --seed or not, the noise is fresh


def test_a_cap_that_is_too_small_ends_with_5(run: Run, csv: Path, tmp_path: Path) -> None:
    book = tmp_path / "ledger.db"
    Ledger(book, dataset_id=f"{csv.name} audited rows", cap=Budget(0.5))
    private = call(run, "pid", csv, *OVER, *PUBLIC, "--epsilon", "0.7", "--ledger", str(book))
    assert private.code == 5 and not private.out
    raw = call(run, "pid", csv, *OVER, "--ledger", str(book))
    assert raw.code == 5 and not raw.out


LIMITS = (*DECIDED, "--label", "y", "--client", "site", "--points", "3")


def test_the_private_frontier_charges_once_and_shows_noise(
    run: Run, csv: Path, tmp_path: Path, table: pd.DataFrame
) -> None:
    book = tmp_path / "ledger.db"
    public = ("--groups", "sex=f,m,x", "--clients", "n,s,e,never seen", "--epsilon", "0.7")
    more = (*LIMITS, "--score", "p", "--access", "aware", *public)
    got = call(run, "frontier", csv, *more, "--ledger", str(book), "--json")
    assert got.code in (0, 8), got.err  # 8: a point of this noise without a proven answer
    data = json.loads(got.out)
    ledger = Ledger(book, dataset_id=f"{csv.name} audited rows")
    assert len(ledger) == 1
    assert ledger.spent().epsilon == pytest.approx(0.7)
    assert data["privacy"]["epsilon"] == pytest.approx(0.7)
    assert data["privacy"]["certified"] is True and data["noise_share"] > 0.1
    assert data["groups"] == ["f", "m", "x"] and data["n_clients"] == 4
    given = data["given"]
    assert 0 <= given["accuracy_low"] < given["accuracy"] < given["accuracy_high"] <= 1
    again = call(run, "frontier", csv, *more)
    assert "released at epsilon 0.7" in " ".join(again.out.split())
    other = json.loads(call(run, "frontier", csv, *more, "--json").out)
    assert other["points"] != data["points"]  # --seed or not, the noise is fresh


def test_with_little_noise_the_private_frontier_is_the_raw_one(run: Run, csv: Path) -> None:
    """At epsilon 15 a count is off with probability 6e-7, and by 9 in all never."""
    scored = ("--score", "p", "--threshold", "0.5", *SEX, "--label", "y", "--points", "3")
    raw = json.loads(call(run, "frontier", csv, *scored, "--json").out)
    got = call(run, "frontier", csv, *scored, "--epsilon", "15", "--groups", "sex=f,m", "--json")
    assert got.code == 0, got.err
    private = json.loads(got.out)
    assert private["given"]["accuracy"] == pytest.approx(raw["given"]["accuracy"], abs=0.01)
    assert private["given"]["disparity"] == pytest.approx(raw["given"]["disparity"], abs=0.01)
    assert private["label_information"] == pytest.approx(raw["label_information"], abs=0.01)
    low, high = private["given"]["accuracy_low"], private["given"]["accuracy_high"]
    share = raw["given"]["accuracy"]
    half = 1.96 * (share * (1 - share) / 900) ** 0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    best = private["points"][-1]["rule"]["accuracy"]
    assert best >= private["given"]["accuracy"] - 0.01


@pytest.mark.parametrize(
    ("public", "code", "words"),
    [
        (("--groups", "sex=f,x", "--clients", "n,s,e"), 3, "declared"),
        (("--groups", "sex=f,m", "--clients", "n,s"), 3, "declared"),
        (("--groups", "sex=f,m"), 2, "--clients"),
        (("--clients", "n,s,e"), 2, "--groups"),
        (("--groups", "sex=f,m", "--clients", "n"), 2, "two clients"),
    ],
)
def test_the_private_frontier_refuses_before_it_charges(
    run: Run, csv: Path, tmp_path: Path, public: tuple[str, ...], code: int, words: str
) -> None:
    book = tmp_path / "ledger.db"
    got = call(run, "frontier", csv, *LIMITS, *public, "--epsilon", "1", "--ledger", str(book))
    assert got.code == code and words in " ".join(got.err.split()) and not got.out
    assert "900" not in got.err and "Traceback" not in got.err
    assert len(Ledger(book, dataset_id=f"{csv.name} audited rows")) == 0
    Ledger(tmp_path / "full.db", dataset_id=f"{csv.name} audited rows", cap=Budget(0.5))
    whole = ("--groups", "sex=f,m", "--clients", "n,s,e", "--ledger", str(tmp_path / "full.db"))
    private = call(run, "frontier", csv, *LIMITS, *whole, "--epsilon", "0.7")
    assert private.code == 5 and not private.out


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("pid", OVER),
        ("frontier", (*DECIDED, "--label", "y", "--points", "2")),
        ("sep", (*DECIDED, "--ses", "edu < 8")),
        ("dcov", (*DECIDED, *FAST)),
    ],
)
def test_a_raw_look_is_entered(
    run: Run, csv: Path, tmp_path: Path, command: str, more: tuple[str, ...]
) -> None:
    book = tmp_path / "ledger.db"
    assert call(run, command, csv, *more, "--ledger", str(book)).code == 0
    ledger = Ledger(book, dataset_id=f"{csv.name} audited rows")
    assert len(ledger) == 1 and ledger.spent().epsilon == float("inf")


# -- refusals ---------------------------------------------------------------------------------
BAD: dict[str, tuple[str, tuple[str, ...], int, str]] = {
    "no client": ("pid", DECIDED, 2, "--client"),
    "client is the decision": ("pid", (*DECIDED, "--client", "yhat"), 2, "the decision itself"),
    "client is the group": ("pid", (*DECIDED, "--client", "sex"), 2, "same column"),
    "bins without a score": ("pid", (*OVER, "--score-bins", "3"), 2, "--score"),
    "frontier's groups without epsilon": (
        "frontier", (*LIMITS, "--groups", "sex=f,m"), 2, "--epsilon"),
    "frontier's clients without a column": (
        "frontier", (*DECIDED, "--label", "y", "--epsilon", "1", *PUBLIC), 2, "--client"),
    "groups without epsilon": ("pid", (*OVER, "--groups", "sex=f,m"), 2, "--epsilon"),
    "epsilon without clients": ("pid", (*OVER, "--epsilon", "1"), 2, "--clients"),
    "epsilon without groups": (
        "pid", (*OVER, "--epsilon", "1", "--clients", "n,s"), 2, "--groups"),
    "merging is not private": (
        "pid", (*OVER, *PUBLIC, "--epsilon", "1", "--merge-clients-below", "9"), 2, "private"),
    "epsilon zero": ("pid", (*OVER, *PUBLIC, "--epsilon", "0"), 2, "above 0"),
    "nothing decided": ("pid", (*SEX, "--client", "site"), 2, "--prediction or --score"),
    "two ways to decide": ("sep", (*DECIDED, "--score", "p", "--threshold", "0.5",
                                   "--ses", "edu < 8"), 2, "leave out"),
    "absent column": ("pid", (*OVER, "--sensitive", "sx"), 3, "sx"),
    "one group": ("frontier", ("--prediction", "yhat", "--label", "y", "--sensitive", "one"), 3,
                  "one group"),
    "a quantity": ("pid", ("--prediction", "yhat", "--sensitive", "p", "--client", "site"), 3,
                   "p"),
    "local without clients": ("frontier", (*DECIDED, "--label", "y", "--local"), 2, "--client"),
    "no decision": ("frontier", ("--score", "p", *SEX, "--label", "y"), 2, "--threshold"),
    "no rule": ("sep", DECIDED, 2, "--ses"),
    "not a rule": ("sep", (*DECIDED, "--ses", "edu"), 2, "not a rule"),
    "rule without a number": ("sep", (*DECIDED, "--ses", "edu < low"), 2, "not a rule"),
    "effort downwards": ("sep", (*DECIDED, "--ses", "edu < 8", "--effort", "hours < 40"), 2, ">="),
    "status is the decision": ("sep", (*DECIDED, "--ses", "yhat < 1"), 2, "explains it"),
    "text as status": ("sep", (*DECIDED, "--ses", "site < 1"), 3, "not numeric"),
    "plot without effort": (
        "sep", (*DECIDED, "--ses", "edu < 8", "--plot", "a.svg"), 2, "--effort"),
    "a strange figure": ("pid", (*OVER, "--plot", "a.bmp"), 2, ".svg"),
    "no such folder": ("pid", (*OVER, "--plot", "/no/such/a.svg"), 2, "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD))
def test_each_misuse_has_its_own_message(run: Run, csv: Path, name: str) -> None:
    command, more, code, words = BAD[name]
    got = call(run, command, csv, *more)
    assert got.code == code, got.err
    assert words in " ".join(got.err.split()) and not got.out
    assert "Traceback" not in got.err


def test_a_point_without_an_answer_ends_with_8(
    run: Run, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import privfair.fairness.aglfop as room
    from privfair.core.exceptions import SolverError

    def fail(*_: Any, **__: Any) -> Any:
        raise SolverError("no certified answer.")

    monkeypatch.setattr(room, "fair_rule", fail, raising=False)
    got = call(run, "frontier", csv, *DECIDED, "--label", "y", "--points", "2", "--json")
    assert got.code == 8
    data = json.loads(got.out)
    assert all(p["rule"] is None and p["oracle"] is not None for p in data["points"])


def test_missing_values_need_a_policy(run: Run, csv: Path, table: pd.DataFrame) -> None:
    table.assign(site=table["site"].where(table.index % 5 > 0)).to_csv(csv, index=False)
    assert call(run, "pid", csv, *OVER).code == 3
    got = call(run, "pid", csv, *OVER, "--missing-group", "--json")
    assert got.code == 0, got.err
    assert "missing" in {row["client"] for row in json.loads(got.out)["clients"]}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom privfair.cli.main import run\n"
        "for name in ('pid', 'frontier', 'dcov', 'sep'):\n"
        "    assert run(['fairness', name, '--help']) == 0\n"
        "heavy = {'torch', 'cvxpy', 'clarabel', 'matplotlib', 'sklearn', 'pandas', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# -- names and gaps in the columns --------------------------------------------------------------
@pytest.mark.parametrize("command", ["pid", "frontier", "dcov", "sep"])
def test_missing_groups_have_one_policy(
    run: Run, csv: Path, table: pd.DataFrame, tmp_path: Path, command: str
) -> None:
    holes = table.copy()
    holes.loc[:59, "sex"] = np.nan
    path = tmp_path / "holes.csv"
    holes.to_csv(path, index=False)
    more = {
        "pid": ("--client", "site", *FAST), "frontier": ("--label", "y", "--points", "2"),
        "dcov": FAST, "sep": ("--ses", "edu < 8", "--min-group", "1"),
    }[command]  # fmt: skip
    refused = call(run, command, path, *DECIDED, *more)
    assert refused.code == 3 and "--missing-group" in refused.err
    assert "60 missing values of 900" in refused.err and not refused.out
    got = call(run, command, path, *DECIDED, *more, "--missing-group", "unknown", "--json")
    assert got.code == 0, got.err
    if command != "dcov":
        assert "unknown" in got.out
    filled = tmp_path / "filled.csv"
    holes.fillna({"sex": "unknown"}).to_csv(filled, index=False)
    again = call(run, command, filled, *DECIDED, *more, "--json")
    assert json.loads(again.out) == json.loads(got.out)


def test_under_privacy_how_many_are_missing_is_not_told(
    run: Run, table: pd.DataFrame, tmp_path: Path
) -> None:
    holes = table.copy()
    holes.loc[:58, "site"] = np.nan
    path = tmp_path / "holes.csv"
    holes.to_csv(path, index=False)
    got = call(run, "pid", path, *OVER, "--epsilon", "1", "--groups", "sex=f,m",
               "--clients", "n,s,e")  # fmt: skip
    assert got.code == 3 and "missing values" in got.err
    assert "59" not in got.err and "900" not in got.err


def test_whole_numbers_stay_whole_beside_missing_ones(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"d": rng.integers(0, 2, 400), "z": rng.integers(0, 2, 400),
                          "c": rng.integers(1, 3, 400).astype(float)})  # fmt: skip
    frame.loc[:3, "c"] = np.nan
    path = tmp_path / "clients.csv"
    frame.to_csv(path, index=False)
    got = call(run, "pid", path, "--prediction", "d", "--sensitive", "z", "--client", "c", *FAST,
               "--epsilon", "1", "--groups", "z=0,1,gone", "--clients", "1,2,gone",
               "--missing-group", "gone", "--json")  # fmt: skip
    assert got.code in (0, 2), got.err
    got = call(run, "pid", path, "--prediction", "d", "--sensitive", "z", "--client", "c", *FAST,
               "--missing-group", "gone", "--json")  # fmt: skip
    assert got.code == 0, got.err
    assert '"1.0"' not in got.out


def test_the_dependence_on_one_group_is_no_question(run: Run, csv: Path) -> None:
    got = call(run, "dcov", csv, "--score", "p", "--sensitive", "one", *FAST)
    assert got.code == 3 and "one group only" in got.err and not got.out


def test_crossed_names_are_told_apart(run: Run, tmp_path: Path) -> None:
    """Joined by ' x ' these two crossings would have one name."""
    frame = pd.DataFrame(
        {"y": [0, 1, 1, 0] * 30, "d": [0, 1, 0, 1] * 30,
         "a": ["p x q", "p", "p", "p x q"] * 30, "b": ["r", "q x r", "q x r", "r"] * 30}
    )  # fmt: skip
    path = tmp_path / "crossed.csv"
    frame.to_csv(path, index=False)
    got = call(run, "frontier", path, "--prediction", "d", "--label", "y", "--sensitive", "a",
               "--sensitive", "b", "--points", "2", "--json")  # fmt: skip
    assert got.code == 0, got.err
    assert len(json.loads(got.out)["groups"]) == 2


def test_the_frontier_reaches_the_decisions(run: Run, table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "wild.csv"
    table.assign(yhat=(table["sex"] == "m").astype(int)).to_csv(path, index=False)
    got = call(run, "frontier", path, *DECIDED, "--label", "y", "--points", "3", "--json")
    data = json.loads(got.out)
    assert data["given"]["disparity"] > data["label_information"]
    assert data["points"][-1]["eps"] == pytest.approx(data["given"]["disparity"])
    assert data["points"][-1]["rule"]["accuracy"] >= data["given"]["accuracy"] - 1e-7


def test_a_figure_holds_no_control_characters(
    run: Run, table: pd.DataFrame, tmp_path: Path
) -> None:
    import xml.etree.ElementTree as ET

    path, figure = tmp_path / "hostile.csv", tmp_path / "figure.svg"
    names = {"f": "\x1b[31mred", "m": "evil\u202egnp"}
    table.assign(sex=table["sex"].map(names)).to_csv(path, index=False)
    got = call(run, "sep", path, *DECIDED, "--ses", "edu < 8", "--effort", "hours >= 30",
               "--plot", str(figure))  # fmt: skip
    assert got.code == 0, got.err
    text = figure.read_text("utf-8")
    assert "\x1b" not in text and "\u202e" not in text
    ET.fromstring(text)


def test_the_split_at_equal_outcome_is_the_estimator(
    run: Run, csv: Path, table: pd.DataFrame
) -> None:
    from privfair.fairness.pid import PIDDisparity

    fit = PIDDisparity(n_resamples=100, random_state=3, condition="y").fit(
        table["yhat"], sensitive_features=table[["sex"]], client=table["site"], y_true=table["y"]
    )
    got = call(run, "pid", csv, *OVER, "--label", "y", "--condition", "y", "--json", "--seed", "3")
    assert got.code == 0, got.err
    assert json.loads(got.out) == json.loads(json.dumps(fit.to_dict()))
    private = call(run, "pid", csv, *OVER, "--label", "y", "--condition", "y", "--epsilon", "2",
                   "--groups", "sex=f,m", "--clients", "n,s,e", "--json")  # fmt: skip
    assert private.code == 0, private.err
    assert json.loads(private.out)["privacy"]["epsilon"] == 2
    assert json.loads(private.out)["parts"] != fit.to_dict()["parts"]
    for half in (("--label", "y"), ("--condition", "y")):
        assert call(run, "pid", csv, *OVER, *half).code == 2
