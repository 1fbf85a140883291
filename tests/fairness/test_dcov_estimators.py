"""Estimators that are fair without privacy: they remove what their penalty sees, and no more."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import scipy.special
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    LengthMismatchError,
    MissingSensitiveFeatureError,
    UtilityWarning,
)
from privfair.fairness.dcov import (
    AttributeEncoder,
    DistanceCovariancePenalty,
    FairDCovClassifier,
    FairDCovRegressor,
)
from privfair.fairness.dcov._network import stratified_batches


def gerrymandered(n=4_000, seed=0):
    """Return a task that favours two opposite intersections; single attributes look fair."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, n), rng.integers(0, 2, n)
    inside = a == b
    X = np.stack([rng.normal(size=n) + 1.5 * inside, rng.normal(size=n)], axis=1)
    y = (X[:, 0] + X[:, 1] + rng.logistic(size=n) > 1.0).astype(int)
    return X, y, {"a": np.array(["x", "y"])[a], "b": np.array(["x", "y"])[b]}, inside


def gap(values, inside):
    return abs(float(values[inside].mean() - values[~inside].mean()))


def make(cls=FairDCovClassifier, **options):
    return cls(
        **{"hidden_layer_sizes": (), "epochs": 12, "batch_size": 256, "random_state": 0, **options}
    )


@pytest.mark.parametrize("kind", ["ccdcov", "jdcov", "cells", "pairwise"])
def test_intersections_are_seen_by_all_but_the_sum_over_single_attributes(kind):
    X, y, S, inside = gerrymandered()
    plain = gap(make(lambda_=0.0).fit(X, y).predict_proba(X)[:, 1], inside)
    fair = make(penalty=kind, lambda_=30.0).fit(X, y, sensitive_features=S)
    left = gap(fair.predict_proba(X)[:, 1], inside)
    assert plain > 0.25
    if kind == "pairwise":
        assert left > 0.9 * plain
    else:
        assert left < 0.25 * plain


def test_the_private_estimator_removes_the_gap_over_intersections_too():
    from privfair.accounting import Ledger
    from privfair.fairness.dcov import DPFairDCovClassifier

    X, y, S, inside = gerrymandered()
    groups = {"a": ["x", "y"], "b": ["x", "y"]}
    left = {}
    for kind, lam in (("ccdcov", 0.0), ("ccdcov", 60.0), ("pairwise", 60.0)):
        clf = DPFairDCovClassifier(
            groups=groups, penalty=kind, lambda_=lam, epsilon=3.0, schema="as_is",
            ledger=Ledger(), epochs=30,
        ).fit(X, y, sensitive_features=S)  # fmt: skip
        left[kind, lam] = gap(clf.predict_proba(X)[:, 1], inside)
    plain = left["ccdcov", 0.0]
    assert left["ccdcov", 60.0] < 0.5 * plain
    assert left["pairwise", 60.0] > 0.8 * plain


def test_history_is_that_of_the_model_that_predicts():
    """The last entry, taken during training, equals what the saved network gives on its rows."""
    X, y, S, _ = gerrymandered(1_500)
    X = X * [100.0, 0.01] + [5.0, 30.0]  # columns that had to be standardised
    clf = make(lambda_=10.0, hidden_layer_sizes=(8,), epochs=5).fit(X, y, sensitive_features=S)
    assert {name: len(values) for name, values in clf.history_.items()} == {
        "loss": 5, "penalty": 5, "jsd": 5,
    }  # fmt: skip
    p = clf.predict_proba(X)[:, 1]
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert clf.history_["loss"][-1] == pytest.approx(loss, rel=1e-4)
    penalty = DistanceCovariancePenalty().fit(S)
    found = float(penalty(torch.from_numpy(p), penalty.encode(S)))
    assert clf.history_["penalty"][-1] == pytest.approx(found, rel=1e-3, abs=1e-7)
    assert clf.history_["loss"][-1] < clf.history_["loss"][0]
    assert 0 <= clf.history_["jsd"][-1] < 1
    assert clf.n_steps_ == 5 * 6
    assert clf.encoder_.feature_names_in_.tolist() == ["a", "b"]
    assert clf.privacy_.unsafe == ("non_private",)


def test_jensen_shannon_divergence_of_scores():
    from privfair.fairness.dcov._network import _divergence

    scores = torch.tensor([0.0, 0.0, 1.0, 1.0] * 50)
    cell = torch.tensor([0, 0, 1, 1] * 50)
    assert _divergence(scores, cell) == pytest.approx(1.0)
    assert _divergence(scores, torch.tensor([0, 1, 0, 1] * 50)) == pytest.approx(0.0, abs=1e-12)


