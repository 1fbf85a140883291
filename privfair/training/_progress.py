"""A progress bar on standard error that shows public quantities only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress"]


class Progress:
    """Steps done and the epsilon already charged; never a loss or accuracy on private data.

    Parameters
    ----------
    enabled : bool
        Shown only if also standard error is a terminal.
    label : str
        Text before the bar, made of public quantities.
    """

    def __init__(self, *, enabled: bool, label: str = "training") -> None:
        self._enabled = enabled
        self._label = label

    @contextmanager
    def running(self, steps: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that is told the number of steps done."""
        if not (self._enabled and sys.stderr is not None and sys.stderr.isatty()):
            yield lambda done: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(self._label, total=steps)
            yield lambda done: bar.update(task, completed=done)
