"""Exit codes, global options, lazy groups and messages of the command line."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import __version__
from privfair.cli import main as entry
from privfair.cli._common import (
    ExitCode,
    combine_exit_codes,
    examples_of,
    exit_code_of,
    finish,
    message_of,
    note,
    output,
    state,
    warn,
)
from privfair.core import exceptions

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def leaves() -> dict[str, click.Command]:
    """Return every command that does something, by its words."""
    found: dict[str, click.Command] = {}

    def walk(words: tuple[str, ...], command: click.Command) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                walk((*words, name), child)
        else:
            found[" ".join(words)] = command

    walk((), entry.cli)
    return found


LEAVES = leaves()


# -- exit codes ---------------------------------------------------------------------------
def _raiser(error: BaseException) -> Callable[..., None]:
    def act(**_: object) -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("boom"), 1),
        (ZeroDivisionError(), 1),
        (MemoryError(), 1),
        (RecursionError("deep"), 1),
        (exceptions.InvalidBudgetError("epsilon must be positive"), 2),
        (exceptions.UnsupportedEventError("no"), 2),
        (exceptions.IncompatibleNeighboringError("no"), 2),
        (exceptions.ConfigError("no"), 2),
        (click.UsageError("no"), 2),
        (click.BadParameter("no"), 2),
        (exceptions.DataError("no"), 3),
        (exceptions.DataNotAvailableError("no"), 3),
        (exceptions.ColumnNotFoundError("no"), 3),
        (FileNotFoundError(2, "No such file or directory", "preds.csv"), 3),
        (PermissionError(13, "Permission denied", "preds.csv"), 3),
        (IsADirectoryError(21, "Is a directory", "preds"), 3),
        (click.FileError("x.csv", "cannot be read"), 3),
        (exceptions.DataIntegrityError("hash"), 4),
        (exceptions.LogIntegrityError("chain"), 4),
        (exceptions.SchemaVersionError("newer"), 4),
        (exceptions.UnsafeFileError("pickle"), 4),
        (exceptions.BudgetExceededError("cap"), 5),
        (exceptions.PrivacyContradictionError("lower above upper"), 5),
        (exceptions.MissingDependencyError("pooch"), 7),
        (ModuleNotFoundError("No module named 'flwr'"), 7),
        (exceptions.ConvergenceError("no bound"), 8),
        (exceptions.ReportError("section failed"), 8),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(32, "Broken pipe"), 141),
        (ExceptionGroup("both", [exceptions.DataError("a"), exceptions.LedgerError("b")]), 4),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_error_has_its_exit_code(
    probe: Any, run: Run, error: BaseException, code: int
) -> None:
    probe.action = _raiser(error)
    outcome = run("probe", "go")
    assert outcome.code == code
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert (outcome.err == "") == (code == 141), "said so on stderr, except a broken pipe"


def test_every_exception_of_ours_has_a_documented_exit_code() -> None:
    for name in exceptions.__all__:
        error = getattr(exceptions, name)
        if issubclass(error, exceptions.PrivfairError):
            assert error.exit_code in {1, 2, 3, 4, 5, 7, 8}, name


def test_success_is_zero_and_fail_on_is_six(probe: Any, run: Run) -> None:
    assert run("probe", "go").code == 0
    probe.action = lambda **_: finish(ExitCode.FAIL_ON)
    assert run("probe", "go").code == 6


@pytest.mark.parametrize(
    ("codes", "combined"),
    [
        ([], 0), ([0, 0], 0), ([6], 6), ([6, 7], 7), ([7, 8], 8), ([8, 3], 3), ([3, 5], 5),
        ([5, 4], 4), ([6, 7, 8, 3, 5, 4], 4), ([2, 6], 6), ([1, 2], 2), ([130, 4], 130),
        ([77], 77),
    ],
)  # fmt: skip
def test_codes_combine_by_what_casts_most_doubt(codes: list[int], combined: int) -> None:
    assert combine_exit_codes(codes) == combined
    assert combine_exit_codes(reversed(codes)) == combined


def test_a_library_that_exits_does_not_take_us_along(probe: Any, run: Run) -> None:
    probe.action = _raiser(SystemExit(3))
    assert run("probe", "go").code == 3
    probe.action = _raiser(SystemExit("some text"))
    assert run("probe", "go").code == 1


def test_an_unforeseen_error_is_one_line_and_its_text_stays_inside(probe: Any, run: Run) -> None:
    probe.action = _raiser(ValueError("record of Jane Doe, 37"))
    outcome = run("probe", "go")
    assert len(outcome.err.splitlines()) == 1
    assert "ValueError" in outcome.err
    assert "Jane" not in outcome.err
    assert "Traceback" not in run("probe", "go", "-v").err
    for line in ("-vv probe go", "probe go -vv", "probe go -v -v"):
        assert "Traceback" in run(*line.split()).err


def test_messages_of_files_name_the_file() -> None:
    assert message_of(FileNotFoundError(2, "No such file", "a.csv")) == "a.csv: No such file"
    assert exit_code_of(OSError(28, "No space left on device")) == 1


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time, click\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's &\n"
        "from privfair.cli import main as entry, doctor\n"
        "def slow(): print('started', flush=True); time.sleep(800)\n"
        "doctor.command.callback = slow\n"
        "sys.argv = ['privfair', 'doctor']\n"
        "entry.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=800)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err


# -- global options -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "line", ["--json probe go", "probe --json go", "probe go --json", "--json probe go --json"]
)
def test_json_is_accepted_anywhere(probe: Any, run: Run, line: str) -> None:
    def act(**_: object) -> None:
        note("a note")
        output({"epsilon": float("inf"), "nan": float("nan"), "x": 1.5}, "text for people")

    probe.action = act
    outcome = run(*line.split())
    assert outcome.code == 0
    assert json.loads(outcome.out) == {"epsilon": "inf", "nan": None, "x": 1.5}
    assert outcome.out.count("\n") == 1
    assert outcome.err == "a note\n"


def test_json_as_the_value_of_an_option_is_a_value(probe: Any, run: Run) -> None:
    seen = []
    probe.action = lambda label, **_: seen.append((label, state().json))
    assert run("probe", "go", "--label=--json").code == 0
    assert seen == [("--json", False)]


@pytest.mark.parametrize("position", ["before", "after"])
def test_global_options_reach_the_command(probe: Any, run: Run, position: str) -> None:
    seen = []
    probe.action = lambda **_: seen.append((state(), os.environ.get("PRIVFAIR_OFFLINE")))
    flags = ["--quiet", "-v", "--no-color", "--no-progress", "--seed", "7", "--offline"]
    line = [*flags, "probe", "go"] if position == "before" else ["probe", "go", *flags]
    assert run(*line).code == 0
    options, offline = seen[0]
    assert (options.quiet, options.verbosity, options.color, options.progress) == (
        True, 1, False, False,
    )  # fmt: skip
    assert (options.seed, options.offline, options.json) == (7, True, False)
    assert offline == "1"
    assert "PRIVFAIR_OFFLINE" not in os.environ, "the next run starts afresh"


def test_seed_zero_is_a_seed(probe: Any, run: Run) -> None:
    seen = []
    probe.action = lambda **_: seen.append(state().seed)
    run("probe", "go", "--seed", "0")
    assert seen == [0]


def test_nothing_leaks_from_one_run_into_the_next(probe: Any, run: Run) -> None:
    seen = []
    probe.action = lambda **_: seen.append(state().json)
    run("--json", "probe", "go")
    run("probe", "go")
    assert seen == [True, False]


def test_quiet_silences_notes_but_not_errors(probe: Any, run: Run) -> None:
    def act(**_: object) -> None:
        note("a note")
        warn("careful")
        raise exceptions.DataError("column y is missing")

    probe.action = act
    assert run("probe", "go").err == "a note\nwarning: careful\nerror: column y is missing\n"
    assert run("probe", "go", "-q").err == "error: column y is missing\n"


def test_warnings_of_ours_are_shown_and_those_of_libraries_only_with_v(
    probe: Any, run: Run
) -> None:
    def act(**_: object) -> None:
        warnings.warn("small sample", exceptions.SmallSampleWarning, stacklevel=1)
        warnings.warn("deprecated in some library", DeprecationWarning, stacklevel=1)

    probe.action = act
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("probe", "go").err == "warning: small sample\n"
        assert "deprecated" in run("probe", "go", "-v").err
        assert run("probe", "go", "-q").err == ""


def test_an_environment_variable_sets_a_default_and_a_flag_wins(
    probe: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    probe.action = lambda epsilon, **_: seen.append(epsilon)
    monkeypatch.setenv("PRIVFAIR_PROBE_GO_EPSILON", "0.5")
    run("probe", "go")
    run("probe", "go", "--epsilon", "2")
    assert seen == [0.5, 2.0]
    monkeypatch.setenv("PRIVFAIR_PROBE_GO_EPSILON", "none")
    assert run("probe", "go").code == 2


def test_version(run: Run) -> None:
    outcome = run("--version")
    assert outcome.code == 0
    assert __version__ in outcome.out


# -- words that nobody knows --------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("dcotor", "doctor"),
        ("prob go", "probe"),
        ("probe goo", "go"),
        ("probe go --epsilom 1", "--epsilon"),
        ("doctor --jsom", "--json"),
        ("--jsn doctor", "--json"),
    ],
)
def test_unknown_words_suggest_the_nearest(
    probe: Any, run: Run, line: str, suggestion: str
) -> None:
    outcome = run(*line.split())
    assert outcome.code == 2
    assert f"'{suggestion}'" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("value", ["0", "-1", "nan", "-inf", "1e400x", "", "one", "True", "1,5"])
def test_a_bad_number_is_a_usage_error_that_says_what_is_allowed(
    probe: Any, run: Run, value: str
) -> None:
    outcome = run("probe", "go", "--epsilon", value)
    assert outcome.code == 2
    assert "--epsilon" in outcome.err
    assert "number" in outcome.err


def test_no_command_shows_the_help(run: Run) -> None:
    assert run().code == 2
    assert "Commands:" in run("--help").out


# -- groups and their help ----------------------------------------------------------------
def test_a_group_that_is_not_there_does_not_appear(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(entry.COMMANDS, "teleport", "Not in this edition.")
    assert "teleport" not in run("--help").out
    assert run("teleport").code == 2


def test_every_module_of_a_command_is_listed() -> None:
    modules = {
        path.stem for path in (ROOT / "privfair" / "cli").glob("*.py") if path.stem[0] != "_"
    }
    assert modules - {"main"} <= set(entry.COMMANDS)
    for name in modules - {"main"}:
        assert isinstance(importlib.import_module(f"privfair.cli.{name}").command, click.Command)


@pytest.mark.parametrize("words", LEAVES)
def test_every_command_explains_itself(run: Run, words: str) -> None:
    command = LEAVES[words]
    outcome = run(*words.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert command.help, "a command says what it does"
    assert command.callback is not None
    lines = examples_of(command)
    assert lines, "a command has a runnable example"
    for line in lines:
        assert line in outcome.out
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{param.opts} has no help"
    assert any("--json" in param.opts for param in command.params)


@pytest.mark.parametrize("words", LEAVES)
def test_the_example_in_every_help_runs(words: str, tmp_path: Path) -> None:
    """In an empty folder whose name has a space and an umlaut, with an empty HOME."""
    in_a_shell(examples_of(LEAVES[words]), tmp_path)


@pytest.mark.parametrize("words", LEAVES)
def test_the_example_in_every_help_gives_json(
    words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which costs no start, unless the example needs a shell."""
    plain = not any(sign in line for line in examples_of(LEAVES[words]) for sign in "|>&")
    folder = tmp_path / "mein Prüfordner"
    lines = [f"{line} --json" for line in examples_of(LEAVES[words])]
    if plain:
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", str(tmp_path))
        found = []
        for line in lines:
            done = run(*shlex.split(line)[1:])
            assert done.code == 0, f"{line}\n{done.err}"
            assert "Traceback" not in done.err
            found.append(done.out)
    else:
        found = in_a_shell(lines, tmp_path)
    for text in found:
        payload = json.loads(text, parse_constant=pytest.fail)
        assert isinstance(payload, dict)


