"""Testers of mechanisms: a lower bound on epsilon from many independent draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.auditing._one_run import certified_epsilon
from privfair.core import _validation as check
from privfair.core.attack import AttackResult, verdict_of
from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.statistics import clopper_pearson_interval

__all__ = [
    "assert_dp_lower_bound",
    "audit_mechanism",
    "dp_lower_bound",
    "multi_run_epsilon_lower_bound",
]

_CUTS = 2000
_CELLS = 400
_EVENTS = 6  # two thresholds and one union of cells, in either order of the inputs
Floats = NDArray[np.float64]


def _one_sided(k: int, n: int, level: float, side: str) -> float:
    interval = clopper_pearson_interval(k, n, confidence=1 - level, alternative=side)
    return float(interval.low if side == "lower" else interval.high)


def _bound(k: int, n: int, j: int, n_other: int, delta: float, level: float) -> float:
    """Return ln((low - delta) / high) for an event seen k of n and j of n_other times."""
    low = _one_sided(k, n, level, "lower")
    high = _one_sided(j, n_other, level, "upper")
    return 0.0 if low <= delta else max(0.0, math.log((low - delta) / high))


def multi_run_epsilon_lower_bound(
    tp: int, n_in: int, fp: int, n_out: int, delta: float = 0.0, beta: float = 0.05
) -> float:
    r"""Return a lower bound on epsilon from one attack on many independent training runs.

    .. math:: \epsilon \ge \ln \frac{\underline{TPR} - \delta}{\overline{FPR}}
       \quad\text{and}\quad
       \epsilon \ge \ln \frac{\underline{TNR} - \delta}{\overline{FNR}},

    with exact one-sided bounds at level :math:`\beta / 4` each.

    Parameters
    ----------
    tp, n_in : int
        Runs with the record in which the attack said so, and all runs with it.
    fp, n_out : int
        Runs without the record in which the attack said that it was in, and all runs without it.
    delta : float, default=0.0
        In [0, 1).
    beta : float, default=0.05
        In (0, 1): probability with which the bound may be wrong.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    InvalidParameterError
        Counts out of range.

    Notes
    -----
    Every run counts once, and the attack's threshold was fixed before these runs. Many records
    of *one* run are not independent: their rates give no such bound; see :func:`one_run_audit`.
    O(1).

    References
    ----------
    Jagielski, Ullman, Oprea 2020, arXiv 2006.07709. Clopper and Pearson 1934.

    Examples
    --------
    >>> round(multi_run_epsilon_lower_bound(500, 1000, 10, 1000), 3)
    3.163
    """
    counts = {"tp": tp, "n_in": n_in, "fp": fp, "n_out": n_out}
    tp, n_in, fp, n_out = (check.non_negative_int(**{k: v}) for k, v in counts.items())
    if min(n_in, n_out) < 1 or tp > n_in or fp > n_out:
        raise InvalidParameterError(
            f"counts must satisfy 0 <= tp <= n_in and 0 <= fp <= n_out with n_in and n_out above "
            f"0; got tp={tp}, n_in={n_in}, fp={fp}, n_out={n_out}."
        )
    delta = check.delta(delta=delta, allow_zero=True)
    level = check.confidence(beta=beta) / 4
    return max(
        _bound(tp, n_in, fp, n_out, delta, level),
        _bound(n_out - fp, n_out, n_in - tp, n_in, delta, level),
    )


# -- choosing an event on the first half ------------------------------------------------------
def _score(tail_p: Floats, tail_q: Floats, n: int, epsilon: float, delta: float) -> Floats:
    """Return by how many standard errors each event exceeds the claim."""
    e = math.exp(min(epsilon, 50.0))
    noise = np.sqrt(tail_p * (1 - tail_p) / n + e * e * tail_q * (1 - tail_q) / n + 1 / n**2)
    out: Floats = (tail_p - e * tail_q - delta) / noise
    return out


def _threshold(p: Floats, q: Floats, epsilon: float, delta: float) -> Callable[[Floats], Any]:
    cuts = np.unique(np.concatenate([p, q]))
    if len(cuts) > _CUTS:
        cuts = np.unique(np.quantile(cuts, np.linspace(0, 1, _CUTS), method="nearest"))
    tail_p = 1 - np.searchsorted(np.sort(p), cuts, side="left") / len(p)
    tail_q = 1 - np.searchsorted(np.sort(q), cuts, side="left") / len(q)
    cut = cuts[int(np.argmax(_score(tail_p, tail_q, min(len(p), len(q)), epsilon, delta)))]
    return lambda x: x >= cut


def _union(p: Floats, q: Floats, epsilon: float, delta: float) -> Callable[[Floats], Any]:
    """Return the union of cells that are likelier under p, most telling cells first."""
    cuts = np.unique(np.concatenate([p, q]))
    if len(cuts) > _CELLS:
        cuts = np.unique(np.quantile(cuts, np.linspace(0, 1, _CELLS), method="nearest"))
    count_p = np.bincount(np.searchsorted(cuts, p, side="right"), minlength=len(cuts) + 1)
    count_q = np.bincount(np.searchsorted(cuts, q, side="right"), minlength=len(cuts) + 1)
    order = np.argsort(-(count_p + 0.5) / (count_q + 0.5), kind="stable")
    tail_p, tail_q = np.cumsum(count_p[order]) / len(p), np.cumsum(count_q[order]) / len(q)
    best = int(np.argmax(_score(tail_p, tail_q, min(len(p), len(q)), epsilon, delta)))
    chosen = np.zeros(len(cuts) + 1, dtype=bool)
    chosen[order[: best + 1]] = True
    return lambda x: chosen[np.searchsorted(cuts, x, side="right")]


def _events(
    a: Floats, b: Floats, epsilon: float, delta: float
) -> Iterator[tuple[int, int, int, int]]:
    """Yield counts (k, n, j, n_other) on the second halves of events chosen on the first."""
    for p, q in ((a, b), (b, a)):
        n, m = len(p) // 2, len(q) // 2
        for sign in (1.0, -1.0):
            inside = _threshold(sign * p[:n], sign * q[:m], epsilon, delta)
            hit, other = inside(sign * p[n:]), inside(sign * q[m:])
            yield int(hit.sum()), len(hit), int(other.sum()), len(other)
        inside = _union(p[:n], q[:m], epsilon, delta)
        hit, other = inside(p[n:]), inside(q[m:])
        yield int(hit.sum()), len(hit), int(other.sum()), len(other)


def _draws(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    a = np.asarray(first, dtype=float).ravel()
    b = np.asarray(second, dtype=float).ravel()
    if len(a) < 100 or len(b) < 100:
        raise InvalidParameterError(
            f"dp_lower_bound needs at least 100 draws of each, got {len(a)} and {len(b)}."
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise InvalidParameterError(
            "the draws must not hold NaN. A mechanism that can return NaN needs a number for it: "
            "map it to one that it never returns otherwise."
        )
    return a, b


def dp_lower_bound(
    first: ArrayLike,
    second: ArrayLike,
    *,
    epsilon: float,
    delta: float = 0.0,
    confidence: float = 1 - 1e-6,
) -> float:
    """Return a lower bound on epsilon from independent draws on two neighbouring inputs.

    Parameters
    ----------
    first, second : array-like of float, shape (n,)
        One real statistic of each independent run on either input, at least 100 of each.
    epsilon, delta : float
        The guarantee claimed; it only steers which event is looked at.
    confidence : float, default=1 - 1e-6
        Probability with which the bound is valid.

    Returns
    -------
    float
        If it is above ``epsilon``, the claim is false, at this confidence.

    Raises
    ------
    InvalidParameterError
        Fewer than 100 draws, or NaN among them.

    Notes
    -----
    *Algorithm.* Six events are chosen on the first half of the draws: for either order of the
    inputs a lower and an upper threshold, and a union of cells (values of a discrete output, or
    400 cells of equal mass) by decreasing likelihood ratio. Clopper-Pearson bounds on the second
    half, at a level divided by twelve (two bounds for each of six events). O(n log n).

    References
    ----------
    Clopper and Pearson, 1934. Jagielski, Ullman and Oprea, 2020, arXiv 2006.07709. Ding, Wang,
    Wang, Zhang, Kifer, 2018, arXiv 1805.10559.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.laplace(0, 1, 40_000), rng.laplace(1, 1, 40_000)
    >>> 0.5 < dp_lower_bound(a, b, epsilon=1.0) <= 1.0
    True
    """
    a, b = _draws(first, second)
    epsilon = check.epsilon(epsilon=epsilon, allow_zero=True)
    delta = check.delta(delta=delta, allow_zero=True)
    level = (1 - check.confidence(confidence=confidence)) / (2 * _EVENTS)
    return max(_bound(*counts, delta, level) for counts in _events(a, b, epsilon, delta))


def audit_mechanism(
    first: ArrayLike,
    second: ArrayLike,
    *,
    certified: PrivacyGuarantee,
    delta: float | None = None,
    confidence: float = 1 - 1e-6,
    target: str = "",
) -> AttackResult:
    """Attack a mechanism's certificate with independent draws on two neighbouring inputs.

    Parameters
    ----------
    first, second : array-like of float, shape (n,)
        One real statistic of each independent run on either input, at least 100 of each. The
        inputs must be neighbours under the relation of ``certified``.
    certified : PrivacyGuarantee
        Finite, of one run.
    delta : float or None
        Where the claim is attacked; None takes the delta of ``certified``.
    confidence : float, default=1 - 1e-6
        Of the lower bound.
    target : str
        Name of the mechanism.

    Returns
    -------
    AttackResult
        "no violation found" is no verification: other inputs, statistics or events may show one.

    Raises
    ------
    InvalidParameterError
        Fewer than 100 draws, NaN among them, or a certificate without a finite epsilon.

    Notes
    -----
    As :func:`dp_lower_bound`. Privacy: made for inputs that are nobody's data.

    References
    ----------
    Jagielski, Ullman and Oprea, 2020, arXiv 2006.07709.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.accounting import guarantee
    >>> from privfair.accounting.events import Laplace
    >>> rng = np.random.default_rng(0)
    >>> claim = guarantee(Laplace(1.0), delta=0.0)
    >>> half = rng.laplace(0, 0.5, 40_000), rng.laplace(1, 0.5, 40_000)
    >>> audit_mechanism(*half, certified=claim).verdict
    'VIOLATION'
    """
    if not isinstance(certified, PrivacyGuarantee):
        raise InvalidTypeError(
            f"certified must be a PrivacyGuarantee, got {type(certified).__name__}; build one "
            "with privfair.accounting.guarantee(event, delta=...)."
        )
    delta = certified.delta if delta is None else check.delta(delta=delta, allow_zero=True)
    upper = certified_epsilon(certified, delta)
    if not math.isfinite(upper):
        raise InvalidParameterError("certified has no finite epsilon: there is nothing to attack.")
    a, b = _draws(first, second)
    lower = dp_lower_bound(a, b, epsilon=upper, delta=delta, confidence=confidence)
    estimate = Estimate(
        "audited_epsilon", lower, lower, math.inf, confidence=confidence, n=len(a) + len(b),
        method="Clopper-Pearson on events chosen on the other half", details={"delta": delta},
    )  # fmt: skip
    return AttackResult(
        attack="mechanism_audit",
        method=(
            f"{len(a)} and {len(b)} independent runs on two neighbouring inputs; events chosen on "
            "one half, exact binomial bounds on the other."
        ),
        estimates=(estimate,),
        lower_epsilon=lower,
        upper_epsilon=upper,
        delta=delta,
        confidence=confidence,
        verdict=verdict_of(lower, upper),
        counts={"first": len(a), "second": len(b)},
        power=(
            "One pair of inputs and one statistic were tried. Events that are rarer than about "
            f"{10 * 2 / min(len(a), len(b)):.1g} cannot be seen."
        ),
        target=target,
        details={"neighboring": certified.neighboring},
    )


def assert_dp_lower_bound(
    draw: Callable[[Any], float],
    first: Any,
    second: Any,
    *,
    epsilon: float,
    delta: float = 0.0,
    n: int = 20_000,
    confidence: float = 1 - 1e-6,
) -> float:
    """Assert that a mechanism's claim survives ``n`` independent runs on either input.

    Passing means that no violation was found, never that the claim is verified.

    Parameters
    ----------
    draw : callable
        Runs the mechanism on an input and returns one real number.
    first, second : object
        Two neighbouring inputs.
    epsilon, delta : float
        The claim.
    n : int, default=20000
        Runs on each input.
    confidence : float
        One minus the false-alarm rate.

    Returns
    -------
    float
        The lower bound found.

    Raises
    ------
    AssertionError
        If the lower bound is above ``epsilon``.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> def add_noise(value):
    ...     return value + rng.laplace()
    >>> bool(assert_dp_lower_bound(add_noise, 0.0, 1.0, epsilon=1.0, n=1000) <= 1.0)
    True
    """
    a = np.array([float(draw(first)) for _ in range(n)])
    b = np.array([float(draw(second)) for _ in range(n)])
    bound = dp_lower_bound(a, b, epsilon=epsilon, delta=delta, confidence=confidence)
    assert bound <= epsilon, (
        f"the mechanism claims epsilon = {epsilon:g} at delta = {delta:g}, and an event shows at "
        f"least {bound:.4g} (confidence {confidence})."
    )
    return bound
