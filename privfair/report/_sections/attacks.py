"""What attacks found: audited epsilon beside the certified one, and membership inference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from privfair.core._format import format_lower, format_upper
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, PrivacyError
from privfair.report._clean import clean_label, clean_text
from privfair.report._context import AuditContext
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value

if TYPE_CHECKING:
    from privfair.auditing import AttackResult
    from privfair.report._config import AuditConfig
    from privfair.report._inputs import AuditedModel

__all__ = ["Attack", "build", "given", "read_attacks"]

_NAMES = {
    "one_run_audit": "canaries, one run",
    "mechanism_audit": "draws of a mechanism",
    "local_audit": "draws of a local randomiser",
    "membership_inference": "membership inference",
}
_MEASURES = {"attack_auc": "AUC", "attack_advantage": "Largest TPR - FPR"}
_ALL = "all records"
_SMALLEST = 1e-3
_GROUPS = 6

Attack = tuple["AuditedModel", "AttackResult"]


def read_attacks(attacks: Any, models: list[AuditedModel], config: AuditConfig) -> list[Attack]:
    """Return (model, result) pairs; refuse what would publish statistics of private rows."""
    from privfair.auditing import AttackResult

    if attacks is None:
        return []
    by_name = {m.name: m for m in models}
    given = attacks if isinstance(attacks, Mapping) else {models[0].name: attacks}
    found: list[Attack] = []
    for name, results in given.items():
        if name not in by_name:
            raise InvalidParameterError(
                f"attacks names a model that is not audited; there are {', '.join(by_name)}."
            )
        for result in [results] if isinstance(results, AttackResult) else list(results):
            if not isinstance(result, AttackResult):
                raise InvalidTypeError(
                    f"attacks must hold AttackResult, got {type(result).__name__}; "
                    "privfair.auditing makes them."
                )
            found.append((by_name[name], result))
    raw = [r for _, r in found if r.attack == "membership_inference"]
    if raw and getattr(config, "dp_report", None) is not None:
        raise PrivacyError(
            "membership inference is measured on the rows as they are, and a report under "
            "differential privacy must not show it. Leave it out, or audit canaries."
        )
    if any(r.details.get("voids_certificate") for r in raw) and not config.allow_raw_training_rows:
        raise PrivacyError(
            "a membership attack on a certified model is a statistic of its training rows, and "
            "publishing it voids the certificate. Audit canaries instead, or pass "
            "allow_raw_training_rows=True: then the report shows the certificate as void."
        )
    return found


def given(ctx: AuditContext) -> bool:
    """Whether any attack was run."""
    return bool(ctx.attacks)


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    if not ctx.attacks:
        reason = "No attack on privacy was run for this report."
        return SectionResult("attacks", ctx.text("section.attacks"), "not_applicable", reason)
    bounds = [(m, r, _upper(m, r)) for m, r in ctx.attacks if r.lower_epsilon is not None]
    curves = [(m, r) for m, r in ctx.attacks if r.assumption != "dp" and r.lower_epsilon is None]
    inferences = [(m, r) for m, r in ctx.attacks if r.roc]
    used: dict[str, int] = {}
    findings: list[Finding] = []
    tables: list[Table] = []
    figures: list[Figure] = []
    blocks: list[Block] = []
    if bounds:
        tables.append(_bounds(bounds))
        figures.append(_axis(bounds))
        blocks += [Block("table", tables[0].id), Block("figure", figures[0].id)]
        findings += _bound_findings(ctx, bounds, used)
    if curves:
        tables.append(_curves(curves))
        blocks.append(Block("table", tables[-1].id))
        findings += _curve_findings(ctx, curves, used)
    for k, (model, result) in enumerate(inferences, 1):
        tables.append(_rates(ctx, model, result, k))
        figures.append(_roc(ctx, model, result, k))
        blocks += [
            Block("heading", text=f"Membership inference on {model.name}"),
            Block("table", tables[-1].id),
            Block("figure", figures[-1].id),
        ]
        findings.append(_auc_finding(ctx, model, result, k))
    power = list(dict.fromkeys(clean_text(r.power) for _, r in ctx.attacks if r.power))
    if power:
        blocks.append(Block("list", text="What these attacks can and cannot see",
                            items=tuple(power)))  # fmt: skip
    notes = dict.fromkeys(clean_text(c) for _, r in ctx.attacks for c in r.caveats)
    return SectionResult(
        "attacks",
        ctx.text("section.attacks"),
        lead=ctx.text("attacks.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=(ctx.text("attacks.caveat"), *notes),
        method=" ".join(dict.fromkeys(clean_text(r.method) for _, r in ctx.attacks)),
        references=(
            "Steinke, Nasr, Jagielski 2023, Privacy auditing with one (1) training run, "
            "arXiv 2305.08846.",
            "Jagielski, Ullman, Oprea 2020, Auditing differentially private machine learning, "
            "arXiv 2006.07709.",
            "Mahloujifar, Melis, Chaudhuri 2024, Auditing f-differential privacy in one run, "
            "arXiv 2410.22235.",
            "Carlini et al. 2022, Membership inference attacks from first principles, "
            "arXiv 2112.03570.",
            "Clopper, Pearson 1934, The use of confidence or fiducial limits.",
        ),
        blocks=tuple(blocks),
    )


def _upper(model: AuditedModel, result: AttackResult) -> float | None:
    """Return the certified epsilon at the attack's delta: of the attack, or of the model."""
    upper: float | None = result.upper_epsilon
    if upper is not None:
        return upper
    if model.privacy is None or model.privacy.unsafe or result.delta is None:
        return None
    upper = model.privacy.curve([result.delta])[0][1]
    return upper


