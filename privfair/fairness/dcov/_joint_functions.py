"""Joint distance covariance of several variables, whole (JdCov) and of the prediction alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.fairness.dcov._cells import cells_dcov_sq
from privfair.fairness.dcov._columns import pair_distances
from privfair.fairness.dcov._functions import LEAST, constant, pair, self_pair, sortable, vanishes
from privfair.fairness.dcov._joint import scale, tiled_joint_sq
from privfair.fairness.dcov._kernels import cell_kernel
from privfair.fairness.dcov._naive import naive_joint_sq
from privfair.fairness.dcov._rows import (
    Inputs,
    attribute_rows,
    distinct_rows,
    ecdf,
    read_inputs,
)

if TYPE_CHECKING:
    from torch import Tensor

    from privfair.fairness.dcov._encoder import AttributeEncoder

__all__ = ["jdcov_sq", "jdcov_targeted_sq"]

ESTIMATORS = ("u", "v", "us", "rank-u", "rank-v")
METHODS = ("auto", "cells", "tiled", "naive")


def jdcov_sq(
    *xs: Any, c: float = 1.0, estimator: str = "u", method: str = "auto", tile: int | None = None
) -> Any:
    r"""Return the squared joint distance covariance of two or more variables.

    :math:`E \prod_m (U_m + c) - c^d`, which is 0 if and only if the variables are *mutually*
    independent. As a measure of unfairness it has a floor wherever the attributes depend on each
    other: use :func:`jdcov_targeted_sq` for that.

    Parameters
    ----------
    *xs : array-like or tensor of numbers, each of shape (n,) or (n, p)
        At least two.
    c : float, default=1.0
        Positive. A set of k of the d variables has weight c ** (d - k).
    estimator : {"u", "v", "us", "rank-u", "rank-v"}, default="u"
        ``"us"`` divides each variable's part by its distance standard deviation; ``"rank-*"``
        replaces every column by its empirical distribution function, without gradient.
    method : {"auto", "cells", "tiled", "naive"}, default="auto"
        ``"cells"``: first variable scalar, all others together with at most 1,024 distinct rows.
    tile : int or None, default=None

    Returns
    -------
    float, or 0-d tensor

    Notes
    -----
    U is minus the usual double centring: products of three and more notice the sign. With two
    variables this is dCov^2 for every c. Unbiasedness is claimed for two variables only.
    Privacy: raw.

    References
    ----------
    Chakraborty and Zhang 2019, JASA 114(528).

    Examples
    --------
    Three variables, each two independent, all three not:

    >>> a, b = [0, 0, 1, 1], [0, 1, 0, 1]
    >>> jdcov_sq([0, 1, 1, 0], a, b, estimator="v")
    0.125
    """
    if len(xs) < 2:
        raise InvalidTypeError(f"jdcov_sq needs at least two variables, got {len(xs)}.")
    named = {f"variable {i}": x for i, x in enumerate(xs)}
    return _joint(named, c, estimator, method, tile, targeted=False, tau=1.0)


def jdcov_targeted_sq(
    pred: Any,
    *attrs: Any,
    encoder: AttributeEncoder | None = None,
    c: float = 1.0,
    estimator: str = "u",
    group_weighting: float = 1.0,
    method: str = "auto",
    tile: int | None = None,
) -> Any:
    r"""Return the part of the joint distance covariance that contains the prediction.

    :math:`T^2 = E[U_{pred} \prod_j (U_j + c)]`, the sum over sets of attributes A of
    :math:`c^{d - |A|} dCov^2(pred, A)`. It is 0 if and only if the prediction is independent of
    all attributes jointly, also when these depend on each other.

    Parameters
    ----------
    pred : array-like or tensor, shape (n,) or (n, p)
    *attrs : array-like, each of shape (n,) or (n, q); or one data frame or mapping
        Numbers are taken as they are unless there is an encoder.
    encoder : AttributeEncoder or None, default=None
        Fitted, or a copy is fitted to ``attrs``. Needed for text.
    c : float, default=1.0
        Positive.
    estimator : {"u", "v", "us", "rank-u", "rank-v"}, default="u"
    group_weighting : float in [0, 1], default=1.0
        tau of :func:`cells_dcov_sq`; below 1 the attributes must have finitely many cells.
    method : {"auto", "cells", "tiled", "naive"}, default="auto"
    tile : int or None, default=None

    Returns
    -------
    float, or 0-d tensor
        With the exact identity ``jdcov_sq(pred, *S) == T2 + c * jdcov_sq(*S)``.

    Notes
    -----
    Its gradient with respect to the prediction is that of :func:`jdcov_sq`. Privacy: raw.

    References
    ----------
    Chakraborty and Zhang 2019, JASA 114(528); Lee et al. 2025, arXiv 2509.08163.

    Examples
    --------
    >>> a, b = [0, 0, 1, 1], [0, 1, 0, 1]
    >>> jdcov_targeted_sq([0, 1, 1, 0], a, b, estimator="v")
    0.125
    >>> jdcov_targeted_sq([0, 1, 1, 0], a, a, estimator="v")
    0.0
    """
    tau = check.probability(group_weighting=group_weighting)
    named = {"pred": pred, **attribute_rows(attrs, encoder)}
    return _joint(named, c, estimator, method, tile, targeted=True, tau=tau)


def _joint(
    named: dict[str, Any],
    c: float,
    estimator: str,
    method: str,
    tile: int | None,
    *,
    targeted: bool,
    tau: float,
) -> Any:
    check.one_of(ESTIMATORS, estimator=estimator)
    check.one_of(METHODS, method=method)
    level = check.positive(c=c)
    size = None if tile is None else check.positive_int(tile=tile)
    kind = "v" if estimator == "rank-v" or estimator == "v" else "u"
    given = read_inputs(named, least=LEAST[kind])
    rows = [r if r.is_floating_point() else r.double() for r in given.rows]
    if estimator.startswith("rank"):
        rows = [ecdf(r) for r in rows]
    elif estimator == "us":
        rows = [_unit(r) for r in rows]
    if tau < 1:
        if not targeted or method not in ("auto", "cells"):
            raise InvalidParameterError("group_weighting below 1 needs method='cells'.")
        method = "cells"
    if method == "auto" and len(rows) == 2 and sortable(rows[0], rows[1], 1.0, "euclidean"):
        return given.answer(pair(Inputs(rows, True), kind, 1.0, "euclidean", "auto", size, None))
    if method in ("auto", "cells"):
        value = _by_cells(rows, level, kind, targeted, tau, forced=method == "cells")
        if value is not None:
            return given.answer(value)
    first = 0.0 if targeted else level
    offsets = [first, *[level] * (len(rows) - 1)]
    if method == "naive":
        return given.answer(naive_joint_sq(rows, offsets, kind))
    return given.answer(tiled_joint_sq(rows, offsets, kind, tile=size))


def _unit(rows: Tensor) -> Tensor:
    """Return rows over their distance standard deviation, so that E U^2 = 1."""
    if constant(rows):
        return rows
    own = self_pair(rows, "u", 1.0, "euclidean", "auto", None, None)
    return rows.double() / torch.sqrt(own) if not vanishes(own, rows) else rows


def _by_cells(
    rows: list[Tensor], c: float, estimator: str, targeted: bool, tau: float, *, forced: bool
) -> Tensor | None:
    pred, attrs = rows[0], rows[1:]
    usable = pred.shape[1] == 1 and not any(a.requires_grad for a in attrs)
    found = distinct_rows(torch.cat([a.double() for a in attrs], dim=1)) if usable else None
    if found is None:
        if forced:
            raise InvalidParameterError(
                "method='cells' (and group_weighting below 1) needs a scalar prediction, and "
                "attributes without gradient that have at most 1,024 distinct combinations."
            )
        return None
    codes, cells = found
    if not forced and len(cells) > 16 and 4 * len(cells) > len(codes):
        return None
    parts = torch.split(cells.detach().cpu(), [a.shape[1] for a in attrs], dim=1)
    gaps = [pair_distances(p.double().numpy()) for p in parts]
    mass = torch.bincount(codes).double().cpu().numpy()
    kernel = cell_kernel("jdcov", gaps, counts=mass, c=c, estimator=estimator, group_weighting=tau)
    value: Tensor = cells_dcov_sq(
        pred[:, 0], codes, kernel, estimator=estimator, group_weighting=tau
    )
    return (
        value.double()
        if targeted
        else value.double() + c * _of_cells(kernel, mass, c ** len(attrs), estimator)
    )


def _of_cells(kernel: Any, mass: Any, base: float, estimator: str) -> float:
    """Return JdCov^2 of the attributes alone, from their cells."""
    n = int(mass.sum())
    pairs = np.outer(mass, mass)
    if estimator == "u":
        pairs -= np.diag(mass)
    return float((pairs * (kernel - base)).sum() / scale(n, estimator))
