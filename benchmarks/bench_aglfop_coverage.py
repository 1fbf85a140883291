"""How often AGLFOP's intervals hold the population's value: certificates of rules, best accuracy.

A known population of group, client, label and score bin (2 x 2 x 2 x 10); data sets of 2,000 rows
are drawn from it, and each interval is compared with the population's value. Nominal level 90 %.

- ``certificate``: a rule that was fitted on other rows is measured on fresh ones, raw and from a
  release at epsilon 1 and 0.3, where it has a gap and where groups are alike (the true gap in
  every client is zero, where percentile and reflected bootstrap intervals of a maximum fail).
- ``best accuracy``: ``AGLFOP.estimate`` for the best accuracy that the population allows, oracle
  and model, raw and private. ``coverage_of_percentiles`` is that of plain quantiles: an
  optimum over a noisy table is biased, and resamples carry the bias twice.

``python bench_aglfop_coverage.py [certificate] [best]`` runs parts; each has its file. With ``r``
data sets a true coverage of 0.9 shows as 0.9 +- 2 sqrt(0.09 / r).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import sys
import time
from typing import Any

import numpy as np
from _record import record
from sklearn.base import BaseEstimator, ClassifierMixin

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.fairness.aglfop import AGLFOP, AGLFOPPostProcessor
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._program import OracleProgram
from privfair.fairness.aglfop._rule import fair_rule, measured

QUICK = "--quick" in sys.argv
ROWS, BINS, LEVEL = 2000, 10, 0.9
CERTIFICATES, ESTIMATES, RESAMPLES = (10, 4, 40) if QUICK else (1000, 40, 50)
BEST = (
    ("oracle", None, 0.003, "delta"),
    ("oracle", None, 0.0, "delta"),
    ("oracle", 0.3, 0.003, "bootstrap"),
    ("model", None, 0.003, "bootstrap"),
    ("model", None, 0.0, "bootstrap"),
    ("model", 0.3, 0.003, "bootstrap"),
    ("model", 0.3, 0.0, "bootstrap"),
)
EDGES = (np.arange(1, BINS) / BINS).tolist()


class Scored(ClassifierMixin, BaseEstimator):
    """A fitted model that is given its own scores."""

    classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any = None) -> Scored:
        return self

    def predict(self, X: Any) -> np.ndarray:
        return (np.asarray(X)[:, 0] >= 0.5).astype(int)

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.column_stack([1 - np.asarray(X)[:, 0], np.asarray(X)[:, 0]])

    def __sklearn_is_fitted__(self) -> bool:
        return True


def population(gap: float) -> np.ndarray:
    """p(z, s, y, r) with calibrated scores; ``gap`` moves the scores of the second group."""
    r = (np.arange(BINS) + 0.5) / BINS
    p = np.zeros((2, 2, 2, BINS))
    for z in range(2):
        for s in range(2):
            w = np.exp(-((r - 0.4 - 0.12 * gap * z - 0.05 * s) ** 2) / (2 * 0.22**2))
            w *= (0.4, 0.6)[z] * (0.6, 0.4)[(z + s) % 2] / w.sum()
            p[z, s] = [w * (1 - r), w * r]
    return p / p.sum()


def rows(p: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    z, s, y, r = np.unravel_index(rng.choice(p.size, size=ROWS, p=p.ravel()), p.shape)
    return {"X": ((r + 0.5) / BINS)[:, None], "y": y, "sensitive_features": z, "client": s}


def certificate(gap: float, epsilon: float | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    p = population(gap)
    model = AGLFOPPostProcessor(
        Scored(), eps_global=0.005, eps_local=0.005, bins=EDGES, labels="observed"
    )
    model.fit(**rows(p, rng))
    achieved, gaps = measured(p, model.rule_, model._bounds, 1)
    truth = {f"information_{k}": v for k, v in achieved.items()}
    truth |= {f"gap_{k}": v for k, v in gaps.items()}
    truth["accuracy"] = float((p * model.rule_.transpose(0, 1, 3, 2)).sum())
    below, above, width = (dict.fromkeys(truth, 0.0) for _ in range(3))
    for i in range(CERTIFICATES):
        # Seeded here only so that the study can be repeated.
        model.noise_random_state = i
        for e in model.certify(
            **rows(p, rng), confidence=LEVEL, n_resamples=200, random_state=i, ledger=Ledger(),
            privacy=None if epsilon is None else Budget(epsilon),
        ):  # fmt: skip
            below[e.name] += float(truth[e.name] < e.low) / CERTIFICATES
            above[e.name] += float(truth[e.name] > e.high) / CERTIFICATES
            width[e.name] += float(e.high - e.low) / CERTIFICATES
    return {
        name: {
            "truth": float(value),
            "coverage": 1 - below[name] - above[name],
            "truth_below": below[name],
            "truth_above": above[name],
            "mean_width": width[name],
        }
        for name, value in truth.items()
    }


def best(mode: str, epsilon: float | None, eps: float, method: str) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    p = population(1.0)
    if mode == "model":
        truth = fair_rule(p, FairnessBound(eps_global=eps)).accuracy
    else:
        truth = 1 - OracleProgram(p.sum(axis=3)).solve({"global": eps * math.log(2)}).error
    hit, values, width, boundary, percentile = 0, [], [], 0, 0
    for i in range(ESTIMATES if method == "bootstrap" else 10 * ESTIMATES):
        data = rows(p, rng)
        score = data.pop("X")[:, 0]
        private = {} if epsilon is None else {
            "privacy": Budget(epsilon), "ledger": Ledger(), "noise_random_state": i,
            "groups": [0, 1], "clients": [0, 1], "classes": [0, 1],
        }  # fmt: skip
        limits = AGLFOP(mode=mode, bins=EDGES, **private)
        limits.fit(**data, **({"y_score": score} if mode == "model" else {}))
        e = limits.estimate(
            eps, method=method, confidence=LEVEL, n_resamples=RESAMPLES, random_state=i
        )
        if math.isnan(e.low):
            boundary += 1
            continue
        hit += e.low <= truth <= e.high
        if method == "bootstrap":
            low, high = e.details["percentile"]
            percentile += low <= truth <= high
        values.append(e.value)
        width.append(e.high - e.low)
    return {
        "truth": truth,
        "data_sets": len(values),
        "no_interval_given": boundary,
        "coverage": hit / len(values),
        "coverage_of_percentiles": percentile / len(values) if method == "bootstrap" else None,
        "mean_value": float(np.mean(values)),
        "sd_of_values": float(np.std(values, ddof=1)),
        "mean_width": float(np.mean(width)),
    }


if __name__ == "__main__":
    parts = [a for a in sys.argv[1:] if not a.startswith("-")] or ["certificate", "best"]
    for part in parts:
        start = time.process_time()
        found: dict[str, Any] = {"level": LEVEL, "rows": ROWS}
        if part == "certificate":
            found["data_sets"] = CERTIFICATES
            found["settings"] = {
                f"{'gap' if gap else 'groups alike'}, {'raw' if e is None else f'epsilon {e}'}":
                certificate(gap, e)
                for gap in (1.0, 0.0) for e in (None, 1.0, 0.3)
            }  # fmt: skip
        else:
            found["settings"] = {
                f"{mode}, {'raw' if e is None else f'epsilon {e}'}, {method}, bound {eps}":
                best(mode, e, eps, method)
                for mode, e, eps, method in BEST
            }  # fmt: skip
        found["cpu_seconds"] = round(time.process_time() - start, 1)
        if QUICK:
            print("quick: nothing is written")
        else:
            record(f"aglfop_coverage_{part}", found, seeds={"data": int(part == "best")})
