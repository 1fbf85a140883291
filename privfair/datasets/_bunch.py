"""The object that every loader returns."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError

if TYPE_CHECKING:
    import pandas as pd

    from privfair.core.schema import Schema
    from privfair.datasets._files import VerifiedFile
    from privfair.datasets._registry import DatasetSpec

__all__ = ["DatasetBunch", "build", "read_table"]

MAX_COLUMNS = 200


class DatasetBunch(Bunch):  # type: ignore[misc] # scikit-learn's classes carry no types
    """A scikit-learn ``Bunch`` that describes itself without printing any row.

    Attributes
    ----------
    data : DataFrame or ndarray
        The features.
    target : Series or ndarray
        The label.
    sensitive : DataFrame, ndarray or None
        The protected attributes, aligned with ``data``.
    sample_weight : Series, ndarray or None
        Survey weights or exposure, never a feature.
    feature_names, target_names, sensitive_names : list of str
        Column names; ``target_names[k]`` says what the label k means.
    DESCR : str
        What the data are, how they were read, and what to beware of.
    license, source, name, version : str
        Terms, official address, registered name and the edition read.
    sha256 : dict of str to str
        Hash of each file read, by file name.
    path : dict of str to str
        Path of each file read, by file name.
    caveats : list of str
        What a report must print beside results from these data.
    schema : Schema
        Public bounds, categories and cut points of ``data``.
    verified : bool
        Whether every file had the registered checksum.
    embedded : bool
        Whether these are differentially private synthetic rows shipped with privfair.
    privacy : dict or None
        The certificate of an embedded edition.
    """

    def __repr__(self) -> str:
        lines = [self._headline()]
        lines += [f"  {key}: {value}" for key, value in self._facts()]
        return "\n".join(lines)

    __str__ = __repr__

    def _headline(self) -> str:
        return f"{self.get('name')} (version {self.get('version')})"

    def _facts(self) -> list[tuple[str, str]]:
        shape = getattr(self.get("data"), "shape", None)
        facts = [
            ("rows x features", " x ".join(str(k) for k in shape) if shape else "unknown"),
            ("target", f"{self.get('target_name')} {self.get('target_names') or ''}".strip()),
            ("sensitive", ", ".join(self.get("sensitive_names") or []) or "none"),
            ("verified", str(self.get("verified"))),
            ("embedded", str(self.get("embedded"))),
            ("license", str(self.get("license"))),
        ]
        if self.get("embedded"):
            facts.insert(0, ("note", "embedded differentially private synthetic data"))
        return facts

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row'>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>"
            for k, v in self._facts()
        )
        return f"<table><caption>{html.escape(self._headline())}</caption>{rows}</table>"


def read_table(
    data: bytes, label: str, columns: Sequence[str] | None, **options: Any
) -> pd.DataFrame:
    """Parse delimited text that may be hostile: the columns must be exactly the known ones."""
    import io
    import warnings

    import pandas as pd

    bad = (
        f"{label} does not look like the registered file (wrong columns or not a table). Delete "
        "it and fetch it again."
    )
    head = data[:65536].split(b"\n", 1)[0]
    if b"\x00" in data[:65536] or max(head.count(b","), head.count(b";")) > MAX_COLUMNS:
        raise DataError(bad)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(io.BytesIO(data), **options)
    except (ValueError, UnicodeDecodeError, OverflowError, pd.errors.ParserWarning) as error:
        raise DataError(bad) from error
    if columns is not None and list(frame.columns) != list(columns):
        raise DataError(bad)
    return frame


def split_mask(split: str, labels: np.ndarray[Any, Any] | None, name: str) -> Any:
    """Return the rows of a split, after checking that there is one."""
    if labels is None:
        if split != "all":
            raise InvalidParameterError(
                f"split must be 'all' for {name}, which has no official split; got {split!r}. "
                "Split the rows yourself and state the seed."
            )
        return slice(None)
    check.one_of(("train", "test", "all"), split=split)
    return slice(None) if split == "all" else labels == split


def describe(spec: DatasetSpec, version: str, notes: Sequence[str], first: str = "") -> str:
    """Return the DESCR text."""
    lines = [first] if first else []
    lines += [
        f"{spec.title} (version {version})",
        "=" * (len(spec.title) + len(version) + 11),
        f"Source: {spec.source}" + (f", DOI {spec.doi}" if spec.doi else ""),
        f"Reference: {spec.citation}",
        f"License: {spec.license}",
        "",
        "How it was read:",
        *[f"* {note}" for note in notes],
        "",
        "Caveats:",
        *[f"* {caveat}" for caveat in spec.caveats],
    ]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    if value is None:
        return None
    return np.asarray(value.to_numpy())


def provenance(files: Sequence[VerifiedFile]) -> dict[str, Any]:
    """Return the keys of a Bunch that say where its bytes came from."""
    return {
        "path": {f.spec.name: str(Path(f.path)) for f in files},
        "sha256": {f.spec.name: f.sha256 for f in files},
        "verified": all(f.verified for f in files),
    }


def build(
    spec: DatasetSpec,
    *,
    version: str,
    data: pd.DataFrame,
    target: pd.Series[Any],
    target_names: Sequence[str],
    sensitive: pd.DataFrame | None,
    schema: Schema,
    origin: Mapping[str, Any],
    notes: Sequence[str],
    as_frame: bool,
    sample_weight: pd.Series[Any] | None = None,
    first_line: str = "",
    embedded: bool = False,
    privacy: dict[str, Any] | None = None,
    caveats: Sequence[str] | None = None,
    **extra: Any,
) -> DatasetBunch:
    """Assemble a Bunch; with ``as_frame=False`` its tables become arrays."""
    check.boolean(as_frame=as_frame)
    parts: dict[str, Any] = {
        "data": data,
        "target": target,
        "sensitive": sensitive,
        "sample_weight": sample_weight,
        **extra,
    }
    if not as_frame:
        parts = {
            key: _plain(value) if hasattr(value, "to_numpy") else value
            for key, value in parts.items()
        }
    return DatasetBunch(
        **parts,
        feature_names=list(data.columns),
        target_name=str(target.name),
        target_names=list(target_names),
        sensitive_names=[] if sensitive is None else list(sensitive.columns),
        DESCR=describe(spec, version, notes, first_line),
        license=spec.license,
        source=spec.source,
        caveats=list(spec.caveats if caveats is None else caveats),
        schema=schema,
        name=spec.name,
        version=version,
        embedded=embedded,
        privacy=privacy,
        **origin,
    )
