"""Two streams that never meet: the secret one for noise, the seeded one for all else.

Everything that a privacy guarantee rests on (noise, Poisson sampling, canary inclusion, local
randomisers) is drawn from :func:`secret_stream`. Everything else (initial weights, splits,
bootstrap, permutations) follows ``random_state`` through :func:`check_random_state`. Neither
reaches the other: a published seed must not allow the noise to be drawn again.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

__all__ = ["SecretStream", "check_random_state", "secret_stream"]

_POOL_BYTES = 1 << 16
_LIVE: weakref.WeakSet[SecretStream] = weakref.WeakSet()


class SecretStream:
    """A source of secret random bits.

    Unseeded, every bit comes from the operating system, directly (:meth:`bytes`,
    :meth:`uint64`) or through a counter-based Philox generator under a fresh 128-bit key
    (:meth:`generator`). A fork drops what is buffered, so that a child process never repeats
    its parent's noise. Streams are not picklable and never show their state.

    Parameters
    ----------
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes the stream repeatable and every guarantee that
        rests on it ``seeded``.

    Attributes
    ----------
    seeded : bool
        Whether the stream is repeatable.
    forks : int
        How often this process has been forked since the stream was made: whoever holds what was
        drawn from the stream drops it when the number changes.
    """

    def __init__(self, noise_random_state: int | None = None) -> None:
        self.seeded = noise_random_state is not None
        self.forks = 0
        self._lock = threading.Lock()
        self._pool = b""
        self._at = 0
        self._seeds: np.random.SeedSequence | None = None
        self._replay: np.random.Generator | None = None
        if noise_random_state is not None:
            if isinstance(noise_random_state, bool) or not isinstance(
                noise_random_state, int | np.integer
            ):
                raise InvalidTypeError(
                    "noise_random_state must be None (secret noise) or a non-negative int (a "
                    f"repeatable test), got {type(noise_random_state).__name__}."
                )
            if noise_random_state < 0:
                raise InvalidParameterError(
                    "noise_random_state must be a non-negative int, got a negative one."
                )
            self._seeds = np.random.SeedSequence(int(noise_random_state))
            self._replay = self.generator()
        _LIVE.add(self)

    def bytes(self, n: int) -> bytes:
        """Return ``n`` secret random bytes."""
        if self._replay is not None:
            return self._replay.bytes(n)
        if n > _POOL_BYTES:
            return os.urandom(n)
        with self._lock:  # two threads must never be given the same bytes
            if self._at + n > len(self._pool):
                self._pool, self._at = os.urandom(_POOL_BYTES), 0
            taken = self._pool[self._at : self._at + n]
            self._at += n
        return taken

    def uint64(self, size: int | tuple[int, ...]) -> NDArray[np.uint64]:
        """Return an array of independent, uniform 64-bit words."""
        count = int(np.prod(size))
        words = np.frombuffer(self.bytes(8 * count), dtype=np.uint64)
        return words.reshape(size).copy()

    def generator(self) -> np.random.Generator:
        """Return a counter-based generator under a fresh 128-bit key, one per release."""
        if self._seeds is not None:
            key = self._seeds.spawn(1)[0].generate_state(2, np.uint64)
        else:
            key = np.frombuffer(os.urandom(16), dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    def _drop(self) -> None:
        self.forks += 1
        self._lock = threading.Lock()  # the old one may have been held when the process forked
        self._pool, self._at = b"", 0

    def __repr__(self) -> str:
        return f"SecretStream(seeded={self.seeded})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a SecretStream is never pickled or copied: its state would let the noise be drawn "
            "again. Make a new one with secret_stream() in the process that needs it."
        )


def _drop_all() -> None:
    for stream in list(_LIVE):
        stream._drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_all)


def secret_stream(noise_random_state: int | None = None) -> SecretStream:
    """Return a new stream of secret randomness.

    Parameters
    ----------
    noise_random_state : int or None, default=None
        None draws from the operating system's entropy. An int makes the stream repeatable, for
        tests and benchmarks; whatever is released from it is marked SEEDED and not certified.

    Returns
    -------
    SecretStream

    Examples
    --------
    >>> secret_stream().bytes(16) == secret_stream().bytes(16)
    False
    >>> secret_stream(7).bytes(16) == secret_stream(7).bytes(16)
    True
    """
    return SecretStream(noise_random_state)


def check_random_state(random_state: Any = None) -> np.random.Generator:
    """Return a generator for what no guarantee depends on.

    Parameters
    ----------
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
        A legacy ``RandomState`` (as scikit-learn passes) only seeds a new generator.

    Examples
    --------
    >>> check_random_state(0).integers(10) == check_random_state(0).integers(10)
    np.True_
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None:
        return np.random.default_rng()
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        raise InvalidTypeError(
            "random_state must be None, an int, a numpy Generator or a RandomState, got "
            f"{type(random_state).__name__}."
        )
    if random_state < 0:
        raise InvalidParameterError(f"random_state must be non-negative, got {random_state}.")
    return np.random.default_rng(int(random_state))
