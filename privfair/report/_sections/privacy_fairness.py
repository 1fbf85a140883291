"""Whom privacy costs what: a model at several epsilons against its twin without privacy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core._format import format_upper
from privfair.core.statistics import (
    crossed_change_interval,
    crossed_rate_interval,
    mean_interval,
    sidak_confidence,
)
from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import LABELS
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._sweep import TWIN, SweepDecisions

__all__ = ["build", "given"]

Bools = NDArray[np.bool_]
_RATES = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")
_CONTRASTED = ("accuracy", "true_positive_rate")
_SHORT = {
    "accuracy": "accuracy", "true_positive_rate": "tpr", "selection_rate": "selection_rate",
}  # fmt: skip
_GAPS = {
    "demographic_parity_difference": "dpd",
    "equalized_odds_difference": "eod",
}
_TITLES = {"Demographic parity difference": "DP gap", "Equalized odds difference": "EO gap"}
_NONE = "none (twin)"


def given(ctx: AuditContext) -> bool:
    """Whether a sweep was given."""
    return ctx.sweep is not None


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    title = ctx.text("section.privacy_fairness")
    if ctx.sweep is None:
        reason = "No models at several epsilons were given."
        return SectionResult("privacy_fairness", title, "not_applicable", reason)
    swept = ctx.sweep
    overall = _overall(ctx, swept)
    tables, findings, blocks = [overall], [], [Block("table", overall.id)]
    lines = _lines(overall)
    blocks.append(Block("figure", lines.id))
    dots: list[tuple[Any, ...]] = []
    for crossing in ctx.singles():
        if len(crossing.labels) < 2:
            continue
        table, rows, found = _by_group(ctx, swept, crossing)
        tables.append(table)
        dots += rows
        findings += found
    figures = [lines]
    if dots:
        figures.append(_dots(ctx, swept, dots))
        blocks += [Block("heading", text="Who bears the cost"), Block("figure", figures[-1].id)]
    blocks += [Block("table", t.id) for t in tables[1:]]
    return SectionResult(
        "privacy_fairness",
        title,
        lead=ctx.text("privacy_fairness.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=(
            _price(ctx, swept),
            ctx.text("privacy_fairness.caveat_selection"),
            ctx.text("privacy_fairness.caveat_gaps"),
        ),
        method=(
            f"{swept.sweep.n_runs} runs of each; run k starts alike at every epsilon, with noise "
            "of its own. Rates: Wilson intervals at the sample size that gives a binomial the "
            "variance found over runs and rows. Changes against the twin: run by run and row by "
            "row, variances over runs and over rows added, with the pseudo-rows of Agresti and "
            "Min. Gaps between groups: Student's t over runs, on these rows. The contrast of a "
            "group with all other rows is simultaneous over groups and epsilons (Sidak)."
        ),
        references=(
            "Bagdasaryan, Poursaeed, Shmatikov 2019, Differential privacy has disparate impact "
            "on model accuracy, arXiv 1905.12101.",
            "Agresti, Min 2005, Simple improved confidence intervals for comparing matched "
            "proportions, Statistics in Medicine 24(5).",
            "Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2).",
        ),
        blocks=tuple(blocks),
    )


# -- outcomes ---------------------------------------------------------------------------------
def _outcomes(ctx: AuditContext, decisions: Bools) -> dict[str, tuple[Bools, Bools]]:
    """Return, by rate, which rows count and what each run makes of every row."""
    every = np.ones(ctx.n, dtype=bool)
    if ctx.labels is None:
        return {"selection_rate": (every, decisions)}
    return {
        "accuracy": (every, decisions == ctx.labels),
        "selection_rate": (every, decisions),
        "true_positive_rate": (ctx.labels, decisions),
        "false_positive_rate": (~ctx.labels, decisions),
    }


def _value(ctx: AuditContext, found: Any, n: int, least: int) -> Value:
    if n == 0 or math.isnan(float(found.value)):
        return Value.missing(found.reason or "no rows", n=n)
    small = n < least
    return Value(
        float(found.value), float(found.low), float(found.high), found.confidence, found.method,
        n, "small_sample" if small else "ok",
        f"fewer than {least} records" if small else found.reason,
    )  # fmt: skip


def _least(ctx: AuditContext, rate: str) -> int:
    config = ctx.config
    return {
        "true_positive_rate": config.min_pos,
        "false_positive_rate": config.min_neg,
    }.get(rate, config.min_count)


# -- all rows ---------------------------------------------------------------------------------
def _overall(ctx: AuditContext, swept: SweepDecisions) -> Table:
    level = ctx.config.confidence
    names = [r for r in _RATES[:2] if ctx.labels is not None or r == "selection_rate"]
    crossings = [c for c in ctx.singles() if len(c.labels) > 1]
    gaps = [g for g in _GAPS if ctx.labels is not None or g != "equalized_odds_difference"]
    columns = [Column("epsilon", "epsilon", "label")]
    columns += [Column(r, LABELS[r], "value") for r in names]
    columns += [
        Column(f"{_GAPS[g]}_{ctx.crossing_id(c)}", f"{LABELS[g]}, {c.name}", "value")
        for c in crossings
        for g in gaps
    ]
    rows = []
    for epsilon, decisions in swept.decisions.items():
        cells: list[Any] = [_word(epsilon)]
        outcomes = _outcomes(ctx, decisions)
        for rate in names:
            counted, made = outcomes[rate]
            found = crossed_rate_interval(made[:, counted], confidence=level)
            cells.append(_value(ctx, found, int(counted.sum()), _least(ctx, rate)))
        for crossing in crossings:
            by = _gaps(outcomes, crossing)
            for gap in gaps:
                values = by[gap]
                if np.isnan(values).any():
                    cells.append(Value.missing("undefined in a run", n=ctx.n))
                    continue
                found = mean_interval(values, confidence=level)
                cells.append(_value(ctx, found, ctx.n, 0))
        rows.append(tuple(cells))
    return Table(
        "privacy-cost",
        "What privacy costs on all rows",
        tuple(columns),
        tuple(rows),
        (
            f"Means over {swept.sweep.n_runs} runs. Rates cover chance in training and rows, "
            "gaps chance in training only.",
        ),
    )


def _gaps(
    outcomes: dict[str, tuple[Bools, Bools]], crossing: Crossing
) -> dict[str, NDArray[np.float64]]:
    """Return the largest difference between groups, run by run."""
    spread = {}
    for rate in ("selection_rate", "true_positive_rate", "false_positive_rate"):
        if rate not in outcomes:
            continue
        counted, made = outcomes[rate]
        rates = []
        for k in range(len(crossing.labels)):
            rows = counted & (crossing.codes == k)
            rates.append(made[:, rows].mean(axis=1) if rows.any() else np.full(len(made), np.nan))
        table = np.stack(rates)
        spread[rate] = np.fmax.reduce(table) - np.fmin.reduce(table)
    out = {"demographic_parity_difference": spread["selection_rate"]}
    if "true_positive_rate" in spread:
        out["equalized_odds_difference"] = np.maximum(
            spread["true_positive_rate"], spread["false_positive_rate"]
        )
    return out


def _word(epsilon: float) -> str:
    return _NONE if epsilon == TWIN else f"{epsilon:g}"


def _lines(table: Table) -> Figure:
    names = [row[0] for row in table.rows]
    panels, rows = [], []
    for j, column in enumerate(table.columns[1:], 1):
        title = column.label
        for long, short in _TITLES.items():
            title = title.replace(long, short)
        panels.append(
            {
                "title": title, "x_label": "epsilon", "y_label": "", "markers": True,
                "x_limits": [-0.4, len(names) - 0.6],
                "x_ticks": [[float(k), _tick(n)] for k, n in enumerate(names)],
            }
        )  # fmt: skip
        for k, row in enumerate(table.rows):
            cell = row[j]
            rows.append((title, "mean over runs", float(k), cell.estimate, cell.low,
                         cell.high))  # fmt: skip
    return Figure(
        "fig-privacy-cost",
        "lines",
        "What privacy costs",
        "Accuracy, selection rate and gaps between groups (demographic parity, DP, and equalized "
        "odds, EO) at each epsilon, from the strongest "
        "privacy on the left to the twin without privacy on the right, with intervals.",
        Table(
            "fig-privacy-cost-data",
            "What privacy costs: data of the figure",
            (
                Column("panel", "Measure", "label"),
                Column("series", "Series"),
                Column("x", "Place on the axis", "number"),
                Column("y", "Mean", "number"),
                Column("low", "Low", "number"),
                Column("high", "High", "number"),
            ),
            tuple(rows),
        ),
        {"panels": panels, "square": False, "height": 150},
    )


def _tick(name: str) -> str:
    return "none" if name == _NONE else name


# -- groups -----------------------------------------------------------------------------------
def _by_group(
    ctx: AuditContext, swept: SweepDecisions, crossing: Crossing
) -> tuple[Table, list[tuple[Any, ...]], list[Finding]]:
    level = ctx.config.confidence
    base = _outcomes(ctx, swept.decisions[TWIN])
    names = [r for r in _RATES if r in base]
    contrasted = [r for r in _CONTRASTED if r in names] or names
    epsilons = swept.sweep.epsilons
    family = len(crossing.labels) * len(epsilons) * len(contrasted)
    joint = sidak_confidence(level, family)
    rows: list[tuple[Any, ...]] = []
    dots: list[tuple[Any, ...]] = []
    contrasts: dict[tuple[float, str], list[tuple[Value, str, Value]]] = {}
    for k, group in enumerate(crossing.names):
        inside = crossing.codes == k
        for epsilon in epsilons:
            outcomes = _outcomes(ctx, swept.decisions[epsilon])
            cells = []
            for rate in names:
                counted, made = outcomes[rate]
                at = counted & inside
                change = made[:, at].astype(float) - base[rate][1][:, at]
                found = crossed_change_interval(change, confidence=level)
                cells.append(_value(ctx, found, int(at.sum()), _least(ctx, rate)))
            others = (crossing.codes >= 0) & ~inside
            for rate in contrasted:
                counted, made = outcomes[rate]
                change = made.astype(float) - base[rate][1]
                found = crossed_change_interval(
                    change[:, counted & inside], change[:, counted & others], confidence=joint
                )
                apart = _value(ctx, found, int((counted & inside).sum()), _least(ctx, rate))
                own = cells[names.index(rate)]
                contrasts.setdefault((epsilon, rate), []).append((apart, group, own))
                cells.append(apart)
            rows.append((group, _word(epsilon), int(inside.sum()), *cells))
            dots.append((crossing.name, group, f"epsilon {_word(epsilon)}", *cells[: len(names)]))
    table = Table(
        f"privacy-cost-{ctx.crossing_id(crossing)}",
        f"Change against the twin without privacy by {crossing.name}",
        (
            Column("group", crossing.name, "label"),
            Column("epsilon", "epsilon", "text"),
            Column("n", "Rows", "count"),
            *(Column(r, f"{LABELS[r]}, change", "value") for r in names),
            *(
                Column(f"{r}_apart", f"{LABELS[r]}, change minus that of all others", "value")
                for r in contrasted
            ),
        ),
        tuple(rows),
        (
            "Negative numbers of accuracy and of true positive rate are losses under privacy. The "
            f"differences from all others are simultaneous: {family} intervals hold together.",
            *ctx.note_of_suppressed(crossing),
        ),
    )
    found = [_finding(ctx, crossing, r, e, v) for (e, r), v in contrasts.items()]
    return table, dots, [f for f in found if f is not None]


def _finding(
    ctx: AuditContext,
    crossing: Crossing,
    rate: str,
    epsilon: float,
    contrasts: list[tuple[Value, str, Value]],
) -> Finding | None:
    shown = [c for c in contrasts if c[0].shown and c[0].status == "ok"]
    if not shown:
        return None
    # The intervals are simultaneous over groups, so that the worst may be chosen.
    worst, group, own = min(shown, key=lambda c: float(c[0].estimate or 0.0))
    sure = min(shown, key=lambda c: float(c[0].high or 0.0))
    what = LABELS[rate].lower()
    if float(sure[0].high or 0.0) < 0:
        worst, group, own = sure
        text = (
            f"At epsilon {epsilon:g}, {what} of {crossing.name} = {group} changes by "
            f"{float(own.estimate or 0.0):+.3f} against the twin: the group loses more, or gains "
            "less, than all other rows together."
        )
    else:
        text = (
            f"At epsilon {epsilon:g}, no group of {crossing.name} is shown to lose more in "
            f"{what} than all other rows together; {group} comes nearest to it."
        )
    tolerance = ctx.config.tolerances.get("privacy_cost_gap")
    certain = tolerance is not None and float(worst.high or 0.0) < -tolerance
    return Finding(
        f"privacy_cost.{_SHORT[rate]}.{ctx.crossing_id(crossing)}.{_slug(epsilon)}",
        "attention" if certain else "note",
        text,
        f"Cost of privacy in {what}, {crossing.name}, epsilon {epsilon:g}",
        worst,
        f"privacy_fairness/privacy-cost-{ctx.crossing_id(crossing)}",
        rank=18 if epsilon == _nearest(ctx) else 0,
        attained_by=(group, "all others"),
    )


def _slug(epsilon: float) -> str:
    return f"epsilon_{epsilon:g}".replace(".", "_").replace("-", "_").replace("+", "")


def _nearest(ctx: AuditContext) -> float:
    """Return the epsilon of the sweep that is nearest to that of an audited model."""
    assert ctx.sweep is not None
    own = [m.privacy.epsilon for m in ctx.models
           if m.privacy is not None and math.isfinite(m.privacy.epsilon)]  # fmt: skip
    target = math.log(max(own[0], 1e-9)) if own else 0.0
    return min(ctx.sweep.sweep.epsilons, key=lambda e: abs(math.log(e) - target))


def _dots(ctx: AuditContext, swept: SweepDecisions, rows: list[tuple[Any, ...]]) -> Figure:
    names = [r for r in _RATES if ctx.labels is not None or r == "selection_rate"]
    shown = [r for r in names if r != "false_positive_rate"]
    series = [f"epsilon {_word(e)}" for e in swept.sweep.epsilons]
    return Figure(
        "fig-privacy-cost-groups",
        "dots",
        "Change against the twin without privacy, by group",
        "For each group and epsilon the mean change of accuracy, selection rate and true positive "
        "rate against the twin without privacy, with intervals over runs and rows. Left of the "
        "dashed line the rate is lower under privacy.",
        Table(
            "fig-privacy-cost-groups-data",
            "Change against the twin: data of the figure",
            (
                Column("attribute", "Attribute", "label"),
                Column("group", "Group", "label"),
                Column("series", "epsilon"),
                *(Column(r, f"{LABELS[r]}, change", "value") for r in names),
            ),
            tuple(rows),
        ),
        {
            "panels": [
                {"key": r, "label": f"{LABELS[r]}, change", "reference": [0.0]} for r in shown
            ],
            "series": series,
        },
    )


def _price(ctx: AuditContext, swept: SweepDecisions) -> str:
    """Say what the section itself costs the training rows."""
    sweep, private = swept.sweep, len(swept.sweep.epsilons) * swept.sweep.n_runs
    total = sweep.guarantee
    text = ctx.text("privacy_fairness.not_together")
    if total is None or total.unsafe:
        text += f" The {private} private ones have no joint certificate."
    else:
        seeded = " (SEEDED: not private against anyone who knows the seed)" if total.seeded else ""
        text += (
            f" The {private} private ones together are certified at epsilon "
            f"{format_upper(total.epsilon)}, delta {total.delta:.2g}{seeded}."
        )
    return text + (
        f" The {sweep.n_runs} twins are protected by nothing: whoever needs a certificate for "
        "these training rows must not publish this section."
    )
