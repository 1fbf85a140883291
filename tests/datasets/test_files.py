"""Finding and verifying files. All tests here use made-up files unless they say "real"."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privfair.core.exceptions import (
    DataError,
    DataIntegrityError,
    DataNotAvailableError,
    DataVerificationWarning,
    InvalidParameterError,
    InvalidTypeError,
    UnsafeFileError,
)
from privfair.datasets import _files, fetch_adult, fetch_compas, is_available
from privfair.datasets._files import cache_dir, content, read_files, search_path

Toy = Callable[..., Any]
CONTENT = b"a,b\n1,2\n3,4\n"  # what the fixture `toy` registers


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def read(**options: Any) -> bytes:
    (found,) = read_files("toy", ("main",), **{"download": "never", **options})
    return found.data


# -- where files are sought ---------------------------------------------------------------
@pytest.mark.parametrize("layout", ["toyset/toy.csv", "toy.csv"])
@pytest.mark.parametrize("way", ["data_home", "PRIVFAIR_DATA_DIR", "cache"])
def test_both_layouts_in_each_place(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch, layout: str, way: str
) -> None:
    toy()
    path = folder / layout
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENT)
    options: dict[str, Any] = {}
    if way == "data_home":
        options["data_home"] = folder
    elif way == "cache":
        monkeypatch.setenv("PRIVFAIR_CACHE_DIR", str(folder))
    else:
        monkeypatch.setenv(way, str(folder))
    assert read(**options) == CONTENT
    assert is_available("toy", options.get("data_home"))


def test_order_of_the_places(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy()
    names = ["home", "env", "cache"]
    places = [tmp_path / name for name in names]
    for place in places:
        place.mkdir()
        (place / "toy.csv").write_bytes(CONTENT)
    monkeypatch.setenv("PRIVFAIR_DATA_DIR", str(places[1]))
    monkeypatch.setenv("PRIVFAIR_CACHE_DIR", str(places[2]))
    assert search_path(places[0]) == places
    for place in places:
        (found,) = read_files("toy", ("main",), data_home=places[0], download="never")
        assert found.path == place / "toy.csv"
        (place / "toy.csv").unlink()
    assert not is_available("toy", places[0])


def test_a_wrong_file_is_not_skipped_for_a_right_one_further_on(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy()
    for name, data in (("first", b"x" * len(CONTENT)), ("second", CONTENT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "toy.csv").write_bytes(data)
    monkeypatch.setenv("PRIVFAIR_DATA_DIR", str(tmp_path / "second"))
    with pytest.raises(DataIntegrityError):
        read(data_home=tmp_path / "first")


def test_cache_folder_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIVFAIR_CACHE_DIR")
    path = cache_dir()
    assert path.parts[-2:] == ("data", "v1")
    assert "privfair" in path.parts


def test_read_only_folder(toy: Toy, folder: Path) -> None:
    toy()
    (folder / "toy.csv").write_bytes(CONTENT)
    (folder / "toy.csv").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert read(data_home=folder) == CONTENT
        assert sorted(p.name for p in folder.iterdir()) == ["toy.csv"]
    finally:
        folder.chmod(0o755)


def test_names_cannot_lead_outside(toy: Toy, folder: Path) -> None:
    toy()
    (folder.parent / "toy.csv").write_bytes(CONTENT)
    for name in ("../toy", "toy/../../x", "/etc/passwd", "toy\x00", ""):
        with pytest.raises(InvalidParameterError):
            read_files(name, ("main",), data_home=folder)
    with pytest.raises(InvalidTypeError):
        read_files(3, ("main",), data_home=folder)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        read(data_home=3)
    with pytest.raises(DataNotAvailableError):
        read(data_home=folder)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../toy.csv"}, {"name": "a/b"}, {"name": ""}, {"name": ".."},
        {"urls": ["http://data.example.org/toy.csv"]}, {"urls": ["file:///etc/passwd"]},
        {"sha256": "abc"}, {"size": 0},
        {"archives": [{"name": "../x.zip", "members": ["a"], "max_size": 1,
                       "url": "https://data.example.org"}]},
        {"archives": [{"name": "x.zip", "members": ["a"], "max_size": 1,
                       "url": "http://data.example.org"}]},
    ],
)  # fmt: skip
def test_the_registry_refuses_unsafe_entries(change: dict[str, Any]) -> None:
    import json

    from privfair.datasets._registry import parse_registry

    file = {"name": "toy.csv", "size": 3, "sha256": "a" * 64, "urls": []}
    entry = {
        "title": "t", "folder": "toy", "source": "https://data.example.org", "doi": None,
        "citation": "c", "license": "l", "rows": "r", "caveats": [],
        "files": {"main": {**file, **change}},
    }  # fmt: skip
    good = {**entry, "files": {"main": file}}
    assert parse_registry(json.dumps({"version": 1, "datasets": {"toy": good}}))[0] == 1
    with pytest.raises(InvalidParameterError, match="registry"):
        parse_registry(json.dumps({"version": 1, "datasets": {"toy": entry}}))


# -- verification -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (CONTENT[:-1], "cut off"),
        (CONTENT + b"x", "bytes instead of"),
        (b"a,b\n1,2\n3,5\n", "content was changed"),
        (b"", "cut off"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "web page"),
        (b"<html/>....."[: len(CONTENT)], "web page"),
    ],
    ids=["truncated", "longer", "changed", "empty", "captive-portal", "portal-of-right-size"],
)
def test_a_wrong_file_is_refused(toy: Toy, folder: Path, data: bytes, hint: str) -> None:
    spec = toy()
    path = folder / "toy.csv"
    path.write_bytes(data)
    with pytest.raises(DataIntegrityError) as caught:
        read(data_home=folder)
    text = str(caught.value)
    for part in (
        str(path), spec.files["main"].sha256, hashlib.sha256(data).hexdigest(), hint,
        "delete the file", "verify=False",
    ):  # fmt: skip
        assert part in text
    assert caught.value.exit_code == 4
    assert path.read_bytes() == data, "the user's file is left alone"


def test_verify_false_warns_and_marks(toy: Toy, folder: Path) -> None:
    toy()
    (folder / "toy.csv").write_bytes(b"a,b\n9,9\n")
    with pytest.warns(DataVerificationWarning, match="verified=False"):
        (found,) = read_files("toy", ("main",), data_home=folder, verify=False)
    assert found.data == b"a,b\n9,9\n"
    assert not found.verified


def test_verify_false_on_a_right_file_says_verified(toy: Toy, folder: Path) -> None:
    toy()
    (folder / "toy.csv").write_bytes(CONTENT)
    (found,) = read_files("toy", ("main",), data_home=folder, verify=False)
    assert found.verified


def test_verify_false_is_bounded(toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy()
    monkeypatch.setattr(_files, "MAX_UNVERIFIED", 50)
    (folder / "toy.csv").write_bytes(b"x" * 51)
    with pytest.raises(UnsafeFileError, match="larger than 50"):
        read(data_home=folder, verify=False)


def test_each_file_is_hashed_once_per_process(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy()
    path = folder / "toy.csv"
    path.write_bytes(CONTENT)
    hashed = []
    real = _files._digest
    monkeypatch.setattr(_files, "_digest", lambda data: hashed.append(1) or real(data))
    for _ in range(3):
        assert read(data_home=folder) == CONTENT
    assert len(hashed) == 1
    later = path.stat().st_mtime_ns + 1_000_000
    path.write_bytes(b"a,b\n1,2\n3,5\n")  # the same size
    os.utime(path, ns=(later, later))
    with pytest.raises(DataIntegrityError):
        read(data_home=folder)
    assert len(hashed) == 2


def test_a_folder_or_a_pipe_in_the_place_of_a_file(toy: Toy, folder: Path) -> None:
    toy()
    (folder / "toy.csv").mkdir()
    os.mkfifo(folder / "toy.zip")
    with pytest.raises(DataNotAvailableError):
        read(data_home=folder)
    assert stat.S_ISFIFO((folder / "toy.zip").stat().st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(toy: Toy, folder: Path) -> None:
    toy()
    (folder / "toy.csv").write_bytes(CONTENT)
    (folder / "toy.csv").chmod(0)
    with pytest.raises(DataNotAvailableError, match="cannot be read"):
        read(data_home=folder)


# -- archives -----------------------------------------------------------------------------
def test_a_member_of_an_official_zip(toy: Toy, folder: Path) -> None:
    toy()
    data = {"toy.csv": CONTENT, "evil/../../toy.csv": b"no", "toy.csv.bak": b"no"}
    (folder / "toy.zip").write_bytes(zipped(data))
    assert read(data_home=folder) == CONTENT
    assert sorted(p.name for p in folder.iterdir()) == ["toy.zip"], "nothing is unpacked to disk"


def test_nested_zip(toy: Toy, folder: Path) -> None:
    from privfair.datasets._registry import Archive

    toy(
        archives=(Archive("outer.zip", ("in.zip", "toy.csv"), 10_000, "https://data.example.org"),)
    )
    (folder / "outer.zip").write_bytes(zipped({"in.zip": zipped({"toy.csv": CONTENT})}))
    assert read(data_home=folder) == CONTENT


@pytest.mark.parametrize("name", ["../toy.csv", "/toy.csv", "x/toy.csv", "TOY.CSV", "toy.csv/"])
def test_zip_members_count_by_exact_name_only(toy: Toy, folder: Path, name: str) -> None:
    toy()
    (folder / "toy.zip").write_bytes(zipped({name: CONTENT}))
    with pytest.raises(DataIntegrityError, match="exact name"):
        read(data_home=folder)


def test_zip_with_the_name_twice(toy: Toy, folder: Path) -> None:
    toy()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("toy.csv", CONTENT)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("toy.csv", CONTENT)
    (folder / "toy.zip").write_bytes(buffer.getvalue())
    with pytest.raises(DataIntegrityError, match="2 entries"):
        read(data_home=folder)


def test_zip_bomb_by_size(toy: Toy, folder: Path) -> None:
    toy()
    (folder / "toy.zip").write_bytes(zipped({"toy.csv": CONTENT + b"x"}))
    with pytest.raises(UnsafeFileError, match="at most"):
        read(data_home=folder)


def test_zip_bomb_by_ratio(toy: Toy, folder: Path) -> None:
    bomb = b"0" * 1_000_000
    toy(bomb)
    packed = zipped({"toy.csv": bomb})
    assert len(packed) < 2_000
    (folder / "toy.zip").write_bytes(packed)
    with pytest.raises(UnsafeFileError, match="ratio"):
        read(data_home=folder)


def test_zip_that_lies_about_its_size(toy: Toy, folder: Path) -> None:
    """The header says 12 bytes and 1,000,000 come: no more than declared is ever read."""
    toy()
    packed = bytearray(zipped({"toy.csv": b"0" * 1_000_000}))
    size = (1_000_000).to_bytes(4, "little")
    assert packed.count(size) == 2
    lie = bytes(packed).replace(size, len(CONTENT).to_bytes(4, "little"))
    (folder / "toy.zip").write_bytes(lie)
    with pytest.raises(DataError):
        read(data_home=folder)


def test_archive_that_is_none_or_too_large(
    toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy()
    (folder / "toy.zip").write_bytes(b"<html>not a zip</html>")
    with pytest.raises(DataIntegrityError, match="zip archive"):
        read(data_home=folder)
    (folder / "toy.zip").write_bytes(b"x" * 100_001)
    with pytest.raises(UnsafeFileError, match="larger than 100,000"):
        read(data_home=folder)


def test_member_with_another_content(toy: Toy, folder: Path) -> None:
    toy()
    (folder / "toy.zip").write_bytes(zipped({"toy.csv": b"a,b\n1,2\n3,5\n"}))
    with pytest.raises(DataIntegrityError, match="content was changed"):
        read(data_home=folder)


def _gzip_toy(toy: Toy, folder: Path, packed: bytes, size: int = len(CONTENT)) -> bytes:
    toy(packed, name="toy.csv.gz", unpacked_size=size, archives=())
    (folder / "toy.csv.gz").write_bytes(packed)
    (found,) = read_files("toy", ("main",), data_home=folder)
    return content(found)


def test_gzip_is_bounded(toy: Toy, folder: Path) -> None:
    packed = gzip.compress(CONTENT)
    assert _gzip_toy(toy, folder, packed) == CONTENT
    with pytest.raises(UnsafeFileError, match="more than 11"):
        _gzip_toy(toy, folder, packed, size=len(CONTENT) - 1)
    with pytest.raises(UnsafeFileError, match="more than 12"):
        _gzip_toy(toy, folder, gzip.compress(b"0" * 50_000_000))


@pytest.mark.parametrize("cut", [1, 8, 15])
def test_gzip_that_was_cut_off_or_goes_on(toy: Toy, folder: Path, cut: int) -> None:
    packed = gzip.compress(CONTENT)
    with pytest.raises(DataIntegrityError, match="cut off"):
        _gzip_toy(toy, folder, packed[:-cut])
    with pytest.raises(DataIntegrityError, match="goes on"):
        _gzip_toy(toy, folder, packed + packed)
    with pytest.raises(DataIntegrityError, match="not a gzip"):
        _gzip_toy(toy, folder, CONTENT)


# -- absent -------------------------------------------------------------------------------
@pytest.mark.parametrize("offline", [True, False])
def test_what_the_message_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    if offline:
        monkeypatch.setenv("PRIVFAIR_OFFLINE", "1")
    with pytest.raises(DataNotAvailableError) as caught:
        fetch_adult(data_home=folder, download="auto" if offline else "never")
    text = str(caught.value)
    for part in (
        "https://archive.ics.uci.edu/dataset/2/adult", "adult.data", "adult.test",
        "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
        str(folder), str(cache_dir()), "privfair data fetch adult --to DIR",
        "fallback='embedded'", "PRIVFAIR_DATA_DIR", "3,974,305",
        "PRIVFAIR_OFFLINE" if offline else "download='never'",
    ):  # fmt: skip
        assert part in text, part
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.exit_code == 3


def test_the_message_for_files_that_are_never_downloaded(folder: Path) -> None:
    from privfair.datasets import fetch_motor

    with pytest.raises(DataNotAvailableError, match="never downloaded by privfair") as caught:
        fetch_motor(data_home=folder)
    assert "data fetch" not in str(caught.value)


@pytest.mark.parametrize("value", ["1", "true", "yes", "anything"])
def test_offline_switch(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PRIVFAIR_OFFLINE", value)
    assert _files.offline()
    monkeypatch.setenv("PRIVFAIR_OFFLINE", "0")
    assert not _files.offline()


def test_no_socket_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, real_data_dir: Path
) -> None:
    """Real files present, or absent and offline: no socket is ever made."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(AssertionError, match="a socket was made"):
        socket.socket()
    assert len(fetch_adult(split="test").data) == 16_281
    monkeypatch.setenv("PRIVFAIR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PRIVFAIR_OFFLINE", "1")
    for fetch in (fetch_adult, fetch_compas):
        with pytest.raises(DataNotAvailableError):
            fetch()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"split": "validation"}, InvalidParameterError),
        ({"split": None}, InvalidParameterError),
        ({"missing": "impute"}, InvalidParameterError),
        ({"download": "always"}, InvalidParameterError),
        ({"download": True}, InvalidParameterError),
        ({"fallback": True}, InvalidParameterError),
        ({"as_frame": "yes"}, InvalidTypeError),
        ({"verify": 1}, InvalidTypeError),
        ({"data_home": b"x"}, InvalidTypeError),
    ],
)
def test_bad_parameters(folder: Path, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        fetch_adult(**{"data_home": folder, "download": "never", **options})
