"""Hostile text: what a group name, a column name or a file name may not do to a reader.

Names come from data, and data come from anywhere. A name is cleaned once, when it enters the
audit, and escaped again by each rendering in its own language (HTML, SVG, CSV, terminal).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MAX_LABEL", "clean_label", "clean_text", "csv_cell", "csv_text", "unique_labels"]

MAX_LABEL = 80
"""Longer labels are cut, with an ellipsis."""

# Bidirectional controls can make a line read backwards; U+2028/9 end a line in JavaScript.
_BIDI = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x2060, 0xFEFF, *range(0xFFF9, 0xFFFC)])
_SPACES = dict.fromkeys([0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029], " ")
_TABLE = {**_BIDI, **_INVISIBLE, **_SPACES}


def clean_text(value: Any) -> str:
    r"""Return text without control, bidirectional and invisible characters.

    Examples
    --------
    >>> clean_text("a\x1b[31mred\x07 b\u202egnp")
    'a[31mred bgnp'
    """
    text = unicodedata.normalize("NFC", str(value)).translate(_TABLE)
    # Cc: ESC, BEL, NUL, C1 controls. Cs: lone surrogates, which no file can hold.
    return "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cs"})


def clean_label(value: Any, limit: int = MAX_LABEL) -> str:
    r"""Return a label on one line, cut to ``limit`` characters; a blank one is named so.

    Examples
    --------
    >>> clean_label("  Black \n or African  American"), clean_label("")
    ('Black or African American', '(blank)')
    """
    text = " ".join(clean_text(value).split())
    if len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    return text or "(blank)"


def unique_labels(values: Iterable[Any], limit: int = MAX_LABEL) -> Mapping[Any, str]:
    r"""Map each distinct value to a clean label that no other value has.

    Two names that differ in an invisible character only must not become one group.

    Examples
    --------
    >>> sorted(unique_labels(["a", "a\u200b"]).values())
    ['a', 'a (2)']
    """
    out: dict[Any, str] = {}
    taken: set[str] = set()
    for value in values:
        if value in out:
            continue
        label, k = clean_label(value, limit), 1
        base = label
        while label in taken:
            k += 1
            label = f"{base} ({k})"
        taken.add(label)
        out[value] = label
    return out


def csv_cell(value: Any) -> str:
    """Return a cell that no spreadsheet takes for a formula.

    Examples
    --------
    >>> csv_cell("=1+1"), csv_cell(-0.5), csv_cell('say "x", y')
    ("'=1+1", '-0.5', '"say ""x"", y"')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if text[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        text = "'" + text
    if any(c in text for c in ',"\n\r'):
        text = '"' + text.replace('"', '""') + '"'
    return text


def csv_text(columns: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Return a CSV table with guarded cells and CRLF line ends (RFC 4180)."""
    lines = [",".join(csv_cell(c) for c in columns)]
    lines += [",".join(csv_cell(c) for c in row) for row in rows]
    return "\r\n".join(lines) + "\r\n"
