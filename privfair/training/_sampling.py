"""Poisson sampling of batches, exactly at (never above) the probability that is accounted."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.randomness import SecretStream

if TYPE_CHECKING:
    from privfair.training._plan import TrainingPlan

__all__ = ["CyclicPoissonSampler", "PoissonSampler", "make_sampler"]

_WORD = 1 << 64
_REST = 1 << 56


class PoissonSampler:
    """Draw each record into each batch independently with one public probability.

    Parameters
    ----------
    n_rows : int
        Number of records that can be drawn.
    sample_rate : float
        The probability, in (0, 1], of each record at each step.
    stream : SecretStream
        Where the random bits come from. Which records were drawn must stay secret: the
        amplification that the accountant uses rests on it.

    Attributes
    ----------
    probability : fractions.Fraction
        The probability that is really used, ``floor(sample_rate * 2**64) / 2**64``: at most
        ``sample_rate`` and less than 2**-64 below it.

    Notes
    -----
    A record is drawn when a uniform 64-bit integer falls below ``floor(sample_rate * 2**64)``.
    Only its first byte is drawn for every record; the other 56 bits are drawn for the one
    record in 256 whose first byte leaves the comparison open. No float is compared, so that the
    probability is a known rational, and the privacy bound, which increases with the sampling
    probability, holds. Cost: one random byte and one comparison per record.

    Examples
    --------
    >>> from privfair.core import secret_stream
    >>> sampler = PoissonSampler(10_000, 0.1, secret_stream())
    >>> 500 < len(sampler.sample()) < 1_500
    True
    """

    def __init__(self, n_rows: int, sample_rate: float, stream: SecretStream) -> None:
        self.n_rows = check.non_negative_int(n_rows=n_rows)
        self.sample_rate = check.sample_rate(sample_rate=sample_rate)
        self._threshold = int(Fraction(self.sample_rate) * _WORD)
        self.probability = Fraction(self._threshold, _WORD)
        self._stream = stream

    def sample(self) -> NDArray[np.int64]:
        """Return the positions of the records of one batch, in increasing order."""
        if self._threshold == _WORD:
            return np.arange(self.n_rows)
        first, rest = divmod(self._threshold, _REST)
        digits = np.frombuffer(self._stream.bytes(self.n_rows), dtype=np.uint8)
        chosen = digits < first
        open_ = np.flatnonzero(digits == first)
        if len(open_) and rest:
            tail = self._stream.uint64(len(open_)) >> np.uint64(8)
            chosen[open_] = tail < np.uint64(rest)
        return np.flatnonzero(chosen)


class CyclicPoissonSampler:
    """Draw each batch from one of several groups of records, the groups taking turns.

    Parameters
    ----------
    n_rows : int
        Number of records that can be drawn.
    sample_rate : float
        The probability, in (0, 1], of each record at the steps at which its group has its turn.
    groups : int
        Number of groups; a record takes part at most every ``groups`` steps.
    stream : SecretStream
        Where the random bits come from. Each record's group is drawn once, on its own, so that
        it depends neither on the records nor on their number.

    References
    ----------
    Choquette-Choo et al., 2023, arXiv:2306.08153, section 4 (cyclic Poisson sampling).

    Examples
    --------
    >>> from privfair.core import secret_stream
    >>> sampler = CyclicPoissonSampler(10_000, 0.4, 4, secret_stream())
    >>> batches = [set(sampler.sample()) for _ in range(4)]
    >>> batches[0] & batches[1]
    set()
    """

    def __init__(self, n_rows: int, sample_rate: float, groups: int, stream: SecretStream) -> None:
        self.groups = check.positive_int(groups=groups)
        self._sampler = PoissonSampler(n_rows, sample_rate, stream)
        self.probability = self._sampler.probability
        self._group = stream.uint64(n_rows) % np.uint64(self.groups)
        self._step = 0

    def sample(self) -> NDArray[np.int64]:
        """Return the positions of the records of one batch, in increasing order."""
        rows = self._sampler.sample()
        turn = np.uint64(self._step % self.groups)
        self._step += 1
        return rows[self._group[rows] == turn]


def make_sampler(
    plan: TrainingPlan, n_rows: int, stream: SecretStream
) -> PoissonSampler | CyclicPoissonSampler:
    """Return the sampler that a plan accounts for."""
    if plan.correlation is None:
        return PoissonSampler(n_rows, plan.sample_rate, stream)
    turns = plan.correlation.bands
    return CyclicPoissonSampler(n_rows, plan.accounted_sample_rate, turns, stream)
