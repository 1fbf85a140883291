"""How good the intervals and tests of the disparity decomposition are, against simulation.

- Standard errors, to first order (influence functions) and to second (corrected for what
  replicates show of their bias and of curvature), the mean over 200 samples, beside the spread of
  20,000 samples (3,000 of three groups), whose own relative error is given. Beside it how often a
  part is marked as one that may be zero: where that is often, no standard error means much.
- Coverage of 95 % intervals on 500 samples: influence functions and bootstrap. 0.930 .. 0.968 is
  what 500 draws of a true 0.95 show. With 20 clients the unique parts are near zero.
- The boundary: tables in which parts are zero or nearly so. How often the truth lies within the
  one-sided bound, how often the boundary is noticed, and what a normal interval and a percentile
  bootstrap without these precautions would have covered (of parts that are not exactly zero; one
  that is, a percentile interval of a quantity above zero cannot cover).
- Size of the permutation tests at 5 % on 2,000 samples without disparity, and of the G-tests: as
  reported, whose reference depends on expected counts, and with chi-squared throughout.
- Private mode: coverage from released tables, beside intervals that ignore the noise.

``python bench_pid_coverage.py [part ...]`` runs parts: standard_errors, coverage, boundary,
size, private; without names all of them. ``"coverage: TITLE"`` runs one cell of that part. What is
not run is kept as it was; ``runs`` says of each part when it ran and at which revision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from _record import record_part
from scipy.stats import chi2

from privfair.accounting import Ledger
from privfair.core import Budget
from privfair.core.statistics import normal_critical
from privfair.fairness import release_contingency
from privfair.fairness.pid._analysis import Settings, analyse, solve
from privfair.fairness.pid._data import PIDTable
from privfair.fairness.pid._private import analyse_release, table_of_release
from privfair.fairness.pid._uncertainty import (
    PARTS,
    SIGNED,
    bootstrap_parts,
    influences,
    part_values,
    standard_errors,
)

SEED = 0
INTERIOR = np.array(
    [[[0.04, 0.04, 0.12], [0.06, 0.02, 0.15]], [[0.04, 0.02, 0.04], [0.05, 0.22, 0.20]]]
)


def many_clients() -> np.ndarray:
    """Twenty clients whose make-up and rates differ; three decisions."""
    rng = np.random.default_rng(3)
    size, share = rng.dirichlet(np.full(20, 8.0)), rng.beta(20, 20, 20)
    joint = np.zeros((2, 3, 20))
    for k in range(20):
        for z, mass in ((0, 1 - share[k]), (1, share[k])):
            lean = 0.5 * z + rng.normal(0, 0.2)
            rates = np.exp(np.array([0.0, lean, 2 * lean]))
            joint[z, :, k] = size[k] * mass * rates / rates.sum()
    return joint


def three_groups() -> np.ndarray:
    """Three groups, three decisions, four clients."""
    rng = np.random.default_rng(5)
    return rng.dirichlet(np.full(36, 1.2)).reshape(3, 3, 4)


INTERIORS = {
    "2 groups, 2 decisions, 3 clients, n = 4000": (INTERIOR, 4000),
    "2 groups, 3 decisions, 20 clients, n = 10000": (many_clients(), 10000),
    "3 groups, 3 decisions, 4 clients, n = 4000": (three_groups(), 4000),
}


def small_clients() -> np.ndarray:
    """Twenty clients of unlike rates, of which a sample holds 100 rows each."""
    joint = np.random.default_rng(2).dirichlet(np.full(80, 5.0)).reshape(2, 2, 20)
    joint[1, 1] *= 2.5
    return joint / joint.sum()


COVERED = {
    **INTERIORS,
    "2 groups, 2 decisions, 20 clients, n = 2000": (small_clients(), 2000),
}
"""Of the coverage study; the last has a unique part two spreads from zero."""


def independent() -> np.ndarray:
    return np.einsum("a,b,c->abc", [0.4, 0.6], [0.7, 0.3], [0.2, 0.3, 0.5])


def locally_fair() -> np.ndarray:
    """No disparity in any client, some over all: U = M = 0 and G = R."""
    joint = np.zeros((2, 2, 2))
    for k, (share, rate) in enumerate([(0.3, 0.35), (0.6, 0.6)]):
        joint[:, :, k] = 0.5 * np.outer([1 - share, share], [1 - rate, rate])
    return joint


def cancelling(gap: float) -> np.ndarray:
    """Opposite gaps in two equal clients: G = 0 and L = M."""
    joint = np.zeros((2, 2, 2))
    for z in (0, 1):
        for k in (0, 1):
            rate = 0.5 + gap / 2 * (1 if z == k else -1)
            joint[z, :, k] = 0.25 * np.array([1 - rate, rate])
    return joint


def a_little(gap: float) -> np.ndarray:
    """The same small gap in every client: near the boundary of no disparity."""
    joint = np.zeros((2, 2, 3))
    for z in (0, 1):
        rate = 0.4 + gap * z
        joint[z] = 0.5 * np.outer([1 - rate, rate], [0.3, 0.3, 0.4])
    return joint


BOUNDARIES = {
    "no disparity": (independent(), 2000),
    "locally fair": (locally_fair(), 2000),
    "cancelling, gap 0.3": (cancelling(0.3), 2000),
    "equal gap 0.03": (a_little(0.03), 2000),
    "equal gap 0.06": (a_little(0.06), 2000),
    "equal gap 0.1": (a_little(0.1), 2000),
}


CELLS = [*COVERED]
"""Of the coverage study: all, or the one named on the command line."""


def as_table(counts: np.ndarray) -> PIDTable:
    """Return counts (z, yhat, s) as the table that the package reads."""
    counts = counts[None]
    sums = counts.astype(float)
    z, y, s = (tuple(range(size)) for size in counts.shape[1:])
    return PIDTable(counts, sums, sums, tuple((str(v),) for v in z), ("z",), y, s)


def sample(joint: np.ndarray, n: int, rng: np.random.Generator) -> PIDTable:
    return as_table(rng.multinomial(n, joint.reshape(-1)).reshape(joint.shape))


def truth_of(joint: np.ndarray) -> dict[str, float]:
    return {name: float(v) for name, v in part_values(joint[None]).items()}


def standard_error_study() -> dict[str, object]:
    rng, out = np.random.default_rng(SEED), {}
    for title, (joint, n) in INTERIORS.items():
        draws, size = (20000, 400) if len(joint) == 2 else (3000, 200)
        drawn = rng.multinomial(n, joint.reshape(-1), size=draws).reshape(draws, *joint.shape)
        values = part_values(drawn[:, None].astype(float))
        errors: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in PARTS}
        for counts in drawn[:200]:
            table = as_table(counts)
            result = solve(table, Settings())
            rows = influences(table, result)
            first = standard_errors(table, result, rows)
            found = analyse(table, Settings(ci=None, n_resamples=size, random_state=rng))
            for name in PARTS:
                marked = found.boundary[name]
                errors[name].append((first[name], found.se[name], marked))
        truth = truth_of(joint)
        out[title] = {"samples": draws}
        for name in PARTS:
            centred = values[name] - values[name].mean()
            spread = float(np.std(centred, ddof=1))
            each = np.array(errors[name])
            out[title][name] = {
                "truth_over_spread": truth[name] / spread,
                "first_order_over_spread": float(each[:, 0].mean()) / spread,
                "standard_error_over_spread": float(each[:, 1].mean()) / spread,
                "relative_error_of_that_mean": float(each[:, 1].std() / each[:, 1].mean())
                / len(each) ** 0.5,
                "relative_error_of_the_spread": float(
                    ((centred**4).mean() / spread**4 - 1) / (4 * draws)
                )
                ** 0.5,
                "share_marked_as_possibly_zero": float(each[:, 2].mean()),
            }
    return out


def covered(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] - 1e-12 <= truth <= interval[1] + 1e-12


def coverage_study() -> dict[str, object]:
    draws, out = 500, {}
    for title in CELLS:
        # Each cell has draws of its own, so that one can be run without the others.
        rng = np.random.default_rng([SEED + 1, list(COVERED).index(title)])
        joint, n = COVERED[title]
        truth = truth_of(joint)
        ways = ("influence", "bootstrap") if joint.size <= 12 else ("influence",)
        hit = {way: dict.fromkeys(PARTS, 0) for way in ways}
        for _ in range(draws):
            table = sample(joint, n, rng)
            for way in ways:
                # As many resamples as second-order errors and bounds near zero need.
                few = way == "influence" and joint.shape[-1] < 20
                settings = Settings(ci=way, n_resamples=100 if few else 200, random_state=rng)
                intervals = analyse(table, settings).intervals
                for name in PARTS:
                    hit[way][name] += covered(intervals[name], truth[name])
        out[title] = {
            "truth_bits": truth,
            "coverage": {way: {k: v / draws for k, v in h.items()} for way, h in hit.items()},
        }
    return out


def boundary_study() -> dict[str, object]:
    rng, draws, out = np.random.default_rng(SEED + 2), 400, {}
    for title, (joint, n) in BOUNDARIES.items():
        truth = truth_of(joint)
        names = [name for name in PARTS if name not in SIGNED]
        hit = {way: dict.fromkeys(names, 0) for way in ("ours", "normal", "percentile", "seen")}
        for _ in range(draws):
            table = sample(joint, n, rng)
            found = analyse(table, Settings(n_resamples=200, random_state=rng))
            drawn = bootstrap_parts(table, 200, rng)
            for name in names:
                hit["ours"][name] += covered(found.intervals[name], truth[name])
                hit["seen"][name] += found.boundary[name]
                reach = normal_critical(0.95) * found.se[name]
                middle = found.values[name]
                hit["normal"][name] += covered((middle - reach, middle + reach), truth[name])
                low, high = np.quantile(drawn[name], [0.025, 0.975])
                hit["percentile"][name] += covered((low, high), truth[name])
        out[title] = {"truth_bits": {k: truth[k] for k in names}} | {
            way: {k: v / draws for k, v in h.items()} for way, h in hit.items()
        }
    return out


def size_study() -> dict[str, object]:
    rng, draws, out = np.random.default_rng(SEED + 3), 2000, {}
    for title, joint, n, tests in (
        ("independent, 3 clients, n = 500", independent(), 500, ("global", "local")),
        ("locally fair, 2 clients, n = 500", locally_fair(), 500, ("local",)),
        ("independent, 30 clients, n = 500", np.full((2, 2, 30), 1 / 120), 500, ("local",)),
    ):
        p: dict[str, list[float]] = {}
        reference: dict[str, list[bool]] = {test: [] for test in tests}
        for _ in range(draws):
            found = analyse(
                sample(joint, n, rng), Settings(ci=None, n_resamples=199, random_state=rng)
            )
            for test in tests:
                null = found.nulls[f"{test}_disparity"]
                p.setdefault(f"{test} permutation", []).append(null.p_value)
                statistic, df = (getattr(found.tests, f"{test}_{k}") for k in ("statistic", "df"))
                p.setdefault(f"{test} G", []).append(getattr(found.tests, f"{test}_p_value"))
                p.setdefault(f"{test} G, chi-squared", []).append(float(chi2.sf(statistic, df)))
                reference[test].append(getattr(found.tests, f"{test}_reference") == "chi-squared")
        out[title] = {name: float(np.mean(np.array(v) <= 0.05)) for name, v in p.items()}
        out[title] |= {
            f"{test} G: share by chi-squared": float(np.mean(v)) for test, v in reference.items()
        }
    return out


def private_study() -> dict[str, object]:
    rng, draws, out = np.random.default_rng(SEED + 4), 300, {}
    for title, joint, n, epsilon in (
        ("interior, n = 4000, epsilon = 1", INTERIOR, 4000, 1.0),
        ("interior, n = 4000, epsilon = 0.1", INTERIOR, 4000, 0.1),
        ("interior, n = 1000, epsilon = 0.1", INTERIOR, 1000, 0.1),
        ("no disparity, n = 2000, epsilon = 0.1", independent(), 2000, 0.1),
        ("equal gap 0.1, n = 2000, epsilon = 0.1", a_little(0.1), 2000, 0.1),
        ("20 clients, n = 10000, epsilon = 1", many_clients(), 10000, 1.0),
    ):
        truth = truth_of(joint)
        hit = {way: dict.fromkeys(PARTS, 0) for way in ("ours", "noise ignored")}
        off = dict.fromkeys(PARTS, 0.0)
        p = []
        for seed in range(draws):
            counts = rng.multinomial(n, joint.reshape(-1))
            cells = np.unravel_index(np.repeat(np.arange(joint.size), counts), joint.shape)
            axes = ("z", "yhat", "s")
            release = release_contingency(
                dict(zip(axes, cells, strict=True)),
                {a: list(range(k)) for a, k in zip(axes, joint.shape, strict=True)},
                privacy=Budget(epsilon), ledger=Ledger(), noise_random_state=seed,
            )  # fmt: skip
            table = table_of_release(release)
            found = analyse_release(release, table, Settings(n_resamples=200, random_state=rng))
            blind = analyse(table, Settings(n_resamples=0))
            p.append(found.nulls["local_disparity"].p_value)
            for name in PARTS:
                hit["ours"][name] += covered(found.intervals[name], truth[name])
                hit["noise ignored"][name] += covered(blind.intervals[name], truth[name])
                off[name] += (found.values[name] - truth[name]) / draws
        out[title] = {
            "truth_bits": truth,
            "mean_bias_of_the_value": off,
            "coverage": {way: {k: v / draws for k, v in h.items()} for way, h in hit.items()},
            "share_of_local_p_at_most_0.05": float(np.mean(np.array(p) <= 0.05)),
        }
    return out


STUDIES: dict[str, Callable[[], dict[str, object]]] = {
    "standard_errors": standard_error_study,
    "coverage": coverage_study,
    "boundary": boundary_study,
    "size": size_study,
    "private": private_study,
}


def main() -> None:
    for wanted in sys.argv[1:] or list(STUDIES):
        part, _, cell = wanted.partition(": ")
        if cell:
            CELLS[:] = [cell]
        found = STUDIES[part]()
        seeds = {"random_state": SEED, "noise_random_state": SEED}
        record_part("pid_coverage", wanted, found[cell] if cell else found, seeds=seeds)


if __name__ == "__main__":
    main()
