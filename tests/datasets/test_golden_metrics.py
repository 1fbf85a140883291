"""Canonical metrics of the real files, against fairlearn and statsmodels.

Provenance: the byte-pinned public files, fairlearn 0.15.0, statsmodels 0.15.0, scikit-learn
1.9.1. All tests here use the real data.
"""

from __future__ import annotations

from typing import Any

import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
    equalized_odds_ratio,
)
from sklearn.metrics import roc_auc_score

from privfair.core.statistics import (
    clopper_pearson_interval,
    newcombe_interval,
    wilson_interval,
)
from privfair.datasets import fetch_adult, fetch_compas
from privfair.fairness import gap_interval
from privfair.fairness.metrics import demographic_parity_difference as demographic_parity_gap

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("real_data_dir")]

CATEGORICAL = [
    "workclass", "education", "marital-status", "occupation", "relationship", "race", "sex",
    "native-country",
]  # fmt: skip
NUMERIC = ["age", "education-num", "capital-gain", "capital-loss", "hours-per-week"]


@pytest.mark.parametrize(
    ("version", "rows", "expected"),
    [
        ("propublica", 6_150, (0.240200, 0.591638, 0.213925, 0.205649, 0.522987, 0.197373)),
        ("filtered", 5_278, (0.245107, 0.574513, 0.211582, 0.207412, 0.519957, 0.211582)),
    ],
)
def test_compas_two_groups(version: str, rows: int, expected: tuple[float, ...]) -> None:
    compas = fetch_compas(version=version)
    race = compas.sensitive["race"]
    two = race.isin(["African-American", "Caucasian"])
    assert two.sum() == rows
    y, d, s = compas.target[two], compas.decision[two], race[two]
    found = (
        demographic_parity_difference(y, d, sensitive_features=s),
        demographic_parity_ratio(y, d, sensitive_features=s),
        equalized_odds_difference(y, d, sensitive_features=s),
        equalized_odds_difference(y, d, sensitive_features=s, agg="mean"),
        equalized_odds_ratio(y, d, sensitive_features=s),
        equal_opportunity_difference(y, d, sensitive_features=s),
    )
    assert found == pytest.approx(expected, abs=5.1e-7)


def test_compas_all_six_groups() -> None:
    compas = fetch_compas()
    s = compas.sensitive["race"]
    assert s.nunique() == 6
    dpd = demographic_parity_difference(compas.target, compas.decision, sensitive_features=s)
    eod = equalized_odds_difference(compas.target, compas.decision, sensitive_features=s)
    assert (dpd, eod) == pytest.approx((0.457118, 0.576692), abs=5.1e-7)
    assert sorted(s.value_counts())[:2] == [18, 32], "the groups that drive it"


@pytest.mark.parametrize(("version", "auc"), [("propublica", 0.70217), ("filtered", 0.70979)])
def test_compas_auc(version: str, auc: float) -> None:
    compas = fetch_compas(version=version)
    assert roc_auc_score(compas.target, compas.score) == pytest.approx(auc, abs=5.1e-6)


def test_compas_intervals() -> None:
    """privfair's limits against values computed with statsmodels 0.15.0."""
    cells = {}
    compas = fetch_compas()
    for race in ("African-American", "Caucasian"):
        m = (compas.sensitive["race"] == race) & (compas.target == 0)
        cells[race] = (int(compas.decision[m].sum()), int(m.sum()))
    assert cells == {"African-American": (805, 1_795), "Caucasian": (349, 1_488)}
    expected = [
        ("African-American", wilson_interval, (0.425595, 0.471561)),
        ("Caucasian", wilson_interval, (0.213715, 0.256738)),
        ("African-American", clopper_pearson_interval, (0.425282, 0.471822)),
        ("Caucasian", clopper_pearson_interval, (0.213219, 0.256920)),
    ]
    for race, interval, limits in expected:
        found = interval(*cells[race])
        assert (found.low, found.high) == pytest.approx(limits, abs=5.1e-7), interval.__name__
    a, c = cells["African-American"], cells["Caucasian"]
    assert a[0] / a[1] - c[0] / c[1] == pytest.approx(0.213925, abs=5.1e-7)
    newcombe = newcombe_interval(*a, *c)
    gap = gap_interval([a[0], c[0]], [a[1], c[1]])
    for found in (newcombe, gap):
        assert (found.low, found.high) == pytest.approx((0.182053, 0.245023), abs=5.1e-7)


