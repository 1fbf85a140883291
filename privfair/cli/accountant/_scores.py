"""The scores of an attack's canaries, from a CSV file: never shown, only ranked."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    ColumnNotFoundError,
    DataError,
    DataNotAvailableError,
    LabelError,
    UnsafeFileError,
)

__all__ = ["read_scores"]

MAX_BYTES = 512 * 1024**2
_IN = {"1", "1.0", "true", "in", "yes", "member", "included"}
_OUT = {"0", "0.0", "false", "out", "no", "nonmember", "non-member", "excluded"}
SCORE_NAMES = ("score", "scores")
IN_NAMES = ("in", "included", "member", "in/out", "in_out", "membership")


def read_scores(
    source: str, score: str | None = None, included: str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read scores and inclusion from CSV, or from standard input for ``-``.

    Parameters
    ----------
    source : str
        A file with a header and one row per canary.
    score, included : str or None
        Names of the columns; None takes the one with a usual name.

    Returns
    -------
    tuple of ndarray
        Scores (float, inf allowed) and inclusion (bool), in the order of the file.

    Raises
    ------
    DataError
        Says which line is wrong, and never what stands in it.
    """
    rows = _rows(_text(source))
    try:
        header = [name.strip() for name in next(rows)[1]]
    except StopIteration:
        raise DataError(f"{_name(source)} is empty: a header and one row per canary.") from None
    if len(set(header)) != len(header):
        raise DataError("two columns of the scores have the same name; rename one of them.")
    at_score = _column(header, score, SCORE_NAMES, "--score")
    at_in = _column(header, included, IN_NAMES, "--included")
    if at_score == at_in:
        raise DataError("scores and inclusion cannot be the same column.")
    values, inside = [], []
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"line {line} of the scores has {len(cells)} cells and the header has "
                f"{len(header)}."
            )
        values.append(_score(cells[at_score], line, header[at_score]))
        inside.append(_inclusion(cells[at_in], line, header[at_in]))
    if not values:
        raise DataError("the scores have a header and no rows.")
    return np.array(values), np.array(inside, dtype=bool)


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


def _text(source: str) -> str:
    if source == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        path = Path(source)
        if path.is_dir():
            raise DataError(f"{source} is a directory; give the CSV file with the scores.")
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UnsafeFileError(f"{source} is larger than 512 MiB and was not read.")
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataNotAvailableError(
                f"{source} does not exist. Give a CSV file with the columns score and in, or - "
                "for standard input."
            ) from None
    if len(data) > MAX_BYTES:
        raise UnsafeFileError("standard input holds more than 512 MiB; the rest was not read.")
    if b"\x00" in data:
        raise DataError(f"{_name(source)} holds NUL bytes: it is not CSV text.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{_name(source)} is not UTF-8 text (byte {error.start}).") from None


def _rows(text: str):  # type: ignore[no-untyped-def]
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise DataError(
                f"the scores are not well-formed CSV (line {reader.line_num})."
            ) from None
        if cells and any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _column(header: list[str], given: str | None, usual: tuple[str, ...], option: str) -> int:
    if given is not None:
        if given in header:
            return header.index(given)
        raise ColumnNotFoundError(
            f"column {given!r} is not in the scores, which have {len(header)} columns."
        )
    found = [k for k, name in enumerate(header) if name.lower() in usual]
    if len(found) == 1:
        return found[0]
    reason = "several columns" if found else "no column"
    raise ColumnNotFoundError(
        f"the scores have {reason} of the name {' or '.join(usual)}; name it with {option}. A "
        "header is needed, and commas between cells."
    )


def _score(cell: str, line: int, column: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if value != value:
        raise DataError(
            f"line {line} of the scores has no number in the column {column!r}. A canary without "
            "a score cannot be ranked, and leaving it out would void the bound; let diverged runs "
            "score -inf for all."
        )
    return value


def _inclusion(cell: str, line: int, column: str) -> bool:
    word = cell.strip().lower()
    if word in _IN:
        return True
    if word in _OUT:
        return False
    raise LabelError(
        f"line {line} of the scores: the column {column!r} must say in or out (also 1 or 0, true "
        "or false, yes or no)."
    )
