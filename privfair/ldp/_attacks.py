"""What one who sees reports can guess, and what false reports can do."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.randomness import check_random_state, secret_stream
from privfair.core.statistics import clopper_pearson_interval
from privfair.ldp._dbitflip import DBitFlipPM
from privfair.ldp._direct import SS, DirectProtocol
from privfair.ldp._hashing import HashingProtocol, hash_bucket
from privfair.ldp._longitudinal import LongitudinalProtocol
from privfair.ldp._population import fresh_reports
from privfair.ldp._protocol import FrequencyProtocol, Ints
from privfair.ldp._reports import Reports
from privfair.ldp._research import SHE
from privfair.ldp._structured import HR, PGR
from privfair.ldp._unary import UnaryProtocol, unary_success

__all__ = [
    "attack_success",
    "averaging_attack",
    "guess_values",
    "match_rate",
    "max_manipulation",
]

_SEEDS = 1 << 12  # hash functions over which the number of buckets in use is averaged
_CELLS = 1 << 24  # of a table made at a time


def _protocol(protocol: Any) -> FrequencyProtocol:
    if not isinstance(protocol, FrequencyProtocol):
        raise InvalidTypeError(
            f"protocol must be a protocol such as OUE(k, epsilon), got {type(protocol).__name__}."
        )
    return protocol


# -- one report -----------------------------------------------------------------------------------
def attack_success(protocol: FrequencyProtocol) -> float:
    r"""Return how often the best guess from one report is the true value.

    Parameters
    ----------
    protocol : FrequencyProtocol

    Returns
    -------
    float
        Probability in [1 / k, 1], for users spread evenly over the k values.

    Raises
    ------
    InvalidParameterError
        A protocol without a closed form here and with too large a domain to enumerate.

    Notes
    -----
    :math:`\frac 1k \sum_y \max_x P(y \mid x)`: the Bayes-optimal guess under a uniform prior, any
    supported value where there is one. Closed forms, with 64-bit thresholds: p for GRR, p / w for
    subsets of w values, a binomial sum for unary encodings, a count of reports that support some
    value for HR and PGR. Local hashing averages over the public hash: with N of the g buckets in
    use it is :math:`(N p + (g - N) \frac{1 - p}{g - 1}) / k`, and the mean of N is taken over
    4,096 hash functions. A prior other than uniform can only make guessing easier. O(k).

    References
    ----------
    Arcolezi, Gambs, Couchot, Palamidessi 2023, "On the risks of collecting multidimensional data
    under local differential privacy", arXiv 2209.01684.

    Examples
    --------
    >>> from privfair.ldp import GRR, SS
    >>> round(attack_success(GRR(4, 1.0)), 4), round(attack_success(SS(16, 1.0, 4)), 4)
    (0.4754, 0.1188)
    """
    protocol = _protocol(protocol)
    own = getattr(protocol, "guess_success", None)
    if own is not None:
        return float(own())
    p, q, k = protocol.p_, protocol.q_, protocol.k
    if isinstance(protocol, DirectProtocol):
        return p
    if isinstance(protocol, SS):
        return p / protocol.omega_
    if isinstance(protocol, UnaryProtocol):
        return unary_success(p, q, k) / k
    if isinstance(protocol, HashingProtocol):
        g, used = protocol.g_, _buckets_in_use(protocol)
        return (used * p + (g - used) * (1 - p) / (g - 1)) / k
    if isinstance(protocol, HR):
        return 2 * p / k if k > 2 else (1 + 2 * p) / 4
    if isinstance(protocol, PGR):
        reached, size, c = _reached(protocol), protocol.K_, protocol._line[0]
        return (reached * p / c + (size - reached) * (1 - p) / (size - c)) / k
    if k > 8:
        raise InvalidParameterError(
            f"{protocol.name} has no closed form: k must be at most 8 to enumerate, got {k}."
        )
    total = sum(
        (max(protocol.probability(y, x) for x in range(k)) for y in protocol.outputs()),
        Fraction(0),
    )
    mass = sum((protocol.probability(y, 0) for y in protocol.outputs()), Fraction(0))
    return float(total / mass / k)


def _buckets_in_use(protocol: HashingProtocol) -> float:
    """Return the mean number of buckets that some value hashes to."""
    k, g = min(protocol.k, 1 << 12), protocol.g_  # more values reach no further bucket
    seeds = np.arange(_SEEDS, dtype=np.uint64)
    used = 0
    for start in range(0, _SEEDS, max(1, _CELLS // max(k, g))):
        part = seeds[start : start + max(1, _CELLS // max(k, g))]
        seen = np.zeros((len(part), g), dtype=bool)
        rows = np.arange(len(part))
        for v in range(k):
            seen[rows, hash_bucket(part, np.full(len(part), v), protocol.k, g)] = True
        used += int(seen.sum())
    return used / _SEEDS


def _reached(protocol: PGR) -> int:
    """Return how many points are on the hyperplane of some value."""
    ours = np.zeros(protocol.K_)
    ours[: protocol.k] = 1.0
    return int((protocol._on_hyperplanes(ours) > 0.5).sum())


def guess_values(reports: Reports, *, random_state: Any = None) -> Ints:
    """Return the best guess of each report's value, for values that are equally likely.

    Parameters
    ----------
    reports : Reports
    random_state : int, Generator or None
        Breaks ties.

    Returns
    -------
    ndarray of int64, shape (n,)

    Notes
    -----
    Some supported value, or any value where none is supported. O(n k) time, in pieces. Privacy:
    computed from reports, at no further cost.

    Examples
    --------
    >>> from privfair.ldp import GRR, randomize
    >>> guess_values(randomize(GRR(3, 20.0), [0, 1, 2], noise_random_state=0)).tolist()
    [0, 1, 2]
    """
    if not isinstance(reports, Reports):
        raise InvalidTypeError(f"reports must be Reports, got {type(reports).__name__}.")
    rng = check_random_state(random_state)
    out = np.empty(len(reports), dtype=np.int64)
    size = max(1, _CELLS // reports.protocol.k)
    for start in range(0, len(reports), size):
        part = {name: a[start : start + size] for name, a in reports.payload.items()}
        out[start : start + size] = _largest(reports.protocol.support_matrix(part), rng)
    return out


def _largest(scores: NDArray[Any], rng: np.random.Generator) -> Ints:
    """Return the column of each row's largest entry, ties broken at random."""
    ties = rng.random(scores.shape, dtype=np.float32)
    best = scores == scores.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, ties, -1.0).argmax(axis=1))


