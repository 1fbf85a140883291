"""Training under socio-economic parity in batches: right on average, and the same in the limit."""

from __future__ import annotations

import numpy as np
import pytest

from privfair.core.exceptions import InvalidParameterError, UtilityWarning
from privfair.fairness import SEPClassifier
from privfair.fairness.sep import _network
from privfair.fairness.sep._auglag import _Lagrangian
from privfair.fairness.sep._constraints import CellConstraints, Constraints
from privfair.fairness.sep._minibatch import Batches
from privfair.fairness.sep._network import Network
from privfair.fairness.sep._sets import read_sets


def problem(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    low, s, effort = rng.random(n) < 0.4, rng.choice(["f", "m", "x"], n), rng.random(n) < 0.7
    X = rng.normal(2.0, 3.0, size=(n, 4))
    X[:, 0] -= 3.0 * low + (s == "f")
    y = (X.sum(axis=1) / 3.0 + rng.logistic(size=n) > 2.0).astype(int)
    return X, y, low, s, effort


@pytest.mark.parametrize("reference", ["conditional", "overall"])
@pytest.mark.parametrize("everyone", [False, True])
def test_constraints_by_cell_are_those_by_row(reference, everyone) -> None:
    _, y, low, s, effort = problem(500)
    rng = np.random.default_rng(1)
    w, h = rng.random(500), rng.random(500)
    for shown in (None, effort):
        sets = read_sets(s, low, effort=shown, reference=reference, everyone=everyone, rows=y,
                         groups=["f", "m"])  # fmt: skip
        floor = rng.random(2 + everyone)
        more = {"tolerance": 0.03, "one_sided": False, "floor": floor}
        by_row, by_cell = (
            Constraints.build(sets, w, **more),
            CellConstraints.build(sets, w, **more),
        )
        assert by_row.names == by_cell.names
        np.testing.assert_allclose(by_cell.violation(h), by_row.violation(h), atol=1e-13)
        prices = rng.random(len(by_row.bound))
        every = np.arange(500)
        np.testing.assert_allclose(
            by_cell.slope(every, prices), by_row.gradient(prices), atol=1e-15
        )


@pytest.mark.parametrize(("hidden", "temperature", "size"), [((), None, 30), ((3,), 0.1, 70)])
def test_batches_are_right_on_average(hidden, temperature, size) -> None:
    """Over the batches of one pass: gaps and gradient are those of all rows, to the last digit.

    The ratio of two sums over a batch, which is what a batch alone would suggest, is not. Batches
    of at most 70 share 900 rows evenly.
    """
    X, y, low, s, _ = problem(900)
    rng = np.random.default_rng(2)
    w = rng.random(900)
    mass = w / w.sum()
    sets = read_sets(s, low, rows=y)
    more = {"tolerance": 0.0, "one_sided": True, "floor": np.full(3, 0.9)}
    by_row, limits = Constraints.build(sets, w, **more), CellConstraints.build(sets, w, **more)
    network = Network.of(X, hidden, w)
    theta = 0.3 * rng.normal(size=network.n_parameters)
    batches = Batches(network, X, y.astype(float), mass, size, 0.01, 0.1, 10, rng)
    prices, draw = rng.random(6), batches.draw()
    made, gaps, seen, sizes = [], [], [], []
    while len(seen) < 900:
        rows = next(draw)
        sizes.append(len(rows))
        g, h = batches.gradient(theta, rows, limits, prices, temperature)
        made.append(g)
        gaps.append(limits.change(rows, h) - limits.bound)
        seen += rows.tolist()
    assert sorted(seen) == list(range(900)) and size - 1 <= min(sizes) <= max(sizes) <= size
    h = network.scores(theta, X)
    if temperature is not None:
        h = 1 / (1 + np.exp(-(h - 0.5) / temperature))
    np.testing.assert_allclose(
        np.average(gaps, axis=0, weights=sizes), by_row.violation(h), atol=1e-12
    )
    # With rho -> 0 the push of the Lagrangian is its multipliers.
    whole = _Lagrangian(network, network.prepare(X), y.astype(float), mass, by_row, 0.01, prices,
                        1e-13, temperature, 0.5)  # fmt: skip
    np.testing.assert_allclose(np.average(made, axis=0, weights=sizes), whole(theta)[1], atol=1e-9)


def test_batches_end_where_the_whole_does() -> None:
    """The optimum, although both gaps nearly say the same, so that prices are hard to tell."""
    X, y, low, s, effort = problem(12_000)
    columns = {
        "sensitive_features": np.where(s == "f", "f", "m"), "ses_features": low,
        "effort_features": effort,
    }  # fmt: skip
    more = {"notion": "CSEP", "random_state": 0, "max_rounds": 40}
    whole = SEPClassifier(tol=1e-6, max_iter=300, **more).fit(X, y, **columns)
    parts = SEPClassifier(
        solver="adam", batch_size=1000, max_iter=200, learning_rate=0.05, **more
    ).fit(X, y, **columns)
    assert parts.converged_ and parts.n_iter_ == (5 + parts.n_rounds_) * 200
    one, two = (m.predict_proba(X)[:, 1] for m in (whole, parts))
    assert np.abs(one - two).mean() < 0.004
    assert parts.gaps_["soft_gap"].max() < 0.0112
    np.testing.assert_allclose(parts.base_rates_, whole.base_rates_, atol=2e-3)
    np.testing.assert_allclose(parts.multipliers_, whole.multipliers_, atol=0.25)


@pytest.mark.parametrize(("seed", "rate"), [(0, 0.05), (0, 0.2), (4, 0.05), (11, 0.2)])
def test_what_has_a_price_is_tight_when_the_rounds_end(seed, rate) -> None:
    """No constraint that is still paid for has slack.

    In all four cases there is an earlier round with small violations and prices too high.
    """
    X, y, low, s, _ = problem(4000, seed)
    model = SEPClassifier(
        solver="adam", batch_size=1000, learning_rate=rate, tol=5e-3, random_state=0
    ).fit(X, y, sensitive_features=s, ses_features=low)
    paid = model.multipliers_ > 0
    assert model.converged_ and paid.any()
    assert model.violations_[paid].abs().max() < 5e-3


@pytest.mark.parametrize("constrain", ["hard_surrogate", "post"])
def test_batches_limit_decisions_too(constrain) -> None:
    X, y, low, s, _ = problem()
    columns = {"sensitive_features": s, "ses_features": low}
    more = {"constrain": constrain, "random_state": 0}
    plain = SEPClassifier(tolerance=1.0).fit(X, y, **columns)
    model = SEPClassifier(
        solver="adam", batch_size=1000, learning_rate=0.05, tol=5e-3, **more
    ).fit(X, y, **columns)
    assert plain.gaps_["hard_gap"].max() > 0.1 and model.gaps_["hard_gap"].max() < 0.02


def test_no_batch_is_a_leftover() -> None:
    """A last batch of one row would be a step as long as the others."""
    X, y, low, s, _ = problem(4000)
    columns = {"sensitive_features": s, "ses_features": low}
    whole = SEPClassifier(max_iter=200).fit(X, y, **columns)
    parts = SEPClassifier(
        solver="adam", batch_size=3999, learning_rate=0.05, max_iter=100, random_state=0
    ).fit(X, y, **columns)
    one, two = (m.predict_proba(X)[:, 1] for m in (whole, parts))
    assert parts.converged_ and np.abs(one - two).mean() < 0.004


def test_one_batch_of_all_rows_is_the_whole() -> None:
    X, y, low, s, _ = problem(800)
    one, two = (
        SEPClassifier(solver="adam", batch_size=size).fit(X, y, sensitive_features=s,
                                                          ses_features=low)
        for size in (None, 800)
    )  # fmt: skip
    np.testing.assert_array_equal(one.model_, two.model_)


def test_no_more_than_a_part_is_standardised_at_a_time(monkeypatch, tmp_path) -> None:
    """Training, predicting and the report; rows may lie on disk."""
    X, y, low, s, _ = problem(4000)
    disk = np.memmap(tmp_path / "rows", dtype=np.float64, mode="w+", shape=X.shape)
    disk[:] = X
    seen: list[int] = []
    plain = Network.prepare
    monkeypatch.setattr(_network, "_CHUNK", 300)
    monkeypatch.setattr(
        Network, "prepare", lambda self, rows: seen.append(len(rows)) or plain(self, rows)
    )
    options = {"solver": "adam", "batch_size": 400, "max_iter": 20, "tol": 0.5, "random_state": 0}
    columns = {"sensitive_features": s, "ses_features": low}
    there, here = (SEPClassifier(**options).fit(rows, y, **columns) for rows in (disk, X))
    p = there.predict_proba(disk)
    assert max(seen) == 400
    monkeypatch.undo()
    np.testing.assert_allclose(p, here.predict_proba(X), atol=1e-9)


def test_what_batches_need() -> None:
    X, y, low, s, _ = problem(800)
    columns = {"sensitive_features": s, "ses_features": low}
    for bad in ({}, {"method": "post", "solver": "adam"}):
        with pytest.raises(InvalidParameterError, match="batch_size was given"):
            SEPClassifier(batch_size=100, **bad).fit(X, y, **columns)
    with pytest.raises(InvalidParameterError, match="batch_size"):
        SEPClassifier(batch_size=0, solver="adam").fit(X, y, **columns)
    quick = {"batch_size": 50, "solver": "adam", "tol": 1.0, "max_iter": 5}
    with pytest.warns(UtilityWarning, match="leaves the smallest set"):
        SEPClassifier(**quick).fit(X, y, **columns)
    X, y, low, s, _ = problem(4000)
    with pytest.warns(UtilityWarning, match="after 3 rounds no constraint was broken, and prices"):
        SEPClassifier(
            solver="adam", batch_size=1000, learning_rate=0.05, tol=5e-3, max_rounds=3,
            random_state=0,
        ).fit(X, y, sensitive_features=s, ses_features=low)  # fmt: skip


def test_a_batch_has_too_few_rows_of_a_set() -> None:
    """Rows without weight do not count, and no more rows are asked for than there are."""
    X, y, _, s, _ = problem(800)
    few = np.zeros(800, dtype=bool)
    few[:40] = True  # of these only one of each group counts
    weight = np.where(few, 0.0, 1.0)
    for group in np.unique(s):
        weight[np.flatnonzero(few & (s == group))[0]] = 1.0
    with pytest.warns(UtilityWarning, match=r"0\.1 rows of a batch.* at least 800\."):
        SEPClassifier(min_group=1, batch_size=50, solver="adam", tol=1.0, max_iter=5).fit(
            X, y, sensitive_features=s, ses_features=few, sample_weight=weight
        )
