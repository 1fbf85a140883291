"""Bootstrap of group metrics: fairlearn's rows against our contingency table, in one run.

Part 1. Rows with the published COMPAS table of two groups (6,150 rows), two rates, percentile
intervals of every group: ``MetricFrame(n_boot=20)`` and our table bootstrap at the same B = 20,
interleaved, CPU time, median of the repeats. fairlearn is not run at larger B; its time there is
*scaled linearly*, which is fair because it resamples and recomputes for every replicate. Ours is
measured at every B. The seconds belong to a machine, the ratios do not.

Part 2. The budget: B = 10,000 replicates, ten disparities, 30 groups, with null references and
intervals, under 1 s of CPU.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
from _record import record
from fairlearn.metrics import MetricFrame
from fairlearn.metrics import false_positive_rate as fl_fpr
from fairlearn.metrics import selection_rate as fl_selection

import privfair.fairness.metrics as m
from privfair.core.statistics import bootstrap_interval
from privfair.fairness.metrics._definitions import RATES
from privfair.fairness.metrics._resample import Streams, TableResamples

REPEATS = 5
COMPAS = {"African-American": (990, 805, 532, 1369), "Caucasian": (1139, 349, 461, 505)}
TEN = [
    m.demographic_parity_difference, m.demographic_parity_ratio, m.equalized_odds_difference,
    m.equalized_odds_difference_mean, m.equalized_odds_ratio, m.equal_opportunity_difference,
    m.equal_opportunity_ratio, m.predictive_parity_difference, m.accuracy_difference,
    m.treatment_equality_difference,
]  # fmt: skip
RATE_NAMES = ("selection_rate", "false_positive_rate")


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows with the COMPAS table."""
    y, d, s = [], [], []
    for race, (tn, fp, fn, tp) in COMPAS.items():
        y += [0] * (tn + fp) + [1] * (fn + tp)
        d += [0] * tn + [1] * fp + [0] * fn + [1] * tp
        s += [race] * (tn + fp + fn + tp)
    order = np.random.default_rng(0).permutation(len(y))
    return np.array(y)[order], np.array(d)[order], np.array(s)[order]


def cpu(run: Callable[[], object]) -> float:
    """Return the CPU seconds of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def theirs(data: tuple[np.ndarray, ...], b: int) -> list[np.ndarray]:
    """Bootstrap with fairlearn, rows resampled."""
    y, d, s = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = MetricFrame(
            metrics={"selection_rate": fl_selection, "false_positive_rate": fl_fpr},
            y_true=y, y_pred=d, sensitive_features=s, n_boot=b, ci_quantiles=[0.025, 0.975],
            random_state=0,
        )  # fmt: skip
        return [q.to_numpy(float) for q in frame.by_group_ci]


def ours(data: tuple[np.ndarray, ...], b: int) -> list[np.ndarray]:
    """Bootstrap the table: tabulation, draws, percentiles of the same rates."""
    y, d, s = data
    table = m.GroupTable.from_arrays(y, d, sensitive_features=s)
    draws = TableResamples(table, b, Streams(0))
    ends = []
    for name in RATE_NAMES:
        rate = RATES[name]
        replicates = draws.rates(rate.numerator, rate.denominator)
        span = bootstrap_interval(replicates, replicates.mean(axis=0), method="percentile")
        ends.append((span.low, span.high))
    return [np.array([e[i] for e in ends]).T for i in (0, 1)]


def compare() -> dict[str, object]:
    """Time both libraries in turn."""
    data = rows()
    times: dict[str, list[float]] = {"fairlearn_B20": [], "privfair_B20": []}
    times |= {f"privfair_B{b}": [] for b in (1000, 10_000)}
    theirs(data, 2), ours(data, 2)  # imports and caches
    for _ in range(REPEATS):
        times["fairlearn_B20"].append(cpu(lambda: theirs(data, 20)))
        for b in (20, 1000, 10_000):
            times[f"privfair_B{b}"].append(cpu(lambda b=b: ours(data, b)))
    median = {name: statistics.median(values) for name, values in times.items()}
    a, c = theirs(data, 200), ours(data, 200)
    return {
        "rows": len(data[0]),
        "cpu_seconds": times,
        "median_cpu_seconds": median,
        "ratio_at_equal_B20": median["fairlearn_B20"] / median["privfair_B20"],
        "ratio_B1000_fairlearn_scaled_linearly": 50
        * median["fairlearn_B20"]
        / median["privfair_B1000"],
        "ratio_B10000_fairlearn_scaled_linearly": 500
        * median["fairlearn_B20"]
        / median["privfair_B10000"],
        "largest_difference_of_interval_ends_B200": float(
            max(np.abs(x - y).max() for x, y in zip(a, c, strict=True))
        ),
    }


def budget() -> dict[str, object]:
    """Time ten disparities of 30 groups at B = 10,000."""
    rng = np.random.default_rng(0)
    n = 30_000
    s = np.array([f"g{i:02d}" for i in range(30)])[rng.integers(0, 30, n)]
    y, d = rng.integers(0, 2, n), rng.integers(0, 2, n)
    options = {"n_resamples": 10_000, "random_state": 0}
    table = m.GroupTable.from_arrays(y, d, sensitive_features=s)
    m.estimate_all(TEN, y, d, sensitive_features=s, n_resamples=10)  # imports and caches
    all_rows = [
        cpu(lambda: m.estimate_all(TEN, y, d, sensitive_features=s, **options))
        for _ in range(REPEATS)
    ]
    one = [
        cpu(lambda: m.equalized_odds_difference.from_table(table, **options))
        for _ in range(REPEATS)
    ]
    return {
        "groups": 30,
        "metrics": len(TEN),
        "replicates": 10_000,
        "rows": n,
        "cpu_seconds": all_rows,
        "median_cpu_seconds": statistics.median(all_rows),
        "median_cpu_seconds_of_equalized_odds_alone": statistics.median(one),
        "budget_cpu_seconds": 1.0,
        "within_budget": statistics.median(all_rows) < 1.0,
    }


if __name__ == "__main__":
    record(
        "bootstrap_vs_fairlearn",
        {"against_fairlearn": compare(), "ten_metrics_30_groups": budget()},
        seeds={"rows": 0, "resampling": 0},
    )