def _parts(model: AuditedModel, result: AttackResult) -> tuple[str, str]:
    target = clean_label(result.target) if result.target else model.name
    return target, _NAMES.get(result.attack, clean_label(result.attack))


def _label(model: AuditedModel, result: AttackResult) -> str:
    return ": ".join(_parts(model, result))


# -- epsilon ----------------------------------------------------------------------------------
Bound = tuple["AuditedModel", "AttackResult", "float | None"]


def _bounds(bounds: list[Bound]) -> Table:
    rows = []
    for model, r, upper in bounds:
        contradicted = upper is not None and (r.lower_epsilon or 0.0) > upper
        p = "" if r.p_value is None else f"{r.p_value:.2g}"
        rows.append(
            (
                _label(model, r), format_lower(r.lower_epsilon or 0.0), f"{r.confidence:g}",
                "nothing" if upper is None else format_upper(upper),
                "" if r.delta is None else f"{r.delta:g}", p,
                "VIOLATION" if contradicted else clean_label(r.verdict),
            )
        )  # fmt: skip
    return Table(
        "audited-brief",
        "Audited and certified epsilon",
        (
            Column("attack", "Attack", "label"),
            Column("lower", "Audited: at least", "text"),
            Column("confidence", "Confidence", "text"),
            Column("upper", "Certified: at most", "text"),
            Column("delta", "delta", "text"),
            Column("p", "p at the certificate", "text"),
            Column("verdict", "Verdict", "text"),
        ),
        tuple(rows),
        notes=("Lower bounds are rounded down, certified values up.",),
    )


def _axis(bounds: list[Bound]) -> Figure:
    names = ["audited, at least", "certified, at most"]
    rows: list[tuple[Any, ...]] = []
    seen: dict[tuple[str, str], int] = {}
    top = 0.0
    for model, r, upper in bounds:
        target, label = _parts(model, r)
        seen[target, label] = seen.get((target, label), 0) + 1
        label += f" ({seen[target, label]})" if seen[target, label] > 1 else ""
        lower = float(r.lower_epsilon or 0.0)
        known = upper is not None and math.isfinite(upper)
        certified = Value(upper) if known else Value.missing("nothing is certified")
        rows.append((target, label, names[0], Value(lower, confidence=r.confidence)))
        rows.append((target, label, names[1], certified))
        top = max(top, lower, float(upper) if known and upper is not None else 0.0)
    return Figure(
        "fig-audited",
        "dots",
        "Certified beside audited",
        "Audited epsilon is a lower bound from an attack, certified epsilon an upper bound from a "
        "proof; the truth lies between. A mark of the first to the right of the second would be "
        "a contradiction.",
        Table(
            "fig-audited-data",
            "Certified beside audited",
            (
                Column("attribute", "Target", "label"),
                Column("group", "Attack", "label"),
                Column("series", "Bound"),
                Column("epsilon", "epsilon", "value"),
            ),
            tuple(rows),
        ),
        {
            "panels": [{"key": "epsilon", "label": "epsilon", "limits": [0, 1.08 * top or 1.0]}],
            "series": names,
        },
    )


