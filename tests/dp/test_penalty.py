"""Fairness penalties: through the one hook, accounted on the same batch, or refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from privfair.accounting import Ledger, guarantee
from privfair.core import Numeric, Schema
from privfair.core.exceptions import AccountingAssumptionError, InvalidParameterError
from privfair.dp import DPClassifier
from privfair.testing import check_penalty

SCHEMA = Schema({"a": Numeric(-4, 4), "b": Numeric(-4, 4)})


class MeanGap:
    """Twice the squared gap between two groups' mean scores, from released sums.

    The statistic of a record is (score, 1) in its group's place; half of the squared gap's
    derivative at a score depends on the released sums only.
    """

    decomposable = True
    requires: frozenset[str] = frozenset()
    n_features = 4
    feature_bound = math.sqrt(2.0)

    def __init__(self, strength: float = 1.0):
        self.strength = strength
        self.sums = torch.zeros(4, dtype=torch.float64)
        self.seen: list[torch.Tensor] = []

    def __call__(self, scores, sensitive, *, y=None, sample_weight=None, **columns):
        first, second = scores[sensitive == 0], scores[sensitive == 1]
        return (first.mean() - second.mean()) ** 2

    def features(self, scores, sensitive, *, y=None, **columns):
        group = torch.nn.functional.one_hot(sensitive.clamp(0, 1), 2).to(scores.dtype)
        return torch.cat([group * scores[:, None], group], dim=1)

    def absorb(self, noisy_sum_over_B):
        self.seen.append(noisy_sum_over_B)
        self.sums = 0.9 * self.sums + 0.1 * noisy_sum_over_B

    def weights(self, scores, sensitive, *, y=None, **columns):
        total, share = self.sums[:2], self.sums[2:].clamp(min=1e-3)
        gap = (total / share)[0] - (total / share)[1]
        sign = torch.where(sensitive == 0, 1.0 / share[0], -1.0 / share[1])
        return (2 * gap * sign).detach().to(scores.dtype)


class BatchVariance:
    """A batch-level penalty: every record enters every other record's term."""

    decomposable = False
    requires: frozenset[str] = frozenset()

    def __call__(self, scores, sensitive, *, y=None, sample_weight=None, **columns):
        return (scores[sensitive == 0].mean() - scores[sensitive == 1].mean()) ** 2


def table(n=4_000, seed=0):
    rng = np.random.default_rng(seed)
    S = rng.integers(0, 2, n)
    X = np.stack([rng.normal(size=n) + 1.5 * S, rng.normal(size=n)], axis=1).clip(-4, 4)
    y = (X[:, 0] + X[:, 1] + rng.logistic(size=n) > 0.7).astype(int)
    return X, y, S


def gap(clf, X, S):
    score = clf.predict_proba(X)[:, 1]
    return abs(score[S == 0].mean() - score[S == 1].mean())


def make(**kwargs):
    return DPClassifier(
        **{"schema": SCHEMA, "epsilon": 3.0, "ledger": Ledger(), "epochs": 15, **kwargs}
    )


def test_the_toy_penalty_keeps_the_contract():
    check_penalty(MeanGap(), n_groups=2)


def test_the_penalty_narrows_the_gap_and_is_paid_from_the_same_epsilon():
    X, y, S = table()
    plain = make().fit(X, y)
    penalty = MeanGap(strength=2.0)
    fair = make(fairness_penalty=penalty).fit(X, y, sensitive_features=S)
    assert gap(fair, X, S) < 0.6 * gap(plain, X, S)
    assert fair.privacy_.certified and fair.privacy_.epsilon <= 3.0
    # The same effective noise for both: a joint step costs what a step without penalty costs.
    assert fair.noise_multiplier_ == pytest.approx(plain.noise_multiplier_, rel=1e-9)
    assert fair.plan_.noise_multiplier == pytest.approx(fair.noise_multiplier_ / math.sqrt(0.9))
    assert fair.plan_.statistic.noise_multiplier == pytest.approx(
        fair.noise_multiplier_ / math.sqrt(0.1)
    )
    assert guarantee(fair.events_, delta=fair.privacy_.delta).epsilon <= 3.0
    assert penalty.seen == []  # the parameter itself is never changed
    assert not any("lists of groups" in a for a in fair.privacy_.assumptions)


