"""``explain``: what an (epsilon, delta) means for the person in the data."""

from __future__ import annotations

import math
from typing import Any

import click

from privfair.cli._common import (
    FiniteFloat,
    NumberList,
    dataset_size_option,
    epsilon_option,
    example,
)
from privfair.cli.accountant._plan import default_delta
from privfair.cli.accountant._statement import payload, show, upper
from privfair.core._format import format_upper, round_up

__all__ = ["best_success", "explain", "precision_at", "tpr_at"]

FPR = (1e-3, 1e-2, 1e-1)
PRIORS = (0.001, 0.01, 0.1, 0.5)
_OPEN = FiniteFloat(0, 1, low_open=True, high_open=True)


def tpr_at(fpr: float, epsilon: float, delta: float) -> float:
    """Return the largest true positive rate of any attack with this false positive rate.

    Examples
    --------
    >>> round(tpr_at(0.01, 1.0, 0.0), 4), tpr_at(0.0, 1.0, 0.25)
    (0.0272, 0.25)
    """
    from privfair.core.privacy import tradeoff_at

    return 1.0 - tradeoff_at(fpr, epsilon, delta)


def best_success(prior: float, epsilon: float, delta: float) -> float:
    """Return the largest probability of guessing membership right, from a prior belief.

    The best of ``prior * TPR + (1 - prior) * (1 - FPR)`` over the corners of the region that
    (epsilon, delta)-DP leaves to an attacker.

    Examples
    --------
    >>> round(best_success(0.5, 1.0, 0.0), 4), best_success(0.01, 1.0, 0.0)
    (0.7311, 0.99)
    """
    if epsilon > 700:
        return 1.0
    crossing = (1 - delta) / (1 + math.exp(epsilon))
    corners = [(0.0, delta), (crossing, 1 - crossing), (1 - delta, 1.0)]
    found = [prior * tpr + (1 - prior) * (1 - fpr) for fpr, tpr in corners]
    return min(1.0, max(found))


def precision_at(fpr: float, prior: float, epsilon: float, delta: float) -> float:
    """Return the largest posterior belief after a positive answer of a test with this FPR.

    Examples
    --------
    >>> round(precision_at(0.01, 0.5, 1.0, 0.0), 4)
    0.7311
    """
    tpr = tpr_at(fpr, epsilon, delta)
    return prior * tpr / (prior * tpr + (1 - prior) * fpr)


@click.command()
@epsilon_option(required=True)
@click.option(
    "--delta", type=FiniteFloat(0, 1, high_open=True), default=None,
    help="Privacy parameter delta in [0, 1); 0 by default, or what follows from --dataset-size.",
)  # fmt: skip
@dataset_size_option()
@click.option(
    "--prior", "priors", type=NumberList(_OPEN), default=",".join(map(str, PRIORS)),
    show_default=True, help="Beliefs in membership before seeing anything, in (0, 1).",
)  # fmt: skip
@click.option(
    "--fpr", "rates", type=NumberList(_OPEN), default=",".join(map(str, FPR)), show_default=True,
    help="False positive rates of attacks, in (0, 1).",
)  # fmt: skip
@example("privfair accountant explain --epsilon 1 --delta 1e-5")
def explain(
    epsilon: float,
    delta: float | None,
    dataset_size: int | None,
    priors: tuple[float, ...],
    rates: tuple[float, ...],
) -> None:
    """Say in plain words what an epsilon and delta mean.

    All statements are about the strongest attacker there can be: one who knows everything but
    whether one given unit is in the data, and sees everything that is released.
    """
    if delta is None:
        delta = 0.0 if dataset_size is None else (default_delta(None, dataset_size) or 0.0)
    warnings = _warnings(epsilon, delta, dataset_size)
    found = _numbers(epsilon, delta, priors, rates)
    data = payload(warnings=warnings, epsilon=epsilon, delta=delta, not_covered=[], **found)
    show(data, _lines(epsilon, delta, dataset_size, found))


