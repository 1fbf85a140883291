"""Killed at any moment, the ledger over-counts and never under-counts."""

import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("_kill_writers.py")
EPSILON = 1e-4


def kill(tmp_path, kills, seed, script=SCRIPT):
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "l.db"), str(tmp_path / "draws"),
         str(kills), str(seed)],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True,
        timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found):
    for after in found:
        assert after["signal"] == signal.SIGKILL
        assert after["uncharged"] == 0, "a draw without a charge"
        assert after["released_unseen"] == 0, "noted as released before the draw"
        assert after["released"] <= after["draws"] <= after["charges"]
        assert after["spent"] >= EPSILON * after["draws"] * (1 - 1e-9)
    assert all(later["spent"] >= sooner["spent"] for sooner, later in pairwise(found))
    # Each kill leaves at most one charge that was not drawn.
    assert found[-1]["charges"] - found[-1]["draws"] <= len(found)


def test_fifty_kills(tmp_path):
    found = kill(tmp_path, 50, seed=1)
    check(found)
    assert len(found) == 50
    assert found[-1]["draws"] > 25, "the writers were killed before they did anything"
    # Some kill must have come between charge and draw or release, or the test says nothing.
    assert found[-1]["charges"] > found[-1]["released"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_a_thousand_kills(tmp_path, seed):
    found = kill(tmp_path, 250, seed)
    check(found)


def test_a_ledger_that_charges_after_the_draw_is_caught(tmp_path):
    """The check can fail: the same run with the charge moved behind the draw."""
    text = SCRIPT.read_text()
    good = text[text.index("        with ledger.spend") : text.index("\n\n\ndef one_charge")]
    bad = (
        "        number = ledger.head()[0] + 1\n"
        "        os.write(file, f'{number}\\n'.encode())\n"
        "        os.write(ready, b'!')\n"
        "        with ledger.spend(PureDP(EPSILON), purpose='draw'):\n"
        "            pass"
    )
    assert good in text
    script = tmp_path / "late.py"
    script.write_text(text.replace(good, bad))
    with pytest.raises(AssertionError, match="without a charge"):
        check(kill(tmp_path, 50, seed=1, script=script))
