"""What an audit found, as data: every rendering is made from this and from nothing else.

All classes are frozen and hold plain JSON values, so that ``AuditResult.from_dict(r.to_dict())``
is the same result and renders to the same page. Undefined numbers are None with a status and a
reason; NaN never gets in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from privfair.core.exceptions import ReportError
from privfair.report._clean import csv_text

if TYPE_CHECKING:
    from privfair.core.estimate import Estimate

__all__ = [
    "SCHEMA_VERSION",
    "AuditResult",
    "Block",
    "Column",
    "DatasetInfo",
    "Figure",
    "Finding",
    "ModelInfo",
    "SectionResult",
    "Table",
    "Value",
]

SCHEMA_VERSION = "1.0.0"
"""Of the JSON: a new major version means that older readers must refuse the file."""

SEVERITIES = ("critical", "attention", "note")
SECTION_STATUSES = ("ok", "insufficient_data", "not_applicable", "failed")
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


def _check(what: str, value: str, allowed: tuple[str, ...]) -> None:
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


class _Record:
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


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _tuple_of(read: Callable[[Any], Any] = lambda v: v) -> Callable[[Any], Any]:
    return lambda value: tuple(read(item) for item in value)


@dataclass(frozen=True)
class Value(_Record):
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
        _check("status", self.status, VALUE_STATUSES)
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
            n=int(estimate.n),
            status=estimate.status,
            reason=estimate.reason,
        )


@dataclass(frozen=True)
class Finding(_Record):
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

    _decoders = {"value": _optional(Value.from_dict), "attained_by": tuple}

    def __post_init__(self) -> None:
        _check("severity", self.severity, SEVERITIES)

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """Both ends of the value's interval."""
        return (None, None) if self.value is None else (self.value.low, self.value.high)


@dataclass(frozen=True)
class Column(_Record):
    """One column of a table: its key, its heading, how its cells are read.

    ``kind`` is one of "label" (a row heading), "text", "code", "count", "number" (three
    significant digits), "signed", "value" (cells are :class:`Value`), "upper" (an upper bound,
    rounded up) and "exact" (as written).
    """

    key: str
    label: str
    kind: str = "text"
    note: str = ""

    def __post_init__(self) -> None:
        _check("kind", self.kind, COLUMN_KINDS)


