"""The audit in a terminal: the same numbers, in the order in which they are asked for."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from privfair.core._format import format_upper
from privfair.report import _numbers as show
from privfair.report._catalogue import banner_key, catalogue
from privfair.report._clean import clean_text
from privfair.report._estimates import LABELS
from privfair.report._model import AuditResult, Finding, SectionResult, Table, Value

if TYPE_CHECKING:
    from rich.console import Console

    from privfair.report._diff import AuditDiff, FindingChange

__all__ = ["print_diff", "print_text", "to_text"]

_ASCII = str.maketrans(
    {"−": "-", "…": "...", "×": "x", "∞": "inf", "–": "-", "—": "-", "≥": ">=", "≤": "<=",
     "ε": "epsilon", "δ": "delta", "→": "->", "†": "*", "’": "'"}
)  # fmt: skip
# What the short form of a table leaves to the report.
_SKIPPED = (
    "base_rate", "false_negative_rate", "positive_predictive_value", "negative_predictive_value",
    "accuracy", "null_expected", "between",
)  # fmt: skip
_GAPS = {
    LABELS[name]
    for name in (
        "demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference",
        "equal_opportunity_difference",
    )
}  # fmt: skip
_FOLDED = 10  # the least width of a column of words
_STYLES = {"critical": "bold red", "attention": "yellow", "note": "dim"}


def _value(value: Value | None, ascii_only: bool, *, upper: bool = False) -> str:
    if value is None:
        return ""
    if not value.shown:
        return value.status.replace("_", " ")
    if isinstance(value.estimate, str) or upper:
        number = float(value.estimate or 0)
        text = "inf" if number == float("inf") else str(format_upper(number))
    else:
        text = show.number(value.estimate)
    ends = show.interval(value.low, value.high)
    out = f"{text} {ends}".strip() + ("*" if value.status == "small_sample" else "")
    return out.translate(_ASCII) if ascii_only else out


def _is_words(table: Table, k: int) -> bool:
    return table.columns[k].kind in {"label", "text", "code"} and table.columns[k].key != "model"


def _widest(table: Table, k: int, at: int, body: list[list[str]]) -> int:
    """Return the width of a column's longest line, its label broken between words."""
    lines = [line for cells in body for line in cells[at].split("\n")]
    return max(len(part) for part in [*lines, *table.columns[k].label.split(), "#"])


