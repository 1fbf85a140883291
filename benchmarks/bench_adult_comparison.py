"""Our estimators beside other ways to a private linear classifier on Adult, at epsilon 1.

Official test split, public schema, delta 1e-5 where a method has one, five runs each with unseeded
noise. Every method sees the same encoded columns. Those that need rows of norm 1 (output and
objective perturbation, diffprivlib) get them divided by the public bound on a row's norm, with a
constant column for the intercept. Relations differ and are in the record: ours and Opacus'
protect a record replaced by nothing, the classical two a record replaced by any other.

diffprivlib is no dependency of this package: without it, its line is left out and the reason is
recorded. ``pip install --no-deps --target DIR "diffprivlib==0.6.6" "scikit-learn==1.5.2"``, and
``DIFFPRIVLIB_PATH=DIR``. Needs the real files (``PRIVFAIR_DATA_DIR``).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _record import record
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from privfair.accounting import Ledger, calibrate_noise_multiplier
from privfair.datasets import fetch_adult
from privfair.dp import DPClassifier, PrivateTableEncoder

EPSILON, DELTA, RUNS = 1.0, 1e-5, 5
VERSIONS: dict[str, str] = {}
L2 = 1e-3  # of output perturbation; 3e-4 of objective perturbation
Scores = Callable[[int], np.ndarray]


def minimise(X: np.ndarray, sign: np.ndarray, l2: float, linear: np.ndarray) -> np.ndarray:
    """Return the minimum of the mean logistic loss + l2/2 |w|^2 + linear . w."""

    def value(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (X @ w)
        loss = np.logaddexp(0, -margin).mean() + l2 / 2 * w @ w + linear @ w
        slope = -(X.T @ (sign * expit(-margin))) / len(X) + l2 * w + linear
        return float(loss), slope

    start = np.zeros(X.shape[1])
    found = minimize(
        value, start, jac=True, method="L-BFGS-B",
        options={"maxiter": 5_000, "ftol": 1e-15, "gtol": 1e-9},
    )  # fmt: skip
    return np.asarray(found.x)


def output_perturbation(X: np.ndarray, sign: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise on the minimum: it moves by at most 2 / (n l2) (Chaudhuri et al. 2011)."""
    sigma = calibrate_noise_multiplier(epsilon=EPSILON, delta=DELTA, sample_rate=1.0, steps=1)
    best = minimise(X, sign, L2, np.zeros(X.shape[1]))
    return best + rng.normal(0, sigma * 2 / (len(X) * L2), len(best))


