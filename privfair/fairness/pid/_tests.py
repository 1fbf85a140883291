"""Is there any disparity? Permutation and G-tests of the global and the local one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy
from scipy.stats import chi2

from privfair.core.exceptions import DataError
from privfair.fairness.metrics._table import Rows
from privfair.fairness.pid._data import PIDTable

__all__ = [
    "BLOCK",
    "GTest",
    "chi_squared_holds",
    "degrees_of_freedom",
    "g_test",
    "permuted_clients",
    "permuted_groups",
    "random_tables",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 1 << 20  # entries of a block of replicates: 8 MB
_LEAST_EXPECTED, _MOST_EXCESS = 5.0, 0.1
_MAX_ROWS = 10**9  # numpy's hypergeometric sampler stops here


@dataclass(frozen=True)
class GTest:
    """Likelihood-ratio tests of independence.

    Attributes
    ----------
    global_statistic, local_statistic : float
        2 n I(Z;Yhat) and 2 n I(Z;Yhat|S), in nats.
    global_df, local_df : int
        Degrees of freedom, from the values that occur.
    global_p_value, local_p_value : float
        NaN without degrees of freedom, or without a reference.
    global_reference, local_reference : {"chi-squared", "permutation", "none"}
        What the statistic was compared with: chi-squared where ``chi_squared_holds``, else its
        permutations, or nothing where none were made.
    """

    global_statistic: float
    local_statistic: float
    global_df: int
    local_df: int
    global_p_value: float
    local_p_value: float
    global_reference: str = "chi-squared"
    local_reference: str = "chi-squared"


def degrees_of_freedom(sums: Floats) -> tuple[Ints, Ints]:
    """Return (|Z|-1)(m-1) of every stratum and of every stratum and client, by values seen.

    Parameters
    ----------
    sums : ndarray, shape (..., n_groups, n_decisions, n_clients)

    Returns
    -------
    overall : ndarray of int, shape (...)
    by_client : ndarray of int, shape (..., n_clients)
    """
    seen = sums > 0
    z_in_s, y_in_s = seen.any(axis=-2), seen.any(axis=-3)
    by_client = np.maximum(z_in_s.sum(axis=-2) - 1, 0) * np.maximum(y_in_s.sum(axis=-2) - 1, 0)
    z, y = z_in_s.any(axis=-1).sum(axis=-1), y_in_s.any(axis=-1).sum(axis=-1)
    return np.maximum(z - 1, 0) * np.maximum(y - 1, 0), by_client


def g_test(table: PIDTable, permuted: tuple[float, float] = (math.nan, math.nan)) -> GTest:
    """Return the G-tests of independence, overall and within clients.

    Chi-squared with (|Z|-1)(m-1) degrees of freedom, or their sum over the clients, both from
    the values that occur, where :func:`chi_squared_holds`; elsewhere the p-value is that of
    ``permuted``, the permutation tests of the same two informations, NaN where there were none.
    With weights the statistic uses the effective number of rows, which makes it approximate.
    """
    overall, by_client = degrees_of_freedom(table.sums)
    weight = float(table.sums.sum() / table.squares.sum())
    # One two-way table a stratum, and one a stratum and client, in rows of equal weight.
    whole = weight * table.sums.sum(axis=-1)
    parts = weight * np.moveaxis(table.sums, -1, 1).reshape(-1, *table.sums.shape[1:3])
    over = _against(whole, int(overall.sum()), permuted[0])
    within = _against(parts, int(by_client.sum()), permuted[1])
    return GTest(
        global_statistic=over[0],
        local_statistic=within[0],
        global_df=int(overall.sum()),
        local_df=int(by_client.sum()),
        global_p_value=over[1],
        local_p_value=within[1],
        global_reference=over[2],
        local_reference=within[2],
    )


def _against(tables: Floats, degrees: int, permuted: float) -> tuple[float, float, str]:
    """Return the statistic of a sum of tables, its p-value and what that refers to."""
    statistic = 2 * float(information_nats(tables).sum())
    if degrees == 0:
        return statistic, math.nan, "chi-squared"
    if chi_squared_holds(tables):
        return statistic, float(chi2.sf(statistic, degrees)), "chi-squared"
    return statistic, permuted, "none" if math.isnan(permuted) else "permutation"


def information_nats(tables: Floats) -> Floats:
    """Return n I of two-way tables (..., R, C) of n rows each, in nats."""
    total = xlogy(tables, tables).sum(axis=(-2, -1))
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    n = rows.sum(axis=-1)
    found = total + xlogy(n, n) - xlogy(rows, rows).sum(axis=-1)
    return np.maximum(found - xlogy(columns, columns).sum(axis=-1), 0.0)


def chi_squared_holds(tables: Floats) -> bool:
    """Return whether the sum of G-statistics of independence is close to chi-squared.

    Parameters
    ----------
    tables : ndarray of shape (n_tables, R, C)
        Rows in each cell.

    Notes
    -----
    Two rules. Each expected count is at least 5 (Cochran). And the mean of the sum under
    independence, (n sum 1/n_i. - 1)(n sum 1/n_.j - 1) / 6n above its degrees of freedom in each
    table (Williams 1976), is off by no more than a tenth of its standard deviation: over many
    tables small excesses add up faster than chance does. At this limit a test at 5 % rejects 6
    to 7 %.
    """
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    degrees = np.maximum((rows > 0).sum(axis=1) - 1, 0) * np.maximum(
        (columns > 0).sum(axis=1) - 1, 0
    )
    used = degrees > 0
    rows, columns, degrees = rows[used], columns[used], degrees[used]
    n = rows.sum(axis=1)
    least, excess = [], []
    for margin in (rows, columns):
        seen = margin > 0
        least.append(np.where(seen, margin, np.inf).min(axis=1, initial=np.inf))
        inverse = np.where(seen, 1.0 / np.where(seen, margin, 1.0), 0.0).sum(axis=1)
        excess.append(n * inverse - 1.0)
    if bool((least[0] * least[1] < _LEAST_EXPECTED * n).any()):
        return False
    above = float((excess[0] * excess[1] / (6.0 * n)).sum())
    return above <= _MOST_EXCESS * math.sqrt(2.0 * float(degrees.sum()))


def random_tables(rows: Ints, columns: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Draw tables with given margins, as permuting one variable among the rows does.

    Parameters
    ----------
    rows : ndarray of int, shape (..., R)
    columns : ndarray of int, shape (..., C)
        The margins of each table; both add up to the same.
    size : int
        Draws of each table.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int, shape (size, ..., R, C)

    Notes
    -----
    Row by row, each a multivariate hypergeometric draw of what is left, entry by entry:
    (R-1)(C-1) vectorised draws whatever the number of tables and of rows in them.
    """
    batch = rows.shape[:-1]
    height, width = rows.shape[-1], columns.shape[-1]
    out = np.zeros((size, *batch, height, width), dtype=np.int64)
    left = np.broadcast_to(columns, (size, *columns.shape)).copy()
    for r in range(height - 1):
        need = np.broadcast_to(rows[..., r], (size, *batch)).copy()
        rest = left.sum(axis=-1)
        for c in range(width - 1):
            rest = rest - left[..., c]
            drawn = rng.hypergeometric(left[..., c], rest, need)
            out[..., r, c] = drawn
            need -= drawn
        out[..., r, width - 1] = need
        left -= out[..., r, :]
    out[..., height - 1, :] = left
    return out


