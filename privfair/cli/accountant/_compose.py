"""``compose``: what a list of different events costs together, and each of them."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import (
    WholeNumber,
    clean,
    dataset_size_option,
    delta_option,
    example,
    output,
)
from privfair.cli.accountant._events_file import NamedEvent
from privfair.cli.accountant._plan import DELTA_HELP, label_options
from privfair.cli.accountant._statement import DIGITS, NOT_COVERED, lower, upper
from privfair.cli.accountant._subject import Subject, events_argument, subject
from privfair.core._format import format_lower, format_upper
from privfair.core.exceptions import PrivacyError

if TYPE_CHECKING:
    from rich.console import Console

    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["SHARE", "check_each", "compose", "merged"]

SHARE = (
    "leave-one-out: by how much epsilon falls without this event, as a share of the sum of these "
    "falls over all events"
)


@click.command()
@events_argument(required=True)
@delta_option(default=None, help=DELTA_HELP)
@dataset_size_option()
@label_options
@click.option(
    "--shares", type=WholeNumber(0), default=20, show_default=True, metavar="K",
    help="State the shares of the K costliest events; 0 for none.",
)  # fmt: skip
@example(
    """printf '["DiscreteGaussian(20)", "640 * PoissonSampled(0.0314, Gaussian(3.11))"]' | """
    "privfair accountant compose - --delta 1e-5"
)
def compose(events: str, shares: int, **given: Any) -> None:
    """State the epsilon of all events in a file together.

    EVENTS is a JSON file, or - for standard input: a list of events as their to_dict() writes
    them, or by hand, as "Gaussian(2.0)" or {"event": "Laplace(5)", "count": 3, "name": "counts"}.
    A certificate's to_dict() and the output of `privfair ledger show --json` are understood too.
    """
    found_in = subject(events, given)
    assert found_in.file is not None
    check_each(found_in, found_in.file.entries)
    total = found_in.price(bracket=True)
    parts = _parts(found_in, merged(found_in.file.entries), total, shares)
    data = found_in.payload(
        total,
        epsilon_lower=lower(found_in.lower(total)),
        events=[part.to_dict() for part in parts],
        share_definition=SHARE,
    )
    if math.isinf(total.epsilon):
        reason = ", ".join(total.unsafe) or "no accountant has a finite bound at this delta"
        data["warnings"].append(f"There is no finite guarantee ({reason}).")
    output(data, lambda console: _draw(console, found_in, total, parts, data))


def check_each(found_in: Subject, entries: tuple[NamedEvent, ...]) -> None:
    """Let an event that cannot be priced be named by its place in the file."""
    from privfair.accounting import AccountedProfile

    for entry in merged(entries):
        try:
            with suppress(ZeroDivisionError, OverflowError):  # of a scale; said when priced
                AccountedProfile(entry.whole(), found_in.neighboring)
        except PrivacyError as error:
            raise type(error)(f"{clean(entry.name)}: {error}") from None


def merged(entries: tuple[NamedEvent, ...]) -> list[NamedEvent]:
    """Return the entries with equal ones under one name counted together."""
    counts: dict[tuple[Any, str], int] = {}
    numbered: dict[tuple[Any, str], str] = {}
    for entry in entries:
        plain = entry.name.startswith("event ") and entry.name[6:].isdecimal()
        key = (entry.event, "" if plain else entry.name)
        numbered.setdefault(key, entry.name)
        counts[key] = counts.get(key, 0) + entry.count
    return [NamedEvent(key[0], numbered[key], count) for key, count in counts.items()]


class _Part:
    """One event beside the whole."""

    def __init__(self, entry: NamedEvent, alone: float | None) -> None:
        self.entry, self.alone = entry, alone
        self.without: float | None = None
        self.share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.entry.name,
            "event": self.entry.event.to_dict(),
            "count": self.entry.count,
            "epsilon_alone": upper(self.alone),
            "epsilon_without": upper(self.without),
            "share": self.share,
        }


def _parts(
    found_in: Subject, entries: list[NamedEvent], total: PrivacyGuarantee, most: int
) -> list[_Part]:
    parts = [_Part(entry, _epsilon(found_in, (entry.whole(),))) for entry in entries]
    ranked = sorted(parts, key=lambda part: -(math.inf if part.alone is None else part.alone))
    chosen = ranked[:most]
    if not chosen or not math.isfinite(total.epsilon):
        return parts
    for part in chosen:
        rest = tuple(other.entry.whole() for other in parts if other is not part)
        part.without = _epsilon(found_in, rest) if rest else 0.0
    falls = {
        id(part): max(0.0, total.epsilon - part.without)
        for part in chosen
        if part.without is not None
    }
    whole = sum(falls.values())
    if whole > 0 and len(chosen) == len(parts):
        for part in chosen:
            if id(part) in falls:
                part.share = round(falls[id(part)] / whole, 6)
    return parts


def _epsilon(found_in: Subject, events: tuple[Any, ...]) -> float | None:
    try:
        return found_in.price(events=events).epsilon
    except PrivacyError:
        return None


def _draw(
    console: Console,
    found_in: Subject,
    total: PrivacyGuarantee,
    parts: list[_Part],
    data: dict[str, Any],
) -> None:
    from rich.table import Table

    console.print(
        f"epsilon <= {format_upper(total.epsilon, DIGITS)} at delta = {total.delta:g}  "
        f"(accountant {total.accountant})"
    )
    for line in found_in.heading():
        console.print(line, soft_wrap=True)
    table = Table()
    for name in ("", "event", "times", "alone", "without it", "share"):
        table.add_column(name, overflow="fold")
    for part in parts[:200]:
        table.add_row(
            clean(part.entry.name), clean(_short(part.entry.event)), str(part.entry.count),
            _bound(part.alone), _bound(part.without),
            "" if part.share is None else f"{100 * part.share:.1f} %",
        )  # fmt: skip
    console.print(table)
    if len(parts) > 200:
        console.print(f"and {len(parts) - 200} more (all of them with --json)")
    least = found_in.lower(total)
    if least is not None:
        console.print(f"The true epsilon is at least {format_lower(least, DIGITS)}.")
    console.print(f"Share, {SHARE}.", soft_wrap=True)
    console.print("Does not cover: " + "; ".join(NOT_COVERED) + ".", soft_wrap=True)
    for sentence in total.assumptions:
        console.print(clean(f"Assumes: {sentence}"), soft_wrap=True)
    for text in data["warnings"]:
        console.print(clean(f"Note: {text}"), soft_wrap=True)


def _bound(value: float | None) -> str:
    return "" if value is None else format_upper(value)


def _short(event: Any) -> str:
    """Write an event as one would by hand, cut to a line."""
    text = _written(event.to_dict())
    return text if len(text) <= 60 else text[:57] + "..."


def _written(data: Any) -> str:
    if isinstance(data, list):
        return "[" + ", ".join(_written(item) for item in data) + "]"
    if not isinstance(data, dict):
        return f"{data:.6g}" if isinstance(data, float) else str(data)
    if data["kind"] == "SelfComposed":
        return f"{data['count']} * {_written(data['event'])}"
    inner = ", ".join(_written(v) for k, v in data.items() if k not in ("schema", "kind"))
    return f"{data['kind']}({inner})"
