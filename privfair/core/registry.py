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
    """
    table = _table(kind)

    def put(item: T) -> T:
        if name in table and table[name] is not item:
            raise InvalidParameterError(f"{kind} already has an entry named {name!r}.")
        table[name] = item
        return item

    return put


def available(kind: str) -> list[str]:
    """Return the names registered in this process or by installed packages."""
    found = {entry.name for entry in entry_points(group=f"privfair.{kind}")}
    return sorted(found | set(_table(kind)))


def load(kind: str, name: str) -> Any:
    """Return the object registered under a name, importing its package if need be."""
    table = _table(kind)
    if name in table:
        return table[name]
    for entry in entry_points(group=f"privfair.{kind}"):
        if entry.name == name:
            return entry.load()
    raise InvalidParameterError(
        f"no entry named {name!r} in {kind}; available: {', '.join(available(kind)) or 'none'}."
    )
