"""Reports about rows of several attributes, and their wire format."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core.exceptions import DataError, DataIntegrityError, InvalidParameterError
from privfair.core.randomness import secret_stream
from privfair.ldp._reports import (
    _CRC,
    _HEAD,
    MAGIC,
    PROTOCOL_IDS,
    VERSION,
    Reports,
    _opened,
    concatenate,
    decoded,
    encoded,
)
from privfair.ldp._rows import RowStrategy, check_rows

__all__ = ["RowReports", "randomize_rows"]


@dataclass(frozen=True, eq=False)
class RowReports:
    """Randomised reports of people with several attributes.

    Parameters
    ----------
    strategy : RowStrategy
        Which the reports were made with.
    parts : tuple of Reports
        One per attribute; of everyone, or of those who report that attribute.
    attributes : ndarray of uint16, shape (n,), or None
        Who reports which attribute, where each person reports one (:class:`SMP`).

    Attributes
    ----------
    n : int
        Number of people.

    Notes
    -----
    Safe to send to an untrusted server: that is what the strategy's ``epsilon_tuple`` bounds.
    """

    strategy: RowStrategy
    parts: tuple[Reports, ...]
    attributes: NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        marks = [part.protocol.fingerprint() for part in self.parts]
        if marks != [p.fingerprint() for p in self.strategy.protocols_]:
            raise DataError("the parts were not made with the protocols of the strategy.")
        lengths = [len(part) for part in self.parts]
        if self.strategy.samples:
            if self.attributes is None or self.attributes.dtype != np.uint16:
                raise DataError("who reports which attribute must be 16-bit numbers.")
            found = np.bincount(self.attributes, minlength=self.strategy.d)
            if found.tolist() != lengths:
                raise DataError("the attributes do not agree with the reports about them.")
            n = len(self.attributes)
        else:
            if self.attributes is not None or len(set(lengths)) != 1:
                raise DataError("everyone must report every attribute once.")
            n = lengths[0]
        object.__setattr__(self, "n", n)

    def __len__(self) -> int:
        return int(self.n)  # type: ignore[attr-defined]

    def __getitem__(self, rows: Any) -> RowReports:
        """Return some of the reports, by a slice, positions or a mask."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"there are {len(self)} reports.")
            rows = slice(int(rows), int(rows) + 1 or None)
        if self.attributes is None:
            return RowReports(self.strategy, tuple(part[rows] for part in self.parts))
        wanted = np.arange(len(self))[rows]
        attributes = self.attributes[wanted]
        place = np.empty(len(self), dtype=np.int64)  # of each person in the part of its attribute
        for j, part in enumerate(self.parts):
            place[self.attributes == j] = np.arange(len(part))
        return RowReports(
            self.strategy,
            tuple(part[place[wanted[attributes == j]]] for j, part in enumerate(self.parts)),
            attributes,
        )

    def __repr__(self) -> str:
        return f"RowReports({self.strategy.name}, d={self.strategy.d}, n={len(self)})"

    def support_matrix(self) -> NDArray[np.bool_]:
        """Return which report supports which value of which attribute, shape (n, sum of sizes).

        A row of zeros for attributes that a person did not report. Takes that many bytes.
        """
        out = np.zeros((len(self), sum(self.strategy.sizes)), dtype=bool)
        at = 0
        for j, part in enumerate(self.parts):
            held = part.protocol.support_matrix(part.payload)
            mine: Any = slice(None) if self.attributes is None else self.attributes == j
            out[mine, at : at + self.strategy.sizes[j]] = held
            at += self.strategy.sizes[j]
        return out

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the reports as an array, that of :meth:`support_matrix`."""
        return len(self), sum(self.strategy.sizes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.support_matrix(), dtype=dtype)

    def to_bytes(self) -> bytes:
        """Return the reports in wire format, version 1.

        As that of :class:`Reports`; after the header come, for strategies that sample, the
        attribute of each person (u16), and then for each attribute a byte of flags and its
        arrays.
        """
        head = _HEAD.pack(
            MAGIC, VERSION, PROTOCOL_IDS[self.strategy.name], 0, self.strategy.fingerprint(),
            len(self),
        )  # fmt: skip
        chosen = b"" if self.attributes is None else self.attributes.astype("<u2").tobytes()
        body = head + chosen + b"".join(encoded(part) for part in self.parts)
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes, strategy: RowStrategy) -> RowReports:
        """Read reports; anything that no client of the strategy can have sent is an error.

        Raises
        ------
        DataIntegrityError
            Wrong magic, version, strategy, parameters, length or checksum, or a report that the
            strategy does not have. A ``ValueError``.
        """
        head, body = _opened(data)
        _, _, number, flags, mark, n = head
        if number != PROTOCOL_IDS[strategy.name] or mark != strategy.fingerprint():
            raise DataIntegrityError(
                f"the reports were made with other parameters than {strategy!r}: mixing them "
                "would give a wrong estimate without a sign. Use the client's strategy."
            )
        if flags:
            raise DataIntegrityError(f"flags {flags} are unknown.")
        attributes, counts, at = None, [n] * strategy.d, 0
        if strategy.samples:
            at = 2 * n
            if len(body) < at:
                raise DataIntegrityError("the bytes end before all attributes were read.")
            attributes = np.frombuffer(body[:at], dtype="<u2").astype(np.uint16)
            if attributes.size and int(attributes.max()) >= strategy.d:
                raise DataIntegrityError(f"a report names an attribute outside [0, {strategy.d}).")
            counts = np.bincount(attributes, minlength=strategy.d).tolist()
        parts = []
        for protocol, count in zip(strategy.protocols_, counts, strict=True):
            part, at = decoded(protocol, body, at, count)
            parts.append(part)
        if at != len(body):
            raise DataIntegrityError("there are bytes after the last attribute.")
        return cls(strategy, tuple(parts), attributes)


def randomize_rows(
    strategy: RowStrategy, rows: ArrayLike, *, noise_random_state: int | None = None
) -> RowReports:
    """Return one report for each of many people, each of whom holds one row.

    Parameters
    ----------
    strategy : RowStrategy
        Such as ``SMP(sizes, epsilon)``.
    rows : array-like of int, shape (n, d)
        Positions in the public lists of values, one row per person.
    noise_random_state : int or None, default=None
        None draws from the operating system's entropy. An int makes the reports repeatable, for
        tests and benchmarks only.

    Returns
    -------
    RowReports

    Raises
    ------
    InvalidParameterError, InvalidTypeError, DataError
        Rows outside the domain, or none; quotes no value.

    Notes
    -----
    Each person spends ``strategy.epsilon_tuple``. O(n) per attribute, without a loop over people.

    Examples
    --------
    >>> from privfair.ldp import SMP
    >>> len(randomize_rows(SMP([3, 2], 1.0), [[0, 1], [2, 0], [1, 1]]))
    3
    """
    checked = check_rows(rows, strategy.sizes)
    attributes, payloads = strategy.randomise(checked, secret_stream(noise_random_state))
    return RowReports(
        strategy,
        tuple(Reports(p, a) for p, a in zip(strategy.protocols_, payloads, strict=True)),
        attributes,
    )


def concatenate_rows(batches: Sequence[RowReports]) -> RowReports:
    """Return the reports of several batches of one strategy as one."""
    if not batches:
        raise InvalidParameterError("there are no reports to concatenate.")
    first = batches[0].strategy
    if any(b.strategy.fingerprint() != first.fingerprint() for b in batches[1:]):
        raise InvalidParameterError("reports of different strategies cannot be joined.")
    parts = tuple(concatenate([b.parts[j] for b in batches]) for j in range(first.d))
    chosen = [b.attributes for b in batches if b.attributes is not None]
    return RowReports(first, parts, np.concatenate(chosen) if chosen else None)
