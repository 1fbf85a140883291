"""A lower bound on epsilon from one training run with many canaries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from privfair.core import _validation as check
from privfair.core.attack import (
    NO_BOUND,
    NO_CLAIM,
    NO_VIOLATION,
    VIOLATION,
    AttackResult,
    verdict_of,
)
from privfair.core.estimate import Estimate
from privfair.core.exceptions import (
    DataError,
    IncompatibleNeighboringError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
)
from privfair.core.privacy import NEIGHBORING, PrivacyGuarantee

__all__ = [
    "checked_counts",
    "checked_membership",
    "checked_scores",
    "guess",
    "one_run_audit",
    "one_run_epsilon_lower_bound",
    "one_run_p_value",
]

_TOLERANCE = 1e-9
_STEP = 1.0 / 64
_LARGEST = 100.0  # an epsilon beyond which nothing is worth telling apart


def one_run_p_value(m: int, r: int, v: int, delta: float, epsilon: float) -> float:
    r"""Return how likely a result this good is if the training is (epsilon, delta)-DP.

    With :math:`q = e^\epsilon / (1 + e^\epsilon)` and :math:`X \sim` Binomial(r, q), at least v
    of r guesses are right with probability at most

    .. math:: P[X \ge v] + 2 m \delta \max_{1 \le i \le v} P[v - i \le X < v] / i.

    Parameters
    ----------
    m : int
        Number of canaries, abstentions included, at least 1.
    r : int
        Number of guesses, in [1, m].
    v : int
        Number of correct guesses, in [0, r].
    delta : float
        In [0, 1), of the whole run.
    epsilon : float
        At least 0; the claim to be refuted.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InvalidParameterError
        A count out of its range.

    Notes
    -----
    O(v) binomial probabilities. Note the factor m, not r: canaries that were not guessed count.
    Proof: ``docs/proofs/one-run-audit.md``.

    References
    ----------
    Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", arXiv
    2305.08846, theorem 5.2.

    Examples
    --------
    >>> round(one_run_p_value(100, 100, 75, 0.0, 0.7022), 4)
    0.05
    """
    m, r, v, delta = checked_counts(m, r, v, delta)
    eps = check.epsilon(epsilon=epsilon, allow_zero=True, allow_inf=True)
    return _p_value(m, r, v, delta, eps)


def _p_value(m: int, r: int, v: int, delta: float, epsilon: float) -> float:
    if v == 0:
        return 1.0
    q = float(special.expit(epsilon))
    tail = float(special.bdtrc(v - 1, r, q))
    if delta == 0.0:
        return min(1.0, tail)
    # P[X = v - 1], P[X = v - 2], ...: their running sums are P[v - i <= X < v].
    k = np.arange(v - 1, -1, -1, dtype=float)
    log_choose = special.gammaln(r + 1) - special.gammaln(k + 1) - special.gammaln(r - k + 1)
    log_q, log_p = -np.logaddexp(0.0, -epsilon), -np.logaddexp(0.0, epsilon)
    mass = np.exp(log_choose + k * log_q + (r - k) * log_p)
    worst = float((np.cumsum(mass) / np.arange(1, v + 1)).max())
    return min(1.0, tail + 2.0 * m * delta * worst)


def one_run_epsilon_lower_bound(m: int, r: int, v: int, delta: float, beta: float = 0.05) -> float:
    """Return the epsilon that one audited run refutes, at confidence 1 - beta.

    Parameters
    ----------
    m : int
        Number of canaries, each included by a fair coin of its own; at least 1.
    r : int
        Number of guesses, in [1, m], fixed before looking at which canaries were included.
    v : int
        Number of correct guesses, in [0, r].
    delta : float
        In [0, 1): the delta of the certificate, for the whole run.
    beta : float, default=0.05
        In (0, 1): probability with which the bound may be wrong.

    Returns
    -------
    float
        Every (epsilon, delta)-DP training with epsilon below this number gives so many correct
        guesses with probability less than ``beta``; 0 where nothing can be said.

    Raises
    ------
    InvalidParameterError
        A count out of its range.

    Notes
    -----
    *Algorithm.* The first crossing of :func:`one_run_p_value` with ``beta`` going up from 0, by
    doubling and then bisection, rounded down. The p-value increases in epsilon if
    ``2 m delta <= 1`` (``docs/proofs/one-run-audit.md``); otherwise steps of 1/64 come first.
    O(v log(1 / tolerance)).

    *Power.* The bound is valid and loose: it never proves privacy, and implementations that add
    half of the noise often pass. See ``docs/auditing.md``.

    References
    ----------
    Steinke, Nasr, Jagielski 2023, arXiv 2305.08846.

    Examples
    --------
    >>> round(one_run_epsilon_lower_bound(100, 100, 75, 0.0), 4)
    0.7022
    >>> round(one_run_epsilon_lower_bound(1000, 100, 95, 1e-5), 4)
    2.1652
    """
    m, r, v, delta = checked_counts(m, r, v, delta)
    level = check.confidence(beta=beta)
    if _p_value(m, r, v, delta, 0.0) >= level:
        return 0.0
    low, high = 0.0, _STEP
    # The p-value increases if 2 m delta <= 1; otherwise small steps look for the first crossing.
    double = 2 * m * delta <= 1
    while _p_value(m, r, v, delta, high) < level:
        low, high = high, 2 * high if double else high + _STEP
        if high > _LARGEST:
            return _LARGEST
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        if _p_value(m, r, v, delta, middle) < level:
            low = middle
        else:
            high = middle
    return low


def checked_counts(m: int, r: int, v: int, delta: float) -> tuple[int, int, int, float]:
    m, r = check.positive_int(m=m), check.non_negative_int(r=r)
    v = check.non_negative_int(v=v)
    if r == 0:
        raise InvalidParameterError(
            "r must be at least 1, got 0: an audit without a single guess says nothing. Set "
            "k_plus or k_minus above 0."
        )
    if r > m:
        raise InvalidParameterError(f"r must be at most m = {m}, the number of canaries; got {r}.")
    if v > r:
        raise InvalidParameterError(f"v must be at most r = {r}, the number of guesses; got {v}.")
    return m, r, v, check.delta(delta=delta, allow_zero=True)


# -- from scores ------------------------------------------------------------------------------
def checked_scores(scores: ArrayLike, name: str = "scores") -> NDArray[np.float64]:
    """Return scores as finite-or-infinite floats; NaN is an error."""
    values = np.asarray(scores)
    if values.dtype.kind not in "fiu":
        raise InvalidTypeError(f"{name} must be real numbers, got dtype {values.dtype}.")
    values = values.astype(np.float64)
    if values.ndim != 1:
        raise DataError(f"{name} must have one dimension, got {values.ndim}.")
    if np.isnan(values).any():
        raise DataError(
            f"{name} hold NaN. A canary without a score cannot be ranked, and leaving it out "
            "after looking would void the bound. Let diverged runs score -inf for all records."
        )
    return values


def checked_membership(included: ArrayLike, n: int, name: str = "included") -> NDArray[np.bool_]:
    """Return membership as booleans; numbers are not taken for booleans."""
    values = np.asarray(included)
    if values.dtype != np.bool_:
        raise InvalidTypeError(
            f"{name} must be boolean, got dtype {values.dtype}. Membership coded as -1 and 1, or "
            f"as 0 and 1, is easily turned round: pass {name} == 1."
        )
    if values.shape != (n,):
        raise LengthMismatchError(
            f"{name} must have one entry per score: {n} scores, shape {values.shape}."
        )
    return values


def guess(
    scores: NDArray[np.float64], k_plus: int, k_minus: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions of the highest and of the lowest scores; ties by position.

    Ties are broken by position, which was fixed before inclusion was drawn.
    """
    order = np.argsort(-scores, kind="stable")
    return order[:k_plus], order[len(order) - k_minus :]


