"""What goes to which stream, and how: results to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, TextIO

import click

from privfair.core._format import json_safe

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

__all__ = [
    "State", "clean", "console", "note", "output", "progress", "state", "terminal_width",
    "unicode_output", "warn",
]  # fmt: skip


@dataclass
class State:
    """The global options of one run."""

    json: bool = False
    quiet: bool = False
    verbosity: int = 0
    color: bool = True
    progress: bool = True
    seed: int | None = None
    offline: bool = False


def state() -> State:
    """Return the global options of the running command."""
    context = click.get_current_context(silent=True)
    if context is None:
        return State()
    return context.ensure_object(State)


# C0 and C1 controls but newline and tab, and the marks that reorder text or hide.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


def clean(text: object) -> str:
    """Strip what could steer a terminal (escape sequences, bells, bidirectional overrides).

    Examples
    --------
    >>> clean("Fe" + chr(27) + "[31mmale")
    'Fe[31mmale'
    """
    return _UNSAFE.sub("", str(text))


class _Cleaned:
    """A renderable whose text, wherever it comes from, is stripped of control characters."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for segment in console.render(self.inner, options):
            yield Segment(clean(segment.text), segment.style)


def _plain(stream: TextIO, *, color: bool) -> bool:
    if not color or os.environ.get("NO_COLOR"):
        return True
    if os.environ.get("FORCE_COLOR"):
        return False
    return os.environ.get("TERM") == "dumb" or not stream.isatty()


def console(stream: TextIO | None = None) -> Console:
    """Return a rich console on stdout (or the stream given) under the global options.

    ``NO_COLOR`` and ``--no-color`` win over ``FORCE_COLOR``; ``COLUMNS`` sets the width.
    """
    from rich.console import Console

    class PipeAwareConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")  # rich would exit with 1

    stream = sys.stdout if stream is None else stream
    plain = _plain(stream, color=state().color)
    return PipeAwareConsole(
        file=stream,
        color_system=None if plain else "auto" if stream.isatty() else "standard",
        force_terminal=None if plain else True,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def terminal_width(most: int = 100) -> int:
    """Return the columns there are for text, between 40 and `most`; ``COLUMNS`` wins."""
    return min(most, max(40, shutil.get_terminal_size((80, 24)).columns))


def unicode_output(stream: TextIO | None = None) -> bool:
    """Return whether stdout (or the stream given) shows any character, not ASCII alone."""
    stream = sys.stdout if stream is None else stream
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") in {
        "utf8", "utf16", "utf32",
    }  # fmt: skip


def output(
    payload: object,
    human: str | RenderableType | Callable[[Console], None] | None = None,
) -> None:
    """Print a result: one JSON object with ``--json``, otherwise for a person.

    Parameters
    ----------
    payload : mapping, or object with ``to_dict``
        What ``--json`` prints, on one line. Infinity becomes the string "inf", any other number
        that is not finite null.
    human : str, rich renderable, callable taking a rich console, or None
        What a person sees. None prints the payload, indented.
    """
    if state().json:
        click.echo(json.dumps(json_safe(payload), allow_nan=False))
    elif isinstance(human, str):
        click.echo(clean(human))
    elif human is None:
        click.echo(json.dumps(json_safe(payload), allow_nan=False, indent=2))
    elif callable(human) and not hasattr(human, "__rich_console__"):
        human(console())
    else:
        show(human)


def show(renderable: RenderableType) -> None:
    """Print a rich renderable on stdout, cleaned."""
    console().print(_Cleaned(renderable))


def note(message: str) -> None:
    """Tell something on stderr, unless ``--quiet``."""
    if not state().quiet:
        click.echo(clean(message), err=True)


def warn(message: str) -> None:
    """Warn on stderr, unless ``--quiet``. For utility only: a weaker guarantee is an error."""
    note(f"warning: {message}")


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr once a task has taken two seconds, on a terminal only.

    Yields ``advance(n=1, status="")``. `status` must be public, such as the epsilon so far: a
    loss or an accuracy on private data is a release, and does not belong here.
    """
    options = state()
    wanted = options.progress and not options.quiet and sys.stderr.isatty()
    if not wanted or os.environ.get("TERM") == "dumb":
        yield lambda n=1, status="": None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(), TextColumn("{task.fields[status]}"),
        console=console(sys.stderr), transient=True,
    )  # fmt: skip
    task = bar.add_task(clean(description), total=total, status="")
    started, running = monotonic(), False

    def advance(n: int = 1, status: str = "") -> None:
        nonlocal running
        bar.update(task, advance=n, status=clean(status))
        if not running and monotonic() - started > 2.0:
            bar.start()
            running = True

    try:
        yield advance
    finally:
        if running:
            bar.stop()
