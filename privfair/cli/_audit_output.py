"""Where the commands of ``privfair audit`` write, what they print, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import ExitCode, clean, finish, note, output, state

if TYPE_CHECKING:
    from rich.console import Console

    from privfair.report import AuditResult

__all__ = [
    "check_ledger", "check_targets", "conclude", "ledger_note", "output_folder",
    "parsed_conditions",
]  # fmt: skip


def conclude(
    result: AuditResult,
    *,
    html: Path | None,
    json_file: Path | None,
    fail_on: tuple[Any, ...],
    full: bool,
    more: list[str] | None = None,
    printed: str | None = None,
) -> None:
    """Write the files, print the result, end with the exit code.

    `printed` goes to standard output as it is, in place of the result.
    """
    from privfair.cli._audit_files import write_text

    written = []
    if html is not None:
        write_text(html, result.to_html())
        written.append(f"report: {html}")
    if json_file is not None:
        write_text(json_file, result.to_json())
        written.append(f"JSON:   {json_file}")
    written += more or []
    outcomes = [condition.check(result) for condition in fail_on]

    def human(console: Console) -> None:
        from privfair.report import print_text

        encoding = (console.encoding or "utf-8").lower()
        print_text(result, console, full=full, ascii_only=not encoding.startswith("utf"))
        console.print()
        for line in written:
            console.print(clean(line), soft_wrap=True)

    if printed is not None:
        click.echo(printed, nl=False)
    else:
        data = result.to_dict() if state().json else {}
        output({"_notice": result.notice, **data}, human)
    if state().json or printed is not None:
        for line in written:
            note(line)
    for section in result.failed:
        note(f"section {section.title!r} could not be built: {section.reason}")
    met = [o for o in outcomes if o.met]
    for outcome in met:
        click.echo(f"fail-on: {clean(outcome.text)}", err=True)
    codes = [result.exit_code, ExitCode.FAIL_ON if met else ExitCode.OK]
    if any(codes):
        finish(*codes)


def parsed_conditions(texts: tuple[str, ...]) -> tuple[Any, ...]:
    from privfair.report import parse_condition

    return tuple(parse_condition(text) for text in texts)


def check_ledger(path: Path | None) -> None:
    from privfair.cli._audit_files import check_target

    if path is not None:
        check_target(path, "--ledger")


def check_targets(html: Path | None, json_file: Path | None) -> None:
    from privfair.cli._audit_files import check_target

    if html is not None:
        check_target(html, "--html")
    if json_file is not None:
        check_target(json_file, "--json-file")
    if html is not None and html == json_file:
        raise click.UsageError("--html and --json-file name the same file.")


def output_folder(folder: Path, name: str) -> tuple[Path, Path]:
    from privfair.cli._audit_files import check_target
    from privfair.core.exceptions import OutputTargetError

    if folder.exists() and not folder.is_dir():
        raise OutputTargetError(f"--output {folder} is a file; give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return (
        check_target(folder / f"{name}.html", "--output"),
        check_target(folder / f"{name}.json", "--output"),
    )


def ledger_note(ledger: Any) -> list[str]:
    return [] if ledger.path is None else [f"ledger: {ledger.path}"]