def one_run_audit(
    scores: ArrayLike,
    included: ArrayLike,
    *,
    k_plus: int,
    k_minus: int,
    delta: float | None = None,
    beta: float = 0.05,
    certified: PrivacyGuarantee | None = None,
    neighboring: str | None = None,
    test: str = "epsilon",
    target: str = "",
) -> AttackResult:
    """Turn the scores of canaries in one training run into a lower bound on epsilon.

    The canaries with the ``k_plus`` highest scores are guessed as included, those with the
    ``k_minus`` lowest as excluded, and on the others there is no guess.

    Parameters
    ----------
    scores : array-like of float, shape (m,)
        One score per canary, higher for canaries that look included. Computed from what was
        released only, by a rule that does not know ``included``.
    included : array-like of bool, shape (m,)
        Outcome of the coins: see :func:`privfair.auditing.draw_inclusion`.
    k_plus, k_minus : int
        Number of guesses of either kind, at least 0, together in [1, m]. Fix them before the
        run: the best of several choices is not a valid bound.
    delta : float or None
        In [0, 1); None takes the delta of ``certified``.
    beta : float, default=0.05
        In (0, 1): probability with which the lower bound may be wrong.
    certified : PrivacyGuarantee or None
        The certificate under attack.
    neighboring : {"zero_out", "add_remove", "replace_one"} or None
        What exclusion did: nothing in its place, the row absent, another record in its place.
        None stands for the relation of ``certified``, which it must equal.
    test : {"epsilon", "curve", "gdp"}, default="epsilon"
        What is put to the test; choose before the run. ``"epsilon"``: a lower bound on epsilon
        against the certified one. ``"curve"``: the certificate's whole trade-off curve, by a
        p-value and without a bound on epsilon; far more powerful
        (:func:`one_run_curve_p_value`). ``"gdp"``: a lower bound on mu, which refutes claims of
        Gaussian differential privacy only (:func:`one_run_gdp_lower_bound`).
    target : str
        Name of what was attacked, for the report.

    Returns
    -------
    AttackResult
        With ``lower_epsilon`` and, given a certificate, ``upper_epsilon``, ``p_value`` and a
        verdict; "no violation found" is no verification.

    Raises
    ------
    DataError, InvalidTypeError, LengthMismatchError
        Scores with NaN, inclusion that is not boolean, or different lengths.
    InvalidParameterError
        No guesses, or more guesses than canaries.
    IncompatibleNeighboringError
        The certificate is about other pairs of data sets.

    Notes
    -----
    O(m log m). Privacy: the result is a function of the release and of canaries that are nobody's
    data, so that it costs nothing beyond the release.

    References
    ----------
    Steinke, Nasr, Jagielski 2023, arXiv 2305.08846.

    Examples
    --------
    >>> import numpy as np
    >>> included = np.arange(200) % 2 == 0
    >>> result = one_run_audit(included + np.linspace(0, 0.1, 200), included, k_plus=50,
    ...                        k_minus=50, delta=1e-5)
    >>> result.counts["correct"], round(result.lower_epsilon, 2)
    (100, 3.49)
    """
    check.one_of(tuple(_TESTS), test=test)
    values = checked_scores(scores)
    member = checked_membership(included, len(values))
    k_plus = check.non_negative_int(k_plus=k_plus)
    k_minus = check.non_negative_int(k_minus=k_minus)
    m, r = len(values), k_plus + k_minus
    if r > m:
        raise InvalidParameterError(
            f"k_plus + k_minus must be at most the number of canaries, {m}; got {k_plus} + "
            f"{k_minus}. A canary cannot be guessed twice."
        )
    if r == 0:
        raise InvalidParameterError(
            "k_plus + k_minus must be at least 1, got 0: an audit without a guess says nothing."
        )
    relation = _relation(certified, neighboring)
    delta = _delta(delta, certified)
    high, low = guess(values, k_plus, k_minus)
    v = int(member[high].sum() + (~member[low]).sum())
    method = (
        f"{m} canaries, each included by a fair coin; the {k_plus} highest scores guessed as "
        f"included and the {k_minus} lowest as excluded; "
    )
    found = _TESTS[test](m, r, v, delta, beta, certified)
    return AttackResult(
        attack="one_run_audit",
        method=method + found.pop("method"),
        estimates=(*found.pop("estimates"), _accuracy(v, r, 1 - beta)),
        delta=delta,
        confidence=1 - beta,
        counts={"canaries": m, "guesses": r, "correct": v, "included": int(member.sum())},
        target=target,
        details={"neighboring": relation, "k_plus": k_plus, "k_minus": k_minus}
        | found.pop("details", {}),
        **found,
    )  # fmt: skip


