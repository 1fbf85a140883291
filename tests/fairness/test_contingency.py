"""Tables over public categories, released under differential privacy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privfair.accounting import Ledger, guarantee
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    DataError,
    IncompatibleNeighboringError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
    WeakGuaranteeError,
)
from privfair.core.schema import Categorical
from privfair.fairness import NoiseLaw, join_clients, release_contingency
from privfair.fairness._contingency import _project

DOMAIN = {"z": ["f", "m"], "client": ["a", "b", "never"], "yhat": [0, 1]}


def rows(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "yhat": rng.integers(0, 2, n),
        "z": rng.choice(["f", "m"], n, p=[0.3, 0.7]),
        "client": rng.choice(["a", "b"], n),
    }


def exact(data):
    cells = [np.searchsorted(DOMAIN[name], data[name]) for name in DOMAIN]
    return np.bincount(np.ravel_multi_index(cells, (2, 3, 2)), minlength=12).reshape(2, 3, 2)


def release(data=None, ledger=None, **change):
    given_ = {"privacy": Budget(0.5), "ledger": Ledger() if ledger is None else ledger}
    return release_contingency(rows() if data is None else data, DOMAIN, **given_ | change)


def spent(ledger):
    return sum(entry.epsilon for entry in ledger.entries())


def test_one_charge_one_certificate_and_every_declared_cell():
    ledger = Ledger(cap=Budget(0.75))
    found = release(ledger=ledger)
    assert [entry.purpose for entry in ledger.entries()] == ["fairness: contingency table"]
    assert spent(ledger) == pytest.approx(0.5)
    assert found.axes == ("z", "client", "yhat")
    assert found.shape == (2, 3, 2)
    assert found.n == found.n_public == 2000
    assert found.privacy.epsilon == pytest.approx(0.5)
    assert (found.privacy.delta, found.privacy.certified) == (0.0, True)
    assert found.privacy.neighboring == "zero_out"
    assert any("rows is public" in text for text in found.privacy.assumptions)
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(BudgetExceededError):
        release(ledger=ledger)
    assert spent(ledger) == pytest.approx(0.5)


def test_the_noise_has_the_law_that_the_release_states():
    """20,000 empty or nearly empty cells, seeded: 4 standard errors, and empty cells too."""
    domain = {"a": list(range(200)), "b": list(range(100))}
    data = {"a": np.zeros(50, dtype=int), "b": np.zeros(50, dtype=int)}
    for noise, relation, scale in [("laplace", "zero_out", 2.0), ("laplace", "replace_one", 4.0)]:
        found = release_contingency(
            data, domain, privacy=Budget(0.5), ledger=Ledger(neighboring=relation),
            neighboring=relation, noise=noise, noise_random_state=1,
        )  # fmt: skip
        assert found.noise.scale == pytest.approx(scale)
        residual = found.counts.astype(float)
        residual[0, 0] -= 50
        assert abs(residual.mean()) < 4 * math.sqrt(found.noise.variance / residual.size)
        fourth = np.mean(residual**4) / residual.size
        assert abs(residual.var() - found.noise.variance) < 4 * math.sqrt(fourth)
        assert abs(np.abs(residual).mean() - found.noise.mean_absolute) < 0.1
        assert found.privacy.seeded
        assert not found.privacy.certified


def test_noise_comes_from_the_secret_stream():
    np.random.seed(0)  # noqa: NPY002
    first = release().counts
    np.random.seed(0)  # noqa: NPY002
    assert (first != release().counts).any()


def test_gaussian_noise_spends_its_budget_and_no_more():
    budget = Budget(1.0, 1e-5)
    found = release(noise="gaussian", privacy=budget)
    assert 0.95 < found.privacy.epsilon <= 1.0
    assert found.privacy.delta == 1e-5
    again = guarantee(found.privacy.events[0], delta=1e-5, neighboring="zero_out")
    assert again.epsilon == pytest.approx(found.privacy.epsilon)
    with pytest.raises(InvalidBudgetError, match="delta"):
        release(noise="gaussian", privacy=Budget(1.0))


@pytest.mark.parametrize("value", ["secret-value", None, float("nan"), ["f"]])
def test_an_undeclared_value_is_refused_unread_and_unpaid(value):
    ledger = Ledger()
    data = rows()
    data["z"] = data["z"].astype(object)
    data["z"][7] = value
    with pytest.raises(SchemaError, match="'z'") as caught:
        release(data, ledger)
    assert "secret-value" not in str(caught.value)
    assert spent(ledger) == 0


def test_undeclared_values_go_to_other_where_the_axis_has_one():
    data = {"z": ["f"] * 400 + ["x"] * 600}
    found = release_contingency(
        data, {"z": Categorical(["f", "m"], other="other")}, privacy=Budget(20.0), ledger=Ledger()
    )
    assert found.categories == (("f", "m", "other"),)
    assert np.abs(found.counts - [400, 0, 600]).max() < 5  # chance of failure below 1e-40


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"privacy": 1.0}, InvalidTypeError),
        ({"privacy": Budget(math.inf)}, InvalidBudgetError),
        ({"privacy": Budget(0.0)}, InvalidBudgetError),
        ({"privacy": Budget(25.0)}, WeakGuaranteeError),
        ({"privacy": Budget(1.0, 0.01), "noise": "gaussian"}, WeakGuaranteeError),
        ({"noise": "uniform"}, InvalidParameterError),
        ({"neighboring": "swap"}, InvalidParameterError),
        ({"data": {"z": ["f"]}}, LengthMismatchError),
        ({"data": rows() | {"z": ["f"]}}, LengthMismatchError),
        ({"data": {k: [] for k in DOMAIN}}, DataError),
        ({"data": [1, 2]}, InvalidTypeError),
        ({"noise_random_state": -1}, InvalidParameterError),
    ],
)
def test_bad_input_spends_nothing(change, error):
    ledger = Ledger()
    with pytest.raises(error):
        release(ledger=ledger, **change)
    assert spent(ledger) == 0


def test_a_private_number_of_rows_is_read_off_the_noise():
    found = release(ledger=Ledger(neighboring="add_remove"), neighboring="add_remove")
    assert found.n_public is None
    assert found.n == found.counts.sum()
    assert found.privacy.neighboring == "add_remove"
    assert not any("rows is public" in text for text in found.privacy.assumptions)
    # No rows at all must look like few rows.
    empty = release(
        {k: [] for k in DOMAIN}, Ledger(neighboring="add_remove"), neighboring="add_remove"
    )
    assert empty.probabilities().sum() == pytest.approx(1.0)
    assert empty.n >= 1


def test_clients_tables_cost_what_the_worst_one_costs():
    data = rows()
    parts, ledgers = {}, []
    for client in ("a", "b"):
        inside = data["client"] == client
        ledgers.append(Ledger())
        part = {"z": data["z"][inside], "yhat": data["yhat"][inside]}
        parts[client] = release_contingency(
            part, {"z": ["f", "m"], "yhat": [0, 1]}, privacy=Budget(1.0), ledger=ledgers[-1]
        )
    joint = join_clients(parts)
    assert joint.axes == ("z", "client", "yhat")
    assert joint.privacy.epsilon == pytest.approx(1.0)
    assert joint.privacy.certified
    assert any("one client only" in text for text in joint.privacy.assumptions)
    assert joint.n == 2000
    assert np.abs(joint.counts - exact(data)[:, :2]).max() < 60  # below 1e-20
    assert [spent(ledger) for ledger in ledgers] == [pytest.approx(1.0)] * 2

    with pytest.raises(InvalidParameterError, match="noise"):
        join_clients({"a": release(), "b": release(privacy=Budget(1.0))}, axis="site")
    with pytest.raises(InvalidParameterError, match="already"):
        join_clients({"a": release()})
    with pytest.raises(InvalidParameterError):
        join_clients({})
    other = release_contingency(
        {"z": ["f"]}, {"z": ["f", "m"]}, privacy=Budget(0.5), ledger=Ledger()
    )
    with pytest.raises(SchemaError):
        join_clients({"a": release(), "b": other}, axis="site")
    swapped = release(ledger=Ledger(neighboring="replace_one"), neighboring="replace_one")
    with pytest.raises(IncompatibleNeighboringError):
        join_clients({"a": swapped}, axis="site")


# --- what is made of a release ----------------------------------------------------------------


@given(arrays(float, (3, 6), elements=st.floats(-3, 3, width=32)))
@settings(deadline=None, max_examples=60)
def test_the_projection_is_the_nearest_distribution(shares):
    found = _project(shares)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
    # Nearest, by the variational inequality at every corner, and so everywhere.
    away = shares - found
    corners = away - (away * found).sum(axis=1, keepdims=True)
    assert corners.max() < 1e-9
    np.testing.assert_allclose(_project(found), found, atol=1e-12)


def test_repairs_and_their_bias():
    """True zeros: clipping lifts each by half the mean absolute noise, the projection by less."""
    domain = {"a": list(range(40)), "b": list(range(50))}
    data = {"a": np.zeros(5000, dtype=int), "b": np.zeros(5000, dtype=int)}
    found = release_contingency(
        data, domain, privacy=Budget(1.0), ledger=Ledger(), noise_random_state=3
    )
    clipped, projected = found.probabilities("clip"), found.probabilities()
    for p in (clipped, projected):
        assert p.sum() == pytest.approx(1.0)
        assert p.min() >= 0
    total = 5000 + 1999 * found.noise.mean_absolute / 2
    assert clipped[0, 0] == pytest.approx(5000 / total, abs=0.01)
    assert abs(projected[0, 0] - 1) < 0.01
    assert (projected > 0).sum() < 50
    assert found.noise_share == pytest.approx(found.noise.mean_absolute * 2000 / 5000)
    assert found.axis("b") == 1
    with pytest.raises(InvalidParameterError):
        found.axis("c")
    with pytest.raises(InvalidParameterError):
        found.probabilities("drop")


@pytest.mark.parametrize("noise", ["laplace", "gaussian"])
def test_resampled_tables_carry_sampling_and_noise(noise):
    found = release(noise=noise, privacy=Budget(1.0, 1e-5))
    tables = found.resample(np.random.default_rng(0), 4000)
    assert tables.shape == (4000, 2, 3, 2)
    p = found.probabilities()
    sd = np.sqrt(2000 * p * (1 - p) + found.noise.variance)
    assert (np.abs(tables.mean(axis=0) - 2000 * p) < 4.5 * sd / math.sqrt(4000)).all()
    # A sample variance of 4,000 draws has a relative error of about 0.03; allow 0.15.
    np.testing.assert_allclose(tables.std(axis=0), sd, rtol=0.15)
    shares = found.repaired(tables)
    np.testing.assert_allclose(shares.sum(axis=(1, 2, 3)), 1.0)
    same = found.resample(np.random.default_rng(0), 4000)
    assert (same == tables).all()


def test_an_interval_from_resamples_covers():
    """Share of one cell, 200 data sets, nominal 90 %: within 4 standard errors of it."""
    hits = 0
    truth = 0.2
    rng = np.random.default_rng(5)
    for seed in range(200):
        data = {"a": (rng.random(400) < truth).astype(int)}
        found = release_contingency(
            data, {"a": [0, 1]}, privacy=Budget(0.2), ledger=Ledger(), noise_random_state=seed
        )
        draws = found.repaired(found.resample(rng, 200))[:, 1]
        centre = found.probabilities()[1]
        low, high = 2 * centre - np.quantile(draws, [0.95, 0.05])
        hits += low <= truth <= high
    assert abs(hits / 200 - 0.9) < 4 * math.sqrt(0.09 / 200)


def test_noise_law_against_its_definition():
    for kind, power in [("laplace", 1), ("gaussian", 2)]:
        for scale in (0.4, 1.0, 7.3):
            law = NoiseLaw(kind, scale)
            x = np.arange(-400, 401).astype(float)
            mass = np.exp(-(np.abs(x) ** power) / (scale if power == 1 else 2 * scale**2))
            mass /= mass.sum()
            assert law.variance == pytest.approx(mass @ x**2, rel=1e-9)
            assert law.mean_absolute == pytest.approx(mass @ np.abs(x), rel=1e-9)
            draws = law.simulate((20000,), np.random.default_rng(1))
            assert draws.var() == pytest.approx(law.variance, rel=0.1)
    with pytest.raises(InvalidParameterError):
        NoiseLaw("laplace", 0.0)