def _bound_findings(ctx: AuditContext, bounds: list[Bound], used: dict[str, int]) -> list[Finding]:
    out: list[Finding] = []
    for model, r, upper in bounds:
        lower = float(r.lower_epsilon or 0.0)
        value = Value(lower, lower, None, confidence=r.confidence, method="lower bound")
        contradicted = upper is not None and lower > upper
        claim = (
            "nothing is certified"
            if upper is None or not math.isfinite(upper)
            else f"certified is at most {format_upper(upper)}"
        )
        at = "" if r.delta is None else f" at delta {r.delta:g}"
        text = (
            f"{_label(model, r)} shows that epsilon{at} is at least {format_lower(lower)} "
            f"(confidence {r.confidence:g}); {claim}. "
        )
        path = "attacks/audited-brief"
        out.append(
            Finding(
                _numbered(ctx, "privacy.audited_epsilon", model, used), "note",
                text + ("" if contradicted else "No violation was found, which proves nothing."),
                f"Audited epsilon, {model.name}", value, path, model.id, rank=16,
            )
        )  # fmt: skip
        if contradicted:
            out.append(
                Finding(
                    _numbered(ctx, "privacy.contradiction", model, used), "critical",
                    text + "Implementation or assumptions of the certificate are wrong: the "
                    "model must not be released.",
                    "Certificate contradicted", value, path, model.id, rank=1,
                )
            )  # fmt: skip
    return out


def _numbered(ctx: AuditContext, base: str, model: AuditedModel, used: dict[str, int]) -> str:
    key = ctx.finding_id(base, model)
    used[key] = used.get(key, 0) + 1
    return key if used[key] == 1 else ctx.finding_id(f"{base}_{used[key]}", model)


# -- whole curves -------------------------------------------------------------------------------
_CLAIMS = {
    "curve": "the certified curve as a whole",
    "gdp": "a Gaussian curve",
}


def _curves(curves: list[Attack]) -> Table:
    rows = []
    for model, r in curves:
        found = [e for e in r.estimates if e.name == "audited_mu"]
        mu, claimed = (found[0].value if found else None), r.details.get("certified_mu")
        rows.append(
            (
                _label(model, r), _CLAIMS.get(r.assumption, clean_label(r.assumption)),
                "" if r.p_value is None else f"{r.p_value:.2g}",
                "" if mu is None else format_lower(mu),
                "" if claimed is None else format_upper(claimed),
                f"{r.confidence:g}", clean_label(r.verdict),
            )
        )  # fmt: skip
    return Table(
        "audited-curves",
        "Tests of trade-off curves",
        (
            Column("attack", "Attack", "label"),
            Column("claim", "Put to the test", "text"),
            Column("p", "p", "text"),
            Column("mu", "mu: at least", "text"),
            Column("certified_mu", "mu: certified", "text"),
            Column("confidence", "Confidence", "text"),
            Column("verdict", "Verdict", "text"),
        ),
        tuple(rows),
        notes=(
            "A whole curve says more than one point of it, so that more can be refuted. None of "
            "these numbers is a bound on epsilon.",
        ),
    )


def _curve_findings(
    ctx: AuditContext, curves: list[Attack], used: dict[str, int]
) -> list[Finding]:
    out: list[Finding] = []
    for model, r in curves:
        p = "" if r.p_value is None else f" (p = {r.p_value:.2g})"
        text = f"{_label(model, r)} put {_CLAIMS.get(r.assumption, 'a claim')} to the test{p}. "
        if r.violated:
            text += (
                "Refuted: implementation or assumptions of the certificate are wrong, and the "
                "model must not be released."
            )
        else:
            text += "No violation was found, which proves nothing."
        out.append(
            Finding(
                _numbered(
                    ctx, f"privacy.{'contradiction' if r.violated else 'curve_test'}", model, used
                ),
                "critical" if r.violated else "note", text,
                "Certificate contradicted" if r.violated else f"Test of a curve, {model.name}",
                None, "attacks/audited-curves", model.id, rank=1 if r.violated else 0,
            )
        )  # fmt: skip
    return out


