"""``privfair fairness``: one question about disparities at a time, from a table of decisions.

``pid`` says where a disparity comes from, ``frontier`` how accurate decisions could be at a
disparity, ``dcov`` how much the whole score depends on the groups, ``sep`` how underprivileged
members of each group fare.
"""

import click

from privfair.cli.fairness._dcov import dcov
from privfair.cli.fairness._frontier import frontier
from privfair.cli.fairness._pid import pid
from privfair.cli.fairness._sep import sep

__all__ = ["command"]


@click.group()
def command() -> None:
    """Look deeper into disparities: one question at a time, from a table of decisions.

    All commands read the table that `privfair audit run` reads, and their numbers are those of
    its sections. Without --epsilon they show the rows as they are: nothing here is private then.
    """


for _command in (pid, frontier, dcov, sep):
    command.add_command(_command)
