"""The group, client and score bin of rows that a fitted rule is to decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, SensitiveFeatureError
from privfair.core.frames import check_aligned
from privfair.fairness.aglfop._rule_program import ACCESS
from privfair.fairness.aglfop._scores import client_codes, responses
from privfair.fairness.metrics._inputs import read_groups

__all__ = [
    "as_rows",
    "bin_codes",
    "client_weights",
    "known_clients",
    "known_groups",
    "row_codes",
]

Ints = NDArray[np.int64]


def as_rows(X: Any) -> Any:
    """Return rows as they are where their number can be told, and else as an array."""
    if hasattr(X, "shape") or isinstance(X, list | tuple | Mapping):
        return X
    return np.asarray(X)


def row_codes(model: Any, X: Any, sensitive_features: Any, client: Any) -> tuple[Ints, Ints, Ints]:
    """Return group, client (-1 for one to be pooled) and bin; zeros where the rule is blind."""
    X = as_rows(X)
    n = check_aligned(X=X, sensitive_features=sensitive_features, client=client)
    seen = ACCESS[model.access]
    z = known_groups(model, sensitive_features) if "z" in seen else np.zeros(n, dtype=np.int64)
    s = np.zeros(n, dtype=np.int64)
    if "s" in seen:
        if client is None and len(model.clients_) > 1:
            raise DataError(
                f"client is None, and a rule with access={model.access!r} decides by client. "
                "Pass the client of every row."
            )
        s = known_clients(model, client, n)
    return z, s, bin_codes(model, X)


def known_groups(model: Any, sensitive_features: Any) -> Ints:
    """Return the group of every row."""
    found = read_groups(sensitive_features, groups=list(model.groups_)).codes
    if (found < 0).any():
        raise SensitiveFeatureError(
            "sensitive_features has groups that were not in the fit, for which there is no rule. "
            f"Known are {len(model.groups_)} groups; see groups_."
        )
    return found


def known_clients(model: Any, client: Any, n: int) -> Ints:
    """Return the client of every row; -1 for unseen ones where they are pooled."""
    found = client_codes(client, model.clients_, n)
    if (found < 0).any() and model.unseen_client == "error":
        raise DataError(
            "client has clients that were not in the fit. Pass unseen_client='pooled' to decide "
            "there by the mean rule, or fit with them."
        )
    return found


def bin_codes(model: Any, X: Any) -> Ints:
    """Return the score bin of every row."""
    codes: Ints = model._score_bins.codes(responses(model.estimator_, X, model._score_bins.method))
    return codes


def client_weights(given: Any, clients: tuple[Any, ...]) -> NDArray[np.float64] | None:
    """Return the weight of every client, in their order."""
    if given is None:
        return None
    if not hasattr(given, "keys") or set(given) != set(clients):
        raise InvalidParameterError(
            "client_weight must map every client to a number; leave it out to weigh them by size."
        )
    weights = np.array([check.non_negative(client_weight=given[c]) for c in clients])
    if not weights.sum() > 0:
        raise InvalidParameterError("client_weight must be positive for some client.")
    return weights