def test_several_classes_and_frames():
    import pandas as pd

    X, _, S, inside = gerrymandered(3_000)
    y = np.digitize(X[:, 0] + X[:, 1], [0.0, 1.5])
    frame = pd.DataFrame({"one": X[:, 0], "two": X[:, 1], "kind": ["u", "v", "w"] * 1_000})
    found = []
    for lam in (0.0, 30.0):
        clf = make(lambda_=lam)
        clf.fit(frame, np.array(["lo", "mid", "hi"])[y], sensitive_features=pd.DataFrame(S))
        p = clf.predict_proba(frame)
        assert p.shape == (3_000, 3) and clf.classes_.tolist() == ["hi", "lo", "mid"]
        found.append(max(gap(p[:, k], inside) for k in range(3)))
    assert found[1] < 0.4 * found[0]
    assert clf.feature_names_in_.tolist() == ["one", "two", "kind"]


def test_regression_in_units_of_the_target():
    X, _, S, inside = gerrymandered()
    base = X[:, 0] + X[:, 1]
    for unit in (1.0, 1e4):
        y = unit * base
        plain = make(FairDCovRegressor, lambda_=0.0).fit(X, y)
        assert plain.score(X, y) > 0.999
        fair = make(FairDCovRegressor, lambda_=10.0).fit(X, y, sensitive_features=S)
        assert gap(fair.predict(X), inside) < 0.45 * gap(plain.predict(X), inside)
        assert fair.loss_ == "squared" and fair.target_scale_ == pytest.approx(y.std())
        assert fair.history_["penalty"][-1] < plain_penalty(plain.predict(X) / y.std(), S)
    # In its own unit the same strength is another one.
    raw = make(FairDCovRegressor, lambda_=1e-3, normalise="none")
    raw.fit(X, 1e4 * base, sensitive_features=S)
    assert raw.history_["penalty"][0] > 1e2 * fair.history_["penalty"][0]


def plain_penalty(scores, S):
    penalty = DistanceCovariancePenalty().fit(S)
    return float(penalty(torch.from_numpy(scores), penalty.encode(S)))


def claims(n=6_000, seed=0):
    rng = np.random.default_rng(seed)
    s = rng.integers(0, 2, n)
    X = np.stack([rng.normal(size=n) + s, rng.normal(size=n)], axis=1)
    exposure = rng.uniform(0.2, 2.0, n)
    rate = 0.3 * np.exp(0.5 * X[:, 0] - 0.2 * X[:, 1])
    return X, rng.poisson(rate * exposure), exposure, np.array(["m", "f"])[s], rate


def test_counts_with_an_exposure():
    X, y, exposure, S, rate = claims()
    fit = {"sensitive_features": S, "exposure": exposure}
    plain = make(FairDCovRegressor, lambda_=0.0, epochs=25).fit(X, y, **fit)
    assert plain.loss_ == "poisson"
    found = plain.predict(X)
    assert np.corrcoef(np.log(found), np.log(rate))[0, 1] > 0.98
    assert found.mean() == pytest.approx(rate.mean(), rel=0.1)
    np.testing.assert_allclose(plain.predict(X, exposure=exposure), found * exposure)
    fair = make(FairDCovRegressor, lambda_=10.0, epochs=25).fit(X, y, **fit)
    group = S == "f"
    assert gap(fair.predict(X), group) < 0.35 * gap(found, group)
    # An exposure is no weight: counts over exposures with these as weights are the same task.
    same = make(FairDCovRegressor, lambda_=0.0, epochs=25, loss="poisson")
    same.fit(X, y / exposure, sample_weight=exposure)
    np.testing.assert_allclose(same.predict(X), found, rtol=1e-5)
    weighted = make(FairDCovRegressor, lambda_=0.0, epochs=25)
    weighted.fit(X, y, exposure=exposure, sample_weight=np.full(len(y), 3.0))
    np.testing.assert_allclose(weighted.predict(X), found, rtol=1e-5)


def test_the_unit_of_rates_is_counts_over_exposures():
    # One policy of a thousandth of a year with a claim would make the mean of ratios.
    X, y, exposure, S, _ = claims(2_000)
    exposure[:20], y[:20] = 1e-3, 1
    reg = make(FairDCovRegressor, epochs=1).fit(X, y, sensitive_features=S, exposure=exposure)
    reg._chosen, reg._mass = "poisson", exposure
    loss = reg._problem(y / exposure).loss
    assert float(loss.score(torch.zeros(1, 1))) == pytest.approx(exposure.sum() / y.sum())


