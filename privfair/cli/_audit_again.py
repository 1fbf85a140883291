"""``privfair audit report`` and ``diff``: audits that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from privfair.cli._audit_export import FORMATS, check_export, export
from privfair.cli._audit_options import PATH, file_options
from privfair.cli._audit_output import check_targets, conclude, parsed_conditions
from privfair.cli._common import example, output

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["diff", "report"]


@click.command()
@click.argument("audit_json", metavar="JSON", type=PATH)
@file_options
@click.option("--format", "kind", type=click.Choice(FORMATS), default=None,
              help="Another form: annotations, a model card, all tables.")  # fmt: skip
@click.option("--output", "target", type=PATH, default=None,
              help="File for --format; by default standard output.")  # fmt: skip
@click.option("--pdf", type=PATH, default=None,
              help="Write the page as PDF here; needs `pip install 'privfair[pdf]'`.")  # fmt: skip
@click.option("--full", is_flag=True, help="Print all sections, not only the summary.")
@click.option("--fail-on", "fail_on", multiple=True, metavar="CONDITION",
              help="Exit with 6 if met; see `privfair audit run`.")  # fmt: skip
@example(
    "privfair audit compas --n-resamples 200 --output audits",
    "privfair audit report audits/compas.json --html audits/again.html",
    "privfair audit report audits/compas.json --format model-card --output audits/card.md",
)
def report(
    audit_json: Path,
    html: Path | None,
    json_file: Path | None,
    kind: str | None,
    target: Path | None,
    pdf: Path | None,
    full: bool,
    fail_on: tuple[str, ...],
) -> None:
    """Render the JSON of an audit again: in another form, or against conditions."""
    from privfair.cli._audit_files import read_text
    from privfair.report import from_json

    conditions = parsed_conditions(fail_on)
    check_targets(html, json_file)
    check_export(kind, target, pdf)
    result = from_json(read_text(audit_json))
    printed, written = export(result, audit_json, kind, target, pdf)
    conclude(
        result, html=html, json_file=json_file, fail_on=conditions, full=full, more=written,
        printed=printed,
    )  # fmt: skip


@click.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@click.option("--all", "everything", is_flag=True, help="List every change, however small.")
@example(
    "privfair audit compas --n-resamples 200 --output audits",
    "privfair audit diff audits/compas.json audits/compas.json",
)
def diff(old: Path, new: Path, everything: bool) -> None:
    """Compare two audits finding by finding.

    Findings whose intervals have no point in common come first.
    """
    from privfair.cli._audit_files import read_text
    from privfair.report import diff as compare
    from privfair.report import from_json

    found = compare(from_json(read_text(old)), from_json(read_text(new)))
    shown = found.changed if everything else found.changed[:30]

    def human(console: Console) -> None:
        from privfair.report import print_diff

        encoding = (console.encoding or "utf-8").lower()
        print_diff(found, shown, console, ascii_only=not encoding.startswith("utf"))

    output(found.to_dict(), human)
