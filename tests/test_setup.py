"""The Makefile: which Python, which data, and the two commands of the README."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(
        ["make", "--no-print-directory", *args], cwd=cwd, env=env, capture_output=True,
        text=True, timeout=800, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile and a target that shows what commands would see."""
    folder = tmp_path / "a project"
    folder.mkdir()
    text = (ROOT / "Makefile").read_text("utf-8")
    text += '\nshow:\n\t@echo "[$${PRIVFAIR_DATA_DIR-unset}]"\n'
    (folder / "Makefile").write_text(text)
    return folder


@pytest.mark.parametrize("python", ["old", "absent"])
def test_an_unfit_python_is_named(project: Path, python: str) -> None:
    program = project / "python-of-yore"
    if python == "old":
        program.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.1"\nexit 1\n')
        program.chmod(0o755)
    done = make(f"PYTHON={program}", ".venv/bin/python", cwd=project)
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert ("Python 3.9.1" in done.stderr) == (python == "old")
    assert not (project / ".venv").exists()


def test_without_real_data_nothing_is_exported(project: Path) -> None:
    assert make("show", cwd=project).stdout == "[unset]\n"
    assert make("show", cwd=project, PRIVFAIR_DATA_DIR="/nowhere").stdout == "[unset]\n"
    assert make("show", cwd=project, PRIVFAIR_DATA_DIR="").stdout == "[unset]\n"


def test_the_folder_data_is_found(project: Path) -> None:
    (project / "data").mkdir()
    assert make("show", cwd=project).stdout == f"[{project / 'data'}]\n"


def test_the_environment_wins(project: Path, tmp_path: Path) -> None:
    (project / "data").mkdir()
    (tmp_path / "else where").mkdir()
    done = make("show", cwd=project, PRIVFAIR_DATA_DIR=str(tmp_path / "else where"))
    assert done.stdout == f"[{tmp_path / 'else where'}]\n"


def test_the_help_lists_the_targets() -> None:
    listed = make("help", cwd=ROOT).stdout
    for target in ("audit", "test", "test-all", "lint", "docs", "bench", "mutants", "clean"):
        assert f"\n{target} " in f"\n{listed}"


def test_installing_is_not_repeated(project: Path) -> None:
    """A stamp newer than what it installs means that there is nothing to do."""
    (project / ".venv" / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", ".venv/bin/python"):
        (project / name).write_text("")
    assert "pip install" in make("-n", "install", cwd=project).stdout
    (project / ".venv" / ".installed").write_text("")
    assert "pip install" not in make("-n", "install", cwd=project).stdout
    changed = project / "constraints.txt"
    later = (project / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(changed, (later, later))
    assert "pip install" in make("-n", "install", cwd=project).stdout
