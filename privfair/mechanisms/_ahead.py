"""Noise for the releases to come: each under its own key, drawn before it is asked for.

Noise does not depend on what it is added to, so that it can be drawn early. A short vector costs
mostly overhead, so several releases are drawn in one pass; a long one is drawn by a second thread
while the caller computes the next sum. Neither changes the noise: release i is what
:meth:`TableSampler.draw` yields under the i-th key, bit for bit.

What is held is at most :data:`_PASS` integers or two releases, in the memory of this process;
a forked child drops it and draws its own.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privfair.mechanisms._sampling import BitSource

if TYPE_CHECKING:
    from privfair.core.randomness import SecretStream
    from privfair.mechanisms._lattice import TableSampler

__all__ = ["NoiseAhead", "SeveralSources"]

_LONG = 1 << 12  # coordinates from which a second thread draws
_PASS = 1 << 13  # coordinates drawn in one pass, below that
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

    Attributes
    ----------
    second_thread : bool
        Whether a second thread draws long releases: where there is a second core, until it turns
        out to be busy with other things.
    """

    def __init__(self, sampler: TableSampler, size: int, stream: SecretStream) -> None:
        self._sampler, self._size, self._stream = sampler, size, stream
        # What is ready or being drawn. Only popleft takes from it, which hands out nothing twice,
        # whatever thread calls.
        self._ready: deque[NDArray[np.int64] | Future[NDArray[np.int64]]] = deque()
        self._forks = stream.forks
        self._given = 0
        self._most = max(1, min(_MOST, _PASS // size))
        self._worker: ThreadPoolExecutor | None = None
        self.second_thread = _cores() > 1
        self._seconds = 0.0  # what a draw takes without the second thread
        self._late = 0

    def take(self) -> NDArray[np.int64]:
        """Return the noise of the next release."""
        if self._forks != self._stream.forks:
            # Forked: what is here is the parent's, and so is its thread.
            self._ready, self._worker, self._forks = deque(), None, self._stream.forks
        self._given += 1
        early = self._given > _ALONE
        try:
            first = self._ready.popleft()
        except IndexError:
            if self._size < _LONG:
                block = self.draw(min(self._most, self._given) if early else 1)
                first = block[0]
                self._ready.extend(block[1:])
            else:
                began = time.perf_counter()
                first = self._one()
                self._seconds = time.perf_counter() - began
        if isinstance(first, Future):
            first = self._awaited(first)
        if early and self._size >= _LONG and self.second_thread:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="privfair-noise")
            self._ready.append(self._worker.submit(self._one))
        return first

    def _awaited(self, drawn: Future[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return what the second thread draws; do without that thread where it gets no core.

        Public times alone decide, and the noise is the same either way.
        """
        if drawn.cancel():  # not begun: the key that it would have taken is taken here
            self._late += 1
            noise = self._one()
        else:
            began = time.perf_counter()
            noise = drawn.result()
            late = time.perf_counter() - began > self._seconds
            self._late = self._late + 1 if late else 0
        if self._late >= _PATIENCE:
            self.second_thread = False
        return noise

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

    def _one(self) -> NDArray[np.int64]:
        noise: NDArray[np.int64] = self.draw(1)[0]
        return noise


def _cores() -> int:
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
