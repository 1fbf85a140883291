"""Forecasting counts: windows, cells, units of privacy, noise, models, saving."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from privfair.accounting import Ledger
from privfair.core.exceptions import (
    AccountingAssumptionError,
    BudgetExceededError,
    DataError,
    InvalidParameterError,
    WeakGuaranteeError,
)
from privfair.dp import DPForecaster, GaussianInputPerturber, WindowTransformer
from privfair.dp.forecasting._networks import NETWORKS, AbsoluteLoss, RecurrentNetwork
from privfair.dp.forecasting._perturb import LocalLevel
from privfair.dp.forecasting._pricing import gaussian_epsilon, group_cost
from privfair.testing import RefusingLedger
from privfair.training import DPEngine, TrainingPlan, make_optimizer


def series(n=1500, seed=0, level=3000.0):
    """Made-up counts every half hour: daily and weekly profile, drifting level, 3 regions."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=n, freq="30min")
    day = 2 * np.pi * np.arange(n) / 48
    base = 1 + 0.4 * np.sin(day)[:, None] + 0.15 * np.cos(2 * day[:, None] + np.arange(3))
    weekend = np.where(times.day_of_week >= 5, 0.8, 1.0)[:, None]
    drift = np.cumsum(rng.normal(0, 0.002, (n, 3)), axis=0)
    noise = rng.normal(0, 0.01, (n, 3))
    counts = np.maximum(level * (base * weekend + drift + noise), 0).round().astype(int)
    return pd.DataFrame(counts, index=times, columns=list("abc"))


def users():
    return Ledger(unit="user")


def test_copies_release_none_of_the_rows_that_were_paid_for_once(tmp_path):
    counts = series(60).to_numpy()
    perturber = GaussianInputPerturber(n_releases=62, ledger=users())
    perturber.fit_transform(counts)
    for other in (
        copy.deepcopy(perturber), copy.copy(perturber), pickle.loads(pickle.dumps(perturber))
    ):  # fmt: skip
        with pytest.raises(BudgetExceededError, match="copy"):
            other.release_next(counts[0])
    assert perturber.release_next(counts[0]).shape == (3,)
    model = DPForecaster(model="ridge", n_releases=62, ledger=users()).fit(counts)
    with pytest.raises(BudgetExceededError, match="copy"):
        pickle.loads(pickle.dumps(model)).release_next(counts[0])
    model.save(tmp_path / "model")
    with pytest.raises(BudgetExceededError, match="from a file"):
        DPForecaster.load(tmp_path / "model").release_next(counts[0])
    assert model.release_next(counts[0]).shape == (3,)


# -- windows ------------------------------------------------------------------------------------
def test_no_window_is_built_over_a_gap():
    frame = series(100).drop(series(100).index[40:43])
    windows = WindowTransformer(lags=4, horizon=2).transform(frame)
    values, times = frame.to_numpy(), frame.index
    expected = [
        i for i in range(len(frame) - 5)
        if all(times[j + 1] - times[j] == pd.Timedelta("30min") for j in range(i, i + 5))
    ]  # fmt: skip
    assert windows.rows.tolist() == [i + 4 for i in expected] and len(expected) < len(frame) - 5
    for at, i in enumerate(expected):
        np.testing.assert_array_equal(windows.lags[at], values[i : i + 4])
        np.testing.assert_array_equal(windows.targets[at], values[i + 4 : i + 6])


def test_a_row_is_in_at_most_lags_plus_horizon_windows():
    frame, cutter = series(60), WindowTransformer(lags=4, horizon=2)
    before = cutter.transform(frame)
    frame.iloc[30] += 1
    after = cutter.transform(frame)
    changed = [
        not (np.array_equal(a, b) and np.array_equal(c, d))
        for a, b, c, d in zip(
            before.lags, after.lags, before.targets, after.targets, strict=True
        )
    ]  # fmt: skip
    assert sum(changed) == 6


