"""What clients and server of a collection agree on, and the files in which reports travel."""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfair.core.exceptions import (
    DataIntegrityError,
    DataNotAvailableError,
    InvalidParameterError,
    InvalidTypeError,
    OutputTargetError,
    SchemaVersionError,
)
from privfair.core.randomness import secret_stream
from privfair.ldp._exact import below
from privfair.ldp._protocol import FrequencyProtocol, Ints, check_values
from privfair.ldp._reports import Reports

__all__ = ["BATCH", "STATE", "Collection", "CollectionColumn", "Frame", "append_frames", "frames",
           "make_protocol", "randomised_frames"]  # fmt: skip

FORMAT = 1
MAGIC = b"PFCF"
DESCRIPTION, BATCH, STATE = 0, 1, 2
_HEAD = struct.Struct("<4sBBHQ")  # magic, kind, padding, column, length
_CRC = struct.Struct("<I")  # of head and payload
_LONGEST_DESCRIPTION = 1 << 28
MOST_PASSES = 64
"""How often the bytes of a file may be read in vain: claims of length may overlap."""
STRATEGIES = ("smp", "spl")
_KEYS = {"name", "protocol", "epsilon", "options", "values", "edges"}


@dataclass(frozen=True)
class CollectionColumn:
    """One column of a collection: its public values and its randomiser.

    Parameters
    ----------
    name : str
    values : tuple
        The public list of values (str, int or bool), or labels of bins.
    protocol : FrequencyProtocol
        With as many values.
    edges : tuple of float or None
        Of a binned numeric column, all ends of bins, one more than ``values``; the outer ones
        may be infinite.
    """

    name: str
    values: tuple[Any, ...]
    protocol: FrequencyProtocol
    edges: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.protocol, FrequencyProtocol):
            raise InvalidTypeError(
                f"protocol must be a protocol such as OUE(k, epsilon), got "
                f"{type(self.protocol).__name__}."
            )
        object.__setattr__(self, "values", tuple(self.values))
        size = len(self.values)
        if size != self.protocol.k:
            raise InvalidParameterError(
                f"column {self.name!r} has {size} values and its protocol {self.protocol.k}."
            )
        if any(not isinstance(v, str | int) for v in self.values) or len(set(self.values)) != size:
            raise InvalidParameterError(
                f"column {self.name!r}: values must be distinct texts or whole numbers."
            )
        if self.edges is not None:
            edges = tuple(float(e) for e in self.edges)
            rising = all(a < b for a, b in zip(edges, edges[1:], strict=False))
            if len(edges) != size + 1 or not rising:
                raise InvalidParameterError(
                    f"column {self.name!r}: edges must be {size + 1} increasing numbers."
                )
            object.__setattr__(self, "edges", edges)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; epsilon as a hexadecimal float, so that it is exact."""
        options = {
            name: getattr(self.protocol, name)
            for name in ("g", "omega")
            if getattr(self.protocol, name, None) is not None
        }
        return {
            "name": self.name, "protocol": self.protocol.name,
            "epsilon": float(self.protocol.epsilon).hex(), "options": options,
            "values": list(self.values),
            "edges": None if self.edges is None else [float(e).hex() for e in self.edges],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CollectionColumn:
        """Read what :meth:`to_dict` made."""
        if not isinstance(data, Mapping) or set(data) != _KEYS:
            raise DataIntegrityError(
                f"a column of a collection has the keys {sorted(_KEYS)} and no others."
            )
        try:
            protocol = make_protocol(
                data["protocol"], len(data["values"]), float.fromhex(data["epsilon"]),
                **data["options"],
            )  # fmt: skip
            edges = data["edges"]
            return cls(
                str(data["name"]), tuple(data["values"]), protocol,
                None if edges is None else tuple(float.fromhex(e) for e in edges),
            )  # fmt: skip
        except (TypeError, ValueError, OverflowError, InvalidTypeError) as error:
            raise DataIntegrityError(f"a column of the collection is malformed: {error}") from None


def make_protocol(name: str, k: int, epsilon: float, **options: Any) -> FrequencyProtocol:
    """Return a shipped protocol by its name.

    Examples
    --------
    >>> make_protocol("OLH", 16, 1.0, g=3)
    OLH(k=16, epsilon=1.0, g=3)
    """
    import privfair.ldp as ldp

    kinds = {n: getattr(ldp, n) for n in ("GRR", "SUE", "OUE", "BLH", "OLH", "SS", "HR", "PGR")}
    if name not in kinds:
        raise InvalidParameterError(f"protocol {name!r} is unknown; there are {', '.join(kinds)}.")
    allowed = {"OLH": {"g"}, "SS": {"omega"}, "BLH": {"g"}}.get(name, set())
    if set(options) - allowed:
        raise InvalidParameterError(f"{name} has no options {sorted(set(options) - allowed)}.")
    made: FrequencyProtocol = kinds[name](k, epsilon, **options)
    return made


@dataclass(frozen=True)
class Collection:
    """The public agreement between clients and server: columns, values, randomisers.

    Parameters
    ----------
    columns : tuple of CollectionColumn
    strategy : {"smp", "spl"}, default="smp"
        With several columns: ``"smp"``, each user reports on one column, drawn uniformly without
        looking at the values; ``"spl"``, on every column.

    Attributes
    ----------
    epsilon : float
        Local differential privacy of all that one user sends, for any two rows.

    Notes
    -----
    Nothing here comes from private values: the lists of values are declared, and who reads the
    reports may know all of it. Privacy: under ``"smp"`` a user spends the largest epsilon of a
    column, since the choice of the column is independent of the row; under ``"spl"`` the sum.

    Examples
    --------
    >>> from privfair.ldp import OUE
    >>> collection = Collection((CollectionColumn("answer", ("yes", "no", "other"), OUE(3, 1.0)),))
    >>> Collection.from_bytes(collection.to_bytes()) == collection, collection.epsilon
    (True, 1.0)
    """

    columns: tuple[CollectionColumn, ...]
    strategy: str = "smp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        names = [column.name for column in self.columns]
        if not names or len(set(names)) != len(names) or len(names) > 1 << 16:
            raise InvalidParameterError("a collection needs columns with distinct names.")
        if self.strategy not in STRATEGIES:
            raise InvalidParameterError(
                f"strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}."
            )

    @property
    def epsilon(self) -> float:
        """What one user spends, for any two rows."""
        each = [float(column.protocol.epsilon) for column in self.columns]
        return max(each) if self.strategy == "smp" else math.fsum(each)

    def to_bytes(self) -> bytes:
        """Return canonical JSON: equal collections have equal bytes."""
        data = {
            "format": FORMAT, "strategy": self.strategy,
            "columns": [column.to_dict() for column in self.columns],
        }  # fmt: skip
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Collection:
        """Read what :meth:`to_bytes` made; anything else is a ``ValueError``."""
        try:
            found = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            raise DataIntegrityError("the description of the collection is not JSON.") from None
        if not isinstance(found, dict) or set(found) != {"format", "strategy", "columns"}:
            raise DataIntegrityError("the description of the collection has other keys than ours.")
        if found["format"] != FORMAT:
            raise SchemaVersionError(
                "the collection was described by another version of the format than "
                f"{FORMAT}; use the edition of privfair that its clients use."
            )
        if not isinstance(found["columns"], list) or not isinstance(found["strategy"], str):
            raise DataIntegrityError("the description of the collection is malformed.")
        try:
            return cls(
                tuple(CollectionColumn.from_dict(c) for c in found["columns"]), found["strategy"]
            )
        except InvalidParameterError as error:
            raise DataIntegrityError(f"the collection is malformed: {error}") from None


# -- files ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Frame:
    """A piece of a file that arrived whole: a batch of reports or a state, of one column."""

    kind: int
    column: int
    payload: bytes


def randomised_frames(
    collection: Collection, values: Sequence[Ints], batch_size: int = 1000
) -> list[Frame]:
    """Return fresh reports of users, in batches.

    ``values`` holds one array of places in the public list per column, with one entry per user.
    Under ``"smp"`` who reports on which column is drawn without looking at the values.
    """
    checked = [
        check_values(own, column.protocol.k)
        for own, column in zip(values, collection.columns, strict=True)
    ]
    width, chosen = len(checked), None
    stream = secret_stream(None)
    if collection.strategy == "smp" and width > 1:
        chosen = below(width, len(checked[0]), stream)
    made = []
    for at, column in enumerate(collection.columns):
        own = checked[at] if chosen is None else checked[at][chosen == at]
        for start in range(0, len(own), batch_size):
            payload = column.protocol.randomise(own[start : start + batch_size], stream)
            made.append(Frame(BATCH, at, Reports(column.protocol, payload).to_bytes()))
    return made


def _framed(kind: int, column: int, payload: bytes) -> bytes:
    body = _HEAD.pack(MAGIC, kind, 0, column, len(payload)) + payload
    return body + _CRC.pack(zlib.crc32(body))


def append_frames(
    path: Path, collection: Collection, made: list[Frame], *, replace: bool = False
) -> None:
    """Write a file of a collection, or append to one of the same collection.

    One write per call and under a lock where the system has one, so that processes may append
    to one file. A collection other than that of the file is an error, and nothing is written.
    """
    body = b"".join(_framed(f.kind, f.column, f.payload) for f in made)
    start = _framed(DESCRIPTION, 0, collection.to_bytes())
    if replace:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(start + body)
        temporary.replace(path)
        return
    with path.open("a+b") as file:
        _lock(file)
        if file.seek(0, os.SEEK_END):
            found, _ = frames(path, _described)
            if found != collection:
                raise OutputTargetError(
                    f"{path} holds reports of another collection (other columns, values, "
                    "protocol or epsilon), or is no file of reports. Take a new name."
                )
        else:
            body = start + body
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _lock(file: Any) -> None:
    try:
        import fcntl
    except ImportError:  # no such lock on this system: one process per file, then
        return
    fcntl.flock(file.fileno(), fcntl.LOCK_EX)


def _described(collection: Collection, rest: Iterator[Frame | str]) -> None:
    return None


def frames(path: Path, use: Any) -> tuple[Collection, Any]:
    """Open a file and hand its collection and an iterator over frames to a function.

    The iterator yields a :class:`Frame`, or a text that says what was lost: a piece that was cut
    or changed costs that piece only, and reading goes on at the next one.

    Returns
    -------
    (Collection, whatever ``use(collection, iterator)`` returned)
    """
    if path.is_dir():
        raise DataIntegrityError(f"{path} is a directory, not a file of reports.")
    if not path.exists():
        raise DataNotAvailableError(f"{path} does not exist.")
    if path.stat().st_size < _HEAD.size:
        raise DataIntegrityError(f"{path} is empty or too short for a file of reports.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != MAGIC:
            raise DataIntegrityError(f"{path} is no file of reports: it does not begin as one.")
        pieces = _pieces(data)
        first = next(pieces)
        if not isinstance(first, Frame) or first.kind != DESCRIPTION:
            raise DataIntegrityError(
                f"{path}: the description of the collection is cut or damaged, so that nobody "
                "can know what its reports mean."
            )
        try:
            collection = Collection.from_bytes(first.payload)
        except (DataIntegrityError, SchemaVersionError) as error:
            raise type(error)(f"{path}: {error}") from None
        return collection, use(
            collection, _checked(pieces, first.payload, len(collection.columns))
        )


def _checked(pieces: Iterator[Frame | str], own: bytes, width: int) -> Iterator[Frame | str]:
    for piece in pieces:
        if isinstance(piece, Frame) and piece.kind == DESCRIPTION:
            if piece.payload != own:
                yield "what follows belongs to another collection and was left out"
                return
            continue
        if isinstance(piece, Frame) and (piece.kind > STATE or piece.column >= width):
            yield "a piece of a kind or column that does not exist was left out"
            continue
        yield piece


def _pieces(data: mmap.mmap) -> Iterator[Frame | str]:
    at, end, vain = 0, len(data), 0
    while at < end:
        frame, after = _frame_at(data, at, end)
        if frame is not None:
            yield frame
            at = after
            continue
        vain += after - at
        if vain > MOST_PASSES * end:
            yield f"{end - at} bytes at position {at} are left out: too much before is damaged"
            return
        following = data.find(MAGIC, at + 1)
        stop = end if following < 0 else following
        yield f"{stop - at} bytes at position {at} are cut or changed{_promised(data, at)}"
        at = stop


def _frame_at(data: mmap.mmap, at: int, end: int) -> tuple[Frame | None, int]:
    if at + _HEAD.size > end:
        return None, at
    magic, kind, padding, column, length = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    if magic != MAGIC or padding or length > end - start - _CRC.size:
        return None, at
    if kind == DESCRIPTION and length > _LONGEST_DESCRIPTION:
        return None, at
    payload, stop = data[start : start + length], start + length
    (crc,) = _CRC.unpack_from(data, stop)
    if zlib.crc32(payload, zlib.crc32(data[at:start])) != crc:
        return None, stop
    return Frame(kind, column, payload), stop + _CRC.size


def _promised(data: mmap.mmap, at: int) -> str:
    """Say how many reports a damaged batch claims to have held, if its head is still there."""
    start = at + _HEAD.size
    if data[at : at + 4] != MAGIC or start + 28 > len(data) or data[at + 4] != BATCH:
        return ""
    if data[start : start + 4] != b"PFLR":
        return ""
    (n,) = struct.unpack_from("<I", data, start + 24)
    return f" (a batch of {n} reports)"
