"""Training with noise on sampled batches, as the options of the command line describe it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from privfair.cli._common import (
    SamplingPlan,
    WholeNumber,
    accountant_option,
    batch_size_option,
    dataset_size_option,
    delta_option,
    epochs_option,
    neighboring_option,
    noise_multiplier_option,
    resolve_plan,
    sample_rate_option,
    steps_option,
    unit_option,
)

if TYPE_CHECKING:
    from privfair.accounting import AccountedEvent
    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["PLAN", "Plan", "default_delta", "described", "label_options", "plan_options"]

F = TypeVar("F", bound=Callable[..., Any])
DELTA_HELP = "Delta in (0, 1); by default the largest power of ten <= 1 / (10 --dataset-size)."
PLAN = (
    "noise_multiplier", "sample_rate", "dataset_size", "batch_size", "epochs", "steps",
    "sampling", "mechanism", "max_records_per_user",
)  # fmt: skip
"""Names of the options that describe training, as click passes them on."""


def label_options(function: F) -> F:
    """Add what every number needs beside it: unit, relation and accountant."""
    for option in (accountant_option(), unit_option(), neighboring_option()):
        function = option(function)
    return function


def plan_options(
    *, noise: bool = True, delta: bool = True, steps: bool = True
) -> Callable[[F], F]:
    """Add the options from which `described` makes a plan; none of them is required by click."""

    def add(function: F) -> F:
        function = label_options(function)
        function = click.option(
            "--max-records-per-user",
            type=WholeNumber(),
            default=None,
            metavar="M",
            help="Most records of one user or client; 1 if whole users are sampled and the "
            "clipping bounds a user's sum.",
        )(function)
        function = click.option(
            "--mechanism",
            type=click.Choice(["dp-sgd", "gaussian"]),
            default="dp-sgd",
            show_default=True,
            help="Steps on batches, or on all data (as --sampling full).",
        )(function)
        function = click.option(
            "--sampling",
            type=click.Choice(["poisson", "shuffle", "wor", "full"]),
            default="poisson",
            show_default=True,
            help="How batches are drawn: each record independently, shuffled and cut, of fixed "
            "size without replacement, or all data.",
        )(function)
        if delta:
            function = delta_option(default=None, help=DELTA_HELP)(function)
        if steps:
            function = steps_option()(epochs_option()(function))
        for option in (batch_size_option(), dataset_size_option(), sample_rate_option()):
            function = option(function)
        return noise_multiplier_option()(function) if noise else function

    return add


@dataclass(frozen=True)
class Plan:
    """A plan of training whose noise and number of steps may still be open."""

    batches: SamplingPlan
    sampling: str
    delta: float | None
    unit: str
    neighboring: str
    accountant: str
    batch_size: int | None
    max_records: int = 1
    noise_multiplier: float | None = None

    @property
    def sample_rate(self) -> float:
        """Probability with which a step's batch holds a record."""
        return self.batches.sample_rate

    @property
    def steps(self) -> int:
        """Number of noisy steps."""
        return self.batches.steps or 0

    def sizes(self) -> tuple[int, int]:
        """Return the sizes of data set and batch, which fixed batches need."""
        if self.batches.dataset_size is None or self.batch_size is None:
            raise click.UsageError(
                f"--sampling {self.sampling} needs --dataset-size and --batch-size: batches of "
                "fixed size are cut from a known number of records."
            )
        return self.batches.dataset_size, self.batch_size

    @property
    def batches_per_epoch(self) -> int:
        """Batches in a shuffled epoch."""
        size, batch = self.sizes()
        return size // batch

    def epochs(self, steps: int) -> int:
        """Return the shuffled passes begun: a record is used at most once in each."""
        return -(-steps // self.batches_per_epoch)

    def event(self, sigma: float, steps: int) -> AccountedEvent:
        """Return what happens to one unit's data."""
        from privfair.accounting import events as ev

        if steps == 0:
            return ev.SelfComposed(ev.Gaussian(sigma), 0)
        if self.sampling == "shuffle":
            size, batch = self.sizes()
            # Most is seen of a user whose records all fall into one batch.
            return ev.ShuffledEpochs(size, batch, self.epochs(steps), sigma / self.max_records)
        step: AccountedEvent
        if self.sampling == "wor":
            size, batch = self.sizes()
            step = ev.FixedBatchWOR(size, batch, ev.Gaussian(sigma))
        elif self.max_records == 1:
            step = ev.PoissonSampled(self.sample_rate, ev.Gaussian(sigma))
        elif self.sample_rate == 1:
            step = ev.Gaussian(sigma / self.max_records)
        else:
            step = ev.UserPoisson(self.sample_rate, sigma, self.max_records)
        return ev.SelfComposed(step, steps)

    def price(
        self, sigma: float, steps: int, *, epsilon: float | None = None, bracket: bool = False
    ) -> PrivacyGuarantee:
        """Return the guarantee: at the plan's delta, or the delta at `epsilon`.

        With `bracket`, also a lower bound on the truth, where one is known.
        """
        from privfair.accounting import guarantee

        found: PrivacyGuarantee = guarantee(
            self.event(sigma, steps),
            delta=self.delta if epsilon is None else None,
            epsilon=epsilon,
            accountant=self.accountant,
            neighboring=self.neighboring,
            unit=self.unit,
            bracket=bracket,
        )
        return found

    def compared(self, event: AccountedEvent, delta: float) -> float:
        """Return the epsilon of another event under the labels of this plan."""
        from privfair.accounting import guarantee

        found = guarantee(event, delta=delta, neighboring=self.neighboring, unit=self.unit)
        return float(found.epsilon)

    def lower_bound(self, sigma: float, steps: int, delta: float) -> float | None:
        """Return a lower bound on the epsilon of shuffled batches; None for other batches."""
        # The bound is about whole epochs: the witness needs every batch of one.
        if self.sampling != "shuffle" or steps < self.batches_per_epoch:
            return None
        from privfair.accounting import shuffled_epsilon_lower_bound

        return float(
            shuffled_epsilon_lower_bound(
                noise_multiplier=sigma, batches=self.batches_per_epoch, delta=delta
            )
        )


def described(
    *,
    need_noise: bool = True,
    need_steps: bool = True,
    need_delta: bool = True,
    noise_multiplier: float | None = None,
    sampling: str = "poisson",
    mechanism: str = "dp-sgd",
    delta: float | None = None,
    unit: str = "record",
    neighboring: str = "zero_out",
    accountant: str = "best",
    max_records_per_user: int | None = None,
    **given: Any,
) -> Plan:
    """Make a plan of options; refuse what is missing or contradicts itself.

    Raises
    ------
    click.UsageError
        Says which option is missing, or which two do not fit together.
    """
    if mechanism == "gaussian":
        if sampling not in ("poisson", "full"):
            raise click.UsageError(
                f"--mechanism gaussian adds noise to a query of all data; --sampling {sampling} "
                "needs --mechanism dp-sgd."
            )
        sampling = "full"
    if need_noise and noise_multiplier is None:
        raise click.UsageError("Give --noise-multiplier (or --sigma).")
    if sampling == "full":
        if given["sample_rate"] not in (None, 1.0) or given["batch_size"] is not None:
            raise click.UsageError(
                "--sampling full uses all data in each step: leave out --sample-rate and "
                "--batch-size."
            )
        given["sample_rate"] = 1.0
    batches = resolve_plan(**given, need_steps=need_steps)
    plan = Plan(
        batches, sampling, default_delta(delta, batches.dataset_size, needed=need_delta), unit,
        neighboring, accountant, given.get("batch_size"),
        _records(unit, max_records_per_user, sampling), noise_multiplier,
    )  # fmt: skip
    if sampling in ("shuffle", "wor"):
        plan.sizes()
    return plan


def _records(unit: str, most: int | None, sampling: str) -> int:
    if unit == "record":
        if most not in (None, 1):
            raise click.UsageError("--max-records-per-user needs --unit user or --unit client.")
        return 1
    if most is None:
        raise click.UsageError(
            f"--unit {unit} needs --max-records-per-user: without a bound on the records of one "
            f"{unit} there is no guarantee for it. Give 1 if whole {unit}s are sampled and the "
            f"clipping norm bounds the sum of one {unit}'s records."
        )
    if most > 1 and unit == "client" and sampling == "poisson":
        raise click.UsageError(
            "Several records per unit on Poisson batches of records are priced for --unit user. "
            "Sample whole clients and give --max-records-per-user 1, or use --unit user."
        )
    if most > 1 and sampling == "wor":
        raise click.UsageError(
            "--sampling wor has no bound for several records of one user. Use --sampling poisson, "
            "or sample whole users and give --max-records-per-user 1."
        )
    return most


def default_delta(delta: float | None, size: int | None, *, needed: bool = True) -> float | None:
    """Return delta as given, or the one that follows from the number of records."""
    if delta is None:
        if size is None:
            if needed:
                raise click.UsageError("Give --delta, or --dataset-size from which it follows.")
            return None
        return float(10.0 ** math.floor(-math.log10(10 * size) + 1e-9))
    if size is not None and delta >= 1 / size:
        raise click.BadParameter(
            f"{delta:g} is not below 1 / --dataset-size = {1 / size:.3g}: such a delta permits "
            "releasing a record outright.",
            param_hint="--delta",
        )
    return delta
