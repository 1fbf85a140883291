"""The audit as a model card in Markdown, safe to paste where Markdown and HTML are rendered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from privfair.core._format import format_upper
from privfair.report import _numbers as show
from privfair.report._catalogue import catalogue
from privfair.report._clean import clean_text
from privfair.report._exports import plain_value
from privfair.report._model import AuditResult, SectionResult
from privfair.report._parts import Column, Table, Value

__all__ = ["escape_markdown", "to_model_card"]

# Entities where a backslash would not do: HTML, mentions, references, templates, links.
_ENTITIES = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "#": "&#35;", "{": "&#123;",
    "}": "&#125;",
}  # fmt: skip
_TABLE = str.maketrans(_ENTITIES | {c: "\\" + c for c in "\\`*_[]|~$^"})


def escape_markdown(text: Any) -> str:
    r"""Return text that Markdown shows as it is: no markup, link, mention, formula or HTML.

    Examples
    --------
    >>> print(escape_markdown("<b>[a](http://x)*"))
    &lt;b&gt;\[a\](http:&#47;/x)\*
    >>> print(escape_markdown("1. =x|y"))
    1\. =x\|y
    """
    out = clean_text(text).strip().translate(_TABLE)
    out = out.replace("://", ":&#47;/")
    out = re.sub(r"www\.", lambda m: f"{m[0][:3]}&#46;", out, flags=re.IGNORECASE)
    # At the start of a line these would begin a list, a comment, a heading or a rule.
    out = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", out)
    return re.sub(r"^([-+=%:])", r"\\\1", out)


def to_model_card(result: AuditResult) -> str:
    """Return the audit as a model card in Markdown.

    Parameters
    ----------
    result : AuditResult

    Returns
    -------
    str
        What was audited, the data, metrics with intervals, disparities with their null
        reference, the privacy certificate, caveats, and what the audit does not show.

    Notes
    -----
    The first line says whether the audited data were embedded or noise was seeded. Names from
    data are escaped for Markdown and HTML: they make no link, mention, formula or markup.
    Intended use, and whom a decision concerns, are not in an audit; the card says so and leaves
    them to its reader. Linear in the size of the tables. The card shows a part of what the page
    shows, so that the privacy of the audit is unchanged.

    References
    ----------
    Mitchell et al. 2019, Model Cards for Model Reporting, arXiv 1810.03993.

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> print(to_model_card(result).splitlines()[0])
    # Model card: Audit of unnamed data
    """
    t = catalogue(result.language)
    md = escape_markdown
    kind = result.release.get("kind")
    parts = [f"**{md(result.notice)}**"] if result.notice else []
    parts += [
        f"# Model card: {md(result.title)}",
        f"Made by privfair {md(result.environment.get('privfair', ''))}, {md(result.created)}. "
        "This card states measurements, intervals, certified bounds and assumptions; it gives no "
        "verdict.",
        md(t(f"banner.{kind}" if kind in {"dp", "local"} else "banner.raw")),
    ]
    for title, body in (
        ("What was audited", _models(result)),
        ("Data", _data(result)),
        ("Metrics", _section(result, "performance") + _section(result, "groups", skip="gaps-")),
        ("Disparities", _section(result, "groups", only="gaps-") + _attention(result)),
        ("Privacy", _privacy(result)),
        ("Caveats", _caveats(result)),
        ("What this card does not show", _not_shown(result)),
    ):
        parts += [f"## {title}", *(body or ["Nothing to report."])]
    return "\n\n".join(parts) + "\n"


def _grid(header: Iterable[str], rows: Iterable[Iterable[Any]], right: set[int]) -> str:
    names = [escape_markdown(name) for name in header]
    rule = ["---:" if k in right else "---" for k in range(len(names))]
    body = [[escape_markdown(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [names, rule, *body])


def _list(items: Iterable[str]) -> list[str]:
    lines = [f"- {escape_markdown(item)}" for item in items]
    return ["\n".join(lines)] if lines else []


def _cell(column: Column, cell: Any) -> str:
    if isinstance(cell, Value):
        return plain_value(cell)
    if cell is None:
        return ""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        if column.kind == "upper":
            return str(format_upper(float(cell)))
        if column.kind == "count":
            return show.count(int(cell))
        if column.kind == "exact":
            return f"{cell:g}"
        return show.signed(cell) if column.kind == "signed" else show.number(cell)
    return str(cell)


def _table(table: Table) -> list[str]:
    numeric = {
        k for k, c in enumerate(table.columns)
        if c.kind not in {"label", "text", "code"}
    }  # fmt: skip
    rows = [[_cell(c, x) for c, x in zip(table.columns, row, strict=True)] for row in table.rows]
    grid = _grid([c.label for c in table.columns], rows, numeric)
    return [f"**{escape_markdown(table.caption)}**", grid, *_list(table.notes)]


def _find(result: AuditResult, identifier: str) -> SectionResult | None:
    return next((s for s in result.sections if s.id == identifier), None)


def _section(result: AuditResult, name: str, *, only: str = "", skip: str = "\0") -> list[str]:
    section = _find(result, name)
    if section is None:
        return []
    out: list[str] = []
    if section.status != "ok" and not only:
        words = f"{section.title}: {section.status.replace('_', ' ')}: {section.reason}"
        out.append(escape_markdown(words))
    for table in section.tables:
        if table.id.startswith(only) and not table.id.startswith(skip):
            out += _table(table)
    return out


def _models(result: AuditResult) -> list[str]:
    rows = []
    for model in result.models:
        privacy = "no guarantee is known"
        if model.privacy:
            pair = f"epsilon {_up(model.privacy.get('epsilon'))}, delta "
            privacy = pair + f"{_plain(model.privacy.get('delta'))}"
            if model.privacy.get("seeded") or not model.privacy.get("certified", False):
                privacy += ", not certified"
        scores = "decisions and scores" if model.has_scores else "decisions"
        rows.append((model.name, model.class_name, scores, privacy))
    return [
        _grid(("Model", "Class", "Audited", "Privacy of its training rows"), rows, set()),
        "Intended use, and who is affected, are not part of an audit: add them here.",
    ]


def _up(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "not stated"
    return "inf" if number == float("inf") else str(format_upper(number))


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else clean_text(value)


def _data(result: AuditResult) -> list[str]:
    data, counts = result.dataset, result.counts
    verified: dict[bool | None, str] = {
        True: "checksums are the registered ones",
        False: "CHECKSUMS DIFFER",
    }
    rows = {
        "held_out": "no model was trained on them",
        "training": "the rows that trained the models",
        "unknown": "not stated whether a model was trained on them",
    }
    size = counts.get("n_rows")
    items = [
        ("Name", " ".join(x for x in (data.name, data.version) if x)),
        ("Rows", "suppressed" if size is None else show.count(size)),
        ("Which rows", "; ".join(x for x in (data.split, rows[data.rows]) if x)),
        ("Positive outcome", data.positive),
        ("Files", verified.get(data.verified, "not compared with registered checksums")),
        ("Embedded synthetic edition", "yes" if data.embedded else "no"),
        ("Source", data.source),
        ("License", data.license),
    ]
    out = [_grid(("Item", "Value"), [(k, v) for k, v in items if v], set())]
    return out + _section(result, "data")


def _attention(result: AuditResult) -> list[str]:
    marked = [
        f"{f.severity}: {f.label or f.id}: "
        f"{plain_value(f.value, upper=f.id.startswith('privacy.'))}. {f.text}"
        for f in result.findings.values()
        if f.severity != "note"
    ]
    return (
        ["Findings beyond the configured tolerances, and critical ones:", *_list(marked)]
        if (marked)
        else []
    )


def _privacy(result: AuditResult) -> list[str]:
    out: list[str] = []
    for name in ("privacy", "attacks"):
        section = _find(result, name)
        if section is None or section.status == "not_applicable":
            continue
        for block in section.blocks:
            if block.kind == "table":
                out += _table(section.table(block.ref))
            elif block.kind in {"text", "note", "heading"}:
                out.append(escape_markdown(block.text))
            elif block.kind == "list":
                out += [escape_markdown(block.text)] if block.text else []
                out += _list(block.items)
    return out


def _caveats(result: AuditResult) -> list[str]:
    texts = [*result.dataset.caveats, *(c for s in result.sections for c in s.caveats)]
    texts += [f"{s.title} could not be built: {s.reason}" for s in result.failed]
    return _list(dict.fromkeys(texts))


def _not_shown(result: AuditResult) -> list[str]:
    section = _find(result, "summary")
    items = [i for b in (section.blocks if section else ()) if b.kind == "list" for i in b.items]
    return _list(items or catalogue(result.language).items("summary.not_shown"))
