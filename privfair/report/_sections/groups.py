"""Rates within each group, gaps between groups, and how the models differ in both."""

from __future__ import annotations

from typing import Any

from privfair.core.estimate import Estimate
from privfair.core.statistics import holm
from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import (
    DISPARITIES,
    LABELS,
    RATES,
    by_group,
    code_of,
    estimates,
    gaps,
    label,
)
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._numbers import number

__all__ = ["adjusted_p", "build", "disparity_finding", "gaps_table"]

_UNBOUNDED = {"treatment_equality_difference"}
_PANELS = (
    "selection_rate", "true_positive_rate", "false_positive_rate", "positive_predictive_value",
)  # fmt: skip


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    tables: list[Table] = []
    findings: list[Finding] = []
    blocks: list[Block] = []
    figures = [_rates_figure(ctx), _forest_figure(ctx)]
    blocks += [Block("figure", f.id) for f in figures]
    found = {(c.name, m.id): gaps(ctx, m, c) for c in ctx.singles() for m in ctx.models}
    adjusted = adjusted_p(found)
    for k, crossing in enumerate(ctx.singles()):
        blocks.append(Block("heading", text=crossing.name))
        rates = _rates(ctx, crossing)
        differences = gaps_table(ctx, crossing, found, adjusted)
        tables += [rates, differences]
        blocks += [Block("table", rates.id), Block("table", differences.id)]
        for model in ctx.models:
            for e in found[crossing.name, model.id].values():
                findings.append(disparity_finding(ctx, model, crossing, e, k))
    return SectionResult(
        "groups",
        ctx.text("section.groups"),
        lead=ctx.text("groups.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=_caveats(ctx),
        method=_METHOD.format(level=f"{100 * ctx.config.confidence:g}", n=ctx.config.n_resamples),
        references=_REFERENCES,
        blocks=tuple(blocks),
    )


_METHOD = (
    "Rates have Wilson intervals at {level} %. The interval of a gap is simultaneous over all "
    "pairs of groups (Newcombe limits at the Tukey-Kramer critical value; ratios with Koopman's "
    "score; with fewer than ten cases in a group, seen or expected, the wider of these and limits "
    "from Clopper and Pearson's), because the widest pair is picked after looking, and it can "
    "reach zero. Its level is approximate; in simulations without disparity it excluded zero in "
    "up to about 6 % of data sets. The null reference permutes decisions among rows ({n} "
    "permutations); p counts the observed gap among them. 'p, Holm' holds for all gaps of one "
    "model in this section together. A group whose rate has no denominator is not covered, and "
    "the note says so; it is never taken as zero."
)
_REFERENCES = (
    "Hardt, Price, Srebro 2016, Equality of Opportunity in Supervised Learning, arXiv 1610.02413.",
    "Dwork et al. 2012, Fairness through awareness, arXiv 1104.3913.",
    "Chouldechova 2017, Fair prediction with disparate impact, arXiv 1703.00056.",
    "Newcombe 1998, Interval estimation for the difference between independent proportions.",
    "Koopman 1984, Confidence intervals for the ratio of two binomial proportions.",
    "Hayter 1984, A proof of the conjecture that the Tukey-Kramer method is conservative.",
    "Holm 1979, A simple sequentially rejective multiple test procedure.",
)


def _caveats(ctx: AuditContext) -> tuple[str, ...]:
    small = []
    for crossing in ctx.singles():
        for name, n in zip(crossing.names, ctx.sizes(crossing), strict=True):
            if n < ctx.config.min_count:
                small.append(f"{name} ({n} rows)")
    out = []
    if small:
        out.append(
            f"Fewer than {ctx.config.min_count} rows: {', '.join(small)}. Gaps over all groups "
            "are driven by such groups; compare each gap with its null reference."
        )
    out.append(
        "With unequal base rates, error rates and precision cannot all be equal unless the "
        "decisions are perfect (Chouldechova 2017; Kleinberg, Mullainathan, Raghavan 2016)."
    )
    return tuple(out)


# -- rates ------------------------------------------------------------------------------------
def _rates(ctx: AuditContext, crossing: Crossing) -> Table:
    several = len(ctx.models) > 1
    found = {m.id: estimates(ctx, m, crossing, RATES) for m in ctx.models}
    names = list(found[ctx.subject.id])
    columns = [Column("group", crossing.name, "label")]
    columns += [Column("model", "Model", "text")] if several else []
    columns.append(Column("n", "Rows", "count"))
    columns += [Column(name, LABELS[name], "value") for name in names]
    sizes = ctx.sizes(crossing)
    rows: list[tuple[Any, ...]] = []
    marks: list[str] = []
    values = {
        (m.id, name): by_group(found[m.id][name]) for m in ctx.models for name in found[m.id]
    }
    for k, group in enumerate(crossing.names):
        for j, model in enumerate(ctx.models):
            head = [group, model.name] if several else [group]
            cells = [_at(values[(model.id, name)], k) for name in names]
            rows.append((*head, sizes[k], *cells))
            marks.append("first" if several and j == 0 and k else "")
    for j, model in enumerate(ctx.models):
        head = ["All rows", model.name] if several else ["All rows"]
        cells = [Value.of(found[model.id][name]) for name in names]
        rows.append((*head, ctx.n, *cells))
        marks.append("total" if j else "total")
    return Table(
        f"rates-{ctx.crossing_id(crossing)}-brief",
        f"Rates by {crossing.name}",
        tuple(columns),
        tuple(rows),
        ctx.note_of_suppressed(crossing),
        tuple(marks),
    )


def _at(values: list[Value], k: int) -> Value:
    """Return the value of a group; there is none if it would stand alone."""
    return values[k] if values else Value.missing("no other group is shown", "suppressed")


def _rates_figure(ctx: AuditContext) -> Figure:
    names = [n for n in _PANELS if n in estimates(ctx, ctx.subject, None, RATES)]
    rows = []
    for crossing in ctx.singles():
        found = {m.name: estimates(ctx, m, crossing, RATES) for m in ctx.models}
        for k, group in enumerate(crossing.names):
            for m in ctx.models:
                cells = [_at(by_group(found[m.name][name]), k) for name in names]
                rows.append((crossing.name, group, m.name, *cells))
    overall = {m.id: estimates(ctx, m, None, RATES) for m in ctx.models}
    panels = [
        {
            "key": name,
            "label": LABELS[name],
            "reference": [_number(overall[m.id][name].value) for m in ctx.models],
        }
        for name in names
    ]
    return Figure(
        "fig-rates",
        "dots",
        "Rates of each group" + (" under each model" if len(ctx.models) > 1 else ""),
        f"Marks are rates, lines their {100 * ctx.config.confidence:g} % intervals; dashed lines "
        "are the rates over all rows.",
        Table(
            "fig-rates-data",
            "Rates by group",
            (
                Column("attribute", "Attribute", "label"),
                Column("group", "Group"),
                Column("series", "Model"),
                *(Column(name, LABELS[name], "value") for name in names),
            ),
            tuple(rows),
        ),
        {"panels": panels, "series": [m.name for m in ctx.models]},
    )


def _number(value: float) -> float | None:
    return None if value != value else float(value)


# -- gaps -------------------------------------------------------------------------------------
Found = dict[tuple[str, str], dict[str, Estimate]]
"""Disparities by crossing and model, then by metric."""


def adjusted_p(found: Found) -> dict[tuple[str, str, str], float]:
    """Return p-values adjusted over all gaps of a model in these crossings."""
    out: dict[tuple[str, str, str], float] = {}
    for model in dict.fromkeys(m for _, m in found):
        keys, raw = [], []
        for (crossing, other), of in found.items():
            for name, e in of.items():
                if other == model and e.null is not None:
                    keys.append((crossing, model, name))
                    raw.append(e.null.p_value)
        out.update(zip(keys, holm(raw).tolist() if raw else [], strict=True))
    return out


def gaps_id(ctx: AuditContext, crossing: Crossing) -> str:
    """Return the identifier of a table of disparities; the short text shows the brief ones."""
    key = f"gaps-{ctx.crossing_id(crossing)}"
    return key if len(crossing.attributes) > 1 else f"{key}-brief"


def gaps_table(
    ctx: AuditContext, crossing: Crossing, found: Found, adjusted: dict[Any, float]
) -> Table:
    """Return the disparities of a crossing, with what chance alone would show."""
    several = len(ctx.models) > 1
    columns = [Column("measure", "Measure", "label")]
    columns += [Column("model", "Model", "text")] if several else []
    columns += [
        Column("value", "Value", "value"),
        Column("null_expected", "By chance, mean", "number"),
        Column("null_q95", "By chance, 95 %", "number"),
        Column("p", "p, Holm", "number"),
        Column("between", "Between", "text"),
    ]
    names = list(dict.fromkeys(n for m in ctx.models for n in found[crossing.name, m.id]))
    rows, marks, notes = [], [], []
    for k, name in enumerate(names):
        for j, model in enumerate(ctx.models):
            e = found[crossing.name, model.id].get(name)
            if e is None:
                continue
            head = [label(name), model.name] if several else [label(name)]
            null = e.null
            rows.append(
                (
                    *head,
                    Value.of(e),
                    None if null is None else null.expected,
                    None if null is None else null.q95,
                    adjusted.get((crossing.name, model.id, name)),
                    "" if e.attained_by is None else " – ".join(e.attained_by),
                )
            )
            marks.append("first" if several and j == 0 and k else "")
            if e.reason:
                who = f" ({model.name})" if several else ""
                notes.append(f"{label(name)}{who}: {e.reason}.")
    ratio = [label(n) for n in names if n.endswith("_ratio")]
    if ratio:
        notes.insert(
            0,
            f"For {' and '.join(ratio)} 1 means equality; their null column is the value above "
            "which 95 % of shuffled ratios lie.",
        )
    return Table(
        gaps_id(ctx, crossing),
        f"Disparities by {crossing.name}",
        tuple(columns),
        tuple(rows),
        tuple(dict.fromkeys(notes)),
        tuple(marks) if several else (),
    )


def _forest_figure(ctx: AuditContext) -> Figure:
    rows = []
    for crossing in ctx.singles():
        found = {m.id: gaps(ctx, m, crossing) for m in ctx.models}
        for name in DISPARITIES:
            if name.endswith("_ratio") or name in _UNBOUNDED:
                continue
            for m in ctx.models:
                e = found[m.id].get(name)
                if e is not None:
                    q95 = None if e.null is None else e.null.q95
                    rows.append((crossing.name, LABELS[name], m.name, Value.of(e), q95))
    return Figure(
        "fig-gaps",
        "forest",
        "Disparities and what chance alone would show",
        f"Marks are differences between groups, lines their {100 * ctx.config.confidence:g} % "
        "intervals. The grey bar reaches up to where 95 % of shuffled differences lie: a mark "
        "inside it cannot be told from no influence at all.",
        Table(
            "fig-gaps-data",
            "Disparities",
            (
                Column("attribute", "Attribute", "label"),
                Column("metric", "Measure"),
                Column("series", "Model"),
                Column("value", "Value", "value"),
                Column("null_q95", "By chance, 95 %", "number"),
            ),
            tuple(rows),
        ),
        {"series": [m.name for m in ctx.models], "x_label": "difference between groups"},
    )


# -- findings ---------------------------------------------------------------------------------
def disparity_finding(
    ctx: AuditContext, model: AuditedModel, crossing: Crossing, e: Estimate, place: int,
    section: str = "groups",
) -> Finding:  # fmt: skip
    """Return the finding of one disparity."""
    code = code_of(e.name)
    value = Value.of(e)
    tolerance = ctx.config.tolerances.get(e.name)
    severity = severity_of(e, tolerance)
    title = f"{label(e.name)}, {crossing.name}"
    if len(ctx.models) > 1:
        title += f" ({model.name})"
    rank = 0
    if model is ctx.subject and code in {"dpd", "eod"} and section == "groups":
        rank = (20 if place < 2 else 60) + 2 * place + (code == "eod")
    key = ctx.crossing_id(crossing)
    return Finding(
        ctx.finding_id(f"fairness.{code}.{key}", model),
        severity,
        _sentence(e, value, severity, tolerance),
        title,
        value,
        f"{section}/{gaps_id(ctx, crossing)}",
        model.id,
        rank,
        None if e.null is None else e.null.to_dict(),
        tuple(e.attained_by or ()),
    )


def severity_of(e: Estimate, tolerance: float | None) -> str:
    """Return "attention" where the whole interval is beyond the tolerance.

    A small sample needs more: a gap of small groups that chance alone shows is no finding.
    """
    value = Value.of(e)
    if tolerance is None or not value.shown or value.low is None or value.high is None:
        return "note"
    beyond = value.high < tolerance if e.name.endswith("_ratio") else value.low > tolerance
    known = value.status != "small_sample" or _beyond_chance(e)
    return "attention" if beyond and known else "note"


def _beyond_chance(e: Estimate) -> bool:
    """Return whether a gap is larger than 95 % of those that chance alone shows."""
    if e.null is None:
        return True
    return e.value < e.null.q95 if e.name.endswith("_ratio") else e.value > e.null.q95


def _where(e: Estimate) -> str:
    """Say between which groups the gap is, and for which pairs its interval holds."""
    if e.attained_by is None:
        return ""
    pair = f"{e.attained_by[0]} and {e.attained_by[1]}"
    if e.by_group is None or len(e.by_group) <= 2:
        return f"Between {pair}."
    most = "smallest" if e.name.endswith("_ratio") else "largest"
    text = f"The {most} over all pairs of groups, here {pair}"
    # The pair is picked after looking, so that an interval for it alone would be too narrow.
    return text + ("; the interval is simultaneous over all pairs." if "simultaneous" in e.method
                   else ".")  # fmt: skip


def _sentence(e: Estimate, value: Value, severity: str, tolerance: float | None) -> str:
    name = label(e.name)
    if not value.shown:
        return f"{name} is not estimable: {e.reason}."
    text = _where(e)
    if e.null is not None:
        side = "above" if e.name.endswith("_ratio") else "below"
        text += f" Without any influence of the group, 95 % of values would lie {side} "
        text += f"{number(e.null.q95)}."
    if severity == "attention":
        text += f" The whole interval is beyond the configured tolerance of {number(tolerance)}."
    return text.strip()
