"""Distance covariance functions: definitions, closed forms, traps, and one value by any method."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    UtilityWarning,
)
from privfair.fairness.dcov import (
    AttributeEncoder,
    ccdcov_sq,
    dcor_sq,
    dcov_sq,
    jdcov_sq,
    jdcov_targeted_sq,
    sliced_dcov_sq,
)

# dcor 0.7 (distance_covariance_sqr and its u_ form, numpy 2.4.6) on rows() below, 2026.
GOLDEN = {
    "scalars": (0.043158558527632396, 0.026426024370520884, 0.14266256056556054,
                0.08721841376193884, 0.026173477578821602, 0.008572930828043224),
    "ties": (0.006812500000000332, -0.020813363971258658, 0.013578615219892046,
             -0.040793490113094466, 0.008137839218255838, -0.01259581618960659),
    "vector": (0.04195443651201325, 0.01745201119836537, 0.13445941750237514,
               0.05739386562410227, 0.025937743864422935, 0.004014778552695164),
    "vectors": (0.29878130225566935, 0.2840610125706089, 0.9048961068357454,
                0.8969549577801215, 0.09126199814931923, 0.07033173255853664),
}  # fmt: skip


def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(40)
    x = np.sin(i)
    y = np.cos(1.7 * i) + 0.5 * x
    S = np.column_stack([y, np.sin(2.3 * i) ** 2, i % 3 == 0])
    return {
        "scalars": (x, y),
        "ties": (np.round(x, 1), i % 4),
        "vector": (x, S),
        "vectors": (S[:, :2], S),
    }[name]


def methods(name: str) -> list[str]:
    out = ["auto", "tiled", "naive"]
    out += ["sorted"] if name in {"scalars", "ties"} else []
    return out + (["cells"] if name != "vectors" else [])


@pytest.mark.golden
@pytest.mark.parametrize("name", GOLDEN)
def test_values_are_those_of_dcor(name: str) -> None:
    x, y = rows(name)
    v, u, cor_v, cor_u, half_v, half_u = GOLDEN[name]
    for method in methods(name):
        for estimator, cov, cor in (("v", v, cor_v), ("u", u, cor_u)):
            options = {"estimator": estimator, "method": method}
            assert dcov_sq(x, y, **options) == pytest.approx(cov, rel=1e-9)
            assert dcor_sq(x, y, **options) == pytest.approx(cor, rel=1e-9)
    for estimator, half in (("v", half_v), ("u", half_u)):
        for method in ("auto", "tiled", "naive"):
            got = dcov_sq(x, y, estimator=estimator, method=method, exponent=0.5)
            assert got == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("estimator", ["u", "v"])
@pytest.mark.parametrize("name", GOLDEN)
def test_every_method_has_the_gradient_of_the_definition(name: str, estimator: str) -> None:
    x, y = rows(name)

    def run(method: str, dtype: torch.dtype, **options):
        t = torch.tensor(x, dtype=dtype, requires_grad=True)
        value = dcov_sq(t, torch.tensor(y).to(dtype), estimator=estimator, method=method,
                        **options)  # fmt: skip
        value.backward()
        return value.detach(), t.grad

    wanted = run("naive", torch.float64)
    for method in methods(name):
        for options in ({}, {"tile": 7}) if method == "tiled" else ({},):
            got = run(method, torch.float64, **options)
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-15)
        single = run(method, torch.float32)
        assert single[0].dtype == single[1].dtype == torch.float32
        torch.testing.assert_close(single[0].double(), wanted[0], rtol=1e-4, atol=1e-7)
        scale = wanted[1].abs().max()
        torch.testing.assert_close(single[1] / scale.float(), (wanted[1] / scale).float(),
                                   rtol=1e-4, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("estimator", ["u", "v"])
@pytest.mark.parametrize("method", ["sorted", "tiled"])
def test_gradient_in_both_variables_is_that_of_finite_differences(
    method: str, estimator: str
) -> None:
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(rng.normal(size=37), requires_grad=True) for _ in range(2))
    for function in (dcov_sq, dcor_sq):
        run = functools.partial(function, estimator=estimator, method=method)
        assert torch.autograd.gradcheck(run, (x, y))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_tiled_gradient_of_vectors(exponent: float) -> None:
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(11, 3)), requires_grad=True)
    y = torch.tensor(rng.normal(size=(11, 2)), requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: dcov_sq(a, b, method="tiled", exponent=exponent, tile=4), (x, y)
    )


@pytest.mark.parametrize("estimator", ["u", "v", "us"])
@pytest.mark.parametrize("targeted", [False, True])
def test_joint_methods_agree_with_gradients(estimator: str, targeted: bool) -> None:
    rng = np.random.default_rng(2)
    n = 90
    f = rng.normal(size=n)
    S = [rng.integers(0, 2, n), rng.integers(0, 3, n), rng.integers(0, 2, n)]
    run = jdcov_targeted_sq if targeted else jdcov_sq
    found = []
    for method, tile in (("naive", None), ("tiled", 32), ("tiled", None), ("cells", None)):
        t = torch.tensor(f, requires_grad=True)
        value = run(t, *S, c=0.6, estimator=estimator, method=method, tile=tile)
        value.backward()
        found.append((value.detach(), t.grad))
        if method == "cells":
            plain = run(f, *S, c=0.6, estimator=estimator)
            assert plain == pytest.approx(value.item(), rel=1e-12)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-15)


def test_joint_gradient_with_respect_to_all_variables() -> None:
    rng = np.random.default_rng(3)
    xs = tuple(torch.tensor(rng.normal(size=(9, p)), requires_grad=True) for p in (1, 2, 1))
    for estimator in ("u", "v", "us"):
        run = functools.partial(jdcov_sq, c=0.7, estimator=estimator, method="tiled", tile=4)
        assert torch.autograd.gradcheck(run, xs)


# --- closed forms ---------------------------------------------------------------------------


def test_closed_forms() -> None:
    assert dcor_sq([1, 2, 3, 4], [1, 2, 3, 4], estimator="v") == pytest.approx(1)
    assert dcor_sq([1, 2, 3, 4], [1, 2, 3, 4], estimator="u") == pytest.approx(1)
    x = np.arange(-2.0, 3.0)
    assert np.corrcoef(x, x**2)[0, 1] == pytest.approx(0)
    assert dcov_sq(x, x**2, estimator="v") > 0.1
    with pytest.warns(UtilityWarning, match="linear"):
        assert dcov_sq(x, x**2, estimator="v", exponent=2) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("method", ["auto", "cells", "sorted", "tiled", "naive"])
def test_a_constant_gives_zero_without_nan(method: str) -> None:
    t = torch.arange(6.0, dtype=torch.float64, requires_grad=True)
    for x, y in ((t, torch.full((6,), 0.1)), (torch.full((6,), 0.1), t)):
        for function in (dcov_sq, dcor_sq):
            for estimator in "uv":
                t.grad = None
                value = function(x, y, estimator=estimator, method=method)
                value.backward()
                assert value.item() == 0
                assert t.grad is not None
                assert (t.grad == 0).all()


@pytest.mark.parametrize("m", [1, 2, 5])
def test_exclusive_or(m: int) -> None:
    a, b = np.tile([0, 0, 1, 1], m), np.tile([0, 1, 0, 1], m)
    pred = a ^ b
    for one in (a, b):
        assert dcov_sq(pred, one, estimator="v") == pytest.approx(0, abs=1e-15)
    for c in (0.5, 1, 2):
        assert jdcov_sq(pred, a, b, estimator="v", c=c) == pytest.approx(0.125)
        assert jdcov_targeted_sq(pred, a, b, estimator="v", c=c) == pytest.approx(0.125)
    assert ccdcov_sq(pred, a, b, estimator="v") == pytest.approx(0.0732233047, abs=1e-10)


def test_additive_metric_is_blind_and_the_intersection_is_not() -> None:
    """Trap: with an L1 metric over attributes CCdCov is the sum of the pairwise values."""
    from privfair.fairness.dcov import cell_kernel, cells_dcov_sq

    a, b = np.tile([0, 0, 1, 1], 3), np.tile([0, 1, 0, 1], 3)
    gaps = [np.abs(np.subtract.outer(v, v)).astype(float) for v in ([0, 0, 1, 1], [0, 1, 0, 1])]
    codes = 2 * a + b
    for kind, expected in (("pairwise", 0.0), ("ccdcov", 0.0732233047), ("cells", 0.125)):
        got = cells_dcov_sq(a ^ b, codes, cell_kernel(kind, gaps), estimator="v")
        assert got == pytest.approx(expected, abs=1e-10)
    metric = dcov_sq(a ^ b, np.column_stack([a, b]), metric="discrete", estimator="v")
    assert metric == pytest.approx(0.125)


def test_codes_of_a_nominal_attribute_matter_and_one_hot_does_not() -> None:
    """Trap: 0, 1, 2 as numbers changes with the labels; the encoder does not."""
    rng = np.random.default_rng(0)
    race = rng.integers(0, 3, 300)
    pred = rng.normal(size=300) + np.array([0.0, 0.4, 0.1])[race]
    as_numbers, encoded = set(), set()
    for relabel in ([0, 1, 2], [1, 0, 2], [0, 2, 1]):
        codes = np.array(relabel)[race]
        as_numbers.add(round(dcov_sq(pred, codes, estimator="v"), 9))
        X = AttributeEncoder().fit_transform({"race": codes})
        encoded.add(round(dcov_sq(pred, X, estimator="v"), 9))
    assert len(as_numbers) == 3
    assert len(encoded) == 1


def test_a_dropped_level_gives_unequal_distances() -> None:
    X = AttributeEncoder(scaling="none").fit_transform({"race": ["a", "b", "c"]})
    full = np.sqrt(((X[:, None] - X[None]) ** 2).sum(-1))
    assert full[np.triu_indices(3, 1)] == pytest.approx(np.sqrt([2, 2, 2]))
    dropped = X[:, 1:]
    assert np.ptp(np.sqrt(((dropped[:, None] - dropped[None]) ** 2).sum(-1))[0, 1:]) == 0
    assert np.linalg.norm(dropped[1] - dropped[2]) > np.linalg.norm(dropped[0] - dropped[1])


def test_weights_of_interactions() -> None:
    """Balanced 2 x 2: an interaction weighs 0.41, 1 / (2c) and 1 times a main effect."""
    from privfair.fairness.dcov import cell_kernel

    unit = [np.abs(np.subtract.outer(v, v)).astype(float) for v in ([0, 0, 1, 1], [0, 1, 0, 1])]
    main, cross = np.array([-1, -1, 1, 1]) / 2, np.array([1, -1, -1, 1]) / 2
    for kind, c, ratio in (("ccdcov", 1, 2**0.5 - 1), ("jdcov", 0.5, 1), ("jdcov", 2, 0.25),
                           ("cells", 1, 1)):  # fmt: skip
        K = cell_kernel(kind, unit, counts=[5, 5, 5, 5], c=c)
        assert cross @ K @ cross / (main @ K @ main) == pytest.approx(ratio)


def test_small_groups_have_the_square_of_their_share() -> None:
    """Trap: 2 sum_g pi_g^2 int (F_g - F)^2; a share of 2 % weighs 4e-4."""
    rng = np.random.default_rng(1)
    g = np.repeat([0, 1, 2], [490, 490, 20])
    f = rng.normal(size=1000) + (g == 2) * 3
    grid = np.sort(f)
    F = (f[None] <= grid[:, None]).mean(1)
    expected = 0.0
    for k in range(3):
        Fg = (f[g == k][None] <= grid[:, None]).mean(1)
        expected += 2 * (g == k).mean() ** 2 * (np.diff(grid) * (Fg - F)[:-1] ** 2).sum()
    X = AttributeEncoder().fit_transform({"g": g})
    got = dcov_sq(f, X, metric="discrete", estimator="v")
    assert got == pytest.approx(expected, rel=1e-9)
    plain = ccdcov_sq(f, {"g": g}, encoder=AttributeEncoder(scaling="none"), estimator="v")
    balanced = ccdcov_sq(
        f, {"g": g}, encoder=AttributeEncoder(scaling="none"), estimator="v", group_weighting=0
    )
    assert plain == pytest.approx(2**0.5 * expected, rel=1e-9), "one-hot is sqrt 2 x discrete"
    assert balanced > 20 * plain


# --- invariants -----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40), st.sampled_from("uv"), st.floats(0.3, 1.9))
def test_invariants(seed: int, n: int, estimator: str, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 2)), rng.integers(0, 4, size=(n, 3)).astype(float)
    options = {"estimator": estimator, "exponent": exponent}
    value = dcov_sq(x, y, **options)
    order = rng.permutation(n)
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    close = {"rel": 1e-8, "abs": 1e-12}
    assert dcov_sq(x[order], y[order], **options) == pytest.approx(value, **close)
    assert dcov_sq(x + [1.0, -3.0], y - 2, **options) == pytest.approx(value, **close)
    assert dcov_sq(x @ turn, y, **options) == pytest.approx(value, **close)
    assert dcov_sq(y, x, **options) == pytest.approx(value, **close)
    assert dcov_sq(-3 * x, y, **options) == pytest.approx(3**exponent * value, **close)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 120), st.sampled_from([0, 1, 6]))
def test_sorted_is_naive_on_any_ties(seed: int, n: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.round(rng.normal(size=(2, n)), digits)
    for estimator in "uv":
        found = []
        for method in ("sorted", "naive"):
            a, b = (torch.tensor(v, requires_grad=True) for v in (x, y))
            value = dcov_sq(a, b, estimator=estimator, method=method)
            value.backward()
            found.append((value.detach(), a.grad, b.grad))
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-13)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 3.0))
def test_joint_identities(seed: int, c: float) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    f, s = rng.normal(size=n), rng.normal(size=n)
    t = rng.integers(0, 3, n) + (s > 0)
    close = {"rel": 1e-9, "abs": 1e-13}
    for estimator in ("u", "v", "us", "rank-u", "rank-v"):
        options = {"c": c, "estimator": estimator}
        whole = jdcov_sq(f, s, t, **options)
        part = jdcov_targeted_sq(f, s, t, **options)
        assert whole == pytest.approx(part + c * jdcov_sq(s, t, **options), **close)
    for estimator in ("u", "v"):
        assert jdcov_sq(f, s, c=c, estimator=estimator) == pytest.approx(
            dcov_sq(f, s, estimator=estimator), **close
        )
        for method in ("tiled", "naive"):
            got = jdcov_sq(f, s, c=c, estimator=estimator, method=method)
            assert got == pytest.approx(dcov_sq(f, s, estimator=estimator), **close)
    cross = jdcov_targeted_sq(f, s, t, c=1e-9, estimator="v")  # c -> 0: the full set alone
    pairs = dcov_sq(f, s, estimator="v") + dcov_sq(f, t, estimator="v")
    assert jdcov_targeted_sq(f, s, t, c=c, estimator="v") == pytest.approx(
        cross + c * pairs, rel=1e-6, abs=1e-8
    )


def test_sign_of_the_centring() -> None:
    """The third order term is E U U U with U = minus the double centring: it is not even."""
    x = np.array([0.0, 0.0, 0.0, 1.0])
    a = np.abs(x[:, None] - x)
    U = a.mean(0)[None] + a.mean(1)[:, None] - a - a.mean()
    assert (U**3).mean() > 0, "the wrong sign would make it negative"
    third = jdcov_sq(x, x, x, c=1.0, estimator="v") - 3 * dcov_sq(x, x, estimator="v")
    assert third == pytest.approx((U**3).mean())


def test_targeted_is_zero_where_attributes_depend_on_each_other_only() -> None:
    f = np.tile([0.0, 1.0], 8)
    s = np.repeat([0, 1], 8)
    assert jdcov_targeted_sq(f, s, s, estimator="v") == pytest.approx(0, abs=1e-15)
    assert jdcov_sq(f, s, s, estimator="v") > 0.2


def test_rank_forms_depend_on_order_alone() -> None:
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 50))
    for estimator in ("rank-u", "rank-v"):
        a = jdcov_sq(x, y, z, estimator=estimator)
        assert a == pytest.approx(jdcov_sq(np.exp(x), y**3, z, estimator=estimator))
        assert a != pytest.approx(jdcov_sq(x, y, z, estimator=estimator[-1]))


def test_scale_free_form() -> None:
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 50))
    a = jdcov_sq(x, y, z, estimator="us")
    assert a == pytest.approx(jdcov_sq(7 * x, y, 1e-3 * z, estimator="us"))
    assert jdcov_sq(x, y, estimator="us") == pytest.approx(dcor_sq(x, y))


# --- numerics -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cells", "sorted", "tiled", "naive"])
def test_a_large_offset_loses_no_digits(method: str) -> None:
    rng = np.random.default_rng(0)
    x = np.round(1024 * rng.normal(size=60)) / 1024  # the sums below are exact
    s = rng.integers(0, 3, 60)
    small, far = dcov_sq(x, s, method=method), 2.0**30
    assert dcov_sq(x + far, s + far, method=method) == pytest.approx(small, rel=1e-9)
    if method == "tiled":
        wide = rng.normal(size=(60, 4))
        shifted = torch.tensor(wide + 1e6)
        got = dcov_sq(shifted, torch.tensor(s), method="tiled", dtype=torch.float32)
        assert float(got) == pytest.approx(dcov_sq(wide, s, method="tiled"), rel=1e-4)


def test_no_square_array_is_made() -> None:
    """Forward and backward of 3,000 rows hold no n x n array at any time."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for item in out if isinstance(out, tuple | list) else (out,):
                if isinstance(item, torch.Tensor):
                    Largest.size = max(Largest.size, item.numel())
            return out

    n = 3000
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=n), requires_grad=True)
    y = torch.tensor(rng.normal(size=(n, 3)))
    with Largest():
        dcov_sq(x, y, method="tiled").backward()
        dcov_sq(x, y[:, 0], method="sorted").backward()
    assert 0 < Largest.size < n * n / 20


