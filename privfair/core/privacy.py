"""Budgets and guarantees: what was promised, about whom, and under which assumptions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from privfair.core import _validation as check
from privfair.core._format import format_upper, json_number, json_safe
from privfair.core.exceptions import IncompatibleNeighboringError, InvalidParameterError

__all__ = [
    "ACCOUNTANTS",
    "NEIGHBORING",
    "NUMERICS",
    "UNITS",
    "Budget",
    "PrivacyGuarantee",
    "PrivacyProfile",
    "advantage",
    "guessing",
    "posterior",
]

UNITS = ("record", "user", "client")
NEIGHBORING = ("zero_out", "add_remove", "replace_one")
ACCOUNTANTS = ("pld", "rdp", "zcdp", "gdp", "basic")
NUMERICS = ("exact", "hardened", "idealized")  # strongest first

_RELATION_TEXT = {
    "zero_out": "one {unit}'s data replaced by nothing, the number of records being public",
    "add_remove": "one {unit} added or removed, the number of records being private",
    "replace_one": "one {unit}'s data replaced by any other, the number of records being public",
}


_MOST_TOLD = 8  # events that an explanation puts in words


@dataclass(frozen=True)
class Budget:
    """A privacy budget.

    Parameters
    ----------
    epsilon : float
        Above 0; ``inf`` stands for no limit.
    delta : float, default=0.0
        In [0, 1).

    Examples
    --------
    >>> Budget(1.0, 1e-6)
    Budget(epsilon=1.0, delta=1e-06)
    """

    epsilon: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        value = check.epsilon(epsilon=self.epsilon, allow_inf=True, allow_zero=True)
        object.__setattr__(self, "epsilon", value)
        object.__setattr__(self, "delta", check.delta(delta=self.delta, allow_zero=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the budget as JSON data."""
        return {"epsilon": json_number(self.epsilon), "delta": self.delta}


@runtime_checkable
class PrivacyProfile(Protocol):
    """The whole privacy curve of a mechanism; the accounting room builds these."""

    def epsilon(self, delta: float) -> float:
        """Return a valid epsilon at this delta."""
        ...

    def delta(self, epsilon: float) -> float:
        """Return a valid delta at this epsilon."""
        ...

    def beta(self, alpha: float) -> float:
        """Return the smallest type II error of an attacker with type I error ``alpha``."""
        ...

    def compose(self, other: PrivacyProfile) -> PrivacyProfile:
        """Return the profile of both mechanisms on the same data."""
        ...


