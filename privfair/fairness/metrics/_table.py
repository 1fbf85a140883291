"""The table of group x label x decision counts that every confusion-based metric reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from privfair.core.exceptions import InvalidParameterError, LabelError, LengthMismatchError
from privfair.fairness.metrics._inputs import (
    DEFAULT_POS_LABEL,
    Groups,
    binary,
    check_rows,
    read_groups,
    read_weights,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cells", "GroupTable", "group_index"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Cells = tuple[tuple[int, int], ...]

SHAPE = (2, 2)  # label, decision


def group_index(features: Sequence[str], labels: Sequence[tuple[str, ...]]) -> pd.Index:
    """Return the groups as a pandas index."""
    import pandas as pd

    if len(features) == 1:
        return pd.Index([label[0] for label in labels], name=features[0], dtype=object)
    return pd.MultiIndex.from_tuples(list(labels), names=list(features))


@dataclass(frozen=True, eq=False)
class Rows:
    """Distinct weighted rows: what the resampling of weighted data needs.

    Attributes
    ----------
    cell : ndarray of int
        Position in the flattened (group, label, decision) table, ascending.
    weight : ndarray of float
    count : ndarray of int
        How often the row occurs.
    """

    cell: Ints
    weight: Floats
    count: Ints

    @classmethod
    def compress(cls, cell: Ints, weight: Floats, count: Ints) -> Rows:
        order = np.lexsort((weight, cell))
        cell, weight, count = cell[order], weight[order], count[order]
        new = np.ones(cell.size, dtype=bool)
        new[1:] = (np.diff(cell) != 0) | (np.diff(weight) != 0)
        starts = np.flatnonzero(new)
        return cls(cell[starts], weight[starts], np.add.reduceat(count, starts))


@dataclass(frozen=True)
class CellNoise:
    """Discrete Laplace noise that was added to every cell of a released table.

    Attributes
    ----------
    scale : float
        Mass proportional to ``exp(-|x| / scale)``.
    copies : int
        Independent draws in each cell: 1, or the number of groups that were added up.
    """

    scale: float
    copies: int = 1

    @property
    def variance(self) -> float:
        """Variance of the noise in one cell."""
        q = math.exp(-1.0 / self.scale)
        return self.copies * 2 * q / (1 - q) ** 2

    def spread(self, critical: float) -> float:
        """Return the variance that a normal law needs for the tails of this one.

        One discrete Laplace draw has P(abs(X) > r) = 2 q^(floor(r) + 1) / (1 + q), which is at
        most alpha for r = scale * log(2 / ((1 + q) alpha)); sums of several draws are closer to
        normal, so that the value is conservative for them.
        """
        alpha = max(2 * float(ndtr(-critical)), 1e-300)
        q = math.exp(-1.0 / self.scale)
        tail = self.scale * math.log(2 / ((1 + q) * alpha)) / critical
        return max(self.variance, self.copies * tail**2)


@dataclass(frozen=True, eq=False)
class GroupTable:
    """Counts of group x label x decision, made once and read by every metric.

    Parameters
    ----------
    features : tuple of str
        Names of the sensitive columns.
    labels : tuple of tuple of str
        The groups, one value per column; groups without rows are kept.
    counts : ndarray of int, shape (n_groups, 2, 2)
        Rows by group, label (negative, positive) and decision (negative, positive).
    sums : ndarray of float, shape (n_groups, 2, 2)
        Sums of weights; equal to ``counts`` without weights.
    squares : ndarray of float, shape (n_groups, 2, 2)
        Sums of squared weights, for effective sample sizes.
    has_labels : bool
        False when ``y_true`` was None; every row is then under the negative label.
    correctness_only : bool
        True for more than two classes without ``pos_label``: the label is always "positive" and
        the decision says whether it was right, so that only the accuracy is defined.
    excluded : tuple of (str, int)
        Reasons and numbers of rows that belong to none of the groups.
    rows : Rows or None
        Distinct weighted rows; None without weights.
    noise : CellNoise or None
        Noise of a table that was released under differential privacy; its counts may then be
        negative.
    public_n : int or None
        Number of rows, where it is public knowledge.

    Notes
    -----
    Building takes one pass, O(rows). Tables of disjoint rows are merged by ``+``, so that
    chunks, partitions and federated parties give the same table as all rows together. A table
    without ``noise`` holds exact counts and is not differentially private.

    Examples
    --------
    >>> t = GroupTable.from_arrays([1, 0, 1, 0], [1, 0, 0, 1], sensitive_features=list("aabb"))
    >>> t.n, t.names
    (4, ('a', 'b'))
    >>> t.counts[0].tolist()
    [[1, 0], [0, 1]]
    """

    features: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    counts: Ints
    sums: Floats
    squares: Floats
    has_labels: bool = True
    correctness_only: bool = False
    excluded: tuple[tuple[str, int], ...] = ()
    rows: Rows | None = field(default=None, repr=False)
    noise: CellNoise | None = None
    public_n: int | None = None

    # --- construction -----------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = DEFAULT_POS_LABEL,
        groups: Any = None,
        cuts: Mapping[str, Sequence[float]] | None = None,
        missing_group: str | None = None,
    ) -> GroupTable:
        """Tabulate rows.

        Parameters
        ----------
        y_true : array-like or None
            Labels; None leaves only metrics of decisions.
        y_pred : array-like
            Decisions, in the same classes as the labels.
        sensitive_features : array-like, data frame or None
            One or more columns, crossed; None puts all rows into one group named "all".
        sample_weight : array-like or None
            Non-negative survey or importance weights. A repeated row is more data, a larger
            weight is not.
        pos_label : object, default=1
            The positive class; all others are negative.
        groups : list, mapping or None
            The groups as public knowledge, in order; rows of other groups are counted under
            ``excluded``.
        cuts : mapping of column to numbers, or None
            Declared cuts of numeric columns, see :func:`bin_sensitive`.
        missing_group : str or None
            Name of the group of missing values; None makes them an error.

        Returns
        -------
        GroupTable

        Raises
        ------
        LabelError, SensitiveFeatureError, MissingSensitiveFeatureError, LengthMismatchError
        """
        return cls._from_rows(
            y_true, y_pred, sensitive_features, sample_weight, pos_label,
            {"groups": groups, "cuts": cuts, "missing_group": missing_group}, private=False,
        )  # fmt: skip

    @classmethod
    def _from_rows(
        cls,
        y_true: Any,
        y_pred: Any,
        sensitive_features: Any,
        sample_weight: Any,
        pos_label: Any,
        declared: dict[str, Any],
        *,
        private: bool,
    ) -> GroupTable:
        """Count; ``private`` is whether errors must not tell about the rows."""
        n = check_rows(
            y_true=y_true,
            y_pred=y_pred,
            sensitive_features=sensitive_features,
            sample_weight=sample_weight,
        )
        given = {"y_true": y_true, "y_pred": y_pred}
        arrays = {name: values for name, values in given.items() if values is not None}
        if not arrays:
            raise LabelError("y_true and y_pred are both None, so that there is nothing to count.")
        positive, raw = binary(arrays, pos_label, private=private)
        weights = read_weights(sample_weight, n)
        if sensitive_features is None:
            found = Groups(("group",), (("all",),), np.zeros(n, dtype=np.int64))
        else:
            found = read_groups(sensitive_features, **declared)
        correctness = positive is None
        if positive is None:
            if len(arrays) < 2:
                raise LabelError(
                    "there are more than two classes; pass pos_label=..., the class that the "
                    "rates count (one versus rest)."
                )
            right = np.asarray(raw["y_true"] == raw["y_pred"], dtype=bool)
            positive = {"y_true": np.ones(n, dtype=bool), "y_pred": right}
        none = np.zeros(n, dtype=bool)
        cell = (
            4 * found.codes
            + 2 * positive.get("y_true", none).astype(np.int64)
            + positive.get("y_pred", none)
        )
        return cls._tabulate(found, cell, weights, y_true is not None, correctness)

    @classmethod
    def _tabulate(
        cls,
        found: Groups,
        cell: Ints,
        weights: Floats | None,
        has_labels: bool,
        correctness: bool,
    ) -> GroupTable:
        inside = found.codes >= 0
        outside = int((~inside).sum())
        excluded = (("not among the declared groups", outside),) if outside else ()
        cell = cell[inside]
        size = 4 * len(found.labels)
        shape = (len(found.labels), *SHAPE)
        counts = np.bincount(cell, minlength=size).reshape(shape).astype(np.int64)
        rows = None
        sums = squares = counts.astype(float)
        if weights is not None:
            kept = weights[inside]
            sums = np.bincount(cell, weights=kept, minlength=size).reshape(shape)
            squares = np.bincount(cell, weights=kept * kept, minlength=size).reshape(shape)
            rows = Rows.compress(cell, kept, np.ones(cell.size, dtype=np.int64))
        return cls(
            found.features,
            found.labels,
            counts,
            sums,
            squares,
            has_labels,
            correctness,
            excluded,
            rows,
        )

    @classmethod
    def from_counts(
        cls,
        counts: ArrayLike,
        *,
        groups: Sequence[Any],
        features: Sequence[str] = ("group",),
        has_labels: bool = True,
    ) -> GroupTable:
        """Return the table of given counts.

        Parameters
        ----------
        counts : array-like of int, shape (n_groups, 2, 2)
            By group, label and decision; index 1 is positive.
        groups : sequence of str or of tuples
        features : sequence of str, default=("group",)
        has_labels : bool, default=True
        """
        given = np.asarray(counts)
        labels = tuple(
            tuple(str(v) for v in g) if isinstance(g, tuple) else (str(g),) for g in groups
        )
        if given.shape != (len(labels), *SHAPE):
            raise LengthMismatchError(
                f"counts must have shape ({len(labels)}, 2, 2) for {len(labels)} groups, got "
                f"{given.shape}."
            )
        if (given < 0).any() or (given != np.floor(given)).any():
            raise InvalidParameterError("counts must be non-negative whole numbers.")
        whole = given.astype(np.int64)  # wide, whatever the input: sums of uint8 wrap around
        return cls(
            tuple(features), labels, whole, whole.astype(float), whole.astype(float), has_labels
        )

    # --- views ------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The groups as text, values of several columns joined by " & "."""
        return tuple(" & ".join(label) for label in self.labels)

    @property
    def n(self) -> int:
        """Number of rows in the table, or the public number of rows of a released one."""
        return int(self.counts.sum()) if self.public_n is None else self.public_n

    @property
    def n_groups(self) -> int:
        """Number of groups, empty ones included."""
        return len(self.labels)

    @property
    def weighted(self) -> bool:
        """Whether rows carry weights."""
        return self.rows is not None

    @property
    def index(self) -> pd.Index:
        """The groups as a pandas index."""
        return group_index(self.features, self.labels)

    def overall(self) -> GroupTable:
        """Return the table of all groups together."""
        rows = self.rows
        if rows is not None:
            rows = Rows.compress(rows.cell % 4, rows.weight, rows.count)
        return GroupTable(
            ("group",),
            (("all",),),
            self.counts.sum(axis=0, keepdims=True),
            self.sums.sum(axis=0, keepdims=True),
            self.squares.sum(axis=0, keepdims=True),
            self.has_labels,
            self.correctness_only,
            self.excluded,
            rows,
            None if self.noise is None else CellNoise(self.noise.scale, self.n_groups),
            self.public_n,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the counts as a data frame, one row per group."""
        import pandas as pd

        flat = self.counts.reshape(self.n_groups, 4)
        data = {"n": flat.sum(axis=1), "tn": flat[:, 0], "fp": flat[:, 1]}
        data |= {"fn": flat[:, 2], "tp": flat[:, 3]}
        if self.weighted:
            data["weight"] = self.sums.sum(axis=(1, 2))
        return pd.DataFrame(data, index=self.index)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON data."""
        return {
            "features": list(self.features),
            "groups": [list(label) for label in self.labels],
            "counts": self.counts.tolist(),
            "excluded": [{"reason": reason, "n": n} for reason, n in self.excluded],
            "weighted": self.weighted,
            "has_labels": self.has_labels,
            "noise_scale": None if self.noise is None else self.noise.scale,
        }

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html())

    # --- merging ----------------------------------------------------------------------------

    def merge(self, other: GroupTable) -> GroupTable:
        """Return the table of the rows of both, which must be disjoint.

        Groups are matched by name; those of ``other`` that are new come last.
        """
        if not isinstance(other, GroupTable):
            raise InvalidParameterError("only a GroupTable can be merged into a GroupTable.")
        if self.noise is not None or other.noise is not None:
            raise InvalidParameterError(
                "tables with noise are not merged: each release has its own guarantee. Merge the "
                "exact tables and release once."
            )
        for name in ("features", "has_labels", "correctness_only", "weighted"):
            if getattr(self, name) != getattr(other, name):
                raise InvalidParameterError(
                    f"tables can be merged only if they agree in {name}, got "
                    f"{getattr(self, name)} and {getattr(other, name)}."
                )
        labels = list(dict.fromkeys(self.labels + other.labels))
        where = {label: i for i, label in enumerate(labels)}
        place = [np.array([where[x] for x in t.labels], dtype=np.int64) for t in (self, other)]

        def joined(name: str) -> Any:
            first = getattr(self, name)
            out = np.zeros((len(labels), *SHAPE), dtype=first.dtype)
            out[place[0]] += first
            out[place[1]] += getattr(other, name)
            return out

        excluded: dict[str, int] = {}
        for reason, n in self.excluded + other.excluded:
            excluded[reason] = excluded.get(reason, 0) + n
        rows = None
        if self.rows is not None and other.rows is not None:
            parts = list(zip((self.rows, other.rows), place, strict=True))
            rows = Rows.compress(
                np.concatenate([4 * p[r.cell // 4] + r.cell % 4 for r, p in parts]),
                np.concatenate([r.weight for r, _ in parts]),
                np.concatenate([r.count for r, _ in parts]),
            )
        return GroupTable(
            self.features,
            tuple(labels),
            joined("counts"),
            joined("sums"),
            joined("squares"),
            self.has_labels,
            self.correctness_only,
            tuple(excluded.items()),
            rows,
        )

    def __add__(self, other: GroupTable) -> GroupTable:
        return self.merge(other)
