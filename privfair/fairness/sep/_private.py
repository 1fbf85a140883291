"""Socio-economic gaps from one release under differential privacy, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidBudgetError, InvalidTypeError, PrivacyError
from privfair.core.privacy import Budget
from privfair.core.randomness import check_random_state
from privfair.core.statistics import null_reference
from privfair.fairness.metrics._inputs import check_rows
from privfair.fairness.sep._gaps import GapTable
from privfair.fairness.sep._null import null_releases
from privfair.fairness.sep._sets import Sets, checked_groups, read_decisions, released_cells

if TYPE_CHECKING:
    from privfair.fairness.sep._metrics import SEPMetric, SEPOptions

__all__ = ["STEPS", "contributions", "noisy_gaps", "private_estimate", "sensitivity"]

Floats = NDArray[np.float64]
STEPS = 1 << 20
"""Steps into which a decision in [0, 1] is rounded down; a count is this many steps."""
LEAST = 10.0
"""Noisy sizes below this many standard deviations of the noise carry no rate."""
FEW = "the noisy size of a set is below ten standard deviations of its noise"


def sensitivity() -> Fraction:
    """Return a bound on the L2 norm of one record's contribution, in units of a count.

    One record adds (h, 1) with h in [0, 1] to one cell: at most ``sqrt(2)``, whatever the number
    of groups, target sets and conditions.
    """
    return Fraction(math.isqrt(2 * STEPS * STEPS) + 1, STEPS)


def contributions(sets: Sets, h: Floats) -> NDArray[np.int64]:
    """Return the integer sums of h and of 1 over every cell, shape (2 n_cells,).

    In steps; decisions are rounded toward zero, so that no contribution is longer than stated.
    """
    cells, n_cells = released_cells(sets)
    inside = cells >= 0
    steps = np.floor(np.clip(h[inside], 0.0, 1.0) * STEPS).astype(np.int64)
    found = np.zeros((n_cells, 2), dtype=np.int64)
    np.add.at(found[:, 0], cells[inside], steps)
    found[:, 1] = np.bincount(cells[inside], minlength=n_cells) * STEPS
    return found.reshape(-1)


@dataclass(frozen=True, eq=False)
class _Set:
    """Released sums of some of the cells: h, rows, and how many cells they are."""

    part: Floats
    size: Floats
    cells: Floats

    def rate(self, sigma: float) -> Floats:
        """Return the rate, NaN where the size cannot be told from noise."""
        known = self.size >= LEAST * sigma * np.sqrt(self.cells)
        safe = np.where(known, self.size, 1.0)
        return np.where(known, np.clip(self.part / safe, 0.0, 1.0), np.nan)


def noisy_gaps(noisy: Floats, sigma: float, *, everyone: bool = False) -> GapTable:
    """Return gaps and their standard errors from released sums, in units of a count.

    Parameters
    ----------
    noisy : ndarray of shape (4 (n_groups + 1),)
        As :func:`contributions` orders them.
    sigma : float
        Standard deviation of the noise on each sum.
    everyone : bool
        Whether there is a target set of all groups together.

    Notes
    -----
    Delta method on ``(1 - s) (r_rest - r_G)`` with the share s of the target set G in the
    reference set R. Sampling: r (1 - r) bounds the variance of any h in [0, 1], and is taken a
    little towards 1/2 (four rows of rate 1/2 more), since a rate of 0 from few rows is no sure
    one. Noise: that of the cells of G moves both rates, that of the other cells of R one.
    """
    cells = np.asarray(noisy, dtype=float).reshape(-1, 2, 2)
    n_groups = len(cells) - 1
    targets, owns = cells[1:, 1], cells[1:].sum(axis=1)
    counts = np.ones(n_groups)
    if everyone:
        targets = np.concatenate([targets, cells[:, 1].sum(axis=0)[None]])
        owns = np.concatenate([owns, cells.sum(axis=(0, 1))[None]])
        counts = np.append(counts, n_groups + 1.0)
    whole = np.broadcast_to(cells.sum(axis=(0, 1)), targets.shape)
    n_cells = np.full(len(targets), 2.0 * (n_groups + 1))
    r = _Set(whole[:, 0], whole[:, 1], n_cells)
    g = _Set(targets[:, 0], targets[:, 1], counts)
    other = _Set(r.part - g.part, r.size - g.size, n_cells - counts)
    own = _Set(owns[:, 0], owns[:, 1], 2.0 * counts)
    reference, target, rest = r.rate(sigma), g.rate(sigma), other.rate(sigma)
    gap = reference - target
    se = np.sqrt(_sampling(r, g, other, target, rest) + _noise_of(r, g, reference, target, sigma))
    inside = own.rate(sigma)
    return GapTable(
        n_target=np.maximum(np.rint(g.size), 0.0),
        n_reference=max(round(float(r.size[0])), 0) if len(r.size) else 0,
        rate_target=target,
        rate_reference=float(reference[0]) if len(reference) else np.nan,
        gap=gap,
        se=np.where(np.isnan(gap), np.nan, se),
        dp_part=np.where(np.isnan(gap), np.nan, reference - inside),
        ses_part=np.where(np.isnan(gap), np.nan, inside - target),
        gap_to_rest=rest - target,
        note=[FEW if bad else "" for bad in np.isnan(gap)],
    )


def _sampling(r: _Set, g: _Set, other: _Set, target: Floats, rest: Floats) -> Floats:
    """Variance from the rows being a sample."""
    n_r, n_g, n_o = (np.maximum(s.size, 1.0) for s in (r, g, other))
    share = np.clip(n_g / n_r, 0.0, 1.0)
    apart = np.where(np.isnan(rest), 0.0, rest - target)
    spread = [
        q * (1 - q) / n
        for q, n in (((p * n + 2.0) / (n + 4.0), n) for p, n in ((target, n_g), (rest, n_o)))
    ]
    spread[1] = np.where(np.isnan(rest), 0.25 / n_o, spread[1])
    return np.asarray(
        (1 - share) ** 2 * (spread[0] + spread[1]) + apart**2 * share * (1 - share) / n_r
    )


def _noise_of(r: _Set, g: _Set, reference: Floats, target: Floats, sigma: float) -> Floats:
    """Variance from the noise of the release."""
    n_r, n_g = (np.maximum(s.size, 1.0) for s in (r, g))
    own = (1 / n_r - 1 / n_g) ** 2 + (target / n_g - reference / n_r) ** 2
    others = (1 + reference**2) / n_r**2
    return np.asarray(sigma**2 * (g.cells * own + (r.cells - g.cells) * others))


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
    n_resamples: int,
    random_state: Any,
) -> Estimate:
    """Return the estimate from sums released under ``privacy``; the ledger is charged first.

    The guarantee is for one record under ``zero_out``: the number of rows, the groups and the
    thresholds are public. Values, intervals, tables and the null reference are post-processing of
    one release. Labels are not looked at: whether the status is the label by another name is a
    question about all rows, whose answer would be one more release.
    """
    from privfair.accounting import guarantee
    from privfair.fairness._release import ledger_per_record
    from privfair.fairness.sep._metrics import simultaneous, worst

    budget = _checked(metric, privacy, groups, sample_weight, options)
    book = ledger_per_record(ledger)
    rng = check_random_state(random_state)
    sets = metric.read(None, y_pred, sensitive_features, None, groups, options)
    if y_true is not None:
        check_rows(y_true=y_true, y_pred=y_pred)
    h = read_decisions(y_pred, pos_label, per_record=True)
    check.strong_enough(budget.epsilon, budget.delta, sets.n_rows)
    mechanism = _mechanism(budget, sets, options.noise_random_state)
    released = mechanism.release(
        contributions(sets, h), ledger=book, purpose=f"fairness metrics: {metric.name}"
    )
    noisy, sigma = np.asarray(released, dtype=float) / STEPS, mechanism.sigma / STEPS
    table = noisy_gaps(noisy, sigma, everyone=sets.everyone)
    value = float(worst(table.gap, two_sided=metric.two_sided))
    low, high = simultaneous(table, confidence, two_sided=metric.two_sided)
    null = None
    if not math.isnan(value):
        draws = null_releases(
            noisy, sigma, everyone=sets.everyone, known=~np.isnan(table.gap), draws=n_resamples,
            rng=rng,
        )  # fmt: skip
        null = null_reference(value, worst(draws, two_sided=metric.two_sided))
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
        reasons=[f"{FEW}: {', '.join(few)}"] if few else [], confidence=confidence, null=null,
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

    bound = sensitivity() * STEPS
    sigma = Fraction(_noise(budget.epsilon, budget.delta)) * bound
    size = 2 * released_cells(sets)[1]
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