def test_the_score_of_counts_is_the_deviance_explained():
    X, y, exposure, S, rate = claims(4_000)
    reg = make(FairDCovRegressor, lambda_=0.0, epochs=20).fit(X, y, exposure=exposure)
    found = reg.predict(X) * exposure
    flat = exposure * y.sum() / exposure.sum()

    def deviance(mean):
        return 2 * (scipy.special.xlogy(y, y / mean) - y + mean).sum()

    expected = 1 - deviance(found) / deviance(flat)
    assert reg.score(X, y, exposure=exposure) == pytest.approx(expected, rel=1e-9)
    doubled = reg.score(X, y, sample_weight=np.full(len(y), 2.0), exposure=exposure)
    assert doubled == pytest.approx(expected, rel=1e-9)
    with pytest.raises(LengthMismatchError):
        reg.score(X, y, exposure=exposure[:5])
    squared = make(FairDCovRegressor, lambda_=0.0, epochs=1).fit(X, rate)
    residual = ((rate - squared.predict(X)) ** 2).sum()
    assert squared.score(X, rate) == pytest.approx(1 - residual / (rate.var() * len(rate)))
    with pytest.raises(InvalidParameterError, match="Poisson"):
        squared.score(X, rate, exposure=exposure)


def test_sample_weights_move_the_fit():
    X, y, S, _ = gerrymandered(2_000)
    weight = np.where(y == 1, 5.0, 1.0)
    plain = make(lambda_=1.0).fit(X, y, sensitive_features=S)
    heavy = make(lambda_=1.0).fit(X, y, sensitive_features=S, sample_weight=weight)
    assert heavy.predict(X).mean() > plain.predict(X).mean() + 0.1


def test_a_penalty_or_encoder_of_ones_own():
    X, y, S, inside = gerrymandered(2_000)
    own = DistanceCovariancePenalty("cells", estimator="v", strength=2.0)
    fair = make(penalty=own, lambda_=20.0).fit(X, y, sensitive_features=S)
    same = make(penalty="cells", estimator="v", lambda_=40.0).fit(X, y, sensitive_features=S)
    np.testing.assert_allclose(fair.predict_proba(X), same.predict_proba(X), rtol=1e-6)
    assert own.strength == 2.0 and own.encoder_ is None

    class GroupMeans:
        decomposable = False
        requires: frozenset[str] = frozenset()

        def __call__(self, scores, sensitive, *, y=None, sample_weight=None, **columns):
            both = sensitive[:, 0] == sensitive[:, 1]
            return (scores[both].mean() - scores[~both].mean()) ** 2

    mean = make(penalty=GroupMeans(), lambda_=30.0).fit(X, y, sensitive_features=S)
    assert gap(mean.predict_proba(X)[:, 1], inside) < 0.1
    encoder = AttributeEncoder(weights={"a": 3.0})
    heavy = make(encoder=encoder, lambda_=10.0).fit(X, y, sensitive_features=S)
    assert not hasattr(encoder, "blocks_") and heavy.encoder_ is not encoder


def test_a_batch_with_few_rows_for_each_cell_warns():
    X, y, S, _ = gerrymandered(400)
    with pytest.warns(UtilityWarning, match="20 rows for each of 4 cells"):
        make(batch_size=79, epochs=1).fit(X, y, sensitive_features=S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(batch_size=80, epochs=1).fit(X, y, sensitive_features=S)
        make(batch_size=20, epochs=1, lambda_=0.0).fit(X, y)


def test_cells_that_few_batches_would_hold_are_dealt_out():
    """Every cell in every batch, means that stay unbiased, and each row of a large cell once."""
    sizes = np.array([400, 160, 41, 9, 1])
    code = np.repeat(np.arange(5), sizes)
    cells = [np.flatnonzero(code == g) for g in range(5)]
    values = np.random.default_rng(1).normal(size=len(code))
    rng = np.random.default_rng(0)
    pieces, means = 12, []
    for epoch in range(150):
        used = np.zeros(len(code), dtype=int)
        lengths = []
        for rows, factor in stratified_batches(cells, pieces, rng):
            assert set(code[rows]) == set(range(5)) and len(set(rows)) == len(rows)
            assert factor.mean() == pytest.approx(1.0, abs=0.02)
            used += np.bincount(rows, minlength=len(code))
            lengths.append(len(rows))
            means.append((values[rows] * factor).mean())
        assert (used[code < 3] == 1).all() and max(lengths) - min(lengths) <= 1
        if not epoch:  # an epoch's batches make the exact mean of cells that are dealt out
            large = np.sort(np.concatenate(cells[:3]))
            assert set(np.flatnonzero(used == 1)) >= set(large)
    # 1,800 batches; independent enough for six standard errors (once in 5e8, and seeded)
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - values.mean()) < 6 * error


