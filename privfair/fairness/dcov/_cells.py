"""Distance covariance of a scalar with finitely many cells, from one sort.

Every estimator is the integral over thresholds x of a quadratic function of C(x), the counts by
cell of predictions up to x (:func:`privfair.fairness.dcov._kernels.quadratic_form`). Between two
neighbouring predictions the function is constant, so that the value is a sum over gaps, and the
gradient with respect to a prediction is the drop of the function at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, LengthMismatchError
from privfair.fairness.dcov._kernels import quadratic_form

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cells_dcov_sq"]

_CHUNK = 1 << 20
"""Numbers held at once by a chunk of rows."""


def cells_dcov_sq(
    pred: Any,
    cell_codes: Any,
    kernel: Any,
    *,
    estimator: str = "u",
    group_weighting: float = 1.0,
    sample_weight: Any = None,
    shares: Any = None,
) -> Any:
    r"""Return the squared distance covariance of a scalar prediction with cells.

    Parameters
    ----------
    pred : array-like or tensor, shape (n,)
        Finite predictions.
    cell_codes : array-like or tensor of int, shape (n,)
        The cell of each row.
    kernel : array-like, shape (n_cells, n_cells)
        Symmetric, from :func:`cell_kernel`.
    estimator : {"u", "v"}, default="u"
        Unbiased, may be negative; or the plug-in, which is never negative.
    group_weighting : float in [0, 1], default=1.0
        tau: cells count as if their shares were proportional to share ** tau. 1 is distance
        covariance, in which a cell has the weight of its squared share; at 0 all cells are equal.
    sample_weight : array-like or tensor, shape (n,), or None
        Non-negative weights, with ``estimator="v"`` only.
    shares : array-like, shape (n_cells,), or None
        Shares that the cells count with, known from elsewhere, as where these rows were drawn
        cell by cell; cells without a row are left out. ``group_weighting`` is not used then, and
        the unbiased form is so given the sizes of the cells.

    Returns
    -------
    float, or 0-d tensor on the device and with the dtype of ``pred``
        A tensor carries the exact gradient with respect to ``pred``; at ties the derivative of
        :math:`|f_i - f_j|` is taken as 0. First order only.

    Raises
    ------
    DataError, InvalidParameterError
        Fewer than 2 rows (V) or 4 (U), unequal lengths, codes without a row of the kernel.

    Notes
    -----
    For V :math:`2 \int V(x)' K V(x)\,dx` with :math:`V_g = \omega_g (F_g - F_\omega)`. Time
    O(n log n + n G) after one eigendecomposition of the G x G form, O(n G^2) where predictions
    tie or n < 4 G; memory O(n), chunks apart. Computed in float64 whatever the input. Cells that
    do not occur cost nothing.

    Privacy: a raw statistic of the rows, under no guarantee.

    References
    ----------
    Szekely, Rizzo and Bakirov 2007, Ann. Stat. 35(6); Szekely and Rizzo 2014, Ann. Stat. 42(6).

    Examples
    --------
    >>> import numpy as np
    >>> cells_dcov_sq([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], np.eye(2), estimator="v")
    0.25
    """
    check.one_of(("u", "v"), estimator=estimator)
    check.probability(group_weighting=group_weighting)
    if sample_weight is not None and estimator != "v":
        raise InvalidParameterError(
            "sample_weight needs estimator='v': there is no unbiased form for weighted rows."
        )
    scores, is_tensor = as_scores(pred)
    codes = _codes(cell_codes, scores)
    matrix = _numpy(kernel)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"kernel must have shape (n_cells, n_cells), got {matrix.shape}.")
    weight = _weights(sample_weight, scores)
    n = len(scores)
    least = 4 if estimator == "u" and group_weighting == 1 and shares is None else 2
    if n < least:
        raise DataError(f"estimator={estimator!r} needs at least {least} rows, got {n}.")
    mass = torch.bincount(codes, weights=weight, minlength=len(matrix))
    if len(mass) > len(matrix):
        raise DataError(f"cell codes must be below {len(matrix)}, the number of cells.")
    total = mass.cpu().numpy().astype(float)
    some = np.flatnonzero(total > 0)
    if len(some) < len(matrix):
        new = np.zeros(len(matrix), dtype=np.int64)
        new[some] = np.arange(len(some))
        codes = torch.as_tensor(new, device=codes.device)[codes]
        matrix, total = matrix[np.ix_(some, some)], total[some]
    known = None if shares is None else _shares(shares, len(mass), some)
    form, line = quadratic_form(matrix, total, estimator, group_weighting, known)
    out = _CellsForm.apply(scores, codes, weight, form, line)
    return out if is_tensor else float(out)


def as_scores(pred: Any) -> tuple[Tensor, bool]:
    """Return one-dimensional floating scores, and whether a tensor was given."""
    given = isinstance(pred, torch.Tensor)
    scores = pred if given else torch.as_tensor(np.require(pred, requirements=["C", "W"]))
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim != 1:
        raise DataError(f"pred must be one score per row here, got shape {tuple(scores.shape)}.")
    if not scores.is_floating_point():
        if scores.is_complex():
            raise DataError("pred must be real numbers.")
        scores = scores.to(torch.float64)
    if not bool(torch.isfinite(scores.detach()).all()):
        raise DataError("pred must be finite in every row, got NaN or inf.")
    return scores, given


def _codes(codes: Any, scores: Tensor) -> Tensor:
    out = codes
    if not isinstance(codes, torch.Tensor):
        out = torch.as_tensor(np.require(codes, requirements=["C", "W"]))
    if out.ndim != 1 or out.is_floating_point() or out.dtype == torch.bool:
        raise DataError("cell_codes must be whole numbers, one per row.")
    if len(out) != len(scores):
        raise LengthMismatchError(f"pred has {len(scores)} rows and cell_codes {len(out)}.")
    if len(out) and int(out.min()) < 0:
        raise DataError("cell_codes must not be negative.")
    return out.to(device=scores.device, dtype=torch.int64)


def _weights(weight: Any, scores: Tensor) -> Tensor | None:
    if weight is None:
        return None
    if not isinstance(weight, torch.Tensor):
        weight = np.require(weight, dtype=float, requirements=["C", "W"])
    out = torch.as_tensor(weight).detach().to(device=scores.device, dtype=torch.float64)
    if out.shape != scores.shape:
        raise LengthMismatchError(f"sample_weight must have {len(scores)} rows.")
    if not bool(torch.isfinite(out).all()) or bool((out < 0).any()) or not bool((out > 0).any()):
        raise DataError("sample_weight must be finite, non-negative and not zero everywhere.")
    return out


def _shares(shares: Any, n_cells: int, some: Any) -> Any:
    """Return the shares of the cells that occur, which add up to 1."""
    given = _numpy(shares)
    if given.shape != (n_cells,):
        raise LengthMismatchError(f"shares must have {n_cells} entries, one for each cell.")
    if not np.isfinite(given).all() or (given < 0).any() or not given[some].sum() > 0:
        raise DataError("shares must be finite, non-negative and not zero for all cells.")
    return given[some] / given[some].sum()


def _numpy(matrix: Any) -> Any:
    if isinstance(matrix, torch.Tensor):
        matrix = matrix.detach().cpu().numpy()
    return np.asarray(matrix, dtype=float)


class _CellsForm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, codes: Tensor, weight: Tensor | None, form: Any, line: Any
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        wanted = ctx.needs_input_grad[0]
        value, gradient = integrate(scores.detach(), codes, weight, form, line, gradient=wanted)
        if wanted:
            ctx.save_for_backward(gradient)
        return value.to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor | None) -> Any:
        if above is None:
            return None, None, None, None, None
        (gradient,) = ctx.saved_tensors
        return gradient * above, None, None, None, None


def integrate(
    scores: Tensor, codes: Tensor, weight: Tensor | None, form: Any, line: Any, *, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return the integral of C'PC + b'C over thresholds, and its gradient in the scores."""
    n, n_cells = len(scores), len(form)
    order = _order(scores)
    ordered = scores[order].double()
    cell = codes[order]
    mass = None if weight is None else weight[order]
    gaps = torch.diff(ordered)
    if n < 4 * n_cells or not gaps.all():
        value, drop = _with_ties(ordered, cell, mass, form, line)
    else:
        steps = levels(cell, mass, form, line)
        value = gaps @ steps[:-1]
        drop = torch.diff(steps, prepend=steps.new_zeros(1)).neg_() if gradient else steps
    if not gradient:
        return value, drop
    out = torch.empty_like(scores)
    out[order] = drop.to(scores.dtype)
    return value, out


