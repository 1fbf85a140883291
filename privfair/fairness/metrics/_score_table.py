"""Rows by group and score, and the statistics of scores on resampled rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import LabelError, ProbabilityRangeError
from privfair.core.statistics import margin_permutations, multiplicity_weights
from privfair.fairness.metrics._inputs import Groups, binary, read_groups, read_scores
from privfair.fairness.metrics._inputs import read_weights as _read_weights
from privfair.fairness.metrics._resample import CHUNK, rate
from privfair.fairness.metrics._table import group_index

if TYPE_CHECKING:
    import pandas as pd

    from privfair.fairness.metrics._context import Context

__all__ = ["ScoreTable", "area", "bin_gap", "calibration_error", "mean_spread"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_CLIP = float(np.finfo(float).eps)  # as scikit-learn clips probabilities in its log loss


def _starts(*keys: NDArray[Any]) -> Ints:
    """Return where runs of equal keys begin, in sorted rows."""
    new = np.zeros(keys[0].size, dtype=bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def area(pos: Floats, neg: Floats, starts: Ints) -> Floats:
    """Return the AUC of each segment from positives and negatives by ascending score.

    ``pos`` and ``neg`` have one column per distinct score; a segment is a run of columns. The
    AUC is the share of (positive, negative) pairs in the right order, ties counted half.
    """
    before = np.cumsum(neg, axis=-1) - neg
    first = before[..., starts]
    sizes = np.diff(np.r_[starts, neg.shape[-1]])
    inside = before - np.repeat(first, sizes, axis=-1)
    won = np.add.reduceat(pos * (inside + 0.5 * neg), starts, axis=-1)
    pairs = np.add.reduceat(pos, starts, axis=-1) * np.add.reduceat(neg, starts, axis=-1)
    return rate(won, pairs)


def calibration_error(n: Floats, pos: Floats, score: Floats) -> Floats:
    """Return the expected calibration error from sums by bin (last axis)."""
    total = n.sum(axis=-1)
    return rate(np.abs(pos - score).sum(axis=-1), total)


def bin_gap(n: Floats, pos: Floats) -> Floats:
    """Return the mean over bins of the largest outcome difference between two groups.

    The last axes are (group, bin). Bins in which fewer than two groups have rows compare
    nothing and do not count; the others are weighted by their rows.
    """
    return mean_spread(rate(pos, n), n.sum(axis=-2))


def mean_spread(rates: Floats, mass: Floats) -> Floats:
    """Return the mean over bins of max - min over groups; the last axes are (group, bin)."""
    compared = (~np.isnan(rates)).sum(axis=-2) >= 2
    gap = np.fmax.reduce(rates, axis=-2) - np.fmin.reduce(rates, axis=-2)
    kept = np.where(compared, mass, 0.0)
    return rate((kept * np.where(compared, gap, 0.0)).sum(axis=-1), kept.sum(axis=-1))


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Distinct rows sorted by group and score.

    Attributes
    ----------
    features, labels
        The groups.
    group, score, positive, weight, count : ndarray of shape (n_distinct,)
    n_bins : int
        Equal-width bins of [0, 1].
    weighted : bool
    excluded : int
        Rows of groups that were not declared.
    """

    features: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    group: Ints
    score: Floats
    positive: NDArray[np.bool_]
    weight: Floats
    count: Ints
    n_bins: int
    weighted: bool
    excluded: int

    @classmethod
    def from_context(cls, context: Context) -> ScoreTable | None:
        """Read the rows of a call; None for more than two classes without ``pos_label``."""
        if context.y_score is None:
            raise LabelError(
                "y_score is None, but this metric reads scores. Pass y_score=..., the score of "
                "pos_label, one per row."
            )
        if context.y_true is None:
            raise LabelError("y_true is None, but this metric compares scores with labels.")
        score = read_scores(context.y_score, probability=False)
        positive = binary({"y_true": context.y_true}, context.pos_label)[0]
        if positive is None:
            return None
        weights = _read_weights(context.sample_weight, score.size)
        if context.sensitive_features is None:
            found = Groups(("group",), (("all",),), np.zeros(score.size, dtype=np.int64))
        else:
            found = read_groups(
                context.sensitive_features,
                groups=context.options.groups,
                cuts=context.options.cuts,
                missing_group=context.options.missing_group,
            )
        return cls.make(found, score, positive["y_true"], weights, context.options.n_bins)

    @classmethod
    def make(
        cls,
        found: Groups,
        score: Floats,
        positive: NDArray[np.bool_],
        weights: Floats | None,
        n_bins: int,
    ) -> ScoreTable:
        """Sort the rows and count equal ones."""
        inside = found.codes >= 0
        weight = np.ones(score.size) if weights is None else weights
        rows = np.flatnonzero(inside)
        rows = rows[np.lexsort((weight[rows], positive[rows], score[rows], found.codes[rows]))]
        group, score, positive, weight = (
            found.codes[rows],
            score[rows],
            positive[rows],
            weight[rows],
        )
        starts = _starts(group, score, positive, weight)
        count = np.diff(np.r_[starts, group.size]).astype(np.int64)
        return cls(
            found.features,
            found.labels,
            group[starts],
            score[starts],
            positive[starts],
            weight[starts],
            count,
            n_bins,
            weights is not None,
            int((~inside).sum()),
        )

    def check_probabilities(self) -> None:
        """Refuse scores outside [0, 1]."""
        if self.score.size and (self.score.min() < 0 or self.score.max() > 1):
            raise ProbabilityRangeError(
                "y_score must be probabilities in [0, 1] for this metric. Rescale the score to "
                "a probability, or use auc, which needs an order only."
            )

    # --- layout -----------------------------------------------------------------------------

    @property
    def n_groups(self) -> int:
        """Number of groups, empty ones included."""
        return len(self.labels)

    @property
    def index(self) -> pd.Index:
        """The groups as a pandas index."""
        return group_index(self.features, self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The groups as text."""
        return tuple(" & ".join(label) for label in self.labels)

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.count.sum())

    @cached_property
    def bins(self) -> Ints:
        """The score bin of each distinct row; the last bin holds its upper end."""
        return np.minimum((self.score * self.n_bins).astype(np.int64), self.n_bins - 1)

    @cached_property
    def mass(self) -> Floats:
        """The data themselves as multiplicities, shape (1, n_distinct)."""
        return (self.count * self.weight)[None, :]

    def rows(self) -> tuple[Ints, Ints]:
        """Return rows and positive rows per group."""
        size = self.n_groups
        n = np.bincount(self.group, weights=self.count, minlength=size)
        pos = np.bincount(self.group, weights=self.count * self.positive, minlength=size)
        return n.astype(np.int64), pos.astype(np.int64)

    # --- statistics of multiplicities, shape (draws, n_distinct) ----------------------------

    def _by_group(self, columns: Floats) -> Floats:
        out = np.zeros((columns.shape[0], self.n_groups))
        if self.group.size:
            starts = _starts(self.group)
            out[:, self.group[starts]] = np.add.reduceat(columns, starts, axis=1)
        return out

    def mean_loss(self, mass: Floats, loss: Floats) -> Floats:
        """Return the mean loss of each group and, last, of all rows."""
        total, weight = self._by_group(mass * loss), self._by_group(mass)
        return rate(_with_sum(total), _with_sum(weight))

    def auc(self, mass: Floats) -> Floats:
        """Return the AUC of each group and, last, of all rows."""
        out = np.full((mass.shape[0], self.n_groups + 1), np.nan)
        if self.group.size == 0:
            return out
        cells = _starts(self.group, self.score)
        out[:, self.group[_starts(self.group)]] = self._area(
            mass, self.positive, cells, np.searchsorted(cells, _starts(self.group))
        )
        order = np.argsort(self.score, kind="stable")
        cells = _starts(self.score[order])
        zero = np.zeros(1, dtype=np.int64)
        out[:, -1:] = self._area(mass[:, order], self.positive[order], cells, zero)
        return out

    @staticmethod
    def _area(mass: Floats, positive: NDArray[np.bool_], cells: Ints, starts: Ints) -> Floats:
        both, pos = mass, mass * positive
        if cells.size < mass.shape[1]:  # ties
            both, pos = (np.add.reduceat(item, cells, axis=1) for item in (both, pos))
        return area(pos, both - pos, starts)

    def bin_sums(self, mass: Floats) -> tuple[Floats, Floats, Floats]:
        """Return weight, positive weight and score sum by (group, bin), for each draw."""
        shape = (mass.shape[0], self.n_groups, self.n_bins)
        out = [np.zeros((shape[0], shape[1] * shape[2])) for _ in range(3)]
        if self.group.size:
            starts = _starts(self.group, self.bins)
            where = (self.group * self.n_bins + self.bins)[starts]
            parts = (mass, mass * self.positive, mass * self.score)
            for target, part in zip(out, parts, strict=True):
                target[:, where] = np.add.reduceat(part, starts, axis=1)
        n, pos, score = (item.reshape(shape) for item in out)
        return n, pos, score

    def calibration(self, mass: Floats) -> Floats:
        """Return the calibration error of each group and, last, of all rows."""
        each = [_with_sum(item, axis=1) for item in self.bin_sums(mass)]
        return calibration_error(*each)

    def losses(self, kind: str) -> Floats:
        """Return the loss of each distinct row."""
        if kind == "brier_score":
            return np.asarray((self.score - self.positive) ** 2)
        clipped = np.clip(self.score, _CLIP, 1 - _CLIP)
        return np.asarray(-np.log(np.where(self.positive, clipped, 1 - clipped)))

    def statistic(self, kind: str, mass: Floats) -> Floats:
        """Return a statistic by name; its last column is over all rows."""
        if kind == "auc":
            return self.auc(mass)
        if kind == "expected_calibration_error":
            return self.calibration(mass)
        if kind == "calibration_gap":
            return bin_gap(*self.bin_sums(mass)[:2])[:, None]
        return self.mean_loss(mass, self.losses(kind))

    # --- draws ------------------------------------------------------------------------------

    def draws(self, n_resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield bootstrap multiplicities times weights, in blocks."""
        step = max(1, CHUNK // max(self.n, 1))
        for first in range(0, n_resamples, step):
            block = min(step, n_resamples - first)
            yield multiplicity_weights(self.count, block, rng) * self.weight

    def calibrated_null(self, n_resamples: int, rng: np.random.Generator) -> Floats:
        """Return the calibration error over all rows when scores are true probabilities."""
        group = np.zeros(self.n, dtype=np.int64)
        score = np.repeat(self.score, self.count)
        weight = np.repeat(self.weight, self.count)
        bins = np.repeat(self.bins, self.count)
        order = np.argsort(bins, kind="stable")
        score, weight, bins = score[order], weight[order], bins[order]
        starts = _starts(group[order], bins)
        n = np.add.reduceat(weight, starts)
        total = np.add.reduceat(weight * score, starts)
        out = []
        step = max(1, CHUNK // max(self.n, 1))
        for first in range(0, n_resamples, step):
            block = min(step, n_resamples - first)
            hit = rng.random((block, self.n)) < score
            pos = np.add.reduceat(hit * weight, starts, axis=1)
            out.append(calibration_error(np.broadcast_to(n, pos.shape), pos, total))
        return np.concatenate(out)

    def exchanged_null(self, n_resamples: int, rng: np.random.Generator) -> Floats:
        """Return the calibration gap with outcomes permuted among the rows of each bin."""
        n = self.bin_sums(self.mass)[0][0]
        pos = np.zeros((n_resamples, self.n_groups, self.n_bins))
        for b in range(self.n_bins):
            inside = self.bins == b
            group = np.repeat(self.group[inside], self.count[inside])
            marks = np.repeat(self.positive[inside], self.count[inside])
            if group.size == 0:
                continue
            if not self.weighted:
                sizes = np.bincount(group, minlength=self.n_groups)
                pos[:, :, b] = margin_permutations(sizes, int(marks.sum()), n_resamples, rng)
                continue
            weight = np.repeat(self.weight[inside], self.count[inside])
            starts = _starts(group)
            step = max(1, CHUNK // group.size)
            for first in range(0, n_resamples, step):
                block = min(step, n_resamples - first)
                shuffled = rng.permuted(np.tile(marks, (block, 1)), axis=1)
                sums = np.add.reduceat(shuffled * weight, starts, axis=1)
                pos[first : first + block, group[starts], b] = sums
        return bin_gap(np.broadcast_to(n, pos.shape), pos)


def _with_sum(values: Floats, axis: int = -1) -> Floats:
    """Append the sum over groups."""
    return np.concatenate([values, values.sum(axis=axis, keepdims=True)], axis=axis)
