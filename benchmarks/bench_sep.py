"""Socio-economic parity on Adult: what each way of training gives up and gains, and its time.

Official split, complete rows, linear models without sex and race. For both rules of status
(capital gain, education) and both notions (SEP; CSEP with 40 weekly hours): no constraint, the
augmented Lagrangian on scores, on a surrogate of decisions, with randomised thresholds on top; the
reduction of Agarwal et al. (2018); randomised thresholds on the unconstrained model. Then the
private penalty at epsilon 3 (ten runs), 1 and 8 (three each) and its twin without privacy, with a
public schema, its bins, delta 1e-5 and unseeded noise, beside the private model without it; on
decisions at epsilon 3 and for capital gain also without the guard against levelling down.

Per run: test accuracy of decisions, largest test gap of scores and of decisions with its 95 %
interval, and the selection rate of underprivileged women in the target set. Settings are the
defaults; those of the private penalty were chosen on training rows (``bench_sep_schedule.py``).
The margin of randomised thresholds, one standard error, is an argument that was made when the test
gap without a margin was known (``bench_sep_margin.py`` shows what it does on training rows).
Randomised decisions count by their probabilities.

Time: process CPU seconds on one core. Needs the real files (``PRIVFAIR_DATA_DIR``).
``--quick`` makes one private run for each point.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from typing import Any

import numpy as np
from _record import record
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from privfair.accounting import Ledger
from privfair.core import Schema
from privfair.datasets import fetch_adult
from privfair.dp import DPClassifier
from privfair.fairness import (
    SEPClassifier,
    SEPPenalty,
    effort_preset,
    sep_disparity,
    sep_gaps,
    sep_violation,
    ses_preset,
)

RULES = ("adult_capital_gain", "adult_education")
WAYS: dict[str, dict[str, Any]] = {
    "unconstrained": {"tolerance": 1.0},
    "auglag soft": {},
    "auglag soft, no guard": {"no_leveling_down": False},
    "auglag hard_surrogate": {"constrain": "hard_surrogate"},
    "auglag post": {"constrain": "post"},
    "reductions": {"method": "reductions"},
    "post": {"method": "post"},
}
EPSILONS = (3.0, 1.0, 8.0)
DELTA = 1e-5
QUICK = "--quick" in sys.argv
RUNS = {1.0: 3, 3.0: 10, 8.0: 3, float("inf"): 1}
KINDS: dict[str, dict[str, Any]] = {
    "dp only": {},
    "soft": {},
    "hard_surrogate": {"constrain": "hard_surrogate"},
    "hard_surrogate, no guard": {"constrain": "hard_surrogate", "no_leveling_down": False},
}


def worst(h: np.ndarray, test: Any, rule: Any, effort: Any) -> dict[str, Any]:
    """Return the largest gap with the interval of its row, and the rate of poor women."""
    table = sep_gaps(
        h, test.sensitive["sex"], rule, ses_features=test.data, effort=effort,
        effort_features=test.data,
    )  # fmt: skip
    top = table.loc[table["gap"].idxmax()]
    return {
        "gap": round(float(top["gap"]), 4),
        "interval": [round(float(top["ci_low"]), 4), round(float(top["ci_high"]), 4)],
        "gaps": {str(k): round(float(v), 4) for k, v in table["gap"].items()},
        "rate_of_underprivileged_women": round(float(table.loc["Female", "rate_target"]), 4),
        "rates": {str(k): round(float(v), 4) for k, v in table["rate_target"].items()},
    }


def point(scores: np.ndarray, h: np.ndarray, test: Any, rule: Any, effort: Any) -> dict[str, Any]:
    """Return accuracy and gaps on the test rows."""
    y = test.target.to_numpy()
    return {
        "accuracy": round(float(np.mean(h * y + (1 - h) * (1 - y))), 4),
        "selection_rate": round(float(h.mean()), 4),
        "soft": worst(scores, test, rule, effort),
        "hard": worst(h, test, rule, effort),
    }


def encoded(train: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return encoded features without sex and race."""
    drop = [c for c in ("sex", "race", "education") if c in train.data]
    A, B = train.data.drop(columns=drop), test.data.drop(columns=drop)
    numbers = [c for c in A if A[c].dtype.kind in "iuf"]
    coder = make_column_transformer(
        (StandardScaler(), numbers),
        (
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            [c for c in A if c not in numbers],
        ),
    )
    return coder.fit_transform(A), coder.transform(B)


def open_points(train: Any, test: Any) -> dict[str, Any]:
    """Train without privacy in every way."""
    X, Xt = encoded(train, test)
    out: dict[str, Any] = {}
    columns = {
        "sensitive_features": train.sensitive["sex"], "ses_features": train.data,
        "effort_features": train.data,
    }  # fmt: skip
    at = {
        "sensitive_features": test.sensitive["sex"], "ses_features": test.data,
        "effort_features": test.data,
    }  # fmt: skip
    for name in RULES:
        for notion in ("SEP", "CSEP"):
            effort = effort_preset("adult_hours") if notion == "CSEP" else None
            rule = ses_preset(name)
            for way, settings in WAYS.items():
                model = SEPClassifier(
                    notion=notion, ses=rule, effort=effort, random_state=0, **settings
                )
                start = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model.fit(X, train.target, **columns)
                seconds = time.process_time() - start
                extra = at if model.needs_attributes_ else {}
                scores = model.predict_proba(Xt, **extra)[:, 1]
                random = model.needs_attributes_ or way == "reductions"
                h = scores if random else model.predict(Xt).astype(float)
                found = point(scores, h, test, rule, effort)
                found |= {
                    "cpu_seconds": round(seconds, 2),
                    "rounds": model.n_rounds_,
                    "converged": model.converged_,
                    "needs_attributes_to_predict": model.needs_attributes_,
                    "multipliers": {
                        " ".join(k): round(float(v), 4) for k, v in model.multipliers_.items()
                    },
                }
                out[f"{name} {notion} {way}"] = found
                print(f"{name} {notion} {way}: {found['accuracy']} {found['soft']['gap']} "
                      f"{found['hard']['gap']} {seconds:.1f} s", flush=True)  # fmt: skip
    return out


