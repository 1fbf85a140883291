"""The lower end of the bracket: never above the truth, close below the upper end."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair import accounting as ac
from privfair.accounting import _cells, _gaussian, _lower, _plan
from privfair.core.exceptions import InvalidTypeError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sampled_gaussian.json").read_text())


def sgd(q, sigma, steps):
    return ac.SelfComposed(ac.PoissonSampled(q, ac.Gaussian(sigma)), steps)


@pytest.mark.golden
@pytest.mark.parametrize("part", range(6))
def test_reference_vectors_are_bracketed(part):
    """Lower end at most the PRV accountant's upper one, and within 0.6 % of ours."""
    for row in GOLDEN["rows"][part::6]:
        event = sgd(row["q"], row["sigma"], row["steps"])
        found = ac.guarantee(event, delta=row["delta"], bracket=True)
        assert found.lower is not None, row
        assert 0.994 * found.epsilon <= found.lower <= found.epsilon
        assert found.lower <= row["upper"]
        if row["high"] is not None:
            assert found.lower <= row["high"]
            assert row["low"] <= found.epsilon


@given(
    sigma=st.floats(1.0, 30.0), steps=st.integers(1, 200), step=st.sampled_from([1e-2, 2e-3]),
    delta=st.sampled_from([1e-3, 1e-6, 1e-9]),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_any_grid_stays_below_the_closed_form(sigma, steps, step, delta):
    """The grid's construction on Gaussians without sampling, whose truth is known exactly."""
    plan = _plan.Plan("zero_out")
    plan.sampled[1.0, sigma] = steps
    exact = _gaussian.epsilon(math.sqrt(steps) / sigma, delta)
    found = _lower._composed(plan, step, delta)
    assert found <= exact
    # Merging cells of width h loses a variance of h^2 / 12 in each step, and rounding one cell.
    if step < 0.05 / sigma:
        assert found >= exact * (1 - 2e-2) - 2 * step


@pytest.mark.parametrize("step", [3e-2, 1e-2, 1e-3])
@pytest.mark.parametrize(("q", "sigma"), [(1.0, 1.0), (0.1, 1.0), (0.01, 0.7), (0.3, 4.0)])
def test_a_rounded_pair_is_dominated(q, sigma, step):
    """One step: the divergence of what is rounded down is at most the exact one, rounded up at
    least, at every epsilon; and no mass appears."""
    cells = _cells.mixture_cells(np.array([0.0, 1.0]), np.array([1 - q, q]), sigma, step)
    for order, remove in ((cells, True), (cells.mirrored(), False)):
        low, down = _cells.rounded_down(order)
        first, up, infinite = _cells.rounded_up(order)
        assert down.min() >= 0
        assert down.sum() <= 1 + 1e-12
        assert up.sum() + infinite == pytest.approx(1, abs=1e-12)
        for epsilon in np.linspace(-0.5, 4, 23):
            x = np.linspace(-12 * sigma, 1 + 12 * sigma, 40_001)
            null = np.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
            mixed = null * (1 - q + q * np.exp((2 * x - 1) / (2 * sigma**2)))
            a, b = (mixed, null) if remove else (null, mixed)
            exact = np.maximum(0.0, a - math.exp(epsilon) * b).sum() * (x[1] - x[0])
            values = []
            for at, p in ((low, down), (first, up)):
                loss = (at + np.arange(len(p))) * step
                values.append(p @ np.maximum(0.0, -np.expm1(np.minimum(0.0, epsilon - loss))))
            assert values[0] <= exact + 1e-7
            assert exact - 1e-7 <= values[1] + infinite


@pytest.mark.parametrize(
    ("events", "options"),
    [
        (sgd(0.1, 3.0, 200), {"neighboring": "replace_one"}),
        (ac.SelfComposed(ac.UserPoisson(0.02, 9.0, 5), 100), {"unit": "user"}),
        ([sgd(0.1, 3.0, 100), ac.SelfComposed(ac.PureDP(0.05), 40), ac.ApproxDP(0.0, 1e-7)], {}),
        (ac.SelfComposed(ac.DiscreteLaplace(0.1, 3), 50), {}),
        (ac.SelfComposed(ac.RandomizedResponse(0.3, 4), 30), {"neighboring": "replace_one"}),
        (ac.Gaussian(2.0), {}),
    ],
    ids=["replaced", "users", "mixture", "discrete Laplace", "responses", "Gaussian"],
)
def test_brackets_are_narrow(events, options):
    found = ac.guarantee(events, delta=1e-6, bracket=True, **options)
    assert found.lower is not None
    assert 0.99 * found.epsilon <= found.lower <= found.epsilon
    assert found.to_dict()["lower"] == found.lower
    assert ac.guarantee(events, delta=1e-6, **options).lower is None


def test_repeated_responses_are_bracketed_around_the_exact_number():
    count, eps0, delta = 40, 0.2, 1e-6
    p = math.exp(eps0) / (1 + math.exp(eps0))
    k = np.arange(count + 1)
    mass = np.array([math.comb(count, int(i)) * p**i * (1 - p) ** (count - i) for i in k])
    loss = eps0 * (2 * k - count)

    def divergence(epsilon):
        return mass @ np.maximum(0.0, -np.expm1(np.minimum(0.0, epsilon - loss)))

    event = ac.SelfComposed(ac.PureDP(eps0), count)
    found = ac.guarantee(event, delta=delta, bracket=True)
    assert divergence(found.lower) >= delta * (1 - 1e-9)
    assert divergence(found.epsilon) <= delta * (1 + 1e-9)


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (ac.ZCDP(0.1), "zero_out"), (ac.ExponentialMechanism(0.5), "zero_out"),
        (ac.PureDP(0.5), "replace_one"), (ac.PoissonSampled(0.1, ac.PureDP(1.0)), "zero_out"),
        (ac.ShuffledEpochs(100, 10, 2, 1.0), "zero_out"), (ac.NonPrivate(), "zero_out"),
        (ac.TruncatedPoisson(100, 0.1, 12, 2.0), "zero_out"),
        (ac.RepeatAndSelect(ac.Gaussian(2.0), 3.0, 1.0), "zero_out"),
        (ac.Parallel([ac.Gaussian(2.0), ac.PureDP(0.1)]), "zero_out"),
    ],
    ids=lambda item: getattr(item, "kind", item),
)  # fmt: skip
def test_no_lower_end_where_the_price_is_not_attained(event, relation):
    found = ac.guarantee(event, delta=1e-6, neighboring=relation, bracket=True)
    assert found.lower is None
    with pytest.raises(InvalidTypeError):
        ac.guarantee(ac.Gaussian(1.0), delta=1e-6, bracket=1)


