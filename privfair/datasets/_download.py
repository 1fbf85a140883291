"""Downloads: https only, pinned, bounded, atomic, locked, retried. Needs the extra ``data``."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from privfair.core.exceptions import (
    DataIntegrityError,
    DataNotAvailableError,
    MissingDependencyError,
    UnsafeFileError,
)
from privfair.datasets._archive import read_member
from privfair.datasets._registry import Archive, DatasetSpec, FileSpec

__all__ = ["download_file"]

ATTEMPTS = 3
BACKOFF = 1.0  # seconds, doubled after each round
TIMEOUT = 30.0  # seconds to connect, and between two pieces
SLOWEST = 20_000  # bytes per second, below which a transfer is given up


class _Refused(Exception):
    """A transfer that broke one of our rules."""


class _Bounded:
    """A file that takes at most ``limit`` bytes and not for ever."""

    def __init__(self, raw: IO[bytes], limit: int) -> None:
        self._raw = raw
        self._left = limit
        self._deadline = time.monotonic() + TIMEOUT + limit / SLOWEST

    def write(self, chunk: bytes) -> int:
        self._left -= len(chunk)
        if self._left < 0:
            raise _Refused("more bytes came than the registry states")
        if time.monotonic() > self._deadline:
            raise _Refused(f"the transfer was slower than {SLOWEST} bytes per second")
        return self._raw.write(chunk)

    def flush(self) -> None:
        self._raw.flush()


def _check_response(limit: int) -> Any:
    """Return a hook that sees every response before any redirect is followed."""

    def hook(response: Any, *args: Any, **kwargs: Any) -> None:
        if urlsplit(response.url).scheme != "https":
            raise _Refused("the address is not https")
        target = response.headers.get("location")
        if target and urlsplit(urljoin(response.url, target)).scheme != "https":
            raise _Refused("the server redirects away from https")
        length = response.headers.get("content-length", "")
        if not target and length.isdigit() and int(length) > limit:
            raise _Refused("the server announces more bytes than the registry states")

    return hook


def _pooch(spec: DatasetSpec) -> Any:
    try:
        import pooch
    except ImportError as error:
        raise MissingDependencyError(
            f"Downloading {spec.name!r} needs the optional package pooch. Install it with "
            f"pip install 'privfair[data]', or get the files from {spec.source} on any machine "
            "and set PRIVFAIR_DATA_DIR to their folder: no extra is needed then."
        ) from error
    return pooch


def _transfer(pooch: Any, url: str, path: Path, limit: int) -> None:
    # tqdm is optional even for pooch; a bar is for people at a terminal only.
    bar = sys.stderr.isatty()
    if bar:
        try:
            import tqdm  # noqa: F401
        except ImportError:
            bar = False
    get = pooch.HTTPDownloader(
        progressbar=bar,
        chunk_size=1 << 16,
        timeout=TIMEOUT,
        hooks={"response": _check_response(limit)},
        headers={"Accept-Encoding": "identity"},
    )
    with path.open("wb") as raw:
        get(url, _Bounded(raw, limit), None)
        raw.flush()
        os.fsync(raw.fileno())


def _pinned(data: bytes, file: FileSpec) -> bytes:
    actual = hashlib.sha256(data).hexdigest()
    if actual != file.sha256:
        page = "; it begins like a web page" if data.lstrip()[:1] == b"<" else ""
        raise DataIntegrityError(
            f"expected sha256 {file.sha256}, actual sha256 {actual}, {len(data):,} bytes{page}"
        )
    return data


def _one_source(pooch: Any, source: str | Archive, file: FileSpec, temporary: Path) -> bytes:
    """Download from one address and return the verified bytes of the file."""
    if isinstance(source, Archive):
        _transfer(pooch, source.url, temporary, source.max_size)
        limit = file.size if len(source.members) == 1 else max(file.size, source.max_size)
        raw = temporary.read_bytes()
        return _pinned(read_member(raw, source.members, limit=limit, label=source.url), file)
    _transfer(pooch, source, temporary, file.size + file.size // 100)
    return _pinned(temporary.read_bytes(), file)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock, so that parallel workers download once."""
    with path.open("a+b") as handle:
        if sys.platform == "win32":  # pragma: no cover - exercised on Windows only
            import msvcrt

            while True:
                try:
                    msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    time.sleep(0.1)
            try:
                yield
            finally:
                handle.seek(0)
                msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle.fileno(), fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(handle.fileno(), fcntl.LOCK_UN)


def _already_there(target: Path, file: FileSpec) -> bool:
    """Whether another worker has just put the right file there."""
    if not target.is_file() or target.stat().st_size != file.size:
        return False
    return hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256


def _fetch_into(
    pooch: Any, spec: DatasetSpec, file: FileSpec, target: Path, folders: list[Path]
) -> None:
    from privfair.datasets._files import unavailable_message

    sources: list[str | Archive] = [*file.urls, *file.archives]
    failures: list[str] = []
    integrity: DataIntegrityError | UnsafeFileError | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        for source in sources:
            url = source.url if isinstance(source, Archive) else source
            handle, name = tempfile.mkstemp(prefix=".download-", dir=target.parent)
            os.close(handle)
            temporary = Path(name)
            try:
                data = _one_source(pooch, source, file, temporary)
                temporary.write_bytes(data)
                os.replace(temporary, target)
                return
            except (DataIntegrityError, UnsafeFileError) as error:
                integrity = error
                failures.append(f"{url}: {error}")
            except _Refused as error:
                failures.append(f"{url}: {error}")
            except (OSError, ValueError) as error:  # requests' errors are OSErrors
                failures.append(f"{url}: {type(error).__name__}")
            finally:
                temporary.unlink(missing_ok=True)
    listed = "\n".join(f"  {line}" for line in dict.fromkeys(failures))
    if integrity is not None:
        raise DataIntegrityError(
            f"{file.name} could not be downloaded as registered; nothing was kept.\n{listed}\n"
            "If you are behind a login page or a proxy, fetch it on another machine with "
            f"privfair data fetch {spec.name} --to DIR."
        )
    detail = f"no address delivered it ({ATTEMPTS} rounds):\n{listed}\n"
    raise DataNotAvailableError(unavailable_message(spec, folders, detail=detail))


def download_file(spec: DatasetSpec, file: FileSpec, folder: Path, folders: list[Path]) -> Path:
    """Download one registered file into a folder and return its path.

    Parameters
    ----------
    spec, file : DatasetSpec, FileSpec
        What to download; the checksum is part of it.
    folder : Path
        Where it goes; made if absent.
    folders : list of Path
        The folders searched before, for the message.

    Raises
    ------
    MissingDependencyError
        pooch is not installed.
    DataNotAvailableError
        The folder is not writable, or no address delivered.
    DataIntegrityError
        An address delivered other bytes, and no address the right ones.
    """
    pooch = _pooch(spec)
    from privfair.datasets._files import unavailable_message

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{file.name}.lock"):
            target = folder / file.name
            if not _already_there(target, file):
                _fetch_into(pooch, spec, file, target, folders)
    except PermissionError as error:
        detail = f"{folder} is not writable"
        raise DataNotAvailableError(unavailable_message(spec, folders, detail=detail)) from error
    except DataNotAvailableError:
        raise
    except OSError as error:
        detail = f"{folder} cannot be used ({type(error).__name__})"
        raise DataNotAvailableError(unavailable_message(spec, folders, detail=detail)) from error
    return folder / file.name
