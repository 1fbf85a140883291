"""Tables that a user hands to the command line: read with limits, never executed."""

from __future__ import annotations

import csv
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privfair.core.exceptions import (
    ColumnNotFoundError,
    DataError,
    DataNotAvailableError,
    MissingDependencyError,
    OutputTargetError,
    UnsafeFileError,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_target", "read_predictions", "read_text", "require_columns", "write_bytes",
    "write_text",
]  # fmt: skip

MAX_BYTES = 2 * 1024**3
MAX_COLUMNS = 10_000
MAX_FIELD = 1_000_000
_FORMATS = {".csv": "csv", ".txt": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet",
            ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}  # fmt: skip


def _bytes(source: str) -> bytes:
    if source == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        path = Path(source)
        if path.is_dir():
            raise DataError(f"{source} is a directory; give the file with the predictions.")
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UnsafeFileError(f"{source} is larger than 2 GiB and was not read.")
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataNotAvailableError(
                f"{source} does not exist. Give a CSV, Parquet or Arrow file, or - for standard "
                "input."
            ) from None
    if len(data) > MAX_BYTES:
        raise UnsafeFileError("standard input holds more than 2 GiB; the rest was not read.")
    if not data:
        raise DataError("the table of predictions is empty: no header, no rows.")
    return data


def _format(source: str, data: bytes, given: str | None) -> str:
    if given:
        return given
    if data[:4] == b"PAR1":
        return "parquet"
    if data[:6] == b"ARROW1":
        return "arrow"
    return _FORMATS.get(Path(source).suffix.lower(), "csv") if source != "-" else "csv"


def read_predictions(
    source: str, kind: str | None = None, *, private: bool = False
) -> pd.DataFrame:
    """Read a table from a file, or from standard input for ``-``.

    Parameters
    ----------
    source : str
    kind : {"csv", "tsv", "parquet", "arrow"} or None
        None goes by the first bytes and the ending.
    private : bool
        Whether errors leave out sizes and places in the file.
    """
    data = _bytes(source)
    chosen = _format(source, data, kind)
    frame = _csv(data, chosen, private) if chosen in {"csv", "tsv"} else _binary(data, chosen)
    if frame.columns.duplicated().any():
        raise DataError("the table has two columns of the same name; rename one of them.")
    if len(frame) == 0:
        raise DataError("the table of predictions has a header and no rows.")
    return frame


