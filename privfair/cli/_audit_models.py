"""What ``privfair audit adult`` trains: a plain baseline and its private twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["adult_baseline", "adult_models", "audit_ledgers"]


def adult_baseline(X: Any, y: Any) -> Any:
    """Return the logistic regression of the literature, fitted.

    All eight categorical columns one-hot with their category "missing", numeric columns
    standardised, education-num kept, fnlwgt not a feature.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = [c for c in X.columns if X[c].dtype.kind in "iuf"]
    categorical = [c for c in X.columns if c not in numeric]
    encode = ColumnTransformer(
        [
            ("numeric", StandardScaler(), numeric),
            ("categorical", OneHotEncoder(handle_unknown="ignore"), categorical),
        ]
    )
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
    return Pipeline([("encode", encode), ("model", model)]).fit(X, y)


def adult_models(
    train: Any, *, epsilon: float, delta: float | None, seed: int, ledger: Any, with_dp: bool
) -> dict[str, Any]:
    """Return the fitted models by the name that the report shows."""
    if ledger is not None:
        # Its metrics are published, and nothing protects the rows that it was trained on.
        ledger.record_non_private(purpose="baseline without privacy", label="LogisticRegression")
    models = {"LogisticRegression": adult_baseline(train.data, train.target)}
    if with_dp:
        from privfair.dp import DPClassifier

        twin = DPClassifier(
            epsilon=epsilon,
            delta="auto" if delta is None else delta,
            schema=train.schema,
            random_state=seed,
            ledger=ledger,
        )
        models[f"DPClassifier, epsilon {epsilon:g}"] = twin.fit(train.data, train.target)
    return models


def audit_ledgers(path: Path | None, name: str) -> tuple[Any, Any]:
    """Return the ledgers of the training rows and of the audited rows.

    They are two data sets, so two files: ``ledger.db`` and ``ledger-audited.db`` beside it.
    """
    from privfair.accounting import Ledger

    train, audited = f"{name} training rows", f"{name} audited rows"
    if path is None:
        return Ledger(dataset_id=train), Ledger(dataset_id=audited)
    beside = path.with_name(f"{path.stem}-audited{path.suffix}")
    return Ledger(path, dataset_id=train), Ledger(beside, dataset_id=audited)