def in_a_shell(lines: list[str], top: Path) -> list[str]:
    folder, home, programs = top / "mein Prüfordner", top / "home", top / "bin"
    for made in (folder, home, programs):
        made.mkdir()
    shim = programs / "privfair"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m privfair "$@"\n')
    shim.chmod(0o755)
    data = {k: v for k, v in os.environ.items() if k in {"PRIVFAIR_DATA_DIR", "OMP_NUM_THREADS"}}
    found = []
    for line in lines:
        assert "privfair" in line
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=folder, capture_output=True,
            text=True, timeout=800, check=False,
            env={**data, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home),
                 "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        found.append(done.stdout)
    return found


# -- nothing typed at it makes it fall over -----------------------------------------------
WORDS = sorted(
    {word for words in LEAVES for word in words.split()}
    | {opt for command in LEAVES.values() for param in command.params for opt in param.opts}
    | {"--help", "--version", "--", "-", "-vv", "-qqq", "--json=1", "--seed", "nan", "inf", "-1"}
)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(WORDS),
            st.text(max_size=12),
            st.floats().map(str),
            st.integers().map(str),
        ),
        max_size=8,
    )
)
def test_no_line_of_arguments_ends_in_a_traceback(args: list[str]) -> None:
    """The parsing of every command, with its body taken out."""
    saved = {words: command.callback for words, command in LEAVES.items()}
    try:
        for command in LEAVES.values():
            command.callback = lambda *_, **__: None
        code = entry.run(args)
    finally:
        for words, command in LEAVES.items():
            command.callback = saved[words]
    assert code in {0, 2, 3}, args


