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


# -- head, remaining, export --------------------------------------------------------------------
def test_head_is_what_verify_compares_with(run, path):
    head = run("ledger", "head", str(path)).out.strip()
    count, digest = ac.Ledger.open(path).head()
    assert head == f"{count}:{digest}"
    assert json.loads(run("ledger", "head", str(path), "--json").out) == {
        "rows": count, "hash": digest, "head": head,
    }  # fmt: skip
    with ac.Ledger.open(path).spend(ac.PureDP(0.1)):
        pass
    assert run("ledger", "verify", str(path), "--head", head).code == 0
    assert run("ledger", "head", str(path)).out.strip() != head


def test_a_lost_row_is_seen_with_the_stored_head_only(run, path):
    head = run("ledger", "head", str(path)).out.strip()
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER log_no_delete")
    raw.execute("DELETE FROM log WHERE id = 5")
    raw.commit()
    raw.close()
    assert run("ledger", "verify", str(path)).code == 0
    outcome = run("ledger", "verify", str(path), "--head", head)
    assert outcome.code == 4
    assert "rows 5 to 5 were cut off" in outcome.err


def test_what_is_left_is_rounded_down_and_what_is_spent_up(run, tmp_path):
    path = tmp_path / "thirds.db"
    ledger = ac.Ledger(path, cap=Budget(1.0, 1e-5))
    ledger.set_cap(Budget(0.5, 1e-5), purpose="training")
    with ledger.spend(ac.PureDP(1 / 3), purpose="training"):
        pass
    assert run("ledger", "remaining", str(path)).out.splitlines() == [
        "remaining  epsilon = 0.6666, delta = 1e-05", "spent      epsilon = 0.3334, delta = 0",
    ]  # fmt: skip
    narrow = run("ledger", "remaining", str(path), "--purpose", "training")
    assert narrow.out.splitlines()[0] == "remaining  epsilon = 0.1666, delta = 1e-05"
    found = json.loads(run("ledger", "remaining", str(path), "--json").out)
    assert found["remaining"] == {"epsilon": 1 - 1 / 3, "delta": 1e-5}
    assert found["spent"]["epsilon"] == 1 / 3
    assert "epsilon = 0.3334" in run("ledger", "show", str(path)).out
    ac.Ledger(tmp_path / "free.db")
    assert "remaining  no limit" in run("ledger", "remaining", str(tmp_path / "free.db")).out


CANARY = "canary7f3a"


def test_an_export_holds_no_path_no_key_and_nothing_else_of_the_file(run, tmp_path):
    """Canaries in the folder's and the file's name, the key, its file, and the file's header."""
    folder = tmp_path / f"folder-{CANARY}"
    folder.mkdir()
    path, key = folder / f"{CANARY}.db", secrets.token_bytes(32)
    key_file = folder / f"key-{CANARY}"
    key_file.write_text(key.hex())
    ledger = ac.Ledger(path, cap=Budget(3.0, 1e-5), dataset_id="patients", hmac_key=key,
                       analyst="ana")  # fmt: skip
    with ledger.spend(ac.Gaussian(20.0), purpose="histogram"):
        pass
    ledger.set_cap(Budget(2.0, 1e-5), purpose="histogram", reason="agreed")
    ledger._log.header["digest"] = CANARY  # whatever else a header may hold one day
    texts = [json.dumps(ledger.export())]
    for kind in ("json", "csv"):
        asked = ("ledger", "export", str(path), "--format", kind, "--key-file", str(key_file))
        outcome = run(*asked)
        assert outcome.code == 0
        target = tmp_path / f"out.{kind}"
        assert run(*asked, "--output", str(target)).code == 0
        assert target.read_text() == outcome.out.replace("\r\n", "\n") or kind == "csv"
        texts += [outcome.out, target.read_text()]
    for text in texts:
        assert "histogram" in text
        for secret in (CANARY, key.hex(), str(tmp_path), repr(key)):
            assert secret not in text


