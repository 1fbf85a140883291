"""The doctor notices each kind of illness."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from privfair.cli import doctor
from privfair.cli.doctor import Check

Run = Callable[..., Any]


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the areas that import torch and cvxpy, but in the test of the whole."""
    light = tuple(a for a in doctor._AREAS if a.__name__ not in {"_solvers", "_devices"})
    monkeypatch.setattr(doctor, "_AREAS", light)


def test_a_healthy_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    outcome = run("doctor", "--json")
    payload = json.loads(outcome.out)
    assert outcome.code == 0
    assert payload["status"] == "ok"
    areas = {check["area"] for check in payload["checks"]}
    assert areas >= {
        "environment", "packages", "solvers", "devices", "data", "ledger", "randomness",
    }  # fmt: skip
    assert {check["status"] for check in payload["checks"]} <= {"ok", "note"}


def test_the_table_names_every_check(run: Run) -> None:
    outcome = run("doctor")
    assert outcome.code == 0
    assert "All requirements are met." in outcome.out
    for check in doctor.examine():
        assert check.name in outcome.out


def test_a_missing_package_is_seven(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "scipy" else real(name))
    outcome = run("doctor", "--json")
    assert outcome.code == 7
    checks = {check["name"]: check for check in json.loads(outcome.out)["checks"]}
    assert checks["scipy"]["status"] == "missing"
    assert "scipy>=" in checks["scipy"]["detail"]
    assert "1 requirement(s) missing" in run("doctor").out


def test_a_version_below_the_bound_is_seven_and_another_than_the_pin_a_note(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = doctor._installed
    odd = {"numpy": "1.0.0", "scipy": "1.99.0"}
    monkeypatch.setattr(doctor, "_installed", lambda name: odd.get(name) or real(name))
    checks = by_name(doctor.examine())
    assert checks["numpy"].status == "missing"
    assert checks["scipy"].status == "note"
    assert "verified with" in checks["scipy"].detail
    assert run("doctor").code == 7


def test_a_missing_extra_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    checks = by_name(doctor.examine())
    assert checks["[data]"].status == "note"
    assert "pip install 'privfair[data]'" in checks["[data]"].detail
    assert "[dev]" not in checks


@pytest.mark.parametrize("source", ["constant", "biased"])
def test_a_bad_source_of_randomness_is_seven(
    run: Run, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    real = doctor.os.urandom
    values = iter([b"\x55", b"\x55"] if source == "constant" else [b"\xff", b"\xfe"])

    def urandom(n: int) -> bytes:
        value = next(values, None)
        return real(n) if value is None else value * n

    with monkeypatch.context() as context:
        context.setattr(doctor.os, "urandom", urandom)
        checks = list(doctor._randomness())
    assert checks[0].status == "missing"
    assert "do not release" in checks[0].detail
    monkeypatch.setattr(doctor, "_AREAS", (lambda: iter(checks),))
    assert run("doctor").code == 7


def test_a_fair_source_passes_a_hundred_times() -> None:
    for _ in range(100):
        assert [check.status for check in doctor._randomness()] == ["ok", "ok"]


def test_a_repeating_secret_stream_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def bytes(self, n: int) -> bytes:
            return b"x" * n

    monkeypatch.setattr("privfair.core.randomness.secret_stream", Stuck)
    assert doctor._secret_stream().status == "missing"


def test_a_check_that_falls_over_is_a_finding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken() -> Iterator[Check]:
        raise RuntimeError("private text")

    monkeypatch.setattr(doctor, "_AREAS", (_broken,))
    outcome = run("doctor", "--json")
    assert outcome.code == 7
    assert "RuntimeError" in outcome.out
    assert "private text" not in outcome.out


@pytest.mark.parametrize("state", ["unset", "missing", "present"])
def test_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str) -> None:
    if state == "unset":
        monkeypatch.delenv("PRIVFAIR_DATA_DIR", raising=False)
    else:
        folder = tmp_path if state == "present" else tmp_path / "nowhere"
        monkeypatch.setenv("PRIVFAIR_DATA_DIR", str(folder))
    check = by_name(list(doctor._data()))["PRIVFAIR_DATA_DIR"]
    assert check.status == ("ok" if state == "present" else "note")


def test_the_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privfair.datasets.is_available", lambda name: name == "german")
    found = by_name(list(doctor._known_sets()))
    assert found["german"].status == "ok"
    assert (found["adult"].status, "embedded" in found["adult"].detail) == ("note", True)
    assert (found["bank"].status, "data info bank" in found["bank"].detail) == ("note", True)