@dataclass(frozen=True)
class PrivacyGuarantee:
    """A privacy guarantee with everything that it depends on.

    Parameters
    ----------
    epsilon : float
        Upper bound, ``inf`` when there is none.
    delta : float
        In [0, 1).
    unit : {"record", "user", "client"}
        Whose data the guarantee protects.
    neighboring : {"zero_out", "add_remove", "replace_one"}
        Which data sets count as neighbours.
    accountant : {"pld", "rdp", "zcdp", "gdp", "basic"}
        The accountant that gave the smallest valid bound.
    events : tuple
        What happened, as events of :mod:`privfair.accounting.events`.
    assumptions : tuple of str
        Each in one sentence.
    numerics : {"exact", "hardened", "idealized"}
        Numerical class of the weakest mechanism.
    seeded : bool
        Whether the noise can be drawn again by anyone who knows the seed.
    unsafe : tuple of str
        Reasons why there is no guarantee; if not empty, epsilon is infinite.
    lower : float or None
        A lower bound on the true epsilon, where one is known.
    order : float or None
        The Renyi order of the bound, where there is one.
    details : dict
        Anything else worth printing.
    profile : PrivacyProfile or None
        The whole curve.

    Examples
    --------
    >>> g = PrivacyGuarantee(1.0, 1e-5, unit="record", neighboring="zero_out",
    ...                      accountant="pld", events=(), assumptions=(), numerics="hardened")
    >>> g.certified
    True
    >>> PrivacyGuarantee.none("non_private").epsilon
    inf
    """

    epsilon: float
    delta: float
    unit: str = "record"
    neighboring: str = "zero_out"
    accountant: str = "pld"
    events: tuple[Any, ...] = ()
    assumptions: tuple[str, ...] = ()
    numerics: str = "exact"
    seeded: bool = False
    unsafe: tuple[str, ...] = ()
    lower: float | None = None
    order: float | None = None
    details: dict[str, Any] = field(default_factory=dict, compare=False)
    profile: PrivacyProfile | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "events", tuple(self.events))
        put(self, "assumptions", tuple(self.assumptions))
        put(self, "unsafe", tuple(self.unsafe))
        check.epsilon(epsilon=self.epsilon, allow_inf=True, allow_zero=True)
        check.delta(delta=self.delta, allow_zero=True)
        check.one_of(UNITS, unit=self.unit)
        check.one_of(NEIGHBORING, neighboring=self.neighboring)
        check.one_of(ACCOUNTANTS, accountant=self.accountant)
        check.one_of(NUMERICS, numerics=self.numerics)
        if self.unsafe and not math.isinf(self.epsilon):
            raise InvalidParameterError(
                f"an unsafe guarantee has epsilon = inf, got {self.epsilon} with the reasons "
                f"{self.unsafe}. A number beside a reason would be read as a certificate."
            )

    @classmethod
    def none(cls, *reasons: str, **labels: Any) -> PrivacyGuarantee:
        """Return the guarantee of something non-private, for the reasons given."""
        labels.setdefault("accountant", "basic")
        return cls(math.inf, 0.0, unsafe=tuple(reasons) or ("unknown",), **labels)

    @property
    def certified(self) -> bool:
        """Whether epsilon is finite and nothing (seed, float noise, reason) voids it."""
        return (
            math.isfinite(self.epsilon)
            and not self.seeded
            and not self.unsafe
            and self.numerics != "idealized"
        )

    def curve(self, deltas: Sequence[float] | None = None) -> list[tuple[float, float]]:
        """Return ``(delta, epsilon)`` pairs along the privacy curve.

        Without a profile only the stated point is known, and valid for every larger delta.
        """
        grid = [10.0**-k for k in range(3, 11)] if deltas is None else list(deltas)
        if self.profile is None:
            return [(d, self.epsilon if d >= self.delta else math.inf) for d in grid]
        return [(d, self.profile.epsilon(d)) for d in grid]

    def tradeoff(self, alphas: Iterable[float] | None = None) -> list[tuple[float, float]]:
        """Return ``(type I error, smallest type II error)`` pairs of any attacker."""
        grid = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5] if alphas is None else list(alphas)
        return [(a, self._beta(a)) for a in grid]

    def _beta(self, alpha: float) -> float:
        if self.profile is not None:
            return self.profile.beta(alpha)
        return tradeoff_at(alpha, self.epsilon, self.delta)

    def explain(self) -> str:
        """Say in plain words what the guarantee means, and what it assumes."""
        if self.unsafe:
            return f"No privacy guarantee ({', '.join(self.unsafe)})."
        if math.isinf(self.epsilon):
            return "No finite privacy guarantee."
        relation = _RELATION_TEXT[self.neighboring].format(unit=self.unit)
        lines = [
            f"({format_upper(self.epsilon)}, {self.delta:g})-differential privacy per "
            f"{self.unit} ({relation}); accountant {self.accountant}, numerics {self.numerics}.",
            f"Whoever guesses, at even odds, whether a given {self.unit} is in the data and sees "
            f"everything released is right with a probability of at most "
            f"{format_upper(guessing(self.epsilon, self.delta), 3)}.",
            "An attacker with a false-positive rate of 0.1, 1 or 10 % finds at most "
            + ", ".join(f"{100 * (1 - self._beta(rate)):.2f}" for rate in (0.001, 0.01))
            + f" or {100 * (1 - self._beta(0.1)):.2f} % of members.",
        ]
        if self.seeded:
            lines.insert(0, "SEEDED: not private against anyone who knows the seed.")
        if self.numerics == "idealized":
            lines.insert(0, "IDEALIZED: holds for real numbers, not for floating-point noise.")
        told = [event.describe() for event in self.events if hasattr(event, "describe")]
        lines += [f"Covers: {text}." for text in told[:_MOST_TOLD]]
        if len(told) > _MOST_TOLD:
            lines.append(f"Covers: {len(told) - _MOST_TOLD} more such releases.")
        lines += [f"Assumes: {item}" for item in self.assumptions]
        return "\n".join(lines)

    def compose(self, other: PrivacyGuarantee) -> PrivacyGuarantee:
        """Return the guarantee of releasing both results about the same data."""
        for label in ("unit", "neighboring"):
            mine, theirs = getattr(self, label), getattr(other, label)
            if mine != theirs:
                raise IncompatibleNeighboringError(
                    f"guarantees compose only under one {label}, got {mine!r} and {theirs!r}. "
                    "Convert one of them first."
                )
        unsafe = tuple(dict.fromkeys(self.unsafe + other.unsafe))
        delta = min(self.delta + other.delta, math.nextafter(1.0, 0.0))
        profile = None
        epsilon, accountant = self.epsilon + other.epsilon, "basic"
        if not unsafe and self.profile is not None and other.profile is not None:
            profile = self.profile.compose(other.profile)
            together = profile.epsilon(delta)
            if together < epsilon:
                epsilon = together
                accountant = getattr(profile, "accountant", self.accountant)
        return replace(
            self,
            epsilon=math.inf if unsafe else epsilon,
            delta=delta,
            accountant=accountant,
            events=self.events + other.events,
            assumptions=tuple(dict.fromkeys(self.assumptions + other.assumptions)),
            numerics=max(self.numerics, other.numerics, key=NUMERICS.index),
            seeded=self.seeded or other.seeded,
            unsafe=unsafe,
            lower=None,
            order=None,
            details={},
            profile=profile,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the guarantee as strict JSON data (inf is the string "inf")."""
        return {
            "epsilon": json_number(self.epsilon),
            "delta": self.delta,
            "unit": self.unit,
            "neighboring": self.neighboring,
            "accountant": self.accountant,
            "events": [json_safe(event) for event in self.events],
            "assumptions": list(self.assumptions),
            "numerics": self.numerics,
            "seeded": self.seeded,
            "unsafe": list(self.unsafe),
            "certified": self.certified,
            "lower": json_number(self.lower),
            "order": json_number(self.order),
            "details": json_safe(self.details),
        }


def advantage(epsilon: float, delta: float = 0.0) -> float:
    """Return the largest TPR - FPR of any membership attack under (epsilon, delta)-DP.

    Examples
    --------
    >>> round(advantage(1.0), 4)
    0.4621
    """
    if epsilon > 700:
        return 1.0
    e = math.exp(epsilon)
    return min(1.0, (e - 1 + 2 * delta) / (e + 1))


def guessing(epsilon: float, delta: float = 0.0) -> float:
    """Return the largest probability of guessing a fair coin of membership right.

    ``(1 + advantage) / 2``. Under delta > 0 no single posterior is bounded; this average is.

    Examples
    --------
    >>> round(guessing(1.0), 4), guessing(0.0)
    (0.7311, 0.5)
    """
    return (1.0 + advantage(epsilon, delta)) / 2.0


def posterior(epsilon: float, prior: float = 0.5) -> float:
    """Return the largest posterior belief in membership under pure epsilon-DP.

    Examples
    --------
    >>> round(posterior(1.0), 4)
    0.7311
    """
    if prior in (0.0, 1.0):
        return prior
    return 1.0 / (1.0 + math.exp(-epsilon) * (1 - prior) / prior)


def tradeoff_at(alpha: float, epsilon: float, delta: float) -> float:
    """Return the trade-off function of one (epsilon, delta) point at ``alpha``."""
    if epsilon > 700:
        return 0.0
    first = 1 - delta - math.exp(epsilon) * alpha
    second = math.exp(-epsilon) * (1 - delta - alpha)
    return min(1.0, max(0.0, first, second))