def _csv(data: bytes, kind: str, private: bool) -> pd.DataFrame:
    import pandas as pd

    separator = "\t" if kind == "tsv" else ","
    if b"\x00" in data[:1_048_576]:
        raise UnsafeFileError(
            "the table holds NUL bytes: it is not text. Give --format parquet or --format arrow "
            "if it is one of these, or decompress it first."
        )
    head = data[: MAX_FIELD * 2].split(b"\n", 1)[0]
    if head.count(separator.encode()) >= MAX_COLUMNS:
        raise UnsafeFileError(f"the table has more than {MAX_COLUMNS:,} columns; it was not read.")
    if max((len(line) for line in data[:8_388_608].split(b"\n")), default=0) > 4 * MAX_FIELD:
        raise UnsafeFileError("the table has a line of several megabytes; it was not read.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = "" if private else f" (byte {error.start})"
        raise DataError(
            f"the table is not UTF-8{at}. Convert it, for instance with iconv."
        ) from None
    rows = _check_cells(text, separator, private)
    try:
        # Only an empty cell is missing: "NA" may be a group's name. No column is an index.
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, keep_default_na=False, na_values=[""],
            skipinitialspace=True, low_memory=False, index_col=False,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        line = str(error).split("Error tokenizing data. C error: ")[-1].split(", saw")[0]
        where = f" ({line})" if line.startswith("Expected") and not private else ""
        raise DataError(f"the table is not well-formed CSV{where}.") from None
    if len(frame) != rows:
        either = "two numbers of" if private else f"{rows:,} or as {len(frame):,}"
        raise DataError(
            f"the table is not well-formed CSV: it reads as {either} rows, depending on "
            "how its quotation marks are taken. Quote every cell or none."
        )
    return frame


def _check_cells(text: str, separator: str, private: bool) -> int:
    """Return the number of rows below the header; raise if one has other cells than it.

    A parser that fills short rows up, or takes the first column of long ones for an index,
    would audit shifted columns or count absent cells as missing values.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    width = rows = last = 0
    try:
        for cells in reader:
            line, last = last + 1, reader.line_num
            if not cells or (len(cells) == 1 and not cells[0].strip()):
                continue  # a blank line
            if not width:
                _check_header(cells)
                width = len(cells)
                continue
            rows += 1
            if len(cells) != width:
                where = "a line" if private else f"line {line}"
                many = "other" if private else f"{len(cells)}"
                raise DataError(
                    f"{where} of the table has {many} cells and the header has {width}: "
                    "the table is not well-formed CSV. Every row needs one cell per column; quote "
                    "cells that hold the separator, and write an empty cell for a missing value."
                )
    except csv.Error:
        where = "" if private else f" (line {last + 1})"
        raise DataError(f"the table is not well-formed CSV{where}.") from None
    return rows


def _check_header(cells: list[str]) -> None:
    names = [name.strip() for name in cells]
    if len(set(names)) != len(names):
        raise DataError("the table has two columns of the same name; rename one of them.")
    if len(cells) == 1 and ";" in cells[0]:
        raise DataError(
            "the header of the table has no comma and has semicolons: the file seems to be "
            "separated by ';', as some spreadsheets write it. Save it with commas (and decimal "
            "points), with tabs (--format tsv), or as Parquet."
        )
    if len(cells) == 1 and "\t" in cells[0]:
        raise DataError("the header has no comma and has tabs: give --format tsv.")


def _binary(data: bytes, kind: str) -> pd.DataFrame:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError(
            f"reading {kind} needs pyarrow: pip install pyarrow. A CSV file needs nothing more.",
            name="pyarrow",
        ) from None
    source = pyarrow.BufferReader(data)
    try:
        if kind == "parquet":
            table = pyarrow.parquet.read_table(source)
        else:
            table = pyarrow.ipc.open_file(source).read_all()
    except (pyarrow.ArrowInvalid, OSError):
        raise DataError(f"the table is not a readable {kind} file.") from None
    frame: pd.DataFrame = table.to_pandas()
    return frame


def require_columns(frame: Any, names: list[str]) -> None:
    """Raise for the first column that is not there, and suggest the nearest."""
    import difflib

    for name in names:
        if name not in frame.columns:
            have = [str(c) for c in frame.columns]
            near = difflib.get_close_matches(name, have, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            listed = ", ".join(have[:20]) + (", ..." if len(have) > 20 else "")
            raise ColumnNotFoundError(
                f"column {name!r} is not in the table of predictions; it has {listed}.{hint}"
            )


# -- output -----------------------------------------------------------------------------------
def check_target(path: Path, option: str) -> Path:
    """Refuse an output path that cannot be written, before any work is done."""
    if path.is_dir():
        raise OutputTargetError(
            f"{option} {path} is a directory; give the name of a file in it, such as "
            f"{path / ('audit.db' if option == '--ledger' else 'audit.html')}."
        )
    if not path.parent.is_dir():
        raise OutputTargetError(f"{option} {path}: the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputTargetError(f"{option} {path} cannot be written: permission denied.")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as temporary:
        temporary.write(data)
    name = Path(temporary.name)
    try:
        mask = os.umask(0)
        os.umask(mask)
        name.chmod(0o666 & ~mask)
        name.replace(path)
    except OSError:
        name.unlink(missing_ok=True)
        raise


def read_text(path: Path) -> str:
    """Read a JSON file that a user names."""
    if path.is_dir():
        raise DataError(f"{path} is a directory; give the JSON file of an audit.")
    if not path.exists():
        raise DataNotAvailableError(
            f"{path} does not exist. Give the JSON that `privfair audit ... --json-file` wrote."
        )
    if path.stat().st_size > 64 * 1024 * 1024:
        raise UnsafeFileError(f"{path} is larger than any audit and was not read.")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text, so not the JSON of an audit.") from None
