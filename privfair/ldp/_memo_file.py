"""A memo store on disk: written whole or not at all, one writer at a time, its loss noticed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privfair.core.exceptions import DataIntegrityError, OutputTargetError
from privfair.ldp._memo import StoreReceipt, receipt_of

__all__ = ["StoreFile"]


class StoreFile:
    """The file of a store and its marker beside it, the receipt of the last write.

    The store is written first: a crash in between leaves a store newer than its marker, which is
    in order; a store older than its marker, or none, has lost memos.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A link is followed once: writing replaces the file, and would leave the link's target as
        # a second store that knows nothing of later memos.
        self.path = Path(path).resolve()
        self.marker = self.path.with_name(self.path.name + ".receipt")
        if not self.path.parent.is_dir():
            raise OutputTargetError(f"{self.path.parent} is no folder: a store needs one.")

    def read(self) -> bytes | None:
        """Return the bytes of the store, or None where there is none."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def receipt(self) -> StoreReceipt | None:
        """Return the marker, or None where there is none."""
        try:
            text = self.marker.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            text = ""
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise DataIntegrityError(f"{self.marker} is damaged: it should be a receipt.")
        return StoreReceipt.from_dict(document)

    def write(self, data: bytes) -> None:
        """Replace the store, then its marker."""
        receipt = json.dumps(receipt_of(data).to_dict(), sort_keys=True)
        _replace(self.path, data)
        _replace(self.marker, receipt.encode())

    def put_aside(self, number: int) -> None:
        """Keep a store that a reset replaces: it may be another user's, or be understood later."""
        self.path.replace(self.path.with_name(f"{self.path.name}.before-reset-{number}"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a lock that ends with the process: two writers would draw two memos for a value."""
        try:
            import fcntl
        except ImportError as error:  # pragma: no cover
            raise OutputTargetError(
                "a memo store on disk needs file locks that end with the process, which this "
                "system lacks. Keep the store in memory and its bytes in one place."
            ) from error
        lock = self.path.with_name(self.path.name + ".lock")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _replace(path: Path, data: bytes) -> None:
    """Write a new file, readable by its owner only, and rename it."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
