"""Where estimates come from: one call per model and crossing, shared by all sections."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import registry
from privfair.core.estimate import Estimate
from privfair.core.metric import Metric
from privfair.report._clean import clean_label
from privfair.report._config import AuditConfig
from privfair.report._context import AuditContext, Crossing
from privfair.report._inputs import AuditedModel, slug
from privfair.report._model import Value

__all__ = [
    "CODES", "DISPARITIES", "LABELS", "RATES", "by_group", "code_of", "compute", "estimates",
    "extra_metrics", "gaps", "label", "metric",
]  # fmt: skip

_LOG = logging.getLogger("privfair.report")
RATES = (
    "base_rate", "selection_rate", "true_positive_rate", "false_positive_rate",
    "false_negative_rate", "positive_predictive_value", "negative_predictive_value", "accuracy",
)  # fmt: skip
DISPARITIES = (
    "demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference",
    "equalized_odds_difference_mean", "equalized_odds_ratio", "equal_opportunity_difference",
    "predictive_parity_difference", "accuracy_difference", "treatment_equality_difference",
    "calibration_gap",
)  # fmt: skip
SCORES = ("auc", "brier_score", "log_loss", "expected_calibration_error", "calibration_gap")
PROBABILITY = ("brier_score", "log_loss", "expected_calibration_error", "calibration_gap")
OUTSIDE = "(none of the declared groups)"
CODES = {
    "demographic_parity_difference": "dpd",
    "demographic_parity_ratio": "dpr",
    "equalized_odds_difference": "eod",
    "equalized_odds_difference_mean": "eod_mean",
    "equalized_odds_ratio": "eor",
    "equal_opportunity_difference": "eopd",
    "predictive_parity_difference": "ppd",
    "accuracy_difference": "accd",
    "treatment_equality_difference": "ted",
    "calibration_gap": "calgap",
}
LABELS = {
    "base_rate": "Base rate",
    "selection_rate": "Selection rate",
    "true_positive_rate": "True positive rate",
    "false_positive_rate": "False positive rate",
    "false_negative_rate": "False negative rate",
    "positive_predictive_value": "Precision (PPV)",
    "negative_predictive_value": "NPV",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "brier_score": "Brier score",
    "log_loss": "Log loss",
    "expected_calibration_error": "Calibration error (ECE)",
    "demographic_parity_difference": "Demographic parity difference",
    "demographic_parity_ratio": "Demographic parity ratio",
    "equalized_odds_difference": "Equalized odds difference",
    "equalized_odds_difference_mean": "Equalized odds difference, mean",
    "equalized_odds_ratio": "Equalized odds ratio",
    "equal_opportunity_difference": "Equal opportunity difference",
    "predictive_parity_difference": "Predictive parity difference",
    "accuracy_difference": "Accuracy difference",
    "treatment_equality_difference": "Treatment equality difference (FN / FP)",
    "calibration_gap": "Calibration gap",
}


def label(name: str) -> str:
    """Return what a metric is called in tables; one from elsewhere is called by its name."""
    return LABELS.get(name) or clean_label(name.replace("_", " ").capitalize())


def code_of(name: str) -> str:
    """Return the part of a finding's identifier that stands for a metric."""
    return CODES.get(name) or slug(name) or "metric"


def metric(name: str) -> Metric:
    """Return a fairness metric by its name."""
    import privfair.fairness.metrics as home

    found: Metric = getattr(home, name)
    return found


def _usable(names: tuple[str, ...], ctx: AuditContext, model: AuditedModel) -> list[str]:
    kept = []
    for name in names:
        needs = metric(name).requires
        if "y_true" in needs and ctx.labels is None:
            continue
        if name in SCORES and (
            model.scores is None or (name in PROBABILITY and not model.probability)
        ):
            continue
        kept.append(name)
    return kept


