"""Rates, overall and in every group."""

from __future__ import annotations

from typing import Any

import numpy as np

from privfair.core.estimate import Estimate
from privfair.core.statistics import Interval
from privfair.fairness.metrics._base import ContextMetric, constant
from privfair.fairness.metrics._context import Context
from privfair.fairness.metrics._definitions import RATES, Rate, worst_status

__all__ = [
    "RateMetric",
    "accuracy",
    "balanced_accuracy",
    "base_rate",
    "false_negative_rate",
    "false_positive_rate",
    "negative_predictive_value",
    "positive_predictive_value",
    "selection_rate",
    "true_negative_rate",
    "true_positive_rate",
]


class RateMetric(ContextMetric):
    """A proportion of rows, with Wilson intervals overall and in every group.

    Parameters
    ----------
    rate : Rate
        Numerator and denominator.

    Notes
    -----
    An empty denominator gives NaN with a reason, never 0. Weighted rows enter with the
    effective sample size of the rate.

    References
    ----------
    Wilson 1927.

    Examples
    --------
    >>> from privfair.fairness.metrics import selection_rate
    >>> selection_rate(None, [1, 0, 1, 1])
    0.75
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__(
            rate.name,
            optimum=rate.optimum,
            direction=rate.direction,
            requires=("y_true", "y_pred") if rate.needs_labels else ("y_pred",),
            references=("Wilson 1927",),
            definition=rate.definition,
        )
        self.rate = rate
        self.multiclass = rate.name == "accuracy"

    def value(self, context: Context) -> float:
        return float(context.counts(self.rate, overall=True).value[0])

    def build(self, context: Context) -> Estimate:
        options = context.options
        counts = context.counts(self.rate, overall=True)
        interval = counts.interval(options.confidence)
        status, reason = counts.statuses(options.thresholds)
        details: dict[str, Any] = {
            "definition": self.definition,
            "numerator": int(counts.hits[0]),
            "denominator": int(counts.rows[0]),
        }
        if context.table.weighted or context.table.noise is not None:
            details["effective_n"] = float(counts.n[0])
        details |= excluded_details(context)
        return Estimate(
            self.name,
            float(counts.value[0]),
            float(interval.low[0]),
            float(interval.high[0]),
            confidence=options.confidence,
            n=max(int(counts.rows[0]), 0),
            status=status[0],
            reason=reason[0],
            by_group=context.frame(self.rate) if context.grouped else None,
            details=details,
            method="wilson",
            privacy=context.privacy,
        )


class BalancedAccuracy(ContextMetric):
    """The mean of true-positive and true-negative rate.

    Notes
    -----
    The two rates come from different rows and are independent, so that their Wilson limits are
    joined by the method of variance estimates recovery.

    References
    ----------
    Brodersen et al. 2010; Zou and Donner 2008.
    """

    def __init__(self) -> None:
        super().__init__(
            "balanced_accuracy",
            optimum=1.0,
            direction="higher",
            references=("Brodersen et al. 2010", "Zou and Donner 2008"),
            definition="(true positive rate + true negative rate) / 2",
        )

    def value(self, context: Context) -> float:
        return float(sum(r.value[0] for r in self._pair(context, True)) / 2)

    def _pair(self, context: Context, overall: bool) -> list[Any]:
        names = ("true_positive_rate", "true_negative_rate")
        return [context.counts(RATES[name], overall) for name in names]

    def _interval(self, pair: list[Any], confidence: float) -> Interval:
        parts = [r.interval(confidence) for r in pair]
        value = (pair[0].value + pair[1].value) / 2
        low = value - np.hypot(*[np.asarray(p.value) - p.low for p in parts]) / 2
        high = value + np.hypot(*[np.asarray(p.high) - p.value for p in parts]) / 2
        return Interval(value, low, high, confidence, "mover(wilson)")

    def build(self, context: Context) -> Estimate:
        options = context.options
        pair = self._pair(context, True)
        interval = self._interval(pair, options.confidence)
        states = [r.statuses(options.thresholds) for r in pair]
        status = worst_status(s[0][0] for s in states)
        return Estimate(
            self.name,
            float(interval.value[0]),
            float(interval.low[0]),
            float(interval.high[0]),
            confidence=options.confidence,
            n=context.table.n,
            status=status,
            reason="; ".join(s[1][0] for s in states if s[1][0]),
            by_group=self._frame(context) if context.grouped else None,
            details={"definition": self.definition} | excluded_details(context),
            method="mover(wilson)",
            privacy=context.privacy,
        )

    def _frame(self, context: Context) -> Any:
        import pandas as pd

        pair = self._pair(context, False)
        each = self._interval(pair, context.options.confidence)
        states = [r.statuses(context.options.thresholds) for r in pair]
        both = list(zip(states[0][0], states[1][0], strict=True))
        reasons = zip(states[0][1], states[1][1], strict=True)
        return pd.DataFrame(
            {
                "value": each.value,
                "low": each.low,
                "high": each.high,
                "n": pair[0].group_rows,
                "n_group": pair[0].group_rows,
                "status": [worst_status(item) for item in both],
                "reason": ["; ".join(r for r in item if r) for item in reasons],
            },
            index=context.table.index,
        )


def excluded_details(context: Context) -> dict[str, Any]:
    """Return the rows that belong to no group, for the details of an estimate."""
    if not context.table.excluded:
        return {}
    return {"excluded": [{"reason": r, "n": n} for r, n in context.table.excluded]}


selection_rate = constant(RateMetric(RATES["selection_rate"]))
base_rate = constant(RateMetric(RATES["base_rate"]))
accuracy = constant(RateMetric(RATES["accuracy"]))
true_positive_rate = constant(RateMetric(RATES["true_positive_rate"]))
false_positive_rate = constant(RateMetric(RATES["false_positive_rate"]))
false_negative_rate = constant(RateMetric(RATES["false_negative_rate"]))
true_negative_rate = constant(RateMetric(RATES["true_negative_rate"]))
positive_predictive_value = constant(RateMetric(RATES["positive_predictive_value"]))
negative_predictive_value = constant(RateMetric(RATES["negative_predictive_value"]))
balanced_accuracy = constant(BalancedAccuracy())
