"""``privatize``: the client's side, and the only command that sees values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import WholeNumber, epsilon_option, example, note, output
from privfair.cli.ldp._columns import collection_options, describe, read_values, saved_collection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from privfair.ldp import Collection
    from privfair.ldp._collection import Frame

__all__ = ["privatize"]


@click.command()
@click.argument("source", metavar="TABLE.csv")
@epsilon_option(default=None, help="Local privacy of all that one row's owner sends.")
@collection_options
@click.option(
    "--collection", "planned", type=click.Path(path_type=Path), default=None,
    help="File from plan --output, instead of columns and epsilon.",
)  # fmt: skip
@click.option(
    "--output", "target", type=click.Path(path_type=Path), required=True,
    help="File of reports; appended to if it is there.",
)  # fmt: skip
@click.option(
    "--batch-size", type=WholeNumber(), default=1000, show_default=True,
    help="Reports per piece of the file: what is lost with a piece that is damaged.",
)  # fmt: skip
@click.option(
    "--ledger", "ledger_file", type=click.Path(path_type=Path), default=None,
    help="Charge what each row spends to this ledger, before anything is drawn.",
)  # fmt: skip
@example(
    r"printf 'answer\nyes\nno\nyes\n' > in.csv && privfair ldp privatize in.csv --column answer "
    "--values yes,no,other --epsilon 1 --output reports.rpt"
)
def privatize(
    source: str,
    epsilon: float | None,
    planned: Path | None,
    target: Path,
    batch_size: int,
    ledger_file: Path | None,
    **given: Any,
) -> None:
    """Randomise columns of a table, one row per user, into a file of reports.

    What is written is safe to send to a server that is not trusted; the table is not. Each run
    draws fresh reports, so that a row that is reported twice spends epsilon twice. Public values
    come from --schema, --values or --bin, never from the table, and no message quotes a cell.
    """
    from privfair.cli._audit_files import check_target
    from privfair.ldp._collection import append_frames, randomised_frames

    if planned is not None:
        if given["columns"] or epsilon is not None:
            raise click.UsageError("--collection says columns and epsilon: leave them out.")
        collection = saved_collection(planned)
    elif epsilon is None:
        raise click.UsageError("give --epsilon, or --collection with a plan.")
    else:
        collection = describe(epsilon=epsilon, **given)
    check_target(target, "--output")
    if source != "-" and target.exists() and Path(source).exists() and target.samefile(source):
        raise click.UsageError("--output names the table itself.")
    if target.exists() and target.stat().st_size and saved_collection(target) != collection:
        raise click.UsageError(
            f"{target} holds reports of another collection (other columns, values, protocol or "
            "epsilon). Take a new name."
        )
    values = read_values(source, collection)
    n = len(values[0])
    if ledger_file is None:
        made = randomised_frames(collection, values, batch_size)
    else:
        made = _charged(ledger_file, collection, values, batch_size)
    append_frames(target, collection, made)
    payload = {
        "rows": n,
        "reports": n * (len(values) if collection.strategy == "spl" else 1),
        "epsilon": collection.epsilon,
        "strategy": collection.strategy if len(values) > 1 else None,
        "columns": [
            {"column": c.name, "protocol": c.protocol.name, "k": c.protocol.k,
             "epsilon": c.protocol.epsilon}
            for c in collection.columns
        ],
        "batches": len(made),
        "output": str(target),
    }  # fmt: skip
    lines = [f"{n} rows, each with epsilon {collection.epsilon:g}, to {target}"]
    lines += [f"  {c.name}: {c.protocol.name}, {c.protocol.k} values" for c in collection.columns]
    output(payload, "\n".join(lines))
    note("Delete or protect the table: only the reports may leave.")


def _charged(
    path: Path, collection: Collection, values: list[NDArray[np.int64]], batch: int
) -> list[Frame]:
    from privfair.accounting import Ledger
    from privfair.accounting.events import LocalDP
    from privfair.ldp._collection import randomised_frames

    ledger = Ledger.open(path)
    names = ", ".join(column.name for column in collection.columns)
    with ledger.spend(LocalDP(collection.epsilon), purpose=f"local reports of {names}"):
        return randomised_frames(collection, values, batch)
