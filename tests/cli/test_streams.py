"""Streams, colours, widths, code pages, odd folders: the command line as a process."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from privfair.cli import _console

ROOT = Path(__file__).resolve().parents[2]
# A small command in a process of its own, printing what people and pipes have trouble with.
SCRIPT = """
import sys, types, importlib.machinery, click
from privfair.cli import main as entry
from privfair.cli._common import output, note, progress
@click.command()
def command():
    "Probe."
    from rich.table import Table
    from rich.text import Text
    table = Table("group", "rate \\u2264")
    table.add_row(Text("\\u00c5sa", style="bold red"), "0.5 \\u00b1 0.1")
    with progress("working", 3) as advance:
        for _ in range(3):
            advance(status="epsilon 1")
    note("a note")
    output({"rate": 0.5, "name": "\\u00c5sa"}, table)
module = types.ModuleType("privfair.cli.probe")
module.__spec__ = importlib.machinery.ModuleSpec("privfair.cli.probe", None)
module.command = command
sys.modules["privfair.cli.probe"] = module
entry.COMMANDS["probe"] = "Probe."
entry.main()
"""


def start(
    *args: str, cwd: Path | str = ROOT, stdout: int = subprocess.PIPE, **env: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *args], cwd=cwd, stdout=stdout, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=800)
    return process.returncode, out, err


def on_a_terminal(*args: str, **env: str) -> str:
    """Return what a person at a terminal sees."""
    ours, theirs = pty.openpty()
    process = start(*args, stdout=theirs, **env)
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 800)[0]:
        try:
            block = os.read(ours, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not block:
            break
        seen += block
    os.close(ours)
    _, err = process.communicate(timeout=800)
    assert process.returncode == 0, err
    return seen.decode("utf-8")


def test_a_terminal_gets_colours_and_a_pipe_does_not() -> None:
    assert "\x1b[" in on_a_terminal("probe", TERM="xterm-256color")
    code, out, _ = finish(start("probe", TERM="xterm-256color"))
    assert code == 0
    assert b"\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("--no-color",), {}),
        ((), {"NO_COLOR": "1"}),
        ((), {"TERM": "dumb"}),
        ((), {"NO_COLOR": "1", "FORCE_COLOR": "1"}),
        (("--no-color",), {"FORCE_COLOR": "1"}),
    ],
)
def test_who_wants_no_colours_gets_none(
    arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    seen = on_a_terminal("probe", *arguments, **{"TERM": "xterm", **environment})
    assert "\x1b" not in seen
    assert "Åsa" in seen


def test_force_color_colours_a_pipe() -> None:
    _, out, _ = finish(start("probe", FORCE_COLOR="1"))
    assert b"\x1b[" in out


def test_json_is_never_coloured_and_alone_on_stdout() -> None:
    seen = on_a_terminal("probe", "--json", TERM="xterm", FORCE_COLOR="1")
    assert json.loads(seen) == {"rate": 0.5, "name": "Åsa"}
    code, out, err = finish(start("probe", "--json"))
    assert code == 0
    assert json.loads(out) == {"rate": 0.5, "name": "Åsa"}
    assert err == b"a note\n"


def test_columns_sets_the_width() -> None:
    for columns in (60, 100):
        process = subprocess.run(
            [sys.executable, "-m", "privfair", "doctor"], cwd=ROOT, capture_output=True,
            text=True, check=True, timeout=800,
            env={"PATH": os.environ["PATH"], "COLUMNS": str(columns)},
        )  # fmt: skip
        widest = max(len(line.rstrip()) for line in process.stdout.splitlines())
        assert widest <= columns
    assert widest > 60


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_a_code_page_without_the_character_is_no_error(encoding: str) -> None:
    code, out, err = finish(start("probe", PYTHONIOENCODING=encoding, PYTHONUTF8="0"))
    assert code == 0, err
    assert b"group" in out
    code, out, _ = finish(start("probe", "--json", PYTHONIOENCODING=encoding, PYTHONUTF8="0"))
    assert code == 0
    assert json.loads(out)["name"] == "Åsa"


def test_a_broken_pipe_is_silent() -> None:
    for arguments in (["probe"], ["probe", "--json"], ["--help"]):
        read, write = os.pipe()
        process = start(*arguments, "-q", stdout=write)
        os.close(write)
        os.close(read)
        _, err = process.communicate(timeout=800)
        assert err == b""
        assert process.returncode == 141


def test_a_bar_appears_only_on_a_terminal_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(_console, "monotonic", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    for terminal, seconds, shown in ((True, 3.0, True), (True, 1.0, False), (False, 3.0, False)):
        now[0] = 0.0
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with _console.progress("training", 2) as advance:
            now[0] = seconds
            advance(status="epsilon 0.5")
            advance()
        captured = capsys.readouterr()
        assert captured.out == ""
        assert ("training" in captured.err) == shown


# -- odd places -----------------------------------------------------------------------------
def test_a_folder_with_a_space_an_umlaut_and_an_empty_home(tmp_path: Path) -> None:
    folder = tmp_path / "mein Büro"
    folder.mkdir()
    code, out, err = finish(start("doctor", "--json", cwd=folder, HOME=str(tmp_path / "nobody")))
    assert code == 0, err
    assert list(folder.iterdir()) == [], "doctor leaves nothing behind"
    assert any("mein B" in check["detail"] for check in json.loads(out)["checks"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write")
def test_a_folder_that_cannot_be_written() -> None:
    """Not even by root, as whom containers run."""
    code, out, _ = finish(start("doctor", "--json", cwd="/proc"))
    assert code == 0
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert found["current folder"]["status"] == "note"
    assert "--ledger" in found["current folder"]["detail"]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n" + SCRIPT
    process = subprocess.run(
        [sys.executable, "-c", script, "probe"], cwd=ROOT, capture_output=True,
        text=True, timeout=800, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_written(shell: str) -> None:
    code, out, _ = finish(start(_PRIVFAIR_COMPLETE=f"{shell}_source"))
    assert code == 0
    assert b"privfair" in out


def test_completion_knows_the_groups() -> None:
    environment = {
        "_PRIVFAIR_COMPLETE": "zsh_complete", "COMP_WORDS": "privfair doc", "COMP_CWORD": "1",
    }  # fmt: skip
    code, out, _ = finish(start(**environment))
    assert code == 0
    assert b"doctor" in out
