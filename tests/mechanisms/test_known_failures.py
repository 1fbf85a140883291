"""Failures that really happened, one named test each: what broke others must not break here.

Each test first shows the failure on a textbook version, written here, and then that ours does
not have it; ``docs/sharp-edges/known-failures.md`` is the table of them.
"""

from __future__ import annotations

import copy
import io
import itertools
import logging
import math
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfair.core.exceptions import PrivfairError
from privfair.core.randomness import secret_stream
from privfair.mechanisms import (
    DiscreteGaussianMechanism,
    DiscreteLaplaceMechanism,
    DPCount,
    DPCovariance,
    DPHistogram,
    DPMean,
    DPQuantile,
    DPSum,
    DPVariance,
    ExponentialMechanism,
    HardenedGaussian,
    PermuteAndFlip,
    _lattice,
    _sampling,
    discrete_gaussian,
    discrete_laplace,
)
from privfair.mechanisms._grid import VALUE_LIMIT
from privfair.mechanisms._sampling import BitSource

ALPHA = 1e-6
MECHANISMS = {
    "gaussian": (lambda **k: DiscreteGaussianMechanism(2.0**40, size=2, **k), [5, 6]),
    "laplace": (lambda **k: DiscreteLaplaceMechanism(2.0**40, size=2, **k), [5, 6]),
    "count": (lambda **k: DPCount(epsilon=1e-9, **k), [1, 2]),
    "sum": (lambda **k: DPSum(0, 1, epsilon=1e-3, **k), [0.5]),
    "mean": (lambda **k: DPMean(0, 1, rho=1e-4, neighboring="add_remove", **k), [0.5] * 10**5),
    "variance": (lambda **k: DPVariance(0, 1, rho=1e-2, **k), [0.1, 0.9] * 1000),
    "covariance": (lambda **k: DPCovariance(2, 1, rho=1e-4, psd=False, **k), [[0.5, 0.1]] * 9),
    "histogram": (lambda **k: DPHistogram({"a": [0, 1]}, epsilon=1e-9, **k), {"a": [0, 1]}),
    "quantile": (lambda **k: DPQuantile(0.5, 0, 1, 1e-6, steps=2**16, **k), [0.5]),
    "exponential": (lambda **k: ExponentialMechanism(2**16, 1e-9, **k), np.zeros(2**16)),
    "permute": (lambda **k: PermuteAndFlip(2**16, 1e-9, **k), np.zeros(2**16)),
    "hardened": (lambda **k: HardenedGaussian(1e3, 1.0, 2, **k), [0.5, 0.5]),
}
everything = pytest.mark.parametrize("name", MECHANISMS)


def _draw(mechanism, value):
    # Four releases in a row: a choice among 2^16 alone is met again by chance once in 65,536
    # pairs, which is no failure; four of them once in 2^64.
    return b"".join(np.asarray(mechanism.release(value), dtype=float).tobytes() for _ in range(4))


def released(name):
    make, value = MECHANISMS[name]
    return _draw(make(), value)


# -- holes in the floats: Mironov 2012 ---------------------------------------------------------
def _textbook(rng, value, n):
    return value - np.log(rng.integers(1, 2**53, n) * 2.0**-53)


def _possible(outputs, value):
    """Which outputs can the textbook mechanism give on this value? Its inverse, checked."""
    guess = np.rint(np.exp(value - outputs) * 2.0**53)
    near = np.clip(guess[:, None] + np.arange(-3, 4), 1, 2.0**53 - 1)
    return (value - np.log(near * 2.0**-53) == outputs[:, None]).any(axis=1)


def _decided(outputs):
    """Return the share of outputs that only one of the values 0 and 1 can have given."""
    zero, one = _possible(outputs, 0.0), _possible(outputs, 1.0)
    return float((zero != one).mean())


