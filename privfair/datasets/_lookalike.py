"""Synthetic look-alikes of Adult and COMPAS, from published rates typed by hand.

They have the columns, types and schema of the real sets and roughly their margins, so that code
can be tried where the files are absent. No row was derived from a row of the real data, and no
finding about the real data follows from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from privfair.core import _validation as check
from privfair.core.randomness import check_random_state
from privfair.datasets._schemas import EDUCATION_LEVELS

if TYPE_CHECKING:
    from privfair.datasets._bunch import DatasetBunch

__all__ = ["make_adult_like", "make_compas_like"]

# Weights (not necessarily summing to 1) below and above $50,000, rounded from published tables.
_RACE = {
    "White": (83.5, 90.8),
    "Black": (11.1, 4.8),
    "Asian-Pac-Islander": (3.0, 3.5),
    "Amer-Indian-Eskimo": (1.1, 0.5),
    "Other": (1.0, 0.4),
}
_WORK = {
    "Private": (71, 64),
    "Self-emp-not-inc": (7, 9),
    "Self-emp-inc": (2, 8),
    "Federal-gov": (2.4, 4.7),
    "Local-gov": (6, 8),
    "State-gov": (4, 4.5),
    "Without-pay": (0.06, 0.02),
    "missing": (6.6, 2.3),
}
_SCHOOL = (  # by education-num 1 to 16
    (0.2, 0.01),
    (0.7, 0.1),
    (1.3, 0.2),
    (2.5, 0.5),
    (2.0, 0.4),
    (3.5, 0.8),
    (4.5, 0.8),
    (1.6, 0.4),
    (35.8, 21.4),
    (24.0, 17.7),
    (4.1, 4.6),
    (3.2, 3.4),
    (12.7, 28.3),
    (3.1, 12.2),
    (0.6, 5.4),
    (0.4, 3.9),
)
_JOB = {
    "Adm-clerical": (13, 6.5),
    "Craft-repair": (13, 12),
    "Exec-managerial": (8.5, 25),
    "Farming-fishing": (3.6, 1.5),
    "Handlers-cleaners": (5.2, 1.1),
    "Machine-op-inspct": (7.1, 3.2),
    "Other-service": (12.8, 1.7),
    "Priv-house-serv": (0.6, 0.02),
    "Prof-specialty": (9, 24),
    "Protective-serv": (1.8, 2.7),
    "Sales": (10.8, 12.5),
    "Tech-support": (2.6, 3.6),
    "Transport-moving": (5.2, 4.1),
    "missing": (6.7, 2.4),
}
_LAND = {
    "United-States": (89, 91.5),
    "Mexico": (2.5, 0.5),
    "missing": (1.7, 1.9),
    "Philippines": (0.6, 0.8),
    "Germany": (0.4, 0.6),
    "Canada": (0.3, 0.5),
    "India": (0.2, 0.5),
    "Puerto-Rico": (0.4, 0.2),
    "El-Salvador": (0.4, 0.1),
    "Cuba": (0.3, 0.3),
}


def _draw(
    rng: np.random.Generator, weights: dict[str, tuple[float, float]], high: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Draw labels given a binary outcome, by the inverse of the distribution function."""
    labels = np.array(list(weights), dtype=object)
    table = np.array(list(weights.values()), dtype=float)
    edges = np.cumsum(table / table.sum(axis=0), axis=0)
    u = rng.random(len(high))
    low_pick = np.searchsorted(edges[:, 0], u, side="right")
    high_pick = np.searchsorted(edges[:, 1], u, side="right")
    pick = np.where(high == 1, high_pick, low_pick).clip(0, len(labels) - 1)
    return np.asarray(labels[pick])


def _rounded(values: np.ndarray[Any, Any], low: int, high: int) -> np.ndarray[Any, Any]:
    return np.asarray(np.rint(values).clip(low, high), dtype=np.int64)


def _origin() -> dict[str, Any]:
    return {"path": {}, "sha256": {}, "verified": True}


