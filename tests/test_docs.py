"""What the documentation shows is run: Python blocks, and the commands of this package."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if not {"_build", "gallery", "generated"} & set(path.relative_to(ROOT).parts)
)
FENCE = re.compile(
    r"^(?P<ticks>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=ticks)\s*$", re.M | re.S
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks in a language, with the line each begins at."""
    return [
        (text.count("\n", 0, match.start("body")), match["body"])
        for match in FENCE.finditer(text)
        if match["info"].strip() == language
    ]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# This page needs its third-party package installed: tests/testing/test_plugin.py runs it.
ELSEWHERE = {ROOT / "docs" / "interface.md"}
WITH_PYTHON = [
    page for page in PAGES if page not in ELSEWHERE and blocks(page.read_text("utf-8"), "python")
]
WITH_COMMANDS = [page for page in PAGES if "$ privfair" in page.read_text("utf-8")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page share one namespace, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, body in blocks(page.read_text("utf-8"), "python"):
        if ">>>" not in body:
            exec(compile("\n" * line + body, str(page), "exec"), namespace)
            continue
        test = doctest.DocTestParser().get_doctest(body, namespace, name(page), str(page), line)
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        runner.run(test, out=report.append, clear_globs=False)
        namespace = test.globs
        assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
def test_commands_run(page: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    folder = tmp_path / "folder"
    folder.mkdir()
    found = 0
    for _, body in blocks(page.read_text("utf-8"), "console"):
        for line in body.replace("\\\n", " ").splitlines():
            if not line.startswith("$ privfair "):
                continue
            found += 1
            done = subprocess.run(
                [sys.executable, "-m", *shlex.split(line.removeprefix("$ "), comments=True)],
                cwd=folder, env=environment, capture_output=True, text=True, timeout=800,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert found, "the commands stand in a block marked ```console"


def test_the_parser_of_blocks() -> None:
    text = (
        "a\n```python\n>>> 1\n1\n```\n````text\n```python\nno\n```\n````\n```python\nx = 2\n```\n"
    )
    assert blocks(text, "python") == [(2, ">>> 1\n1\n"), (11, "x = 2\n")]


def test_a_wrong_block_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "README.md"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "```python\n>>> 1 + 1\n3\n```\n")
    with pytest.raises(AssertionError, match="Expected"):
        test_python_blocks_run(page, tmp_path, monkeypatch)


LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert not missing
