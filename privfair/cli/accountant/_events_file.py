"""Files that say what happened: our events as JSON, certificates, ledgers, or written by hand."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privfair.cli.accountant._expression import parse_expression
from privfair.core.exceptions import (
    DataError,
    DataNotAvailableError,
    InvalidParameterError,
    PrivfairError,
    SchemaVersionError,
    UnsafeFileError,
)

if TYPE_CHECKING:
    from privfair.accounting import AccountedEvent

__all__ = ["EventsFile", "NamedEvent", "read_events"]

MAX_BYTES = 64 * 1024**2
MAX_EVENTS = 100_000
SCHEMA = 1
_LABELS = ("epsilon", "delta", "unit", "neighboring", "accountant")
# What a certificate says beyond its events; read past, never believed.
_PASSED = {
    "schema", "events", "assumptions", "numerics", "seeded", "unsafe", "certified", "lower",
    "order", "details",
}  # fmt: skip
_STATES = ("reserved", "released", "void")
_LEDGER_SCHEMA = 2
_JOINTLY = (
    "Priced jointly, as if the events (not the queries) had been fixed beforehand; what holds if "
    "later noise was chosen by earlier results is stated by privfair ledger show."
)
_PLANNED = "What the ledger's declared plan still holds is not among these events."


@dataclass(frozen=True)
class NamedEvent:
    """One line of a file: an event, what it is called there, and how often it happened."""

    event: AccountedEvent
    name: str
    count: int = 1

    def whole(self) -> AccountedEvent:
        """Return the event with its count."""
        if self.count == 1:
            return self.event
        from privfair.accounting import SelfComposed

        return SelfComposed(self.event, self.count)


@dataclass(frozen=True)
class EventsFile:
    """What a file says: events, and what it claims about them, as far as it does."""

    entries: tuple[NamedEvent, ...]
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None
    neighboring: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def events(self) -> tuple[AccountedEvent, ...]:
        """All events, each with its count."""
        return tuple(entry.whole() for entry in self.entries)


def read_events(source: str) -> EventsFile:
    """Read events from a JSON file, or from standard input for ``-``.

    Parameters
    ----------
    source : str
        The file holds an event, a list of events, ``{"events": [...]}`` with ``epsilon``,
        ``delta``, ``unit`` and ``neighboring`` as they are claimed (a certificate's
        ``to_dict()`` is of this form), or what ``privfair ledger show --json`` prints. Each event
        is an object with ``kind`` as ``to_dict()`` writes it, a text such as
        ``"Gaussian(2.0)"``, or an object with ``event`` and, if wanted, ``count`` and ``name``.

    Raises
    ------
    DataError
        No such file, or not JSON of this form (exit code 3).
    SchemaVersionError
        Written by a newer version (exit code 4).
    UnsupportedEventError, InvalidParameterError
        An event that nobody knows, or a value out of range (exit code 2).
    """
    return _read(_parsed(_text(source)))


def _text(source: str) -> str:
    if source == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        path = Path(source)
        if path.is_dir():
            raise DataError(f"{source} is a directory; give a JSON file with events.")
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UnsafeFileError(f"{source} is larger than 64 MiB and was not read.")
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataNotAvailableError(
                f"{source} does not exist. Give a JSON file with events, or - for standard input."
            ) from None
    if len(data) > MAX_BYTES:
        raise UnsafeFileError("standard input holds more than 64 MiB; the rest was not read.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the events file is not UTF-8 text (byte {error.start}).") from None


def _parsed(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise DataError("an object of the events file names one key twice.")
        return dict(pairs)

    def refuse(word: str) -> Any:
        raise DataError(f'{word} is not JSON; infinity is the text "inf".')

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(
            f"the events file is not JSON (line {error.lineno}, column {error.colno}: "
            f"{error.msg})."
        ) from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, PrivfairError):
            raise
        raise DataError(
            "the events file is nested too deeply, or holds too long a number."
        ) from None


def _schema(data: dict[str, Any], newest: int = SCHEMA) -> None:
    version = data.get("schema", SCHEMA)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise SchemaVersionError("the schema version of the events is not a whole number above 0.")
    if version > newest:
        raise SchemaVersionError(
            f"the events have schema version {version}; this version of privfair reads up to "
            f"{newest}. Install a newer privfair."
        )


def _read(data: Any) -> EventsFile:
    if isinstance(data, str) or (isinstance(data, dict) and ("kind" in data or "event" in data)):
        data = [data]
    if isinstance(data, list):
        return EventsFile(tuple(_entries(data, _entry)))
    if not isinstance(data, dict) or ("events" in data) == ("entries" in data):
        raise DataError(
            'the events file must hold an event, a list of events, or an object with "events" '
            '(or with "entries", as privfair ledger show --json prints).'
        )
    return _ledger(data) if "entries" in data else _listed(data)


def _listed(data: dict[str, Any]) -> EventsFile:
    _schema(data)
    if extra := sorted(set(data) - set(_LABELS) - _PASSED):
        raise DataError(
            f"the events file has the unknown key {extra[0][:40]!r}; beside events it may have "
            f"{', '.join(_LABELS)}."
        )
    return EventsFile(
        tuple(_entries(data["events"], _entry)),
        epsilon=_number(data, "epsilon"),
        delta=_number(data, "delta"),
        **_labels(data),
        notes=("Some noise came from a known seed.",) if data.get("seeded") is True else (),
    )


def _ledger(data: dict[str, Any]) -> EventsFile:
    _schema(data, _LEDGER_SCHEMA)
    listed = data["entries"]
    notes = [_JOINTLY]
    if data.get("plan") is not None:
        notes.append(_PLANNED)
    if isinstance(listed, list) and _seeded(listed):
        notes.append("Some noise came from a known seed.")
    return EventsFile(tuple(_entries(listed, _charge)), **_labels(data), notes=tuple(notes))


def _labels(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "unit": _word(data, "unit", ("record", "user", "client")),
        "neighboring": _word(data, "neighboring", ("zero_out", "add_remove", "replace_one")),
    }


def _seeded(listed: list[Any]) -> bool:
    return any(isinstance(item, dict) and item.get("seeded") is True for item in listed)


def _number(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    if value == "inf":
        return math.inf
    low_high = (0.0, 1.0) if name == "delta" else (0.0, math.inf)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidParameterError(f"{name} in the events file must be a number.")
    if not low_high[0] <= value < low_high[1]:
        raise InvalidParameterError(
            f"{name} in the events file must be in [0, {low_high[1]:g}), got {float(value):g}."
        )
    return float(value)


def _word(data: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    value = data.get(name)
    if value is None or value in allowed:
        return value
    raise InvalidParameterError(f"{name} in the events file must be one of {', '.join(allowed)}.")


def _entries(listed: Any, read: Callable[[Any, int], NamedEvent | None]) -> Iterator[NamedEvent]:
    if not isinstance(listed, list):
        raise DataError("the events must be a list.")
    if len(listed) > MAX_EVENTS:
        raise UnsafeFileError(f"more than {MAX_EVENTS:,} events; use counts instead of repeating.")
    for position, item in enumerate(listed, 1):
        try:
            found = read(item, position)
        except PrivfairError as error:
            raise type(error)(f"event {position}: {str(error)[:500]}") from None
        except (TypeError, ValueError, OverflowError, RecursionError, KeyError):
            raise InvalidParameterError(
                f"event {position}: a field has a value of the wrong kind."
            ) from None
        if found is not None:
            yield found


def _entry(item: Any, position: int) -> NamedEvent:
    from privfair.accounting import event_from_dict

    if isinstance(item, str):
        return NamedEvent(parse_expression(item), f"event {position}")
    if not isinstance(item, dict):
        raise DataError(
            'an event is an object with "kind", a text such as "Gaussian(2.0)", or an object '
            'with "event".'
        )
    _schema(item)
    if "kind" in item:
        return NamedEvent(event_from_dict(item), f"event {position}")
    if "event" not in item:
        raise DataError('an object without "kind" needs "event".')
    if extra := sorted(set(item) - {"schema", "event", "count", "name"}):
        raise DataError(f"unknown key {extra[0][:40]!r}; known are event, count and name.")
    inner = item["event"]
    event = parse_expression(inner) if isinstance(inner, str) else event_from_dict(inner)
    count = item.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise InvalidParameterError("count must be a whole number of at least 0.")
    name = item.get("name") or f"event {position}"
    return NamedEvent(event, str(name)[:200], count)


def _charge(item: Any, position: int) -> NamedEvent | None:
    """Read one charge of a ledger; a void one was given back before anything was read."""
    from privfair.accounting import event_from_dict

    if not isinstance(item, dict) or item.get("state") not in _STATES or "event" not in item:
        raise DataError('a charge of a ledger has "event" and a "state" that is known here.')
    if item["state"] == "void":
        return None
    name = item.get("purpose") or item.get("label") or f"event {position}"
    return NamedEvent(event_from_dict(item["event"]), str(name)[:200])