@pytest.mark.statistical
def test_u_is_unbiased_and_v_has_its_bias() -> None:
    """Mean of U within 4 standard errors of 0 at n = 8 (false alarm 6e-5); V as E|dx|E|dy|/n."""
    rng = np.random.default_rng(0)
    u, v, t = [], [], []
    for _ in range(2000):
        x, y = rng.normal(size=8), rng.integers(0, 2, 8).astype(float)
        u.append(dcov_sq(x, y, method="cells"))
    for _ in range(400):
        x, y, z = rng.normal(size=32), rng.normal(size=32), rng.integers(0, 2, 32)
        v.append(dcov_sq(x, y, estimator="v", method="sorted"))
        t.append(jdcov_targeted_sq(x, z, (y > 0) * 1.0))
    for found in (u, t):
        assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))
    expected = (2 / np.sqrt(np.pi)) ** 2 / 32
    assert np.mean(v) == pytest.approx(expected, rel=0.1)


def test_sliced_averages_to_the_exact_value() -> None:
    rng = np.random.default_rng(0)
    S = rng.normal(size=(150, 4))
    f = S @ [1.0, -1.0, 0.5, 0.0] + rng.normal(size=150)
    for x in (f, S[:, :2]):
        exact = dcov_sq(x, S)
        got = sliced_dcov_sq(x, S, n_projections=300, random_state=1)
        assert 0 < got.standard_error < 0.2 * exact
        assert abs(got.value - exact) < 4 * got.standard_error
    scalar = sliced_dcov_sq(f, S[:, 0])
    assert scalar.value == pytest.approx(dcov_sq(f, S[:, 0])) and scalar.standard_error == 0
    x = torch.tensor(S[:8, :2], requires_grad=True)
    y = torch.tensor(S[:8], requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: sliced_dcov_sq(a, b, n_projections=3).value, (x, y)
    )


