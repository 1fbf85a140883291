"""Signed differences of a rate between named groups, adjusted for their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, SingleGroupError
from privfair.core.statistics import (
    Interval,
    holm,
    mover_difference,
    normal_critical,
    sidak_confidence,
    tukey_critical,
)
from privfair.fairness.metrics._context import Context
from privfair.fairness.metrics._definitions import RateCounts
from privfair.fairness.metrics._rates import RateMetric
from privfair.fairness.metrics._table import GroupTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["pairwise_differences"]


def pairwise_differences(
    table: GroupTable,
    metric: RateMetric,
    *,
    reference: str | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the signed difference of a rate for every pair of groups.

    Parameters
    ----------
    table : GroupTable
    metric : RateMetric
        A rate, such as ``selection_rate``.
    reference : str or None, default=None
        Name of a group, as in ``table.names``: only differences from it, group minus reference.
        None compares every pair once, first minus second.
    confidence : float, in (0, 1), default=0.95
        Probability with which all intervals hold at the same time.

    Returns
    -------
    DataFrame
        Index (group_1, group_2); columns ``difference, low, high, p_value, p_holm, reason``.
        Pairs with an undefined rate have NaN and a reason.

    Raises
    ------
    SingleGroupError
        Fewer than two groups.
    InvalidParameterError
        A reference that is not a group.
    InvalidTypeError
        A metric that is not a rate.

    Notes
    -----
    Wilson limits (exact ones for groups with few cases, as in :func:`gap_interval`) joined by
    the method of variance estimates recovery, at the Tukey-Kramer critical value for all pairs
    or at Sidak's for differences from a reference. p-values are Fisher's, exact and
    conservative, or those of the pooled z test with effective sizes for weighted and released
    tables; ``p_holm`` adjusts them for their number. O(n_groups^2).

    References
    ----------
    Newcombe 1998; Hayter 1984; Sidak 1967; Holm 1979.

    Examples
    --------
    >>> from privfair.fairness.metrics import GroupTable, false_positive_rate
    >>> t = GroupTable.from_counts([[[990, 805], [532, 1369]], [[1139, 349], [461, 505]]],
    ...                            groups=["African-American", "Caucasian"])
    >>> pairwise_differences(t, false_positive_rate)[["difference", "low", "high"]].round(4).values
    array([[0.2139, 0.1821, 0.245 ]])
    """
    if not isinstance(metric, RateMetric):
        raise InvalidTypeError(
            f"metric must be a rate such as selection_rate, got {metric!r}. Differences of "
            "disparities between groups have no meaning."
        )
    level = check.confidence(confidence=confidence)
    names = table.names
    if len(names) < 2:
        raise SingleGroupError("pairwise_differences compares groups, and there is only one.")
    if reference is not None and reference not in names:
        raise InvalidParameterError(
            f"reference must be one of the groups of the table, got {reference!r}."
        )
    counts = Context(None, None, table=table).counts(metric.rate)
    if reference is None:
        first, second = np.triu_indices(len(names), 1)
        covered = int((counts.n > 0).sum())
        critical = tukey_critical(max(covered, 2), level)
    else:
        first = np.array([i for i, name in enumerate(names) if name != reference])
        second = np.full(first.size, names.index(reference))
        covered = int((counts.n[first] > 0).sum())
        critical = normal_critical(sidak_confidence(level, max(covered, 1)))
    return _frame(table, counts, first, second, level, critical)


def _frame(
    table: GroupTable,
    counts: RateCounts,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    level: float,
    critical: float,
) -> pd.DataFrame:
    import pandas as pd

    each = counts.interval(level, critical)

    def part(i: NDArray[np.int64]) -> Interval:
        return Interval(each.value[i], each.low[i], each.high[i], level, each.method)

    pairs = mover_difference(part(first), part(second))
    defined = ~np.isnan(pairs.value)
    p = np.full(first.size, np.nan)
    if table.weighted or table.noise is not None:
        k, n = counts.effective(critical)
        p[defined] = _pooled(k, n, first[defined], second[defined])
    else:
        p[defined] = _fisher(counts.hits, counts.rows, first[defined], second[defined])
    names = np.array(table.names, dtype=object)
    index = pd.MultiIndex.from_arrays([names[first], names[second]], names=["group_1", "group_2"])
    return pd.DataFrame(
        {
            "difference": pairs.value,
            "low": pairs.low,
            "high": pairs.high,
            "p_value": p,
            "p_holm": holm(p),
            "reason": np.where(defined, "", "the rate of a group is undefined"),
        },
        index=index,
    )


def _fisher(
    hits: NDArray[np.int64], rows: NDArray[np.int64], i: NDArray[np.int64], j: NDArray[np.int64]
) -> list[float]:
    from scipy.stats import fisher_exact

    return [
        float(fisher_exact([[hits[a], rows[a] - hits[a]], [hits[b], rows[b] - hits[b]]]).pvalue)
        for a, b in zip(i, j, strict=True)
    ]


def _pooled(
    k: NDArray[np.float64],
    n: NDArray[np.float64],
    i: NDArray[np.int64],
    j: NDArray[np.int64],
) -> NDArray[np.float64]:
    pooled = (k[i] + k[j]) / (n[i] + n[j])
    spread = np.sqrt(pooled * (1 - pooled) * (1 / n[i] + 1 / n[j]))
    z = np.zeros(i.size)
    np.divide(k[i] / n[i] - k[j] / n[j], spread, out=z, where=spread > 0)
    return np.asarray(2 * ndtr(-np.abs(z)))
