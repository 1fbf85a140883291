"""``privfair accountant``: numbers on the safe side, a statement that hides nothing."""

import ast
import contextlib
import importlib
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.cli import main as entry

KEYS = {"epsilon", "delta", "noise_multiplier", "sample_rate", "steps"}


def payload(outcome):
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found) >= KEYS
    assert found["schema"] == 1
    return found


def sgd(found):
    step = ac.PoissonSampled(found["sample_rate"], ac.Gaussian(found["noise_multiplier"]))
    return ac.SelfComposed(step, found["steps"])


@pytest.mark.golden
def test_epsilon(run):
    """Reference: dp_accounting 0.6.0's PLD at step 1e-4 says 1.51537."""
    found = payload(
        run("accountant", "epsilon", "--noise-multiplier", "1.1", "--sample-rate", "0.01",
            "--steps", "1000", "--delta", "1e-5", "--json")
    )  # fmt: skip
    assert found["epsilon"] == pytest.approx(1.5154, abs=2e-4)
    assert found["accountant"] == "pld"
    assert found["sampling"] == "poisson"
    assert found["epsilon_no_amplification"] > 500
    assert 0.99 * found["epsilon"] <= found["epsilon_lower"] <= found["epsilon"]
    assert found["epsilon"] >= ac.guarantee(sgd(found), delta=1e-5).epsilon


def test_epsilon_says_what_it_covers_and_what_not(run):
    line = ["accountant", "epsilon", "--sigma", "1.1", "--n", "60000", "--batch-size", "600",
            "--epochs", "10"]  # fmt: skip
    text = run(*line).out
    for words in (
        "epsilon <= ", "at delta = 1e-06", "zero_out", "1000 (10 epochs)", "noise multiplier 1.1",
        "600 of 60000 records expected", "if every step used all the data",
        "Covers every intermediate model", "Does not cover", "hyper-parameters", "preprocessing",
        "early stopping", "seed", "independently",
    ):  # fmt: skip
        assert words in text, words
    assert payload(run(*line, "--json"))["sample_rate"] == 0.01


@pytest.mark.parametrize("epsilon", ["0.1", "1", "8"])
@pytest.mark.parametrize("sampling", ["poisson", "shuffle", "full"])
def test_noise_pasted_back_never_exceeds_the_target(run, epsilon, sampling):
    size = ["--dataset-size", "32561", "--delta", "1e-5", "--sampling", sampling]
    batch = ["--batch-size", "1024"] if sampling != "full" else []
    rest = [*size, *batch, "--steps", "60"]
    found = payload(run("accountant", "noise", "--epsilon", epsilon, *rest, "--json"))
    assert 0.997 * float(epsilon) <= found["epsilon"] <= float(epsilon)
    text = run("accountant", "noise", "--epsilon", epsilon, *rest).out
    printed = text.split()[2]
    again = payload(run("accountant", "epsilon", "--sigma", printed, *rest, "--json"))
    assert again["epsilon"] <= float(epsilon)


def test_steps(run):
    line = ["accountant", "steps", "--epsilon", "1", "--sigma", "1.1", "--q", "0.01", "--delta",
            "1e-5"]  # fmt: skip
    found = payload(run(*line, "--json"))
    assert found["steps"] == ac.calibrate_steps(
        epsilon=1.0, delta=1e-5, noise_multiplier=1.1, sample_rate=0.01
    )
    assert found["epsilon"] <= 1.0
    assert run(*line).out.startswith(f"{found['steps']} steps")
    none = payload(run("accountant", "steps", "--epsilon", "0.01", "--sigma", "0.5", "--q", "1",
                       "--delta", "1e-6", "--json"))  # fmt: skip
    assert (none["steps"], none["epsilon"]) == (0, 0.0)


