"""From rows to the table that everything else reads: codes, bins, crossed attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    SensitiveFeatureError,
    SingleGroupError,
    SmallGroupError,
)
from privfair.core.frames import check_aligned
from privfair.fairness.metrics._inputs import check_rows, read_groups, read_weights
from privfair.fairness.metrics._table import Rows
from privfair.fairness.pid._codes import (
    check_settings,
    check_size,
    decision_codes,
    value_codes,
)

__all__ = [
    "EVERYTHING",
    "OTHER_CLIENTS",
    "Codes",
    "PIDTable",
    "encode",
    "sum_groups",
    "tabulate",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OTHER_CLIENTS = "(other clients)"
EVERYTHING = ("all",)
SEVERAL = " & "


@dataclass(frozen=True, eq=False)
class PIDTable:
    """Rows by stratum, group, decision and client.

    Attributes
    ----------
    counts : ndarray of int, shape (n_strata, n_groups, n_decisions, n_clients)
        Rows in each cell. One stratum holds everything where nothing is conditioned on.
    sums, squares : ndarray of float, same shape
        Sums of the weights and of their squares; both equal ``counts`` without weights.
    groups : tuple of tuple of str
        One value per sensitive column for each group.
    features : tuple of str
        The sensitive columns.
    decisions, clients, strata : tuple
        Labels along the other axes.
    edges : tuple of float or None
        Cuts of the scores, where decisions were made from scores.
    merged : int
        Clients that were put together as too small.
    excluded : int
        Rows outside the declared categories.
    rows : Rows or None
        Distinct weighted rows; None without weights.
    smoothing : float
        Rows that are added to each cell before the parts are computed; 0 by default.
    """

    counts: Ints
    sums: Floats
    squares: Floats
    groups: tuple[tuple[str, ...], ...]
    features: tuple[str, ...]
    decisions: tuple[Any, ...]
    clients: tuple[Any, ...]
    strata: tuple[Any, ...] = EVERYTHING
    edges: tuple[float, ...] | None = None
    merged: int = 0
    excluded: int = 0
    rows: Rows | None = field(default=None, repr=False)
    smoothing: float = 0.0

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    @property
    def names(self) -> tuple[str, ...]:
        """The groups as text."""
        return tuple(SEVERAL.join(group) for group in self.groups)

    @property
    def effective_n(self) -> Floats:
        """Rows of equal weight that say as much, shape (n_strata,); the rows without weights."""
        total = self.sums.sum(axis=(1, 2, 3))
        squares = self.squares.sum(axis=(1, 2, 3))
        return np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)

    @property
    def shares(self) -> Floats:
        """Weight of each stratum, shape (n_strata,)."""
        total = self.sums.sum(axis=(1, 2, 3))
        return np.asarray(total / total.sum())

    @property
    def pseudo(self) -> float:
        """What ``smoothing`` adds to each cell, in the unit of ``sums``."""
        return self.smoothing * float(self.sums.sum()) / max(self.n, 1) if self.smoothing else 0.0

    def joint(self) -> Floats:
        """Return the joint of each stratum with rows, shape of ``counts``; each adds up to 1."""
        some = self.sums.sum(axis=(1, 2, 3), keepdims=True) > 0
        sums = self.sums + np.where(some, self.pseudo, 0.0)
        total = sums.sum(axis=(1, 2, 3), keepdims=True)
        return np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)

    def regrouping(self, position: int) -> Ints:
        """Return, for each group, the number of its value of one sensitive column."""
        values = [group[position] for group in self.groups]
        kept = list(dict.fromkeys(values))
        return np.array([kept.index(value) for value in values], dtype=np.int64)

    def attribute(self, position: int) -> PIDTable:
        """Return the table of one sensitive column alone, the others summed out."""
        kept = list(dict.fromkeys(group[position] for group in self.groups))
        where = self.regrouping(position)
        tables = [sum_groups(t, where) for t in (self.counts, self.sums, self.squares)]
        shape = tables[0].shape
        rows = self.rows
        if rows is not None:
            c, z, y, s = np.unravel_index(rows.cell, self.counts.shape)
            cell = np.ravel_multi_index((c, where[z], y, s), shape)
            rows = Rows.compress(cell.astype(np.int64), rows.weight, rows.count)
        return replace(
            self,
            counts=tables[0],
            sums=tables[1],
            squares=tables[2],
            groups=tuple((value,) for value in kept),
            features=(self.features[position],),
            rows=rows,
        )


def sum_groups(tables: NDArray[Any], where: Ints) -> NDArray[Any]:
    """Return tables (..., |Z|, m, K) with groups of the same number added up."""
    out = np.zeros((*tables.shape[:-3], int(where.max()) + 1, *tables.shape[-2:]), tables.dtype)
    for group, number in enumerate(where.tolist()):
        out[..., number, :, :] += tables[..., group, :, :]
    return out


@dataclass(frozen=True, eq=False)
class Codes:
    """Every row's stratum, group, decision and client as positions in lists of labels.

    ``codes`` are in that order; -1 is a value outside the declared ones.
    """

    codes: tuple[Ints, Ints, Ints, Ints]
    labels: tuple[tuple[Any, ...], ...]
    features: tuple[str, ...]
    edges: tuple[float, ...] | None

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether a row has a declared value on every axis."""
        return np.all([code >= 0 for code in self.codes], axis=0)


