"""Standard errors to second order, where the influence functions of a sample mislead.

The parts are not linear in the table. Over many clients their curvature adds variance, and the
influence functions, taken at a table that shows more dependence than its population, are too
large; where two curves nearly coincide, which of them counts differs from sample to sample.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.fairness.pid._data import PIDTable
from privfair.fairness.pid._influence import influence
from privfair.fairness.pid._joint import PIDResult, decompose
from privfair.fairness.pid._uncertainty import (
    PARTS,
    REPLICATE_TOLERANCE,
    Parts,
    bootstrap_tables,
    joint_and_shares,
    row_effects,
)

__all__ = ["QUICK", "replicates", "second_order_errors"]

Floats = NDArray[np.float64]

QUICK = 48
"""Groups times decisions and clients up to which a solver takes fractions of a millisecond."""

_LEAST, _GENERAL = 100, 200  # fewer say too little; of more groups each needs a solver
_WHOLE = 1 << 21  # numbers in all replicates together
_ENTRIES = 1 << 17  # a block's influence functions are a dozen arrays of this size


def replicates(table: PIDTable, asked: int) -> int:
    """Return how many replicates the errors of a table take; 0 where too few are asked for."""
    _, groups, decisions, clients = table.counts.shape
    most = asked
    if groups > 2:
        most = _GENERAL if groups * (decisions + clients) <= QUICK else _LEAST
    most = min(most, max(_WHOLE // table.counts.size, _LEAST), asked)
    return most if most >= _LEAST else 0


def second_order_errors(
    table: PIDTable,
    result: PIDResult,
    rows: dict[str, Floats],
    size: int,
    rng: np.random.Generator,
    *,
    by_client: bool = False,
    device: Any = None,
) -> tuple[Parts, dict[str, bool]]:
    """Return the standard error of every part, in bits, and whether it has no expansion.

    Notes
    -----
    With v(P) the variance of a part in samples from P and v1(P) its first-order variance, the
    mean squared influence over n, the result is v(P^) - (E* v1(P*) - v1(P^)): the bootstrap's
    variance less the bias that a plug-in variance has, as replicates P* show it. For a quadratic
    function of the table, a squared linear term c and a trace t, v is c + 2t, and at a sample v1
    is c + 4t, v of the bootstrap c + 6t and E* v1 c + 8t in the mean, so that the result is
    right. v(P^) is that of the residuals from the linear part, which is known, and so needs few
    replicates.

    Where the correction takes more than half of the bootstrap's variance no expansion holds: the
    part is near its boundary and its law is not normal. Half that variance is returned, marked.
    """
    sums, total = table.sums, float(table.sums.sum())
    weight = np.divide(table.squares, sums, out=np.zeros_like(sums), where=sums > 0)
    effects = {
        name: row_effects(
            sums,
            table.shares,
            getattr(result, name),
            rows[name],
            by_client=by_client,
            pseudo=table.pseudo,
        )
        for name in PARTS
    }
    drawn, linear, plug_in = ({name: np.empty(size) for name in PARTS} for _ in range(3))
    cells = (-4, -3, -2, -1)
    for where, tables in bootstrap_tables(table, size, rng, by_client=by_client, entries=_ENTRIES):
        joint, shares = joint_and_shares(tables, table.pseudo)
        parts = decompose(joint, tol=REPLICATE_TOLERANCE, device=device)
        moved = influence(joint, parts)
        mass = tables.sum(axis=cells)
        mass = np.where(mass > 0, mass, 1.0)  # all rows drawn may have weight zero
        for name in PARTS:
            values = getattr(parts, name)
            drawn[name][where] = (shares * values).sum(axis=-1)
            linear[name][where] = (tables * effects[name]).sum(axis=cells) / mass
            each = row_effects(
                tables, shares, values, moved[name], by_client=by_client, pseudo=table.pseudo
            )
            plug_in[name][where] = (tables * weight * each**2).sum(axis=cells) / mass**2
    errors, without = {}, {}
    for name in PARTS:
        first = float((table.squares * effects[name] ** 2).sum()) / total**2
        whole = _variance(drawn[name], linear[name], first)
        corrected = whole - (float(plug_in[name].mean()) - first)
        without[name] = corrected < 0.5 * whole
        errors[name] = math.sqrt(max(corrected, 0.5 * whole))
    return errors, without


def _variance(drawn: Floats, linear: Floats, known: float) -> float:
    """Return the variance of ``drawn``, given that of ``linear``, with which it varies."""
    spread = float(np.var(linear))
    slope = float(np.cov(drawn, linear, ddof=0)[0, 1]) / spread if spread > 0 else 0.0
    return slope**2 * known + float(np.var(drawn - slope * linear, ddof=1))
