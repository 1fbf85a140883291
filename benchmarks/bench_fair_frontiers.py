"""Accuracy against gaps: our penalties, fairlearn's reductions and fairret, on the same rows.

Adult (complete rows, official test split, sex x {White, Black, Other}) and COMPAS (ProPublica's
filter, a fixed 70/30 split, sex x four groups); sex and race are no inputs. Neural methods share
one network (64 ReLU units), optimiser, batches and epochs; only the term added to the loss
differs. Reductions use logistic regression, the learner they are made for at this size.

Every method has a grid of strengths, and what is compared are curves, so that no strength is
chosen on test rows: beside each point of a peer stands the point of our curve with the same
accuracy, a coin between two neighbouring strengths (whose gap is at most the mean of theirs, which
is what is used). All kinds of penalty are shown, not only the best. Intervals are percentiles of
one bootstrap of the test rows that all methods share.

fairret 0.1.3 is no dependency of this package; without it, its lines are left out and the record
says so. ``pip install --no-deps --target DIR fairret==0.1.3`` and ``PRIVFAIR_BENCH_PEERS=DIR``.

The distributional gap is a distance of score distributions, and an exponentiated gradient's scores
are nearly decisions: two steps, which are near each other where rates are. The decision gap beside
it compares like with like: the largest distance of a cell's rate of (expected) positive decisions
from everybody's, which is the distributional gap of decisions. ``--decisions`` measures it for the
reductions and the penalties with all or some cells' weights raised, on Adult only.

Needs the real files (``PRIVFAIR_DATA_DIR``). With ``--seeds N`` runs N seeds (default 3).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from _record import record
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from privfair.datasets import fetch_adult, fetch_compas
from privfair.fairness import FairDCovClassifier

FOLDER = os.environ.get("PRIVFAIR_BENCH_PEERS")
if FOLDER and FOLDER not in sys.path:
    sys.path.append(FOLDER)
Array = NDArray[np.float64]
RESAMPLES = 400
GRID = 48  # cut points of the score at which distribution functions are compared
# The penalty, the weighting of small cells (1 is the papers' own), and what it is measured on.
OURS = [("ccdcov", 1.0), ("jdcov", 1.0), ("ccdcov", 0.0), ("cells", 0.5), ("cells", 0.0)]
STRENGTHS = (10.0, 30.0, 60.0, 120.0, 250.0, 500.0)
FAIRRET = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
BOUNDS = {"adult": (0.1, 0.05, 0.02), "compas": (0.1, 0.05, 0.02)}
EPOCHS = {"adult": 20, "compas": 150}
# Small cells are a few rows of a small batch: every neural method gains from large ones here.
BATCH, RATE, HIDDEN = 4096, 4e-3, 64


@dataclass
class Rows:
    """Encoded features, labels, sensitive columns and the crossing of these."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    sensitive: pd.DataFrame
    cell: NDArray[np.int64]


