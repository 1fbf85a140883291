"""The examples run at their quick size: the real code path, without claims."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("data", ["real", "embedded"])
def test_an_example_runs(
    script: Path, data: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "PRIVFAIR_OFFLINE": "1",
        "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path),
    }  # fmt: skip
    if data == "real":
        environment["PRIVFAIR_DATA_DIR"] = str(request.getfixturevalue("real_data_dir"))
    else:
        environment.pop("PRIVFAIR_DATA_DIR", None)
    done = subprocess.run(
        [sys.executable, str(script), "--quick"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("not real people" in done.stdout) == (data == "embedded")
    if script.stem == "plot_audit_csv":
        check_written(tmp_path, embedded=data == "embedded")


def check_written(folder: Path, *, embedded: bool) -> None:
    """What the example hands on says itself where its rows are from."""
    (page,) = folder.rglob("report.html")
    (document,) = folder.rglob("report.json")
    written = json.loads(document.read_text("utf-8"))
    assert next(iter(written)) == "_notice"
    assert written["dataset"]["embedded"] is embedded
    assert written["dataset"]["name"] == "COMPAS"
    assert written["_notice"].startswith("EMBEDDED DATA") == embedded
    html = page.read_text("utf-8")
    first = html[html.index("<body") :].split("<h1", 1)[0]
    assert ("EMBEDDED DATA" in first) == embedded


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_written_for_the_gallery(script: Path) -> None:
    source = script.read_text("utf-8")
    doc = ast.get_docstring(ast.parse(source)) or ""
    title, underline = doc.splitlines()[:2]
    assert underline == "=" * len(title)
    assert '"--quick" in sys.argv' in source
    assert "--quick" in doc