@pytest.mark.statistical
def test_mironov_lattice_attack():
    # Two parties, f = 0 and f = 1, epsilon 1: the attacker names the party for certain wherever
    # only one of them can have sent the number. Textbook: in more than a fifth of the outputs,
    # and never wrongly. Ours: every output of either party can be one of the other's.
    rng = np.random.default_rng(1)
    for value, other in ((0.0, 1.0), (1.0, 0.0)):
        outputs = _textbook(rng, value, 20_000)
        assert _possible(outputs, value).mean() > 0.999
        assert (~_possible(outputs, other)).mean() > 0.05
    assert _decided(np.concatenate([_textbook(rng, v, 20_000) for v in (0.0, 1.0)])) > 0.05

    step, n = 2.0**-3, 300_000
    ours = [
        DiscreteLaplaceMechanism(
            1.0, granularity=step, query="real", size=n, noise_random_state=2
        ).release(np.full(n, v))
        for v in (0.0, 1.0)
    ]
    for outputs in ours:
        assert np.array_equal(outputs / step, np.rint(outputs / step))  # the grid, nothing else
    # Support on the part of the grid where each point is expected more than 100 times.
    bulk = np.arange(-5, 6, step)
    for outputs in ours:
        assert set(bulk.tolist()) <= set(outputs.tolist())
    # The same attack on ours names a party no better than epsilon allows: its answer is a
    # function of the output, and its rates differ by at most a factor e, up to 5 standard errors.
    rates = [
        float((_possible(o[:20_000], 0.0) & ~_possible(o[:20_000], 1.0)).mean()) for o in ours
    ]
    assert rates[0] <= math.e * rates[1] + 5 / math.sqrt(20_000)


# -- the exponent of the larger summand: Haney et al. 2022 -------------------------------------
def _trailing_zeros(outputs, step):
    units = np.rint(outputs / step).astype(np.int64)
    low = units & -units
    return np.bincount(
        np.where(units == 0, 63, np.log2(np.maximum(low, 1)).astype(int)), minlength=64
    )


def _p_value(a, b):
    table = np.array([a, b])
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 40]).pvalue)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["sum", "gaussian", "laplace"])
def test_precision_and_trailing_zeros(kind):
    # H0: trailing zeros and the last three bits do not depend on f(D). 1e6 draws on either value,
    # alpha = 1e-6. Power: the textbook sum of a float and exact-looking noise has p < 1e-100.
    n, step = 1_000_000, 2.0**-16
    outputs = []
    for value in (0.0, 1.0):
        if kind == "sum":  # the noise of a sum, drawn for the sums of two neighbouring columns
            made = DPSum(0, 1, scale=3.0, granularity=step, noise_random_state=3)
            total = made._prepare(np.array([0.25, value]))
            noise = discrete_laplace(made._inner._noise, n, made._inner._stream)
            outputs.append((int(total) + noise) * step)
        else:
            shape = {"gaussian": DiscreteGaussianMechanism, "laplace": DiscreteLaplaceMechanism}
            made = shape[kind](3.0, granularity=step, query="real", size=n, noise_random_state=4)
            outputs.append(made.release(np.full(n, value)))
    assert all(np.array_equal(o / step, np.rint(o / step)) for o in outputs)
    zeros = [_trailing_zeros(o, step) for o in outputs]
    bits = [np.bincount(np.rint(o / step).astype(np.int64) & 7, minlength=8) for o in outputs]
    assert _p_value(*zeros) > ALPHA
    assert _p_value(*bits) > ALPHA

    rng = np.random.default_rng(5)
    textbook = [
        _trailing_zeros(v + rng.laplace(size=20_000) * 2.0**-3, 2.0**-56) for v in (0.0, 1.0)
    ]
    assert _p_value(*textbook) < 1e-100


def test_averaging_float_draws_would_not_have_helped():
    # Opacus issue 616, diffprivlib issue 94: the sum of four floats keeps the larger exponent.
    rng = np.random.default_rng(6)
    zeros = []
    for value in (0.0, 1.0):
        noise = rng.standard_normal((4, 20_000)).sum(axis=0) / 2
        zeros.append(_trailing_zeros(value + noise * 2.0**-3, 2.0**-56))
    assert _p_value(*zeros) < 1e-100


# -- underestimated sensitivity: Casacuberta et al. 2022 ---------------------------------------
CANCELLING = [1e16, 1.0, -1e16, 1.0, 3.0, 2.0**53, -(2.0**53), 0.1]


