"""From events to guarantees: every valid bound is computed, the smallest one is reported."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from privfair.accounting import _gaussian, _lower, _numeric, _plan, _rdp
from privfair.core import _validation as check
from privfair.core.exceptions import (
    AccountingAssumptionError,
    IncompatibleNeighboringError,
    InvalidParameterError,
    UnsupportedEventError,
)
from privfair.core.privacy import ACCOUNTANTS, NEIGHBORING, NUMERICS, UNITS, PrivacyGuarantee

__all__ = ["AccountedProfile", "guarantee"]

_CHOICES = ("best", *ACCOUNTANTS)


class AccountedProfile:
    """The privacy curve of a list of events.

    Parameters
    ----------
    events : event or sequence of events
        What happened, priced jointly.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        The relation.
    accountant : {"best", "pld", "rdp", "zcdp", "gdp", "basic"}, default="best"
        Which bound to use; ``best`` is the smallest valid one at each point.

    Attributes
    ----------
    accountant : str
        The bound that won when an epsilon was last computed.
    order : float or None
        Its Renyi order, if it has one.

    Notes
    -----
    Nothing is computed before it is asked for; the composed loss is kept. Pickling keeps the
    events only.

    Examples
    --------
    >>> from privfair.accounting import Gaussian
    >>> profile = AccountedProfile(Gaussian(1.0))
    >>> round(profile.epsilon(1e-5), 3), round(profile.delta(1.0), 4)
    (4.377, 0.1269)
    """

    def __init__(
        self, events: Any, neighboring: str = "zero_out", accountant: str = "best"
    ) -> None:
        self.events = _plan.as_events(events)
        self.neighboring = check.one_of(NEIGHBORING, neighboring=neighboring)
        self._choice = check.one_of(_CHOICES, accountant=accountant)
        self.accountant = "basic" if accountant == "best" else accountant
        self.order: float | None = None
        self.plan = _plan.read(self.events, neighboring)
        self._numeric: dict[tuple[float, bool], _numeric.Numeric | None] = {}
        self._lines: tuple[Any, Any] | None = None
        self._numeric_epsilon = math.inf

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.events, self.neighboring, self._choice)

    # --- epsilon --------------------------------------------------------------------------

    def epsilon(self, delta: float) -> float:
        """Return the smallest valid epsilon at ``delta``."""
        self.accountant, value, self.order = self._pick(self.bounds(delta))
        return value

    def bounds(self, delta: float) -> dict[str, tuple[float, float | None]]:
        """Return every valid bound at ``delta``: accountant to epsilon and order.

        Raises
        ------
        AccountingAssumptionError
            The accountant chosen by name has no bound here.
        """
        delta = check.delta(delta=delta, allow_zero=True)
        if self.plan.reasons:
            return {"basic": (math.inf, None)}
        names = ACCOUNTANTS if self._choice == "best" else (self._choice,)
        found: dict[str, tuple[float, float | None]] = {}
        self._numeric_epsilon = math.inf
        for name in names:
            try:
                found[name] = getattr(self, f"_by_{name}")(delta)
            except (AccountingAssumptionError, UnsupportedEventError):
                if self._choice != "best":
                    raise
        return found or {"basic": (math.inf, None)}

    def _pick(
        self, found: dict[str, tuple[float, float | None]]
    ) -> tuple[str, float, float | None]:
        name = min(found, key=lambda key: found[key][0])
        return name, *found[name]

    def _by_gdp(self, delta: float) -> tuple[float, None]:
        if not self.plan.only_gaussian:
            raise UnsupportedEventError(
                "accountant 'gdp' prices unsubsampled Gaussian events only, where it is exact; "
                "for anything else its number would be an approximation that can lie below the "
                "true epsilon. Use accountant='best'."
            )
        return _gaussian.epsilon(math.sqrt(self.plan.mu2), delta), None

    def _by_basic(self, delta: float) -> tuple[float, None]:
        eps = self.plan.pure_epsilon() if self.plan.revealed <= delta else math.inf
        if math.isinf(eps) and self._choice == "basic":
            raise UnsupportedEventError(
                "accountant 'basic' adds pure epsilons (and the deltas of ApproxDP events); some "
                "event here has none, or their deltas exceed the delta asked for. Use "
                "accountant='best' and a delta above 0."
            )
        return eps, None

    def _by_zcdp(self, delta: float) -> tuple[float, float | None]:
        rho, xi = self.plan.total_rho()
        if math.isinf(rho):
            raise UnsupportedEventError(
                "accountant 'zcdp' has no bound for Poisson-sampled Gaussians. Use "
                "accountant='best'."
            )
        left = delta - self.plan.revealed
        if left <= 0 and self.plan.revealed:
            return math.inf, None
        return _rdp.zcdp_epsilon(rho, xi, left)

    def _by_rdp(self, delta: float) -> tuple[float, float | None]:
        left = delta - self.plan.revealed
        if left <= 0:
            return math.inf, None
        # The fractional orders need a heavier import; they matter only when no numeric
        # bound is there to win.
        exact = self._choice == "rdp" or math.isinf(self._numeric_epsilon)
        return _rdp.epsilon(self.plan, delta, exact=exact)

    def _by_pld(self, delta: float) -> tuple[float, None]:
        if delta < _numeric.MIN_DELTA:
            raise AccountingAssumptionError(
                f"accountant 'pld' needs a delta of at least {_numeric.MIN_DELTA:g}, got "
                f"{delta:g}: below it the round-off of Fourier transforms decides. Use 'rdp', or "
                "'basic' for delta=0."
            )
        if self._choice == "best" and self.plan.only_gaussian:
            raise UnsupportedEventError("the exact Gaussian bound cannot be improved")
        found = [
            numeric.epsilon(delta)
            for ranged in self._variants()
            if (numeric := self._refined(delta, ranged)) is not None
        ]
        if not found:
            raise AccountingAssumptionError(
                "accountant 'pld' would need more memory than is sensible for losses of this "
                "size. Use 'rdp'."
            )
        self._numeric_epsilon = min(found)
        return self._numeric_epsilon, None

    def _variants(self) -> tuple[bool, ...]:
        return (False, True) if self.plan.ranged else (False,)

    def _refined(self, delta: float, ranged: bool) -> _numeric.Numeric | None:
        key = (delta, ranged)
        if key not in self._numeric:
            self._numeric[key] = _numeric.refined(self.plan, delta, ranged=ranged)
        return self._numeric[key]

    def lower(self, delta: float) -> float | None:
        """Return an epsilon that the events' true cost at ``delta`` is not below, if known.

        The other end of the bracket whose upper end is :meth:`epsilon`: it tells how much the
        upper bound may waste and is never a guarantee. None where no such bound is at hand
        (events known by Renyi divergences or by bounds that are not attained) or where it would
        be more than 5 % below.
        """
        delta = check.delta(delta=delta, allow_zero=True)
        if self.plan.reasons or self._choice not in ("best", "pld", "gdp"):
            return None
        if delta < _numeric.MIN_DELTA:
            return None
        step = 0.0
        if not self.plan.only_gaussian:
            found = self._refined(delta, False)
            if found is None:
                return None
            step = found.step
        return _lower.epsilon(self.plan, delta, step, self.epsilon(delta))

    # --- delta and trade-off --------------------------------------------------------------

    def delta(self, epsilon: float) -> float:
        """Return the smallest valid delta at ``epsilon``."""
        epsilon = check.epsilon(epsilon=epsilon, allow_inf=True, allow_zero=True)
        if self.plan.reasons:
            return 1.0
        if self.plan.only_gaussian and self._choice in ("best", "gdp"):
            return _gaussian.delta(math.sqrt(self.plan.mu2), epsilon)
        found = [1.0]
        if self._choice in ("best", "basic") and epsilon >= self.plan.pure_epsilon():
            found.append(self.plan.revealed)
        if self._choice in ("best", "pld"):
            found += self._numeric_delta(epsilon)
        if self._choice in ("best", "rdp", "zcdp"):
            found.append(self._renyi_delta(epsilon))
        return min(found)

    def _numeric_delta(self, epsilon: float) -> list[float]:
        reference = next((key[0] for key in self._numeric), 1e-6)
        return [
            numeric.delta(epsilon)
            for ranged in self._variants()
            if (numeric := self._refined(reference, ranged)) is not None
        ]

    def _renyi_delta(self, epsilon: float) -> float:
        try:
            r = _rdp.curve(self.plan, _rdp.QUICK)
        except (IncompatibleNeighboringError, UnsupportedEventError):
            return 1.0
        bound = float(_rdp.RenyiBound(_rdp.QUICK, r)(np.array([epsilon]))[0])
        return min(1.0, bound + self.plan.revealed)

    def beta(self, alpha: float) -> float:
        """Return a lower bound on the type II error of any attacker with type I error ``alpha``.

        Exact for Gaussians; otherwise the upper envelope of the lines that belong to points
        ``(epsilon, delta(epsilon))`` of the curve.
        """
        alpha = check.probability(alpha=alpha)
        if self.plan.reasons:
            return 0.0
        if self.plan.only_gaussian and self._choice in ("best", "gdp"):
            return _gaussian.beta(math.sqrt(self.plan.mu2), alpha)
        if self._lines is None:
            top = self.epsilon(1e-6)
            top = min(top, 50.0) if math.isfinite(top) else 50.0
            grid = np.unique(np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 120)])) * top
            self._lines = grid, np.array([self.delta(float(e)) for e in grid])
        grid, deltas = self._lines
        lines = np.maximum(1 - deltas - np.exp(grid) * alpha, (1 - deltas - alpha) / np.exp(grid))
        best = int(np.argmax(lines))
        found = max(0.0, float(lines[best]))
        if 0 < found < 1:  # every line is valid: a search between two of them cannot go wrong
            between = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
            found = max(found, self._highest_line(alpha, *between))
        return min(1.0, found)

    def _highest_line(self, alpha: float, low: float, high: float) -> float:
        def at(epsilon: float) -> float:
            left = 1 - self.delta(epsilon)
            return max(left - math.exp(epsilon) * alpha, (left - alpha) * math.exp(-epsilon))

        ratio = (math.sqrt(5) - 1) / 2
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        value = {a: at(a), b: at(b)}
        while high - low > 1e-4 * (1 + high):
            if value[a] > value[b]:
                high, b = b, a
                a = high - ratio * (high - low)
                value[a] = at(a)
            else:
                low, a = a, b
                b = low + ratio * (high - low)
                value[b] = at(b)
        return max(value.values())

    def compose(self, other: Any) -> AccountedProfile:
        """Return the profile of both lists of events on the same data, priced jointly."""
        if not isinstance(other, AccountedProfile):
            raise UnsupportedEventError(
                f"a profile of type {type(other).__name__} has no events to account jointly; "
                "compose the guarantees instead."
            )
        if other.neighboring != self.neighboring:
            raise IncompatibleNeighboringError(
                f"profiles compose only under one relation, got {self.neighboring!r} and "
                f"{other.neighboring!r}."
            )
        same = self._choice == other._choice
        return AccountedProfile(
            self.events + other.events, self.neighboring, self._choice if same else "best"
        )

    def __repr__(self) -> str:
        return f"AccountedProfile({list(self.events)!r}, neighboring={self.neighboring!r})"


def guarantee(
    events: Any,
    *,
    delta: float | None = None,
    epsilon: float | None = None,
    accountant: str = "best",
    neighboring: str = "zero_out",
    unit: str = "record",
    numerics: str = "idealized",
    seeded: bool = False,
    bracket: bool = False,
    assumptions: Iterable[str] = (),
    details: dict[str, Any] | None = None,
) -> PrivacyGuarantee:
    """Price events: return the guarantee that they give.

    Parameters
    ----------
    events : event, or sequence of events
        What happened to the data, ours or dp_accounting's; a sequence is composed.
    delta : float or None
        Probability of failure in [0, 1). Give exactly one of ``delta`` and ``epsilon``.
    epsilon : float or None
        At least 0; the result then states the smallest valid delta.
    accountant : {"best", "pld", "rdp", "zcdp", "gdp", "basic"}, default="best"
        ``best`` computes every valid bound and reports the smallest and its name.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Which data sets count as neighbours.
    unit : {"record", "user", "client"}, default="record"
        Whose contribution the scales of the events refer to.
    numerics : {"exact", "hardened", "idealized"}, default="idealized"
        Numerical class of the mechanisms. An event is a formula over real numbers, so that
        without a statement by whoever drew the noise the result is ``idealized`` and not
        certified.
    seeded : bool, default=False
        Whether the noise was drawn from a known seed.
    bracket : bool, default=False
        Whether to compute ``lower`` too, which takes about as long as epsilon: a number that the
        events' true cost is not below, where one is known. It is not a guarantee.
    assumptions : iterable of str, default=()
        Put before the ones that the events imply.
    details : dict or None, default=None
        Passed on.

    Returns
    -------
    PrivacyGuarantee
        With ``profile``, an :class:`AccountedProfile`.

    Raises
    ------
    UnsupportedEventError
        Names the sub-event that cannot be priced; nothing is ever treated as free.
    IncompatibleNeighboringError
        Names the sub-event that has no guarantee under ``neighboring``.

    Notes
    -----
    Gaussians are exact (Balle, Wang 2018). Everything with a dominating pair is composed as a
    privacy-loss distribution with a pessimistic grid that is refined until epsilon changes by
    less than 0.1 %; events known by Renyi divergences only are joined to it by
    ``delta(eps) <= E[delta_rest(eps - loss)]``. ``delta=0`` is answered by pure composition and
    ``delta < 1e-12`` by Renyi bounds. A few milliseconds to half a second.

    References
    ----------
    Balle, Wang 2018, arXiv:1805.06530. Canonne, Kamath, Steinke 2020, arXiv:2004.00010.
    Doroshenko et al. 2022, arXiv:2207.04380. Zhu, Dong, Wang 2022, arXiv:2106.08567.

    Examples
    --------
    >>> from privfair.accounting import Gaussian, PoissonSampled, SelfComposed
    >>> g = guarantee(SelfComposed(PoissonSampled(0.01, Gaussian(1.1)), 1000), delta=1e-5)
    >>> round(g.epsilon, 3), g.accountant
    (1.515, 'pld')
    """
    if (delta is None) == (epsilon is None):
        raise InvalidParameterError(
            "give exactly one of delta (to learn epsilon) and epsilon (to learn delta)."
        )
    check.one_of(UNITS, unit=unit)
    check.one_of(NUMERICS, numerics=numerics)
    profile = AccountedProfile(events, neighboring, accountant)
    _plan.check_unit(profile.events, unit)
    labels: dict[str, Any] = {
        "unit": unit,
        "neighboring": neighboring,
        "events": profile.events,
        "assumptions": (*assumptions, *profile.plan.assumptions),
        "numerics": numerics,
        "seeded": seeded,
    }
    if profile.plan.reasons:
        return PrivacyGuarantee.none(*profile.plan.reasons, **labels, details=details or {})
    extra = dict(details or {})
    if delta is None:
        stated = check.epsilon(epsilon=epsilon, allow_zero=True)
        delta = profile.delta(stated)
        if delta >= 1:
            stated, delta = math.inf, 0.0
        order = None
        profile.accountant = _winner(profile)
    else:
        delta = check.delta(delta=delta, allow_zero=True)
        bounds = profile.bounds(delta)
        profile.accountant, stated, order = profile._pick(bounds)
        extra["bounds"] = {name: value for name, (value, _) in bounds.items()}
    low = None
    if check.boolean(bracket=bracket) and math.isfinite(stated) and delta > 0:
        low = profile.lower(delta)
        low = None if low is None else min(low, stated)
    return PrivacyGuarantee(
        stated,
        delta,
        accountant=profile.accountant,
        order=order,
        lower=low,
        details=extra,
        profile=profile,
        **labels,
    )


def _winner(profile: AccountedProfile) -> str:
    if profile._choice != "best":
        return str(profile._choice)
    return "gdp" if profile.plan.only_gaussian else "pld"
