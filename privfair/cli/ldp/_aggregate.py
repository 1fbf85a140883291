"""``aggregate``: add up files of reports, and sums of other servers, into one state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import ExitCode, clean, example, finish, note, output
from privfair.cli.ldp._columns import saved_collection
from privfair.core.exceptions import DataError, DataIntegrityError, SchemaVersionError

if TYPE_CHECKING:
    from privfair.ldp import Aggregator, Collection
    from privfair.ldp._collection import Frame

__all__ = ["aggregate", "fresh", "load_state"]

_MAKE = (
    r"printf 'answer\nyes\nno\nyes\n' > in.csv && privfair ldp privatize in.csv --quiet "
    "--column answer --values yes,no,other --epsilon 1 --output a.rpt > made.txt"
)


@click.command()
@click.argument(
    "sources", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--output", "target", type=click.Path(path_type=Path), required=True,
    help="File for the sums; replaced if it is there.",
)  # fmt: skip
@click.option(
    "--collection", "planned", type=click.Path(path_type=Path), default=None,
    help="File from plan --output: which collection the files must belong to.",
)  # fmt: skip
@click.option(
    "--allow-damaged", is_flag=True,
    help="End with 0 although something was lost or left out, which is still listed.",
)  # fmt: skip
@example(f"{_MAKE} && privfair ldp aggregate a.rpt --output state")
def aggregate(
    sources: tuple[Path, ...], target: Path, planned: Path | None, allow_damaged: bool
) -> None:
    """Add files of reports, and earlier states, into sums that can be added again.

    Holds sums only, and the order of files does not matter. A file that was cut or changed loses
    the damaged pieces alone; one that is foreign is left out. Both are named, the state of the
    rest is written, and the exit code is 4.
    """
    from privfair.cli._audit_files import check_target
    from privfair.ldp._collection import STATE, Frame, append_frames

    check_target(target, "--output")
    seen: set[Path] = set()
    for path in sources:
        if not path.exists():
            raise click.FileError(str(path), "no such file")
        if path.resolve() in seen:
            raise click.UsageError(f"{path} is given twice: its reports would count double.")
        seen.add(path.resolve())
    expected = None if planned is None else saved_collection(planned)
    sums: list[Aggregator] | None = None if expected is None else fresh(expected)
    files: list[dict[str, Any]] = []
    for path in sources:
        expected, sums, entry = _add(path, expected, sums)
        files.append(entry)
        for text in entry["problems"]:
            note(f"{path}: {text}")
    if expected is None or sums is None:
        raise DataIntegrityError("no file could be read; nothing was written.")
    state = [Frame(STATE, at, s.to_bytes()) for at, s in enumerate(sums)]
    append_frames(target, expected, state, replace=True)
    damaged = any(entry["problems"] for entry in files)
    payload = {
        "reports": sum(s.n_reports_ for s in sums),
        "columns": [
            {"column": c.name, "protocol": c.protocol.name, "k": c.protocol.k,
             "reports": s.n_reports_}
            for c, s in zip(expected.columns, sums, strict=True)
        ],
        "files": files, "complete": not damaged, "output": str(target),
    }  # fmt: skip
    lines = [f"{clean(f['file'])}: {f['reports']} reports" for f in files]
    lines.append(f"{payload['reports']} reports together: {target}")
    output(payload, "\n".join(lines))
    if damaged and not allow_damaged:
        finish(int(ExitCode.INTEGRITY))


def fresh(collection: Collection) -> list[Aggregator]:
    """Return an empty aggregator for each column."""
    from privfair.ldp import Aggregator

    return [Aggregator(c.protocol, values=c.values) for c in collection.columns]


def _add(
    path: Path, expected: Collection | None, sums: list[Aggregator] | None
) -> tuple[Collection | None, list[Aggregator] | None, dict[str, Any]]:
    """Add one file; what cannot be used is said and left out."""
    from privfair.ldp._collection import frames

    def use(
        collection: Collection, rest: Iterator[Frame | str]
    ) -> tuple[list[Aggregator] | None, list[str]]:
        if expected is not None and collection != expected:
            return None, ["belongs to another collection; left out"]
        return collect(collection, rest)

    try:
        found, (added, problems) = frames(path, use)
    except (DataIntegrityError, SchemaVersionError) as error:
        added, problems = None, [f"left out: {str(error).removeprefix(f'{path}: ')}"]
    entry = {
        "file": str(path),
        "reports": 0 if added is None else sum(a.n_reports_ for a in added),
        "problems": problems,
    }
    if added is None:
        return expected, sums, entry
    if sums is not None:
        added = [a + b for a, b in zip(sums, added, strict=True)]
    return found, added, entry


def collect(
    collection: Collection, rest: Iterator[Frame | str]
) -> tuple[list[Aggregator], list[str]]:
    """Return the sums of a file's frames, and what was lost."""
    from privfair.ldp import Aggregator
    from privfair.ldp._collection import STATE

    sums = fresh(collection)
    problems: list[str] = []
    for piece in rest:
        if isinstance(piece, str):
            problems.append(piece)
            continue
        column = collection.columns[piece.column]
        try:
            if piece.kind == STATE:
                other = Aggregator.from_bytes(piece.payload, column.protocol, column.values)
                sums[piece.column] = sums[piece.column] + other
            else:
                sums[piece.column].partial_fit(piece.payload)
        except (DataError, DataIntegrityError) as error:
            problems.append(f"a piece was left out: {error}")
    return sums, problems


def load_state(path: Path) -> tuple[Collection, list[Aggregator]]:
    """Read a state (or a file of reports) that must be whole."""
    from privfair.ldp._collection import frames

    collection, (sums, problems) = frames(path, collect)
    if problems:
        raise DataIntegrityError(
            f"{path}: {problems[0]}. Run aggregate, which keeps the rest, or get the file again."
        )
    return collection, sums
