"""The forms that ``privfair audit report`` writes besides the page, the JSON and the text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from privfair.cli._audit_files import check_target, write_bytes
from privfair.cli._common import state

if TYPE_CHECKING:
    from privfair.report import AuditResult

__all__ = ["FORMATS", "check_export", "export"]

FORMATS = ("html", "json", "text", "sarif", "model-card", "csv-zip")


def check_export(kind: str | None, target: Path | None, pdf: Path | None) -> None:
    """Refuse options that do not fit together, before anything is read."""
    if kind is None and target is not None:
        raise click.UsageError(f"--output needs --format: one of {', '.join(FORMATS)}.")
    if kind is not None and target is None:
        if state().json:
            raise click.UsageError("--json and --format both print; give --output PATH.")
        if kind == "csv-zip":
            raise click.UsageError("--format csv-zip is not text; give --output PATH.")
    if target is not None:
        check_target(target, "--output")
    if pdf is not None:
        check_target(pdf, "--pdf")
        if pdf == target:
            raise click.UsageError("--pdf and --output name the same file.")


def export(
    result: AuditResult, source: Path, kind: str | None, target: Path | None, pdf: Path | None
) -> tuple[str | None, list[str]]:
    """Write the files; return what is to be printed in place of the text, and what was written."""
    from privfair.report import to_pdf

    # First of all: it may be missing, and then nothing is written.
    document = None if pdf is None else to_pdf(result)
    data = None if kind is None else _render(result, source, kind)
    written = []
    if data is not None and target is not None:
        write_bytes(target, data)
        written.append(f"{kind}: {target}")
    if document is not None and pdf is not None:
        write_bytes(pdf, document)
        written.append(f"PDF:    {pdf}")
    printed = None if data is None or target is not None else data.decode("utf-8")
    return printed, written


def _render(result: AuditResult, source: Path, kind: str) -> bytes:
    from privfair.report import to_csv_zip, to_model_card, to_sarif

    text: str
    if kind == "csv-zip":
        archive: bytes = to_csv_zip(result)
        return archive
    if kind == "sarif":
        text = to_sarif(result, artifact=source.name)
    elif kind == "model-card":
        text = to_model_card(result)
    elif kind == "text":
        text = result.to_text(full=True)
    else:
        text = result.to_html() if kind == "html" else result.to_json()
    return text.encode("utf-8")
