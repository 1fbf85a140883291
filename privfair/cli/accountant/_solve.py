"""``epsilon``, ``delta``, ``noise``, ``steps``: each finds one of the four from the others."""

from __future__ import annotations

import math
from typing import Any

import click

from privfair.cli._common import epsilon_option, example, noise_multiplier_option
from privfair.cli.accountant._plan import described, plan_options
from privfair.cli.accountant._search import largest_steps, smallest_noise
from privfair.cli.accountant._statement import DIGITS, Answer, show
from privfair.core._format import format_upper, round_up
from privfair.core.exceptions import ConvergenceError

__all__ = ["delta", "epsilon", "noise", "steps"]


@click.command()
@plan_options()
@example(
    "privfair accountant epsilon --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000 "
    "--delta 1e-5"
)
def epsilon(**given: Any) -> None:
    """State the epsilon of a plan.

    Give --sample-rate, or --batch-size with --dataset-size; and --steps or --epochs.
    """
    plan = described(**given)
    sigma = plan.noise_multiplier or 0.0
    answer = Answer(plan, sigma, plan.steps, plan.price(sigma, plan.steps, bracket=True))
    show(answer.payload(), answer.lines())


@click.command()
@epsilon_option(required=True)
@plan_options(delta=False)
@example(
    "privfair accountant delta --epsilon 1.5 --noise-multiplier 1.1 --sample-rate 0.01 "
    "--steps 1000"
)
def delta(epsilon: float, **given: Any) -> None:
    """Find the smallest delta of a plan at an epsilon.

    It is rounded up at the last printed digit.
    """
    plan = described(need_delta=False, **given)
    sigma = plan.noise_multiplier or 0.0
    answer = Answer(
        plan, sigma, plan.steps, plan.price(sigma, plan.steps, epsilon=epsilon, bracket=True)
    )
    found = answer.found
    void = math.isinf(found.epsilon)
    text = "1" if void else format_upper(found.delta, DIGITS)
    data = answer.payload() | {"epsilon": epsilon, "delta": 1.0 if void else float(text)}
    if void:
        data["warnings"] = ["At this epsilon the plan promises nothing: delta is 1."]
    by = "" if void else f"  (accountant {found.accountant})"
    show(data, answer.lines(head=f"delta <= {text} at epsilon = {epsilon:g}{by}"))


@click.command()
@epsilon_option(required=True)
@plan_options(noise=False)
@example(
    "privfair accountant noise --epsilon 1 --dataset-size 32561 --batch-size 1024 "
    "--epochs 20 --delta 1e-5"
)
def noise(epsilon: float, **given: Any) -> None:
    """Find the smallest noise multiplier whose certified epsilon is within the target.

    It is rounded up at the last printed digit.
    """
    plan = described(need_noise=False, **given)
    sigma = round_up(smallest_noise(plan, epsilon, plan.steps), DIGITS)
    found = plan.price(sigma, plan.steps)
    for _ in range(200):
        if found.epsilon <= epsilon:
            break
        # Not seen; the promise is kept all the same.
        sigma = round_up(sigma * (1 + 10.0 ** (1 - DIGITS)), DIGITS)
        found = plan.price(sigma, plan.steps)
    else:
        raise ConvergenceError(
            f"no noise multiplier near {sigma:g} is certified at epsilon <= {epsilon:g}; give "
            "another --epsilon, --delta or --accountant."
        )
    answer = Answer(plan, sigma, plan.steps, plan.price(sigma, plan.steps, bracket=True))
    first = f"noise multiplier {sigma:.12g} for epsilon <= {epsilon:g}"
    show(answer.payload(), [first, *answer.lines()])


@click.command()
@epsilon_option(required=True)
@noise_multiplier_option(required=True)
@plan_options(noise=False, steps=False)
@example(
    "privfair accountant steps --epsilon 1 --noise-multiplier 1.1 --sample-rate 0.01 --delta 1e-5"
)
def steps(epsilon: float, noise_multiplier: float, **given: Any) -> None:
    """Find the largest number of steps whose certified epsilon is within the target."""
    plan = described(need_noise=False, need_steps=False, **given)
    count = largest_steps(plan, epsilon, noise_multiplier)
    found = plan.price(noise_multiplier, count, bracket=True)
    answer = Answer(plan, noise_multiplier, count, found)
    show(answer.payload(), [f"{count} steps for epsilon <= {epsilon:g}", *answer.lines()])
