"""Integer mechanisms and aggregates: sensitivity, price, saturation, attacks, order of steps."""

from __future__ import annotations

import math
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.accounting import guarantee
from privfair.core import Categorical, Numeric, Schema
from privfair.core.exceptions import (
    BudgetExceededError,
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
)
from privfair.mechanisms import (
    DiscreteGaussianMechanism,
    DiscreteLaplaceMechanism,
    DPCount,
    DPCovariance,
    DPHistogram,
    DPMean,
    DPQuantile,
    DPSetDiscovery,
    DPSum,
    DPVariance,
    ExponentialMechanism,
    HardenedGaussian,
    PermuteAndFlip,
)
from privfair.mechanisms import _discrete as discrete
from tests.helpers_dp_tester import refuted

ALL = {
    "gaussian": (lambda: DiscreteGaussianMechanism(3.0), 5),
    "laplace": (lambda: DiscreteLaplaceMechanism(3.0), 5),
    "count": (lambda: DPCount(epsilon=1), [1, 2]),
    "sum": (lambda: DPSum(0, 1, epsilon=1), [0.5, 0.5]),
    "mean": (lambda: DPMean(0, 1, epsilon=1), [0.5, 0.5]),
    "variance": (lambda: DPVariance(0, 1, rho=1, neighboring="add_remove"), [0.5, 0.5]),
    "covariance": (lambda: DPCovariance(2, 1, rho=1), [[0.5, 0.5], [0.1, 0.2]]),
    "histogram": (lambda: DPHistogram({"a": [0, 1]}, epsilon=1), {"a": [0, 1, 1]}),
    "quantile": (lambda: DPQuantile(0.5, 0, 1, epsilon=1), [0.5, 0.5]),
    "exponential": (lambda: ExponentialMechanism(2, 1.0), [0.5, 0.5]),
    "permute and flip": (lambda: PermuteAndFlip(2, 1.0), [0.5, 0.5]),
    "discovery": (lambda: DPSetDiscovery(1, 1e-3), ["a", "b"]),
    "hardened": (lambda: HardenedGaussian(1.0, 1.0, 2), [0.5, 0.5]),
}
everything = pytest.mark.parametrize(("make", "value"), ALL.values(), ids=ALL)


class Recorder:
    """A ledger that writes down what happens, and may refuse."""

    def __init__(self, refuse=False):
        self.log, self.refuse = [], refuse

    @contextmanager
    def spend(self, event, *, purpose="", **kwargs):
        if self.refuse:
            raise BudgetExceededError("no budget is left")
        self.log.append(("charged", event, purpose))
        yield None
        self.log.append(("released", event, purpose))


# -- the order of steps -------------------------------------------------------------------
@everything
def test_the_charge_comes_before_the_draw(make, value, monkeypatch):
    mechanism, ledger = make(), Recorder()
    real = type(mechanism)._draw

    def draw(self, prepared):
        ledger.log.append(("drawn", None, ""))
        return real(self, prepared)

    monkeypatch.setattr(type(mechanism), "_draw", draw)
    mechanism.release(value, ledger=ledger, purpose="test")
    assert [step[0] for step in ledger.log if step[1] is not None or step[0] == "drawn"][0:2] == [
        "charged",
        "drawn",
    ]
    assert ledger.log[0][1] == mechanism.cost()
    assert ledger.log[0][2] == "test"


@everything
def test_a_refused_charge_draws_nothing(make, value, monkeypatch):
    mechanism = make()
    monkeypatch.setattr(
        type(mechanism), "_draw", lambda *_: pytest.fail("drawn without being charged")
    )
    with pytest.raises(BudgetExceededError):
        mechanism.release(value, ledger=Recorder(refuse=True))


@everything
def test_contract(make, value):
    mechanism = make()
    assert mechanism.numerics == ("hardened" if type(mechanism).__name__[0] == "H" else "exact")
    assert mechanism.sensitivity > 0
    assert mechanism.seeded is False
    once, thrice = (guarantee(mechanism.cost(k), delta=0.01).epsilon for k in (1, 3))
    assert 0 < once < thrice < math.inf
    with pytest.raises(TypeError, match="never pickled"):
        __import__("pickle").dumps(mechanism)


