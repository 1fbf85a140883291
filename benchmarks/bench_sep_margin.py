"""What a margin below the tolerance does to randomised thresholds: Adult's training rows only.

In fifths, for each rule of status and notion: ``auglag`` on scores, then randomised thresholds on
top with a margin of 0, 0.5, ..., 2 standard errors of each gap; held-out gaps by group (mean and
scatter over folds) and accuracy. No row of Adult's test part is read.

This does not choose a margin: without one, gaps are already at the tolerance on average, and they
scatter over folds by two to five standard errors. It shows what each margin costs. The default of
one standard error is an argument, made when the gap on test rows without a margin was known.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from _record import record
from bench_sep import RULES, encoded

from privfair.datasets import fetch_adult
from privfair.fairness import SEPClassifier, effort_preset, ses_preset
from privfair.fairness.sep._gaps import gap_table
from privfair.fairness.sep._post import atoms, fit_thresholds, mixed_decisions
from privfair.fairness.sep._sets import CellSums, Sets, read_sets

MARGINS = (0.0, 0.5, 1.0, 1.5, 2.0)
FOLDS, TOLERANCE = 5, 0.01


def main() -> None:
    warnings.simplefilter("ignore")
    train = fetch_adult(split="train", missing="drop")
    X, y = encoded(train, train)[0], train.target.to_numpy()
    sex, rows = train.sensitive["sex"], train.data
    part = np.random.default_rng(0).permutation(len(y)) % FOLDS
    out: dict[str, Any] = {}
    start = time.process_time()
    for name in RULES:
        for notion in ("SEP", "CSEP"):
            rule = ses_preset(name)
            effort = effort_preset("adult_hours") if notion == "CSEP" else None

            def sets_of(i: Any, rule: Any = rule, effort: Any = effort) -> Sets:
                return read_sets(
                    sex.iloc[i], rule, effort=effort, ses_features=rows.iloc[i],
                    effort_features=None if effort is None else rows.iloc[i], rows=y[i],
                )  # fmt: skip

            gaps: dict[float, list[Any]] = {m: [] for m in MARGINS}
            right: dict[float, list[float]] = {m: [] for m in MARGINS}
            errors = []
            for k in range(FOLDS):
                a, b = np.flatnonzero(part != k), np.flatnonzero(part == k)
                model = SEPClassifier(notion=notion, ses=rule, effort=effort, random_state=0).fit(
                    X[a], y[a], sensitive_features=sex.iloc[a], ses_features=rows.iloc[a],
                    effort_features=rows.iloc[a],
                )  # fmt: skip
                here, there = sets_of(a), sets_of(b)
                p, q = model.predict_proba(X[a])[:, 1], model.predict_proba(X[b])[:, 1]
                se = np.zeros(len(here.names))
                for m in MARGINS:
                    mixes, _, _ = fit_thresholds(
                        p, y[a], np.ones(len(a)), here, one_sided=True, floor=None,
                        tolerance=np.maximum(TOLERANCE - m * se, 0.0),
                    )  # fmt: skip
                    if m == 0.0:
                        own = mixed_decisions(mixes, p, atoms(here))
                        se = gap_table(CellSums.of(here, own, None), here, 0).se
                        errors.append(se)
                    h = mixed_decisions(mixes, q, atoms(there))
                    gaps[m].append(gap_table(CellSums.of(there, h, None), there, 0).gap)
                    right[m].append(float(np.mean(h * y[b] + (1 - h) * (1 - y[b]))))
            found: dict[str, Any] = {
                "se_of_training_gap": np.mean(errors, axis=0).round(5).tolist()
            }
            for m in MARGINS:
                found[f"margin {m:g}"] = {
                    "gap_by_group": np.mean(gaps[m], axis=0).round(5).tolist(),
                    "sd_over_folds": np.std(gaps[m], axis=0, ddof=1).round(5).tolist(),
                    "accuracy": round(float(np.mean(right[m])), 5),
                }
            out[f"{name} {notion}"] = found
            print(name, notion, found, flush=True)
    seconds = round(time.process_time() - start, 1)
    record("sep_margin", {"groups": ["Female", "Male"], "settings": out, "cpu_seconds": seconds},
           seeds={"folds": 0})  # fmt: skip


if __name__ == "__main__":
    main()
