"""DPGridSearchCV: one charge for everything, and nothing of the runs that lost."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from privfair.accounting import Ledger, guarantee
from privfair.accounting import events as ev
from privfair.core import Budget
from privfair.core.exceptions import (
    AccountingAssumptionError,
    BudgetExceededError,
    InvalidParameterError,
)
from privfair.core.randomness import secret_stream
from privfair.dp import DPClassifier, DPGridSearchCV, DPRegressor, _search

GRID = {"lr": [1e-7, 0.1]}


def rows(n=1_500, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    return X, np.where(X[:, 0] - X[:, 1] > 0, "up", "down")


def search(grid=None, **kwargs):
    defaults = {"epsilon": 3.0, "delta": 1e-5, "ledger": Ledger(), "mean_runs": 3}
    estimator = kwargs.pop("estimator", DPClassifier(schema="as_is", epochs=2))
    return DPGridSearchCV(estimator, GRID if grid is None else grid, **{**defaults, **kwargs})


@pytest.mark.parametrize("method", ["repeat_and_select", "composition"])
def test_one_charge_for_the_whole_search(method):
    X, y = rows()
    ledger = Ledger()
    found = search(method=method, ledger=ledger).fit(X, y)
    assert len(ledger) == 1 and ledger.spent().epsilon <= 3.0 * (1 + 1e-9)
    g = found.privacy_
    assert g.certified and 2.0 < g.epsilon <= 3.0 and g.delta == 1e-5
    assert found.run_epsilon_ < g.epsilon
    assert found.best_estimator_.privacy_ == g  # the model is no cheaper than its choice
    assert found.best_params_ == found.cv_results_["params"][found.best_index_]
    shown = found.cv_results_["noisy_score"]
    if method == "composition":
        assert all(isinstance(s, float) for s in shown) and found.best_score_ == max(shown)
    else:
        assert [s is not None for s in shown].count(True) == 1
    assert found.predict(X).shape == y.shape and found.predict_proba(X).shape == (len(X), 2)


def test_the_place_of_the_best_run_does_not_show(capfd):
    """Which of the runs was best says how many there were, and that number has to stay secret."""
    X, y = rows(300)
    seeds, states, params = set(), set(), set()
    for _ in range(6):  # that all six searches make one run each has probability 4 ** -6
        rng = np.random.default_rng(5)
        found = search(
            random_state=rng, mean_runs=4,
            estimator=DPClassifier(schema="as_is", epochs=1, verbose=1),
        ).fit(X, y)  # fmt: skip
        seeds.add(found.best_estimator_.random_state)
        states.add(str(rng.bit_generator.state))
        params.add(found.best_estimator_.verbose)
    assert len(seeds) == len(states) == 1 and params == {1}
    assert "epsilon" not in capfd.readouterr().err


@pytest.mark.parametrize("method", ["repeat_and_select", "composition"])
def test_a_schema_that_was_learnt_is_part_of_the_price(method):
    from privfair.preprocessing import PrivateTableEncoder

    X, y = rows(600)
    encoder = PrivateTableEncoder(epsilon=0.5, delta=1e-7, ledger=Ledger()).fit(X)
    schema = encoder.schema_
    found = search(method=method, estimator=DPClassifier(schema=schema, epochs=1)).fit(X, y)
    alone = search(method=method, estimator=DPClassifier(schema="as_is", epochs=1)).fit(X, y)
    assert found.privacy_.delta == pytest.approx(1e-5 + schema.origin.delta)
    assert found.privacy_.epsilon > alone.privacy_.epsilon + 0.05
    assert found.best_estimator_.privacy_ == found.privacy_
    assert set(schema.origin.events) <= set(found.privacy_.events)
    once = search({"schema": [schema, schema]}, method=method).fit(X, y)
    assert once.privacy_.delta == pytest.approx(1e-5 + schema.origin.delta)


def test_the_certificate_speaks_of_the_search_and_its_ledger():
    X, y = rows(300)
    ledger = Ledger()
    for count in ("1 charges", "2 charges"):
        notes = search(ledger=ledger).fit(X, y).privacy_.assumptions
        assert [count in note for note in notes].count(True) == 1
        assert not any("this fit alone" in note for note in notes)


def test_nothing_of_the_losing_runs_stays_in_the_object():
    """However many runs were made, the fitted object holds as many models and scores."""
    X, y = rows(600)
    kept, counts = set(), set()
    for seed in (1, 2, 3):
        fits = []

        class Counting(DPClassifier):
            def fit(self, X, y=None, *, sensitive_features=None, sample_weight=None,
                    user_ids=None, fits=fits):  # fmt: skip
                fits.append(1)
                return super().fit(X, y)

            def __init__(self, *, epsilon=1.0, delta="auto", ledger=None, n_public=None, lr="auto",
                         random_state=None, noise_random_state=None):  # fmt: skip
                super().__init__(
                    epsilon=epsilon, delta=delta, ledger=ledger, lr=lr, schema="as_is", epochs=1,
                    random_state=random_state, noise_random_state=noise_random_state,
                )  # fmt: skip

        found = search(estimator=Counting(), noise_random_state=seed).fit(X, y)
        counts.add(len(fits))
        fitted = {k: v for k, v in vars(found).items() if k.endswith("_")}
        kept.add((tuple(sorted(fitted)), len(found.cv_results_["noisy_score"])))
        assert found.privacy_.seeded and not found.privacy_.certified
        held = len([s for s in found.cv_results_["noisy_score"] if s is not None])
        assert held == 1
    assert len(counts) > 1 and len(kept) == 1


def test_the_number_of_runs_is_fresh_and_follows_its_law():
    """400 numbers from the secret stream against the geometric law's mean; 6 sigma."""
    event = ev.RepeatAndSelect(ev.PureDP(0.0), 3.0, 1.0)
    stream = secret_stream(0)
    runs = [event.runs(int(stream.uint64(1)[0] >> np.uint64(11)) * 2.0**-53) for _ in range(400)]
    sd = math.sqrt(3.0 * 2.0)  # of a geometric law with mean 3
    assert abs(np.mean(runs) - 3.0) < 6 * sd / 20 and min(runs) == 1


