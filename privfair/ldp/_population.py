"""Many simulated clients of a longitudinal protocol, and estimates from several rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.randomness import SecretStream, secret_stream
from privfair.ldp._aggregator import Aggregator
from privfair.ldp._estimate import FrequencyEstimate
from privfair.ldp._longitudinal import LongitudinalProtocol
from privfair.ldp._protocol import FrequencyProtocol, Ints, check_values
from privfair.ldp._reports import Reports

__all__ = ["LongitudinalPopulation", "average_rounds", "fresh_reports"]


class LongitudinalPopulation:
    """Simulates many clients, each with memos of its own; for studies, not for devices.

    Parameters
    ----------
    protocol : LongitudinalProtocol
    n : int
        Number of users, at least 1.
    noise_random_state : int or None, default=None
        None draws from the operating system's entropy; an int is for tests and benchmarks.

    Attributes
    ----------
    n_rounds_ : int

    Notes
    -----
    Holds the raw values' memos of everybody in one place, which a real collection never does.
    A round costs O(n log(memos)) beside the draws, without a loop over users.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.ldp import Aggregator, LOSUE, LongitudinalPopulation
    >>> protocol = LOSUE(4, eps_perm=3.0, eps_1=1.5)
    >>> users = LongitudinalPopulation(protocol, 4000, noise_random_state=0)
    >>> reports = users.privatize(np.arange(4000) % 4)
    >>> found = Aggregator(protocol).partial_fit(reports).estimate()
    >>> bool(abs(found.frequencies - 0.25).max() < 0.08), users.epsilon_spent().max()
    (True, np.float64(3.0))
    """

    def __init__(
        self, protocol: LongitudinalProtocol, n: int, *, noise_random_state: int | None = None
    ) -> None:
        if not isinstance(protocol, LongitudinalProtocol):
            raise InvalidTypeError(
                "protocol must be a longitudinal one such as LOSUE(k, eps_perm, eps_1), got "
                f"{type(protocol).__name__}."
            )
        self.protocol = protocol
        self.n = check.positive_int(n=n)
        self._stream = secret_stream(noise_random_state)
        self._public = protocol._draw_public(self.n, self._stream)
        self._places: Ints = np.zeros(0, dtype=np.int64)  # user * max_memos + key, sorted
        self._memos: NDArray[Any] | None = None
        self.n_rounds_ = 0

    def privatize(self, values: ArrayLike) -> Reports:
        """Return one report of every user, whose values are given in order, shape (n,)."""
        protocol = self.protocol
        checked = check_values(values, protocol.k)
        if len(checked) != self.n:
            raise DataError(f"values must hold one per user, {self.n}; got {len(checked)}.")
        keys = protocol._memo_keys(checked, self._public)
        wanted = np.arange(self.n) * protocol.max_memos + keys
        at = np.searchsorted(self._places, wanted)
        known = np.zeros(self.n, dtype=bool)
        if self._places.size:
            known = self._places[np.minimum(at, self._places.size - 1)] == wanted
        if not known.all():
            self._draw(wanted[~known], keys[~known], ~known)
        assert self._memos is not None
        memos = self._memos[np.searchsorted(self._places, wanted)]
        self.n_rounds_ += 1
        return Reports(protocol, protocol._draw_reports(memos, self._public, self._stream))

    def _draw(self, places: Ints, keys: Ints, users: NDArray[np.bool_]) -> None:
        public = {name: a[users] for name, a in self._public.items()}
        rows = self.protocol._draw_memos(keys, public, self._stream)
        memos = rows if self._memos is None else np.concatenate([self._memos, rows])
        joined = np.concatenate([self._places, places])
        order = np.argsort(joined, kind="stable")
        self._places, self._memos = joined[order], memos[order]

    def epsilon_spent(self) -> NDArray[np.float64]:
        """Return what every user has spent, memos at ``eps_perm`` each, shape (n,)."""
        owners = self._places // self.protocol.max_memos
        return np.asarray(np.bincount(owners, minlength=self.n) * self.protocol.eps_perm)


def fresh_reports(
    protocol: FrequencyProtocol, values: Ints, stream: SecretStream
) -> Callable[[], dict[str, NDArray[Any]]]:
    """Return what makes one more report of each of new users, with memos if there are any."""
    if not isinstance(protocol, LongitudinalProtocol):
        return lambda: protocol.randomise(values, stream)
    seed = int(stream.uint64(1)[0] >> np.uint64(1)) if stream.seeded else None
    users = LongitudinalPopulation(protocol, max(1, len(values)), noise_random_state=seed)
    return lambda: users.privatize(values).payload


def average_rounds(
    rounds: Sequence[Aggregator], confidence: float = 0.95, simultaneous: bool = False
) -> FrequencyEstimate:
    """Return the mean of the estimates of several rounds of the same users.

    Parameters
    ----------
    rounds : sequence of Aggregator
        One per round, with one report of every user.
    confidence : float, default=0.95
    simultaneous : bool, default=False
        Whether all intervals hold together (Bonferroni).

    Returns
    -------
    FrequencyEstimate
        Of frequencies averaged over the rounds.

    Raises
    ------
    InvalidParameterError
        Rounds of different protocols or with different numbers of users.

    Notes
    -----
    Reports of one user rest on one memo: the variance is that of ``variance_over_time``, with a
    floor, and intervals (normal) are as wide as that says. For values that change it is smaller,
    so that they cover at least as often. One aggregator for all rounds would pretend T times as
    many users, and its intervals would be too short by up to a factor of the square root of T.

    References
    ----------
    Erlingsson, Pihur, Korolova 2014, "RAPPOR", arXiv 1407.6981.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.ldp import Aggregator, LGRR, LongitudinalPopulation
    >>> protocol = LGRR(3, eps_perm=2.0, eps_1=1.0)
    >>> users = LongitudinalPopulation(protocol, 3000, noise_random_state=0)
    >>> values = np.arange(3000) % 3
    >>> rounds = [Aggregator(protocol).partial_fit(users.privatize(values)) for _ in range(9)]
    >>> found, one = average_rounds(rounds), rounds[0].estimate()
    >>> bool((found.std < one.std).all() and (found.std > one.std / 3).all())
    True
    """
    level = check.confidence(confidence=confidence)
    check.boolean(simultaneous=simultaneous)
    if not rounds or not all(isinstance(r, Aggregator) for r in rounds):
        raise InvalidTypeError("rounds must be a sequence of at least one Aggregator.")
    first = rounds[0]
    protocol, n = first.protocol, first.n_reports_
    if not isinstance(protocol, LongitudinalProtocol):
        raise InvalidParameterError(
            f"rounds of {protocol.name} are not longitudinal: their reports are independent, and "
            "one Aggregator adds them up."
        )
    if any(r.protocol.fingerprint() != protocol.fingerprint() for r in rounds):
        raise InvalidParameterError("rounds must all be of one protocol.")
    if n == 0 or any(r.n_reports_ != n for r in rounds):
        raise InvalidParameterError(
            "rounds must all have one report of each of the same users; their numbers differ, or "
            "are zero."
        )
    raw = np.mean([r.estimate().frequencies_raw for r in rounds], axis=0)
    std = np.sqrt(protocol.variance_over_time(len(rounds), np.clip(raw, 0.0, 1.0), n))
    each = (1 - level) / (protocol.k if simultaneous else 1)
    wide = float(ndtri(1 - each / 2)) * std
    return FrequencyEstimate(
        values=tuple(range(protocol.k)) if first.values is None else first.values,
        frequencies=raw, frequencies_raw=raw, ci_low=raw - wide, ci_high=raw + wide, std=std, n=n,
        confidence=level, simultaneous=simultaneous,
        details={
            "protocol": protocol.name, "epsilon": protocol.epsilon_after(len(rounds)),
            "rounds": len(rounds), "eps_perm": protocol.eps_perm,
        },
    )  # fmt: skip
