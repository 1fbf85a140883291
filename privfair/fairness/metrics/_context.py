"""What the metrics of one call share: options, tables, resamples and per-group frames."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, LabelError
from privfair.core.statistics import (
    beta_binomial_shrinkage,
    normal_critical,
    sidak_confidence,
)
from privfair.fairness.metrics._definitions import Rate, RateCounts, Thresholds
from privfair.fairness.metrics._inputs import DEFAULT_POS_LABEL, check_thresholds
from privfair.fairness.metrics._resample import Streams, TableResamples
from privfair.fairness.metrics._table import GroupTable

if TYPE_CHECKING:
    import pandas as pd

    from privfair.core.privacy import PrivacyGuarantee
    from privfair.fairness.metrics._score_table import ScoreTable

__all__ = ["Context", "Options"]


@dataclass(frozen=True)
class Options:
    """Options of :func:`estimate_all` and of every ``estimate``.

    Attributes
    ----------
    confidence : float, in (0, 1)
    n_resamples : int
        Bootstrap replicates and permutations.
    random_state : None, int or Generator
    groups, cuts, missing_group
        See :meth:`GroupTable.from_arrays`.
    min_count, min_pos, min_neg : int
        Denominators below these are flagged ``small_sample``.
    n_bins : int
        Equal-width score bins of calibration metrics.
    noise_random_state : int or None
        For tests and benchmarks: makes the noise of ``privacy=`` repeatable and SEEDED.
    """

    confidence: float = 0.95
    n_resamples: int = 2000
    random_state: Any = None
    groups: Any = None
    cuts: Mapping[str, Sequence[float]] | None = None
    missing_group: str | None = None
    min_count: int = 30
    min_pos: int = 10
    min_neg: int = 10
    n_bins: int = 10
    noise_random_state: int | None = None

    def __post_init__(self) -> None:
        check.confidence(confidence=self.confidence)
        check.positive_int(n_resamples=self.n_resamples)
        check.positive_int(n_bins=self.n_bins)
        check_thresholds(self.min_count, self.min_pos, self.min_neg)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Return options from keywords; an unknown one is an error, never ignored."""
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, [*known, "sample_weight", "y_score"], n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InvalidParameterError(
                    f"unknown keyword {name!r}; a misspelt option would be ignored.{hint}"
                )
        return cls(**given)

    @property
    def thresholds(self) -> Thresholds:
        """The smallest denominators."""
        return Thresholds(self.min_count, self.min_pos, self.min_neg)


class Context:
    """The data of one call and everything derived from them, each made at most once."""

    def __init__(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        y_score: Any = None,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = DEFAULT_POS_LABEL,
        options: Options | None = None,
        table: GroupTable | None = None,
        privacy: PrivacyGuarantee | None = None,
    ) -> None:
        self.y_true, self.y_pred, self.y_score = y_true, y_pred, y_score
        self.sensitive_features = sensitive_features
        self.sample_weight = sample_weight
        self.pos_label = pos_label
        self.options = options or Options()
        self.privacy = privacy
        self._table = table
        self._frames: dict[tuple[str, bool], pd.DataFrame] = {}
        self._resamples: dict[bool, TableResamples] = {}
        self.score_kinds: list[str] = []
        self._score_table: ScoreTable | None = None
        self._scored = False
        self._score_draws: dict[str, NDArray[np.float64]] = {}

    @property
    def grouped(self) -> bool:
        """Whether there are groups to compare."""
        if self._table is not None:
            return self._table.labels != (("all",),)
        return self.sensitive_features is not None

    @property
    def table(self) -> GroupTable:
        """The group table."""
        if self._table is None:
            self._table = GroupTable.from_arrays(
                self.y_true,
                self.y_pred,
                sensitive_features=self.sensitive_features,
                sample_weight=self.sample_weight,
                pos_label=self.pos_label,
                groups=None if self.sensitive_features is None else self.options.groups,
                cuts=self.options.cuts,
                missing_group=self.options.missing_group,
            )
        return self._table

    @cached_property
    def overall(self) -> GroupTable:
        """The table of all groups together."""
        return self.table.overall()

    @cached_property
    def streams(self) -> Streams:
        """Generators by purpose."""
        return Streams(self.options.random_state)

    def resamples(self, overall: bool = False) -> TableResamples:
        """Return the shared bootstrap of the group table or of all groups together."""
        if overall not in self._resamples:
            table = self.overall if overall else self.table
            self._resamples[overall] = TableResamples(
                table, self.options.n_resamples, self.streams
            )
        return self._resamples[overall]

    def counts(self, rate: Rate, overall: bool = False) -> RateCounts:
        """Return a rate's counts, after checking that the table can give it."""
        table = self.overall if overall else self.table
        if rate.needs_labels and not table.has_labels:
            raise LabelError(f"{rate.name} compares decisions with labels, but y_true is None.")
        return RateCounts.of(table, rate)

    def frame(self, rate: Rate) -> pd.DataFrame:
        """Return the per-group table of a rate, intervals and shrunken values included."""
        import pandas as pd

        key = (rate.name, False)
        if key not in self._frames:
            counts, level = self.counts(rate), self.options.confidence
            each = counts.interval(level)
            covered = max(int((counts.n > 0).sum()), 1)
            joint = counts.interval(level, normal_critical(sidak_confidence(level, covered)))
            status, reason = counts.statuses(self.options.thresholds)
            self._frames[key] = pd.DataFrame(
                {
                    "value": counts.value,
                    "low": each.low,
                    "high": each.high,
                    "n": counts.rows,
                    "n_group": counts.group_rows,
                    "status": status,
                    "reason": reason,
                    "shrunken": beta_binomial_shrinkage(
                        counts.k, counts.n, confidence=level
                    ).value,
                    "simultaneous_low": joint.low,
                    "simultaneous_high": joint.high,
                },
                index=self.table.index,
            )
        return self._frames[key].copy()

    def score_table(self) -> ScoreTable | None:
        """Return the rows by group and score; None for undeclared multi-class labels."""
        from privfair.fairness.metrics._score_table import ScoreTable

        if not self._scored:
            self._score_table, self._scored = ScoreTable.from_context(self), True
        return self._score_table

    def score_draws(self, kind: str) -> NDArray[np.float64]:
        """Return bootstrap replicates of a score statistic; all asked for are drawn together."""
        if kind not in self._score_draws:
            table = self.score_table()
            assert table is not None
            kinds = dict.fromkeys([*self.score_kinds, kind])
            found: dict[str, list[NDArray[np.float64]]] = {k: [] for k in kinds}
            for mass in table.draws(self.options.n_resamples, self.streams.get("scores")):
                for name, parts in found.items():
                    parts.append(table.statistic(name, mass))
            self._score_draws = {k: np.concatenate(v) for k, v in found.items()}
        return self._score_draws[kind]