def test_settings_are_drawn_evenly():
    counts = np.bincount([_search._draw(3, secret_stream(s)) for s in range(3_000)], minlength=3)
    assert np.abs(counts - 1_000).max() < 6 * math.sqrt(3_000 * 2 / 9)


def test_price_of_a_selection_holds_on_a_toy_mechanism():
    """Best of a geometric number of randomised responses, by enumeration of the output's law."""
    each, mean = 0.3, 4.0
    event = ev.RepeatAndSelect(ev.PureDP(each), mean, 1.0)
    stop = 1 / mean
    keep = math.exp(each) / (1 + math.exp(each))

    def best_is_one(p):
        return 1 - sum(stop * (1 - stop) ** (k - 1) * (1 - p) ** k for k in range(1, 400))

    worst = 0.0
    for p, q in itertools.permutations((keep, 1 - keep)):
        for one, other in ((best_is_one(p), best_is_one(q)),):
            worst = max(worst, abs(math.log(one / other)), abs(math.log((1 - one) / (1 - other))))
    assert each < worst <= guarantee((event,), delta=1e-12, neighboring="zero_out").epsilon
    assert worst <= 3 * each  # Liu, Talwar 2019


def test_a_refusing_ledger_sees_the_search_first():
    class Untouchable(list):
        def __getitem__(self, at):
            raise AssertionError("read")

        def __iter__(self):
            raise AssertionError("read")

    X, y = rows(300)
    with pytest.raises(BudgetExceededError):
        search(ledger=Ledger(cap=Budget(0.5, 1e-3))).fit(X, Untouchable(y.tolist()))


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"grid": {"epsilon": [1.0, 2.0]}}, InvalidParameterError),
        ({"grid": {"ledger": [None]}}, InvalidParameterError),
        ({"grid": {"epochs": [1, 2]}}, AccountingAssumptionError),
        ({"method": "best"}, InvalidParameterError),
        ({"mean_runs": 0.5}, InvalidParameterError),
        ({"validation_fraction": 1.0}, InvalidParameterError),
        ({"epsilon": math.inf}, ValueError),
        (
            {"estimator": DPClassifier(neighboring="add_remove", n_public=100)},
            AccountingAssumptionError,
        ),
    ],
)
def test_bad_searches_are_refused_before_the_charge(kwargs, error):
    ledger = Ledger()
    with pytest.raises(error):
        search(ledger=ledger, **kwargs).fit(*rows(300))
    assert len(ledger) == 0


def test_finds_the_setting_that_learns():
    """Without steps of a length the middle of the range is predicted, 0.16 worse."""
    X, _ = rows(2_000)
    reg = DPRegressor(target_range=(-5, 5), schema="as_is", epochs=5)
    found = search(epsilon=8.0, method="composition", estimator=reg).fit(X, 4 + 0.1 * X[:, 0])
    assert found.best_params_ == {"lr": 0.1} and found.best_score_ > 0.95
    assert found.cv_results_["noisy_score"][0] < 0.9


def test_regressors_are_scored_by_a_bounded_error():
    X, _ = rows(1_000)
    reg = DPRegressor(target_range=(-5, 5), schema="as_is", epochs=2)
    found = search(estimator=reg, epsilon=8.0).fit(X, X[:, 0])
    assert 0.5 < found.best_score_ < 1.2 and found.privacy_.certified


def test_a_fairness_penalty_is_refused_before_anything_is_charged():
    from privfair.fairness.dcov import BoundedDistanceCovariance

    X, y = rows(200)
    ledger = Ledger()
    fair = DPClassifier(
        schema="as_is", fairness_penalty=BoundedDistanceCovariance({"s": ["a", "b"]})
    )
    with pytest.raises(AccountingAssumptionError, match="fairness penalty"):
        search(estimator=fair, ledger=ledger).fit(X, y)
    assert len(ledger) == 0
