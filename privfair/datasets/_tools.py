"""Whole-set operations behind ``privfair data``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from privfair.core.exceptions import DataNotAvailableError
from privfair.datasets._files import (
    cache_dir,
    file_state,
    offline,
    search_path,
    unavailable_message,
)
from privfair.datasets._registry import available_datasets, get_spec

__all__ = ["download_dataset", "verify_datasets"]


def download_dataset(name: str, to: str | os.PathLike[str] | None = None) -> list[str]:
    """Download every file of a data set that the target folder does not hold yet.

    Parameters
    ----------
    name : str
        One of :func:`available_datasets`.
    to : path or None, default=None
        Target; None is the user's cache. Files go to ``to/<folder>/<file>``, the layout that
        ``PRIVFAIR_DATA_DIR`` and ``data_home`` accept.

    Returns
    -------
    list of str
        The paths of all files, each verified.

    Raises
    ------
    DataNotAvailableError
        ``PRIVFAIR_OFFLINE`` is set, the set is not offered for download, or no address
        delivered it.
    DataIntegrityError
        A file is there, or came, with another checksum.
    MissingDependencyError
        pooch is not installed.

    Examples
    --------
    >>> import tempfile
    >>> try:
    ...     download_dataset("motor", tempfile.mkdtemp())
    ... except FileNotFoundError as error:
    ...     print(type(error).__name__)
    DataNotAvailableError
    """
    from privfair.datasets._download import download_file
    from privfair.datasets._files import _read

    spec = get_spec(name)
    target = Path(to) if to is not None else cache_dir()
    paths = []
    for file in spec.files.values():
        there = _read(spec, file, [target], True)
        if there is not None:
            paths.append(str(there.path))
            continue
        if offline() or not (file.urls or file.archives):
            raise DataNotAvailableError(unavailable_message(spec, [target]))
        paths.append(str(download_file(spec, file, target / spec.folder, [target])))
    return paths


def verify_datasets(
    name: str | None = None, data_home: str | os.PathLike[str] | None = None
) -> list[dict[str, Any]]:
    """Check the files that are found against the registry.

    Parameters
    ----------
    name : str or None, default=None
        One data set, or all.
    data_home : path or None, default=None
        Searched first.

    Returns
    -------
    list of dict
        One entry per registered file: ``dataset, file, optional, status, path,
        expected_sha256, sha256, message``, where status is "ok", "absent", "mismatch" or
        "unreadable".

    Examples
    --------
    >>> {entry["status"] for entry in verify_datasets("adult")} <= {
    ...     "ok", "absent", "mismatch", "unreadable"}
    True
    """
    folders = search_path(data_home)
    names = available_datasets() if name is None else [name]
    return [
        file_state(spec, file, folders)
        for spec in map(get_spec, names)
        for file in spec.files.values()
    ]
