"""Metrics of scores: ranking, loss and calibration, overall and in every group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import Estimate
from privfair.core.exceptions import LabelError, SensitiveFeatureError, SingleGroupError
from privfair.core.statistics import (
    Interval,
    bootstrap_interval,
    normal_critical,
    null_reference,
)
from privfair.fairness.metrics._base import ContextMetric, constant
from privfair.fairness.metrics._context import Context
from privfair.fairness.metrics._score_table import ScoreTable

__all__ = [
    "CalibrationGap",
    "ScoreMetric",
    "auc",
    "brier_score",
    "calibration_gap",
    "expected_calibration_error",
    "log_loss",
]

Floats = NDArray[np.float64]
_METHOD = {
    "auc": "percentile",
    "brier_score": "bca",
    "log_loss": "bca",
    "expected_calibration_error": "basic",
    "calibration_gap": "basic",
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
    Calibration error: basic interval, which takes back the upward bias, reaching down to 0
    where calibration cannot be rejected; its null reference draws labels from the scores.

    References
    ----------
    Efron 1987; Newcombe 2006; Brier 1950; Naeini, Cooper and Hauskrecht 2015; Broecker and
    Smith 2007.

    Examples
    --------
    >>> from privfair.fairness.metrics import auc
    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """

    from_scores = True
    needs_probability = True

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
            return _multiclass(self.name, context)
        values = table.statistic(self.name, table.mass)[0]
        low, high, methods = self._intervals(context, table, values)
        status, reason = self._status(context, table, values)
        null = None
        if self.name == "expected_calibration_error":
            draws = table.calibrated_null(context.options.n_resamples, context.streams.get("ece"))
            null = null_reference(float(values[-1]), draws)
            if null is not None and null.p_value > 1 - context.options.confidence:
                low[-1] = 0.0
        return Estimate(
            self.name,
            float(values[-1]),
            float(low[-1]),
            float(high[-1]),
            confidence=context.options.confidence,
            n=table.n,
            status=status[-1],
            reason=reason[-1],
            null=null,
            by_group=_frame(table, values, low, high, status, reason) if context.grouped else None,
            details=self._details(context, table),
            method=methods[-1],
        )

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
        if self.name == "expected_calibration_error":
            details["binning"] = f"{table.n_bins} bins of equal width over [0, 1]"
            details["bins"] = bin_records(table)
        return details


