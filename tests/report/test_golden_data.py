"""Published and recomputed values of Adult and COMPAS, read from the report's own JSON.

Provenance: counts and rates by hand from ProPublica's and UCI's files (checksums in the registry
of ``privfair.datasets``), group metrics by fairlearn 0.15.0, the baseline by scikit-learn 1.9.1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from privfair.cli._audit_models import adult_baseline
from privfair.datasets import fetch_adult, fetch_compas
from privfair.report import AuditConfig, Predictions, audit, dataset_info, to_json

pytestmark = pytest.mark.golden
CONFIG = {"n_resamples": 200}


def load(result: Any) -> dict[str, Any]:
    return dict(json.loads(to_json(result)))


def cells(data: dict[str, Any], attribute: str) -> dict[str, dict[str, Any]]:
    groups = next(s for s in data["sections"] if s["id"] == "groups")
    table = next(t for t in groups["tables"] if t["id"] == f"rates-{attribute}-brief")
    keys = [c["key"] for c in table["columns"]]
    return {row[0]: dict(zip(keys, row, strict=True)) for row in table["rows"]}


def compas(version: str, races: tuple[str, ...] = ()) -> dict[str, Any]:
    data = fetch_compas(version=version)
    keep = data.sensitive["race"].isin(races) if races else slice(None)
    frame = data.data[keep]
    decisions = Predictions(
        (frame["decile_score"] > 4).astype(int).to_numpy(), frame["decile_score"].to_numpy(),
        probability=False,
    )  # fmt: skip
    return load(
        audit(
            decisions, None, data.target[keep], sensitive_features=data.sensitive[["race"]][keep],
            config=AuditConfig(dataset=dataset_info(data), **CONFIG),
        )
    )  # fmt: skip


def estimate(data: dict[str, Any], name: str) -> float:
    return float(data["findings"][name]["value"]["estimate"])


# n, FPR %, FNR %, PPV %, NPV %, base %, selected %
PROPUBLICA = {
    "All rows": (7214, 32.35, 37.40, 61.35, 68.80, 45.07, 45.98),
    "African-American": (3696, 44.85, 27.99, 62.97, 65.05, 51.43, 58.82),
    "Caucasian": (2454, 23.45, 47.72, 59.13, 71.19, 39.36, 34.80),
    "Hispanic": (637, 21.48, 55.60, 54.21, 71.14, 36.42, 29.83),
    "Other": (377, 14.75, 67.67, 54.43, 69.80, 35.28, 20.95),
    "Asian": (32, 8.70, 33.33, 75.00, 87.50, 28.12, 25.00),
    "Native American": (18, 37.50, 10.00, 75.00, 83.33, 55.56, 66.67),
}
FILTERED = {
    "All rows": (6172, 30.27, 38.31, 63.00, 68.55, 45.51, 44.57),
    "African-American": (3175, 42.34, 28.48, 64.95, 64.86, 52.31, 57.61),
    "Caucasian": (2103, 22.01, 49.64, 59.48, 71.00, 39.09, 33.10),
}


@pytest.mark.parametrize(
    ("version", "table"), [("propublica", PROPUBLICA), ("filtered", FILTERED)]
)
def test_compas_rates_real(
    real_data_dir: Path, version: str, table: dict[str, tuple[float, ...]]
) -> None:
    found = cells(compas(version), "race")
    names = (
        "false_positive_rate", "false_negative_rate", "positive_predictive_value",
        "negative_predictive_value", "base_rate", "selection_rate",
    )  # fmt: skip
    for group, (n, *percentages) in table.items():
        assert found[group]["n"] == n
        for name, percentage in zip(names, percentages, strict=True):
            shown = 100 * found[group][name]["estimate"]
            assert shown == pytest.approx(percentage, abs=0.00501), (group, name)


@pytest.mark.parametrize(
    ("version", "rows", "values"),
    [
        ("propublica", 6150, (0.240200, 0.591638, 0.213925, 0.205649, 0.522987, 0.197373)),
        ("filtered", 5278, (0.245107, 0.574513, 0.211582, 0.207412, 0.519957, 0.211582)),
    ],
)
def test_compas_two_groups_real(
    real_data_dir: Path, version: str, rows: int, values: tuple[float, ...]
) -> None:
    data = compas(version, ("African-American", "Caucasian"))
    assert data["counts"]["n_rows"] == rows
    names = ("dpd", "dpr", "eod", "eod_mean", "eor", "eopd")
    for name, value in zip(names, values, strict=True):
        assert estimate(data, f"fairness.{name}.race") == pytest.approx(value, abs=1e-6), name


def test_compas_all_groups_real(real_data_dir: Path) -> None:
    data = compas("propublica")
    assert estimate(data, "fairness.dpd.race") == pytest.approx(0.457118, abs=1e-6)
    assert estimate(data, "fairness.eod.race") == pytest.approx(0.576692, abs=1e-6)
    assert estimate(data, "performance.auc") == pytest.approx(0.70217, abs=1e-5)
    # driven by groups of 18 and 32 people: the null reference says how little it means
    null = data["findings"]["fairness.dpd.race"]["null"]
    assert null["expected"] == pytest.approx(0.152, abs=0.02)
    assert null["q95"] == pytest.approx(0.299, abs=0.03)
    fpr = cells(data, "race")["African-American"]["false_positive_rate"]
    assert (fpr["low"], fpr["high"]) == pytest.approx((0.425595, 0.471561), abs=1e-6)


def test_compas_corrected_real(real_data_dir: Path) -> None:
    data = compas("corrected")
    assert (data["counts"]["n_rows"], data["counts"]["n_positive"]) == (6216, 2253)
    found = cells(data, "race")
    for group, fpr, ppv, base in (
        ("African-American", 44.85, 54.62, 42.82), ("Caucasian", 23.45, 48.60, 30.21),
    ):  # fmt: skip
        assert 100 * found[group]["false_positive_rate"]["estimate"] == pytest.approx(
            fpr, abs=0.005
        )
        assert 100 * found[group]["positive_predictive_value"]["estimate"] == pytest.approx(
            ppv, abs=0.005
        )
        assert 100 * found[group]["base_rate"]["estimate"] == pytest.approx(base, abs=0.005)
    names = {c for s in data["sections"] if s["id"] == "data" for c in s["caveats"]}
    assert any("1906.04711" in caveat for caveat in names)


def test_adult_baseline_real(real_data_dir: Path) -> None:
    train, test = fetch_adult(split="train"), fetch_adult(split="test")
    model = adult_baseline(train.data, train.target)
    info = dataset_info(test, rows="held_out", split="official test split")
    data = load(
        audit(
            {"LogisticRegression": model}, test.data, test.target,
            sensitive_features=test.sensitive, config=AuditConfig(dataset=info, **CONFIG),
        )
    )  # fmt: skip
    assert (data["counts"]["n_rows"], data["counts"]["n_positive"]) == (16281, 3846)
    expected = {
        "performance.accuracy": 0.85191, "performance.auc": 0.90513, "fairness.dpd.sex": 0.17639,
        "fairness.dpr.sex": 0.30010, "fairness.eod.sex": 0.08900, "fairness.dpd.race": 0.19135,
    }  # fmt: skip
    for name, value in expected.items():
        assert estimate(data, name) == pytest.approx(value, abs=1e-5), name
    found = cells(data, "sex")
    for group, selection, tpr, fpr in (
        ("Female", 0.07563, 0.52034, 0.02132), ("Male", 0.25203, 0.60934, 0.09903),
    ):  # fmt: skip
        assert found[group]["selection_rate"]["estimate"] == pytest.approx(selection, abs=1e-5)
        assert found[group]["true_positive_rate"]["estimate"] == pytest.approx(tpr, abs=1e-5)
        assert found[group]["false_positive_rate"]["estimate"] == pytest.approx(fpr, abs=1e-5)
    missing = next(s for s in data["sections"] if s["id"] == "data")
    assert "2,203 values are missing, in 1,221 rows" in json.dumps(missing)
    assert any("50K" in c for c in missing["caveats"])
    assert data["dataset"]["verified"] is True and not data["dataset"]["embedded"]


def test_no_report_names_a_person_real(real_data_dir: Path) -> None:
    """Names and case numbers of the people in COMPAS never reach a report."""
    import pandas as pd

    raw = pd.read_csv(real_data_dir / "compas" / "compas-scores-two-years.csv", dtype=str)
    data = fetch_compas(version="propublica")
    frame = data.data
    text = to_json(
        audit(
            (frame["decile_score"] > 4).astype(int), frame, data.target,
            sensitive_features=data.sensitive[["race", "sex"]],
            config=AuditConfig(dataset=dataset_info(data), **CONFIG),
        )
    ).lower()  # fmt: skip
    for name in raw["name"].dropna().head(500):
        assert name.lower() not in text
    for number in raw["c_case_number"].dropna().head(500):
        assert number.lower() not in text
