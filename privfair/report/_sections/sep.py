"""Socio-economic parity: how underprivileged members of each group fare, and effort with them."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from privfair.core.exceptions import PrivfairWarning
from privfair.report._context import AuditContext, Crossing
from privfair.report._inputs import AuditedModel, slugs
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._socio import Socio

__all__ = ["build", "given"]

OUTCOME = "recorded outcome"
MAX_PANELS = 6


def given(ctx: AuditContext) -> bool:
    """Whether there is a rule of status."""
    return ctx.socio is not None


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    title = ctx.text("section.sep")
    if ctx.socio is None:
        reason = "No rule says who is underprivileged."
        return SectionResult("sep", title, "not_applicable", reason)
    if ctx.private:
        return SectionResult("sep", title, "not_applicable", ctx.text("sep.private"))
    if ctx.config.min_cell is not None:
        return SectionResult("sep", title, "not_applicable", ctx.text("sep.min_cell"))
    crossings = [c for c in ctx.singles() if len(c.labels) > 1]
    ids = slugs(ctx.socio.low, "rule_")
    tables, blocks, findings = [], [], []
    figures = []
    if ctx.socio.hours is not None:
        figures.append(_curves_figure(ctx, ctx.socio, crossings[0]))
        blocks.append(Block("figure", figures[0].id))
    for name in ctx.socio.low:
        head = f"Underprivileged: {ctx.socio.words[name]}"
        blocks.append(Block("heading", text=head))
        for crossing in crossings:
            table = _gaps(ctx, ctx.socio, crossing, name, ids[name])
            tables.append(table)
            blocks.append(Block("table", table.id))
            if ctx.socio.hours is not None:
                table = _returns(ctx, ctx.socio, crossing, name, ids[name])
                tables.append(table)
                blocks.append(Block("table", table.id))
            for model in ctx.models:
                findings += _findings(ctx, ctx.socio, crossing, model, name, ids[name])
    return SectionResult(
        "sep",
        title,
        lead=ctx.text("sep.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=_caveats(ctx, ctx.socio),
        method=(
            "SEP gap: selection rate of everybody less that of the underprivileged members of a "
            "group; above 0 they are selected too rarely. CSEP: the same among those who show "
            f"effort{f' ({ctx.socio.effort_words})' if ctx.socio.effort_words else ''}, with that "
            "condition on both sides. The gap is the sum of the gap of the group (the ordinary "
            "demographic parity part) and the gap of status inside it. Intervals come from "
            "influence functions, which know that the sets overlap; those of the largest gap hold "
            "for all groups (Sidak). Null reference: decisions permuted among the rows compared."
        ),
        references=(
            "Roy, Rizou, Papadopoulos, Ntoutsi 2025, Achieving socio-economic parity through the "
            "lens of EU AI Act, arXiv 2503.23056 (definition of SEP; gaps, CSEP and decomposition "
            "are a reconstruction).",
            "Roemer 1998, Equality of opportunity.",
            "Heidari, Nanda, Gummadi 2019, arXiv 1903.01209.",
        ),
        blocks=tuple(blocks),
    )


def _caveats(ctx: AuditContext, socio: Socio) -> tuple[str, ...]:
    out = []
    for name, low in socio.low.items():
        share = float(np.mean(low))
        if share > 0.8:
            out.append(ctx.text("sep.caveat_most", rule=socio.words[name],
                                share=f"{100 * share:.0f}"))  # fmt: skip
    if socio.effort is not None:
        out.append(ctx.text("sep.caveat_effort"))
    out.append(ctx.text("sep.caveat_label"))
    out.append(ctx.text("sep.caveat_law"))
    return tuple(out)


# -- gaps -------------------------------------------------------------------------------------
def _frames(
    ctx: AuditContext, socio: Socio, crossing: Crossing, decisions: Any, name: str
) -> tuple[Any, Any]:
    """Return the tables of SEP and of CSEP; the latter None without a rule of effort."""
    from privfair.fairness.sep import sep_gaps

    groups = {crossing.name: np.array(crossing.names, dtype=object)[crossing.codes]}
    common: dict[str, Any] = {
        "min_group": max(1, ctx.config.min_count), "confidence": ctx.config.confidence,
    }  # fmt: skip
    y = np.asarray(decisions, dtype=np.int64)
    with warnings.catch_warnings():
        # Sets that are too small, or everybody, are told in the table.
        warnings.simplefilter("ignore", PrivfairWarning)
        plain = sep_gaps(y, groups, socio.low[name], **common)
        if socio.effort is None:
            return plain, None
        return plain, sep_gaps(y, groups, socio.low[name], effort=socio.effort, **common)


def _value(ctx: AuditContext, row: Any) -> Value:
    if math.isnan(row["gap"]):
        return Value.missing(row["note"] or "no rows", n=int(row["n_target"]))
    return Value(
        row["gap"], row["ci_low"], row["ci_high"], ctx.config.confidence, "influence function",
        int(row["n_target"]), reason=row["note"],
    )  # fmt: skip


def _gaps(ctx: AuditContext, socio: Socio, crossing: Crossing, name: str, slug: str) -> Table:
    series = [(m.name, m.decisions) for m in ctx.models]
    if ctx.labels is not None:
        series.append((OUTCOME, ctx.labels))
    found = {who: _frames(ctx, socio, crossing, d, name) for who, d in series}
    rows, marks, notes = [], [], []
    for k, group in enumerate(crossing.names):
        for j, (who, (plain, conditional)) in enumerate(found.items()):
            row = plain.loc[group]
            cells: list[Any] = [
                group, who, int(row["n_target"]), row["rate_target"], _value(ctx, row),
                row["dp_part"], row["ses_part"],
            ]  # fmt: skip
            if conditional is not None:
                cells += [int(conditional.loc[group]["n_target"]),
                          _value(ctx, conditional.loc[group])]  # fmt: skip
            if row["note"]:
                notes.append(f"{group}: {row['note']}.")
            rows.append(tuple(cells))
            marks.append("first" if j == 0 and k else "")
    columns = [
        Column("group", crossing.name, "label"),
        Column("model", "Decisions", "text"),
        Column("n_target", "Underprivileged rows", "count"),
        Column("rate_target", "Selected of them", "number"),
        Column("gap", "SEP gap", "value"),
        Column("dp_part", "of it: group", "number"),
        Column("ses_part", "of it: status inside it", "number"),
    ]
    if socio.effort is not None:
        columns += [
            Column("n_effort", "of them with effort", "count"),
            Column("csep", "CSEP gap", "value"),
        ]
    return Table(
        f"sep-{slug}-{ctx.crossing_id(crossing)}-brief",
        f"Underprivileged ({socio.words[name]}) members of each group, {crossing.name}",
        tuple(columns),
        tuple(rows),
        tuple(dict.fromkeys(notes)),
        tuple(marks),
    )


# -- effort -----------------------------------------------------------------------------------
def _curve(
    ctx: AuditContext, socio: Socio, crossing: Crossing, model: AuditedModel, name: str
) -> Any:
    from privfair.fairness.sep import effort_curve

    def make() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrivfairWarning)
            return effort_curve(
                model.decisions.astype(np.int64), socio.hours, socio.low[name],
                {crossing.name: np.array(crossing.names, dtype=object)[crossing.codes]},
                min_group=max(1, ctx.config.min_count),
            )  # fmt: skip

    return ctx.cached(("effort", crossing.attributes, model.id, name), make)


def _returns(ctx: AuditContext, socio: Socio, crossing: Crossing, name: str, slug: str) -> Table:
    rows = []
    for group in crossing.names:
        for model in ctx.models:
            found = _curve(ctx, socio, crossing, model, name).summary.loc[group]
            rows.append(
                (
                    group, model.name, found["standardised_gap"], found["share_covered"],
                    100 * found["return_low"], 100 * found["return_high"],
                    found["flag"] or "",
                )
            )  # fmt: skip
    return Table(
        f"sep-effort-{slug}-{ctx.crossing_id(crossing)}",
        f"Return to effort ({socio.hours_name}) by status ({socio.words[name]}), {crossing.name}",
        (
            Column("group", crossing.name, "label"),
            Column("model", "Decisions", "text"),
            Column("standardised_gap", "Gap of status at equal effort", "number"),
            Column("share_covered", "Share of rows covered", "number"),
            Column("return_low", "Return, low status", "number"),
            Column("return_high", "Return, high status", "number"),
            Column("flag", "Flag", "text"),
        ),
        tuple(rows),
        (
            "Gap at equal effort: selection rate of high less low status in each bin of effort, "
            "averaged with the shares of all rows. Return: percentage points of selection per "
            "unit of effort; flagged where that of low status is negative or less than half.",
        ),
        collapsed=True,
    )


def _curves_figure(ctx: AuditContext, socio: Socio, crossing: Crossing) -> Figure:
    name = next(iter(socio.low))
    frame = _curve(ctx, socio, crossing, ctx.subject, name).curve
    panels: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for group in crossing.names[:MAX_PANELS]:
        part = frame.loc[group]
        bins = [str(b) for b in part.index]
        title = f"{crossing.name}: {group}"
        panels.append(
            {
                "title": title, "x_label": socio.hours_name, "y_label": "selection rate",
                "markers": True, "x_limits": [-0.4, len(bins) - 0.6],
                "x_ticks": [[float(k), b] for k, b in enumerate(bins)],
            }
        )  # fmt: skip
        for status, column in (("high status", "rate_high"), ("low status", "rate_low")):
            for k, (label, row) in enumerate(part.iterrows()):
                rows.append((title, status, float(k), row[column], str(label),
                             int(row[column.replace("rate", "n")])))  # fmt: skip
    return Figure(
        "fig-effort",
        "lines",
        f"Selection of {ctx.subject.name} by effort, for low and for high status",
        f"For each bin of {socio.hours_name} and each group, the selection rate of people of high "
        f"and of low status ({socio.words[name]} is low). Bins with few rows have no mark.",
        Table(
            "fig-effort-data",
            "Effort curves",
            (
                Column("panel", "Group", "label"),
                Column("series", "Status"),
                Column("x", "Place on the axis", "number"),
                Column("y", "Selection rate", "number"),
                Column("bin", socio.hours_name, "text"),
                Column("n", "Rows", "count"),
            ),
            tuple(rows),
        ),
        {"panels": panels, "square": False, "height": 210},
    )


# -- findings ---------------------------------------------------------------------------------
def _findings(
    ctx: AuditContext, socio: Socio, crossing: Crossing, model: AuditedModel, name: str, slug: str
) -> list[Finding]:
    from privfair.fairness.sep import csep_violation, sep_violation

    wanted: list[tuple[str, Any, dict[str, Any]]] = [("sep", sep_violation, {})]
    if socio.effort is not None:
        wanted.append(("csep", csep_violation, {"effort": socio.effort}))
    key = ctx.crossing_id(crossing)
    out = []
    for code, metric, more in wanted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrivfairWarning)
            e = metric.estimate(
                None, model.decisions.astype(np.int64),
                sensitive_features={
                    crossing.name: np.array(crossing.names, dtype=object)[crossing.codes]
                },
                ses=socio.low[name], min_group=max(1, ctx.config.min_count),
                confidence=ctx.config.confidence, n_resamples=ctx.config.n_resamples,
                random_state=ctx.seed_for("sep", code, crossing.name, name), **more,
            )  # fmt: skip
        value = Value.of(e)
        who = "" if not e.attained_by else f" Largest for {e.attained_by[0]}."
        text = (
            f"Underprivileged ({socio.words[name]}) members of a group against everybody"
            f"{', among those who show effort' if code == 'csep' else ''}.{who}"
        )
        if not value.shown:
            text = f"Not estimable: {e.reason}."
        null = None
        if e.null is not None:
            null = {"expected": e.null.expected, "q95": e.null.q95, "p_value": e.null.p_value}
        out.append(
            Finding(
                ctx.finding_id(f"fairness.{code}.{slug}.{key}", model), "note", text,
                f"{code.upper()} violation, {crossing.name}, {socio.words[name]}"
                + (f" ({model.name})" if len(ctx.models) > 1 else ""),
                value, f"sep/sep-{slug}-{key}-brief", model.id, null=null,
                attained_by=tuple(str(a) for a in e.attained_by or ()),
            )
        )  # fmt: skip
    return out