def test_penalty_of_dealt_batches_is_unbiased():
    """The mean over batches of cells at known shares is the penalty of all rows."""
    rng = np.random.default_rng(2)
    n, pieces = 1_200, 80
    code = np.repeat([0, 1, 2], [800, 364, 36])  # 2 of 17 rows of a batch, and not 3 %
    scores = torch.tensor(rng.normal(size=n) + 3.0 * (code == 2) - 0.5 * (code == 1))
    S = np.array(["a", "b", "c"])[code]
    for kind, tau in (("ccdcov", 1.0), ("jdcov", 0.0), ("cells", 0.5)):
        penalty = DistanceCovariancePenalty(kind, estimator="u", group_weighting=tau).fit({"s": S})
        cell = penalty.encode({"s": S})
        penalty._know_counts(np.bincount(cell))
        whole = float(penalty(scores, cell))
        cells = [np.flatnonzero(cell.numpy() == g) for g in range(3)]
        found = [
            float(penalty(scores[rows], cell[rows]))
            for _ in range(10)
            for rows, _ in stratified_batches(cells, pieces, rng)
        ]
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - whole) < 6 * error < whole  # chance as above


def test_dealt_batches_are_corrected_for_bias_however_large_they_are():
    """Two rows of a cell in 1,500 are still two; they count as much as any cell at tau 0."""
    rng = np.random.default_rng(4)
    code = np.repeat([0, 1, 2], [8_000, 3_980, 20])
    scores, S = torch.tensor(rng.normal(size=12_000)), np.array(["a", "b", "c"])[code]
    penalty = DistanceCovariancePenalty("cells", group_weighting=0.0, min_cell=1).fit({"s": S})
    cell = penalty.encode({"s": S})
    penalty._know_counts(np.bincount(cell))
    cells = [np.flatnonzero(cell.numpy() == g) for g in range(3)]
    found = []
    for _ in range(8):
        for rows, _factor in stratified_batches(cells, 8, rng):
            found.append(float(penalty(scores[rows], cell[rows])))
    # plugged in, the mean is above by E|f - f'| / 18, which is 0.06 and over 20 of these errors
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - float(penalty(scores, cell))) < 6 * error < 0.06


def test_small_batches_are_dealt_out_in_training(monkeypatch):
    from privfair.fairness.dcov import _network

    seen, known = [], []

    class Watched(DistanceCovariancePenalty):
        def forward(self, scores, sensitive, **rest):
            seen.append(np.bincount(sensitive.numpy(), minlength=3))
            known.append(self._counts is not None)
            return super().forward(scores, sensitive, **rest)

    rng = np.random.default_rng(0)
    code = rng.permutation(np.repeat([0, 1, 2], [500, 460, 40]))
    X = np.stack([rng.normal(size=1_000) + 2.0 * (code == 2), rng.normal(size=1_000)], axis=1)
    y = (X.sum(axis=1) + rng.logistic(size=1_000) > 0.5).astype(int)
    S = {"s": np.array(["a", "b", "c"])[code]}
    fair = make(penalty=Watched("cells"), batch_size=100, epochs=2, lambda_=5.0)
    fair.fit(X, y, sensitive_features=S)
    batches = [counts for counts in seen if counts.sum() < 1_000]
    assert len(batches) == 20 and min(counts.min() for counts in batches) == 4
    assert all(known)
    seen.clear()
    known.clear()  # enough of the smallest cell in a shuffled batch: nothing is changed
    fair.set_params(batch_size=250).fit(X, y, sensitive_features=S)
    assert max(counts.min() for counts in seen if counts.sum() < 1_000) > 10
    assert not any(known)
    monkeypatch.setattr(_network, "_EXPECTED", 0)
    shuffled = clone(fair).fit(X, y, sensitive_features=S)
    np.testing.assert_array_equal(shuffled.predict_proba(X), fair.predict_proba(X))
    # Labels that nothing tells: predictions are the weighted share of the rare cell.
    monkeypatch.setattr(_network, "_EXPECTED", 8)
    blind = make(lambda_=1e-6, batch_size=20, epochs=8, lr=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UtilityWarning)
        blind.fit(X[:, 1:], code == 2, sensitive_features=S, sample_weight=1.0 + 2.0 * (code == 2))
    assert blind.predict_proba(X[:, 1:])[:, 1].mean() == pytest.approx(120 / 1_080, abs=0.03)