# -- many reports ---------------------------------------------------------------------------------
def averaging_attack(
    protocol: FrequencyProtocol,
    n_reports: int,
    *,
    n_users: int = 10_000,
    confidence: float = 0.95,
    noise_random_state: int | None = None,
) -> Estimate:
    """Return how often the value is guessed from several fresh reports about it.

    Parameters
    ----------
    protocol : FrequencyProtocol
        Every report is drawn anew, or from the user's memo if the protocol is longitudinal.
    n_reports : int
        Reports of each user about one value that does not change.
    n_users : int, default=10000
        Simulated users, spread evenly over the values.
    confidence : float, default=0.95
    noise_random_state : int or None, default=None
        Repeats the simulation.

    Returns
    -------
    Estimate
        ``averaging_success``, with a Clopper-Pearson interval.

    Notes
    -----
    The value that most reports support is the most likely one for every pure protocol. After T
    reports T epsilon are spent, and nothing but a protocol with a memory prevents that: of a
    longitudinal protocol the average finds the memo, which is the value as often as one report
    with epsilon ``eps_perm`` is.
    O(n_reports n_users k). Privacy: simulated users, no data.

    Examples
    --------
    >>> from privfair.ldp import GRR
    >>> once = averaging_attack(GRR(8, 1.0), 1, n_users=2000, noise_random_state=0)
    >>> often = averaging_attack(GRR(8, 1.0), 80, n_users=2000, noise_random_state=0)
    >>> once.value < 0.35 and often.value > 0.9
    True
    >>> from privfair.ldp import LGRR
    >>> kept = averaging_attack(LGRR(8, 2.0, 1.0), 80, n_users=2000, noise_random_state=0)
    >>> kept.value < 0.55
    True
    """
    protocol = _protocol(protocol)
    rounds = check.positive_int(n_reports=n_reports)
    users = check.positive_int(n_users=n_users)
    level = check.confidence(confidence=confidence)
    stream = secret_stream(noise_random_state)
    rng = stream.generator()  # for ties
    right = 0
    size = max(1, _CELLS // protocol.k)
    for start in range(0, users, size):
        values = np.arange(start, min(users, start + size)) % protocol.k
        scores = np.zeros((len(values), protocol.k), dtype=np.int32)
        draw = fresh_reports(protocol, values, stream)
        for _ in range(rounds):
            scores += protocol.support_matrix(draw())
        right += int((_largest(scores, rng) == values).sum())
    found = clopper_pearson_interval(right, users, confidence=level)
    return Estimate(
        "averaging_success", right / users, float(found.low), float(found.high),
        confidence=level, n=users, method="simulation, Clopper-Pearson interval",
        details={"protocol": protocol.name, "n_reports": rounds,
                 "epsilon": protocol.epsilon_after(rounds)
                 if isinstance(protocol, LongitudinalProtocol) else rounds * protocol.epsilon},
    )  # fmt: skip


def match_rate(
    guesses: ArrayLike,
    background: ArrayLike,
    *,
    truth: ArrayLike | None = None,
    top: int = 1,
    confidence: float = 0.95,
    random_state: Any = None,
) -> Estimate:
    """Return how often guessed profiles lead back to their owners in a background table.

    Parameters
    ----------
    guesses : array-like of int, shape (n, d)
        One guessed profile per target, as :func:`guess_values` gives for each attribute that was
        collected; -1 where an attribute was not.
    background : array-like of int, shape (m, d)
        What the attacker knows: rows of people, in the same codes.
    truth : array-like of int, shape (n,), or None
        Row of each target in the background; None stands for 0, ..., n - 1.
    top : int, default=1
        A match counts if the owner is among this many nearest rows.
    confidence : float, default=0.95
    random_state : int, Generator or None
        Breaks ties.

    Returns
    -------
    Estimate
        ``reidentification_rate``; ``details["chance"]`` is what guessing a row would give.

    Raises
    ------
    DataError, InvalidParameterError
        Shapes that do not fit, or rows outside the background.

    Notes
    -----
    Nearest is the row that agrees in most attributes. O(n m d), in pieces.

    References
    ----------
    Arcolezi, Gambs, Couchot, Palamidessi 2023, arXiv 2209.01684.

    Examples
    --------
    >>> people = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> match_rate(people, people).value
    1.0
    """
    seen, known = _table("guesses", guesses), _table("background", background)
    if seen.shape[1] != known.shape[1]:
        raise DataError(
            f"guesses have {seen.shape[1]} attributes, and the background {known.shape[1]}."
        )
    owner = np.arange(len(seen)) if truth is None else np.asarray(truth)
    if owner.shape != (len(seen),) or owner.dtype.kind not in "iu":
        raise DataError("truth must be one row number for each guessed profile.")
    if len(owner) == 0 or int(owner.min()) < 0 or int(owner.max()) >= len(known):
        raise InvalidParameterError(
            f"truth must name rows of the background, in [0, {len(known)}), for at least one "
            "profile."
        )
    nearest = check.positive_int(top=top)
    level = check.confidence(confidence=confidence)
    rng = check_random_state(random_state)
    right = 0
    size = max(1, _CELLS // max(1, len(known)))
    for start in range(0, len(seen), size):
        part, mine = seen[start : start + size], owner[start : start + size]
        score = np.zeros((len(part), len(known)), dtype=np.int32)
        for column in range(seen.shape[1]):
            score += (part[:, column, None] == known[None, :, column]) & (
                part[:, column, None] >= 0
            )
        own = score[np.arange(len(part)), mine]
        better = (score > own[:, None]).sum(axis=1)
        equal = (score == own[:, None]).sum(axis=1)
        place = better + np.floor(rng.random(len(part)) * equal)
        right += int((place < nearest).sum())
    found = clopper_pearson_interval(right, len(seen), confidence=level)
    return Estimate(
        "reidentification_rate", right / len(seen), float(found.low), float(found.high),
        confidence=level, n=len(seen), method="nearest rows, Clopper-Pearson interval",
        details={"top": nearest, "chance": min(1.0, nearest / len(known)), "rows": len(known)},
    )  # fmt: skip


def _table(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "iu" or array.shape[1] == 0:
        raise DataError(f"{name} must be integers of shape (rows, attributes).")
    return array


# -- false reports --------------------------------------------------------------------------------
def max_manipulation(
    protocol: FrequencyProtocol, fraction: float, *, attributes: int = 1
) -> float:
    r"""Return how far false reports can raise the estimated frequency of one value.

    Parameters
    ----------
    protocol : FrequencyProtocol
    fraction : float
        Share of all users whose reports are false, in (0, 1].
    attributes : int, default=1
        Number of attributes of which each user reports a random one (SMP). Who lies reports the
        target's.

    Returns
    -------
    float
        share * (1 - q) / (p - q), above what the same users would have added, had they all
        reported honestly about other values.

    Notes
    -----
    A false report supports the target for certain; an honest one about another value does with
    probability q. The stronger the protection, the smaller p - q, and the more a few can move.

    The share is that of false reports among those about the target. Where an honest user is asked
    about it with probability a (1 / attributes; d / k for DBitFlipPM) and all false ones speak of
    it, it is :math:`\phi / (\phi + (1 - \phi) a)` of a fraction :math:`\phi`, up to 1 / a times
    as much. Reports of SHE are numbers: a false one adds the largest that is accepted.

    References
    ----------
    Cheu, Smith, Ullman 2021, "Manipulation attacks in local differential privacy",
    arXiv 1909.09630.

    Examples
    --------
    >>> from privfair.ldp import OUE
    >>> round(max_manipulation(OUE(100, 1.0), 0.01), 4), round(max_manipulation(OUE(100, 4.0), 0.01), 4)
    (0.0316, 0.0204)
    """  # noqa: E501
    protocol = _protocol(protocol)
    share = check.probability(fraction=fraction)
    if share == 0:
        raise InvalidParameterError("fraction must be in (0, 1], got 0.")
    asked = 1.0 / check.positive_int(attributes=attributes)
    if isinstance(protocol, DBitFlipPM):
        asked *= protocol.d / protocol.k
    share /= share + (1.0 - share) * asked
    if isinstance(protocol, SHE):
        return float(share * protocol.largest / int(protocol.steps))
    return float(share * (1 - protocol.q_) / (protocol.p_ - protocol.q_))