# -- prices -------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [0.1, 0.3, 1.0, 1 / 3, 7.7])
@pytest.mark.parametrize("neighboring", ["zero_out", "add_remove", "replace_one"])
def test_the_price_of_a_budget_is_the_budget(epsilon, neighboring):
    made = [
        DPCount(epsilon=epsilon, neighboring=neighboring),
        DPSum(-3, 7.3, epsilon=epsilon, neighboring=neighboring),
        DPHistogram({"a": [0, 1, 2]}, epsilon=epsilon, neighboring=neighboring),
        DPQuantile(0.3, 0, 1, epsilon, neighboring=neighboring),
    ]
    for mechanism in made:
        price = guarantee(mechanism.cost(), delta=0.0, neighboring=neighboring).epsilon
        assert 0.999 * epsilon <= price <= epsilon * (1 + 1e-12), type(mechanism).__name__


def test_the_price_of_rho():
    for rho in (0.01, 0.5, 1 / 3):
        for mechanism in (DPCount(rho=rho), DPSum(-3, 7.3, rho=rho)):
            sigma = mechanism.cost().sigma
            assert 0.999 * rho <= 1 / (2 * sigma**2) <= rho * (1 + 1e-12)


def test_histogram_sensitivity_by_relation():
    def made(neighboring, **budget):
        return DPHistogram({"a": [0, 1]}, neighboring=neighboring, **budget)

    for neighboring in ("zero_out", "add_remove"):
        assert made(neighboring, epsilon=1).sensitivity == 1
        assert made(neighboring, rho=1).sensitivity == pytest.approx(1)
        assert made(neighboring, epsilon=1).noise_scale == 1
    assert made("replace_one", epsilon=1).sensitivity == 2
    assert made("replace_one", epsilon=1).noise_scale == 2
    assert made("replace_one", rho=0.5).sensitivity == pytest.approx(math.sqrt(2))
    assert made("replace_one", rho=0.5).noise_scale == pytest.approx(math.sqrt(2))


def test_real_queries_pay_for_their_rounding():
    gaussian = DiscreteGaussianMechanism(8.0, 1.0, granularity=0.25, query="real", size=9)
    assert gaussian.sensitivity == 1.0 + 0.25 * 3
    assert gaussian.cost().sigma == pytest.approx(8.0 / 1.75)
    laplace = DiscreteLaplaceMechanism(8.0, 1.0, granularity=0.25, query="real", size=9)
    assert laplace.sensitivity == 1.0 + 0.25 * 9
    assert laplace.cost().sensitivity == 13
    assert laplace.cost().a == pytest.approx(0.25 / 8)
    assert DiscreteGaussianMechanism(8.0, 3, size=9).sensitivity == 3
    assert DiscreteGaussianMechanism(8.0, 3, size=9, granularity=4.0).sensitivity == 3 + 4 * 3


# -- sensitivity --------------------------------------------------------------------------
finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.floats() | st.sampled_from([1e16, -1e16, 1.0, 2.0**-40, np.inf, -np.inf, np.nan])


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(anything, max_size=30),
    extra=anything,
    bound=st.floats(0.01, 1e6),
    seed=st.integers(0, 2**32),
)
def test_a_sum_moves_by_at_most_one_contribution(values, extra, bound, seed):
    mechanism = DPSum(-bound, bound, epsilon=1)
    without = int(mechanism._prepare(np.array(values, dtype=float)))
    with_it = np.array([*values, extra], dtype=float)
    order = np.random.default_rng(seed).permutation(len(with_it))
    assert int(mechanism._prepare(with_it)) == int(mechanism._prepare(with_it[order]))
    moved = abs(int(mechanism._prepare(with_it)) - without)
    assert moved <= mechanism._contribution
    assert moved * mechanism.granularity <= mechanism.sensitivity <= bound


@settings(max_examples=300, deadline=None)
@given(
    pair=st.lists(st.tuples(finite, st.floats(-1, 1)), min_size=1, max_size=12),
    power=st.integers(-12, 3),
)
def test_rounded_vectors_stay_within_the_widened_sensitivity(pair, power):
    value = np.clip(np.array([a for a, _ in pair]), -1e6, 1e6)
    move = np.array([b for _, b in pair])
    size, step = len(pair), 2.0**power
    l2, l1 = float(np.linalg.norm(move)) + 1e-9, float(np.abs(move).sum()) + 1e-9
    gaussian = DiscreteGaussianMechanism(
        1e3, l2 + 2.0**-32, granularity=step, query="real", size=size
    )
    laplace = DiscreteLaplaceMechanism(
        1e3, l1 + size * 2.0**-32, granularity=step, query="real", size=size
    )
    first, second = gaussian._prepare(value), gaussian._prepare(value + move)
    assert np.linalg.norm((first - second) * step) <= gaussian.sensitivity * (1 + 1e-12)
    assert np.abs(laplace._prepare(value) - laplace._prepare(value + move)).sum() <= (
        laplace._sensitive_steps
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint64])
def test_integer_extremes_saturate(dtype):
    info = np.iinfo(dtype)
    mechanism = DiscreteGaussianMechanism(2.0**40, size=2, noise_random_state=0)
    out = mechanism.release(np.array([info.min, info.max], dtype=dtype))
    limit = discrete.VALUE_LIMIT
    expected = np.clip(np.array([info.min, info.max], dtype=object), -limit, limit)
    assert np.abs(out.astype(object) - expected).max() < 2**45  # no wrap
    assert abs(mechanism._prepare(np.array([info.max] * 2, dtype=dtype))[0]) <= limit


