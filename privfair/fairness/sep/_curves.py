"""Effort curves: how decisions rise with effort, for low and for high status."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core._format import json_safe
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.frames import as_vector
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL, read_weights
from privfair.fairness.sep._sets import read_decisions, read_sets

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EFFORT_EDGES", "EffortCurve", "effort_curve"]

Floats = NDArray[np.float64]
EFFORT_EDGES = (20.0, 35.0, 40.0, 50.0)


@dataclass(frozen=True, eq=False)
class EffortCurve:
    """Selection rates by effort and status.

    Parameters
    ----------
    curve : pandas.DataFrame
        One row per group and bin of effort: rates and numbers of rows of low and high status,
        their ``difference`` (high less low), and the bin's ``share`` of the population.
    summary : pandas.DataFrame
        One row per group: ``standardised_gap`` (mean difference with the population's shares),
        ``share_covered`` (of the bins where both are known), ``return_low`` and ``return_high``
        (slopes of the decision per unit of effort, with standard errors), ``flag``.

    References
    ----------
    Heidari, Nanda, Gummadi 2019, arXiv 1903.01209 (effort-based views of fairness).
    """

    curve: pd.DataFrame
    summary: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return the curve as a data frame."""
        return self.curve

    def to_dict(self) -> dict[str, Any]:
        """Return curve and summary as JSON data."""
        return {
            name: json_safe(frame.reset_index().to_dict(orient="records"))
            for name, frame in (("curve", self.curve), ("summary", self.summary))
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the curves of every group with matplotlib; returns the axes."""
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(constrained_layout=True)
        levels = list(range(self.curve.index.nlevels - 1))
        for name, part in self.curve.groupby(level=levels, sort=False):
            label = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
            at = np.arange(len(part))
            (line,) = ax.plot(at, part["rate_high"], "-o", label=f"{label}, high status")
            ax.plot(at, part["rate_low"], "--o", color=line.get_color(), label=f"{label}, low")
            ax.set_xticks(at, part.index.get_level_values(-1))
        ax.set(xlabel="effort", ylabel="selection rate", ylim=(0, 1))
        ax.legend()
        return ax

    def _repr_html_(self) -> str:
        return str(self.summary._repr_html_() + self.curve._repr_html_())


def effort_curve(
    y_pred: Any,
    effort: Any,
    ses: Any,
    sensitive_features: Any,
    *,
    ses_features: Any = None,
    bins: Sequence[float] = EFFORT_EDGES,
    sample_weight: Any = None,
    pos_label: Any = DEFAULT_POS_LABEL,
    min_group: int = 30,
) -> EffortCurve:
    """Return selection rates by effort, for low and high status in every group.

    Parameters
    ----------
    y_pred : array-like of shape (n_rows,)
        Decisions, or numbers in [0, 1].
    effort : array-like of shape (n_rows,)
        A quantity such as weekly hours.
    ses : SESRule, CompositeSES or array-like of bool
        Who is underprivileged.
    sensitive_features : array-like or table
    ses_features : table or None
        What a rule reads.
    bins : sequence of float, default=(20, 35, 40, 50)
        Edges, rising: up to 20, above 20 up to 35, ..., above 50.
    sample_weight : array-like or None
    pos_label : object
        The positive decision, where decisions are not 0 and 1.
    min_group : int, default=30
        Cells with fewer rows have no rate.

    Returns
    -------
    EffortCurve

    Raises
    ------
    DataError, InvalidParameterError

    Notes
    -----
    The return to effort is the weighted least-squares slope of the decision on effort, with a
    heteroscedasticity-robust standard error (HC0). It is flagged where that of low status is
    negative, or less than half of that of high status. O(n_rows).

    References
    ----------
    Heidari, Nanda, Gummadi 2019, arXiv 1903.01209.

    Examples
    --------
    >>> found = effort_curve([0, 1, 0, 0], [10, 60, 10, 60], [False, False, True, True],
    ...                      ["F"] * 4, min_group=1, bins=[40])
    >>> found.summary[["standardised_gap", "flag"]].to_dict("records")
    [{'standardised_gap': 0.5, 'flag': 'less than half'}]
    """
    import pandas as pd

    least = check.non_negative_int(min_group=min_group)
    edges = _edges(bins)
    sets = read_sets(
        sensitive_features, ses, ses_features=ses_features, sample_weight=sample_weight,
        rows=y_pred,
    )  # fmt: skip
    h = read_decisions(y_pred, pos_label)
    hours = as_vector(effort, name="effort")
    if hours.dtype.kind not in "fiu" or not np.isfinite(hours.astype(float)).all():
        raise DataError("effort must hold finite numbers, one for each row.")
    if len(hours) != len(h):
        raise DataError(f"effort has {len(hours)} rows, and y_pred {len(h)}.")
    hours = hours.astype(float)
    weight = read_weights(sample_weight, len(h))
    w = np.ones(len(h)) if weight is None else weight
    codes = sets.groups.codes
    place = np.searchsorted(edges, hours, side="left")
    n_groups, n_bins = len(sets.groups.labels), len(edges) + 1
    cell = (codes * 2 + sets.low) * n_bins + place
    known = codes >= 0

    def total(values: Floats) -> Floats:
        found = np.bincount(cell[known], weights=values[known], minlength=n_groups * 2 * n_bins)
        return found.reshape(n_groups, 2, n_bins).astype(float)

    count = total((w > 0).astype(float))
    mass = total(w)
    rate = np.full(mass.shape, np.nan)
    np.divide(total(w * h), mass, out=rate, where=(mass > 0) & (count >= max(least, 1)))
    share = np.bincount(place, weights=w, minlength=n_bins) / w.sum()
    difference = rate[:, 0] - rate[:, 1]
    names = bin_names(edges)
    index = pd.MultiIndex.from_tuples(
        [(*label, name) for label in sets.groups.labels for name in names],
        names=[*sets.groups.features, "effort"],
    )
    curve = pd.DataFrame(
        {
            "rate_low": rate[:, 1].ravel(),
            "rate_high": rate[:, 0].ravel(),
            "difference": difference.ravel(),
            "n_low": count[:, 1].ravel().astype(np.int64),
            "n_high": count[:, 0].ravel().astype(np.int64),
            "share": np.tile(share, n_groups),
        },
        index=index,
    )
    rows = []
    for j in range(n_groups):
        seen = ~np.isnan(difference[j])
        covered = float(share[seen].sum())
        gap = float((share * difference[j])[seen].sum() / covered) if covered > 0 else np.nan
        inside = codes == j
        low = _slope(h, hours, w, inside & sets.low, least)
        high = _slope(h, hours, w, inside & ~sets.low, least)
        rows.append((gap, covered, *low, *high, _flag(low[0], high[0])))
    features = list(sets.groups.features)
    columns = ["standardised_gap", "share_covered", "return_low", "se_low", "return_high",
               "se_high", "flag"]  # fmt: skip
    where = (
        pd.Index([label[0] for label in sets.groups.labels], name=features[0])
        if len(features) == 1
        else pd.MultiIndex.from_tuples(list(sets.groups.labels), names=features)
    )
    return EffortCurve(curve, pd.DataFrame(rows, columns=columns, index=where))


def _edges(bins: Any) -> Floats:
    given = np.asarray(bins)
    if given.ndim == 1 and given.size and given.dtype.kind in "fiu":
        edges = given.astype(float)
        if np.isfinite(edges).all() and (np.diff(edges) > 0).all():
            return edges
    raise InvalidParameterError(
        f"bins must be finite, rising numbers, got {bins!r}. Write the edges between the bins of "
        "effort, such as [20, 35, 40, 50]."
    )


def bin_names(edges: Floats) -> list[str]:
    """Return the names of bins that hold their upper edge."""
    texts = [f"{e:g}" for e in edges]
    inner = [f"> {a} to {b}" for a, b in itertools.pairwise(texts)]
    return [f"<= {texts[0]}", *inner, f"> {texts[-1]}"]


def _slope(
    h: Floats, x: Floats, w: Floats, rows: NDArray[np.bool_], min_group: int
) -> tuple[float, float]:
    """Return the weighted least-squares slope and its robust standard error."""
    y, at, mass = h[rows], x[rows], w[rows]
    if (mass > 0).sum() < max(min_group, 2):
        return np.nan, np.nan
    centre = np.average(at, weights=mass)
    d = at - centre
    spread = float((mass * d * d).sum())
    if spread <= 0:
        return np.nan, np.nan
    slope = float((mass * d * y).sum() / spread)
    residual = y - np.average(y, weights=mass) - slope * d
    return slope, float(np.sqrt(((mass * d * residual) ** 2).sum()) / spread)


def _flag(low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return "not estimable"
    if low < 0:
        return "negative"
    return "less than half" if low < 0.5 * high else ""
