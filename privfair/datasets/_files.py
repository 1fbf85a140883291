"""Finding data files and never reading what was not verified."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataIntegrityError,
    DataNotAvailableError,
    DataVerificationWarning,
    InvalidTypeError,
    UnsafeFileError,
)
from privfair.datasets._archive import gunzip, read_member
from privfair.datasets._registry import DatasetSpec, FileSpec, get_spec, registry_version

__all__ = [
    "VerifiedFile",
    "cache_dir",
    "file_state",
    "is_available",
    "offline",
    "read_files",
    "search_path",
    "unavailable_message",
]

MAX_UNVERIFIED = 64 * 1024 * 1024
"""The most bytes read with ``verify=False``."""

_HASHES: dict[tuple[str, int, int, int, int], str] = {}
"""sha256 by (real path, device, inode, size, mtime): each file is hashed once per process."""


@dataclass(frozen=True)
class VerifiedFile:
    """The bytes of one file, with what is known about them."""

    spec: FileSpec
    path: Path
    data: bytes
    sha256: str
    verified: bool


def offline() -> bool:
    """Whether ``PRIVFAIR_OFFLINE`` forbids any download."""
    return os.environ.get("PRIVFAIR_OFFLINE", "").strip().lower() not in {"", "0", "false", "no"}


def cache_dir() -> Path:
    """Return the folder for downloads: ``PRIVFAIR_CACHE_DIR`` or the platform's cache folder."""
    given = os.environ.get("PRIVFAIR_CACHE_DIR")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("privfair")) / "data" / f"v{registry_version()}"


