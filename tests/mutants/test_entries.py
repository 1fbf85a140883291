"""The planted bugs still apply; `make mutants` sees whether the tests notice them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def _runner() -> Any:
    spec = importlib.util.spec_from_file_location("planted_bugs", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted_bugs"] = module
    spec.loader.exec_module(module)
    return module


RUNNER = _runner()
BUGS = RUNNER.load()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_applies_and_names_its_tests(bug: Any) -> None:
    source = (ROOT / bug.file).read_text("utf-8")
    mutated = bug.mutate(source)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source)), "the bug changes the code"
    assert bug.tests
    for test in bug.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text("utf-8")
        function = name.partition("[")[0].rpartition("::")[2]
        assert not function or f"def {function}(" in text


def test_names_are_unique() -> None:
    names = [bug.name for bug in BUGS]
    assert len(names) == len(set(names))


def test_an_entry_out_of_date_is_an_error() -> None:
    bug = RUNNER.Bug("x", "y.py", "find", "replace", ())
    with pytest.raises(ValueError, match="0 times"):
        bug.mutate("nothing")
    with pytest.raises(ValueError, match="2 times"):
        bug.mutate("find find")
    assert bug.mutate("find it") == "replace it"
