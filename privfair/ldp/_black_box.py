"""A lower bound on epsilon of a randomiser that is only run, not trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.attack import AttackResult, verdict_of
from privfair.core.estimate import Estimate
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.randomness import SecretStream, secret_stream
from privfair.core.statistics import clopper_pearson_interval
from privfair.ldp._protocol import FrequencyProtocol, Ints
from privfair.ldp._reports import Reports

__all__ = ["black_box"]

_PIECE = 1 << 16  # trials drawn at a time
_CELLS = 4096  # most reports that are told apart one by one
_QUANTILES = 200
_LEAST = 100
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Trials:
    """What was seen of many independent runs on one input."""

    labels: NDArray[Any]  # cells, or real numbers
    told: NDArray[np.int64] | None  # bit 0: supports x0, bit 1: supports x1

    def half(self, second: bool) -> _Trials:
        middle = len(self.labels) // 2
        rows = slice(middle, None) if second else slice(None, middle)
        return _Trials(self.labels[rows], None if self.told is None else self.told[rows])


@dataclass(frozen=True)
class _Event:
    """A set of reports, told by their cells or by which of the two inputs they support."""

    description: str
    holds: Callable[[_Trials], Bools]
    swapped: bool  # whether it is likelier under x1
    rivals: int = 1  # among how many it was the best on the first half


# -- running it ---------------------------------------------------------------------------------
def _of_protocol(
    protocol: FrequencyProtocol, x0: int, x1: int, own: int, n: int, stream: SecretStream
) -> _Trials:
    size = max(1, min(_PIECE, (1 << 24) // protocol.k))
    pieces = []
    for start in range(0, n, size):
        values = np.full(min(size, n - start), own, dtype=np.int64)
        pieces.append(_read(protocol, protocol.randomise(values, stream), x0, x1))
    return _joined(pieces)


def _read(protocol: FrequencyProtocol, payload: dict[str, Any], x0: int, x1: int) -> _Trials:
    both = protocol.tells(payload, x0, x1)
    return _Trials(_codes(protocol, payload, both), both)


def _joined(pieces: list[_Trials]) -> _Trials:
    told = [piece.told for piece in pieces if piece.told is not None]
    return _Trials(np.concatenate([piece.labels for piece in pieces]), np.concatenate(told))


def _codes(protocol: FrequencyProtocol, payload: dict[str, Any], both: Ints) -> Ints:
    """Return one number per report that tells all of it, if there are few different reports."""
    if set(payload) == {"code"} and protocol.tally_size <= _CELLS:
        return np.asarray(payload["code"].astype(np.int64))
    if set(payload) == {"bits"} and protocol.k <= 12:
        weights = 1 << (8 * np.arange(payload["bits"].shape[1]))
        return np.asarray(payload["bits"].astype(np.int64) @ weights)
    return both


def _of_callable(
    randomiser: Callable[..., Any], x0: int, x1: int, own: int, n: int
) -> _Trials | NDArray[Any]:
    """Return trials where the function makes reports of a protocol, else plain rows."""
    known, plain = [], []
    for start in range(0, n, _PIECE):
        size = min(_PIECE, n - start)
        found = randomiser(np.full(size, own, dtype=np.int64))
        if isinstance(found, Reports):
            if len(found) != size or max(x0, x1) >= found.protocol.k:
                raise DataError("the reports must be one per value, of a domain with x0 and x1.")
            known.append(_read(found.protocol, found.payload, x0, x1))
        else:
            plain.append(_rows(found, size))
    if known and plain:
        raise DataError("the randomiser returned Reports and plain arrays in turn.")
    return _joined(known) if known else np.concatenate(plain)


def _rows(found: Any, size: int) -> NDArray[Any]:
    columns = list(found.values()) if isinstance(found, dict) else [found]
    arrays = [np.asarray(column) for column in columns]
    if any(a.ndim == 0 or len(a) != size or a.dtype.kind not in "biuf" for a in arrays):
        raise DataError(
            "the randomiser must return one report per value: a numeric array, a dict of arrays "
            "or Reports, with one entry or row per value."
        )
    flat = [a.reshape(size, -1) for a in arrays]
    if len(flat) > 1 and any(a.dtype.kind == "f" for a in flat):
        raise DataError("reports of several arrays must be integers.")
    return flat[0] if len(flat) == 1 else np.hstack([a.astype(np.int64) for a in flat])


def _labelled(a: NDArray[Any], b: NDArray[Any]) -> tuple[_Trials, _Trials]:
    """Give equal reports equal numbers; a single real number is its own label."""
    if np.isnan(a).any() or np.isnan(b).any():
        raise DataError("the reports must not hold NaN: map it to a number of its own.")
    if a.shape[1] == 1 and a.dtype.kind == "f":
        return _Trials(a[:, 0], None), _Trials(b[:, 0], None)
    _, cells = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    cells = cells.reshape(-1).astype(np.int64)
    return _Trials(cells[: len(a)], None), _Trials(cells[len(a) :], None)


# -- choosing an event on the first half ----------------------------------------------------------
def _one_sided(k: Any, n: int, alpha: float, side: str) -> Any:
    found = clopper_pearson_interval(k, n, confidence=1 - alpha, alternative=side)
    return found.low if side == "lower" else found.high


def _bound(hits: Any, n: int, others: Any, m: int, delta: float, alpha: float) -> Any:
    """Return ln((low - delta) / high), each bound at half of alpha."""
    low = np.asarray(_one_sided(hits, n, alpha / 2, "lower"))
    high = np.asarray(_one_sided(others, m, alpha / 2, "upper"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(low > delta, np.log(np.maximum(low - delta, 0.0) / high), 0.0)


def _supports(bits: int) -> Callable[[_Trials], Bools]:
    def holds(trials: _Trials) -> Bools:
        assert trials.told is not None
        return np.asarray(trials.told == bits)

    return holds


def _known(x0: int, x1: int) -> list[_Event]:
    """Return the likelihood-ratio events of a pure protocol."""
    return [
        _Event(f"supports {x0} and not {x1}", _supports(1), swapped=False),
        _Event(f"supports {x1} and not {x0}", _supports(2), swapped=True),
    ]


def _empirical(p: _Trials, q: _Trials, delta: float, alpha: float, swapped: bool) -> _Event:
    """Return the union of cells, most telling first, with the best bound on these trials."""
    cuts = None
    first, second = p.labels, q.labels
    if first.dtype.kind == "f":
        both = np.concatenate([first, second])
        cuts = np.unique(np.quantile(both, np.linspace(0, 1, _QUANTILES + 1)[1:-1]))
        first, second = np.searchsorted(cuts, first), np.searchsorted(cuts, second)
    size = 1 + int(max(first.max(), second.max()))
    count_p = np.bincount(first, minlength=size)
    count_q = np.bincount(second, minlength=size)
    seen = np.flatnonzero(count_p + count_q)
    order = seen[np.argsort(-(count_p[seen] + 0.5) / (count_q[seen] + 0.5), kind="stable")]
    sums = np.cumsum(count_p[order]), np.cumsum(count_q[order])
    # The best of many looks better than it is: each must hold at its share of alpha.
    bounds = _bound(sums[0], len(first), sums[1], len(second), delta, alpha / len(order))
    chosen = np.zeros(size, dtype=bool)
    chosen[order[: int(np.argmax(bounds)) + 1]] = True

    def holds(trials: _Trials) -> Bools:
        labels = trials.labels if cuts is None else np.searchsorted(cuts, trials.labels)
        known = labels < size
        return np.asarray(known & chosen[np.where(known, labels, 0)])

    return _Event(f"a set of {int(chosen.sum())} of {size} cells", holds, swapped, len(order))


def _choose(
    a: _Trials, b: _Trials, x0: int, x1: int, delta: float, alpha: float
) -> tuple[_Event, float]:
    """Return the event with the best bound on the trials given, and that bound."""
    events = [] if a.told is None else _known(x0, x1)
    events.append(_empirical(a, b, delta, alpha, swapped=False))
    events.append(_empirical(b, a, delta, alpha, swapped=True))
    scores = []
    for event in events:
        p, q = (b, a) if event.swapped else (a, b)
        hits, others = int(event.holds(p).sum()), int(event.holds(q).sum())
        level = alpha / event.rivals
        found = _bound(hits, len(p.labels), others, len(q.labels), delta, level)
        scores.append(float(found))
    best = int(np.argmax(scores))
    return events[best], scores[best]


# -- the audit ------------------------------------------------------------------------------------
def _checked(target: Any, x0: Any, x1: Any, epsilon: float | None) -> tuple[int, int, float]:
    values = [check.non_negative_int(**{name: x}) for name, x in (("x0", x0), ("x1", x1))]
    if values[0] == values[1]:
        raise InvalidParameterError("x0 and x1 must differ: equal inputs tell nothing.")
    if isinstance(target, FrequencyProtocol):
        if max(values) >= target.k:
            raise InvalidParameterError(f"x0 and x1 must lie in [0, {target.k}).")
        declared = target.epsilon if epsilon is None else check.epsilon(epsilon=epsilon)
        return values[0], values[1], declared
    if not callable(target):
        raise InvalidTypeError(
            "target must be a protocol, or a function from an array of values to as many reports; "
            f"got {type(target).__name__}."
        )
    if epsilon is None:
        raise InvalidParameterError("epsilon must be given: a function does not declare one.")
    return values[0], values[1], check.epsilon(epsilon=epsilon)


def black_box(
    target: FrequencyProtocol | Callable[..., Any],
    x0: int = 0,
    x1: int = 1,
    *,
    n_trials: int = 100_000,
    alpha: float = 0.05,
    epsilon: float | None = None,
    delta: float = 0.0,
    noise_random_state: int | None = None,
) -> AttackResult:
    r"""Attack a local randomiser: run it many times on two values and bound its epsilon below.

    Parameters
    ----------
    target : FrequencyProtocol or callable
        What is attacked. A function takes an int array of n values and returns n reports: an
        array (n,) or (n, width), a dict of such arrays, or :class:`Reports`.
    x0, x1 : int
        The two values, different.
    n_trials : int, default=100000
        Independent runs on each value, at least 200. Half of them choose the event.
    alpha : float, default=0.05
        Probability with which the bound may be wrong.
    epsilon : float or None
        The claim under attack; None takes the protocol's own.
    delta : float, default=0.0
        Of the claim, in [0, 1).
    noise_random_state : int or None, default=None
        Seeds a protocol's noise, to repeat an audit; a function draws its own.

    Returns
    -------
    AttackResult
        ``lower_epsilon`` exceeds the epsilon of an honest randomiser with probability at most
        ``alpha``; ``verdict`` is ``"VIOLATION"`` if it exceeds the declared one. Anything else is
        no verification: other values or events may show one.

    Raises
    ------
    InvalidParameterError, InvalidTypeError, DataError
        Bad parameters, or reports that are none.

    Notes
    -----
    *Event.* For a protocol the likelihood-ratio events "supports x0 and not x1" and its mirror,
    whose probabilities have the ratio :math:`e^\epsilon` exactly, compete with unions of reports
    ordered by their ratio on the first half. "Attacker's guess is x0", which other tools test, is
    loose for reports that support several values. On the second half

    .. math:: \hat\epsilon = \ln \frac{\underline{TPR} - \delta}{\overline{FPR}}

    with Clopper-Pearson bounds at alpha / 2 each. Choosing the event on the trials that it is
    tested on would inflate the bound. O(n_trials k) for a protocol. Privacy: made-up values.

    References
    ----------
    Arcolezi, Gambs 2024, "Revealing the true cost of locally differentially private protocols: an
    auditing perspective", arXiv 2309.01597. Clopper and Pearson 1934.

    Examples
    --------
    >>> from privfair.ldp import OUE
    >>> from privfair.ldp.audit import black_box
    >>> result = black_box(OUE(2, 4.0), n_trials=40_000, noise_random_state=0)
    >>> result.verdict, 3.5 < result.lower_epsilon < 4.0
    ('no violation found', True)
    """
    x0, x1, declared = _checked(target, x0, x1, epsilon)
    n = check.positive_int(n_trials=n_trials)
    if n < 2 * _LEAST:
        raise InvalidParameterError(f"n_trials must be at least {2 * _LEAST}, got {n}.")
    level = check.confidence(alpha=alpha)
    delta = check.delta(delta=delta, allow_zero=True)
    if isinstance(target, FrequencyProtocol):
        stream = secret_stream(noise_random_state)
        a, b = (_of_protocol(target, x0, x1, x, n, stream) for x in (x0, x1))
        name = repr(target)
    else:
        first, second = (_of_callable(target, x0, x1, x, n) for x in (x0, x1))
        if isinstance(first, _Trials) and isinstance(second, _Trials):
            a, b = first, second
        elif isinstance(first, _Trials) or isinstance(second, _Trials):
            raise DataError("the randomiser returned Reports and plain arrays in turn.")
        else:
            a, b = _labelled(first, second)
        name = getattr(target, "__name__", type(target).__name__)
    event, promise = _choose(a.half(False), b.half(False), x0, x1, delta, level)
    p, q = (b, a) if event.swapped else (a, b)
    hit, other = event.holds(p.half(True)), event.holds(q.half(True))
    hits, others = int(hit.sum()), int(other.sum())
    lower = max(0.0, float(_bound(hits, len(hit), others, len(other), delta, level)))
    estimate = Estimate(
        "audited_epsilon", lower, lower, math.inf, confidence=1 - level, n=2 * n,
        method="Clopper-Pearson on an event chosen on the other half", details={"delta": delta},
    )  # fmt: skip
    return AttackResult(
        attack="local_audit",
        method=(
            f"{n} independent runs on each of two values; event chosen on one half, exact "
            "binomial bounds on the other."
        ),
        estimates=(estimate,),
        lower_epsilon=lower,
        upper_epsilon=declared,
        delta=delta,
        confidence=1 - level,
        verdict=verdict_of(lower, declared),
        counts={"tp": hits, "n_in": len(hit), "fp": others, "n_out": len(other)},
        roc=((others / len(other), hits / len(hit)),),
        power=(
            "One pair of values was tried. Events rarer than about "
            f"{20 / n:.1g} cannot be seen."
        ),
        target=name,
        details={
            "event": event.description, "x0": x0, "x1": x1, "likelier_under": x1 if event.swapped
            else x0, "bound_on_first_half": promise,
        },
    )  # fmt: skip