def search_path(data_home: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders searched, first one first."""
    folders = []
    if data_home is not None:
        if not isinstance(data_home, str | os.PathLike):
            raise InvalidTypeError(
                f"data_home must be a path or None, got {type(data_home).__name__}."
            )
        folders.append(Path(data_home))
    given = os.environ.get("PRIVFAIR_DATA_DIR")
    if given:
        folders.append(Path(given))
    folders.append(cache_dir())
    return folders


def _present(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _in_folder(folder: Path, spec: DatasetSpec, name: str) -> Path | None:
    """Return the file in the nested or the flat layout."""
    for candidate in (folder / spec.folder / name, folder / name):
        if _present(candidate):
            return candidate
    return None


def _locate(
    spec: DatasetSpec, file: FileSpec, folders: list[Path]
) -> tuple[Path, tuple[str, ...]] | None:
    """Return the first place of a file: its path, and the members where it lies in a zip."""
    for folder in folders:
        plain = _in_folder(folder, spec, file.name)
        if plain is not None:
            return plain, ()
        for archive in file.archives:
            packed = _in_folder(folder, spec, archive.name)
            if packed is not None:
                return packed, archive.members
    return None


def _signature(path: Path, status: os.stat_result) -> tuple[str, int, int, int, int]:
    real = os.path.realpath(path)
    return (real, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stream_digest(stream: BufferedReader) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _unreadable(path: Path, error: OSError) -> DataNotAvailableError:
    return DataNotAvailableError(
        f"{path} exists and cannot be read ({type(error).__name__}). Check its permissions, or "
        "pass another folder as data_home."
    )


def _wrong(path: Path, file: FileSpec, actual: str, size: int, head: bytes) -> DataIntegrityError:
    if size == file.size:
        reason = "the size is right, so the content was changed"
    else:
        reason = f"it has {size:,} bytes instead of {file.size:,}"
        if size < file.size:
            reason += ", as a file that was cut off has"
    if head.lstrip()[:1] == b"<":
        reason += "; it begins like a web page, as a login or error page saved in its place does"
    return DataIntegrityError(
        f"{path} is not the registered {file.name}: expected sha256 {file.sha256}, actual sha256 "
        f"{actual} ({reason}). Two ways out: delete the file and fetch it again, or pass "
        "verify=False to use it as it is, which marks the result verified=False."
    )


def _read_plain(path: Path, file: FileSpec, verify: bool) -> VerifiedFile:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeFileError(f"{path} is not a regular file.")
            if status.st_size != file.size and verify:
                head = stream.read(64)
                stream.seek(0)
                raise _wrong(path, file, _stream_digest(stream), status.st_size, head)
            limit = max(file.size, MAX_UNVERIFIED)
            data = stream.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > limit:
        raise UnsafeFileError(f"{path} is larger than {limit:,} bytes and is not read.")
    key = _signature(path, status)
    actual = _HASHES.get(key)
    if actual is None or len(data) != status.st_size:
        actual = _digest(data)
        _HASHES[key] = actual
    return _judge(path, file, data, actual, verify)


def _judge(path: Path, file: FileSpec, data: bytes, actual: str, verify: bool) -> VerifiedFile:
    if actual == file.sha256:
        return VerifiedFile(file, path, data, actual, True)
    if verify:
        raise _wrong(path, file, actual, len(data), data[:64])
    warnings.warn(
        f"{path} has sha256 {actual} instead of {file.sha256} and is used because of "
        "verify=False. Results from it are marked verified=False.",
        DataVerificationWarning,
        stacklevel=6,
    )
    return VerifiedFile(file, path, data, actual, False)


def _read_packed(
    path: Path, members: tuple[str, ...], file: FileSpec, verify: bool
) -> VerifiedFile:
    top = max(a.max_size for a in file.archives)
    try:
        with path.open("rb") as stream:
            raw = stream.read(top + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(raw) > top:
        raise UnsafeFileError(f"{path} is larger than {top:,} bytes and is not read.")
    limit = file.size if len(members) == 1 else max(file.size, top)
    data = read_member(raw, members, limit=limit, label=str(path))
    return _judge(path, file, data, _digest(data), verify)


def _read(
    spec: DatasetSpec, file: FileSpec, folders: list[Path], verify: bool
) -> VerifiedFile | None:
    place = _locate(spec, file, folders)
    if place is None:
        return None
    path, members = place
    if members:
        return _read_packed(path, members, file, verify)
    return _read_plain(path, file, verify)


def content(found: VerifiedFile) -> bytes:
    """Return a file's bytes, unpacked if it is a gzip file."""
    if not found.spec.name.endswith(".gz"):
        return found.data
    size = found.spec.unpacked_size or MAX_UNVERIFIED
    limit = size if found.verified else MAX_UNVERIFIED
    return gunzip(found.data, limit=limit, label=str(found.path))


def read_files(
    name: str,
    keys: tuple[str, ...],
    *,
    data_home: str | os.PathLike[str] | None = None,
    download: str = "auto",
    verify: bool = True,
) -> list[VerifiedFile]:
    """Find, if allowed download, and verify the files of a data set.

    Parameters
    ----------
    name : str
        Registered name.
    keys : tuple of str
        The registry's keys of the files needed.
    data_home : path or None
        Searched first, and the target of a download if given.
    download : {"auto", "never"}
        Whether a file that is nowhere found may be downloaded.
    verify : bool
        With False a wrong checksum is a warning.

    Raises
    ------
    DataNotAvailableError, DataIntegrityError, UnsafeFileError, MissingDependencyError
    """
    check.one_of(("auto", "never"), download=download)
    check.boolean(verify=verify)
    spec = get_spec(name)
    folders = search_path(data_home)
    found: list[VerifiedFile] = []
    for key in keys:
        file = spec.files[key]
        item = _read(spec, file, folders, verify)
        if item is None:
            item = _obtain(spec, file, folders, download, data_home)
        found.append(item)
    return found


def _obtain(
    spec: DatasetSpec,
    file: FileSpec,
    folders: list[Path],
    download: str,
    data_home: str | os.PathLike[str] | None,
) -> VerifiedFile:
    if download == "never" or offline() or not (file.urls or file.archives):
        raise DataNotAvailableError(unavailable_message(spec, folders, download))
    from privfair.datasets._download import download_file

    target = Path(data_home) if data_home is not None else cache_dir()
    path = download_file(spec, file, target / spec.folder, folders)
    return _read_plain(path, file, True)


def unavailable_message(
    spec: DatasetSpec, folders: list[Path], download: str = "auto", detail: str = ""
) -> str:
    """Return the text that says what is missing, where it was sought and how to get it."""
    needed = "\n".join(
        f"  {f.name}  ({f.size:,} bytes, sha256 {f.sha256})"
        for f in spec.files.values()
        if not f.optional
    )
    searched = "\n".join(
        f"  {folder}{'' if folder.is_dir() else '  (does not exist)'}" for folder in folders
    )
    why = (
        "it may not be downloaded (download='never')"
        if download == "never"
        else ("PRIVFAIR_OFFLINE is set" if offline() else "it is not offered for download")
    )
    lines = [
        f"The data set {spec.name!r} was not found, and {detail or why}.",
        f"Official source: {spec.source}",
        f"Files needed:\n{needed}",
        f"Searched (in each, as <folder>/{spec.folder}/<file> and <folder>/<file>):\n{searched}",
    ]
    if spec.manual:
        lines.append(spec.manual)
    else:
        lines.append(
            f"On a machine with a connection run\n  privfair data fetch {spec.name} --to DIR\n"
            "and set PRIVFAIR_DATA_DIR=DIR here, or pass data_home=DIR."
        )
    if spec.embedded:
        lines.append(
            "A differentially private synthetic edition ships with privfair: pass "
            f"fallback='embedded' to fetch_{spec.name}. It is never used silently."
        )
    return "\n".join(lines)


def is_available(name: str, data_home: str | os.PathLike[str] | None = None) -> bool:
    """Whether every file that a data set needs is found locally; reads nothing.

    Parameters
    ----------
    name : str
        One of :func:`available_datasets`.
    data_home : path-like or None
        Folder searched before ``PRIVFAIR_DATA_DIR`` and the cache.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_available("adult") in (True, False)
    True
    """
    spec = get_spec(name)
    folders = search_path(data_home)
    needed = [file for file in spec.files.values() if not file.optional]
    return all(_locate(spec, file, folders) is not None for file in needed)


def file_state(spec: DatasetSpec, file: FileSpec, folders: list[Path]) -> dict[str, Any]:
    """Return where a file is and whether it is the registered one, without raising."""
    out: dict[str, Any] = {
        "dataset": spec.name,
        "file": file.name,
        "optional": file.optional,
        "expected_sha256": file.sha256,
        "sha256": None,
        "path": None,
        "message": None,
    }
    place = _locate(spec, file, folders)
    if place is None:
        return {**out, "status": "absent"}
    out["path"] = str(place[0])
    try:
        item = _read(spec, file, folders, True)
        if item is not None:
            content(item)
            out["sha256"] = item.sha256
    except (DataIntegrityError, UnsafeFileError) as error:
        return {**out, "status": "mismatch", "message": str(error)}
    except DataNotAvailableError as error:
        return {**out, "status": "unreadable", "message": str(error)}
    return {**out, "status": "ok"}
