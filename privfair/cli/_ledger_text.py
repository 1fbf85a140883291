"""How ``privfair ledger`` writes budgets, events, caps and tables of charges."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privfair.cli._common import clean
from privfair.core._format import format_lower, format_upper

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["budget", "caps_table", "csv_of", "draw", "event_text", "network_note"]

_COLUMNS = (
    "id", "time", "state", "event", "parameters", "epsilon", "delta", "purpose", "label",
    "analyst", "neighboring", "numerics", "seeded",
)  # fmt: skip
# Half-width and full-width: spreadsheets take both for the start of a formula.
_FORMULA = frozenset("=+-@\t\r\n|\uff1d\uff0b\uff0d\uff20")


def number(value: Any, *, down: bool = False) -> str:
    """Write a number, what was spent rounded up and what is left rounded down."""
    if value is None:
        return ""
    return format_lower(float(value)) if down else format_upper(float(value))


def budget(value: dict[str, Any], *, down: bool = False) -> str:
    """Write epsilon and delta."""
    return (
        f"epsilon = {number(value['epsilon'], down=down)}, "
        f"delta = {number(value['delta'], down=down)}"
    )


def event_text(event: dict[str, Any]) -> str:
    """Write an event as one would in Python."""
    parts = []
    for name, value in event.items():
        if name in ("schema", "kind"):
            continue
        if isinstance(value, dict):
            parts.append(event_text(value))
        elif isinstance(value, list):
            parts.append("[" + ", ".join(event_text(item) for item in value) + "]")
        elif isinstance(value, float):
            parts.append(f"{name}={value:.5g}")
        else:
            parts.append(f"{name}={value}")
    return f"{event['kind']}({', '.join(parts)})"


def draw(console: Console, path: Path, payload: dict[str, Any]) -> None:
    """Write a whole ledger for a person."""
    from rich.table import Table

    spent, left, cap = payload["spent"], payload["remaining"], payload["cap"]
    head = (
        f"{path}: data set {payload['dataset_id']!r}, per {payload['unit']}, "
        f"{payload['neighboring']}, mode {payload['mode']}, filter {payload['filter']}"
    )
    console.print(clean(head), soft_wrap=True)
    if payload["entries"]:
        table = Table("row", "time (UTC)", "state", "event", "epsilon", "delta", "purpose")
        who = any(entry["analyst"] for entry in payload["entries"])
        if who:
            table.add_column("analyst")
        for entry in payload["entries"]:
            table.add_row(
                str(entry["id"]),
                entry["time"][:19],
                entry["state"],
                clean(event_text(entry["event"])),
                number(entry["epsilon"]),
                number(entry["delta"]),
                clean(entry["purpose"] or entry["label"]),
                *([clean(entry["analyst"])] if who else []),
            )
        console.print(table)
    else:
        console.print("nothing has been drawn" if payload["plan"] else "nothing has been charged")
    if payload["plan"] is not None:
        _draw_plan(console, payload["plan"])
    console.print(f"spent      {budget(spent)}")
    console.print(f"cap        {'none' if cap is None else budget(cap, down=True)}")
    if left is not None:
        console.print(f"remaining  {budget(left, down=True)}")
    if any(item["scope"] != "dataset" for item in payload["caps"]):
        console.print(caps_table(payload["caps"]))
    for reason in spent["unsafe"]:
        console.print(clean(f"NO GUARANTEE: {reason}"))


def network_note(kind: str) -> str:
    """Say what a network mount means for a ledger."""
    return (
        f"on a network mount ({kind}): slower rollback journal (DELETE), and several writers "
        "depend on that mount's file locks; a local disk is safer"
    )


def _draw_plan(console: Console, plan: dict[str, Any]) -> None:
    parts = [f"{item['count']} x {event_text(item['event'])}" for item in plan["left"]]
    console.print(
        clean(
            f"plan       row {plan['row']}, {budget(plan)}, priced jointly ({plan['accountant']})"
        ),
        soft_wrap=True,
    )
    console.print(clean(f"not drawn  {'; '.join(parts) or 'nothing'}"), soft_wrap=True)


def caps_table(caps: list[dict[str, Any]]) -> Any:
    """Return a table of caps in force."""
    from rich.table import Table

    table = Table("cap of", "name", "epsilon", "delta", "spent", "left", "row", "reason")
    for item in caps:
        spent, left = item["spent"], item["remaining"]
        table.add_row(
            "data set" if item["scope"] == "dataset" else item["scope"],
            clean("(each other)" if item["name"] == "*" else item["name"]),
            number(item["cap"]["epsilon"], down=True),
            number(item["cap"]["delta"], down=True),
            "" if spent is None else number(spent["epsilon"]),
            "" if left is None else number(left["epsilon"], down=True),
            str(item["row"]),
            clean(item["reason"]),
        )
    return table


def csv_of(payload: dict[str, Any]) -> str:
    """Return the charges as CSV (RFC 4180) that neither a spreadsheet nor a terminal executes."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for entry in payload["entries"]:
        event = entry["event"]
        cells = {
            **entry,
            "event": event["kind"],
            "parameters": json.dumps(event, sort_keys=True),
            "seeded": "true" if entry["seeded"] else "false",
        }
        writer.writerow([_cell(cells[name]) for name in _COLUMNS])
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value + 0)  # no negative zero
    text = clean(value)
    return "'" + text if text.lstrip(" ")[:1] in _FORMULA and text else text
