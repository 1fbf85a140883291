"""``privfair ledger``: what was spent is shown, what was altered is named with exit code 4."""

import json
import secrets
import sqlite3

import pytest

from privfair import accounting as ac
from privfair.core import Budget


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger of a study.db"
    ledger = ac.Ledger(path, cap=Budget(3.0, 1e-5), dataset_id="patients")
    with ledger.spend(ac.DiscreteGaussian(20.0), purpose="histogram of \x1b[31mage"):
        pass
    with ledger.spend([ac.PureDP(0.5), ac.Gaussian(30.0)], purpose="model", delta=1e-6):
        pass
    return path


def tamper(path):
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER log_no_update")
    raw.execute("UPDATE log SET body = replace(body, 'model', 'modem') WHERE id = 4")
    raw.commit()
    raw.close()


def test_show(run, path):
    outcome = run("ledger", "show", str(path))
    assert outcome.code == 0
    for words in (
        "patients",
        "zero_out",
        "released",
        "remaining",
        "cap        epsilon = 3, delta = 1e-05",
    ):
        assert words in outcome.out
    assert "\x1b" not in outcome.out
    assert "histogram" in "".join(outcome.out.split())
    found = json.loads(run("ledger", "show", str(path), "--json").out)
    assert [entry["state"] for entry in found["entries"]] == ["released", "released"]
    assert found["entries"][1]["event"]["kind"] == "Composed"
    assert found["cap"] == {"epsilon": 3.0, "delta": 1e-5}
    assert found["spent"]["epsilon"] + found["remaining"]["epsilon"] == pytest.approx(3.0)
    assert found["head"][0] == 5


def test_show_rounds_to_the_safe_side(run, path):
    spent = ac.Ledger.open(path).spent().epsilon
    line = next(line for line in run("ledger", "show", str(path)).out.splitlines()
                if line.startswith("spent"))  # fmt: skip
    printed = float(line.split("epsilon = ")[1].split(",")[0])
    assert spent <= printed <= spent * 1.001


def test_verify_and_head(run, path):
    outcome = run("ledger", "verify", str(path))
    assert outcome.code == 0
    assert "store the head elsewhere" in outcome.err
    head = outcome.out.split("head ")[1].strip()
    assert run("ledger", "verify", str(path), "--head", head).code == 0
    found = json.loads(run("ledger", "verify", str(path), "--head", head, "--json").out)
    assert found == {
        "ok": True, "rows": 5, "hash": head.split(":")[1], "head": head,
        "compared_with_head": True,
    }  # fmt: skip
    later = f"9:{'a' * 64}"
    cut = run("ledger", "verify", str(path), "--head", later)
    assert cut.code == 4
    assert "cut off" in cut.err
    other = run("ledger", "verify", str(path), "--head", f"3:{'a' * 64}")
    assert other.code == 4
    assert "row 3" in other.err
    for bad in ("3", "x:y", "3:abc"):
        assert run("ledger", "verify", str(path), "--head", bad).code == 2


def test_an_altered_ledger_ends_with_4_and_names_the_row(run, path):
    tamper(path)
    for what in ("verify", "show"):
        outcome = run("ledger", what, str(path))
        assert outcome.code == 4
        assert "row 4 of" in outcome.err
        assert outcome.out == ""


def test_files_that_are_no_ledgers(run, tmp_path):
    assert run("ledger", "show", str(tmp_path / "none.db")).code == 4
    assert not (tmp_path / "none.db").exists()
    text = tmp_path / "text.db"
    text.write_text("not a ledger" * 500)
    assert run("ledger", "verify", str(text)).code == 4
    newer = tmp_path / "newer.db"
    ac.Ledger(newer)
    raw = sqlite3.connect(newer)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    outcome = run("ledger", "show", str(newer))
    assert outcome.code == 4
    assert "version 99" in outcome.err


def test_init_and_keys(run, tmp_path):
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    path = tmp_path / "new.db"
    made = run("ledger", "init", str(path), "--epsilon", "2", "--delta", "1e-6",
               "--dataset-id", "x", "--key-file", str(key), "--json")  # fmt: skip
    assert made.code == 0
    assert json.loads(made.out)["cap"] == {"epsilon": 2.0, "delta": 1e-6}
    assert run("ledger", "verify", str(path), "--key-file", str(key)).code == 0
    assert run("ledger", "show", str(path)).code == 0
    without = run("ledger", "verify", str(path))
    assert without.code == 4
    assert "needs the key" in without.err
    again = run("ledger", "init", str(path), "--epsilon", "2")
    assert again.code == 2
    assert "never overwritten" in again.err
    key.write_text("no hexadecimal")
    assert run("ledger", "verify", str(path), "--key-file", str(key)).code == 2


def test_a_ledger_without_guarantee_says_so(run, tmp_path):
    path = tmp_path / "raw.db"
    ac.Ledger(path).record_non_private(purpose="raw report")
    outcome = run("ledger", "show", str(path))
    assert "NO GUARANTEE: non_private" in outcome.out
    assert json.loads(run("ledger", "show", str(path), "--json").out)["spent"]["epsilon"] == "inf"