# -- membership inference ---------------------------------------------------------------------
def _rates(ctx: AuditContext, model: AuditedModel, r: AttackResult, k: int) -> Table:
    names = [e.name for e in r.estimates if e.name.startswith("attack_")]
    chosen = [e for e in r.estimates if e.name in names]
    groups: list[str] = []
    for e in chosen:
        if e.by_group is not None:
            groups += [g for g in map(str, e.by_group.index) if g not in groups]
    rows: list[tuple[Any, ...]] = [(_ALL, *(Value.of(e) for e in chosen))]
    for group in groups:
        rows.append((clean_label(group), *(_of_group(ctx, e, group) for e in chosen)))
    return Table(
        f"membership-{model.id}-{k}-brief",
        f"Success of membership inference on {model.name}",
        (
            Column("group", "Group", "label"),
            *(Column(f"m{j}", _measure(e.name), "value") for j, e in enumerate(chosen)),
        ),
        tuple(rows),
        notes=(
            f"{r.counts.get('members', 0):,} members, {r.counts.get('others', 0):,} others. "
            "Guessing has an AUC of 0.5 and TPR = FPR.",
        ),
    )


def _measure(name: str) -> str:
    if name in _MEASURES:
        return _MEASURES[name]
    rate = name.removeprefix("attack_tpr_at_fpr_")
    return f"TPR at FPR {100 * float(rate):g} %" if rate != name else clean_label(name)


def _of_group(ctx: AuditContext, e: Any, group: str) -> Value:
    frame = e.by_group
    if frame is None or group not in set(map(str, frame.index)):
        return Value.missing("not measured by group")
    row = frame[[str(g) == group for g in frame.index]].iloc[0]
    if ctx.config.min_cell is not None and int(row["n"]) < ctx.config.min_cell:
        return Value.missing("small cell", "suppressed")
    return Value(
        row["value"], row["low"], row["high"], confidence=e.confidence, method=e.method,
        n=int(row["n"]), status=row["status"], reason=clean_text(row["reason"]),
    )  # fmt: skip


def _roc(ctx: AuditContext, model: AuditedModel, r: AttackResult, k: int) -> Figure:
    n_out = max(r.counts.get("others", 0), 1)
    start = max(_SMALLEST, 10 / n_out)
    curves = {_ALL: r.roc}
    if ctx.config.min_cell is None:
        curves |= {clean_label(g): c for g, c in list(r.groups.items())[:_GROUPS]}
    rows: list[tuple[Any, ...]] = []
    for name, points in curves.items():
        rows += [("ROC", name, x, max(y, _SMALLEST)) for x, y in points if x >= start]
    line = sorted({_SMALLEST, start, 0.01, 0.1, 1.0})
    rows += [("ROC", "guessing", x, x) for x in line]
    return Figure(
        f"fig-membership-{model.id}-{k}",
        "lines",
        f"Membership inference on {model.name}",
        "True against false positive rate of the attacker, both on logarithmic axes, for all "
        "records and in each group. On the line of guessing the attacker learns nothing. Rates "
        "that the number of records cannot show are left out.",
        Table(
            f"fig-membership-{model.id}-{k}-data",
            "ROC curve of the attack",
            (
                Column("panel", "Panel", "label"),
                Column("series", "Group"),
                Column("x", "False positive rate", "number"),
                Column("y", "True positive rate", "number"),
            ),
            tuple(rows),
        ),
        {
            "panels": [
                {
                    "title": "ROC",
                    "x_label": "false positive rate",
                    "y_label": "true positive rate",
                    "x_scale": "log",
                    "y_scale": "log",
                    "x_limits": [_SMALLEST, 1],
                    "y_limits": [_SMALLEST, 1.1],
                }
            ],
            "size": 360,
        },
    )


def _auc_finding(ctx: AuditContext, model: AuditedModel, r: AttackResult, k: int) -> Finding:
    base = "privacy.attack_auc" if k == 1 else f"privacy.attack_auc_{k}"
    return Finding(
        ctx.finding_id(base, model), "note",
        f"{clean_label(r.target) if r.target else model.name}: how often a record that was "
        "trained on scores higher than one that was not; 0.5 is guessing. A stronger attack may "
        "find more.",
        f"Membership inference AUC, {model.name}", Value.of(r.estimate("attack_auc")),
        f"attacks/membership-{model.id}-{k}-brief", model.id, rank=17,
    )  # fmt: skip
