"""The mutation audit: six classical bugs, planted in our own code, must all be found.

Each case attacks the certificate that the code itself states (``cost()`` or the plan), on two
neighbouring inputs, first as it is and then with the bug. Null hypothesis: the certificate holds;
false-alarm rate 1e-6 per audit. Power: with ten other seeds each, no bug was missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from privfair.accounting import guarantee
from privfair.accounting.events import PureDP
from privfair.auditing import AttackResult, audit_engine, audit_engine_step, audit_mechanism
from privfair.core.randomness import secret_stream
from privfair.mechanisms import DiscreteLaplaceMechanism, DPHistogram, HardenedGaussian
from privfair.mechanisms import _aggregates as aggregates
from privfair.mechanisms import _discrete as discrete
from privfair.mechanisms import _sampling as sampling
from privfair.training import TrainingPlan

Patch = pytest.MonkeyPatch


# -- what is attacked -----------------------------------------------------------------------
def laplace(seed: int = 1, n: int = 100_000) -> AttackResult:
    """A count with discrete Laplace noise of scale 1, many independent ones in one array."""
    mechanism = DiscreteLaplaceMechanism(1.0, size=n, noise_random_state=seed)
    first, second = (mechanism.release(np.full(n, v)) for v in (0, 1))
    return audit_mechanism(first, second, certified=guarantee(mechanism.cost(), delta=0.0))


def small_laplace(seed: int = 2) -> AttackResult:
    """The same through the reference sampler, one number at a time."""
    source = sampling.BitSource(secret_stream(seed).uint64)
    draws = [
        [sampling.discrete_laplace_scalar(Fraction(1), source) + v for _ in range(8_000)]
        for v in (0, 1)
    ]
    cost = DiscreteLaplaceMechanism(1.0).cost()
    return audit_mechanism(*draws, certified=guarantee(cost, delta=0.0))


def sparse_vector(reuse: bool, seed: int = 3, n: int = 60_000) -> AttackResult:
    """Sparse vector technique at epsilon 1 on three queries, from our exact noise.

    Threshold noise 2, query noise 4; with ``reuse`` the queries get the threshold's noise.
    """
    stream = secret_stream(seed)

    def draw(value: int) -> np.ndarray:
        threshold = sampling.discrete_laplace(2, n, stream)
        fresh = sampling.discrete_laplace(4, 3 * n, stream).reshape(n, 3)
        noise = np.repeat(threshold[:, None], 3, axis=1) if reuse else fresh
        over = value + noise >= threshold[:, None] + 1
        return np.where(over.any(axis=1), over.argmax(axis=1), 3)

    return audit_mechanism(draw(0), draw(1), certified=guarantee(PureDP(1.0), delta=0.0))


def histogram(seed: int = 4, n: int = 15_000) -> AttackResult:
    """A record that moves from one cell to the other; the difference of the two is looked at."""
    mechanism = DPHistogram(
        {"a": [0, 1]}, epsilon=1, neighboring="replace_one", noise_random_state=seed
    )
    claim = guarantee(mechanism.cost(), delta=0.0, neighboring="replace_one")
    stated = guarantee(PureDP(0.5), delta=0.0, neighboring="replace_one")  # what was asked for
    assert claim.epsilon >= stated.epsilon * (1 - 1e-12)
    draws = [
        [int(np.diff(mechanism.release_counts(np.array(cells)))[0]) for _ in range(n)]
        for cells in ([5, 0], [4, 1])
    ]
    return audit_mechanism(*draws, certified=stated)


def engine_step(seed: int = 5) -> AttackResult:
    """One step of training on chosen gradients, a thousand times."""
    plan = TrainingPlan(10, 10, 1, 1.0, 1.0)
    return audit_engine_step(plan, draws=1000, pairs=("dirac",), noise_random_state=seed)


# -- the six bugs ---------------------------------------------------------------------------
@contextmanager
def _patched(target: Any, name: str, value: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, value)
        yield


def scale_too_small() -> AbstractContextManager[None]:
    real = discrete.discrete_laplace
    return _patched(
        discrete, "discrete_laplace", lambda scale, n, stream: real(scale * 4 / 5, n, stream)
    )


def zero_drawn_twice() -> AbstractContextManager[None]:
    return _patched(sampling, "_accept_signed", lambda negative, magnitude: True)


def factor_forgotten() -> AbstractContextManager[None]:
    once = aggregates._MOVED["vector"]["zero_out"]
    wrong = {**aggregates._MOVED, "vector": dict.fromkeys(aggregates._MOVED["vector"], once)}
    return _patched(aggregates, "_MOVED", wrong)


def not_clipped() -> AbstractContextManager[None]:
    import privfair.training._closed_form as closed_form

    real = closed_form.clip_factors
    return _patched(closed_form, "clip_factors", lambda *a: torch.ones_like(real(*a)))


def noise_per_micro_batch(pieces: int = 4) -> AbstractContextManager[None]:
    """Each of k micro-batches gets noise of sigma / k, so that the sum lacks a factor sqrt(k)."""
    real = HardenedGaussian.noise

    def noise(self: HardenedGaussian) -> Any:
        return np.rint(sum(real(self) / pieces for _ in range(pieces)))

    return _patched(HardenedGaussian, "noise", noise)


@dataclass(frozen=True)
class Case:
    honest: Callable[..., AttackResult]
    broken: Callable[..., AttackResult]
    bug: Callable[[], AbstractContextManager[None]]
    epsilon: float  # that of the broken mechanism is at least this, where it is known


SIX = {
    "Laplace noise of 0.8 of the scale": Case(laplace, laplace, scale_too_small, 1.25),
    "sparse vector that reuses its noise": Case(
        partial(sparse_vector, False), partial(sparse_vector, True), nullcontext, math.inf
    ),
    "(negative, 0) not rejected": Case(
        small_laplace, small_laplace, zero_drawn_twice, 1 + math.log(2)
    ),
    "factor 2 of replacement missing": Case(histogram, histogram, factor_forgotten, 2.0),
    "gradient not clipped": Case(engine_step, engine_step, not_clipped, math.inf),
    "noise of sigma / k for each of k micro-batches": Case(
        engine_step, engine_step, noise_per_micro_batch, 0.0
    ),
}


def test_there_are_six() -> None:
    assert len(SIX) == 6


@pytest.mark.statistical
@pytest.mark.parametrize("name", SIX)
def test_the_bug_is_found_and_the_code_as_it_is_is_not_accused(name: str) -> None:
    case = SIX[name]
    honest = case.honest()
    assert not honest.violated, str(honest)
    assert "no violation found" in str(honest)
    with case.bug():
        broken = case.broken()
    assert broken.violated, str(broken)
    assert broken.lower_epsilon is not None
    if 0 < case.epsilon < math.inf:
        assert broken.lower_epsilon <= case.epsilon  # the bound itself stays valid


@pytest.mark.statistical
def test_one_run_finds_gradients_that_are_not_clipped() -> None:
    """The auditor of a single training run, without repeats, at a noise of six times the bound."""
    plan = TrainingPlan(2000, 2000, 1, 1.0, 6.0)

    def audit() -> AttackResult:
        return audit_engine(plan, n_canaries=2000, delta=1e-5, noise_random_state=6)

    assert not audit().violated
    with not_clipped():
        assert audit().violated
