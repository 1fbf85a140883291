"""Counts, rates and decision metrics of the real files.

Provenance: computed from the byte-pinned public files with pandas 3.1.1, fairlearn 0.15.0 and
statsmodels 0.15.0, independently of this package; the COMPAS error rates also agree with the
table that ProPublica published. Every test id says "real".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from privfair.core.frames import as_table
from privfair.datasets import (
    fetch_adult,
    fetch_bank,
    fetch_california_housing,
    fetch_compas,
    fetch_credit_default,
    fetch_german,
    fetch_motor,
    fetch_pums,
)

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("real_data_dir")]


# -- Adult --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("split", "missing", "rows", "positives"),
    [
        ("train", "category", 32_561, 7_841),
        ("test", "category", 16_281, 3_846),
        ("all", "category", 48_842, 11_687),
        ("train", "drop", 30_162, 7_508),
        ("test", "drop", 15_060, 3_700),
        ("all", "drop", 45_222, 11_208),
    ],
)
def test_real_adult_rows_and_positives(
    split: str, missing: str, rows: int, positives: int
) -> None:
    adult = fetch_adult(split=split, missing=missing)
    assert len(adult.data) == len(adult.target) == len(adult.sensitive) == rows
    assert len(adult.sample_weight) == len(adult.split) == rows
    assert adult.target.sum() == positives
    assert set(adult.target.unique()) == {0, 1}
    assert adult.verified
    assert not adult.embedded
    adult.schema.validate(as_table(adult.data))


def test_real_adult_rates() -> None:
    rates = {s: fetch_adult(split=s).target.mean() for s in ("train", "test", "all")}
    assert rates["train"] == pytest.approx(0.240810, abs=5e-7)
    assert rates["test"] == pytest.approx(0.236226, abs=5e-7)
    assert rates["all"] == pytest.approx(0.239282, abs=5e-7)
    complete = {s: fetch_adult(split=s, missing="drop").target.mean() for s in ("train", "test")}
    assert complete["train"] == pytest.approx(0.248922, abs=5e-7)
    assert complete["test"] == pytest.approx(0.245684, abs=5e-7)


@pytest.mark.parametrize(("split", "repeated"), [("train", 24), ("test", 5), ("all", 52)])
def test_real_adult_duplicate_rows(split: str, repeated: int) -> None:
    adult = fetch_adult(split=split)
    whole = adult.data.assign(w=adult.sample_weight, y=adult.target)
    assert whole.duplicated().sum() == repeated


@pytest.mark.parametrize(
    ("split", "counts", "incomplete"),
    [("train", (1_836, 1_843, 583), 2_399), ("test", (963, 966, 274), 1_221)],
)
def test_real_adult_missing(split: str, counts: tuple[int, ...], incomplete: int) -> None:
    data = fetch_adult(split=split).data
    columns = ["workclass", "occupation", "native-country"]
    assert tuple((data[c] == "missing").sum() for c in columns) == counts
    assert (data == "missing").any(axis=1).sum() == incomplete


def test_real_adult_groups() -> None:
    adult = fetch_adult()
    by_sex = adult.target.groupby(adult.sensitive["sex"]).agg(["sum", "size"])
    assert by_sex.loc["Female"].tolist() == [1_769, 16_192]
    assert by_sex.loc["Male"].tolist() == [9_918, 32_650]
    rate = by_sex["sum"] / by_sex["size"]
    assert rate["Female"] == pytest.approx(0.109251, abs=5e-7)
    assert rate["Male"] == pytest.approx(0.303767, abs=5e-7)
    assert rate["Male"] - rate["Female"] == pytest.approx(0.194516, abs=5e-7)
    assert rate["Female"] / rate["Male"] == pytest.approx(0.359655, abs=5e-7)
    by_race = adult.target.groupby(adult.sensitive["race"]).agg(["sum", "size"])
    assert {k: tuple(v) for k, v in zip(by_race.index, by_race.to_numpy(), strict=True)} == {
        "White": (10_607, 41_762),
        "Black": (566, 4_685),
        "Asian-Pac-Islander": (409, 1_519),
        "Amer-Indian-Eskimo": (55, 470),
        "Other": (50, 406),
    }


def test_real_adult_columns() -> None:
    adult = fetch_adult()
    data = adult.data
    assert (data["capital-gain"] == 99_999).sum() == 244
    assert (data["hours-per-week"] == 99).sum() == 137
    assert (data["age"] == 90).sum() == 55
    pairs = data[["education", "education-num"]].drop_duplicates()
    assert len(pairs) == 16 == pairs["education"].nunique() == pairs["education-num"].nunique()
    against = ((data["relationship"] == "Husband") & (data["sex"] == "Female")) | (
        (data["relationship"] == "Wife") & (data["sex"] == "Male")
    )
    assert against.sum() == 4
    assert "fnlwgt" not in adult.feature_names
    assert adult.sample_weight.iloc[0] == 77_516
    assert adult.split.value_counts().to_dict() == {"train": 32_561, "test": 16_281}
    # Python's education table and the file agree, row by row.
    from privfair.datasets._schemas import EDUCATION_LEVELS

    expected = np.array(EDUCATION_LEVELS, dtype=object)[data["education-num"].to_numpy() - 1]
    assert (data["education"].to_numpy(dtype=object) == expected).all()


def test_real_adult_threshold_is_the_76th_percentile() -> None:
    assert 1 - fetch_adult().target.mean() == pytest.approx(0.76, abs=0.005)


# -- COMPAS -------------------------------------------------------------------------------
TABLE = """
propublica|all|7214|2681|1282|1216|2035|32.35|37.40|61.35|68.80|45.07|45.98
propublica|African-American|3696|990|805|532|1369|44.85|27.99|62.97|65.05|51.43|58.82
propublica|Caucasian|2454|1139|349|461|505|23.45|47.72|59.13|71.19|39.36|34.80
propublica|Hispanic|637|318|87|129|103|21.48|55.60|54.21|71.14|36.42|29.83
propublica|Other|377|208|36|90|43|14.75|67.67|54.43|69.80|35.28|20.95
propublica|Asian|32|21|2|3|6|8.70|33.33|75.00|87.50|28.12|25.00
propublica|Native American|18|5|3|1|9|37.50|10.00|75.00|83.33|55.56|66.67
propublica|Female|1395|609|288|195|303|32.11|39.16|51.27|75.75|35.70|42.37
propublica|Male|5819|2072|994|1021|1732|32.42|37.09|63.54|66.99|47.31|46.85
filtered|all|6172|2345|1018|1076|1733|30.27|38.31|63.00|68.55|45.51|44.57
filtered|African-American|3175|873|641|473|1188|42.34|28.48|64.95|64.86|52.31|57.61
filtered|Caucasian|2103|999|282|408|414|22.01|49.64|59.48|71.00|39.09|33.10
"""
ROWS = [line.split("|") for line in TABLE.strip().splitlines()]


def _cells(y: pd.Series, d: pd.Series) -> tuple[int, int, int, int]:
    return tuple(int(((y == a) & (d == b)).sum()) for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)))  # type: ignore[return-value]


@pytest.mark.parametrize("row", ROWS, ids=[f"real-{r[0]}-{r[1]}" for r in ROWS])
def test_compas_table(row: list[str]) -> None:
    version, group, *numbers = row
    compas = fetch_compas(version=version)
    mask = np.ones(len(compas.data), dtype=bool)
    if group in {"Female", "Male"}:
        mask = (compas.sensitive["sex"] == group).to_numpy()
    elif group != "all":
        mask = (compas.sensitive["race"] == group).to_numpy()
    n, tn, fp, fn, tp = map(int, numbers[:5])
    assert mask.sum() == n
    assert _cells(compas.target[mask], compas.decision[mask]) == (tn, fp, fn, tp)
    shares = (
        fp / (fp + tn), fn / (fn + tp), tp / (tp + fp), tn / (tn + fn), (tp + fn) / n,
        (tp + fp) / n,
    )  # fmt: skip
    assert [100 * s for s in shares] == pytest.approx([float(x) for x in numbers[5:]], abs=0.00501)


def test_real_compas_filtered_rate_and_score_texts() -> None:
    compas = fetch_compas(version="filtered")
    assert len(compas.data) == 6_172
    assert compas.target.sum() == 2_809
    assert 100 * compas.target.mean() == pytest.approx(45.51199, abs=5e-6)
    assert compas.data["score_text"].value_counts().to_dict() == {
        "Low": 3_421,
        "Medium": 1_607,
        "High": 1_144,
    }


def test_real_compas_violent_file() -> None:
    compas = fetch_compas(version="filtered", outcome="violent")
    assert (len(compas.data), compas.target.sum()) == (4_020, 652)


def test_real_compas_violent_error_rates() -> None:
    """Of the CSV that exists; the published ones came from another file (all rows)."""
    compas = fetch_compas(outcome="violent")
    rates = {}
    for race in ("African-American", "Caucasian"):
        m = compas.sensitive["race"] == race
        tn, fp, fn, tp = _cells(compas.target[m], compas.decision[m])
        rates[race] = (100 * fp / (fp + tn), 100 * fn / (fn + tp))
    assert rates["African-American"] == pytest.approx((33.04, 37.37), abs=0.00501)
    assert rates["Caucasian"] == pytest.approx((15.55, 62.68), abs=0.00501)


def test_real_compas_corrected_version() -> None:
    compas = fetch_compas(version="corrected")
    assert (len(compas.data), compas.target.sum()) == (6_216, 2_253)
    assert 100 * compas.target.mean() == pytest.approx(36.245, abs=0.000501)
    found = {}
    for race in ("African-American", "Caucasian"):
        m = compas.sensitive["race"] == race
        tn, fp, fn, tp = _cells(compas.target[m], compas.decision[m])
        found[race] = (100 * fp / (fp + tn), 100 * tp / (tp + fp), 100 * compas.target[m].mean())
    assert found["African-American"] == pytest.approx((44.85, 54.62, 42.82), abs=0.00501)
    assert found["Caucasian"] == pytest.approx((23.45, 48.60, 30.21), abs=0.00501)


def test_real_compas_known_error() -> None:
    compas = fetch_compas(columns="all")
    late = compas.data["compas_screening_date"] > "2014-04-01"
    assert late.sum() == 998
    assert compas.target[late].eq(1).all()
    assert compas.data["days_b_screening_arrest"].isna().sum() == 307
    assert compas.data["id"].is_unique
    assert not [c for c in compas.data if c.endswith(".1")]


def test_real_compas_repeated_names() -> None:
    compas = fetch_compas(include_identifiers=True)
    assert compas.identifiers["name"].duplicated().sum() == 56


def test_real_compas_split_depends_on_each_row_alone() -> None:
    whole = fetch_compas(version="filtered", columns="all")
    assert whole.split.value_counts().to_dict() == {"train": 4_322, "test": 1_850}
    other = fetch_compas(version="propublica", columns="all")
    of = dict(zip(other.data["id"], other.split, strict=True))
    assert [of[i] for i in whole.data["id"]] == whole.split.tolist()


# -- the others ---------------------------------------------------------------------------
def test_real_german() -> None:
    german = fetch_german()
    assert german.data.shape == (1_000, 20)
    assert (german.target == 1).sum() == 700
    codes = german.data["personal_status_sex"].value_counts().to_dict()
    assert codes == {"A91": 50, "A92": 310, "A93": 548, "A94": 92}
    by_sex = german.target.groupby(german.sensitive["sex"]).agg(["sum", "size"])
    assert by_sex.loc["female"].tolist() == [201, 310]
    assert by_sex.loc["male"].tolist() == [499, 690]
    rates = by_sex["sum"] / by_sex["size"]
    assert rates["female"] == pytest.approx(0.648387, abs=5e-7)
    assert rates["male"] == pytest.approx(0.723188, abs=5e-7)
    by_age = german.target.groupby(german.sensitive["age_group"]).agg(["sum", "size"])
    assert by_age.loc["<=25"].tolist() == [110, 190]
    assert by_age.loc[">25"].tolist() == [590, 810]
    assert pytest.approx(0.578947, abs=5e-7) == 110 / 190
    assert pytest.approx(0.728395, abs=5e-7) == 590 / 810
    under = german.data["age"] < 25
    assert (german.target[under].sum(), under.sum()) == (88, 149)
    assert german.cost == {"bad_accepted": 5, "good_refused": 1}
    assert any("not reliable" in caveat for caveat in german.caveats)
    german.schema.validate(as_table(german.data))


def test_real_bank() -> None:
    bank = fetch_bank()
    assert bank.data.shape == (45_211, 15)
    assert "duration" not in bank.data
    assert "duration" in fetch_bank(include_duration=True).data
    assert bank.target.value_counts().to_dict() == {0: 39_922, 1: 5_289}
    by_age = bank.target.groupby(bank.sensitive["age_group"]).agg(["sum", "size"])
    assert by_age.loc["25-59"].tolist() == [4_482, 42_618]
    assert by_age.loc["other"].tolist() == [807, 2_593]
    assert pytest.approx(0.105167, abs=5e-7) == 4_482 / 42_618
    assert pytest.approx(0.311223, abs=5e-7) == 807 / 2_593
    by_marital = bank.target.groupby(bank.sensitive["marital"]).agg(["sum", "size"])
    assert by_marital.loc["married"].tolist() == [2_755, 27_214]
    assert by_marital.loc["single"].tolist() == [1_912, 12_790]
    assert by_marital.loc["divorced"].tolist() == [622, 5_207]
    bank.schema.validate(as_table(bank.data))


def test_real_credit_default() -> None:
    credit = fetch_credit_default()
    assert credit.data.shape == (30_000, 23)
    assert credit.target.sum() == 6_636
    assert credit.target.mean() == pytest.approx(0.2212, abs=5e-5)
    by_sex = credit.target.groupby(credit.sensitive["sex"]).agg(["sum", "size"])
    assert by_sex.loc["male"].tolist() == [2_873, 11_888]
    assert by_sex.loc["female"].tolist() == [3_763, 18_112]
    assert credit.data["EDUCATION"].isin((0, 5, 6)).sum() == 345
    assert (credit.data["MARRIAGE"] == 0).sum() == 54
    assert credit.data.assign(y=credit.target).duplicated().sum() == 35
    assert credit.data["AGE"].isna().sum() == 2
    whole = fetch_credit_default(missing="drop")
    assert len(whole.data) == 29_998
    whole.schema.validate(as_table(whole.data))


def test_real_california_housing() -> None:
    housing = fetch_california_housing()
    assert housing.data.shape == (20_640, 9)
    assert housing.data["total_bedrooms"].isna().sum() == 207
    assert (housing.target == 500_001).sum() == 965
    assert housing.sensitive is None
    assert housing.sensitive_names == []
    whole = fetch_california_housing(missing="drop")
    assert len(whole.data) == 20_433
    whole.schema.validate(as_table(whole.data))


def test_real_pums() -> None:
    pums = fetch_pums()
    assert len(pums.data) == 1_000
    means = pums.data.mean()
    assert means["age"] == pytest.approx(44.797, abs=5e-4)
    assert means["sex"] == pytest.approx(0.514, abs=5e-4)
    assert pums.target.mean() == pytest.approx(34_380.084, abs=5e-4)
    assert means["married"] == pytest.approx(0.549, abs=5e-4)
    assert set(pums.data["race"]) == set(range(1, 7))
    assert set(pums.data["educ"]) == set(range(1, 17))
    pums.schema.validate(as_table(pums.data))


def test_real_motor() -> None:
    motor = fetch_motor()
    assert len(motor.data) == 100_021
    assert motor.groups.nunique() == 100_000
    assert motor.groups.duplicated().sum() == 21
    assert set(motor.data["CalYear"]) == {2009, 2010}
    assert motor.sensitive["Gender"].value_counts().to_dict() == {"Male": 63_443, "Female": 36_578}
    assert motor.target.sum() == 14_748
    assert motor.exposure.sum() == pytest.approx(89_768.99, abs=0.005)
    group = motor.sensitive["Gender"]
    frequency = motor.target.groupby(group).sum() / motor.exposure.groupby(group).sum()
    assert frequency["Female"] == pytest.approx(0.137768, abs=5e-7)
    assert frequency["Male"] == pytest.approx(0.179569, abs=5e-7)
    motor.schema.validate(as_table(motor.data))


def test_real_files_are_those_of_the_registry(real_data_dir: Path) -> None:
    from privfair.datasets import verify_datasets

    states = verify_datasets(data_home=real_data_dir)
    assert len(states) == 11
    assert {s["status"] for s in states} == {"ok"}
    sums = (real_data_dir / "SHA256SUMS").read_text().split()
    assert {s["sha256"] for s in states} == set(sums[::2])
