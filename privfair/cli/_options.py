"""The options that several commands share: one name and one meaning everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

__all__ = [
    "FiniteFloat", "NumberList", "SamplingPlan", "WholeNumber", "accountant_option",
    "batch_size_option", "dataset_size_option", "delta_option", "epochs_option",
    "epsilon_option", "neighboring_option", "noise_multiplier_option", "resolve_plan",
    "sample_rate_option", "sampling_options", "steps_option", "unit_option",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


class FiniteFloat(click.ParamType[float]):
    """A number in an interval; never NaN, infinite only where that has a meaning.

    Parameters
    ----------
    low, high : float
        The interval.
    low_open, high_open : bool, default=False
        Whether the ends are outside.
    allow_inf : bool, default=False
        Whether "inf" is accepted.
    """

    name = "number"

    def __init__(
        self,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        low_open: bool = False,
        high_open: bool = False,
        allow_inf: bool = False,
    ) -> None:
        self.low, self.high = low, high
        self.low_open, self.high_open = low_open, high_open
        self.allow_inf = allow_inf

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail with what is allowed."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            self.fail(f"{value!r} is not a number.", param, ctx)
        inside = (
            (number > self.low or (number == self.low and not self.low_open))
            and (number < self.high or (number == self.high and not self.high_open))
            and not math.isnan(number)
        )
        if not inside or (math.isinf(number) and not self.allow_inf):
            self.fail(f"{value} is not {self.describe()}.", param, ctx)
        return number

    def describe(self) -> str:
        """Say what is allowed."""
        ends = []
        if self.low > -math.inf:
            ends.append(f"{'above' if self.low_open else 'at least'} {self.low:g}")
        if self.high < math.inf:
            ends.append(f"{'below' if self.high_open else 'at most'} {self.high:g}")
        text = "a finite number" + (" " + " and ".join(ends) if ends else "")
        return f"{text}, or inf" if self.allow_inf else text


class WholeNumber(click.ParamType[int]):
    """A whole number of at least `low`; 1e5 and 1_000 are understood, 1.5 is not."""

    name = "integer"

    def __init__(self, low: int = 1) -> None:
        self.low = low

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail with what is allowed."""
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            try:
                as_float = float(value)
                number = int(as_float)
            except (TypeError, ValueError, OverflowError):
                self.fail(f"{value!r} is not a whole number.", param, ctx)
            if number != as_float:
                self.fail(f"{value} is not a whole number.", param, ctx)
        if number < self.low:
            self.fail(f"{value} is not a whole number of at least {self.low}.", param, ctx)
        return number


class NumberList(click.ParamType[tuple[float, ...]]):
    """Numbers separated by commas, each inside the interval of a `FiniteFloat`.

    Examples
    --------
    >>> NumberList(FiniteFloat(0, 1)).convert("1e-4, 0.01", None, None)
    (0.0001, 0.01)
    """

    name = "numbers"

    def __init__(self, kind: FiniteFloat, most: int = 100) -> None:
        self.kind, self.most = kind, most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers, or fail with what is allowed."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if len(parts) > self.most:
            self.fail(f"{len(parts)} numbers are more than {self.most}.", param, ctx)
        return tuple(self.kind.convert(part, param, ctx) for part in parts)


class _Words(click.Choice[str]):
    """A choice that takes add-remove for add_remove."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(str(value).replace("-", "_"), param, ctx)


def epsilon_option(*names: str, allow_inf: bool = False, **settings: Any) -> Callable[[F], F]:
    """Add ``--epsilon``."""
    settings.setdefault("help", "Privacy parameter epsilon.")
    kind = FiniteFloat(0, low_open=True, allow_inf=allow_inf)
    return click.option("--epsilon", *names, type=kind, **settings)


def delta_option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Add ``--delta``."""
    settings.setdefault("help", "Privacy parameter delta, in (0, 1).")
    kind = FiniteFloat(0, 1, low_open=True, high_open=True)
    return click.option("--delta", *names, type=kind, **settings)


def noise_multiplier_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--noise-multiplier`` (also ``--sigma``)."""
    settings.setdefault("help", "Standard deviation of the noise, in units of the sensitivity.")
    return click.option(
        "--noise-multiplier", "--sigma", "noise_multiplier",
        # Beyond these ends nothing can be told from no privacy, or from no use.
        type=FiniteFloat(1e-9, 1e12), **settings,
    )  # fmt: skip


def sample_rate_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--sample-rate`` (also ``--q``)."""
    settings.setdefault("help", "Probability with which a step's batch holds a record.")
    return click.option(
        "--sample-rate", "--q", "sample_rate", type=FiniteFloat(0, 1, low_open=True), **settings
    )


