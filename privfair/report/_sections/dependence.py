"""How much the whole distribution of scores depends on the groups, alone and jointly."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import PrivfairWarning
from privfair.report._context import AuditContext, Crossing
from privfair.report._estimates import gaps
from privfair.report._inputs import AuditedModel
from privfair.report._model import Block, Column, Finding, SectionResult, Table, Value
from privfair.report._numbers import number

__all__ = ["build", "largest_ks", "mean_gap"]

Floats = NDArray[np.float64]
MAX_RESAMPLES = 1000


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    title = ctx.text("section.dependence")
    if ctx.private:
        return SectionResult("dependence", title, "not_applicable", ctx.text("dependence.private"))
    crossings = [c for c in ctx.singles() if len(c.labels) > 1]
    if not crossings:
        reason = "Fewer than two groups of each attribute are large enough to be shown."
        return SectionResult("dependence", title, "insufficient_data", reason)
    rows, findings = [], []
    for crossing in crossings:
        for model in ctx.models:
            row, finding = _alone(ctx, crossing, model)
            rows.append(row)
            findings.append(finding)
    tables = [_table(ctx, rows)]
    blocks = [Block("table", tables[0].id)]
    if len(crossings) > 1:
        joint, more = _joint(ctx, crossings)
        findings += more
        tables.append(joint)
        blocks += [Block("heading", text="All attributes together"), Block("table", joint.id)]
    return SectionResult(
        "dependence",
        title,
        lead=ctx.text("dependence.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        caveats=_caveats(ctx),
        method=(
            "Squared distance correlation (dCor2) of the score with the groups, coded one-hot: "
            "plug-in value with a bias-corrected bootstrap interval; unbiased forms beside it, "
            "which may be negative. p: scores permuted against whole rows of attributes, "
            f"{_resamples(ctx)} permutations. JSD: generalised Jensen-Shannon divergence of the "
            "score distributions in bits (histogram), as it is and less its mean under permuted "
            "groups. KS: largest distance between the distribution function "
            "of a group and that of all rows. T2 and CCdCov2 are 0 if and only if the score is "
            "independent of all attributes jointly; eta is CCdCov2 less the sum over attributes "
            "alone, and its sign proves nothing."
        ),
        references=(
            "Szekely, Rizzo, Bakirov 2007, Measuring and testing dependence by correlation of "
            "distances, Annals of Statistics 35(6).",
            "Szekely, Rizzo 2014, Partial distance correlation with methods for dissimilarities, "
            "Annals of Statistics 42(6).",
            "Chakraborty, Zhang 2019, Distance metrics for measuring joint dependence, JASA "
            "114(528).",
            "Lee, Antonio, Avanzi, Marchi, Zhou 2025, arXiv 2509.08163.",
        ),
        blocks=tuple(blocks),
    )


def _resamples(ctx: AuditContext) -> int:
    return min(ctx.config.n_resamples, MAX_RESAMPLES)


def _score(model: AuditedModel) -> Floats:
    """Return the scores of a model, or its decisions where it has none."""
    return model.decisions.astype(float) if model.scores is None else model.scores


# -- one attribute ----------------------------------------------------------------------------
def _columns(crossings: list[Crossing]) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """Return the attributes of the rows that are shown under all of them."""
    inside = np.logical_and.reduce([c.codes >= 0 for c in crossings])
    names = {
        c.name: np.array(c.names, dtype=object)[c.codes[inside]].astype(str) for c in crossings
    }
    return names, inside


def _estimate(ctx: AuditContext, score: Floats, columns: dict[str, Any]) -> Any:
    """Return the distance correlation of a score with attributes, jointly."""
    from privfair.fairness.dcov import distance_correlation

    with warnings.catch_warnings():
        # Small groups and constant scores are told by the status of the value.
        warnings.simplefilter("ignore", PrivfairWarning)
        return distance_correlation.estimate(
            None, score, sensitive_features=columns, confidence=ctx.config.confidence,
            n_resamples=_resamples(ctx), random_state=ctx.seed_for("dependence", *columns),
        )  # fmt: skip


def mean_gap(score: Floats, codes: NDArray[np.int64]) -> float:
    """Return the largest difference of mean scores between groups."""
    n = np.bincount(codes)
    means = np.bincount(codes, weights=score)[n > 0] / n[n > 0]
    return float(means.max() - means.min())


def largest_ks(score: Floats, codes: NDArray[np.int64]) -> float:
    """Return the largest Kolmogorov-Smirnov distance of a group from all rows."""
    grid = np.unique(score)
    whole = np.searchsorted(np.sort(score), grid, side="right") / len(score)
    worst = 0.0
    for k in np.unique(codes):
        mine = np.sort(score[codes == k])
        share = np.searchsorted(mine, grid, side="right") / len(mine)
        worst = max(worst, float(np.abs(share - whole).max()))
    return worst


def _divergence(ctx: AuditContext, score: Floats, groups: Any, key: str) -> tuple[float, float]:
    """Return the divergence less its mean under permutation, and as it is."""
    from privfair.fairness.dcov import jsd_groups

    found = jsd_groups(
        score, groups, estimator="histogram", n_resamples=min(_resamples(ctx), 200),
        random_state=ctx.seed_for("jsd", key),
    )  # fmt: skip
    return float(found.value), float(found.raw)


def _alone(
    ctx: AuditContext, crossing: Crossing, model: AuditedModel
) -> tuple[tuple[Any, ...], Finding]:
    columns, inside = _columns([crossing])
    score, codes = _score(model)[inside], crossing.codes[inside]
    e = _estimate(ctx, score, columns)
    corrected, raw = _divergence(ctx, score, columns[crossing.name], crossing.name)
    threshold = gaps(ctx, model, crossing).get("demographic_parity_difference")
    hard = None if threshold is None else Value.of(threshold)
    mean = mean_gap(score, codes)
    row = (
        crossing.name, model.name, Value.of(e), e.details.get("dcor_sq_u"),
        e.details.get("dcov_sq_u"), None if e.null is None else e.null.p_value, corrected, raw,
        largest_ks(score, codes), mean, hard,
    )  # fmt: skip
    text = f"Gap of mean scores {number(mean)}"
    if hard is not None and hard.shown:
        text += f", of decisions {number(hard.estimate)}"
    title = f"Distance correlation squared, {crossing.name}"
    return row, _finding(ctx, model, ctx.crossing_id(crossing), title, f"{text}.", e, "brief")


def _finding(
    ctx: AuditContext, model: AuditedModel, key: str, title: str, text: str, e: Any, table: str
) -> Finding:
    null = None
    if e.null is not None:
        null = {"expected": e.null.expected, "q95": e.null.q95, "p_value": e.null.p_value}
    return Finding(
        ctx.finding_id(f"fairness.dcor.{key}", model), "note", text,
        title + (f" ({model.name})" if len(ctx.models) > 1 else ""), Value.of(e),
        f"dependence/dependence-{table}", model.id, null=null,
    )  # fmt: skip


def _table(ctx: AuditContext, rows: list[tuple[Any, ...]]) -> Table:
    marks = tuple(
        "first" if row[1] == ctx.subject.name and k else "" for k, row in enumerate(rows)
    )
    return Table(
        "dependence-brief",
        "Dependence of the score on each attribute, beside the gaps",
        (
            Column("attribute", "Attribute", "label"),
            Column("model", "Model", "text"),
            Column("dcor_sq", "dCor2", "value"),
            Column("dcor_sq_u", "unbiased", "number"),
            Column("dcov_sq_u", "dCov2, unbiased", "number"),
            Column("p", "p", "number"),
            Column("jsd", "JSD less bias, bits", "number"),
            Column("jsd_raw", "JSD", "number"),
            Column("ks", "Largest KS", "number"),
            Column("mean_gap", "Gap of mean scores", "number"),
            Column("hard_gap", "Gap of decisions", "value"),
        ),
        tuple(rows),
        (
            "A small gap of mean scores can go with a large gap of decisions where scores cluster "
            "at the threshold; both stand here.",
        ),
        marks if len(ctx.models) > 1 else (),
    )


# -- all attributes ---------------------------------------------------------------------------
def _joint(ctx: AuditContext, crossings: list[Crossing]) -> tuple[Table, list[Finding]]:
    columns, inside = _columns(crossings)
    key = "_x_".join(ctx.crossing_id(c) for c in crossings)
    rows, findings = [], []
    for model in ctx.models:
        e = _estimate(ctx, _score(model)[inside], columns)
        rows.append(
            (
                model.name, Value.of(e), e.details.get("dcov_sq_u"),
                e.details.get("targeted_joint_u"), e.details.get("interaction_share_u"),
                None if e.null is None else e.null.p_value,
            )
        )  # fmt: skip
        text = "Of the score on all attributes jointly: 0 only if it depends on no combination."
        title = "Distance correlation squared, all attributes"
        findings.append(_finding(ctx, model, key, title, text, e, "joint"))
    table = Table(
        "dependence-joint",
        f"Dependence of the score on {', '.join(columns)} together",
        (
            Column("model", "Model", "label"),
            Column("dcor_sq", "dCor2", "value"),
            Column("ccdcov_sq", "CCdCov2, unbiased", "number"),
            Column("targeted", "T2, unbiased", "number"),
            Column("eta", "eta", "number"),
            Column("p", "p", "number"),
        ),
        tuple(rows),
    )
    return table, findings


def _caveats(ctx: AuditContext) -> tuple[str, ...]:
    out = [ctx.text("dependence.caveat_size")]
    without = [m.name for m in ctx.models if m.scores is None]
    if without:
        out.append(
            f"No scores of {', '.join(without)}: the decisions stand in for them, and only their "
            "rates can differ."
        )
    return tuple(out)
