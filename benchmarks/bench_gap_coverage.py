"""How often intervals hold the true value: max-min gaps, calibration gap, calibration error.

For each setting 1,000 data sets are drawn; per data set the simultaneous interval that we report,
and basic and percentile bootstrap intervals (B = 500), are compared with the true gap. Nominal
level 95 %, so that a coverage within 0.936 .. 0.964 is what 1,000 draws of a true 0.95 show.
Calibration intervals are those of seminorms (B = 300, 400 data sets; 0.929 .. 0.971 likewise); a
percentile bootstrap of rows stands beside them.

Few cases: how often the intervals exclude 0 (ratios: 1) when all rates are equal and some groups
are tiny, beside the same construction without exact limits; and, for two groups, the same number
without simulation, from the probabilities of all tables.

``python bench_gap_coverage.py [gaps] [few_cases] [calibration]`` runs parts; each has its file.
"""

from __future__ import annotations

import sys

import numpy as np
from _record import record
from scipy.stats import binom

from privfair.core.statistics import bootstrap_interval, sidak_confidence
from privfair.fairness import gap_interval, intervals, ratio_gap_interval
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


FEW_CASES = [  # sizes and the rate that all groups share
    ((5000, 1, 1, 1, 1, 1), 0.1),
    ((5000, 1, 1, 1), 0.05),
    ((2000, 10, 10, 10, 10, 10), 0.03),
    ((800, 12, 8, 15, 9, 11, 7, 5), 0.02),
    ((5000, 5, 6, 4, 5, 7, 5), 0.05),
    ((5000, 2000, 600, 30, 15, 12), 0.05),
    ((5000, 2, 3, 1, 2, 1, 4), 0.9),
]
PAIRS = [(1, 2000), (3, 2000), (5, 5), (5, 500), (10, 100), (20, 20), (50, 50), (50, 500),
         (100, 100)]  # fmt: skip
COMMON = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
EXACT_BELOW = intervals.EXACT_BELOW


def excluded(k: np.ndarray, n: np.ndarray, other: np.ndarray) -> dict[str, bool]:
    """Return which intervals of one data set say that there is a disparity."""
    two = sidak_confidence(0.95, 2)
    parts = [gap_interval(x, n, confidence=two).low > 0 for x in (k, other)]
    return {
        "difference": gap_interval(k, n).low > 0,
        "ratio": ratio_gap_interval(k, n).high < 1,
        "equalized_odds": any(parts),
    }


def few_cases_study(
    sizes: tuple[int, ...], rate: float, rng: np.random.Generator
) -> dict[str, object]:
    """Return how often equal rates are called different, with and without exact limits."""
    n = np.array(sizes)
    first, second = rng.binomial(n, rate, (2, DATA_SETS, n.size))
    found: dict[str, object] = {"sizes": list(sizes), "rate": rate}
    for name, below in (("ours", EXACT_BELOW), ("without_exact_limits", 0.0)):
        intervals.EXACT_BELOW = below
        each = [excluded(k, n, other) for k, other in zip(first, second, strict=True)]
        found[name] = {key: float(np.mean([e[key] for e in each])) for key in each[0]}
        width = [(i := gap_interval(k, n)).high - i.low for k in first[:200]]
        found[f"mean_width_{name}"] = float(np.mean(width))
    intervals.EXACT_BELOW = EXACT_BELOW
    return found


def two_groups_exactly(sizes: tuple[int, int]) -> dict[str, object]:
    """Return the largest probability over common rates that two groups are called different."""
    ends = [min(size, int(binom.isf(1e-9, size, max(COMMON)))) for size in sizes]
    grid = np.meshgrid(*(np.arange(end + 1) for end in ends), indexing="ij")
    tables = np.stack(grid, -1).reshape(-1, 2)
    chance = {p: binom.pmf(tables, sizes, p).prod(axis=-1) for p in COMMON}
    likely = np.flatnonzero(np.max(list(chance.values()), axis=0) > 1e-8)
    apart = np.zeros(len(tables), dtype=bool)
    apart[likely] = [gap_interval(tables[i], sizes).low > 0 for i in likely]
    rejected = {str(p): float(c[apart].sum()) for p, c in chance.items()}
    return {"sizes": list(sizes), "rejected_by_rate": rejected, "most": max(rejected.values())}


def run(parts: list[str]) -> None:
    """Run the parts named and write their files."""
    generator, seeds = np.random.default_rng(SEED), {"data_and_resampling": SEED}
    if "gaps" in parts:
        found = {k: study(*v, generator) for k, v in SETTINGS.items()}
        head = {"nominal": 0.95, "data_sets": DATA_SETS, "replicates": B}
        record("gap_coverage", head | {"settings": found}, seeds=seeds)
    if "few_cases" in parts:
        generator = np.random.default_rng(SEED)
        settings = [few_cases_study(*v, generator) for v in FEW_CASES]
        exact = [two_groups_exactly(sizes) for sizes in PAIRS]
        head = {"nominal": 0.05, "data_sets": DATA_SETS, "exact_below": EXACT_BELOW}
        record(
            "gap_few_cases",
            head | {"rejected_at_equal_rates": settings, "two_groups_exactly": exact},
            seeds=seeds,
        )
    if "calibration" in parts:
        generator = np.random.default_rng(SEED)
        calibration = {k: calibration_study(*v, generator) for k, v in CALIBRATION.items()}
        record("calibration_coverage", {"nominal": 0.95, "settings": calibration}, seeds=seeds)


if __name__ == "__main__":
    run(sys.argv[1:] or ["gaps", "few_cases", "calibration"])
