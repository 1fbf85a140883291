"""What a question is about: a plan given by options, or events read from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from privfair.cli._common import clean
from privfair.cli.accountant._plan import PLAN, Plan, default_delta, described
from privfair.cli.accountant._statement import RELATIONS, payload
from privfair.core.exceptions import ConvergenceError

if TYPE_CHECKING:
    from privfair.accounting import AccountedEvent
    from privfair.cli.accountant._events_file import EventsFile
    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["Subject", "events_argument", "subject"]

F = TypeVar("F", bound=Callable[..., Any])


def events_argument(*, required: bool = False) -> Callable[[F], F]:
    """Add the argument EVENTS, a file."""
    return click.argument(
        "events", metavar="EVENTS" if required else "[EVENTS]", required=required, default=None,
        type=str,
    )  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Events with their labels, wherever they come from."""

    events: tuple[AccountedEvent, ...]
    unit: str
    neighboring: str
    accountant: str
    delta: float | None
    plan: Plan | None = None
    file: EventsFile | None = None

    def price(
        self,
        *,
        delta: float | None = None,
        epsilon: float | None = None,
        accountant: str | None = None,
        events: Any = None,
        bracket: bool = False,
    ) -> PrivacyGuarantee:
        """Return the guarantee; by default at the delta and by the accountant asked for."""
        from privfair.accounting import guarantee

        try:
            found: PrivacyGuarantee = guarantee(
                self.events if events is None else events,
                delta=(self.delta if delta is None else delta) if epsilon is None else None,
                epsilon=epsilon,
                accountant=self.accountant if accountant is None else accountant,
                neighboring=self.neighboring,
                unit=self.unit,
                bracket=bracket,
            )
        except (ZeroDivisionError, OverflowError):
            raise ConvergenceError(
                "a scale among the events is too small or too large for the numbers of a "
                "computer. Scales are relative to what one unit can contribute."
            ) from None
        return found

    def lower(self, found: PrivacyGuarantee) -> float | None:
        """Return the best lower bound on the true epsilon at the delta of `found`."""
        known = [found.lower]
        if self.plan is not None and self.plan.noise_multiplier and 0 < found.delta < 1:
            known.append(
                self.plan.lower_bound(self.plan.noise_multiplier, self.plan.steps, found.delta)
            )
        return max((value for value in known if value is not None), default=None)

    def payload(self, found: PrivacyGuarantee | None, **more: Any) -> dict[str, Any]:
        """Return the common keys of ``--json``."""
        data = payload(found)
        data |= {"unit": self.unit, "neighboring": self.neighboring}
        if self.plan is not None:
            plan = self.plan
            data |= {
                "noise_multiplier": plan.noise_multiplier, "sample_rate": plan.sample_rate,
                "steps": plan.steps, "epochs": plan.steps * plan.sample_rate,
                "sampling": plan.sampling,
                "max_records_per_user": None if plan.unit == "record" else plan.max_records,
            }  # fmt: skip
        if self.file is not None:
            data["warnings"] = list(self.file.notes)
        return data | more

    def heading(self) -> list[str]:
        """Return what is priced, in one or two lines."""
        if self.plan is None:
            what = _many(len(self.events), "event")
        else:
            plan = self.plan
            how = {
                "poisson": "Poisson batches",
                "shuffle": "shuffled batches",
                "wor": "batches drawn without replacement",
            }.get(plan.sampling if plan.sample_rate < 1 else "full", "all data")
            rate = f" at rate {plan.sample_rate:g}" if plan.sample_rate < 1 else ""
            what = (
                f"{_many(plan.steps, 'step')} with noise multiplier {plan.noise_multiplier:g} on "
                f"{how}{rate}"
            )
        return [
            clean(what),
            f"Protects one {self.unit}, {RELATIONS[self.neighboring]} ({self.neighboring})",
        ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def subject(events: str | None, given: dict[str, Any], *, need_delta: bool = True) -> Subject:
    """Make a subject of the options of a command that takes a file or a plan.

    Raises
    ------
    click.UsageError
        Both were given, or neither.
    """
    if events is None:
        if not any(given.get(name) is not None for name in PLAN if not _left_alone(name)):
            raise click.UsageError(
                "Give a file with events, or the plan: --noise-multiplier, --sample-rate and "
                "--steps."
            )
        plan = described(need_delta=need_delta, **given)
        event = plan.event(plan.noise_multiplier or 0.0, plan.steps)
        return Subject(
            (event,), plan.unit, plan.neighboring, plan.accountant, plan.delta, plan=plan
        )
    mixed = [
        name for name in PLAN if name != "dataset_size" and name in given and not _left_alone(name)
    ]
    if mixed:
        option = "--" + mixed[0].replace("_", "-")
        raise click.UsageError(f"{option} describes a plan, and the events are in a file already.")
    from privfair.cli.accountant._events_file import read_events

    file = read_events(events)
    labels = {name: _label(name, getattr(file, name), given[name])
              for name in ("unit", "neighboring")}  # fmt: skip
    stated = given.get("delta")
    delta = default_delta(
        file.delta if stated is None else stated, given.get("dataset_size"), needed=need_delta
    )
    return Subject(
        file.events, labels["unit"], labels["neighboring"], given["accountant"], delta, file=file
    )


def _left_alone(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def _label(name: str, stated: str | None, given: str) -> str:
    if stated is None or stated == given:
        return given
    if _left_alone(name):
        return stated
    raise click.UsageError(f"--{name} {given} contradicts the file, which says {stated}.")
