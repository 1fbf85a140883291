"""``dcov``: how much the whole score depends on the groups, each attribute and all together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import clean, example, output, state
from privfair.cli.fairness._table import (
    LEDGER,
    Rows,
    column_options,
    enter_raw,
    read_rows,
    statistics_options,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["dcov"]

_TABLE = r"printf 'p,sex\n0.1,f\n0.4,f\n0.3,f\n0.2,f\n0.9,m\n0.6,m\n0.7,m\n0.8,m\n' | "


@click.command()
@column_options(label=False, client=False, score=True)
@LEDGER
@statistics_options
@example(_TABLE + "privfair fairness dcov --predictions - --score p --sensitive sex")
def dcov(**given: Any) -> None:
    """Measure how the distribution of a score depends on the groups.

    Squared distance correlation, zero only for independence, with interval and permutation test,
    for each attribute and for all together; beside it the divergence of the groups' scores.
    """
    from privfair.cli._audit_files import check_target

    if given["ledger_path"] is not None:
        check_target(given["ledger_path"], "--ledger")
    rows = read_rows(given)
    enter_raw(given["ledger_path"], rows.name, "raw dependence of scores")
    data = _measure(rows, given)
    output(data, lambda console: _draw(console, data))


def _measure(rows: Rows, given: dict[str, Any]) -> dict[str, Any]:
    from privfair.core.exceptions import PrivfairWarning, SingleGroupError
    from privfair.fairness.dcov import distance_correlation, jsd_groups

    score = rows.decisions if rows.score is None else rows.score
    frame = rows.sensitive
    names = list(frame.columns)
    for name in names:
        if frame[name].nunique() < 2:
            raise SingleGroupError(
                f"sensitive feature {name!r} has one group only, so that there is nothing to "
                "compare. Give rows of all groups, or leave the column out."
            )
    entries = []
    with warnings.catch_warnings():
        # What is small or constant is told by the status of each entry.
        warnings.simplefilter("ignore", PrivfairWarning)
        for chosen in [[name] for name in names] + ([names] if len(names) > 1 else []):
            columns = {name: frame[name].to_numpy() for name in chosen}
            e = distance_correlation.estimate(
                None, score, sensitive_features=columns, confidence=given["confidence"],
                n_resamples=given["n_resamples"], random_state=state().seed or 0,
            )  # fmt: skip
            divergence = jsd_groups(
                score, columns, n_resamples=min(given["n_resamples"], 200),
                random_state=state().seed or 0,
            )  # fmt: skip
            entries.append(
                {
                    "attributes": chosen,
                    "distance_correlation_sq": e.to_dict(),
                    "jsd": {"value": divergence.value, "raw": divergence.raw,
                            "p_value": divergence.pvalue},
                }
            )  # fmt: skip
    return {"kind": "dcov", "rows": len(frame), "score": "score" if rows.score is not None
            else "decision", "dependence": entries}  # fmt: skip


def _draw(console: Console, data: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("attributes")
    for head in ("dCor2", "interval", "unbiased", "by chance", "p", "JSD, bits", "largest KS"):
        table.add_column(head, justify="right")
    for entry in data["dependence"]:
        e = entry["distance_correlation_sq"]
        groups = e["by_group"] or []
        null = e["null"] or {}
        table.add_row(
            clean(" & ".join(entry["attributes"])), _number(e["value"]),
            f"{_number(e['low'])} to {_number(e['high'])}",
            _number(e["details"].get("dcor_sq_u")), _number(null.get("expected")),
            _number(null.get("p_value"), 3), _number(entry["jsd"]["value"]),
            _number(max((g["ks_to_all"] for g in groups), default=None), 3),
        )  # fmt: skip
    console.print(f"{data['rows']} rows, of the {data['score']}:")
    console.print(table)
    console.print(
        "0 only for independence; groups count by the square of their share, so that small ones "
        "hardly do. JSD is less its mean under permuted groups."
    )


def _number(value: Any, digits: int = 4) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"