@given(a=st.integers(-(2**63), 2**63 - 1), b=st.integers(-(2**63), 2**63 - 1))
def test_clipping_integers_is_a_contraction(a, b):
    mechanism = DiscreteLaplaceMechanism(1.0)
    one, two = (int(mechanism._prepare(np.array(v, dtype=np.int64))) for v in (a, b))
    assert abs(one - two) <= abs(a - b)


def test_sums_of_extreme_contributions_do_not_wrap():
    mechanism = DPSum(0, 2.0**52, scale=2.0**51, granularity=1.0)
    rows = np.full(24 * 4096, 2.0**52)  # a multiple of 2**64, which wraps to zero
    assert int(mechanism._prepare(rows)) == discrete.VALUE_LIMIT
    assert int(mechanism._prepare(rows[:500])) == 500 * 2**52
    mixed = np.array([1e15, 0.5, -1e15] * 1000)  # plain float sums lose the halves
    exact = DPSum(-1e15, 1e15, scale=1e15, granularity=0.5)
    assert int(exact._prepare(mixed)) == 1000


def test_non_finite_values_go_to_a_bound():
    mechanism = DPSum(-1, 2, epsilon=1, granularity=2.0**-10)
    assert int(mechanism._prepare(np.array([np.nan]))) == -1024
    assert int(mechanism._prepare(np.array([np.inf]))) == 2048
    assert int(mechanism._prepare(np.array([-np.inf]))) == -1024
    real = DiscreteGaussianMechanism(1.0, granularity=2.0**-10, query="real", size=3)
    steps = real._prepare(np.array([np.nan, np.inf, -np.inf]))
    assert set(np.abs(steps).tolist()) == {discrete.VALUE_LIMIT}


# -- law and claims -----------------------------------------------------------------------
@pytest.mark.parametrize("scale", [Fraction(1), Fraction(5, 2)])
@pytest.mark.parametrize("moved", [1, 2])
def test_laplace_ratio_on_a_small_domain_is_exact(scale, moved):
    # With r = exp(-1/scale) as a formal base, log-ratios of the pmf are whole multiples of ln r.
    mechanism = DiscreteLaplaceMechanism(scale, moved)
    claimed = guarantee(mechanism.cost(), delta=0.0).epsilon
    exponents = [abs(x) - abs(x - moved) for x in range(-50, 51)]
    worst = Fraction(max(map(abs, exponents))) / scale
    assert worst == moved / scale
    assert float(worst) * (1 - 1e-12) <= claimed <= float(worst) * (1 + 1e-12)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
def test_gaussian_claim_on_a_small_domain(sigma):
    # The hockey-stick divergence of the pmf itself, both orders, tails included.
    mechanism = DiscreteGaussianMechanism(sigma)
    x = np.arange(-200, 201)
    p = np.exp(-(x**2) / (2 * sigma**2))
    p /= p.sum()
    q = np.roll(p, 1)
    for delta in (1e-2, 1e-5):
        epsilon = guarantee(mechanism.cost(), delta=delta).epsilon
        for a, b in ((p, q), (q, p)):
            assert np.maximum(a - math.exp(epsilon) * b, 0).sum() <= delta
    assert mechanism.cost().sigma == sigma


def _counts(**budget):
    def draw(n_records, n):
        made = DPCount(**budget)
        made._inner._stream = draw.stream
        return [made.release(n_records) for _ in range(n)]

    from privfair.core.randomness import secret_stream

    draw.stream = secret_stream(12)
    return draw


def _many(mechanism_class, **kwargs):
    def draw(value, n):
        made = mechanism_class(size=n, noise_random_state=17, **kwargs)
        return made.release(np.full(n, value)).tolist()

    return draw