def encode(
    train: pd.DataFrame, test: pd.DataFrame
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return full dummies and standardised numbers, by what the training rows show."""
    both = pd.get_dummies(pd.concat([train, test]), dtype=float)
    values = both.to_numpy()
    head = values[: len(train)]
    spread = head.std(axis=0)
    scaled = (values - head.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return scaled[: len(train)].astype(np.float32), scaled[len(train) :].astype(np.float32)


def cells_of(sensitive: pd.DataFrame) -> NDArray[np.int64]:
    """Return the crossing of all sensitive columns as codes."""
    name = sensitive["sex"].astype(str) + "/" + sensitive["race"].astype(str)
    return np.asarray(pd.Categorical(name, categories=sorted(set(name))).codes, dtype=np.int64)


def adult() -> tuple[Rows, Rows]:
    """Return the training and test rows of Adult that are complete."""
    parts = [fetch_adult(split=split) for split in ("train", "test")]
    whole = [~(p.data == "missing").any(axis=1).to_numpy() for p in parts]
    features = [p.data[k].drop(columns=["sex", "race"]) for p, k in zip(parts, whole, strict=True)]
    sensitive = []
    for p, k in zip(parts, whole, strict=True):
        s = p.sensitive[k].astype(str).reset_index(drop=True)
        s["race"] = s["race"].where(s["race"].isin(["White", "Black"]), "Other")
        sensitive.append(s[["sex", "race"]])
    X = encode(*features)
    rows = [
        Rows(x, np.asarray(p.target, dtype=np.int64)[k], s, cells_of(s))
        for x, p, k, s in zip(X, parts, whole, sensitive, strict=True)
    ]
    return rows[0], rows[1]


def compas() -> tuple[Rows, Rows]:
    """Return a fixed split of ProPublica's filtered rows, stratified by cell and label."""
    from sklearn.model_selection import train_test_split

    bunch = fetch_compas(version="filtered")
    names = ["age", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count"]
    features = bunch.data[[*names, "c_charge_degree"]]
    s = bunch.sensitive[["sex", "race"]].astype(str).reset_index(drop=True)
    named = ["African-American", "Caucasian", "Hispanic"]
    s["race"] = s["race"].where(s["race"].isin(named), "Other")
    y, cell = np.asarray(bunch.target, dtype=np.int64), cells_of(s)
    first, second = train_test_split(
        np.arange(len(y)), test_size=0.3, random_state=0, stratify=2 * cell + y
    )
    X = encode(features.iloc[first], features.iloc[second])
    return (
        Rows(X[0], y[first], s.iloc[first], cell[first]),
        Rows(X[1], y[second], s.iloc[second], cell[second]),
    )


# -- methods: each returns scores in [0, 1] of the given sets of rows ---------------------------
def ours(train: Rows, test: Rows, kind: str, tau: float, strength: float, epochs: int,
         seed: int) -> Array:  # fmt: skip
    """Return the scores of a network with a distance-covariance penalty."""
    model = FairDCovClassifier(
        lambda_=strength, penalty=kind, group_weighting=tau, hidden_layer_sizes=(HIDDEN,),
        batch_size=BATCH, epochs=epochs, lr=RATE, schema="as_is", random_state=seed,
    ).fit(train.X, train.y, sensitive_features=train.sensitive)  # fmt: skip
    return np.asarray(model.predict_proba(test.X)[:, 1], dtype=np.float64)


def with_fairret(train: Rows, test: Rows, strength: float, epochs: int, seed: int) -> Array:
    """Return the scores of the same network under fairret's norm of positive rates' violations."""
    from fairret.loss import NormLoss
    from fairret.statistic import PositiveRate

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = nn.Sequential(nn.Linear(train.X.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    penalty, bce = NormLoss(PositiveRate()), nn.BCEWithLogitsLoss()
    X = torch.from_numpy(train.X)
    y = torch.from_numpy(train.y).float()[:, None]
    cells = nn.functional.one_hot(torch.from_numpy(train.cell)).float()
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(y)))
        for rows in order.split(BATCH):
            optimiser.zero_grad()
            logits = net(X[rows])
            loss = bce(logits, y[rows])
            if strength:
                loss = loss + strength * penalty(logits, cells[rows])
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        return np.asarray(torch.sigmoid(net(torch.from_numpy(test.X)))[:, 0].double().numpy())


def reductions(train: Rows, test: Rows, bound: float) -> Array:
    """Return the chance of a positive decision under fairlearn's exponentiated gradient."""
    from fairlearn.reductions import DemographicParity, ExponentiatedGradient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about iterations of the learner, dozens of times
        model = ExponentiatedGradient(
            LogisticRegression(max_iter=300), DemographicParity(difference_bound=bound),
            max_iter=20,
        )  # fmt: skip
        model.fit(train.X, train.y, sensitive_features=train.cell)
        return np.asarray(model._pmf_predict(test.X)[:, 1], dtype=np.float64)


# -- measures ----------------------------------------------------------------------------------
def resampling(n: int, seed: int) -> Array:
    """Return weights of rows, shape (1 + RESAMPLES, n); the first are those of the data."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    return np.vstack([np.ones((1, n)), drawn])


def measures(score: Array, rows: Rows, weights: Array, hard: bool) -> dict[str, Array]:
    """Return accuracy and gaps under each set of weights.

    ``hard`` decides at 0.5; otherwise scores are chances of a positive decision, and accuracy
    and rates are expectations, as for randomised classifiers.
    """
    decide = (score >= 0.5).astype(np.float64) if hard else score
    correct = np.where(rows.y == 1, decide, 1 - decide)
    total = weights.sum(axis=1)
    cuts = np.quantile(score, (np.arange(GRID) + 0.5) / GRID)
    below = (score[:, None] <= cuts).astype(np.float64)
    overall = weights @ below / total[:, None]
    rates, far = [], []
    for g in range(rows.cell.max() + 1):
        inside = weights[:, rows.cell == g]
        size = np.maximum(inside.sum(axis=1), 1e-12)
        rates.append(inside @ decide[rows.cell == g] / size)
        far.append(np.abs(inside @ below[rows.cell == g] / size[:, None] - overall).max(axis=1))
    by_sex = []
    for name in sorted(set(rows.sensitive["sex"])):
        mask = (rows.sensitive["sex"] == name).to_numpy()
        inside = weights[:, mask]
        by_sex.append(inside @ decide[mask] / inside.sum(axis=1))
    return {
        "accuracy": weights @ correct / total,
        "group_gap": np.ptp(np.array(by_sex), axis=0),
        "intersectional_gap": np.ptp(np.array(rates), axis=0),
        "distributional_gap": np.max(np.array(far), axis=0),
        "decision_gap": np.abs(np.array(rates) - weights @ decide / total).max(axis=0),
    }


def run(name: str, train: Rows, test: Rows, seeds: int, *, brief: bool = False) -> dict[str, Any]:
    """Return all points of one data set and the comparison with each peer."""
    draws = resampling(len(test.y), 11)
    epochs = EPOCHS[name]
    jobs: list[tuple[str, str, bool, Any]] = [
        ("none", "none", True, lambda s: ours(train, test, "ccdcov", 1.0, 0.0, epochs, s))
    ]
    kinds = [own for own in OURS if own[1] < 1] if brief else OURS
    for kind, tau in kinds:
        for strength in STRENGTHS:
            jobs.append((
                "ours", f"{kind} tau={tau:g} lambda={strength:g}", True,
                lambda s, k=kind, t=tau, a=strength: ours(train, test, k, t, a, epochs, s),
            ))  # fmt: skip
    if importlib.util.find_spec("fairret") and not brief:
        for strength in FAIRRET:
            jobs.append((
                "fairret", f"fairret strength={strength:g}", True,
                lambda s, a=strength: with_fairret(train, test, a, epochs, s),
            ))  # fmt: skip
    for bound in BOUNDS[name]:
        jobs.append((
            "fairlearn", f"exponentiated gradient bound={bound:g}", False,
            lambda _, b=bound: reductions(train, test, b),
        ))  # fmt: skip
    points: dict[str, dict[str, Any]] = {}
    for family, label, hard, job in jobs:
        started = time.process_time()
        tries = [job(seed) for seed in range(1 if family == "fairlearn" else seeds)]
        found = [measures(scores, test, draws, hard) for scores in tries]
        points[label] = {
            "family": family,
            "cpu_seconds": time.process_time() - started,
            "auc": float(np.mean([roc_auc_score(test.y, scores) for scores in tries])),
            "draws": {k: np.mean([m[k] for m in found], axis=0) for k in found[0]},
        }
        print(name, label, {k: round(float(v[0]), 4) for k, v in points[label]["draws"].items()})
    against = compare(points, kinds)
    return {
        "rows": {"train": len(train.y), "test": len(test.y)},
        "cells_of_the_test_rows": np.bincount(test.cell).tolist(),
        "points": {label: summary(p) for label, p in points.items()},
        "against_peers": against,
        "readings": tally(against),
    }


def spread(values: Array) -> list[float]:
    """Return the value and its 95 % percentile interval."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return [round(float(v), 5) for v in (values[0], low, high)]


def summary(point: dict[str, Any]) -> dict[str, Any]:
    """Return a point as it is recorded."""
    return {
        "family": point["family"],
        "cpu_seconds": round(point["cpu_seconds"], 2),
        "auc": round(point["auc"], 4),
        "test": {k: spread(v) for k, v in point["draws"].items()},
    }


def at_accuracy(curve: list[dict[str, Array]], accuracy: float, gap: str) -> tuple[Array, Array]:
    """Return accuracy and gap, with their resamples, of the coin that has this accuracy.

    Beyond the ends of the curve its end is returned.
    """
    ordered = sorted(curve, key=lambda draws: float(draws["accuracy"][0]))
    own = np.array([float(draws["accuracy"][0]) for draws in ordered])
    above = int(np.clip(np.searchsorted(own, accuracy), 1, len(own) - 1))
    low, high = ordered[above - 1], ordered[above]
    width = own[above] - own[above - 1]
    share = float(np.clip((accuracy - own[above - 1]) / width, 0, 1)) if width > 0 else 1.0
    return tuple(share * high[k] + (1 - share) * low[k] for k in ("accuracy", gap))  # type: ignore[return-value]


def compare(
    points: dict[str, dict[str, Any]], kinds: list[tuple[str, float]]
) -> list[dict[str, Any]]:
    """Return, for each point of a peer, kind of penalty and gap, the paired differences."""
    found = []
    for label, peer in points.items():
        if peer["family"] not in ("fairret", "fairlearn"):
            continue
        for kind, tau in kinds:
            curve = [points["none"]["draws"]] + [
                points[f"{kind} tau={tau:g} lambda={strength:g}"]["draws"]
                for strength in STRENGTHS
            ]
            for gap in ("group_gap", "intersectional_gap", "distributional_gap",
                        "decision_gap"):  # fmt: skip
                accuracy, own = at_accuracy(curve, float(peer["draws"]["accuracy"][0]), gap)
                change = spread(own - peer["draws"][gap])
                found.append({
                    "peer": label,
                    "ours": f"{kind} tau={tau:g}",
                    "gap": gap,
                    "accuracy_minus_theirs": spread(accuracy - peer["draws"]["accuracy"]),
                    "gap_minus_theirs": change,
                    "reading": "smaller" if change[2] < 0
                    else "larger" if change[1] > 0 else "no difference shown",
                })  # fmt: skip
    return found


def tally(against: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Return how often each reading occurs, by kind of penalty and gap."""
    out: dict[str, dict[str, dict[str, int]]] = {}
    for entry in against:
        counts = out.setdefault(entry["ours"], {}).setdefault(entry["gap"], {})
        counts[entry["reading"]] = counts.get(entry["reading"], 0) + 1
    return out


def main() -> None:
    """Run both data sets and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decisions", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.decisions:
        found = run("adult", *adult(), args.seeds, brief=True)
        record("fair_frontiers_decisions", {"seeds": args.seeds, "adult": found})
        return
    results: dict[str, Any] = {
        "fairret": importlib.metadata.version("fairret")
        if importlib.util.find_spec("fairret")
        else "not installed: left out",
        "seeds": args.seeds,
        "network": f"{HIDDEN} ReLU, Adam {RATE}, batches of {BATCH}, epochs {EPOCHS}",
    }
    for name, load in (("adult", adult), ("compas", compas)):
        results[name] = run(name, *load(), args.seeds)
    record("fair_frontiers", results, seeds={"first": 0, "number": args.seeds})


if __name__ == "__main__":
    main()
