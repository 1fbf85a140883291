"""The bound from one run: published values, a second implementation, error rates, bad input."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfair.auditing import (
    attack_auc,
    audited_epsilon,
    one_run_audit,
    one_run_epsilon_lower_bound,
    one_run_p_value,
)
from privfair.core import PrivacyGuarantee
from privfair.core.exceptions import (
    DataError,
    IncompatibleNeighboringError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    PrivacyContradictionError,
)

# m, r, v, delta, bound at beta = 0.05: from two implementations that are independent of this one.
GOLDEN = [
    (100, 100, 75, 0.0, 0.7022),
    (100, 100, 100, 1e-5, 3.4902),
    (1000, 100, 95, 1e-5, 2.1652),
    (1000, 1000, 600, 1e-5, 0.2972),
    (5000, 500, 450, 1e-5, 1.9414),
    (5000, 5000, 2500, 0.0, 0.0),
    (5000, 5000, 2500, 1e-5, 0.0),
    (5000, 5000, 2500, 1e-3, 0.0),
]


@pytest.mark.golden
@pytest.mark.parametrize(("m", "r", "v", "delta", "bound"), GOLDEN)
def test_published_values(m: int, r: int, v: int, delta: float, bound: float) -> None:
    assert one_run_epsilon_lower_bound(m, r, v, delta, 0.05) == pytest.approx(bound, abs=1e-4)


def reference_p_value(m: int, r: int, v: int, delta: float, epsilon: float) -> float:
    """The formula once more, in rational arithmetic and without a shared line of code."""
    q = Fraction(math.exp(epsilon) / (1 + math.exp(epsilon)))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    tail = sum(mass[v:], Fraction(0))
    worst = Fraction(0)
    for i in range(1, v + 1):
        worst = max(worst, sum(mass[v - i : v], Fraction(0)) / i)
    return float(min(Fraction(1), tail + 2 * m * Fraction(delta) * worst))


@pytest.mark.parametrize("r", [1, 2, 7, 40])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 4.0])
def test_two_implementations_agree(r: int, delta: float, epsilon: float) -> None:
    for v in range(r + 1):
        expected = reference_p_value(3 * r, r, v, delta, epsilon)
        assert one_run_p_value(3 * r, r, v, delta, epsilon) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("m", "r", "v", "delta"), [(60, 40, 36, 1e-5), (40, 40, 30, 0.0)])
def test_the_bound_is_where_the_second_implementation_crosses(
    m: int, r: int, v: int, delta: float
) -> None:
    low, high = 0.0, 10.0
    while high - low > 1e-8:
        middle = (low + high) / 2
        if reference_p_value(m, r, v, delta, middle) < 0.05:
            low = middle
        else:
            high = middle
    assert one_run_epsilon_lower_bound(m, r, v, delta) == pytest.approx(low, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.data(), st.sampled_from([0.0, 1e-7, 1e-5]), st.floats(0.001, 0.5))
def test_monotone_and_valid_where_it_stands(
    m: int, data: st.DataObject, delta: float, beta: float
) -> None:
    r = data.draw(st.integers(1, m))
    v = data.draw(st.integers(0, r))
    bound = one_run_epsilon_lower_bound(m, r, v, delta, beta)
    assert bound >= 0
    if bound:  # everything below the bound is refuted
        for part in (0.0, 0.25, 0.5, 0.75, 1.0):
            assert one_run_p_value(m, r, v, delta, part * bound) < beta
    assert one_run_p_value(m, r, v, delta, bound + 1e-6) >= beta or bound == 100
    if v < r:
        assert one_run_epsilon_lower_bound(m, r, v + 1, delta, beta) >= bound
    assert one_run_epsilon_lower_bound(m + 10, r, v, delta, beta) <= bound + 1e-8
    assert one_run_epsilon_lower_bound(m, r, v, delta, beta / 2) <= bound + 1e-8


def test_all_canaries_count_not_only_those_guessed() -> None:
    assert one_run_epsilon_lower_bound(100, 100, 95, 1e-3) > 1.0
    assert one_run_epsilon_lower_bound(10_000, 100, 95, 1e-3) == 0.0


@pytest.mark.statistical
def test_type_one_error_on_randomised_response() -> None:
    """Null: exactly 1-DP randomised response, m = r = 500, beta = 0.05. 20,000 audits.

    The true rejection rate is at most 0.05; exactly, P[X >= v*] for the smallest rejecting v*.
    alpha = 1e-6 by a normal bound of 4.9 standard errors; a test at level 0.06 instead of 0.05
    (rate above 0.057) would be seen with power above 0.999.
    """
    rng = np.random.default_rng(20)
    m, runs, true = 500, 20_000, 1.0
    v = rng.binomial(m, 1 / (1 + math.exp(-true)), size=runs)
    p = np.array([one_run_p_value(m, m, k, 0.0, true) for k in range(m + 1)])[v]
    rate = float((p < 0.05).mean())
    assert rate <= 0.05 + 4.9 * math.sqrt(0.05 * 0.95 / runs)
    # Not vacuous: the exact rate of this discrete test is 0.042.
    assert rate == pytest.approx(0.042, abs=4.9 * math.sqrt(0.042 * 0.958 / runs) + 5e-4)


@pytest.mark.statistical
def test_type_one_error_with_guesses_chosen_by_score() -> None:
    """Null: 1-DP Laplace scores, 40 + 40 of 400 guessed. 4,000 audits; alpha = 1e-6."""
    rng = np.random.default_rng(21)
    runs, m, k, true = 4_000, 400, 40, 1.0
    included = rng.random((runs, m)) < 0.5
    scores = included + rng.laplace(0, 1 / true, size=(runs, m))
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(included, order, axis=1)
    v = ranked[:, :k].sum(axis=1) + (~ranked[:, m - k :]).sum(axis=1)
    p = np.array([one_run_p_value(m, 2 * k, x, 0.0, true) for x in range(2 * k + 1)])[v]
    assert (p < 0.05).mean() <= 0.05 + 4.9 * math.sqrt(0.05 * 0.95 / runs)
    assert (p < 0.05).mean() > 0.005  # this attack is nearly optimal: the test has teeth


# -- from scores ------------------------------------------------------------------------------
def certificate(epsilon: float, **fields: object) -> PrivacyGuarantee:
    return PrivacyGuarantee(epsilon, 1e-5, **fields)  # type: ignore[arg-type]


def perfect(m: int = 200) -> tuple[np.ndarray, np.ndarray]:
    included = np.arange(m) % 2 == 0
    return included + np.linspace(0, 0.1, m), included


def test_counts_and_verdicts() -> None:
    scores, included = perfect()
    honest = one_run_audit(scores, included, k_plus=50, k_minus=50, certified=certificate(8.0))
    assert honest.counts == {"canaries": 200, "guesses": 100, "correct": 100, "included": 100}
    assert honest.verdict == "no violation found"
    assert honest.raise_for_violation() is honest
    assert honest.lower_epsilon == one_run_epsilon_lower_bound(200, 100, 100, 1e-5)
    broken = one_run_audit(scores, included, k_plus=50, k_minus=50, certified=certificate(1.0))
    assert broken.violated
    assert broken.verdict == "VIOLATION"
    assert broken.p_value is not None
    assert broken.p_value < 0.05
    with pytest.raises(PrivacyContradictionError, match="do not release") as caught:
        broken.raise_for_violation()
    assert caught.value.exit_code == 5


def test_the_verdict_and_the_p_value_agree() -> None:
    scores, included = perfect()
    for epsilon in (0.5, 3.0, 3.3, 3.4, 3.5, 3.6, 5.0):
        r = one_run_audit(scores, included, k_plus=50, k_minus=50, certified=certificate(epsilon))
        assert r.p_value is not None
        assert r.violated == (r.p_value < 0.05)


def test_highest_are_guessed_in_and_lowest_out() -> None:
    included = np.array([True, False, False, False, True])
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    kinds = {(1, 0): 1, (2, 0): 1, (0, 1): 0, (0, 2): 1, (1, 2): 2, (2, 3): 3, (3, 2): 2}
    for (plus, minus), correct in kinds.items():
        r = one_run_audit(scores, included, k_plus=plus, k_minus=minus, delta=0.0)
        assert r.counts["correct"] == correct, (plus, minus)


def test_ties_do_not_know_the_answer() -> None:
    """All scores equal: guesses follow the position, whichever way inclusion fell."""
    for included in ([True, True, False, False], [False, False, True, True]):
        r = one_run_audit(np.zeros(4), np.array(included), k_plus=2, k_minus=2, delta=0.0)
        assert r.counts["correct"] == (4 if included[0] else 0)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"scores": [1.0, math.nan, 0.0, 0.0]}, DataError, "NaN"),
        ({"scores": [[1.0, 2.0, 3.0, 4.0]]}, DataError, "one dimension"),
        ({"scores": ["a", "b", "c", "d"]}, InvalidTypeError, "real numbers"),
        ({"included": [1, 0, 1, 0]}, InvalidTypeError, "boolean"),
        ({"included": [-1, 1, -1, 1]}, InvalidTypeError, "boolean"),
        ({"included": [True, False]}, LengthMismatchError, "one entry per score"),
        ({"k_plus": 0, "k_minus": 0}, InvalidParameterError, "at least 1"),
        ({"k_plus": 3, "k_minus": 2}, InvalidParameterError, "guessed twice"),
        ({"k_plus": -1}, InvalidParameterError, "k_plus"),
        ({"k_plus": True}, InvalidTypeError, "k_plus"),
        ({"delta": None}, InvalidParameterError, "no certificate"),
        ({"delta": 1.0}, InvalidBudgetError, "delta"),
        ({"beta": 0.0}, InvalidParameterError, "beta"),
        ({"certified": 1.0}, InvalidTypeError, "PrivacyGuarantee"),
        (
            {"certified": certificate(1.0, neighboring="replace_one")},
            IncompatibleNeighboringError,
            "replacing",
        ),
        (
            {"certified": certificate(1.0), "neighboring": "add_remove"},
            IncompatibleNeighboringError,
            "add_remove",
        ),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], text: str) -> None:
    good: dict[str, object] = {
        "scores": [4.0, 3.0, 2.0, 1.0], "included": [True, True, False, False],
        "k_plus": 1, "k_minus": 1, "delta": 1e-5,
    }  # fmt: skip
    call = {**good, **change}
    with pytest.raises(error, match=text):
        one_run_audit(call.pop("scores"), call.pop("included"), **call)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counts", "text"),
    [((0, 0, 0), "m must"), ((5, 0, 0), "r must"), ((5, 6, 1), "r must"), ((5, 3, 4), "v must")],
)
def test_bad_counts(counts: tuple[int, int, int], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        one_run_epsilon_lower_bound(*counts, 0.0)


def test_infinite_scores_are_ranked() -> None:
    r = one_run_audit([np.inf, -np.inf], np.array([True, False]), k_plus=1, k_minus=1, delta=0.0)
    assert r.counts["correct"] == 2


def test_a_guarantee_that_is_none_claims_nothing() -> None:
    scores, included = perfect()
    none = PrivacyGuarantee.none("non_private")
    r = one_run_audit(scores, included, k_plus=50, k_minus=50, certified=none, delta=1e-5)
    assert r.verdict == "nothing certified"
    assert r.upper_epsilon == math.inf
    assert r.p_value is None


def test_delta_elsewhere_is_read_from_the_certified_curve() -> None:
    from privfair.accounting import guarantee
    from privfair.accounting.events import Gaussian

    claim = guarantee(Gaussian(1.0), delta=1e-5)
    r = one_run_audit(*perfect(), k_plus=50, k_minus=50, certified=claim, delta=1e-3)
    assert r.upper_epsilon == pytest.approx(claim.profile.epsilon(1e-3))  # type: ignore[union-attr]
    assert r.upper_epsilon < claim.epsilon


def test_the_result_says_what_it_could_have_found() -> None:
    scores, included = perfect()
    r = one_run_audit(scores, included, k_plus=5, k_minus=5, certified=certificate(4.0))
    assert "could not have been found at all" in r.power
    assert "no proof" in r.power
    r = one_run_audit(-scores, included, k_plus=50, k_minus=50, certified=certificate(1.0))
    assert "correct guesses would have been a violation; there were 0" in r.power


def test_plain_data_and_table() -> None:
    import json

    r = one_run_audit(*perfect(), k_plus=50, k_minus=50, certified=certificate(1.0), target="<b>")
    data = json.loads(json.dumps(r.to_dict(), allow_nan=False))
    assert data["verdict"] == "VIOLATION"
    assert data["estimates"][0]["high"] == "inf"
    assert "VIOLATION" in str(r)
    assert "VIOLATION" in r._repr_html_()
    assert r.to_frame().loc["audited_epsilon", "value"] == r.lower_epsilon
    assert [e.name for e in r.to_estimates()] == ["audited_epsilon", "guesses_correct"]
    assert r.plot() is not None


# -- metrics ----------------------------------------------------------------------------------
def test_metrics_of_attacks_keep_the_contract() -> None:
    import copy
    import pickle

    from privfair.core.registry import load

    for metric in (attack_auc, audited_epsilon):
        assert pickle.loads(pickle.dumps(metric)) is metric
        assert copy.deepcopy(metric) is metric
        assert load("metrics", metric.name) is metric
    scores, included = perfect()
    assert audited_epsilon(included, scores, delta=1e-5, k_plus=50, k_minus=50) == (
        one_run_audit(scores, included, k_plus=50, k_minus=50, delta=1e-5).lower_epsilon
    )
    estimate = audited_epsilon.estimate(included, scores, confidence=0.9)
    assert estimate.confidence == 0.9
    assert estimate.high == math.inf
    with pytest.raises(InvalidParameterError, match="option"):
        attack_auc(included, scores, delta=1e-5)
    with pytest.raises(InvalidParameterError, match="privacy"):
        attack_auc.estimate(included, scores, privacy=object())  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="sample_weight"):
        attack_auc(included, scores, sample_weight=np.ones(200))


def test_auc_in_a_metric_frame_and_against_scikit_learn() -> None:
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    member = rng.random(300) < 0.5
    scores = np.round(rng.normal(size=300) + member, 1)  # with ties
    assert attack_auc(member, scores) == pytest.approx(roc_auc_score(member, scores), abs=1e-12)
    group = np.where(np.arange(300) < 100, "a", "b")
    frame = MetricFrame(metrics=attack_auc, y_true=member, y_pred=scores, sensitive_features=group)
    own = attack_auc.estimate(member, scores, sensitive_features=group).by_group
    assert own is not None
    assert frame.by_group.to_dict() == pytest.approx(own["value"].to_dict())
