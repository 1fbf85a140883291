"""``privfair ledger``: what has been spent, what is left, and whether the record is intact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import FiniteFloat, clean, epsilon_option, example, note, output, state

if TYPE_CHECKING:
    from privfair.accounting import Ledger

__all__ = ["command"]

_FILE = click.argument("path", type=click.Path(path_type=Path))
_KEY = click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="File with the ledger's secret key in hexadecimal, if it has one.",
)
_DELTA = click.option(
    "--delta", type=FiniteFloat(0, 1, high_open=True), default=0.0, show_default=True,
    help="The most that may be spent, in [0, 1).",
)  # fmt: skip
_PURPOSE = click.option("--purpose", default=None, help="Charges of this purpose; '*' for each.")
_ANALYST = click.option("--analyst", default=None, help="Charges of this analyst; '*' for each.")
_REASON = click.option(
    "--reason", default="", help="Written down; needed to raise a cap. No data in it."
)
_RAISE = click.option(
    "--allow-raise", is_flag=True, help="Allow a change after which more may be spent."
)
_INIT = "privfair ledger init patients.db --epsilon 3 --delta 1e-6"


@click.group()
def command() -> None:
    """Start, show, limit, export or verify a ledger: the record of what was spent on a data set.

    A chain of hashes shows edits of the file. It cannot show that the newest rows are missing:
    store what head prints somewhere else, and compare with verify --head. Without a key it does
    not stop somebody who can write the file from building a new chain.
    """


def _key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (ValueError, OSError):
        raise click.BadParameter(
            f"{path} does not hold a key in hexadecimal digits.", param_hint="--key-file"
        ) from None


def _open(path: Path, key_file: Path | None, *, write: bool = False) -> Ledger:
    from privfair.accounting import Ledger
    from privfair.cli._ledger_text import network_note

    ledger = Ledger.open(path, hmac_key=_key(key_file), read_only=not write)
    if not write and ledger._log.network is not None:
        note(f"note: {path} is {network_note(ledger._log.network)}")
    return ledger


@command.command()
@_FILE
@epsilon_option(required=True, help="The most that may be spent.")
@_DELTA
@click.option("--dataset-id", default="default", show_default=True, help="Name of the data set.")
@click.option(
    "--neighboring", type=click.Choice(["zero_out", "add_remove", "replace_one"]),
    default="zero_out", show_default=True, help="Which data sets count as neighbours.",
)  # fmt: skip
@click.option(
    "--unit", type=click.Choice(["record", "user", "client"]), default="record",
    show_default=True, help="Whose data is protected.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["filter", "plan"]), default="filter", show_default=True,
    help="Events one by one, or all declared beforehand.",
)  # fmt: skip
@click.option(
    "--filter", "filter_", type=click.Choice(["basic", "zcdp", "gdp", "rdp"]), default="basic",
    show_default=True, help="In which currency charges add up.",
)  # fmt: skip
@_KEY
@example("privfair ledger init patients.db --epsilon 3 --delta 1e-6 --dataset-id patients")
def init(
    path: Path, epsilon: float, delta: float, dataset_id: str, neighboring: str, unit: str,
    mode: str, filter_: str, key_file: Path | None,
) -> None:  # fmt: skip
    """Make a new ledger with a cap."""
    from privfair.accounting import Ledger
    from privfair.core.exceptions import OutputTargetError
    from privfair.core.privacy import Budget

    if path.exists():
        raise OutputTargetError(f"{path} exists; a ledger is never overwritten. Take a new name.")
    made = Ledger(
        path, cap=Budget(epsilon, delta), dataset_id=dataset_id, neighboring=neighboring,
        unit=unit, mode=mode, filter=filter_, hmac_key=_key(key_file),
    )  # fmt: skip
    output(made.export(), f"{path}: new ledger of {dataset_id!r}, cap {made.cap}")


@command.command()
@_FILE
@_KEY
@example(_INIT, "privfair ledger show patients.db")
def show(path: Path, key_file: Path | None) -> None:
    """Show what was spent, on what, by which caps it is limited, and what is left."""
    from privfair.cli._ledger_text import draw

    ledger = _open(path, key_file)
    payload = ledger.export()
    output(payload, lambda console: draw(console, path, payload))


@command.command()
@_FILE
@_KEY
@click.option("--purpose", default=None, help="What is left for charges of this purpose.")
@click.option("--analyst", default=None, help="What is left for charges of this analyst.")
@example(_INIT, "privfair ledger remaining patients.db")
def remaining(path: Path, key_file: Path | None, purpose: str | None, analyst: str | None) -> None:
    """Show what is left, rounded down, and what was spent, rounded up."""
    from privfair.cli._ledger_text import budget

    ledger = _open(path, key_file)
    left, spent, cap = (
        ledger.remaining(purpose=purpose, analyst=analyst),
        ledger.spent(),
        ledger.cap,
    )
    payload: dict[str, Any] = {
        "dataset_id": ledger.dataset_id,
        "purpose": purpose,
        "analyst": analyst,
        "cap": None if cap is None else cap.to_dict(),
        "spent": {"epsilon": spent.epsilon, "delta": spent.delta, "unsafe": list(spent.unsafe)},
        "remaining": None if left is None else left.to_dict(),
    }
    lines = [
        "remaining  " + ("no limit" if left is None else budget(payload["remaining"], down=True)),
        "spent      " + budget(payload["spent"]),
        *(f"NO GUARANTEE: {reason}" for reason in spent.unsafe),
    ]
    output(payload, "\n".join(lines))


@command.command()
@_FILE
@example(_INIT, "privfair ledger head patients.db")
def head(path: Path) -> None:
    """Print ROWS:HASH, to be stored where the writers of the ledger cannot change it.

    Nothing is checked: verify does that.
    """
    count, digest = _open(path, None).head()
    output({"rows": count, "hash": digest, "head": f"{count}:{digest}"}, f"{count}:{digest}")


@command.command()
@_FILE
@_KEY
@click.option(
    "--format", "kind", type=click.Choice(["json", "csv"]), default="json", show_default=True,
    help="The whole ledger, or its charges as a table.",
)  # fmt: skip
@click.option(
    "--output", "target", type=click.Path(path_type=Path), default=None,
    help="Write a file instead of printing.",
)  # fmt: skip
@example(_INIT, "privfair ledger export patients.db")
def export(path: Path, key_file: Path | None, kind: str, target: Path | None) -> None:
    """Print the ledger in a form that may be published: no path, no key, nothing of the file.

    Purposes, labels and names of analysts are in it as they were given.
    """
    import json

    from privfair.cli._audit_files import check_target, write_text
    from privfair.cli._ledger_text import csv_of

    if target is not None:
        check_target(target, "--output")
        if target.exists() and path.exists() and target.samefile(path):
            raise click.UsageError("--output names the ledger itself, which is never overwritten.")
    elif kind == "csv" and state().json:
        raise click.UsageError("--json and --format csv both print; give --output PATH.")
    payload = _open(path, key_file).export()
    if kind == "csv":
        text = csv_of(payload)
    else:
        text = json.dumps(payload, allow_nan=False, indent=2) + "\n"
    if target is not None:
        write_text(target, text)
        output({"format": kind, "entries": len(payload["entries"])}, f"{kind}: {target}")
    elif kind == "csv":
        click.echo(text, nl=False)
    else:
        output(payload)


class _Head(click.ParamType[tuple[int, str]]):
    """``ROWS:HASH`` as ``head`` and ``verify`` print it."""

    name = "rows:hash"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, str]:
        if isinstance(value, tuple):
            return value
        count, _, digest = str(value).strip().partition(":")
        if not (count.isascii() and count.isdecimal() and len(count) < 19) or (
            len(digest) != 64 or set(digest) - set("0123456789abcdef")
        ):
            self.fail(f"{value!r} is not ROWS:HASH as printed by an earlier head.", param, ctx)
        return int(count), digest


@command.command()
@_FILE
@_KEY
@click.option(
    "--head", "stored", type=_Head(), default=None,
    help="ROWS:HASH stored earlier: also check that nothing up to there was cut off.",
)  # fmt: skip
@example(_INIT, "privfair ledger verify patients.db")
def verify(path: Path, key_file: Path | None, stored: tuple[int, str] | None) -> None:
    """Recompute the chain of hashes, totals and caps; exit code 4 names the first bad row."""
    count, digest = _open(path, key_file).verify(stored)
    output(
        {"ok": True, "rows": count, "hash": digest, "head": f"{count}:{digest}",
         "compared_with_head": stored is not None},
        f"intact: {count} rows\nhead {count}:{digest}",
    )  # fmt: skip
    if stored is None:
        note("Missing newest rows cannot be seen in the file: store the head elsewhere.")


@command.group()
def cap() -> None:
    """Show or change the caps of the data set, of single purposes and of analysts.

    A charge must fit under every cap that applies to it. Caps may sum to more than the data
    set's cap, which holds all the same. A change is a new row; nothing is overwritten.
    """


@cap.command(name="show")
@_FILE
@_KEY
@example(_INIT, "privfair ledger cap show patients.db")
def cap_show(path: Path, key_file: Path | None) -> None:
    """Show the caps in force, how far each is used up, and how they changed."""
    from privfair.cli._ledger_text import caps_table

    ledger = _open(path, key_file)
    caps = [item.to_dict() for item in ledger.caps()]
    payload = {"caps": caps, "changes": ledger.export()["cap_changes"]}
    output(payload, caps_table(caps) if caps else "no caps")


@cap.command(name="set")
@_FILE
@epsilon_option(required=True, help="The most that may be spent on the data set.")
@_DELTA
@_REASON
@_RAISE
@_KEY
@example(_INIT, "privfair ledger cap set patients.db --epsilon 2 --delta 1e-6")
def cap_set(
    path: Path, epsilon: float, delta: float, reason: str, allow_raise: bool,
    key_file: Path | None,
) -> None:  # fmt: skip
    """Change the data set's cap. Lowered below what was spent, it leaves nothing to spend."""
    from privfair.core.privacy import Budget

    _change(path, key_file, Budget(epsilon, delta), None, None, reason, allow_raise)