@pytest.mark.parametrize("cls", [FairDCovClassifier, FairDCovRegressor])
def test_saving_copying_and_repeating(cls, tmp_path):
    X, y, S, _ = gerrymandered(600)
    est = make(cls, hidden_layer_sizes=(4,), epochs=2).fit(X, y, sensitive_features=S)
    est.save(tmp_path / "model.safetensors")
    for other in (
        cls.load(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(est)),
        clone(est).fit(X, y, sensitive_features=S),
    ):
        np.testing.assert_array_equal(other.predict(X), est.predict(X))
        assert other.history_ == est.history_
        assert other.get_params()["hidden_layer_sizes"] == (4,)
    assert (
        not np.array_equal(
            clone(est).set_params(random_state=1).fit(X, y, sensitive_features=S).predict(X),
            est.predict(X),
        )
        or cls is FairDCovClassifier
    )


@pytest.mark.parametrize(
    ("cls", "options", "fit", "error", "match"),
    [
        (FairDCovClassifier, {"lambda_": -1.0}, {}, InvalidParameterError, "lambda_"),
        (FairDCovClassifier, {"penalty": "hsic"}, {}, InvalidParameterError, "ccdcov"),
        (FairDCovClassifier, {"group_weighting": 2}, {}, InvalidParameterError, "group_weig"),
        (FairDCovClassifier, {"c": 0}, {}, InvalidParameterError, "c must be"),
        (FairDCovClassifier, {"batch_size": 0}, {}, InvalidParameterError, "batch_size"),
        (FairDCovClassifier, {"epochs": 0.5}, {}, InvalidParameterError, "epochs"),
        (FairDCovClassifier, {"lr": -1}, {}, InvalidParameterError, "lr"),
        (FairDCovClassifier, {"weight_decay": -1}, {}, InvalidParameterError, "weight_decay"),
        (
            FairDCovClassifier, {}, {"sensitive_features": None}, InvalidParameterError,
            "needs sensitive_features",
        ),
        (
            FairDCovClassifier, {}, {"sensitive_features": ["a"] * 5}, LengthMismatchError,
            "same number of rows",
        ),
        (
            FairDCovClassifier, {}, {"sensitive_features": [None] + ["a"] * 299},
            MissingSensitiveFeatureError, "missing",
        ),
        (FairDCovRegressor, {"loss": "gamma"}, {}, InvalidParameterError, "poisson"),
        (
            FairDCovRegressor, {"loss": "squared"}, {"exposure": np.ones(300)},
            InvalidParameterError, "exposure",
        ),
        (FairDCovRegressor, {}, {"exposure": np.zeros(300)}, DataError, "above 0"),
        (
            FairDCovRegressor, {}, {"exposure": np.ones(300), "sample_weight": np.ones(5)},
            LengthMismatchError, "sample_weight",
        ),
        (FairDCovRegressor, {}, {"exposure": np.ones(4)}, LengthMismatchError, "exposure"),
        (FairDCovRegressor, {"normalise": "std"}, {}, InvalidParameterError, "target_scale"),
        (FairDCovRegressor, {"loss": "poisson"}, {"y": -np.ones(300)}, DataError, "counts"),
        (FairDCovRegressor, {}, {"y": np.array(["a"] * 300)}, DataError, "numbers"),
    ],
)  # fmt: skip
def test_refusals(cls, options, fit, error, match):
    X, y, S, _ = gerrymandered(300)
    given = {"y": y, "sensitive_features": S, **fit}
    with pytest.raises(error, match=match):
        make(cls, **options).fit(X, **given)


@parametrize_with_checks(
    [
        FairDCovClassifier(lambda_=0.0, epochs=30, hidden_layer_sizes=()),
        FairDCovRegressor(lambda_=0.0, epochs=30, hidden_layer_sizes=(), batch_size=64),
    ],
    expected_failed_checks=lambda est: {
        "check_sample_weight_equivalence_on_dense_data": "batches are drawn by rows",
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_the_activation_is_used_and_survives_a_file(tmp_path):
    X, y, _, _ = gerrymandered(600)
    made = {}
    for name in ("relu", "tanh"):
        clf = make(lambda_=0.0, hidden_layer_sizes=(5,), activation=name, epochs=3).fit(X, y)
        clf.save(tmp_path / f"{name}.safetensors")
        again = FairDCovClassifier.load(tmp_path / f"{name}.safetensors")
        np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(clf)).predict_proba(X), clf.predict_proba(X)
        )
        made[name] = clf.predict_proba(X)
    assert not np.allclose(made["relu"], made["tanh"])
    with pytest.raises(InvalidParameterError, match="activation"):
        make(activation="sigmoid").fit(X, y, sensitive_features=np.repeat(["a", "b"], 300))