class CalibrationGap(ContextMetric):
    r"""The largest difference in outcome between two groups at the same score.

    Scores are cut into ``n_bins`` bins of equal width. In each bin the largest difference of
    observed outcome rates between two groups is taken, and averaged over bins with their rows
    as weights: :math:`\sum_b w_b \max_{g,h} |\hat P(Y=1|b,g) - \hat P(Y=1|b,h)|`. It is zero
    when a score means the same in every group (sufficiency). Bins with rows of one group only
    compare nothing and are left out; ``details`` states the share of rows compared.

    Notes
    -----
    Strongly biased upward when cells are small: read it beside the null reference, which
    permutes outcomes among the rows of each bin (exact hypergeometric draws). Basic bootstrap
    interval, reaching down to 0 where the permutation test does not reject.

    References
    ----------
    Chouldechova 2017, arXiv 1703.00056; Kleinberg, Mullainathan and Raghavan 2016, arXiv
    1609.05807.

    Examples
    --------
    >>> calibration_gap([1, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], sensitive_features=list("aabb"))
    0.5
    """

    from_scores = True

    def __init__(self) -> None:
        super().__init__(
            "calibration_gap",
            optimum=0.0,
            direction="lower",
            requires=("y_true", "y_score", "sensitive_features"),
            references=("Chouldechova 2017, arXiv 1703.00056",
                        "Kleinberg et al. 2016, arXiv 1609.05807"),
            definition="mean over score bins of the largest outcome difference between groups",
        )  # fmt: skip

    def read(self, context: Context) -> ScoreTable | None:
        if not context.grouped:
            raise SensitiveFeatureError(
                "calibration_gap compares groups, but sensitive_features is None."
            )
        table = context.score_table()
        if table is not None:
            table.check_probabilities()
        return table

    def value(self, context: Context) -> float:
        table = self.read(context)
        if table is None:
            raise LabelError("calibration_gap needs two classes; pass pos_label=...")
        if table.n_groups == 1:
            return 0.0
        return float(table.statistic(self.name, table.mass)[0, 0])

    def build(self, context: Context) -> Estimate:
        table = self.read(context)
        if table is None:
            return _multiclass(self.name, context)
        if table.n_groups < 2:
            raise SingleGroupError("calibration_gap compares groups, and there is only one.")
        options = context.options
        value = float(table.statistic(self.name, table.mass)[0, 0])
        n, pos, score = (item[0] for item in table.bin_sums(table.mass))
        compared = (n > 0).sum(axis=0) >= 2
        rows = _bin_rows(table)
        thin = int(((rows > 0) & (rows < options.min_pos))[:, compared].sum())
        details = {
            "definition": self.definition,
            "binning": f"{table.n_bins} bins of equal width over [0, 1]",
            "bins": bin_records(table),
            "share_compared": float(n[:, compared].sum() / n.sum()),
            "n_resamples": options.n_resamples,
        }
        frame = self._frame(table, n, pos, score)
        common: dict[str, Any] = {"confidence": options.confidence, "n": table.n}
        common |= {"by_group": frame, "details": details}
        if np.isnan(value):
            return Estimate.not_estimable(
                self.name, "no score bin holds rows of two groups", **common
            )
        null = null_reference(
            value, table.exchanged_null(options.n_resamples, context.streams.get("exchanged"))
        )
        found = bootstrap_interval(
            context.score_draws(self.name)[:, 0], value, confidence=options.confidence
        )
        low, high = min(max(found.low, 0.0), value), min(max(found.high, value), 1.0)
        if null is not None and null.p_value > 1 - options.confidence:
            low = 0.0
        small = thin > 0 or bool((rows.sum(axis=1) < options.min_count).any())
        return Estimate(
            self.name,
            value,
            low,
            high,
            status="small_sample" if small else "ok",
            reason=f"{thin} cells of group and bin have fewer than {options.min_pos} rows"
            if small
            else "",
            null=null,
            method="bootstrap basic, 0 included where the permutation test does not reject",
            **common,
        )

    def _frame(self, table: ScoreTable, n: Floats, pos: Floats, score: Floats) -> Any:
        import pandas as pd

        total = n.sum(axis=1)
        safe = np.where(total > 0, total, np.nan)
        return pd.DataFrame(
            {
                "value": table.calibration(table.mass)[0, :-1],
                "mean_score": score.sum(axis=1) / safe,
                "observed_rate": pos.sum(axis=1) / safe,
                "n": table.rows()[0],
            },
            index=table.index,
        )


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


def _bin_rows(table: ScoreTable) -> NDArray[np.int64]:
    flat = np.bincount(
        table.group * table.n_bins + table.bins,
        weights=table.count,
        minlength=table.n_groups * table.n_bins,
    )
    return flat.reshape(table.n_groups, table.n_bins).astype(np.int64)


def bin_records(table: ScoreTable) -> list[dict[str, Any]]:
    """Return the calibration table: one record for each group and bin with rows."""
    n, pos, score = (item[0] for item in table.bin_sums(table.mass))
    rows = _bin_rows(table)
    return [
        {
            "group": table.names[g],
            "low": b / table.n_bins,
            "high": (b + 1) / table.n_bins,
            "n": int(rows[g, b]),
            "mean_score": float(score[g, b] / n[g, b]),
            "observed_rate": float(pos[g, b] / n[g, b]),
        }
        for g in range(table.n_groups)
        for b in range(table.n_bins)
        if n[g, b] > 0
    ]


def _frame(
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


def _multiclass(name: str, context: Context) -> Estimate:
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
expected_calibration_error = constant(
    ScoreMetric(
        "expected_calibration_error",
        optimum=0.0,
        direction="lower",
        references=("Naeini et al. 2015", "Broecker and Smith 2007"),
        definition="mean over score bins of |mean score - observed rate|",
    )
)
calibration_gap = constant(CalibrationGap())
