"""Run the command line in this process or in its own, and plant a command that misbehaves."""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from privfair.cli import main as entry
from privfair.cli._common import FiniteFloat, example, output

ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run in this process."""

    def call(*args: str) -> Outcome:
        capsys.readouterr()
        code = entry.run(args)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def spawn(*args: str, cwd: Path | str, **environment: str) -> Outcome:
    """Run in a process of its own, with nothing but the given environment."""
    done = subprocess.run(
        [sys.executable, "-m", "privfair", *args],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=800,
        check=False,
    )
    return Outcome(
        done.returncode,
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
    )


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A command group `probe` whose command `go` does what the test puts into `action`."""
    control = types.SimpleNamespace(action=lambda **_: output({"done": True}, "done"))

    @click.group()
    def command() -> None:
        """Probe."""

    @command.command()
    @click.option("--epsilon", type=FiniteFloat(0, low_open=True, allow_inf=True))
    @click.option("--label", default="")
    @example("privfair probe go")
    def go(epsilon: float | None, label: str) -> None:
        """Do what the test says."""
        control.action(epsilon=epsilon, label=label)

    module = types.ModuleType("privfair.cli.probe")
    module.__spec__ = importlib.machinery.ModuleSpec("privfair.cli.probe", None)
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "privfair.cli.probe", module)
    monkeypatch.setitem(entry.COMMANDS, "probe", "A planted command.")
    return control