@dataclass(frozen=True)
class Table(_Record):
    """A table: columns, rows of cells, notes below, rows to be marked."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    collapsed: bool = False

    _decoders = {
        "columns": _tuple_of(Column.from_dict),
        "rows": _tuple_of(lambda row: tuple(_cell(c) for c in row)),
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
class Figure(_Record):
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
class Block(_Record):
    """One piece of a section in reading order.

    ``kind`` is "heading", "text", "list", "note", "table" or "figure"; ``ref`` is the
    identifier of the table or figure.
    """

    kind: str
    ref: str = ""
    text: str = ""
    items: tuple[str, ...] = ()

    _decoders = {"items": tuple}

    def __post_init__(self) -> None:
        _check("kind", self.kind, ("heading", "text", "list", "note", "table", "figure"))


@dataclass(frozen=True)
class SectionResult(_Record):
    """What one section found, or why it found nothing.

    Parameters
    ----------
    id, title : str
    status : {"ok", "insufficient_data", "not_applicable", "failed"}
    reason : str
        Why the status is not "ok".
    lead : str
        One or two sentences that open the section.
    findings, tables, figures, caveats, references : tuple
    method : str
        How the numbers were made.
    blocks : tuple of Block
        Reading order; by default figures, then tables.
    """

    id: str
    title: str
    status: str = "ok"
    reason: str = ""
    lead: str = ""
    findings: tuple[Finding, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    caveats: tuple[str, ...] = ()
    method: str = ""
    references: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()

    _decoders = {
        "findings": _tuple_of(Finding.from_dict),
        "tables": _tuple_of(Table.from_dict),
        "figures": _tuple_of(Figure.from_dict),
        "caveats": tuple,
        "references": tuple,
        "blocks": _tuple_of(Block.from_dict),
    }

    def __post_init__(self) -> None:
        _check("status", self.status, SECTION_STATUSES)
        if not self.blocks:
            shown = [Block("figure", f.id) for f in self.figures]
            shown += [Block("table", t.id) for t in self.tables]
            object.__setattr__(self, "blocks", tuple(shown))
        have = {("table", t.id) for t in self.tables} | {("figure", f.id) for f in self.figures}
        used = {(b.kind, b.ref) for b in self.blocks if b.kind in {"table", "figure"}}
        if have != used:
            raise ReportError(f"section {self.id!r}: blocks and contents differ: {have ^ used}.")

    def table(self, table_id: str) -> Table:
        """Return a table by its identifier."""
        return next(t for t in self.tables if t.id == table_id)

    def figure(self, figure_id: str) -> Figure:
        """Return a figure by its identifier."""
        return next(f for f in self.figures if f.id == figure_id)


@dataclass(frozen=True)
class DatasetInfo(_Record):
    """What was audited: name, version, provenance and known weaknesses of the data.

    ``rows`` says whose rows they are: "held_out" (not used for training), "training" or
    "unknown".
    """

    name: str = "unnamed data"
    version: str = ""
    split: str = ""
    sha256: dict[str, str] = field(default_factory=dict)
    verified: bool | None = None
    embedded: bool = False
    source: str = ""
    license: str = ""
    caveats: tuple[str, ...] = ()
    rows: str = "unknown"
    positive: str = ""
    certificate: dict[str, Any] | None = None

    _decoders = {"caveats": tuple}

    def __post_init__(self) -> None:
        _check("rows", self.rows, ("held_out", "training", "unknown"))


@dataclass(frozen=True)
class ModelInfo(_Record):
    """One audited model: its name, its class, what it was given and what it guarantees."""

    id: str
    name: str
    kind: str
    class_name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    has_scores: bool = False
    privacy: dict[str, Any] | None = None


@dataclass(frozen=True)
class AuditResult(_Record):
    """An audit: everything that the renderings show, and nothing that only one of them knows.

    Attributes
    ----------
    notice : str
        First line of every rendering: which notices apply (embedded data, seeded noise).
    title, created, language : str
    dataset : DatasetInfo
    models : tuple of ModelInfo
        The first one is the subject; identifiers of findings about others carry ``@model``.
    counts : dict
        ``n_rows``, ``n_positive`` and ``groups`` per attribute.
    release : dict
        ``kind`` is "raw" or "dp"; with its ledger entry and, if private, its guarantee.
    config, environment : dict
    sections : tuple of SectionResult
    """

    title: str
    created: str
    dataset: DatasetInfo
    models: tuple[ModelInfo, ...]
    sections: tuple[SectionResult, ...]
    notice: str = ""
    language: str = "en"
    counts: dict[str, Any] = field(default_factory=dict)
    release: dict[str, Any] = field(default_factory=lambda: {"kind": "raw"})
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    schema_version: str = SCHEMA_VERSION

    _decoders = {
        "dataset": DatasetInfo.from_dict,
        "models": _tuple_of(ModelInfo.from_dict),
        "sections": _tuple_of(SectionResult.from_dict),
    }

    @property
    def findings(self) -> dict[str, Finding]:
        """All findings by identifier."""
        return {f.id: f for section in self.sections for f in section.findings}

    @property
    def key_findings(self) -> tuple[Finding, ...]:
        """Up to seven findings for the summary: severest first, then by rank."""
        ranked = [f for f in self.findings.values() if f.rank or f.severity == "critical"]
        order = {name: k for k, name in enumerate(SEVERITIES)}
        critical = [f for f in ranked if f.severity == "critical"]
        rest = sorted((f for f in ranked if f.severity != "critical"), key=lambda f: f.rank)
        chosen = (critical + rest)[:7]
        return tuple(sorted(chosen, key=lambda f: (order[f.severity] > 0, f.rank)))

    @property
    def failed(self) -> tuple[SectionResult, ...]:
        """Sections that could not be built."""
        return tuple(s for s in self.sections if s.status == "failed")

    @property
    def exit_code(self) -> int:
        """Status of a command that made this audit: 0, 4, 5 or 8.

        4 for an integrity finding, 5 for a privacy contradiction, 8 for a failed section.
        """
        critical = [f.id for f in self.findings.values() if f.severity == "critical"]
        if any(i.startswith("integrity.") for i in critical):
            return 4
        if critical:
            return 5
        return 8 if self.failed else 0

    def section(self, section_id: str) -> SectionResult:
        """Return a section by its identifier."""
        for section in self.sections:
            if section.id == section_id:
                return section
        raise ReportError(
            f"no section {section_id!r}; there are {', '.join(s.id for s in self.sections)}."
        )

    def model(self, model_id: str) -> ModelInfo:
        """Return a model by its identifier."""
        return next(m for m in self.models if m.id == model_id)

    def with_sections(self, *sections: SectionResult) -> AuditResult:
        """Return the result with other sections."""
        return replace(self, sections=sections)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, with the findings once more by identifier."""
        data = super().to_dict()
        data["_notice"] = data.pop("notice")
        data["findings"] = {f.id: f.to_dict() for f in self.findings.values()}
        data["exit_code"] = self.exit_code
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AuditResult:
        """Read plain data of this schema version."""
        rest = {k: v for k, v in data.items() if k not in {"_notice", "findings", "exit_code"}}
        return super().from_dict({**rest, "notice": data.get("_notice", "")})  # type: ignore[misc]

    # The renderings, for convenience at a prompt; each lives in a module of its own.
    def to_json(self) -> str:
        """Return the audit as a JSON document."""
        from privfair.report._json import to_json

        return to_json(self)

    def to_html(self) -> str:
        """Return the audit as one self-contained HTML page."""
        from privfair.report._html import to_html

        return to_html(self)

    def to_text(self, **options: Any) -> str:
        """Return the audit as terminal text; options as :func:`privfair.report.to_text`."""
        from privfair.report._text import to_text

        return to_text(self, **options)

    def to_frame(self) -> Any:
        """Return the findings as a pandas data frame, indexed by identifier."""
        import pandas as pd

        rows = [
            {"id": f.id, "severity": f.severity, "model": f.model, "text": f.text}
            | ({} if f.value is None else f.value.to_dict())
            for f in self.findings.values()
        ]
        columns = ["id", "severity", "model", "text", *(f.name for f in fields(Value))]
        return pd.DataFrame(rows, columns=columns).set_index("id")

    def _repr_html_(self) -> str:
        from html import escape

        # In a frame of its own: the page's style sheet must not reach the notebook.
        return (
            f'<iframe title="{escape(self.title)}" sandbox="allow-scripts" '
            f'style="width:100%;height:80vh;border:0" srcdoc="{escape(self.to_html())}"></iframe>'
        )
