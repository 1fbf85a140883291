"""The mean of a numeric column from a histogram with public bins: bounds, not a point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.ldp._estimate import FrequencyEstimate

__all__ = ["binned_mean"]

Floats = NDArray[np.float64]


def binned_mean(
    estimate: FrequencyEstimate, edges: Sequence[float], *, name: str = "mean"
) -> Estimate:
    """Return the mean of a column that was collected as a histogram with public bins.

    Parameters
    ----------
    estimate : FrequencyEstimate
        Of the bins, in order, with ``simultaneous=True``.
    edges : sequence of float, length k + 1
        Ends of all bins, finite and increasing.
    name : str, default="mean"

    Returns
    -------
    Estimate
        The value takes every bin's middle and the frequencies nearest to the estimates that are
        a distribution. The interval has all means that are possible when every frequency is in
        its interval and every number anywhere in its bin. It is not estimable if no distribution
        is inside all intervals, which happens with at most ``1 - confidence`` chance.

    Raises
    ------
    InvalidParameterError, InvalidTypeError
        Intervals that do not hold together, or edges that are no bins.

    Notes
    -----
    The means of a mechanism for numbers are not offered: this interval needs no assumption about
    how values lie within a bin, and shrinks to the width of the bins, never below. O(k log k).
    Privacy: post-processing of reports, at no cost.

    References
    ----------
    Dantzig 1957, "Discrete-variable extremum problems" (the greedy solution of the linear
    programs over intervals and the simplex).

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.ldp import GRR, Aggregator, randomize
    >>> protocol = GRR(3, 4.0)
    >>> hours = np.repeat([0, 1, 2], [2000, 6000, 2000])
    >>> server = Aggregator(protocol).partial_fit(randomize(protocol, hours, noise_random_state=0))
    >>> found = binned_mean(server.estimate(simultaneous=True), [0, 20, 40, 60])
    >>> 28 < found.value < 32, found.low < 20.5, found.high > 39.5
    (True, True, True)
    """
    from privfair.ldp._postprocess import postprocess

    if not isinstance(estimate, FrequencyEstimate):
        raise InvalidTypeError(
            f"estimate must be a FrequencyEstimate, got {type(estimate).__name__}."
        )
    if not estimate.simultaneous:
        raise InvalidParameterError(
            "the interval of a mean needs intervals that hold together: "
            "estimate(simultaneous=True)."
        )
    ends = np.asarray(edges, dtype=float)
    size = len(estimate.values)
    if ends.shape != (size + 1,) or not np.isfinite(ends).all() or not (np.diff(ends) > 0).all():
        raise InvalidParameterError(
            f"edges must be {size + 1} finite, increasing numbers: the ends of all bins."
        )
    method = "all distributions inside simultaneous intervals, any place within a bin"
    low, high = np.clip(estimate.ci_low, 0.0, 1.0), np.clip(estimate.ci_high, 0.0, 1.0)
    likely = postprocess(estimate.frequencies_raw, "norm_sub")
    value = float(likely @ ((ends[:-1] + ends[1:]) / 2))
    if low.sum() > 1.0 or high.sum() < 1.0:
        value = least = most = math.nan
        status, reason = "not_estimable", "no distribution is inside all intervals of the bins"
    else:
        least, most = _extreme(ends[:-1], low, high), -_extreme(-ends[1:], low, high)
        value, status, reason = min(max(value, least), most), "ok", ""
    return Estimate(
        name, value, least, most, confidence=estimate.confidence, n=estimate.n, status=status,
        reason=reason, method=method,
    )  # fmt: skip


def _extreme(places: Floats, low: Floats, high: Floats) -> float:
    """Return the least sum of f times places over low <= f <= high that sum to one."""
    order = np.argsort(places, kind="stable")
    room = (high - low)[order]
    before = np.concatenate([[0.0], np.cumsum(room)[:-1]])
    given = np.clip(1.0 - low.sum() - before, 0.0, room)
    return float(places @ low + places[order] @ given)
