"""The rates: which cells of the confusion table are counted, out of which."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privfair.core.statistics import Interval, normal_critical, wilson_interval
from privfair.fairness.intervals import group_limits
from privfair.fairness.metrics._resample import rate as ratio_of
from privfair.fairness.metrics._resample import sum_cells
from privfair.fairness.metrics._table import CellNoise, Cells, GroupTable

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
        Numerator and denominator; effective ones for weighted and for noisy tables.
    hits, rows : ndarray of int
        Rows in the numerator and in the denominator.
    group_rows : ndarray of int
        Rows in the group.
    noise : CellNoise or None
        Noise in each cell of a released table.
    """

    rate: Rate
    value: NDArray[np.float64]
    k: NDArray[np.float64]
    n: NDArray[np.float64]
    hits: NDArray[np.int64]
    rows: NDArray[np.int64]
    group_rows: NDArray[np.int64]
    noise: CellNoise | None = None

    @classmethod
    def of(cls, table: GroupTable, rate: Rate) -> RateCounts:
        """Read a rate's counts from a table."""
        counts = np.moveaxis(table.counts, 0, -1)
        hits = sum_cells(counts, rate.numerator).astype(np.int64)
        rows = sum_cells(counts, rate.denominator).astype(np.int64)
        group_rows = table.counts.sum(axis=(1, 2))
        if table.noise is not None:
            return cls._noisy(rate, hits, rows, group_rows, table.noise)
        if not table.weighted:
            k, n = hits.astype(float), rows.astype(float)
            return cls(rate, ratio_of(k, n), k, n, hits, rows, group_rows)
        sums, squares = np.moveaxis(table.sums, 0, -1), np.moveaxis(table.squares, 0, -1)
        weight = sum_cells(sums, rate.denominator)
        value = np.clip(ratio_of(sum_cells(sums, rate.numerator), weight), 0.0, 1.0)
        n = _effective_size(value, weight, rate, squares)
        return cls(rate, value, np.nan_to_num(value) * n, n, hits, rows, group_rows)

    @classmethod
    def _noisy(
        cls,
        rate: Rate,
        hits: NDArray[np.int64],
        rows: NDArray[np.int64],
        group_rows: NDArray[np.int64],
        noise: CellNoise,
    ) -> RateCounts:
        """Return the rate of a released table; undefined where noise may be all there is."""
        spread = noise.variance * len(rate.denominator)
        value = np.full(rows.shape, np.nan)
        np.divide(hits, rows, out=value, where=rows > 3 * math.sqrt(spread))
        value = np.clip(value, 0.0, 1.0)
        made = cls(rate, value, value, value, hits, rows, group_rows, noise)
        k, n = made.effective(normal_critical(0.95))
        return cls(rate, value, k, n, hits, rows, group_rows, noise)

    def effective(self, critical: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return numerator and denominator whose Wilson interval covers all the variation.

        For a released table, the size of the noiseless sample with the same variance of the
        rate, A/N: p(1 - p)/N from sampling plus ((1 - p)^2 m_A + p^2 m_R) v / N^2 from noise in
        the m_A cells of the numerator and the m_R others. p is shrunk by two rows on each side,
        so that a rate of 0 or 1 keeps its noise. v matches the quantile of the Laplace law at
        this critical value, which is further out than that of a normal law of equal variance.
        """
        if self.noise is None:
            return self.k, self.n
        covered = ~np.isnan(self.value)
        size = np.where(covered, self.rows, 1.0)
        p = (np.clip(self.hits, 0, np.maximum(self.rows, 0)) + 2.0) / (size + 4.0)
        p = np.clip(p, 1e-9, 1 - 1e-9)
        inside = len(self.rate.numerator)
        outside = len(self.rate.denominator) - inside
        shape = (1 - p) ** 2 * inside + p**2 * outside
        total = p * (1 - p) / size + shape * self.noise.spread(critical) / size**2
        n = np.where(covered, p * (1 - p) / total, 0.0)
        return np.nan_to_num(self.value) * n, n

    def interval(self, confidence: float, critical: float | None = None) -> Interval:
        """Return Wilson intervals, one per group; with few cases and a critical value, exact too.

        A critical value says that the limits are taken together, where tails are far out and
        normal quantiles fail first.
        """
        if critical is None:
            k, n = self.effective(normal_critical(confidence))
            found = wilson_interval(k, n, confidence=confidence)
        else:
            k, n = self.effective(critical)
            found = group_limits(k, n, confidence=confidence, critical=critical)
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
            if self.n[len(status)] == 0:
                state = "not_estimable"
                why = "no rows" if size == 0 else f"no {self.rate.denominator_name} (0/0)"
                if self.noise is not None:
                    why = f"{self.rate.denominator_name} not told apart from noise"
            elif rows < need:
                state, why = "small_sample", f"{rows} {self.rate.denominator_name} < {need}"
            elif size < limits.min_count:
                state, why = "small_sample", f"{size} rows < {limits.min_count}"
            elif self.noise is None and hits in (0, rows):
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
