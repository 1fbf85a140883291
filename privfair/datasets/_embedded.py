"""The differentially private synthetic editions that ship with privfair."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from privfair.core.exceptions import DataIntegrityError, DataNotAvailableError
from privfair.datasets._archive import gunzip

if TYPE_CHECKING:
    import pandas as pd

    from privfair.datasets._bunch import DatasetBunch

__all__ = ["certificate", "has_embedded", "load_adult", "load_compas"]

PACKAGE = "privfair.datasets.embedded"
MAX_CSV = 32 * 1024 * 1024


def _resource(name: str) -> bytes:
    try:
        return files(PACKAGE).joinpath(name).read_bytes()
    except FileNotFoundError as error:
        raise DataNotAvailableError(
            f"This installation of privfair has no embedded file {name!r}: it was built without "
            "the embedded editions. Install an official wheel, or provide the real files "
            "(privfair data info shows how)."
        ) from error


def has_embedded(name: str) -> bool:
    """Whether this installation holds the embedded edition of a data set."""
    folder = files(PACKAGE)
    return all(folder.joinpath(f"{name}.{ending}").is_file() for ending in ("json", "csv.gz"))


def certificate(name: str) -> dict[str, Any]:
    """Return the certificate of an embedded edition.

    Raises
    ------
    DataNotAvailableError
        The edition is not part of this installation.
    DataIntegrityError
        The certificate cannot be read.
    """
    try:
        loaded = json.loads(_resource(f"{name}.json"))
    except ValueError as error:
        raise DataIntegrityError(
            f"The certificate of the embedded {name} edition cannot be read; reinstall privfair."
        ) from error
    if not isinstance(loaded, dict) or loaded.get("schema") != 1:
        raise DataIntegrityError(
            f"The certificate of the embedded {name} edition has an unknown schema; reinstall "
            "privfair."
        )
    return loaded


@lru_cache(maxsize=2)
def _verified_csv(name: str) -> tuple[bytes, str]:
    packed = _resource(f"{name}.csv.gz")
    expected = certificate(name)["sha256"]
    actual = hashlib.sha256(packed).hexdigest()
    if actual != expected:
        raise DataIntegrityError(
            f"The embedded file {name}.csv.gz has sha256 {actual}, its certificate states "
            f"{expected}. Reinstall privfair."
        )
    return gunzip(packed, limit=MAX_CSV, label=f"embedded {name}.csv.gz"), actual


def _frame(name: str, columns: tuple[str, ...]) -> tuple[pd.DataFrame, dict[str, Any]]:
    from privfair.datasets._bunch import read_table

    data, sha256 = _verified_csv(name)
    frame = read_table(data, f"embedded {name}", columns, keep_default_na=False)
    path = str(files(PACKAGE).joinpath(f"{name}.csv.gz"))
    origin = {
        "path": {f"{name}.csv.gz": path},
        "sha256": {f"{name}.csv.gz": sha256},
        "verified": True,
    }
    return frame, origin


def _texts(name: str, cert: dict[str, Any]) -> dict[str, Any]:
    from privfair.datasets._registry import get_spec

    spec = get_spec(name)
    promise = cert["guarantee"]
    first = (
        f"EMBEDDED DP SYNTHETIC DATA, not the real {spec.title}: "
        f"epsilon = {promise['epsilon']:.6g}, delta = {promise['delta']:.3g} per record."
    )
    own = (
        "These rows are differentially private synthetic data shipped with privfair "
        f"(epsilon {promise['epsilon']:.6g}, delta {promise['delta']:.3g}), for demonstrations "
        "and tests; not for decisions about people and not for findings about the real data.",
        "The features are independent of each other given "
        f"{' and '.join(cert['root'])}: other dependences of the real data are lost.",
    )
    return {
        "first_line": first,
        "embedded": True,
        "privacy": cert,
        "caveats": [*own, *spec.caveats],
    }


def _pick(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    if split == "all":
        return frame
    return frame[frame["split"] == split].reset_index(drop=True)


def load_adult(*, split: str, missing: str, as_frame: bool) -> DatasetBunch:
    """Return the embedded edition of Adult."""
    from privfair.datasets import _adult
    from privfair.datasets._schemas import MISSING, adult_schema

    cert = certificate("adult")
    schema = adult_schema(True)
    frame, origin = _frame("adult", (*schema.names, "income", "split"))
    frame = _pick(frame, split)
    if missing == "drop":
        with_missing = [
            c for c, column in schema.items() if MISSING in getattr(column, "values", ())
        ]
        frame = frame[~(frame[with_missing] == MISSING).any(axis=1)].reset_index(drop=True)
    # The survey weight was not released: a constant stands in its place.
    frame = frame.assign(fnlwgt=1)
    return _adult.assemble(
        frame,
        missing=missing,
        as_frame=as_frame,
        origin=origin,
        version="embedded",
        notes=(
            f"Missing values: policy {missing!r}. Target: 1 = income above $50,000.",
            "fnlwgt was not released: sample_weight is the constant 1.",
            "education is computed from education-num; countries other than United-States, "
            "Mexico and missing are drawn uniformly from the documented list.",
            "Fixed 2:1 train/test split, stored with the rows. Fitted on the official training "
            "rows only.",
        ),
        **_texts("adult", cert),
    )


def load_compas(*, split: str, as_frame: bool) -> DatasetBunch:
    """Return the embedded edition of COMPAS (filtered version)."""
    from privfair.datasets import _compas
    from privfair.datasets._schemas import compas_schema

    cert = certificate("compas")
    names = (*compas_schema().names, _compas.TARGET, "split")
    frame, origin = _frame("compas", names)
    return _compas.assemble(
        _pick(frame, split),
        version="filtered",
        as_frame=as_frame,
        origin=origin,
        notes=(
            "Embedded edition: made from the training part of the filtered rows; here the "
            "split is a fixed 2:1 one, stored with the rows.",
            "age_cat is computed from age and score_text from decile_score.",
        ),
        **_texts("compas", cert),
    )
