"""Noise for the releases to come: each under its own key, drawn before it is asked for.

Noise does not depend on what it is added to, so that it can be drawn early. A short vector costs
mostly overhead, so several releases are drawn in one pass. It does not change the noise: release
i is what :meth:`TableSampler.draw` yields under the i-th key, bit for bit.

What is held is at most :data:`_PASS` integers, in the memory of this process; a forked child
drops it and draws its own.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privfair.mechanisms._sampling import BitSource

if TYPE_CHECKING:
    from privfair.core.randomness import SecretStream
    from privfair.mechanisms._lattice import TableSampler

__all__ = ["NoiseAhead", "SeveralSources"]

_PASS = 1 << 13  # coordinates drawn in one pass
_MOST = 64  # releases drawn in one pass
_PATIENCE = 3  # times in a row that the second thread may take longer than none would
_ALONE = 2  # releases drawn when asked for: a mechanism that is used once or twice draws no more


class SeveralSources(BitSource):
    """Bits of several sources, each for its own places of one array.

    Parameters
    ----------
    sources : list of BitSource
    owner : ndarray of int
        The source of each place, in increasing order.
    """

    def __init__(self, sources: list[BitSource], owner: NDArray[np.intp]) -> None:
        self._sources, self._owner = sources, owner
        super().__init__(self._words)

    def _words(self, n: int) -> NDArray[np.uint64]:
        if n != len(self._owner):
            raise ValueError("several sources give one word to each of their places")
        counts = np.bincount(self._owner).tolist()
        return np.concatenate(
            [source.words(k) for source, k in zip(self._sources, counts, strict=False) if k]
        )

    def at(self, place: int) -> BitSource:
        """Return the source of one place."""
        source: BitSource = self._sources[self._owner[place]]
        return source

    def part(self, places: NDArray[np.intp]) -> BitSource:
        """Return the sources of some places."""
        return SeveralSources(self._sources, self._owner[places])


class NoiseAhead:
    """The noise of one mechanism's releases, one after the other.

    Parameters
    ----------
    sampler : TableSampler
        The law.
    size : int
        Coordinates of a release.
    stream : SecretStream
        Gives every release its key.
    """

    def __init__(self, sampler: TableSampler, size: int, stream: SecretStream) -> None:
        self._sampler, self._size, self._stream = sampler, size, stream
        # Only popleft takes from it, which hands out nothing twice, whatever thread calls.
        self._ready: deque[NDArray[np.int64]] = deque()
        self._forks = stream.forks
        self._given = 0
        self._most = max(1, min(_MOST, _PASS // size))

    def take(self) -> NDArray[np.int64]:
        """Return the noise of the next release."""
        if self._forks != self._stream.forks:  # forked: what is here is the parent's
            self._ready, self._forks = deque(), self._stream.forks
        self._given += 1
        try:
            return self._ready.popleft()
        except IndexError:
            early = self._given > _ALONE
            block = self.draw(min(self._most, self._given) if early else 1)
            self._ready.extend(block[1:])
            first: NDArray[np.int64] = block[0]
            return first

    def draw(self, releases: int) -> NDArray[np.int64]:
        """Return the noise of several releases, one a row, each under a new key."""
        # A new key for each release, so that no key's output is ever used twice and a key that
        # leaked would tell one release only.
        sources = [
            BitSource(self._stream.generator().bit_generator.random_raw) for _ in range(releases)
        ]
        if releases == 1:
            return self._sampler.draw(self._size, sources[0])[None]
        owner = np.repeat(np.arange(releases), self._size)
        drawn = self._sampler.draw(len(owner), SeveralSources(sources, owner))
        return drawn.reshape(releases, self._size)
