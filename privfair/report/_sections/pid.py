"""Where a disparity comes from: in every client, in the mixture of clients, or hidden by it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import PrivfairError, PrivfairWarning
from privfair.report._context import AuditContext, Crossing
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._numbers import number

__all__ = ["build"]

PARTS = ("unique", "redundant", "masked", "global", "local")
_METRICS = dict(
    zip(
        ("unique_disparity", "redundant_disparity", "masked_disparity", "global_disparity",
         "local_disparity"),
        PARTS, strict=True,
    )
)  # fmt: skip
NAMES = {
    "unique": "Unique (U)",
    "redundant": "Redundant (R)",
    "masked": "Masked (M)",
    "global": "Global: U + R",
    "local": "Local: U + M",
}
_MEANS = {
    "unique": "in the decision itself, not explained by the client",
    "redundant": "carried by the client as well, seen only over all clients together",
    "masked": "opposite in different clients, so that it cancels over all of them",
    "global": "what the decision tells about the group, over all rows",
    "local": "what the decision tells about the group within a client, on average",
}
MAX_RESAMPLES = 1000
MAX_CLIENTS = 20
ONE = "all rows"


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    title = ctx.text("section.pid")
    if ctx.private:
        return SectionResult("pid", title, "not_applicable", ctx.text("pid.private"))
    crossings = [c for c in ctx.singles() if len(c.labels) > 1]
    if not crossings:
        reason = "Fewer than two groups of each attribute are large enough to be shown."
        return SectionResult("pid", title, "insufficient_data", reason)
    crossings += [c for c in ctx.crossings() if len(c.attributes) == 2 and len(c.labels) > 1]
    found: list[tuple[Crossing, AuditedModel, Any]] = []
    refused: list[str] = []
    for crossing in crossings:
        single = len(crossing.attributes) == 1
        for model in ctx.models if single else [ctx.subject]:
            try:
                found.append((crossing, model, fitted(ctx, crossing, model)))
            except PrivfairError as error:
                if single:
                    raise
                refused.append(f"{crossing.name}: {error}")
    clients = _split(ctx)
    tables, blocks, figures = [], [], []
    if clients:
        figures.append(_figure(found))
        blocks.append(Block("figure", figures[0].id))
    else:
        why = "pid.no_client" if ctx.clients is None else "pid.one_client"
        blocks.append(Block("note", text=ctx.text(why)))
    for crossing in crossings:
        mine = [(m, f) for c, m, f in found if c is crossing]
        if not mine:
            continue
        blocks.append(Block("heading", text=crossing.name))
        tables.append(_parts(ctx, crossing, mine))
        blocks.append(Block("table", tables[-1].id))
        if clients and ctx.config.min_cell is None and len(crossing.attributes) == 1:
            tables.append(_clients(ctx, crossing, mine[0][1]))
            blocks.append(Block("table", tables[-1].id))
    tables.append(_checks(ctx, found))
    blocks += [
        Block("heading", text="Checks, and the gaps of rates"),
        Block("table", "pid-checks"),
    ]
    said = _statements(found) if clients else []
    if said:
        blocks.append(Block("list", text=ctx.text("pid.holds"), items=tuple(said)))
    return SectionResult(
        "pid",
        title,
        lead=ctx.text("pid.lead" if clients else "pid.lead_alone"),
        findings=tuple(f for c, m, fit in found for f in _findings(ctx, c, m, fit)),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=_caveats(ctx, refused),
        method=(
            "Information in bits. U, R and M are those of the BROJA definition (target: the "
            "sensitive attribute; sources: decision and client), found exactly for two groups and "
            "by a certified optimisation for more. Intervals come from influence functions, "
            "centred at the value less its first-order bias; where a part may be zero a one-sided "
            "bound from subsamples stands instead. p: groups permuted over all rows (global, "
            "redundant), or within clients (local, unique, masked), "
            f"{_resamples(ctx)} permutations. 'At most' is Pinsker's bound on the gap of rates, "
            "which may be loose."
        ),
        references=(
            "Hamman, Dutta 2024, Demystifying local and global fairness trade-offs in federated "
            "learning using partial information decomposition, arXiv 2307.11333.",
            "Bertschinger, Rauh, Olbrich, Jost, Ay 2014, Quantifying unique information, "
            "Entropy 16.",
            "Miller 1955, Note on the bias of information estimates.",
        ),
        blocks=tuple(blocks),
    )


def _split(ctx: AuditContext) -> bool:
    """Whether there are clients to split over: several."""
    return ctx.clients is not None and ctx.clients.several


def _resamples(ctx: AuditContext) -> int:
    return min(ctx.config.n_resamples, MAX_RESAMPLES)


def fitted(ctx: AuditContext, crossing: Crossing, model: AuditedModel) -> Any:
    """Return the decomposition of a model's decisions, made once."""
    return ctx.cached(("pid", crossing.attributes, model.id), lambda: _fit(ctx, crossing, model))


