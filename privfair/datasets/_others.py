"""Bank Marketing, California housing, the PUMS extract and the pg15 motor portfolio."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from privfair.core import _validation as check
from privfair.datasets._files import content, read_files
from privfair.datasets._registry import get_spec
from privfair.datasets._schemas import (
    bank_schema,
    california_schema,
    motor_schema,
    pums_schema,
)

if TYPE_CHECKING:
    from privfair.datasets._bunch import DatasetBunch

__all__ = ["fetch_bank", "fetch_california_housing", "fetch_motor", "fetch_pums"]

_MOTOR_OUTCOMES = ("Numtppd", "Numtpbi", "Indtppd", "Indtpbi")


def fetch_bank(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    include_duration: bool = False,
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
) -> DatasetBunch:
    """Load Bank Marketing: does a client subscribe to a deposit?

    Parameters
    ----------
    data_home, split, as_frame, download, verify
        As in :func:`fetch_adult`; there is no official split, so ``split`` is "all".
    include_duration : bool, default=False
        Whether to keep the length of the last call, which is known only after it and nearly
        gives the label away.

    Returns
    -------
    DatasetBunch
        ``target`` is 1 for a subscription; ``sensitive`` holds age_group (25-59 inclusive
        against the others) and marital.

    Raises
    ------
    DataNotAvailableError, DataIntegrityError
        As in :func:`fetch_adult`.

    References
    ----------
    Moro, Cortez and Rita (2014), Decision Support Systems 62, DOI 10.24432/C5K306.

    Examples
    --------
    >>> from privfair.datasets import fetch_bank, is_available
    >>> if is_available("bank"):
    ...     assert "duration" not in fetch_bank().data
    """
    check.boolean(as_frame=as_frame)
    check.boolean(include_duration=include_duration)
    from privfair.datasets._bunch import build, provenance, read_table, split_mask

    split_mask(split, None, "bank")
    found = read_files("bank", ("main",), data_home=data_home, download=download, verify=verify)
    every = bank_schema(True)
    frame = read_table(
        content(found[0]), str(found[0].path), [*every.names, "y"], sep=";", keep_default_na=False
    )
    schema = bank_schema(include_duration)
    data = frame[schema.names].copy()
    inside = data["age"].between(25, 59)
    sensitive = data[[]].assign(
        age_group=inside.map({True: "25-59", False: "other"}).astype("str"),
        marital=data["marital"],
    )
    return build(
        get_spec("bank"),
        version="full",
        data=data,
        target=(frame["y"] == "yes").astype("int64").rename("subscribed"),
        target_names=("no", "yes"),
        sensitive=sensitive,
        schema=schema,
        origin=provenance(found),
        notes=(
            "Target: 1 = subscribed.",
            f"duration {'kept on request' if include_duration else 'dropped'}.",
            "age_group is 25-59 inclusive against all others.",
        ),
        as_frame=as_frame,
    )


def fetch_california_housing(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    missing: str = "keep",
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
) -> DatasetBunch:
    """Load California housing (1990 census blocks): the median house value, in dollars.

    Parameters
    ----------
    data_home, split, as_frame, download, verify
        As in :func:`fetch_adult`; there is no official split, so ``split`` is "all".
    missing : {"keep", "drop"}, default="keep"
        207 numbers of bedrooms are missing: keep them as NaN, or drop those rows.

    Returns
    -------
    DatasetBunch
        A regression target and no protected attribute: ``sensitive`` is None.

    Raises
    ------
    DataNotAvailableError, DataIntegrityError
        As in :func:`fetch_adult`.

    References
    ----------
    Pace and Barry (1997), Statistics and Probability Letters 33(3).

    Examples
    --------
    >>> from privfair.datasets import fetch_california_housing, is_available
    >>> if is_available("california_housing"):
    ...     assert fetch_california_housing().target.max() == 500001
    """
    check.boolean(as_frame=as_frame)
    check.one_of(("keep", "drop"), missing=missing)
    from privfair.datasets._bunch import build, provenance, read_table, split_mask

    split_mask(split, None, "california_housing")
    found = read_files(
        "california_housing", ("main",), data_home=data_home, download=download, verify=verify
    )
    schema = california_schema()
    outcome = "median_house_value"
    names = [*schema.names[:-1], outcome, schema.names[-1]]
    frame = read_table(content(found[0]), str(found[0].path), names)
    if missing == "drop":
        frame = frame.dropna(ignore_index=True)
    return build(
        get_spec("california_housing"),
        version="geron",
        data=frame[schema.names].copy(),
        target=frame[outcome].astype("float64"),
        target_names=(),
        sensitive=None,
        schema=schema,
        origin=provenance(found),
        notes=(f"Missing total_bedrooms (207): {missing}.", "Target in dollars."),
        as_frame=as_frame,
    )


def fetch_pums(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
) -> DatasetBunch:
    """Load the 1,000-row PUMS extract for California: yearly income, in dollars.

    Parameters
    ----------
    data_home, split, as_frame, download, verify
        As in :func:`fetch_adult`; there is no official split, so ``split`` is "all".

    Returns
    -------
    DatasetBunch
        ``target`` is income; ``sensitive`` holds the survey codes of sex and race. With the
        domains race 1 to 6 and educ 1 to 16 it suits local frequency estimation.

    Raises
    ------
    DataNotAvailableError, DataIntegrityError
        As in :func:`fetch_adult`.

    References
    ----------
    US Census Bureau, American Community Survey, Public Use Microdata Sample.

    Examples
    --------
    >>> from privfair.datasets import fetch_pums, is_available
    >>> if is_available("pums"):
    ...     assert fetch_pums().data.shape == (1000, 5)
    """
    check.boolean(as_frame=as_frame)
    from privfair.datasets._bunch import build, provenance, read_table, split_mask

    split_mask(split, None, "pums")
    found = read_files("pums", ("main",), data_home=data_home, download=download, verify=verify)
    schema = pums_schema()
    names = ["age", "sex", "educ", "race", "income", "married"]
    frame = read_table(content(found[0]), str(found[0].path), names)
    data = frame[schema.names].copy()
    return build(
        get_spec("pums"),
        version="california-1000",
        data=data,
        target=frame["income"].astype("float64"),
        target_names=(),
        sensitive=data[["sex", "race"]].astype("str"),
        schema=schema,
        origin=provenance(found),
        notes=("Target: income in dollars.", "Codes are those of the survey."),
        as_frame=as_frame,
    )


def fetch_motor(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    target: str = "Numtppd",
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
) -> DatasetBunch:
    """Load pg15, a motor third-party liability portfolio with exposure.

    The data are part of a GPL package: privfair never downloads them, the file is the user's.

    Parameters
    ----------
    data_home, split, as_frame, download, verify
        As in :func:`fetch_adult`; there is no official split, so ``split`` is "all".
    target : {"Numtppd", "Numtpbi", "Indtppd", "Indtpbi"}, default="Numtppd"
        Number of property-damage or bodily-injury claims, or their cost. The other three are
        in ``outcomes`` and never features.

    Returns
    -------
    DatasetBunch
        ``sensitive`` holds Gender; ``exposure`` (also ``sample_weight``) is in years;
        ``groups`` is the policy number, of which 21 occur twice. SubGroup2 (471 small areas)
        is left out: a quasi-identifier that Group2 and Density summarise.

    Raises
    ------
    DataNotAvailableError, DataIntegrityError
        As in :func:`fetch_adult`.

    References
    ----------
    Dutang and Charpentier, CASdatasets (R package), pg15training.

    Examples
    --------
    >>> from privfair.datasets import fetch_motor, is_available
    >>> if is_available("motor"):
    ...     assert len(fetch_motor().data) == 100021
    """
    check.boolean(as_frame=as_frame)
    check.one_of(_MOTOR_OUTCOMES, target=target)
    from privfair.datasets._bunch import build, provenance, read_table, split_mask

    split_mask(split, None, "motor")
    found = read_files("motor", ("main",), data_home=data_home, download=download, verify=verify)
    schema = motor_schema()
    names = [
        "PolNum",
        "CalYear",
        "Gender",
        "Type",
        "Category",
        "Occupation",
        "Age",
        "Group1",
        "Bonus",
        "Poldur",
        "Value",
        "Adind",
        "SubGroup2",
        "Group2",
        "Density",
        "Exppdays",
        *_MOTOR_OUTCOMES,
    ]
    frame = read_table(content(found[0]), str(found[0].path), names)
    data = frame[schema.names].copy()
    exposure = (frame["Exppdays"] / 365.0).rename("exposure")
    return build(
        get_spec("motor"),
        version="pg15training",
        data=data,
        target=frame[target],
        target_names=(),
        sensitive=data[["Gender"]].copy(),
        sample_weight=exposure,
        schema=schema,
        origin=provenance(found),
        notes=(
            f"Target: {target}. Exposure in years = Exppdays / 365.",
            "PolNum is groups, not a feature; SubGroup2 is left out.",
        ),
        as_frame=as_frame,
        exposure=exposure.copy(),
        groups=frame["PolNum"].copy(),
        outcomes=frame[list(_MOTOR_OUTCOMES)].copy(),
    )