def make_adult_like(
    n: int = 1000, *, random_state: Any = None, as_frame: bool = True
) -> DatasetBunch:
    """Make ``n`` synthetic rows shaped like Adult.

    Parameters
    ----------
    n : int, default=1000
        Number of rows, at least 1; two thirds, rounded, are the "train" split.
    random_state : None, int or Generator, default=None
        Seed.
    as_frame : bool, default=True
        Whether tables are pandas objects.

    Returns
    -------
    DatasetBunch
        As from :func:`fetch_adult` with ``missing="category"``; ``name`` is "adult_like" and
        the first line of ``DESCR`` says what it is.

    Notes
    -----
    Income given sex has the published rates (10.9 % and 30.4 %); the other columns follow
    rounded tables given income or sex and are otherwise independent. O(n).

    Examples
    --------
    >>> adult = make_adult_like(300, random_state=0)
    >>> adult.data.shape, adult.name
    ((300, 13), 'adult_like')
    """
    import pandas as pd

    from privfair.datasets._adult import assemble

    n = check.positive_int(n=n)
    rng = check_random_state(random_state)
    male = rng.random(n) < 0.6685
    high = (rng.random(n) < np.where(male, 0.3038, 0.1093)).astype(np.int64)
    married = rng.random(n) < np.where(
        high == 1, np.where(male, 0.88, 0.66), np.where(male, 0.48, 0.10)
    )
    single = _draw(
        rng,
        {
            "Never-married": (63, 42),
            "Divorced": (24, 44),
            "Separated": (6, 5),
            "Widowed": (5, 7),
            "Married-spouse-absent": (2, 2),
        },
        high,
    )
    marital = np.where(married, "Married-civ-spouse", single)
    alone = _draw(
        rng,
        {
            "Not-in-family": (46, 72),
            "Own-child": (30, 6),
            "Unmarried": (20, 19),
            "Other-relative": (4, 3),
        },
        high,
    )
    relationship = np.where(married, np.where(male, "Husband", "Wife"), alone)
    years = _draw(rng, {str(k + 1): w for k, w in enumerate(_SCHOOL)}, high).astype(np.int64)
    work = _draw(rng, _WORK, high)
    job = _draw(rng, {k: v for k, v in _JOB.items() if k != "missing"}, high)
    gains = rng.random(n) < np.where(high == 1, 0.214, 0.042)
    losses = ~gains & (rng.random(n) < np.where(high == 1, 0.10, 0.032))
    top = rng.random(n) < np.where(high == 1, 0.10, 0.0)
    gain_size = np.where(
        top, 99999, _rounded(rng.lognormal(np.where(high == 1, 9.1, 8.0), 0.5), 114, 41310)
    )
    frame = pd.DataFrame(
        {
            "age": _rounded(
                17 + rng.gamma(np.where(high == 1, 7.0, 1.85), np.where(high == 1, 3.9, 10.7)),
                17,
                90,
            ),
            "workclass": work,
            "fnlwgt": np.full(n, 190_000, dtype=np.int64),
            "education": np.array(EDUCATION_LEVELS, dtype=object)[years - 1],
            "education-num": years,
            "marital-status": marital,
            "occupation": np.where(work == "missing", "missing", job),
            "relationship": relationship,
            "race": _draw(rng, _RACE, high),
            "sex": np.where(male, "Male", "Female"),
            "capital-gain": np.where(gains, gain_size, 0),
            "capital-loss": np.where(losses, _rounded(rng.normal(1880, 300, n), 155, 4356), 0),
            "hours-per-week": _rounded(
                np.where(rng.random(n) < 0.45, 40, rng.normal(np.where(high == 1, 48, 38), 13)),
                1,
                99,
            ),
            "native-country": _draw(rng, _LAND, high),
            "income": high,
            "split": np.where(np.arange(n) < round(2 * n / 3), "train", "test"),
        }
    )
    bunch = assemble(
        frame,
        missing="category",
        as_frame=as_frame,
        origin=_origin(),
        version="look-alike",
        first_line=_FIRST.format("Adult"),
        notes=_NOTES,
        caveats=_CAVEATS,
    )
    bunch.update(name="adult_like", synthetic=True, source="synthetic", license="Apache-2.0")
    return bunch


