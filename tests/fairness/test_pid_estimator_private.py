"""The decomposition from one released table, and its five metrics."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import sklearn
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import cross_val_score

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    PrivacyError,
    SchemaError,
    SensitiveFeatureError,
    WeakGuaranteeError,
)
from privfair.fairness import (
    PIDDisparity,
    estimate_all,
    join_clients,
    pid,
    release_contingency,
)
from privfair.fairness.metrics import demographic_parity_difference
from privfair.fairness.pid._analysis import Settings, analyse
from privfair.fairness.pid._metrics import pid_estimates
from privfair.fairness.pid._private import analyse_release, table_of_release
from privfair.fairness.pid._uncertainty import PARTS, part_values
from privfair.testing import check_metric

METRICS = (
    pid.unique_disparity,
    pid.redundant_disparity,
    pid.masked_disparity,
    pid.global_disparity,
    pid.local_disparity,
)
PUBLIC = {"groups": [0, 1], "clients": [0, 1, 2]}


def simulated(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    s = rng.integers(0, 3, n)
    z = (rng.random(n) < np.array([0.3, 0.5, 0.6])[s]).astype(int)
    y = (rng.random(n) < 0.2 + 0.2 * z + 0.1 * s).astype(int)
    return y, z, s


def private(y, z, s, *, y_true=None, sample_weight=None, **options):
    made = {"n_resamples": 50, "random_state": 0, "privacy": Budget(1.0), "ledger": Ledger()}
    model = PIDDisparity(**{**made, **PUBLIC, **options})
    return model.fit(y, sensitive_features=z, client=s, y_true=y_true, sample_weight=sample_weight)


# --- charges --------------------------------------------------------------------------------


def test_one_charge_for_everything():
    ledger = Ledger(cap=Budget(1.0))
    y, z, s = simulated()
    found = private(y, z, s, privacy=Budget(0.75), ledger=ledger)
    found.report()
    found.to_estimates()
    assert [entry.epsilon for entry in ledger.entries()] == pytest.approx([0.75])
    assert found.privacy_.epsilon == pytest.approx(0.75)
    assert found.privacy_.certified
    assert all(e.privacy is found.privacy_ for e in found.to_estimates())
    with pytest.raises(BudgetExceededError):
        private(y, z, s, privacy=Budget(0.75), ledger=ledger)
    assert len(ledger.entries()) == 1


def test_the_relation_is_the_ledgers():
    y, z, s = simulated()
    scale = {}
    for relation in ("zero_out", "add_remove", "replace_one"):
        found = private(y, z, s, ledger=Ledger(neighboring=relation))
        assert found.privacy_.neighboring == relation
        scale[relation] = found._analysis.release.noise.scale
    assert scale["replace_one"] == 2 * scale["zero_out"] == 2 * scale["add_remove"]
    assert found.n_ == len(y)
    open_n = private(y, z, s, ledger=Ledger(neighboring="add_remove"), noise_random_state=3)
    assert open_n.n_ == open_n.counts_.sum() != len(y)
    assert open_n.privacy_.seeded
    assert not open_n.privacy_.certified


def test_every_declared_cell_is_released_also_an_empty_one():
    y, z, s = simulated()
    found = private(y, z, s, clients=[0, 1, 2, "never"], noise_random_state=7)
    assert found.counts_.shape == (2, 2, 4)
    assert (found.counts_[..., 3] != 0).any()
    assert found.classes_["s"] == (0, 1, 2, "never")
    assert "n" not in found.client_table_.columns
    again = private(y, z, s, clients=[0, 1, 2, "never"], noise_random_state=7, random_state=4)
    assert (again.counts_ == found.counts_).all(), "random_state must not reach the noise"
    assert not (private(y, z, s).counts_ == private(y, z, s).counts_).all()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"groups": None}, InvalidParameterError, "groups=.* must be given"),
        ({"clients": None}, InvalidParameterError, "clients=.* must be given"),
        ({"groups": [0]}, InvalidParameterError, "two groups"),
        ({"bins": 10}, InvalidParameterError, "pass the edges"),
        ({"merge_clients_below": 5}, InvalidParameterError, "exact client sizes"),
        ({"clients": [0, 1]}, SchemaError, "outside the declared"),
        ({"privacy": 1.0}, InvalidTypeError, "Budget"),
        ({"privacy": Budget(float("inf"))}, InvalidBudgetError, "finite"),
        ({"privacy": Budget(50.0)}, WeakGuaranteeError, "at most 20"),
        ({"sample_weight": np.ones(4000)}, PrivacyError, "no public bound"),
        ({"condition": "y", "y_true": np.zeros(4000)}, InvalidParameterError, "labels="),
    ],
)
def test_what_would_not_be_private_is_refused_before_a_charge(change, error, says):
    ledger = Ledger()
    y, z, s = simulated()
    with pytest.raises(error, match=says):
        private(y, z, s, ledger=ledger, **change)
    assert not ledger.entries()


def test_text_decisions_must_be_declared():
    y, z, s = simulated()
    words = np.where(y == 1, "yes", "no")
    with pytest.raises(InvalidParameterError, match="decisions="):
        private(words, z, s)
    found = private(words, z, s, decisions=["no", "yes", "maybe"])
    assert found.classes_["yhat"] == ("no", "yes", "maybe")


def test_scores_at_declared_edges():
    y, z, s = simulated()
    score = np.clip(0.3 + 0.3 * y + 0.1 * z, 0, 1)
    found = private(score, z, s, bins=[0.35, 0.65])
    assert found.edges_ == (0.35, 0.65)
    assert found.counts_.shape == (2, 3, 3)


# --- noise ----------------------------------------------------------------------------------


def test_much_budget_gives_what_exact_counts_give():
    y, z, s = simulated(20000)
    exact = PIDDisparity(n_resamples=200, random_state=0).fit(y, sensitive_features=z, client=s)
    found = private(y, z, s, privacy=Budget(20.0), n_resamples=400)
    for name in PARTS:
        assert getattr(found, f"{name}_") == pytest.approx(getattr(exact, f"{name}_"), abs=1e-4)
        assert found.se_[name] == pytest.approx(exact.se_[name], rel=0.2)


def test_less_budget_gives_wider_intervals():
    y, z, s = simulated()
    width = [
        private(y, z, s, privacy=Budget(e), n_resamples=300, noise_random_state=1).se_[
            "local_disparity"
        ]
        for e in (10.0, 0.1, 0.01)
    ]
    assert width[0] < 0.8 * width[1] < 0.5 * width[2]


def test_intervals_cover_sampling_and_noise():
    joint = np.array(
        [[[0.04, 0.04, 0.12], [0.06, 0.02, 0.15]], [[0.04, 0.02, 0.04], [0.05, 0.22, 0.20]]]
    )
    truth = part_values(joint[None])
    rng = np.random.default_rng(5)
    hits, alone, draws = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0), 120
    for seed in range(draws):
        z, yhat, s = np.unravel_index(rng.choice(12, 4000, p=joint.reshape(-1)), joint.shape)
        release = release_contingency(
            {"z": z, "yhat": yhat, "s": s},
            {"z": [0, 1], "yhat": [0, 1], "s": [0, 1, 2]},
            privacy=Budget(0.1), ledger=Ledger(), noise_random_state=seed,
        )  # fmt: skip
        table = table_of_release(release)
        found = analyse_release(release, table, Settings(n_resamples=200, random_state=rng))
        blind = analyse(table, Settings(n_resamples=0))
        for name in PARTS:
            low, high = found.intervals[name]
            hits[name] += low <= truth[name] <= high
            low, high = blind.intervals[name]
            alone[name] += low <= truth[name] <= high
    # At a true 95 % fewer than 87 % of 120 have probability 3e-4; the noise is seeded.
    assert min(hits.values()) >= 0.87 * draws, hits
    assert min(alone.values()) < 0.85 * draws, "the noise alone would not have been covered"


def test_null_references_know_the_noise():
    rng = np.random.default_rng(6)
    z, y, s = rng.integers(0, 2, 400), rng.integers(0, 2, 400), rng.integers(0, 3, 400)
    found = private(y, z, s, privacy=Budget(0.1), n_resamples=300)
    exact = PIDDisparity(n_resamples=300, random_state=0).fit(y, sensitive_features=z, client=s)
    null = found.to_estimates()[4].null
    assert null.expected > 3 * exact.to_estimates()[4].null.expected
    assert found.p_value_local_ >= 1 / 301


# --- releases -------------------------------------------------------------------------------


def test_pseudo_counts_are_reported_and_refused_for_released_tables():
    y, z, s = simulated()
    fit = PIDDisparity(n_resamples=0, smoothing=2).fit(y, sensitive_features=z, client=s)
    data = fit.to_dict()
    assert data["smoothing"] == 2 and fit.corrected_ is None
    assert any(text.startswith("2 rows were added") for text in data["statements"])
    plain = PIDDisparity(n_resamples=0).fit(y, sensitive_features=z, client=s)
    assert plain.to_dict()["smoothing"] == 0 and plain.corrected_ is not None
    assert fit.local_disparity_ != plain.local_disparity_
    assert list(fit.local_by_client_) == list(plain.local_by_client_)
    assert pid.local_disparity(
        None, y, sensitive_features=z, client=s, smoothing=2
    ) == pytest.approx(fit.local_disparity_, abs=1e-12)
    ledger = Ledger()
    with pytest.raises(InvalidParameterError, match="smoothing=2 on a table released"):
        PIDDisparity(
            smoothing=2, privacy=Budget(1.0), ledger=ledger, groups=[0, 1], clients=[0, 1, 2]
        ).fit(y, sensitive_features=z, client=s)
    assert not ledger.entries(), "refused before anything is charged"
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(InvalidParameterError, match="smoothing"):
            PIDDisparity(smoothing=bad).fit(y, sensitive_features=z, client=s)


def test_clients_that_release_their_own_tables():
    y, z, s = simulated()
    releases = {
        k: release_contingency(
            {"z": z[s == k], "yhat": y[s == k]}, {"z": [0, 1], "yhat": [0, 1]},
            privacy=Budget(1.0), ledger=Ledger(),
        )
        for k in range(3)
    }  # fmt: skip
    joined = join_clients(releases, axis="s")
    found = PIDDisparity(n_resamples=60, random_state=0).fit_release(joined)
    assert found.privacy_.epsilon == pytest.approx(1.0)
    assert found.counts_.shape == (2, 2, 3)
    exact = PIDDisparity(n_resamples=0).fit(y, sensitive_features=z, client=s)
    assert found.global_disparity_ == pytest.approx(exact.global_disparity_, abs=0.003)
    with pytest.raises(InvalidParameterError, match="smoothing=0.5 on a table released"):
        PIDDisparity(smoothing=0.5).fit_release(joined)
    wrong = join_clients(releases, axis="site")
    with pytest.raises(InvalidParameterError, match="axes 'z', 'yhat' and 's'"):
        PIDDisparity().fit_release(wrong)


def test_strata_and_crossed_groups_from_one_release():
    y, z, s = simulated()
    rng = np.random.default_rng(1)
    label, other = rng.integers(0, 2, len(y)), rng.integers(0, 2, len(y))
    ledger = Ledger()
    found = private(
        y, {"sex": z, "age": other}, s, y_true=label, condition="y", labels=[0, 1],
        groups={"sex": [0, 1], "age": [0, 1]}, ledger=ledger, privacy=Budget(20.0),
    )  # fmt: skip
    assert len(ledger.entries()) == 1
    assert found.counts_.shape == (2, 4, 2, 3)
    exact = PIDDisparity(n_resamples=0, condition="y").fit(
        y, sensitive_features={"sex": z, "age": other}, client=s, y_true=label
    )
    for name in PARTS:
        got, want = getattr(found, f"{name}_"), getattr(exact, f"{name}_")
        assert got == pytest.approx(want, abs=2e-3)
        assert found.by_attribute_["sex"][name] == pytest.approx(
            exact.by_attribute_["sex"][name], abs=2e-3
        )
    assert set(found.by_attribute_) == {"sex", "age"}
    text = found.report()
    for words in (
        "released under differential privacy",
        "Noise looks like dependence",
        "do not add up",
        "which is not the decomposition of the pair",
    ):
        assert words in text, words  # fmt: skip
    json.dumps(found.to_dict(), allow_nan=False)


# --- metrics --------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_metric_like_any_other(metric):
    y, z, s = simulated(800)
    groups = np.array(["a", "b"], dtype=object)[z]
    check_metric(
        metric, data={"y_true": None, "y_pred": y, "sensitive_features": groups, "client": s}
        | {"y_true": y},
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(metric)) is metric
    model = PIDDisparity(n_resamples=50).fit(y, sensitive_features=z, client=s)
    part = metric.name.removesuffix("_disparity")
    part = metric.name if part in ("global", "local") else part
    assert metric(None, y, sensitive_features=z, client=s) == getattr(model, f"{part}_")


def test_metrics_in_scorers():
    y, z, s = simulated(600)
    x = np.stack([y, z], axis=1)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = sk.make_scorer(pid.local_disparity, greater_is_better=False)
        scorer = scorer.set_score_request(sensitive_features=True, client=True)
        found = cross_val_score(
            DummyClassifier(strategy="stratified", random_state=0), x, y, scoring=scorer, cv=3,
            params={"sensitive_features": z, "client": s},
        )  # fmt: skip
    assert (found < 0).all()


def test_metrics_from_one_release():
    y, z, s = simulated()
    ledger = Ledger()
    estimates = pid_estimates(
        METRICS, y_pred=y, sensitive_features=z, client=s, privacy=Budget(1.0), ledger=ledger,
        n_resamples=40, **PUBLIC,
    )  # fmt: skip
    assert [e.name for e in estimates] == [m.name for m in METRICS]
    assert len(ledger.entries()) == 1
    assert all(e.privacy.epsilon == 1.0 for e in estimates)
    one = pid.masked_disparity.estimate(
        None, y, sensitive_features=z, client=s, privacy=Budget(1.0), ledger=ledger,
        n_resamples=40, **PUBLIC,
    )  # fmt: skip
    assert one.name == "masked_disparity"
    assert len(ledger.entries()) == 2


def test_metrics_refuse_what_they_do_not_know():
    y, z, s = simulated(300)
    with pytest.raises(InvalidParameterError, match="'min_count' is not an option"):
        pid.unique_disparity(None, y, sensitive_features=z, client=s, min_count=3)
    with pytest.raises(InvalidParameterError, match="client is None"):
        pid.unique_disparity(None, y, sensitive_features=z)
    with pytest.raises(SensitiveFeatureError):
        pid.unique_disparity.estimate(None, y, client=s)
    with pytest.raises(LabelError, match="does not occur"):
        pid.unique_disparity(None, y, sensitive_features=z, client=s, pos_label="yes")
    words = np.array(["no", "yes", "maybe"])[np.where(s == 2, 2, y)]
    many = pid.global_disparity(None, words, sensitive_features=z, client=s)
    one = pid.global_disparity(None, words, sensitive_features=z, client=s, pos_label="yes")
    assert 0 < one < many


def test_metrics_beside_those_of_the_group_table():
    y, z, s = simulated(900)
    rate = demographic_parity_difference
    found = estimate_all(
        [pid.masked_disparity, rate, pid.unique_disparity], None, y, sensitive_features=z,
        client=s, n_resamples=60, random_state=0, allow_small=True,
    )  # fmt: skip
    assert [e.name for e in found] == ["masked_disparity", rate.name, "unique_disparity"]
    one = pid.masked_disparity.estimate(
        None, y, sensitive_features=z, client=s, n_resamples=60, random_state=0
    )
    assert (found[0].value, found[0].low, found[0].high) == (one.value, one.low, one.high)
    assert found[1].value == rate(None, y, sensitive_features=z)
    ledger = Ledger()
    noisy = estimate_all(
        METRICS, None, y, sensitive_features=z, client=s, n_resamples=40, privacy=Budget(1.0),
        ledger=ledger, **PUBLIC,
    )  # fmt: skip
    assert len(ledger.entries()) == 1
    assert [e.name for e in noisy] == [m.name for m in METRICS]
    with pytest.raises(PrivacyError, match="nothing was charged"):
        estimate_all(
            [rate, METRICS[0]], None, y, sensitive_features=z, client=s, privacy=Budget(1.0),
            ledger=ledger, **PUBLIC,
        )  # fmt: skip
    assert len(ledger.entries()) == 1