def test_a_forecast_looks_back_only():
    frame = series(400)
    model = DPForecaster(mode="none", model="ridge").fit(frame)
    windows = WindowTransformer().transform(frame)
    changed = frame.copy()
    changed.iloc[300:] += 1000
    later = WindowTransformer().transform(changed)
    early = windows.rows <= 300
    np.testing.assert_array_equal(
        model.model_.predict(windows)[early], model.model_.predict(later)[early]
    )


@pytest.mark.parametrize(
    "times", [["2024-01-02", "2024-01-01"], ["2024-01-01", "2024-01-01"], ["2024-01-01", None]]
)
def test_timestamps_must_rise(times):
    with pytest.raises(DataError, match="strictly increasing"):
        WindowTransformer(lags=1).transform(np.ones((2, 1)), timestamps=times)


# -- networks -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "peer"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
@pytest.mark.parametrize("both", [False, True])
def test_cells_are_those_of_torch(kind, peer, both):
    torch.manual_seed(0)
    theirs = peer(5, 4, batch_first=True, bidirectional=both)
    ours = RecurrentNetwork("bi" * both + kind, 2, 3, 4, 1, np.random.default_rng(0))
    cells = [ours.forward_cell] + ([ours.backward_cell] if both else [])
    with torch.no_grad():
        for cell, tail in zip(cells, ("", "_reverse"), strict=False):
            for name in ("ih", "hh"):
                layer = getattr(cell, name)
                layer.weight.copy_(getattr(theirs, f"weight_{name}_l0{tail}"))
                layer.bias.copy_(getattr(theirs, f"bias_{name}_l0{tail}"))
        x = torch.randn(7, 6, 5)
        out = theirs(x)[0]
        np.testing.assert_allclose(ours.forward_cell(x), out[:, -1, :4], atol=1e-6)
        if both:  # the backward cell ends at the first lag
            np.testing.assert_allclose(ours.backward_cell(x.flip(1)), out[:, 0, 4:], atol=1e-6)


@pytest.mark.parametrize("kind", NETWORKS)
def test_clipped_sums_are_those_of_one_window_at_a_time(kind):
    torch.manual_seed(1)
    net = RecurrentNetwork(kind, 2, 1, 3, 2, np.random.default_rng(0))
    with torch.no_grad():
        net.dense.weight.normal_()
    X, y = torch.randn(9, 5, 3), torch.randn(9, 4)
    loss, bound = AbsoluteLoss(4), 0.3
    total = torch.zeros(sum(p.numel() for p in net.parameters()))
    for i in range(9):
        net.zero_grad()
        loss.per_record(net(X[i : i + 1]), y[i : i + 1]).sum().backward()
        grad = torch.cat([p.grad.flatten() for p in net.parameters()])
        total += grad * min(1.0, bound / float(grad.norm()))
    plan = TrainingPlan(9, 9, 1, bound, 1.0)
    engine = DPEngine(net, loss, plan, optimizer=make_optimizer("sgd", 0.1))
    engine._path.prepare(X)
    found = engine._sums(X, y, None, None, torch.arange(9)).total
    np.testing.assert_allclose(found.numpy(), total.numpy(), atol=1e-5)


def test_a_fresh_network_forecasts_the_last_rows():
    net = RecurrentNetwork("bigru", 2, 1, 3, 2, np.random.default_rng(0))
    x = torch.randn(4, 5, 3)
    np.testing.assert_allclose(net(x).detach(), x[:, -1, :2].repeat(1, 2))


# -- noise on counts ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sigma", "alone", "moving", "everywhere"),
    [(87.95, 3.23, 4.74, 8.86), (143.28, 1.90, 2.77, 5.08), (160.14, 1.69, 2.45, 4.49),
     (180.34, 1.49, 2.16, 3.93)],
)  # fmt: skip
def test_exact_composition_of_the_published_noise(sigma, alone, moving, everywhere):
    """User-level epsilon over 3,120 rows at delta 1e-7, where the paper adds up 99 to 203."""
    for square, expected in ((1, alone), (2, moving), (6, everywhere)):
        mu = math.sqrt(square * 3120) / sigma
        assert gaussian_epsilon(mu, 1e-7) == pytest.approx(expected, rel=1e-2)


