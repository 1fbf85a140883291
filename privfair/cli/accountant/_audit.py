"""``audit``: the certified epsilon beside what an attack on one training run shows."""

from __future__ import annotations

import math
from typing import Any

import click
from click.core import ParameterSource

from privfair.cli._common import (
    ExitCode,
    FiniteFloat,
    WholeNumber,
    clean,
    epsilon_option,
    example,
    finish,
)
from privfair.cli._common import neighboring_option as _neighboring
from privfair.cli._common import unit_option as _unit
from privfair.cli.accountant._statement import DIGITS, lower, payload, show, upper
from privfair.core._format import format_lower, format_upper, json_number

__all__ = ["audit"]


@click.command()
@click.argument("scores", metavar="SCORES", type=str)
@epsilon_option(default=None, allow_inf=True, help="The certified epsilon.")
@click.option(
    "--delta", type=FiniteFloat(0, 1, high_open=True), default=None,
    help="The delta of the certificate, in [0, 1).",
)  # fmt: skip
@click.option(
    "--certificate",
    default=None,
    metavar="FILE",
    help="The to_dict() of a certificate as JSON, in place of --epsilon and --delta.",
)
@click.option("--score", default=None, metavar="COLUMN", help="Column of the scores.")
@click.option("--included", default=None, metavar="COLUMN", help="Column that says in or out.")
@click.option(
    "--k-plus",
    type=WholeNumber(0),
    default=None,
    help="Canaries guessed as included, fixed before the run.  [default: a tenth]",
)
@click.option(
    "--k-minus",
    type=WholeNumber(0),
    default=None,
    help="Canaries guessed as excluded, fixed before the run.  [default: a tenth]",
)
@click.option(
    "--confidence", type=FiniteFloat(0, 1, low_open=True, high_open=True), default=0.95,
    show_default=True, help="Of the audited lower bound.",
)  # fmt: skip
@_unit()
@_neighboring(help="What exclusion of a canary did.")
@example(
    "printf 'score,in\\n3.1,1\\n2.2,1\\n0.4,0\\n0.1,0\\n' | "
    "privfair accountant audit - --epsilon 2 --delta 0 --k-plus 2 --k-minus 2"
)
def audit(scores: str, **given: Any) -> None:
    """Compare a certified epsilon with what the scores of canaries show.

    SCORES is a CSV file (- for standard input) with one row per canary: its score, higher for
    canaries that look included, and whether a fair coin put it in. All canaries belong in, also
    those on which there is no guess. An audited bound above the certificate ends with 5.
    """
    from privfair.auditing import one_run_audit
    from privfair.cli.accountant._scores import read_scores

    certified = _certificate(given)
    values, inside = read_scores(scores, given["score"], given["included"])
    tenth = max(1, len(values) // 10)
    k_plus = tenth if given["k_plus"] is None else given["k_plus"]
    k_minus = given["k_minus"]
    if k_minus is None:
        k_minus = tenth if len(values) > 1 else 0
    result = one_run_audit(
        values,
        inside,
        k_plus=k_plus,
        k_minus=k_minus,
        beta=1 - given["confidence"],
        certified=certified,
        delta=certified.delta,
        # A certificate about replacement is attacked only by whoever says that this is what
        # exclusion did.
        neighboring=certified.neighboring if _stated("neighboring") else None,
        target=clean(scores),
    )
    data = payload(
        epsilon=upper(certified.epsilon),
        delta=certified.delta,
        epsilon_lower=lower(result.lower_epsilon),
        unit=certified.unit,
        neighboring=certified.neighboring,
        confidence=given["confidence"],
        p_value=json_number(result.p_value),
        verdict=result.verdict,
        counts=dict(result.counts),
        power=result.power,
        warnings=_balance(len(values), int(inside.sum())),
        not_covered=[],
    )
    show(data, _lines(certified, result, given["confidence"]))
    if result.violated:
        finish(ExitCode.PRIVACY)


def _certificate(given: dict[str, Any]) -> Any:
    from privfair.core.privacy import PrivacyGuarantee

    labels = {"unit": given["unit"], "neighboring": given["neighboring"]}
    epsilon, delta = given["epsilon"], given["delta"]
    if given["certificate"] is not None:
        if epsilon is not None or delta is not None:
            raise click.UsageError("Give --certificate, or --epsilon and --delta, not both.")
        from privfair.cli.accountant._events_file import read_events

        file = read_events(given["certificate"])
        if file.epsilon is None or file.delta is None:
            raise click.UsageError(
                "The certificate has no epsilon or no delta: give --epsilon and --delta instead."
            )
        epsilon, delta = file.epsilon, file.delta
        for name, value in labels.items():
            stated = getattr(file, name)
            if stated not in (None, value) and _stated(name):
                raise click.UsageError(
                    f"--{name} {value} contradicts the certificate, which says {stated}."
                )
            labels[name] = stated or value
    if epsilon is None or delta is None:
        raise click.UsageError(
            "Give what is certified: --epsilon and --delta (0 for pure privacy), or --certificate."
        )
    return PrivacyGuarantee(epsilon, delta, accountant="basic", **labels)


def _stated(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _balance(m: int, inside: int) -> list[str]:
    """Return a note if the coins can hardly have been fair (probability below 1e-6)."""
    if abs(inside - m / 2) <= 4.9 * math.sqrt(m) / 2 + 1:
        return []
    return [
        "The number of included canaries does not look like that of fair coins: the bound holds "
        "only if each was included with probability 1/2 of its own."
    ]


def _lines(certified: Any, result: Any, confidence: float) -> list[str]:
    counts = result.counts
    return [
        f"certified   epsilon <= {format_upper(certified.epsilon, DIGITS)} at delta = "
        f"{certified.delta:g} ({certified.unit}, {certified.neighboring})",
        f"audited     epsilon >= {format_lower(result.lower_epsilon, DIGITS)} with confidence "
        f"{confidence:g}",
        f"verdict     {result.verdict}",
        f"guesses     {counts['correct']} of {counts['guesses']} correct, among "
        f"{counts['canaries']} canaries, {counts['included']} of them included",
        result.power,
    ]
