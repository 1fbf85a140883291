"""The tests of the tests: a collection that lost something cannot pass."""

from __future__ import annotations

import importlib
import os
import random
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]

# The least number of tests that each folder must bring into a full run. Raise a number when
# tests are added; lower one only together with the tests it counts.
FLOORS: dict[str, int] = {
    "privfair/accounting": 10,
    "privfair/core": 35,
    "privfair/datasets": 14,
    "privfair/mechanisms": 20,
    "privfair/report": 24,
    "tests/accounting": 380,
    "tests/cli": 290,
    "tests/core": 230,
    "tests/datasets": 190,
    "tests/dp": 350,
    "tests/fairness": 150,
    "tests/mechanisms": 520,
    "tests/mutants": 120,
    "tests/preprocessing": 85,
    "tests/report": 190,
    "tests/synthesis": 30,
    "tests/test_architecture.py": 22,
    "tests/test_docs.py": 45,
    "tests/test_docs_contract.py": 480,
    "tests/test_examples.py": 6,
    "tests/test_package.py": 6,
    "tests/test_setup.py": 7,
    "tests/test_tests.py": 8,
    "tests/testing": 20,
    "tests/training": 120,
}


def _is_full_run() -> bool:
    return os.environ.get("PRIVFAIR_FULL_RUN", "") == "1"


def test_each_folder_brings_its_tests(collected_counts: dict[str, int]) -> None:
    if not _is_full_run():
        pytest.skip("a partial run: `make test` counts")
    missing = {
        room: (collected_counts.get(room, 0), n)
        for room, n in FLOORS.items()
        if collected_counts.get(room, 0) < n
    }
    assert not missing, f"folder: (collected, at least) {missing}"


def test_no_test_file_escapes_collection() -> None:
    tests = ROOT / "tests"
    named_otherwise = [path.name for path in tests.rglob("*_test.py")]
    assert not named_otherwise, "pytest collects test_*.py here"
    empty = [p.name for p in tests.rglob("test_*.py") if "def test_" not in p.read_text("utf-8")]
    assert not empty, "test files without a test"


def test_a_broken_module_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import no_such_module_at_all\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-q", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode != 0, run.stdout


def test_strict_data_turns_a_skip_into_a_failure(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text("utf-8"))
    (tmp_path / "Makefile").write_text("")
    (tmp_path / "test_data.py").write_text("def test_it(real_data_dir):\n    assert False\n")
    environment = {k: v for k, v in os.environ.items() if k != "PRIVFAIR_DATA_DIR"}
    outcomes = {}
    for strict in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
            cwd=tmp_path,
            env={**environment, "STRICT_DATA": strict},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        outcomes[strict] = run
    assert outcomes["0"].returncode == 0, outcomes["0"].stdout
    assert "real data: absent, 1 skipped" in outcomes["0"].stdout
    assert outcomes["1"].returncode == 1, outcomes["1"].stdout
    assert "STRICT_DATA=1" in outcomes["1"].stdout


def test_tests_cannot_reach_the_network() -> None:
    with pytest.raises(RuntimeError, match="without a network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
    with pytest.raises(RuntimeError, match="without a network"):
        socket.getaddrinfo("example.org", 80)
    with (
        socket.socket(socket.AF_INET) as unconnected,
        pytest.raises(RuntimeError, match="without a network"),
    ):
        unconnected.connect_ex(("192.0.2.1", 80))


def test_loopback_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_global_generators_repeat_from_run_to_run(request: pytest.FixtureRequest) -> None:
    seed = zlib.crc32(request.node.nodeid.encode())
    assert random.random() == random.Random(seed).random()
    assert np.random.random() == np.random.RandomState(seed).random()  # noqa: NPY002
    expected = torch.rand(3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.rand(3), expected)


def test_examples_do_not_follow_what_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examples() -> list[int]:
        drawn: list[int] = []

        @settings(max_examples=400)
        @given(st.integers())
        def draw(n: int) -> None:
            drawn.append(n)

        draw()
        return drawn

    if not settings.default.derandomize:
        pytest.skip("this profile looks for new examples")
    before = examples()
    (tmp_path / "literals.py").write_text("".join(f"A{i} = {7919 * i}\n" for i in range(1, 200)))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("literals")
    try:
        assert examples() == before
    finally:
        del sys.modules["literals"]


@pytest.mark.parametrize("option", ["xfail_strict", "strict_markers"])
def test_configuration_is_strict(pytestconfig: pytest.Config, option: str) -> None:
    if option == "strict_markers":
        assert pytestconfig.getoption("strict_markers")
    else:
        assert pytestconfig.getini(option) is True
    assert pytestconfig.getini("filterwarnings")[0] == "error"
