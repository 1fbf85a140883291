"""``audit``: what a randomiser really gives: computed, attacked, poisoned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import (
    ExitCode,
    FiniteFloat,
    WholeNumber,
    epsilon_option,
    example,
    finish,
    output,
)
from privfair.cli.ldp._columns import PROTOCOLS, saved_collection
from privfair.core._format import format_lower, format_upper

if TYPE_CHECKING:
    from privfair.ldp import FrequencyProtocol

__all__ = ["audit"]


@click.command()
@click.argument(
    "source", metavar="[FILE]", required=False, type=click.Path(path_type=Path), default=None
)
@click.option(
    "--protocol", type=click.Choice(PROTOCOLS[1:], case_sensitive=False), default=None,
    help="Randomiser.",
)  # fmt: skip
@click.option("--k", type=WholeNumber(2), default=None, help="Number of values of the domain.")
@epsilon_option(default=None, help="Declared local privacy of one report.")
@click.option(
    "--trials", type=WholeNumber(200), default=100_000, show_default=True,
    help="Reports drawn for each of two values.",
)  # fmt: skip
@click.option(
    "--confidence", type=FiniteFloat(0, 1, low_open=True, high_open=True), default=0.999999,
    show_default=True, help="Probability with which the lower bound holds.",
)  # fmt: skip
@click.option(
    "--fraction", type=FiniteFloat(0, 1, low_open=True, high_open=True), default=0.01,
    show_default=True, help="Share of fake users in the poisoning bound.",
)  # fmt: skip
@click.option(
    "--shuffle", "users", type=WholeNumber(1), default=None,
    help="Also the central epsilon if this many reports pass a trusted shuffler; needs --delta.",
)  # fmt: skip
@click.option(
    "--delta", type=FiniteFloat(0, 1, low_open=True, high_open=True), default=None,
    help="Of the shuffled reports.",
)  # fmt: skip
@example("privfair ldp audit --protocol OUE --k 16 --epsilon 1 --trials 20000")
def audit(
    source: Path | None,
    protocol: str | None,
    k: int | None,
    epsilon: float | None,
    trials: int,
    confidence: float,
    fraction: float,
    users: int | None,
    delta: float | None,
) -> None:
    """Audit a randomiser, or those of a FILE with reports, a state or a plan.

    Epsilon is computed without rounding by listing all reports of a small domain, and attacked
    from outside: reports of two values are drawn as a client draws them, and a lower bound on
    epsilon follows from how well they can be told apart. A bound above the declared epsilon ends
    with exit code 5. Nothing here reads a report or a value of a user.
    """
    if (users is None) != (delta is None):
        raise click.UsageError("--shuffle and --delta belong together.")
    named = [protocol, k, epsilon]
    if source is None and None in named:
        raise click.UsageError("give --protocol, --k and --epsilon, or a FILE of a collection.")
    if source is not None and any(value is not None for value in named):
        raise click.UsageError("a FILE says protocol, k and epsilon itself: leave them out.")
    from privfair.report import attack_view

    subjects: list[tuple[str | None, FrequencyProtocol]] = []
    attributes = 1
    if source is not None:
        collection = saved_collection(source)
        subjects = [(c.name, c.protocol) for c in collection.columns]
        attributes = len(subjects) if collection.strategy == "smp" else 1
    elif protocol is not None and k is not None and epsilon is not None:
        from privfair.ldp._collection import make_protocol

        subjects = [(None, make_protocol(protocol, k, epsilon))]
    found = []
    for name, subject in subjects:
        view = attack_view(
            subject, trials=trials, confidence=confidence, fraction=fraction, users=users,
            delta=delta, attributes=attributes,
        )  # fmt: skip
        found.append({"column": name, **view})
    contradicted = any(entry["contradicted"] for entry in found)
    payload = {"audits": found, "contradicted": contradicted}
    output(payload, "\n".join(line for entry in found for line in _lines(entry)))
    if contradicted:
        finish(int(ExitCode.PRIVACY))


def _lines(entry: dict[str, Any]) -> list[str]:
    name = "" if entry["column"] is None else f"{entry['column']}: "
    exact = entry["exact_epsilon"]
    out = [
        f"{name}{entry['protocol']}, {entry['k']} values, declared epsilon "
        f"{entry['declared_epsilon']:g}",
        f"  computed  {format_upper(exact, 12)} by listing all reports for "
        f"{entry['exact_k']} values",
        f"  attacked  at least {format_lower(entry['lower_epsilon'])} (confidence "
        f"{entry['confidence']:g}, {entry['trials']} reports of each of two values)",
        f"  guessing  right in {100 * entry['attack_success']:.2f} % from one report, "
        f"{100 * entry['guess_without_report']:.2f} % without "
        "(values equally likely)",
        f"  poisoning {100 * entry['fake_users']:g} % fake users raise a frequency by at most "
        f"{entry['poisoning_bound']:.4g}",
    ]
    if entry["shuffled"] is not None:
        s = entry["shuffled"]
        out.append(
            f"  shuffled  epsilon {s['epsilon']:.6g} at delta {s['delta']:g} for {s['n']} reports "
            "of this column, if the shuffler is trusted"
        )
    if entry["contradicted"]:
        out.append("  CONTRADICTED: the randomiser does not give what it declares")
    return out