@pytest.mark.statistical
def test_the_tester_finds_planted_bugs_and_spares_the_right_mechanism():
    # alpha = 1e-6 each; n = 4e4. Power: each planted bug moves delta(epsilon) by more than
    # 0.05 against a resolution of about 0.02.
    right = _many(DiscreteLaplaceMechanism, scale=1)
    assert not refuted(right, 0, 1, epsilon=1.0)
    assert refuted(_many(DiscreteLaplaceMechanism, scale=0.8), 0, 1, epsilon=1.0)
    assert refuted(right, 0, 2, epsilon=1.0)  # the missing factor 2 of replace_one

    def zero_twice(value, n):
        draws = np.array(right(0, 2 * n))
        keep = np.concatenate([draws[draws == 0], draws[:n]])  # twice the zeros
        return (np.random.default_rng(1).permutation(keep)[:n] + value).tolist()

    assert refuted(zero_twice, 0, 1, epsilon=1.0)
    gaussian = _many(DiscreteGaussianMechanism, sigma=2)
    epsilon = guarantee(DiscreteGaussianMechanism(2).cost(), delta=1e-3).epsilon
    assert not refuted(gaussian, 0, 1, epsilon, 1e-3)
    half = _many(DiscreteGaussianMechanism, sigma=0.5)
    assert refuted(half, 0, 1, epsilon, 1e-3)


@pytest.mark.statistical
def test_a_count_is_as_private_as_it_says():
    draw = _counts(epsilon=0.5)
    assert not refuted(draw, 100, 101, 0.5, n=4000)
    assert refuted(_counts(epsilon=2.0), 100, 101, 0.5, n=4000)


# -- attacks on floating point ------------------------------------------------------------
def _textbook_laplace(rng, value, n):
    return value - np.log(rng.integers(1, 2**53, n) * 2.0**-53)


def _reachable_from_zero(outputs):
    """Mironov 2012: which outputs could textbook noise on the value 0 have given?"""
    guess = np.rint(np.exp(-outputs) * 2.0**53)
    near = guess[:, None] + np.arange(-2, 3)
    near = np.clip(near, 1, 2.0**53 - 1)
    return (-np.log(near * 2.0**-53) == outputs[:, None]).any(axis=1)


@pytest.mark.statistical
def test_mironov_holes():
    rng = np.random.default_rng(0)
    assert _reachable_from_zero(_textbook_laplace(rng, 0.0, 20_000)).mean() > 0.99
    assert _reachable_from_zero(_textbook_laplace(rng, 1.0, 20_000)).mean() < 0.9
    # Ours: every grid point of the bulk is reached from both neighbours, and nothing else.
    made = DiscreteLaplaceMechanism(
        1.0, granularity=2.0**-4, query="real", size=400_000, noise_random_state=1
    )
    support = [set((made.release(np.full(400_000, v)) * 16).tolist()) for v in (0.0, 1.0)]
    bulk = {float(k) for k in range(-40, 57)}  # the rarest is expected 300 times
    assert bulk <= support[0]
    assert bulk <= support[1]
    assert all(float(k).is_integer() for k in support[0] | support[1])


def _low_bits(values, step):
    """Counts of trailing zero bits and of the last three bits, in units of the finest step."""
    units = np.rint(values / step).astype(np.int64)
    odd = units & -units
    zeros = np.where(units == 0, 20, np.log2(np.maximum(odd, 1)).astype(int)).clip(0, 12)
    return np.bincount(zeros, minlength=13), np.bincount(units & 7, minlength=8)


def _bits_differ(a, b):
    worst = 1.0
    for x, y in zip(a, b, strict=True):
        table = np.array([x, y])
        worst = min(worst, stats.chi2_contingency(table[:, table.sum(axis=0) > 20]).pvalue)
    return worst


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["gaussian", "laplace", "hardened"])
def test_precision_attack(kind):
    # Haney et al. 2022: the last bits of value + noise inherit the exponent of the larger
    # summand. H0: the last bits do not depend on the value. 4e5 draws, alpha = 1e-6; the
    # textbook float mechanism is refused with a p-value below 1e-100.
    n = 400_000
    if kind == "hardened":
        made = HardenedGaussian(1.0, 1.0, n, noise_random_state=2)
        step = made.grid
    else:
        step = 2.0**-20
        shape = DiscreteGaussianMechanism if kind == "gaussian" else DiscreteLaplaceMechanism
        made = shape(1.0, granularity=step, query="real", size=n, noise_random_state=2)
    bits = [_low_bits(made.release(np.full(n, value)), step) for value in (0.0, 1.0)]
    assert _bits_differ(*bits) > 1e-6
    rng = np.random.default_rng(3)
    textbook = [_low_bits(value + rng.standard_normal(n) * 0.1, 2.0**-56) for value in (0.0, 1.0)]
    assert _bits_differ(*textbook) < 1e-100


