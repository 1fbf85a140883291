"""dp_accounting's distributions behind our adapter, against an independent implementation.

``reference_pld`` discretises and composes in its own way; agreement of the two is evidence that
neither the library nor how it is called is wrong.
"""

import itertools
import math
import os
import threading

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as library
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from privfair import accounting as ac
from privfair.accounting import _gaussian, _lattice, _numeric, _plan, _pld
from privfair.accounting._curve import Atoms, Curve
from tests.accounting import reference_pld as reference


def sgd(q, sigma, steps):
    return ac.SelfComposed(ac.PoissonSampled(q, ac.Gaussian(sigma)), steps)


@pytest.fixture
def builds(monkeypatch):
    _pld._BUILT.clear()
    _pld._COMPOSED.clear()
    made = []
    genuine = _pld._build
    monkeypatch.setattr(_pld, "_build", lambda *a: made.append(a) or genuine(*a))
    return made


# -- the two implementations agree ------------------------------------------------------------
MECHANISMS = [
    (0.0001, 0.7, 30_000), (0.001, 0.8, 3_000), (0.001, 1.5, 50_000), (0.001, 30.0, 100_000),
    (0.01, 0.7, 50), (0.01, 1.0, 2_000), (0.01, 2.0, 10_000), (0.01, 10.0, 1_000),
    (0.0314, 3.1139, 640), (0.05, 1.0, 30), (0.1, 3.0, 512), (0.1, 20.0, 20_000),
    (0.25, 1.5, 8), (0.5, 5.0, 100), (0.9, 2.0, 3), (0.002, 1.0, 1),
]  # fmt: skip
DELTAS = (1e-4, 1e-6, 1e-8)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=str)
@pytest.mark.parametrize("relation", ["zero_out", "replace_one"])
def test_both_implementations_agree(mechanism, relation):
    q, sigma, steps = mechanism
    profile = ac.AccountedProfile(sgd(q, sigma, steps), relation, "pld")
    found = [profile.epsilon(delta) for delta in DELTAS]
    pair = reference.gaussian_pair if relation == "zero_out" else reference.replaced_gaussian_pair
    expected = reference.converged(lambda h: [(pair(q, sigma, h), steps)], DELTAS)
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-9)


def test_there_are_enough_settings():
    assert len(MECHANISMS) * len(DELTAS) * 2 >= 60


def test_both_implementations_agree_on_a_mixture():
    """Different mechanisms on one grid, one of them with a loss known exactly."""
    events = [sgd(0.05, 2.0, 100), ac.SelfComposed(ac.Laplace(8.0), 5), ac.Gaussian(4.0),
              ac.SelfComposed(ac.PureDP(0.05), 30)]  # fmt: skip
    profile = ac.AccountedProfile(events, accountant="pld")
    found = [profile.epsilon(delta) for delta in DELTAS]

    def parts(h):
        response = np.array([0.05, -0.05]), np.array([1, math.exp(-0.05)]) / (1 + math.exp(-0.05))
        loss = reference.from_atoms(h, *response, 0.0)
        return [
            (reference.gaussian_pair(0.05, 2.0, h), 100), (reference.laplace_pair(1.0, 8.0, h), 5),
            (reference.gaussian_pair(1.0, 4.0, h), 1), (reference.Pair(loss, loss), 30),
        ]  # fmt: skip

    assert found == pytest.approx(reference.converged(parts, DELTAS), rel=2e-3)


@pytest.mark.parametrize(("q", "b", "count"), [(0.02, 0.7, 500), (0.3, 2.0, 40), (1.0, 5.0, 60)])
def test_both_implementations_agree_on_laplace_noise(q, b, count):
    event = ac.SelfComposed(ac.PoissonSampled(q, ac.Laplace(b)), count)
    profile = ac.AccountedProfile(event, accountant="pld")
    found = [profile.epsilon(delta) for delta in DELTAS]
    expected = reference.converged(lambda h: [(reference.laplace_pair(q, b, h), count)], DELTAS)
    assert found == pytest.approx(expected, rel=2e-3)


def test_the_reference_keeps_both_masses():
    """What makes a rounded pair dominate: P-mass and Q-mass of every cell are kept."""
    for pair in (
        reference.gaussian_pair(0.1, 0.8, 1e-2), reference.laplace_pair(0.1, 0.5, 1e-2),
        reference.replaced_gaussian_pair(0.1, 0.8, 1e-2),
    ):  # fmt: skip
        for loss in (pair.remove, pair.add):
            losses = (loss.low + np.arange(len(loss.p))) * loss.h
            assert loss.p.min() >= 0
            assert loss.p.sum() + loss.infinite == pytest.approx(1, abs=1e-12)
            assert (loss.p * np.exp(-losses)).sum() <= 1 + 1e-12


