"""From fresh rows to the estimates of what a fitted rule achieves on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import DataError
from privfair.core.randomness import check_random_state
from privfair.core.statistics import multinomial_resamples
from privfair.fairness.aglfop._certify import rule_estimates
from privfair.fairness.aglfop._fit import released
from privfair.fairness.aglfop._rows import as_rows, bin_codes, known_clients, known_groups
from privfair.fairness.aglfop._scores import client_codes, client_list, label_codes
from privfair.fairness.metrics._inputs import check_rows

__all__ = ["certify"]

Array = NDArray[np.float64]


def certify(
    model: Any,
    X: Any,
    y: Any,
    sensitive_features: Any,
    client: Any,
    *,
    confidence: float,
    n_resamples: int,
    random_state: Any,
    privacy: Any,
    ledger: Any,
) -> list[Estimate]:
    """Measure a fitted rule on fresh rows."""
    level = check.confidence(confidence=confidence)
    number = check.positive_int(n_resamples=n_resamples)
    rng = check_random_state(random_state)
    X, y = as_rows(X), as_rows(y)
    n = check_rows(X=X, y=y, sensitive_features=sensitive_features, client=client)
    z = known_groups(model, sensitive_features)
    if client is None and len(model.clients_) > 1:
        raise DataError("client is None, and the rule was fitted for several clients.")
    clients, rule = model.clients_, model.rule_
    s = client_codes(client, clients, n)
    if (s < 0).any():
        known_clients(model, client, n)  # an error, unless unseen clients are pooled
        if privacy is not None:
            raise DataError("client has clients that were not declared; nothing was charged.")
        new = [c for c in client_list(client, None, n) if c not in clients]
        clients = (*clients, *new)
        rule = np.concatenate([rule, *([model.pooled_rule_[:, None]] * len(new))], axis=1)
        s = client_codes(client, clients, n)
    labels = label_codes(y, model.classes_, "y")
    codes = (z, s, labels, bin_codes(model, X))
    shape = (rule.shape[0], rule.shape[1], model.classes_.size, rule.shape[2])
    draws: Callable[[int], Array]
    promise = None
    if privacy is None:
        counts = np.bincount(np.ravel_multi_index(codes, shape), minlength=math.prod(shape))
        p = counts.reshape(shape) / n

        def draws(size: int) -> Array:
            return multinomial_resamples(counts.reshape(shape), size, rng) / n
    else:
        release = released(codes, shape, privacy, ledger, model.noise_random_state,
                            "AGLFOP post-processing: certificate")  # fmt: skip
        p, promise = release.probabilities(), release.privacy

        def draws(size: int) -> Array:
            return release.repaired(release.resample(rng, size))

    names = {}
    for i, c in enumerate(clients):
        for kind in ("information", "gap"):
            names[f"{kind}_client:{i}"] = f"{kind}_client:{c}"
    return rule_estimates(
        p, draws, rule, model._bounds, model._positive, n=n, confidence=level,
        n_resamples=number, privacy=promise, labels=names,
    )  # fmt: skip