def _fit(ctx: AuditContext, crossing: Crossing, model: AuditedModel) -> Any:
    from privfair.fairness.pid import PIDDisparity

    inside = crossing.codes >= 0
    names = np.array(crossing.names, dtype=object)
    client = np.full(ctx.n, ONE, dtype=object)
    if ctx.clients is not None and ctx.clients.several:
        client = ctx.clients.values()
    estimator = PIDDisparity(
        confidence=ctx.config.confidence,
        n_resamples=_resamples(ctx),
        random_state=ctx.seed_for("pid", crossing.name),
    )
    with warnings.catch_warnings():
        # Small groups and constant decisions are told by the status of each value.
        warnings.simplefilter("ignore", PrivfairWarning)
        return estimator.fit(
            model.decisions[inside].astype(np.int64),
            sensitive_features={crossing.name: names[crossing.codes[inside]]},
            client=client[inside],
        )


def _shown(ctx: AuditContext) -> tuple[str, ...]:
    return PARTS if _split(ctx) else ("global",)


def _estimates(fit: Any) -> dict[str, Any]:
    return {_METRICS[e.name]: e for e in fit.to_estimates() if e.name in _METRICS}


# -- tables -----------------------------------------------------------------------------------
def _parts(ctx: AuditContext, crossing: Crossing, found: list[tuple[AuditedModel, Any]]) -> Table:
    several = len(found) > 1
    columns = [Column("part", "Part", "label")]
    columns += [Column("model", "Model", "text")] if several else []
    columns += [
        Column("value", "Bits", "value"),
        Column("corrected", "Less bias", "number"),
        Column("null_expected", "By chance, mean", "number"),
        Column("p", "p", "number"),
        Column("means", "What it is", "text"),
    ]
    rows, marks = [], []
    for part in _shown(ctx):
        for j, (model, fit) in enumerate(found):
            e = _estimates(fit)[part]
            name = NAMES[part] if _split(ctx) else "Global"
            rows.append(
                (
                    name, *([model.name] if several else []), Value.of(e),
                    e.details.get("corrected"),
                    None if e.null is None else e.null.expected,
                    None if e.null is None else e.null.p_value,
                    "" if j else _MEANS[part],
                )
            )  # fmt: skip
            marks.append("first" if several and j == 0 and len(rows) > 1 else "")
    notes = [*ctx.note_of_suppressed(crossing)]
    if any(isinstance(c, Value) and c.status == "boundary" for row in rows for c in row):
        notes.insert(0, "On the boundary: the part may be zero, and its interval is one-sided.")
    if len({row[-2] is None for row in rows}) > 1:
        notes.append(
            "Of large tables of more than two groups only the two sums are permuted, not the "
            "parts."
        )
    return Table(
        f"pid-{ctx.crossing_id(crossing)}-brief",
        f"Information about {crossing.name} in the decisions, in bits"
        + (" (parts: BROJA)" if _split(ctx) else ""),
        tuple(columns),
        tuple(rows),
        tuple(notes),
        tuple(marks) if several else (),
    )


def _clients(ctx: AuditContext, crossing: Crossing, fit: Any) -> Table:
    assert ctx.clients is not None
    frame = fit.client_table_.reset_index()
    order = (frame["share"] * frame["local_disparity"].fillna(0)).sort_values(
        ascending=False, kind="stable"
    )
    rows = [
        (
            str(row["client"]), int(row["n"]), row["share"], row["local_disparity"], row["gap"],
            row["gap_bound"], row["silent"],
        )
        for row in frame.loc[order.index[:MAX_CLIENTS]].to_dict(orient="records")
    ]  # fmt: skip
    more = len(frame) - len(rows)
    left_out = f"{more} more clients are not listed; these add most to the local part."
    return Table(
        f"pid-clients-{ctx.crossing_id(crossing)}",
        f"{ctx.subject.name}, {crossing.name}, within each client ({ctx.clients.name})",
        (
            Column("client", ctx.clients.name, "label"),
            Column("n", "Rows", "count"),
            Column("share", "Share of rows", "number"),
            Column("local_disparity", "Bits", "number"),
            Column("gap", "Gap of rates", "number"),
            Column("gap_bound", "At most", "number"),
            Column("silent", "Note", "text"),
        ),
        tuple(rows),
        (left_out,) if more else (),
        collapsed=True,
    )


def _bits(counts: NDArray[np.float64]) -> float:
    """Return the mutual information of a two-way table in bits: a second way to it."""
    p = counts / counts.sum()
    outer = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    seen = p > 0
    return float((p[seen] * np.log2(p[seen] / outer[seen])).sum())


