"""Stacked bars: what the global and the local disparity are made of."""

from __future__ import annotations

from typing import Any

__all__ = ["plot_parts"]

COLOURS = {"unique": "#4477aa", "redundant": "#ddaa33", "masked": "#bb5566"}
BARS = (
    ("global", "global_disparity", ("unique", "redundant")),
    ("local", "local_disparity", ("unique", "masked")),
)


def plot_parts(fits: dict[str, Any], ax: Any = None) -> Any:
    """Draw one pair of bars for each decomposition.

    Parameters
    ----------
    fits : dict of str to Analysis
        By title; the titles are not shown if there is one only.
    ax : matplotlib axes or None

    Returns
    -------
    matplotlib axes
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6, 1.2 + 0.8 * len(fits))).add_subplot()
    ticks: list[str] = []
    labelled: set[str] = set()
    for title, analysis in fits.items():
        for bar, total, parts in BARS:
            at = len(ticks)
            ticks.append(bar if len(fits) == 1 else f"{title}: {bar}")
            start = 0.0
            for part in parts:
                value = analysis.values[part]
                label = part if part not in labelled else None
                labelled.add(part)
                ax.barh(at, value, left=start, color=COLOURS[part], label=label)
                start += value
            if analysis.intervals is not None:
                low, high = analysis.intervals[total]
                ax.hlines(at, low, high, color="0.2", linewidth=1.2)
    ax.set_yticks(range(len(ticks)), ticks, parse_math=False)
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    level = next(iter(fits.values())).confidence
    ax.set_xlabel(f"bits of information on the group; lines: {100 * level:g} % intervals")
    ax.legend(loc="best")
    return ax
