"""Charging and certifying releases of randomised rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import PrivfairError
from privfair.core.privacy import PrivacyGuarantee
from privfair.ldp._protocol import check_local_epsilon

__all__ = ["Charge", "certified", "charging", "checked_epsilon", "cost_of"]

RELATION = "replace_one"


def checked_epsilon(estimator: Any) -> float:
    """Return the epsilon of an estimator, infinite for its non-private twin."""
    check.boolean(allow_weak=estimator.allow_weak)
    epsilon = check.epsilon(epsilon=estimator.epsilon, allow_inf=True)
    if math.isinf(epsilon):
        return epsilon
    check.strong_enough(epsilon, 0.0, None, allow_weak=estimator.allow_weak)
    return check_local_epsilon(epsilon=epsilon)


def cost_of(epsilon: float) -> tuple[Any, ...]:
    """Return the events that one release of all rows charges."""
    from privfair.accounting.events import LocalDP, NonPrivate

    return (NonPrivate(),) if math.isinf(epsilon) else (LocalDP(epsilon),)


@dataclass(frozen=True)
class Charge:
    """A charge, made before the first look at the rows.

    Attributes
    ----------
    ledger : Ledger or None
        None without privacy.
    """

    ledger: Any = None
    _transaction: Any = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Give the charge back if the body, which only checks the rows, refuses them."""
        try:
            yield
        except (PrivfairError, ValueError, TypeError):
            if self._transaction is not None:
                self._transaction.void(touched_data=False)
            raise

    def note(self) -> tuple[str, ...]:
        """Say how much else the ledger holds."""
        if self.ledger is None or not hasattr(self.ledger, "__len__"):
            return ()
        count = len(self.ledger)
        word = "charge" if count == 1 else "charges"
        return (
            f"this guarantee is about this estimator alone; its ledger held {count} {word} "
            "against the same data",
        )


@contextmanager
def charging(estimator: Any, epsilon: float, purpose: str) -> Iterator[Charge]:
    """Charge one release of all rows; what happens after a row was drawn stays spent."""
    from privfair.accounting import default_ledger
    from privfair.accounting.events import LocalDP

    ledger, label = estimator.ledger, type(estimator).__name__
    if math.isinf(epsilon):
        if ledger is not None and getattr(ledger, "cap", None) is None:
            ledger.record_non_private(purpose=purpose, label=label)
        yield Charge()
        return
    if ledger is None:
        ledger = default_ledger()
    with ledger.spend(
        LocalDP(epsilon),
        purpose=purpose,
        label=label,
        neighboring=RELATION,
        numerics="exact",
        seeded=estimator.noise_random_state is not None,
    ) as transaction:
        yield Charge(ledger, transaction)


def certified(
    epsilon: float,
    releases: int,
    *,
    seeded: bool,
    assumptions: tuple[str, ...],
    details: dict[str, Any],
) -> PrivacyGuarantee:
    """Return the guarantee of a number of releases, as if all were about the same rows."""
    from privfair.accounting import guarantee
    from privfair.accounting.events import LocalDP, NonPrivate, SelfComposed

    if math.isinf(epsilon):
        return replace(
            PrivacyGuarantee.none("non_private", neighboring=RELATION),
            assumptions=assumptions, events=(NonPrivate(),), details=details,
        )  # fmt: skip
    if not releases:
        return PrivacyGuarantee(
            0.0, 0.0, neighboring=RELATION, accountant="basic",
            assumptions=("no row was randomised yet", *assumptions), details=details,
        )  # fmt: skip
    event: Any = LocalDP(epsilon)
    if releases > 1:
        event = SelfComposed(event, releases)
    found = guarantee(
        event, delta=0.0, neighboring=RELATION, numerics="exact", seeded=seeded,
        assumptions=assumptions,
    )  # fmt: skip
    return replace(found, details={**found.details, **details})