# -- trade-off ------------------------------------------------------------------------------
@pytest.mark.parametrize("accountant", ["best", "gdp", "pld", "rdp", "zcdp"])
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.1, 0.5])
def test_the_envelope_of_all_lines(accountant, alpha):
    """A Gaussian of mu = 1: its own curve for the exact accountants, below it for the others."""
    found = ac.guarantee(ac.Gaussian(1.0), delta=1e-6, accountant=accountant)
    ((_, beta),) = found.tradeoff([alpha])
    exact = _gaussian.beta(1.0, alpha)
    if alpha == 0.05:
        assert exact == pytest.approx(0.740489, abs=1e-6)
    assert beta <= exact + 1e-9
    assert beta == pytest.approx(exact, abs=1e-9 if accountant in ("best", "gdp") else
                                 (2e-5 if accountant == "pld" else 0.15))  # fmt: skip
    one_point = max(0.0, 1 - 1e-6 - math.exp(found.epsilon) * alpha)
    assert beta >= one_point - 1e-12


def test_curves_and_trade_offs_of_every_kind():
    from tests.accounting.test_events import ALL

    for event in ALL:
        relation = "replace_one" if event.kind == "FixedBatchWOR" else "zero_out"
        found = ac.guarantee(event, delta=1e-6, neighboring=relation, unit="user")
        curve = found.curve([1e-3, 1e-6, 1e-9])
        assert [epsilon for _, epsilon in curve] == sorted(epsilon for _, epsilon in curve)
        points = found.tradeoff([0.01, 0.1, 0.5])
        errors = [beta for _, beta in points]
        assert errors == sorted(errors, reverse=True)
        assert all(0 <= beta <= 1 - alpha + 1e-9 for alpha, beta in points)
        assert found.explain()