def test_shuffled_batches_are_not_given_the_poisson_number(run):
    line = ["accountant", "epsilon", "--sigma", "1", "--n", "3200", "--batch-size", "100",
            "--epochs", "1", "--delta", "1e-5", "--sampling", "shuffle"]  # fmt: skip
    found = payload(run(*line, "--json"))
    assert found["epsilon"] == pytest.approx(4.377, abs=1e-3)
    assert found["epsilon_lower"] == pytest.approx(4.266, abs=1e-3)
    assert found["epsilon_poisson_if_shuffled"] == pytest.approx(1.512, abs=2e-3)
    text = run(*line).out
    assert "Batches were shuffled, not Poisson sampled. Certified epsilon = 4.378." in text
    assert "The commonly quoted Poisson value 1.512 is not a guarantee" in text
    assert "the true value is at least 4.266" in text
    steps = payload(run("accountant", "steps", "--epsilon", "8", "--sigma", "1", "--n", "3200",
                        "--batch-size", "100", "--delta", "1e-5", "--sampling", "shuffle",
                        "--json"))  # fmt: skip
    assert steps["steps"] % 32 == 0
    assert steps["epsilon"] <= 8


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("epsilon --sigma 1 --q 0.1 --n 1000 --batch-size 50 --steps 3", "contradicts"),
        ("epsilon --sigma 1 --q 0.1 --steps 3 --epochs 3 --delta 1e-5", "contradicts"),
        ("epsilon --sigma 1 --q 0.1 --steps 3", "--delta"),
        ("epsilon --sigma 1 --q 0.1 --delta 1e-5", "--steps"),
        ("epsilon --sigma 1 --q 0 --steps 3 --delta 1e-5", "0"),
        ("epsilon --sigma 1 --q 1.5 --steps 3 --delta 1e-5", "1.5"),
        ("epsilon --sigma 0 --q 0.1 --steps 3 --delta 1e-5", "0"),
        ("epsilon --sigma nan --q 0.1 --steps 3 --delta 1e-5", "nan"),
        ("epsilon --sigma 1 --q 0.1 --steps 2.5 --delta 1e-5", "2.5"),
        ("epsilon --sigma 1 --q 0.1 --steps 3 --delta 1", "1"),
        ("epsilon --sigma 1 --n 100 --batch-size 10 --steps 3 --delta 0.01", "1 / --dataset-size"),
        ("epsilon --sigma 1 --q 0.1 --steps 3 --delta 1e-5 --sampling full", "--sampling full"),
        ("epsilon --sigma 1 --q 0.1 --steps 3 --delta 1e-5 --sampling shuffle", "--batch-size"),
        ("epsilon --sigma 1 --q 0.1 --steps 3 --delta 1e-5 --accountant gdp", "gdp"),
        ("epsilon --sigma 1 --q 0.1 --steps 3 --delta 1e-5 --accountant rdp "
         "--neighboring replace_one", "replace_one"),
        ("noise --epsilon -1 --q 0.1 --steps 3 --delta 1e-5", "-1"),
        ("noise --epsilon inf --q 0.1 --steps 3 --delta 1e-5", "inf"),
    ],
)  # fmt: skip
def test_bad_lines_end_with_2_and_one_line_of_reason(run, args, words):
    outcome = run("accountant", *args.split())
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_replacement_and_units(run):
    line = ["accountant", "epsilon", "--sigma", "3", "--q", "0.1", "--steps", "512", "--delta",
            "1e-6", "--json"]  # fmt: skip
    assert payload(run(*line))["epsilon"] == pytest.approx(3.770, abs=2e-3)
    replaced = payload(run(*line, "--neighboring", "replace_one", "--unit", "user",
                           "--max-records-per-user", "1"))  # fmt: skip
    assert replaced["epsilon"] == pytest.approx(7.825, abs=2e-3)
    assert (replaced["neighboring"], replaced["unit"]) == ("replace_one", "user")


def test_a_large_epsilon_is_called_by_its_name(run):
    outcome = run("accountant", "epsilon", "--sigma", "0.1", "--q", "1", "--steps", "1", "--delta",
                  "1e-5")  # fmt: skip
    assert "protects nobody" in outcome.out


# -- what users complain about in other tools ---------------------------------------------
PLANS = st.fixed_dictionaries(
    {
        "sigma": st.floats(0.6, 20.0).map(lambda x: round(x, 3)),
        "q": st.floats(0.001, 1.0).map(lambda x: round(x, 4)),
        "steps": st.integers(1, 60),
        "exponent": st.integers(3, 9),
        "neighboring": st.sampled_from(["zero_out", "add_remove", "replace_one"]),
    }
)


