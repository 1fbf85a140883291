"""Figures of these commands; the only module here that needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from privfair.cli._common import clean

__all__ = ["FORMATS", "PLOT", "check_plot", "save"]

FORMATS = ("svg", "png", "pdf")
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "privfair", "text.parse_math": False,
    "font.family": ["DejaVu Sans"], "font.size": 11, "pdf.fonttype": 42,
}  # fmt: skip
PLOT = click.option(
    "--plot", type=click.Path(path_type=Path), default=None,
    help="Draw a figure into this file: .svg, .png or .pdf.",
)  # fmt: skip


def check_plot(path: Path | None) -> None:
    """Refuse a file that cannot be drawn into, before anything is read."""
    from privfair.cli._audit_files import check_target

    if path is None:
        return
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise click.BadParameter(
            f"{path.name} ends in none of {', '.join('.' + f for f in FORMATS)}.",
            param_hint="--plot",
        )
    check_target(path, "--plot")


def save(path: Path, draw: Callable[[Any], Any], size: tuple[float, float] = (8.0, 4.8)) -> None:
    """Let `draw` fill axes, and write them: the same bytes for the same numbers."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from privfair.cli._audit_files import write_bytes

    kind = path.suffix.lower().removeprefix(".")
    when: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=144)
        figure.set_layout_engine("constrained")
        draw(figure.add_subplot())
        for text in figure.findobj(Text):  # names come from the data
            text.set_text("\n".join(clean(line) for line in text.get_text().split("\n")))
        out = io.BytesIO()
        figure.savefig(out, format=kind, metadata=when[kind])
    write_bytes(path, out.getvalue())