def estimates(
    ctx: AuditContext,
    model: AuditedModel,
    crossing: Crossing | None,
    names: tuple[str, ...],
) -> dict[str, Estimate]:
    """Return estimates by metric name, with the groups of a crossing (or over all rows).

    Parameters
    ----------
    ctx : AuditContext
    model : AuditedModel
        One of ``ctx.models``.
    crossing : Crossing or None
        One of ``ctx.singles()`` and ``ctx.crossings()``; None for all rows together.
    names : tuple of str
        Names of metrics in :mod:`privfair.fairness.metrics`. Those that need labels or scores
        which the audit lacks are left out of the result.

    Returns
    -------
    dict of str to Estimate

    Notes
    -----
    Computed once for each model and crossing. In a report under differential privacy they come
    from the table that was released, and cost nothing more.

    References
    ----------
    Hardt, Price, Srebro 2016, arXiv 1610.02413.
    """
    if ctx.private:
        # Rates over all rows are read from the first attribute's table, at no further cost.
        attributes = (next(iter(ctx.groups)),) if crossing is None else crossing.attributes
        known = ctx.released[(model.id, attributes)]
        skip = DISPARITIES if crossing is None else ()
        return {name: known[name] for name in names if name in known and name not in skip}
    wanted = tuple(_usable(names, ctx, model))
    where = () if crossing is None else crossing.attributes
    key = ("estimates", model.id, where, wanted)
    found: dict[str, Estimate] = ctx.cached(key, lambda: compute(ctx, model, crossing, wanted))
    return found


def extra_metrics(config: AuditConfig) -> dict[str, Metric | None]:
    """Return the metrics that others registered, and those of the settings, by name.

    A registered one that cannot be loaded is None: it must not take the report with it.
    """
    found: dict[str, Metric | None] = {}
    for name in registry.available("metrics"):
        try:
            loaded = registry.load("metrics", name)
        except Exception as error:
            _LOG.info("metric %s cannot be loaded: %s", name, type(error).__name__)
            loaded = None
        if type(loaded).__module__.partition(".")[0] == "privfair":
            continue  # our own register themselves, too: a report has its choice of them
        found[name] = loaded if isinstance(loaded, Metric) else None
    for given in config.metrics:
        chosen = registry.load("metrics", given) if isinstance(given, str) else given
        found[chosen.name] = chosen
    return {name: m for name, m in found.items() if name not in LABELS}


def gaps(ctx: AuditContext, model: AuditedModel, crossing: Crossing) -> dict[str, Estimate]:
    """Return the disparities of a crossing by name: the standard ones, then others' metrics.

    Notes
    -----
    A metric from elsewhere is given the rows, its failure is its own, and it has no part in a
    report under differential privacy, where only released tables may be read.

    References
    ----------
    Hardt, Price, Srebro 2016, arXiv 1610.02413.
    """
    found = dict(estimates(ctx, model, crossing, DISPARITIES))
    if not ctx.private:
        for name, extra in extra_metrics(ctx.config).items():
            key = ("extra", model.id, crossing.attributes, name)
            found[name] = ctx.cached(key, partial(_foreign, ctx, model, crossing, name, extra))
    return found


def _foreign(
    ctx: AuditContext, model: AuditedModel, crossing: Crossing, name: str, extra: Metric | None
) -> Estimate:
    if extra is None:
        return Estimate.not_estimable(name, "its package could not be loaded")
    inside = crossing.codes >= 0
    names = np.array(crossing.names, dtype=object)
    columns: dict[str, Any] = {
        "y_true": None if ctx.labels is None else ctx.labels[inside].astype(np.int64),
        "y_pred": model.decisions[inside].astype(np.int64),
        "y_score": None if model.scores is None else model.scores[inside],
        "sensitive_features": names[crossing.codes[inside]] if len(names) > 1 else None,
    }
    lacking = [need for need in extra.requires if columns.get(need) is None]
    if lacking:
        return Estimate.not_estimable(name, f"this audit has no {', '.join(lacking)} for it")
    more = {"y_score": columns["y_score"]} if "y_score" in extra.requires else {}
    try:
        found = extra.estimate(
            columns["y_true"], columns["y_pred"],
            sensitive_features=columns["sensitive_features"],
            confidence=ctx.config.confidence, n_resamples=ctx.config.n_resamples,
            random_state=ctx.seed_for("estimates", crossing.name), **more,
        )  # fmt: skip
    except Exception as error:
        _LOG.info("metric %s failed: %s", name, type(error).__name__)
        return Estimate.not_estimable(name, f"the metric failed with {type(error).__name__}")
    if not isinstance(found, Estimate):
        return Estimate.not_estimable(name, "the metric returned no estimate")
    return replace(found, name=name)


