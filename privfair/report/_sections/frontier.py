"""How accurate decisions can be at each disparity: what is a bound, and what is within reach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.randomness import check_random_state
from privfair.core.statistics import multinomial_resamples
from privfair.report._context import AuditContext, Crossing
from privfair.report._frontier import (
    ACCESS,
    METHOD,
    Curve,
    curve_of,
    disparity,
    information,
    interval_of,
    oracle_of,
    rule_of,
)
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._numbers import number
from privfair.report._parity import most_cost

__all__ = ["build", "table_of"]

Floats = NDArray[np.float64]
ORACLE = "bound, not achievable"
BINS = 10
MAX_RESAMPLES = 200
MAX_PANELS = 3
SETTLED = 1e-7
MIN_KNOWN = 0.9


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    title = ctx.text("section.frontier")
    if ctx.private:
        return SectionResult("frontier", title, "not_applicable", ctx.text("frontier.private"))
    crossings = [c for c in ctx.singles() if len(c.labels) > 1]
    if not crossings:
        reason = "Fewer than two groups of each attribute are large enough to be shown."
        return SectionResult("frontier", title, "insufficient_data", reason)
    tables, blocks, findings = [], [], []
    panels: list[tuple[Crossing, Curve]] = []
    for crossing in crossings:
        curve = _curve(ctx, crossing, "global")
        panels.append((crossing, curve))
        blocks.append(Block("heading", text=crossing.name))
        tables.append(_models(ctx, crossing))
        tables.append(_points(ctx, crossing, curve))
        blocks += [Block("table", t.id) for t in tables[-2:]]
        findings += _findings(ctx, crossing, tables[-2])
    if ctx.clients is not None and ctx.clients.several:
        first = crossings[0]
        curve = _curve(ctx, first, "local")
        panels.append((first, curve))
        tables.append(_points(ctx, first, curve))
        blocks += [Block("heading", text=f"{first.name}, within clients"),
                   Block("table", tables[-1].id)]  # fmt: skip
    figure = _figure(ctx, panels)
    return SectionResult(
        "frontier",
        title,
        lead=ctx.text("frontier.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=(figure,),
        caveats=(
            ctx.text("frontier.caveat_rows"),
            ctx.text("frontier.caveat_access"),
            *((ctx.config.client_note,) if ctx.clients and ctx.config.client_note else ()),
        ),
        method=(
            "For each bound on the information about the group in the decisions (bits): the "
            "oracle is the most accurate relabelling of these rows that keeps it, and knows the "
            "labels; the curves within reach are the best randomised rules on this model's "
            f"decision and its score in {BINS} bins of equal frequency. Each answer carries a "
            "proof: no better one exists beyond the gap shown. A price is the slope of accuracy, "
            "per hundredth of a bit. Intervals are bootstrap ones "
            f"({_resamples(ctx)} multinomial resamples of the table, each solved again), normal, "
            "and wide enough for no bias as for all bias that the resamples show: rules that are "
            "found on rows fit their noise. The upper end of the cost by score alone is at least "
            "the largest limit over prices of the demand (a search along lines, which hold all "
            "prices if there are two groups), which also holds where the groups have almost the "
            "same scores."
        ),
        references=(
            "Hamman, Dutta 2024, Demystifying local and global fairness trade-offs in federated "
            "learning using partial information decomposition, arXiv 2307.11333.",
            "Kim, Chen, Talwalkar 2020, FACT: a diagnostic for group fairness trade-offs, "
            "arXiv 2004.03424.",
            "Goulart, Chen 2024, Clarabel, arXiv 2405.12762.",
            "Anderson, Rubin 1949, Estimation of the parameters of a single equation in a "
            "complete system of stochastic equations.",
        ),
        blocks=(Block("figure", figure.id), *blocks),
    )


def _curve(ctx: AuditContext, crossing: Crossing, which: str) -> Curve:
    """Return the frontier of the subject, from no information to where labels and models are."""
    reach = 0.0
    for model in ctx.models:
        table = crossing.counts(model.decisions).astype(float)[:, None]
        reach = max(reach, disparity(table if which == "global" else
                                     _decided(ctx, crossing, model), which))  # fmt: skip
    return curve_of(table_of(ctx, crossing, ctx.subject)[0], which, reach=reach)


# -- tables of probabilities ------------------------------------------------------------------
def table_of(
    ctx: AuditContext, crossing: Crossing, model: AuditedModel
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return counts by group, client, label and response, and which responses accept.

    A response is a decision and a score bin: so the model itself is one of the rules.
    """
    assert ctx.labels is not None
    inside = crossing.codes >= 0
    clients = np.zeros(ctx.n, dtype=np.int64) if ctx.clients is None else ctx.clients.codes
    n_clients = 1 if ctx.clients is None else len(ctx.clients.labels)
    bins = np.zeros(ctx.n, dtype=np.int64)
    if model.scores is not None:
        edges = np.unique(np.quantile(model.scores, np.arange(1, BINS) / BINS))
        bins = np.searchsorted(edges, model.scores, side="right")
    seen, response = np.unique(bins * 2 + model.decisions, return_inverse=True)
    shape = (len(crossing.labels), n_clients, 2, len(seen))
    code = np.ravel_multi_index(
        (crossing.codes[inside], clients[inside], ctx.labels[inside].astype(int),
         response.ravel()[inside]), shape,
    )  # fmt: skip
    counts = np.bincount(code, minlength=math.prod(shape)).reshape(shape)
    return counts.astype(np.int64), seen % 2 == 1


