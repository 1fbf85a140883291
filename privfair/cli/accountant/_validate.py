"""``validate``: does an events file read, and does a claimed epsilon hold?"""

from __future__ import annotations

import math
from typing import Any

import click

from privfair.cli._common import ExitCode, epsilon_option, example, finish
from privfair.cli.accountant._compose import check_each
from privfair.cli.accountant._plan import plan_options
from privfair.cli.accountant._statement import DIGITS, lower, show
from privfair.cli.accountant._subject import Subject, events_argument, subject
from privfair.core._format import format_lower, format_upper, json_number
from privfair.core.privacy import PrivacyGuarantee

__all__ = ["LOOSE", "validate", "verdict_of"]

LOOSE = 1.05
"""A claim above this multiple of the certified epsilon is called loose."""
TEXTS = {
    "holds": "the claim holds",
    "loose": "the claim holds, and is loose",
    "violated": "VIOLATED: the true epsilon is above the claim",
    "not_certified": "NOT CERTIFIED: the claim is below the smallest bound there is",
    "no_claim": "readable; nothing is claimed",
}


def verdict_of(claim: float | None, certified: float, least: float | None) -> str:
    """Return what the numbers say about a claim.

    Parameters
    ----------
    claim : float or None
        The epsilon claimed.
    certified : float
        Our smallest upper bound at the same delta.
    least : float or None
        A lower bound on the true epsilon, where one is known.

    Examples
    --------
    >>> [verdict_of(claim, 1.0, 0.98) for claim in (None, 1.0, 2.0, 0.99, 0.9)]
    ['no_claim', 'holds', 'loose', 'not_certified', 'violated']
    """
    if claim is None or math.isinf(claim):
        return "no_claim"
    if claim >= certified:
        return "loose" if claim > LOOSE * certified else "holds"
    return "violated" if least is not None and least > claim else "not_certified"


@click.command()
@events_argument()
@epsilon_option(default=None, help="The epsilon that is claimed.")
@plan_options()
@example(
    "privfair accountant validate --epsilon 1.6 --delta 1e-5 --noise-multiplier 1.1 "
    "--sample-rate 0.01 --steps 1000"
)
def validate(events: str | None, epsilon: float | None, **given: Any) -> None:
    """Check a file with EVENTS, or a claimed (epsilon, delta), against our accountant.

    The claim is in --epsilon and --delta, or in the file, as in the to_dict() of a certificate.
    The command ends with 5 if the claim is violated or cannot be certified.
    """
    found_in = subject(events, given, need_delta=epsilon is not None)
    file = found_in.file
    if file is not None:
        check_each(found_in, file.entries)
    claim = epsilon if epsilon is not None or file is None else file.epsilon
    if claim is not None and found_in.delta is None:
        raise click.UsageError("An epsilon is claimed without a delta: give --delta.")
    if file is None and claim is None:
        raise click.UsageError("Give the claim, --epsilon.")
    found = None if found_in.delta is None else found_in.price(bracket=True)
    _conclude(found_in, claim, found)


def _conclude(found_in: Subject, claim: float | None, found: PrivacyGuarantee | None) -> None:
    least = None if found is None else found_in.lower(found)
    verdict = "no_claim" if found is None else verdict_of(claim, found.epsilon, least)
    data = found_in.payload(
        found,
        epsilon_lower=lower(least),
        claimed_epsilon=json_number(claim),
        claimed_delta=found_in.delta,
        verdict=verdict,
        events=len(found_in.events),
    )
    lines = [f"{TEXTS[verdict]}{_by(verdict, claim, found)}", *_numbers(claim, found, least)]
    show(data, [*lines, *(f"  {line}" for line in found_in.heading())])
    if verdict in ("violated", "not_certified"):
        finish(ExitCode.PRIVACY)


def _by(verdict: str, claim: float | None, found: PrivacyGuarantee | None) -> str:
    if verdict == "loose" and found is not None and claim is not None and found.epsilon > 0:
        return f" by {100 * (claim / found.epsilon - 1):.3g} %"
    if verdict == "no_claim" and found is None:
        return "; with --delta its epsilon would be stated"
    return ""


def _numbers(
    claim: float | None, found: PrivacyGuarantee | None, least: float | None
) -> list[str]:
    out = []
    if claim is not None:
        at = "" if found is None else f" at delta = {found.delta:g}"
        out.append(f"  claimed     epsilon = {claim:g}{at}")
    if found is not None:
        out.append(
            f"  certified   epsilon <= {format_upper(found.epsilon, DIGITS)} at delta = "
            f"{found.delta:g}  (accountant {found.accountant})"
        )
    if least is not None:
        out.append(f"  true value  epsilon >= {format_lower(least, DIGITS)}")
    return out
