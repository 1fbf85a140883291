"""The contract of every mechanism: its cost is known before it touches data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from privfair.core.events import Event, LedgerLike

__all__ = ["Mechanism"]


class Mechanism(ABC):
    """Base class of mechanisms that release numbers under central differential privacy.

    A subclass states ``numerics`` and ``sensitivity``, prices itself in :meth:`cost`, checks
    its input in ``_prepare`` and draws in ``_draw``. :meth:`release` puts the three in the only
    right order: check, charge, draw. An error in ``_prepare`` spends nothing; after the charge
    everything counts as spent.

    Attributes
    ----------
    numerics : {"exact", "hardened", "idealized"}
        Numerical class of the released value.
    sensitivity : float
        The most that one unit of privacy can move the value, in the norm that the mechanism
        states.
    neighboring : str or None
        The relation for which the event is stated; None leaves it to the ledger.
    null_ignored : bool
        Whether a null record contributes nothing, so that a statement under add_remove holds
        under zero_out, too.
    seeded : bool
        Whether the noise is repeatable.
    """

    numerics: str
    sensitivity: float
    neighboring: str | None = None
    null_ignored: bool = False
    seeded: bool = False

    @abstractmethod
    def cost(self, count: int = 1) -> Event:
        """Return the event of ``count`` releases; touches no data."""

    def release(self, value: Any, *, ledger: LedgerLike | None = None, purpose: str = "") -> Any:
        """Return a private version of ``value``, charged to ``ledger`` before the draw.

        Parameters
        ----------
        value : object
            What the mechanism's class describes.
        ledger : Ledger or None, default=None
            Charged first; its refusal leaves the data untouched.
        purpose : str, default=""
            Written to the ledger; must not hold data.
        """
        prepared = self._prepare(value)
        if ledger is None:
            return self._draw(prepared)
        labels: dict[str, Any] = {"numerics": self.numerics, "seeded": self.seeded}
        if self.neighboring is not None:
            labels |= {"neighboring": self.neighboring, "null_ignored": self.null_ignored}
        with ledger.spend(self.cost(), purpose=purpose or type(self).__name__, **labels):
            return self._draw(prepared)

    @abstractmethod
    def _prepare(self, value: Any) -> Any:
        """Check the value and bring it to the form that ``_draw`` needs, without any draw."""

    @abstractmethod
    def _draw(self, prepared: Any) -> Any:
        """Draw the noise and return the released value."""
