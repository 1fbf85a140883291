"""The epsilon of repeated reports, against enumeration of every memo and every report."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.accounting import longitudinal_epsilon
from privfair.core.exceptions import InvalidParameterError

F = Fraction


def direct(k: int, p: Fraction) -> tuple[Fraction, Fraction]:
    return p, (1 - p) / (k - 1)


def contrasts(k: int, eps_perm: float, eps_1: float):
    """The pairs of a tight chain, in floats."""
    lam = [math.expm1(e) / (math.exp(e) + k - 1) for e in (eps_perm, eps_1)]
    lam = [lam[0], lam[1] / lam[0]]
    return [(1 / k + (1 - 1 / k) * x, (1 - x) / k) for x in lam]


def unary(eps_perm: float, eps_1: float):
    """The pairs of OUE followed by symmetric flips, in floats."""
    q1 = 1 / (math.exp(eps_perm) + 1)
    lam = (0.5 - 1 / (math.exp(eps_1) + 1)) / (0.5 - q1)
    return (0.5, q1), ((1 + lam) / 2, (1 - lam) / 2)


def law(histories, symbols, outer, inner, outputs):
    """Return P(reports | history) for each history, summed over all memos of all values."""
    found = {}
    for history in histories:
        for y in outputs:
            total = F(1)
            for v in set(history):
                places = [t for t, x in enumerate(history) if x == v]
                block = F(0)
                for memo in symbols:
                    chance = outer(memo, v)
                    for t in places:
                        chance *= inner(y[t], memo)
                    block += chance
                total *= block
            found[history, y] = total
    return found


def worst(found, pairs, outputs) -> float:
    ratio = max(found[a, y] / found[b, y] for a, b in pairs for y in outputs)
    return math.log(ratio.numerator) - math.log(ratio.denominator)


def symbol_chain(k, p1, p2):
    one, two = direct(k, p1), direct(k, p2)
    return (
        one, two,
        lambda memo, v: one[0 if memo == v else 1],
        lambda y, memo: two[0 if y == memo else 1],
    )  # fmt: skip


@pytest.mark.parametrize(("k", "rounds"), [(2, 5), (3, 4), (4, 3)])
def test_direct_reports_of_one_value_by_enumeration(k: int, rounds: int) -> None:
    one, two, outer, inner = symbol_chain(k, F(3, 5), F(7, 10))
    for t in range(1, rounds + 1):
        outputs = list(product(range(k), repeat=t))
        constant = [(v,) * t for v in range(k)]
        found = law(constant, range(k), outer, inner, outputs)
        assert sum(found[constant[0], y] for y in outputs) == 1
        exact = worst(found, product(constant, constant), outputs)
        assert longitudinal_epsilon(one, two, t) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(("k", "rounds"), [(2, 3), (3, 2)])
def test_unary_reports_of_one_value_by_enumeration(k: int, rounds: int) -> None:
    one, two = (F(1, 2), F(1, 8)), (F(4, 5), F(3, 10))
    bits = list(product((0, 1), repeat=k))

    def bit(pair, set_, y):
        return pair[0 if set_ else 1] if y else 1 - pair[0 if set_ else 1]

    def outer(memo, v):
        return math.prod((bit(one, j == v, b) for j, b in enumerate(memo)), start=F(1))

    def inner(y, memo):
        return math.prod((bit(two, m, b) for m, b in zip(memo, y, strict=True)), start=F(1))

    for t in range(1, rounds + 1):
        outputs = list(product(bits, repeat=t))
        constant = [(v,) * t for v in range(k)]
        found = law(constant, bits, outer, inner, outputs)
        exact = worst(found, product(constant, constant), outputs)
        got = longitudinal_epsilon(one, two, t, encoding="unary")
        assert got == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("n_distinct", [1, 2, 3])
def test_reports_of_several_values_by_enumeration(n_distinct: int) -> None:
    """The worst of all pairs of histories that repeat at the same times."""
    k, t = 3, 4
    one, two, outer, inner = symbol_chain(k, F(3, 5), F(7, 10))
    outputs = list(product(range(k), repeat=t))
    histories = [h for h in product(range(k), repeat=t) if len(set(h)) <= n_distinct]
    found = law(histories, range(k), outer, inner, outputs)

    def pattern(h):
        return tuple(h.index(x) for x in h)

    pairs = [(a, b) for a in histories for b in histories if pattern(a) == pattern(b)]
    exact = worst(found, pairs, outputs)
    got = longitudinal_epsilon(one, two, t, n_distinct=n_distinct, max_memos=k)
    assert got == pytest.approx(exact, abs=1e-12)


def test_when_the_value_changes_is_not_protected() -> None:
    """A history that changes against one that does not exceeds the sum over its memos."""
    k, t = 3, 10
    one, two, _, _ = symbol_chain(k, F(11, 20), F(9, 10))
    (p1, q1), (p2, q2) = one, two
    half = t // 2
    # Reports: value 0 in the first half, 1 in the second; histories: exactly that, or always 2.
    block = p1 * p2**half + (1 - p1) * q2**half
    same = sum(
        (p1 if m == 2 else q1) * (p2 if m == 0 else q2) ** half * (p2 if m == 1 else q2) ** half
        for m in range(k)
    )
    ratio = float(block**2 / same)
    per_memo = longitudinal_epsilon(one, two, math.inf)
    assert math.log(ratio) > 2 * per_memo >= longitudinal_epsilon(one, two, t, n_distinct=2)
    assert math.log(ratio) <= t * math.log(p2 / q2)


def test_published_numbers() -> None:
    """Two GRR steps and OUE with flips, three values, epsilon (2, 1)."""
    one, two = contrasts(3, 2.0, 1.0)
    got = [longitudinal_epsilon(one, two, t) for t in (1, 2, 3, 5)]
    assert got == pytest.approx([1.0, 1.660877, 1.912359, 1.995380], abs=1e-6)
    one, two = unary(2.0, 1.0)
    got = [longitudinal_epsilon(one, two, t, encoding="unary") for t in (1, 2, 3, 6)]
    assert got == pytest.approx([1.0, 1.641664, 1.899151, 1.998443], abs=1e-6)


def test_two_reports_may_cost_more_than_twice_one() -> None:
    one, two = contrasts(1000, 2.0, 0.01)
    first, second = (longitudinal_epsilon(one, two, t) for t in (1, 2))
    assert first == pytest.approx(0.01) and second > 3 * first


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 500), st.floats(0.2, 8.0), st.floats(0.05, 0.95), st.integers(1, 300))
def test_it_grows_to_the_epsilon_of_the_memo(k, eps_perm, share, t) -> None:
    one, two = contrasts(k, eps_perm, share * eps_perm)
    here, next_ = (longitudinal_epsilon(one, two, x) for x in (t, t + 1))
    last = longitudinal_epsilon(one, two, math.inf)
    assert here <= next_ <= last == pytest.approx(eps_perm, rel=1e-6)
    assert longitudinal_epsilon(one, two, 1) == pytest.approx(share * eps_perm, rel=1e-6)
    assert longitudinal_epsilon(one, two, t, n_distinct=4) <= 4 * last * (1 + 1e-12)
    assert longitudinal_epsilon(one, two, 10**15) == last


def test_many_reports_of_several_values_take_the_limit() -> None:
    one, two = contrasts(5, 2.0, 1.0)
    assert longitudinal_epsilon(one, two, 600, n_distinct=3) == pytest.approx(6.0)
    assert longitudinal_epsilon(one, two, math.inf, n_distinct=9, max_memos=5) == pytest.approx(10)
    assert longitudinal_epsilon(one, (1, 0), 3) == pytest.approx(2.0)  # the memo itself


@pytest.mark.parametrize(
    "call",
    [
        lambda: longitudinal_epsilon((0.5, 0.5), (0.9, 0.1), 1),
        lambda: longitudinal_epsilon((1.0, 0.1), (0.9, 0.1), 1),
        lambda: longitudinal_epsilon((0.5, 0.0), (0.9, 0.1), 1),
        lambda: longitudinal_epsilon((0.5, 0.1), (0.1, 0.9), 1),
        lambda: longitudinal_epsilon((0.5, math.nan), (0.9, 0.1), 1),
        lambda: longitudinal_epsilon((0.5,), (0.9, 0.1), 1),
        lambda: longitudinal_epsilon((0.5, 0.1), (0.9, 0.1), 0),
        lambda: longitudinal_epsilon((0.5, 0.1), (0.9, 0.1), 1.5),
        lambda: longitudinal_epsilon((0.5, 0.1), (0.9, 0.1), 1, n_distinct=0),
        lambda: longitudinal_epsilon((0.5, 0.1), (0.9, 0.1), 1, encoding="hashed"),
    ],
)
def test_bad_numbers(call) -> None:
    with pytest.raises(InvalidParameterError):
        call()
