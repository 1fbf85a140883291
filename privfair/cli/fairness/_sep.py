"""``sep``: how underprivileged members of each group fare, and what effort returns."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import clean, example, note, output, warn
from privfair.cli.fairness._plot import PLOT, check_plot, save
from privfair.cli.fairness._table import LEDGER, RULES, Rows, column_options, enter_raw, read_rows

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["sep"]

_TABLE = (
    r"printf 'yhat,sex,edu,hours\n1,f,9,40\n0,f,13,20\n0,f,8,45\n1,m,9,50\n1,m,14,40\n0,m,7,60\n'"
    " | "
)
_COLUMNS = ("n_target", "rate_target", "gap", "dp_part", "ses_part", "gap_to_rest", "note")


@click.command()
@column_options(label=False, client=False, score=True)
@RULES[0]
@RULES[1]
@click.option("--reference", type=click.Choice(["conditional", "overall"]), default="conditional",
              show_default=True,
              help="With --effort: compare with all who show it, or with everybody.")  # fmt: skip
@click.option("--min-group", type=click.IntRange(1), default=30, show_default=True,
              help="Sets with fewer rows get no gap.")  # fmt: skip
@click.option("--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              default=0.95, show_default=True, help="Level of the intervals.")  # fmt: skip
@LEDGER
@PLOT
@example(_TABLE + "privfair fairness sep --predictions - --prediction yhat --sensitive sex "
         "--ses 'edu < 10' --effort 'hours >= 40' --min-group 1")  # fmt: skip
def sep(plot: Path | None, **given: Any) -> None:
    """Compare underprivileged members of each group with everybody (socio-economic parity).

    A gap above 0 means that they are selected too rarely; it is the sum of the gap of the group
    and the gap of status inside it. With --effort the same among those who show effort.
    """
    from privfair.cli._audit_files import check_target
    from privfair.cli._audit_rules import parsed_rules, rule_columns

    check_plot(plot)
    if plot is not None and given["effort"] is None:
        raise click.UsageError("--plot draws selection by effort; give --effort.")
    if given["ledger_path"] is not None:
        check_target(given["ledger_path"], "--ledger")
    rules, effort = parsed_rules(given["ses"], given["effort"])
    rows = read_rows(given, tuple(rule_columns(rules, effort)))
    enter_raw(given["ledger_path"], rows.name, "raw socio-economic parity")
    found = [_of(rows, given, name, rule, effort) for name, rule in (rules or {}).items()]
    payload = {"kind": "sep", "rows": len(rows.frame), "rules": [entry for entry, _, _ in found]}
    output(payload, lambda console: _draw(console, found))
    for entry, _, _ in found:
        if entry["share_low"] > 0.8:
            warn(
                f"{100 * entry['share_low']:.0f} % of the rows are underprivileged by "
                f"{entry['ses']}: socio-economic parity is then nearly demographic parity."
            )
    if plot is not None:
        curve = found[0][2]
        save(plot, curve.plot)
        note(f"figure: {plot}")


def _decisions(rows: Rows) -> Any:
    return rows.score if rows.decisions is None else rows.decisions


def _of(
    rows: Rows, given: dict[str, Any], name: str, rule: Any, effort: Any
) -> tuple[dict[str, Any], list[tuple[str, Any]], Any]:
    """Return the data, the tables to print, and the effort curve of one rule."""
    from privfair.core.exceptions import PrivfairWarning
    from privfair.fairness.sep import effort_curve, sep_gaps

    y = _decisions(rows)
    low = rule.apply(rows.frame[list(rule.columns)])
    common: dict[str, Any] = {
        "min_group": given["min_group"], "confidence": given["confidence"],
    }  # fmt: skip
    tables, curve = [], None
    with warnings.catch_warnings():
        # What is too small or says nothing is told in the tables.
        warnings.simplefilter("ignore", PrivfairWarning)
        tables.append(("SEP", sep_gaps(y, rows.sensitive, low, **common)))
        if effort is not None:
            hours = rows.frame[effort.column]
            tables.append(
                (
                    "CSEP",
                    sep_gaps(
                        y, rows.sensitive, low, effort=effort.apply(rows.frame[[effort.column]]),
                        reference=given["reference"], **common,
                    ),
                )
            )  # fmt: skip
            curve = effort_curve(y, hours, low, rows.sensitive, min_group=given["min_group"])
    entry: dict[str, Any] = {
        "name": name,
        "ses": str(rule),
        "share_low": float(low.mean()),
        "effort": None if effort is None else str(effort),
        "reference": given["reference"] if effort is not None else "overall",
        "confidence": given["confidence"],
        **{
            title.lower(): table.reset_index().to_dict(orient="records") for title, table in tables
        },
        "effort_curve": None if curve is None else curve.to_dict(),
    }
    return entry, tables, curve


def _draw(
    console: Console, found: list[tuple[dict[str, Any], list[tuple[str, Any]], Any]]
) -> None:
    from rich.table import Table

    for entry, tables, curve in found:
        console.print(f"underprivileged: {clean(entry['ses'])} ({100 * entry['share_low']:.1f} %)")
        for title, frame in tables:
            where = f", among {clean(entry['effort'])}" if title == "CSEP" else ""
            table = Table(title=f"{title}{where}", box=None, pad_edge=False, title_justify="left")
            table.add_column("group")
            for head in ("rows", "selected", "gap", "interval", "of it: group",
                         "of it: status"):  # fmt: skip
                table.add_column(head, justify="right")
            for group, row in frame.iterrows():
                name = ", ".join(map(str, group)) if isinstance(group, tuple) else str(group)
                known = row["gap"] == row["gap"]
                table.add_row(
                    clean(name), str(int(row["n_target"])), _number(row["rate_target"]),
                    _number(row["gap"]) if known else clean(row["note"]),
                    f"{row['ci_low']:.3f} to {row['ci_high']:.3f}" if known else "",
                    _number(row["dp_part"]), _number(row["ses_part"]),
                )  # fmt: skip
            console.print(table)
        if curve is not None:
            table = Table(title="Return to effort, per unit", box=None, pad_edge=False,
                          title_justify="left")  # fmt: skip
            table.add_column("group")
            for head in ("low status", "high status", "gap at equal effort", "flag"):
                table.add_column(head, justify="right")
            for group, row in curve.summary.iterrows():
                name = ", ".join(map(str, group)) if isinstance(group, tuple) else str(group)
                table.add_row(clean(name), _number(row["return_low"], 4),
                              _number(row["return_high"], 4), _number(row["standardised_gap"]),
                              clean(row["flag"]))  # fmt: skip
            console.print(table)


def _number(value: float, digits: int = 3) -> str:
    return "-" if value != value else f"{value:.{digits}f}"
