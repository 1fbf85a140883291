"""The device: raw values in, randomised reports out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.core.randomness import secret_stream
from privfair.ldp._protocol import FrequencyProtocol, check_values
from privfair.ldp._reports import Reports

__all__ = ["Client", "randomize"]


def _checked(protocol: object) -> FrequencyProtocol:
    if not isinstance(protocol, FrequencyProtocol):
        raise InvalidTypeError(
            f"protocol must be a protocol such as OUE(k, epsilon), got {type(protocol).__name__}."
        )
    if protocol.longitudinal:
        raise InvalidParameterError(
            f"{protocol.name} needs its memos kept: reports without them would reveal the value "
            "after a few. Use LongitudinalClient on a device, or LongitudinalPopulation to "
            "simulate many."
        )
    return protocol


def randomize(
    protocol: FrequencyProtocol, values: ArrayLike, *, noise_random_state: int | None = None
) -> Reports:
    """Return one report for each of many users, each of whom holds one value.

    Parameters
    ----------
    protocol : FrequencyProtocol
    values : array-like of int, shape (n,)
        In [0, k): positions in the public list of categories, one per user.
    noise_random_state : int or None, default=None
        None draws from the operating system's entropy. An int makes the reports repeatable, for
        tests and benchmarks only.

    Returns
    -------
    Reports

    Raises
    ------
    InvalidParameterError, InvalidTypeError
        Values outside the domain, or no integers; quotes none of them.

    Notes
    -----
    For simulation and for data that are already in one place. Each user spends
    ``protocol.epsilon``; a user with two values here spends twice that. On a device use
    :class:`Client`, which counts.

    Examples
    --------
    >>> from privfair.ldp import GRR
    >>> len(randomize(GRR(3, 1.0), [0, 1, 2, 2]))
    4
    """
    protocol = _checked(protocol)
    checked = check_values(values, protocol.k)
    return Reports(protocol, protocol.randomise(checked, secret_stream(noise_random_state)))


class Client:
    """One user's device, for protocols without a memory: every report is paid for.

    Parameters
    ----------
    protocol : FrequencyProtocol
    noise_random_state : int or None, default=None
        None draws from the operating system's entropy; an int is for tests only.

    Attributes
    ----------
    n_reports_ : int
        Reports made so far.

    Notes
    -----
    Reports of one user about one fixed value average out: after T of them the server knows it
    with T epsilon. Use a longitudinal protocol for values that are collected again and again.

    Examples
    --------
    >>> from privfair.ldp import GRR
    >>> client = Client(GRR(3, 1.0))
    >>> report = client.privatize([2])
    >>> len(report), client.epsilon_spent()
    (1, 1.0)
    """

    def __init__(
        self, protocol: FrequencyProtocol, *, noise_random_state: int | None = None
    ) -> None:
        self.protocol = _checked(protocol)
        self._stream = secret_stream(noise_random_state)
        self.n_reports_ = 0

    def privatize(self, values: ArrayLike) -> Reports:
        """Return one report per value, all of this user; each spends ``protocol.epsilon``."""
        checked = check_values(np.atleast_1d(np.asarray(values)), self.protocol.k)
        self.n_reports_ += len(checked)  # before the draw: what fails afterwards is spent
        return Reports(self.protocol, self.protocol.randomise(checked, self._stream))

    def epsilon_spent(self) -> float:
        """Return what this user has spent: the epsilons of all reports together."""
        return self.n_reports_ * self.protocol.epsilon
