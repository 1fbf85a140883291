"""What an audit found, as data: every rendering is made from this and from nothing else.

All classes are frozen and hold plain JSON values, so that ``AuditResult.from_dict(r.to_dict())``
is the same result and renders to the same page. Undefined numbers are None with a status and a
reason; NaN never gets in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from privfair.core.exceptions import ReportError
from privfair.report._parts import (
    SEVERITIES,
    Block,
    Column,
    Figure,
    Finding,
    Record,
    Table,
    Value,
    check_word,
    tuple_of,
)

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

SCHEMA_VERSION = "1.1.0"
"""Of the JSON: a new major version means that older readers must refuse the file."""

SECTION_STATUSES = ("ok", "insufficient_data", "not_applicable", "failed")


@dataclass(frozen=True)
class SectionResult(Record):
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
        "findings": tuple_of(Finding.from_dict),
        "tables": tuple_of(Table.from_dict),
        "figures": tuple_of(Figure.from_dict),
        "caveats": tuple,
        "references": tuple,
        "blocks": tuple_of(Block.from_dict),
    }

    def __post_init__(self) -> None:
        check_word("status", self.status, SECTION_STATUSES)
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
class DatasetInfo(Record):
    """What was audited: name, version, provenance and known weaknesses of the data.

    Attributes
    ----------
    name, version, split : str
    sha256 : dict of str to str
        Hash of each file read, by file name.
    verified : bool or None
        Whether the hashes are the registered ones; None if nobody looked.
    embedded : bool
        Whether these are the synthetic rows that come with the package.
    source, license : str
    caveats : tuple of str
        What a reader must know about the data.
    rows : {"held_out", "training", "unknown"}
        Whose rows they are; held out are those that no audited model was trained on.
    positive : str
        What the positive outcome means.
    certificate : dict or None
        The guarantee of an embedded edition.
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
        check_word("rows", self.rows, ("held_out", "training", "unknown"))


@dataclass(frozen=True)
class ModelInfo(Record):
    """One audited model: its name, its class, what it was given and what it guarantees.

    Attributes
    ----------
    id, name : str
        Identifier within the report, and the name shown.
    kind : str
        Whether an estimator or given decisions were audited.
    class_name : str
    parameters : dict of str to str
    has_scores : bool
        Whether there are scores besides decisions.
    privacy : dict or None
        Its guarantee.
    """

    id: str
    name: str
    kind: str
    class_name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    has_scores: bool = False
    privacy: dict[str, Any] | None = None


@dataclass(frozen=True)
class AuditResult(Record):
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
        ``n_rows``, ``n_positive``, ``groups`` per attribute, and ``clients`` where they may be
        shown.
    release : dict
        ``kind`` is "raw" or "dp"; with its ledger entry and, if private, its guarantee.
    config, environment : dict
    sections : tuple of SectionResult
    schema_version : str
        Of the JSON document.
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
        "models": tuple_of(ModelInfo.from_dict),
        "sections": tuple_of(SectionResult.from_dict),
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