# --- what is taken in -----------------------------------------------------------------------


def test_numpy_gives_a_float_and_torch_a_tensor() -> None:
    x, y = rows("scalars")
    assert type(dcov_sq(x, y)) is float
    value = dcov_sq(torch.tensor(x), y)
    assert isinstance(value, torch.Tensor) and value.ndim == 0 and value.dtype == torch.float64
    assert isinstance(dcov_sq(x, torch.tensor(y)), torch.Tensor)
    assert dcov_sq([0, 1, 0, 1], torch.tensor([0, 1, 1, 0])).dtype == torch.float64


def test_attributes_as_frames_text_and_encoders() -> None:
    S = pd.DataFrame({"race": ["a", "b", "a", "c", "b", "a"], "age": [20, 30, 40, 55, 60, 31]})
    f = [0.1, 0.4, 0.2, 0.9, 0.7, 0.3]
    encoder = AttributeEncoder(types={"age": "continuous"})
    got = ccdcov_sq(f, S, encoder=encoder)
    assert got == pytest.approx(dcov_sq(f, encoder.fit_transform(S)))
    encoder = AttributeEncoder(types={"s1": "continuous"})
    assert ccdcov_sq(f, S["race"], S["age"], encoder=encoder) == pytest.approx(got)
    joint = jdcov_targeted_sq(f, S["race"], S["age"], encoder=encoder)
    blocks = encoder.fit_transform({"s0": S["race"], "s1": S["age"]})
    assert joint == pytest.approx(jdcov_targeted_sq(f, blocks[:, :3], blocks[:, 3]))
    with pytest.raises(InvalidTypeError, match="AttributeEncoder"):
        ccdcov_sq(f, S)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: dcov_sq([1, 2, 3], [1, 2, 3]), DataError),
        (lambda: dcov_sq([1], [1], estimator="v"), DataError),
        (lambda: dcov_sq([1, 2, 3, 4], [1, 2, 3]), LengthMismatchError),
        (lambda: dcov_sq([1, 2, 3, np.nan], [1, 2, 3, 4]), DataError),
        (lambda: dcov_sq([1, 2, 3, 4], [1, 2, 3, np.inf]), DataError),
        (lambda: dcov_sq(["a", "b", "c", "d"], [1, 2, 3, 4]), InvalidTypeError),
        (lambda: dcov_sq(range(4), range(4), exponent=2.5), InvalidParameterError),
        (lambda: dcov_sq(range(4), range(4), exponent=0), InvalidParameterError),
        (lambda: dcov_sq(range(4), range(4), estimator="us"), InvalidParameterError),
        (lambda: dcov_sq(range(4), range(4), method="fast"), InvalidParameterError),
        (lambda: dcov_sq(range(4), range(4), tile=0), InvalidParameterError),
        (lambda: dcov_sq(np.eye(4), np.eye(4), method="sorted"), InvalidParameterError),
        (lambda: dcov_sq(np.eye(4), np.eye(4), method="cells"), InvalidParameterError),
        (lambda: dcov_sq(np.zeros((2, 2, 2)), np.zeros(2), estimator="v"), DataError),
        (lambda: dcov_sq(np.arange(6000), np.arange(6000), method="naive"), DataError),
        (lambda: dcov_sq(np.arange(2000), np.arange(2000), method="cells"), InvalidParameterError),
        (lambda: jdcov_sq([1, 2, 3, 4]), InvalidTypeError),
        (lambda: jdcov_sq(range(4), range(4), c=0), InvalidParameterError),
        (lambda: jdcov_targeted_sq(range(4)), InvalidTypeError),
        (lambda: ccdcov_sq(range(4), range(4), group_weighting=2), InvalidParameterError),
        (
            lambda: ccdcov_sq(range(4), range(4), group_weighting=0.5, method="tiled"),
            InvalidParameterError,
        ),
        (lambda: sliced_dcov_sq(range(4), range(4), n_projections=0), InvalidParameterError),
        (
            lambda: dcov_sq(range(4), torch.arange(4.0, requires_grad=True), metric="discrete"),
            InvalidParameterError,
        ),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


