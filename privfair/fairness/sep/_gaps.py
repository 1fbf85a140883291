"""The table of gaps: socio-economic parity per protected group, with intervals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import SmallSampleWarning, UtilityWarning
from privfair.core.statistics import normal_critical
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL, read_weights
from privfair.fairness.sep._sets import CellSums, Sets, read_decisions, read_sets

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MIN_GROUP", "GapTable", "gap_table", "sep_gaps"]

Floats = NDArray[np.float64]
MIN_GROUP = 30
NOT_ENOUGH = "fewer rows than min_group"
VACUOUS = "vacuous: the target set is the whole reference set"


def _rate(part: Floats, whole: Floats) -> Floats:
    out = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.divide(part, whole, out=out, where=np.asarray(whole) > 0)


@dataclass(frozen=True, eq=False)
class GapTable:
    """Gaps of all target sets, as arrays of shape (n_targets,).

    Attributes
    ----------
    gap, se : ndarray
        ``E[h | R] - E[h | G_j]`` and its standard error; NaN where a set is too small.
    note : list of str
        Why a gap is missing or says nothing; empty otherwise.
    """

    n_target: Floats
    n_reference: float
    rate_target: Floats
    rate_reference: float
    gap: Floats
    se: Floats
    dp_part: Floats
    ses_part: Floats
    gap_to_rest: Floats
    note: list[str]


def gap_table(sums: CellSums, sets: Sets, min_group: int) -> GapTable:
    """Return the gaps from sums over cells; its cost does not depend on the number of rows."""
    conditional = sets.effort is not None and sets.reference == "conditional"
    view = (slice(None), slice(None), slice(1, 2) if conditional else slice(None))

    def by_group(values: Floats) -> Floats:
        """Sums over the reference set inside each group, "all" last where it is wanted."""
        inside = values[view].sum(axis=(1, 2))
        return np.append(inside[1:], inside.sum()) if sets.everyone else inside[1:]

    def target(values: Floats) -> Floats:
        inside = values[:, 1, 1]
        return np.append(inside[1:], inside.sum()) if sets.everyone else inside[1:]

    whole = {k: float(v[view].sum()) for k, v in vars(sums).items()}
    part = {k: target(v) for k, v in vars(sums).items()}
    own = {k: by_group(v) for k, v in vars(sums).items()}
    n_reference = whole["rows"]
    reference = whole["mass_h"] / whole["mass"] if whole["mass"] > 0 else np.nan
    rate = _rate(part["mass_h"], part["mass"])
    few = (part["rows"] < max(min_group, 1)) | (n_reference < max(min_group, 1))
    gap = np.where(few, np.nan, reference - rate)
    own_rate = _rate(own["mass_h"], own["mass"])
    rest = _rate(whole["mass_h"] - part["mass_h"], _positive(whole["mass"] - part["mass"]))
    alone = np.where(whole["rows"] == part["rows"], np.nan, rest)
    note = [
        NOT_ENOUGH if bad else (VACUOUS if n == n_reference else "")
        for bad, n in zip(few, part["rows"], strict=True)
    ]
    return GapTable(
        n_target=part["rows"],
        n_reference=n_reference,
        rate_target=rate,
        rate_reference=reference,
        gap=gap,
        se=np.where(few, np.nan, _standard_error(whole, part, reference, rate)),
        dp_part=np.where(few, np.nan, reference - own_rate),
        ses_part=np.where(few, np.nan, own_rate - rate),
        gap_to_rest=np.where(few, np.nan, alone - rate),
        note=note,
    )


def _positive(values: Floats) -> Floats:
    """Differences of sums of weights that are zero on paper."""
    return np.where(values > 1e-12, values, 0.0)


def _standard_error(
    whole: dict[str, float], part: dict[str, Floats], reference: float, rate: Floats
) -> Floats:
    """Root of the sum of squared influence values; the target set lies in the reference set.

    The influence of row i on the gap is ``w_i (1_R (h - r_R) / W_R - 1_G (h - r_G) / W_G)``.
    """

    def spread(sums: Any, a: Any, b: Any) -> Any:
        """Sum of w^2 (h - a) (h - b)."""
        return sums["square_hh"] - (a + b) * sums["square_h"] + a * b * sums["square"]

    w_r, w_g = whole["mass"], np.where(part["mass"] > 0, part["mass"], np.nan)
    variance = (
        spread(whole, reference, reference) / w_r**2
        + spread(part, rate, rate) / w_g**2
        - 2 * spread(part, reference, rate) / (w_r * w_g)
        if w_r > 0
        else np.full(rate.shape, np.nan)
    )
    return np.sqrt(np.maximum(variance, 0.0))


def sep_gaps(
    y_pred: Any,
    sensitive_features: Any,
    ses: Any = None,
    *,
    effort: Any = None,
    ses_features: Any = None,
    effort_features: Any = None,
    reference: str = "conditional",
    protected: str = "groups",
    sample_weight: Any = None,
    pos_label: Any = DEFAULT_POS_LABEL,
    y_true: Any = None,
    label_columns: Any = (),
    groups: Any = None,
    min_group: int = MIN_GROUP,
    confidence: float = 0.95,
) -> pd.DataFrame:
    r"""Return how far each group's underprivileged members lie below everybody.

    :math:`\Delta(s) = E[h] - E[h \mid s, \text{low status}]` (SEP), and with a rule on effort
    :math:`E[h \mid C] - E[h \mid s, \text{low status}, C]` (CSEP), C being those who show
    effort. Above zero: underprivileged members of s are selected too rarely.

    Parameters
    ----------
    y_pred : array-like of shape (n_rows,)
        Decisions 0 and 1, probabilities of a positive decision, or scores in [0, 1].
    sensitive_features : array-like or table of shape (n_rows,) or (n_rows, n_columns)
        Protected attributes; several columns are crossed.
    ses : SESRule, CompositeSES or array-like of bool
        Who is underprivileged; a rule reads ``ses_features``, and learns its quantiles there.
    effort : EffortRule, array-like of bool or None, default=None
        Who shows effort; None is SEP.
    ses_features, effort_features : table or None
        The columns that the rules read.
    reference : {"conditional", "overall"}, default="conditional"
        With effort: compare with everybody who shows effort, or with everybody.
    protected : {"groups", "all"}, default="groups"
        "all" adds a row without a protected attribute (parity of status alone).
    sample_weight : array-like or None
    pos_label : object
        The positive decision, where decisions are not 0 and 1.
    y_true : array-like or None
        Labels, used only to refuse a rule that selects exactly one label.
    label_columns : sequence of str
        Names of the label and of columns made from it, which no rule may use.
    groups : sequence or None
        All groups, as public knowledge; None takes those present.
    min_group : int, default=30
        Sets with fewer rows get no gap.
    confidence : float, default=0.95
        Level of each row's interval, in (0, 1).

    Returns
    -------
    pandas.DataFrame
        One row per group: ``n_target``, ``n_reference``, ``rate_target``, ``rate_reference``,
        ``gap``, ``ratio`` (target over reference; NaN if nobody is selected), ``dp_part`` and
        ``ses_part`` (the gap of the group against everybody, and the gap of status inside the
        group; they add up to ``gap``), ``gap_to_rest`` (against the reference set without the
        target set, which a large target set does not hide), ``se``, ``ci_low``, ``ci_high`` and
        ``note``.

    Raises
    ------
    DataError, InvalidParameterError
        Bad columns, thresholds or decisions; the label taken for a privilege.

    Warns
    -----
    SmallSampleWarning
        A set has fewer than ``min_group`` rows.
    UtilityWarning
        A target set is the whole reference set, so that its gap is 0 whatever the decisions are.

    Notes
    -----
    Intervals are normal ones from the influence function of the gap, which knows that target and
    reference overlap. O(n_rows). The definition of SEP is that of the paper; gaps, CSEP as stated
    here, decomposition and intervals are a reconstruction (see ``docs/fairness-sep.md``).

    References
    ----------
    Roy, Rizou, Papadopoulos, Ntoutsi 2025, "Achieving Socio-Economic Parity through the Lens of
    EU AI Act", arXiv 2503.23056.

    Examples
    --------
    >>> table = sep_gaps([1, 1, 0, 0], list("MMFF"), [True, False, True, False], min_group=1)
    >>> table["gap"].to_dict()
    {'F': 0.5, 'M': -0.5}
    """
    import pandas as pd

    check.one_of(("groups", "all"), protected=protected)
    level = check.confidence(confidence=confidence)
    least = check.non_negative_int(min_group=min_group)
    sets = read_sets(
        sensitive_features, ses, effort=effort, ses_features=ses_features,
        effort_features=effort_features, reference=reference, everyone=protected == "all",
        sample_weight=sample_weight, groups=groups, y_true=y_true, label_columns=label_columns,
        rows=y_pred,
    )  # fmt: skip
    h = read_decisions(y_pred, pos_label)
    sums = CellSums.of(sets, h, read_weights(sample_weight, len(h)))
    table = gap_table(sums, sets, least)
    warn_of(table, sets, least)
    return frame_of(table, sets, level, pd)


def warn_of(table: GapTable, sets: Sets, min_group: int, stacklevel: int = 3) -> None:
    """Warn of sets that are too small, and of gaps that are zero by construction."""
    names = sets.names
    few = [n for n, note in zip(names, table.note, strict=True) if note == NOT_ENOUGH]
    if few:
        warnings.warn(
            f"fewer than min_group={max(min_group, 1)} rows in the target or reference set of "
            f"{', '.join(few)}: no gap there. Use coarser groups or another threshold.",
            SmallSampleWarning,
            stacklevel=stacklevel,
        )
    void = [n for n, note in zip(names, table.note, strict=True) if note == VACUOUS]
    if void:
        warnings.warn(
            f"the target set of {', '.join(void)} is the whole reference set: its gap is 0 "
            "whatever the decisions are. The rule selects everybody; choose another.",
            UtilityWarning,
            stacklevel=stacklevel,
        )


def frame_of(table: GapTable, sets: Sets, confidence: float, pd: Any) -> pd.DataFrame:
    """Return the table as a data frame with intervals of each row alone."""
    half = normal_critical(confidence) * table.se
    features = list(sets.groups.features)
    labels = sets.labels
    index = (
        pd.Index([label[0] for label in labels], name=features[0])
        if len(features) == 1
        else pd.MultiIndex.from_tuples(labels, names=features)
    )
    ratio = _rate(table.rate_target, np.full(table.rate_target.shape, table.rate_reference))
    few = [note == NOT_ENOUGH for note in table.note]
    frame = pd.DataFrame(
        {
            "n_target": table.n_target.astype(np.int64),
            "n_reference": int(table.n_reference),
            "rate_target": table.rate_target,
            "rate_reference": table.rate_reference,
            "gap": table.gap,
            "ratio": np.where(few, np.nan, ratio),
            "dp_part": table.dp_part,
            "ses_part": table.ses_part,
            "gap_to_rest": table.gap_to_rest,
            "se": table.se,
            "ci_low": np.clip(table.gap - half, -1.0, 1.0),
            "ci_high": np.clip(table.gap + half, -1.0, 1.0),
            "note": table.note,
        },
        index=index,
    )
    return frame
