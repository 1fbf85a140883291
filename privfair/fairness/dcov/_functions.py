"""Squared distance covariance and correlation of pairs; which algorithm computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.fairness.dcov._cells import cells_dcov_sq
from privfair.fairness.dcov._columns import pair_distances
from privfair.fairness.dcov._naive import naive_dcov_sq
from privfair.fairness.dcov._rows import (
    MAX_CELLS,
    Inputs,
    attribute_rows,
    check_exponent,
    distinct_rows,
    read_inputs,
)
from privfair.fairness.dcov._sorted import sorted_dcov_sq, three_sums
from privfair.fairness.dcov._tiled import tiled_dcov_sq

if TYPE_CHECKING:
    from torch import Tensor

    from privfair.fairness.dcov._encoder import AttributeEncoder

__all__ = ["ccdcov_sq", "dcor_sq", "dcov_sq"]

METHODS = ("auto", "cells", "sorted", "tiled", "naive")
METRICS = ("euclidean", "discrete")
LEAST = {"u": 4, "v": 2}


def dcov_sq(
    x: Any,
    y: Any,
    *,
    estimator: str = "u",
    exponent: float = 1.0,
    metric: str = "euclidean",
    method: str = "auto",
    tile: int | None = None,
    dtype: Any = None,
) -> Any:
    r"""Return the squared distance covariance of two variables.

    It is 0 in the population if and only if they are independent.

    Parameters
    ----------
    x, y : array-like or tensor of numbers, shape (n,) or (n, p)
        Finite. Encode categories first (:class:`AttributeEncoder`).
    estimator : {"u", "v"}, default="u"
        ``"u"``: unbiased, may be negative, n >= 4. ``"v"``: the plug-in, never negative, biased
        upward by about E|x - x'| E|y - y'| / n under independence, n >= 2.
    exponent : float in (0, 2], default=1.0
        Power of both distances. At 2 only linear dependence is seen, which warns.
    metric : {"euclidean", "discrete"}, default="euclidean"
        Of ``y``: the discrete metric is 1 between any two different rows.
    method : {"auto", "cells", "sorted", "tiled", "naive"}, default="auto"
        ``"cells"``: scalar ``x``, ``y`` with at most 1,024 distinct rows and without gradient,
        exponent 1 of ``x``: O(n log n + n G). ``"sorted"``: two scalars, exponent 1: O(n log n).
        ``"tiled"``: anything, O(n^2) time and O(n) memory. ``"naive"``: n x n arrays. All are
        exact.
    tile : int or None, default=None
        Rows of a tile; 256 on a CPU, 8,192 on an accelerator.
    dtype : torch dtype or None, default=None
        Of the distances of ``"tiled"``; that of the data when None.

    Returns
    -------
    float, or 0-d tensor
        A tensor if ``x`` or ``y`` is one, on its device, with gradients with respect to both
        (0 where rows coincide).

    Raises
    ------
    DataError, InvalidTypeError, InvalidParameterError
        Too few rows, unequal lengths, text, NaN, or a method that does not apply.

    Notes
    -----
    Privacy: a raw statistic of the rows, under no guarantee.

    References
    ----------
    Szekely, Rizzo and Bakirov 2007, Ann. Stat. 35(6); Szekely and Rizzo 2014, Ann. Stat. 42(6);
    Huo and Szekely 2016, Technometrics 58(4).

    Examples
    --------
    >>> dcov_sq([1, 2, 3, 4], [1, 4, 9, 16], estimator="v")
    4.0625
    >>> dcov_sq([0, 1, 0, 1], [5, 5, 5, 5])
    0.0
    """
    check.one_of(("u", "v"), estimator=estimator)
    check.one_of(METHODS, method=method)
    check.one_of(METRICS, metric=metric)
    power = check_exponent(exponent)
    size = None if tile is None else check.positive_int(tile=tile)
    given = read_inputs({"x": x, "y": y}, least=LEAST[estimator])
    return given.answer(pair(given, estimator, power, metric, method, size, dtype))


def dcor_sq(
    x: Any,
    y: Any,
    *,
    estimator: str = "u",
    exponent: float = 1.0,
    metric: str = "euclidean",
    method: str = "auto",
    tile: int | None = None,
    dtype: Any = None,
) -> Any:
    r"""Return the squared distance correlation of two variables.

    :math:`dCov^2(x, y) / \sqrt{dCov^2(x, x)\, dCov^2(y, y)}`, and 0 where a variable is constant.
    The unbiased form is 0 too where one row differs from all the others, which are equal: all of
    its centred distances are 0.

    Parameters
    ----------
    x, y : array-like or tensor of numbers, shape (n,) or (n, p)
    estimator : {"u", "v"}, default="u"
        ``"u"`` can be negative. A ratio of unbiased parts is not unbiased itself.
    exponent : float in (0, 2], default=1.0
    metric : {"euclidean", "discrete"}, default="euclidean"
    method : {"auto", "cells", "sorted", "tiled", "naive"}, default="auto"
    tile : int or None, default=None
    dtype : torch dtype or None, default=None
        See :func:`dcov_sq` for all of these.

    Returns
    -------
    float, or 0-d tensor
        At most 1; at least 0 for ``"v"``.

    Notes
    -----
    Unlike :func:`dcov_sq` it does not fall when predictions shrink. Privacy: raw.

    References
    ----------
    Szekely, Rizzo and Bakirov 2007, Ann. Stat. 35(6); Szekely and Rizzo 2014, Ann. Stat. 42(6).

    Examples
    --------
    >>> round(dcor_sq([1, 2, 3, 4], [2, 4, 6, 8], estimator="v"), 12)
    1.0
    """
    check.one_of(("u", "v"), estimator=estimator)
    check.one_of(METHODS, method=method)
    check.one_of(METRICS, metric=metric)
    power = check_exponent(exponent)
    size = None if tile is None else check.positive_int(tile=tile)
    given = read_inputs({"x": x, "y": y}, least=LEAST[estimator])
    if any(constant(r) for r in given.rows):
        return given.answer(given.zero())
    own = [
        self_pair(given.rows[0], estimator, power, "euclidean", method, size, dtype),
        self_pair(given.rows[1], estimator, power, metric, method, size, dtype),
    ]
    x_rows, y_rows = given.rows
    if vanishes(own[0], x_rows, power) or vanishes(own[1], y_rows, power, metric):
        return given.answer(given.zero())
    both = pair(given, estimator, power, metric, method, size, dtype)
    return given.answer(both.double() / torch.sqrt(own[0] * own[1]))


def ccdcov_sq(
    pred: Any,
    *attrs: Any,
    encoder: AttributeEncoder | None = None,
    estimator: str = "u",
    exponent: float = 1.0,
    group_weighting: float = 1.0,
    method: str = "auto",
    tile: int | None = None,
    dtype: Any = None,
) -> Any:
    r"""Return dCov^2 of a prediction with all attributes side by side (CCdCov).

    The attributes are one vector under the Euclidean norm, so that dependence on a combination
    of them is seen even where each alone shows none. 0 in the population if and only if the
    prediction is independent of all attributes jointly.

    Parameters
    ----------
    pred : array-like or tensor, shape (n,) or (n, p)
    *attrs : array-like, each of shape (n,) or (n, q); or one data frame or mapping
        Numbers are taken as they are unless there is an encoder.
    encoder : AttributeEncoder or None, default=None
        Fitted, or a copy is fitted to ``attrs``. Needed for text.
    estimator : {"u", "v"}, default="u"
    exponent : float in (0, 2], default=1.0
    group_weighting : float in [0, 1], default=1.0
        tau of :func:`cells_dcov_sq`; below 1 the attributes must have finitely many cells.
    method : {"auto", "cells", "sorted", "tiled", "naive"}, default="auto"
    tile : int or None, default=None
    dtype : torch dtype or None, default=None

    Returns
    -------
    float, or 0-d tensor

    Notes
    -----
    An additive distance over attributes (L1, Gower) would give the sum of the attributes' own
    dCov^2 and be blind to combinations. Privacy: raw.

    References
    ----------
    Lee, Antonio, Avanzi, Marchi and Zhou 2025, arXiv 2509.08163.

    Examples
    --------
    The prediction is the exclusive or of two attributes, and independent of each:

    >>> a, b = [0, 0, 1, 1], [0, 1, 0, 1]
    >>> pred = [0, 1, 1, 0]
    >>> dcov_sq(pred, a, estimator="v"), dcov_sq(pred, b, estimator="v")
    (0.0, 0.0)
    >>> round(ccdcov_sq(pred, a, b, estimator="v"), 10)
    0.0732233047
    """
    check.one_of(("u", "v"), estimator=estimator)
    check.one_of(METHODS, method=method)
    tau = check.probability(group_weighting=group_weighting)
    power = check_exponent(exponent)
    size = None if tile is None else check.positive_int(tile=tile)
    given = read_inputs({"pred": pred, **attribute_rows(attrs, encoder)}, least=LEAST[estimator])
    joined = torch.cat([r.to(torch.float64) for r in given.rows[1:]], dim=1)
    two = Inputs([given.rows[0], joined], given.as_tensor)
    if tau == 1:
        return given.answer(pair(two, estimator, power, "euclidean", method, size, dtype))
    if method not in ("auto", "cells") or power != 1:
        raise InvalidParameterError("group_weighting below 1 needs method='cells' and exponent 1.")
    found = _cells_of(two, power, "euclidean")
    return given.answer(
        cells_dcov_sq(
            two.rows[0][:, 0], found[0], found[1], estimator=estimator, group_weighting=tau
        )
    )


# --- the choice of an algorithm -------------------------------------------------------------


def pair(
    given: Inputs,
    estimator: str,
    exponent: float,
    metric: str,
    method: str,
    tile: int | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """Return dCov^2 of checked variables."""
    x, y = given.rows
    if metric == "discrete" and y.requires_grad:
        raise InvalidParameterError("metric='discrete' has no gradient with respect to y.")
    if constant(x) or constant(y):
        return given.zero()
    if method in ("auto", "cells") and metric == "euclidean" and x.shape[1] > y.shape[1] == 1:
        x, y = y, x  # the scalar is the one that is sorted
    if method == "auto":
        method, found = choose(x, y, exponent, metric)
    else:
        found = None
        if method == "cells":
            found = _cells_of(Inputs([x, y], True), exponent, metric)
        elif method == "sorted" and not sortable(x, y, exponent, metric):
            raise InvalidParameterError(
                "method='sorted' needs two scalars, exponent 1 and the Euclidean metric."
            )
    if method == "cells" and found is not None:
        return torch.as_tensor(
            cells_dcov_sq(x[:, 0], found[0], found[1], estimator=estimator)
        ).double()
    if method == "sorted":
        return sorted_dcov_sq(x[:, 0], y[:, 0], estimator).double()
    if method == "naive":
        return naive_dcov_sq(x, y, estimator, exponent=exponent, metric=metric)
    return tiled_dcov_sq(
        x, y, estimator, exponent=exponent, metric=metric, tile=tile, dtype=dtype
    ).double()


def sortable(x: Tensor, y: Tensor, exponent: float, metric: str) -> bool:
    """Whether both are scalars with plain distances."""
    return x.shape[1] == y.shape[1] == 1 and exponent == 1 and metric == "euclidean"


def choose(
    x: Tensor, y: Tensor, exponent: float, metric: str
) -> tuple[str, tuple[Tensor, Any] | None]:
    """Return the fastest exact method, and the cells if it needs them."""
    scalars = sortable(x, y, exponent, metric)
    if x.shape[1] == 1 and exponent == 1 and not y.requires_grad:
        found = distinct_rows(y, 64 if scalars else MAX_CELLS)
        if found is not None and (len(found[1]) <= 16 or 4 * len(found[1]) <= len(y)):
            return "cells", (found[0], cell_table(found[1], exponent, metric))
    return ("sorted" if scalars else "tiled"), None


def cell_table(cells: Tensor, exponent: float, metric: str) -> Any:
    """Return the kernel of distinct rows."""
    if metric == "discrete":
        return np.eye(len(cells))
    return -(pair_distances(cells.detach().double().cpu().numpy()) ** exponent)


def _cells_of(given: Inputs, exponent: float, metric: str) -> tuple[Tensor, Any]:
    x, y = given.rows
    if x.shape[1] != 1 or exponent != 1:
        raise InvalidParameterError(
            "method='cells' (and group_weighting below 1) needs a scalar prediction, exponent 1."
        )
    if y.requires_grad:
        raise InvalidTypeError("method='cells' gives no gradient with respect to attributes.")
    found = distinct_rows(y)
    if found is None:
        raise InvalidParameterError(
            f"method='cells' takes at most {MAX_CELLS} distinct rows of attributes. Bin the "
            "continuous ones, or use method='auto'."
        )
    return found[0], cell_table(found[1], exponent, metric)


def constant(rows: Tensor) -> bool:
    """Whether all rows are equal."""
    return bool((rows == rows[:1]).all())


def vanishes(own: Tensor, rows: Tensor, exponent: float = 1.0, metric: str = "euclidean") -> bool:
    """Whether a squared distance variance is 0 but for rounding, which a ratio would blow up.

    What cancels in it is of the size of the mean squared distance, twice the variance.
    """
    n = len(rows)
    size = 2.0 / n  # of two kinds of rows at least one differs
    if metric == "euclidean":
        size = (2.0 * float(rows.detach().double().var(dim=0, correction=0).sum())) ** exponent
    single = rows.dtype != torch.float64 and rows.shape[1] > 1  # distances in the rows' own type
    unit = 64 * torch.finfo(torch.float32).eps if single else (64 + n) * 2.0**-52
    return float(own.detach()) <= unit * size


def self_pair(
    x: Tensor,
    estimator: str,
    exponent: float,
    metric: str,
    method: str,
    tile: int | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """Return the squared distance variance of checked rows."""
    if method == "naive":
        return naive_dcov_sq(x, x, estimator, exponent=exponent, metric=metric)
    if method in ("auto", "sorted") and sortable(x, x, exponent, metric):
        return sorted_dcov_sq(x[:, 0], x[:, 0], estimator).double()
    found = None if x.requires_grad or method == "tiled" else distinct_rows(x)
    if found is None:
        return tiled_dcov_sq(
            x, x, estimator, exponent=exponent, metric=metric, tile=tile, dtype=dtype
        ).double()
    mass = torch.bincount(found[0]).double().cpu().numpy()
    table = cell_table(found[1], exponent, metric)
    gaps = -table if metric == "euclidean" else 1.0 - table
    rows = gaps @ mass
    total = mass @ rows
    value = three_sums(len(x), mass @ gaps**2 @ mass, mass @ rows**2, total, total, estimator)
    return torch.tensor(float(value), dtype=torch.float64, device=x.device)
