"""A tester of (epsilon, delta) claims: it can refute a claim and never confirm one.

The outputs of a mechanism on two neighbouring data sets are compared event by event. The event
is chosen on one half of the draws and judged on the other by exact one-sided binomial bounds, so
that choosing costs nothing: under a true claim the tester refutes with probability at most
``alpha``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from scipy.stats import beta


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper-Pearson lower bound on a probability."""
    return 0.0 if successes == 0 else float(beta.ppf(alpha, successes, trials - successes + 1))


def upper_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper-Pearson upper bound on a probability."""
    if successes == trials:
        return 1.0
    return float(beta.ppf(1 - alpha, successes + 1, trials - successes))


def _one_order(
    p: Sequence[Hashable], q: Sequence[Hashable], epsilon: float, alpha: float
) -> float:
    half_p, half_q = len(p) // 2, len(q) // 2
    first_p, first_q = Counter(p[:half_p]), Counter(q[:half_q])
    factor = math.exp(epsilon)
    event = {x for x in first_p if first_p[x] / half_p > factor * first_q.get(x, 0) / half_q}
    hits_p = sum(x in event for x in p[half_p:])
    hits_q = sum(x in event for x in q[half_q:])
    low = lower_bound(hits_p, len(p) - half_p, alpha / 2)
    return low - factor * upper_bound(hits_q, len(q) - half_q, alpha / 2)


def audited_delta(
    p: Sequence[Hashable], q: Sequence[Hashable], epsilon: float, alpha: float = 1e-6
) -> float:
    """Return a lower confidence bound on the delta at this epsilon, both orders (or < 0)."""
    return max(_one_order(p, q, epsilon, alpha / 2), _one_order(q, p, epsilon, alpha / 2))


def refuted(
    mechanism: Callable[[Any, int], Sequence[Hashable]],
    data: Any,
    neighbour: Any,
    epsilon: float,
    delta: float = 0.0,
    n: int = 40_000,
    alpha: float = 1e-6,
) -> bool:
    """Whether draws of ``mechanism(data, n)`` refute the claim (epsilon, delta)."""
    return audited_delta(mechanism(data, n), mechanism(neighbour, n), epsilon, alpha) > delta
