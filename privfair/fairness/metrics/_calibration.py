"""Calibration: of one score, and of one score in several groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import Estimate, NullReference
from privfair.core.exceptions import LabelError, SensitiveFeatureError, SingleGroupError
from privfair.core.statistics import null_reference
from privfair.fairness.metrics._base import ContextMetric, constant
from privfair.fairness.metrics._context import Context
from privfair.fairness.metrics._resample import rate
from privfair.fairness.metrics._score_table import ScoreTable, mean_spread
from privfair.fairness.metrics._scores import ScoreMetric, multiclass

__all__ = ["CalibrationError", "CalibrationGap", "calibration_gap", "expected_calibration_error"]

Floats = NDArray[np.float64]


# --- cells of group and bin -----------------------------------------------------------------


class Cells:
    """Sums by (group, bin), the last group being all rows together.

    Attributes
    ----------
    mass : ndarray of shape (n_groups + 1, n_bins)
        Rows, or sums of weights.
    size : ndarray
        Effective numbers of rows (Kish).
    observed, predicted : ndarray
        Mean outcome and mean score, NaN in empty cells.
    """

    def __init__(self, table: ScoreTable) -> None:
        n, pos, score = (_with_all(item[0]) for item in table.bin_sums(table.mass))
        squares = _with_all(table.bin_sums((table.count * table.weight**2)[None, :])[0][0])
        self.mass, self.size = n, np.nan_to_num(rate(n * n, squares))
        self.observed, self.predicted = rate(pos, n), rate(score, n)

    def errors(self, n_resamples: int, rng: np.random.Generator) -> Floats:
        """Return random errors of the observed rates, shape (n_resamples, groups + 1, bins).

        Binomial around rates moved by half a row to each side, so that a cell with outcomes of
        one kind only is not taken for certain. The last group's errors are those of its parts.
        """
        size = np.maximum(np.rint(self.size[:-1]), 1).astype(np.int64)
        some = self.mass[:-1] > 0
        p = np.where(some, (np.nan_to_num(self.observed[:-1]) * size + 0.5) / (size + 1), 0.5)
        parts = rng.binomial(size, p, size=(n_resamples, *size.shape)) / size - p
        parts = np.where(some, parts, 0.0)
        share = np.divide(
            self.mass[:-1], self.mass[-1], out=np.zeros(some.shape), where=self.mass[-1] > 0
        )
        return np.concatenate([parts, (parts * share).sum(axis=1, keepdims=True)], axis=1)


def norm_interval(
    values: Floats, norms: Floats, replicates: Floats, confidence: float
) -> tuple[Floats, Floats]:
    """Return the interval of a seminorm of unknown rates.

    By the triangle inequality |f(estimate) - f(truth)| <= f(estimate - truth) for a seminorm f,
    so that the value minus the ``confidence`` quantile of f(error) is a lower limit for every
    truth, and reaches zero as often as it should where the truth is zero. The upper limit is the
    quantile of the replicates, which the upward bias of f makes conservative.
    """
    reach = np.quantile(norms, confidence, axis=0, method="weibull")
    top = np.quantile(replicates, (1 + confidence) / 2, axis=0, method="weibull")
    return np.clip(values - reach, 0.0, None), np.clip(np.fmax(top, values), None, 1.0)


def _with_all(cells: Floats) -> Floats:
    return np.concatenate([cells, cells.sum(axis=0, keepdims=True)], axis=0)


def _bin_rows(table: ScoreTable) -> NDArray[np.int64]:
    flat = np.bincount(
        table.group * table.n_bins + table.bins,
        weights=table.count,
        minlength=table.n_groups * table.n_bins,
    )
    return flat.reshape(table.n_groups, table.n_bins).astype(np.int64)


def bin_records(table: ScoreTable) -> list[dict[str, Any]]:
    """Return the calibration table: one record for each group and bin with rows."""
    cells, rows = Cells(table), _bin_rows(table)
    return [
        {
            "group": table.names[g],
            "low": b / table.n_bins,
            "high": (b + 1) / table.n_bins,
            "n": int(rows[g, b]),
            "mean_score": float(cells.predicted[g, b]),
            "observed_rate": float(cells.observed[g, b]),
        }
        for g in range(table.n_groups)
        for b in range(table.n_bins)
        if cells.mass[g, b] > 0
    ]


def _binning(table: ScoreTable) -> str:
    return f"{table.n_bins} bins of equal width over [0, 1]"


# --- metrics --------------------------------------------------------------------------------


class CalibrationError(ScoreMetric):
    r"""The mean distance of score and outcome over score bins.

    :math:`\sum_b w_b |\hat P(Y = 1 | b) - \bar s_b|` over ``n_bins`` bins of equal width.

    Notes
    -----
    Never zero on finite data. The null reference draws labels from the scores themselves; the
    interval is one of a seminorm (:func:`norm_interval`), given the bins' sizes. O(rows) for
    the null reference, else independent of the number of rows.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015; Broecker and Smith 2007.

    Examples
    --------
    >>> round(expected_calibration_error([1, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]), 3)
    0.25
    """

    resampled = False

    def _intervals(
        self, context: Context, table: ScoreTable, values: Floats
    ) -> tuple[Floats, Floats, list[str]]:
        cells, options = Cells(table), context.options
        errors = cells.errors(options.n_resamples, context.streams.get("calibration error"))
        mass = cells.mass[None]
        total = mass.sum(axis=-1)
        norms = rate((mass * np.abs(errors)).sum(axis=-1), total)
        moved = np.nan_to_num(cells.observed - cells.predicted) + errors
        replicates = rate((mass * np.abs(moved)).sum(axis=-1), total)
        some = ~np.isnan(values)
        low, high = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
        low[some], high[some] = norm_interval(
            values[some], norms[:, some], replicates[:, some], options.confidence
        )
        return low, high, ["seminorm, binomial errors of bins"] * values.size

    def _null(self, context: Context, table: ScoreTable, value: float) -> NullReference | None:
        draws = table.calibrated_null(context.options.n_resamples, context.streams.get("ece"))
        return null_reference(value, draws)

    def _details(self, context: Context, table: ScoreTable) -> dict[str, Any]:
        found = super()._details(context, table)
        return found | {"binning": _binning(table), "bins": bin_records(table)}


class CalibrationGap(ContextMetric):
    r"""The largest difference in outcome between two groups at the same score.

    Scores are cut into ``n_bins`` bins of equal width. In each bin the largest difference of
    observed outcome rates between two groups is taken, and averaged over bins with their rows
    as weights: :math:`\sum_b w_b \max_{g,h} |\hat P(Y=1|b,g) - \hat P(Y=1|b,h)|`. It is zero
    when a score means the same in every group (sufficiency). Bins with rows of one group only
    compare nothing and are left out; ``details`` states the share of rows compared.

    Notes
    -----
    Strongly biased upward when cells are small: read it beside the null reference, which
    permutes outcomes among the rows of each bin (exact hypergeometric draws). The interval is
    one of a seminorm (:func:`norm_interval`), given the bins' sizes; it holds zero as often as
    it should where there is no gap. Independent of the number of rows.

    References
    ----------
    Chouldechova 2017, arXiv 1703.00056; Kleinberg, Mullainathan and Raghavan 2016, arXiv
    1609.05807.

    Examples
    --------
    >>> calibration_gap([1, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], sensitive_features=list("aabb"))
    0.5
    """

    from_scores = True

    def __init__(self) -> None:
        super().__init__(
            "calibration_gap",
            optimum=0.0,
            direction="lower",
            requires=("y_true", "y_score", "sensitive_features"),
            references=("Chouldechova 2017, arXiv 1703.00056",
                        "Kleinberg et al. 2016, arXiv 1609.05807"),
            definition="mean over score bins of the largest outcome difference between groups",
        )  # fmt: skip

    def read(self, context: Context) -> ScoreTable | None:
        if not context.grouped:
            raise SensitiveFeatureError(
                "calibration_gap compares groups, but sensitive_features is None."
            )
        table = context.score_table()
        if table is not None:
            table.check_probabilities()
        return table

    def value(self, context: Context) -> float:
        table = self.read(context)
        if table is None:
            raise LabelError("calibration_gap needs two classes; pass pos_label=...")
        if table.n_groups == 1:
            return 0.0
        return float(table.statistic(self.name, table.mass)[0, 0])

    def build(self, context: Context) -> Estimate:
        table = self.read(context)
        if table is None:
            return multiclass(self.name, context)
        if table.n_groups < 2:
            raise SingleGroupError("calibration_gap compares groups, and there is only one.")
        options = context.options
        value = float(table.statistic(self.name, table.mass)[0, 0])
        n, pos, score = (item[0] for item in table.bin_sums(table.mass))
        compared = (n > 0).sum(axis=0) >= 2
        rows = _bin_rows(table)
        thin = int(((rows > 0) & (rows < options.min_pos))[:, compared].sum())
        details = {
            "definition": self.definition,
            "binning": _binning(table),
            "bins": bin_records(table),
            "share_compared": float(n[:, compared].sum() / n.sum()),
            "n_resamples": options.n_resamples,
        }
        frame = self._frame(table, n, pos, score)
        common: dict[str, Any] = {"confidence": options.confidence, "n": table.n}
        common |= {"by_group": frame, "details": details}
        if np.isnan(value):
            return Estimate.not_estimable(
                self.name, "no score bin holds rows of two groups", **common
            )
        null = null_reference(
            value, table.exchanged_null(options.n_resamples, context.streams.get("exchanged"))
        )
        low, high = self._interval(context, table, value)
        small = thin > 0 or bool((rows.sum(axis=1) < options.min_count).any())
        return Estimate(
            self.name,
            value,
            low,
            high,
            status="small_sample" if small else "ok",
            reason=f"{thin} cells of group and bin have fewer than {options.min_pos} rows"
            if small
            else "",
            null=null,
            method="seminorm, binomial errors of cells",
            **common,
        )

    def _interval(self, context: Context, table: ScoreTable, value: float) -> tuple[float, float]:
        cells, options = Cells(table), context.options
        rng = context.streams.get("calibration gap")
        errors = cells.errors(options.n_resamples, rng)[:, :-1]
        mass = cells.mass[-1]
        empty = np.isnan(cells.observed[:-1])
        norms = mean_spread(np.where(empty, np.nan, errors), mass)
        replicates = mean_spread(cells.observed[:-1] + errors, mass)
        low, high = norm_interval(
            np.array([value]), norms[:, None], replicates[:, None], options.confidence
        )
        return float(low[0]), float(high[0])

    def _frame(self, table: ScoreTable, n: Floats, pos: Floats, score: Floats) -> Any:
        import pandas as pd

        total = n.sum(axis=1)
        safe = np.where(total > 0, total, np.nan)
        return pd.DataFrame(
            {
                "value": table.calibration(table.mass)[0, :-1],
                "mean_score": score.sum(axis=1) / safe,
                "observed_rate": pos.sum(axis=1) / safe,
                "n": table.rows()[0],
            },
            index=table.index,
        )


expected_calibration_error = constant(
    CalibrationError(
        "expected_calibration_error",
        optimum=0.0,
        direction="lower",
        references=("Naeini et al. 2015", "Broecker and Smith 2007"),
        definition="mean over score bins of |mean score - observed rate|",
    )
)
calibration_gap = constant(CalibrationGap())
