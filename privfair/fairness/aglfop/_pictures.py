"""Pictures of a fitted ``AGLFOP``: its surface, and what the disparity of optima is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.utils.validation import check_is_fitted

from privfair.core import _validation as check

__all__ = ["PicturesMixin"]


class PicturesMixin:
    """Draws what an estimator with ``_program`` and ``frontier`` answers."""

    def plot_surface(self: Any, ax: Any = None, *, parts: bool = False, n: int = 8) -> Any:
        """Draw the accuracy over both bounds, and what the disparity of the optimum is made of.

        Parameters
        ----------
        ax : matplotlib axes or None
            Not with ``parts``.
        parts : bool, default=False
            Add panels of the unique, redundant and masked disparity of the optimum (of least
            disparity, for it is not unique).
        n : int, default=8
            Points of the panels along each axis.

        Returns
        -------
        matplotlib axes, or figure with ``parts``
        """
        from privfair.fairness.aglfop import _plot

        check_is_fitted(self, "p_")
        if not hasattr(self, "surface_"):
            self.frontier()
        oracle = self.mode == "oracle"
        if not parts:
            return _plot.plot_surface(self.surface_, ax=ax, bound_only=oracle)
        number = check.positive_int(n=n)
        return _plot.plot_panels(self._parts, self.surface_, n=number, bound_only=oracle)

    def plot_parts(
        self: Any, bounds: Sequence[tuple[float | None, float | None]], ax: Any = None
    ) -> Any:
        """Draw stacked bars of the parts of the disparity of the optimum at some bounds.

        Parameters
        ----------
        bounds : sequence of (eps_global, eps_local)
            In bits.
        ax : matplotlib axes or None

        Returns
        -------
        matplotlib axes
        """
        from privfair.fairness.aglfop import _plot

        check_is_fitted(self, "p_")
        return _plot.plot_bars(self._parts(bounds), bounds, ax=ax)

    def _parts(self: Any, bounds: Sequence[tuple[float | None, float | None]]) -> Any:
        from privfair.fairness.aglfop._parts import parts_at

        return parts_at(
            self._program, bounds, access=self._sees, criterion=self.criterion,
            positive=self._positive(),
        )  # fmt: skip
