"""Which method answers which table: exact for two groups, else Newton, else the cone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import InvalidParameterError
from privfair.fairness.pid._exact import exact_dual, exact_unique, rounding_bound
from privfair.fairness.pid._information import Informations, Table

__all__ = ["Solved", "exact_multipliers", "solve"]


@dataclass
class Solved:
    """Unique informations and their certificate (nats), method and multipliers, by table."""

    unique: Table
    unique_client: Table
    gap: Table
    method: NDArray[np.str_]
    alpha: Table | None = None
    beta: Table | None = None

    def multipliers(self, zy: Table, zs: Table) -> tuple[Table, Table]:
        """Return alpha and beta, computing those of the exact path, which needs none."""
        if self.alpha is None or self.beta is None:
            return exact_multipliers(zy, zs)
        return self.alpha, self.beta


def solve(
    zy: Table, zs: Table, base: Informations, *, method: str, tol: float, device: Any = None
) -> Solved:
    """Return the unique informations of margins P(z,y), (B, Z, m), and P(z,s), (B, Z, K).

    ``tol`` in nats; ``device`` is None for numpy or a torch device.
    """
    two = (zy.sum(axis=2) > 0).sum(axis=1) <= 2
    if method == "exact" and not two.all():
        raise InvalidParameterError(
            "method='exact' is for tables with two groups, and P has more. Use method='auto'."
        )
    if method in {"newton", "cone"}:
        two[:] = False
    if two.all():
        return _exact(*_two_groups(zy, zs), device)
    rest = np.flatnonzero(~two)
    part = Informations(*(getattr(base, name)[rest] for name in Informations.__annotations__))
    general = _general(zy[rest], zs[rest], part, method, tol, device)
    if not two.any():
        return general
    done = np.flatnonzero(two)
    some = _exact(*_two_groups(zy[done], zs[done]), device)
    out = Solved(
        np.empty(len(zy)),
        np.empty(len(zy)),
        np.empty(len(zy)),
        method=np.full(len(zy), "newton"),
        alpha=np.empty(zy.shape),
        beta=np.empty(zs.shape),
    )
    some.alpha, some.beta = exact_multipliers(zy[done], zs[done])
    for name in Solved.__annotations__:
        for where, source in ((rest, general), (done, some)):
            getattr(out, name)[where] = getattr(source, name)
    return out


def _order(zy: Table) -> NDArray[np.intp]:
    """Return the two groups with members (or any), their order kept."""
    empty = zy.sum(axis=2) <= 0
    return np.sort(np.argsort(empty, axis=1, kind="stable")[:, :2], axis=1)


def _two_groups(zy: Table, zs: Table) -> tuple[Table, Table]:
    if zy.shape[1] == 1:
        zy, zs = (np.concatenate([a, np.zeros_like(a)], axis=1) for a in (zy, zs))
    elif zy.shape[1] > 2:
        order = _order(zy)[:, :, None]
        zy, zs = (np.take_along_axis(a, order, axis=1) for a in (zy, zs))
    return zy, zs


def exact_multipliers(zy: Table, zs: Table) -> tuple[Table, Table]:
    """Return ``exact_dual`` of tables of any number of groups of which two have members."""
    alpha, beta = np.full(zy.shape, -np.inf), np.full(zs.shape, -np.inf)
    if zy.shape[1] == 1:
        return tuple(a[:, :1] for a in exact_dual(*_two_groups(zy, zs)))  # type: ignore[return-value]
    if zy.shape[1] == 2:
        return exact_dual(zy, zs)
    order = _order(zy)[:, :, None]
    for wide, narrow in zip((alpha, beta), exact_dual(*_two_groups(zy, zs)), strict=True):
        np.put_along_axis(wide, order, narrow, axis=1)
    return alpha, beta


def _exact(zy: Table, zs: Table, device: Any) -> Solved:
    if device is None:
        unique, unique_client = exact_unique(zy, zs)
    else:
        from privfair.fairness.pid._tensors import exact_unique_on

        unique, unique_client = exact_unique_on(zy, zs, device)
    return Solved(unique, unique_client, rounding_bound(zy, zs), np.full(len(zy), "exact"))


def _general(
    zy: Table, zs: Table, base: Informations, method: str, tol: float, device: Any
) -> Solved:
    from privfair.fairness.pid._cone import cone
    from privfair.fairness.pid._newton import newton

    if method == "cone":
        found, used = cone(zy, zs, tol=tol), np.full(len(zy), "cone")
    else:
        if device is None:
            found = newton(zy, zs, tol=tol, xp=np)
        else:
            from privfair.fairness.pid._tensors import newton_on

            found = newton_on(zy, zs, device, tol=tol)
        used = np.full(len(zy), "newton")
        if method == "auto":
            late = np.flatnonzero(found.gap > tol)
            if late.size:
                second = cone(zy[late], zs[late], tol=tol)
                better = second.gap < found.gap[late]
                used[late[better]] = "cone"
                for name in ("value", "gap", "alpha", "beta"):
                    getattr(found, name)[late[better]] = getattr(second, name)[better]
    union = found.value + base.entropy
    return Solved(
        union - base.client, union - base.decision, found.gap, used, found.alpha, found.beta
    )
