"""Several models on the same rows: what each of them gives up and gains against the reference."""

from __future__ import annotations

from typing import Any

from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import LABELS, estimates, gaps
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._sections import changes

__all__ = ["build", "given"]

_WHOLE = ("accuracy", "selection_rate")
_GAPS = (
    "demographic_parity_difference", "equalized_odds_difference", "equal_opportunity_difference",
)  # fmt: skip


def given(ctx: AuditContext) -> bool:
    """Whether there is more than one model."""
    return len(ctx.models) > 1


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    title = ctx.text("section.mitigation")
    if len(ctx.models) < 2:
        reason = "One model was given; a comparison needs the model with and without mitigation."
        return SectionResult("mitigation", title, "not_applicable", reason)
    if ctx.private:
        return SectionResult("mitigation", title, "not_applicable", ctx.text("mitigation.private"))
    reference = next(m for m in ctx.models if m.id == ctx.reference)
    crossings = [c for c in ctx.singles() if len(c.labels) > 1]
    if not crossings:
        reason = "Fewer than two groups of each attribute are large enough to be shown."
        return SectionResult("mitigation", title, "insufficient_data", reason)
    rows = _rows(ctx, crossings, reference)
    tables = [_comparison(ctx, reference, rows)]
    figure = _figure(ctx, reference, rows)
    blocks = [Block("figure", figure.id), Block("table", tables[0].id)]
    findings: list[Finding] = []
    blocks.append(Block("heading", text="What changes for whom"))
    for crossing in crossings:
        table, more = changes.table(ctx, crossing, reference, first=crossing is crossings[0])
        tables.append(table)
        findings += more
        blocks.append(Block("table", table.id))
    return SectionResult(
        "mitigation",
        title,
        lead=changes.LEAD.format(reference=reference.name),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=(figure,),
        caveats=(ctx.text("mitigation.caveat"),),
        method=(
            "Values have the intervals of their own sections. Changes have basic bootstrap "
            f"intervals: {ctx.config.n_resamples} multinomial resamples of the joint table of "
            "group, label and both decisions, so that rows are resampled together with both "
            "decisions. They cover the sample of audited rows, not the randomness of training."
        ),
        references=(
            "Efron, Tibshirani 1993, An introduction to the bootstrap.",
            "Newcombe 1998, Improved confidence intervals for the difference between binomial "
            "proportions based on paired data, Statistics in Medicine 17.",
        ),
        blocks=tuple(blocks),
    )


Row = tuple[str, str, dict[str, Value], dict[str, Value]]
"""Heading, measure, value by model, change by model."""


def _rows(ctx: AuditContext, crossings: list[Crossing], reference: AuditedModel) -> list[Row]:
    out: list[Row] = []
    first = changes.measured(ctx, crossings[0], reference)
    whole = {m.id: estimates(ctx, m, None, _WHOLE) for m in ctx.models}
    for name in _WHOLE:
        if name in first[0].overall:
            values = {m.id: Value.of(whole[m.id][name]) for m in ctx.models}
            out.append(
                ("All rows", LABELS[name], values, {c.model.id: c.overall[name] for c in first})
            )
    for crossing in crossings:
        found = changes.measured(ctx, crossing, reference)
        known = {m.id: gaps(ctx, m, crossing) for m in ctx.models}
        for name in _GAPS:
            if name in found[0].gaps and all(name in of for of in known.values()):
                values = {m.id: Value.of(known[m.id][name]) for m in ctx.models}
                moved = {c.model.id: c.gaps[name] for c in found}
                out.append((crossing.name, LABELS[name], values, moved))
    return out


def _comparison(ctx: AuditContext, reference: AuditedModel, rows: list[Row]) -> Table:
    columns = [Column("measure", "Measure", "label"), Column("over", "Over", "text")]
    columns.append(Column(reference.id, reference.name, "value"))
    others = [m for m in ctx.models if m.id != reference.id]
    for model in others:
        columns.append(Column(model.id, model.name, "value"))
        columns.append(Column(f"{model.id}_change", f"Change to {model.name}", "value"))
    cells: list[tuple[Any, ...]] = []
    for head, measure, values, moved in rows:
        row: list[Any] = [measure, head, values[reference.id]]
        for model in others:
            row += [values[model.id], moved[model.id]]
        cells.append(tuple(row))
    return Table(
        "comparison-brief",
        f"Models on the same {ctx.n:,} rows",
        tuple(columns),
        tuple(cells),
        ("A change whose interval does not hold 0 is beyond the chance of these rows.",),
    )


def _figure(ctx: AuditContext, reference: AuditedModel, rows: list[Row]) -> Figure:
    ordered = [reference, *(m for m in ctx.models if m.id != reference.id)]
    data = [
        (head, measure, model.name, values[model.id], moved.get(model.id))
        for head, measure, values, moved in rows
        for model in ordered
    ]
    return Figure(
        "fig-comparison",
        "dumbbell",
        "The same measures under each model",
        "One mark per model and measure; the bar between them is the change"
        + (", written at the end of the row with its paired interval." if len(ordered) == 2
           else "; its paired interval is in the table."),
        Table(
            "fig-comparison-data",
            "Measures under each model",
            (
                Column("attribute", "Over", "label"),
                Column("metric", "Measure"),
                Column("series", "Model"),
                Column("value", "Value", "value"),
                Column("change", "Change against the reference", "value"),
            ),
            tuple(data),
        ),
        {"series": [m.name for m in ordered], "x_label": "value"},
    )  # fmt: skip
