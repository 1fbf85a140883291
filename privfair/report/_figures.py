"""Drawing: each kind of figure from its data, with matplotlib and without pyplot.

Text stays text (set in the reader's own font) and is never read as mathematics: a group may be
named ``$100k-$200k``.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

from privfair.core.exceptions import ReportError
from privfair.report._bars import dumbbell, stack
from privfair.report._canvas import (
    DASHES,
    GRID,
    INK,
    MARKERS,
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
from privfair.report._numbers import number
from privfair.report._svg import finish_svg, series_colour

__all__ = ["KINDS", "MARKERS", "draw"]

# rcParams are global to the process; one figure is drawn at a time.
_LOCK = threading.Lock()
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "privfair",
    "text.parse_math": False,
    "text.usetex": False,
    "axes.unicode_minus": True,
    "path.simplify": False,
    "font.family": ["sans-serif"],
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": INK,
}


# -- dot and whisker ----------------------------------------------------------------------
def _dots(figure: Figure) -> Canvas:
    """Rows of groups, panels of metrics, one mark per model; a line for the overall value."""
    spec = figure.spec
    panels: list[dict[str, Any]] = spec["panels"]
    series: list[str] = spec.get("series", [""])
    heads, labels, names = (column(figure, k) for k in ("attribute", "group", "series"))
    rows = list(dict.fromkeys(zip(heads, labels, strict=True)))
    lines: list[tuple[str, Any]] = []
    for head in dict.fromkeys(heads):
        if head:
            lines.append(("head", head))
        lines += [("row", (a, g)) for a, g in rows if a == head]
    step = 26 if len(series) < 3 else 10 * len(series) + 4
    left, top, gap = 158, 62 if len(series) > 1 else 38, 18
    height = step * max(len(lines), 1)
    width = (WIDTH - left - 12 - gap * (len(panels) - 1)) / len(panels)
    canvas = Canvas(WIDTH, top + height + 34)
    if len(series) > 1:
        canvas.legend(series, left + 4, 14)
    place = {line: k + 0.5 for k, line in enumerate(lines)}
    for (kind, what), y in place.items():
        label = short(what if kind == "head" else what[1], 22)
        style = {"fontsize": 11, "color": MUTED} if kind == "head" else {}
        x = 4 if kind == "head" else left - 12
        canvas.text(x, top + step * y, label, ha="left" if kind == "head" else "right", **style)
    for k, panel in enumerate(panels):
        ax = canvas.axes(left + k * (width + gap), top, width, height)
        canvas.text(
            left + k * (width + gap),
            top - 14,
            short(panel["label"], 26),
            fontweight="bold",
            fontsize=12,
        )
        ax.set_ylim(max(len(lines), 1), 0)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        cells = column(figure, panel["key"])
        ends = [
            v
            for c in cells
            if c is not None and c.shown
            for v in finite(c.estimate, c.low, c.high)
        ]
        ax.set_xlim(*limits(ends, panel, "limits"))
        ax.locator_params(axis="x", nbins=3)
        ax.xaxis.set_major_formatter("{x:g}")
        for j, reference in enumerate(panel.get("reference", [])):
            if reference is not None:
                ax.axvline(reference, color=series_colour(j), linewidth=1, linestyle=(0, (3, 3)))
        for head, label, name, cell in zip(heads, labels, names, cells, strict=True):
            j = series.index(name)
            shift = (j - (len(series) - 1) / 2) * (9 / step)
            y = place[("row", (head, label))] + shift
            _whisker(ax, cell, y, j)
    return canvas


def _whisker(ax: Any, cell: Any, y: float, k: int) -> None:
    if cell is None or not cell.shown:
        low, high = ax.get_xlim()
        ax.text(
            low + 0.02 * (high - low),
            y,
            "not estimable",
            color=MUTED,
            fontsize=9,
            va="center",
            style="italic",
        )
        return
    if cell.low is not None and cell.high is not None:
        ax.plot(
            [cell.low, cell.high],
            [y, y],
            color=series_colour(k),
            linewidth=2,
            solid_capstyle="round",
        )
    ax.plot([cell.estimate], [y], linestyle="none", **mark(k))


# -- forest -------------------------------------------------------------------------------
def _forest(figure: Figure) -> Canvas:
    """Rows of disparities with intervals; a bar up to the 95th percentile of the null."""
    spec = figure.spec
    series: list[str] = spec.get("series", [""])
    heads, labels, names = (column(figure, k) for k in ("attribute", "metric", "series"))
    cells, nulls = column(figure, "value"), column(figure, "null_q95")
    rows = list(dict.fromkeys(zip(heads, labels, strict=True)))
    lines: list[tuple[str, Any]] = []
    for head in dict.fromkeys(heads):
        lines.append(("head", head))
        lines += [("row", (a, m)) for a, m in rows if a == head]
    step = 26 if len(series) < 3 else 10 * len(series) + 4
    left, top, right = 262, 34 if len(series) > 1 else 10, 16
    canvas = Canvas(WIDTH, top + step * max(len(lines), 1) + 52)
    canvas.legend(series if len(series) > 1 else [], left + 4, 14)
    ax = canvas.axes(left, top, WIDTH - left - right, step * max(len(lines), 1))
    ax.set_ylim(max(len(lines), 1), 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ends = [
        v for c in cells if c is not None and c.shown for v in finite(c.estimate, c.low, c.high)
    ]
    low, high = limits([0.0, *ends, *finite(*nulls)], spec, "limits")
    ax.set_xlim(max(low, -1.02) if min(ends, default=0) < 0 else 0, high)
    ax.axvline(0, color=MUTED, linewidth=1.2)
    ax.set_xlabel(spec.get("x_label", ""), fontsize=11.5)
    place = {line: k + 0.5 for k, line in enumerate(lines)}
    for (kind, what), y in place.items():
        text = short(what if kind == "head" else what[1], 38)
        x = 4 if kind == "head" else left - 12
        style = {"fontweight": "bold"} if kind == "head" else {}
        canvas.text(x, top + step * y, text, ha="left" if kind == "head" else "right", **style)
    for head, label, name, cell, q95 in zip(heads, labels, names, cells, nulls, strict=True):
        j = series.index(name)
        y = place[("row", (head, label))] + (j - (len(series) - 1) / 2) * (10 / step)
        if isinstance(q95, int | float):
            half = 4.2 / step
            ax.fill_between([0, q95], y - half, y + half, color=MUTED, alpha=0.22, linewidth=0)
            ax.plot([q95, q95], [y - half, y + half], color=MUTED, linewidth=1.4)
        _whisker(ax, cell, y, j)
    return canvas


# -- lines --------------------------------------------------------------------------------
def _lines(figure: Figure) -> Canvas:
    """One or more panels of lines; long data with the columns panel, series, x, y.

    With the columns low and high there is a whisker at each point.
    """
    spec = figure.spec
    panels: list[dict[str, Any]] = spec["panels"]
    # What is in the data and no series is told by marks of its own (points).
    names = spec.get("series") or list(dict.fromkeys(column(figure, "series")))
    per_row = 3 if len(panels) >= 3 else len(panels)
    left, gap, top = 52, 58, 34 if len(names) > 1 else 12
    title = 24 if len(panels) > 1 else 6
    size = min((WIDTH - left - 12 - gap * (per_row - 1)) / per_row, spec.get("size", 420))
    high = size if spec.get("square", True) else spec.get("height", 280)
    n_rows = -(-len(panels) // per_row)
    block = title + high + 56
    canvas = Canvas(left + per_row * size + (per_row - 1) * gap + 14, top + n_rows * block)
    if len(names) > 1:
        canvas.legend(names, left, 14, lines=True)
    keys = [c.key for c in figure.table.columns]
    wanted = ["panel", "series", "x", *(k for k in ("low", "high") if k in keys)]
    # Panels with different quantities have a column each.
    heights = zip(*(column(figure, k) for k in spec.get("y_columns", ["y"])), strict=True)
    data = [
        (*row[:3], next((y for y in ys if y is not None), None), *row[3:])
        for row, ys in zip(
            zip(*(column(figure, k) for k in wanted), strict=True), heights, strict=True
        )
    ]
    for k, panel in enumerate(panels):
        x = left + (k % per_row) * (size + gap)
        y = top + (k // per_row) * block + title
        ax = canvas.axes(x, y, size, high, grid="both")
        if len(panels) > 1:
            canvas.text(x, y - 14, panel["title"], fontweight="bold")
        ax.set_xlabel(panel["x_label"], fontsize=11.5)
        ax.set_ylabel(panel["y_label"], fontsize=11.5)
        ax.tick_params(axis="y", labelcolor=MUTED)
        _panel(ax, panel, names, [row[1:] for row in data if row[0] == panel["title"]])
    return canvas


def _panel(ax: Any, panel: dict[str, Any], names: list[str], data: list[Any]) -> None:
    for axis in "xy":
        if panel.get(f"{axis}_scale") == "log":
            getattr(ax, f"set_{axis}scale")("log")
            # Powers of ten as plain text: mathematics is switched off.
            getattr(ax, f"{axis}axis").set_major_formatter(_power)
            getattr(ax, f"{axis}axis").set_minor_formatter(lambda *_: "")
    if panel.get("diagonal"):
        down = panel["diagonal"] == "down"
        ax.plot(
            [0, 1], [1, 0] if down else [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3))
        )
    for j, name in enumerate(names):
        mine = [row[1:] for row in data if row[0] == name]
        points = [(row[0], row[1]) for row in mine if row[0] is not None and row[1] is not None]
        if not points:
            continue
        for x, _, *ends in mine:
            if len(ends) == 2 and None not in ends:
                ax.plot([x, x], ends, color=series_colour(j), linewidth=2, alpha=0.55)
        xs, ys = zip(*points, strict=True)
        every = 1 if panel.get("markers") else max(1, len(xs) // 4)
        style = mark(j)
        ax.plot(
            xs,
            ys,
            **style,
            linestyle=DASHES[j % len(DASHES)],
            linewidth=2,
            markevery=every if panel.get("markers") else (every // 2, every),
            drawstyle="steps-post" if panel.get("steps") else "default",
        )
    for point in panel.get("points", []):
        ax.plot(
            [point["x"]],
            [point["y"]],
            marker="D",
            markersize=9,
            color=INK,
            markeredgecolor=SURFACE,
            linestyle="none",
            zorder=5,
        )
        ax.annotate(
            point["label"],
            (point["x"], point["y"]),
            xytext=(10, 10),
            textcoords="offset points",
            fontsize=11.5,
            color=INK,
        )
    for axis in "xy":
        if panel.get(f"{axis}_limits"):
            getattr(ax, f"set_{axis}lim")(*panel[f"{axis}_limits"])
    if panel.get("x_ticks"):
        places, words = zip(*panel["x_ticks"], strict=True)
        ax.set_xticks(places, [short(word, 10) for word in words])
    elif panel.get("x_scale") != "log":
        ax.locator_params(axis="x", nbins=5)


def _power(value: float, _position: Any = None) -> str:
    import math

    if value <= 0:
        return ""
    exponent = math.log10(value)
    return (
        f"1e{round(exponent)}".replace("-", "−") if abs(exponent - round(exponent)) < 1e-9 else ""
    )


# -- heat map -----------------------------------------------------------------------------
def _heat(figure: Figure) -> Canvas:
    """A grid of cells: the value as depth of colour and as a number, the count below it."""
    from matplotlib.patches import Rectangle

    spec = figure.spec
    rows, columns = spec["rows"], spec["columns"]
    row_of, column_of = column(figure, "row"), column(figure, "column")
    cells = dict(zip(zip(row_of, column_of, strict=True), column(figure, "value"), strict=True))
    counts = dict(zip(zip(row_of, column_of, strict=True), column(figure, "n"), strict=True))
    left, top, tall = 158, 44, 44 if spec.get("counts", True) else 28
    wide = min((WIDTH - left - 12) / max(len(columns), 1), 170)
    canvas = Canvas(left + wide * len(columns) + 12, top + tall * len(rows) + 12)
    ax = canvas.axes(left, top, wide * len(columns), tall * len(rows), grid="")
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(rows), 0)
    ax.axis("off")
    limit = max(int(wide / 7.2), 4)
    for k, name in enumerate(columns):
        canvas.text(
            left + (k + 0.5) * wide,
            top - 14,
            short(name, limit),
            ha="center",
            fontsize=11.5,
            color=MUTED,
        )
    for k, name in enumerate(rows):
        canvas.text(left - 12, top + (k + 0.5) * tall, short(name, 22), ha="right")
    numbers = [c.estimate for c in cells.values() if c is not None and c.shown]
    low, high = limits(numbers, spec, "limits")
    for (row, head), cell in cells.items():
        x, y = columns.index(head), rows.index(row)
        box: dict[str, Any] = {"width": 1 - 4 / wide, "height": 1 - 4 / tall, "linewidth": 0}
        at = (x + 2 / wide, y + 2 / tall)
        if cell is None or not cell.shown:
            ax.add_patch(
                Rectangle(
                    at,
                    **{**box, "linewidth": 1},
                    facecolor="none",
                    edgecolor=GRID,
                    linestyle=(0, (3, 2)),
                )
            )
            text = "not estimable" if wide > 84 else "n/e"
            style: dict[str, Any] = {"color": MUTED, "fontsize": 10.5, "style": "italic"}
        else:
            depth = 0.06 + 0.44 * (cell.estimate - low) / ((high - low) or 1)
            ax.add_patch(Rectangle(at, **box, facecolor=series_colour(0), alpha=depth))
            text, style = number(cell.estimate), {"fontsize": 12.5, "fontweight": "bold"}
        with_count = spec.get("counts", True) and counts[(row, head)] is not None
        ax.text(
            x + 0.5, y + (0.36 if with_count else 0.5), text, ha="center", va="center", **style
        )
        if with_count:
            ax.text(
                x + 0.5,
                y + 0.72,
                f"n = {counts[(row, head)]:,}",
                ha="center",
                va="center",
                fontsize=10.5,
                color=INK,
            )
    return canvas


KINDS: dict[str, Callable[[Figure], Canvas]] = {
    "dots": _dots,
    "forest": _forest,
    "lines": _lines,
    "heat": _heat,
    "stack": stack,
    "dumbbell": dumbbell,
}


def draw(figure: Figure) -> str:
    """Return the figure as one inline SVG element.

    Raises
    ------
    ReportError
        If the kind is unknown or the drawing did not pass the check for active content.
    """
    import matplotlib

    if figure.kind not in KINDS:
        raise ReportError(
            f"figure {figure.id!r} has the kind {figure.kind!r}; known are {', '.join(KINDS)}."
        )
    with _LOCK, matplotlib.rc_context(_RC), warnings.catch_warnings():
        # A glyph that the measuring font lacks is set in the reader's own font anyway.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        raw = KINDS[figure.kind](figure).svg()
    return finish_svg(
        raw, name=f"f-{figure.id}", title=figure.title, description=figure.description
    )
