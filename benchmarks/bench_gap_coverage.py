"""How often intervals hold the true value: max-min gaps, calibration gap, calibration error.

For each setting 1,000 data sets are drawn; per data set the simultaneous interval that we report,
and basic and percentile bootstrap intervals (B = 500), are compared with the true gap. Nominal
level 95 %, so that a coverage within 0.936 .. 0.964 is what 1,000 draws of a true 0.95 show.
Calibration intervals are those of seminorms (B = 300, 400 data sets; 0.929 .. 0.971 likewise); a
percentile bootstrap of rows stands beside them.
"""

from __future__ import annotations

import numpy as np
from _record import record

from privfair.core.statistics import bootstrap_interval
from privfair.fairness import gap_interval
from privfair.fairness.metrics import calibration_gap, expected_calibration_error
from privfair.fairness.metrics._context import Context, Options

DATA_SETS, B, SEED = 1000, 500, 0
SETTINGS = {
    "2 groups of 100, no gap": ([0.3, 0.3], [100, 100]),
    "2 groups of 100, gap 0.1": ([0.3, 0.4], [100, 100]),
    "2 groups of 1000, gap 0.05": ([0.3, 0.35], [1000, 1000]),
    "6 groups of 60, no gap": ([0.4] * 6, [60] * 6),
    "6 groups of 60, gap 0.3": ([0.4] * 4 + [0.1, 0.4], [60] * 6),
    "4 groups of 40, rare, gap 0.05": ([0.05, 0.05, 0.05, 0.1], [40] * 4),
    "6 COMPAS sizes, no gap": ([0.4598] * 6, [3696, 32, 2454, 637, 18, 377]),
    "6 COMPAS sizes, gap 0.24": (
        [0.588, 0.45, 0.348, 0.40, 0.45, 0.40],
        [3696, 32, 2454, 637, 18, 377],
    ),
    "30 groups of 50, no gap": ([0.5] * 30, [50] * 30),
}


def gaps(k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return max - min of the rates over the last axis."""
    rates = k / n
    return np.asarray(rates.max(axis=-1) - rates.min(axis=-1))


def study(rates: list[float], sizes: list[int], rng: np.random.Generator) -> dict[str, object]:
    """Return coverage and mean width by method."""
    p, n = np.array(rates), np.array(sizes)
    truth = p.max() - p.min()
    names = ("simultaneous", "basic", "percentile")
    hit, width = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    bias = 0.0
    for _ in range(DATA_SETS):
        k = rng.binomial(n, p)
        value = float(gaps(k, n))
        bias += value - truth
        draws = gaps(rng.binomial(n, k / n, (B, n.size)), n)
        ours = gap_interval(k, n)
        ends = {"simultaneous": (ours.low, ours.high)}
        for name in ("basic", "percentile"):
            i = bootstrap_interval(draws, value, method=name)
            ends[name] = (max(i.low, 0.0), min(max(i.high, 0.0), 1.0))
        for name, (low, high) in ends.items():
            hit[name] += low - 1e-12 <= truth <= high + 1e-12
            width[name] += high - low
    return {
        "true_gap": float(truth),
        "mean_bias_of_the_estimate": bias / DATA_SETS,
        "coverage": {name: count / DATA_SETS for name, count in hit.items()},
        "mean_width": {name: total / DATA_SETS for name, total in width.items()},
    }


CALIBRATION = {  # groups, rows, outcome of the first group above that of the others
    "2 groups, 1000 rows, no gap": (2, 1000, 0.0),
    "2 groups, 1000 rows, gap 0.05": (2, 1000, 0.05),
    "2 groups, 1000 rows, gap 0.15": (2, 1000, 0.15),
    "2 groups, 5000 rows, gap 0.05": (2, 5000, 0.05),
    "4 groups, 2000 rows, no gap": (4, 2000, 0.0),
    "4 groups, 2000 rows, gap 0.2": (4, 2000, 0.2),
    "6 groups, 6000 rows, gap 0.05": (6, 6000, 0.05),
}


def calibration_study(
    n_groups: int, n: int, gap: float, rng: np.random.Generator
) -> dict[str, object]:
    """Return coverage and mean width of the calibration gap and the calibration error."""
    repeats, b = 400, 300
    names = ("calibration_gap", "calibration_gap_percentile", "calibration_error")
    hit, width = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    for _ in range(repeats):
        group, place = rng.integers(0, n_groups, n), rng.integers(0, 10, n)
        score = (place + 0.5) / 10
        chance = 0.1 + 0.07 * place + np.where(group == 0, gap, 0.0)
        y = (rng.random(n) < chance).astype(int)
        mean = 0.1 + 0.07 * np.arange(10) + gap / n_groups
        error = float(np.abs(mean - (np.arange(10) + 0.5) / 10).mean())
        options = Options(n_resamples=b, random_state=rng)
        context = Context(y, None, y_score=score, sensitive_features=group, options=options)
        gaps_, errors_ = calibration_gap.build(context), expected_calibration_error.build(context)
        row = bootstrap_interval(
            context.score_draws("calibration_gap")[:, 0], gaps_.value, method="percentile"
        )
        ends = {
            "calibration_gap": (gaps_.low, gaps_.high, gap),
            "calibration_gap_percentile": (row.low, row.high, gap),
            "calibration_error": (errors_.low, errors_.high, error),
        }
        for name, (low, high, truth) in ends.items():
            hit[name] += low - 1e-12 <= truth <= high + 1e-12
            width[name] += high - low
    return {
        "true_gap": gap,
        "coverage": {name: count / repeats for name, count in hit.items()},
        "mean_width": {name: total / repeats for name, total in width.items()},
    }


if __name__ == "__main__":
    generator = np.random.default_rng(SEED)
    record(
        "gap_coverage",
        {
            "nominal": 0.95,
            "data_sets": DATA_SETS,
            "replicates": B,
            "settings": {k: study(*v, generator) for k, v in SETTINGS.items()},
            "calibration": {k: calibration_study(*v, generator) for k, v in CALIBRATION.items()},
        },
        seeds={"data_and_resampling": SEED},
    )
