"""The decomposition of a joint table: entry point, checks and result."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    ConvergenceError,
    ConvergenceWarning,
    InvalidParameterError,
    InvalidTypeError,
    ProbabilityRangeError,
    SchemaError,
    SingleGroupError,
    UtilityWarning,
)
from privfair.fairness.pid._information import Table, informations, marginals
from privfair.fairness.pid._solve import solve

__all__ = ["PIDResult", "decompose", "pid_from_joint"]

_AXES = ("z", "yhat", "s")
_SUM = 1e-8
_NEGATIVE = 1e-12
_IDENTITY = 1e-10


@dataclass(frozen=True, eq=False)
class PIDResult:
    """Parts of a disparity, in bits; arrays of the batch's shape, 0-d for one table.

    Attributes
    ----------
    unique : ndarray
        U, in [0, min(global, local)]: information on Z in the decision that the client has not.
    redundant : ndarray
        R = G - U, in [0, min(global, I(Z;S))]: carried by the client as well.
    masked : ndarray
        M = L - U, in [0, local]: seen only with decision and client together.
    unique_client : ndarray
        I(Z;S) - R: information on Z in the client that the decision has not.
    union_information : ndarray
        Least I(Z;(Yhat,S)) over all joints with the same P(z,yhat) and P(z,s).
    global_disparity : ndarray
        G = I(Z;Yhat) = U + R.
    local_disparity : ndarray
        L = I(Z;Yhat|S) = U + M.
    client_information : ndarray
        I(Z;S) = R + unique_client.
    coinformation : ndarray
        G - L = R - M, which depends on no choice of decomposition.
    certificate_gap : ndarray
        Proven bound on the error of ``union_information``, and so of each part, in bits.
    converged : ndarray of bool
        Whether ``certificate_gap`` is at most the tolerance asked for.
    method : ndarray of str
        ``"exact"``, ``"newton"`` or ``"cone"``.
    alpha, beta : ndarray or None
        Multipliers of the constraints on P(z,yhat), shape (..., n_z, m), and on P(z,s), shape
        (..., n_z, K), in nats; None after the exact path, which needs none.
    """

    unique: Table
    redundant: Table
    masked: Table
    unique_client: Table
    union_information: Table
    global_disparity: Table
    local_disparity: Table
    client_information: Table
    coinformation: Table
    certificate_gap: Table
    converged: NDArray[np.bool_]
    method: NDArray[np.str_]
    alpha: Table | None = field(default=None, repr=False)
    beta: Table | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers by name; Python scalars for one table, else arrays.

        Examples
        --------
        >>> P = [[[0.2, 0.05], [0.05, 0.2]], [[0.05, 0.2], [0.2, 0.05]]]
        >>> pid_from_joint(P).as_dict()["method"]
        'exact'
        """
        names = [name for name in self.__dataclass_fields__ if name not in {"alpha", "beta"}]
        values = {name: getattr(self, name) for name in names}
        return {name: v.item() if v.ndim == 0 else v for name, v in values.items()}