# -- tables -----------------------------------------------------------------------------------
def _points(ctx: AuditContext, crossing: Crossing, curve: Curve) -> Table:
    where = "" if curve.which == "global" else "-local"
    rows = [
        (
            point.bound, point.oracle, _cents(point.oracle_price),
            *(cell for access in ACCESS
              for cell in (point.accuracy(access), _cents(point.price(access)))),
            *point.losses("blind"), point.gap, point.status,
        )
        for point in curve.points
    ]  # fmt: skip
    columns = [
        Column("bound", "Bound, bits", "number"),
        Column("oracle", "Accuracy: bound, not achievable", "number"),
        Column("oracle_price", "Price", "number"),
    ]
    for access, title in ACCESS.items():
        columns.append(Column(access, f"Accuracy: {title}", "number"))
        columns.append(Column(f"{access}_price", "Price", "number"))
    columns += [
        Column(f"error_{k}", f"Error of {name}", "number") for k, name in enumerate(crossing.names)
    ]
    columns += [Column("gap", "Proven to", "number"), Column("status", "Solver", "text")]
    kind = "over all rows" if curve.which == "global" else "within clients, on average"
    return Table(
        f"frontier{where}-{ctx.crossing_id(crossing)}",
        f"Best accuracy at each bound on the information about {crossing.name} {kind}",
        tuple(columns),
        tuple(rows),
        (
            f"The labels themselves carry {number(curve.label_bits)} bits, beyond which the "
            "oracle loses nothing. Price: slope of the accuracy, per 0.01 bit; at 0 it has no "
            "limit. "
            "Errors are those of the rule that sees the score only.",
            *ctx.note_of_suppressed(crossing),
        ),
        collapsed=True,
    )


def _cents(price: float) -> float | None:
    return price / 100 if math.isfinite(price) else None


def _resamples(ctx: AuditContext) -> int:
    return min(ctx.config.n_resamples, MAX_RESAMPLES)


