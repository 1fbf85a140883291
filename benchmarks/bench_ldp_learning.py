"""Accuracy on Adult of what is learnt from locally randomised rows, beside central privacy.

Five ways at each epsilon, three draws of the noise each (unseeded, so that figures move a little
from run to run; their standard deviation is recorded), official test split, official test rows
read by nothing but the final score. No setting was tuned: epsilon is the only thing that varies.

- ``lr_randomised``: logistic regression on indicators of training rows; test rows are randomised
  as well, with the same epsilon. Labels are read as they are.
- ``lr_debiased``: the same model on unbiased indicators, evaluated on the plain rows of the users'
  own devices. Labels are read as they are.
- ``naive_bayes``: :class:`LDPNaiveBayes`; attributes and labels are both randomised.
- ``naive_bayes_raw``: without shrinkage.
- ``central``: DPClassifier, which trusts the server with rows and labels.

Each also on four columns chosen from what is generally known about income, not from the data.
Needs the real files (``PRIVFAIR_DATA_DIR``).
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from _record import record
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from privfair.accounting import Ledger
from privfair.datasets import fetch_adult
from privfair.dp import DPClassifier
from privfair.ldp import LDPNaiveBayes, LDPTransformer

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, float("inf"))
DRAWS = 3
FEW = ["age", "education-num", "marital-status", "capital-gain"]


def logistic(train: Any, test: Any, schema: Any, epsilon: float, *, debiased: bool) -> float:
    output = "debiased" if debiased else "indicators"
    devices = LDPTransformer(schema=schema, epsilon=epsilon, output=output, ledger=Ledger())
    model = LogisticRegression(max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(devices.fit_transform(train[0]), train[1])
    rows = devices.encode(test[0]) if debiased else devices.transform(test[0])
    return float((model.predict(rows) == test[1]).mean())


def bayes(train: Any, test: Any, schema: Any, epsilon: float, shrinkage: str | None) -> float:
    model = LDPNaiveBayes(schema=schema, epsilon=epsilon, shrinkage=shrinkage, ledger=Ledger())
    return float((model.fit(*train).predict(test[0]) == test[1]).mean())


def central(train: Any, test: Any, schema: Any, epsilon: float) -> float:
    model = DPClassifier(schema=schema, epsilon=epsilon, device="cpu", ledger=Ledger())
    return float((model.fit(*train).predict(test[0]) == test[1]).mean())


WAYS: dict[str, Any] = {
    "lr_randomised": lambda *a: logistic(*a, debiased=False),
    "lr_debiased": lambda *a: logistic(*a, debiased=True),
    "naive_bayes": lambda *a: bayes(*a, "james_stein"),
    "naive_bayes_raw": lambda *a: bayes(*a, None),
    "central": central,
}


def main() -> None:
    train, test = fetch_adult(split="train"), fetch_adult(split="test")
    truth = test.target.to_numpy()
    results: dict[str, Any] = {
        "data": {"train_rows": len(train.data), "test_rows": len(test.data)},
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "majority_class": float(max(np.mean(truth == c) for c in np.unique(truth))),
        "four_columns": FEW,
    }
    for label, columns in (("all_columns", list(train.schema)), ("four", FEW)):
        schema = train.schema.select(columns)
        rows = (train.data[columns], train.target), (test.data[columns], truth)
        for epsilon in EPSILONS:
            line: dict[str, Any] = {}
            for name, way in WAYS.items():
                runs = [
                    way(*rows, schema, epsilon)
                    for _ in range(DRAWS if np.isfinite(epsilon) else 1)
                ]
                line[name] = {
                    "runs": [round(value, 4) for value in runs],
                    "mean": round(float(np.mean(runs)), 4),
                    "sd": round(float(np.std(runs, ddof=1)), 4) if len(runs) > 1 else None,
                }
            results[f"{label}, epsilon {epsilon:g}"] = line
            print(label, epsilon, {name: cell["mean"] for name, cell in line.items()}, flush=True)
    record("ldp_learning", results)


if __name__ == "__main__":
    main()