def _order(scores: Tensor) -> Tensor:
    """Return what sorts the scores; numpy's sort is several times faster than torch's here."""
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.argsort(scores.numpy()))
    return torch.argsort(scores)


def levels(cell: Tensor, mass: Tensor | None, form: Any, line: Any) -> Tensor:
    """Return the quadratic function after each record in order, by its eigenvectors."""
    values, vectors = np.linalg.eigh(form)
    size = np.abs(values)
    keep = size > len(values) * np.finfo(float).eps * size.max(initial=0.0)
    sign = np.sign(values[keep])
    root = np.sqrt(size[keep])[:, None] * vectors[:, keep].T
    if cell.device.type != "cpu":
        return _levels_on_device(cell, mass, root, sign, line)
    own = None if mass is None else mass.numpy()
    return torch.from_numpy(_levels_on_cpu(cell.numpy(), own, root, sign, line))


def _levels_on_device(
    cell: Tensor, mass: Tensor | None, root: Any, sign: Any, line: Any
) -> Tensor:
    """Return :func:`levels` where the codes lie."""
    device = cell.device
    rows = torch.as_tensor(np.ascontiguousarray(root), device=device)
    signs = torch.as_tensor(sign, device=device)
    slope = torch.as_tensor(line, device=device)
    n, width = len(cell), max(len(root), 1)
    size = max(_CHUNK // width, 1024)
    out = torch.empty(n, dtype=torch.float64, device=device)
    count = torch.zeros(len(line), dtype=torch.float64, device=device)
    for start in range(0, n, size):
        part = cell[start : start + size]
        own = None if mass is None else mass[start : start + size]
        path = rows[:, part]
        drift = slope[part]
        if own is not None:
            path, drift = path * own, drift * own
        path[:, 0] += rows @ count  # from exact counts: rounding does not travel far
        drift[0] += slope @ count
        path = torch.cumsum(path, dim=1)
        out[start : start + size] = torch.mv(path.square_().T, signs)
        out[start : start + size] += torch.cumsum(drift, dim=0)
        count += torch.bincount(part, weights=own, minlength=len(count))
    return out


def _levels_on_cpu(cell: Any, mass: Any, root: Any, sign: Any, line: Any) -> Any:
    """Return :func:`levels` by numpy: the same sums, a fraction of the overhead in a batch."""
    n = len(cell)
    size = max(_CHUNK // max(len(root), 1), 1024)
    out = np.empty(n)
    count = np.zeros(len(line))
    flat = not line.any()
    for start in range(0, n, size):
        part = cell[start : start + size]
        own = None if mass is None else mass[start : start + size]
        path = np.take(root, part, axis=1)
        if own is not None:
            path *= own
        path[:, 0] += root @ count  # from exact counts: rounding does not travel far
        path = torch.cumsum(torch.from_numpy(path), dim=1).numpy()  # faster than numpy's
        np.multiply(path, path, out=path)
        level = sign @ path
        if not flat:
            drift = line[part] if own is None else line[part] * own
            drift[0] += line @ count
            level += torch.cumsum(torch.from_numpy(drift), dim=0).numpy()
        out[start : start + size] = level
        if start + size < n:
            count += np.bincount(part, weights=own, minlength=len(count))
    return out


def _with_ties(
    ordered: Tensor, cell: Tensor, mass: Tensor | None, form: Any, line: Any
) -> tuple[Tensor, Tensor]:
    """Return the integral and its gradient, equal scores sharing one threshold."""
    device = ordered.device
    matrix = torch.as_tensor(form, device=device)
    slope = torch.as_tensor(line, device=device)
    points, spot, many = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    ends = torch.cumsum(many, dim=0)
    size = max(_CHUNK // max(len(matrix), 1), 256)
    width = torch.diff(points, append=points[-1:])
    count = torch.zeros(len(matrix), dtype=torch.float64, device=device)
    before = slope.clone()  # the derivative of the quadratic function left of the first score
    value = torch.zeros((), dtype=torch.float64, device=device)
    drop = torch.empty_like(ordered)
    first = 0
    for start in range(0, len(points), size):
        stop = min(start + size, len(points))
        last = int(ends[stop - 1])
        part, here = cell[first:last], spot[first:last] - start
        own = torch.ones_like(ordered[first:last]) if mass is None else mass[first:last]
        table = torch.zeros((stop - start, len(matrix)), dtype=torch.float64, device=device)
        table.index_put_((here, part), own, accumulate=True)
        table[0] += count
        table = torch.cumsum(table, dim=0)
        slopes = 2 * table @ matrix + slope
        value = value + width[start:stop] @ ((slopes + slope) * table).sum(dim=1) / 2
        shifted = torch.cat([before[None], slopes[:-1]])
        drop[first:last] = -own * ((slopes + shifted) / 2)[here, part]
        count, before, first = table[-1], slopes[-1], last
    return value, drop
