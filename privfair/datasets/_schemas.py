"""Public schemas, typed by hand from each data set's documentation, never from its rows.

Categories follow the documents that come with the data; bounds and cut points are round numbers
or limits of the survey's fields. Values outside a bound are clipped by whoever uses the schema.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from privfair.core.schema import Categorical, Numeric, Schema

__all__ = [
    "EDUCATION_LEVELS",
    "adult_schema",
    "bank_schema",
    "california_schema",
    "compas_schema",
    "credit_default_schema",
    "german_schema",
    "motor_schema",
    "pums_schema",
    "schema_of",
]

MISSING = "missing"

# education-num 1 to 16, in this order (the two columns are one-to-one by construction).
EDUCATION_LEVELS = (
    "Preschool",
    "1st-4th",
    "5th-6th",
    "7th-8th",
    "9th",
    "10th",
    "11th",
    "12th",
    "HS-grad",
    "Some-college",
    "Assoc-voc",
    "Assoc-acdm",
    "Bachelors",
    "Masters",
    "Prof-school",
    "Doctorate",
)
_WORKCLASS = (
    "Private",
    "Self-emp-not-inc",
    "Self-emp-inc",
    "Federal-gov",
    "Local-gov",
    "State-gov",
    "Without-pay",
    "Never-worked",
)
_MARITAL = (
    "Married-civ-spouse",
    "Divorced",
    "Never-married",
    "Separated",
    "Widowed",
    "Married-spouse-absent",
    "Married-AF-spouse",
)
_OCCUPATION = (
    "Tech-support",
    "Craft-repair",
    "Other-service",
    "Sales",
    "Exec-managerial",
    "Prof-specialty",
    "Handlers-cleaners",
    "Machine-op-inspct",
    "Adm-clerical",
    "Farming-fishing",
    "Transport-moving",
    "Priv-house-serv",
    "Protective-serv",
    "Armed-Forces",
)
_RELATIONSHIP = (
    "Wife",
    "Own-child",
    "Husband",
    "Not-in-family",
    "Other-relative",
    "Unmarried",
)
_RACE = ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black")
COUNTRIES = (
    "United-States",
    "Cambodia",
    "England",
    "Puerto-Rico",
    "Canada",
    "Germany",
    "Outlying-US(Guam-USVI-etc)",
    "India",
    "Japan",
    "Greece",
    "South",
    "China",
    "Cuba",
    "Iran",
    "Honduras",
    "Philippines",
    "Italy",
    "Poland",
    "Jamaica",
    "Vietnam",
    "Mexico",
    "Portugal",
    "Ireland",
    "France",
    "Dominican-Republic",
    "Laos",
    "Ecuador",
    "Taiwan",
    "Haiti",
    "Columbia",
    "Hungary",
    "Guatemala",
    "Nicaragua",
    "Scotland",
    "Thailand",
    "Yugoslavia",
    "El-Salvador",
    "Trinadad&Tobago",
    "Peru",
    "Hong",
    "Holand-Netherlands",
)


@lru_cache(maxsize=2)
def adult_schema(missing: bool = True) -> Schema:
    """Return the schema of Adult's 13 features; ``missing`` adds that category where it occurs.

    Age, hours and gains have the limits of the survey's fields (99999 is the top code of the
    gains); the bound of the losses and all cut points are round numbers.
    """
    extra = (MISSING,) if missing else ()
    return Schema(
        {
            "age": Numeric(17, 90, bins=tuple(range(20, 75, 5))),
            "workclass": Categorical(_WORKCLASS + extra),
            "education": Categorical(EDUCATION_LEVELS),
            "education-num": Numeric(1, 16, bins=tuple(k + 0.5 for k in range(1, 16))),
            "marital-status": Categorical(_MARITAL),
            "occupation": Categorical(_OCCUPATION + extra),
            "relationship": Categorical(_RELATIONSHIP),
            "race": Categorical(_RACE),
            "sex": Categorical(("Female", "Male")),
            "capital-gain": Numeric(
                0, 99999, log=True, bins=(1, 3000, 5000, 7000, 10000, 20000, 99998.5)
            ),
            "capital-loss": Numeric(0, 5000, log=True, bins=(1, 1600, 1800, 1950, 2200)),
            "hours-per-week": Numeric(1, 99, bins=(20, 30, 35, 40, 41, 50, 60)),
            "native-country": Categorical(COUNTRIES + extra),
        }
    )


COMPAS_RACES = (
    "African-American",
    "Asian",
    "Caucasian",
    "Hispanic",
    "Native American",
    "Other",
)


@lru_cache(maxsize=1)
def compas_schema() -> Schema:
    """Return the schema of the COMPAS features and scores."""
    counts = Numeric(0, 20, bins=(1, 2, 3, 4))
    return Schema(
        {
            "sex": Categorical(("Female", "Male")),
            "age": Numeric(18, 99, bins=(20, 22, 25, 28, 31, 35, 40, 46, 55, 65)),
            "age_cat": Categorical(("Less than 25", "25 - 45", "Greater than 45")),
            "race": Categorical(COMPAS_RACES),
            "juv_fel_count": counts,
            "juv_misd_count": counts,
            "juv_other_count": counts,
            "priors_count": Numeric(0, 40, bins=(1, 2, 3, 4, 6, 8, 11, 15, 21)),
            "c_charge_degree": Categorical(("F", "M", "O")),
            "decile_score": Numeric(1, 10, bins=tuple(k + 0.5 for k in range(1, 10))),
            "score_text": Categorical(("Low", "Medium", "High", "N/A")),
        }
    )


def _codes(attribute: int, count: int, first: int = 1) -> tuple[str, ...]:
    return tuple(f"A{attribute}{k}" for k in range(first, first + count))


@lru_cache(maxsize=1)
def german_schema() -> Schema:
    """Return the schema of German Credit, with the codes of its documentation."""
    return Schema(
        {
            "status": Categorical(_codes(1, 4)),
            "duration": Numeric(0, 84, bins=(12, 18, 24, 36, 48)),
            "credit_history": Categorical(_codes(3, 5, 0)),
            "purpose": Categorical(_codes(4, 11, 0)),
            "credit_amount": Numeric(0, 20_000, bins=(1000, 2000, 4000, 7000, 10_000)),
            "savings": Categorical(_codes(6, 5)),
            "employment": Categorical(_codes(7, 5)),
            "installment_rate": Numeric(1, 4, bins=(1.5, 2.5, 3.5)),
            "personal_status_sex": Categorical(_codes(9, 5)),
            "other_debtors": Categorical(_codes(10, 3)),
            "residence_since": Numeric(1, 4, bins=(1.5, 2.5, 3.5)),
            "property": Categorical(_codes(12, 4)),
            "age": Numeric(18, 90, bins=(26, 35, 45, 60)),
            "other_installment_plans": Categorical(_codes(14, 3)),
            "housing": Categorical(_codes(15, 3)),
            "existing_credits": Numeric(1, 4, bins=(1.5, 2.5, 3.5)),
            "job": Categorical(_codes(17, 4)),
            "people_liable": Numeric(1, 2, bins=(1.5,)),
            "telephone": Categorical(_codes(19, 2)),
            "foreign_worker": Categorical(_codes(20, 2)),
        }
    )


@lru_cache(maxsize=2)
def bank_schema(duration: bool = False) -> Schema:
    """Return the schema of Bank Marketing."""
    yes_no = Categorical(("no", "yes"))
    months = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
    columns: dict[str, Numeric | Categorical] = {
        "age": Numeric(18, 100, bins=(25, 30, 35, 40, 45, 50, 55, 60)),
        "job": Categorical(
            (
                "admin.",
                "unknown",
                "unemployed",
                "management",
                "housemaid",
                "entrepreneur",
                "student",
                "blue-collar",
                "self-employed",
                "retired",
                "technician",
                "services",
            )
        ),
        "marital": Categorical(("married", "divorced", "single")),
        "education": Categorical(("unknown", "secondary", "primary", "tertiary")),
        "default": yes_no,
        "balance": Numeric(-10_000, 100_000, bins=(0, 500, 1000, 2500, 5000, 10_000)),
        "housing": yes_no,
        "loan": yes_no,
        "contact": Categorical(("unknown", "telephone", "cellular")),
        "day": Numeric(1, 31, bins=(6, 11, 16, 21, 26)),
        "month": Categorical(months),
        "duration": Numeric(0, 5000, log=True, bins=(60, 120, 240, 480, 960)),
        "campaign": Numeric(1, 70, log=True, bins=(2, 3, 4, 6, 11)),
        "pdays": Numeric(-1, 999, bins=(0, 91, 181, 366)),
        "previous": Numeric(0, 300, log=True, bins=(1, 2, 3, 6)),
        "poutcome": Categorical(("unknown", "other", "failure", "success")),
    }
    return Schema({k: v for k, v in columns.items() if duration or k != "duration"})


@lru_cache(maxsize=1)
def credit_default_schema() -> Schema:
    """Return the schema of the Taiwan credit-card data, undocumented codes included."""
    status = Numeric(-2, 9, bins=tuple(k + 0.5 for k in range(-2, 3)))
    bill = Numeric(-400_000, 2_000_000, bins=(0, 1000, 10_000, 50_000, 100_000, 200_000))
    paid = Numeric(0, 2_000_000, log=True, bins=(1, 1000, 2000, 5000, 10_000, 50_000))
    months = (0, 2, 3, 4, 5, 6)
    columns: dict[str, Numeric | Categorical] = {
        "LIMIT_BAL": Numeric(0, 1_000_000, bins=(50_000, 100_000, 200_000, 300_000, 500_000)),
        "SEX": Categorical((1, 2)),
        "EDUCATION": Categorical((0, 1, 2, 3, 4, 5, 6)),
        "MARRIAGE": Categorical((0, 1, 2, 3)),
        "AGE": Numeric(18, 90, bins=(26, 31, 36, 41, 51, 61)),
    }
    columns |= {f"PAY_{k}": status for k in months}
    columns |= {f"BILL_AMT{k}": bill for k in range(1, 7)}
    columns |= {f"PAY_AMT{k}": paid for k in range(1, 7)}
    return Schema(columns)


@lru_cache(maxsize=1)
def california_schema() -> Schema:
    """Return the schema of California housing: the state's frame and round numbers."""
    return Schema(
        {
            "longitude": Numeric(-125, -114, bins=(-123, -122, -121, -119, -118, -117)),
            "latitude": Numeric(32, 42.5, bins=(33, 34, 35, 36, 37, 38, 39)),
            "housing_median_age": Numeric(0, 60, bins=(10, 20, 30, 40, 50)),
            "total_rooms": Numeric(0, 40_000, log=True, bins=(500, 1000, 2000, 4000, 8000)),
            "total_bedrooms": Numeric(0, 10_000, log=True, bins=(100, 250, 500, 1000, 2000)),
            "population": Numeric(0, 40_000, log=True, bins=(500, 1000, 2000, 4000)),
            "households": Numeric(0, 10_000, log=True, bins=(100, 250, 500, 1000, 2000)),
            "median_income": Numeric(0, 15.1, bins=(2, 3, 4, 5, 6, 8, 10)),
            "ocean_proximity": Categorical(
                ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")
            ),
        }
    )


