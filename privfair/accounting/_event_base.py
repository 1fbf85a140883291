"""Base class of the events, their JSON form, and the checks that they share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from privfair.core import _validation as check
from privfair.core._format import json_number
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    SchemaVersionError,
    UnsupportedEventError,
)

__all__ = [
    "SCHEMA",
    "AccountedEvent",
    "at_least",
    "check_batch",
    "check_event",
    "event_from_dict",
    "several",
]

SCHEMA = 1
"""Version of the JSON form of the events."""

_KINDS: dict[str, type[AccountedEvent]] = {}


@dataclass(frozen=True)
class AccountedEvent:
    """Base class of all events.

    Attributes
    ----------
    kind : str
        Name of the event in JSON; the class's name.
    schema : int
        Version of the JSON form.
    """

    kind: ClassVar[str] = ""
    schema: ClassVar[int] = SCHEMA

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__
        _KINDS[cls.kind] = cls

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the event as strict JSON data."""
        out: dict[str, Any] = {"schema": self.schema, "kind": self.kind}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, AccountedEvent):
                out[item.name] = value.to_dict()
            elif isinstance(value, tuple):
                out[item.name] = [part.to_dict() for part in value]
            else:
                out[item.name] = json_number(value)
        return out

    def describe(self) -> str:
        """Return what happened to the data in plain words.

        Examples
        --------
        >>> from privfair.accounting import Gaussian, SelfComposed
        >>> SelfComposed(Gaussian(2.0), 3).describe()
        '3 times (Gaussian noise of 2 times what one unit can contribute)'
        """
        from privfair.accounting._words import describe

        return describe(self)


def event_from_dict(data: Any) -> AccountedEvent:
    """Return the event that :meth:`AccountedEvent.to_dict` described.

    Parameters
    ----------
    data : dict
        JSON data with ``schema`` and ``kind``.

    Raises
    ------
    UnsupportedEventError
        The kind is not known.
    SchemaVersionError
        The event was written by a newer version.

    Examples
    --------
    >>> from privfair.accounting import Gaussian
    >>> event_from_dict({"schema": 1, "kind": "Gaussian", "sigma": 2.0})
    Gaussian(sigma=2.0)
    """
    if not isinstance(data, dict) or "kind" not in data:
        raise InvalidTypeError("an event is a JSON object with the keys 'schema' and 'kind'.")
    if int(data.get("schema", SCHEMA)) > SCHEMA:
        raise SchemaVersionError(
            f"event {data['kind']!r} has schema version {data['schema']}; this version of "
            f"privfair reads up to {SCHEMA}. Install a newer privfair."
        )
    cls = _KINDS.get(str(data["kind"]))
    if cls is None:
        raise UnsupportedEventError(
            f"unknown event {data['kind']!r}; known are {', '.join(sorted(_KINDS))}. An event "
            "that nobody can price is never treated as free."
        )
    names = {item.name for item in fields(cls)}
    given = {key: value for key, value in data.items() if key not in ("schema", "kind")}
    if extra := sorted(set(given) - names):
        raise InvalidParameterError(f"event {cls.kind} has no field {extra[0]!r}.")
    if missing := sorted(names - set(given)):
        raise InvalidParameterError(f"event {cls.kind} needs the field {missing[0]!r}.")
    return cls(**{key: _decode(value) for key, value in given.items()})


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return event_from_dict(value)
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return math.inf if value == "inf" else value


def at_least(low: int, **kwargs: int) -> int:
    value = check.positive_int(**kwargs)
    if value < low:
        name = next(iter(kwargs))
        raise InvalidParameterError(f"{name} must be an integer >= {low}, got {value}.")
    return value


def check_event(**kwargs: Any) -> None:
    ((name, value),) = kwargs.items()
    if not isinstance(value, AccountedEvent):
        raise InvalidTypeError(
            f"{name} must be an event of privfair.accounting.events, got "
            f"{type(value).__name__}. Convert events of dp_accounting with from_dp_accounting."
        )


def several(events: Iterable[AccountedEvent]) -> tuple[AccountedEvent, ...]:
    if isinstance(events, AccountedEvent | str | bytes | dict):
        raise InvalidTypeError("events must be a sequence of events, not a single one.")
    listed = tuple(events)
    for index, event in enumerate(listed):
        check_event(**{f"events[{index}]": event})
    return listed


def check_batch(event: Any) -> None:
    event._put("n", check.positive_int(n=event.n))
    event._put("batch", check.positive_int(batch=event.batch))
    if event.batch > event.n:
        raise InvalidParameterError(
            f"batch must be at most n, got batch={event.batch} and n={event.n}."
        )