def line_of(plan):
    return ["--sigma", str(plan["sigma"]), "--q", str(plan["q"]), "--steps", str(plan["steps"]),
            "--neighboring", plan["neighboring"], "--json"]  # fmt: skip


def answer(*args):
    """One JSON object on stdout, nothing else anywhere."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = entry.run([*args])
    assert code == 0, err.getvalue()
    assert err.getvalue() == ""
    assert out.getvalue().count("\n") == 1
    return json.loads(out.getvalue(), parse_constant=pytest.fail)


@settings(max_examples=6)
@given(plan=PLANS)
def test_all_commands_say_the_same_about_the_same_settings(plan, tmp_file):
    """One project's two scripts printed 0.8 and 16890: one of them had lost a parameter."""
    delta = 10.0 ** -plan["exponent"]
    line = [*line_of(plan), "--delta", str(delta)]
    found = answer("accountant", "epsilon", *line)
    event = ac.SelfComposed(ac.PoissonSampled(plan["q"], ac.Gaussian(plan["sigma"])),
                            plan["steps"])  # fmt: skip
    direct = ac.guarantee(event, delta=delta, neighboring=plan["neighboring"])
    assert direct.epsilon <= found["epsilon"] <= direct.epsilon * (1 + 1.1e-5)
    tmp_file.write_text(json.dumps({"events": [event.to_dict()], "delta": delta,
                                    "neighboring": plan["neighboring"]}))  # fmt: skip
    composed = answer("accountant", "compose", str(tmp_file), "--json")
    curve = answer("accountant", "curve", *line, "--deltas", str(delta))
    assert composed["epsilon"] == found["epsilon"]
    assert curve["curve"] == [{"delta": delta, "epsilon": found["epsilon"]}]
    assert composed["events"][0]["share"] in (1.0, None)
    if found["epsilon"] > 0:
        claimed = str(found["epsilon"])
        valid = answer("accountant", "validate", "--epsilon", claimed, *line)
        assert (valid["epsilon"], valid["verdict"]) == (found["epsilon"], "holds")
        back = answer("accountant", "delta", "--epsilon", claimed, *line_of(plan))
        assert back["delta"] <= delta * (1 + 1e-3)
        assert back["epsilon"] == found["epsilon"]


@pytest.fixture(scope="module")
def tmp_file(tmp_path_factory):
    return tmp_path_factory.mktemp("events") / "events.json"


@settings(max_examples=6)
@given(plan=PLANS)
def test_no_order_is_ever_taken_for_free(plan):
    """Tools that leave a low order at 0 report epsilon 0 for noise that protects nobody."""
    plan = plan | {"neighboring": "add_remove"}
    line = [*line_of(plan), "--delta", str(10.0 ** -plan["exponent"])]
    renyi = answer("accountant", "epsilon", *line, "--accountant", "rdp")
    best = answer("accountant", "epsilon", *line)
    assert renyi["epsilon"] >= best["epsilon"] * (1 - 1e-3)
    assert renyi["order"] > 1


@pytest.mark.parametrize("how", [
    "--q 0.01 --steps 200 --delta 1e-6",
    "--q 0.3 --steps 5 --delta 1e-5 --neighboring replace-one",
    "--q 1 --steps 100 --delta 1e-5",
    "--sampling full --steps 3 --delta 1e-5 --unit user --max-records-per-user 4",
    "--n 5000 --batch-size 100 --epochs 2 --sampling shuffle",
    "--n 5000 --batch-size 100 --epochs 2 --sampling shuffle --unit user "
    "--max-records-per-user 3",

])  # fmt: skip
@pytest.mark.parametrize("target", [0.3, 4.0])
def test_the_noise_found_never_costs_more_than_the_target(run, how, target):
    """Calibrators of other tools return noise whose epsilon is above the target."""
    line = [*how.split(), "--json"]
    found = payload(run("accountant", "noise", "--epsilon", str(target), *line))
    assert 0.99 * target <= found["epsilon"] <= target
    sigma = str(found["noise_multiplier"])
    again = payload(run("accountant", "epsilon", "--sigma", sigma, *line))
    assert again["epsilon"] <= target
    assert again == found


