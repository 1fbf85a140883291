"""Pictures of a surface: accuracy, and what the disparity of the optimum is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.fairness.aglfop._parts import PARTS

if TYPE_CHECKING:
    from privfair.fairness.aglfop._frontier import AGLFOPSurface

__all__ = ["plot_bars", "plot_panels", "plot_surface"]

Pairs = Sequence[tuple[float | None, float | None]]
COLOURS = {"unique": "#4477aa", "redundant": "#ddaa33", "masked": "#bb5566"}


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5.5, 4.5), layout="constrained").add_subplot()


def _map(ax: Any, surface: AGLFOPSurface, values: NDArray[np.float64], title: str) -> None:
    g, local = surface.eps_global, surface.eps_local
    if len(g) == 1 or len(local) == 1:  # one bound matters nowhere
        at, name = (local, "local") if len(g) == 1 else (g, "global")
        ax.plot(at, values.ravel())
        ax.set(xlabel=f"bound on {name} disparity, bits", title=title)
        return
    drawn = ax.contourf(g, local, values.T, levels=12, cmap="viridis")
    ax.set(
        xlabel="bound on global disparity, bits", ylabel="bound on local disparity, bits",
        title=title,
    )  # fmt: skip
    ax.figure.colorbar(drawn, ax=ax)


def plot_surface(surface: AGLFOPSurface, ax: Any = None, *, bound_only: bool = True) -> Any:
    """Draw the best accuracy over both bounds.

    Parameters
    ----------
    surface : AGLFOPSurface
    ax : matplotlib axes or None
    bound_only : bool, default=True
        Whether the surface is an oracle's, which the title then says.

    Returns
    -------
    matplotlib axes
    """
    ax = _axes(ax)
    title = "best accuracy" + (" (bound, not achievable)" if bound_only else "")
    _map(ax, surface, 1.0 - surface.upper, title)
    return ax


def plot_panels(
    parts_of: Callable[[Pairs], dict[str, NDArray[np.float64]]],
    surface: AGLFOPSurface,
    *,
    n: int = 8,
    bound_only: bool = True,
) -> Any:
    """Draw accuracy and the three parts of the optimum's disparity over both bounds.

    Parameters
    ----------
    parts_of : callable
        Returns the parts at pairs of bounds in bits.
    surface : AGLFOPSurface
    n : int, default=8
        Points of the parts along each axis.
    bound_only : bool, default=True

    Returns
    -------
    matplotlib figure
    """
    from dataclasses import replace

    from matplotlib.figure import Figure

    steps = np.linspace(0.0, 1.0, n) ** 2
    axes = [
        np.zeros(1) if len(grid) == 1 else steps * grid[-1]
        for grid in (surface.eps_global, surface.eps_local)
    ]
    free = [len(axis) == 1 for axis in axes]
    pairs = [
        (None if free[0] else float(g), None if free[1] else float(y))
        for g in axes[0]
        for y in axes[1]
    ]
    parts = parts_of(pairs)
    coarse = replace(surface, eps_global=axes[0], eps_local=axes[1])
    figure = Figure(figsize=(9, 7), layout="constrained")
    drawn = figure.subplots(2, 2)
    plot_surface(surface, ax=drawn[0, 0], bound_only=bound_only)
    for ax, name in zip(drawn.ravel()[1:], PARTS, strict=True):
        values = parts[name].reshape(len(axes[0]), len(axes[1]))
        _map(ax, coarse, values, f"{name} disparity at the optimum, bits")
    return figure


def plot_bars(parts: dict[str, NDArray[np.float64]], bounds: Pairs, ax: Any = None) -> Any:
    """Draw stacked bars of the optimum's parts at bounds in bits.

    Parameters
    ----------
    parts : dict of str to ndarray
        At the bounds.
    bounds : sequence of (eps_global, eps_local)
    ax : matplotlib axes or None

    Returns
    -------
    matplotlib axes
    """
    ax = _axes(ax)
    start = np.zeros(len(bounds))
    at = np.arange(len(bounds))
    for name in PARTS:
        values = parts[name]
        ax.barh(at, values, left=start, color=COLOURS[name], label=name)
        start = start + values
    ax.set_yticks(at, [_bounds_text(g, y) for g, y in bounds])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel("disparity of the optimum, bits (global: unique + redundant)")
    ax.legend(loc="best")
    return ax


def _bounds_text(eps_global: float | None, eps_local: float | None) -> str:
    def text(value: float | None) -> str:
        return "none" if value is None else f"{value:.3g}"

    return f"global {text(eps_global)}, local {text(eps_local)}"
