"""Metrics of scores: ranking and loss, overall and in every group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import Estimate, NullReference
from privfair.core.exceptions import LabelError
from privfair.core.statistics import (
    Interval,
    bootstrap_interval,
    normal_critical,
)
from privfair.fairness.metrics._base import ContextMetric, constant
from privfair.fairness.metrics._context import Context
from privfair.fairness.metrics._score_table import ScoreTable

__all__ = [
    "ScoreMetric",
    "auc",
    "brier_score",
    "log_loss",
]

Floats = NDArray[np.float64]
_METHOD = {
    "auc": "percentile",
    "brier_score": "bca",
    "log_loss": "bca",
}


def auc_score_interval(value: float, pos: float, neg: float, confidence: float) -> Interval:
    r"""Return Newcombe's score-type interval of an AUC, which keeps a width at 0 and 1.

    The limits solve :math:`|\theta - \hat\theta| = z \sqrt{V(\theta)}` with the variance of
    Hanley and McNeil under equal spreads.

    References
    ----------
    Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic, part 2", method 5.
    """
    z = normal_critical(confidence)
    size = (pos + neg) / 2 - 1

    def outside(theta: float) -> bool:
        spread = theta * (1 - theta) / (pos * neg)
        spread *= 1 + size * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - value) ** 2 > z * z * max(spread, 0.0)

    ends = []
    for far in (0.0, 1.0):
        inner, outer = value, far
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if outside(middle) else (middle, outer)
        ends.append(inner)
    return Interval(value, ends[0], ends[1], confidence, "newcombe auc")


class ScoreMetric(ContextMetric):
    """A metric of scores, with bootstrap intervals overall and in every group.

    Parameters
    ----------
    name : str
        A statistic of :class:`ScoreTable`.

    Notes
    -----
    Rows are resampled by vectorised multiplicities, equal rows together; all score metrics of
    one call read the same draws. Time O(n_resamples * distinct rows). AUC: percentile interval,
    and Newcombe's score-type interval at 0 and 1, where resamples do not vary. Losses: BCa.

    References
    ----------
    Efron 1987; Newcombe 2006; Brier 1950.

    Examples
    --------
    >>> from privfair.fairness.metrics import auc
    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """

    from_scores = True
    needs_probability = True
    resampled = True

    def __init__(self, name: str, *, probability: bool = True, **fields: Any) -> None:
        super().__init__(name, requires=("y_true", "y_score"), **fields)
        self.needs_probability = probability

    # --- values -----------------------------------------------------------------------------

    def read(self, context: Context) -> ScoreTable | None:
        table = context.score_table()
        if table is not None and self.needs_probability:
            table.check_probabilities()
        return table

    def value(self, context: Context) -> float:
        table = self.read(context)
        if table is None:
            raise LabelError(
                f"{self.name} needs two classes, and there are more. Pass pos_label=..., the "
                "class that the score is for (one versus rest)."
            )
        return float(table.statistic(self.name, table.mass)[0, -1])

    def build(self, context: Context) -> Estimate:
        table = self.read(context)
        if table is None:
            return multiclass(self.name, context)
        values = table.statistic(self.name, table.mass)[0]
        low, high, methods = self._intervals(context, table, values)
        status, reason = self._status(context, table, values)
        frame = None
        if context.grouped:
            frame = group_frame(table, values, low, high, status, reason)
        return Estimate(
            self.name,
            float(values[-1]),
            float(low[-1]),
            float(high[-1]),
            confidence=context.options.confidence,
            n=table.n,
            status=status[-1],
            reason=reason[-1],
            null=self._null(context, table, float(values[-1])),
            by_group=frame,
            details=self._details(context, table),
            method=methods[-1],
        )

    def _null(self, context: Context, table: ScoreTable, value: float) -> NullReference | None:
        return None

    # --- parts ------------------------------------------------------------------------------

    def _intervals(
        self, context: Context, table: ScoreTable, values: Floats
    ) -> tuple[Floats, Floats, list[str]]:
        method, level = _METHOD[self.name], context.options.confidence
        bend: Any = 0.0
        if method == "bca":
            bend = _acceleration(table, table.losses(self.name), values)
        found = bootstrap_interval(
            context.score_draws(self.name),
            values,
            confidence=level,
            method=method,
            acceleration=bend,
        )
        low, high = np.array(found.low, dtype=float), np.array(found.high, dtype=float)
        top = self.range[1]
        low = np.fmin(np.clip(low, self.range[0], top), values)
        high = np.fmax(np.clip(high, self.range[0], top), values)
        methods = [found.method] * values.size
        low[np.isnan(found.low)] = np.nan
        high[np.isnan(found.high)] = np.nan
        if self.name == "auc":
            n, pos = (np.append(item, item.sum()) for item in table.rows())
            for i in np.flatnonzero((values == 0) | (values == 1)):
                edge = auc_score_interval(values[i], pos[i], n[i] - pos[i], level)
                low[i], high[i], methods[i] = edge.low, edge.high, edge.method
        return low, high, methods

    def _status(
        self, context: Context, table: ScoreTable, values: Floats
    ) -> tuple[list[str], list[str]]:
        limits = context.options.thresholds
        n, pos = (np.append(item, item.sum()) for item in table.rows())
        status: list[str] = []
        reason: list[str] = []
        for i, value in enumerate(values):
            neg = n[i] - pos[i]
            state, why = "ok", ""
            if np.isnan(value):
                state = "not_estimable"
                missing = "positives" if pos[i] == 0 else "negatives"
                why = "no rows" if n[i] == 0 else f"no {missing}"
            elif n[i] < limits.min_count:
                state, why = "small_sample", f"{n[i]} rows < {limits.min_count}"
            elif self.name == "auc" and pos[i] < limits.min_pos:
                state, why = "small_sample", f"{pos[i]} positives < {limits.min_pos}"
            elif self.name == "auc" and neg < limits.min_neg:
                state, why = "small_sample", f"{neg} negatives < {limits.min_neg}"
            elif self.name == "auc" and value in (0.0, 1.0):
                state, why = "boundary", "every pair is in one order"
            status.append(state)
            reason.append(why)
        return status, reason

    def _details(self, context: Context, table: ScoreTable) -> dict[str, Any]:
        details: dict[str, Any] = {
            "definition": self.definition,
            "n_resamples": context.options.n_resamples,
        }
        if table.excluded:
            details["excluded"] = [{"reason": "not among the declared groups",
                                    "n": table.excluded}]  # fmt: skip
        return details


# --- helpers --------------------------------------------------------------------------------


def _acceleration(table: ScoreTable, loss: Floats, values: Floats) -> Floats:
    """Return a sixth of the skewness of the mean's influence values, per group and overall."""
    centre = values[table.group]
    out = []
    for member, middle in ((table.group, centre), (None, values[-1])):
        size = 1 if member is None else table.n_groups
        code = np.zeros(loss.size, dtype=np.int64) if member is None else member
        part = table.weight * (loss - middle)  # influence of one row, up to a constant
        second = np.bincount(code, weights=table.count * part**2, minlength=size)
        third = np.bincount(code, weights=table.count * part**3, minlength=size)
        flat = np.zeros(size)
        np.divide(third, 6 * second**1.5, out=flat, where=second > 0)
        out.append(flat)
    return np.concatenate(out)