@pytest.mark.gpu
@pytest.mark.parametrize("name", GOLDEN)
def test_on_a_cuda_device(name: str) -> None:
    x, y = (torch.tensor(np.asarray(v, dtype=float), device="cuda") for v in rows(name))
    x.requires_grad_()
    for method in methods(name):
        x.grad = None
        value = dcov_sq(x, y, method=method)
        value.backward()
        assert value.is_cuda and x.grad is not None and x.grad.is_cuda
        assert value.item() == pytest.approx(GOLDEN[name][1], rel=1e-9)


@pytest.mark.parametrize("method", ["auto", "cells", "sorted", "tiled", "naive"])
@pytest.mark.parametrize("n", [5, 50, 401])
def test_one_row_against_all_others_has_no_unbiased_correlation(method, n):
    # All of its U-centred distances are 0, so that the ratio is one of rounding errors.
    rng = np.random.default_rng(n)
    x, alone = rng.normal(size=n).round(1), np.zeros(n)
    alone[n // 2] = 0.1
    assert dcor_sq(x, alone, method=method) == 0.0
    assert dcor_sq(alone, x, method=method) == 0.0
    if n > 5:
        two = alone.copy()
        two[0] = 0.1
        assert 1e-9 < abs(dcor_sq(x, two, method=method)) <= 1
    if method == "naive":
        assert dcor_sq(x, alone, metric="discrete") == 0.0
        assert dcor_sq(x, 1e6 + np.eye(2)[(alone > 0).astype(int)]) == 0.0


def test_unbiased_correlation_of_a_few_tied_rows_stays_within_one():
    rng = np.random.default_rng(0)
    for _ in range(150):
        n = int(rng.integers(4, 8))
        x, y = (0.1 * rng.integers(0, 3, n) + 0.3 for _ in range(2))
        assert abs(dcor_sq(x, y)) <= 1 + 1e-9


@pytest.mark.parametrize("width", [5, 33, 60])
def test_equal_rows_of_many_columns_are_no_distance_apart(width):
    rng = np.random.default_rng(width)
    hot = np.eye(width)[rng.integers(0, width, 120)] + 1e3
    x = torch.tensor(rng.normal(size=(120, 2)), requires_grad=True)
    values, slopes = [], []
    for method in ("tiled", "naive"):
        value = dcov_sq(x, torch.tensor(hot), method=method, estimator="v")
        (slope,) = torch.autograd.grad(value, x)
        values.append(float(value.detach()))
        slopes.append(slope)
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-10, atol=1e-14)
