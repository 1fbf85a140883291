"""The strength of a distance-covariance penalty by cross-validation, then tried on fresh rows.

Adult (complete rows, official test split, sex x {White, Black, Other}) and COMPAS (ProPublica's
filter, a fixed 70/30 split, sex x four groups); sex and race are no inputs. The rule is fixed
before any penalised model is fitted, and no test row takes part in it:

1. three folds of the training rows; the divergence of the scores of the groups (Jensen-Shannon,
   bits, less its bias) on held-out folds, without a penalty, as a mean over folds;
2. the target is a fifth of it;
3. ``calibrate_lambda`` takes the smallest strength of 0, 1, 3, 10, 30, 100 whose mean divergence
   on the same held-out folds is at most the target.

Then every strength is fitted to all training rows, with three seeds, and measured on the test
rows: whether the chosen one keeps the promise there, and what it changes against no penalty and
against its neighbours on the grid. Intervals of differences are percentiles of one bootstrap of
the test rows that all strengths share. A penalty may meet a target for scores and still leave a
gap of decisions: both are shown.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from _record import record
from bench_fair_frontiers import Rows, adult, compas, measures, resampling, spread
from numpy.typing import NDArray

from privfair.fairness import FairDCovClassifier
from privfair.fairness.dcov import calibrate_lambda, jsd_groups

Array = NDArray[np.float64]
STRENGTHS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
SHARE = 1 / 5  # of the divergence without a penalty: the target
FOLDS, SEEDS = 3, 3
EPOCHS = {"adult": 15, "compas": 40}
GAPS = ("accuracy", "group_gap", "intersectional_gap", "distributional_gap")


def network(epochs: int, strength: float = 0.0, seed: int = 0) -> FairDCovClassifier:
    """Return the classifier that is calibrated."""
    return FairDCovClassifier(
        lambda_=strength, hidden_layer_sizes=(64,), batch_size=2048, epochs=epochs, lr=4e-3,
        schema="as_is", random_state=seed,
    )  # fmt: skip


def run(name: str, train: Rows, test: Rows) -> dict[str, Any]:
    """Return the calibration on the training rows and what it means on the test rows."""
    started = time.process_time()
    rows = (train.X, train.y, train.sensitive)
    common: dict[str, Any] = {"n_splits": FOLDS, "seeds": (0,), "random_state": 0}
    model = network(EPOCHS[name])
    plain = calibrate_lambda(model, *rows, target=1.0, lambdas=(0.0,), **common)
    before = float(plain.summary["gap"].iloc[0])
    picked = calibrate_lambda(model, *rows, target=SHARE * before, lambdas=STRENGTHS, **common)
    calibrated = time.process_time() - started
    found: dict[str, Any] = {
        "rows": {"train": len(train.y), "test": len(test.y)},
        "test_accuracy_of_the_majority": float(max(test.y.mean(), 1 - test.y.mean())),
        "divergence_without_penalty_on_held_out_folds": before,
        "target": picked.target,
        "rule": picked.rule,
        "chosen": picked.lambda_,
        "chosen_is_the_end_of_the_grid": picked.lambda_ == STRENGTHS[-1],
        "chosen_by_each_fold_alone": {
            str(fold): _smallest(part[part["gap"] <= picked.target]["lambda"])
            for fold, part in picked.runs.groupby("fold")
        },
        "held_out_folds": {
            f"{strength:g}": {k: float(v) for k, v in row.items() if np.isfinite(v)}
            for strength, row in picked.summary.iterrows()
        },
        "cpu_seconds_of_calibration": round(calibrated, 2),
    }
    draws = resampling(len(test.y), 11)
    test_rows = {s: on_test(train, test, draws, EPOCHS[name], s) for s in STRENGTHS}
    found["test"] = {f"{s:g}": _shown(p) for s, p in test_rows.items()}
    if picked.lambda_ is None:
        return found
    own, place = test_rows[picked.lambda_], STRENGTHS.index(picked.lambda_)
    found["promise_kept_on_test_rows"] = own["divergence"] <= picked.target
    found["divergence_falls_on_test_rows"] = test_rows[0.0]["divergence"] / own["divergence"]
    others = {"no penalty": 0, "next weaker": place - 1, "next stronger": place + 1}
    found["chosen_minus"] = {
        label: {"lambda": STRENGTHS[k], **_differences(own, test_rows[STRENGTHS[k]])}
        for label, k in others.items()
        if 0 <= k < len(STRENGTHS) and k != place
    }
    found["cpu_seconds"] = round(time.process_time() - started, 2)
    return found


def on_test(train: Rows, test: Rows, draws: Array, epochs: int, strength: float) -> dict[str, Any]:
    """Return accuracy, gaps and divergence on the test rows, means over seeds."""
    tries, divergences = [], []
    for seed in range(SEEDS):
        model = network(epochs, strength, seed)
        model.fit(train.X, train.y, sensitive_features=train.sensitive)
        scores = np.asarray(model.predict_proba(test.X)[:, 1], dtype=np.float64)
        tries.append(measures(scores, test, draws, hard=True))
        divergences.append(jsd_groups(scores, test.sensitive, random_state=0).value)
    return {
        "draws": {k: np.mean([t[k] for t in tries], axis=0) for k in GAPS},
        "divergence": float(np.mean(divergences)),
        "divergence_by_seed": divergences,
    }


def _smallest(strengths: Any) -> float | None:
    return float(strengths.min()) if len(strengths) else None


def _shown(point: dict[str, Any]) -> dict[str, Any]:
    return {
        **{k: spread(v) for k, v in point["draws"].items()},
        "divergence": round(point["divergence"], 5),
        "divergence_by_seed": [round(v, 5) for v in point["divergence_by_seed"]],
    }


def _differences(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        **{k: spread(own["draws"][k] - other["draws"][k]) for k in GAPS},
        "divergence": round(own["divergence"] - other["divergence"], 5),
    }


def main() -> None:
    """Calibrate on both data sets and write the record."""
    torch.set_num_threads(1)
    record(
        "dcov_lambda",
        {
            "penalty": "ccdcov, tau 0.5, balanced encoding (the defaults)",
            "grid": list(STRENGTHS),
            "rule": f"smallest strength with mean held-out divergence <= {SHARE:g} of that at 0",
            **{name: run(name, *load()) for name, load in (("adult", adult), ("compas", compas))},
        },
        seeds={"calibration": 0, "first on test rows": 0, "number on test rows": SEEDS},
    )


if __name__ == "__main__":
    main()