# -- input --------------------------------------------------------------------------------
ROWS = {"sex": ["F", "M", "M", "M"], "age": [20, 30, 70, 200]}
DOMAIN = Schema({"sex": Categorical(["F", "M"]), "age": Numeric(0, 99, bins=[25, 65])})


def test_histogram_counts_cells():
    made = DPHistogram(DOMAIN, scale=1e-6)  # so little noise that it is zero
    expected = [[1, 0, 0], [0, 1, 2]]
    assert made.release(ROWS).tolist() == expected
    assert made.release(pd.DataFrame(ROWS)).tolist() == expected
    assert made.release(pd.DataFrame(ROWS).iloc[:0]).sum() == 0
    assert made.release_counts(np.array(expected)).tolist() == expected
    pooled = DPHistogram({"c": Categorical(["a"], other="rest")}, scale=1e-6)
    assert pooled.release({"c": ["a", "b", None]}).tolist() == [1, 2]


def test_empty_cells_get_noise():
    made = DPHistogram({"a": list(range(1000))}, epsilon=0.1)
    assert (made.release({"a": [0]}) != 0).mean() > 0.9


def test_undeclared_values_are_an_error_that_shows_none_and_charges_nothing():
    ledger = Recorder()
    with pytest.raises(SchemaError, match="column 'sex'") as caught:
        DPHistogram(DOMAIN, epsilon=1).release({"sex": ["secret"], "age": [1]}, ledger=ledger)
    assert "secret" not in str(caught.value)
    assert not ledger.log


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: DPCount(), InvalidParameterError, "exactly one"),
        (lambda: DPCount(epsilon=1, rho=1), InvalidParameterError, "exactly one"),
        (lambda: DPCount(epsilon=-1), InvalidParameterError, "epsilon"),
        (lambda: DPCount(epsilon=float("nan")), InvalidParameterError, "epsilon"),
        (lambda: DPCount(epsilon=True), InvalidTypeError, "epsilon"),
        (lambda: DPCount(epsilon=1, neighboring="both"), InvalidParameterError, "neighboring"),
        (lambda: DPSum(1, 1, epsilon=1), InvalidParameterError, "low"),
        (lambda: DPSum(0, 1, epsilon=1, granularity=0.3), InvalidParameterError, "power of two"),
        (lambda: DPSum(0, 1, epsilon=1, granularity=4.0), InvalidParameterError, "coarser"),
        (lambda: DPSum(0, 1, epsilon=1, granularity=2.0**-60), InvalidParameterError, "fine"),
        (lambda: DPHistogram([0, 1], epsilon=1), InvalidTypeError, "domain"),
        (lambda: DPHistogram({"a": Numeric(0, 1)}, epsilon=1), SchemaError, "bins"),
        (
            lambda: DPHistogram({c: list(range(1000)) for c in "abc"}, epsilon=1),
            InvalidParameterError,
            "cells",
        ),
        (lambda: DiscreteGaussianMechanism(2.0**53), InvalidParameterError, "2\\*\\*52"),
        (
            lambda: DiscreteGaussianMechanism(1.0, granularity=2.0**-60, query="real"),
            InvalidParameterError,
            "2\\*\\*52",
        ),
        (
            lambda: DiscreteGaussianMechanism(1.0, granularity=0.5),
            InvalidParameterError,
            "integer",
        ),
        (lambda: DiscreteLaplaceMechanism(1.0, 0.5), InvalidParameterError, "below one step"),
    ],
)
def test_bad_parameters(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("make", "value", "error"),
    [
        (lambda: DiscreteGaussianMechanism(1.0), 1.5, InvalidTypeError),
        (lambda: DiscreteGaussianMechanism(1.0, size=2), [1, 2, 3], LengthMismatchError),
        (lambda: DPSum(0, 1, epsilon=1), ["a"], InvalidTypeError),
        (lambda: DPHistogram(DOMAIN, epsilon=1), np.zeros((3, 3)), DataError),
        (lambda: DPQuantile(0.5, 0, 1, 1), ["a"], InvalidTypeError),
    ],
)
def test_bad_values_charge_nothing(make, value, error):
    ledger = Recorder()
    with pytest.raises(error):
        make().release(value, ledger=ledger)
    assert not ledger.log


def test_counts_that_were_made_already_are_checked():
    made = DPHistogram(DOMAIN, epsilon=1)
    with pytest.raises(InvalidTypeError):
        made.release_counts(np.zeros((2, 3)))
    with pytest.raises(LengthMismatchError):
        made.release_counts(np.zeros((3, 2), dtype=int))
