"""How far the parts of a sample may be from those of its population.

Plug-in informations are biased upwards by degrees of freedom over 2n; their spread follows from
influence functions or from resampled tables; where a part is zero, or two curves coincide, no
derivative exists and a one-sided bound from subsamples takes the place of the interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.statistics import multinomial_resamples, normal_critical
from privfair.fairness.pid._data import PIDTable
from privfair.fairness.pid._influence import influence
from privfair.fairness.pid._joint import PIDResult, decompose
from privfair.fairness.pid._tests import BLOCK, degrees_of_freedom

__all__ = [
    "PARTS",
    "SIGNED",
    "Parts",
    "bootstrap_parts",
    "bootstrap_tables",
    "consistent_parts",
    "corrected_parts",
    "corrections",
    "hidden_unique",
    "influences",
    "joint_and_shares",
    "normal_interval",
    "part_values",
    "row_effects",
    "shifted_percentiles",
    "standard_errors",
    "subsample_bound",
    "subsampled_parts",
]

Floats = NDArray[np.float64]
Parts = dict[str, Any]

PARTS = (
    "unique",
    "redundant",
    "masked",
    "global_disparity",
    "local_disparity",
    "unique_client",
    "coinformation",
)
SIGNED = frozenset({"coinformation"})
SUBSAMPLE_POWER = 0.7
_JACKKNIFE_ENTRIES = 1 << 24


REPLICATE_TOLERANCE = 1e-5
"""Bits: far below what sampling moves; replicates of more than two groups are faster so."""


def part_values(sums: Floats, device: Any = None, pseudo: float = 0.0) -> Parts:
    """Return every part of tables (..., n_strata, |Z|, m, K), the mean over their strata.

    In bits, arrays of shape (...). A stratum without rows counts for nothing; ``pseudo`` is added
    to each cell of the others.
    """
    joint, shares = joint_and_shares(sums, pseudo)
    result = decompose(joint, tol=REPLICATE_TOLERANCE, device=device)
    return {name: (shares * getattr(result, name)).sum(axis=-1) for name in PARTS}


def joint_and_shares(sums: Floats, pseudo: float = 0.0) -> tuple[Floats, Floats]:
    """Return the joint of each stratum, even where it is empty, and the strata's shares."""
    total = sums.sum(axis=(-3, -2, -1))
    some = total > 0
    cells = math.prod(sums.shape[-3:])
    scale = np.where(some, total + pseudo * cells, 1.0)[..., None, None, None]
    joint = np.where(some[..., None, None, None], (sums + pseudo) / scale, 1.0 / cells)
    whole = np.maximum(total.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    return joint, total / whole


# --- bias -----------------------------------------------------------------------------------


def information_bias(table: PIDTable) -> dict[str, Floats]:
    """Return the bias of the plug-in informations of each stratum, in bits."""
    shares, n = table.shares, np.maximum(table.effective_n, 1e-300)
    overall, by_client = degrees_of_freedom(table.sums)
    swapped, _ = degrees_of_freedom(np.swapaxes(table.sums, -1, -2))
    degrees = {
        "global_disparity": overall,
        "local_disparity": by_client.sum(axis=-1),
        "client_information": swapped,
    }
    return {
        name: np.where(shares > 0, df / (2 * n), 0.0) / math.log(2) for name, df in degrees.items()
    }


def hidden_unique(table: PIDTable, value: float, centre: float) -> float:
    """Return how much more the unique part may be than its centre, through bias alone.

    The curve of the client is biased upwards, by as much as I(Z;S) is over all thresholds, and
    hides that much of the unique part at most. Where it hides all of it there is no derivative
    that a correction could follow, so that the upper end of its interval allows for the whole.
    """
    most = float(table.shares @ information_bias(table)["client_information"])
    return max(value + most - centre, 0.0)


def corrections(table: PIDTable, result: PIDResult, rows: dict[str, Floats]) -> Parts:
    """Return the first-order bias of the plug-in parts, in bits, the mean over the strata.

    ``result`` is of ``table.joint()`` and ``rows`` are its influence functions.

    Notes
    -----
    Informations: Miller and Madow's (degrees of freedom) / 2n, with the values seen in each
    client. The unique part has no count of parameters of its own; its bias is the second-order
    term of the jackknife, by deleting one row of every kind. It lies between minus the bias of
    I(Z;S) and the bias of I(Z;Yhat), for each of them is a sum of biases of convex pieces, and
    is cut there. NaN where the table is too large to delete from.
    """
    shares, known = table.shares, information_bias(table)
    second = _jackknife(table, result, rows["unique"])
    unique = np.clip(second, -known["client_information"], known["global_disparity"])
    return {name: float(shares @ values) for name, values in known.items()} | {
        "unique": float(shares @ np.where(shares > 0, unique, 0.0))
    }


def _jackknife(table: PIDTable, result: PIDResult, rows: Floats) -> Floats:
    """Return the second-order bias of the unique part of each stratum, from one row less.

    Taking the weight w of a row at cell c out of a table of weight W moves the distribution by
    t (P - e_c), t = w / (W - w), and the value by -t IF(c) + t^2 / 2 IF''(c); the bias is half
    the mean of IF'' over the rows, weighted by their variance.
    """
    sums, squares = table.sums, table.squares
    size = math.prod(sums.shape[1:])
    where = np.flatnonzero(sums.reshape(-1) > 0)
    if where.size * size > _JACKKNIFE_ENTRIES:
        return np.full(sums.shape[0], np.nan)
    stratum, cell = np.divmod(where, size)
    flat = sums.reshape(sums.shape[0], size)
    total = flat.sum(axis=1)
    weight = (squares.reshape(flat.shape) / np.where(flat > 0, flat, 1.0))[stratum, cell]
    alone = total[stratum] - weight <= 0
    t = weight / np.where(alone, 1.0, total[stratum] - weight)
    less = flat[stratum].copy()
    less[np.arange(where.size), cell] = np.maximum(flat[stratum, cell] - weight, 0.0)
    less = np.where(alone[:, None], flat[stratum], less)
    values = decompose(joint_and_shares(less.reshape(-1, 1, *sums.shape[1:]))[0][:, 0]).unique
    second = values - result.unique[stratum] + t * rows.reshape(flat.shape)[stratum, cell]
    variance = squares.reshape(flat.shape)[stratum, cell] / total[stratum] ** 2
    terms = np.where(alone, 0.0, variance * second / np.where(alone, 1.0, t) ** 2)
    return np.asarray(np.bincount(stratum, weights=terms, minlength=sums.shape[0]), dtype=float)


def corrected_parts(values: Parts, bias: Parts) -> Parts:
    """Return the parts less their bias, floored at zero; sums and bounds hold as before."""
    client = values["unique_client"] + values["redundant"] - bias["client_information"]
    shift = 0.0 if math.isnan(bias["unique"]) else bias["unique"]
    return consistent_parts(
        values["unique"] - shift,
        values["global_disparity"] - bias["global_disparity"],
        values["local_disparity"] - bias["local_disparity"],
        client,
    )


def consistent_parts(unique: float, seen: float, local: float, client: float) -> Parts:
    """Return parts from corrected U, G, L and I(Z;S), each of which may be off on its own.

    The unique part is kept within what the informations allow: at least G - I(Z;S), at most G and
    L. They allow something only if L >= G - I(Z;S), as holds for every table; where correction
    broke this, L is raised, for it has lost most. Else R could exceed I(Z;S).
    """
    seen, client = max(seen, 0.0), max(client, 0.0)
    local = max(local, seen - client, 0.0)
    unique = min(max(unique, seen - client, 0.0), seen, local)
    return {
        "unique": unique,
        "redundant": seen - unique,
        "masked": local - unique,
        "global_disparity": seen,
        "local_disparity": local,
        "unique_client": max(client - (seen - unique), 0.0),
        "coinformation": seen - local,
    }


# --- spread ---------------------------------------------------------------------------------


def standard_errors(
    table: PIDTable, result: PIDResult, rows: dict[str, Floats], *, by_client: bool = False
) -> Parts:
    """Return the first-order standard error of every part, in bits, from influence functions.

    ``by_client`` is for client sizes that are fixed by design: only the spread within clients
    counts then.
    """
    total = float(table.sums.sum())
    out = {}
    for name in PARTS:
        moved = row_effects(
            table.sums,
            table.shares,
            getattr(result, name),
            rows[name],
            by_client=by_client,
            pseudo=table.pseudo,
        )
        out[name] = math.sqrt(float((table.squares * moved**2).sum())) / total
    return out


def row_effects(
    sums: Floats,
    shares: Floats,
    values: Floats,
    rows: Floats,
    *,
    by_client: bool,
    pseudo: float = 0.0,
) -> Floats:
    """Return how much a row in each cell moves the mean over the strata, 0 in empty cells.

    ``sums`` and ``rows`` are (..., n_strata, |Z|, m, K), the others (..., n_strata).
    Pseudo-counts dilute what a row does, whose mean over the rows is then no longer 0.
    """
    mean = (shares * values).sum(axis=-1, keepdims=True)
    if pseudo:
        total = sums.sum(axis=(-3, -2, -1), keepdims=True)
        rows = rows * (total / (total + pseudo * math.prod(sums.shape[-3:])))
    moved = np.where(sums > 0, (values - mean)[..., None, None, None] + rows, 0.0)
    if by_client or pseudo:
        own = (-4, -3, -2) if by_client else (-4, -3, -2, -1)
        weight = sums.sum(axis=own, keepdims=True)
        centre = (sums * moved).sum(axis=own, keepdims=True) / np.where(weight > 0, weight, 1.0)
        moved = np.where(sums > 0, moved - centre, 0.0)
    return np.asarray(moved)


def influences(table: PIDTable, result: PIDResult) -> dict[str, Floats]:
    """Return the influence functions of the parts, in bits, shape of ``table.counts``."""
    return influence(table.joint(), result)


def _atoms(table: PIDTable) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Return cell, weight and number of the distinct rows, ascending by cell."""
    if table.rows is not None:
        return table.rows.cell, table.rows.weight, table.rows.count
    flat = table.counts.reshape(-1)
    cell = np.flatnonzero(flat)
    return cell, np.ones(cell.size), flat[cell]


def _tables(
    table: PIDTable, size: int, draw: Any, entries: int = BLOCK
) -> Iterator[tuple[slice, Floats]]:
    """Yield blocks of resampled tables; ``draw(cell, count, block)``: how often each row comes."""
    cell, weight, count = _atoms(table)
    starts = np.flatnonzero(np.r_[True, np.diff(cell) != 0])
    step = max(1, entries // max(table.counts.size, cell.size))
    for first in range(0, size, step):
        block = min(step, size - first)
        drawn = draw(cell, count, block) * weight
        flat = np.zeros((block, table.counts.size))
        flat[:, cell[starts]] = np.add.reduceat(drawn, starts, axis=1)
        yield slice(first, first + block), flat.reshape(block, *table.counts.shape)


def bootstrap_tables(
    table: PIDTable,
    size: int,
    rng: np.random.Generator,
    *,
    by_client: bool = False,
    entries: int = BLOCK,
) -> Iterator[tuple[slice, Floats]]:
    """Yield blocks of bootstrap samples, at most ``entries`` numbers each."""

    def draw(cell: NDArray[np.int64], count: NDArray[np.int64], block: int) -> NDArray[Any]:
        strata = cell % table.counts.shape[-1] if by_client else None
        return multinomial_resamples(count, block, rng, strata=strata)

    return _tables(table, size, draw, entries)


def _replicates(
    size: int, blocks: Iterator[tuple[slice, Floats]], device: Any, pseudo: float
) -> Parts:
    out = {name: np.empty(size) for name in PARTS}
    for where, tables in blocks:
        for name, values in part_values(tables, device, pseudo).items():
            out[name][where] = values
    return out


def bootstrap_parts(
    table: PIDTable,
    size: int,
    rng: np.random.Generator,
    *,
    by_client: bool = False,
    device: Any = None,
) -> Parts:
    """Return the parts of bootstrap samples, arrays of shape (size,), in bits.

    All replicates of a block are decomposed at once. ``by_client`` keeps the number of rows of
    each client.
    """
    blocks = bootstrap_tables(table, size, rng, by_client=by_client)
    return _replicates(size, blocks, device, table.pseudo)


def subsampled_parts(
    table: PIDTable, size: int, rng: np.random.Generator, *, device: Any = None
) -> tuple[Parts, float]:
    """Return the parts of subsamples of n^0.7 rows without replacement, and b / n."""
    n = table.n
    small = max(2, min(n, round(n**SUBSAMPLE_POWER)))

    def draw(cell: NDArray[np.int64], count: NDArray[np.int64], block: int) -> NDArray[Any]:
        if n >= 10**9:  # past this numpy has no sampler, and with replacement is the same
            return rng.multinomial(small, count / count.sum(), size=block)
        return rng.multivariate_hypergeometric(count, small, size=block, method="marginals")

    # A subsample's pseudo-counts are as large a share of it as the sample's are of the sample.
    blocks = _tables(table, size, draw)
    return _replicates(size, blocks, device, table.pseudo * small / n), small / n


# --- intervals ------------------------------------------------------------------------------


def normal_interval(
    centre: float, se: float, confidence: float, *, signed: bool = False
) -> tuple[float, float]:
    """Return the centre and its error, not below zero unless signed."""
    reach = normal_critical(confidence) * se
    low = centre - reach
    return (low if signed else max(low, 0.0)), centre + reach


def shifted_percentiles(
    replicates: Floats, value: float, centre: float, confidence: float, *, signed: bool = False
) -> tuple[float, float]:
    """Return percentiles of replicates, moved so that they are about the corrected value.

    A replicate is off by the bias twice: once as the value is, once again as a sample of it.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], method="weibull")
    shift = 2 * (centre - value)
    low, high = float(low) + shift, float(high) + shift
    return (low, high) if signed else (max(low, 0.0), max(high, 0.0))


def subsample_bound(
    replicates: Floats, value: float, centre: float, share: float, confidence: float
) -> float:
    """Return a one-sided upper bound for a part that may be zero.

    The spread of the part in subsamples of b rows above its value, scaled by sqrt(b / n) to
    samples of n. Where the part is zero its law is not normal and may shrink faster than this
    rate, so that the bound is then too large rather than too small.
    """
    above = float(np.quantile(replicates, confidence, method="weibull")) - value
    return centre + math.sqrt(share) * max(above, 0.0)