def encode(
    y_pred: Any,
    *,
    sensitive_features: Any,
    client: Any,
    y_true: Any = None,
    bins: Any = None,
    condition: str | None = None,
    cuts: Mapping[str, Sequence[float]] | None = None,
    missing_group: str | None = None,
    groups: Any = None,
    decisions: Any = None,
    clients: Any = None,
    labels: Any = None,
    public_only: bool = False,
    empty: bool = False,
) -> Codes:
    """Number the rows; with ``public_only`` by rules that do not depend on them.

    ``empty`` allows no rows at all.
    """
    if client is None:
        raise InvalidParameterError(
            "client is None, but who made the decision is half of this decomposition. Pass one "
            "column, one value per row; for a single site a constant column (then the redundant "
            "and the masked part are 0)."
        )
    if sensitive_features is None:
        raise SensitiveFeatureError(
            "sensitive_features is None, but groups are what this compares. Pass one or more "
            "columns, aligned with y_pred by position."
        )
    aligned = check_aligned if empty else check_rows
    n = aligned(y_pred=y_pred, sensitive_features=sensitive_features, client=client, y_true=y_true)
    if groups is not None and not isinstance(groups, Iterable):
        raise InvalidTypeError(
            "groups must be a list of groups, or a mapping of column to values."
        )
    found = read_groups(sensitive_features, groups=groups, cuts=cuts, missing_group=missing_group)
    y, y_labels, edges = decision_codes(y_pred, bins, decisions, public_only)
    s, s_labels = value_codes(client, clients, "client")
    c, c_labels = np.zeros(n, dtype=np.int64), EVERYTHING
    if condition is not None:
        c, c_labels = value_codes(y_true, labels, "y_true")
    z_labels = tuple(found.labels)
    return Codes(
        (c, found.codes, y, s), (c_labels, z_labels, y_labels, s_labels), found.features, edges
    )


