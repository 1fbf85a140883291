"""Budgets for noise that is chosen on the way: a filter that stops in time.

A plan fixed beforehand is priced by :func:`privfair.accounting.guarantee`. Where the next noise
scale depends on earlier outputs, that price holds no longer, whatever was added up along the
path; what does hold is proved in ``docs/proofs/filters.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from privfair.accounting import events as ev
from privfair.accounting._filters import Filter, best_order
from privfair.accounting._path import FORMAT, Path, checked_settings, chosen_orders, reading
from privfair.core import _validation as check
from privfair.core.exceptions import (
    AccountingAssumptionError,
    BudgetExceededError,
    InvalidBudgetError,
    InvalidParameterError,
)
from privfair.core.privacy import NEIGHBORING, UNITS, Budget, PrivacyGuarantee

__all__ = ["PrivacyFilter"]

KINDS = ("rdp", "gdp", "zcdp")
_NATURAL = ("pld", "prv", "fdp", "natural", "basic_pld")
_SAFE = 1 - 1e-12  # of a limit: covers the rounding of sums
_MOST_NOISE = 1e9


class PrivacyFilter:
    """Admit adaptively chosen events as long as their total stays within a budget.

    Parameters
    ----------
    epsilon : float
        Above 0 and finite.
    delta : float
        In (0, 1).
    kind : {"rdp", "gdp", "zcdp"}, default="rdp"
        ``rdp`` adds Renyi divergences at orders fixed now, and takes every event that has them;
        ``gdp`` adds ``1 / sigma^2`` of Gaussians without sampling, and is exact for them;
        ``zcdp`` adds rho. A filter that composes privacy-loss distributions along the path
        (``"pld"``) is refused: it is not a filter.
    order : float, sequence of float or None, default=None
        For ``rdp``: the order, above 1. Several orders share delta in equal parts, and an event
        is admitted while it fits at one of them. None takes the order that suits ``planned``, or
        else the one that suits Gaussian-like events.
    planned : event, sequence of events, (sample_rate, noise_multiplier, steps) or None
        What is expected to happen; chooses the order and nothing else. If it happens, nothing is
        lost against Renyi accounting of a fixed plan.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        The relation.
    unit : {"record", "user", "client"}, default="record"
        Whose data the scales of the events refer to.
    delta_reserve : float, default=0.0
        Part of delta, in [0, 1), kept for failure probabilities: without it an event that has
        one (``ApproxDP``, as every run with hardened noise does) is not admitted.

    Attributes
    ----------
    orders : tuple of float
        Renyi orders; empty for ``gdp`` and ``zcdp``.
    limits : tuple of float
        The budget in the filter's own unit, one for each order.

    Raises
    ------
    AccountingAssumptionError
        A kind that is not a valid filter.
    InvalidBudgetError
        Epsilon or delta out of range.

    Notes
    -----
    Privacy statement: releasing the results of all admitted events is (epsilon, delta)-DP under
    ``neighboring`` per ``unit``, if each event's scale is a function of earlier outputs and public
    values, and each is charged before it happens. When to stop may depend on outputs too.

    With limit ``B(a) = epsilon - ln(1 - 1/a) + ln(delta a) / (a - 1)``, an event is admitted if
    the sum of ``r(a)`` stays within ``B(a)``. Adding up distributions along an adaptive path and
    stopping at epsilon does not give (epsilon, delta)-DP in general (Regehr et al. 2026; arXiv
    2602.06756), nor does choosing the best order afterwards. A charge costs one Renyi divergence,
    kept for repeated events; no data are read.

    References
    ----------
    Feldman, Zrnic 2021, arXiv:2008.11193. Lecuyer 2021, arXiv:2103.01379. Whitehouse, Ramdas,
    Rogers, Wu 2023, arXiv:2203.05481. Regehr, Hu, Leeman, Manurangsi, Tholoniat, Lecuyer 2026,
    arXiv:2602.15815.

    Examples
    --------
    >>> from privfair.accounting import Gaussian, PoissonSampled
    >>> budget = PrivacyFilter(epsilon=1.0, delta=1e-5, planned=(0.01, 1.5131, 1000))
    >>> budget.orders, round(budget.limits[0], 6)
    ((17.0,), 0.518143)
    >>> step = PoissonSampled(0.01, Gaussian(2.0))
    >>> budget.admits(step)
    True
    >>> budget.charge(step)
    >>> budget.spent().epsilon < 1.0
    True
    """

    def __init__(
        self,
        *,
        epsilon: float,
        delta: float,
        kind: str = "rdp",
        order: float | Sequence[float] | None = None,
        planned: Any = None,
        neighboring: str = "zero_out",
        unit: str = "record",
        delta_reserve: float = 0.0,
    ) -> None:
        self.epsilon = check.epsilon(epsilon=epsilon)
        self.delta = check.delta(delta=delta)
        self.kind = _kind(kind)
        self.neighboring = check.one_of(NEIGHBORING, neighboring=neighboring)
        self.unit = check.one_of(UNITS, unit=unit)
        self.delta_reserve = check.probability(delta_reserve=delta_reserve)
        if self.delta_reserve >= 1:
            raise InvalidParameterError(f"delta_reserve must be below 1, got {delta_reserve}.")
        self._reserved = self.delta * self.delta_reserve
        converted = self.delta - self._reserved
        cap = Budget(self.epsilon, converted)
        self.orders: tuple[float, ...] = ()
        if self.kind == "rdp":
            self.orders = chosen_orders(order, planned, self.neighboring, cap)
        elif order is not None:
            raise InvalidParameterError(f"order is a parameter of kind='rdp', not of {kind!r}.")
        self._gaussian_order = best_order(cap, converted)
        each = Budget(self.epsilon, converted / max(1, len(self.orders)))
        self._rules = tuple(
            Filter(self.kind, each, order=o, reserve=0.0) for o in (self.orders or (None,))
        )
        self.limits = tuple(rule.limit * _SAFE for rule in self._rules)
        if max(self.limits) <= 0:
            raise InvalidBudgetError(
                f"epsilon={self.epsilon:g} at delta={converted:g} admits nothing at "
                f"{f'order {self.orders}' if self.orders else f'kind={self.kind!r}'}: the "
                "conversion alone costs more. Take a larger order, or none, or a larger budget."
            )
        self._path = Path(len(self._rules))

    # --- charging -------------------------------------------------------------------------

    def _value(self, event: Any) -> tuple[tuple[float, ...], float, tuple[ev.AccountedEvent, ...]]:
        return self._path.value(event, self.neighboring, self.unit, self._rules)

    def _fits(self, value: tuple[float, ...], failed: float) -> bool:
        if self._path.failed + failed > self._reserved * (1 + 1e-12):
            return False
        return any(
            spent + more <= limit
            for spent, more, limit in zip(self._path.losses, value, self.limits, strict=True)
        )

    def admits(self, event: Any) -> bool:
        """Tell whether :meth:`charge` would accept an event (or events); changes nothing.

        Raises
        ------
        UnsupportedEventError
            The event has no value in the unit of this filter.
        """
        value, failed, _ = self._value(event)
        return self._fits(value, failed)

    def charge(self, event: Any) -> None:
        """Charge an event, which must not have happened yet.

        Raises
        ------
        BudgetExceededError
            It does not fit; nothing is charged, and a cheaper event may still fit.
        UnsupportedEventError
            The event has no value in the unit of this filter.
        """
        value, failed, events = self._value(event)
        if not self._fits(value, failed):
            left = self.remaining()
            raise BudgetExceededError(
                f"this event costs {min(value):.4g} and the {self.kind} filter has "
                f"{max(self._room()):.4g} of {max(self.limits):.4g} left"
                + (
                    f"; its failure probability is {failed:.3g}, with "
                    f"{self._reserved - self._path.failed:.3g} left (delta_reserve)"
                    if failed
                    else ""
                )
                + ". Nothing was charged. Add noise (smallest_noise_multiplier) or stop.",
                remaining=left,
            )
        self._path.add(events, value, failed)

    def _room(self) -> list[float]:
        pairs = zip(self.limits, self._path.losses, strict=True)
        return [max(0.0, limit - spent) for limit, spent in pairs]

    def smallest_noise_multiplier(self, sample_rate: float = 1.0, steps: int = 1) -> float:
        """Return the least noise with which Poisson-sampled Gaussian steps would be admitted.

        Parameters
        ----------
        sample_rate : float, default=1.0
            Sampling probability, in (0, 1].
        steps : int, default=1
            How many such steps have to fit, at least 1.

        Returns
        -------
        float
            To within a relative 1e-9 on the safe side. Uses public values only.

        Raises
        ------
        BudgetExceededError
            No amount of noise below 1e9 fits.
        """
        q = check.sample_rate(sample_rate=sample_rate)
        count = check.positive_int(steps=steps)

        def fits(sigma: float) -> bool:
            step = ev.SelfComposed(ev.PoissonSampled(q, ev.Gaussian(sigma)), count)
            return self.admits(step)

        high = 1.0
        while not fits(high):
            high *= 2.0
            if high > _MOST_NOISE:
                raise BudgetExceededError(
                    f"no noise multiplier below {_MOST_NOISE:g} fits what is left of this "
                    "filter's budget. Stop here.",
                    remaining=self.remaining(),
                )
        low = high / 2
        while fits(low):
            low, high = low / 2, low
            if high < 1e-3:
                return high
        while high / low > 1 + 1e-9:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high

    def admissible_steps(self, event: Any) -> int:
        """Return how many times an event would be admitted from here on."""
        value, failed, _ = self._value(event)
        most = 0
        for spent, one, limit in zip(self._path.losses, value, self.limits, strict=True):
            if spent <= limit and one > 0:
                most = max(most, int((limit - spent) / one))
            elif spent <= limit:
                raise InvalidParameterError("the event costs nothing, so that any number fits.")
        if failed:
            most = min(most, int((self._reserved - self._path.failed) / failed * (1 + 1e-12)))
        return max(0, most)

    # --- reading --------------------------------------------------------------------------

    @property
    def fraction_spent(self) -> float:
        """Part of the budget that is spent, in [0, 1]; of the order with most left."""
        pairs = zip(self.limits, self._path.losses, strict=True)
        return min(1.0, min((s / limit if limit > 0 else 1.0) for limit, s in pairs))

    def spent(self) -> Budget:
        """Return the (epsilon, delta) that holds for what was charged, if one stops here.

        Valid at any time of stopping that depends on outputs only. It describes the path that
        was taken; what can be promised beforehand is :meth:`guarantee`. Read off Renyi
        divergences at orders fixed beforehand, as by :class:`PrivacyOdometer`, it may pass the
        promise of a full ``gdp`` filter by some per cent; the promise holds nevertheless.
        """
        if not self._path.runs:
            return Budget(0.0, 0.0)
        orders, losses = self.orders, self._path.losses
        if self.kind != "rdp":
            orders = (self._gaussian_order,)
            losses = (losses[0] * orders[0] / (2 if self.kind == "gdp" else 1),)
        converted = self.delta - self._reserved
        return Budget(reading(orders, losses, converted), self.delta)

    def remaining(self) -> Budget:
        """Return what a fresh filter of this kind with what is left would be worth.

        Budgets of this kind do not add up in epsilon: it is smaller than what was there before
        by more or less than what was spent.
        """
        values = [
            rule._epsilon(room, rule.cap.delta)
            for rule, room in zip(self._rules, self._room(), strict=True)
            if rule.cap is not None
        ]
        return Budget(max(values), self.delta)

    @property
    def events(self) -> tuple[ev.AccountedEvent, ...]:
        """What was charged, in order; repetitions as one ``SelfComposed``."""
        return self._path.events()

    def guarantee(
        self, *, numerics: str = "idealized", seeded: bool = False, assumptions: Iterable[str] = ()
    ) -> PrivacyGuarantee:
        """Return what the filter promises, whatever was and will be charged.

        Parameters
        ----------
        numerics : {"exact", "hardened", "idealized"}, default="idealized"
            Numerical class of the mechanisms, by whoever drew the noise.
        seeded : bool, default=False
            Whether the noise was drawn from a known seed.
        assumptions : iterable of str, default=()
            Put before the filter's own.

        Returns
        -------
        PrivacyGuarantee
            The filter's epsilon and delta; what was spent of them in ``details``. It has no
            profile: a curve computed from adaptively chosen events would not be valid.
        """
        spent = self.spent()
        return PrivacyGuarantee(
            self.epsilon,
            self.delta,
            unit=self.unit,
            neighboring=self.neighboring,
            accountant=self.kind,
            order=self.orders[0] if len(self.orders) == 1 else None,
            events=self.events,
            numerics=numerics,
            seeded=seeded,
            assumptions=(*assumptions, *self._path.assumptions, _ADAPTIVE),
            details={"filter": self.kind, "orders": list(self.orders), "spent": spent.to_dict()},
        )

    # --- keeping --------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return settings and charges as strict JSON data; holds nothing about the data."""
        return {
            "schema": FORMAT,
            "kind": "PrivacyFilter",
            "settings": {
                "epsilon": self.epsilon,
                "delta": self.delta,
                "kind": self.kind,
                "order": list(self.orders) or None,
                "neighboring": self.neighboring,
                "unit": self.unit,
                "delta_reserve": self.delta_reserve,
            },
            "charges": self._path.to_list(),
        }

    @classmethod
    def from_dict(cls, data: Any) -> PrivacyFilter:
        """Return the filter that :meth:`to_dict` described, with the same sums.

        Raises
        ------
        SchemaVersionError
            It was written by a newer version.
        InvalidParameterError
            It is malformed, or its charges pass its own budget.
        """
        settings, charges = checked_settings(data, "PrivacyFilter")
        made = cls(**settings)
        made._path.replay(charges, made._value)
        if made._path.runs and not made._fits((0.0,) * len(made.limits), 0.0):
            raise InvalidParameterError(
                "the stored charges pass the stored budget; this is not a filter's state."
            )
        return made

    def __repr__(self) -> str:
        return (
            f"PrivacyFilter(epsilon={self.epsilon:g}, delta={self.delta:g}, kind={self.kind!r}, "
            f"orders={self.orders}, spent {self.fraction_spent:.1%})"
        )


_ADAPTIVE = (
    "Every scale was a function of earlier outputs and public values, and every event was charged "
    "before it happened."
)


def _kind(kind: str) -> str:
    if isinstance(kind, str) and kind.lower() in _NATURAL:
        raise AccountingAssumptionError(
            f"kind={kind!r} is not a filter: composing privacy-loss distributions along an "
            "adaptively chosen path and stopping at epsilon does not give (epsilon, delta)-DP in "
            "general (Regehr et al. 2026, arXiv:2602.15815; arXiv:2602.06756). Use kind='rdp', "
            "'gdp' for Gaussians without sampling, or fix the noise scales beforehand: a plan may "
            "be priced by distributions."
        )
    return str(check.one_of(KINDS, kind=kind))