def test_float_sums_move_by_more_than_one_record():
    # What the rule is against: one record of size 1 moves a float sum by more than 1, and the
    # order of the same records by more than 100.
    many = [2.0**53, *[1.0] * 1000]
    assert sum(many) == 2.0**53
    assert sum(sorted(many)) == 2.0**53 + 1000
    assert sum([1.0, 2.0**53, 1.0]) - sum([2.0**53, 1.0]) in (0.0, 2.0)


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(st.sampled_from(CANCELLING) | st.floats(-1e17, 1e17), max_size=25),
    extra=st.sampled_from(CANCELLING) | st.floats(),
    order=st.randoms(use_true_random=False),
)
def test_sensitivity_on_adversarial_arrays_and_orders(values, extra, order):
    sums = DPSum(-1e16, 1e16, epsilon=1)
    mean = DPMean(-1e16, 1e16, epsilon=1, neighboring="add_remove")
    spread = DPVariance(-1e16, 1e16, epsilon=1)
    rows = [*values, extra]
    order.shuffle(rows)
    for mechanism, read in (
        (sums, lambda m, x: m._prepare(x).reshape(1)),
        (mean, lambda m, x: m._prepare(x).sums),
        (spread, lambda m, x: m._prepare(x).sums if len(x) else np.zeros(2, dtype=np.int64)),
    ):
        array = np.array(rows, dtype=float)
        with_it, again = read(mechanism, array), read(mechanism, np.array([*values, extra]))
        assert np.array_equal(with_it, again)
        gap = int(np.abs(with_it - read(mechanism, np.array(values, dtype=float))).sum())
        assert gap <= mechanism._inner.value_sensitivity


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64, np.int8])
def test_integer_extremes_do_not_wrap(dtype):
    info = np.iinfo(dtype)
    rows = np.array([info.max] * 9 + [info.min] * 3, dtype=dtype)
    exact = 9 * int(info.max) + 3 * int(info.min)
    with np.errstate(over="ignore"):
        wrapped = int(rows.sum(dtype=dtype))
    assert wrapped != exact  # what a sum in the column's own type would have given
    made = DPSum(-(2.0**70), 2.0**70, scale=2.0**60, granularity=2.0**24)
    assert abs(int(made._prepare(rows)) * 2**24 - exact) <= 12 * 2**24
    limit = DPSum(-(2.0**52), 2.0**52, scale=1.0, granularity=1.0)
    assert abs(int(limit._prepare(np.repeat(rows, 500)))) <= VALUE_LIMIT


@settings(max_examples=200, deadline=None)
@given(value=st.integers(-(2**63), 2**63 - 2), power=st.integers(-4, 4))
def test_integers_of_real_queries_are_never_seen_as_floats(value, power):
    # As float64 the neighbours 2^60 + 128 and 2^60 + 129 are 256 apart.
    step = 2.0**power
    for shape in (DiscreteGaussianMechanism, DiscreteLaplaceMechanism):
        made = shape(2.0**30, 1.0, granularity=step, query="real")
        first, second = (
            int(made._prepare(np.array([v], dtype=np.int64))[0]) for v in (value, value + 1)
        )
        assert abs(second - first) * Fraction(step) <= Fraction(made.sensitivity)
    assert float(2**60 + 129) - float(2**60 + 128) == 256


def test_long_doubles_of_real_queries_are_not_rounded_twice():
    if np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        pytest.skip("a long double is a double on this machine")
    made = DiscreteGaussianMechanism(2.0**20, 1.0, granularity=1.0, query="real")
    base = np.longdouble(2) ** 60 + 128
    first, second = (int(made._prepare(np.array([v]))[0]) for v in (base, base + 1))
    assert second - first == 1


def test_deviations_are_not_taken_from_a_rounded_mean():
    # OpenDP issue 2923: a mean rounded to a grid moves every deviation when it jumps. A variance
    # that did so would move by n times a step; ours moves by one record's contribution.
    n = 100_000
    column = np.full(n, 0.5)
    made = DPVariance(0, 1, epsilon=1)
    base = made._prepare(column).sums
    for odd in (0.0, 1.0, 0.5 + 2.0**-30, np.nan):
        other = column.copy()
        other[0] = odd
        gap = int(np.abs(made._prepare(other).sums - base).sum())
        assert gap <= 2 * made._inner.value_sensitivity


# -- a private number of records as a public one -----------------------------------------------
@pytest.mark.parametrize("kind", [DPMean, DPVariance])
def test_the_size_of_the_data_is_no_public_number_under_add_remove(kind):
    rows = np.linspace(0, 1, 50)
    made = [kind(0, 1, rho=1.0, neighboring="add_remove", noise_random_state=7) for _ in range(2)]
    # n and n + 1 records, the last of which is a null record: equal to the bit.
    assert made[0].release(rows) == made[1].release(np.append(rows, np.nan))
    assert made[0]._prepare(rows).n is None
    # What is released is a function of the noisy sums alone, the same for 50 rows and for 100
    # whose sums are as large.
    sums = made[0]._prepare(rows).sums
    assert made[0]._point(sums / 2**20, None) == kind(
        0, 1, rho=2.0, neighboring="add_remove"
    )._point(sums / 2**20, None)