@cap.command(name="add")
@_FILE
@_PURPOSE
@_ANALYST
@epsilon_option(required=True, help="The most that may be spent by these charges.")
@_DELTA
@_REASON
@_RAISE
@_KEY
@example(_INIT, "privfair ledger cap add patients.db --purpose research --epsilon 1 --delta 1e-7")
def cap_add(
    path: Path, purpose: str | None, analyst: str | None, epsilon: float, delta: float,
    reason: str, allow_raise: bool, key_file: Path | None,
) -> None:  # fmt: skip
    """Set or change the cap of a purpose or of an analyst; earlier charges count against it."""
    from privfair.core.privacy import Budget

    if (purpose is None) == (analyst is None):
        raise click.UsageError("give --purpose or --analyst; 'cap set' is for the data set.")
    _change(path, key_file, Budget(epsilon, delta), purpose, analyst, reason, allow_raise)


@cap.command(name="remove")
@_FILE
@_PURPOSE
@_ANALYST
@_REASON
@_RAISE
@_KEY
@example(
    _INIT,
    "privfair ledger cap add patients.db --analyst ana --epsilon 1",
    "privfair ledger cap remove patients.db --analyst ana --reason 'study ended' --allow-raise",
)
def cap_remove(
    path: Path, purpose: str | None, analyst: str | None, reason: str, allow_raise: bool,
    key_file: Path | None,
) -> None:  # fmt: skip
    """Remove a cap, which lets more be spent: that needs --allow-raise and a reason."""
    _change(path, key_file, None, purpose, analyst, reason, allow_raise)


def _change(
    path: Path, key_file: Path | None, budget: Any, purpose: str | None, analyst: str | None,
    reason: str, allow_raise: bool,
) -> None:  # fmt: skip
    from privfair.cli._ledger_text import budget as written

    ledger = _open(path, key_file, write=True)
    before = ledger.head()[0]
    made = ledger.set_cap(
        budget, purpose=purpose, analyst=analyst, reason=reason, allow_raise=allow_raise
    )
    row = ledger.head()[0]
    scope = "purpose" if purpose is not None else "analyst" if analyst is not None else "dataset"
    name = purpose or analyst or ""
    payload = {
        "changed": row > before,
        "scope": scope,
        "name": name,
        "cap": None if made is None else made.to_dict(),
        "head": f"{row}:{ledger.head()[1]}",
    }
    whom = "the data set" if scope == "dataset" else f"{scope} {clean(name)!r}"
    lines = [f"{path}: cap of {whom}: " + (
        "none" if made is None else written(made.cap.to_dict(), down=True)
    )]  # fmt: skip
    if made is not None and made.remaining is not None:
        lines.append(f"remaining  {written(made.remaining.to_dict(), down=True)}")
    output(payload, "\n".join(lines))
