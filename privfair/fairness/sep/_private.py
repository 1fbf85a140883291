"""Socio-economic gaps from one release under differential privacy, with intervals."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidBudgetError, InvalidTypeError, PrivacyError
from privfair.core.privacy import Budget
from privfair.fairness.sep._gaps import GapTable
from privfair.fairness.sep._sets import Sets, checked_groups, read_decisions

if TYPE_CHECKING:
    from privfair.fairness.sep._metrics import SEPMetric, SEPOptions

__all__ = ["STEPS", "contributions", "noisy_gaps", "private_estimate", "sensitivity"]

Floats = NDArray[np.float64]
STEPS = 1 << 20
"""Steps into which a decision in [0, 1] is rounded down; a count is this many steps."""
LEAST = 10.0
"""Noisy sizes below this many standard deviations of the noise carry no rate."""
FEW = "the noisy size of a set is below ten standard deviations of its noise"


def sensitivity(*, everyone: bool) -> Fraction:
    """Return a bound on the L2 norm of one record's contribution, in units of a count.

    One record adds (h, 1) with h in [0, 1] to the reference set and to the target set of its
    group, and to that of everybody where there is one: at most ``sqrt(2 * sets)``.
    """
    square = 2 * (3 if everyone else 2) * STEPS * STEPS
    root = math.isqrt(square)
    return Fraction(root if root * root == square else root + 1, STEPS)


def contributions(sets: Sets, h: Floats) -> NDArray[np.int64]:
    """Return the integer sums (h and 1 over the reference set, then over each target set).

    In steps; decisions are rounded toward zero, so that no contribution is longer than stated.
    """
    steps = np.floor(np.clip(h, 0.0, 1.0) * STEPS).astype(np.int64)
    found = []
    for rows in [sets.in_reference, *sets.targets()]:
        found += [int(steps[rows].sum()), int(np.count_nonzero(rows)) * STEPS]
    return np.array(found, dtype=np.int64)


def noisy_gaps(noisy: Floats, sigma: float, *, binary: bool = False) -> GapTable:
    """Return gaps and their standard errors from released sums, in units of a count.

    Parameters
    ----------
    noisy : ndarray of shape (2 + 2 n_targets,)
    sigma : float
        Standard deviation of the noise on each sum.
    binary : bool
        Whether decisions are known to be 0 or 1.

    Notes
    -----
    Delta method. Sampling: ``v_R / n_R + v_G (1 / n_G - 2 / n_R)``, for the target set lies in
    the reference set; v = r (1 - r), which bounds the variance of any h in [0, 1], with the
    second factor not below zero unless h is binary. Noise: ``sigma^2 (1 + r^2) / n^2`` for each
    of the two rates.
    """
    part, size = noisy[0::2], noisy[1::2]
    known = size >= LEAST * sigma
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(known, np.clip(part / size, 0.0, 1.0), np.nan)
        reference, target = rate[0], rate[1:]
        n_r, n_g = size[0], size[1:]
        spread = rate * (1 - rate)
        factor = 1 / n_g - 2 / n_r
        if not binary:
            factor = np.maximum(factor, 0.0)
        sampling = spread[0] / n_r + spread[1:] * factor
        noise = sigma**2 * ((1 + reference**2) / n_r**2 + (1 + target**2) / n_g**2)
        se = np.sqrt(np.maximum(sampling, 0.0) + noise)
        rest = np.where(n_r - n_g >= LEAST * sigma,
                        (n_r * reference - n_g * target) / (n_r - n_g), np.nan)  # fmt: skip
    gap = reference - target
    nothing = np.full(gap.shape, np.nan)
    return GapTable(
        n_target=np.maximum(np.rint(n_g), 0.0),
        n_reference=max(round(float(n_r)), 0),
        rate_target=target,
        rate_reference=float(reference),
        gap=gap,
        se=np.where(np.isnan(gap), np.nan, se),
        dp_part=nothing,
        ses_part=nothing,
        gap_to_rest=np.clip(rest, 0.0, 1.0) - target,
        note=[FEW if bad else "" for bad in np.isnan(gap)],
    )


def private_estimate(
    metric: SEPMetric,
    y_true: Any,
    y_pred: Any,
    sensitive_features: Any,
    sample_weight: Any,
    pos_label: Any,
    options: SEPOptions,
    *,
    confidence: float,
    privacy: Any,
    groups: Any,
    ledger: Any,
) -> Estimate:
    """Return the estimate from sums released under ``privacy``; the ledger is charged first.

    The guarantee is for one record under ``zero_out``: the number of rows, the groups and the
    thresholds are public. Values, intervals and tables are post-processing of one release.
    """
    from privfair.accounting import default_ledger, guarantee
    from privfair.fairness.sep._metrics import simultaneous, worst

    budget = _checked(metric, privacy, groups, sample_weight, options)
    sets = metric.read(y_true, y_pred, sensitive_features, None, groups, options)
    h = read_decisions(y_pred, pos_label)
    check.strong_enough(budget.epsilon, budget.delta, sets.n_rows)
    mechanism = _mechanism(budget, sets, options.noise_random_state)
    book = default_ledger() if ledger is None else ledger
    noisy = mechanism.release(
        contributions(sets, h), ledger=book, purpose=f"fairness metrics: {metric.name}"
    )
    sigma = mechanism.sigma / STEPS
    table = noisy_gaps(np.asarray(noisy, dtype=float) / STEPS, sigma)
    value = float(worst(table.gap, two_sided=metric.two_sided))
    low, high = simultaneous(table.gap, table.se, confidence, two_sided=metric.two_sided)
    few = [n for n, note in zip(sets.names, table.note, strict=True) if note]
    notes = ["the groups, the thresholds and the number of rows are public",
             "each record is one row"]  # fmt: skip
    if sets.ses_rule is None or (sets.effort is not None and sets.effort_rule is None):
        notes.append("the booleans given depend on their own record and public constants only")
    promise = guarantee(
        mechanism.cost(), delta=budget.delta, neighboring="zero_out",
        numerics=mechanism.numerics, seeded=mechanism.seeded, assumptions=tuple(notes),
    )  # fmt: skip
    return metric.result(
        sets, table, value, low, high,
        reasons=[f"{FEW}: {', '.join(few)}"] if few else [], confidence=confidence, null=None,
        method="delta method over sampling and noise, simultaneous over groups (Sidak)",
        privacy=promise, details={"noise_scale": sigma},
    )  # fmt: skip


def _checked(
    metric: SEPMetric, privacy: Any, groups: Any, sample_weight: Any, options: SEPOptions
) -> Budget:
    """Refuse, before the data are looked at, what has no bounded effect."""
    if not isinstance(privacy, Budget):
        raise InvalidTypeError(
            f"privacy must be a Budget, got {type(privacy).__name__}. Write "
            "privacy=Budget(epsilon=1.0, delta=1e-6)."
        )
    if not 0 < privacy.epsilon < math.inf:
        raise InvalidBudgetError(
            f"privacy must have a positive finite epsilon, got {privacy.epsilon}. Leave privacy "
            "out for a result without privacy."
        )
    if privacy.delta == 0:
        raise InvalidBudgetError(
            "privacy must have a delta above 0: the sums of all sets get Gaussian noise. Write "
            "Budget(epsilon, 1e-6), with a delta well below one over the number of rows."
        )
    checked_groups(groups)
    if sample_weight is not None:
        raise PrivacyError(
            "sample_weight under privacy= is not supported: one record's weight has no public "
            "bound here, so that no noise would cover it. Leave the weights out."
        )
    for rule in (options.ses, options.condition(metric.effort)):
        refuse_private(rule)
    return privacy


def refuse_private(rule: Any) -> None:
    """Refuse a rule by which one record decides about others."""
    if getattr(rule, "public", True):
        return
    raise PrivacyError(
        f"the rule '{rule}' is learnt from the data, so that one record could move others in and "
        "out of a set, and no noise of this release covers that. Use a constant threshold; one "
        "from the data can be paid for with privfair.mechanisms.DPQuantile."
    )


def _mechanism(budget: Budget, sets: Sets, seed: int | None) -> Any:
    from privfair.mechanisms import DiscreteGaussianMechanism

    bound = sensitivity(everyone=sets.everyone) * STEPS
    sigma = Fraction(_noise(budget.epsilon, budget.delta)) * bound
    size = 2 + 2 * len(sets.labels)
    return DiscreteGaussianMechanism(sigma, bound, size=size, noise_random_state=seed)


@lru_cache(maxsize=64)
def _noise(epsilon: float, delta: float) -> float:
    """Return the standard deviation of discrete noise, in units of the sensitivity."""
    from privfair.accounting import calibrate_noise_multiplier, guarantee
    from privfair.accounting.events import DiscreteGaussian

    scale = calibrate_noise_multiplier(epsilon=epsilon, delta=delta, sample_rate=1.0, steps=1)
    for _ in range(200):
        # As the mechanism states it, whose sigma may be the float below.
        stated = math.nextafter(math.nextafter(scale, 0.0), 0.0)
        if guarantee(DiscreteGaussian(stated), delta=delta).epsilon <= epsilon:
            return scale
        scale *= 1.002  # what is stated for discrete noise may lie a little above
    raise InvalidBudgetError("no amount of noise was found for this budget.")