_FIRST = "SYNTHETIC LOOK-ALIKE of {}: made from rounded published rates, for trying code only."
_NOTES = (
    "Columns, types and schema of the real set; margins are rounded published rates.",
    "No finding about the real data follows from these rows.",
)
_CAVEATS = ("Synthetic look-alike: no finding about the real data follows from these rows.",)
_RACES = {
    "African-American": (0.4535, 0.5847),
    "Caucasian": (0.3755, 0.2971),
    "Hispanic": (0.1022, 0.0714),
    "Other": (0.0616, 0.0409),
    "Asian": (0.0058, 0.0028),
    "Native American": (0.0020, 0.0031),
}


def make_compas_like(
    n: int = 1000, *, random_state: Any = None, as_frame: bool = True
) -> DatasetBunch:
    """Make ``n`` synthetic rows shaped like the filtered COMPAS file.

    Parameters
    ----------
    n : int, default=1000
        Number of rows, at least 1; 70 %, rounded, are the "train" split.
    random_state : None, int or Generator, default=None
        Seed.
    as_frame : bool, default=True
        Whether tables are pandas objects.

    Returns
    -------
    DatasetBunch
        As from :func:`fetch_compas`; ``name`` is "compas_like". No row is a person.

    Notes
    -----
    Recidivism has the published base rate (45.5 %), race given recidivism the published
    shares, and the score depends on both, so that error rates differ between groups. O(n).

    Examples
    --------
    >>> compas = make_compas_like(300, random_state=0)
    >>> compas.data.shape, "name" in compas.data
    ((300, 11), False)
    """
    import pandas as pd

    from privfair.datasets._compas import assemble

    n = check.positive_int(n=n)
    rng = check_random_state(random_state)
    again = (rng.random(n) < 0.4551).astype(np.int64)
    race = _draw(rng, _RACES, again)
    age = _rounded(18 + rng.gamma(1.9, np.where(again == 1, 7.2, 9.6)), 18, 96)
    priors = rng.geometric(np.where(again == 1, 0.19, 0.33), n) - 1
    risk = (
        3.6
        + 1.5 * again
        + 0.25 * np.minimum(priors, 12)
        - 0.045 * (age - 33)
        + 0.9 * (race == "African-American")
        + rng.normal(0, 1.9, n)
    )
    decile = _rounded(risk, 1, 10)
    frame = pd.DataFrame(
        {
            "sex": np.where(rng.random(n) < np.where(again == 1, 0.845, 0.777), "Male", "Female"),
            "age": age,
            "age_cat": np.select(
                [age < 25, age <= 45], ["Less than 25", "25 - 45"], "Greater than 45"
            ),
            "race": race,
            "juv_fel_count": (rng.random(n) < 0.035) * rng.geometric(0.7, n),
            "juv_misd_count": (rng.random(n) < 0.055) * rng.geometric(0.7, n),
            "juv_other_count": (rng.random(n) < 0.075) * rng.geometric(0.7, n),
            "priors_count": priors.clip(0, 38),
            "c_charge_degree": np.where(
                rng.random(n) < np.where(again == 1, 0.70, 0.60), "F", "M"
            ),
            "decile_score": decile,
            "score_text": np.select([decile <= 4, decile <= 7], ["Low", "Medium"], "High"),
            "two_year_recid": again,
            "split": np.where(np.arange(n) < round(0.7 * n), "train", "test"),
        }
    )
    bunch = assemble(
        frame,
        version="look-alike",
        as_frame=as_frame,
        origin=_origin(),
        first_line=_FIRST.format("COMPAS"),
        notes=_NOTES,
        caveats=_CAVEATS,
    )
    bunch.update(name="compas_like", synthetic=True, source="synthetic", license="Apache-2.0")
    return bunch
