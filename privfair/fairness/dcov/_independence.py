"""Tests of independence between a prediction and protected attributes, jointly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2

from privfair.core import _validation as check
from privfair.core.estimate import NullReference
from privfair.core.exceptions import DataError
from privfair.core.randomness import check_random_state
from privfair.core.statistics import null_reference
from privfair.fairness.dcov._cells import levels
from privfair.fairness.dcov._columns import pair_distances
from privfair.fairness.dcov._encoder import AttributeEncoder
from privfair.fairness.dcov._functions import constant, dcor_sq, pair
from privfair.fairness.dcov._joint import tiled_joint_sq
from privfair.fairness.dcov._kernels import cell_kernel, quadratic_form
from privfair.fairness.dcov._rows import Inputs, attribute_rows, distinct_rows, read_inputs

__all__ = ["DCovTestResult", "independence_test"]


@dataclass(frozen=True)
class DCovTestResult:
    """The outcome of a test of independence.

    Attributes
    ----------
    statistic : float
        dCov^2 in its U form (permutation), or dCor^2 in its U form (chi2).
    pvalue : float
    n : int
        Rows.
    method : {"permutation", "chi2"}
    kind : {"ccdcov", "jdcov"}
    n_resamples : int
        Permutations drawn; 0 for chi2.
    null : NullReference or None
        Mean and 95th percentile of the statistic under permutation.
    """

    statistic: float
    pvalue: float
    n: int
    method: str
    kind: str
    n_resamples: int
    null: NullReference | None


def independence_test(
    pred: Any,
    S: Any,
    *,
    method: str = "permutation",
    kind: str = "ccdcov",
    c: float = 1.0,
    encoder: AttributeEncoder | None = None,
    n_resamples: int = 999,
    random_state: Any = None,
) -> DCovTestResult:
    r"""Test whether a prediction is independent of all attributes jointly.

    Parameters
    ----------
    pred : array-like or tensor, shape (n,) or (n, p)
    S : data frame, mapping or array-like, shape (n,) or (n, d)
    method : {"permutation", "chi2"}, default="permutation"
        ``"permutation"``: exact level for any data. ``"chi2"``: fast screening,
        :math:`P(\chi^2_1 > n\, dCor^2_U + 1)`, valid and conservative in large samples.
    kind : {"ccdcov", "jdcov"}, default="ccdcov"
        Attributes as one vector, or the targeted joint form (permutation only).
    c : float, default=1.0
        Of ``"jdcov"``.
    encoder : AttributeEncoder or None, default=None
        Fitted, or fitted here; ``AttributeEncoder()`` when None.
    n_resamples : int, default=999
    random_state : None, int or Generator
        Of the permutations.

    Returns
    -------
    DCovTestResult

    Raises
    ------
    DataError
        Fewer than 4 rows, missing values, unequal lengths.

    Notes
    -----
    Only the prediction is permuted and the rows of ``S`` stay together: permuting every variable
    would test *mutual* independence, and reject because the attributes depend on each other.
    p = (1 + #{T* >= T}) / (1 + n_resamples). With finitely many cells a permutation costs
    O(n G) after one sort; without, O(n log n) or O(n^2). Privacy: raw.

    References
    ----------
    Szekely, Rizzo and Bakirov 2007, Ann. Stat. 35(6); Phipson and Smyth 2010, arXiv 1603.05766;
    Shen, Panda and Vogelstein 2022, J. Comp. Graph. Stat. 31(1) (chi-square test).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> S = {"race": rng.choice(["a", "b"], 200), "sex": rng.choice(["f", "m"], 200)}
    >>> fair = independence_test(rng.normal(size=200), S, random_state=0)
    >>> unfair = independence_test(
    ...     rng.normal(size=200) + (S["race"] == "a") * (S["sex"] == "f"), S, random_state=0
    ... )
    >>> fair.pvalue > 0.05, unfair.pvalue
    (True, 0.001)
    """
    check.one_of(("permutation", "chi2"), method=method)
    check.one_of(("ccdcov", "jdcov"), kind=kind)
    level = check.positive(c=c)
    count = check.positive_int(n_resamples=n_resamples)
    rng = check_random_state(random_state)
    found = AttributeEncoder() if encoder is None else encoder
    named = attribute_rows([S], found)
    given = read_inputs({"pred": pred, **named}, least=4)
    rows = [r.detach() for r in given.rows]
    n = len(rows[0])
    if method == "chi2":
        if kind != "ccdcov":
            raise DataError("method='chi2' is for kind='ccdcov'; use method='permutation'.")
        value = float(dcor_sq(rows[0], torch.cat([r.double() for r in rows[1:]], dim=1)))
        tail = float(chi2.sf(max(n * value + 1, 0.0), 1))
        return DCovTestResult(value, tail, n, method, kind, 0, None)
    statistic = _statistic(rows, kind, level)
    value = statistic(np.arange(n))
    null = np.array([statistic(rng.permutation(n)) for _ in range(count)])
    reference = null_reference(value, null)
    tail = 1.0 if reference is None else reference.p_value
    return DCovTestResult(value, tail, n, method, kind, count, reference)


def _statistic(
    rows: list[torch.Tensor], kind: str, c: float
) -> Callable[[NDArray[np.int64]], float]:
    """Return the statistic of the data with the predictions of these rows."""
    pred, attrs = rows[0], [r.double().to(rows[0].device) for r in rows[1:]]
    joined = torch.cat(attrs, dim=1)
    if constant(pred) or constant(joined):
        return lambda order: 0.0
    found = distinct_rows(joined) if pred.shape[1] == 1 else None
    if found is not None and (len(found[1]) <= 16 or 4 * len(found[1]) <= len(pred)):
        codes, cells = found
        parts = torch.split(cells.cpu(), [a.shape[1] for a in attrs], dim=1)
        gaps = [pair_distances(p.numpy()) for p in parts]
        mass = torch.bincount(codes).double().cpu().numpy()
        kernel = cell_kernel(kind, gaps, counts=mass, c=c, estimator="u")
        form, line = quadratic_form(kernel, mass, "u", 1.0)
        values, order_of_values = torch.sort(pred[:, 0].double())
        step = torch.diff(values)
        codes = codes[order_of_values]

        def by_cells(order: NDArray[np.int64]) -> float:
            # which record sits at which place of the sorted predictions
            mixed = codes[torch.as_tensor(order, device=codes.device)]
            return float(step @ levels(mixed, None, form, line)[:-1])

        return by_cells

    def by_rows(order: NDArray[np.int64]) -> float:
        moved = pred[torch.as_tensor(order, device=pred.device)]
        if kind == "jdcov":
            offsets = [0.0, *[c] * len(attrs)]
            return float(tiled_joint_sq([moved, *attrs], offsets, "u"))
        two = Inputs([moved, joined], True)
        return float(pair(two, "u", 1.0, "euclidean", "auto", None, None))

    return by_rows