def _checks(ctx: AuditContext, found: list[tuple[Crossing, AuditedModel, Any]]) -> Table:
    rows = []
    for crossing, model, fit in found:
        cells = np.asarray(fit.counts_, dtype=float)
        seen = _bits(cells.sum(axis=2))
        local = sum(
            cells[:, :, s].sum() * _bits(cells[:, :, s])
            for s in range(cells.shape[2])
            if cells[:, :, s].sum() > 0
        ) / float(cells.sum())
        residual = max(
            abs(fit.unique_ + fit.redundant_ - seen), abs(fit.unique_ + fit.masked_ - local)
        )
        data = fit.to_dict()
        rows.append(
            (
                crossing.name, model.name, data["parity_gap"], data["parity_gap_bound"],
                data["client_information"], residual, fit.certificate_gap_,
            )
        )  # fmt: skip
    return Table(
        "pid-checks",
        "Gaps of rates beside the information, and checks",
        (
            Column("attribute", "Attribute", "label"),
            Column("model", "Model", "text"),
            Column("gap", "Gap of rates", "number"),
            Column("gap_bound", "At most (Pinsker)", "number"),
            Column("client_information", "Client tells of the group, bits", "number"),
            Column("residual", "Residual of the sums, bits", "number"),
            Column("certificate", "Optimum certified to, bits", "number"),
        ),
        tuple(rows),
        (
            "Residual: how far U + R and U + M are from the informations computed on their own, "
            "by another way.",
        ),
        collapsed=True,
    )


def _statements(found: list[tuple[Crossing, AuditedModel, Any]]) -> list[str]:
    out: list[str] = []
    seen: set[str] = set()
    for crossing, _, fit in found[:1]:
        for text in fit.to_dict()["statements"]:
            if text not in seen:
                seen.add(text)
                out.append(f"{text} ({crossing.name})" if "bits here" in text else text)
    return out


# -- figure -----------------------------------------------------------------------------------
def _figure(found: list[tuple[Crossing, AuditedModel, Any]]) -> Figure:
    several = len({m.id for _, m, _ in found}) > 1
    rows: list[tuple[Any, ...]] = []
    for crossing, model, fit in found:
        if len(crossing.attributes) > 1:
            continue
        of = _estimates(fit)
        for bar, parts in (("global", ("unique", "redundant")), ("local", ("unique", "masked"))):
            label = f"{model.name}, {bar}" if several else bar
            for part in parts:
                rows.append((crossing.name, label, part.capitalize(), Value.of(of[part])))
    return Figure(
        "fig-pid",
        "stack",
        "What the disparity over all rows, and within clients, is made of",
        "Each bar is information about the group in the decisions. Over all rows together it is "
        "unique plus redundant, within clients it is unique plus masked; both share the unique "
        "part.",
        Table(
            "fig-pid-data",
            "Parts of the disparity",
            (
                Column("attribute", "Attribute", "label"),
                Column("row", "Bar"),
                Column("part", "Part"),
                Column("value", "Bits", "value"),
            ),
            tuple(rows),
        ),
        {"parts": ["Unique", "Redundant", "Masked"], "x_label": "bits"},
    )


# -- findings ---------------------------------------------------------------------------------
def _findings(
    ctx: AuditContext, crossing: Crossing, model: AuditedModel, fit: Any
) -> list[Finding]:
    out = []
    of = _estimates(fit)
    key = ctx.crossing_id(crossing)
    for part in _shown(ctx):
        e = of[part]
        value = Value.of(e)
        if value.shown:
            text = f"{_MEANS[part].capitalize()}."
            if part == "global" and math.isfinite(float(e.details.get("parity_gap") or math.nan)):
                text += f" The gap of rates itself is {number(e.details['parity_gap'])}."
        else:
            text = f"Not estimable: {e.reason}."
        null = None
        if e.null is not None:
            null = {"expected": e.null.expected, "q95": e.null.q95, "p_value": e.null.p_value}
        label = NAMES[part].split(" (")[0].split(":")[0]
        title = f"{label} disparity in bits, {crossing.name}"
        out.append(
            Finding(
                ctx.finding_id(f"fairness.pid.{part}.{key}", model), "note", text,
                title + (f" ({model.name})" if len(ctx.models) > 1 else ""), value,
                f"pid/pid-{key}-brief", model.id, null=null,
            )
        )  # fmt: skip
    return out


def _caveats(ctx: AuditContext, refused: list[str]) -> tuple[str, ...]:
    out = []
    if ctx.clients is not None:
        if ctx.config.client_note:
            out.append(ctx.config.client_note)
        if ctx.clients.pooled and ctx.config.min_cell is None:
            out.append(ctx.clients.pooling(ctx.config.merge_clients_below))
    if _split(ctx):
        out.append(ctx.text("pid.caveat"))
        if ctx.config.min_cell is not None:
            out.append(ctx.text("pid.min_cell"))
    out += [f"Not decomposed: {text}" for text in refused]
    return tuple(out)
