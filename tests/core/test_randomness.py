"""The secret stream is secret, fresh everywhere, and never meets random_state."""

import copy
import multiprocessing as mp
import os
import pickle

import numpy as np
import pytest

from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.core.randomness import SecretStream, check_random_state, secret_stream

pytestmark = pytest.mark.entropy


def test_unseeded_streams_never_repeat():
    draws = {secret_stream().bytes(16) for _ in range(200)}
    draws |= {secret_stream().generator().bytes(16) for _ in range(200)}
    assert len(draws) == 400


def test_global_seeding_does_not_reach_the_stream():
    np.random.seed(0)  # noqa: NPY002 - the point of the test
    first = secret_stream().uint64(4)
    np.random.seed(0)  # noqa: NPY002
    assert not np.array_equal(first, secret_stream().uint64(4))


def test_a_seeded_stream_repeats_and_says_so():
    a, b = secret_stream(3), secret_stream(3)
    assert a.seeded
    assert not secret_stream().seeded
    assert np.array_equal(a.uint64(8), b.uint64(8))
    assert np.array_equal(a.generator().normal(size=4), b.generator().normal(size=4))


def test_each_generator_has_its_own_key_even_when_seeded():
    stream = secret_stream(3)
    assert not np.array_equal(stream.generator().bytes(32), stream.generator().bytes(32))


def test_a_fork_does_not_repeat_its_parent():
    stream = secret_stream()
    stream.bytes(8)  # fills the pool, so that an unprotected child would repeat it
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - child process
        os.write(write, stream.bytes(32))
        os._exit(0)
    os.waitpid(pid, 0)
    child = os.read(read, 32)
    os.close(read)
    os.close(write)
    assert len(child) == 32
    assert child != stream.bytes(32)


def _draw(queue):
    queue.put(secret_stream().bytes(32))


def test_spawned_workers_differ():
    context = mp.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_draw, args=(queue,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    draws = {queue.get(timeout=800) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(draws) == 3


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_state_is_never_copied(copier):
    with pytest.raises(TypeError, match="never pickled"):
        copier(secret_stream())


def test_repr_shows_no_state():
    assert repr(SecretStream(5)) == "SecretStream(seeded=True)"


@pytest.mark.parametrize("bad", [True, 1.5, "0"])
def test_bad_seeds(bad):
    with pytest.raises(InvalidTypeError):
        secret_stream(bad)
    with pytest.raises(InvalidTypeError):
        check_random_state(bad)


def test_negative_seeds():
    with pytest.raises(InvalidParameterError):
        secret_stream(-1)
    with pytest.raises(InvalidParameterError):
        check_random_state(-1)


def test_long_reads_bypass_the_pool_and_have_the_right_length():
    assert len(secret_stream().bytes(200_000)) == 200_000
    assert secret_stream().uint64((3, 5)).shape == (3, 5)


def test_check_random_state_takes_what_scikit_learn_passes():
    legacy = np.random.RandomState(0)
    assert isinstance(check_random_state(legacy), np.random.Generator)
    generator = np.random.default_rng(0)
    assert check_random_state(generator) is generator


def test_threads_share_a_stream_and_no_bytes() -> None:
    import threading

    stream, drawn = secret_stream(), []

    def draw() -> None:
        drawn.extend([stream.bytes(8) for _ in range(5000)])

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 40_000
    assert {len(item) for item in drawn} == {8}