# -- never too small ----------------------------------------------------------------------------
@pytest.mark.parametrize(("sigma", "steps"), [(0.9, 1), (3.0, 1), (5.0, 40), (60.0, 10_000)])
@pytest.mark.parametrize("step", [1e-2, 1e-3, 2e-4])
@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9])
def test_pessimistic_against_the_closed_form(sigma, steps, step, delta):
    """Whatever the grid, a composition of Gaussians is never priced below the exact number."""
    part = ("gaussian", 1.0, sigma, "add_remove")
    composed = _pld.compose([(part, steps)], step)
    mu = math.sqrt(steps) / sigma
    exact = _gaussian.epsilon(mu, delta)
    found = composed.epsilon(delta)
    assert found >= exact * (1 - 1e-9) - 1e-11
    for epsilon in (0.0, 0.5 * exact, exact):
        assert composed.delta(epsilon) >= _gaussian.delta(mu, epsilon) * (1 - 1e-9) - 1e-14
    if step < 0.05 / sigma:
        assert found <= 1.002 * exact + composed.noise


@pytest.mark.parametrize(("q", "sigma"), [(0.001, 0.6), (0.01, 0.7), (0.1, 2.0), (0.5, 0.5)])
@pytest.mark.parametrize("relation", ["zero_out", "replace_one"])
@pytest.mark.parametrize("epsilon", [0.02, 0.5, 2.0])
def test_one_sampled_step_meets_quadrature(q, sigma, relation, epsilon):
    def mixture(x, at):
        return (1 - q) * norm.pdf(x, 0, sigma) + q * norm.pdf(x, at, sigma)

    def alone(x):
        return norm.pdf(x, 0, sigma)

    if relation == "replace_one":
        laws = [(lambda x: mixture(x, 1), lambda x: mixture(x, -1))]
    else:
        laws = [(lambda x: mixture(x, 1), alone), (alone, lambda x: mixture(x, 1))]
    exact = max(divergence(*pair, epsilon, 1 + 12 * sigma) for pair in laws)
    found = _numeric.numeric(_plan.read((sgd(q, sigma, 1),), relation), 2.5e-4).delta(epsilon)
    assert exact - 1e-11 <= found <= exact + 1e-6


def divergence(upper, lower, epsilon, far):
    """The integral of max(0, upper - e^epsilon lower), cut where the integrand changes sign."""

    def excess(x):
        return upper(x) - math.exp(epsilon) * lower(x)

    grid = np.linspace(-far, far, 4001)
    turns = np.flatnonzero(np.diff(np.sign(excess(grid))))
    cuts = [-far, *(brentq(excess, grid[i], grid[i + 1], xtol=1e-14) for i in turns), far]
    pieces = (
        quad(excess, a, b, points=np.linspace(a, b, 12)[1:-1], limit=500, epsabs=1e-14)[0]
        for a, b in itertools.pairwise(cuts)
    )
    return sum(max(0.0, piece) for piece in pieces)


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.01, 1.0, 100_000), (0.2, 2.0, 300)])
@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_fourier_round_off_stays_below_what_is_charged(q, sigma, steps, relation):
    """The same self-composition in extended precision."""
    from scipy import fft

    part = ("gaussian", q, sigma, relation)
    single, composed = _pld._built(part, 2e-3), _pld.compose([(part, steps)], 2e-3)
    for one, many in zip(_pld._orders(single), _pld._orders(composed.pld), strict=True):
        size = 1 << 19
        start = many._lower_loss - one._lower_loss * steps
        long = fft.rfft(one._probs.astype(np.longdouble), size)
        exact = np.roll(fft.irfft(long**steps, size), -(start % size))[: many.size]
        error = float(np.abs(exact - many._probs).sum())
        assert 0 < error < composed.noise < 1e-8


def test_what_the_transforms_may_hide_is_charged():
    part = ("gaussian", 0.01, 1.0, "add_remove")
    composed = _pld.compose([(part, 1000)], 1e-3)
    assert composed.noise > 0
    bare = float(composed.pld.get_delta_for_epsilon(1.0))
    assert composed.delta(1.0) == bare + composed.noise
    assert math.isinf(composed.epsilon(composed.noise))
    assert composed.epsilon(1e-6) >= composed.pld.get_epsilon_for_delta(1e-6)
    assert composed.delta(composed.epsilon(1e-6)) <= 1e-6 * (1 + 1e-12)


