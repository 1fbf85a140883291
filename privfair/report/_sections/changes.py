"""How two models differ on the same rows, with intervals that use the pairing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.randomness import check_random_state
from privfair.core.statistics import bootstrap_interval, multinomial_resamples
from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import LABELS, tables_by_model
from privfair.report._inputs import AuditedModel
from privfair.report._model import Column, Finding, Table, Value

__all__ = ["LEAD", "Change", "measured", "table"]

LEAD = (
    "Changes against {reference} on the same rows. Both models err on much the same rows, so that "
    "a change is known better than either value: the interval resamples rows together with both "
    "decisions."
)
Floats = NDArray[np.float64]
_GROUP_RATES = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")


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


@dataclass(frozen=True, eq=False)
class Change:
    """How one model differs from the reference: by group, over all rows, in the gaps."""

    model: AuditedModel
    by_group: dict[str, list[Value]]
    overall: dict[str, Value]
    gaps: dict[str, Value]


def measured(ctx: AuditContext, crossing: Crossing, reference: AuditedModel) -> list[Change]:
    """Return the changes of all other models against the reference, made once per crossing."""
    key = ("changes", crossing.attributes, reference.id)
    found: list[Change] = ctx.cached(
        key,
        lambda: [
            _measure(ctx, crossing, reference, m) for m in ctx.models if m.id != reference.id
        ],
    )
    return found


def _measure(
    ctx: AuditContext, crossing: Crossing, reference: AuditedModel, model: AuditedModel
) -> Change:
    labelled = ctx.labels is not None
    names = [r for r in _GROUP_RATES if labelled or r == "selection_rate"]
    cells = tables_by_model(ctx, crossing, reference, model)
    rng = check_random_state(ctx.seed_for("change", crossing.name, model.id))
    draws = multinomial_resamples(cells, ctx.config.n_resamples, rng)
    old, new = _both(cells, labelled)
    old_draws, new_draws = _both(draws, labelled)
    sizes = crossing.counts().tolist()
    by_group = {
        r: [
            _change(ctx, new[r][k] - old[r][k], new_draws[r][:, k] - old_draws[r][:, k], sizes[k])
            for k in range(len(sizes))
        ]
        for r in names
    }
    whole, whole_draws = cells.sum(axis=0), draws.sum(axis=1)
    if crossing.suppressed:  # its rows are among all rows
        whole = _all_rows(ctx, reference, model)
        whole_draws = multinomial_resamples(whole, ctx.config.n_resamples, rng)
    a, b = _both(whole, labelled)
    c, d = _both(whole_draws, labelled)
    overall = {r: _change(ctx, b[r] - a[r], d[r] - c[r], ctx.n) for r in names}
    before, after = _gaps(old), _gaps(new)
    draw_before, draw_after = _gaps(old_draws), _gaps(new_draws)
    gaps = {
        g: _change(ctx, after[g] - before[g], draw_after[g] - draw_before[g], ctx.n)
        for g in before
    }
    return Change(model, by_group, overall, gaps)


def _all_rows(ctx: AuditContext, *models: AuditedModel) -> NDArray[np.int64]:
    """Return counts by label and the decision of each model, over all rows."""
    masks = [] if ctx.labels is None else [ctx.labels]
    code = np.zeros(ctx.n, dtype=np.int64)
    for mask in (*masks, *(m.decisions for m in models)):
        code = 2 * code + mask
    shape = (2,) * (len(masks) + len(models))
    return np.bincount(code, minlength=int(np.prod(shape))).reshape(shape).astype(np.int64)


def table(
    ctx: AuditContext, crossing: Crossing, reference: AuditedModel, *, first: bool = False
) -> tuple[Table, list[Finding]]:
    """Return the changes of all other models, by group and in the gaps.

    The first table of a report brings the findings over all rows.
    """
    rows: list[tuple[Any, ...]] = []
    marks: list[str] = []
    findings: list[Finding] = []
    found = measured(ctx, crossing, reference)
    names = list(found[0].overall)
    sizes = crossing.counts().tolist()
    for change in found:
        model = change.model
        head = [model.name] if len(found) > 1 else []
        for k, group in enumerate(crossing.names):
            rows.append((group, *head, sizes[k], *(change.by_group[r][k] for r in names)))
            marks.append("")
        rows.append(("All rows", *head, ctx.n, *(change.overall[r] for r in names)))
        marks.append("total")
        if first and "accuracy" in change.overall:
            value = change.overall["accuracy"]
            findings.append(_accuracy(ctx, model, reference, crossing, value))
        for gap, value in change.gaps.items():
            findings.append(_gap(ctx, model, reference, crossing, gap, value))
    columns = [Column("group", crossing.name, "label")]
    columns += [Column("model", "Model", "text")] if len(found) > 1 else []
    columns.append(Column("n", "Rows", "count"))
    columns += [Column(r, f"{LABELS[r]}, change", "value") for r in names]
    who = found[0].model.name if len(found) == 1 else "the other models"
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
    ctx: AuditContext,
    model: AuditedModel,
    reference: AuditedModel,
    crossing: Crossing,
    value: Value,
) -> Finding:
    return Finding(
        f"change.accuracy@{model.id}",
        "note",
        f"From {reference.name} to {model.name}, on the same rows.",
        f"Change of accuracy, {model.name}",
        value,
        f"mitigation/changes-{ctx.crossing_id(crossing)}",
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
        f"mitigation/changes-{key}", model.id,
    )  # fmt: skip
