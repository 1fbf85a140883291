"""Who is in the audited rows, how often the outcome occurs, what is missing or suspicious."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.frames import missing_mask
from privfair.core.statistics import wilson_interval
from privfair.report._clean import clean_label, unique_labels
from privfair.report._context import AuditContext
from privfair.report._estimates import by_group, estimates
from privfair.report._inputs import slugs
from privfair.report._model import Block, Column, Figure, Finding, SectionResult, Table, Value
from privfair.report._numbers import count, number, percent

__all__ = ["build"]

MISSING_WORDS = {"missing", "?", "n/a", "na", "unknown", "null", "none", ""}
N_BINS = 20
MAX_LEVELS = 200
LEAK = 0.95
PROXY = 0.8


def build(ctx: AuditContext) -> SectionResult:
    """Build the section."""
    tables, figures, findings, blocks = [], [], [], []
    if ctx.labels is not None:
        blocks.append(Block("heading", text="Outcome by group"))
        blocks.append(Block("text", text=ctx.text("data.base_rates")))
    for crossing in ctx.singles():
        tables.append(_sizes(ctx, crossing))
        blocks.append(Block("table", tables[-1].id))
    if ctx.private:
        text = (
            "Missing values, repeated rows and revealing features were not looked at: that would "
            "read the rows beyond the tables that were released."
        )
        blocks.append(Block("note", text=text))
    if ctx.features is not None:
        blocks.append(Block("heading", text="Missing values"))
        figure, text, found = _missing(ctx)
        findings.append(found)
        blocks.append(Block("text", text=text))
        if figure is not None:
            figures.append(figure)
            blocks.append(Block("figure", figure.id))
        blocks.append(Block("heading", text="Repeated rows and revealing features"))
        text, found = _duplicates(ctx)
        findings.append(found)
        blocks.append(Block("text", text=text))
        table, more = _associations(ctx)
        findings += more
        tables.append(table)
        blocks.append(Block("table", table.id))
    return SectionResult(
        "data",
        ctx.text("section.data"),
        lead=ctx.text("data.lead"),
        findings=tuple(findings),
        tables=tuple(tables),
        figures=tuple(figures),
        caveats=ctx.dataset.caveats,
        method=(
            "Base rates have Wilson intervals. A value counts as missing if it is empty, NaN or a "
            "category such as 'missing' or '?'. Association is the bias-corrected Cramer's V (0 "
            f"for independence, 1 if one determines the other); numbers are cut into {N_BINS} "
            "equally filled bins for it."
        ),
        references=(
            "Wilson 1927, Probable inference, the law of succession, and statistical inference.",
            "Bergsma 2013, A bias-correction for Cramer's V and Tschuprow's T.",
            "Gebru et al. 2021, Datasheets for Datasets, arXiv 1803.09010.",
        ),
        blocks=tuple(blocks),
    )


# -- sizes and base rates ---------------------------------------------------------------------
def _base_rates(ctx: AuditContext, crossing: Any) -> list[Value]:
    if ctx.private:
        return by_group(estimates(ctx, ctx.subject, crossing, ("base_rate",))["base_rate"])
    assert ctx.labels is not None
    cells = crossing.counts(ctx.labels)
    n = cells.sum(axis=1)
    interval = wilson_interval(cells[:, 1], n, confidence=ctx.config.confidence)
    rows = zip(interval.value, interval.low, interval.high, n, strict=True)
    return [
        Value(
            p, low, high, confidence=ctx.config.confidence, method="wilson", n=int(size),
            status="ok" if size >= ctx.config.min_count else "small_sample",
        )
        for p, low, high, size in rows
    ]  # fmt: skip


def _sizes(ctx: AuditContext, crossing: Any) -> Table:
    columns = [
        Column("group", crossing.name, "label"),
        Column("n", "Rows", "count"),
        Column("share", "Share of rows", "number"),
    ]
    sizes = ctx.sizes(crossing)
    rows = [
        [name, int(n), float(n / ctx.n)] for name, n in zip(crossing.names, sizes, strict=True)
    ]
    if ctx.labels is not None and ctx.private:
        columns.append(Column("base_rate", "Base rate", "value"))
        for row, rate in zip(rows, _base_rates(ctx, crossing), strict=True):
            row.append(rate)
    elif ctx.labels is not None:
        columns += [
            Column("positives", "Positive outcomes", "count"),
            Column("base_rate", "Base rate", "value"),
        ]
        positives = crossing.counts(ctx.labels)[:, 1]
        rates = _base_rates(ctx, crossing)
        for row, k, rate in zip(rows, positives, rates, strict=True):
            row += [int(k), rate]
    return Table(
        f"sizes-{ctx.crossing_id(crossing)}",
        f"Rows and outcomes by {crossing.name}",
        tuple(columns),
        tuple(tuple(row) for row in rows),
        ctx.note_of_suppressed(crossing),
    )


# -- missing values ---------------------------------------------------------------------------
def _gone(values: NDArray[Any]) -> NDArray[np.bool_]:
    gone = missing_mask(values)
    if values.dtype.kind == "O":
        words = np.array([isinstance(v, str) and v.strip().lower() in MISSING_WORDS
                          for v in values.tolist()])  # fmt: skip
        gone = gone | words
    return gone


def _missing(ctx: AuditContext) -> tuple[Figure | None, str, Finding]:
    table = ctx.features
    assert table is not None
    masks = {name: _gone(table.column(name)) for name in table.columns}
    masks = {name: gone for name, gone in masks.items() if gone.any()}
    cells = sum(int(gone.sum()) for gone in masks.values())
    rows_with = int(np.any(list(masks.values()), axis=0).sum()) if masks else 0
    share = rows_with / ctx.n
    hide = ctx.small(rows_with) or ctx.small(cells)
    some = f"{count(rows_with)} of {count(ctx.n)} rows ({percent(share)}) lack"
    few = f"Fewer than {ctx.config.min_cell} rows lack"
    finding = Finding(
        "data.missing",
        "note",
        f"{few if hide else some} a value in at least one of {len(masks)} columns.",
        "Rows with missing values",
        Value.missing("small count", "suppressed") if hide else Value(share, n=ctx.n),
        "data",
    )
    if not masks:
        return None, "No value is missing in the features.", finding
    worst = sorted(masks, key=lambda name: -int(masks[name].sum()))[:12]
    label = unique_labels(table.columns, 40)
    crossings = list(ctx.singles())
    columns = ["all rows"]
    if ctx.config.min_cell is None:
        columns += crossings[0].names[:8]
    data = []
    for name in worst:
        gone = masks[name]
        whole = _share_and_count(int(gone.sum()), ctx.n, ctx)
        data.append((label[name], "all rows", *whole))
        if ctx.config.min_cell is not None:
            continue  # groups' counts could be subtracted from the whole
        by_group = crossings[0].counts(gone)
        for group, (present, absent) in list(
            zip(crossings[0].names, by_group.tolist(), strict=True)
        )[:8]:
            data.append((label[name], group, *_share_and_count(absent, present + absent, ctx)))
    figure = Figure(
        "fig-missing",
        "heat",
        f"Share of missing values by column and {crossings[0].name}",
        "Deeper colour means a larger share; the count of missing values stands below it.",
        Table(
            "fig-missing-data",
            "Missing values",
            (
                Column("row", "Column", "label"),
                Column("column", crossings[0].name),
                Column("value", "Share missing", "value"),
                Column("n", "Missing", "count"),
            ),
            tuple(data),
        ),
        {"rows": [label[name] for name in worst], "columns": columns, "counts": True},
    )
    if hide:
        return None, f"Fewer than {ctx.config.min_cell} rows lack a value.", finding
    text = (
        f"{count(cells)} values are missing, in {count(rows_with)} rows ({percent(share)}) and "
        f"{len(masks)} of {len(table.columns)} columns."
    )
    return figure, text, finding


def _share_and_count(k: int, n: int, ctx: AuditContext) -> tuple[Value, int | None]:
    if n == 0:
        return Value.missing("no rows", n=0), 0
    if ctx.config.min_cell is not None and (ctx.small(k) or ctx.small(n - k)):
        return Value.missing("small count", "suppressed"), None
    i = wilson_interval(k, n, confidence=ctx.config.confidence)
    return Value(i.value, i.low, i.high, ctx.config.confidence, "wilson", n), k


# -- duplicates -------------------------------------------------------------------------------
def _duplicates(ctx: AuditContext) -> tuple[str, Finding]:
    import pandas as pd

    assert ctx.features is not None
    frame = pd.DataFrame({i: ctx.features.column(n) for i, n in enumerate(ctx.features.columns)})
    same_features = int(frame.duplicated().sum())
    if ctx.small(same_features):
        text = f"Fewer than {ctx.config.min_cell} rows repeat the features of an earlier row."
        hidden = Value.missing("small count", "suppressed")
        return text, Finding("data.duplicates", "note", text, "Repeated rows", hidden, "data")
    text = f"{count(same_features)} rows have exactly the features of an earlier row"
    if ctx.labels is not None:
        frame["label"] = ctx.labels
        same_all = int(frame.duplicated().sum())
    if ctx.labels is not None and not (ctx.small(same_all) or ctx.small(same_features - same_all)):
        text += f"; {count(same_all)} of them also have its outcome"
    text += (
        ". Repeated rows are not wrong in themselves; where they come from copying, every "
        "interval below is too narrow."
    )
    share = same_features / ctx.n
    finding = Finding(
        "data.duplicates", "note",
        f"{count(same_features)} rows repeat the features of an earlier row.",
        "Repeated rows", Value(share, n=ctx.n), "data",
    )  # fmt: skip
    return text, finding


# -- revealing features -----------------------------------------------------------------------
def _levels(values: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return codes of a feature's levels, or None for an identifier."""
    import pandas as pd

    if values.dtype.kind in "fiu":
        distinct = np.unique(values[~missing_mask(values)])
        if distinct.size > N_BINS:
            cuts = np.unique(np.nanquantile(values.astype(float), np.linspace(0, 1, N_BINS + 1)))
            filled = np.nan_to_num(values.astype(float))
            codes = np.searchsorted(cuts[1:-1], filled, side="right")
            if np.unique(codes).size < 2:  # nearly always one value, such as zero
                codes = filled > np.median(filled)
            return np.asarray(codes, dtype=np.int64)
    codes, levels = pd.factorize(pd.Series(list(values), dtype=object), use_na_sentinel=False)
    if len(levels) > MAX_LEVELS and len(levels) > 0.2 * len(values):
        return None
    return np.asarray(codes, dtype=np.int64)