def _numbers(
    epsilon: float, delta: float, priors: tuple[float, ...], rates: tuple[float, ...]
) -> dict[str, Any]:
    from privfair.core.privacy import advantage, guessing

    return {
        "advantage": upper(advantage(epsilon, delta)),
        "guess_success": upper(guessing(epsilon, delta)),
        "odds_factor": upper(_exp(epsilon)),
        "priors": [_prior(prior, epsilon, delta, rates) for prior in priors],
        "tradeoff": [{"fpr": fpr, "tpr": upper(tpr_at(fpr, epsilon, delta))} for fpr in rates],
        "randomized_response_truth": upper(1 / (1 + math.exp(-epsilon))),
        "gaussian_noise_multiplier": _gaussian(epsilon, delta),
    }


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _prior(prior: float, epsilon: float, delta: float, rates: tuple[float, ...]) -> dict[str, Any]:
    from privfair.core.privacy import posterior

    # Under delta > 0 a rare output may settle the matter. What holds then: the odds grow by
    # more than a factor of 2 e^epsilon with probability at most 2 delta, since for any event E
    # on which they do, P(E) <= e^eps Q(E) + delta <= P(E) / 2 + delta.
    widened = epsilon + (math.log(2) if delta > 0 else 0.0)
    return {
        "prior": prior,
        "posterior": upper(posterior(widened, prior)),
        "posterior_fails_with_probability": 2 * delta,
        "guess_success": upper(best_success(prior, epsilon, delta)),
        "guess_success_without_data": max(prior, 1 - prior),
        "posterior_after_positive": [
            {"fpr": fpr, "posterior": upper(precision_at(fpr, prior, epsilon, delta))}
            for fpr in rates
        ],
    }


def _gaussian(epsilon: float, delta: float) -> float | None:
    """Return the noise with which one noisy sum has exactly this guarantee."""
    if delta == 0 or epsilon > 700:
        return None
    from privfair.accounting import calibrate_noise_multiplier

    sigma = calibrate_noise_multiplier(epsilon=epsilon, delta=delta, sample_rate=1.0, steps=1)
    return round_up(sigma, 6)


def _warnings(epsilon: float, delta: float, size: int | None) -> list[str]:
    out = []
    if epsilon > 20:
        out.append("An epsilon above 20 protects nobody in practice.")
    if size is not None and delta >= 1 / size:
        out.append("A delta of 1/n or more permits releasing a record outright.")
    elif delta > 1e-3:
        out.append("A delta above 0.001 is hard to defend, whatever the number of records.")
    return out


def _lines(epsilon: float, delta: float, size: int | None, found: dict[str, Any]) -> list[str]:
    out = [
        f"epsilon = {epsilon:g}, delta = {delta:g}, about one unit (a record, a user), against an "
        "attacker who knows all else:",
        "",
        _odds(epsilon, delta),
        f"A fair bet on whether somebody is in the data is won with probability at most "
        f"{format_upper(found['guess_success'], 4)}; without the release with 0.5. The advantage "
        f"(largest true positive rate - false positive rate) is at most "
        f"{format_upper(found['advantage'], 4)}.",
        "",
        "false alarms   members found, at most",
    ]
    for row in found["tradeoff"]:
        out.append(f"{100 * row['fpr']:>9.4g} %   {format_upper(100 * row['tpr'], 4)} %")
    out += ["", "belief before   " + ("after, at most" if delta == 0 else
            f"after, at most, but for a probability of {2 * delta:g}")]  # fmt: skip
    for row in found["priors"]:
        out.append(f"{100 * row['prior']:>10.4g} %   {format_upper(100 * row['posterior'], 4)} %")
    out.append("")
    out.append(_response(epsilon, delta))
    if found["gaussian_noise_multiplier"] is not None:
        out.append(
            "One sum with Gaussian noise of standard deviation "
            f"{found['gaussian_noise_multiplier']:.4g} times the largest contribution of one unit "
            "keeps just this promise."
        )
    if delta > 0:
        expected = (
            ""
            if size is None
            else f" Releasing each of {size} records outright with that probability would reveal "
            f"{size * delta:.2g} of them on average."
        )
        out.append(
            f"delta = {delta:g} is the probability with which all protection may fail: publishing "
            f"somebody's record with this probability is within the promise.{expected}"
        )
    out.append(
        "It says nothing about what can be learnt of everybody alike: that smoking causes cancer "
        "is learnt of a smoker who is not in the data as well."
    )
    return out


def _odds(epsilon: float, delta: float) -> str:
    factor = format_upper(_exp(epsilon), 4)
    if delta == 0:
        return (
            f"No output is more than {factor} times as probable with somebody's data as without, "
            "so that no belief's odds grow by more than that factor."
        )
    return (
        f"No set of outputs is more than {factor} times as probable with somebody's data as "
        f"without, plus {delta:g}. The odds of a belief grow by more than twice that factor with "
        f"probability at most {2 * delta:g}; for single outputs no bound holds always."
    )


def _response(epsilon: float, delta: float) -> str:
    truth = 1 / (1 + math.exp(-epsilon))
    outright = "" if delta == 0 else f", after being overheard outright with probability {delta:g}"
    return (
        "It is as much as an attacker learns of a yes or no that is answered truthfully with "
        f"probability {format_upper(truth, 4)} and falsely otherwise{outright}: no mechanism with "
        "this guarantee tells more."
    )
