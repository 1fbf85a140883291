"""COMPAS: ProPublica's two-year recidivism file, without the people in it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, DataNotAvailableError, InvalidParameterError
from privfair.datasets._files import content, read_files
from privfair.datasets._registry import get_spec
from privfair.datasets._schemas import compas_schema

if TYPE_CHECKING:
    import pandas as pd

    from privfair.datasets._bunch import DatasetBunch

__all__ = ["IDENTIFIERS", "fetch_compas"]

IDENTIFIERS = (
    "name",
    "first",
    "last",
    "dob",
    "c_case_number",
    "r_case_number",
    "vr_case_number",
)
SENSITIVE = ("race", "sex", "age_cat")
TARGET = "two_year_recid"
TARGET_NAMES = ("no", "yes")
HIGH_ABOVE = 4
LAST_SCREENING = "2014-04-01"
TRAIN_SHARE = 0.7
SPLIT_SALT = "privfair-compas-split-1:"
_NEEDED = (
    "id",
    "compas_screening_date",
    "days_b_screening_arrest",
    "is_recid",
    "v_decile_score",
    "v_score_text",
    *compas_schema().names,
    TARGET,
)


def split_of(row_ids: Any) -> np.ndarray[Any, Any]:
    """Return "train" or "test" per row from the row's own number and nothing else.

    A row is in the training part if the first 8 bytes of SHA-256(salt + id), as a fraction of
    2**64, lie below 0.7. One person's presence never moves another person across the split.

    Examples
    --------
    >>> split_of([1, 3, 4]).tolist() == split_of([3, 4, 1])[[2, 0, 1]].tolist()
    True
    """
    threshold = int(TRAIN_SHARE * 2**64)
    parts = [
        "train"
        if int.from_bytes(hashlib.sha256(f"{SPLIT_SALT}{int(i)}".encode()).digest()[:8], "big")
        < threshold
        else "test"
        for i in row_ids
    ]
    return np.array(parts, dtype=object)


def _parse(data: bytes, label: str) -> pd.DataFrame:
    from privfair.datasets._bunch import read_table

    # "N/A" is a score text of its own and must not become a missing value.
    frame = read_table(data, label, None, low_memory=False, keep_default_na=False, na_values=[""])
    if not set(_NEEDED) <= set(frame.columns) or not set(IDENTIFIERS) <= set(frame.columns):
        raise DataError(
            f"{label} does not look like the registered file (columns absent). Delete it and "
            "fetch it again."
        )
    twins = [name for name in frame.columns if name.endswith(".1")]
    for twin in twins:
        if not frame[twin].equals(frame[twin.removesuffix(".1")].rename(twin)):
            raise DataError(f"{label}: the repeated column {twin[:-2]!r} has two versions.")
    return frame.drop(columns=twins)


def _propublica_filter(frame: pd.DataFrame, text: str) -> pd.DataFrame:
    keep = (
        (frame["days_b_screening_arrest"].abs() <= 30)
        & (frame["is_recid"] != -1)
        & (frame["c_charge_degree"] != "O")
        & (frame[text] != "N/A")
    )
    return frame[keep]


def fetch_compas(
    *,
    version: str = "propublica",
    outcome: str = "any",
    data_home: str | os.PathLike[str] | None = None,
    split: str = "all",
    columns: str = "features",
    include_identifiers: bool = False,
    as_frame: bool = True,
    download: str = "auto",
    verify: bool = True,
    fallback: str = "error",
) -> DatasetBunch:
    """Load COMPAS: was a defendant re-arrested within two years?

    Parameters
    ----------
    version : {"propublica", "filtered", "corrected"}, default="propublica"
        All 7,214 rows, from which the well-known error rates come; ProPublica's filter (6,172
        rows); or screening dates up to 2014-04-01 only (6,216 rows), which undoes the known
        error in the two-year cut-off. Name the version in every report.
    outcome : {"any", "violent"}, default="any"
        "violent" reads the file on violent recidivism with its own score.
    data_home : path or None, default=None
        Folder searched first; also the target of a download.
    split : {"all", "train", "test"}, default="all"
        There is no official split. This one puts 70 % of the rows into "train" by a hash of
        each row's number; the embedded edition was fitted on the "train" part.
    columns : {"features", "all"}, default="features"
        "all" adds dates, charges and every other column that identifies nobody by name. Those
        columns reveal the label: do not train on them.
    include_identifiers : bool, default=False
        Whether the result has ``identifiers``, a table of names, dates of birth and case
        numbers of real people. They never enter ``data`` and no display shows them.
    as_frame : bool, default=True
        Whether tables are pandas objects (else numpy arrays).
    download : {"auto", "never"}, default="auto"
        As in :func:`fetch_adult`.
    verify : bool, default=True
        As in :func:`fetch_adult`.
    fallback : {"error", "embedded"}, default="error"
        "embedded" returns the differentially private synthetic edition where the real file is
        absent. It was made from the filtered rows: its ``version`` is "filtered" whatever
        version was asked for. It has no other outcome, columns or identifiers.

    Returns
    -------
    DatasetBunch
        ``target`` is 1 for a re-arrest; ``sensitive`` holds race, sex and age_cat; ``score`` is
        the decile score and ``decision`` whether it is above 4.

    Raises
    ------
    DataNotAvailableError
        The file is nowhere and may not be downloaded.
    DataIntegrityError
        The file has another checksum than the registered one.

    Notes
    -----
    Privacy: court records of real people; no guarantee. The embedded edition's certificate is
    in ``privacy``.

    References
    ----------
    Angwin, Larson, Mattu and Kirchner (2016), Machine Bias, ProPublica.
    Barenstein (2019), ProPublica's COMPAS Data Revisited, arXiv 1906.04711.

    Examples
    --------
    >>> from privfair.datasets import fetch_compas, is_available
    >>> if is_available("compas"):
    ...     compas = fetch_compas(version="filtered")
    ...     assert len(compas.data) == 6172
    """
    check.one_of(("propublica", "filtered", "corrected"), version=version)
    check.one_of(("any", "violent"), outcome=outcome)
    check.one_of(("all", "train", "test"), split=split)
    check.one_of(("features", "all"), columns=columns)
    check.one_of(("error", "embedded"), fallback=fallback)
    check.boolean(include_identifiers=include_identifiers)
    check.boolean(as_frame=as_frame)
    try:
        found = read_files(
            "compas",
            ("main" if outcome == "any" else "violent",),
            data_home=data_home,
            download="never" if fallback == "embedded" else download,
            verify=verify,
        )
    except DataNotAvailableError as error:
        if fallback == "error":
            raise
        if outcome != "any" or include_identifiers or columns != "features":
            raise InvalidParameterError(
                "the embedded edition holds outcome='any' and columns='features' without "
                "identifiers, and the real file is absent. Ask for that, or get the real file."
            ) from error
        from privfair.datasets._embedded import load_compas

        return load_compas(split=split, as_frame=as_frame)
    from privfair.datasets._bunch import provenance, split_mask

    frame = _parse(content(found[0]), str(found[0].path))
    if outcome == "violent":
        # The violent file judges the violence score, under the names of the general one.
        frame = frame.assign(
            decile_score=frame["v_decile_score"], score_text=frame["v_score_text"]
        )
    if version == "filtered":
        frame = _propublica_filter(frame, "score_text")
    elif version == "corrected":
        frame = frame[frame["compas_screening_date"] <= LAST_SCREENING]
    frame = frame.reset_index(drop=True)
    frame["split"] = split_of(frame["id"])
    frame = frame[split_mask(split, frame["split"].to_numpy(), "compas")].reset_index(drop=True)
    extra: dict[str, Any] = {"version": version, "outcome": outcome}
    if include_identifiers:
        extra["identifiers"] = frame[list(IDENTIFIERS)].copy()
    return assemble(frame, columns=columns, as_frame=as_frame, origin=provenance(found), **extra)


def assemble(
    frame: pd.DataFrame,
    *,
    version: str,
    as_frame: bool,
    origin: dict[str, Any],
    columns: str = "features",
    outcome: str = "any",
    notes: tuple[str, ...] = (),
    **extra: Any,
) -> DatasetBunch:
    """Turn raw columns into a Bunch without identifiers; shared with the synthetic editions."""
    from privfair.datasets._bunch import build

    schema = compas_schema()
    names = schema.names
    if columns == "all":
        names = [n for n in frame.columns if n not in {*IDENTIFIERS, TARGET, "split"}]
    data = frame[names].copy()
    for name in schema.categorical:
        data[name] = data[name].astype("str")
    for name in schema.numeric:
        data[name] = data[name].astype("int64")
    text = [
        f"Version {version!r}, outcome {outcome!r}; say so beside every result.",
        "Target: 1 = re-arrested within two years. decision = decile_score > 4.",
        "Split by a hash of each row's number (70 % train); there is no official one.",
        *notes,
    ]
    return build(
        get_spec("compas"),
        version=version,
        data=data,
        target=frame[TARGET].astype("int64"),
        target_names=TARGET_NAMES,
        sensitive=data[list(SENSITIVE)].copy(),
        schema=schema,
        origin=origin,
        notes=text,
        as_frame=as_frame,
        score=data["decile_score"].copy(),
        decision=(data["decile_score"] > HIGH_ABOVE).astype("int64").rename("decision"),
        split=frame["split"].astype("str"),
        outcome=outcome,
        **extra,
    )
