"""Reports and their wire format: what leaves a device, byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import DataError, DataIntegrityError, InvalidParameterError
from privfair.ldp._protocol import FrequencyProtocol

__all__ = ["Reports", "concatenate"]

MAGIC = b"PFLR"
VERSION = 1
_HEAD = struct.Struct("<4sHBB16sI")
_CRC = struct.Struct("<I")
_SPARSE = 1  # flag: subsets as sorted lists, not bitmaps
PROTOCOL_IDS = {
    "GRR": 1, "SUE": 2, "OUE": 3, "BLH": 4, "OLH": 5, "SS": 6, "HR": 7, "PGR": 8, "THE": 9,
    "DBitFlipPM": 10, "CMS": 11, "HCMS": 12, "SHE": 13,
    "LGRR": 20, "LOSUE": 21, "LSUE": 22, "LOUE": 23, "LSOUE": 24, "LOLOHA": 25,
    "SPL": 40, "SMP": 41, "RSFD": 42, "RSRFD": 43, "PEM": 44,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reports:
    """Randomised reports of one protocol.

    Parameters
    ----------
    protocol : FrequencyProtocol
        Which the reports were made with.
    payload : dict of str to ndarray
        One entry or row per report.

    Attributes
    ----------
    n : int
        Number of reports.

    Notes
    -----
    Reports are safe to send to an untrusted server: that is what the protocol's epsilon bounds.
    """

    protocol: FrequencyProtocol
    payload: dict[str, NDArray[Any]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", self.protocol.check_payload(self.payload))

    def __len__(self) -> int:
        return int(self.n)  # type: ignore[attr-defined]

    def __getitem__(self, rows: Any) -> Reports:
        """Return some of the reports, by a slice, positions or a mask."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"there are {len(self)} reports.")
            rows = slice(int(rows), int(rows) + 1 or None)
        return Reports(self.protocol, {name: a[rows] for name, a in self.payload.items()})

    def __repr__(self) -> str:
        return f"Reports({self.protocol.name}, n={len(self)})"

    def to_bytes(self) -> bytes:
        """Return the reports in wire format, version 1.

        Little endian: magic ``PFLR``, version (u16), protocol (u8), flags (u8), fingerprint of
        the protocol's parameters (16 bytes), number of reports (u32), the arrays, CRC-32 of all
        that.
        """
        flags, parts = self._encode()
        head = _HEAD.pack(
            MAGIC, VERSION, PROTOCOL_IDS[self.protocol.name], flags,
            self.protocol.fingerprint(), len(self),
        )  # fmt: skip
        body = head + b"".join(parts)
        return body + _CRC.pack(zlib.crc32(body))

    def _encode(self) -> tuple[int, list[bytes]]:
        if self.protocol.name == "SS" and self._sparse_is_shorter():
            bits = self.payload["bits"]
            rows, columns = np.nonzero(
                np.unpackbits(bits, axis=1, bitorder="little", count=self.protocol.k)
            )
            kind = _subset_dtype(self.protocol.k)
            return _SPARSE, [columns.astype(kind).astype(f"<{kind().dtype.str[1:]}").tobytes()]
        return 0, [
            np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")).tobytes()
            for a in self.payload.values()
        ]

    def _sparse_is_shorter(self) -> bool:
        size = _subset_dtype(self.protocol.k)().itemsize
        omega: int = self.protocol.omega_  # type: ignore[attr-defined]
        return size * omega < -(-self.protocol.k // 8)

    @classmethod
    def from_bytes(cls, data: bytes, protocol: FrequencyProtocol) -> Reports:
        """Read reports; anything that no client of the protocol can have sent is an error.

        Raises
        ------
        DataIntegrityError
            Wrong magic, version, protocol, parameters, length or checksum, or a report that the
            protocol does not have. A ``ValueError``.
        """
        head, body = _opened(data)
        _, version, number, flags, mark, n = head
        if number != PROTOCOL_IDS[protocol.name] or mark != protocol.fingerprint():
            raise DataIntegrityError(
                f"the reports were made with other parameters than {protocol!r}: mixing them "
                "would give a wrong estimate without a sign. Use the client's protocol."
            )
        arrays = _arrays(protocol, body, n, flags)
        try:
            reports = cls(protocol, arrays)
        except DataError as error:
            raise DataIntegrityError(str(error)) from None
        if len(reports) != n:
            raise DataIntegrityError("the number of reports is not the one in the header.")
        return reports


def _opened(data: bytes) -> tuple[tuple[Any, ...], bytes]:
    if len(data) < _HEAD.size + _CRC.size:
        raise DataIntegrityError(
            f"{len(data)} bytes are too few for reports: the file was cut, or is none of ours."
        )
    head = _HEAD.unpack_from(data)
    if head[0] != MAGIC:
        raise DataIntegrityError("these bytes do not begin as reports do (PFLR).")
    if head[1] != VERSION:
        raise DataIntegrityError(
            f"version {head[1]} of the wire format is unknown; it is {VERSION}."
        )
    (crc,) = _CRC.unpack_from(data, len(data) - _CRC.size)
    if zlib.crc32(data[: -_CRC.size]) != crc:
        raise DataIntegrityError("the checksum does not match: the bytes were cut or changed.")
    return head, data[_HEAD.size : -_CRC.size]


def _subset_dtype(k: int) -> Any:
    return np.uint16 if k <= 1 << 16 else np.uint32


def _arrays(
    protocol: FrequencyProtocol, body: bytes, n: int, flags: int
) -> dict[str, NDArray[Any]]:
    if flags & ~(_SPARSE if protocol.name == "SS" else 0):
        raise DataIntegrityError(f"flags {flags} are unknown.")
    if flags & _SPARSE:
        return _from_subsets(protocol, body, n)
    empty, sizes = _layout(protocol)
    if len(body) != n * sum(sizes.values()):
        raise DataIntegrityError(
            f"{n} reports take {n * sum(sizes.values())} bytes, and there are {len(body)}."
        )
    out, at = {}, 0
    for name, like in empty.items():
        end = at + n * sizes[name]
        flat = np.frombuffer(body[at:end], dtype=like.dtype.newbyteorder("<"))
        out[name] = flat.astype(like.dtype).reshape((n, *like.shape[1:]))
        at = end
    return out


def _layout(protocol: FrequencyProtocol) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    """Return the arrays of no report, and the bytes that one report takes in each."""
    empty = protocol.empty_payload()
    return empty, {name: int(np.prod(a.shape[1:])) * a.dtype.itemsize for name, a in empty.items()}


def encoded(reports: Reports) -> bytes:
    """Return reports without their header, after a byte of flags."""
    flags, parts = reports._encode()
    return bytes([flags]) + b"".join(parts)


def decoded(protocol: FrequencyProtocol, data: bytes, at: int, n: int) -> tuple[Reports, int]:
    """Return n reports that :func:`encoded` wrote at a place, and the place after them."""
    if at >= len(data):
        raise DataIntegrityError("the bytes end before all attributes were read.")
    flags = data[at]
    if flags & _SPARSE and protocol.name == "SS":
        size = protocol.omega_ * _subset_dtype(protocol.k)().itemsize  # type: ignore[attr-defined]
    else:
        size = sum(_layout(protocol)[1].values())
    end = at + 1 + n * size
    arrays = _arrays(protocol, data[at + 1 : end], n, flags)
    try:
        return Reports(protocol, arrays), end
    except DataError as error:
        raise DataIntegrityError(str(error)) from None


def _from_subsets(protocol: FrequencyProtocol, body: bytes, n: int) -> dict[str, NDArray[Any]]:
    kind, omega, k = _subset_dtype(protocol.k), protocol.omega_, protocol.k  # type: ignore[attr-defined]
    if len(body) != n * omega * kind().itemsize:
        raise DataIntegrityError(f"{n} subsets of {omega} values have another length.")
    columns = np.frombuffer(body, dtype=np.dtype(kind).newbyteorder("<")).astype(np.int64)
    columns = columns.reshape(n, omega)
    if columns.size and (int(columns.max()) >= k or (np.diff(columns, axis=1) <= 0).any()):
        raise DataIntegrityError("a subset is not sorted, or has a value outside the domain.")
    bits = np.zeros((n, -(-k // 8)), dtype=np.uint8)
    rows = np.repeat(np.arange(n), omega)
    flat = columns.reshape(-1)
    np.bitwise_or.at(bits, (rows, flat >> 3), np.left_shift(1, flat & 7).astype(np.uint8))
    return {"bits": bits}


def concatenate(parts: Sequence[Reports]) -> Reports:
    """Return the reports of several batches of one protocol as one.

    Examples
    --------
    >>> from privfair.ldp import GRR, Reports
    >>> import numpy as np
    >>> one = Reports(GRR(4, 1.0), {"code": np.array([0, 3], dtype=np.uint8)})
    >>> len(concatenate([one, one]))
    4
    """
    if not parts:
        raise InvalidParameterError("there are no reports to concatenate.")
    first = parts[0].protocol
    for other in parts[1:]:
        if other.protocol.fingerprint() != first.fingerprint():
            raise InvalidParameterError(
                f"reports of {other.protocol!r} cannot join those of {first!r}."
            )
    names = parts[0].payload
    return Reports(
        first, {name: np.concatenate([p.payload[name] for p in parts]) for name in names}
    )