def test_a_lost_parameter_is_an_error_and_not_another_number(run):
    """What one option says is never silently dropped for another."""
    line = ["--sigma", "1", "--q", "0.01", "--steps", "10", "--delta", "1e-5"]
    for extra, words in (
        (["--batch-size", "5"], "--dataset-size"),
        (["--max-records-per-user", "3"], "--unit user"),
        (["--unit", "user"], "--max-records-per-user"),
        (["--epochs", "3"], "contradicts"),
        (["--mechanism", "gaussian"], "leave out --sample-rate"),
    ):
        outcome = run("accountant", "epsilon", *line, *extra)
        assert (outcome.code, outcome.out) == (2, "")
        assert words in outcome.err


def test_the_command_rests_on_public_names_only():
    """Other tools break when an accountant's inner workings move."""
    folder = Path(entry.__file__).parent / "accountant"
    found = set()
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("privfair.accounting", "privfair.auditing")
            ):
                names = {alias.name for alias in node.names} - {"events"}  # a public module
                assert names <= set(importlib.import_module(node.module).__all__), path.name
                found |= names
    assert {"guarantee", "calibrate_noise_multiplier", "one_run_audit"} <= found


# -- the other questions ------------------------------------------------------------------
@settings(max_examples=6)
@given(plan=PLANS, epsilon=st.floats(0.01, 10.0).map(lambda x: round(x, 3)))
def test_delta_is_that_of_the_accountant_rounded_up(plan, epsilon):
    found = answer("accountant", "delta", "--epsilon", str(epsilon),
                   *line_of(plan))  # fmt: skip
    event = ac.SelfComposed(ac.PoissonSampled(plan["q"], ac.Gaussian(plan["sigma"])),
                            plan["steps"])  # fmt: skip
    direct = ac.AccountedProfile(event, plan["neighboring"]).delta(epsilon)
    assert found["epsilon"] == epsilon
    assert direct <= found["delta"] <= direct * (1 + 1.1e-5) + 1e-300
    assert {"epsilon_no_amplification", "epsilon_lower", "accountant"} <= set(found)


@settings(max_examples=4)
@given(plan=PLANS, epsilon=st.sampled_from([0.5, 2.0]))
def test_steps_are_the_most_that_fit(plan, epsilon):
    line = line_of(plan | {"sigma": max(plan["sigma"], 3.0)})
    del line[line.index("--steps") : line.index("--steps") + 2]
    found = answer("accountant", "steps", "--epsilon", str(epsilon), *line,
                   "--delta", "1e-5")  # fmt: skip
    sigma = found["noise_multiplier"]
    step = ac.PoissonSampled(plan["q"], ac.Gaussian(sigma))

    def cost(count):
        event = ac.SelfComposed(step, count)
        return ac.guarantee(event, delta=1e-5, neighboring=plan["neighboring"]).epsilon

    assert found["epsilon"] <= epsilon
    assert cost(found["steps"]) <= epsilon < cost(found["steps"] + 1)


def test_steps_by_a_named_accountant_are_fewer(run):
    line = ["accountant", "steps", "--epsilon", "2", "--sigma", "2", "--q", "0.05", "--delta",
            "1e-5", "--json"]  # fmt: skip
    best, renyi = payload(run(*line)), payload(run(*line, "--accountant", "rdp"))
    assert 0 < renyi["steps"] < best["steps"]
    assert renyi["accountant"] == "rdp"
    more = ac.SelfComposed(ac.PoissonSampled(0.05, ac.Gaussian(2.0)), renyi["steps"] + 1)
    assert ac.guarantee(more, delta=1e-5, accountant="rdp").epsilon > 2


def test_a_plan_without_any_guarantee_says_so(run):
    outcome = run("accountant", "delta", "--epsilon", "0.1", "--sigma", "0.01", "--sampling",
                  "full", "--steps", "10", "--json")  # fmt: skip
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["delta"] == 1.0
    assert "promises nothing" in found["warnings"][0]