def _epsilon_test(
    m: int, r: int, v: int, delta: float, beta: float, certified: PrivacyGuarantee | None
) -> dict[str, Any]:
    """Bound epsilon from below, and compare with the certified one."""
    lower = one_run_epsilon_lower_bound(m, r, v, delta, beta)
    upper = None if certified is None else certified_epsilon(certified, delta)
    p = _p_value(m, r, v, delta, upper) if upper is not None and math.isfinite(upper) else None
    estimate = Estimate(
        "audited_epsilon", lower, lower, math.inf, confidence=1 - beta, n=m,
        method="one-run lower bound", details={"delta": delta},
    )  # fmt: skip
    return {
        "method": "bound of Steinke, Nasr and Jagielski (2023) for one training run.",
        "estimates": (estimate,),
        "lower_epsilon": lower,
        "upper_epsilon": upper,
        "p_value": p,
        "verdict": verdict_of(lower, upper),
        "power": _power(m, r, v, delta, beta, upper),
    }


def _curve_test(
    m: int, r: int, v: int, delta: float, beta: float, certified: PrivacyGuarantee | None
) -> dict[str, Any]:
    """Test the certificate's whole curve; no bound on epsilon comes of it."""
    from privfair.auditing._one_run_curve import claimed_points, one_run_curve_p_value

    if certified is None:
        raise InvalidParameterError(
            "test='curve' tests the curve of a certificate: pass certified=, or use "
            "test='epsilon', which needs none."
        )
    upper = certified_epsilon(certified, delta)
    out: dict[str, Any] = {
        "method": "test of the whole certified curve after Mahloujifar, Melis and Chaudhuri "
        "(2024) for one training run.",
        "estimates": (),
        "upper_epsilon": upper,
        "assumption": "curve",
        "power": "Finding no violation is no proof.",
        "verdict": NO_CLAIM,
    }
    if not math.isfinite(upper):
        return out
    points = claimed_points(certified)
    p = one_run_curve_p_value(m, r, v, points)
    verdict = VIOLATION if p < beta else NO_VIOLATION
    return out | {"p_value": p, "verdict": verdict, "details": {"points": len(points)}}


