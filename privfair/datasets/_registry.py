"""What is known about each data set before any byte is read: names, sizes, hashes, sources."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

__all__ = [
    "Archive",
    "DatasetSpec",
    "FileSpec",
    "available_datasets",
    "dataset_info",
    "get_spec",
    "registry_version",
]

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Archive:
    """An official zip file in which a registered file lies, under exact member names."""

    name: str
    members: tuple[str, ...]
    max_size: int
    url: str


@dataclass(frozen=True)
class FileSpec:
    """One pinned file.

    ``unpacked_size`` and ``unpacked_sha256`` belong to gzip files: their content is pinned, too.
    """

    key: str
    name: str
    size: int
    sha256: str
    urls: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    optional: bool = False
    unpacked_size: int | None = None
    unpacked_sha256: str | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """One data set of the registry."""

    name: str
    title: str
    folder: str
    source: str
    doi: str | None
    citation: str
    license: str
    rows: str
    caveats: tuple[str, ...]
    files: Mapping[str, FileSpec]
    embedded: bool = False
    manual: str | None = None


def _checked(spec: FileSpec) -> FileSpec:
    """Refuse an entry that could lead outside a data folder or off https."""
    names = [spec.name, *(a.name for a in spec.archives)]
    links = [*spec.urls, *(a.url for a in spec.archives)]
    if not all(_SAFE_NAME.fullmatch(name) for name in names):
        raise InvalidParameterError(f"registry: unsafe file name in {names}.")
    if not all(link.startswith("https://") for link in links):
        raise InvalidParameterError(f"registry: only https addresses are allowed, got {links}.")
    if not _SHA256.fullmatch(spec.sha256) or spec.size <= 0:
        raise InvalidParameterError(f"registry: {spec.name} needs a sha256 and a size.")
    return spec


def _file(key: str, entry: dict[str, Any]) -> FileSpec:
    fields = dict(entry)
    archives = tuple(
        Archive(a["name"], tuple(a["members"]), a["max_size"], a["url"])
        for a in fields.pop("archives", ())
    )
    return _checked(
        FileSpec(key=key, urls=tuple(fields.pop("urls", ())), archives=archives, **fields)
    )


def parse_registry(text: str) -> tuple[int, dict[str, DatasetSpec]]:
    """Read and check a registry from its JSON text."""
    raw = json.loads(text)
    specs = {}
    for name, entry in raw["datasets"].items():
        fields = dict(entry)
        members = {key: _file(key, value) for key, value in fields.pop("files").items()}
        if not _SAFE_NAME.fullmatch(fields["folder"]):
            raise InvalidParameterError(f"registry: unsafe folder name {fields['folder']!r}.")
        fields["caveats"] = tuple(fields["caveats"])
        specs[name] = DatasetSpec(name=name, files=members, **fields)
    return int(raw["version"]), specs


@lru_cache(maxsize=1)
def _registry() -> tuple[int, dict[str, DatasetSpec]]:
    return parse_registry(files("privfair.datasets").joinpath("registry.json").read_text("utf-8"))


def registry_version() -> int:
    """Return the registry's version, which names the cache folder."""
    return _registry()[0]


def available_datasets() -> list[str]:
    """Return the names of all registered data sets.

    Examples
    --------
    >>> available_datasets()[:3]
    ['adult', 'bank', 'california_housing']
    """
    return sorted(_registry()[1])


def get_spec(name: str) -> DatasetSpec:
    """Return the registry entry of a data set; an unknown name suggests the nearest one."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"name must be a string, got {type(name).__name__}.")
    specs = _registry()[1]
    if name not in specs:
        near = difflib.get_close_matches(name, specs, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidParameterError(
            f"name must be one of {', '.join(available_datasets())}; got {name[:80]!r}.{hint}"
        )
    return specs[name]


def dataset_info(name: str) -> dict[str, Any]:
    """Return what the registry says about a data set, as plain JSON data.

    Parameters
    ----------
    name : str
        One of :func:`available_datasets`.

    Examples
    --------
    >>> dataset_info("german")["license"]
    'CC BY 4.0'
    """
    spec = get_spec(name)
    return {
        "name": spec.name,
        "title": spec.title,
        "rows": spec.rows,
        "license": spec.license,
        "source": spec.source,
        "doi": spec.doi,
        "citation": spec.citation,
        "caveats": list(spec.caveats),
        "embedded": spec.embedded,
        "manual": spec.manual,
        "files": [
            {
                "name": f.name,
                "folder": spec.folder,
                "size": f.size,
                "sha256": f.sha256,
                "optional": f.optional,
                "urls": [*f.urls, *(a.url for a in f.archives)],
            }
            for f in spec.files.values()
        ],
    }