def tabulate(
    y_pred: Any,
    *,
    sensitive_features: Any,
    client: Any,
    y_true: Any = None,
    sample_weight: Any = None,
    bins: Any = None,
    condition: str | None = None,
    groups: Any = None,
    min_cell: int = 10,
    allow_small: bool = False,
    merge_clients_below: int | None = None,
    smoothing: float = 0.0,
    **declared: Any,
) -> PIDTable:
    """Count rows by stratum, group, decision and client, in one pass."""
    check_settings(bins, condition, min_cell, allow_small, merge_clients_below, y_true, smoothing)
    check_rows(y_pred=y_pred, sample_weight=sample_weight)
    found = encode(
        y_pred,
        sensitive_features=sensitive_features,
        client=client,
        y_true=y_true,
        bins=bins,
        condition=condition,
        groups=groups,
        **declared,
    )
    weights = read_weights(sample_weight, len(found.codes[0]))
    weights = _scaled(weights)
    inside = found.inside
    excluded = int((~inside).sum())
    c, z, y, s = (code[inside] if excluded else code for code in found.codes)
    weights = weights[inside] if excluded and weights is not None else weights
    c_labels, z_labels, y_labels, s_labels = found.labels
    if z.size == 0:
        raise DataError("no row lies within the declared categories, so nothing is counted.")
    if groups is None:
        z, z_labels = _occurring(z, z_labels)
    _check_groups(z, z_labels, found.features, min_cell, allow_small)
    merged = 0
    if merge_clients_below is not None:
        s, s_labels, merged = _merge(s, s_labels, merge_clients_below)
    shape = (len(c_labels), len(z_labels), len(y_labels), len(s_labels))
    size = check_size(shape)
    cell = np.asarray(np.ravel_multi_index((c, z, y, s), shape), dtype=np.int64)
    counts = np.bincount(cell, minlength=size).reshape(shape).astype(np.int64)
    rows = None
    sums = squares = counts.astype(float)
    if weights is not None:
        sums = np.bincount(cell, weights=weights, minlength=size).reshape(shape)
        squares = np.bincount(cell, weights=weights**2, minlength=size).reshape(shape)
        rows = Rows.compress(cell, weights, np.ones(cell.size, dtype=np.int64))
    if not ((sums.sum(axis=(2, 3)) > 0).sum(axis=1) >= 2).any():
        where = "every stratum of y_true" if len(c_labels) > 1 else "all rows of positive weight"
        raise SingleGroupError(
            f"the sensitive feature {SEVERAL.join(found.features)} has one value in {where}, so "
            "that there is nothing to compare. Does the weight or the label single out a group?"
        )
    return PIDTable(
        counts, sums, squares, z_labels, found.features, y_labels, s_labels, c_labels,
        found.edges, merged, excluded, rows, float(smoothing),
    )  # fmt: skip


def _scaled(weights: Floats | None) -> Floats | None:
    """Return weights whose squares can be summed; only their ratios matter.

    A weight below 1e-100 of the largest adds nothing in double precision, and counts as zero.
    """
    if weights is None or not weights.size:
        return weights
    top = float(weights.max())
    if not 1e-100 < top < 1e100:
        weights = np.ldexp(weights, -int(np.frexp(top)[1]))
        top = float(weights.max())
    return np.where(weights < 1e-100 * top, 0.0, weights)


# --- groups and clients ---------------------------------------------------------------------


def _occurring(
    z: Ints, labels: tuple[tuple[str, ...], ...]
) -> tuple[Ints, tuple[tuple[str, ...], ...]]:
    """Leave out crossed groups that no row has."""
    sizes = np.bincount(z, minlength=len(labels))
    kept = np.flatnonzero(sizes)
    rank = np.cumsum(sizes > 0) - 1
    return rank[z].astype(np.int64), tuple(labels[i] for i in kept)


def _check_groups(
    z: Ints,
    labels: tuple[tuple[str, ...], ...],
    features: tuple[str, ...],
    min_cell: int,
    allow_small: bool,
) -> None:
    sizes = np.bincount(z, minlength=len(labels))
    if (sizes > 0).sum() < 2:
        raise SingleGroupError(
            f"the sensitive feature {SEVERAL.join(features)} has one value in all rows, so that "
            "there is nothing to decompose. Were the rows filtered by it?"
        )
    small = int(((sizes > 0) & (sizes < min_cell)).sum())
    if len(features) > 1 and small and not allow_small:
        raise SmallGroupError(
            f"{small} of the {int((sizes > 0).sum())} crossed groups have fewer than min_cell="
            f"{min_cell} rows, the smallest {int(sizes[sizes > 0].min())}. Use fewer or coarser "
            "columns, or allow_small=True to take them as they are."
        )


def _merge(s: Ints, labels: tuple[Any, ...], least: int) -> tuple[Ints, tuple[Any, ...], int]:
    sizes = np.bincount(s, minlength=len(labels))
    small = sizes < least
    if not small.any():
        return s, labels, 0
    if OTHER_CLIENTS in labels:
        raise InvalidParameterError(
            f"a client is named {OTHER_CLIENTS!r}, the name of the merged ones; rename it."
        )
    rank = np.where(small, int((~small).sum()), np.cumsum(~small) - 1)
    kept = tuple(label for label, few in zip(labels, small.tolist(), strict=True) if not few)
    return rank[s].astype(np.int64), (*kept, OTHER_CLIENTS), int(small.sum())
