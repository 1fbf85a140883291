"""The rates: which cells of the confusion table are counted, out of which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privfair.core.statistics import Interval, wilson_interval
from privfair.fairness.metrics._resample import rate as ratio_of
from privfair.fairness.metrics._resample import sum_cells
from privfair.fairness.metrics._table import Cells, GroupTable

__all__ = ["RATES", "Rate", "RateCounts", "Thresholds", "worst_status"]

TN, FP, FN, TP = (0, 0), (0, 1), (1, 0), (1, 1)  # (label, decision)


@dataclass(frozen=True)
class Thresholds:
    """Smallest denominators below which a group is flagged as small."""

    min_count: int = 30
    min_pos: int = 10
    min_neg: int = 10


@dataclass(frozen=True)
class Rate:
    """A proportion of the confusion table.

    Attributes
    ----------
    numerator, denominator : tuple of (label, decision) cells
    denominator_name : str
        What the denominator counts, for messages.
    minimum : {"min_count", "min_pos", "min_neg"}
        Threshold of the denominator.
    needs_labels : bool
    """

    name: str
    numerator: Cells
    denominator: Cells
    denominator_name: str
    minimum: str
    definition: str
    direction: str = "none"
    optimum: float | None = None
    needs_labels: bool = True


_ALL = (TN, FP, FN, TP)
RATES = {
    r.name: r
    for r in (
        Rate("selection_rate", (FP, TP), _ALL, "rows", "min_count", "P(decision = positive)",
             needs_labels=False),
        Rate("base_rate", (FN, TP), _ALL, "rows", "min_count", "P(label = positive)"),
        Rate("accuracy", (TN, TP), _ALL, "rows", "min_count", "P(decision = label)",
             "higher", 1.0),
        Rate("true_positive_rate", (TP,), (FN, TP), "positives", "min_pos",
             "P(decision = positive | label = positive)", "higher", 1.0),
        Rate("false_negative_rate", (FN,), (FN, TP), "positives", "min_pos",
             "P(decision = negative | label = positive)", "lower", 0.0),
        Rate("false_positive_rate", (FP,), (TN, FP), "negatives", "min_neg",
             "P(decision = positive | label = negative)", "lower", 0.0),
        Rate("true_negative_rate", (TN,), (TN, FP), "negatives", "min_neg",
             "P(decision = negative | label = negative)", "higher", 1.0),
        Rate("positive_predictive_value", (TP,), (FP, TP), "selected rows", "min_pos",
             "P(label = positive | decision = positive)", "higher", 1.0),
        Rate("negative_predictive_value", (TN,), (TN, FN), "rejected rows", "min_neg",
             "P(label = negative | decision = negative)", "higher", 1.0),
        Rate("false_negative_share", (FN,), (FP, FN), "errors", "min_pos",
             "P(false negative | error)"),
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RateCounts:
    """A rate in every group of a table.

    Attributes
    ----------
    value : ndarray of shape (n_groups,)
        NaN where the denominator is empty.
    k, n : ndarray of float
        Numerator and denominator; effective ones for weighted tables.
    rows : ndarray of int
        Rows in the denominator.
    group_rows : ndarray of int
        Rows in the group.
    """

    rate: Rate
    value: NDArray[np.float64]
    k: NDArray[np.float64]
    n: NDArray[np.float64]
    hits: NDArray[np.int64]
    rows: NDArray[np.int64]
    group_rows: NDArray[np.int64]

    @classmethod
    def of(cls, table: GroupTable, rate: Rate) -> RateCounts:
        counts = np.moveaxis(table.counts, 0, -1)
        hits = sum_cells(counts, rate.numerator).astype(np.int64)
        rows = sum_cells(counts, rate.denominator).astype(np.int64)
        group_rows = table.counts.sum(axis=(1, 2))
        if not table.weighted:
            k, n = hits.astype(float), rows.astype(float)
            return cls(rate, ratio_of(k, n), k, n, hits, rows, group_rows)
        sums, squares = np.moveaxis(table.sums, 0, -1), np.moveaxis(table.squares, 0, -1)
        weight = sum_cells(sums, rate.denominator)
        value = np.clip(ratio_of(sum_cells(sums, rate.numerator), weight), 0.0, 1.0)
        n = _effective_size(value, weight, rate, squares)
        return cls(rate, value, np.nan_to_num(value) * n, n, hits, rows, group_rows)

    def interval(self, confidence: float, critical: float | None = None) -> Interval:
        """Return Wilson intervals, one per group."""
        found = wilson_interval(self.k, self.n, confidence=confidence, critical=critical)
        return Interval(  # the value itself, not k/n, which rounds differently
            self.value, found.low, found.high, confidence, found.method, found.reason
        )

    def statuses(self, limits: Thresholds) -> tuple[list[str], list[str]]:
        """Return a status and a reason for every group."""
        need = getattr(limits, self.rate.minimum)
        status: list[str] = []
        reason: list[str] = []
        for hits, rows, size in zip(self.hits, self.rows, self.group_rows, strict=True):
            state, why = "ok", ""
            if rows == 0 or (size and self.n[len(status)] == 0):
                state = "not_estimable"
                why = "no rows" if size == 0 else f"no {self.rate.denominator_name} (0/0)"
            elif rows < need:
                state, why = "small_sample", f"{rows} {self.rate.denominator_name} < {need}"
            elif size < limits.min_count:
                state, why = "small_sample", f"{size} rows < {limits.min_count}"
            elif hits in (0, rows):
                state, why = "boundary", f"{hits} of {rows} {self.rate.denominator_name}"
            status.append(state)
            reason.append(why)
        return status, reason


def _effective_size(
    value: NDArray[np.float64],
    weight: NDArray[np.float64],
    rate: Rate,
    squares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the size of the unweighted sample with the same variance of the rate.

    The linearised variance of a weighted proportion p = A/W is
    (S_A (1 - p)^2 + S_R p^2) / W^2 with S the sums of squared weights inside and outside the
    numerator; at p of 0 or 1 Kish's W^2 / S is used (Korn and Graubard 1998).
    """
    inside = sum_cells(squares, rate.numerator)
    total = sum_cells(squares, rate.denominator)
    out = np.zeros(value.shape)
    some = total > 0
    np.divide(weight**2, total, out=out, where=some)
    spread = value * (1 - value)
    scatter = inside * (1 - value) ** 2 + (total - inside) * value**2
    inner = some & (spread > 0) & (scatter > 0)
    np.divide(spread * weight**2, scatter, out=out, where=inner)
    return out


_ORDER = ("not_estimable", "small_sample", "boundary", "ok")


def worst_status(states: Iterable[str]) -> str:
    """Return the most serious of several statuses."""
    return min(states, key=_ORDER.index, default="ok")
