"""Bounds on the disparity of decisions: which criterion, where, and how much of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.fairness.aglfop._measures import CRITERIA

__all__ = ["FairnessBound", "check_bounds"]


@dataclass(frozen=True)
class FairnessBound:
    """Bounds on the disparity of decisions by one criterion.

    Parameters
    ----------
    criterion : {"demographic_parity", "equalized_odds", "equal_opportunity"}
        I(Z;Yhat), I(Z;Yhat|Y), or I(Z;Yhat|Y=positive).
    eps_global : float or None, default=None
        Bound on the information of all clients together, in bits, at least 0; None for none.
    eps_local : float or None, default=None
        Bound on the information given the client, in bits: the mean over clients by size.
    eps_client : mapping of client to float, or None
        Bounds on the information within single clients, in bits; a mean hides a small client.
    gap_global : float or None, default=None
        Bound on every abs(P(k|z) - P(k|z')), in [0, 1] (given the label, for the criteria that
        look at it).
    gap_local : float or None, default=None
        The same within every client.

    Raises
    ------
    InvalidParameterError, InvalidTypeError
        A bound that is negative, not finite (use None) or no number.

    References
    ----------
    Hamman and Dutta 2024, arXiv:2307.11333. Zhang et al. 2025, arXiv:2503.17231 (linear gaps).

    Examples
    --------
    >>> FairnessBound("equalized_odds", eps_global=0.01, gap_local=0.1).criterion
    'equalized_odds'
    """

    criterion: str = "demographic_parity"
    eps_global: float | None = None
    eps_local: float | None = None
    eps_client: Mapping[Any, float] | None = None
    gap_global: float | None = None
    gap_local: float | None = None

    def __post_init__(self) -> None:
        check.one_of(CRITERIA, criterion=self.criterion)
        for name in ("eps_global", "eps_local"):
            object.__setattr__(self, name, _bits(name, getattr(self, name)))
        for name in ("gap_global", "gap_local"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check.probability(**{name: value}))
        if self.eps_client is not None:
            if not isinstance(self.eps_client, Mapping):
                raise InvalidTypeError(
                    "eps_client must map clients to bounds in bits, got "
                    f"{type(self.eps_client).__name__}."
                )
            kept = {k: _bits("eps_client", v) for k, v in self.eps_client.items()}
            object.__setattr__(self, "eps_client", kept)

    @property
    def empty(self) -> bool:
        """Whether nothing is bounded."""
        return not self.eps_client and all(
            v is None for v in (self.eps_global, self.eps_local, self.gap_global, self.gap_local)
        )


def _bits(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidParameterError(f"{name} must be finite, got {value}. Use None for no bound.")
    return check.non_negative(**{name: value})


def check_bounds(bounds: Any) -> tuple[FairnessBound, ...]:
    """Return bounds as a tuple with at most one of each criterion.

    Raises
    ------
    InvalidTypeError, InvalidParameterError
    """
    given = (bounds,) if isinstance(bounds, FairnessBound) else bounds
    if not isinstance(given, Sequence) or not all(isinstance(b, FairnessBound) for b in given):
        raise InvalidTypeError("bounds must be a FairnessBound or a list of them.")
    names = [b.criterion for b in given]
    if len(set(names)) < len(names):
        raise InvalidParameterError(
            f"bounds name a criterion twice: {names}. Put all bounds of a criterion into one "
            "FairnessBound."
        )
    return tuple(given)