# -- timing: Jin, McMurtry, Rubinstein, Ohrimenko 2022 -----------------------------------------
class _Counted(BitSource):
    """Counts the words that are asked for; work is proportional to them."""

    def __init__(self, seed):
        stream = secret_stream(seed)
        self.read = 0

        def words(n):
            self.read += 1
            return stream.uint64(n)

        super().__init__(words)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("draw", "reference", "parameter"),
    [
        (discrete_laplace, _sampling.discrete_laplace_scalar, Fraction(9)),
        (discrete_gaussian, _sampling.discrete_gaussian_scalar, Fraction(81)),
    ],
    ids=["laplace", "gaussian"],
)
def test_work_of_a_single_draw_does_not_tell_its_size(draw, reference, parameter):
    # H0: the number of passes and |noise| are independent. 6,000 single draws, chi-square on
    # thirds of |noise|, alpha = 1e-6. Power: the published algorithm (Laplace), whose loop is as
    # long as the noise, is refused with p < 1e-20.
    def thirds(sizes):
        return np.searchsorted(np.quantile(sizes, [1 / 3, 2 / 3]), sizes)

    def p_value(sizes, work):
        rows = thirds(np.array(sizes))
        cut = np.minimum(np.array(work), int(np.quantile(work, 0.98)))
        table = np.array([np.bincount(cut[rows == r], minlength=cut.max() + 1) for r in range(3)])
        table = table[:, table.sum(axis=0) > 30]
        return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table).pvalue)

    source, sizes, work = _Counted(8), [], []
    for _ in range(6000):
        source.read = 0
        sizes.append(abs(int(draw(parameter, 1, source)[0])))
        work.append(source.read)
    assert p_value(sizes, work) > ALPHA
    assert np.mean(np.array(work) == 1) > 0.9  # nearly always a single pass

    if reference is _sampling.discrete_laplace_scalar:
        sizes, work = [], []
        for _ in range(2000):
            stream = secret_stream(len(sizes) + 1000)
            bits = []
            scalar = BitSource(lambda n, s=stream, b=bits: b.append(n) or s.uint64(n))
            sizes.append(abs(reference(parameter, scalar)))
            work.append(len(bits))
        assert p_value(sizes, work) < 1e-20


@pytest.mark.parametrize("scale", [1, 30, 400])
def test_almost_no_draw_leaves_the_table(scale):
    # Only what the table left out takes longer; for laws on fewer than 2^14 points that is a
    # probability below 2^-35, and for any other below 2^-7.
    for law, most in (
        (_lattice.LaplaceLaw(Fraction(scale)), 2.0**-35),
        (_lattice.GaussianLaw(Fraction(scale) ** 2), 2.0**-35),
        (_lattice.LaplaceLaw(Fraction(scale) * 2**20), 2.0**-7),
    ):
        sampler = _lattice.table_sampler(law)
        share = Fraction(sampler.remainder, 1 << (sampler.column_bits + sampler.threshold_bits))
        assert share < most


# -- weak or reused randomness -----------------------------------------------------------------
def _worker_draws(_):
    return discrete_gaussian(2**60, 8, secret_stream()).tobytes()


@pytest.mark.entropy
def test_spawned_workers_draw_other_noise():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        draws = list(pool.map(_worker_draws, range(4)))
    draws.append(_worker_draws(0))
    assert len(set(draws)) == 5


@pytest.mark.entropy
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_mechanisms_draw_other_noise():
    made = {name: MECHANISMS[name][0]() for name in MECHANISMS}
    values = {name: MECHANISMS[name][1] for name in MECHANISMS}
    for name, mechanism in made.items():
        mechanism.release(values[name])  # tables and pools are filled before the fork

    def draw():
        return {name: _draw(m, values[name]) for name, m in made.items()}

    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.write(write, pickle.dumps(draw()))
        os._exit(0)
    os.waitpid(process, 0)
    child, parent = pickle.loads(os.read(read, 1 << 16)), draw()
    assert [name for name in made if child[name] == parent[name]] == []


@pytest.mark.entropy
def test_threads_of_one_mechanism_draw_other_noise():
    made = DiscreteGaussianMechanism(2.0**45, size=4)
    found, gate = [], threading.Barrier(8)

    def work():
        gate.wait()
        found.extend(made.release([0, 0, 0, 0]).tobytes() for _ in range(100))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 800


@everything
@pytest.mark.entropy
def test_two_mechanisms_and_two_releases_never_share_noise(name):
    make, value = MECHANISMS[name]
    mechanism = make()
    draws = [_draw(mechanism, value) for _ in range(3)]
    draws += [released(name) for _ in range(3)]
    assert len(set(draws)) == 6