def objective_perturbation(
    X: np.ndarray, sign: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Algorithm 2 of Chaudhuri, Monteleoni, Sarwate (2011), pure epsilon; logistic c = 1/4."""
    n, d, l2, c = len(X), X.shape[1], 3e-4, 0.25
    rest = EPSILON - math.log(1 + 2 * c / (n * l2) + c**2 / (n * l2) ** 2)
    more = 0.0
    if rest <= 0:
        more = max(0.0, c / (n * (math.exp(EPSILON / 4) - 1)) - l2)
        rest = EPSILON / 2
    direction = rng.normal(size=d)
    b = direction / np.linalg.norm(direction) * rng.gamma(d, 2 / rest)
    return minimise(X, sign, l2 + more, b / n)


def opacus_sgd(X: np.ndarray, y: np.ndarray, ours: DPClassifier) -> np.ndarray:
    """Opacus' clipping and noise at our sampling rate, noise multiplier, steps and optimiser."""
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    plan = ours.plan_
    linear = torch.nn.Linear(X.shape[1], 1)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    model = GradSampleModule(linear)
    optimizer = DPOptimizer(
        torch.optim.Adam(model.parameters(), lr=0.05),
        noise_multiplier=ours.noise_multiplier_,
        max_grad_norm=plan.max_grad_norm,
        expected_batch_size=plan.expected_batch_size,
    )
    inputs, targets = torch.from_numpy(X).float(), torch.from_numpy(y).float()
    loss = torch.nn.BCEWithLogitsLoss()
    for _ in range(plan.steps):
        rows = torch.rand(len(X)) < plan.sample_rate
        optimizer.zero_grad()
        loss(model(inputs[rows])[:, 0], targets[rows]).backward()
        optimizer.step()
    return np.r_[linear.weight.detach().numpy()[0], linear.bias.detach().numpy()]


CHILD = """
import sys, warnings
import numpy as np
warnings.simplefilter("ignore")
import diffprivlib, sklearn
from diffprivlib.models import LogisticRegression
data = np.load(sys.argv[1])
model = LogisticRegression(epsilon=float(sys.argv[2]), data_norm=1.0, max_iter=1_000)
model.fit(data["X"], data["y"])
np.save(sys.argv[1] + ".scores.npy", data["X_test"] @ model.coef_[0] + model.intercept_[0])
print(diffprivlib.__version__, sklearn.__version__)
"""


def diffprivlib_scores(X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> np.ndarray:
    """Run diffprivlib in a process of its own: it needs an older scikit-learn than we do."""
    place = os.environ.get("DIFFPRIVLIB_PATH")
    if place is None:
        raise ImportError("DIFFPRIVLIB_PATH is not set", name="diffprivlib")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.npz")
        np.savez(path, X=X, y=y, X_test=X_test)
        run = subprocess.run(
            [sys.executable, "-c", CHILD, path, str(EPSILON)],
            env={**os.environ, "PYTHONPATH": place}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if run.returncode:
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ImportError(f"diffprivlib does not run: {reason}")
        VERSIONS.update(zip(("diffprivlib", "its scikit-learn"), run.stdout.split(), strict=True))
        return np.load(path + ".scores.npy")


def main() -> None:
    train, test = fetch_adult(split="train"), fetch_adult(split="test")
    y, y_test = train.target.to_numpy().astype(int), test.target.to_numpy().astype(int)
    encoder = PrivateTableEncoder(schema=train.schema).fit(train.data)
    X, X_test = encoder.transform(train.data), encoder.transform(test.data)
    norm = math.sqrt(encoder.max_row_norm_**2 + 1)
    unit = np.c_[X, np.ones(len(X))] / norm
    unit_test = np.c_[X_test, np.ones(len(X_test))] / norm
    sign = 2.0 * y - 1.0
    rng = np.random.default_rng()
    ours: dict[str, Any] = {}

    def fitted(name: str, **options: Any) -> Scores:
        def scores(seed: int) -> np.ndarray:
            ours[name] = DPClassifier(
                **{"epsilon": EPSILON, "delta": DELTA, "schema": train.schema, **options},
                random_state=seed, ledger=Ledger(), device="cpu",
            ).fit(train.data, y)  # fmt: skip
            return ours[name].decision_function(test.data)

        return scores

    def opacus(seed: int) -> np.ndarray:
        w = opacus_sgd(X, y, ours["DPClassifier"])
        return X_test @ w[:-1] + w[-1]

    methods: dict[str, tuple[str, Scores]] = {
        "DPClassifier": ("zero_out", fitted("DPClassifier")),
        "DPClassifier, public bins": ("zero_out", fitted("bins", binning="public")),
        "DPClassifier, private bins": ("zero_out", fitted("cuts", binning="dp_quantiles")),
        "DPClassifier, epsilon=inf, the twin": ("none", fitted("twin", epsilon=math.inf)),
        "Opacus DP-SGD, same plan": ("zero_out", opacus),
        "output perturbation, Gaussian": (
            "replace_one", lambda seed: unit_test @ output_perturbation(unit, sign, rng),
        ),
        "objective perturbation, delta 0": (
            "replace_one", lambda seed: unit_test @ objective_perturbation(unit, sign, rng),
        ),
        "diffprivlib LogisticRegression, delta 0": (
            "replace_one", lambda seed: diffprivlib_scores(unit[:, :-1], y, unit_test[:, :-1]),
        ),
        "scikit-learn LogisticRegression, same columns": (
            "none", lambda seed: LogisticRegression(max_iter=2_000).fit(X, y)
            .decision_function(X_test),
        ),
    }  # fmt: skip
    results: dict[str, Any] = {
        "data": {"train_rows": len(X), "test_rows": len(X_test), "sha256": str(train.sha256)},
        "epsilon": EPSILON,
        "delta": DELTA,
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
    }
    for name, (relation, method) in methods.items():
        runs = 1 if name.startswith("scikit") else RUNS
        try:
            rows = [method(seed) for seed in range(runs)]
        except ImportError as error:
            results[name] = {"skipped": str(error)}
            print(name, "skipped", flush=True)
            continue
        accuracy = [float(((scores > 0) == y_test).mean()) for scores in rows]
        auc = [float(roc_auc_score(y_test, scores)) for scores in rows]
        results[name] = {
            "relation": relation, "accuracy": accuracy, "auc": auc,
            "mean": {"accuracy": float(np.mean(accuracy)), "auc": float(np.mean(auc))},
            "sd": None if runs == 1 else {
                "accuracy": float(np.std(accuracy, ddof=1)), "auc": float(np.std(auc, ddof=1)),
            },
        }  # fmt: skip
        print(name, np.round(np.mean(accuracy), 4), np.round(np.mean(auc), 4), flush=True)
    results["versions_of_others"] = VERSIONS
    record("adult_comparison", results, seeds={"random_state": RUNS})


if __name__ == "__main__":
    main()
