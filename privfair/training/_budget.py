"""What a private fit costs: budget, noise, ledger and certificate, before any record is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, NumericsError, PrivfairError
from privfair.core.privacy import PrivacyGuarantee
from privfair.training._clip_rules import AdaptiveClipping, Clipping
from privfair.training._plan import TrainingPlan

__all__ = [
    "Charge",
    "FitBudget",
    "auto_delta",
    "certify",
    "check_budget",
    "check_draws",
    "plan_training",
    "spending",
]

_DRAWS = 1 << 32


def auto_delta(n_public: int) -> float:
    """Return the largest power of ten that is at most 1 / (10 n_public).

    Examples
    --------
    >>> auto_delta(32_561)
    1e-06
    """
    return 10.0 ** -len(str(10 * n_public - 1))


@dataclass(frozen=True)
class FitBudget:
    """The privacy that a fit may spend, and on what.

    Attributes
    ----------
    epsilon, delta : float
        For everything together; epsilon is infinite for the non-private twin.
    n_public : int
    neighboring, unit : str
    preprocessing : tuple of float or None
        (epsilon, delta) for bounds and categories, None where they are public.
    """

    epsilon: float
    delta: float
    n_public: int
    neighboring: str
    unit: str
    preprocessing: tuple[float, float] | None = None

    @property
    def private(self) -> bool:
        """Whether the fit is private at all."""
        return math.isfinite(self.epsilon)


def generator_delta(budget: FitBudget) -> float:
    """Return the part of delta that pays for the generator: 0.1 % to 30 %, as epsilon asks."""
    from privfair.mechanisms import hardened_extra_delta

    needed = hardened_extra_delta(min(budget.epsilon, 50.0), 1, _DRAWS)
    return min(max(needed, 1e-3 * budget.delta), 0.3 * budget.delta)


def check_draws(budget: FitBudget, steps: int, size: int) -> None:
    """Refuse a run that draws more noise than the charge for the generator covers."""
    from privfair.mechanisms import hardened_extra_delta

    if not budget.private:
        return
    needed = hardened_extra_delta(min(budget.epsilon, 500.0), steps, size)
    if needed > generator_delta(budget):
        raise NumericsError(
            f"epsilon = {budget.epsilon:g} with delta = {budget.delta:g} leaves no room for noise "
            f"drawn by a generator: over {steps} steps of {size} coordinates its distance from a "
            f"true Gaussian costs up to {needed:.2g} of delta. Use a larger delta, a smaller "
            "epsilon, fewer steps or a smaller model."
        )


def plan_training(
    budget: FitBudget,
    draft: TrainingPlan,
    *,
    statistic_share: float = 0.0,
    before: Any = None,
    clipping: Clipping | None = None,
) -> tuple[TrainingPlan, tuple[Any, ...]]:
    """Return the plan with its noise, and the events of all that the fit releases.

    ``before`` is the event of what is learnt before training, against the same budget; the two
    are accounted jointly. Adaptive ``clipping`` divides each step's privacy itself.

    The noise of a run is drawn on a grid by a generator; its distance from a true Gaussian is
    charged to delta. The charge is a fixed part of delta, so that it depends on nothing that is
    learnt from the data; :func:`check_draws` makes sure that the run stays within it.
    """
    from privfair.accounting import calibrate_noise_multiplier
    from privfair.accounting import events as ev

    if not budget.private:
        return draft.at_noise(None), (ev.NonPrivate(),)
    extra = generator_delta(budget)
    sigma = calibrate_noise_multiplier(
        epsilon=budget.epsilon,
        delta=budget.delta - extra,
        sample_rate=draft.sample_rate,
        steps=draft.steps,
        neighboring=budget.neighboring,
        extra_events=() if before is None else before,
    )
    if isinstance(clipping, AdaptiveClipping):
        plan = clipping.plan(draft, float(sigma))
    else:
        plan = draft.at_noise(float(sigma), statistic_share)
    first = () if before is None else (before,)
    return plan, (*first, plan.event(), ev.ApproxDP(0.0, extra))


@dataclass
class Charge:
    """The ledger entry of a fit.

    Attributes
    ----------
    entry_id : int or None
    ledger : Ledger or None
    """

    entry_id: int | None = None
    ledger: Any = None
    _transaction: Any = None

    def count(self) -> int | None:
        """Return the number of charges that the ledger holds, this one included."""
        return len(self.ledger) if hasattr(self.ledger, "__len__") else None

    @contextmanager
    def void_on_error(self) -> Iterator[None]:
        """Give the charge back if the body, which only checks the data, refuses them.

        The caller then learns that their own data are malformed, as they would have from a check
        before the charge; no mechanism ran.
        """
        try:
            yield
        except (PrivfairError, ValueError, TypeError):
            if self._transaction is not None:
                self._transaction.void(touched_data=False)
            raise


@contextmanager
def spending(
    ledger: Any, budget: FitBudget, events: tuple[Any, ...], label: str, *, seeded: bool
) -> Iterator[Charge]:
    """Charge the whole fit before its first look at the data.

    Without privacy nothing is charged, but for a note in an explicit ledger that has no cap.
    """
    from privfair.accounting import default_ledger

    if not budget.private:
        if ledger is not None and getattr(ledger, "cap", None) is None:
            entry = ledger.record_non_private(purpose="training without privacy", label=label)
            yield Charge(entry, ledger)
            return
        yield Charge()
        return
    if ledger is None:
        ledger = default_ledger(unit=budget.unit, neighboring=budget.neighboring)
    with ledger.spend(
        events,
        purpose="training",
        label=label,
        delta=budget.delta,
        neighboring=budget.neighboring,
        null_ignored=True,  # a null record is drawn like any other and contributes zero
        unit=budget.unit,
        numerics="hardened",
        seeded=seeded,
    ) as transaction:
        yield Charge(transaction.entry_id, ledger, transaction)


def certify(
    budget: FitBudget,
    events: tuple[Any, ...],
    assumptions: tuple[str, ...],
    *,
    seeded: bool,
    numerics: str = "hardened",
) -> PrivacyGuarantee:
    """Return the joint guarantee of everything that a fit released."""
    from privfair.accounting import events as ev
    from privfair.accounting import guarantee

    labels = {"unit": budget.unit, "neighboring": budget.neighboring}
    if not budget.private:
        return replace(
            PrivacyGuarantee.none("non_private", **labels),
            assumptions=assumptions,
            events=(ev.NonPrivate(),),
        )
    return guarantee(
        events,
        delta=budget.delta,
        numerics=numerics,
        seeded=seeded,
        assumptions=assumptions,
        **labels,
    )


def check_budget(estimator: Any, n_rows: int, *, learns_schema: bool) -> FitBudget:
    """Resolve epsilon, delta and n_public of an estimator; reads no record."""
    n_public = _n_public(estimator, n_rows)
    epsilon = check.epsilon(epsilon=estimator.epsilon, allow_inf=True)
    delta = auto_delta(n_public) if estimator.delta == "auto" else estimator.delta
    delta = check.delta(delta=delta)
    check.strong_enough(epsilon, delta, n_public, allow_weak=estimator.allow_weak)
    part = None
    if learns_schema and math.isfinite(epsilon):
        share = estimator.preprocessing_share
        part = (share * epsilon, share * delta)
    return FitBudget(epsilon, delta, n_public, estimator.neighboring, estimator.unit, part)


def _n_public(estimator: Any, n_rows: int) -> int:
    if estimator.neighboring == "add_remove":
        if estimator.n_public is None:
            raise InvalidParameterError(
                "n_public must be given under neighboring='add_remove', where the number of "
                "records is private: pass a public estimate of it, or use "
                "neighboring='zero_out', under which the number of records is public."
            )
        return check.positive_int(n_public=estimator.n_public)
    return (
        n_rows if estimator.n_public is None else check.positive_int(n_public=estimator.n_public)
    )
