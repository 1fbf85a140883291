"""Socio-economic parity as metrics: the worst gap, one-sided or two-sided."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.estimate import Estimate, NullReference
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.core.metric import Metric
from privfair.core.randomness import check_random_state
from privfair.core.registry import register
from privfair.core.statistics import (
    normal_critical,
    null_reference,
    sidak_confidence,
)
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL, read_weights
from privfair.fairness.sep._gaps import (
    MIN_GROUP,
    NOT_ENOUGH,
    VACUOUS,
    GapTable,
    frame_of,
    gap_table,
)
from privfair.fairness.sep._null import null_gaps, null_scores
from privfair.fairness.sep._sets import CellSums, Sets, read_decisions, read_sets

__all__ = [
    "SEPMetric",
    "SEPOptions",
    "csep_disparity",
    "csep_violation",
    "sep_disparity",
    "sep_violation",
    "worst",
]

Floats = NDArray[np.float64]
PAPER = "Roy, Rizou, Papadopoulos, Ntoutsi 2025, arXiv 2503.23056"


@dataclass(frozen=True)
class SEPOptions:
    """The columns and options that these metrics take beside those of all metrics."""

    ses: Any = None
    ses_features: Any = None
    effort: Any = None
    effort_features: Any = None
    reference: str = "conditional"
    protected: str = "groups"
    label_columns: Any = ()
    missing_group: str | None = None
    min_group: int = MIN_GROUP
    noise_random_state: int | None = None

    @classmethod
    def of(cls, given: dict[str, Any], name: str, *, effort: bool) -> SEPOptions:
        """Check the keywords of one call."""
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InvalidTypeError(f"{name} has no option {key!r}.{hint}")
        options = cls(**given)
        check.one_of(("groups", "all"), protected=options.protected)
        check.non_negative_int(min_group=options.min_group)
        if effort and options.effort is None and options.effort_features is None:
            raise InvalidParameterError(
                f"{name} is about people who show effort: pass effort=EffortRule(...) with "
                "effort_features, or effort_features as one boolean for each row."
            )
        if not effort and options.effort is not None:
            raise InvalidParameterError(
                f"{name} has no condition on effort, and effort was given. Use c{name}."
            )
        return options

    def condition(self, effort: bool) -> Any:
        """Return what says who shows effort."""
        if not effort:
            return None
        return self.effort if self.effort is not None else self.effort_features


def worst(gaps: Floats, *, two_sided: bool) -> Floats:
    """Return the largest violation over the last axis; NaN where no gap is known."""
    size = np.abs(gaps) if two_sided else np.maximum(gaps, 0.0)
    known = ~np.isnan(size)
    top = np.where(known, size, -np.inf).max(axis=-1, initial=-np.inf)
    return np.asarray(np.where(known.any(axis=-1), top, np.nan))


def simultaneous(table: GapTable, confidence: float, *, two_sided: bool) -> tuple[float, float]:
    """Return an interval of the largest gap, from intervals that hold for all groups at once.

    Sidak's inequality: symmetric intervals of normal estimates hold together with at least the
    product of their levels, however the estimates depend on each other.
    """
    some = ~np.isnan(table.gap) & ~np.isnan(table.se)
    if not some.any():
        return np.nan, np.nan
    low, high = table.limits(normal_critical(sidak_confidence(confidence, int(some.sum()))))
    low, high = low[some], high[some]
    if two_sided:
        low, high = np.maximum(low, -high), np.maximum(high, -low)
    return float(np.clip(low.max(), 0.0, 1.0)), float(np.clip(high.max(), 0.0, 1.0))


def _find(name: str) -> SEPMetric:
    return CONSTANTS[name]


class SEPMetric(Metric):
    """The largest socio-economic gap over protected groups.

    Keywords beyond those of every metric: ``ses`` (a rule; or give ``ses_features`` as one
    boolean for each row), ``ses_features``, ``effort``, ``effort_features``, ``reference``,
    ``protected``, ``label_columns``, ``missing_group``, ``min_group`` as in :func:`sep_gaps`, and
    ``noise_random_state`` for tests of private estimates.

    Notes
    -----
    Intervals hold for all groups at once (Sidak). The null reference permutes the decisions among
    the rows of the reference set: exactly where they are 0 and 1 and unweighted, by the normal
    limit of that permutation for scores and weights, and under privacy by releases in which all
    sets have one rate.

    With ``privacy=Budget(epsilon, delta)`` sums and sizes of all sets are released once, with
    discrete Gaussian noise (``docs/proofs/socio-economic-parity.md``); groups and thresholds must
    be public; groups whose noisy size is below ten standard deviations of the noise have no gap.
    The interval covers sampling and noise. ``pos_label`` is read one record at a time, and
    ``y_true`` is not looked at, so that no record decides how the others count.

    References
    ----------
    Roy, Rizou, Papadopoulos, Ntoutsi 2025, arXiv 2503.23056. Sidak 1967. Hoeffding 1951, "A
    combinatorial central limit theorem".
    """

    def __init__(self, name: str, *, effort: bool, two_sided: bool, definition: str) -> None:
        needs = ("y_pred", "sensitive_features", "ses_features")
        super().__init__(
            name,
            optimum=0.0,
            direction="lower",
            requires=(*needs, "effort_features") if effort else needs,
            references=(PAPER,),
            definition=definition,
        )
        self.effort = effort
        self.two_sided = two_sided

    def __reduce__(self) -> Any:
        return (_find, (self.name,)) if CONSTANTS.get(self.name) is self else super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> SEPMetric:
        return self  # metrics have no state

    def read(
        self,
        y_true: Any,
        y_pred: Any,
        sensitive_features: Any,
        sample_weight: Any,
        groups: Any,
        options: SEPOptions,
    ) -> Sets:
        """Return the sets that the columns describe."""
        return read_sets(
            sensitive_features, options.ses, effort=options.condition(self.effort),
            ses_features=options.ses_features, effort_features=options.effort_features,
            reference=options.reference, everyone=options.protected == "all",
            sample_weight=sample_weight, groups=groups, missing_group=options.missing_group,
            y_true=y_true, label_columns=options.label_columns, rows=y_pred,
        )  # fmt: skip

    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = DEFAULT_POS_LABEL,
        **columns: Any,
    ) -> float:
        groups = columns.pop("groups", None)
        options = SEPOptions.of(columns, self.name, effort=self.effort)
        sets = self.read(y_true, y_pred, sensitive_features, sample_weight, groups, options)
        h = read_decisions(y_pred, pos_label)
        sums = CellSums.of(sets, h, read_weights(sample_weight, len(h)))
        return float(worst(gap_table(sums, sets, options.min_group).gap, two_sided=self.two_sided))

    def estimate(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = DEFAULT_POS_LABEL,
        confidence: float = 0.95,
        n_resamples: int = 2000,
        random_state: Any = None,
        privacy: Any = None,
        groups: Any = None,
        ledger: Any = None,
        **columns: Any,
    ) -> Estimate:
        check.confidence(confidence=confidence)
        check.positive_int(n_resamples=n_resamples)
        options = SEPOptions.of(columns, self.name, effort=self.effort)
        if privacy is not None:
            from privfair.fairness.sep._private import private_estimate

            return private_estimate(
                self, y_true, y_pred, sensitive_features, sample_weight, pos_label, options,
                confidence=confidence, privacy=privacy, groups=groups, ledger=ledger,
                n_resamples=n_resamples, random_state=random_state,
            )  # fmt: skip
        sets = self.read(y_true, y_pred, sensitive_features, sample_weight, groups, options)
        h = read_decisions(y_pred, pos_label)
        weight = read_weights(sample_weight, len(h))
        sums = CellSums.of(sets, h, weight)
        table = gap_table(sums, sets, options.min_group)
        value = float(worst(table.gap, two_sided=self.two_sided))
        low, high = simultaneous(table, confidence, two_sided=self.two_sided)
        null, rng = None, check_random_state(random_state)
        if not np.isnan(value):
            known = ~np.isnan(table.gap)
            if weight is None and bool(np.isin(h, (0.0, 1.0)).all()):
                draws = null_gaps(sums, sets, known, n_resamples, rng)
            else:
                draws = null_scores(sets, h, weight, known, n_resamples, rng)
            null = null_reference(value, worst(draws, two_sided=self.two_sided))
        few = [n for n, note in zip(sets.names, table.note, strict=True) if note == NOT_ENOUGH]
        void = [n for n, note in zip(sets.names, table.note, strict=True) if note == VACUOUS]
        return self.result(
            sets, table, value, low, high,
            reasons=_reasons(few, void, options.min_group), confidence=confidence, null=null,
            method="score limits of both rates (MOVER), simultaneous over groups (Sidak)",
        )  # fmt: skip

    def result(
        self,
        sets: Sets,
        table: Any,
        value: float,
        low: float,
        high: float,
        *,
        reasons: list[str],
        confidence: float,
        null: NullReference | None,
        method: str,
        **more: Any,
    ) -> Estimate:
        """Return the estimate of a table of gaps."""
        import pandas as pd

        details = {
            "definition": self.definition,
            "ses": _words(sets.ses_rule, "a column of booleans"),
            "effort": None
            if sets.effort is None
            else _words(sets.effort_rule, "a column of booleans"),
            "reference": sets.reference if self.effort else "overall",
            "one_sided": not self.two_sided,
            **more.pop("details", {}),
        }
        common: dict[str, Any] = {
            "confidence": confidence,
            "n": sets.n_rows,
            "by_group": frame_of(table, sets, confidence, pd),
            "details": details,
            "method": method,
            **more,
        }
        if np.isnan(value):
            why = reasons[0] if reasons else "no set has rows"
            return Estimate.not_estimable(self.name, why, **common)
        size = np.abs(table.gap) if self.two_sided else table.gap
        return Estimate(
            self.name,
            value,
            low,
            high,
            status="small_sample" if reasons else "ok",
            reason="; ".join(reasons),
            null=null,
            attained_by=(sets.names[int(np.nanargmax(size))],),
            **common,
        )


def _words(rule: Any, otherwise: str) -> str:
    return otherwise if rule is None else str(rule)


def _reasons(few: list[str], void: list[str], min_group: int) -> list[str]:
    found = []
    if few:
        found.append(f"fewer than {min_group} rows in the sets of {', '.join(few)}")
    if void:
        found.append(f"vacuous for {', '.join(void)}: the target set is the reference set")
    return found


CONSTANTS: dict[str, SEPMetric] = {}


def _constant(name: str, *, effort: bool, two_sided: bool, definition: str) -> SEPMetric:
    metric = SEPMetric(name, effort=effort, two_sided=two_sided, definition=definition)
    CONSTANTS[name] = metric
    return register("metrics", name)(metric)


sep_violation = _constant(
    "sep_violation",
    effort=False,
    two_sided=False,
    definition="largest E[h] - E[h | group, low status] over groups, at least 0",
)
sep_disparity = _constant(
    "sep_disparity",
    effort=False,
    two_sided=True,
    definition="largest |E[h] - E[h | group, low status]| over groups",
)
csep_violation = _constant(
    "csep_violation",
    effort=True,
    two_sided=False,
    definition="largest E[h | effort] - E[h | group, low status, effort] over groups, at least 0",
)
csep_disparity = _constant(
    "csep_disparity",
    effort=True,
    two_sided=True,
    definition="largest |E[h | effort] - E[h | group, low status, effort]| over groups",
)
