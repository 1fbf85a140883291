"""``privfair accountant``: what a plan costs, what a budget allows, and what both mean.

One module for each question; ``_plan`` reads the options that describe training, ``_events_file``
the files that describe anything else, and ``_statement`` says the answer in words and as JSON.
"""

import click

from privfair.cli.accountant._audit import audit
from privfair.cli.accountant._compare import compare
from privfair.cli.accountant._compose import compose
from privfair.cli.accountant._curve import curve
from privfair.cli.accountant._explain import explain
from privfair.cli.accountant._solve import delta, epsilon, noise, steps
from privfair.cli.accountant._validate import validate

__all__ = ["command"]


@click.group()
def command() -> None:
    """Work out epsilon, delta, noise or steps; compose, compare, check and explain them.

    Every epsilon printed is an upper bound that holds for all intermediate results together,
    rounded up; every noise multiplier is rounded up, so that pasting it back never exceeds the
    target; lower bounds are rounded down.
    """


for _command in (
    epsilon, delta, noise, steps, curve, compose, compare, explain, validate, audit,
):  # fmt: skip
    command.add_command(_command)
