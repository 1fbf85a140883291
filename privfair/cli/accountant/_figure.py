"""The two curves of a guarantee as a figure; the only module here that needs matplotlib."""

from __future__ import annotations

import io
import math
from typing import Any

from privfair.cli.accountant._points import Curves
from privfair.core._format import format_upper

__all__ = ["FORMATS", "figure"]

FORMATS = ("svg", "png", "pdf")
INK, MUTED, GRID = "#1b2430", "#56616e", "#dfe4ea"
BLUE, RED = "#0b62a8", "#b8470c"
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "privfair", "text.parse_math": False,
    "font.family": ["DejaVu Sans"], "font.size": 11, "text.color": INK, "axes.edgecolor": MUTED,
    "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED, "pdf.fonttype": 42,
}  # fmt: skip


def figure(
    found: Curves, kind: str, *, epsilon: float | None, delta: float | None, caption: str
) -> bytes:
    """Return both curves, drawn.

    Parameters
    ----------
    found : Curves
    kind : {"svg", "png", "pdf"}
    epsilon, delta : float or None
        The point that the statement is about, marked if both are given.
    caption : str
        One line below the figure: what was priced.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        drawn = Figure(figsize=(10.4, 4.6), dpi=144)
        drawn.set_layout_engine("constrained", wspace=0.06, w_pad=0.12, h_pad=0.1)
        left, right = drawn.subplots(1, 2)
        _privacy(left, found, epsilon, delta)
        _tradeoff(right, found)
        drawn.supxlabel(caption, fontsize=9, color=MUTED)
        out = io.BytesIO()
        when: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        drawn.savefig(out, format=kind, metadata=when[kind])
    return out.getvalue()


def _frame(ax: Any, title: str, x: str, y: str) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", length=0, pad=7)


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _powers(axis: Any) -> None:
    """Label a logarithmic axis by powers of ten, without mathematics."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    def text(value: float, _: Any) -> str:
        power = math.log10(value)
        whole = round(power)
        return f"10{str(whole).translate(_SUPERSCRIPT)}" if abs(power - whole) < 1e-6 else ""

    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_major_formatter(FuncFormatter(text))
    axis.set_minor_formatter(NullFormatter())


def _privacy(ax: Any, found: Curves, epsilon: float | None, delta: float | None) -> None:
    _frame(ax, "Privacy curve", "delta", "epsilon, at most")
    deltas = [d for d, _ in found.privacy]
    epsilons = [e for _, e in found.privacy]
    ax.plot(deltas, epsilons, color=BLUE, linewidth=2.2)
    ax.fill_between(deltas, epsilons, color=BLUE, alpha=0.07, linewidth=0)
    ax.set_xscale("log")
    _powers(ax.xaxis)
    ax.set_ylim(0, 1.12 * max(epsilons, default=1.0))
    if deltas:
        ax.set_xlim(min(deltas), max(deltas))
    if epsilon is not None and delta is not None and deltas and deltas[-1] <= delta <= deltas[0]:
        ax.plot([delta], [epsilon], marker="o", color=RED, markersize=7, clip_on=False, zorder=5)
        # The curve falls: above it to the right is free, and below it to the left.
        right = math.log(delta / deltas[-1]) > 0.7 * math.log(deltas[0] / deltas[-1])
        ax.annotate(
            f"epsilon ≤ {format_upper(epsilon)}\nat delta = {delta:g}", (delta, epsilon),
            xytext=(-12, -8) if right else (10, 6), textcoords="offset points", color=RED,
            ha="right" if right else "left", va="top" if right else "bottom", fontsize=10,
        ).set_in_layout(False)  # fmt: skip


def _tradeoff(ax: Any, found: Curves) -> None:
    _frame(ax, "What any attack can find", "false positive rate", "true positive rate, at most")
    rates = [a for a, _ in found.tradeoff]
    ax.plot(rates, [t for _, t in found.tradeoff], color=BLUE, linewidth=2.2,
            label="best attack possible")  # fmt: skip
    ax.fill_between(rates, [t for _, t in found.tradeoff], rates, color=BLUE, alpha=0.07,
                    linewidth=0)  # fmt: skip
    ax.plot(rates, rates, color=MUTED, linewidth=1.4, linestyle=(0, (4, 3)), label="guessing")
    ax.set_xscale("log")
    ax.set_yscale("log")
    _powers(ax.xaxis)
    _powers(ax.yaxis)
    ax.set_xlim(min(rates), 1)
    ax.set_ylim(min(rates), 1.0)
    ax.legend(loc="lower right", frameon=False, fontsize=10)
