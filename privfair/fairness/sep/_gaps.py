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
    split: Split | None = None

    def limits(self, critical: float) -> tuple[Floats, Floats]:
        """Return lower and upper limits of the gaps at a normal critical value.

        From the parts of an exact table (:class:`Split`); from standard errors otherwise.
        """
        if self.split is None:
            half_low = half_high = critical * self.se
        else:
            half_low, half_high = self.split.halves(critical)
        with np.errstate(invalid="ignore"):
            low = np.clip(self.gap - half_low, -1.0, 1.0)
            high = np.clip(self.gap + half_high, -1.0, 1.0)
        gone = np.isnan(self.gap) | np.isnan(self.se)
        return np.where(gone, np.nan, low), np.where(gone, np.nan, high)


@dataclass(frozen=True, eq=False)
class Split:
    """A gap as share of the rest times the difference between the rest and the target set.

    The reference set is the target set G and the rest, so that ``r_R - r_G = (1 - s) (r_rest -
    r_G)`` with the share s of G: two independent rates, and a share whose variance is known.

    Attributes
    ----------
    target, rest : ndarray
        Rates.
    n_target, n_rest : ndarray
        Sizes of simple random samples of decisions 0 and 1 with the variances of these rates.
    share, share_variance : ndarray
    """

    target: Floats
    rest: Floats
    n_target: Floats
    n_rest: Floats
    share: Floats
    share_variance: Floats

    def halves(self, critical: float) -> tuple[Floats, Floats]:
        """Return how far the limits lie below and above the gap.

        Score limits of both rates, combined by the method of variance estimates recovery
        (Newcombe 1998; Zou and Donner 2008): they hold where a rate is near 0 or 1 and its
        estimated variance near 0. To first order they are the influence function's.
        """
        void = ~(self.n_rest > 0)
        g_low, g_high = _score_limits(self.target, self.n_target, critical)
        r_low, r_high = _score_limits(self.rest, self.n_rest, critical)
        apart = critical**2 * (self.rest - self.target) ** 2 * self.share_variance
        rest = 1.0 - self.share
        low = np.hypot(self.rest - r_low, g_high - self.target) * rest
        high = np.hypot(r_high - self.rest, self.target - g_low) * rest
        return tuple(np.where(void, 0.0, np.sqrt(half**2 + apart)) for half in (low, high))  # type: ignore[return-value]


def _score_limits(rate: Floats, n: Floats, critical: float) -> tuple[Floats, Floats]:
    """Return Wilson's limits; n may be any number above 0, and infinite without variance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z2n = critical**2 / n
        centre = (rate + z2n / 2) / (1 + z2n)
        half = critical * np.sqrt((rate * (1 - rate) + z2n / 4) / n) / (1 + z2n)
    return np.minimum(centre - half, rate), np.maximum(centre + half, rate)


def _size_of(rate: Floats, mass: Floats, square: Floats, spread: Floats) -> Floats:
    """Return the size of a sample of decisions 0 and 1 whose rate has the same variance.

    Where all decisions are 0, or all 1, that of the weights (Kish): a variance of 0 there is what
    few rows show, not what is known.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        binomial = np.maximum(rate * (1 - rate), 0.0)
        kish = mass**2 / square
        by_variance = binomial * mass**2 / np.maximum(spread, 0.0)
    return np.where(binomial > 1e-12, by_variance, kish)


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
    other = {k: _positive(whole[k] - part[k]) for k in whole}
    n_reference = whole["rows"]
    reference = whole["mass_h"] / whole["mass"] if whole["mass"] > 0 else np.nan
    rate = _rate(part["mass_h"], part["mass"])
    few = (part["rows"] < max(min_group, 1)) | (n_reference < max(min_group, 1))
    gap = np.where(few, np.nan, reference - rate)
    own_rate = _rate(own["mass_h"], own["mass"])
    rest = _rate(other["mass_h"], other["mass"])
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
        split=_split(whole, part, other, rate, rest),
    )


def _split(
    whole: dict[str, float],
    part: dict[str, Floats],
    other: dict[str, Floats],
    rate: Floats,
    rest: Floats,
) -> Split:
    with np.errstate(invalid="ignore", divide="ignore"):
        share = part["mass"] / whole["mass"]
        variance = (part["square"] * (1 - share) ** 2 + other["square"] * share**2) / whole[
            "mass"
        ] ** 2
    sizes = [
        np.where(s["mass"] > 0, _size_of(r, s["mass"], s["square"], _spread(s, r, r)), 0.0)
        for s, r in ((part, rate), (other, rest))
    ]
    return Split(rate, rest, sizes[0], sizes[1], share, variance)


def _positive(values: Floats) -> Floats:
    """Differences of sums of weights that are zero on paper."""
    return np.where(values > 1e-12, values, 0.0)


def _standard_error(
    whole: dict[str, float], part: dict[str, Floats], reference: float, rate: Floats
) -> Floats:
    """Root of the sum of squared influence values; the target set lies in the reference set.

    The influence of row i on the gap is ``w_i (1_R (h - r_R) / W_R - 1_G (h - r_G) / W_G)``.
    """
    w_r, w_g = whole["mass"], np.where(part["mass"] > 0, part["mass"], np.nan)
    variance = (
        _spread(whole, reference, reference) / w_r**2
        + _spread(part, rate, rate) / w_g**2
        - 2 * _spread(part, reference, rate) / (w_r * w_g)
        if w_r > 0
        else np.full(rate.shape, np.nan)
    )
    return np.sqrt(np.maximum(variance, 0.0))


def _spread(sums: Any, a: Any, b: Any) -> Any:
    """Return the sum of w^2 (h - a) (h - b)."""
    return sums["square_hh"] - (a + b) * sums["square_h"] + a * b * sums["square"]


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
    The target set lies in the reference set, so that a gap is the share of the rest times a
    difference of two independent rates. Intervals combine score limits of both rates and the
    variance of the share (Newcombe 1998; Zou and Donner 2008), so that they also hold where
    nobody, or everybody, of a small set is selected; ``se`` is that of the influence function,
    with which they agree to first order. O(n_rows). The definition of SEP is that of the paper;
    gaps, CSEP as stated here, decomposition and intervals are a reconstruction (see
    ``docs/fairness-sep.md``).

    References
    ----------
    Roy, Rizou, Papadopoulos, Ntoutsi 2025, "Achieving Socio-Economic Parity through the Lens of
    EU AI Act", arXiv 2503.23056. Newcombe 1998, "Interval estimation for the difference between
    independent proportions". Zou, Donner 2008, "Construction of confidence limits about effect
    measures".

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
    low, high = table.limits(normal_critical(confidence))
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
            "ci_low": low,
            "ci_high": high,
            "note": table.note,
        },
        index=index,
    )
    return frame
