"""What all drawings share: a surface measured in pixels, marks, text, columns of a figure's data.

Every series has a colour and a marker shape, so that nothing is told by colour alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from privfair.report._model import Figure
from privfair.report._svg import ROLES, series_colour

__all__ = [
    "DASHES", "GRID", "INK", "MARKERS", "MUTED", "SURFACE", "WIDTH", "Canvas", "column", "finite",
    "limits", "mark", "short",
]  # fmt: skip

MARKERS = "os^DvPX*"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
INK, MUTED, GRID, SURFACE = (ROLES[k] for k in ("ink", "muted", "grid", "surface"))
WIDTH = 760


class Canvas:
    """A drawing surface measured in pixels from the top left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure as MplFigure

        self.width, self.height = width, height
        self.figure = MplFigure(figsize=(width / 72, height / 72), dpi=72)
        self.figure.patch.set_alpha(0)

    def axes(self, x: float, y: float, w: float, h: float, *, grid: Any = "x") -> Any:
        box = (x / self.width, 1 - (y + h) / self.height, w / self.width, h / self.height)
        ax = self.figure.add_axes(box)
        ax.patch.set_alpha(0)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.tick_params(length=0, labelsize=11)
        if grid:
            ax.grid(axis=grid, color=GRID, linewidth=1)
        ax.set_axisbelow(True)
        return ax

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        style = {"va": "center", "ha": "left", "fontsize": 12, **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def legend(self, names: Sequence[str], x: float, y: float, *, lines: bool = False) -> None:
        from matplotlib.lines import Line2D

        for k, name in enumerate(names):
            label = short(name, 30)
            dash: Any = DASHES[k % len(DASHES)] if lines else "none"
            self.figure.add_artist(
                Line2D(
                    [x / self.width, (x + (22 if lines else 0)) / self.width],
                    [1 - y / self.height] * 2,
                    **mark(k),
                    linestyle=dash,
                    linewidth=2,
                    markevery=[0] if not lines else [],
                )
            )
            if lines:
                self.figure.add_artist(
                    Line2D([(x + 11) / self.width], [1 - y / self.height], **mark(k))
                )
            x += 30 if lines else 12
            self.text(x, y, label, color=MUTED, fontsize=11.5)
            x += 6.6 * len(label) + 22

    def svg(self) -> str:
        out = io.StringIO()
        self.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return str(out.getvalue())


def mark(k: int) -> dict[str, Any]:
    return {
        "marker": MARKERS[k % len(MARKERS)],
        "color": series_colour(k),
        "markersize": 7,
        "markeredgecolor": SURFACE,
        "markeredgewidth": 0.8,
    }


def short(text: Any, limit: int = 24) -> str:
    out = str(text)
    return out if len(out) <= limit else out[: limit - 1].rstrip() + "…"


def column(figure: Figure, key: str) -> list[Any]:
    keys = [c.key for c in figure.table.columns]
    at = keys.index(key)
    return [row[at] for row in figure.table.rows]


def limits(values: list[float], spec: dict[str, Any], key: str) -> tuple[float, float]:
    given = spec.get(key)
    if given:
        return float(given[0]), float(given[1])
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.06 * (high - low) or 0.05
    return low - pad, high + pad


def finite(*values: Any) -> list[float]:
    return [float(v) for v in values if isinstance(v, int | float)]