def group_frame(
    table: ScoreTable,
    values: Floats,
    low: Floats,
    high: Floats,
    status: list[str],
    reason: list[str],
) -> Any:
    import pandas as pd

    n, pos = table.rows()
    data = {"value": values[:-1], "low": low[:-1], "high": high[:-1], "n": n, "positives": pos}
    return pd.DataFrame(data | {"status": status[:-1], "reason": reason[:-1]}, index=table.index)


def multiclass(name: str, context: Context) -> Estimate:
    return Estimate.not_estimable(
        name,
        "more than two classes; pass pos_label, the class that the score is for",
        status="not_applicable",
        confidence=context.options.confidence,
    )


auc = constant(
    ScoreMetric(
        "auc",
        probability=False,
        optimum=1.0,
        direction="higher",
        references=("Hanley and McNeil 1982", "Newcombe 2006"),
        definition="P(a positive scores above a negative), ties counted half",
    )
)
brier_score = constant(
    ScoreMetric(
        "brier_score",
        optimum=0.0,
        direction="lower",
        references=("Brier 1950",),
        definition="mean squared difference of score and label",
    )
)
log_loss = constant(
    ScoreMetric(
        "log_loss",
        optimum=0.0,
        direction="lower",
        range=(0.0, np.inf),
        references=("Good 1952",),
        definition="mean negative log-likelihood",
    )
)
