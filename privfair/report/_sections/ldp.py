"""A local collection: estimated frequencies with intervals, and what the randomisers withstand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from privfair.core._format import format_lower, format_upper
from privfair.report._clean import clean_label, unique_labels
from privfair.report._context import AuditContext
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value

if TYPE_CHECKING:
    from privfair.report._catalogue import Catalogue
    from privfair.report._local import LocalCollection, LocalColumn

__all__ = ["build", "given", "section"]

_MOST_DRAWN = 40
_METHOD = "Clopper-Pearson on supporting reports, mapped to frequencies"


def given(ctx: AuditContext) -> bool:
    """Whether a collection belongs to the audit."""
    return ctx.collection is not None


def build(ctx: AuditContext) -> SectionResult:
    """Build the section of an audit."""
    from privfair.report._local import read_collection

    if ctx.collection is None:
        reason = "No local collection was given for this report."
        return SectionResult("ldp", ctx.text("section.ldp"), "not_applicable", reason)
    return section(read_collection(ctx.collection), ctx.collection, ctx.text)


def section(
    columns: list[LocalColumn], collection: LocalCollection, text: Catalogue
) -> SectionResult:
    """Return the section for columns that were read."""
    tables: list[Table] = []
    figures: list[Figure] = []
    findings: list[Finding] = []
    blocks: list[Block] = []
    keys = _keys(columns)
    for key, column in zip(keys, columns, strict=True):
        blocks.append(Block("heading", text=_heading(column)))
        if column.estimate is None:
            blocks.append(Block("note", text="No report has arrived: nothing can be estimated."))
            continue
        figures.append(_figure(key, column))
        tables.append(_table(key, column))
        blocks += [Block("figure", figures[-1].id), Block("table", tables[-1].id)]
        if column.mean is not None:
            findings.append(_mean(key, column))
            blocks.append(Block("text", text=findings[-1].text))
    tables.append(_attacks(columns))
    blocks += [Block("heading", text="What the randomisers withstand"),
               Block("table", tables[-1].id)]  # fmt: skip
    findings += _attack_findings(keys, columns)
    blocks.append(Block("note", text=text("ldp.not_offered")))
    return SectionResult(
        "ldp",
        text("section.ldp"),
        lead=f"{text('ldp.lead')} {_budget(collection)}",
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=(text("ldp.attack_caveat"),),
        method=f"Intervals: {_METHOD}. Epsilon: exact fractions of the law that is drawn.",
        references=(
            "Wang, Blocki, Li, Jha 2017, Locally differentially private protocols for frequency "
            "estimation, USENIX Security.",
            "Arcolezi, Gambs 2024, Revealing the true cost of locally differentially private "
            "protocols: an auditing perspective, arXiv 2309.01597.",
            "Cheu, Smith, Ullman 2021, Manipulation attacks in local differential privacy, "
            "arXiv 1909.09630.",
            "Clopper, Pearson 1934, The use of confidence or fiducial limits.",
        ),
        blocks=tuple(blocks),
    )


def _keys(columns: list[LocalColumn]) -> list[str]:
    """Return distinct identifiers of columns."""
    out: list[str] = []
    for at, column in enumerate(columns):
        plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in column.name.lower())
        key = plain.strip("_") or f"column_{at + 1}"
        out.append(key if key not in out else f"{key}_{at + 1}")
    return out


def _budget(collection: LocalCollection) -> str:
    how = ""
    if len(collection.aggregators) > 1:
        how = (
            ", each on one column"
            if collection.strategy == "smp"
            else ", each on all columns together"
        )
    return (
        f"A user who sends reports once{how}, spends epsilon "
        f"{format_upper(collection.epsilon)} (local, for any two values)."
    )


def _heading(column: LocalColumn) -> str:
    n = 0 if column.estimate is None else column.estimate.n
    return (
        f"{column.name}: {column.protocol.name}, epsilon {column.protocol.epsilon:g}, "
        f"{n:,} reports"
    )


def _labels(column: LocalColumn) -> list[str]:
    assert column.estimate is not None
    named = unique_labels(column.estimate.values)
    return [named[v] for v in column.estimate.values]


def _values(column: LocalColumn) -> list[Value]:
    e = column.estimate
    assert e is not None
    method = _METHOD + (", simultaneous" if e.simultaneous else "")
    return [
        Value(float(f), float(a), float(b), confidence=e.confidence, method=method, n=e.n)
        for f, a, b in zip(e.frequencies_raw, e.ci_low, e.ci_high, strict=True)
    ]


def _table(key: str, column: LocalColumn) -> Table:
    e = column.estimate
    assert e is not None
    heads = [Column("value", column.name, "label"), Column("frequency", "Frequency", "value"),
             Column("std", "Std", "number")]  # fmt: skip
    cells: list[list[Any]] = [_labels(column), _values(column), [float(s) for s in e.std]]
    notes = ["Unbiased estimates: negative ones are near zero, not errors."]
    if e.simultaneous:
        notes.append("All intervals of the column hold together.")
    if e.postprocess is not None:
        heads.append(Column("consistent", f"After {e.postprocess}", "number"))
        cells.append([float(f) for f in e.frequencies])
        notes.append(
            "Post-processed frequencies are consistent and biased; they have no interval."
        )
    return Table(
        f"ldp-{key}", f"Estimated frequencies of {column.name}", tuple(heads),
        tuple(zip(*cells, strict=True)), tuple(notes), collapsed=len(cells[0]) > _MOST_DRAWN,
    )  # fmt: skip


def _figure(key: str, column: LocalColumn) -> Figure:
    e = column.estimate
    assert e is not None
    order = np.argsort(-e.frequencies_raw, kind="stable")[:_MOST_DRAWN]
    labels, values = _labels(column), _values(column)
    rows = tuple(("", labels[i], "", values[i]) for i in order)
    low = min(0.0, *(float(e.ci_low[i]) for i in order))
    high = max(float(e.ci_high[i]) for i in order)
    left = len(labels) - len(order)
    more = f"; {left} rarer values are in the table only" if left else ""
    return Figure(
        f"fig-ldp-{key}",
        "dots",
        f"Frequencies of {column.name}",
        f"Estimated frequency of each value of {column.name} with its interval, most frequent "
        f"first{more}. Intervals that reach below the dashed line at zero hold no evidence that "
        "the value occurs.",
        Table(
            f"fig-ldp-{key}-data",
            f"Frequencies of {column.name}: data of the figure",
            (
                Column("attribute", "Column", "label"),
                Column("group", "Value", "label"),
                Column("series", "Series"),
                Column("frequency", "Frequency", "value"),
            ),
            rows,
        ),
        {
            "panels": [
                {"key": "frequency", "label": "frequency", "reference": [0.0],
                 "limits": [1.05 * low, 1.05 * high]}
            ],
            "series": [""],
        },
    )  # fmt: skip


def _mean(key: str, column: LocalColumn) -> Finding:
    mean = column.mean
    assert mean is not None
    value = Value.of(mean)
    if mean.status == "ok":
        words = (
            f"The mean of {column.name} is between {mean.low:.4g} and {mean.high:.4g}, about "
            f"{mean.value:.4g} by the middles of the bins: all that the histogram says."
        )
    else:
        words = f"The mean of {column.name} is not estimable: {mean.reason}."
    return Finding(
        f"ldp.mean.{key}", "note", words, f"Mean of {column.name}, from its histogram", value,
        f"ldp/ldp-{key}", rank=30,
    )  # fmt: skip


def _attacks(columns: list[LocalColumn]) -> Table:
    rows = []
    for column in columns:
        view, shuffled = column.attack, column.attack["shuffled"]
        lower = view["lower_epsilon"]
        rows.append(
            (
                column.name, clean_label(view["protocol"]), f"{view['declared_epsilon']:g}",
                format_upper(view["exact_epsilon"], 12),
                "not attacked" if lower is None else f"at least {format_lower(lower)}",
                f"{100 * view['attack_success']:.1f} % "
                f"({100 * view['guess_without_report']:.1f} %)",
                f"{view['poisoning_bound']:.4g}",
                "" if shuffled is None
                else f"{format_upper(shuffled['epsilon'])} at delta {shuffled['delta']:g}",
            )
        )  # fmt: skip
    shares = {f"{100 * c.attack['fake_users']:g} %" for c in columns}
    return Table(
        "ldp-attacks",
        "Declared, computed and attacked",
        (
            Column("column", "Column", "label"),
            Column("protocol", "Randomiser", "text"),
            Column("declared", "Declared epsilon", "text"),
            Column("exact", "Computed epsilon", "text"),
            Column("lower", "Attacked", "text"),
            Column("success", "One report guessed (without it)", "text"),
            Column("poisoning", "Fake users raise a frequency by at most", "text"),
            Column("shuffled", "Epsilon behind a trusted shuffler", "text"),
        ),
        tuple(rows),
        notes=(
            f"Fake users: {', '.join(sorted(shares))} of all. Computed: for domains of at most "
            "six values with the same randomiser. Guessed: all values equally likely.",
        ),
    )


def _attack_findings(keys: list[str], columns: list[LocalColumn]) -> list[Finding]:
    out = []
    for key, column in zip(keys, columns, strict=True):
        view = column.attack
        path = "ldp/ldp-attacks"
        if view["contradicted"]:
            out.append(
                Finding(
                    f"privacy.local_contradiction.{key}", "critical",
                    f"The randomiser of {column.name} does not give the epsilon of "
                    f"{view['declared_epsilon']:g} that it declares.",
                    "Local guarantee contradicted",
                    Value(float(view["exact_epsilon"])), path, rank=1,
                )
            )  # fmt: skip
        bound = float(view["poisoning_bound"])
        out.append(
            Finding(
                f"ldp.poisoning.{key}", "note",
                f"{100 * view['fake_users']:g} % fake users can raise a frequency of "
                f"{column.name} by at most {bound:.4g}.",
                f"Poisoning bound, {column.name}", Value(bound), path,
            )
        )  # fmt: skip
    return out