def _gdp_test(
    m: int, r: int, v: int, delta: float, beta: float, certified: PrivacyGuarantee | None
) -> dict[str, Any]:
    """Bound mu from below, for claims of Gaussian differential privacy."""
    from privfair.auditing._one_run_curve import certified_mu, one_run_gdp_lower_bound

    lower = one_run_gdp_lower_bound(m, r, v, beta)
    claimed = None if certified is None else certified_mu(certified)
    estimate = Estimate(
        "audited_mu", lower, lower, math.inf, confidence=1 - beta, n=m,
        method="one-run lower bound under a Gaussian trade-off curve",
    )  # fmt: skip
    verdict = NO_BOUND if claimed is None else VIOLATION if lower > claimed else NO_VIOLATION
    return {
        "method": "bound on mu after Mahloujifar, Melis and Chaudhuri (2024) for one training "
        "run, if its trade-off curve is a Gaussian one.",
        "estimates": (estimate,),
        "assumption": "gdp",
        "verdict": verdict,
        "power": "Says nothing about mechanisms that are no Gaussian ones. Finding no violation "
        "is no proof.",
        "details": {"certified_mu": claimed},
    }


_TESTS = {"epsilon": _epsilon_test, "curve": _curve_test, "gdp": _gdp_test}


def _accuracy(v: int, r: int, confidence: float) -> Estimate:
    from privfair.core.statistics import clopper_pearson_interval

    # Guesses of one run depend on each other: the interval describes, it proves nothing.
    interval = clopper_pearson_interval(v, r, confidence=confidence)
    return Estimate(
        "guesses_correct", v / r, interval.low, interval.high, confidence=confidence, n=r,
        method="Clopper-Pearson, as if guesses were independent: descriptive only",
    )  # fmt: skip


def _relation(certified: PrivacyGuarantee | None, neighboring: str | None) -> str | None:
    if neighboring is not None:
        check.one_of(NEIGHBORING, neighboring=neighboring)
    if certified is None:
        return neighboring
    if not isinstance(certified, PrivacyGuarantee):
        raise InvalidTypeError(
            f"certified must be a PrivacyGuarantee, got {type(certified).__name__}. An estimator "
            "has it in privacy_."
        )
    if neighboring is None and certified.neighboring == "replace_one":
        raise IncompatibleNeighboringError(
            "the certificate is about replacing a record, and canaries are usually left out. If "
            "each excluded canary had another record in its place, pass "
            "neighboring='replace_one'; otherwise this audit cannot refute it."
        )
    if neighboring is not None and neighboring != certified.neighboring:
        raise IncompatibleNeighboringError(
            f"exclusion was {neighboring!r}, and the certificate is about "
            f"{certified.neighboring!r} neighbours: it promises nothing about this pair."
        )
    return certified.neighboring


def _delta(delta: float | None, certified: PrivacyGuarantee | None) -> float:
    if delta is None:
        if certified is None:
            raise InvalidParameterError(
                "delta must be given where there is no certificate to take it from; 0 for pure "
                "differential privacy."
            )
        return certified.delta
    return check.delta(delta=delta, allow_zero=True)


def certified_epsilon(certified: PrivacyGuarantee, delta: float) -> float:
    """Return what a certificate promises at a delta, inf where it promises nothing."""
    if certified.unsafe or delta == certified.delta:
        return certified.epsilon
    return float(certified.curve([delta])[0][1])


def _power(m: int, r: int, v: int, delta: float, beta: float, upper: float | None) -> str:
    best = one_run_epsilon_lower_bound(m, r, r, delta, beta)
    text = f"With {r} guesses among {m} canaries no result could show more than {best:.3g}."
    if upper is not None and math.isfinite(upper):
        needed = next((k for k in range(v, r + 1)
                       if _p_value(m, r, k, delta, upper) < beta), None)  # fmt: skip
        text += (
            " A violation could not have been found at all."
            if needed is None
            else f" {needed} correct guesses would have been a violation; there were {v}."
        )
    return text + " Finding none is no proof: implementations with half of the noise often pass."
