"""Extension points: in-process registration and entry points, one table per kind."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from privfair.core.exceptions import InvalidParameterError

__all__ = ["KINDS", "available", "load", "register"]

KINDS = ("mechanisms", "metrics", "accountants", "report_sections", "datasets")
_REGISTERED: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
T = TypeVar("T")


def _table(kind: str) -> dict[str, Any]:
    if kind not in _REGISTERED:
        raise InvalidParameterError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    return _REGISTERED[kind]


def register(kind: str, name: str) -> Callable[[T], T]:
    """Register an object under a name, as a decorator.

    A name taken by another object is refused: silently replacing a metric or a mechanism would
    change what a report says.

    Parameters
    ----------
    kind : {"mechanisms", "metrics", "accountants", "report_sections", "datasets"}
    name : str
        Under which :func:`load` finds the object.

    Returns
    -------
    callable
        The decorator; it returns the object as it is.

    Raises
    ------
    InvalidParameterError
        An unknown kind, or a name that is taken.

    Examples
    --------
    >>> @register("datasets", "doctest_rows")
    ... def rows():
    ...     return [1, 2, 3]
    >>> load("datasets", "doctest_rows")()
    [1, 2, 3]
    """
    table = _table(kind)

    def put(item: T) -> T:
        if name in table and table[name] is not item:
            raise InvalidParameterError(f"{kind} already has an entry named {name!r}.")
        table[name] = item
        return item

    return put


def available(kind: str) -> list[str]:
    """Return the names registered in this process or by installed packages.

    Parameters
    ----------
    kind : {"mechanisms", "metrics", "accountants", "report_sections", "datasets"}

    Returns
    -------
    list of str
        Sorted.

    Examples
    --------
    >>> isinstance(available("metrics"), list)
    True
    """
    found = {entry.name for entry in entry_points(group=f"privfair.{kind}")}
    return sorted(found | set(_table(kind)))


def load(kind: str, name: str) -> Any:
    """Return the object registered under a name, importing its package if need be.

    Parameters
    ----------
    kind : {"mechanisms", "metrics", "accountants", "report_sections", "datasets"}
    name : str
        One of :func:`available`.

    Returns
    -------
    object

    Raises
    ------
    InvalidParameterError
        An unknown kind or name; the message lists what there is.

    Examples
    --------
    >>> load("metrics", "no such metric")
    Traceback (most recent call last):
        ...
    privfair.core.exceptions.InvalidParameterError: no entry named 'no such metric' ...
    """
    table = _table(kind)
    if name in table:
        return table[name]
    for entry in entry_points(group=f"privfair.{kind}"):
        if entry.name == name:
            return entry.load()
    raise InvalidParameterError(
        f"no entry named {name!r} in {kind}; available: {', '.join(available(kind)) or 'none'}."
    )