def test_noise_is_the_least_that_keeps_the_guarantee():
    made = GaussianInputPerturber(epsilon=1.5, delta=1e-7, n_releases=300, ledger=users())
    made.fit_transform(np.full((10, 2), 500))
    assert 1.49 < made.privacy_.epsilon <= 1.5
    assert made.privacy_.unit == "user" and made.privacy_.certified
    # zCDP of the discrete Gaussian costs a few per cent more than the continuous one exactly.
    assert 0.85 < made.privacy_.details["gaussian_epsilon"] / 1.5 < 1.0


@pytest.mark.parametrize(
    ("options", "square"),
    [
        ({}, 1.0),
        ({"max_cells_per_interval": 3}, 3.0),
        ({"neighboring": "replace_one"}, 4.0),
        ({"max_change": 2}, 4.0),
        ({"max_rows_per_user": 75}, 0.25),
    ],
)
def test_noise_grows_with_what_a_user_contributes(options, square):
    def sigma(**more):
        return GaussianInputPerturber(n_releases=300, **more)._plan()[0]

    assert (sigma(**options) / sigma()) ** 2 == pytest.approx(square, rel=0.02)


def test_what_one_user_changes_is_within_the_guarantee():
    """The attacker of a user who is in every row adds up the rows, which is his best statistic."""
    made = GaussianInputPerturber(
        epsilon=1.0, delta=1e-5, n_releases=200, ledger=users(), noise_random_state=0
    )
    sums = (made.fit_transform(np.full((200, 300), 1000)) - 1000).sum(axis=0)  # 300 repetitions
    spread = made.sigma_ * math.sqrt(200)
    # 300 sums: a right program is outside of four standard errors for one seed in 16,000.
    assert abs(np.std(sums) / spread - 1) < 4 / math.sqrt(600)
    shift = 200.0  # with the user there
    grid = np.linspace(-3 * spread, 3 * spread + shift, 2001)
    tpr, fpr = stats.norm.sf(grid, shift, spread), stats.norm.sf(grid, 0, spread)
    real = np.log(np.maximum(tpr - 1e-5, 1e-300) / np.maximum(fpr, 1e-300))
    assert 0.5 < real[fpr > 1e-12].max() <= made.privacy_.epsilon


def test_rows_that_were_not_paid_for_are_refused():
    ledger = users()
    made = GaussianInputPerturber(n_releases=12, ledger=ledger).fit(np.full((10, 2), 5))
    for _ in range(2):
        assert made.release_next([5, 5]).shape == (2,)
    with pytest.raises(BudgetExceededError):
        made.release_next([5, 5])
    assert len(ledger) == 1
    with pytest.raises(InvalidParameterError, match="n_releases"):
        GaussianInputPerturber(n_releases=9, ledger=ledger).fit(np.full((10, 2), 5))


@pytest.mark.parametrize("bad", [[[0.5]], [[-1.0]], [[float("nan")]]])
def test_what_is_no_count_spends_nothing(bad):
    ledger = users()
    with pytest.raises(DataError):
        GaussianInputPerturber(n_releases=3, ledger=ledger).fit(np.array(bad))
    assert ledger.spent().epsilon == 0


def test_the_filter_is_the_best_linear_one():
    """Against the conditional mean of the random walk, by linear algebra."""
    rng = np.random.default_rng(0)
    noisy = rng.normal(size=(8, 1)) * 3
    out = LocalLevel(np.array([0.7]), 2.0).run(noisy)
    walk = 0.7 * np.minimum.outer(np.arange(8), np.arange(8)) + 1e9  # a flat start
    for t in range(1, 8):
        cov = walk[: t + 1, : t + 1]
        expected = cov[t] @ np.linalg.solve(cov + 2.0 * np.eye(t + 1), noisy[: t + 1, 0])
        assert out[t, 0] == pytest.approx(expected, abs=1e-3)


