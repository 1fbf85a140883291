"""What the command groups share.

How to write a command group
----------------------------
A module ``privfair/cli/<name>.py`` defines ``command``, a click command or group. Its line in
``privfair.cli.main.COMMANDS`` makes it appear; main imports it when it is used. Import
nothing heavy at the top of the module (torch, sklearn, matplotlib, cvxpy, pandas): do it
inside the function.

>>> import click
>>> from privfair.cli._common import example, output
>>> @click.command()
... @click.option("--times", type=int, default=1)
... @example("privfair greet --times 2")
... def command(times: int) -> None:
...     "Greet."
...     output({"greeting": "hello", "times": times}, "hello " * times)

Results go through ``output(payload, human)``: the payload is what ``--json`` prints, as one
object on stdout; `human` is a string, a rich renderable, or a function of a rich console.
Whatever else there is to say goes to stderr through ``note`` and ``warn``. Text from data is
cleaned of control characters on its way out (in a function of a console: by you, ``clean``).

Errors: raise a ``PrivfairError`` (its ``exit_code`` becomes the exit status) or
``click.UsageError`` / ``click.BadParameter`` (2). A command that can fail in several ways at
once ends with ``finish(code, ...)`` after its output, or raises an ``ExceptionGroup``; the
codes are combined.

The global options (``--json --quiet -v --no-color --no-progress --seed --offline``) are
accepted anywhere on the line and are found in ``state()``; do not declare them again.
``--seed`` is a `random_state`; it never reaches privacy noise.

``example`` puts one runnable line into the help; a test runs it, in an empty folder, and
wants exit code 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from privfair.cli._console import (
    State,
    clean,
    console,
    note,
    output,
    progress,
    state,
    terminal_width,
    unicode_output,
    warn,
)
from privfair.cli._errors import ExitCode, combine_exit_codes, exit_code_of, message_of
from privfair.cli._options import (
    FiniteFloat,
    NumberList,
    SamplingPlan,
    WholeNumber,
    accountant_option,
    batch_size_option,
    dataset_size_option,
    delta_option,
    epochs_option,
    epsilon_option,
    neighboring_option,
    noise_multiplier_option,
    resolve_plan,
    sample_rate_option,
    sampling_options,
    steps_option,
    unit_option,
)

__all__ = [
    "ExitCode", "FiniteFloat", "NumberList", "SamplingPlan", "State", "WholeNumber",
    "accountant_option", "batch_size_option", "clean", "combine_exit_codes", "console",
    "dataset_size_option", "delta_option", "epochs_option", "epsilon_option", "example",
    "examples_of", "exit_code_of", "finish", "message_of", "neighboring_option",
    "noise_multiplier_option", "note", "output", "progress", "resolve_plan",
    "sample_rate_option", "sampling_options", "state", "steps_option", "terminal_width",
    "unicode_output", "unit_option", "warn",
]  # fmt: skip

T = TypeVar("T", bound=Callable[..., Any])
_EXAMPLES = "__privfair_examples__"


def finish(*codes: int) -> NoReturn:
    """End the command with the combined exit code."""
    raise click.exceptions.Exit(combine_exit_codes(codes))


def example(*lines: str) -> Callable[[T], T]:
    """Give a command's help runnable examples; put it next to the function (innermost)."""

    def attach(function: T) -> T:
        setattr(function, _EXAMPLES, lines)
        return function

    return attach


def examples_of(command: click.Command) -> tuple[str, ...]:
    """Return the examples of a command."""
    lines: tuple[str, ...] = getattr(command.callback, _EXAMPLES, ())
    return lines
