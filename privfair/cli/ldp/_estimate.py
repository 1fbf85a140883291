"""``estimate``: frequencies with intervals from a state or from files of reports."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import FiniteFloat, clean, example, note, output, state
from privfair.cli.ldp._aggregate import _MAKE, load_state

if TYPE_CHECKING:
    from rich.console import Console

    from privfair.ldp import Aggregator, Collection, FrequencyEstimate

__all__ = ["estimate"]

RULES = ("none", "norm_sub", "norm_mul", "norm", "base_cut", "norm_cut", "ibu", "ibu_marginal")
_CSV = ("column", "value", "frequency", "raw", "low", "high", "std", "reports")


@click.command()
@click.argument("source", metavar="STATE", type=click.Path(path_type=Path))
@click.option(
    "--confidence", type=FiniteFloat(0, 1, low_open=True, high_open=True), default=0.95,
    show_default=True, help="Level of the intervals.",
)  # fmt: skip
@click.option(
    "--simultaneous", is_flag=True, help="All intervals of a column hold together (Bonferroni)."
)
@click.option(
    "--postprocess", "rule", type=click.Choice(RULES), default="none", show_default=True,
    help="Make frequencies consistent, at the price of bias; raw ones and intervals are kept.",
)  # fmt: skip
@click.option(
    "--csv", "table_file", type=click.Path(path_type=Path), default=None,
    help="Write all values as a table; - prints it.",
)  # fmt: skip
@click.option(
    "--html", "page", type=click.Path(path_type=Path), default=None,
    help="Write a page with estimates, figures and the attack view.",
)  # fmt: skip
@click.option("--top", type=click.IntRange(1), default=20, show_default=True,
              help="Rows per column that are printed.")  # fmt: skip
@example(
    f"{_MAKE} && privfair ldp aggregate a.rpt --output state --quiet > sums.txt && "
    "privfair ldp estimate state --postprocess norm_sub"
)
def estimate(
    source: Path,
    confidence: float,
    simultaneous: bool,
    rule: str,
    table_file: Path | None,
    page: Path | None,
    top: int,
) -> None:
    """Estimate how frequent each value is, from what aggregate wrote.

    Intervals are those of the raw, unbiased estimates, which may be negative and need not sum to
    one. A binned numeric column also gets the bounds that its histogram sets to the mean.
    """
    from privfair.cli._audit_files import check_target, write_text

    printed = table_file is not None and str(table_file) == "-"
    if printed and state().json:
        raise click.UsageError("--json and --csv - both print; give --csv PATH.")
    for path, option in ((table_file, "--csv"), (page, "--html")):
        if path is not None and not (option == "--csv" and printed):
            check_target(path, option)
            if path.exists() and source.exists() and path.samefile(source):
                raise click.UsageError(f"{option} names the state itself.")
    collection, sums = load_state(source)
    postprocess = None if rule == "none" else rule
    found = [
        s.estimate(postprocess, confidence, simultaneous) if s.n_reports_ else None for s in sums
    ]
    means = [_mean(c.edges, s, confidence) for c, s in zip(collection.columns, sums, strict=True)]
    payload = _payload(collection, found, means)
    if page is not None:
        write_text(page, _page(collection, sums, confidence, simultaneous, postprocess))
    text = _table(collection, found) if table_file is not None else ""
    if table_file is not None and not printed:
        write_text(table_file, text)
    if printed:
        click.echo(text, nl=False)
    else:
        output(payload, lambda console: _draw(console, collection, found, means, top))
    for written in (None if printed else table_file, page):
        if written is not None:
            note(f"written: {written}")


def _mean(edges: tuple[float, ...] | None, sums: Aggregator, confidence: float) -> Any:
    """Return the bounds of the mean of a binned column with finite ends, or None."""
    from privfair.ldp import binned_mean

    if edges is None or not _bounded(edges) or not sums.n_reports_:
        return None
    return binned_mean(sums.estimate(None, confidence, True), edges)


def _bounded(edges: tuple[float, ...] | None) -> bool:
    return edges is not None and all(map(math.isfinite, edges))


def _payload(
    collection: Collection, found: list[FrequencyEstimate | None], means: list[Any]
) -> dict[str, Any]:
    columns = []
    for column, one, mean in zip(collection.columns, found, means, strict=True):
        entry: dict[str, Any] = {
            "column": column.name, "protocol": column.protocol.name, "k": column.protocol.k,
            "epsilon": column.protocol.epsilon,
            "status": "ok" if one is not None else "no_reports",
        }  # fmt: skip
        if one is not None:
            entry |= one.to_dict()
            entry["values"] = list(column.values)
        entry["mean"] = None if mean is None else mean.to_dict()
        columns.append(entry)
    return {
        "epsilon": collection.epsilon,
        "strategy": collection.strategy if len(columns) > 1 else None,
        "reports": sum(one.n for one in found if one is not None),
        "columns": columns,
    }


def _table(collection: Collection, found: list[FrequencyEstimate | None]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV)
    for column, one in zip(collection.columns, found, strict=True):
        if one is None:
            continue
        numbers = zip(
            one.frequencies, one.frequencies_raw, one.ci_low, one.ci_high, one.std, strict=True
        )
        for value, row in zip(column.values, numbers, strict=True):
            numbers_of_row = [repr(float(x)) for x in row]
            writer.writerow([_guarded(column.name), _guarded(value), *numbers_of_row, one.n])
    return stream.getvalue()


def _guarded(value: Any) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    text = str(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _draw(
    console: Console,
    collection: Collection,
    found: list[FrequencyEstimate | None],
    means: list[Any],
    top: int,
) -> None:
    import numpy as np
    from rich.table import Table

    for column, one, mean in zip(collection.columns, found, means, strict=True):
        own = column.protocol
        head = f"{clean(column.name)}: {own.name}, epsilon {own.epsilon:g}"
        if one is None:
            console.print(f"{head}: no report, so nothing can be estimated")
            continue
        console.print(f"{head}, {one.n} reports")
        table = Table(box=None, pad_edge=False)
        table.add_column("value")
        together = ", all together" if one.simultaneous else ""
        heads = ["frequency", f"{100 * one.confidence:g} % interval{together}"]
        if one.postprocess is not None:
            heads.insert(1, "raw")
        for name in heads:
            table.add_column(name, justify="right")
        order = np.argsort(-one.frequencies, kind="stable")
        for at in order[:top]:
            cells = [
                f"{one.frequencies[at]:z.4f}",
                f"{one.ci_low[at]:z.4f} to {one.ci_high[at]:z.4f}",
            ]
            if one.postprocess is not None:
                cells.insert(1, f"{one.frequencies_raw[at]:z.4f}")
            table.add_row(clean(column.values[at]), *cells)
        console.print(table)
        if len(order) > top:
            console.print(f"and {len(order) - top} values more; --top, --csv or --json show them")
        if mean is not None:
            console.print(_sentence(mean))
    console.print("Intervals are those of the raw estimates, never of post-processed ones.")


def _sentence(mean: Any) -> str:
    if mean.status != "ok":
        return f"mean: not estimable ({mean.reason})"
    return (
        f"mean: between {mean.low:.4g} and {mean.high:.4g}, about {mean.value:.4g} by the middles "
        "of the bins; wherever in their bins the numbers lie"
    )


def _page(
    collection: Collection,
    sums: list[Aggregator],
    confidence: float,
    simultaneous: bool,
    postprocess: str | None,
) -> str:
    from privfair.report import LocalCollection, ldp_report

    edges = {c.name: c.edges for c in collection.columns if _bounded(c.edges)}
    study = LocalCollection(
        {c.name: s for c, s in zip(collection.columns, sums, strict=True)},
        strategy=collection.strategy,
        edges={name: e for name, e in edges.items() if e is not None},
        confidence=confidence,
        simultaneous=simultaneous,
        postprocess=postprocess,
    )
    html: str = ldp_report(study).to_html()
    return html