def test_filtering_helps_where_noise_is_large():
    frame = series(600)
    common = {"n_releases": 600, "epsilon": 0.5, "noise_random_state": 0}
    plain = GaussianInputPerturber(**common, ledger=users()).fit_transform(frame)
    kalman = GaussianInputPerturber(**common, post="kalman", ledger=users()).fit_transform(frame)
    level = series(600).to_numpy()
    assert np.abs(kalman - level).mean() < np.abs(plain - level).mean()


# -- noise on gradients: units --------------------------------------------------------------------
def test_groups_of_windows_cost_more_and_changed_ones_most():
    plan = TrainingPlan(500, 50, 40, 1.0, 4.0)
    one = group_cost(plan, 1, 1e-5, changed=False)
    seven = group_cost(plan, 7, 1e-5, changed=False)
    both = group_cost(plan, 7, 1e-5, changed=True)
    assert one < seven < both
    assert both > 2 * seven  # two steps, at a smaller delta each


def test_changed_windows_are_priced_as_two_steps():
    """No sampling: k windows replaced move the sum by 2 k, whose exact epsilon is below ours."""
    plan = TrainingPlan(50, 50, 1, 1.0, 30.0)
    found = group_cost(plan, 3, 1e-5, changed=True)
    exact = gaussian_epsilon(2 * 3 / 30.0, 1e-5)
    assert exact <= found < 1.5 * exact


def test_gradients_state_for_whom_the_guarantee_is():
    frame = series(300)
    common = {
        "mode": "gradient", "model": "gru", "hidden_size": 4, "epochs": 1, "epsilon": 8.0,
        "delta": 1e-5, "value_range": (0, 8000), "lags": 3,
    }  # fmt: skip
    row = DPForecaster(**common, unit="record", ledger=Ledger()).fit(frame)
    user = DPForecaster(**common, max_rows_per_user=2, ledger=users()).fit(frame)
    assert row.privacy_.details["windows_per_unit"] == 4 and row.privacy_.unit == "record"
    assert user.privacy_.details["windows_per_unit"] == 8 and user.privacy_.unit == "user"
    assert row.privacy_.epsilon <= 8.0 and user.privacy_.epsilon <= 8.0
    assert 2 * row.noise_multiplier_ < user.noise_multiplier_
    assert row.privacy_.certified and row.privacy_.numerics == "hardened"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "gradient", "model": "gru", "value_range": (0, 1)}, AccountingAssumptionError),
        ({"mode": "gradient", "model": "gru", "unit": "record"}, InvalidParameterError),
        ({"mode": "gradient", "model": "ridge", "unit": "record"}, InvalidParameterError),
        ({"mode": "input", "unit": "record"}, AccountingAssumptionError),
        ({"mode": "input"}, InvalidParameterError),
        ({"mode": "input", "n_releases": 200, "delta": 0.1}, WeakGuaranteeError),
        ({"mode": "input", "n_releases": 200, "epsilon": 30.0}, WeakGuaranteeError),
        ({"mode": "none", "lags": 200}, DataError),
        ({"mode": "none", "model": "arima"}, InvalidParameterError),
    ],
)
def test_what_has_no_guarantee_is_refused(options, error):
    ledger = users()
    with pytest.raises(error):
        DPForecaster(**{"ledger": ledger, **options}).fit(series(150))
    assert len(ledger) == 0


def test_a_refusing_ledger_comes_before_the_counts():
    """Counts that whoever reads them refuses: the ledger must have refused before."""
    frame = series(150).astype(float)
    frame.iloc[70] = np.nan
    for options in (
        {"mode": "input", "n_releases": 150},
        {"mode": "gradient", "model": "gru", "unit": "record", "value_range": (0, 1),
         "epochs": 1, "epsilon": 8.0},
    ):  # fmt: skip
        with pytest.raises(BudgetExceededError):
            DPForecaster(**options, ledger=RefusingLedger()).fit(frame)


