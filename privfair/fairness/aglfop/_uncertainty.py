"""Intervals of the best accuracy: by the delta method, and by solving resampled tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.exceptions import InvalidParameterError, SolverError
from privfair.core.randomness import check_random_state
from privfair.core.statistics import normal_critical
from privfair.fairness.aglfop._oracle import bound_in_nats

__all__ = ["accuracy_estimate"]

Array = NDArray[np.float64]


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
        se = _standard_error(table, program.label_charges(point))
        half = normal_critical(level) * se
        details |= {"standard_error": se, "price_degenerate": point.degenerate}
        return Estimate(
            "aglfop_accuracy", value, max(0.0, value - half), min(1.0, value + half),
            confidence=level, n=table.n, details=details, method="delta", privacy=model.privacy_,
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
    spread = 1.0 - np.asarray(errors)
    se = float(np.std(spread, ddof=1))
    shift = float(spread.mean()) - value
    if model.mode == "oracle" and point.error > 0.0:
        # Near accuracy 1 the resamples pile up on the edge, and vary less than they should.
        se = max(se, _standard_error(table, program.label_charges(point)))
    low, high = _allowing_for_bias(value, shift, se, level)
    tail = (1 - level) / 2
    plain = np.quantile(spread, [tail, 1 - tail])  # the skew, which a normal interval lacks
    low, high = min(low, float(plain[0])), max(high, float(plain[1]))
    details |= {
        "standard_error": se,
        "shift": shift,
        "percentile": plain.tolist(),
        "failed": failed,
    }
    return Estimate(
        "aglfop_accuracy", value, low, high, confidence=level, n=table.n, details=details,
        method="bootstrap, normal, bias on either side allowed for", privacy=model.privacy_,
    )  # fmt: skip


def _standard_error(table: Any, charges: Array) -> float:
    """Return the standard error of the sum of ``charges`` over rows, noise included."""
    mean = float((table.p * charges).sum())
    variance = float((table.p * (charges - mean) ** 2).sum()) / table.n
    if table.release is not None:
        off = charges - charges.mean()  # the noise's sum is taken out by the repair
        variance += table.release.noise.variance * float((off**2).sum()) / table.n**2
    return math.sqrt(variance)


def _allowing_for_bias(value: float, shift: float, se: float, level: float) -> tuple[float, float]:
    """Return an interval that holds whatever power of the noise the bias grows with.

    An optimum over a noisy table is biased: rules fit its noise (too accurate), its labels look
    more unequal than they are (not accurate enough), and repaired noisy counts are biased
    themselves. A resampled table has about twice the variance of the table, so that the mean of
    the resamples is off by bias(2 v) - bias(v): the bias itself where that is linear in the
    variance (a smooth optimum), and sqrt(2) - 1 of it where it goes with the root (ties). The
    interval covers everything from no bias to the larger of these.
    """
    worst = shift / (math.sqrt(2.0) - 1.0)
    half = normal_critical(level) * se
    return (
        max(0.0, value - max(0.0, worst) - half),
        min(1.0, value - min(0.0, worst) + half),
    )