def test_compas_percentile_bootstrap() -> None:
    """The FPR gap of two races, by resampling: about [0.183, 0.245], +- 0.002.

    Among people who did not reoffend, the rate of high-risk decisions is the false positive rate.
    """
    compas = fetch_compas()
    race = compas.sensitive["race"]
    keep = race.isin(["African-American", "Caucasian"]) & (compas.target == 0)
    found = demographic_parity_gap.estimate(
        compas.target[keep],
        compas.decision[keep],
        sensitive_features=race[keep],
        n_resamples=20_000,
        random_state=0,
    )
    assert found.value == pytest.approx(0.213925, abs=5.1e-7)
    assert (found.low, found.high) == pytest.approx((0.182053, 0.245023), abs=5.1e-7)
    percentile = found.details["bootstrap_percentile"]
    assert percentile == pytest.approx([0.183, 0.245], abs=0.002)


def _baseline(drop: tuple[str, ...] = ()) -> tuple[Any, Any, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, test = fetch_adult(split="train"), fetch_adult(split="test")
    categorical = [c for c in CATEGORICAL if c not in drop]
    model = make_pipeline(
        ColumnTransformer(
            [
                ("categorical", OneHotEncoder(handle_unknown="ignore"), categorical),
                ("numeric", StandardScaler(), NUMERIC),
            ]
        ),
        LogisticRegression(C=1.0, tol=1e-8, max_iter=5_000),
    )
    names = [*categorical, *NUMERIC]
    score = model.fit(train.data[names], train.target).predict_proba(test.data[names])[:, 1]
    return test, score, (score > 0.5).astype(int)


def test_adult_logistic_regression() -> None:
    """All eight categorical columns one-hot with "missing", education-num kept, fnlwgt dropped."""
    test, score, decision = _baseline()
    y, sex = test.target, test.sensitive["sex"]
    assert sorted([*CATEGORICAL, *NUMERIC]) == sorted(test.feature_names)
    assert (decision == y).mean() == pytest.approx(0.85191, abs=5.1e-6)
    assert roc_auc_score(y, score) == pytest.approx(0.90513, abs=5.1e-6)
    expected = {"Female": (0.07563, 0.52034, 0.02132), "Male": (0.25203, 0.60934, 0.09903)}
    for group, rates in expected.items():
        m = sex == group
        found = (
            decision[m].mean(), decision[m & (y == 1)].mean(), decision[m & (y == 0)].mean(),
        )  # fmt: skip
        assert found == pytest.approx(rates, abs=5.1e-6)
    dpd = demographic_parity_difference(y, decision, sensitive_features=sex)
    ratio = demographic_parity_ratio(y, decision, sensitive_features=sex)
    eod = equalized_odds_difference(y, decision, sensitive_features=sex)
    assert (dpd, ratio, eod) == pytest.approx((0.17639, 0.30010, 0.08900), abs=5.1e-6)
    by_race = demographic_parity_difference(y, decision, sensitive_features=test.sensitive["race"])
    assert by_race == pytest.approx(0.19135, abs=5.1e-6)


def test_adult_logistic_regression_without_sex_and_race() -> None:
    test, _, decision = _baseline(drop=("sex", "race"))
    y, sex = test.target, test.sensitive["sex"]
    found = (
        (decision == y).mean(),
        demographic_parity_difference(y, decision, sensitive_features=sex),
        equalized_odds_difference(y, decision, sensitive_features=sex),
    )
    assert found == pytest.approx((0.85197, 0.16736, 0.07150), abs=5.1e-6)