class _Writer:
    def __init__(self, console: Console, ascii_only: bool) -> None:
        self.console, self.ascii = console, ascii_only

    def clean(self, text: Any) -> str:
        out = clean_text(text)
        if self.ascii:
            out = out.translate(_ASCII).encode("ascii", "replace").decode()
        return out

    def line(self, text: str = "", style: str = "") -> None:
        from rich.text import Text

        self.console.print(Text(self.clean(text), style=style))

    def table(
        self,
        table: Table,
        *,
        rows: int | None = None,
        skip: tuple[str, ...] = (),
        numbers: dict[str, str] | None = None,
    ) -> None:
        kept = [k for k, c in enumerate(table.columns) if c.key not in skip]
        body = self._body(table, kept, rows, numbers or {})
        # A cell that is cut would show a wrong number: intervals go under their values where
        # the terminal cannot hold both side by side, and a list takes the place of a table
        # where it cannot hold even that.
        numbered = bool(numbers)
        stacked = [[cell.replace(" [", "\n[") for cell in cells] for cells in body]
        if self._least_width(table, kept, body) <= self.console.width:
            self.console.print(self._grid(table, kept, body, numbered))
        elif self._least_width(table, kept, stacked) <= self.console.width:
            self.console.print(self._grid(table, kept, stacked, numbered))
        else:
            self._listed(table, kept, body)
        if rows is not None and len(table.rows) > rows:
            self.line(f"... and {len(table.rows) - rows} more rows in the report.", "dim")

    def _least_width(self, table: Table, kept: list[int], body: list[list[str]]) -> int:
        """Return the width at which no number is cut; words may be folded."""
        return sum(
            2 + (_FOLDED if _is_words(table, k) else _widest(table, k, at, body))
            for at, k in enumerate(kept)
        )

    def _listed(self, table: Table, kept: list[int], body: list[list[str]]) -> None:
        self.line(table.caption, "bold")
        name = ""
        for cells in body:
            name = cells[0] or name
            self.line(name)
            for at, k in enumerate(kept[1:], 1):
                if cells[at]:
                    self.line(f"  {table.columns[k].label}: {cells[at]}")

    def _body(
        self, table: Table, kept: list[int], rows: int | None, numbers: dict[str, str]
    ) -> list[list[str]]:
        body, last = [], None
        for row in table.rows[:rows]:
            cells = [self._cell(table.columns[k].kind, row[k]) for k in kept]
            for at, k in enumerate(kept):
                if table.columns[k].key == "model":
                    cells[at] = numbers.get(str(row[k]), cells[at])
            if numbers and last == row[0]:
                cells[0] = ""
            last = row[0]
            body.append(cells)
        return body

    def _grid(self, table: Table, kept: list[int], body: list[list[str]], numbered: bool) -> Any:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        grid = RichTable(
            title=Text(self.clean(table.caption), style="bold"),
            title_justify="left",
            box=box.ASCII2 if self.ascii else box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for at, k in enumerate(kept):
            column, words = table.columns[k], _is_words(table, k)
            label = "#" if numbered and column.key == "model" else self.clean(column.label)
            if not words:
                label = "\n".join(textwrap.wrap(label, _widest(table, k, at, body)))
            grid.add_column(
                Text(label),
                justify="left" if words or column.key == "model" else "right",
                overflow="fold",
                no_wrap=not words,
                min_width=_FOLDED if words else None,
            )
        for cells in body:
            grid.add_row(*(Text(cell) for cell in cells))
        return grid

    def _cell(self, kind: str, cell: Any) -> str:
        if isinstance(cell, Value):
            return _value(cell, self.ascii)
        if cell is None:
            return ""
        if kind == "count" and isinstance(cell, int):
            return show.count(cell)
        if isinstance(cell, int | float) and not isinstance(cell, bool):
            if kind == "upper":
                return str(format_upper(float(cell)))
            text = f"{cell:g}" if kind == "exact" else show.number(cell)
            return self.clean(show.signed(cell) if kind == "signed" else text)
        return self.clean(cell)

    def finding(self, finding: Finding) -> None:
        from rich.text import Text

        mark = {"critical": "!!", "attention": "! ", "note": "- "}[finding.severity]
        upper = finding.id.startswith("privacy.")
        number = _value(finding.value, self.ascii, upper=upper)
        line = Text(f"{mark} ", style=_STYLES[finding.severity])
        line.append(self.clean(finding.label or finding.id), style="bold")
        if number:
            line.append(f"  {number}")
        self.console.print(line)
        for part in textwrap.wrap(self.clean(finding.text), max(self.console.width - 4, 20)):
            self.console.print(Text("   " + part, style="dim"))

    def section(self, section: SectionResult) -> None:
        self.line()
        self.line(section.title, "bold underline")
        if section.status != "ok":
            self.line(f"{section.status.replace('_', ' ')}: {section.reason}", "red")
        for block in section.blocks:
            if block.kind == "table":
                self.table(section.table(block.ref), rows=40)
            elif block.kind == "heading":
                self.line(block.text, "bold")
            elif block.kind in {"text", "note"}:
                self.line(block.text)
            elif block.kind == "list":
                for item in block.items:
                    self.line(f"- {item}")
        for item in section.caveats:
            self.line(f"Caveat: {item}", "yellow")


def _brief(writer: _Writer, result: AuditResult) -> None:
    numbers: dict[str, str] = {}
    if len(result.models) > 1:
        numbers = {m.name: str(k) for k, m in enumerate(result.models, 1)}
        writer.line()
        for name, k in numbers.items():
            writer.line(f"Model {k}: {name}")
    for section in result.sections:
        if section.status != "ok" and section.status != "not_applicable":
            writer.line(f"{section.title}: {section.status}: {section.reason}", "red")
        for table in section.tables:
            if "brief" not in table.id.split("-"):
                continue
            if table.id.startswith("gaps-"):
                kept = [row for row in table.rows if row[0] in _GAPS]
                table = replace(table, rows=tuple(kept), marks=())
            writer.line()
            writer.table(table, skip=_SKIPPED, numbers=numbers)


def print_text(
    result: AuditResult, console: Console, *, full: bool = False, ascii_only: bool = False
) -> None:
    """Write the audit to a rich console.

    Parameters
    ----------
    result : AuditResult
    console : rich.console.Console
    full : bool, default=False
        All sections, not only the summary, the key tables and the certificate.
    ascii_only : bool, default=False
        For terminals that have nothing else.

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> from rich.console import Console
    >>> print_text(result, Console(width=60))
    Audit of unnamed data...
    """
    t = catalogue(result.language)
    writer = _Writer(console, ascii_only)
    if result.notice:
        writer.line(result.notice, "bold reverse")
    writer.line(result.title, "bold")
    rows = result.counts.get("n_rows")
    writer.line(
        t("ui.subtitle", data=result.dataset.name,
          rows=show.count(rows) if rows is not None else t("status.suppressed"),
          models=", ".join(m.name for m in result.models), date=result.created),
        "dim",
    )  # fmt: skip
    writer.line(t(banner_key(result)), "yellow")
    writer.line()
    for finding in result.key_findings:
        writer.finding(finding)
    if full:
        for section in result.sections:
            if section.id != "summary":
                writer.section(section)
    else:
        _brief(writer, result)


def print_diff(
    diff: AuditDiff,
    shown: tuple[FindingChange, ...],
    console: Console,
    *,
    ascii_only: bool = False,
) -> None:
    """Write the difference of two audits to a rich console.

    Parameters
    ----------
    diff : AuditDiff
    shown : tuple of FindingChange
        Those of ``diff.changed`` that are listed.
    console : rich.console.Console
    ascii_only : bool, default=False
        For terminals that have nothing else.

    Examples
    --------
    >>> from rich.console import Console
    >>> from privfair.report import AuditDiff
    >>> print_diff(AuditDiff((), 3, (), ()), (), Console(width=60))
    No finding differs (3 compared).
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    writer = _Writer(console, ascii_only)
    if diff.notice:
        writer.line(diff.notice, "bold reverse")
    for note in diff.notes:
        writer.line(f"Note: {note}", "yellow")
    if not diff.changed and not diff.added and not diff.removed:
        writer.line(f"No finding differs ({diff.unchanged} compared).")
        return
    grid = RichTable(box=box.ASCII2 if ascii_only else box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Finding", "Old", "New", "Change", "Intervals"):
        grid.add_column(name, justify="left" if name == "Finding" else "right", overflow="fold")
    for change in shown:
        upper = change.id.startswith("privacy.")
        cells = (
            change.id,
            _value(change.old, ascii_only, upper=upper),
            _value(change.new, ascii_only, upper=upper),
            "" if change.delta is None else show.signed(change.delta),
            "apart" if change.apart else "overlap",
        )
        grid.add_row(*(Text(writer.clean(cell)) for cell in cells))
    console.print(grid)
    if len(shown) < len(diff.changed):
        writer.line(f"... and {len(diff.changed) - len(shown)} smaller changes (--all).", "dim")
    writer.line(f"{diff.unchanged} findings are the same.")
    for what, names in (("only in the new audit", diff.added), ("only in the old", diff.removed)):
        if names:
            writer.line(f"{what}: {', '.join(names)}")


def _wants_ascii(stream: Any) -> bool:
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    return not encoding.startswith("utf")


def to_text(
    result: AuditResult,
    *,
    full: bool = False,
    width: int | None = None,
    color: bool = False,
    ascii_only: bool | None = None,
) -> str:
    """Return the audit as terminal text.

    Parameters
    ----------
    result : AuditResult
    full : bool, default=False
        All sections, not only the summary and the key tables.
    width : int or None
        Columns; by default the variable ``COLUMNS``, else 100.
    color : bool, default=False
        Whether to write colour codes.
    ascii_only : bool or None
        None follows the encoding of standard output.

    Returns
    -------
    str

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> result = audit([0, 1] * 40, None, [0, 1] * 40, config=AuditConfig(n_resamples=100),
    ...                sensitive_features={"sex": ["f", "f", "m", "m"] * 20})
    >>> to_text(result).splitlines()[0]
    'Audit of unnamed data'
    """
    from rich.console import Console

    out = io.StringIO()
    given = os.environ.get("COLUMNS", "")
    console = Console(
        file=out,
        width=width or (int(given) if given.isdigit() and int(given) > 0 else 100),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    if ascii_only is None:
        ascii_only = _wants_ascii(sys.stdout)
    print_text(result, console, full=full, ascii_only=ascii_only)
    lines = out.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