def test_labels_of_groups_are_said_to_be_public():
    X, y, S = table(600)
    fair = make(fairness_penalty=MeanGap(), epochs=1)
    fair.fit(X, y, sensitive_features=np.where(S == 1, "m", "f"))
    assert any("lists of groups of s0 are public" in a for a in fair.privacy_.assumptions)


def test_fairness_share_moves_noise_between_gradient_and_statistic():
    X, y, S = table(600)
    small, large = (
        make(fairness_penalty=MeanGap(), fairness_share=share, epochs=1).fit(
            X, y, sensitive_features=S
        )
        for share in (0.1, 0.5)
    )
    assert large.plan_.noise_multiplier > small.plan_.noise_multiplier
    assert large.plan_.statistic.noise_multiplier < small.plan_.statistic.noise_multiplier


@pytest.mark.parametrize("penalty", [MeanGap(2.0), BatchVariance()])
def test_without_privacy_any_penalty_works(penalty):
    X, y, S = table()
    inf = float("inf")
    plain = make(epsilon=inf, lr=1.0).fit(X, y)
    penalty.strength = 2.0
    fair = make(epsilon=inf, lr=1.0, fairness_penalty=penalty).fit(X, y, sensitive_features=S)
    assert gap(fair, X, S) < 0.7 * gap(plain, X, S)
    assert fair.privacy_.unsafe == ("non_private",)


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_the_surrogates_gradient_is_the_penaltys_when_nothing_is_noised(hidden):
    """Full batch, exact sums of the same step: surrogate and autograd of the gap agree."""
    from privfair.training import LogisticLoss
    from privfair.training._closed_form import ClosedFormPath
    from privfair.training._models import build_module

    X, y, S = table(200)
    data, targets = torch.from_numpy(X).float(), torch.from_numpy(y).float()
    group = torch.from_numpy(S)
    module = build_module(None, hidden, 2, 1, np.random.default_rng(0))
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3
    loss, penalty = LogisticLoss(), MeanGap()
    scores = loss.score(module(data)).detach()
    penalty.sums = penalty.features(scores, group).double().sum(dim=0) / 200
    path = ClosedFormPath(module, loss)

    def total(weights):
        return path.sums(data, targets, torch.arange(200), None, 0.0, weights).total / 200

    surrogate = total(lambda out: penalty.weights(loss.score(out), group)) - total(None)
    value = penalty(loss.score(module(data)), group)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(value, module.parameters())])
    torch.testing.assert_close(surrogate.float(), expected, rtol=1e-4, atol=1e-6)


def test_batch_level_penalties_are_refused_by_name():
    X, y, S = table(300)
    clf = make(fairness_penalty=BatchVariance())
    with pytest.raises(AccountingAssumptionError, match="BatchVariance"):
        clf.fit(X, y, sensitive_features=S)
    assert len(clf.ledger) == 0


@pytest.mark.parametrize(
    ("kwargs", "fit", "match"),
    [
        ({"fairness_penalty": MeanGap()}, {}, "needs sensitive_features"),
        ({"fairness_penalty": 3, "epsilon": math.inf}, {"sensitive_features": True}, "Penalty"),
        (
            {"fairness_penalty": MeanGap(), "classes": [0, 1, 2]},
            {"sensitive_features": True},
            "single score",
        ),
    ],
)
def test_misuse_spends_nothing(kwargs, fit, match):
    X, y, S = table(300)
    clf = make(**kwargs)
    fit = dict.fromkeys(fit, S)
    with pytest.raises((InvalidParameterError, AccountingAssumptionError), match=match):
        clf.fit(X, y, **fit)
    assert len(clf.ledger) == 0