def compute(
    ctx: AuditContext,
    model: AuditedModel,
    crossing: Crossing | None,
    names: tuple[str, ...],
    *,
    privacy: Any = None,
    ledger: Any = None,
) -> dict[str, Estimate]:
    """Return estimates from the rows, or, with a budget, from a table released under it."""
    from privfair.fairness import estimate_all

    config = ctx.config
    keep: Any = slice(None)
    sensitive, groups = None, None
    if privacy is not None:
        names = tuple(n for n in _usable(names, ctx, model) if n not in SCORES)
    elif crossing is not None and len(crossing.labels) < 2:
        return _too_few(ctx, model, names)
    if crossing is not None:
        # Under privacy the number of rows is public, and rows outside stay (in no group).
        keep = crossing.codes >= 0 if privacy is None else slice(None)
        labels = np.array([*crossing.names, OUTSIDE], dtype=object)
        sensitive = {crossing.name: labels[crossing.codes[keep]]}
        groups = [(name,) for name in crossing.names]
    where = "all" if crossing is None else crossing.name
    found = estimate_all(
        [metric(name) for name in names],
        None if ctx.labels is None else ctx.labels[keep].astype(np.int64),
        model.decisions[keep].astype(np.int64),
        y_score=None if model.scores is None or privacy is not None else model.scores[keep],
        sensitive_features=sensitive,
        groups=groups,
        confidence=config.confidence,
        n_resamples=config.n_resamples,
        # The same resamples for every model: differences between models are not noise.
        random_state=ctx.seed_for("estimates", where),
        min_count=config.min_count,
        min_pos=config.min_pos,
        min_neg=config.min_neg,
        n_bins=config.n_bins,
        privacy=privacy,
        ledger=ledger,
    )
    return dict(zip(names, found, strict=True))


def _too_few(
    ctx: AuditContext, model: AuditedModel, names: tuple[str, ...]
) -> dict[str, Estimate]:
    """Return estimates where suppression leaves fewer than two groups to compare."""
    reason = "fewer than two groups are large enough to be shown"
    whole = tuple(name for name in names if name not in DISPARITIES)
    found = estimates(ctx, model, None, whole) if whole else {}
    return {
        name: found[name] if name in found else Estimate.not_estimable(name, reason)
        for name in names
    }


def by_group(estimate: Estimate, *, simultaneous: bool = False) -> list[Value]:
    """Return a metric's value in each group, in the order of the crossing.

    Parameters
    ----------
    estimate : Estimate
        From :func:`estimates` with a crossing.
    simultaneous : bool, default=False
        Intervals that hold for all groups together.

    Returns
    -------
    list of Value
        Empty where no group may be shown.

    References
    ----------
    Wilson 1927.
    """
    frame = estimate.by_group
    if frame is None:  # no groups, or none that may be shown
        return []
    ends = ("simultaneous_low", "simultaneous_high") if simultaneous else ("low", "high")
    method = estimate.method + (", simultaneous over groups" if simultaneous else "")
    return [
        Value(
            row["value"], row[ends[0]], row[ends[1]], confidence=estimate.confidence,
            method=method, n=max(0, int(row["n"])), status=row["status"], reason=row["reason"],
        )
        for row in frame.to_dict(orient="records")
    ]  # fmt: skip


def strict(value: Value, need: int, what: str) -> Value:
    """Return a value, or "not estimable" where its denominator is below the minimum."""
    if value.shown and (value.n or 0) < need:
        return replace(
            value, estimate=None, low=None, high=None, status="not_estimable",
            reason=f"{value.n} {what}, {need} needed",
        )  # fmt: skip
    return value


def tables_by_model(
    ctx: AuditContext, crossing: Crossing, *models: AuditedModel
) -> NDArray[np.int64]:
    """Return counts by group, label and the decision of each model."""
    masks = [] if ctx.labels is None else [ctx.labels]
    return crossing.counts(*masks, *(m.decisions for m in models))
