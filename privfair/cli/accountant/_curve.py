"""``curve``: epsilon for many deltas, what attacks can find, and both as plots."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from privfair.cli._common import (
    FiniteFloat,
    NumberList,
    example,
    note,
    output,
    state,
    terminal_width,
    unicode_output,
)
from privfair.cli.accountant._plan import plan_options
from privfair.cli.accountant._points import Curves, curves
from privfair.cli.accountant._statement import DIGITS, lower, upper
from privfair.cli.accountant._subject import Subject, events_argument, subject
from privfair.cli.accountant._terminal import Axis, draw
from privfair.core._format import format_upper

__all__ = ["curve"]

DELTAS = ",".join(f"1e-{k}" for k in range(3, 11))
_OPEN = FiniteFloat(0, 1, low_open=True, high_open=True)
FORMATS = ("svg", "png", "pdf")


@click.command()
@events_argument()
@plan_options()
@click.option(
    "--deltas", type=NumberList(_OPEN), default=DELTAS, show_default=True,
    help="Where epsilon is stated.",
)  # fmt: skip
@click.option(
    "--fpr", "rates", type=NumberList(_OPEN), default="0.001,0.01,0.1", show_default=True,
    help="False positive rates at which the true positive rate of attacks is stated.",
)  # fmt: skip
@click.option(
    "--plot", type=click.Path(path_type=Path), default=None, metavar="FILE",
    help="Draw both curves into this file: .svg, .png or .pdf.",
)  # fmt: skip
@click.option("--no-terminal-plot", is_flag=True, help="Print the tables alone.")
@example(
    "privfair accountant curve --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000",
)
def curve(
    events: str | None,
    deltas: tuple[float, ...],
    rates: tuple[float, ...],
    plot: Path | None,
    no_terminal_plot: bool,
    **given: Any,
) -> None:
    """Tabulate and draw epsilon against delta, for a plan or for a file with EVENTS.

    A second table says what an attack with a given false positive rate can find: the largest
    true positive rate under the whole curve, which is less than under any single point of it.
    """
    kind = None if plot is None else _kind(plot)
    found_in = subject(events, given, need_delta=False)
    base = found_in.delta if found_in.delta is not None else max(deltas)
    found = found_in.price(delta=base, bracket=found_in.delta is not None)
    profile = found.profile
    if profile is None:  # no guarantee at all: epsilon is infinite everywhere
        table = [(d, math.inf) for d in deltas]
        tpr = [(a, 1.0) for a in rates]
        drawn = None
    else:
        table = [(d, profile.epsilon(d)) for d in deltas]
        tpr = [(a, 1.0 - profile.beta(a)) for a in rates]
        wanted = plot is not None or not (no_terminal_plot or state().json)
        drawn = curves(profile, deltas) if wanted else None
    data = found_in.payload(
        found if found_in.delta is not None or profile is None else None,
        assumptions=list(found.assumptions),
        curve=[{"delta": d, "epsilon": upper(e)} for d, e in table],
        tradeoff=[{"fpr": a, "tpr": upper(min(1.0, t))} for a, t in tpr],
        advantage=upper(1.0 if profile is None else min(1.0, profile.delta(0.0))),
    )
    if found_in.delta is not None:
        data["epsilon_lower"] = lower(found_in.lower(found))
    if plot is not None and drawn is not None:
        _write(plot, kind or "svg", drawn, found_in, found.epsilon)
    shown = None if no_terminal_plot else drawn
    output(data, "\n".join(_lines(found_in, table, tpr, data, shown)))
    if plot is not None and drawn is not None:
        note(f"plot: {plot}")


def _kind(path: Path) -> str:
    from privfair.cli._audit_files import check_target

    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise click.BadParameter(
            f"{path.name} does not end with .svg, .png or .pdf.", param_hint="--plot"
        )
    check_target(path, "--plot")
    return kind


def _write(path: Path, kind: str, drawn: Curves, found_in: Subject, epsilon: float) -> None:
    from privfair.cli._audit_files import write_bytes
    from privfair.cli.accountant._figure import figure

    caption = ". ".join(found_in.heading())
    marked = epsilon if found_in.delta is not None and math.isfinite(epsilon) else None
    image = figure(drawn, kind, epsilon=marked, delta=found_in.delta, caption=caption)
    write_bytes(path, image)


def _lines(
    found_in: Subject,
    table: list[tuple[float, float]],
    tpr: list[tuple[float, float]],
    data: dict[str, Any],
    drawn: Curves | None,
) -> list[str]:
    out = [*found_in.heading(), "", "     delta   epsilon, at most"]
    out += [f"{d:>10.4g}   {format_upper(e, DIGITS)}" for d, e in table]
    out += ["", "false alarms   members found, at most"]
    out += [f"{100 * a:>10.4g} %   {format_upper(min(100.0, 100 * t), 4)} %" for a, t in tpr]
    out.append(f"advantage of any attack: at most {data['advantage']}")
    if drawn is not None and len(drawn.privacy) > 1:
        out += ["", *_plots(drawn)]
    out += [f"Assumes: {sentence}" for sentence in data["assumptions"]]
    out += [f"Note: {text}" for text in data["warnings"]]
    return out


def _plots(drawn: Curves) -> list[str]:
    style: dict[str, Any] = {"width": terminal_width(), "unicode": unicode_output()}
    deltas = [d for d, _ in drawn.privacy]
    epsilons = [e for _, e in drawn.privacy]
    first = draw(
        drawn.privacy, Axis(min(deltas), max(deltas), log=True), Axis(0.0, max(epsilons)),
        title="epsilon against delta", **style,
    )  # fmt: skip
    rates = [a for a, _ in drawn.tradeoff]
    axis = Axis(min(rates), 1.0, log=True)
    second = draw(
        drawn.tradeoff, axis, axis, other=[(a, a) for a in rates],
        title="members found against false alarms; dotted: guessing", **style,
    )  # fmt: skip
    return [*first, "", *second, ""]
