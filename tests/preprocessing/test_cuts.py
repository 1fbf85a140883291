"""Private cut points: their law, their price, and their way through encoder and estimators."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from privfair.accounting import Ledger
from privfair.core import Budget, Categorical, Numeric, Schema
from privfair.core.exceptions import BudgetExceededError, SchemaError
from privfair.core.frames import as_table
from privfair.dp import DPClassifier, DPRegressor
from privfair.preprocessing import PrivateTableEncoder, _cuts, with_exact_cuts

SCHEMA = Schema({"x": Numeric(0, 8), "kind": Categorical(["a", "b"]), "z": Numeric(0, 100)})


def frame(n=4_000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"x": rng.uniform(0, 8, n), "kind": rng.choice(["a", "b"], n), "z": rng.gamma(2, 10, n)}
    )


# -- the law -------------------------------------------------------------------------------
def law(values, epsilon, monkeypatch, levels=2, steps=4):
    """Return the probability of every result, by the formula, along every path of choices."""
    monkeypatch.setattr(_cuts, "LEVELS", levels)
    monkeypatch.setattr(_cuts, "_STEPS", steps)
    each = epsilon / levels
    found: dict[tuple[float, ...], float] = {}
    pending = [()]
    while pending:
        path = pending.pop()
        at, probability, widths = 0, 1.0, []

        def median(inside, grid, path=path, widths=widths):
            nonlocal at, probability
            quality = [-abs(0.5 * (inside < v).sum() - 0.5 * (inside > v).sum()) for v in grid]
            weight = np.exp(each * np.array(quality) / (2 * 0.5))
            choice = path[at] if at < len(path) else 0
            at += 1
            widths.append(len(grid))
            probability *= weight[choice] / weight.sum()
            return float(grid[choice])

        column = _cuts._with_cuts(Numeric(0, 8), np.array(values, dtype=float), median)
        key = column.bins
        found[key] = found.get(key, 0.0) + probability
        done = list(path) + [0] * (len(widths) - len(path))
        for position in range(len(path), len(widths)):  # siblings of the choices first made here
            pending += [tuple(done[:position]) + (other,) for other in range(1, widths[position])]
    return found


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_one_record_changes_no_probability_by_more_than_the_price(epsilon, monkeypatch):
    """All data sets of up to three records on five values, a record removed: exact, no draw."""
    laws = {}
    places = [0.0, 1.0, 3.0, 5.0, 7.0]
    for size in range(4):
        for data in itertools.combinations_with_replacement(places, size):
            laws[data] = law(data, epsilon, monkeypatch)
            assert math.isclose(sum(laws[data].values()), 1.0, rel_tol=1e-9)
    worst = 0.0
    for data, one in laws.items():
        for gone in range(len(data)):
            other = laws[data[:gone] + data[gone + 1 :]]
            assert one.keys() == other.keys()
            worst = max(worst, max(abs(math.log(one[k] / other[k])) for k in one))
    assert epsilon / 4 < worst <= epsilon * (1 + 1e-12)


def test_the_draw_follows_the_law(monkeypatch):
    """2,000 seeded releases against the formula: chi-square at level 1e-4."""
    from scipy import stats

    data, epsilon = [1.0, 1.0, 1.0, 5.0, 5.0, 7.0], 4.0
    expected = law(data, epsilon, monkeypatch)
    seen = dict.fromkeys(expected, 0)
    for seed in range(2_000):
        cuts = _cuts.CutDiscovery(["x"], epsilon, "zero_out", seed)
        schema = cuts.learn(as_table({"x": data}), Schema({"x": Numeric(0, 8)}))
        seen[schema["x"].bins] += 1
    keys = [k for k in expected if 2_000 * expected[k] >= 5]
    observed = [seen[k] for k in keys] + [sum(seen[k] for k in expected if k not in keys)]
    wanted = [2_000 * expected[k] for k in keys]
    wanted += [2_000 - sum(wanted)]
    if wanted[-1] < 1:
        observed, wanted = observed[:-1], wanted[:-1]
        wanted = list(np.array(wanted) * sum(observed) / sum(wanted))
    assert stats.chisquare(observed, wanted).pvalue > 1e-4


def test_a_record_enters_one_median_of_each_level():
    seen = []

    def median(inside, grid):
        seen.append(sorted(inside.tolist()))
        return float(grid[len(grid) // 2])

    values = np.arange(64) / 8.0
    _cuts._with_cuts(Numeric(0, 8), values, median)
    entries = sorted(v for cell in seen for v in cell)
    assert entries == sorted(list(values) * _cuts.LEVELS)


def test_missing_numbers_enter_no_median():
    column = _cuts._with_cuts(
        Numeric(0, 8), np.array([1.0, np.nan]), lambda v, g: float(g[len(v) - 1])
    )
    assert column.bins


# -- the price -----------------------------------------------------------------------------
@pytest.mark.parametrize("neighboring", ["zero_out", "add_remove", "replace_one"])
def test_the_price_is_the_budget(neighboring):
    from privfair.accounting import guarantee

    encoder = PrivateTableEncoder(
        schema=SCHEMA, binning="dp_quantiles", epsilon=0.5, neighboring=neighboring
    )
    events = encoder.cost()
    assert guarantee(events, delta=0.0, neighboring=neighboring).epsilon == pytest.approx(0.5)
    (event,) = events
    assert event.count == 2 * _cuts.LEVELS


@pytest.mark.parametrize("schema", [SCHEMA, None], ids=["public", "learnt"])
def test_encoder_charges_first_and_finds_even_bins(schema):
    X = frame()
    delta = None if schema is not None else 1e-6
    options = {"schema": schema, "binning": "dp_quantiles", "epsilon": 4.0, "delta": delta}
    small = Ledger(cap=Budget(0.1, 1e-3))
    with pytest.raises(BudgetExceededError):
        PrivateTableEncoder(**options, ledger=small).fit(X)
    ledger = Ledger()
    encoder = PrivateTableEncoder(**options, ledger=ledger).fit(X)
    assert ledger.spent().epsilon == pytest.approx(encoder.privacy_.epsilon, rel=1e-6)
    assert 0 < encoder.privacy_.epsilon <= 4.0 * (1 + 1e-9)
    cuts = encoder.schema_["x"].bins
    shares = np.diff(np.searchsorted(np.sort(X["x"]), [0, *cuts, 8])) / len(X)
    assert len(cuts) == 15 and shares.max() < 0.13
    assert encoder.transform(X).shape[1] == encoder.n_features_out_ > 30
    again = PrivateTableEncoder.from_dict(encoder.to_dict())
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
    assert again.privacy_ == encoder.privacy_
    assert again.fit(X).privacy_ == encoder.privacy_  # nothing is learnt again


def test_declared_bins_are_left_aside():
    X = frame()
    schema = Schema({**SCHEMA, "x": Numeric(0, 8, bins=[7.9])})
    encoder = PrivateTableEncoder(
        schema=schema, binning="dp_quantiles", epsilon=4.0, ledger=Ledger()
    ).fit(X)
    assert len(encoder.schema_["x"].bins) == 15


def test_log_columns_are_cut_on_their_own_scale():
    values = np.r_[np.zeros(900), np.geomspace(10, 1e6, 100)]
    schema = Schema({"gain": Numeric(0, 1e6, log=True)})
    cuts = with_exact_cuts(as_table({"gain": values}), schema)["gain"].bins
    assert sum(10 < cut < 1e6 for cut in cuts) >= 6


# -- inside estimators ---------------------------------------------------------------------
@pytest.mark.parametrize("schema", [SCHEMA, None], ids=["public", "learnt"])
def test_cut_points_are_paid_inside_the_estimators_epsilon(schema):
    X = frame(3_000)
    y = np.where((X["x"] - 4).abs() < 2, "mid", "end")
    ledger = Ledger()
    clf = DPClassifier(
        epsilon=4.0, delta=1e-5, schema=schema, binning="dp_quantiles", ledger=ledger, epochs=20
    ).fit(X, y)
    assert clf.privacy_.certified and clf.privacy_.epsilon <= 4.0
    assert len(ledger) == 1 and ledger.spent().epsilon <= 4.0
    kinds = str(clf.privacy_.to_dict()["events"])
    assert "ExponentialMechanism" in kinds
    assert clf.score(X, y) > 0.8  # a linear model without bins has 0.5
    plain = DPClassifier(epsilon=4.0, delta=1e-5, schema=SCHEMA, epochs=20, ledger=Ledger())
    assert plain.fit(X, y).noise_multiplier_ < clf.noise_multiplier_


def test_twin_uses_exact_cut_points_and_is_not_private():
    X = frame(500)
    reg = DPRegressor(
        target_range=(0, 1), epsilon=math.inf, schema=SCHEMA, binning="dp_quantiles", epochs=2
    ).fit(X, np.ones(500))
    assert reg.privacy_.unsafe
    assert reg.encoding_.encoder.schema_ == with_exact_cuts(as_table(X), SCHEMA)


def test_saved_and_loaded(tmp_path):
    X = frame(500)
    y = np.where(X["x"] > 4, "a", "b")
    clf = DPClassifier(schema=SCHEMA, binning="dp_quantiles", epochs=1, ledger=Ledger()).fit(X, y)
    clf.save(tmp_path / "m.safetensors")
    again = DPClassifier.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.binning == "dp_quantiles" and again.privacy_ == clf.privacy_


def test_rows_that_do_not_fit_the_schema_spend_nothing():
    X = frame(200)
    X.loc[3, "kind"] = "c"
    ledger = Ledger()
    with pytest.raises(SchemaError):
        DPClassifier(schema=SCHEMA, binning="dp_quantiles", ledger=ledger).fit(
            X, np.arange(200) % 2
        )
    assert ledger.spent().epsilon == 0.0