def test_a_million_vectors_without_a_duplicate():
    # Two coordinates of 2^43 likely values each: a chance duplicate has probability 1e-13.
    vectors = discrete_gaussian(Fraction(2**86), 2_000_000, secret_stream()).reshape(-1, 2)
    words = vectors.view([("a", np.int64), ("b", np.int64)]).ravel()
    assert len(np.unique(words)) == 1_000_000


@everything
def test_no_random_state_in_pickles_copies_and_representations(name, caplog, capsys):
    make, value = MECHANISMS[name]
    mechanism = make()
    with caplog.at_level(logging.DEBUG):
        mechanism.release(value)
    assert caplog.records == []
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        if copying is copy.copy:
            continue  # a shallow copy shares the stream, and never repeats it
        with pytest.raises(TypeError, match="never pickled or copied"):
            copying(mechanism)
    twin = copy.copy(mechanism)
    draws = [np.asarray(m.release(value), dtype=float).tobytes() for m in (mechanism, twin)]
    assert draws[0] != draws[1]
    stream = next(v for v in _streams(mechanism))
    pool = stream._pool[stream._at : stream._at + 8]
    text = repr(mechanism) + str(mechanism) + repr(stream)
    assert pool.hex() not in text or not pool
    assert "seeded=False" in repr(stream)


def _streams(mechanism):
    for candidate in (mechanism, getattr(mechanism, "_inner", None)):
        stream = getattr(candidate, "_stream", None)
        if stream is not None:
            yield stream


def test_the_public_seed_of_numpy_does_not_reach_the_noise():
    draws = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 - somebody else's habit
        draws.append(released("gaussian"))
    assert draws[0] != draws[1]


# -- files and memory --------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 47, 5000])
def test_no_uninitialised_memory_reaches_an_output(size, monkeypatch):
    # scikit-learn pull request 27580. Whatever was in the memory of a new array is overwritten.
    mark = np.int64(0x5EC7E7DA7A5EC7E7)
    real = np.empty

    def marked(*args, **kwargs):
        array = real(*args, **kwargs)
        if array.dtype == np.int64:
            array[...] = mark
        return array

    for draw in (discrete_gaussian, discrete_laplace):
        with monkeypatch.context() as patch:
            patch.setattr(np, "empty", marked)
            found = draw(Fraction(9), size, secret_stream(9))
        assert not (found == mark).any()
        assert np.array_equal(found, draw(Fraction(9), size, secret_stream(9)))


@everything
def test_a_release_is_saved_the_same_way_twice_and_holds_nothing_else(name):
    make, value = MECHANISMS[name]
    out = np.asarray(make(noise_random_state=1).release(value))
    again = np.asarray(make(noise_random_state=1).release(value))
    files = []
    for array in (out, again):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert out.base is None or out.base.size == out.size  # no view of something larger


def test_errors_show_no_data():
    secret = "secret-4711"
    rows = [1.0, 4711.25, secret]
    for make, value in (
        (lambda: DPSum(0, 1, epsilon=1), np.array(rows, dtype=object)),
        (lambda: DPMean(0, 1, epsilon=1), np.array(rows, dtype=object)),
        (lambda: DPVariance(0, 1, epsilon=1), rows),
        (lambda: DPCovariance(2, 1, rho=1), {"a": rows, "b": rows}),
        (lambda: DPQuantile(0.5, 0, 1, 1), np.array(rows, dtype=object)),
        (lambda: DPHistogram({"a": ["x"]}, epsilon=1), {"a": rows}),
        (lambda: ExponentialMechanism(3, 1.0), rows),
        (lambda: DiscreteGaussianMechanism(1.0, size=3, query="real"), rows),
    ):
        with pytest.raises(PrivfairError) as caught:
            make().release(value)
        assert "4711" not in str(caught.value)


# -- the page that lists them ------------------------------------------------------------------
def test_the_page_of_known_failures_names_tests_that_exist():
    import re
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "sharp-edges" / "known-failures.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)`|`(test_\w+)`", page)
    assert len([t for _, t in named if t]) > 20
    path, listed = None, set()
    for file, test in named:
        if file:
            path = root / file
        else:
            listed.add((path, test))
            assert f"def {test}(" in path.read_text("utf-8"), test
    here = {
        name
        for name in itertools.chain(globals())
        if name.startswith("test_") and "page" not in name
    }
    assert here <= {test for _, test in listed}