def test_users_with_several_records_cost_what_their_records_cost_together(run):
    """m records of a user in a sum move it m times as far; for one record nothing changes."""
    line = ["accountant", "epsilon", "--sigma", "6", "--sampling", "full", "--steps", "4",
            "--delta", "1e-6", "--json"]  # fmt: skip
    one = payload(run(*line))["epsilon"]
    user = ["--unit", "user", "--max-records-per-user"]
    assert payload(run(*line, *user, "1"))["epsilon"] == one
    three = payload(run(*line, *user, "3"))
    exact = ac.guarantee(ac.SelfComposed(ac.Gaussian(2.0), 4), delta=1e-6).epsilon
    assert three["epsilon"] == pytest.approx(exact, rel=1e-5)
    assert three["max_records_per_user"] == 3


def test_shuffled_and_sampled_batches_name_each_other(run):
    line = ["accountant", "epsilon", "--sigma", "1", "--n", "3200", "--batch-size", "100",
            "--epochs", "1", "--delta", "1e-5"]  # fmt: skip
    sampled = run(*line)
    assert "Holds for Poisson sampling only" in sampled.out
    found = payload(run(*line, "--json"))
    shuffled = payload(run(*line, "--sampling", "shuffle", "--json"))
    assert found["epsilon_if_shuffled"] == shuffled["epsilon"]
    assert shuffled["epsilon_poisson_if_shuffled"] == found["epsilon"]
    assert shuffled["epsilon_lower"] > found["epsilon"]


def test_the_json_has_the_same_keys_for_every_question(run):
    plan = ["--sigma", "1.1", "--q", "0.01", "--delta", "1e-5", "--json"]
    lines = {
        "epsilon": [*plan, "--steps", "9"],
        "delta": ["--epsilon", "1", "--sigma", "1.1", "--q", "0.01", "--steps", "9", "--json"],
        "noise": ["--epsilon", "1", "--q", "0.01", "--delta", "1e-5", "--steps", "9", "--json"],
        "steps": ["--epsilon", "1", *plan],
        "curve": [*plan, "--steps", "9", "--deltas", "1e-5"],
        "validate": ["--epsilon", "1", *plan, "--steps", "9"],
        "explain": ["--epsilon", "1", "--json"],
    }
    keys = [set(payload(run("accountant", name, *line))) for name, line in lines.items()]
    assert len(set.intersection(*keys)) >= 20
    assert keys[0] == keys[1] == keys[2] == keys[3] == set.intersection(*keys)


def test_the_contract_of_the_options(run):
    """The names that scripts use, with the hyphens and the mechanism's name."""
    found = payload(run(
        "accountant", "epsilon", "--mechanism", "dp-sgd", "--noise-multiplier", "1.1",
        "--sample-rate", "0.01", "--steps", "1000", "--delta", "1e-5", "--accountant", "pld",
        "--neighboring", "add-remove", "--json",
    ))  # fmt: skip
    assert (found["neighboring"], found["accountant"]) == ("add_remove", "pld")
    one = payload(run("accountant", "epsilon", "--mechanism", "gaussian", "--sigma", "2",
                      "--steps", "1", "--delta", "1e-5", "--json"))  # fmt: skip
    assert one["accountant"] == "gdp"
    assert one["epsilon"] == pytest.approx(
        ac.guarantee(ac.Gaussian(2.0), delta=1e-5).epsilon, rel=1e-5
    )
    assert math.isclose(one["sample_rate"], 1.0)


@pytest.mark.parametrize(
    ("how", "target"),
    [
        ("--sampling full --steps 7 --delta 1e-5 --accountant zcdp", 1.0),
        ("--sampling full --steps 7 --delta 1e-5 --accountant zcdp", 300.0),
        ("--n 10000 --batch-size 100 --steps 20 --sampling wor --neighboring replace-one", 1.0),
        ("--n 10000 --batch-size 100 --steps 20 --unit user --max-records-per-user 3", 1.0),
    ],
)
def test_plans_without_a_calibration_of_their_own(run, how, target):
    """The search ends near the target and never above it; steps invert it."""
    line = [*how.split(), "--json"]
    found = payload(run("accountant", "noise", "--epsilon", str(target), *line))
    assert 0.998 * target <= found["epsilon"] <= target
    at = line.index("--steps")
    sigma = str(found["noise_multiplier"])
    back = payload(run("accountant", "steps", "--epsilon", str(target), "--sigma", sigma,
                       *line[:at], *line[at + 2 :]))  # fmt: skip
    assert back["steps"] >= found["steps"]
    assert back["epsilon"] <= target