def pid_from_joint(
    P: Any,
    *,
    axes: Sequence[str] = _AXES,
    backend: str = "auto",
    device: str | None = None,
    tol: float = 1e-7,
    method: str = "auto",
) -> PIDResult:
    """Split the dependence of decision and sensitive attribute into three parts.

    The target is the sensitive attribute Z; the sources are the decision Yhat and the client S.
    U = min I_Q(Z;Yhat|S) over all Q with Q(z,yhat) = P(z,yhat) and Q(z,s) = P(z,s) (the BROJA
    definition); R = I(Z;Yhat) - U; M = I(Z;Yhat|S) - U.

    Parameters
    ----------
    P : array-like of shape (..., n_z, m, K)
        Probabilities that sum to 1 over the last three axes; leading axes are a batch. Single
        precision is computed in double precision.
    axes : sequence of str, default=("z", "yhat", "s")
        What the last three axes of P are.
    backend : {"auto", "numpy", "torch"}, default="auto"
        ``"auto"`` is torch for a tensor or with a ``device``, else numpy. Results are numpy.
    device : str or None, default=None
        Of the torch backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    tol : float > 0, default=1e-7
        Largest accepted certificate gap, in bits.
    method : {"auto", "exact", "newton", "cone"}, default="auto"
        ``"auto"`` is exact for tables with two groups, else Newton, and the cone program where
        Newton's certificate is wider than ``tol``.

    Returns
    -------
    PIDResult
        In bits.

    Raises
    ------
    SchemaError
        P has fewer than three axes or an empty one.
    ProbabilityRangeError
        NaN, infinite or negative entries, or a sum that is not 1 within 1e-8.
    SingleGroupError
        A table in which Z has one value only.
    InvalidParameterError, InvalidTypeError
        An option outside its range; ``method="exact"`` with more than two groups.
    ConvergenceError
        An identity of the decomposition does not hold numerically; a bug, please report.

    Warns
    -----
    ConvergenceWarning
        A certificate is wider than ``tol`` after the fallback; ``converged`` says which.
    UtilityWarning
        A table with one decision only: all parts are zero.

    Notes
    -----
    Two groups: O((m + K) log(m + K)) per table without iteration. More: O((n_z (m + K))^3) per
    Newton step. Every answer carries a bound on its own error. What is computed from exact
    counts of people is not private; the parts of a few people's table say much about them.

    References
    ----------
    Bertschinger, Rauh, Olbrich, Jost, Ay 2014, "Quantifying unique information", Entropy 16.
    Hamman and Dutta 2024, arXiv:2307.11333.

    Examples
    --------
    Decisions that follow Z within each of two clients in opposite directions are masked:

    >>> P = [[[0.2, 0.05], [0.05, 0.2]], [[0.05, 0.2], [0.2, 0.05]]]
    >>> result = pid_from_joint(P)
    >>> print(f"{result.unique:.4f} {result.redundant:.4f} {result.masked:.4f}")
    0.0000 0.0000 0.2781
    """
    backend = _backend(P, backend, device)
    check.one_of(("auto", "exact", "newton", "cone"), method=method)
    tol = check.positive(tol=tol)
    table = checked_table(P, axes)
    where = None
    if backend == "torch":
        from privfair.fairness.pid._tensors import device_of

        where = device_of(P, device)
    result = decompose(table, method=method, tol=tol, device=where)
    if not result.converged.all():
        warnings.warn(
            f"certificate_gap exceeds tol={tol:g} bits in {int((~result.converged).sum())} of "
            f"{result.converged.size} tables (largest {result.certificate_gap.max():.1e}): the "
            "parts are right to within that gap only. See the result's `converged`.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return result


def _backend(P: Any, backend: str, device: str | None) -> str:
    check.one_of(("auto", "numpy", "torch"), backend=backend)
    if backend == "auto":
        tensor = type(P).__module__.split(".")[0] == "torch"
        return "torch" if tensor or device is not None else "numpy"
    if backend == "numpy" and device is not None:
        raise InvalidParameterError(
            f"device={device!r} needs backend='torch' or 'auto', got backend='numpy'."
        )
    return backend


def checked_table(P: Any, axes: Sequence[str] = _AXES) -> Table:
    """Return P in double precision, in the order (z, yhat, s), summing to 1 to rounding."""
    if isinstance(axes, str) or sorted(map(str, axes)) != sorted(_AXES):
        raise InvalidParameterError(
            f"axes must be a permutation of {_AXES}, got {axes!r}. It says what the last three "
            "axes of P are."
        )
    if hasattr(P, "detach"):
        P = P.detach().cpu().numpy()
    try:
        raw = np.asarray(P)
    except ValueError:
        raw = np.asarray(None)
    if raw.dtype.kind not in "fiu":
        raise InvalidTypeError(
            f"P must be an array of real numbers, got dtype {raw.dtype}. Pass probabilities of "
            "shape (..., |Z|, m, K)."
        )
    if raw.ndim < 3 or 0 in raw.shape:
        raise SchemaError(
            f"P must have shape (..., |Z|, m, K) without empty axes, got {raw.shape}."
        )
    single = raw.dtype.kind == "f" and raw.dtype.itemsize < 8
    table = raw.astype(np.float64)
    table = np.moveaxis(table, [list(axes).index(a) - 3 for a in _AXES], [-3, -2, -1])
    if not np.isfinite(table).all():
        raise ProbabilityRangeError("P must be finite: it holds NaN or infinite entries.")
    if (table < 0).any():
        raise ProbabilityRangeError("P must not be negative: probabilities are in [0, 1].")
    total = table.sum(axis=(-3, -2, -1))
    # A sum in single precision is right to about its unit of rounding for each cell.
    allowed = max(_SUM, 1e-7 * math.prod(table.shape[-3:])) if single else _SUM
    if (np.abs(total - 1.0) > allowed).any():
        raise ProbabilityRangeError(
            f"P must sum to 1 within {allowed:.0e} over (z, yhat, s); it does not. Divide counts "
            "by their total, client tables by the total over all clients."
        )
    table = table / total[..., None, None, None]
    _, _, z = marginals(table)
    lone = (z > 0).sum(axis=-1) < 2
    if lone.any():
        raise SingleGroupError(
            f"P: Z has one value only in {int(lone.sum())} of {lone.size} tables, so that there "
            "is no disparity to decompose. Give at least two groups with members."
        )
    if ((table.sum(axis=(-3, -1)) > 0).sum(axis=-1) < 2).any():
        warnings.warn(
            "P holds one decision only: all parts of the disparity are zero.",
            UtilityWarning,
            stacklevel=3,
        )
    return np.ascontiguousarray(table)


def decompose(
    table: Table, *, method: str = "auto", tol: float = 1e-7, device: Any = None
) -> PIDResult:
    """Return the parts of checked tables (..., |Z|, m, K); on a torch device if one is given.

    A table in which one group only has members is allowed here (a resample can be one); its
    parts are zero.
    """
    shape = table.shape[:-3]
    flat = table.reshape(-1, *table.shape[-3:])
    margins = marginals(flat)
    base = informations(flat, margins)
    solved = solve(
        margins[0], margins[1], base, method=method, tol=tol * math.log(2), device=device
    )
    unique, unique_client = solved.unique, solved.unique_client
    off = np.abs((base.decision - unique) - (base.client - unique_client))
    slack = np.maximum(_IDENTITY, solved.gap)
    if (off > slack).any():
        raise ConvergenceError(
            "The two ways to the redundant part differ by "
            f"{off.max():.1e} nats. Please report this table's shape {flat.shape[1:]}."
        )
    parts = {
        "unique": _clipped(unique, slack),
        "redundant": _clipped(base.decision - unique, slack),
        "masked": _clipped(base.given_client - unique, slack),
        "unique_client": _clipped(unique_client, slack),
        "union_information": unique + base.client,
        "global_disparity": np.maximum(base.decision, 0.0),
        "local_disparity": np.maximum(base.given_client, 0.0),
        "client_information": np.maximum(base.client, 0.0),
        "coinformation": base.decision - base.given_client,
        "certificate_gap": solved.gap + off,
    }
    bits = {name: (value / math.log(2)).reshape(shape) for name, value in parts.items()}
    alpha, beta = solved.alpha, solved.beta
    return PIDResult(
        **bits,
        converged=bits["certificate_gap"] <= tol,
        method=solved.method.reshape(shape),
        alpha=None if alpha is None else alpha.reshape(*shape, *alpha.shape[1:]),
        beta=None if beta is None else beta.reshape(*shape, *beta.shape[1:]),
    )


def _clipped(part: Table, slack: Table) -> Table:
    """Return a part without the negative dust of rounding; more than dust is an error."""
    if (part < -np.maximum(_NEGATIVE, slack)).any():
        raise ConvergenceError(
            f"A part of the decomposition is negative ({part.min():.1e} nats), which no table "
            "has. Please report it."
        )
    return np.maximum(part, 0.0)
