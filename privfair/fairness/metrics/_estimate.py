"""One table, one set of resamples, many metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, cast

from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidTypeError, PrivacyError
from privfair.core.metric import Metric
from privfair.fairness.metrics._base import ContextMetric
from privfair.fairness.metrics._calibration import CalibrationGap
from privfair.fairness.metrics._context import Context, Options
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL, check_rows
from privfair.fairness.metrics._private import private_context, refuse
from privfair.fairness.metrics._scores import ScoreMetric

__all__ = ["estimate_all"]


def estimate_all(
    metrics: Iterable[Metric],
    y_true: Any,
    y_pred: Any,
    *,
    y_score: Any = None,
    sensitive_features: Any = None,
    sample_weight: Any = None,
    pos_label: Any = DEFAULT_POS_LABEL,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    random_state: Any = None,
    privacy: Any = None,
    groups: Any = None,
    ledger: Any = None,
    **options: Any,
) -> list[Estimate]:
    """Estimate several metrics from one table and shared resamples.

    Parameters
    ----------
    metrics : iterable of Metric
    y_true : array-like or None
        Labels.
    y_pred : array-like
        Decisions, in the same classes as the labels.
    y_score : array-like or None
        Score of ``pos_label``, for metrics that need one.
    sensitive_features : array-like or data frame, default=None
        One or more columns; several are crossed.
    sample_weight : array-like or None
    pos_label : object, default=1
        The positive class; needed for text labels.
    confidence : float, in (0, 1), default=0.95
    n_resamples : int, default=2000
        Bootstrap replicates and permutations.
    random_state : None, int or Generator
        Seeds resampling only. A metric's result does not depend on which others are asked for.
    privacy : Budget or None
        Compute from a table released under differential privacy; needs ``groups``.
    groups : list or mapping, optional
        The groups, as public knowledge.
    ledger : Ledger or None
        Charged before the data are read.
    **options
        ``cuts``, ``missing_group``, ``min_count=30``, ``min_pos=10``, ``min_neg=10``,
        ``n_bins=10``; see :class:`GroupTable`. Columns that a metric requires (``client``, say)
        and the options of metrics that share a result of their own go to those metrics.

    Returns
    -------
    list of Estimate
        In the order of ``metrics``.

    Raises
    ------
    DataError
        Data that cannot be used; each kind has its own subclass.

    Notes
    -----
    The table takes one pass over the rows; everything after it costs the same for every number
    of rows, unless there are weights or scores.

    References
    ----------
    Efron and Tibshirani 1993; Newcombe 1998; Hayter 1984.

    Examples
    --------
    >>> from privfair.fairness.metrics import demographic_parity_difference, selection_rate
    >>> y, d, s = [1, 0] * 40, [1] * 30 + [0] * 50, ["a", "b"] * 40
    >>> rate, gap = estimate_all([selection_rate, demographic_parity_difference], y, d,
    ...                          sensitive_features=s, random_state=0)
    >>> rate.value, gap.value, gap.low
    (0.375, 0.0, 0.0)
    """
    chosen = list(metrics)
    for metric in chosen:
        if not isinstance(metric, Metric):
            raise InvalidTypeError(
                f"metrics must hold Metric objects, got {type(metric).__name__}. Import them "
                "from privfair.fairness.metrics."
            )
    others = _taken_out(chosen, options)
    settings = Options.of(
        {
            "confidence": confidence,
            "n_resamples": n_resamples,
            "random_state": random_state,
            "groups": groups,
            **options,
        }
    )
    data = {
        "y_true": y_true,
        "y_pred": y_pred,
        "y_score": y_score,
        "sensitive_features": sensitive_features,
        "sample_weight": sample_weight,
    }
    rest = {
        **{name: value for name, value in data.items() if name != "y_score"},
        "pos_label": pos_label,
        "confidence": confidence,
        "n_resamples": n_resamples,
        "random_state": random_state,
        "groups": groups,
        "ledger": ledger,
        **others,
    }
    together = {metric.together for metric in chosen if metric.together is not None}
    if privacy is not None:
        if len(together) == 1 and all(metric.together is not None for metric in chosen):
            rest |= {name: options[name] for name in ("cuts", "missing_group") if name in options}
            return list(next(iter(together))(chosen, **rest, privacy=privacy))
        for metric in chosen:
            if metric.together is not None:
                raise PrivacyError(
                    f"{metric.name} under privacy= is made from a table of its own, with the "
                    "client, and the other metrics from another: two releases, two charges. Ask "
                    "for them in two calls, each with its budget; nothing was charged."
                )
            if not isinstance(metric, ContextMetric) or metric.from_scores:
                refuse(metric.name)
        check_rows(**data)
        context = private_context(data, pos_label, settings, privacy, ledger)
        return [cast(ContextMetric, metric).checked(context) for metric in chosen]
    check_rows(**data)
    context = Context(**data, pos_label=pos_label, options=settings)
    context.score_kinds = [m.name for m in chosen if isinstance(m, ScoreMetric) and m.resampled]
    for metric in chosen:  # bad scores are refused before anything is computed
        if isinstance(metric, ScoreMetric | CalibrationGap):
            metric.read(context)
    shared: dict[str, Estimate] = {}
    for make in together:
        mine = [metric for metric in chosen if metric.together is make]
        given = {name: options[name] for name in ("cuts", "missing_group") if name in options}
        found = make(mine, **rest, **given)
        shared |= {metric.name: one for metric, one in zip(mine, found, strict=True)}
    results = []
    for metric in chosen:
        if metric.name in shared:
            results.append(shared[metric.name])
            continue
        if isinstance(metric, ContextMetric):
            results.append(metric.checked(context))
            continue
        columns = {name: value for name, value in others.items() if name in metric.requires}
        own = {name: value for name, value in rest.items() if name not in others}
        own["pos_label"] = 1 if pos_label is DEFAULT_POS_LABEL else pos_label
        results.append(metric.estimate(**own, **columns))
    return results


def _taken_out(metrics: list[Metric], options: dict[str, Any]) -> dict[str, Any]:
    """Take out of ``options`` what only metrics beyond the group table understand."""
    known = {name for m in metrics if not isinstance(m, ContextMetric) for name in m.requires}
    known |= {name for m in metrics if m.together is not None for name in m.options}
    own = {f.name for f in fields(Options)}
    return {name: options.pop(name) for name in sorted(known - own) if name in options}
