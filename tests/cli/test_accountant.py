"""``privfair accountant``: numbers on the safe side, a statement that hides nothing."""

import json

import pytest

from privfair import accounting as ac

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
    assert found["epsilon_lower"] is None
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