def _models(ctx: AuditContext, crossing: Crossing) -> Table:
    """Place every model below its own frontier; intervals for the subject."""
    rows = []
    for model in ctx.models:
        mine, accept = table_of(ctx, crossing, model)
        p = mine / mine.sum()
        accuracy, bits = _place(ctx, crossing, model)
        found = _distances(p, accuracy, bits)
        if model is ctx.subject:
            values = _bootstrap(ctx, crossing, mine, accept, found)
        else:
            values = [_unsolved() if v is None else Value(v, n=int(mine.sum())) for v in found]
        best = oracle_of(p.sum(axis=3), "global", bits)
        rows.append((model.name, accuracy, bits, None if best is None else best.accuracy, *values))
    return Table(
        f"frontier-models-{ctx.crossing_id(crossing)}-brief",
        f"The models and what is within their reach, {crossing.name}",
        (
            Column("model", "Model", "label"),
            Column("accuracy", "Accuracy", "number"),
            Column("bits", "Information about the group, bits", "number"),
            Column("bound", "Bound on accuracy there (not achievable)", "number"),
            Column("distance", "Accuracy within reach there, more", "value"),
            Column("parity", "Cost of no information, by score alone", "value"),
            Column("parity_group", "Cost of no information, with the group", "value"),
        ),
        tuple(rows),
        (
            "'More': what the best rule on the model's own score gains at the same information. "
            "'Cost': accuracy of the model less that of the best rule that carries none; below 0 "
            "such a rule is more accurate than the model. By score alone: the rule does not see "
            "the group.",
        ),
    )


def _place(ctx: AuditContext, crossing: Crossing, model: AuditedModel) -> tuple[float, float]:
    assert ctx.labels is not None
    inside = crossing.codes >= 0
    right = float((model.decisions == ctx.labels)[inside].mean())
    return right, information(crossing.counts(model.decisions).astype(float))


def _distances(p: Floats, accuracy: float, bits: float) -> tuple[float | None, ...]:
    """Return what is within reach at these bits, and the cost of none, without and with Z."""
    there = rule_of(p, "global", bits, "blind")
    none = [rule_of(p, "global", 0.0, access) for access in ("blind", "client_blind")]
    gain = None if there is None else float(there.accuracy) - accuracy
    return (
        None if gain is None else max(0.0, _settled(gain)),
        *(None if r is None else _settled(accuracy - float(r.accuracy)) for r in none),
    )


def _settled(value: float) -> float:
    """Return 0 for what is below the solver's own accuracy."""
    return 0.0 if abs(value) < SETTLED else value


def _unsolved() -> Value:
    return Value.missing("the solver had no answer that passes its checks")


def _bootstrap(
    ctx: AuditContext,
    crossing: Crossing,
    cells: NDArray[np.int64],
    accept: NDArray[np.bool_],
    found: tuple[float | None, ...],
) -> list[Value]:
    """Resample the table, place the model and solve again."""
    rng = check_random_state(ctx.seed_for("frontier", crossing.name))
    n = int(cells.sum())
    draws = []
    for table in multinomial_resamples(cells, _resamples(ctx), rng):
        p = table / n
        if (p.sum(axis=(1, 2, 3)) == 0).any():
            continue
        decided = np.stack([p[..., ~accept].sum(axis=(1, 3)), p[..., accept].sum(axis=(1, 3))], -1)
        right = decided[:, 0, 0].sum() + decided[:, 1, 1].sum()
        bits = information(decided.sum(axis=1))
        draws.append(_distances(p, float(right), bits))
    out = []
    for k, value in enumerate(found):
        known = np.array([d[k] for d in draws if d[k] is not None], dtype=float)
        if value is None or len(known) < MIN_KNOWN * len(draws):
            out.append(_unsolved())
            continue
        low, high = interval_of(known, value, ctx.config.confidence)
        low = max(0.0, low) if k == 0 else low  # the model itself is within reach
        if k == 1:  # where groups have almost the same scores, resamples do not tell enough
            high = max(high, min(1.0, most_cost(cells, accept, ctx.config.confidence)))
        out.append(Value(value, low, high, ctx.config.confidence, METHOD, n))
    return out