@pytest.mark.parametrize("fault", ["missing", "nan"])
def test_a_distribution_that_lacks_mass_is_refused(builds, monkeypatch, fault):
    """Should the library ever return a broken distribution, there is no number from it."""
    genuine = library.from_gaussian_mechanism

    def broken(*args, **options):
        made = genuine(*args, **options).self_compose(2)
        masses = made._pmf_remove._probs
        masses[np.argmax(masses)] = math.nan if fault == "nan" else 0.0
        return made

    monkeypatch.setattr(library, "from_gaussian_mechanism", broken)
    event = sgd(0.123456, 1.0, 7)
    with pytest.raises(_pld.GridTooFine, match="sum to"):
        _pld.compose([(("gaussian", 0.123456, 1.0, "add_remove"), 7)], 1e-3)
    assert ac.guarantee(event, delta=1e-6).accountant == "rdp"


# -- lattices: what the library has no exact counterpart for ----------------------------------
def test_many_small_responses_need_the_exact_convolution():
    """The library rounds each loss up, and the error grows with the count; ours is exact."""
    eps0, count, h = 0.0013, 2000, 1e-4
    noise = 2 / (1 + math.exp(eps0))
    theirs = library.from_randomized_response(
        noise, 2, value_discretization_interval=h
    ).self_compose(count)
    ours = ac.AccountedProfile(ac.SelfComposed(ac.PureDP(eps0), count), accountant="pld")
    assert theirs.get_epsilon_for_delta(1e-6) > 1.2 * ours.epsilon(1e-6)


@pytest.mark.parametrize(("eps0", "k", "copies"), [(0.3, 2, 17), (1.0, 5, 40), (0.05, 3, 900)])
def test_rounding_an_exact_loss_keeps_both_masses(eps0, k, copies):
    losses, masses, lost = _lattice.folded(*_lattice.response_atoms(eps0, k), copies)
    exact = Curve(Atoms(losses, masses, lost))
    low, p = _lattice.rounded(7e-3, losses, masses)
    grid = (low + np.arange(len(p))) * 7e-3
    assert p.min() >= 0
    assert p.sum() == pytest.approx(masses.sum(), rel=1e-13)
    assert p @ np.exp(-grid) == pytest.approx(masses @ np.exp(-losses), rel=1e-11)
    rounded = Curve(Atoms(grid, p, lost))
    for epsilon in np.linspace(0, losses[-1], 7):
        assert rounded.delta(epsilon) >= exact.delta(epsilon) * (1 - 1e-12)


@pytest.mark.parametrize(("a", "sensitivity"), [(1 / 5000, 5000), (1e-3, 20_000), (1e-5, 123_457)])
def test_blocks_of_discrete_laplace_losses_dominate(monkeypatch, a, sensitivity):
    few, step = _lattice.discrete_laplace_atoms(a, sensitivity)
    assert len(few) <= _lattice.MOST_ATOMS + 1
    monkeypatch.setattr(_lattice, "MOST_ATOMS", 10**9)
    all_, fine = _lattice.discrete_laplace_atoms(a, sensitivity)
    assert len(all_) == sensitivity + 1
    blocks, exact = (
        Curve(Atoms(*_lattice.folded(p, h, 1))) for p, h in ((few, step), (all_, fine))
    )
    for share in (0.0, 0.2, 0.6, 0.9):
        epsilon = share * a * sensitivity
        assert blocks.delta(epsilon) >= exact.delta(epsilon) * (1 - 1e-12)
        assert blocks.delta(epsilon) <= exact.delta(epsilon) * 1.01 + 1e-12


