"""Intervals of the best accuracy: by the delta method, and by solving resampled tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidParameterError, SolverError
from privfair.core.randomness import check_random_state
from privfair.fairness.aglfop._oracle import bound_in_nats

__all__ = ["accuracy_estimate"]


def accuracy_estimate(
    model: Any,
    eps_global: float | None,
    eps_local: float | None,
    *,
    method: str,
    confidence: float,
    n_resamples: int,
    by_client: bool,
    random_state: Any,
) -> Estimate:
    """Return the accuracy of a fitted AGLFOP at two bounds with its interval."""
    check.one_of(("delta", "bootstrap"), method=method)
    level = check.confidence(confidence=confidence)
    number = check.positive_int(n_resamples=n_resamples)
    check.boolean(by_client=by_client)
    bounds = {
        "global": bound_in_nats("eps_global", eps_global, "bits"),
        "local": bound_in_nats("eps_local", eps_local, "bits"),
    }
    table, program = model._table, model._program
    point = program.solve(bounds)
    details: dict[str, Any] = {"error_lower": float(point.lower), "status": point.status}
    value = 1.0 - float(point.error)
    if method == "delta":
        if model.mode != "oracle" or table.release is not None:
            raise InvalidParameterError(
                "method='delta' is for mode='oracle' without privacy; pass method='bootstrap'."
            )
        if table.counts is None:
            raise InvalidParameterError(
                "method='delta' needs rows without sample_weight: their number is not in the "
                "table."
            )
        if point.error == 0.0:
            return Estimate(
                "aglfop_accuracy", value, confidence=level, n=table.n, status="boundary",
                reason="the labels keep the bounds; nothing is lost, and no normal interval holds",
                details=details, method="delta", privacy=model.privacy_,
            )  # fmt: skip
        charges = program.label_charges(point)
        mean = float((table.p * charges).sum())
        se = float(np.sqrt((table.p * (charges - mean) ** 2).sum() / table.n))
        half = float(norm.ppf((1 + level) / 2)) * se
        details |= {"standard_error": se, "price_degenerate": point.degenerate}
        return Estimate(
            "aglfop_accuracy", value, value - half, value + half, confidence=level, n=table.n,
            details=details, method="delta", privacy=model.privacy_,
        )  # fmt: skip
    rng = check_random_state(random_state)
    errors, failed = [], 0
    for p in table.resampled(rng, number, by_client=by_client):
        try:
            errors.append(float(model._program_of(p).solve(bounds).error))
        except SolverError:
            failed += 1
    if failed > 0.05 * number:
        raise SolverError(f"{failed} of {number} resampled tables could not be solved.")
    tail = (1 - level) / 2
    low, high = np.quantile(1.0 - np.asarray(errors), [tail, 1 - tail])
    details |= {"standard_error": float(np.std(errors, ddof=1)), "failed": failed}
    return Estimate(
        "aglfop_accuracy", value, float(low), float(high), confidence=level, n=table.n,
        details=details, method="bootstrap, percentile", privacy=model.privacy_,
    )  # fmt: skip
