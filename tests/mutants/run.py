"""Plant known bugs, one at a time, in a copy of the source; each must make its test fail.

    python tests/mutants/run.py [--room NAME] [--only TEXT] [--list]

The bugs are in the TOML files beside this script, one file per room::

    [[bug]]
    name = "what somebody will do wrong one day"
    file = "privfair/mechanisms/_gaussian.py"
    find = "scale = sigma"        # must occur exactly once in the file
    replace = "scale = sigma / 2"
    tests = ["tests/mechanisms/test_gaussian.py::test_scale"]

A bug is caught if pytest ends with 1 (a test failed). Any other end is an error: an entry that no
longer applies, a test that no longer exists, or a change that only breaks the import.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bug:
    """One planted bug."""

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        path.write_text(self.mutate(text), encoding="utf-8")

    def mutate(self, text: str) -> str:
        """Return the text with the bug in it."""
        if text.count(self.find) != 1:
            raise ValueError(
                f"{self.name}: the text to replace occurs {text.count(self.find)} times in "
                f"{self.file}, not once. Bring the entry up to date."
            )
        return text.replace(self.find, self.replace)


def load(room: str = "") -> list[Bug]:
    """Read all entries, or those of one room."""
    bugs = []
    for path in sorted(Path(__file__).parent.glob(f"{room or '*'}.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("bug", []):
            bugs.append(Bug(**{**entry, "tests": tuple(entry["tests"])}))
    return bugs


def run_tests(root: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider",
         "-m", "not gpu and not network", "--timeout=900", *tests],
        cwd=root, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
             "PYTHONPATH": str(root), "PRIVFAIR_FULL_RUN": ""},
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only bugs whose name contains this text")
    parser.add_argument("--room", default="", help="only the bugs of this file, such as cli")
    parser.add_argument("--list", action="store_true", help="only list them")
    options = parser.parse_args()
    bugs = [bug for bug in load(options.room) if options.only in bug.name]
    if options.list:
        print(*(f"{bug.name}  [{bug.file}]" for bug in bugs), sep="\n")
        return 0
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "privfair"
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "_build", ".hypothesis")
        root.mkdir()
        for name in ("privfair", "tests", "docs", "examples", "datasets"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=ignored)
        for name in ("conftest.py", "pyproject.toml", "Makefile", "constraints.txt", "README.md"):
            shutil.copy(ROOT / name, root / name)
        tests = tuple(sorted({test for bug in bugs for test in bug.tests}))
        clean = run_tests(root, tests)
        if clean.returncode != 0:
            print(clean.stdout[-3000:], "The tests fail without any planted bug.", sep="\n")
            return 1
        for bug in bugs:
            original = (root / bug.file).read_text(encoding="utf-8")
            try:
                bug.plant(root)
                done = run_tests(root, bug.tests)
                verdict = {0: "SURVIVED", 1: "caught"}.get(
                    done.returncode, f"ERROR (pytest ended with {done.returncode})"
                )
            except ValueError as error:
                verdict = f"ERROR ({error})"
            finally:
                (root / bug.file).write_text(original, encoding="utf-8")
            print(f"{verdict:9} {bug.name}", flush=True)
            if verdict != "caught":
                problems.append(bug.name)
    print(f"{len(bugs) - len(problems)} of {len(bugs)} planted bugs caught")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
