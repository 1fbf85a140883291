"""Membership inference: overfit models give themselves away, private ones hardly; by group."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from privfair.accounting import Ledger
from privfair.auditing import (
    attack_advantage,
    attack_auc,
    evaluate_attack,
    lira_scores,
    membership_inference,
)
from privfair.auditing._lira import lira_from_log_odds
from privfair.auditing._membership import log_odds
from privfair.auditing._metrics import tpr_at_fpr
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    PrivacyError,
)
from privfair.dp import DPClassifier


def candidates(n: int = 400, d: int = 300, seed: int = 81) -> tuple[np.ndarray, ...]:
    """Noisy labels and many features: a model without regularisation memorises them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = ((X[:, 0] + rng.normal(size=n)) > 0).astype(int)
    return X, y, np.arange(n) % 2 == 0


OVERFIT = LogisticRegression(C=100.0, max_iter=400)


# -- overfit against private ------------------------------------------------------------------
@pytest.mark.statistical
@pytest.mark.parametrize("method", ["loss_threshold", "lira_online", "lira_offline"])
def test_an_overfit_model_gives_its_rows_away(method: str) -> None:
    """The lower end of a 1 - 1e-6 interval of the AUC is clearly above one half."""
    X, y, member = candidates()
    model = OVERFIT.fit(X[member], y[member])
    r = membership_inference(
        model, X, y, member, method=method, confidence=1 - 1e-6, random_state=0, fpr=(0.1,)
    )
    auc = r.estimate("attack_auc")
    assert auc.low > 0.55, str(r)
    assert auc.low < auc.value < auc.high
    if method != "loss_threshold":  # whose errors are not where they would have to be small
        assert r.estimate("attack_tpr_at_fpr_0.1").low > 0.1
    assert r.lower_epsilon is None  # many records of one run bound no epsilon
    assert r.verdict == "no bound on epsilon"
    assert any("not independent" in c for c in r.caveats)


def test_shadow_models_sharpen_the_attack() -> None:
    X, y, member = candidates()
    model = OVERFIT.fit(X[member], y[member])
    auc = {
        method: membership_inference(model, X, y, member, method=method, random_state=0)
        .estimate("attack_auc").value
        for method in ("loss_threshold", "lira_online")
    }  # fmt: skip
    assert auc["lira_online"] > auc["loss_threshold"]


@pytest.mark.statistical
def test_a_private_model_hides_its_rows() -> None:
    """epsilon = 1: |AUC - 0.5| below 5.5 standard errors (0.05 with 2,000 rows of each kind)."""
    X, y, member = candidates(4000, 20)
    model = DPClassifier(epsilon=1.0, schema="as_is", epochs=5, ledger=Ledger())
    model.fit(X[member], y[member])
    r = membership_inference(model, X, y, member, allow_raw_training_rows=True)
    assert abs(r.estimate("attack_auc").value - 0.5) < 0.05
    # The certificate bounds every attack: TPR - FPR of at most (e - 1 + 2 delta) / (e + 1).
    assert r.estimate("attack_advantage").low < math.tanh(0.5) + 1e-3


@pytest.mark.slow
@pytest.mark.statistical
def test_a_private_model_hides_its_rows_from_shadow_models_too() -> None:
    X, y, member = candidates(2000, 20)
    model = DPClassifier(epsilon=1.0, schema="as_is", epochs=5, ledger=Ledger())
    model.fit(X[member], y[member])
    r = membership_inference(
        model, X, y, member, method="lira_online", allow_raw_training_rows=True, random_state=0
    )
    assert abs(r.estimate("attack_auc").value - 0.5) < 0.072


