"""``privfair data``: what it prints and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRIVFAIR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PRIVFAIR_OFFLINE", "1")
    monkeypatch.delenv("PRIVFAIR_DATA_DIR", raising=False)


@pytest.fixture
def german(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up file in the place of `german.data`, registered as it is."""
    import hashlib
    from dataclasses import replace

    from privfair.datasets import _registry

    content = b"A11 6 made-up\n"
    folder = tmp_path / "data"
    (folder / "german").mkdir(parents=True)
    (folder / "german" / "german.data").write_bytes(content)
    version, specs = _registry._registry()
    file = replace(
        specs["german"].files["main"], size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    changed = {**specs, "german": replace(specs["german"], files={"main": file})}
    monkeypatch.setattr(_registry, "_registry", lambda: (version, changed))
    return folder


def test_list(run: Run, german: Path) -> None:
    outcome = run("data", "list", "--data-home", str(german), "--json")
    payload = json.loads(outcome.out)
    states = {entry["name"]: entry["state"] for entry in payload["datasets"]}
    assert len(states) == 8
    assert states["german"] == "found"
    assert states["bank"] == "absent"
    assert payload["searched"][0] == str(german)
    human = run("data", "list", "--data-home", str(german))
    assert (human.code, human.err) == (0, "")
    assert "German Credit" in human.out
    assert "CC BY 4.0" in human.out


def test_info(run: Run, german: Path) -> None:
    outcome = run("data", "info", "german", "--data-home", str(german))
    assert outcome.code == 0
    for part in ("not reliable", "sha256", "archive.ics.uci.edu", "ok: ", "10.24432/C5NC77"):
        assert part in outcome.out
    payload = json.loads(run("data", "info", "compas", "--json").out)
    assert payload["files"][0]["status"] == "absent"
    assert payload["license"].startswith("none stated")
    assert "R package" in run("data", "info", "motor").out


def test_info_schema_is_toml(run: Run) -> None:
    from privfair.core.schema import Schema
    from privfair.datasets._schemas import adult_schema

    text = run("data", "info", "adult", "--schema").out
    assert Schema.from_toml(text) == adult_schema()
    payload = json.loads(run("data", "info", "adult", "--schema", "--json").out)
    assert Schema.from_dict(payload["schema"]) == adult_schema()


@pytest.mark.parametrize("action", ["info", "fetch", "verify"])
def test_unknown_name(run: Run, action: str) -> None:
    outcome = run("data", action, "adlut")
    assert outcome.code == 2
    assert "Did you mean 'adult'" in outcome.err
    assert outcome.out == ""


def test_verify(run: Run, german: Path) -> None:
    home = ("--data-home", str(german))
    assert run("data", "verify", "german", *home).code == 0
    assert run("data", "verify", *home).code == 0, "what is absent is no error unless named"
    absent = run("data", "verify", "bank", *home)
    assert absent.code == 3
    assert "bank/bank-full.csv was not found" in absent.err
    path = german / "german" / "german.data"
    path.write_bytes(b"A11 6 altered\n")
    for name in (("german",), ()):
        wrong = run("data", "verify", *name, *home)
        assert wrong.code == 4
        assert "actual sha256" in wrong.err
        assert "mismatch" in wrong.out
    payload = json.loads(run("data", "verify", "german", *home, "--json").out)
    assert payload["ok"] is False
    assert payload["files"][0]["status"] == "mismatch"
    assert payload["files"][0]["path"] == str(path)


def test_fetch_offline(run: Run, tmp_path: Path) -> None:
    outcome = run("data", "fetch", "adult", "--to", str(tmp_path / "new"))
    assert outcome.code == 3
    assert "PRIVFAIR_OFFLINE is set" in outcome.err
    assert outcome.out == ""


def test_fetch_what_is_there(run: Run, german: Path) -> None:
    outcome = run("data", "fetch", "german", "--to", str(german))
    assert outcome.code == 0
    assert outcome.out.strip() == str(german / "german" / "german.data")
    (german / "german" / "german.data").write_bytes(b"altered")
    assert run("data", "fetch", "german", "--to", str(german)).code == 4


def test_fetch_without_pooch(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.delenv("PRIVFAIR_OFFLINE")
    monkeypatch.setitem(sys.modules, "pooch", None)
    outcome = run("data", "fetch", "adult", "--to", str(tmp_path))
    assert outcome.code == 7
    assert "privfair[data]" in outcome.err


def test_fetch_to_a_file_or_dry(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert run("data", "fetch", "adult", "--to", str(tmp_path / "file")).code == 2
    outcome = run("data", "fetch", "adult", "--to", str(tmp_path / "new"), "--dry-run", "--json")
    assert outcome.code == 0
    assert [f["file"] for f in json.loads(outcome.out)["files"]] == [
        "adult.data", "adult.test", "adult.names",
    ]  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_fetch_of_what_is_never_downloaded(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PRIVFAIR_OFFLINE")
    outcome = run("data", "fetch", "motor", "--to", str(tmp_path))
    assert outcome.code == 3
    assert "never downloaded by privfair" in outcome.err
