"""Group tables released under differential privacy, and intervals that cover their noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from privfair.core import _validation as check
from privfair.core.exceptions import (
    InvalidBudgetError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    PrivacyError,
)
from privfair.core.privacy import Budget, PrivacyGuarantee
from privfair.fairness.metrics._context import Context, Options
from privfair.fairness.metrics._table import CellNoise, GroupTable

__all__ = ["private_context", "refuse"]


def private_context(
    data: dict[str, Any], pos_label: Any, options: Options, privacy: Any, ledger: Any
) -> Context:
    """Return a context whose table was released under ``privacy``.

    The guarantee is for one record under ``zero_out`` (the number of records is public): every
    record is counted in at most one cell, so that discrete Laplace noise of scale 1 / epsilon
    in each cell makes the whole table epsilon-DP. Everything computed from the table afterwards
    is post-processing. The ledger is charged once, before the noise is drawn; bad input is
    refused before that.
    """
    from privfair.accounting import guarantee
    from privfair.fairness._release import ledger_per_record
    from privfair.mechanisms import DPHistogram

    budget = _checked(data, options, privacy)
    book = ledger_per_record(ledger)
    declared = {name: getattr(options, name) for name in ("groups", "cuts", "missing_group")}
    exact = GroupTable._from_rows(
        data["y_true"], data["y_pred"], data["sensitive_features"], None, pos_label, declared,
        private=True,
    )  # fmt: skip
    if exact.correctness_only:
        raise LabelError(
            "there are more than two classes; under privacy= pass pos_label=..., the class that "
            "the rates count, so that nothing is chosen by looking at the data."
        )
    n_public = int(exact.counts.sum()) + sum(n for _, n in exact.excluded)
    check.strong_enough(budget.epsilon, budget.delta, n_public)
    domain: dict[str, Any] = {"group": list(range(exact.n_groups)), "decision": [0, 1]}
    counts = exact.counts
    if exact.has_labels:
        domain = {"group": domain["group"], "label": [0, 1], "decision": [0, 1]}
    else:
        counts = counts[:, 0, :]
    mechanism = DPHistogram(
        domain, epsilon=budget.epsilon, noise_random_state=options.noise_random_state
    )
    noisy = mechanism.release_counts(counts, ledger=book, purpose="fairness metrics: group table")
    full = np.zeros((exact.n_groups, 2, 2), dtype=np.int64)
    full[:, slice(None) if exact.has_labels else 0, :] = noisy
    table = GroupTable(
        exact.features,
        exact.labels,
        full,
        full.astype(float),
        full.astype(float),
        exact.has_labels,
        noise=CellNoise(mechanism.noise_scale),
        public_n=n_public,
    )
    promise: PrivacyGuarantee = guarantee(
        mechanism.cost(),
        delta=0.0,
        neighboring="zero_out",
        numerics=mechanism.numerics,
        seeded=mechanism.seeded,
        assumptions=(
            "the groups, the cuts, the positive label and the number of rows are public",
            "each record is one row",
        ),
    )
    return Context(None, None, table=table, options=options, privacy=promise)


def _checked(data: dict[str, Any], options: Options, privacy: Any) -> Budget:
    """Refuse, before the data are touched, what has no bounded effect or no public domain."""
    if not isinstance(privacy, Budget):
        raise InvalidTypeError(
            f"privacy must be a Budget, got {type(privacy).__name__}. Write "
            "privacy=Budget(epsilon=1.0)."
        )
    if not 0 < privacy.epsilon < math.inf:
        raise InvalidBudgetError(
            f"privacy must have a positive finite epsilon, got {privacy.epsilon}. Leave privacy "
            "out for a result without privacy."
        )
    if data["sensitive_features"] is not None and options.groups is None:
        raise InvalidParameterError(
            "groups is None, but under privacy= the groups must be public knowledge: which "
            "groups occur in the data is private. Pass groups=[...], every group that could "
            "occur."
        )
    if data["sample_weight"] is not None:
        raise PrivacyError(
            "sample_weight under privacy= is not supported: one record's weight has no public "
            "bound here, so that no noise would cover it. Leave the weights out."
        )
    return privacy


def refuse(name: str) -> None:
    """Refuse a metric that a table of counts does not give."""
    raise PrivacyError(
        f"{name} under privacy= is not available: it reads scores, and only tables of group x "
        "label x decision counts are released. Use metrics of decisions, or privacy=None; "
        "nothing was charged."
    )
