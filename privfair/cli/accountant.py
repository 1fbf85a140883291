"""``privfair accountant``: what epsilon, noise or number of steps a plan comes to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from privfair.cli._common import (
    SamplingPlan,
    batch_size_option,
    dataset_size_option,
    delta_option,
    epsilon_option,
    example,
    noise_multiplier_option,
    output,
    resolve_plan,
    sample_rate_option,
    sampling_options,
)
from privfair.core._format import format_lower, format_upper, json_number, round_down, round_up

if TYPE_CHECKING:
    from privfair.accounting import AccountedEvent
    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])
DIGITS = 6
NOT_COVERED = (
    "choosing hyper-parameters on the private data",
    "statistics of the data used in preprocessing",
    "early stopping or model choice on private validation data",
    "noise drawn from a seed that somebody else knows",
)


@click.group()
def command() -> None:
    """Work out epsilon, noise or steps of training with Gaussian noise on sampled batches.

    Every epsilon printed is an upper bound that holds for all intermediate results together,
    rounded up; every noise multiplier is rounded up, so that pasting it back never exceeds the
    target.
    """


def _sampling(function: F) -> F:
    return click.option(
        "--sampling",
        type=click.Choice(["poisson", "shuffle", "full"]),
        default="poisson",
        show_default=True,
        help="How batches are drawn: each record independently, shuffled and cut, or all data.",
    )(function)


def _labels(function: F) -> F:
    for option in (
        click.option(
            "--unit", type=click.Choice(["record", "user", "client"]), default="record",
            show_default=True, help="Whose data is protected.",
        ),
        click.option(
            "--neighboring", type=click.Choice(["zero_out", "add_remove", "replace_one"]),
            default="zero_out", show_default=True, help="Which data sets count as neighbours.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


@dataclass(frozen=True)
class _Question:
    """What all three commands ask about."""

    plan: SamplingPlan
    sampling: str
    delta: float
    unit: str
    neighboring: str
    batch_size: int | None

    def event(self, sigma: float, steps: int) -> AccountedEvent:
        from privfair.accounting import Gaussian, PoissonSampled, SelfComposed, ShuffledEpochs

        if self.sampling == "shuffle" and steps:
            size, batch = self.sizes()
            return ShuffledEpochs(size, batch, self.epochs(steps), sigma)
        return SelfComposed(PoissonSampled(self.plan.sample_rate, Gaussian(sigma)), steps)

    def sizes(self) -> tuple[int, int]:
        """Return the sizes of data set and batch, which shuffling needs."""
        if self.plan.dataset_size is None or self.batch_size is None:
            raise click.UsageError("--sampling shuffle needs --dataset-size and --batch-size.")
        return self.plan.dataset_size, self.batch_size

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        size, batch = self.sizes()
        return size // batch

    def epochs(self, steps: int) -> int:
        """Return the passes begun: a record is used at most once in each."""
        return -(-steps // self.batches)


def _question(
    *,
    sampling: str,
    delta: float | None,
    unit: str,
    neighboring: str,
    need_steps: bool,
    **given: Any,
) -> _Question:
    if sampling == "full":
        if given["sample_rate"] not in (None, 1.0) or given["batch_size"] is not None:
            raise click.UsageError(
                "--sampling full uses all data in each step: leave out --sample-rate and "
                "--batch-size."
            )
        given["sample_rate"] = 1.0
    plan = resolve_plan(**given, need_steps=need_steps)
    size = plan.dataset_size
    if delta is None:
        if size is None:
            raise click.UsageError("Give --delta, or --dataset-size from which it follows.")
        delta = 10.0 ** math.floor(-math.log10(10 * size) + 1e-9)
    elif size is not None and delta >= 1 / size:
        raise click.BadParameter(
            f"{delta:g} is not below 1 / --dataset-size = {1 / size:.3g}: such a delta permits "
            "releasing a record outright.",
            param_hint="--delta",
        )
    return _Question(plan, sampling, delta, unit, neighboring, given.get("batch_size"))


def _answer(question: _Question, sigma: float, steps: int, accountant: str = "best") -> _Answer:
    from privfair.accounting import guarantee

    found = guarantee(
        question.event(sigma, steps),
        delta=question.delta,
        accountant=accountant,
        neighboring=question.neighboring,
        unit=question.unit,
    )
    return _Answer(question, sigma, steps, found)


@dataclass(frozen=True)
class _Answer:
    """A priced plan, ready to be shown."""

    question: _Question
    sigma: float
    steps: int
    found: PrivacyGuarantee

    def payload(self) -> dict[str, Any]:
        """Return what ``--json`` prints; every epsilon rounded up, every lower bound down."""
        question, found = self.question, self.found
        shuffled = question.sampling == "shuffle"
        lower = self.lower()
        return {
            "schema": 1,
            "epsilon": json_number(round_up(found.epsilon, DIGITS)),
            "epsilon_lower": None if lower is None else round_down(lower, DIGITS),
            "delta": question.delta,
            "noise_multiplier": self.sigma,
            "sample_rate": question.plan.sample_rate,
            "steps": self.steps,
            "epochs": self.steps * question.plan.sample_rate,
            "sampling": question.sampling,
            "neighboring": question.neighboring,
            "unit": question.unit,
            "accountant": found.accountant,
            "order": json_number(found.order),
            "epsilon_no_amplification": json_number(round_up(self.plain(), DIGITS)),
            "epsilon_poisson_if_shuffled": (
                json_number(round_up(self.if_sampled(), DIGITS)) if shuffled else None
            ),
            "assumptions": list(found.assumptions),
            "not_covered": list(NOT_COVERED),
            "warnings": self.warnings(),
            "versions": _versions(),
        }

    def lower(self) -> float | None:
        """Return a lower bound on the true epsilon, where one is known."""
        # The bound is about whole epochs: the witness needs every batch of one.
        if self.question.sampling != "shuffle" or self.steps < self.question.batches:
            return None
        from privfair.accounting import shuffled_epsilon_lower_bound

        return float(
            shuffled_epsilon_lower_bound(
                noise_multiplier=self.sigma,
                batches=self.question.batches,
                delta=self.question.delta,
            )
        )

    def plain(self) -> float:
        """Return the epsilon of the same noise if every step used all the data."""
        from privfair.accounting import Gaussian, SelfComposed, guarantee

        event = SelfComposed(Gaussian(self.sigma), self.steps)
        question = self.question
        found = guarantee(event, delta=question.delta, neighboring=question.neighboring)
        return float(found.epsilon)

    def if_sampled(self) -> float:
        """Return the epsilon that would hold under Poisson sampling."""
        from privfair.accounting import Gaussian, PoissonSampled, SelfComposed, guarantee

        question = self.question
        step = PoissonSampled(question.plan.sample_rate, Gaussian(self.sigma))
        event = SelfComposed(step, self.steps)
        found = guarantee(event, delta=question.delta, neighboring=question.neighboring)
        return float(found.epsilon)

    def warnings(self) -> list[str]:
        """Return what a careful reader would ask about."""
        out = []
        if math.isinf(self.found.epsilon):
            out.append("There is no finite guarantee.")
        elif self.found.epsilon > 20:
            out.append("An epsilon above 20 protects nobody in practice.")
        if self.question.plan.dataset_size is None:
            out.append("Without --dataset-size, delta was not compared with 1/n.")
        return out

    def lines(self) -> list[str]:
        """Return the statement in words."""
        question, found = self.question, self.found
        relation = {
            "zero_out": "its data replaced by nothing, n public",
            "add_remove": "added or removed, n private",
            "replace_one": "its data replaced by any other, n public",
        }[question.neighboring]
        out = [
            f"epsilon <= {format_upper(found.epsilon, DIGITS)} at delta = {question.delta:g}  "
            f"(accountant {found.accountant})",
            f"  protects    one {question.unit}, {relation} ({question.neighboring})",
            f"  batches     {self._batches()}",
            f"  steps       {self.steps} ({self.steps * question.plan.sample_rate:.4g} epochs)",
            f"  noise       noise multiplier {self.sigma:.12g}",
        ]
        if question.sampling == "poisson" and question.plan.sample_rate < 1:
            out.append(
                f"  unsampled   epsilon <= {format_upper(self.plain(), DIGITS)} if every step "
                "used all the data"
            )
        lower = self.lower()
        if lower is not None:
            out.append(
                "Batches were shuffled, not Poisson sampled. Certified epsilon = "
                f"{format_upper(found.epsilon)}. The commonly quoted Poisson value "
                f"{format_upper(self.if_sampled())} is not a guarantee; the true value is at "
                f"least {format_lower(lower)}."
            )
        out.append("Covers every intermediate model and gradient, not only the last model.")
        out.append("Does not cover: " + "; ".join(NOT_COVERED) + ".")
        out += [f"Assumes: {sentence}" for sentence in found.assumptions]
        return out

    def _batches(self) -> str:
        question = self.question
        rate, size = question.plan.sample_rate, question.plan.dataset_size
        if question.sampling == "full" or rate == 1:
            return "all data in every step"
        if question.sampling == "shuffle":
            return f"shuffled, {question.batch_size} of {size} records each"
        expected = "" if size is None else f", {rate * size:.6g} of {size} records expected"
        return f"Poisson, each record with probability {rate:.6g}{expected}"


def _versions() -> dict[str, str]:
    import platform

    import numpy
    import scipy

    from privfair import __version__

    return {
        "privfair": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }


def _show(answer: _Answer, first: str | None = None) -> None:
    lines = answer.lines() if first is None else [first, *answer.lines()]
    lines += [f"Note: {text}" for text in answer.warnings()]
    output(answer.payload(), "\n".join(lines))


_DELTA_HELP = "Delta in (0, 1); by default the largest power of ten <= 1 / (10 --dataset-size)."


@command.command()
@noise_multiplier_option(required=True)
@sampling_options
@delta_option(default=None, help=_DELTA_HELP)
@_sampling
@_labels
@click.option(
    "--accountant",
    type=click.Choice(["best", "pld", "rdp", "zcdp", "gdp", "basic"]),
    default="best",
    show_default=True,
    help="Which bound; best is the smallest valid one.",
)
@example(
    "privfair accountant epsilon --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000 "
    "--delta 1e-5"
)
def epsilon(noise_multiplier: float, accountant: str, **given: Any) -> None:
    """State the epsilon of a plan.

    Give --sample-rate, or --batch-size with --dataset-size; and --steps or --epochs.
    """
    question = _question(need_steps=True, **given)
    steps = question.plan.steps or 0
    _show(_answer(question, noise_multiplier, steps, accountant))


@command.command()
@epsilon_option(required=True)
@sampling_options
@delta_option(default=None, help=_DELTA_HELP)
@_sampling
@_labels
@example(
    "privfair accountant noise --epsilon 1 --dataset-size 32561 --batch-size 1024 "
    "--epochs 20 --delta 1e-5"
)
def noise(epsilon: float, **given: Any) -> None:
    """Find the smallest noise multiplier whose certified epsilon is within the target.

    It is rounded up at the last printed digit.
    """
    from privfair.accounting import calibrate_noise_multiplier

    question = _question(need_steps=True, **given)
    steps = question.plan.steps or 0
    shuffled = question.sampling == "shuffle"
    sigma = calibrate_noise_multiplier(
        epsilon=epsilon,
        delta=question.delta,
        sample_rate=1.0 if shuffled else question.plan.sample_rate,
        steps=question.epochs(steps) if shuffled else steps,
        neighboring=question.neighboring,
    )
    sigma = round_up(sigma, DIGITS)
    answer = _answer(question, sigma, steps)
    while answer.found.epsilon > epsilon:  # not seen; the promise is kept all the same
        sigma = round_up(sigma * (1 + 10.0 ** (1 - DIGITS)), DIGITS)
        answer = _answer(question, sigma, steps)
    _show(answer, f"noise multiplier {sigma:.12g} for epsilon <= {epsilon:g}")


@command.command()
@epsilon_option(required=True)
@noise_multiplier_option(required=True)
@batch_size_option()
@dataset_size_option()
@sample_rate_option()
@delta_option(default=None, help=_DELTA_HELP)
@_sampling
@_labels
@example(
    "privfair accountant steps --epsilon 1 --noise-multiplier 1.1 --sample-rate 0.01 --delta 1e-5"
)
def steps(epsilon: float, noise_multiplier: float, **given: Any) -> None:
    """Find the largest number of steps whose certified epsilon is within the target."""
    from privfair.accounting import calibrate_steps

    question = _question(need_steps=False, **given)
    shuffled = question.sampling == "shuffle"
    count = calibrate_steps(
        epsilon=epsilon,
        delta=question.delta,
        noise_multiplier=noise_multiplier,
        sample_rate=1.0 if shuffled else question.plan.sample_rate,
        neighboring=question.neighboring,
    )
    if shuffled:
        count *= question.batches
    _show(
        _answer(question, noise_multiplier, count),
        f"{count} steps for epsilon <= {epsilon:g}",
    )
