"""A fitted decomposition as estimates, JSON data, text, HTML and a figure."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.fairness.pid._analysis import Analysis
from privfair.fairness.pid._data import PIDTable
from privfair.fairness.pid._report import as_dict, as_estimates, as_html, as_json, as_text

__all__ = ["FittedParts"]


class FittedParts(BaseEstimator):  # type: ignore[misc]
    """What is read off a fitted :class:`PIDDisparity`, which holds the three below."""

    ci: str | None
    _table: PIDTable
    _analysis: Analysis
    _alone: dict[str, Analysis]

    def to_estimates(self) -> list[Estimate]:
        """Return the five parts as estimates, named as the metrics of this room.

        In order: ``unique_disparity``, ``redundant_disparity``, ``masked_disparity``,
        ``global_disparity`` and ``local_disparity``. The value is the plug-in one; the corrected
        one is in ``details``.
        """
        check_is_fitted(self, "unique_")
        return as_estimates(self._analysis, self._table)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        check_is_fitted(self, "unique_")
        return as_dict(self._analysis, self._table, self._alone, ci=self.ci)

    def report(self, format: str = "text") -> str:
        """Return the results in words and tables.

        Parameters
        ----------
        format : {"text", "json", "html"}, default="text"
        """
        check.one_of(("text", "json", "html"), format=format)
        made = {"text": as_text, "json": as_json, "html": as_html}[format]
        return made(self.to_dict())

    def plot(self, ax: Any = None) -> Any:
        """Draw what the global and the local disparity are made of, as stacked bars.

        Parameters
        ----------
        ax : matplotlib axes or None
            Where to draw; None makes a figure of its own.

        Returns
        -------
        matplotlib axes
        """
        from privfair.fairness.pid._plot import plot_parts

        check_is_fitted(self, "unique_")
        titles = {" & ".join(self._table.features): self._analysis, **self._alone}
        return plot_parts(titles, ax)

    def _repr_html_(self) -> str:
        if not hasattr(self, "unique_"):
            return str(super()._repr_html_())
        return as_html(self.to_dict(), short=True)
