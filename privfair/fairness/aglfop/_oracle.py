"""``aglfop``: the oracle form for one table and one pair of bounds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidTypeError, UtilityWarning
from privfair.fairness.aglfop._program import LN2, OraclePoint, OracleProgram
from privfair.fairness.aglfop._result import AGLFOPResult

__all__ = ["aglfop", "bound_in_nats", "check_table", "result_of"]

Array = NDArray[np.float64]


def check_table(p: Any) -> Array:
    """Return p(z, s, y) as an array, or say what is wrong with it."""
    array = np.asarray(p)
    if array.dtype.kind not in "iuf":
        raise InvalidTypeError(
            f"p must be an array of numbers, got dtype {array.dtype}. It holds the joint "
            "probabilities p(group, client, label); divide a table of counts by its sum."
        )
    table = array.astype(float)
    if table.ndim != 3 or 0 in table.shape:
        raise DataError(
            f"p must have three axes (group, client, label), got shape {table.shape}. With one "
            "client, pass p[:, None, :]."
        )
    if not np.isfinite(table).all():
        raise DataError("p holds NaN or infinite entries; joint probabilities are finite.")
    if (table < 0).any():
        raise DataError("p holds negative entries; joint probabilities are at least 0.")
    total = float(table.sum())
    if not abs(total - 1.0) <= 1e-8:
        raise DataError(
            f"p must sum to 1 within 1e-8, got {total:.10g}. Divide a table of counts by its sum."
        )
    return np.asarray(table / total)


def bound_in_nats(name: str, eps: Any, unit: str) -> float | None:
    """Return a bound in nats, None for none."""
    if eps is None:
        return None
    value = check.non_negative(**{name: eps})
    return value * LN2 if unit == "bits" else value


def result_of(
    program: OracleProgram,
    point: OraclePoint,
    *,
    eps_global: float | None,
    eps_local: float | None,
    unit: str,
    status: str | None = None,
    price_client: dict[Any, float] | None = None,
) -> AGLFOPResult:
    """Return a solved point (nats) as a result in the asked unit."""
    nats = LN2 if unit == "bits" else 1.0
    return AGLFOPResult(
        error=point.error,
        error_lower=float(point.lower),
        joint=point.masses,
        p=program.p,
        eps_global=eps_global,
        eps_local=eps_local,
        global_disparity=point.informations["global"] / nats,
        local_disparity=point.informations["local"] / nats,
        price_global=float(point.prices.get("global", 0.0)) * nats,
        price_local=float(point.prices.get("local", 0.0)) * nats,
        price_degenerate=point.degenerate,
        status=status or point.status,
        n_iter=point.n_iter,
        unit=unit,
        price_client=price_client or {},
    )


def aglfop(
    p: Any,
    eps_global: float | None = None,
    eps_local: float | None = None,
    unit: str = "bits",
    solver: str = "clarabel",
    tol: float = 1e-8,
) -> AGLFOPResult:
    """Best accuracy of any decision under bounds on global and local disparity.

    Solves the Accuracy and Global-Local Fairness Optimality Problem: over all joint laws Q of
    group Z, client S, label Y and decision K with Q(z, s, y) = p(z, s, y),

        minimise P(Y != K)   subject to   I(Z; K) <= eps_global,  I(Z; K | S) <= eps_local.

    Parameters
    ----------
    p : array-like of shape (n_groups, n_clients, n_labels)
        Joint probabilities of group, client and label; counts divided by their sum.
    eps_global, eps_local : float or None, default=None
        Bounds >= 0 on I(Z; K) and I(Z; K | S), in ``unit``. None: no bound. Exactly 0 demands
        independence and is solved as a linear program.
    unit : {"bits", "nats"}, default="bits"
        Of bounds, disparities and prices.
    solver : {"clarabel", "cvxpy"}, default="clarabel"
        "clarabel" solves the reduced program directly. "cvxpy" solves the program above as it
        stands, as a slow and independent check.
    tol : float, default=1e-8
        Accuracy aimed at; the solver runs at a thousandth of it. What was reached is ``gap``.

    Returns
    -------
    AGLFOPResult

    Raises
    ------
    InvalidParameterError, InvalidTypeError
        A bound is negative, not finite or no number.
    DataError
        ``p`` is no table of joint probabilities.
    SolverError
        The solver gave no answer, or one that fails its checks. Nothing is returned then.

    Warns
    -----
    UtilityWarning
        There is one group only, or a client without any mass.

    Notes
    -----
    Only the masses m(z, s, k) of the decision enter the bounds, and given them the best error is
    a total variation; so the program solved is: the smallest relabelling of the data that makes
    labels nearly independent of the group (``docs/fairness-aglfop.md``). Each answer is checked:
    masses, bounds, objective; and carries a lower bound that holds whatever the solver did.

    The oracle may know the label: without bounds its accuracy is 1. It bounds every classifier,
    on this ``p`` and not on the population behind it; it is no promise that one reaches it.
    The interesting bounds lie below I(Z; Y) and I(Z; Y | S) of the labels, beyond which nothing
    is lost. The local bound is a mean over clients: small ones can be far above it.

    Complexity: one sparse factorisation per iteration, 10 to 50 iterations; half a millisecond
    for two groups, clients and labels, seconds for (10, 100, 5).

    Privacy: ``p`` is used as given. Computed from raw counts the result is not private.

    References
    ----------
    .. [1] F. Hamman, S. Dutta. Demystifying local and global fairness trade-offs in federated
       learning using partial information decomposition. ICLR 2024. arXiv:2307.11333.
    .. [2] P. Goulart, Y. Chen. Clarabel: an interior-point solver for conic programs with
       quadratic objectives. 2024. arXiv:2405.12762.

    Examples
    --------
    Two groups with base rates 0.2 and 0.4 in one client; a decision independent of the group
    must change the labels of a fifth of the smaller group:

    >>> from privfair.fairness.aglfop import aglfop
    >>> p = [[[0.48, 0.12]], [[0.24, 0.16]]]
    >>> round(aglfop(p, eps_global=0.0).error, 6)
    0.08
    >>> answer = aglfop(p, eps_global=0.01)
    >>> round(answer.accuracy, 4), answer.status, bool(answer.gap < 1e-6)
    (0.9614, 'solved', True)
    """
    check.one_of(("bits", "nats"), unit=unit)
    check.one_of(("clarabel", "cvxpy"), solver=solver)
    check.positive(tol=tol)
    bounds = {
        "global": bound_in_nats("eps_global", eps_global, unit),
        "local": bound_in_nats("eps_local", eps_local, unit),
    }
    table = check_table(p)
    if (table.sum(axis=(0, 2)) == 0).any():
        warnings.warn(
            "p holds clients without any mass; they take part in nothing.",
            UtilityWarning,
            stacklevel=2,
        )
    status = None
    if (table.sum(axis=(1, 2)) > 0).sum() == 1:
        status = "one_group"
        warnings.warn(
            "p holds one group only: nothing depends on it, so every bound is kept and the "
            "accuracy is 1.",
            UtilityWarning,
            stacklevel=2,
        )
    program = OracleProgram(table, tol=1e-3 * tol)
    if solver == "cvxpy" and status is None:
        from privfair.fairness.aglfop._reference import solve_full

        point = solve_full(program, bounds)
    else:
        point = program.solve(bounds)
    return result_of(
        program, point, eps_global=eps_global, eps_local=eps_local, unit=unit, status=status
    )
