"""What SQLite does not do by itself: wait for a mode switch, notice a network mount."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from privfair.core.exceptions import LedgerError, LogIntegrityError, PrivfairWarning

__all__ = ["network_kind", "on_network", "retry_busy", "translated"]

_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ncpfs", "ceph", "glusterfs", "lustre",
    "gpfs", "beegfs", "orangefs", "vboxsf", "vmhgfs",
}  # fmt: skip
_FUSE = (
    "sshfs", "s3fs", "gcsfuse", "rclone", "glusterfs", "ceph", "nfs", "smb", "davfs", "blobfuse",
)  # fmt: skip


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn SQLite's errors into ours; what was not written was not charged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        damaged = ("malformed", "not a database", "encrypted")
        if any(word in text for word in damaged):
            raise LogIntegrityError(f"{where} is damaged or not a log: {text}.") from error
        raise LedgerError(
            f"{where} cannot be read or written ({text}). Check free disk space, "
            "permissions and other writers, then try again."
        ) from error


def retry_busy(action: Callable[[], Any], seconds: float) -> None:
    """Switching to WAL needs the file for itself and does not honour the busy timeout."""
    end = time.monotonic() + seconds
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


def network_kind(path: Path) -> str | None:
    """Return the kind of the network mount on which the file lies, or None on a local disk."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return None
    target = str(path.resolve())  # a link may lead from a local folder to a remote one
    best, kind = "", ""
    for line in mounts:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1])
        inside = target.startswith(point.rstrip("/") + "/") or point == "/"
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    fuse = kind.removeprefix("fuse.") if kind.startswith("fuse.") else ""
    remote = kind in _NETWORK or (bool(fuse) and fuse.startswith(_FUSE))
    return kind if remote else None


def on_network(path: Path) -> bool:
    """Whether the file lies on a network mount, where write-ahead logging is not safe."""
    kind = network_kind(path)
    if kind is not None:
        warnings.warn(
            f"{path} lies on a network mount ({kind}); the log falls back to the slower rollback "
            "journal and relies on that mount's file locks. A local disk is safer.",
            PrivfairWarning,
            stacklevel=2,
        )
    return kind is not None
