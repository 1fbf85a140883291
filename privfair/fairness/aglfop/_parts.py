"""What the disparity of an optimum is made of: unique, redundant and masked, in bits.

Optima are not unique, and what they are made of differs: the one of least disparity is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.fairness.aglfop._measures import decided
from privfair.fairness.aglfop._oracle import bound_in_nats
from privfair.fairness.aglfop._program import OracleProgram
from privfair.fairness.aglfop._rule import spread
from privfair.fairness.aglfop._ties import least_disparity, least_disparity_rule

__all__ = ["PARTS", "parts_at"]

Array = NDArray[np.float64]
PARTS = ("unique", "redundant", "masked")


def parts_at(
    program: Any,
    bounds: Sequence[tuple[float | None, float | None]],
    *,
    access: str,
    criterion: str,
    positive: int,
) -> dict[str, Array]:
    """Return the parts of the least-disparity optimum at pairs of bounds.

    Parameters
    ----------
    program : OracleProgram or RuleProgram
        Of one criterion, named without prefix.
    bounds : sequence of (eps_global, eps_local)
        In bits, None for no bound.
    access, criterion : str
    positive : int
        With a RuleProgram, what the rule sees and which rows the criterion looks at: for
        criteria that look at the label the parts are means over labels, weighed by their rows.

    Returns
    -------
    dict of str to ndarray of shape (n_bounds,)
        Unique and redundant add up to the global disparity, unique and masked to the local one.
    """
    from privfair.fairness.pid import pid_from_joint

    joints, weights = [], []
    for eps_global, eps_local in bounds:
        asked = {
            "global": bound_in_nats("eps_global", eps_global, "bits"),
            "local": bound_in_nats("eps_local", eps_local, "bits"),
        }
        point = program.solve(asked)
        if isinstance(program, OracleProgram):
            apart = least_disparity(program, point).masses[:, :, None]
        else:
            best = least_disparity_rule(program, point)
            apart = decided(program.p, spread(program, best.weights, access))
        if criterion == "demographic_parity":
            apart = apart.sum(axis=2, keepdims=True)
        elif criterion == "equal_opportunity":
            apart = apart[:, :, [positive]]
        mass = apart.sum(axis=(0, 1, 3))
        weights.append(mass / mass.sum())
        # A label without rows weighs nothing, whatever stands in for its joint.
        joints.append(np.moveaxis(np.where(mass[:, None] > 0, apart, 1.0), 2, 0))
    stacked = np.concatenate(joints)
    stacked /= stacked.sum(axis=(1, 2, 3), keepdims=True)
    found = pid_from_joint(stacked, axes=("z", "s", "yhat"))
    share = np.array(weights)
    return {
        name: (np.asarray(getattr(found, name)).reshape(share.shape) * share).sum(axis=1)
        for name in PARTS
    }
