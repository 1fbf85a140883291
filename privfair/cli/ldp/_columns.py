"""From options to a collection, and from the cells of a table to places in public lists."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from privfair.cli._common import FiniteFloat
from privfair.core.exceptions import (
    ColumnNotFoundError,
    DataError,
    DataNotAvailableError,
    InvalidParameterError,
    SchemaError,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from privfair.core.schema import Schema
    from privfair.ldp import Collection, CollectionColumn

__all__ = ["PROTOCOLS", "collection_options", "describe", "read_values", "saved_collection"]

PROTOCOLS = ("auto", "GRR", "SUE", "OUE", "BLH", "OLH", "SS", "HR", "PGR")


class _Bins(click.ParamType[tuple[str, tuple[float, ...]]]):
    """``column=25,45,65``: a numeric column with its public cut points."""

    name = "column=cuts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float, ...]]:
        if isinstance(value, tuple):
            return value
        column, sign, rest = str(value).partition("=")
        if not column or not sign:
            self.fail("give the column and its cut points, such as age=25,45,65.", param, ctx)
        kind = FiniteFloat()
        cuts = tuple(kind.convert(part.strip(), param, ctx) for part in rest.split(","))
        if any(a >= b for a, b in zip(cuts, cuts[1:], strict=False)):
            self.fail(f"the cut points of {column} must increase.", param, ctx)
        return column, cuts


def collection_options(function: Any) -> Any:
    """Add the options that describe what is collected and how."""
    for option in (
        click.option(
            "--bin", "bins", type=_Bins(), multiple=True, metavar="COLUMN=CUTS",
            help="Public cut points of a numeric column, such as age=25,45,65.",
        ),
        click.option(
            "--strategy", type=click.Choice(["smp", "spl"]), default="smp", show_default=True,
            help="Several columns: each row reports on one of them, or splits epsilon over all.",
        ),
        click.option(
            "--protocol", type=click.Choice(PROTOCOLS, case_sensitive=False), default="auto",
            show_default=True, help="Randomiser; auto takes the one of least variance.",
        ),
        click.option(
            "--values", default=None, metavar="LIST",
            help="Public list of values, separated by commas, of a single column.",
        ),
        click.option(
            "--schema", "schema_file", type=click.Path(path_type=Path), default=None,
            help="TOML file with the public values or bounds of the columns.",
        ),
        click.option(
            "--column", "columns", multiple=True, help="Column to collect; may be repeated."
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def describe(
    *,
    columns: tuple[str, ...],
    schema_file: Path | None,
    values: str | None,
    bins: tuple[tuple[str, tuple[float, ...]], ...],
    epsilon: float,
    protocol: str,
    strategy: str,
) -> Collection:
    """Return the collection that the options ask for; nothing in it comes from data."""
    from privfair.ldp import Collection, CollectionColumn, choose
    from privfair.ldp._collection import make_protocol

    if not columns:
        raise click.UsageError("give --column with the name of a column to collect.")
    if len(set(columns)) != len(columns):
        raise click.UsageError("--column names a column twice.")
    cuts = dict(bins)
    if stray := [name for name in cuts if name not in columns]:
        raise click.UsageError(f"--bin names {stray[0]}, which no --column does.")
    if values is not None and (len(columns) > 1 or schema_file is not None or cuts):
        raise click.UsageError("--values is for a single column without --schema and --bin.")
    schema = None if schema_file is None else _schema(schema_file)
    each = epsilon / len(columns) if strategy == "spl" else epsilon
    made = []
    for name in columns:
        labels, edges = _domain(name, schema, values, cuts.get(name))
        if len(labels) < 2:
            raise InvalidParameterError(
                f"column {name!r} has one value only: there is nothing to report."
            )
        own = (
            choose(len(labels), each).best
            if protocol == "auto"
            else make_protocol(protocol, len(labels), each)
        )
        made.append(CollectionColumn(name, labels, own, edges))
    return Collection(tuple(made), strategy if len(made) > 1 else "smp")


def _schema(path: Path) -> Schema:
    from privfair.core.schema import Schema

    if path.is_dir():
        raise DataError(f"{path} is a directory; give the TOML file with the public schema.")
    if not path.exists():
        raise DataNotAvailableError(f"{path} does not exist. Give a TOML file with the schema.")
    if path.stat().st_size > 1 << 24:
        raise DataError(f"{path} is larger than any schema and was not read.")
    try:
        return Schema.from_toml(path.read_text("utf-8"))
    except UnicodeDecodeError:
        raise SchemaError(f"{path} is not UTF-8 text.") from None


def _domain(
    name: str, schema: Schema | None, values: str | None, cuts: tuple[float, ...] | None
) -> tuple[tuple[Any, ...], tuple[float, ...] | None]:
    from privfair.core.schema import Categorical, Numeric

    if values is not None:
        listed = tuple(part.strip() for part in values.split(","))
        if len(set(listed)) != len(listed) or "" in listed:
            raise InvalidParameterError("--values names a value twice, or an empty one.")
        return listed, None
    column = None
    if schema is not None:
        if name not in schema:
            raise SchemaError(f"the schema has no column {name!r}; it has {schema.names}.")
        column = schema[name]
    if isinstance(column, Categorical):
        if cuts is not None:
            raise click.UsageError(f"--bin {name}: the schema says that it is categorical.")
        texts = [str(v) for v in column.values]
        if len(set(texts)) != len(texts):
            raise SchemaError(f"column {name!r} has two values that are the same as text.")
        return tuple(column.values), None
    low, high = -math.inf, math.inf
    if isinstance(column, Numeric):
        low, high, cuts = column.low, column.high, cuts or column.bins
    if cuts is None:
        raise click.UsageError(
            f"column {name!r} needs its public values: --schema with a categorical column, "
            f"--values, or for numbers --bin {name}=CUTS (or bins in the schema). They are never "
            "taken from the data."
        )
    if not low < cuts[0] or not cuts[-1] < high:
        raise click.UsageError(f"--bin {name}: cut points must lie inside ({low:g}, {high:g}).")
    edges = (low, *cuts, high)
    return tuple(_label(a, b) for a, b in zip(edges, edges[1:], strict=False)), edges


def _label(low: float, high: float) -> str:
    if math.isinf(low):
        return f"below {high:g}"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"


def saved_collection(path: Path) -> Collection:
    """Read the collection that a file of reports, a state or a plan describes."""
    from privfair.ldp._collection import frames

    return frames(path, lambda collection, rest: None)[0]


# -- private cells: nothing below may quote one ------------------------------------------------
def read_values(source: str, collection: Collection) -> list[NDArray[np.int64]]:
    """Return for each column the place of each row's value in the public list."""
    with _opened(source) as file:
        found = list(_rows(file, [column.name for column in collection.columns]))
    if not found:
        raise DataError("the table has a header and no rows.")
    return [
        _places(column, [row[at] for row in found]) for at, column in enumerate(collection.columns)
    ]


