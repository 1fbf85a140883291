"""Disparities: the largest difference, or smallest ratio, of a rate between two groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import Estimate, NullReference
from privfair.core.exceptions import SensitiveFeatureError, SingleGroupError
from privfair.core.statistics import (
    Interval,
    bootstrap_interval,
    null_reference,
    sidak_confidence,
    tukey_critical,
)
from privfair.fairness.intervals import (
    GapInterval,
    difference_gap,
    gap_interval,
    ratio_gap_interval,
)
from privfair.fairness.metrics._base import ContextMetric, constant
from privfair.fairness.metrics._context import Context
from privfair.fairness.metrics._definitions import RATES, RateCounts, worst_status
from privfair.fairness.metrics._rates import excluded_details

__all__ = [
    "Disparity",
    "accuracy_difference",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
    "equalized_odds_difference",
    "equalized_odds_difference_mean",
    "equalized_odds_ratio",
    "predictive_parity_difference",
    "treatment_equality_difference",
]

Floats = NDArray[np.float64]
HARDT = "Hardt, Price and Srebro 2016, arXiv 1610.02413"
DWORK = "Dwork et al. 2012, arXiv 1104.3913"


def spread(rates: Floats) -> Floats:
    """Return max - min over the last axis without NaN; NaN where fewer than two are defined."""
    defined = (~np.isnan(rates)).sum(axis=-1)
    gap = np.fmax.reduce(rates, axis=-1) - np.fmin.reduce(rates, axis=-1)
    return np.where(defined < min(2, rates.shape[-1]), np.nan, gap)


def quotient(rates: Floats) -> Floats:
    """Return min / max over the last axis; NaN where undefined or 0/0."""
    defined = (~np.isnan(rates)).sum(axis=-1)
    top, bottom = np.fmax.reduce(rates, axis=-1), np.fmin.reduce(rates, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(top > 0, bottom / top, np.nan)
    return np.where(defined < min(2, rates.shape[-1]), np.nan, ratio)


def odds(share: Floats) -> Floats:
    """Return p / (1 - p), NaN at p = 1 where the denominator count is zero."""
    out = np.full(np.shape(share), np.nan)
    return np.divide(share, 1 - share, out=out, where=np.asarray(share) < 1)


class Disparity(ContextMetric):
    """The disparity of one or two rates over all groups.

    Parameters
    ----------
    name : str
    rates : tuple of str
        Names of the rates compared.
    kind : {"difference", "ratio", "odds"}
        Max - min, min / max, or max - min of p / (1 - p).
    aggregate : {"worst", "mean"}
        How the disparities of two rates are joined.

    Notes
    -----
    The interval is simultaneous over all pairs of groups (:func:`gap_interval`) and, with two
    rates, over both (Sidak, since they rest on different rows). The null reference permutes the
    numerator of each rate among the rows of its denominator. A group whose rate is undefined is
    not covered, and the reason says so; fewer than two covered groups give NaN.
    """

    def __init__(
        self,
        name: str,
        rates: tuple[str, ...],
        *,
        kind: str = "difference",
        aggregate: str = "worst",
        references: tuple[str, ...] = (),
        definition: str = "",
    ) -> None:
        labels = any(RATES[r].needs_labels for r in rates)
        required = ("y_true", "y_pred") if labels else ("y_pred",)
        super().__init__(
            name,
            optimum=1.0 if kind == "ratio" else 0.0,
            direction="higher" if kind == "ratio" else "lower",
            range=(0.0, np.inf) if kind == "odds" else (0.0, 1.0),
            requires=(*required, "sensitive_features"),
            references=references,
            definition=definition,
        )
        self.rates = tuple(RATES[r] for r in rates)
        self.kind = kind
        self.aggregate = aggregate
        self.multiclass = rates == ("accuracy",)

    # --- values -----------------------------------------------------------------------------

    def _one(self, rates: Floats) -> Floats:
        if self.kind == "ratio":
            return quotient(rates)
        return spread(odds(rates) if self.kind == "odds" else rates)

    def _join(self, parts: list[Floats]) -> Floats:
        stacked = np.stack([np.asarray(p, dtype=float) for p in parts])
        if self.aggregate == "mean":
            return np.asarray(stacked.mean(axis=0))
        # NaN in either rate makes the disparity undefined: maximum and minimum pass it on
        return np.asarray(stacked.min(axis=0) if self.kind == "ratio" else stacked.max(axis=0))

    def value(self, context: Context) -> float:
        if not context.grouped:
            _no_groups(self.name)
        return float(self._join([self._one(context.counts(r).value) for r in self.rates]))

    # --- estimate ---------------------------------------------------------------------------

    def build(self, context: Context) -> Estimate:
        if not context.grouped:
            _no_groups(self.name)
        table, options = context.table, context.options
        if table.n_groups < 2:
            raise SingleGroupError(
                f"{self.name} compares groups, and {list(table.features)} has only one. Pass a "
                "column with at least two groups, or list the groups with groups=."
            )
        counts = [context.counts(rate) for rate in self.rates]
        value = float(self._join([self._one(c.value) for c in counts]))
        parts = self._intervals(counts, options.confidence)
        status, reason, covered = self._status(context, counts, parts)
        fields: dict[str, Any] = {
            "confidence": options.confidence,
            "n": table.n,
            "by_group": self._frame(context),
            "privacy": context.privacy,
            "method": self._method(context),
        }
        details = {"definition": self.definition, "groups_covered": covered}
        details |= {"n_groups": table.n_groups} | excluded_details(context)
        if np.isnan(value):
            return Estimate.not_estimable(self.name, reason, details=details, **fields)
        joined = self._joint(value, parts)
        draws = context.resamples()
        replicates = self._join(
            [self._one(draws.rates(r.numerator, r.denominator)) for r in self.rates]
        )
        details |= self._bootstrap(value, replicates, options.confidence)
        details |= self._adequate(context, counts)
        return Estimate(
            self.name,
            value,
            joined.low,
            joined.high,
            status=status,
            reason=reason,
            null=self._null(context, value),
            attained_by=self._attained(context, joined),
            details=details,
            **fields,
        )

    def _intervals(self, counts: list[RateCounts], confidence: float) -> list[GapInterval]:
        level = sidak_confidence(confidence, len(counts))
        return [self._interval(c, level) for c in counts]

    def _interval(self, counts: RateCounts, level: float) -> GapInterval:
        covered = int((counts.n > 0).sum())
        k, n = counts.effective(tukey_critical(max(covered, 2), level))
        if self.kind == "ratio":
            return ratio_gap_interval(k, n, confidence=level)
        if self.kind == "difference":
            return gap_interval(k, n, confidence=level)
        some = np.flatnonzero(~np.isnan(odds(counts.value)))
        if some.size < 2:
            text = "fewer than two groups have a defined rate"
            return GapInterval(np.nan, np.nan, np.nan, None, int(some.size), text)
        each = counts.interval(level, tukey_critical(int(some.size), level))
        values, low, high = (odds(np.asarray(x)[some]) for x in (each.value, each.low, each.high))
        return difference_gap(Interval(values, low, high, level, "wilson odds"), some)

    def _joint(self, value: float, parts: list[GapInterval]) -> GapInterval:
        """Join the intervals of the rates, on the event that all of them hold."""
        lows, highs = [p.low for p in parts], [p.high for p in parts]
        if self.aggregate == "mean":
            low, high, pair = float(np.mean(lows)), float(np.mean(highs)), None
        elif self.kind == "ratio":
            low, high = min(lows), min(highs)
            pair = min(parts, key=lambda p: p.value).pair
        else:
            low, high = max(lows), max(highs)
            pair = max(parts, key=lambda p: p.value).pair
        least = min(p.n_groups for p in parts)
        return GapInterval(value, min(low, value), max(high, value), pair, least)

    def _attained(self, context: Context, joined: GapInterval) -> tuple[str, str] | None:
        if joined.pair is None:
            return None
        names = context.table.names
        return (names[joined.pair[0]], names[joined.pair[1]])

    def _null(self, context: Context, value: float) -> NullReference | None:
        draws = context.resamples()
        null = self._join(
            [self._one(draws.null_rates(r.numerator, r.denominator)) for r in self.rates]
        )
        tail = "less" if self.kind == "ratio" else "greater"
        return null_reference(value, null, alternative=tail)

    def _bootstrap(self, value: float, replicates: Floats, confidence: float) -> dict[str, Any]:
        """Return what resampling says beside the interval: error, bias and percentiles."""
        defined = replicates[~np.isnan(replicates)]
        found: dict[str, Any] = {
            "n_resamples": int(replicates.size),
            "undefined_resamples": int(replicates.size - defined.size),
        }
        if defined.size > 1:
            spans = bootstrap_interval(
                replicates, value, confidence=confidence, method="percentile"
            )
            found["bootstrap_se"] = float(defined.std(ddof=1))
            found["bootstrap_bias"] = float(defined.mean() - value)
            found["bootstrap_percentile"] = [spans.low, spans.high]
        return found

    def _adequate(self, context: Context, counts: list[RateCounts]) -> dict[str, Any]:
        """Return the disparity among groups above the thresholds, beside that of all groups."""
        limits = context.options.thresholds
        keep = np.ones(context.table.n_groups, dtype=bool)
        for item in counts:
            states = item.statuses(limits)[0]
            keep &= np.array([s in ("ok", "boundary") for s in states])
        if keep.all() or keep.sum() < 2:
            return {} if keep.all() else {"adequate_groups": None}
        value = float(self._join([self._one(c.value[keep]) for c in counts]))
        names = [name for name, kept in zip(context.table.names, keep, strict=True) if kept]
        return {"adequate_groups": {"value": value, "groups": names}}

    def _status(
        self, context: Context, counts: list[RateCounts], parts: list[GapInterval]
    ) -> tuple[str, str, int]:
        names = context.table.names
        undefined: dict[str, str] = {}
        small: dict[str, str] = {}
        for item in counts:
            states, reasons = item.statuses(context.options.thresholds)
            if self.kind == "odds":
                lost = np.isnan(odds(item.value)) & ~np.isnan(item.value)
                for i in np.flatnonzero(lost):
                    states[i], reasons[i] = "not_estimable", "no false positives (FN/0)"
            for name, state, reason in zip(names, states, reasons, strict=True):
                if state == "not_estimable":
                    undefined.setdefault(name, reason)
                elif state == "small_sample":
                    small.setdefault(name, reason)
        text = []
        if undefined:
            text.append("not covered: " + _listed(undefined))
        if small:
            text.append("small: " + _listed(small))
        text += [p.reason for p in parts if p.reason]
        status = worst_status(["small_sample"] if undefined or small else ["ok"])
        return status, "; ".join(dict.fromkeys(text)), min(p.n_groups for p in parts)

    def _frame(self, context: Context) -> Any:
        frames = [context.frame(rate) for rate in self.rates]
        if len(frames) == 1:
            if self.kind == "odds":
                for column in ("value", "low", "high"):
                    frames[0][column] = odds(frames[0][column].to_numpy())
                return frames[0].drop(
                    columns=["shrunken", "simultaneous_low", "simultaneous_high"]
                )
            return frames[0]
        import pandas as pd

        named = []
        for rate, frame in zip(self.rates, frames, strict=True):
            kept = frame[["value", "low", "high", "n", "status", "reason"]]
            renamed = {c: f"{rate.name}_{c}" for c in kept.columns if c != "value"}
            named.append(kept.rename(columns=renamed | {"value": rate.name}))
        return pd.concat(named, axis=1)

    def _method(self, context: Context) -> str:
        base = {
            "difference": "simultaneous newcombe (tukey-kramer, exact for few cases)",
            "ratio": "simultaneous koopman (tukey-kramer, exact for few cases)",
            "odds": "simultaneous mover(wilson odds, exact for few cases)",
        }[self.kind]
        joint = ", sidak over two rates" if len(self.rates) > 1 else ""
        weighted = ", effective sample sizes" if context.table.weighted else ""
        if context.table.noise is not None:
            weighted = ", effective sample sizes that include the privacy noise"
        return base + joint + weighted


def _listed(items: dict[str, str], most: int = 6) -> str:
    shown = [f"{name} ({why})" for name, why in list(items.items())[:most]]
    rest = len(items) - len(shown)
    return ", ".join(shown) + (f" and {rest} more groups" if rest > 0 else "")


def _no_groups(name: str) -> None:
    raise SensitiveFeatureError(
        f"{name} compares groups, but sensitive_features is None. Pass one or more columns, "
        "aligned with the labels by position."
    )


_ODDS = ("true_positive_rate", "false_positive_rate")

demographic_parity_difference = constant(
    Disparity(
        "demographic_parity_difference",
        ("selection_rate",),
        references=(DWORK,),
        definition="max - min of the selection rate over groups",
    )
)
demographic_parity_ratio = constant(
    Disparity(
        "demographic_parity_ratio",
        ("selection_rate",),
        kind="ratio",
        references=(DWORK,),
        definition="min / max of the selection rate over groups",
    )
)
equalized_odds_difference = constant(
    Disparity(
        "equalized_odds_difference",
        _ODDS,
        references=(HARDT,),
        definition="larger of the max - min of TPR and the max - min of FPR",
    )
)
equalized_odds_difference_mean = constant(
    Disparity(
        "equalized_odds_difference_mean",
        _ODDS,
        aggregate="mean",
        references=(HARDT,),
        definition="mean of the max - min of TPR and the max - min of FPR",
    )
)
equalized_odds_ratio = constant(
    Disparity(
        "equalized_odds_ratio",
        _ODDS,
        kind="ratio",
        references=(HARDT,),
        definition="smaller of the min / max of TPR and the min / max of FPR",
    )
)
equal_opportunity_difference = constant(
    Disparity(
        "equal_opportunity_difference",
        ("true_positive_rate",),
        references=(HARDT,),
        definition="max - min of TPR over groups",
    )
)
equal_opportunity_ratio = constant(
    Disparity(
        "equal_opportunity_ratio",
        ("true_positive_rate",),
        kind="ratio",
        references=(HARDT,),
        definition="min / max of TPR over groups",
    )
)
predictive_parity_difference = constant(
    Disparity(
        "predictive_parity_difference",
        ("positive_predictive_value",),
        references=("Chouldechova 2017, arXiv 1703.00056",),
        definition="max - min of PPV over groups",
    )
)
accuracy_difference = constant(
    Disparity(
        "accuracy_difference",
        ("accuracy",),
        references=("Berk et al. 2018",),
        definition="max - min of the accuracy over groups",
    )
)
treatment_equality_difference = constant(
    Disparity("treatment_equality_difference", ("false_negative_share",), kind="odds",
              references=("Berk et al. 2018, arXiv 1703.09207",),
              definition="max - min of FN / FP over groups")
)  # fmt: skip
