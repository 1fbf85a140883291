"""All that is needed to make the report again, and what its words mean."""

from __future__ import annotations

from privfair.report._context import AuditContext
from privfair.report._model import Block, Column, SectionResult, Table

__all__ = ["build"]

_GLOSSARY = (
    "interval", "null_reference", "demographic_parity_difference", "demographic_parity_ratio",
    "equalized_odds_difference", "equal_opportunity_difference", "predictive_parity_difference",
    "shrunken", "ece", "epsilon", "delta", "accountant", "trade_off",
)  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} = {_text(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(ctx: AuditContext) -> Table:
    rows = [(key, _text(value)) for key, value in sorted(ctx.config.to_dict().items())]
    rows.append(("random_state", str(ctx.seed)))
    return Table(
        "settings", "Settings of this audit",
        (Column("name", "Setting", "label"), Column("value", "Value", "code")), tuple(rows),
    )  # fmt: skip


def _models(ctx: AuditContext) -> Table:
    rows = []
    for model in ctx.models:
        rows.append((model.name, "class", model.class_name))
        rows += [(model.name, key, value) for key, value in model.parameters.items()]
    return Table(
        "parameters", "Models and their parameters",
        (Column("model", "Model", "label"), Column("name", "Parameter", "code"),
         Column("value", "Value", "code")), tuple(rows), collapsed=len(rows) > 12,
    )  # fmt: skip


def _versions(ctx: AuditContext) -> Table:
    env = ctx.environment
    rows = [
        ("privfair", env["privfair"]),
        (env["implementation"], env["python"]),
        ("platform", env["platform"]),
        *sorted(env["packages"].items()),
    ]
    return Table(
        "versions", "Software",
        (Column("name", "Name", "label"), Column("version", "Version", "code")), tuple(rows),
        collapsed=True,
    )  # fmt: skip


def _files(ctx: AuditContext) -> Table | None:
    if not ctx.dataset.sha256:
        return None
    verified = {True: "checksum as registered", False: "NOT VERIFIED", None: "not registered"}
    rows = [
        (name, digest, verified[ctx.dataset.verified])
        for name, digest in sorted(ctx.dataset.sha256.items())
    ]
    return Table(
        "files", "Audited files",
        (Column("file", "File", "label"), Column("sha256", "SHA-256", "code"),
         Column("state", "State")), tuple(rows),
    )  # fmt: skip


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    tables = [t for t in (_settings(ctx), _models(ctx), _files(ctx), _versions(ctx)) if t]
    blocks = []
    if ctx.config.command:
        blocks.append(Block("text", text=f"Made by: {ctx.config.command}"))
    blocks.append(
        Block(
            "text",
            text=f"The seed {ctx.seed} fixes bootstrap and permutations. Privacy noise is never "
            "seeded by it: a private model trained again is another model. Set SOURCE_DATE_EPOCH "
            "to get the same bytes from the same inputs.",
        )
    )
    blocks += [Block("table", t.id) for t in tables]
    blocks.append(Block("heading", text="Words"))
    items = tuple(
        f"{key.replace('_', ' ').capitalize()}: {ctx.text('glossary.' + key)}" for key in _GLOSSARY
    )
    blocks.append(Block("list", items=items))
    return SectionResult(
        "methods",
        ctx.text("section.methods"),
        lead=ctx.text("methods.lead"),
        tables=tuple(tables),
        references=(
            "Efron, Tibshirani 1993, An Introduction to the Bootstrap.",
            "Newcombe 1998, Interval estimation for the difference between independent "
            "proportions.",
            "Hardt, Price, Srebro 2016, Equality of Opportunity in Supervised Learning, "
            "arXiv 1610.02413.",
            "Mitchell et al. 2019, Model Cards for Model Reporting, arXiv 1810.03993.",
            "Dwork, McSherry, Nissim, Smith 2006, Calibrating noise to sensitivity in private "
            "data analysis.",
            "Abadi et al. 2016, Deep Learning with Differential Privacy, arXiv 1607.00133.",
        ),
        blocks=tuple(blocks),
    )
