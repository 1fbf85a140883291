"""Who is in the reference set and who in each target set, and sums over these sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    ProbabilityRangeError,
)
from privfair.core.frames import as_table, as_vector, missing_mask
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL, Groups, check_rows, read_groups
from privfair.fairness.sep._effort import EffortRule, types_of
from privfair.fairness.sep._rules import Bools, Rule

__all__ = ["REFERENCES", "CellSums", "Sets", "memberships", "read_decisions", "read_sets"]

Floats = NDArray[np.float64]
REFERENCES = ("conditional", "overall")


# --- decisions ------------------------------------------------------------------------------


def read_decisions(
    y_pred: Any, pos_label: Any = DEFAULT_POS_LABEL, *, per_record: bool = False
) -> Floats:
    """Return decisions, decision probabilities or scores as numbers in [0, 1].

    With ``per_record`` each number is a function of its own entry and of ``pos_label``, as a
    private release needs: no entry decides how the others are read.
    """
    values = as_vector(y_pred, name="y_pred")
    if missing_mask(values).any():
        raise LabelError("y_pred has missing values. Drop these rows, or decide them.")
    numeric = values.dtype.kind in "fiub"
    if pos_label is not DEFAULT_POS_LABEL:
        one = numeric and not isinstance(pos_label, str) and bool(np.all(pos_label == 1))
        if per_record:
            return _one_by_one(values, pos_label, one)
        if not _fractions(values):
            return _chosen(values, pos_label)
        if not one:
            raise LabelError(
                f"pos_label={pos_label!r} names a label, and y_pred holds fractions, which are "
                "scores of a positive decision. Leave pos_label out, or pass decisions."
            )
    if not numeric:
        raise LabelError(
            "y_pred holds labels that are not numbers. Pass pos_label=..., the label of a "
            "positive decision."
        )
    numbers = values.astype(float)
    if numbers.size and (not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 1):
        raise ProbabilityRangeError(
            "y_pred must hold decisions 0 and 1 or numbers between them (a probability of a "
            "positive decision, a score). Rescale it, or pass pos_label=... for other labels."
        )
    return numbers


def _chosen(values: NDArray[Any], pos_label: Any) -> Floats:
    seen = set(values.tolist())
    if pos_label not in seen and len(seen) > 1:
        raise LabelError(
            f"pos_label={pos_label!r} does not occur in y_pred. Every rate would be 0; check "
            "the spelling and the type."
        )
    return np.asarray(values == pos_label, dtype=float)


def _one_by_one(values: NDArray[Any], pos_label: Any, one: bool) -> Floats:
    """Read each entry alone: the label 1 is also a probability of 1, another one is a name."""
    if not one:
        return np.asarray(values == pos_label, dtype=float)
    numbers = values.astype(float)
    return np.where((numbers >= 0) & (numbers <= 1), numbers, 0.0)


def _fractions(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "f" and bool((values != np.floor(values)).any())


# --- sets -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sets:
    """Who is in which set.

    Attributes
    ----------
    groups : Groups
        Protected groups; rows of no declared group have the code -1.
    low : ndarray of bool
        Whether a row is underprivileged.
    effort : ndarray of bool or None
        Whether a row shows effort; None without a condition on effort.
    reference : {"conditional", "overall"}
    everyone : bool
        Whether there is a target set of all underprivileged rows, of whatever group.
    ses_rule, effort_rule : rule or None
        With what they have learnt.
    """

    groups: Groups
    low: Bools
    effort: Bools | None
    reference: str
    everyone: bool
    ses_rule: Rule | None
    effort_rule: EffortRule | None

    @property
    def n_rows(self) -> int:
        return len(self.low)

    @property
    def in_reference(self) -> Bools:
        """Rows of the reference set, shape (n_rows,)."""
        if self.effort is None or self.reference == "overall":
            return np.ones(self.n_rows, dtype=bool)
        return self.effort

    @property
    def eligible(self) -> Bools:
        """Rows that are in the target set of their group."""
        return self.low if self.effort is None else self.low & self.effort

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """The name of every target set."""
        names = list(self.groups.labels)
        return names + [("all",) * len(self.groups.features)] if self.everyone else names

    @property
    def names(self) -> list[str]:
        """The name of every target set as one text."""
        return [", ".join(label) for label in self.labels]

    def targets(self) -> list[Bools]:
        """Return the rows of every target set, in the order of ``labels``."""
        rows = self.eligible
        found = [rows & (self.groups.codes == j) for j in range(len(self.groups.labels))]
        return [*found, rows] if self.everyone else found

    @property
    def cells(self) -> NDArray[np.int64]:
        """The cell (group, low, effort) of every row; without effort everybody shows it."""
        shown = np.ones(self.n_rows, dtype=np.int64) if self.effort is None else self.effort
        return np.asarray(((self.groups.codes + 1) * 2 + self.low) * 2 + shown)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.groups.labels) + 1, 2, 2)


def read_sets(
    sensitive_features: Any,
    ses: Any,
    *,
    effort: Any = None,
    ses_features: Any = None,
    effort_features: Any = None,
    reference: str = "conditional",
    everyone: bool = False,
    sample_weight: Any = None,
    groups: Any = None,
    missing_group: str | None = None,
    y_true: Any = None,
    label_columns: Any = (),
    rows: Any = None,
) -> Sets:
    """Return the sets that the rules and columns describe."""
    check.one_of(REFERENCES, reference=reference)
    check.boolean(everyone=everyone)
    _check_columns(ses, effort, label_columns)
    if isinstance(ses, EffortRule) or isinstance(effort, Rule):
        raise InvalidTypeError(
            "ses must be a rule on status and effort an EffortRule; got one for the other."
        )
    check_rows(
        y_pred=rows,
        sensitive_features=sensitive_features,
        ses_features=ses_features if isinstance(ses, Rule) else ses,
        effort_features=effort_features if isinstance(effort, EffortRule) else effort,
        sample_weight=sample_weight,
    )
    if sensitive_features is None and everyone:
        found = Groups(("everyone",), (), np.full(len(as_vector(rows, name="y_pred")), -1))
    else:
        found = read_groups(sensitive_features, groups=groups, missing_group=missing_group)
    rule, low = _read_low(ses, ses_features, sample_weight)
    _refuse_label(low, y_true)
    effort_rule, shown = _read_effort(
        effort, effort_features, ses_features, sensitive_features, low, sample_weight
    )
    return Sets(found, low, shown, reference, everyone, rule, effort_rule)


def _check_columns(ses: Any, effort: Any, label_columns: Any) -> None:
    never = {label_columns} if isinstance(label_columns, str) else _names(label_columns)
    used: set[str] = set()
    for rule in (ses, effort):
        if isinstance(rule, Rule):
            used |= set(rule.columns)
        if isinstance(rule, EffortRule):
            used |= {rule.column, *(rule.rank_within or ())}
    if used & never:
        raise InvalidParameterError(
            f"{sorted(used & never)} may not say who is underprivileged or shows effort: "
            "label_columns names them as the label, or as made from it. Being poor would then "
            "mean the outcome itself. Choose another column."
        )


def _names(label_columns: Any) -> set[Any]:
    try:
        return set(() if label_columns is None else label_columns)
    except TypeError:
        raise InvalidTypeError(
            "label_columns must be a list of names of columns, got "
            f"{type(label_columns).__name__}."
        ) from None


def _read_low(ses: Any, ses_features: Any, weight: Any) -> tuple[Rule | None, Bools]:
    if isinstance(ses, Rule):
        if ses_features is None:
            raise InvalidParameterError(
                f"the rule {ses} needs ses_features, a table with {list(ses.columns)}."
            )
        rule = ses if ses.fitted else ses.fit(ses_features, sample_weight=weight)
        return rule, rule.apply(ses_features)
    if ses is None:
        ses = ses_features
    if ses is None:
        raise InvalidParameterError(
            "who is underprivileged is not said: pass ses=SESRule(...) with ses_features, or a "
            "boolean for each row."
        )
    return None, _indicator(ses, "ses")


def _indicator(values: Any, name: str) -> Bools:
    column = as_vector(values, name=name)
    if column.dtype.kind == "O" and all(isinstance(v, bool | np.bool_) for v in column.tolist()):
        column = column.astype(bool)
    if column.dtype.kind == "b":
        return np.asarray(column, dtype=bool)
    if column.dtype.kind in "iuf" and set(np.unique(column).tolist()) <= {0, 1}:
        return np.asarray(column == 1, dtype=bool)
    raise InvalidTypeError(
        f"{name} must be a rule, or one boolean for each row; got a column of other values. "
        "Write a rule with a threshold, and pass the column as features."
    )


def _refuse_label(low: Bools, y_true: Any) -> None:
    """Refuse a status that is the label by another name."""
    if y_true is None:
        return
    labels = as_vector(y_true, name="y_true")
    if len(labels) != len(low):
        raise LengthMismatchError(
            f"y_true has {len(labels)} rows and the features have {len(low)}."
        )
    kinds = list(dict.fromkeys(labels.tolist()))
    if len(kinds) != 2 or low.all() or not low.any():
        return
    first = np.asarray(labels == kinds[0], dtype=bool)
    if np.array_equal(first, low) or np.array_equal(~first, low):
        raise DataError(
            "the rule selects exactly the rows of one label, so that being underprivileged would "
            "mean the outcome itself. The label, and what is made from it, is no privilege."
        )


def _read_effort(
    effort: Any, effort_features: Any, ses_features: Any, sensitive: Any, low: Bools, weight: Any
) -> tuple[EffortRule | None, Bools | None]:
    if effort is None:
        return None, None
    if not isinstance(effort, EffortRule):
        return None, _indicator(effort, "effort")
    if effort_features is None:
        raise InvalidParameterError(
            f"the rule {effort} needs effort_features, a table with {effort.column!r}."
        )
    types = None
    if effort.rank_within is not None:
        given = [
            (sensitive, "sensitive_features"),
            (ses_features, "ses_features"),
            (effort_features, "effort_features"),
        ]
        tables = [as_table(t, name=name, prefix=name) for t, name in given if t is not None]
        types = types_of(effort.rank_within, tables, low)
    if not effort.fitted:
        effort = effort.fit(effort_features, types, sample_weight=weight)
    return effort, effort.apply(effort_features, types)


def memberships(
    n_groups: int, effort: bool, reference: str, everyone: bool = False
) -> tuple[Floats, Floats]:
    """Return membership of every cell (group, low, effort) in reference and target sets.

    Cells are numbered as :attr:`Sets.cells` does, of no declared group first; shapes (n_cells,)
    and (n_cells, n_targets), as 0 and 1.
    """
    cell = np.arange((n_groups + 1) * 4)
    group, low, shown = cell // 4 - 1, (cell // 2 % 2) == 1, (cell % 2) == 1
    inside = np.ones(len(cell)) if not effort or reference == "overall" else shown.astype(float)
    target = (group[:, None] == np.arange(n_groups)) & (low & shown)[:, None]
    if everyone:
        target = np.column_stack([target, low & shown])
    return inside, target.astype(float)


# --- sums -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CellSums:
    """Sums over the cells (group, low, effort); everything about gaps is made of them.

    Attributes
    ----------
    rows, mass, mass_h, square, square_h, square_hh : ndarray, shape (groups + 1, 2, 2)
        Number of rows; sums of w, w h, w^2, w^2 h and w^2 h^2. The first group is that of the
        rows of no declared group.
    """

    rows: Floats
    mass: Floats
    mass_h: Floats
    square: Floats
    square_h: Floats
    square_hh: Floats

    @classmethod
    def of(cls, sets: Sets, h: Floats, weight: Floats | None) -> CellSums:
        """Add up decisions by cell; one pass over the rows."""
        cells, shape = sets.cells, sets.shape
        size = int(np.prod(shape))

        def total(values: Floats | None) -> Floats:
            return np.bincount(cells, weights=values, minlength=size).reshape(shape).astype(float)

        rows = total(None)
        if weight is None:
            first, second = total(h), total(h * h)
            return cls(rows, rows, first, rows, first, second)
        w2 = weight * weight
        return cls(
            total((weight > 0).astype(float)), total(weight), total(weight * h), total(w2),
            total(w2 * h), total(w2 * h * h),
        )  # fmt: skip

    def __add__(self, other: CellSums) -> CellSums:
        return CellSums(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple[Floats, ...]:
        return (
            self.rows, self.mass, self.mass_h, self.square, self.square_h, self.square_hh,
        )  # fmt: skip


def released_cells(sets: Sets) -> tuple[NDArray[np.int64], int]:
    """Return the cell of every row for a private release, and how many cells there are.

    Cell 2 (group + 1) + eligible inside the reference set, -1 outside of it; group -1 are the
    rows of no declared group. Every target set lies in the reference set, so that these cells,
    which do not overlap, make up all of them.
    """
    code = (sets.groups.codes + 1) * 2 + sets.eligible
    return np.where(sets.in_reference, code, -1), 2 * (len(sets.groups.labels) + 1)


def checked_groups(groups: Any) -> None:
    """Refuse undeclared groups where they must be public."""
    if groups is None:
        raise InvalidParameterError(
            "groups is None, but under privacy= the groups must be public knowledge: which groups "
            "occur in the data is private. Pass groups=[...], every group that could occur."
        )
