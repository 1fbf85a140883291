"""From what is given to what is audited: inputs are checked, the release is entered or made."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from privfair.core.exceptions import DataError, PrivacyError
from privfair.core.frames import as_table, as_vector, check_aligned
from privfair.report._catalogue import catalogue
from privfair.report._clean import clean_label
from privfair.report._clients import read_clients
from privfair.report._config import AuditConfig
from privfair.report._context import AuditContext
from privfair.report._environment import environment
from privfair.report._inputs import binary_labels, positive_class, read_groups, read_models
from privfair.report._local import check_collection
from privfair.report._model import DatasetInfo
from privfair.report._private import Sealed, check_private, read_public_groups, release
from privfair.report._sections.attacks import read_attacks
from privfair.report._socio import read_socio
from privfair.report._sweep import read_sweep

__all__ = ["read_context"]


def read_context(
    subject: Any,
    X: Any,
    y: Any,
    sensitive_features: Any,
    client: Any,
    status: tuple[Any, Any, Any, Any],
    reference: Any,
    studies: tuple[Any, Any, Any],
    ledger: Any,
    config: AuditConfig,
    seed: int,
) -> AuditContext:
    """Return what sections build from; refuse what cannot be audited."""
    text = catalogue(config.language)
    given: dict[str, Any] = {
        "X": X, "y": y, "sensitive_features": sensitive_features, "client": client,
        "ses_features": status[2], "effort_features": status[3],
    }  # fmt: skip
    n = check_aligned(**{k: v for k, v in given.items() if v is not None})
    if n == 0:
        raise DataError("there are no rows to audit; the table is empty.")
    check_private(config, sensitive_features)
    private = config.dp_report is not None
    read = read_public_groups if private else read_groups
    groups, levels = read(sensitive_features, config)
    clients: Any = None
    socio: Any = None
    if not private:
        clients = read_clients(client, config)
        socio = read_socio(*status, X, sensitive_features, n)
    else:
        # Not even looked at: what is wrong with a column would be an unpaid answer about rows.
        clients = None if client is None else Sealed()
        socio = None if status[0] is None else Sealed()
    raw = None if y is None else as_vector(y, name="y")
    positive: Any = 1 if config.pos_label is None else config.pos_label
    labels = None
    if raw is not None:
        positive = positive_class(raw, config.pos_label, "y", private=private)
        labels = binary_labels(raw, positive, "y", private)
    dataset = config.dataset or DatasetInfo()
    if config.rows is not None:
        dataset = replace(dataset, rows=config.rows)
    if not dataset.positive:
        dataset = replace(dataset, positive=clean_label(positive))
    models, chosen = read_models(subject, reference, X, raw, positive, n, given, private)
    attacks, sweep, collection = studies
    check_collection(collection)
    attacked = read_attacks(attacks, models, config)
    swept = read_sweep(sweep, X, positive, n, config, dataset.rows)
    voids = _training_rows(models, dataset, config)
    voids += [m.name for m, r in attacked
              if r.details.get("voids_certificate") and m.name not in voids]  # fmt: skip
    ctx = AuditContext(
        models=models,
        reference=chosen,
        labels=labels,
        groups=groups,
        levels=levels,
        features=None if X is None else as_table(X, name="X"),
        config=config,
        dataset=dataset,
        seed=seed,
        ledger=ledger,
        text=text,
        environment=environment(),
        attacks=attacked,
        sweep=swept,
        collection=collection,
        clients=clients,
        socio=socio,
    )
    if private:
        ctx.release = release(ctx, voids)
    else:
        ctx.release = _enter(ledger, dataset, config, voids)
    return ctx


def _training_rows(models: list[Any], dataset: DatasetInfo, config: AuditConfig) -> list[str]:
    """Refuse raw numbers about rows that a certificate protects; return what they would void."""
    if dataset.rows != "training":
        return []
    if config.dp_report is not None:
        _only_private(models)
        return []
    private = [
        m.name for m in models if m.privacy is not None and math.isfinite(m.privacy.epsilon)
    ]
    if private and not config.allow_raw_training_rows:
        raise PrivacyError(
            f"the audited rows trained {', '.join(private)}, whose certificate promises that "
            "nothing else about them becomes known. Raw counts in a report would break it. Audit "
            "held-out rows, or pass allow_raw_training_rows=True (on the command line "
            "--allow-raw-training-rows): then the report shows the certificate as void."
        )
    return private


def _only_private(models: list[Any]) -> None:
    """Refuse a private report about rows that a non-private model was trained on.

    One record then changes that model, and with it the decisions on all rows: no noise of the
    size of one row would cover that. The decisions of a private model are post-processing.
    """
    for model in models:
        if model.privacy is None or not math.isfinite(model.privacy.epsilon):
            raise PrivacyError(
                f"{model.name} was trained on the audited rows without privacy, so that each of "
                "its decisions depends on all of them, and a report under differential privacy "
                "would claim too much. Audit held-out rows, or private models only."
            )


def _enter(
    ledger: Any, dataset: DatasetInfo, config: AuditConfig, voids: list[str]
) -> dict[str, Any]:
    """Write the raw report into the ledger of the audited rows, before anything is computed."""
    from privfair.accounting import default_ledger
    from privfair.accounting.events import NonPrivate

    name = f"{dataset.name} {dataset.split}".strip() + " (audited rows)"
    book = default_ledger(name) if ledger is None else ledger
    with book.spend(NonPrivate(), purpose="raw audit report") as entry:
        pass
    return {
        "kind": "raw",
        "dataset_id": str(getattr(book, "dataset_id", name)),
        "ledger": None if getattr(book, "path", None) is None else Path(book.path).name,
        "entry": int(entry.entry_id),
        "privacy": None,
        "min_cell": config.min_cell,
        "voids": voids,
    }
