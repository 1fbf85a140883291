"""Support counts without users: for planning and simulation, on a server that knows the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from privfair.core.exceptions import DataError, InvalidTypeError
from privfair.core.randomness import secret_stream
from privfair.ldp._direct import GRR
from privfair.ldp._protocol import FrequencyProtocol, Ints
from privfair.ldp._unary import UnaryProtocol

__all__ = ["simulate_counts"]

_PIECE = 1 << 18


def simulate_counts(
    hist: ArrayLike, protocol: FrequencyProtocol, *, noise_random_state: int | None = None
) -> Ints:
    """Draw support counts for a known histogram, without drawing reports where that is possible.

    Parameters
    ----------
    hist : array-like of int, shape (k,)
        How many users hold each value.
    protocol : FrequencyProtocol
    noise_random_state : int or None, default=None
        Repeats the simulation.

    Returns
    -------
    ndarray of int64, shape (k,)
        As ``protocol.support`` of the reports of all users.

    Raises
    ------
    DataError
        No histogram over the protocol's domain.

    Notes
    -----
    For studies only: it needs the truth, and nothing a client runs leads here. Unary encodings:
    independent sums of two binomials, O(k). GRR: with p - q a user's report is true, otherwise
    uniform on all values, O(k). Counts of other protocols depend on each other: their reports are
    drawn, O(n). The law is that of the reports, p and q rounded to floats.

    Examples
    --------
    >>> from privfair.ldp import OUE
    >>> counts = simulate_counts([10**9, 0, 10**8], OUE(3, 1.0), noise_random_state=0)
    >>> bool(abs(OUE(3, 1.0).frequencies(counts, 11 * 10**8)[1]) < 1e-3)
    True
    """
    if not isinstance(protocol, FrequencyProtocol):
        raise InvalidTypeError(
            f"protocol must be a protocol such as OUE(k, epsilon), got {type(protocol).__name__}."
        )
    users = np.asarray(hist)
    if users.shape != (protocol.k,) or users.dtype.kind not in "iu" or int(users.min()) < 0:
        raise DataError(
            f"hist must hold {protocol.k} counts of users, non-negative integers, one per value."
        )
    users = users.astype(np.int64)
    stream = secret_stream(noise_random_state)
    n, p, q = int(users.sum()), protocol.p_, protocol.q_
    if isinstance(protocol, UnaryProtocol):
        rng = stream.generator()
        return np.asarray(rng.binomial(users, p) + rng.binomial(n - users, q), dtype=np.int64)
    if type(protocol) is GRR:
        rng = stream.generator()
        true = rng.binomial(users, p - q)
        rest = rng.multinomial(n - int(true.sum()), np.full(protocol.k, 1 / protocol.k))
        return np.asarray(true + rest, dtype=np.int64)
    values = np.repeat(np.arange(protocol.k), users)
    tally = np.zeros(protocol.tally_size, dtype=np.int64)
    for start in range(0, n, _PIECE):
        tally += protocol.tally(protocol.randomise(values[start : start + _PIECE], stream))
    return protocol.support_of(tally, n)