def permuted_groups(table: PIDTable, size: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield blocks of P(z, yhat) sums with Z permuted among all rows of each stratum.

    Shape (block, n_strata, n_groups, n_decisions).
    """
    if table.rows is not None:
        for tables in _permuted_rows(table, size, rng, within_client=False):
            yield tables.sum(axis=-1)
        return
    _small_enough(table)
    by_decision = table.counts.sum(axis=-1)
    step = max(1, BLOCK // by_decision.size)
    for first in range(0, size, step):
        block = min(step, size - first)
        drawn = random_tables(by_decision.sum(axis=-1), by_decision.sum(axis=-2), block, rng)
        yield drawn.astype(float)


def permuted_clients(table: PIDTable, size: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield blocks of tables with Z permuted within each client.

    Shape (block, n_strata, n_groups, n_decisions, n_clients).
    """
    if table.rows is not None:
        yield from _permuted_rows(table, size, rng, within_client=True)
        return
    _small_enough(table)
    step = max(1, BLOCK // table.counts.size)
    z = np.moveaxis(table.counts.sum(axis=2), 1, -1)  # (strata, clients, groups)
    y = np.moveaxis(table.counts.sum(axis=1), 1, -1)
    for first in range(0, size, step):
        drawn = random_tables(z, y, min(step, size - first), rng)
        yield np.ascontiguousarray(np.moveaxis(drawn, 2, -1)).astype(float)


def _permuted_rows(
    table: PIDTable, size: int, rng: np.random.Generator, *, within_client: bool
) -> Iterator[Floats]:
    """Permute the groups of weighted rows; decision, client and weight stay together."""
    rows: Rows | None = table.rows
    assert rows is not None
    shape = table.counts.shape
    cell = np.repeat(rows.cell, rows.count)
    weight = np.repeat(rows.weight, rows.count)
    c, z, y, s = np.unravel_index(cell, shape)
    part = c * shape[3] + s if within_client else c
    order = np.argsort(part, kind="stable")
    part, c, z, y, s = (a[order] for a in (part, c, z, y, s))
    weight = weight[order]
    base = np.ravel_multi_index((c, np.zeros_like(c), y, s), shape)
    stride = shape[2] * shape[3]
    total = int(np.prod(shape))
    step = max(1, BLOCK // max(cell.size, total))
    for first in range(0, size, step):
        block = min(step, size - first)
        # Sorting by part and then by chance shuffles within each part.
        keys = part + rng.random((block, cell.size))
        shuffled = z[np.argsort(keys, axis=1)]
        where = base + stride * shuffled + total * np.arange(block)[:, None]
        drawn = np.bincount(
            where.reshape(-1), weights=np.tile(weight, block), minlength=block * total
        )
        yield drawn.reshape((block, *shape))


def _small_enough(table: PIDTable) -> None:
    if table.n >= _MAX_ROWS:
        raise DataError(
            "a permutation test needs fewer than 10^9 rows; use ci='influence' with "
            "n_resamples=0, whose G-test has no such limit."
        )