@pytest.mark.statistical
def test_risk_is_uneven_and_the_groups_show_it() -> None:
    """Labels of group b are coin tosses, which a tree learns by heart; those of a are a rule."""
    rng = np.random.default_rng(82)
    n = 2000
    X, group = rng.normal(size=(n, 6)), np.where(np.arange(n) < n // 2, "a", "b")
    y = np.where(group == "a", X[:, 0] > 0, rng.random(n) < 0.5).astype(int)
    member = rng.random(n) < 0.5
    Z = np.column_stack([X, group == "b"])
    model = DecisionTreeClassifier(random_state=0).fit(Z[member], y[member])
    r = membership_inference(
        model, Z, y, member, sensitive_features={"group": group}, confidence=1 - 1e-6, fpr=(0.1,)
    )
    table = r.estimate("attack_auc").by_group
    assert table is not None
    assert table.loc["a", "high"] < table.loc["b", "low"]
    rates = r.estimate("attack_tpr_at_fpr_0.1").by_group
    assert rates is not None
    assert set(rates.index) == {"a", "b"}
    assert set(r.groups) == {"a", "b"}


# -- LiRA -------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [16, 64])
def test_likelihood_ratios_by_hand(k: int) -> None:
    """Two records; one variance below 64 models, one for each record from there on."""
    rng = np.random.default_rng(83)
    inside = np.column_stack([np.arange(k) < k // 2, np.arange(k) >= k // 2])
    phi = rng.normal(size=(k, 2)) * [1.0, 3.0] + 2.0 * inside
    own = np.array([1.0, -1.0])
    expected, offline = [], []
    for j in range(2):
        parts = {}
        for flag in (True, False):
            rows = [phi[inside[:, i] == flag, i] for i in range(2)]
            pooled = sum(((x - x.mean()) ** 2).sum() for x in rows) / sum(len(x) - 1 for x in rows)
            spread = rows[j].var(ddof=1) if k >= 64 else pooled
            parts[flag] = rows[j].mean(), math.sqrt(spread)
        expected.append(stats.norm.logpdf(own[j], *parts[True]) - stats.norm.logpdf(
            own[j], *parts[False]))  # fmt: skip
        offline.append((own[j] - parts[False][0]) / parts[False][1])
    assert lira_from_log_odds(own, phi, inside) == pytest.approx(np.array(expected))
    got = lira_from_log_odds(own, phi, inside, mode="offline")
    assert np.array_equal(np.argsort(got), np.argsort(offline))


def test_each_record_is_in_half_of_the_shadow_models() -> None:
    from privfair.auditing._lira import _halves

    inside = _halves(500, 16, np.random.default_rng(0))
    assert (inside.sum(axis=0) == 8).all()
    assert 150 < inside[0].sum() < 350
    assert not np.array_equal(inside[0], inside[1])


class _Fixed:
    """A model with the log-probabilities given."""

    classes_ = np.array([0, 1])

    def __init__(self, logs: Any) -> None:
        self._logs = np.asarray(logs, dtype=float)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        return self._logs


def test_log_odds_do_not_cancel_near_one() -> None:
    tiny = 1e-18  # 1 - tiny is 1.0 in floating point
    model = _Fixed([[math.log(tiny), math.log1p(-tiny)], [-np.inf, 0.0]])
    x = np.zeros((2, 1))
    assert log_odds(model, x, [1, 0])[0] == pytest.approx(-math.log(tiny))
    assert log_odds(model, x, [0, 0])[0] == pytest.approx(math.log(tiny))
    assert np.isfinite(log_odds(model, x, [1, 1])).all()


def test_shadow_models_do_not_charge_the_ledger_of_the_model() -> None:
    X, y, member = candidates(200, 3)
    ledger = Ledger()
    model = DPClassifier(epsilon=math.inf, schema="as_is", epochs=1, ledger=ledger)
    model.fit(X[member], y[member])
    before = len(ledger.entries())
    lira_scores(model, X, y, random_state=0)
    assert len(ledger.entries()) == before


# -- what is charged and refused --------------------------------------------------------------
def test_a_certificate_forbids_raw_numbers_about_its_rows() -> None:
    X, y, member = candidates(400, 3)
    model = DPClassifier(epsilon=1.0, schema="as_is", epochs=1, ledger=Ledger())
    model.fit(X[member], y[member])
    with pytest.raises(PrivacyError, match="Attack canaries instead"):
        membership_inference(model, X, y, member)
    r = membership_inference(model, X, y, member, allow_raw_training_rows=True)
    assert r.details["voids_certificate"]
    assert any("voids" in c for c in r.caveats)


def test_the_candidates_are_entered_before_they_are_read() -> None:
    X, y, member = candidates(100, 3)
    model = DecisionTreeClassifier().fit(X, y)
    ledger = Ledger()
    membership_inference(model, X, y, member, ledger=ledger)
    assert len(ledger.entries()) >= 1
    with pytest.raises(BudgetExceededError):
        membership_inference(model, X, y, member, ledger=Ledger(cap=Budget(1.0, 1e-6)))


# -- statistics -------------------------------------------------------------------------------
@pytest.mark.statistical
def test_coverage_of_the_auc_interval() -> None:
    """600 samples of 60 + 60; the 95 % interval covers in 92 % at least (3.4 standard errors)."""
    rng = np.random.default_rng(84)
    truth = stats.norm.cdf(0.5 / math.sqrt(2))
    member = np.arange(120) < 60
    hits = 0
    for _ in range(600):
        e = attack_auc.estimate(member, rng.normal(size=120) + 0.5 * member)
        hits += e.low <= truth <= e.high
    assert hits >= 552


def test_perfect_separation_keeps_an_interval() -> None:
    member = np.arange(40) < 20
    e = attack_auc.estimate(member, member.astype(float))
    assert (e.value, e.high) == (1.0, 1.0)
    assert e.low == pytest.approx(0.025 ** (1 / 20))


def test_true_positive_rate_at_a_false_positive_rate() -> None:
    member = np.arange(2000) < 1000
    scores = np.concatenate([np.linspace(0, 2, 1000), np.linspace(0, 1, 1000)])
    e = tpr_at_fpr(member, scores, 0.01, 0.95)
    assert e.details["fpr"] == pytest.approx(0.01)
    cut = np.sort(scores[~member])[::-1][10]
    assert e.value == pytest.approx((scores[:1000] > cut).mean())
    low = stats.beta.ppf(0.025, round(e.value * 1000), 1000 - round(e.value * 1000) + 1)
    assert e.low == pytest.approx(low)
    # With ties the rate stays below what was asked for.
    tied = tpr_at_fpr(member, np.ones(2000), 0.01, 0.95)
    assert (tied.value, tied.details["fpr"]) == (0.0, 0.0)
    assert tpr_at_fpr(member, scores, 1.0, 0.95).value == 1.0


@pytest.mark.parametrize(("n_out", "rate", "ok"), [(1000, 0.01, True), (999, 0.01, False)])
def test_rates_that_the_sample_cannot_show_are_refused(n_out: int, rate: float, ok: bool) -> None:
    member = np.arange(n_out + 50) < 50
    r = evaluate_attack(np.arange(n_out + 50.0), member, fpr=(rate,))
    e = r.estimate(f"attack_tpr_at_fpr_{rate:g}")
    assert (e.status == "ok") is ok
    if not ok:
        assert "needs 1000 records" in e.reason


def test_advantage() -> None:
    member = np.array([True, True, False, False] * 50)
    e = attack_advantage.estimate(member, np.tile([3.0, 1.0, 2.0, 0.0], 50))
    assert e.value == pytest.approx(0.5)
    assert e.low < 0.5 < e.high


def test_curve_and_picture() -> None:
    member = np.arange(400) % 2 == 0
    r = evaluate_attack(
        np.random.default_rng(0).normal(size=400) + member, member,
        sensitive_features=["a"] * 200 + ["b"] * 200,
    )  # fmt: skip
    xs, ys = zip(*r.roc, strict=True)
    assert xs[0] == 0.0
    assert (xs[-1], ys[-1]) == (1.0, 1.0)
    assert list(ys) == sorted(ys)
    assert len(r.plot().lines) == 4


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"member": [1, 0, 1, 0]}, InvalidTypeError, "boolean"),
        ({"member": [True] * 4}, LabelError, "only one kind"),
        ({"scores": [1.0, math.nan, 0.0, 0.0]}, DataError, "NaN"),
        ({"sensitive_features": ["a"]}, LengthMismatchError, "rows"),
        ({"fpr": (1.5,)}, InvalidParameterError, "fpr"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], text: str) -> None:
    call = {"scores": [1.0, 2.0, 3.0, 4.0], "member": [True, False, True, False], **change}
    with pytest.raises(error, match=text):
        evaluate_attack(call.pop("scores"), call.pop("member"), **call)


def test_bad_requests() -> None:
    X, y, member = candidates(100, 3)
    model = DecisionTreeClassifier().fit(X, y)
    with pytest.raises(InvalidParameterError, match="loss_threshold"):
        membership_inference(model, X, y, member, method="loss")
    with pytest.raises(InvalidParameterError, match="even number"):
        membership_inference(model, X, y, member, method="lira_online", n_shadow_models=8)
    with pytest.raises(InvalidParameterError, match="even number"):
        lira_scores(model, X, y, n_shadow_models=17)
    with pytest.raises(LabelError, match="does not know"):
        membership_inference(model, X, y + 5, member)
    with pytest.raises(InvalidTypeError, match="predict_proba"):
        membership_inference(object(), X, y, member)
    rare = np.where(np.arange(100) == 0, 1, 0)
    with pytest.raises(DataError, match="lacks a class"):
        lira_scores(RandomForestClassifier(n_estimators=2), X, rare)