def dataset_size_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--dataset-size`` (also ``--n``)."""
    settings.setdefault("help", "Number of records, a public constant.")
    return click.option("--dataset-size", "--n", "dataset_size", type=WholeNumber(), **settings)


def batch_size_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--batch-size``."""
    settings.setdefault("help", "Expected number of records in a batch.")
    return click.option("--batch-size", type=WholeNumber(), **settings)


def epochs_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--epochs``."""
    settings.setdefault("help", "Passes over the data: steps = ceil(epochs / sample rate).")
    return click.option("--epochs", type=FiniteFloat(0, low_open=True), **settings)


def steps_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--steps``."""
    settings.setdefault("help", "Number of noisy steps.")
    return click.option("--steps", type=WholeNumber(), **settings)


def neighboring_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--neighboring``."""
    settings.setdefault("help", "Which data sets count as neighbours.")
    if settings.setdefault("default", "zero_out") is not None:
        settings.setdefault("show_default", True)
    words = _Words(["zero_out", "add_remove", "replace_one"])
    return click.option("--neighboring", type=words, **settings)


def unit_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--unit``."""
    settings.setdefault("help", "Whose data is protected.")
    if settings.setdefault("default", "record") is not None:
        settings.setdefault("show_default", True)
    return click.option("--unit", type=click.Choice(["record", "user", "client"]), **settings)


def accountant_option(**settings: Any) -> Callable[[F], F]:
    """Add ``--accountant``."""
    settings.setdefault("help", "Which bound; best is the smallest valid one.")
    words = click.Choice(["best", "pld", "rdp", "zcdp", "gdp", "basic"])
    return click.option("--accountant", type=words, default="best", show_default=True, **settings)


def sampling_options(function: F) -> F:
    """Add the five options from which `resolve_plan` finds sample rate and steps."""
    for option in (
        epochs_option(), steps_option(), batch_size_option(), dataset_size_option(),
        sample_rate_option(),
    ):  # fmt: skip
        function = option(function)
    return function


@dataclass(frozen=True)
class SamplingPlan:
    """Sample rate and number of steps, as given or as worked out."""

    sample_rate: float
    steps: int | None
    dataset_size: int | None


def resolve_plan(
    *,
    sample_rate: float | None = None,
    dataset_size: int | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    need_steps: bool = True,
) -> SamplingPlan:
    """Work out sample rate and steps; refuse what is missing or contradicts itself.

    Raises
    ------
    click.UsageError
        If the rate is given twice with different values, or not at all; likewise the steps.

    Examples
    --------
    >>> resolve_plan(dataset_size=60000, batch_size=600, epochs=10)
    SamplingPlan(sample_rate=0.01, steps=1000, dataset_size=60000)
    """
    if batch_size is not None:
        if dataset_size is None:
            raise click.UsageError("--batch-size needs --dataset-size: the rate is their ratio.")
        if batch_size > dataset_size:
            raise click.UsageError(
                f"--batch-size {batch_size} is larger than --dataset-size {dataset_size}."
            )
        implied = batch_size / dataset_size
        if sample_rate is not None and not math.isclose(sample_rate, implied, rel_tol=1e-9):
            raise click.UsageError(
                f"--sample-rate {sample_rate:g} contradicts --batch-size / --dataset-size = "
                f"{implied:g}. Give one of the two."
            )
        sample_rate = implied if sample_rate is None else sample_rate
    if sample_rate is None:
        raise click.UsageError(
            "Give --sample-rate, or --batch-size together with --dataset-size. "
            "Without subsampling the rate is 1."
        )
    if epochs is not None:
        implied_steps = math.ceil(epochs / sample_rate * (1 - 1e-12))
        if steps is not None and steps != implied_steps:
            raise click.UsageError(
                f"--steps {steps} contradicts --epochs {epochs:g} at sample rate "
                f"{sample_rate:g}, which is {implied_steps} steps. Give one of the two."
            )
        steps = implied_steps
    if steps is None and need_steps:
        raise click.UsageError("Give --steps or --epochs.")
    return SamplingPlan(sample_rate, steps, dataset_size)
