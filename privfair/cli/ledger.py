"""``privfair ledger``: what has been spent, and whether the record of it is intact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import FiniteFloat, clean, epsilon_option, example, note, output
from privfair.core._format import format_upper

if TYPE_CHECKING:
    from rich.console import Console

    from privfair.accounting import Ledger

__all__ = ["command"]

_FILE = click.argument("path", type=click.Path(path_type=Path))
_KEY = click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="File with the ledger's secret key in hexadecimal, if it has one.",
)


@click.group()
def command() -> None:
    """Start, show or verify a ledger: the record of what was spent on a data set.

    A chain of hashes shows edits of the file. It cannot show that the newest rows are missing:
    store what verify prints somewhere else, and compare with --head. Without a key it does not
    stop somebody who can write the file from building a new chain.
    """


def _key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return bytes.fromhex(path.read_text().strip())
    except ValueError:
        raise click.BadParameter(
            f"{path} does not hold a key in hexadecimal digits.", param_hint="--key-file"
        ) from None


def _open(path: Path, key_file: Path | None) -> Ledger:
    from privfair.accounting import Ledger

    return Ledger.open(path, hmac_key=_key(key_file), read_only=True)


@command.command()
@_FILE
@epsilon_option(required=True, help="The most that may be spent.")
@click.option(
    "--delta", type=FiniteFloat(0, 1, high_open=True), default=0.0, show_default=True,
    help="The most that may be spent, in [0, 1).",
)  # fmt: skip
@click.option("--dataset-id", default="default", show_default=True, help="Name of the data set.")
@click.option(
    "--neighboring", type=click.Choice(["zero_out", "add_remove", "replace_one"]),
    default="zero_out", show_default=True, help="Which data sets count as neighbours.",
)  # fmt: skip
@click.option(
    "--unit", type=click.Choice(["record", "user", "client"]), default="record",
    show_default=True, help="Whose data is protected.",
)  # fmt: skip
@_KEY
@example("privfair ledger init patients.db --epsilon 3 --delta 1e-6 --dataset-id patients")
def init(
    path: Path, epsilon: float, delta: float, dataset_id: str, neighboring: str, unit: str,
    key_file: Path | None,
) -> None:  # fmt: skip
    """Make a new ledger with a cap."""
    from privfair.accounting import Ledger
    from privfair.core.exceptions import OutputTargetError
    from privfair.core.privacy import Budget

    if path.exists():
        raise OutputTargetError(f"{path} exists; a ledger is never overwritten. Take a new name.")
    made = Ledger(
        path, cap=Budget(epsilon, delta), dataset_id=dataset_id, neighboring=neighboring,
        unit=unit, hmac_key=_key(key_file),
    )  # fmt: skip
    output(made.export(), f"{path}: new ledger of {dataset_id!r}, cap {made.cap}")


@command.command()
@_FILE
@_KEY
@example(
    "privfair ledger init patients.db --epsilon 3 --delta 1e-6",
    "privfair ledger show patients.db",
)
def show(path: Path, key_file: Path | None) -> None:
    """Show what was spent, on what, and what is left."""
    ledger = _open(path, key_file)
    payload = ledger.export()
    output(payload, lambda console: _draw(console, path, payload))


def _draw(console: Console, path: Path, payload: dict[str, Any]) -> None:
    from rich.table import Table

    spent, left, cap = payload["spent"], payload["remaining"], payload["cap"]
    head = (
        f"{path}: data set {payload['dataset_id']!r}, per {payload['unit']}, "
        f"{payload['neighboring']}, filter {payload['filter']}"
    )
    console.print(clean(head), soft_wrap=True)
    if payload["entries"]:
        table = Table("row", "time (UTC)", "state", "event", "epsilon", "delta", "purpose")
        for entry in payload["entries"]:
            table.add_row(
                str(entry["id"]),
                entry["time"][:19],
                entry["state"],
                clean(_short(entry["event"])),
                _number(entry["epsilon"]),
                _number(entry["delta"]),
                clean(entry["purpose"] or entry["label"]),
            )
        console.print(table)
    else:
        console.print("nothing has been charged")
    console.print(f"spent      {_budget(spent)}")
    console.print(f"cap        {'none' if cap is None else _budget(cap)}")
    if left is not None:
        console.print(f"remaining  {_budget(left, down=True)}")
    for reason in spent["unsafe"]:
        console.print(clean(f"NO GUARANTEE: {reason}"))


def _number(value: Any, *, down: bool = False) -> str:
    from privfair.core._format import format_lower

    if value is None:
        return ""
    number = float(value)
    return format_lower(number) if down else format_upper(number)


def _budget(budget: dict[str, Any], *, down: bool = False) -> str:
    return (
        f"epsilon = {_number(budget['epsilon'], down=down)}, "
        f"delta = {_number(budget['delta'], down=down)}"
    )


def _short(event: dict[str, Any]) -> str:
    """Write an event as one would in Python."""
    parts = []
    for name, value in event.items():
        if name in ("schema", "kind"):
            continue
        if isinstance(value, dict):
            parts.append(_short(value))
        elif isinstance(value, list):
            parts.append("[" + ", ".join(_short(item) for item in value) + "]")
        elif isinstance(value, float):
            parts.append(f"{name}={value:.5g}")
        else:
            parts.append(f"{name}={value}")
    return f"{event['kind']}({', '.join(parts)})"


class _Head(click.ParamType[tuple[int, str]]):
    """``ROWS:HASH`` as ``verify`` prints it."""

    name = "rows:hash"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, str]:
        if isinstance(value, tuple):
            return value
        count, _, digest = str(value).partition(":")
        if not count.isdecimal() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            self.fail(f"{value!r} is not ROWS:HASH as printed by an earlier verify.", param, ctx)
        return int(count), digest


@command.command()
@_FILE
@_KEY
@click.option(
    "--head", type=_Head(), default=None,
    help="ROWS:HASH stored earlier: also check that nothing up to there was cut off.",
)  # fmt: skip
@example(
    "privfair ledger init patients.db --epsilon 3 --delta 1e-6",
    "privfair ledger verify patients.db",
)
def verify(path: Path, key_file: Path | None, head: tuple[int, str] | None) -> None:
    """Recompute the chain of hashes; exit code 4 names the first bad row."""
    count, digest = _open(path, key_file).verify(head)
    output(
        {"ok": True, "rows": count, "hash": digest, "head": f"{count}:{digest}",
         "compared_with_head": head is not None},
        f"intact: {count} rows\nhead {count}:{digest}",
    )  # fmt: skip
    if head is None:
        note("Missing newest rows cannot be seen in the file: store the head elsewhere.")
