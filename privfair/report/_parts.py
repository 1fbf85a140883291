"""The parts that sections are made of: values, findings, tables, figures, blocks.

All classes are frozen and hold plain JSON values. Undefined numbers are None with a status and a
reason; NaN never gets in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from privfair.core.exceptions import ReportError
from privfair.report._clean import csv_text

if TYPE_CHECKING:
    from privfair.core.estimate import Estimate

__all__ = [
    "SEVERITIES",
    "Block",
    "Column",
    "Figure",
    "Finding",
    "Record",
    "Table",
    "Value",
    "check_word",
    "optional",
    "plain",
    "tuple_of",
]

SEVERITIES = ("critical", "attention", "note")
VALUE_STATUSES = (
    "ok", "small_sample", "boundary", "not_estimable", "not_applicable", "suppressed",
)  # fmt: skip
COLUMN_KINDS = ("label", "text", "code", "count", "number", "signed", "value", "upper", "exact")
T = TypeVar("T")


def plain(value: Any) -> Any:
    """Return a number as int, float or None; NaN is None and infinity the string "inf"."""
    if value is None or isinstance(value, bool | str):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
    return value


def check_word(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ReportError(f"{what} must be one of {', '.join(allowed)}; got {value!r}.")


def _encode(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    return plain(value)


class Record:
    """Conversion to and from plain data, shared by all classes of the model."""

    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {f.name: _encode(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
        """Read plain data; an unknown or a missing key is an error."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown, absent = set(data) - known, known - set(data)
        if unknown or absent:
            raise ReportError(
                f"{cls.__name__} has the keys {sorted(known)}; unknown here: {sorted(unknown)}, "
                f"absent: {sorted(absent)}. The file was changed or is not an audit."
            )
        decoders = cls._decoders  # type: ignore[attr-defined]
        return cls(**{k: decoders[k](v) if k in decoders else v for k, v in data.items()})


def optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def tuple_of(read: Callable[[Any], Any] = lambda v: v) -> Callable[[Any], Any]:
    return lambda value: tuple(read(item) for item in value)


@dataclass(frozen=True)
class Value(Record):
    """A number with its interval, or the reason why there is none.

    Parameters
    ----------
    estimate, low, high : float or None
        Point estimate and interval ends.
    confidence : float or None
        Level of the interval.
    method : str
        How the interval was made.
    n : int or None
        Number of records behind the estimate (the metric's own denominator).
    status : str
        "ok", "small_sample", "boundary", "not_estimable", "not_applicable" or "suppressed".
    reason : str
        Why the status is not "ok".

    Examples
    --------
    >>> Value(0.25, 0.2, 0.3, confidence=0.95).shown
    True
    """

    estimate: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    method: str = ""
    n: int | None = None
    status: str = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        check_word("status", self.status, VALUE_STATUSES)
        for name in ("estimate", "low", "high", "confidence", "n"):
            object.__setattr__(self, name, plain(getattr(self, name)))

    @property
    def shown(self) -> bool:
        """Whether there is a number to show."""
        return self.estimate is not None and self.status not in {
            "not_estimable", "not_applicable", "suppressed",
        }  # fmt: skip

    @classmethod
    def missing(cls, reason: str, status: str = "not_estimable", n: int | None = None) -> Value:
        """Return the value of something that these data do not determine."""
        return cls(None, status=status, reason=reason, n=n)

    @classmethod
    def of(cls, estimate: Estimate) -> Value:
        """Return the value, interval and status of a core estimate."""
        return cls(
            estimate.value,
            estimate.low,
            estimate.high,
            confidence=estimate.confidence,
            method=estimate.method,
            n=max(0, int(estimate.n)),
            status=estimate.status,
            reason=estimate.reason,
        )


@dataclass(frozen=True)
class Finding(Record):
    """One statement of the report, with a stable identifier.

    Parameters
    ----------
    id : str
        Stable, such as ``fairness.dpd.sex``; a model other than the first is named after an
        ``@``.
    severity : {"critical", "attention", "note"}
        Critical is for contradictions and integrity only; attention means that the interval's
        near end passes the tolerance of the configuration.
    text : str
        The statement.
    label : str
        Two or three words for a card.
    value : Value or None
    evidence_path : str
        ``section`` or ``section/table`` where the evidence is.
    model : str
        Identifier of the model that it is about.
    rank : int
        Order among key findings; 0 is never a key finding.
    null : dict or None
        ``expected``, ``q95`` and ``p_value`` of the null reference.
    attained_by : tuple of str
        The pair of groups that attains a gap.
    """

    id: str
    severity: str
    text: str
    label: str = ""
    value: Value | None = None
    evidence_path: str = ""
    model: str = ""
    rank: int = 0
    null: dict[str, float | None] | None = None
    attained_by: tuple[str, ...] = ()

    _decoders = {"value": optional(Value.from_dict), "attained_by": tuple}

    def __post_init__(self) -> None:
        check_word("severity", self.severity, SEVERITIES)

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """Both ends of the value's interval."""
        return (None, None) if self.value is None else (self.value.low, self.value.high)


