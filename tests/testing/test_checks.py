"""Each public check is itself checked: it must refuse what is broken, and say why."""

import math

import numpy as np
import pytest
import torch

from privfair.accounting.events import RandomizedResponse
from privfair.core import Metric, secret_stream
from privfair.core.exceptions import InvalidParameterError
from privfair.testing import (
    check_mechanism,
    check_metric,
    check_penalty,
    check_private_estimator,
    dp_lower_bound,
)

pytestmark = pytest.mark.usefixtures("installed_plugin")


# --- mechanisms -----------------------------------------------------------------------------
def test_a_mechanism_that_claims_too_little_is_caught():
    # ln 3 is true, ln 2 is claimed. With n = 4000 draws of each the lower bound of an honest
    # coin is about 0.95 +- 0.06, so that ln 2 = 0.693 is refuted with probability > 0.999.
    from privfair_demo import StickyCoin

    class Understated(StickyCoin):
        def cost(self, count=1):
            return RandomizedResponse(math.log(2), 2)

    with pytest.raises(AssertionError, match="an event shows at least"):
        check_mechanism(Understated(), True, neighbors=(True, False))


def test_a_mechanism_without_noise_is_caught():
    from privfair_demo import StickyCoin

    class Honest(StickyCoin):
        def _draw(self, prepared):
            return prepared

    with pytest.raises(AssertionError, match="no noise"):
        check_mechanism(Honest(), True)


def test_a_mechanism_that_draws_although_it_was_refused_is_caught():
    from privfair_demo import StickyCoin

    class Careless(StickyCoin):
        def release(self, value, *, ledger=None, purpose=""):
            if ledger is not None:
                try:
                    with ledger.spend(self.cost(), purpose=purpose):
                        pass
                except Exception as error:  # the bug under test: the refusal is swallowed
                    del error
            return self._draw(value)

    with pytest.raises(AssertionError, match="goes on although the ledger refused"):
        check_mechanism(Careless(), True)


def test_a_mechanism_that_charges_something_else_is_caught():
    from privfair_demo import StickyCoin

    class Cheap(StickyCoin):
        def release(self, value, *, ledger=None, purpose=""):
            with ledger.spend(RandomizedResponse(0.1, 2), purpose=purpose):
                return self._draw(value)

    with pytest.raises(AssertionError, match="must charge exactly"):
        check_mechanism(Cheap(), True)


def test_a_mechanism_without_a_sensitivity_is_caught():
    from privfair_demo import StickyCoin

    class Endless(StickyCoin):
        sensitivity = math.inf

    with pytest.raises(AssertionError, match="sensitivity"):
        check_mechanism(Endless(), True)


# --- metrics --------------------------------------------------------------------------------
def _metric(value, **fields):
    class Broken(Metric):
        def __call__(self, y_true, y_pred, *, sensitive_features=None, **columns):
            return value(np.asarray(y_pred), np.asarray(sensitive_features))

        def estimate(self, y_true, y_pred, **columns):
            raise AssertionError("not reached")

        def __reduce__(self):
            return (_metric_again, (value, tuple(fields.items())))

    return Broken("broken", requires=("y_pred", "sensitive_features"), **fields)


def _metric_again(value, fields):
    return _metric(value, **dict(fields))


