"""``privfair ldp``: collect frequencies when the server is not trusted.

``plan`` works on public numbers, ``privatize`` is the client's side and the only one that sees
values, ``aggregate`` and ``estimate`` are the server's, ``audit`` puts the randomiser to the test.
"""

import click

from privfair.cli.ldp._aggregate import aggregate
from privfair.cli.ldp._audit import audit
from privfair.cli.ldp._estimate import estimate
from privfair.cli.ldp._plan import plan
from privfair.cli.ldp._privatize import privatize

__all__ = ["command"]


@click.group()
def command() -> None:
    """Collect frequencies under local differential privacy: files in, files out.

    Values are randomised by privatize, on the owner's side; everything after it sees reports
    only. Frequencies are estimated, and of numbers a histogram with public bins with the bounds
    that it sets to the mean; a mechanism for the mean of numbers is not offered.
    """


for _command in (plan, privatize, aggregate, estimate, audit):
    command.add_command(_command)
