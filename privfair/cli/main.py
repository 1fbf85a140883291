"""The entry point: global options, lazily loaded command groups, and the error boundary."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from click.shell_completion import shell_complete

from privfair import __version__
from privfair.cli._common import (
    ExitCode,
    State,
    clean,
    combine_exit_codes,
    examples_of,
    exit_code_of,
    message_of,
)

__all__ = ["cli", "main", "run"]

# Name and one line of help of each group, in the order of `privfair --help`. The line stands
# here so that the help of the whole needs none of the modules; a module that is not in the
# package does not appear.
COMMANDS = {
    "audit": "Audit decisions or a data set: fairness with intervals, privacy, one report.",
    "accountant": "Work out epsilon, delta, noise or steps.",
    "ledger": "Show or verify what has been spent.",
    "data": "List, find, fetch and verify data sets.",
    "fairness": "Look deeper into disparities.",
    "ldp": "Collect frequencies under local differential privacy.",
    "doctor": "Check the environment: versions, solvers, devices, data, randomness.",
}


# -- global options, accepted anywhere on the line ----------------------------------------
def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Note a global option's value; a default never undoes what was given further left."""
    if value is None or value is False or (value == 0 and param.name == "global_verbosity"):
        return
    options = ctx.find_root().ensure_object(State)
    match param.name:
        case "global_json":
            options.json = True
        case "global_quiet":
            options.quiet = True
        case "global_verbosity":
            options.verbosity = max(options.verbosity, int(value))
            level = logging.INFO if options.verbosity == 1 else logging.DEBUG
            logging.getLogger("privfair").setLevel(level)
        case "global_no_color":
            options.color = False
        case "global_no_progress":
            options.progress = False
        case "global_seed":
            options.seed = int(value)
        case "global_offline":
            options.offline = True
            os.environ["PRIVFAIR_OFFLINE"] = "1"


def _global_options() -> list[click.Option]:
    common: dict[str, Any] = {"expose_value": False, "callback": _store}
    flag: dict[str, Any] = {**common, "is_flag": True}
    return [
        click.Option(["--json", "global_json"], help="Print one JSON object on stdout.", **flag),
        click.Option(["--quiet", "-q", "global_quiet"], help="No notes on stderr.", **flag),
        click.Option(
            ["-v", "--verbose", "global_verbosity"], count=True, **common,
            help="Say more on stderr; -vv adds tracebacks.",
        ),
        click.Option(["--no-color", "global_no_color"], help="No colours.", **flag),
        click.Option(["--no-progress", "global_no_progress"], help="No progress bars.", **flag),
        click.Option(
            ["--seed", "global_seed"], type=click.IntRange(0, 2**32 - 1), **common,
            help="Seed of splits, weights and bootstrap; never of privacy noise.",
        ),
        click.Option(
            ["--offline", "global_offline"], help="Never download (also PRIVFAIR_OFFLINE).", **flag
        ),
    ]  # fmt: skip


def _prepare(command: click.Command, *, root: bool = False) -> click.Command:
    """Add the global options and the examples to a command and everything below it."""
    if getattr(command, "_privfair_prepared", False):
        return command
    taken = {name for param in command.params for name in param.opts}
    for option in _global_options():
        if not taken & set(option.opts):
            option.hidden = not root and option.name != "global_json"
            command.params.append(option)
    lines = examples_of(command)
    if lines and not command.epilog:
        command.epilog = "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
    command._privfair_prepared = True  # type: ignore[attr-defined]
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _prepare(child)
    return command


class LazyGroup(click.Group):
    """A group whose members live in modules that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the groups that this edition has."""
        return [
            name
            for name in COMMANDS
            if importlib.util.find_spec(f"privfair.cli.{name}") is not None
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one group."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"privfair.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"privfair.cli.{cmd_name}.command is not a click command")
        command.name = cmd_name
        return _prepare(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest the nearest name for an unknown one."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.NoSuchCommand(name, possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of groups without importing them."""
        if rows := [(name, COMMANDS[name]) for name in self.list_commands(ctx)]:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "PRIVFAIR",
        "max_content_width": 100,
    },
    epilog="\b\nExample:\n  privfair doctor\n\n"
    "Every option can be set by an environment variable PRIVFAIR_<COMMAND>_<OPTION>.",
)
@click.version_option(__version__, prog_name="privfair")
def cli() -> None:
    """Differential privacy and fairness: train, audit, account, in one toolkit."""


_prepare(cli, root=True)


# -- the boundary ---------------------------------------------------------------------------
def _show_warning(options: State) -> Any:
    """Print privfair's own warnings as one line; those of libraries with -v only."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        from privfair.core.exceptions import PrivfairWarning

        own = issubclass(category, PrivfairWarning)
        if not options.quiet and (own or options.verbosity):
            click.echo(f"warning: {clean(message)}", err=True)

    return show


def _report(error: BaseException, *, verbose: bool) -> int:
    """Tell the user what went wrong, and return the exit code."""
    code = exit_code_of(error)
    if code == ExitCode.BROKEN_PIPE:
        return code
    if verbose:
        click.echo(clean("".join(traceback.format_exception(error))), err=True)
    if code == ExitCode.INTERRUPTED:
        click.echo("interrupted", err=True)
        return code
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help' for help.", err=True)
    for line in message_of(error).splitlines() or [""]:
        click.echo(f"error: {clean(line)}", err=True)
    return code


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises, never shows a traceback.

    Parameters
    ----------
    args : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit code.
    """
    given = sys.argv[1:] if args is None else args
    options = State()
    logger = logging.getLogger("privfair")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    for stream in (sys.stdout, sys.stderr):
        # A code page that lacks a character shows "?" instead of ending the command.
        if hasattr(stream, "reconfigure") and not (stream.encoding or "").lower().startswith(
            "utf"
        ):
            stream.reconfigure(errors="replace")
    offline = os.environ.get("PRIVFAIR_OFFLINE")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning(options)
            if instruction := os.environ.get("_PRIVFAIR_COMPLETE"):
                return shell_complete(cli, {}, "privfair", "_PRIVFAIR_COMPLETE", instruction)
            # Not cli.main(): it turns a broken pipe into exit code 1.
            with cli.make_context("privfair", list(given), obj=options) as context:
                cli.invoke(context)
        sys.stdout.flush()
        return ExitCode.OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except SystemExit as error:  # a library that calls sys.exit
        return error.code if isinstance(error.code, int) else ExitCode.INTERNAL
    except BaseException as error:
        # The line may have failed before its -vv was read.
        return _report(error, verbose=options.verbosity >= 2 or "-vv" in given)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        if offline is None:
            os.environ.pop("PRIVFAIR_OFFLINE", None)


def main() -> NoReturn:
    """Run the command line and leave the process."""
    code = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = combine_exit_codes([code]) or ExitCode.BROKEN_PIPE
    if code == ExitCode.BROKEN_PIPE:
        # The interpreter flushes stdout once more on its way out; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
