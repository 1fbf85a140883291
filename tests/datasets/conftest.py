"""A small registered data set made on the spot, so that no test here needs real files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privfair.datasets import _files, _registry
from privfair.datasets._registry import Archive, DatasetSpec, FileSpec

CONTENT = b"a,b\n1,2\n3,4\n"


def make_spec(content: bytes = CONTENT, **changes: Any) -> DatasetSpec:
    """A data set `toy` with one file, `toy.csv`, and an archive that may hold it."""
    file = FileSpec(
        key="main",
        name="toy.csv",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        urls=("https://data.example.org/toy.csv", "https://mirror.example.org/toy.csv"),
        archives=(Archive("toy.zip", ("toy.csv",), 100_000, "https://data.example.org/toy.zip"),),
    )
    return DatasetSpec(
        name="toy",
        title="Toy",
        folder="toyset",
        source="https://data.example.org/toy",
        doi=None,
        citation="Nobody.",
        license="CC0",
        rows="2 rows",
        caveats=("It is a toy.",),
        files={"main": replace(file, **changes)},
    )


@pytest.fixture(autouse=True)
def _own_world(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An own cache folder, no offline switch, and no data folder unless the test is about it."""
    monkeypatch.setenv("PRIVFAIR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PRIVFAIR_OFFLINE", raising=False)
    if "real_data_dir" not in request.fixturenames:
        monkeypatch.delenv("PRIVFAIR_DATA_DIR", raising=False)
    _files._HASHES.clear()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DatasetSpec]:
    """Register `toy`, with changes to its file."""

    def register(content: bytes = CONTENT, **changes: Any) -> DatasetSpec:
        spec = make_spec(content, **changes)
        version, specs = _registry._registry()
        monkeypatch.setattr(_registry, "_registry", lambda: (version, {**specs, "toy": spec}))
        return spec

    return register


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for data, with a space and an umlaut in its name."""
    path = tmp_path / "meine Prüfdaten"
    path.mkdir()
    return path


@pytest.fixture
def adult_folder(real_data_dir: Path, tmp_path: Path) -> Path:
    """A writable copy of the real Adult files."""
    target = tmp_path / "copy" / "adult"
    target.mkdir(parents=True)
    for name in ("adult.data", "adult.test"):
        shutil.copyfile(real_data_dir / "adult" / name, target / name)
    return target.parent
