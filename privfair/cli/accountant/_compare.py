"""``compare``: one plan by every accountant, and by formulas that are no certificate."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from privfair.cli._common import example, output
from privfair.cli.accountant._plan import plan_options
from privfair.cli.accountant._statement import DIGITS, lower, upper
from privfair.cli.accountant._subject import Subject, events_argument, subject
from privfair.core._format import format_lower, format_upper, json_number
from privfair.core.exceptions import PrivfairError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["compare", "gdp_asymptotic"]

NAMES = ("pld", "rdp", "zcdp", "gdp", "basic")
SHORT = {
    "pld": "no bound here",
    "rdp": "no bound here",
    "zcdp": "no bound for these events",
    "gdp": "for Gaussians without sampling only",
    "basic": "for pure events only",
}
NO_CERTIFICATE = "not a certificate"


@dataclass(frozen=True)
class _Row:
    """One way to account, and what it says."""

    name: str
    epsilon: float | None
    certificate: bool
    order: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "epsilon": upper(self.epsilon),
            "certificate": self.certificate,
            "order": json_number(self.order),
            "status": "ok" if self.epsilon is not None else "not_available",
            "note": self.note,
        }


@click.command()
@events_argument()
@plan_options()
@example(
    "privfair accountant compare --noise-multiplier 0.6 --sample-rate 0.001 --steps 1000 "
    "--delta 1e-6"
)
def compare(events: str | None, **given: Any) -> None:
    """Put all accountants side by side, for a plan or for a file with EVENTS.

    Beside them stand numbers that other tools print: Renyi accounting at a fixed list of orders,
    and the central-limit value of Gaussian differential privacy, which is not a certificate.
    """
    given["accountant"] = "best"
    found_in = subject(events, given)
    best = found_in.price(bracket=True)
    rows = [_ours(found_in, name) for name in NAMES]
    rows += [*_renyi_elsewhere(found_in), _asymptotic(found_in)]
    data = found_in.payload(
        best,
        epsilon_lower=lower(found_in.lower(best)),
        winner=best.accountant if math.isfinite(best.epsilon) else None,
        bounds=[row.to_dict() for row in rows],
    )
    output(data, lambda console: _draw(console, found_in, data, rows))


def _ours(found_in: Subject, name: str) -> _Row:
    try:
        found = found_in.price(accountant=name)
    except PrivfairError as error:
        return _Row(name, None, True, note=str(error).split(". ")[0].rstrip("."))
    return _Row(name, found.epsilon, True, found.order)


def _single_gaussian(found_in: Subject) -> tuple[float, float, int] | None:
    """Return (q, sigma, steps) where the events are steps of one sampled Gaussian."""
    from privfair.accounting import Gaussian, PoissonSampled, SelfComposed

    if len(found_in.events) != 1:
        return None
    event, count = found_in.events[0], 1
    while isinstance(event, SelfComposed):
        event, count = event.event, count * event.count
    q = 1.0
    if isinstance(event, PoissonSampled):
        q, event = event.q, event.event
    if not isinstance(event, Gaussian) or event.sigma <= 0 or count == 0:
        return None
    return q, event.sigma, count


def _renyi_elsewhere(found_in: Subject) -> list[_Row]:
    """Epsilon as Opacus and TF Privacy print it: Renyi accounting at their lists of orders."""
    names = ("rdp, orders of Opacus", "rdp, orders of TF Privacy")
    if found_in.neighboring == "replace_one":
        note = "their Renyi accountants say nothing valid about replacement here"
        return [_Row(name, None, False, note=note) for name in names]
    single = _single_gaussian(found_in)
    if single is None or found_in.delta is None or found_in.delta <= 0:
        return [_Row(name, None, False, note="for sampled Gaussians only") for name in names]
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    return [
        _elsewhere(name, given, *single, found_in.delta)
        for name, given in zip(names, (orders, None), strict=True)
    ]


def _elsewhere(
    name: str, orders: list[float] | None, q: float, sigma: float, steps: int, delta: float
) -> _Row:
    import dp_accounting
    import numpy as np
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders)
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of each order it leaves out
    try:
        gaussian = dp_accounting.GaussianDpEvent(sigma)
        event = dp_accounting.PoissonSampledDpEvent(q, gaussian) if q < 1 else gaussian
        with np.errstate(all="ignore"):
            accountant.compose(event, steps)
            value, order = accountant.get_epsilon_and_optimal_order(delta)
    except (OverflowError, ZeroDivisionError):
        return _Row(name, None, False, note="its formula is out of a computer's numbers here")
    finally:
        log.setLevel(level)
    listed = accountant.orders if hasattr(accountant, "orders") else orders
    note = "by dp_accounting"
    if listed is not None and order in (min(listed), max(listed)):
        note += "; the best order is the last of the list, so that the value is too large"
    return _Row(name, float(value), False, float(order), note)


def gdp_asymptotic(q: float, sigma: float, steps: int, delta: float) -> float:
    """Return the central-limit epsilon of Poisson-sampled Gaussians: an approximation.

    ``mu = q sqrt(T (e^(1/sigma^2) - 1))``, then the exact curve of a mu-GDP Gaussian. It can lie
    far below the true epsilon.

    References
    ----------
    Bu, Dong, Long, Su 2020, "Deep learning with Gaussian differential privacy", arXiv 1911.11607.

    Examples
    --------
    >>> round(gdp_asymptotic(0.001, 0.6, 1000, 1e-6), 2)
    0.49
    """
    from privfair.accounting import Gaussian, guarantee

    if 1 / sigma > 26:
        return math.inf
    mu = q * math.sqrt(steps * math.expm1((1 / sigma) ** 2))
    return 0.0 if mu == 0 else float(guarantee(Gaussian(1 / mu), delta=delta).epsilon)


def _asymptotic(found_in: Subject) -> _Row:
    name = "gdp, asymptotic"
    single = _single_gaussian(found_in)
    if single is None or single[0] == 1 or found_in.delta is None or found_in.delta <= 0:
        note = "for sampled Gaussians only; without sampling, gdp is exact"
        return _Row(name, None, False, note=note)
    if found_in.neighboring == "replace_one":
        return _Row(name, None, False, note="its formula is about adding or removing a record")
    value = gdp_asymptotic(*single, found_in.delta)
    return _Row(name, value, False, note=f"{NO_CERTIFICATE}: may be below the true epsilon")


def _draw(console: Console, found_in: Subject, data: dict[str, Any], rows: list[_Row]) -> None:
    from rich.table import Table

    for line in [*found_in.heading(), f"at delta = {found_in.delta:g}"]:
        console.print(line, soft_wrap=True)
    table = Table("accountant", "epsilon", "order", "")
    for row in rows:
        value = "" if row.epsilon is None else f"{format_upper(row.epsilon, DIGITS)}"
        if row.certificate and row.epsilon is not None:
            value = f"<= {value}"
        kind = "" if row.certificate or row.epsilon is None else NO_CERTIFICATE
        won = "the smallest bound" if row.name == data["winner"] else ""
        note = won or (SHORT[row.name] if row.certificate and row.note else row.note)
        if kind and kind not in note:
            note = f"{kind}; {note}"
        table.add_row(
            row.name, value, "" if row.order is None or math.isnan(row.order)
            else f"{row.order:.4g}", note,
        )  # fmt: skip
    console.print(table)
    if data["epsilon_lower"] is not None:
        console.print(
            f"The true epsilon is at least {format_lower(float(data['epsilon_lower']), DIGITS)}."
        )