# -- speed: structure instead of seconds ----------------------------------------------------
@pytest.mark.parametrize("line", ["--help", "--version", "doctor --help", "nonsense"])
def test_help_loads_nothing_heavy(line: str) -> None:
    probe = (
        f"import sys; from privfair.cli.main import run; run({line.split()!r})\n"
        "heavy = {'torch', 'cvxpy', 'matplotlib', 'sklearn', 'pandas', 'scipy', 'rich', 'numpy'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=800,
        check=True,
    )  # fmt: skip
    assert "LOADED []" in done.stdout


ACCOUNTANT = [words for words in LEAVES if words.split()[0] == "accountant"]


@pytest.mark.parametrize("words", ACCOUNTANT)
@pytest.mark.parametrize("how", ["help", "example"])
def test_the_accountant_never_loads_torch(words: str, how: str, tmp_path: Path) -> None:
    lines, piped = [[*words.split(), "--help"]], ""
    if how == "example":
        lines = []
        for line in examples_of(LEAVES[words]):
            source, _, command = line.rpartition(" | ")
            piped += subprocess.getoutput(source) if source else ""
            lines.append(shlex.split(command)[1:])
    probe = (
        "import sys; from privfair.cli.main import run\n"
        f"codes = [run(line) for line in {lines!r}]\n"
        "heavy = {'torch', 'cvxpy', 'matplotlib', 'sklearn', 'opacus', 'fairlearn'}\n"
        "print('LOADED', codes, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, timeout=800,
        check=True, input=piped, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert f"LOADED {[0] * len(lines)} []" in done.stdout


def test_labels_from_data_cannot_steer_the_terminal(probe: Any, run: Run) -> None:
    from rich.table import Table

    evil = "A\x1b[31m\x07B\u202eC\x9bD\r"

    def act(**_: object) -> None:
        table = Table("group")
        table.add_row(evil)
        output({"group": evil}, table)
        output({"group": evil}, evil)
        note(evil)
        raise exceptions.DataError(evil)

    probe.action = act
    for flags in ([], ["--json"]):
        outcome = run("probe", "go", *flags)
        unsafe = re.findall(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", outcome.out + outcome.err
        )
        assert not unsafe
        assert "A" in outcome.out
