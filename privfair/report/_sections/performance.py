"""Accuracy, discrimination and calibration: over all rows and within each group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import Estimate
from privfair.core.statistics import wilson_interval
from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import LABELS, by_group, estimates
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._numbers import number

__all__ = ["build"]

METRICS = (
    "accuracy", "balanced_accuracy", "auc", "brier_score", "log_loss",
    "expected_calibration_error",
)  # fmt: skip
MAX_FIGURES = 2
POINTS = 26


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    overall = {m.id: estimates(ctx, m, None, METRICS) for m in ctx.models}
    tables = [_overall(ctx, overall)]
    blocks = [Block("table", tables[0].id)]
    figures: list[Figure] = []
    for crossing in ctx.singles():
        tables.append(_groups(ctx, crossing))
        blocks.append(Block("table", tables[-1].id))
    scored = [m for m in ctx.models if m.scores is not None]
    if ctx.config.min_cell is not None:
        scored = []  # curves of a group are made of counts that may be small
    # One model's curves: those of the others differ by what the tables say in numbers.
    for crossing in list(ctx.singles())[:MAX_FIGURES] if scored else ():
        figures.append(_curves(ctx, scored[0], crossing))
        blocks.append(Block("figure", figures[-1].id))
    if len(scored) > 1:
        blocks.append(Block("note", text=ctx.text("performance.one", name=scored[0].name)))
    ranked = [m.name for m in ctx.models if m.scores is not None and not m.probability]
    caveats = []
    if ctx.private:
        caveats.append(
            "AUC, Brier score, log loss, calibration and score curves are left out: they read "
            "scores, and only tables of group, label and decision were released."
        )
    if ctx.config.min_cell is not None:
        caveats.append(
            "Calibration, ROC and score curves are left out: points on them are small counts."
        )
    if ranked:
        caveats.append(
            f"The scores of {', '.join(ranked)} only order rows: they are no probabilities, and "
            "no calibration is computed."
        )
    return SectionResult(
        "performance",
        ctx.text("section.performance"),
        lead=ctx.text("performance.lead"),
        findings=tuple(_findings(ctx, overall)),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=tuple(caveats),
        method=(
            "Accuracy has a Wilson interval; the method of every other interval is in the JSON. "
            f"The calibration error uses {ctx.config.n_bins} bins of equal width on [0, 1]; it is "
            "biased upwards in small groups. Curves are drawn on a fixed grid, so that no single "
            "row can be read from them."
        ),
        references=(
            "Wilson 1927, Probable inference, the law of succession, and statistical inference.",
            "DeLong, DeLong, Clarke-Pearson 1988, Comparing the areas under two or more "
            "correlated receiver operating characteristic curves.",
            "Guo, Pleiss, Sun, Weinberger 2017, On calibration of modern neural networks, "
            "arXiv 1706.04599.",
            "Brier 1950, Verification of forecasts expressed in terms of probability.",
        ),
        blocks=tuple(blocks),
    )


def _overall(ctx: AuditContext, found: dict[str, dict[str, Estimate]]) -> Table:
    names = [n for n in METRICS if any(n in e for e in found.values())]
    rows = [
        (LABELS[n], *(Value.of(found[m.id][n]) if n in found[m.id] else None for m in ctx.models))
        for n in names
    ]
    columns = (Column(m.id, m.name, "value") for m in ctx.models)
    return Table(
        "performance-brief",
        f"Performance on {ctx.n:,} rows",
        (Column("measure", "Measure", "label"), *columns),
        tuple(rows),
    )


def _groups(ctx: AuditContext, crossing: Crossing) -> Table:
    several = len(ctx.models) > 1
    found = {m.id: estimates(ctx, m, crossing, METRICS) for m in ctx.models}
    names = [n for n in METRICS if any(n in e for e in found.values())]
    values = {(m.id, n): by_group(e) for m in ctx.models for n, e in found[m.id].items()}
    columns = [Column("group", crossing.name, "label")]
    columns += [Column("model", "Model", "text")] if several else []
    columns += [Column(n, LABELS[n], "value") for n in names]
    rows: list[tuple[Any, ...]] = []
    marks: list[str] = []
    for k, group in enumerate(crossing.names):
        for j, model in enumerate(ctx.models):
            cells = [
                values[(model.id, n)][k] if values.get((model.id, n)) else None for n in names
            ]
            rows.append((group, *([model.name] if several else []), *cells))
            marks.append("first" if several and j == 0 and k else "")
    return Table(
        f"performance-{ctx.crossing_id(crossing)}",
        f"Performance by {crossing.name}",
        tuple(columns),
        tuple(rows),
        marks=tuple(marks) if several else (),
    )


def _findings(ctx: AuditContext, found: dict[str, dict[str, Estimate]]) -> list[Finding]:
    out = []
    for model in ctx.models:
        for name, e in found[model.id].items():
            value = Value.of(e)
            text = f"{LABELS[name]} of {model.name} over all rows."
            if not value.shown:
                text = f"{LABELS[name]} of {model.name} is not estimable: {e.reason}."
            elif name == "accuracy" and ctx.labels is not None:
                share = float(estimates(ctx, model, None, ("base_rate",))["base_rate"].value)
                best = number(max(share, 1 - share))
                text += f" Always giving the commoner outcome reaches {best}."
            rank = 10 if name == "accuracy" and model is ctx.subject else 0
            code = {"expected_calibration_error": "ece", "brier_score": "brier"}.get(name, name)
            out.append(
                Finding(
                    ctx.finding_id(f"performance.{code}", model), "note", text,
                    LABELS[name] + (f", {model.name}" if len(ctx.models) > 1 else ""), value,
                    "performance/performance-brief", model.id, rank,
                )
            )  # fmt: skip
    return out


# -- curves -----------------------------------------------------------------------------------
def _curves(ctx: AuditContext, model: AuditedModel, crossing: Crossing) -> Figure:
    assert ctx.labels is not None and model.scores is not None
    rows: list[tuple[Any, ...]] = []
    low, high = (0.0, 1.0)
    if not model.probability:
        low, high = float(model.scores.min()), float(model.scores.max())
    shown: list[str] = []
    small: list[str] = []
    for k, name in enumerate(crossing.names):
        inside = crossing.codes == k
        y, s = ctx.labels[inside], model.scores[inside]
        if min(y.sum(), (~y).sum()) < ctx.config.min_pos or len(y) < ctx.config.min_count:
            small.append(name)
            continue
        if len(shown) == 6:
            small.append(name)
            continue
        shown.append(name)
        if model.probability:
            rows += _calibration(name, y, s, ctx)
        rows += _roc(name, y, s)
        grid = np.linspace(low, high, POINTS)
        share = np.searchsorted(np.sort(s), grid, side="right") / len(s)
        rows += [
            ("Scores", name, float(x), float(v), None) for x, v in zip(grid, share, strict=True)
        ]
    panels = [
        {"title": "ROC", "x_label": "false positive rate", "y_label": "true positive rate",
         "diagonal": "up", "x_limits": [0, 1], "y_limits": [0, 1.02]},
        {"title": "Scores", "x_label": "score", "y_label": "share of rows at or below",
         "steps": True, "x_limits": [low, high], "y_limits": [0, 1.02]},
    ]  # fmt: skip
    if model.probability:
        panels.insert(
            0,
            {"title": "Calibration", "x_label": "mean score in bin", "y_label": "observed rate",
             "diagonal": "up", "markers": True, "x_limits": [0, 1], "y_limits": [0, 1.02]},
        )  # fmt: skip
    what = "Calibration, ROC curve" if model.probability else "ROC curve"
    text = f"{what} and distribution of the scores within each group."
    if small:
        text += f" Not drawn, being small or beyond six: {', '.join(small)}."
    key = f"{model.id}-{ctx.crossing_id(crossing)}"
    return Figure(
        f"fig-scores-{key}",
        "lines",
        f"Scores of {model.name} by {crossing.name}",
        text,
        Table(
            f"fig-scores-{key}-data",
            "Curves by group",
            (
                Column("panel", "Panel", "label"),
                Column("series", crossing.name),
                Column("x", "x", "number"),
                Column("y", "y", "number"),
                Column("n", "Rows", "count"),
            ),
            tuple(rows),
        ),
        {"panels": panels},
    )


def _calibration(
    name: str, y: NDArray[np.bool_], s: NDArray[np.float64], ctx: AuditContext
) -> list[tuple[Any, ...]]:
    bins = np.minimum((s * ctx.config.n_bins).astype(int), ctx.config.n_bins - 1)
    n = np.bincount(bins, minlength=ctx.config.n_bins)
    hits = np.bincount(bins, weights=y, minlength=ctx.config.n_bins)
    total = np.bincount(bins, weights=s, minlength=ctx.config.n_bins)
    rate = wilson_interval(hits, n, confidence=ctx.config.confidence)
    return [
        ("Calibration", name, float(total[k] / n[k]), float(rate.value[k]), int(n[k]))
        for k in range(ctx.config.n_bins)
        if n[k] >= ctx.config.min_count
    ]


def _roc(name: str, y: NDArray[np.bool_], s: NDArray[np.float64]) -> list[tuple[Any, ...]]:
    order = np.argsort(-s, kind="stable")
    sorted_scores = s[order]
    ends = np.flatnonzero(np.diff(sorted_scores, append=-np.inf))
    tpr = np.concatenate([[0.0], np.cumsum(y[order])[ends] / y.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(~y[order])[ends] / (~y).sum()])
    grid = np.concatenate([np.linspace(0, 0.1, 9)[:-1], np.linspace(0.1, 1, POINTS - 8)])
    return [
        ("ROC", name, float(x), float(v), None)
        for x, v in zip(grid, np.interp(grid, fpr, tpr), strict=True)
    ]
