"""The decomposition of two-group tables: closed forms, lattice identities, hostile input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad

from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    ProbabilityRangeError,
    SchemaError,
    SingleGroupError,
    UtilityWarning,
)
from privfair.fairness.pid import PIDResult, influence, pid_from_joint
from privfair.fairness.pid._exact import exact_unique
from tests.fairness.pid_tables import logic_table, opposed_clients, random_tables

PARTS = ("unique", "redundant", "masked", "unique_client")


def parts(P: np.ndarray) -> np.ndarray:
    result = pid_from_joint(P)
    return np.stack([getattr(result, name) for name in PARTS], axis=-1)


# -- closed forms -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (logic_table("decision"), (1, 0, 0)),
        (logic_table("all"), (0, 1, 0)),
        (logic_table("xor"), (0, 0, 1)),
        (logic_table("and"), (0, 0.3112781244591328, 0.5)),
        (opposed_clients(), (0, 0, 0.0659319446245086)),
    ],
    ids=["unique", "redundant", "masked", "and", "opposed clients"],
)
def test_closed_forms(table: np.ndarray, expected: tuple[float, ...]) -> None:
    assert parts(table)[:3] == pytest.approx(expected, abs=1e-14)
    result = pid_from_joint(table)
    assert float(result.certificate_gap) < 1e-12
    assert result.as_dict()["method"] == "exact"


def curve(mass: np.ndarray, tau: float) -> float:
    """G_A(tau) from its definition; mass is P(z, a)."""
    return float(np.maximum(mass[1] - tau * mass.sum(axis=0), 0).sum())


def test_prefix_sums_equal_the_integral_of_its_definition() -> None:
    rng = np.random.default_rng(3)
    for P in random_tables(rng, (2, 3, 5), 6, zeros=0.3):
        zy, zs = P.sum(axis=2), P.sum(axis=1)
        knots = np.sort(
            np.concatenate([m[1] / m.sum(0) for m in (zy, zs) if (m.sum(0) > 0).all()])
        )

        def integrand(tau: float, zy: np.ndarray = zy, zs: np.ndarray = zs) -> float:
            return max(curve(zy, tau) - curve(zs, tau), 0.0) / (tau * (1 - tau))

        inner = [k for k in knots if 0 < k < 1]
        value, _ = quad(integrand, 0, 1, points=inner, limit=400, epsabs=1e-12)
        assert float(pid_from_joint(P).unique) == pytest.approx(value / np.log(2), abs=1e-8)


# -- identities ---------------------------------------------------------------------------
@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """Tables with integer counts, so with many ties and zeros."""
    m, K = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    counts = draw(
        arrays(np.int64, (2, m, K), elements=st.sampled_from([0, 0, 1, 1, 2, 3, 50, 10**6]))
    )
    counts[0, 0, 0] += 1
    counts[1, draw(st.integers(0, m - 1)), draw(st.integers(0, K - 1))] += 1
    return counts / counts.sum()


@pytest.mark.filterwarnings("ignore:P holds one decision")
@settings(max_examples=150, deadline=None)
@given(tables())
def test_identities_and_bounds_hold_for_any_table(P: np.ndarray) -> None:
    r = pid_from_joint(P)
    zy, zs, z = P.sum(2), P.sum(1), P.sum((1, 2))

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-(p * np.log2(p)).sum())

    joint = entropy(z) + entropy(P.sum(0)) - entropy(P)
    decision = entropy(z) + entropy(zy.sum(0)) - entropy(zy)
    client = entropy(z) + entropy(zs.sum(0)) - entropy(zs)
    assert r.global_disparity == pytest.approx(decision, abs=1e-10)
    assert r.local_disparity == pytest.approx(joint - client, abs=1e-10)
    assert r.unique + r.redundant == pytest.approx(decision, abs=1e-10)
    assert r.unique + r.masked == pytest.approx(joint - client, abs=1e-10)
    assert r.redundant + r.unique_client == pytest.approx(client, abs=1e-10)
    assert r.unique + r.redundant + r.masked + r.unique_client == pytest.approx(joint, abs=1e-10)
    assert r.coinformation == pytest.approx(float(r.redundant - r.masked), abs=1e-10)
    assert r.union_information == pytest.approx(float(r.unique) + client, abs=1e-10)
    for name in PARTS:
        assert getattr(r, name) >= 0
    ys = P.sum(0)
    shared = entropy(ys.sum(1)) + entropy(ys.sum(0)) - entropy(ys)
    assert r.redundant <= min(decision, client) + 1e-10
    assert r.masked <= joint - decision + 1e-10, "M <= I(Z;S|Yhat)"
    assert r.coinformation <= shared + 1e-10, "R - M <= I(Yhat;S)"


@settings(max_examples=60, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore:P holds one decision")
def test_names_of_groups_decisions_and_clients_do_not_matter(P: np.ndarray, rnd: object) -> None:
    expected = parts(P)
    shuffled = P[::-1]
    for axis in (1, 2):
        order = list(range(P.shape[axis]))
        rnd.shuffle(order)  # type: ignore[attr-defined]
        shuffled = np.take(shuffled, order, axis=axis)
    assert parts(shuffled) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(tables())
@pytest.mark.filterwarnings("ignore:P holds one decision")
def test_exchanging_the_sources_exchanges_their_unique_parts(P: np.ndarray) -> None:
    U, R, M, U_S = parts(P)
    assert parts(np.swapaxes(P, 1, 2)) == pytest.approx([U_S, R, M, U], abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(tables(), st.floats(0.01, 0.99))
@pytest.mark.filterwarnings("ignore:P holds one decision")
def test_a_client_cut_in_two_alike_changes_nothing(P: np.ndarray, share: float) -> None:
    split = np.concatenate([P[..., :1] * share, P[..., :1] * (1 - share), P[..., 1:]], axis=-1)
    assert parts(split) == pytest.approx(parts(P), abs=1e-10)
    twice = pid_from_joint(np.concatenate([P * 0.5, P * 0.5], axis=-1))
    assert twice.unique == pytest.approx(float(pid_from_joint(P).unique), abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(tables())
@pytest.mark.filterwarnings("ignore:P holds one decision")
def test_merging_decisions_lowers_what_they_tell(P: np.ndarray) -> None:
    if P.shape[1] == 1:
        return
    merged = np.concatenate([P[:, :1] + P[:, 1:2], P[:, 2:]], axis=1)
    fine, coarse = pid_from_joint(P), pid_from_joint(merged)
    for name in ("global_disparity", "local_disparity", "unique", "redundant"):
        assert getattr(coarse, name) <= getattr(fine, name) + 1e-10


def test_one_client_has_only_a_unique_part() -> None:
    P = random_tables(np.random.default_rng(0), (2, 3, 1), 20)
    r = pid_from_joint(P)
    assert r.unique == pytest.approx(r.global_disparity, abs=1e-14)
    assert r.redundant == pytest.approx(0, abs=1e-14)
    assert r.masked == pytest.approx(0, abs=1e-14)


def test_a_decision_that_is_a_garbling_of_the_client_has_no_unique_part() -> None:
    rng = np.random.default_rng(1)
    zs = rng.random((2, 4))
    garbling = rng.dirichlet(np.ones(3), size=4)  # yhat given s
    P = zs[:, None, :] * garbling.T[None]
    r = pid_from_joint(P / P.sum())
    assert float(r.unique) == 0.0
    assert float(r.masked) == pytest.approx(0, abs=1e-12), "Z - S - Yhat"
    assert float(r.redundant) > 0.001


def test_independent_clients_have_no_redundant_part() -> None:
    P = random_tables(np.random.default_rng(2), (2, 2, 6), 50)
    z, s = P.sum((2, 3), keepdims=True), P.sum((1, 2), keepdims=True)
    given = P / P.sum(axis=2, keepdims=True)
    r = pid_from_joint(given * z * s)
    assert r.redundant == pytest.approx(0, abs=1e-12)
    assert (r.local_disparity >= r.global_disparity - 1e-12).all()


def test_clients_of_one_group_and_many_clients() -> None:
    rng = np.random.default_rng(4)
    P = rng.gamma(0.3, size=(20, 2, 2, 50))
    P[:, 0, :, :15] = 0.0
    P[:, 1, :, 35:] = 0.0
    P[:, :, 0, 20:25] = 0.0
    r = pid_from_joint(P / P.sum((1, 2, 3), keepdims=True))
    assert (r.certificate_gap < 1e-10).all()
    assert (r.redundant > 1e-4).all()
    big = rng.gamma(0.3, size=(2, 2, 10_000))
    assert float(pid_from_joint(big / big.sum()).certificate_gap) < 1e-7


def test_a_batch_is_its_tables_one_by_one() -> None:
    P = random_tables(np.random.default_rng(5), (2, 3, 4), 12, zeros=0.4)
    whole = pid_from_joint(P.reshape(3, 4, 2, 3, 4))
    assert whole.unique.shape == (3, 4)
    for i, table in enumerate(P):
        one = pid_from_joint(table)
        for name in PARTS:
            assert getattr(whole, name).ravel()[i] == getattr(one, name)


def test_axes_say_what_the_axes_are() -> None:
    P = random_tables(np.random.default_rng(6), (2, 3, 4), 5)
    moved = np.moveaxis(P, (1, 2, 3), (3, 1, 2))
    assert pid_from_joint(moved, axes=("yhat", "s", "z")).unique == pytest.approx(
        pid_from_joint(P).unique, abs=1e-14
    )


def test_single_precision_is_computed_in_double() -> None:
    P = random_tables(np.random.default_rng(7), (2, 2, 6), 30)
    r = pid_from_joint(P.astype(np.float32))
    assert r.unique.dtype == np.float64
    assert r.unique == pytest.approx(pid_from_joint(P).unique, abs=1e-6)


def test_tiny_and_lopsided_masses_stay_accurate() -> None:
    """A posterior of 1e-200 neither overflows nor spoils the sum; checked by exact fractions."""
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    P = np.array([[[0.3, 0.2], [0.2, 0.1]], [[1e-200, 0.05], [0.1, 0.05]]])
    P = P / P.sum()
    zy, zs = (
        [[mpmath.mpf(float(v)) for v in row] for row in table] for table in (P.sum(2), P.sum(1))
    )

    def gap(tau: object) -> object:
        def side(t: list) -> object:
            return sum(max(t[1][j] - tau * (t[0][j] + t[1][j]), 0) for j in range(2))

        return side(zy) - side(zs)

    knots = sorted(t[1][j] / (t[0][j] + t[1][j]) for t in (zy, zs) for j in range(2))
    ends = list(knots)  # outside of the posteriors the curves coincide
    for low, high in zip(knots, knots[1:], strict=False):
        at_low, at_high = gap(low), gap(high)
        if at_low * at_high < 0:
            ends.append(low + (high - low) * at_low / (at_low - at_high))
    ends = [mpmath.log(t / (1 - t)) for t in sorted(ends)]
    total = mpmath.mpf(0)
    for low, high in zip(ends, ends[1:], strict=False):  # in log odds the weight is 1
        total += mpmath.quad(lambda u: max(gap(1 / (1 + mpmath.exp(-u))), 0), [low, high])
    value = float(pid_from_joint(P).unique) * np.log(2)
    assert value == pytest.approx(float(total), abs=1e-13)


# -- influence ----------------------------------------------------------------------------
def test_influence_is_the_derivative_toward_a_cell() -> None:
    P = random_tables(np.random.default_rng(8), (2, 3, 4), 6, concentration=5.0, signal=0.3)
    result = pid_from_joint(P)
    rows = influence(P, result)
    h = 1e-5
    for name, value in rows.items():
        assert value.shape == P.shape
        assert np.abs((P * value).sum(axis=(1, 2, 3))).max() < 1e-12
        for cell in [(0, 0, 0), (1, 2, 3), (1, 0, 2), (0, 1, 1)]:
            spike = np.zeros_like(P)
            spike[(slice(None), *cell)] = 1.0

            def at(step: float, name: str = name, spike: np.ndarray = spike) -> np.ndarray:
                return getattr(pid_from_joint((1 - step) * P + step * spike), name)

            slope = (at(h) - at(-h)) / (2 * h)
            assert value[(slice(None), *cell)] == pytest.approx(slope, abs=2e-6), name


def test_influence_of_empty_cells_is_zero_and_finite_elsewhere() -> None:
    P = random_tables(np.random.default_rng(9), (2, 3, 5), 40, zeros=0.5)
    for value in influence(P, pid_from_joint(P)).values():
        assert np.isfinite(value).all()
        assert (value[P == 0] == 0).all()


def test_multipliers_prove_a_lower_bound() -> None:
    """alpha and beta of the exact path are feasible for the dual program, and tight."""
    from privfair.fairness.pid._exact import exact_dual

    P = random_tables(np.random.default_rng(10), (2, 4, 5), 60, zeros=0.4)
    zy, zs = P.sum(3), P.sum(2)
    alpha, beta = exact_dual(zy, zs)
    total = np.exp(alpha[:, :, :, None] + beta[:, :, None, :]).sum(axis=1)
    assert total.max() <= 1 + 1e-12
    with np.errstate(invalid="ignore"):
        dual = np.nansum(zy * alpha, axis=(1, 2)) + np.nansum(zs * beta, axis=(1, 2))
    z = P.sum((2, 3))
    entropy = -np.where(z > 0, z * np.log(np.where(z > 0, z, 1)), 0).sum(1)
    union = pid_from_joint(P).union_information * np.log(2)
    assert dual + entropy == pytest.approx(union, abs=1e-12)


# -- refusals -----------------------------------------------------------------------------
FAIR = np.full((2, 2, 2), 0.125)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"P": np.where(FAIR > 0, np.nan, 0)}, ProbabilityRangeError, "finite"),
        ({"P": FAIR * np.inf}, ProbabilityRangeError, "finite"),
        ({"P": FAIR - np.array([0.2, -0.2])}, ProbabilityRangeError, "negative"),
        ({"P": FAIR * 1.001}, ProbabilityRangeError, "sum to 1"),
        ({"P": FAIR * 8}, ProbabilityRangeError, "sum to 1"),
        ({"P": np.stack([FAIR[0] * 2, FAIR[0] * 0])}, SingleGroupError, "one value"),
        ({"P": FAIR[0] * 2}, SchemaError, "shape"),
        ({"P": np.zeros((2, 0, 2))}, SchemaError, "empty"),
        ({"P": [[["a", "b"]]]}, InvalidTypeError, "real numbers"),
        ({"P": np.ones((2, 2, 2), dtype=bool)}, InvalidTypeError, "real numbers"),
        ({"P": FAIR.astype(complex)}, InvalidTypeError, "real numbers"),
        ({"P": [[[1.0], [2.0, 3.0]]]}, InvalidTypeError, "real numbers"),
        ({"axes": ("z", "s")}, InvalidParameterError, "permutation"),
        ({"axes": "zys"}, InvalidParameterError, "permutation"),
        ({"backend": "jax"}, InvalidParameterError, "backend"),
        ({"backend": "numpy", "device": "cpu"}, InvalidParameterError, "device"),
        ({"method": "dit"}, InvalidParameterError, "method"),
        ({"tol": 0.0}, InvalidParameterError, "tol"),
        ({"tol": True}, InvalidTypeError, "tol"),
    ],
)
def test_bad_input_is_refused_by_name(change: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pid_from_joint(change.pop("P", FAIR), **change)


def test_one_decision_is_allowed_with_a_warning() -> None:
    P = np.zeros((2, 2, 3))
    P[:, 0] = 1 / 6
    with pytest.warns(UtilityWarning, match="one decision"):
        assert parts(P) == pytest.approx(0, abs=1e-15)


def test_the_result_is_frozen_and_lists_its_numbers() -> None:
    result = pid_from_joint(FAIR)
    assert isinstance(result, PIDResult)
    with pytest.raises(AttributeError):
        result.unique = 1.0  # type: ignore[misc]
    listed = result.as_dict()
    assert listed["unique"] == 0.0 and listed["converged"] is True
    assert "alpha" not in listed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pid_from_joint(FAIR[None]).as_dict()["unique"].shape == (1,)


def test_empty_symbols_cost_nothing() -> None:
    P = random_tables(np.random.default_rng(11), (2, 2, 3), 10)
    padded = np.zeros((10, 2, 4, 6))
    padded[:, :, 1:3, 2:5] = P
    assert parts(padded) == pytest.approx(parts(P), abs=1e-14)
    unique, _ = exact_unique(padded.sum(3), padded.sum(2))
    assert unique == pytest.approx(pid_from_joint(P).unique * np.log(2), abs=1e-14)


# -- cost ---------------------------------------------------------------------------------
def test_a_batch_takes_one_pass_and_linear_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No loop over tables and no array of knots times symbols."""
    import tracemalloc

    sorts, original = [0], np.argsort

    def counted(*args: object, **kwargs: object) -> np.ndarray:
        sorts[0] += 1
        return original(*args, **kwargs)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(np, "argsort", counted)
    rng = np.random.default_rng(12)
    counts = []
    for batch in (1, 300):
        sorts[0] = 0
        pid_from_joint(random_tables(rng, (2, 2, 5), batch))
        counts.append(sorts[0])
    assert counts[0] == counts[1] > 0
    P = random_tables(rng, (2, 2, 3000), 4)
    tracemalloc.start()
    pid_from_joint(P)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * P.nbytes < 4 * 3000 * 3000 * 8


def test_arrays_load_neither_torch_nor_a_cone_solver() -> None:
    import subprocess
    import sys

    code = (
        "import numpy as np, sys\n"
        "from privfair.fairness.pid import pid_from_joint\n"
        "pid_from_joint(np.full((2, 2, 2), 0.125)), pid_from_joint(np.full((3, 2, 2), 1 / 12))\n"
        "print(sorted({'torch', 'cvxpy', 'clarabel', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=800, check=False
    )
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