def private_points(train: Any, test: Any) -> dict[str, Any]:
    """Train privately with and without the penalty."""
    keep = [c for c in train.data.columns if c not in ("sex", "race")]
    A, B = train.data[keep], test.data[keep]
    schema = Schema({c: train.schema[c] for c in keep})
    S = train.data.assign(sex=train.sensitive["sex"].to_numpy())
    out: dict[str, Any] = {}
    for epsilon in (*EPSILONS, float("inf")):
        plain = []
        for run in range(1 if QUICK else RUNS[epsilon]):
            clf = DPClassifier(
                epsilon=epsilon, delta=DELTA, schema=schema, binning="public",
                ledger=Ledger(), random_state=run,
            ).fit(A, train.target)  # fmt: skip
            plain.append(clf.predict_proba(B)[:, 1])
        for name in RULES:
            for notion in ("SEP", "CSEP"):
                effort = effort_preset("adult_hours") if notion == "CSEP" else None
                rule = ses_preset(name)
                for kind, settings in KINDS.items():
                    if "no guard" in kind and (epsilon != 3.0 or name == "adult_education"):
                        continue
                    runs, certified, seconds = [], [], []
                    for run in range(len(plain)):
                        p = plain[run]
                        if kind != "dp only":
                            penalty = SEPPenalty(["Female", "Male"], rule, effort, **settings)
                            start = time.process_time()
                            clf = DPClassifier(
                                epsilon=epsilon, delta=DELTA, schema=schema, binning="public",
                                fairness_penalty=penalty, ledger=Ledger(), random_state=run,
                            ).fit(A, train.target, sensitive_features=S)  # fmt: skip
                            seconds.append(time.process_time() - start)
                            certified.append(clf.privacy_.epsilon)
                            p = clf.predict_proba(B)[:, 1]
                        runs.append(point(p, (p > 0.5).astype(float), test, rule, effort))
                    hard = np.array([r["hard"]["gap"] for r in runs])
                    key = f"epsilon {epsilon:g} {name} {notion} {kind}"
                    out[key] = {
                        "accuracy": mean(r["accuracy"] for r in runs),
                        "soft_gap": mean(r["soft"]["gap"] for r in runs),
                        "hard_gap": mean(hard),
                        "hard_gap_sd": None
                        if len(runs) < 2
                        else round(float(hard.std(ddof=1)), 4),
                        "rates_of_target_sets": {
                            k: mean(r["hard"]["rates"][k] for r in runs)
                            for k in ("Female", "Male")
                        },
                        "scores_of_target_sets": {
                            k: mean(r["soft"]["rates"][k] for r in runs)
                            for k in ("Female", "Male")
                        },
                        "rate_of_underprivileged_women": mean(
                            r["hard"]["rate_of_underprivileged_women"] for r in runs
                        ),
                        "largest_certified_epsilon": None
                        if not certified or not np.isfinite(max(certified))
                        else max(certified),
                        "cpu_seconds": mean(seconds) if seconds else None,
                        "runs": [
                            [r["accuracy"], r["soft"]["gap"], r["hard"]["gap"]] for r in runs
                        ],
                    }
                    print(key, {k: v for k, v in out[key].items() if k != "runs"}, flush=True)
    return out


def mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 4)


def audit_time() -> dict[str, Any]:
    """Time the audit of 50,000 rows in eight groups, interleaved with plain group means."""
    import pandas as pd

    rng = np.random.default_rng(0)
    n = 50_000
    h = (rng.random(n) < 0.3).astype(int)
    s, low = rng.choice(list("abcdefgh"), n), rng.random(n) < 0.4
    frame = pd.DataFrame({"h": h, "s": s, "low": low})
    calls = {
        "sep_gaps": lambda: sep_gaps(h, s, low),
        "sep_violation": lambda: sep_violation(None, h, sensitive_features=s, ses_features=low),
        "sep_disparity.estimate with null reference": lambda: sep_disparity.estimate(
            None, h, sensitive_features=s, ses_features=low, random_state=0
        ),
        "pandas groupby means": lambda: frame.groupby(["s", "low"])["h"].mean(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(9):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {
        name: {
            "cpu_ms_min": round(1e3 * min(v), 2),
            "cpu_ms_median": round(1e3 * statistics.median(v), 2),
        }
        for name, v in seconds.items()
    }


def main() -> None:
    train, test = (fetch_adult(split=s, missing="drop") for s in ("train", "test"))
    results = {
        "audit_of_50000_rows": audit_time(),
        "without_privacy": open_points(train, test),
        "private": private_points(train, test),
        "private_settings": {
            "delta": DELTA, "runs": {f"{k:g}": v for k, v in RUNS.items()}, "relation": "zero_out",
            "schema": "public, with its bins",
            "columns": ["accuracy", "soft gap", "hard gap"],
        },
    }  # fmt: skip
    record("sep", results, seeds={"random_state of private runs": 10, "rows of the timing": 0})


if __name__ == "__main__":
    main()