def test_an_export_as_csv_starts_no_formula_and_steers_no_terminal(run, tmp_path):
    import csv
    import io

    path = tmp_path / "l.db"
    evil = ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1",
            "\uff1d1", "two\nlines",
            "a\x1b]0;title\x07b", "\u202e=1", "all, with \"quotes\""]  # fmt: skip
    ledger = ac.Ledger(path)
    for text in evil:
        with ledger.spend(ac.PureDP(0.1), purpose=text, label=text, analyst=text):
            pass
    out = run("ledger", "export", str(path), "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == len(evil)
    for row in rows:
        for cell in row.values():
            assert cell.lstrip(" ")[:1] not in set("=+-@\t\r\uff1d")
            assert not set(cell) & set("\x1b\x07\u202e\r")
    assert rows[0]["purpose"] == "'" + evil[0]
    assert rows[-1]["purpose"] == evil[-1]
    assert json.loads(rows[0]["parameters"])["kind"] == rows[0]["event"] == "PureDP"
    assert rows[0]["epsilon"] == "0.1"
    assert "\x1b" not in run("ledger", "export", str(path)).out


def test_an_export_never_overwrites_the_ledger(run, path, tmp_path):
    before = path.read_bytes()
    assert run("ledger", "export", str(path), "--output", str(path)).code == 2
    assert run("ledger", "export", str(path), "--output", str(tmp_path)).code == 2
    assert run("ledger", "export", str(path), "--format", "csv", "--json").code == 2
    assert path.read_bytes() == before


# -- caps ---------------------------------------------------------------------------------------
def test_caps_are_shown_set_added_and_removed(run, path):
    assert run("ledger", "cap", "add", str(path), "--purpose", "model", "--epsilon", "1",
               "--delta", "2e-6", "--reason", "agreed").code == 0  # fmt: skip
    assert run("ledger", "cap", "set", str(path), "--epsilon", "2.5", "--delta", "1e-5").code == 0
    found = json.loads(run("ledger", "cap", "show", str(path), "--json").out)
    assert [(c["scope"], c["name"], c["cap"]["epsilon"]) for c in found["caps"]] == [
        ("dataset", "", 2.5), ("purpose", "model", 1.0),
    ]  # fmt: skip
    assert [change["raised"] for change in found["changes"]] == [False, False]
    shown = run("ledger", "cap", "show", str(path)).out
    assert "agreed" in shown
    assert "model" in run("ledger", "show", str(path)).out
    refused = run("ledger", "cap", "set", str(path), "--epsilon", "4", "--delta", "1e-5")
    assert refused.code == 2
    assert "--allow-raise" in refused.err
    assert "reason" in run("ledger", "cap", "set", str(path), "--epsilon", "4", "--allow-raise",
                           "--delta", "1e-5").err  # fmt: skip
    raised = run("ledger", "cap", "set", str(path), "--epsilon", "4", "--delta", "1e-5",
                 "--allow-raise", "--reason", "board", "--json")  # fmt: skip
    assert raised.code == 0
    assert json.loads(raised.out)["cap"]["cap"]["epsilon"] == 4.0
    gone = run("ledger", "cap", "remove", str(path), "--purpose", "model", "--allow-raise",
               "--reason", "study ended", "--json")  # fmt: skip
    assert json.loads(gone.out)["cap"] is None
    assert json.loads(gone.out)["changed"] is True
    again = run("ledger", "cap", "remove", str(path), "--purpose", "model", "--json")
    assert json.loads(again.out)["changed"] is False
    assert run("ledger", "verify", str(path)).code == 0
    assert ac.Ledger.open(path).cap == Budget(4.0, 1e-5)


@pytest.mark.parametrize(
    "words",
    [
        ("add", "--epsilon", "1"),
        ("add", "--epsilon", "1", "--purpose", "a", "--analyst", "b"),
        ("add", "--epsilon", "nan", "--purpose", "a"),
        ("set", "--epsilon", "-1"),
        ("set", "--epsilon", "1", "--delta", "1"),
        ("add", "--epsilon", "1", "--purpose", ""),
    ],
)
def test_bad_changes_of_caps(run, path, words):
    head = ac.Ledger.open(path).head()
    assert run("ledger", "cap", words[0], str(path), *words[1:]).code == 2
    assert ac.Ledger.open(path).head() == head


def test_a_ledger_with_a_plan(run, tmp_path):
    path = tmp_path / "plan.db"
    assert run("ledger", "init", str(path), "--epsilon", "2", "--delta", "1e-6", "--mode",
               "plan").code == 0  # fmt: skip
    ledger = ac.Ledger.open(path)
    ledger.plan(ac.SelfComposed(ac.Gaussian(30.0), 4), purpose="study")
    with ledger.spend(ac.Gaussian(30.0), purpose="first"):
        pass
    shown = run("ledger", "show", str(path)).out
    assert "plan       row 2" in shown
    assert "3 x Gaussian(sigma=30)" in shown
    found = json.loads(run("ledger", "show", str(path), "--json").out)
    assert found["plan"]["left"] == [{"event": ac.Gaussian(30.0).to_dict(), "count": 3}]
    assert found["spent"]["epsilon"] == found["plan"]["epsilon"]


def test_a_network_mount_is_said(run, path, monkeypatch):
    from privfair.core import log

    monkeypatch.setattr(log, "network_kind", lambda _: "nfs4")
    outcome = run("ledger", "show", str(path))
    assert outcome.code == 0
    assert "network mount (nfs4)" in outcome.err
    assert "DELETE" in outcome.err
    assert run("ledger", "show", str(path), "--quiet").err == ""