def test_a_statistic_above_its_stated_bound_is_cut_to_it():
    """A penalty that lies about its bound cannot spend more than was accounted."""

    class Liar(MeanGap):
        feature_bound = 0.1

    X, y, S = table(600)
    released = []

    class Listening(Liar):
        def __deepcopy__(self, memo):
            return self

        def absorb(self, noisy_sum_over_B):
            released.append(noisy_sum_over_B.clone())

    clf = make(fairness_penalty=Listening(), epochs=30, epsilon=20.0)
    clf.fit(X, y, sensitive_features=S)
    # Each record's row is cut to norm 0.1, so that its last two entries sum to at most 0.1.
    total = torch.stack(released).mean(dim=0)
    sigma = clf.plan_.statistic.noise_multiplier * 0.1 / clf.plan_.expected_batch_size
    assert float(total[2:].sum()) < 0.1 + 6 * sigma * math.sqrt(2 / len(released)) + 0.02


def test_released_sums_are_all_that_a_penalty_learns():
    """One ``absorb`` for each step, and never of a sum without noise."""

    class Listening(MeanGap):
        calls: list[torch.Tensor] = []

        def __deepcopy__(self, memo):
            return self

        def absorb(self, noisy_sum_over_B):
            self.calls.append(noisy_sum_over_B.clone())

    X, y, S = table(600)
    listening = Listening()
    clf = make(fairness_penalty=listening, epochs=40).fit(X, y, sensitive_features=S)
    assert len(listening.calls) == clf.n_steps_
    # What holds no record would be a whole number of records over B without noise.
    counts = torch.stack(listening.calls)[:, 2:] * clf.plan_.expected_batch_size
    assert ((counts - counts.round()).abs() > 1e-6).all()


class SeesTheBatch(MeanGap):
    def features(self, scores, sensitive, *, y=None, **columns):
        return super().features(scores, sensitive) * float((scores > 0.9).any())


class WeighsByTheBatch(MeanGap):
    def weights(self, scores, sensitive, *, y=None, **columns):
        return torch.full((len(scores),), 1e3 * float(sensitive.double().max()))


class CountsTheBatch(MeanGap):
    def features(self, scores, sensitive, *, y=None, **columns):
        return super().features(scores, sensitive) / len(scores)


class LooksAtLabels(MeanGap):
    def weights(self, scores, sensitive, *, y=None, **columns):
        return torch.full((len(scores),), float(y.double().sum()))


class AfterTheFirstRelease(MeanGap):
    def weights(self, scores, sensitive, *, y=None, **columns):
        return super().weights(scores, sensitive) * scores.mean()


@pytest.mark.parametrize(
    "penalty",
    [
        SeesTheBatch(),
        WeighsByTheBatch(),
        CountsTheBatch(),
        LooksAtLabels(),
        AfterTheFirstRelease(),
    ],
)
def test_a_penalty_that_lies_about_being_decomposable_is_refused_before_the_charge(penalty):
    X, y, S = table(300)
    clf = make(fairness_penalty=penalty)
    part = "features" if "features" in vars(type(penalty)) else "weights"
    with pytest.raises(AccountingAssumptionError, match=rf"\.{part} of one record depends"):
        clf.fit(X, y, sensitive_features=S)
    assert len(clf.ledger) == 0


def test_that_a_penalty_treats_records_one_by_one_is_listed_as_an_assumption():
    X, y, S = table(300)
    penalty = MeanGap()
    fair = make(fairness_penalty=penalty, epochs=1).fit(X, y, sensitive_features=S)
    assert any("treats records one by one" in a for a in fair.privacy_.assumptions)
    assert penalty.seen == []
    plain = make(epochs=1).fit(X, y)
    assert not any("penalty" in a for a in plain.privacy_.assumptions)
