"""What is certified: for whom, against whom, under which assumptions, and what is left."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from privfair.core._format import format_upper
from privfair.core.privacy import PrivacyGuarantee, advantage, guessing
from privfair.report._clean import clean_label, clean_text
from privfair.report._context import AuditContext
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value

__all__ = ["build", "effective_guarantee"]

_RELATIONS = {
    "zero_out": "one {unit}'s data replaced by nothing; the number of records is public",
    "add_remove": "one {unit} added or removed; the number of records is private",
    "replace_one": "one {unit}'s data replaced by any other; the number of records is public",
}
_NUMERICS = {
    "exact": "exact: integer or rational sampling, no floating-point gap",
    "hardened": "hardened: values and noise on a public grid, secret counter-based generator; "
    "what rounding costs is charged",
    "idealized": "IDEALIZED: holds for real numbers, not for floating-point noise",
}
_PAIRS, _ATTACKER = "Pairs of epsilon and delta", "What the best attacker can reach"
_ALPHAS = (0.0, 0.001, 0.01, 0.02, 0.05, *(k / 20 for k in range(2, 21)))


def effective_guarantee(ctx: AuditContext, model: AuditedModel) -> PrivacyGuarantee:
    """Return a model's guarantee, void if its training rows were audited as they are."""
    guarantee: PrivacyGuarantee = model.privacy
    if model.name in ctx.release.get("voids", ()):
        reason = "raw_training_rows_audited"
        return replace(
            guarantee, epsilon=math.inf, unsafe=(*guarantee.unsafe, reason), profile=None
        )
    return guarantee


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    private = [(m, effective_guarantee(ctx, m)) for m in ctx.models if m.privacy is not None]
    findings = [_finding(ctx, m, g) for m, g in private]
    if ctx.release.get("privacy") is not None:
        findings.append(_of_report(ctx.release["privacy"]))
    tables, figures, blocks = [_covered(ctx)], [], [Block("table", "covered")]
    without = [m.name for m in ctx.models if m.privacy is None]
    if without:
        blocks.append(
            Block("text", text=f"No guarantee is known for {', '.join(without)}: trained without "
                  "differential privacy, or decisions as given.")
        )  # fmt: skip
    for model, guarantee in private:
        blocks.append(Block("heading", text=f"Certificate of {model.name}"))
        tables.append(_certificate(model, guarantee))
        blocks.append(Block("table", tables[-1].id))
        blocks += [Block("text", text=clean_text(line))
                   for line in guarantee.explain().splitlines()
                   if not line.startswith("Assumes: ")]  # fmt: skip
        if guarantee.assumptions:
            blocks.append(
                Block("list", text="This holds if",
                      items=tuple(clean_text(a) for a in guarantee.assumptions))
            )  # fmt: skip
        if not guarantee.unsafe and math.isfinite(guarantee.epsilon):
            figures.append(_curves(model, guarantee))
            blocks.append(Block("figure", figures[-1].id))
        if guarantee.events:
            tables.append(_events(model, guarantee))
            blocks.append(Block("table", tables[-1].id))
    ledger = _ledger(ctx)
    if ledger is not None:
        tables.append(ledger)
        blocks += [Block("heading", text="Ledger"), Block("table", ledger.id)]
    if ctx.dataset.certificate:
        tables.append(_embedded(ctx.dataset.certificate))
        blocks += [Block("heading", text="Certificate of the embedded data"),
                   Block("table", tables[-1].id)]  # fmt: skip
    return SectionResult(
        "privacy",
        ctx.text("section.privacy"),
        lead=ctx.text("privacy.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=_caveats(ctx, private),
        method=(
            "Epsilon is an upper bound from the accountant named, rounded up. The curve gives all "
            "pairs of epsilon and delta that the same release satisfies. The trade-off curve is "
            "the best that any attacker can do who sees everything released and knows all other "
            "records."
        ),
        references=(
            "Dwork, McSherry, Nissim, Smith 2006, Calibrating noise to sensitivity in private "
            "data analysis.",
            "Abadi et al. 2016, arXiv 1607.00133.",
            "Mironov 2017, Renyi differential privacy, arXiv 1702.07476.",
            "Dong, Roth, Su 2022, Gaussian differential privacy, arXiv 1905.02383.",
            "Doroshenko et al. 2022, Connect the dots, arXiv 2207.04380.",
        ),
        blocks=tuple(blocks),
    )


def _caveats(
    ctx: AuditContext, certified: list[tuple[AuditedModel, PrivacyGuarantee]]
) -> tuple[str, ...]:
    raw = (
        "A certificate covers the rows that trained a model. It says nothing about the audited "
        "rows, whose counts this report shows as they are."
    )
    private = (
        "The certificate of a model covers the rows that trained it, the guarantee of this report "
        "the audited rows. If they are the same rows, the two add up. That an input was refused "
        "or accepted is not covered by either."
    )
    out = [private if ctx.private else raw]
    if any(g.seeded for _, g in certified):
        out.append("SEEDED noise protects nobody who knows the seed: this is not a certificate.")
    if ctx.release.get("voids"):
        out.append(
            "Training rows were audited as they are: the certificate of "
            f"{', '.join(ctx.release['voids'])} is void for everyone who reads this report."
        )
    return tuple(out)


def _finding(ctx: AuditContext, model: AuditedModel, g: PrivacyGuarantee) -> Finding:
    if g.unsafe or not math.isfinite(g.epsilon):
        text = f"{model.name} has no finite guarantee ({', '.join(g.unsafe) or 'epsilon is inf'})."
        value = Value("inf", n=None)  # type: ignore[arg-type]
    else:
        text = (
            f"At delta {g.delta:g}, per {g.unit} of the training rows, {g.accountant.upper()} "
            f"accountant. Whoever guesses, at even odds, whether a given {g.unit} was used is "
            f"right with a probability of at most {format_upper(guessing(g.epsilon, g.delta), 3)}."
        )
        value = Value(g.epsilon, method=g.accountant)
    voided = model.name in ctx.release.get("voids", ())
    severity = "attention" if voided or g.seeded or not g.certified else "note"
    identifier = "privacy.epsilon" if len(ctx.models) == 1 else f"privacy.epsilon@{model.id}"
    return Finding(
        identifier, severity, text, f"Certified epsilon, {model.name}", value, "privacy", model.id,
        rank=15,
    )  # fmt: skip


def _of_report(promise: dict[str, Any]) -> Finding:
    return Finding(
        "privacy.report", "note",
        f"This report is differentially private towards each {promise['unit']} of the audited "
        f"rows, at delta {promise['delta']:g}; numerics {promise['numerics']}.",
        "Epsilon of this report", Value(float(promise["epsilon"]), method=promise["accountant"]),
        "privacy/covered", rank=5,
    )  # fmt: skip


def _covered(ctx: AuditContext) -> Table:
    rows = []
    for model in ctx.models:
        if model.privacy is None:
            rows.append(("Rows that trained " + model.name, "none", "no guarantee"))
            continue
        g = effective_guarantee(ctx, model)
        state = "certified" if g.certified else ", ".join(g.unsafe) or "not certified"
        if g.seeded:
            state = "SEEDED, not certified"
        pair = "none" if math.isinf(g.epsilon) else f"({_up(g.epsilon)}, {g.delta:g})"
        rows.append(("Rows that trained " + model.name, pair, state))
    where = ctx.release.get("ledger") or "in memory"
    pair, state = (
        "none",
        f"raw: not private; entry {ctx.release.get('entry')} of the ledger {where}",
    )
    promise = ctx.release.get("privacy")
    if promise is not None:
        pair = f"({_up(float(promise['epsilon']))}, {promise['delta']:g})"
        state = f"this report, by {len(promise['events'])} noisy tables; ledger {where}"
    rows.append((f"Audited rows ({ctx.release.get('dataset_id', '')})", pair, state))
    return Table(
        "covered",
        "Whose rows are covered by what",
        (
            Column("rows", "Rows", "label"),
            Column("pair", "(epsilon, delta)", "text"),
            Column("state", "State", "text"),
        ),
        tuple(rows),
    )


def _up(value: float) -> str:
    return str(format_upper(value))


def _mu_squared(event: Any) -> float | None:
    """Return mu squared of a composition of Gaussian mechanisms on all rows, else None."""
    from privfair.accounting import events as ev

    if isinstance(event, ev.Gaussian):
        return math.inf if event.sigma == 0 else event.sigma**-2
    if isinstance(event, ev.SelfComposed):
        inner = _mu_squared(event.event)
        return None if inner is None else event.count * inner
    if isinstance(event, ev.Composed):
        parts = [_mu_squared(e) for e in event.events]
        return None if None in parts else math.fsum(p for p in parts if p is not None)
    return None


def _mu_text(g: PrivacyGuarantee) -> str:
    """Return mu, rounded up, where it is exact, or why there is none."""
    if not g.events:
        return "not stated: the certificate lists no events"
    if g.neighboring == "replace_one":
        return "not stated: for added or removed units only"
    parts = [_mu_squared(event) for event in g.events]
    if None in parts:
        return "not valid: not all events are Gaussian noise on all rows (sampled rows, say)"
    total = math.fsum(p for p in parts if p is not None)
    if g.unsafe or not 0 < total < math.inf:
        return "not valid: there is no finite guarantee"
    return _up(math.nextafter(math.sqrt(total), math.inf))


def _certificate(model: AuditedModel, g: PrivacyGuarantee) -> Table:
    finite = math.isfinite(g.epsilon)
    attack = 1 - g.tradeoff([0.01])[0][1] if finite else 1.0
    rows: list[tuple[str, str]] = [
        ("epsilon (rounded up)", _up(g.epsilon) if finite else "inf"),
        ("delta", f"{g.delta:g}"),
        ("unit of privacy", g.unit),
        ("neighbouring data sets", _RELATIONS[g.neighboring].format(unit=g.unit)),
        ("accountant", g.accountant.upper() + (f", order {g.order:g}" if g.order else "")),
        ("numerical class", _NUMERICS[g.numerics]),
        ("noise", "SEEDED: repeatable, not private" if g.seeded else "unseeded, from the "
         "operating system's entropy"),
        ("status", "certified" if g.certified else "not certified: "
         + (", ".join(g.unsafe) or ("seeded" if g.seeded else g.numerics))),
        ("best attack at 1 % false positives", f"finds at most {100 * attack:.2f} % of members"),
        ("largest advantage of an attacker", f"{advantage(g.epsilon, g.delta):.3f}"),
        ("Gaussian differential privacy, mu", _mu_text(g)),
    ]  # fmt: skip
    return Table(
        f"certificate-{model.id}-brief",
        f"Certificate of {model.name}",
        (Column("item", "Item", "label"), Column("value", "Value", "text")),
        tuple(rows),
    )


def _curves(model: AuditedModel, g: PrivacyGuarantee) -> Figure:
    deltas = [10.0**-k for k in range(3, 13)]
    pairs = [(d, e) for d, e in g.curve(deltas) if math.isfinite(e)]
    rows: list[tuple[Any, ...]] = [(_PAIRS, model.name, d, e, None) for d, e in pairs]
    rows += [(_ATTACKER, model.name, a, None, b) for a, b in g.tradeoff(_ALPHAS)]
    return Figure(
        f"fig-certified-{model.id}",
        "lines",
        f"What is certified about {model.name}",
        "Left: a smaller probability of failure (delta) costs a larger epsilon; the diamond is "
        "the certified pair. Right: for each false positive rate of an attacker who tells "
        "whether a record was used, the smallest possible false negative rate. On the dashed line "
        "the attacker only guesses; the closer the curve is to it, the stronger the protection.",
        Table(
            f"fig-certified-{model.id}-data",
            "Privacy curve and trade-off curve",
            (
                Column("panel", "Panel", "label"),
                Column("series", "Model"),
                Column("x", "delta, or false positive rate", "exact"),
                Column("epsilon", "epsilon", "upper"),
                Column("fnr", "Smallest false negative rate", "number"),
            ),
            tuple(rows),
        ),
        {
            "y_columns": ["epsilon", "fnr"],
            "panels": [
                {
                    "title": _PAIRS,
                    "x_label": "delta (logarithmic)",
                    "y_label": "epsilon",
                    "x_scale": "log",
                    "markers": True,
                    "points": [
                        {
                            "x": g.delta or deltas[-1],
                            "y": g.epsilon,
                            "label": f"({_up(g.epsilon)}, {g.delta:g})",
                        }
                    ],
                },
                {
                    "title": _ATTACKER,
                    "diagonal": "down",
                    "x_label": "false positive rate of the attacker",
                    "y_label": "smallest false negative rate",
                    "x_limits": [0, 1],
                    "y_limits": [0, 1],
                },
            ],
        },
    )


def _event_text(event: Any) -> tuple[str, str]:
    data = event.to_dict() if hasattr(event, "to_dict") else {"kind": type(event).__name__}
    kind = clean_label(data.get("kind", "event"))
    rest = {k: v for k, v in data.items() if k not in {"kind", "schema"}}
    return kind, clean_text(_flat(rest))[:400]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        inner = {k: v for k, v in value.items() if k != "schema"}
        return ", ".join(f"{k} = {_flat(v)}" for k, v in inner.items())
    if isinstance(value, list | tuple):
        return "[" + "; ".join(_flat(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _events(model: AuditedModel, g: PrivacyGuarantee) -> Table:
    rows = [(k, *_event_text(event)) for k, event in enumerate(g.events, 1)]
    return Table(
        f"events-{model.id}",
        f"Events behind the certificate of {model.name}",
        (
            Column("number", "No.", "count"),
            Column("kind", "Event", "label"),
            Column("parameters", "Parameters", "code"),
        ),
        tuple(rows),
    )


def _ledger(ctx: AuditContext) -> Table | None:
    book = ctx.ledger
    if book is None or not hasattr(book, "entries"):
        return None
    rows: list[tuple[Any, ...]] = []
    for entry in list(book.entries())[-50:]:
        data = entry.to_dict() if hasattr(entry, "to_dict") else dict(entry)
        kind = data.get("event") or {}
        rows.append(
            (
                data.get("id", data.get("entry_id", len(rows) + 1)),
                clean_label(kind.get("kind", "") if isinstance(kind, dict) else kind),
                clean_label(data.get("state", "")),
                clean_label(data.get("purpose", ""), 120),
                clean_label(data.get("dataset_id", "")),
            )
        )
    return Table(
        "ledger",
        "Ledger of the audited rows: the last 50 entries",
        (
            Column("id", "Entry", "count"),
            Column("event", "Event", "label"),
            Column("state", "State", "text"),
            Column("purpose", "Purpose", "text"),
            Column("dataset", "Data set", "text"),
        ),
        tuple(rows),
    )


def _embedded(certificate: dict[str, Any]) -> Table:
    found = certificate.get("guarantee")
    certificate = found if isinstance(found, dict) else certificate
    keys = ("epsilon", "delta", "unit", "neighboring", "accountant", "numerics", "seeded")
    rows = [(key, _flat(certificate[key])) for key in keys if key in certificate]
    return Table(
        "embedded-certificate",
        "Differential privacy of the synthetic rows, towards the people in the original data",
        (Column("item", "Item", "label"), Column("value", "Value", "code")),
        tuple(rows),
    )