def test_a_fine_grid_of_discrete_noise_is_priced_in_little_memory():
    """A sensitivity of a million grid steps: no array of that length times the orders."""
    import tracemalloc

    events = ac.SelfComposed(ac.DiscreteLaplace(1 / 2**22, 2**20), 30)
    tracemalloc.start()
    found = ac.guarantee(events, delta=1e-6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20
    smooth = ac.guarantee(ac.SelfComposed(ac.Laplace(4.0), 30), delta=1e-6)
    assert found.accountant == "pld"
    assert found.epsilon == pytest.approx(smooth.epsilon, rel=1e-3)


# -- built once, kept small, never too large ----------------------------------------------------
def test_each_distinct_mechanism_is_built_once_for_each_step(builds):
    events = [sgd(0.02, 1.5, 10), *[ac.PoissonSampled(0.02, ac.Gaussian(1.5))] * 20,
              ac.SelfComposed(ac.Laplace(9.0), 3), ac.Laplace(9.0)]  # fmt: skip
    first = ac.guarantee(events, delta=1e-6)
    assert len(builds) == len(set(builds))
    assert {part[0] for part, _ in builds} == {"gaussian", "laplace"}
    before = len(builds)
    again = ac.guarantee(events[::-1], delta=1e-6)
    assert again.epsilon == first.epsilon
    ac.guarantee(sgd(0.02, 1.5, 77), delta=1e-6)  # another count of the same mechanism
    assert len(builds) == before


def test_relations_and_steps_are_kept_apart(builds):
    for relation in ("zero_out", "replace_one", "add_remove"):
        ac.guarantee(sgd(0.2, 2.0, 10), delta=1e-6, neighboring=relation)
    assert {part[3] for part, _ in builds} == {"add_remove", "replace_one"}
    for part in {part for part, _ in builds}:
        steps = [step for other, step in builds if other == part]
        assert len(steps) == len(set(steps)) >= 2


def test_calibration_builds_few_distributions(builds):
    ac.calibrate_noise_multiplier(epsilon=1.0, delta=1e-5, sample_rate=0.0314, steps=640)
    assert len(builds) <= 20


def test_the_cache_is_bounded_by_size():
    cache = _pld._Cache(100)
    made = []

    def get(key, size):
        return cache.get(key, lambda: made.append(key) or key, lambda _: size)

    for key in range(10):
        get(key, 30)
    assert cache._held == 90
    get(9, 30)
    assert made == list(range(10))
    get(0, 30)  # forgotten, made again
    assert made[-1] == 0
    get("huge", 101)
    get("huge", 101)
    assert made[-2:] == ["huge", "huge"]
    assert cache._held == 90


def test_the_cache_is_safe_between_threads():
    _pld._COMPOSED.clear()
    found = []
    events = [sgd(0.01 * (1 + i % 3), 1.0, 5) for i in range(12)]
    threads = [
        threading.Thread(target=lambda e=e: found.append(ac.guarantee(e, delta=1e-6).epsilon))
        for e in events
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert len(set(found)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_fork_does_not_inherit_a_locked_cache():
    import subprocess
    import sys

    probe = (
        "import os\n"
        "from privfair import accounting as ac\n"
        "from privfair.accounting import _pld\n"
        "event = ac.SelfComposed(ac.PoissonSampled(.1, ac.Gaussian(2.)), 9)\n"
        "with _pld._BUILT._lock, _pld._COMPOSED._lock:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        ac.guarantee(event, delta=1e-6)\n"
        "        os._exit(7)\n"
        "print('CHILD', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True,
                          timeout=800, check=True)  # fmt: skip
    assert "CHILD 7" in done.stdout


@pytest.mark.parametrize(
    ("part", "count"),
    [
        (("gaussian", 0.1, 0.005, "add_remove"), 1), (("gaussian", 0.1, 1e-4, "replace_one"), 1),
        (("laplace", 1.0, 1e-4), 1), (("laplace", 1.0, 0.1), 100_000),
        (("gaussian", 0.1, 1.0, "add_remove"), 10**9), (("discrete_laplace", 1.0, 10**9), 1),
    ],
)  # fmt: skip
def test_what_would_not_fit_is_refused_before_memory_is_taken(part, count):
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(_pld.GridTooFine):
        _pld.compose([(part, count)], 1e-3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.parametrize(
    "event",
    [sgd(0.1, 0.004, 3), sgd(0.001, 1.0, 10**9), ac.SelfComposed(ac.Laplace(0.001), 5)],
    ids=["tiny noise", "a billion steps", "huge losses"],
)
def test_other_bounds_take_over_where_no_grid_fits(event):
    found = ac.guarantee(event, delta=1e-6)
    assert math.isfinite(found.epsilon)
    assert found.epsilon > 20


def test_a_single_large_loss_does_not_forbid_a_fine_grid_elsewhere():
    """Small steps ask for a fine grid, one large loss for a coarse one: both are heard."""
    events = [sgd(0.001, 30.0, 20_000), ac.Laplace(0.2)]
    found = ac.guarantee(events, delta=1e-6)
    small = ac.guarantee(events[0], delta=1e-6).epsilon
    assert 5.0 <= found.details["bounds"]["pld"] <= 5.0 + 1.5 * small
    assert found.epsilon <= 5.0 + 1.2 * small


def test_no_accountant_of_the_library_is_used():
    """Its PLD accountant counts repeated randomised response once."""
    import inspect

    from privfair.accounting import _lattice, _numeric

    for module in (_pld, _numeric, _lattice):
        text = inspect.getsource(module)
        assert "PLDAccountant" not in text
        assert "DpEvent" not in text
