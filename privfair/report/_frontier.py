"""The best accuracy at each disparity, from counts: of an oracle, and of rules on a score."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import PrivfairWarning, SolverError
from privfair.core.statistics import normal_critical

__all__ = [
    "ACCESS", "METHOD", "Curve", "Point", "curve_of", "disparity", "information", "interval_of",
    "oracle_of", "rule_of",
]  # fmt: skip

Floats = NDArray[np.float64]
ACCESS = {"client_blind": "rule sees group and score", "blind": "rule sees score only"}
METHOD = "bootstrap, bias on either side allowed for"
POINTS = 9
LEAST = 1e-5


@dataclass(frozen=True, eq=False)
class Point:
    """The best accuracy at one bound: of the oracle, and of each kind of rule.

    An answer is None where the solver had none that passes its checks.
    """

    bound: float
    best: Any
    rules: dict[str, Any]
    which: str
    p: Floats

    @property
    def oracle(self) -> float | None:
        """Accuracy that nothing exceeds."""
        return None if self.best is None else float(self.best.accuracy)

    @property
    def oracle_price(self) -> float:
        """Accuracy per bit."""
        return math.inf if self.best is None else float(getattr(self.best, f"price_{self.which}"))

    def accuracy(self, access: str) -> float | None:
        """Accuracy of the best rule that sees no more than this."""
        rule = self.rules[access]
        return None if rule is None else float(rule.accuracy)

    def price(self, access: str) -> float:
        """Accuracy per bit, of the rule."""
        rule = self.rules[access]
        return math.inf if rule is None else _price(rule, self.which)

    def losses(self, access: str) -> list[float | None]:
        """Error rate of each group under the rule."""
        rule = self.rules[access]
        if rule is None:
            return [None] * self.p.shape[0]
        return [float(e) for e in _losses(self.p, rule.rule)]

    @property
    def gap(self) -> float | None:
        """How far the answers are from proven best, at most."""
        gaps = [] if self.best is None else [self.best.gap]
        gaps += [r.proven_gap for r in self.rules.values() if r is not None]
        return max(gaps) if gaps else None

    @property
    def status(self) -> str:
        """What the solver says of the oracle, and which rules it has none of."""
        words = "no answer" if self.best is None else str(self.best.status).replace("_", " ")
        lost = [ACCESS[a] for a, r in self.rules.items() if r is None]
        return words + "".join(f"; no answer: {name}" for name in lost)


@dataclass(frozen=True, eq=False)
class Curve:
    """The frontier of one attribute under a global or a local bound."""

    which: str
    label_bits: float
    points: list[Point]


def information(table: Floats) -> float:
    """Return the mutual information of a two-way table, in bits."""
    p = table / table.sum()
    outer = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    seen = p > 0
    return float((p[seen] * np.log2(p[seen] / outer[seen])).sum())


def disparity(table: Floats, which: str) -> float:
    """Return I(Z;A), or I(Z;A|S), of a table (group, client, value) in bits."""
    if which == "global":
        return information(table.sum(axis=1))
    total = table.sum()
    return sum(
        float(table[:, s].sum() / total) * information(table[:, s])
        for s in range(table.shape[1])
        if table[:, s].sum() > 0
    )


def rule_of(p: Floats, which: str, bound: float, access: str) -> Any:
    """Return the best rule, or None where the solver has no answer that passes its checks."""
    from privfair.fairness.aglfop import FairnessBound, fair_rule

    # Below this a bound cannot be told from none of the information at all.
    limits: dict[str, Any] = {f"eps_{which}": 0.0 if bound < LEAST else bound}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivfairWarning)
        try:
            return fair_rule(p, FairnessBound(**limits), access=access)
        except SolverError:
            return None


def oracle_of(labels: Floats, which: str, bound: float) -> Any:
    from privfair.fairness.aglfop import aglfop

    limits: dict[str, Any] = {f"eps_{which}": 0.0 if bound < LEAST else bound}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivfairWarning)
        try:
            return aglfop(labels, **limits)
        except SolverError:
            return None


def curve_of(
    cells: NDArray[np.int64], which: str, points: int | None = None, reach: float = 0.0
) -> Curve:
    """Return the frontier from counts (group, client, label, response).

    Bounds go from 0 to the information in the labels, and on to `reach`: a model may carry more
    than the labels do.
    """
    points = POINTS if points is None else points
    p = cells / cells.sum()
    labels = p.sum(axis=3)
    top = disparity(labels, which)
    out = []
    for k in range(points):
        bound = max(top, reach) * (k / (points - 1)) ** 2
        best = oracle_of(labels, which, bound)
        rules = {access: rule_of(p, which, bound, access) for access in ACCESS}
        out.append(Point(bound, best, rules, which, p))
    return Curve(which, top, out)


def _price(rule: Any, which: str) -> float:
    return float(next((v for name, v in rule.prices.items() if name.endswith(which)), 0.0))


def _losses(p: Floats, rule: Floats) -> Floats:
    """Return the error rate of each group under a rule W(k | z, s, r)."""
    hits = np.einsum("zsyr,zsry->z", p, rule)
    mass = p.sum(axis=(1, 2, 3))
    return np.asarray(1.0 - hits / mass)


def interval_of(draws: Floats, value: float, confidence: float) -> tuple[float, float]:
    """Return an interval for a difference of optimal accuracies from bootstrap draws.

    The best rule on noisy rows fits their noise. A resampled table has about twice the variance
    of the table, so that the mean of the draws is off by bias(2 v) - bias(v): the bias itself
    where that is linear in the variance (a smooth optimum), sqrt(2) - 1 of it where it goes with
    the root (a bound of no information at all). The interval covers everything from no bias to
    the larger of these, and the quantiles of the draws: at an edge they pile up on one side.
    """
    worst = (float(draws.mean()) - value) / (math.sqrt(2.0) - 1.0)
    half = normal_critical(confidence) * float(np.std(draws, ddof=1))
    tail = (1 - confidence) / 2
    plain = np.quantile(draws, [tail, 1 - tail], method="weibull")
    low = min(value - max(0.0, worst) - half, float(plain[0]))
    high = max(value - min(0.0, worst) + half, float(plain[1]))
    return max(-1.0, low), min(1.0, high)
