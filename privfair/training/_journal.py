"""Which steps of an interrupted run may have been done: a journal that can only over-count."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from privfair.core.exceptions import DataIntegrityError, OutputTargetError

__all__ = ["Journal"]


class Journal:
    """An append-only file of charges and of blocks of steps, each written before it begins.

    Parameters
    ----------
    path : Path
        Made if absent. A torn last line is dropped: what it announced had not begun, since a
        block begins only after its line is on the disk.

    Attributes
    ----------
    begun : int
        Steps that may have been done, over all attempts together.
    charged : int
        Steps that were charged for them to the ledger in use, to this file's own account: what
        was charged to another ledger, or to the folder that this is a copy of, pays for nothing
        that is done from then on.
    entry : list or None
        Number and time of the ledger entry of the last charge.
    plan : dict or None
        Plan of the run, as it was charged.
    copied : bool
        Whether this file is not the one that the journal was begun in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        fresh = not path.exists()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.begun = self.charged = 0
        self.entry: list[Any] | None = None
        self.plan: dict[str, Any] | None = None
        self.copied = False
        if fresh:
            sync_folder(path.parent)
        for line in self._lines():
            self._take(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def charge(
        self,
        steps: int,
        entry: list[Any] | None,
        plan: dict[str, Any],
        paid: int | None = None,
    ) -> None:
        """Note that so many steps are charged; called after the ledger has them.

        ``paid`` is what counts as charged before that; None is all that the journal holds.
        """
        before = self.charged if paid is None else paid
        line = {"kind": "charge", "steps": steps, "entry": entry, "plan": plan}
        self._append({**line, "paid": before, "file": self._file()})

    def begin(self, first: int, upto: int) -> None:
        """Note that the steps from ``first`` to before ``upto`` may be done from now on."""
        self._append({"kind": "begin", "from": first, "upto": upto})

    def _append(self, line: dict[str, Any]) -> None:
        rest = (json.dumps(line) + "\n").encode()
        while rest:  # a full disk may take a part without an error; the next part then fails
            written = os.write(self._handle, rest)
            if not written:
                raise OutputTargetError(f"{self._path} takes no more data: is the disk full?")
            rest = rest[written:]
        os.fsync(self._handle)
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "charge":
            self.entry, self.plan = line["entry"], line["plan"]
            self.charged = int(line["paid"]) + int(line["steps"])
            self.copied = line["file"] != self._file()
        else:
            self.begun += int(line["upto"]) - int(line["from"])

    def _lines(self) -> list[dict[str, Any]]:
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._handle, whole)
            os.fsync(self._handle)
        try:
            found = [json.loads(line) for line in data[:whole].splitlines()]
            for line in found:
                assert line["kind"] in ("charge", "begin")
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise DataIntegrityError(
                f"{self._path} is not a journal that privfair wrote, so that nobody knows how "
                "often steps were done. Begin a new run in an empty folder."
            ) from error
        return found

    def _file(self) -> list[int]:
        stat = os.fstat(self._handle)
        return [stat.st_dev, stat.st_ino]


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    if os.name != "posix":  # pragma: no cover
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
