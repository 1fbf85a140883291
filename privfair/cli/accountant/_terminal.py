"""A curve drawn with characters: dots of Braille where they can be shown, letters elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "draw"]

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_MARGIN = 9


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, linear or in powers of ten."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return where a value is, 0 at the low end and 1 at the high one."""
        if self.log:
            value = max(value, 1e-300)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def value(self, at: float) -> float:
        """Return the value at a place."""
        if self.log:
            return self.low * math.exp(at * math.log(self.high / self.low))
        return self.low + at * (self.high - self.low)

    def text(self, at: float) -> str:
        """Return the label at a place."""
        return f"{self.value(at):.3g}"


def draw(
    points: Sequence[tuple[float, float]],
    x: Axis,
    y: Axis,
    *,
    title: str,
    width: int,
    height: int = 12,
    unicode: bool = True,
    other: Sequence[tuple[float, float]] = (),
) -> list[str]:
    """Return the lines of a plot.

    Parameters
    ----------
    points : sequence of (float, float)
        The curve, in order; joined by straight lines on the axes.
    x, y : Axis
    title : str
    width : int
        Columns of the whole plot; at least 30 are used.
    height : int, default=12
        Rows between the axes.
    unicode : bool, default=True
        False draws with ASCII alone.
    other : sequence of (float, float), default=()
        A second curve for comparison, drawn with fewer marks.

    Examples
    --------
    >>> for line in draw([(0, 0), (1, 1)], Axis(0, 1), Axis(0, 1), title="y = x", width=30,
    ...                  height=4, unicode=False):
    ...     print(line.rstrip())
    y = x
           1 |                ****
             |          ******
             |    ******
           0 |****
             +--------------------
              0        0.5       1
    """
    columns = max(30, width) - _MARGIN - 1
    across, down = (2, 4) if unicode else (1, 1)
    grid = [[0] * columns for _ in range(height)]
    for curve, sparse in ((other, True), (points, False)):
        for column, row in _cells(curve, x, y, columns * across, height * down, sparse=sparse):
            mark = _DOTS[row % 4][column % 2] if unicode else 2 - sparse
            cell = grid[row // down]
            at = column // across
            cell[at] = cell[at] | mark if unicode else max(cell[at], mark)
    bar, corner, rule = ("│", "└", "─") if unicode else ("|", "+", "-")
    lines = [title]
    for row, cells in enumerate(grid):
        share = 1 - row / (height - 1) if height > 1 else 1.0
        wanted = row in (0, height - 1) or (height >= 9 and row == (height - 1) // 2)
        label = y.text(share) if wanted else ""
        lines.append(f"{label:>{_MARGIN - 1}} {bar}" + "".join(_mark(c, unicode) for c in cells))
    lines.append(" " * _MARGIN + corner + rule * columns)
    left, middle, right = x.text(0), x.text(0.5), x.text(1)
    between = columns - len(left) - len(middle) - len(right)
    before = max(1, columns // 2 - len(left) - len(middle) // 2)
    lines.append(
        " " * (_MARGIN + 1) + left + " " * before + middle + " " * max(1, between - before) + right
    )
    return lines


def _mark(cell: int, unicode: bool) -> str:
    if unicode:
        return chr(_BRAILLE + cell) if cell else " "
    return " .*"[cell]


def _cells(
    points: Sequence[tuple[float, float]], x: Axis, y: Axis, columns: int, rows: int, *,
    sparse: bool,
) -> list[tuple[int, int]]:  # fmt: skip
    """Return the cells on a curve: every column between its first and its last point."""
    placed = sorted((x.at(a), y.at(b)) for a, b in points)
    out = []
    for (x0, y0), (x1, y1) in zip(placed, placed[1:], strict=False):
        first, last = round(x0 * (columns - 1)), round(x1 * (columns - 1))
        for column in range(first, last + 1):
            share = 0.0 if last == first else (column - first) / (last - first)
            height = y0 + share * (y1 - y0)
            if sparse and column % 4:
                continue
            row = round((1 - height) * (rows - 1))
            if 0 <= column < columns and 0 <= row < rows:
                out.append((column, row))
    return out
