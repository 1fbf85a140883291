"""Distance covariance of vectors from random directions, for very many rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from privfair.core import _validation as check
from privfair.core.randomness import check_random_state
from privfair.fairness.dcov._functions import LEAST, constant
from privfair.fairness.dcov._rows import read_inputs
from privfair.fairness.dcov._sorted import sorted_dcov_sq

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SlicedDCov", "sliced_dcov_sq"]


@dataclass(frozen=True)
class SlicedDCov:
    """A squared distance covariance averaged over random directions.

    Attributes
    ----------
    value : float or 0-d tensor
    standard_error : float
        Of the average over directions, given the rows; 0 for two scalars, NaN for one direction.
    n_projections : int
    """

    value: Any
    standard_error: float
    n_projections: int


def sliced_dcov_sq(
    x: Any,
    y: Any,
    *,
    n_projections: int = 50,
    estimator: str = "u",
    random_state: Any = 0,
) -> SlicedDCov:
    r"""Return dCov^2 of two vectors as an average over random one-dimensional projections.

    :math:`E |\langle u, z \rangle| = |z| / C_p` for u uniform on the unit sphere of
    :math:`R^p`, with :math:`C_p = \sqrt\pi\, \Gamma((p + 1) / 2) / \Gamma(p / 2)`. Hence
    :math:`C_p C_q` times the mean over directions of the scalar dCov^2 is unbiased for dCov^2 of
    the rows.

    Parameters
    ----------
    x, y : array-like or tensor of numbers, shape (n,) or (n, p)
    n_projections : int, default=50
        Pairs of directions; the error falls with its square root. Scalars need none.
    estimator : {"u", "v"}, default="u"
    random_state : None, int or Generator, default=0
        Of the directions. A penalty should keep them fixed over its steps.

    Returns
    -------
    SlicedDCov
        A tensor value carries gradients with respect to both variables.

    Notes
    -----
    Exponent 1 only. O(n_projections n log n) time, O(n) memory. Zero dependence along every
    direction is independence. Privacy: raw.

    References
    ----------
    Huang and Huo 2017, arXiv 1701.06054 (random projections of distance covariance).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> S = rng.normal(size=(500, 3))
    >>> found = sliced_dcov_sq(S[:, 0], S, n_projections=200)
    >>> from privfair.fairness.dcov import dcov_sq
    >>> abs(found.value - dcov_sq(S[:, 0], S)) < 4 * found.standard_error
    True
    """
    check.one_of(("u", "v"), estimator=estimator)
    count = check.positive_int(n_projections=n_projections)
    rng = check_random_state(random_state)
    given = read_inputs({"x": x, "y": y}, least=LEAST[estimator])
    a, b = given.rows
    if constant(a) or constant(b):
        return SlicedDCov(given.answer(given.zero()), 0.0, count)
    widths = (a.shape[1], b.shape[1])
    if widths == (1, 1):
        value = sorted_dcov_sq(a[:, 0], b[:, 0], estimator)
        return SlicedDCov(given.answer(value), 0.0, count)
    factor = _constant(widths[0]) * _constant(widths[1])
    found = [
        factor * sorted_dcov_sq(_project(a, rng), _project(b, rng), estimator).double()
        for _ in range(count)
    ]
    stacked = torch.stack(found)
    spread = float(stacked.detach().std()) if count > 1 else math.nan
    return SlicedDCov(given.answer(stacked.mean()), spread / math.sqrt(count), count)


def _constant(width: int) -> float:
    """Return C_p, the length of a vector over its mean projection; 1 for scalars."""
    return math.sqrt(math.pi) * math.exp(math.lgamma((width + 1) / 2) - math.lgamma(width / 2))


def _project(rows: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the rows along one random direction."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    direction = rng.standard_normal(rows.shape[1])
    direction /= np.linalg.norm(direction)
    double = rows.double()
    return (double - double.detach().mean(0)) @ torch.as_tensor(direction, device=rows.device)
