"""``curve``, ``compare``, ``explain`` and ``audit``: what numbers mean, and what refutes them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from privfair import accounting as ac
from privfair.auditing import one_run_audit
from privfair.cli.accountant._compare import gdp_asymptotic
from privfair.cli.accountant._explain import best_success, precision_at, tpr_at
from privfair.cli.accountant._points import curves
from privfair.cli.accountant._scores import read_scores
from privfair.cli.accountant._terminal import Axis, draw
from privfair.core.exceptions import PrivfairError

PLAN = ["--sigma", "1.1", "--q", "0.01", "--steps", "100"]
GAUSS = ["--sigma", "1", "--sampling", "full", "--steps", "1"]


def read(outcome: Any) -> Any:
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\n") == 1
    return json.loads(outcome.out, parse_constant=pytest.fail)


# -- curve --------------------------------------------------------------------------------
def test_the_curve_of_a_gaussian_is_the_exact_one(run: Any) -> None:
    """Reference: mu = 1 at a false positive rate of 0.05 leaves beta = 0.740489."""
    found = read(run("accountant", "curve", *GAUSS, "--fpr", "0.05", "--deltas", "1e-3,1e-9",
                     "--json"))  # fmt: skip
    assert found["tradeoff"][0]["tpr"] == pytest.approx(1 - 0.740489, abs=2e-6)
    exact = ac.AccountedProfile(ac.Gaussian(1.0))
    for point in found["curve"]:
        assert exact.epsilon(point["delta"]) <= point["epsilon"] <= (
            exact.epsilon(point["delta"]) * (1 + 1.1e-5)
        )  # fmt: skip
    assert found["advantage"] == pytest.approx(2 * 0.6914625 - 1, abs=1e-5)
    assert found["epsilon"] is None, "without --delta there is no single point"


def test_the_curve_rises_as_delta_falls_and_bounds_attacks_better_than_a_point(run: Any) -> None:
    found = read(run("accountant", "curve", *PLAN, "--delta", "1e-5", "--json"))
    epsilons = [point["epsilon"] for point in found["curve"]]
    assert epsilons == sorted(epsilons)
    for point in found["tradeoff"]:
        single = tpr_at(point["fpr"], found["epsilon"], found["delta"])
        assert point["fpr"] <= point["tpr"] <= single


@pytest.mark.parametrize(
    ("columns", "encoding"),
    [("50", "utf-8"), ("100", "utf-8"), ("50", "ascii"), ("4000", "utf-8")],
)
def test_the_terminal_plot_fits_and_needs_no_colour(
    tmp_path: Path, columns: str, encoding: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "privfair", "accountant", "curve", *GAUSS, "--delta", "1e-5"],
        cwd=Path(__file__).parents[2], capture_output=True, check=True, timeout=800,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": columns, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    lines = done.stdout.decode(encoding).splitlines()
    plot = [line for line in lines if "│" in line or " |" in line]
    assert len(plot) == 24
    assert max(map(len, plot)) <= min(int(columns), 100)
    assert b"\x1b" not in done.stdout
    assert ("⠀" <= max(line[-1] for line in plot) <= "⣿") or encoding == "ascii"


@given(
    points=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20,
    ),
    width=st.integers(10, 120), height=st.integers(1, 20), unicode=st.booleans(),
)  # fmt: skip
def test_any_curve_can_be_drawn(
    points: list[tuple[float, float]], width: int, height: int, unicode: bool
) -> None:
    lines = draw(points, Axis(0, 1), Axis(0, 1), title="t", width=width, height=height,
                 unicode=unicode, other=points)  # fmt: skip
    assert len(lines) == height + 3
    assert max(map(len, lines[1 : height + 1])) <= max(30, width)
    assert unicode or all(line.isascii() for line in lines)


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_the_figure_is_written_whole_and_the_same_each_time(
    run: Any, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"curve.{kind}"
    outcome = run("accountant", "curve", *GAUSS, "--delta", "1e-5", "--plot", str(path), "--json")
    assert outcome.code == 0
    assert str(path) in outcome.err
    data = path.read_bytes()
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[kind]
    assert data.startswith(start)
    if kind == "svg":
        text = data.decode()
        for words in ("false positive rate", "epsilon ≤ 4.378", "delta = 1e-05", "10⁻¹⁰"):
            assert words in text
        assert "mathdefault" not in text
    run("accountant", "curve", *GAUSS, "--delta", "1e-5", "--plot", str(path))
    assert path.read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 1


def test_a_plot_that_cannot_be_written_ends_before_any_work(run: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "a.jpg", tmp_path, tmp_path / "absent" / "a.svg", tmp_path / "svg"):
        outcome = run("accountant", "curve", *GAUSS, "--plot", str(path))
        assert (outcome.code, outcome.out) == (2, "")


def test_a_curve_without_a_guarantee(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text('["NonPrivate()"]')
    found = read(run("accountant", "curve", str(path), "--json", "--quiet"))
    assert {point["epsilon"] for point in found["curve"]} == {"inf"}
    assert {point["tpr"] for point in found["tradeoff"]} == {1.0}
    assert run("accountant", "curve", str(path)).code == 0


def test_the_points_drawn_are_bounds() -> None:
    profile = ac.AccountedProfile(ac.SelfComposed(ac.PoissonSampled(0.05, ac.Gaussian(2.0)), 50))
    found = curves(profile, (1e-3, 1e-8), points=20)
    exact = ac.AccountedProfile(ac.SelfComposed(ac.PoissonSampled(0.05, ac.Gaussian(2.0)), 50))
    for delta, epsilon in found.privacy[1:-1:5]:
        assert epsilon == pytest.approx(exact.epsilon(delta), rel=5e-3, abs=1e-3)
    assert found.tradeoff[-1] == (pytest.approx(1.0), pytest.approx(1.0))


# -- compare ------------------------------------------------------------------------------
@pytest.mark.golden
@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta", "opacus", "order", "asymptotic"),
    [
        (0.001, 0.6, 1000, 1e-6, 3.141044751, 4.9, 0.494429),
        (0.1, 1.0, 10, 1e-5, 3.441324459, 4.6, 1.617712),
        (1024 / 32561, 3.1139, 640, 1e-5, 1.096390587, 16.0, 0.976179),
    ],
)
def test_what_other_tools_print(
    run: Any, q: float, sigma: float, steps: int, delta: float, opacus: float, order: float,
    asymptotic: float,
) -> None:  # fmt: skip
    """Reference: Opacus 1.6.0, get_privacy_spent with its default orders, compute_eps_poisson."""
    found = read(run("accountant", "compare", "--q", repr(q), "--sigma", str(sigma), "--steps",
                     str(steps), "--delta", str(delta), "--json"))  # fmt: skip
    rows = {row["name"]: row for row in found["bounds"]}
    theirs = rows["rdp, orders of Opacus"]
    assert theirs["epsilon"] == pytest.approx(opacus, rel=2e-4)
    assert theirs["order"] == order
    assert rows["gdp, asymptotic"]["epsilon"] == pytest.approx(asymptotic, abs=2e-5)
    assert "not a certificate" in rows["gdp, asymptotic"]["note"]
    certified = {name for name, row in rows.items() if row["certificate"]}
    assert certified == {"pld", "rdp", "zcdp", "gdp", "basic"}
    # The approximation is the smallest number of all and never wins.
    assert found["winner"] == "pld"
    assert found["epsilon"] == rows["pld"]["epsilon"] > rows["gdp, asymptotic"]["epsilon"]
    assert rows["gdp"]["status"] == "not_available"
    assert gdp_asymptotic(q, sigma, steps, delta) == pytest.approx(asymptotic, abs=2e-5)


def test_all_accountants_of_a_gaussian(run: Any) -> None:
    found = read(run("accountant", "compare", *GAUSS, "--delta", "1e-5", "--json"))
    rows = {row["name"]: row["epsilon"] for row in found["bounds"]}
    assert found["winner"] == "gdp"
    assert rows["gdp"] <= rows["pld"] <= rows["rdp"] * 1.001
    assert rows["rdp"] <= rows["zcdp"] * 1.01
    assert rows["basic"] is None
    text = run("accountant", "compare", *PLAN, "--delta", "1e-5").out
    assert "not a certificate" in text.replace("\n", " ")
    assert "the smallest bound" in text


# -- explain ------------------------------------------------------------------------------
@given(epsilon=st.floats(0, 8), delta=st.floats(0, 0.5), fpr=st.floats(0, 1),
       prior=st.floats(0.001, 0.999))  # fmt: skip
def test_no_attack_does_better_than_said_and_one_does_as_well(
    epsilon: float, delta: float, fpr: float, prior: float
) -> None:
    """Reference: linear programming over all tests between the worst pair of (eps, delta)-DP.

    The pair has four outputs (Kairouz, Oh, Viswanath 2015): two that give all away with
    probability delta, and a randomised response.
    """
    p = np.array([delta, (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon)),
                  (1 - delta) / (1 + math.exp(epsilon)), 0.0])  # fmt: skip
    q = p[::-1]
    best = linprog(-p, A_ub=[q], b_ub=[fpr], bounds=[(0, 1)] * 4)
    assert tpr_at(fpr, epsilon, delta) == pytest.approx(-best.fun, abs=1e-7)
    right = np.maximum(prior * p, (1 - prior) * q).sum()  # Bayes' rule, output by output
    assert best_success(prior, epsilon, delta) == pytest.approx(right, abs=1e-9)
    # Outputs on which the odds grow by more than 2 e^epsilon have probability at most 2 delta.
    telling = p > 2 * math.exp(epsilon) * q * (1 + 1e-12)
    assert p[telling].sum() <= 2 * delta + 1e-12
    assert precision_at(max(fpr, 1e-6), prior, epsilon, delta) <= 1


def test_explain_says_what_holds_under_a_delta(run: Any) -> None:
    pure = run("accountant", "explain", "--epsilon", "1", "--delta", "0").out
    assert "more than 2.719 times as probable" in pure
    assert "0.7311" in pure
    assert "overheard" not in pure
    text = run("accountant", "explain", "--epsilon", "1", "--delta", "1e-3").out
    assert "with probability at most 0.002" in text
    assert "overheard outright with probability 0.001" in text
    found = read(run("accountant", "explain", "--epsilon", "1", "--delta", "1e-3", "--json",
                     "--prior", "0.5,0.25", "--fpr", "0.01"))  # fmt: skip
    assert found["advantage"] == pytest.approx((math.e - 1 + 2e-3) / (math.e + 1), abs=1e-6)
    assert found["priors"][0]["posterior"] == pytest.approx(
        2 * math.e / (2 * math.e + 1), abs=1e-6
    )
    assert found["priors"][1]["guess_success"] >= 0.75
    sigma = found["gaussian_noise_multiplier"]
    assert 0.999 <= ac.guarantee(ac.Gaussian(sigma), delta=1e-3).epsilon <= 1
    assert found["tradeoff"] == [{"fpr": 0.01, "tpr": pytest.approx(0.0281829, abs=1e-6)}]


def test_explain_names_what_is_weak(run: Any) -> None:
    assert "protects nobody" in run("accountant", "explain", "--epsilon", "30").out
    text = run("accountant", "explain", "--epsilon", "900", "--delta", "0.01", "--n", "50")
    assert text.code == 0
    assert run("accountant", "explain", "--epsilon", "1", "--n", "1000", "--json").code == 0
    found = read(run("accountant", "explain", "--epsilon", "1", "--n", "1000", "--json"))
    assert found["delta"] == 1e-4
    for bad in (["--epsilon", "0"], ["--epsilon", "1", "--prior", "0.1,2"],
                ["--epsilon", "1", "--delta", "1"], ["--epsilon", "1", "--fpr", ""]):  # fmt: skip
        outcome = run("accountant", "explain", *bad)
        assert (outcome.code, outcome.out) == (2, "")


# -- audit --------------------------------------------------------------------------------
def scores(path: Path, gap: float, n: int = 400) -> tuple[str, Any, Any]:
    rng = np.random.default_rng(7)
    inside = rng.integers(0, 2, n).astype(bool)
    values = rng.normal(size=n) + gap * inside
    rows = [f"{v!r},{'in' if s else 'out'}" for v, s in zip(values.tolist(), inside, strict=True)]
    path.write_text("score,in/out\n" + "\n".join(rows) + "\n")
    return str(path), values, inside


@pytest.mark.parametrize(("gap", "code"), [(0.0, 0), (6.0, 5)])
def test_an_audit_is_that_of_the_auditing_room(
    run: Any, tmp_path: Path, gap: float, code: int
) -> None:
    path, values, inside = scores(tmp_path / "s.csv", gap)
    line = ["accountant", "audit", path, "--epsilon", "1", "--delta", "1e-5", "--k-plus", "50",
            "--k-minus", "50"]  # fmt: skip
    outcome = run(*line, "--json")
    assert outcome.code == code
    found = json.loads(outcome.out)
    direct = one_run_audit(values, inside, k_plus=50, k_minus=50, delta=1e-5)
    assert found["counts"] == direct.counts
    assert found["epsilon_lower"] <= direct.lower_epsilon
    assert found["epsilon_lower"] == pytest.approx(direct.lower_epsilon, rel=1e-5)
    assert found["verdict"] == ("VIOLATION" if code else "no violation found")
    assert found["epsilon"] == 1.0
    outcome = run(*line)
    assert outcome.code == code
    assert "certified   epsilon <= 1 at" in outcome.out
    assert "audited     epsilon >=" in outcome.out


def test_an_audit_of_a_certificate(run: Any, tmp_path: Path) -> None:
    path, _, _ = scores(tmp_path / "s.csv", 0.0)
    certificate = tmp_path / "c.json"
    certificate.write_text(json.dumps(ac.guarantee(ac.Gaussian(2.0), delta=1e-5).to_dict()))
    found = read(run("accountant", "audit", path, "--certificate", str(certificate), "--json"))
    assert found["counts"]["guesses"] == 80, "a tenth of either kind"
    assert found["epsilon"] == pytest.approx(1.9938, abs=1e-3)
    both = run("accountant", "audit", path, "--certificate", str(certificate), "--epsilon", "1")
    assert both.code == 2
    assert run("accountant", "audit", path, "--epsilon", "1").code == 2
    # A certificate about replacement is refuted by replacing, which must be said.
    other = ac.guarantee(ac.Gaussian(2.0), delta=1e-5, neighboring="replace_one")
    certificate.write_text(json.dumps(other.to_dict()))
    line = ["accountant", "audit", path, "--certificate", str(certificate)]
    assert run(*line).code == 2
    assert run(*line, "--neighboring", "replace_one").code == 0
    assert run(*line, "--neighboring", "add_remove").code == 2


def test_coins_that_cannot_have_been_fair_are_noted(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("score,included\n" + "\n".join(f"{k},{int(k < 90)}" for k in range(100)))
    found = read(run("accountant", "audit", str(path), "--epsilon", "1", "--delta", "0", "--json"))
    assert "fair coins" in found["warnings"][0]


SECRET = "7193412.5"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"score,in\n", "no rows"),
        (b"score,in\n1\n", "line 2"),
        (f"score,in\n1,1\n{SECRET}x,0\n".encode(), "line 3"),
        (f"score,in\n1,{SECRET}\n".encode(), "line 2"),
        (b"score,in\nnan,1\n", "line 2"),
        (b"score,in\n,1\n", "line 2"),
        (b"a,b\n1,1\n", "--score"),
        (b"score,score\n1,1\n", "same name"),
        (b"score;in\n1;1\n", "commas"),
        (b"score,in,member\n1,1,1\n", "--included"),
        (b"score,in\n1,1\x00\n", "NUL"),
        (b"score,in\n\xff\xfe,1\n", "UTF-8"),
        (b'score,in\n"1,1\n', "line"),
        (b"score,in\n" + b"9" * 200_000 + b",1\n", "line"),
    ],
)
def test_a_bad_table_of_scores_is_one_line_that_quotes_no_cell(
    run: Any, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    outcome = run("accountant", "audit", str(path), "--epsilon", "1", "--delta", "0")
    assert (outcome.code, outcome.out) == (3, ""), outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert words in outcome.err
    assert SECRET not in outcome.err
    assert "9999" not in outcome.err


@given(st.binary(max_size=60) | st.text('score,in\n10.5-"x', max_size=40).map(str.encode))
def test_no_file_makes_the_reader_fall_over(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(b"score,in\n" + data)
    try:
        values, inside = read_scores(str(path))
    except PrivfairError as error:
        assert error.exit_code in (3, 4)
    else:
        assert len(values) == len(inside) > 0
        assert not np.isnan(values).any()


def test_inclusion_is_read_in_several_spellings(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    for words in (("in", "out"), ("1", "0"), ("TRUE", "False"), ("yes", "no")):
        path.write_text(f"\ufeffin, score\n{words[0]},-inf\n\n{words[1]}, 2e3\n", "utf-8")
        values, inside = read_scores(str(path))
        assert values.tolist() == [-math.inf, 2000.0]
        assert inside.tolist() == [True, False]
