"""``privfair audit``: measure decisions or models, write one report."""

import click

from privfair.cli._audit_again import diff, report
from privfair.cli._audit_sets import adult, compas
from privfair.cli._audit_table import run

__all__ = ["command"]


@click.group()
def command() -> None:
    """Audit decisions or models: group metrics with intervals, certified privacy, one report.

    The report is an HTML page (--html), JSON (--json-file) and terminal text. The global option
    --json prints the JSON on standard output instead of the text.
    """


for _command in (adult, compas, run, report, diff):
    command.add_command(_command)
