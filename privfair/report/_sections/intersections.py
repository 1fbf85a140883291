"""Crossings of the sensitive attributes: small groups, shown without pretending to know them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from privfair.core.estimate import Estimate
from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import DISPARITIES, LABELS, RATES, by_group, estimates, strict
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._numbers import number
from privfair.report._sections.groups import adjusted_p, disparity_finding, gaps_table

__all__ = ["build"]

_SHOWN = ("selection_rate", "true_positive_rate", "false_positive_rate")
_GAPS = ("demographic_parity_difference", "equalized_odds_difference",
         "equal_opportunity_difference")  # fmt: skip
MAX_NAMED = 20
MAX_HEATS = 2
MAX_ROWS = 80


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    title = ctx.text("section.intersections")
    if len(ctx.groups) < 2 or ctx.config.intersections < 2:
        why = (
            "One sensitive attribute was given; crossings need two."
            if len(ctx.groups) < 2
            else "Crossings were switched off in the settings."
        )
        return SectionResult("intersections", title, "not_applicable", why)
    tables: list[Table] = []
    figures: list[Figure] = []
    findings: list[Finding] = []
    blocks: list[Block] = []
    gaps = {
        (c.name, m.id): {
            n: e for n, e in estimates(ctx, m, c, _wanted(ctx)).items() if n in _GAPS
        }
        for c in ctx.crossings()
        for m in ctx.models
    }  # fmt: skip
    adjusted = adjusted_p(gaps)
    for crossing in ctx.crossings():
        blocks.append(Block("heading", text=crossing.name))
        if len(crossing.attributes) == 2 and len(figures) < MAX_HEATS:
            figures.append(_heat(ctx, crossing))
            blocks.append(Block("figure", figures[-1].id))
        for model in ctx.models:
            table, worst = _table(ctx, model, crossing)
            tables.append(table)
            blocks.append(Block("table", table.id))
            findings += worst
            for e in gaps[crossing.name, model.id].values():
                findings.append(disparity_finding(ctx, model, crossing, e, 9, "intersections"))
        tables.append(gaps_table(ctx, crossing, gaps, adjusted))
        blocks.append(Block("table", tables[-1].id))
    return SectionResult(
        "intersections",
        title,
        lead=ctx.text("intersections.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=(
            "Groups without a number are listed with their counts. They are not evidence of "
            "equality: the data are too few to tell.",
        ),
        method=(
            "Intervals are simultaneous over all groups of a table: Wilson limits (with few "
            "cases the wider of Wilson's and Clopper and Pearson's) at the level for all of them "
            "together (Sidak; the groups are disjoint, so that their rates are independent). "
            "'Shrunken' is the empirical-Bayes rate under a beta prior "
            "fitted to all groups, beside the raw rate and never in its place. 'Beyond doubt' is "
            "the distance from the rate of all rows that the interval still leaves, the largest "
            f"over the rates shown. A rate needs {ctx.config.min_count} rows, a true positive "
            f"rate {ctx.config.min_pos} positives, a false positive rate {ctx.config.min_neg} "
            "negatives."
        ),
        references=(
            "Kearns, Neel, Roth, Wu 2018, Preventing fairness gerrymandering, arXiv 1711.05144.",
            "Foulds, Islam, Keya, Pan 2020, An intersectional definition of fairness, "
            "arXiv 1807.08362.",
            "Sidak 1967, Rectangular confidence regions for the means of multivariate normal "
            "distributions.",
            "Griffin, Krutchkoff 1971, An empirical Bayes estimator for P[success].",
        ),
        blocks=tuple(blocks),
    )


def _wanted(ctx: AuditContext) -> tuple[str, ...]:
    return RATES + DISPARITIES


def _needs(ctx: AuditContext) -> dict[str, tuple[int, str]]:
    config = ctx.config
    return {
        "selection_rate": (config.min_count, "rows"),
        "true_positive_rate": (config.min_pos, "positives"),
        "false_positive_rate": (config.min_neg, "negatives"),
    }


def _beyond(value: Value, overall: float) -> float:
    """Return how far the interval lies from the overall rate; 0 where it holds it."""
    if not value.shown or value.low is None or value.high is None or overall != overall:
        return 0.0
    return max(0.0, value.low - overall, overall - value.high)


def _table(
    ctx: AuditContext, model: AuditedModel, crossing: Crossing
) -> tuple[Table, list[Finding]]:
    found = estimates(ctx, model, crossing, _wanted(ctx))
    names = [n for n in _SHOWN if n in found]
    needs = _needs(ctx)
    cells = {
        name: [strict(v, *needs[name]) for v in by_group(found[name], simultaneous=True)]
        for name in names
    }
    shrunken = {name: _shrunken(found[name]) for name in names}
    sizes = ctx.sizes(crossing)
    positives = None
    if ctx.labels is not None and not ctx.private:
        positives = crossing.counts(ctx.labels)[:, 1].tolist()
    rows: list[tuple[float, int, tuple[Any, ...]]] = []
    for k, group in enumerate(crossing.names if len(crossing.names) > 1 else []):
        harm = max(_beyond(cells[name][k], found[name].value) for name in names)
        row: list[Any] = [group, sizes[k]]
        if positives is not None:
            row.append(positives[k])
        for name in names:
            row += [cells[name][k], _plain(shrunken[name][k])]
        rows.append((harm, sizes[k], (*row, harm)))
    rows.sort(key=lambda item: (-item[0], -item[1]))
    columns = [Column("group", crossing.name, "label"), Column("n", "Rows", "count")]
    columns += [Column("positives", "Positives", "count")] if positives is not None else []
    for name in names:
        columns.append(Column(name, LABELS[name], "value"))
        columns.append(Column(f"{name}_shrunken", "shrunken", "number"))
    columns.append(Column("beyond", "Beyond doubt", "number"))
    key = ctx.crossing_id(crossing)
    suffix = "" if model is ctx.subject else f"-{model.id}"
    table = Table(
        f"crossing-{key}{suffix}",
        f"{crossing.name}" + (f", {model.name}" if len(ctx.models) > 1 else ""),
        tuple(columns),
        tuple(row for _, _, row in rows),
        ctx.note_of_suppressed(crossing) + _notes(ctx, crossing),
        collapsed=len(rows) > MAX_ROWS or (model is not ctx.subject and len(rows) > 8),
    )
    return table, [_worst(ctx, model, crossing, table)]


def _shrunken(estimate: Estimate) -> list[float]:
    return [] if estimate.by_group is None else list(estimate.by_group["shrunken"])


def _plain(value: float) -> float | None:
    return None if value != value else float(value)


def _notes(ctx: AuditContext, crossing: Crossing) -> tuple[str, ...]:
    if not crossing.absent:
        return ()
    present = {*crossing.labels, *crossing.suppressed}
    levels = [ctx.levels[name] for name in crossing.attributes]
    gone = [" × ".join(item) for item in product(*levels) if item not in present]
    named = ", ".join(gone[:MAX_NAMED]) + (", …" if len(gone) > MAX_NAMED else "")
    return (f"{crossing.absent} combinations do not occur in these rows: {named}.",)


def _worst(ctx: AuditContext, model: AuditedModel, crossing: Crossing, table: Table) -> Finding:
    key = ctx.crossing_id(crossing)
    if not table.rows:
        return Finding(
            ctx.finding_id(f"intersections.beyond.{key}", model), "note",
            "No group is large enough to be shown.", f"Most extreme crossing, {crossing.name}",
            Value.missing("no group is shown", "suppressed"), f"intersections/{table.id}",
            model.id,
        )  # fmt: skip
    first = table.rows[0]
    harm = float(first[-1])
    unknown = sum(any(isinstance(c, Value) and not c.shown for c in row) for row in table.rows)
    if harm > 0:
        text = (
            f"Of the {len(table.rows)} groups, {first[0]} ({first[1]} rows) differs most beyond "
            f"doubt: at least {number(harm)} from the rate of all rows."
        )
    else:
        text = f"None of the {len(table.rows)} groups differs from all rows beyond doubt."
    if unknown:
        text += f" {unknown} groups are too small for at least one rate."
    return Finding(
        ctx.finding_id(f"intersections.beyond.{key}", model), "note", text,
        f"Most extreme crossing, {crossing.name}",
        replace(Value(harm, n=int(first[1])), method="lower end of simultaneous interval"),
        f"intersections/{table.id}", model.id,
    )  # fmt: skip


def _heat(ctx: AuditContext, crossing: Crossing) -> Figure:
    first, second = crossing.attributes
    if len(ctx.levels[first]) < len(ctx.levels[second]):
        first, second = second, first
    at = {name: k for k, name in enumerate(crossing.attributes)}
    found = estimates(ctx, ctx.subject, crossing, _wanted(ctx))["selection_rate"]
    values = [strict(v, ctx.config.min_count, "rows") for v in by_group(found)]
    sizes = ctx.sizes(crossing)
    cells = {
        (label[at[first]], label[at[second]]): (value, n)
        for label, value, n in zip(crossing.labels, values, sizes, strict=True)
    }
    rows: list[tuple[Any, ...]] = []
    value: Value
    n: int | None
    hidden = {(label[at[first]], label[at[second]]) for label in crossing.suppressed}
    for row, column in product(ctx.levels[first], ctx.levels[second]):
        value, n = cells.get((row, column), (Value.missing("no rows", n=0), 0))
        if (row, column) in hidden:
            value, n = Value.missing("small count", "suppressed"), None
        rows.append((row, column, value, n))
    return Figure(
        f"fig-crossing-{ctx.crossing_id(crossing)}",
        "heat",
        f"Selection rate by {first} and {second}, {ctx.subject.name}",
        f"Deeper colour means a larger selection rate; groups of fewer than "
        f"{ctx.config.min_count} rows are left blank.",
        Table(
            f"fig-crossing-{ctx.crossing_id(crossing)}-data",
            "Selection rate by crossing",
            (
                Column("row", first, "label"),
                Column("column", second),
                Column("value", "Selection rate", "value"),
                Column("n", "Rows", "count"),
            ),
            tuple(rows),
        ),
        {"rows": ctx.levels[first], "columns": ctx.levels[second]},
    )
