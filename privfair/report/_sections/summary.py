"""The card on top: what was audited, what was found, what was not looked at."""

from __future__ import annotations

from privfair.report._context import AuditContext
from privfair.report._model import Block, Column, Finding, SectionResult, Table
from privfair.report._numbers import count

__all__ = ["build"]


def _facts(ctx: AuditContext) -> Table:
    data = ctx.dataset
    state = {True: "verified", False: "NOT VERIFIED", None: "not registered"}[data.verified]
    rows = [("Data", data.name + (f", version {data.version}" if data.version else ""))]
    if data.split:
        rows.append(("Part", data.split))
    rows.append(("Rows", count(ctx.n)))
    if ctx.labels is not None and not ctx.private:
        rows.append(("Positive outcomes", f"{count(int(ctx.labels.sum()))} ({data.positive})"))
    elif ctx.labels is not None:
        rows.append(("Positive outcome", data.positive))
    rows.append(
        ("Groups", ", ".join(f"{name} ({len(levels)})" for name, levels in ctx.levels.items()))
    )
    rows += [("Model" if len(ctx.models) == 1 else f"Model {k}", _model(m))
             for k, m in enumerate(ctx.models, 1)]  # fmt: skip
    rows.append(
        (
            "Audited rows",
            {
                "held_out": "held out: no model was trained on them",
                "training": "the rows that trained the models",
                "unknown": "not stated whether a model was trained on them",
            }[data.rows],
        )
    )
    if data.sha256:
        rows.append(("Files", state))
        rows += [(f"SHA-256 {name}", digest[:16] + "…") for name, digest in data.sha256.items()]
    rows += [("Seed", str(ctx.seed)), ("privfair", ctx.environment["privfair"])]
    return Table(
        "facts", "What was audited", (Column("item", "Item", "label"), Column("value", "Value")),
        tuple(rows),
    )  # fmt: skip


def _model(model: object) -> str:
    name, kind = model.name, model.class_name  # type: ignore[attr-defined]
    return name if kind in {"", name} else f"{name} ({kind})"


def _integrity(ctx: AuditContext) -> list[Finding]:
    found = []
    if ctx.dataset.verified is False:
        found.append(
            Finding(
                "integrity.data", "critical",
                "A data file does not have its registered checksum and was used all the same "
                "(verify=False). No number below is about the registered data.",
                "Data not verified", None, "methods/files",
            )
        )  # fmt: skip
    return found


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    facts = _facts(ctx)
    blocks = [Block("table", facts.id)]
    failed = [s for s in ctx.results if s.status in {"failed", "insufficient_data"}]
    if failed:
        blocks.append(
            Block("list", text="Sections without a result",
                  items=tuple(f"{s.title}: {s.reason}" for s in failed))
        )  # fmt: skip
    items = list(ctx.text.items("summary.not_shown"))
    if ctx.attacks:
        items[-1] = ctx.text("attacks.not_shown")
    if ctx.labels is None:
        items.insert(0, "Errors of any kind: no labels were given, only decisions.")
    blocks.append(Block("list", text=ctx.text("summary.not_shown_title"), items=tuple(items)))
    return SectionResult(
        "summary",
        ctx.text("section.summary"),
        lead=ctx.text("summary.lead"),
        findings=tuple(_integrity(ctx)),
        tables=(facts,),
        blocks=tuple(blocks),
    )
