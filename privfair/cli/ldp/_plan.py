"""``plan``: which randomiser fits, and what its estimates will be worth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import (
    FiniteFloat,
    WholeNumber,
    dataset_size_option,
    epsilon_option,
    example,
    note,
    output,
)
from privfair.cli.ldp._columns import collection_options, describe

if TYPE_CHECKING:
    from rich.console import Console

    from privfair.ldp import Collection, Selection

__all__ = ["plan"]

_Z = 1.959963984540054  # of a 95 % interval


@click.command()
@click.option("--k", type=WholeNumber(2), default=None, help="Number of values of the domain.")
@epsilon_option(required=True, help="Local privacy of all that one user sends.")
@dataset_size_option(help="Number of users who are expected to report.")
@click.option(
    "--max-report-bits", type=WholeNumber(), default=None, help="Most bits of one report."
)
@click.option(
    "--max-server-ops", type=FiniteFloat(0, low_open=True), default=None,
    help="Most operations of the server, all reports together; needs --n.",
)  # fmt: skip
@click.option(
    "--epsilon-perm", type=FiniteFloat(0, 50, low_open=True), default=None,
    help="Values reported again and again: epsilon of all reports about one value, above "
    "--epsilon, which is that of the first.",
)  # fmt: skip
@click.option(
    "--reports", type=WholeNumber(), default=100, show_default=True,
    help="With --epsilon-perm: reports of each user.",
)  # fmt: skip
@collection_options
@click.option(
    "--output", "target", type=click.Path(path_type=Path), default=None,
    help="Write the plan of the columns, for privatize and aggregate --collection.",
)  # fmt: skip
@example("privfair ldp plan --k 74 --epsilon 1 --n 100000")
def plan(
    k: int | None,
    epsilon: float,
    dataset_size: int | None,
    max_report_bits: int | None,
    max_server_ops: float | None,
    epsilon_perm: float | None,
    reports: int,
    target: Path | None,
    **given: Any,
) -> None:
    """Compare the randomisers for a domain of K values, or for public columns.

    Reads no data. With --column, the public description of the collection is made, which
    --output saves: clients and server then take it from there.
    """
    limits = {"max_report_bits": max_report_bits, "max_server_ops": max_server_ops,
              "n": dataset_size}  # fmt: skip
    if (k is None) == (not given["columns"]):
        raise click.UsageError("give --k with the size of a domain, or --column with columns.")
    if epsilon_perm is not None:
        if k is None or target is not None or max_report_bits or max_server_ops:
            raise click.UsageError("--epsilon-perm goes with --k, --epsilon, --n and --reports.")
        _of_repeated(k, epsilon, epsilon_perm, reports, dataset_size)
        return
    if k is not None:
        _of_domain(k, epsilon, limits, target)
        return
    _of_columns(describe(epsilon=epsilon, **given), dataset_size, target)


def _of_domain(k: int, epsilon: float, limits: dict[str, Any], target: Path | None) -> None:
    from privfair.ldp import choose

    if target is not None:
        raise click.UsageError("--output needs --column: a plan names the values of columns.")
    selection = choose(k, epsilon, **limits)
    n = limits["n"]
    rows = [
        {
            "protocol": row["protocol"],
            "variance": row["variance"],
            **_accuracy(row["variance"], n),  # type: ignore[arg-type]
            "report_bits": row["report_bits"],
            "server_ops": row["server_ops"] if n is not None else None,
            "excluded": row["excluded"],
        }
        for row in selection.rows
    ]
    payload = {
        "k": k, "epsilon": epsilon, "n": n, "best": selection.best.name,
        "parameters": selection.best.parameters(), "protocols": rows,
        "statement": "variance is that of one report at frequency 0",
    }  # fmt: skip
    output(payload, lambda console: _draw(console, selection, rows, n))


def _of_repeated(k: int, epsilon: float, perm: float, reports: int, n: int | None) -> None:
    """Compare protocols with a memory, for values that are collected again and again."""
    from privfair.ldp import LGRR, LOLOHA, LOSUE, LSUE

    made = [make(k, perm, epsilon) for make in (LGRR, LOSUE, LSUE, LOLOHA)]
    made.sort(key=lambda protocol: float(protocol.variance()))
    rows = [
        {
            "protocol": protocol.name,
            "variance": protocol.variance(),
            **_accuracy(protocol.variance(), n),
            "report_bits": protocol.report_bits,
            "epsilon_first": protocol.epsilon,
            "epsilon_after_reports": protocol.epsilon_after(reports),
            "epsilon_most": min(k, protocol.max_memos) * protocol.eps_perm,
        }
        for protocol in made
    ]
    payload = {
        "k": k, "epsilon": epsilon, "epsilon_perm": perm, "reports": reports, "n": n,
        "best": rows[0]["protocol"], "protocols": rows,
        "statement": "epsilon_after_reports is for one value that stays; epsilon_most for any "
        "number of reports about any values",
    }  # fmt: skip
    lines = [f"values reported {reports} times, {k} values; epsilon of a user who reports"]
    lines.append("protocol  variance of 1 report  bits  once  so often, one value  any values")
    lines += [
        f"{r['protocol']:<8}  {r['variance']:>20.5g}  {r['report_bits']:>4}  "
        f"{r['epsilon_first']:>4.3g}  {r['epsilon_after_reports']:>19.5g}  "
        f"{r['epsilon_most']:>10.4g}"
        for r in rows
    ]
    output(payload, "\n".join(lines))


def _accuracy(variance: float, n: int | None) -> dict[str, float | None]:
    std = None if n is None else math.sqrt(variance / n)
    return {"std": std, "half_width": None if std is None else _Z * std}


def _draw(
    console: Console, selection: Selection, rows: list[dict[str, Any]], n: int | None
) -> None:
    from rich.table import Table

    best = selection.best
    console.print(f"{best.name}: least variance for {best.k} values at epsilon {best.epsilon:g}")
    table = Table(box=None, pad_edge=False)
    table.add_column("protocol")
    heads = ["variance of 1 report", "bits"]
    if n is not None:
        heads[1:1] = [f"std at n={n}", "95 % interval, +-"]
        heads.append("server operations")
    for head in heads:
        table.add_column(head, justify="right")
    table.add_column("left out because")
    for row in rows:
        cells = [f"{row['variance']:.5g}"]
        if n is not None:
            cells += [f"{row['std']:.3g}", f"{row['half_width']:.3g}"]
        cells.append(str(row["report_bits"]))
        if n is not None:
            cells.append(f"{row['server_ops']:.3g}")
        table.add_row(str(row["protocol"]), *cells, str(row["excluded"]))
    console.print(table)
    console.print("Of a value with frequency 0, the usual case in a large domain.")


def _of_columns(collection: Collection, n: int | None, target: Path | None) -> None:
    from privfair.cli._audit_files import check_target
    from privfair.ldp._collection import append_frames

    users = None
    if n is not None:
        users = n / len(collection.columns) if collection.strategy == "smp" else float(n)
    columns = [
        {
            "column": column.name, "protocol": column.protocol.name, "k": column.protocol.k,
            "epsilon": column.protocol.epsilon, "variance": column.protocol.variance(),
            "std": None if users is None else math.sqrt(column.protocol.variance() / users),
            "report_bits": column.protocol.report_bits,
        }
        for column in collection.columns
    ]  # fmt: skip
    payload = {
        "epsilon": collection.epsilon, "n": n,
        "strategy": collection.strategy if len(columns) > 1 else None, "columns": columns,
    }  # fmt: skip
    lines = [f"epsilon {collection.epsilon:g} for all that one user sends"]
    for c in columns:
        std = "" if c["std"] is None else f", std {c['std']:.3g}"
        lines.append(
            f"{c['column']}: {c['protocol']}, {c['k']} values, epsilon {c['epsilon']:g}{std}"
        )
    if target is not None:
        check_target(target, "--output")
        append_frames(target, collection, [], replace=True)
    output(payload, "\n".join(lines))
    if target is not None:
        note(f"plan: {target}")
