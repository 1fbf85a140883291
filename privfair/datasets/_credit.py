"""German Credit and the Taiwan credit-card defaults."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from privfair.core import _validation as check
from privfair.core.exceptions import DataError
from privfair.datasets._files import content, read_files
from privfair.datasets._registry import get_spec
from privfair.datasets._schemas import credit_default_schema, german_schema

if TYPE_CHECKING:
    from privfair.datasets._bunch import DatasetBunch

__all__ = ["fetch_credit_default", "fetch_german"]

_MALE, _FEMALE = ("A91", "A93", "A94"), ("A92", "A95")


def fetch_german(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
) -> DatasetBunch:
    """Load German Credit (Statlog): is an applicant a good risk?

    Parameters
    ----------
    data_home, split, as_frame, download, verify
        As in :func:`fetch_adult`; there is no official split, so ``split`` is "all".

    Returns
    -------
    DatasetBunch
        ``target`` is 1 for a good risk. ``sensitive`` holds sex, read from attribute 9 (A91,
        A93, A94 male; A92, A95 female), and age_group (``<=25`` and ``>25``). ``cost`` is the
        documented cost of a wrong decision by its kind.

    Raises
    ------
    DataNotAvailableError, DataIntegrityError
        As in :func:`fetch_adult`.

    Notes
    -----
    The sex attribute is not reliable: according to Grömping (2019), code A92 pools categories,
    so that sex cannot be recovered from it. Every result by sex must carry this caveat.

    References
    ----------
    Hofmann (1994), Statlog (German Credit Data), UCI, DOI 10.24432/C5NC77.
    Grömping (2019), South German Credit Data: Correcting a Widely Used Data Set.

    Examples
    --------
    >>> from privfair.datasets import fetch_german, is_available
    >>> if is_available("german"):
    ...     assert fetch_german().target.sum() == 700
    """
    check.boolean(as_frame=as_frame)
    from privfair.datasets._bunch import build, provenance, read_table, split_mask

    split_mask(split, None, "german")
    found = read_files("german", ("main",), data_home=data_home, download=download, verify=verify)
    schema = german_schema()
    names = [*schema.names, "class"]
    label = str(found[0].path)
    frame = read_table(
        content(found[0]), label, names, sep=" ", header=None, names=names, index_col=False
    )
    codes = frame["personal_status_sex"]
    if not frame["class"].isin((1, 2)).all() or not codes.isin(_MALE + _FEMALE).all():
        raise DataError(f"{label} holds codes that the documentation does not have.")
    data = frame[schema.names].copy()
    sensitive = data[[]].assign(
        sex=codes.isin(_MALE).map({True: "male", False: "female"}).astype("str"),
        age_group=(data["age"] <= 25).map({True: "<=25", False: ">25"}).astype("str"),
    )
    return build(
        get_spec("german"),
        version="statlog",
        data=data,
        target=(frame["class"] == 1).astype("int64").rename("good_risk"),
        target_names=("bad", "good"),
        sensitive=sensitive,
        schema=schema,
        origin=provenance(found),
        notes=(
            "Target: 1 = good risk (class 1), 0 = bad risk (class 2).",
            "sex comes from attribute 9; age_group is <= 25 against > 25.",
        ),
        as_frame=as_frame,
        cost={"bad_accepted": 5, "good_refused": 1},
    )


def fetch_credit_default(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    missing: str = "keep",
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
) -> DatasetBunch:
    """Load Default of Credit Card Clients (Taiwan 2005): does a client default next month?

    Parameters
    ----------
    data_home, split, as_frame, download, verify
        As in :func:`fetch_adult`; there is no official split, so ``split`` is "all". No address
        serves this edition, so that the file has to be placed by hand.
    missing : {"keep", "drop"}, default="keep"
        Two ages are missing: keep them as NaN, or drop the two rows.

    Returns
    -------
    DatasetBunch
        ``target`` is 1 for a default; ``sensitive`` holds sex (SEX 1 male, 2 female). Codes are
        kept as they are, undocumented ones included.

    Raises
    ------
    DataNotAvailableError, DataIntegrityError
        As in :func:`fetch_adult`.

    References
    ----------
    Yeh and Lien (2009), Expert Systems with Applications 36(2), DOI 10.24432/C55S3H.

    Examples
    --------
    >>> from privfair.datasets import fetch_credit_default, is_available
    >>> if is_available("credit_default"):
    ...     assert fetch_credit_default().target.sum() == 6636
    """
    check.boolean(as_frame=as_frame)
    check.one_of(("keep", "drop"), missing=missing)
    from privfair.datasets._bunch import build, provenance, read_table, split_mask

    split_mask(split, None, "credit_default")
    found = read_files(
        "credit_default", ("main",), data_home=data_home, download=download, verify=verify
    )
    schema = credit_default_schema()
    outcome = "default.payment.next.month"
    frame = read_table(content(found[0]), str(found[0].path), ["ID", *schema.names, outcome])
    if missing == "drop":
        frame = frame.dropna(ignore_index=True)
    data = frame[schema.names].copy()
    return build(
        get_spec("credit_default"),
        version="csv",
        data=data,
        target=frame[outcome].astype("int64").rename("default"),
        target_names=("paid", "default"),
        sensitive=data[[]].assign(sex=data["SEX"].map({1: "male", 2: "female"}).astype("str")),
        schema=schema,
        origin=provenance(found),
        notes=(
            "Target: 1 = default, the unfavourable outcome. ID is dropped.",
            f"Missing ages (2): {missing}.",
        ),
        as_frame=as_frame,
    )
