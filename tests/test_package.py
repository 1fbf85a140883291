"""The wheel: what is in it, and that building it twice gives the same bytes."""

from __future__ import annotations

import email
import hashlib
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import privfair

ROOT = Path(__file__).resolve().parents[1]


def build(folder: Path) -> Path:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    run = subprocess.run(
        ["git", "ls-files", "-z", "privfair"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    tracked = {name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()}
    if run.returncode != 0:
        tracked = {p.relative_to(ROOT).as_posix() for p in (ROOT / "privfair").rglob("*.py")}
    assert tracked <= names
    assert "privfair/py.typed" in names


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    for info in zipfile.ZipFile(wheel).infolist():
        top = info.filename.split("/")[0]
        assert top == "privfair" or top.endswith(".dist-info"), info.filename
        assert "__pycache__" not in info.filename
        assert not info.filename.endswith((".pkl", ".pt", ".db", "adult.data", "adult.test"))
    embedded = [
        info.file_size
        for info in zipfile.ZipFile(wheel).infolist()
        if "/datasets/embedded/" in info.filename
    ]
    assert sum(embedded) < 2 * 1024**2


def test_the_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "privfair"
    assert metadata["Version"] == privfair.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "llm", "federated", "dask", "data", "pdf", "docs", "dev",
    }  # fmt: skip
    (scripts,) = [n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt")]
    assert b"privfair = privfair.cli.main:main" in archive.read(scripts)


def test_the_version_stands_in_one_place() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"version: {privfair.__version__}\n" in citation
    assert f"## [{privfair.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_building_twice_gives_the_same_bytes(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    again = build(tmp_path)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, again)}
    assert len(digests) == 1


def test_the_source_archive_can_run_its_own_tests(tmp_path: Path) -> None:
    (built,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"conftest.py", "Makefile", "constraints.txt", "tests/test_package.py"} <= names
    assert not any(name.startswith((".venv", "reports", ".git/")) for name in names)
