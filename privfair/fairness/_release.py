"""Releases one table of counts over public categories, charged once before the noise is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from privfair.core import _validation as check
from privfair.core.events import LedgerLike
from privfair.core.exceptions import (
    DataError,
    IncompatibleNeighboringError,
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
)
from privfair.core.frames import as_vector, check_aligned
from privfair.core.privacy import NEIGHBORING, Budget
from privfair.core.schema import Categorical
from privfair.fairness._contingency import NOISE, ContingencyRelease, NoiseLaw

if TYPE_CHECKING:
    from privfair.mechanisms import DPHistogram

__all__ = ["join_clients", "ledger_per_record", "release_contingency"]

_ONE_ROW = "each person is one row, counted in one cell"
_PUBLIC_N = "the number of rows is public"
_PUBLIC_DOMAIN = "the categories of every axis are public"


def release_contingency(
    columns: Mapping[str, Any],
    categories: Mapping[str, Categorical | Sequence[Any]],
    *,
    privacy: Budget,
    neighboring: str = "zero_out",
    noise: str = "laplace",
    ledger: LedgerLike | None = None,
    purpose: str = "fairness: contingency table",
    allow_weak: bool = False,
    noise_random_state: int | None = None,
) -> ContingencyRelease:
    """Release the counts of every combination of public categories, once.

    Parameters
    ----------
    columns : mapping of str to array-like of shape (n_rows,)
        One value per row for every axis.
    categories : mapping of str to Categorical or list of values
        The axes in order, each with its public categories; ``Categorical(values, other=...)``
        pools undeclared values into one category.
    privacy : Budget
        Of the whole table. Discrete Laplace noise does not use delta.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Under ``add_remove`` the number of rows is private and is read off the noisy counts.
    noise : {"laplace", "gaussian"}, default="laplace"
        ``gaussian`` needs a delta. Laplace noise is smaller for one table; Gaussian noise has
        lighter tails and composes better with other Gaussian releases.
    ledger : Ledger or None, default=None
        Charged before the noise is drawn; None takes the process's default ledger.
    purpose : str
        Written to the ledger; must not hold data.
    allow_weak : bool, default=False
        Whether an epsilon above 20, or a delta of at least 1/n, is meant.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes the noise repeatable and the guarantee SEEDED.

    Returns
    -------
    ContingencyRelease

    Raises
    ------
    InvalidTypeError, InvalidBudgetError, InvalidParameterError, LengthMismatchError
    SchemaError
        A value outside the declared categories where the axis has no ``other``, a missing
        value, an axis without categories.
    IncompatibleNeighboringError
        The ledger counts per user or per client, or under another relation.
    BudgetExceededError
        The ledger has not enough left. Any error before it spends nothing.

    Notes
    -----
    *Algorithm.* Exact counts, exact integer noise in every declared cell, empty ones included;
    O(rows + cells).

    *Privacy.* Unit: record, a row. Relation: ``neighboring``. A row enters exactly one cell, so
    that the L1 and L2 sensitivity of the table is 1, or 2 and sqrt(2) where a row is replaced.
    Mechanism: discrete Laplace (epsilon-DP) or discrete Gaussian ((epsilon, delta)-DP). One
    charge; a table with a client axis needs no composition over clients. Public: the
    categories, and the number of rows except under ``add_remove``. Known limits: an error on
    bad input is seen by whoever runs this; rows per person are one, or else the guarantee is
    per row. ``docs/proofs/contingency-table.md`` has the proof.

    References
    ----------
    Dwork, McSherry, Nissim, Smith 2006, TCC. Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.

    Examples
    --------
    >>> from privfair.accounting import Ledger
    >>> from privfair.core import Budget
    >>> ledger = Ledger()
    >>> release = release_contingency(
    ...     {"z": ["f", "m"] * 50, "client": ["a"] * 60 + ["b"] * 40},
    ...     {"z": ["f", "m"], "client": ["a", "b", "c"]}, privacy=Budget(0.5), ledger=ledger)
    >>> release.shape, release.privacy.epsilon, len(ledger.entries())
    ((2, 3), 0.5, 1)
    """
    from privfair.accounting import guarantee
    from privfair.mechanisms import column_codes

    budget = _checked_budget(privacy, noise)
    check.one_of(NEIGHBORING, neighboring=neighboring)
    book = ledger_per_record(ledger)
    domain = _checked_domain(columns, categories)
    rows = check_aligned(**{name: columns[name] for name in domain})
    n_public = None if neighboring == "add_remove" else rows
    if n_public == 0:  # a private number of rows may be zero, and nobody is told
        raise DataError("the columns have no rows, so that there is nothing to release.")
    mechanism = _mechanism(domain, budget, noise, neighboring, noise_random_state)
    spent = budget.delta if noise == "gaussian" else 0.0
    check.strong_enough(budget.epsilon, spent, n_public, allow_weak=allow_weak)
    where = [
        column_codes(name, as_vector(columns[name], name=name), axis)
        for name, axis in domain.items()
    ]
    flat = np.ravel_multi_index(where, mechanism.shape)
    counts = np.bincount(flat, minlength=math.prod(mechanism.shape)).reshape(mechanism.shape)
    promise = guarantee(
        mechanism.cost(),
        delta=spent,
        neighboring=neighboring,
        numerics=mechanism.numerics,
        seeded=mechanism.seeded,
        assumptions=(_PUBLIC_DOMAIN, _ONE_ROW, *(() if n_public is None else (_PUBLIC_N,))),
    )
    noisy = mechanism.release_counts(counts.astype(np.int64), ledger=book, purpose=purpose)
    return ContingencyRelease(
        tuple(domain),
        tuple(axis.values for axis in domain.values()),
        noisy,
        NoiseLaw(noise, mechanism.noise_scale),
        n_public,
        promise,
    )


def join_clients(
    releases: Mapping[Any, ContingencyRelease], *, axis: str = "client"
) -> ContingencyRelease:
    """Join the tables that clients released about their own rows into one.

    Parameters
    ----------
    releases : mapping of client to ContingencyRelease
        Every public client; same axes, categories and noise.
    axis : str, default="client"
        Name of the new axis, which is put after the first one.

    Returns
    -------
    ContingencyRelease
        Its guarantee is that of the worst client, not the sum.

    Raises
    ------
    InvalidParameterError, SchemaError
        No client, or tables that differ in axes, categories or noise.
    IncompatibleNeighboringError
        Tables under ``replace_one``, where a row could change client, or under different
        relations.

    Notes
    -----
    *Privacy.* Parallel composition: one person's data change the table of one client. It holds
    only if the list of clients is public and fixed without the data, and each person is in one
    client; a person in j clients has up to j times the epsilon. Both are stated in
    ``privacy.assumptions``. Nothing is charged here: each client charged its own ledger.

    References
    ----------
    McSherry 2009, "Privacy integrated queries", SIGMOD (parallel composition).

    Examples
    --------
    >>> from privfair.accounting import Ledger
    >>> from privfair.core import Budget
    >>> def site(rows):
    ...     return release_contingency(rows, {"z": ["f", "m"], "yhat": [0, 1]},
    ...                                privacy=Budget(1.0), ledger=Ledger())
    >>> joint = join_clients({"north": site({"z": ["f", "m"], "yhat": [0, 1]}),
    ...                       "south": site({"z": ["f", "f"], "yhat": [1, 1]})})
    >>> joint.axes, joint.shape, joint.privacy.epsilon
    (('z', 'client', 'yhat'), (2, 2, 2), 1.0)
    """
    from privfair.accounting import Parallel, guarantee

    if not isinstance(releases, Mapping) or not releases:
        raise InvalidParameterError("releases must be a mapping of at least one client's table.")
    tables = list(releases.values())
    if not all(isinstance(table, ContingencyRelease) for table in tables):
        raise InvalidTypeError("releases must map each client to a ContingencyRelease.")
    first = tables[0]
    relation = first.privacy.neighboring
    if any(t.privacy.neighboring != relation for t in tables) or relation == "replace_one":
        raise IncompatibleNeighboringError(
            "clients' tables are joined under one relation, zero_out or add_remove. Under "
            "replace_one a row could change its client, and two tables with it."
        )
    if axis in first.axes:
        raise InvalidParameterError(f"axis {axis!r} is an axis of the tables already.")
    for table in tables:
        if (table.axes, table.categories) != (first.axes, first.categories):
            raise SchemaError("the clients' tables differ in axes or categories.")
        if table.noise != first.noise:
            raise InvalidParameterError(
                "the clients' tables differ in their noise; let every client spend the same."
            )
    promise = guarantee(
        Parallel(tuple(event for t in tables for event in t.privacy.events)),
        delta=max(t.privacy.delta for t in tables),
        neighboring=relation,
        numerics=first.privacy.numerics,
        seeded=any(t.privacy.seeded for t in tables),
        assumptions=(
            *dict.fromkeys(a for t in tables for a in t.privacy.assumptions),
            "the list of clients is public",
            "each person is in one client only",
        ),
    )
    public = [t.n_public for t in tables]
    return ContingencyRelease(
        (first.axes[0], axis, *first.axes[1:]),
        (first.categories[0], tuple(releases), *first.categories[1:]),
        np.stack([t.counts for t in tables], axis=1),
        first.noise,
        None if None in public else sum(n for n in public if n is not None),
        promise,
    )


def ledger_per_record(ledger: LedgerLike | None) -> LedgerLike:
    """Return the ledger, or the process's default one; refuse one of another unit than a record.

    What protects one row is not charged where a person or a client with many rows is counted.
    """
    from privfair.accounting import default_ledger

    book = default_ledger() if ledger is None else ledger
    unit = getattr(book, "unit", "record")
    if unit != "record":
        raise IncompatibleNeighboringError(
            f"the ledger counts per {unit}, and this table protects one row: someone with several "
            "rows moves several cells, and the charge would be too small. Use a ledger per "
            "record, for tables of one row a person."
        )
    return book


# --- parts ------------------------------------------------------------------------------------


def _checked_budget(privacy: Any, noise: str) -> Budget:
    if not isinstance(privacy, Budget):
        raise InvalidTypeError(
            f"privacy must be a Budget, got {type(privacy).__name__}. Write "
            "privacy=Budget(epsilon=1.0)."
        )
    if not 0 < privacy.epsilon < math.inf:
        raise InvalidBudgetError(
            f"privacy must have a positive finite epsilon, got {privacy.epsilon}. A table "
            "without noise is not a release."
        )
    if check.one_of(NOISE, noise=noise) == "gaussian" and privacy.delta == 0:
        raise InvalidBudgetError(
            "noise='gaussian' needs a budget with delta above 0; write Budget(epsilon, delta), or "
            "use noise='laplace'."
        )
    return privacy


def _checked_domain(columns: Any, categories: Any) -> dict[str, Categorical]:
    for name, given in {"columns": columns, "categories": categories}.items():
        if not isinstance(given, Mapping) or not given:
            raise InvalidTypeError(f"{name} must be a mapping of at least one axis name.")
    if set(columns) != set(categories):
        raise LengthMismatchError(
            f"columns has the axes {sorted(map(str, columns))}, categories declares "
            f"{sorted(map(str, categories))}. Every axis needs its public categories."
        )
    domain = {}
    for name, values in categories.items():
        if not isinstance(name, str):
            raise InvalidTypeError(f"axis names must be text, got {name!r}.")
        domain[name] = values if isinstance(values, Categorical) else Categorical(values)
    return domain


def _mechanism(
    domain: Mapping[str, Categorical],
    budget: Budget,
    noise: str,
    neighboring: str,
    noise_random_state: int | None,
) -> DPHistogram:
    from privfair.accounting import calibrate_noise_multiplier, guarantee
    from privfair.mechanisms import DPHistogram

    given: dict[str, Any] = {"neighboring": neighboring, "noise_random_state": noise_random_state}
    if noise == "laplace":
        return DPHistogram(domain, epsilon=budget.epsilon, **given)
    sigma = calibrate_noise_multiplier(
        epsilon=budget.epsilon, delta=budget.delta, sample_rate=1.0, steps=1,
        neighboring=neighboring,
    )  # fmt: skip
    while True:  # the discrete law costs a little more than the continuous one
        made = DPHistogram(domain, sigma=sigma, **given)
        priced = guarantee(made.cost(), delta=budget.delta, neighboring=neighboring)
        if priced.epsilon <= budget.epsilon:
            return made
        sigma *= 1.001
