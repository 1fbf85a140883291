"""Two drawings of rows: parts that add up, and the same measure under several models."""

from __future__ import annotations

from typing import Any

from privfair.report._canvas import (
    GRID,
    INK,
    MUTED,
    SURFACE,
    WIDTH,
    Canvas,
    column,
    finite,
    limits,
    mark,
    short,
)
from privfair.report._model import Figure
from privfair.report._numbers import interval, number, signed
from privfair.report._svg import series_colour

__all__ = ["dumbbell", "stack"]

STEP = 28


def _lines(heads: list[Any], labels: list[Any]) -> dict[tuple[str, Any], float]:
    """Return the place of each heading and of each row below it."""
    rows = list(dict.fromkeys(zip(heads, labels, strict=True)))
    lines: list[tuple[str, Any]] = []
    for head in dict.fromkeys(heads):
        if head:
            lines.append(("head", head))
        lines += [("row", row) for row in rows if row[0] == head]
    return {line: k + 0.5 for k, line in enumerate(lines)}


def _words(canvas: Canvas, place: dict[tuple[str, Any], float], top: float, left: float) -> None:
    for (kind, what), y in place.items():
        head = kind == "head"
        style: dict[str, Any] = {"fontweight": "bold"} if head else {}
        canvas.text(
            4 if head else left - 12, top + STEP * y, short(what if head else what[1], 34),
            ha="left" if head else "right", **style,
        )  # fmt: skip


def _axes(canvas: Canvas, left: float, top: float, width: float, n: int) -> Any:
    ax = canvas.axes(left, top, width, STEP * max(n, 1))
    ax.set_ylim(max(n, 1), 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return ax


# -- stacked bars -----------------------------------------------------------------------------
def stack(figure: Figure) -> Canvas:
    """Rows of parts side by side, each part with its letter, the sum written at the end.

    Data: the columns attribute, row, part, value.
    """
    spec = figure.spec
    parts: list[str] = spec["parts"]
    heads, labels, names = (column(figure, k) for k in ("attribute", "row", "part"))
    cells = column(figure, "value")
    place = _lines(heads, labels)
    left, top, right = 232, 34, 86
    canvas = Canvas(WIDTH, top + STEP * max(len(place), 1) + 52)
    canvas.legend(parts, left + 4, 14)
    ax = _axes(canvas, left, top, WIDTH - left - right, len(place))
    found: dict[tuple[Any, Any], dict[str, float]] = {}
    for head, label, name, cell in zip(heads, labels, names, cells, strict=True):
        if cell is not None and cell.shown:
            found.setdefault((head, label), {})[name] = max(0.0, float(cell.estimate))
    totals = [sum(of.values()) for of in found.values()]
    high = max([*totals, 0.0]) or 1.0
    ax.set_xlim(0, 1.02 * high)
    ax.set_xlabel(spec.get("x_label", ""), fontsize=11.5)
    ax.locator_params(axis="x", nbins=5)
    for (kind, row), y in place.items():
        if kind == "head":
            continue
        if row not in found:
            ax.text(0.01 * high, y, "not estimable", color=MUTED, fontsize=9, va="center",
                    style="italic")  # fmt: skip
            continue
        start = 0.0
        for k, name in enumerate(parts):
            width = found[row].get(name, 0.0)
            if width <= 0:
                continue
            ax.barh(y, width, left=start, height=0.56, color=series_colour(k),
                    edgecolor=SURFACE, linewidth=1)  # fmt: skip
            if width > 0.035 * high:
                ax.text(start + width / 2, y, name[:1], ha="center", va="center", color=SURFACE,
                        fontsize=10.5, fontweight="bold")  # fmt: skip
            start += width
        ax.text(start + 0.012 * high, y, number(start), va="center", fontsize=11, color=INK)
    _words(canvas, place, top, left)
    return canvas


# -- dumbbells --------------------------------------------------------------------------------
def dumbbell(figure: Figure) -> Canvas:
    """Rows of measures, one mark per model, a bar between them, the change in words.

    Data: the columns attribute, metric, series, value and change (empty for the reference).
    """
    spec = figure.spec
    series: list[str] = spec["series"]
    heads, labels, names = (column(figure, k) for k in ("attribute", "metric", "series"))
    cells, changes = column(figure, "value"), column(figure, "change")
    place = _lines(heads, labels)
    # One change can be written at the end of the row; more are in the table.
    written = len(series) == 2
    left, top, right = 262, 34, 196 if written else 16
    canvas = Canvas(WIDTH, top + STEP * max(len(place), 1) + 52)
    canvas.legend(series, left + 4, 14)
    ax = _axes(canvas, left, top, WIDTH - left - right, len(place))
    ends = [float(c.estimate) for c in cells if c is not None and c.shown]
    low, high = limits(finite(*ends), spec, "limits")
    ax.set_xlim(min(low, 0.0) if min(ends, default=0.0) < 0 else max(low, 0.0), high)
    ax.set_xlabel(spec.get("x_label", ""), fontsize=11.5)
    ax.locator_params(axis="x", nbins=5)
    data = list(zip(heads, labels, names, cells, changes, strict=True))
    for (kind, row), y in place.items():
        if kind == "head":
            continue
        mine = [(n, c, d) for h, m, n, c, d in data if (h, m) == row]
        shown = [(n, float(c.estimate)) for n, c, _ in mine if c is not None and c.shown]
        if len(shown) > 1:
            values = [v for _, v in shown]
            ax.plot([min(values), max(values)], [y, y], color=GRID, linewidth=5, zorder=1,
                    solid_capstyle="round")  # fmt: skip
        for name, value in shown:
            ax.plot([value], [y], linestyle="none", **mark(series.index(name)))
        change = next((d for _, _, d in mine if d is not None), None)
        if written and change is not None:
            text = (
                f"{signed(change.estimate)} {interval(change.low, change.high)}"
                if change.shown
                else "not estimable"
            )
            canvas.text(WIDTH - right + 14, top + STEP * y, text, fontsize=11, color=MUTED)
    _words(canvas, place, top, left)
    return canvas