@dataclass(frozen=True)
class Column(Record):
    """One column of a table: its key, its heading, how its cells are read.

    ``kind`` is one of "label" (a row heading), "text", "code", "count", "number" (three
    significant digits), "signed", "value" (cells are :class:`Value`), "upper" (an upper bound,
    rounded up) and "exact" (as written).

    Attributes
    ----------
    key : str
        Name in JSON and CSV.
    label : str
        Heading.
    kind : str
    note : str
        Shown with the heading.
    """

    key: str
    label: str
    kind: str = "text"
    note: str = ""

    def __post_init__(self) -> None:
        check_word("kind", self.kind, COLUMN_KINDS)


@dataclass(frozen=True)
class Table(Record):
    """A table: columns, rows of cells, notes below, rows to be marked.

    Attributes
    ----------
    id, caption : str
    columns : tuple of Column
    rows : tuple of tuple
        One cell per column.
    notes : tuple of str
    marks : tuple of str
        What marks each row, if anything.
    collapsed : bool
        Whether a page shows it only when asked.
    """

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    collapsed: bool = False

    _decoders = {
        "columns": tuple_of(Column.from_dict),
        "rows": tuple_of(lambda row: tuple(_cell(c) for c in row)),
        "notes": tuple,
        "marks": tuple,
    }

    def __post_init__(self) -> None:
        width = len(self.columns)
        if any(len(row) != width for row in self.rows):
            raise ReportError(f"table {self.id!r}: every row needs {width} cells.")
        rows = tuple(
            tuple(c if isinstance(c, Value) else plain(c) for c in row) for row in self.rows
        )
        object.__setattr__(self, "rows", rows)

    def csv(self) -> str:
        """Return the table as guarded CSV; a value takes four columns."""
        header: list[str] = []
        for column in self.columns:
            parts = ("", "_low", "_high", "_status") if column.kind == "value" else ("",)
            header += [column.key + part for part in parts]
        return csv_text(header, (self._flat(row) for row in self.rows))

    def _flat(self, row: tuple[Any, ...]) -> list[Any]:
        cells: list[Any] = []
        for column, cell in zip(self.columns, row, strict=True):
            if column.kind != "value":
                cells.append(cell)
            elif cell is None:
                cells += [None, None, None, ""]
            else:
                cells += [cell.estimate, cell.low, cell.high, cell.status]
        return cells


def _cell(cell: Any) -> Any:
    return Value.from_dict(cell) if isinstance(cell, Mapping) else cell


@dataclass(frozen=True)
class Figure(Record):
    """A figure as data and specification; pixels and paths are made when it is rendered.

    Parameters
    ----------
    id : str
    kind : str
        The drawing, a key of ``privfair.report._figures.KINDS``.
    title : str
    description : str
        What the figure shows, for those who do not see it.
    table : Table
        The data of the figure, shown below it as an equivalent table.
    spec : dict
        Axis labels, reference lines, series and their columns.
    """

    id: str
    kind: str
    title: str
    description: str
    table: Table
    spec: dict[str, Any] = field(default_factory=dict)

    _decoders = {"table": Table.from_dict}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, the figure's data as CSV among them."""
        return {**super().to_dict(), "csv": self.table.csv()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figure:
        """Read plain data; the CSV copy is made again from the table."""
        return super().from_dict({k: v for k, v in data.items() if k != "csv"})  # type: ignore[misc]


@dataclass(frozen=True)
class Block(Record):
    """One piece of a section in reading order.

    ``kind`` is "heading", "text", "list", "note", "table" or "figure"; ``ref`` is the
    identifier of the table or figure.

    Attributes
    ----------
    kind : str
    ref : str
        Identifier of the table, figure or finding shown here.
    text : str
    items : tuple of str
    """

    kind: str
    ref: str = ""
    text: str = ""
    items: tuple[str, ...] = ()

    _decoders = {"items": tuple}

    def __post_init__(self) -> None:
        check_word("kind", self.kind, ("heading", "text", "list", "note", "table", "figure"))
