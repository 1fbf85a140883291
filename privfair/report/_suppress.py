"""Small cells: which groups may not be shown, and which others would give them away.

A count between 1 and the limit is not shown. That is not enough: if one group of an attribute is
left out, it is the total minus the others. So further groups are left out until no hidden group
is a linear combination of what is shown, over all attributes and crossings together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["disclosed", "plan"]

Key = tuple[tuple[str, ...], int]
"""A crossing's attributes and a group's place in it."""

Floats = NDArray[np.float64]


def _indicators(codes: Mapping[tuple[str, ...], NDArray[np.int64]]) -> dict[Key, Floats]:
    """Return each group as a 0/1 vector over the finest groups that the attributes make."""
    stacked = np.column_stack(list(codes.values()))
    atoms = np.unique(stacked, axis=0)
    out: dict[Key, Floats] = {}
    for at, name in enumerate(codes):
        for group in np.unique(atoms[:, at]).tolist():
            out[(name, int(group))] = (atoms[:, at] == group).astype(float)
    return out


def disclosed(hidden: Floats, shown: Floats) -> NDArray[np.bool_]:
    """Return which hidden vectors are linear combinations of the shown ones.

    Examples
    --------
    >>> import numpy as np
    >>> disclosed(np.array([[1.0, 0, 0]]), np.array([[1.0, 1, 1], [0, 1, 1]])).tolist()
    [True]
    >>> disclosed(np.array([[1.0, 0, 0]]), np.array([[1.0, 1, 1], [0, 0, 1]])).tolist()
    [False]
    """
    basis = np.linalg.svd(shown, full_matrices=False)
    rank = int((1e-9 * max(basis.S.max(initial=0.0), 1.0) < basis.S).sum())
    rows = basis.Vh[:rank]
    rest = hidden - (hidden @ rows.T) @ rows
    return np.asarray(np.linalg.norm(rest, axis=1) < 1e-7 * np.linalg.norm(hidden, axis=1))


def plan(
    codes: Mapping[tuple[str, ...], NDArray[np.int64]],
    masks: Sequence[NDArray[np.bool_]],
    decisions: Sequence[NDArray[np.bool_]],
    min_cell: int,
) -> dict[tuple[str, ...], set[int]]:
    """Return the groups to hide, by crossing.

    Parameters
    ----------
    codes : mapping of attributes to ndarray of int
        Group of each row in every crossing that the report shows.
    masks : sequence of bool arrays
        What every group is split by in the report: the label, or nothing.
    decisions : sequence of bool arrays
        Decisions of each model; each is crossed with the masks.
    min_cell : int
        Counts from 1 to ``min_cell - 1`` may not be shown.

    Notes
    -----
    A group counts as small if it has fewer than ``min_cell`` rows, or a cell of label and
    decision with 1 to ``min_cell - 1`` rows, since rates reveal such cells. O(shown groups^2 x
    finest groups) for each group hidden in addition.
    """
    vectors = _indicators(codes)

    def small(name: tuple[str, ...], groups: Collection[int]) -> bool:
        return _small(np.isin(codes[name], list(groups)), masks, decisions, min_cell)

    sizes = {key: int((codes[key[0]] == key[1]).sum()) for key in vectors}
    hidden = {
        key for key in vectors if _small(codes[key[0]] == key[1], masks, decisions, min_cell)
    }
    everything = np.ones(len(next(iter(vectors.values()))))
    while True:
        step = _next(vectors, sizes, hidden, everything, small)
        if step is None:
            break
        hidden.add(step)
    out: dict[tuple[str, ...], set[int]] = {name: set() for name in codes}
    for name, group in hidden:
        out[name].add(group)
    return out


def _small(inside: Any, masks: Any, decisions: Any, limit: int) -> bool:
    if inside.sum() < limit:
        return True
    for decision in decisions or [np.zeros(len(inside), dtype=bool)]:
        code = decision[inside].astype(int)
        for mask in masks:
            code = 2 * code + mask[inside]
        cells = np.bincount(code)
        if ((cells > 0) & (cells < limit)).any():
            return True
    return False


def _next(
    vectors: dict[Key, Floats], sizes: dict[Key, int], hidden: set[Key], everything: Floats,
    small: Callable[[tuple[str, ...], Collection[int]], bool],
) -> Key | None:  # fmt: skip
    """Return one more group to hide, or None if no hidden group can be worked out."""
    if not hidden:
        return None
    order = sorted(hidden)
    shown = [key for key in vectors if key not in hidden]
    for name in dict.fromkeys(key[0] for key in order):
        together = [key[1] for key in order if key[0] == name]
        rest = [key for key in shown if key[0] == name]
        # What is hidden in one table is, as a whole, the total minus what is shown.
        if rest and small(name, together):
            return min(rest, key=lambda key: (sizes[key], key))
    table = np.array([everything, *(vectors[key] for key in shown)])
    known = disclosed(np.array([vectors[key] for key in order]), table)
    for key, found in zip(order, known.tolist(), strict=True):
        if not found:
            continue
        same = [other for other in shown if other[0] == key[0]]
        touching = [o for o in shown if (vectors[o] * vectors[key]).any()]
        choice = same or touching
        if choice:
            return min(choice, key=lambda other: (sizes[other], other))
    return None