def cramers_v(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Return the bias-corrected association of two categorical columns, in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(400) % 2
    >>> round(cramers_v(x, x), 3), cramers_v(x, np.arange(400) // 200)
    (1.0, 0.0)
    """
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    table = np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0].astype(float)
    n, (r, c) = table.sum(), table.shape
    if min(r, c) < 2 or n < 2:
        return float("nan")
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = float(((table - expected) ** 2 / expected).sum()) / n
    phi2 = max(0.0, phi2 - (r - 1) * (c - 1) / (n - 1))
    r_c, c_c = r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)
    return float(min(1.0, np.sqrt(phi2 / max(min(r_c, c_c) - 1, 1e-12))))


def _associations(ctx: AuditContext) -> tuple[Table, list[Finding]]:
    features = ctx.features
    assert features is not None
    targets: dict[str, NDArray[np.int64]] = {}
    if ctx.labels is not None:
        targets["outcome"] = ctx.labels.astype(np.int64)
    for crossing in ctx.singles():
        targets[crossing.name] = crossing.codes
    label = unique_labels(features.columns, 40)
    keys = slugs(features.columns, "feature")
    rows, findings, identifiers = [], [], []
    for name in features.columns:
        codes = _levels(features.column(name))
        if codes is None:
            identifiers.append(label[name])
            continue
        values: dict[str, float | None] = {
            t: None if clean_label(name) == t else _association(codes, c)
            for t, c in targets.items()
        }
        rows.append((label[name], values))
        findings += _revealing(ctx, label[name], keys[name], values)
    rows.sort(key=lambda row: -max((v for v in row[1].values() if v is not None), default=0))
    notes = ["A feature is not compared with itself; such cells are empty."]
    if identifiers:
        notes.append(
            f"Left out because nearly every row has its own value: {', '.join(identifiers)}."
        )
    table = Table(
        "associations",
        "Association of features with the outcome and the sensitive attributes (Cramer's V)",
        (
            Column("feature", "Feature", "label"),
            *(Column(f"v{k}", t, "number") for k, t in enumerate(targets)),
        ),
        tuple((name, *values.values()) for name, values in rows[:15]),
        tuple(notes),
    )
    return table, findings


def _association(codes: NDArray[np.int64], target: NDArray[np.int64]) -> float | None:
    inside = target >= 0  # rows of suppressed groups are outside
    value = cramers_v(codes[inside], target[inside]) if inside.any() else float("nan")
    return None if np.isnan(value) else value


def _revealing(
    ctx: AuditContext, name: str, key: str, values: dict[str, float | None]
) -> list[Finding]:
    found = []
    for target, v in values.items():
        if v is None or not v >= (LEAK if target == "outcome" else PROXY):
            continue
        if target == "outcome":
            text = (
                f"{name} nearly determines the outcome (V = {number(v)}). It may be known only "
                "after the outcome: check for leakage."
            )
            found.append(Finding(f"data.leakage.{key}", "attention", text, f"{name}: leakage?",
                                 Value(v, n=ctx.n), "data/associations"))  # fmt: skip
        else:
            text = (
                f"{name} nearly reveals {target} (V = {number(v)}): leaving {target} out of the "
                "features does not make a model blind to it."
            )
            identifier = f"data.proxy.{key}.{ctx.attribute_ids[target]}"
            found.append(Finding(identifier, "note", text, f"{name} reveals {target}",
                                 Value(v, n=ctx.n), "data/associations"))  # fmt: skip
    return found