# -- forecasts ----------------------------------------------------------------------------------
def rmse(frame, test, **options):
    model = DPForecaster(**{"random_state": 0, "ledger": users(), **options}).fit(frame)
    return -model.score(test, acknowledge_non_private=True)


def test_models_beat_persistence_and_noise_costs_gradually():
    frame = series(2000)
    train, test = frame[:1660], frame[1660:]
    naive = rmse(train, test, mode="none", model="persistence")
    plain = rmse(train, test, mode="none", model="ridge")
    assert plain < 0.9 * naive
    assert rmse(train, test, mode="none", model="seasonal") < 0.9 * naive

    def private(epsilon):
        return np.mean(
            [
                rmse(train, test, model="ridge", epsilon=epsilon, n_releases=1660, delta=1e-5,
                     noise_random_state=seed)
                for seed in range(5)
            ]
        )  # fmt: skip

    strong, weak = private(0.3), private(10.0)
    assert plain < weak < strong
    assert weak < 0.9 * naive


def test_boosted_trees_learn_the_season():
    frame = series(1000)
    common = {"mode": "none", "lags": 3}
    naive = rmse(frame[:800], frame[800:], model="persistence", **common)
    assert rmse(frame[:800], frame[800:], model="gbdt", **common) < 0.9 * naive


def test_networks_learn_from_noisy_gradients():
    frame = series(1500)
    common = {"hidden_size": 8, "value_range": (0, 8000), "epochs": 12, "lr": 0.005, "lags": 4}
    naive = rmse(frame[:1200], frame[1200:], mode="none", model="persistence", lags=4)
    found = rmse(
        frame[:1200], frame[1200:], mode="gradient", model="bigru", unit="record", epsilon=16.0,
        delta=1e-4, noise_random_state=0, ledger=Ledger(), **common,
    )  # fmt: skip
    assert found < 0.9 * naive
    plain = rmse(frame[:1200], frame[1200:], mode="none", model="lstm", **common)
    assert plain < 0.8 * naive


def test_raw_metrics_after_a_private_fit_need_a_word():
    frame = series(200)
    model = DPForecaster(n_releases=200, ledger=users()).fit(frame)
    for method in (model.score, model.evaluate):
        with pytest.raises(AccountingAssumptionError, match="acknowledge_non_private"):
            method(frame)
    found = model.evaluate(frame, inputs=model.released_, acknowledge_non_private=True)
    assert found["rmse"].shape == (3,) and found["n"] == 194


def test_forecasts_go_on_from_released_rows():
    frame = series(200)
    ledger = users()
    model = DPForecaster(n_releases=201, horizon=2, ledger=ledger).fit(frame)
    first = model.predict()
    np.testing.assert_allclose(
        first, model.predict(model.released_[-10:], timestamps=frame.index[-10:])
    )
    model.release_next(frame.iloc[-1])
    assert first.shape == (2, 3) and not np.array_equal(first, model.predict())
    with pytest.raises(BudgetExceededError):
        model.release_next(frame.iloc[-1])
    assert len(ledger) == 1


def test_recent_rows_over_a_gap_are_refused():
    frame = series(300)
    model = DPForecaster(mode="none").fit(frame)
    with pytest.raises(DataError, match="gap"):
        model.predict(frame.iloc[::2][-6:])


@pytest.mark.parametrize("name", ["persistence", "seasonal", "ridge", "bilstm"])
def test_saved_and_loaded(tmp_path, name):
    frame = series(200)
    model = DPForecaster(
        model=name, n_releases=200, epochs=1, hidden_size=4, ledger=users(), noise_random_state=0
    ).fit(frame)
    model.save(tmp_path / "f.safetensors")
    again = DPForecaster.load(tmp_path / "f.safetensors")
    np.testing.assert_allclose(again.predict(), model.predict())
    np.testing.assert_allclose(again.predict(frame), model.predict(frame))
    assert again.privacy_ == model.privacy_ and again.privacy_.seeded
    (tmp_path / "g").write_bytes(b"no")
    with pytest.raises(DataError, match="Nothing was executed"):
        DPForecaster.load(tmp_path / "g")
