"""Rates of labels drawn towards calibrated scores: what they are, and what they are worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import LabelError
from privfair.fairness.aglfop import AGLFOPPostProcessor, FairnessBound, _labels, fair_rule
from privfair.fairness.aglfop._labels import calibrated, drawn_in, noisy_rows, precision_of
from privfair.fairness.aglfop._rule import rule_told
from privfair.fairness.aglfop._scores import number_of_bins

R = 20
MIDDLE = (np.arange(R) + 0.5) / R


class Scored(ClassifierMixin, BaseEstimator):
    """A fitted model that is given its own scores, and may bend them."""

    classes_ = np.array([0, 1])

    def __init__(self, bend=1.0):
        self.bend = bend

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        return (self.predict_proba(X)[:, 1] >= 0.5).astype(int)

    def predict_proba(self, X):
        score = np.asarray(X)[:, 0] ** self.bend
        return np.column_stack([1 - score, score])

    def __sklearn_is_fitted__(self):
        return True


def masses():
    """p(z, s, r) of groups whose scores differ."""
    z, s = np.arange(2)[:, None, None], np.arange(2)[None, :, None]
    w = np.exp(-((MIDDLE - 0.4 - 0.15 * z - 0.05 * s) ** 2) / 0.1)
    return w / w.sum()


def table(rates):
    """p(z, s, y, r) from rates of the second label."""
    p = masses()[:, :, None] * np.stack([1 - rates, rates], axis=2)
    return p / p.sum()


def people(p, n, rng):
    z, s, y, r = np.unravel_index(rng.choice(p.size, size=n, p=p.ravel()), p.shape)
    return {"X": MIDDLE[r][:, None], "y": y, "sensitive_features": z, "client": s}


def logit(q):
    return np.log(q / (1 - q))


def as_scores(q):
    return np.broadcast_to(np.stack([1 - q, q], axis=-2), (2, 2, 2, R))


def test_calibration_finds_the_slope_and_the_offsets():
    z, s = np.arange(2)[:, None, None], np.arange(2)[None, :, None]
    odds = 0.6 * logit(MIDDLE) + 0.3 + 0.5 * z - 0.4 * s
    truth = as_scores(1 / (1 + np.exp(-odds)))
    rows = 1e6 * masses()
    logs = np.log(as_scores(MIDDLE))
    found = calibrated(rows, truth, logs)
    np.testing.assert_allclose(found, truth, atol=2e-4)
    np.testing.assert_allclose(found.sum(axis=2), 1.0)
    # Without rows the scores stand as they are.
    np.testing.assert_allclose(calibrated(0 * rows, truth, logs), as_scores(MIDDLE), atol=1e-9)


def test_the_curvature_of_the_calibration_is_that_of_its_loss():
    rng = np.random.default_rng(0)
    n_z, n_s, n_y, width = 3, 4, 3, 0.3
    rows = rng.integers(0, 40, (n_z, n_s, 5)).astype(float)
    scores = rng.normal(size=(n_z, n_s, n_y, 5))
    ends = np.cumsum([1, n_y, n_z * n_y])
    theta = 0.3 * rng.normal(size=ends[-1] + n_s * n_y)

    def chances(theta):
        slope, label, group, client = np.split(theta, ends)
        offset = label + group.reshape(n_z, 1, n_y) + client.reshape(1, n_s, n_y)
        raw = np.exp(slope * scores + offset[..., None])
        return raw / raw.sum(axis=2, keepdims=True)

    def gradient(theta):
        pull = rows[:, :, None, :] * chances(theta)
        cell = pull.sum(axis=3)
        sums = cell.sum(axis=(0, 1)), cell.sum(axis=1).ravel(), cell.sum(axis=0).ravel()
        return np.concatenate([[(pull * scores).sum()], *sums])

    steps = 1e-5 * np.eye(theta.size)
    second = np.array([gradient(theta + e) - gradient(theta - e) for e in steps]) / 2e-5
    expected = np.linalg.slogdet(np.eye(theta.size) + width**2 * second)[1]
    found = _labels._log_curvature(rows, chances(theta), scores, width)
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("precision", [3.0, 30.0, 300.0])
def test_the_precision_is_found(precision):
    """80 cells of 200 rows; 25 seeded tables: medians within a factor of 1.5."""
    rng = np.random.default_rng(0)
    centre = as_scores(0.05 + 0.9 * MIDDLE)
    rows = np.full((2, 2, R), 200.0)
    found = []
    for _ in range(25):
        q = rng.beta(precision * centre[:, :, 1], precision * centre[:, :, 0])
        seen = rng.binomial(200, q) / 200
        found.append(precision_of(rows, as_scores(seen), centre))
    assert precision / 1.5 < np.median(found) < precision * 1.5


def test_rates_of_chance_have_no_end_of_precision():
    rng = np.random.default_rng(0)
    centre = as_scores(MIDDLE)
    rows = np.full((2, 2, R), 40.0)
    found = [
        precision_of(rows, as_scores(rng.binomial(40, MIDDLE, (2, 2, R)) / 40), centre)
        for _ in range(15)
    ]
    assert np.median(found) > 400  # ten times the rows of a cell, often infinite


def test_a_table_keeps_its_people_and_lies_between_its_ends():
    rng = np.random.default_rng(1)
    p = table(np.clip(MIDDLE + 0.2 * rng.normal(size=(2, 2, R)), 0.02, 0.98))
    rows = 1500 * p.sum(axis=2)
    drawn, precision = drawn_in(p, rows, as_scores(MIDDLE))
    np.testing.assert_allclose(drawn.sum(axis=2), p.sum(axis=2))
    assert 1 < precision < 100
    mass = p.sum(axis=2, keepdims=True)
    logs = np.log(as_scores(MIDDLE))
    centre = mass * calibrated(rows, p / mass, logs - logs.mean(axis=2, keepdims=True))
    share = (rows / (rows + precision))[:, :, None]
    np.testing.assert_allclose(drawn, share * p + (1 - share) * centre, atol=1e-12)
    # Many rows overrule the scores, however wrong these are.
    surer, _ = drawn_in(p, 1e6 * p.sum(axis=2), as_scores(1 - MIDDLE))
    assert np.abs(surer - p).max() < 1e-3 * p.max()
    # Cells without people stay without, and do not disturb the others.
    gone = p.copy()
    gone[0, 0, :, :5] = 0.0
    gone /= gone.sum()
    assert np.isfinite(drawn_in(gone, 1500 * gone.sum(axis=2), None)[0]).all()
    assert drawn_in(gone, 1500 * gone.sum(axis=2), None)[0][0, 0, :, :5].sum() == 0


@pytest.mark.parametrize("n_y", [2, 3])
def test_noise_counts_as_so_many_rows_less(n_y):
    """The variance of noisy rates of 40,000 simulated cells, within 8 %."""
    rng = np.random.default_rng(0)
    q = np.array([0.3, 0.7]) if n_y == 2 else np.array([0.2, 0.3, 0.5])
    n, variance = 400, 50.0
    counts = rng.multinomial(n, q, size=40_000) + rng.normal(0, math.sqrt(variance), (40_000, n_y))
    rates = counts / counts.sum(axis=1, keepdims=True)
    rows = noisy_rows(q[None, None, :, None], n, variance)[0, 0, 0]
    assert rates.var(axis=0).sum() == pytest.approx((q * (1 - q)).sum() / rows, rel=0.08)
    assert noisy_rows(q[None, None, :, None], n, 0.0)[0, 0, 0] == pytest.approx(n)


def test_the_rule_is_the_best_one_for_the_table_as_stated():
    rng = np.random.default_rng(3)
    data = people(table(np.broadcast_to(MIDDLE, (2, 2, R))), 1200, rng)
    edges = (np.arange(1, R) / R).tolist()
    model = AGLFOPPostProcessor(Scored(), eps_global=0.001, eps_local=0.002, bins=edges)
    model.fit(**data)
    r = (data["X"][:, 0] * R).astype(int)
    counts = np.zeros((2, 2, 2, R))
    np.add.at(counts, (data["sensitive_features"], data["client"], data["y"], r), 1)
    p = counts / 1200
    drawn, precision = drawn_in(p, counts.sum(axis=2), as_scores(MIDDLE))
    best = rule_told(p, drawn, FairnessBound(eps_global=0.001, eps_local=0.002))
    assert model.label_precision_ == pytest.approx(precision)
    assert model.accuracy_ == pytest.approx(best.accuracy, abs=1e-9)
    assert model.accuracy_bound_ >= model.accuracy_
    # Demographic parity sees no labels: it holds on the rows as they are.
    m = np.einsum("zsyr,zsrk->zk", p, model.rule_)
    outer = m.sum(axis=1, keepdims=True) * m.sum(axis=0)
    assert (m * np.log2(m / outer)).sum() <= 0.001 + 1e-9
    # Weights have no unit, and unequal ones count as fewer rows.
    scaled = AGLFOPPostProcessor(Scored(), eps_global=0.001, eps_local=0.002, bins=edges)
    scaled.fit(**data, sample_weight=np.full(1200, 7.0))
    np.testing.assert_allclose(scaled.rule_, model.rule_, atol=1e-6)
    observed = AGLFOPPostProcessor(Scored(), labels="observed", bins=edges).fit(**data)
    scores = AGLFOPPostProcessor(Scored(), labels="scores", bins=edges).fit(**data)
    assert (observed.label_precision_, scores.label_precision_) == (0.0, math.inf)


def out_of_sample(p, labels, seed, bend=1.0, n=800, **more):
    rng = np.random.default_rng(seed)
    given = {"eps_global": 0.002, "bins": (np.arange(1, R) / R).tolist(), "labels": labels}
    model = AGLFOPPostProcessor(Scored(), **given | more).fit(**people(p, n, rng))
    return float((p * model.rule_.transpose(0, 1, 3, 2)).sum())


def test_few_rows_do_not_fit_chance_and_wrong_scores_are_overruled():
    """Accuracy in the population, 6 samples: never the worse end by more than noise."""
    right = table(np.broadcast_to(MIDDLE, (2, 2, R)))
    z = np.arange(2)[:, None, None]
    wrong = table(np.broadcast_to(1 / (1 + np.exp(-logit(MIDDLE) + 1.6 * (2 * z - 1))), (2, 2, R)))
    odd = table(np.where(np.arange(R) % 4 < 2, 0.15, 0.85) + np.zeros((2, 2, 1)))
    found = {
        name: {
            labels: np.array([out_of_sample(p, labels, seed, n=n) for seed in range(6)])
            for labels in ("shrunk", "observed", "scores")
        }
        for name, p, n in (("right", right, 800), ("wrong", wrong, 800), ("odd", odd, 4000))
    }
    for by in found.values():
        for end in ("observed", "scores"):
            assert (by["shrunk"] - by[end]).mean() > -0.004
    assert (found["right"]["shrunk"] - found["right"]["observed"]).mean() > 0.015
    assert (found["wrong"]["shrunk"] - found["wrong"]["scores"]).mean() > 0.02
    assert (found["odd"]["shrunk"] - found["odd"]["scores"]).mean() > 0.1


PUBLIC = {"groups": [0, 1], "clients": [0, 1], "noise_random_state": 4}


def test_a_private_rule_reads_the_release_and_nothing_else():
    rng = np.random.default_rng(5)
    data = people(table(np.broadcast_to(MIDDLE, (2, 2, R))), 3000, rng)
    given = {"eps_global": 0.002, "privacy": Budget(0.5), **PUBLIC}
    ledger = Ledger()
    model = AGLFOPPostProcessor(Scored(), ledger=ledger, **given).fit(**data)
    assert len(ledger.entries()) == 1
    # 3,000 rows of two groups and clients: the cube root of 750, made even.
    assert model.edges_.tolist() == pytest.approx(np.arange(1, 10) / 10)
    release = model.release_
    p = release.probabilities()
    rows = noisy_rows(p, 3000, release.noise.variance)
    middle = (np.arange(10) + 0.5) / 10
    mean = np.broadcast_to(np.stack([1 - middle, middle]), p.shape)
    drawn, precision = drawn_in(p, rows, mean)
    again = rule_told(p, drawn, FairnessBound(eps_global=0.002))
    np.testing.assert_allclose(again.rule, model.rule_, atol=1e-6)
    assert model.label_precision_ == precision
    # Other scores in the same bins, and the same noise: the same rule.
    moved = data | {"X": data["X"] + 0.02}
    other = AGLFOPPostProcessor(Scored(), ledger=Ledger(), **given).fit(**moved)
    np.testing.assert_array_equal(other.rule_, model.rule_)
    assert model.assess(n_resamples=20)[0].privacy.epsilon == 0.5


def test_noise_is_not_fitted_either():
    """Accuracy in the population at epsilon 0.3, 10 releases of 1,500 rows."""
    p = table(np.broadcast_to(MIDDLE, (2, 2, R)))
    gain = []
    for seed in range(10):
        private = {"privacy": Budget(0.3), "bins": (np.arange(1, R) / R).tolist(), "n": 1500,
                   **PUBLIC, "noise_random_state": seed}  # fmt: skip
        a, b = (
            out_of_sample(p, labels, seed, ledger=Ledger(), **private)
            for labels in ("shrunk", "observed")
        )
        gain.append(a - b)
    assert np.mean(gain) > 0.03


def test_the_number_of_bins_follows_the_rows():
    found = [number_of_bins(n, 4, smooth=True) for n in (1, 100, 1600, 40_000, 10**7)]
    assert found == [2, 10, 40, 64, 64]
    assert [number_of_bins(n, 4, smooth=False) for n in (100, 4000)] == [3, 10]
    data = people(table(np.broadcast_to(MIDDLE, (2, 2, R))), 1600, np.random.default_rng(0))
    data["X"] = data["X"] + np.random.default_rng(1).uniform(-0.02, 0.02, (1600, 1))
    odds = FairnessBound("equalized_odds", eps_global=0.1)
    for more, size in (({}, 40), ({"labels": "observed"}, 7), ({"extra_bounds": [odds]}, 7)):
        model = AGLFOPPostProcessor(Scored(), eps_local=0.1, **more).fit(**data)
        assert model.rule_.shape[2] == size
    with pytest.raises(LabelError):
        AGLFOPPostProcessor(Scored()).fit(**data | {"y": np.full(1600, 2)})


def test_a_classifier_without_probabilities_is_calibrated_by_its_bins():
    class Plain(Scored):
        predict_proba = property()  # none

        def predict(self, X):
            return (np.asarray(X)[:, 0] >= 0.5).astype(int)

        def decision_function(self, X):
            return np.asarray(X)[:, 0]

    p = table(np.broadcast_to(MIDDLE, (2, 2, R)))
    data = people(p, 1200, np.random.default_rng(0))
    model = AGLFOPPostProcessor(Plain(), eps_global=0.001).fit(**data)
    assert model.rule_.shape[2] > 10 and model.label_precision_ > 20
    by_class = AGLFOPPostProcessor(Plain(), eps_global=0.001, bins=None).fit(**data)
    assert by_class.rule_.shape == (2, 2, 2, 2)


@pytest.mark.parametrize("access", ["aware", "client_blind", "group_blind", "blind"])
def test_bounds_are_about_one_table_and_the_cost_about_another(access):
    """Two tables of the same cells: the best rule by scipy's linear program over both."""
    from scipy.optimize import linprog

    rng = np.random.default_rng(7)
    mass = rng.dirichlet(np.ones(12)).reshape(2, 2, 1, 3)
    seen, told = (mass * rng.dirichlet([1, 1], (2, 2, 3)).transpose(0, 1, 3, 2) for _ in "ab")
    weight, cost = np.array([1.0, 3.0]), np.array([[0.0, 2.0], [1.0, 0.0]])
    bound = FairnessBound("equalized_odds", gap_global=0.05)
    found = rule_told(seen, told, bound, access=access, client_weight=weight, cost=cost)
    scaled = weight / (mass.sum(axis=(0, 2, 3)) @ weight)
    charge = np.einsum("zsyr,s,yk->zsrk", told, scaled, cost)
    rows = []
    for y in (0, 1):
        side = [np.where(np.arange(2)[:, None, None] == z, seen[:, :, y], 0.0) for z in (0, 1)]
        row = side[0] / side[0].sum() - side[1] / side[1].sum()
        rows += [row.ravel(), -row.ravel()]
    equal = []
    for i, j in np.ndindex(12, 12):
        z, s, r = np.unravel_index([i, j], (2, 2, 3))
        alike = r[0] == r[1] and (z[0] == z[1] or access in ("group_blind", "blind"))
        if i < j and alike and (s[0] == s[1] or access in ("client_blind", "blind")):
            equal.append(np.eye(12)[i] - np.eye(12)[j])
    more = {"A_eq": np.array(equal), "b_eq": np.zeros(len(equal))} if equal else {}
    best = linprog((charge[..., 1] - charge[..., 0]).ravel(), A_ub=np.array(rows),
                   b_ub=np.full(4, 0.05), bounds=(0, 1), method="highs", **more)  # fmt: skip
    assert found.cost == pytest.approx(best.fun + charge[..., 0].sum(), abs=1e-7)
    assert found.lower <= found.cost + 1e-12 and found.proven_gap < 1e-6
    assert fair_rule(seen, bound, access=access).gaps["global"] <= 0.05 + 1e-7
