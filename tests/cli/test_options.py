"""The shared options: what they accept, and the plan worked out from them."""

from __future__ import annotations

import math
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfair.cli._common import FiniteFloat, WholeNumber, resolve_plan, sampling_options


def convert(kind: click.ParamType[Any], value: object) -> Any:
    return kind.convert(value, None, None)


@given(st.one_of(st.floats().map(str), st.text(max_size=8), st.floats(), st.integers()))
def test_a_number_is_inside_or_refused(value: object) -> None:
    kind = FiniteFloat(0, 1, low_open=True, high_open=True)
    try:
        number = convert(kind, value)
    except click.BadParameter as error:
        assert "number" in error.message
    else:
        assert 0 < number < 1


@pytest.mark.parametrize(
    ("kind", "value", "accepted"),
    [
        (FiniteFloat(0, 1), "0", True),
        (FiniteFloat(0, 1), "1", True),
        (FiniteFloat(0, 1, low_open=True), "0", False),
        (FiniteFloat(0, 1, high_open=True), "1", False),
        (FiniteFloat(0), "inf", False),
        (FiniteFloat(0, allow_inf=True), "inf", True),
        (FiniteFloat(0, allow_inf=True), "-inf", False),
        (FiniteFloat(allow_inf=True), "nan", False),
        (FiniteFloat(), "1e999", False),
    ],
)
def test_the_ends_of_the_interval(kind: FiniteFloat, value: str, accepted: bool) -> None:
    if accepted:
        assert convert(kind, value) == float(value)
    else:
        with pytest.raises(click.BadParameter, match="is not a"):
            convert(kind, value)


@pytest.mark.parametrize(
    ("value", "number"),
    [("1", 1), ("1e5", 100_000), ("60_000", 60_000), ("1.5", None), ("0", None), ("-3", None),
     ("nan", None), ("inf", None), ("ten", None), ("9007199254740993", 9007199254740993)],
)  # fmt: skip
def test_whole_numbers(value: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(click.BadParameter, match="whole number"):
            convert(WholeNumber(), value)
    else:
        assert convert(WholeNumber(), value) == number


@given(
    n=st.integers(1, 10**7), batch=st.integers(1, 10**7), epochs=st.floats(0.01, 500),
)  # fmt: skip
def test_steps_cover_the_epochs(n: int, batch: int, epochs: float) -> None:
    """Never fewer steps than the epochs take: fewer would account for less than is run."""
    if batch > n:
        with pytest.raises(click.UsageError, match="larger than"):
            resolve_plan(dataset_size=n, batch_size=batch, epochs=epochs)
        return
    plan = resolve_plan(dataset_size=n, batch_size=batch, epochs=epochs)
    assert plan.sample_rate == batch / n
    assert plan.steps is not None
    assert plan.steps >= 1
    assert plan.steps * plan.sample_rate >= epochs * (1 - 1e-9)
    assert (plan.steps - 1) * plan.sample_rate < epochs * (1 + 1e-9)


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({}, "--sample-rate"),
        ({"sample_rate": 0.1}, "--steps or --epochs"),
        ({"batch_size": 10, "steps": 1}, "needs --dataset-size"),
        ({"sample_rate": 0.1, "batch_size": 10, "dataset_size": 1000, "steps": 1}, "contradicts"),
        ({"sample_rate": 0.1, "epochs": 2, "steps": 30}, "contradicts"),
    ],
)
def test_missing_and_contradicting_options_are_refused(
    given_options: dict[str, Any], message: str
) -> None:
    with pytest.raises(click.UsageError, match=message):
        resolve_plan(**given_options)


def test_consistent_double_information_is_fine() -> None:
    plan = resolve_plan(sample_rate=0.01, dataset_size=1000, batch_size=10, steps=200, epochs=2)
    assert (plan.sample_rate, plan.steps) == (0.01, 200)
    assert resolve_plan(sample_rate=1.0, need_steps=False).steps is None
    assert math.isclose(resolve_plan(sample_rate=0.1, epochs=3).steps or 0, 30)


@pytest.mark.parametrize(
    "line",
    ["--q 0.1 --n 1000 --steps 7", "--sample-rate 0.1 --dataset-size 1000 --steps 7"],
)
def test_both_names_of_an_option_mean_the_same(line: str) -> None:
    seen: dict[str, Any] = {}

    @click.command()
    @sampling_options
    def command(**options: Any) -> None:
        seen.update(options)

    command.main(line.split(), standalone_mode=False)
    assert seen == {
        "sample_rate": 0.1, "dataset_size": 1000, "batch_size": None, "steps": 7, "epochs": None,
    }  # fmt: skip