@lru_cache(maxsize=1)
def pums_schema() -> Schema:
    """Return the schema of the PUMS extract (survey codes)."""
    return Schema(
        {
            "age": Numeric(18, 95, bins=(25, 35, 45, 55, 65, 75)),
            "sex": Categorical((0, 1)),
            "educ": Categorical(tuple(range(1, 17))),
            "race": Categorical(tuple(range(1, 7))),
            "married": Categorical((0, 1)),
        }
    )


@lru_cache(maxsize=1)
def motor_schema() -> Schema:
    """Return the schema of the rating factors of pg15."""
    return Schema(
        {
            "CalYear": Categorical((2009, 2010)),
            "Gender": Categorical(("Female", "Male")),
            "Type": Categorical(("A", "B", "C", "D", "E", "F")),
            "Category": Categorical(("Small", "Medium", "Large")),
            "Occupation": Categorical(
                ("Employed", "Housewife", "Retired", "Self-employed", "Unemployed")
            ),
            "Age": Numeric(18, 75, bins=(22, 26, 30, 35, 45, 55, 65)),
            "Group1": Numeric(1, 20, bins=tuple(k + 0.5 for k in range(1, 20))),
            "Bonus": Numeric(-50, 150, bins=(-40, -30, -20, -10, 0, 10, 50, 100)),
            "Poldur": Numeric(0, 15, bins=(1, 2, 4, 7, 11)),
            "Value": Numeric(0, 50_000, bins=(5000, 10_000, 15_000, 20_000, 30_000)),
            "Adind": Categorical((0, 1)),
            "Group2": Categorical(("L", "M", "N", "O", "P", "Q", "R", "S", "T", "U")),
            "Density": Numeric(0, 300, bins=(25, 50, 100, 150, 200)),
        }
    )


def schema_of(name: str) -> Schema:
    """Return the schema of a registered data set, as its loader's default gives it."""
    makers: dict[str, Callable[[], Schema]] = {
        "adult": adult_schema,
        "bank": bank_schema,
        "california_housing": california_schema,
        "compas": compas_schema,
        "credit_default": credit_default_schema,
        "german": german_schema,
        "motor": motor_schema,
        "pums": pums_schema,
    }
    return makers[name]()