# -- findings ---------------------------------------------------------------------------------
def _findings(ctx: AuditContext, crossing: Crossing, table: Table) -> list[Finding]:
    key = ctx.crossing_id(crossing)
    out = []
    for model, row in zip(ctx.models, table.rows, strict=True):
        name = f" ({model.name})" if len(ctx.models) > 1 else ""
        for code, at, label, text in (
            ("distance", 4, "Accuracy within reach",
             "More accuracy at the same information about the group, by a rule on this score."),
            ("parity", 5, "Cost of no information",
             "Accuracy less that of the best rule on this score that carries no information."),
            ("parity_group", 6, "Cost of no information, with the group",
             "Accuracy less that of the best rule that carries none and may see the group."),
        ):  # fmt: skip
            out.append(
                Finding(
                    ctx.finding_id(f"fairness.frontier.{code}.{key}", model), "note", text,
                    f"{label}, {crossing.name}{name}", row[at], f"frontier/{table.id}", model.id,
                )
            )  # fmt: skip
    return out


# -- figure -----------------------------------------------------------------------------------
def _figure(ctx: AuditContext, curves: list[tuple[Crossing, Curve]]) -> Figure:
    panels: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for crossing, curve in curves[-MAX_PANELS:] if len(curves) > MAX_PANELS else curves:
        title = crossing.name + ("" if curve.which == "global" else ", within clients")
        here: list[dict[str, Any]] = []
        for k, model in enumerate(ctx.models, 1):
            accuracy, bits = _place(ctx, crossing, model)
            if curve.which == "local":
                assert ctx.clients is not None
                bits = disparity(_decided(ctx, crossing, model), "local")
            here.append({"x": bits, "y": accuracy, "label": str(k)})
        top = max([curve.label_bits, *(float(m["x"]) for m in here)]) or 1.0
        panels.append(
            {
                "title": title, "x_label": "information about the group, bits",
                "y_label": "accuracy", "markers": True, "points": _labelled(here, top),
                "x_limits": [-0.04 * top, 1.2 * top],
            }
        )  # fmt: skip
        rows += [(title, ORACLE, q.bound, q.oracle) for q in curve.points]
        for access, name in ACCESS.items():
            rows += [(title, name, q.bound, q.accuracy(access)) for q in curve.points]
        rows += [
            (title, f"{m['label']}: {model.name}", m["x"], m["y"])
            for m, model in zip(here, ctx.models, strict=True)
        ]
    named = ", ".join(f"{k} {m.name}" for k, m in enumerate(ctx.models, 1))
    return Figure(
        "fig-frontier",
        "lines",
        "Best accuracy at each disparity, and where the models are",
        "Accuracy against information about the group in the decisions. The uppermost curve "
        "knows the labels: a bound, not achievable. The others are the best rules on the score of "
        f"{ctx.subject.name}. Diamonds are the models as they are: {named}.",
        Table(
            "fig-frontier-data",
            "Frontier",
            (
                Column("panel", "Panel", "label"),
                Column("series", "Curve"),
                Column("x", "Information, bits", "number"),
                Column("y", "Accuracy", "number"),
            ),
            tuple(rows),
        ),
        {"panels": panels, "series": [ORACLE, *ACCESS.values()]},
    )


def _labelled(points: list[dict[str, Any]], top: float) -> list[dict[str, Any]]:
    """Give points that are drawn on each other one label."""
    out: list[dict[str, Any]] = []
    for point in points:
        near = [q for q in out if abs(q["x"] - point["x"]) < 0.08 * top
                and abs(q["y"] - point["y"]) < 0.02]  # fmt: skip
        if near:
            near[0]["label"] += f", {point['label']}"
            out.append({**point, "label": ""})
        else:
            out.append(dict(point))
    return out


def _decided(ctx: AuditContext, crossing: Crossing, model: AuditedModel) -> Floats:
    assert ctx.clients is not None
    inside = crossing.codes >= 0
    shape = (len(crossing.labels), len(ctx.clients.labels), 2)
    code = np.ravel_multi_index(
        (crossing.codes[inside], ctx.clients.codes[inside], model.decisions[inside].astype(int)),
        shape,
    )
    return np.bincount(code, minlength=math.prod(shape)).reshape(shape).astype(float)
