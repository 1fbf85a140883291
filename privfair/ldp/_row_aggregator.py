"""The server's side of several attributes: one sum of reports per attribute."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    DataIntegrityError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.ldp._aggregator import _RULES, Aggregator
from privfair.ldp._estimate import FrequencyEstimate, estimate_from_law
from privfair.ldp._fakes import RSFD
from privfair.ldp._postprocess import POSTPROCESS, postprocess
from privfair.ldp._row_reports import RowReports
from privfair.ldp._rows import RowStrategy

__all__ = ["RowAggregator"]

MAGIC = b"PFRA"
VERSION = 1
_HEAD = struct.Struct("<4sHH16sq")
_LENGTH = struct.Struct("<I")
_CRC = struct.Struct("<I")


def sampled_deviation(found: FrequencyEstimate, n: int) -> NDArray[np.float64]:
    """Return deviations about the frequencies among all n people, of whom some reported.

    Who reports was drawn without replacement: f (1 - f) / m (n - m) / (n - 1) joins the variance
    among the m who did.
    """
    share = np.clip(found.frequencies_raw, 0.0, 1.0)
    rest = (n - found.n) / max(n - 1, 1)
    return np.asarray(np.sqrt(found.std**2 + share * (1 - share) / found.n * rest))


class RowAggregator:
    """Adds up reports about rows, and estimates the frequencies of every attribute.

    Parameters
    ----------
    strategy : RowStrategy
        The one that the clients use.
    names : sequence of str or None, default=None
        Names of the attributes; None stands for 0, ..., d - 1.
    values : sequence of sequences or None, default=None
        The public list of values of each attribute.

    Attributes
    ----------
    n_reports_ : int
        Number of people.

    Notes
    -----
    Aggregators of one strategy form a commutative monoid under :meth:`merge`, bit for bit.
    Privacy: everything here is computed from reports, at no further cost.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.ldp import SMP, RowAggregator, randomize_rows
    >>> strategy = SMP([2, 3], 2.0)
    >>> rows = np.column_stack([np.arange(6000) % 2, np.arange(6000) % 3])
    >>> reports = randomize_rows(strategy, rows, noise_random_state=0)
    >>> server = RowAggregator(strategy, ["a", "b"]).partial_fit(reports.to_bytes())
    >>> bool(abs(server.estimate("b").frequencies - 1 / 3).max() < 0.08)
    True
    """

    def __init__(
        self,
        strategy: RowStrategy,
        names: Sequence[str] | None = None,
        values: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        if not isinstance(strategy, RowStrategy):
            raise InvalidTypeError(
                f"strategy must be one such as SMP(sizes, epsilon), got {type(strategy).__name__}."
            )
        for label, given in (("names", names), ("values", values)):
            if given is not None and len(given) != strategy.d:
                raise InvalidParameterError(
                    f"{label} must have an entry for each of the {strategy.d} attributes, got "
                    f"{len(given)}."
                )
        self.strategy = strategy
        self.names: tuple[Any, ...] = tuple(range(strategy.d) if names is None else names)
        lists = [None] * strategy.d if values is None else list(values)
        self.values = None if values is None else tuple(tuple(v) for v in values)
        self._parts = [Aggregator(p, v) for p, v in zip(strategy.protocols_, lists, strict=True)]
        self.n_reports_ = 0

    @property
    def attributes_(self) -> tuple[Aggregator, ...]:
        """The sums of each attribute."""
        return tuple(self._parts)

    def partial_fit(self, reports: RowReports | bytes) -> RowAggregator:
        """Add reports, as objects or in wire format; an error adds none of them."""
        if isinstance(reports, bytes | bytearray | memoryview):
            reports = RowReports.from_bytes(bytes(reports), self.strategy)
        if not isinstance(reports, RowReports):
            raise InvalidTypeError(
                f"reports must be RowReports or their bytes, got {type(reports).__name__}."
            )
        if reports.strategy.fingerprint() != self.strategy.fingerprint():
            raise InvalidParameterError(
                f"reports of {reports.strategy!r} cannot be added to those of {self.strategy!r}."
            )
        for mine, part in zip(self._parts, reports.parts, strict=True):
            mine.partial_fit(part)
        self.n_reports_ += len(reports)
        return self

    def merge(self, other: RowAggregator) -> RowAggregator:
        """Return an aggregator of the reports of both."""
        if not isinstance(other, RowAggregator):
            raise InvalidTypeError(f"other must be a RowAggregator, got {type(other).__name__}.")
        if other.strategy.fingerprint() != self.strategy.fingerprint():
            raise InvalidParameterError(
                f"an aggregator of {other.strategy!r} cannot be merged with one of "
                f"{self.strategy!r}: their reports mean different things."
            )
        out = RowAggregator(
            self.strategy, self.names, self.values if self.values is not None else other.values
        )
        out._parts = [a + b for a, b in zip(self._parts, other._parts, strict=True)]
        out.n_reports_ = self.n_reports_ + other.n_reports_
        return out

    def __add__(self, other: RowAggregator) -> RowAggregator:
        return self.merge(other)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RowAggregator)
            and other.strategy.fingerprint() == self.strategy.fingerprint()
            and other.n_reports_ == self.n_reports_
            and all(a == b for a, b in zip(self._parts, other._parts, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    # -- estimates -----------------------------------------------------------------------------
    def index(self, attribute: Any) -> int:
        """Return the position of an attribute, given by name or position."""
        if attribute in self.names:
            return self.names.index(attribute)
        if isinstance(attribute, int | np.integer) and 0 <= attribute < self.strategy.d:
            return int(attribute)
        raise InvalidParameterError(
            f"attribute must be one of {list(self.names)}, got {attribute!r}."
        )

    def estimate(
        self,
        attribute: Any,
        postprocess: str | None = None,
        confidence: float = 0.95,
        simultaneous: bool = False,
    ) -> FrequencyEstimate:
        """Return the frequencies of one attribute with intervals.

        Parameters
        ----------
        attribute : str or int
            Name or position.
        postprocess, confidence, simultaneous
            As in :meth:`Aggregator.estimate`; ``"ibu"`` rules need a report that is about its
            person, which those of RS+FD are not.

        Returns
        -------
        FrequencyEstimate

        Raises
        ------
        DataError
            There is no report about the attribute yet.
        """
        j = self.index(attribute)
        if postprocess is not None:
            check.one_of(_RULES, postprocess=postprocess)
        part = self._parts[j]
        if not isinstance(self.strategy, RSFD):
            found = part.estimate(postprocess, confidence, simultaneous)
            if not self.strategy.samples:
                return found
            return replace(found, std=sampled_deviation(found, self.n_reports_))
        return self._from_fakes(j, self.strategy, postprocess, confidence, simultaneous)

    def estimate_all(self, **options: Any) -> dict[Any, FrequencyEstimate]:
        """Return the estimates of all attributes, by name; options as in :meth:`estimate`."""
        return {name: self.estimate(j, **options) for j, name in enumerate(self.names)}

    def _from_fakes(
        self, j: int, strategy: RSFD, rule: str | None, confidence: float, simultaneous: bool
    ) -> FrequencyEstimate:
        if rule is not None and rule not in POSTPROCESS:
            raise InvalidParameterError(
                f"{rule!r} has no likelihood for reports with fakes among them; use one of "
                f"{', '.join(POSTPROCESS)}."
            )
        n, protocol = self.n_reports_, strategy.protocols_[j]
        if n == 0:
            raise DataError("no report has arrived yet: there is nothing to estimate from.")
        p, q = strategy.column_law(j)
        raw = estimate_from_law(
            p, q, self._parts[j].counts_, n, values=self._parts[j].values,
            confidence=confidence, simultaneous=simultaneous,
            details={"protocol": protocol.name, "epsilon": protocol.epsilon,
                     "strategy": strategy.name, "fake": strategy.fake},
        )  # fmt: skip
        if rule is None:
            return raw
        null = np.sqrt(q * (1 - q) / (n * (p - q) ** 2))
        return replace(
            raw, frequencies=postprocess(raw.frequencies_raw, rule, std=null), postprocess=rule
        )

    # -- state ---------------------------------------------------------------------------------
    def to_bytes(self) -> bytes:
        """Return the sums, to be merged elsewhere."""
        body = _HEAD.pack(MAGIC, VERSION, 0, self.strategy.fingerprint(), self.n_reports_)
        for part in self._parts:
            data = part.to_bytes()
            body += _LENGTH.pack(len(data)) + data
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        strategy: RowStrategy,
        names: Sequence[str] | None = None,
        values: Sequence[Sequence[Any]] | None = None,
    ) -> RowAggregator:
        """Read what :meth:`to_bytes` wrote; anything else is a ``ValueError``."""
        if len(data) < _HEAD.size + _CRC.size or data[:4] != MAGIC:
            raise DataIntegrityError("these bytes are no state of an aggregator, or were cut.")
        (crc,) = _CRC.unpack_from(data, len(data) - _CRC.size)
        if zlib.crc32(data[: -_CRC.size]) != crc:
            raise DataIntegrityError("the checksum does not match: the bytes were cut or changed.")
        _, version, _, mark, n = _HEAD.unpack_from(data)
        if version != VERSION:
            raise DataIntegrityError(f"version {version} of the state is unknown.")
        if mark != strategy.fingerprint():
            raise DataIntegrityError(f"the state belongs to other parameters than {strategy!r}.")
        out, at, end = cls(strategy, names, values), _HEAD.size, len(data) - _CRC.size
        for j, (protocol, part) in enumerate(zip(strategy.protocols_, out._parts, strict=True)):
            if at + _LENGTH.size > end:
                raise DataIntegrityError("the state ends before all attributes were read.")
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            if at + size > end:
                raise DataIntegrityError("the state ends before all attributes were read.")
            out._parts[j] = Aggregator.from_bytes(data[at : at + size], protocol, part.values)
            at += size
        found = [part.n_reports_ for part in out._parts]
        if at != end or (sum(found) != n if strategy.samples else set(found) != {n}):
            raise DataIntegrityError("the state does not agree with the number of its reports.")
        out.n_reports_ = int(n)
        return out