@contextmanager
def _opened(source: str) -> Iterator[IO[str]]:
    if source == "-":
        yield io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", newline="")
        return
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{source} is a directory; give the CSV file with the values.")
    if not path.exists():
        raise DataNotAvailableError(f"{source} does not exist. Give a CSV file, or - for stdin.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield file


def _rows(file: IO[str], names: list[str]) -> Iterator[tuple[str, ...]]:
    reader = csv.reader(file, skipinitialspace=True, strict=True)
    line = 0
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if not header:
            raise DataError("the table is empty: no header, no rows.")
        if len(set(header)) != len(header):
            raise DataError("the table has two columns of the same name; rename one of them.")
        for name in names:
            if name not in header:
                raise ColumnNotFoundError(
                    f"column {name!r} is not in the header of the table, which has "
                    f"{len(header)} columns."
                )
        places = [header.index(name) for name in names]
        for cells in reader:
            line = reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"line {line} of the table has {len(cells)} cells and the header has "
                    f"{len(header)}: every row needs one cell per column."
                )
            yield tuple(cells[at].strip() for at in places)
    except csv.Error:
        raise DataError(f"the table is not well-formed CSV (after line {line}).") from None
    except UnicodeDecodeError:
        raise DataError("the table is not UTF-8 text. Convert it, for instance with iconv.") from (
            None
        )


def _places(column: CollectionColumn, cells: list[str]) -> NDArray[np.int64]:
    import numpy as np

    if column.edges is not None:
        return _binned(column, cells)
    where = {str(value): at for at, value in enumerate(column.values)}
    if all(isinstance(value, bool) for value in column.values):
        where |= {str(value).lower(): at for at, value in enumerate(column.values)}
    found = np.array([where.get(cell, -1) for cell in cells], dtype=np.int64)
    outside = np.flatnonzero(found < 0)
    if outside.size:
        raise SchemaError(
            f"column {column.name!r}: {outside.size} of {found.size} rows hold a value outside "
            f"the public list (the first is row {int(outside[0]) + 1}). Nothing was reported. Add "
            "the value to the list, or pool unknown ones before."
        )
    return found


def _binned(column: CollectionColumn, cells: list[str]) -> NDArray[np.int64]:
    import numpy as np

    numbers = np.empty(len(cells))
    for at, cell in enumerate(cells):
        try:
            numbers[at] = float(cell)
        except ValueError:
            numbers[at] = math.nan
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0]) + 1
        raise SchemaError(
            f"column {column.name!r}: row {row} holds no finite number. Nothing was reported."
        )
    assert column.edges is not None
    # Outside the bounds counts as the bin at the end, as bounds clip everywhere else.
    return np.searchsorted(np.array(column.edges[1:-1]), numbers, side="right").astype(np.int64)
