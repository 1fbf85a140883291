"""Ways of clipping and optimisers as parameters of the estimators."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from privfair.accounting import Ledger
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.dp import DPClassifier, DPRegressor
from privfair.training import AdaptiveClipping, AutomaticClipping, GroupClipping

from .test_classifier import SCHEMA, private, table
from .test_penalty import MeanGap

CLIPPINGS = {
    "automatic": "automatic",
    "per_layer": "per_layer",
    "adaptive": "adaptive",
    "gamma": AutomaticClipping(0.1),
    "groups": GroupClipping([["0"], ["2"]], shares=[2.0, 1.0]),
    "quantile": AdaptiveClipping(target_quantile=0.7, count_noise=30.0),
}
NET = {"hidden_layer_sizes": (6,), "epochs": 15, "epsilon": 4.0}


@pytest.mark.parametrize("name", CLIPPINGS)
def test_learns_at_the_same_price(name, tmp_path):
    X, y = table(3_000)
    clf = private(clipping=CLIPPINGS[name], noise_random_state=1, random_state=0, **NET).fit(X, y)
    flat = private(noise_random_state=1, random_state=0, **NET).fit(X, y)
    assert clf.score(*table(2_000, seed=1)) > 0.8
    assert clf.privacy_.epsilon == pytest.approx(flat.privacy_.epsilon, rel=1e-9)
    assert clf.noise_multiplier_ == pytest.approx(flat.noise_multiplier_, rel=1e-12)
    assert (clf.plan_.statistic is not None) == ("adaptive" in name or name == "quantile")
    assert not np.array_equal(clf.module_[0].weight, flat.module_[0].weight)
    clf.save(tmp_path / "model")
    loaded = DPClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert type(loaded.clipping) is type(clf.clipping) and loaded.plan_ == clf.plan_
    again = clone(loaded).set_params(ledger=Ledger(), noise_random_state=1, random_state=0)
    np.testing.assert_allclose(again.fit(X, y).predict_proba(X), clf.predict_proba(X))


def test_corrected_adam_learns():
    X, y = table(3_000)
    clf = private(optimizer="dp_adam_bc", epsilon=2.0, epochs=15).fit(X, y)
    assert clf.score(*table(2_000, seed=1)) > 0.8 and clf.privacy_.certified


def test_a_regressor_takes_them_too():
    X, y = table(2_000)
    target = (y == "yes").astype(float)
    model = DPRegressor(
        target_range=(0.0, 1.0), schema=SCHEMA, ledger=Ledger(), epochs=10, clipping="automatic",
        optimizer="dp_adam_bc", epsilon=4.0,
    ).fit(X, target)  # fmt: skip
    assert model.score(X, target) > 0.2


@pytest.mark.parametrize("clipping", ["adaptive", "automatic"])
def test_without_privacy_nothing_is_clipped(clipping):
    X, y = table(1_000)
    options = {"epsilon": float("inf"), "random_state": 0, "epochs": 5}
    one, two = (private(clipping=c, **options).fit(X, y) for c in (clipping, "flat"))
    np.testing.assert_array_equal(one.coef_, two.coef_)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clipping": "ghost"}, InvalidParameterError, "clipping"),
        ({"clipping": 1.0}, InvalidTypeError, "clipping"),
        ({"clipping": "adaptive", "batch_size": 16}, AccountingAssumptionError, "count_noise"),
        (
            {"clipping": "adaptive", "fairness_penalty": MeanGap()},
            InvalidParameterError, "only one",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_the_charge(options, error, message):
    X, y = table(1_000)
    clf = private(epsilon=0.5, **options)
    with pytest.raises(error, match=message):
        clf.fit(X, y, sensitive_features=np.resize(["a", "b"], 1_000))
    assert len(clf.ledger) == 0
