"""What repeated reports of one memoised value reveal, computed exactly from four probabilities."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError

__all__ = ["longitudinal_epsilon"]

_CONTEXT = Context(prec=80, Emin=-(10**17), Emax=10**17)
_UP = Context(prec=60, rounding=ROUND_CEILING)
_MANY = 10**12  # reports: beyond, the limit is used
_SHARED = 512  # reports that are split among several memos exactly


def longitudinal_epsilon(
    permanent: tuple[float | Fraction, float | Fraction],
    instantaneous: tuple[float | Fraction, float | Fraction],
    reports: float,
    *,
    encoding: str = "direct",
    n_distinct: int = 1,
    max_memos: int | None = None,
) -> float:
    r"""Return the epsilon of repeated reports that are drawn from memoised randomised values.

    Parameters
    ----------
    permanent : tuple of two numbers
        p1 > q1 in (0, 1): probabilities that the memo, drawn once per value, has the true symbol
        (its bit) and another, given symbol (bit).
    instantaneous : tuple of two numbers
        p2 > q2 in [0, 1]: the same for each report given the memo; (1, 0) sends the memo itself.
    reports : int or inf
        T, of one user altogether, at least 1.
    encoding : {"direct", "unary"}, default="direct"
        Whether memo and report are one symbol, or one independent bit per symbol.
    n_distinct : int, default=1
        How many different values the T reports may be about.
    max_memos : int or None, default=None
        How many different memos a user can have, where that is known to be fewer.

    Returns
    -------
    float
        For two histories of values that repeat at the same times; rounded up.

    Raises
    ------
    InvalidParameterError
        Probabilities outside their range, or p not above q.

    Notes
    -----
    For one value the most telling outcome is T reports that agree. With direct encoding

    .. math:: \epsilon(T) = \ln \frac{p_1 p_2^T + (1-p_1) q_2^T}{q_1 p_2^T + (1-q_1) q_2^T},

    with unary encoding there is a second such term for the zeros of the other value's bit. It
    grows to the epsilon of the memo and never beyond, however many reports follow. It is **not**
    at most T times the epsilon of one report: reports that share a memo are not independent given
    the value, and for large domains :math:`\epsilon(2) > 2 \epsilon(1)`.

    For several values it is the largest sum over all ways to share out the T reports, and at most
    ``min(n_distinct, max_memos)`` times the epsilon of a memo, which is returned beyond 512
    reports. **When the value changes is not protected by that number**: a history that changes
    against one that does not may differ by up to T times the epsilon of a report given its memo
    (without bound if the memo itself is sent).

    Privacy: a function of public numbers only. Complexity O(T) decimal powers, and
    O(T^2 log n_distinct) for several values.

    References
    ----------
    Erlingsson, Pihur, Korolova 2014, "RAPPOR", arXiv 1407.6981. Arcolezi, Couchot, Al Bouna, Xiao
    2022, arXiv 2111.04636.

    Examples
    --------
    Three values, memos with epsilon 2, first reports with epsilon 1:

    >>> import math
    >>> lam = [(math.exp(e) - 1) / (math.exp(e) + 2) for e in (2.0, 1.0)]
    >>> pair = [(1 / 3 + 2 / 3 * x, (1 - x) / 3) for x in (lam[0], lam[1] / lam[0])]
    >>> [round(longitudinal_epsilon(*pair, t), 6) for t in (1, 2, 5, math.inf)]
    [1.0, 1.660877, 1.99538, 2.0]
    """
    check.one_of(("direct", "unary"), encoding=encoding)
    outer, inner = _pair("permanent", permanent), _pair("instantaneous", instantaneous)
    if outer[1] == 0 or outer[0] == 1:
        raise InvalidParameterError(
            "permanent must be two numbers strictly between 0 and 1: a memo that is sometimes "
            "certain has no finite epsilon."
        )
    times = _times(reports)
    memos = check.positive_int(n_distinct=n_distinct)
    if max_memos is not None:
        memos = min(memos, check.positive_int(max_memos=max_memos))
    last = _of_one(outer, inner, encoding, None)
    if memos == 1 or times is None:
        return memos * last if times is None else _of_one(outer, inner, encoding, times)
    memos = min(memos, times)
    if times > _SHARED:
        return memos * last
    each = np.array([0.0] + [_of_one(outer, inner, encoding, t) for t in range(1, times + 1)])
    return float(_shared_out(each, memos)[-1])


def _pair(name: str, pair: tuple[float | Fraction, float | Fraction]) -> tuple[Fraction, Fraction]:
    try:
        p, q = (Fraction(x) for x in pair)
    except (TypeError, ValueError, OverflowError):
        raise InvalidParameterError(f"{name} must be two numbers (p, q).") from None
    if not 0 <= q < p <= 1:
        raise InvalidParameterError(
            f"{name} must be (p, q) with 0 <= q < p <= 1, got ({float(p):g}, {float(q):g})."
        )
    return p, q


def _times(reports: float) -> int | None:
    """Return a number of reports, or None where it is as good as endless."""
    if isinstance(reports, float) and math.isinf(reports) and reports > 0:
        return None
    times = check.positive_int(reports=reports)
    return None if times > _MANY else times


def _decimal(x: Fraction) -> Decimal:
    return _CONTEXT.divide(Decimal(x.numerator), Decimal(x.denominator))


@lru_cache(maxsize=1 << 14)
def _of_one(
    outer: tuple[Fraction, Fraction],
    inner: tuple[Fraction, Fraction],
    encoding: str,
    times: int | None,
) -> float:
    (p1, q1), (p2, q2) = outer, inner
    total = _term(p1, q1, p2, q2, times)
    if encoding == "unary":
        total = _CONTEXT.add(total, _term(1 - q1, 1 - p1, 1 - q2, 1 - p2, times))
    up = _UP.plus(total)
    found = float(up)
    return found if Decimal(found) >= up else math.nextafter(found, math.inf)


def _term(p1: Fraction, q1: Fraction, p2: Fraction, q2: Fraction, times: int | None) -> Decimal:
    """Return the logarithm of how much T agreeing reports favour the true symbol."""
    agree, not_ = (Decimal(1), Decimal(0)) if times is None else _powers(p2, q2, times)

    def chance(p: Fraction) -> Decimal:
        return _CONTEXT.add(
            _CONTEXT.multiply(_decimal(p), agree), _CONTEXT.multiply(_decimal(1 - p), not_)
        )

    return _CONTEXT.ln(_CONTEXT.divide(chance(p1), chance(q1)))


def _powers(p: Fraction, q: Fraction, times: int) -> tuple[Decimal, Decimal]:
    """Return 1 and (q / p)^T."""
    ratio = _CONTEXT.divide(_decimal(q), _decimal(p))
    return Decimal(1), _CONTEXT.power(ratio, Decimal(times)) if ratio else Decimal(0)


def _shared_out(each: NDArray[np.float64], parts: int) -> NDArray[np.float64]:
    """Return for each t the largest sum of at most ``parts`` entries whose positions add to t."""
    best, power = np.zeros_like(each), each
    while parts:
        if parts & 1:
            best = _combined(best, power)
        parts >>= 1
        if parts:
            power = _combined(power, power)
    return best


def _combined(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([np.max(a[: t + 1] + b[t::-1]) for t in range(len(a))])
