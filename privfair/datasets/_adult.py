"""Adult / Census Income."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, DataNotAvailableError
from privfair.datasets._files import content, read_files
from privfair.datasets._registry import get_spec
from privfair.datasets._schemas import MISSING, adult_schema

if TYPE_CHECKING:
    import pandas as pd

    from privfair.datasets._bunch import DatasetBunch

__all__ = ["fetch_adult"]

COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
TARGET_NAMES = ("<=50K", ">50K")
SENSITIVE = ("sex", "race")
VERSION = "uci"


def _parse(data: bytes, label: str, split: str) -> pd.DataFrame:
    from privfair.datasets._bunch import read_table

    frame = read_table(
        data,
        label,
        COLUMNS,
        names=list(COLUMNS),
        index_col=False,
        # The test file begins with a comment line.
        skiprows=1 if split == "test" else 0,
        skipinitialspace=True,
        keep_default_na=False,
        na_values=["?"],
    )
    # The labels of the test file end in a full stop: left there, they make four classes.
    labels = frame["income"].astype("str").str.removesuffix(".")
    if not labels.isin(TARGET_NAMES).all():
        raise DataError(f"{label} has labels other than {' and '.join(TARGET_NAMES)}.")
    frame["income"] = (labels == ">50K").astype("int64")
    frame["split"] = split
    return frame


def fetch_adult(
    *,
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    missing: str = "category",
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
    fallback: str = "error",
) -> DatasetBunch:
    """Load Adult / Census Income (1994): does a person earn more than $50,000 a year?

    Parameters
    ----------
    data_home : path or None, default=None
        Folder searched first; also the target of a download. Then come the folder in
        ``PRIVFAIR_DATA_DIR`` and the user's cache.
    split : {"all", "train", "test"}, default="all"
        The official split (32,561 and 16,281 rows); with "all" it is in ``split`` of the
        result, row by row. Rows are never shuffled.
    missing : {"category", "drop"}, default="category"
        "category" keeps every row and makes ``?`` the category "missing" (48,842 rows);
        "drop" keeps complete rows only (45,222).
    as_frame : bool, default=True
        Whether tables are pandas objects (else numpy arrays).
    download : {"auto", "never"}, default="auto"
        Whether an absent file may be downloaded (needs ``privfair[data]``; never while
        ``PRIVFAIR_OFFLINE`` is set, and never with ``fallback="embedded"``).
    verify : bool, default=True
        With False a wrong checksum is a warning, and the result has ``verified=False``.
    fallback : {"error", "embedded"}, default="error"
        What to do where the real files are absent: raise, or return the differentially private
        synthetic edition that ships with privfair, marked ``embedded=True``.

    Returns
    -------
    DatasetBunch
        ``target`` is 1 for an income above $50,000; ``sensitive`` holds sex and race;
        ``sample_weight`` holds fnlwgt, which is never a feature.

    Raises
    ------
    DataNotAvailableError
        The files are nowhere and may not be downloaded; the text says how to get them.
    DataIntegrityError
        A file has another checksum than the registered one.

    Notes
    -----
    Privacy: the real rows are public survey data and carry no guarantee. The embedded edition's
    certificate is in ``privacy``.

    References
    ----------
    Becker and Kohavi (1996), Adult, UCI Machine Learning Repository, DOI 10.24432/C5XW20.
    Ding, Hardt, Miller and Schmidt (2021), Retiring Adult, arXiv 2108.04884.

    Examples
    --------
    >>> from privfair.datasets import fetch_adult, is_available
    >>> if is_available("adult"):
    ...     adult = fetch_adult(split="test")
    ...     assert adult.data.shape == (16281, 13)
    """
    check.one_of(("all", "train", "test"), split=split)
    check.one_of(("category", "drop"), missing=missing)
    check.one_of(("error", "embedded"), fallback=fallback)
    check.boolean(as_frame=as_frame)
    keys = ("train", "test") if split == "all" else (split,)
    try:
        found = read_files(
            "adult",
            keys,
            data_home=data_home,
            # A fallback is there so that nothing waits for a network.
            download="never" if fallback == "embedded" else download,
            verify=verify,
        )
    except DataNotAvailableError:
        if fallback == "error":
            raise
        from privfair.datasets._embedded import load_adult

        return load_adult(split=split, missing=missing, as_frame=as_frame)
    import pandas as pd

    from privfair.datasets._bunch import provenance

    frame = pd.concat(
        [_parse(content(f), str(f.path), f.spec.key) for f in found], ignore_index=True
    )
    if missing == "drop":
        frame = frame.dropna(ignore_index=True)
    return assemble(frame, missing=missing, as_frame=as_frame, origin=provenance(found))


def assemble(
    frame: pd.DataFrame,
    *,
    missing: str,
    as_frame: bool,
    origin: dict[str, Any],
    **extra: Any,
) -> DatasetBunch:
    """Turn the raw columns (and ``split``) into a Bunch; shared with the synthetic editions."""
    from privfair.datasets._bunch import build

    schema = adult_schema(missing == "category")
    data = frame[schema.names].copy()
    for name in schema.categorical:
        data[name] = data[name].astype("str").fillna(MISSING)
    policy = (
        'all rows kept, "?" is the category "missing"'
        if missing == "category"
        else 'rows with "?" dropped (complete cases)'
    )
    notes = [
        f"Missing values: {policy}.",
        "Target: 1 = income above $50,000.",
        "fnlwgt is sample_weight, not a feature; education and education-num are one-to-one.",
        "Official train/test split, rows in the order of the files.",
    ]
    options: dict[str, Any] = {"version": VERSION, "notes": notes, **extra}
    return build(
        get_spec("adult"),
        data=data,
        target=frame["income"].astype("int64"),
        target_names=TARGET_NAMES,
        sensitive=data[list(SENSITIVE)].copy(),
        sample_weight=frame["fnlwgt"].astype("float64"),
        schema=schema,
        origin=origin,
        as_frame=as_frame,
        split=frame["split"].astype("str"),
        missing=missing,
        **options,
    )