def _first(y_pred, groups):
    return float(y_pred[: len(y_pred) // 2].mean()) if y_pred[0] else 0.123


def _count(y_pred, groups):
    return float(y_pred.sum())


def _named(y_pred, groups):
    return float(y_pred[groups == "a"].mean()) if (groups == "a").any() else 0.0


@pytest.mark.parametrize(
    ("value", "limits", "words"),
    [
        (_first, (0.0, 1.0), "row order"),
        (_count, (0.0, 1e9), "every row is there twice"),
        (_count, (0.0, 1.0), "is outside"),
        (_named, (0.0, 1.0), "names of the groups"),
    ],
)
def test_broken_metrics_are_caught(value, limits, words):
    data = {
        "y_true": np.tile([0, 1], 200),
        "y_pred": (np.arange(400) % 7 < 3).astype(int),
        "sensitive_features": np.array(["a", "b"], dtype=object)[np.arange(400) // 200],
    }
    with pytest.raises(AssertionError, match=words):
        check_metric(_metric(value, range=limits), data=data)


def test_an_interval_that_misses_its_value_is_caught():
    from dataclasses import replace

    from privfair_demo.metric import DecisionSpread

    class Shifted(DecisionSpread):
        def estimate(self, *args, **kwargs):
            good = super().estimate(*args, **kwargs)
            return replace(good, low=good.high + 1, high=good.high + 2)

        def __reduce__(self):
            return (DecisionSpread, ("shifted",))

    metric = Shifted("shifted", requires=("y_pred", "sensitive_features"))
    with pytest.raises(AssertionError, match="does not hold its value"):
        check_metric(metric)


# --- penalties ------------------------------------------------------------------------------
def test_a_penalty_that_understates_its_bound_is_caught():
    from privfair_demo import BoundedScoreGap

    penalty = BoundedScoreGap()
    penalty.feature_bound = 1.0
    with pytest.raises(AssertionError, match="above feature_bound"):
        check_penalty(penalty, n_groups=2)


def test_a_penalty_whose_records_see_each_other_is_caught():
    from privfair_demo import BoundedScoreGap

    class Coupled(BoundedScoreGap):
        def weights(self, scores, sensitive, *, y=None, **columns):
            return (scores - scores.mean()).detach()

    with pytest.raises(AssertionError, match="depends on another record"):
        check_penalty(Coupled(), n_groups=2)


def test_a_penalty_that_claims_to_decompose_needs_the_parts():
    class Claims:
        decomposable = True
        requires = frozenset()

        def __call__(self, scores, sensitive, *, y=None, sample_weight=None, **columns):
            return scores.var()

    with pytest.raises(AssertionError, match="lacks features"):
        check_penalty(Claims())


def test_a_vector_is_no_penalty():
    class Vector:
        decomposable = False
        requires = frozenset()

        def __call__(self, scores, sensitive, *, y=None, sample_weight=None, **columns):
            return torch.square(scores)

    with pytest.raises(AssertionError, match="0-d"):
        check_penalty(Vector())


# --- estimators -----------------------------------------------------------------------------
X, Y = np.zeros((200, 2)), np.arange(200) % 3 % 2


def test_an_estimator_that_charges_nothing_is_caught():
    from privfair_demo import NoisyMajorityClassifier

    class Free(NoisyMajorityClassifier):
        def fit(self, X, y, **kwargs):
            kept, self.ledger = self.ledger, None
            super().fit(X, y)
            self.ledger = kept
            return self

    with pytest.raises(AssertionError, match="charged nothing"):
        check_private_estimator(Free(epsilon=0.5), X, Y)


def test_an_estimator_whose_noise_follows_random_state_is_caught():
    from privfair_demo import NoisyMajorityClassifier

    class Repeats(NoisyMajorityClassifier):
        def fit(self, X, y, **kwargs):
            super().fit(X, y)
            if self.random_state is not None:
                self.share_ = float(np.random.default_rng(self.random_state).random())
            return self

    with pytest.raises(AssertionError, match="random_state alone repeats the noise"):
        check_private_estimator(Repeats(epsilon=0.5), X, Y)


def test_an_estimator_that_hides_its_seed_is_caught():
    from dataclasses import replace

    from privfair_demo import NoisyMajorityClassifier

    class Hides(NoisyMajorityClassifier):
        def fit(self, X, y, **kwargs):
            super().fit(X, y)
            self.privacy_ = replace(self.privacy_, seeded=False)
            return self

    with pytest.raises(AssertionError, match="does not mark a seeded fit"):
        check_private_estimator(Hides(epsilon=0.5), X, Y)


def test_an_estimator_that_certifies_more_than_asked_is_caught():
    from dataclasses import replace

    from privfair_demo import NoisyMajorityClassifier

    class Overspends(NoisyMajorityClassifier):
        def fit(self, X, y, **kwargs):
            super().fit(X, y)
            self.privacy_ = replace(self.privacy_, epsilon=2 * self.privacy_.epsilon)
            return self

    with pytest.raises(AssertionError, match="and certifies"):
        check_private_estimator(Overspends(epsilon=0.5), X, Y)


# --- the attack behind the checks -----------------------------------------------------------
def test_the_lower_bound_stays_below_the_truth_and_finds_a_wrong_scale():
    # Honest Laplace noise: false-alarm rate 1e-6. Noise too small by 30 % (true epsilon 1.43):
    # over 40,000 draws the best threshold gives 1.40 +- 0.02, so that 1.0 is refuted surely.
    rng = np.random.default_rng(np.frombuffer(secret_stream().bytes(16), dtype=np.uint32))
    honest = rng.laplace(0, 1, 40_000), rng.laplace(1, 1, 40_000)
    wrong = rng.laplace(0, 0.7, 40_000), rng.laplace(1, 0.7, 40_000)
    assert dp_lower_bound(*honest, epsilon=1.0) <= 1.0
    assert dp_lower_bound(*wrong, epsilon=1.0) > 1.0


def test_it_wants_enough_draws():
    with pytest.raises(InvalidParameterError, match="at least 100"):
        dp_lower_bound([1.0], [2.0], epsilon=1.0)


def test_a_mechanism_that_draws_first_and_charges_afterwards_is_caught():
    from privfair_demo import StickyCoin

    class Backwards(StickyCoin):
        def release(self, value, *, ledger=None, purpose=""):
            out = self._draw(value)
            if ledger is not None:
                with ledger.spend(self.cost(), purpose=purpose):
                    pass
            return out

    with pytest.raises(AssertionError, match="draws before the ledger is charged"):
        check_mechanism(Backwards(), True)