def test_a_budget_that_no_noise_meets_is_eight(run):
    outcome = run("accountant", "noise", "--epsilon", "1", "--q", "0.1", "--steps", "5", "--delta",
                  "1e-5", "--accountant", "basic")  # fmt: skip
    assert (outcome.code, outcome.out) == (2, ""), "no accountant of that name prices it"
    outcome = run("accountant", "noise", "--epsilon", "1e-9", "--sampling", "full", "--steps",
                  "100000", "--delta", "1e-5", "--accountant", "zcdp")  # fmt: skip
    assert (outcome.code, outcome.out) == (8, "")
    assert "Use another accountant" in outcome.err


VALUES = {
    "--sigma": ["1", "0", "1e-300", "1e300", "nan", "1e-9", "1e12", "x", "2.5"],
    "--q": ["0.1", "1", "0", "2", "1e-12", "nan"],
    "--n": ["1000", "1", "0", "1e18", "-5", "3.5"],
    "--batch-size": ["10", "1000", "100000"],
    "--steps": ["3", "0", "1e6", "-1", "1.5"],
    "--epochs": ["2", "0.001", "-1", "1e-300", "1e300"],
    "--delta": ["1e-5", "0", "1", "1e-300", "0.5", "1e-13"],
    "--epsilon": ["1", "0", "1e-12", "1e6", "inf"],
    "--unit": ["record", "user", "client"],
    "--max-records-per-user": ["1", "3"],
    "--neighboring": ["zero_out", "add-remove", "replace_one", "none"],
    "--sampling": ["poisson", "shuffle", "full"],
    "--accountant": ["best", "rdp", "zcdp", "gdp", "basic"],
    "--deltas": ["1e-5", "1e-3,1e-6", "", "2"],
    "--prior": ["0.5", "1", "x"],
}


BASE = {
    "epsilon": {"--sigma": "1", "--q": "0.1", "--steps": "3", "--delta": "1e-5"},
    "delta": {"--sigma": "1", "--q": "0.1", "--steps": "3", "--epsilon": "1"},
    "noise": {"--q": "1", "--steps": "3", "--delta": "1e-5", "--epsilon": "1"},
    "steps": {"--sigma": "20", "--q": "1", "--delta": "1e-5", "--epsilon": "1"},
    "validate": {"--sigma": "1", "--q": "0.1", "--steps": "3", "--delta": "1e-5",
                 "--epsilon": "1"},
    "curve": {"--sigma": "1", "--q": "0.1", "--steps": "3", "--deltas": "1e-5"},
    "explain": {"--epsilon": "1"},
}  # fmt: skip


@settings(max_examples=60)
@given(
    command=st.sampled_from(sorted(BASE)),
    changed=st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(0, 8), max_size=3),
)
def test_no_options_end_in_a_traceback(command, changed):
    """With the bodies in: each line ends with an answer, or with one reason on stderr."""
    options = {name: VALUES[name][k % len(VALUES[name])] for name, k in changed.items()}
    line = ["accountant", command, "--json"]
    for name, value in (BASE[command] | options).items():
        line += [name, value]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = entry.run(line)
    assert code in (0, 2, 5, 8), (line, err.getvalue())
    assert "defect" not in err.getvalue(), line
    if out.getvalue():
        json.loads(out.getvalue(), parse_constant=pytest.fail)
    else:
        assert sum(text.startswith("error: ") for text in err.getvalue().splitlines()) == 1


def test_a_printed_delta_is_never_below_the_one_computed(run):
    profile = ac.AccountedProfile(ac.SelfComposed(ac.Gaussian(4.0), 3))
    for epsilon in (0.3, 0.7, 1.1, 1.9, 2.3):
        found = payload(run("accountant", "delta", "--epsilon", str(epsilon), "--sigma", "4",
                            "--sampling", "full", "--steps", "3", "--json"))  # fmt: skip
        assert found["delta"] >= profile.delta(epsilon)
