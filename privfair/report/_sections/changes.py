"""How two models differ on the same rows, with intervals that use the pairing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.randomness import check_random_state
from privfair.core.statistics import bootstrap_interval, multinomial_resamples
from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import LABELS, tables_by_model
from privfair.report._inputs import AuditedModel
from privfair.report._model import Column, Finding, Table, Value

__all__ = ["LEAD", "table"]

LEAD = (
    "Changes against {reference} on the same rows. Both models err on much the same rows, so that "
    "a change is known better than either value: the interval resamples rows together with both "
    "decisions."
)
Floats = NDArray[np.float64]
_GROUP_RATES = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")
_GAPS = ("demographic_parity_difference", "equalized_odds_difference",
         "equal_opportunity_difference")  # fmt: skip


def _share(top: Any, bottom: Any) -> Floats:
    out = np.full(np.shape(bottom), np.nan)
    return np.asarray(np.divide(top, bottom, out=out, where=np.asarray(bottom) > 0))


def _rates(cells: NDArray[np.int64], labelled: bool) -> dict[str, Floats]:
    """Return rates by group from counts of shape (..., group[, label], decision)."""
    if not labelled:
        return {"selection_rate": _share(cells[..., 1], cells.sum(axis=-1))}
    tn, fp = cells[..., 0, 0], cells[..., 0, 1]
    fn, tp = cells[..., 1, 0], cells[..., 1, 1]
    n = tn + fp + fn + tp
    return {
        "accuracy": _share(tn + tp, n),
        "selection_rate": _share(fp + tp, n),
        "true_positive_rate": _share(tp, fn + tp),
        "false_positive_rate": _share(fp, tn + fp),
    }


def _spread(rates: Floats) -> Floats:
    return np.asarray(np.fmax.reduce(rates, axis=-1) - np.fmin.reduce(rates, axis=-1))


def _gaps(rates: dict[str, Floats]) -> dict[str, Floats]:
    out = {"demographic_parity_difference": _spread(rates["selection_rate"])}
    if "true_positive_rate" in rates:
        tpr, fpr = _spread(rates["true_positive_rate"]), _spread(rates["false_positive_rate"])
        out["equalized_odds_difference"] = np.maximum(tpr, fpr)
        out["equal_opportunity_difference"] = tpr
    return out


def _both(cells: NDArray[np.int64], labelled: bool) -> tuple[dict[str, Floats], ...]:
    """Split joint counts (..., group[, label], first, second) into the rates of each model."""
    first, second = cells.sum(axis=-1), cells.sum(axis=-2)
    return _rates(first, labelled), _rates(second, labelled)


def _change(ctx: AuditContext, observed: Any, draws: Any, n: int) -> Value:
    value = float(observed)
    if np.isnan(value):
        return Value.missing("undefined under one of the models", n=n)
    found = bootstrap_interval(draws, value, confidence=ctx.config.confidence, method="basic")
    return Value(value, found.low, found.high, ctx.config.confidence, "paired bootstrap", n,
                 reason=found.reason)  # fmt: skip


def table(
    ctx: AuditContext, crossing: Crossing, reference: AuditedModel
) -> tuple[Table, list[Finding]]:
    """Return the changes of all other models, by group and in the gaps."""
    labelled = ctx.labels is not None
    rows: list[tuple[Any, ...]] = []
    marks: list[str] = []
    findings: list[Finding] = []
    others = [m for m in ctx.models if m.id != reference.id]
    names = [r for r in _GROUP_RATES if labelled or r == "selection_rate"]
    for model in others:
        cells = tables_by_model(ctx, crossing, reference, model)
        rng = check_random_state(ctx.seed_for("change", crossing.name, model.id))
        draws = multinomial_resamples(cells, ctx.config.n_resamples, rng)
        old, new = _both(cells, labelled)
        old_draws, new_draws = _both(draws, labelled)
        sizes = crossing.counts().tolist()
        head = [model.name] if len(others) > 1 else []
        for k, group in enumerate(crossing.names):
            changes = [
                _change(ctx, new[r][k] - old[r][k], new_draws[r][:, k] - old_draws[r][:, k],
                        sizes[k])
                for r in names
            ]  # fmt: skip
            rows.append((group, *head, sizes[k], *changes))
            marks.append("")
        total, total_draws = cells.sum(axis=0), draws.sum(axis=1)
        a, b = _both(total, labelled)
        c, d = _both(total_draws, labelled)
        changes = [_change(ctx, b[r] - a[r], d[r] - c[r], ctx.n) for r in names]
        rows.append(("All rows", *head, ctx.n, *changes))
        marks.append("total")
        if labelled and crossing is next(iter(ctx.singles())):
            findings.append(_accuracy(ctx, model, reference, changes[0]))
        gap_old, gap_new = _gaps(old), _gaps(new)
        draw_old, draw_new = _gaps(old_draws), _gaps(new_draws)
        for gap in gap_old:
            value = _change(ctx, gap_new[gap] - gap_old[gap], draw_new[gap] - draw_old[gap], ctx.n)
            findings.append(_gap(ctx, model, reference, crossing, gap, value))
    columns = [Column("group", crossing.name, "label")]
    columns += [Column("model", "Model", "text")] if len(others) > 1 else []
    columns.append(Column("n", "Rows", "count"))
    columns += [Column(r, f"{LABELS[r]}, change", "value") for r in names]
    who = others[0].name if len(others) == 1 else "the other models"
    return (
        Table(
            f"changes-{ctx.crossing_id(crossing)}",
            f"Change from {reference.name} to {who} by {crossing.name}",
            tuple(columns),
            tuple(rows),
            ("Positive numbers are increases. Basic bootstrap intervals from the joint table of "
             "both decisions.",),
            tuple(marks),
        ),
        findings,
    )  # fmt: skip


_SHORT = {
    "demographic_parity_difference": "dpd",
    "equalized_odds_difference": "eod",
    "equal_opportunity_difference": "eopd",
}


def _accuracy(
    ctx: AuditContext, model: AuditedModel, reference: AuditedModel, value: Value
) -> Finding:
    return Finding(
        f"change.accuracy@{model.id}",
        "note",
        f"From {reference.name} to {model.name}, on the same rows.",
        f"Change of accuracy, {model.name}",
        value,
        f"groups/changes-{ctx.crossing_id(next(iter(ctx.singles())))}",
        model.id,
        rank=40,
    )


def _gap(
    ctx: AuditContext, model: AuditedModel, reference: AuditedModel, crossing: Crossing,
    gap: str, value: Value,
) -> Finding:  # fmt: skip
    key = ctx.crossing_id(crossing)
    if not value.shown:
        text = f"The change of {LABELS[gap].lower()} is not estimable: {value.reason}."
    else:
        text = f"From {reference.name} to {model.name}, on the same rows."
    return Finding(
        f"change.{_SHORT[gap]}.{key}@{model.id}", "note", text,
        f"Change of {LABELS[gap].lower()}, {crossing.name}", value,
        f"groups/changes-{key}", model.id,
    )  # fmt: skip
