"""Files of reports: framed batches that survive a cut, and sums over many files."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataIntegrityError,
    DataVerificationWarning,
    InvalidParameterError,
    InvalidTypeError,
    MissingDependencyError,
)
from privfair.ldp._aggregator import Aggregator
from privfair.ldp._collection import BATCH, MOST_PASSES, frames
from privfair.ldp._collection import MAGIC as COLLECTION
from privfair.ldp._protocol import FrequencyProtocol
from privfair.ldp._reports import Reports
from privfair.ldp._row_aggregator import RowAggregator
from privfair.ldp._row_reports import RowReports
from privfair.ldp._rows import RowStrategy

__all__ = ["FileSums", "ReportFile", "aggregate_files", "read_reports", "write_reports"]

FRAME = b"PFLF"
_FRAME = struct.Struct("<4sIII")  # magic, number of reports, bytes, CRC-32 of these
_MOST_TOLD = 20


def write_reports(
    path: str | os.PathLike[str], reports: Reports | RowReports, *, per_frame: int = 256
) -> int:
    """Append reports to a file, in frames that can be read one without the other.

    Parameters
    ----------
    path : path
        Made if it does not exist; what is in it stays.
    reports : Reports or RowReports
        Of one protocol or strategy.
    per_frame : int, default=256
        Reports per frame: what is lost together when the file is damaged there. A device that
        appends its own report makes a frame of one.

    Returns
    -------
    int
        Bytes written: 48 per frame beside the reports.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from privfair.ldp import GRR, randomize, read_reports
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.rpt"
    >>> write_reports(path, randomize(GRR(4, 1.0), [0, 1, 2, 3]), per_frame=1)
    196
    >>> whole = path.write_bytes(path.read_bytes()[:-10])  # the last report is cut
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     found = read_reports(path, GRR(4, 1.0))
    ...     sum(len(batch) for batch in found), found.lost_reports
    (3, 1)
    """
    if not isinstance(reports, Reports | RowReports):
        raise InvalidTypeError(
            f"reports must be Reports or RowReports, got {type(reports).__name__}."
        )
    size = check.positive_int(per_frame=per_frame)
    written = 0
    with open(path, "ab") as file:
        for start in range(0, len(reports), size):
            batch = reports[start : start + size]
            data = batch.to_bytes()
            head = struct.pack("<4sII", FRAME, len(batch), len(data))
            written += file.write(head + struct.pack("<I", zlib.crc32(head)) + data)
    return written


class ReportFile:
    """The intact reports of a file, batch by batch, and a count of what was lost.

    Parameters
    ----------
    path : path
        What :func:`write_reports` wrote, one batch in wire format, or what
        ``privfair ldp privatize`` wrote of one column.
    protocol : FrequencyProtocol or RowStrategy
        The clients'.

    Attributes
    ----------
    n_reports : int
        Intact reports read so far.
    lost_frames : int
        Damaged frames, and stretches of bytes that are no frame.
    lost_reports : int
        Reports in damaged frames; a lower bound where a frame's head is damaged, too.
    lost_bytes : int
    problems : list of str
        Where and why, the first 20; quotes no report.

    Notes
    -----
    Iterate as often as you like; the counts are those of the last pass. A damaged frame is
    skipped, and the next one found by its mark and checksum. At the end of a pass with losses a
    ``DataVerificationWarning`` says how many. Reports made with other parameters are an error,
    not a loss: skipping them would hide a wrong deployment.
    """

    def __init__(
        self, path: str | os.PathLike[str], protocol: FrequencyProtocol | RowStrategy
    ) -> None:
        _aggregator_of(protocol)  # checks the type
        self.path = Path(path)
        self.protocol = protocol
        self._reset()

    def _reset(self) -> None:
        self.n_reports = self.lost_frames = self.lost_reports = self.lost_bytes = 0
        self.problems: list[str] = []

    def __repr__(self) -> str:
        return f"ReportFile({self.path.name!r}, n_reports={self.n_reports})"

    def __iter__(self) -> Iterator[Any]:
        self._reset()
        data = self.path.read_bytes()
        view, at, vain = memoryview(data), 0, 0
        if data[:4] == b"PFLR":  # one batch, as a single client or server wrote it
            batch = self._batch(data, 0, None)
            if batch is not None:
                yield batch
            at = len(data)
        elif data[:4] == COLLECTION:
            yield from self._of_collection()
            at = len(data)
        while at < len(data):
            head = _frame_at(view, at)
            if head is None:
                start, at = at, _next_frame(data, at + 1)
                self._lose(start, at - start, None, "no frame begins here, or its head is damaged")
                continue
            n, size = head
            begin = at + _FRAME.size
            if begin + size > len(data):
                following = _next_frame(data, begin)
                self._lose(at, following - at, n, "the frame is cut")
                at = following
                continue
            batch = self._batch(data[begin : begin + size], at, n)
            if batch is not None:
                yield batch
                at = begin + size
                continue
            vain += size
            if vain > MOST_PASSES * len(data):
                self._lose(begin, len(data) - begin, None, "too much before is damaged")
                break
            at = _next_frame(data, begin)
        if self.lost_frames:
            warnings.warn(
                f"{self.path.name}: at least {self.lost_reports} reports in {self.lost_frames} "
                f"damaged places ({self.lost_bytes} bytes) were lost; {self.n_reports} reports "
                f"are intact and were read. First: {self.problems[0]}",
                DataVerificationWarning,
                stacklevel=2,
            )

    def _of_collection(self) -> Iterator[Any]:
        """Yield the batches of a file that the command line wrote, of one column."""
        found, pieces = frames(self.path, lambda collection, rest: (collection, list(rest)))[1]
        if (
            len(found.columns) > 1
            or found.columns[0].protocol.fingerprint() != self.protocol.fingerprint()
        ):
            raise DataIntegrityError(
                f"{self.path.name} holds reports of another collection than {self.protocol!r}, or "
                "of several columns, which `privfair ldp aggregate` reads."
            )
        for piece in pieces:
            if isinstance(piece, str):
                self._lose(0, 0, None, piece)
                continue
            if piece.kind != BATCH:
                raise DataIntegrityError(f"{self.path.name} holds sums, not reports.")
            batch = self._batch(piece.payload, 0, None)
            if batch is not None:
                yield batch

    def _batch(self, data: bytes, at: int, n: int | None) -> Any:
        intact = len(data) > 4 and zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
        if not intact:
            self._lose(at, len(data), n, "the checksum of the reports does not match")
            return None
        kind: Any = Reports if isinstance(self.protocol, FrequencyProtocol) else RowReports
        try:
            batch = kind.from_bytes(data, self.protocol)
        except DataIntegrityError:
            if data[:4] == b"PFLR" and data[8:24] != self.protocol.fingerprint():
                raise  # intact reports of another protocol: a mistake of the deployment, no loss
            self._lose(at, len(data), n, "no client of the protocol sends such reports")
            return None
        self.n_reports += len(batch)
        return batch

    def _lose(self, at: int, size: int, n: int | None, why: str) -> None:
        self.lost_frames += 1
        self.lost_reports += 1 if n is None else n
        self.lost_bytes += size
        if len(self.problems) < _MOST_TOLD:
            self.problems.append(f"byte {at}: {why}.")


def _frame_at(data: memoryview, at: int) -> tuple[int, int] | None:
    """Return number of reports and of bytes of the frame that begins here, if one does."""
    if at + _FRAME.size > len(data) or data[at : at + 4] != FRAME:
        return None
    _, n, size, crc = _FRAME.unpack_from(data, at)
    return (n, size) if zlib.crc32(data[at : at + 12]) == crc else None


def _next_frame(data: bytes, at: int) -> int:
    """Return where the next frame with an intact head begins, or the end."""
    view = memoryview(data)
    while True:
        at = data.find(FRAME, at)
        if at < 0:
            return len(data)
        if _frame_at(view, at) is not None:
            return at
        at += 1


def read_reports(
    path: str | os.PathLike[str], protocol: FrequencyProtocol | RowStrategy
) -> ReportFile:
    """Return the intact reports of a file, batch by batch, with a count of what was lost.

    Parameters
    ----------
    path : path
        What :func:`write_reports` wrote, or one batch in wire format.
    protocol : FrequencyProtocol or RowStrategy
        The clients'.

    Returns
    -------
    ReportFile
        Iterable over batches.

    Raises
    ------
    DataIntegrityError
        While iterating: intact reports that were made with other parameters.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from privfair.ldp import OUE, randomize
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.rpt"
    >>> _ = write_reports(path, randomize(OUE(4, 1.0), [0, 1, 2, 3]))
    >>> [len(batch) for batch in read_reports(path, OUE(4, 1.0))]
    [4]
    """
    return ReportFile(path, protocol)


@dataclass(frozen=True, eq=False)
class FileSums:
    """Sums of all intact reports of several files.

    Attributes
    ----------
    aggregator : Aggregator or RowAggregator
    n_files : int
    n_reports : int
    lost_reports : int
        Lower bound, as in :class:`ReportFile`.
    lost_bytes : int
    damaged : dict of str to list of str
        Path to what is wrong there.
    """

    aggregator: Any
    n_files: int
    n_reports: int
    lost_reports: int
    lost_bytes: int
    damaged: dict[str, list[str]]


def aggregate_files(
    paths: Iterable[str | os.PathLike[str]],
    protocol: FrequencyProtocol | RowStrategy,
    *,
    engine: str = "serial",
    scheduler: Any = None,
) -> FileSums:
    """Add up the reports of many files, here or on a Dask cluster.

    Parameters
    ----------
    paths : iterable of path
        Each is read by itself; on a cluster they must be visible from every worker.
    protocol : FrequencyProtocol or RowStrategy
        The clients'.
    engine : {"serial", "dask"}, default="serial"
        ``"dask"`` makes one task per file and adds up in a tree; it uses the active
        ``dask.distributed`` client where there is one. Needs the extra ``privfair[dask]``.
    scheduler : str or None, default=None
        Passed to ``dask.compute``, such as ``"threads"``.

    Returns
    -------
    FileSums
        Equal bit for bit whatever the engine and the order of the files: sums of integers.

    Raises
    ------
    MissingDependencyError
        ``engine="dask"`` without Dask.
    DataIntegrityError
        Intact reports that were made with other parameters.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from privfair.ldp import GRR, randomize
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(3):
    ...     _ = write_reports(folder / f"{i}.rpt", randomize(GRR(4, 1.0), [0, 1, 2, 3]))
    >>> aggregate_files(sorted(folder.glob("*.rpt")), GRR(4, 1.0)).aggregator.n_reports_
    12
    """
    check.one_of(("serial", "dask"), engine=engine)
    _aggregator_of(protocol)
    files = [os.fspath(path) for path in paths]
    if not files:
        raise InvalidParameterError("paths must name at least one file of reports.")
    if engine == "serial":
        return _gathered([_summed(path, protocol) for path in files], protocol)
    try:
        import dask
    except ImportError as error:
        raise MissingDependencyError(
            "engine='dask' needs Dask: pip install 'privfair[dask]'."
        ) from error
    layer = [dask.delayed(_summed)(path, protocol) for path in files]
    while len(layer) > 1:
        layer = [
            dask.delayed(_gathered)(layer[i : i + 8], protocol) for i in range(0, len(layer), 8)
        ]
    options = {} if scheduler is None else {"scheduler": scheduler}
    (found,) = dask.compute(layer[0], **options)
    return _gathered([found], protocol)


def _summed(path: str, protocol: FrequencyProtocol | RowStrategy) -> FileSums:
    aggregator, file = _aggregator_of(protocol), ReportFile(path, protocol)
    for batch in file:
        aggregator.partial_fit(batch)
    damaged = {path: file.problems} if file.problems else {}
    return FileSums(aggregator, 1, file.n_reports, file.lost_reports, file.lost_bytes, damaged)


def _gathered(parts: Sequence[FileSums], protocol: FrequencyProtocol | RowStrategy) -> FileSums:
    total = _aggregator_of(protocol)
    for part in parts:
        total = total.merge(part.aggregator)
    return FileSums(
        total,
        sum(part.n_files for part in parts),
        sum(part.n_reports for part in parts),
        sum(part.lost_reports for part in parts),
        sum(part.lost_bytes for part in parts),
        {path: why for part in parts for path, why in part.damaged.items()},
    )


def _aggregator_of(protocol: Any) -> Any:
    return RowAggregator(protocol) if isinstance(protocol, RowStrategy) else Aggregator(protocol)
